//! The side that creates a buffer and receives frames.

use crate::{
    BufferConfig, CreateError, MetadataError, ReadError, chain, lend,
    lifecycle::{self, Owned},
    settle::{self, Unsettled},
    shared::{Release, Shared, index},
    status::{BufferStatus, ReaderStats},
};
use lock_api::RawMutex;
use polyshm_platform::{
    self as platform, Deadline, LIVENESS_SLICE, LentBytes, LocalLock, OutOfRange, Pace, WaitSource,
    Waiter, process,
    sync::{Ordering, spin_loop},
};
use polyshm_wire::zerobuffer::{
    FRAME_HEADER_SIZE, ImageError, METADATA_PREFIX_SIZE, check_frame, check_metadata,
};
use std::{collections::VecDeque, fmt, ops::Deref, sync::Arc, time::Duration};

/// The reader of a buffer: it creates the buffer, owns its name, and receives
/// frames in place.
///
/// A frame is a slice into the ring. Several may be held at once and released
/// in any order; their room goes back to the writer in ring order (format,
/// section 8.7). Closing (or dropping) the reader removes the buffer.
///
/// # Threads
///
/// A `Reader` may be moved to another thread but not shared: then its
/// bookkeeping costs no atomics. [`Reader::into_sync`] gives a [`SyncReader`]
/// that many threads can read from at once; each frame goes to one of them.
///
/// # Memory ordering
///
/// What the writer did before it committed a frame happened before
/// [`Reader::read`] returns it. What this reader does with a frame before
/// dropping it happens before the writer uses its bytes again.
///
/// # Example
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zerobuffer::{BufferConfig, ReadError, Reader, Writer};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-reader-{}", std::process::id());
/// let reader = Reader::create(&name, &BufferConfig::default())?;
///
/// let mut writer = Writer::open(&name)?; // usually in another process
/// writer.write(b"one frame")?;
/// drop(writer);
///
/// let frame = reader.read(Duration::from_secs(1))?;
/// assert_eq!((&*frame, frame.sequence()), (&b"one frame"[..], 1));
/// drop(frame); // gives its room back
///
/// assert!(matches!(reader.read(Duration::from_secs(1)), Err(ReadError::WriterClosed { .. })));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<L: RawMutex = LocalLock> {
    core: Core,
    state: lock_api::Mutex<L, State>,
}

/// What closes the buffer when it is dropped.
struct Core {
    shared: Shared,
    waiter: Waiter,
    /// The objects behind the name; none for a buffer on the heap.
    owned: Option<Owned>,
    /// The process that created the buffer: a forked child must not close it.
    own: u64,
    closed: bool,
}

/// A [`Reader`] that threads can share.
pub type SyncReader = Reader<parking_lot::RawMutex>;

struct State {
    /// The number of the next frame.
    expected: u64,
    /// Where we left the read position, in 0..size; unknown at first and after
    /// the buffer was put in order. Only a writer that rewinds moves it, to 0.
    cursor: Option<u64>,
    /// Taken off the ring and not yet given back, oldest first.
    held: VecDeque<Held>,
    /// The id of the front of `held`; ids count up by one.
    front: u64,
    /// Bytes of all of `held`.
    held_bytes: u64,
    /// Frames and markers taken off; mirrored to `read_count`.
    items: u64,
    /// The release word as it was last stored.
    release: Release,
    /// Where the positions were when the buffer was last put in order and
    /// nothing was found to read.
    buried: Option<(u64, u64)>,
    /// A writer has been seen, so that its absence is an end.
    writer_seen: bool,
    /// The writer that was found dead, and the number that its successor's
    /// frames begin with: earlier ones are its own, still to be read.
    died: Option<(u64, u64)>,
    /// Of looks at the writer's process.
    pace: Pace,
    /// The state after which nothing can be read any more.
    fault: Option<Fault>,
    stats: ReaderStats,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u64,
    /// The ring position after it.
    end: u64,
    /// `State::items` after it.
    items: u64,
    released: bool,
}

