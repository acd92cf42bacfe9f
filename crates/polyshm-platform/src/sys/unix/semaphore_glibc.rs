//! Tokens of glibc's 64-bit semaphore.
//!
//! Its first eight bytes are one word: the value in the low half, the number of
//! waiters in the high half (ZeroBuffer format, section 1.1). Looking and taking
//! are done on that word here, as glibc does them: a call per poll would double
//! the cost of polling. Posting and sleeping are glibc's own.

use super::check;
use crate::Deadline;
use std::{
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The half of the word that is the value.
const VALUE: u64 = 0xFFFF_FFFF;

unsafe extern "C" {
    // Since glibc 2.30; the libc crate does not declare it everywhere.
    fn sem_clockwait(
        sem: *mut libc::sem_t,
        clock: libc::clockid_t,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

#[inline]
fn word(sem: &NonNull<libc::sem_t>) -> &AtomicU64 {
    // SAFETY: only `NamedSemaphore` calls, with what `sem_open` gave it and
    // before `sem_close`: at least 32 mapped bytes, aligned to 8, of which
    // everybody touches the first eight atomically, as one word.
    unsafe { sem.cast().as_ref() }
}

#[inline]
pub(super) fn take_up_to(sem: NonNull<libc::sem_t>, count: u32) -> io::Result<u32> {
    let word = word(&sem);
    let mut now = word.load(Ordering::Relaxed);
    loop {
        let taken = (now & VALUE).min(u64::from(count));
        if taken == 0 {
            return Ok(0);
        }
        // Acquire: pairs with the release of the posts whose tokens these are.
        match word.compare_exchange_weak(now, now - taken, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return Ok(taken as u32),
            Err(other) => now = other,
        }
    }
}

#[inline]
#[expect(clippy::unnecessary_wraps, reason = "other systems cannot tell")]
pub(super) fn value(sem: NonNull<libc::sem_t>) -> Option<u32> {
    // Relaxed: as `sem_getvalue`; nothing is concluded from it but to look.
    Some((word(&sem).load(Ordering::Relaxed) & VALUE) as u32)
}

pub(super) fn wait_until(sem: NonNull<libc::sem_t>, deadline: Deadline) -> io::Result<bool> {
    let until = deadline.remaining().map(monotonic);
    loop {
        let result = match &until {
            // SAFETY: open, as for `word`; `until` outlives the call.
            Some(until) => unsafe { sem_clockwait(sem.as_ptr(), libc::CLOCK_MONOTONIC, until) },
            // SAFETY: open, as for `word`.
            None => unsafe { libc::sem_wait(sem.as_ptr()) },
        };
        match check(result) {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::TimedOut => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// `left` from now on the monotonic clock, as the C library takes it.
fn monotonic(left: Duration) -> libc::timespec {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = i64::from(left.subsec_nanos()) + now.tv_nsec;
    // Too far away is far enough.
    let seconds = i64::try_from(left.as_secs())
        .unwrap_or(i64::MAX / 2)
        .min(i64::MAX / 2);
    libc::timespec {
        tv_sec: now
            .tv_sec
            .saturating_add(seconds)
            .saturating_add(nanos / 1_000_000_000),
        tv_nsec: nanos % 1_000_000_000,
    }
}
