//! Queues and stacks: elements, then one word of state per slot (sections 4.2
//! and 4.3).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I32, U32},
};

use super::{
    align8, check_capacity, check_elem, check_entry, check_size, codec, expect_elem, expect_within,
};
use crate::zeroipc::{ImageError, LayoutError};

/// Largest capacity of a queue or a stack: the reference implementations
/// compare positions as `i32`.
const MAX_CAPACITY: u32 = 1 << 31;

/// Byte offsets in a queue (section 4.2).
pub mod queue {
    use super::{QueueHeader, offset_of};

    /// `u32`, atomic: pops claimed, wraps around
    pub const HEAD: u64 = offset_of!(QueueHeader, head) as u64;
    /// `u32`, atomic: pushes claimed, wraps around
    pub const TAIL: u64 = offset_of!(QueueHeader, tail) as u64;
    /// `u32`, fixed at creation
    pub const CAPACITY: u64 = offset_of!(QueueHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const ELEM_SIZE: u64 = offset_of!(QueueHeader, elem_size) as u64;
    /// the first element
    pub const DATA: u64 = 16;
}

/// Byte offsets and slot states in a stack (section 4.3).
pub mod stack {
    use super::{StackHeader, offset_of};

    /// `i32`, atomic: index of the last item, -1 when empty
    pub const TOP: u64 = offset_of!(StackHeader, top) as u64;
    /// `u32`, fixed at creation
    pub const CAPACITY: u64 = offset_of!(StackHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const ELEM_SIZE: u64 = offset_of!(StackHeader, elem_size) as u64;
    /// `u32`, 0
    pub const RESERVED: u64 = offset_of!(StackHeader, reserved) as u64;
    /// the first element
    pub const DATA: u64 = 16;

    /// The slot has no item.
    pub const EMPTY: u32 = 0;
    /// A push is storing its item.
    pub const WRITING: u32 = 1;
    /// The slot has an item.
    pub const READY: u32 = 2;
    /// A pop or a look at the top is copying the item.
    pub const READING: u32 = 3;
}

/// The first 16 bytes of a queue (section 4.2).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct QueueHeader {
    /// pops claimed; `tail - head`, wrapping, is within `0..=capacity`
    pub head: U32,
    /// pushes claimed
    pub tail: U32,
    /// slots; a power of two
    pub capacity: U32,
    /// bytes per element
    pub elem_size: U32,
}

/// The first 16 bytes of a stack (section 4.3).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct StackHeader {
    /// in `-1..capacity`
    pub top: I32,
    /// slots; any number
    pub capacity: U32,
    /// bytes per element
    pub elem_size: U32,
    /// 0, and nobody looks
    pub reserved: U32,
}

codec!(QueueHeader, queue::DATA, "queue");
codec!(StackHeader, stack::DATA, "stack");

// The offsets of sections 4.2 and 4.3, stated apart from the structures.
const _: () = {
    assert!(queue::HEAD == 0);
    assert!(queue::TAIL == 4);
    assert!(queue::CAPACITY == 8);
    assert!(queue::ELEM_SIZE == 12);
    assert!(stack::TOP == 0);
    assert!(stack::CAPACITY == 4);
    assert!(stack::ELEM_SIZE == 8);
    assert!(stack::RESERVED == 12);
};

/// A queue: bounded, any number of readers and writers (section 4.2).
///
/// ```
/// use polyshm_wire::zeroipc::QueueLayout;
///
/// let layout = QueueLayout::new(5, 4)?; // rounded up to 8
/// assert_eq!((layout.capacity, layout.seq_offset(), layout.size()), (8, 48, 80));
///
/// let header = layout.header().to_bytes();
/// assert_eq!(QueueLayout::read(&header, 80, Some(4))?, layout);
/// assert!(QueueLayout::read(&header, 79, Some(4)).is_err());
/// assert!(QueueLayout::read(&header, 80, Some(8)).unwrap_err().is_mismatch());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueLayout {
    /// slots; a power of two, at least 2 where this crate chose it
    pub capacity: u32,
    /// bytes per element; never 0
    pub elem_size: u32,
}

impl QueueLayout {
    /// Bytes before the first element.
    pub const HEADER: u64 = queue::DATA;

