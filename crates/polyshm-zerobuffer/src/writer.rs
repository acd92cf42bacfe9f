//! The side that attaches and sends frames.

use crate::{
    AttachError, MetadataError, WriteError, WriterConfig, chain, lend, lifecycle,
    place::{Place, distance, place},
    settle::{self, Unsettled},
    shared::Shared,
    status::{BufferStatus, WriterStats},
};
use polyshm_platform::{
    self as platform, Deadline, LIVENESS_SLICE, LentBytesMut, Pace, WaitSource, Waiter, process,
    sync::{Ordering, fence, yield_now},
};
use polyshm_wire::zerobuffer::{
    FRAME_HEADER_SIZE, FrameHeader, ImageError, METADATA_PREFIX_SIZE, OIEB_SIZE,
};
use std::{
    fmt,
    io::IoSlice,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

/// The writer of a buffer: it attaches to one that a reader has created, and
/// sends frames, by copy or in place.
///
/// One writer is attached at a time; another may follow when it has left or
/// died, and goes on with its numbering. Closing (or dropping) the writer
/// leaves all committed frames to the reader.
///
/// # Threads
///
/// Sending takes `&mut self`, so one thread sends at a time; put the writer in
/// a mutex to share it.
///
/// # Memory ordering
///
/// What a thread did before it committed a frame happens before the reader
/// receives that frame.
///
/// # Example
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zerobuffer::{BufferConfig, Reader, Writer};
///
/// let name = format!("polyshm-doc-writer-{}", std::process::id());
/// let reader = Reader::create(&name, &BufferConfig::default())?; // usually in another process
///
/// let mut writer = Writer::open(&name)?;
/// writer.set_metadata(b"format=raw")?;
/// writer.write(b"copied")?;
///
/// let mut frame = writer.reserve(8)?; // in place
/// frame.copy_from_slice(b"in place");
/// frame.commit()?;
/// assert_eq!(writer.stats().frames, 2);
/// # drop(writer); drop(reader);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    shared: Shared,
    waiter: Waiter,
    write_timeout: Duration,
    state: State,
}

#[derive(Debug)]
struct State {
    /// Our own copy: nobody else moves it while we are attached. In 0..size.
    write_pos: u64,
    /// Of the next frame; taken at commit, so an abort leaves no gap.
    sequence: u64,
    /// Frames and markers of all writers, as the shared word counts them.
    written_count: u64,
    metadata_set: bool,
    /// A native reader notes the last number itself.
    native_reader: bool,
    /// Where the reader was at the last write: when it moves, it lives.
    seen_read_pos: u64,
    /// Of looks at the reader's process.
    pace: Pace,
    stats: WriterStats,
    attached: bool,
    /// The process that attached; its claim is what makes the writer's side ours.
    own: u64,
}

impl Writer {
    /// How many frames go out between two looks at stale space tokens.
    const DRAIN_INTERVAL: u64 = 1024;
    /// How long a reader may hold the claim to put the buffer in order.
    const BURIAL: Duration = Duration::from_secs(2);
    /// The same for a reader of this process.
    const OWN_BURIAL: Duration = Duration::from_millis(20);

    /// Attaches to buffer `name`.
    ///
    /// # Errors
    ///
    /// [`AttachError::NotFound`] when there is no such buffer,
    /// [`AttachError::WriterAlreadyConnected`] when a living writer has it; see
    /// [`AttachError`]. While a reader of another process puts the buffer in
    /// order after a dead writer, this waits for it, up to two seconds.
    pub fn open(name: &str) -> Result<Self, AttachError> {
        Self::open_with(name, &WriterConfig::default())
    }

    /// Attaches to buffer `name` with other settings.
    ///
    /// # Errors
    ///
    /// As [`Writer::open`].
    pub fn open_with(name: &str, config: &WriterConfig) -> Result<Self, AttachError> {
        let shared = lifecycle::open(name)?;
        let writer = Self::attach(shared, config)?;
        tracing::debug!(
            buffer = name,
            sequence = writer.state.sequence,
            "writer attached"
        );
        Ok(writer)
    }

