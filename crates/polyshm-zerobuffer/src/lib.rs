#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod chain;
mod config;
mod error;
mod lend;
mod lifecycle;
mod place;
mod reader;
mod settle;
mod shared;
mod status;
#[cfg(any(feature = "testing", test))]
pub mod testing;
mod writer;

#[cfg(all(test, loom))]
mod model;

pub use config::{BufferConfig, WriterConfig};
pub use error::{AttachError, CreateError, MetadataError, ReadError, WriteError};
pub use lifecycle::{StaleReport, remove_stale_buffers};
pub use polyshm_platform::{Deadline, Mode, WaitStrategy};
pub use reader::{Frame, Frames, Reader, SyncReader};
pub use status::{BufferHealth, BufferStatus, ReaderStats, WriterStats};
pub use writer::{FrameMut, MetadataMut, Writer};
