//! One slot: the latest value (format, section 5.3).

use crate::{
    Dynamic, Filler, NameError, NameState, OpenError, Options, ReadError, Record, TypedRecord,
    Update, WriteError,
    draft::{STATUSES, Stage},
    native::{Baseline, Compare, FAR, Native},
    patience::Patience,
    segment::{Busy, Segment, Waker},
    slots::{Look, State},
    stride::Stride,
};
use polyshm_platform::{Deadline, WaitSource, Waiter};
use polyshm_wire::slots::Schema;
use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc, time::Duration};

/// The slot of a store.
const SLOT: usize = 0;

/// Looks that find a write under way before the writer is asked for a copy: few
/// where a write takes long.
const fn patience(slot_size: usize) -> u32 {
    if slot_size > 4096 { 2 } else { 64 }
}

/// A record in shared memory: the latest value of each field.
///
/// Writers replace any subset of the fields, and readers get them together:
/// never half of one write. Any number of threads and processes may write (one
/// at a time, others wait their turn) and read. Python's
/// `SharedMemory(..., slots=1)` is the same thing.
///
/// A handle belongs to one thread; [`clone`](Clone::clone) gives another. It
/// belongs to one process too: after a fork, open the segment again. Dropping
/// it leaves the segment; see [`unlink`](Self::unlink).
///
/// ```
/// use polyshm_slots::{Record, SlotStore};
/// use std::time::Duration;
///
/// #[derive(Record)]
/// struct Sensor {
///     temperature: f64,
///     count: i32,
///     #[record("str[32]")]
///     status_msg: String,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let name = format!("polyshm-doc-store-{}", std::process::id());
/// let mut writer = SlotStore::<Sensor>::create(&name)?;
/// let mut reader = SlotStore::<Sensor>::open(&name)?;
///
/// writer.write(Sensor::update().temperature(23.5).status_msg("OK"))?;
/// let seen = reader.read_new(Duration::from_secs(1))?;
/// assert_eq!(seen.temperature.valid(), Some(&23.5));
/// assert_eq!(seen.status_msg.as_str(), "OK");
/// assert!(seen.count.is_unwritten());
///
/// writer.write(Sensor::update().count(7))?;
/// let seen = reader.read_new(Duration::from_secs(1))?;
/// assert!(seen.count.is_changed() && !seen.temperature.is_changed());
/// assert_eq!(*seen.temperature, 23.5);
/// writer.unlink()?;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "SharedMemory")]
pub struct SlotStore<R: Record> {
    segment: Arc<Segment>,
    options: Options,
    id: u64,
    stage: Stage,
    stride: Stride,
    view: View,
    waiter: Waiter,
    record: PhantomData<fn() -> R>,
}

/// What a handle has seen.
#[derive(Debug)]
struct View {
    /// Of the record that is being read.
    statuses: Vec<u64>,
    /// The number of the last record that was read; 0 before the first.
    seen: u64,
    baseline: Baseline,
}

/// A record that was read: its fields, and which one it is.
///
/// Dereferences to the fields.
pub struct Snapshot<R: Record> {
    pub(crate) fields: R::Fields,
    pub(crate) number: u64,
    pub(crate) missed: u64,
    pub(crate) exact: bool,
}

impl<R: Record> Snapshot<R> {
    /// How many writes the slot had when this record was current; 0 when it was
    /// never written.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// How many writes came between the record that this handle read before and
    /// this one. 0 at the first read.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// Whether [`Field::changes`](crate::Field::changes) counts exactly. It
    /// does when the handle missed no write, and, with the native trailer, when
    /// only writers of this library wrote and none of them died at it.
    /// Otherwise every field may have changed, and is said to.
    pub const fn is_exact(&self) -> bool {
        self.exact
    }

    /// The fields alone.
    pub fn into_fields(self) -> R::Fields {
        self.fields
    }
}

impl<R: Record<Fields: Clone>> Clone for Snapshot<R> {
    fn clone(&self) -> Self {
        Self {
            fields: self.fields.clone(),
            ..*self
        }
    }
}

impl<R: Record> Deref for Snapshot<R> {
    type Target = R::Fields;

    #[inline]
    fn deref(&self) -> &R::Fields {
        &self.fields
    }
}

impl<R: Record> fmt::Debug for Snapshot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("fields", &self.fields)
            .field("number", &self.number)
            .field("missed", &self.missed)
            .field("exact", &self.exact)
            .finish()
    }
}

