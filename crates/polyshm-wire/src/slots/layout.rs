//! Where everything stands in a segment (section 2).

use alloc::{vec, vec::Vec};
use core::mem::{offset_of, size_of};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian::U64};

use super::{ImageError, LayoutError, Schema, Status};

/// Bytes of [`Meta`], in front of the slots of a FIFO.
pub const META_SIZE: usize = 24;

/// The largest segment that is laid out here, in bytes. The reference has no
/// limit, and its sizes wrap.
pub const MAX_SEGMENT: u64 = 1 << 40;

/// What an offset of this machine can reach.
pub(super) const ADDRESSABLE: u64 = isize::MAX as u64;

/// Bytes of a sequence word.
const WORD: u64 = 8;

/// Fixed byte offsets: of the words of a slot in it, and of those of [`Meta`] in
/// the segment.
pub mod offset {
    use super::{Meta, offset_of};

    /// `u64`, in a slot; the other sequence word is at
    /// [`Layout::seq_end_offset`](super::Layout::seq_end_offset)
    pub const SEQ_BEGIN: usize = 0;
    /// one byte per field, in a slot
    pub const STATUS: usize = 8;
    /// `u64`, in the segment of a FIFO
    pub const WRITE_IDX: usize = offset_of!(Meta, write_idx);
    /// `u64`, in the segment of a FIFO
    pub const READ_IDX: usize = offset_of!(Meta, read_idx);
    /// `u64`, in the segment of a FIFO
    pub const COUNT: usize = offset_of!(Meta, count);
}

/// What stands in front of the slots of a FIFO (section 2). A segment of one
/// slot has none.
///
/// ```
/// use polyshm_wire::slots::Meta;
///
/// let meta = Meta { write_idx: 5.into(), read_idx: 3.into(), count: 2.into() };
/// assert_eq!(Meta::read(&meta.to_bytes())?, meta);
/// # Ok::<(), polyshm_wire::slots::ImageError>(())
/// ```
#[repr(C)]
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
pub struct Meta {
    /// items ever committed; the next one goes into slot `write_idx % slots`
    pub write_idx: U64,
    /// the next item to read, counted in the same way
    pub read_idx: U64,
    /// items not read yet; kept apart from the indices, and they may disagree
    pub count: U64,
}

const _: () = {
    assert!(size_of::<Meta>() == META_SIZE);
    assert!(offset::WRITE_IDX == 0);
    assert!(offset::READ_IDX == 8);
    assert!(offset::COUNT == 16);
};

impl Meta {
    /// Copies the indices from the front of an image. The only refusal is
    /// [`ImageError::TooShort`].
    pub fn read(image: &[u8]) -> Result<Self, ImageError> {
        prefix(image)
    }

    /// The bytes as they stand in the segment.
    pub fn to_bytes(&self) -> [u8; META_SIZE] {
        zerocopy::transmute!(*self)
    }
}

pub(super) fn prefix<T: FromBytes + KnownLayout + Immutable>(
    bytes: &[u8],
) -> Result<T, ImageError> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| ImageError::TooShort {
            len: bytes.len() as u64,
            need: size_of::<T>() as u64,
        })
}

/// Where a field's bytes stand in a slot. There is no alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldPlace {
    /// from the slot's start
    pub offset: usize,
    /// in bytes, may be 0
    pub size: usize,
}

/// The places of a segment of some schema and number of slots (section 2).
///
/// A plain segment tells neither, so both sides must agree. Once a layout
/// exists, no offset that it gives can overflow, and all lie within
/// [`segment_size`](Self::segment_size).
///
/// ```
/// use polyshm_wire::slots::{FieldPlace, Layout, Schema};
///
/// let schema: Schema = "a: float, b: int, c: bool, d: float".parse()?;
/// let layout = Layout::new(&schema, 1)?;
/// assert_eq!((layout.slot_size(), layout.segment_size()), (48, 48));
/// assert_eq!(layout.fields()[3], FieldPlace { offset: 29, size: 8 });
/// assert_eq!((layout.first_field(), layout.seq_end_offset()), (16, 40));
///
/// let fifo = Layout::new(&schema, 10)?;
/// assert_eq!((fifo.slot_offset(2), fifo.segment_size()), (24 + 2 * 48, 24 + 10 * 48));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    schema: Schema,
    /// at least 1
    slots: u64,
    /// as many as the schema has fields, each behind the one before
    fields: Vec<FieldPlace>,
    /// a multiple of 8
    slot_size: usize,
    /// at most `MAX_SEGMENT`, and addressable
    segment_size: u64,
}

