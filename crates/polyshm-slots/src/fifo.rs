//! Several slots: a FIFO of records (format, sections 5.5 and 7 D2 to D4).

use crate::{
    Dynamic, NameError, NameState, OnFull, OpenError, Options, ReadError, Reading, Record,
    TypedRecord, Update, ValueError, WriteError,
    draft::{ByFlags, STATUSES, Stage},
    native::{Cursor, Native},
    patience::Patience,
    ring::{Ring, is_before, later},
    segment::{Segment, Waker, nap},
    slots::{Look, State},
    stride::Stride,
};
use polyshm_platform::{
    Deadline, LIVENESS_SLICE, Pace, WaitSource, Waiter, process,
    sync::Ordering::{Acquire, Relaxed, Release},
};
use polyshm_wire::slots::Schema;
use std::{convert::Infallible, fmt, marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

/// A registered reader that writers wait for.
const READER: u32 = 1;
/// A registered process that takes items by the shared read index.
const CONSUMER: u32 = 2;

/// Items that one look passes over, at most, before it gives way.
const LOOKS: u32 = 64;

/// A FIFO of records in shared memory.
///
/// A writer stages the fields of a record in one or more steps and finalizes
/// it; readers take records in order, or the latest. Fields that are not staged
/// keep what the slot held before, as many records ago as there are slots.
/// Python's `SharedMemory(..., slots=n)` is the same thing.
///
/// How a handle reads is its own choice ([`Reading`]), and what a writer does
/// when there is no room ([`OnFull`]):
///
/// | writer | reader | when full | exact |
/// |---|---|---|---|
/// | Rust, any number | `Broadcast`, any number | any | delivered + [`lost`](Self::lost) = finalized |
/// | Rust, any number | `Registered`, up to 32 | `Block`, `Refuse` | every item delivered |
/// | Rust, any number | `Shared`, up to 32 with those; one without the trailer | any | delivered + [`overwritten`](Self::overwritten) + skipped = finalized, each item to one |
/// | Rust, one | one Python reader, not `latest` | `Block`, `Refuse` | every item delivered |
/// | Rust | Python readers otherwise | | whole records; items may be lost or repeated, as with the original |
/// | one Python writer | `Broadcast`, any number; no Python reader | | delivered + [`lost`](Self::lost) = finalized |
/// | one Python writer | `Shared`, one; no Python reader | | delivered + [`lost`](Self::lost) = finalized |
///
/// A handle belongs to one thread; [`try_clone`](Self::try_clone) gives another. It
/// belongs to one process too: after a fork, open the segment again.
///
/// ```
/// use polyshm_slots::{Record, SlotFifo};
/// use std::time::Duration;
///
/// #[derive(Record)]
/// struct Sensor {
///     temperature: f64,
///     pressure: f64,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let name = format!("polyshm-doc-fifo-{}", std::process::id());
/// let mut writer = SlotFifo::<Sensor>::create(&name, 10)?;
/// let mut reader = SlotFifo::<Sensor>::open(&name, 10)?;
///
/// writer.stage(Sensor::update().temperature(23.5))?;
/// writer.stage(Sensor::update().pressure(1013.0))?;
/// writer.finalize()?;
///
/// let item = reader.read(Duration::from_secs(1))?;
/// assert_eq!((*item.temperature, *item.pressure), (23.5, 1013.0));
/// assert_eq!((item.index(), item.overrun()), (0, 0));
/// writer.unlink()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "SharedMemory")]
pub struct SlotFifo<R: Record> {
    segment: Arc<Segment>,
    options: Options,
    id: u64,
    stage: Stage,
    /// Something was staged, if only that nothing is to be written.
    dirty: bool,
    /// One after the last item that this handle finalized.
    written: u64,
    stride: Stride,
    place: Place,
    /// When dead readers are looked for.
    pace: Pace,
    waiter: Waiter,
    record: PhantomData<fn() -> R>,
}

/// Where a handle reads.
#[derive(Debug)]
struct Place {
    /// Of the record that is being read.
    statuses: Vec<u64>,
    reading: Reading,
    /// The next item.
    position: u64,
    /// Lost and passed over since the last item that was delivered.
    overrun: u64,
    skipped: u64,
    /// Lost since the handle was opened.
    lost: u64,
    /// Which cursor is ours, and whether any is needed.
    cursor: Option<usize>,
}

/// A record that was read from a FIFO: its fields, and which one it is.
///
/// Dereferences to the fields.
pub struct Item<R: Record> {
    fields: R::Fields,
    index: u64,
    overrun: u64,
    skipped: u64,
}

impl<R: Record> Item<R> {
    /// How many records were finalized before this one.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many records between the one that this handle read before and this
    /// one it did not get: they were overwritten. With [`Reading::Shared`] also
    /// those that others took.
    pub const fn overrun(&self) -> u64 {
        self.overrun
    }

    /// How many records this handle passed over by
    /// [`read_latest`](SlotFifo::read_latest).
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The fields alone.
    pub fn into_fields(self) -> R::Fields {
        self.fields
    }
}

impl<R: Record<Fields: Clone>> Clone for Item<R> {
    fn clone(&self) -> Self {
        Self {
            fields: self.fields.clone(),
            ..*self
        }
    }
}

impl<R: Record> Deref for Item<R> {
    type Target = R::Fields;

    #[inline]
    fn deref(&self) -> &R::Fields {
        &self.fields
    }
}

impl<R: Record> fmt::Debug for Item<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("fields", &self.fields)
            .field("index", &self.index)
            .field("overrun", &self.overrun)
            .field("skipped", &self.skipped)
            .finish()
    }
}

