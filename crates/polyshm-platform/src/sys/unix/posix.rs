//! Unix systems without Linux's facilities: what POSIX alone gives.

use crate::{Deadline, process::Liveness, sync::AtomicU32};
use rustix::{io::Errno, process::Pid};
use std::time::Duration;

/// macOS allows 31 characters, of which the leading slash is one.
pub(crate) const MAX_NAME: usize = 30;

pub(crate) const MAX_SEMAPHORE_NAME: usize = MAX_NAME;

/// There is no portable wait on a word: a short nap, and the caller looks again.
pub(crate) fn futex_wait(_word: &AtomicU32, _expected: u32, deadline: Deadline) {
    let nap = Duration::from_micros(200);
    std::thread::sleep(nap.min(deadline.remaining().unwrap_or(nap)));
}

/// Nobody sleeps on the word itself.
pub(crate) fn futex_wake(_word: &AtomicU32, _count: u32) {}

pub(crate) fn liveness(pid: u32) -> Liveness {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Liveness::Dead;
    };
    match rustix::process::test_kill_process(id) {
        Err(Errno::SRCH) => Liveness::Dead,
        _ => Liveness::Alive,
    }
}

/// Not known here.
pub(crate) fn start_time(_pid: u32) -> Option<u64> {
    None
}
