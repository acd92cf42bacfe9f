//! ZeroBuffer: one writer, one reader, a ring of frames of any length and a
//! metadata block that is written once.
//!
//! The section numbers on this page and on its items are those of
//! `docs/protocols/zerobuffer.md`.
//!
//! | bytes | what | section |
//! |---|---|---|
//! | 0..128 | [`Oieb`], the header block | 2.1 |
//! | 128..128+m | metadata block: a `u64` length, then that many bytes | 3 |
//! | 128+m..128+m+p | payload ring: frames of a 16-byte [`FrameHeader`] and data | 4 |
//!
//! `m` and `p` are multiples of 64. [`Layout`] holds them after the checks, and
//! everything that needs an offset asks it. All integers are little-endian.
//!
//! # Who changes what
//!
//! The reader creates the segment and owns `payload_read_pos`; the writer owns
//! `payload_write_pos` and the metadata fields. `payload_free_bytes` is the one
//! field that both change, by atomic add and subtract, and it alone says what
//! may be overwritten. The counts are informative: writers disagree about
//! whether a wrap raises `payload_written_count` (section 5).
//!
//! # Looking at an image
//!
//! [`describe`] checks a whole image and lists its frames, [`FrameWalk`] lists
//! them one by one without allocating, and [`Oieb::read`] gives the raw fields
//! of an image that is too damaged for either.

mod error;
mod image;
mod layout;
mod names;

pub use error::{ImageError, LayoutError, NameError};
pub use image::{
    Description, FrameSpan, FrameWalk, MetadataSpan, SEMAPHORE_IMAGE_SIZE, SemaphoreImage,
    check_frame, check_metadata, describe,
};
pub use layout::{
    BLOCK_ALIGN, DEFAULT_METADATA_SIZE, DEFAULT_PAYLOAD_SIZE, FRAME_HEADER_SIZE, FrameHeader,
    Layout, METADATA_PREFIX_SIZE, OIEB_SIZE, Oieb, SIGNATURE, VERSION_MAJOR, offset,
};
pub use names::{
    LOCK_DIRECTORY, LOCK_DIRECTORY_CSHARP, MAX_CHANNEL_LEN, MAX_NAME_LEN, ObjectNames,
    REQUEST_SUFFIX, RESPONSE_SUFFIX, channel_names, check_channel_name, check_name, lock_file_name,
};
