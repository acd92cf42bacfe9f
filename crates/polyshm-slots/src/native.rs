//! What is behind the format's own bytes in a segment that this crate created:
//! seen by this crate alone.

use crate::{
    draft::{STATUSES, Stage, Tallier, Tally},
    ring::is_before,
    slots::{Look, Slots},
};
use polyshm_platform::{
    Deadline, InvalidWord, Region, Word32, Word64, Words64, process,
    sync::{
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence, fence_after_update, spin_loop,
    },
};
use polyshm_wire::slots::{CURSORS, Layout, NativeLayout, Status};
use std::{mem::offset_of, time::Duration};

use polyshm_wire::slots::{ChangesHead, CursorLine, ReaderLine, WriterLine};

/// The handles on the trailer.
#[derive(Debug)]
pub(crate) struct Native {
    pub(crate) lock: WriterLock,
    /// FIFO: items that were committed; no other implementation stores to it.
    pub(crate) written: Word64,
    /// FIFO: items that were overwritten before a consumer took them.
    pub(crate) overwritten: Word64,
    handles: Word64,
    /// What the latest write lists, for who finds its writer dead.
    listed: Word64,
    writing: Word64,
    /// Rung when a record or an item was committed.
    pub(crate) news: Bell,
    /// FIFO: rung when a reader made room.
    pub(crate) room: Bell,
    demand: Word32,
    pub(crate) cursors: Vec<Cursor>,
    /// Single slot: how often each field was written.
    pub(crate) changes: Option<Changes>,
    buffers: Vec<Buffer>,
}

/// So far ahead no number is of the same run of writes: a Python writer that
/// goes on from a tag makes a leap.
pub(crate) const FAR: u64 = 1 << 61;

/// A second place of the record, which readers find whole while the first one
/// is written.
#[derive(Debug)]
struct Buffer {
    slot: Slots,
    changes: Changes,
}

impl Native {
    pub(crate) fn new(
        region: &Region,
        layout: &Layout,
        places: &NativeLayout,
    ) -> Result<Self, InvalidWord> {
        let fields = layout.fields().len();
        let writer = places.writer_line();
        let reader = places.reader_line();
        let (cursors, changes) = if layout.is_fifo() {
            let cursors: Result<_, _> = (0..CURSORS)
                .map(|cursor| Cursor::new(region, places.cursor(cursor)))
                .collect();
            (cursors?, None)
        } else {
            let changes = Changes::new(region, places.changes(), fields)?;
            (Vec::new(), Some(changes))
        };
        let mut buffers = Vec::new();
        for buffer in 0..2 {
            if let (Some(at), Some(beside)) = (places.buffer(buffer), places.buffer_changes(buffer))
            {
                buffers.push(Buffer {
                    slot: Slots::new(region, layout, at, 1)?,
                    changes: Changes::new(region, beside, fields)?,
                });
            }
        }
        Ok(Self {
            lock: WriterLock {
                holder: region.word64(writer + offset_of!(WriterLine, lock))?,
                waiting: region.word64(writer + offset_of!(WriterLine, waiting))?,
            },
            written: region.word64(writer + offset_of!(WriterLine, written))?,
            overwritten: region.word64(writer + offset_of!(WriterLine, overwritten))?,
            handles: region.word64(writer + offset_of!(WriterLine, handles))?,
            listed: region.word64(writer + offset_of!(WriterLine, listed))?,
            writing: region.word64(writer + offset_of!(WriterLine, writing))?,
            news: Bell {
                word: region.word32(reader + offset_of!(ReaderLine, wake))?,
                sleepers: region.word32(reader + offset_of!(ReaderLine, sleepers))?,
            },
            room: Bell {
                word: region.word32(reader + offset_of!(ReaderLine, room_wake))?,
                sleepers: region.word32(reader + offset_of!(ReaderLine, room_sleepers))?,
            },
            demand: region.word32(reader + offset_of!(ReaderLine, demand))?,
            cursors,
            changes,
            buffers,
        })
    }

    /// An identity for a handle of this process, unlike any other's.
    pub(crate) fn new_id(&self, mark: u32) -> u64 {
        let number = self.handles.fetch_add(1, Relaxed).wrapping_add(1) as u32;
        // Not 0, which stands for nobody.
        u64::from(number.max(1)) << 32 | u64::from(mark)
    }

