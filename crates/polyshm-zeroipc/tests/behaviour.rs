//! Every structure through the public interface, on real segments, by several
//! threads where that matters.
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_testkit::Name;
use polyshm_wire::zeroipc::{TableHeader, entry_at, table_end};
use polyshm_zeroipc::{
    Array, ArrayForm, Barrier, Channel, Deadline, Dialect, DynArray, DynError, DynMap, DynQueue,
    DynRing, DynStack, Error, Event, EventMode, FromBytes, Full, Future, FutureState, ImageError,
    Immutable, InsertError, Inserted, IntoBytes, Key, Latch, LayoutError, Lazy, LazyBool, Map,
    Memory, MemoryOptions, Mode, Monitor, Mutex, NameError, Once, OnceOutcome, OpError,
    OpenOptions, OutOfBounds, Pool, PoolError, Queue, Refused, Ring, RwLock, Semaphore, Set,
    SetOutcome, Signal, Stack, Stream, TryPushError, Value, VoidStream, WaitStrategy, byte_key,
};
use std::{
    collections::BTreeSet,
    os::unix::fs::{FileExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

const NOW: Duration = Duration::ZERO;
const MOMENT: Duration = Duration::from_millis(1);
const SHORT: Duration = Duration::from_millis(5);
/// Longer than what is half-changed is borne here.
const LONG: Duration = Duration::from_millis(50);
/// For what comes at once unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

fn memory(test: &str) -> (Name, Memory) {
    let name = Name::new(test);
    let memory = Memory::create_new(&name, 1 << 16).unwrap();
    (name, memory)
}

/// One in which what stays half-changed counts as stuck soon.
fn impatient(test: &str) -> (Name, Memory) {
    let name = Name::new(test);
    let open = OpenOptions::default().patience(SHORT);
    let options = MemoryOptions::new(1 << 16).open_options(open);
    let memory = Memory::create_new(&name, options).unwrap();
    (name, memory)
}

fn file(name: &str) -> std::fs::File {
    let path = format!("/dev/shm/{name}");
    std::fs::File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

/// Overwrites bytes of a segment behind everybody's back.
fn poke(name: &Name, at: u64, bytes: &[u8]) {
    file(name).write_all_at(bytes, at).unwrap();
}

fn offset_of(memory: &Memory, name: &str) -> u64 {
    let entries = memory.entries();
    let entry = entries.iter().find(|entry| entry.name == name);
    entry.unwrap_or_else(|| panic!("no entry {name}")).offset
}

/// Polls until it is so.
#[track_caller]
fn eventually(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            Err(error) => panic!("{} gave {error:?}", stringify!($result)),
            Ok(_) => panic!("{} succeeded", stringify!($result)),
        }
    };
}

// Every structure, for what holds of them all.

type Create = fn(&Memory, &str) -> Result<(), Error>;

/// What a structure is, how it is created, how it is opened, and of how many
/// entries and how long a base name.
struct Structure {
    what: &'static str,
    create: Create,
    open: Create,
    open_or_create: Create,
    entries: u32,
    name: usize,
}

/// Per line: what it is, its entries, the longest base name; how it is created,
/// opened, and either. Where there is no such form, creation stands for it.
macro_rules! structures {
    ($($what:literal $entries:literal $name:literal
        $create:expr => $open:expr => $both:expr;)*) => {
        vec![$(Structure {
            what: $what,
            create: |memory, name| $create(memory, name).map(drop),
            open: |memory, name| $open(memory, name).map(drop),
            open_or_create: |memory, name| $both(memory, name).map(drop),
            entries: $entries,
            name: $name,
        }),*]
    };
}

fn structures() -> Vec<Structure> {
    structures! {
        "array" 1 31 |m, n| Array::<u32>::create(m, n, 4) => Array::<u32>::open
            => |m, n| Array::<u32>::open_or_create(m, n, 4);
        "C array" 1 31 |m, n| Array::<u32>::create_c(m, n, 4) => Array::<u32>::open
            => |m, n| Array::<u32>::open_or_create(m, n, 4);
        "queue" 1 31 |m, n| Queue::<u32>::create(m, n, 4) => Queue::<u32>::open
            => |m, n| Queue::<u32>::open_or_create(m, n, 4);
        "stack" 1 31 |m, n| Stack::<u32>::create(m, n, 4) => Stack::<u32>::open
            => |m, n| Stack::<u32>::open_or_create(m, n, 4);
        "ring" 1 31 |m, n| Ring::<u32>::create(m, n, 4) => Ring::<u32>::open
            => |m, n| Ring::<u32>::open_or_create(m, n, 4);
        "pool" 1 31 |m, n| Pool::<u32>::create(m, n, 4) => Pool::<u32>::open
            => |m, n| Pool::<u32>::open_or_create(m, n, 4);
        "map" 1 31 |m, n| Map::<u32, u64>::create(m, n, 4) => Map::<u32, u64>::open
            => |m, n| Map::<u32, u64>::open_or_create(m, n, 4);
        "Python map" 1 31 |m, n| Map::<u32, u64>::create_python(m, n, 4)
            => Map::<u32, u64>::open_python
            => |m, n| Map::<u32, u64>::create_python(m, n, 4);
        "set" 1 31 |m, n| Set::<u32>::create(m, n, 4) => Set::<u32>::open
            => |m, n| Set::<u32>::open_or_create(m, n, 4);
        "Python set" 1 31 |m, n| Set::<u32>::create_python(m, n, 4) => Set::<u32>::open_python
            => |m, n| Set::<u32>::create_python(m, n, 4);
        "semaphore" 1 31 |m, n| Semaphore::create(m, n, 1, Some(2)) => Semaphore::open
            => |m, n| Semaphore::open_or_create(m, n, 1, Some(2));
        "mutex" 1 31 Mutex::create => Mutex::open => Mutex::open_or_create;
        "barrier" 1 31 |m, n| Barrier::create(m, n, 2) => Barrier::open
            => |m, n| Barrier::open_or_create(m, n, 2);
        "latch" 1 31 |m, n| Latch::create(m, n, 2) => Latch::open
            => |m, n| Latch::open_or_create(m, n, 2);
        "once" 1 31 Once::create => Once::open => Once::open_or_create;
        "event" 2 27 |m, n| Event::create(m, n, EventMode::Auto) => Event::open
            => |m, n| Event::open_or_create(m, n, EventMode::Auto);
        "rwlock" 4 25 RwLock::create => RwLock::open => RwLock::open_or_create;
        "monitor" 4 25 Monitor::create => Monitor::open => Monitor::open_or_create;
        "signal" 3 25 |m, n| Signal::create(m, n, 1_u32) => Signal::<u32>::open
            => |m, n| Signal::open_or_create(m, n, 1_u32);
        "Python signal" 3 25 |m, n| Signal::create_python(m, n, 1_u32) => Signal::<u32>::open
            => |m, n| Signal::open_or_create(m, n, 1_u32);
        "channel" 2 24 |m, n| Channel::<u32>::create(m, n, 4) => Channel::<u32>::open
            => |m, n| Channel::<u32>::open_or_create(m, n, 4);
        "rendezvous" 2 24 |m, n| Channel::<u32>::create(m, n, 0) => Channel::<u32>::open
            => |m, n| Channel::<u32>::open_or_create(m, n, 0);
        "Python channel" 2 26 |m, n| Channel::<u32>::create_python(m, n, 4)
            => Channel::<u32>::open
            => |m, n| Channel::<u32>::open_or_create(m, n, 4);
        "stream" 2 24 |m, n| Stream::<u32>::create(m, n, 4) => Stream::<u32>::open
            => |m, n| Stream::<u32>::open_or_create(m, n, 4);
        "Python stream" 1 31 |m, n| Stream::<u32>::create_python(m, n, 4) => Stream::<u32>::open
            => |m, n| Stream::<u32>::open_or_create(m, n, 4);
        "void stream" 1 31 VoidStream::create => VoidStream::open => VoidStream::create;
        "future" 1 31 Future::<u32>::create => Future::<u32>::open
            => Future::<u32>::open_or_create;
        "Python future" 1 31 Future::<u32>::create_python => Future::<u32>::open
            => Future::<u32>::open_or_create;
        "lazy" 1 31 |m, n| Lazy::constant(m, n, 1_u32) => Lazy::<u32>::open
            => Lazy::<u32>::open_or_create;
        "Python lazy" 1 31 |m, n| Lazy::<u32>::create_python(m, n, None) => Lazy::<u32>::open
            => Lazy::<u32>::open_or_create;
        "lazy bool" 1 31 |m, n| LazyBool::constant(m, n, true) => LazyBool::open
            => |m, n| LazyBool::constant(m, n, true);
    }
}

#[test]
fn each_structure_is_created_once_and_opened_by_name() {
    let (_name, memory) = memory("structures");
    let mut entries = 0;
    for (number, it) in structures().iter().enumerate() {
        // As long as a name may be.
        let name = format!("{number:02}{}", "n".repeat(it.name - 2));
        assert_error!((it.open)(&memory, &name), Error::NotFound { .. });
        (it.create)(&memory, &name).expect(it.what);
        entries += it.entries as usize;
        assert_eq!(memory.entries().len(), entries, "{}", it.what);
        let before = memory.image();
        for again in [(it.create)(&memory, &name), (it.create)(&memory, &name)] {
            let error = again.expect_err(it.what);
            assert!(error.is_already_exists(), "{}: {error:?}", it.what);
        }
        assert_eq!(memory.image(), before, "{}: nothing was changed", it.what);
        (it.open)(&memory, &name).expect(it.what);
        assert_eq!(
            memory.image(),
            before,
            "{}: opening stores nothing",
            it.what
        );
    }
    assert!(memory.entries().iter().all(|entry| entry.offset % 8 == 0));
}

#[test]
fn open_or_create_does_either() {
    let (_name, memory) = memory("either");
    for (number, it) in structures().iter().enumerate() {
        let name = format!("n{number}");
        (it.open_or_create)(&memory, &name).expect(it.what);
        (it.open)(&memory, &name)
            .or_else(|error| match error {
                // Those that open_or_create makes in the C++ format.
                Error::Structure { .. } => Ok(()),
                error => Err(error),
            })
            .expect(it.what);
        let before = memory.image();
        let again = (it.open_or_create)(&memory, &name);
        let none = ["Python map", "Python set", "void stream", "lazy bool"];
        assert_eq!(again.is_ok(), !none.contains(&it.what), "{}", it.what);
        assert_eq!(memory.image(), before, "{}", it.what);
    }
}

#[test]
fn each_bad_name_is_refused_for_its_reason() {
    let (_name, memory) = memory("names");
    let before = memory.image();
    for it in structures() {
        let refused = |name: &str| match (it.create)(&memory, name) {
            Err(Error::Name {
                source,
                name: given,
                what,
            }) => {
                assert!(!what.is_empty() && given.starts_with(name), "{}", it.what);
                source
            }
            other => panic!("{}: {name:?} gave {other:?}", it.what),
        };
        assert_eq!(refused(""), NameError::Empty, "{}", it.what);
        assert!(matches!(refused("a\0b"), NameError::Nul { .. }));
        assert!(matches!(refused("\0"), NameError::Nul { .. }));
        let too_long = |name: String| {
            let NameError::TooLong { len, max, .. } = refused(&name) else {
                panic!("{}: {name:?}", it.what)
            };
            assert_eq!((len, max), (name.len(), it.name), "{}", it.what);
        };
        too_long("n".repeat(it.name + 1));
        too_long("n".repeat(32));
        // Sixteen characters are 32 bytes.
        too_long("é".repeat(16));
        assert_eq!(memory.image(), before, "{}: nothing is left", it.what);
        // Such a name cannot be there.
        for name in ["", "a\0b", &"é".repeat(16)] {
            assert!((it.open)(&memory, name).is_err(), "{}: {name:?}", it.what);
        }
    }
}

#[test]
fn a_composite_is_refused_when_one_of_its_names_is_taken() {
    let (_name, memory) = memory("taken");
    for part in [
        "e_sem", "r_rmtx", "m_count", "s_mtx", "c_buffer", "d_slot", "p_sync", "t_header",
    ] {
        VoidStream::create(&memory, part).unwrap();
    }
    let before = memory.image();
    assert_error!(
        Event::create(&memory, "e", EventMode::Auto),
        Error::AlreadyExists { .. }
    );
    assert_error!(RwLock::create(&memory, "r"), Error::AlreadyExists { .. });
    assert_error!(Monitor::create(&memory, "m"), Error::AlreadyExists { .. });
    assert_error!(Signal::create(&memory, "s", 1), Error::AlreadyExists { .. });
    assert_error!(
        Channel::<u8>::create(&memory, "c", 2),
        Error::AlreadyExists { .. }
    );
    assert_error!(
        Channel::<u8>::create(&memory, "d", 0),
        Error::AlreadyExists { .. }
    );
    assert_error!(
        Channel::<u8>::create_python(&memory, "p", 2),
        Error::AlreadyExists { .. }
    );
    assert_error!(
        Stream::<u8>::create(&memory, "t", 2),
        Error::AlreadyExists { .. }
    );
    assert_eq!(memory.image(), before);
}

#[test]
fn a_full_table_is_refused_and_nothing_is_half_created() {
    for it in structures() {
        for free in 0..it.entries {
            let name = Name::new("full");
            let slots = it.entries + 1;
            let options = MemoryOptions::new(4096).max_entries(slots);
            let memory = Memory::create_new(&name, options).unwrap();
            for number in 0..slots - free {
                VoidStream::create(&memory, &format!("v{number}")).unwrap();
            }
            let before = memory.image();
            match (it.create)(&memory, "it") {
                Err(Error::TableFull {
                    needed,
                    free: found,
                    slots: all,
                    ..
                }) => assert_eq!((needed, found, all), (it.entries, free, slots)),
                other => panic!("{}: {other:?}", it.what),
            }
            assert_eq!(memory.image(), before, "{}", it.what);
            // With that many fewer it fits to the last slot.
            for number in 0..it.entries - free {
                memory.remove(&format!("v{number}")).unwrap();
            }
            (it.create)(&memory, "it").expect(it.what);
            (it.open)(&memory, "it").expect(it.what);
        }
    }
}

#[test]
fn a_structure_fits_to_the_last_byte_or_leaves_nothing() {
    for it in structures() {
        let name = Name::new("room");
        let memory = Memory::create_new(&name, 8192).unwrap();
        (it.create)(&memory, "it").expect(it.what);
        let entries = memory.entries();
        let last = entries.last().unwrap();
        let end = last.offset + last.size;
        let bytes = end - table_end(64);
        for missing in [0, 1, 8, bytes].into_iter().filter(|it| *it <= bytes) {
            let name = Name::new("room");
            let memory = Memory::create_new(&name, end - missing).unwrap();
            assert_eq!(memory.size(), end - missing);
            let before = memory.image();
            let created = (it.create)(&memory, "it");
            if missing == 0 {
                created.expect(it.what);
                (it.open)(&memory, "it").expect(it.what);
                assert_eq!(memory.free(), 0);
                continue;
            }
            match created {
                Err(Error::Layout {
                    source: LayoutError::NoSpace { needed, available },
                    ..
                }) => assert!(needed > available, "{}", it.what),
                other => panic!("{}: {other:?}", it.what),
            }
            assert_eq!(memory.image(), before, "{}", it.what);
        }
    }
}

#[test]
fn capacities_that_cannot_be_are_refused() {
    let (_name, memory) = memory("capacity");
    let m = &memory;
    let before = memory.image();
    let shape = |result: Result<(), Error>| match result {
        Err(Error::Layout { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let none = [
        shape(Array::<u8>::create(m, "n", 0).map(drop)),
        shape(Array::<u8>::create_c(m, "n", 0).map(drop)),
        shape(Array::<u8>::open_or_create(m, "n", 0).map(drop)),
        shape(Queue::<u8>::create(m, "n", 0).map(drop)),
        shape(Stack::<u8>::create(m, "n", 0).map(drop)),
        shape(Ring::<u8>::create(m, "n", 0).map(drop)),
        shape(Ring::<u8>::create_bytes(m, "n", 0).map(drop)),
        shape(Pool::<u8>::create(m, "n", 0).map(drop)),
        shape(Map::<u8, u8>::create(m, "n", 0).map(drop)),
        shape(Map::<u8, u8>::create_python(m, "n", 0).map(drop)),
        shape(Set::<u8>::create(m, "n", 0).map(drop)),
        shape(Set::<u8>::create_python(m, "n", 0).map(drop)),
        shape(Stream::<u8>::create(m, "n", 0).map(drop)),
        shape(Stream::<u8>::create_python(m, "n", 0).map(drop)),
        shape(DynArray::create(m, "n", 0, "i4").map(drop)),
        shape(DynQueue::create(m, "n", 0, "i4").map(drop)),
        shape(DynStack::create(m, "n", 0, "i4").map(drop)),
        shape(DynRing::create(m, "n", 0, "i4").map(drop)),
        shape(DynMap::create(m, "n", 0, "i4", "i4").map(drop)),
        shape(DynMap::create_python(m, "n", 0, "i4", "i4").map(drop)),
    ];
    assert!(none.iter().all(|it| *it == LayoutError::ZeroCapacity));
    for many in [(1 << 31) + 1, 1 << 32, 1 << 62, u64::MAX / 4 + 2, u64::MAX] {
        let all = [
            shape(Array::<u32>::create(m, "n", many).map(drop)),
            shape(Array::<u32>::create_c(m, "n", many).map(drop)),
            shape(Queue::<u32>::create(m, "n", many).map(drop)),
            shape(Stack::<u32>::create(m, "n", many).map(drop)),
            shape(Ring::<u32>::create(m, "n", many).map(drop)),
            shape(Ring::<u32>::create_bytes(m, "n", many).map(drop)),
            shape(Pool::<u32>::create(m, "n", many).map(drop)),
            shape(Map::<u32, u32>::create(m, "n", many).map(drop)),
            shape(Map::<u32, u32>::create_python(m, "n", many).map(drop)),
            shape(Set::<u32>::create(m, "n", many).map(drop)),
            shape(Set::<u32>::create_python(m, "n", many).map(drop)),
            shape(Channel::<u32>::create(m, "n", many).map(drop)),
            shape(Channel::<u32>::create_python(m, "n", many).map(drop)),
            shape(Stream::<u32>::create(m, "n", many).map(drop)),
            shape(DynArray::create(m, "n", many, "S999").map(drop)),
        ];
        for source in all {
            assert!(
                matches!(
                    source,
                    LayoutError::TooLarge { .. } | LayoutError::NoSpace { .. }
                ),
                "{many}: {source:?}"
            );
        }
    }
    let value = shape(Map::<u8, [u8; 9]>::create(m, "n", 2).map(drop));
    assert_eq!(value, LayoutError::ValueTooLarge { size: 9 });
    for impossible in [
        Semaphore::create(m, "n", -1, None).map(drop),
        Semaphore::create(m, "n", 0, Some(0)).map(drop),
        Semaphore::create(m, "n", 0, Some(-1)).map(drop),
        Semaphore::create(m, "n", 3, Some(2)).map(drop),
        Semaphore::open_or_create(m, "n", 3, Some(2)).map(drop),
        Barrier::create(m, "n", 0).map(drop),
        Barrier::create(m, "n", -1).map(drop),
        Latch::create(m, "n", -1).map(drop),
    ] {
        assert_error!(impossible, Error::Unusable { .. });
    }
    assert_eq!(memory.image(), before);
    // What looks like nothing, and is something.
    assert!(Latch::create(m, "open", 0).unwrap().try_wait());
    assert_eq!(Channel::<u8>::create(m, "none", 0).unwrap().capacity(), 0);
    assert_eq!(Queue::<u8>::create(m, "one", 1).unwrap().capacity(), 2);
    assert_eq!(
        Ring::<u64>::create_bytes(m, "byte", 1).unwrap().capacity(),
        1
    );
    assert_eq!(Stack::<u8>::create(m, "single", 1).unwrap().capacity(), 1);
}

#[test]
fn texts_that_are_no_element_type_are_refused() {
    let (_name, memory) = memory("dtype");
    let m = &memory;
    let before = memory.image();
    for text in [
        "",
        "i3",
        "float",
        "S0",
        ">f4",
        "[]",
        "[('a', 'i4'), ('a', 'i4')]",
    ] {
        assert_error!(DynArray::create(m, "n", 1, text), Error::DType { .. });
        assert_error!(DynArray::open(m, "n", text), Error::DType { .. });
        assert_error!(
            DynArray::open_or_create(m, "n", 1, text),
            Error::DType { .. }
        );
        assert_error!(DynQueue::create(m, "n", 1, text), Error::DType { .. });
        assert_error!(DynStack::create(m, "n", 1, text), Error::DType { .. });
        assert_error!(DynRing::create(m, "n", 1, text), Error::DType { .. });
        assert_error!(DynMap::create(m, "n", 1, text, "i4"), Error::DType { .. });
        assert_error!(
            DynMap::create_python(m, "n", 1, "i4", text),
            Error::DType { .. }
        );
    }
    let padded = "align([('a', 'u1'), ('b', 'i4')])";
    assert_error!(
        DynMap::create(m, "n", 1, padded, "i4"),
        Error::Unusable { .. }
    );
    assert_eq!(memory.image(), before);
}

fn why_not(result: Result<(), Error>) -> ImageError {
    match result {
        Err(Error::Structure { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn sizes(source: ImageError, there: u64, wanted: u64) {
    match source {
        ImageError::ElementSize {
            found, expected, ..
        } => assert_eq!((found, expected), (there, wanted)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_type_or_size_or_format_is_refused() {
    let (_name, memory) = memory("types");
    let m = &memory;
    let why = why_not;
    Array::<u32>::create(m, "array", 5).unwrap();
    assert!(why(Array::<u64>::open(m, "array").map(drop)).is_mismatch());
    assert!(why(DynArray::open(m, "array", "f8").map(drop)).is_mismatch());
    let capacity = why(Array::<u32>::open_or_create(m, "array", 6).map(drop));
    assert!(matches!(
        capacity,
        ImageError::Capacity {
            found: 5,
            expected: 6,
            ..
        }
    ));
    why(DynArray::open_or_create(m, "array", 6, "f4").map(drop));
    Array::<u32>::open_or_create(m, "array", 5).unwrap();

    Queue::<u32>::create(m, "queue", 4).unwrap();
    sizes(why(Queue::<u64>::open(m, "queue").map(drop)), 4, 8);
    sizes(why(DynQueue::open(m, "queue", "S3").map(drop)), 4, 3);
    Stack::<u32>::create(m, "stack", 4).unwrap();
    sizes(why(Stack::<u16>::open(m, "stack").map(drop)), 4, 2);
    sizes(why(DynStack::open(m, "stack", "u1").map(drop)), 4, 1);
    Ring::<u32>::create(m, "ring", 4).unwrap();
    sizes(why(Ring::<u8>::open(m, "ring").map(drop)), 4, 1);
    sizes(why(DynRing::open(m, "ring", "i8").map(drop)), 4, 8);
    Pool::<f64>::create(m, "pool", 4).unwrap();
    sizes(why(Pool::<u32>::open(m, "pool").map(drop)), 8, 4);
    // The same size, another place for the links.
    assert!(matches!(
        why(Pool::<[u8; 8]>::open(m, "pool").map(drop)),
        ImageError::ElementAlignment { .. }
    ));
    // Another capacity is no reason.
    assert_eq!(
        Queue::<u32>::open_or_create(m, "queue", 99)
            .unwrap()
            .capacity(),
        4
    );

    Map::<u32, u32>::create(m, "map", 4).unwrap();
    assert!(matches!(
        why(Map::<u64, u32>::open(m, "map").map(drop)),
        ImageError::KeySize { .. }
    ));
    assert!(matches!(
        why(Map::<u32, u8>::open(m, "map").map(drop)),
        ImageError::ValueSize { .. }
    ));
    let other = why(Map::<u32, u32>::open_python(m, "map").map(drop));
    assert!(matches!(
        other,
        ImageError::Dialect {
            found: Dialect::Cpp,
            expected: Dialect::Python,
            ..
        }
    ));
    why(DynMap::open_python(m, "map", "i4", "i4").map(drop));
    Set::<u32>::create_python(m, "set", 4).unwrap();
    assert!(why(Set::<u32>::open(m, "set").map(drop)).is_mismatch());
    assert!(why(Set::<u64>::open_python(m, "set").map(drop)).is_mismatch());
}

#[test]
fn another_structure_is_refused() {
    let (_name, memory) = memory("structure");
    let m = &memory;
    let why = why_not;
    Array::<u32>::create(m, "array", 5).unwrap();
    Queue::<u32>::create(m, "queue", 4).unwrap();
    Ring::<u32>::create(m, "ring", 4).unwrap();
    Semaphore::create(m, "semaphore", 1, Some(2)).unwrap();
    assert!(matches!(
        why(Mutex::open(m, "semaphore").map(drop)),
        ImageError::Field {
            field: "max_count",
            found: 2,
            ..
        }
    ));
    for wrong in [
        Once::open(m, "semaphore").map(drop),
        RwLock::open(m, "semaphore").map(drop),
        Event::open(m, "semaphore").map(drop),
        Future::<u8>::open(m, "semaphore").map(drop),
        Lazy::<u8>::open(m, "semaphore").map(drop),
        Semaphore::open(m, "queue").map(drop),
        Mutex::open(m, "queue").map(drop),
        Barrier::open(m, "queue").map(drop),
        Latch::open(m, "queue").map(drop),
        VoidStream::open(m, "queue").map(drop),
        LazyBool::open(m, "queue").map(drop),
        Stream::<u32>::open(m, "queue").map(drop),
        Stack::<u32>::open(m, "ring").map(drop),
        Queue::<u32>::open(m, "array").map(drop),
    ] {
        assert!(
            matches!(wrong, Err(Error::Structure { .. } | Error::NotFound { .. })),
            "{wrong:?}"
        );
    }
    Signal::create(m, "signal", 1_u32).unwrap();
    assert!(matches!(
        why(Signal::<[u64; 2]>::open(m, "signal").map(drop)),
        ImageError::Size { .. }
    ));
    Future::<u32>::create(m, "future").unwrap();
    assert!(why(Future::<[u8; 16]>::open(m, "future").map(drop)).is_mismatch());
    Lazy::<u32>::external(m, "lazy").unwrap();
    assert!(why(Lazy::<u64>::open(m, "lazy").map(drop)).is_mismatch());
    Channel::<u32>::create(m, "channel", 4).unwrap();
    sizes(why(Channel::<u64>::open(m, "channel").map(drop)), 4, 8);
    Channel::<u32>::create(m, "meeting", 0).unwrap();
    assert!(why(Channel::<[u32; 2]>::open(m, "meeting").map(drop)).is_mismatch());
    Stream::<u32>::create(m, "stream", 4).unwrap();
    sizes(why(Stream::<u64>::open(m, "stream").map(drop)), 4, 8);
}

// Memory.

#[test]
fn create_new_creates_and_open_opens() {
    let name = Name::new("memory");
    assert!(Memory::open(&name).unwrap_err().is_not_found());
    let options = MemoryOptions::new(10_000)
        .max_entries(5)
        .mode(Mode::new(0o600));
    let memory = Memory::create_new(&name, options).unwrap();
    let bits = file(&name).metadata().unwrap().permissions().mode();
    assert_eq!(bits & 0o777, 0o600);
    assert!(memory.name().ends_with(&*name));
    assert_eq!((memory.size(), memory.max_entries()), (10_000, 5));
    assert_eq!(memory.image().len(), 10_000);
    assert_eq!(memory.free(), 10_000 - table_end(5));
    assert!(memory.entries().is_empty() && !memory.contains("a"));
    VoidStream::create(&memory, "a").unwrap();

    let again = Memory::create_new(&name, 20_000).unwrap_err();
    assert!(
        again.is_already_exists() && !again.is_not_found(),
        "{again:?}"
    );
    let opened = Memory::open(&format!("/{}", &*name)).unwrap();
    assert_eq!((opened.size(), opened.max_entries()), (10_000, 5));
    assert!(opened.contains("a"), "create_new did no harm");
    let either = Memory::open_or_create(&name, 20_000).unwrap();
    assert_eq!(either.size(), 10_000, "an existing one is taken as it is");

    assert!(memory.unlink().unwrap());
    assert!(!opened.unlink().unwrap() && !Memory::unlink_name(&name).unwrap());
    assert!(Memory::open(&name).unwrap_err().is_not_found());
    // Who has it open keeps it.
    VoidStream::create(&opened, "b").unwrap();
    assert!(memory.contains("b"));
    name.assert_nothing_left();
}

#[test]
fn structures_outlive_the_handle() {
    let (_name, memory) = memory("outlive");
    let queue = Queue::<u32>::create(&memory, "q", 4).unwrap();
    memory.unlink().unwrap();
    drop(memory);
    queue.try_push(1).unwrap();
    assert_eq!(queue.try_pop(), Some(1));
}

#[test]
fn the_headers_number_of_entries_counts() {
    for slots in [1, 4, 63, 64, 65, 200] {
        let name = Name::new("slots");
        let options = MemoryOptions::new(table_end(slots) + 16 * u64::from(slots));
        let memory = Memory::create_new(&name, options.max_entries(slots)).unwrap();
        let opened = Memory::open(&name).unwrap();
        assert_eq!(opened.max_entries(), slots);
        for number in 0..slots {
            VoidStream::create(&opened, &number.to_string()).unwrap();
        }
        let full = VoidStream::create(&memory, "more");
        assert_error!(full, Error::TableFull { free: 0, .. });
        assert_eq!(memory.entries().len(), slots as usize);
        VoidStream::open(&memory, &(slots - 1).to_string()).unwrap();
    }
    // 0 means 64, to writers of old and to ours.
    assert_eq!(MemoryOptions::new(1).max_entries(0).max_entries, 64);
    let (name, memory) = memory("zero");
    drop(memory);
    poke(&name, 12, &[0; 4]);
    let memory = Memory::open(&name).unwrap();
    assert_eq!(memory.max_entries(), 64);
    VoidStream::create(&memory, "v").unwrap();
    assert_eq!(memory.entries()[0].offset, table_end(64));
}

#[test]
fn too_small_for_its_table() {
    let name = Name::new("small");
    for (size, slots) in [(0, 64), (31, 1), (79, 1), (3103, 64), (1 << 20, 1 << 30)] {
        let options = MemoryOptions::new(size).max_entries(slots);
        for result in [
            Memory::create_new(&name, options.clone()),
            Memory::open_or_create(&name, options.clone()),
            Memory::replace(&name, options.clone()),
        ] {
            assert_error!(
                result,
                Error::Layout {
                    source: LayoutError::NoSpace { needed, available },
                    ..
                } if needed > available && available == size
            );
        }
        name.assert_nothing_left();
    }
    Memory::create_new(&name, MemoryOptions::new(80).max_entries(1)).unwrap();
}

#[test]
fn a_refused_replacement_leaves_what_is_there() {
    let (name, memory) = memory("kept");
    VoidStream::create(&memory, "v").unwrap();
    assert_error!(Memory::replace(&name, 10), Error::Layout { .. });
    assert!(Memory::open(&name).unwrap().contains("v"));
}

#[test]
fn replace_makes_a_new_one_and_parts_the_old() {
    let name = Name::new("replace");
    let first = Memory::replace(&name, 4096).unwrap();
    let old = Array::<u32>::create(&first, "a", 1).unwrap();
    old.set(0, 1).unwrap();
    let second = Memory::replace(&name, 8192).unwrap();
    assert!(second.entries().is_empty());
    Array::<u32>::create(&second, "a", 1).unwrap();
    assert_eq!(old.get(0), Some(1), "the old one stays for who has it");
    assert_eq!(Memory::open(&name).unwrap().size(), 8192);
    // The old handle does not remove the new segment.
    assert!(!first.unlink().unwrap());
    assert!(second.unlink().unwrap());
}

#[test]
fn impossible_segment_names_are_refused() {
    for name in ["", "/", ".", "..", "a/b", "/a/b", "a\0b", &"n".repeat(256)] {
        assert_error!(Memory::create_new(name, 4096), Error::System(_));
        assert_error!(Memory::open(name), Error::System(_));
        assert_error!(Memory::open_or_create(name, 4096), Error::System(_));
        assert_error!(Memory::replace(name, 4096), Error::System(_));
        assert_error!(Memory::unlink_name(name), Error::System(_));
    }
}

#[test]
fn what_is_no_memory_is_refused_for_its_reason() {
    let name = Name::new("damaged");
    let sound = TableHeader::new(4, 4096);
    let open = |bytes: &[u8]| {
        let file = file(&name);
        file.set_len(0).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let results = [
            Memory::open(&name),
            // It is not taken for abandoned.
            Memory::open_or_create(&name, 4096),
        ];
        let [first, second] = results.map(|result| match result {
            Err(Error::Segment { source, .. }) => source,
            other => panic!("{other:?}"),
        });
        assert_eq!(first, second);
        assert_eq!(
            std::fs::read(format!("/dev/shm/{}", &*name)).unwrap(),
            bytes
        );
        first
    };
    let changed = |change: &dyn Fn(&mut TableHeader)| {
        let mut header = sound;
        change(&mut header);
        let mut image = header.to_bytes().to_vec();
        image.resize(4096, 0);
        open(&image)
    };
    assert!(matches!(
        open(&[1; 10]),
        ImageError::TooShort { len: 10, .. }
    ));
    assert!(matches!(open(&[7; 100]), ImageError::Magic { .. }));
    assert!(matches!(
        changed(&|header| header.version.set(1)),
        ImageError::Version { found: 1 }
    ));
    assert!(matches!(
        changed(&|header| header.memory_size.set(4097)),
        ImageError::MemorySize { found: 4097, .. }
    ));
    assert!(matches!(
        changed(&|header| header.memory_size.set(100)),
        ImageError::MemorySize { found: 100, .. }
    ));
    assert!(matches!(
        changed(&|header| header.max_entries.set(1 << 20)),
        ImageError::MemorySize { .. }
    ));
    assert!(matches!(
        changed(&|header| header.entry_count.set(5)),
        ImageError::EntryCount { found: 5, max: 4 }
    ));
    for next in [0, 4097, u64::MAX] {
        assert!(matches!(
            changed(&|header| header.next_offset.set(next)),
            ImageError::NextOffset { .. }
        ));
    }
}

#[test]
fn an_unfinished_segment_is_not_opened_and_an_abandoned_one_repaired() {
    // Its creator died before it had a size, or before it had a table.
    for len in [0, 4096] {
        let name = Name::new("unfinished");
        file(&name).set_len(len).unwrap();
        assert_error!(Memory::open(&name), Error::Unfinished { .. });
        let taken = Memory::create_new(&name, 4096).unwrap_err();
        assert!(taken.is_already_exists(), "{taken:?}");
        let start = Instant::now();
        let memory = Memory::open_or_create(&name, 8192).unwrap();
        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "its creator may live"
        );
        assert_eq!(memory.size(), 8192);
        VoidStream::create(&memory, "v").unwrap();
        assert!(Memory::open(&name).unwrap().contains("v"));
    }
    // Replacing does not wait.
    let name = Name::new("unfinished");
    file(&name).set_len(0).unwrap();
    assert_eq!(Memory::replace(&name, 4096).unwrap().size(), 4096);
}

#[test]
fn open_or_create_waits_for_a_creator_at_work() {
    let name = Name::new("at-work");
    let file = file(&name);
    file.set_len(4096).unwrap();
    scope(|scope| {
        let opener = scope.spawn(|| Memory::open_or_create(&name, 1 << 16));
        sleep(Duration::from_millis(50));
        // Another implementation's creator: no lock, the magic as it comes.
        file.write_all_at(&TableHeader::new(4, 4096).to_bytes(), 0)
            .unwrap();
        let memory = opener.join().unwrap().unwrap();
        assert_eq!((memory.size(), memory.max_entries()), (4096, 4));
    });
}

#[test]
fn of_many_creators_one_creates() {
    const THREADS: u32 = 8;
    for _ in 0..40 {
        let name = Name::new("race");
        let created = AtomicU32::new(0);
        scope(|scope| {
            for number in 0..THREADS {
                let (name, created) = (&name, &created);
                scope.spawn(move || {
                    if number % 2 == 0 {
                        let size = 8192 + 8 * u64::from(number);
                        let memory = Memory::open_or_create(name, size).unwrap();
                        VoidStream::create(&memory, &number.to_string()).unwrap();
                    } else if Memory::create_new(name, 16384).is_ok() {
                        created.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(created.into_inner() <= 1);
        let memory = Memory::open(&name).unwrap();
        assert_eq!(memory.entries().len(), THREADS as usize / 2);
    }
}

#[test]
fn structures_are_created_by_many_at_once() {
    const THREADS: usize = 8;
    const EACH: usize = 12;
    let name = Name::new("insert");
    let options = MemoryOptions::new(1 << 20).max_entries((THREADS * EACH + 4) as u32);
    let memory = Memory::create_new(&name, options).unwrap();
    scope(|scope| {
        for thread in 0..THREADS {
            let (name, memory) = (&name, &memory);
            scope.spawn(move || {
                // Handles of one process, and such as of other processes.
                let memory = if thread % 2 == 0 {
                    memory.clone()
                } else {
                    Memory::open(name).unwrap()
                };
                for number in 0..EACH {
                    let queue = format!("t{thread}-{number}");
                    let queue = Queue::<u64>::create(&memory, &queue, 4).unwrap();
                    queue.try_push((thread * EACH + number) as u64).unwrap();
                    // And of these one each.
                    Event::open_or_create(&memory, "shared", EventMode::Auto).unwrap();
                    Array::<u8>::open_or_create(&memory, "common", 3).unwrap();
                }
            });
        }
    });
    let mut entries = memory.entries();
    assert_eq!(entries.len(), THREADS * EACH + 3);
    entries.sort_by_key(|entry| entry.offset);
    for pair in entries.windows(2) {
        assert!(pair[0].offset + pair[0].size <= pair[1].offset, "{pair:?}");
    }
    for thread in 0..THREADS {
        for number in 0..EACH {
            let queue = Queue::<u64>::open(&memory, &format!("t{thread}-{number}")).unwrap();
            assert_eq!(queue.try_pop(), Some((thread * EACH + number) as u64));
        }
    }
}

#[test]
fn entries_are_removed_as_the_c_library_does() {
    let (_name, memory) = memory("remove");
    assert_error!(memory.remove("one"), Error::NotFound { .. });
    let queues = ["one", "two", "three"].map(|name| {
        let queue = Queue::<u32>::create(&memory, name, 2).unwrap();
        queue.try_push(name.len() as u32).unwrap();
        queue
    });
    let free = memory.free();
    memory.remove("one").unwrap();
    assert_eq!(memory.free(), free, "its bytes are not reclaimed");
    let names = |memory: &Memory| -> Vec<String> {
        memory
            .entries()
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    };
    assert_eq!(names(&memory), ["two", "three"]);
    let image = memory.image();
    let entry = |index| &image[entry_at(index) as usize..entry_at(index + 1) as usize];
    assert_eq!(entry(1), entry(2), "the last one's old copy stays");
    assert_error!(memory.remove("one"), Error::NotFound { .. });
    assert_error!(Queue::<u32>::open(&memory, "one"), Error::NotFound { .. });
    // Who has it open goes on, and the name is free.
    assert_eq!(queues[0].try_pop(), Some(3));
    Queue::<u32>::create(&memory, "one", 2).unwrap();
    assert_eq!(names(&memory), ["two", "three", "one"]);
    assert_eq!(
        Queue::<u32>::open(&memory, "three").unwrap().try_pop(),
        Some(5)
    );
    for name in ["one", "three", "two"] {
        memory.remove(name).unwrap();
    }
    assert!(memory.entries().is_empty());
    for name in ["", "a\0b", &"n".repeat(40)] {
        assert_error!(memory.remove(name), Error::NotFound { .. });
    }
}

#[test]
fn free_bytes_are_counted_and_given_back() {
    let (_name, memory) = memory("free");
    let free = memory.free();
    assert_eq!(free, (1 << 16) - table_end(64));
    Array::<u8>::create(&memory, "a", 3).unwrap();
    // 11 bytes, and those up to the next multiple of 8.
    assert_eq!(memory.free(), free - 16);
    assert!(Array::<u8>::create(&memory, "too-large", free).is_err());
    assert_eq!(memory.free(), free - 16);
    Array::<u8>::create(&memory, "all", free - 24).unwrap();
    assert_eq!(memory.free(), 0);
    assert_error!(
        Array::<u8>::create(&memory, "none", 1),
        Error::Layout {
            source: LayoutError::NoSpace {
                needed: 9,
                available: 0
            },
            ..
        }
    );
    assert_eq!(memory.describe().unwrap().free(), 0);
}

#[test]
fn foreign_leftovers_are_not_overwritten() {
    // An entry that reaches beyond next_offset, as a racing writer leaves it.
    let (name, memory) = memory("leftover");
    let first = Array::<u64>::create(&memory, "first", 4).unwrap();
    first.fill(7);
    poke(&name, 24, &table_end(64).to_le_bytes());
    let second = Array::<u64>::create(&memory, "second", 4).unwrap();
    second.fill(8);
    assert_eq!(first.to_vec(), [7; 4]);
    // What a failed insertion left behind is cleared.
    let next = table_end(64) + 80;
    poke(&name, next, &[0xEE; 200]);
    let third = Array::<u64>::create(&memory, "third", 4).unwrap();
    assert_eq!(third.to_vec(), [0; 4]);
    let yes = LazyBool::constant(&memory, "yes", true).unwrap();
    assert!(!LazyBool::not(&memory, "no", &yes).unwrap().force());
}

// Waiting.

/// Under each strategy, with marks and without.
fn each_wait(test: &str, run: impl Fn(&Memory)) {
    each_strategy(test, &[WaitStrategy::Spin], &run);
    each_sleep(test, run);
}

/// As above for more threads than there may be cores: spinning ones would only
/// be in each other's way.
fn each_sleep(test: &str, run: impl Fn(&Memory)) {
    each_strategy(test, &[WaitStrategy::Adaptive, WaitStrategy::Block], &run);
}

fn each_strategy(test: &str, strategies: &[WaitStrategy], run: &impl Fn(&Memory)) {
    for strategy in strategies {
        for marks in [true, false] {
            let name = Name::new(test);
            let open = OpenOptions::default()
                .wait_strategy(*strategy)
                .native_marks(marks);
            let options = MemoryOptions::new(1 << 16).open_options(open);
            run(&Memory::create_new(&name, options).unwrap());
        }
    }
}

/// The wait ends with a time-out, not before its time.
#[track_caller]
fn times_out<T>(wait: impl Fn(Duration) -> Result<T, OpError>) {
    for patience in [NOW, SHORT] {
        let start = Instant::now();
        match wait(patience) {
            Err(error @ OpError::Timeout { .. }) => {
                assert!(error.is_timeout() && !error.is_closed());
                assert!(error.to_string().contains("in time"), "{error}");
            }
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("it came"),
        }
        assert!(start.elapsed() >= patience);
    }
}

/// As the try forms say it.
#[track_caller]
fn would_wait<T>(tried: &Result<T, OpError>) {
    assert!(matches!(tried, Err(OpError::Timeout { .. })));
}

/// As above, and what was to be given comes back.
#[track_caller]
fn gives_back<T: PartialEq + std::fmt::Debug>(
    value: &T,
    wait: impl Fn(Duration) -> Result<(), Refused<T>>,
) {
    times_out(|patience| {
        wait(patience).map_err(|refused| {
            assert_eq!(refused.value, *value);
            refused.error
        })
    });
}

#[test]
fn containers_time_out() {
    each_wait("containers", |memory| {
        let queue = Queue::<u32>::create(memory, "queue", 2).unwrap();
        times_out(|patience| queue.pop_within(patience));
        times_out(|patience| queue.pop_slice_within(&mut [0; 3], patience));
        assert_eq!(queue.pop_slice_within(&mut [], NOW), Ok(0));
        assert_eq!(queue.push_slice_within(&[1, 2, 3, 4], SHORT).unwrap(), 2);
        assert_eq!(queue.push_slice_within(&[5], NOW).unwrap(), 0);
        gives_back(&5, |patience| queue.push_within(5, patience));
        assert_eq!(queue.pop_within(NOW), Ok(1), "what is there needs no time");

        let stack = Stack::<u32>::create(memory, "stack", 1).unwrap();
        times_out(|patience| stack.pop_within(patience));
        stack.push_within(1, NOW).unwrap();
        gives_back(&2, |patience| stack.push_within(2, patience));
        assert_eq!(stack.pop_within(NOW), Ok(1));

        let ring = std::cell::RefCell::new(Ring::<u32>::create(memory, "ring", 1).unwrap());
        times_out(|patience| ring.borrow_mut().read_within(patience));
        ring.borrow_mut().write_within(1, NOW).unwrap();
        gives_back(&2, |patience| ring.borrow_mut().write_within(2, patience));
        assert_eq!(ring.borrow_mut().read_within(NOW), Ok(1));

        let queue = DynQueue::create(memory, "dyn queue", 2, "i4").unwrap();
        let timeout = |result: Result<(), DynError>| {
            let timed_out = matches!(
                result,
                Err(DynError::Op(OpError::Timeout { .. })
                    | DynError::Refused(Refused {
                        error: OpError::Timeout { .. },
                        ..
                    }))
            );
            assert!(timed_out, "{result:?}");
        };
        timeout(queue.pop_within(SHORT).map(drop));
        queue.push_within(1, NOW).unwrap();
        queue.push_within(2, NOW).unwrap();
        timeout(queue.push_within(3, SHORT));
        let stack = DynStack::create(memory, "dyn stack", 1, "i4").unwrap();
        timeout(stack.pop_within(SHORT).map(drop));
        stack.push_within(1, NOW).unwrap();
        timeout(stack.push_within(3, SHORT));
        let mut ring = DynRing::create(memory, "dyn ring", 1, "i4").unwrap();
        timeout(ring.read_within(SHORT).map(drop));
        ring.write_within(1, NOW).unwrap();
        timeout(ring.write_within(3, SHORT));
    });
}

#[test]
fn locks_time_out() {
    each_wait("locks", |memory| {
        let semaphore = Semaphore::create(memory, "semaphore", 0, None).unwrap();
        times_out(|patience| semaphore.acquire_within(patience));
        assert_eq!(semaphore.waiting(), 0, "who gave up does not wait");

        // Whether its holder is known depends on the marks.
        let held = |result: Result<(), OpError>| {
            assert!(result.unwrap_err().is_timeout());
        };
        let mutex = Mutex::create(memory, "mutex").unwrap();
        let guard = mutex.lock_within(NOW).unwrap();
        assert!(mutex.try_lock().is_none());
        held(mutex.lock_within(NOW).map(drop));
        held(mutex.lock_within(SHORT).map(drop));
        drop(guard);

        let lock = RwLock::create(memory, "rwlock").unwrap();
        let reader = lock.read_within(NOW).unwrap();
        times_out(|patience| lock.write_within(patience));
        assert!(!lock.is_writing(), "who gave up holds nobody off");
        drop(lock.read_within(NOW).unwrap());
        drop(reader);
        let writer = lock.write_within(NOW).unwrap();
        times_out(|patience| lock.read_within(patience));
        held(lock.write_within(SHORT).map(drop));
        drop(writer);

        let monitor = Monitor::create(memory, "monitor").unwrap();
        let guard = monitor.lock_within(NOW).unwrap();
        held(monitor.lock_within(SHORT).map(drop));
        let start = Instant::now();
        let (guard, notified) = guard.wait_within(SHORT).unwrap();
        assert!(!notified && start.elapsed() >= SHORT);
        let (guard, notified) = guard.wait_within(NOW).unwrap();
        assert!(!notified && monitor.try_lock().is_none());
        let guard = guard.wait_while(NOW, || false).unwrap();
        drop(guard);
        times_out(|patience| {
            let guard = monitor.lock_within(PATIENCE).unwrap();
            guard.wait_while(patience, || true)
        });
        assert!(monitor.try_lock().is_some(), "the lock was given back");
    });
}

#[test]
fn meetings_time_out() {
    each_wait("meetings", |memory| {
        let barrier = Barrier::create(memory, "barrier", 2).unwrap();
        times_out(|patience| barrier.wait_within(patience));
        assert_eq!((barrier.arrived(), barrier.generation()), (0, 0));
        let latch = Latch::create(memory, "latch", 1).unwrap();
        times_out(|patience| latch.wait_within(patience));
        let once = Once::create(memory, "once").unwrap();
        times_out(|patience| once.wait_within(patience));
        once.call_within(NOW, |_| {
            // Who runs it is known by its mark alone.
            let runs = once.wait_within(SHORT).unwrap_err();
            assert!(runs.is_timeout());
            let called = once.call_within(SHORT, |_| panic!("it runs"));
            assert!(called.unwrap_err().is_timeout());
            assert_eq!(once.try_call(|_| panic!("it runs")), None);
        })
        .unwrap();
        once.wait_within(NOW).unwrap();
        for mode in [EventMode::Auto, EventMode::Manual] {
            let event = Event::create(memory, &format!("{mode:?}"), mode).unwrap();
            times_out(|patience| event.wait_within(patience));
            event.signal();
            event.wait_within(NOW).unwrap();
        }
    });
}

#[test]
fn messages_and_values_time_out() {
    each_wait("values", |memory| {
        let signal = Signal::create(memory, "signal", [1_u32; 3]).unwrap();
        times_out(|patience| signal.wait_for_change(0, patience));

        for (name, channel) in [
            ("buffered", Channel::<u32>::create(memory, "buffered", 2)),
            ("rendezvous", Channel::create(memory, "rendezvous", 0)),
            ("python", Channel::create_python(memory, "python", 1)),
            ("pymeeting", Channel::create_python(memory, "pymeeting", 0)),
        ] {
            let channel = channel.unwrap();
            times_out(|patience| channel.receive_within(patience));
            would_wait(&channel.try_receive());
            for message in 0..channel.capacity() as u32 {
                channel.send_within(message, NOW).unwrap();
            }
            gives_back(&9, |patience| channel.send_within(9, patience));
            let refused = channel.try_send(9).unwrap_err();
            assert_eq!(refused.value, 9);
            would_wait(&Err::<(), _>(refused.error));
            assert_eq!(channel.len(), channel.capacity(), "{name}: taken back");
            for message in 0..channel.capacity() as u32 {
                assert_eq!(channel.receive_within(NOW), Ok(message), "{name}");
            }
            would_wait(&channel.try_receive());
        }

        for stream in [
            Stream::<u32>::create(memory, "stream", 1),
            Stream::create_python(memory, "pystream", 1),
        ] {
            let stream = std::cell::RefCell::new(stream.unwrap());
            times_out(|patience| stream.borrow_mut().next_within(patience));
            stream.borrow_mut().emit_within(1, NOW).unwrap();
            gives_back(&2, |patience| stream.borrow_mut().emit_within(2, patience));
            assert_eq!(stream.borrow_mut().next_within(NOW), Ok(1));
        }
        let stream = VoidStream::create(memory, "void").unwrap();
        times_out(|patience| stream.wait_for_change(0, patience));

        let future = Future::<u32>::create(memory, "future").unwrap();
        times_out(|patience| future.get_within(patience));

        let lazy = Lazy::<u32>::create_python(memory, "lazy", None).unwrap();
        times_out(|patience| lazy.force_within(patience));
        let runs = lazy.force_with(|_| {
            assert!(lazy.force_within(SHORT).unwrap_err().is_timeout());
            let other =
                lazy.force_with_within(SHORT, |_| -> Result<u32, String> { panic!("it runs") });
            assert!(other.unwrap_err().is_timeout());
            Ok::<_, String>(5)
        });
        assert_eq!(runs, Ok(5));
    });
}

#[test]
fn a_deadline_that_lies_far_away_is_none() {
    let (_name, memory) = memory("far");
    let queue = Queue::<u8>::create(&memory, "q", 2).unwrap();
    scope(|scope| {
        let popper = scope.spawn(|| {
            let far = queue.pop_within(Duration::MAX);
            (far, queue.pop_within(Deadline::never()), queue.pop())
        });
        for element in [1, 2, 3] {
            sleep(MOMENT);
            queue.push(element).unwrap();
        }
        assert_eq!(popper.join().unwrap(), (Ok(1), Ok(2), Ok(3)));
    });
}

// Containers.

#[test]
fn arrays_keep_their_bounds() {
    let (_name, memory) = memory("array");
    for form in [ArrayForm::Plain, ArrayForm::C] {
        let name = format!("{form:?}");
        let array = match form {
            ArrayForm::C => Array::<u32>::create_c(&memory, &name, 5),
            ArrayForm::Plain => Array::create(&memory, &name, 5),
        };
        let array = array.unwrap();
        assert_eq!((array.form(), array.len()), (form, 5));
        assert!(!array.is_empty());
        assert_eq!(array.to_vec(), [0; 5]);
        array.write(1, &[1, 2, 3]).unwrap();
        array.set(4, 4).unwrap();
        let opened = Array::<u32>::open(&memory, &name).unwrap();
        assert_eq!(opened.form(), form);
        assert_eq!(opened.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(opened.iter().len(), 5);
        assert_eq!(opened.read(1..3).unwrap(), [1, 2]);
        assert_eq!(opened.read(..=1).unwrap(), [0, 1]);
        assert_eq!(opened.read(5..).unwrap(), [0; 0]);
        let mut two = [9; 2];
        opened.read_into(3, &mut two).unwrap();
        assert_eq!(two, [3, 4]);
        let before = memory.image();
        let beyond = |result: Result<(), OutOfBounds>, range: std::ops::Range<usize>| {
            let error = result.unwrap_err();
            assert_eq!((error.range, error.capacity), (range, 5));
        };
        beyond(array.set(5, 1), 5..6);
        beyond(array.set(usize::MAX, 1), usize::MAX..usize::MAX);
        beyond(array.write(4, &[1, 2]), 4..6);
        beyond(array.write(usize::MAX, &[1, 2]), usize::MAX..usize::MAX);
        beyond(array.read_into(4, &mut two), 4..6);
        assert_eq!(two, [3, 4]);
        beyond(array.read(2..6).map(drop), 2..6);
        #[expect(clippy::reversed_empty_ranges, reason = "it must be refused")]
        beyond(array.read(4..2).map(drop), 4..2);
        assert!(array.read(6..).is_err());
        assert!(array.read(..=usize::MAX).is_err());
        assert_eq!((array.get(5), array.get(usize::MAX)), (None, None));
        assert!(array.write(6, &[]).is_err() && array.write(5, &[]).is_ok());
        assert_eq!(memory.image(), before);
        array.fill(7);
        assert_eq!(array.to_vec(), [7; 5]);
    }
}

#[test]
fn queues_take_and_give_in_batches() {
    let (_name, memory) = memory("queue");
    let queue = Queue::<u16>::create(&memory, "q", 5).unwrap();
    assert_eq!((queue.capacity(), queue.len()), (8, 0));
    assert!(queue.is_empty() && !queue.is_full());
    // Past the ends of the array, in every phase.
    let mut next = 0_u16;
    let mut due = 0_u16;
    for round in 0..200_usize {
        let wanted = round % 11;
        let elements: Vec<u16> = (0..wanted as u16).map(|i| next.wrapping_add(i)).collect();
        let room = queue.capacity() - queue.len();
        let pushed = queue.try_push_slice(&elements);
        assert_eq!(pushed, wanted.min(room));
        next += pushed as u16;
        let mut into = vec![0; round % 7];
        let there = queue.len();
        let popped = queue.try_pop_slice(&mut into);
        assert_eq!(popped, (round % 7).min(there));
        for element in &into[..popped] {
            assert_eq!(*element, due);
            due += 1;
        }
        assert_eq!(queue.len(), usize::from(next - due));
    }
    assert_eq!(queue.push_slice_within(&[], NOW).unwrap(), 0);
    while queue.try_pop().is_some() {}
    assert_eq!(queue.push_slice_within(&[1; 20], NOW).unwrap(), 8);
    assert!(queue.is_full());
    assert_eq!(queue.try_push(1), Err(Full(1)));
    let mut into = [0; 20];
    assert_eq!(queue.pop_slice_within(&mut into, NOW), Ok(8));
    assert_eq!(Full(5).into_inner(), 5);
}

#[test]
fn queues_lose_and_repeat_nothing_between_threads() {
    const EACH: u64 = 10_000;
    each_sleep("mpmc", |memory| {
        let queue = Queue::<u64>::create(memory, "q", 16).unwrap();
        let (sum, count) = (AtomicU64::new(0), AtomicU64::new(0));
        scope(|scope| {
            for producer in 0..2 {
                let queue = &queue;
                scope.spawn(move || {
                    let elements: Vec<u64> = (0..EACH).map(|i| producer * EACH + i).collect();
                    if producer == 0 {
                        for element in elements {
                            queue.push_within(element, PATIENCE).unwrap();
                        }
                    } else {
                        let pushed = queue.push_slice_within(&elements, PATIENCE).unwrap();
                        assert_eq!(pushed, elements.len());
                    }
                });
            }
            for consumer in 0..2 {
                let (queue, sum, count) = (&queue, &sum, &count);
                scope.spawn(move || {
                    let mut last = [None; 2];
                    while count.load(Ordering::Relaxed) < 2 * EACH {
                        let mut into = [0; 8];
                        let wanted = if consumer == 0 { 1 } else { 8 };
                        let popped = queue.pop_slice_within(&mut into[..wanted], 5 * MOMENT);
                        for element in &into[..popped.unwrap_or(0)] {
                            // Of one producer they come in order.
                            let last = &mut last[(element / EACH) as usize];
                            assert!(last.is_none_or(|last| last < *element));
                            *last = Some(*element);
                            sum.fetch_add(*element, Ordering::Relaxed);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 2 * EACH);
        assert_eq!(sum.into_inner(), (0..2 * EACH).sum::<u64>());
    });
}

#[test]
fn stacks_lose_and_repeat_nothing_between_threads() {
    const EACH: u32 = 5_000;
    let (_name, memory) = memory("stack");
    let stack = Stack::<[u32; 3]>::create(&memory, "s", 8).unwrap();
    let seen = std::sync::Mutex::new(BTreeSet::new());
    scope(|scope| {
        for thread in 0..4 {
            let (stack, seen) = (&stack, &seen);
            scope.spawn(move || {
                for number in 0..EACH {
                    if thread % 2 == 0 {
                        let element = thread * EACH + number;
                        stack.push_within([element; 3], PATIENCE).unwrap();
                        let _ = stack.peek().unwrap();
                    } else {
                        let [a, b, c] = stack.pop_within(PATIENCE).unwrap();
                        assert!(a == b && b == c, "torn");
                        assert!(seen.lock().unwrap().insert(a), "{a} came twice");
                    }
                }
            });
        }
    });
    assert!(stack.is_empty());
    assert_eq!(seen.into_inner().unwrap().len(), 2 * EACH as usize);
}

#[test]
fn stacks_are_last_in_first_out() {
    let (_name, memory) = memory("lifo");
    let stack = Stack::<u8>::create(&memory, "s", 3).unwrap();
    assert_eq!((stack.try_pop(), stack.peek()), (Ok(None), Ok(None)));
    for element in [1, 2, 3] {
        stack.try_push(element).unwrap();
        assert_eq!(stack.peek(), Ok(Some(element)));
    }
    assert!(stack.is_full());
    assert_eq!(stack.try_push(4), Err(TryPushError::Full(Full(4))));
    for element in [3, 2, 1] {
        assert_eq!(stack.pop(), Ok(element));
    }
    stack.push(9).unwrap();
    assert_eq!((stack.len(), stack.capacity()), (1, 3));
}

#[test]
fn rings_pass_on_in_order() {
    each_sleep("ring", |memory| {
        let mut producer = Ring::<u32>::create(memory, "r", 7).unwrap();
        let mut consumer = Ring::<u32>::open(memory, "r").unwrap();
        assert_eq!(consumer.peek(), None);
        scope(|scope| {
            scope.spawn(move || {
                let mut next = 0;
                while next < 30_000 {
                    if next % 3 == 0 {
                        producer.write_within(next, PATIENCE).unwrap();
                        next += 1;
                    } else {
                        let block: Vec<u32> = (next..next + 5).collect();
                        next += producer.try_write_slice(&block) as u32;
                        std::thread::yield_now();
                    }
                }
            });
            let mut due = 0;
            while due < 30_000 {
                let mut into = [0; 4];
                let read = if due % 2 == 0 {
                    into[0] = consumer.read_within(PATIENCE).unwrap();
                    1
                } else {
                    consumer.try_read_slice(&mut into)
                };
                for element in &into[..read] {
                    assert_eq!(*element, due);
                    due += 1;
                }
            }
        });
        consumer.reset();
        assert_eq!((consumer.len(), consumer.is_full()), (0, false));
    });
}

#[test]
fn rings_hold_to_their_capacity() {
    let (_name, memory) = memory("rings");
    let mut ring = Ring::<[u8; 3]>::create_bytes(&memory, "r", 11).unwrap();
    assert_eq!(ring.capacity(), 3);
    for round in 0..50 {
        assert_eq!(ring.try_write_slice(&[[round; 3]; 5]), 3);
        assert!(ring.is_full());
        assert_eq!(ring.try_write([9; 3]), Err(Full([9; 3])));
        assert_eq!(
            (ring.peek(), ring.peek()),
            (Some([round; 3]), Some([round; 3]))
        );
        let mut into = [[0; 3]; 2];
        assert_eq!(ring.try_read_slice(&mut into), 2);
        assert_eq!(ring.try_read(), Some([round; 3]));
        assert_eq!((ring.try_read(), ring.peek()), (None, None));
        // One more, so that the next round starts elsewhere.
        ring.try_write([round; 3]).unwrap();
        assert_eq!(ring.try_read(), Some([round; 3]));
    }
    ring.try_write([1; 3]).unwrap();
    ring.reset();
    assert!(ring.is_empty());
}

#[test]
fn pools_give_each_block_to_one() {
    let (_name, memory) = memory("pool");
    let pool = Pool::<u64>::create(&memory, "p", 6).unwrap();
    scope(|scope| {
        for thread in 0..4_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for number in 0..5_000 {
                    let mark = thread << 32 | number;
                    let Ok(block) = pool.allocate_with(mark) else {
                        continue;
                    };
                    std::thread::yield_now();
                    assert_eq!(pool.get(block), Some(mark), "somebody else has it");
                    pool.deallocate(block).unwrap();
                }
            });
        }
    });
    assert_eq!(pool.allocated(), 0);
    let mut free = pool.free_list().unwrap();
    free.sort_unstable();
    assert_eq!(free, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_block_given_back_twice_is_noticed_where_it_can_be() {
    let (_name, memory) = memory("double");
    let pool = Pool::<u32>::create(&memory, "p", 4).unwrap();
    let twice = |index| Err(PoolError::AlreadyFree { index });
    assert_eq!(pool.deallocate(2), twice(2), "none is taken");
    let blocks: Vec<u32> = (0..4).map(|i| pool.allocate_with(i).unwrap()).collect();
    assert_eq!(pool.allocate(), Ok(None));
    assert_eq!(pool.allocate_with(5), Err(Full(5)));
    pool.deallocate(blocks[1]).unwrap();
    let before = memory.image();
    assert_eq!(pool.deallocate(blocks[1]), twice(1), "it is the next one");
    let none = |index| Err(PoolError::NoSuchBlock { index, capacity: 4 });
    assert_eq!(pool.deallocate(4), none(4));
    assert_eq!(pool.set(u32::MAX, 1), none(u32::MAX));
    assert_eq!(pool.get(4), None);
    assert_eq!(memory.image(), before);
    // Those of dead processes.
    pool.repair(&[0, 3]);
    assert_eq!(pool.allocated(), 2);
    assert_eq!(pool.free_list().unwrap(), [1, 2]);
    assert_eq!((pool.get(0), pool.get(3)), (Some(0), Some(3)));
    pool.repair(&[]);
    assert_eq!((pool.allocated(), pool.free_list().unwrap().len()), (0, 4));
    pool.repair(&[0, 1, 2, 3, 77]);
    assert_eq!((pool.allocated(), pool.allocate()), (4, Ok(None)));
}

#[test]
fn a_damaged_free_list_is_refused_and_repaired() {
    let (name, memory) = memory("list");
    let pool = Pool::<u32>::create(&memory, "p", 4).unwrap();
    let at = offset_of(&memory, "p");
    // Node i at 24 + 8 i, its link 4 bytes on; the head at 0.
    for (place, value) in [(24 + 4, 0_u32), (24 + 4, 4), (24 + 12, 0), (0, 9)] {
        poke(&name, at + place, &value.to_le_bytes());
        let opened = Pool::<u32>::open(&memory, "p");
        assert_error!(
            opened,
            Error::Structure {
                source: ImageError::Field {
                    field: "free list",
                    ..
                },
                ..
            }
        );
        if place == 0 {
            assert_error!(
                pool.allocate(),
                OpError::Damaged {
                    field: "free list",
                    found: 9,
                    ..
                }
            );
            assert_eq!(pool.allocate_with(1), Err(Full(1)));
        }
        assert_eq!(pool.free_list(), None);
        pool.repair(&[]);
        assert_eq!(pool.free_list().unwrap(), [0, 1, 2, 3]);
        Pool::<u32>::open(&memory, "p").unwrap();
    }
}

fn maps<K: Key, V: polyshm_zeroipc::Element>(memory: &Memory, capacity: u64) -> [Map<K, V>; 2] {
    [
        Map::create(memory, "cpp", capacity).unwrap(),
        Map::create_python(memory, "python", capacity).unwrap(),
    ]
}

#[test]
fn maps_fill_up_churn_and_are_cleared() {
    let (_name, memory) = memory("map");
    for map in maps::<u16, u64>(&memory, 8) {
        assert!(map.is_empty() && map.capacity() == 8);
        for key in 0..8 {
            assert_eq!(map.insert(key, key.into()), Ok(Inserted::New));
        }
        let full = map.insert(8, 8);
        assert_eq!(full, Err(InsertError::Full(Full((8, 8)))));
        assert_eq!(
            map.insert(3, 33),
            Ok(Inserted::Updated),
            "there is room for it"
        );
        assert_eq!(map.get(3), Ok(Some(33)));
        assert_eq!(map.len(), 8);
        // Tombstones are used again, a hundred laps.
        for key in 8..800 {
            assert_eq!(map.remove(key - 8), Ok(true), "{key}");
            assert_eq!(map.remove(key - 8), Ok(false));
            assert_eq!(map.insert(key, key.into()), Ok(Inserted::New));
            assert_eq!(map.contains_key(key - 8), Ok(false));
            assert_eq!(map.len(), 8);
        }
        let mut all = map.to_vec();
        all.sort_unstable();
        let expected: Vec<_> = (792..800).map(|key| (key, u64::from(key))).collect();
        assert_eq!(all, expected);
        map.clear();
        assert!(map.is_empty() && map.to_vec().is_empty());
        assert_eq!(map.get(799), Ok(None));
        assert_eq!(map.insert(1, 1), Ok(Inserted::New));
    }
}

#[test]
fn sets_fill_up_churn_and_are_cleared() {
    let (_name, memory) = memory("set");
    for set in [
        Set::<i64>::create(&memory, "cpp", 4).unwrap(),
        Set::create_python(&memory, "python", 4).unwrap(),
    ] {
        for element in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(set.contains(element), Ok(false));
            assert_eq!(set.insert(element), Ok(true));
            assert_eq!(set.insert(element), Ok(false));
            assert_eq!(set.contains(element), Ok(true));
        }
        assert_eq!(set.insert(5), Err(InsertError::Full(Full(5))));
        assert_eq!(set.insert(-1), Ok(false), "it is there, full or not");
        assert_eq!((set.len(), set.capacity()), (4, 4));
        assert_eq!((set.remove(-1), set.remove(-1)), (Ok(true), Ok(false)));
        assert_eq!(set.insert(5), Ok(true));
        let mut all = set.to_vec();
        all.sort_unstable();
        assert_eq!(all, [i64::MIN, 0, 5, i64::MAX]);
        set.clear();
        assert!(set.is_empty() && set.to_vec().is_empty());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
#[repr(C)]
struct Cell(i16, i16);

impl Key for Cell {}

#[test]
fn keys_of_every_kind() {
    fn both<K: Key + PartialEq + std::fmt::Debug>(test: &str, keys: &[K]) {
        let (_name, memory) = memory(test);
        for map in maps::<K, u32>(&memory, 16) {
            for (key, value) in keys.iter().zip(0..) {
                assert_eq!(map.insert(*key, value), Ok(Inserted::New), "{key:?}");
            }
            for (key, value) in keys.iter().zip(0..) {
                assert_eq!(map.get(*key), Ok(Some(value)), "{key:?}");
                assert_eq!(map.remove(*key), Ok(true));
            }
        }
    }
    both("u8", &[0_u8, 1, 255]);
    both("i8", &[0_i8, -1, i8::MIN, i8::MAX]);
    both("u32", &[0_u32, 1, u32::MAX]);
    both("u64", &[0_u64, 1 << 33, u64::MAX]);
    both("i64", &[0_i64, -1, i64::MIN]);
    both("f32", &[0.5_f32, -0.5, f32::INFINITY, f32::MIN_POSITIVE]);
    both("bytes3", &[*b"abc", *b"ab\0", [0; 3]]);
    both("bytes16", &[[0; 16], [255; 16]]);
    both("cell", &[Cell(1, 2), Cell(2, 1), Cell(-1, -1)]);
    assert_eq!(byte_key::<3>("abcd"), None);
    assert_eq!(byte_key::<3>("é"), Some([0xC3, 0xA9, 0]));
}

#[test]
fn float_keys_compare_as_numbers() {
    let (_name, memory) = memory("floats");
    let [cpp, python] = maps::<f64, u32>(&memory, 8);
    assert_eq!(cpp.insert(f64::NAN, 3), Ok(Inserted::New));
    assert_eq!(cpp.get(f64::NAN), Ok(None), "never equal to itself");
    assert_eq!(cpp.remove(f64::NAN), Ok(false));
    // Until it is full, and no longer.
    for there in 1..8 {
        assert_eq!(cpp.insert(f64::NAN, 4), Ok(Inserted::New));
        assert_eq!(cpp.len(), there + 1);
    }
    assert!(matches!(cpp.insert(f64::NAN, 5), Err(InsertError::Full(_))));
    assert_eq!((cpp.len(), cpp.to_vec().len()), (8, 8));
    // Python compares bytes.
    assert_eq!(python.insert(f64::NAN, 3), Ok(Inserted::New));
    assert_eq!(python.get(f64::NAN), Ok(Some(3)));
}

/// The two zeros are equal but hashed by their bytes: where C++ finds both, so
/// do we, wherever their homes lie.
#[test]
fn the_two_zeros_stand_beside_each_other() {
    let (_name, memory) = memory("zeros");
    for capacity in 2..40 {
        let name = format!("m{capacity}");
        let map = Map::<f64, u32>::create(&memory, &name, capacity).unwrap();
        assert_eq!(map.insert(0.0, 1), Ok(Inserted::New));
        if map.insert(-0.0, 2) == Ok(Inserted::Updated) {
            // The same home.
            assert_eq!((map.get(0.0), map.len()), (Ok(Some(2)), 1));
            continue;
        }
        let found = (map.get(0.0), map.get(-0.0), map.len());
        assert_eq!(found, (Ok(Some(1)), Ok(Some(2)), 2), "{capacity} slots");
    }
}

#[test]
fn python_maps_take_large_values() {
    let (_name, memory) = memory("large");
    let map = Map::<[u8; 5], [u64; 20]>::create_python(&memory, "m", 4).unwrap();
    let key = byte_key("k").unwrap();
    assert_eq!(map.insert(key, [1; 20]), Ok(Inserted::New));
    assert_eq!(map.insert(key, [2; 20]), Ok(Inserted::Updated));
    let opened = Map::<[u8; 5], [u64; 20]>::open_python(&memory, "m").unwrap();
    assert_eq!(opened.get(key), Ok(Some([2; 20])));
    assert_eq!(opened.dialect(), Dialect::Python);
}

#[test]
fn maps_hold_each_key_once_between_threads() {
    each_sleep("keys", |memory| {
        for map in maps::<u32, u64>(memory, 16) {
            let inserted = AtomicU32::new(0);
            let removed = AtomicU32::new(0);
            scope(|scope| {
                for thread in 0..4_u64 {
                    let (map, inserted, removed) = (&map, &inserted, &removed);
                    scope.spawn(move || {
                        for round in 0..2_000_u32 {
                            let key = round % 5 * 16;
                            match map.insert(key, thread << 32 | u64::from(key)).unwrap() {
                                Inserted::New => inserted.fetch_add(1, Ordering::Relaxed),
                                Inserted::Updated => 0,
                            };
                            if let Some(value) = map.get(key).unwrap() {
                                assert_eq!(value as u32, key, "another key's value");
                            }
                            if round % 3 == 0 && map.remove(key).unwrap() {
                                removed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    });
                }
            });
            let mut keys: Vec<u32> = map.to_vec().into_iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            let all = keys.len();
            keys.dedup();
            assert_eq!((keys.len(), map.len()), (all, all), "a key stands twice");
            assert!(inserted.into_inner() >= removed.into_inner());
        }
    });
}

// Repair.

#[test]
fn stuck_queues_are_reported_and_repaired() {
    let (name, memory) = impatient("stuck-queue");
    let queue = Queue::<u32>::create(&memory, "q", 4).unwrap();
    let at = offset_of(&memory, "q");
    let seq = |slot: u64| at + 16 + 16 + 4 * slot;
    queue.try_push_slice(&[10, 11, 12]);
    // The producer of 10 died before it published, as if.
    poke(&name, seq(0), &0_u32.to_le_bytes());
    assert_eq!(queue.try_pop(), None);
    // It may just be at it: stuck is what stays so.
    assert_error!(queue.pop_within(NOW), OpError::Timeout { .. });
    assert_error!(queue.pop_within(LONG), OpError::Stuck { slot: 0, .. });
    let start = Instant::now();
    // Without a deadline it does not wait for ever.
    assert_error!(queue.pop(), OpError::Stuck { slot: 0, .. });
    assert!(start.elapsed() >= 5 * SHORT);
    let repair = queue.repair();
    assert_eq!((repair.kept, repair.dropped), (2, 1));
    assert_eq!((queue.pop(), queue.pop()), (Ok(11), Ok(12)));
    assert_eq!(queue.try_pop(), None);

    // A consumer that died before it freed its slot.
    for lap in 0..3 {
        queue.try_push_slice(&[20, 21, 22, 23]);
        let image = memory.image();
        let word = |at: u64| {
            let at = at as usize;
            u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
        };
        let head = word(at);
        poke(&name, at, &(head + 1).to_le_bytes());
        assert_eq!(queue.len(), 3);
        assert_eq!(queue.try_push(24), Err(Full(24)), "lap {lap}");
        let Err(refused) = queue.push_within(24, LONG) else {
            panic!("it is stuck")
        };
        assert_eq!(refused.value, 24);
        let stuck = u64::from(head % 4);
        assert!(matches!(refused.error, OpError::Stuck { slot, .. } if u64::from(slot) == stuck));
        // What is there can still be had.
        assert_eq!(queue.try_pop(), Some(21));
        let repair = queue.repair();
        // What the dead one had not taken out is there again.
        assert_eq!((repair.kept, repair.dropped), (3, 0));
        assert_eq!(queue.try_push_slice(&[30, 31]), 1);
        for element in [20, 22, 23, 30] {
            assert_eq!(queue.try_pop(), Some(element));
        }
    }
    let repair = queue.repair();
    assert_eq!(
        (repair.kept, repair.dropped),
        (0, 0),
        "there is nothing to do"
    );
}

#[test]
fn stuck_slices_are_reported() {
    let (name, memory) = impatient("stuck-slice");
    let queue = Queue::<u32>::create(&memory, "q", 4).unwrap();
    let at = offset_of(&memory, "q");
    // Slot 2 was claimed for a pop a lap ago, as if: the pushes stop there.
    poke(&name, at + 16 + 16 + 8, &(-1_i32).to_le_bytes());
    let refused = queue.push_slice_within(&[1, 2, 3, 4], LONG).unwrap_err();
    assert_eq!(refused.value, 2, "so many were pushed");
    assert!(matches!(refused.error, OpError::Stuck { slot: 2, .. }));
    let mut into = [0; 4];
    assert_eq!(queue.pop_slice_within(&mut into, NOW), Ok(2));
    assert_eq!(into, [1, 2, 0, 0]);
}

#[test]
fn stuck_stacks_are_reported_and_repaired() {
    let (name, memory) = impatient("stuck-stack");
    let stack = Stack::<u32>::create(&memory, "s", 5).unwrap();
    let at = offset_of(&memory, "s");
    // Elements of 4 bytes times 5, and 4 of padding.
    let state = |slot: u64| at + 16 + 24 + 4 * slot;
    for element in [10, 11, 12, 13] {
        stack.try_push(element).unwrap();
    }
    // In 1 a writer, in 2 a reader: 11 was never whole, 12 still is.
    poke(&name, state(1), &[1]);
    poke(&name, state(2), &[3]);
    assert_eq!(stack.try_pop(), Ok(Some(13)));
    assert_error!(stack.try_pop(), OpError::Stuck { slot: 2, .. });
    assert_error!(stack.peek(), OpError::Stuck { slot: 2, .. });
    assert_error!(stack.pop(), OpError::Stuck { slot: 2, .. });
    assert_error!(stack.pop_within(SHORT), OpError::Stuck { slot: 2, .. });
    assert_eq!(stack.len(), 3, "it was put back");
    // In 3 a pop that died after it lowered the counter.
    poke(&name, state(3), &[3]);
    let Err(TryPushError::Stuck(refused)) = stack.try_push(9) else {
        panic!("slot 3 is taken")
    };
    assert_eq!(refused.value, 9);
    assert_eq!(stack.push(9).unwrap_err().value, 9);
    let repair = stack.repair();
    assert_eq!((repair.kept, repair.dropped), (3, 1));
    for element in [13, 12, 10] {
        assert_eq!(stack.pop(), Ok(element));
    }
    assert_eq!(stack.try_pop(), Ok(None));
    for element in 0..5 {
        stack.try_push(element).unwrap();
    }
    assert!(stack.is_full());
}

#[test]
fn stuck_maps_are_reported_and_repaired() {
    let (name, memory) = impatient("stuck-map");
    let map = Map::<u32, u32>::create(&memory, "m", 4).unwrap();
    let at = offset_of(&memory, "m");
    // Slots of 12 bytes; multiples of 4 have the same home.
    for key in [0, 4, 8] {
        map.insert(key, key).unwrap();
    }
    let home = (0..4)
        .find(|slot| map_key(&memory, at, *slot) == Some(0))
        .unwrap();
    poke(&name, at + 16 + 12 * home, &[3]);
    assert_eq!(map.get(4), Ok(Some(4)), "what is found is given");
    assert_error!(map.get(0), OpError::Stuck { .. });
    assert_error!(map.get(12), OpError::Stuck { slot, .. } if u64::from(slot) == home);
    assert_error!(map.remove(12), OpError::Stuck { .. });
    assert_error!(map.contains_key(0), OpError::Stuck { .. });
    let Err(InsertError::Stuck(refused)) = map.insert(12, 1) else {
        panic!("its slot may be the stuck one")
    };
    assert_eq!(refused.value, (12, 1));
    assert_eq!(map.to_vec().len(), 2);
    let repair = map.repair();
    assert_eq!((repair.kept, repair.dropped), (2, 1));
    assert_eq!((map.get(0), map.len()), (Ok(None), 2));
    assert_eq!(map.insert(12, 1), Ok(Inserted::New));

    let set = Set::<u32>::create(&memory, "t", 2).unwrap();
    let at = offset_of(&memory, "t");
    set.insert(0).unwrap();
    poke(&name, at + 16, &[3]);
    poke(&name, at + 24, &[3]);
    assert_error!(set.contains(0), OpError::Stuck { .. });
    assert_error!(set.remove(0), OpError::Stuck { .. });
    let Err(InsertError::Stuck(refused)) = set.insert(7) else {
        panic!("it may be there")
    };
    assert_eq!(refused.value, 7);
    let repair = set.repair();
    assert_eq!((repair.kept, repair.dropped), (0, 2));
    assert_eq!(set.insert(7), Ok(true));
}

fn map_key(memory: &Memory, at: u64, slot: u64) -> Option<u32> {
    let image = memory.image();
    let at = (at + 16 + 12 * slot) as usize;
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    (word(at) == 1).then(|| word(at + 4))
}

#[test]
fn channels_are_repaired() {
    let (name, memory) = impatient("stuck-channel");
    for (base, queue, channel) in [
        ("c", "c_buffer", Channel::<u32>::create(&memory, "c", 2)),
        ("p", "p", Channel::create_python(&memory, "p", 2)),
    ] {
        let channel = channel.unwrap();
        channel.send(1).unwrap();
        channel.send(2).unwrap();
        let seq = offset_of(&memory, queue) + 16 + 8;
        poke(&name, seq, &0_u32.to_le_bytes());
        assert_error!(channel.receive_within(LONG), OpError::Stuck { .. });
        let repair = channel.repair();
        assert_eq!((repair.kept, repair.dropped), (1, 1), "{base}");
        assert_eq!(channel.receive(), Ok(2));
    }
    // A rendezvous: a receiver died while it copied, as if.
    let channel = Channel::<u32>::create(&memory, "r", 0).unwrap();
    poke(&name, offset_of(&memory, "r_slot"), &[2]);
    let refused = channel.send_within(1, SHORT).unwrap_err();
    assert!(refused.error.is_timeout());
    channel.repair();
    scope(|scope| {
        let receiver = scope.spawn(|| channel.receive_within(PATIENCE));
        channel.send_within(5, PATIENCE).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(5));
    });
}

// Synchronisation.

#[test]
fn semaphores_count() {
    let (_name, memory) = memory("semaphore");
    let seats = Semaphore::create(&memory, "s", 2, Some(2)).unwrap();
    let first = seats.acquire().unwrap();
    let second = seats.try_acquire().unwrap();
    assert!(seats.try_acquire().is_none());
    drop(first);
    assert_eq!(seats.count(), 1);
    second.forget();
    assert_eq!(seats.count(), 1, "it stays taken");
    seats.release().unwrap();
    assert_error!(seats.release(), OpError::Overflow { limit: 2, .. });
    assert_eq!(seats.count(), 2);
    // Given back by somebody else meanwhile: its guard adds nothing.
    let guard = seats.acquire().unwrap();
    seats.release().unwrap();
    drop(guard);
    assert_eq!(seats.count(), 2);

    let unbounded = Semaphore::create(&memory, "u", 0, None).unwrap();
    assert_eq!(unbounded.max(), None);
    unbounded.release_many(3).unwrap();
    unbounded.release_many(0).unwrap();
    unbounded.release_many(i32::MAX as u32 - 3).unwrap();
    for permits in [1, i32::MAX as u32, u32::MAX] {
        assert_error!(unbounded.release_many(permits), OpError::Overflow { .. });
    }
    assert_eq!(unbounded.count(), i32::MAX);
}

#[test]
fn semaphores_let_in_so_many() {
    each_sleep("seats", |memory| {
        let seats = Semaphore::create(memory, "s", 2, Some(2)).unwrap();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _seat = seats.acquire_within(PATIENCE).unwrap();
                        let now = inside.fetch_add(1, Ordering::Relaxed) + 1;
                        most.fetch_max(now, Ordering::Relaxed);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(most.into_inner() <= 2);
        assert_eq!((seats.count(), seats.waiting()), (2, 0));
    });
}

#[test]
fn mutexes_exclude() {
    each_sleep("mutex", |memory| {
        let lock = Mutex::create(memory, "m").unwrap();
        let value = Array::<u32>::create(memory, "a", 1).unwrap();
        scope(|scope| {
            for thread in 0..4 {
                let (lock, value) = (&lock, &value);
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        let guard = if thread == 0 {
                            loop {
                                if let Some(guard) = lock.try_lock() {
                                    break guard;
                                }
                                std::thread::yield_now();
                            }
                        } else {
                            lock.lock_within(PATIENCE).unwrap()
                        };
                        assert!(!guard.recovered());
                        let now = value.get(0).unwrap();
                        value.set(0, now + 1).unwrap();
                    }
                });
            }
        });
        assert_eq!(value.get(0), Some(4_000));
        assert!(!lock.is_locked());
    });
}

#[test]
fn a_mutex_is_given_back_by_force() {
    let (_name, memory) = memory("force-mutex");
    let lock = Mutex::create(&memory, "m").unwrap();
    assert!(!lock.force_unlock(), "it was free");
    let guard = lock.lock().unwrap();
    assert!(lock.force_unlock());
    let other = lock.try_lock().unwrap();
    drop(other);
    // And the guard that was robbed does no harm.
    drop(guard);
    assert!(!lock.is_locked());
    assert!(lock.try_lock().is_some());
    // Held by a guard that was lost: known, since it is this process.
    std::mem::forget(lock.lock().unwrap());
    assert_error!(lock.lock_within(NOW), OpError::Timeout { .. });
    assert!(lock.force_unlock());
}

#[test]
fn a_holder_without_a_mark_is_unknown() {
    let name = Name::new("unknown");
    let options =
        MemoryOptions::new(1 << 14).open_options(OpenOptions::default().native_marks(false));
    let memory = Memory::create_new(&name, options).unwrap();
    let lock = Mutex::create(&memory, "m").unwrap();
    let _guard = lock.lock().unwrap();
    // Seen by who leaves marks itself.
    let marked = Memory::open(&name).unwrap();
    for memory in [&memory, &marked] {
        let lock = Mutex::open(memory, "m").unwrap();
        assert_error!(lock.lock_within(NOW), OpError::HolderUnknown { .. });
    }
    let error = lock.lock_within(SHORT).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("force_unlock"));
}

#[test]
fn readers_share_and_writers_exclude() {
    each_sleep("rwlock", |memory| {
        let lock = RwLock::create(memory, "rw").unwrap();
        let value = Array::<u64>::create(memory, "a", 2).unwrap();
        scope(|scope| {
            for thread in 0..4_u64 {
                let (lock, value) = (&lock, &value);
                scope.spawn(move || {
                    for round in 0..300 {
                        if thread < 2 {
                            let guard = lock.write_within(PATIENCE).unwrap();
                            assert!(!guard.recovered());
                            let now = value.get(0).unwrap();
                            value.set(0, now + 1).unwrap();
                            value.set(1, now + 1).unwrap();
                        } else {
                            let guard = lock.read_within(PATIENCE).unwrap();
                            assert!(!guard.recovered());
                            let nested = (round % 2 == 0).then(|| lock.try_read());
                            assert_eq!(value.get(0), value.get(1), "a writer was inside");
                            drop(nested);
                        }
                    }
                });
            }
        });
        assert_eq!(value.to_vec(), [600, 600]);
        assert_eq!((lock.readers(), lock.is_writing()), (0, false));
    });
}

#[test]
fn a_waiting_writer_holds_off_new_readers() {
    let (_name, memory) = memory("preference");
    let lock = RwLock::create(&memory, "rw").unwrap();
    let reader = lock.read().unwrap();
    scope(|scope| {
        let writer = scope.spawn(|| lock.write_within(PATIENCE).map(drop));
        eventually("the writer waits", || lock.is_writing());
        eventually("no reader comes in", || lock.try_read().is_none());
        assert_error!(lock.read_within(SHORT), OpError::Timeout { .. });
        drop(reader);
        writer.join().unwrap().unwrap();
    });
    assert!(lock.try_read().is_some());
}

#[test]
fn more_readers_than_places_in_the_registry() {
    let (_name, memory) = memory("readers");
    let lock = RwLock::create(&memory, "rw").unwrap();
    // Two places of 63 holds each; what is beyond is merely not written down.
    let readers: Vec<_> = (0..200).map(|_| lock.read().unwrap()).collect();
    assert_eq!(lock.readers(), 200);
    assert!(lock.try_write().is_none());
    drop(readers);
    assert_eq!(lock.readers(), 0);
    drop(lock.try_write().unwrap());
    let marker = offset_of(&memory, "rw") as usize;
    assert_eq!(memory.image()[marker..marker + 8], [0; 8]);
}

#[test]
fn a_read_write_lock_is_freed_by_force() {
    let (name, memory) = memory("force-rwlock");
    let lock = RwLock::create(&memory, "rw").unwrap();
    std::mem::forget(lock.read().unwrap());
    std::mem::forget(lock.read().unwrap());
    assert!(lock.try_write().is_none());
    lock.force_release_readers();
    assert_eq!(lock.readers(), 0);
    std::mem::forget(lock.try_write().unwrap());
    assert!(lock.try_read().is_none() && lock.try_write().is_none());
    lock.force_release_writer();
    assert!(lock.try_read().is_some() && lock.try_write().is_some());
    // A reader of another implementation that died while it was counted.
    poke(&name, offset_of(&memory, "rw_rmtx"), &[0; 4]);
    assert_error!(lock.read_within(SHORT), OpError::HolderUnknown { .. });
    assert_error!(lock.write_within(SHORT), OpError::HolderUnknown { .. });
    assert!(!lock.is_writing(), "who gave up holds nobody off");
    lock.force_release_readers();
    drop(lock.read_within(NOW).unwrap());
    drop(lock.write_within(NOW).unwrap());
}

#[test]
fn barriers_meet_again_and_again() {
    each_sleep("barrier", |memory| {
        const ROUNDS: u32 = 100;
        let barrier = Barrier::create(memory, "b", 3).unwrap();
        let lasts = AtomicU32::new(0);
        let counts = [const { AtomicU32::new(0) }; ROUNDS as usize];
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for count in &counts {
                        count.fetch_add(1, Ordering::Relaxed);
                        if barrier.wait_within(PATIENCE).unwrap() {
                            lasts.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(count.load(Ordering::Relaxed), 3, "not all were there");
                    }
                });
            }
        });
        assert_eq!(lasts.into_inner(), ROUNDS);
        assert_eq!((barrier.arrived(), barrier.generation()), (0, ROUNDS));
    });
}

#[test]
fn barriers_survive_timeouts() {
    let (_name, memory) = memory("late");
    let barrier = Barrier::create(&memory, "b", 2).unwrap();
    let start = Instant::now();
    // One is patient, the other is not; in the end both meet.
    scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                while barrier.wait_within(Duration::from_micros(200)).is_err() {
                    assert!(start.elapsed() < PATIENCE);
                }
            }
        });
        for _ in 0..50 {
            barrier.wait_within(PATIENCE).unwrap();
        }
    });
    assert_eq!((barrier.arrived(), barrier.generation()), (0, 50));
    assert!(!barrier.try_wait(), "it would have to wait");
    scope(|scope| {
        let waiter = scope.spawn(|| barrier.wait_within(PATIENCE));
        eventually("it has arrived", || barrier.arrived() == 1);
        assert!(barrier.try_wait(), "it completes the meeting");
        assert_eq!(waiter.join().unwrap(), Ok(false));
        let waiter = scope.spawn(|| barrier.wait_within(PATIENCE));
        eventually("it has arrived", || barrier.arrived() == 1);
        barrier.force_release();
        assert_eq!(waiter.join().unwrap(), Ok(false));
    });
    assert_eq!((barrier.arrived(), barrier.generation()), (0, 52));
    let alone = Barrier::create(&memory, "alone", 1).unwrap();
    assert_eq!(alone.wait_within(NOW), Ok(true));
    assert!(alone.try_wait());
    assert_eq!((alone.generation(), alone.participants()), (2, 1));
}

#[test]
fn what_foreign_timeouts_leave_in_a_barrier() {
    let (name, memory) = impatient("negative");
    let barrier = Barrier::create(&memory, "b", 2).unwrap();
    let at = offset_of(&memory, "b");
    // -1 counts as nobody, so that the next meeting comes about.
    poke(&name, at, &(-1_i32).to_le_bytes());
    scope(|scope| {
        let waiter = scope.spawn(|| barrier.wait_within(PATIENCE));
        eventually("it has arrived", || barrier.arrived() == 1);
        assert_eq!(barrier.wait_within(PATIENCE), Ok(true));
        assert_eq!(waiter.join().unwrap(), Ok(false));
    });
    // The last one died before it let the others go.
    poke(&name, at, &2_i32.to_le_bytes());
    assert_error!(
        barrier.wait_within(PATIENCE),
        OpError::Damaged {
            field: "arrived",
            found: 2,
            ..
        }
    );
    barrier.force_release();
    assert_eq!(barrier.arrived(), 0);
}

#[test]
fn latches_open_once() {
    each_sleep("latch", |memory| {
        let latch = Latch::create(memory, "l", 3).unwrap();
        scope(|scope| {
            let waiters: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| latch.wait_within(PATIENCE)))
                .collect();
            for left in [2, 1, 0] {
                assert!(!latch.try_wait());
                assert_eq!(latch.count_down(1), left);
            }
            for waiter in waiters {
                waiter.join().unwrap().unwrap();
            }
        });
        assert_eq!((latch.count_down(7), latch.count_down(u32::MAX)), (0, 0));
        assert!(latch.try_wait());
        latch.wait().unwrap();
        latch.reset();
        assert_eq!((latch.count(), latch.initial()), (3, 3));
        assert_eq!(latch.count_down(0), 3);
        assert_eq!(latch.count_down(2), 1);
    });
}

#[test]
fn once_runs_once_and_again_after_a_panic() {
    each_sleep("once", |memory| {
        let once = Once::create(memory, "o").unwrap();
        let panics = catch_unwind(AssertUnwindSafe(|| once.call(|_| panic!("as wanted"))));
        assert!(panics.is_err() && !once.is_done());
        let runs = AtomicU32::new(0);
        scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let called = once.call_within(PATIENCE, |run| {
                        assert!(!run.recovered());
                        sleep(MOMENT);
                        runs.fetch_add(1, Ordering::Relaxed);
                    });
                    called.unwrap();
                    assert_eq!(runs.load(Ordering::Relaxed), 1, "it returned too early");
                });
            }
        });
        assert!(once.is_done());
        once.wait_within(NOW).unwrap();
        assert_eq!(once.call(|_| panic!("done")), Ok(OnceOutcome::WasDone));
        assert_eq!(
            once.try_call(|_| panic!("done")),
            Some(OnceOutcome::WasDone)
        );
        once.reset();
        assert_eq!(once.call(|_| ()), Ok(OnceOutcome::Ran));
    });
}

#[test]
fn who_waits_for_a_once_that_panics_runs_it() {
    let (_name, memory) = memory("once-panic");
    let once = Once::create(&memory, "o").unwrap();
    let inside = AtomicBool::new(false);
    scope(|scope| {
        let panics = scope.spawn(|| {
            catch_unwind(AssertUnwindSafe(|| {
                once.call(|_| {
                    inside.store(true, Ordering::Release);
                    sleep(20 * MOMENT);
                    panic!("as wanted")
                })
            }))
        });
        eventually("it runs", || inside.load(Ordering::Acquire));
        let called = once.call_within(PATIENCE, |_| ());
        assert_eq!(called, Ok(OnceOutcome::Ran));
        assert!(panics.join().unwrap().is_err());
    });
    assert!(once.is_done());
}

#[test]
fn events_let_one_or_all_go() {
    each_sleep("event", |memory| {
        let auto = Event::create(memory, "auto", EventMode::Auto).unwrap();
        let passed = AtomicU32::new(0);
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    auto.wait_within(PATIENCE).unwrap();
                    passed.fetch_add(1, Ordering::Relaxed);
                });
            }
            for number in 1..=3 {
                auto.signal();
                eventually("one passes", || passed.load(Ordering::Relaxed) == number);
            }
        });
        assert!(!auto.try_wait());
        // Signals accumulate, and a reset takes none of them back.
        auto.signal();
        auto.signal();
        auto.reset();
        assert!(!auto.is_signaled());
        assert!(auto.try_wait() && auto.try_wait() && !auto.try_wait());
        assert!(!auto.pulse() && !auto.try_wait(), "nobody waits");

        let manual = Event::create(memory, "manual", EventMode::Manual).unwrap();
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| manual.wait_within(PATIENCE).unwrap());
            }
            manual.signal();
        });
        assert!(manual.try_wait() && manual.is_signaled());
        manual.wait().unwrap();
        manual.reset();
        assert!(!manual.try_wait());
        assert!(manual.pulse() && !manual.is_signaled(), "nobody waits");
    });
}

