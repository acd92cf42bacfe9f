//! The segment: creating, opening, telling whose it is, and keeping its name.

use crate::{
    NameError, OnUnlink, OpenError, Options, Replace, WriteError,
    native::{Bell, Guard, Native, Taken},
    ring::Ring,
    slots::{Slots, State},
};
use polyshm_platform::{
    Deadline, InvalidWord, Region, SegmentLock, SharedMemory, process, sync::fence,
};
use polyshm_wire::slots::{
    Footer, ImageError, Layout, META_SIZE, NativeLayout, Schema, read_schema,
};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

/// Bytes of the footer.
const FOOTER: usize = size_of::<Footer>();

/// How long an object may stay unfinished.
const CREATION: Duration = Duration::from_millis(250);

/// Between two looks at an object that is not there, or not finished.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);

/// The sleep between two looks at what nobody wakes for; with the system's
/// slack, below 100 µs.
const SHORT_SLEEP: Duration = Duration::from_micros(45);

/// The sleep while nobody has written yet, who may wake or not.
const MIDDLE_SLEEP: Duration = Duration::from_millis(2);

/// The sleep when the writer wakes: so long may a first write of another
/// implementation go unnoticed.
const LONG_SLEEP: Duration = Duration::from_millis(40);

fn sleep<T>(
    bell: Option<&Bell>,
    waker: Waker,
    until: Deadline,
    mut poll: impl FnMut() -> Option<T>,
) -> Option<T> {
    let slice = until.at_most(match waker {
        Waker::Native => LONG_SLEEP,
        Waker::Unknown => MIDDLE_SLEEP,
        Waker::Foreign => SHORT_SLEEP,
    });
    if let Some(bell) = bell {
        return bell.sleep(slice, poll);
    }
    let found = poll();
    if found.is_none() {
        nap(slice);
    }
    found
}

/// Who is slept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waker {
    /// This library, which wakes.
    Native,
    /// Nobody has been there yet.
    Unknown,
    /// Another implementation, which does not, or what nobody wakes for.
    Foreign,
}

/// Sleeps to the end of a slice.
pub(crate) fn nap(slice: Deadline) {
    std::thread::sleep(slice.remaining().unwrap_or(SHORT_SLEEP));
}

/// Before the second name of a segment.
const KEPT: &str = "polyshm-kept.";

/// A segment, mapped.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: Arc<str>,
    pub(crate) layout: Layout,
    pub(crate) slots: Slots,
    pub(crate) ring: Option<Ring>,
    pub(crate) native: Option<Native>,
    /// `None` on the heap.
    object: Option<SharedMemory>,
    /// The second name, when this process gave it one.
    kept: Option<String>,
    on_unlink: OnUnlink,
    /// This process removed the name itself.
    unlinked: AtomicBool,
    /// This process, in the words that tell of it.
    pub(crate) mark: u32,
}

/// Whether a segment's name still stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameState {
    /// It does.
    Linked,
    /// It had been removed, and was restored now.
    Restored,
    /// It stands for nothing.
    Unlinked,
    /// It stands for another segment.
    Replaced,
}

impl Segment {
    /// The segment in a region, which is long enough.
    pub(crate) fn of_region(
        name: &Arc<str>,
        region: &Region,
        layout: Layout,
        native: Option<&NativeLayout>,
        on_unlink: OnUnlink,
    ) -> Result<Self, InvalidWord> {
        let (first, count) = if layout.is_fifo() {
            (META_SIZE, layout.slots() as usize)
        } else {
            (0, 1)
        };
        let slots = Slots::new(region, &layout, first, count)?;
        let ring = layout
            .is_fifo()
            .then(|| Ring::new(region, layout.slots()))
            .transpose()?;
        let native = native
            .map(|places| Native::new(region, &layout, places))
            .transpose()?;
        Ok(Self {
            name: Arc::clone(name),
            layout,
            slots,
            ring,
            native,
            object: None,
            kept: None,
            on_unlink,
            unlinked: AtomicBool::new(false),
            mark: process::mark(process::current()),
        })
    }

