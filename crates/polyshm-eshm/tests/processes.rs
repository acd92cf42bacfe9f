//! What takes several processes: a channel under load, peers that die, freeze,
//! race and come back, and peers that are not polyshm.
#![cfg(target_os = "linux")]

use parking_lot::Mutex;
use polyshm_eshm::{
    Connection, DisconnectBehavior, Endpoint, EndpointBuilder, Event, Events, OpenError, ReadError,
    Receiver, Remote, Role, Sender, WriteError,
};
use polyshm_platform::{
    Deadline, Mode, Region, SharedMemory, Word32,
    sync::Ordering::{Acquire, Release},
};
use polyshm_testkit::{
    Guarded, Name, Outcome, WATCHDOG, child, hear_parent, role, skip, tell, told_to_end, wait_until,
};
use polyshm_wire::eshm::{
    ChannelPlace, Direction, HEADER_SIZE, Header, Layout, MAGIC, describe, offset,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const CAPACITY: usize = 4096;
/// Bytes of a message that says whose it is.
const HEAD: usize = 24;

/// A message whose every byte follows from who writes it, its number and its
/// length: one that is torn, or mixed of two, differs from all of these.
fn message(writer: u64, number: u64, len: usize) -> Vec<u8> {
    let seed = (writer << 40 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = len.div_ceil(8) as u64;
    let mut bytes = Vec::with_capacity(len + HEAD);
    for word in [writer, number, len as u64] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in 3..words {
        bytes.extend_from_slice(&seed.wrapping_mul(2 * word + 1).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Checks a message of at least [`HEAD`] bytes; gives its writer and number.
#[track_caller]
fn whole(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    assert!(bytes.len() >= HEAD, "only {} bytes", bytes.len());
    let (writer, number) = (word(0), word(8));
    assert!(
        bytes == message(writer, number, bytes.len()),
        "torn: {:?}",
        &bytes[..HEAD]
    );
    (writer, number)
}

/// Lengths that differ from message to message, from `least` to the capacity.
fn some_length(number: u64, least: usize) -> usize {
    least + (number as usize).wrapping_mul(37) % (CAPACITY - least + 1)
}

fn builder(role: Role) -> EndpointBuilder {
    Endpoint::builder().role(role)
}

/// One whose object nobody takes for dead, however late a loaded machine lets
/// threads run: for tests of messages alone.
fn steady(role: Role) -> EndpointBuilder {
    builder(role).stale_threshold(WATCHDOG)
}

/// The file of a channel's object.
fn file_of(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("eshm_{name}"))
}

/// The first event of a kind; those before it are dropped.
#[track_caller]
fn wait_for(events: &Events, kind: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = events.next_timeout(WATCHDOG).expect("the event comes");
        if kind(&event) {
            return event;
        }
    }
}

/// Writes as soon as there is a master.
#[track_caller]
fn write_when_connected(endpoint: &mut Endpoint, data: &[u8]) {
    wait_until("the connection", || match endpoint.write(data) {
        Ok(()) => true,
        Err(WriteError::Reconnecting { .. }) => false,
        Err(error) => panic!("{error}"),
    });
}

/// Numbers without a pattern, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What this process holds: descriptors, mappings of shared objects, threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    threads: usize,
}

impl Holdings {
    fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("it is readable");
        let entries = |folder: &str| fs::read_dir(folder).expect("it is readable");
        let is_pipe = |path: &Path| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"))
        };
        Self {
            // Pipes lead to children, and to a sanitizer's own helper.
            descriptors: entries("/proc/self/fd")
                .filter(|entry| entry.as_ref().is_ok_and(|entry| !is_pipe(&entry.path())))
                .count(),
            // An object's creator sees it under the number that it had before
            // its name, everybody else as `eshm_...`.
            mappings: maps
                .lines()
                .filter(|line| line.contains("/dev/shm/"))
                .count(),
            threads: entries("/proc/self/task").count(),
        }
    }
}

/// Runs in the child processes only.
#[test]
fn child_role() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has three words");
    let (what, name) = (word(), word());
    let number = word().parse().expect("a number");
    match what {
        "echo" => echo(name, number),
        "flood" => flood(name, number),
        "drink" => drink(name, number),
        "kill-masters" => kill_masters(name),
        "mortal-master" => mortal_master(name, number),
        "kill-slaves" => kill_slaves(name),
        "mortal-slave" => mortal_slave(name, number),
        "ticking-master" => ticking_master(name),
        "race" => race(name, number != 0),
        "patient" => patient(name),
        "impatient" => impatient(name),
        "auto-peer" => auto_peer(name, number),
        "foreign-master" => foreign_master(name, number),
        "foreign-slave" => foreign_slave(name, number),
        "sharer" => sharer(name, number),
        other => panic!("no role {other}"),
    }
}

// Round trips and floods.

/// A slave that answers each message with one of the same length.
fn echo(name: &str, rounds: u64) {
    let mut slave = Endpoint::slave(name).expect("the master is there");
    tell("ready");
    for number in 1..=rounds {
        let got = slave.read_timeout(WATCHDOG).expect("it comes");
        assert_eq!((got.number(), got.lost()), (number, 0));
        assert_eq!(*got, *message(1, number, got.len()), "torn");
        slave
            .write(&message(2, number, got.len()))
            .expect("the master lives");
    }
    hear_parent();
}

#[test]
fn each_message_of_each_length_comes_whole_and_in_order_both_ways() {
    let name = Name::new("eshm-echo");
    let mut master = steady(Role::Master).open(&name).expect("it is free");
    let rounds = CAPACITY as u64 + 1;
    let mut slave = child("child_role", &format!("echo {} {rounds}", &*name));
    assert!(slave.wait_for_line("ready"));
    let mut buffer = [0; CAPACITY];
    for number in 1..=rounds {
        let len = number as usize - 1;
        master.write(&message(1, number, len)).expect("it fits");
        let got = master.read_into(&mut buffer, WATCHDOG).expect("it answers");
        assert_eq!((got.len, got.number, got.lost), (len, number, 0));
        assert_eq!(buffer[..len], *message(2, number, len), "torn");
    }
    let stats = master.stats();
    assert_eq!(
        (stats.m2s_write_count, stats.m2s_read_count),
        (rounds, rounds)
    );
    assert_eq!(
        (stats.s2m_write_count, stats.s2m_read_count),
        (rounds, rounds)
    );
    Outcome::of(slave);
    drop(master);
    name.assert_nothing_left();
}

const FLOOD: u64 = 20_000;

/// Writes without a pause, in either role.
fn flood(name: &str, role: u64) {
    let role = if role == 0 { Role::Master } else { Role::Slave };
    let mut writer = steady(role).open(name).expect("the place is free");
    tell("ready");
    hear_parent();
    for number in 1..=FLOOD {
        let data = message(1, number, some_length(number, 0));
        writer.write(&data).expect("it fits");
    }
    tell("written");
    hear_parent();
}

/// Reads up to the last message; gives how many were delivered and lost.
fn read_flood(reader: &mut Endpoint) -> (u64, u64) {
    let (mut number, mut delivered, mut lost) = (0, 0, 0);
    while number < FLOOD {
        let got = reader.read_timeout(WATCHDOG).expect("more comes");
        assert_eq!(
            got.number() - number - 1,
            got.lost(),
            "exactly those between"
        );
        number = got.number();
        assert_eq!(*got, *message(1, number, some_length(number, 0)), "torn");
        delivered += 1;
        lost += got.lost();
    }
    assert_eq!((number, reader.lost()), (FLOOD, lost));
    assert_eq!(delivered + lost, FLOOD);
    assert!(reader.try_read().expect("it is open").is_none());
    (delivered, lost)
}

