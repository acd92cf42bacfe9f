//! The table at the front of a segment (section 2).

use alloc::{borrow::ToOwned, string::String};
use core::mem::{offset_of, size_of};

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{ImageError, LayoutError, NameError, layout::MAX_SIZE};

/// First word of a segment: the bytes `4D 50 49 5A`.
pub const MAGIC: u32 = 0x5A49_504D;

/// The only version of the format that is understood.
pub const VERSION: u32 = 2;

/// Bytes of the header at offset 0.
pub const HEADER_SIZE: u64 = 32;

/// Bytes of one entry.
pub const ENTRY_SIZE: u64 = 48;

/// Bytes of an entry's name field, its NUL included.
pub const NAME_SIZE: usize = 32;

/// Longest name in bytes.
pub const MAX_NAME: usize = NAME_SIZE - 1;

/// Slots that every implementation gives a table by default, and what a stored
/// 0 means (section 1.3).
pub const DEFAULT_MAX_ENTRIES: u32 = 64;

/// Structures begin at multiples of this.
pub const ALIGN: u64 = 8;

/// Byte offsets of the [`TableHeader`] fields, taken from the structure itself
/// (section 2.1).
pub mod header_offset {
    use super::{TableHeader, offset_of};

    /// `u32`, [`MAGIC`](super::MAGIC)
    pub const MAGIC: usize = offset_of!(TableHeader, magic);
    /// `u32`, [`VERSION`](super::VERSION)
    pub const VERSION: usize = offset_of!(TableHeader, version);
    /// `u32`, entries in use
    pub const ENTRY_COUNT: usize = offset_of!(TableHeader, entry_count);
    /// `u32`, slots, fixed at creation
    pub const MAX_ENTRIES: usize = offset_of!(TableHeader, max_entries);
    /// `u64`, bytes, fixed at creation
    pub const MEMORY_SIZE: usize = offset_of!(TableHeader, memory_size);
    /// `u64`, first byte never given away
    pub const NEXT_OFFSET: usize = offset_of!(TableHeader, next_offset);
}

/// Byte offsets of the [`Entry`] fields, taken from the structure itself
/// (section 2.2).
pub mod entry_offset {
    use super::{Entry, offset_of};

    /// 32 bytes, NUL-terminated
    pub const NAME: usize = offset_of!(Entry, name);
    /// `u64`, from the start of the segment
    pub const OFFSET: usize = offset_of!(Entry, offset);
    /// `u64`, bytes as requested
    pub const SIZE: usize = offset_of!(Entry, size);
}

/// Where a table with so many slots ends and the first structure may begin.
pub const fn table_end(max_entries: u32) -> u64 {
    // No overflow: 48 * (2^32 - 1) + 32 is far below 2^64.
    HEADER_SIZE + ENTRY_SIZE * max_entries as u64
}

/// Where the entry with this index begins.
pub const fn entry_at(index: u32) -> u64 {
    table_end(index)
}

/// The header of a segment (section 2.1).
///
/// A copy of the bytes, not a view of shared memory, so reading a field twice
/// gives the same value.
///
/// ```
/// use polyshm_wire::zeroipc::TableHeader;
///
/// let header = TableHeader::new(16, 4096);
/// assert_eq!(header.next_offset.get(), 32 + 16 * 48);
/// let read = TableHeader::read(&header.to_bytes())?;
/// read.check(4096)?;
/// assert!(read.check(4095).is_err());
/// # Ok::<(), polyshm_wire::zeroipc::ImageError>(())
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct TableHeader {
    /// always [`MAGIC`]; stored last by who creates a segment
    pub magic: U32,
    /// always [`VERSION`]
    pub version: U32,
    /// entries in use, from index 0 on; at most [`slots`](Self::slots)
    pub entry_count: U32,
    /// slots of the table; 0 means [`DEFAULT_MAX_ENTRIES`]
    pub max_entries: U32,
    /// bytes of the segment; at most the length of the object
    pub memory_size: U64,
    /// where the next structure goes, before it is rounded up to [`ALIGN`];
    /// foreign writers also raise it for insertions that failed
    pub next_offset: U64,
}

