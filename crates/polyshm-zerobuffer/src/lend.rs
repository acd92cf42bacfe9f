//! The one place where ring bytes become slices.
//!
//! The protocol gives a frame's bytes to one side at a time: to the writer from
//! the moment the credit covers them until it publishes, and to the reader from
//! the token until it gives the credit back (format, sections 5 and 6).

#![allow(unsafe_code, reason = "the audited module of this crate")]

use crate::{
    place::Place,
    shared::{Shared, index},
};
use polyshm_platform::{LentBytes, LentBytesMut};
use polyshm_wire::zerobuffer::{FRAME_HEADER_SIZE, ImageError, METADATA_PREFIX_SIZE};

/// Lends the data of a frame whose header is at `at`.
///
/// The caller has taken the frame off the ring (token, `read_pos`) under the
/// reader's lock and gives its credit back only after the loan is dropped.
pub(crate) fn frame(shared: &Shared, at: u64, length: u64) -> Result<LentBytes<'_>, ImageError> {
    let room = shared.size().saturating_sub(at);
    // SAFETY: the writer published these bytes before the token that the caller
    // took (release before the post, acquire after the wait), and stores to
    // them again only with credit, which is given back after the loan ends. The
    // reader takes each frame once, so nobody else in this process has them.
    unsafe {
        shared
            .ring
            .lend(index(at + FRAME_HEADER_SIZE), index(length))
    }
    .map_err(|_| ImageError::FrameLength {
        offset: at,
        length,
        room,
    })
}

/// Lends the data part of a place that is being filled.
///
/// The caller holds the only writer mutably for as long as the loan lives and
/// has seen credit for the place.
pub(crate) fn place<'a>(
    shared: &'a Shared,
    place: &Place,
    length: u64,
) -> Result<LentBytesMut<'a>, ImageError> {
    let (offset, room) = (place.at, shared.size().saturating_sub(place.at));
    // SAFETY: the credit says that the reader has released these bytes (acquire
    // load of it, release add by the reader), and nobody learns of them before
    // they are published, which takes the writer that the caller borrows
    // mutably. One writer is attached at a time.
    unsafe {
        shared
            .ring
            .lend_mut(index(offset + FRAME_HEADER_SIZE), index(length))
    }
    .map_err(|_| ImageError::FrameLength {
        offset,
        length,
        room,
    })
}

/// Lends the metadata block to be filled.
///
/// The caller holds the only writer mutably and saw that nothing was published.
pub(crate) fn metadata_mut(shared: &Shared, length: u64) -> Result<LentBytesMut<'_>, ImageError> {
    // SAFETY: no reader looks at the block before its length is published, which
    // takes the writer that the caller borrows mutably.
    unsafe {
        shared
            .metadata
            .lend_mut(index(METADATA_PREFIX_SIZE), index(length))
    }
    .map_err(|_| ImageError::MetadataLength {
        found: length,
        written: shared.layout.metadata_size(),
    })
}
