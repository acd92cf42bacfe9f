//! A bare seqlock over the bytes of a slot with four floats: the loads and stores
//! that the format's description lists for a write and a read, on the same words,
//! and nothing else.
//!
//! The writer raises `seq_begin`, stores the values and their statuses (all four
//! in one word), and makes `seq_end` equal. The reader loads `seq_end`, copies,
//! and looks whether `seq_begin` is equal. Nobody keeps a second writer out, tells
//! a dead one from a slow one, wakes who is asleep, or knows which fields changed.
//!
//! [`Locked`] keeps other writers out, and so is the least that could stand in for
//! a store that any process may write to.

use super::{Bits, Floats};
use crate::eshm::replay::Wait;
use anyhow::{Result, ensure};
use polyshm_platform::{
    Region, Word64,
    sync::{Ordering, fence, fence_after_update},
};
use polyshm_slots::{Status, TypedRecord};
use polyshm_wire::slots::Layout;
use std::{mem::offset_of, sync::atomic::AtomicU64};

/// Bytes of an object with a slot and a lock.
pub const LEN: usize = 4096;

/// Where the lock is: on a line of its own.
const LOCK: usize = 128;

/// Where the number of sleepers is: on another.
const SLEEPERS: usize = 256;

/// The status word of a record whose fields were all written at last.
const WRITTEN: u64 = Status::MODIFIED as u64 * 0x0101_0101;

/// A slot's words.
#[derive(Debug)]
#[repr(C)]
struct Words {
    begin: AtomicU64,
    statuses: AtomicU64,
    values: [AtomicU64; 4],
    end: AtomicU64,
}

/// A slot, as one side sees it.
#[derive(Debug)]
pub struct Slot {
    /// In `_region`, which keeps them mapped.
    words: *const Words,
    _region: Region,
}

impl Slot {
    /// The slot at the start of a region that was all zeros.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region) -> Result<Self> {
        let layout = Layout::new(Floats::schema(), 1)?;
        let values = layout.fields().iter().map(|place| place.offset);
        ensure!(
            values.eq((0..4).map(|at| offset_of!(Words, values) + 8 * at))
                && layout.status_offset() == offset_of!(Words, statuses)
                && layout.seq_end_offset() == offset_of!(Words, end),
            "the words are not a slot's"
        );
        let bytes = region.bytes(0, size_of::<Words>())?;
        // SAFETY: the slice itself is dropped at once and never used; only its
        // address is kept.
        let words = unsafe { bytes.lend_mut(0, size_of::<Words>())? }.as_mut_ptr();
        Ok(Self {
            words: words.cast(),
            _region: region.clone(),
        })
    }

    #[inline]
    fn words(&self) -> &Words {
        // SAFETY: as many bytes as the words have, at the start of a page, which
        // the region keeps mapped. All that anybody does with them is atomic.
        unsafe { &*self.words }
    }

    /// Writes a record. One writer at a time.
    #[inline]
    pub fn write(&self, bits: Bits) {
        let words = self.words();
        // Relaxed: there is one writer.
        let number = words.begin.load(Ordering::Relaxed).wrapping_add(1);
        words.begin.store(number, Ordering::Relaxed);
        // Release: pairs with the reader's acquire fence.
        fence(Ordering::Release);
        for (word, value) in words.values.iter().zip(bits) {
            word.store(value, Ordering::Relaxed);
        }
        words.statuses.store(WRITTEN, Ordering::Relaxed);
        // Release: pairs with the reader's acquire load.
        words.end.store(number, Ordering::Release);
    }

    /// The number of the last whole record, as far as is known.
    #[inline]
    pub fn number(&self) -> u64 {
        // Relaxed: what belongs to it is loaded after another look.
        self.words().end.load(Ordering::Relaxed)
    }

    /// Reads a record, and gives its number; `None` when a write came between.
    #[inline]
    pub fn try_read(&self) -> Option<(u64, u64, Bits)> {
        let words = self.words();
        // Acquire: pairs with the writer's release store.
        let number = words.end.load(Ordering::Acquire);
        let statuses = words.statuses.load(Ordering::Relaxed);
        let bits = words
            .values
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        // Acquire: pairs with the writer's release fence.
        fence(Ordering::Acquire);
        (words.begin.load(Ordering::Relaxed) == number).then_some((number, statuses, bits))
    }

    /// Waits for another record than number `seen`, which becomes that of what it
    /// gives.
    #[inline]
    pub fn read_new<W: Wait>(&self, seen: &mut u64) -> Bits {
        loop {
            if self.number() != *seen
                && let Some((number, statuses, bits)) = self.try_read()
                && statuses == WRITTEN
            {
                *seen = number;
                return bits;
            }
            W::wait();
        }
    }
}

/// A slot for several writers.
#[derive(Debug)]
pub struct Locked {
    slot: Slot,
    holder: Word64,
    sleepers: Word64,
}

impl Locked {
    /// As [`Slot::new`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn new(region: &Region) -> Result<Self> {
        Ok(Self {
            slot: Slot::new(region)?,
            holder: region.word64(LOCK)?,
            sleepers: region.word64(SLEEPERS)?,
        })
    }

    /// Writes a record, when nobody else does.
    #[inline]
    pub fn write(&self, bits: Bits) {
        self.lock();
        self.slot.write(bits);
        // Release: whoever has the lock next finds the record whole.
        self.holder.store(0, Ordering::Release);
    }

    /// As [`write`](Self::write), and gives whether somebody sleeps who would have
    /// to be woken.
    #[inline]
    pub fn write_and_look(&self, bits: Bits) -> bool {
        self.lock();
        self.slot.write(bits);
        // SeqCst: also between the record and the look, as that needs.
        let _ = self
            .holder
            .compare_exchange(1, 0, Ordering::SeqCst, Ordering::Relaxed);
        fence_after_update();
        self.sleepers.load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn lock(&self) {
        // Acquire: pairs with the release of the holder before.
        while self
            .holder
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            std::hint::spin_loop();
        }
    }
}
