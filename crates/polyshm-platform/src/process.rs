//! Which processes live.

use crate::sys;

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It exists and is not a zombie. One that we may not signal counts as alive.
    Alive,
    /// It does not exist, or only its exit status does.
    Dead,
}

/// Whether process `pid` lives.
///
/// Numbers no process can have (0, and those beyond the system's type) are
/// dead. A pid of another pid namespace cannot be told; it is taken as this
/// namespace's.
#[must_use]
pub fn liveness(pid: u64) -> Liveness {
    match u32::try_from(pid) {
        Ok(pid) if pid != 0 && i32::try_from(pid).is_ok() => sys::liveness(pid),
        _ => Liveness::Dead,
    }
}

/// Whether process `pid` lives; see [`liveness`].
#[must_use]
pub fn is_alive(pid: u64) -> bool {
    liveness(pid) == Liveness::Alive
}

/// When process `pid` started, in the system's own unit since boot; `None`
/// when it does not live or the system does not tell.
///
/// The same pid with another start time is another process.
#[must_use]
pub fn start_time(pid: u64) -> Option<u64> {
    sys::start_time(u32::try_from(pid).ok()?)
}

/// This process's pid.
#[must_use]
pub fn current() -> u64 {
    u64::from(std::process::id())
}

/// A pid and the low half of its start time in one word, so that both are
/// stored and loaded together; 0 when the start time is not known.
#[must_use]
pub fn stamp(pid: u64) -> u64 {
    start_time(pid).map_or(0, |start| (pid << 32) | (start & 0xFFFF_FFFF))
}

/// Whether the process that stored `stamp` beside its `pid` lives.
///
/// A stamp of another pid (or 0) tells nothing, and the pid alone decides.
#[must_use]
pub fn is_alive_stamped(pid: u64, stored: u64) -> bool {
    if !is_alive(pid) {
        return false;
    }
    if stored >> 32 != pid {
        return true;
    }
    let now = stamp(pid);
    now == 0 || now == stored
}

/// A pid and part of its start time in 32 bits, for formats that have no more
/// to spare: 22 bits of pid (Linux has no larger ones) below 10 of start time,
/// which are 0 when that is not known. 0 when the pid is too large.
///
/// Another process that took the pid is told apart 1023 times in 1024.
#[must_use]
pub fn mark(pid: u64) -> u32 {
    match u32::try_from(pid) {
        Ok(small) if small < 1 << MARK_PID_BITS => {
            let start = start_time(pid).unwrap_or(0) as u32;
            (start << MARK_PID_BITS) | small
        }
        _ => 0,
    }
}

/// Whether the process that made `mark` lives; 0 tells nothing and is alive.
#[must_use]
pub fn is_alive_marked(mark: u32) -> bool {
    let pid = u64::from(mark & ((1 << MARK_PID_BITS) - 1));
    if mark == 0 {
        return true;
    }
    if !is_alive(pid) {
        return false;
    }
    // Where a start time is not known, now or then, the pid alone decides.
    match (mark >> MARK_PID_BITS, start_time(pid)) {
        (0, _) | (_, None) => true,
        (stored, Some(_)) => {
            let now = self::mark(pid) >> MARK_PID_BITS;
            now == 0 || now == stored
        }
    }
}

const MARK_PID_BITS: u32 = 22;

/// Ends this process at once, as `kill -9` does.
#[cfg(crash_points)]
pub(crate) fn kill_self() -> ! {
    sys::kill_self()
}
