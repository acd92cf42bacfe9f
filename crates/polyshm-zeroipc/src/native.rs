//! What Rust processes tell each other in bytes that every reference ignores.
//!
//! The last slot of the table is unused until the table is full. Eight words of
//! its name field serve meanwhile: four *bells* count who sleeps, so that who
//! changes something makes no system call when nobody does; four *epochs* count
//! overwritten slots of maps, so that a reader notices that a slot changed hands
//! while it looked. Each word carries a tag that no name can contain (0xFF is
//! never a byte of UTF-8), and is changed by compare-and-exchange from a tagged
//! value or 0 only: as soon as an entry lies there, the words are left alone,
//! and waiting falls back to short naps.

use polyshm_platform::{
    Word32,
    sync::{Ordering, fence_after_update},
};

/// The tag in the top byte.
const TAG: u32 = 0xFF00_0000;
const COUNT: u32 = 0x00FF_FFFF;

const fn is_tagged(value: u32) -> bool {
    value & TAG == TAG
}

/// One word of the spare slot; absent where there is none to use.
#[derive(Clone, Debug)]
struct Tagged {
    word: Word32,
    /// The table's count of entries, and its slots.
    entries: Word32,
    slots: u32,
}

impl Tagged {
    /// Adds to the count, wrapping within its bits; whether it is in use.
    fn add(&self, step: u32) -> bool {
        // Relaxed: a full table is noticed a moment late at worst, and then the
        // tag decides.
        if self.entries.load(Ordering::Relaxed) >= self.slots {
            return false;
        }
        let mut value = self.word.load(Ordering::Relaxed);
        loop {
            if value != 0 && !is_tagged(value) {
                return false;
            }
            let next = TAG | (value.wrapping_add(step) & COUNT);
            // AcqRel: a sleeper's or writer's own steps stay on their side;
            // pairs with the loads of `ring` and `Epoch::now`.
            match self
                .word
                .compare_exchange(value, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(found) => value = found,
            }
        }
    }
}

/// Counts who sleeps on one of a structure's words.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Option<Tagged>);

impl Bell {
    /// Nobody can be counted: sleepers nap.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(word: Word32, entries: Word32, slots: u32) -> Self {
        Self(Some(Tagged {
            word,
            entries,
            slots,
        }))
    }

    /// Counts a sleeper; `None` where that is not possible.
    pub(crate) fn enter(&self) -> Option<Asleep<'_>> {
        let tagged = self.0.as_ref()?;
        let counted = tagged.add(1);
        // Pairs with the fence in `ring`: either the waker sees our count, or
        // we see its change of the word we are about to sleep on.
        fence_after_update();
        counted.then_some(Asleep(tagged))
    }

    /// Wakes up to `count` sleepers on `word`, right after it was changed by an
    /// atomic update.
    #[inline]
    pub(crate) fn ring(&self, word: &Word32, count: u32) {
        let Some(tagged) = &self.0 else { return };
        // Pairs with the fence in `enter`.
        fence_after_update();
        let value = tagged.word.load(Ordering::Relaxed);
        if value & COUNT != 0 && is_tagged(value) {
            word.wake(count);
        }
    }
}

/// A counted sleeper.
#[derive(Debug)]
pub(crate) struct Asleep<'a>(&'a Tagged);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        let word = &self.0.word;
        let mut value = word.load(Ordering::Relaxed);
        // Once an entry lies here there is nothing to take back.
        while is_tagged(value) && value & COUNT != 0 {
            let left = value - 1;
            // The last one leaves zeros, as the references do.
            let next = if left & COUNT == 0 { 0 } else { left };
            match word.compare_exchange(value, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => value = found,
            }
        }
    }
}

/// Counts the overwritten slots of a map.
#[derive(Clone, Debug)]
pub(crate) struct Epoch(Option<Tagged>);

impl Epoch {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(word: Word32, entries: Word32, slots: u32) -> Self {
        Self(Some(Tagged {
            word,
            entries,
            slots,
        }))
    }

    /// To be compared with a later look.
    #[inline]
    pub(crate) fn now(&self) -> u32 {
        self.0
            .as_ref()
            // Acquire: pairs with the update in `advance`; what is read after
            // an unchanged epoch is from after that update.
            .map_or(0, |tagged| tagged.word.load(Ordering::Acquire))
    }

    /// When a slot is about to be overwritten.
    #[inline]
    pub(crate) fn advance(&self) {
        if let Some(tagged) = &self.0 {
            tagged.add(1);
        }
    }
}
