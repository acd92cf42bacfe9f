//! The structures between threads of one process, with elements that are copied
//! by a call: here the thread sanitizer sees each byte, and that what one thread
//! stored happened before another loads it.
#![cfg(target_os = "linux")]

use polyshm_testkit::Name;
use polyshm_zeroipc::{
    Array, Barrier, Channel, Event, EventMode, Future, Memory, Mutex, Once, Pool, Queue, Ring,
    RwLock, Semaphore, Signal, Stack, Stream,
};
use std::time::Duration;

const WATCHDOG: Duration = Duration::from_mins(2);
const ROUNDS: u64 = 3000;

/// Long enough for a call, and torn if its parts differ.
type Item = [u64; 4];

fn item(number: u64) -> Item {
    [number, !number, number, !number]
}

fn number([a, b, c, d]: Item) -> u64 {
    assert_eq!((a, c, d), (!b, a, b), "torn");
    a
}

/// Runs two threads over one mapping and waits for both by a barrier of our own:
/// the sanitizer does not see the standard library's joins.
fn both(
    test: &str,
    setup: impl Fn(&Memory),
    one: impl Fn(&Memory) + Send + 'static,
    other: impl Fn(&Memory) + Send + 'static,
) {
    let name = Name::new(test);
    let memory = Memory::create_new(&name, 1 << 16).expect("the name is free");
    setup(&memory);
    Barrier::create(&memory, "end", 3).expect("it fits");
    let part = |run: Box<dyn Fn(&Memory) + Send>| {
        let memory = memory.clone();
        std::thread::spawn(move || {
            run(&memory);
            let end = Barrier::open(&memory, "end").expect("it is there");
            end.wait_within(WATCHDOG).expect("all come");
            // The mapping outlives all: the sanitizer does not see the fence
            // in which a count of references ends.
            std::mem::forget((memory, end));
        })
    };
    let threads = [part(Box::new(one)), part(Box::new(other))];
    let end = Barrier::open(&memory, "end").expect("it is there");
    end.wait_within(WATCHDOG).expect("all come");
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    std::mem::forget((memory.clone(), end));
}

macro_rules! open {
    ($kind:ty, $memory:expr) => {
        <$kind>::open($memory, "it").expect("it is there")
    };
}

#[test]
fn queues_stacks_and_rings_hand_over_what_was_stored() {
    both(
        "threads-queue",
        |memory| {
            Queue::<Item>::create(memory, "it", 4).expect("it fits");
            Stack::<Item>::create(memory, "stack", 4).expect("it fits");
            Ring::<Item>::create(memory, "ring", 3).expect("it fits");
            Channel::<Item>::create(memory, "channel", 0).expect("it fits");
            Stream::<Item>::create(memory, "stream", 3).expect("it fits");
        },
        |memory| {
            let queue = open!(Queue<Item>, memory);
            let stack = Stack::<Item>::open(memory, "stack").expect("made");
            let mut ring = Ring::<Item>::open(memory, "ring").expect("made");
            let channel = Channel::<Item>::open(memory, "channel").expect("made");
            let mut stream = Stream::<Item>::open(memory, "stream").expect("made");
            for round in 0..ROUNDS {
                queue
                    .push_within(item(round), WATCHDOG)
                    .expect("it is taken");
                stack
                    .push_within(item(round), WATCHDOG)
                    .expect("it is taken");
                ring.write_within(item(round), WATCHDOG)
                    .expect("it is taken");
                stream
                    .emit_within(item(round), WATCHDOG)
                    .expect("it is taken");
                if round % 8 == 0 {
                    channel
                        .send_within(item(round), WATCHDOG)
                        .expect("it is taken");
                }
            }
        },
        |memory| {
            let queue = open!(Queue<Item>, memory);
            let stack = Stack::<Item>::open(memory, "stack").expect("made");
            let mut ring = Ring::<Item>::open(memory, "ring").expect("made");
            let channel = Channel::<Item>::open(memory, "channel").expect("made");
            let mut stream = Stream::<Item>::open(memory, "stream").expect("made");
            let mut sum = 0;
            for round in 0..ROUNDS {
                assert_eq!(number(queue.pop_within(WATCHDOG).expect("it comes")), round);
                sum += number(stack.pop_within(WATCHDOG).expect("it comes"));
                assert_eq!(number(ring.read_within(WATCHDOG).expect("it comes")), round);
                assert_eq!(
                    number(stream.next_within(WATCHDOG).expect("it comes")),
                    round
                );
                if round % 8 == 0 {
                    let got = channel.receive_within(WATCHDOG).expect("it comes");
                    assert_eq!(number(got), round);
                }
            }
            assert_eq!(
                sum,
                ROUNDS * (ROUNDS - 1) / 2,
                "nothing lost, nothing twice"
            );
        },
    );
}

