//! Kills a process just before each numbered step of what an endpoint does, and
//! checks what the survivors get, and that others can take its place unaided.
//!
//! Runs under `--cfg crash_points` (`cargo xtask crash`).
#![cfg(all(crash_points, target_os = "linux"))]

use polyshm_eshm::{
    Connection, DisconnectBehavior, Endpoint, EndpointBuilder, Message, OpenError, ReadError, Role,
    WriteError,
};
use polyshm_platform::crash;
use polyshm_testkit::{Guarded, Name, Outcome, child, role, tell};
use polyshm_wire::eshm::{Description, Direction, Layout, describe, offset};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

const CAPACITY: usize = 200;
const THRESHOLD: Duration = Duration::from_millis(30);
/// A survivor's deadline when it looks for what the dead one left.
const DEADLINE: Duration = Duration::from_millis(20);
/// How much later a loaded machine may let a read return.
const SLACK: Duration = Duration::from_secs(5);
/// What nothing should take.
const WATCHDOG: Duration = Duration::from_secs(20);
/// Who wrote a message.
const PARENT: u8 = 1;
const VICTIM: u8 = 2;
/// No process can have it.
const DEAD_PID: i32 = i32::MAX;

/// A message whose every byte follows from its writer, its number and its
/// length.
fn message(writer: u8, number: u64, len: usize) -> Vec<u8> {
    let start = (number as u8).wrapping_mul(37) ^ writer << 6;
    (0..len)
        .map(|index| match index {
            0 => writer,
            1 => number as u8,
            _ => (index as u8).wrapping_add(start),
        })
        .collect()
}

/// Checks that a message is one of those, and none of two mixed; gives its
/// writer. Empty ones have none.
#[track_caller]
fn whole(data: &[u8]) -> Option<u8> {
    let &[writer, number, ..] = data else {
        assert!(data.is_empty(), "cut: {data:?}");
        return None;
    };
    assert!(
        data == message(writer, number.into(), data.len()),
        "torn: {data:?}"
    );
    Some(writer)
}

/// An endpoint that notices deaths soon.
fn config(role: Role) -> EndpointBuilder {
    Endpoint::builder()
        .role(role)
        .capacity(CAPACITY as u64)
        .stale_threshold(THRESHOLD)
        .disconnect_behavior(DisconnectBehavior::Never)
        .reconnect_interval(Duration::from_millis(5))
}

/// Of the process that may die: without a thread, so that its steps are the
/// same each time.
fn of_victim(role: Role) -> EndpointBuilder {
    config(role).threads(false)
}

fn file_of(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("eshm_{name}"))
}

fn layout() -> Layout {
    Layout::new(CAPACITY as u64).expect("it is small")
}

/// What other implementations see in the object; `None` when there is none.
fn view(name: &str) -> Option<Description> {
    let image = fs::read(file_of(name)).ok()?;
    Some(describe(&image, &layout()).expect("whoever finds it can use it"))
}

/// Stores bytes as somebody did who is dead.
fn poke(name: &str, at: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(file_of(name));
    let file = file.expect("it is there");
    file.write_all_at(bytes, at as u64).expect("it is inside");
}

/// Has the object's last master or slave be one that was killed.
fn kill_in_image(name: &str, role: Role) {
    let (alive, pid, mark) = if role == Role::Slave {
        (
            offset::SLAVE_ALIVE,
            offset::SLAVE_PID,
            offset::NATIVE_SLAVE_MARK,
        )
    } else {
        (
            offset::MASTER_ALIVE,
            offset::MASTER_PID,
            offset::NATIVE_MASTER_MARK,
        )
    };
    poke(name, mark, &0_u32.to_le_bytes());
    poke(name, pid, &DEAD_PID.to_le_bytes());
    poke(name, alive, &1_u32.to_le_bytes());
}

/// Has it be killed in the middle of its next message.
fn kill_in_message(name: &str, role: Role, direction: Direction) {
    let place = layout().channel(direction);
    let object = view(name).expect("it is there");
    let sequence = object.channel(direction).sequence + 1;
    poke(name, place.sequence as usize, &sequence.to_le_bytes());
    poke(name, place.data as usize, &[0xee; CAPACITY / 2]);
    kill_in_image(name, role);
}

/// An endpoint in this process, and what it has heard.
struct Survivor {
    endpoint: Endpoint,
    /// The number of the last message; `None` in somebody who came in the
    /// middle and has heard none yet.
    last: Option<u64>,
}

