//! Damaged and hostile segments, on the heap: every operation ends in a result
//! or in an error, never in a panic, a hang or an access outside.
//!
//! `POLYSHM_HOSTILE_IMAGES` says how many images (a million by default in an
//! optimised build).
#![cfg(not(loom))]

use polyshm_testkit::{images_wanted, watch};
use polyshm_wire::zeroipc::{Entry, TableHeader, entry_at, header_offset};
use polyshm_zeroipc::{
    Array, Barrier, Channel, Deadline, DynArray, DynError, DynMap, DynQueue, DynRing, DynStack,
    Element, Error, Event, EventMode, Future, InsertError, Key, Latch, Lazy, LazyBool, Map, Memory,
    Monitor, Mutex, Number, Once, OpError, OpenOptions, Pool, Queue, Ring, RwLock, Semaphore, Set,
    Signal, Stack, Stream, TryPushError, VoidStream, WaitStrategy,
};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Xorshift64*: the same images in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What came of the operations, by name.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn opened<T>(&mut self, opened: Result<T, Error>) -> Option<T> {
        self.add(match &opened {
            Ok(_) => "opened",
            Err(Error::NotFound { .. }) => "not found",
            Err(Error::Structure { .. }) => "refused as damaged or something else",
            Err(Error::Unusable { .. }) => "unusable",
            Err(Error::Name { .. }) => "no such name",
            Err(_) => "other refusals",
        });
        opened.ok()
    }

    fn operated<T>(&mut self, result: Result<T, OpError>) -> Option<T> {
        self.add(match &result {
            Ok(_) => "done",
            Err(OpError::Timeout { .. }) => "timed out",
            Err(OpError::Stuck { .. }) => "stuck",
            Err(OpError::Closed { .. }) => "closed",
            Err(OpError::HolderDied { .. }) => "holder died",
            Err(OpError::HolderUnknown { .. }) => "holder unknown",
            Err(OpError::Overflow { .. }) => "overflow",
            Err(OpError::AlreadyDone { .. }) => "done before",
            Err(OpError::Failed { .. }) => "failed",
            Err(OpError::Damaged { .. }) => "damaged",
            Err(_) => "other errors",
        });
        result.ok()
    }

    fn dynamic<T>(&mut self, result: Result<T, DynError>) {
        match result {
            Err(DynError::Op(error)) => drop(self.operated::<T>(Err(error))),
            Err(DynError::Refused(refused)) => drop(self.operated::<T>(Err(refused.error))),
            Err(DynError::Full { .. }) => self.add("full"),
            Err(_) => self.add("other errors"),
            Ok(_) => self.add("done"),
        }
    }
}

/// One use of a segment: between two operations somebody may store in it.
struct Use<'a> {
    memory: &'a Memory,
    name: &'a str,
    counts: &'a mut Counts,
    strike: &'a mut dyn FnMut(),
    /// For all waits of this use.
    patience: Duration,
    /// Whether what takes some milliseconds is done as well.
    slow: bool,
}

impl Use<'_> {
    fn deadline(&mut self) -> Deadline {
        (self.strike)();
        Deadline::after(self.patience)
    }

    fn opened<T>(&mut self, open: impl Fn(&Memory, &str) -> Result<T, Error>) -> Option<T> {
        let opened = self.counts.opened(open(self.memory, self.name));
        (self.strike)();
        opened
    }

    fn operated<T>(&mut self, result: Result<T, OpError>) -> Option<T> {
        let done = self.counts.operated(result);
        (self.strike)();
        done
    }
}

/// An element made of one byte.
fn element<T: Element>(byte: u8) -> T {
    let mut element = T::new_zeroed();
    element.as_mut_bytes().fill(byte);
    element
}