/// One entry of the table: a name and where its structure is (section 2.2).
///
/// ```
/// use polyshm_wire::zeroipc::{Entry, Extent, TableHeader};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let extent = Extent { offset: 800, size: 48 };
/// let entry = Entry::new("jobs", extent)?;
/// assert!(entry.has_name("jobs") && !entry.has_name("job"));
/// assert_eq!(entry.name()?, "jobs");
/// assert_eq!(entry.extent(0, &TableHeader::new(16, 4096))?, extent);
/// assert!(entry.extent(0, &TableHeader::new(17, 4096)).is_err()); // inside the table
/// # Ok(())
/// # }
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct Entry {
    /// UTF-8, NUL-terminated, padded with zeros
    pub name: [u8; NAME_SIZE],
    /// from the start of the segment; a multiple of [`ALIGN`]
    pub offset: U64,
    /// bytes as requested, not rounded up
    pub size: U64,
}

// The offsets of sections 2.1 and 2.2, stated apart from the structures.
const _: () = {
    assert!(size_of::<TableHeader>() as u64 == HEADER_SIZE);
    assert!(header_offset::MAGIC == 0);
    assert!(header_offset::VERSION == 4);
    assert!(header_offset::ENTRY_COUNT == 8);
    assert!(header_offset::MAX_ENTRIES == 12);
    assert!(header_offset::MEMORY_SIZE == 16);
    assert!(header_offset::NEXT_OFFSET == 24);
    assert!(size_of::<Entry>() as u64 == ENTRY_SIZE);
    assert!(entry_offset::NAME == 0);
    assert!(entry_offset::OFFSET == 32);
    assert!(entry_offset::SIZE == 40);
};

impl TableHeader {
    /// The header of a fresh segment with so many slots (0 means
    /// [`DEFAULT_MAX_ENTRIES`]) and bytes. [`check`](Self::check) says whether
    /// they fit each other.
    pub const fn new(max_entries: u32, memory_size: u64) -> Self {
        let max_entries = or_default(max_entries);
        Self {
            magic: U32::new(MAGIC),
            version: U32::new(VERSION),
            entry_count: U32::new(0),
            max_entries: U32::new(max_entries),
            memory_size: U64::new(memory_size),
            next_offset: U64::new(table_end(max_entries)),
        }
    }

    /// Copies the header from the front of an image. The only refusal is
    /// [`ImageError::TooShort`]; the fields are judged by
    /// [`check`](Self::check).
    pub fn read(image: &[u8]) -> Result<Self, ImageError> {
        Self::read_from_prefix(image)
            .map(|(header, _)| header)
            .map_err(|_| ImageError::TooShort {
                structure: "table header",
                len: image.len() as u64,
                need: HEADER_SIZE,
            })
    }

    /// The bytes as they stand in the segment.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// Slots of the table, with the default where old writers stored 0.
    pub const fn slots(&self) -> u32 {
        or_default(self.max_entries.get())
    }

    /// Checks every field against the others and against the real length of
    /// the object, in bytes (section 9, item 4).
    ///
    /// The object may be longer than the segment: some systems round it up.
    pub fn check(&self, object_len: u64) -> Result<(), ImageError> {
        if object_len < HEADER_SIZE {
            return Err(ImageError::TooShort {
                structure: "table header",
                len: object_len,
                need: HEADER_SIZE,
            });
        }
        let found = self.magic.get();
        if found != MAGIC {
            return Err(ImageError::Magic { found });
        }
        let found = self.version.get();
        if found != VERSION {
            return Err(ImageError::Version { found });
        }
        let table_end = table_end(self.slots());
        let memory_size = self.memory_size.get();
        let object_len = object_len.min(MAX_SIZE);
        if memory_size < table_end || memory_size > object_len {
            return Err(ImageError::MemorySize {
                found: memory_size,
                table_end,
                object_len,
            });
        }
        let found = self.entry_count.get();
        if found > self.slots() {
            return Err(ImageError::EntryCount {
                found,
                max: self.slots(),
            });
        }
        let found = self.next_offset.get();
        if found < table_end || found > memory_size {
            return Err(ImageError::NextOffset {
                found,
                table_end,
                memory_size,
            });
        }
        Ok(())
    }
}

impl Entry {
    /// An entry for a structure at `extent`, which [`place`] has chosen.
    pub fn new(name: &str, extent: Extent) -> Result<Self, NameError> {
        check_name(name)?;
        let mut field = [0; NAME_SIZE];
        for (to, from) in field.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Ok(Self {
            name: field,
            offset: U64::new(extent.offset),
            size: U64::new(extent.size),
        })
    }

    /// Copies the entry with this index out of an image of a segment. Whether
    /// the index is in use, and what the entry says, is not judged here.
    pub fn read(image: &[u8], index: u32) -> Result<Self, ImageError> {
        let at = entry_at(index);
        usize::try_from(at)
            .ok()
            .and_then(|at| image.get(at..))
            .and_then(|rest| Self::read_from_prefix(rest).ok())
            .map(|(entry, _)| entry)
            .ok_or_else(|| ImageError::TooShort {
                structure: "table",
                len: image.len() as u64,
                need: at + ENTRY_SIZE,
            })
    }

