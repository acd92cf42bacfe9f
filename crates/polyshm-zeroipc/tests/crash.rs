//! Kills a process just before each numbered step of each operation, and checks
//! what the survivors get, and that service can be restored.
//!
//! Runs under `--cfg crash_points` (`cargo xtask crash`).
#![cfg(all(crash_points, target_os = "linux"))]

use polyshm_platform::crash;
use polyshm_testkit::{Name, Outcome, child, role, tell};
use polyshm_zeroipc::{
    Array, Barrier, Channel, Event, EventMode, Future, Inserted, Latch, Lazy, LazyBool, Map,
    Memory, MemoryOptions, Monitor, Mutex, Once, OpError, OpenOptions, Pool, Queue, Ring, RwLock,
    Semaphore, Set, Signal, Stack, Stream, VoidStream,
};
use std::{collections::BTreeMap, time::Duration};

/// A survivor's deadline: long enough to notice a death, and no longer.
const DEADLINE: Duration = Duration::from_millis(400);
/// What nothing should take.
const WATCHDOG: Duration = Duration::from_secs(20);

/// One operation, and what must hold around its maker's death.
struct Scenario {
    name: &'static str,
    /// Before: by a process that lives.
    setup: fn(&Memory),
    /// What the victim does. It has opened the memory before.
    victim: fn(&Memory),
    /// Beside the victim, in another thread of the parent.
    partner: fn(&Memory),
    /// What a survivor does next: all of it, or the error that named the
    /// obstacle. Wrong values panic.
    survive: fn(&Memory) -> Result<(), OpError>,
    /// The documented way out.
    repair: fn(&Memory),
    /// After it everything works.
    serve: fn(&Memory),
}

fn nothing(_: &Memory) {}

/// Opens what the setup made.
macro_rules! open {
    ($kind:ty, $memory:expr) => {
        <$kind>::open($memory, "it").expect("the setup made it")
    };
}

type Item = [u64; 2];

/// An element whose halves belong together.
fn item(number: u64) -> Item {
    [number, !number]
}

fn number([number, check]: Item) -> u64 {
    assert_eq!(check, !number, "torn");
    number
}

fn scenarios() -> Vec<Scenario> {
    let mut all = containers();
    all.extend(locks());
    all.extend(codata());
    all.extend(table());
    all
}

fn fill_queue(memory: &Memory) {
    let queue = Queue::<Item>::create(memory, "it", 4).expect("it fits");
    for number in 1..=3 {
        queue.try_push(item(number)).expect("there is room");
    }
}