impl<R: TypedRecord> SlotFifo<R> {
    /// Creates an empty FIFO of so many slots, at least 2.
    ///
    /// # Errors
    ///
    /// [`OpenError::AlreadyExists`], [`OpenError::Layout`]; or the system
    /// refuses.
    pub fn create(name: &str, slots: u64) -> Result<Self, OpenError> {
        Self::create_with(name, slots, Options::new())
    }

    /// As [`create`](Self::create), with options.
    ///
    /// # Errors
    ///
    /// As there; with [`Replace::Abandoned`](crate::Replace) also
    /// [`OpenError::OwnerAlive`].
    pub fn create_with(name: &str, slots: u64, options: Options) -> Result<Self, OpenError> {
        Self::created(name, R::schema(), slots, options)
    }

    /// Opens a FIFO of so many slots.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`]; [`OpenError::Mismatch`] when it was created for
    /// another schema or number of slots, [`OpenError::Length`] when its length
    /// says so.
    pub fn open(name: &str, slots: u64) -> Result<Self, OpenError> {
        Self::open_with(name, slots, Options::new())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    ///
    /// As there; [`OpenError::NeedsTrailer`] and [`OpenError::TooManyReaders`]
    /// with [`Reading::Registered`].
    pub fn open_with(name: &str, slots: u64, options: Options) -> Result<Self, OpenError> {
        Self::opened(name, Some(R::schema()), Some(slots), options)
    }
}

impl SlotFifo<Dynamic> {
    /// Creates a FIFO for a schema that is known only now.
    ///
    /// # Errors
    ///
    /// As [`SlotFifo::create`].
    pub fn create_dynamic(
        name: &str,
        schema: &Schema,
        slots: u64,
        options: Options,
    ) -> Result<Self, OpenError> {
        Self::created(name, schema, slots, options)
    }

    /// Opens a FIFO by a schema that is known only now.
    ///
    /// # Errors
    ///
    /// As [`SlotFifo::open_with`].
    pub fn open_dynamic(
        name: &str,
        schema: &Schema,
        slots: u64,
        options: Options,
    ) -> Result<Self, OpenError> {
        Self::opened(name, Some(schema), Some(slots), options)
    }

    /// Opens a FIFO by the schema and the number of slots that its trailer
    /// tells.
    ///
    /// # Errors
    ///
    /// As [`SlotFifo::open_with`]; [`OpenError::NoSchema`] when it has no
    /// trailer.
    pub fn discover(name: &str, options: Options) -> Result<Self, OpenError> {
        Self::opened(name, None, None, options)
    }
}

impl<R: Record> SlotFifo<R> {
    fn created(
        name: &str,
        schema: &Schema,
        slots: u64,
        options: Options,
    ) -> Result<Self, OpenError> {
        check_slots(name, slots)?;
        let segment = Segment::create(name, schema, slots, &options)?;
        Self::handle(Arc::new(segment), options)
    }

    fn opened(
        name: &str,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: Options,
    ) -> Result<Self, OpenError> {
        if let Some(slots) = slots {
            check_slots(name, slots)?;
        }
        Self::of(Segment::open(name, schema, slots, &options)?, options)
    }

    /// A handle on a segment of any number of slots.
    pub(crate) fn of(segment: Segment, options: Options) -> Result<Self, OpenError> {
        check_slots(&segment.name, segment.layout.slots())?;
        Self::handle(Arc::new(segment), options)
    }