#[test]
fn of_a_flood_each_message_is_delivered_or_counted_as_lost() {
    for writer_role in [Role::Master, Role::Slave] {
        let name = Name::new("eshm-flood");
        let start = |number| child("child_role", &format!("flood {} {number}", &*name));
        let (mut writer, mut reader);
        if writer_role == Role::Master {
            writer = start(0);
            assert!(writer.wait_for_line("ready"));
            reader = Endpoint::slave(&name).expect("the master is there");
        } else {
            reader = steady(Role::Master).open(&name).expect("it is free");
            writer = start(1);
            assert!(writer.wait_for_line("ready"));
        }
        writer.say("go");
        let (delivered, lost) = read_flood(&mut reader);
        println!("{writer_role} writes: {delivered} delivered, {lost} lost");
        assert!(writer.wait_for_line("written"));
        Outcome::of(writer);
        drop(reader);
        name.assert_nothing_left();
    }
}

/// One slave of several reads a flood.
fn drink(name: &str, _: u64) {
    let slave = builder(Role::Slave).share_role(true);
    let mut slave = slave.open(name).expect("the role is shared");
    tell("ready");
    let (delivered, _) = read_flood(&mut slave);
    tell(&format!("delivered {delivered}"));
    hear_parent();
}

#[test]
fn each_of_two_slaves_gets_or_counts_every_message() {
    let name = Name::new("eshm-drink");
    let mut master = steady(Role::Master).open(&name).expect("it is free");
    let mut slaves = [0, 1].map(|_| child("child_role", &format!("drink {} 0", &*name)));
    for slave in &mut slaves {
        assert!(slave.wait_for_line("ready"));
    }
    for number in 1..=FLOOD {
        let data = message(1, number, some_length(number, 0));
        master.write(&data).expect("it fits");
        if number % 64 == 0 {
            // So that readers get some even with one core.
            thread::yield_now();
        }
    }
    let delivered: u64 = slaves
        .iter_mut()
        .map(|slave| slave.hear_number("delivered"))
        .sum();
    assert_eq!(master.stats().m2s_read_count, delivered);
    for slave in slaves {
        Outcome::of(slave);
    }
    drop(master);
    name.assert_nothing_left();
}

// Kill and restart.

const THRESHOLD: Duration = Duration::from_millis(100);
const INTERVAL: Duration = Duration::from_millis(100);
/// What the slave may take beyond threshold and interval to be back.
const MARGIN: Duration = Duration::from_millis(50);

/// How much later than it asked for a thread of this process ran, in total:
/// what the machine's load may have added to any reaction of this process.
#[derive(Clone, Default)]
struct Lateness(Arc<AtomicU64>);

impl Lateness {
    fn watch() -> Self {
        const NAP: Duration = Duration::from_millis(1);
        let watch = Self::default();
        let total = Arc::clone(&watch.0);
        thread::spawn(move || {
            loop {
                let start = Instant::now();
                thread::sleep(NAP);
                let late = start.elapsed().saturating_sub(2 * NAP);
                total.fetch_add(late.as_micros() as u64, Relaxed);
            }
        });
        watch
    }