type User = fn(&mut Use<'_>);

fn use_array<T: Element>(it: &mut Use<'_>) {
    let Some(array) = it.opened(Array::<T>::open) else {
        return;
    };
    let len = array.len();
    let _ = (array.get(0), array.get(len - 1), array.get(len));
    assert!(array.get(len).is_none() && array.get(usize::MAX).is_none());
    array.set(len - 1, element(1)).expect("inside");
    assert!(array.set(len, element(1)).is_err());
    let _ = array.write(1, &[element::<T>(2); 3]);
    let _ = array.read(1..3);
    // No image is larger.
    assert!(array.to_vec().len() * size_of::<T>() <= 1 << 16);
    array.fill(element(3));
    it.counts.add("done");
}

fn use_queue<T: Element>(it: &mut Use<'_>) {
    let Some(queue) = it.opened(Queue::<T>::open) else {
        return;
    };
    let capacity = queue.capacity();
    assert!(queue.len() <= capacity);
    let deadline = it.deadline();
    let pushed = queue.push_within(element(1), deadline);
    it.operated(pushed.map_err(|refused| refused.error));
    let deadline = it.deadline();
    let popped = queue.pop_within(deadline);
    it.operated(popped);
    let mut into = [element::<T>(0); 5];
    assert!(queue.try_push_slice(&into) <= into.len());
    (it.strike)();
    assert!(queue.try_pop_slice(&mut into) <= into.len());
    (it.strike)();
    let _ = (queue.try_push(element(2)), queue.try_pop());
    let deadline = it.deadline();
    let _ = queue.push_slice_within(&into, deadline);
    let deadline = it.deadline();
    let _ = queue.pop_slice_within(&mut into, deadline);
    let repair = queue.repair();
    assert!(repair.kept as usize <= capacity);
    (it.strike)();
    let _ = (queue.len(), queue.is_full(), queue.is_empty());
}

/// A repaired queue works, whatever it was before.
fn use_repaired_queue<T: Element>(it: &mut Use<'_>) {
    let Some(queue) = it.opened(Queue::<T>::open) else {
        return;
    };
    let kept = queue.repair().kept as usize;
    assert_eq!(queue.len(), kept);
    for _ in 0..kept {
        assert!(queue.try_pop().is_some());
    }
    assert!(queue.try_pop().is_none());
    for _ in 0..queue.capacity() {
        assert!(queue.try_push(element(1)).is_ok());
    }
    assert!(queue.try_push(element(1)).is_err());
    it.counts.add("repaired");
}

fn use_stack<T: Element>(it: &mut Use<'_>) {
    let Some(stack) = it.opened(Stack::<T>::open) else {
        return;
    };
    assert!(stack.len() <= stack.capacity());
    if let Err(TryPushError::Stuck(refused)) = stack.try_push(element(1)) {
        it.operated::<()>(Err(refused.error));
    }
    let popped = stack.try_pop();
    it.operated(popped);
    let peeked = stack.peek();
    it.operated(peeked);
    let deadline = it.deadline();
    let pushed = stack.push_within(element(1), deadline);
    it.operated(pushed.map_err(|refused| refused.error));
    let deadline = it.deadline();
    let popped = stack.pop_within(deadline);
    it.operated(popped);
    assert!(stack.repair().kept as usize <= stack.capacity());
    let _ = (stack.is_full(), stack.is_empty());
}

fn use_repaired_stack<T: Element>(it: &mut Use<'_>) {
    let Some(stack) = it.opened(Stack::<T>::open) else {
        return;
    };
    let kept = stack.repair().kept as usize;
    assert_eq!(stack.len(), kept);
    for _ in 0..kept {
        assert!(matches!(stack.try_pop(), Ok(Some(_))));
    }
    assert!(matches!(stack.try_pop(), Ok(None)));
    for _ in 0..stack.capacity() {
        assert!(stack.try_push(element(1)).is_ok());
    }
    let full = stack.try_push(element(1));
    assert!(matches!(full, Err(TryPushError::Full(_))));
    it.counts.add("repaired");
}

fn use_ring<T: Element>(it: &mut Use<'_>) {
    let Some(mut ring) = it.opened(Ring::<T>::open) else {
        return;
    };
    let capacity = ring.capacity();
    assert!(ring.len() <= capacity);
    let _ = ring.peek();
    let deadline = it.deadline();
    let written = ring.write_within(element(1), deadline);
    it.operated(written.map_err(|refused| refused.error));
    let mut block = [element::<T>(2); 5];
    assert!(ring.try_write_slice(&block) <= capacity.min(5));
    (it.strike)();
    assert!(ring.try_read_slice(&mut block) <= capacity.min(5));
    let deadline = it.deadline();
    let read = ring.read_within(deadline);
    it.operated(read);
    let _ = (ring.try_write(element(3)), ring.try_read());
    assert!(ring.len() <= capacity);
    ring.reset();
}

fn use_pool<T: Element>(it: &mut Use<'_>) {
    let Some(pool) = it.opened(Pool::<T>::open) else {
        return;
    };
    let capacity = pool.capacity();
    assert!(pool.allocated() <= capacity);
    let mut taken = Vec::new();
    for _ in 0..3 {
        let allocated = pool.allocate();
        if let Some(Some(index)) = it.operated(allocated) {
            assert!(index < capacity);
            assert!(pool.get(index).is_some());
            pool.set(index, element(1)).expect("it exists");
            taken.push(index);
        }
    }
    let _ = pool.allocate_with(element(2));
    for index in taken {
        let _ = pool.deallocate(index);
        (it.strike)();
    }
    assert!(pool.deallocate(capacity).is_err() && pool.get(capacity).is_none());
    if let Some(free) = pool.free_list() {
        assert!(free.len() <= capacity as usize);
    }
    pool.repair(&[0, capacity, u32::MAX]);
}

fn use_repaired_pool<T: Element>(it: &mut Use<'_>) {
    let Some(pool) = it.opened(Pool::<T>::open) else {
        return;
    };
    pool.repair(&[]);
    for index in 0..pool.capacity() {
        assert_eq!(pool.allocate(), Ok(Some(index)));
    }
    assert_eq!(pool.allocate(), Ok(None));
    it.counts.add("repaired");
}

fn with_map<K: Key, V: Element>(it: &mut Use<'_>, map: &Map<K, V>) {
    for byte in [0, 1, 7] {
        let key = element::<K>(byte);
        match map.insert(key, element(byte)) {
            Ok(_) => it.counts.add("done"),
            Err(InsertError::Full(_)) => it.counts.add("full"),
            Err(InsertError::Stuck(refused)) => {
                it.operated::<()>(Err(refused.error));
            }
            Err(_) => it.counts.add("other errors"),
        }
        let found = map.get(key);
        it.operated(found);
    }
    let removed = map.remove(element(1));
    it.operated(removed);
    let found = map.contains_key(element(1));
    it.operated(found);
    assert!(map.len() <= map.capacity());
    assert!(map.to_vec().len() <= map.capacity());
    let repair = map.repair();
    assert!(repair.kept as usize + repair.dropped as usize <= map.capacity());
    (it.strike)();
    map.clear();
}

fn use_map<K: Key, V: Element>(it: &mut Use<'_>) {
    if let Some(map) = it.opened(Map::<K, V>::open) {
        with_map(it, &map);
    }
}

fn use_python_map<K: Key, V: Element>(it: &mut Use<'_>) {
    if let Some(map) = it.opened(Map::<K, V>::open_python) {
        with_map(it, &map);
    }
}

/// Numbers as keys, each found again.
fn use_repaired_map(it: &mut Use<'_>) {
    let Some(map) = it.opened(Map::<u32, u64>::open) else {
        return;
    };
    assert_eq!(map.repair().kept as usize, map.to_vec().len());
    map.clear();
    for key in 0..map.capacity() as u32 {
        assert!(map.insert(key, key.into()).is_ok());
    }
    for key in 0..map.capacity() as u32 {
        assert_eq!(map.get(key), Ok(Some(key.into())));
    }
    assert!(map.insert(u32::MAX, 0).is_err());
    it.counts.add("repaired");
}

fn with_set<T: Key>(it: &mut Use<'_>, set: &Set<T>) {
    for byte in [0, 1, 7] {
        match set.insert(element(byte)) {
            Err(InsertError::Stuck(refused)) => {
                it.operated::<()>(Err(refused.error));
            }
            Err(_) => it.counts.add("full"),
            Ok(_) => it.counts.add("done"),
        }
        let found = set.contains(element(byte));
        it.operated(found);
    }
    let removed = set.remove(element(1));
    it.operated(removed);
    assert!(set.len() <= set.capacity() && set.to_vec().len() <= set.capacity());
    set.repair();
    set.clear();
    assert!(it.patience.is_zero() || set.capacity() > 0);
}

fn use_set<T: Key>(it: &mut Use<'_>) {
    if let Some(set) = it.opened(Set::<T>::open) {
        with_set(it, &set);
    }
}

fn use_python_set<T: Key>(it: &mut Use<'_>) {
    if let Some(set) = it.opened(Set::<T>::open_python) {
        with_set(it, &set);
    }
}

fn use_semaphore(it: &mut Use<'_>) {
    let Some(semaphore) = it.opened(Semaphore::open) else {
        return;
    };
    if let Some(permit) = semaphore.try_acquire() {
        (it.strike)();
        drop(permit);
    }
    let deadline = it.deadline();
    let acquired = semaphore.acquire_within(deadline);
    if let Some(permit) = it.counts.operated(acquired) {
        permit.forget();
    }
    let released = semaphore.release();
    it.operated(released);
    let released = semaphore.release_many(u32::MAX);
    it.operated(released);
    let released = semaphore.release_many(3);
    it.operated(released);
    let _ = (semaphore.count(), semaphore.waiting(), semaphore.max());
}

fn use_mutex(it: &mut Use<'_>) {
    let Some(mutex) = it.opened(Mutex::open) else {
        return;
    };
    drop(mutex.try_lock());
    let deadline = it.deadline();
    let locked = mutex.lock_within(deadline);
    if let Some(guard) = it.counts.operated(locked) {
        (it.strike)();
        let _ = guard.recovered();
    }
    let _ = (mutex.force_unlock(), mutex.is_locked());
    (it.strike)();
    drop(mutex.try_lock());
}

fn use_barrier(it: &mut Use<'_>) {
    let Some(barrier) = it.opened(Barrier::open) else {
        return;
    };
    let _ = barrier.try_wait();
    let deadline = it.deadline();
    let met = barrier.wait_within(deadline);
    it.operated(met);
    barrier.force_release();
    let _ = (barrier.arrived(), barrier.generation());
    assert!(barrier.participants() > 0);
    let deadline = it.deadline();
    let met = barrier.wait_within(deadline);
    it.operated(met);
}

fn use_latch(it: &mut Use<'_>) {
    let Some(latch) = it.opened(Latch::open) else {
        return;
    };
    let deadline = it.deadline();
    let opened = latch.wait_within(deadline);
    it.operated(opened);
    assert!(latch.count_down(1) >= 0 && latch.count() >= 0);
    (it.strike)();
    let _ = (latch.count_down(u32::MAX), latch.try_wait());
    latch.reset();
    assert!(latch.initial() >= 0);
}

fn use_once(it: &mut Use<'_>) {
    let Some(once) = it.opened(Once::open) else {
        return;
    };
    let deadline = it.deadline();
    let waited = once.wait_within(deadline);
    it.operated(waited);
    let deadline = it.deadline();
    let called = once.call_within(deadline, |_| (it.strike)());
    it.operated(called);
    let _ = once.try_call(|_| ());
    let _ = once.is_done();
    once.reset();
    let _ = once.try_call(|run| assert!(!run.recovered()));
}

fn use_event(it: &mut Use<'_>) {
    let Some(event) = it.opened(Event::open) else {
        return;
    };
    let _ = (event.try_wait(), event.is_signaled());
    let deadline = it.deadline();
    let waited = event.wait_within(deadline);
    it.operated(waited);
    event.signal();
    let deadline = it.deadline();
    let waited = event.wait_within(deadline);
    it.operated(waited);
    // A manual one waits 100 ms for waiters that never were.
    if event.mode() == EventMode::Auto || it.slow {
        event.pulse();
    }
    event.reset();
}

fn use_rwlock(it: &mut Use<'_>) {
    let Some(lock) = it.opened(RwLock::open) else {
        return;
    };
    if let Some(guard) = lock.try_read() {
        let _ = guard.recovered();
        (it.strike)();
        let deadline = it.deadline();
        let written = lock.write_within(deadline).map(drop);
        it.operated(written);
    }
    let deadline = it.deadline();
    let read = lock.read_within(deadline);
    drop(it.counts.operated(read));
    let deadline = it.deadline();
    let written = lock.write_within(deadline);
    if let Some(guard) = it.counts.operated(written) {
        let _ = guard.recovered();
        (it.strike)();
        let deadline = it.deadline();
        let read = lock.read_within(deadline).map(drop);
        it.operated(read);
    }
    lock.force_release_readers();
    (it.strike)();
    lock.force_release_writer();
    let _ = (
        lock.readers(),
        lock.is_writing(),
        lock.try_write().is_some(),
    );
}

fn use_monitor(it: &mut Use<'_>) {
    let Some(monitor) = it.opened(Monitor::open) else {
        return;
    };
    monitor.notify_one();
    (it.strike)();
    monitor.notify_all();
    (it.strike)();
    let deadline = it.deadline();
    let locked = monitor.lock_within(deadline);
    if let Some(guard) = it.counts.operated(locked) {
        let patience = it.patience;
        let waited = guard.wait_within(patience);
        if let Some((guard, _)) = it.counts.operated(waited) {
            guard.notify_one();
            let mut times = 0;
            let condition = || {
                times += 1;
                times < 3
            };
            let waited = guard.wait_while(patience, condition).map(drop);
            it.operated(waited);
        }
    }
    monitor.force_unlock();
    let _ = monitor.try_lock().map(|guard| guard.recovered());
}

fn use_signal<T: Element>(it: &mut Use<'_>) {
    let Some(signal) = it.opened(Signal::<T>::open) else {
        return;
    };
    let seen = signal.version();
    // What is locked by nobody would be waited for, 5 s each time.
    let mutex = format!("{}_mtx", it.name);
    let locked = Mutex::open(it.memory, &mutex).is_ok_and(|mutex| mutex.is_locked());
    if locked {
        it.counts.add("locked signals");
        signal.force_unlock();
        if Mutex::open(it.memory, &mutex).is_ok_and(|mutex| mutex.is_locked()) {
            it.counts.add("signals that stay locked");
            return;
        }
    }
    let got = signal.get().map(drop);
    it.operated(got);
    let set = signal.set(element(1));
    it.operated(set);
    let got = signal.snapshot().map(drop);
    it.operated(got);
    let updated = signal.update(|value| value).map(drop);
    it.operated(updated);
    let deadline = it.deadline();
    let waited = signal.wait_for_change(seen, deadline).map(drop);
    it.operated(waited);
    let version = signal.version();
    let deadline = it.deadline();
    let waited = signal.wait_for_change(version, deadline).map(drop);
    it.operated(waited);
}

fn use_channel<T: Element>(it: &mut Use<'_>) {
    let Some(channel) = it.opened(Channel::<T>::open) else {
        return;
    };
    let _ = (channel.len(), channel.is_empty(), channel.capacity());
    let deadline = it.deadline();
    let sent = channel.send_within(element(1), deadline);
    it.operated(sent.map_err(|refused| refused.error));
    let deadline = it.deadline();
    let received = channel.receive_within(deadline).map(drop);
    it.operated(received);
    let received = channel.try_receive().map(drop);
    it.operated(received);
    // Without a buffer it waits 20 ms for receivers that never were.
    if channel.capacity() > 0 || it.slow {
        let sent = channel.try_send(element(2));
        it.operated(sent.map_err(|refused| refused.error));
    }
    channel.repair();
    let deadline = it.deadline();
    let sent = channel.send_within(element(1), deadline);
    it.operated(sent.map_err(|refused| refused.error));
    channel.close();
    let _ = channel.is_closed();
    let sent = channel.send_within(element(1), deadline);
    it.operated(sent.map_err(|refused| refused.error));
    // Ends at the latest when what lies there is received.
    for _ in 0..20 {
        let received = channel.try_receive().map(drop);
        if it.operated(received).is_none() {
            break;
        }
    }
}

fn use_stream<T: Element>(it: &mut Use<'_>) {
    let Some(mut stream) = it.opened(Stream::<T>::open) else {
        return;
    };
    assert!(stream.len() <= stream.capacity());
    let deadline = it.deadline();
    let emitted = stream.emit_within(element(1), deadline);
    it.operated(emitted.map_err(|refused| refused.error));
    let _ = stream.try_emit(element(2));
    let deadline = it.deadline();
    let next = stream.next_within(deadline).map(drop);
    it.operated(next);
    let _ = (stream.try_next().is_some(), stream.sequence());
    stream.close();
    let deadline = it.deadline();
    let next = stream.next_within(deadline).map(drop);
    it.operated(next);
    let _ = (stream.is_closed(), stream.is_empty());
}

fn use_void_stream(it: &mut Use<'_>) {
    let Some(stream) = it.opened(VoidStream::open) else {
        return;
    };
    let seen = stream.count();
    let _ = stream.emit();
    for seen in [seen, stream.count()] {
        let deadline = it.deadline();
        let waited = stream.wait_for_change(seen, deadline).map(drop);
        it.operated(waited);
    }
    stream.close();
    assert!(stream.is_closed() && !stream.emit());
}

fn use_future<T: Element>(it: &mut Use<'_>) {
    let Some(future) = it.opened(Future::<T>::open) else {
        return;
    };
    let _ = (future.state(), future.is_ready(), future.dialect());
    let got = future.try_get().map(drop);
    it.operated(got);
    let deadline = it.deadline();
    let got = future.get_within(deadline).map(drop);
    it.operated(got);
    let set = future.set_error("text").map(drop);
    it.operated(set);
    let got = future.try_get().map(drop);
    it.operated(got);
    future.reset();
    let set = future.set(element(1)).map(drop);
    it.operated(set);
    let deadline = it.deadline();
    let got = future.get_within(deadline).map(drop);
    it.operated(got);
}

fn use_lazy<T: Number>(it: &mut Use<'_>) {
    let Some(lazy) = it.opened(Lazy::<T>::open) else {
        return;
    };
    let _ = (lazy.dialect(), lazy.compute_count());
    let got = lazy.peek().map(drop);
    it.operated(got);
    let deadline = it.deadline();
    let got = lazy.force_within(deadline).map(drop);
    it.operated(got);
    let deadline = it.deadline();
    let got = lazy.force_with_within(deadline, |_| Ok::<T, &str>(element(1)));
    it.operated(got.map(drop));
    lazy.reset();
    let deadline = it.deadline();
    let got = lazy.force_with_within(deadline, |_| Err::<T, _>("text"));
    it.operated(got.map(drop));
    let got = lazy.peek().map(drop);
    it.operated(got);
}

fn use_lazy_bool(it: &mut Use<'_>) {
    if let Some(lazy) = it.opened(LazyBool::open) {
        let value = (lazy.peek(), lazy.force());
        it.counts.add("done");
        std::hint::black_box(value);
    }
}

const STRUCT: &str = "[('a', 'u1'), ('b', '<f4'), ('c', 'S3')]";

fn use_dynamic(it: &mut Use<'_>) {
    let (memory, name) = (it.memory, it.name);
    for dtype in ["f4", "S12", STRUCT, "bool"] {
        let Ok(array) = DynArray::open(memory, name, dtype) else {
            continue;
        };
        let _ = (array.get(0), array.get(array.len()), array.read(..));
        it.counts.dynamic(array.set(0, 1));
        it.counts.dynamic(array.numbers());
        it.counts.dynamic(array.column("b"));
        it.counts
            .dynamic(array.set_field(array.len() - 1, "c", "x"));
        assert!(array.iter().count() <= 1 << 16);
    }
    for dtype in ["u4", "S12"] {
        let value = if dtype == "u4" {
            1.into()
        } else {
            polyshm_zeroipc::Value::from("x")
        };
        if let Ok(queue) = DynQueue::open(memory, name, dtype) {
            it.counts.dynamic(queue.try_push(value.clone()));
            let _ = queue.try_pop();
            let deadline = it.deadline();
            it.counts
                .dynamic(queue.push_within(value.clone(), deadline));
            it.counts.dynamic(queue.pop_within(deadline));
            queue.repair();
        }
        if let Ok(stack) = DynStack::open(memory, name, dtype) {
            it.counts.dynamic(stack.try_push(value.clone()));
            it.counts.dynamic(stack.try_pop());
            it.counts.dynamic(stack.peek());
            let deadline = it.deadline();
            it.counts.dynamic(stack.pop_within(deadline));
            stack.repair();
        }
        if let Ok(mut ring) = DynRing::open(memory, name, dtype) {
            it.counts.dynamic(ring.try_write(value.clone()));
            let _ = ring.try_read();
            let deadline = it.deadline();
            it.counts.dynamic(ring.read_within(deadline));
        }
    }
    let maps = [
        DynMap::open(memory, name, "u4", "u8"),
        DynMap::open_python(memory, name, "u4", "u8"),
    ];
    for map in maps.into_iter().flatten() {
        it.counts.dynamic(map.insert(1, 1));
        it.counts.dynamic(map.get(1));
        it.counts.dynamic(map.remove(2));
        assert!(map.to_vec().len() <= map.capacity());
        map.repair();
    }
}

/// As which something can be opened.
const USUAL: &[(&str, User)] = &[
    ("array", use_array::<u32>),
    ("queue", use_queue::<u32>),
    ("queue", use_repaired_queue::<u32>),
    ("stack", use_stack::<u32>),
    ("stack", use_repaired_stack::<u32>),
    ("ring", use_ring::<u32>),
    ("pool", use_pool::<u32>),
    ("pool", use_repaired_pool::<u32>),
    ("map", use_map::<u32, u64>),
    ("map", use_map::<f64, u32>),
    ("map", use_python_map::<u32, u64>),
    ("map", use_repaired_map),
    ("set", use_set::<u32>),
    ("set", use_python_set::<u32>),
    ("semaphore", use_semaphore),
    ("mutex", use_mutex),
    ("barrier", use_barrier),
    ("latch", use_latch),
    ("once", use_once),
    ("event", use_event),
    ("rwlock", use_rwlock),
    ("monitor", use_monitor),
    ("signal", use_signal::<u32>),
    ("signal", use_signal::<[u8; 12]>),
    ("channel", use_channel::<u32>),
    ("stream", use_stream::<u32>),
    ("void stream", use_void_stream),
    ("future", use_future::<u32>),
    ("lazy", use_lazy::<u32>),
    ("lazy", use_lazy::<f64>),
    ("lazy bool", use_lazy_bool),
    ("dynamic", use_dynamic),
];

/// And with elements that none of the images has.
const ODD: &[User] = &[
    use_array::<u8>,
    use_array::<[u32; 3]>,
    use_queue::<u8>,
    use_queue::<[u32; 3]>,
    use_stack::<u8>,
    use_stack::<[u32; 3]>,
    use_ring::<u8>,
    use_ring::<[u32; 3]>,
    use_pool::<u8>,
    use_pool::<u64>,
    use_map::<[u8; 16], u64>,
    use_python_map::<[u8; 16], u64>,
    use_set::<[u8; 8]>,
    use_channel::<[u8; 12]>,
    use_stream::<[u32; 3]>,
    use_future::<u64>,
];

/// What a structure may also be opened as, because it is a run-time form of it.
fn is_own(kind: &str, user: &str) -> bool {
    kind == user
        || user == "dynamic" && matches!(kind, "array" | "queue" | "stack" | "ring" | "map")
}

/// A sound image, what stands in it, and where.
struct Sound {
    kind: &'static str,
    image: Vec<u8>,
    /// The bytes of its entries.
    bytes: std::ops::Range<usize>,
    entries: u32,
}

const NAME: &str = "x";
/// An array of bytes that lies over everything after it.
const WINDOW: &str = "window";

/// Sound images of every structure in several states. The first entry of each
/// is a window on all the others, through which they can be changed while they
/// are open.
fn sound_images() -> Vec<Sound> {
    let mut all = Vec::new();
    let mut keep = |kind: &'static str, make: &dyn Fn(&Memory)| {
        // One slot more than entries: the spare one for marks; and, full, none.
        for spare in [1, 0] {
            let options = OpenOptions::default().native_marks(spare == 1);
            let image = |slots: u32, size: usize| {
                let mut image = TableHeader::new(slots, size as u64).to_bytes().to_vec();
                image.resize(size, 0);
                let memory = Memory::from_image(&image, options).expect("an empty table");
                Array::<u8>::create(&memory, WINDOW, 1).expect("there is room");
                make(&memory);
                memory
            };
            let entries = image(12, 4096).entries().len() as u32;
            let slots = entries + spare;
            let last = image(slots, 4096).entries().pop().expect("it has entries");
            let size = (last.offset + last.size).next_multiple_of(8) as usize + 8;
            let mut bytes = image(slots, size).image();
            let start = entry_at(slots) as usize + 16;
            // The window: its header right before the structure.
            let len = (size - start) as u64;
            let window = entry_at(0) as usize;
            set64(&mut bytes, window + 32, start as u64 - 8);
            set64(&mut bytes, window + 40, 8 + len);
            set64(&mut bytes, start - 8, len);
            all.push(Sound {
                kind,
                image: bytes,
                bytes: start..size - 8,
                entries,
            });
        }
    };
    containers(&mut keep);
    synchronisation(&mut keep);
    messages(&mut keep);
    all
}

