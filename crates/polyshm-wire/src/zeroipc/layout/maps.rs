//! Maps and sets (sections 4.6 and 4.7).

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U32};

use super::{
    Dialect, check_align, check_capacity, check_elem, check_entry, check_size, codec, larger,
    round_up,
};
use crate::zeroipc::{ImageError, LayoutError};

/// Bytes that a C++ map value may have (section 4.6).
const MAX_CPP_VALUE: u64 = 8;

/// Byte offsets and slot states in a map (section 4.6).
pub mod map {
    use super::{MapHeader, offset_of};

    /// `u32`, atomic: pairs stored
    pub const SIZE: u64 = offset_of!(MapHeader, size) as u64;
    /// `u32`, fixed at creation
    pub const CAPACITY: u64 = offset_of!(MapHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const KEY_SIZE: u64 = offset_of!(MapHeader, key_size) as u64;
    /// `u32`, bytes, fixed at creation
    pub const VALUE_SIZE: u64 = offset_of!(MapHeader, value_size) as u64;
    /// the first slot; its state is its first word
    pub const ENTRIES: u64 = 16;

    /// The slot was never used; a search ends here.
    pub const EMPTY: u32 = 0;
    /// The slot holds a pair.
    pub const OCCUPIED: u32 = 1;
    /// The slot's pair was erased; a search goes on.
    pub const DELETED: u32 = 2;
    /// Somebody is storing a pair, or another value to the same key.
    pub const INSERTING: u32 = 3;
}

/// Byte offsets and slot states in a set (section 4.7).
pub mod set {
    use super::{SetHeader, offset_of};

    /// `u32`, atomic: elements stored
    pub const SIZE: u64 = offset_of!(SetHeader, size) as u64;
    /// `u32`, fixed at creation
    pub const CAPACITY: u64 = offset_of!(SetHeader, capacity) as u64;
    /// `u32`, bytes, fixed at creation
    pub const ELEM_SIZE: u64 = offset_of!(SetHeader, elem_size) as u64;
    /// `u32`, 0 in C++, 1 in Python
    pub const RESERVED: u64 = offset_of!(SetHeader, reserved) as u64;
    /// the first slot; its state is its first word
    pub const ENTRIES: u64 = 16;

    pub use super::map::{DELETED, EMPTY, INSERTING, OCCUPIED};
}

/// The first 16 bytes of a map (section 4.6).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct MapHeader {
    /// pairs stored; counted before or after the slot is published, so it may
    /// be off by one per inserter, and below 0, for a moment
    pub size: U32,
    /// slots
    pub capacity: U32,
    /// bytes per key
    pub key_size: U32,
    /// bytes per value
    pub value_size: U32,
}

/// The first 16 bytes of a set (section 4.7).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct SetHeader {
    /// elements stored, as inexact as in a map
    pub size: U32,
    /// slots
    pub capacity: U32,
    /// bytes per element
    pub elem_size: U32,
    /// 0 in C++; in Python, whose set is a map, the size of the value: 1
    pub reserved: U32,
}

codec!(MapHeader, map::ENTRIES, "map");
codec!(SetHeader, set::ENTRIES, "set");

// The offsets of sections 4.6 and 4.7, stated apart from the structures.
const _: () = {
    assert!(map::SIZE == 0);
    assert!(map::CAPACITY == 4);
    assert!(map::KEY_SIZE == 8);
    assert!(map::VALUE_SIZE == 12);
    assert!(set::SIZE == 0);
    assert!(set::CAPACITY == 4);
    assert!(set::ELEM_SIZE == 8);
    assert!(set::RESERVED == 12);
};

/// A map with linear probing (section 4.6).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, MapLayout};
///
/// let cpp = MapLayout::new(Dialect::Cpp, 8, (4, 4), (4, 4))?;
/// let python = MapLayout::new(Dialect::Python, 8, (4, 4), (4, 4))?;
/// assert_eq!((cpp.stride(), cpp.size()), (12, 112));
/// assert_eq!((python.stride(), python.size()), (16, 144));
///
/// // The headers are the same; only the entry's size tells.
/// let header = cpp.header().to_bytes();
/// assert_eq!(MapLayout::read(&header, 112, Dialect::Cpp, (4, 4), (4, 4))?, cpp);
/// assert!(MapLayout::read(&header, 144, Dialect::Cpp, (4, 4), (4, 4)).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MapLayout {
    /// decides the offsets in a slot and the hash
    pub dialect: Dialect,
    /// slots; never 0
    pub capacity: u32,
    /// bytes per key; never 0
    pub key_size: u32,
    /// of the key in C++: 1, 2, 4 or 8
    pub key_align: u32,
    /// bytes per value; never 0
    pub value_size: u32,
    /// of the value in C++: 1, 2, 4 or 8
    pub value_align: u32,
}

