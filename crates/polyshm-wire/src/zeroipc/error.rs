//! The three error types of the table and the structures. Each message carries
//! the field, the value found and the limit, so that a log line is enough to
//! judge a damaged segment.

use alloc::string::String;

use thiserror::Error;

use super::Dialect;

/// Why what was asked for cannot be laid out in a segment.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A structure without a slot can never hold anything, and the reference
    /// implementations divide by its capacity.
    #[error("the capacity is 0, at least 1 is needed")]
    ZeroCapacity,
    /// An element without a byte carries nothing.
    #[error("the element size is 0 bytes, at least 1 is needed")]
    ZeroElement,
    /// A header field or this machine's address range cannot express it.
    #[error(
        "capacity {capacity} with elements of {elem_size} bytes is too large, the limit is {limit}"
    )]
    TooLarge {
        /// as requested; in bytes where a ring was asked for by bytes
        capacity: u64,
        /// as requested; key and value together for a map
        elem_size: u64,
        /// of the capacity in slots, of the element or of the whole structure
        /// in bytes: whichever was exceeded
        limit: u64,
    },
    /// The segment is full.
    #[error("{needed} bytes are needed, the segment has {available} left")]
    NoSpace {
        /// bytes asked for
        needed: u64,
        /// bytes between the next aligned offset and the end of the segment
        available: u64,
    },
    /// Structures begin at multiples of 8, so nothing can be aligned better.
    #[error("the alignment is {align}, it must be 1, 2, 4 or 8")]
    Alignment {
        /// as requested
        align: u64,
    },
    /// C++ maps take values of one machine word at most (section 4.6).
    #[error("the map value has {size} bytes, the limit of the C++ format is 8")]
    ValueTooLarge {
        /// as requested
        size: u64,
    },
}

