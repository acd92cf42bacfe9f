//! `Memory`: a segment with its table of names.

use crate::{
    block::Block,
    error::{Error, Label},
    native::Spare,
};
use polyshm_platform::{
    Bytes, Deadline, Mode, Region, SegmentLock, SharedMemory, WaitStrategy, Waiter, Word32, Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::zeroipc::{
    DEFAULT_MAX_ENTRIES, Description, ENTRY_SIZE, Entry, Extent, HEADER_SIZE, ImageError,
    LayoutError, NAME_SIZE, TableHeader, check_name, derived, describe, entry_at, entry_offset,
    header_offset, place, table_end,
};
use std::{fmt, sync::Arc, time::Duration};

/// How a segment is created.
///
/// ```
/// use polyshm_zeroipc::MemoryOptions;
///
/// let options = MemoryOptions::new(10 << 20).max_entries(128);
/// assert_eq!((options.size, options.max_entries), (10 << 20, 128));
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Bytes of the whole segment, table included.
    pub size: u64,
    /// Names that the table has room for; each takes 48 bytes.
    pub max_entries: u32,
    /// Who may open it. The other implementations leave that to the umask, and
    /// so does the default.
    #[cfg_attr(feature = "serde", serde(skip, default = "everybody"))]
    pub mode: Mode,
    /// What applies to this process's handle.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub open: OpenOptions,
}

#[cfg(feature = "serde")]
fn everybody() -> Mode {
    Mode::ALL
}

impl MemoryOptions {
    /// A segment of `size` bytes with 64 entries.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            size,
            max_entries: DEFAULT_MAX_ENTRIES,
            mode: Mode::ALL,
            open: OpenOptions::default(),
        }
    }

    /// Sets how many names the table has room for; 0 means 64.
    #[must_use]
    pub fn max_entries(mut self, max_entries: u32) -> Self {
        self.max_entries = if max_entries == 0 {
            DEFAULT_MAX_ENTRIES
        } else {
            max_entries
        };
        self
    }

    /// Sets the permission bits.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets what applies to this process's handle.
    #[must_use]
    pub fn open_options(mut self, open: OpenOptions) -> Self {
        self.open = open;
        self
    }
}

impl From<u64> for MemoryOptions {
    fn from(size: u64) -> Self {
        Self::new(size)
    }
}

/// How this process uses a segment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OpenOptions {
    /// How waiting spends its time.
    pub wait_strategy: WaitStrategy,
    /// Whether this process stores in bytes that every other implementation
    /// ignores: who holds a lock (so that its death is noticed), who sleeps (so
    /// that it is woken at once), and which map entries changed hands.
    ///
    /// Without it the segment's bytes are those of the reference to the last
    /// one; a dead holder then stays unknown and waiting polls.
    pub native_marks: bool,
    /// How long another process may take for a change of some instructions
    /// before what it changes counts as stuck: 200 ms by default, since it may
    /// have lost its processor on the way. Waits that sleep bear five times as
    /// much.
    pub patience: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            wait_strategy: WaitStrategy::default(),
            native_marks: true,
            patience: Duration::from_millis(200),
        }
    }
}

impl OpenOptions {
    /// Sets how waiting spends its time.
    #[must_use]
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// Sets how long a short change may take; see [`OpenOptions::patience`].
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets whether ignored bytes are used; see [`OpenOptions::native_marks`].
    #[must_use]
    pub const fn native_marks(mut self, marks: bool) -> Self {
        self.native_marks = marks;
        self
    }
}

/// One name in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TableEntry {
    /// The name; where it is damaged, what can be read of it.
    pub name: String,
    /// Where its bytes start, from the start of the segment.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