#[derive(Clone, Debug)]
enum Fault {
    Sequence { expected: u64, got: u64 },
    Corrupt(ImageError),
    System(Arc<platform::Error>),
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Self {
        Self::Corrupt(error)
    }
}

impl From<platform::Error> for Fault {
    fn from(error: platform::Error) -> Self {
        Self::System(Arc::new(error))
    }
}

impl From<Unsettled> for Fault {
    fn from(error: Unsettled) -> Self {
        match error {
            Unsettled::Damaged(error) => error.into(),
            Unsettled::System(error) => error.into(),
        }
    }
}

/// A frame taken off the ring: where, and under which id it is held.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: u64,
    length: u64,
    sequence: u64,
    id: u64,
}

impl<L: RawMutex> fmt::Debug for Reader<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("name", &self.core.shared.name)
            .field("layout", &self.core.shared.layout)
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// Creates the buffer `name` and becomes its reader.
    ///
    /// First removes what dead readers left, of this name and (unless the
    /// configuration says no) of others. A writer can attach as soon as this
    /// returns. `name` becomes a file name: no slash, at most 245 bytes.
    ///
    /// # Errors
    ///
    /// [`CreateError::ReaderAlreadyConnected`] when the name has a living
    /// reader; see [`CreateError`] for the others. Nothing is left behind.
    pub fn create(name: &str, config: &BufferConfig) -> Result<Self, CreateError> {
        let (shared, owned) = lifecycle::create(name, config)?;
        tracing::debug!(
            buffer = name,
            payload_size = shared.size(),
            "buffer created"
        );
        Ok(Self::over(
            shared,
            Waiter::new(config.wait_strategy),
            Some(owned),
            1,
        ))
    }

    pub(crate) fn over(
        shared: Shared,
        waiter: Waiter,
        owned: Option<Owned>,
        expected: u64,
    ) -> Self {
        let state = State {
            expected,
            cursor: None,
            held: VecDeque::with_capacity(64),
            front: 0,
            held_bytes: 0,
            items: 0,
            release: Release::new(0, 0),
            writer_seen: false,
            died: None,
            buried: None,
            // Half a slice: the waiter asks once a slice, and must not come too early.
            pace: Pace::new(LIVENESS_SLICE / 2),
            fault: None,
            stats: ReaderStats::default(),
        };
        Self {
            core: Core {
                shared,
                waiter,
                owned,
                own: process::current(),
                closed: false,
            },
            state: lock_api::Mutex::new(state),
        }
    }

    /// Makes the reader shareable between threads.
    #[must_use]
    pub fn into_sync(self) -> SyncReader {
        Reader {
            core: self.core,
            state: lock_api::Mutex::new(self.state.into_inner()),
        }
    }
}