    pub(crate) fn create(
        name: &str,
        schema: &Schema,
        slots: u64,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let name: Arc<str> = name.into();
        let layout = layout(&name, schema, slots)?;
        let native = native_layout(&name, &layout, options)?;
        let len = native
            .as_ref()
            .map_or(layout.segment_size(), NativeLayout::object_len);
        let system = |source| system(&name, source);
        loop {
            make_way(&name, options.replace)?;
            let object = SharedMemory::create_hidden(&name, len, options.mode);
            let object = match object {
                Ok(object) => object,
                Err(error) if error.is_already_exists() && options.replace != Replace::Never => {
                    continue;
                }
                Err(error) => return Err(system(error)),
            };
            let made = Region::map(&object).map_err(system).and_then(|region| {
                fill(&name, &region, &layout, native.as_ref())?;
                Self::of_region(
                    &name,
                    &region,
                    layout.clone(),
                    native.as_ref(),
                    options.on_unlink,
                )
                .map_err(|_| too_short(&name, len, &layout))
            });
            let mut segment = match made {
                Ok(made) => made,
                Err(error) => {
                    // The first failure is the one to report.
                    let _ = object.unlink();
                    return Err(error);
                }
            };
            match object.publish() {
                Ok(()) => {}
                Err(error) if error.is_already_exists() => {
                    if options.replace == Replace::Never {
                        return Err(OpenError::AlreadyExists { name });
                    }
                    continue;
                }
                Err(error) => return Err(system(error)),
            }
            if options.on_unlink == OnUnlink::Restore {
                segment.kept = keep(&object);
            }
            segment.object = Some(object);
            return Ok(segment);
        }
    }

    pub(crate) fn open(
        name: &str,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let name: Arc<str> = name.into();
        let deadline = Deadline::after(options.open_timeout);
        let mut unfinished: Option<Instant> = None;
        loop {
            let error = match Self::try_open(&name, schema, slots, options) {
                Err(error @ (OpenError::NotFound { .. } | OpenError::NotReady { .. })) => error,
                other => return other,
            };
            let patient = match error {
                OpenError::NotReady { .. } => {
                    unfinished.get_or_insert_with(Instant::now).elapsed() < CREATION
                }
                _ => false,
            };
            if !patient && deadline.expired() {
                return Err(error);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    fn try_open(
        name: &Arc<str>,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let object = match SharedMemory::open(name) {
            Ok(object) => object,
            Err(error) if error.is_not_found() => {
                return Err(OpenError::NotFound {
                    name: Arc::clone(name),
                });
            }
            Err(error) => return Err(system(name, error)),
        };
        if object.is_empty() {
            return Err(OpenError::NotReady {
                name: Arc::clone(name),
            });
        }
        let region = Region::map(&object).map_err(|error| system(name, error))?;
        check_pages(name, &object, &region)?;
        let mut segment = Self::open_region(name, &region, schema, slots, options)?;
        segment.object = Some(object);
        Ok(segment)
    }

    /// As [`open`](Self::open), of bytes that are mapped already.
    pub(crate) fn open_region(
        name: &Arc<str>,
        region: &Region,
        schema: Option<&Schema>,
        slots: Option<u64>,
        options: &Options,
    ) -> Result<Self, OpenError> {
        let len = region.len() as u64;
        let mut length = None;
        let mismatch = |source| OpenError::Mismatch {
            name: Arc::clone(name),
            source,
        };
        let footer = footer(region);
        let (layout, native) = if let Some(footer) = footer {
            footer.check(len).map_err(mismatch)?;
            let text = schema_text(region, &footer).map_err(mismatch)?;
            let found = read_schema(&text, &footer).map_err(mismatch)?;
            if let Some(wanted) = schema {
                footer.check_schema(wanted, &text).map_err(mismatch)?;
            }
            let layout = layout(name, &found, slots.unwrap_or(footer.slots.get()))?;
            let native = NativeLayout::from_footer(&layout, &footer, len).map_err(mismatch)?;
            (layout, Some(native))
        } else {
            let Some(schema) = schema else {
                return Err(OpenError::NoSchema {
                    name: Arc::clone(name),
                });
            };
            let layout = layout(name, schema, slots.unwrap_or(1))?;
            let expected = layout.segment_size();
            let rounded = expected.next_multiple_of(SharedMemory::page_size());
            layout.check_len(len).map_err(mismatch)?;
            if !options.any_length && len != expected && len != rounded {
                length = Some(OpenError::Length {
                    name: Arc::clone(name),
                    len,
                    expected,
                });
            }
            (layout, None)
        };
        let segment = Self::of_region(name, region, layout, native.as_ref(), options.on_unlink)
            .map_err(|_| {
                mismatch(ImageError::TooShort {
                    len,
                    need: len.saturating_add(1),
                })
            })?;
        // Its creator is between the length and the last status (format,
        // section 2.3).
        let last = segment.layout.slots() as usize - 1;
        if native.is_none() && !segment.slots.is_initialised(last) {
            return Err(OpenError::NotReady {
                name: Arc::clone(name),
            });
        }
        length.map_or(Ok(segment), Err)
    }

    /// Takes the segment for one writer of handle `id`.
    #[inline]
    pub(crate) fn lock(&self, id: u64, patience: Duration) -> Result<Locked<'_>, Busy> {
        if let Some(native) = &self.native {
            return match native.lock.guard(id, patience) {
                Ok((guard, taken)) => {
                    if taken == Taken::FromTheDead && self.ring.is_some() {
                        self.complete_item(native);
                    }
                    Ok(Locked::Word(guard))
                }
                Err(pid) => Err(Busy::By(pid)),
            };
        }
        self.lock_file(patience)
    }

    #[cold]
    #[inline(never)]
    fn lock_file(&self, patience: Duration) -> Result<Locked<'_>, Busy> {
        let Some(object) = &self.object else {
            return Ok(Locked::Heap);
        };
        match object.lock(Deadline::after(patience)) {
            Ok(Some(lock)) => Ok(Locked::File(lock)),
            Ok(None) => Err(Busy::By(0)),
            Err(error) => Err(Busy::Refused(error)),
        }
    }

    /// An identity for a handle, for the writers' lock.
    pub(crate) fn new_id(&self) -> u64 {
        match &self.native {
            Some(native) => native.new_id(self.mark),
            // Writers of such a segment are told apart by the system.
            None => 1,
        }
    }

    /// Puts a single slot right that is not whole; gives the number of the next
    /// write. The caller holds the lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn mend(&self, state: State) -> u64 {
        if let State::Aborted(number) = state {
            let native = self.native.as_ref();
            if !native.is_some_and(|native| native.restore(&self.slots, number)) {
                self.slots.disclaim(0, self.listed_by_the_dead());
                if let Some(changes) = native.and_then(|native| native.changes.as_ref()) {
                    changes.disown(number);
                }
                self.slots.finish(0, number);
            }
        }
        state.taken().wrapping_add(1)
    }

