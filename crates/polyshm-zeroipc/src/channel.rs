//! Channel: messages from senders to receivers, until it is closed (section 6.1).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, OpError, Refused},
    memory::{Memory, Part, open_or_create},
    queue::RawQueue,
    wait::{Look, Sleepers, Wait, settle},
};
use polyshm_platform::{
    Bytes, Deadline, Word8, Word32, Word64, process,
    sync::{Ordering, fence},
};
use polyshm_wire::zeroipc::{
    ChannelHeader, ChannelSync, Dialect, ImageError, QueueLayout, SlotLayout,
    channel::{header, slot, sync},
    derived, suffix,
};
use std::{marker::PhantomData, sync::Arc};

/// Messages from senders to receivers, first in, first out, until it is closed.
///
/// With a capacity, sends go into a queue and wait only while that is full; with
/// capacity 0 each send waits until a receiver has its message (a rendezvous).
/// After [`Channel::close`] sends are refused, and what was sent before is still
/// received. Any number of senders and receivers may share one; an unbuffered
/// channel bears more than one of each only among Rust processes with native
/// marks.
///
/// Two formats go by this name, with other entries: [`Channel::create`] makes
/// the C++ one (base name at most 24 bytes), [`Channel::create_python`] the
/// Python one (26). [`Channel::open`] finds out which one there is. C++'s own
/// send does not wait for room and its receive does not wait for messages.
///
/// **Death.** A sender that died has sent a message or not. In a rendezvous the
/// turn of a dead Rust sender or receiver passes on to the next one; a message
/// that a receiver was copying when it died is received by the next one, or comes
/// back to its sender with [`OpError::HolderDied`]. A time-out takes an
/// unbuffered message back, unless a Rust receiver is just taking it; a receiver
/// of another implementation may have it all the same.
///
/// Source: section 6.1 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Channel, Memory};
///
/// let name = format!("polyshm-doc-channel-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let orders = Channel::<u32>::create(&memory, "orders", 4)?;
/// orders.send(1).expect("there is room");
/// orders.close();
/// assert!(orders.send(2).is_err());
/// assert_eq!(orders.receive(), Ok(1));
/// assert!(orders.receive().is_err(), "closed and empty");
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Channel<T> {
    kind: Kind,
    block: Block,
    _element: PhantomData<fn(T) -> T>,
}

#[derive(Clone, Debug)]
enum Kind {
    Buffered { closed: Word8, queue: Arc<RawQueue> },
    Rendezvous(Arc<Rendezvous>),
    Python(Arc<Python>),
}

/// The unbuffered C++ channel.
#[derive(Debug)]
struct Rendezvous {
    senders: Word32,
    receivers: Word32,
    closed: Word8,
    /// A message lies there; 2 while a Rust receiver copies it.
    ready: Word8,
    /// It was taken.
    consumed: Word8,
    data: Bytes,
    /// The first bytes of the slot as one word, to sleep on; never loaded or
    /// stored as such.
    slot: Word32,
    flags: Bytes,
    /// Whose turn it is among Rust senders and receivers: a process's stamp, in
    /// two header words that nobody uses.
    send_turn: Turn,
    receive_turn: Turn,
}

/// One at a time among Rust processes, as far as they leave marks.
#[derive(Debug)]
struct Turn {
    word: Option<Word64>,
    /// Its low half, to sleep on.
    low: Option<Word32>,
    own: u64,
}

/// The Python channel: a queue, and who waits.
#[derive(Debug)]
struct Python {
    queue: RawQueue,
    senders: Word32,
    receivers: Word32,
    closed: Word32,
    /// Messages that may wait; 0: a rendezvous.
    limit: u32,
}

const SEND: &str = "send to";
const RECEIVE: &str = "receive from";
const TAKEN: u8 = 2;

/// How a turn came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Got {
    /// Nobody had it any more.
    Given,
    /// Who had it died.
    Inherited,
}

impl Turn {
    fn of(block: &Block, at: u64) -> Result<Self, Error> {
        let own = process::stamp(process::current());
        let marks = block.marks && own != 0;
        Ok(Self {
            word: marks.then(|| block.word64(at)).transpose()?,
            low: marks.then(|| block.word32(at)).transpose()?,
            own,
        })
    }

    /// Takes the turn; `None`: another has it, asleep on that value.
    fn take(&self) -> Option<u32> {
        let word = self.word.as_ref()?;
        // AcqRel: pairs with `give`: the one before is done with the slot.
        match word.compare_exchange(0, self.own, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => None,
            Err(found) => Some(found as u32),
        }
    }