impl<L: RawMutex> Reader<L> {
    /// Waits for the next frame and lends it.
    ///
    /// Blocks for at most `timeout` (a [`Duration`] or a [`Deadline`]); a zero
    /// timeout looks once. While frames are there it makes no system call and
    /// reads no clock. A dead writer is noticed within 100 ms.
    ///
    /// # Errors
    ///
    /// [`ReadError::Timeout`]; [`ReadError::WriterClosed`] or
    /// [`ReadError::WriterDead`] once every committed frame was read and no
    /// writer is attached; the others are final.
    pub fn read(&self, timeout: impl Into<Deadline>) -> Result<Frame<'_, L>, ReadError> {
        match self.core.waiter.wait(&mut Arrival::at(self), timeout) {
            Ok(Some(taken)) => self.lend(taken),
            Ok(None) => Err(ReadError::Timeout {
                name: self.core.shared.name.clone(),
            }),
            Err(ended) => Err(self.error(ended)),
        }
    }

    /// The next frame if there is one. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`], without the timeout.
    pub fn try_read(&self) -> Result<Option<Frame<'_, L>>, ReadError> {
        let mut next = Arrival::at(self);
        let found = match next.poll() {
            Ok(None) => next.check(),
            found => found,
        };
        match found {
            Ok(Some(taken)) => self.lend(taken).map(Some),
            Ok(None) => Ok(None),
            Err(ended) => Err(self.error(ended)),
        }
    }

    /// The frames as they come, each waited for at most `timeout`. Ends when
    /// the writer has closed and all is read, and after any other error but a
    /// timeout, which is the last item.
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// # use polyshm_zerobuffer::{BufferConfig, Reader, Writer};
    /// # use std::time::Duration;
    /// # let name = format!("polyshm-doc-frames-{}", std::process::id());
    /// let reader = Reader::create(&name, &BufferConfig::default())?;
    /// let mut writer = Writer::open(&name)?;
    /// writer.write(b"first")?;
    /// writer.write(b"second")?;
    /// writer.close()?;
    /// let mut bytes = 0;
    /// for frame in reader.frames(Duration::from_secs(1)) {
    ///     bytes += frame?.len();
    /// }
    /// assert_eq!(bytes, 11);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn frames(&self, timeout: Duration) -> Frames<'_, L> {
        Frames {
            reader: self,
            timeout,
            ended: false,
        }
    }

    /// A copy of the metadata, once the writer has set it.
    ///
    /// A copy, since other implementations' second writers may overwrite it.
    ///
    /// # Errors
    ///
    /// [`MetadataError::Corrupt`] when its lengths do not fit its block.
    pub fn metadata(&self) -> Result<Option<Vec<u8>>, MetadataError> {
        let shared = &self.core.shared;
        metadata(shared).map_err(|source| MetadataError::Corrupt {
            name: shared.name.clone(),
            source,
        })
    }

    /// Waits until the writer has set the metadata; `None` when it did not
    /// within `timeout`. The format has no event for it: this looks each
    /// millisecond, also while no writer is attached.
    ///
    /// # Errors
    ///
    /// As [`Reader::metadata`].
    pub fn wait_for_metadata(
        &self,
        timeout: impl Into<Deadline>,
    ) -> Result<Option<Vec<u8>>, MetadataError> {
        let shared = &self.core.shared;
        // Acquire: pairs with the writer's release store of a complete block.
        lifecycle::look_until(timeout.into(), || {
            shared.metadata_written.load(Ordering::Acquire) > 0
        });
        self.metadata()
    }

    /// Whether a writer is attached and its process lives.
    pub fn is_writer_connected(&self) -> bool {
        self.core.writer_is_connected()
    }

    /// Waits until a writer is attached; gives whether one is.
    pub fn wait_for_writer(&self, timeout: impl Into<Deadline>) -> bool {
        lifecycle::look_until(timeout.into(), || self.is_writer_connected())
    }

    /// The buffer's name.
    pub fn name(&self) -> &str {
        &self.core.shared.name
    }

    /// The longest frame, in bytes.
    pub fn max_frame(&self) -> u64 {
        self.core.shared.layout.max_frame()
    }

    /// What this reader has received.
    pub fn stats(&self) -> ReaderStats {
        self.state.lock().stats
    }

    /// The buffer's state at this moment.
    pub fn status(&self) -> BufferStatus {
        BufferStatus::of(&self.core.shared)
    }

    /// Closes and removes the buffer; dropping the reader does the same and
    /// keeps errors to itself. A waiting writer learns it at once.
    ///
    /// # Errors
    ///
    /// A part could not be removed; the next reader of this name removes it.
    pub fn close(mut self) -> Result<(), platform::Error> {
        self.core.close()
    }

    fn lend(&self, taken: Taken) -> Result<Frame<'_, L>, ReadError> {
        match lend::frame(&self.core.shared, taken.at, taken.length) {
            Ok(bytes) => Ok(Frame {
                reader: self,
                bytes: Some(bytes),
                sequence: taken.sequence,
                id: taken.id,
            }),
            // The range was checked when the frame was taken.
            Err(source) => Err(self.error(Ended::Fault(source.into()))),
        }
    }

    fn error(&self, ended: Ended) -> ReadError {
        let name = self.core.shared.name.clone();
        match ended {
            Ended::Closed => ReadError::WriterClosed { name },
            Ended::Died(pid) => ReadError::WriterDead { name, pid },
            Ended::Fault(fault) => {
                self.state.lock().fault.get_or_insert_with(|| fault.clone());
                match fault {
                    Fault::Sequence { expected, got } => ReadError::Sequence {
                        name,
                        expected,
                        got,
                    },
                    Fault::Corrupt(source) => ReadError::Corrupt { name, source },
                    Fault::System(source) => ReadError::System { name, source },
                }
            }
        }
    }

    /// Marks a frame as released and gives back what is now released in order.
    fn release(&self, id: u64) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(at) = id.checked_sub(state.front) else {
            return;
        };
        if let Some(held) = state.held.get_mut(at as usize) {
            held.released = true;
        }
        if !self.core.give_back_released(state) {
            // Somebody gave credit that was not theirs to give.
            let found = self.core.shared.free.load(Ordering::Relaxed);
            let payload_size = self.core.shared.size();
            state
                .fault
                .get_or_insert(Fault::Corrupt(ImageError::FreeBytes {
                    found,
                    payload_size,
                }));
        }
    }
}

