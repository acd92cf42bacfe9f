//! The buffer's words, each as a handle checked once.

use crate::settle::Patience;
use polyshm_platform::{
    Bytes, Deadline, Region, Semaphore, Word64, process,
    sync::{Ordering, fence, fence_after_update, yield_now},
};
use polyshm_wire::zerobuffer::{ImageError, Layout, OIEB_SIZE, Oieb, SIGNATURE, offset};
use std::sync::Arc;

/// Both sides' view of one buffer. Sizes are this process's own copy.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) layout: Layout,
    signature: Word64,
    metadata_size: Word64,
    pub(crate) metadata_free: Word64,
    /// 0 until the metadata is complete; the writer stores it once.
    pub(crate) metadata_written: Word64,
    payload_size: Word64,
    /// Credit: the writer subtracts before it publishes a frame, the reader
    /// adds when the oldest held frame is released; in 0..=size.
    pub(crate) free: Word64,
    /// Stored by the writer; also `size` from writers that do not reduce it.
    pub(crate) write_pos: Word64,
    /// Stored by the reader, and by a writer that rewinds an empty ring.
    pub(crate) read_pos: Word64,
    pub(crate) written_count: Word64,
    pub(crate) read_count: Word64,
    pub(crate) writer_pid: Word64,
    pub(crate) reader_pid: Word64,
    /// See [`Release`]; the first reserved word.
    release: Word64,
    /// The number of the last frame read, by a native reader; of the last
    /// written, by a native writer to a foreign reader. The second reserved word.
    pub(crate) last_sequence: Word64,
    /// `process::stamp` of the two sides; the third and fourth reserved words.
    reader_stamp: Word64,
    writer_stamp: Word64,
    pub(crate) metadata: Bytes,
    pub(crate) ring: Bytes,
    /// One post per frame.
    pub(crate) data_ready: Semaphore,
    /// A hint that credit came back; `free` is the truth.
    pub(crate) space_ready: Semaphore,
    pub(crate) patience: Patience,
    /// Held for its destructor: a heap buffer has one of each side.
    #[cfg(any(feature = "testing", test))]
    pub(crate) side: Option<crate::testing::Side>,
}

/// What a native reader tells a writer that takes over from a dead one: how far
/// it has given credit back.
///
/// One word, so that it changes at once: bit 63 set by native readers, bit 62
/// while credit is being given back, 22 bits of the reader's item count, 40
/// bits of position. Reserved bytes that every other implementation ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release(u64);

impl Release {
    const NATIVE: u64 = 1 << 63;
    const BUSY: u64 = 1 << 62;
    const COUNT_BITS: u32 = 22;
    const POSITION_BITS: u32 = 40;
    /// More frames held at once would make the count ambiguous.
    pub(crate) const MAX_HELD: usize = (1 << Self::COUNT_BITS) - 1;

    /// Everything before `position` is given back, and `items` items in all.
    pub(crate) const fn new(position: u64, items: u64) -> Self {
        let count = items & ((1 << Self::COUNT_BITS) - 1);
        Self(Self::NATIVE | (count << Self::POSITION_BITS) | position)
    }

    /// Larger rings have no room for their positions in the word.
    const fn fits(size: u64) -> bool {
        size < 1 << Self::POSITION_BITS
    }

    pub(crate) const fn is_native(self) -> bool {
        self.0 & Self::NATIVE != 0
    }

    pub(crate) const fn is_busy(self) -> bool {
        self.0 & Self::BUSY != 0
    }

    pub(crate) const fn position(self) -> u64 {
        self.0 & ((1 << Self::POSITION_BITS) - 1)
    }

    /// Whether `items` items, counted by the reader, are all given back.
    pub(crate) const fn has_all(self, items: u64) -> bool {
        Self::new(self.position(), items).0 == self.0 & !Self::BUSY
    }

    /// The same count at another position.
    const fn at(self, position: u64) -> Self {
        Self((self.0 & !((1 << Self::POSITION_BITS) - 1)) | position)
    }
}

