//! What Rust processes tell each other in bytes that every reference ignores.
//!
//! The last slot of the table is unused until the table is full. The first eight
//! bytes of its name serve meanwhile as one word: four *bells* count who sleeps,
//! so that who changes something makes no system call when nobody does, and an
//! *epoch* counts overwritten slots of maps, so that a reader notices that one
//! changed hands while it looked.
//!
//! The word's first byte is 0xFF while it is in use. A name's first byte is never
//! 0 and never 0xFF, and the word is changed by compare-and-exchange from 0 or
//! from a value that starts with 0xFF only: an entry that lies there is never
//! touched, and waiting falls back to short naps.

use polyshm_platform::{
    Word32, Word64,
    sync::{Ordering, fence_after_update},
};

/// The first byte while the word is in use.
const TAG: u64 = 0xFF;
/// The four bells: a byte each, after the tag.
const BELL_SHIFT: u32 = 8;
const BELL_BITS: u32 = 8;
const BELL_MAX: u64 = (1 << BELL_BITS) - 1;
pub(crate) const BELLS: u64 = 4;
/// The epoch: the rest.
const EPOCH_SHIFT: u32 = BELL_SHIFT + BELL_BITS * BELLS as u32;

const fn is_tagged(value: u64) -> bool {
    value & 0xFF == TAG
}

/// The spare slot's word; absent where there is none to use.
#[derive(Clone, Debug)]
pub(crate) struct Spare(Option<Word64>);

impl Spare {
    /// Nothing can be told: sleepers nap, and map readers look twice.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    pub(crate) const fn new(word: Word64) -> Self {
        Self(Some(word))
    }

    /// Changes the word while no entry lies there; `None`: one does, or the
    /// change is not possible.
    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> Option<()> {
        let word = self.0.as_ref()?;
        let mut value = word.load(Ordering::Relaxed);
        loop {
            if value != 0 && !is_tagged(value) {
                return None;
            }
            let next = change(value | TAG)?;
            // With nothing to say it is 0, as the references leave it.
            let next = if next == TAG { 0 } else { next };
            // AcqRel: a sleeper's or writer's own steps stay on their side;
            // pairs with the loads in `ring` and `epoch`.
            match word.compare_exchange(value, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(()),
                Err(found) => value = found,
            }
        }
    }

    /// The epoch, to be compared with a later look.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        // Acquire: pairs with the update in `advance`; what is read after an
        // unchanged epoch is from after that update.
        self.0
            .as_ref()
            .map_or(0, |word| word.load(Ordering::Acquire) >> EPOCH_SHIFT)
    }

    /// When a slot of a map is about to be overwritten.
    #[inline]
    pub(crate) fn advance(&self) {
        // The sum leaves the word at its upper end: it wraps at 2^24.
        self.change(|value| Some(value.wrapping_add(1 << EPOCH_SHIFT)));
    }

    pub(crate) fn bell(&self, number: u64) -> Bell {
        let shift = BELL_SHIFT + BELL_BITS * (number % BELLS) as u32;
        Bell {
            spare: self.clone(),
            shift,
            mask: BELL_MAX << shift,
        }
    }
}

/// Counts who sleeps on one of a structure's words.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    spare: Spare,
    shift: u32,
    /// Of the count.
    mask: u64,
}

/// Apart, so that its arguments take no register where nobody sleeps.
#[cold]
#[inline(never)]
fn wake(value: u64, word: &Word32, count: u32) {
    // Otherwise these are bytes of a name.
    if is_tagged(value) {
        word.wake(count);
    }
}

impl Bell {
    /// Counts a sleeper; `None` where that is not possible.
    pub(crate) fn enter(&self) -> Option<Asleep<'_>> {
        let counted = self.spare.change(|value| {
            let full = value & self.mask == self.mask;
            (!full).then(|| value + (1 << self.shift))
        });
        // Pairs with the fence in `ring`: either the waker sees our count, or
        // we see its change of the word we are about to sleep on.
        fence_after_update();
        counted.map(|()| Asleep(self))
    }

    /// Wakes up to `count` sleepers on `word`, right after it was changed by an
    /// atomic update.
    #[inline]
    pub(crate) fn ring(&self, word: &Word32, count: u32) {
        let Some(spare) = &self.spare.0 else { return };
        // Pairs with the fence in `enter`.
        fence_after_update();
        let value = spare.load(Ordering::Relaxed);
        if value & self.mask != 0 {
            wake(value, word, count);
        }
    }
}

/// A counted sleeper.
#[derive(Debug)]
pub(crate) struct Asleep<'a>(&'a Bell);

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        let Bell { spare, shift, mask } = self.0;
        // Once an entry lies there, there is nothing to take back.
        spare.change(|value| (value & mask != 0).then(|| value - (1 << shift)));
    }
}