#[test]
fn a_pulse_lets_go_who_waits() {
    let (_name, memory) = memory("pulse");
    for mode in [EventMode::Auto, EventMode::Manual] {
        let event = Event::create(&memory, &format!("{mode:?}"), mode).unwrap();
        scope(|scope| {
            let waiter = scope.spawn(|| event.wait_within(PATIENCE));
            let start = Instant::now();
            while !waiter.is_finished() {
                assert!(start.elapsed() < PATIENCE);
                event.pulse();
                std::thread::yield_now();
            }
            waiter.join().unwrap().unwrap();
        });
        assert!(!event.is_signaled());
    }
}

#[test]
fn monitors_wake_one_or_all() {
    each_sleep("monitor", |memory| {
        let monitor = Monitor::create(memory, "m").unwrap();
        let tokens = Array::<u32>::create(memory, "tokens", 2).unwrap();
        let waiting = || tokens.get(1).unwrap();
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let guard = monitor.lock_within(PATIENCE).unwrap();
                    assert!(!guard.recovered());
                    tokens.set(1, waiting() + 1).unwrap();
                    let _guard = guard
                        .wait_while(PATIENCE, || tokens.get(0) == Some(0))
                        .unwrap();
                    tokens.set(0, tokens.get(0).unwrap() - 1).unwrap();
                });
            }
            eventually("all wait", || {
                monitor.try_lock().is_some_and(|_guard| waiting() == 3)
            });
            let guard = monitor.lock_within(PATIENCE).unwrap();
            tokens.set(0, 1).unwrap();
            guard.notify_one();
            drop(guard);
            eventually("one took it", || {
                monitor
                    .try_lock()
                    .is_some_and(|_guard| tokens.get(0) == Some(0))
            });
            let guard = monitor.lock_within(PATIENCE).unwrap();
            tokens.set(0, 2).unwrap();
            guard.notify_all();
            drop(guard);
        });
        assert_eq!(tokens.get(0), Some(0));
        // Notifications that nobody waits for wake nobody later.
        monitor.notify_one();
        monitor.notify_all();
        let guard = monitor.lock().unwrap();
        let (guard, notified) = guard.wait_within(SHORT).unwrap();
        assert!(!notified);
        assert!(monitor.try_lock().is_none(), "it is locked again");
        drop(guard);
        std::mem::forget(monitor.lock().unwrap());
        assert!(monitor.force_unlock() && monitor.try_lock().is_some());
    });
}

