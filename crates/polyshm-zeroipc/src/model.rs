//! The shipped structures under loom.
//!
//! Elements are of 8 bytes, so that each is one of the region's modelled cells.
//! Every structure lies at the start of a region of its own, as a block that no
//! table knows; the spare word lies behind it.

use crate::{
    Event, EventMode, Once, RwLock, Semaphore,
    block::Block,
    element::shape,
    error::Label,
    map::{Map, RawMap},
    memory::OpenOptions,
    native::Spare,
    pool::Pool,
    queue::{Queue, RawQueue},
    stack::{RawStack, Stack},
    sync::{barrier::Barrier, semaphore::RawSemaphore},
};
use loom::thread;
use polyshm_platform::{Deadline, Region, Waiter};
use polyshm_wire::zeroipc::{
    BarrierImage, Dialect, KeyKind, MapLayout, PoolLayout, QueueLayout, StackLayout,
};

/// Explores every interleaving with at most `preemptions` forced switches; the
/// whole space is beyond reach, and bugs need few.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 50_000;
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

/// `sizes` blocks side by side, with one spare word for all.
fn blocks(sizes: &[usize]) -> Vec<Block> {
    let total: usize = sizes.iter().map(|size| size.next_multiple_of(8)).sum();
    let region = Region::heap(total + 8);
    let spare = Spare::new(region.word64(total).unwrap());
    let mut offset = 0;
    sizes
        .iter()
        .map(|&size| {
            let block = Block {
                region: region.clone(),
                offset,
                size,
                label: Label {
                    what: "model",
                    name: "m".into(),
                },
                waiter: Waiter::new(OpenOptions::default().wait_strategy),
                patience: OpenOptions::default().patience,
                bell: spare.bell(0),
                spare: spare.clone(),
                marks: false,
                room: size,
            };
            offset += size.next_multiple_of(8);
            block
        })
        .collect()
}

fn block(size: u64) -> Block {
    blocks(&[size as usize]).remove(0)
}

fn queue(capacity: u64) -> Queue<u64> {
    let layout = QueueLayout::new(capacity, 8).unwrap();
    Queue::over(RawQueue::init(&block(layout.size()), layout).unwrap())
}

fn stack(capacity: u64) -> Stack<u64> {
    let layout = StackLayout::new(capacity, 8).unwrap();
    Stack::over(RawStack::init(&block(layout.size()), layout).unwrap())
}

fn map(capacity: u64) -> Map<u64, u64> {
    let (key, value) = (shape::<u64>(), shape::<u64>());
    let layout = MapLayout::new(Dialect::Cpp, capacity, key, value).unwrap();
    Map::over(RawMap::init(&block(layout.size()), &layout, KeyKind::Unsigned).unwrap())
}

#[test]
fn model_queue_of_two_producers_and_a_consumer() {
    model(3, || {
        let queue = queue(2);
        let one = queue.clone();
        let producer = thread::spawn(move || one.try_push(1).is_ok());
        let other = queue.try_push(2).is_ok();
        let pushed = producer.join().unwrap();
        assert!(pushed && other, "there is room for two");
        let mut got = [queue.try_pop(), queue.try_pop()].map(Option::unwrap);
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        assert_eq!(queue.try_pop(), None);
    });
}

#[test]
fn model_queue_hands_over_while_it_laps() {
    model(3, || {
        let queue = queue(2);
        let producer = queue.clone();
        let sender = thread::spawn(move || {
            for element in 1..=3 {
                producer.push_within(element, Deadline::never()).unwrap();
            }
        });
        for element in 1..=3 {
            assert_eq!(queue.pop_within(Deadline::never()), Ok(element));
        }
        sender.join().unwrap();
    });
}

#[test]
fn model_queue_of_two_consumers_gives_each_element_once() {
    model(3, || {
        let queue = queue(2);
        queue.try_push(1).unwrap();
        queue.try_push(2).unwrap();
        let other = queue.clone();
        let consumer = thread::spawn(move || other.try_pop());
        let mine = queue.try_pop();
        let theirs = consumer.join().unwrap();
        let mut got: Vec<u64> = [mine, theirs].into_iter().flatten().collect();
        got.sort_unstable();
        assert_eq!(got, [1, 2]);
    });
}