/// A segment and its table, mapped into this process.
///
/// Cloning is cheap and shares the mapping. Structures keep it alive. Dropping
/// the last handle unmaps it; the segment stays until [`Memory::unlink`].
///
/// Entries may be created and opened by many threads and processes at once.
/// Between Rust processes insertions are serialised by a lock on the segment
/// that the system gives up when its holder dies; writers of other
/// implementations do not know it, so with them one process should create
/// everything (section 2.4 of `docs/protocols/zeroipc.md`).
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Array, Memory};
///
/// let name = format!("polyshm-doc-memory-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 20)?;
/// Array::<f32>::create(&memory, "temperature", 1000)?;
///
/// let same = Memory::open(&name)?;
/// assert_eq!(same.entries().len(), 1);
/// assert!(Array::<f32>::create(&same, "temperature", 1000).is_err());
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    backing: Backing,
    region: Region,
    /// Entries published; stored last, with release.
    count: Word32,
    next: Word64,
    /// The header's bytes and the table's.
    table: Bytes,
    /// From the header at open; never read again.
    slots: u32,
    memory_size: u64,
    options: OpenOptions,
    waiter: Waiter,
}

enum Backing {
    Segment(SharedMemory),
    #[cfg(feature = "testing")]
    Heap(std::sync::Mutex<()>),
}

/// Held while the table is changed.
enum TableLock<'a> {
    Segment(#[expect(dead_code, reason = "held for its destructor")] SegmentLock<'a>),
    #[cfg(feature = "testing")]
    Heap(#[expect(dead_code, reason = "held for its destructor")] std::sync::MutexGuard<'a, ()>),
}

/// A part of a structure: an entry to be made.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) size: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("name", &self.0.name)
            .field("size", &self.0.memory_size)
            .field("max_entries", &self.0.slots)
            .finish_non_exhaustive()
    }
}

impl Memory {
    /// How long insertions wait for another process's insertion.
    const LOCK_PATIENCE: Duration = Duration::from_secs(10);
    /// How long a segment may stay without a table before its creator counts
    /// as dead.
    const UNFINISHED_PATIENCE: Duration = Duration::from_secs(1);
    /// How often a segment may vanish or appear under us before we say so, and
    /// how often a writer that ignores the lock may interfere.
    const TRIES: u32 = 100;

    /// Creates a segment that nobody has yet.
    ///
    /// Takes a size in bytes or [`MemoryOptions`]. The table is complete before
    /// anybody can open it, and the pages are really allocated.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the segment is smaller than its table,
    /// or the system refuses. Nothing is left behind.
    pub fn create_new(name: &str, options: impl Into<MemoryOptions>) -> Result<Self, Error> {
        let options = options.into();
        let header = Self::header(name, &options)?;
        let segment = SharedMemory::create_empty(name, options.mode)?;
        match Self::build(segment, &header, &options)? {
            Some(memory) => Ok(memory),
            // Somebody took ours for abandoned, or made the table first.
            None => Err(Error::System(polyshm_platform::Error::AlreadyExists {
                what: "shared memory segment",
                name: name.to_owned(),
            })),
        }
    }

    /// Opens a segment; how many entries it has room for comes from its header.
    ///
    /// # Errors
    ///
    /// There is none, it is no ZeroIPC segment, it is damaged, or its creator
    /// has not finished.
    pub fn open(name: &str) -> Result<Self, Error> {
        Self::open_with(name, OpenOptions::default())
    }

    /// Opens a segment, waiting for another process to create it until the
    /// deadline or for that long. Looks every few milliseconds.
    ///
    /// # Errors
    ///
    /// As [`Memory::open`]; there was none in all that time.
    pub fn open_within(name: &str, deadline: impl Into<Deadline>) -> Result<Self, Error> {
        const NAP: Duration = Duration::from_millis(2);
        let deadline = deadline.into();
        loop {
            match Self::open(name) {
                Err(error) if error.is_not_yet() && !deadline.expired() => {
                    std::thread::sleep(NAP);
                }
                done => return done,
            }
        }
    }

    /// As [`Memory::open`], with options.
    ///
    /// # Errors
    ///
    /// As [`Memory::open`].
    #[doc(alias = "OpenMemory")]
    pub fn open_with(name: &str, options: OpenOptions) -> Result<Self, Error> {
        let segment = SharedMemory::open(name)?;
        Self::attach(segment, options)
    }

