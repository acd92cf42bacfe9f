//! Numbered places at which a process can be told to die.
//!
//! Compiled only under `--cfg crash_points`; otherwise [`point`] is empty and
//! costs nothing. Each store, atomic update, semaphore call and file-system
//! call of this crate passes [`point`] first. A driver arms number 1, 2, 3 ...
//! in a fresh process each time, until one runs to its end.

/// The kinds of steps that are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A plain or atomic store to shared memory.
    Store,
    /// An atomic read-modify-write on shared memory.
    Update,
    /// A part of a copy into shared memory.
    Copy,
    /// A semaphore or futex call that changes something.
    Semaphore,
    /// A file-system call that changes something.
    FileSystem,
}

#[cfg(crash_points)]
mod armed {
    use super::Step;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Not counting.
    const OFF: u64 = u64::MAX;
    /// The number to die before; 0 counts without dying.
    static TARGET: AtomicU64 = AtomicU64::new(OFF);
    static COUNT: AtomicU64 = AtomicU64::new(0);

    /// Starts counting; the process dies by SIGKILL just before step `number`.
    ///
    /// With 0 it only counts.
    pub fn arm(number: u64) {
        // Relaxed: the scenarios arm and run on one thread.
        COUNT.store(0, Relaxed);
        TARGET.store(number, Relaxed);
    }

    /// Stops counting and gives the number of steps passed since [`arm`].
    pub fn disarm() -> u64 {
        TARGET.store(OFF, Relaxed);
        COUNT.load(Relaxed)
    }

    /// Counts one step, and dies before it when its number is the armed one.
    pub fn point(_step: Step) {
        let target = TARGET.load(Relaxed);
        if target == OFF {
            return;
        }
        if COUNT.fetch_add(1, Relaxed) + 1 == target {
            crate::process::kill_self();
        }
    }
}

#[cfg(crash_points)]
pub use armed::{arm, disarm, point};

/// Counts one step under `--cfg crash_points`; otherwise nothing.
#[cfg(not(crash_points))]
#[inline]
pub const fn point(_step: Step) {}