    fn handle(segment: Arc<Segment>, options: Options) -> Result<Self, OpenError> {
        let fields = segment.layout.fields().len();
        let mut fifo = Self {
            id: segment.new_id(),
            stage: Stage::new(&segment.layout),
            dirty: false,
            written: 0,
            stride: Stride::default(),
            place: Place {
                statuses: vec![0; fields.div_ceil(STATUSES)],
                reading: options.reading,
                position: 0,
                overrun: 0,
                skipped: 0,
                lost: 0,
                cursor: None,
            },
            pace: Pace::new(LIVENESS_SLICE),
            waiter: Waiter::new(options.strategy),
            options,
            segment,
            record: PhantomData,
        };
        fifo.take_place()?;
        Ok(fifo)
    }

    /// Starts reading at the oldest item there is.
    fn take_place(&mut self) -> Result<(), OpenError> {
        let segment = &*self.segment;
        let oldest = || {
            let next = segment.committed();
            next.wrapping_sub(next.min(segment.ring().slots()))
        };
        let kind = match (self.options.reading, &segment.native) {
            (Reading::Broadcast, _) | (Reading::Shared, None) => {
                self.place.position = match self.options.reading {
                    Reading::Shared => segment.ring().read_index(),
                    _ => oldest(),
                };
                return Ok(());
            }
            (Reading::Registered, None) => {
                return Err(OpenError::NeedsTrailer {
                    name: Arc::clone(&segment.name),
                    what: "a registered reader",
                });
            }
            (Reading::Registered, Some(_)) => READER,
            (Reading::Shared, Some(_)) => CONSUMER,
        };
        // Writers look at the cursors with the lock held, so none overwrites
        // what this reader is to get.
        let _lock = segment
            .lock(self.id, self.options.lock_timeout)
            .map_err(|busy| busy.into_open_error(&segment.name))?;
        self.place.position = match self.options.reading {
            Reading::Shared => segment.ring().read_index(),
            _ => oldest(),
        };
        let cursors = segment.cursors();
        let free = cursors.iter().position(Cursor::is_free);
        let Some(free) = free else {
            return Err(OpenError::TooManyReaders {
                name: Arc::clone(&segment.name),
                limit: cursors.len(),
            });
        };
        cursors[free].take(segment.mark, kind, self.place.position);
        self.place.cursor = Some(free);
        Ok(())
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.segment.name
    }

    /// The record's schema.
    pub fn schema(&self) -> &Schema {
        self.segment.layout.schema()
    }

    /// The number of slots.
    #[doc(alias = "slots")]
    pub fn capacity(&self) -> u64 {
        self.segment.layout.slots()
    }

    /// Whether the segment has the native trailer.
    pub fn has_trailer(&self) -> bool {
        self.segment.native.is_some()
    }

    /// How many records were finalized so far.
    pub fn finalized(&self) -> u64 {
        self.segment.committed()
    }

    /// How many records a read of this handle would find one after the other.
    pub fn unread(&self) -> u64 {
        let next = self.segment.committed();
        let position = match self.place.reading {
            Reading::Shared => later(self.place.position, self.segment.ring().read_index()),
            Reading::Broadcast | Reading::Registered => self.place.position,
        };
        let ahead = next.wrapping_sub(position).cast_signed().max(0);
        ahead.unsigned_abs().min(self.capacity())
    }

    /// How many records this handle did not get, as [`Item::overrun`], since it
    /// was opened: also those after the last one that it got, as far as it has
    /// looked.
    pub const fn lost(&self) -> u64 {
        self.place.lost
    }

    /// How many records were overwritten before a handle that reads by
    /// [`Reading::Shared`] took them; all that were overwritten, when there is
    /// none. `None` without the trailer.
    pub fn overwritten(&self) -> Option<u64> {
        let native = self.segment.native.as_ref()?;
        Some(native.overwritten.load(Relaxed))
    }

    /// Stages fields of the next record; later values win. Nothing is shared
    /// yet, and arrays are copied.
    ///
    /// # Errors
    ///
    /// A value does not fit its field; then nothing of the update is staged.
    #[doc(alias = "write")]
    pub fn stage(&mut self, update: impl Update<R>) -> Result<(), WriteError> {
        let layout = &self.segment.layout;
        let refused = |source: ValueError| WriteError::Value {
            name: Arc::clone(&self.segment.name),
            source,
        };
        let mut draft = self.stage.draft(layout).checking();
        update.prepare(&mut draft).map_err(refused)?;
        let mut draft = self.stage.draft(layout).owning();
        update.prepare(&mut draft).map_err(refused)?;
        self.dirty = true;
        Ok(())
    }

    /// Commits what was staged as one record, and gives its index; `None` when
    /// nothing was staged.
    ///
    /// With [`OnFull::Block`] it waits for room. A reader that sees the item
    /// sees its values: the publication is a release store, the look an acquire
    /// load (format, section 5.5).
    ///
    /// # Errors
    ///
    /// [`WriteError::Full`], [`WriteError::Busy`], [`WriteError::Unlinked`].
    /// What was staged stays staged.
    pub fn finalize(&mut self) -> Result<Option<u64>, WriteError> {
        if !self.dirty {
            return Ok(None);
        }
        let item = self.commit(|_| &[])?;
        self.discard();
        Ok(Some(item))
    }

