//! The images that the C++, Python, C and Go implementations left behind: each
//! one is read through the public interface, and each one is written by the same
//! steps, to the byte.
#![cfg(all(not(loom), target_os = "linux"))]
#![expect(
    clippy::needless_pass_by_value,
    reason = "results are given away to be judged"
)]

use polyshm_testkit::Name;
use polyshm_wire::zeroipc::{TableHeader, entry_at};
use polyshm_zeroipc::{
    Array, ArrayForm, Barrier, Channel, Dialect, Error, Event, EventMode, FromBytes, Full, Future,
    FutureState, Immutable, InsertError, Inserted, IntoBytes, Latch, Lazy, LazyBool, Map, Memory,
    MemoryOptions, Monitor, Mutex, Once, OnceOutcome, OpError, OpenOptions, Pool, Queue, Ring,
    RwLock, Semaphore, Set, SetOutcome, Signal, Stack, Stream, TryPushError, VoidStream, byte_key,
};
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

/// For what comes at once unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(1);
const IMAGES: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
#[repr(C)]
struct Point {
    x: f32,
    y: f32,
    z: f32,
}

/// A C++ struct with padding, which stands here as fields of its own.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
#[repr(C)]
struct Mixed {
    a: u8,
    pad: [u8; 7],
    b: f64,
    c: i16,
    end: [u8; 6],
}

impl Mixed {
    const fn new(a: u8, b: f64, c: i16) -> Self {
        Self {
            a,
            pad: [0; 7],
            b,
            c,
            end: [0; 6],
        }
    }
}

const POINTS: [Point; 3] = [
    Point {
        x: 1.0,
        y: 2.0,
        z: 3.0,
    },
    Point {
        x: 4.0,
        y: 5.0,
        z: 6.0,
    },
    Point {
        x: 7.0,
        y: 8.0,
        z: 9.0,
    },
];
const MIXED: [Mixed; 2] = [Mixed::new(1, 0.5, -1), Mixed::new(2, 1.5, -2)];
/// 3.14 as a C++ compiler rounds it.
const F32S: [f32; 5] = [1.0, 2.5, f32::from_bits(0x4048_f5c3), -1.0, 0.0];
const NAME31: &str = "abcdefghijklmnopqrstuvwxyz01234";

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// An image and what the manifest says of it.
struct Image {
    bytes: Vec<u8>,
    entry: Value,
}

impl Image {
    /// Bytes that differ between two runs of the reference: times.
    fn ignored(&self) -> Vec<(usize, usize)> {
        let ranges = self.entry.get("ignore_ranges").and_then(Value::as_array);
        ranges
            .into_iter()
            .flatten()
            .map(|range| (number(&range[0]) as usize, number(&range[1]) as usize))
            .collect()
    }
}

fn images() -> BTreeMap<String, Image> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../polyshm-wire/tests/vectors/zeroipc");
    let read = |file: &str| std::fs::read(folder.join(file)).expect(file);
    let manifest: Value =
        serde_json::from_slice(&read("manifest.json")).expect("the manifest is JSON");
    let entries = manifest["vectors"].as_array().expect("a list");
    let images: BTreeMap<_, _> = entries
        .iter()
        .map(|entry| {
            let file = text(&entry["file"]);
            let image = Image {
                bytes: read(file),
                entry: entry.clone(),
            };
            (file.to_owned(), image)
        })
        .collect();
    assert_eq!(images.len(), IMAGES);
    images
}

fn is_python(file: &str) -> bool {
    file.ends_with(".py.bin")
}

fn dialect_of(file: &str) -> Dialect {
    if is_python(file) {
        Dialect::Python
    } else {
        Dialect::Cpp
    }
}

// Reading.

fn timeout<T: std::fmt::Debug>(result: Result<T, OpError>) {
    assert!(matches!(result, Err(OpError::Timeout { .. })), "{result:?}");
}

/// The holder is a process that never was one of ours.
fn unknown<T: std::fmt::Debug>(result: Result<T, OpError>) {
    assert!(
        matches!(result, Err(OpError::HolderUnknown { .. })),
        "{result:?}"
    );
}

fn queue_gives<T: polyshm_zeroipc::Element + PartialEq + std::fmt::Debug>(
    memory: &Memory,
    name: &str,
    capacity: usize,
    expected: &[T],
) {
    let queue = Queue::<T>::open(memory, name).unwrap();
    assert_eq!(
        (queue.capacity(), queue.len()),
        (capacity, expected.len()),
        "{name}"
    );
    assert_eq!(queue.is_full(), expected.len() == capacity);
    for element in expected {
        assert_eq!(queue.try_pop().as_ref(), Some(element));
    }
    assert_eq!(queue.try_pop(), None);
    // And it works on: a lap and more.
    for element in expected.iter().cycle().take(3 * capacity) {
        queue.try_push(*element).unwrap();
        assert_eq!(queue.try_pop().as_ref(), Some(element));
    }
}

fn stack_gives<T: polyshm_zeroipc::Element + PartialEq + std::fmt::Debug>(
    memory: &Memory,
    name: &str,
    capacity: usize,
    expected: &[T],
) {
    let stack = Stack::<T>::open(memory, name).unwrap();
    assert_eq!((stack.capacity(), stack.len()), (capacity, expected.len()));
    assert_eq!(stack.is_full(), expected.len() == capacity);
    for element in expected.iter().rev() {
        assert_eq!(stack.peek().unwrap().as_ref(), Some(element));
        assert_eq!(stack.try_pop().unwrap().as_ref(), Some(element));
    }
    assert_eq!(stack.try_pop().unwrap(), None);
    assert_eq!(stack.peek().unwrap(), None);
}

fn ring_gives<T: polyshm_zeroipc::Element + PartialEq + std::fmt::Debug>(
    memory: &Memory,
    name: &str,
    capacity: usize,
    expected: &[T],
) {
    let mut ring = Ring::<T>::open(memory, name).unwrap();
    assert_eq!((ring.capacity(), ring.len()), (capacity, expected.len()));
    for element in expected {
        assert_eq!(ring.peek().as_ref(), Some(element));
        assert_eq!(ring.try_read().as_ref(), Some(element));
    }
    assert_eq!(ring.try_read(), None);
    assert!(ring.is_empty());
}