#[test]
fn a_monitor_waiter_without_a_deadline_is_woken() {
    let (_name, memory) = memory("waiter");
    let monitor = Monitor::create(&memory, "m").unwrap();
    let woken = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            let guard = monitor.lock().unwrap().wait().unwrap();
            woken.store(true, Ordering::Relaxed);
            drop(guard);
        });
        eventually("it is woken", || {
            monitor.notify_one();
            woken.load(Ordering::Relaxed)
        });
    });
}

#[test]
fn signals_lose_no_change() {
    each_sleep("signal", |memory| {
        let small = Signal::create(memory, "small", 0_u64).unwrap();
        let large = Signal::create(memory, "large", [0_u64; 3]).unwrap();
        scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        small.update(|value| value + 1).unwrap();
                        large.update(|value| value.map(|it| it + 1)).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                let (mut seen, mut last) = (0, 0);
                while last < 900 {
                    let (version, [a, b, c]) = large.wait_for_change(seen, PATIENCE).unwrap();
                    assert!(version > seen && a == b && b == c, "torn");
                    assert_eq!(a, version, "value and version are of one moment");
                    (seen, last) = (version, a);
                }
            });
        });
        assert_eq!(small.snapshot(), Ok((900, 900)));
        assert_eq!((large.get(), large.version()), (Ok([900; 3]), 900));
        assert!(large.has_changed(0) && !large.has_changed(900));
        small.set(5).unwrap();
        assert_eq!((small.get(), small.version()), (Ok(5), 901));
    });
}