/// What is wrong with an image of a segment, or why an entry is not the
/// structure that was asked for.
///
/// Two kinds, told apart by [`is_mismatch`](Self::is_mismatch): the segment may
/// be damaged, or it may be sound and hold something else than the caller
/// believes, since the format records no types.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The bytes end before the structure does.
    #[error("the {structure} needs {need} bytes, {len} are there")]
    TooShort {
        /// what was to be read
        structure: &'static str,
        /// bytes present
        len: u64,
        /// bytes the structure takes
        need: u64,
    },
    /// Not a ZeroIPC segment, or one still being built.
    #[error("magic is {found:#010x}, a segment has 0x5a49504d")]
    Magic {
        /// the value in the image
        found: u32,
    },
    /// Written by another version of the format.
    #[error("version is {found}, only version 2 is understood")]
    Version {
        /// the value in the image
        found: u32,
    },
    /// The segment would end inside its table or behind its object.
    #[error(
        "memory_size is {found}, it must be within {table_end} (the end of the table) and \
         {object_len} (the length of the object)"
    )]
    MemorySize {
        /// the value in the image
        found: u64,
        /// where the table ends by `max_entries`
        table_end: u64,
        /// bytes that can be addressed in the object
        object_len: u64,
    },
    /// More entries than the table has slots.
    #[error("entry_count is {found}, the limit is max_entries {max}")]
    EntryCount {
        /// the value in the image
        found: u32,
        /// slots of the table
        max: u32,
    },
    /// New structures would overwrite the table or lie behind the segment.
    #[error(
        "next_offset is {found}, it must be within {table_end} (the end of the table) and \
         memory_size {memory_size}"
    )]
    NextOffset {
        /// the value in the image
        found: u64,
        /// where the table ends by `max_entries`
        table_end: u64,
        /// the value in the image
        memory_size: u64,
    },
    /// All 32 bytes of a name are used, so nobody can look it up. Python leaves
    /// such entries (section 2.4).
    #[error("the name {text:?} fills its 32 bytes without a NUL")]
    NameNotTerminated {
        /// the bytes, with replacement characters where they are not UTF-8
        text: String,
    },
    /// A counted entry has no name: half written, or damaged.
    #[error("the name is empty")]
    NameEmpty,
    /// The bytes before the NUL are not text.
    #[error("the name {text:?} is not UTF-8")]
    NameNotUtf8 {
        /// the bytes, with replacement characters
        text: String,
    },
    /// Every structure begins at a multiple of 8.
    #[error("entry {index} begins at {offset}, which is not a multiple of 8")]
    EntryAlignment {
        /// of the entry in the table
        index: u32,
        /// the value in the image
        offset: u64,
    },
    /// A structure that overlaps the table or leaves the segment.
    #[error(
        "entry {index} with offset {offset} and size {size} is not within {table_end} (the end of \
         the table) and memory_size {memory_size}"
    )]
    EntryBounds {
        /// of the entry in the table
        index: u32,
        /// the value in the image
        offset: u64,
        /// the value in the image
        size: u64,
        /// where the table ends by `max_entries`
        table_end: u64,
        /// the value in the image
        memory_size: u64,
    },
    /// No element fits, or a division by the capacity would fail.
    #[error("the {structure}'s capacity is 0, at least 1 is needed")]
    ZeroCapacity {
        /// what the entry was read as
        structure: &'static str,
    },
    /// Positions are masked with the capacity.
    #[error("the {structure}'s capacity is {found}, it must be a power of two")]
    NotPowerOfTwo {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
    },
    /// An element would be split at the end of the ring.
    #[error("the {structure}'s capacity is {found} bytes, it must be a multiple of {elem_size}")]
    NotMultiple {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
        /// bytes per element
        elem_size: u64,
    },
    /// The header promises more than the entry has.
    #[error("the {structure} needs {needed} bytes by its header, its entry has {entry_size}")]
    Exceeds {
        /// what the entry was read as
        structure: &'static str,
        /// bytes by the header; `u64::MAX` when they cannot be expressed
        needed: u64,
        /// bytes by the table
        entry_size: u64,
    },
    /// A field that no correct peer can have left so.
    #[error("the {structure}'s {field} is {found}, it must be within {min} and {max}")]
    Field {
        /// what the entry was read as
        structure: &'static str,
        /// its field
        field: &'static str,
        /// the value in the image
        found: i64,
        /// the smallest value allowed
        min: i64,
        /// the largest value allowed
        max: i64,
    },
    /// A ring's positions are further apart than the ring is long.
    #[error(
        "the ring's write_pos {write_pos} and read_pos {read_pos} are not within its capacity of \
         {capacity} bytes, or not whole elements apart"
    )]
    Positions {
        /// the value in the image
        write_pos: u64,
        /// the value in the image
        read_pos: u64,
        /// bytes
        capacity: u64,
    },
    /// The entry holds elements of another size.
    #[error("the {structure}'s elements have {found} bytes, {expected} were expected")]
    ElementSize {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
        /// what the caller's element takes
        expected: u64,
    },
    /// The entry holds elements of another alignment, so they lie elsewhere.
    #[error("the {structure} was laid out for another alignment than {expected}")]
    ElementAlignment {
        /// what the entry was read as
        structure: &'static str,
        /// of the caller's element
        expected: u64,
    },
    /// The map has keys of another size.
    #[error("the {structure}'s keys have {found} bytes, {expected} were expected")]
    KeySize {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
        /// what the caller's key takes
        expected: u64,
    },
    /// The map has values of another size.
    #[error("the {structure}'s values have {found} bytes, {expected} were expected")]
    ValueSize {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
        /// what the caller's value takes
        expected: u64,
    },
    /// The structure has another capacity than the caller insists on.
    #[error("the {structure}'s capacity is {found}, {expected} was expected")]
    Capacity {
        /// what the entry was read as
        structure: &'static str,
        /// the value in the image
        found: u64,
        /// what the caller insists on
        expected: u64,
    },
    /// A structure of fixed size in an entry of another size.
    #[error("the entry has {found} bytes, a {structure} takes {expected}")]
    Size {
        /// what the entry was read as
        structure: &'static str,
        /// bytes by the table
        found: u64,
        /// bytes the structure takes
        expected: u64,
    },
    /// Written in the other format that goes by the same name (section 7).
    #[error("the {structure} is in the {found} format, the {expected} format was expected")]
    Dialect {
        /// what the entry was read as
        structure: &'static str,
        /// what the entry must be
        found: Dialect,
        /// what the caller wants
        expected: Dialect,
    },
    /// No structure can hold the element that the caller wants to see.
    #[error("the element cannot be stored in any structure: {0}")]
    Unsuitable(#[from] LayoutError),
}

impl ImageError {
    /// Whether the segment may be sound and merely holds something else than
    /// was asked for. `false` means damage, or a segment still being built.
    ///
    /// ```
    /// use polyshm_wire::zeroipc::{ArrayLayout, ImageError};
    ///
    /// // Three elements of 4 bytes, read as elements of 8.
    /// let array = [3, 0, 0, 0, 0, 0, 0, 0];
    /// assert!(ArrayLayout::read(&array, 20, 8).unwrap_err().is_mismatch());
    /// assert!(!ImageError::Magic { found: 0 }.is_mismatch());
    /// ```
    pub const fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::ElementSize { .. }
                | Self::ElementAlignment { .. }
                | Self::KeySize { .. }
                | Self::ValueSize { .. }
                | Self::Capacity { .. }
                | Self::Size { .. }
                | Self::Dialect { .. }
                | Self::Unsuitable(_)
        )
    }
}

/// Why a structure's name cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// An entry without a name cannot be found.
    #[error("the name is empty")]
    Empty,
    /// The table's 32 bytes hold the name, what is appended to it and a NUL.
    #[error("the name {name:?} has {len} bytes, the limit is {max}")]
    TooLong {
        /// as given
        name: String,
        /// its length in bytes, not characters
        len: usize,
        /// the limit in bytes, less what a composite structure appends
        max: usize,
    },
    /// A name ends at its first NUL.
    #[error("the name {name:?} contains a NUL character")]
    Nul {
        /// as given
        name: String,
    },
}