    /// Makes the buffers ones that nothing was written to.
    pub(crate) fn clear(&self) {
        for buffer in &self.buffers {
            buffer.slot.clear();
        }
    }

    /// Tells which fields the next write lists, before it begins.
    #[inline]
    pub(crate) fn announce(&self, listed: u64) {
        // Relaxed: the tags that follow are stored with release.
        self.listed.store(listed, Relaxed);
    }

    /// Tells which item's slot the next write touches, before it begins.
    #[inline]
    pub(crate) fn begin_item(&self, item: u64) {
        // Relaxed: the tags that follow are stored with release.
        self.writing.store(item.wrapping_add(1), Relaxed);
    }

    /// Whether a writer of ours has touched the slot of this item, or of a
    /// later one. Asked after a record was copied: whoever copied any byte of
    /// the item sees it.
    pub(crate) fn has_begun(&self, item: u64) -> bool {
        is_before(item, self.writing.load(Relaxed))
    }

    /// What the writer listed that died.
    pub(crate) fn listed(&self) -> u64 {
        self.listed.load(Relaxed)
    }

    pub(crate) fn is_buffered(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// Asks the writer to leave its next record in a buffer too.
    #[inline]
    pub(crate) fn ask(&self) {
        // Relaxed: a hint; asked again until a buffer has what is wanted.
        if self.demand.load(Relaxed) == 0 {
            self.demand.store(1, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.demand.load(Relaxed) != 0
    }

    /// Copies the record of `public`, which has this number, to the buffer that
    /// readers need least; called by the writer.
    #[cold]
    #[inline(never)]
    pub(crate) fn refresh(&self, public: &Slots, number: u64) {
        self.demand.store(0, Relaxed);
        let oldest = self
            .buffers
            .iter()
            .min_by_key(|buffer| buffer.slot.number(0).map_or(0, |have| age(have, number)));
        if let (Some(buffer), Some(changes)) = (oldest, &self.changes) {
            buffer.slot.copy_from(0, public, 0, number, true, || {
                buffer.changes.copy_from(changes);
            });
        }
    }

    /// Publishes again what was there before write `number`, whose writer died,
    /// when a buffer has it: under that number, as a write that lists nothing.
    /// A number that readers have seen never stands for anything else.
    pub(crate) fn restore(&self, public: &Slots, number: u64) -> bool {
        let before = number.wrapping_sub(1);
        let found = self
            .buffers
            .iter()
            .find(|buffer| before != 0 && buffer.slot.number(0) == Some(before));
        if let (Some(buffer), Some(changes)) = (found, &self.changes) {
            public.copy_from(0, &buffer.slot, 0, number, false, || {
                changes.copy_from(&buffer.changes);
                changes.counted.store(number, Relaxed);
            });
            return true;
        }
        false
    }

    /// Looks at the buffers, the newest first, for a record from `least` on.
    pub(crate) fn look(
        &self,
        least: u64,
        mut read: impl FnMut(&Slots, &Changes) -> Look,
    ) -> Option<u64> {
        let mut found: Vec<_> = Vec::new();
        for buffer in &self.buffers {
            if let Some(number) = buffer.slot.number(0)
                && number != 0
                && number.wrapping_sub(least) < FAR
            {
                found.push((number.wrapping_sub(least), buffer));
            }
        }
        found.sort_by_key(|(ahead, _)| std::cmp::Reverse(*ahead));
        for (_, buffer) in found {
            if let Look::Whole(number) = read(&buffer.slot, &buffer.changes)
                && number.wrapping_sub(least) < FAR
            {
                return Some(number);
            }
        }
        None
    }
}

/// Sorts an older number before a newer one, a broken one first of all.
fn age(have: u64, newest: u64) -> u64 {
    u64::MAX - newest.wrapping_sub(have)
}

/// One writer at a time. The holder's process is known, so that a dead one's
/// lock goes to the next.
#[derive(Debug)]
pub(crate) struct WriterLock {
    holder: Word64,
    /// A flag, not a count: who dies waiting leaves nothing that lasts.
    waiting: Word64,
}

impl WriterLock {
    /// Takes the lock for handle `id`.
    ///
    /// # Errors
    ///
    /// The process that holds it, when the time passes first.
    #[inline]
    fn lock(&self, id: u64, patience: Duration) -> Result<Taken, u32> {
        // Acquire: pairs with the release in `unlock`.
        match self.holder.compare_exchange(0, id, Acquire, Relaxed) {
            Ok(_) => Ok(Taken::Free),
            Err(_) => self.lock_slow(id, patience),
        }
    }

    /// As [`lock`](Self::lock), until the guard is dropped.
    #[inline]
    pub(crate) fn guard(&self, id: u64, patience: Duration) -> Result<(Guard<'_>, Taken), u32> {
        match self.lock(id, patience) {
            Ok(taken) => Ok((Guard { lock: self, id }, taken)),
            Err(holder) => Err(holder),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, id: u64, patience: Duration) -> Result<Taken, u32> {
        const SPINS: u32 = if cfg!(loom) { 1 } else { 100 };
        const LOOK: Duration = Duration::from_millis(10);
        let deadline = Deadline::after(patience);
        let mut pace = polyshm_platform::Pace::new(LOOK);
        let mut nap = Duration::from_micros(5);
        let mut looked = false;
        loop {
            // Relaxed: a hint; raised again while it is waited.
            self.waiting.store(1, Relaxed);
            for _ in 0..SPINS {
                let holder = self.holder.load(Relaxed);
                // Acquire: as in `lock`.
                if holder == 0
                    && self
                        .holder
                        .compare_exchange(0, id, Acquire, Relaxed)
                        .is_ok()
                {
                    self.waiting.store(0, Relaxed);
                    return Ok(Taken::Free);
                }
                spin_loop();
            }
            let holder = self.holder.load(Relaxed);
            let expired = deadline.expired();
            if holder != 0 && (expired || !looked || pace.is_due()) {
                looked = true;
                if !is_alive(holder) {
                    // Acquire: what the dead one stored, it stored before.
                    let stolen = self.holder.compare_exchange(holder, id, Acquire, Relaxed);
                    if stolen.is_ok() {
                        self.waiting.store(0, Relaxed);
                        return Ok(Taken::FromTheDead);
                    }
                } else if expired {
                    return Err(pid(holder));
                }
            }
            if !cfg!(loom) {
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_micros(50));
            }
        }
    }

    /// Gives the lock to whoever comes next.
    #[inline]
    fn unlock(&self, id: u64) {
        // An exchange, not a store: it orders what was committed before the
        // look at who sleeps. Release: pairs with the acquire in `lock`.
        let _ = self.holder.compare_exchange(id, 0, Release, Relaxed);
        if self.waiting.load(Relaxed) != 0 {
            self.give_way();
        }
    }

    /// Lets another writer have the lock, which would hardly find it free when
    /// this one writes again at once.
    #[cold]
    #[inline(never)]
    fn give_way(&self) {
        const WAY: Duration = Duration::from_micros(200);
        if cfg!(loom) {
            return;
        }
        let end = Deadline::after(WAY);
        while self.holder.load(Relaxed) == 0 && self.waiting.load(Relaxed) != 0 {
            if end.expired() {
                // Who waited is gone.
                self.waiting.store(0, Relaxed);
                return;
            }
            std::thread::yield_now();
        }
    }

    /// The process that died holding the lock.
    pub(crate) fn dead_holder(&self) -> Option<u32> {
        let holder = self.holder.load(Relaxed);
        (holder != 0 && !is_alive(holder)).then(|| pid(holder))
    }
}

/// The writers' lock, held until dropped.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    lock: &'a WriterLock,
    id: u64,
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.lock.unlock(self.id);
    }
}

/// How the writers' lock was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody held it.
    Free,
    /// Its holder died, perhaps in the middle of a write.
    FromTheDead,
}