    /// Forgets what was staged.
    pub fn discard(&mut self) {
        self.stage.clear();
        self.dirty = false;
    }

    /// Stages an update and finalizes it, with what was staged before; a large
    /// array goes straight to its slot.
    ///
    /// # Errors
    ///
    /// As [`stage`](Self::stage) and [`finalize`](Self::finalize). What was
    /// staged before stays; the update is not staged.
    pub fn push(&mut self, update: impl Update<R>) -> Result<u64, WriteError> {
        let layout = &self.segment.layout;
        let refused = |source: ValueError| WriteError::Value {
            name: Arc::clone(&self.segment.name),
            source,
        };
        let before = self.dirty.then(|| self.stage.clone());
        let pushed = match update.prepare(&mut self.stage.draft(layout)) {
            Ok(()) => {
                let segment = Arc::clone(&self.segment);
                self.commit(|field| update.large(segment.layout.schema(), field))
            }
            Err(source) => Err(refused(source)),
        };
        match (before, &pushed) {
            (Some(before), Err(_)) => self.stage = before,
            _ => self.discard(),
        }
        pushed
    }

    fn commit<'u>(&mut self, large: impl Fn(usize) -> &'u [u8]) -> Result<u64, WriteError> {
        if self.stride.is_due() {
            self.segment.check_name()?;
        }
        self.segment
            .slots
            .prefetch(self.segment.ring().slot(self.written));
        let mut deadline = None;
        loop {
            let segment = &*self.segment;
            let ring = segment.ring();
            let lock = segment
                .lock(self.id, self.options.lock_timeout)
                .map_err(|busy| busy.into_write_error(&segment.name))?;
            let item = later(segment.committed(), self.written);
            if self.has_room(item) {
                self.make_room(item);
                let slot = ring.slot(item);
                let number = segment.item_number(slot);
                let next = item.wrapping_add(1);
                if let Some(native) = &segment.native {
                    native.announce(self.stage.bits());
                    native.begin_item(item);
                }
                segment
                    .slots
                    .write(slot, number, &segment.layout, &self.stage, &large, || {
                        segment.commit(next);
                    });
                ring.publish(next);
                drop(lock);
                if let Some(native) = &segment.native {
                    native.news.ring();
                }
                self.written = next;
                return Ok(item);
            }
            // A reader of another implementation may have stored back what it
            // loaded before.
            ring.republish(item);
            drop(lock);
            let full = || WriteError::Full {
                name: Arc::clone(&segment.name),
            };
            if self.options.on_full != OnFull::Block {
                if self.pace.is_due() && self.bury_readers() {
                    continue;
                }
                return Err(full());
            }
            let deadline = *deadline.get_or_insert_with(|| {
                let timeout = self.options.full_timeout;
                timeout.map_or_else(Deadline::never, Deadline::after)
            });
            let mut room = Room {
                fifo: self,
                pace: Pace::new(LIVENESS_SLICE),
                item,
            };
            let Ok(found) = self.waiter.wait(&mut room, deadline);
            if found.is_none() {
                return Err(full());
            }
        }
    }

    /// The first item that somebody whom writers wait for has not read; `None`
    /// when there is nobody but this handle, which cannot read while it writes.
    fn floor(&self) -> Option<u64> {
        let segment = &*self.segment;
        let mut floor = None;
        let mut registered = false;
        let mut shared = self.options.foreign_consumer;
        for (index, cursor) in segment.cursors().iter().enumerate() {
            let kind = cursor.kind();
            registered |= kind != 0;
            if self.place.cursor == Some(index) {
                continue;
            }
            if kind == READER {
                let position = cursor.position();
                floor = Some(match floor {
                    Some(floor) if is_before(floor, position) => floor,
                    _ => position,
                });
            }
            shared |= kind == CONSUMER;
        }
        if !shared && registered {
            return floor;
        }
        let read = segment.ring().read_index();
        match floor {
            Some(floor) if is_before(floor, read) => Some(floor),
            _ => Some(read),
        }
    }

    fn has_room(&self, item: u64) -> bool {
        if self.options.on_full == OnFull::Overwrite {
            return true;
        }
        let Some(floor) = self.floor() else {
            return true;
        };
        item.wrapping_sub(floor).cast_signed() < self.capacity().cast_signed()
    }