    /// Opens the segment, or creates it if there is none. Of several processes
    /// that do this at once one creates and the others open. An existing
    /// segment is taken as it is, whatever its size. What a creator that died
    /// left unfinished is removed after a second.
    ///
    /// # Errors
    ///
    /// As [`Memory::create_new`] and [`Memory::open`].
    pub fn open_or_create(name: &str, options: impl Into<MemoryOptions>) -> Result<Self, Error> {
        let options = options.into();
        let header = Self::header(name, &options)?;
        for _ in 0..Self::TRIES {
            match SharedMemory::create_empty(name, options.mode) {
                Ok(segment) => match Self::build(segment, &header, &options)? {
                    Some(memory) => return Ok(memory),
                    None => continue,
                },
                Err(error) if error.is_already_exists() => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(memory) = Self::adopt(name, options.open)? {
                return Ok(memory);
            }
        }
        Err(Error::Unfinished {
            segment: name.into(),
        })
    }

    /// Attaches to a segment whose creator may be at work. `None`: it was
    /// abandoned and is removed, or replaced.
    ///
    /// A Rust creator holds the lock from its first moment; one of another
    /// implementation shows that it lives by filling the segment.
    fn adopt(name: &str, options: OpenOptions) -> Result<Option<Self>, Error> {
        let mut seen = None;
        let mut patience = Deadline::after(Self::UNFINISHED_PATIENCE);
        let limit = Deadline::after(Self::LOCK_PATIENCE);
        loop {
            // Anew each time: its length may have changed since.
            let segment = match SharedMemory::open(name) {
                Err(error) if error.is_not_found() => return Ok(None),
                opened => opened?,
            };
            let now = (segment.identity(), segment.len(), segment.allocated()?);
            if seen != Some(now) {
                patience = Deadline::after(Self::UNFINISHED_PATIENCE);
                if seen.is_some_and(|(identity, ..)| identity != now.0) {
                    return Ok(None);
                }
                seen = Some(now);
            }
            if patience.expired() {
                let lock = segment.lock(Deadline::now())?;
                let mut magic = [0; 4];
                segment.peek(&mut magic)?;
                match lock {
                    Some(_lock) if magic == [0; 4] => {
                        segment.unlink()?;
                        return Ok(None);
                    }
                    None if limit.expired() => {
                        return Err(Error::Busy {
                            segment: name.into(),
                            seconds: Self::LOCK_PATIENCE.as_secs(),
                        });
                    }
                    _ => {}
                }
            }
            match Self::attach(segment, options) {
                Err(Error::Unfinished { .. }) => {}
                done => return done.map(Some),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes the segment of that name, if there is one, and creates a new
    /// one. Who has the old one open keeps it, apart from everybody else.
    ///
    /// # Errors
    ///
    /// As [`Memory::create_new`].
    pub fn replace(name: &str, options: impl Into<MemoryOptions>) -> Result<Self, Error> {
        let options = options.into();
        Self::header(name, &options)?;
        let mut last = None;
        for _ in 0..Self::TRIES {
            SharedMemory::unlink_name(name)?;
            match Self::create_new(name, options.clone()) {
                Err(error) if error.is_already_exists() => last = Some(error),
                done => return done,
            }
        }
        Err(last.unwrap_or(Error::Unfinished {
            segment: name.into(),
        }))
    }

    /// Removes a segment by name. Gives whether there was one.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink_name(name: &str) -> Result<bool, Error> {
        Ok(SharedMemory::unlink_name(name)?)
    }

    /// Removes the name of this segment, if it still stands for it. Who has it
    /// open keeps it.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink(&self) -> Result<bool, Error> {
        match &self.0.backing {
            Backing::Segment(segment) => Ok(segment.unlink()?),
            #[cfg(feature = "testing")]
            Backing::Heap(_) => Ok(false),
        }
    }

    /// The header of a new segment.
    fn header(name: &str, options: &MemoryOptions) -> Result<TableHeader, Error> {
        let header = TableHeader::new(options.max_entries, options.size);
        match header.check(options.size) {
            Ok(()) => Ok(header),
            Err(ImageError::TooShort { need, len, .. }) => Err(Self::too_small(name, need, len)),
            Err(_) => {
                let needed = table_end(options.max_entries);
                Err(Self::too_small(name, needed, options.size))
            }
        }
    }

    fn too_small(name: &str, needed: u64, available: u64) -> Error {
        Error::Layout {
            on: Label {
                what: "table",
                name: name.into(),
            },
            segment: name.into(),
            source: LayoutError::NoSpace { needed, available },
        }
    }

    /// Sizes a segment that this process just created, and writes its table.
    /// `None`: another process took it for abandoned, or was first.
    fn build(
        segment: SharedMemory,
        header: &TableHeader,
        options: &MemoryOptions,
    ) -> Result<Option<Self>, Error> {
        match Self::fill(&segment, header, options) {
            Ok(true) => Self::attach(segment, options.open).map(Some),
            Ok(false) => Ok(None),
            Err(error) => {
                // Nobody can use it; the error that matters is the first.
                let _ = segment.unlink();
                Err(error)
            }
        }
    }

    /// Whether the segment is still ours to fill, and filled.
    fn fill(
        segment: &SharedMemory,
        header: &TableHeader,
        options: &MemoryOptions,
    ) -> Result<bool, Error> {
        // Before it has a length: who finds it unfinished sees that we live.
        let Some(_lock) = segment.lock(Deadline::after(Self::LOCK_PATIENCE))? else {
            return Err(Error::Busy {
                segment: segment.name().into(),
                seconds: Self::LOCK_PATIENCE.as_secs(),
            });
        };
        let mut there = [0; 4];
        segment.peek(&mut there)?;
        if there != [0; 4] || !segment.is_linked()? {
            return Ok(false);
        }
        segment.allocate(options.size)?;
        let region = Region::map(segment)?;
        let failed = |_| Error::Unfinished {
            segment: segment.name().into(),
        };
        let magic = region.word32(header_offset::MAGIC).map_err(failed)?;
        let bytes = header.to_bytes();
        let rest = header_offset::VERSION;
        let table = region
            .bytes(rest, bytes.len() - rest)
            .and_then(|table| table.write(0, &bytes[rest..]));
        table.map_err(|error| failed(error.into()))?;
        // Release: who sees the magic sees the table.
        magic.store(header.magic.get(), Ordering::Release);
        Ok(true)
    }

    fn attach(segment: SharedMemory, options: OpenOptions) -> Result<Self, Error> {
        let name: Arc<str> = segment.name().into();
        // A segment that is still empty cannot be mapped.
        if segment.len() < HEADER_SIZE {
            return Err(if segment.is_empty() {
                Error::Unfinished { segment: name }
            } else {
                Error::Segment {
                    segment: name,
                    source: ImageError::TooShort {
                        structure: "table header",
                        len: segment.len(),
                        need: HEADER_SIZE,
                    },
                }
            });
        }
        let region = Region::map(&segment)?;
        Self::over(name, Backing::Segment(segment), region, options)
    }

    /// A memory on the heap that starts as a copy of `image`: for tests, and to
    /// look at saved images. It can be used by many threads, and is gone when
    /// dropped.
    ///
    /// # Errors
    ///
    /// The image is no ZeroIPC segment, or its table is damaged.
    #[cfg(feature = "testing")]
    pub fn from_image(image: &[u8], options: OpenOptions) -> Result<Self, Error> {
        let region = Region::heap(image.len());
        let name: Arc<str> = "(image)".into();
        let copied = region
            .bytes(0, image.len())
            .and_then(|bytes| bytes.write(0, image));
        debug_assert!(copied.is_ok(), "as long as the image");
        Self::over(
            name,
            Backing::Heap(std::sync::Mutex::new(())),
            region,
            options,
        )
    }

    /// Checks the header (section 9, item 4) and takes its numbers.
    fn over(
        name: Arc<str>,
        backing: Backing,
        region: Region,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let damaged = |source| Error::Segment {
            segment: name.clone(),
            source,
        };
        let too_short = || {
            damaged(ImageError::TooShort {
                structure: "table header",
                len: region.len() as u64,
                need: HEADER_SIZE,
            })
        };
        if region.len() < HEADER_SIZE as usize {
            return Err(too_short());
        }
        let magic = region
            .word32(header_offset::MAGIC)
            .map_err(|_| too_short())?;
        // Acquire: pairs with the creator's release; the rest is there.
        if magic.load(Ordering::Acquire) == 0 {
            return Err(Error::Unfinished { segment: name });
        }
        let mut bytes = [0; HEADER_SIZE as usize];
        let read = region
            .bytes(0, bytes.len())
            .and_then(|header| header.read(0, &mut bytes));
        read.map_err(|_| too_short())?;
        let header = TableHeader::read(&bytes).map_err(damaged)?;
        header.check(region.len() as u64).map_err(damaged)?;
        let slots = header.slots();
        let count = region
            .word32(header_offset::ENTRY_COUNT)
            .map_err(|_| too_short())?;
        let next = region
            .word64(header_offset::NEXT_OFFSET)
            .map_err(|_| too_short())?;
        let table = region
            .bytes(0, table_end(slots) as usize)
            .map_err(|_| too_short())?;
        Ok(Self(Arc::new(Inner {
            name,
            backing,
            count,
            next,
            table,
            region,
            slots,
            memory_size: header.memory_size.get(),
            options,
            waiter: Waiter::new(options.wait_strategy),
        })))
    }

    /// The segment's name, with its leading slash where the system has one.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The bytes of the segment, as its creator asked for.
    pub fn size(&self) -> u64 {
        self.0.memory_size
    }

    /// How many names the table has room for.
    pub fn max_entries(&self) -> u32 {
        self.0.slots
    }

    /// The bytes that new structures can still take.
    pub fn free(&self) -> u64 {
        let next = self.0.next.load(Ordering::Acquire);
        let start = next.checked_next_multiple_of(8).unwrap_or(u64::MAX);
        self.0.memory_size.saturating_sub(start)
    }

    /// The names in the table, in the order of their creation.
    pub fn entries(&self) -> Vec<TableEntry> {
        (0..self.count())
            .filter_map(|index| self.entry(index))
            .map(|entry| TableEntry {
                name: entry.name_lossy(),
                offset: entry.offset.get(),
                size: entry.size.get(),
            })
            .collect()
    }

    /// Whether the table has that name.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// What the table says, and what each entry can be: the format records no
    /// types, so several answers may fit. A picture of one moment that others
    /// may be changing.
    ///
    /// # Errors
    ///
    /// The table is damaged.
    pub fn describe(&self) -> Result<Description, Error> {
        describe(&self.image()).map_err(|source| Error::Segment {
            segment: self.0.name.clone(),
            source,
        })
    }

    /// A copy of all bytes, possibly torn where others store meanwhile.
    pub fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.0.region.len()];
        if let Ok(bytes) = self.0.region.bytes(0, image.len()) {
            // In range by construction.
            let _ = bytes.read(0, &mut image);
        }
        image
    }

