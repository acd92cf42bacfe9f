//! POSIX named semaphores, through the C library: their memory format is its own.

use crate::{Deadline, Mode};
use std::{ffi::CString, io, ptr::NonNull};

#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
#[path = "semaphore_glibc.rs"]
mod tokens;
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")))]
#[path = "semaphore_posix.rs"]
mod tokens;

/// An open named semaphore.
#[derive(Debug)]
pub(crate) struct NamedSemaphore(NonNull<libc::sem_t>);

// SAFETY: POSIX semaphores may be used from any thread.
unsafe impl Send for NamedSemaphore {}
// SAFETY: as for Send; every operation is atomic.
unsafe impl Sync for NamedSemaphore {}

impl NamedSemaphore {
    pub(crate) fn create_new(path: &str, value: u32, mode: Mode) -> io::Result<Self> {
        let path = CString::new(path)?;
        // SAFETY: a valid C string; O_CREAT takes the two further arguments.
        let raw = unsafe {
            libc::sem_open(
                path.as_ptr(),
                libc::O_CREAT | libc::O_EXCL,
                libc::c_uint::from(mode.bits() as u16),
                value,
            )
        };
        Self::from_raw(raw)
    }

    pub(crate) fn open(path: &str) -> io::Result<Self> {
        let path = CString::new(path)?;
        // SAFETY: a valid C string; without O_CREAT there are no further arguments.
        Self::from_raw(unsafe { libc::sem_open(path.as_ptr(), 0) })
    }

    fn from_raw(raw: *mut libc::sem_t) -> io::Result<Self> {
        if std::ptr::eq(raw, libc::SEM_FAILED) {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(raw)
            .map(Self)
            .ok_or_else(io::Error::last_os_error)
    }

    pub(crate) fn unlink(path: &str) -> io::Result<()> {
        let path = CString::new(path)?;
        // SAFETY: a valid C string.
        check(unsafe { libc::sem_unlink(path.as_ptr()) })
    }

    #[inline]
    pub(crate) fn post(&self) -> io::Result<()> {
        // SAFETY: open until drop.
        check(unsafe { libc::sem_post(self.0.as_ptr()) })
    }

    /// Takes a token if there is one.
    #[inline]
    pub(crate) fn try_wait(&self) -> io::Result<bool> {
        Ok(self.take_up_to(1)? == 1)
    }

    /// Takes at most `count` tokens; gives how many.
    #[inline]
    pub(crate) fn take_up_to(&self, count: u32) -> io::Result<u32> {
        tokens::take_up_to(self.0, count)
    }

    /// The value, where the system can tell.
    #[inline]
    pub(crate) fn value(&self) -> Option<u32> {
        tokens::value(self.0)
    }

    pub(crate) fn wait_until(&self, deadline: Deadline) -> io::Result<bool> {
        tokens::wait_until(self.0, deadline)
    }
}

impl Drop for NamedSemaphore {
    fn drop(&mut self) {
        // SAFETY: open until here, and nobody uses it after.
        let _ = unsafe { libc::sem_close(self.0.as_ptr()) };
    }
}

#[inline]
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
