//! What takes several processes: contention, and holders that die.
#![cfg(target_os = "linux")]

use polyshm_platform::{Region, SharedMemory, sync::Ordering};
use polyshm_testkit::{Guarded, Name, Outcome, child, role, tell};
use polyshm_zeroipc::{
    Array, Barrier, Channel, Event, EventMode, Future, Latch, Lazy, Map, Memory, MemoryOptions,
    Monitor, Mutex, Once, OnceOutcome, OpError, Pool, Queue, Ring, RwLock, Semaphore, Set,
    SetOutcome, Signal, Stack, Stream,
};
use std::{collections::HashMap, time::Duration};

/// Longer than anything takes; only a hang meets it.
const WATCHDOG: Duration = Duration::from_mins(2);
/// The deaths of Rust holders are noticed within this, with room for a loaded
/// machine.
const NOTICED: Duration = Duration::from_secs(10);

fn memory(test: &str, size: u64) -> (Name, Memory) {
    let name = Name::new(test);
    let options = MemoryOptions::new(size).max_entries(1024);
    let memory = Memory::create_new(&name, options).expect("the name is free");
    (name, memory)
}

/// Starts one child per number, with the same role, and expects all to succeed.
fn run_all(role: &str, name: &Name, count: u32) {
    let children: Vec<Guarded> = (0..count)
        .map(|number| {
            child(
                "child_role",
                &format!("{role} {} {number} {count}", &**name),
            )
        })
        .collect();
    for child in children {
        let outcome = Outcome::of(child);
        assert!(outcome.said("done"), "{:?}", outcome.lines());
    }
}

/// All participants of a test start at once.
fn start(memory: &Memory, count: u32) {
    let all = i32::try_from(count).expect("a few");
    let barrier = Barrier::open_or_create(memory, "start", all).expect("it fits");
    barrier.wait_within(WATCHDOG).expect("all come");
}

/// Runs in the child processes only.
#[test]
fn child_role() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has four words");
    let (what, name) = (word(), word());
    let number: u32 = word().parse().expect("a number");
    let count: u32 = word().parse().expect("a number");
    let memory = Memory::open(name).expect("the parent made it");
    match what {
        "insert" => insert(&memory, number, count),
        "queue" => queue(&memory, number, count),
        "stack" => stack(&memory, number, count),
        "pool" => pool(&memory, number, count),
        "map" => map(&memory, number, count),
        "set" => set(&memory, number, count),
        "locks" => locks(&memory, number, count),
        "meet" => meet(&memory, number, count),
        "messages" => messages(&memory, number, count),
        "hold" => hold(&memory, number),
        other => panic!("no role {other}"),
    }
    tell("done");
}

const NAMES: u32 = 200;

fn insert(memory: &Memory, number: u32, count: u32) {
    start(memory, count);
    for index in 0..NAMES {
        let name = format!("entry-{number}-{index}");
        let array = Array::<u32>::create(memory, &name, 2).expect("there is room");
        array.write(0, &[number, index]).expect("inside");
    }
}

#[test]
fn names_inserted_by_several_processes_are_all_there_and_apart() {
    const PROCESSES: u32 = 3;
    for _ in 0..30 {
        let (name, memory) = memory("insert", 1 << 20);
        run_all("insert", &name, PROCESSES);
        let entries = memory.entries();
        assert_eq!(entries.len() as u32, PROCESSES * NAMES + 1);
        for number in 0..PROCESSES {
            for index in 0..NAMES {
                let name = format!("entry-{number}-{index}");
                let array = Array::<u32>::open(&memory, &name).expect("no name is lost");
                assert_eq!(array.to_vec(), [number, index], "nobody else's bytes");
            }
        }
        let mut extents: Vec<_> = entries.iter().map(|e| (e.offset, e.size)).collect();
        extents.sort_unstable();
        for pair in extents.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?} overlap");
        }
    }
}

/// Elements per producer.
const ELEMENTS: u32 = 30_000;

/// Half of the processes produce, half consume; each consumer notes what it got
/// in an array of its own.
fn parts(number: u32, count: u32) -> (bool, u32, u32) {
    let producers = count / 2;
    if number < producers {
        (true, number, producers)
    } else {
        (false, number - producers, producers)
    }
}

/// An element that says who made it, and is wrong if half of it is another's.
fn element(producer: u32, index: u32) -> [u32; 4] {
    [producer, index, !producer, !index]
}