type Keep<'a> = dyn FnMut(&'static str, &dyn Fn(&Memory)) + 'a;

fn containers(keep: &mut Keep<'_>) {
    keep("array", &|memory| {
        Array::<u32>::create(memory, NAME, 5).unwrap().fill(7);
    });
    keep("array", &|memory| {
        Array::<u32>::create_c(memory, NAME, 5).unwrap().fill(7);
    });
    for (pushes, pops) in [(0, 0), (3, 0), (4, 2), (9, 9)] {
        keep("queue", &|memory| {
            let queue = Queue::<u32>::create(memory, NAME, 4).unwrap();
            for number in 0..pushes {
                let _ = queue.try_push(number);
                if number < pops {
                    queue.try_pop().unwrap();
                }
            }
        });
        keep("stack", &|memory| {
            let stack = Stack::<u32>::create(memory, NAME, 4).unwrap();
            for number in 0..pushes {
                let _ = stack.try_push(number);
            }
            for _ in 0..pops {
                let _ = stack.try_pop();
            }
        });
        keep("ring", &|memory| {
            let mut ring = Ring::<u32>::create(memory, NAME, 4).unwrap();
            for number in 0..pushes {
                let _ = ring.try_write(number);
                if number < pops {
                    ring.try_read().unwrap();
                }
            }
        });
        keep("pool", &|memory| {
            let pool = Pool::<u32>::create(memory, NAME, 4).unwrap();
            let taken: Vec<_> = (0..pushes)
                .filter_map(|it| pool.allocate_with(it).ok())
                .collect();
            for index in taken.into_iter().take(pops as usize) {
                pool.deallocate(index).unwrap();
            }
        });
        for python in [false, true] {
            keep("map", &|memory| {
                let map = if python {
                    Map::<u32, u64>::create_python(memory, NAME, 4)
                } else {
                    Map::create(memory, NAME, 4)
                };
                let map = map.unwrap();
                for key in 0..pushes {
                    let _ = map.insert(key, key.into());
                }
                for key in 0..pops {
                    let _ = map.remove(key);
                }
            });
            keep("set", &|memory| {
                let set = if python {
                    Set::<u32>::create_python(memory, NAME, 4)
                } else {
                    Set::create(memory, NAME, 4)
                };
                let set = set.unwrap();
                for element in 0..pushes {
                    let _ = set.insert(element);
                }
            });
        }
    }
    keep("map", &|memory| {
        let map = Map::<f64, u32>::create(memory, NAME, 4).unwrap();
        for (key, value) in [(0.0, 1), (-0.0, 2), (f64::NAN, 3)] {
            map.insert(key, value).unwrap();
        }
    });
}

