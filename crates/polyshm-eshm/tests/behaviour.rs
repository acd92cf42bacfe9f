//! Endpoints through the public interface, on real objects.
//!
//! Where the other side has to do what polyshm never does (die, take a role
//! that is taken, count wrongly), the test stores the bytes itself.
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_eshm::{
    Connection, Deadline, DisconnectBehavior, Endpoint, EndpointBuilder, Event, Events,
    FunctionRegistry, HeartbeatError, ImageError, Item, ItemDialect, LayoutError, Message, Mode,
    NameError, OpenError, ReadError, Received, Receiver, Remote, Role, Sender, Stats, Value,
    WaitStrategy, WriteError,
    items::{self, DecodeError, EncodeError, FunctionCall, ImageFrame, ItemKind, Scalar},
};
use polyshm_testkit::Name;
use polyshm_wire::eshm::{
    Description, Direction, Header, Layout, MAGIC, MAX_CAPACITY, MAX_NAME_LEN, VERSION, describe,
    object_name, offset,
};
use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileExt, PermissionsExt},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{scope, sleep, spawn},
    time::{Duration, Instant},
};

const NOW: Duration = Duration::ZERO;
const MOMENT: Duration = Duration::from_millis(1);
/// A stale threshold that passes soon: for who looks only when the test does.
const SOON: Duration = Duration::from_millis(30);
/// One that passes soon enough, and not while a busy machine runs other things.
const WHILE: Duration = Duration::from_millis(250);
/// For what comes at once unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// A stale threshold that does not pass.
const AGES: Duration = Duration::from_hours(1);

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            Err(error) => panic!("{} gave {error:?}", stringify!($result)),
            Ok(_) => panic!("{} succeeded", stringify!($result)),
        }
    };
}

macro_rules! assert_is {
    ($value:expr, $pattern:pat) => {{
        let value = $value;
        assert!(matches!(value, $pattern), "{value:?}");
    }};
}

/// Without threads: nothing happens but what the test does.
fn quiet() -> EndpointBuilder {
    Endpoint::builder().threads(false)
}

fn quiet_master(name: &str) -> Endpoint {
    quiet().role(Role::Master).open(name).unwrap()
}

fn quiet_slave(name: &str) -> Endpoint {
    quiet().role(Role::Slave).open(name).unwrap()
}

fn quiet_pair(name: &str) -> (Endpoint, Endpoint) {
    (quiet_master(name), quiet_slave(name))
}

/// A slave that looks for its master often, and without end.
fn eager() -> EndpointBuilder {
    Endpoint::builder()
        .role(Role::Slave)
        .disconnect_behavior(DisconnectBehavior::Never)
        .reconnect_interval(Duration::from_millis(2))
        .own_threshold(WHILE)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(object_name(name).unwrap())
}

fn exists(name: &str) -> bool {
    path(name).exists()
}

fn image(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

fn described(name: &str) -> Description {
    describe(&image(name), &Layout::default()).unwrap()
}

/// Overwrites bytes of an object behind everybody's back.
fn poke(name: &str, at: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(path(name)).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

fn poke32(name: &str, at: usize, value: u32) {
    poke(name, at, &value.to_le_bytes());
}

fn poke64(name: &str, at: u64, value: u64) {
    poke(name, at as usize, &value.to_le_bytes());
}

/// An object that has just these bytes.
fn place(name: &str, bytes: &[u8]) {
    fs::write(path(name), bytes).unwrap();
}

/// The bytes of an object as another implementation creates it, nobody in it.
fn foreign(capacity: u64) -> Vec<u8> {
    let layout = Layout::new(capacity).unwrap();
    let mut image = Header::new(100, 0).to_bytes().to_vec();
    image.resize(layout.object_len() as usize, 0);
    image
}

/// The pid of a process that is no more.
fn dead_pid() -> i32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id().cast_signed()
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// As if the process of this role had been killed: the flag stays.
fn kill(name: &str, role: Role) {
    let (pid, mark) = match role {
        Role::Slave => (offset::SLAVE_PID, offset::NATIVE_SLAVE_MARK),
        _ => (offset::MASTER_PID, offset::NATIVE_MASTER_MARK),
    };
    poke32(name, mark, 0);
    poke(name, pid, &dead_pid().to_le_bytes());
}

/// Polls until it is so.
#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_micros(200));
    }
}

#[track_caller]
fn next(events: &Events) -> Event {
    events.next_timeout(PATIENCE).expect("an event comes")
}

/// The next event but the very first, which may have come before this test
/// listened.
#[track_caller]
fn next_but_joined(events: &Events) -> Event {
    match next(events) {
        Event::Joined => next(events),
        event => event,
    }
}

/// The next event but attempts to reconnect, of which there may be any number.
#[track_caller]
fn next_but_attempts(events: &Events) -> Event {
    loop {
        match next(events) {
            Event::Reconnecting { .. } => {}
            event => return event,
        }
    }
}

#[track_caller]
fn expect_text(message: &Message, text: &str) {
    assert_eq!(String::from_utf8_lossy(message), text);
}

// Bad input.

#[test]
fn a_message_over_the_capacity_changes_nothing() {
    for capacity in [1, 100, 1000, 4095, 4096, 4097] {
        for share in [false, true] {
            let name = Name::new("over");
            let config = || quiet().capacity(capacity).share_role(share);
            let mut master = config().role(Role::Master).open(&name).unwrap();
            let mut slave = config().role(Role::Slave).open(&name).unwrap();
            let largest = capacity as usize;
            assert_eq!((master.capacity(), slave.capacity()), (largest, largest));
            master.write(&vec![1; largest]).unwrap();
            slave.write(&vec![2; largest]).unwrap();
            let before = image(&name);
            for endpoint in [&mut master, &mut slave] {
                for len in [largest + 1, largest * 2 + 7, 1 << 20] {
                    let refused = endpoint.write(&vec![3; len]);
                    let Err(WriteError::TooLarge {
                        name: of,
                        len: found,
                        capacity: limit,
                    }) = refused
                    else {
                        panic!("{refused:?}")
                    };
                    assert_eq!((&*of, found, limit), (&*name, len, largest));
                }
                let items = [Item::new("k", "v".repeat(largest))];
                assert_error!(endpoint.write_items(&items), WriteError::TooLarge { .. });
            }
            assert_eq!(image(&name), before, "capacity {capacity}, shared {share}");
            assert_eq!(*slave.try_read().unwrap().unwrap(), *vec![1; largest]);
            assert_eq!(*master.try_read().unwrap().unwrap(), *vec![2; largest]);
            drop((slave, master));
            name.assert_nothing_left();
        }
    }
}

#[test]
fn capacities_beyond_the_limits_are_refused() {
    let name = Name::new("capacity");
    for role in [Role::Master, Role::Slave, Role::Auto] {
        for capacity in [0, MAX_CAPACITY + 1, 1 << 32, u64::MAX] {
            let opened = quiet().role(role).capacity(capacity).open(&name);
            let Err(OpenError::Capacity { name: of, source }) = opened else {
                panic!("{capacity}: {opened:?}")
            };
            assert_eq!(*of, *name.0);
            let right = match source {
                LayoutError::ZeroCapacity => capacity == 0,
                LayoutError::TooLarge {
                    capacity: found,
                    limit,
                } => found == capacity && limit == MAX_CAPACITY,
                _ => false,
            };
            assert!(right, "{capacity}: {source:?}");
            name.assert_nothing_left();
        }
    }
    // The largest is only looked for: it has two gigabytes.
    let largest = quiet().role(Role::Slave).capacity(MAX_CAPACITY).open(&name);
    assert_error!(largest, OpenError::NotFound { .. });
}

