//! A whole image taken apart (sections 2 and 8).

use alloc::{string::String, vec::Vec};

use super::{
    CURSORS, ChangesHead, CursorLine, FOOTER_SIZE, Footer, ImageError, Layout, Meta, NativeLayout,
    ReaderLine, Status, Value, WriterLine, decode_value, offset, read_schema,
};

/// Everything in an image, as plain values.
///
/// Indices and marks are given as found: nothing here says that they agree, or
/// that somebody lives.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Description {
    /// the indices of a FIFO
    pub meta: Option<MetaDescription>,
    /// every slot, in the order of the segment
    pub slots: Vec<SlotDescription>,
    /// the trailer, out of [`describe_native`] only
    pub native: Option<NativeDescription>,
}

/// The indices of a FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MetaDescription {
    /// items ever committed
    pub write_idx: u64,
    /// the next item to read
    pub read_idx: u64,
    /// items not read yet
    pub count: u64,
}

/// A slot, or a buffer of one.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlotDescription {
    /// as found
    pub seq_begin: u64,
    /// as found
    pub seq_end: u64,
    /// every field; `None` while both sequence words differ, because a write is
    /// under way or was never finished
    pub fields: Option<Vec<FieldDescription>>,
}

/// A field of a slot.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FieldDescription {
    /// out of the schema
    pub name: String,
    /// as found
    pub status: Status,
    /// also of a field that was never written
    pub value: Value,
    /// whether a text's length was beyond its field
    pub damaged: bool,
}

/// The trailer of a native object (section 8).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct NativeDescription {
    /// process mark of the creator
    pub owner_mark: u32,
    /// of the schema
    pub schema_hash: u64,
    /// see [`WriterLine`]
    pub writer: WriterDescription,
    /// see [`ReaderLine`]
    pub reader: ReaderDescription,
    /// of a FIFO, those that are not free
    pub cursors: Vec<CursorDescription>,
    /// of a single slot
    pub changes: Option<ChangesDescription>,
    /// two or none
    pub buffers: Vec<BufferDescription>,
}

/// See [`WriterLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct WriterDescription {
    pub lock: u64,
    pub written: u64,
    pub overwritten: u64,
    pub handles: u64,
    /// the fields that the latest native write lists, modulo 64
    pub listed: u64,
    /// another writer waits for the lock
    pub waiting: bool,
    /// one after the item whose slot was touched last
    pub writing: u64,
}

/// See [`ReaderLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[allow(missing_docs)]
pub struct ReaderDescription {
    pub wake: u32,
    pub sleepers: u32,
    pub demand: u32,
    pub room_wake: u32,
    pub room_sleepers: u32,
}

/// See [`CursorLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CursorDescription {
    /// which one
    pub index: usize,
    /// the next item that it reads
    pub position: u64,
    /// its process mark
    pub mark: u32,
    /// what kind of reader it is, not 0
    pub kind: u32,
}

/// See [`ChangesHead`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ChangesDescription {
    /// the number of the write up to which the counters count
    pub counted: u64,
    /// writes that are in no field's own counter
    pub full: u64,
    /// the number of the last write that is not counted
    pub foreign: u64,
    /// one counter for each field
    pub fields: Vec<u64>,
}

/// One of the two buffers of a single slot.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BufferDescription {
    /// what it holds
    pub slot: SlotDescription,
    /// its own counters
    pub changes: ChangesDescription,
}

/// Checks an image that nobody is changing and copies everything out of it.
///
/// The only refusal is an image shorter than the layout; bytes behind it are
/// ignored. Every field has a value, whatever its bytes are.
///
/// ```
/// use polyshm_wire::slots::{Layout, Schema, Value, describe};
///
/// let schema: Schema = "a: float, b: int".parse()?;
/// let layout = Layout::new(&schema, 1)?;
/// let mut image = layout.blank_slot();
/// let seen = describe(&image, &layout)?;
/// let fields = seen.slots[0].fields.as_ref().unwrap();
/// assert!(fields[1].status.is_unwritten());
///
/// // As a writer leaves it.
/// let place = layout.fields()[1];
/// image[place.offset..][..place.size].copy_from_slice(&(-7_i32).to_le_bytes());
/// image[layout.status_offset() + 1] = fields[1].status.written(false).bits();
/// (image[0], image[layout.seq_end_offset()]) = (1, 1);
/// let seen = describe(&image, &layout)?;
/// let fields = seen.slots[0].fields.as_ref().unwrap();
/// assert_eq!((&fields[1].value, fields[1].status.is_valid()), (&Value::Int(-7), true));
///
/// // And as one that died before its last store.
/// image[layout.seq_end_offset()] = 0;
/// assert_eq!(describe(&image, &layout)?.slots[0].fields, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe(image: &[u8], layout: &Layout) -> Result<Description, ImageError> {
    layout.check_len(image.len() as u64)?;
    let meta = if layout.is_fifo() {
        let meta = Meta::read(image)?;
        Some(MetaDescription {
            write_idx: meta.write_idx.get(),
            read_idx: meta.read_idx.get(),
            count: meta.count.get(),
        })
    } else {
        None
    };
    let slots = (0..layout.slots())
        .map(|slot| describe_slot(&image[layout.slot_offset(slot)..], layout))
        .collect();
    Ok(Description {
        meta,
        slots,
        native: None,
    })
}