#[test]
fn a_panicking_update_changes_nothing_and_unlocks() {
    let (_name, memory) = memory("update");
    let signal = Signal::create(&memory, "s", 1_u32).unwrap();
    let panics = catch_unwind(AssertUnwindSafe(|| signal.update(|_| panic!("as wanted"))));
    assert!(panics.is_err());
    assert_eq!(signal.snapshot(), Ok((0, 1)));
    assert!(!signal.force_unlock(), "it is not locked");
    assert_eq!(signal.update(|value| value + 1), Ok(2));
}

#[test]
fn a_signal_locked_by_nobody_known_is_freed_by_force() {
    let (name, memory) = memory("force-signal");
    let signal = Signal::create(&memory, "s", 1_u32).unwrap();
    poke(&name, offset_of(&memory, "s_mtx"), &[0; 4]);
    assert_eq!(signal.get(), Ok(1), "small ones are read without the lock");
    assert_error!(signal.set(2), OpError::HolderUnknown { .. });
    assert_eq!((signal.get(), signal.version()), (Ok(1), 0));
    assert!(signal.force_unlock());
    signal.set(2).unwrap();
}

// Messages.

#[test]
fn closed_channels_refuse_and_drain() {
    each_wait("close", |memory| {
        let marks = memory_has_marks(memory);
        for (capacity, channel) in [
            (2, Channel::<u32>::create(memory, "buffered", 2)),
            (2, Channel::create_python(memory, "python", 2)),
            (0, Channel::create(memory, "rendezvous", 0)),
            (0, Channel::create_python(memory, "pymeeting", 0)),
        ] {
            let channel = &channel.unwrap();
            assert_eq!(channel.capacity(), capacity);
            for message in 0..capacity as u32 {
                channel.send(message).unwrap();
            }
            // Who waits is let go, also who waits for its turn: without marks an
            // unbuffered C++ channel has none, and bears one sender.
            let alone = capacity == 0 && channel.dialect() == Dialect::Cpp && !marks;
            scope(|scope| {
                let senders: Vec<_> = (8..if alone { 9 } else { 10 })
                    .map(|value| {
                        let send = move || channel.send_within(value, PATIENCE);
                        (value, scope.spawn(send))
                    })
                    .collect();
                sleep(SHORT);
                channel.close();
                for (value, sender) in senders {
                    let refused = sender.join().unwrap().unwrap_err();
                    assert!(refused.error.is_closed(), "{refused:?}");
                    assert_eq!(refused.value, value);
                }
            });
            assert!(channel.is_closed());
            for refused in [
                channel.send(7),
                channel.try_send(7),
                channel.send_within(7, SHORT),
            ] {
                let refused = refused.unwrap_err();
                assert!(refused.error.is_closed() && refused.value == 7);
            }
            assert_eq!(channel.len(), capacity);
            let all: Vec<u32> = channel.iter().collect();
            assert_eq!(all.len(), capacity);
            assert!(channel.is_empty());
            for ended in [channel.receive(), channel.try_receive()] {
                assert!(ended.unwrap_err().is_closed());
            }
            channel.close();
        }
        for channel in [
            Channel::<u8>::create(memory, "b2", 2),
            Channel::create_python(memory, "p2", 2),
            Channel::create(memory, "r2", 0),
            Channel::create_python(memory, "m2", 0),
        ] {
            let channel = channel.unwrap();
            scope(|scope| {
                let receiver = scope.spawn(|| channel.receive_within(PATIENCE));
                sleep(SHORT);
                channel.close();
                assert!(receiver.join().unwrap().unwrap_err().is_closed());
            });
        }
    });
}