impl From<Endpoint> for Survivor {
    fn from(endpoint: Endpoint) -> Self {
        let last = Some(0);
        Self { endpoint, last }
    }
}

impl Survivor {
    fn newcomer(endpoint: Endpoint) -> Self {
        let last = None;
        Self { endpoint, last }
    }

    /// The next message, if there is one in time; it is whole, and what was
    /// lost before it is counted.
    #[track_caller]
    fn hear(&mut self, timeout: Duration) -> Option<Message> {
        let start = Instant::now();
        let result = self.endpoint.read_timeout(timeout);
        let took = start.elapsed();
        assert!(took < timeout + SLACK, "a read took {took:?}");
        let got = match result {
            Ok(got) => got,
            Err(ReadError::Timeout { .. }) => return None,
            Err(error) => panic!("{error}"),
        };
        whole(&got);
        let number = got.number();
        let since = |last: u64| number.checked_sub(last + 1);
        if let Some(last) = self.last {
            assert!(
                // In an object that was made anew the numbers start again.
                [since(last), since(0)].contains(&Some(got.lost())),
                "{} lost from {last} to {number}",
                got.lost()
            );
        }
        self.last = Some(number);
        Some(got)
    }

    /// Hears until that message comes.
    #[track_caller]
    fn hear_until(&mut self, data: &[u8]) {
        while let Some(got) = self.hear(WATCHDOG) {
            if *got == *data {
                return;
            }
        }
        panic!("it never comes");
    }
}