fn synchronisation(keep: &mut Keep<'_>) {
    keep("semaphore", &|memory| {
        drop(Semaphore::create(memory, NAME, 2, Some(5)));
    });
    keep("semaphore", &|memory| {
        drop(Semaphore::create(memory, NAME, 0, None));
    });
    for held in [false, true] {
        keep("mutex", &|memory| {
            let mutex = Mutex::create(memory, NAME).unwrap();
            if held {
                std::mem::forget(mutex.lock());
            }
        });
        keep("rwlock", &|memory| {
            let lock = RwLock::create(memory, NAME).unwrap();
            if held {
                std::mem::forget(lock.read());
            }
        });
        keep("rwlock", &|memory| {
            let lock = RwLock::create(memory, NAME).unwrap();
            if held {
                std::mem::forget(lock.write());
            }
        });
        keep("monitor", &|memory| {
            let monitor = Monitor::create(memory, NAME).unwrap();
            if held {
                std::mem::forget(monitor.lock());
            }
        });
        keep("once", &|memory| {
            let once = Once::create(memory, NAME).unwrap();
            if held {
                once.call(|_| ()).unwrap();
            }
        });
        keep("latch", &|memory| {
            let latch = Latch::create(memory, NAME, 3).unwrap();
            latch.count_down(u32::from(held));
        });
        for mode in [EventMode::Auto, EventMode::Manual] {
            keep("event", &|memory| {
                let event = Event::create(memory, NAME, mode).unwrap();
                if held {
                    event.signal();
                }
            });
        }
    }
    keep("barrier", &|memory| {
        drop(Barrier::create(memory, NAME, 3));
    });
    keep("barrier", &|memory| {
        drop(Barrier::create(memory, NAME, 1));
    });
    keep("signal", &|memory| {
        Signal::create(memory, NAME, 1_u32).unwrap().set(2).unwrap();
    });
    keep("signal", &|memory| {
        drop(Signal::create_python(memory, NAME, [1_u8; 12]));
    });
}