#[test]
fn names_that_cannot_be_are_refused() {
    for role in [Role::Master, Role::Slave, Role::Auto] {
        let open = |name: &str| quiet().role(role).open(name);
        assert_error!(open(""), OpenError::Name(NameError::Empty));
        assert_error!(open("polyshm\0x"), OpenError::Name(NameError::Nul { .. }));
        for long in ["x".repeat(MAX_NAME_LEN + 1), "\u{e9}".repeat(125)] {
            let len = long.len();
            assert_error!(
                open(&long),
                OpenError::Name(NameError::TooLong { len: found, max: 249, .. }) if found == len
            );
        }
    }
    let error = std::io::Error::from(quiet().open("").unwrap_err());
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn names_become_files_as_the_format_says() {
    let base = Name::new("names");
    for (name, file) in [
        (format!("{}/b", base.0), format!("eshm_{}_b", base.0)),
        (format!("/{}", base.0), format!("eshm__{}", base.0)),
        (format!("{}//b", base.0), format!("eshm_{}__b", base.0)),
        (
            format!("{}-\u{e9} .", base.0),
            format!("eshm_{}-\u{e9} .", base.0),
        ),
    ] {
        let name = Name(name);
        let master = quiet_master(&name);
        assert_eq!(master.name(), &*name);
        let path = PathBuf::from("/dev/shm").join(file);
        assert!(path.exists(), "{}", path.display());
        master.close();
        assert!(!path.exists(), "{}", path.display());
    }
    let longest = Name(format!(
        "{}-{}",
        base.0,
        "x".repeat(MAX_NAME_LEN - 1 - base.len())
    ));
    assert_eq!(longest.len(), MAX_NAME_LEN);
    let (mut master, mut slave) = quiet_pair(&longest);
    master.write(b"long").unwrap();
    expect_text(&slave.read().unwrap(), "long");
    assert!(exists(&longest));
    // Both spellings are one object.
    let slashed = format!("{}/s", base.0);
    let underscored = Name(format!("{}_s", base.0));
    let master = quiet_master(&slashed);
    let second = quiet().role(Role::Master).open(&underscored);
    assert_error!(
        second,
        OpenError::RoleTaken {
            role: Role::Master,
            ..
        }
    );
    drop(master);
}

#[test]
fn a_slave_needs_an_object() {
    let name = Name::new("none");
    let opened = Endpoint::slave(&name);
    let error = opened.unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(error, OpenError::NotFound { .. }), "{error:?}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotFound);
    name.assert_nothing_left();

    let patience = Duration::from_millis(40);
    let start = Instant::now();
    let waits = quiet().role(Role::Slave).connect_timeout(patience);
    assert_error!(waits.clone().open(&name), OpenError::NotFound { .. });
    assert!(start.elapsed() >= patience);

    scope(|scope| {
        let slave = scope.spawn(|| waits.connect_timeout(PATIENCE).open(&name));
        sleep(Duration::from_millis(20));
        let mut master = quiet_master(&name);
        let mut slave = slave.join().unwrap().unwrap();
        master.write(b"at last").unwrap();
        expect_text(&slave.read().unwrap(), "at last");
    });
}

#[test]
fn what_is_no_channel_is_refused_and_left_alone() {
    let name = Name::new("foreign");
    let sound = foreign(4096);
    let with = |at: usize, bytes: &[u8]| {
        let mut image = sound.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    };
    for (what, image, right) in [
        (
            "another magic",
            with(offset::MAGIC, b"MHSe"),
            (|error| matches!(error, ImageError::Magic { found: 0x6553_484d })) as fn(&_) -> _,
        ),
        ("version 1", with(offset::VERSION, &[1]), |error| {
            matches!(error, ImageError::Version { found: 1 })
        }),
        ("version 3", with(offset::VERSION, &[3]), |error| {
            matches!(error, ImageError::Version { found: 3 })
        }),
        ("no whole header", sound[..127].to_vec(), |error| {
            matches!(
                error,
                ImageError::TooShort {
                    len: 127,
                    need: 128
                }
            )
        }),
        ("just a magic", sound[..4].to_vec(), |error| {
            matches!(error, ImageError::TooShort { len: 4, need: 128 })
        }),
    ] {
        place(&name, &image);
        for role in [Role::Master, Role::Slave, Role::Auto] {
            let opened = quiet().role(role).open(&name);
            let Err(OpenError::Invalid { source, .. }) = &opened else {
                panic!("{what}: {role}: {opened:?}")
            };
            assert!(right(source), "{what}: {role}: {source:?}");
            assert!(!opened.unwrap_err().is_transient());
            assert_eq!(fs::read(path(&name)).unwrap(), image, "{what}: {role}");
        }
        fs::remove_file(path(&name)).unwrap();
    }
}

#[test]
fn a_short_object_is_refused_and_a_longer_one_used() {
    let name = Name::new("length");
    let sound = foreign(4096);
    for len in [128, 129, 4352, 8575] {
        place(&name, &sound[..len]);
        for role in [Role::Slave, Role::Auto] {
            let opened = quiet().role(role).open(&name);
            let Err(OpenError::Invalid {
                source: ImageError::TooShort { len: found, need },
                ..
            }) = opened
            else {
                panic!("{len}: {opened:?}")
            };
            assert_eq!((found, need), (len as u64, 8576));
        }
        assert_eq!(image(&name), sound[..len]);
        // Nobody is in it: a master makes its own.
        let master = quiet_master(&name);
        assert_eq!(image(&name).len(), 8576);
        drop(master);
    }
    let mut long = sound;
    long.resize(20_000, 0xA5);
    place(&name, &long);
    let mut slave = quiet_slave(&name);
    slave.write(b"up").unwrap();
    assert_eq!(image(&name)[8576..], long[8576..]);
    assert_eq!(described(&name).slave_to_master.write_count, 1);
    // A slave's object stays, and a master that follows takes over.
    let mut master = quiet_master(&name);
    expect_text(&master.read_latest().unwrap().unwrap(), "up");
    master.write(b"down").unwrap();
    expect_text(&slave.read().unwrap(), "down");
    assert_eq!(image(&name)[8576..], long[8576..]);
    drop((slave, master));
    name.assert_nothing_left();
}

#[test]
fn what_is_not_complete_is_waited_for_and_then_replaced() {
    let name = Name::new("unfinished");
    for unfinished in [vec![], vec![0; 3], vec![0; 128], vec![0; 8576]] {
        place(&name, &unfinished);
        let error = quiet().role(Role::Slave).open(&name).unwrap_err();
        assert!(matches!(error, OpenError::NotReady { .. }), "{error:?}");
        assert!(error.is_transient());
        assert_eq!(image(&name), unfinished);
        for role in [Role::Master, Role::Auto] {
            place(&name, &unfinished);
            let mut master = quiet().role(role).open(&name).unwrap();
            assert_eq!(master.role(), Role::Master);
            let mut slave = quiet_slave(&name);
            master.write(b"new").unwrap();
            expect_text(&slave.read().unwrap(), "new");
        }
        name.assert_nothing_left();
    }
    // Its creator needs a moment, as a foreign one does.
    place(&name, &[]);
    scope(|scope| {
        let slave = scope.spawn(|| quiet().role(Role::Slave).open(&name));
        sleep(Duration::from_millis(20));
        let file = File::options().write(true).open(path(&name)).unwrap();
        file.set_len(8576).unwrap();
        sleep(Duration::from_millis(20));
        file.write_all_at(&foreign(4096), 0).unwrap();
        let slave = slave.join().unwrap().unwrap();
        assert_eq!(slave.stats().slave_pid, own_pid());
    });
}

#[test]
fn another_capacity_is_seen_where_the_creator_noted_it() {
    let name = Name::new("mismatch");
    let master = quiet_master(&name);
    for wanted in [1, 100, 4095, 4097] {
        let before = image(&name);
        let opened = quiet().role(Role::Slave).capacity(wanted).open(&name);
        let Err(OpenError::CapacityMismatch {
            name: of,
            wanted: asked,
            found,
        }) = &opened
        else {
            panic!("{wanted}: {opened:?}")
        };
        assert_eq!((&**of, u64::from(*asked), *found), (&*name, wanted, 4096));
        assert!(!opened.unwrap_err().is_transient());
        assert_eq!(image(&name), before);
    }
    drop(master);

    // A master that takes over must not disagree with the living slave ...
    let master = quiet_master(&name);
    let slave = quiet_slave(&name);
    std::mem::forget(master);
    kill(&name, Role::Master);
    let other = || quiet().role(Role::Master).capacity(4095).open(&name);
    assert_error!(
        other(),
        OpenError::CapacityMismatch {
            wanted: 4095,
            found: 4096,
            ..
        }
    );
    // ... and replaces what a dead one left.
    std::mem::forget(slave);
    kill(&name, Role::Slave);
    let master = other().unwrap();
    assert_eq!(master.capacity(), 4095);
    drop(master);

    // Nothing tells in an object without marks: both sizes round to the same.
    let master = quiet().role(Role::Master).native_marks(false).open(&name);
    let slave = quiet()
        .role(Role::Slave)
        .capacity(4095)
        .open(&name)
        .unwrap();
    assert_eq!(slave.capacity(), 4095);
    drop((slave, master));
}

#[test]
fn a_message_that_does_not_fit_the_buffer_stays() {
    let name = Name::new("too-small");
    let (mut master, mut slave) = quiet_pair(&name);
    master.write(&[1; 10]).unwrap();
    slave.write(&[2; 4096]).unwrap();
    let before = image(&name);
    for (endpoint, needed) in [(&mut slave, 10), (&mut master, 4096)] {
        for len in [0, 1, needed - 1] {
            let mut buffer = vec![0; len];
            for result in [
                endpoint.read_into(&mut buffer, NOW).map(Some),
                endpoint.read_into(&mut buffer, PATIENCE).map(Some),
                endpoint.try_read_into(&mut buffer),
            ] {
                let Err(ReadError::BufferTooSmall {
                    name: of,
                    needed: wanted,
                    len: had,
                }) = result
                else {
                    panic!("{result:?}")
                };
                assert_eq!((&*of, wanted, had), (&*name, needed, len));
            }
        }
    }
    assert_eq!(image(&name), before, "nothing was taken");
    let mut buffer = [0; 10];
    let received = slave.read_into(&mut buffer, NOW).unwrap();
    assert_eq!(
        (received, buffer),
        (
            Received {
                len: 10,
                number: 1,
                lost: 0
            },
            [1; 10]
        )
    );
    let mut buffer = [9; 5000];
    let received = master.try_read_into(&mut buffer).unwrap().unwrap();
    assert_eq!(received.len, 4096);
    assert!(buffer[..4096].iter().all(|byte| *byte == 2));
    assert!(buffer[4096..].iter().all(|byte| *byte == 9));
    assert!(slave.try_read().unwrap().is_none() && master.try_read().unwrap().is_none());
}

#[test]
fn a_length_beyond_the_capacity_is_an_error_until_the_next_message() {
    let name = Name::new("corrupt");
    let (mut master, mut slave) = quiet_pair(&name);
    for (role, direction) in [
        (Role::Slave, Direction::MasterToSlave),
        (Role::Master, Direction::SlaveToMaster),
    ] {
        let (reader, writer) = match role {
            Role::Slave => (&mut slave, &mut master),
            _ => (&mut master, &mut slave),
        };
        let place = Layout::default().channel(direction);
        writer.write(b"sound").unwrap();
        for size in [4097, 1 << 16, 1 << 24, u32::MAX] {
            poke32(&name, place.data_size as usize, size);
            let mut buffer = [0; 16];
            for result in [
                reader.try_read().map(drop),
                reader.read_timeout(NOW).map(drop),
                reader.read_into(&mut buffer, PATIENCE).map(drop),
                reader.try_read_into(&mut buffer).map(drop),
                reader.read_latest().map(drop),
                reader.read_items(NOW).map(drop),
            ] {
                let Err(ReadError::Corrupt { source, .. }) = result else {
                    panic!("{result:?}")
                };
                let right = ImageError::DataSize {
                    direction,
                    found: size,
                    capacity: 4096,
                };
                assert_eq!(source, right);
            }
        }
        writer.write(b"again").unwrap();
        expect_text(&reader.read().unwrap(), "again");
    }
}

#[test]
fn after_close_everything_fails_and_nothing_hangs() {
    for closer in 0..3 {
        let name = Name::new("closed");
        let (mut master, mut slave) = quiet_pair(&name);
        master.write(b"pending").unwrap();
        slave.write(b"pending").unwrap();
        for endpoint in [master, slave] {
            let role = endpoint.role();
            let events = endpoint.events();
            let (mut sender, mut receiver) = endpoint.split();
            match closer {
                0 => sender.close(),
                1 => receiver.close(),
                _ => {
                    let endpoint = Endpoint::unsplit(sender, receiver).unwrap();
                    endpoint.close();
                    (sender, receiver) = endpoint.split();
                }
            }
            halves_are_closed(&mut sender, &mut receiver, &name, role);
            let mut endpoint = Endpoint::unsplit(sender, receiver).unwrap();
            endpoint_is_closed(&mut endpoint, &name, role);
            assert_eq!(events.next_timeout(PATIENCE), None);
            assert_eq!(events.into_iter().next(), None);
            // A second time is no error.
            endpoint.close();
        }
        name.assert_nothing_left();
    }
}

fn halves_are_closed(sender: &mut Sender, receiver: &mut Receiver, name: &str, role: Role) {
    assert_error!(receiver.read(), ReadError::Closed { .. });
    assert_error!(receiver.read_timeout(PATIENCE), ReadError::Closed { .. });
    assert_error!(receiver.try_read(), ReadError::Closed { .. });
    let mut buffer = [0; 16];
    assert_error!(
        receiver.read_into(&mut buffer, PATIENCE),
        ReadError::Closed { .. }
    );
    assert_error!(
        receiver.try_read_into(&mut buffer),
        ReadError::Closed { .. }
    );
    assert_error!(receiver.read_latest(), ReadError::Closed { .. });
    assert_error!(receiver.read_items(PATIENCE), ReadError::Closed { .. });
    assert_eq!(receiver.lost(), 0);
    for _ in 0..2 {
        assert_error!(sender.write(b"x"), WriteError::Closed { .. });
    }
    let items = [Item::new("k", 1)];
    assert_error!(sender.write_items(&items), WriteError::Closed { .. });
    for (beat, reconnect) in [
        (sender.update_heartbeat(), sender.reconnect()),
        (receiver.update_heartbeat(), receiver.reconnect()),
    ] {
        assert_error!(beat, HeartbeatError::Closed { .. });
        assert_error!(reconnect, OpenError::Closed { .. });
    }
    for (of, stats) in [
        (sender.name(), sender.stats()),
        (receiver.name(), receiver.stats()),
    ] {
        assert_eq!((of, stats), (name, Stats::default()));
    }
    assert_eq!((sender.role(), receiver.role()), (role, role));
    assert_eq!((sender.capacity(), receiver.capacity()), (4096, 4096));
    let closed = Connection::Closed;
    assert_eq!(
        (sender.connection(), receiver.connection()),
        (closed, closed)
    );
    assert!(!sender.remote().is_alive() && !receiver.remote().is_alive());
    for events in [sender.events(), receiver.events()] {
        assert_eq!(events.try_next(), None);
        comes_to_an_end(events);
    }
}

fn endpoint_is_closed(endpoint: &mut Endpoint, name: &str, role: Role) {
    let mut buffer = [0; 16];
    assert_error!(endpoint.write(b"x"), WriteError::Closed { .. });
    assert_error!(endpoint.write_items(&[]), WriteError::Closed { .. });
    assert_error!(endpoint.read(), ReadError::Closed { .. });
    assert_error!(endpoint.read_timeout(PATIENCE), ReadError::Closed { .. });
    assert_error!(endpoint.try_read(), ReadError::Closed { .. });
    assert_error!(
        endpoint.read_into(&mut buffer, NOW),
        ReadError::Closed { .. }
    );
    assert_error!(
        endpoint.try_read_into(&mut buffer),
        ReadError::Closed { .. }
    );
    assert_error!(endpoint.read_latest(), ReadError::Closed { .. });
    assert_error!(endpoint.read_items(NOW), ReadError::Closed { .. });
    assert_error!(endpoint.update_heartbeat(), HeartbeatError::Closed { .. });
    assert_error!(endpoint.reconnect(), OpenError::Closed { .. });
    assert_eq!(endpoint.stats(), Stats::default());
    assert_eq!((endpoint.name(), endpoint.role()), (name, role));
    assert_eq!((endpoint.capacity(), endpoint.lost()), (4096, 0));
    assert_eq!(endpoint.connection(), Connection::Closed);
    assert!(!endpoint.remote().is_alive());
    comes_to_an_end(endpoint.events());
}

/// Events asked for too late are none, rather than for ever to come.
#[track_caller]
fn comes_to_an_end(mut events: Events) {
    let (tell, told) = std::sync::mpsc::channel();
    spawn(move || tell.send(events.next()));
    let end = told.recv_timeout(PATIENCE).expect("the iterator hangs");
    assert_eq!(end, None);
}

#[test]
fn an_automatic_endpoint_remembers_its_role_when_it_is_closed() {
    let name = Name::new("closed-auto");
    let master = quiet().open(&name).unwrap();
    let slave = quiet().open(&name).unwrap();
    assert_eq!((master.role(), slave.role()), (Role::Master, Role::Slave));
    slave.close();
    master.close();
    assert_eq!((master.role(), slave.role()), (Role::Master, Role::Slave));
}

// Roles.

#[test]
fn one_process_has_a_role() {
    let name = Name::new("taken");
    let mut master = quiet_master(&name);
    let taken = |role: Role, by: Role| {
        let before = image(&name);
        let opened = quiet().role(role).open(&name);
        let Err(OpenError::RoleTaken {
            name: of,
            role,
            pid,
        }) = opened
        else {
            panic!("{role}: {opened:?}")
        };
        assert_eq!((&*of, role, pid), (&*name, by, own_pid()));
        assert_eq!(image(&name), before, "nothing was touched");
    };
    taken(Role::Master, Role::Master);
    let slave = quiet_slave(&name);
    taken(Role::Master, Role::Master);
    taken(Role::Slave, Role::Slave);
    // With a living master it can only be a slave.
    taken(Role::Auto, Role::Slave);
    let error = quiet().role(Role::Slave).open(&name).unwrap_err();
    assert!(!error.is_transient());
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::AddrInUse);
    drop(slave);
    let mut slave = quiet_slave(&name);
    master.write(b"to the next").unwrap();
    expect_text(&slave.read().unwrap(), "to the next");
}

#[test]
fn a_shared_role_has_several() {
    let name = Name::new("shared");
    let mut master = quiet_master(&name);
    let shared = || quiet().role(Role::Slave).share_role(true);
    let mut first = shared().open(&name).unwrap();
    let mut second = shared().open(&name).unwrap();
    // All of them must want it.
    let alone = quiet().role(Role::Slave).open(&name);
    assert_error!(
        alone,
        OpenError::RoleTaken {
            role: Role::Slave,
            ..
        }
    );

    master.write(b"to both").unwrap();
    expect_text(&first.read().unwrap(), "to both");
    expect_text(&second.read().unwrap(), "to both");
    assert_eq!(master.stats().m2s_read_count, 2);
    first.write(b"from one").unwrap();
    expect_text(&master.read().unwrap(), "from one");
    second.write(b"from the other").unwrap();
    expect_text(&master.read().unwrap(), "from the other");

    // The flag of all goes with one, and comes back with the next beat.
    second.close();
    assert!(!master.stats().slave_alive);
    first.update_heartbeat().unwrap();
    assert!(master.stats().slave_alive);
    assert_eq!(first.connection(), Connection::Attached);
    first.write(b"still here").unwrap();
    expect_text(&master.read().unwrap(), "still here");
}

#[test]
fn writers_of_a_shared_role_exclude_each_other() {
    const WRITERS: u64 = 3;
    const EACH: u64 = 2000;
    let name = Name::new("exclude");
    let mut master = quiet_master(&name);
    let done = AtomicU64::new(0);
    scope(|scope| {
        for writer in 0..WRITERS {
            let (name, done) = (&name, &done);
            scope.spawn(move || {
                let mut slave = quiet().role(Role::Slave).share_role(true);
                slave = slave.native_marks(writer % 2 == 0);
                let mut slave = slave.open(name).unwrap();
                for number in 0..EACH {
                    let byte = (writer + WRITERS * (number % 80)) as u8;
                    slave.write(&vec![byte; 100 + usize::from(byte)]).unwrap();
                }
                done.fetch_add(1, Relaxed);
            });
        }
        let (mut accounted, mut last) = (0, 0);
        loop {
            let over = done.load(Relaxed) == WRITERS;
            while let Some(message) = master.try_read().unwrap() {
                let byte = message[0];
                assert_eq!(message.len(), 100 + usize::from(byte));
                assert!(message.iter().all(|other| *other == byte), "torn");
                assert!(message.number() > last);
                last = message.number();
                accounted += 1 + message.lost();
            }
            if over {
                break;
            }
        }
        assert_eq!((accounted, last), (WRITERS * EACH, WRITERS * EACH));
    });
    let seen = described(&name).slave_to_master;
    assert_eq!(seen.write_count, WRITERS * EACH);
    assert_eq!(u64::from(seen.sequence), 2 * WRITERS * EACH);
}

#[test]
fn a_shared_writer_gets_past_a_dead_one() {
    let name = Name::new("stuck");
    let mut master = quiet_master(&name);
    let shared = quiet().role(Role::Slave).share_role(true);
    let mut slave = shared.open(&name).unwrap();
    slave.write(b"one").unwrap();
    expect_text(&master.read().unwrap(), "one");
    let sequence = Layout::default().channel(Direction::SlaveToMaster).sequence;
    poke32(&name, sequence as usize, 3);
    slave.write(b"two").unwrap();
    let message = master.read().unwrap();
    expect_text(&message, "two");
    // The dead writer's number is none of a message's.
    assert_eq!((message.number(), message.lost()), (2, 0));
    assert_eq!(described(&name).slave_to_master.write_count, 2);
    slave.write(b"three").unwrap();
    let message = master.read().unwrap();
    assert_eq!((message.number(), message.lost()), (3, 0));
}

#[test]
fn a_shared_writer_that_is_never_let_through_says_so() {
    let name = Name::new("held-up");
    let mut master = quiet_master(&name);
    let shared = quiet().role(Role::Slave).share_role(true);
    let mut slave = shared.open(&name).unwrap();
    // Another that was stopped in the middle of its turn.
    let file = File::open(path(&name)).unwrap();
    file.lock().unwrap();
    let before = image(&name);
    let error = slave.write(b"mine").unwrap_err();
    assert!(matches!(error, WriteError::Busy { .. }), "{error:?}");
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::WouldBlock);
    assert_eq!(image(&name), before);
    // It does not hold up who reads, nor the master.
    master.write(b"down").unwrap();
    expect_text(&slave.read().unwrap(), "down");
    file.unlock().unwrap();
    slave.write(b"mine").unwrap();
    expect_text(&master.read().unwrap(), "mine");
}