fn notes(memory: &Memory, consumer: u32, producers: u32) -> Array<u8> {
    let name = format!("notes-{consumer}");
    Array::open_or_create(memory, &name, u64::from(producers * ELEMENTS)).expect("it fits")
}

fn note(notes: &Array<u8>, got: [u32; 4], producers: u32) {
    let [producer, index, not_producer, not_index] = got;
    assert_eq!([!not_producer, !not_index], [producer, index], "torn");
    assert!(producer < producers && index < ELEMENTS, "a wrong value");
    let at = (producer * ELEMENTS + index) as usize;
    let before = notes.get(at).expect("inside");
    notes.set(at, before + 1).expect("inside");
}

fn check_notes(memory: &Memory, processes: u32) {
    let producers = processes / 2;
    let all: Vec<Vec<u8>> = (0..processes - producers)
        .map(|consumer| notes(memory, consumer, producers).to_vec())
        .collect();
    for at in 0..(producers * ELEMENTS) as usize {
        let times: u32 = all.iter().map(|notes| u32::from(notes[at])).sum();
        assert_eq!(times, 1, "element {at}");
    }
}

/// What is left to take; each consumer takes one of it before each pop.
fn tickets(memory: &Memory, producers: u32) -> Semaphore {
    let all = i32::try_from(producers * ELEMENTS).expect("it fits");
    Semaphore::open_or_create(memory, "tickets", all, None).expect("it fits")
}

fn queue(memory: &Memory, number: u32, count: u32) {
    let queue = Queue::<[u32; 4]>::open(memory, "queue").expect("the parent made it");
    let (makes, own, producers) = parts(number, count);
    start(memory, count);
    if makes {
        let mut index = 0;
        while index < ELEMENTS {
            let batch: Vec<_> = (index..ELEMENTS.min(index + index % 4 + 1))
                .map(|index| element(own, index))
                .collect();
            let pushed = queue
                .push_slice_within(&batch, WATCHDOG)
                .expect("nobody dies");
            assert_eq!(pushed, batch.len());
            index += pushed as u32;
        }
    } else {
        let (notes, tickets) = (notes(memory, own, producers), tickets(memory, producers));
        while let Some(ticket) = tickets.try_acquire() {
            ticket.forget();
            note(
                &notes,
                queue.pop_within(WATCHDOG).expect("nobody dies"),
                producers,
            );
        }
    }
}

/// Moves a queue's counters to just before they wrap.
fn seed_counters(name: &str, memory: &Memory, capacity: u32, start: u32) {
    let entries = memory.entries();
    let entry = entries
        .iter()
        .find(|entry| entry.name == "queue")
        .expect("made");
    let segment = SharedMemory::open(name).expect("it is there");
    let region = Region::map(&segment).expect("it can be mapped");
    let at = entry.offset as usize;
    let seq_at = at + entry.size as usize - 4 * capacity as usize;
    for word in [at, at + 4] {
        region
            .word32(word)
            .expect("inside")
            .store(start, Ordering::Relaxed);
    }
    for ahead in 0..capacity {
        let position = start.wrapping_add(ahead);
        let slot = (position % capacity) as usize;
        let word = region.word32(seq_at + 4 * slot).expect("inside");
        word.store(position, Ordering::Relaxed);
    }
}

#[test]
fn a_queue_loses_and_doubles_nothing_across_the_wrap_of_its_counters() {
    const CAPACITY: u32 = 8;
    for processes in [2, 4] {
        let (name, memory) = memory("queue", 4 << 20);
        Queue::<[u32; 4]>::create(&memory, "queue", u64::from(CAPACITY)).expect("it fits");
        seed_counters(&name, &memory, CAPACITY, u32::MAX - 1000);
        run_all("queue", &name, processes);
        check_notes(&memory, processes);
    }
}

fn stack(memory: &Memory, number: u32, count: u32) {
    let stack = Stack::<[u32; 4]>::open(memory, "stack").expect("the parent made it");
    let (makes, own, producers) = parts(number, count);
    start(memory, count);
    if makes {
        for index in 0..ELEMENTS {
            stack
                .push_within(element(own, index), WATCHDOG)
                .expect("nobody dies");
        }
    } else {
        let (notes, tickets) = (notes(memory, own, producers), tickets(memory, producers));
        while let Some(ticket) = tickets.try_acquire() {
            ticket.forget();
            let got = stack.pop_within(WATCHDOG).expect("nobody dies");
            note(&notes, got, producers);
        }
    }
}