/// The slot at the front of `bytes`, which must be as long.
fn describe_slot(bytes: &[u8], layout: &Layout) -> SlotDescription {
    let seq_begin = word(bytes, offset::SEQ_BEGIN);
    let seq_end = word(bytes, layout.seq_end_offset());
    let fields = || {
        let status = &bytes[layout.status_offset()..];
        let places = layout.fields().iter().zip(status);
        let fields = layout.schema().fields().iter().zip(places);
        fields
            .map(|(field, (place, status))| {
                let decoded = decode_value(&field.ty, &bytes[place.offset..][..place.size]);
                FieldDescription {
                    name: field.name.clone(),
                    status: Status::from_bits(*status),
                    value: decoded.value,
                    damaged: decoded.damaged,
                }
            })
            .collect()
    };
    SlotDescription {
        seq_begin,
        seq_end,
        fields: (seq_begin == seq_end).then(fields),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..][..8]);
    u64::from_le_bytes(word)
}

/// As [`describe`], of a whole object that a native peer made: the schema and
/// the number of slots are taken from its trailer. `None` when there is no
/// footer, so that this is a plain segment, or no segment at all.
///
/// ```
/// use polyshm_wire::slots::{Layout, NativeLayout, Schema, describe_native};
///
/// let schema: Schema = "a: float, b: int".parse()?;
/// let layout = Layout::new(&schema, 1)?;
/// let native = NativeLayout::new(&layout, 4096, false)?;
/// let mut image = vec![0; 4096];
/// image[..layout.slot_size()].copy_from_slice(&layout.blank_slot());
/// assert_eq!(describe_native(&image)?, None);
///
/// image[native.schema_text()..][..native.schema_len()]
///     .copy_from_slice(schema.to_string().as_bytes());
/// image[native.footer_offset()..].copy_from_slice(&native.footer(&layout, 9).to_bytes());
/// let (found, seen) = describe_native(&image)?.unwrap();
/// assert_eq!(found, layout);
/// assert_eq!(seen.native.unwrap().owner_mark, 9);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe_native(image: &[u8]) -> Result<Option<(Layout, Description)>, ImageError> {
    let Some(footer) = image
        .len()
        .checked_sub(FOOTER_SIZE)
        .and_then(|at| Footer::read(&image[at..]))
    else {
        return Ok(None);
    };
    let object_len = image.len() as u64;
    footer.check(object_len)?;
    let (text, _) = footer.schema_text();
    // Checked to be inside, so it fits an index.
    let schema = read_schema(&image[text as usize..], &footer)?;
    let layout =
        Layout::new(&schema, footer.slots.get()).map_err(|source| ImageError::Layout { source })?;
    let native = NativeLayout::from_footer(&layout, &footer, object_len)?;
    let mut description = describe(image, &layout)?;
    description.native = Some(describe_trailer(image, &layout, &native, &footer)?);
    Ok(Some((layout, description)))
}