fn messages(keep: &mut Keep<'_>) {
    for sent in [0, 2] {
        for form in 0..4 {
            keep("channel", &|memory| {
                let channel = match form {
                    0 => Channel::<u32>::create(memory, NAME, 4),
                    1 => Channel::create(memory, NAME, 0),
                    2 => Channel::create_python(memory, NAME, 3),
                    _ => Channel::create_python(memory, NAME, 0),
                };
                let channel = channel.unwrap();
                for message in 0..sent {
                    let _ = channel.send_within(message, Duration::ZERO);
                }
                if sent > 0 {
                    channel.close();
                }
            });
        }
        keep("stream", &|memory| {
            let mut stream = Stream::<u32>::create(memory, NAME, 3).unwrap();
            for value in 0..sent {
                stream.emit(value).unwrap();
            }
        });
        keep("stream", &|memory| {
            let mut stream = Stream::<u32>::create_python(memory, NAME, 3).unwrap();
            for value in 0..sent {
                stream.emit(value).unwrap();
            }
        });
        keep("void stream", &|memory| {
            let stream = VoidStream::create(memory, NAME).unwrap();
            for _ in 0..sent {
                stream.emit();
            }
        });
        keep("future", &|memory| {
            let future = Future::<u32>::create(memory, NAME).unwrap();
            if sent > 0 {
                future.set(5).unwrap();
            }
        });
        keep("future", &|memory| {
            let future = Future::<u32>::create_python(memory, NAME).unwrap();
            if sent > 0 {
                future.set_error("no").unwrap();
            }
        });
        keep("lazy", &|memory| {
            let lazy = Lazy::<u32>::create_python(memory, NAME, (sent > 0).then_some(3));
            drop(lazy);
        });
    }
    keep("lazy", &|memory| {
        drop(Lazy::constant(memory, NAME, 1_u32));
    });
    keep("lazy", &|memory| {
        let a = Lazy::constant(memory, "a", 2_u32).unwrap();
        drop(Lazy::sum(memory, NAME, &a, &a));
    });
    keep("lazy", &|memory| {
        drop(Lazy::<f64>::external(memory, NAME));
    });
    keep("lazy bool", &|memory| {
        let a = LazyBool::constant(memory, "a", true).unwrap();
        drop(LazyBool::not(memory, NAME, &a));
    });
}

