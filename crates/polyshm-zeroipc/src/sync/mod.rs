//! Synchronisation (section 5).

pub(crate) mod barrier;
pub(crate) mod event;
pub(crate) mod latch;
pub(crate) mod monitor;
pub(crate) mod mutex;
pub(crate) mod once;
pub(crate) mod rwlock;
pub(crate) mod semaphore;
pub(crate) mod signal;
