//! Stores and FIFOs between threads of one process, where the thread sanitizer
//! sees what they share.
#![cfg(target_os = "linux")]

use polyshm_slots::{
    ArrayValue, Deadline, DynamicFields, OnFull, Options, Reading, Schema, SlotFifo, SlotStore,
    Values, WaitStrategy,
};
use polyshm_testkit::Name;
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const WATCHDOG: Duration = Duration::from_mins(1);
const ROUNDS: u64 = 1000;

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

/// Made anew where it is used: the sanitizer does not see how the standard
/// library hands on what is made once. The second array is large.
fn schema() -> Schema {
    "number: uint64[1], text: str[20], data: uint64[300]"
        .parse()
        .expect("a schema")
}

fn record(number: u64) -> Values {
    let array = |of: &[u64]| ArrayValue::from_elements(vec![of.len()], of);
    Values::new()
        .with("number", array(&[number]).expect("the shape fits"))
        .with("text", number.to_string())
        .with("data", array(&[number; 300]).expect("the shape fits"))
}

#[track_caller]
fn number(fields: &DynamicFields) -> u64 {
    let field = |name| fields.get(name).expect("it is there");
    let number = field("number").to_vec::<u64>().expect("numbers")[0];
    let text = field("text").text().expect("text");
    assert_eq!(text.parse(), Ok(number), "torn");
    let data = field("data").to_vec::<u64>().expect("numbers");
    assert_eq!(data, [number; 300], "torn");
    number
}

const STRATEGIES: [WaitStrategy; 2] = [WaitStrategy::Adaptive, WaitStrategy::Block];