fn word32(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"))
}

fn word64(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

fn set32(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn set64(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// 0, 1, the largest, one more, one less, the states, and the signs.
fn edges32(value: u32) -> [u32; 13] {
    [
        0,
        1,
        2,
        3,
        4,
        8,
        u32::MAX,
        u32::MAX - 1,
        1 << 31,
        (1 << 31) - 1,
        1 << 16,
        value.wrapping_add(1),
        value.wrapping_sub(1),
    ]
}

fn edges64(value: u64) -> [u64; 7] {
    [
        1 << 40,
        u64::MAX,
        1 << 63,
        u64::MAX / 4 + 2,
        value.wrapping_add(8),
        value.wrapping_sub(8),
        value ^ 1 << 32,
    ]
}

/// The words of the table and of the structure, but not the table's empty slots.
fn places(sound: &Sound) -> Vec<usize> {
    let table = 4..entry_at(sound.entries) as usize;
    // Of names the first word.
    let entry = |at: usize| (at - 32) % 48;
    let table = table
        .step_by(4)
        .filter(|at| *at < 32 || entry(*at) < 4 || entry(*at) >= 28);
    table.chain(sound.bytes.clone().step_by(4)).collect()
}

/// Every change of one word, by number; `None` when there are no more.
fn single(sound: &Sound, places: &[usize], number: usize) -> Option<Vec<u8>> {
    const PER_PLACE: usize = 20;
    let at = *places.get(number / PER_PLACE)?;
    let mut image = sound.image.clone();
    let which = number % PER_PLACE;
    if let Some(value) = edges32(word32(&image, at)).get(which) {
        set32(&mut image, at, *value);
    } else {
        let at = at & !7;
        let value = edges64(word64(&image, at))[which - 13];
        set64(&mut image, at, value);
    }
    Some(image)
}

/// Several changes at once, of plausible sizes.
fn several(sound: &Sound, places: &[usize], random: &mut Random) -> Vec<u8> {
    let mut image = sound.image.clone();
    for _ in 0..=random.below(4) {
        let at = places[random.below(places.len())];
        match random.below(12) {
            0 => {
                let at = random.below(image.len());
                image[at] ^= 1 << random.below(8);
            }
            1 => set64(&mut image, at & !7, random.next() >> random.below(64)),
            2 => {
                let from = places[random.below(places.len())];
                let value = word32(&image, from);
                set32(&mut image, at, value);
            }
            3 => {
                // Two entries change places, or one takes the other's.
                let [a, b] = [0; 2].map(|_| entry_at(random.below(sound.entries as usize) as u32));
                let (a, b) = (a as usize, b as usize);
                let extents = [word64(&image, a + 32), word64(&image, b + 32)];
                set64(&mut image, a + 32, extents[1]);
                if random.one_in(2) {
                    set64(&mut image, b + 32, extents[0]);
                }
            }
            4 => {
                // A name without an end, or that of another.
                let entry = entry_at(random.below(sound.entries as usize) as u32) as usize;
                let byte = random.next() as u8;
                image[entry + random.below(8)..entry + 32].fill(byte);
            }
            5 => {
                let value = random.next() >> random.below(64);
                set64(&mut image, header_offset::NEXT_OFFSET, value);
            }
            6 => {
                let value = random.next() as u32 % 6;
                set32(&mut image, at, value);
            }
            7 => set32(&mut image, at, random.next() as u32),
            _ => {
                let value = edges32(word32(&image, at))[random.below(13)];
                set32(&mut image, at, value);
            }
        }
    }
    if random.one_in(32) {
        image.truncate(random.below(image.len()));
    }
    image
}

fn options(random: &mut Random) -> OpenOptions {
    OpenOptions::default()
        .native_marks(random.one_in(2))
        .wait_strategy(WaitStrategy::Block)
        .patience(Duration::ZERO)
}

/// Opens an image as what it was, and sometimes everything as everything.
fn use_image(kind: &str, image: &[u8], random: &mut Random, counts: &mut Counts) {
    let everything = random.one_in(16);
    let open = options(random);
    let patience = if random.one_in(1024) {
        Duration::from_millis(1)
    } else {
        Duration::ZERO
    };
    let slow = random.one_in(4096);
    let mut names = vec![NAME.to_owned()];
    let odd = ODD.iter().filter(|_| everything);
    let usual = USUAL
        .iter()
        .filter(|(user, _)| everything || is_own(kind, user));
    for user in usual.map(|(_, user)| user).chain(odd) {
        // Each starts from the same bytes.
        let Ok(memory) = Memory::from_image(image, open) else {
            counts.add("segment refused");
            let refused = polyshm_wire::zeroipc::describe(image);
            assert!(refused.is_err() || word32(image, 0) == 0, "they disagree");
            return;
        };
        counts.add("segment opened");
        if everything && names.len() == 1 {
            names.extend(memory.entries().into_iter().map(|entry| entry.name));
        }
        for name in &names {
            let mut it = Use {
                memory: &memory,
                name,
                counts,
                strike: &mut || (),
                patience,
                slow,
            };
            user(&mut it);
        }
    }
    if everything {
        use_table(image, open, counts);
    }
}

/// The table's own operations.
fn use_table(image: &[u8], open: OpenOptions, counts: &mut Counts) {
    let Ok(memory) = Memory::from_image(image, open) else {
        return;
    };
    counts.add(match memory.describe() {
        Ok(_) => "described",
        Err(_) => "description refused",
    });
    assert!(memory.free() <= memory.size());
    let before = memory.entries();
    assert!(before.len() <= memory.max_entries() as usize);
    for name in ["new", NAME, "x_sem"] {
        counts.opened(Semaphore::create(&memory, name, 1, None));
        counts.opened(Array::<u64>::create(&memory, name, 3));
    }
    counts.opened(RwLock::open_or_create(&memory, NAME));
    counts.opened(Queue::<u32>::open_or_create(&memory, "queue", 2));
    // What was inserted lies inside and over nothing else.
    let image = memory.image();
    let header = TableHeader::read(&image).expect("it was opened");
    for (index, entry) in memory.entries().iter().enumerate().skip(before.len()) {
        let own = Entry::read(&image, index as u32).expect("in the table");
        let extent = own.extent(index as u32, &header).expect("a sound entry");
        for other in &before {
            let end = other.offset.saturating_add(other.size);
            assert!(
                end <= extent.offset || other.offset >= extent.end(),
                "{} lies over {}",
                entry.name,
                other.name
            );
        }
    }
    for entry in memory.entries() {
        let _ = memory.remove(&entry.name);
    }
    let _ = memory.remove("none");
}

/// Uses a sound structure while somebody stores in it, through the window.
fn use_live(sound: &Sound, random: &mut Random, counts: &mut Counts) {
    let memory = Memory::from_image(&sound.image, options(random)).expect("it is sound");
    let window = Array::<u8>::open(&memory, WINDOW).expect("it is sound");
    let len = sound.bytes.len();
    // Whoever waits for a mutex whose count was poked waits for seconds: those
    // of signals and monitors have no other deadline.
    let spared: Vec<_> = memory
        .entries()
        .into_iter()
        .filter(|entry| entry.name.ends_with("_mtx"))
        .map(|entry| {
            let at = entry.offset as usize - sound.bytes.start;
            at..at + entry.size as usize
        })
        .collect();
    let often = 1 + random.below(6);
    let mut pokes = Random(random.next() | 1);
    let mut strike = || {
        if !pokes.one_in(often) {
            return;
        }
        let at = pokes.below(len / 4) * 4;
        if spared.iter().any(|range| range.contains(&at)) {
            return;
        }
        let mut old = [0; 4];
        window.read_into(at, &mut old).expect("inside");
        let old = u32::from_le_bytes(old);
        let value = match pokes.below(4) {
            0 => pokes.next() as u32 >> pokes.below(32),
            1 => old ^ 1 << pokes.below(32),
            _ => edges32(old)[pokes.below(13)],
        };
        window.write(at, &value.to_le_bytes()).expect("inside");
    };
    for (kind, user) in USUAL {
        if is_own(sound.kind, kind) {
            let mut it = Use {
                memory: &memory,
                name: NAME,
                counts,
                strike: &mut strike,
                patience: Duration::ZERO,
                slow: false,
            };
            user(&mut it);
        }
    }
}

/// Runs one case; a panic says which.
struct Runner {
    progress: Arc<AtomicU64>,
    now: Arc<StdMutex<String>>,
    counts: Counts,
    slowest: (Duration, String),
}

impl Runner {
    fn run(&mut self, what: impl Fn() -> String, case: impl FnOnce(&mut Counts)) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.counts.add("images");
        if let Ok(mut now) = self.now.lock() {
            *now = what();
        }
        let start = Instant::now();
        let counts = &mut self.counts;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(counts))) {
            eprintln!("a panic at {}", what());
            std::panic::resume_unwind(panic);
        }
        let took = start.elapsed();
        if took > self.slowest.0 {
            self.slowest = (took, what());
        }
    }
}

