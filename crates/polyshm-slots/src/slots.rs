//! The slots: records between two sequence words (format, sections 2.1, 5.1
//! and 7 D1).
//!
//! A writer tags both words before it touches anything between them, and takes
//! the tags off in the order `seq_end`, `seq_begin`. So the two are equal only
//! outside a write, whichever a reader loads first: ours loads `seq_end` first,
//! which protects it also from writers that do not tag.
//!
//! What a dead writer was writing is lost. Which fields those are is told beside
//! (`WriterLine::listed`), and not by their statuses, which a Python reader may
//! store back at any time.

use crate::{
    Record,
    draft::{Filler, Masks, STATUSES, Source, Stage, Tallier, Tally},
};
use polyshm_platform::{
    InvalidWord, Region, Row, Rows, Words64,
    sync::{
        Ordering::{Acquire, Relaxed, Release},
        fence,
    },
};
use polyshm_wire::slots::{Layout, Status};

/// Set in `seq_end` while a record is written.
const END_TAG: u64 = 1 << 62;
/// Set in `seq_begin` while a record is written.
const BEGIN_TAG: u64 = 1 << 63;

/// The record before the one that is being written, as the two words tell it;
/// `None` when they are of different moments.
#[cold]
fn committed(begin: u64, end: u64) -> Option<u64> {
    let untagged = end ^ END_TAG;
    let before = untagged.wrapping_sub(1);
    if begin == untagged ^ BEGIN_TAG || begin == before {
        // A writer of ours at the values, or about to be.
        Some(before)
    } else if begin == end ^ BEGIN_TAG {
        // One that is about to take the second tag off.
        Some(end.wrapping_sub(1))
    } else if begin == end.wrapping_add(1) {
        // A writer of another implementation.
        Some(end)
    } else {
        None
    }
}

/// Slots of one size, one after the other.
#[derive(Debug)]
pub(crate) struct Slots {
    begin: Words64,
    end: Words64,
    /// Word `k` has the statuses of the fields from `8 * k` on.
    statuses: Vec<Words64>,
    rows: Rows,
    slot_size: usize,
    fields: usize,
}

/// In what state a writer finds a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Complete, with this number.
    Whole(u64),
    /// A writer of ours died at this number, having touched the values.
    Aborted(u64),
    /// A writer of another implementation is at work, or died, or failed:
    /// this number is taken, the values may be anything.
    Foreign(u64),
}

impl State {
    /// The last number that was used.
    #[inline]
    pub(crate) const fn taken(self) -> u64 {
        match self {
            Self::Whole(number) | Self::Foreign(number) | Self::Aborted(number) => number,
        }
    }
}

/// What a look at a slot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Copied, and whole.
    Whole(u64),
    /// A write is under way: nothing was copied. The record before it, when it
    /// is known.
    UnderWay { committed: Option<u64> },
    /// A write came while this record was copied.
    Torn(u64),
}

impl Slots {
    /// `count` slots from `offset` on.
    pub(crate) fn new(
        region: &Region,
        layout: &Layout,
        offset: usize,
        count: usize,
    ) -> Result<Self, InvalidWord> {
        let slot_size = layout.slot_size();
        let words = |at| region.words64(offset + at, slot_size, count);
        let fields = layout.fields().len();
        let statuses: Result<_, _> = (0..fields.div_ceil(STATUSES))
            .map(|word| words(layout.status_offset() + STATUSES * word))
            .collect();
        Ok(Self {
            begin: words(0)?,
            end: words(layout.seq_end_offset())?,
            statuses: statuses?,
            rows: region.rows(offset, slot_size, count)?,
            slot_size,
            fields,
        })
    }

    /// Makes every slot one that was never written (format, section 2.3).
    pub(crate) fn clear(&self) {
        for slot in 0..self.begin.len() {
            for (word, statuses) in self.statuses.iter().enumerate() {
                let count = (self.fields - word * STATUSES).min(STATUSES);
                let mut fresh = [0; STATUSES];
                fresh[..count].fill(Status::FRESH.bits());
                statuses.store(slot, u64::from_le_bytes(fresh), Relaxed);
            }
        }
    }

    /// Whether a slot was never written and is not being created either.
    pub(crate) fn is_initialised(&self, slot: usize) -> bool {
        let written = self.begin.load(slot, Acquire) != 0 || self.end.load(slot, Relaxed) != 0;
        written
            || (0..self.fields).all(|field| {
                let word = self.statuses[field / STATUSES].load(slot, Relaxed);
                Status::from_bits(word.to_le_bytes()[field % STATUSES]).is_unwritten()
            })
    }