/// Takes everything out; what was there before comes in order.
fn drain_queue(memory: &Memory, expected: &[u64]) -> Result<(), OpError> {
    let queue = open!(Queue<Item>, memory);
    let mut expected = expected.iter();
    for _ in 0..16 {
        match queue.pop_within(Duration::from_millis(50)) {
            Ok(got) => {
                let got = number(got);
                assert!(expected.any(|&number| number == got), "{got} out of order");
            }
            Err(OpError::Timeout { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    panic!("more than there was");
}

fn serve_queue(memory: &Memory) {
    let queue = open!(Queue<Item>, memory);
    while queue.try_pop().is_some() {}
    assert!(queue.is_empty());
    for round in 0..3 {
        for number in 0..4 {
            queue
                .try_push(item(10 * round + number))
                .expect("it is empty");
        }
        assert!(queue.try_push(item(9)).is_err(), "it is full");
        for number in 0..4 {
            assert_eq!(queue.try_pop(), Some(item(10 * round + number)));
        }
    }
}

fn drain_stack(memory: &Memory) -> Result<(), OpError> {
    let stack = open!(Stack<Item>, memory);
    let mut last = u64::MAX;
    while let Some(got) = stack.try_pop()? {
        let got = number(got);
        assert!(got < last, "{got} out of order");
        last = got;
    }
    stack
        .push_within(item(9), DEADLINE)
        .map_err(|refused| refused.error)?;
    assert_eq!(stack.pop_within(DEADLINE)?, item(9));
    Ok(())
}

fn serve_stack(memory: &Memory) {
    let stack = open!(Stack<Item>, memory);
    while stack.try_pop().expect("nothing is stuck").is_some() {}
    for number in 0..4 {
        stack.try_push(item(number)).expect("it is empty");
    }
    assert!(stack.try_push(item(9)).is_err(), "it is full");
    for number in (0..4).rev() {
        assert_eq!(stack.try_pop(), Ok(Some(item(number))));
    }
}

fn fill_stack(memory: &Memory) {
    let stack = Stack::<Item>::create(memory, "it", 4).expect("it fits");
    stack.try_push(item(1)).expect("there is room");
    stack.try_push(item(2)).expect("there is room");
}

/// Keys 1 to 3 are there with ten times their number; 1 and 9 share a home.
fn fill_map(memory: &Memory) {
    let map = Map::<u64, u64>::create(memory, "it", 8).expect("it fits");
    let python = Map::<u64, Item>::create_python(memory, "python", 8).expect("it fits");
    for key in 1..=3 {
        map.insert(key, key * 10).expect("there is room");
        python.insert(key, item(key * 10)).expect("there is room");
    }
}

fn survive_map(memory: &Memory) -> Result<(), OpError> {
    let map = open!(Map<u64, u64>, memory);
    let python = Map::<u64, Item>::open_python(memory, "python").expect("the setup made it");
    for key in 1..=3 {
        // 1 is what victims change.
        let found = map.get(key)?;
        assert!(
            found.is_none_or(|value| value / 10 == key || value == 11),
            "{found:?}"
        );
        assert!(
            key == 1 || found == Some(key * 10),
            "a bystander: {found:?}"
        );
        let found = python.get(key)?.map(number);
        assert!(
            key == 1 || found == Some(key * 10),
            "a bystander: {found:?}"
        );
    }
    map.insert(9, 90).map_err(|error| match error {
        polyshm_zeroipc::InsertError::Stuck(refused) => refused.error,
        other => panic!("{other}"),
    })?;
    assert_eq!(map.get(9)?, Some(90));
    Ok(())
}

fn repair_map(memory: &Memory) {
    open!(Map<u64, u64>, memory).repair();
    Map::<u64, Item>::open_python(memory, "python")
        .expect("made")
        .repair();
}

fn serve_map(memory: &Memory) {
    let map = open!(Map<u64, u64>, memory);
    for key in 0..8 {
        map.insert(key, key)
            .or_else(|_| map.remove(9).map(|_| Inserted::New))
            .expect("room");
    }
    map.remove(9).expect("nothing is stuck");
    for key in 0..8 {
        map.insert(key, key).expect("there is room");
        assert_eq!(map.get(key), Ok(Some(key)));
    }
    assert_eq!(map.len(), 8);
    assert_eq!(map.to_vec().len(), 8);
}

#[expect(clippy::too_many_lines, reason = "a table of scenarios")]
fn containers() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "array write",
            setup: |memory| drop(Array::<u64>::create(memory, "it", 3).expect("it fits")),
            victim: |memory| {
                let array = open!(Array<u64>, memory);
                array.write(0, &[7, 7, 7]).expect("inside");
            },
            partner: nothing,
            survive: |memory| {
                for element in open!(Array<u64>, memory).to_vec() {
                    assert!(element == 0 || element == 7, "torn: {element}");
                }
                Ok(())
            },
            repair: nothing,
            serve: |memory| open!(Array<u64>, memory).set(0, 1).expect("inside"),
        },
        Scenario {
            name: "queue push",
            setup: fill_queue,
            victim: |memory| open!(Queue<Item>, memory).try_push(item(4)).expect("room"),
            partner: nothing,
            survive: |memory| drain_queue(memory, &[1, 2, 3, 4]),
            repair: |memory| {
                let _ = open!(Queue<Item>, memory).repair();
            },
            serve: serve_queue,
        },
        Scenario {
            name: "queue pop",
            setup: fill_queue,
            victim: |memory| {
                let _ = open!(Queue<Item>, memory).try_pop();
            },
            partner: nothing,
            survive: |memory| {
                drain_queue(memory, &[1, 2, 3])?;
                let queue = open!(Queue<Item>, memory);
                for number in 10..14 {
                    queue
                        .push_within(item(number), DEADLINE)
                        .map_err(|refused| refused.error)?;
                }
                drain_queue(memory, &[10, 11, 12, 13])
            },
            repair: |memory| {
                let _ = open!(Queue<Item>, memory).repair();
            },
            serve: serve_queue,
        },
        Scenario {
            name: "queue batch",
            setup: fill_queue,
            victim: |memory| {
                let queue = open!(Queue<Item>, memory);
                let mut got = [[0; 2]; 2];
                assert_eq!(queue.try_pop_slice(&mut got), 2);
                assert_eq!(queue.try_push_slice(&[item(4), item(5), item(6)]), 3);
            },
            partner: nothing,
            survive: |memory| drain_queue(memory, &[1, 2, 3, 4, 5, 6]),
            repair: |memory| {
                let _ = open!(Queue<Item>, memory).repair();
            },
            serve: serve_queue,
        },
        Scenario {
            name: "stack push",
            setup: fill_stack,
            victim: |memory| open!(Stack<Item>, memory).try_push(item(3)).expect("room"),
            partner: nothing,
            survive: drain_stack,
            repair: |memory| {
                let _ = open!(Stack<Item>, memory).repair();
            },
            serve: serve_stack,
        },
        Scenario {
            name: "stack pop and peek",
            setup: fill_stack,
            victim: |memory| {
                let stack = open!(Stack<Item>, memory);
                assert_eq!(stack.peek(), Ok(Some(item(2))));
                assert_eq!(stack.try_pop(), Ok(Some(item(2))));
            },
            partner: nothing,
            survive: drain_stack,
            repair: |memory| {
                let _ = open!(Stack<Item>, memory).repair();
            },
            serve: serve_stack,
        },
        Scenario {
            name: "ring write and read",
            setup: |memory| {
                let mut ring = Ring::<Item>::create(memory, "it", 3).expect("it fits");
                ring.try_write(item(1)).expect("there is room");
            },
            victim: |memory| {
                let mut ring = open!(Ring<Item>, memory);
                ring.try_write(item(2)).expect("there is room");
                assert_eq!(ring.try_read(), Some(item(1)));
                ring.try_write(item(3)).expect("there is room");
            },
            partner: nothing,
            survive: |memory| {
                let mut ring = open!(Ring<Item>, memory);
                let mut last = 0;
                while let Some(got) = ring.try_read() {
                    let got = number(got);
                    assert!(got > last && got <= 3, "{got} out of order");
                    last = got;
                }
                Ok(())
            },
            repair: nothing,
            serve: |memory| {
                let mut ring = open!(Ring<Item>, memory);
                for number in 4..10 {
                    ring.try_write(item(number)).expect("it is empty");
                    assert_eq!(ring.try_read(), Some(item(number)));
                }
            },
        },
        Scenario {
            name: "pool",
            setup: |memory| drop(Pool::<u64>::create(memory, "it", 3).expect("it fits")),
            victim: |memory| {
                let pool = open!(Pool<u64>, memory);
                let one = pool.allocate_with(5).expect("free");
                let two = pool.allocate_with(6).expect("free");
                pool.deallocate(one).expect("ours");
                pool.deallocate(two).expect("ours");
            },
            partner: nothing,
            survive: |memory| {
                let pool = open!(Pool<u64>, memory);
                let mut taken = Vec::new();
                while let Some(index) = pool.allocate()? {
                    assert!(!taken.contains(&index), "given twice");
                    taken.push(index);
                }
                for index in taken {
                    pool.deallocate(index).expect("ours");
                }
                Ok(())
            },
            repair: |memory| open!(Pool<u64>, memory).repair(&[]),
            serve: |memory| {
                let pool = open!(Pool<u64>, memory);
                assert_eq!(
                    (pool.allocated(), pool.free_list().map(|list| list.len())),
                    (0, Some(3))
                );
            },
        },
        Scenario {
            name: "map insert",
            setup: fill_map,
            victim: |memory| {
                let map = open!(Map<u64, u64>, memory);
                map.insert(9, 90).expect("there is room");
            },
            partner: nothing,
            survive: survive_map,
            repair: repair_map,
            serve: serve_map,
        },
        Scenario {
            name: "map update",
            setup: fill_map,
            victim: |memory| {
                let map = open!(Map<u64, u64>, memory);
                map.insert(1, 11).expect("it is there");
                let python = Map::<u64, Item>::open_python(memory, "python").expect("made");
                python.insert(1, item(11)).expect("it is there");
            },
            partner: nothing,
            survive: survive_map,
            repair: repair_map,
            serve: serve_map,
        },
        Scenario {
            name: "map remove",
            setup: fill_map,
            victim: |memory| {
                assert_eq!(open!(Map<u64, u64>, memory).remove(1), Ok(true));
                let python = Map::<u64, Item>::open_python(memory, "python").expect("made");
                assert_eq!(python.remove(1), Ok(true));
            },
            partner: nothing,
            survive: survive_map,
            repair: repair_map,
            serve: serve_map,
        },
        Scenario {
            name: "set",
            setup: |memory| {
                let set = Set::<u64>::create(memory, "it", 4).expect("it fits");
                set.insert(1).expect("there is room");
            },
            victim: |memory| {
                let set = open!(Set<u64>, memory);
                assert_eq!(set.insert(5), Ok(true));
                assert_eq!(set.remove(1), Ok(true));
            },
            partner: nothing,
            survive: |memory| {
                let set = open!(Set<u64>, memory);
                set.contains(1)?;
                set.contains(5)?;
                assert!(!set.contains(9)?);
                Ok(())
            },
            repair: |memory| {
                let _ = open!(Set<u64>, memory).repair();
            },
            serve: |memory| {
                let set = open!(Set<u64>, memory);
                for element in [1, 5, 9] {
                    set.insert(element).expect("there is room");
                    assert_eq!(set.contains(element), Ok(true));
                }
                assert_eq!(set.len(), 3);
            },
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of scenarios")]
fn locks() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "semaphore",
            setup: |memory| {
                Semaphore::create(memory, "it", 2, Some(2)).expect("it fits");
            },
            victim: |memory| {
                let seats = open!(Semaphore, memory);
                let one = seats.acquire_within(WATCHDOG).expect("free");
                let two = seats.acquire_within(WATCHDOG).expect("free");
                assert!(seats.acquire_within(Duration::from_millis(1)).is_err());
                drop((one, two));
            },
            partner: nothing,
            survive: |memory| {
                let seats = open!(Semaphore, memory);
                let _one = seats.acquire_within(DEADLINE)?;
                let _two = seats.acquire_within(DEADLINE)?;
                Ok(())
            },
            // The dead one's seats are given back in its place.
            repair: |memory| {
                let seats = open!(Semaphore, memory);
                while seats.release().is_ok() {}
            },
            serve: |memory| {
                let seats = open!(Semaphore, memory);
                let _one = seats.try_acquire().expect("free");
                let _two = seats.try_acquire().expect("free");
                assert!(seats.try_acquire().is_none());
            },
        },
        Scenario {
            name: "mutex",
            setup: |memory| drop(Mutex::create(memory, "it").expect("it fits")),
            victim: |memory| {
                let mutex = open!(Mutex, memory);
                drop(mutex.lock_within(WATCHDOG).expect("free"));
                drop(mutex.try_lock().expect("free"));
            },
            partner: nothing,
            survive: |memory| open!(Mutex, memory).lock_within(DEADLINE).map(drop),
            repair: |memory| {
                open!(Mutex, memory).force_unlock();
            },
            serve: |memory| {
                let mutex = open!(Mutex, memory);
                let guard = mutex.try_lock().expect("free");
                assert!(mutex.try_lock().is_none());
                drop(guard);
            },
        },
        Scenario {
            name: "once",
            setup: |memory| {
                Once::create(memory, "it").expect("it fits");
                Array::<u32>::create(memory, "runs", 1).expect("it fits");
            },
            victim: |memory| {
                open!(Once, memory)
                    .call(|_| ())
                    .expect("nobody else runs it");
            },
            partner: nothing,
            survive: |memory| {
                let once = open!(Once, memory);
                once.call_within(DEADLINE, |_| ())?;
                assert!(once.is_done());
                Ok(())
            },
            repair: |memory| open!(Once, memory).reset(),
            serve: |memory| {
                let once = open!(Once, memory);
                let mut runs = 0;
                once.call_within(DEADLINE, |_| runs += 1)
                    .expect("it was reset");
                assert_eq!((runs, once.is_done()), (1, true));
            },
        },
        Scenario {
            name: "barrier",
            setup: |memory| drop(Barrier::create(memory, "it", 2).expect("it fits")),
            victim: |memory| {
                let barrier = open!(Barrier, memory);
                assert!(barrier.wait_within(Duration::from_millis(1)).is_err());
                barrier.wait_within(WATCHDOG).expect("the partner comes");
            },
            partner: |memory| {
                // Late enough for the victim's time-out.
                std::thread::sleep(Duration::from_millis(100));
                let _ = open!(Barrier, memory).wait_within(DEADLINE);
            },
            survive: |memory| {
                let barrier = open!(Barrier, memory);
                std::thread::scope(|scope| {
                    let other = scope.spawn(|| barrier.wait_within(DEADLINE));
                    barrier.wait_within(DEADLINE)?;
                    other.join().expect("it does not panic").map(|_| ())
                })
            },
            repair: |memory| open!(Barrier, memory).force_release(),
            serve: |memory| {
                let barrier = open!(Barrier, memory);
                std::thread::scope(|scope| {
                    scope.spawn(|| barrier.wait_within(WATCHDOG).expect("both come"));
                    barrier.wait_within(WATCHDOG).expect("both come");
                });
                assert_eq!(barrier.arrived(), 0);
            },
        },
        Scenario {
            name: "latch",
            setup: |memory| drop(Latch::create(memory, "it", 1).expect("it fits")),
            victim: |memory| {
                let _ = open!(Latch, memory).count_down(1);
            },
            partner: nothing,
            survive: |memory| open!(Latch, memory).wait_within(Duration::from_millis(20)),
            // Anybody may count down in its place.
            repair: |memory| {
                let _ = open!(Latch, memory).count_down(1);
            },
            serve: |memory| open!(Latch, memory).wait_within(DEADLINE).expect("open"),
        },
        Scenario {
            name: "event",
            setup: |memory| {
                Event::create(memory, "it", EventMode::Manual).expect("it fits");
                Event::create(memory, "auto", EventMode::Auto).expect("it fits");
            },
            victim: |memory| {
                let manual = open!(Event, memory);
                let auto = Event::open(memory, "auto").expect("made");
                assert!(manual.wait_within(Duration::from_millis(1)).is_err());
                manual.signal();
                manual.wait().expect("signalled");
                manual.reset();
                auto.signal();
                auto.wait().expect("signalled");
                manual.pulse();
            },
            partner: nothing,
            survive: |memory| {
                let manual = open!(Event, memory);
                manual.signal();
                manual.wait_within(DEADLINE)?;
                Event::open(memory, "auto").expect("made").signal();
                Event::open(memory, "auto")
                    .expect("made")
                    .wait_within(DEADLINE)
            },
            repair: nothing,
            serve: |memory| {
                let manual = open!(Event, memory);
                manual.reset();
                assert!(!manual.try_wait());
                let auto = Event::open(memory, "auto").expect("made");
                while auto.try_wait() {}
                auto.signal();
                assert!(auto.try_wait() && !auto.try_wait());
            },
        },
        Scenario {
            name: "rwlock read",
            setup: |memory| drop(RwLock::create(memory, "it").expect("it fits")),
            victim: |memory| {
                let lock = open!(RwLock, memory);
                let one = lock.read_within(WATCHDOG).expect("free");
                let two = lock.try_read().expect("shared");
                drop((one, two));
            },
            partner: nothing,
            survive: |memory| {
                let lock = open!(RwLock, memory);
                drop(lock.read_within(DEADLINE)?);
                lock.write_within(DEADLINE).map(drop)
            },
            repair: |memory| open!(RwLock, memory).force_release_readers(),
            serve: serve_rwlock,
        },
        Scenario {
            name: "rwlock write",
            setup: |memory| drop(RwLock::create(memory, "it").expect("it fits")),
            victim: |memory| {
                let lock = open!(RwLock, memory);
                drop(lock.write_within(WATCHDOG).expect("free"));
                let reader = lock.read_within(WATCHDOG).expect("free");
                assert!(lock.write_within(Duration::from_millis(1)).is_err());
                drop(reader);
            },
            partner: nothing,
            survive: |memory| {
                let lock = open!(RwLock, memory);
                drop(lock.read_within(DEADLINE)?);
                lock.write_within(DEADLINE).map(drop)
            },
            repair: |memory| {
                let lock = open!(RwLock, memory);
                lock.force_release_readers();
                lock.force_release_writer();
            },
            serve: serve_rwlock,
        },
        Scenario {
            name: "monitor",
            setup: |memory| drop(Monitor::create(memory, "it").expect("it fits")),
            victim: |memory| {
                let monitor = open!(Monitor, memory);
                let guard = monitor.lock_within(WATCHDOG).expect("free");
                guard.notify_one();
                let (guard, _) = guard.wait_within(Duration::from_millis(1)).expect("free");
                guard.notify_all();
                drop(guard);
            },
            partner: nothing,
            survive: |memory| {
                let guard = open!(Monitor, memory);
                guard.lock_within(DEADLINE).map(drop)
            },
            repair: |memory| {
                open!(Monitor, memory).force_unlock();
            },
            serve: |memory| {
                let monitor = open!(Monitor, memory);
                let gone = std::sync::atomic::AtomicBool::new(false);
                let is_gone = || gone.load(std::sync::atomic::Ordering::SeqCst);
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        let guard = monitor.lock_within(WATCHDOG).expect("free");
                        gone.store(true, std::sync::atomic::Ordering::SeqCst);
                        guard.notify_all();
                    });
                    let guard = monitor.lock_within(WATCHDOG).expect("free");
                    drop(guard.wait_while(WATCHDOG, || !is_gone()).expect("notified"));
                });
            },
        },
        Scenario {
            name: "signal",
            setup: |memory| drop(Signal::create(memory, "it", item(1)).expect("it fits")),
            victim: |memory| {
                let signal = open!(Signal<Item>, memory);
                signal.set(item(2)).expect("nobody else");
                signal
                    .update(|value| item(number(value) + 1))
                    .expect("nobody else");
            },
            partner: nothing,
            survive: |memory| {
                let value = number(open!(Signal<Item>, memory).get()?);
                assert!((1..=3).contains(&value), "{value}");
                Ok(())
            },
            repair: |memory| {
                let signal = open!(Signal<Item>, memory);
                signal.force_unlock();
                signal.set(item(5)).expect("it was freed");
            },
            serve: |memory| {
                let signal = open!(Signal<Item>, memory);
                let before = signal.version();
                signal.set(item(6)).expect("free");
                assert_eq!(signal.snapshot(), Ok((before + 1, item(6))));
            },
        },
    ]
}