#[test]
fn automatic_endpoints_find_their_roles() {
    let name = Name::new("auto");
    let mut first = Endpoint::auto(&name).unwrap();
    let mut second = Endpoint::auto(&name).unwrap();
    assert_eq!((first.role(), second.role()), (Role::Master, Role::Slave));
    first.write(b"down").unwrap();
    expect_text(&second.read().unwrap(), "down");
    second.write(b"up").unwrap();
    expect_text(&first.read().unwrap(), "up");
    let third = Endpoint::auto(&name);
    assert_error!(
        third,
        OpenError::RoleTaken {
            role: Role::Slave,
            ..
        }
    );
    drop((second, first));
    name.assert_nothing_left();
    assert_eq!(Role::default(), Role::Auto);
    for (role, text) in [
        (Role::Master, "master"),
        (Role::Slave, "slave"),
        (Role::Auto, "auto"),
    ] {
        assert_eq!(role.to_string(), text);
    }
}

#[test]
fn an_automatic_endpoint_is_promoted_at_opening_only_where_that_is_wanted() {
    let name = Name::new("promote");
    // A master that died, its slave alive or not, or gone in good order.
    for slave_of in ["none", "alive", "dead"] {
        for promote in [false, true] {
            let master = quiet_master(&name);
            let inode = inode(&name);
            let slave = (slave_of != "none").then(|| quiet_slave(&name));
            std::mem::forget(master);
            kill(&name, Role::Master);
            let slave = match slave_of {
                "dead" => {
                    std::mem::forget(slave);
                    kill(&name, Role::Slave);
                    None
                }
                _ => slave,
            };
            let opened = quiet().promote(promote).open(&name);
            if promote {
                let auto = opened.unwrap();
                assert_eq!(auto.role(), Role::Master, "slave {slave_of}");
                let taken_over = slave_of != "none";
                assert_eq!(inode == self::inode(&name), taken_over);
                let generation = 1 + u32::from(taken_over);
                assert_eq!(described(&name).master_generation, generation);
                drop(slave);
                drop(auto);
                name.assert_nothing_left();
            } else if slave_of == "alive" {
                assert_error!(
                    opened,
                    OpenError::RoleTaken {
                        role: Role::Slave,
                        ..
                    }
                );
                fs::remove_file(path(&name)).unwrap();
            } else {
                assert_eq!(opened.unwrap().role(), Role::Slave);
                fs::remove_file(path(&name)).unwrap();
            }
        }
    }
    // With a living master there is nothing to be promoted to.
    let master = quiet_master(&name);
    let auto = quiet().promote(true).open(&name).unwrap();
    assert_eq!((master.role(), auto.role()), (Role::Master, Role::Slave));
    // And without an object it is master as ever.
    drop((auto, master));
    let auto = quiet().promote(true).open(&name).unwrap();
    assert_eq!(auto.role(), Role::Master);
}

fn inode(name: &str) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path(name)).unwrap())
}

#[test]
fn an_automatic_slave_is_promoted_when_its_master_goes() {
    let name = Name::new("promoted");
    let master = Endpoint::master(&name).unwrap();
    let config = eager().role(Role::Auto).promote(true);
    let mut auto = config.clone().open(&name).unwrap();
    assert_eq!(auto.role(), Role::Slave);
    let events = auto.events();
    eventually("the master is seen", || auto.remote().is_alive());
    drop(master);
    eventually("it is promoted", || auto.role() == Role::Master);
    assert_eq!(auto.connection(), Connection::Attached);
    assert_is!(next_but_joined(&events), Event::Stale { closed: true, .. });
    assert_is!(
        next(&events),
        Event::Reconnecting {
            attempt: 1,
            limit: None
        }
    );
    assert_eq!(next_but_attempts(&events), Event::Promoted);
    assert_eq!(events.try_next(), None);
    assert_eq!(auto.remote(), Remote::NeverSeen);

    let mut second = config.open(&name).unwrap();
    assert_eq!(second.role(), Role::Slave);
    auto.write(b"as master").unwrap();
    expect_text(&second.read().unwrap(), "as master");
    second.write(b"as slave").unwrap();
    expect_text(&auto.read().unwrap(), "as slave");
    assert_eq!(next(&events), Event::Joined);
}

#[test]
fn who_was_displaced_stops() {
    let name = Name::new("displaced");
    for role in [Role::Master, Role::Slave] {
        let (master, slave) = quiet_pair(&name);
        let (mut own, mut other, place) = match role {
            Role::Slave => (slave, master, offset::SLAVE_PID),
            _ => (master, slave, offset::MASTER_PID),
        };
        let events = own.events();
        other.write(b"before").unwrap();
        // As other implementations do: they just enter themselves. This process
        // lives for sure.
        let thief = 1_i32;
        poke(&name, place, &thief.to_le_bytes());
        let before = image(&name);
        assert_error!(own.write(b"mine"), WriteError::Displaced { pid, .. } if pid == thief);
        assert_eq!(image(&name), before, "nothing of it is there");
        for _ in 0..2 {
            let beat = own.update_heartbeat();
            assert_error!(beat, HeartbeatError::Displaced { pid, .. } if pid == thief);
        }
        assert_eq!(image(&name), before, "it does not beat for another");
        assert_eq!(own.connection(), Connection::Displaced);
        assert_error!(own.write(b"mine"), WriteError::Displaced { pid, .. } if pid == thief);
        assert_error!(
            own.reconnect(),
            OpenError::RoleTaken { role: found, pid, .. } if found == role && pid == thief
        );
        assert_eq!(events.try_next(), Some(Event::Displaced { pid: thief }));
        assert_eq!(events.try_next(), None);
        // What was written to it can still be read.
        expect_text(&own.try_read().unwrap().unwrap(), "before");
        let before = image(&name);
        drop(own);
        assert_eq!(image(&name), before, "the object is another's now");
        drop(other);
        let _ = fs::remove_file(path(&name));
    }
}

#[test]
fn a_displaced_slave_takes_its_place_again_when_it_is_free() {
    for leaves in [false, true] {
        for threads in [false, true] {
            let name = Name::new("visitor");
            let master = quiet_master(&name);
            let config = Endpoint::builder().threads(threads).role(Role::Slave);
            let mut slave = config.open(&name).unwrap();
            let events = slave.events();
            poke(&name, offset::SLAVE_PID, &1_i32.to_le_bytes());
            eventually("it is displaced", || {
                let _ = slave.update_heartbeat();
                slave.connection() == Connection::Displaced
            });
            assert_error!(slave.write(b"mine"), WriteError::Displaced { pid: 1, .. });
            if leaves {
                poke32(&name, offset::SLAVE_ALIVE, 0);
            } else {
                poke(&name, offset::SLAVE_PID, &dead_pid().to_le_bytes());
            }
            if !threads {
                slave.reconnect().unwrap();
            }
            eventually("it is back", || slave.connection() == Connection::Attached);
            let seen = described(&name);
            assert_eq!((seen.slave_pid, seen.slave_alive), (own_pid(), true));
            slave.write(b"mine").unwrap();
            let stats = master.stats();
            assert_eq!((stats.slave_pid, stats.s2m_write_count), (own_pid(), 1));
            let heard: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
            assert!(heard.contains(&Event::Displaced { pid: 1 }), "{heard:?}");
            assert_is!(
                heard.last(),
                Some(Event::Reconnected {
                    recreated: false,
                    ..
                })
            );
        }
    }
    // A master's object may be another's: it does not come back.
    let name = Name::new("visitor");
    let master = quiet_master(&name);
    poke(&name, offset::MASTER_PID, &dead_pid().to_le_bytes());
    assert!(master.update_heartbeat().is_err());
    assert_error!(
        master.reconnect(),
        OpenError::RoleTaken {
            role: Role::Master,
            ..
        }
    );
    assert_eq!(master.connection(), Connection::Displaced);
}

#[test]
fn a_master_whose_object_was_replaced_is_told() {
    let name = Name::new("usurped");
    let mut master = Endpoint::master(&name).unwrap();
    let events = master.events();
    // Without a slave, a master of another implementation removes the object and
    // makes its own.
    fs::remove_file(path(&name)).unwrap();
    let mut other = foreign(4096);
    other[offset::MASTER_PID..][..4].copy_from_slice(&1_i32.to_le_bytes());
    other[offset::MASTER_ALIVE] = 1;
    place(&name, &other);
    eventually("it is told", || {
        master.connection() == Connection::Displaced
    });
    assert_eq!(next(&events), Event::Displaced { pid: 1 });
    assert_error!(master.write(b"mine"), WriteError::Displaced { pid: 1, .. });
    drop(master);
    assert_eq!(image(&name), other);
}

// Reading.

#[test]
fn every_way_to_read_gives_the_message() {
    let name = Name::new("ways");
    let (mut master, mut slave) = quiet_pair(&name);
    let mut text = 0_u64;
    let mut write = |master: &mut Endpoint| {
        text += 1;
        let bytes = format!("message {text}");
        master.write(bytes.as_bytes()).unwrap();
        (text, bytes)
    };
    for timeout in [NOW, MOMENT, PATIENCE, Duration::MAX] {
        let (number, bytes) = write(&mut master);
        let message = slave.read_timeout(timeout).unwrap();
        expect_text(&message, &bytes);
        assert_eq!((message.number(), message.lost()), (number, 0));
    }
    for deadline in [
        Deadline::now(),
        Deadline::after(PATIENCE),
        Deadline::never(),
    ] {
        let (_, bytes) = write(&mut master);
        expect_text(&slave.read_timeout(deadline).unwrap(), &bytes);
    }
    let (_, bytes) = write(&mut master);
    expect_text(&slave.read().unwrap(), &bytes);
    let (_, bytes) = write(&mut master);
    expect_text(&slave.try_read().unwrap().unwrap(), &bytes);
    for timeout in [NOW, PATIENCE] {
        let (number, bytes) = write(&mut master);
        let mut buffer = [0; 64];
        let received = slave.read_into(&mut buffer, timeout).unwrap();
        let len = bytes.len();
        assert_eq!(
            received,
            Received {
                len,
                number,
                lost: 0
            }
        );
        assert_eq!(buffer[..len], *bytes.as_bytes());
    }
    let (number, bytes) = write(&mut master);
    let mut buffer = vec![0; bytes.len()];
    let received = slave.try_read_into(&mut buffer).unwrap().unwrap();
    assert_eq!((received.number, &*buffer), (number, bytes.as_bytes()));

    // Each was given once.
    assert!(slave.try_read().unwrap().is_none());
    assert!(slave.try_read_into(&mut buffer).unwrap().is_none());
    let start = Instant::now();
    let patience = Duration::from_millis(12);
    assert_error!(slave.read_timeout(patience), ReadError::Timeout { .. });
    assert!(start.elapsed() >= patience);
    assert_error!(slave.read_timeout(NOW), ReadError::Timeout { .. });
    let error = slave.read_into(&mut buffer, MOMENT).unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::TimedOut);
    assert_error!(slave.read_items(NOW), ReadError::Timeout { .. });
    assert_eq!(slave.stats().m2s_read_count, text);
}