impl<R: TypedRecord> SlotStore<R> {
    /// Creates a segment with one slot, never written.
    ///
    /// # Errors
    ///
    /// [`OpenError::AlreadyExists`]; or the system refuses.
    pub fn create(name: &str) -> Result<Self, OpenError> {
        Self::create_with(name, Options::new())
    }

    /// As [`create`](Self::create), with options.
    ///
    /// # Errors
    ///
    /// As there; with [`Replace::Abandoned`](crate::Replace) also
    /// [`OpenError::OwnerAlive`].
    pub fn create_with(name: &str, options: Options) -> Result<Self, OpenError> {
        let segment = Segment::create(name, R::schema(), 1, &options)?;
        Ok(Self::of(segment, options))
    }

    /// Opens a segment with one slot.
    ///
    /// # Errors
    ///
    /// [`OpenError::NotFound`]; [`OpenError::Mismatch`] when it was created for
    /// another schema or number of slots, [`OpenError::Length`] when its length
    /// says so.
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_with(name, Options::new())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_with(name: &str, options: Options) -> Result<Self, OpenError> {
        let segment = Segment::open(name, Some(R::schema()), Some(1), &options)?;
        Ok(Self::of(segment, options))
    }
}

impl SlotStore<Dynamic> {
    /// Creates a segment for a schema that is known only now.
    ///
    /// ```
    /// use polyshm_slots::{Options, Schema, SlotStore, Values};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let schema: Schema = "temperature: float, status_msg: str[32]".parse()?;
    /// let name = format!("polyshm-doc-dynamic-{}", std::process::id());
    /// let mut store = SlotStore::create_dynamic(&name, &schema, Options::new())?;
    /// store.write(Values::new().with("temperature", 23.5))?;
    /// let seen = store.read(std::time::Duration::from_secs(1))?;
    /// assert_eq!(seen.get("temperature").unwrap().as_f64(), Some(23.5));
    /// store.unlink()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`SlotStore::create`]; [`OpenError::Layout`] when it is too large.
    pub fn create_dynamic(
        name: &str,
        schema: &Schema,
        options: Options,
    ) -> Result<Self, OpenError> {
        let segment = Segment::create(name, schema, 1, &options)?;
        Ok(Self::of(segment, options))
    }

    /// Opens a segment by a schema that is known only now.
    ///
    /// # Errors
    ///
    /// As [`SlotStore::open`].
    pub fn open_dynamic(name: &str, schema: &Schema, options: Options) -> Result<Self, OpenError> {
        let segment = Segment::open(name, Some(schema), Some(1), &options)?;
        Ok(Self::of(segment, options))
    }

    /// Opens a segment by the schema that its trailer tells.
    ///
    /// # Errors
    ///
    /// As [`SlotStore::open`]; [`OpenError::NoSchema`] when it has no trailer.
    pub fn discover(name: &str, options: Options) -> Result<Self, OpenError> {
        let segment = Segment::open(name, None, Some(1), &options)?;
        Ok(Self::of(segment, options))
    }
}

impl<R: Record> SlotStore<R> {
    pub(crate) fn of(segment: Segment, options: Options) -> Self {
        Self::handle(Arc::new(segment), options)
    }

    fn handle(segment: Arc<Segment>, options: Options) -> Self {
        let fields = segment.layout.fields().len();
        Self {
            id: segment.new_id(),
            stage: Stage::new(&segment.layout),
            stride: Stride::default(),
            view: View {
                statuses: vec![0; fields.div_ceil(STATUSES)],
                seen: 0,
                baseline: Baseline::new(fields),
            },
            waiter: Waiter::new(options.strategy),
            options,
            segment,
            record: PhantomData,
        }
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.segment.name
    }

    /// The record's schema.
    pub fn schema(&self) -> &Schema {
        self.segment.layout.schema()
    }

    /// Whether the segment has the native trailer.
    pub fn has_trailer(&self) -> bool {
        self.segment.native.is_some()
    }

