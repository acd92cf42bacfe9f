//! `replay`: what the ZeroBuffer format demands per frame, and nothing else.
//!
//! The same words at the same offsets as a buffer of that size, the semaphores
//! on pages of their own as the C library has them, the same order of stores as
//! polyshm. No checks of what was loaded, no waiting but polling, no errors but
//! a reader that is gone.
//!
//! Per frame, the writer loads the reader's pid, the credit and the read
//! position; stores the data and the header; takes the credit by an atomic
//! subtraction; stores its position and count; posts the data-ready semaphore
//! by an atomic update. The reader polls that semaphore's value and takes a
//! token by an atomic update; loads the credit, both positions and the header;
//! copies the data out; stores the number, its position and count; and to give
//! the room back stores the release word, adds the credit atomically, stores the
//! release word again, fences, and loads the space-ready semaphore's value,
//! which it posts when it is zero. The writer takes that token every 1024
//! frames.
//!
//! It does not prefetch: each cache line is asked for when its turn comes, so a
//! library that asks for several at once can be faster.

use crate::{
    port::{MESSAGE, Message, Port, raise},
    throughput::{Sink, Source, stamp},
};
use anyhow::{Context, Result, bail};
use polyshm_platform::{
    Region, Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::zerobuffer::{DEFAULT_METADATA_SIZE, FRAME_HEADER_SIZE, OIEB_SIZE, offset};
use std::hint::black_box;

const PAGE: u64 = 4096;
const RING_AT: u64 = OIEB_SIZE + DEFAULT_METADATA_SIZE;
const HEADER: u64 = FRAME_HEADER_SIZE;
/// As polyshm's writer looks at stale tokens.
const DRAIN_INTERVAL: u64 = 1024;
/// The value in a semaphore's word; above it is the number of waiters.
const TOKENS: u64 = 0xFFFF_FFFF;
/// In the release word, while credit is being given back.
const BUSY: u64 = 1 << 62;

/// Bytes of a segment with a ring of `ring` bytes.
#[must_use]
pub const fn len(ring: u64) -> u64 {
    data_ready_at(ring) + 2 * PAGE
}

const fn data_ready_at(ring: u64) -> u64 {
    (RING_AT + ring).next_multiple_of(PAGE)
}

/// A frame's length and number. Frames lie at any byte.
#[repr(C, packed)]
struct Header([u64; 2]);

/// The words of one buffer.
#[derive(Debug)]
struct Lines {
    free: Word64,
    write_pos: Word64,
    read_pos: Word64,
    written_count: Word64,
    read_count: Word64,
    reader_pid: Word64,
    release: Word64,
    last_sequence: Word64,
    data_ready: Word64,
    space_ready: Word64,
    /// `size` bytes that `_region` keeps mapped.
    ring: *mut u8,
    size: u64,
    _region: Region,
}

impl Lines {
    fn new(region: &Region, size: u64) -> Result<Self> {
        let word = |at: usize| region.word64(at);
        let semaphore = data_ready_at(size) as usize;
        let bytes = region.bytes(RING_AT as usize, size as usize)?;
        // SAFETY: the slice itself is dropped at once and never used; only its
        // address is kept. Bytes at that address are touched as the format
        // allows: see `Sender::put` and `Receiver::take`.
        let ring = unsafe { bytes.lend_mut(0, size as usize)? }.as_mut_ptr();
        Ok(Self {
            free: word(offset::PAYLOAD_FREE_BYTES)?,
            write_pos: word(offset::PAYLOAD_WRITE_POS)?,
            read_pos: word(offset::PAYLOAD_READ_POS)?,
            written_count: word(offset::PAYLOAD_WRITTEN_COUNT)?,
            read_count: word(offset::PAYLOAD_READ_COUNT)?,
            reader_pid: word(offset::READER_PID)?,
            release: word(offset::RESERVED)?,
            last_sequence: word(offset::RESERVED + 8)?,
            data_ready: word(semaphore)?,
            space_ready: word(semaphore + PAGE as usize)?,
            ring,
            size,
            _region: region.clone(),
        })
    }
}

/// Fills a fresh segment.
///
/// # Errors
///
/// The region is too small.
pub fn initialise(region: &Region, size: u64) -> Result<()> {
    let lines = Lines::new(region, size)?;
    // Relaxed, both: the peer process starts later.
    lines.free.store(size, Ordering::Relaxed);
    lines.reader_pid.store(1, Ordering::Relaxed);
    Ok(())
}

#[inline]
fn pause<const PAUSE: bool>() {
    if PAUSE {
        std::hint::spin_loop();
    }
}

/// As the C library posts: one compare-and-swap, and a look for waiters.
#[inline]
fn post(semaphore: &Word64) -> Result<()> {
    // Relaxed: the exchange below orders.
    let mut word = semaphore.load(Ordering::Relaxed);
    loop {
        // Release: what came before is seen by who takes the token.
        match semaphore.compare_exchange(word, word + 1, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => word = now,
        }
    }
    if word > TOKENS {
        bail!("somebody sleeps on a semaphore of the replay");
    }
    Ok(())
}

/// As the C library takes a token without waiting.
#[inline]
fn try_wait(semaphore: &Word64) -> bool {
    // Relaxed: the exchange below orders.
    let mut word = semaphore.load(Ordering::Relaxed);
    while word & TOKENS != 0 {
        // Acquire: pairs with the release of the post.
        match semaphore.compare_exchange(word, word - 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => word = now,
        }
    }
    false
}

/// The writing side.
#[derive(Debug)]
pub struct Sender<const PAUSE: bool> {
    lines: Lines,
    write_pos: u64,
    written: u64,
    sequence: u64,
}

impl<const PAUSE: bool> Sender<PAUSE> {
    /// The writer of a segment with a ring of `size` bytes.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region, size: u64) -> Result<Self> {
        Ok(Self {
            lines: Lines::new(region, size)?,
            write_pos: 0,
            written: 0,
            sequence: 1,
        })
    }

    /// Sends a frame.
    ///
    /// # Errors
    ///
    /// The reader is gone.
    #[inline]
    pub fn put<const LEN: usize>(&mut self, data: &[u8; LEN]) -> Result<()> {
        let lines = &self.lines;
        let total = HEADER + LEN as u64;
        let tail = lines.size - self.write_pos;
        let straight = total == tail || total + HEADER <= tail;
        let (at, cost) = if straight {
            (self.write_pos, total)
        } else {
            (0, tail + total)
        };

        // Acquire: pairs with a closing reader's store.
        if lines.reader_pid.load(Ordering::Acquire) == 0 {
            bail!("the reader is gone");
        }
        // Acquire: pairs with the reader's release addition.
        while lines.free.load(Ordering::Acquire) < cost {
            pause::<PAUSE>();
        }
        // Acquire: pairs with the reader's release store.
        black_box(lines.read_pos.load(Ordering::Acquire));

        // SAFETY: header and data lie inside the ring: `total <= tail` behind
        // `write_pos`, or at 0, where a ring of several frames has the room;
        // a marker goes where at least a header's room is left. The credit says
        // that the reader is done with these bytes, and nobody else has them
        // before the post below.
        unsafe {
            let header = lines.ring.add(at as usize);
            let into = header.add(HEADER as usize);
            std::ptr::copy_nonoverlapping(data.as_ptr(), into, LEN);
            if !straight {
                let marker = lines.ring.add(self.write_pos as usize);
                marker.cast::<Header>().write_unaligned(Header([0; 2]));
            }
            header
                .cast::<Header>()
                .write_unaligned(Header([LEN as u64, self.sequence]));
        }
        // Release: pairs with the reader's acquire load of the credit.
        lines.free.fetch_sub(cost, Ordering::Release);
        let end = at + total;
        self.write_pos = if end == lines.size { 0 } else { end };
        // Release: pairs with the reader's acquire load of the position.
        lines.write_pos.store(self.write_pos, Ordering::Release);
        self.written += 1 + u64::from(!straight);
        // Release: as polyshm, for who takes over from a dead writer.
        lines.written_count.store(self.written, Ordering::Release);
        self.sequence += 1;
        post(&lines.data_ready)?;
        if self.sequence.is_multiple_of(DRAIN_INTERVAL) {
            while try_wait(&lines.space_ready) {}
        }
        Ok(())
    }
}