impl Core {
    /// Takes the frame at the read position off the ring, with a token in hand.
    ///
    /// Every shared value is loaded once and checked before anything changes.
    fn take(&self, state: &mut State) -> Result<Take, Fault> {
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        let shared = &self.shared;
        let size = shared.size();
        let Some((read, write)) = self.positions(state)? else {
            return Ok(Take::Nothing);
        };
        if read == write && !self.is_full(state)? {
            // The token goes back: it may be a frame's.
            shared.data_ready.post()?;
            return Ok(Take::Unsettled);
        }
        let moved = state.cursor.filter(|&left| left != read);
        // A writer rewinds an empty ring only, to 0.
        if let Some(expected) = moved.filter(|_| read != 0 || !state.held.is_empty()) {
            return Err(ImageError::ReadPositionMoved {
                found: read,
                expected,
            }
            .into());
        }
        let Some(next) = self.locate(read, write)? else {
            return Ok(Take::Nothing);
        };
        // 1 is a new writer that starts over, as other implementations do; but
        // one that rewinds counts on.
        let due = next.sequence == state.expected;
        let restarts = !due && next.sequence == 1 && moved.is_none();
        if !due && !restarts {
            return Err(Fault::Sequence {
                expected: state.expected,
                got: next.sequence,
            });
        }
        let tail = next.marker.map_or(0, |marker| marker.tail);
        let held = state.held_bytes + tail + FRAME_HEADER_SIZE + next.length;
        // What is held and what is pending cannot be more than the ring; nor
        // more frames than the release word counts.
        if held > size || state.held.len() + 1 >= Release::MAX_HELD {
            return Err(ImageError::FreeBytes {
                found: 0,
                payload_size: size,
            }
            .into());
        }

        if let Some(marker) = next.marker {
            state.items += u64::from(marker.counted);
            state.hold(marker.tail, 0, true);
        }
        // After an exact fit both 0 and the size mean the start. A Python writer
        // whose own position is the size only wraps when it finds ours the same
        // (section 13.3). Relaxed: it is compared, not trusted.
        let exact = next.end == size;
        let like_writer = exact && shared.write_pos.load(Ordering::Relaxed) == size;
        let read_pos = if exact && !like_writer { 0 } else { next.end };
        let end = if exact { 0 } else { next.end };
        state.items += 1;
        let id = state.hold(FRAME_HEADER_SIZE + next.length, end, false);
        state.expected = next.sequence.wrapping_add(1);
        state.cursor = Some(end);
        state.buried = None;
        state.writer_seen = true;
        if restarts
            || state
                .died
                .is_some_and(|(_, successor)| next.sequence >= successor)
        {
            state.died = None;
        }
        state.stats.frames += 1;
        state.stats.bytes += next.length;

        // Release, all three: pair with the acquire loads of a writer that takes
        // over. The number first: who sees the position sees it.
        shared.last_sequence.store(next.sequence, Ordering::Release);
        shared.read_pos.store(read_pos, Ordering::Release);
        shared.read_count.store(state.items, Ordering::Release);
        if next.marker.is_some() && !self.give_back_released(state) {
            let found = shared.free.load(Ordering::Relaxed);
            return Err(ImageError::FreeBytes {
                found,
                payload_size: size,
            }
            .into());
        }
        Ok(Take::Frame(Taken {
            at: next.at,
            length: next.length,
            sequence: next.sequence,
            id,
        }))
    }

