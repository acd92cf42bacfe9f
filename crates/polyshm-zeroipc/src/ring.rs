//! Ring: one producer, one consumer, in a row of bytes (section 4.4).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Full, Label, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{
    Bytes, Deadline, Word32, Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::zeroipc::{RingLayout, ring};
use std::marker::PhantomData;
use zerocopy::IntoBytes;

/// The ring over bytes, for one side.
#[derive(Debug)]
pub(crate) struct RawRing {
    /// Bytes ever written; only the producer stores it.
    write_pos: Word64,
    /// Bytes ever read; only the consumer stores it.
    read_pos: Word64,
    /// The low halves of the positions, to sleep on.
    written: Word32,
    read: Word32,
    data: Bytes,
    capacity: u64,
    elem_size: usize,
    /// The other side's position as last seen; the true one is not before it.
    seen_read: u64,
    seen_write: u64,
    /// Where this handle left its own position. Found elsewhere, another handle
    /// was at work or reset the ring, and what was seen is void.
    left_write: u64,
    left_read: u64,
    block: Block,
}

impl RawRing {
    pub(crate) const WHAT: &'static str = "ring";
    /// How often the positions are looked at until they stand still.
    const LOOKS: u32 = 1000;

    pub(crate) fn create(
        memory: &Memory,
        label: &Label,
        entry: &str,
        layout: RingLayout,
    ) -> Result<Self, Error> {
        let part = Part {
            name: entry.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(label, &[part], |blocks| Self::init(&blocks[0], layout))
    }

    pub(crate) fn init(block: &Block, layout: RingLayout) -> Result<Self, Error> {
        block.fill(0, &layout.header().to_bytes())?;
        Self::over(block, layout)
    }

    pub(crate) fn open(
        memory: &Memory,
        label: &Label,
        entry: &str,
        elem_size: u64,
    ) -> Result<Self, Error> {
        let block = memory.open_entry(entry, label)?;
        let layout = RingLayout::read(&block.header()?, block.size as u64, Some(elem_size))
            .map_err(|source| block.mismatch(source))?;
        let raw = Self::over(&block, layout)?;
        // Acquire, the reader's first: it never passes the writer's. And once
        // more: in use, both may have gone round the ring between two loads.
        let look = || {
            let read = raw.read_pos.load(Ordering::Acquire);
            let written = raw.write_pos.load(Ordering::Acquire);
            let still = raw.read_pos.load(Ordering::Acquire) == read;
            (still, read, written)
        };
        let (_, read, written) = (0..Self::LOOKS)
            .map(|_| look())
            .find(|seen| seen.0)
            .unwrap_or_else(look);
        layout
            .used(written, read)
            .map_err(|source| block.mismatch(source))?;
        Ok(raw)
    }

    fn over(block: &Block, layout: RingLayout) -> Result<Self, Error> {
        let read_pos = block.word64(ring::READ_POS)?;
        let write_pos = block.word64(ring::WRITE_POS)?;
        Ok(Self {
            written: block.word32(ring::WRITE_POS)?,
            read: block.word32(ring::READ_POS)?,
            data: block.bytes(layout.data_offset(), layout.capacity as usize)?,
            capacity: u64::from(layout.capacity),
            elem_size: layout.elem_size as usize,
            seen_read: read_pos.load(Ordering::Acquire),
            seen_write: write_pos.load(Ordering::Acquire),
            left_write: write_pos.load(Ordering::Relaxed),
            left_read: read_pos.load(Ordering::Relaxed),
            read_pos,
            write_pos,
            block: block.clone(),
        })
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity as usize / self.elem_size
    }

    /// Elements that are there.
    pub(crate) fn len(&self) -> usize {
        // Acquire, the reader's first: it never passes the writer's.
        let read = self.read_pos.load(Ordering::Acquire);
        let written = self.write_pos.load(Ordering::Acquire);
        let used = written.wrapping_sub(read).min(self.capacity);
        used as usize / self.elem_size
    }

    /// Copies whole elements in, at most as many as there is room for; gives
    /// how many bytes.
    #[inline]
    pub(crate) fn write(&mut self, from: &[u8], elem: usize, all: bool) -> usize {
        // Relaxed: only this side stores it.
        let at = self.write_pos.load(Ordering::Relaxed);
        if at != self.left_write {
            self.seen_read = self.read_pos.load(Ordering::Acquire);
            self.left_write = at;
        }
        let room = |read: u64| {
            let used = at.wrapping_sub(read);
            // A damaged distance leaves no room.
            self.capacity.saturating_sub(used) as usize / elem * elem
        };
        let mut count = room(self.seen_read).min(from.len());
        if count < from.len() {
            // Acquire: pairs with the consumer's release; its copy is over.
            self.seen_read = self.read_pos.load(Ordering::Acquire);
            count = room(self.seen_read).min(from.len());
        }
        if count == 0 || (all && count < from.len()) {
            return 0;
        }
        let start = (at % self.capacity) as usize;
        let first = count.min(self.capacity as usize - start);
        // In range: two parts within the capacity.
        let stored = self
            .data
            .write(start, &from[..first])
            .and_then(|()| self.data.write(0, &from[first..count]));
        debug_assert!(stored.is_ok());
        // Release: pairs with the acquire in `read`.
        self.left_write = at.wrapping_add(count as u64);
        self.write_pos.store(self.left_write, Ordering::Release);
        // A store is no barrier: without it the consumer's count of itself
        // and our look at it could miss each other.
        fence(Ordering::SeqCst);
        self.block.bell.ring(&self.written, 1);
        count
    }

    /// Copies whole elements out, at most as many as there are; gives how many
    /// bytes. With `keep` they stay.
    #[inline]
    pub(crate) fn read(&mut self, into: &mut [u8], elem: usize, keep: bool) -> usize {
        // Relaxed: only this side stores it.
        let at = self.read_pos.load(Ordering::Relaxed);
        if at != self.left_read {
            self.seen_write = self.write_pos.load(Ordering::Acquire);
            self.left_read = at;
        }
        let there = |written: u64| {
            let used = written.wrapping_sub(at);
            // A damaged distance has nothing to read.
            if used > self.capacity {
                0
            } else {
                used as usize / elem * elem
            }
        };
        let mut count = there(self.seen_write).min(into.len());
        if count < into.len() {
            // Acquire: pairs with the producer's release; the bytes are there.
            self.seen_write = self.write_pos.load(Ordering::Acquire);
            count = there(self.seen_write).min(into.len());
        }
        if count == 0 {
            return 0;
        }
        let start = (at % self.capacity) as usize;
        let first = count.min(self.capacity as usize - start);
        let loaded = self
            .data
            .read(start, &mut into[..first])
            .and_then(|()| self.data.read(0, &mut into[first..count]));
        debug_assert!(loaded.is_ok());
        if !keep {
            // Release: pairs with the acquire in `write`: our copy is over.
            self.left_read = at.wrapping_add(count as u64);
            self.read_pos.store(self.left_read, Ordering::Release);
            // As in `write`.
            fence(Ordering::SeqCst);
            self.block.bell.ring(&self.read, 1);
        }
        count
    }

    pub(crate) fn write_until(
        &mut self,
        element: &[u8],
        attempt: &'static str,
        deadline: Deadline,
        closed: impl Fn() -> bool,
    ) -> Result<(), OpError> {
        let (word, waiter) = (self.read.clone(), self.block.waiter);
        let (bell, on) = (self.block.bell.clone(), self.block.label.clone());
        let look = || {
            if closed() {
                return Err(OpError::Closed {
                    attempt,
                    on: on.clone(),
                });
            }
            if self.write(element, element.len(), true) > 0 {
                return Ok(Look::Ready(()));
            }
            // What the refusal was based on.
            Ok(Look::Sleep(self.seen_read as u32))
        };
        Wait::new(&word, Sleepers::Bell(&bell), look, || Ok(None))
            .run(waiter, deadline)?
            .ok_or_else(|| OpError::Timeout {
                attempt,
                on: on.clone(),
            })
    }

    pub(crate) fn read_until(
        &mut self,
        into: &mut [u8],
        attempt: &'static str,
        deadline: Deadline,
        closed: impl Fn() -> bool,
    ) -> Result<(), OpError> {
        let (word, waiter) = (self.written.clone(), self.block.waiter);
        let (bell, on) = (self.block.bell.clone(), self.block.label.clone());
        let look = || {
            // The sign first: what was written before it is still read.
            let end = closed();
            let elem = into.len();
            if self.read(into, elem, false) > 0 {
                return Ok(Look::Ready(()));
            }
            if end {
                return Err(OpError::Closed {
                    attempt,
                    on: on.clone(),
                });
            }
            Ok(Look::Sleep(self.seen_write as u32))
        };
        Wait::new(&word, Sleepers::Bell(&bell), look, || Ok(None))
            .run(waiter, deadline)?
            .ok_or_else(|| OpError::Timeout {
                attempt,
                on: on.clone(),
            })
    }

    pub(crate) fn wake_all(&self) {
        self.written.wake(u32::MAX);
        self.read.wake(u32::MAX);
    }

    pub(crate) fn reset(&mut self) {
        self.write_pos.store(0, Ordering::Release);
        self.read_pos.store(0, Ordering::Release);
        (self.seen_read, self.seen_write) = (0, 0);
        (self.left_read, self.left_write) = (0, 0);
        self.wake_all();
    }
}

/// A ring for one producer and one consumer: the cheapest way to pass elements
/// on in order.
///
/// Exactly one handle may write and one may read at a time, in all processes
/// together; nothing enforces it, and breaking it gives torn or lost elements,
/// never worse. Each side keeps the other's position in mind and looks anew only
/// when it seems full or empty. What was stored before a write is seen by who
/// reads the element (release and acquire on the position).
///
/// A producer or consumer that dies loses at most the element it was copying;
/// another one takes its place.
///
/// Source: section 4.4 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Ring};
///
/// let name = format!("polyshm-doc-ring-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let mut producer = Ring::<i16>::create(&memory, "log", 16)?;
/// let mut consumer = Ring::<i16>::open(&memory, "log")?;
/// producer.try_write(3).expect("there is room");
/// assert_eq!(producer.try_write_slice(&[4, 5]), 2);
/// assert_eq!(consumer.try_read(), Some(3));
/// assert_eq!(consumer.len(), 2);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Debug)]
pub struct Ring<T> {
    raw: RawRing,
    _element: PhantomData<fn(T) -> T>,
}

const WRITE: &str = "write to";
const READ: &str = "read from";

impl<T: Element> Ring<T> {
    pub(crate) const fn over(raw: RawRing) -> Self {
        Self {
            raw,
            _element: PhantomData,
        }
    }

