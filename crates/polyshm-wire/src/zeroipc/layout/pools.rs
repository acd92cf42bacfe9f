//! Pools (section 4.5).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{
    check_align, check_capacity, check_elem, check_entry, check_size, codec, expect_elem, larger,
    round_up,
};
use crate::zeroipc::{ImageError, LayoutError};

/// Byte offsets in a pool (section 4.5).
pub mod pool {
    use super::{PoolHeader, offset_of};

    /// `u64`, atomic: generation in the high half, index in the low half
    pub const FREE_HEAD: u64 = offset_of!(PoolHeader, free_head) as u64;
    /// `u32`, atomic: nodes in use
    pub const ALLOCATED: u64 = offset_of!(PoolHeader, allocated) as u64;
    /// `u32`, 0
    pub const RESERVED: u64 = offset_of!(PoolHeader, reserved) as u64;
    /// `u32`, fixed at creation
    pub const CAPACITY: u64 = offset_of!(PoolHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const ELEM_SIZE: u64 = offset_of!(PoolHeader, elem_size) as u64;
    /// the first node
    pub const NODES: u64 = 24;

    /// The index that ends the list of free nodes.
    pub const NULL: u32 = u32::MAX;

    /// A `free_head` with this generation and index.
    pub const fn head(generation: u32, index: u32) -> u64 {
        (generation as u64) << 32 | index as u64
    }

    /// The generation and the index in a `free_head`.
    pub const fn split(head: u64) -> (u32, u32) {
        ((head >> 32) as u32, head as u32)
    }
}

/// The first 24 bytes of a pool (section 4.5).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct PoolHeader {
    /// see [`pool::split`]; the index is below `capacity` or [`pool::NULL`]
    pub free_head: U64,
    /// nodes in use; raised after a node was taken, so it may lag behind
    pub allocated: U32,
    /// 0, and nobody looks
    pub reserved: U32,
    /// nodes
    pub capacity: U32,
    /// bytes per element, without what the node adds
    pub elem_size: U32,
}

codec!(PoolHeader, pool::NODES, "pool");

// The offsets of section 4.5, stated apart from the structure.
const _: () = {
    assert!(pool::FREE_HEAD == 0);
    assert!(pool::ALLOCATED == 8);
    assert!(pool::RESERVED == 12);
    assert!(pool::CAPACITY == 16);
    assert!(pool::ELEM_SIZE == 20);
};

/// A pool of nodes, each an element and the index of the next free node
/// (section 4.5).
///
/// ```
/// use polyshm_wire::zeroipc::PoolLayout;
///
/// let layout = PoolLayout::new(3, 8, 8)?;
/// assert_eq!((layout.next_in_node(), layout.node_size(), layout.size()), (8, 16, 72));
/// assert_eq!(layout.node_at(1), 40);
/// # Ok::<(), polyshm_wire::zeroipc::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolLayout {
    /// nodes; never 0
    pub capacity: u32,
    /// bytes per element; never 0
    pub elem_size: u32,
    /// of the element in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl PoolLayout {
    /// Bytes before the first node.
    pub const HEADER: u64 = pool::NODES;

    /// For a new pool of `capacity` nodes.
    pub fn new(capacity: u64, elem_size: u64, elem_align: u64) -> Result<Self, LayoutError> {
        let layout = Self {
            capacity: check_capacity(capacity, elem_size, u32::MAX.into())?,
            elem_size: check_elem(capacity, elem_size)?,
            elem_align: check_align(elem_align)?,
        };
        check_size(capacity, elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the header of an existing pool, but not the list of free nodes,
    /// which changes all the time.
    ///
    /// The header does not record the alignment; the entry's size shows when it
    /// was another one.
    pub fn read(
        header: &[u8; 24],
        entry_size: u64,
        elem_size: u64,
        elem_align: u64,
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "pool";
        let header: PoolHeader = zerocopy::transmute!(*header);
        let layout = Self {
            capacity: header.capacity.get(),
            elem_size: header.elem_size.get(),
            elem_align: check_align(elem_align)?,
        };
        if layout.capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        expect_elem(STRUCTURE, layout.elem_size, Some(elem_size))?;
        // Below 4 the alignment makes no difference.
        let other = Self {
            elem_align: if layout.elem_align == 8 { 4 } else { 8 },
            ..layout
        };
        if layout.size() != entry_size && other.size() == entry_size {
            return Err(ImageError::ElementAlignment {
                structure: STRUCTURE,
                expected: elem_align,
            });
        }
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// The header of a pool whose nodes are all free. Each node's index of the
    /// next must be set besides: one more than its own, and
    /// [`NULL`](pool::NULL) in the last.
    pub const fn header(&self) -> PoolHeader {
        PoolHeader {
            free_head: U64::new(0),
            allocated: U32::new(0),
            reserved: U32::new(0),
            capacity: U32::new(self.capacity),
            elem_size: U32::new(self.elem_size),
        }
    }

    /// Where in a node the `u32` index of the next free one is.
    pub const fn next_in_node(&self) -> u64 {
        round_up(self.elem_size as u64, 4)
    }

    /// Bytes from one node to the next.
    pub const fn node_size(&self) -> u64 {
        round_up(self.next_in_node() + 4, larger(self.elem_align as u64, 4))
    }

    /// Where a node, and so its element, begins; the index must be below the
    /// capacity.
    pub const fn node_at(&self, index: u32) -> u64 {
        self.node_size()
            .saturating_mul(index as u64)
            .saturating_add(pool::NODES)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.node_at(self.capacity)
    }
}