    /// Both positions; `None` when all credit is there or with us, so that
    /// nothing is pending whatever they are (a rewind keeps it so until both
    /// are stored).
    ///
    /// Equal positions mean one lap exactly, or a writer between its stores of
    /// credit and position: that passes, so it is waited for, briefly.
    #[inline]
    fn positions(&self, state: &State) -> Result<Option<(u64, u64)>, Fault> {
        let shared = &self.shared;
        for _ in 0..Self::SETTLING {
            // The credit first: positions loaded after it are not older.
            let free = shared.load_free()?;
            let read = shared.load_read_pos()?;
            let write = shared.load_write_pos()?;
            let Some(unread) = (shared.size() - state.held_bytes).checked_sub(free) else {
                return Err(ImageError::FreeBytes {
                    found: free,
                    payload_size: shared.size() - state.held_bytes,
                }
                .into());
            };
            if unread == 0 {
                return Ok(None);
            }
            if read != write || free + state.held_bytes == 0 {
                return Ok(Some((read, write)));
            }
            spin_loop();
        }
        Ok(Some((shared.load_read_pos()?, shared.load_write_pos()?)))
    }

    /// Polls of a writer that is between two stores.
    const SETTLING: u32 = if cfg!(loom) { 4 } else { 50 };

    /// Whether everything that we do not hold is pending.
    fn is_full(&self, state: &State) -> Result<bool, Fault> {
        Ok(self.shared.load_free()? + state.held_bytes == 0)
    }

    /// Finds and checks the frame at `read`, past a marker if there is one;
    /// `None` when nothing follows the marker yet.
    #[inline]
    fn locate(&self, read: u64, write: u64) -> Result<Option<Next>, ImageError> {
        let (shared, size) = (&self.shared, self.shared.size());
        let wraps = read >= write;
        let limit = if wraps { size } else { write };
        // A tail too short for a marker is an implied one (section 8.4).
        let implied = wraps && size - read < FRAME_HEADER_SIZE;
        if !implied {
            let header = chain::header(shared, read, limit)?;
            if header.length > 0 {
                let end = check_frame(limit, read, header.length)?;
                return Ok(Some(Next::at(read, header, end, None)));
            }
        }
        if !wraps || read == 0 {
            return Err(ImageError::UnexpectedMarker { offset: read });
        }
        if write == 0 {
            // Other writers store the marker before the frame behind it.
            return Ok(None);
        }
        let marker = Marker {
            tail: size - read,
            counted: !implied,
        };
        let header = chain::header(shared, 0, write)?;
        if header.length == 0 {
            return Err(ImageError::UnexpectedMarker { offset: 0 });
        }
        let end = check_frame(write, 0, header.length)?;
        Ok(Some(Next::at(0, header, end, Some(marker))))
    }

    /// Where published frames are in the ring, tokens or not.
    fn unread(&self, state: &State) -> Result<Option<(u64, u64)>, Fault> {
        let free = self.shared.load_free()?;
        let full = free + state.held_bytes == 0;
        let whole = free + state.held_bytes >= self.shared.size();
        let positions = (self.shared.load_read_pos()?, self.shared.load_write_pos()?);
        let moved = positions.0 != positions.1;
        Ok((!whole && (moved || full)).then_some(positions))
    }