    /// Creates a ring for `elements` elements.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0 or its bytes exceed
    /// 32 bits, or it does not fit.
    pub fn create(memory: &Memory, name: &str, elements: u64) -> Result<Self, Error> {
        let label = Memory::label(RawRing::WHAT, name);
        let layout =
            RingLayout::new(elements, shape::<T>().0).map_err(memory.layout_error(&label))?;
        RawRing::create(memory, &label, name, layout).map(Self::over)
    }

    /// Creates a ring of at most `bytes` bytes, as the C++ constructor takes
    /// them: rounded down to whole elements, at least one.
    ///
    /// # Errors
    ///
    /// As [`Ring::create`].
    pub fn create_bytes(memory: &Memory, name: &str, bytes: u64) -> Result<Self, Error> {
        let label = Memory::label(RawRing::WHAT, name);
        let layout =
            RingLayout::from_bytes(bytes, shape::<T>().0).map_err(memory.layout_error(&label))?;
        RawRing::create(memory, &label, name, layout).map(Self::over)
    }

    /// Opens a ring.
    ///
    /// # Errors
    ///
    /// There is none of that name, its elements have another size, or it is
    /// damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(RawRing::WHAT, name);
        RawRing::open(memory, &label, name, shape::<T>().0).map(Self::over)
    }

