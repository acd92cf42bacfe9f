//! One whole module per system behind one contract: `Segment`,
//! `NamedSemaphore`, `LockedFile`, `liveness`, `start_time`, `futex_wait`,
//! `futex_wake`, `system_name`, `MAX_NAME`, `MAX_SEMAPHORE_NAME`, `is_no_space`, `processors`,
//! `kill_self`.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(not(unix))]
mod unsupported;
#[cfg(not(unix))]
pub(crate) use unsupported::*;