    /// Gives back the released items at the front; `false` when the credit
    /// comes out above the ring's size.
    fn give_back_released(&self, state: &mut State) -> bool {
        let mut bytes = 0;
        let mut to = state.release;
        while let Some(held) = state.held.front().filter(|held| held.released) {
            bytes += held.bytes;
            to = Release::new(held.end, held.items);
            state.held.pop_front();
            state.front += 1;
        }
        if bytes == 0 {
            return true;
        }
        state.held_bytes -= bytes;
        let sound = self.shared.give_back(bytes, to);
        state.release = to;
        // A token that the writer has not taken yet will make it look.
        if self
            .shared
            .space_ready
            .value()
            .is_none_or(|tokens| tokens == 0)
        {
            // At its maximum there are tokens enough; nothing else can fail.
            let _ = self.shared.space_ready.post();
        }
        sound
    }

    fn writer_is_connected(&self) -> bool {
        // Acquire: pairs with the writer's claim.
        let pid = self.shared.writer_pid.load(Ordering::Acquire);
        pid != 0 && self.shared.writer_is_alive(pid)
    }

    /// Puts the ring in order after writer `pid` died, or after one that left
    /// (0) a frame without a token. While that lasts the claim is ours, so that
    /// no new writer attaches to a half-mended ring.
    ///
    /// Gives the number that the next writer's frames begin with; `None` when a
    /// writer has come meanwhile.
    fn bury(&self, pid: u64) -> Result<Option<u64>, Fault> {
        let shared = &self.shared;
        // AcqRel: acquire pairs with the dead writer's last stores; release
        // with the next writer's look at the claim.
        let claim =
            shared
                .writer_pid
                .compare_exchange(pid, self.own, Ordering::AcqRel, Ordering::Acquire);
        if claim.is_err() {
            return Ok(None);
        }
        let settled = settle::settle(shared);
        shared.unstamp_writer();
        // Release: what was mended is seen by who attaches next. Other writers
        // claim with a plain store, perhaps over ours: that one stays.
        let _ =
            shared
                .writer_pid
                .compare_exchange(self.own, 0, Ordering::Release, Ordering::Relaxed);
        let next = settled?;
        if pid != 0 {
            tracing::warn!(buffer = %shared.name, pid, "the writer died; its buffer is in order again");
        }
        Ok(Some(next))
    }

    fn close(&mut self) -> Result<(), platform::Error> {
        if std::mem::replace(&mut self.closed, true) || self.own != process::current() {
            return Ok(());
        }
        let shared = &self.shared;
        // Release: our last reads happen before a writer sees that we left.
        shared.reader_pid.store(0, Ordering::Release);
        // Wakes a waiting writer.
        let woken = shared.space_ready.post();
        self.owned.take().map_or(Ok(()), Owned::remove).and(woken)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(buffer = %self.shared.name, %error, "closing the buffer left something behind");
        }
    }
}

/// What a token turned out to stand for.
enum Take {
    Frame(Taken),
    /// No frame; the token is used up.
    Nothing,
    /// A writer is between two stores; the token is back in its place.
    Unsettled,
}

/// A frame that is next, checked and not yet taken.
#[derive(Clone, Copy)]
struct Next {
    at: u64,
    length: u64,
    sequence: u64,
    /// The position after it; in 1..=size.
    end: u64,
    marker: Option<Marker>,
}

impl Next {
    const fn at(at: u64, header: chain::Header, end: u64, marker: Option<Marker>) -> Self {
        Self {
            at,
            length: header.length,
            sequence: header.sequence,
            end,
            marker,
        }
    }
}

/// A wrap met on the way to a frame.
#[derive(Clone, Copy)]
struct Marker {
    tail: u64,
    /// A stored one; implied ones are in nobody's count.
    counted: bool,
}

impl State {
    fn hold(&mut self, bytes: u64, end: u64, released: bool) -> u64 {
        self.held.push_back(Held {
            bytes,
            end,
            items: self.items,
            released,
        });
        self.held_bytes += bytes;
        self.front + self.held.len() as u64 - 1
    }
}

