//! The error types of names, layouts and images. Each message carries the
//! field, the value found and the limit, so that a log line is enough to judge
//! a damaged object.

use alloc::string::String;

use thiserror::Error;

use super::Direction;

/// Why a capacity cannot become a [`Layout`](super::Layout).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A channel without a byte carries nothing.
    #[error("the capacity is 0 bytes, a channel needs at least 1")]
    ZeroCapacity,
    /// More than any offset is computed for.
    #[error("the capacity is {capacity} bytes, the limit is {limit}")]
    TooLarge {
        /// as requested
        capacity: u64,
        /// the largest capacity allowed
        limit: u64,
    },
}

/// What is wrong with an image of an ESHM object.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The object ends before the structure does.
    #[error("the object has {len} bytes, {need} are needed")]
    TooShort {
        /// bytes present
        len: u64,
        /// bytes the structure takes
        need: u64,
    },
    /// Not an ESHM object, or one still being built (then it is 0).
    #[error("magic is {found:#010x}, an ESHM object has 0x4553484d")]
    Magic {
        /// the value in the image
        found: u32,
    },
    /// Another version of the format.
    #[error("version is {found}, only version 2 is understood")]
    Version {
        /// the value in the image
        found: u32,
    },
    /// A message longer than its buffer: the two sides were built for different
    /// capacities, or the object is damaged.
    #[error(
        "data_size of the {direction} channel is {found}, the limit is the capacity {capacity}"
    )]
    DataSize {
        /// the channel
        direction: Direction,
        /// the value in the image
        found: u32,
        /// the largest value allowed
        capacity: u32,
    },
}

/// Why a name cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The reference accepts it, but nothing would tell such objects apart.
    #[error("the name is empty")]
    Empty,
    /// The system's calls end a name at its first NUL.
    #[error("the name {name:?} contains a NUL character")]
    Nul {
        /// as given
        name: String,
    },
    /// The reference would cut it and meet whoever else begins the same way.
    #[error("the name {name:?} has {len} bytes, the limit is {max}")]
    TooLong {
        /// as given
        name: String,
        /// its length in bytes
        len: usize,
        /// the limit in bytes
        max: usize,
    },
}