    /// Writes some fields, or a whole record; the others keep their values.
    /// Gives the number of the write, which is the number of writes so far.
    ///
    /// All values are converted before the first shared byte changes. Waits
    /// only for other writers in the middle of a write, at most
    /// [`Options::lock_timeout`], and takes over from one that died.
    ///
    /// Readers that see the number see the values: the publication is a release
    /// store, their look an acquire load (format, sections 5.1 and 7 D1).
    ///
    /// # Errors
    ///
    /// [`WriteError::Value`], [`WriteError::Busy`], [`WriteError::Unlinked`].
    /// Nothing was written.
    #[inline]
    pub fn write(&mut self, update: impl Update<R>) -> Result<u64, WriteError> {
        self.segment.slots.prefetch(SLOT);
        if !update.is_whole() {
            self.prepare(&update)?;
        }
        if self.stride.is_due() {
            self.segment.check_name()?;
        }
        let segment = &*self.segment;
        let Some(native) = &segment.native else {
            let _lock = segment
                .lock(self.id, self.options.lock_timeout)
                .map_err(|busy| busy.into_write_error(&segment.name))?;
            return Ok(self.replace(&update, None));
        };
        let lock = match native.lock.guard(self.id, self.options.lock_timeout) {
            Ok((lock, _)) => lock,
            Err(pid) => return Err(Busy::By(pid).into_write_error(&segment.name)),
        };
        let number = self.replace(&update, Some(native));
        if native.is_asked() {
            native.refresh(&segment.slots, number);
        }
        drop(lock);
        native.news.ring();
        Ok(number)
    }

    /// Writes with the lock held; gives the number.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "both callers are one function, and it is its hot part"
    )]
    fn replace(&self, update: &impl Update<R>, native: Option<&Native>) -> u64 {
        let segment = &*self.segment;
        let number = match segment.slots.state(SLOT) {
            State::Whole(number) => number.wrapping_add(1),
            state => segment.mend(state),
        };
        if let Some(native) = native {
            let listed = if update.is_whole() {
                u64::MAX
            } else {
                self.stage.bits()
            };
            native.announce(listed);
        }
        let changes = native.and_then(|native| native.changes.as_ref());
        let (slots, layout) = (&segment.slots, &segment.layout);
        if update.is_whole() {
            let fill = |into: &mut Filler<'_>| update.fill(into);
            let count = || {
                if let Some(changes) = changes {
                    changes.count_full(number);
                }
            };
            slots.write_whole(SLOT, number, layout, self.stage.all(), fill, count);
        } else {
            let large = |field| update.large(layout.schema(), field);
            let count = || {
                if let Some(changes) = changes {
                    changes.count(&self.stage, number);
                }
            };
            slots.write(SLOT, number, layout, &self.stage, large, count);
        }
        number
    }

    #[inline(never)]
    fn prepare(&mut self, update: &impl Update<R>) -> Result<(), WriteError> {
        self.stage.clear();
        let mut draft = self.stage.draft(&self.segment.layout);
        update
            .prepare(&mut draft)
            .map_err(|source| WriteError::Value {
                name: Arc::clone(&self.segment.name),
                source,
            })
    }

    /// Puts right what a writer left that died in the middle of a write, as the
    /// next write does: the record before comes back when a buffer has it;
    /// otherwise the fields that it was writing are unwritten.
    ///
    /// Gives whether there was anything. A writer of another implementation
    /// that is at work is left alone.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn repair(&mut self) -> Result<bool, WriteError> {
        let segment = &*self.segment;
        let _lock = segment
            .lock(self.id, self.options.lock_timeout)
            .map_err(|busy| busy.into_write_error(&segment.name))?;
        let state = segment.slots.state(SLOT);
        if !matches!(state, State::Aborted(_)) {
            return Ok(false);
        }
        segment.mend(state);
        Ok(true)
    }

    /// Reads the record, whether or not it was read before. A slot that was
    /// never written is read too, with every field unwritten.
    ///
    /// Waits only while a write is under way: with the trailer for at most the
    /// next whole one, however fast they come.
    ///
    /// # Errors
    ///
    /// [`ReadError::Busy`]: no whole record within the timeout;
    /// [`ReadError::WriterDied`].
    pub fn read(&mut self, timeout: Duration) -> Result<Snapshot<R>, ReadError> {
        let mut snapshot = self.empty();
        self.read_into(&mut snapshot, timeout)?;
        Ok(snapshot)
    }

    /// As [`read`](Self::read), into a record that was read before, whose
    /// memory is used again. Its fields are worthless after an error.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn read_into(
        &mut self,
        snapshot: &mut Snapshot<R>,
        timeout: Duration,
    ) -> Result<(), ReadError> {
        self.wait(snapshot, timeout, Want::Any)
    }

    /// Reads the record if no write is under way at this moment.
    pub fn try_read(&mut self) -> Option<Snapshot<R>> {
        let mut snapshot = self.empty();
        let mut reading = Reading::new(self, &mut snapshot, Want::Any, Duration::ZERO);
        reading.look().then_some(snapshot)
    }

    /// Waits for a record that this handle has not read yet, and reads it. The
    /// first time that is any that was ever written.
    ///
    /// Writers of this library wake it; others are looked for each 45 µs.
    ///
    /// # Errors
    ///
    /// [`ReadError::Timeout`]; [`ReadError::Busy`] and
    /// [`ReadError::WriterDied`] as in [`read`](Self::read);
    /// [`ReadError::Unlinked`].
    pub fn read_new(&mut self, timeout: Duration) -> Result<Snapshot<R>, ReadError> {
        let mut snapshot = self.empty();
        self.read_new_into(&mut snapshot, timeout)?;
        Ok(snapshot)
    }

    /// As [`read_new`](Self::read_new), into a record that was read before.
    ///
    /// # Errors
    ///
    /// As there.
    #[inline]
    pub fn read_new_into(
        &mut self,
        snapshot: &mut Snapshot<R>,
        timeout: Duration,
    ) -> Result<(), ReadError> {
        self.wait(snapshot, timeout, Want::New)
    }

    /// Reads a record that this handle has not read yet, if there is one.
    pub fn try_read_new(&mut self) -> Option<Snapshot<R>> {
        if self.segment.slots.end(SLOT) == self.view.seen {
            return None;
        }
        let mut snapshot = self.empty();
        let mut reading = Reading::new(self, &mut snapshot, Want::New, Duration::ZERO);
        reading.look().then_some(snapshot)
    }

    /// A record that nothing was read into yet.
    pub fn empty(&self) -> Snapshot<R> {
        Snapshot {
            fields: R::empty(self.schema()),
            number: 0,
            missed: 0,
            exact: true,
        }
    }

    #[inline]
    fn wait(
        &mut self,
        snapshot: &mut Snapshot<R>,
        timeout: Duration,
        want: Want,
    ) -> Result<(), ReadError> {
        if self.view.look(&self.segment, snapshot, want) == Found::Yes {
            return Ok(());
        }
        self.wait_slow(snapshot, timeout, want)
    }

    #[cold]
    #[inline(never)]
    fn wait_slow(
        &mut self,
        snapshot: &mut Snapshot<R>,
        timeout: Duration,
        want: Want,
    ) -> Result<(), ReadError> {
        let waiter = self.waiter;
        let mut reading = Reading::new(self, snapshot, want, timeout);
        match waiter.wait(&mut reading, timeout)? {
            Some(()) => Ok(()),
            None => Err(reading.failure()),
        }
    }

    /// Clears the MODIFIED flag of every field, for all readers, unless the
    /// record that this handle read last has been replaced. Gives whether it
    /// was cleared.
    ///
    /// For readers that share the flags with a Python process;
    /// [`Field::is_changed`](crate::Field::is_changed) needs none of it.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn reset_modified(&mut self) -> Result<bool, WriteError> {
        let segment = &*self.segment;
        let _lock = segment
            .lock(self.id, self.options.lock_timeout)
            .map_err(|busy| busy.into_write_error(&segment.name))?;
        Ok(segment.slots.reset_modified(SLOT, self.view.seen))
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
}

