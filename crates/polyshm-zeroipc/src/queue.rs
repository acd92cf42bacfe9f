//! Queue: bounded, many producers, many consumers (section 4.2).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Full, Label, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    wait::{Look, STUCK_ROUNDS, Sleepers, Wait},
};
use polyshm_platform::{Deadline, Row, Rows, Word32, WordRef32, Words32, sync::Ordering};
use polyshm_wire::zeroipc::{QueueLayout, queue};
use std::{
    cell::Cell,
    marker::PhantomData,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// The queue over bytes: what typed, dynamic and channel queues share.
#[derive(Clone, Debug)]
pub(crate) struct RawQueue {
    /// Pops claimed.
    head: Word32,
    /// Pushes claimed.
    tail: Word32,
    /// Per slot: `p` when push `p` may claim it, `p + 1` when its element may
    /// be popped.
    seq: Words32,
    data: Rows,
    mask: u32,
    elem_size: usize,
    block: Block,
}

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// Elements that are there now.
    pub kept: u32,
    /// Elements that a process had half-stored; they are lost.
    pub dropped: u32,
}

impl RawQueue {
    pub(crate) const WHAT: &'static str = "queue";

    pub(crate) fn layout(
        memory: &Memory,
        label: &Label,
        capacity: u64,
        elem_size: u64,
    ) -> Result<QueueLayout, Error> {
        QueueLayout::new(capacity, elem_size).map_err(memory.layout_error(label))
    }