    /// The fields whose values a dead writer of ours destroyed, modulo 64.
    pub(crate) fn listed_by_the_dead(&self) -> u64 {
        // Without a trailer nobody knows.
        self.native.as_ref().map_or(u64::MAX, Native::listed)
    }

    /// Sleeps until there is news or until the deadline, unless `poll` gives
    /// something.
    pub(crate) fn sleep_for_news<T>(
        &self,
        waker: Waker,
        until: Deadline,
        poll: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let bell = self.native.as_ref().map(|native| &native.news);
        sleep(bell, waker, until, poll)
    }

    /// As [`sleep_for_news`](Self::sleep_for_news), until a reader made room.
    pub(crate) fn sleep_for_room<T>(
        &self,
        waker: Waker,
        until: Deadline,
        poll: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let bell = self.native.as_ref().map(|native| &native.room);
        sleep(bell, waker, until, poll)
    }

    /// Looks whether the name still stands for the segment, and restores it if
    /// that is to be done.
    pub(crate) fn look_at_name(&self) -> Result<NameState, NameError> {
        let Some(object) = &self.object else {
            return Ok(NameState::Linked);
        };
        let refused = |what| {
            let name = Arc::clone(&self.name);
            move |source| NameError { name, what, source }
        };
        for _ in 0..3 {
            if object.is_linked().map_err(refused("looked up"))? {
                return Ok(NameState::Linked);
            }
            match SharedMemory::open_read_only(&self.name) {
                Ok(other) if other.identity() == object.identity() => return Ok(NameState::Linked),
                Ok(_) => return Ok(NameState::Replaced),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(refused("looked up")(error)),
            }
            if self.kept.is_none() {
                return Ok(NameState::Unlinked);
            }
            match object.restore() {
                Ok(()) => {
                    tracing::info!(name = %self.name, "a removed name was restored");
                    return Ok(NameState::Restored);
                }
                // Somebody was faster: look at whose it is.
                Err(error) if error.is_already_exists() => {}
                Err(error) if error.is_not_found() => return Ok(NameState::Unlinked),
                Err(error) => return Err(refused("restored")(error)),
            }
        }
        Ok(NameState::Replaced)
    }

