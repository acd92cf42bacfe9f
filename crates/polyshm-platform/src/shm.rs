//! Named shared memory.

use crate::{Deadline, Error, Result, crash, sys};
use memmap2::MmapRaw;
use parking_lot::{Mutex, MutexGuard};
use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How a segment is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// Unix permission bits of a new object, subject to the process's umask.
///
/// Windows objects take the creator's default rights whatever the bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Read and write for the owner alone (0600): the default where no
    /// other implementation dictates a mode.
    pub const OWNER: Self = Self(0o600);
    /// Read and write for everybody the umask lets through (0666).
    pub const ALL: Self = Self(0o666);

    /// The given permission bits; other bits are dropped.
    #[must_use]
    pub const fn new(bits: u32) -> Self {
        Self(bits & 0o777)
    }

    /// The permission bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for Mode {
    fn default() -> Self {
        Self::OWNER
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({:04o})", self.0)
    }
}

/// Which object a name stood for when it was opened.
///
/// A name can be removed and given to another object at any time; two equal
/// identities of live handles are the same object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The file system.
    pub device: u64,
    /// The object in it.
    pub inode: u64,
}

/// An open named segment: a descriptor, its length and its identity.
///
/// Dropping it closes the descriptor and leaves the name; see
/// [`SharedMemory::unlink`]. Names are given without or with one leading slash.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_platform::{Mode, Region, SharedMemory};
///
/// let name = format!("polyshm-doc-shm-{}", std::process::id());
/// let segment = SharedMemory::create_new(&name, 4096, Mode::OWNER)?;
/// let region = Region::map(&segment)?;
/// assert_eq!(region.len(), 4096);
/// segment.unlink()?;
/// assert!(SharedMemory::open(&name).is_err());
/// # }
/// # Ok::<(), polyshm_platform::Error>(())
/// ```
#[derive(Debug)]
pub struct SharedMemory {
    handle: sys::Segment,
    name: String,
    /// When it was opened, or what it was given since.
    len: AtomicU64,
    identity: Identity,
    access: Access,
    /// It has no name yet.
    hidden: AtomicBool,
    /// The system's lock belongs to the open file, not to a thread.
    lock: Mutex<()>,
}

impl SharedMemory {
    pub(crate) const WHAT: &'static str = "shared memory segment";

    /// Creates a segment of `len` zero bytes that nobody has yet.
    ///
    /// The pages are really allocated, so a full `/dev/shm` is an error here
    /// and not a SIGBUS later.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`], [`Error::NoSpace`], [`Error::InvalidName`],
    /// [`Error::PermissionDenied`]. Nothing is left behind.
    pub fn create_new(name: &str, len: u64, mode: Mode) -> Result<Self> {
        let segment = Self::create_empty(name, mode)?;
        segment.allocate(len).inspect_err(|_| {
            // Only we know of it yet; the error that matters is the first.
            let _ = sys::Segment::unlink(&segment.name);
        })?;
        Ok(segment)
    }