#[test]
fn locks_order_what_they_protect() {
    let add = |array: &Array<Item>| {
        let before = number(array.get(0).expect("inside"));
        array.set(0, item(before + 1)).expect("inside");
    };
    let run = move |memory: &Memory| {
        let array = open!(Array<Item>, memory);
        let shared = Array::<Item>::open(memory, "shared").expect("made");
        let mutex = Mutex::open(memory, "mutex").expect("made");
        let lock = RwLock::open(memory, "rwlock").expect("made");
        let seats = Array::<Item>::open(memory, "seated").expect("made");
        let semaphore = Semaphore::open(memory, "semaphore").expect("made");
        let signal = Signal::<Item>::open(memory, "signal").expect("made");
        let once = Once::open(memory, "once").expect("made");
        let ran = Array::<Item>::open(memory, "ran").expect("made");
        once.call_within(WATCHDOG, |_| add(&ran)).expect("one runs");
        assert_eq!(number(ran.get(0).expect("inside")), 1);
        for round in 0..ROUNDS {
            let guard = mutex.lock_within(WATCHDOG).expect("nobody dies");
            add(&array);
            drop(guard);
            if round % 4 == 0 {
                let guard = lock.write_within(WATCHDOG).expect("nobody dies");
                add(&shared);
                drop(guard);
            } else {
                let guard = lock.read_within(WATCHDOG).expect("nobody dies");
                number(shared.get(0).expect("inside"));
                drop(guard);
            }
            let seat = semaphore.acquire_within(WATCHDOG).expect("nobody dies");
            add(&seats);
            drop(seat);
            signal
                .update(|value| item(number(value) + 1))
                .expect("nobody dies");
        }
    };
    both(
        "threads-locks",
        |memory| {
            for name in ["it", "shared", "seated", "ran"] {
                let array = Array::<Item>::create(memory, name, 1).expect("it fits");
                array.set(0, item(0)).expect("inside");
            }
            Mutex::create(memory, "mutex").expect("it fits");
            RwLock::create(memory, "rwlock").expect("it fits");
            Semaphore::create(memory, "semaphore", 1, Some(1)).expect("it fits");
            Signal::create(memory, "signal", item(0)).expect("it fits");
            Once::create(memory, "once").expect("it fits");
        },
        run,
        run,
    );
}

#[test]
fn blocks_events_and_futures_carry_what_was_stored_before() {
    both(
        "threads-carry",
        |memory| {
            Pool::<Item>::create(memory, "it", 2).expect("it fits");
            Queue::<u32>::create(memory, "blocks", 2).expect("it fits");
            Array::<Item>::create(memory, "array", 1).expect("it fits");
            Event::create(memory, "there", EventMode::Auto).expect("it fits");
            Event::create(memory, "back", EventMode::Auto).expect("it fits");
            Future::<Item>::create(memory, "future").expect("it fits");
        },
        |memory| {
            let pool = open!(Pool<Item>, memory);
            let blocks = Queue::<u32>::open(memory, "blocks").expect("made");
            let array = Array::<Item>::open(memory, "array").expect("made");
            let there = Event::open(memory, "there").expect("made");
            let back = Event::open(memory, "back").expect("made");
            for round in 0..ROUNDS {
                let block = loop {
                    if let Ok(block) = pool.allocate_with(item(round)) {
                        break block;
                    }
                    std::thread::yield_now();
                };
                blocks.push_within(block, WATCHDOG).expect("it is taken");
                array.set(0, item(round)).expect("inside");
                there.signal();
                back.wait_within(WATCHDOG).expect("it comes back");
            }
            let future = Future::<Item>::open(memory, "future").expect("made");
            future.set(item(7)).expect("nobody else");
        },
        |memory| {
            let pool = open!(Pool<Item>, memory);
            let blocks = Queue::<u32>::open(memory, "blocks").expect("made");
            let array = Array::<Item>::open(memory, "array").expect("made");
            let there = Event::open(memory, "there").expect("made");
            let back = Event::open(memory, "back").expect("made");
            for round in 0..ROUNDS {
                let block = blocks.pop_within(WATCHDOG).expect("it comes");
                assert_eq!(number(pool.get(block).expect("it exists")), round);
                pool.deallocate(block).expect("it was taken");
                there.wait_within(WATCHDOG).expect("it comes");
                assert_eq!(number(array.get(0).expect("inside")), round);
                back.signal();
            }
            let future = Future::<Item>::open(memory, "future").expect("made");
            assert_eq!(future.get_within(WATCHDOG), Ok(item(7)));
        },
    );
}