/// The image must be as long as the native layout says.
fn describe_trailer(
    image: &[u8],
    layout: &Layout,
    native: &NativeLayout,
    footer: &Footer,
) -> Result<NativeDescription, ImageError> {
    let writer = WriterLine::read(&image[native.writer_line()..])?;
    let reader = ReaderLine::read(&image[native.reader_line()..])?;
    let mut cursors = Vec::new();
    if layout.is_fifo() {
        for index in 0..CURSORS {
            let line = CursorLine::read(&image[native.cursor(index)..])?;
            if line.kind.get() != 0 {
                cursors.push(CursorDescription {
                    index,
                    position: line.position.get(),
                    mark: line.mark.get(),
                    kind: line.kind.get(),
                });
            }
        }
    }
    let changes = |at: usize| {
        let head = ChangesHead::read(&image[at..])?;
        let counters = &image[at + size_of::<ChangesHead>()..];
        Ok(ChangesDescription {
            counted: head.counted.get(),
            full: head.full.get(),
            foreign: head.foreign.get(),
            fields: (0..layout.schema().len())
                .map(|field| word(counters, field * 8))
                .collect(),
        })
    };
    let mut buffers = Vec::new();
    for i in 0..2 {
        if let (Some(at), Some(its_changes)) = (native.buffer(i), native.buffer_changes(i)) {
            buffers.push(BufferDescription {
                slot: describe_slot(&image[at..], layout),
                changes: changes(its_changes)?,
            });
        }
    }
    Ok(NativeDescription {
        owner_mark: footer.owner_mark.get(),
        schema_hash: footer.schema_hash.get(),
        writer: WriterDescription {
            lock: writer.lock.get(),
            written: writer.written.get(),
            overwritten: writer.overwritten.get(),
            handles: writer.handles.get(),
            listed: writer.listed.get(),
            waiting: writer.waiting.get() != 0,
            writing: writer.writing.get(),
        },
        reader: ReaderDescription {
            wake: reader.wake.get(),
            sleepers: reader.sleepers.get(),
            demand: reader.demand.get(),
            room_wake: reader.room_wake.get(),
            room_sleepers: reader.room_sleepers.get(),
        },
        cursors,
        changes: if layout.is_fifo() {
            None
        } else {
            Some(changes(native.changes())?)
        },
        buffers,
    })
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString as _, vec};

    use super::*;

    fn object(slots: u64) -> (Layout, NativeLayout, Vec<u8>) {
        let schema = "a: bool, b: bool, c: int".parse().unwrap();
        let layout = Layout::new(&schema, slots).unwrap();
        let native = NativeLayout::new(&layout, 64, true).unwrap();
        let mut image = vec![0; native.object_len() as usize];
        image[native.schema_text()..][..native.schema_len()]
            .copy_from_slice(schema.to_string().as_bytes());
        let footer = native.footer(&layout, 1234);
        image[native.footer_offset()..].copy_from_slice(&footer.to_bytes());
        (layout, native, image)
    }

    fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
        image[at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn put_words(image: &mut [u8], at: usize, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            put(image, at + 8 * i, &word.to_le_bytes());
        }
    }

    fn described(image: &[u8]) -> (Layout, Description, NativeDescription) {
        let (layout, mut seen) = describe_native(image).unwrap().unwrap();
        let native = seen.native.take().unwrap();
        (layout, seen, native)
    }

    #[test]
    fn the_trailer_of_a_single_slot() {
        let (layout, native, mut image) = object(1);
        put_words(&mut image, native.writer_line(), &[1, 2, 3, 4, 5, 1, 7]);
        let reader = ReaderLine {
            wake: 5.into(),
            sleepers: 6.into(),
            demand: 7.into(),
            room_wake: 8.into(),
            room_sleepers: 9.into(),
            padding: [0; 44],
        };
        put(&mut image, native.reader_line(), &reader.to_bytes());
        put_words(&mut image, native.changes(), &[10, 11, 15, 12, 13, 14]);
        for i in 0..2 {
            let (slot, changes) = (native.buffer(i).unwrap(), native.buffer_changes(i).unwrap());
            let number = 20 + i as u64;
            put_words(&mut image, slot, &[number]);
            put_words(&mut image, slot + layout.seq_end_offset(), &[number]);
            put(&mut image, slot + layout.fields()[2].offset, &[42]);
            put_words(&mut image, changes, &[number, 31, 35, 32, 33, 34]);
        }
        let (found, seen, trailer) = described(&image);
        assert_eq!((&found, seen.slots.len()), (&layout, 1));
        assert_eq!(trailer.owner_mark, 1234);
        assert_eq!(trailer.schema_hash, layout.schema().hash64());
        let writer = WriterDescription {
            lock: 1,
            written: 2,
            overwritten: 3,
            handles: 4,
            listed: 5,
            waiting: true,
            writing: 7,
        };
        let reader = ReaderDescription {
            wake: 5,
            sleepers: 6,
            demand: 7,
            room_wake: 8,
            room_sleepers: 9,
        };
        assert_eq!((trailer.writer, trailer.reader), (writer, reader));
        assert_eq!(trailer.cursors, []);
        let changes = |counted, full, foreign, fields: [u64; 3]| ChangesDescription {
            counted,
            full,
            foreign,
            fields: fields.into(),
        };
        assert_eq!(trailer.changes, Some(changes(10, 11, 15, [12, 13, 14])));
        assert_eq!(trailer.buffers.len(), 2);
        for (number, buffer) in (20..).zip(trailer.buffers) {
            assert_eq!(buffer.slot.seq_begin, number);
            assert_eq!(buffer.slot.fields.unwrap()[2].value, Value::Int(42));
            assert_eq!(buffer.changes, changes(number, 31, 35, [32, 33, 34]));
        }
    }

    #[test]
    fn the_trailer_of_a_fifo() {
        let (layout, native, mut image) = object(3);
        put_words(&mut image, 0, &[1, 2, 3]);
        for (index, kind) in [(0, 1), (7, 0), (CURSORS - 1, 2)] {
            let line = CursorLine {
                position: (100 + index as u64).into(),
                mark: 9.into(),
                kind: kind.into(),
                padding: [0; 48],
            };
            put(&mut image, native.cursor(index), &line.to_bytes());
        }
        let (found, seen, trailer) = described(&image);
        assert_eq!((&found, seen.slots.len()), (&layout, 3));
        let meta = MetaDescription {
            write_idx: 1,
            read_idx: 2,
            count: 3,
        };
        assert_eq!(seen.meta, Some(meta));
        // The one in between is free.
        let cursor = |index, position, kind| CursorDescription {
            index,
            position,
            mark: 9,
            kind,
        };
        assert_eq!(trailer.cursors, [cursor(0, 100, 1), cursor(31, 131, 2)]);
        assert_eq!((trailer.changes, trailer.buffers.len()), (None, 0));
    }
}