    /// Attaches to buffer `name`, waiting up to `timeout` for its reader to
    /// create it.
    ///
    /// # Errors
    ///
    /// As [`Writer::open`], after the timeout when waiting could help.
    pub fn open_within(
        name: &str,
        timeout: impl Into<Deadline>,
        config: &WriterConfig,
    ) -> Result<Self, AttachError> {
        let deadline = timeout.into();
        loop {
            match Self::open_with(name, config) {
                Err(error) if error.is_transient() && !deadline.expired() => {
                    std::thread::sleep(lifecycle::LOOK_INTERVAL);
                }
                result => return result,
            }
        }
    }

    /// Claims the writer's side and puts it in order.
    pub(crate) fn attach(shared: Shared, config: &WriterConfig) -> Result<Self, AttachError> {
        let name = || shared.name.to_string();
        // Acquire: pairs with the reader's release store when it published.
        let reader = shared.reader_pid.load(Ordering::Acquire);
        if reader == 0 || !shared.reader_is_alive(reader) {
            return Err(AttachError::NoReader {
                name: name(),
                pid: reader,
            });
        }
        claim(&shared, reader)?;
        shared.stamp_writer();
        let sequence = match settle::settle(&shared) {
            Ok(sequence) => sequence,
            Err(unsettled) => {
                disclaim(&shared);
                return Err(match unsettled {
                    Unsettled::Damaged(source) => AttachError::Invalid {
                        name: name(),
                        source,
                    },
                    Unsettled::System(source) => AttachError::System {
                        name: name(),
                        source,
                    },
                });
            }
        };
        let write_pos = match shared.load_write_pos() {
            Ok(write_pos) => write_pos,
            Err(source) => {
                disclaim(&shared);
                return Err(AttachError::Invalid {
                    name: name(),
                    source,
                });
            }
        };
        let state = State {
            write_pos,
            sequence,
            // Relaxed: only writers store it, and we are the one.
            written_count: shared.written_count.load(Ordering::Relaxed),
            metadata_set: shared.metadata_written.load(Ordering::Relaxed) > 0,
            native_reader: shared.load_release().is_native(),
            seen_read_pos: u64::MAX,
            pace: Pace::new(LIVENESS_SLICE),
            stats: WriterStats::default(),
            attached: true,
            own: process::current(),
        };
        let waiter = Waiter::new(config.wait_strategy);
        Ok(Self {
            shared,
            waiter,
            write_timeout: config.write_timeout,
            state,
        })
    }

    /// Sends a copy of `data` as one frame, waiting for room up to the
    /// configured timeout. Gives the frame's number.
    ///
    /// While there is room it makes no system call.
    ///
    /// # Errors
    ///
    /// [`WriteError::Full`] after the timeout; a frame that can never fit, and
    /// a reader that is gone, are reported at once.
    pub fn write(&mut self, data: &[u8]) -> Result<u64, WriteError> {
        self.write_within(data, self.write_timeout)
    }