    /// Moves the shared read index past what the item overwrites, before it
    /// does: a consumer that has copied it can no longer take it.
    fn make_room(&self, item: u64) {
        let segment = &*self.segment;
        let ring = segment.ring();
        let victim = item.wrapping_sub(ring.slots());
        loop {
            let read = ring.read_index();
            // Signed, as a damaged index may be ahead.
            let over = victim.wrapping_sub(read).cast_signed();
            if over < 0 {
                return;
            }
            let next = victim.wrapping_add(1);
            if ring.advance(read, next, item) {
                // Otherwise nobody goes by this index.
                if let Some(native) = &segment.native
                    && self.options.on_full == OnFull::Overwrite
                {
                    let lost = next.wrapping_sub(read);
                    native.overwritten.fetch_add(lost, Relaxed);
                }
                return;
            }
        }
    }

    /// Forgets registered readers that died; gives whether there were any. The
    /// caller holds no lock.
    fn bury_readers(&self) -> bool {
        let segment = &*self.segment;
        if segment.cursors().iter().all(|cursor| !cursor.is_dead()) {
            return false;
        }
        let Ok(_lock) = segment.lock(self.id, Duration::ZERO) else {
            return false;
        };
        for cursor in segment.cursors().iter().filter(|cursor| cursor.is_dead()) {
            cursor.free();
        }
        true
    }

    /// Makes items visible again that a Python reader hid: it stores the write
    /// index back as it was when it began to read. Writing does so too; call it
    /// from time to time while nothing is written and a Python process reads.
    ///
    /// # Errors
    ///
    /// As [`finalize`](Self::finalize), never [`WriteError::Full`].
    pub fn republish(&self) -> Result<(), WriteError> {
        self.republish_within(self.options.lock_timeout)
    }

    fn republish_within(&self, patience: Duration) -> Result<(), WriteError> {
        let segment = &*self.segment;
        let _lock = segment
            .lock(self.id, patience)
            .map_err(|busy| busy.into_write_error(&segment.name))?;
        segment
            .ring()
            .republish(later(segment.committed(), self.written));
        Ok(())
    }

    /// Waits until whoever holds writers back has read everything; gives
    /// whether that was in time. [Republishes](Self::republish) meanwhile.
    ///
    /// # Errors
    ///
    /// As [`republish`](Self::republish).
    pub fn drain(&self, timeout: Duration) -> Result<bool, WriteError> {
        const LOOK_INTERVAL: Duration = Duration::from_micros(200);
        let deadline = Deadline::after(timeout);
        loop {
            self.republish()?;
            let is_behind = |floor| is_before(floor, self.segment.committed());
            if !self.floor().is_some_and(is_behind) {
                return Ok(true);
            }
            if deadline.expired() {
                return Ok(false);
            }
            self.bury_readers();
            nap(deadline.at_most(LOOK_INTERVAL));
        }
    }

    /// Reads the next record, in the order in which they were finalized; waits
    /// for it.
    ///
    /// # Errors
    ///
    /// [`ReadError::Timeout`]; [`ReadError::Busy`] when a record is under way
    /// that should be there; [`ReadError::Unlinked`].
    pub fn read(&mut self, timeout: Duration) -> Result<Item<R>, ReadError> {
        let mut item = self.empty();
        self.read_into(&mut item, timeout)?;
        Ok(item)
    }