    pub(crate) fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        elem_size: u64,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout = Self::layout(memory, &label, capacity, elem_size)?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| Self::init(&blocks[0], layout))
    }

    /// Stores a fresh queue; the bytes are zero.
    pub(crate) fn init(block: &Block, layout: QueueLayout) -> Result<Self, Error> {
        block.fill(0, &layout.header().to_bytes())?;
        let raw = Self::over(block, layout)?;
        for slot in 0..layout.capacity {
            // Relaxed: publishing the entry is what others wait for.
            raw.seq.store(slot as usize, slot, Ordering::Relaxed);
        }
        Ok(raw)
    }

    pub(crate) fn open(memory: &Memory, name: &str, elem_size: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        Self::open_block(&memory.open_entry(name, &label)?, Some(elem_size))
    }

    pub(crate) fn open_block(block: &Block, elem_size: Option<u64>) -> Result<Self, Error> {
        let layout = QueueLayout::read(&block.header()?, block.size as u64, elem_size)
            .map_err(|source| block.mismatch(source))?;
        if !layout.is_usable() {
            return Err(Error::Unusable {
                on: block.label.clone(),
                reason: "with one slot, full and empty look alike; create it with two or more",
            });
        }
        Self::over(block, layout)
    }

    fn over(block: &Block, layout: QueueLayout) -> Result<Self, Error> {
        Ok(Self {
            head: block.word32(queue::HEAD)?,
            tail: block.word32(queue::TAIL)?,
            seq: block.words32(layout.seq_offset(), 4, layout.capacity)?,
            data: block.rows(layout.data_offset(), layout.elem_size, layout.capacity)?,
            mask: layout.capacity - 1,
            elem_size: layout.elem_size as usize,
            block: block.clone(),
        })
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.mask + 1
    }

    pub(crate) fn len(&self) -> u32 {
        // Acquire, tail first: what is counted as popped was pushed before.
        let tail = self.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Acquire);
        let len = tail.wrapping_sub(head);
        // The head may have passed the tail that was read.
        if len > 1 << 31 {
            0
        } else {
            len.min(self.capacity())
        }
    }

    /// How far a slot is ahead of who wants it: 0 is its turn, below 0 it is
    /// not yet; above 0 somebody else has had it.
    #[inline]
    fn lead(seq: u32, at: u32, ready: u32) -> i32 {
        // Wrapping, then signed: positions wrap at 2^32.
        seq.wrapping_sub(at.wrapping_add(ready)).cast_signed()
    }

    /// Claims the next position of a counter whose slot shows it plus `ready`:
    /// gives the position, and the slot's number and row.
    ///
    /// Both are found before the claim: what comes after it is only stores, and
    /// the processor does not wait for addresses then.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would hide the element's size")]
    fn claim_one(
        &self,
        counter: &Word32,
        ready: u32,
        len: usize,
    ) -> Option<(u32, WordRef32<'_>, Row<'_>)> {
        let mut at = counter.load(Ordering::Relaxed);
        loop {
            let index = (at & self.mask) as usize;
            let seq = self.seq.at(index);
            let row = self.data.at(index, len);
            // Acquire: pairs with the release of the slot's last user; its
            // copy of the element is over.
            let lead = Self::lead(seq.load(Ordering::Acquire), at, ready);
            let now = if lead == 0 {
                // Relaxed: the slots' numbers order the elements. The update
                // also is the barrier before the bell is looked at.
                let claimed = counter.compare_exchange(
                    at,
                    at.wrapping_add(1),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                match claimed {
                    Ok(_) => return Some((at, seq, row)),
                    Err(found) => found,
                }
            } else {
                // Who advanced the slot had moved the counter before, and the
                // acquire shows it: a counter that stands is damage.
                let now = counter.load(Ordering::Relaxed);
                if lead < 0 || now == at {
                    return None;
                }
                now
            };
            at = now;
        }
    }

    /// Claims up to `wanted` consecutive positions, as [`RawQueue::claim_one`].
    fn claim(&self, counter: &Word32, ready: u32, wanted: u32) -> Option<(u32, u32)> {
        let seq = |at: u32| {
            // Acquire: as above.
            self.seq.load((at & self.mask) as usize, Ordering::Acquire)
        };
        let mut at = counter.load(Ordering::Relaxed);
        loop {
            let lead = Self::lead(seq(at), at, ready);
            if lead != 0 {
                let now = counter.load(Ordering::Relaxed);
                if lead < 0 || now == at {
                    return None;
                }
                at = now;
                continue;
            }
            let mut count = 1;
            while count < wanted {
                let next = at.wrapping_add(count);
                if Self::lead(seq(next), next, ready) != 0 {
                    break;
                }
                count += 1;
            }
            // Relaxed: as above.
            match counter.compare_exchange(
                at,
                at.wrapping_add(count),
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some((at, count)),
                Err(found) => at = found,
            }
        }
    }

    /// Copies an element in; whether there was room.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would hide the element's size")]
    pub(crate) fn try_push(&self, element: &[u8]) -> bool {
        let Some((at, seq, row)) = self.claim_one(&self.tail, 0, element.len()) else {
            return false;
        };
        row.write(element);
        // Release: pairs with the acquire in a popper's claim.
        seq.store(at.wrapping_add(1), Ordering::Release);
        self.block.bell.ring(&self.tail, 1);
        true
    }

    /// Stores and publishes one claimed element.
    fn put(&self, at: u32, element: &[u8]) {
        let index = (at & self.mask) as usize;
        self.data.at(index, element.len()).write(element);
        // Release: as in `try_push`.
        self.seq.store(index, at.wrapping_add(1), Ordering::Release);
    }

    /// Copies an element out; whether there was one.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would hide the element's size")]
    pub(crate) fn try_pop(&self, into: &mut [u8]) -> bool {
        let Some((at, seq, row)) = self.claim_one(&self.head, 1, into.len()) else {
            return false;
        };
        row.read(into);
        // Release: pairs with the acquire in a pusher's claim, one lap later.
        seq.store(at.wrapping_add(self.capacity()), Ordering::Release);
        self.block.bell.ring(&self.head, 1);
        true
    }

    /// Copies out one claimed element and frees its slot.
    fn take(&self, at: u32, into: &mut [u8]) {
        let index = (at & self.mask) as usize;
        self.data.at(index, into.len()).read(into);
        // Release: as in `try_pop`.
        self.seq
            .store(index, at.wrapping_add(self.capacity()), Ordering::Release);
    }

    /// Pushes as many of the elements as there is room for; gives how many.
    pub(crate) fn try_push_many(&self, elements: &[u8]) -> usize {
        let mut rest = elements.chunks_exact(self.elem_size);
        let mut done = 0;
        while rest.len() > 0 {
            let wanted = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let Some((at, count)) = self.claim(&self.tail, 0, wanted.min(self.capacity())) else {
                break;
            };
            for (at, element) in (0..count).map(|i| at.wrapping_add(i)).zip(&mut rest) {
                self.put(at, element);
            }
            done += count as usize;
            self.block.bell.ring(&self.tail, count);
        }
        done
    }

    /// Pops as many elements as there are, at most those that `into` takes.
    pub(crate) fn try_pop_many(&self, into: &mut [u8]) -> usize {
        let mut rest = into.chunks_exact_mut(self.elem_size);
        let mut done = 0;
        while rest.len() > 0 {
            let wanted = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let Some((at, count)) = self.claim(&self.head, 1, wanted.min(self.capacity())) else {
                break;
            };
            for (at, element) in (0..count).map(|i| at.wrapping_add(i)).zip(&mut rest) {
                self.take(at, element);
            }
            done += count as usize;
            self.block.bell.ring(&self.head, count);
        }
        done
    }

    /// Pushes, waiting for room; `closed` ends the wait.
    pub(crate) fn push_until(
        &self,
        element: &[u8],
        attempt: &'static str,
        deadline: Deadline,
        closed: impl Fn() -> bool,
    ) -> Result<(), OpError> {
        self.push_gated(element, attempt, deadline, closed, || true)
    }

    /// As [`RawQueue::push_until`], only while the gate is open.
    pub(crate) fn push_gated(
        &self,
        element: &[u8],
        attempt: &'static str,
        deadline: Deadline,
        closed: impl Fn() -> bool,
        gate: impl Fn() -> bool,
    ) -> Result<(), OpError> {
        let full =
            |head: u32, tail: u32| (tail.wrapping_sub(head) >= self.capacity()).then_some(head);
        self.wait(
            &self.head,
            attempt,
            deadline,
            &closed,
            || !closed() && gate() && self.try_push(element),
            full,
        )
    }

    /// Pops, waiting for an element; `closed` ends the wait of an empty queue.
    pub(crate) fn pop_until(
        &self,
        into: &mut [u8],
        attempt: &'static str,
        deadline: Deadline,
        closed: impl Fn() -> bool,
    ) -> Result<(), OpError> {
        let empty = |head: u32, tail: u32| (head == tail).then_some(tail);
        self.wait(
            &self.tail,
            attempt,
            deadline,
            &closed,
            || self.try_pop(into),
            empty,
        )
    }

    /// Waits until `go` succeeds, asleep on `word` while that has the value
    /// that `idle(head, tail)` gives.
    fn wait(
        &self,
        word: &Word32,
        attempt: &'static str,
        deadline: Deadline,
        closed: &dyn Fn() -> bool,
        mut go: impl FnMut() -> bool,
        idle: impl Fn(u32, u32) -> Option<u32>,
    ) -> Result<(), OpError> {
        // Since when the slot of a position that is needed is half-changed.
        let since: Cell<Option<(u32, Instant)>> = Cell::new(None);
        let stuck = |bears: Duration| match since.get() {
            Some((at, start)) if start.elapsed() >= bears => Some(at & self.mask),
            _ => None,
        };
        let look = || {
            // The sign first: an element that was sent before it is still taken.
            let end = closed();
            if go() {
                return Ok(Look::Ready(()));
            }
            if end {
                return Err(OpError::Closed {
                    attempt,
                    on: self.block.label.clone(),
                });
            }
            // Relaxed: the sleep compares once more.
            let tail = self.tail.load(Ordering::Relaxed);
            let head = self.head.load(Ordering::Relaxed);
            if let Some(expected) = idle(head, tail) {
                since.set(None);
                return Ok(Look::Sleep(expected));
            }
            // Another process is between claiming and publishing.
            let at = self.half_changed(&idle);
            if since.get().map(|(seen, _)| seen) != at {
                since.set(at.map(|at| (at, Instant::now())));
            }
            Ok(Look::Nap)
        };
        let check = || match stuck(self.block.patience.saturating_mul(STUCK_ROUNDS)) {
            Some(slot) => Err(self.stuck(attempt, slot)),
            None => Ok(None),
        };
        let done = Wait::new(word, Sleepers::Bell(&self.block.bell), look, check)
            .run(self.block.waiter, deadline)?;
        done.ok_or_else(|| match stuck(self.block.patience) {
            Some(slot) => self.stuck(attempt, slot),
            None => OpError::Timeout {
                attempt,
                on: self.block.label.clone(),
            },
        })
    }

    fn stuck(&self, attempt: &'static str, slot: u32) -> OpError {
        OpError::Stuck {
            attempt,
            on: self.block.label.clone(),
            slot,
        }
    }

    /// The position that keeps a push or a pop back although the counters
    /// promise success.
    fn half_changed(&self, idle: &impl Fn(u32, u32) -> Option<u32>) -> Option<u32> {
        let tail = self.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Acquire);
        if idle(head, tail).is_some() {
            return None;
        }
        // A consumer waits for the head's slot, a producer for the tail's.
        let (at, ready) = if idle(tail, tail).is_some() {
            (head, 1)
        } else {
            (tail, 0)
        };
        let seq = self.seq.load((at & self.mask) as usize, Ordering::Acquire);
        (seq != at.wrapping_add(ready)).then_some(at)
    }

    /// Puts the queue in order; nobody else may use it meanwhile.
    pub(crate) fn repair(&self) -> Repair {
        let tail = self.tail.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Acquire);
        let slot = |at: u32| (at & self.mask) as usize;
        // Relaxed throughout: nobody else is there.
        let whole = |at: u32| self.seq.load(slot(at), Ordering::Relaxed) == at.wrapping_add(1);
        // The lap that ends at the tail. Before the head lies what consumers
        // had claimed and not yet freed when they died: nobody has got it.
        let lap = || {
            (0..self.capacity())
                .rev()
                .map(|back| tail.wrapping_sub(back + 1))
        };
        let used = tail.wrapping_sub(head).min(self.capacity());
        let start = lap()
            .find(|&at| whole(at))
            .map_or(tail.wrapping_sub(used), |first| {
                let from_head = tail.wrapping_sub(head).min(self.capacity());
                let from_first = tail.wrapping_sub(first);
                if from_first > from_head {
                    first
                } else {
                    tail.wrapping_sub(from_head)
                }
            });
        let mut element = vec![0; self.elem_size];
        let mut kept = 0;
        let mut at = start;
        while at != tail {
            if whole(at) {
                let to = start.wrapping_add(kept);
                if to != at {
                    self.data.at(slot(at), self.elem_size).read(&mut element);
                    self.put(to, &element);
                }
                kept += 1;
            }
            at = at.wrapping_add(1);
        }
        let end = start.wrapping_add(kept);
        for at in (kept..self.capacity()).map(|i| start.wrapping_add(i)) {
            self.seq.store(slot(at), at, Ordering::Relaxed);
        }
        self.head.store(start, Ordering::Release);
        self.tail.store(end, Ordering::Release);
        self.wake_all();
        Repair {
            kept,
            dropped: used.saturating_sub(kept),
        }
    }

    /// Wakes whoever waits, because something else changed.
    pub(crate) fn wake_all(&self) {
        self.head.wake(u32::MAX);
        self.tail.wake(u32::MAX);
    }
}