/// A frame that was taken and not yet given back.
#[derive(Clone, Copy, Debug)]
struct Held {
    data: *const u8,
    len: u64,
    /// Credit that goes back.
    bytes: u64,
}

/// The reading side.
#[derive(Debug)]
pub struct Receiver<const PAUSE: bool> {
    lines: Lines,
    read: u64,
    expected: u64,
}

impl<const PAUSE: bool> Receiver<PAUSE> {
    /// The reader of a segment with a ring of `size` bytes.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region, size: u64) -> Result<Self> {
        Ok(Self {
            lines: Lines::new(region, size)?,
            read: 0,
            expected: 1,
        })
    }

    /// Waits for a frame and takes it off the ring.
    #[inline]
    fn take(&mut self) -> Result<Held> {
        let lines = &self.lines;
        // Relaxed: a look; the token is taken by `try_wait`.
        while lines.data_ready.load(Ordering::Relaxed) & TOKENS == 0 || !try_wait(&lines.data_ready)
        {
            pause::<PAUSE>();
        }
        // Acquire, all three: pair with the writer's release stores.
        black_box(lines.free.load(Ordering::Acquire));
        let mut at = lines.read_pos.load(Ordering::Acquire);
        black_box(lines.write_pos.load(Ordering::Acquire));

        // SAFETY: positions come from this module's own sender and are at least
        // a header from the ring's end. The writer published these bytes before
        // the post whose token was taken, and leaves them alone until the
        // credit goes back.
        let header = |at: u64| unsafe {
            lines
                .ring
                .add(at as usize)
                .cast::<Header>()
                .read_unaligned()
                .0
        };
        let mut tail = 0;
        let [mut len, mut sequence] = header(at);
        if len == 0 {
            tail = lines.size - at;
            at = 0;
            self.read += 1;
            [len, sequence] = header(0);
        }
        if sequence != self.expected {
            bail!("expected frame {}, got {sequence}", self.expected);
        }
        self.expected += 1;
        self.read += 1;
        let total = HEADER + len;
        let end = at + total;
        let end = if end == lines.size { 0 } else { end };
        // Release, all three: as polyshm, for who takes over.
        lines.last_sequence.store(sequence, Ordering::Release);
        lines.read_pos.store(end, Ordering::Release);
        lines.read_count.store(self.read, Ordering::Release);
        let data = at + HEADER;
        Ok(Held {
            // SAFETY: inside the ring, as the header.
            data: unsafe { lines.ring.add(data as usize) },
            len,
            bytes: tail + total,
        })
    }

    /// Gives a frame's room back.
    #[inline]
    fn give_back(&mut self, held: Held) -> Result<()> {
        let lines = &self.lines;
        // Relaxed: seen at the latest with the credit, by the add's release.
        lines.release.store(self.read | BUSY, Ordering::Relaxed);
        // Release: our loads of the frame come before the writer's next stores.
        lines.free.fetch_add(held.bytes, Ordering::Release);
        // Release: who sees it sees the credit.
        lines.release.store(self.read, Ordering::Release);
        // SeqCst: pairs with a parking writer's fence.
        fence(Ordering::SeqCst);
        // Relaxed: ordered by the fence.
        if lines.space_ready.load(Ordering::Relaxed) & TOKENS == 0 {
            post(&lines.space_ready)?;
        }
        Ok(())
    }

    #[inline]
    fn copy_out(held: Held, into: &mut Message) -> Result<()> {
        if held.len != MESSAGE as u64 {
            bail!("a frame came out with {} bytes", held.len);
        }
        // SAFETY: `held` has as many bytes, which are ours until it is given back.
        *into = unsafe { held.data.cast::<Message>().read() };
        Ok(())
    }
}

