//! The three indices of a FIFO (format, sections 2, 5.5 and 7 D2).
//!
//! `write_idx` tells what is committed, and is all that a broadcast reader
//! believes. `read_idx` is where those that share it take items; it moves only
//! by exchanges here, since both a consumer and an overwriting writer move it.
//! `count` is derived, and kept for the original's readers.

use polyshm_platform::{
    InvalidWord, Region, Word64,
    sync::Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use polyshm_wire::slots::offset;

/// The indices in a segment.
#[derive(Debug)]
pub(crate) struct Ring {
    write: Word64,
    read: Word64,
    count: Word64,
    slots: u64,
}

/// The later of two positions, which may have wrapped.
#[inline]
pub(crate) const fn later(a: u64, b: u64) -> u64 {
    if b.wrapping_sub(a).cast_signed() > 0 {
        b
    } else {
        a
    }
}

/// Whether position `a` comes before `b`.
#[inline]
pub(crate) const fn is_before(a: u64, b: u64) -> bool {
    b.wrapping_sub(a).cast_signed() > 0
}

impl Ring {
    pub(crate) fn new(region: &Region, slots: u64) -> Result<Self, InvalidWord> {
        Ok(Self {
            write: region.word64(offset::WRITE_IDX)?,
            read: region.word64(offset::READ_IDX)?,
            count: region.word64(offset::COUNT)?,
            slots,
        })
    }

    /// The number of slots.
    #[inline]
    pub(crate) const fn slots(&self) -> u64 {
        self.slots
    }

    /// The slot of an item.
    #[inline]
    pub(crate) const fn slot(&self, item: u64) -> usize {
        (item % self.slots) as usize
    }

    /// The number that an item's slot carries, unless another implementation
    /// lost count (format, section 5.1).
    #[inline]
    pub(crate) const fn number(&self, item: u64) -> u64 {
        (item / self.slots).wrapping_add(1)
    }

    /// The item that is written next: all before it are committed.
    #[inline]
    pub(crate) fn write_index(&self) -> u64 {
        // Acquire: pairs with the release in `publish`, or orders what another
        // implementation's writer stored before.
        self.write.load(Acquire)
    }

    /// The item that those who share the index take next.
    #[inline]
    pub(crate) fn read_index(&self) -> u64 {
        // Acquire: pairs with the release in `advance`: a consumer has copied
        // what a writer overwrites after it saw the consumer's step.
        self.read.load(Acquire)
    }

    /// Makes every item before `next` visible.
    #[inline]
    pub(crate) fn publish(&self, next: u64) {
        // Release: pairs with the acquire in `write_index`.
        self.write.store(next, Release);
        self.settle(next);
    }

    /// Puts right what a reader of another implementation stored back: it
    /// stores the write index as it was when it began to copy.
    pub(crate) fn republish(&self, next: u64) {
        if self.write.load(Relaxed) == next {
            self.settle(next);
        } else {
            self.publish(next);
        }
    }

    /// Moves the shared read index from an item to a later one, unless another
    /// was faster. `write` is the write index as the caller knows it.
    #[inline]
    pub(crate) fn advance(&self, from: u64, to: u64, write: u64) -> bool {
        // Release: pairs with `read_index`. Acquire: with the other movers.
        let moved = self.read.compare_exchange(from, to, AcqRel, Relaxed);
        if moved.is_ok() {
            self.settle(write);
        }
        moved.is_ok()
    }

    /// Makes the count agree with the indices. It is loaded before they are and
    /// exchanged, so that it never tells of more items than there are: what
    /// changes meanwhile is settled by who changed it.
    #[inline]
    pub(crate) fn settle(&self, write: u64) {
        // Acquire: the indices are loaded after it.
        let mut count = self.count.load(Acquire);
        loop {
            let read = self.read.load(Acquire);
            // The caller's may be old by now; the other may have been stored
            // back.
            let write = later(write, self.write.load(Acquire));
            let unread = write.wrapping_sub(read).cast_signed().max(0).unsigned_abs();
            // It is more when others than those that share the index hold the
            // writer back.
            let unread = unread.min(self.slots);
            if count == unread {
                return;
            }
            // And once more: another may have found the count right by what it
            // was a moment ago.
            count = match self.count.compare_exchange(count, unread, AcqRel, Acquire) {
                Ok(_) => unread,
                Err(found) => found,
            };
        }
    }
}