#[test]
fn channels_pass_each_message_once() {
    const EACH: u32 = 300;
    each_sleep("messages", |memory| {
        for (name, channel) in [
            (
                "buffered",
                Channel::<[u32; 4]>::create(memory, "buffered", 4),
            ),
            ("python", Channel::create_python(memory, "python", 3)),
            ("rendezvous", Channel::create(memory, "rendezvous", 0)),
            ("pymeeting", Channel::create_python(memory, "pymeeting", 0)),
        ] {
            let channel = channel.unwrap();
            // Without marks nothing keeps more than one sender and one receiver
            // of an unbuffered C++ channel apart.
            let marks = memory_has_marks(memory);
            let pairs = if name == "rendezvous" && !marks { 1 } else { 2 };
            let seen = std::sync::Mutex::new(BTreeSet::new());
            let finished = AtomicU32::new(0);
            scope(|scope| {
                for sender in 0..pairs {
                    let (channel, finished) = (&channel, &finished);
                    scope.spawn(move || {
                        for number in 0..EACH {
                            let message = sender * EACH + number;
                            channel.send_within([message; 4], PATIENCE).unwrap();
                        }
                        if finished.fetch_add(1, Ordering::Relaxed) + 1 == pairs {
                            channel.close();
                        }
                    });
                }
                for _ in 0..pairs {
                    let (channel, seen) = (&channel, &seen);
                    scope.spawn(move || {
                        for [a, b, c, d] in channel.iter() {
                            assert!(a == b && b == c && c == d, "torn");
                            assert!(seen.lock().unwrap().insert(a), "{a} came twice");
                        }
                    });
                }
            });
            let all = seen.into_inner().unwrap().len();
            assert_eq!(all, (pairs * EACH) as usize, "{name}");
        }
    });
}

