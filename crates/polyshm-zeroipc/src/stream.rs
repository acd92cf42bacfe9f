//! Stream: values in order from one producer, with an end (section 6.2).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Full, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    ring::RawRing,
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{Deadline, Word8, Word32, Word64, sync::Ordering};
use polyshm_wire::zeroipc::{
    Dialect, ImageError, RingLayout, StreamHeader, derived, stream, suffix,
};
use std::marker::PhantomData;

/// Values in order from one producer to one consumer, until it is closed.
///
/// A [`Ring`](crate::Ring) with a count of all values and an end; the same
/// rules hold: one handle emits and one takes, in all processes together. After
/// [`Stream::close`] what was emitted before is still taken.
///
/// Two formats go by this name: [`Stream::create`] makes the C++ one, of two
/// entries (base name at most 24 bytes), which C++ itself cannot open again;
/// [`Stream::create_python`] the Python one, a bare ring that cannot be closed.
/// [`Stream::open`] finds out which one there is.
///
/// **Death.** At most the value that was being copied is lost; another producer
/// or consumer takes its place.
///
/// Source: section 6.2 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Stream};
///
/// let name = format!("polyshm-doc-stream-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let mut feed = Stream::<f64>::create(&memory, "feed", 4)?;
/// let mut readings = Stream::<f64>::open(&memory, "feed")?;
/// feed.emit(1.5).expect("there is room");
/// feed.close();
/// assert_eq!(readings.next(), Ok(1.5));
/// assert!(readings.next().is_err_and(|end| end.is_closed()));
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Debug)]
pub struct Stream<T> {
    ring: RawRing,
    head: Option<Head>,
    _element: PhantomData<fn(T) -> T>,
}

/// What C++ streams have beside the ring.
#[derive(Debug)]
struct Head {
    sequence: Word64,
    closed: Word8,
}

const EMIT: &str = "emit to";
const NEXT: &str = "take from";

impl Head {
    fn over(block: &Block) -> Result<Self, Error> {
        Ok(Self {
            sequence: block.word64(stream::SEQUENCE)?,
            closed: block.word8(stream::CLOSED)?,
        })
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }
}

impl<T: Element> Stream<T> {
    const WHAT: &'static str = "stream";

    /// Creates a stream that buffers `elements` values, in the C++ format.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, the capacity is 0 or too
    /// large, or it does not fit.
    pub fn create(memory: &Memory, name: &str, elements: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout =
            RingLayout::new(elements, shape::<T>().0).map_err(memory.layout_error(&label))?;
        let parts = [
            Part {
                name: Memory::derived(Self::WHAT, name, suffix::STREAM_HEADER)?,
                size: stream::HEADER_SIZE,
            },
            Part {
                name: Memory::derived(Self::WHAT, name, suffix::STREAM_BUFFER)?,
                size: layout.size(),
            },
        ];
        memory.create_entries(&label, &parts, |blocks| {
            blocks[0].fill(0, &StreamHeader::new(layout.elements()).to_bytes())?;
            Ok(Self {
                ring: RawRing::init(&blocks[1], layout)?,
                head: Some(Head::over(&blocks[0])?),
                _element: PhantomData,
            })
        })
    }

    /// Creates a stream that buffers `elements` values, in the Python format.
    ///
    /// # Errors
    ///
    /// As [`Stream::create`].
    pub fn create_python(memory: &Memory, name: &str, elements: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout =
            RingLayout::new(elements, shape::<T>().0).map_err(memory.layout_error(&label))?;
        Ok(Self {
            ring: RawRing::create(memory, &label, name, layout)?,
            head: None,
            _element: PhantomData,
        })
    }