/// A bounded queue for any number of producers and consumers, first in, first
/// out.
///
/// Capacity: rounded up to a power of two, at least 2. Elements are copied in
/// and out. `try_push` and `try_pop` never block and make no system call unless
/// a process sleeps in this segment; the others wait as the memory's
/// [`WaitStrategy`](polyshm_platform::WaitStrategy) says. What one push stored
/// before it is seen by who pops the element (release and acquire on the slot's
/// number).
///
/// A process that dies between claiming a slot and publishing it leaves the
/// slot stuck: pushes and pops that need it report [`OpError::Stuck`], and
/// [`Queue::repair`] restores service.
///
/// Source: section 4.2 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Queue};
///
/// let name = format!("polyshm-doc-queue-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let jobs = Queue::<u32>::create(&memory, "jobs", 100)?;
/// assert_eq!(jobs.capacity(), 128);
///
/// jobs.try_push(7).expect("there is room");
/// assert_eq!(jobs.try_push_slice(&[8, 9]), 2);
/// assert_eq!(jobs.try_pop(), Some(7));
/// assert_eq!(jobs.len(), 2);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Queue<T> {
    raw: RawQueue,
    _element: PhantomData<fn(T) -> T>,
}

const PUSH: &str = "push to";
const POP: &str = "pop from";