    /// For a new queue of at least `requested` slots: rounded up to a power of
    /// two, and to 2, since a queue of one slot cannot tell full from empty.
    pub fn new(requested: u64, elem_size: u64) -> Result<Self, LayoutError> {
        let limit = u64::from(MAX_CAPACITY);
        let requested = check_capacity(requested, elem_size, limit)?;
        let layout = Self {
            // No overflow: the limit is a power of two.
            capacity: requested.max(2).next_power_of_two(),
            elem_size: check_elem(requested.into(), elem_size)?,
        };
        check_size(requested.into(), elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the header of an existing queue. `elem_size` is what the caller
    /// expects, `None` for whatever it is.
    ///
    /// A capacity of 1 passes: such queues exist. Ask
    /// [`is_usable`](Self::is_usable) before working on one.
    pub fn read(
        header: &[u8; 16],
        entry_size: u64,
        elem_size: Option<u64>,
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "queue";
        let header: QueueHeader = zerocopy::transmute!(*header);
        let layout = Self {
            capacity: header.capacity.get(),
            elem_size: header.elem_size.get(),
        };
        if layout.capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        if !layout.capacity.is_power_of_two() {
            return Err(ImageError::NotPowerOfTwo {
                structure: STRUCTURE,
                found: layout.capacity.into(),
            });
        }
        expect_elem(STRUCTURE, layout.elem_size, elem_size)?;
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// Whether the algorithm of the format works: with one slot a push after a
    /// push succeeds and a later pop never returns (section 9, item 11).
    pub const fn is_usable(&self) -> bool {
        self.capacity >= 2
    }

    /// The header of an empty queue. Each slot's sequence number must be set to
    /// its index besides.
    pub const fn header(&self) -> QueueHeader {
        QueueHeader {
            head: U32::new(0),
            tail: U32::new(0),
            capacity: U32::new(self.capacity),
            elem_size: U32::new(self.elem_size),
        }
    }

    /// The slot that a claimed position stands for.
    pub const fn slot(&self, position: u32) -> u32 {
        position & self.capacity.saturating_sub(1)
    }

    /// Where the first element is.
    pub const fn data_offset(&self) -> u64 {
        queue::DATA
    }

    /// Where the element of a slot is; the slot must be below the capacity.
    pub const fn element_at(&self, slot: u32) -> u64 {
        element_at(slot, self.elem_size)
    }

    /// Where the sequence numbers begin.
    pub const fn seq_offset(&self) -> u64 {
        states(self.capacity, self.elem_size)
    }

    /// Where the sequence number of a slot is; the slot must be below the
    /// capacity.
    pub const fn seq_at(&self, slot: u32) -> u64 {
        self.seq_offset().saturating_add(4 * slot as u64)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.seq_at(self.capacity)
    }
}

/// A stack: bounded, any number of users (section 4.3).
///
/// ```
/// use polyshm_wire::zeroipc::StackLayout;
///
/// let layout = StackLayout::new(3, 1)?;
/// assert_eq!((layout.capacity, layout.state_offset(), layout.size()), (3, 24, 36));
/// layout.check_top(2)?;
/// assert!(layout.check_top(3).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackLayout {
    /// slots; never 0, never above 2^31
    pub capacity: u32,
    /// bytes per element; never 0
    pub elem_size: u32,
}

impl StackLayout {
    /// Bytes before the first element.
    pub const HEADER: u64 = stack::DATA;

    /// For a new stack of exactly `capacity` slots.
    pub fn new(capacity: u64, elem_size: u64) -> Result<Self, LayoutError> {
        let layout = Self {
            capacity: check_capacity(capacity, elem_size, MAX_CAPACITY.into())?,
            elem_size: check_elem(capacity, elem_size)?,
        };
        check_size(capacity, elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the header of an existing stack, but not `top`, which changes all
    /// the time: see [`check_top`](Self::check_top). `elem_size` is what the
    /// caller expects, `None` for whatever it is.
    pub fn read(
        header: &[u8; 16],
        entry_size: u64,
        elem_size: Option<u64>,
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "stack";
        let header: StackHeader = zerocopy::transmute!(*header);
        let layout = Self {
            capacity: header.capacity.get(),
            elem_size: header.elem_size.get(),
        };
        if layout.capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        let (found, max) = (layout.capacity.into(), MAX_CAPACITY.into());
        expect_within(STRUCTURE, "capacity", found, 1, max)?;
        expect_elem(STRUCTURE, layout.elem_size, elem_size)?;
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// Judges a loaded `top` before it becomes an index: -1, or a slot.
    pub fn check_top(&self, top: i32) -> Result<(), ImageError> {
        let last = i64::from(self.capacity) - 1;
        expect_within("stack", "top", top.into(), -1, last)
    }

    /// The header of an empty stack. The slot states are all
    /// [`EMPTY`](stack::EMPTY), which is 0.
    pub const fn header(&self) -> StackHeader {
        StackHeader {
            top: I32::new(-1),
            capacity: U32::new(self.capacity),
            elem_size: U32::new(self.elem_size),
            reserved: U32::new(0),
        }
    }

    /// Where the first element is.
    pub const fn data_offset(&self) -> u64 {
        stack::DATA
    }

    /// Where the element of a slot is; the slot must be below the capacity.
    pub const fn element_at(&self, slot: u32) -> u64 {
        element_at(slot, self.elem_size)
    }

    /// Where the slot states begin.
    pub const fn state_offset(&self) -> u64 {
        states(self.capacity, self.elem_size)
    }

    /// Where the state of a slot is; the slot must be below the capacity.
    pub const fn state_at(&self, slot: u32) -> u64 {
        self.state_offset().saturating_add(4 * slot as u64)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.state_at(self.capacity)
    }
}

/// Multiplied in 64 bits: the C implementation uses 32 and goes wrong beyond
/// 4 GiB.
const fn element_at(slot: u32, elem_size: u32) -> u64 {
    (slot as u64 * elem_size as u64).saturating_add(16)
}

/// The words behind the elements begin at a multiple of 8.
const fn states(capacity: u32, elem_size: u32) -> u64 {
    align8(element_at(capacity, elem_size))
}