    /// Opens a stream of either format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its values have another size, or it is
    /// damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let size = shape::<T>().0;
        let header = derived(name, suffix::STREAM_HEADER).ok();
        let found = header.filter(|header| memory.contains(header));
        let Some(header) = found else {
            return Ok(Self {
                ring: RawRing::open(memory, &label, name, size)?,
                head: None,
                _element: PhantomData,
            });
        };
        let block = memory.open_entry(&header, &label)?;
        if block.size as u64 != stream::HEADER_SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: stream::HEADER_SIZE,
            }));
        }
        let buffer = Memory::derived(Self::WHAT, name, suffix::STREAM_BUFFER)?;
        Ok(Self {
            ring: RawRing::open(memory, &label, &buffer, size)?,
            head: Some(Head::over(&block)?),
            _element: PhantomData,
        })
    }

    /// Opens the stream, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Stream::open`] and [`Stream::create`].
    pub fn open_or_create(memory: &Memory, name: &str, elements: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, elements),
        )
    }

    /// Which of the two formats it has.
    pub const fn dialect(&self) -> Dialect {
        match self.head {
            Some(_) => Dialect::Cpp,
            None => Dialect::Python,
        }
    }

    fn emitted(&self) {
        if let Some(head) = &self.head {
            // Relaxed: a count of what was published by the ring.
            head.sequence.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Emits a value, waiting for room without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Closed`]; the value comes back.
    pub fn emit(&mut self, value: T) -> Result<(), Refused<T>> {
        self.emit_within(value, Deadline::never())
    }

    /// Emits a value if there is room and it is not closed.
    ///
    /// # Errors
    ///
    /// The value.
    pub fn try_emit(&mut self, value: T) -> Result<(), Full<T>> {
        if self.is_closed() || self.ring.write(value.as_bytes(), size_of::<T>(), true) == 0 {
            return Err(Full(value));
        }
        self.emitted();
        Ok(())
    }

    /// Emits a value, waiting for room until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Closed`]; the value comes back.
    pub fn emit_within(
        &mut self,
        value: T,
        deadline: impl Into<Deadline>,
    ) -> Result<(), Refused<T>> {
        let head = &self.head;
        let closed = || head.as_ref().is_some_and(Head::is_closed);
        self.ring
            .write_until(value.as_bytes(), EMIT, deadline.into(), closed)
            .map_err(|error| Refused { value, error })?;
        self.emitted();
        Ok(())
    }

    /// Takes the next value, waiting for it without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Closed`] when it is closed and empty.
    #[expect(
        clippy::should_implement_trait,
        reason = "the reference's name; an iterator cannot say why it ends"
    )]
    pub fn next(&mut self) -> Result<T, OpError> {
        self.next_within(Deadline::never())
    }

    /// Takes the next value if it is there.
    pub fn try_next(&mut self) -> Option<T> {
        let mut value = T::new_zeroed();
        let read = self.ring.read(value.as_mut_bytes(), size_of::<T>(), false);
        (read > 0).then_some(value)
    }

    /// Takes the next value, waiting for it until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], or [`OpError::Closed`] when it is closed and empty.
    pub fn next_within(&mut self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        let mut value = T::new_zeroed();
        let head = &self.head;
        let closed = || head.as_ref().is_some_and(Head::is_closed);
        self.ring
            .read_until(value.as_mut_bytes(), NEXT, deadline.into(), closed)?;
        Ok(value)
    }

    /// Takes one value after the other until it is closed and empty.
    #[doc(alias = "subscribe")]
    pub fn iter(&mut self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.next().ok())
    }

    /// Refuses further values, and ends the waiting of both sides. Nothing of
    /// the Python format, which has no end.
    pub fn close(&self) {
        if let Some(head) = &self.head {
            head.closed.store(1, Ordering::Release);
            self.ring.wake_all();
        }
    }

    /// Whether it was closed; values may still be there.
    pub fn is_closed(&self) -> bool {
        self.head.as_ref().is_some_and(Head::is_closed)
    }

    /// How many values were ever emitted; `None` of the Python format, which
    /// does not count them.
    pub fn sequence(&self) -> Option<u64> {
        let head = self.head.as_ref()?;
        Some(head.sequence.load(Ordering::Acquire))
    }

    /// The values that wait.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.ring.len() == 0
    }

    /// How many values may wait.
    pub const fn capacity(&self) -> usize {
        self.ring.capacity()
    }
}

/// A stream without values: a count that goes up, and an end. C++ calls it
/// `Stream<void>`.
///
/// Source: section 6.2 of `docs/protocols/zeroipc.md`.
#[derive(Clone, Debug)]
pub struct VoidStream {
    count: Word64,
    /// The count's low half, to sleep on.
    low: Word32,
    closed: Word8,
    block: Block,
}

impl VoidStream {
    const WHAT: &'static str = "void stream";

    /// Creates one that nothing was emitted to.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let part = Part {
            name: name.to_owned(),
            size: stream::void::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| Self::over(&blocks[0]))
    }

    /// Opens one.
    ///
    /// # Errors
    ///
    /// There is none of that name, or the entry has another size.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != stream::void::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: stream::void::SIZE,
            }));
        }
        Self::over(&block)
    }

    fn over(block: &Block) -> Result<Self, Error> {
        Ok(Self {
            count: block.word64(stream::void::COUNT)?,
            low: block.word32(stream::void::COUNT)?,
            closed: block.word8(stream::void::CLOSED)?,
            block: block.clone(),
        })
    }

    /// Raises the count; `false` when it is closed.
    pub fn emit(&self) -> bool {
        if self.is_closed() {
            return false;
        }
        // Release: pairs with the acquire in `count`. An update: it is the
        // barrier before the bell.
        self.count.fetch_add(1, Ordering::Release);
        self.block.bell.ring(&self.low, u32::MAX);
        true
    }

    /// How often it was emitted to.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits until the count is no longer `seen`; gives the new one.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::Closed`].
    pub fn wait_for_change(
        &self,
        seen: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<u64, OpError> {
        const WAIT: &str = "wait for";
        let look = || {
            // The sign first: what was emitted before it still counts.
            let end = self.is_closed();
            let count = self.count();
            if count != seen {
                return Ok(Look::Ready(count));
            }
            if end {
                return Err(OpError::Closed {
                    attempt: WAIT,
                    on: self.block.label.clone(),
                });
            }
            Ok(Look::Sleep(seen as u32))
        };
        Wait::new(&self.low, Sleepers::Bell(&self.block.bell), look, || {
            Ok(None)
        })
        .run(self.block.waiter, deadline.into())?
        .ok_or_else(|| OpError::Timeout {
            attempt: WAIT,
            on: self.block.label.clone(),
        })
    }

    /// Ends it.
    pub fn close(&self) {
        self.closed.store(1, Ordering::Release);
        self.low.wake(u32::MAX);
    }

    /// Whether it was ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }
}
