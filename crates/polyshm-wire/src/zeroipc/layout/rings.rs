//! Rings (section 4.4).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{check_capacity, check_elem, check_entry, check_size, codec, expect_elem};
use crate::zeroipc::{ImageError, LayoutError};

/// Byte offsets in a ring (section 4.4).
pub mod ring {
    use super::{RingHeader, offset_of};

    /// `u64`, atomic: bytes ever written
    pub const WRITE_POS: u64 = offset_of!(RingHeader, write_pos) as u64;
    /// `u64`, atomic: bytes ever read
    pub const READ_POS: u64 = offset_of!(RingHeader, read_pos) as u64;
    /// `u32`, bytes, fixed at creation
    pub const CAPACITY: u64 = offset_of!(RingHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const ELEM_SIZE: u64 = offset_of!(RingHeader, elem_size) as u64;
    /// the first byte of the ring
    pub const DATA: u64 = 24;
}

/// The first 24 bytes of a ring (section 4.4).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct RingHeader {
    /// bytes ever written; at most `capacity` ahead of `read_pos`
    pub write_pos: U64,
    /// bytes ever read
    pub read_pos: U64,
    /// bytes; a multiple of `elem_size`
    pub capacity: U32,
    /// bytes per element
    pub elem_size: U32,
}

codec!(RingHeader, ring::DATA, "ring");

// The offsets of section 4.4, stated apart from the structure.
const _: () = {
    assert!(ring::WRITE_POS == 0);
    assert!(ring::READ_POS == 8);
    assert!(ring::CAPACITY == 16);
    assert!(ring::ELEM_SIZE == 20);
};

/// A ring: one writer, one reader, whole elements (section 4.4).
///
/// ```
/// use polyshm_wire::zeroipc::RingLayout;
///
/// let layout = RingLayout::from_bytes(18, 4)?; // rounded down to 16 bytes
/// assert_eq!(layout, RingLayout::new(4, 4)?);
/// assert_eq!((layout.elements(), layout.size()), (4, 40));
/// assert_eq!(layout.used(24, 8)?, 16);
/// assert!(layout.used(28, 8).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingLayout {
    /// **bytes**; a multiple of `elem_size`, never 0
    pub capacity: u32,
    /// bytes per element; never 0
    pub elem_size: u32,
}

impl RingLayout {
    /// Bytes before the ring.
    pub const HEADER: u64 = ring::DATA;

    /// For a new ring of `elements` elements, as the Python implementation
    /// counts.
    pub fn new(elements: u64, elem_size: u64) -> Result<Self, LayoutError> {
        if elements == 0 {
            return Err(LayoutError::ZeroCapacity);
        }
        let size = check_elem(elements, elem_size)?;
        let bytes = elements.saturating_mul(elem_size);
        let layout = Self {
            capacity: check_capacity(bytes, elem_size, u32::MAX.into())?,
            elem_size: size,
        };
        check_size(bytes, elem_size, layout.size())?;
        Ok(layout)
    }

    /// For a new ring of `bytes` bytes, as the C++ implementation counts:
    /// rounded down to whole elements, and up to one of them.
    pub fn from_bytes(bytes: u64, elem_size: u64) -> Result<Self, LayoutError> {
        if bytes == 0 {
            return Err(LayoutError::ZeroCapacity);
        }
        match bytes.checked_div(elem_size) {
            Some(elements) => Self::new(elements.max(1), elem_size),
            None => Err(LayoutError::ZeroElement),
        }
    }

    /// Judges the header of an existing ring, but not the positions, which
    /// change all the time: see [`used`](Self::used). `elem_size` is what the
    /// caller expects, `None` for whatever it is.
    pub fn read(
        header: &[u8; 24],
        entry_size: u64,
        elem_size: Option<u64>,
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "ring";
        let header: RingHeader = zerocopy::transmute!(*header);
        let layout = Self {
            capacity: header.capacity.get(),
            elem_size: header.elem_size.get(),
        };
        if layout.capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        expect_elem(STRUCTURE, layout.elem_size, elem_size)?;
        if !layout.capacity.is_multiple_of(layout.elem_size) {
            return Err(ImageError::NotMultiple {
                structure: STRUCTURE,
                found: layout.capacity.into(),
                elem_size: layout.elem_size.into(),
            });
        }
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// Bytes written and not yet read, once the loaded positions are known to
    /// fit the ring.
    pub fn used(&self, write_pos: u64, read_pos: u64) -> Result<u64, ImageError> {
        let used = write_pos.wrapping_sub(read_pos);
        let whole = used.checked_rem(self.elem_size.into()) == Some(0);
        if used > u64::from(self.capacity) || !whole {
            return Err(ImageError::Positions {
                write_pos,
                read_pos,
                capacity: self.capacity.into(),
            });
        }
        Ok(used)
    }

    /// The header of an empty ring.
    pub const fn header(&self) -> RingHeader {
        RingHeader {
            write_pos: U64::new(0),
            read_pos: U64::new(0),
            capacity: U32::new(self.capacity),
            elem_size: U32::new(self.elem_size),
        }
    }

    /// Elements that fit.
    pub const fn elements(&self) -> u32 {
        match self.capacity.checked_div(self.elem_size) {
            Some(elements) => elements,
            None => 0,
        }
    }

    /// Where the ring's bytes begin.
    pub const fn data_offset(&self) -> u64 {
        ring::DATA
    }

    /// Where the byte at a position is, from the start of the structure.
    pub const fn byte_at(&self, position: u64) -> u64 {
        match position.checked_rem(self.capacity as u64) {
            Some(at) => ring::DATA + at,
            None => ring::DATA,
        }
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        ring::DATA + self.capacity as u64
    }
}