#[test]
fn the_usual_timeout_can_be_set() {
    let name = Name::new("timeout");
    let patience = Duration::from_millis(30);
    let config = quiet().read_timeout(patience);
    let mut master = config.role(Role::Master).open(&name).unwrap();
    let start = Instant::now();
    assert_error!(master.read(), ReadError::Timeout { .. });
    assert!(start.elapsed() >= patience);
    // Unset it is a second.
    let mut slave = quiet_slave(&name);
    let start = Instant::now();
    assert_error!(slave.read(), ReadError::Timeout { .. });
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_message_in_its_own_memory_is_easy_to_use() {
    let name = Name::new("message");
    let (mut master, mut slave) = quiet_pair(&name);
    master.write(b"one").unwrap();
    master.write(b"two").unwrap();
    let message = slave.read().unwrap();
    assert_eq!((message.number(), message.lost()), (2, 1));
    assert_eq!((message.len(), &message[1..]), (3, &b"wo"[..]));
    assert_eq!(message.as_ref(), b"two");
    assert_eq!(message.clone(), message);
    assert_eq!(message.to_string(), "message 2 of 3 bytes");
    assert_eq!(Vec::from(message.clone()), b"two");
    assert_eq!(message.into_bytes(), b"two");
    assert_eq!(slave.lost(), 1);
}

#[test]
fn a_message_of_no_bytes_is_a_message() {
    let name = Name::new("empty");
    let (mut master, mut slave) = quiet_pair(&name);
    master.write(b"old bytes").unwrap();
    slave.read().unwrap();
    master.write(b"").unwrap();
    let message = slave.read().unwrap();
    assert_eq!((message.len(), message.number()), (0, 2));
    assert_eq!(described(&name).master_to_slave.data_size, 0);
    assert!(slave.try_read().unwrap().is_none());
    let latest = slave.read_latest().unwrap().unwrap();
    assert_eq!((latest.len(), latest.number()), (0, 2));
    // Not even a buffer is needed.
    slave.write(b"").unwrap();
    let received = master.read_into(&mut [], NOW).unwrap();
    assert_eq!(
        received,
        Received {
            len: 0,
            number: 1,
            lost: 0
        }
    );
    slave.write(b"").unwrap();
    assert_eq!(master.try_read_into(&mut []).unwrap().unwrap().number, 2);
    assert!(master.try_read_into(&mut []).unwrap().is_none());
    // No items are an empty list of a message, which is not an empty message.
    slave.write_items(&[]).unwrap();
    assert_eq!(master.read_items(NOW).unwrap(), []);
    slave.write(b"").unwrap();
    assert_error!(master.read_items(NOW), ReadError::Decode { .. });
}

#[test]
fn the_first_message_reaches_a_reader_that_polls() {
    let name = Name::new("first");
    let (mut master, mut slave) = quiet_pair(&name);
    for (reader, writer) in [(0, 1), (1, 0)] {
        let ends = [&mut master, &mut slave];
        assert!(ends[reader].try_read().unwrap().is_none());
        assert_error!(ends[reader].read_timeout(NOW), ReadError::Timeout { .. });
        ends[writer].write(b"first").unwrap();
        let message = ends[reader].try_read().unwrap().expect("it is not lost");
        expect_text(&message, "first");
        assert_eq!((message.number(), message.lost()), (1, 0));
    }
}

#[test]
fn what_was_written_before_the_attachment_is_not_delivered() {
    let name = Name::new("before");
    let mut master = quiet_master(&name);
    master.write(b"early").unwrap();
    master.write(b"late").unwrap();
    let mut slave = quiet_slave(&name);
    assert!(slave.try_read().unwrap().is_none());
    assert_error!(slave.read_timeout(MOMENT), ReadError::Timeout { .. });
    // It can be asked for, which changes nothing.
    let before = image(&name);
    for _ in 0..2 {
        let latest = slave.read_latest().unwrap().unwrap();
        expect_text(&latest, "late");
        assert_eq!((latest.number(), latest.lost()), (2, 0));
    }
    assert_eq!(image(&name), before);
    assert!(slave.try_read().unwrap().is_none());
    master.write(b"after").unwrap();
    let message = slave.read().unwrap();
    expect_text(&message, "after");
    assert_eq!((message.number(), message.lost(), slave.lost()), (3, 0, 0));
}

#[test]
fn the_latest_is_there_whether_it_was_read_or_not() {
    let name = Name::new("latest");
    let (mut master, mut slave) = quiet_pair(&name);
    assert!(slave.read_latest().unwrap().is_none());
    for text in ["one", "two", "three"] {
        master.write(text.as_bytes()).unwrap();
    }
    let latest = slave.read_latest().unwrap().unwrap();
    expect_text(&latest, "three");
    assert_eq!((latest.number(), latest.lost()), (3, 2));
    // It was new, and counts as read; the second time it is not.
    assert_eq!(slave.stats().m2s_read_count, 1);
    assert!(slave.try_read().unwrap().is_none());
    let again = slave.read_latest().unwrap().unwrap();
    expect_text(&again, "three");
    assert_eq!((again.number(), again.lost()), (3, 0));
    assert_eq!((slave.stats().m2s_read_count, slave.lost()), (1, 2));
    // While it is written there is none that could be had.
    let sequence = Layout::default().channel(Direction::MasterToSlave).sequence;
    poke32(&name, sequence as usize, 7);
    assert!(slave.read_latest().unwrap().is_none());
    assert!(slave.try_read().unwrap().is_none());
    poke32(&name, sequence as usize, 6);
    expect_text(&slave.read_latest().unwrap().unwrap(), "three");
}

#[test]
fn a_dead_writers_message_is_void() {
    let name = Name::new("void");
    let (mut master, mut slave) = quiet_pair(&name);
    master.write(b"whole").unwrap();
    expect_text(&slave.read().unwrap(), "whole");
    std::mem::forget(master);
    kill(&name, Role::Master);
    // It died in the middle of its second message.
    let place = Layout::default().channel(Direction::MasterToSlave);
    poke(&name, place.data as usize, b"ha");
    poke32(&name, place.sequence as usize, 3);
    assert!(slave.try_read().unwrap().is_none());
    assert_error!(slave.read_timeout(MOMENT), ReadError::Timeout { .. });

    let mut master = quiet_master(&name);
    let seen = described(&name);
    assert_eq!(
        (seen.master_generation, seen.master_to_slave.sequence),
        (2, 4)
    );
    assert!(!seen.master_to_slave.busy);
    assert_eq!(
        seen.master_to_slave.message, None,
        "the description knows it"
    );
    assert!(slave.try_read().unwrap().is_none());
    assert!(slave.read_latest().unwrap().is_none());
    assert_error!(slave.read_timeout(MOMENT), ReadError::Timeout { .. });
    assert_eq!(slave.stats().m2s_read_count, 1);

    master.write(b"next").unwrap();
    let message = slave.read().unwrap();
    expect_text(&message, "next");
    assert_eq!((message.number(), message.lost(), slave.lost()), (2, 0, 0));
    // Who attaches later counts the same.
    drop(slave);
    let mut slave = quiet_slave(&name);
    let latest = slave.read_latest().unwrap().unwrap();
    assert_eq!((latest.number(), latest.lost()), (2, 0));
    master.write(b"last").unwrap();
    assert_eq!(slave.read().unwrap().number(), 3);
}

#[test]
fn a_message_whose_writer_died_before_counting_it_counts() {
    let name = Name::new("uncounted");
    let (mut master, mut slave) = quiet_pair(&name);
    master.write(b"one").unwrap();
    master.write(b"two").unwrap();
    std::mem::forget(master);
    kill(&name, Role::Master);
    let place = Layout::default().channel(Direction::MasterToSlave);
    poke64(&name, place.write_count, 1);
    let message = slave.read().unwrap();
    expect_text(&message, "two");
    assert_eq!((message.number(), message.lost()), (2, 1));
    let mut master = quiet_master(&name);
    assert_eq!(described(&name).master_to_slave.write_count, 2);
    assert!(slave.try_read().unwrap().is_none());
    master.write(b"three").unwrap();
    let message = slave.read().unwrap();
    assert_eq!((message.number(), message.lost()), (3, 0));
}

#[test]
fn losses_are_counted_exactly() {
    let name = Name::new("losses");
    let (mut master, mut slave) = quiet_pair(&name);
    let (mut written, mut lost) = (0, 0);
    for burst in [1_u64, 2, 1, 7, 100, 1, 1, 1000, 3] {
        for _ in 0..burst {
            written += 1;
            master.write(&u64::to_le_bytes(written)).unwrap();
        }
        lost += burst - 1;
        let message = slave.read().unwrap();
        assert_eq!(*message, written.to_le_bytes());
        assert_eq!((message.number(), message.lost()), (written, burst - 1));
        assert_eq!(slave.lost(), lost);
    }
    // Both halves of the count: what was read and what was not.
    let stats = slave.stats();
    assert_eq!((stats.m2s_write_count, stats.m2s_read_count), (written, 9));
    // The other side lost nothing.
    assert_eq!(master.lost(), 0);
    // A new endpoint begins with nothing lost.
    drop(slave);
    master.write(b"unheard").unwrap();
    let mut slave = quiet_slave(&name);
    master.write(b"heard").unwrap();
    let message = slave.read().unwrap();
    assert_eq!((message.number(), message.lost()), (written + 2, 0));
    assert_eq!(slave.lost(), 0);
}

#[test]
fn losses_are_counted_exactly_when_the_numbers_wrap() {
    let place = Layout::default().channel(Direction::MasterToSlave);
    // How many messages there were when the slave attached: around each wrap of
    // the 32-bit sequence, of what it can tell, and of the 64-bit count.
    let wraps = [1_u64 << 31, 1 << 32, 5 << 31, 1 << 40, 1 << 63, 0];
    for wrap in wraps {
        for before in [1_u64, 2, 3, 40] {
            for burst in [1_u64, 2, 3, 39, 41, 100] {
                let name = Name::new("wrap");
                let mut master = quiet_master(&name);
                let start = wrap.wrapping_sub(before);
                poke32(
                    &name,
                    place.sequence as usize,
                    (start as u32).wrapping_mul(2),
                );
                poke64(&name, place.write_count, start);
                let mut slave = quiet_slave(&name);
                assert!(slave.try_read().unwrap().is_none());
                for _ in 0..burst {
                    master.write(b"x").unwrap();
                }
                let what = format!("{before} before {wrap:#x}, {burst} messages");
                let message = slave.try_read().unwrap().expect(&what);
                let number = start.wrapping_add(burst);
                assert_eq!(
                    (message.number(), message.lost()),
                    (number, burst - 1),
                    "{what}"
                );
                assert!(slave.try_read().unwrap().is_none(), "{what}");
                let seen = described(&name).master_to_slave;
                assert_eq!(seen.write_count, number, "{what}");
                assert_eq!(seen.sequence, (number as u32).wrapping_mul(2), "{what}");
                master.write(b"y").unwrap();
                let message = slave.try_read().unwrap().expect(&what);
                assert_eq!(
                    (message.number(), message.lost()),
                    (number.wrapping_add(1), 0)
                );
                // A channel with the count 0 has had none.
                if number != u64::MAX {
                    let latest = slave.read_latest().unwrap().expect(&what);
                    expect_text(&latest, "y");
                }
            }
        }
    }
}

/// Reads what a writer at full speed leaves, and accounts for each message.
fn account(
    reader: &mut Receiver,
    total: u64,
    mut read: impl FnMut(&mut Receiver) -> Option<Message>,
) {
    let (mut last, mut accounted) = (0, 0);
    let start = Instant::now();
    while last < total {
        assert!(start.elapsed() < PATIENCE, "stuck at {last}");
        let Some(message) = read(reader) else {
            continue;
        };
        let number = message.number();
        assert!(number > last, "{number} after {last}");
        last = number;
        accounted += 1 + message.lost();
        assert_eq!(accounted, number);
        assert_eq!(message.len() as u64, 8 + number % 500);
        assert_eq!(message[..8], number.to_le_bytes());
        let byte = number as u8;
        assert!(message[8..].iter().all(|other| *other == byte), "torn");
    }
    assert_eq!(reader.lost() + reader.stats().m2s_read_count, total);
    assert!(reader.try_read().unwrap().is_none());
}

#[test]
fn no_message_comes_twice_and_each_is_accounted_for() {
    const TOTAL: u64 = 20_000;
    for strategy in [
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
        WaitStrategy::Spin,
    ] {
        for polls in [false, true] {
            let name = Name::new("twice");
            let mut master = quiet_master(&name);
            let slave = quiet().role(Role::Slave).wait_strategy(strategy);
            let (_sender, mut receiver) = slave.open(&name).unwrap().split();
            scope(|scope| {
                scope.spawn(|| {
                    let mut bytes = Vec::new();
                    for number in 1..=TOTAL {
                        bytes.clear();
                        bytes.extend(number.to_le_bytes());
                        bytes.resize(8 + (number % 500) as usize, number as u8);
                        master.write(&bytes).unwrap();
                        if number % 64 == 0 {
                            sleep(Duration::from_micros(20));
                        }
                    }
                });
                account(&mut receiver, TOTAL, |receiver| {
                    if polls {
                        return receiver.try_read().unwrap();
                    }
                    match receiver.read_timeout(Duration::from_millis(5)) {
                        Ok(message) => Some(message),
                        Err(error) => {
                            assert!(error.is_timeout(), "{error}");
                            None
                        }
                    }
                });
            });
        }
    }
}

#[test]
fn a_sleeping_reader_is_woken() {
    for strategy in [
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
        WaitStrategy::Spin,
    ] {
        for marks in [false, true] {
            let name = Name::new("woken");
            let config = || quiet().wait_strategy(strategy).native_marks(marks);
            let mut master = config().role(Role::Master).open(&name).unwrap();
            let mut slave = config().role(Role::Slave).open(&name).unwrap();
            scope(|scope| {
                let reader = scope.spawn(move || {
                    let messages: Vec<_> = (0..5)
                        .map(|_| slave.read_timeout(PATIENCE).unwrap().number())
                        .collect();
                    (slave, messages)
                });
                for _ in 0..5 {
                    sleep(Duration::from_millis(4));
                    master.write(b"wake up").unwrap();
                    eventually("it is read", || {
                        let seen = described(&name).master_to_slave;
                        seen.read_count == seen.write_count
                    });
                }
                let (slave, messages) = reader.join().unwrap();
                assert_eq!(messages, [1, 2, 3, 4, 5]);
                drop(slave);
            });
            let waiters = described(&name).master_to_slave.native_waiters;
            assert_eq!(waiters, 0, "no sleeper is left behind");
        }
    }
}

// Halves.

#[test]
fn halves_go_apart_and_come_together() {
    let name = Name::new("halves");
    let (master, slave) = quiet_pair(&name);
    let (mut sender, mut receiver) = master.split();
    let (mut slave_sender, mut slave_receiver) = slave.split();
    scope(|scope| {
        scope.spawn(|| {
            for number in 0..500_u32 {
                sender.write(&number.to_le_bytes()).unwrap();
                let echo = receiver.read_timeout(PATIENCE).unwrap();
                assert_eq!(*echo, number.to_le_bytes());
            }
        });
        scope.spawn(|| {
            for _ in 0..500 {
                let message = slave_receiver.read_timeout(PATIENCE).unwrap();
                slave_sender.write(&message).unwrap();
            }
        });
    });
    assert_eq!(
        (sender.role(), receiver.role()),
        (Role::Master, Role::Master)
    );
    assert_eq!(
        (slave_sender.role(), slave_receiver.role()),
        (Role::Slave, Role::Slave)
    );
    assert_eq!((sender.name(), receiver.name()), (&*name, &*name));
    assert_eq!(
        (sender.connection(), receiver.connection()),
        (Connection::Attached, Connection::Attached)
    );

    // Halves of two endpoints come back as they are.
    let (sender, slave_receiver) = Endpoint::unsplit(sender, slave_receiver).unwrap_err();
    let mut master = Endpoint::unsplit(sender, receiver).unwrap();
    let mut slave = Endpoint::unsplit(slave_sender, slave_receiver).unwrap();
    master.write(b"together").unwrap();
    expect_text(&slave.read().unwrap(), "together");

    // One half keeps the endpoint open.
    let (sender, mut receiver) = master.split();
    drop(sender);
    assert!(described(&name).master_alive);
    slave.write(b"to half").unwrap();
    expect_text(&receiver.read().unwrap(), "to half");
    drop(receiver);
    assert!(!exists(&name));
    assert!(!slave.stats().master_alive);
}

#[test]
fn a_blocked_read_ends_when_another_thread_closes() {
    for threads in [false, true] {
        for strategy in [
            WaitStrategy::Adaptive,
            WaitStrategy::Block,
            WaitStrategy::Spin,
        ] {
            for role in [Role::Master, Role::Slave] {
                let name = Name::new("blocked");
                let config = |role| {
                    let config = Endpoint::builder().threads(threads);
                    config
                        .wait_strategy(strategy)
                        .role(role)
                        .open(&name)
                        .unwrap()
                };
                let mut ends = [config(Role::Master), config(Role::Slave)];
                if role == Role::Slave {
                    ends.reverse();
                }
                let [end, other] = ends;
                let (sender, mut receiver) = end.split();
                scope(|scope| {
                    let reader = scope.spawn(move || receiver.read_timeout(Deadline::never()));
                    sleep(Duration::from_millis(5));
                    assert!(!reader.is_finished());
                    sender.close();
                    assert_error!(reader.join().unwrap(), ReadError::Closed { .. });
                });
                drop(other);
                // A slave may have been the last.
                let _ = fs::remove_file(path(&name));
            }
        }
    }
}

#[test]
fn endpoints_and_halves_go_to_other_threads() {
    fn movable<T: Send + Sync + std::fmt::Debug>() {}
    movable::<Endpoint>();
    movable::<Sender>();
    movable::<Receiver>();
    movable::<Events>();
    movable::<Message>();
    movable::<EndpointBuilder>();
    movable::<FunctionRegistry>();
    movable::<OpenError>();
    movable::<ReadError>();
    movable::<WriteError>();
    movable::<HeartbeatError>();
}

// Numbers.

#[test]
fn statistics_have_all_thirteen_numbers() {
    let name = Name::new("stats");
    let threshold = Duration::from_millis(250);
    let config = quiet().role(Role::Master).stale_threshold(threshold);
    let mut master = config.open(&name).unwrap();
    let none = Stats {
        master_pid: own_pid(),
        master_alive: true,
        stale_threshold: 250,
        ..Stats::default()
    };
    assert_eq!(master.stats(), none);
    let mut slave = quiet_slave(&name);
    for _ in 0..3 {
        master.update_heartbeat().unwrap();
        slave.update_heartbeat().unwrap();
        slave.update_heartbeat().unwrap();
    }
    // At least one for each call, more for what time has passed.
    let beaten = described(&name);
    let (masters, slaves) = (beaten.master_heartbeat, beaten.slave_heartbeat);
    assert!(masters >= 3 && slaves >= 6, "{beaten:?}");
    for _ in 0..4 {
        master.write(b"down").unwrap();
    }
    slave.read().unwrap();
    for _ in 0..3 {
        slave.write(b"up").unwrap();
        master.read().unwrap();
    }
    slave.write(b"up").unwrap();
    let all = Stats {
        master_heartbeat: masters,
        slave_heartbeat: slaves,
        master_pid: own_pid(),
        slave_pid: own_pid(),
        master_alive: true,
        slave_alive: true,
        stale_threshold: 250,
        master_heartbeat_delta: masters,
        slave_heartbeat_delta: slaves,
        m2s_write_count: 4,
        m2s_read_count: 1,
        s2m_write_count: 4,
        s2m_read_count: 3,
    };
    assert_eq!((master.stats(), slave.stats()), (all, all));
    // Deltas are since the same endpoint's last.
    let again = Stats {
        master_heartbeat_delta: 0,
        slave_heartbeat_delta: 0,
        ..all
    };
    assert_eq!(master.stats(), again);
    slave.update_heartbeat().unwrap();
    let stats = master.stats();
    let later = described(&name).slave_heartbeat;
    assert!(later > slaves);
    assert_eq!(stats.slave_heartbeat, later);
    assert_eq!(stats.slave_heartbeat_delta, later - slaves);
    master.update_heartbeat().unwrap();
    let stats = slave.stats();
    assert_eq!(
        stats.master_heartbeat_delta,
        stats.master_heartbeat - masters
    );
    assert_eq!(stats.slave_heartbeat_delta, later - slaves);
    // Halves are the same endpoint.
    let (sender, receiver) = slave.split();
    sender.update_heartbeat().unwrap();
    let delta = described(&name).slave_heartbeat - later;
    assert_eq!(receiver.stats().slave_heartbeat_delta, delta);
    assert_eq!(sender.stats().slave_heartbeat_delta, 0);
    // Raw numbers are given as they are.
    poke(&name, offset::SLAVE_PID, &(-7_i32).to_le_bytes());
    poke32(&name, offset::MASTER_ALIVE, 5);
    poke32(&name, offset::SLAVE_ALIVE, 0);
    poke64(&name, offset::MASTER_HEARTBEAT as u64, 1);
    let stats = master.stats();
    assert_eq!(stats.slave_pid, -7);
    assert!(stats.master_alive && !stats.slave_alive);
    // It went back behind what was told, as a new master's does.
    assert_eq!(stats.master_heartbeat_delta, 1_u64.wrapping_sub(masters));
}

#[test]
fn a_new_master_counts_generations_of_one_object_only() {
    let name = Name::new("generation");
    let mut masters = vec![quiet_master(&name)];
    let slave = quiet_slave(&name);
    for generation in 1..5 {
        let seen = described(&name);
        assert_eq!(
            (seen.master_generation, seen.master_heartbeat),
            (generation, 0)
        );
        let master = masters.pop().unwrap();
        master.update_heartbeat().unwrap();
        std::mem::forget(master);
        kill(&name, Role::Master);
        masters.push(quiet_master(&name));
    }
    drop((slave, masters));
    name.assert_nothing_left();
    let _master = quiet_master(&name);
    assert_eq!(described(&name).master_generation, 1);
}

#[test]
fn the_heartbeat_thread_beats_for_all_endpoints() {
    let names: Vec<_> = (0..3).map(|_| Name::new("beats")).collect();
    let pairs: Vec<_> = names
        .iter()
        .map(|name| {
            (
                Endpoint::master(name).unwrap(),
                Endpoint::slave(name).unwrap(),
            )
        })
        .collect();
    for (master, slave) in &pairs {
        master.update_heartbeat().unwrap();
        let (mut masters, mut slaves) = (0, 0);
        for _ in 0..5 {
            eventually("both beat", || {
                let stats = master.stats();
                masters += stats.master_heartbeat_delta;
                slaves += stats.slave_heartbeat_delta;
                masters >= 10 && slaves >= 10
            });
        }
        assert_eq!(
            (master.remote(), slave.remote()),
            (Remote::Alive, Remote::Alive)
        );
    }
    // One that has lost its last endpoint may be just about to end.
    eventually("one thread does it all", || heartbeat_threads() == 1);
}

/// Threads of this process that beat.
fn heartbeat_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "polyshm-eshm")
        .count()
}

