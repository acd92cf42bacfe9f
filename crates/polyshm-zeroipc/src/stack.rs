//! Stack: bounded, last in first out, any number of users (section 4.3).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Full, Label, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    queue::Repair,
    wait::{Look, STUCK_ROUNDS, Sleepers, Wait, settle},
};
use polyshm_platform::{Bytes, Deadline, Word32, Words32, sync::Ordering};
use polyshm_wire::zeroipc::{StackLayout, stack};
use std::{
    marker::PhantomData,
    time::{Duration, Instant},
};

/// The stack over bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawStack {
    /// Index of the top element as `i32`, -1 when empty.
    top: Word32,
    /// Per slot: who may do what with its element.
    state: Words32,
    data: Bytes,
    capacity: u32,
    elem_size: usize,
    block: Block,
}

/// Why a push or pop did not happen.
pub(crate) enum Not {
    /// Full, or empty.
    Now,
    /// The slot stays half-changed.
    Stuck(u32),
}

impl RawStack {
    pub(crate) const WHAT: &'static str = "stack";
    pub(crate) fn create(
        memory: &Memory,
        name: &str,
        capacity: u64,
        elem_size: u64,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout = StackLayout::new(capacity, elem_size).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| Self::init(&blocks[0], layout))
    }

    pub(crate) fn init(block: &Block, layout: StackLayout) -> Result<Self, Error> {
        block.fill(0, &layout.header().to_bytes())?;
        let raw = Self::over(block, layout)?;
        // Relaxed: publishing the entry is what others wait for.
        raw.top.store((-1_i32).cast_unsigned(), Ordering::Relaxed);
        Ok(raw)
    }

    pub(crate) fn open(memory: &Memory, name: &str, elem_size: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        let layout = StackLayout::read(&block.header()?, block.size as u64, Some(elem_size))
            .map_err(|source| block.mismatch(source))?;
        let raw = Self::over(&block, layout)?;
        layout
            .check_top(raw.top.load(Ordering::Acquire).cast_signed())
            .map_err(|source| block.mismatch(source))?;
        Ok(raw)
    }

    fn over(block: &Block, layout: StackLayout) -> Result<Self, Error> {
        let len = layout.capacity as usize * layout.elem_size as usize;
        Ok(Self {
            top: block.word32(stack::TOP)?,
            state: block.words32(layout.state_offset(), 4, layout.capacity)?,
            data: block.bytes(layout.data_offset(), len)?,
            capacity: layout.capacity,
            elem_size: layout.elem_size as usize,
            block: block.clone(),
        })
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(crate) fn len(&self) -> u32 {
        self.used(self.top.load(Ordering::Acquire))
    }

    /// Elements counted by a value of `top`; damaged values count as the
    /// nearest sound one.
    fn used(&self, top: u32) -> u32 {
        u32::try_from(top.cast_signed())
            .map_or(0, |top| top.saturating_add(1))
            .min(self.capacity)
    }

    /// Takes one slot off or onto the counter: gives its index.
    fn count(&self, push: bool) -> Option<u32> {
        let mut top = self.top.load(Ordering::Relaxed);
        loop {
            let used = self.used(top);
            let (slot, next) = if push {
                (used < self.capacity).then_some((used, used + 1))?
            } else {
                let slot = used.checked_sub(1)?;
                (slot, slot)
            };
            // AcqRel: pairs with the other users' updates of the counter; the
            // slot's state orders the element.
            match self.top.compare_exchange(
                top,
                next.wrapping_sub(1),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(slot),
                Err(found) => top = found,
            }
        }
    }

    /// Takes a slot whose number is ours into the state `to`.
    ///
    /// When its last user does not finish, the counter is put back, but only
    /// while it is as we left it and the slot still as stuck: the counter has no
    /// tag, and putting it back at another time could bury an element.
    fn enter(
        &self,
        slot: u32,
        from: u32,
        to: u32,
        ours: u32,
        before: u32,
        patience: Duration,
    ) -> Result<(), Not> {
        let index = slot as usize;
        let claim = || {
            // AcqRel: pairs with the release of the slot's last user.
            let claimed =
                self.state
                    .compare_exchange(index, from, to, Ordering::AcqRel, Ordering::Relaxed);
            claimed.is_ok().then_some(())
        };
        if settle(patience, claim).is_some() {
            return Ok(());
        }
        for _ in 0..STUCK_ROUNDS {
            // AcqRel: as in `count`.
            let restored =
                self.top
                    .compare_exchange(ours, before, Ordering::AcqRel, Ordering::Relaxed);
            if restored.is_ok() {
                break;
            }
            // Others count on our number: leaving now would leave a hole.
            if settle(self.block.patience, claim).is_some() {
                return Ok(());
            }
        }
        Err(Not::Stuck(slot))
    }

    /// How long one attempt of a wait with this deadline may take.
    fn patience(&self, deadline: Deadline) -> Duration {
        let left = deadline.remaining().unwrap_or(Duration::MAX);
        self.block.patience.min(left)
    }

    #[inline]
    pub(crate) fn try_push(&self, element: &[u8], deadline: Deadline) -> Result<(), Not> {
        let slot = self.count(true).ok_or(Not::Now)?;
        let before = slot.wrapping_sub(1);
        let patience = self.patience(deadline);
        self.enter(slot, stack::EMPTY, stack::WRITING, slot, before, patience)?;
        // In range: the slot is below the capacity.
        let stored = self.data.write(slot as usize * element.len(), element);
        debug_assert!(stored.is_ok());
        // Release: pairs with the acquire of the next user's claim.
        self.state
            .store(slot as usize, stack::READY, Ordering::Release);
        self.block.bell.ring(&self.top, u32::MAX);
        Ok(())
    }

    #[inline]
    pub(crate) fn try_pop(&self, into: &mut [u8], deadline: Deadline) -> Result<(), Not> {
        let slot = self.count(false).ok_or(Not::Now)?;
        let ours = slot.wrapping_sub(1);
        let patience = self.patience(deadline);
        self.enter(slot, stack::READY, stack::READING, ours, slot, patience)?;
        let loaded = self.data.read(slot as usize * into.len(), into);
        debug_assert!(loaded.is_ok());
        // Release: pairs with the acquire of the next user's claim.
        self.state
            .store(slot as usize, stack::EMPTY, Ordering::Release);
        self.block.bell.ring(&self.top, u32::MAX);
        Ok(())
    }

    /// Copies the top element without taking it.
    pub(crate) fn peek(&self, into: &mut [u8]) -> Result<(), Not> {
        let seen = settle(self.block.patience, || {
            let used = self.used(self.top.load(Ordering::Acquire));
            let Some(slot) = used.checked_sub(1) else {
                return Some(None);
            };
            let index = slot as usize;
            // AcqRel: pairs with the release of the slot's last user.
            let claimed = self.state.compare_exchange(
                index,
                stack::READY,
                stack::READING,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            claimed.ok()?;
            let loaded = self.data.read(index * into.len(), into);
            debug_assert!(loaded.is_ok());
            // Release: pairs with the acquire of the next user's claim.
            self.state.store(index, stack::READY, Ordering::Release);
            Some(Some(()))
        });
        match seen {
            Some(Some(())) => Ok(()),
            Some(None) => Err(Not::Now),
            None => Err(Not::Stuck(self.len().saturating_sub(1))),
        }
    }

    pub(crate) fn stuck(&self, attempt: &'static str, slot: u32) -> OpError {
        OpError::Stuck {
            attempt,
            on: self.block.label.clone(),
            slot,
        }
    }

    /// Waits until `go` happens.
    pub(crate) fn wait(
        &self,
        attempt: &'static str,
        deadline: Deadline,
        mut go: impl FnMut(Deadline) -> Result<(), Not>,
    ) -> Result<(), OpError> {
        let mut stuck: Option<(u32, Instant)> = None;
        let bears = self.block.patience.saturating_mul(STUCK_ROUNDS);
        let look = || {
            // Before the attempt: a change after it ends the sleep at once.
            let top = self.top.load(Ordering::Acquire);
            match go(deadline) {
                Ok(()) => return Ok(Look::Ready(())),
                Err(Not::Now) => {
                    stuck = None;
                    return Ok(Look::Sleep(top));
                }
                Err(Not::Stuck(slot)) => match stuck {
                    // Tried for as long as one attempt takes, and given back:
                    // its user may just have lost its processor.
                    Some((seen, since)) if seen == slot => {
                        if since.elapsed() >= bears || deadline.expired() {
                            return Err(self.stuck(attempt, slot));
                        }
                    }
                    _ if deadline.expired() => return Err(self.stuck(attempt, slot)),
                    _ => stuck = Some((slot, Instant::now())),
                },
            }
            Ok(Look::Nap)
        };
        Wait::new(&self.top, Sleepers::Bell(&self.block.bell), look, || {
            Ok(None)
        })
        .run(self.block.waiter, deadline)?
        .ok_or_else(|| OpError::Timeout {
            attempt,
            on: self.block.label.clone(),
        })
    }

    /// Puts the stack in order; nobody else may use it meanwhile.
    pub(crate) fn repair(&self) -> Repair {
        let used = self.used(self.top.load(Ordering::Acquire));
        let mut element = vec![0; self.elem_size];
        let (mut kept, mut dropped) = (0, 0);
        for slot in 0..self.capacity {
            // Relaxed throughout: nobody else is there.
            let state = self.state.load(slot as usize, Ordering::Relaxed);
            // A peek or pop that ended half-way has not taken the element away.
            let whole = matches!(state, stack::READY | stack::READING);
            if whole {
                let from = slot as usize * self.elem_size;
                let to = kept as usize * self.elem_size;
                if slot != kept && self.data.read(from, &mut element).is_ok() {
                    let stored = self.data.write(to, &element);
                    debug_assert!(stored.is_ok());
                }
                self.state
                    .store(kept as usize, stack::READY, Ordering::Relaxed);
                kept += 1;
            } else if state != stack::EMPTY || slot < used {
                dropped += 1;
            }
            if slot >= kept {
                self.state
                    .store(slot as usize, stack::EMPTY, Ordering::Relaxed);
            }
        }
        for slot in kept..self.capacity {
            self.state
                .store(slot as usize, stack::EMPTY, Ordering::Relaxed);
        }
        self.top.store(kept.wrapping_sub(1), Ordering::Release);
        self.top.wake(u32::MAX);
        Repair { kept, dropped }
    }
}

/// A bounded stack for any number of users, last in, first out.
///
/// The capacity is taken as given. Elements are copied in and out. `try_push`
/// and `try_pop` never sleep, but wait (spinning, then yielding) for a process
/// that is just copying the same slot. What a push stored before it is seen by
/// who pops the element (release and acquire on the slot's state).
///
/// A process that dies while it copies leaves its slot stuck: operations that
/// need it report [`OpError::Stuck`], and [`Stack::repair`] restores service.
///
/// Source: section 4.3 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Stack};
///
/// let name = format!("polyshm-doc-stack-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let undo = Stack::<i64>::create(&memory, "undo", 8)?;
/// undo.try_push(-5).expect("there is room");
/// undo.try_push(6).expect("there is room");
/// assert_eq!(undo.peek().expect("nobody died"), Some(6));
/// assert_eq!(undo.try_pop().expect("nobody died"), Some(6));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stack<T> {
    raw: RawStack,
    _element: PhantomData<fn(T) -> T>,
}