impl<T: Element> Queue<T> {
    pub(crate) const fn over(raw: RawQueue) -> Self {
        Self {
            raw,
            _element: PhantomData,
        }
    }

    /// Creates a queue for at least `capacity` elements.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or above 2^31, or it
    /// does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        RawQueue::create(memory, name, capacity, shape::<T>().0).map(Self::over)
    }

    /// Opens a queue.
    ///
    /// # Errors
    ///
    /// There is none of that name, its elements have another size, or it is
    /// damaged. A queue with a single slot, which other implementations can
    /// make, is refused: full and empty look alike in it.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        RawQueue::open(memory, name, shape::<T>().0).map(Self::over)
    }

    /// Opens the queue, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Queue::open`] and [`Queue::create`].
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, capacity),
        )
    }

    /// Pushes if there is room.
    ///
    /// # Errors
    ///
    /// The element, when the queue is full.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would hide the element's size")]
    #[doc(alias = "enqueue")]
    pub fn try_push(&self, element: T) -> Result<(), Full<T>> {
        if self.raw.try_push(element.as_bytes()) {
            Ok(())
        } else {
            Err(Full(element))
        }
    }

    /// Pushes, waiting for room without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when a slot stays half-changed.
    pub fn push(&self, element: T) -> Result<(), Refused<T>> {
        self.push_within(element, Deadline::never())
    }

    /// Pushes, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`]; the element comes back.
    pub fn push_within(&self, element: T, deadline: impl Into<Deadline>) -> Result<(), Refused<T>> {
        self.raw
            .push_until(element.as_bytes(), PUSH, deadline.into(), || false)
            .map_err(|error| Refused {
                value: element,
                error,
            })
    }

    /// Pops if there is an element.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would hide the element's size")]
    #[doc(alias = "dequeue")]
    pub fn try_pop(&self) -> Option<T> {
        let mut element = T::new_zeroed();
        self.raw.try_pop(element.as_mut_bytes()).then_some(element)
    }

    /// Pops, waiting for an element without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when a slot stays half-changed.
    pub fn pop(&self) -> Result<T, OpError> {
        self.pop_within(Deadline::never())
    }

    /// Pops, waiting for an element until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`].
    pub fn pop_within(&self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        let mut element = T::new_zeroed();
        self.raw
            .pop_until(element.as_mut_bytes(), POP, deadline.into(), || false)?;
        Ok(element)
    }

    /// Pushes as many elements as there is room for, in order; gives how many.
    /// Elements of one call may be interleaved with other producers'.
    pub fn try_push_slice(&self, elements: &[T]) -> usize {
        self.raw.try_push_many(elements.as_bytes())
    }

    /// Pops as many elements as there are, at most `into.len()`; gives how many.
    pub fn try_pop_slice(&self, into: &mut [T]) -> usize {
        self.raw.try_pop_many(into.as_mut_bytes())
    }

    /// Pushes all elements, waiting for room until the deadline or for that
    /// long; gives how many were pushed before it passed.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`]; the elements before `value` were pushed.
    pub fn push_slice_within(
        &self,
        elements: &[T],
        deadline: impl Into<Deadline>,
    ) -> Result<usize, Refused<usize>> {
        let deadline = deadline.into();
        let mut done = 0;
        while let Some(&element) = elements.get(done) {
            match self.push_within(element, deadline) {
                Ok(()) => done += 1 + self.try_push_slice(&elements[done + 1..]),
                Err(Refused { error, .. }) if error.is_timeout() => break,
                Err(Refused { error, .. }) => return Err(Refused { value: done, error }),
            }
        }
        Ok(done)
    }

    /// Pops at least one element, waiting for it until the deadline or for that
    /// long, and as many more as are there; gives how many, at most
    /// `into.len()`.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`]; nothing was popped.
    pub fn pop_slice_within(
        &self,
        into: &mut [T],
        deadline: impl Into<Deadline>,
    ) -> Result<usize, OpError> {
        let Some((first, rest)) = into.split_first_mut() else {
            return Ok(0);
        };
        *first = self.pop_within(deadline)?;
        Ok(1 + self.try_pop_slice(rest))
    }

    /// The number of elements; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        self.raw.len() as usize
    }

    /// Whether there are no elements; with others at work, a moment ago.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// Whether there is no room; with others at work, a moment ago.
    pub fn is_full(&self) -> bool {
        self.raw.len() == self.raw.capacity()
    }

    /// The number of elements that there is room for.
    pub fn capacity(&self) -> usize {
        self.raw.capacity() as usize
    }

    /// Restores service after a process died half-way through a push or a pop.
    /// Complete elements are kept in order, also those that a consumer had claimed
    /// and not freed when it died; half-stored ones are dropped.
    ///
    /// Only while nobody else uses the queue: the format has no way to keep
    /// others out.
    pub fn repair(&self) -> Repair {
        self.raw.repair()
    }
}