/// Another handle on the same segment, for another thread. It has read nothing
/// yet.
impl<R: Record> Clone for SlotStore<R> {
    fn clone(&self) -> Self {
        Self::handle(Arc::clone(&self.segment), self.options)
    }
}

impl<R: Record> fmt::Debug for SlotStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotStore")
            .field("name", &self.segment.name)
            .field("schema", &format_args!("{}", self.schema()))
            .field("seen", &self.view.seen)
            .finish_non_exhaustive()
    }
}

/// Which record a reader takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Any,
    /// One that it has not seen.
    New,
}

/// What a look at the slot gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A record.
    Yes,
    /// None that is new.
    Nothing,
    UnderWay(Option<u64>),
    Torn(u64),
}

impl View {
    #[inline]
    fn look<R: Record>(
        &mut self,
        segment: &Segment,
        snapshot: &mut Snapshot<R>,
        want: Want,
    ) -> Found {
        if want == Want::New && segment.slots.end(SLOT) == self.seen {
            return Found::Nothing;
        }
        let native = segment.native.as_ref();
        let changes = native.and_then(|native| native.changes.as_ref());
        let look = segment.slots.read::<R>(
            SLOT,
            &segment.layout,
            &mut self.statuses,
            &mut snapshot.fields,
            &mut Compare {
                baseline: &mut self.baseline,
                seen: self.seen,
                changes,
            },
        );
        match look {
            Look::Whole(number) => self.take(snapshot, number, want),
            Look::UnderWay { committed } => Found::UnderWay(committed),
            Look::Torn(committed) => Found::Torn(committed),
        }
    }

