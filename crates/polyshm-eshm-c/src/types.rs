//! The types of the C interface (format, sections 4.1, 8.1 and 9.1).
//!
//! The header is made from this file: names and comments are those that C
//! programs see.
#![allow(
    non_camel_case_types,
    clippy::enum_variant_names,
    reason = "enumerators share one namespace in C, and carry its names"
)]

use std::{
    ffi::c_char,
    mem::{MaybeUninit, offset_of},
};

/// An endpoint. Only eshm_init makes one, and only eshm_destroy ends one.
#[derive(Debug)]
pub struct ESHMHandle {
    _opaque: (),
}

/// Which end of the channel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ESHMRole {
    /// Creates the object, or takes over the one that a master left.
    ESHM_ROLE_MASTER = 0,
    /// Attaches to an object, and looks for the master again when it is gone.
    ESHM_ROLE_SLAVE = 1,
    /// Master when there is no object, slave otherwise.
    ESHM_ROLE_AUTO = 2,
}

/// What an endpoint does when the other side is stale.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ESHMDisconnectBehavior {
    /// Reads fail. A slave stays so; a master goes on when the slave is heard again.
    ESHM_DISCONNECT_IMMEDIATELY = 0,
    /// A slave reconnects until its attempts or its time are used up.
    ESHM_DISCONNECT_ON_TIMEOUT = 1,
    /// A slave reconnects without end.
    ESHM_DISCONNECT_NEVER = 2,
}

/// What the functions return: ESHM_SUCCESS, or one of the negative codes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ESHMError {
    /// Done.
    ESHM_SUCCESS = 0,
    /// A null pointer, or a handle that is none; also a message that holds no items.
    ESHM_ERROR_INVALID_PARAM = -1,
    /// Not returned.
    ESHM_ERROR_SHM_CREATE = -2,
    /// Not returned.
    ESHM_ERROR_SHM_ATTACH = -3,
    /// Not returned.
    ESHM_ERROR_SHM_DETACH = -4,
    /// Not returned.
    ESHM_ERROR_SHM_DELETE = -5,
    /// Not returned.
    ESHM_ERROR_MUTEX_INIT = -6,
    /// Not returned.
    ESHM_ERROR_MUTEX_LOCK = -7,
    /// Not returned.
    ESHM_ERROR_MUTEX_UNLOCK = -8,
    /// A read with a timeout of 0 found no message.
    ESHM_ERROR_NO_DATA = -9,
    /// No message came in time, or a slave has no master.
    ESHM_ERROR_TIMEOUT = -10,
    /// The other side is stale, and the endpoint disconnects immediately.
    ESHM_ERROR_MASTER_STALE = -11,
    /// There is no memory for the values.
    ESHM_ERROR_BUFFER_FULL = -12,
    /// The message does not fit: the channel, the buffer, or the number of items.
    ESHM_ERROR_BUFFER_TOO_SMALL = -13,
    /// The slave is detached, or the endpoint was destroyed meanwhile.
    ESHM_ERROR_NOT_INITIALIZED = -14,
    /// Another process has taken this endpoint's role.
    ESHM_ERROR_ROLE_MISMATCH = -15,
}

/// The type of an item, as eshm_read_data, dh_encode and dh_decode number them, and what a
/// value of it points to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ESHMItemType {
    /// An int64_t.
    ESHM_ITEM_INTEGER = 0,
    /// A bool.
    ESHM_ITEM_BOOLEAN = 1,
    /// A double.
    ESHM_ITEM_REAL = 2,
    /// Characters with a NUL at the end.
    ESHM_ITEM_STRING = 3,
    /// An ESHMBinary.
    ESHM_ITEM_BINARY = 4,
    /// C++ only: has no form here.
    ESHM_ITEM_EVENT = 5,
    /// C++ only: has no form here.
    ESHM_ITEM_FUNCTION_CALL = 6,
    /// C++ only: has no form here.
    ESHM_ITEM_IMAGE_FRAME = 7,
}

/// The value of an item of type ESHM_ITEM_BINARY.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ESHMBinary {
    /// The bytes.
    pub data: *mut u8,
    /// How many.
    pub len: usize,
}

