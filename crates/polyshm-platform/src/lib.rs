#![doc = include_str!("../README.md")]
#![deny(unsafe_op_in_unsafe_fn)]

#[cfg(target_endian = "big")]
compile_error!(
    "the shared-memory formats are little-endian; polyshm does not run on big-endian targets"
);

pub mod crash;
pub mod process;
pub mod sync;

mod clock;
mod error;
mod file_lock;
mod local_lock;
mod region;
mod semaphore;
mod shm;
mod sys;
mod wait;

pub use clock::{Deadline, Pace};
pub use error::{Error, Result};
pub use file_lock::FileLock;
pub use local_lock::LocalLock;
pub use region::{
    Bytes, InvalidWord, LentBytes, LentBytesMut, OutOfRange, Region, Row, Rows, Word8, Word32,
    Word64, WordRef32, WordRef64, Words32, Words64,
};
pub use semaphore::Semaphore;
pub use shm::{Access, Identity, Mode, SegmentLock, SharedMemory};
pub use wait::{LIVENESS_SLICE, WaitSource, WaitStrategy, Waiter, WakeWord};
