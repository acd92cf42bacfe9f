#![cfg_attr(feature = "zerobuffer", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "zerobuffer"),
    doc = "The facade of polyshm, built without any protocol: enable the feature `zerobuffer`."
)]
#![forbid(unsafe_code)]

/// What the protocols stand on: names, mappings, semaphores, processes, waiting.
///
/// A program needs it only to build a protocol of its own, or for
/// [`Mode`](platform::Mode) and [`Deadline`](platform::Deadline).
pub use polyshm_platform as platform;

/// The bytes of the formats: layouts, checks, names, and the inspection of
/// images. No I/O.
pub use polyshm_wire as wire;

/// A one-writer one-reader ring of frames, read in place; its other speakers
/// are C++, C# and Python.
#[cfg(feature = "zerobuffer")]
pub use polyshm_zerobuffer as zerobuffer;

/// What most programs import.
///
/// ```
/// use polyshm::prelude::*;
/// use std::time::Duration;
///
/// let config = BufferConfig::new(1024, 64 << 20).wait_strategy(WaitStrategy::Block);
/// assert_eq!(config.payload_size, 64 << 20);
/// assert!(!Deadline::after(Duration::from_secs(60)).expired());
/// ```
#[cfg(feature = "zerobuffer")]
pub mod prelude {
    pub use polyshm_platform::{Deadline, WaitStrategy};
    pub use polyshm_zerobuffer::{
        AttachError, BufferConfig, CreateError, Frame, FrameMut, MetadataError, ReadError, Reader,
        SyncReader, WriteError, Writer, WriterConfig,
    };
}
