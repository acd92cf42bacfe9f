//! Endpoints between threads of one process, where the thread sanitizer sees
//! what they share: the halves, the heartbeat thread, and those who ask
//! meanwhile.
#![cfg(target_os = "linux")]

use polyshm_eshm::{
    Connection, DisconnectBehavior, Endpoint, EndpointBuilder, Event, ReadError, Receiver, Role,
    Sender, WriteError,
};
use polyshm_platform::Deadline;
use polyshm_testkit::Name;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const WATCHDOG: Duration = Duration::from_mins(1);
const ROUNDS: u64 = 2000;

/// Threads that are waited for by a counter of our own: the sanitizer does not
/// see the standard library's joins.
#[derive(Default)]
struct Crew {
    ended: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn send(&mut self, work: impl FnOnce() + Send + 'static) {
        let ended = Arc::clone(&self.ended);
        self.threads.push(thread::spawn(move || {
            work();
            ended.fetch_add(1, AcqRel);
        }));
    }

    #[track_caller]
    fn wait(self) {
        let deadline = Deadline::after(WATCHDOG);
        // One that failed is finished, and not counted.
        while self.ended.load(Acquire) < self.threads.len()
            && !self.threads.iter().all(JoinHandle::is_finished)
        {
            assert!(!deadline.expired(), "a thread does not end");
            thread::sleep(Duration::from_millis(1));
        }
        for thread in self.threads {
            thread.join().expect("it does not fail");
        }
    }
}

fn builder(role: Role) -> EndpointBuilder {
    Endpoint::builder()
        .role(role)
        .stale_threshold(Duration::from_millis(50))
        .reconnect_interval(Duration::from_millis(2))
        .disconnect_behavior(DisconnectBehavior::Never)
}

/// A message whose every byte follows from its number.
fn message(number: u64) -> [u8; 64] {
    let mut bytes = [number as u8; 64];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

#[track_caller]
fn number(data: &[u8]) -> u64 {
    let (first, _) = data.split_first_chunk::<8>().expect("eight bytes");
    let number = u64::from_le_bytes(*first);
    assert_eq!(data, message(number), "torn");
    number
}

fn write_all(mut sender: Sender) -> Sender {
    for number in 1..=ROUNDS {
        sender.write(&message(number)).expect("it is connected");
        if number % 64 == 0 {
            thread::yield_now();
        }
    }
    sender
}

/// Reads up to the last.
fn read_all(mut receiver: Receiver) -> Receiver {
    let mut last = 0;
    while last < ROUNDS {
        let got = receiver.read_timeout(WATCHDOG).expect("more comes");
        assert_eq!(got.number(), number(&got));
        assert_eq!(got.number(), last + got.lost() + 1);
        last = got.number();
    }
    receiver
}

#[test]
fn halves_work_in_threads_of_their_own_while_others_ask() {
    let name = Name::new("eshm-threads-halves");
    let master = builder(Role::Master).stale_threshold(WATCHDOG);
    let master = master.open(&name).expect("the name is free");
    let slave = builder(Role::Slave).open(&name).expect("there is a master");
    let ((to_slave, from_slave), (to_master, from_master)) = (master.split(), slave.split());
    let mut crew = Crew::default();
    let end = Arc::new(AtomicBool::new(false));
    for (sender, receiver) in [(to_slave, from_slave), (to_master, from_master)] {
        let events = receiver.events();
        let told = Arc::clone(&end);
        let both = Arc::new(AtomicUsize::new(0));
        let done = Arc::clone(&both);
        crew.send(move || {
            let sender = write_all(sender);
            done.fetch_add(1, AcqRel);
            // The half that is there asks for the whole.
            loop {
                let stats = sender.stats();
                let connection = sender.connection();
                let beat = sender.update_heartbeat();
                let _ = (sender.remote(), sender.role());
                while events.try_next().is_some() {}
                // From then on the other side may be gone.
                if told.load(Acquire) {
                    break;
                }
                assert!(stats.master_alive && stats.slave_alive);
                assert_eq!(connection, Connection::Attached);
                beat.expect("it is attached");
            }
        });
        let told = Arc::clone(&end);
        crew.send(move || {
            drop(read_all(receiver));
            both.fetch_add(1, AcqRel);
            while both.load(Acquire) < 2 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(20));
            told.store(true, Release);
        });
    }
    crew.wait();
    name.assert_nothing_left();
}