/// Why no frame comes any more.
enum Ended {
    Closed,
    Died(u64),
    Fault(Fault),
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Waits for the next frame.
struct Arrival<'r, L: RawMutex> {
    reader: &'r Reader<L>,
    /// Where the next frame is likely to be.
    cursor: u64,
}

impl<'r, L: RawMutex> Arrival<'r, L> {
    #[inline]
    fn at(reader: &'r Reader<L>) -> Self {
        Self {
            reader,
            cursor: reader.state.lock().cursor.unwrap_or(0),
        }
    }
}

impl<L: RawMutex> Arrival<'_, L> {
    /// With a token in hand.
    fn with_token(&self) -> Result<Option<Taken>, Ended> {
        let core = &self.reader.core;
        let taken = core.take(&mut self.reader.state.lock())?;
        match taken {
            Take::Frame(taken) => Ok(Some(taken)),
            // Tokens without frames come from a writer that closed.
            Take::Nothing => self.closed(true),
            Take::Unsettled => Ok(None),
        }
    }

    /// Whether an orderly writer left and all is read.
    fn closed(&self, had_token: bool) -> Result<Option<Taken>, Ended> {
        let core = &self.reader.core;
        let mut state = self.reader.state.lock();
        if let Some(fault) = &state.fault {
            return Err(fault.clone().into());
        }
        // Acquire: pairs with the release of a closing writer: what it
        // committed, and its posts, happened before.
        if core.shared.writer_pid.load(Ordering::Acquire) != 0 {
            state.writer_seen = true;
            return Ok(None);
        }
        // One may have come and gone between two looks. Acquire: pairs with its
        // release store of the count.
        state.writer_seen |= had_token || core.shared.written_count.load(Ordering::Acquire) > 0;
        if !state.writer_seen {
            return Ok(None);
        }
        for _ in 0..2 {
            let mut unsettled = false;
            while core.shared.data_ready.try_wait().map_err(Fault::from)? {
                match core.take(&mut state)? {
                    Take::Frame(taken) => return Ok(Some(taken)),
                    Take::Nothing => {}
                    Take::Unsettled => {
                        unsettled = true;
                        break;
                    }
                }
                if core.unread(&state)?.is_none() {
                    core.shared
                        .data_ready
                        .take_up_to(u32::MAX)
                        .map_err(Fault::from)?;
                }
            }
            // A published frame without a token, or stores half done by nobody:
            // somebody died at it, and its successor did not mend it (section
            // 8.9). Once is enough for one place.
            let unread = core.unread(&state)?;
            if !unsettled && (unread.is_none() || unread == state.buried) {
                break;
            }
            if core.bury(0)?.is_none() {
                return Ok(None);
            }
            state.cursor = None;
            state.buried = core.unread(&state)?;
        }
        Err(state
            .died
            .map_or(Ended::Closed, |(pid, _)| Ended::Died(pid)))
    }
}

impl<L: RawMutex> WaitSource for Arrival<'_, L> {
    type Output = Taken;
    type Error = Ended;

    #[inline]
    fn poll(&mut self) -> Result<Option<Taken>, Ended> {
        let shared = &self.reader.core.shared;
        if shared.data_ready.value() == Some(0) {
            return Ok(None);
        }
        // The header's line is on its way while the token is taken and the
        // positions are loaded: its address would be known only then. (More
        // lines at once delay the ones that are needed first.)
        shared.ring.prefetch_read(index(self.cursor));
        if !shared.data_ready.try_wait().map_err(Fault::from)? {
            return Ok(None);
        }
        self.with_token()
    }

    fn glance(&mut self) -> Result<Option<Taken>, Ended> {
        self.closed(false)
    }

    fn park(&mut self, until: Deadline) -> Result<Option<Taken>, Ended> {
        if !self
            .reader
            .core
            .shared
            .data_ready
            .wait_until(until)
            .map_err(Fault::from)?
        {
            return Ok(None);
        }
        self.with_token()
    }

    fn check(&mut self) -> Result<Option<Taken>, Ended> {
        let core = &self.reader.core;
        // Acquire: pairs with the writer's claim.
        let pid = core.shared.writer_pid.load(Ordering::Acquire);
        {
            let mut state = self.reader.state.lock();
            // Looking at a process takes system calls: now and then will do.
            if pid != 0 && state.pace.is_due() {
                state.writer_seen = true;
                if core.shared.writer_is_alive(pid) {
                    state.died = None;
                    return Ok(None);
                }
                // Under the lock: no position of ours moves meanwhile.
                if let Some(next) = core.bury(pid)? {
                    state.cursor = None;
                    state.died = Some((pid, next));
                    state.buried = core.unread(&state)?;
                }
            }
        }
        self.closed(false)
    }
}