#[test]
fn damaged_segments_end_in_a_result_or_an_error() {
    let mut runner = Runner {
        progress: Arc::default(),
        now: Arc::default(),
        counts: Counts::default(),
        slowest: (Duration::ZERO, String::new()),
    };
    watch(&runner.progress, &runner.now);
    let sound = sound_images();
    let wanted = images_wanted();
    let mut random = Random(8);
    for (number, sound) in sound.iter().enumerate() {
        let what = || format!("{} {number}, unchanged", sound.kind);
        runner.run(what, |counts| {
            use_image(sound.kind, &sound.image, &mut random, counts);
        });
    }
    // Every word of the table and of each structure in each state at its edges,
    // or in few images as many of them, evenly.
    let places: Vec<_> = sound.iter().map(places).collect();
    let all: usize = places.iter().map(|places| places.len() * 20).sum();
    let step = (all as u64 * 2).div_ceil(wanted.max(1)).max(1) as usize;
    let mut skip = 0;
    for (number, (sound, places)) in sound.iter().zip(&places).enumerate() {
        let mut change = skip;
        while let Some(image) = single(sound, places, change) {
            let what = || format!("{} {number}, single change {change}", sound.kind);
            runner.run(what, |counts| {
                use_image(sound.kind, &image, &mut random, counts);
            });
            change += step;
        }
        skip = change - places.len() * 20;
    }
    let systematic = runner.progress.load(Ordering::Relaxed);
    while runner.progress.load(Ordering::Relaxed) < wanted.max(systematic) {
        let number = random.below(sound.len());
        let seed = random.next() | 1;
        let what = || {
            format!(
                "{} {number}, several changes, seed {seed}",
                sound[number].kind
            )
        };
        let mut random = Random(seed);
        let image = several(&sound[number], &places[number], &mut random);
        runner.run(what, |counts| {
            use_image(sound[number].kind, &image, &mut random, counts);
        });
    }
    let images = runner.progress.load(Ordering::Relaxed);
    println!(
        "{images} images ({systematic} systematic): {:?}",
        runner.counts.0
    );
    let counts = std::mem::take(&mut runner.counts);
    for _ in 0..wanted / 2 {
        let number = random.below(sound.len());
        let seed = random.next() | 1;
        let what = || format!("{} {number}, live, seed {seed}", sound[number].kind);
        runner.run(what, |counts| {
            use_live(&sound[number], &mut Random(seed), counts);
        });
    }
    println!("live: {:?}", runner.counts.0);
    println!("slowest: {:?} at {}", runner.slowest.0, runner.slowest.1);
    // The mutations reach all the code: each outcome occurs.
    for outcome in [
        "segment refused",
        "opened",
        "not found",
        "refused as damaged or something else",
        "done",
        "full",
        "timed out",
        "stuck",
        "closed",
        "failed",
        "damaged",
        "repaired",
    ] {
        assert!(
            counts.0.contains_key(outcome),
            "no image led to {outcome:?}"
        );
    }
    polyshm_testkit::report(
        "zeroipc-hostile.json",
        &serde_json::json!({
            "images": images,
            "systematic": systematic,
            "outcomes": counts.0,
            "live": runner.counts.0,
            "slowest": { "milliseconds": runner.slowest.0.as_millis() as u64, "at": runner.slowest.1 },
        }),
    );
}