    /// Sends a copy of `data`, waiting for room up to `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn write_within(
        &mut self,
        data: &[u8],
        timeout: impl Into<Deadline>,
    ) -> Result<u64, WriteError> {
        self.write_vectored_within(&[IoSlice::new(data)], timeout)
    }

    /// Sends a copy of `data` if there is room now. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn try_write(&mut self, data: &[u8]) -> Result<u64, WriteError> {
        self.write_within(data, Duration::ZERO)
    }

    /// Sends the parts, one after the other, as one frame.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> Result<u64, WriteError> {
        self.write_vectored_within(parts, self.write_timeout)
    }

    fn write_vectored_within(
        &mut self,
        parts: &[IoSlice<'_>],
        timeout: impl Into<Deadline>,
    ) -> Result<u64, WriteError> {
        // The parts are slices that exist, so their lengths cannot wrap a u64.
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let place = self.find(length, timeout)?;
        let mut at = crate::shared::index(place.at + FRAME_HEADER_SIZE);
        for part in parts {
            self.shared.ring.write(at, part).map_err(|_| {
                let (offset, room) = (place.at, self.shared.size() - place.at);
                corrupt(
                    &self.shared,
                    ImageError::FrameLength {
                        offset,
                        length,
                        room,
                    },
                )
            })?;
            at += part.len();
        }
        commit(&self.shared, &mut self.state, &place, length)
    }

    /// Reserves a frame of `len` bytes in the ring, to be filled in place,
    /// waiting for room up to the configured timeout.
    ///
    /// The bytes are what the ring held before: fill all of them. Nothing is
    /// visible to the reader before [`FrameMut::commit`].
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn reserve(&mut self, len: usize) -> Result<FrameMut<'_>, WriteError> {
        self.reserve_within(len, self.write_timeout)
    }

    /// Reserves a frame of `len` bytes, waiting for room up to `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn reserve_within(
        &mut self,
        len: usize,
        timeout: impl Into<Deadline>,
    ) -> Result<FrameMut<'_>, WriteError> {
        let length = len as u64;
        let place = self.find(length, timeout)?;
        let Self { shared, state, .. } = self;
        let bytes =
            lend::place(shared, &place, length).map_err(|source| corrupt(shared, source))?;
        Ok(FrameMut {
            shared,
            state,
            place,
            bytes,
        })
    }

    /// Reserves a frame of `len` bytes if there is room now. Never blocks.
    ///
    /// # Errors
    ///
    /// As [`Writer::write`].
    pub fn try_reserve(&mut self, len: usize) -> Result<FrameMut<'_>, WriteError> {
        self.reserve_within(len, Duration::ZERO)
    }

    /// Finds a place for a frame, or waits for one.
    #[inline]
    fn find(&mut self, length: u64, timeout: impl Into<Deadline>) -> Result<Place, WriteError> {
        let Self {
            shared,
            state,
            waiter,
            ..
        } = self;
        if length == 0 {
            return Err(WriteError::EmptyFrame {
                name: shared.name.clone(),
            });
        }
        let max = shared.layout.max_frame();
        if length > max {
            return Err(WriteError::FrameTooLarge {
                name: shared.name.clone(),
                len: length,
                max,
            });
        }
        // Both lines will be written; to load them first would fetch them twice.
        shared.free.prefetch_write();
        shared.written_count.prefetch_write();
        let place = place(shared.size(), state.write_pos, FRAME_HEADER_SIZE + length);
        let mut room = Room {
            shared,
            state,
            place,
            inconsistent: None,
            passing: false,
            passes: 0,
        };
        if waiter.wait(&mut room, timeout)?.is_some() {
            return Ok(place);
        }
        Err(WriteError::Full {
            name: shared.name.clone(),
            needed: place.cost,
            free: shared.free.load(Ordering::Relaxed),
        })
    }

    /// Sets the metadata, once in the buffer's life. It may be empty.
    ///
    /// # Errors
    ///
    /// [`MetadataError::AlreadyWritten`], also when an earlier writer did it;
    /// [`MetadataError::TooLarge`]; [`MetadataError::NoBlock`].
    pub fn set_metadata(&mut self, data: &[u8]) -> Result<(), MetadataError> {
        let mut block = self.reserve_metadata(data.len())?;
        block.copy_from_slice(data);
        block.commit();
        Ok(())
    }

    /// Reserves `len` bytes of the metadata block, to be filled in place.
    ///
    /// # Errors
    ///
    /// As [`Writer::set_metadata`].
    pub fn reserve_metadata(&mut self, len: usize) -> Result<MetadataMut<'_>, MetadataError> {
        let Self { shared, state, .. } = self;
        let name = || shared.name.clone();
        if state.metadata_set {
            return Err(MetadataError::AlreadyWritten { name: name() });
        }
        let len = len as u64;
        match shared.layout.max_metadata() {
            None => return Err(MetadataError::NoBlock { name: name() }),
            Some(max) if len > max => {
                return Err(MetadataError::TooLarge {
                    name: name(),
                    len,
                    max,
                });
            }
            Some(_) => {}
        }
        // Acquire: pairs with the reader's release store when it closes.
        if shared.reader_pid.load(Ordering::Acquire) == 0 {
            return Err(MetadataError::ReaderGone { name: name() });
        }
        let bytes = lend::metadata_mut(shared, len).map_err(|source| MetadataError::Corrupt {
            name: name(),
            source,
        })?;
        Ok(MetadataMut {
            shared,
            state,
            bytes,
            len,
        })
    }

    /// Whether the reader has the buffer open and its process lives.
    #[must_use]
    pub fn is_reader_connected(&self) -> bool {
        // Acquire: pairs with the reader's release stores.
        let pid = self.shared.reader_pid.load(Ordering::Acquire);
        pid != 0 && self.shared.reader_is_alive(pid)
    }

    /// Waits until the reader is gone; gives whether it is.
    pub fn wait_for_reader_exit(&self, timeout: impl Into<Deadline>) -> bool {
        lifecycle::look_until(timeout.into(), || !self.is_reader_connected())
    }

    /// Waits until the reader has taken every committed frame off the ring;
    /// gives whether it has. Frames it holds count as taken.
    ///
    /// # Errors
    ///
    /// The reader is gone and left frames behind.
    pub fn drain(&self, timeout: impl Into<Deadline>) -> Result<bool, WriteError> {
        let shared = &self.shared;
        let mut failed = None;
        let drained = lifecycle::look_until(timeout.into(), || {
            // First: a reader may leave right after the last frame.
            if shared.is_drained() {
                return true;
            }
            failed = check_reader(shared).err();
            failed.is_some()
        });
        failed.map_or(Ok(drained), Err)
    }

    /// Sets how long [`Writer::write`] and [`Writer::reserve`] wait for room.
    pub const fn set_write_timeout(&mut self, timeout: Duration) {
        self.write_timeout = timeout;
    }

    /// How long [`Writer::write`] and [`Writer::reserve`] wait for room.
    #[must_use]
    pub const fn write_timeout(&self) -> Duration {
        self.write_timeout
    }

    /// The buffer's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The longest frame, in bytes.
    #[must_use]
    pub const fn max_frame(&self) -> u64 {
        self.shared.layout.max_frame()
    }

    /// What this writer has sent.
    #[must_use]
    pub const fn stats(&self) -> WriterStats {
        self.state.stats
    }

    /// The buffer's state at this moment.
    #[must_use]
    pub fn status(&self) -> BufferStatus {
        BufferStatus::of(&self.shared)
    }

    /// Leaves the buffer; dropping the writer does the same and keeps errors to
    /// itself. Committed frames stay for the reader, which learns at once that
    /// no more will come.
    ///
    /// # Errors
    ///
    /// The reader could not be woken; it notices within its own timeout.
    pub fn close(mut self) -> Result<(), platform::Error> {
        self.detach()
    }

    fn detach(&mut self) -> Result<(), platform::Error> {
        if !std::mem::take(&mut self.state.attached) {
            return Ok(());
        }
        // A forked child has a copy of this writer, and not its claim.
        if self.state.own != process::current() || !disclaim(&self.shared) {
            return Ok(());
        }
        // One token without a frame wakes a waiting reader (section 8.6).
        self.shared.data_ready.post()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::warn!(buffer = %self.shared.name, %error, "the reader could not be told that its writer left");
        }
    }
}