#[test]
fn a_stack_loses_and_doubles_nothing() {
    for processes in [2, 4] {
        let (name, memory) = memory("stack", 4 << 20);
        Stack::<[u32; 4]>::create(&memory, "stack", 8).expect("it fits");
        run_all("stack", &name, processes);
        check_notes(&memory, processes);
    }
}

fn pool(memory: &Memory, number: u32, count: u32) {
    let pool = Pool::<u64>::open(memory, "pool").expect("the parent made it");
    start(memory, count);
    let mut held: Vec<(u32, u64)> = Vec::new();
    for step in 0..u64::from(ELEMENTS) {
        let mark = u64::from(number) << 32 | step;
        match pool.allocate_with(mark) {
            Ok(index) => held.push((index, mark)),
            Err(_) => assert!(held.len() <= 8, "no more than there are"),
        }
        if held.len() > 1 {
            let (index, mark) = held.remove(step as usize % held.len());
            assert_eq!(pool.get(index), Some(mark), "nobody else has the block");
            pool.deallocate(index).expect("it was ours");
        }
    }
    for (index, mark) in held {
        assert_eq!(pool.get(index), Some(mark), "nobody else has the block");
        pool.deallocate(index).expect("it was ours");
    }
}

#[test]
fn a_pool_gives_no_block_to_two() {
    for processes in [2, 4] {
        let (name, memory) = memory("pool", 1 << 20);
        let pool = Pool::<u64>::create(&memory, "pool", 6).expect("it fits");
        run_all("pool", &name, processes);
        assert_eq!(pool.allocated(), 0);
        let mut free = pool.free_list().expect("nobody changes it");
        free.sort_unstable();
        assert_eq!(free, [0, 1, 2, 3, 4, 5], "no block is lost");
    }
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn map(memory: &Memory, number: u32, count: u32) {
    let cpp = Map::<u64, u64>::open(memory, "cpp").expect("the parent made it");
    let python = Map::<u64, [u64; 3]>::open_python(memory, "python").expect("as above");
    start(memory, count);
    churn(
        number,
        true,
        |key, value| cpp.insert(key, value).is_ok(),
        |key| cpp.get(key).expect("nobody dies"),
        |key| cpp.remove(key).expect("nobody dies"),
    );
    churn(
        number,
        true,
        |key, value| python.insert(key, [value, !value, value]).is_ok(),
        |key| {
            let [a, b, c] = python.get(key).expect("nobody dies")?;
            assert_eq!((a, !a), (c, b), "torn");
            Some(a)
        },
        |key| python.remove(key).expect("nobody dies"),
    );
}

/// Inserts, updates, erases and looks up: some keys that all processes change,
/// and some that only this one does, whose values it knows.
///
/// Without `values` only presence is compared.
fn churn(
    number: u32,
    values: bool,
    insert: impl Fn(u64, u64) -> bool,
    get: impl Fn(u64) -> Option<u64>,
    remove: impl Fn(u64) -> bool,
) {
    let mut dice = Dice(u64::from(number) + 1);
    let mut own: HashMap<u64, u64> = HashMap::new();
    for step in 0..u64::from(ELEMENTS) {
        let shared = dice.roll(2) == 0;
        let key = dice.roll(4)
            + if shared {
                0
            } else {
                100 + 10 * u64::from(number)
            };
        let value = key << 32 | step;
        match dice.roll(4) {
            0 => {
                assert!(insert(key, value), "there is room for all keys");
                if !shared {
                    own.insert(key, value);
                }
            }
            1 => {
                let removed = remove(key);
                if !shared {
                    assert_eq!(removed, own.remove(&key).is_some(), "key {key}");
                }
            }
            _ => {
                let found = get(key);
                if let Some(value) = found {
                    assert_eq!(value >> 32, key, "another key's value");
                }
                let expected = own.get(&key).copied();
                if !shared && values {
                    assert_eq!(found, expected, "key {key}");
                } else if !shared {
                    assert_eq!(found.is_some(), expected.is_some(), "key {key}");
                }
            }
        }
    }
    for key in own.keys() {
        assert!(remove(*key), "key {key}");
    }
}

#[test]
fn a_map_never_gives_another_keys_value_and_keeps_each_processs_own() {
    for processes in [2, 4] {
        let (name, memory) = memory("map", 1 << 20);
        // Few slots and colliding keys: long chains, many tombstones.
        let cpp = Map::<u64, u64>::create(&memory, "cpp", 24).expect("it fits");
        let python = Map::<u64, [u64; 3]>::create_python(&memory, "python", 24).expect("it fits");
        run_all("map", &name, processes);
        check_once(cpp.to_vec().iter().map(|pair| pair.0), cpp.len());
        check_once(python.to_vec().iter().map(|pair| pair.0), python.len());
    }
}

/// Each key once, as many as counted, and only those that all shared.
fn check_once(keys: impl Iterator<Item = u64>, len: usize) {
    let mut keys: Vec<u64> = keys.collect();
    keys.sort_unstable();
    let all = keys.len();
    keys.dedup();
    assert_eq!((keys.len(), all), (len, len), "{keys:?}");
    assert!(keys.iter().all(|&key| key < 4), "{keys:?}");
}

fn set(memory: &Memory, number: u32, count: u32) {
    let cpp = Set::<u64>::open(memory, "cpp").expect("the parent made it");
    let python = Set::<u64>::open_python(memory, "python").expect("the parent made it");
    start(memory, count);
    for set in [cpp, python] {
        churn(
            number,
            false,
            |key, _| set.insert(key).is_ok(),
            // A set has no values: any that is the key's will do.
            |key| set.contains(key).expect("nobody dies").then_some(key << 32),
            |key| set.remove(key).expect("nobody dies"),
        );
    }
}

#[test]
fn a_set_holds_each_element_once() {
    for processes in [2, 4] {
        let (name, memory) = memory("set", 1 << 20);
        let cpp = Set::<u64>::create(&memory, "cpp", 24).expect("it fits");
        let python = Set::<u64>::create_python(&memory, "python", 24).expect("it fits");
        run_all("set", &name, processes);
        check_once(cpp.to_vec().into_iter(), cpp.len());
        check_once(python.to_vec().into_iter(), python.len());
    }
}

const ROUNDS: u32 = 1000;

/// Adds to a number without atomics: only a lock makes the sum come out.
fn add(array: &Array<u64>, index: usize) {
    let before = array.get(index).expect("inside");
    std::hint::black_box(());
    array.set(index, before + 1).expect("inside");
}

fn locks(memory: &Memory, number: u32, count: u32) {
    let sums = Array::<u64>::open(memory, "sums").expect("the parent made it");
    let mutex = Mutex::open(memory, "mutex").expect("the parent made it");
    let rwlock = RwLock::open(memory, "rwlock").expect("the parent made it");
    let monitor = Monitor::open(memory, "monitor").expect("the parent made it");
    let signal = Signal::<[u64; 2]>::open(memory, "signal").expect("the parent made it");
    let seats = Semaphore::open(memory, "seats").expect("the parent made it");
    start(memory, count);
    for round in 0..ROUNDS {
        let guard = mutex.lock_within(WATCHDOG).expect("nobody dies");
        add(&sums, 0);
        drop(guard);

        if (round + number).is_multiple_of(3) {
            let guard = rwlock.write_within(WATCHDOG).expect("nobody dies");
            add(&sums, 1);
            add(&sums, 2);
            drop(guard);
        } else {
            let guard = rwlock.read_within(WATCHDOG).expect("nobody dies");
            assert_eq!(sums.get(1), sums.get(2), "no writer is there");
            drop(guard);
        }

        // Whose turn it is goes round.
        let guard = monitor.lock_within(WATCHDOG).expect("nobody dies");
        let turn = || sums.get(3).expect("inside") % u64::from(count) != u64::from(number);
        let guard = guard.wait_while(WATCHDOG, turn).expect("the turn comes");
        add(&sums, 3);
        guard.notify_all();
        drop(guard);

        signal
            .update(|[a, b]| {
                assert_eq!(a, b, "the change of another is whole");
                [a + 1, b + 1]
            })
            .expect("nobody dies");

        let seat = seats.acquire_within(WATCHDOG).expect("nobody dies");
        add(&sums, 4);
        drop(seat);
    }
}

#[test]
fn locks_let_no_two_in() {
    const PROCESSES: u32 = 4;
    let (name, memory) = memory("locks", 1 << 20);
    let sums = Array::<u64>::create(&memory, "sums", 5).expect("it fits");
    Mutex::create(&memory, "mutex").expect("it fits");
    let rwlock = RwLock::create(&memory, "rwlock").expect("it fits");
    Monitor::create(&memory, "monitor").expect("it fits");
    let signal = Signal::create(&memory, "signal", [0_u64; 2]).expect("it fits");
    let seats = Semaphore::create(&memory, "seats", 1, Some(1)).expect("it fits");
    run_all("locks", &name, PROCESSES);
    let all = u64::from(PROCESSES * ROUNDS);
    assert_eq!(
        (sums.get(0), sums.get(3), sums.get(4)),
        (Some(all), Some(all), Some(all))
    );
    let writes = (0..PROCESSES)
        .map(|number| {
            (0..ROUNDS)
                .filter(|round| (round + number).is_multiple_of(3))
                .count() as u64
        })
        .sum();
    assert_eq!((sums.get(1), sums.get(2)), (Some(writes), Some(writes)));
    assert_eq!(signal.snapshot(), Ok((all, [all, all])));
    assert_eq!((seats.count(), seats.waiting()), (1, 0));
    assert_eq!((rwlock.readers(), rwlock.is_writing()), (0, false));
}

fn meet(memory: &Memory, number: u32, count: u32) {
    let all = i32::try_from(count).expect("a few");
    let barrier = Barrier::open_or_create(memory, "barrier", all).expect("it fits");
    let rounds = Array::<u32>::open_or_create(memory, "rounds", count.into()).expect("it fits");
    let once = Once::open_or_create(memory, "once").expect("it fits");
    let gate = Latch::open_or_create(memory, "gate", all).expect("it fits");
    let go = Event::open_or_create(memory, "go", EventMode::Manual).expect("it fits");
    let each = Event::open_or_create(memory, "each", EventMode::Auto).expect("it fits");
    let runs = Array::<u32>::open_or_create(memory, "runs", 1).expect("it fits");
    let answer = Future::<u64>::open_or_create(memory, "answer").expect("it fits");
    let lazy = Lazy::<u64>::open_or_create(memory, "lazy").expect("it fits");
    start(memory, count);
    for round in 0..ROUNDS {
        rounds.set(number as usize, round).expect("inside");
        barrier.wait_within(WATCHDOG).expect("all come");
        for other in rounds.to_vec() {
            assert!(other == round || other == round + 1, "nobody runs ahead");
        }
        barrier.wait_within(WATCHDOG).expect("all come");
    }
    let outcome = once.call_within(WATCHDOG, |_| {
        let before = runs.get(0).expect("inside");
        runs.set(0, before + 1).expect("inside");
    });
    assert!(outcome.is_ok());
    assert_eq!(runs.get(0), Some(1), "it ran once, and is over");

    gate.count_down(1);
    gate.wait_within(WATCHDOG).expect("all count down");
    if number == 0 {
        go.signal();
        for _ in 0..count {
            each.signal();
        }
        assert_eq!(answer.set(42), Ok(SetOutcome::Set));
    }
    go.wait_within(WATCHDOG).expect("it is signalled");
    each.wait_within(WATCHDOG).expect("one signal for each");
    assert_eq!(answer.get_within(WATCHDOG), Ok(42));
    let computed = lazy.force_with_within(WATCHDOG, |_| {
        let before = runs.get(0).expect("inside");
        runs.set(0, before + 1).expect("inside");
        Ok::<_, OpError>(7)
    });
    assert_eq!((computed, runs.get(0)), (Ok(7), Some(2)), "computed once");
}

#[test]
fn processes_meet_and_wait_for_each_other() {
    let (name, memory) = memory("meet", 1 << 20);
    run_all("meet", &name, 4);
    let each = Event::open(&memory, "each").expect("the children made it");
    assert!(!each.try_wait(), "no signal is left over");
}

fn messages(memory: &Memory, number: u32, count: u32) {
    let rendezvous = Channel::<[u32; 4]>::open(memory, "rendezvous").expect("the parent made it");
    let buffered = Channel::<[u32; 4]>::open(memory, "buffered").expect("the parent made it");
    let python = Channel::<[u32; 4]>::open(memory, "python").expect("the parent made it");
    let (sends, own, senders) = parts(number, count);
    let mut ring = Ring::<u64>::open(memory, "ring").expect("the parent made it");
    let mut stream = Stream::<u64>::open(memory, "stream").expect("the parent made it");
    start(memory, count);
    for channel in [rendezvous, buffered, python] {
        let name = format!("got-{}-{}", channel.capacity(), channel.dialect());
        let sum = Signal::<[u64; 2]>::open_or_create(memory, &name, [0; 2]).expect("it fits");
        if sends {
            for index in 0..ROUNDS {
                channel
                    .send_within(element(own, index), WATCHDOG)
                    .expect("nobody closes it");
            }
        } else {
            // As many receivers as senders: each takes its share.
            for _ in 0..ROUNDS {
                let [sender, index, not_sender, not_index] =
                    channel.receive_within(WATCHDOG).expect("all are sent");
                assert_eq!([!not_sender, !not_index], [sender, index], "torn");
                assert!(sender < senders);
                sum.update(|[times, sum]| [times + 1, sum + u64::from(index)])
                    .expect("nobody dies");
            }
        }
    }
    // One producer, one consumer.
    if number == 0 {
        for value in 0..u64::from(ELEMENTS) {
            ring.write_within(value, WATCHDOG).expect("it is read");
            stream.emit_within(value, WATCHDOG).expect("it is taken");
        }
        stream.close();
    } else if number == count - 1 {
        for value in 0..u64::from(ELEMENTS) {
            assert_eq!(ring.read_within(WATCHDOG), Ok(value));
            assert_eq!(stream.next_within(WATCHDOG), Ok(value));
        }
        assert!(
            stream
                .next_within(WATCHDOG)
                .is_err_and(|end| end.is_closed())
        );
    }
}

#[test]
fn messages_arrive_once_and_whole() {
    for processes in [2, 4] {
        let (name, memory) = memory("messages", 1 << 20);
        let channels = [
            Channel::<[u32; 4]>::create(&memory, "rendezvous", 0).expect("it fits"),
            Channel::<[u32; 4]>::create(&memory, "buffered", 4).expect("it fits"),
            Channel::<[u32; 4]>::create_python(&memory, "python", 3).expect("it fits"),
        ];
        Ring::<u64>::create(&memory, "ring", 7).expect("it fits");
        Stream::<u64>::create(&memory, "stream", 7).expect("it fits");
        run_all("messages", &name, processes);
        for channel in channels {
            let name = format!("got-{}-{}", channel.capacity(), channel.dialect());
            let sum = Signal::<[u64; 2]>::open(&memory, &name).expect("the children made it");
            let (senders, rounds) = (u64::from(processes / 2), u64::from(ROUNDS));
            let expected = [senders * rounds, senders * rounds * (rounds - 1) / 2];
            assert_eq!(sum.get(), Ok(expected), "{name}");
            assert_eq!(channel.len(), 0);
        }
    }
}

/// Takes what the parent asks for and stands still with it.
fn hold(memory: &Memory, number: u32) -> ! {
    let stand = || -> ! {
        tell("held");
        std::thread::sleep(WATCHDOG);
        panic!("the parent kills it");
    };
    match number {
        0 => {
            let mutex = Mutex::open(memory, "mutex").expect("made");
            let _guard = mutex.lock_within(WATCHDOG).expect("free");
            stand()
        }
        1 => {
            let lock = RwLock::open(memory, "rwlock").expect("made");
            let _guard = lock.write_within(WATCHDOG).expect("free");
            stand()
        }
        2 => {
            let lock = RwLock::open(memory, "rwlock").expect("made");
            let _one = lock.read_within(WATCHDOG).expect("free");
            let _two = lock.read_within(WATCHDOG).expect("free");
            stand()
        }
        3 => {
            let once = Once::open(memory, "once").expect("made");
            let _ = once.call(|_| stand());
        }
        4 => {
            let lazy = Lazy::<u64>::open(memory, "lazy").expect("made");
            let _ = lazy.force_with::<OpError>(|_| stand());
        }
        5 => {
            let signal = Signal::<[u64; 2]>::open(memory, "signal").expect("made");
            let _ = signal.update(|_| stand());
        }
        6 => {
            let monitor = Monitor::open(memory, "monitor").expect("made");
            let _guard = monitor.lock_within(WATCHDOG).expect("free");
            stand()
        }
        other => panic!("nothing to hold: {other}"),
    }
    unreachable!("it stands still")
}

/// Starts a holder and kills it once it holds.
fn kill_holder(name: &Name, number: u32) {
    let mut holder = child("child_role", &format!("hold {} {number} 0", &**name));
    assert!(holder.wait_for_line("held"));
    holder.0.kill().expect("it runs");
    holder.0.wait().expect("it ends");
}

#[test]
fn the_lock_of_a_dead_holder_is_taken_over_and_said_so() {
    let (name, memory) = memory("dead", 1 << 20);
    let mutex = Mutex::create(&memory, "mutex").expect("it fits");
    kill_holder(&name, 0);
    assert!(
        mutex.try_lock().is_none(),
        "a try does not look for the dead"
    );
    let guard = mutex.lock_within(NOTICED).expect("the holder is dead");
    assert!(guard.recovered());
    drop(guard);
    assert!(
        !mutex.lock_within(NOTICED).expect("free").recovered(),
        "said once"
    );

    let monitor = Monitor::create(&memory, "monitor").expect("it fits");
    kill_holder(&name, 6);
    assert!(monitor.lock_within(NOTICED).expect("dead").recovered());

    let lock = RwLock::create(&memory, "rwlock").expect("it fits");
    kill_holder(&name, 1);
    assert!(lock.write_within(NOTICED).expect("dead").recovered());
    kill_holder(&name, 1);
    let guard = lock.read_within(NOTICED).expect("dead");
    assert!(guard.recovered());
    drop(guard);
    assert!(
        !lock.read_within(NOTICED).expect("free").recovered(),
        "said once"
    );
    kill_holder(&name, 2);
    assert_eq!(lock.readers(), 2);
    drop(lock.write_within(NOTICED).expect("the readers are dead"));
    assert_eq!((lock.readers(), lock.is_writing()), (0, false));
}

#[test]
fn what_a_dead_process_had_begun_is_done_by_the_next() {
    let (name, memory) = memory("begun", 1 << 20);
    let once = Once::create(&memory, "once").expect("it fits");
    kill_holder(&name, 3);
    assert!(
        once.wait_within(Duration::from_millis(1)).is_err(),
        "not done"
    );
    let mut recovered = false;
    let outcome = once.call_within(NOTICED, |run| recovered = run.recovered());
    assert_eq!((outcome, recovered), (Ok(OnceOutcome::Ran), true));

    let lazy = Lazy::<u64>::external(&memory, "lazy").expect("it fits");
    kill_holder(&name, 4);
    let mut told = false;
    let value = lazy.force_with_within(NOTICED, |died| {
        told = died;
        Ok::<_, OpError>(7)
    });
    assert_eq!((value, told), (Ok(7), true));

    let signal = Signal::create(&memory, "signal", [1_u64, 1]).expect("it fits");
    kill_holder(&name, 5);
    assert!(
        matches!(signal.get(), Err(OpError::HolderDied { .. })),
        "said once"
    );
    assert_eq!(signal.get(), Ok([1, 1]), "then it goes on");
}

/// Any structure that a stopped foreign holder could wedge has a way out; here
/// the marks are off, so the holder is as unknown as a foreign one.
#[test]
fn an_unknown_holder_is_named_and_can_be_forced() {
    use polyshm_zeroipc::OpenOptions;
    let (name, memory) = memory("unknown", 1 << 20);
    let unmarked =
        Memory::open_with(&name, OpenOptions::default().native_marks(false)).expect("there");
    let soon = Duration::from_millis(20);

    let mutex = Mutex::create(&memory, "mutex").expect("it fits");
    let foreign = Mutex::open(&unmarked, "mutex").expect("made");
    std::mem::forget(foreign.try_lock().expect("free"));
    let held = mutex.lock_within(soon).expect_err("held");
    assert!(
        matches!(held, OpError::HolderUnknown { .. }) && held.is_timeout(),
        "{held}"
    );
    assert!(mutex.force_unlock());
    assert!(!mutex.lock_within(soon).expect("forced").recovered());

    let lock = RwLock::create(&memory, "rwlock").expect("it fits");
    let foreign = RwLock::open(&unmarked, "rwlock").expect("made");
    std::mem::forget(foreign.read().expect("free"));
    assert!(lock.write_within(soon).is_err());
    lock.force_release_readers();
    drop(lock.write_within(soon).expect("forced"));
    std::mem::forget(foreign.write().expect("free"));
    assert!(lock.read_within(soon).is_err());
    lock.force_release_writer();
    drop(lock.read_within(soon).expect("forced"));
}