    fn total(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

/// What the reading thread has seen, for the thread that kills.
#[derive(Default)]
struct Seen {
    /// Of each writer: when its first message came, and how many messages the
    /// object had carried before this writer.
    first: Mutex<BTreeMap<u64, (Instant, u64)>>,
    /// The number of the last message of the last writer.
    last: AtomicU64,
    end: AtomicBool,
}

impl Seen {
    fn first_of(&self, writer: u64) -> Option<(Instant, u64)> {
        self.first.lock().get(&writer).copied()
    }
}

/// Reads until told to end; checks that what each writer wrote comes whole and
/// in order, and that what is lost is counted exactly. Gives the number of
/// messages delivered.
fn follow(mut receiver: Receiver, seen: &Seen) -> u64 {
    let mut last: Option<(u64, u64, u64)> = None;
    let mut delivered = 0;
    while !seen.end.load(Relaxed) {
        let got = match receiver.read_timeout(Duration::from_millis(20)) {
            Ok(got) => got,
            Err(error) if error.is_timeout() => continue,
            Err(error) => panic!("{error}"),
        };
        let (writer, number) = whole(&got);
        let base = got
            .number()
            .checked_sub(number)
            .expect("a number of its own");
        if let Some((earlier, before, at)) = last {
            let gap = Some(got.lost());
            let since = |at: u64| got.number().checked_sub(at + 1);
            if writer == earlier {
                assert!(number > before, "{number} after {before}");
                assert_eq!(base, at - before, "the writer counts as the channel does");
                assert_eq!(gap, since(at));
            } else {
                assert!(writer > earlier, "{writer} after {earlier}");
                // In a new object all are counted from its start. Who takes one
                // over may find one that is new, made by a master between.
                let (same, anew) = (gap == since(at), gap == since(0));
                let skipped = writer > earlier + 1;
                assert!(
                    if base == 0 {
                        anew
                    } else {
                        same || (anew && skipped)
                    },
                    "{writer} after {earlier}: {gap:?} lost from {at} to {got}, after {base}"
                );
            }
        }
        last = Some((writer, number, got.number()));
        let mut first = seen.first.lock();
        first
            .entry(writer)
            .or_insert_with(|| (Instant::now(), base));
        seen.last.store(number, Relaxed);
        delivered += 1;
    }
    delivered
}

/// Writes a thousand messages a second until told to end; whatever else is
/// wrong, a slave without a master must be told so.
fn chatter(mut sender: Sender, end: &AtomicBool) {
    let mut number = 0;
    while !end.load(Relaxed) {
        match sender.write(&message(0, number + 1, some_length(number, HEAD))) {
            Ok(()) => number += 1,
            Err(WriteError::Reconnecting { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// An endpoint that goes on while its peers die: one thread reads, one writes.
struct Witness {
    seen: Arc<Seen>,
    reader: JoinHandle<u64>,
    writer: JoinHandle<()>,
}

impl Witness {
    fn of(endpoint: Endpoint) -> Self {
        let (sender, receiver) = endpoint.split();
        let seen = Arc::new(Seen::default());
        let (of_reader, of_writer) = (Arc::clone(&seen), Arc::clone(&seen));
        Self {
            seen,
            reader: thread::spawn(move || follow(receiver, &of_reader)),
            writer: thread::spawn(move || chatter(sender, &of_writer.end)),
        }
    }

    /// When the first message of a peer came, and how many messages the object
    /// had carried before that peer.
    #[track_caller]
    fn wait_for_first(&self, peer: u64) -> (Instant, u64) {
        wait_until("a message of the new peer", || {
            assert!(!self.reader.is_finished(), "the reader failed");
            self.seen.first_of(peer).is_some()
        });
        self.seen.first_of(peer).expect("it was seen")
    }

    /// Nothing comes after it, so nothing may replace it.
    #[track_caller]
    fn wait_for_last(&self, peer: u64, number: u64) {
        self.wait_for_first(peer);
        wait_until("the last message of a peer that closed", || {
            self.seen.last.load(Relaxed) == number
        });
    }

    /// Closes the endpoint; gives how many messages were delivered.
    fn end(self) -> u64 {
        self.seen.end.store(true, Relaxed);
        self.writer.join().expect("each write was taken or refused");
        self.reader.join().expect("all was whole and in order")
    }
}

/// What a mortal writer writes. Short ones at full speed: so more of them are
/// under way at a kill.
fn speech(writer: u64, number: u64) -> Vec<u8> {
    let len = if writer.is_multiple_of(2) {
        some_length(number, HEAD)
    } else {
        some_length(number, HEAD) % 200 + HEAD
    };
    message(writer, number, len)
}

/// Writes its first message, says that it is up, and how many messages there
/// were before. Then it talks until it is killed or told to end, at full speed
/// or a thousand times a second, and checks what it hears.
fn talk(mut endpoint: Endpoint, writer: u64) {
    let stats = endpoint.stats();
    let before = match endpoint.role() {
        Role::Slave => stats.s2m_write_count,
        _ => stats.m2s_write_count,
    };
    write_when_connected(&mut endpoint, &speech(writer, 1));
    // Not before: on a loaded machine it may take long to get so far.
    tell(&format!("up {before}"));
    let end = told_to_end();
    let mut heard = 0;
    let mut number = 1;
    while !end.load(Relaxed) {
        match endpoint.write(&speech(writer, number + 1)) {
            Ok(()) => number += 1,
            Err(WriteError::Reconnecting { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if let Some(got) = endpoint.try_read().expect("it is open") {
            let (_, number) = whole(&got);
            assert!(number > heard, "{number} after {heard}");
            heard = number;
        }
        if writer.is_multiple_of(2) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    tell(&format!("last {number}"));
    drop(endpoint);
    tell("closed");
}

fn mortal_master(name: &str, writer: u64) {
    let master = builder(Role::Master).stale_threshold(THRESHOLD);
    talk(master.open(name).expect("the one before is gone"), writer);
}

const MASTERS: u64 = 200;

/// How a master ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Killed; the next one takes over at once.
    Kill,
    /// Killed; the next one comes when the slave has noticed, or not quite.
    KillAndWait,
    /// Killed, and the object removed by hand.
    KillAndRemove,
    /// By itself. It created the object, as the one before was removed, and
    /// takes it along.
    Close,
}

impl End {
    fn of(generation: u64) -> Self {
        match generation % 4 {
            0 => Self::Close,
            1 => Self::Kill,
            2 => Self::KillAndWait,
            _ => Self::KillAndRemove,
        }
    }

    fn bring_about(self, name: &str, generation: u64, mut master: Guarded, witness: &Witness) {
        if self == Self::Close {
            master.say("end");
            let last = master.hear_number("last");
            assert!(master.wait_for_line("closed"));
            assert!(!file_of(name).exists(), "its creator removes it");
            witness.wait_for_last(generation, last);
        } else {
            master.0.kill().expect("it runs");
            master.0.wait().expect("it ends");
        }
        if self == Self::KillAndRemove {
            fs::remove_file(file_of(name)).expect("a killed master leaves it");
        }
    }
}

/// One slave all along, in a process of its own so that its descriptors can be
/// counted, under masters that come and go.
fn kill_masters(name: &str) {
    let lateness = Lateness::watch();
    let start = |writer| child("child_role", &format!("mortal-master {name} {writer}"));
    let mut random = Random(0x5eed);
    let mut master = start(1);
    master.hear_number("up");
    let (same, anew) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count_same, count_anew) = (Arc::clone(&same), Arc::clone(&anew));
    let slave = builder(Role::Slave)
        .disconnect_behavior(DisconnectBehavior::Never)
        .reconnect_interval(INTERVAL)
        .on_event(move |event| {
            if let Event::Reconnected { recreated, .. } = event {
                let count = if *recreated { &count_anew } else { &count_same };
                count.fetch_add(1, Relaxed);
            }
        })
        .open(name)
        .expect("the master is up");
    let witness = Witness::of(slave);
    witness.wait_for_first(1);
    let before = Holdings::now();
    let mut slowest = Duration::ZERO;
    let mut was_seen = true;
    for generation in 1..=MASTERS {
        // While it writes, at any moment.
        thread::sleep(Duration::from_micros(random.below(30_000)));
        let end = End::of(generation);
        end.bring_about(name, generation, master, &witness);
        if end == End::KillAndWait {
            thread::sleep(Duration::from_millis(random.below(200)));
        }

        let next = generation + 1;
        master = start(next);
        let base = master.hear_number("up");
        let (up, late) = (Instant::now(), lateness.total());
        let is_new = matches!(end, End::KillAndRemove | End::Close);
        // One that nobody saw may have died before its first message.
        assert!(
            if is_new {
                base == 0
            } else {
                base > 0 || !was_seen
            },
            "{end:?}: {base}"
        );
        was_seen = generation % 5 != 4 || !matches!(next % 4, 1 | 2);
        if !was_seen {
            // This one is killed as it comes: nobody waits for the slave.
            continue;
        }
        let (back, seen_base) = witness.wait_for_first(next);
        assert_eq!(seen_base, base, "the messages of the dead one count");
        let took = back.saturating_duration_since(up);
        slowest = slowest.max(took);
        // The bound is the protocol's; what the machine added is measured: the
        // same threads that react may be as late as the one that measures.
        let bound = THRESHOLD + INTERVAL + MARGIN;
        if took > bound {
            thread::sleep(Duration::from_millis(20));
            let late = lateness.total().saturating_sub(late);
            assert!(
                took <= bound + late,
                "{end:?}: back after {took:?}, and the machine was late by {late:?} only"
            );
        }
    }

    // The halves let go of an old object at their next look.
    let mut after = Holdings::now();
    let deadline = Deadline::after(Duration::from_secs(10));
    while after != before && !deadline.expired() {
        thread::sleep(Duration::from_millis(10));
        after = Holdings::now();
    }
    assert_eq!(before, after, "something is leaked");
    let delivered = witness.end();
    let (same, anew) = (same.load(Relaxed), anew.load(Relaxed));
    // Each object made anew is found by looking; one that is taken over may
    // be taken over before the slave has noticed.
    assert!(anew >= MASTERS / 4, "{anew}");
    tell(&format!(
        "{delivered} messages delivered; {same} reconnections to the same object, {anew} to a new \
         one; back after {slowest:?} at most; the machine was late by {:?} in all; {after:?}",
        lateness.total()
    ));
    master.say("end");
    assert!(master.wait_for_line("closed"));
    Outcome::of(master);
}

#[test]
fn a_slave_goes_on_through_two_hundred_masters_that_are_killed() {
    let name = Name::new("eshm-masters");
    let outcome = Outcome::of(child("child_role", &format!("kill-masters {} 0", &*name)));
    assert!(!outcome.killed());
    println!("{}", outcome.lines().join("\n"));
    name.assert_nothing_left();
}

fn mortal_slave(name: &str, writer: u64) {
    talk(
        Endpoint::slave(name).expect("the one before is dead"),
        writer,
    );
}

const SLAVES: u64 = 100;

/// Whether a killed process is gone, with all its threads, but for its exit
/// status.
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // From the state on, which is field 3; the command may hold anything.
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    fields.first() == Some(&"Z") && fields.get(17) == Some(&"1")
}

/// One master all along, under slaves that come and go.
fn kill_slaves(name: &str) {
    let start = |writer| child("child_role", &format!("mortal-slave {name} {writer}"));
    let mut random = Random(0xcafe);
    let master = Endpoint::master(name).expect("the name is free");
    let witness = Witness::of(master);
    let mut slave = start(1);
    slave.hear_number("up");
    witness.wait_for_first(1);
    let before = Holdings::now();
    for generation in 1..=SLAVES {
        thread::sleep(Duration::from_micros(random.below(20_000)));
        slave.0.kill().expect("it runs");
        let dead = if generation % 2 == 0 {
            slave.0.wait().expect("it ends");
            drop(slave);
            None
        } else {
            // Its parent has not asked for it yet: dead all the same.
            wait_until("the end of a killed process", || is_zombie(slave.0.id()));
            Some(slave)
        };
        if generation % 8 == 0 {
            // Long enough for the master to notice.
            thread::sleep(2 * THRESHOLD);
        }
        slave = start(generation + 1);
        let base = slave.hear_number("up");
        drop(dead);
        let (_, seen_base) = witness.wait_for_first(generation + 1);
        assert_eq!(seen_base, base, "the messages of the dead one count");
    }
    assert_eq!(before, Holdings::now(), "something is leaked");
    slave.say("end");
    let last = slave.hear_number("last");
    witness.wait_for_last(SLAVES + 1, last);
    Outcome::of(slave);
    let delivered = witness.end();
    tell(&format!("{delivered} messages delivered; {before:?}"));
}

#[test]
fn a_master_goes_on_through_a_hundred_slaves_that_are_killed() {
    let name = Name::new("eshm-slaves");
    let outcome = Outcome::of(child("child_role", &format!("kill-slaves {} 0", &*name)));
    assert!(!outcome.killed());
    println!("{}", outcome.lines().join("\n"));
    name.assert_nothing_left();
}

// Freezing.

/// Writes its number each millisecond, and says `up` before.
fn ticking_master(name: &str) {
    let mut master = Endpoint::master(name).expect("the name is free");
    let end = told_to_end();
    // One that freezes before its first beat is taken for one without beats.
    wait_until("the first beat", || master.stats().master_heartbeat != 0);
    tell("up");
    let mut number = 0;
    while !end.load(Relaxed) {
        number += 1;
        let data = message(1, number, some_length(number, HEAD));
        master.write(&data).expect("a master writes always");
        thread::sleep(Duration::from_millis(1));
    }
    let heard = master.read_latest().expect("it is open");
    if let Some(heard) = heard {
        let (writer, number) = whole(&heard);
        assert_eq!(writer, 2);
        tell(&format!("heard {number}"));
    }
}

#[test]
fn a_frozen_master_is_left_its_place_and_found_again() {
    let name = Name::new("eshm-freeze");
    let mut master = child("child_role", &format!("ticking-master {} 0", &*name));
    assert!(master.wait_for_line("up"));
    let mut slave = builder(Role::Slave)
        .disconnect_behavior(DisconnectBehavior::Never)
        .open(&name)
        .expect("the master is up");
    let events = slave.events();
    let (mut last, mut expected) = (0, slave.stats().s2m_write_count);
    for round in 1..=3 {
        for _ in 0..20 {
            let got = slave.read_timeout(WATCHDOG).expect("it writes");
            let (_, number) = whole(&got);
            assert_eq!(number, got.number());
            // Across the freezing too: it is the same object.
            assert!(last == 0 || got.number() == last + got.lost() + 1, "{got}");
            last = got.number();
        }
        // So that what is waited for is what the signal brought about.
        while events.try_next().is_some() {}
        master.stop();
        let stale = wait_for(&events, |event| matches!(event, Event::Stale { .. }));
        assert!(
            matches!(stale, Event::Stale { silent_for, closed: false } if silent_for >= THRESHOLD),
            "{stale:?}"
        );
        let looking = wait_for(&events, |event| matches!(event, Event::Reconnecting { .. }));
        assert_eq!(
            looking,
            Event::Reconnecting {
                attempt: 1,
                limit: None
            }
        );
        wait_for(&events, |event| {
            matches!(event, Event::Reconnecting { attempt: 3, .. })
        });
        assert_eq!(slave.connection(), Connection::Reconnecting);
        assert_eq!(slave.remote(), Remote::Stale);
        assert!(matches!(
            slave.write(b"nobody"),
            Err(WriteError::Reconnecting { .. })
        ));
        // What it wrote last may still be there, or half of it.
        if let Some(got) = slave.try_read().expect("a frozen writer is no error") {
            assert_eq!(got.number(), last + got.lost() + 1);
            last = got.number();
        }
        let start = Instant::now();
        assert!(
            slave
                .read_timeout(INTERVAL)
                .is_err_and(|error| error.is_timeout())
        );
        assert!(start.elapsed() >= INTERVAL);
        // It lives, so its place is taken.
        let pid = i32::try_from(master.0.id()).expect("a pid");
        for role in [Role::Master, Role::Auto] {
            match builder(role).promote(true).open(&name) {
                Err(OpenError::RoleTaken {
                    pid: found,
                    role: Role::Master,
                    ..
                }) => {
                    assert_eq!((role, found), (Role::Master, pid));
                }
                Err(OpenError::RoleTaken {
                    role: Role::Slave, ..
                }) => assert_eq!(role, Role::Auto),
                other => panic!("{role}: {other:?}"),
            }
        }
        master.go_on();
        let back = wait_for(&events, |event| matches!(event, Event::Reconnected { .. }));
        assert!(matches!(
            back,
            Event::Reconnected {
                attempts: 3..,
                recreated: false
            }
        ));
        write_when_connected(&mut slave, &message(2, round, 100));
        expected += 1;
        assert_eq!(slave.stats().s2m_write_count, expected);
    }
    // One that is killed in its sleep is dead.
    slave.read_timeout(WATCHDOG).expect("it writes again");
    master.say("end");
    assert_eq!(master.hear_number("heard"), 3);
    Outcome::of(master);
    drop(slave);
    name.assert_nothing_left();
}

#[test]
fn a_master_that_dies_frozen_is_replaced() {
    let name = Name::new("eshm-frozen-death");
    let mut master = child("child_role", &format!("ticking-master {} 0", &*name));
    assert!(master.wait_for_line("up"));
    let mut slave = builder(Role::Slave)
        .disconnect_behavior(DisconnectBehavior::Never)
        .open(&name)
        .expect("the master is up");
    let events = slave.events();
    slave.read_timeout(WATCHDOG).expect("it writes");
    master.stop();
    wait_for(&events, |event| matches!(event, Event::Stale { .. }));
    let taken = Endpoint::master(&name);
    assert!(
        matches!(taken, Err(OpenError::RoleTaken { .. })),
        "{taken:?}"
    );
    drop(master);
    let mut next = Endpoint::master(&name).expect("the frozen one is dead");
    wait_for(&events, |event| {
        matches!(
            event,
            Event::Reconnected {
                recreated: false,
                ..
            }
        )
    });
    while slave.try_read().expect("it is open").is_some() {}
    next.write(b"of the next").expect("it fits");
    assert_eq!(
        *slave.read_timeout(WATCHDOG).expect("it comes"),
        *b"of the next"
    );
    write_when_connected(&mut slave, b"heard");
    assert_eq!(*next.read_timeout(WATCHDOG).expect("it comes"), *b"heard");
    drop(slave);
    drop(next);
    name.assert_nothing_left();
}

// Races at the start.

const RACERS: u32 = 8;
const ROUNDS: u32 = 50;

/// A word in shared memory at which all start at once.
struct Start {
    word: Word32,
    _segment: SharedMemory,
}

impl Start {
    fn of(segment: SharedMemory) -> Self {
        let region = Region::map(&segment).expect("it can be mapped");
        Self {
            word: region.word32(0).expect("it is inside"),
            _segment: segment,
        }
    }

    fn wait_for(&self, round: u32) {
        let deadline = Deadline::after(WATCHDOG);
        while self.word.load(Acquire) < round {
            assert!(!deadline.expired(), "nobody starts round {round}");
            self.word
                .sleep_while(round - 1, deadline.at_most(Duration::from_millis(50)));
        }
    }

    fn give(&self, round: u32) {
        self.word.store(round, Release);
        self.word.wake(u32::MAX);
    }
}

/// Opens an automatic endpoint each round, at the same time as others.
fn race(name: &str, share: bool) {
    let start = Start::of(SharedMemory::open(name).expect("the parent made it"));
    tell("ready");
    for round in 1..=ROUNDS {
        start.wait_for(round);
        let auto = builder(Role::Auto).share_role(share);
        let mut opened = match auto.open(name) {
            Ok(opened) => {
                tell(&opened.role().to_string());
                opened
            }
            Err(OpenError::RoleTaken {
                role: Role::Slave, ..
            }) => {
                tell("taken");
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        // When all have told.
        while let Some(line) = hear_parent() {
            match line.as_str() {
                "write" => {
                    let data = message(1, round.into(), 100);
                    opened.write(&data).expect("a master writes");
                    tell("written");
                }
                "read" => {
                    let got = opened.read_latest().expect("it is open");
                    let got = got.expect("the master wrote one");
                    tell(&format!("got {}", whole(&got).1));
                }
                _ => break,
            }
        }
        drop(opened);
        tell("closed");
    }
}

#[test]
fn of_eight_automatic_endpoints_that_start_at_once_one_is_master() {
    for share in [false, true] {
        let name = Name::new("eshm-race");
        let made = SharedMemory::create_new(&name, 4096, Mode::OWNER).expect("the name is free");
        let start = Start::of(made);
        let role = format!("race {} {}", &*name, u8::from(share));
        let mut racers: Vec<_> = (0..RACERS).map(|_| child("child_role", &role)).collect();
        for racer in &mut racers {
            assert!(racer.wait_for_line("ready"));
        }
        for round in 1..=ROUNDS {
            start.give(round);
            let mut masters = Vec::new();
            let mut slaves = Vec::new();
            for racer in &mut racers {
                match racer.hear().expect("it tells").as_str() {
                    "master" => masters.push(racer),
                    "slave" => slaves.push(racer),
                    "taken" => assert!(!share, "a shared role is never taken"),
                    other => panic!("{other}"),
                }
            }
            let expected = if share { RACERS as usize - 1 } else { 1 };
            assert_eq!(
                (masters.len(), slaves.len()),
                (1, expected),
                "round {round}"
            );
            // All of them are in the same object.
            masters[0].say("write");
            assert!(masters[0].wait_for_line("written"));
            for slave in &mut slaves {
                slave.say("read");
                assert_eq!(slave.hear_number("got"), u64::from(round));
            }
            for racer in masters.iter_mut().chain(&mut slaves) {
                racer.say("close");
            }
            for racer in masters.iter_mut().chain(&mut slaves) {
                assert!(racer.wait_for_line("closed"));
            }
            assert!(!file_of(&name).exists(), "round {round}: left behind");
        }
        for racer in racers {
            Outcome::of(racer);
        }
    }
}

/// Of the largest message here; the object has two.
const LARGE: u64 = 128 << 20;

fn large(role: Role) -> EndpointBuilder {
    builder(role).capacity(LARGE).share_role(true)
}

fn read_large(mut slave: Endpoint) {
    let got = slave.read_timeout(WATCHDOG).expect("the master writes");
    assert_eq!((got.len() as u64, got.number()), (LARGE, 1));
    assert!(got.iter().all(|byte| *byte == 0xa5), "torn");
    tell("read");
    hear_parent();
}

/// Waits for the object as the builder can.
fn patient(name: &str) {
    tell("ready");
    let slave = large(Role::Slave).connect_timeout(WATCHDOG);
    let slave = slave.open(name).expect("it comes");
    tell("in");
    read_large(slave);
}

/// Asks without a pause, so as to meet every state that the object is in.
fn impatient(name: &str) {
    tell("ready");
    let deadline = Deadline::after(WATCHDOG);
    let slave = loop {
        // As other implementations do: what has the name is used at once.
        if let Ok(file) = File::open(file_of(name)) {
            let mut image = [0; HEADER_SIZE as usize];
            file.read_exact_at(&mut image, 0).expect("it has bytes");
            let header = Header::read(&image).expect("it is long enough");
            header.check().expect("the header is there");
            assert_eq!(header.master_alive.get(), 1);
            let layout = Layout::new(LARGE).expect("it is allowed");
            let len = file.metadata().expect("it is open").len();
            assert_eq!(len, layout.object_len());
        }
        match large(Role::Slave).open(name) {
            Ok(slave) => break slave,
            Err(OpenError::NotFound { .. }) => assert!(!deadline.expired(), "it never comes"),
            Err(error) => panic!("an unfinished object: {error:?}"),
        }
    };
    tell("in");
    read_large(slave);
}

#[test]
fn nobody_sees_a_large_object_before_it_is_complete() {
    const TEST: &str = "nobody_sees_a_large_object_before_it_is_complete";
    let name = Name::new("eshm-large");
    let mut slaves =
        ["patient", "impatient"].map(|role| child("child_role", &format!("{role} {} 0", &*name)));
    for slave in &mut slaves {
        assert!(slave.wait_for_line("ready"));
    }
    let mut master = match large(Role::Master).open(&name) {
        Ok(master) => master,
        Err(OpenError::System {
            source: polyshm_platform::Error::NoSpace { .. },
            ..
        }) => {
            return skip(TEST, "/dev/shm has less than 256 MiB");
        }
        Err(error) => panic!("{error:?}"),
    };
    for slave in &mut slaves {
        assert!(slave.wait_for_line("in"));
    }
    master.write(&vec![0xa5; LARGE as usize]).expect("it fits");
    for slave in slaves {
        assert!(Outcome::of(slave).said("read"));
    }
    drop(master);
    name.assert_nothing_left();
}

// Promotion.

fn auto() -> EndpointBuilder {
    builder(Role::Auto)
        .promote(true)
        .disconnect_behavior(DisconnectBehavior::Never)
        .reconnect_interval(Duration::from_millis(20))
}

/// Opens, says what it became, and talks until it is killed or told to end.
fn auto_peer(name: &str, writer: u64) {
    let peer = auto().open(name).expect("there is a place");
    tell(&peer.role().to_string());
    talk(peer, writer);
}

/// Reads until a message of `writer` comes.
#[track_caller]
fn hear_writer(endpoint: &mut Endpoint, writer: u64) {
    wait_until("a message of the new peer", || {
        let got = endpoint.read_timeout(WATCHDOG).expect("it writes");
        whole(&got).0 == writer
    });
}

#[test]
fn a_slave_that_may_becomes_master_and_the_one_that_comes_back_its_slave() {
    let name = Name::new("eshm-promote");
    let start = |writer| child("child_role", &format!("auto-peer {} {writer}", &*name));
    let mut peer = start(2);
    assert_eq!(peer.hear().as_deref(), Some("master"));
    let mut own = auto().open(&name).expect("there is a place");
    let events = own.events();
    assert_eq!(own.role(), Role::Slave);
    hear_writer(&mut own, 2);
    write_when_connected(&mut own, &message(1, 1, 100));

    drop(peer);
    wait_for(&events, |event| *event == Event::Promoted);
    assert_eq!(
        (own.role(), own.connection()),
        (Role::Master, Connection::Attached)
    );
    assert_eq!(own.remote(), Remote::NeverSeen);
    // Whoever is master already stays it.
    for writer in [4, 6] {
        let mut peer = start(writer);
        assert_eq!(peer.hear().as_deref(), Some("slave"), "writer {writer}");
        own.write(&message(1, writer, 100))
            .expect("a master writes");
        hear_writer(&mut own, writer);
        let third = auto().open(&name);
        assert!(
            matches!(
                third,
                Err(OpenError::RoleTaken {
                    role: Role::Slave,
                    ..
                })
            ),
            "{third:?}"
        );
        // One that dies before its first beat was never seen.
        wait_for(&events, |event| {
            matches!(event, Event::Joined | Event::Recovered)
        });
        drop(peer);
        wait_for(&events, |event| {
            matches!(event, Event::Stale { closed: false, .. })
        });
        assert_eq!(own.role(), Role::Master);
    }
    drop(own);
    name.assert_nothing_left();
}

// Giving up.

/// A slave whose master is killed; gives its events from before that.
fn widow(name: &str, settings: EndpointBuilder) -> (Endpoint, Events) {
    let mut master = child("child_role", &format!("ticking-master {name} 0"));
    assert!(master.wait_for_line("up"));
    let mut slave = settings.role(Role::Slave).open(name).expect("it is up");
    let events = slave.events();
    slave.read_timeout(WATCHDOG).expect("it writes");
    (slave, events)
}

#[track_caller]
fn assert_gave_up(slave: &mut Endpoint) {
    assert_eq!(slave.connection(), Connection::GaveUp);
    assert!(!slave.remote().is_alive());
    assert!(matches!(slave.write(b"x"), Err(WriteError::GaveUp { .. })));
    // Not after its deadline: at once, whatever that is.
    loop {
        match slave.read_timeout(Duration::MAX) {
            Ok(left) => assert_eq!(whole(&left).0, 1),
            Err(error) => {
                assert!(matches!(error, ReadError::GaveUp { .. }), "{error}");
                break;
            }
        }
    }
}

/// A new master comes, and the slave that gave up is told to look.
fn come_back(name: &str, slave: &mut Endpoint, events: &Events) {
    let nobody = slave.reconnect();
    assert!(
        matches!(nobody, Err(OpenError::NoMaster { .. })),
        "{nobody:?}"
    );
    assert_eq!(
        slave.connection(),
        Connection::Reconnecting,
        "it looks again"
    );
    let mut master = Endpoint::master(name).expect("the one before is dead");
    wait_for(events, |event| matches!(event, Event::Reconnected { .. }));
    slave.reconnect().expect("it has a master");
    master.write(b"again").expect("it fits");
    let deadline = Deadline::after(WATCHDOG);
    while *slave.read_timeout(deadline).expect("it comes") != *b"again" {}
    slave.write(b"yes").expect("it is connected");
    assert_eq!(*master.read_timeout(WATCHDOG).expect("it comes"), *b"yes");
}

#[test]
fn a_slave_gives_up_after_its_attempts() {
    let name = Name::new("eshm-attempts");
    let settings = Endpoint::builder()
        .reconnect_attempts(3)
        .reconnect_wait(Duration::ZERO)
        .reconnect_interval(Duration::from_millis(30));
    let (mut slave, events) = widow(&name, settings);
    for attempt in 1..=3 {
        let event = wait_for(&events, |event| matches!(event, Event::Reconnecting { .. }));
        assert_eq!(
            event,
            Event::Reconnecting {
                attempt,
                limit: Some(3)
            }
        );
    }
    let end = wait_for(&events, |event| matches!(event, Event::GaveUp { .. }));
    assert!(
        matches!(end, Event::GaveUp { attempts: 3, waited } if waited >= Duration::from_millis(60)),
        "{end:?}"
    );
    assert_gave_up(&mut slave);
    come_back(&name, &mut slave, &events);
}

#[test]
fn a_slave_gives_up_after_its_time() {
    let name = Name::new("eshm-wait");
    let settings = Endpoint::builder()
        .reconnect_attempts(0)
        .reconnect_wait(Duration::from_millis(200))
        .reconnect_interval(Duration::from_millis(30));
    let (mut slave, events) = widow(&name, settings);
    let event = wait_for(&events, |event| matches!(event, Event::Reconnecting { .. }));
    assert_eq!(
        event,
        Event::Reconnecting {
            attempt: 1,
            limit: None
        }
    );
    let end = wait_for(&events, |event| matches!(event, Event::GaveUp { .. }));
    assert!(
        matches!(end, Event::GaveUp { waited, .. } if waited >= Duration::from_millis(200)),
        "{end:?}"
    );
    assert_gave_up(&mut slave);
    come_back(&name, &mut slave, &events);
}

#[test]
fn the_first_of_both_limits_ends_it() {
    for (attempts, wait) in [(2, 60_000), (60_000, 100)] {
        let name = Name::new("eshm-limits");
        let settings = Endpoint::builder()
            .reconnect_attempts(attempts)
            .reconnect_wait(Duration::from_millis(wait))
            .reconnect_interval(Duration::from_millis(10));
        let (mut slave, events) = widow(&name, settings);
        wait_for(&events, |event| matches!(event, Event::GaveUp { .. }));
        assert_gave_up(&mut slave);
    }
}

#[test]
fn a_slave_that_never_gives_up_does_not() {
    let name = Name::new("eshm-never");
    let settings = Endpoint::builder()
        .disconnect_behavior(DisconnectBehavior::Never)
        .reconnect_attempts(2)
        .reconnect_wait(Duration::from_millis(50))
        .reconnect_interval(Duration::from_millis(10));
    let (mut slave, events) = widow(&name, settings);
    // Beyond both limits.
    let event = wait_for(&events, |event| {
        matches!(event, Event::Reconnecting { attempt: 30.., .. })
    });
    assert_eq!(
        event,
        Event::Reconnecting {
            attempt: 30,
            limit: None
        }
    );
    assert_eq!(slave.connection(), Connection::Reconnecting);
    assert!(matches!(
        slave.write(b"x"),
        Err(WriteError::Reconnecting { .. })
    ));
    while slave.try_read().expect("it looks").is_some() {}
    assert!(
        slave
            .read_timeout(Duration::from_millis(50))
            .is_err_and(|e| e.is_timeout())
    );
    let _master = Endpoint::master(&name).expect("the one before is dead");
    wait_for(&events, |event| matches!(event, Event::Reconnected { .. }));
    slave.write(b"x").expect("it is connected");
}

#[test]
fn a_slave_that_disconnects_at_once_stays_so_until_it_is_told() {
    let name = Name::new("eshm-immediately");
    let settings = Endpoint::builder().disconnect_behavior(DisconnectBehavior::Immediately);
    let (mut slave, events) = widow(&name, settings);
    // A read without an end is told too.
    let error = loop {
        match slave.read_timeout(Duration::MAX) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Stale { .. }), "{error}");
    assert!(matches!(slave.try_read(), Err(ReadError::Stale { .. })));
    wait_for(&events, |event| matches!(event, Event::Stale { .. }));
    // The mapping stays, and with it what is written.
    slave.write(b"still").expect("writes go on");
    let mut master = Endpoint::master(&name).expect("the one before is dead");
    master.write(b"x").expect("it fits");
    thread::sleep(2 * THRESHOLD);
    assert!(matches!(slave.try_read(), Err(ReadError::Stale { .. })));
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, Event::Reconnecting { .. }), "{event}");
    }
    slave.reconnect().expect("there is a master");
    assert_eq!(
        *slave.read_timeout(WATCHDOG).expect("it is connected"),
        *b"x"
    );
}

// Peers that are not polyshm.

/// An object as other implementations use it: plain stores in their order, and
/// no marks. By file calls alone, so that no code of ours is shared.
struct Foreign {
    file: File,
    outgoing: ChannelPlace,
    incoming: ChannelPlace,
    heartbeat: u64,
    alive: u64,
}

impl Foreign {
    fn on(file: File, role: Role) -> Self {
        let channel = |direction| Layout::default().channel(direction);
        let (m2s, s2m) = (
            channel(Direction::MasterToSlave),
            channel(Direction::SlaveToMaster),
        );
        match role {
            Role::Slave => Self {
                file,
                outgoing: s2m,
                incoming: m2s,
                heartbeat: offset::SLAVE_HEARTBEAT as u64,
                alive: offset::SLAVE_ALIVE as u64,
            },
            _ => Self {
                file,
                outgoing: m2s,
                incoming: s2m,
                heartbeat: offset::MASTER_HEARTBEAT as u64,
                alive: offset::MASTER_ALIVE as u64,
            },
        }
    }

    fn attach(name: &str, role: Role) -> Self {
        let file = File::options().read(true).write(true).open(file_of(name));
        Self::on(file.expect("it is there"), role)
    }

    /// The name is there first, then the length, then the header.
    fn create(name: &str) -> Self {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(file_of(name));
        let made = Self::on(file.expect("the name is free"), Role::Master);
        thread::sleep(Duration::from_millis(20));
        made.file
            .set_len(Layout::default().object_len())
            .expect("there is room");
        thread::sleep(Duration::from_millis(20));
        made.put32(offset::MAGIC as u64, MAGIC);
        made.put32(offset::VERSION as u64, 2);
        made.put32(offset::STALE_THRESHOLD as u64, 100);
        made
    }

    fn enter_as_master(&self) {
        let generation = offset::MASTER_GENERATION as u64;
        self.put32(generation, self.get32(generation) + 1);
        self.put32(offset::MASTER_PID as u64, std::process::id());
        self.put32(self.alive, 1);
        self.put64(self.heartbeat, 0);
    }

    fn enter_as_slave(&self) {
        self.put32(offset::SLAVE_PID as u64, std::process::id());
        self.put32(self.alive, 1);
        self.put64(self.heartbeat, 0);
    }

    fn get32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.file
            .read_exact_at(&mut bytes, at)
            .expect("it is inside");
        u32::from_le_bytes(bytes)
    }

    fn get64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file
            .read_exact_at(&mut bytes, at)
            .expect("it is inside");
        u64::from_le_bytes(bytes)
    }

    fn put32(&self, at: u64, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn put64(&self, at: u64, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("it is inside");
    }

    fn write(&self, data: &[u8]) {
        let to = &self.outgoing;
        let sequence = self.get32(to.sequence);
        self.put32(to.sequence, sequence.wrapping_add(1));
        self.put(to.data, data);
        self.put32(to.data_size, data.len() as u32);
        self.put32(to.sequence, sequence.wrapping_add(2));
        self.put64(to.write_count, self.get64(to.write_count) + 1);
    }

    /// One read that waits: it believes the count, then the sequence.
    fn read(&self, cursor: &mut u64) -> Vec<u8> {
        let from = &self.incoming;
        let deadline = Deadline::after(WATCHDOG);
        let count = loop {
            let count = self.get64(from.write_count);
            if count > *cursor {
                break count;
            }
            assert!(!deadline.expired(), "message {} never comes", *cursor + 1);
            thread::sleep(Duration::from_micros(100));
        };
        let data = loop {
            let sequence = self.get32(from.sequence);
            if sequence % 2 == 1 {
                continue;
            }
            let mut data = vec![0; self.get32(from.data_size) as usize];
            self.file
                .read_exact_at(&mut data, from.data)
                .expect("it is inside");
            if self.get32(from.sequence) == sequence {
                break data;
            }
        };
        self.put64(from.read_count, self.get64(from.read_count) + 1);
        *cursor = count;
        data
    }

    /// Beats a thousand times a second from now on, as long as that is true.
    fn beat(self: &Arc<Self>) -> Arc<AtomicBool> {
        let beats = Arc::new(AtomicBool::new(true));
        let (own, goes_on) = (Arc::clone(self), Arc::clone(&beats));
        thread::spawn(move || {
            while goes_on.load(Relaxed) {
                own.put64(own.heartbeat, own.get64(own.heartbeat) + 1);
                thread::sleep(Duration::from_millis(1));
            }
        });
        beats
    }
}

const FOREIGN: u64 = 300;

/// Lengths of messages to and from foreign peers: the ends first.
fn foreign_length(number: u64) -> usize {
    match number {
        1 => 0,
        2 => CAPACITY,
        _ => some_length(number, 0),
    }
}

/// Beats with pauses, on orders; `quit` leaves the object as such a peer does.
fn obey(own: &Arc<Foreign>, beats: &AtomicBool) {
    while let Some(line) = hear_parent() {
        match line.as_str() {
            "freeze" => beats.store(false, Relaxed),
            "go on" => {
                // A thread of its own again; it lives as long as the process.
                let _ = own.beat();
            }
            "quit" => {
                beats.store(false, Relaxed);
                own.put32(own.alive, 0);
                tell("left");
                return;
            }
            other => panic!("no order {other}"),
        }
        tell("obeyed");
    }
}

/// Writes first, and waits for the answer, so that each message is read.
fn foreign_master(name: &str, generation: u64) {
    let own = if generation == 1 {
        Foreign::create(name)
    } else {
        Foreign::attach(name, Role::Master)
    };
    own.enter_as_master();
    let own = Arc::new(own);
    assert_eq!(
        u64::from(own.get32(offset::MASTER_GENERATION as u64)),
        generation
    );
    let beats = own.beat();
    // Such a reader takes nothing that was written before it came.
    let mut cursor = own.get64(own.incoming.write_count);
    let before = cursor;
    tell("up");
    wait_until("a slave", || own.get32(offset::SLAVE_ALIVE as u64) == 1);
    // The slave says that it is back; one that comes too early is not heard.
    assert!(hear_parent().is_some());
    for number in 1..=FOREIGN {
        own.write(&message(generation, number, foreign_length(number)));
        let got = own.read(&mut cursor);
        assert_eq!(got, message(10, number, foreign_length(number)), "torn");
        assert_eq!(cursor, before + number, "one count for each");
        let sequence = own.get32(own.incoming.sequence);
        assert_eq!(u64::from(sequence), 2 * cursor, "two numbers for each");
        assert_eq!(own.get64(own.outgoing.read_count), before + number);
    }
    let slave = own.get64(offset::SLAVE_HEARTBEAT as u64);
    wait_until("a heartbeat", || {
        own.get64(offset::SLAVE_HEARTBEAT as u64) != slave
    });
    tell("done");
    obey(&own, &beats);
}

/// Answers what a foreign master writes.
fn answer(slave: &mut Endpoint, generation: u64) {
    for number in 1..=FOREIGN {
        let got = slave.read_timeout(WATCHDOG).expect("each one comes");
        assert_eq!(got.lost(), 0);
        assert_eq!(
            *got,
            *message(generation, number, foreign_length(number)),
            "torn"
        );
        write_when_connected(slave, &message(10, number, foreign_length(number)));
    }
}

#[test]
fn a_foreign_master_and_its_successor_are_followed() {
    let name = Name::new("eshm-foreign-master");
    let start = |generation| {
        child(
            "child_role",
            &format!("foreign-master {} {generation}", &*name),
        )
    };
    let mut master = start(1);
    // While it is being created: its name comes before its bytes.
    let mut slave = builder(Role::Slave)
        .connect_timeout(WATCHDOG)
        .disconnect_behavior(DisconnectBehavior::Never)
        .open(&name)
        .expect("it comes");
    let events = slave.events();
    master.say("go");
    answer(&mut slave, 1);
    assert!(master.wait_for_line("done"));
    let stats = slave.stats();
    assert_eq!(
        stats.master_pid,
        i32::try_from(master.0.id()).expect("a pid")
    );
    assert_eq!(
        (stats.m2s_write_count, stats.m2s_read_count),
        (FOREIGN, FOREIGN)
    );
    assert_eq!(
        (stats.s2m_write_count, stats.s2m_read_count),
        (FOREIGN, FOREIGN)
    );
    assert!(stats.master_alive && stats.slave_alive);
    assert_eq!(slave.remote(), Remote::Alive);
    let second = Endpoint::master(&name);
    assert!(
        matches!(second, Err(OpenError::RoleTaken { .. })),
        "{second:?}"
    );

    // It stands still, and goes on.
    master.say("freeze");
    assert!(master.wait_for_line("obeyed"));
    wait_for(&events, |event| matches!(event, Event::Reconnecting { .. }));
    master.say("go on");
    assert!(master.wait_for_line("obeyed"));
    wait_for(&events, |event| {
        matches!(
            event,
            Event::Reconnected {
                recreated: false,
                ..
            }
        )
    });

    // It is killed, and the next one takes its object over.
    drop(master);
    wait_for(&events, |event| {
        matches!(event, Event::Stale { closed: false, .. })
    });
    let mut master = start(2);
    wait_for(&events, |event| {
        matches!(
            event,
            Event::Reconnected {
                recreated: false,
                ..
            }
        )
    });
    master.say("go");
    answer(&mut slave, 2);
    assert!(master.wait_for_line("done"));

    // It leaves in order.
    master.say("quit");
    assert!(master.wait_for_line("left"));
    wait_for(&events, |event| {
        matches!(event, Event::Stale { closed: true, .. })
    });
    Outcome::of(master);

    // And a polyshm master comes after it.
    let mut master = Endpoint::master(&name).expect("the one before left");
    wait_for(&events, |event| {
        matches!(
            event,
            Event::Reconnected {
                recreated: false,
                ..
            }
        )
    });
    master.write(b"native").expect("it fits");
    assert_eq!(*slave.read_timeout(WATCHDOG).expect("it comes"), *b"native");
    write_when_connected(&mut slave, b"too");
    assert_eq!(*master.read_timeout(WATCHDOG).expect("it comes"), *b"too");
    drop(slave);
    drop(master);
    name.assert_nothing_left();
}

/// Answers each message.
fn foreign_slave(name: &str, generation: u64) {
    let own = Arc::new(Foreign::attach(name, Role::Slave));
    own.enter_as_slave();
    let beats = own.beat();
    let mut cursor = own.get64(own.incoming.write_count);
    let before = cursor;
    tell("up");
    for number in 1..=FOREIGN {
        let got = own.read(&mut cursor);
        assert_eq!(got, message(10, number, foreign_length(number)), "torn");
        assert_eq!(cursor, before + number, "one count for each");
        assert_eq!(
            u64::from(own.get32(own.incoming.sequence)),
            2 * cursor,
            "two numbers for each"
        );
        own.write(&message(generation, number, foreign_length(number)));
    }
    let master = own.get64(offset::MASTER_HEARTBEAT as u64);
    wait_until("a heartbeat", || {
        own.get64(offset::MASTER_HEARTBEAT as u64) != master
    });
    tell("done");
    obey(&own, &beats);
}

#[test]
fn foreign_slaves_come_and_go_under_a_master() {
    let name = Name::new("eshm-foreign-slave");
    let mut master = Endpoint::master(&name).expect("the name is free");
    let events = master.events();
    assert_eq!(master.remote(), Remote::NeverSeen);
    for generation in 1..=3 {
        let mut slave = child(
            "child_role",
            &format!("foreign-slave {} {generation}", &*name),
        );
        assert!(slave.wait_for_line("up"));
        wait_for(&events, |event| {
            matches!(event, Event::Joined | Event::Recovered)
        });
        for number in 1..=FOREIGN {
            master
                .write(&message(10, number, foreign_length(number)))
                .expect("a master writes");
            let got = master.read_timeout(WATCHDOG).expect("it answers");
            assert_eq!(got.lost(), 0);
            assert_eq!(
                *got,
                *message(generation, number, foreign_length(number)),
                "torn"
            );
        }
        assert!(slave.wait_for_line("done"));
        assert_eq!(master.remote(), Remote::Alive);
        let stats = master.stats();
        assert_eq!(stats.slave_pid, i32::try_from(slave.0.id()).expect("a pid"));
        assert_eq!(stats.m2s_read_count, generation * FOREIGN);
        let second = Endpoint::slave(&name);
        assert!(
            matches!(second, Err(OpenError::RoleTaken { .. })),
            "{second:?}"
        );

        slave.say("freeze");
        assert!(slave.wait_for_line("obeyed"));
        wait_for(&events, |event| {
            matches!(event, Event::Stale { closed: false, .. })
        });
        slave.say("go on");
        assert!(slave.wait_for_line("obeyed"));
        wait_for(&events, |event| *event == Event::Recovered);
        if generation == 2 {
            slave.say("quit");
            assert!(slave.wait_for_line("left"));
            Outcome::of(slave);
            wait_for(&events, |event| {
                matches!(event, Event::Stale { closed: true, .. })
            });
        } else {
            drop(slave);
            wait_for(&events, |event| {
                matches!(event, Event::Stale { closed: false, .. })
            });
        }
        assert_eq!(master.connection(), Connection::Attached, "a master stays");
    }
    // A polyshm slave after one that was killed.
    let mut slave = Endpoint::slave(&name).expect("the one before is dead");
    slave.write(b"native").expect("the master lives");
    assert_eq!(
        *master.read_timeout(WATCHDOG).expect("it comes"),
        *b"native"
    );
    drop(slave);
    drop(master);
    name.assert_nothing_left();
}

// Writers that share a role.

const SHARED: u64 = 10_000;

/// One slave of several, all of which write without a pause.
fn sharer(name: &str, writer: u64) {
    let slave = builder(Role::Slave).share_role(true);
    let mut slave = slave.open(name).expect("the role is shared");
    tell("ready");
    assert!(hear_parent().is_some());
    let mut refused = 0;
    for number in 1..=SHARED {
        match slave.write(&message(writer, number, some_length(number, HEAD))) {
            Ok(()) => {}
            // The other one was held up in the middle of a message.
            Err(WriteError::Busy { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    tell(&format!("refused {refused}"));
    hear_parent();
}

#[test]
fn what_two_slaves_write_at_once_is_never_mixed() {
    let name = Name::new("eshm-share");
    let mut master = steady(Role::Master).open(&name).expect("it is free");
    let mut slaves = [1, 2].map(|id| child("child_role", &format!("sharer {} {id}", &*name)));
    for slave in &mut slaves {
        assert!(slave.wait_for_line("ready"));
    }
    for slave in &mut slaves {
        slave.say("go");
    }
    // By a thread of its own: the children are heard meanwhile.
    let end = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&end);
    let reader = thread::spawn(move || {
        let (mut last, mut delivered) = ([0; 3], [0_u64; 3]);
        loop {
            let is_end = told.load(Acquire);
            match master.read_timeout(Duration::from_millis(20)) {
                Ok(got) => {
                    let (writer, number) = whole(&got);
                    let last = &mut last[writer as usize];
                    assert!(number > *last, "writer {writer}: {number} after {last}");
                    *last = number;
                    delivered[writer as usize] += 1;
                }
                Err(error) if error.is_timeout() => {
                    // Nothing came since all was written.
                    if is_end {
                        return (master, delivered);
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let refused: u64 = slaves
        .iter_mut()
        .map(|slave| slave.hear_number("refused"))
        .sum();
    end.store(true, Release);
    let (master, delivered) = reader.join().expect("nothing is torn");
    println!(
        "{delivered:?} delivered, {} lost, {refused} refused",
        master.lost()
    );
    let written = 2 * SHARED - refused;
    assert_eq!(delivered.iter().sum::<u64>() + master.lost(), written);
    assert_eq!(master.stats().s2m_write_count, written);
    let image = fs::read(file_of(&name)).expect("it is there");
    let object = describe(&image, &Layout::default()).expect("it is sound");
    let channel = object.channel(Direction::SlaveToMaster);
    let voids = u64::from(channel.native_voids);
    assert_eq!(u64::from(channel.sequence), 2 * (written + voids));
    for slave in slaves {
        Outcome::of(slave);
    }
    let header = Header::read(&fs::read(file_of(&name)).expect("it is there")).expect("it is long");
    assert_eq!(header.slave_alive.get(), 0, "both have left");
    drop(master);
    name.assert_nothing_left();
}