/// Marks count each overwritten slot of a set in the table's spare slot.
fn memory_has_marks(memory: &Memory) -> bool {
    let probe = Set::<u8>::open_or_create(memory, "probe", 2).unwrap();
    probe.insert(1).unwrap();
    let spare = entry_at(memory.max_entries() - 1) as usize;
    memory.image()[spare..spare + 32]
        .iter()
        .any(|byte| *byte != 0)
}

#[test]
fn a_rendezvous_is_kept() {
    let (_name, memory) = memory("rendezvous");
    for channel in [
        Channel::<u32>::create(&memory, "cpp", 0),
        Channel::create_python(&memory, "python", 0),
    ] {
        let channel = channel.unwrap();
        // A message that nobody took is taken back, not delivered later.
        assert!(
            channel
                .send_within(1, SHORT)
                .unwrap_err()
                .error
                .is_timeout()
        );
        assert!(channel.try_receive().unwrap_err().is_timeout());
        scope(|scope| {
            let receiver = scope.spawn(|| channel.receive_within(PATIENCE));
            // Tries succeed as soon as a receiver waits.
            eventually("it is taken", || channel.try_send(2).is_ok());
            assert_eq!(receiver.join().unwrap(), Ok(2));
        });
        assert!(channel.is_empty());
    }
}