    /// As [`read`](Self::read), into an item that was read before, whose memory
    /// is used again. Its fields are worthless after an error.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_into(&mut self, item: &mut Item<R>, timeout: Duration) -> Result<(), ReadError> {
        self.wait(item, timeout, false)
    }

    /// Reads the latest record that was not read yet, and passes over those
    /// before it; waits for one.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_latest(&mut self, timeout: Duration) -> Result<Item<R>, ReadError> {
        let mut item = self.empty();
        self.read_latest_into(&mut item, timeout)?;
        Ok(item)
    }

    /// As [`read_latest`](Self::read_latest), into an item that was read
    /// before.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_latest_into(
        &mut self,
        item: &mut Item<R>,
        timeout: Duration,
    ) -> Result<(), ReadError> {
        self.wait(item, timeout, true)
    }

    /// Reads the next record, if there is one.
    pub fn try_read(&mut self) -> Option<Item<R>> {
        let mut item = self.empty();
        let mut taking = self.taking(&mut item, false, Duration::ZERO);
        taking.look().then_some(item)
    }

    /// Reads the latest record that was not read yet, if there is one.
    pub fn try_read_latest(&mut self) -> Option<Item<R>> {
        let mut item = self.empty();
        let mut taking = self.taking(&mut item, true, Duration::ZERO);
        taking.look().then_some(item)
    }

    /// An item that nothing was read into yet.
    pub fn empty(&self) -> Item<R> {
        Item {
            fields: R::empty(self.schema()),
            index: 0,
            overrun: 0,
            skipped: 0,
        }
    }

    fn taking<'a>(
        &'a mut self,
        item: &'a mut Item<R>,
        latest: bool,
        timeout: Duration,
    ) -> Taking<'a, R> {
        Taking {
            segment: &self.segment,
            place: &mut self.place,
            item,
            latest,
            busy: false,
            patience: Patience::new(timeout),
        }
    }

    fn wait(
        &mut self,
        item: &mut Item<R>,
        timeout: Duration,
        latest: bool,
    ) -> Result<(), ReadError> {
        let waiter = self.waiter;
        let mut taking = self.taking(item, latest, timeout);
        match waiter.wait(&mut taking, timeout)? {
            Some(()) => Ok(()),
            None => Err(taking.failure()),
        }
    }

    /// Looks whether the segment's name still stands for it, and restores it if
    /// [`Options::on_unlink`] says so.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn check_name(&self) -> Result<NameState, NameError> {
        self.segment.look_at_name()
    }

    /// Removes the segment's name; who has it open keeps it. Gives whether it
    /// was there.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink(&self) -> Result<bool, NameError> {
        self.segment.unlink()
    }

    /// Another handle on the same segment, for another thread. It has staged
    /// nothing, and reads from the oldest record on.
    ///
    /// # Errors
    ///
    /// [`OpenError::TooManyReaders`] with [`Reading::Registered`] and
    /// [`Reading::Shared`].
    pub fn try_clone(&self) -> Result<Self, OpenError> {
        Self::handle(Arc::clone(&self.segment), self.options)
    }
}

/// A FIFO has two slots at least; one slot is a store.
fn check_slots(name: &str, slots: u64) -> Result<(), OpenError> {
    if slots >= 2 {
        return Ok(());
    }
    Err(OpenError::TooFewSlots {
        name: name.into(),
        slots,
    })
}

impl<R: Record> Drop for SlotFifo<R> {
    fn drop(&mut self) {
        if let Some(cursor) = self.place.cursor.take() {
            self.segment.cursors()[cursor].give_back(self.segment.mark);
            if let Some(native) = &self.segment.native {
                native.room.ring_fenced();
            }
        }
    }
}

impl<R: Record> fmt::Debug for SlotFifo<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotFifo")
            .field("name", &self.segment.name)
            .field("schema", &format_args!("{}", self.schema()))
            .field("capacity", &self.capacity())
            .field("position", &self.place.position)
            .finish_non_exhaustive()
    }
}

impl Segment {
    pub(crate) fn ring(&self) -> &Ring {
        self.ring.as_ref().expect("the segment of a FIFO")
    }

    fn cursors(&self) -> &[Cursor] {
        self.native
            .as_ref()
            .map_or(&[], |native: &Native| &native.cursors)
    }

    /// One after the last item that was committed.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        let next = self.ring().write_index();
        match &self.native {
            // A Python reader may have stored the format's index back.
            // Acquire: pairs with the release in `commit`.
            Some(native) => later(next, native.written.load(Acquire)),
            None => next,
        }
    }

    /// Makes every item before `next` one of the FIFO, the last one with its
    /// tags still on: who dies from here on has finalized it.
    #[inline]
    fn commit(&self, next: u64) {
        if let Some(native) = &self.native {
            // Release: pairs with `committed`.
            native.written.store(next, Release);
        }
    }

    /// Completes what a writer left that died with the lock held: it may have
    /// committed an item and not published it, nor taken the tags off it. The
    /// caller holds the lock.
    pub(crate) fn complete_item(&self, native: &Native) {
        let next = native.written.load(Relaxed);
        if next == 0 || is_before(next, self.ring().write_index()) {
            return;
        }
        let slot = self.ring().slot(next.wrapping_sub(1));
        if let State::Aborted(number) = self.slots.state(slot) {
            self.slots.finish(slot, number);
        }
        self.ring().republish(next);
    }

    /// The number that a slot is written under next; says which values are lost
    /// when a writer died in it.
    #[inline]
    fn item_number(&self, slot: usize) -> u64 {
        match self.slots.state(slot) {
            State::Whole(number) | State::Foreign(number) => number.wrapping_add(1),
            State::Aborted(number) => {
                // Its tags stay on, so nobody has seen the number, nor will
                // before the item is there.
                self.slots.disclaim(slot, self.listed_by_the_dead());
                number
            }
        }
    }
}

impl Cursor {
    fn kind(&self) -> u32 {
        // Acquire: pairs with the release in `take`.
        self.kind.load(Acquire)
    }

    fn position(&self) -> u64 {
        // Acquire: pairs with the release in `move_to`; what a writer stores
        // next comes after what the reader copied.
        self.position.load(Acquire)
    }