impl Layout {
    /// For `slots` slots: 1 for the latest value, more for a FIFO.
    pub fn new(schema: &Schema, slots: u64) -> Result<Self, LayoutError> {
        if slots == 0 {
            return Err(LayoutError::NoSlots);
        }
        let limit = MAX_SEGMENT.min(ADDRESSABLE);
        let mut fields = Vec::with_capacity(schema.len());
        let mut end = first_field(schema.len()) as u64;
        for field in schema.fields() {
            // The schema has only types with a size, none above the limit.
            let size = field.ty.measure().unwrap_or(MAX_SEGMENT);
            fields.push(FieldPlace {
                offset: end as usize,
                size: size as usize,
            });
            end += size;
            if end > limit {
                return Err(LayoutError::SlotTooLarge { limit });
            }
        }
        let slot_size = (end + WORD).next_multiple_of(WORD);
        if slot_size > limit {
            return Err(LayoutError::SlotTooLarge { limit });
        }
        let meta = if slots == 1 { 0 } else { META_SIZE as u64 };
        let segment_size = slots
            .checked_mul(slot_size)
            .and_then(|size| size.checked_add(meta))
            .filter(|size| *size <= limit)
            .ok_or(LayoutError::TooLarge {
                slots,
                slot_size,
                limit,
            })?;
        Ok(Self {
            schema: schema.clone(),
            slots,
            fields,
            slot_size: slot_size as usize,
            segment_size,
        })
    }

    /// The schema that it was made for.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many slots there are.
    pub const fn slots(&self) -> u64 {
        self.slots
    }

    /// Whether the slots are a FIFO, which has a [`Meta`].
    pub const fn is_fifo(&self) -> bool {
        self.slots > 1
    }

    /// Bytes before the first slot.
    pub const fn meta_size(&self) -> usize {
        if self.is_fifo() { META_SIZE } else { 0 }
    }

    /// Bytes of a slot.
    pub const fn slot_size(&self) -> usize {
        self.slot_size
    }

    /// Where a slot begins in the segment.
    ///
    /// # Panics
    ///
    /// When there is no such slot, as a slice does.
    pub const fn slot_offset(&self, slot: u64) -> usize {
        assert!(slot < self.slots, "no such slot");
        self.meta_size() + slot as usize * self.slot_size
    }

    /// Where the fields stand in a slot, in the schema's order.
    pub fn fields(&self) -> &[FieldPlace] {
        &self.fields
    }

    /// Where the status bytes stand in a slot, one per field.
    pub const fn status_offset(&self) -> usize {
        offset::STATUS
    }

    /// Where the first field stands in a slot, behind the status bytes and their
    /// padding.
    pub fn first_field(&self) -> usize {
        first_field(self.schema.len())
    }

    /// Where the last field ends in a slot.
    pub fn fields_end(&self) -> usize {
        self.fields
            .last()
            .map_or(self.first_field(), |place| place.offset + place.size)
    }

    /// Where the second sequence word stands in a slot: in its last eight bytes.
    pub const fn seq_end_offset(&self) -> usize {
        self.slot_size - WORD as usize
    }

    /// Bytes of the whole segment.
    pub const fn segment_size(&self) -> u64 {
        self.segment_size
    }

    /// Whether an object of `object_len` bytes has room for the segment. A longer
    /// one is fine: some systems round it up, and native peers add a trailer.
    pub const fn check_len(&self, object_len: u64) -> Result<(), ImageError> {
        let need = self.segment_size;
        if object_len < need {
            return Err(ImageError::TooShort {
                len: object_len,
                need,
            });
        }
        Ok(())
    }

    /// A slot as a creator leaves it (section 2.3): every field
    /// [`FRESH`](Status::FRESH), all else 0.
    pub fn blank_slot(&self) -> Vec<u8> {
        let mut slot = vec![0; self.slot_size];
        slot[offset::STATUS..][..self.schema.len()].fill(Status::FRESH.bits());
        slot
    }
}

fn first_field(fields: usize) -> usize {
    (offset::STATUS + fields).next_multiple_of(WORD as usize)
}