#[test]
fn model_stack_loses_and_doubles_nothing() {
    model(3, || {
        let stack = stack(2);
        stack.try_push(1).unwrap();
        let other = stack.clone();
        let user = thread::spawn(move || {
            let pushed = other.try_push(2).is_ok();
            (pushed, other.try_pop().unwrap_or(None))
        });
        let mine = stack.try_pop().unwrap_or(None);
        let (pushed, theirs) = user.join().unwrap();
        let mut got: Vec<u64> = [mine, theirs].into_iter().flatten().collect();
        while let Ok(Some(left)) = stack.try_pop() {
            got.push(left);
        }
        got.sort_unstable();
        let expected: &[u64] = if pushed { &[1, 2] } else { &[1] };
        assert_eq!(got, expected);
    });
}

#[test]
fn model_pool_never_gives_one_block_to_two() {
    model(3, || {
        let layout = PoolLayout::new(2, 8, 8).unwrap();
        let pool = Pool::<u64>::init(&block(layout.size()), &layout).unwrap();
        let other = pool.clone();
        let user = thread::spawn(move || {
            // The list's head changes and comes back, with another behind it.
            let first = other.allocate_with(7).ok();
            let second = other.allocate_with(7).ok();
            if let (Some(first), Some(second)) = (first, second) {
                other.deallocate(first).unwrap();
                return Some((second, other.get(second)));
            }
            first.or(second).map(|index| (index, other.get(index)))
        });
        let mine = pool.allocate_with(8).ok();
        let theirs = user.join().unwrap();
        if let Some(mine) = mine {
            assert_eq!(pool.get(mine), Some(8), "nobody else stores there");
            assert_ne!(Some(mine), theirs.map(|(index, _)| index));
        }
        assert!(theirs.is_none_or(|(_, value)| value == Some(7)));
        let taken = u32::from(mine.is_some()) + u32::from(theirs.is_some());
        assert_eq!(pool.allocated(), taken);
        assert_eq!(
            pool.free_list().map(|free| free.len() as u32),
            Some(2 - taken)
        );
    });
}

/// Keys that share a home in a map of two slots.
const KEYS: [u64; 2] = [2, 4];

#[test]
fn model_map_find_never_gives_another_keys_value() {
    model(3, || {
        let map = map(2);
        let [one, two] = KEYS;
        map.insert(one, one * 10).unwrap();
        let other = map.clone();
        let user = thread::spawn(move || {
            // The slot changes hands and back.
            other.remove(one).unwrap();
            other.insert(two, two * 10).unwrap();
            other.remove(two).unwrap();
            other.insert(one, one * 10).unwrap();
        });
        if let Ok(Some(value)) = map.get(one) {
            assert_eq!(value, one * 10);
        }
        user.join().unwrap();
        assert_eq!(map.get(one), Ok(Some(one * 10)));
        assert_eq!((map.get(two), map.len()), (Ok(None), 1));
    });
}

#[test]
fn model_map_holds_a_key_once() {
    model(2, || {
        let map = map(3);
        // A slot before the end of the chain falls free while two insert.
        map.insert(6, 60).unwrap();
        let (a, b) = (map.clone(), map.clone());
        let eraser = thread::spawn(move || {
            a.remove(6).unwrap();
            a.insert(3, 31).is_ok()
        });
        let mine = b.insert(3, 30).is_ok();
        let theirs = eraser.join().unwrap();
        assert!(mine && theirs);
        assert_eq!(map.len(), 1, "{:?}", map.to_vec());
        let value = map.get(3).unwrap();
        assert!(value == Some(30) || value == Some(31), "{value:?}");
        assert_eq!(map.remove(3), Ok(true));
        assert_eq!(map.get(3), Ok(None), "no second one reappears");
    });
}

#[test]
fn model_map_updates_are_whole() {
    model(3, || {
        let map = map(2);
        map.insert(2, 20).unwrap();
        let other = map.clone();
        let user = thread::spawn(move || other.insert(2, 21).unwrap());
        let seen = map.get(2).unwrap();
        assert!(seen == Some(20) || seen == Some(21), "{seen:?}");
        user.join().unwrap();
        assert_eq!(map.get(2), Ok(Some(21)));
    });
}

fn semaphore(count: i32, max: i32) -> Semaphore {
    Semaphore::from_raw(RawSemaphore::init(&block(16), count, max).unwrap())
}