/// Why a stack did not take an element at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryPushError<T> {
    /// There is no room.
    #[error(transparent)]
    Full(Full<T>),
    /// The slot that it needs stays half-changed.
    #[error(transparent)]
    Stuck(Refused<T>),
}

const PUSH: &str = "push to";
const POP: &str = "pop from";
const PEEK: &str = "look at the top of";

impl<T: Element> Stack<T> {
    pub(crate) const fn over(raw: RawStack) -> Self {
        Self {
            raw,
            _element: PhantomData,
        }
    }

    /// Creates a stack for `capacity` elements.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or too large, or it
    /// does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        RawStack::create(memory, name, capacity, shape::<T>().0).map(Self::over)
    }

    /// Opens a stack.
    ///
    /// # Errors
    ///
    /// There is none of that name, its elements have another size, or it is
    /// damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        RawStack::open(memory, name, shape::<T>().0).map(Self::over)
    }

    /// Opens the stack, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Stack::open`] and [`Stack::create`].
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
    /// The element, when the stack is full, or when its next slot stays
    /// half-changed.
    pub fn try_push(&self, element: T) -> Result<(), TryPushError<T>> {
        self.raw
            .try_push(element.as_bytes(), Deadline::never())
            .map_err(|not| match not {
                Not::Now => TryPushError::Full(Full(element)),
                Not::Stuck(slot) => TryPushError::Stuck(Refused {
                    value: element,
                    error: self.raw.stuck(PUSH, slot),
                }),
            })
    }

    /// Pushes, waiting for room without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`]; the element comes back.
    pub fn push(&self, element: T) -> Result<(), Refused<T>> {
        self.push_within(element, Deadline::never())
    }

    /// Pushes, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Stuck`]; the element comes back.
    pub fn push_within(&self, element: T, deadline: impl Into<Deadline>) -> Result<(), Refused<T>> {
        let go = |end| self.raw.try_push(element.as_bytes(), end);
        self.raw
            .wait(PUSH, deadline.into(), go)
            .map_err(|error| Refused {
                value: element,
                error,
            })
    }

    /// Pops if there is an element.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when the top slot stays half-changed.
    pub fn try_pop(&self) -> Result<Option<T>, OpError> {
        let mut element = T::new_zeroed();
        match self.raw.try_pop(element.as_mut_bytes(), Deadline::never()) {
            Ok(()) => Ok(Some(element)),
            Err(Not::Now) => Ok(None),
            Err(Not::Stuck(slot)) => Err(self.raw.stuck(POP, slot)),
        }
    }

    /// Pops, waiting for an element without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`].
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
        self.raw.wait(POP, deadline.into(), |end| {
            self.raw.try_pop(element.as_mut_bytes(), end)
        })?;
        Ok(element)
    }

    /// Copies the top element and leaves it there. Holds its slot for that
    /// moment, so a pop of another process may wait for it.
    ///
    /// # Errors
    ///
    /// [`OpError::Stuck`] when the top slot stays half-changed.
    #[doc(alias = "top")]
    pub fn peek(&self) -> Result<Option<T>, OpError> {
        let mut element = T::new_zeroed();
        match self.raw.peek(element.as_mut_bytes()) {
            Ok(()) => Ok(Some(element)),
            Err(Not::Now) => Ok(None),
            Err(Not::Stuck(slot)) => Err(self.raw.stuck(PEEK, slot)),
        }
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

    /// Restores service after a process died half-way through an operation.
    /// Complete elements are kept in order. An element that somebody was just
    /// taking when it died is there again.
    ///
    /// Only while nobody else uses the stack: the format has no way to keep
    /// others out.
    pub fn repair(&self) -> Repair {
        self.raw.repair()
    }
}