/// Writes as soon as there is a master.
#[track_caller]
fn say(endpoint: &mut Endpoint, data: &[u8]) {
    let start = Instant::now();
    loop {
        match endpoint.write(data) {
            Ok(()) => return,
            Err(WriteError::Reconnecting { .. }) => {
                assert!(start.elapsed() < WATCHDOG, "there is no master");
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The living: at first those who stay when the victim dies, at the end all
/// roles.
#[derive(Default)]
struct Cast {
    master: Option<Survivor>,
    slaves: Vec<Survivor>,
    /// There are two slaves at the end.
    shared: bool,
}

impl Cast {
    fn slave(&self) -> EndpointBuilder {
        config(Role::Slave).share_role(self.shared)
    }

    /// Fills the empty places, each at the first attempt.
    fn complete(&mut self, name: &str, slave_first: bool) {
        if slave_first && self.master.is_none() && self.slaves.is_empty() {
            // It finds what the dead one left, or nothing; never half of it.
            match self.slave().open(name) {
                Ok(slave) => self.slaves.push(Survivor::newcomer(slave)),
                Err(OpenError::NotFound { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        if self.master.is_none() {
            let master = config(Role::Master).open(name);
            let master = master.expect("the dead one's place is free");
            self.master = Some(Survivor::newcomer(master));
        }
        while self.slaves.len() < 1 + usize::from(self.shared) {
            let slave = self.slave().open(name);
            let slave = slave.expect("the dead one's place is free");
            self.slaves.push(Survivor::newcomer(slave));
        }
    }

    /// Hears all that there is.
    fn look(&mut self) {
        for survivor in self.master.iter_mut().chain(&mut self.slaves) {
            while survivor.hear(DEADLINE).is_some() {}
        }
    }

    /// One message each way, between the master and each slave.
    fn round_trips(&mut self) {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let master = self.master.as_mut().expect("there is one");
        for slave in &mut self.slaves {
            let number = NUMBER.fetch_add(1, Relaxed);
            let (there, back) = (
                message(PARENT, number, 100),
                message(PARENT, number, CAPACITY),
            );
            say(&mut master.endpoint, &there);
            slave.hear_until(&there);
            say(&mut slave.endpoint, &back);
            master.hear_until(&back);
        }
    }

    /// What other implementations see now: nobody is in the middle of
    /// something, and all is counted.
    fn assert_sound(&self, name: &str) {
        let object = view(name).expect("it is in use");
        let pid = i32::try_from(std::process::id()).expect("a pid");
        assert_eq!((object.master_pid, object.slave_pid), (pid, pid));
        assert!(object.master_alive && object.slave_alive);
        for direction in Direction::ALL {
            let channel = object.channel(direction);
            assert!(!channel.busy, "{channel:?}");
            let messages = (channel.sequence / 2).wrapping_sub(channel.native_voids);
            assert_eq!(
                u64::from(messages),
                channel.write_count,
                "{direction}: {channel:?}"
            );
            let message = channel.message.as_deref().expect("there was one");
            assert_eq!(whole(message), Some(PARENT));
            // Those who died in their sleep are forgotten, unless others of
            // their role may sleep too.
            assert!(channel.native_waiters == 0 || self.shared, "{channel:?}");
        }
    }
}

/// What the victim does, and what is around it.
struct Scenario {
    name: &'static str,
    /// Before the victim starts.
    setup: fn(&str) -> Cast,
    /// In the victim, before its steps are counted.
    prepare: Option<fn(&str) -> Endpoint>,
    /// When it is prepared.
    meanwhile: fn(&str, &mut Cast),
    /// In the victim: its steps. What it leaves there is closed uncounted.
    act: fn(&str, &mut Option<Endpoint>),
    /// Beside it.
    partner: fn(&str, &mut Cast, &mut Guarded),
    /// When the survivors have looked.
    verify: fn(&Cast, &Outcome, Before),
}

/// How the object was when the victim was dead.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// The victim was in the middle of a message.
    writing: bool,
    /// The master lived: it is who heard the victim.
    master_lives: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    setup: nobody,
    prepare: None,
    meanwhile: |_, _| {},
    act: |_, _| {},
    partner: |_, _, _| {},
    verify: |_, _, _| {},
};

fn nobody(_: &str) -> Cast {
    Cast::default()
}

fn a_master(name: &str) -> Cast {
    let master = config(Role::Master).open(name);
    Cast {
        master: Some(master.expect("the name is free").into()),
        ..Cast::default()
    }
}

/// A master that does not take the object along.
fn a_leaving_master(name: &str) -> Cast {
    let master = config(Role::Master).auto_cleanup(false).open(name);
    Cast {
        master: Some(master.expect("the name is free").into()),
        ..Cast::default()
    }
}

fn a_leaving_master_and_a_sharer(name: &str) -> Cast {
    with_a_sharer(name, a_leaving_master(name))
}

fn a_master_and_a_sharer(name: &str) -> Cast {
    with_a_sharer(name, a_master(name))
}

fn with_a_sharer(name: &str, mut cast: Cast) -> Cast {
    cast.shared = true;
    let slave = cast.slave().open(name);
    cast.slaves.push(slave.expect("the role is shared").into());
    cast
}

/// An object without anybody.
fn left(name: &str) -> Cast {
    let master = config(Role::Master).auto_cleanup(false).open(name);
    let mut master = master.expect("the name is free");
    master.write(&message(PARENT, 0, 50)).expect("it fits");
    Cast::default()
}

fn left_dead(name: &str) -> Cast {
    let cast = left(name);
    kill_in_message(name, Role::Master, Direction::MasterToSlave);
    cast
}

/// A slave whose master has closed.
fn an_orphan(name: &str) -> Cast {
    let master = config(Role::Master).auto_cleanup(false).open(name);
    let mut master = master.expect("the name is free");
    let slave = config(Role::Slave).open(name);
    let mut slave = Survivor::from(slave.expect("there is a master"));
    master.write(&message(PARENT, 0, 50)).expect("it fits");
    assert!(slave.hear(WATCHDOG).is_some());
    Cast {
        slaves: vec![slave],
        ..Cast::default()
    }
}

/// A slave whose master was killed in the middle of a message.
fn an_orphan_of_a_writer(name: &str) -> Cast {
    let cast = an_orphan(name);
    kill_in_message(name, Role::Master, Direction::MasterToSlave);
    cast
}

/// A master whose slave was killed in the middle of a message.
fn a_master_of_a_writer(name: &str) -> Cast {
    let mut cast = a_master(name);
    let mut slave = config(Role::Slave).open(name).expect("there is a master");
    slave.write(&message(PARENT, 0, 50)).expect("it fits");
    assert!(
        cast.master
            .as_mut()
            .and_then(|m| m.hear(WATCHDOG))
            .is_some()
    );
    drop(slave);
    kill_in_message(name, Role::Slave, Direction::SlaveToMaster);
    cast
}

fn prepare_master(name: &str) -> Endpoint {
    of_victim(Role::Master).open(name).expect("it is free")
}

fn prepare_slave(name: &str) -> Endpoint {
    of_victim(Role::Slave).open(name).expect("it is free")
}

/// One whose heartbeat thread does what there is to do: its steps come in
/// between, so a number may stand for another step each time.
fn prepare_threaded_slave(name: &str) -> Endpoint {
    config(Role::Slave).open(name).expect("it is free")
}

fn prepare_sharer(name: &str) -> Endpoint {
    let slave = of_victim(Role::Slave).share_role(true).open(name);
    slave.expect("the role is shared")
}

/// A slave that may become master.
fn prepare_auto(name: &str) -> Endpoint {
    let auto = of_victim(Role::Auto).promote(true).share_role(true);
    let auto = auto.open(name).expect("there is a master");
    assert_eq!(auto.role(), Role::Slave);
    auto
}

fn slave_joins(name: &str, cast: &mut Cast) {
    let slave = cast.slave().open(name).expect("there is a master");
    cast.slaves.push(slave.into());
}

/// The master closes and leaves the object.
fn master_leaves(name: &str, cast: &mut Cast) {
    cast.master = None;
    assert!(file_of(name).exists(), "it leaves the object");
}

/// The master is killed in the middle of a message.
fn master_dies(name: &str, cast: &mut Cast) {
    master_leaves(name, cast);
    kill_in_message(name, Role::Master, Direction::MasterToSlave);
}

/// The master closes and takes the object along.
fn master_removes(name: &str, cast: &mut Cast) {
    cast.master = None;
    assert!(!file_of(name).exists(), "its creator removes it");
}

fn own(endpoint: &mut Option<Endpoint>) -> &mut Endpoint {
    endpoint.as_mut().expect("it was prepared")
}

/// Writes messages of these lengths, each when the one before was heard.
fn write_each(endpoint: &mut Option<Endpoint>, lens: &[usize]) {
    let endpoint = own(endpoint);
    for (number, &len) in (1..).zip(lens) {
        say(endpoint, &message(VICTIM, number, len));
        tell(&format!("committed {number}"));
        hear_parent();
    }
}

/// Writes three messages that nobody reads meanwhile.
fn write_burst(endpoint: &mut Option<Endpoint>) {
    let endpoint = own(endpoint);
    for number in 1..=3 {
        say(endpoint, &message(VICTIM, number, 60));
        tell(&format!("committed {number}"));
    }
}

/// Whoever hears what the victim writes.
fn audience<'a>(cast: &'a mut Cast) -> &'a mut Survivor {
    let Cast { master, slaves, .. } = cast;
    let all: Vec<&'a mut Survivor> = match master {
        Some(master) => vec![master],
        None => slaves.iter_mut().collect(),
    };
    all.into_iter().next().expect("somebody hears it")
}

/// Hears each message when it is committed, and lets the victim go on.
fn hear_each(_: &str, cast: &mut Cast, victim: &mut Guarded) {
    while let Some(line) = victim.hear() {
        let Some(number) = line.strip_prefix("committed ") else {
            continue;
        };
        let got = audience(cast).hear(WATCHDOG);
        let got = got.expect("it was committed");
        assert_eq!((got.number().to_string().as_str(), got.lost()), (number, 0));
        victim.say("go on");
    }
}

fn heard(cast: &Cast, before: Before) -> u64 {
    let audience = if before.master_lives {
        cast.master.as_ref()
    } else {
        cast.slaves.first()
    };
    audience.and_then(|who| who.last).unwrap_or(0)
}

/// All that was committed was delivered, and at most one more that was whole.
fn heard_all(cast: &Cast, outcome: &Outcome, before: Before) {
    let (heard, committed) = (
        heard(cast, before),
        outcome.number("committed").unwrap_or(0),
    );
    let more = u64::from(!before.writing);
    assert!(
        (committed..=committed + more).contains(&heard),
        "{heard} of {committed}: {before:?}"
    );
}

/// The last one was delivered, unless the next one was being written over it.
fn heard_last(cast: &Cast, outcome: &Outcome, before: Before) {
    if before.writing {
        assert_eq!(heard(cast, before), 0, "it was overwritten");
    } else {
        heard_all(cast, outcome, before);
    }
}

/// Writes to the victim when it is asleep, or about to be.
fn write_late(_: &str, cast: &mut Cast, _: &mut Guarded) {
    thread::sleep(Duration::from_millis(30));
    let from = match &mut cast.master {
        Some(master) => master,
        None => &mut cast.slaves[0],
    };
    say(&mut from.endpoint, &message(PARENT, 2, 90));
}

fn read_each_way(endpoint: &mut Option<Endpoint>) {
    let endpoint = own(endpoint);
    let got = endpoint.read().expect("it was written before");
    assert_eq!(whole(&got), Some(PARENT));
    assert!(endpoint.try_read().expect("it is open").is_none());
    let again = endpoint.read_latest().expect("it is open");
    assert_eq!(again.as_deref(), Some(&*got));
    // Asleep until the second comes.
    let mut buffer = [0; CAPACITY];
    let got = endpoint.read_into(&mut buffer, WATCHDOG).expect("it comes");
    assert_eq!((whole(&buffer[..got.len]), got.number), (Some(PARENT), 2));
    let nothing = endpoint.read_timeout(Duration::from_millis(2));
    assert!(nothing.is_err_and(|error| error.is_timeout()));
}

fn beat(name: &str, endpoint: &mut Option<Endpoint>) {
    let endpoint = own(endpoint);
    endpoint.update_heartbeat().expect("it is in its place");
    let flag = match endpoint.role() {
        Role::Slave => offset::SLAVE_ALIVE,
        _ => offset::MASTER_ALIVE,
    };
    // As when another slave that shared the role left.
    poke(name, flag, &[0; 4]);
    endpoint.update_heartbeat().expect("it is in its place");
    endpoint.update_heartbeat().expect("it is in its place");
}

/// The old master's last heartbeats are news when nobody has looked since: two
/// looks tell that they have ended.
fn see_the_master_go(endpoint: &Endpoint) {
    let _ = endpoint.remote();
    thread::sleep(2 * THRESHOLD);
}

fn promote(endpoint: &mut Option<Endpoint>) {
    let endpoint = own(endpoint);
    see_the_master_go(endpoint);
    endpoint.reconnect().expect("there is no master");
    assert_eq!(endpoint.role(), Role::Master);
    endpoint
        .write(&message(VICTIM, 1, 80))
        .expect("a master writes");
}

fn scenarios() -> Vec<Scenario> {
    let mut all = openings();
    all.extend(writes());
    all.extend(reads());
    all.extend(moves());
    all.extend(repairs());
    all.extend(roles());
    all.extend(ends());
    all
}

fn openings() -> Vec<Scenario> {
    fn master(name: &str, endpoint: &mut Option<Endpoint>) {
        *endpoint = Some(prepare_master(name));
    }
    fn slave(name: &str, endpoint: &mut Option<Endpoint>) {
        *endpoint = Some(prepare_slave(name));
    }
    vec![
        Scenario {
            name: "master: create",
            act: master,
            ..PLAIN
        },
        Scenario {
            name: "master: replace what was left",
            setup: left,
            act: master,
            ..PLAIN
        },
        Scenario {
            name: "master: replace what a dead one left",
            setup: left_dead,
            act: master,
            ..PLAIN
        },
        Scenario {
            name: "master: take over",
            setup: an_orphan,
            act: master,
            ..PLAIN
        },
        Scenario {
            name: "master: take over from one that died writing",
            setup: an_orphan_of_a_writer,
            act: master,
            ..PLAIN
        },
        Scenario {
            name: "auto: create",
            act: |name, endpoint| {
                let auto = of_victim(Role::Auto).open(name);
                *endpoint = Some(auto.expect("it is free"));
            },
            ..PLAIN
        },
        Scenario {
            name: "slave: attach",
            setup: a_master,
            act: slave,
            ..PLAIN
        },
        Scenario {
            name: "slave: attach after one that died writing",
            setup: a_master_of_a_writer,
            act: slave,
            ..PLAIN
        },
        Scenario {
            name: "slave: join another",
            setup: a_master_and_a_sharer,
            act: |name, endpoint| *endpoint = Some(prepare_sharer(name)),
            ..PLAIN
        },
    ]
}

fn writes() -> Vec<Scenario> {
    const MASTER: Scenario = Scenario {
        prepare: Some(prepare_master),
        meanwhile: slave_joins,
        partner: hear_each,
        verify: heard_all,
        ..PLAIN
    };
    const SLAVE: Scenario = Scenario {
        setup: a_master,
        prepare: Some(prepare_slave),
        partner: hear_each,
        verify: heard_all,
        ..PLAIN
    };
    const SHARER: Scenario = Scenario {
        setup: a_master_and_a_sharer,
        prepare: Some(prepare_sharer),
        partner: hear_each,
        verify: heard_all,
        ..PLAIN
    };
    vec![
        Scenario {
            name: "master: write nothing",
            act: |_, endpoint| write_each(endpoint, &[0]),
            ..MASTER
        },
        Scenario {
            name: "master: write a little",
            act: |_, endpoint| write_each(endpoint, &[10]),
            ..MASTER
        },
        Scenario {
            name: "master: write all that fits",
            act: |_, endpoint| write_each(endpoint, &[CAPACITY]),
            ..MASTER
        },
        Scenario {
            name: "master: write three",
            act: |_, endpoint| write_each(endpoint, &[CAPACITY, 0, 10]),
            ..MASTER
        },
        Scenario {
            name: "master: write a burst",
            act: |_, endpoint| write_burst(endpoint),
            partner: |_, _, _| {},
            verify: heard_last,
            ..MASTER
        },
        Scenario {
            name: "slave: write nothing",
            act: |_, endpoint| write_each(endpoint, &[0]),
            ..SLAVE
        },
        Scenario {
            name: "slave: write a little",
            act: |_, endpoint| write_each(endpoint, &[10]),
            ..SLAVE
        },
        Scenario {
            name: "slave: write all that fits",
            act: |_, endpoint| write_each(endpoint, &[CAPACITY]),
            ..SLAVE
        },
        Scenario {
            name: "slave: write three",
            act: |_, endpoint| write_each(endpoint, &[10, CAPACITY, 0]),
            ..SLAVE
        },
        Scenario {
            name: "slave: write a burst",
            act: |_, endpoint| write_burst(endpoint),
            partner: |_, _, _| {},
            verify: heard_last,
            ..SLAVE
        },
        Scenario {
            name: "slave: write beside another",
            act: |_, endpoint| write_each(endpoint, &[CAPACITY, 0, 10]),
            ..SHARER
        },
        Scenario {
            name: "slave: write a burst beside another",
            act: |_, endpoint| write_burst(endpoint),
            partner: |_, _, _| {},
            verify: heard_last,
            ..SHARER
        },
        Scenario {
            name: "slave: write as the only one that shares",
            setup: |name| Cast {
                shared: true,
                ..a_master(name)
            },
            act: |_, endpoint| write_each(endpoint, &[CAPACITY, 0, 10]),
            ..SHARER
        },
    ]
}

fn reads() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "slave: read",
            setup: a_master,
            prepare: Some(prepare_slave),
            meanwhile: |_, cast| {
                let master = cast.master.as_mut().expect("it lives");
                say(&mut master.endpoint, &message(PARENT, 1, 90));
            },
            act: |_, endpoint| read_each_way(endpoint),
            partner: write_late,
            ..PLAIN
        },
        Scenario {
            name: "master: read",
            prepare: Some(prepare_master),
            meanwhile: |name, cast| {
                slave_joins(name, cast);
                say(&mut cast.slaves[0].endpoint, &message(PARENT, 1, 90));
            },
            act: |_, endpoint| read_each_way(endpoint),
            partner: write_late,
            ..PLAIN
        },
        Scenario {
            name: "slave: read beside another",
            setup: a_master_and_a_sharer,
            prepare: Some(prepare_sharer),
            meanwhile: |_, cast| {
                let master = cast.master.as_mut().expect("it lives");
                say(&mut master.endpoint, &message(PARENT, 1, 90));
            },
            act: |_, endpoint| read_each_way(endpoint),
            partner: write_late,
            ..PLAIN
        },
    ]
}

/// A slave gets another master.
fn moves() -> Vec<Scenario> {
    fn follow(_: &str, endpoint: &mut Option<Endpoint>) {
        see_the_master_go(own(endpoint));
        own(endpoint).reconnect().expect("there is a new master");
        let got = own(endpoint).read().expect("it wrote already");
        assert_eq!(whole(&got), Some(PARENT));
        write_each(endpoint, &[70]);
    }
    fn new_master(name: &str, cast: &mut Cast) {
        let mut next = config(Role::Master).open(name).expect("it is free");
        next.write(&message(PARENT, 1, 90)).expect("it fits");
        cast.master = Some(next.into());
    }
    /// Told when its steps are counted, the parent changes the master.
    fn be_moved(_: &str, endpoint: &mut Option<Endpoint>) {
        tell("armed");
        let got = own(endpoint).read_timeout(WATCHDOG);
        assert_eq!(whole(&got.expect("the next master writes")), Some(PARENT));
        while own(endpoint).connection() != Connection::Attached {
            thread::sleep(Duration::from_millis(1));
        }
        write_each(endpoint, &[70]);
    }
    vec![
        Scenario {
            name: "slave: go over to a new object, by its thread",
            setup: a_master,
            prepare: Some(prepare_threaded_slave),
            act: be_moved,
            partner: |name, cast, victim| {
                if victim.wait_for_line("armed") {
                    master_removes(name, cast);
                    new_master(name, cast);
                    hear_each(name, cast, victim);
                }
            },
            verify: heard_all,
            ..PLAIN
        },
        Scenario {
            name: "slave: find the next master in the same object, by its thread",
            setup: a_leaving_master,
            prepare: Some(prepare_threaded_slave),
            act: be_moved,
            partner: |name, cast, victim| {
                if victim.wait_for_line("armed") {
                    master_leaves(name, cast);
                    // So that it notices.
                    thread::sleep(THRESHOLD);
                    new_master(name, cast);
                    hear_each(name, cast, victim);
                }
            },
            verify: heard_all,
            ..PLAIN
        },
        Scenario {
            name: "slave: go over to a new object",
            setup: a_master,
            prepare: Some(prepare_slave),
            meanwhile: |name, cast| {
                master_removes(name, cast);
                new_master(name, cast);
            },
            act: follow,
            partner: hear_each,
            verify: heard_all,
        },
        Scenario {
            name: "slave: find the next master in the same object",
            setup: a_leaving_master,
            prepare: Some(prepare_slave),
            meanwhile: |name, cast| {
                master_leaves(name, cast);
                new_master(name, cast);
            },
            act: follow,
            partner: hear_each,
            verify: heard_all,
        },
    ]
}

/// A peer that died in the middle of a message is noticed.
fn repairs() -> Vec<Scenario> {
    /// Told when its steps are counted, the parent lets the peer die.
    fn see_it_ended(name: &str, direction: Direction) {
        tell("armed");
        while view(name).is_some_and(|object| object.channel(direction).native_void == 0) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    vec![
        Scenario {
            name: "slave: end a dead master's message, by its thread",
            setup: a_leaving_master,
            prepare: Some(prepare_threaded_slave),
            act: |name, _| see_it_ended(name, Direction::MasterToSlave),
            partner: |name, cast, victim| {
                if victim.wait_for_line("armed") {
                    master_dies(name, cast);
                }
            },
            ..PLAIN
        },
        Scenario {
            name: "master: end a dead slave's message, by its thread",
            prepare: Some(|name| config(Role::Master).open(name).expect("it is free")),
            meanwhile: slave_joins,
            act: |name, _| see_it_ended(name, Direction::SlaveToMaster),
            partner: |name, cast, victim| {
                if victim.wait_for_line("armed") {
                    cast.slaves.clear();
                    kill_in_message(name, Role::Slave, Direction::SlaveToMaster);
                }
            },
            ..PLAIN
        },
    ]
}

/// Changes of a role, and heartbeats.
fn roles() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "auto: become master of nothing",
            setup: a_master,
            prepare: Some(prepare_auto),
            meanwhile: master_removes,
            act: |_, endpoint| promote(endpoint),
            ..PLAIN
        },
        Scenario {
            name: "auto: become master after one that closed",
            setup: a_leaving_master,
            prepare: Some(prepare_auto),
            meanwhile: master_leaves,
            act: |_, endpoint| promote(endpoint),
            ..PLAIN
        },
        Scenario {
            name: "auto: become master after one that died",
            setup: a_leaving_master,
            prepare: Some(prepare_auto),
            meanwhile: master_dies,
            act: |_, endpoint| promote(endpoint),
            ..PLAIN
        },
        Scenario {
            name: "auto: become master of another slave",
            setup: a_leaving_master_and_a_sharer,
            prepare: Some(prepare_auto),
            meanwhile: master_dies,
            act: |_, endpoint| promote(endpoint),
            ..PLAIN
        },
        Scenario {
            name: "master: update_heartbeat",
            prepare: Some(prepare_master),
            meanwhile: slave_joins,
            act: beat,
            ..PLAIN
        },
        Scenario {
            name: "slave: update_heartbeat",
            setup: a_master,
            prepare: Some(prepare_slave),
            act: beat,
            ..PLAIN
        },
    ]
}