fn is_alive(holder: u64) -> bool {
    process::is_alive_marked(holder as u32)
}

/// The process of a mark: its low 22 bits.
fn pid(holder: u64) -> u32 {
    (holder & 0x003F_FFFF) as u32
}

/// What sleepers wait for, with a count of them, so that nobody makes a system
/// call for nobody.
#[derive(Debug)]
pub(crate) struct Bell {
    word: Word32,
    sleepers: Word32,
}

impl Bell {
    /// Wakes all sleepers; called after an atomic update, which came after the
    /// change that they wait for.
    #[inline]
    pub(crate) fn ring(&self) {
        // SeqCst: pairs with the fence in `sleep`. Either we see the sleeper's
        // count, or it sees the change.
        fence_after_update();
        if self.sleepers.load(Relaxed) != 0 {
            self.ring_loud();
        }
    }

    /// As [`ring`](Self::ring), where no atomic update came before.
    #[inline]
    pub(crate) fn ring_fenced(&self) {
        fence(SeqCst);
        if self.sleepers.load(Relaxed) != 0 {
            self.ring_loud();
        }
    }

    #[cold]
    #[inline(never)]
    fn ring_loud(&self) {
        // Release: pairs with the acquire load in `sleep`.
        self.word.fetch_add(1, Release);
        self.word.wake(u32::MAX);
    }