    /// The bytes as they stand in the table.
    pub fn to_bytes(&self) -> [u8; ENTRY_SIZE as usize] {
        zerocopy::transmute!(*self)
    }

    /// The name, if it is one that can be looked up: terminated, not empty and
    /// UTF-8.
    pub fn name(&self) -> Result<&str, ImageError> {
        let bytes = self.name_bytes();
        if bytes.len() == NAME_SIZE {
            return Err(ImageError::NameNotTerminated {
                text: self.name_lossy(),
            });
        }
        if bytes.is_empty() {
            return Err(ImageError::NameEmpty);
        }
        core::str::from_utf8(bytes).map_err(|_| ImageError::NameNotUtf8 {
            text: self.name_lossy(),
        })
    }

    /// The name for people: what is there up to the NUL or the end of the
    /// field, with replacement characters where it is not UTF-8.
    pub fn name_lossy(&self) -> String {
        String::from_utf8_lossy(self.name_bytes()).into_owned()
    }

    /// Whether a lookup of `name` finds this entry. A field without a NUL is
    /// never found, and neither is the empty name.
    pub fn has_name(&self, name: &str) -> bool {
        !name.is_empty() && name.len() <= MAX_NAME && self.name_bytes() == name.as_bytes()
    }

    /// Where the structure is, once that is known to lie behind the table and
    /// inside the segment. `index` is for the message only; `header` must have
    /// passed [`TableHeader::check`].
    pub fn extent(&self, index: u32, header: &TableHeader) -> Result<Extent, ImageError> {
        let offset = self.offset.get();
        let size = self.size.get();
        if !offset.is_multiple_of(ALIGN) {
            return Err(ImageError::EntryAlignment { index, offset });
        }
        let table_end = table_end(header.slots());
        let memory_size = header.memory_size.get();
        match offset.checked_add(size) {
            Some(end) if offset >= table_end && end <= memory_size => Ok(Extent { offset, size }),
            _ => Err(ImageError::EntryBounds {
                index,
                offset,
                size,
                table_end,
                memory_size,
            }),
        }
    }

    /// Up to the NUL, or all of it.
    fn name_bytes(&self) -> &[u8] {
        let mut parts = self.name.splitn(2, |byte| *byte == 0);
        parts.next().unwrap_or_default()
    }
}

/// A stretch of a segment, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Extent {
    /// of the first byte
    pub offset: u64,
    /// in bytes
    pub size: u64,
}