    /// The number of the record in a slot, when it is whole.
    #[inline]
    pub(crate) fn number(&self, slot: usize) -> Option<u64> {
        // Acquire: pairs with the writer's release.
        let number = self.end.load(slot, Acquire);
        (self.begin.load(slot, Relaxed) == number).then_some(number)
    }

    /// The word that tells first of a new record.
    #[inline]
    pub(crate) fn end(&self, slot: usize) -> u64 {
        self.end.load(slot, Relaxed)
    }

    /// Hints that a slot will be written soon: readers that look at it have its
    /// line, and it comes back while the write is prepared.
    #[inline]
    pub(crate) fn prefetch(&self, slot: usize) {
        self.begin.at(slot).prefetch_write();
    }

    /// What a writer finds; called by one writer at a time.
    #[inline]
    pub(crate) fn state(&self, slot: usize) -> State {
        // Acquire: pairs with the release of the writer before.
        let begin = self.begin.load(slot, Acquire);
        let end = self.end.load(slot, Acquire);
        if begin == end {
            return State::Whole(begin);
        }
        self.interrupted(slot, begin, end)
    }

    #[cold]
    #[inline(never)]
    fn interrupted(&self, slot: usize, begin: u64, end: u64) -> State {
        let untagged = begin ^ BEGIN_TAG;
        if untagged == end {
            // Died with only the last store missing: everything is there.
            self.begin.store(slot, end, Release);
            return State::Whole(end);
        }
        if untagged == end ^ END_TAG {
            return State::Aborted(untagged);
        }
        if end ^ END_TAG == begin.wrapping_add(1) {
            // Died after the first store of all.
            self.end.store(slot, begin, Release);
            return State::Whole(begin);
        }
        State::Foreign(begin)
    }

