//! POSIX: shared memory, semaphores, file locks; Linux for what POSIX lacks.

mod semaphore;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{MAX_NAME, MAX_SEMAPHORE_NAME, liveness, start_time};
#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
pub(crate) use linux::{futex_wait, futex_wake};

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod posix;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use posix::{MAX_NAME, MAX_SEMAPHORE_NAME, liveness, start_time};
#[cfg(not(any(target_os = "linux", target_os = "android", loom)))]
pub(crate) use posix::{futex_wait, futex_wake};

pub(crate) use semaphore::NamedSemaphore;

use crate::{Access, Identity, Mode};
use memmap2::{MmapOptions, MmapRaw};
use rustix::{
    fs::{self, FlockOperation, OFlags},
    io::Errno,
    shm,
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

/// The processors that are running, whatever part of them this thread may use:
/// a peer may be bound to another.
pub(crate) fn processors() -> usize {
    // SAFETY: no memory is involved.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).unwrap_or(1).max(1)
}

pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// POSIX gives shared names one leading slash.
pub(crate) fn system_name(bare: &str) -> String {
    format!("/{bare}")
}

/// Whether an error means that memory or file-system space ran out.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    let raw = error.raw_os_error();
    [Errno::NOSPC, Errno::DQUOT, Errno::NOMEM, Errno::FBIG]
        .iter()
        .any(|errno| raw == Some(errno.raw_os_error()))
}

fn file_mode(mode: Mode) -> fs::Mode {
    // The type's width differs between systems; the bits are below 0o1000.
    #[allow(
        clippy::useless_conversion,
        reason = "u16 on some systems, u32 on others"
    )]
    fs::Mode::from_raw_mode(mode.bits().try_into().unwrap_or(0o600))
}

/// An open shared-memory object.
#[derive(Debug)]
pub(crate) struct Segment(File);

impl Segment {
    pub(crate) fn create_new(path: &str, mode: Mode) -> io::Result<Self> {
        let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
        Ok(Self(File::from(shm::open(path, flags, file_mode(mode))?)))
    }

    /// An object without a name, where the system has such; the name comes
    /// with [`link`](Self::link).
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn create_unnamed(mode: Mode) -> io::Result<Option<Self>> {
        if !Path::new(linux::OWN_FILES).exists() {
            // The name is given through there.
            return Ok(None);
        }
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match fs::open(linux::SHM_DIRECTORY, flags, file_mode(mode)) {
            Ok(file) => Ok(Some(Self(File::from(file)))),
            // Old kernels and some file systems have none.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[expect(clippy::unnecessary_wraps, reason = "Linux can fail")]
    pub(crate) fn create_unnamed(_mode: Mode) -> io::Result<Option<Self>> {
        Ok(None)
    }

    /// Gives an object a name, unless another has it. One that had names and
    /// lost them all gets none.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn link(&self, path: &str) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let own = format!("{}/{}", linux::OWN_FILES, self.0.as_raw_fd());
        let to = format!("{}{path}", linux::SHM_DIRECTORY);
        Ok(fs::linkat(
            fs::CWD,
            own,
            fs::CWD,
            to,
            fs::AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(crate) fn link(&self, _path: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn open(path: &str, access: Access) -> io::Result<Self> {
        let flags = match access {
            Access::ReadOnly => shm::OFlags::RDONLY,
            Access::ReadWrite => shm::OFlags::RDWR,
        };
        Ok(Self(File::from(shm::open(path, flags, fs::Mode::empty())?)))
    }

    pub(crate) fn unlink(path: &str) -> io::Result<()> {
        Ok(shm::unlink(path)?)
    }

    /// Sets the length and allocates every page.
    pub(crate) fn allocate(&self, len: u64) -> io::Result<()> {
        crate::crash::point(crate::crash::Step::FileSystem);
        fs::ftruncate(&self.0, len)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if len > 0 {
            crate::crash::point(crate::crash::Step::FileSystem);
            loop {
                match fs::fallocate(&self.0, fs::FallocateFlags::empty(), 0, len) {
                    Err(Errno::INTR) => {}
                    done => break done?,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// By the blocks of 512 bytes that `stat` counts.
    pub(crate) fn allocated(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks().saturating_mul(512))
    }

    pub(crate) fn peek(&self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(into, 0)
    }

    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(identity(&self.0.metadata()?))
    }

    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        try_lock(&self.0)
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        Ok(fs::flock(&self.0, FlockOperation::Unlock)?)
    }

    pub(crate) fn map(&self, len: u64, access: Access) -> io::Result<MmapRaw> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut options = MmapOptions::new();
        options.len(len);
        match access {
            Access::ReadOnly => options.map_raw_read_only(&self.0),
            Access::ReadWrite => options.map_raw(&self.0),
        }
    }
}

fn identity(metadata: &std::fs::Metadata) -> Identity {
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// Takes the lock that this open file holds until it is closed or unlocked.
fn try_lock(file: &File) -> io::Result<bool> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// A file that `flock` works on.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    pub(crate) fn open_or_create(path: &Path, mode: Mode) -> io::Result<Self> {
        // No link is followed: the directory may be shared with other users.
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self(File::from(fs::open(path, flags, file_mode(mode))?)))
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(Self(File::from(fs::open(path, flags, fs::Mode::empty())?)))
    }

    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        try_lock(&self.0)
    }

    /// Whether `path` names this file.
    pub(crate) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = identity(&self.0.metadata()?);
        match std::fs::symlink_metadata(path) {
            Ok(there) => Ok(identity(&there) == own),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[cfg(crash_points)]
pub(crate) fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // SIGKILL cannot be held off; this satisfies the type.
    std::process::abort()
}