#[test]
fn a_slave_goes_from_master_to_master_while_its_halves_are_used() {
    const MASTERS: u64 = 30;
    let name = Name::new("eshm-threads-moves");
    let open = || builder(Role::Master).open(&name).expect("it is free");
    let mut master = open();
    let (reconnections, count) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let on_event = Arc::clone(&reconnections);
    let slave = builder(Role::Slave)
        .on_event(move |event| {
            if let Event::Reconnected {
                recreated: true, ..
            } = event
            {
                on_event.fetch_add(1, AcqRel);
            }
        })
        .open(&name)
        .expect("there is a master");
    let (mut sender, mut receiver) = slave.split();
    let mut crew = Crew::default();
    let heard = Arc::clone(&count);
    crew.send(move || {
        loop {
            match receiver.read_timeout(WATCHDOG) {
                Ok(got) if number(&got) == u64::MAX => break,
                Ok(got) => heard.store(number(&got), Release),
                Err(error) => panic!("{error}"),
            }
        }
        receiver.close();
        assert!(matches!(receiver.try_read(), Err(ReadError::Closed { .. })));
    });
    crew.send(move || {
        let mut number = 0;
        loop {
            number += 1;
            match sender.write(&message(number)) {
                Ok(()) | Err(WriteError::Reconnecting { .. }) => thread::yield_now(),
                Err(WriteError::Closed { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
    });
    for generation in 1..=MASTERS {
        let deadline = Deadline::after(WATCHDOG);
        while count.load(Acquire) < generation {
            assert!(!deadline.expired(), "master {generation} is not heard");
            master.write(&message(generation)).expect("a master writes");
            if let Some(got) = master.try_read().expect("it is open") {
                number(&got);
            }
        }
        drop(master);
        master = open();
    }
    assert!(reconnections.load(Acquire) + 1 >= MASTERS);
    // Until it is heard, and the slave with it gone.
    let deadline = Deadline::after(WATCHDOG);
    while crew.ended.load(Acquire) < 2 {
        assert!(!deadline.expired(), "the last message is not heard");
        master.write(&message(u64::MAX)).expect("a master writes");
        thread::sleep(Duration::from_millis(1));
    }
    crew.wait();
    drop(master);
    name.assert_nothing_left();
}

/// The heartbeat thread ends with the last endpoint and starts with the next.
#[test]
fn endpoints_come_and_go_in_several_threads() {
    let mut crew = Crew::default();
    for _ in 0..3 {
        crew.send(|| {
            for _ in 0..100 {
                let name = Name::new("eshm-threads-churn");
                let mut master = Endpoint::master(&name).expect("the name is free");
                let mut slave = Endpoint::slave(&name).expect("there is a master");
                master.write(&message(1)).expect("it fits");
                let got = slave.read_timeout(WATCHDOG).expect("it comes");
                assert_eq!(number(&got), 1);
                drop(slave);
                drop(master);
                name.assert_nothing_left();
            }
        });
    }
    crew.wait();
}

#[test]
fn an_endpoint_is_closed_under_its_users() {
    for round in 0..20 {
        let name = Name::new("eshm-threads-close");
        let master = Endpoint::master(&name).expect("the name is free");
        let slave = builder(Role::Slave).open(&name).expect("there is a master");
        let (closer, mut receiver) = slave.split();
        let mut crew = Crew::default();
        crew.send(move || {
            let error = receiver.read_timeout(WATCHDOG).expect_err("nobody writes");
            assert!(matches!(error, ReadError::Closed { .. }), "{error}");
        });
        thread::sleep(Duration::from_millis(round % 3));
        if round % 2 == 0 {
            closer.close();
        } else {
            crew.send(move || closer.close());
        }
        crew.wait();
        drop(master);
        name.assert_nothing_left();
    }
}

/// On the heartbeat thread itself, which then ends.
#[test]
fn a_callback_closes_its_endpoint() {
    for _ in 0..20 {
        let name = Name::new("eshm-threads-callback");
        let mut master = Endpoint::master(&name).expect("the name is free");
        let own: Arc<OnceLock<Sender>> = Arc::default();
        let of_callback = Arc::clone(&own);
        let slave = builder(Role::Slave)
            .on_event(move |event| {
                if let (Event::Stale { .. }, Some(sender)) = (event, of_callback.get()) {
                    assert_eq!(sender.role(), Role::Slave);
                    sender.close();
                }
            })
            .open(&name)
            .expect("there is a master");
        let (sender, mut receiver) = slave.split();
        own.set(sender).expect("it is empty");
        let mut crew = Crew::default();
        crew.send(move || {
            let got = receiver.read_timeout(WATCHDOG).expect("it comes");
            assert_eq!(number(&got), 1);
            let error = receiver
                .read_timeout(WATCHDOG)
                .expect_err("it was the last");
            assert!(matches!(error, ReadError::Closed { .. }), "{error}");
        });
        master.write(&message(1)).expect("a master writes");
        let deadline = Deadline::after(WATCHDOG);
        while master.stats().m2s_read_count == 0 {
            assert!(!deadline.expired(), "it is not read");
            thread::sleep(Duration::from_millis(1));
        }
        drop(master);
        crew.wait();
        drop(own);
        name.assert_nothing_left();
    }
}
