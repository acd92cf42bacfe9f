//! The entries of composite structures (sections 5 and 6).

use alloc::{format, string::String};

use crate::zeroipc::{MAX_NAME, NameError, table::check_base};

/// What a structure's name gets to name the entries it consists of.
pub mod suffix {
    /// of an event: the semaphore for its waiters
    pub const EVENT_SEM: &str = "_sem";
    /// of a read-write lock: its two words
    pub const RW_STATE: &str = "_state";
    /// of a read-write lock: the mutex around the words
    pub const RW_READER_MUTEX: &str = "_rmtx";
    /// of a read-write lock: the mutex of the writers
    pub const RW_WRITER_MUTEX: &str = "_wmtx";
    /// of a monitor: its mutex
    pub const MONITOR_MUTEX: &str = "_mtx";
    /// of a monitor: the semaphore for its waiters
    pub const MONITOR_CONDITION: &str = "_cond";
    /// of a monitor: the number of waiters
    pub const MONITOR_COUNT: &str = "_count";
    /// of a signal: version and value
    pub const SIGNAL_STATE: &str = "_state";
    /// of a signal: its mutex
    pub const SIGNAL_MUTEX: &str = "_mtx";
    /// of a C++ channel: its header
    pub const CHANNEL_HEADER: &str = "_header";
    /// of a buffered C++ channel: its queue
    pub const CHANNEL_BUFFER: &str = "_buffer";
    /// of an unbuffered C++ channel: its slot
    pub const CHANNEL_SLOT: &str = "_slot";
    /// of a Python channel: its counters, beside the queue under the plain name
    pub const CHANNEL_SYNC: &str = "_sync";
    /// of a C++ stream: its header
    pub const STREAM_HEADER: &str = "_header";
    /// of a C++ stream: its ring
    pub const STREAM_BUFFER: &str = "_buffer";
}

/// The name of a part. The error's limit is that of the plain name, so that a
/// composite can refuse it before it inserts anything.
///
/// ```
/// use polyshm_wire::zeroipc::{NameError, derived, suffix};
///
/// assert_eq!(derived("ready", suffix::EVENT_SEM)?, "ready_sem");
/// let error = derived(&"x".repeat(26), suffix::MONITOR_COUNT).unwrap_err();
/// assert!(matches!(error, NameError::TooLong { len: 26, max: 25, .. }));
/// # Ok::<(), NameError>(())
/// ```
pub fn derived(name: &str, suffix: &str) -> Result<String, NameError> {
    check_base(name, MAX_NAME.saturating_sub(suffix.len()))?;
    Ok(format!("{name}{suffix}"))
}