// The other side.

#[test]
fn a_master_tells_never_seen_from_alive_from_stale_from_closed() {
    for threads in [false, true] {
        let name = Name::new("remote-master");
        let config = Endpoint::builder().threads(threads).own_threshold(WHILE);
        let master = config.role(Role::Master).open(&name).unwrap();
        for _ in 0..3 {
            assert_eq!(master.remote(), Remote::NeverSeen);
            sleep(WHILE / 2);
        }
        let events = master.events();
        let slave = quiet_slave(&name);
        eventually("it is seen", || master.remote() == Remote::Alive);
        assert!(master.remote().is_alive());
        assert_eq!(next(&events), Event::Joined);
        // Without a heartbeat its process speaks for it.
        for _ in 0..3 {
            sleep(WHILE / 2);
            assert_eq!(master.remote(), Remote::Alive);
        }
        // One that has beaten must go on.
        slave.update_heartbeat().unwrap();
        let beaten = Instant::now();
        eventually("it is stale", || master.remote() == Remote::Stale);
        assert!(beaten.elapsed() >= WHILE, "too soon");
        let Event::Stale { silent_for, closed } = next(&events) else {
            panic!("not stale")
        };
        assert!(silent_for >= WHILE && !closed);
        slave.update_heartbeat().unwrap();
        eventually("it is heard", || master.remote() == Remote::Alive);
        assert_eq!(next(&events), Event::Recovered);
        drop(slave);
        eventually("it has left", || master.remote() == Remote::Closed);
        assert_is!(next(&events), Event::Stale { closed: true, .. });
        assert!(!master.remote().is_alive());
        // The next one is as good.
        let _slave = quiet_slave(&name);
        eventually("another is heard", || master.remote() == Remote::Alive);
        assert_eq!(next(&events), Event::Recovered);
        assert_eq!(events.try_next(), None);
        assert_eq!(master.connection(), Connection::Attached);
    }
}

#[test]
fn a_slave_without_threads_is_told_the_same() {
    let name = Name::new("remote-slave");
    let master = quiet_master(&name);
    let slave = quiet()
        .role(Role::Slave)
        .own_threshold(SOON)
        .open(&name)
        .unwrap();
    let events = slave.events();
    assert_eq!(slave.remote(), Remote::Alive, "its process exists");
    assert_eq!(events.try_next(), Some(Event::Joined));
    master.update_heartbeat().unwrap();
    eventually("it is stale", || slave.remote() == Remote::Stale);
    assert_is!(events.try_next(), Some(Event::Stale { closed: false, .. }));
    // It stays attached, whatever happens.
    assert_eq!(slave.connection(), Connection::Attached);
    master.update_heartbeat().unwrap();
    assert_eq!(slave.remote(), Remote::Alive);
    assert_eq!(events.try_next(), Some(Event::Recovered));
    drop(master);
    eventually("it has left", || slave.remote() == Remote::Closed);
    assert_eq!(slave.connection(), Connection::Attached);
    assert_eq!(events.try_iter_count(), 1);
}

trait Rest {
    fn try_iter_count(&self) -> usize;
}

impl Rest for Events {
    fn try_iter_count(&self) -> usize {
        std::iter::from_fn(|| self.try_next()).count()
    }
}

#[test]
fn a_slave_at_a_dead_masters_object_says_so() {
    let name = Name::new("orphan");
    std::mem::forget(quiet_master(&name));
    kill(&name, Role::Master);
    let slave = quiet()
        .role(Role::Slave)
        .own_threshold(WHILE)
        .open(&name)
        .unwrap();
    assert_eq!(slave.remote(), Remote::NeverSeen);
    eventually("it is stale", || slave.remote() == Remote::Stale);
    assert_error!(slave.reconnect(), OpenError::NoMaster { .. });
    let error = slave.reconnect().unwrap_err();
    assert!(error.is_transient());
    assert_eq!(
        std::io::Error::from(error).kind(),
        ErrorKind::ConnectionRefused
    );
    // With threads it looks for another at once.
    drop(slave);
    let slave = eager().open(&name).unwrap();
    eventually("it looks", || {
        slave.connection() == Connection::Reconnecting
    });
    let master = Endpoint::master(&name).unwrap();
    eventually("it is back", || slave.connection() == Connection::Attached);
    eventually("both know", || {
        master.remote().is_alive() && slave.remote().is_alive()
    });
}

#[test]
fn the_creators_threshold_counts_unless_an_own_one_is_set() {
    for (role, other) in [(Role::Slave, Role::Master), (Role::Master, Role::Slave)] {
        // What the creator stores, what this endpoint is opened with, its own.
        for (stored, given, own, stale) in [
            (SOON, AGES, None, true),
            (AGES, SOON, None, false),
            (AGES, SOON, Some(SOON), true),
            (SOON, SOON, Some(AGES), false),
        ] {
            let name = Name::new("threshold");
            let creator = quiet().role(Role::Master).stale_threshold(stored);
            let mut master = Some(creator.open(&name).unwrap());
            let mut slave = None;
            if role == Role::Master {
                // A master that creates nothing takes over.
                slave = Some(quiet_slave(&name));
                std::mem::forget(master.take());
                kill(&name, Role::Master);
            }
            let mut config = quiet().role(role).stale_threshold(given);
            if let Some(own) = own {
                config = config.own_threshold(own);
            }
            let endpoint = config.open(&name).unwrap();
            let ms = stored.as_millis() as u32;
            assert_eq!(endpoint.stats().stale_threshold, ms, "it is the creator's");
            let remote = match other {
                Role::Master => &master,
                _ => &slave,
            };
            remote.as_ref().unwrap().update_heartbeat().unwrap();
            assert_eq!(endpoint.remote(), Remote::Alive);
            let what = format!("{role}: stored {stored:?}, own {own:?}");
            if stale {
                eventually(&what, || endpoint.remote() == Remote::Stale);
            } else {
                for _ in 0..5 {
                    sleep(SOON);
                    assert_eq!(endpoint.remote(), Remote::Alive, "{what}");
                }
            }
            drop((endpoint, slave, master));
            let _ = fs::remove_file(path(&name));
        }
    }
}

#[test]
fn a_threshold_is_stored_in_whole_milliseconds() {
    for (threshold, stored) in [
        (Duration::ZERO, 0),
        (Duration::from_micros(1999), 1),
        (Duration::from_millis(777), 777),
        (Duration::MAX, u32::MAX),
    ] {
        let name = Name::new("stored");
        let config = quiet().role(Role::Master).stale_threshold(threshold);
        let master = config.open(&name).unwrap();
        assert_eq!(described(&name).stale_threshold, stored);
        assert_eq!(master.stats().stale_threshold, stored);
    }
    let name = Name::new("stored");
    let _master = quiet_master(&name);
    assert_eq!(described(&name).stale_threshold, 100);
    // One of 0 does not make a living peer stale at each look.
    let name = Name::new("stored");
    let config = Endpoint::builder().stale_threshold(Duration::ZERO);
    let master = config.role(Role::Master).open(&name).unwrap();
    let slave = Endpoint::slave(&name).unwrap();
    eventually("both are seen", || {
        master.remote().is_alive() && slave.remote().is_alive()
    });
}

#[test]
fn an_endpoint_without_threads_beats_by_hand() {
    let name = Name::new("by-hand");
    let master = quiet_master(&name);
    sleep(SOON);
    assert_eq!(master.stats().master_heartbeat, 0, "nobody beats for it");
    for _ in 0..3 {
        let before = master.stats().master_heartbeat;
        master.update_heartbeat().unwrap();
        assert!(master.stats().master_heartbeat > before);
    }
    // For a peer with threads that is a living master.
    let slave = eager()
        .own_threshold(Duration::from_millis(500))
        .open(&name)
        .unwrap();
    let events = slave.events();
    for _ in 0..100 {
        master.update_heartbeat().unwrap();
        sleep(MOMENT);
    }
    assert_eq!(slave.remote(), Remote::Alive);
    let first = events.try_next();
    assert!(first.is_none_or(|event| event == Event::Joined));
    assert_eq!(events.try_next(), None);
    // Until it stops; and it is found again by its next beat.
    eventually("it is stale", || {
        slave.connection() == Connection::Reconnecting
    });
    assert!(slave.update_heartbeat().is_err());
    assert_error!(
        slave.update_heartbeat(),
        HeartbeatError::Disconnected { .. }
    );
    assert_is!(next(&events), Event::Stale { closed: false, .. });
    assert_is!(
        next(&events),
        Event::Reconnecting {
            attempt: 1,
            limit: None
        }
    );
    master.update_heartbeat().unwrap();
    eventually("it is back", || slave.connection() == Connection::Attached);
    slave.update_heartbeat().unwrap();
    assert_is!(
        next_but_attempts(&events),
        Event::Reconnected {
            recreated: false,
            ..
        }
    );
    // With threads the call beats no more than they do.
    let threaded = Name::new("by-thread");
    let master = Endpoint::master(&threaded).unwrap();
    let before = master.stats().master_heartbeat;
    for _ in 0..100_000 {
        master.update_heartbeat().unwrap();
    }
    let beats = master.stats().master_heartbeat - before;
    assert!(beats < 100_000, "{beats}");
}

// Reconnection.