/// Two buffers, one each way.
#[derive(Debug)]
pub struct Replay<const PAUSE: bool> {
    /// Sends there.
    pub sender: Sender<PAUSE>,
    /// Receives here.
    pub receiver: Receiver<PAUSE>,
}

impl<const PAUSE: bool> Port for Replay<PAUSE> {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.sender.put(message)
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        let held = self.receiver.take()?;
        Receiver::<PAUSE>::copy_out(held, into)?;
        self.receiver.give_back(held)
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        let held = self.receiver.take()?;
        Receiver::<PAUSE>::copy_out(held, message)?;
        raise(message);
        self.sender.put(message)?;
        self.receiver.give_back(held)
    }
}

/// Sends frames of `LEN` bytes.
#[derive(Debug)]
pub struct ReplaySource<const LEN: usize>(pub Sender<true>);

impl<const LEN: usize> Source for ReplaySource<LEN> {
    #[inline]
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()> {
        stamp(data, number);
        self.0.put::<LEN>(data.first_chunk().context("short data")?)
    }
}

impl<const PAUSE: bool> Sink for Receiver<PAUSE> {
    #[inline]
    fn take(&mut self, look: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        let held = Self::take(self)?;
        // SAFETY: as many bytes inside the ring, ours until given back below.
        look(unsafe { std::slice::from_raw_parts(held.data, held.len as usize) })?;
        self.give_back(held)
    }
}