fn serve_rwlock(memory: &Memory) {
    let lock = open!(RwLock, memory);
    assert_eq!((lock.readers(), lock.is_writing()), (0, false));
    let reader = lock.try_read().expect("free");
    assert!(lock.try_write().is_none());
    drop(reader);
    let writer = lock.try_write().expect("free");
    assert!(lock.try_read().is_none());
    drop(writer);
    assert_eq!((lock.readers(), lock.is_writing()), (0, false));
}

/// Both ends of a channel work, and nothing foreign comes out.
fn serve_channel(memory: &Memory) {
    let channel = open!(Channel<Item>, memory);
    while channel.try_receive().is_ok() {}
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 10..15 {
                channel
                    .send_within(item(number), WATCHDOG)
                    .expect("it is received");
            }
        });
        for number in 10..15 {
            assert_eq!(channel.receive_within(WATCHDOG), Ok(item(number)));
        }
    });
}

fn receive_some(memory: &Memory) -> Result<(), OpError> {
    let channel = open!(Channel<Item>, memory);
    for _ in 0..8 {
        match channel.receive_within(Duration::from_millis(50)) {
            Ok(got) => assert!((1..=3).contains(&number(got))),
            Err(OpError::Timeout { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    panic!("more than there was");
}

/// A scenario's name, and what it is prepared with.
type Setup = (&'static str, fn(&Memory));

#[expect(clippy::too_many_lines, reason = "a table of scenarios")]
fn codata() -> Vec<Scenario> {
    let repair_channel = |memory: &Memory| {
        let _ = open!(Channel<Item>, memory).repair();
    };
    let mut all: Vec<Scenario> = Vec::new();
    let setups: [Setup; 2] = [
        ("channel, buffered", |memory| {
            Channel::<Item>::create(memory, "it", 2).expect("it fits");
        }),
        ("channel, Python", |memory| {
            Channel::<Item>::create_python(memory, "it", 2).expect("it fits");
        }),
    ];
    for (name, setup) in setups {
        all.push(Scenario {
            name,
            setup,
            victim: |memory| {
                let channel = open!(Channel<Item>, memory);
                channel
                    .send_within(item(1), WATCHDOG)
                    .expect("there is room");
                channel
                    .send_within(item(2), WATCHDOG)
                    .expect("there is room");
                assert_eq!(channel.receive_within(WATCHDOG), Ok(item(1)));
            },
            partner: nothing,
            survive: receive_some,
            repair: repair_channel,
            serve: serve_channel,
        });
    }
    all.push(Scenario {
        name: "channel, rendezvous, sender dies",
        setup: |memory| drop(Channel::<Item>::create(memory, "it", 0).expect("it fits")),
        victim: |memory| {
            let channel = open!(Channel<Item>, memory);
            channel
                .send_within(item(1), WATCHDOG)
                .expect("it is received");
            assert!(
                channel
                    .send_within(item(2), Duration::from_millis(1))
                    .is_err()
            );
        },
        partner: |memory| {
            let got = open!(Channel<Item>, memory).receive_within(DEADLINE);
            assert!(got.is_err() || got == Ok(item(1)));
        },
        survive: receive_some,
        repair: repair_channel,
        serve: serve_channel,
    });
    all.push(Scenario {
        name: "channel, rendezvous, receiver dies",
        setup: |memory| drop(Channel::<Item>::create(memory, "it", 0).expect("it fits")),
        victim: |memory| {
            let channel = open!(Channel<Item>, memory);
            assert_eq!(channel.receive_within(WATCHDOG), Ok(item(1)));
            assert!(channel.receive_within(Duration::from_millis(1)).is_err());
        },
        partner: |memory| {
            let channel = open!(Channel<Item>, memory);
            if let Err(refused) = channel.send_within(item(1), DEADLINE) {
                assert_eq!(refused.value, item(1), "it comes back");
            }
        },
        survive: receive_some,
        repair: repair_channel,
        serve: serve_channel,
    });
    all.push(Scenario {
        name: "stream",
        setup: |memory| {
            Stream::<Item>::create(memory, "it", 4).expect("it fits");
            VoidStream::create(memory, "void").expect("it fits");
        },
        victim: |memory| {
            let mut stream = open!(Stream<Item>, memory);
            stream
                .emit_within(item(1), WATCHDOG)
                .expect("there is room");
            stream
                .emit_within(item(2), WATCHDOG)
                .expect("there is room");
            assert_eq!(stream.next_within(WATCHDOG), Ok(item(1)));
            assert!(VoidStream::open(memory, "void").expect("made").emit());
            stream.close();
        },
        partner: nothing,
        survive: |memory| {
            let mut stream = open!(Stream<Item>, memory);
            let mut last = 0;
            while let Some(got) = stream.try_next() {
                let got = number(got);
                assert!(got > last && got <= 2, "{got} out of order");
                last = got;
            }
            Ok(())
        },
        repair: nothing,
        serve: |memory| {
            let mut stream = open!(Stream<Item>, memory);
            if !stream.is_closed() {
                stream.try_emit(item(7)).expect("it is empty");
                assert_eq!(stream.try_next(), Some(item(7)));
            }
            assert!(VoidStream::open(memory, "void").expect("made").emit());
        },
    });
    all.push(Scenario {
        name: "future",
        setup: |memory| drop(Future::<Item>::create(memory, "it").expect("it fits")),
        victim: |memory| {
            open!(Future<Item>, memory)
                .set(item(1))
                .expect("nobody else");
        },
        partner: |memory| {
            // A waiter that was there before.
            let future = open!(Future<Item>, memory);
            let _ = future.get_within(DEADLINE).map(number);
        },
        survive: |memory| {
            let future = open!(Future<Item>, memory);
            match future.get_within(DEADLINE) {
                Ok(value) => assert_eq!(value, item(1)),
                // Pending, or its setter died: set it in its place.
                Err(OpError::Timeout { .. } | OpError::HolderDied { .. }) => {
                    future.set(item(1))?;
                    assert_eq!(future.get(), Ok(item(1)));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        },
        repair: |memory| open!(Future<Item>, memory).reset(),
        serve: |memory| {
            let future = open!(Future<Item>, memory);
            future.set_error("as asked").expect("it was reset");
            assert!(matches!(future.get(), Err(OpError::Failed { .. })));
        },
    });
    all.push(Scenario {
        name: "lazy",
        setup: |memory| {
            let two = Lazy::constant(memory, "two", 2_u64).expect("it fits");
            Lazy::sum(memory, "it", &two, &two).expect("it fits");
            Lazy::<u64>::external(memory, "external").expect("it fits");
            Lazy::<u64>::create_python(memory, "python", None).expect("it fits");
            let yes = LazyBool::constant(memory, "yes", true).expect("it fits");
            LazyBool::not(memory, "no", &yes).expect("it fits");
        },
        victim: |memory| {
            assert_eq!(open!(Lazy<u64>, memory).force(), Ok(4));
            for name in ["external", "python"] {
                let lazy = Lazy::<u64>::open(memory, name).expect("made");
                assert_eq!(lazy.force_with(|_| Ok::<_, OpError>(5)), Ok(5));
            }
            assert!(!LazyBool::open(memory, "no").expect("made").force());
        },
        partner: nothing,
        survive: |memory| {
            assert_eq!(open!(Lazy<u64>, memory).force_within(DEADLINE)?, 4);
            assert!(!LazyBool::open(memory, "no").expect("made").force());
            for name in ["external", "python"] {
                let lazy = Lazy::<u64>::open(memory, name).expect("made");
                assert_eq!(
                    lazy.force_with_within(DEADLINE, |_| Ok::<_, OpError>(5))?,
                    5
                );
            }
            Ok(())
        },
        repair: |memory| {
            for name in ["it", "external", "python"] {
                Lazy::<u64>::open(memory, name).expect("made").reset();
            }
        },
        serve: |memory| {
            assert_eq!(open!(Lazy<u64>, memory).force(), Ok(4));
            for name in ["external", "python"] {
                let lazy = Lazy::<u64>::open(memory, name).expect("made");
                assert_eq!(lazy.force_with(|_| Ok::<_, OpError>(6)), Ok(6));
            }
        },
    });
    all
}

/// Every structure that a victim creates is there whole, or not at all; names
/// that were there before stay.
fn serve_table(memory: &Memory) {
    let names: Vec<String> = memory
        .entries()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert!(names.contains(&"before".to_owned()), "{names:?}");
    if names.iter().any(|name| name.starts_with("lock")) {
        let lock = RwLock::open(memory, "lock").expect("all of it is there");
        drop(lock.try_write().expect("nobody has it"));
    }
    if names.contains(&"queue".to_owned()) {
        let queue = Queue::<u64>::open(memory, "queue").expect("it is whole");
        queue.try_push(1).expect("it is empty");
    }
    assert_eq!(
        Array::<u64>::open(memory, "before").expect("kept").to_vec(),
        [1, 2]
    );
    Array::<u64>::create(memory, "after", 4).expect("the table works");
    let description = memory.describe().expect("the table is sound");
    drop(description);
    let mut extents: Vec<_> = memory
        .entries()
        .iter()
        .map(|e| (e.offset, e.size))
        .collect();
    extents.sort_unstable();
    extents.dedup();
    for pair in extents.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?} overlap");
    }
}

fn table() -> Vec<Scenario> {
    let setup = |memory: &Memory| {
        Array::<u64>::create(memory, "gone", 2).expect("it fits");
        let array = Array::<u64>::create(memory, "before", 2).expect("it fits");
        array.write(0, &[1, 2]).expect("inside");
    };
    vec![
        Scenario {
            name: "create entries",
            setup,
            victim: |memory| {
                RwLock::create(memory, "lock").expect("it fits");
                Queue::<u64>::create(memory, "queue", 2).expect("it fits");
            },
            partner: nothing,
            survive: |_| Ok(()),
            repair: nothing,
            serve: serve_table,
        },
        Scenario {
            name: "remove an entry",
            setup,
            victim: |memory| memory.remove("gone").expect("it is there"),
            partner: nothing,
            survive: |_| Ok(()),
            repair: nothing,
            serve: serve_table,
        },
    ]
}

/// The process that may die. Only this runs in it.
#[test]
fn victim() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has three words");
    let (which, name, number) = (word(), word(), word());
    let number = number.parse().expect("a number");
    if which == "create" {
        crash::arm(number);
        let made = Memory::open_or_create(name, MemoryOptions::new(4096).max_entries(8));
        made.expect("nobody else is there");
        tell(&format!("points {}", crash::disarm()));
        return;
    }
    let scenarios = scenarios();
    let scenario = &scenarios[which.parse::<usize>().expect("an index")];
    let memory = Memory::open(name).expect("the parent made it");
    crash::arm(number);
    (scenario.victim)(&memory);
    tell(&format!("points {}", crash::disarm()));
}

/// Kills the victim before step `number`; `None` when it had no such step.
fn kill(which: usize, scenario: &Scenario, number: u64) -> (bool, Option<OpError>) {
    let name = Name::new("crash");
    let options = MemoryOptions::new(1 << 16).max_entries(32);
    let memory = Memory::create_new(&name, options).expect("the name is free");
    (scenario.setup)(&memory);
    let killed = std::thread::scope(|scope| {
        let partner = scope.spawn(|| (scenario.partner)(&memory));
        let victim = child("victim", &format!("{which} {} {number}", &*name));
        let killed = Outcome::of(victim).killed();
        partner.join().expect("the partner gets what is right");
        killed
    });
    // Survivors are quick to call a slot stuck here: its user is dead.
    let quick = OpenOptions::default().patience(Duration::from_millis(10));
    let memory = Memory::open_with(&name, quick).expect("the table is sound");
    let obstacle = (scenario.survive)(&memory).err();
    assert!(killed || obstacle.is_none(), "nobody died: {obstacle:?}");
    (scenario.repair)(&memory);
    (scenario.serve)(&memory);
    (killed, obstacle)
}

#[test]
fn survivors_go_on_or_learn_why_not_and_repair_restores_service() {
    let mut report = BTreeMap::new();
    let (mut points, mut obstacles) = (0, 0);
    for (which, scenario) in scenarios().iter().enumerate() {
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        let mut number = 1;
        loop {
            let (killed, obstacle) = kill(which, scenario, number);
            if !killed {
                break;
            }
            if let Some(obstacle) = obstacle {
                let kind = format!("{obstacle:?}");
                let kind = kind.split(' ').next().unwrap_or_default().to_owned();
                *named.entry(kind).or_default() += 1;
                obstacles += 1;
            }
            number += 1;
        }
        assert!(number > 1, "{}: not one step", scenario.name);
        points += number - 1;
        println!(
            "{}: {} points, named errors {named:?}",
            scenario.name,
            number - 1
        );
        report.insert(
            scenario.name,
            serde_json::json!({ "points": number - 1, "named errors": named }),
        );
    }
    polyshm_testkit::report(
        "zeroipc-crash.json",
        &serde_json::json!({
            "points": points,
            "points after which a survivor got a named error": obstacles,
            "scenarios": report,
        }),
    );
}

#[test]
fn a_segment_whose_creator_died_is_made_by_the_next() {
    let mut number = 1;
    loop {
        let name = Name::new("crash-create");
        let victim = child("victim", &format!("create {} {number}", &*name));
        let killed = Outcome::of(victim).killed();
        let options = || MemoryOptions::new(4096).max_entries(8);
        let memory = Memory::open_or_create(&name, options()).expect("the creator is dead");
        assert_eq!((memory.size(), memory.max_entries()), (4096, 8));
        Array::<u64>::create(&memory, "works", 3).expect("it fits");
        assert!(Memory::create_new(&name, options()).is_err_and(|error| error.is_already_exists()));
        if !killed {
            break;
        }
        number += 1;
    }
    assert!(number > 5, "it dies at several steps");
}
