//! POSIX named semaphores, through the C library: their memory format is its own.

use crate::{Deadline, Mode};
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    not(loom)
))]
use std::sync::atomic::{AtomicU64, Ordering};
use std::{ffi::CString, io, ptr::NonNull};

/// The half of glibc's word that is the value.
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    not(loom)
))]
const VALUE: u64 = 0xFFFF_FFFF;

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
    ///
    /// glibc's 64-bit semaphore is one word (value in the low half, waiters in
    /// the high half; ZeroBuffer format, section 1.1), and this is what its
    /// `sem_trywait` does to it; a call per poll would double the cost of
    /// polling.
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(loom)
    ))]
    #[inline]
    #[expect(clippy::unnecessary_wraps, reason = "other systems' calls can fail")]
    pub(crate) fn try_wait(&self) -> io::Result<bool> {
        let mut word = self.word().load(Ordering::Relaxed);
        while word & VALUE != 0 {
            // Acquire: pairs with the release of the post whose token this is.
            match self.word().compare_exchange_weak(
                word,
                word - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(true),
                Err(now) => word = now,
            }
        }
        Ok(false)
    }

    /// The value at this moment.
    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(loom)
    ))]
    #[inline]
    pub(crate) fn value(&self) -> u32 {
        // Relaxed: as `sem_getvalue`; nothing is concluded from it but to look.
        (self.word().load(Ordering::Relaxed) & VALUE) as u32
    }

    #[cfg(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(loom)
    ))]
    #[inline]
    fn word(&self) -> &AtomicU64 {
        // SAFETY: the C library maps at least 32 bytes, aligned to 8, until
        // drop; it only ever touches the first eight atomically, as one word.
        unsafe { self.0.cast().as_ref() }
    }

    #[cfg(not(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(loom)
    )))]
    #[inline]
    pub(crate) fn try_wait(&self) -> io::Result<bool> {
        loop {
            // SAFETY: open until drop.
            match check(unsafe { libc::sem_trywait(self.0.as_ptr()) }) {
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The value. Where the system cannot tell (macOS), 1: try and see.
    #[cfg(not(all(
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(loom)
    )))]
    #[inline]
    pub(crate) fn value(&self) -> u32 {
        let mut value = 0;
        // SAFETY: open until drop; `value` is a local int.
        #[allow(deprecated, reason = "deprecated on macOS, where it only ever fails")]
        let result = unsafe { libc::sem_getvalue(self.0.as_ptr(), &raw mut value) };
        if result == 0 {
            u32::try_from(value).unwrap_or(0)
        } else {
            1
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    pub(crate) fn wait_until(&self, deadline: Deadline) -> io::Result<bool> {
        unsafe extern "C" {
            // glibc 2.30; the libc crate does not declare it everywhere.
            fn sem_clockwait(
                sem: *mut libc::sem_t,
                clock: libc::clockid_t,
                until: *const libc::timespec,
            ) -> libc::c_int;
        }
        let until = deadline
            .remaining()
            .map(|left| absolute(libc::CLOCK_MONOTONIC, left));
        loop {
            let result = match &until {
                // SAFETY: open until drop; `until` outlives the call.
                Some(until) => unsafe {
                    sem_clockwait(self.0.as_ptr(), libc::CLOCK_MONOTONIC, until)
                },
                // SAFETY: open until drop.
                None => unsafe { libc::sem_wait(self.0.as_ptr()) },
            };
            match check(result) {
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// Without a wait on the monotonic clock: short naps between tries.
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    pub(crate) fn wait_until(&self, deadline: Deadline) -> io::Result<bool> {
        let nap = std::time::Duration::from_micros(200);
        loop {
            if self.try_wait()? {
                return Ok(true);
            }
            if deadline.expired() {
                return Ok(false);
            }
            std::thread::sleep(nap.min(deadline.remaining().unwrap_or(nap)));
        }
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

/// `left` from now on `clock`, as the C library takes it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn absolute(clock: libc::clockid_t, left: std::time::Duration) -> libc::timespec {
    // SAFETY: timespec is a plain C struct; zero is a valid value of it.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is local. The monotonic clock always exists.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let nanos = u64::from(left.subsec_nanos()) + u64::try_from(now.tv_nsec).unwrap_or(0);
    let seconds = left.as_secs().saturating_add(nanos / 1_000_000_000);
    // The fields' types differ between systems; too far away is far enough.
    let far = libc::time_t::MAX / 2;
    let seconds = libc::time_t::try_from(seconds).unwrap_or(far).min(far);
    now.tv_sec = now.tv_sec.saturating_add(seconds);
    now.tv_nsec = (nanos % 1_000_000_000).try_into().unwrap_or(0);
    now
}
