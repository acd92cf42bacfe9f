//! Channels and streams (sections 6.1 and 6.2).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{check_align, check_elem, codec, larger, round_up};
use crate::zeroipc::{ImageError, LayoutError};

/// Byte offsets in the parts of a channel (section 6.1).
pub mod channel {
    /// The header of a C++ channel.
    pub mod header {
        use super::super::{ChannelHeader, offset_of};

        /// `u32`, slots of the queue, 0 when unbuffered
        pub const CAPACITY: u64 = offset_of!(ChannelHeader, capacity) as u64;
        /// `u32`, atomic
        pub const SENDERS: u64 = offset_of!(ChannelHeader, senders) as u64;
        /// `u32`, atomic
        pub const RECEIVERS: u64 = offset_of!(ChannelHeader, receivers) as u64;
        /// **one byte**, atomic: 0 or 1
        pub const CLOSED: u64 = offset_of!(ChannelHeader, closed) as u64;
        /// `u64`, unused
        pub const SEND_SEQ: u64 = offset_of!(ChannelHeader, send_seq) as u64;
        /// `u64`, unused
        pub const RECV_SEQ: u64 = offset_of!(ChannelHeader, recv_seq) as u64;
        /// bytes of the entry
        pub const SIZE: u64 = 32;
    }

    /// The slot of an unbuffered C++ channel; see
    /// [`SlotLayout`](super::SlotLayout) for the element.
    pub mod slot {
        /// one byte, atomic: a value is there
        pub const READY: u64 = 0;
        /// one byte, atomic: the value was taken
        pub const CONSUMED: u64 = 1;
    }

    /// The counters of a Python channel.
    pub mod sync {
        use super::super::{ChannelSync, offset_of};

        /// `u32`
        pub const SENDERS: u64 = offset_of!(ChannelSync, senders) as u64;
        /// `u32`
        pub const RECEIVERS: u64 = offset_of!(ChannelSync, receivers) as u64;
        /// `u32`: 0 or 1
        pub const CLOSED: u64 = offset_of!(ChannelSync, closed) as u64;
        /// `u32`: items that may wait, less than the queue has slots
        pub const CAPACITY: u64 = offset_of!(ChannelSync, capacity) as u64;
        /// bytes of the entry
        pub const SIZE: u64 = 16;
    }
}

/// Byte offsets in the header of a C++ stream (section 6.2).
pub mod stream {
    use super::{StreamHeader, offset_of};

    /// `u64`, atomic: values emitted
    pub const SEQUENCE: u64 = offset_of!(StreamHeader, sequence) as u64;
    /// `u32`, atomic
    pub const SUBSCRIBERS: u64 = offset_of!(StreamHeader, subscribers) as u64;
    /// **one byte**, atomic: 0 or 1
    pub const CLOSED: u64 = offset_of!(StreamHeader, closed) as u64;
    /// `u32`, **elements**, fixed at creation
    pub const CAPACITY: u64 = offset_of!(StreamHeader, capacity) as u64;
    /// 32 bytes, NUL-terminated: the transformation that made it
    pub const NAME: u64 = offset_of!(StreamHeader, name) as u64;
    /// bytes of the header's entry
    pub const HEADER_SIZE: u64 = 56;

    /// A stream of events without a value: one entry, no ring.
    pub mod void {
        use super::super::{StreamVoid, offset_of};

        /// `u64`, atomic: events emitted
        pub const COUNT: u64 = offset_of!(StreamVoid, count) as u64;
        /// **one byte**, atomic: 0 or 1
        pub const CLOSED: u64 = offset_of!(StreamVoid, closed) as u64;
        /// bytes of the entry
        pub const SIZE: u64 = 16;
    }
}

/// The header of a C++ channel (section 6.1).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ChannelHeader {
    /// slots of the queue beside it; 0 when unbuffered
    pub capacity: U32,
    /// senders inside a call, the dead included
    pub senders: U32,
    /// receivers inside a call, the dead included
    pub receivers: U32,
    /// 1 once closed, for good
    pub closed: u8,
    /// whatever was there
    pub padding: [u8; 3],
    /// 0, and nobody looks
    pub send_seq: U64,
    /// 0, and nobody looks
    pub recv_seq: U64,
}

/// The counters of a Python channel; its queue is under the plain name
/// (section 6.1).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct ChannelSync {
    /// senders inside a call, the dead included
    pub senders: U32,
    /// receivers inside a call, the dead included
    pub receivers: U32,
    /// 1 once closed, for good
    pub closed: U32,
    /// items that may wait; 0 when unbuffered, although the queue has 2 slots
    pub capacity: U32,
}