#[test]
fn one_writes_and_others_read_and_ask_for_copies() {
    for (options, strategy) in [Options::new(), Options::new().trailer(false)]
        .into_iter()
        .zip(STRATEGIES)
    {
        let name = Name::new("slots-threads-store");
        let options = options.wait_strategy(strategy);
        let store = SlotStore::create_dynamic(&name, &schema(), options).expect("it is free");
        let mut crew = Crew::default();
        for _ in 0..2 {
            let mut reader = store.clone();
            crew.send(move || {
                let (mut last, mut snapshot) = (0, reader.empty());
                while last < ROUNDS {
                    match reader.read_new_into(&mut snapshot, WATCHDOG) {
                        Ok(()) => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(snapshot.number(), number(&snapshot));
                    assert!(snapshot.number() > last, "{last} again");
                    last = snapshot.number();
                    if last % 16 == 0 {
                        // The flags of a record that may be replaced meanwhile.
                        reader.reset_modified().expect("it gets its turn");
                        if let Some(seen) = reader.try_read() {
                            assert_eq!(seen.number(), number(&seen));
                            last = seen.number();
                        }
                    }
                }
            });
        }
        let mut writer = store.clone();
        crew.send(move || {
            for number in 1..=ROUNDS {
                writer.write(record(number)).expect("it gets its turn");
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
        });
        crew.wait();
        assert!(store.unlink().expect("it can be removed"));
        name.assert_nothing_left();
    }
}

#[test]
fn several_write_one_store() {
    for trailer in [true, false] {
        let name = Name::new("slots-threads-writers");
        let options = Options::new()
            .trailer(trailer)
            .lock_timeout(Duration::from_secs(30));
        let mut store = SlotStore::create_dynamic(&name, &schema(), options).expect("it is free");
        let mut crew = Crew::default();
        for writer in 0..3 {
            let mut store = store.clone();
            crew.send(move || {
                for round in 0..ROUNDS / 4 {
                    let written = store.write(record(writer << 32 | round));
                    written.expect("it gets its turn");
                    if round % 50 == 0 {
                        assert!(!store.repair().expect("it gets its turn"));
                    }
                }
            });
        }
        let end = Arc::new(AtomicBool::new(false));
        let (told, mut reader) = (Arc::clone(&end), store.clone());
        let looking = thread::spawn(move || {
            let mut last = [None; 3];
            while !told.load(Acquire) {
                let Some(seen) = reader.try_read_new() else {
                    continue;
                };
                let number = number(&seen);
                let before = &mut last[(number >> 32) as usize];
                assert!(*before < Some(number), "{before:?}, then {number:x}");
                *before = Some(number);
            }
        });
        crew.wait();
        end.store(true, Release);
        looking.join().expect("it does not fail");
        let seen = store.read(WATCHDOG).expect("nobody writes");
        assert_eq!(seen.number(), 3 * (ROUNDS / 4));
        number(&seen);
    }
}

#[test]
fn one_finalizes_and_all_kinds_of_readers_read() {
    for (strategy, on_full) in STRATEGIES
        .into_iter()
        .zip([OnFull::Block, OnFull::Overwrite])
    {
        let name = Name::new("slots-threads-fifo");
        let options = Options::new().wait_strategy(strategy).on_full(on_full);
        let fifo = SlotFifo::create_dynamic(&name, &schema(), 4, options).expect("it is free");
        let mut crew = Crew::default();
        let consumed = Arc::new(AtomicU64::new(0));
        for reading in [
            Reading::Registered,
            Reading::Shared,
            Reading::Shared,
            Reading::Broadcast,
        ] {
            let reader = SlotFifo::open_dynamic(&name, &schema(), 4, options.reading(reading));
            let mut reader = reader.expect("it is there");
            let consumed = Arc::clone(&consumed);
            crew.send(move || {
                let (mut next, mut item) = (0, reader.empty());
                while next < ROUNDS {
                    let read = reader.read_into(&mut item, Duration::from_millis(20));
                    match read {
                        Ok(()) => {}
                        // Another has taken the last.
                        Err(error) if error.is_timeout() && reading == Reading::Shared => {
                            if consumed.load(Acquire) >= ROUNDS - reader.overwritten().unwrap_or(0)
                            {
                                break;
                            }
                            continue;
                        }
                        Err(error) if error.is_timeout() => continue,
                        Err(error) => panic!("{error}"),
                    }
                    assert_eq!(item.index() + 1, number(&item));
                    assert_eq!(item.index() - next, item.overrun());
                    let waited_for = on_full == OnFull::Block && reading == Reading::Registered;
                    assert!(item.overrun() == 0 || !waited_for);
                    next = item.index() + 1;
                    if reading == Reading::Shared {
                        consumed.fetch_add(1, AcqRel);
                    }
                }
            });
        }
        let mut writer = fifo.try_clone().expect("no place is needed");
        crew.send(move || {
            for number in 1..=ROUNDS {
                if number % 3 == 0 {
                    writer.stage(record(0)).expect("it fits");
                    writer.stage(record(number)).expect("it fits");
                    let item = writer.finalize().expect("there is room");
                    assert_eq!(item, Some(number - 1));
                } else {
                    writer.push(record(number)).expect("there is room");
                }
                if number % 64 == 0 {
                    thread::yield_now();
                }
            }
        });
        crew.wait();
        let overwritten = fifo.overwritten().expect("it has a trailer");
        assert_eq!(consumed.load(Acquire) + overwritten, ROUNDS);
        assert!(on_full == OnFull::Overwrite || overwritten == 0);
    }
}

/// Registered readers come and go while writers wait for them.
#[test]
fn readers_come_and_go() {
    let name = Name::new("slots-threads-churn");
    let options = Options::new()
        .on_full(OnFull::Block)
        .full_timeout(Some(WATCHDOG))
        .lock_timeout(Duration::from_secs(30));
    let fifo = SlotFifo::create_dynamic(&name, &schema(), 2, options).expect("it is free");
    let end = Arc::new(AtomicBool::new(false));
    let mut crew = Crew::default();
    for _ in 0..3 {
        let end = Arc::clone(&end);
        let name = name.to_string();
        crew.send(move || {
            let options = options.reading(Reading::Registered);
            while !end.load(Acquire) {
                let reader = SlotFifo::open_dynamic(&name, &schema(), 2, options);
                let mut reader = reader.expect("there are places enough");
                let mut next = None;
                for _ in 0..10 {
                    let Ok(item) = reader.read(Duration::from_millis(5)) else {
                        break;
                    };
                    assert_eq!((item.index() + 1, item.overrun()), (number(&item), 0));
                    assert!(next.is_none_or(|next| next == item.index()));
                    next = Some(item.index() + 1);
                }
            }
        });
    }
    let mut writer = fifo.try_clone().expect("no place is needed");
    crew.send(move || {
        // Somebody else counts, or nobody would be waited for between them.
        for number in 1..=ROUNDS {
            let foreign = writer.push(record(number)).expect("there is room");
            assert_eq!(foreign, number - 1);
        }
        end.store(true, Release);
    });
    // One reader stays, so that the writer never goes by the shared index.
    let stays = options.reading(Reading::Registered);
    let mut stays = SlotFifo::open_dynamic(&name, &schema(), 2, stays).expect("there is a place");
    crew.send(move || {
        let mut next = 0;
        while next < ROUNDS {
            let item = stays.read(WATCHDOG).expect("more come");
            assert!(item.index() == next || next == 0, "{} lost", item.overrun());
            next = item.index() + 1;
        }
    });
    crew.wait();
    assert_eq!(fifo.finalized(), ROUNDS);
}

#[test]
fn segments_come_and_go_in_several_threads() {
    let mut crew = Crew::default();
    for _ in 0..3 {
        crew.send(|| {
            for round in 0..50 {
                let name = Name::new("slots-threads-open");
                let options = Options::new().trailer(round % 2 == 0);
                let mut store =
                    SlotStore::create_dynamic(&name, &schema(), options).expect("it is free");
                let mut reader =
                    SlotStore::open_dynamic(&name, &schema(), options).expect("it is there");
                store.write(record(round)).expect("nobody else writes");
                let seen = reader.read_new(WATCHDOG).expect("it was written");
                assert_eq!(number(&seen), round);
                assert!(store.unlink().expect("it can be removed"));
                name.assert_nothing_left();
            }
        });
    }
    crew.wait();
}