#[test]
fn a_slave_goes_on_with_a_master_that_was_restarted() {
    let name = Name::new("restart");
    let mut master = Endpoint::master(&name).unwrap();
    let mut slave = eager().open(&name).unwrap();
    let events = slave.events();
    eventually("the master is seen", || slave.remote().is_alive());
    for round in 0..4 {
        master.write(b"last words").unwrap();
        drop(master);
        eventually("it is missed", || {
            slave.connection() == Connection::Reconnecting
        });
        // What was written before comes first, and needs no master.
        expect_text(&slave.try_read().unwrap().unwrap(), "last words");
        assert!(slave.try_read().unwrap().is_none());
        assert_error!(slave.read_timeout(MOMENT), ReadError::Timeout { .. });
        let error = slave.write(b"to nobody").unwrap_err();
        assert!(
            matches!(error, WriteError::Reconnecting { .. }),
            "{error:?}"
        );
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotConnected);
        assert!(!slave.remote().is_alive());

        master = Endpoint::master(&name).unwrap();
        for _ in 0..=round {
            master.write(b"first words").unwrap();
        }
        // The read waits through the reconnection.
        let message = slave.read_timeout(PATIENCE).unwrap();
        expect_text(&message, "first words");
        assert_eq!(
            message.number(),
            message.lost() + 1,
            "all of a new object is new"
        );
        eventually("it is back", || slave.connection() == Connection::Attached);
        assert!(slave.remote().is_alive());
        slave.write(b"thanks").unwrap();
        expect_text(&master.read_timeout(PATIENCE).unwrap(), "thanks");
        // None but the latest of each round may be lost.
        while slave.try_read().unwrap().is_some() {}

        assert_is!(next_but_joined(&events), Event::Stale { closed: true, .. });
        let mut attempts = 0;
        let recreated = loop {
            match next(&events) {
                Event::Reconnecting { attempt, limit } => {
                    attempts += 1;
                    assert_eq!((attempt, limit), (attempts, None));
                }
                Event::Reconnected {
                    attempts: after,
                    recreated,
                } => {
                    assert_eq!(after, attempts);
                    break recreated;
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(recreated);
        assert_eq!(events.try_next(), None);
    }
}

#[test]
fn a_slave_gives_up_after_its_attempts_or_its_time() {
    let interval = Duration::from_millis(5);
    let wait = Duration::from_millis(60);
    for (attempts, limited) in [(3, true), (0, false)] {
        let name = Name::new("gives-up");
        let master = Endpoint::master(&name).unwrap();
        let config = eager()
            .disconnect_behavior(DisconnectBehavior::OnTimeout)
            .reconnect_attempts(attempts)
            .reconnect_wait(if limited { NOW } else { wait })
            .reconnect_interval(interval);
        let mut slave = config.open(&name).unwrap();
        let events = slave.events();
        eventually("it is seen", || slave.remote().is_alive());
        let lost = Instant::now();
        drop(master);
        eventually("it gives up", || slave.connection() == Connection::GaveUp);
        assert_is!(next_but_joined(&events), Event::Stale { closed: true, .. });
        let mut made = 0;
        let (after, waited) = loop {
            match next(&events) {
                Event::Reconnecting { attempt, limit } => {
                    made += 1;
                    assert_eq!((attempt, limit), (made, limited.then_some(attempts)));
                }
                Event::GaveUp { attempts, waited } => break (attempts, waited),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(after, made);
        if limited {
            assert_eq!(made, attempts);
            assert!(waited >= 2 * interval && lost.elapsed() >= 2 * interval);
        } else {
            assert!(waited >= wait && lost.elapsed() >= wait);
        }
        // For good: a new master is not looked for.
        let error = slave.read_timeout(PATIENCE).unwrap_err();
        assert!(matches!(error, ReadError::GaveUp { .. }), "{error:?}");
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::NotConnected);
        assert_error!(slave.try_read(), ReadError::GaveUp { .. });
        assert_error!(slave.read_latest(), ReadError::GaveUp { .. });
        assert_error!(slave.write(b"x"), WriteError::GaveUp { .. });
        assert_error!(
            slave.update_heartbeat(),
            HeartbeatError::Disconnected { .. }
        );
        let mut master = Endpoint::master(&name).unwrap();
        sleep(4 * interval);
        assert_eq!(slave.connection(), Connection::GaveUp);
        assert_eq!(events.try_next(), None);
        // Until it is told to.
        master.write(b"welcome back").unwrap();
        slave.reconnect().unwrap();
        assert_eq!(slave.connection(), Connection::Attached);
        expect_text(&slave.read().unwrap(), "welcome back");
        slave.write(b"hello").unwrap();
        expect_text(&master.read().unwrap(), "hello");
        let event = next(&events);
        assert!(
            matches!(
                event,
                Event::Reconnected {
                    recreated: true,
                    ..
                }
            ),
            "{event:?}"
        );
        // With a living master there is nothing to do.
        slave.reconnect().unwrap();
        master.reconnect().unwrap();
        assert_eq!(events.try_next(), None);
    }
}

#[test]
fn a_slave_that_gave_up_goes_on_looking_when_told() {
    let name = Name::new("look-again");
    let master = Endpoint::master(&name).unwrap();
    let config = eager()
        .disconnect_behavior(DisconnectBehavior::OnTimeout)
        .reconnect_attempts(1);
    let slave = config.open(&name).unwrap();
    eventually("it is seen", || slave.remote().is_alive());
    drop(master);
    eventually("it gives up", || slave.connection() == Connection::GaveUp);
    let slave_events = slave.events();
    assert_error!(slave.reconnect(), OpenError::NotFound { .. });
    // One attempt is all it has, and it was that.
    eventually("it gives up again", || {
        slave.connection() == Connection::GaveUp
    });
    assert!(matches!(
        next(&slave_events),
        Event::GaveUp { attempts: 1, .. }
    ));
}

#[test]
fn who_gave_up_makes_room() {
    let name = Name::new("room");
    let master = quiet_master(&name);
    let config = eager()
        .disconnect_behavior(DisconnectBehavior::OnTimeout)
        .reconnect_attempts(1);
    let given_up = config.open(&name).unwrap();
    eventually("it is seen", || given_up.remote().is_alive());
    // Its object stays for the next master.
    master.update_heartbeat().unwrap();
    std::mem::forget(master);
    kill(&name, Role::Master);
    eventually("it gives up", || {
        given_up.connection() == Connection::GaveUp
    });
    assert!(!described(&name).slave_alive);
    let beats = described(&name).slave_heartbeat;
    sleep(SOON);
    assert_eq!(described(&name).slave_heartbeat, beats, "nobody is there");
    // A new master finds nobody, and a new slave its place.
    let mut master = quiet_master(&name);
    assert_eq!(described(&name).master_generation, 1);
    let mut slave = quiet_slave(&name);
    master.write(b"to the new one").unwrap();
    expect_text(&slave.read().unwrap(), "to the new one");
    drop(slave);
    // Or the old one takes it again.
    given_up.reconnect().unwrap();
    eventually("it is back", || described(&name).slave_alive);
}

#[test]
fn a_new_object_is_read_though_the_old_one_is_damaged() {
    let name = Name::new("leave-damaged");
    let (mut master, mut slave) = quiet_pair(&name);
    assert!(slave.remote().is_alive());
    master.write(b"last").unwrap();
    let place = Layout::default().channel(Direction::MasterToSlave);
    poke32(&name, place.data_size as usize, 4097);
    drop(master);
    eventually("it has left", || !slave.remote().is_alive());
    let mut master = quiet_master(&name);
    master.write(b"new").unwrap();
    slave.reconnect().unwrap();
    expect_text(&slave.read().unwrap(), "new");

    // A message that is only too long for the buffer is not lost that way.
    master.write(b"a long message").unwrap();
    drop(master);
    eventually("it has left", || !slave.remote().is_alive());
    let mut master = quiet_master(&name);
    master.write(b"short").unwrap();
    slave.reconnect().unwrap();
    let mut buffer = [0; 14];
    let read = slave.read_into(&mut buffer[..13], NOW);
    assert_error!(read, ReadError::BufferTooSmall { needed: 14, .. });
    assert_eq!(slave.read_into(&mut buffer, NOW).unwrap().len, 14);
    assert_eq!(buffer, *b"a long message");
    expect_text(&slave.read().unwrap(), "short");
}

#[test]
fn reconnecting_does_nothing_for_who_is_connected() {
    for threads in [false, true] {
        let name = Name::new("connected");
        let config = |role| Endpoint::builder().threads(threads).role(role);
        let master = config(Role::Master).open(&name).unwrap();
        let slave = config(Role::Slave).open(&name).unwrap();
        // Nobody has looked yet.
        slave.reconnect().unwrap();
        master.reconnect().unwrap();
        let own = inode(&name);
        eventually("they see each other", || {
            master.remote().is_alive() && slave.remote().is_alive()
        });
        slave.reconnect().unwrap();
        assert_eq!(
            (inode(&name), slave.connection()),
            (own, Connection::Attached)
        );
    }
}

#[test]
fn the_largest_settings_do_no_harm() {
    let name = Name::new("largest");
    let bystander = Name::new("bystander");
    let other = Endpoint::master(&bystander).unwrap();
    let config = Endpoint::builder()
        .stale_threshold(Duration::MAX)
        .reconnect_wait(Duration::MAX)
        .reconnect_interval(Duration::MAX)
        .reconnect_attempts(u32::MAX)
        .read_timeout(Duration::MAX)
        .connect_timeout(Duration::MAX);
    let mut master = config.clone().role(Role::Master).open(&name).unwrap();
    let mut slave = config.clone().role(Role::Slave).open(&name).unwrap();
    master.write(b"large").unwrap();
    expect_text(&slave.read().unwrap(), "large");
    eventually("it is seen", || slave.remote().is_alive());
    drop(master);
    eventually("it looks", || {
        slave.connection() == Connection::Reconnecting
    });
    // Once at first, and then in ages; it can be told to.
    let _master = config.role(Role::Master).open(&name).unwrap();
    eventually("it is found", || slave.reconnect().is_ok());
    assert_eq!(slave.connection(), Connection::Attached);
    let before = other.stats().master_heartbeat;
    eventually("others beat on", || other.stats().master_heartbeat > before);
}

#[test]
fn without_threads_a_slave_reconnects_by_hand() {
    let name = Name::new("by-hand-again");
    let (master, mut slave) = quiet_pair(&name);
    slave.reconnect().unwrap();
    drop(master);
    eventually("it has left", || slave.remote() == Remote::Closed);
    assert_error!(slave.reconnect(), OpenError::NotFound { .. });
    assert_eq!(slave.connection(), Connection::Attached);
    // What is written meanwhile goes to the object that nobody finds.
    slave.write(b"into the void").unwrap();
    let mut master = quiet_master(&name);
    master.write(b"one").unwrap();
    master.write(b"two").unwrap();
    assert!(slave.try_read().unwrap().is_none(), "not its object");
    slave.reconnect().unwrap();
    assert_eq!(slave.remote(), Remote::Alive);
    let message = slave.read().unwrap();
    expect_text(&message, "two");
    assert_eq!((message.number(), message.lost()), (2, 1));
    slave.write(b"here").unwrap();
    expect_text(&master.read().unwrap(), "here");
    assert_eq!(master.read_latest().unwrap().unwrap().number(), 1);
}

#[test]
fn disconnected_at_once() {
    // A slave: for good.
    let name = Name::new("at-once");
    let behavior = DisconnectBehavior::Immediately;
    let mut master = quiet_master(&name);
    master.update_heartbeat().unwrap();
    let config = eager().disconnect_behavior(behavior);
    let mut slave = config.open(&name).unwrap();
    let events = slave.events();
    master.update_heartbeat().unwrap();
    eventually("it is seen", || slave.remote().is_alive());
    master.write(b"before").unwrap();
    eventually("it is stale", || slave.connection() == Connection::GaveUp);
    // What came before is not lost.
    expect_text(&slave.try_read().unwrap().unwrap(), "before");
    for _ in 0..2 {
        assert_error!(slave.try_read(), ReadError::Stale { .. });
        let error = slave.read_timeout(PATIENCE).unwrap_err();
        assert!(matches!(error, ReadError::Stale { .. }), "{error:?}");
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::BrokenPipe);
        assert_error!(slave.read_latest(), ReadError::Stale { .. });
        // As in the reference, writing does not ask.
        slave.write(b"whoever").unwrap();
        slave.update_heartbeat().unwrap();
        for _ in 0..5 {
            master.update_heartbeat().unwrap();
            sleep(MOMENT);
        }
    }
    assert_eq!(slave.connection(), Connection::GaveUp);
    expect_text(&master.read().unwrap(), "whoever");
    assert_is!(next_but_joined(&events), Event::Stale { closed: false, .. });
    assert_eq!(events.try_next(), None);
    drop((slave, master));

    // A master: until the slave is heard again.
    let config = Endpoint::builder()
        .disconnect_behavior(behavior)
        .own_threshold(WHILE);
    let mut master = config.role(Role::Master).open(&name).unwrap();
    assert!(master.try_read().unwrap().is_none(), "nobody was seen yet");
    let mut slave = quiet_slave(&name);
    eventually("it is seen", || master.remote().is_alive());
    slave.update_heartbeat().unwrap();
    slave.write(b"pending").unwrap();
    eventually("it is stale", || master.remote() == Remote::Stale);
    assert_eq!(master.connection(), Connection::Attached);
    expect_text(&master.try_read().unwrap().unwrap(), "pending");
    assert_error!(master.try_read(), ReadError::Stale { .. });
    master.write(b"still goes").unwrap();
    slave.write(b"back").unwrap();
    eventually("it is heard", || {
        slave.update_heartbeat().unwrap();
        matches!(master.try_read(), Ok(Some(_)))
    });
}

#[test]
fn a_read_that_waits_ends_when_the_other_side_is_lost_at_once() {
    let name = Name::new("wait-lost");
    let master = quiet_master(&name);
    let config = eager().disconnect_behavior(DisconnectBehavior::Immediately);
    let mut slave = config.open(&name).unwrap();
    master.update_heartbeat().unwrap();
    assert_error!(
        slave.read_timeout(Deadline::never()),
        ReadError::Stale { .. }
    );
    drop(slave);
    let config = eager()
        .disconnect_behavior(DisconnectBehavior::OnTimeout)
        .reconnect_attempts(2);
    let mut slave = config.open(&name).unwrap();
    master.update_heartbeat().unwrap();
    assert_error!(
        slave.read_timeout(Deadline::never()),
        ReadError::GaveUp { .. }
    );
}

// Events.

/// Makes the slave of a master without threads stale and alive again, as often
/// as is wanted; two events each time.
fn flap(name: &str, master: &Endpoint, times: u64) {
    for time in 1..=times {
        poke64(name, offset::SLAVE_HEARTBEAT as u64, time << 8);
        assert_eq!(master.remote(), Remote::Alive);
        eventually("it is stale", || master.remote() == Remote::Stale);
    }
}

fn flappable(name: &str) -> (Endpoint, Endpoint) {
    // The least threshold there is.
    let config = quiet().role(Role::Master).stale_threshold(NOW);
    (config.open(name).unwrap(), quiet_slave(name))
}

#[test]
fn events_come_in_order_to_everybody_who_listens() {
    let name = Name::new("events");
    let (master, slave) = flappable(&name);
    let events = master.events();
    let (mut counted, unheard) = (master.events(), master.events());
    drop(unheard);
    flap(&name, &master, 10);
    let late = master.events();
    for round in 0..10 {
        let event = events.try_next().unwrap();
        let right = if round == 0 {
            Event::Joined
        } else {
            Event::Recovered
        };
        assert_eq!(event, right, "{round}");
        let event = events.try_next().unwrap();
        let Event::Stale { silent_for, closed } = event else {
            panic!("{event:?}")
        };
        assert!(silent_for >= Duration::from_millis(2) && !closed);
    }
    assert_eq!((events.try_next(), events.missed()), (None, 0));
    assert_eq!(late.try_next(), None, "events from then on");
    assert_eq!(events.next_timeout(MOMENT), None);
    drop(slave);
    // The iterator takes what is left, and ends.
    let reader = spawn(move || {
        let first = counted.next();
        (first, counted.count())
    });
    drop(master);
    let (first, rest) = reader.join().unwrap();
    assert_eq!((first, rest), (Some(Event::Joined), 19));
    assert_eq!(events.next_timeout(PATIENCE), None);
}

#[test]
fn events_that_nobody_takes_are_counted() {
    let name = Name::new("missed");
    let (master, _slave) = flappable(&name);
    let events = master.events();
    flap(&name, &master, 512);
    assert_eq!(events.missed(), 0);
    flap(&name, &master, 4);
    assert_eq!(events.missed(), 8);
    // The oldest are gone: what is left begins in the middle.
    assert_eq!(events.try_next(), Some(Event::Recovered));
    assert_eq!(events.try_iter_count(), 1023);
    assert_eq!(events.missed(), 8);
}

#[test]
fn a_callback_hears_each_event() {
    for threads in [false, true] {
        let name = Name::new("callback");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let inner = Arc::clone(&heard);
        let config = Endpoint::builder().threads(threads).role(Role::Master);
        let config = config.on_event(move |event| inner.lock().unwrap().push(event.clone()));
        let master = config.open(&name).unwrap();
        let events = master.events();
        let slave = quiet_slave(&name);
        eventually("it is seen", || master.remote().is_alive());
        drop(slave);
        eventually("it has left", || master.remote() == Remote::Closed);
        assert_eq!(next(&events), Event::Joined);
        assert!(matches!(next(&events), Event::Stale { closed: true, .. }));
        eventually("the callback has heard as much", || {
            heard.lock().unwrap().len() == 2
        });
        let heard = heard.lock().unwrap();
        assert_eq!(heard[0], Event::Joined);
        assert!(matches!(heard[1], Event::Stale { closed: true, .. }));
    }
}

#[test]
fn a_callback_that_panics_harms_nobody() {
    for threads in [false, true] {
        let name = Name::new("panics");
        let calls = Arc::new(AtomicU64::new(0));
        let counts = Arc::clone(&calls);
        let config = Endpoint::builder().threads(threads).role(Role::Master);
        let config = config.on_event(move |event| {
            counts.fetch_add(1, Relaxed);
            panic!("as this test wants it: {event}");
        });
        let mut master = config.open(&name).unwrap();
        let events = master.events();
        let slave = quiet_slave(&name);
        eventually("it is seen", || master.remote().is_alive());
        drop(slave);
        eventually("it has left", || master.remote() == Remote::Closed);
        eventually("it was called twice", || calls.load(Relaxed) == 2);
        assert_eq!(next(&events), Event::Joined);
        assert!(matches!(next(&events), Event::Stale { .. }));
        // All goes on.
        let before = master.stats().master_heartbeat;
        eventually("it beats", || {
            master.update_heartbeat().unwrap();
            master.stats().master_heartbeat > before
        });
        let mut slave = quiet_slave(&name);
        master.write(b"fine").unwrap();
        expect_text(&slave.read().unwrap(), "fine");
    }
}

/// What a callback closes.
#[derive(Clone, Copy, PartialEq)]
enum Closing {
    Called,
    /// The last half is dropped, on the heartbeat thread.
    Dropped,
    /// Without threads, in the middle of the call that found the event.
    ByHand,
}

#[test]
fn a_callback_may_use_and_close_its_endpoint() {
    for closing in [Closing::Called, Closing::Dropped, Closing::ByHand] {
        let name = Name::new("closes");
        let bystander = Name::new("bystander");
        let other = Endpoint::master(&bystander).unwrap();
        let halves: Arc<Mutex<(Option<Sender>, Option<Receiver>)>> = Arc::default();
        let inner = Arc::clone(&halves);
        let told = Arc::new(OnceLock::new());
        let tells = Arc::clone(&told);
        let config = Endpoint::builder().threads(closing != Closing::ByHand);
        let config = config.role(Role::Master).on_event(move |event| {
            let mut halves = inner.lock().unwrap();
            let Some(receiver) = &mut halves.1 else {
                return;
            };
            assert!(receiver.try_read().unwrap().is_none());
            let (stats, remote) = (receiver.stats(), receiver.remote());
            receiver.update_heartbeat().unwrap();
            let events = receiver.events();
            if closing == Closing::Dropped {
                *halves = (None, None);
            } else {
                receiver.close();
                assert_eq!(receiver.connection(), Connection::Closed);
                assert_error!(receiver.try_read(), ReadError::Closed { .. });
            }
            let end = events.next_timeout(PATIENCE);
            let _ = tells.set((event.clone(), stats, remote, end));
        });
        let (sender, receiver) = config.open(&name).unwrap().split();
        let mut sender = Some(sender);
        if closing == Closing::Dropped {
            halves.lock().unwrap().0 = sender.take();
        }
        halves.lock().unwrap().1 = Some(receiver);
        let slave = quiet_slave(&name);
        eventually("the callback was called", || {
            if closing == Closing::ByHand {
                let _ = sender.as_ref().unwrap().update_heartbeat();
            }
            told.get().is_some()
        });
        let (event, stats, remote, end) = told.get().unwrap();
        assert_eq!(
            (event, remote, end),
            (&Event::Joined, &Remote::Alive, &None)
        );
        assert!(stats.master_alive && stats.slave_alive);
        assert!(!exists(&name), "its master has closed");
        assert!(!slave.stats().master_alive);
        if let Some(mut sender) = sender {
            assert_error!(sender.write(b"too late"), WriteError::Closed { .. });
        }
        // The heartbeat thread serves the others.
        let before = other.stats().master_heartbeat;
        eventually("the other beats", || {
            other.stats().master_heartbeat > before + 2
        });
    }
}

/// Everything that was said to `tracing`, in this process.
static LOG: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Keeps the channel's name and the text of each event of this crate.
struct Log;

#[derive(Default)]
struct Fields {
    name: String,
    message: String,
}

impl tracing::field::Visit for Fields {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "name" {
            value.clone_into(&mut self.name);
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "polyshm_eshm" && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        LOG.lock().unwrap().push((fields.name, fields.message));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn events_are_logged() {
    tracing::subscriber::set_global_default(Log).expect("this test alone logs");
    let name = Name::new("logged");
    let master = Endpoint::master(&name).unwrap();
    let slave = eager().open(&name).unwrap();
    eventually("it is seen", || slave.remote().is_alive());
    drop(master);
    eventually("it is missed", || {
        slave.connection() == Connection::Reconnecting
    });
    let _master = Endpoint::master(&name).unwrap();
    eventually("it is back", || slave.connection() == Connection::Attached);
    let heard = || {
        let log = LOG.lock().unwrap();
        let own = log.iter().filter(|(of, _)| *of == *name.0);
        own.map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    let wanted = [
        "the other side is there",
        "the other side has closed",
        "reconnecting, attempt 1",
        "reconnected to a new object after ",
    ];
    eventually("all of it is logged", || {
        let heard = heard();
        wanted
            .iter()
            .all(|text| heard.iter().any(|line| line.starts_with(text)))
    });
}

#[test]
fn events_and_errors_read_well() {
    let second = Duration::from_secs(1);
    for (event, text) in [
        (Event::Joined, "the other side is there"),
        (
            Event::Stale {
                silent_for: second,
                closed: false,
            },
            "the other side is stale, silent for 1.0s",
        ),
        (
            Event::Stale {
                silent_for: second,
                closed: true,
            },
            "the other side has closed",
        ),
        (Event::Recovered, "the other side is heard again"),
        (
            Event::Reconnecting {
                attempt: 2,
                limit: Some(50),
            },
            "reconnecting, attempt 2 of 50",
        ),
        (
            Event::Reconnecting {
                attempt: 2,
                limit: None,
            },
            "reconnecting, attempt 2",
        ),
        (
            Event::Reconnected {
                attempts: 3,
                recreated: true,
            },
            "reconnected to a new object after 3 attempts",
        ),
        (
            Event::Reconnected {
                attempts: 0,
                recreated: false,
            },
            "reconnected to the same object after 0 attempts",
        ),
        (
            Event::GaveUp {
                attempts: 50,
                waited: 5 * second,
            },
            "gave up after 50 attempts in 5.0s",
        ),
        (Event::Promoted, "became master"),
        (
            Event::Displaced { pid: 42 },
            "process 42 has taken this role",
        ),
    ] {
        assert_eq!(event.to_string(), text);
    }
    let error = Endpoint::slave("polyshm-none").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no channel \"polyshm-none\": start its master first, or set a connect timeout"
    );
}

// The object.

#[test]
fn a_creator_removes_its_object_and_nobody_else_does() {
    let name = Name::new("unlink");
    // With a slave or without, closed or dropped.
    for (with_slave, closes) in [(false, false), (false, true), (true, false), (true, true)] {
        let master = quiet_master(&name);
        let slave = with_slave.then(|| quiet_slave(&name));
        if closes {
            master.close();
        } else {
            drop(master);
        }
        assert!(!exists(&name), "slave {with_slave}");
        // The slave keeps its bytes.
        if let Some(mut slave) = slave {
            assert!(!slave.stats().master_alive);
            slave.write(b"to nobody").unwrap();
        }
        assert!(!exists(&name));
    }
    let config = quiet().role(Role::Master).auto_cleanup(false);
    let master = config.open(&name).unwrap();
    let slave = quiet_slave(&name);
    drop(master);
    drop(slave);
    let seen = described(&name);
    assert!(!seen.master_alive && !seen.slave_alive);
    assert_eq!((seen.master_pid, seen.slave_pid), (own_pid(), own_pid()));
    // The next master makes its own.
    let left = inode(&name);
    let keeper = File::open(path(&name)).unwrap();
    let master = quiet_master(&name);
    assert_ne!(inode(&name), left);
    drop((keeper, master));
    name.assert_nothing_left();
}

#[test]
fn a_master_that_took_over_leaves_the_object_to_a_living_slave() {
    for slave_is in ["alive", "closed", "dead"] {
        for cleanup in [true, false] {
            let name = Name::new("inherited");
            let (master, slave) = quiet_pair(&name);
            let own = inode(&name);
            std::mem::forget(master);
            kill(&name, Role::Master);
            let config = quiet().role(Role::Master).auto_cleanup(cleanup);
            let master = config.open(&name).unwrap();
            assert_eq!(inode(&name), own, "taken over");
            let mut slave = Some(slave);
            match slave_is {
                "closed" => slave = None,
                "dead" => {
                    std::mem::forget(slave.take());
                    kill(&name, Role::Slave);
                }
                _ => {}
            }
            drop(master);
            let stays = slave_is == "alive" || !cleanup;
            assert_eq!(exists(&name), stays, "slave {slave_is}, cleanup {cleanup}");
            if !stays {
                continue;
            }
            assert!(!described(&name).master_alive);
            if let Some(mut slave) = slave {
                // Which the next master finds, and the slave hears.
                let mut master = quiet_master(&name);
                assert_eq!((inode(&name), described(&name).master_generation), (own, 3));
                master.write(b"third").unwrap();
                expect_text(&slave.read().unwrap(), "third");
                drop(slave);
                drop(master);
                name.assert_nothing_left();
            }
        }
    }
}

#[test]
fn an_object_of_another_is_never_removed() {
    let name = Name::new("replaced");
    let mut master = quiet_master(&name);
    let mut slave = quiet_slave(&name);
    // Somebody removed it and put another there: here one with a living master.
    fs::rename(path(&name), path(&format!("{}-aside", name.0))).unwrap();
    let _aside = Name(format!("{}-aside", name.0));
    let mut other = quiet_master(&name);
    let own = inode(&name);
    master.write(b"old").unwrap();
    expect_text(&slave.read().unwrap(), "old");
    master.close();
    assert_eq!(inode(&name), own);
    drop((master, slave));
    assert_eq!(inode(&name), own);
    let mut slave = quiet_slave(&name);
    other.write(b"new").unwrap();
    expect_text(&slave.read().unwrap(), "new");
    // Nor is what is no channel.
    place(&format!("{}-aside", name.0), b"something else");
    fs::rename(path(&format!("{}-aside", name.0)), path(&name)).unwrap();
    drop((slave, other));
    assert_eq!(fs::read(path(&name)).unwrap(), b"something else");
}

#[test]
fn a_new_object_has_the_permissions_asked_for() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = u32::from_str_radix(umask.unwrap().trim(), 8).unwrap();
    for (mode, bits) in [
        (None, 0o666),
        (Some(Mode::ALL), 0o666),
        (Some(Mode::OWNER), 0o600),
        (Some(Mode::new(0o640)), 0o640),
    ] {
        let name = Name::new("mode");
        let mut config = quiet().role(Role::Master);
        if let Some(mode) = mode {
            config = config.mode(mode);
        }
        let _master = config.open(&name).unwrap();
        let found = fs::metadata(path(&name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, bits & !umask, "{mode:?}");
    }
}

#[test]
fn a_new_object_is_complete_and_has_its_pages() {
    let name = Name::new("fresh");
    let _master = quiet_master(&name);
    let layout = Layout::default();
    let image = image(&name);
    assert_eq!(image.len() as u64, layout.object_len());
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path(&name)).unwrap());
    assert!(blocks * 512 >= layout.object_len(), "pages are allocated");
    let header = Header::read(&image).unwrap();
    assert_eq!((header.magic.get(), header.version.get()), (MAGIC, VERSION));
    let entered = (header.master_pid.get(), header.master_alive.get());
    assert_eq!(entered, (own_pid(), 1));
    assert_eq!(header.native_capacity.get(), 4096);
    assert!(image[128..].iter().all(|byte| *byte == 0));
}

/// All that is in bytes that other implementations ignore.
fn native_bytes(image: &[u8], layout: Layout) -> Vec<u8> {
    let mut native = image[48..128].to_vec();
    for direction in Direction::ALL {
        let channel = layout.channel(direction);
        let end = match direction {
            Direction::MasterToSlave => layout.channel(Direction::SlaveToMaster).sequence,
            Direction::SlaveToMaster => layout.object_len(),
        };
        let data_end = channel.data + u64::from(layout.capacity());
        native.extend(&image[data_end as usize..channel.write_count as usize]);
        native.extend(&image[channel.read_count as usize + 8..end as usize]);
    }
    native
}

#[test]
fn without_native_marks_the_object_has_nothing_native() {
    for capacity in [1, 100, 4096, 4097] {
        for threads in [false, true] {
            let name = Name::new("unmarked");
            let layout = Layout::new(capacity).unwrap();
            let config = |role: Role| {
                let config = Endpoint::builder().threads(threads).native_marks(false);
                config.capacity(capacity).role(role).open(&name).unwrap()
            };
            let clean = |what: &str| {
                let native = native_bytes(&image(&name), layout);
                assert!(native.iter().all(|byte| *byte == 0), "{what}: {native:?}");
            };
            let mut master = config(Role::Master);
            clean("created");
            let mut slave = config(Role::Slave);
            clean("attached");
            eventually("both are seen", || {
                master.remote().is_alive() && slave.remote().is_alive()
            });
            for round in 0..3 {
                master
                    .write(&vec![round; layout.capacity() as usize])
                    .unwrap();
                slave.write(b"y").unwrap();
                slave.read().unwrap();
                master.read().unwrap();
                assert_error!(slave.read_timeout(3 * MOMENT), ReadError::Timeout { .. });
                assert!(master.try_read().unwrap().is_none());
                clean("used");
            }
            drop(slave);
            clean("left");
            let slave = config(Role::Slave);
            clean("attached again");
            if !threads {
                std::mem::forget(master);
                kill(&name, Role::Master);
                master = config(Role::Master);
                clean("taken over");
            }
            drop(slave);
            let file = File::open(path(&name)).unwrap();
            drop(master);
            let mut bytes = vec![0; layout.object_len() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let native = native_bytes(&bytes, layout);
            assert!(native.iter().all(|byte| *byte == 0), "closed: {native:?}");
        }
    }
}

#[test]
fn marked_and_unmarked_endpoints_understand_each_other() {
    for (of_master, of_slave) in [(true, false), (false, true), (true, true)] {
        let name = Name::new("mixed");
        let config = |role, marks| quiet().role(role).native_marks(marks).open(&name).unwrap();
        let mut master = config(Role::Master, of_master);
        let mut slave = config(Role::Slave, of_slave);
        let seen = described(&name);
        assert_eq!(seen.native_capacity, if of_master { 4096 } else { 0 });
        assert_eq!(seen.native_master_mark != 0, of_master);
        assert_eq!(seen.native_slave_mark != 0, of_slave);
        for number in 1..=3_u8 {
            master.write(&[number]).unwrap();
            assert_eq!(*slave.read().unwrap(), [number]);
            slave.write(&[number]).unwrap();
            assert_eq!(*master.read().unwrap(), [number]);
        }
        assert!(master.remote().is_alive() && slave.remote().is_alive());
        drop(slave);
        assert_eq!(
            described(&name).native_slave_mark,
            0,
            "it goes with its endpoint"
        );
    }
}

#[test]
fn an_object_that_others_hold_is_busy() {
    let name = Name::new("busy");
    let _master = quiet_master(&name);
    let file = File::open(path(&name)).unwrap();
    file.lock().unwrap();
    for role in [Role::Master, Role::Slave, Role::Auto] {
        let error = quiet().role(role).open(&name).unwrap_err();
        assert!(matches!(error, OpenError::Busy { .. }), "{error:?}");
        assert!(error.is_transient());
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::WouldBlock);
    }
    scope(|scope| {
        let config = quiet().role(Role::Slave).connect_timeout(PATIENCE);
        let slave = scope.spawn(|| config.open(&name));
        sleep(SOON);
        file.unlock().unwrap();
        slave.join().unwrap().unwrap();
    });
}

#[test]
fn what_the_system_refuses_is_said() {
    let name = Name::new("directory");
    fs::create_dir(path(&name)).unwrap();
    for role in [Role::Master, Role::Slave, Role::Auto] {
        let opened = quiet().role(role).open(&name);
        let Err(error @ OpenError::System { .. }) = opened else {
            panic!("{role}: {opened:?}")
        };
        let cause = std::error::Error::source(&error).expect("the cause is kept");
        assert!(cause.to_string().contains(&*name), "{cause}");
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::Other);
    }
    fs::remove_dir(path(&name)).unwrap();
}

#[test]
fn what_the_dead_left_can_be_removed() {
    let name = Name::new("remove");
    assert!(!Endpoint::remove(&name).unwrap(), "there is nothing");
    let taken = |by: Role| {
        let before = image(&name);
        assert_error!(
            Endpoint::remove(&name),
            OpenError::RoleTaken { role, pid, .. } if role == by && pid == own_pid()
        );
        assert_eq!(image(&name), before);
    };
    let (master, slave) = quiet_pair(&name);
    taken(Role::Master);
    std::mem::forget(master);
    kill(&name, Role::Master);
    taken(Role::Slave);
    std::mem::forget(slave);
    kill(&name, Role::Slave);
    assert!(Endpoint::remove(&name).unwrap());
    assert!(!exists(&name));
    // Of whatever capacity it was, and whoever left it in good order.
    let config = quiet().capacity(9).auto_cleanup(false).role(Role::Master);
    drop(config.open(&name).unwrap());
    assert!(Endpoint::remove(&name).unwrap());
    // What was never finished has nobody either.
    place(&name, &[0; 100]);
    assert!(Endpoint::remove(&name).unwrap());
    assert!(!exists(&name));
    // What is no channel is somebody else's.
    place(&name, b"something else");
    assert_error!(Endpoint::remove(&name), OpenError::Invalid { .. });
    assert_eq!(image(&name), b"something else");
    assert_error!(Endpoint::remove(""), OpenError::Name(NameError::Empty));
}

// Items.

fn scalars() -> Vec<Item> {
    vec![
        Item::new("counter", 42),
        Item::new("least", i64::MIN + 1),
        Item::new("enabled", true),
        Item::new("temperature", 23.5),
        Item::new("status", "OK \u{e9}\0"),
        Item::new("blob", vec![0_u8, 1, 255]),
        Item::new("", ""),
        Item::new("counter", -1),
    ]
}

fn everything() -> Vec<Item> {
    let event = items::Event::new("warning")
        .with_param("p", -5)
        .with_param("q", "text");
    let call = FunctionCall::new("add")
        .with_arg(10)
        .with_arg(2.5)
        .with_result(false);
    let mut items = scalars();
    items.push(Item::new("event", event));
    items.push(Item::new("call", call));
    items.push(Item::new(
        "image",
        ImageFrame {
            width: 2,
            height: 2,
            channels: 3,
            timestamp_ns: u64::MAX,
            data: vec![7; 12],
        },
    ));
    items
}

#[test]
fn items_go_over_in_both_dialects() {
    let name = Name::new("items");
    for (dialect, items, first) in [
        (ItemDialect::Native, everything(), 0x30),
        (ItemDialect::Python, scalars(), 0x10),
    ] {
        let config = quiet().item_dialect(dialect).role(Role::Master);
        let mut master = config.open(&name).unwrap();
        let mut slave = quiet_slave(&name);
        for items in [&items[..], &items[..1], &[]] {
            master.write_items(items).unwrap();
            let bytes = slave.read_latest().unwrap().unwrap();
            assert_eq!(bytes[0], first);
            assert_eq!(*bytes, *items::encode(items, dialect).unwrap());
            master.write_items(items).unwrap();
            let read = slave.read_items(NOW).unwrap();
            assert_eq!(read, items);
            // The last of a key counts.
            if items.len() > 1 {
                let counter = items::item_value(&read, "counter");
                assert_eq!(counter.and_then(Value::as_integer), Some(-1));
            }
        }
        // A reader needs to know nothing of the dialect.
        let other = match dialect {
            ItemDialect::Native => ItemDialect::Python,
            ItemDialect::Python => ItemDialect::Native,
        };
        slave
            .write(&items::encode(&scalars(), other).unwrap())
            .unwrap();
        assert_eq!(master.read_items(PATIENCE).unwrap(), scalars());
        drop((slave, master));
    }
    assert_eq!(ItemDialect::default(), ItemDialect::Native);
}

#[test]
fn items_that_cannot_be_encoded_are_not_written() {
    let name = Name::new("unencodable");
    let config = quiet().item_dialect(ItemDialect::Python).role(Role::Master);
    let mut master = config.open(&name).unwrap();
    let before = image(&name);
    for item in &everything()[scalars().len()..] {
        let refused = master.write_items(std::slice::from_ref(item));
        let Err(WriteError::Encode {
            source: EncodeError::Kind { key, kind },
            ..
        }) = &refused
        else {
            panic!("{refused:?}")
        };
        assert_eq!((key, *kind), (&item.key, item.kind()));
        assert!(*kind >= ItemKind::Event);
        let kind = std::io::Error::from(refused.unwrap_err()).kind();
        assert_eq!(kind, ErrorKind::InvalidInput);
    }
    assert_eq!(image(&name), before);
}

#[test]
fn what_holds_no_items_is_taken_all_the_same() {
    let name = Name::new("no-items");
    let (mut master, mut slave) = quiet_pair(&name);
    let mut trailing = items::encode(&scalars(), ItemDialect::Native).unwrap();
    let end = trailing.len();
    trailing.extend(b"garbage");
    for bytes in [&b"plain text"[..], b"", &[0x30], &trailing] {
        master.write(bytes).unwrap();
        let error = slave.read_items(PATIENCE).unwrap_err();
        let ReadError::Decode { source, .. } = &error else {
            panic!("{error:?}")
        };
        if bytes.len() > end {
            let trailing = DecodeError::Trailing {
                offset: end,
                left: 7,
            };
            assert_eq!(*source, trailing);
        }
        assert_eq!(std::io::Error::from(error).kind(), ErrorKind::InvalidData);
        assert!(slave.try_read().unwrap().is_none(), "it was taken");
    }
    assert_eq!(slave.stats().m2s_read_count, 4);
    assert_eq!(slave.lost(), 0);
    // It is still there to be read as bytes.
    assert_eq!(*slave.read_latest().unwrap().unwrap(), *trailing);
    // A lenient reader takes what C++ takes.
    drop(slave);
    let config = quiet().lenient_items(true).role(Role::Slave);
    let mut slave = config.open(&name).unwrap();
    master.write(&trailing).unwrap();
    assert_eq!(slave.read_items(NOW).unwrap(), scalars());
    master.write(b"plain text").unwrap();
    assert_error!(slave.read_items(NOW), ReadError::Decode { .. });
}

#[test]
fn a_function_is_called_over_the_channel() {
    let name = Name::new("functions");
    let (mut master, slave) = quiet_pair(&name);
    let mut functions = FunctionRegistry::with_builtins();
    functions.register("shout", |args| match args {
        [Scalar::String(text)] => Ok(text.to_uppercase().into()),
        _ => Err("shout requires 1 string".into()),
    });
    let (mut sender, mut receiver) = slave.split();
    scope(|scope| {
        scope.spawn(move || {
            for _ in 0..3 {
                let mut items = receiver.read_items(PATIENCE).unwrap();
                functions.process(&mut items);
                sender.write_items(&items).unwrap();
            }
        });
        let mut call = |call: FunctionCall| {
            let note = Item::new("note", "left alone");
            let request = [Item::new("call", call.clone()), note.clone()];
            master.write_items(&request).unwrap();
            let [answer, rest] = &master.read_items(PATIENCE).unwrap()[..] else {
                panic!("two went, two come")
            };
            assert_eq!((&*answer.key, rest), ("call", &note));
            let Value::FunctionCall(answer) = &answer.value else {
                panic!("{answer:?}")
            };
            assert_eq!((&answer.name, &answer.args), (&call.name, &call.args));
            answer.result.clone().expect("it was run")
        };
        let sum = call(FunctionCall::new("add").with_arg(10).with_arg(32));
        assert_eq!(sum, Scalar::Integer(42));
        let shout = call(FunctionCall::new("shout").with_arg("hey"));
        assert_eq!(shout, Scalar::String("HEY".into()));
        let missing = call(FunctionCall::new("none"));
        let text = "ERROR: Function not found: none";
        assert_eq!(missing, Scalar::String(text.into()));
    });
}

// Settings.

#[test]
fn a_builder_can_be_used_again_and_shows_its_settings() {
    let name = Name::new("again");
    let config = quiet().role(Role::Slave).capacity(64);
    let debug = format!("{config:?}");
    for part in ["Slave", "64", "OnTimeout", "100ms"] {
        assert!(debug.contains(part), "{debug}");
    }
    assert_error!(config.clone().open(&name), OpenError::NotFound { .. });
    let _master = config.clone().role(Role::Master).open(&name).unwrap();
    assert_eq!(config.open(&name).unwrap().capacity(), 64);
}

#[cfg(feature = "serde")]
mod with_serde {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn settings_come_from_a_file() {
        let config: EndpointBuilder = from_value(json!({
            "role": "slave",
            "disconnect_behavior": "never",
            "capacity": 64,
            "threads": false,
            "own_threshold": { "secs": 0, "nanos": 30_000_000 },
        }))
        .unwrap();
        let name = Name::new("serde");
        let mut master = quiet().role(Role::Master).capacity(64).open(&name).unwrap();
        let mut slave = config.clone().open(&name).unwrap();
        assert_eq!((slave.role(), slave.capacity()), (Role::Slave, 64));
        master.write(b"configured").unwrap();
        expect_text(&slave.read().unwrap(), "configured");
        // Where nothing is said the defaults hold, and all comes back.
        let mut stored = to_value(&config).unwrap();
        assert_eq!(stored["role"], "slave");
        assert_eq!(stored["disconnect_behavior"], "never");
        let default = to_value(Endpoint::builder()).unwrap();
        for (part, value) in [
            ("role", json!("auto")),
            ("disconnect_behavior", json!("on_timeout")),
            ("reconnect_attempts", json!(50)),
            ("auto_cleanup", json!(true)),
            ("threads", json!(true)),
            ("capacity", json!(4096)),
            ("promote", json!(false)),
            ("share_role", json!(false)),
        ] {
            assert_eq!(default[part], value, "{part}");
        }
        for part in [
            "role",
            "disconnect_behavior",
            "capacity",
            "threads",
            "own_threshold",
        ] {
            stored[part] = default[part].clone();
        }
        assert_eq!(stored, default);
        let back: EndpointBuilder = from_value(stored).unwrap();
        assert_eq!(to_value(back).unwrap(), default);
        assert!(from_value::<EndpointBuilder>(json!({ "role": "king" })).is_err());
    }

    #[test]
    fn numbers_and_events_go_into_a_file_and_back() {
        let name = Name::new("serde-stats");
        let (mut master, slave) = quiet_pair(&name);
        master.write(b"x").unwrap();
        slave.update_heartbeat().unwrap();
        let beaten = described(&name).slave_heartbeat;
        let stats = master.stats();
        let stored = to_value(stats).unwrap();
        assert_eq!(stored.as_object().unwrap().len(), 13);
        for (part, value) in [
            ("master_heartbeat", json!(0)),
            ("slave_heartbeat", json!(beaten)),
            ("master_pid", json!(own_pid())),
            ("slave_pid", json!(own_pid())),
            ("master_alive", json!(true)),
            ("slave_alive", json!(true)),
            ("stale_threshold", json!(100)),
            ("master_heartbeat_delta", json!(0)),
            ("slave_heartbeat_delta", json!(beaten)),
            ("m2s_write_count", json!(1)),
            ("m2s_read_count", json!(0)),
            ("s2m_write_count", json!(0)),
            ("s2m_read_count", json!(0)),
        ] {
            assert_eq!(stored[part], value, "{part}");
        }
        assert_eq!(from_value::<Stats>(stored).unwrap(), stats);
        for event in [
            Event::Joined,
            Event::Stale {
                silent_for: SOON,
                closed: true,
            },
            Event::Recovered,
            Event::Reconnecting {
                attempt: 1,
                limit: None,
            },
            Event::Reconnected {
                attempts: 2,
                recreated: true,
            },
            Event::GaveUp {
                attempts: 3,
                waited: SOON,
            },
            Event::Promoted,
            Event::Displaced { pid: 4 },
        ] {
            let stored = to_value(&event).unwrap();
            assert_eq!(from_value::<Event>(stored).unwrap(), event);
        }
        assert_eq!(to_value(Remote::NeverSeen).unwrap(), "never_seen");
        assert_eq!(to_value(Connection::GaveUp).unwrap(), "gave_up");
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct State {
        counter: u32,
        temperature: f64,
        enabled: bool,
        status: String,
        comment: Option<String>,
    }

    #[test]
    fn a_struct_goes_over_as_items() {
        let name = Name::new("serde-items");
        let (mut master, mut slave) = quiet_pair(&name);
        let state = State {
            counter: 7,
            temperature: 36.6,
            enabled: true,
            status: "fine".into(),
            comment: None,
        };
        master
            .write_items(&items::to_items(&state).unwrap())
            .unwrap();
        let read = slave.read_items(NOW).unwrap();
        assert_eq!(read.len(), 4);
        assert_eq!(items::from_items::<State>(&read).unwrap(), state);
    }
}

/// Objects on the heap have the same code, and no system.
#[cfg(feature = "testing")]
mod on_the_heap {
    use super::*;
    use polyshm_eshm::testing::HeapObject;

    #[test]
    fn both_sides_work_as_ever() {
        for capacity in [1, 7, 4096] {
            let object = HeapObject::new(capacity);
            let mut master = object.create(Endpoint::builder()).unwrap();
            let mut slave = object.attach(Endpoint::builder()).unwrap();
            assert_eq!(slave.capacity() as u64, capacity);
            for byte in 1..4 {
                master.write(&vec![byte; capacity as usize]).unwrap();
                assert_eq!(*slave.read().unwrap(), *vec![byte; capacity as usize]);
                slave.write(&[byte]).unwrap();
                assert_eq!(*master.read().unwrap(), [byte]);
            }
            let header = object.header().unwrap();
            assert_eq!(header.master_generation.get(), 1);
            drop(master);
            // Another takes over the same bytes.
            let mut master = object.take_over(Endpoint::builder()).unwrap();
            assert_eq!(object.header().unwrap().master_generation.get(), 2);
            master.write(b"").unwrap();
            assert_eq!(slave.read().unwrap().number(), 4);
        }
    }

    #[test]
    fn an_image_is_judged_as_an_object_is() {
        let sound = foreign(100);
        let open = |image: &[u8]| {
            let object = HeapObject::from_image(image, 100);
            let attached = object.attach(Endpoint::builder()).map(drop);
            assert_eq!(
                attached.is_ok(),
                object.take_over(Endpoint::builder()).is_ok()
            );
            attached
        };
        open(&sound).unwrap();
        assert_error!(open(&[]), OpenError::NotReady { .. });
        assert_error!(open(&[0; 512]), OpenError::NotReady { .. });
        assert_error!(open(&sound[..511]), OpenError::Invalid { .. });
        assert_error!(open(&[1; 512]), OpenError::Invalid { .. });
        let mut marked = sound.clone();
        marked[offset::NATIVE_CAPACITY] = 99;
        assert_error!(
            open(&marked),
            OpenError::CapacityMismatch {
                wanted: 100,
                found: 99,
                ..
            }
        );
        let object = HeapObject::from_image(&sound, 100);
        assert_eq!(object.image(), sound);
        object.poke(200, b"poke");
        assert_eq!(object.image()[200..204], *b"poke");
    }

    #[test]
    fn a_wrapped_image_is_read_from_where_it_is() {
        let mut image = foreign(16);
        let place = Layout::new(16).unwrap().channel(Direction::MasterToSlave);
        image[place.sequence as usize..][..4].copy_from_slice(&0xFFFF_FFFE_u32.to_le_bytes());
        image[place.write_count as usize..][..8].copy_from_slice(&0x7FFF_FFFF_u64.to_le_bytes());
        let object = HeapObject::from_image(&image, 16);
        let mut slave = object.attach(Endpoint::builder()).unwrap();
        let mut master = object.take_over(Endpoint::builder()).unwrap();
        for lost in 0..3 {
            for _ in 0..=lost {
                master.write(b"wrapped").unwrap();
            }
            assert_eq!(slave.read().unwrap().lost(), lost);
        }
        assert_eq!(
            slave.read_latest().unwrap().unwrap().number(),
            0x7FFF_FFFF + 6
        );
    }
}
