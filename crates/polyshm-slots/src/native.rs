//! What is behind the format's own bytes in a segment that this crate created:
//! seen by this crate alone.

use crate::{
    FieldMark,
    draft::Stage,
    slots::{Look, Slots},
};
use polyshm_platform::{
    Deadline, InvalidWord, Region, Word32, Word64, Words64, process,
    sync::{
        Ordering::{Acquire, Relaxed, Release, SeqCst},
        fence, fence_after_update, spin_loop,
    },
};
use polyshm_wire::slots::{CURSORS, Layout, NativeLayout};
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
            if let (Some(at), Some(beside)) =
                (places.buffer(buffer), places.buffer_changes(buffer))
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
            },
            written: region.word64(writer + offset_of!(WriterLine, written))?,
            overwritten: region.word64(writer + offset_of!(WriterLine, overwritten))?,
            handles: region.word64(writer + offset_of!(WriterLine, handles))?,
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
            buffer.slot.copy_from(0, public, 0, number, || {
                buffer.changes.copy_from(changes);
            });
        }
    }

    /// Copies the record with this number from a buffer back, when one has it.
    pub(crate) fn restore(&self, public: &Slots, number: u64) -> bool {
        let found = self
            .buffers
            .iter()
            .find(|buffer| buffer.slot.number(0) == Some(number));
        if let (Some(buffer), Some(changes)) = (found, &self.changes) {
            public.copy_from(0, &buffer.slot, 0, number, || {
                changes.copy_from(&buffer.changes);
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
                && number.wrapping_sub(least).cast_signed() >= 0
            {
                found.push((number.wrapping_sub(least), buffer));
            }
        }
        found.sort_by_key(|(ahead, _)| std::cmp::Reverse(*ahead));
        for (_, buffer) in found {
            if let Look::Whole(number) = read(&buffer.slot, &buffer.changes)
                && number.wrapping_sub(least).cast_signed() >= 0
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
}

impl WriterLock {
    /// Takes the lock for handle `id`; the process that holds it when the
    /// deadline passes first.
    #[inline]
    pub(crate) fn lock(&self, id: u64, patience: Duration) -> Result<(), u32> {
        // Acquire: pairs with the release in `unlock`.
        match self.holder.compare_exchange(0, id, Acquire, Relaxed) {
            Ok(_) => Ok(()),
            Err(_) => self.lock_slow(id, patience),
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, id: u64, patience: Duration) -> Result<(), u32> {
        const SPINS: u32 = if cfg!(loom) { 1 } else { 100 };
        const LOOK: Duration = Duration::from_millis(10);
        let deadline = Deadline::after(patience);
        let mut pace = polyshm_platform::Pace::new(LOOK);
        let mut nap = Duration::from_micros(5);
        loop {
            for _ in 0..SPINS {
                let holder = self.holder.load(Relaxed);
                // Acquire: as in `lock`.
                if holder == 0
                    && self
                        .holder
                        .compare_exchange(0, id, Acquire, Relaxed)
                        .is_ok()
                {
                    return Ok(());
                }
                spin_loop();
            }
            let holder = self.holder.load(Relaxed);
            let expired = deadline.expired();
            if holder != 0 && (expired || pace.is_due()) {
                if !is_alive(holder) {
                    // Acquire: what the dead one stored, it stored before.
                    let stolen = self.holder.compare_exchange(holder, id, Acquire, Relaxed);
                    if stolen.is_ok() {
                        return Ok(());
                    }
                } else if expired {
                    return Err(pid(holder));
                }
            }
            if !cfg!(loom) {
                std::thread::sleep(nap);
                nap = (nap * 2).min(Duration::from_micros(200));
            }
        }
    }

    /// Gives the lock to whoever comes next.
    #[inline]
    pub(crate) fn unlock(&self, id: u64) {
        // An exchange, not a store: it orders what was committed before the
        // look at who sleeps. Release: pairs with the acquire in `lock`.
        let _ = self.holder.compare_exchange(id, 0, Release, Relaxed);
    }

    /// The process that died holding the lock.
    pub(crate) fn dead_holder(&self) -> Option<u32> {
        let holder = self.holder.load(Relaxed);
        (holder != 0 && !is_alive(holder)).then(|| pid(holder))
    }
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
    pub(crate) fn sleep<T>(
        &self,
        until: Deadline,
        mut poll: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        self.sleepers.fetch_add(1, Relaxed);
        // SeqCst: pairs with the fence in `ring`.
        fence(SeqCst);
        // Acquire: pairs with the release in `ring_loud`: a ring that this load
        // sees was for a change that `poll` sees.
        let rung = self.word.load(Acquire);
        let found = poll();
        if found.is_none() {
            self.word.sleep_while(rung, until);
        }
        self.sleepers.fetch_sub(1, Relaxed);
        found
    }
}

/// How often each field was written.
#[derive(Debug)]
pub(crate) struct Changes {
    counted: Word64,
    full: Word64,
    fields: Words64,
}

/// What a reader knows of the counts.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    /// Per field: the changes up to the last record that was read.
    known: Vec<u64>,
    /// The counts beside the record that is being read.
    pending: Vec<u64>,
    exact: bool,
}

impl Changes {
    fn new(region: &Region, at: usize, fields: usize) -> Result<Self, InvalidWord> {
        Ok(Self {
            counted: region.word64(at + offset_of!(ChangesHead, counted))?,
            full: region.word64(at + offset_of!(ChangesHead, full))?,
            fields: region.words64(at + size_of::<ChangesHead>(), size_of::<u64>(), fields)?,
        })
    }

    /// Counts a write, while its record is being written.
    #[inline]
    pub(crate) fn count(&self, stage: &Stage, number: u64) {
        let before = number.wrapping_sub(1);
        let counted = self.counted.load(Relaxed);
        let mut full = self.full.load(Relaxed);
        if counted != before {
            // Writes of another implementation: each may have listed any field.
            full = full.wrapping_add(before.wrapping_sub(counted));
            self.full.store(full, Relaxed);
        }
        if stage.is_full() {
            self.full.store(full.wrapping_add(1), Relaxed);
        } else {
            for field in (0..self.fields.len()).filter(|&field| stage.is_listed(field)) {
                let word = self.fields.at(field);
                word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
            }
        }
        self.counted.store(number, Relaxed);
    }

    /// Whether the record with this number is the last one that was counted.
    pub(crate) fn is_of(&self, number: u64) -> bool {
        number != 0 && self.counted.load(Relaxed) == number
    }

    fn copy_from(&self, other: &Self) {
        self.full.store(other.full.load(Relaxed), Relaxed);
        for field in 0..self.fields.len() {
            self.fields
                .store(field, other.fields.load(field, Relaxed), Relaxed);
        }
        self.counted.store(other.counted.load(Relaxed), Relaxed);
    }
}

impl Baseline {
    pub(crate) fn new(fields: usize) -> Self {
        Self {
            known: vec![0; fields],
            pending: Vec::with_capacity(fields),
            exact: true,
        }
    }

    /// Tells for every field how many writes listed it from the record `seen`
    /// to the record `number`, which is being read. The marks have its statuses.
    #[inline]
    pub(crate) fn compare(
        &mut self,
        seen: u64,
        number: u64,
        marks: &mut [FieldMark],
        changes: Option<&Changes>,
    ) {
        self.pending.clear();
        self.exact = true;
        match number.wrapping_sub(seen) {
            0 => {
                for mark in marks {
                    mark.changes = 0;
                }
            }
            // What the latest write listed is all that changed.
            1 => {
                for mark in marks {
                    mark.changes = u64::from(mark.status.is_modified());
                }
            }
            ahead => self.compare_counts(ahead, number, marks, changes),
        }
    }

    #[cold]
    fn compare_counts(
        &mut self,
        ahead: u64,
        number: u64,
        marks: &mut [FieldMark],
        changes: Option<&Changes>,
    ) {
        // A number that went back is a segment begun anew.
        let most = if ahead.cast_signed() < 0 { 1 } else { ahead };
        self.exact = false;
        if let Some(changes) = changes {
            let full = changes.full.load(Relaxed);
            let counts = (0..marks.len())
                .map(|field| full.wrapping_add(changes.fields.load(field, Relaxed)));
            self.pending.extend(counts);
            self.exact = changes.counted.load(Relaxed) == number && ahead == most;
        }
        for (field, mark) in marks.iter_mut().enumerate() {
            mark.changes = if self.exact {
                self.pending[field].wrapping_sub(self.known[field])
            } else {
                most
            };
        }
    }

    /// The record that was compared is whole, and counts as read.
    #[inline]
    pub(crate) fn accept(&mut self, marks: &[FieldMark]) {
        if self.pending.is_empty() {
            for (known, mark) in self.known.iter_mut().zip(marks) {
                *known = known.wrapping_add(mark.changes);
            }
        } else {
            self.known.copy_from_slice(&self.pending);
        }
    }

    /// Whether the changes are counted, and not only bounded.
    #[inline]
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
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