/// Takes the writer's side from nobody, or from a dead process.
fn claim(shared: &Shared, reader: u64) -> Result<(), AttachError> {
    let own = process::current();
    let deadline = Deadline::after(Writer::BURIAL);
    let own_deadline = Deadline::after(Writer::OWN_BURIAL);
    loop {
        // Acquire: pairs with the release of whoever left or mended it.
        let pid = shared.writer_pid.load(Ordering::Acquire);
        if pid != 0 && shared.writer_is_alive(pid) {
            // A native reader holds the claim itself for as long as it takes to
            // put the buffer in order after a dead writer. In our own process
            // the pid does not tell it from a writer.
            let deadline = if pid == own { own_deadline } else { deadline };
            if pid == reader && !deadline.expired() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let name = shared.name.to_string();
            return Err(AttachError::WriterAlreadyConnected { name, pid });
        }
        // AcqRel: acquire pairs with the last stores of who had it; release
        // with the other side's look at who has it.
        let claim =
            shared
                .writer_pid
                .compare_exchange(pid, own, Ordering::AcqRel, Ordering::Acquire);
        if claim.is_ok() {
            return Ok(());
        }
    }
}

/// Gives the claim up, unless it is not ours any more; gives whether it was.
fn disclaim(shared: &Shared) -> bool {
    let own = process::current();
    // Relaxed: compared with our own store.
    if shared.writer_pid.load(Ordering::Relaxed) != own {
        return false;
    }
    shared.unstamp_writer();
    // Release: our commits and posts happen before the reader sees that we left.
    shared
        .writer_pid
        .compare_exchange(own, 0, Ordering::Release, Ordering::Relaxed)
        .is_ok()
}