    /// Takes the turn of a dead process.
    fn inherit(&self) -> bool {
        let Some(word) = &self.word else { return false };
        let holder = word.load(Ordering::Relaxed);
        holder != 0
            && !process::is_alive_stamped(holder >> 32, holder)
            // AcqRel: of several that see it dead one wins.
            && word
                .compare_exchange(holder, self.own, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    fn give(&self, block: &Block) {
        if let (Some(word), Some(low)) = (&self.word, &self.low) {
            // An update, not a store: it is the barrier before the bell.
            // Release: pairs with `take`.
            let _ = word.compare_exchange(self.own, 0, Ordering::AcqRel, Ordering::Relaxed);
            block.bell.ring(low, 1);
        }
    }

    /// Whether turns are kept: without marks one sender and one receiver are
    /// all that the format bears.
    const fn is_kept(&self) -> bool {
        self.word.is_some()
    }

    /// Waits for the turn; `None`: it did not come in time.
    fn wait(
        &self,
        block: &Block,
        deadline: Deadline,
        closed: impl Fn() -> Option<OpError>,
    ) -> Result<Option<Got>, OpError> {
        let Some(low) = &self.low else {
            return Ok(Some(Got::Given));
        };
        let look = || {
            Ok(match self.take() {
                None => Look::Ready(Got::Given),
                Some(holder) => match closed() {
                    Some(error) => return Err(error),
                    None => Look::Sleep(holder),
                },
            })
        };
        let check = || Ok(self.inherit().then_some(Got::Inherited));
        Wait::new(low, Sleepers::Bell(&block.bell), look, check).run(block.waiter, deadline)
    }
}

impl Rendezvous {
    fn over(head: &Block, cell: &Block, layout: SlotLayout) -> Result<Self, Error> {
        Ok(Self {
            senders: head.word32(header::SENDERS)?,
            receivers: head.word32(header::RECEIVERS)?,
            closed: head.word8(header::CLOSED)?,
            ready: cell.word8(slot::READY)?,
            consumed: cell.word8(slot::CONSUMED)?,
            data: cell.bytes(layout.data_offset(), layout.elem_size as usize)?,
            slot: cell.word32(0)?,
            flags: cell.bytes(0, 4)?,
            send_turn: Turn::of(head, header::SEND_SEQ)?,
            receive_turn: Turn::of(head, header::RECV_SEQ)?,
        })
    }

    /// The slot's first word as it is now, to be slept on.
    fn now(&self) -> u32 {
        let mut bytes = [0; 4];
        let loaded = self.flags.read(0, &mut bytes);
        debug_assert!(loaded.is_ok(), "the range was checked");
        // Acquire: the flags are looked at after it.
        fence(Ordering::Acquire);
        u32::from_le_bytes(bytes)
    }

    fn wake(&self) {
        // Stores are no barriers; pairs with the sleepers' counting of
        // themselves.
        fence(Ordering::SeqCst);
        let waits = |word: &Word32| word.load(Ordering::Relaxed).cast_signed() > 0;
        if waits(&self.senders) || waits(&self.receivers) {
            self.slot.wake(u32::MAX);
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }

    /// With the turn: puts the message there and waits until it is taken.
    fn send(&self, block: &Block, message: &[u8], deadline: Deadline) -> Result<(), OpError> {
        let end = |at: &'static str| OpError::Closed {
            attempt: at,
            on: block.label.clone(),
        };
        let timeout = || OpError::Timeout {
            attempt: SEND,
            on: block.label.clone(),
        };
        // What a dead sender left is received first.
        let free = || {
            let seen = self.now();
            if self.ready.load(Ordering::Acquire) == 0 {
                return Ok(Look::Ready(()));
            }
            if self.is_closed() {
                return Err(end(SEND));
            }
            Ok(Look::Sleep(seen))
        };
        Wait::new(&self.slot, Sleepers::Counted, free, || {
            Ok(self.free_dead_receiver().then_some(()))
        })
        .run(block.waiter, deadline)?
        .ok_or_else(timeout)?;
        if self.is_closed() {
            return Err(end(SEND));
        }
        let stored = self.data.write(0, message);
        debug_assert!(stored.is_ok(), "as long as the element");
        self.consumed.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire of the receiver.
        self.ready.store(1, Ordering::Release);
        self.wake();
        let taken = || {
            let seen = self.now();
            // Acquire: pairs with the receiver's release; its copy is over.
            let consumed = || self.consumed.load(Ordering::Acquire) != 0;
            if consumed() {
                return Ok(Look::Ready(true));
            }
            if self.ready.load(Ordering::Acquire) == 0 {
                // Taken since, or thrown out by a repair.
                return Ok(Look::Ready(consumed()));
            }
            if self.is_closed() && self.withdraw() {
                return Err(end(SEND));
            }
            Ok(Look::Sleep(seen))
        };
        let done = Wait::new(&self.slot, Sleepers::Counted, taken, || {
            Ok(self.free_dead_receiver().then_some(false))
        })
        .run(block.waiter, deadline)?;
        match done {
            Some(true) => Ok(()),
            Some(false) => Err(OpError::HolderDied {
                attempt: SEND,
                on: block.label.clone(),
                hint: "its receiver died while it took the message: send it again",
            }),
            None if self.withdraw() => Err(timeout()),
            // A receiver is at it: it takes no longer than a copy.
            None => {
                let taken = settle(block.patience, || {
                    (self.consumed.load(Ordering::Acquire) != 0).then_some(())
                });
                taken.ok_or_else(timeout)
            }
        }
    }

    /// Takes the message back; `false`: a receiver has it.
    fn withdraw(&self) -> bool {
        if self.consumed.load(Ordering::Acquire) != 0 {
            return false;
        }
        // AcqRel: either we take it back or a Rust receiver takes it.
        self.ready
            .compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the message that is there, so that its sender cannot take it back;
    /// without turns the one receiver has it anyway.
    fn claim(&self) -> bool {
        !self.receive_turn.is_kept()
            // AcqRel: pairs with `withdraw`.
            || self
                .ready
                .compare_exchange(1, TAKEN, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Frees the slot from a Rust receiver that died while it copied.
    fn free_dead_receiver(&self) -> bool {
        let Some(turn) = &self.receive_turn.word else {
            return false;
        };
        let holder = turn.load(Ordering::Relaxed);
        holder != 0
            && !process::is_alive_stamped(holder >> 32, holder)
            && self
                .ready
                .compare_exchange(TAKEN, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// With the turn: waits for a message and copies it.
    fn receive(
        &self,
        block: &Block,
        into: &mut [u8],
        deadline: Deadline,
        got: Got,
    ) -> Result<(), OpError> {
        if got == Got::Inherited {
            // What a predecessor was copying when it died is still there.
            let _ = self
                .ready
                .compare_exchange(TAKEN, 1, Ordering::AcqRel, Ordering::Relaxed);
        }
        let look = || {
            let seen = self.now();
            // The sign first: what was sent before it is still received.
            let end = self.is_closed();
            // Acquire: pairs with the sender's release.
            if self.ready.load(Ordering::Acquire) == 1 && self.claim() {
                return Ok(Look::Ready(()));
            }
            if end {
                return Err(OpError::Closed {
                    attempt: RECEIVE,
                    on: block.label.clone(),
                });
            }
            Ok(Look::Sleep(seen))
        };
        Wait::new(&self.slot, Sleepers::Counted, look, || Ok(None))
            .run(block.waiter, deadline)?
            .ok_or_else(|| OpError::Timeout {
                attempt: RECEIVE,
                on: block.label.clone(),
            })?;
        let loaded = self.data.read(0, into);
        debug_assert!(loaded.is_ok(), "as long as the element");
        // Release: pairs with the sender's acquire; our copy is over.
        self.consumed.store(1, Ordering::Release);
        self.ready.store(0, Ordering::Release);
        self.wake();
        Ok(())
    }
}

/// Counts somebody while it waits, also if it gives up.
struct Counted<'a>(&'a Word32);

impl<'a> Counted<'a> {
    fn new(word: &'a Word32) -> Self {
        // Relaxed: an update, so a barrier between this and the looks.
        word.fetch_add(1, Ordering::Relaxed);
        Self(word)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Python {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire) != 0
    }

    /// Whether a message may be put into the queue now.
    fn has_room(&self) -> bool {
        let waits = self.queue.len();
        if self.limit > 0 {
            return waits < self.limit;
        }
        // A rendezvous: somebody waits for it.
        let receivers = self.receivers.load(Ordering::Acquire).cast_signed();
        i64::from(waits) < i64::from(receivers)
    }

    fn send(&self, block: &Block, message: &[u8], deadline: Deadline) -> Result<(), OpError> {
        let closed = || OpError::Closed {
            attempt: SEND,
            on: block.label.clone(),
        };
        if self.is_closed() {
            return Err(closed());
        }
        if self.has_room() && self.queue.try_push(message) {
            return Ok(());
        }
        let _counted = Counted::new(&self.senders);
        let (ended, room) = (|| self.is_closed(), || self.has_room());
        self.queue.push_gated(message, SEND, deadline, ended, room)
    }

    fn receive(&self, into: &mut [u8], deadline: Deadline) -> Result<(), OpError> {
        let closed = || self.is_closed();
        if self.queue.try_pop(into) {
            return Ok(());
        }
        let _counted = Counted::new(&self.receivers);
        self.queue.pop_until(into, RECEIVE, deadline, closed)
    }
}

impl<T: Element> Channel<T> {
    const WHAT: &'static str = "channel";

    fn of(kind: Kind, block: &Block) -> Self {
        Self {
            kind,
            block: block.clone(),
            _element: PhantomData,
        }
    }

    /// Creates a channel for `capacity` messages in the C++ format; 0: each send
    /// waits for its receiver. Other capacities are rounded up to a power of two.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, the capacity is too large, or
    /// it does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let head = Part {
            name: Memory::derived(Self::WHAT, name, suffix::CHANNEL_HEADER)?,
            size: header::SIZE,
        };
        if capacity == 0 {
            let layout = SlotLayout::new(size, align).map_err(memory.layout_error(&label))?;
            let cell = Part {
                name: Memory::derived(Self::WHAT, name, suffix::CHANNEL_SLOT)?,
                size: layout.size(),
            };
            return memory.create_entries(&label, &[head, cell], |blocks| {
                blocks[0].fill(0, &ChannelHeader::new(0).to_bytes())?;
                let rendezvous = Rendezvous::over(&blocks[0], &blocks[1], layout)?;
                let kind = Kind::Rendezvous(Arc::new(rendezvous));
                Ok(Self::of(kind, &blocks[0]))
            });
        }
        let layout = QueueLayout::new(capacity, size).map_err(memory.layout_error(&label))?;
        let buffer = Part {
            name: Memory::derived(Self::WHAT, name, suffix::CHANNEL_BUFFER)?,
            size: layout.size(),
        };
        memory.create_entries(&label, &[head, buffer], |blocks| {
            blocks[0].fill(0, &ChannelHeader::new(layout.capacity).to_bytes())?;
            let kind = Kind::Buffered {
                closed: blocks[0].word8(header::CLOSED)?,
                queue: Arc::new(RawQueue::init(&blocks[1], layout)?),
            };
            Ok(Self::of(kind, &blocks[0]))
        })
    }

    /// Creates a channel for `capacity` messages in the Python format; 0: a send
    /// waits until a receiver waits.
    ///
    /// # Errors
    ///
    /// As [`Channel::create`].
    pub fn create_python(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout = QueueLayout::new(capacity.max(2), shape::<T>().0)
            .map_err(memory.layout_error(&label))?;
        let parts = [
            Part {
                name: name.to_owned(),
                size: layout.size(),
            },
            Part {
                name: Memory::derived(Self::WHAT, name, suffix::CHANNEL_SYNC)?,
                size: sync::SIZE,
            },
        ];
        memory.create_entries(&label, &parts, |blocks| {
            // At most 2^31, or there would be no such queue.
            let limit = capacity as u32;
            blocks[1].fill(0, &ChannelSync::new(limit).to_bytes())?;
            let queue = RawQueue::init(&blocks[0], layout)?;
            Self::python(&blocks[1], queue, limit)
        })
    }

    fn python(block: &Block, queue: RawQueue, limit: u32) -> Result<Self, Error> {
        let kind = Kind::Python(Arc::new(Python {
            senders: block.word32(sync::SENDERS)?,
            receivers: block.word32(sync::RECEIVERS)?,
            closed: block.word32(sync::CLOSED)?,
            limit,
            queue,
        }));
        Ok(Self::of(kind, block))
    }

    /// Opens a channel of either format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its messages have another size, or it is
    /// damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let entry = |suffix| -> Result<Option<Block>, Error> {
            let Ok(name) = derived(name, suffix) else {
                return Ok(None);
            };
            match memory.open_entry(&name, &label) {
                Err(Error::NotFound { .. }) => Ok(None),
                found => found.map(Some),
            }
        };
        let sized = |block: Block, expected: u64| -> Result<Block, Error> {
            if block.size as u64 == expected {
                Ok(block)
            } else {
                Err(block.mismatch(ImageError::Size {
                    structure: Self::WHAT,
                    found: block.size as u64,
                    expected,
                }))
            }
        };
        if let Some(head) = entry(suffix::CHANNEL_HEADER)? {
            let head = sized(head, header::SIZE)?;
            if let Some(cell) = entry(suffix::CHANNEL_SLOT)? {
                let layout = SlotLayout::new(size, align).map_err(memory.layout_error(&label))?;
                layout
                    .check(cell.size as u64)
                    .map_err(|source| cell.mismatch(source))?;
                let rendezvous = Rendezvous::over(&head, &cell, layout)?;
                return Ok(Self::of(Kind::Rendezvous(Arc::new(rendezvous)), &head));
            }
            let buffer =
                entry(suffix::CHANNEL_BUFFER)?.ok_or_else(|| memory.not_found(label.clone()))?;
            let kind = Kind::Buffered {
                closed: head.word8(header::CLOSED)?,
                queue: Arc::new(RawQueue::open_block(&buffer, Some(size))?),
            };
            return Ok(Self::of(kind, &head));
        }
        let block = entry(suffix::CHANNEL_SYNC)?.ok_or_else(|| memory.not_found(label.clone()))?;
        let block = sized(block, sync::SIZE)?;
        let bytes: [u8; 16] = block.header()?;
        let state = ChannelSync::read(&bytes).map_err(|source| block.mismatch(source))?;
        let buffer = memory.open_entry(name, &label)?;
        let queue = RawQueue::open_block(&buffer, Some(size))?;
        Self::python(&block, queue, state.capacity.get())
    }

    /// Opens the channel, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Channel::open`] and [`Channel::create`].
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, capacity),
        )
    }

    /// Which of the two formats it has.
    pub const fn dialect(&self) -> Dialect {
        match self.kind {
            Kind::Python(_) => Dialect::Python,
            Kind::Buffered { .. } | Kind::Rendezvous(_) => Dialect::Cpp,
        }
    }

    /// Sends, waiting without end for room or, unbuffered, for a receiver.
    ///
    /// # Errors
    ///
    /// [`OpError::Closed`], or [`OpError::Stuck`] as for a
    /// [`Queue`](crate::Queue); the message comes back.
    pub fn send(&self, message: T) -> Result<(), Refused<T>> {
        self.send_within(message, Deadline::never())
    }

    /// Sends if that needs no waiting. Unbuffered, a receiver must be waiting,
    /// and the hand-over may still take the moment that its copy takes.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] when it would wait, [`OpError::Closed`]; the message
    /// comes back.
    pub fn try_send(&self, message: T) -> Result<(), Refused<T>> {
        if let Kind::Rendezvous(rendezvous) = &self.kind
            && rendezvous.receivers.load(Ordering::Acquire).cast_signed() > 0
        {
            // A receiver that waits takes it in no time.
            let soon = std::time::Duration::from_millis(20);
            return self.send_within(message, soon);
        }
        self.send_within(message, Deadline::now())
    }

    /// Sends, waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], [`OpError::Closed`], [`OpError::Stuck`]; the message
    /// comes back.
    #[doc(alias = "send_timeout")]
    pub fn send_within(&self, message: T, deadline: impl Into<Deadline>) -> Result<(), Refused<T>> {
        let (bytes, deadline) = (message.as_bytes(), deadline.into());
        let closed = || OpError::Closed {
            attempt: SEND,
            on: self.block.label.clone(),
        };
        let sent = match &self.kind {
            Kind::Buffered {
                closed: word,
                queue,
            } => {
                let end = || word.load(Ordering::Acquire) != 0;
                if end() {
                    Err(closed())
                } else {
                    // The sign of its end also ends the wait for room.
                    queue.push_until(bytes, SEND, deadline, end)
                }
            }
            Kind::Rendezvous(rendezvous) => {
                let _counted = Counted::new(&rendezvous.senders);
                let ended = || rendezvous.is_closed().then(closed);
                let turn = &rendezvous.send_turn;
                match turn.wait(&self.block, deadline, ended) {
                    Ok(Some(_)) => {
                        let sent = rendezvous.send(&self.block, bytes, deadline);
                        turn.give(&self.block);
                        sent
                    }
                    Ok(None) => Err(OpError::Timeout {
                        attempt: SEND,
                        on: self.block.label.clone(),
                    }),
                    Err(error) => Err(error),
                }
            }
            Kind::Python(python) => python.send(&self.block, bytes, deadline),
        };
        sent.map_err(|error| Refused {
            value: message,
            error,
        })
    }

    /// Receives, waiting for a message without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Closed`] when it is closed and empty, or [`OpError::Stuck`].
    #[doc(alias = "recv")]
    pub fn receive(&self) -> Result<T, OpError> {
        self.receive_within(Deadline::never())
    }

    /// Receives if a message is there.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] when there is none, [`OpError::Closed`].
    #[doc(alias = "try_recv")]
    pub fn try_receive(&self) -> Result<T, OpError> {
        self.receive_within(Deadline::now())
    }

    /// Receives, waiting for a message until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], [`OpError::Closed`] when it is closed and empty,
    /// [`OpError::Stuck`].
    #[doc(alias = "recv_timeout")]
    pub fn receive_within(&self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        let mut message = T::new_zeroed();
        let (into, deadline) = (message.as_mut_bytes(), deadline.into());
        match &self.kind {
            Kind::Buffered { closed, queue } => {
                let end = || closed.load(Ordering::Acquire) != 0;
                queue.pop_until(into, RECEIVE, deadline, end)?;
            }
            Kind::Rendezvous(rendezvous) => {
                let _counted = Counted::new(&rendezvous.receivers);
                let ended = || {
                    rendezvous.is_closed().then(|| OpError::Closed {
                        attempt: RECEIVE,
                        on: self.block.label.clone(),
                    })
                };
                let turn = &rendezvous.receive_turn;
                let Some(got) = turn.wait(&self.block, deadline, ended)? else {
                    return Err(OpError::Timeout {
                        attempt: RECEIVE,
                        on: self.block.label.clone(),
                    });
                };
                let received = rendezvous.receive(&self.block, into, deadline, got);
                turn.give(&self.block);
                received?;
            }
            Kind::Python(python) => python.receive(into, deadline)?,
        }
        Ok(message)
    }

    /// Receives one message after the other until the channel is closed and
    /// empty.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.receive().ok())
    }

    /// Refuses further sends, and ends the waiting of all.
    pub fn close(&self) {
        match &self.kind {
            Kind::Buffered { closed, queue } => {
                closed.store(1, Ordering::Release);
                queue.wake_all();
            }
            Kind::Rendezvous(rendezvous) => {
                rendezvous.closed.store(1, Ordering::Release);
                rendezvous.slot.wake(u32::MAX);
                for turn in [&rendezvous.send_turn, &rendezvous.receive_turn] {
                    if let Some(low) = &turn.low {
                        low.wake(u32::MAX);
                    }
                }
            }
            Kind::Python(python) => {
                python.closed.store(1, Ordering::Release);
                python.queue.wake_all();
            }
        }
    }

    /// Whether it was closed; messages may still be there.
    pub fn is_closed(&self) -> bool {
        match &self.kind {
            Kind::Buffered { closed, .. } => closed.load(Ordering::Acquire) != 0,
            Kind::Rendezvous(rendezvous) => rendezvous.is_closed(),
            Kind::Python(python) => python.is_closed(),
        }
    }

    /// The messages that wait; with others at work, of a moment ago.
    pub fn len(&self) -> usize {
        match &self.kind {
            Kind::Buffered { queue, .. } => queue.len() as usize,
            Kind::Rendezvous(rendezvous) => {
                usize::from(rendezvous.ready.load(Ordering::Acquire) == 1)
            }
            Kind::Python(python) => python.queue.len() as usize,
        }
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages that may wait; 0: each send waits for its receiver.
    pub fn capacity(&self) -> usize {
        match &self.kind {
            Kind::Buffered { queue, .. } => queue.capacity() as usize,
            Kind::Rendezvous(_) => 0,
            Kind::Python(python) => python.limit as usize,
        }
    }

    /// Restores service after a process died half-way through a send or receive
    /// of a buffered channel; see [`Queue::repair`](crate::Queue::repair).
    pub fn repair(&self) -> crate::Repair {
        match &self.kind {
            Kind::Buffered { queue, .. } => queue.repair(),
            Kind::Python(python) => python.queue.repair(),
            Kind::Rendezvous(rendezvous) => {
                rendezvous.ready.store(0, Ordering::Release);
                for turn in [&rendezvous.send_turn, &rendezvous.receive_turn] {
                    if let Some(word) = &turn.word {
                        word.store(0, Ordering::Release);
                    }
                }
                crate::Repair::default()
            }
        }
    }
}