    fn is_dead(&self) -> bool {
        self.kind() != 0 && !process::is_alive_marked(self.mark.load(Relaxed))
    }

    fn is_free(&self) -> bool {
        self.kind() == 0 || self.is_dead()
    }

    fn take(&self, mark: u32, kind: u32, position: u64) {
        self.mark.store(mark, Relaxed);
        self.position.store(position, Relaxed);
        // Release: pairs with the acquire in `kind`.
        self.kind.store(kind, Release);
    }

    fn free(&self) {
        // Release: pairs with the acquire in `kind`; the next reader's stores
        // come after. The mark stays: a death here leaves nothing half done.
        self.kind.store(0, Release);
    }

    /// Frees the line, unless it was taken for a dead reader's.
    fn give_back(&self, mark: u32) {
        if self.mark.load(Relaxed) == mark {
            self.free();
        }
    }

    fn move_to(&self, position: u64) {
        // Release: pairs with the acquire in `position`.
        self.position.store(position, Release);
    }
}

/// A read that waits.
struct Taking<'a, R: Record> {
    segment: &'a Segment,
    place: &'a mut Place,
    item: &'a mut Item<R>,
    latest: bool,
    /// The last look found a record under way that should be there.
    busy: bool,
    patience: Patience,
}

/// What a look at one item gave.
enum Taken {
    Yes,
    /// It was overwritten, or another took it: look at the next.
    Gone,
    /// Nothing to be had now.
    No,
}

impl<R: Record> Taking<'_, R> {
    /// Looks for an item; gives whether there is one now.
    #[inline]
    fn look(&mut self) -> bool {
        self.busy = false;
        for _ in 0..LOOKS {
            match self.take() {
                Taken::Yes => return true,
                Taken::Gone if self.patience.is_over() => return false,
                Taken::Gone => {}
                Taken::No => return false,
            }
        }
        false
    }

    #[inline]
    fn take(&mut self) -> Taken {
        let segment = self.segment;
        let ring = segment.ring();
        let shared = self.place.reading == Reading::Shared;
        let read = if shared { ring.read_index() } else { 0 };
        let next = segment.committed();
        // A writer of the original's stores the shared index as it loaded it
        // before, or one further: what it says is not believed (format,
        // section 7 D2).
        let believed = shared && segment.waker() != Waker::Foreign;
        if believed && is_before(self.place.position, read) && !is_before(next, read) {
            self.lose(read);
        }
        if !is_before(self.place.position, next) {
            if shared {
                // The original's writer goes by the count.
                ring.settle(next);
            }
            return self.begin_anew(next);
        }
        let oldest = next.wrapping_sub(ring.slots());
        if is_before(self.place.position, oldest) {
            self.lose(oldest);
        }
        let position = if self.latest {
            next.wrapping_sub(1)
        } else {
            self.place.position
        };
        match self.copy(position) {
            Copied::Yes => {}
            Copied::Overwritten => {
                // So are those before it.
                self.lose(position.wrapping_add(1));
                return Taken::Gone;
            }
            Copied::Busy => {
                self.busy = true;
                return Taken::No;
            }
        }
        let after = position.wrapping_add(1);
        if shared && !ring.advance(read, after, next) && believed {
            return Taken::Gone;
        }
        let place = &mut *self.place;
        let skipped = position.wrapping_sub(place.position);
        self.item.index = position;
        self.item.overrun = std::mem::take(&mut place.overrun);
        self.item.skipped = std::mem::take(&mut place.skipped).wrapping_add(skipped);
        self.move_to(after);
        if shared && let Some(native) = &segment.native {
            // The exchange of the index was an atomic update.
            native.room.ring();
        }
        Taken::Yes
    }

    /// Goes on at a later item; those between are lost.
    fn lose(&mut self, position: u64) {
        let lost = position.wrapping_sub(self.place.position);
        self.place.overrun = self.place.overrun.wrapping_add(lost);
        self.place.lost = self.place.lost.wrapping_add(lost);
        self.move_to(position);
    }

    fn move_to(&mut self, position: u64) {
        self.place.position = position;
        if self.place.reading != Reading::Registered {
            return;
        }
        if let (Some(cursor), Some(native)) = (self.place.cursor, &self.segment.native) {
            native.cursors[cursor].move_to(position);
            native.room.ring_fenced();
        }
    }

    /// There is nothing, unless the index is far behind: the segment was begun
    /// anew, or is damaged.
    #[inline]
    fn begin_anew(&mut self, next: u64) -> Taken {
        let behind = self.place.position.wrapping_sub(next);
        if behind <= self.segment.ring().slots() {
            return Taken::No;
        }
        let oldest = next.wrapping_sub(next.min(self.segment.ring().slots()));
        self.move_to(oldest);
        Taken::Gone
    }

    /// Copies an item out.
    #[inline]
    fn copy(&mut self, position: u64) -> Copied {
        let segment = self.segment;
        let ring = segment.ring();
        let look = segment.slots.read::<R>(
            ring.slot(position),
            &segment.layout,
            &mut self.place.statuses,
            &mut self.item.fields,
            &mut ByFlags,
        );
        if matches!(look, Look::Torn(_)) {
            self.patience.waste(&segment.layout);
        }
        match look {
            Look::Whole(number) if number == ring.number(position) => Copied::Yes,
            // The slot's numbers are ahead since another implementation lost
            // count: it is this item all the same.
            Look::Whole(_)
                if segment.native.as_ref().is_some_and(|native| {
                    !native.has_begun(position.wrapping_add(ring.slots()))
                }) && segment.waker() == Waker::Native =>
            {
                Copied::Yes
            }
            // Only the item a lap ahead is written over this one.
            _ if segment.committed().wrapping_sub(position) >= ring.slots() => Copied::Overwritten,
            // Another implementation has lost count of the slot's writes.
            Look::Whole(_) => Copied::Yes,
            Look::UnderWay { .. } | Look::Torn(_) => Copied::Busy,
        }
    }

    fn failure(&self) -> ReadError {
        let name = Arc::clone(&self.segment.name);
        if self.busy {
            let native = self.segment.native.as_ref();
            return match native.and_then(|native| native.lock.dead_holder()) {
                Some(pid) => ReadError::WriterDied { name, pid },
                None => ReadError::Busy { name },
            };
        }
        if !self.patience.is_none() && self.segment.is_lost() {
            return ReadError::Unlinked { name };
        }
        ReadError::Timeout { name }
    }
}