#[cold]
fn corrupt(shared: &Shared, source: ImageError) -> WriteError {
    WriteError::Corrupt {
        name: shared.name.clone(),
        source,
    }
}

#[cold]
fn system(shared: &Shared, source: platform::Error) -> WriteError {
    WriteError::System {
        name: shared.name.clone(),
        source: Arc::new(source),
    }
}

fn check_reader(shared: &Shared) -> Result<(), WriteError> {
    // Acquire: pairs with the reader's release stores.
    let pid = shared.reader_pid.load(Ordering::Acquire);
    if pid == 0 {
        return Err(WriteError::ReaderClosed {
            name: shared.name.clone(),
        });
    }
    if !shared.reader_is_alive(pid) {
        return Err(WriteError::ReaderDead {
            name: shared.name.clone(),
            pid,
        });
    }
    Ok(())
}

/// Waits for room at a place.
struct Room<'w> {
    shared: &'w Shared,
    state: &'w mut State,
    place: Place,
    /// Positions and credit that cannot both be right, unless the reader is
    /// just now between its stores.
    inconsistent: Option<ImageError>,
    /// The last look found the reader between two stores.
    passing: bool,
    /// How often it was looked at again for that.
    passes: u32,
}

impl Room<'_> {
    /// Looks at a reader between two stores before it is taken to be stuck there.
    const PASSES: u32 = 10_000;

    /// Whether the place is free.
    #[inline]
    fn is_free(&mut self) -> Result<bool, WriteError> {
        let shared = self.shared;
        let size = shared.size();
        // Acquire: pairs with the reader's release store when it closes.
        if shared.reader_pid.load(Ordering::Acquire) == 0 {
            return Err(WriteError::ReaderClosed {
                name: shared.name.clone(),
            });
        }
        // On the same line. Other writers claim without asking; two at once would
        // overwrite each other. Relaxed: compared with our own store.
        let writer = shared.writer_pid.load(Ordering::Relaxed);
        if writer != self.state.own {
            return Err(WriteError::Displaced {
                name: shared.name.clone(),
                pid: writer,
            });
        }
        self.inconsistent = None;
        let free = shared
            .load_free()
            .map_err(|source| corrupt(shared, source))?;
        let read = shared
            .load_read_pos()
            .map_err(|source| corrupt(shared, source))?;
        if read == self.state.seen_read_pos && free < size {
            // It has not moved since: is it there at all?
            self.look_at_reader()?;
        }
        self.state.seen_read_pos = read;
        if self.place.rewind {
            let empty = free == size && read == self.state.write_pos;
            self.passing = empty && shared.load_release().is_busy();
            return Ok(empty && !self.passing);
        }
        if free < self.place.cost {
            return Ok(false);
        }
        // The credit is a peer's number. Unread bytes lie between the
        // positions, whatever it says (section 13.21); what a native reader
        // holds begins where it has released up to.
        let release = shared.load_release();
        let from = if release.is_native() {
            release.position()
        } else {
            read
        };
        let covered = if from >= size {
            false
        } else if from == self.state.write_pos && release.is_native() {
            // Nothing, or one lap exactly. Acquire: pairs with the reader's
            // release store.
            release.has_all(shared.read_count.load(Ordering::Acquire))
        } else {
            free <= size - distance(size, from, self.state.write_pos)
        };
        if !covered {
            self.inconsistent = Some(ImageError::FreeBytes {
                found: free,
                payload_size: size,
            });
            self.passing = true;
            return Ok(false);
        }
        Ok(true)
    }

    /// Looks whether the reader lives, now and then.
    fn look_at_reader(&mut self) -> Result<(), WriteError> {
        if self.state.pace.is_due() {
            check_reader(self.shared)
        } else {
            Ok(())
        }
    }
}

