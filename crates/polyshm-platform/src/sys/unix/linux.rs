//! What Linux alone has: futexes, and processes described under /proc.

use crate::process::Liveness;
#[cfg(not(loom))]
use crate::{Deadline, sync::AtomicU32};
use rustix::{io::Errno, process::Pid};

/// A file name's limit.
pub(crate) const MAX_NAME: usize = 255;

/// glibc keeps semaphores as files `sem.NAME`.
pub(crate) const MAX_SEMAPHORE_NAME: usize = 251;

/// Where named shared memory is a file.
pub(crate) const SHM_DIRECTORY: &str = "/dev/shm";

/// This process's open files, each under its number.
pub(crate) const OWN_FILES: &str = "/proc/self/fd";

/// Sleeps while `word` is `expected`, until woken, the deadline, or for no reason.
#[cfg(not(loom))]
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, deadline: Deadline) {
    use rustix::thread::futex;
    let timeout = deadline.remaining().map(|left| rustix::thread::Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    // Shared, not private: the word is in memory that other processes map.
    // Every failure (changed, interrupted, timed out) means: look again.
    let _ = futex::wait(word, futex::Flags::empty(), expected, timeout.as_ref());
}

/// Wakes up to `count` sleepers on `word`, in any process.
#[cfg(not(loom))]
pub(crate) fn futex_wake(word: &AtomicU32, count: u32) {
    use rustix::thread::futex;
    // The kernel takes a signed number, and wakes one for a negative one.
    let count = count.min(i32::MAX.cast_unsigned());
    let _ = futex::wake(word, futex::Flags::empty(), count);
}

pub(crate) fn liveness(pid: u32) -> Liveness {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Liveness::Dead;
    };
    match rustix::process::test_kill_process(id) {
        // EPERM and anything else but "no such process": it exists.
        Ok(()) | Err(Errno::PERM) => {}
        Err(Errno::SRCH) => return Liveness::Dead,
        Err(_) => return Liveness::Alive,
    }
    match Stat::of(pid) {
        Some(stat) if stat.is_dead() => Liveness::Dead,
        // /proc may be absent or hidden: then the signal's word stands.
        _ => Liveness::Alive,
    }
}

pub(crate) fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid)
        .filter(|stat| !stat.is_dead())
        .map(|stat| stat.start)
}

/// The fields of `/proc/PID/stat` (proc_pid_stat(5)) that tell life from death.
struct Stat {
    state: u8,
    threads: u64,
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The command, field 2, may hold anything, also brackets and spaces:
        // fields are counted from its last bracket.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // Fields 20 and 22; the iterator now stands before field 4.
        let threads = fields.nth(16)?.parse().ok()?;
        let start = fields.nth(1)?.parse().ok()?;
        Some(Self {
            state,
            threads,
            start,
        })
    }

    /// A zombie whose other threads still run is a live process.
    fn is_dead(&self) -> bool {
        matches!(self.state, b'X' | b'x') || (self.state == b'Z' && self.threads <= 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(command: &str, state: char, threads: u32, start: u64) -> String {
        format!("7 ({command}) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 {start} 0 0")
    }

    #[test]
    fn a_command_with_brackets_does_not_shift_the_fields() {
        let parsed = Stat::parse(stat("a) Z 9 (b", 'S', 3, 4242).as_bytes()).unwrap();
        assert_eq!(
            (parsed.state, parsed.threads, parsed.start),
            (b'S', 3, 4242)
        );
        assert!(!parsed.is_dead());
    }

    #[test]
    fn a_zombie_is_dead_unless_its_threads_run() {
        assert!(
            Stat::parse(stat("x", 'Z', 1, 1).as_bytes())
                .unwrap()
                .is_dead()
        );
        assert!(
            !Stat::parse(stat("x", 'Z', 2, 1).as_bytes())
                .unwrap()
                .is_dead()
        );
    }

    #[test]
    fn damaged_text_is_unknown() {
        assert!(Stat::parse(b"").is_none());
        assert!(Stat::parse(b"1 (x").is_none());
        assert!(Stat::parse(b"1 (x) S 1 2").is_none());
    }
}