    /// Removes a name from the table, as the C library does: the entries after
    /// it move up, its bytes are not reclaimed, and structures that are open
    /// stay usable.
    ///
    /// A lookup in another process at the same moment may miss a name. A
    /// structure of several entries is removed entry by entry.
    ///
    /// # Errors
    ///
    /// There is no such name.
    #[doc(alias = "zeroipc_table_remove")]
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let _lock = self.lock()?;
        let not_found = || Error::NotFound {
            on: Label {
                what: "entry",
                name: name.into(),
            },
            segment: self.0.name.clone(),
        };
        let (index, _) = self.find(name).ok_or_else(not_found)?;
        let count = self.count();
        let at = |index: u32| entry_at(index) as usize;
        // A place has no name while its other bytes change, so that no name
        // ever leads to another's bytes; each entry is overwritten only when it
        // stands one place before.
        self.write_table(at(index), &[0])?;
        for later in index + 1..count {
            let Some(entry) = self.entry(later) else {
                break;
            };
            let bytes = entry.to_bytes();
            let target = at(later - 1);
            self.write_table(target, &[0])?;
            // Release: pairs with the acquire fence in `entry`: who reads what
            // is stored next sees the place nameless.
            fence(Ordering::Release);
            self.write_table(target + NAME_SIZE, &bytes[NAME_SIZE..])?;
            fence(Ordering::Release);
            self.write_table(target, &bytes[..NAME_SIZE])?;
        }
        // Release: pairs with the acquire in `count`.
        self.0.count.store(count - 1, Ordering::Release);
        Ok(())
    }

    // What the structures use.

    pub(crate) fn count(&self) -> u32 {
        // Acquire: pairs with the release that published the entries.
        self.0.count.load(Ordering::Acquire).min(self.0.slots)
    }

    /// Copies an entry, as it stood at one moment if it stands still at all.
    fn entry(&self, index: u32) -> Option<Entry> {
        const LOOKS: u32 = 100;
        let at = entry_at(index) as usize;
        let read = || {
            let mut bytes = [0; ENTRY_SIZE as usize];
            self.0.table.read(at, &mut bytes).ok().map(|()| bytes)
        };
        let mut bytes = read()?;
        for _ in 0..LOOKS {
            // Acquire: pairs with the release fences in `remove`.
            fence(Ordering::Acquire);
            let again = read()?;
            if again == bytes {
                break;
            }
            bytes = again;
        }
        Some(zerocopy::transmute!(bytes))
    }

    fn find(&self, name: &str) -> Option<(u32, Entry)> {
        (0..self.count())
            .filter_map(|index| Some((index, self.entry(index)?)))
            .find(|(_, entry)| entry.has_name(name))
    }

    fn lock(&self) -> Result<TableLock<'_>, Error> {
        match &self.0.backing {
            Backing::Segment(segment) => segment
                .lock(Deadline::after(Self::LOCK_PATIENCE))?
                .map(TableLock::Segment)
                .ok_or_else(|| Error::Busy {
                    segment: self.0.name.clone(),
                    seconds: Self::LOCK_PATIENCE.as_secs(),
                }),
            #[cfg(feature = "testing")]
            Backing::Heap(lock) => Ok(TableLock::Heap(
                lock.lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner),
            )),
        }
    }

    fn write_table(&self, at: usize, bytes: &[u8]) -> Result<(), Error> {
        self.0.table.write(at, bytes).map_err(|_| Error::Unusable {
            on: Label {
                what: "table",
                name: self.0.name.clone(),
            },
            reason: "the segment is mapped read-only; open it for writing",
        })
    }

    /// The header as it is now, for the checks of entries.
    fn header_now(&self) -> TableHeader {
        let mut header = TableHeader::new(self.0.slots, self.0.memory_size);
        header.entry_count.set(self.count());
        header
    }

    pub(crate) fn label(what: &'static str, name: &str) -> Label {
        Label {
            what,
            name: name.into(),
        }
    }

    /// The name of a further entry of a structure.
    pub(crate) fn derived(what: &'static str, name: &str, suffix: &str) -> Result<String, Error> {
        derived(name, suffix).map_err(|source| Error::Name {
            what,
            name: name.to_owned(),
            source,
        })
    }

    pub(crate) fn not_found(&self, on: Label) -> Error {
        Error::NotFound {
            on,
            segment: self.0.name.clone(),
        }
    }

    /// Error for a shape that cannot be.
    pub(crate) fn layout_error(&self, label: &Label) -> impl FnOnce(LayoutError) -> Error {
        let (on, segment) = (label.clone(), self.0.name.clone());
        move |source| Error::Layout {
            on,
            segment,
            source,
        }
    }

    fn block(&self, label: Label, extent: Extent, room: u64) -> Block {
        // The spare slot: the table's last.
        let spare = entry_at(self.0.slots - 1) as usize + entry_offset::NAME;
        let word = self
            .0
            .options
            .native_marks
            .then(|| self.0.region.word64(spare).ok())
            .flatten();
        let spare = word.map_or(Spare::none(), Spare::new);
        Block {
            region: self.0.region.clone(),
            offset: extent.offset as usize,
            size: extent.size as usize,
            label,
            waiter: self.0.waiter,
            patience: self.0.options.patience,
            bell: spare.bell(extent.offset / 8),
            spare,
            marks: self.0.options.native_marks,
            room: room as usize,
        }
    }

    /// The bytes of an entry, which the label names.
    pub(crate) fn open_entry(&self, name: &str, label: &Label) -> Result<Block, Error> {
        let (index, entry) = self
            .find(name)
            .ok_or_else(|| self.not_found(label.clone()))?;
        let extent =
            entry
                .extent(index, &self.header_now())
                .map_err(|source| Error::Structure {
                    on: label.clone(),
                    source,
                })?;
        let room = self.room_of(extent, index);
        Ok(self.block(label.clone(), extent, room))
    }

    /// The bytes from an entry's start that no other entry has, at most up to
    /// the next multiple of 8 after its end.
    fn room_of(&self, extent: Extent, index: u32) -> u64 {
        let padded = extent.end().next_multiple_of(8).min(self.0.memory_size);
        let taken = (0..self.count())
            .filter(|&other| other != index)
            .filter_map(|other| self.entry(other))
            .any(|other| {
                other.offset.get() < padded
                    && other.offset.get().saturating_add(other.size.get()) > extent.end()
            });
        if taken {
            extent.size
        } else {
            padded - extent.offset
        }
    }

    /// Creates a structure of one or more entries.
    ///
    /// All names, slots and bytes are checked before anything is stored; `fill`
    /// stores the initial content while nobody can see it; then all entries are
    /// published at once.
    pub(crate) fn create_entries<R>(
        &self,
        label: &Label,
        parts: &[Part],
        fill: impl FnOnce(&[Block]) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let _lock = self.lock()?;
        self.check_names(label, parts)?;
        let (first, extents, end) = self.reserve(label, parts)?;
        let blocks: Vec<Block> = extents
            .iter()
            .map(|&extent| {
                let padded = extent.end().next_multiple_of(8).min(self.0.memory_size);
                self.block(label.clone(), extent, padded - extent.offset)
            })
            .collect();
        let filled = blocks
            .iter()
            .try_for_each(zero)
            .and_then(|()| fill(&blocks));
        let published = filled.and_then(|handle| {
            self.publish(label, parts, &extents)?;
            Ok(handle)
        });
        if published.is_err() {
            // Give the bytes back, unless somebody took more meanwhile.
            let _ = self
                .0
                .next
                .compare_exchange(end, first, Ordering::AcqRel, Ordering::Relaxed);
        }
        published
    }

    /// Whether the names can be inserted.
    fn check_names(&self, label: &Label, parts: &[Part]) -> Result<(), Error> {
        for part in parts {
            check_name(&part.name).map_err(|source| Error::Name {
                what: label.what,
                name: part.name.clone(),
                source,
            })?;
            if self.find(&part.name).is_some() {
                return Err(Error::AlreadyExists {
                    on: Self::label(label.what, &part.name),
                    segment: self.0.name.clone(),
                });
            }
        }
        let free = self.0.slots - self.count();
        if (free as usize) < parts.len() {
            return Err(Error::TableFull {
                on: label.clone(),
                segment: self.0.name.clone(),
                needed: parts.len() as u32,
                free,
                slots: self.0.slots,
            });
        }
        Ok(())
    }

    /// Takes the bytes: gives `next_offset` before and after, and each extent.
    fn reserve(&self, label: &Label, parts: &[Part]) -> Result<(u64, Vec<Extent>, u64), Error> {
        for _ in 0..Self::TRIES {
            // Acquire: pairs with the release of who reserved before.
            let before = self.0.next.load(Ordering::Acquire);
            // What an entry covers is not free, whatever next_offset says.
            let header = self.header_now();
            let covered = (0..self.count())
                .filter_map(|index| self.entry(index)?.extent(index, &header).ok())
                .map(|extent| extent.end())
                .max();
            let mut end = before
                .max(covered.unwrap_or(0))
                .max(table_end(self.0.slots));
            let mut extents = Vec::with_capacity(parts.len());
            for part in parts {
                let extent =
                    place(end, part.size, self.0.memory_size).map_err(self.layout_error(label))?;
                end = extent.end();
                extents.push(extent);
            }
            // AcqRel: pairs with the acquire above, in the next reserver.
            let taken =
                self.0
                    .next
                    .compare_exchange(before, end, Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                return Ok((before, extents, end));
            }
        }
        Err(self.interference(label))
    }

    /// Writes the entries, then the count, then looks whether they still stand.
    fn publish(&self, label: &Label, parts: &[Part], extents: &[Extent]) -> Result<(), Error> {
        for _ in 0..Self::TRIES {
            let count = self.count();
            self.check_names(label, parts)?;
            let mut written = Vec::with_capacity(parts.len());
            for ((part, &extent), index) in parts.iter().zip(extents).zip(count..) {
                let entry = Entry::new(&part.name, extent).map_err(|source| Error::Name {
                    what: label.what,
                    name: part.name.clone(),
                    source,
                })?;
                self.write_table(entry_at(index) as usize, &entry.to_bytes())?;
                written.push((index, entry));
            }
            let after = count + parts.len() as u32;
            // Release: who sees the count sees the entries and what they name.
            let counted =
                self.0
                    .count
                    .compare_exchange(count, after, Ordering::AcqRel, Ordering::Relaxed);
            if counted.is_err() {
                // Somebody who ignores the lock took our slots.
                continue;
            }
            if self.stand(&written, extents) {
                return Ok(());
            }
            // Taken back only while ours are the last.
            let _ =
                self.0
                    .count
                    .compare_exchange(after, count, Ordering::AcqRel, Ordering::Relaxed);
            return Err(self.interference(label));
        }
        Err(self.interference(label))
    }

    /// Whether the entries are as we wrote them and overlap no other.
    fn stand(&self, written: &[(u32, Entry)], extents: &[Extent]) -> bool {
        let unchanged = written
            .iter()
            // Behind a name's NUL others may leave marks.
            .all(|(index, entry)| {
                self.entry(*index).is_some_and(|there| {
                    there.has_name(&entry.name_lossy())
                        && (there.offset, there.size) == (entry.offset, entry.size)
                })
            });
        let ours = |index: u32| written.iter().any(|(own, _)| *own == index);
        let apart = (0..self.count())
            .filter(|&index| !ours(index))
            .filter_map(|index| self.entry(index))
            .all(|other| {
                let (start, end) = (
                    other.offset.get(),
                    other.offset.get().saturating_add(other.size.get()),
                );
                extents
                    .iter()
                    .all(|extent| end <= extent.offset || start >= extent.end())
            });
        unchanged && apart
    }

    fn interference(&self, label: &Label) -> Error {
        Error::Interference {
            on: label.clone(),
            segment: self.0.name.clone(),
        }
    }
}

/// Clears a new entry's bytes and the padding after them: an insertion that
/// failed, or a segment that C made anew, may have left some.
fn zero(block: &Block) -> Result<(), Error> {
    const CHUNK: usize = 1 << 16;
    static ZEROS: [u8; CHUNK] = [0; CHUNK];
    let mut at = 0;
    while at < block.room {
        let part = CHUNK.min(block.room - at);
        block.fill(at as u64, &ZEROS[..part])?;
        at += part;
    }
    Ok(())
}

/// Opens a structure, or creates it if there is none; of several processes that
/// do so at once one creates.
pub(crate) fn open_or_create<T>(
    open: impl Fn() -> Result<T, Error>,
    create: impl Fn() -> Result<T, Error>,
) -> Result<T, Error> {
    for _ in 0..Memory::TRIES {
        match open() {
            Err(Error::NotFound { .. }) => {}
            done => return done,
        }
        match create() {
            Err(Error::AlreadyExists { .. }) => {}
            done => return done,
        }
    }
    open()
}