    /// Sleeps until rung or until the deadline, unless `poll` gives something.
    pub(crate) fn sleep<T>(&self, until: Deadline, poll: impl FnMut() -> Option<T>) -> Option<T> {
        let found = match self.go_to_sleep(poll) {
            Ok(found) => Some(found),
            Err(rung) => {
                self.word.sleep_while(rung, until);
                None
            }
        };
        self.sleepers.fetch_sub(1, Relaxed);
        found
    }

    /// Counts a sleeper and looks a last time; gives the word to sleep on.
    fn go_to_sleep<T>(&self, mut poll: impl FnMut() -> Option<T>) -> Result<T, u32> {
        self.sleepers.fetch_add(1, Relaxed);
        // SeqCst: pairs with the fence in `ring`.
        fence(SeqCst);
        // Acquire: pairs with the release in `ring_loud`: a ring that this load
        // sees was for a change that `poll` sees.
        let rung = self.word.load(Acquire);
        poll().ok_or(rung)
    }
}

#[cfg(all(test, loom))]
impl Bell {
    /// Whether a sleeper that would sleep now is woken, or found something: to
    /// be asked when whoever rings has done so.
    pub(crate) fn is_never_missed<T, P: FnMut() -> Option<T>>(
        &self,
        poll: P,
    ) -> impl FnOnce() -> bool + use<T, P> {
        let slept = self.go_to_sleep(poll).err();
        let word = self.word.clone();
        move || slept.is_none_or(|rung| word.load(Relaxed) != rung)
    }
}

/// How often each field was written.
#[derive(Debug)]
pub(crate) struct Changes {
    counted: Word64,
    full: Word64,
    foreign: Word64,
    fields: Words64,
}

/// What a reader knows of the counts.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    /// Per field: the count beside the record with the number `known_at`.
    known: Vec<u64>,
    known_at: u64,
    /// Records read since, each of which listed every field: their counts were
    /// not looked at.
    since: u64,
    /// The counts beside the record that is being read, when they were looked
    /// at.
    pending: Vec<u64>,
    /// The record that is being read lists every field, and is the next one.
    every: bool,
    exact: bool,
    /// The MODIFIED flags of all fields.
    flags: Vec<u64>,
}

impl Changes {
    fn new(region: &Region, at: usize, fields: usize) -> Result<Self, InvalidWord> {
        Ok(Self {
            counted: region.word64(at + offset_of!(ChangesHead, counted))?,
            full: region.word64(at + offset_of!(ChangesHead, full))?,
            foreign: region.word64(at + offset_of!(ChangesHead, foreign))?,
            fields: region.words64(at + size_of::<ChangesHead>(), size_of::<u64>(), fields)?,
        })
    }

    /// Counts a write, while its record is being written.
    #[inline]
    pub(crate) fn count(&self, stage: &Stage, number: u64) {
        if stage.is_full() {
            return self.count_full(number);
        }
        self.begin_count(number);
        for field in (0..self.fields.len()).filter(|&field| stage.is_listed(field)) {
            let word = self.fields.at(field);
            word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
        }
        self.counted.store(number, Relaxed);
    }

    /// Counts a write of all fields.
    #[inline]
    pub(crate) fn count_full(&self, number: u64) {
        self.begin_count(number);
        let full = self.full.load(Relaxed);
        self.full.store(full.wrapping_add(1), Relaxed);
        self.counted.store(number, Relaxed);
    }

    /// Notes a write whose writer died: it may have changed any field, and its
    /// counts may have been raised already.
    pub(crate) fn disown(&self, number: u64) {
        self.foreign.store(number, Relaxed);
        self.counted.store(number, Relaxed);
    }

    #[inline]
    fn begin_count(&self, number: u64) {
        let before = number.wrapping_sub(1);
        if self.counted.load(Relaxed) != before {
            // Another implementation's, and what it listed is not known.
            self.foreign.store(before, Relaxed);
        }
    }