fn ends() -> Vec<Scenario> {
    fn close(_: &str, endpoint: &mut Option<Endpoint>) {
        own(endpoint).close();
        *endpoint = None;
    }
    vec![
        Scenario {
            name: "master: close under a slave",
            prepare: Some(prepare_master),
            meanwhile: slave_joins,
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "master: close alone",
            prepare: Some(prepare_master),
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "master: close what it took over under a slave",
            setup: an_orphan,
            prepare: Some(prepare_master),
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "master: close what it took over alone",
            setup: an_orphan,
            prepare: Some(prepare_master),
            meanwhile: |_, cast| cast.slaves.clear(),
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "slave: close",
            setup: a_master,
            prepare: Some(prepare_slave),
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "slave: close beside another",
            setup: a_master_and_a_sharer,
            prepare: Some(prepare_sharer),
            act: close,
            ..PLAIN
        },
        Scenario {
            name: "remove what a dead one left",
            setup: left_dead,
            act: |name, _| {
                assert!(Endpoint::remove(name).expect("nobody uses it"));
            },
            ..PLAIN
        },
    ]
}

/// The next line of the parent.
fn hear_parent() {
    std::io::stdin()
        .read_line(&mut String::new())
        .expect("the parent lives");
}

/// The process that may die. Only this runs in it.
#[test]
fn victim() {
    let Some(role) = role() else { return };
    // No unwinding: what it closes has steps too, and a death there would look
    // like the one that was wanted.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has three words");
    let (which, name, number) = (word(), word(), word());
    let scenarios = scenarios();
    let scenario = &scenarios[which.parse::<usize>().expect("an index")];
    let mut endpoint = scenario.prepare.map(|prepare| prepare(name));
    tell("ready");
    hear_parent();
    crash::arm(number.parse().expect("a number"));
    (scenario.act)(name, &mut endpoint);
    tell(&format!("points {}", crash::disarm()));
    drop(endpoint);
}