    /// Creates a segment without bytes that nobody has yet: for creators that
    /// lock it before others can take it for abandoned, and then
    /// [`allocate`](Self::allocate).
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::create_new`], without [`Error::NoSpace`].
    pub fn create_empty(name: &str, mode: Mode) -> Result<Self> {
        let path = check_name(Self::WHAT, name, sys::MAX_NAME)?;
        crash::point(crash::Step::FileSystem);
        let handle = sys::Segment::create_new(&path, mode)
            .map_err(|e| Error::from_io("create", Self::WHAT, name, e))?;
        Self::empty(handle, path.clone()).inspect_err(|_| {
            // Only we know of it yet; the error that matters is the first.
            let _ = sys::Segment::unlink(&path);
        })
    }

    fn empty(handle: sys::Segment, path: String) -> Result<Self> {
        let identity = handle
            .identity()
            .map_err(|e| Error::from_io("look at", Self::WHAT, &path, e))?;
        Ok(Self {
            handle,
            name: path,
            len: AtomicU64::new(0),
            identity,
            access: Access::ReadWrite,
            lock: Mutex::new(()),
            hidden: AtomicBool::new(false),
        })
    }

    /// Creates a segment of `len` zero bytes that nobody finds until it is
    /// [published](Self::publish): whoever opens the name sees it finished, and
    /// a creator that dies leaves nothing.
    ///
    /// Where the system has no unnamed objects it is there at once, under its
    /// name: store last what tells a finished segment, and
    /// [unlink](Self::unlink) it when that fails.
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::create_new`]; whether the name is taken is known at
    /// publishing, at the latest.
    pub fn create_hidden(name: &str, len: u64, mode: Mode) -> Result<Self> {
        let path = check_name(Self::WHAT, name, sys::MAX_NAME)?;
        crash::point(crash::Step::FileSystem);
        let unnamed = sys::Segment::create_unnamed(mode)
            .map_err(|e| Error::from_io("create", Self::WHAT, name, e))?;
        let Some(handle) = unnamed else {
            return Self::create_new(name, len, mode);
        };
        let segment = Self::empty(handle, path)?;
        segment.hidden.store(true, Relaxed);
        segment.allocate(len)?;
        Ok(segment)
    }

    /// Gives a [hidden](Self::create_hidden) segment its name. Nothing happens
    /// to one that has it.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when another segment has the name; or the
    /// system refuses.
    pub fn publish(&self) -> Result<()> {
        // Relaxed: a flag of our own, whatever else is seen.
        if !self.hidden.load(Relaxed) {
            return Ok(());
        }
        crash::point(crash::Step::FileSystem);
        self.handle
            .link(&self.name)
            .map_err(|e| Error::from_io("publish", Self::WHAT, &self.name, e))?;
        self.hidden.store(false, Relaxed);
        Ok(())
    }

    /// Gives an empty segment its length, zeros in pages that are really
    /// allocated.
    ///
    /// # Errors
    ///
    /// [`Error::NoSpace`], or the system refuses. The name stays.
    pub fn allocate(&self, len: u64) -> Result<()> {
        let allocated = self.handle.allocate(len);
        allocated.map_err(|source| {
            if sys::is_no_space(&source) {
                Error::NoSpace {
                    name: self.name.clone(),
                    requested: len,
                    source,
                }
            } else {
                Error::from_io("size", Self::WHAT, &self.name, source)
            }
        })?;
        // Relaxed: a number of our own, whatever else is seen.
        self.len.store(len, Relaxed);
        Ok(())
    }

    /// The bytes that the system has given it pages for, now; it grows while
    /// somebody fills a segment that was not allocated at once.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn allocated(&self) -> Result<u64> {
        self.handle
            .allocated()
            .map_err(|e| Error::from_io("look at", Self::WHAT, &self.name, e))
    }

    /// Opens a segment to read and write it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::PermissionDenied`], [`Error::InvalidName`].
    pub fn open(name: &str) -> Result<Self> {
        Self::open_with(name, Access::ReadWrite)
    }

    /// Opens a segment to look at it only.
    ///
    /// # Errors
    ///
    /// As [`SharedMemory::open`].
    pub fn open_read_only(name: &str) -> Result<Self> {
        Self::open_with(name, Access::ReadOnly)
    }

    fn open_with(name: &str, access: Access) -> Result<Self> {
        let path = check_name(Self::WHAT, name, sys::MAX_NAME)?;
        let failed = |e| Error::from_io("open", Self::WHAT, name, e);
        let handle = sys::Segment::open(&path, access).map_err(failed)?;
        let len = handle.len().map_err(failed)?;
        let identity = handle.identity().map_err(failed)?;
        Ok(Self {
            handle,
            name: path,
            len: AtomicU64::new(len),
            identity,
            access,
            hidden: AtomicBool::new(false),
            lock: Mutex::new(()),
        })
    }

    /// The unit that the system may round a segment's length up to, in bytes.
    #[must_use]
    pub fn page_size() -> u64 {
        sys::page_size() as u64
    }

    /// The name, with its leading slash where the system has one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len.load(Relaxed)
    }

    /// Whether it has no bytes: its creator is still at work, or died at it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which object this is.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// How it was opened.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    pub(crate) fn map_raw(&self) -> Result<MmapRaw> {
        self.handle
            .map(self.len(), self.access)
            .map_err(|e| Error::from_io("map", Self::WHAT, &self.name, e))
    }

    /// Copies the first bytes without mapping them: a segment of unknown
    /// origin may be cut at any moment, which a mapping answers with SIGBUS.
    /// Gives how many bytes there were, at most as many as `into` takes.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn peek(&self, into: &mut [u8]) -> Result<usize> {
        self.handle
            .peek(into)
            .map_err(|e| Error::from_io("read", Self::WHAT, &self.name, e))
    }

    /// Takes the advisory lock of the segment: one holder among all threads
    /// and processes that ask for it. The system gives it up when the holder
    /// dies. `None` when the deadline passes first; others that hold it are
    /// looked at every half millisecond.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn lock(&self, deadline: Deadline) -> Result<Option<SegmentLock<'_>>> {
        const NAP: Duration = Duration::from_micros(500);
        let thread = match deadline.remaining() {
            None => self.lock.lock(),
            Some(left) => match self.lock.try_lock_for(left) {
                Some(guard) => guard,
                None => return Ok(None),
            },
        };
        loop {
            crash::point(crash::Step::FileSystem);
            let locked = self.handle.try_lock();
            if locked.map_err(|e| Error::from_io("lock", Self::WHAT, &self.name, e))? {
                return Ok(Some(SegmentLock {
                    of: self,
                    _thread: thread,
                }));
            }
            match deadline.remaining() {
                Some(Duration::ZERO) => return Ok(None),
                Some(left) => std::thread::sleep(NAP.min(left)),
                None => std::thread::sleep(NAP),
            }
        }
    }

    /// Whether the name still stands for this object.
    ///
    /// # Errors
    ///
    /// The name cannot be looked up.
    pub fn is_linked(&self) -> Result<bool> {
        match sys::Segment::open(&self.name, Access::ReadOnly).and_then(|now| now.identity()) {
            Ok(now) => Ok(now == self.identity),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from_io("look up", Self::WHAT, &self.name, e)),
        }
    }

    /// Gives the segment a second name, which keeps it when somebody removes
    /// the first; see [`restore`](Self::restore).
    ///
    /// Both go by the segment itself, not by what its names stand for now.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`]; [`Error::InvalidName`]; or the system has no
    /// second names (only Linux has).
    pub fn keep_as(&self, second: &str) -> Result<()> {
        let second = check_name(Self::WHAT, second, sys::MAX_NAME)?;
        crash::point(crash::Step::FileSystem);
        self.handle
            .link(&second)
            .map_err(|e| Error::from_io("keep", Self::WHAT, &self.name, e))
    }

    /// Gives the segment its name back that somebody removed, while it has a
    /// [second one](Self::keep_as).
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] when another segment has the name by now,
    /// [`Error::NotFound`] when the second name is gone too.
    pub fn restore(&self) -> Result<()> {
        crash::point(crash::Step::FileSystem);
        self.handle
            .link(&self.name)
            .map_err(|e| Error::from_io("restore", Self::WHAT, &self.name, e))
    }

    /// Removes the name, if it still stands for this object; whoever has the
    /// segment open keeps it. Gives whether it was removed.
    ///
    /// Between the look and the removal another process could replace the
    /// object; protocols hold their lock file meanwhile.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink(&self) -> Result<bool> {
        if !self.is_linked()? {
            return Ok(false);
        }
        Self::unlink_name(&self.name)
    }

    /// Removes a name, whatever object it stands for. Gives whether there was one.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink_name(name: &str) -> Result<bool> {
        let path = check_name(Self::WHAT, name, sys::MAX_NAME)?;
        crash::point(crash::Step::FileSystem);
        match sys::Segment::unlink(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from_io("remove", Self::WHAT, name, e)),
        }
    }
}

/// The advisory lock of a segment, held until dropped; see [`SharedMemory::lock`].
#[derive(Debug)]
pub struct SegmentLock<'a> {
    of: &'a SharedMemory,
    _thread: MutexGuard<'a, ()>,
}

impl Drop for SegmentLock<'_> {
    fn drop(&mut self) {
        crash::point(crash::Step::FileSystem);
        // Closing the file would give it up all the same.
        let _ = self.of.handle.unlock();
    }
}

/// Checks a name against the system's rules and gives the form that its calls take.
pub(crate) fn check_name(what: &'static str, name: &str, limit: usize) -> Result<String> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let reason = if bare.is_empty() {
        "it is empty".to_owned()
    } else if bare == "." || bare == ".." {
        "it is a directory".to_owned()
    } else if bare.contains('/') || (cfg!(windows) && bare.contains('\\')) {
        "it contains a path separator".to_owned()
    } else if bare.contains('\0') {
        "it contains a NUL character".to_owned()
    } else if bare.len() > limit {
        format!("it is {} bytes long and {} are allowed", bare.len(), limit)
    } else {
        return Ok(sys::system_name(bare));
    };
    Err(Error::InvalidName {
        what,
        name: name.to_owned(),
        reason,
    })
}