impl Extent {
    /// Of the first byte behind it. Saturates, which no extent that
    /// [`Entry::extent`] or [`place`] gave can reach.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// Where a new structure of `size` bytes goes: at `next_offset`, rounded up to
/// [`ALIGN`] (section 2.3). Its end is the next `next_offset`.
///
/// ```
/// use polyshm_wire::zeroipc::{Extent, LayoutError, place};
///
/// assert_eq!(place(811, 12, 4096), Ok(Extent { offset: 816, size: 12 }));
/// let (needed, available) = (12, 8);
/// assert_eq!(place(811, 12, 824), Err(LayoutError::NoSpace { needed, available }));
/// ```
pub fn place(next_offset: u64, size: u64, memory_size: u64) -> Result<Extent, LayoutError> {
    let available = |offset| memory_size.saturating_sub(offset);
    let no_space = |available| LayoutError::NoSpace {
        needed: size,
        available,
    };
    let offset = next_offset
        .checked_next_multiple_of(ALIGN)
        .ok_or(no_space(0))?;
    if offset > memory_size || size > available(offset) {
        return Err(no_space(available(offset)));
    }
    Ok(Extent { offset, size })
}

/// Refuses a name that the table cannot hold or nobody could look up: empty,
/// with a NUL, or above [`MAX_NAME`] bytes.
pub fn check_name(name: &str) -> Result<(), NameError> {
    check_base(name, MAX_NAME)
}

/// As [`check_name`], where something will be appended.
pub(super) fn check_base(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    // Bytes: Python counts characters and leaves names that nobody finds.
    if name.len() > max {
        return Err(NameError::TooLong {
            name: name.to_owned(),
            len: name.len(),
            max,
        });
    }
    if name.contains('\0') {
        return Err(NameError::Nul {
            name: name.to_owned(),
        });
    }
    Ok(())
}

const fn or_default(max_entries: u32) -> u32 {
    if max_entries == 0 {
        DEFAULT_MAX_ENTRIES
    } else {
        max_entries
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn names_count_bytes() {
        check_name(&"x".repeat(31)).unwrap();
        // 16 characters of two bytes each
        let name = "\u{e9}".repeat(16);
        let error = NameError::TooLong {
            name: name.clone(),
            len: 32,
            max: 31,
        };
        assert_eq!(check_name(&name), Err(error));
        assert_eq!(check_name(""), Err(NameError::Empty));
        assert!(matches!(check_name("a\0b"), Err(NameError::Nul { .. })));
        // Nothing else is special: a name is no path.
        check_name("a/b ..").unwrap();
    }

    #[test]
    fn damaged_names() {
        let extent = Extent {
            offset: 800,
            size: 16,
        };
        let mut entry = Entry::new("ab", extent).unwrap();
        assert!(!entry.has_name("") && !entry.has_name("a") && !entry.has_name("ab\0"));
        // What stands behind the NUL does not matter.
        entry.name[3..].fill(b'x');
        assert_eq!(entry.name(), Ok("ab"));
        assert!(entry.has_name("ab"));
        entry.name[1] = 0xff;
        let error = entry.name().unwrap_err();
        assert_eq!(error.to_string(), "the name \"a\u{fffd}\" is not UTF-8");
        entry.name[0] = 0;
        assert_eq!(entry.name(), Err(ImageError::NameEmpty));
        entry.name.fill(b'x');
        assert!(matches!(
            entry.name(),
            Err(ImageError::NameNotTerminated { .. })
        ));
        assert!(!entry.has_name(&"x".repeat(32)));
    }

    #[test]
    fn old_writers_store_no_capacity() {
        let mut header = TableHeader::new(0, 16384);
        assert_eq!((header.max_entries.get(), header.slots()), (64, 64));
        header.max_entries.set(0);
        assert_eq!(header.slots(), 64);
        header.check(16384).unwrap();
    }

    #[test]
    fn every_limit_of_the_header() {
        let fresh = TableHeader::new(4, 1000);
        let set = |change: fn(&mut TableHeader)| {
            let mut header = fresh;
            change(&mut header);
            header.check(1000)
        };
        assert_eq!(fresh.check(4096), Ok(()));
        assert_eq!(set(|h| h.entry_count.set(4)), Ok(()));
        assert_eq!(set(|h| h.next_offset.set(1000)), Ok(()));
        assert_eq!(set(|h| h.memory_size.set(224)), Ok(()));
        assert!(set(|h| h.entry_count.set(5)).is_err());
        assert!(set(|h| h.next_offset.set(1001)).is_err());
        assert!(set(|h| h.next_offset.set(223)).is_err());
        assert!(set(|h| h.memory_size.set(223)).is_err());
        assert!(set(|h| h.memory_size.set(1001)).is_err());
        assert!(set(|h| h.max_entries.set(u32::MAX)).is_err());
        assert!(fresh.check(31).is_err());
        let mut huge = fresh;
        huge.memory_size.set(u64::MAX);
        assert!(huge.check(u64::MAX).is_err());
    }

    #[test]
    fn every_limit_of_an_entry() {
        let header = TableHeader::new(4, 1000);
        let extent = |offset, size| {
            let extent = Extent { offset, size };
            Entry::new("x", extent).unwrap().extent(3, &header)
        };
        assert!(extent(224, 776).is_ok());
        assert!(extent(1000, 0).is_ok());
        assert_eq!(
            extent(228, 4),
            Err(ImageError::EntryAlignment {
                index: 3,
                offset: 228
            })
        );
        for (offset, size) in [(216, 8), (224, 777), (1008, 0), (992, u64::MAX), (0, 8)] {
            assert!(matches!(
                extent(offset, size),
                Err(ImageError::EntryBounds { index: 3, .. })
            ));
        }
        let image = [0; 79];
        assert!(Entry::read(&image, 0).is_err());
        assert!(Entry::read(&image, u32::MAX).is_err());
        assert!(Entry::read(&[0; 80], 0).is_ok());
    }

    #[test]
    fn places_end_inside() {
        let extent = |offset, size| Ok(Extent { offset, size });
        assert_eq!(place(800, 200, 1000), extent(800, 200));
        assert_eq!(place(801, 0, 1000), extent(808, 0));
        for (next, size) in [(800, 201), (993, 1), (u64::MAX, 0), (800, u64::MAX)] {
            assert!(place(next, size, 1000).is_err());
        }
    }
}