impl WaitSource for Room<'_> {
    type Output = ();
    type Error = WriteError;

    #[inline]
    fn poll(&mut self) -> Result<Option<()>, WriteError> {
        self.is_free().map(|free| free.then_some(()))
    }

    fn glance(&mut self) -> Result<Option<()>, WriteError> {
        Ok(None)
    }

    fn park(&mut self, until: Deadline) -> Result<Option<()>, WriteError> {
        let failed = |source| system(self.shared, source);
        // Old tokens say nothing of now.
        self.shared
            .space_ready
            .take_up_to(u32::MAX)
            .map_err(failed)?;
        // SeqCst: pairs with the fence in the reader's release. Either we see
        // its credit here, or it sees no token and posts one.
        fence(Ordering::SeqCst);
        if self.is_free()? {
            return Ok(Some(()));
        }
        if std::mem::take(&mut self.passing) && self.passes < Self::PASSES {
            // The reader's next store, which no token follows, may do.
            self.passes += 1;
            yield_now();
            return self.poll();
        }
        if let Some(source) = self.inconsistent {
            // It stayed: no reader is that slow between two stores.
            return Err(corrupt(self.shared, source));
        }
        let failed = |source| system(self.shared, source);
        self.shared.space_ready.wait_until(until).map_err(failed)?;
        self.poll()
    }

    fn check(&mut self) -> Result<Option<()>, WriteError> {
        self.look_at_reader().map(|()| None)
    }
}

/// Publishes the frame whose data are in place.
///
/// The order: bytes, credit, position, count, post. A reader acts on the post;
/// a process that dies in between leaves what `settle` mends.
#[inline]
fn commit(
    shared: &Shared,
    state: &mut State,
    place: &Place,
    length: u64,
) -> Result<u64, WriteError> {
    let sequence = state.sequence;
    let damaged = |source| corrupt(shared, source);
    if let Some(marker) = place.marker {
        chain::store_header(shared, marker, FrameHeader::MARKER).map_err(damaged)?;
    }
    chain::store_header(shared, place.at, FrameHeader::new(length, sequence)).map_err(damaged)?;
    if place.rewind {
        shared.rewind();
        state.stats.rewinds += 1;
    }
    // Release: who sees less credit sees the frame's bytes; pairs with the
    // reader's acquire load.
    let before = shared.free.fetch_sub(place.cost, Ordering::Release);
    if before < place.cost {
        // It was enough when we looked, and only we take away.
        shared.free.fetch_add(place.cost, Ordering::Relaxed);
        let payload_size = shared.size();
        return Err(corrupt(
            shared,
            ImageError::FreeBytes {
                found: before,
                payload_size,
            },
        ));
    }
    // Release: pairs with the reader's acquire load of the position.
    shared.write_pos.store(place.end, Ordering::Release);
    state.write_pos = place.end;
    state.written_count = state
        .written_count
        .wrapping_add(1 + u64::from(place.marker.is_some()));
    // Release: pairs with the acquire load of who settles.
    shared
        .written_count
        .store(state.written_count, Ordering::Release);
    if !state.native_reader {
        shared.last_sequence.store(sequence, Ordering::Release);
    }
    state.sequence = sequence.wrapping_add(1);
    state.stats.frames += 1;
    state.stats.bytes += length;
    state.stats.wraps += u64::from(place.marker.is_some());
    // The post carries the release that the reader's wait acquires.
    if let Err(error) = shared.data_ready.post() {
        // At its maximum: the frame is published, and tokens there are enough.
        tracing::debug!(buffer = %shared.name, %error, "a frame was published without a token");
    }
    if state.stats.frames.is_multiple_of(Writer::DRAIN_INTERVAL) {
        drain_space_tokens(shared);
    }
    Ok(sequence)
}