/// How to open an endpoint; start with eshm_default_config. It is copied: the caller's memory may
/// go away afterwards.
// Enumerations and booleans of C may hold any bits, those of Rust may not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ESHMConfig {
    /// The channel's name: UTF-8, 1 to 249 bytes.
    pub shm_name: *const c_char,
    /// Which end.
    pub role: MaybeUninit<ESHMRole>,
    /// What to do when the other side is stale.
    pub disconnect_behavior: MaybeUninit<ESHMDisconnectBehavior>,
    /// After how long without a heartbeat the other side is stale. The creator's counts, for both.
    pub stale_threshold_ms: u32,
    /// How long a slave looks for a master before it gives up; 0: without end.
    pub reconnect_wait_ms: u32,
    /// Between two attempts.
    pub reconnect_retry_interval_ms: u32,
    /// After how many attempts a slave gives up; 0: without end.
    pub max_reconnect_attempts: u32,
    /// Whether a master removes the object when it is destroyed.
    pub auto_cleanup: MaybeUninit<bool>,
    /// Whether the process's heartbeat thread serves this endpoint; if not, call
    /// eshm_update_heartbeat.
    pub use_threads: MaybeUninit<bool>,
}

/// What the object says of both sides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ESHMStats {
    /// The master's heartbeats, about one per millisecond.
    pub master_heartbeat: u64,
    /// The slave's heartbeats.
    pub slave_heartbeat: u64,
    /// The process that was the last master.
    pub master_pid: i32,
    /// The process that was the last slave; 0 when there was none.
    pub slave_pid: i32,
    /// Whether a master is attached, or died attached.
    pub master_alive: bool,
    /// Whether a slave is attached, or died attached.
    pub slave_alive: bool,
    /// The creator's, in milliseconds.
    pub stale_threshold: u32,
    /// The master's heartbeats since this handle's statistics before.
    pub master_heartbeat_delta: u64,
    /// The slave's heartbeats since this handle's statistics before.
    pub slave_heartbeat_delta: u64,
    /// Messages written by masters.
    pub m2s_write_count: u64,
    /// Messages read by slaves.
    pub m2s_read_count: u64,
    /// Messages written by slaves.
    pub s2m_write_count: u64,
    /// Messages read by masters.
    pub s2m_read_count: u64,
}

/// The default of ESHMConfig.stale_threshold_ms.
pub const ESHM_DEFAULT_STALE_THRESHOLD_MS: u32 = 100;
/// The default of ESHMConfig.reconnect_wait_ms.
pub const ESHM_DEFAULT_RECONNECT_WAIT_MS: u32 = 5000;
/// The default of ESHMConfig.reconnect_retry_interval_ms.
pub const ESHM_DEFAULT_RECONNECT_RETRY_INTERVAL_MS: u32 = 100;
/// The default of ESHMConfig.max_reconnect_attempts.
pub const ESHM_DEFAULT_MAX_RECONNECT_ATTEMPTS: u32 = 50;

/// Section 8.1, which is of 64-bit systems.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<ESHMConfig>() == 40 && align_of::<ESHMConfig>() == 8);
    assert!(offset_of!(ESHMConfig, shm_name) == 0);
    assert!(offset_of!(ESHMConfig, role) == 8);
    assert!(offset_of!(ESHMConfig, disconnect_behavior) == 12);
    assert!(offset_of!(ESHMConfig, stale_threshold_ms) == 16);
    assert!(offset_of!(ESHMConfig, reconnect_wait_ms) == 20);
    assert!(offset_of!(ESHMConfig, reconnect_retry_interval_ms) == 24);
    assert!(offset_of!(ESHMConfig, max_reconnect_attempts) == 28);
    assert!(offset_of!(ESHMConfig, auto_cleanup) == 32);
    assert!(offset_of!(ESHMConfig, use_threads) == 33);

    assert!(size_of::<ESHMStats>() == 80 && align_of::<ESHMStats>() == 8);
    assert!(offset_of!(ESHMStats, master_heartbeat) == 0);
    assert!(offset_of!(ESHMStats, slave_heartbeat) == 8);
    assert!(offset_of!(ESHMStats, master_pid) == 16);
    assert!(offset_of!(ESHMStats, slave_pid) == 20);
    assert!(offset_of!(ESHMStats, master_alive) == 24);
    assert!(offset_of!(ESHMStats, slave_alive) == 25);
    assert!(offset_of!(ESHMStats, stale_threshold) == 28);
    assert!(offset_of!(ESHMStats, master_heartbeat_delta) == 32);
    assert!(offset_of!(ESHMStats, slave_heartbeat_delta) == 40);
    assert!(offset_of!(ESHMStats, m2s_write_count) == 48);
    assert!(offset_of!(ESHMStats, m2s_read_count) == 56);
    assert!(offset_of!(ESHMStats, s2m_write_count) == 64);
    assert!(offset_of!(ESHMStats, s2m_read_count) == 72);

    assert!(size_of::<ESHMBinary>() == 16 && align_of::<ESHMBinary>() == 8);
    assert!(offset_of!(ESHMBinary, data) == 0);
    assert!(offset_of!(ESHMBinary, len) == 8);
    assert!(size_of::<ESHMRole>() == 4 && size_of::<ESHMDisconnectBehavior>() == 4);
};