fn read_arrays(file: &str, memory: &Memory) {
    match file {
        "full_table.cpp.bin" | "full_table.c.bin" => {
            let form = if file.contains(".cpp.") {
                ArrayForm::Plain
            } else {
                ArrayForm::C
            };
            for i in 0..4 {
                let array = Array::<i32>::open(memory, &format!("a{i}")).unwrap();
                assert_eq!((array.form(), array.to_vec()), (form, vec![i, -i]));
            }
            let fifth = Array::<i32>::create(memory, "a4", 2);
            assert!(matches!(
                fifth,
                Err(Error::TableFull {
                    needed: 1,
                    free: 0,
                    slots: 4,
                    ..
                })
            ));
        }
        "dup_and_long_name.cpp.bin" => {
            let array = Array::<i32>::open(memory, "dup").unwrap();
            assert_eq!(array.to_vec(), [0, 0]);
            let again = Array::<i32>::create(memory, "dup", 2);
            assert!(matches!(again, Err(Error::AlreadyExists { .. })));
        }
        "name31.bin" => {
            let array = Array::<u8>::open(memory, NAME31).unwrap();
            assert_eq!(array.to_vec(), [1, 2, 3]);
            assert_eq!(Array::<i32>::open(memory, "after").unwrap().to_vec(), [7]);
        }
        "name_utf8_overlong.py.bin" => {
            // In the table, and never found: not by what stands there, and not
            // by what it was to be.
            assert_eq!(memory.entries()[0].name, "é".repeat(16));
            for len in [15, 16, 20] {
                let name = "é".repeat(len);
                assert!(!memory.contains(&name));
                let opened = Array::<i32>::open(memory, &name);
                assert!(matches!(opened, Err(Error::NotFound { .. })), "{opened:?}");
            }
            assert!(!memory.describe().unwrap().entries[0].problems.is_empty());
            // What comes after it is not in its way.
            Array::<i32>::create(memory, "next", 2).unwrap();
            assert_eq!(memory.entries()[1].offset, 816);
        }
        "array_f32.bin" => {
            assert_eq!(Array::<f32>::open(memory, "f32").unwrap().to_vec(), F32S);
        }
        "array_f64.bin" => {
            let array = Array::<f64>::open(memory, "f64").unwrap();
            assert_eq!(array.to_vec(), [1.5, -2.25, 1e300]);
        }
        "array_i32.cpp.bin" | "array_i32.c.bin" => {
            let array = Array::<i32>::open(memory, "i32").unwrap();
            assert_eq!(array.form() == ArrayForm::C, file.contains(".c."));
            let squares: Vec<_> = (0..10).map(|i| i * i).collect();
            assert_eq!(array.to_vec(), squares);
            assert_eq!(array.iter().collect::<Vec<_>>(), squares);
        }
        "array_struct.bin" => {
            let array = Array::<Point>::open(memory, "pts").unwrap();
            assert_eq!(array.to_vec(), POINTS);
        }
        "array_struct_padded.bin" => {
            let array = Array::<Mixed>::open(memory, "mix").unwrap();
            assert_eq!(array.to_vec(), MIXED);
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_queues(file: &str, memory: &Memory) {
    match file {
        "queue_i32_fresh.bin" | "queue_i32_drained.bin" => {
            queue_gives::<i32>(memory, "q", 4, &[]);
        }
        "queue_i32_push3.bin" => queue_gives(memory, "q", 4, &[1, 2, 3]),
        "queue_i32_wrapped.bin" => {
            let queue = Queue::<i32>::open(memory, "q").unwrap();
            assert_eq!(queue.try_push(7), Err(Full(7)));
            queue_gives(memory, "q", 4, &[3, 4, 5, 6]);
        }
        "queue_i32_cap5.bin" => queue_gives(memory, "q", 8, &[-7]),
        "queue_u8_cap3.bin" => queue_gives(memory, "q", 4, &[0xAA_u8]),
        "queue_3byte.cpp.bin" => queue_gives(memory, "q", 2, &[[1_u8, 2, 3], [4, 5, 6]]),
        "queue_12byte_cap1.cpp.bin" => {
            let refused = Queue::<[i32; 3]>::open(memory, "q");
            assert!(
                matches!(refused, Err(Error::Unusable { .. })),
                "{refused:?}"
            );
        }
        "queue_i32_2pow32.cpp.bin" => queue_gives(memory, "q", 4, &[71, 72]),
        _ => panic!("{file} is not known here"),
    }
}

fn read_stacks(file: &str, memory: &Memory) {
    match file {
        "stack_i32_fresh.bin" => stack_gives::<i32>(memory, "s", 4, &[]),
        "stack_i32_push3.bin" => stack_gives(memory, "s", 4, &[10, 20, 30]),
        "stack_i32_pop1.bin" => stack_gives(memory, "s", 4, &[10, 20]),
        "stack_i32_full.bin" => {
            let stack = Stack::<i32>::open(memory, "s").unwrap();
            let refused = stack.try_push(60);
            assert_eq!(refused, Err(TryPushError::Full(Full(60))));
            stack_gives(memory, "s", 4, &[10, 20, 40, 50]);
        }
        "stack_u8_cap3.bin" => stack_gives(memory, "s", 3, &[1_u8, 2]),
        "stack_i32_dead_writer.cpp.bin" => {
            let stack = Stack::<i32>::open(memory, "s").unwrap();
            assert_eq!(stack.len(), 2);
            for refused in [stack.try_pop(), stack.peek()] {
                assert!(matches!(refused, Err(OpError::Stuck { slot: 1, .. })));
            }
            assert_eq!(stack.len(), 2, "it was put back");
            // Above the dead one there is room.
            stack.try_push(9).unwrap();
            assert_eq!(stack.try_pop(), Ok(Some(9)));
            let repair = stack.repair();
            assert_eq!((repair.kept, repair.dropped), (1, 1));
            stack_gives(memory, "s", 4, &[1]);
        }
        "stack_i32_dead_reader.cpp.bin" => {
            let stack = Stack::<i32>::open(memory, "s").unwrap();
            let Err(TryPushError::Stuck(refused)) = stack.try_push(9) else {
                panic!("slot 2 is being read")
            };
            assert_eq!(refused.value, 9);
            assert!(matches!(refused.error, OpError::Stuck { slot: 2, .. }));
            assert_eq!(stack.len(), 2, "it was put back");
            // What somebody was taking when it died is there again: a 0.
            let repair = stack.repair();
            assert_eq!((repair.kept, repair.dropped), (2, 1));
            stack_gives(memory, "s", 4, &[1, 0]);
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_pools(file: &str, memory: &Memory) {
    let i32s = |allocated: u32, free: &[u32], values: &[(u32, i32)]| {
        let pool = Pool::<i32>::open(memory, "p").unwrap();
        assert_eq!((pool.capacity(), pool.allocated()), (4, allocated));
        assert_eq!(pool.free_list().unwrap(), free);
        for (index, value) in values {
            assert_eq!(pool.get(*index), Some(*value));
        }
        // All that is free can be taken, in that order.
        for index in free {
            assert_eq!(pool.allocate(), Ok(Some(*index)));
        }
        assert_eq!(pool.allocate(), Ok(None));
    };
    match file {
        "pool_i32_fresh.bin" => i32s(0, &[0, 1, 2, 3], &[]),
        "pool_i32_alloc3.bin" => i32s(3, &[3], &[(0, 11), (1, 22), (2, 33)]),
        "pool_i32_free1.bin" => i32s(2, &[1, 3], &[(0, 11), (2, 33)]),
        "pool_i32_exhausted.bin" => i32s(4, &[], &[(0, 11), (1, 44), (2, 33)]),
        "pool_f64.bin" => {
            let pool = Pool::<f64>::open(memory, "p").unwrap();
            assert_eq!((pool.capacity(), pool.allocated()), (3, 2));
            assert_eq!((pool.get(0), pool.get(1)), (Some(1.5), Some(2.5)));
            assert_eq!(pool.free_list().unwrap(), [2]);
        }
        "pool_3byte.bin" => {
            let pool = Pool::<[u8; 3]>::open(memory, "p").unwrap();
            assert_eq!((pool.capacity(), pool.allocated()), (3, 1));
            assert_eq!(pool.get(0), Some([1, 2, 3]));
            assert_eq!(pool.free_list().unwrap(), [1, 2]);
        }
        _ => panic!("{file} is not known here"),
    }
}

fn open_map<K: polyshm_zeroipc::Key, V: polyshm_zeroipc::Element>(
    file: &str,
    memory: &Memory,
    name: &str,
) -> Map<K, V> {
    let dialect = dialect_of(file);
    let map = match dialect {
        Dialect::Cpp => Map::open(memory, name),
        Dialect::Python => Map::open_python(memory, name),
    };
    let map = map.unwrap();
    assert_eq!(map.dialect(), dialect);
    map
}

fn open_set<T: polyshm_zeroipc::Key>(file: &str, memory: &Memory, name: &str) -> Set<T> {
    let dialect = dialect_of(file);
    let (right, wrong) = match dialect {
        Dialect::Cpp => (Set::open(memory, name), Set::<T>::open_python(memory, name)),
        Dialect::Python => (Set::open_python(memory, name), Set::<T>::open(memory, name)),
    };
    assert!(matches!(wrong, Err(Error::Structure { .. })));
    let set = right.unwrap();
    assert_eq!(set.dialect(), dialect);
    set
}

fn read_maps(file: &str, memory: &Memory) {
    let i32s = |pairs: &[(i32, i32)], absent: &[i32]| {
        let map = open_map::<i32, i32>(file, memory, "m");
        assert_eq!((map.len(), map.capacity()), (pairs.len(), 8));
        for (key, value) in pairs {
            assert_eq!(map.get(*key), Ok(Some(*value)), "{file}: {key}");
        }
        for key in absent {
            assert_eq!(map.contains_key(*key), Ok(false), "{file}: {key}");
        }
        let (mut all, mut expected) = (map.to_vec(), pairs.to_vec());
        all.sort_unstable();
        expected.sort_unstable();
        assert_eq!(all, expected);
        for (key, _) in pairs {
            assert_eq!(map.remove(*key), Ok(true));
        }
        assert!(map.is_empty() && map.to_vec().is_empty());
    };
    match file.split('.').next().expect("a base name") {
        "map_i32_i32" => i32s(
            &[(1, 10), (9, 90), (17, 170), (0, 0), (-1, -10)],
            &[2, 25, 33],
        ),
        "map_i32_i32_erased" => i32s(&[(1, 10), (17, 170), (0, 0), (-1, -10)], &[9, 25]),
        "map_i32_i32_reused" => i32s(
            &[(1, 10), (17, 1717), (0, 0), (-1, -10), (25, 250)],
            &[9, 33],
        ),
        "map_u32_f64_full" => {
            let map = open_map::<u32, f64>(file, memory, "m");
            assert_eq!((map.len(), map.capacity()), (4, 4));
            for (key, value) in [(7, 0.5), (8, 1.5), (11, 2.5), (12, 3.5)] {
                assert_eq!(map.get(key), Ok(Some(value)));
            }
            assert_eq!(map.get(99), Ok(None));
            let full = map.insert(99, 4.5);
            assert_eq!(full, Err(InsertError::Full(Full((99, 4.5)))));
            // Whoever's layout it is taken for, its hash puts the keys
            // elsewhere; that it is full hides it, since each slot is looked at.
        }
        "map_u64_u64" => {
            let map = open_map::<u64, u64>(file, memory, "m");
            assert_eq!(map.get(5_000_000_000), Ok(Some(1)));
            assert_eq!((map.get(3), map.get(4)), (Ok(Some(2)), Ok(None)));
            assert_eq!(map.len(), 2);
        }
        "map_char16_u64" => {
            let map = open_map::<[u8; 16], u64>(file, memory, "m");
            for (key, value) in [
                ("alpha", Some(5)),
                ("beta", Some(4)),
                ("gamma", Some(5)),
                ("delta", Some(5)),
                ("zeta", None),
            ] {
                assert_eq!(map.get(byte_key(key).unwrap()), Ok(value), "{file}: {key}");
            }
            assert_eq!(map.len(), 4);
        }
        "map_f64_i32" => {
            // Both zeros are there; they are equal, only their hashes differ.
            let map = open_map::<f64, i32>(file, memory, "m");
            for (key, value) in [(0.0, 1), (-0.0, 2), (1.5, 3)] {
                assert_eq!(map.get(key), Ok(Some(value)), "{key}");
            }
            assert_eq!(map.get(f64::NAN), Ok(None));
            assert_eq!(map.len(), 3);
        }
        "set_i32" => {
            let set = open_set::<i32>(file, memory, "t");
            assert_eq!(set.len(), 4);
            for (element, there) in [(1, false), (9, true), (17, true), (0, true), (-1, true)] {
                assert_eq!(set.contains(element), Ok(there), "{file}: {element}");
            }
            let mut all = set.to_vec();
            all.sort_unstable();
            assert_eq!(all, [-1, 0, 9, 17]);
        }
        "set_char8" => {
            let set = open_set::<[u8; 8]>(file, memory, "t");
            for (element, there) in [("a", true), ("bb", true), ("ccc", true), ("dddd", false)] {
                let found = set.contains(byte_key(element).unwrap());
                assert_eq!(found, Ok(there), "{element}");
            }
            assert_eq!(set.len(), 3);
        }
        "set_u64" => {
            let set = open_set::<u64>(file, memory, "t");
            assert_eq!(set.len(), 2);
            for (element, there) in [(10, true), (20, true), (30, false)] {
                assert_eq!(set.contains(element), Ok(there), "{file}: {element}");
            }
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_locks(file: &str, memory: &Memory) {
    let semaphore = |name: &str, count, waiting, max| {
        let semaphore = Semaphore::open(memory, name).unwrap();
        assert_eq!(
            (semaphore.count(), semaphore.waiting(), semaphore.max()),
            (count, waiting, max)
        );
        for _ in 0..count {
            semaphore.try_acquire().unwrap().forget();
        }
        assert!(semaphore.try_acquire().is_none());
        semaphore.release().unwrap();
    };
    match file {
        "semaphore_fresh.bin" => semaphore("s", 2, 0, Some(5)),
        "semaphore_acq1.bin" => semaphore("s", 1, 0, Some(5)),
        "semaphore_waiter.bin" => semaphore("s", 0, 1, Some(5)),
        "semaphore_unbounded.bin" => semaphore("u", 2, 0, None),
        "mutex_unlocked.bin" => {
            let mutex = Mutex::open(memory, "mx").unwrap();
            assert!(!mutex.is_locked());
            assert!(!mutex.lock_within(MOMENT).unwrap().recovered());
        }
        "mutex_locked.bin" => {
            let mutex = Mutex::open(memory, "mx").unwrap();
            assert!(mutex.is_locked() && mutex.try_lock().is_none());
            unknown(mutex.lock_within(MOMENT));
            assert!(mutex.force_unlock());
            assert!(mutex.try_lock().is_some());
        }
        "rwlock_fresh.bin" => {
            let lock = RwLock::open(memory, "rw").unwrap();
            assert_eq!((lock.readers(), lock.is_writing()), (0, false));
            drop(lock.try_read().unwrap());
            drop(lock.try_write().unwrap());
        }
        "rwlock_2readers.bin" => {
            let lock = RwLock::open(memory, "rw").unwrap();
            assert_eq!((lock.readers(), lock.is_writing()), (2, false));
            drop(lock.try_read().unwrap());
            assert!(lock.try_write().is_none());
            timeout(lock.write_within(MOMENT));
            lock.force_release_readers();
            drop(lock.try_write().unwrap());
        }
        "rwlock_writer.bin" => {
            let lock = RwLock::open(memory, "rw").unwrap();
            assert_eq!((lock.readers(), lock.is_writing()), (0, true));
            assert!(lock.try_read().is_none() && lock.try_write().is_none());
            timeout(lock.read_within(MOMENT));
            unknown(lock.write_within(MOMENT));
            lock.force_release_writer();
            drop(lock.try_read().unwrap());
            drop(lock.try_write().unwrap());
        }
        "monitor_fresh.bin" => {
            let monitor = Monitor::open(memory, "mon").unwrap();
            let guard = monitor.try_lock().unwrap();
            let (guard, notified) = guard.wait_within(MOMENT).unwrap();
            assert!(!notified);
            drop(guard);
        }
        "monitor_waiter.bin" => {
            // The waiter is no process any more: it is notified all the same,
            // once, and its permit wakes nobody who comes later.
            let monitor = Monitor::open(memory, "mon").unwrap();
            monitor.notify_all();
            monitor.notify_one();
            assert_eq!(Semaphore::open(memory, "mon_cond").unwrap().count(), 1);
            drop(monitor.try_lock().unwrap());
        }
        "monitor_locked.bin" => {
            let monitor = Monitor::open(memory, "mon").unwrap();
            assert!(monitor.try_lock().is_none());
            unknown(monitor.lock_within(MOMENT));
            assert!(monitor.force_unlock());
            drop(monitor.try_lock().unwrap());
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_meetings(file: &str, memory: &Memory) {
    let barrier = |arrived, generation| {
        let barrier = Barrier::open(memory, "b").unwrap();
        assert_eq!(
            (
                barrier.arrived(),
                barrier.generation(),
                barrier.participants()
            ),
            (arrived, generation, 3)
        );
        timeout(barrier.wait_within(MOMENT));
        assert_eq!(barrier.arrived(), arrived, "taken back");
        std::thread::scope(|scope| {
            for _ in arrived..3 {
                scope.spawn(|| barrier.wait_within(PATIENCE).unwrap());
            }
        });
        assert_eq!(
            (barrier.arrived(), barrier.generation()),
            (0, generation + 1)
        );
    };
    let latch = |count| {
        let latch = Latch::open(memory, "l").unwrap();
        assert_eq!((latch.count(), latch.initial()), (count, 3));
        assert_eq!(latch.try_wait(), count == 0);
        if count > 0 {
            timeout(latch.wait_within(MOMENT));
        }
        assert_eq!(latch.count_down(9), 0);
        latch.wait_within(MOMENT).unwrap();
    };
    match file {
        "barrier_fresh.bin" => barrier(0, 0),
        "barrier_arrived1.bin" => barrier(1, 0),
        "barrier_gen1.bin" | "barrier_timeout.bin" => barrier(0, 1),
        "latch_2of3.bin" => latch(2),
        "latch_zero.bin" => latch(0),
        "once_pending.bin" => {
            let once = Once::open(memory, "o").unwrap();
            assert!(!once.is_done());
            timeout(once.wait_within(MOMENT));
            assert_eq!(once.try_call(|_| ()), Some(OnceOutcome::Ran));
            assert!(once.is_done());
        }
        "once_executing.bin" => {
            let once = Once::open(memory, "o").unwrap();
            assert_eq!(once.try_call(|_| panic!("it runs elsewhere")), None);
            unknown(once.call_within(MOMENT, |_| panic!("it runs elsewhere")));
            unknown(once.wait_within(MOMENT));
            once.reset();
            assert_eq!(once.try_call(|_| ()), Some(OnceOutcome::Ran));
        }
        "once_done.bin" => {
            let once = Once::open(memory, "o").unwrap();
            let called = once.call_within(MOMENT, |_| panic!("it was done"));
            assert_eq!(called, Ok(OnceOutcome::WasDone));
        }
        "event_auto_fresh.bin" | "event_auto_consumed.bin" => {
            let event = Event::open(memory, "e").unwrap();
            assert_eq!(
                (event.mode(), event.is_signaled()),
                (EventMode::Auto, false)
            );
            assert!(!event.try_wait());
            timeout(event.wait_within(MOMENT));
        }
        "event_auto_signaled.bin" => {
            let event = Event::open(memory, "e").unwrap();
            assert!(event.is_signaled());
            assert!(event.try_wait() && !event.try_wait());
        }
        "event_manual_signaled.bin" => {
            let event = Event::open(memory, "e").unwrap();
            assert_eq!(
                (event.mode(), event.is_signaled()),
                (EventMode::Manual, true)
            );
            assert!(event.try_wait() && event.try_wait());
        }
        "event_manual_waiter.cpp.bin" | "event_manual_waiter.py.bin" => {
            let event = Event::open(memory, "e").unwrap();
            assert!(!event.try_wait());
            // The C++ waiter counted itself, and nobody takes it back any more.
            assert_eq!(event.pulse(), is_python(file));
            assert!(!event.is_signaled());
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_cells(file: &str, memory: &Memory) {
    match file.split('.').next().expect("a base name") {
        "signal_i32_fresh" => {
            let signal = Signal::<i32>::open(memory, "sig").unwrap();
            assert_eq!((signal.version(), signal.get()), (0, Ok(42)));
            timeout(signal.wait_for_change(0, MOMENT));
        }
        "signal_i32_v2" => {
            let signal = Signal::<i32>::open(memory, "sig").unwrap();
            assert_eq!(signal.snapshot(), Ok((2, 86)));
            assert_eq!(signal.wait_for_change(0, MOMENT), Ok((2, 86)));
            assert_eq!(signal.update(|value| value + 1), Ok(87));
        }
        "signal_f64_v1" => {
            let signal = Signal::<f64>::open(memory, "sig").unwrap();
            assert_eq!(signal.snapshot(), Ok((1, 2.5)));
        }
        "future_i32_pending" => {
            let future = Future::<i32>::open(memory, "f").unwrap();
            assert_eq!(future.dialect(), dialect_of(file));
            assert_eq!(
                (future.state(), future.try_get()),
                (FutureState::Pending, Ok(None))
            );
            timeout(future.get_within(MOMENT));
            assert_eq!(future.set(5), Ok(SetOutcome::Set));
            assert_eq!(future.get_within(MOMENT), Ok(5));
        }
        "future_i32_ready" => {
            let future = Future::<i32>::open(memory, "f").unwrap();
            assert!(future.is_ready());
            assert_eq!(future.get_within(MOMENT), Ok(99));
            assert!(matches!(future.set(1), Err(OpError::AlreadyDone { .. })));
        }
        "future_f64_error" => {
            let future = Future::<f64>::open(memory, "f").unwrap();
            assert_eq!(future.state(), FutureState::Failed);
            // Of 8 bytes the two formats are the same.
            assert_eq!(future.dialect(), Dialect::Cpp);
            let failed = future.get_within(MOMENT);
            assert!(matches!(failed, Err(OpError::Failed { message, .. }) if message == "boom"));
        }
        "lazy_i32_add" | "lazy_i32_forced" => {
            let forced = file.starts_with("lazy_i32_forced");
            let c = Lazy::<i32>::open(memory, "c").unwrap();
            assert_eq!((c.peek(), c.force_within(MOMENT)), (Ok(Some(7)), Ok(7)));
            let sum = Lazy::<i32>::open(memory, "sum").unwrap();
            assert_eq!(sum.dialect(), dialect_of(file));
            assert_eq!(sum.peek(), Ok(forced.then_some(12)));
            if is_python(file) {
                assert_eq!(sum.compute_count(), None);
                if !forced {
                    timeout(sum.force_within(MOMENT));
                }
                let value = sum.force_with_within(MOMENT, |_| Ok::<_, String>(12));
                assert_eq!(value, Ok(12));
            } else {
                let d = Lazy::<i32>::open(memory, "d").unwrap();
                assert_eq!(d.peek(), Ok(Some(5)));
                assert_eq!(sum.compute_count(), Some(u32::from(forced)));
                assert_eq!(sum.force_within(MOMENT), Ok(12));
                assert_eq!(sum.compute_count(), Some(1));
            }
        }
        "lazy_f64_err" => {
            let c = Lazy::<f64>::open(memory, "c").unwrap();
            assert_eq!(c.force_within(MOMENT), Ok(2.5));
            let failed = Lazy::<f64>::open(memory, "e").unwrap();
            for result in [failed.peek().map(|_| 0.0), failed.force_within(MOMENT)] {
                assert!(matches!(result, Err(OpError::Failed { message, .. })
                    if message == "Complex operations not yet implemented"));
            }
        }
        "lazy_bool" => {
            let open = |name| LazyBool::open(memory, name).unwrap();
            let peeked = ["t", "u", "and"].map(|name| open(name).peek());
            assert_eq!(peeked, [Some(true), Some(false), None]);
            assert!(open("t").force() && !open("u").force() && !open("and").force());
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_channels(file: &str, memory: &Memory) {
    let open = || {
        let channel = Channel::<i32>::open(memory, "ch").unwrap();
        assert_eq!(channel.dialect(), dialect_of(file));
        channel
    };
    match file.split('.').next().expect("a base name") {
        "channel_buffered" => {
            let channel = open();
            assert_eq!(channel.capacity(), if is_python(file) { 3 } else { 4 });
            assert!(!channel.is_closed());
            assert_eq!(channel.len(), 2);
            assert_eq!(
                (channel.try_receive(), channel.try_receive()),
                (Ok(1), Ok(2))
            );
            timeout(channel.try_receive());
            channel.send_within(3, MOMENT).unwrap();
        }
        "channel_closed" => {
            let channel = open();
            assert!(channel.is_closed());
            assert!(channel.send(9).unwrap_err().error.is_closed());
            assert_eq!(channel.receive(), Ok(2), "what was sent before");
            assert!(channel.receive().unwrap_err().is_closed());
        }
        "channel_unbuffered_fresh" | "channel_unbuffered_done" => {
            let channel = open();
            assert_eq!((channel.capacity(), channel.len()), (0, 0));
            timeout(channel.try_receive());
            let refused = channel.try_send(5).unwrap_err();
            assert!(refused.value == 5 && refused.error.is_timeout());
            std::thread::scope(|scope| {
                let receiver = scope.spawn(|| channel.receive_within(PATIENCE));
                channel.send_within(6, PATIENCE).unwrap();
                assert_eq!(receiver.join().unwrap(), Ok(6));
            });
        }
        "channel_unbuffered_sender" => {
            let channel = open();
            if is_python(file) {
                // It waits for a receiver to show itself, and is dead.
                timeout(channel.try_receive());
            } else {
                // Its message lies in the slot.
                assert_eq!(channel.len(), 1);
                assert_eq!(channel.try_receive(), Ok(77));
                timeout(channel.try_receive());
            }
        }
        "channel_unbuffered_f64" => {
            let channel = Channel::<f64>::open(memory, "ch").unwrap();
            timeout(channel.try_receive());
        }
        "stream_f64" | "stream_f64_closed" => {
            let mut stream = Stream::<f64>::open(memory, "st").unwrap();
            assert_eq!(stream.dialect(), dialect_of(file));
            assert_eq!(stream.sequence(), (!is_python(file)).then_some(2));
            assert_eq!((stream.len(), stream.capacity()), (1, 4));
            let closed = file.starts_with("stream_f64_closed");
            assert_eq!(stream.is_closed(), closed);
            assert_eq!(stream.next_within(MOMENT), Ok(2.5));
            let end = stream.next_within(MOMENT).unwrap_err();
            assert_eq!(end.is_closed(), closed);
            assert_eq!(stream.try_emit(3.5).is_err(), closed);
        }
        "stream_void" => {
            let stream = VoidStream::open(memory, "ev").unwrap();
            assert_eq!((stream.count(), stream.is_closed()), (2, false));
            assert_eq!(stream.wait_for_change(0, MOMENT), Ok(2));
            timeout(stream.wait_for_change(2, MOMENT));
            assert!(stream.emit());
        }
        _ => panic!("{file} is not known here"),
    }
}

fn read_multi(file: &str, memory: &Memory) {
    let python = is_python(file);
    let temps = Array::<f32>::open(memory, "temps").unwrap();
    let expected: Vec<_> = (20_u8..28).map(f32::from).collect();
    assert_eq!(temps.to_vec(), expected);
    queue_gives(memory, "jobs", 8, &[1, 2]);
    stack_gives(memory, "undo", 4, &[-5_i64]);
    let semaphore = Semaphore::open(memory, "sem").unwrap();
    assert_eq!((semaphore.count(), semaphore.max()), (3, Some(3)));
    assert!(Mutex::open(memory, "lock").unwrap().is_locked());
    let barrier = Barrier::open(memory, "bar").unwrap();
    assert_eq!((barrier.participants(), barrier.arrived()), (2, 0));
    assert_eq!(Latch::open(memory, "gate").unwrap().count(), 1);
    assert!(!Once::open(memory, "init").unwrap().is_done());
    let event = Event::open(memory, "ready").unwrap();
    assert!(event.mode() == EventMode::Manual && event.try_wait());
    drop(RwLock::open(memory, "rw").unwrap().try_write().unwrap());
    drop(Monitor::open(memory, "mon").unwrap().try_lock().unwrap());
    let signal = Signal::<i64>::open(memory, "cfg").unwrap();
    assert_eq!(signal.snapshot(), Ok((1, 2)));
    ring_gives(memory, "log", 16, &[3_i16]);
    let map = open_map::<i32, i64>(file, memory, "idx");
    assert_eq!(map.to_vec(), [(1, 100)]);
    assert_eq!(map.get(1), Ok(Some(100)));
    let set = open_set::<u32>(file, memory, "seen");
    assert_eq!((set.contains(5), set.contains(6)), (Ok(true), Ok(false)));
    let pool = Pool::<i64>::open(memory, "blk").unwrap();
    assert_eq!(pool.free_list().unwrap(), [1, 2, 3]);
    let channel = Channel::<i32>::open(memory, "ch").unwrap();
    assert_eq!(channel.dialect() == Dialect::Python, python);
    assert_eq!((channel.capacity(), channel.try_receive()), (2, Ok(4)));
    let future = Future::<i64>::open(memory, "fut").unwrap();
    assert_eq!(future.try_get(), Ok(None));
    let lazy = Lazy::<f64>::open(memory, "lz").unwrap();
    assert_eq!(lazy.peek(), Ok(Some(3.5)));
    let mut stream = Stream::<f32>::open(memory, "feed").unwrap();
    assert_eq!(stream.dialect() == Dialect::Python, python);
    assert_eq!(stream.try_next(), Some(1.0));
}

/// Compares all that the manifest says of an image with what the public
/// interface gives.
fn read(file: &str, memory: &Memory) {
    match file.split(['_', '.']).next().expect("a kind") {
        "empty" => {
            assert!(memory.entries().is_empty());
            Array::<u8>::create(memory, "first", 1).unwrap();
        }
        "undersized" => {
            assert_eq!(memory.free(), 0);
            let first = Array::<u8>::create(memory, "first", 1);
            assert!(matches!(first, Err(Error::Layout { .. })), "{first:?}");
        }
        "table" => {
            assert!(memory.contains("two") && memory.contains("three"));
            assert!(!memory.contains("one"));
            assert_eq!(memory.entries().len(), 2);
            // The place of the removed name is not given out again.
            assert_eq!(memory.free(), 4096 - 848);
        }
        "full" | "dup" | "name31" | "name" | "array" => read_arrays(file, memory),
        "queue" => read_queues(file, memory),
        "stack" => read_stacks(file, memory),
        "ring" => match file {
            "ring_i32_fresh.bin" => ring_gives::<i32>(memory, "r", 4, &[]),
            "ring_i32_wrapped.bin" => ring_gives(memory, "r", 4, &[3, 4, 5, 6]),
            "ring_i32_bulk.bin" => ring_gives(memory, "r", 4, &[6]),
            "ring_f64.bin" => ring_gives(memory, "r", 3, &[1.5, 2.5]),
            _ => panic!("{file} is not known here"),
        },
        "pool" => read_pools(file, memory),
        "map" | "set" => read_maps(file, memory),
        "semaphore" | "mutex" | "rwlock" | "monitor" => read_locks(file, memory),
        "barrier" | "latch" | "once" | "event" => read_meetings(file, memory),
        "signal" | "future" | "lazy" => read_cells(file, memory),
        "channel" | "stream" => read_channels(file, memory),
        "multi" => read_multi(file, memory),
        _ => panic!("{file} is not known here"),
    }
}

fn check_table(file: &str, image: &Image, memory: &Memory) {
    let header = &image.entry["table_header"];
    assert_eq!(memory.size(), number(&header["memory_size"]), "{file}");
    let slots = u64::from(memory.max_entries());
    assert_eq!(slots, number(&header["max_entries"]), "{file}");
    let next = number(&header["next_offset"]).next_multiple_of(8);
    assert_eq!(memory.free(), memory.size() - next, "{file}");
    let expected = image.entry["expected_entries"].as_array().expect("a list");
    let found = memory.entries();
    assert_eq!(found.len(), expected.len(), "{file}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.name, text(&expected["name"]), "{file}");
        assert_eq!(found.offset, number(&expected["offset"]), "{file}");
        assert_eq!(found.size, number(&expected["size"]), "{file}");
    }
    assert_eq!(memory.describe().unwrap().entries.len(), expected.len());
    assert_eq!(
        memory.image(),
        image.bytes,
        "{file}: looking changes nothing"
    );
}

#[test]
fn every_image_is_read_as_the_manifest_says() {
    for marks in [false, true] {
        let options = OpenOptions::default().native_marks(marks);
        for (file, image) in images() {
            let memory = Memory::from_image(&image.bytes, options).unwrap();
            check_table(&file, &image, &memory);
            println!("{file}");
            read(&file, &memory);
        }
    }
}

// Writing.

/// A memory on the heap or a real segment.
struct Seg {
    memory: Memory,
    name: Option<Name>,
}

impl std::ops::Deref for Seg {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

/// A byte that the reference has and we by design have not: where, theirs, ours.
type Difference = (usize, u8, u8);

/// Bytes that every other implementation ignores and native marks may fill.
#[derive(Clone, Copy, Debug)]
enum Mark {
    /// The reserved word of a mutex that is held, at 12.
    Lock(&'static str),
    /// The four bytes after a once that runs.
    Once(&'static str),
    /// The seven bytes after a read-write lock's marker that is read.
    Readers(&'static str),
    /// `send_seq` of a channel's header, while a sender has its turn.
    Sending(&'static str),
    /// The four bytes after a monitor's count, once somebody was notified.
    Notified(&'static str),
    /// Who sleeps, as long as it sleeps, in the same place.
    Asleep,
    /// How many slots of maps were overwritten: in the first eight bytes of the
    /// table's last slot.
    Epoch,
}

/// One way to do all steps.
struct Run {
    images: BTreeMap<String, Image>,
    options: OpenOptions,
    segments: bool,
    written: RefCell<BTreeSet<String>>,
}

impl Run {
    fn new(segments: bool, marks: bool) -> Self {
        Self {
            images: images(),
            options: OpenOptions::default().native_marks(marks),
            segments,
            written: RefCell::default(),
        }
    }

    fn segment_of(&self, size: u64, slots: u32) -> Seg {
        if self.segments {
            let name = Name::new("vectors");
            let options = MemoryOptions::new(size)
                .max_entries(slots)
                .open_options(self.options);
            let memory = Memory::create_new(&name, options).unwrap();
            return Seg {
                memory,
                name: Some(name),
            };
        }
        let mut image = TableHeader::new(slots, size).to_bytes().to_vec();
        image.resize(size as usize, 0);
        Seg {
            memory: Memory::from_image(&image, self.options).unwrap(),
            name: None,
        }
    }

    /// As most vectors have it.
    fn segment(&self) -> Seg {
        self.segment_of(4096, 16)
    }

    /// Stores bytes behind everybody's back. What is open must be opened anew.
    fn poke(&self, segment: Seg, pokes: &[(u64, &[u8])]) -> Seg {
        let Some(name) = &segment.name else {
            let mut image = segment.image();
            for (at, bytes) in pokes {
                image[*at as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            let memory = Memory::from_image(&image, self.options).unwrap();
            return Seg { memory, name: None };
        };
        let path = format!("/dev/shm/{}", &**name);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        for (at, bytes) in pokes {
            file.write_all_at(bytes, *at).unwrap();
        }
        segment
    }

    fn mark_range(segment: &Memory, mark: Mark) -> std::ops::Range<usize> {
        let at = |name: &str| {
            let entries = segment.entries();
            let entry = entries.iter().find(|entry| entry.name == name);
            let entry = entry.unwrap_or_else(|| panic!("no entry {name}"));
            (entry.offset as usize, (entry.offset + entry.size) as usize)
        };
        match mark {
            Mark::Lock(name) => at(name).0 + 12..at(name).0 + 16,
            Mark::Once(name) | Mark::Notified(name) => at(name).1..at(name).1 + 4,
            Mark::Readers(name) => at(name).0 + 1..at(name).0 + 8,
            Mark::Sending(name) => at(name).0 + 16..at(name).0 + 24,
            Mark::Epoch | Mark::Asleep => {
                let spare = entry_at(segment.max_entries() - 1) as usize;
                spare..spare + 8
            }
        }
    }

    /// The first difference to the reference, where there may be none.
    fn compare(
        &self,
        file: &str,
        segment: &Memory,
        marks: &[Mark],
        differences: &[Difference],
    ) -> Result<(), String> {
        let image = &self.images[file];
        let mut ours = segment.image();
        let mut theirs = image.bytes.clone();
        for (at, len) in image.ignored() {
            assert!(ours[at..at + len].iter().any(|byte| *byte != 0), "{file}");
            ours[at..at + len].fill(0);
            theirs[at..at + len].fill(0);
        }
        for (at, their, our) in differences {
            if (theirs[*at], ours[*at]) != (*their, *our) {
                let found = (theirs[*at], ours[*at]);
                return Err(format!(
                    "{file}: at {at} {found:?} in place of {their}, {our}"
                ));
            }
            ours[*at] = *their;
        }
        if self.options.native_marks {
            for mark in marks {
                let range = Self::mark_range(segment, *mark);
                assert!(
                    theirs[range.clone()].iter().all(|byte| *byte == 0),
                    "{file}"
                );
                let there = ours[range.clone()].iter().any(|byte| *byte != 0);
                if !there && !matches!(mark, Mark::Asleep) {
                    return Err(format!("{file}: {mark:?} is not there"));
                }
                ours[range].fill(0);
            }
        }
        assert_eq!(ours.len(), theirs.len(), "{file}");
        let differ: Vec<_> = (0..ours.len())
            .filter(|at| ours[*at] != theirs[*at])
            .map(|at| format!("{at}: {:#04x}, reference {:#04x}", ours[at], theirs[at]))
            .collect();
        if differ.is_empty() {
            Ok(())
        } else {
            Err(format!("{file}: {differ:?}"))
        }
    }

    #[track_caller]
    fn check(&self, file: &str, segment: &Memory, marks: &[Mark], differences: &[Difference]) {
        if let Err(difference) = self.compare(file, segment, marks, differences) {
            panic!("{difference}");
        }
        self.written.borrow_mut().insert(file.to_owned());
    }

    /// The segment is the reference's to the byte, at rest.
    #[track_caller]
    fn same(&self, file: &str, segment: &Memory) {
        self.check(file, segment, &[], &[]);
    }

    /// It becomes so while another thread blocks.
    #[track_caller]
    fn soon(&self, file: &str, segment: &Memory, marks: &[Mark], differences: &[Difference]) {
        let start = Instant::now();
        while self.compare(file, segment, marks, differences).is_err() && start.elapsed() < PATIENCE
        {
            std::thread::sleep(MOMENT);
        }
        self.check(file, segment, marks, differences);
    }
}

fn write_tables(run: &Run) {
    run.same("empty_table_16.bin", &run.segment());
    run.same("empty_table_64.bin", &run.segment_of(16384, 64));

    // Python enlarges the segment to its table. We refuse it, and make the same
    // when the size is given.
    let small = Memory::create_new("polyshm-vectors-small", 100);
    assert!(matches!(small, Err(Error::Layout { .. })), "{small:?}");
    run.same("undersized_clamped.py.bin", &run.segment_of(3104, 64));

    let arrays = |segment: &Memory, create: fn(&Memory, &str) -> Array<i32>| {
        for i in 0..4 {
            let array = create(segment, &format!("a{i}"));
            array.write(0, &[i, -i]).unwrap();
        }
    };
    let segment = run.segment_of(4096, 4);
    arrays(&segment, |segment, name| {
        Array::create(segment, name, 2).unwrap()
    });
    let fifth = Array::<i32>::create(&segment, "a4", 2);
    assert!(matches!(fifth, Err(Error::TableFull { .. })), "{fifth:?}");
    // The reference's failed insertion has taken its 16 bytes for good: 304
    // in next_offset, where we have 288.
    run.check("full_table.cpp.bin", &segment, &[], &[(24, 0x30, 0x20)]);

    let segment = run.segment_of(4096, 4);
    arrays(&segment, |segment, name| {
        Array::create_c(segment, name, 2).unwrap()
    });
    let fifth = Array::<i32>::create_c(&segment, "a4", 2);
    assert!(matches!(fifth, Err(Error::TableFull { .. })), "{fifth:?}");
    run.same("full_table.c.bin", &segment);

    let segment = run.segment_of(4096, 4);
    Array::<i32>::create(&segment, "dup", 2).unwrap();
    let again = VoidStream::create(&segment, "dup");
    assert!(
        matches!(again, Err(Error::AlreadyExists { .. })),
        "{again:?}"
    );
    let long = VoidStream::create(&segment, &"n".repeat(32));
    assert!(matches!(long, Err(Error::Name { .. })), "{long:?}");
    // Two failed insertions of 16 bytes: 272 in next_offset, where we have 240.
    let leaked = [(24, 0x10, 0xF0), (25, 0x01, 0x00)];
    run.check("dup_and_long_name.cpp.bin", &segment, &[], &leaked);

    let segment = run.segment();
    let first = Array::<u8>::create(&segment, NAME31, 3).unwrap();
    first.write(0, &[1, 2, 3]).unwrap();
    Array::<i32>::create(&segment, "after", 1).unwrap().fill(7);
    run.same("name31.bin", &segment);

    // Python counts characters: 40 bytes pass, and fill the field without a
    // NUL. We refuse the name; with the longest one that we take the images
    // differ in the field's last two bytes alone.
    let segment = run.segment();
    for len in [16, 20] {
        let refused = Array::<i32>::create(&segment, &"é".repeat(len), 2);
        assert!(matches!(refused, Err(Error::Name { .. })), "{refused:?}");
    }
    let longest = format!("{}x", "é".repeat(15));
    Array::<i32>::create(&segment, &longest, 2).unwrap();
    let cut = [(32 + 30, 0xC3, b'x'), (32 + 31, 0xA9, 0)];
    run.check("name_utf8_overlong.py.bin", &segment, &[], &cut);

    // Sixteen bytes that nobody gave a meaning.
    let segment = run.segment();
    for name in ["one", "two", "three"] {
        VoidStream::create(&segment, name).unwrap();
    }
    segment.remove("one").unwrap();
    run.same("table_removed.c.bin", &segment);
}

fn write_arrays(run: &Run) {
    let segment = run.segment();
    let array = Array::<f32>::create(&segment, "f32", 5).unwrap();
    array.write(0, &F32S).unwrap();
    run.same("array_f32.bin", &segment);

    let segment = run.segment();
    let array = Array::<f64>::create(&segment, "f64", 3).unwrap();
    array.write(0, &[1.5, -2.25, 1e300]).unwrap();
    run.same("array_f64.bin", &segment);

    let segment = run.segment();
    let array = Array::<i32>::create(&segment, "i32", 10).unwrap();
    for (index, i) in (0..10).enumerate() {
        array.set(index, i * i).unwrap();
    }
    run.same("array_i32.cpp.bin", &segment);

    let segment = run.segment();
    let array = Array::<i32>::create_c(&segment, "i32", 10).unwrap();
    for (index, i) in (0..10).enumerate() {
        array.set(index, i * i).unwrap();
    }
    run.same("array_i32.c.bin", &segment);

    let segment = run.segment();
    let array = Array::<Point>::create(&segment, "pts", 3).unwrap();
    array.write(0, &POINTS).unwrap();
    run.same("array_struct.bin", &segment);

    let segment = run.segment();
    let array = Array::<Mixed>::create(&segment, "mix", 2).unwrap();
    array.write(0, &MIXED).unwrap();
    run.same("array_struct_padded.bin", &segment);
}

fn write_queues(run: &Run) {
    let segment = run.segment();
    let queue = Queue::<i32>::create(&segment, "q", 4).unwrap();
    run.same("queue_i32_fresh.bin", &segment);
    for element in [1, 2, 3] {
        queue.try_push(element).unwrap();
    }
    run.same("queue_i32_push3.bin", &segment);
    queue.try_push(4).unwrap();
    assert_eq!(queue.try_push(5), Err(Full(5)));
    assert_eq!((queue.try_pop(), queue.try_pop()), (Some(1), Some(2)));
    queue.try_push(5).unwrap();
    queue.try_push(6).unwrap();
    run.same("queue_i32_wrapped.bin", &segment);
    for i in 0..100 {
        queue.try_pop().unwrap();
        queue.try_push(100 + i).unwrap();
    }
    while queue.try_pop().is_some() {}
    run.same("queue_i32_drained.bin", &segment);

    // The same in one piece each.
    let segment = run.segment();
    let queue = Queue::<i32>::create(&segment, "q", 4).unwrap();
    assert_eq!(queue.try_push_slice(&[1, 2, 3]), 3);
    run.same("queue_i32_push3.bin", &segment);
    assert_eq!(queue.try_push_slice(&[4, 5]), 1);
    assert_eq!(queue.try_pop_slice(&mut [0; 2]), 2);
    assert_eq!(queue.try_push_slice(&[5, 6, 7]), 2);
    run.same("queue_i32_wrapped.bin", &segment);

    let segment = run.segment();
    let queue = Queue::<i32>::create(&segment, "q", 5).unwrap();
    queue.try_push(-7).unwrap();
    run.same("queue_i32_cap5.bin", &segment);

    let segment = run.segment();
    let queue = Queue::<u8>::create(&segment, "q", 3).unwrap();
    queue.try_push(0xAA).unwrap();
    run.same("queue_u8_cap3.bin", &segment);

    let segment = run.segment();
    let queue = Queue::<[u8; 3]>::create(&segment, "q", 2).unwrap();
    queue.try_push([1, 2, 3]).unwrap();
    queue.try_push([4, 5, 6]).unwrap();
    run.same("queue_3byte.cpp.bin", &segment);

    let segment = run.segment();
    let queue = Queue::<[i32; 3]>::create(&segment, "q", 1).unwrap();
    queue.try_push([1, 2, 3]).unwrap();
    queue.try_push([4, 5, 6]).unwrap();
    // Ours has two slots, so that full is not empty.
    let queue = 800;
    let two_slots = [
        // next_offset and the entry's size: 12 bytes more.
        (24, 0x44, 0x50),
        (32 + 40, 36, 48),
        // The capacity.
        (queue + 8, 1, 2),
        // Slot 0, which the reference has overwritten with the second element.
        (queue + 16, 4, 1),
        (queue + 20, 5, 2),
        (queue + 24, 6, 3),
        // Slot 1, where the reference has padding and its seq.
        (queue + 28, 0, 4),
        (queue + 32, 2, 5),
        (queue + 36, 0, 6),
        // Our seqs.
        (queue + 40, 0, 1),
        (queue + 44, 0, 2),
    ];
    run.check("queue_12byte_cap1.cpp.bin", &segment, &[], &two_slots);

    let segment = run.segment();
    Queue::<i32>::create(&segment, "q", 4).unwrap();
    let (near, seq) = (0xFFFF_FFFE_u32, 800 + 32);
    let seqs: Vec<u8> = (0..4_u32)
        // Position p waits in slot p mod 4: 0 and 1 come after 2 and 3.
        .flat_map(|slot| near.wrapping_add((slot + 2) % 4).to_le_bytes())
        .collect();
    let near = near.to_le_bytes();
    let segment = run.poke(segment, &[(800, &near), (804, &near), (seq, &seqs)]);
    let queue = Queue::<i32>::open(&segment, "q").unwrap();
    for element in [70, 71, 72] {
        queue.try_push(element).unwrap();
    }
    assert_eq!(queue.try_pop(), Some(70));
    run.same("queue_i32_2pow32.cpp.bin", &segment);
}

fn write_stacks(run: &Run) {
    let segment = run.segment();
    let stack = Stack::<i32>::create(&segment, "s", 4).unwrap();
    run.same("stack_i32_fresh.bin", &segment);
    for element in [10, 20, 30] {
        stack.try_push(element).unwrap();
    }
    run.same("stack_i32_push3.bin", &segment);
    assert_eq!(stack.try_pop(), Ok(Some(30)));
    assert_eq!(stack.peek(), Ok(Some(20)));
    run.same("stack_i32_pop1.bin", &segment);
    stack.try_push(40).unwrap();
    stack.try_push(50).unwrap();
    assert!(matches!(stack.try_push(60), Err(TryPushError::Full(_))));
    run.same("stack_i32_full.bin", &segment);

    let segment = run.segment();
    let stack = Stack::<u8>::create(&segment, "s", 3).unwrap();
    stack.try_push(1).unwrap();
    stack.try_push(2).unwrap();
    run.same("stack_u8_cap3.bin", &segment);

    let segment = run.segment();
    let stack = Stack::<i32>::create(&segment, "s", 4).unwrap();
    stack.try_push(1).unwrap();
    stack.try_push(2).unwrap();
    let state = |slot: u64| 800 + 32 + 4 * slot;
    let segment = run.poke(segment, &[(state(1), &[1])]);
    let stack = Stack::<i32>::open(&segment, "s").unwrap();
    assert!(matches!(stack.try_pop(), Err(OpError::Stuck { .. })));
    run.same("stack_i32_dead_writer.cpp.bin", &segment);
    let segment = run.poke(segment, &[(state(2), &[3])]);
    let stack = Stack::<i32>::open(&segment, "s").unwrap();
    assert!(matches!(stack.try_push(9), Err(TryPushError::Stuck(_))));
    run.same("stack_i32_dead_reader.cpp.bin", &segment);
}

fn write_rings(run: &Run) {
    let segment = run.segment();
    let mut ring = Ring::<i32>::create_bytes(&segment, "r", 18).unwrap();
    run.same("ring_i32_fresh.bin", &segment);
    for element in [1, 2, 3, 4] {
        ring.try_write(element).unwrap();
    }
    assert_eq!(ring.try_write(5), Err(Full(5)));
    assert_eq!((ring.try_read(), ring.try_read()), (Some(1), Some(2)));
    assert_eq!(ring.try_write_slice(&[5, 6, 7]), 2);
    run.same("ring_i32_wrapped.bin", &segment);
    let mut three = [0; 3];
    assert_eq!(ring.try_read_slice(&mut three), 3);
    assert_eq!(three, [3, 4, 5]);
    run.same("ring_i32_bulk.bin", &segment);

    let segment = run.segment();
    let mut ring = Ring::<f64>::create(&segment, "r", 3).unwrap();
    ring.try_write(1.5).unwrap();
    ring.try_write(2.5).unwrap();
    run.same("ring_f64.bin", &segment);
}

fn write_pools(run: &Run) {
    let segment = run.segment();
    let pool = Pool::<i32>::create(&segment, "p", 4).unwrap();
    run.same("pool_i32_fresh.bin", &segment);
    for (index, element) in [11, 22, 33].into_iter().enumerate() {
        assert_eq!(pool.allocate_with(element), Ok(index as u32));
    }
    run.same("pool_i32_alloc3.bin", &segment);
    pool.deallocate(1).unwrap();
    run.same("pool_i32_free1.bin", &segment);
    assert_eq!(pool.allocate_with(44), Ok(1));
    assert_eq!(pool.allocate(), Ok(Some(3)));
    assert_eq!(pool.allocate(), Ok(None));
    run.same("pool_i32_exhausted.bin", &segment);

    let segment = run.segment();
    let pool = Pool::<f64>::create(&segment, "p", 3).unwrap();
    pool.allocate_with(1.5).unwrap();
    pool.allocate_with(2.5).unwrap();
    run.same("pool_f64.bin", &segment);

    let segment = run.segment();
    let pool = Pool::<[u8; 3]>::create(&segment, "p", 3).unwrap();
    pool.allocate_with([1, 2, 3]).unwrap();
    run.same("pool_3byte.bin", &segment);
}

fn new_map<K: polyshm_zeroipc::Key, V: polyshm_zeroipc::Element>(
    dialect: Dialect,
    segment: &Memory,
    capacity: u64,
) -> Map<K, V> {
    let map = match dialect {
        Dialect::Cpp => Map::create(segment, "m", capacity),
        Dialect::Python => Map::create_python(segment, "m", capacity),
    };
    map.unwrap()
}

fn write_maps(run: &Run) {
    const STORED: [Mark; 1] = [Mark::Epoch];
    for (dialect, end) in [(Dialect::Cpp, "cpp.bin"), (Dialect::Python, "py.bin")] {
        let file = |base: &str| format!("{base}.{end}");
        let segment = run.segment();
        let map = new_map::<i32, i32>(dialect, &segment, 8);
        for key in [1, 9, 17, 0, -1] {
            assert_eq!(map.insert(key, key * 10), Ok(Inserted::New));
        }
        run.check(&file("map_i32_i32"), &segment, &STORED, &[]);
        assert_eq!(map.remove(9), Ok(true));
        run.check(&file("map_i32_i32_erased"), &segment, &STORED, &[]);
        assert_eq!(map.insert(17, 1717), Ok(Inserted::Updated));
        assert_eq!(map.insert(25, 250), Ok(Inserted::New));
        run.check(&file("map_i32_i32_reused"), &segment, &STORED, &[]);

        let segment = run.segment();
        let map = new_map::<u32, f64>(dialect, &segment, 4);
        for (key, value) in [(7, 0.5), (8, 1.5), (11, 2.5), (12, 3.5)] {
            assert_eq!(map.insert(key, value), Ok(Inserted::New));
        }
        assert!(matches!(map.insert(99, 4.5), Err(InsertError::Full(_))));
        run.check(&file("map_u32_f64_full"), &segment, &STORED, &[]);

        let segment = run.segment();
        let map = new_map::<u64, u64>(dialect, &segment, 8);
        map.insert(5_000_000_000, 1).unwrap();
        map.insert(3, 2).unwrap();
        run.check(&file("map_u64_u64"), &segment, &STORED, &[]);

        let segment = run.segment();
        let map = new_map::<[u8; 16], u64>(dialect, &segment, 8);
        for key in ["alpha", "beta", "gamma", "delta"] {
            map.insert(byte_key(key).unwrap(), key.len() as u64)
                .unwrap();
        }
        if dialect == Dialect::Python {
            assert_eq!(map.get(byte_key("alpha").unwrap()), Ok(Some(5)));
            assert_eq!(map.get(byte_key("zeta").unwrap()), Ok(None));
        }
        run.check(&file("map_char16_u64"), &segment, &STORED, &[]);

        let create = match dialect {
            Dialect::Cpp => Set::<i32>::create,
            Dialect::Python => Set::<i32>::create_python,
        };
        let segment = run.segment();
        let set = create(&segment, "t", 8).unwrap();
        for element in [1, 9, 17, 0, -1] {
            assert_eq!(set.insert(element), Ok(true));
        }
        assert_eq!(set.insert(9), Ok(false), "Python says true");
        assert_eq!(set.remove(1), Ok(true));
        run.check(&file("set_i32"), &segment, &STORED, &[]);

        let create = match dialect {
            Dialect::Cpp => Set::<u64>::create,
            Dialect::Python => Set::<u64>::create_python,
        };
        let segment = run.segment();
        let set = create(&segment, "t", 4).unwrap();
        assert_eq!((set.insert(10), set.insert(20)), (Ok(true), Ok(true)));
        run.check(&file("set_u64"), &segment, &STORED, &[]);
    }

    let segment = run.segment();
    let map = new_map::<f64, i32>(Dialect::Cpp, &segment, 8);
    for (key, value) in [(0.0, 1), (-0.0, 2), (1.5, 3)] {
        assert_eq!(map.insert(key, value), Ok(Inserted::New), "{key}");
    }
    run.check("map_f64_i32.cpp.bin", &segment, &STORED, &[]);

    let segment = run.segment();
    let set = Set::<[u8; 8]>::create(&segment, "t", 8).unwrap();
    for element in ["a", "bb", "ccc"] {
        assert_eq!(set.insert(byte_key(element).unwrap()), Ok(true));
    }
    run.check("set_char8.cpp.bin", &segment, &STORED, &[]);
}

fn write_locks(run: &Run) {
    let segment = run.segment();
    let semaphore = Semaphore::create(&segment, "s", 2, Some(5)).unwrap();
    run.same("semaphore_fresh.bin", &segment);
    let first = semaphore.acquire().unwrap();
    run.same("semaphore_acq1.bin", &segment);
    let second = semaphore.try_acquire().unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| semaphore.acquire_within(PATIENCE).map(drop));
        run.soon("semaphore_waiter.bin", &segment, &[], &[]);
        drop(first);
        waiter.join().unwrap().unwrap();
    });
    drop(second);
    run.same("semaphore_fresh.bin", &segment);

    let segment = run.segment();
    let semaphore = Semaphore::create(&segment, "u", 0, None).unwrap();
    semaphore.release().unwrap();
    semaphore.release().unwrap();
    run.same("semaphore_unbounded.bin", &segment);

    let segment = run.segment();
    let mutex = Mutex::create(&segment, "mx").unwrap();
    run.same("mutex_unlocked.bin", &segment);
    let guard = mutex.lock().unwrap();
    run.check("mutex_locked.bin", &segment, &[Mark::Lock("mx")], &[]);
    drop(guard);
    run.same("mutex_unlocked.bin", &segment);

    let segment = run.segment();
    let lock = RwLock::create(&segment, "rw").unwrap();
    run.same("rwlock_fresh.bin", &segment);
    let readers = [lock.read().unwrap(), lock.try_read().unwrap()];
    run.check("rwlock_2readers.bin", &segment, &[Mark::Readers("rw")], &[]);
    drop(readers);
    run.same("rwlock_fresh.bin", &segment);
    let writer = lock.write().unwrap();
    let held = [Mark::Lock("rw_wmtx")];
    run.check("rwlock_writer.bin", &segment, &held, &[]);
    drop(writer);
    run.same("rwlock_fresh.bin", &segment);

    let segment = run.segment();
    let monitor = Monitor::create(&segment, "mon").unwrap();
    run.same("monitor_fresh.bin", &segment);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let guard = monitor.lock_within(PATIENCE).unwrap();
            guard.wait_within(PATIENCE).unwrap().1
        });
        run.soon("monitor_waiter.bin", &segment, &[], &[]);
        monitor.notify_one();
        assert!(waiter.join().unwrap(), "it was notified");
    });
    let notified = Mark::Notified("mon_count");
    run.check("monitor_fresh.bin", &segment, &[notified], &[]);
    let guard = monitor.lock().unwrap();
    let marks = [notified, Mark::Lock("mon_mtx")];
    run.check("monitor_locked.bin", &segment, &marks, &[]);
    drop(guard);
    run.check("monitor_fresh.bin", &segment, &[notified], &[]);
}

fn write_meetings(run: &Run) {
    let segment = run.segment();
    let barrier = Barrier::create(&segment, "b", 3).unwrap();
    run.same("barrier_fresh.bin", &segment);
    std::thread::scope(|scope| {
        let wait = || barrier.wait_within(PATIENCE).unwrap();
        let mut threads = vec![scope.spawn(wait)];
        run.soon("barrier_arrived1.bin", &segment, &[], &[]);
        threads.push(scope.spawn(wait));
        threads.push(scope.spawn(wait));
        let last = threads.into_iter();
        let last = last.map(|thread| thread.join().unwrap());
        assert_eq!(last.filter(|last| *last).count(), 1);
    });
    run.same("barrier_gen1.bin", &segment);
    timeout(barrier.wait_within(Duration::from_millis(2)));
    run.same("barrier_timeout.bin", &segment);

    let segment = run.segment();
    let latch = Latch::create(&segment, "l", 3).unwrap();
    assert_eq!(latch.count_down(1), 2);
    run.same("latch_2of3.bin", &segment);
    assert_eq!(latch.count_down(5), 0);
    run.same("latch_zero.bin", &segment);

    let segment = run.segment();
    let once = Once::create(&segment, "o").unwrap();
    run.same("once_pending.bin", &segment);
    let called = once.call(|_| run.check("once_executing.bin", &segment, &[Mark::Once("o")], &[]));
    assert_eq!(called, Ok(OnceOutcome::Ran));
    run.same("once_done.bin", &segment);

    let segment = run.segment();
    let event = Event::create(&segment, "e", EventMode::Auto).unwrap();
    run.same("event_auto_fresh.bin", &segment);
    event.signal();
    run.same("event_auto_signaled.bin", &segment);
    event.wait().unwrap();
    run.same("event_auto_consumed.bin", &segment);

    let segment = run.segment();
    let event = Event::create(&segment, "e", EventMode::Manual).unwrap();
    event.signal();
    run.same("event_manual_signaled.bin", &segment);
    event.reset();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| event.wait_within(PATIENCE));
        run.soon("event_manual_waiter.cpp.bin", &segment, &[], &[]);
        // Python never counts its waiters; we do as C++ does.
        let counted = [(800 + 8, 0, 1)];
        run.check("event_manual_waiter.py.bin", &segment, &[], &counted);
        event.signal();
        waiter.join().unwrap().unwrap();
    });
    run.same("event_manual_signaled.bin", &segment);
}

fn write_cells(run: &Run) {
    for (dialect, end) in [(Dialect::Cpp, "cpp.bin"), (Dialect::Python, "py.bin")] {
        let file = |base: &str| format!("{base}.{end}");
        let segment = run.segment();
        let signal = match dialect {
            Dialect::Cpp => Signal::create(&segment, "sig", 42),
            Dialect::Python => Signal::create_python(&segment, "sig", 42),
        };
        let signal = signal.unwrap();
        run.same(&file("signal_i32_fresh"), &segment);
        signal.set(43).unwrap();
        assert_eq!(signal.update(|value| value * 2), Ok(86));
        run.same(&file("signal_i32_v2"), &segment);

        let segment = run.segment();
        let future = match dialect {
            Dialect::Cpp => Future::<i32>::create(&segment, "f"),
            Dialect::Python => Future::create_python(&segment, "f"),
        };
        let future = future.unwrap();
        run.same(&file("future_i32_pending"), &segment);
        assert_eq!(future.set(99), Ok(SetOutcome::Set));
        run.same(&file("future_i32_ready"), &segment);

        let segment = run.segment();
        let future = match dialect {
            Dialect::Cpp => Future::<f64>::create(&segment, "f"),
            Dialect::Python => Future::create_python(&segment, "f"),
        };
        let future = future.unwrap();
        assert_eq!(future.set_error("boom"), Ok(SetOutcome::Set));
        run.same(&file("future_f64_error"), &segment);
    }
    let segment = run.segment();
    let signal = Signal::create(&segment, "sig", 1.5).unwrap();
    signal.set(2.5).unwrap();
    run.same("signal_f64_v1.bin", &segment);
    // Eight bytes: both formats are one.
    let segment = run.segment();
    let signal = Signal::create_python(&segment, "sig", 1.5).unwrap();
    signal.set(2.5).unwrap();
    run.same("signal_f64_v1.bin", &segment);

    let segment = run.segment();
    let c = Lazy::constant(&segment, "c", 7).unwrap();
    let d = Lazy::constant(&segment, "d", 5).unwrap();
    let sum = Lazy::sum(&segment, "sum", &c, &d).unwrap();
    run.same("lazy_i32_add.cpp.bin", &segment);
    assert_eq!(sum.force(), Ok(12));
    run.same("lazy_i32_forced.cpp.bin", &segment);

    let segment = run.segment();
    Lazy::create_python(&segment, "c", Some(7)).unwrap();
    let sum = Lazy::<i32>::create_python(&segment, "sum", None).unwrap();
    run.same("lazy_i32_add.py.bin", &segment);
    assert_eq!(sum.force_with(|_| Ok::<_, String>(12)), Ok(12));
    run.same("lazy_i32_forced.py.bin", &segment);

    let segment = run.segment();
    Lazy::constant(&segment, "c", 2.5).unwrap();
    let failed = Lazy::<f64>::external(&segment, "e").unwrap();
    assert!(matches!(failed.force(), Err(OpError::Failed { .. })));
    run.same("lazy_f64_err.cpp.bin", &segment);

    let segment = run.segment();
    let t = LazyBool::constant(&segment, "t", true).unwrap();
    let u = LazyBool::constant(&segment, "u", false).unwrap();
    LazyBool::and(&segment, "and", &t, &u).unwrap();
    run.same("lazy_bool.cpp.bin", &segment);
}

fn write_channels(run: &Run) {
    for (dialect, end) in [(Dialect::Cpp, "cpp.bin"), (Dialect::Python, "py.bin")] {
        let file = |base: &str| format!("{base}.{end}");
        let create = |segment: &Memory, capacity| {
            let channel = match dialect {
                Dialect::Cpp => Channel::<i32>::create(segment, "ch", capacity),
                Dialect::Python => Channel::create_python(segment, "ch", capacity),
            };
            channel.unwrap()
        };
        let segment = run.segment();
        let channel = create(&segment, 3);
        channel.send(1).unwrap();
        channel.try_send(2).unwrap();
        run.same(&file("channel_buffered"), &segment);
        assert_eq!(channel.receive(), Ok(1));
        channel.close();
        assert!(channel.send(3).unwrap_err().error.is_closed());
        run.same(&file("channel_closed"), &segment);

        let segment = run.segment();
        let channel = create(&segment, 0);
        run.same(&file("channel_unbuffered_fresh"), &segment);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| channel.send_within(77, PATIENCE));
            let turn: &[Mark] = match dialect {
                Dialect::Cpp => &[Mark::Sending("ch_header")],
                Dialect::Python => &[Mark::Asleep],
            };
            run.soon(&file("channel_unbuffered_sender"), &segment, turn, &[]);
            assert_eq!(channel.receive_within(PATIENCE), Ok(77));
            sender.join().unwrap().unwrap();
        });
        run.same(&file("channel_unbuffered_done"), &segment);
    }
    let segment = run.segment();
    Channel::<f64>::create(&segment, "ch", 0).unwrap();
    run.same("channel_unbuffered_f64.cpp.bin", &segment);

    let segment = run.segment();
    let mut stream = Stream::create(&segment, "st", 4).unwrap();
    stream.emit(1.5).unwrap();
    stream.try_emit(2.5).unwrap();
    assert_eq!(stream.next(), Ok(1.5));
    run.same("stream_f64.cpp.bin", &segment);
    stream.close();
    run.same("stream_f64_closed.cpp.bin", &segment);

    let segment = run.segment();
    let mut stream = Stream::create_python(&segment, "st", 4).unwrap();
    stream.emit(1.5).unwrap();
    stream.try_emit(2.5).unwrap();
    assert_eq!(stream.next(), Ok(1.5));
    run.same("stream_f64.py.bin", &segment);

    let segment = run.segment();
    let stream = VoidStream::create(&segment, "ev").unwrap();
    assert!(stream.emit() && stream.emit());
    run.same("stream_void.cpp.bin", &segment);
}

fn write_multi(run: &Run, python: bool) {
    let segment = run.segment_of(16384, 64);
    let temps = Array::<f32>::create(&segment, "temps", 8).unwrap();
    for i in 0..8_u8 {
        temps.set(i.into(), f32::from(20 + i)).unwrap();
    }
    let jobs = Queue::<i32>::create(&segment, "jobs", 8).unwrap();
    assert_eq!(jobs.try_push_slice(&[1, 2]), 2);
    let undo = Stack::<i64>::create(&segment, "undo", 4).unwrap();
    undo.try_push(-5).unwrap();
    Semaphore::create(&segment, "sem", 3, Some(3)).unwrap();
    let lock = Mutex::create(&segment, "lock").unwrap();
    let guard = lock.lock().unwrap();
    Barrier::create(&segment, "bar", 2).unwrap();
    Latch::create(&segment, "gate", 1).unwrap();
    Once::create(&segment, "init").unwrap();
    let ready = Event::create(&segment, "ready", EventMode::Manual).unwrap();
    ready.signal();
    RwLock::create(&segment, "rw").unwrap();
    Monitor::create(&segment, "mon").unwrap();
    let config = Signal::<i64>::create(&segment, "cfg", 1).unwrap();
    config.set(2).unwrap();
    let mut log = Ring::<i16>::create_bytes(&segment, "log", 32).unwrap();
    log.try_write(3).unwrap();
    let (index, seen) = if python {
        let index = Map::<i32, i64>::create_python(&segment, "idx", 8).unwrap();
        (index, Set::<u32>::create_python(&segment, "seen", 8))
    } else {
        let index = Map::<i32, i64>::create(&segment, "idx", 8).unwrap();
        (index, Set::<u32>::create(&segment, "seen", 8))
    };
    index.insert(1, 100).unwrap();
    seen.unwrap().insert(5).unwrap();
    let blocks = Pool::<i64>::create(&segment, "blk", 4).unwrap();
    assert_eq!(blocks.allocate(), Ok(Some(0)));
    let channel = if python {
        Channel::<i32>::create_python(&segment, "ch", 2)
    } else {
        Channel::<i32>::create(&segment, "ch", 2)
    };
    channel.unwrap().send(4).unwrap();
    if python {
        Future::<i64>::create_python(&segment, "fut").unwrap();
        Lazy::create_python(&segment, "lz", Some(3.5)).unwrap();
    } else {
        Future::<i64>::create(&segment, "fut").unwrap();
        Lazy::constant(&segment, "lz", 3.5).unwrap();
    }
    let feed = if python {
        Stream::<f32>::create_python(&segment, "feed", 4)
    } else {
        Stream::<f32>::create(&segment, "feed", 4)
    };
    feed.unwrap().emit(1.0).unwrap();
    let file = if python {
        "multi.py.bin"
    } else {
        "multi.cpp.bin"
    };
    let marks = [Mark::Lock("lock"), Mark::Epoch];
    run.check(file, &segment, &marks, &[]);
    drop(guard);
}

/// Does all steps of all images.
fn write_all(run: &Run) {
    for case in [
        write_tables,
        write_arrays,
        write_queues,
        write_stacks,
        write_rings,
        write_pools,
        write_maps,
        write_locks,
        write_meetings,
        write_cells,
        write_channels,
    ] {
        case(run);
    }
    write_multi(run, false);
    write_multi(run, true);
    let all: BTreeSet<_> = run.images.keys().cloned().collect();
    assert_eq!(*run.written.borrow(), all, "no image is left out");
}

#[test]
fn every_image_is_written_to_the_byte() {
    write_all(&Run::new(false, false));
}

#[test]
fn every_image_is_written_to_the_byte_in_a_segment() {
    write_all(&Run::new(true, false));
}

#[test]
fn native_marks_change_ignored_bytes_alone() {
    write_all(&Run::new(false, true));
}

#[test]
fn native_marks_change_ignored_bytes_alone_in_a_segment() {
    write_all(&Run::new(true, true));
}

// Native marks in states that no image shows.

/// Does the same without and with marks, and gives where the bytes differ.
fn marked(size: u64, steps: impl Fn(&Memory, bool) -> Vec<u8>) -> Vec<usize> {
    let image = |marks| {
        let run = Run {
            images: BTreeMap::new(),
            options: OpenOptions::default().native_marks(marks),
            segments: false,
            written: RefCell::default(),
        };
        steps(&run.segment_of(size, 16), marks)
    };
    let (plain, marked) = (image(false), image(true));
    (0..plain.len())
        .filter(|at| plain[*at] != marked[*at])
        .collect()
}

#[track_caller]
fn assert_within(differing: &[usize], range: std::ops::Range<usize>) {
    assert!(!differing.is_empty(), "there is no mark");
    assert!(
        differing.iter().all(|at| range.contains(at)),
        "{differing:?} beside {range:?}"
    );
}

#[test]
fn a_running_function_of_a_lazy_value_marks_the_end_of_its_error_text() {
    // The text ends at 276 of 280 bytes in C++, and at the entry's end in Python.
    for (dialect, end) in [(Dialect::Cpp, 276), (Dialect::Python, 264)] {
        let create = |memory: &Memory| {
            let lazy = match dialect {
                Dialect::Cpp => Lazy::<i32>::external(memory, "z"),
                Dialect::Python => Lazy::create_python(memory, "z", None),
            };
            lazy.unwrap()
        };
        let differing = marked(4096, |memory, _| {
            let mut image = Vec::new();
            let value = create(memory).force_with(|_| {
                image = memory.image();
                Ok::<_, String>(5)
            });
            assert_eq!(value, Ok(5));
            image
        });
        assert_within(&differing, 800 + end - 4..800 + end);
        let ends = |outcome: Result<i32, usize>| {
            marked(4096, |memory, _| {
                let outcome = outcome.map_err(|len| "x".repeat(len));
                let _ = create(memory).force_with(|_| outcome);
                memory.image()
            })
        };
        for outcome in [Ok(5), Err(0), Err(9), Err(251)] {
            assert_eq!(ends(outcome), [0; 0], "{dialect} {outcome:?}");
        }
        // A text that long is cut before the mark's bytes.
        let cut = 800 + end - 5..800 + end;
        assert_within(&ends(Err(252)), cut.clone());
        assert_within(&ends(Err(999)), cut);
        let differing = marked(4096, |memory, _| {
            let lazy = create(memory);
            let panics = std::panic::AssertUnwindSafe(|| {
                lazy.force_with(|_| -> Result<i32, String> { panic!("as wanted") })
            });
            assert!(std::panic::catch_unwind(panics).is_err());
            memory.image()
        });
        assert_eq!(differing, [0; 0], "{dialect}");
    }
}

#[test]
fn an_update_marks_the_signals_mutex() {
    let differing = marked(4096, |memory, _| {
        let signal = Signal::create(memory, "sig", [1_u8; 12]).unwrap();
        let mut image = Vec::new();
        let updated = signal.update(|value| {
            image = memory.image();
            value
        });
        assert_eq!(updated, Ok([1; 12]));
        image
    });
    // After 24 bytes of state.
    assert_within(&differing, 824 + 12..824 + 16);
}

/// An image that a waiting thread leaves, once `there` says so.
fn while_waiting(
    memory: &Memory,
    wait: impl FnOnce() + Send,
    there: impl Fn(&[u8]) -> bool,
    end: impl FnOnce(),
) -> Vec<u8> {
    std::thread::scope(|scope| {
        let waiter = scope.spawn(wait);
        let start = Instant::now();
        let mut image = memory.image();
        while !there(&image) && start.elapsed() < PATIENCE {
            std::thread::sleep(MOMENT);
            image = memory.image();
        }
        end();
        waiter.join().unwrap();
        image
    })
}

#[test]
fn a_receiver_marks_its_turn() {
    let differing = marked(4096, |memory, marks| {
        let channel = Channel::<i32>::create(memory, "ch", 0).unwrap();
        while_waiting(
            memory,
            || assert_eq!(channel.receive_within(PATIENCE), Ok(7)),
            // The turn comes after the count of receivers.
            |image| image[800 + 8] == 1 && (!marks || image[824..832] != [0; 8]),
            || channel.send_within(7, PATIENCE).unwrap(),
        )
    });
    assert_within(&differing, 824..832);
    // And a sender while a receiver takes it leaves nothing.
    let differing = marked(4096, |memory, _| {
        let channel = Channel::<i32>::create(memory, "ch", 0).unwrap();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| channel.receive_within(PATIENCE));
            channel.send_within(7, PATIENCE).unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(7));
        });
        timeout(channel.try_receive());
        timeout(channel.try_send(1).map_err(|refused| refused.error));
        memory.image()
    });
    assert_eq!(differing, [0; 0]);
}

#[test]
fn a_sleeper_is_counted_in_the_spare_slot_and_leaves_nothing() {
    let spare = entry_at(15) as usize;
    let sleeps = move |image: &[u8], marks: bool| !marks || image[spare..spare + 8] != [0; 8];
    let differing = marked(4096, |memory, marks| {
        let queue = Queue::<u8>::create(memory, "q", 2).unwrap();
        while_waiting(
            memory,
            || assert_eq!(queue.pop_within(PATIENCE), Ok(1)),
            |image| sleeps(image, marks),
            || queue.try_push(1).unwrap(),
        )
    });
    assert_within(&differing, spare..spare + 8);
    let differing = marked(4096, |memory, _| {
        let queue = Queue::<u8>::create(memory, "q", 2).unwrap();
        while_waiting(
            memory,
            || timeout(queue.pop_within(20 * MOMENT)),
            |_| true,
            || (),
        );
        memory.image()
    });
    assert_eq!(differing, [0; 0]);
}

/// Marks lie in padding, and where there is none, there are none.
#[test]
fn no_mark_reaches_behind_the_segment() {
    let end = entry_at(16);
    let differing = marked(end + 4, |memory, _| {
        let once = Once::create(memory, "o").unwrap();
        let mut image = Vec::new();
        once.call(|_| image = memory.image()).unwrap();
        image
    });
    assert_eq!(differing, [0; 0]);
    for room in 0..8 {
        let differing = marked(end + 41 + room, |memory, _| {
            let lock = RwLock::create(memory, "rw").unwrap();
            let _reader = lock.read().unwrap();
            memory.image()
        });
        assert_eq!(differing.is_empty(), room < 7, "{room}: {differing:?}");
    }
}

/// What an entry covers is never marked, also if it starts right behind.
#[test]
fn no_mark_is_left_in_anothers_bytes() {
    let run = Run::new(false, true);
    let segment = run.segment();
    Once::create(&segment, "o").unwrap();
    VoidStream::create(&segment, "v").unwrap();
    // As no implementation places it: at 804, four bytes after the once.
    let entry = entry_at(1);
    let segment = run.poke(segment, &[(entry + 32, &804_u64.to_le_bytes())]);
    let before = segment.image();
    let once = Once::open(&segment, "o").unwrap();
    let called = once.call(|_| assert_eq!(segment.image()[804..820], before[804..820]));
    assert_eq!(called, Ok(OnceOutcome::Ran));
}

/// The last slot serves the marks only until a name needs it.
#[test]
fn a_full_table_keeps_its_last_name() {
    let run = Run::new(false, true);
    let segment = run.segment_of(4096, 2);
    let queue = Queue::<u8>::create(&segment, "queue", 2).unwrap();
    let spare = entry_at(1) as usize;
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| queue.pop_within(PATIENCE));
        let start = Instant::now();
        while segment.image()[spare..spare + 8] == [0; 8] && start.elapsed() < PATIENCE {
            std::thread::sleep(MOMENT);
        }
        // Over the sleeper's count.
        let map = Map::<u32, [u8; 3]>::create(&segment, "the last name of all, of thirty", 4);
        let map = map.unwrap();
        map.insert(1, [1; 3]).unwrap();
        map.insert(1, [2; 3]).unwrap();
        map.remove(1).unwrap();
        queue.try_push(5).unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(5));
    });
    timeout(queue.pop_within(5 * MOMENT));
    let name = &segment.image()[spare..spare + 32];
    assert_eq!(name, b"the last name of all, of thirty\0");
}