    /// The snapshot has a whole record.
    #[inline]
    fn take<R: Record>(&mut self, snapshot: &mut Snapshot<R>, number: u64, want: Want) -> Found {
        let ahead = number.wrapping_sub(self.seen);
        if want == Want::New && ahead == 0 {
            return Found::Nothing;
        }
        self.baseline.accept(number);
        snapshot.number = number;
        snapshot.exact = self.baseline.is_exact();
        snapshot.missed = if self.seen == 0 || ahead == 0 || ahead >= FAR {
            0
        } else {
            ahead - 1
        };
        self.seen = number;
        Found::Yes
    }
}

/// A read that waits.
struct Reading<'a, R: Record> {
    segment: &'a Segment,
    view: &'a mut View,
    snapshot: &'a mut Snapshot<R>,
    want: Want,
    /// No record before this one is given: it was current when the read began.
    least: Option<u64>,
    tries: u32,
    /// The last look found a write under way.
    busy: bool,
    patience: Patience,
}

impl<'a, R: Record> Reading<'a, R> {
    #[inline]
    fn new(
        store: &'a mut SlotStore<R>,
        snapshot: &'a mut Snapshot<R>,
        want: Want,
        timeout: Duration,
    ) -> Self {
        Self {
            segment: &store.segment,
            view: &mut store.view,
            snapshot,
            want,
            least: None,
            tries: 0,
            busy: false,
            patience: Patience::new(timeout),
        }
    }

    /// Looks once; gives whether the snapshot has a record now.
    #[inline]
    fn look(&mut self) -> bool {
        match self.view.look(self.segment, self.snapshot, self.want) {
            Found::Yes => true,
            Found::Nothing => {
                self.busy = false;
                false
            }
            Found::UnderWay(committed) => self.look_aside(committed),
            Found::Torn(committed) => {
                self.patience.waste(&self.segment.layout);
                self.look_aside(Some(committed))
            }
        }
    }

    /// A write is under way: looks at what the writer left beside.
    #[cold]
    fn look_aside(&mut self, committed: Option<u64>) -> bool {
        self.busy = true;
        self.tries += 1;
        self.least = self.least.or(committed);
        let Some(least) = self.least else {
            return false;
        };
        let Some(native) = self
            .segment
            .native
            .as_ref()
            .filter(|native| native.is_buffered())
        else {
            return false;
        };
        if self.tries < patience(self.segment.layout.slot_size()) {
            return false;
        }
        let least = match self.want {
            Want::Any => least,
            Want::New => crate::ring::later(least, self.view.seen.wrapping_add(1)),
        };
        let View {
            statuses,
            seen,
            baseline,
        } = &mut *self.view;
        let fields = &mut self.snapshot.fields;
        let found = native.look(least, |slot, changes| {
            slot.read::<R>(
                SLOT,
                &self.segment.layout,
                statuses,
                fields,
                &mut Compare {
                    baseline,
                    seen: *seen,
                    changes: Some(changes),
                },
            )
        });
        if let Some(number) = found {
            return self.view.take(self.snapshot, number, self.want) == Found::Yes;
        }
        native.ask();
        false
    }

    fn failure(&self) -> ReadError {
        let name = Arc::clone(&self.segment.name);
        if self.busy {
            let dead = self
                .segment
                .native
                .as_ref()
                .and_then(|native| native.lock.dead_holder());
            return match dead {
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

impl<R: Record> WaitSource for Reading<'_, R> {
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
        let waker = self.waker();
        let found = segment.sleep_for_news(waker, until, || self.look().then_some(()));
        Ok(found)
    }

    fn glance(&mut self) -> Result<Option<()>, ReadError> {
        Ok(None)
    }

    fn check(&mut self) -> Result<Option<()>, ReadError> {
        // A dead writer is told of when the time is over: another may come.
        Ok(None)
    }
}

impl<R: Record> Reading<'_, R> {
    /// Who wrote last, and so may write next.
    fn waker(&self) -> Waker {
        let native = self.segment.native.as_ref();
        let changes = native.and_then(|native| native.changes.as_ref());
        match (changes, self.segment.slots.end(SLOT)) {
            (Some(_), 0) => Waker::Unknown,
            (Some(changes), number) if !self.busy && changes.is_of(number) => Waker::Native,
            _ => Waker::Foreign,
        }
    }
}