    /// As [`look_at_name`](Self::look_at_name), for a writer.
    #[cold]
    #[inline(never)]
    pub(crate) fn check_name(&self) -> Result<(), WriteError> {
        if !self.needs_name() {
            return Ok(());
        }
        let hint = match self.look_at_name() {
            Ok(NameState::Linked | NameState::Restored) => return Ok(()),
            Ok(NameState::Unlinked) => "as Python does when it ends: create it anew",
            Ok(NameState::Replaced) => "and another segment has it: open that one",
            Err(NameError { name, source, .. }) => return Err(WriteError::System { name, source }),
        };
        Err(WriteError::Unlinked {
            name: Arc::clone(&self.name),
            hint,
        })
    }

    fn needs_name(&self) -> bool {
        // Relaxed: a flag of our own.
        self.on_unlink != OnUnlink::Ignore && !self.unlinked.load(Relaxed)
    }

    /// Whether the name was removed, and that is to be reported.
    pub(crate) fn is_lost(&self) -> bool {
        self.needs_name()
            && matches!(
                self.look_at_name(),
                Ok(NameState::Unlinked | NameState::Replaced)
            )
    }

    pub(crate) fn unlink(&self) -> Result<bool, NameError> {
        let Some(object) = &self.object else {
            return Ok(false);
        };
        self.unlinked.store(true, Relaxed);
        drop_kept(object);
        object.unlink().map_err(|source| NameError {
            name: Arc::clone(&self.name),
            what: "removed",
            source,
        })
    }
}

/// Removes the second name of an object, if it stands for it, whoever gave it.
fn drop_kept(object: &SharedMemory) {
    let kept = kept_name(object.name());
    if let Ok(other) = SharedMemory::open_read_only(&kept)
        && other.identity() == object.identity()
    {
        // A name that stays costs memory until the next creator takes it.
        let _ = SharedMemory::unlink_name(&kept);
    }
}

fn kept_name(name: &str) -> String {
    format!("{KEPT}{}", name.trim_start_matches('/'))
}

/// Removes a segment, and what a creator that died left to restore its name
/// from. Gives whether there was anything.
///
/// Who has it open keeps it. A living creator that restores names
/// ([`OnUnlink::Restore`]) reports that it is gone.
///
/// # Errors
///
/// The system refuses.
pub fn remove(name: &str) -> Result<bool, NameError> {
    let refused = |source| NameError {
        name: name.into(),
        what: "removed",
        source,
    };
    let kept = SharedMemory::unlink_name(&kept_name(name)).unwrap_or(false);
    let named = SharedMemory::unlink_name(name).map_err(refused)?;
    Ok(kept || named)
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let (Some(_), Some(object)) = (&self.kept, &self.object) {
            drop_kept(object);
        }
    }
}

/// Why the writers' lock was not taken.
#[derive(Debug)]
pub(crate) enum Busy {
    /// This process holds it; 0 when that is not known.
    By(u32),
    Refused(polyshm_platform::Error),
}

impl Busy {
    pub(crate) fn into_write_error(self, name: &Arc<str>) -> WriteError {
        let name = Arc::clone(name);
        match self {
            Self::By(pid) => WriteError::Busy { name, pid },
            Self::Refused(source) => WriteError::System { name, source },
        }
    }

    pub(crate) fn into_open_error(self, name: &Arc<str>) -> OpenError {
        let name = Arc::clone(name);
        match self {
            Self::By(pid) => OpenError::Busy { name, pid },
            Self::Refused(source) => OpenError::System { name, source },
        }
    }
}

