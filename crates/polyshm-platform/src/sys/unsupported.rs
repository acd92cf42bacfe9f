//! Systems that polyshm does not run on yet: every call says so.

use crate::{Access, Deadline, Identity, Mode, process::Liveness, sync::AtomicU32};
use memmap2::MmapRaw;
use std::{convert::Infallible, io, path::Path};

pub(crate) const MAX_NAME: usize = 245;

pub(crate) const MAX_SEMAPHORE_NAME: usize = MAX_NAME;

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn page_size() -> usize {
    4096
}

pub(crate) fn system_name(bare: &str) -> String {
    bare.to_owned()
}

pub(crate) fn is_no_space(_error: &io::Error) -> bool {
    false
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "polyshm works on Linux; this system is not supported yet",
    ))
}

#[derive(Debug)]
pub(crate) struct Segment(Infallible);

impl Segment {
    pub(crate) fn create_new(_path: &str, _mode: Mode) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn create_unnamed(_mode: Mode) -> io::Result<Option<Self>> {
        unsupported()
    }

    pub(crate) fn link(&self, _path: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn open(_path: &str, _access: Access) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn unlink(_path: &str) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn allocate(&self, _len: u64) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn len(&self) -> io::Result<u64> {
        match self.0 {}
    }

    pub(crate) fn allocated(&self) -> io::Result<u64> {
        match self.0 {}
    }

    pub(crate) fn peek(&self, _into: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub(crate) fn identity(&self) -> io::Result<Identity> {
        match self.0 {}
    }

    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn unlock(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn map(&self, _len: u64, _access: Access) -> io::Result<MmapRaw> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct NamedSemaphore(Infallible);

impl NamedSemaphore {
    pub(crate) fn create_new(_path: &str, _value: u32, _mode: Mode) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn open(_path: &str) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn unlink(_path: &str) -> io::Result<()> {
        unsupported()
    }

    pub(crate) fn post(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn try_wait(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn take_up_to(&self, _count: u32) -> io::Result<u32> {
        match self.0 {}
    }

    pub(crate) fn value(&self) -> Option<u32> {
        match self.0 {}
    }

    pub(crate) fn wait_until(&self, _deadline: Deadline) -> io::Result<bool> {
        match self.0 {}
    }
}

#[derive(Debug)]
pub(crate) struct LockedFile(Infallible);

impl LockedFile {
    pub(crate) fn open_or_create(_path: &Path, _mode: Mode) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn open(_path: &Path) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn try_lock(&self) -> io::Result<bool> {
        match self.0 {}
    }

    pub(crate) fn is_at(&self, _path: &Path) -> io::Result<bool> {
        match self.0 {}
    }
}

/// Alive is the answer that removes nothing.
pub(crate) fn liveness(_pid: u32) -> Liveness {
    Liveness::Alive
}

pub(crate) fn start_time(_pid: u32) -> Option<u64> {
    None
}

pub(crate) fn futex_wait(_word: &AtomicU32, _expected: u32, deadline: Deadline) {
    let nap = std::time::Duration::from_micros(200);
    std::thread::sleep(nap.min(deadline.remaining().unwrap_or(nap)));
}

pub(crate) fn futex_wake(_word: &AtomicU32, _count: u32) {}

#[cfg(crash_points)]
pub(crate) fn kill_self() -> ! {
    std::process::abort()
}