    /// Opens the ring, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Ring::open`] and [`Ring::create`].
    pub fn open_or_create(memory: &Memory, name: &str, elements: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, elements),
        )
    }

    /// Writes an element if there is room.
    ///
    /// # Errors
    ///
    /// The element, when the ring is full.
    #[inline]
    #[doc(alias = "push")]
    pub fn try_write(&mut self, element: T) -> Result<(), Full<T>> {
        if self.raw.write(element.as_bytes(), size_of::<T>(), true) > 0 {
            Ok(())
        } else {
            Err(Full(element))
        }
    }

    /// Writes an element, waiting for room without end.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn write(&mut self, element: T) -> Result<(), Refused<T>> {
        self.write_within(element, Deadline::never())
    }

    /// Writes an element, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`]; the element comes back.
    pub fn write_within(
        &mut self,
        element: T,
        deadline: impl Into<Deadline>,
    ) -> Result<(), Refused<T>> {
        self.raw
            .write_until(element.as_bytes(), WRITE, deadline.into(), || false)
            .map_err(|error| Refused {
                value: element,
                error,
            })
    }

    /// Writes as many elements as there is room for, in order; gives how many.
    #[doc(alias = "write_bulk")]
    pub fn try_write_slice(&mut self, elements: &[T]) -> usize {
        self.raw.write(elements.as_bytes(), size_of::<T>(), false) / size_of::<T>()
    }

    /// Reads an element if there is one.
    #[inline]
    #[doc(alias = "pop")]
    pub fn try_read(&mut self) -> Option<T> {
        let mut element = T::new_zeroed();
        let read = self.raw.read(element.as_mut_bytes(), size_of::<T>(), false);
        (read > 0).then_some(element)
    }

    /// Reads an element, waiting for it without end.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn read(&mut self) -> Result<T, OpError> {
        self.read_within(Deadline::never())
    }

    /// Reads an element, waiting for it until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`].
    pub fn read_within(&mut self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        let mut element = T::new_zeroed();
        self.raw
            .read_until(element.as_mut_bytes(), READ, deadline.into(), || false)?;
        Ok(element)
    }

    /// Reads as many elements as there are, at most `into.len()`; gives how many.
    #[doc(alias = "read_bulk")]
    pub fn try_read_slice(&mut self, into: &mut [T]) -> usize {
        self.raw.read(into.as_mut_bytes(), size_of::<T>(), false) / size_of::<T>()
    }

    /// Copies the next element and leaves it there; for the consumer.
    #[doc(alias = "front")]
    pub fn peek(&mut self) -> Option<T> {
        let mut element = T::new_zeroed();
        let read = self.raw.read(element.as_mut_bytes(), size_of::<T>(), true);
        (read > 0).then_some(element)
    }

    /// The number of elements that are there.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.raw.len() == self.raw.capacity()
    }

    /// The number of elements that there is room for.
    pub const fn capacity(&self) -> usize {
        self.raw.capacity()
    }

    /// Empties it. Only while no other handle uses the ring.
    pub fn reset(&mut self) {
        self.raw.reset();
    }
}