/// Other readers post one token per frame, and nobody takes them while there is
/// room: at 2^31 they would fail.
#[cold]
fn drain_space_tokens(shared: &Shared) {
    // Damage shows when the writer must wait.
    let _ = shared.space_ready.take_up_to(u32::MAX);
}

/// A frame being filled in place in the ring.
///
/// [`FrameMut::commit`] publishes it. Dropping it instead aborts without a
/// trace: no number is used, no room is taken.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// # use polyshm_zerobuffer::{BufferConfig, Reader, Writer};
/// # use std::time::Duration;
/// # let name = format!("polyshm-doc-frame-mut-{}", std::process::id());
/// # let reader = Reader::create(&name, &BufferConfig::default())?;
/// # let mut writer = Writer::open(&name)?;
/// drop(writer.reserve(1000)?); // changed our mind
/// let mut frame = writer.reserve(4)?;
/// frame.copy_from_slice(&7u32.to_le_bytes());
/// assert_eq!(frame.commit()?, 1, "the first number is still unused");
/// assert_eq!(*reader.read(Duration::from_secs(1))?, 7u32.to_le_bytes());
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a frame that is not committed is never sent"]
pub struct FrameMut<'w> {
    shared: &'w Shared,
    state: &'w mut State,
    place: Place,
    bytes: LentBytesMut<'w>,
}

impl FrameMut<'_> {
    /// Publishes the frame and gives its number.
    ///
    /// # Errors
    ///
    /// [`WriteError::Corrupt`] when the shared credit was damaged meanwhile.
    #[inline]
    pub fn commit(self) -> Result<u64, WriteError> {
        let Self {
            shared,
            state,
            place,
            bytes,
        } = self;
        let length = bytes.len() as u64;
        // Before the reader can see the bytes.
        bytes.end();
        commit(shared, state, &place, length)
    }

    /// The number it will have.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.state.sequence
    }
}

impl Deref for FrameMut<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for FrameMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl fmt::Debug for FrameMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameMut")
            .field("sequence", &self.state.sequence)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The metadata block, being filled in place. Dropping it sets nothing.
#[must_use = "metadata that is not committed is never set"]
pub struct MetadataMut<'w> {
    shared: &'w Shared,
    state: &'w mut State,
    bytes: LentBytesMut<'w>,
    len: u64,
}

impl MetadataMut<'_> {
    /// Publishes the metadata.
    pub fn commit(self) {
        let Self {
            shared,
            state,
            bytes,
            len,
        } = self;
        bytes.end();
        let used = METADATA_PREFIX_SIZE + len;
        // In range: the block is larger than what was reserved of it.
        let stored = shared.metadata.write_u64(0, len);
        debug_assert!(stored.is_ok(), "the metadata block starts at {OIEB_SIZE}");
        // Relaxed: informative, and published by the next store.
        shared
            .metadata_free
            .store(shared.layout.metadata_size() - used, Ordering::Relaxed);
        // Release: pairs with the reader's acquire load; the block is complete.
        shared.metadata_written.store(used, Ordering::Release);
        state.metadata_set = true;
    }
}

impl Deref for MetadataMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for MetadataMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl fmt::Debug for MetadataMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataMut")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
