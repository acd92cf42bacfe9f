//! Walking frames in a live ring, bounded and checked.

use crate::shared::{Shared, index};
use polyshm_platform::OutOfRange;
use polyshm_wire::zerobuffer::{FRAME_HEADER_SIZE, FrameHeader, ImageError, check_frame};

/// A frame's header as it was loaded once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) length: u64,
    pub(crate) sequence: u64,
}

/// Loads the header at `at`, which must leave room for it before `limit`.
#[inline]
pub(crate) fn header(shared: &Shared, at: u64, limit: u64) -> Result<Header, ImageError> {
    let room = limit.saturating_sub(at);
    let short = |_: OutOfRange| ImageError::FrameHeader { offset: at, room };
    if room < FRAME_HEADER_SIZE {
        return Err(ImageError::FrameHeader { offset: at, room });
    }
    let at = index(at);
    Ok(Header {
        length: shared.ring.read_u64(at).map_err(short)?,
        sequence: shared.ring.read_u64(at + 8).map_err(short)?,
    })
}

/// Stores the header of a frame, or of a marker (all zero).
#[inline]
pub(crate) fn store_header(
    shared: &Shared,
    at: u64,
    header: FrameHeader,
) -> Result<(), ImageError> {
    let failed = |e: OutOfRange| ImageError::FrameHeader {
        offset: at,
        room: e.limit as u64,
    };
    let at = index(at);
    shared
        .ring
        .write_u64(at, header.payload_size.get())
        .map_err(failed)?;
    shared
        .ring
        .write_u64(at + 8, header.sequence.get())
        .map_err(failed)
}

/// The frames from one position to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) frames: u64,
    /// Frames and stored markers, as both sides count them.
    pub(crate) items: u64,
    /// Of the first of them.
    pub(crate) first_sequence: Option<u64>,
    /// Of the last of them.
    pub(crate) last_sequence: Option<u64>,
    /// Bytes of the last of them, with a tail skipped before it.
    pub(crate) last_cost: u64,
    /// Nothing is skipped at the end: a frame follows each marker.
    closed: bool,
}

/// Walks from `read` to `write` (both in 0..size), all of the ring when they
/// are equal. Ends exactly at `write`, or it is an error.
pub(crate) fn walk(shared: &Shared, read: u64, write: u64) -> Result<Chain, ImageError> {
    let mut chain = Chain::default();
    if read < write {
        segment(shared, read, write, false, &mut chain)?;
    } else {
        let end = segment(shared, read, shared.size(), true, &mut chain)?;
        let tail = shared.size() - end;
        let before = chain.frames;
        segment(shared, 0, write, false, &mut chain)?;
        chain.closed = tail == 0 || chain.frames > before;
        if chain.frames == before + 1 {
            chain.last_cost += tail;
        }
    }
    Ok(chain)
}

impl Chain {
    /// Whether these are the frames of a whole lap, numbered one by one from
    /// `first`, and `free` is what the last of them has yet to be charged.
    pub(crate) fn is_lap_from(&self, first: u64, free: u64) -> bool {
        self.closed
            && self.first_sequence == Some(first)
            && self.last_sequence == Some(first.wrapping_add(self.frames).wrapping_sub(1))
            && self.last_cost == free
    }
}

/// Gives where it ended: at the limit, or at a marker before it. Each turn moves
/// `at` forward by more than a header, so this ends.
fn segment(
    shared: &Shared,
    from: u64,
    limit: u64,
    may_wrap: bool,
    chain: &mut Chain,
) -> Result<u64, ImageError> {
    let mut at = from;
    while at < limit {
        // A tail too short for a marker is an implied one.
        if may_wrap && limit - at < FRAME_HEADER_SIZE {
            break;
        }
        let header = header(shared, at, limit)?;
        if header.length == 0 {
            if may_wrap {
                chain.items += 1;
                break;
            }
            return Err(ImageError::UnexpectedMarker { offset: at });
        }
        let end = check_frame(limit, at, header.length)?;
        chain.last_cost = end - at;
        at = end;
        chain.frames += 1;
        chain.items += 1;
        chain.first_sequence.get_or_insert(header.sequence);
        chain.last_sequence = Some(header.sequence);
    }
    Ok(at)
}

/// The number of the last frame of the current lap, as far as its headers can
/// be followed (format, section 8.8); `None` when there is none.
///
/// With a write position of 0 and something written, the lap fills the ring or
/// has just been wrapped; it is followed until a marker, the end, or a header
/// that no frame can have.
pub(crate) fn last_of_lap(shared: &Shared, write: u64) -> Option<u64> {
    let limit = if write == 0 { shared.size() } else { write };
    let mut chain = Chain::default();
    // An error ends the walk; what was found before it counts.
    let _ = segment(shared, 0, limit, true, &mut chain);
    chain.last_sequence
}