impl Shared {
    /// Makes the handles. Nothing is loaded from the region.
    pub(crate) fn new(
        region: &Region,
        name: Arc<str>,
        layout: Layout,
        data_ready: Semaphore,
        space_ready: Semaphore,
    ) -> Result<Self, ImageError> {
        let need = layout.object_len();
        let short = ImageError::TooShort {
            len: region.len() as u64,
            need,
        };
        let word = |at: usize| region.word64(at).map_err(|_| short);
        let bytes = |at: u64, len: u64| {
            // A layout fits the address space: Layout's own invariant.
            let (Ok(at), Ok(len)) = (usize::try_from(at), usize::try_from(len)) else {
                return Err(short);
            };
            region.bytes(at, len).map_err(|_| short)
        };
        Ok(Self {
            name,
            signature: word(offset::OIEB_SIZE)?,
            metadata_size: word(offset::METADATA_SIZE)?,
            metadata_free: word(offset::METADATA_FREE_BYTES)?,
            metadata_written: word(offset::METADATA_WRITTEN_BYTES)?,
            payload_size: word(offset::PAYLOAD_SIZE)?,
            free: word(offset::PAYLOAD_FREE_BYTES)?,
            write_pos: word(offset::PAYLOAD_WRITE_POS)?,
            read_pos: word(offset::PAYLOAD_READ_POS)?,
            written_count: word(offset::PAYLOAD_WRITTEN_COUNT)?,
            read_count: word(offset::PAYLOAD_READ_COUNT)?,
            writer_pid: word(offset::WRITER_PID)?,
            reader_pid: word(offset::READER_PID)?,
            release: word(offset::RESERVED)?,
            last_sequence: word(offset::RESERVED + 8)?,
            reader_stamp: word(offset::RESERVED + 16)?,
            writer_stamp: word(offset::RESERVED + 24)?,
            metadata: bytes(layout.metadata_offset(), layout.metadata_size())?,
            ring: bytes(layout.payload_offset(), layout.payload_size())?,
            layout,
            data_ready,
            space_ready,
            patience: Patience::USUAL,
            #[cfg(any(feature = "testing", test))]
            side: None,
        })
    }

    /// Fills a zeroed buffer and publishes it. The semaphores exist already, so
    /// whoever sees the signature can attach.
    pub(crate) fn publish(&self) {
        let pid = process::current();
        // Relaxed: all of this is published by the last two stores.
        self.metadata_size
            .store(self.layout.metadata_size(), Ordering::Relaxed);
        self.metadata_free
            .store(self.layout.metadata_size(), Ordering::Relaxed);
        self.payload_size
            .store(self.layout.payload_size(), Ordering::Relaxed);
        self.free
            .store(self.layout.payload_size(), Ordering::Relaxed);
        if Release::fits(self.layout.payload_size()) {
            self.release.store(Release::new(0, 0).0, Ordering::Relaxed);
        }
        self.reader_stamp
            .store(process::stamp(pid), Ordering::Relaxed);
        // Release: pairs with the acquire load of the signature (`is_published`)
        // and of the pid by who attaches.
        self.reader_pid.store(pid, Ordering::Release);
        self.signature.store(SIGNATURE, Ordering::Release);
    }

    /// Loads a header as one snapshot; `None` while its creator is at work.
    ///
    /// # Errors
    ///
    /// The region is too short for a header.
    pub(crate) fn snapshot(region: &Region) -> Result<Option<Oieb>, ImageError> {
        let mut image = [0; OIEB_SIZE as usize];
        let short = ImageError::TooShort {
            len: region.len() as u64,
            need: OIEB_SIZE,
        };
        let bytes = region.bytes(0, image.len()).map_err(|_| short)?;
        let signature = bytes.read_u64(0).map_err(|_| short)?;
        // Acquire: pairs with the release store of the signature in `publish`.
        fence(Ordering::Acquire);
        bytes.read(0, &mut image).map_err(|_| short)?;
        let header = Oieb::read(&image)?;
        Ok((signature != 0).then_some(header))
    }

    pub(crate) const fn size(&self) -> u64 {
        self.layout.payload_size()
    }

    /// A position as loaded, checked and brought into 0..size.
    pub(crate) fn load_read_pos(&self) -> Result<u64, ImageError> {
        // Acquire: pairs with the release stores of the reader, and of a writer
        // that rewinds.
        let found = self.read_pos.load(Ordering::Acquire);
        reduce(found, self.size()).ok_or(ImageError::ReadPosition {
            found,
            payload_size: self.size(),
        })
    }

    /// As [`Shared::load_read_pos`], of the writer.
    pub(crate) fn load_write_pos(&self) -> Result<u64, ImageError> {
        // Acquire: pairs with the writer's release store after a frame's bytes.
        let found = self.write_pos.load(Ordering::Acquire);
        reduce(found, self.size()).ok_or(ImageError::WritePosition {
            found,
            payload_size: self.size(),
        })
    }

    /// The credit, checked.
    pub(crate) fn load_free(&self) -> Result<u64, ImageError> {
        // Acquire: pairs with the release add of the reader, so that a frame's
        // bytes are overwritten only after they were last read; and with the
        // release subtract of the writer.
        let found = self.free.load(Ordering::Acquire);
        if found > self.size() {
            return Err(ImageError::FreeBytes {
                found,
                payload_size: self.size(),
            });
        }
        Ok(found)
    }

    /// What the reader says of released credit.
    pub(crate) fn load_release(&self) -> Release {
        // Acquire: pairs with `store_release`.
        Release(self.release.load(Ordering::Acquire))
    }