/// Who is first after the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// Those who live look at what the dead one left.
    Survivors,
    /// Another takes its place.
    Newcomers,
}

/// Kills the victim before step `number`; gives whether it was.
fn kill(which: usize, scenario: &Scenario, number: u64, first: First) -> bool {
    println!("{}: point {number}, first the {first:?}", scenario.name);
    let name = Name::new("eshm-crash");
    let mut cast = (scenario.setup)(&name);
    let mut victim = child("victim", &format!("{which} {} {number}", &*name));
    assert!(victim.wait_for_line("ready"), "it is not killed so early");
    (scenario.meanwhile)(&name, &mut cast);
    victim.say("go");
    (scenario.partner)(&name, &mut cast, &mut victim);
    let outcome = Outcome::of(victim);

    // A survivor that noticed the death has made an end of it, and says so.
    let writing = view(&name).is_some_and(|object| {
        Direction::ALL.iter().any(|&direction| {
            let channel = object.channel(direction);
            channel.busy || channel.native_void != 0
        })
    });
    let before = Before {
        writing,
        master_lives: cast.master.is_some(),
    };
    if first == First::Newcomers {
        cast.complete(&name, false);
    }
    cast.look();
    (scenario.verify)(&cast, &outcome, before);
    cast.complete(&name, true);
    cast.round_trips();
    cast.assert_sound(&name);
    // A master that took over leaves the object to a living slave.
    cast.slaves.clear();
    cast.master = None;
    name.assert_nothing_left();
    outcome.killed()
}

#[test]
fn the_living_go_on_and_the_dead_are_replaced() {
    let mut points = serde_json::Map::new();
    let (mut total, mut runs) = (0, 0);
    for (which, scenario) in scenarios().iter().enumerate() {
        let [count, again] = [First::Survivors, First::Newcomers].map(|first| {
            let mut number = 1;
            while kill(which, scenario, number, first) {
                number += 1;
                assert!(number < 1000, "{} does not end", scenario.name);
            }
            runs += number;
            number - 1
        });
        assert!(count > 0 && again > 0, "{}: not one step", scenario.name);
        println!("{}: {count} points", scenario.name);
        points.insert(scenario.name.to_owned(), count.into());
        total += count;
    }
    println!("{total} points, {runs} runs");
    polyshm_testkit::report(
        "eshm-crash.json",
        &serde_json::json!({ "points": total, "runs": runs, "scenarios": points }),
    );
}