/// The writers' lock, held until dropped.
#[derive(Debug)]
pub(crate) enum Locked<'a> {
    Word(#[expect(dead_code, reason = "held for its destructor")] Guard<'a>),
    File(#[expect(dead_code, reason = "held for its destructor")] SegmentLock<'a>),
    /// Without a trailer nobody excludes anybody there.
    Heap,
}

fn layout(name: &Arc<str>, schema: &Schema, slots: u64) -> Result<Layout, OpenError> {
    Layout::new(schema, slots).map_err(|source| OpenError::Layout {
        name: Arc::clone(name),
        source,
    })
}

fn native_layout(
    name: &Arc<str>,
    layout: &Layout,
    options: &Options,
) -> Result<Option<NativeLayout>, OpenError> {
    if !options.trailer {
        return Ok(None);
    }
    NativeLayout::new(layout, SharedMemory::page_size(), options.buffered)
        .map(Some)
        .map_err(|source| OpenError::Layout {
            name: Arc::clone(name),
            source,
        })
}

fn system(name: &Arc<str>, source: polyshm_platform::Error) -> OpenError {
    let name = Arc::clone(name);
    if source.is_already_exists() {
        return OpenError::AlreadyExists { name };
    }
    OpenError::System { name, source }
}

fn too_short(name: &Arc<str>, len: u64, layout: &Layout) -> OpenError {
    OpenError::Mismatch {
        name: Arc::clone(name),
        source: ImageError::TooShort {
            len,
            need: layout.segment_size(),
        },
    }
}

/// Makes zeros a segment (format, section 2.3).
pub(crate) fn fill(
    name: &Arc<str>,
    region: &Region,
    layout: &Layout,
    native: Option<&NativeLayout>,
) -> Result<(), OpenError> {
    let len = region.len() as u64;
    let failed = |_| too_short(name, len, layout);
    let segment = Segment::of_region(name, region, layout.clone(), native, OnUnlink::Ignore)
        .map_err(failed)?;
    segment.slots.clear();
    let (Some(native), Some(places)) = (&segment.native, native) else {
        return Ok(());
    };
    native.clear();
    let text = layout.schema().to_string();
    let footer = places.footer(layout, segment.mark).to_bytes();
    let written = region.bytes(0, region.len()).and_then(|bytes| {
        bytes.write(places.schema_text(), text.as_bytes())?;
        // Release: where the object has its name already, who finds the footer
        // finds everything.
        fence(Release);
        bytes.write(places.footer_offset(), &footer)
    });
    written.map_err(|_| too_short(name, len, layout))
}

/// The footer of a native segment.
fn footer(region: &Region) -> Option<Footer> {
    let at = region.len().checked_sub(FOOTER)?;
    let mut bytes = [0; FOOTER];
    region.bytes(at, FOOTER).ok()?.read(0, &mut bytes).ok()?;
    Footer::read(&bytes)
}

/// Refuses an object that claims to be ours and has not all its pages, which
/// ours have: its length is no more than a number.
fn check_pages(name: &Arc<str>, object: &SharedMemory, region: &Region) -> Result<(), OpenError> {
    if !cfg!(target_os = "linux") || footer(region).is_none() {
        return Ok(());
    }
    let allocated = object.allocated().map_err(|error| system(name, error))?;
    let need = object.len();
    if allocated >= need {
        return Ok(());
    }
    Err(OpenError::Mismatch {
        name: Arc::clone(name),
        source: ImageError::TooShort {
            len: allocated,
            need,
        },
    })
}

/// The text of a native segment's schema.
fn schema_text(region: &Region, footer: &Footer) -> Result<Vec<u8>, ImageError> {
    let (at, text_len) = footer.schema_text();
    let len = region.len() as u64;
    let mut text = vec![0; text_len as usize];
    let read = region
        .bytes(at as usize, text.len())
        .and_then(|bytes| bytes.read(0, &mut text));
    match read {
        Ok(()) => Ok(text),
        Err(_) => Err(ImageError::TooShort {
            len,
            need: at.saturating_add(text_len),
        }),
    }
}

/// Gives a segment its second name, where that can be done.
fn keep(object: &SharedMemory) -> Option<String> {
    let second = kept_name(object.name());
    // Of a creator that died.
    let _ = SharedMemory::unlink_name(&second);
    match object.keep_as(&second) {
        Ok(()) => Some(second),
        Err(error) => {
            tracing::debug!(name = object.name(), %error, "the name cannot be restored when it is removed");
            None
        }
    }
}

/// Removes the segment that has the name, if it is to be replaced.
fn make_way(name: &Arc<str>, replace: Replace) -> Result<(), OpenError> {
    if replace == Replace::Never {
        return Ok(());
    }
    let object = match SharedMemory::open(name) {
        Ok(object) => object,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(system(name, error)),
    };
    // Whoever finds the same one has to wait until it has gone.
    let _lock = match object.lock(Deadline::after(CREATION)) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            let name = Arc::clone(name);
            return Err(OpenError::Busy { name, pid: 0 });
        }
        Err(error) => return Err(system(name, error)),
    };
    if replace == Replace::Abandoned {
        let region = (!object.is_empty())
            .then(|| Region::map(&object))
            .transpose();
        let region = region.map_err(|error| system(name, error))?;
        let Some(footer) = region.as_ref().and_then(footer) else {
            return Err(OpenError::AlreadyExists {
                name: Arc::clone(name),
            });
        };
        let mark = footer.owner_mark.get();
        if process::is_alive_marked(mark) {
            let pid = mark & 0x003F_FFFF;
            return Err(OpenError::OwnerAlive {
                name: Arc::clone(name),
                pid,
            });
        }
    }
    drop_kept(&object);
    object
        .unlink()
        .map(drop)
        .map_err(|error| system(name, error))
}