#[test]
fn streams_end() {
    each_sleep("stream", |memory| {
        let mut feed = Stream::<u32>::create(memory, "s", 4).unwrap();
        let mut taker = Stream::<u32>::open(memory, "s").unwrap();
        assert_eq!((feed.capacity(), feed.dialect()), (4, Dialect::Cpp));
        scope(|scope| {
            let values = scope.spawn(move || taker.iter().collect::<Vec<_>>());
            for value in 0..1_000 {
                feed.emit_within(value, PATIENCE).unwrap();
            }
            feed.close();
            let expected: Vec<u32> = (0..1_000).collect();
            assert_eq!(values.join().unwrap(), expected);
        });
        assert_eq!(feed.sequence(), Some(1_000));
        assert_eq!(feed.try_emit(1), Err(Full(1)));
        for refused in [feed.emit(1), feed.emit_within(1, NOW)] {
            let refused = refused.unwrap_err();
            assert!(refused.error.is_closed() && refused.value == 1);
        }
        assert_eq!(feed.sequence(), Some(1_000));
        assert!(feed.is_closed() && feed.is_empty());
        assert!(feed.next().unwrap_err().is_closed());
        assert_eq!(feed.try_next(), None);

        // The end lets both sides go.
        let mut full = Stream::<u32>::create(memory, "full", 1).unwrap();
        full.try_emit(1).unwrap();
        let closer = Stream::<u32>::open(memory, "full").unwrap();
        scope(|scope| {
            let emitter = scope.spawn(move || full.emit_within(2, PATIENCE));
            sleep(SHORT);
            closer.close();
            assert!(emitter.join().unwrap().unwrap_err().error.is_closed());
        });

        let mut python = Stream::<u32>::create_python(memory, "p", 2).unwrap();
        python.emit(1).unwrap();
        python.close();
        assert!(!python.is_closed(), "that format has no end");
        assert_eq!((python.sequence(), python.len()), (None, 1));
        assert_eq!(python.next(), Ok(1));
        // It is a ring, and nothing else.
        let mut ring = Ring::<u32>::open(memory, "p").unwrap();
        ring.try_write(5).unwrap();
        assert_eq!(python.next_within(NOW), Ok(5));
    });
}

#[test]
fn streams_without_values_count() {
    each_sleep("void", |memory| {
        let stream = VoidStream::create(memory, "v").unwrap();
        scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut seen = 0;
                while seen < 500 {
                    let now = stream.wait_for_change(seen, PATIENCE).unwrap();
                    assert!(now > seen);
                    seen = now;
                }
                stream.wait_for_change(seen, PATIENCE)
            });
            for _ in 0..500 {
                assert!(stream.emit());
            }
            stream.close();
            assert!(waiter.join().unwrap().unwrap_err().is_closed());
        });
        assert!(!stream.emit() && stream.is_closed());
        assert_eq!(stream.count(), 500);
        assert_eq!(stream.wait_for_change(499, NOW), Ok(500));
    });
}

// Values.

#[test]
fn futures_come_once() {
    each_sleep("future", |memory| {
        for (name, future) in [
            ("cpp", Future::<u32>::create(memory, "cpp")),
            ("python", Future::create_python(memory, "python")),
        ] {
            let future = future.unwrap();
            assert_eq!(
                (future.state(), future.try_get()),
                (FutureState::Pending, Ok(None))
            );
            scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| assert_eq!(future.get_within(PATIENCE), Ok(42)));
                }
                sleep(MOMENT);
                assert_eq!(future.set(42), Ok(SetOutcome::Set));
            });
            assert!(future.is_ready());
            assert_error!(future.set(43), OpError::AlreadyDone { .. });
            assert_error!(future.set_error("late"), OpError::AlreadyDone { .. });
            assert_eq!((future.get(), future.try_get()), (Ok(42), Ok(Some(42))));
            let opened = Future::<u32>::open(memory, name).unwrap();
            assert_eq!(opened.get_within(NOW), Ok(42));
            opened.reset();
            assert_eq!(future.state(), FutureState::Pending);
            assert_eq!(future.set(7), Ok(SetOutcome::Set));
        }
    });
}

#[test]
fn a_futures_error_text_is_cut_at_255_bytes() {
    let (_name, memory) = memory("text");
    for (number, (text, expected)) in [
        (String::new(), 0),
        ("x".repeat(255), 255),
        ("x".repeat(256), 255),
        ("x".repeat(10_000), 255),
        // Not in the middle of a character.
        ("é".repeat(128), 254),
        (format!("x{}", "é".repeat(200)), 255),
        (format!("xx{}", "日".repeat(100)), 254),
    ]
    .into_iter()
    .enumerate()
    {
        let future = Future::<u8>::create(&memory, &number.to_string()).unwrap();
        assert_eq!(future.set_error(&text), Ok(SetOutcome::Set));
        assert_eq!(future.state(), FutureState::Failed);
        for failed in [future.get_within(NOW), future.try_get().map(|_| 0)] {
            let Err(OpError::Failed { message, .. }) = failed else {
                panic!("{failed:?}")
            };
            assert_eq!(message, text[..expected]);
        }
        // And a text that came before leaves nothing.
        future.reset();
        future.set_error("short").unwrap();
        assert_error!(future.get(), OpError::Failed { message, .. } if message == "short");
    }
}

#[test]
fn a_future_that_nobody_known_is_setting() {
    let (name, memory) = memory("setting");
    let future = Future::<u32>::create(&memory, "f").unwrap();
    let at = offset_of(&memory, "f");
    poke(&name, at, &1_u32.to_le_bytes());
    assert_eq!(future.state(), FutureState::Computing);
    assert_eq!(future.try_get(), Ok(None));
    assert_error!(future.set(1), OpError::HolderUnknown { .. });
    assert_error!(future.set_error("no"), OpError::HolderUnknown { .. });
    assert_error!(future.get_within(SHORT), OpError::Timeout { .. });
    future.reset();
    assert_eq!(future.set(1), Ok(SetOutcome::Set));
    poke(&name, at, &4_u32.to_le_bytes());
    assert_error!(
        Future::<u32>::open(&memory, "f"),
        Error::Structure {
            source: ImageError::Field { field: "state", .. },
            ..
        }
    );
}