    /// Whether the record with this number is the last one that was counted.
    pub(crate) fn is_of(&self, number: u64) -> bool {
        number != 0 && self.counted.load(Relaxed) == number
    }

    fn copy_from(&self, other: &Self) {
        self.full.store(other.full.load(Relaxed), Relaxed);
        self.foreign.store(other.foreign.load(Relaxed), Relaxed);
        for field in 0..self.fields.len() {
            self.fields
                .store(field, other.fields.load(field, Relaxed), Relaxed);
        }
        self.counted.store(other.counted.load(Relaxed), Relaxed);
    }
}

impl Baseline {
    pub(crate) fn new(fields: usize) -> Self {
        let flags = (0..fields).step_by(STATUSES).map(|first| {
            let mut flags = [0; STATUSES];
            flags[..(fields - first).min(STATUSES)].fill(Status::MODIFIED);
            u64::from_le_bytes(flags)
        });
        Self {
            known: vec![0; fields],
            pending: Vec::with_capacity(fields),
            exact: true,
            flags: flags.collect(),
            ..Self::default()
        }
    }

    #[inline]
    fn lists_every(&self, statuses: &[u64]) -> bool {
        let mut words = statuses.iter().zip(&self.flags);
        words.all(|(now, flags)| now & flags == *flags)
    }

    fn compare_counts(
        &mut self,
        ahead: u64,
        number: u64,
        statuses: &[u64],
        changes: Option<&Changes>,
    ) -> Tally<'_> {
        if let Some(changes) = changes {
            let full = changes.full.load(Relaxed);
            let counts = (0..self.known.len())
                .map(|field| full.wrapping_add(changes.fields.load(field, Relaxed)));
            self.pending.extend(counts);
            let foreign = changes.foreign.load(Relaxed);
            if changes.counted.load(Relaxed) == number
                && ahead < FAR
                && !is_before(self.known_at, foreign)
            {
                return Tally::Counts {
                    now: &self.pending,
                    then: &self.known,
                    less: self.since,
                };
            }
        }
        // Without counts: what the latest write listed is all that changed since
        // the one before. The flags that tell it may have been reset.
        let mut words = statuses.iter().zip(&self.flags);
        if ahead == 1 && words.any(|(now, flags)| now & flags != 0) {
            return Tally::Flags;
        }
        self.exact = false;
        // A number that leapt is of a segment begun anew.
        Tally::Every(if ahead < FAR { ahead } else { 1 })
    }

    /// The record that was compared is whole, and counts as read.
    #[inline]
    pub(crate) fn accept(&mut self, number: u64) {
        if self.every {
            self.since = self.since.wrapping_add(1);
        } else if !self.pending.is_empty() {
            self.known.copy_from_slice(&self.pending);
            self.known_at = number;
            self.since = 0;
        }
    }

    /// Whether the changes are counted, and not only bounded.
    #[inline]
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }
}

/// Compares the record that is being read with the one that was read before.
#[derive(Debug)]
pub(crate) struct Compare<'a> {
    pub(crate) baseline: &'a mut Baseline,
    /// The number of that one.
    pub(crate) seen: u64,
    /// The counts that are published with the record.
    pub(crate) changes: Option<&'a Changes>,
}

impl Tallier for Compare<'_> {
    #[inline]
    fn quick(&mut self, number: u64, statuses: &[u64]) -> Option<Tally<'static>> {
        let baseline = &mut *self.baseline;
        baseline.pending.clear();
        baseline.every = false;
        baseline.exact = true;
        match number.wrapping_sub(self.seen) {
            0 => Some(Tally::Every(0)),
            1 if baseline.lists_every(statuses) => {
                baseline.every = true;
                Some(Tally::Every(1))
            }
            _ => None,
        }
    }

    fn count(&mut self, number: u64, statuses: &[u64]) -> Tally<'_> {
        let ahead = number.wrapping_sub(self.seen);
        self.baseline
            .compare_counts(ahead, number, statuses, self.changes)
    }
}

/// A reader of a FIFO that writers can see.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) position: Word64,
    pub(crate) mark: Word32,
    pub(crate) kind: Word32,
}

impl Cursor {
    fn new(region: &Region, at: usize) -> Result<Self, InvalidWord> {
        Ok(Self {
            position: region.word64(at + offset_of!(CursorLine, position))?,
            mark: region.word32(at + offset_of!(CursorLine, mark))?,
            kind: region.word32(at + offset_of!(CursorLine, kind))?,
        })
    }
}
