//! The hash table under maps and sets (sections 4.6 and 4.7).

use crate::{
    block::Block,
    error::{Error, Label, OpError},
    wait::settle,
};
use polyshm_platform::{
    Bytes, Word32, Words32,
    sync::{Ordering, fence, yield_now},
};
use polyshm_wire::zeroipc::{
    Dialect, KeyKind, MapLayout, SetLayout, key_hash, keys_equal,
    map::{DELETED, EMPTY, INSERTING, OCCUPIED},
};
use std::time::Duration;

/// Open addressing over bytes: keys with values of any size, also none.
#[derive(Clone, Debug)]
pub(crate) struct RawTable {
    /// Keys that are there.
    size: Word32,
    /// Per slot: who may do what with it.
    state: Words32,
    slots: Bytes,
    shape: Shape,
    block: Block,
}

/// How often others may get in the way, which each time means that one of them
/// got on.
const AGAIN: u32 = if cfg!(loom) { 3 } else { 10_000 };

/// Where things are in a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) dialect: Dialect,
    pub(crate) kind: KeyKind,
    pub(crate) capacity: u32,
    pub(crate) stride: usize,
    pub(crate) key_at: usize,
    pub(crate) value_at: usize,
    pub(crate) value_size: usize,
}

impl Shape {
    pub(crate) const fn of_map(layout: &MapLayout, kind: KeyKind) -> Self {
        Self {
            dialect: layout.dialect,
            kind,
            capacity: layout.capacity,
            stride: layout.stride() as usize,
            key_at: layout.key_offset() as usize,
            value_at: layout.value_offset() as usize,
            value_size: layout.value_size as usize,
        }
    }

    pub(crate) const fn of_set(layout: &SetLayout, kind: KeyKind) -> Self {
        let (value_at, value_size) = match layout.mark_offset() {
            Some(at) => (at as usize, 1),
            None => (0, 0),
        };
        Self {
            dialect: layout.dialect,
            kind,
            capacity: layout.capacity,
            stride: layout.stride() as usize,
            key_at: layout.elem_offset() as usize,
            value_at,
            value_size,
        }
    }

    /// Whether a value is stored and loaded in one piece.
    const fn value_is_atomic(&self) -> bool {
        matches!(self.value_size, 0 | 1 | 2 | 4 | 8)
            && (self.value_size == 0
                || (self.value_at.is_multiple_of(self.value_size)
                    && self.stride.is_multiple_of(self.value_size)))
    }
}

/// What an insertion did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The key was not there.
    New,
    /// The key was there.
    Present,
    /// No slot is free.
    Full,
    /// A slot on the key's way stays half-changed.
    Stuck(u32),
}

/// What a walk along the key's slots does next.
enum Step<T> {
    On,
    Again,
    End(T),
}