/// A frame, in place in the ring. Dropping it gives its room back, in ring
/// order: at once if it is the oldest that is held, otherwise together with
/// the older ones.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// # use polyshm_zerobuffer::{BufferConfig, Reader, Writer};
/// # use std::time::Duration;
/// # let name = format!("polyshm-doc-frame-{}", std::process::id());
/// # let reader = Reader::create(&name, &BufferConfig::default())?;
/// # let mut writer = Writer::open(&name)?;
/// # writer.write(&[1, 2, 3])?;
/// let frame = reader.read(Duration::from_secs(1))?;
/// let sum: u32 = frame.iter().map(|&byte| u32::from(byte)).sum(); // it is a &[u8]
/// assert_eq!((sum, frame.sequence()), (6, 1));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Frame<'r, L: RawMutex = LocalLock> {
    reader: &'r Reader<L>,
    /// Some until drop, which ends the loan before it gives the room back.
    bytes: Option<LentBytes<'r>>,
    sequence: u64,
    id: u64,
}

impl<L: RawMutex> Frame<'_, L> {
    /// The number that the writer gave it: 1, 2, 3 ...
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl<L: RawMutex> Deref for Frame<'_, L> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl<L: RawMutex> AsRef<[u8]> for Frame<'_, L> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<L: RawMutex> fmt::Debug for Frame<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("sequence", &self.sequence)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<L: RawMutex> Drop for Frame<'_, L> {
    #[inline]
    fn drop(&mut self) {
        self.bytes = None;
        self.reader.release(self.id);
    }
}

/// Iterates over frames as they come; see [`Reader::frames`].
pub struct Frames<'r, L: RawMutex = LocalLock> {
    reader: &'r Reader<L>,
    timeout: Duration,
    ended: bool,
}

impl<L: RawMutex> fmt::Debug for Frames<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frames")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl<'r, L: RawMutex> Iterator for Frames<'r, L> {
    type Item = Result<Frame<'r, L>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let result = self.reader.read(self.timeout);
        // Only time may tell otherwise after a timeout.
        self.ended = result.as_ref().is_err_and(|error| !error.is_timeout());
        match result {
            Err(ReadError::WriterClosed { .. }) => None,
            result => Some(result),
        }
    }
}

fn metadata(shared: &Shared) -> Result<Option<Vec<u8>>, ImageError> {
    // Acquire: pairs with the writer's release store of a complete block.
    let written = shared.metadata_written.load(Ordering::Acquire);
    if written == 0 {
        return Ok(None);
    }
    let damaged = |_: OutOfRange| ImageError::MetadataWritten {
        found: written,
        metadata_size: shared.layout.metadata_size(),
    };
    let length = shared.metadata.read_u64(0).map_err(damaged)?;
    let Some(length) = check_metadata(&shared.layout, written, length)? else {
        return Ok(None);
    };
    let mut copy = vec![0; index(length)];
    shared
        .metadata
        .read(index(METADATA_PREFIX_SIZE), &mut copy)
        .map_err(damaged)?;
    Ok(Some(copy))
}