/// Opens a structure of which eight bytes were changed: it is refused.
fn refused<T: Debug>(
    make: impl Fn(&Memory),
    poke: (usize, u64),
    open: impl Fn(&Memory) -> Result<T, Error>,
) {
    let mut image = TableHeader::new(4, 4096).to_bytes().to_vec();
    image.resize(4096, 0);
    let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
    make(&memory);
    let mut image = memory.image();
    let at = memory.entries()[0].offset as usize;
    set64(&mut image, at + poke.0, poke.1);
    let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
    let opened = open(&memory);
    assert!(matches!(opened, Err(Error::Structure { .. })), "{opened:?}");
}

/// What the reference implementations crash at.
#[test]
fn known_attacks_are_refused() {
    let array = |memory: &Memory| drop(Array::<u32>::create(memory, NAME, 4));
    for capacity in [0, 1 << 40, u64::MAX / 4 + 2, u64::MAX] {
        refused(array, (0, capacity), |memory| {
            Array::<u32>::open(memory, NAME)
        });
    }
    let queue = |memory: &Memory| drop(Queue::<u32>::create(memory, NAME, 4));
    for (capacity, elem) in [(0, 4), (3, 4), (8, 4), (1 << 31, 4), (4, 64), (4, 0)] {
        let value = capacity | elem << 32;
        refused(queue, (8, value), |memory| Queue::<u32>::open(memory, NAME));
    }
    let stack = |memory: &Memory| drop(Stack::<u32>::create(memory, NAME, 4));
    for top in [4, 1 << 30, 0xFFFF_FFFE, 1 << 31] {
        let value = top | 4 << 32;
        refused(stack, (0, value), |memory| Stack::<u32>::open(memory, NAME));
    }
    let ring = |memory: &Memory| drop(Ring::<u32>::create(memory, NAME, 4));
    for (at, value) in [(0, 17), (0, 20), (0, 3), (16, 4 << 32), (16, 15 | 4 << 32)] {
        refused(ring, (at, value), |memory| Ring::<u32>::open(memory, NAME));
    }
    let map = |memory: &Memory| drop(Map::<u32, u64>::create(memory, NAME, 4));
    for header in [0, 5 << 32, u64::MAX] {
        refused(map, (0, header), |memory| {
            Map::<u32, u64>::open(memory, NAME)
        });
    }
    let barrier = |memory: &Memory| drop(Barrier::create(memory, NAME, 4));
    for participants in [0, 1 << 31] {
        refused(barrier, (8, participants), |memory| {
            Barrier::open(memory, NAME)
        });
    }
}

/// It would be full and empty for ever.
#[test]
fn a_ring_whose_reader_is_ahead_is_refused() {
    let ring = |memory: &Memory| drop(Ring::<u32>::create(memory, NAME, 4));
    refused(ring, (8, 4), |memory| Ring::<u32>::open(memory, NAME));
}

/// Runs in a thread of its own, and ends the process when it hangs.
fn in_time(what: &'static str, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(run);
    let start = Instant::now();
    while !thread.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(5), "it hangs: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn monitor_with(count: i32, permits: i32) -> Memory {
    let mut image = TableHeader::new(8, 4096).to_bytes().to_vec();
    image.resize(4096, 0);
    let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
    Monitor::create(&memory, NAME).unwrap();
    let mut image = memory.image();
    for entry in memory.entries() {
        let at = entry.offset as usize;
        match &*entry.name {
            "x_count" => set32(&mut image, at, count.cast_unsigned()),
            "x_cond" => set32(&mut image, at, permits.cast_unsigned()),
            _ => {}
        }
    }
    Memory::from_image(&image, OpenOptions::default()).unwrap()
}

#[test]
fn a_monitor_with_any_counts_is_notified() {
    for count in [i32::MIN, -1, 0, 1, i32::MAX] {
        for permits in [i32::MIN, -1, 0, 1, i32::MAX] {
            let memory = monitor_with(count, permits);
            let monitor = Monitor::open(&memory, NAME).unwrap();
            monitor.notify_one();
            monitor.notify_all();
        }
    }
}

#[test]
fn a_monitor_with_many_permits_is_waited_for() {
    in_time("a wait drains two thousand million permits", || {
        let memory = monitor_with(0, i32::MAX);
        let monitor = Monitor::open(&memory, NAME).unwrap();
        let guard = monitor.lock().unwrap();
        guard.wait_within(Duration::ZERO).map(drop).unwrap();
    });
}

#[test]
fn a_queue_with_any_counters_is_repaired() {
    in_time("a repair walks from one counter to the other", || {
        for (head, tail) in [(5, 0), (0, u32::MAX), (1 << 31, 0), (u32::MAX, 7)] {
            let mut image = TableHeader::new(2, 4096).to_bytes().to_vec();
            image.resize(4096, 0);
            let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
            Queue::<u32>::create(&memory, NAME, 4).unwrap();
            let at = memory.entries()[0].offset as usize;
            let mut image = memory.image();
            set32(&mut image, at, head);
            set32(&mut image, at + 4, tail);
            let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
            let queue = Queue::<u32>::open(&memory, NAME).unwrap();
            let kept = queue.repair().kept as usize;
            assert_eq!(queue.len(), kept);
            assert_eq!(queue.try_push_slice(&[1; 9]), 4 - kept);
        }
    });
}

/// The mutex's mark lies where the writer's flag is: each time a reader locks
/// it, a writer seems to be there, and each time it looks again, none is.
#[test]
fn a_read_lock_over_its_own_mutex_ends_at_its_deadline() {
    in_time("a reader waits for itself", || {
        let mut image = TableHeader::new(5, 4096).to_bytes().to_vec();
        image.resize(4096, 0);
        let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
        RwLock::create(&memory, NAME).unwrap();
        let mutex = memory.entries()[1].offset;
        let mut image = memory.image();
        set64(&mut image, entry_at(0) as usize + 32, mutex + 8);
        let memory = Memory::from_image(&image, OpenOptions::default()).unwrap();
        if let Ok(lock) = RwLock::open(&memory, NAME) {
            let read = lock.read_within(Duration::from_millis(1)).map(drop);
            assert!(read.is_err_and(|error| error.is_timeout()));
        }
    });
}
