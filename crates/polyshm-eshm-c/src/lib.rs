#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod abi;
mod code;
mod data_handler;
mod handle;
mod raw;
mod settings;
mod table;
mod types;

pub use abi::{
    eshm_check_remote_alive, eshm_destroy, eshm_error_string, eshm_free_value, eshm_get_role,
    eshm_get_stats, eshm_init, eshm_init_with_capacity, eshm_read, eshm_read_data, eshm_read_ex,
    eshm_update_heartbeat, eshm_write,
};
pub use data_handler::{
    dh_create, dh_decode, dh_destroy, dh_encode, dh_free_value, dh_get_last_error,
};
pub use types::{
    ESHM_DEFAULT_MAX_RECONNECT_ATTEMPTS, ESHM_DEFAULT_RECONNECT_RETRY_INTERVAL_MS,
    ESHM_DEFAULT_RECONNECT_WAIT_MS, ESHM_DEFAULT_STALE_THRESHOLD_MS, ESHMBinary, ESHMConfig,
    ESHMDisconnectBehavior, ESHMError, ESHMHandle, ESHMItemType, ESHMRole, ESHMStats,
};