/// The header of a C++ stream; its ring is beside it (section 6.2).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct StreamHeader {
    /// values emitted
    pub sequence: U64,
    /// subscribers, the dead included
    pub subscribers: U32,
    /// 1 once closed, for good
    pub closed: u8,
    /// whatever was there
    pub padding: [u8; 3],
    /// elements that the ring holds
    pub capacity: U32,
    /// NUL-terminated; empty for a stream that nothing was made into
    pub name: [u8; 32],
    /// whatever was there
    pub tail: [u8; 4],
}

/// A C++ stream of events without a value (section 6.2).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct StreamVoid {
    /// events emitted
    pub count: U64,
    /// 1 once closed, for good
    pub closed: u8,
    /// whatever was there
    pub padding: [u8; 7],
}

codec!(ChannelHeader, channel::header::SIZE, "channel header");
codec!(ChannelSync, channel::sync::SIZE, "channel counters");
codec!(StreamHeader, stream::HEADER_SIZE, "stream header");
codec!(StreamVoid, stream::void::SIZE, "stream of events");

// The offsets of sections 6.1 and 6.2, stated apart from the structures.
const _: () = {
    assert!(channel::header::CAPACITY == 0);
    assert!(channel::header::SENDERS == 4);
    assert!(channel::header::RECEIVERS == 8);
    assert!(channel::header::CLOSED == 12);
    assert!(channel::header::SEND_SEQ == 16);
    assert!(channel::header::RECV_SEQ == 24);
    assert!(channel::sync::SENDERS == 0);
    assert!(channel::sync::RECEIVERS == 4);
    assert!(channel::sync::CLOSED == 8);
    assert!(channel::sync::CAPACITY == 12);
    assert!(stream::SEQUENCE == 0);
    assert!(stream::SUBSCRIBERS == 8);
    assert!(stream::CLOSED == 12);
    assert!(stream::CAPACITY == 16);
    assert!(stream::NAME == 20);
    assert!(stream::void::COUNT == 0);
    assert!(stream::void::CLOSED == 8);
};

impl ChannelHeader {
    /// The header of a fresh channel whose queue has so many slots; 0 for an
    /// unbuffered one.
    pub const fn new(capacity: u32) -> Self {
        Self {
            capacity: U32::new(capacity),
            senders: U32::new(0),
            receivers: U32::new(0),
            closed: 0,
            padding: [0; 3],
            send_seq: U64::new(0),
            recv_seq: U64::new(0),
        }
    }
}

impl ChannelSync {
    /// The counters of a fresh channel in which so many items may wait.
    pub const fn new(capacity: u32) -> Self {
        Self {
            senders: U32::new(0),
            receivers: U32::new(0),
            closed: U32::new(0),
            capacity: U32::new(capacity),
        }
    }
}

impl StreamHeader {
    /// The header of a fresh stream whose ring holds so many elements.
    pub const fn new(capacity: u32) -> Self {
        Self {
            sequence: U64::new(0),
            subscribers: U32::new(0),
            closed: 0,
            padding: [0; 3],
            capacity: U32::new(capacity),
            name: [0; 32],
            tail: [0; 4],
        }
    }
}

/// The slot where the sender and the receiver of an unbuffered C++ channel meet
/// (section 6.1).
///
/// ```
/// use polyshm_wire::zeroipc::SlotLayout;
///
/// let slot = SlotLayout::new(8, 8)?;
/// assert_eq!((slot.data_offset(), slot.size()), (8, 16));
/// slot.check(16)?;
/// assert!(slot.check(8).unwrap_err().is_mismatch());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotLayout {
    /// bytes of the value; never 0
    pub elem_size: u32,
    /// of the value in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl SlotLayout {
    /// For a value of this size and alignment.
    pub fn new(elem_size: u64, elem_align: u64) -> Result<Self, LayoutError> {
        Ok(Self {
            elem_size: check_elem(1, elem_size)?,
            elem_align: check_align(elem_align)?,
        })
    }

    /// Judges the size of an existing slot's entry: nothing else tells what it
    /// holds.
    pub fn check(&self, entry_size: u64) -> Result<(), ImageError> {
        if entry_size == self.size() {
            return Ok(());
        }
        Err(ImageError::Size {
            structure: "channel slot",
            found: entry_size,
            expected: self.size(),
        })
    }

    /// Where the value is.
    pub const fn data_offset(&self) -> u64 {
        round_up(2, self.elem_align as u64)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        let end = self.data_offset() + self.elem_size as u64;
        round_up(end, larger(self.elem_align as u64, 1))
    }
}
