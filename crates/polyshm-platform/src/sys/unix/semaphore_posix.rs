//! Tokens of a POSIX semaphore about which nothing more is known.

use super::check;
use crate::Deadline;
use std::{io, ptr::NonNull, time::Duration};

/// Between two tries: POSIX has no wait on the monotonic clock.
const NAP: Duration = Duration::from_micros(200);

/// Takes them one by one: those that were there at the start, at most.
pub(super) fn take_up_to(sem: NonNull<libc::sem_t>, count: u32) -> io::Result<u32> {
    let limit = value(sem).map_or(count, |value| value.min(count));
    let mut taken = 0;
    while taken < limit && try_wait(sem)? {
        taken += 1;
    }
    Ok(taken)
}

#[inline]
fn try_wait(sem: NonNull<libc::sem_t>) -> io::Result<bool> {
    loop {
        // SAFETY: only `NamedSemaphore` calls, between `sem_open` and `sem_close`.
        match check(unsafe { libc::sem_trywait(sem.as_ptr()) }) {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Apple's systems cannot tell.
#[inline]
pub(super) fn value(sem: NonNull<libc::sem_t>) -> Option<u32> {
    #[cfg(target_vendor = "apple")]
    {
        let _ = sem;
        None
    }
    #[cfg(not(target_vendor = "apple"))]
    {
        let mut value = 0;
        // SAFETY: open, as for `try_wait`; `value` is a local int.
        let result = unsafe { libc::sem_getvalue(sem.as_ptr(), &raw mut value) };
        (result == 0).then_some(u32::try_from(value).unwrap_or(0))
    }
}

pub(super) fn wait_until(sem: NonNull<libc::sem_t>, deadline: Deadline) -> io::Result<bool> {
    loop {
        if try_wait(sem)? {
            return Ok(true);
        }
        if deadline.expired() {
            return Ok(false);
        }
        std::thread::sleep(NAP.min(deadline.remaining().unwrap_or(NAP)));
    }
}
