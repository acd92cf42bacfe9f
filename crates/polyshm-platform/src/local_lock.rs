//! A lock for values that one thread uses at a time.

use lock_api::{GuardNoSend, RawMutex};
use std::cell::Cell;

/// A [`RawMutex`] without atomics: it is not [`Sync`], so only one thread can
/// ever reach it at a time, and "locked" is a plain flag.
///
/// A type that is generic over its lock is free of lock costs with this one,
/// and shareable between threads with [`parking_lot::RawMutex`].
///
/// Locking it while it is locked panics: with one thread that is a deadlock.
#[derive(Debug)]
pub struct LocalLock(Cell<bool>);

// SAFETY: the trait asks that two holders never coexist. The type is !Sync
// (Cell), so all calls come from one thread at a time, in program order;
// `lock` and `try_lock` refuse while the flag is set, and only `unlock`
// clears it.
unsafe impl RawMutex for LocalLock {
    const INIT: Self = Self(Cell::new(false));
    // A guard sent elsewhere could be dropped on another thread.
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        assert!(self.try_lock(), "a single-threaded lock was taken twice");
    }

    #[inline]
    fn try_lock(&self) -> bool {
        !self.0.replace(true)
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.set(false);
    }
}
