//! The three error types. Each message carries the field, the value found and
//! the limit, so that a log line is enough to judge a damaged segment.

use alloc::string::String;

use thiserror::Error;

/// Why the sizes asked for cannot become a [`Layout`](super::Layout).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A ring without a byte can never hold a frame.
    #[error("payload_size is 0 bytes, a ring needs at least 1 (rounded up to 64)")]
    ZeroPayload,
    /// The segment would not fit this machine's address range.
    #[error(
        "metadata_size {metadata_size} and payload_size {payload_size}, each rounded up to 64, \
         and the 128-byte header exceed {limit} bytes"
    )]
    TooLarge {
        /// as requested, not rounded
        metadata_size: u64,
        /// as requested, not rounded
        payload_size: u64,
        /// the longest object that this machine can address
        limit: u64,
    },
}

/// What is wrong with an image of a ZeroBuffer object.
///
/// Offsets named `offset` count from the start of the payload ring.
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
    /// Not a ZeroBuffer, one still being built, or another major version.
    #[error("oieb_size is {found}, format 1 has 128")]
    OiebSize {
        /// the value in the image
        found: u32,
    },
    /// Only the major number decides; the others are for the message.
    #[error("version is {major}.{minor}.{patch}, only major version 1 is understood")]
    Version {
        /// the number that does not match
        major: u8,
        /// informative
        minor: u8,
        /// informative
        patch: u8,
    },
    /// A reader made a ring that cannot carry anything.
    #[error("payload_size is 0, a ring needs at least 1 byte")]
    EmptyRing,
    /// The blocks would reach past the object.
    #[error(
        "metadata_size {metadata_size} and payload_size {payload_size} after the 128-byte header \
         do not fit the object of {object_len} bytes"
    )]
    SizesExceedObject {
        /// the value in the image
        metadata_size: u64,
        /// the value in the image
        payload_size: u64,
        /// bytes that can be addressed in the object
        object_len: u64,
    },
    /// The writer's position lies outside the ring.
    #[error("payload_write_pos is {found}, the limit is payload_size {payload_size}")]
    WritePosition {
        /// the value in the image
        found: u64,
        /// the largest value allowed
        payload_size: u64,
    },
    /// The reader's position lies outside the ring.
    #[error("payload_read_pos is {found}, the limit is payload_size {payload_size}")]
    ReadPosition {
        /// the value in the image
        found: u64,
        /// the largest value allowed
        payload_size: u64,
    },
    /// Only the reader, and a writer that rewinds to 0, may move it.
    #[error("payload_read_pos is {found}, its reader left it at {expected}")]
    ReadPositionMoved {
        /// the value in the image
        found: u64,
        /// where the reader left it
        expected: u64,
    },
    /// More credit than the ring has bytes: some release was counted twice.
    #[error("payload_free_bytes is {found}, the limit is payload_size {payload_size}")]
    FreeBytes {
        /// the value in the image
        found: u64,
        /// the largest value allowed
        payload_size: u64,
    },
    /// More room than the metadata block has bytes.
    #[error("metadata_free_bytes is {found}, the limit is metadata_size {metadata_size}")]
    MetadataFree {
        /// the value in the image
        found: u64,
        /// the largest value allowed
        metadata_size: u64,
    },
    /// The written metadata would leave its block or lack its length prefix.
    #[error("metadata_written_bytes is {found}, it must be 0 or within 8..={metadata_size}")]
    MetadataWritten {
        /// the value in the image
        found: u64,
        /// the largest value allowed
        metadata_size: u64,
    },
    /// The length prefix promises more than was written.
    #[error("the metadata length is {found}, the limit is metadata_written_bytes {written} - 8")]
    MetadataLength {
        /// the length prefix in the image
        found: u64,
        /// `metadata_written_bytes` in the image
        written: u64,
    },
    /// A frame should begin here, but its header would cross the limit.
    #[error("frame header at ring offset {offset} needs 16 bytes, the limit leaves {room}")]
    FrameHeader {
        /// where the header should begin
        offset: u64,
        /// bytes between it and the limit
        room: u64,
    },
    /// A frame's data would cross the end of the ring or the write position.
    #[error("frame at ring offset {offset} has length {length}, the limit leaves {room}")]
    FrameLength {
        /// where the header begins
        offset: u64,
        /// the length in the header
        length: u64,
        /// data bytes between the header and the limit
        room: u64,
    },
    /// A length of 0 where no wrap can follow.
    #[error("frame at ring offset {offset} has length 0, a wrap marker has no place there")]
    UnexpectedMarker {
        /// where the header begins
        offset: u64,
    },
    /// A semaphore count that `sem_post` cannot produce.
    #[error("the semaphore value is {found}, the limit is {max}")]
    SemaphoreValue {
        /// the value in the image
        found: u32,
        /// the largest value allowed
        max: u32,
    },
    /// Neither of glibc's two kinds, so not a glibc semaphore of this layout.
    #[error("the semaphore's shared flag is {found:#x}, it must be 0 or 0x80")]
    SemaphoreFlag {
        /// the value in the image
        found: u32,
    },
}

/// Why a buffer or channel name cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing to build object names from.
    #[error("the name is empty")]
    Empty,
    /// The name would leave the directory or the namespace of its objects.
    #[error("the name {name:?} contains the separator {separator:?}")]
    Separator {
        /// as given
        name: String,
        /// the character refused
        separator: char,
    },
    /// The system's calls end a name at its first NUL.
    #[error("the name {name:?} contains a NUL character")]
    Nul {
        /// as given
        name: String,
    },
    /// `.` and `..` are directories.
    #[error("the name {name:?} is a directory reference")]
    Dot {
        /// as given
        name: String,
    },
    /// The longest derived file name would exceed the system's 255 bytes.
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