#[test]
fn model_semaphore_admits_one_at_a_time() {
    model(3, || {
        let seats = semaphore(1, 1);
        let inside = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
        let (other, there) = (seats.clone(), inside.clone());
        let visit = |seats: &Semaphore, inside: &loom::cell::UnsafeCell<i32>| {
            let seat = seats.acquire().unwrap();
            // Loom fails the model if two are here at once, or if the second
            // does not see what the first did.
            inside.with_mut(|_| ());
            drop(seat);
        };
        let user = thread::spawn(move || visit(&other, &there));
        visit(&seats, &inside);
        user.join().unwrap();
        assert_eq!((seats.count(), seats.waiting()), (1, 0));
    });
}

#[test]
fn model_barrier_with_a_time_out_leaves_a_clean_round() {
    model(3, || {
        let image = BarrierImage::new(2);
        let barrier = Barrier::init(&block(16), &image).unwrap();
        let other = barrier.clone();
        // One comes without patience, the other waits for whoever comes.
        let hasty = thread::spawn(move || other.wait_within(std::time::Duration::ZERO).is_ok());
        let patient = barrier.wait_within(std::time::Duration::ZERO).is_ok();
        let met = hasty.join().unwrap();
        assert_eq!(patient, met, "both met, or none did");
        assert_eq!(barrier.arrived(), 0, "no arrival is left over");
        assert_eq!(barrier.generation(), u32::from(met));
        // And the next round works.
        let other = barrier.clone();
        let next = thread::spawn(move || other.wait().unwrap());
        barrier.wait().unwrap();
        next.join().unwrap();
        assert_eq!(barrier.arrived(), 0);
    });
}

#[test]
fn model_rwlock_keeps_the_writer_alone() {
    model(2, || {
        let parts = blocks(&[8, 16, 16, 1]);
        let lock = RwLock::init(&parts).unwrap();
        let data = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
        let (other, there) = (lock.clone(), data.clone());
        let reader = thread::spawn(move || {
            let guard = other.read().unwrap();
            there.with(|_| ());
            drop(guard);
        });
        let guard = lock.write().unwrap();
        data.with_mut(|_| ());
        drop(guard);
        reader.join().unwrap();
        assert_eq!((lock.readers(), lock.is_writing()), (0, false));
    });
}

#[test]
fn model_rwlock_two_readers_and_then_a_writer() {
    model(2, || {
        let parts = blocks(&[8, 16, 16, 1]);
        let lock = RwLock::init(&parts).unwrap();
        let data = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
        let (other, there) = (lock.clone(), data.clone());
        let held = lock.read().unwrap();
        let writer = thread::spawn(move || {
            let guard = other.write().unwrap();
            there.with_mut(|_| ());
            drop(guard);
        });
        data.with(|_| ());
        drop(held);
        writer.join().unwrap();
        assert_eq!((lock.readers(), lock.is_writing()), (0, false));
    });
}

#[test]
fn model_once_runs_once_and_all_see_it() {
    model(3, || {
        let once = Once::over(&block(4)).unwrap();
        let data = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
        let call = |once: &Once, data: &loom::cell::UnsafeCell<i32>| {
            let outcome = once.call(|_| data.with_mut(|_| ())).unwrap();
            data.with(|_| ());
            outcome
        };
        let (other, there) = (once.clone(), data.clone());
        let user = thread::spawn(move || call(&other, &there));
        let mine = call(&once, &data);
        let theirs = user.join().unwrap();
        assert_ne!(mine, theirs, "one ran, the other saw it");
        assert!(once.is_done());
    });
}

#[test]
fn model_event_lets_go_after_what_was_done() {
    for mode in [EventMode::Auto, EventMode::Manual] {
        model(3, move || {
            let parts = blocks(&[12, 16]);
            let event = Event::init(&parts[0], &parts[1], mode).unwrap();
            let data = loom::sync::Arc::new(loom::cell::UnsafeCell::new(0));
            let (other, there) = (event.clone(), data.clone());
            let signaller = thread::spawn(move || {
                there.with_mut(|_| ());
                other.signal();
            });
            event.wait().unwrap();
            data.with(|_| ());
            signaller.join().unwrap();
            assert_eq!(event.try_wait(), mode == EventMode::Manual);
        });
    }
}