    /// Replaces the listed fields of a slot; `number` is what readers will know
    /// the record by. `within` does what else is published with it.
    ///
    /// Called by one writer at a time.
    #[inline]
    pub(crate) fn write<'l>(
        &self,
        slot: usize,
        number: u64,
        layout: &Layout,
        stage: &Stage,
        large: impl Fn(usize) -> &'l [u8],
        within: impl FnOnce(),
    ) {
        self.replace(slot, number, stage.masks(), within, |row| {
            stage.runs(layout, large, |offset, bytes| row.write_at(offset, bytes));
        });
    }

    /// As [`write`](Self::write), of all fields at once.
    #[inline]
    pub(crate) fn write_whole(
        &self,
        slot: usize,
        number: u64,
        layout: &Layout,
        masks: &[Masks],
        fill: impl FnOnce(&mut Filler<'_>),
        within: impl FnOnce(),
    ) {
        self.replace(slot, number, masks, within, |row| {
            fill(&mut Filler {
                slot: row,
                at: layout.first_field(),
                end: layout.fields_end(),
            });
        });
    }

    #[inline]
    fn replace(
        &self,
        slot: usize,
        number: u64,
        masks: &[Masks],
        within: impl FnOnce(),
        values: impl FnOnce(Row<'_>),
    ) {
        let row = self.row(slot);
        self.start(slot, number);
        values(row);
        for (statuses, masks) in self.statuses.iter().zip(masks) {
            let now = statuses.load(slot, Relaxed);
            statuses.store(slot, masks.after(now), Relaxed);
        }
        within();
        self.finish(slot, number);
    }

    #[inline]
    fn row(&self, slot: usize) -> Row<'_> {
        self.rows.at(slot, self.slot_size)
    }

    /// Tags the words.
    #[inline]
    fn start(&self, slot: usize, number: u64) {
        // Release: whoever finds this writer dead by the tag finds what it had
        // stored before, which tells what it was writing.
        self.end.store(slot, number ^ END_TAG, Release);
        self.begin.store(slot, number ^ BEGIN_TAG, Relaxed);
        // Release: pairs with the reader's acquire fence. A reader that copies
        // any byte stored below finds the tags in both words.
        fence(Release);
    }

    /// Takes the tags off: the record is there.
    #[inline]
    pub(crate) fn finish(&self, slot: usize, number: u64) {
        // Release: pairs with the reader's acquire load of either word.
        self.end.store(slot, number, Release);
        // Release: after `seq_end`. A reader that begins here sees all of the
        // record, and one that ends here saw no byte of it.
        self.begin.store(slot, number, Release);
    }

    /// Copies the record of another's slot, under a number; `as_modified` keeps
    /// the flags of what its write listed.
    ///
    /// Called by one writer at a time of both.
    pub(crate) fn copy_from(
        &self,
        slot: usize,
        from: &Self,
        other: usize,
        number: u64,
        as_modified: bool,
        within: impl FnOnce(),
    ) {
        let mut chunk = [0; 4096];
        let (source, target) = (from.row(other), self.row(slot));
        self.start(slot, number);
        // Between the two words, padding and all.
        let mut at = size_of::<u64>();
        let end = self.slot_size - size_of::<u64>();
        while at < end {
            let len = chunk.len().min(end - at);
            let chunk = &mut chunk[..len];
            source.read_at(at, chunk);
            target.write_at(at, chunk);
            at += len;
        }
        if !as_modified {
            self.map_statuses(slot, |_, status| status.passed_over());
        }
        within();
        self.finish(slot, number);
    }

    /// Marks the values that a dead writer of ours destroyed, in a slot that its
    /// tags are still on: those of the fields that `listed` tells, modulo 64.
    pub(crate) fn disclaim(&self, slot: usize, listed: u64) {
        self.map_statuses(slot, |field, status| {
            if listed >> (field % 64) & 1 == 1 {
                status.lost()
            } else {
                status.passed_over()
            }
        });
    }

    fn map_statuses(&self, slot: usize, map: impl Fn(usize, Status) -> Status) {
        for (word, statuses) in self.statuses.iter().enumerate() {
            let mut bytes = statuses.load(slot, Relaxed).to_le_bytes();
            let fields = word * STATUSES..self.fields;
            for (field, status) in fields.zip(&mut bytes) {
                *status = map(field, Status::from_bits(*status)).bits();
            }
            statuses.store(slot, u64::from_le_bytes(bytes), Relaxed);
        }
    }

    /// Copies a record into `fields`, with how often they changed as `tally`
    /// finds it. All of it counts only when the result is [`Look::Whole`].
    #[inline]
    pub(crate) fn read<R: Record>(
        &self,
        slot: usize,
        layout: &Layout,
        statuses: &mut [u64],
        fields: &mut R::Fields,
        tally: &mut impl Tallier,
    ) -> Look {
        // Acquire: pairs with the release in `finish`. Whoever sees this number
        // sees its record, or a later one.
        let number = self.end.load(slot, Acquire);
        // Acquire: the copy comes after it, and all of it is in vain when a write
        // is under way already.
        let begin = self.begin.load(slot, Acquire);
        if begin != number {
            return Look::UnderWay {
                committed: committed(begin, number),
            };
        }
        for (copy, word) in statuses.iter_mut().zip(&self.statuses) {
            *copy = word.load(slot, Relaxed);
        }
        let quick = tally.quick(number, statuses);
        let mut source = Source {
            layout,
            slot: self.row(slot),
            statuses,
            tally: quick.unwrap_or(Tally::Every(0)),
        };
        R::load(fields, &source);
        if !self.is_still(slot, number) {
            return Look::Torn(number);
        }
        if quick.is_none() {
            // Only now, since the counts are lines of the writer's, which it
            // would have to fetch back.
            source.tally = tally.count(number, source.statuses);
            R::count(fields, &source);
            if !self.is_still(slot, number) {
                return Look::Torn(number);
            }
        }
        Look::Whole(number)
    }

    /// Whether what was copied since the load of `number` belongs to it.
    #[inline]
    fn is_still(&self, slot: usize, number: u64) -> bool {
        // Acquire: pairs with the release fence in `start`. If any byte copied
        // is a later record's, the load finds its tag, or a later number.
        fence(Acquire);
        self.begin.load(slot, Relaxed) == number
    }

    /// Clears the MODIFIED bit of every field, if the record is still that one.
    ///
    /// Word by word, so that a writer of another implementation that stores a
    /// status meanwhile keeps it; one that writes a whole record meanwhile may
    /// lose bits of it, as with the reference.
    pub(crate) fn reset_modified(&self, slot: usize, number: u64) -> bool {
        for (word, statuses) in self.statuses.iter().enumerate() {
            let mut flags = [0; STATUSES];
            let fields = self.fields - word * STATUSES;
            flags[..fields.min(STATUSES)].fill(Status::MODIFIED);
            let flags = u64::from_le_bytes(flags);
            let mut now = statuses.load(slot, Relaxed);
            loop {
                if self.number(slot) != Some(number) {
                    return false;
                }
                let cleared = now & !flags;
                match statuses.compare_exchange(slot, now, cleared, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(found) => now = found,
                }
            }
        }
        true
    }
}