enum Copied {
    Yes,
    Overwritten,
    Busy,
}

impl<R: Record> WaitSource for Taking<'_, R> {
    type Output = ();
    type Error = ReadError;

    #[inline]
    fn poll(&mut self) -> Result<Option<()>, ReadError> {
        if self.look() {
            return Ok(Some(()));
        }
        if self.patience.is_over() {
            return Err(self.failure());
        }
        Ok(None)
    }

    fn park(&mut self, until: Deadline) -> Result<Option<()>, ReadError> {
        let segment = self.segment;
        let waker = if self.busy {
            Waker::Foreign
        } else {
            segment.waker()
        };
        let found = segment.sleep_for_news(waker, until, || self.look().then_some(()));
        Ok(found)
    }

    fn glance(&mut self) -> Result<Option<()>, ReadError> {
        Ok(None)
    }

    fn check(&mut self) -> Result<Option<()>, ReadError> {
        Ok(None)
    }
}

impl Segment {
    /// Who committed last, and so may commit next.
    #[inline]
    fn waker(&self) -> Waker {
        let Some(native) = &self.native else {
            return Waker::Foreign;
        };
        // In this order: ours is stored first, and never seen behind.
        let next = self.ring().write_index();
        let written = native.written.load(Relaxed);
        if is_before(written, next) {
            Waker::Foreign
        } else if next == 0 {
            Waker::Unknown
        } else {
            Waker::Native
        }
    }
}

/// A write that waits for room.
struct Room<'a, R: Record> {
    fifo: &'a SlotFifo<R>,
    pace: Pace,
    item: u64,
}

impl<R: Record> WaitSource for Room<'_, R> {
    type Output = ();
    type Error = Infallible;

    #[inline]
    fn poll(&mut self) -> Result<Option<()>, Infallible> {
        Ok(self.fifo.has_room(self.item).then_some(()))
    }

    fn park(&mut self, until: Deadline) -> Result<Option<()>, Infallible> {
        let fifo = self.fifo;
        if self.pace.is_due() {
            fifo.bury_readers();
        }
        // A Python reader wakes nobody, and needs to see what there is.
        let mut cursors = fifo.segment.cursors().iter();
        let registered = cursors.any(|cursor| cursor.kind() != 0);
        let waker = if registered && !fifo.options.foreign_consumer {
            Waker::Native
        } else {
            // Whoever writes meanwhile does it as well.
            let _ = fifo.republish_within(Duration::ZERO);
            Waker::Foreign
        };
        let item = self.item;
        let found = fifo
            .segment
            .sleep_for_room(waker, until, || fifo.has_room(item).then_some(()));
        Ok(found)
    }

    fn glance(&mut self) -> Result<Option<()>, Infallible> {
        Ok(None)
    }

    fn check(&mut self) -> Result<Option<()>, Infallible> {
        self.fifo.bury_readers();
        self.poll()
    }
}