#[test]
fn lazy_values_of_every_kind() {
    let (_name, memory) = memory("lazy");
    let m = &memory;
    let a = Lazy::constant(m, "a", 6_i32).unwrap();
    let b = Lazy::constant(m, "b", 7_i32).unwrap();
    assert_eq!((a.peek(), a.force()), (Ok(Some(6)), Ok(6)));
    let sum = Lazy::sum(m, "sum", &a, &b).unwrap();
    let product = Lazy::product(m, "product", &a, &b).unwrap();
    let negative = Lazy::negative(m, "negative", &product).unwrap();
    assert_eq!(product.peek(), Ok(Some(42)), "an operand is forced");
    for (name, lazy, value) in [
        ("sum", sum, 13),
        ("product", product, 42),
        ("negative", negative, -42),
    ] {
        assert_eq!(lazy.force(), Ok(value));
        let opened = Lazy::<i32>::open(m, name).unwrap();
        assert_eq!(
            (opened.peek(), opened.compute_count()),
            (Ok(Some(value)), Some(1))
        );
        opened.reset();
        assert_eq!(lazy.peek(), Ok(None));
        assert_eq!(opened.force_within(NOW), Ok(value));
        assert_eq!(lazy.compute_count(), Some(2));
        // A function is not asked where the operation is known.
        lazy.reset();
        let forced = lazy.force_with(|_| Ok::<_, String>(99));
        assert!(
            forced == Ok(value) || forced == Ok(99),
            "{name}: {forced:?}"
        );
    }
    // Integers wrap around, as in C++.
    let most = Lazy::constant(m, "most", i32::MIN).unwrap();
    let around = Lazy::sum(m, "around", &most, &most).unwrap();
    assert_eq!(around.force(), Ok(0));
    assert_eq!(
        Lazy::negative(m, "min", &most).unwrap().force(),
        Ok(i32::MIN)
    );
    assert_eq!(
        Lazy::product(m, "square", &most, &most).unwrap().force(),
        Ok(0)
    );
    let half = Lazy::constant(m, "half", 0.5).unwrap();
    assert_eq!(
        Lazy::product(m, "quarter", &half, &half).unwrap().force(),
        Ok(0.25)
    );

    // An operand that cannot be computed.
    let failed = Lazy::<i32>::external(m, "failed").unwrap();
    let text = "Complex operations not yet implemented";
    assert_error!(failed.force(), OpError::Failed { message, .. } if message == text);
    assert_error!(Lazy::sum(m, "none", &a, &failed), Error::Unusable { .. });
    assert!(!m.contains("none"));
    assert_error!(
        failed.force_with(|_| Ok::<_, String>(1)),
        OpError::Failed { .. }
    );
    failed.reset();
    assert_eq!(failed.force_with(|_| Ok::<_, String>(1)), Ok(1));
}

#[test]
fn lazy_functions_run_once() {
    each_sleep("function", |memory| {
        for lazy in [
            Lazy::<u64>::external(memory, "cpp"),
            Lazy::create_python(memory, "python", None),
        ] {
            let lazy = lazy.unwrap();
            let panics = catch_unwind(AssertUnwindSafe(|| {
                lazy.force_with(|_| -> Result<u64, String> { panic!("as wanted") })
            }));
            assert!(panics.is_err());
            assert_eq!(lazy.peek(), Ok(None), "it can be computed again");
            let runs = AtomicU32::new(0);
            scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let value = lazy.force_with_within(PATIENCE, |died| {
                            assert!(!died);
                            sleep(MOMENT);
                            runs.fetch_add(1, Ordering::Relaxed);
                            Ok::<_, String>(5)
                        });
                        assert_eq!(value, Ok(5));
                    });
                }
            });
            assert_eq!(runs.into_inner(), 1);
            lazy.reset();
            let failed = lazy.force_with(|_| Err::<u64, _>("no such file"));
            assert_error!(failed, OpError::Failed { message, .. } if message == "no such file");
            assert_error!(lazy.force(), OpError::Failed { message, .. } if message == "no such file");
            assert_error!(lazy.peek(), OpError::Failed { .. });
            lazy.reset();
            let long = "é".repeat(1000);
            let failed = lazy.force_with(|_| Err::<u64, _>(&long));
            assert_error!(failed, OpError::Failed { .. });
            assert_error!(lazy.peek(), OpError::Failed { message, .. }
                if long.starts_with(&message) && (250..=254).contains(&message.len()));
        }
        let known = Lazy::create_python(memory, "known", Some(3_u8)).unwrap();
        assert_eq!((known.force(), known.dialect()), (Ok(3), Dialect::Python));
    });
}

#[test]
fn a_lazy_value_that_nobody_known_computes() {
    let (name, memory) = memory("computing");
    let a = Lazy::constant(&memory, "a", 2_u32).unwrap();
    let sum = Lazy::sum(&memory, "sum", &a, &a).unwrap();
    poke(&name, offset_of(&memory, "sum"), &[1]);
    assert_eq!(sum.peek(), Ok(None));
    // Any process can do it, so nobody waits for a dead one.
    assert_eq!(sum.force(), Ok(4));
    assert_eq!(sum.peek(), Ok(Some(4)));
    let python = Lazy::<u32>::create_python(&memory, "python", None).unwrap();
    poke(&name, offset_of(&memory, "python"), &[1]);
    assert_error!(python.force_within(SHORT), OpError::HolderUnknown { .. });
    let mine = python.force_with_within(SHORT, |_| Ok::<_, String>(1));
    assert_error!(mine, OpError::HolderUnknown { .. });
    python.reset();
    assert_eq!(python.force_with(|_| Ok::<_, String>(1)), Ok(1));
}

#[test]
fn lazy_truth() {
    let (_name, memory) = memory("truth");
    let m = &memory;
    for (number, (a, b)) in [(false, false), (false, true), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        let name = |what: &str| format!("{what}{number}");
        let left = LazyBool::constant(m, &name("a"), a).unwrap();
        let right = LazyBool::constant(m, &name("b"), b).unwrap();
        for (what, lazy, value) in [
            ("and", LazyBool::and(m, &name("and"), &left, &right), a && b),
            ("or", LazyBool::or(m, &name("or"), &left, &right), a || b),
            ("xor", LazyBool::xor(m, &name("xor"), &left, &right), a != b),
            ("not", LazyBool::not(m, &name("not"), &left), !a),
        ] {
            let lazy = lazy.unwrap();
            assert_eq!(lazy.peek(), None);
            let opened = LazyBool::open(m, &name(what)).unwrap();
            assert_eq!(opened.force(), value, "{what} {a} {b}");
            assert_eq!(lazy.peek(), Some(value));
        }
    }
}

// Element types at run time.

#[test]
fn dynamic_arrays_read_and_write_values() {
    let (_name, memory) = memory("dyn-array");
    let array = DynArray::create(&memory, "a", 4, "<i2").unwrap();
    assert_eq!((array.len(), array.dtype().size()), (4, 2));
    array.set(0, -5).unwrap();
    array.write(1, &[1.into(), 2_u64.into()]).unwrap();
    let before = memory.image();
    assert_error!(array.set(3, 1 << 20), DynError::Value { .. });
    assert_error!(array.set(3, "text"), DynError::Value { .. });
    assert_error!(array.set(4, 1), DynError::Bounds(_));
    assert_error!(array.set(usize::MAX, 1), DynError::Bounds(_));
    let wrong = array.write(0, &[1.into(), Value::from("text")]);
    assert_error!(wrong, DynError::Value { .. });
    assert_error!(array.write(3, &[1.into(), 2.into()]), DynError::Bounds(_));
    assert_error!(array.read(2..5), DynError::Bounds(_));
    assert_error!(array.fill(0.5), DynError::Value { .. });
    assert_eq!(memory.image(), before, "nothing was stored");
    assert_eq!(array.get(4), None);
    assert_eq!(array.read(..2).unwrap(), [Value::Int(-5), Value::Int(1)]);
    assert_eq!(array.numbers().unwrap(), [-5.0, 1.0, 2.0, 0.0]);
    assert_eq!(array.iter().count(), 4);
    // What is written so is read by type, and the other way round.
    let typed = Array::<i16>::open(&memory, "a").unwrap();
    assert_eq!(typed.to_vec(), [-5, 1, 2, 0]);
    typed.set(3, 9).unwrap();
    assert_eq!(array.get(3), Some(Value::Int(9)));
    array.fill(3).unwrap();
    assert_eq!(typed.to_vec(), [3; 4]);
    let c = Array::<f64>::create_c(&memory, "c", 2).unwrap();
    c.set(1, 2.5).unwrap();
    let opened = DynArray::open(&memory, "c", "f8").unwrap();
    assert_eq!(opened.numbers().unwrap(), [0.0, 2.5]);

    let points = "[('name', 'S4'), ('at', [('lat', 'f4'), ('lon', 'f4')]), ('id', 'u1')]";
    let array = DynArray::open_or_create(&memory, "points", 3, points).unwrap();
    assert_eq!(array.dtype().size(), 13);
    let at = Value::from(vec![1.5.into(), 2.5.into()]);
    array
        .set(0, vec!["ab".into(), at.clone(), 7.into()])
        .unwrap();
    assert_eq!(array.get_field(0, "name"), Some("ab".into()));
    assert_eq!(array.get_field(0, "at"), Some(at));
    array.set_field(2, "id", 9).unwrap();
    assert_eq!(array.column("id").unwrap(), [7.0, 0.0, 9.0]);
    assert_eq!(
        array.get_field(0, "name"),
        Some("ab".into()),
        "the others stay"
    );
    assert_error!(array.set_field(3, "id", 1), DynError::Bounds(_));
    assert_error!(array.set_field(usize::MAX, "id", 1), DynError::Bounds(_));
    assert_error!(array.set_field(0, "id", 256), DynError::Value { .. });
    assert_error!(array.set_field(0, "no", 1), DynError::NoSuchField { field, .. } if field == "no");
    assert_error!(array.column("no"), DynError::NoSuchField { .. });
    assert_error!(array.column("name"), DynError::NotANumber { .. });
    assert_error!(array.column("at"), DynError::NotANumber { .. });
    assert_error!(array.numbers(), DynError::NotANumber { .. });
    assert_eq!(
        (array.get_field(0, "no"), array.get_field(9, "id")),
        (None, None)
    );
    let wrong = array.set(0, vec![1.into()]);
    assert_error!(wrong, DynError::Value { .. });
}

#[test]
fn dynamic_containers_pass_values_on() {
    let (_name, memory) = memory("dyn");
    let m = &memory;
    let queue = DynQueue::open_or_create(m, "q", 2, "S3").unwrap();
    assert!(queue.is_empty() && queue.capacity() == 2);
    queue.try_push("abc").unwrap();
    queue.push_within("d", NOW).unwrap();
    assert_error!(queue.try_push("x"), DynError::Full { .. });
    assert_error!(queue.try_push("four"), DynError::Value { .. });
    assert_error!(queue.push_within(5, NOW), DynError::Value { .. });
    assert_eq!((queue.len(), queue.try_pop()), (2, Some("abc".into())));
    let typed = Queue::<[u8; 3]>::open(m, "q").unwrap();
    assert_eq!(typed.try_pop(), Some(*b"d\0\0"));
    assert_eq!(queue.try_pop(), None);
    assert_eq!(queue.repair().kept, 0);

    let stack = DynStack::open_or_create(m, "s", 2, "f4").unwrap();
    stack.try_push(1.5).unwrap();
    stack.try_push(2).unwrap();
    assert_error!(stack.try_push(3), DynError::Full { .. });
    assert_error!(stack.try_push("x"), DynError::Value { .. });
    assert_eq!((stack.len(), stack.capacity()), (2, 2));
    assert_eq!(stack.peek(), Ok(Some(2.0.into())));
    assert_eq!(stack.try_pop(), Ok(Some(2.0.into())));
    assert_eq!(stack.pop_within(NOW), Ok(1.5.into()));
    assert_eq!((stack.try_pop(), stack.peek()), (Ok(None), Ok(None)));
    assert!(stack.is_empty() && stack.repair().kept == 0);

    let mut ring = DynRing::open_or_create(m, "r", 2, "bool").unwrap();
    ring.try_write(true).unwrap();
    ring.write_within(false, NOW).unwrap();
    assert_error!(ring.try_write(true), DynError::Full { .. });
    assert_error!(ring.try_write("x"), DynError::Value { .. });
    assert_eq!((ring.len(), ring.capacity()), (2, 2));
    assert_eq!(ring.try_read(), Some(true.into()));
    assert_eq!(ring.read_within(NOW), Ok(false.into()));
    assert!(ring.try_read().is_none() && ring.is_empty());
}

#[test]
fn dynamic_maps_find_what_typed_ones_stored() {
    let (_name, memory) = memory("dyn-map");
    let m = &memory;
    for (dialect, name) in [(Dialect::Cpp, "cpp"), (Dialect::Python, "python")] {
        let dynamic = match dialect {
            Dialect::Cpp => DynMap::create(m, name, 4, "S8", "i4"),
            Dialect::Python => DynMap::create_python(m, name, 4, "S8", "i4"),
        };
        let dynamic = dynamic.unwrap();
        assert_eq!((dynamic.dialect(), dynamic.capacity()), (dialect, 4));
        assert_eq!(dynamic.insert("one", 1), Ok(Inserted::New));
        assert_eq!(dynamic.insert("one", 11), Ok(Inserted::Updated));
        let typed = match dialect {
            Dialect::Cpp => Map::<[u8; 8], i32>::open(m, name),
            Dialect::Python => Map::open_python(m, name),
        };
        let typed = typed.unwrap();
        assert_eq!(typed.get(byte_key("one").unwrap()), Ok(Some(11)));
        typed.insert(byte_key("two").unwrap(), 2).unwrap();
        assert_eq!(dynamic.get("two"), Ok(Some(2.into())));
        assert_eq!(dynamic.contains_key("three"), Ok(false));
        assert_error!(dynamic.get("a key of 18 bytes."), DynError::Value { .. });
        assert_error!(dynamic.insert("x", "y"), DynError::Value { .. });
        dynamic.insert("three", 3).unwrap();
        dynamic.insert("four", 4).unwrap();
        assert_error!(dynamic.insert("five", 5), DynError::Full { .. });
        assert_eq!((dynamic.len(), dynamic.to_vec().len()), (4, 4));
        assert_eq!(dynamic.remove("one"), Ok(true));
        assert_eq!(dynamic.repair().kept, 3);
        dynamic.clear();
        assert!(dynamic.is_empty());
        let (key, value) = dynamic.dtypes();
        assert_eq!((key.size(), value.size()), (8, 4));
    }
    let opened = DynMap::open_or_create(m, "cpp", 9, "S8", "i4").unwrap();
    assert_eq!(opened.capacity(), 4);
    assert!(DynMap::open(m, "cpp", "S8", "i8").is_err());
    assert!(DynMap::open_python(m, "python", "S9", "i4").is_err());
}

#[test]
fn errors_say_what_to_do() {
    let (_name, memory) = memory("errors");
    let error = Array::<u8>::open(&memory, "temperature").unwrap_err();
    let text = error.to_string();
    assert!(text.contains("array \"temperature\"") && text.contains("create it first"));
    let queue = Queue::<u8>::create(&memory, "jobs", 2).unwrap();
    let text = queue.pop_within(NOW).unwrap_err().to_string();
    assert!(text.contains("pop from queue \"jobs\""), "{text}");
    let error = Queue::<u16>::open(&memory, "jobs").unwrap_err();
    let cause = std::error::Error::source(&error)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("1 bytes, 2 were expected"), "{cause}");
    let refused = queue.push_slice_within(&[0; 9], NOW).unwrap();
    assert_eq!(refused, 2);
    let refused = queue.push_within(1, NOW).unwrap_err();
    assert!(refused.to_string().contains("in time"));
    assert!(format!("{refused:?}").contains("Timeout"));
    assert!(queue.try_push(1).unwrap_err().to_string().contains("full"));
}