impl RawTable {
    pub(crate) fn over(
        block: &Block,
        size_at: u64,
        slots_at: u64,
        shape: Shape,
    ) -> Result<Self, Error> {
        let len = u64::from(shape.capacity) * shape.stride as u64;
        Ok(Self {
            size: block.word32(size_at)?,
            state: block.words32(slots_at, shape.stride as u64, shape.capacity)?,
            slots: block.bytes(slots_at, len as usize)?,
            shape,
            block: block.clone(),
        })
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn len(&self) -> u32 {
        // A peer that raises it late may have left it below zero for a moment.
        let size = self.size.load(Ordering::Relaxed);
        if size.cast_signed() < 0 {
            0
        } else {
            size.min(self.shape.capacity)
        }
    }

    #[inline]
    fn key(&self, slot: u32, into: &mut [u8]) {
        let at = slot as usize * self.shape.stride + self.shape.key_at;
        let loaded = self.slots.read(at, into);
        debug_assert!(loaded.is_ok(), "the layout holds the key");
    }

    #[inline]
    fn value(&self, slot: u32, into: &mut [u8]) {
        let at = slot as usize * self.shape.stride + self.shape.value_at;
        let loaded = self.slots.read(at, into);
        debug_assert!(loaded.is_ok(), "the layout holds the value");
    }

    fn store_value(&self, slot: u32, value: &[u8]) {
        let at = slot as usize * self.shape.stride + self.shape.value_at;
        let stored = self.slots.write(at, value);
        debug_assert!(stored.is_ok(), "the layout holds the value");
    }

    #[inline]
    fn holds(&self, slot: u32, key: &[u8], scratch: &mut [u8]) -> bool {
        self.key(slot, scratch);
        keys_equal(self.shape.dialect, self.shape.kind, key, scratch)
    }

    /// As [`RawTable::holds`], to the byte: +0 and -0 are equal, but have homes
    /// of their own, and are no duplicates; nor are two NaNs.
    fn holds_bytes(&self, slot: u32, key: &[u8], scratch: &mut [u8]) -> bool {
        self.holds(slot, key, scratch) && key == scratch
    }

    /// Takes a slot from a settled state; nobody else changes it until it is
    /// released.
    fn claim(&self, slot: u32, from: u32) -> bool {
        // AcqRel: pairs with the release of the slot's last user.
        let claimed = self.state.compare_exchange(
            slot as usize,
            from,
            INSERTING,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        claimed.is_ok()
    }

    /// Between claiming a slot and storing in it.
    ///
    /// Who reads the epoch from now on sees the slot claimed, and waits; who
    /// read it before and then reads what is stored next sees it changed, by
    /// the acquire fence in `find` that this release fence pairs with.
    fn overwrite(&self) {
        self.block.spare.advance();
        fence(Ordering::Release);
    }

    fn release(&self, slot: u32, to: u32) {
        // Release: pairs with the acquire of the slot's next user.
        self.state.store(slot as usize, to, Ordering::Release);
    }

    /// Visits the key's slots in order, from its home to the first that was
    /// never used. Slots that another process is changing are waited for;
    /// `Err` gives one that stays so, when nothing else ended the walk.
    #[inline]
    fn walk<T>(
        &self,
        key: &[u8],
        mut visit: impl FnMut(u32, u32) -> Step<T>,
    ) -> Result<Option<T>, u32> {
        let capacity = self.shape.capacity;
        let hash = key_hash(self.shape.dialect, self.shape.kind, key);
        let mut next = (hash % u64::from(capacity)) as u32;
        let mut stuck = None;
        for _ in 0..capacity {
            let slot = next;
            next = if slot + 1 == capacity { 0 } else { slot + 1 };
            let mut again = 0;
            loop {
                // Acquire: pairs with the release of the slot's last user.
                let mut state = self.state.load(slot as usize, Ordering::Acquire);
                if state == INSERTING {
                    // One patience for the whole walk: a damaged table may have
                    // many such slots.
                    let patience = match stuck {
                        None => self.block.patience,
                        Some(_) => Duration::ZERO,
                    };
                    state = self.settled(slot, patience).unwrap_or(INSERTING);
                }
                if state == INSERTING {
                    stuck = stuck.or(Some(slot));
                    break;
                }
                match visit(slot, state) {
                    Step::End(found) => return Ok(Some(found)),
                    Step::On if state == EMPTY => return stuck.map_or(Ok(None), Err),
                    Step::On => break,
                    Step::Again => {
                        again += 1;
                        if again > AGAIN {
                            stuck = stuck.or(Some(slot));
                            break;
                        }
                    }
                }
            }
        }
        stuck.map_or(Ok(None), Err)
    }

    /// Copies the value of a key; whether it is there. `Err` gives a slot that
    /// stays half-changed and may be the key's.
    #[inline]
    pub(crate) fn find(
        &self,
        key: &[u8],
        value: &mut [u8],
        scratch: &mut [u8],
    ) -> Result<bool, u32> {
        /// How often a slot is looked at before it is taken for a moment.
        const LOOKS: u32 = if cfg!(loom) { 2 } else { 64 };
        let mut looks = (0, 0);
        let found = self.walk(key, |slot, state| {
            if state != OCCUPIED {
                return Step::On;
            }
            looks = (slot, if looks.0 == slot { looks.1 + 1 } else { 1 });
            if looks.1 > LOOKS {
                // Others overwrite slots all the time: exclude them.
                if !self.claim(slot, OCCUPIED) {
                    return Step::Again;
                }
                let ours = self.holds(slot, key, scratch);
                if ours {
                    self.value(slot, value);
                }
                self.release(slot, OCCUPIED);
                return if ours { Step::End(()) } else { Step::On };
            }
            // Before the key is read: what is overwritten since then shows.
            let epoch = self.block.spare.epoch();
            let before = self.state.load(slot as usize, Ordering::Acquire) == OCCUPIED
                && self.holds(slot, key, scratch);
            self.value(slot, value);
            // Once more, for writers of other implementations, who leave no
            // epoch behind.
            let after = self.holds(slot, key, scratch);
            // Acquire: pairs with the release fence in `overwrite`: if anything
            // that was read was stored after it, the epoch is seen changed.
            fence(Ordering::Acquire);
            let still = self.state.load(slot as usize, Ordering::Relaxed) == OCCUPIED
                && self.block.spare.epoch() == epoch;
            match (before && after, still) {
                (true, true) => Step::End(()),
                (false, true) if before == after => Step::On,
                _ => Step::Again,
            }
        })?;
        Ok(found.is_some())
    }

    /// Inserts a key, or with `replace` stores its new value.
    pub(crate) fn insert(
        &self,
        key: &[u8],
        value: &[u8],
        replace: bool,
        scratch: &mut [u8],
    ) -> Done {
        /// How often a table that is not full may seem so.
        const FULL: u32 = 64;
        let mut chances = FULL;
        for _ in 0..AGAIN {
            let mut free = None;
            let walked = self.walk(key, |slot, state| match state {
                OCCUPIED => {
                    if !self.holds(slot, key, scratch) {
                        return Step::On;
                    }
                    if !replace {
                        // Still the same occupant?
                        fence(Ordering::Acquire);
                        let still = self.state.load(slot as usize, Ordering::Relaxed) == OCCUPIED;
                        return if still && self.holds(slot, key, scratch) {
                            Step::End(())
                        } else {
                            Step::Again
                        };
                    }
                    if !self.claim(slot, OCCUPIED) {
                        return Step::Again;
                    }
                    // It may have changed hands before it was ours.
                    let ours = self.holds(slot, key, scratch);
                    if ours {
                        if !self.shape.value_is_atomic() {
                            self.overwrite();
                        }
                        self.store_value(slot, value);
                    }
                    self.release(slot, OCCUPIED);
                    if ours { Step::End(()) } else { Step::Again }
                }
                EMPTY | DELETED => {
                    free = free.or(Some((slot, state)));
                    Step::On
                }
                _ => Step::On,
            });
            match walked {
                Ok(Some(())) => return Done::Present,
                Err(slot) => return Done::Stuck(slot),
                Ok(None) => {}
            }
            let Some((slot, state)) = free else {
                // A slot may have fallen free behind us while the next one was
                // taken before us.
                if self.len() >= self.shape.capacity || chances == 0 {
                    return Done::Full;
                }
                chances -= 1;
                yield_now();
                continue;
            };
            if !self.claim(slot, state) {
                continue;
            }
            self.overwrite();
            let at = slot as usize * self.shape.stride + self.shape.key_at;
            let stored = self.slots.write(at, key);
            debug_assert!(stored.is_ok(), "the layout holds the key");
            self.store_value(slot, value);
            // Relaxed: a statistic; raised first, so that it is never below 0.
            self.size.fetch_add(1, Ordering::Relaxed);
            self.release(slot, OCCUPIED);
            // SeqCst: two processes that insert the same key in two slots both
            // publish, then look; at least one sees the other's.
            fence(Ordering::SeqCst);
            if self.is_the_first(slot, key, scratch) {
                return Done::New;
            }
            // Another one stands nearer to home: ours goes, its value is set.
            self.erase_slot(slot, key, scratch);
        }
        Done::Stuck(0)
    }

    /// Whether no equal key stands before `slot`; equal ones after it are
    /// erased. Slots before it that are being changed are waited for; those
    /// after it are left to who inserts there, since that one looks as well.
    fn is_the_first(&self, own: u32, key: &[u8], scratch: &mut [u8]) -> bool {
        let capacity = u64::from(self.shape.capacity);
        let hash = key_hash(self.shape.dialect, self.shape.kind, key);
        let mut before = true;
        for distance in 0..capacity {
            let slot = ((hash % capacity + distance) % capacity) as u32;
            if slot == own {
                before = false;
                continue;
            }
            // Who has a slot does not wait meanwhile, so this comes to an end.
            let state = if before {
                self.settled(slot, self.block.patience).unwrap_or(INSERTING)
            } else {
                // Acquire: pairs with the release that published the slot's key.
                self.state.load(slot as usize, Ordering::Acquire)
            };
            match state {
                EMPTY => break,
                OCCUPIED if self.holds_bytes(slot, key, scratch) => {
                    if before {
                        return false;
                    }
                    self.erase_slot(slot, key, scratch);
                }
                _ => {}
            }
        }
        true
    }

    /// The state of a slot once nobody is changing it.
    #[cold]
    fn settled(&self, slot: u32, patience: Duration) -> Option<u32> {
        settle(patience, || {
            // Acquire: pairs with the release of the slot's last user.
            let state = self.state.load(slot as usize, Ordering::Acquire);
            (state != INSERTING).then_some(state)
        })
    }

    /// Erases a slot if the key still stands in it.
    fn erase_slot(&self, slot: u32, key: &[u8], scratch: &mut [u8]) -> bool {
        for _ in 0..AGAIN {
            if self.settled(slot, self.block.patience) != Some(OCCUPIED) {
                return false;
            }
            if !self.claim(slot, OCCUPIED) {
                // A reader or updater has it for a moment.
                continue;
            }
            let ours = self.holds(slot, key, scratch);
            if ours {
                // Relaxed: a statistic.
                self.size.fetch_sub(1, Ordering::Relaxed);
            }
            self.release(slot, if ours { DELETED } else { OCCUPIED });
            return ours;
        }
        false
    }

    /// Erases a key; whether it was there.
    pub(crate) fn erase(&self, key: &[u8], scratch: &mut [u8]) -> Result<bool, u32> {
        let erased = self.walk(key, |slot, state| {
            if state != OCCUPIED || !self.holds(slot, key, scratch) {
                return Step::On;
            }
            if self.erase_slot(slot, key, scratch) {
                Step::End(())
            } else {
                Step::Again
            }
        })?;
        Ok(erased.is_some())
    }

    /// Copies each key and value that stands still; one after the other.
    pub(crate) fn for_each(&self, key_size: usize, mut visit: impl FnMut(&[u8], &[u8])) {
        let mut key = vec![0; key_size];
        let mut value = vec![0; self.shape.value_size];
        let mut patience = self.block.patience;
        for slot in 0..self.shape.capacity {
            let copied = settle(patience, || {
                // Acquire: pairs with the release of the slot's last user.
                match self.state.load(slot as usize, Ordering::Acquire) {
                    OCCUPIED => {}
                    INSERTING => return None,
                    _ => return Some(false),
                }
                let epoch = self.block.spare.epoch();
                self.key(slot, &mut key);
                self.value(slot, &mut value);
                // Acquire: as in `find`.
                fence(Ordering::Acquire);
                let still = self.state.load(slot as usize, Ordering::Relaxed) == OCCUPIED
                    && self.block.spare.epoch() == epoch;
                still.then_some(true)
            });
            match copied {
                Some(true) => visit(&key, &value),
                Some(false) => {}
                // As in `walk`.
                None => patience = Duration::ZERO,
            }
        }
    }

    /// Empties the table; nobody else may use it meanwhile.
    pub(crate) fn clear(&self) {
        for slot in 0..self.shape.capacity {
            self.state.store(slot as usize, EMPTY, Ordering::Release);
        }
        self.size.store(0, Ordering::Release);
    }

    /// Erases half-changed slots and counts anew; nobody else may use the table
    /// meanwhile. Gives how many keys there are and how many slots were erased.
    pub(crate) fn repair(&self) -> (u32, u32) {
        let (mut kept, mut dropped) = (0, 0);
        for slot in 0..self.shape.capacity {
            match self.state.load(slot as usize, Ordering::Acquire) {
                OCCUPIED => kept += 1,
                EMPTY | DELETED => {}
                _ => {
                    self.state.store(slot as usize, DELETED, Ordering::Release);
                    dropped += 1;
                }
            }
        }
        self.size.store(kept, Ordering::Release);
        (kept, dropped)
    }

    pub(crate) fn stuck(&self, attempt: &'static str, slot: u32) -> OpError {
        OpError::Stuck {
            attempt,
            on: self.block.label.clone(),
            slot,
        }
    }
}