    /// Gives `bytes` of credit back up to `to`; `false` when that would make
    /// more credit than the ring has bytes.
    pub(crate) fn give_back(&self, bytes: u64, to: Release) -> bool {
        let native = Release::fits(self.size());
        if native {
            // Already the new position: a writer never sees credit for bytes
            // that the word calls held. Relaxed: ordered by the add below; who
            // sees the credit sees at least this.
            self.release.store(to.0 | Release::BUSY, Ordering::Relaxed);
        }
        // Release: our last reads of the frames happen before the writer's
        // acquire load of the credit, and so before it overwrites them.
        let before = self.free.fetch_add(bytes, Ordering::Release);
        // Pairs with the fence in the writer's `park`: either the writer, having
        // drained its tokens, sees our credit, or we see that there is no token
        // left and post one. Not after the next store: that may take its time.
        fence_after_update();
        if native {
            // Release: pairs with `load_release`; who sees it sees the credit.
            self.release.store(to.0, Ordering::Release);
        }
        before
            .checked_add(bytes)
            .is_some_and(|sum| sum <= self.size())
    }

    /// Whether every committed frame is taken off the ring.
    pub(crate) fn is_drained(&self) -> bool {
        match self.data_ready.value() {
            Some(tokens) => tokens == 0,
            // Damaged positions are for the next write to report.
            None => self.load_read_pos().ok() == self.load_write_pos().ok(),
        }
    }

    /// Moves both positions of an empty ring to 0 (format, section 8.5).
    ///
    /// The caller is the attached writer and saw `free == size`, equal
    /// positions, and a release word that is not busy: the reader has nothing
    /// to read and nothing to give back until the next post.
    pub(crate) fn rewind(&self) {
        let release = self.load_release();
        // Release: pairs with the acquire loads of positions by the reader
        // after it takes the next token. `free` stays at `size` until both are
        // stored, and with it nothing counts as pending.
        self.write_pos.store(0, Ordering::Release);
        self.read_pos.store(0, Ordering::Release);
        if release.is_native() {
            self.release.store(release.at(0).0, Ordering::Release);
        }
    }

    /// Makes the release word of an empty ring say `position`, after a rewind
    /// that was cut short. The caller owns the writer's side.
    pub(crate) fn align_release(&self, position: u64) {
        let deadline = Deadline::after(self.patience.busy);
        loop {
            let seen = self.load_release();
            if !seen.is_native() || seen.position() == position {
                return;
            }
            // A busy reader stores the word itself in a moment; one that does
            // not is dead or stopped, and its word decides nothing any more.
            if seen.is_busy() {
                if deadline.expired() {
                    return;
                }
                yield_now();
                continue;
            }
            // AcqRel: pairs with the reader's own stores of the word.
            let aligned = seen.at(position).0;
            let swap =
                self.release
                    .compare_exchange(seen.0, aligned, Ordering::AcqRel, Ordering::Acquire);
            if swap.is_ok() {
                return;
            }
        }
    }

    /// Whether the process that is stored as reader lives.
    pub(crate) fn reader_is_alive(&self, pid: u64) -> bool {
        // Acquire: pairs with the release store of the pid, before which the
        // stamp was stored.
        process::is_alive_stamped(pid, self.reader_stamp.load(Ordering::Acquire))
    }

    /// Whether the process that is stored as writer lives.
    pub(crate) fn writer_is_alive(&self, pid: u64) -> bool {
        // Acquire: pairs with `stamp_writer`. A stamp of another pid is ignored.
        process::is_alive_stamped(pid, self.writer_stamp.load(Ordering::Acquire))
    }

    /// Notes when this process, the writer now, started.
    pub(crate) fn stamp_writer(&self) {
        self.writer_stamp
            .store(process::stamp(process::current()), Ordering::Release);
    }

    /// Takes the stamp back, before the claim: another program that gets the
    /// same pid later must not be measured by it.
    pub(crate) fn unstamp_writer(&self) {
        self.writer_stamp.store(0, Ordering::Release);
    }

    /// The start-time stamp beside a header's reader pid.
    pub(crate) fn reader_stamp_of(header: &Oieb) -> u64 {
        header.reserved[2].get()
    }

    /// The start-time stamp beside a header's writer pid.
    pub(crate) fn writer_stamp_of(header: &Oieb) -> u64 {
        header.reserved[3].get()
    }
}

/// An offset or length within a mapping. What does not fit becomes one that no
/// range check admits; it cannot occur, since layouts fit the address space.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A position brought into `0..size`: an exact fit may leave it at `size`.
const fn reduce(position: u64, size: u64) -> Option<u64> {
    if position < size {
        Some(position)
    } else if position == size {
        Some(0)
    } else {
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_release_word_keeps_position_and_count_apart() {
        let word = Release::new((1 << 40) - 1, (1 << 22) + 5);
        assert!(word.is_native() && !word.is_busy());
        assert_eq!(word.position(), (1 << 40) - 1);
        assert!(word.has_all((1 << 22) + 5));
        assert!(!word.has_all(6));
        assert_eq!(word.at(0), Release::new(0, 5));
    }

    #[test]
    fn positions_past_the_ring_are_refused() {
        assert_eq!(reduce(64, 64), Some(0));
        assert_eq!(reduce(63, 64), Some(63));
        assert_eq!(reduce(65, 64), None);
        assert_eq!(reduce(u64::MAX, 64), None);
    }
}