impl MapLayout {
    /// Bytes before the first slot.
    pub const HEADER: u64 = map::ENTRIES;

    /// For a new map of exactly `capacity` slots. `key` and `value` are each a
    /// size and an alignment in bytes; Python's format ignores the alignment.
    pub fn new(
        dialect: Dialect,
        capacity: u64,
        key: (u64, u64),
        value: (u64, u64),
    ) -> Result<Self, LayoutError> {
        let elem_size = key.0.saturating_add(value.0);
        let layout = Self {
            dialect,
            capacity: check_capacity(capacity, elem_size, u32::MAX.into())?,
            key_size: check_elem(capacity, key.0)?,
            key_align: check_align(key.1)?,
            value_size: check_elem(capacity, value.0)?,
            value_align: check_align(value.1)?,
        };
        if dialect == Dialect::Cpp && value.0 > MAX_CPP_VALUE {
            return Err(LayoutError::ValueTooLarge { size: value.0 });
        }
        check_size(capacity, elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the header of an existing map: the sizes must be the caller's,
    /// and the entry must hold all slots.
    ///
    /// Nothing in the header tells the dialects apart. An entry of the size
    /// that exactly the other dialect asks for is refused; where both ask for
    /// the same (8-byte keys and values, for example), the caller must know.
    pub fn read(
        header: &[u8; 16],
        entry_size: u64,
        dialect: Dialect,
        key: (u64, u64),
        value: (u64, u64),
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "map";
        let header: MapHeader = zerocopy::transmute!(*header);
        let capacity = header.capacity.get();
        let found = u64::from(header.key_size.get());
        let layout = Self {
            dialect,
            capacity,
            key_size: check_elem(capacity.into(), key.0)?,
            key_align: check_align(key.1)?,
            value_size: check_elem(capacity.into(), value.0)?,
            value_align: check_align(value.1)?,
        };
        if capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        if found != key.0 {
            return Err(ImageError::KeySize {
                structure: STRUCTURE,
                found,
                expected: key.0,
            });
        }
        let found = u64::from(header.value_size.get());
        if found != value.0 {
            return Err(ImageError::ValueSize {
                structure: STRUCTURE,
                found,
                expected: value.0,
            });
        }
        let other = Self {
            dialect: dialect.other(),
            ..layout
        };
        check_dialect(STRUCTURE, dialect, entry_size, layout.size(), other.size())?;
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// The header of an empty map. The slots are all zero.
    pub const fn header(&self) -> MapHeader {
        MapHeader {
            size: U32::new(0),
            capacity: U32::new(self.capacity),
            key_size: U32::new(self.key_size),
            value_size: U32::new(self.value_size),
        }
    }

    /// Where in a slot the key is.
    pub const fn key_offset(&self) -> u64 {
        match self.dialect {
            Dialect::Cpp => round_up(STATE_SIZE, self.key_align as u64),
            Dialect::Python => STATE_SIZE,
        }
    }

    /// Where in a slot the value is.
    pub const fn value_offset(&self) -> u64 {
        let end = self.key_offset() + self.key_size as u64;
        match self.dialect {
            Dialect::Cpp => round_up(end, self.value_align as u64),
            Dialect::Python => end,
        }
    }

    /// Bytes from one slot to the next.
    pub const fn stride(&self) -> u64 {
        let align = match self.dialect {
            Dialect::Cpp => larger(
                STATE_SIZE,
                larger(self.key_align as u64, self.value_align as u64),
            ),
            Dialect::Python => 8,
        };
        round_up(self.value_offset() + self.value_size as u64, align)
    }

    /// Where the slots begin.
    pub const fn slots_offset(&self) -> u64 {
        map::ENTRIES
    }

    /// Where a slot, and so its state, begins; the slot must be below the
    /// capacity.
    pub const fn slot_at(&self, slot: u32) -> u64 {
        slot_at(self.stride(), slot)
    }

    /// The slot where the search for a key with this hash begins.
    pub const fn home(&self, hash: u64) -> u32 {
        home(hash, self.capacity)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.slot_at(self.capacity)
    }
}

/// A set with linear probing: in Python a map to a byte that is 1
/// (section 4.7).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, SetLayout};
///
/// let cpp = SetLayout::new(Dialect::Cpp, 8, 8, 8)?;
/// assert_eq!((cpp.elem_offset(), cpp.stride(), cpp.size()), (8, 16, 144));
/// let python = SetLayout::new(Dialect::Python, 8, 8, 8)?;
/// assert_eq!((python.elem_offset(), python.stride(), python.size()), (4, 16, 144));
/// # Ok::<(), polyshm_wire::zeroipc::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetLayout {
    /// decides the offsets in a slot and the hash
    pub dialect: Dialect,
    /// slots; never 0
    pub capacity: u32,
    /// bytes per element; never 0
    pub elem_size: u32,
    /// of the element in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl SetLayout {
    /// Bytes before the first slot.
    pub const HEADER: u64 = set::ENTRIES;

    /// For a new set of exactly `capacity` slots.
    pub fn new(
        dialect: Dialect,
        capacity: u64,
        elem_size: u64,
        elem_align: u64,
    ) -> Result<Self, LayoutError> {
        let layout = Self {
            dialect,
            capacity: check_capacity(capacity, elem_size, u32::MAX.into())?,
            elem_size: check_elem(capacity, elem_size)?,
            elem_align: check_align(elem_align)?,
        };
        check_size(capacity, elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the header of an existing set: the size must be the caller's, and
    /// the entry must hold all slots. The header's last word tells the
    /// dialects apart.
    pub fn read(
        header: &[u8; 16],
        entry_size: u64,
        dialect: Dialect,
        elem_size: u64,
        elem_align: u64,
    ) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "set";
        let header: SetHeader = zerocopy::transmute!(*header);
        let capacity = header.capacity.get();
        let layout = Self {
            dialect,
            capacity,
            elem_size: check_elem(capacity.into(), elem_size)?,
            elem_align: check_align(elem_align)?,
        };
        if capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        let found = u64::from(header.elem_size.get());
        if found != elem_size {
            return Err(ImageError::ElementSize {
                structure: STRUCTURE,
                found,
                expected: elem_size,
            });
        }
        let found = match header.reserved.get() {
            0 => Dialect::Cpp,
            1 => Dialect::Python,
            other => {
                return Err(ImageError::Field {
                    structure: STRUCTURE,
                    field: "reserved word",
                    found: other.into(),
                    min: 0,
                    max: 1,
                });
            }
        };
        if found != dialect {
            return Err(ImageError::Dialect {
                structure: STRUCTURE,
                found,
                expected: dialect,
            });
        }
        check_entry(STRUCTURE, layout.size(), entry_size)?;
        Ok(layout)
    }

    /// The header of an empty set. The slots are all zero.
    pub const fn header(&self) -> SetHeader {
        SetHeader {
            size: U32::new(0),
            capacity: U32::new(self.capacity),
            elem_size: U32::new(self.elem_size),
            reserved: U32::new(match self.dialect {
                Dialect::Cpp => 0,
                Dialect::Python => 1,
            }),
        }
    }

    /// Where in a slot the element is.
    pub const fn elem_offset(&self) -> u64 {
        match self.dialect {
            Dialect::Cpp => round_up(STATE_SIZE, self.elem_align as u64),
            Dialect::Python => STATE_SIZE,
        }
    }

    /// Where in a slot the byte 1 is that Python's format stores with every
    /// element; `None` in C++.
    pub const fn mark_offset(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Cpp => None,
            Dialect::Python => Some(self.elem_end()),
        }
    }

    /// Bytes from one slot to the next.
    pub const fn stride(&self) -> u64 {
        match self.dialect {
            Dialect::Cpp => round_up(self.elem_end(), larger(STATE_SIZE, self.elem_align as u64)),
            Dialect::Python => round_up(self.elem_end() + 1, 8),
        }
    }

    /// Where the slots begin.
    pub const fn slots_offset(&self) -> u64 {
        set::ENTRIES
    }

    /// Where a slot, and so its state, begins; the slot must be below the
    /// capacity.
    pub const fn slot_at(&self, slot: u32) -> u64 {
        slot_at(self.stride(), slot)
    }

    /// The slot where the search for an element with this hash begins.
    pub const fn home(&self, hash: u64) -> u32 {
        home(hash, self.capacity)
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.slot_at(self.capacity)
    }

    const fn elem_end(&self) -> u64 {
        self.elem_offset() + self.elem_size as u64
    }
}

/// Bytes of a slot's state.
const STATE_SIZE: u64 = 4;

const fn slot_at(stride: u64, slot: u32) -> u64 {
    stride.saturating_mul(slot as u64).saturating_add(16)
}

const fn home(hash: u64, capacity: u32) -> u32 {
    match hash.checked_rem(capacity as u64) {
        Some(slot) => slot as u32,
        None => 0,
    }
}

/// Refuses an entry of exactly the size that only the other dialect gives it.
fn check_dialect(
    structure: &'static str,
    dialect: Dialect,
    entry_size: u64,
    size: u64,
    other: u64,
) -> Result<(), ImageError> {
    if entry_size != size && entry_size == other {
        return Err(ImageError::Dialect {
            structure,
            found: dialect.other(),
            expected: dialect,
        });
    }
    Ok(())
}
