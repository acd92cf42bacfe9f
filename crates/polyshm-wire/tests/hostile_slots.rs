//! Segments, schemas and footers that a hostile or broken peer could leave:
//! every answer must be an error, or a value that stays inside what was given.

#![allow(missing_docs)]

#[path = "common/slots.rs"]
#[allow(dead_code)] // what only the vectors need
mod common;

use std::collections::BTreeSet;

use common::images;
use polyshm_wire::slots::{
    ArrayValue, CURSORS, ChangesHead, CursorLine, Description, Dtype, FOOTER_SIZE,
    FieldDescription, FieldSpec, FieldType, Footer, ImageError, Layout, LayoutError, MAX_NAME_LEN,
    MAX_SEGMENT, Meta, NativeLayout, ReaderLine, Schema, SchemaError, SlotDescription, Value,
    ValueError, WriterLine, decode_value, describe, describe_native, encode_value, offset,
    push_text_lossy, read_schema, text_prefix,
};
use proptest::{collection::vec, prelude::*};

/// Values that break careless arithmetic.
const EVIL: [u64; 20] = [
    0,
    1,
    2,
    3,
    7,
    8,
    63,
    64,
    65,
    4096,
    65_535,
    65_536,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 40) + 1,
    1 << 62,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Every image that differs from the others of its case.
fn corpus() -> Vec<(Layout, Vec<u8>)> {
    let mut seen = BTreeSet::new();
    images()
        .into_iter()
        .filter(|(layout, image)| seen.insert((layout.schema().to_string(), image.clone())))
        .collect()
}

// Segments.

fn check_slot(slot: &SlotDescription, layout: &Layout) {
    let Some(fields) = &slot.fields else {
        assert_ne!(slot.seq_begin, slot.seq_end);
        return;
    };
    assert_eq!(slot.seq_begin, slot.seq_end);
    assert_eq!(fields.len(), layout.schema().len());
    for (field, spec) in fields.iter().zip(layout.schema().fields()) {
        assert_eq!(field.name, spec.name);
        check_value(field, &spec.ty);
    }
}

fn check_value(field: &FieldDescription, ty: &FieldType) {
    match (&field.value, ty) {
        (Value::Float(_), FieldType::Float) | (Value::Bool(_), FieldType::Bool) => {}
        (Value::Int(value), FieldType::Int) => assert!(i32::try_from(*value).is_ok()),
        (Value::Text(text), FieldType::Text { max_chars }) => {
            assert!(text.len() as u64 <= 4 * u64::from(*max_chars));
            return;
        }
        (Value::Array(array), FieldType::Array { dtype, shape }) => {
            assert_eq!((array.dtype(), array.shape()), (*dtype, &shape[..]));
            assert_eq!(ty.size(), Ok(array.bytes().len() as u64));
        }
        (value, ty) => panic!("{value:?} in {ty}"),
    }
    assert!(!field.damaged);
}

/// Heap bytes of a description.
fn held(seen: &Description) -> usize {
    let slot = |slot: &SlotDescription| {
        let fields = slot.fields.iter().flatten();
        let fields = fields.map(|field| {
            let value = match &field.value {
                Value::Text(text) => text.capacity(),
                Value::Array(array) => array.bytes().len() + size_of_val(array.shape()),
                _ => 0,
            };
            size_of::<FieldDescription>() + field.name.capacity() + value
        });
        size_of::<SlotDescription>() + fields.sum::<usize>()
    };
    let native = seen.native.as_ref().map_or(0, |native| {
        let counters = native.changes.iter();
        let buffers = native.buffers.iter();
        let counters = counters.chain(buffers.clone().map(|buffer| &buffer.changes));
        let counters = counters.map(|changes| 8 * changes.fields.capacity());
        counters.sum::<usize>() + buffers.map(|buffer| slot(&buffer.slot)).sum::<usize>()
    });
    seen.slots.iter().map(slot).sum::<usize>() + native
}

/// The worst is a status byte alone, of an array without elements: it takes its
/// description, the longest name and a shape of 64 dimensions.
const HELD_PER_BYTE: usize = size_of::<FieldDescription>() + MAX_NAME_LEN + 64 * 8;

fn look(image: &[u8], layout: &Layout) -> Description {
    let seen = describe(image, layout).unwrap();
    assert_eq!(seen.slots.len() as u64, layout.slots());
    assert_eq!(seen.meta.is_some(), layout.is_fifo());
    for slot in &seen.slots {
        check_slot(slot, layout);
    }
    assert!(held(&seen) <= HELD_PER_BYTE * image.len());
    seen
}

#[test]
fn each_byte_changed() {
    let mut inconsistent = 0;
    for (layout, original) in corpus() {
        let mut image = original.clone();
        for at in 0..image.len() {
            // Long runs of elements are all alike.
            if at > 300 && at % 97 != 0 {
                continue;
            }
            for value in [0, 1, 2, 4, 0x7f, 0x80, 0xc3, 0xff, !original[at]] {
                image[at] = value;
                let seen = look(&image, &layout);
                inconsistent += seen
                    .slots
                    .iter()
                    .filter(|slot| slot.fields.is_none())
                    .count();
            }
            image[at] = original[at];
        }
    }
    assert!(inconsistent > 1000, "{inconsistent}");
}

#[test]
fn each_word_changed() {
    for (layout, original) in corpus() {
        let mut image = original.clone();
        for at in (0..image.len().min(800) - 7).step_by(8) {
            for value in EVIL {
                image[at..at + 8].copy_from_slice(&value.to_le_bytes());
                look(&image, &layout);
            }
            image[at..at + 8].copy_from_slice(&original[at..at + 8]);
        }
    }
}

/// Lengths of text in every place, up to four gigabytes: clamped and reported.
#[test]
fn each_text_of_each_length() {
    let mut damaged = 0;
    for (layout, mut image) in corpus() {
        for (index, spec) in layout.schema().fields().iter().enumerate() {
            let FieldType::Text { max_chars } = spec.ty else {
                continue;
            };
            let place = layout.fields()[index];
            for slot in 0..layout.slots() {
                let start = layout.slot_offset(slot);
                let at = start + place.offset;
                let end = start + layout.seq_end_offset();
                image.copy_within(start..start + 8, end);
                for len in [0, 1, 4 * max_chars, 4 * max_chars + 1, 1 << 31, u32::MAX] {
                    image[at..at + 4].copy_from_slice(&len.to_le_bytes());
                    let seen = look(&image, &layout);
                    let fields = seen.slots[slot as usize].fields.as_ref().unwrap();
                    assert_eq!(fields[index].damaged, len > 4 * max_chars);
                    damaged += u32::from(fields[index].damaged);
                }
            }
        }
    }
    assert!(damaged > 100, "{damaged}");
}

#[test]
fn segments_of_another_length() {
    for (layout, image) in corpus() {
        let need = layout.segment_size();
        assert_eq!(need, image.len() as u64);
        for len in (0..image.len()).step_by(1 + image.len() / 64) {
            let error = ImageError::TooShort {
                len: len as u64,
                need,
            };
            assert_eq!(describe(&image[..len], &layout), Err(error));
        }
        let mut longer = image.clone();
        longer.extend([0xff; 100]);
        assert_eq!(
            format!("{:?}", describe(&longer, &layout)),
            format!("{:?}", describe(&image, &layout))
        );
    }
    assert!(Meta::read(&[0; 23]).is_err());
}

// Schemas and layouts.

/// What must hold of every layout there is.
fn check_layout(layout: &Layout) {
    let mut end = layout.status_offset() + layout.schema().len();
    assert!((end..end + 8).contains(&layout.first_field()));
    end = layout.first_field();
    for place in layout.fields() {
        assert_eq!(place.offset, end);
        end += place.size;
    }
    assert_eq!(layout.fields_end(), end);
    assert!((end..end + 8).contains(&layout.seq_end_offset()));
    assert_eq!(layout.seq_end_offset() + 8, layout.slot_size());
    assert!(layout.slot_size().is_multiple_of(8));
    let last = layout.slot_offset(layout.slots() - 1) + layout.slot_size();
    assert_eq!(last as u64, layout.segment_size());
    assert!(layout.segment_size() <= MAX_SEGMENT);
    assert!(layout.check_len(layout.segment_size()).is_ok());
    assert!(layout.check_len(layout.segment_size() - 1).is_err());
}

fn check_native(layout: &Layout, native: &NativeLayout) {
    let segment_size = usize::try_from(layout.segment_size()).unwrap();
    let counters = 16 + 8 * layout.schema().len();
    let mut parts = vec![
        (native.writer_line(), 64),
        (native.reader_line(), 64),
        (native.schema_text(), native.schema_len()),
        (native.footer_offset(), 64),
    ];
    if layout.is_fifo() {
        parts.extend((0..CURSORS).map(|i| (native.cursor(i), 64)));
    } else {
        parts.push((native.changes(), counters));
    }
    for i in 0..3 {
        assert_eq!(native.buffer(i).is_some(), native.is_buffered() && i < 2);
        if let (Some(buffer), Some(changes)) = (native.buffer(i), native.buffer_changes(i)) {
            parts.extend([(buffer, layout.slot_size()), (changes, counters)]);
        }
    }
    parts.sort_unstable();
    assert_eq!(native.trailer_offset(), native.writer_line());
    let mut end = segment_size;
    for (at, len) in parts {
        assert!(at >= end && at.is_multiple_of(64), "{at} after {end}");
        end = at + len;
    }
    assert_eq!(end as u64, native.object_len());
}

fn parse(text: &str) -> Option<Schema> {
    let schema: Schema = match text.parse() {
        Ok(schema) => schema,
        Err(error) => {
            // Every message names something.
            assert!(error.to_string().len() > 20);
            return None;
        }
    };
    let printed = schema.to_string();
    let again: Schema = printed.parse().unwrap();
    assert_eq!(again, schema);
    assert_ne!(schema.hash64(), 0);
    for (index, field) in schema.fields().iter().enumerate() {
        assert_eq!(schema.index_of(&field.name), Some(index));
        assert!(field.ty.size().unwrap() <= MAX_SEGMENT);
        assert_eq!(field.ty.to_string().parse().as_ref(), Ok(&field.ty));
    }
    assert_eq!(schema.index_of("no such field"), None);
    for slots in [1, 2, 1 << 20] {
        let Ok(layout) = Layout::new(&schema, slots) else {
            continue;
        };
        check_layout(&layout);
        for buffered in [false, true] {
            let native = NativeLayout::new(&layout, 4096, buffered).unwrap();
            check_native(&layout, &native);
            assert!(native.object_len().is_multiple_of(4096));
            let footer = native.footer(&layout, 7);
            footer.check(native.object_len()).unwrap();
            assert_eq!(footer.schema_text().0, native.schema_text() as u64);
            assert_eq!(footer.schema_text().1, printed.len() as u64);
            assert_eq!(
                NativeLayout::from_footer(&layout, &footer, native.object_len()),
                Ok(native)
            );
            assert_eq!(
                read_schema(printed.as_bytes(), &footer).as_ref(),
                Ok(&schema)
            );
        }
    }
    Some(schema)
}

const TEXT: &str = "a: float, b1 : int,c:bool\nd: \"str[32]\", e: uint8[480, 640,3], f: float32[0], é: int64[2,2],";

#[test]
fn each_character_of_a_schema_changed() {
    assert_eq!(parse(TEXT).unwrap().len(), 7);
    let (mut accepted, mut refused) = (0, 0);
    let chars: Vec<char> = TEXT.chars().collect();
    for at in 0..chars.len() {
        for with in [
            "",
            ",",
            ":",
            "[",
            "]",
            "'",
            "\n",
            "0",
            "9",
            "999999999",
            "x",
            " ",
            "é",
            "\0",
        ] {
            let mut text: String = chars[..at].iter().collect();
            text.push_str(with);
            text.extend(&chars[at + 1..]);
            match parse(&text) {
                Some(_) => accepted += 1,
                None => refused += 1,
            }
        }
    }
    assert!(accepted > 200 && refused > 200, "{accepted} {refused}");
}

#[test]
fn sizes_at_the_limit() {
    // 2^40 bytes altogether, and one slot more of each.
    let widest = |len: u64| {
        let text = format!("a: uint8[{len}]");
        text.parse::<Schema>()
    };
    let schema = widest(MAX_SEGMENT - 24).unwrap();
    let layout = Layout::new(&schema, 1).unwrap();
    assert_eq!(layout.segment_size(), MAX_SEGMENT);
    check_layout(&layout);
    assert!(NativeLayout::new(&layout, 4096, true).is_ok());
    let limit = MAX_SEGMENT;
    let larger = widest(MAX_SEGMENT - 23).unwrap();
    assert_eq!(
        Layout::new(&larger, 1),
        Err(LayoutError::SlotTooLarge { limit })
    );
    assert!(matches!(
        widest(MAX_SEGMENT + 1),
        Err(SchemaError::Annotation { .. })
    ));
    let both = Schema::from_pairs([("a", "uint8[1099511627776]"), ("b", "uint8[1099511627776]")]);
    assert_eq!(
        Layout::new(&both.unwrap(), 1),
        Err(LayoutError::SlotTooLarge { limit })
    );

    let small: Schema = "a: bool".parse().unwrap();
    assert_eq!(Layout::new(&small, 0), Err(LayoutError::NoSlots));
    for slots in [
        (1 << 35) - 1,
        1 << 35,
        1 << 40,
        1 << 59,
        u64::MAX / 32,
        u64::MAX,
    ] {
        let layout = Layout::new(&small, slots);
        if slots < 1 << 35 {
            check_layout(&layout.unwrap());
        } else {
            let slot_size = 32;
            assert_eq!(
                layout,
                Err(LayoutError::TooLarge {
                    slots,
                    slot_size,
                    limit
                })
            );
        }
    }
    let layout = Layout::new(&small, 1).unwrap();
    for page_size in [0, 1, 32, 63, 65, 4095, u64::MAX] {
        assert_eq!(
            NativeLayout::new(&layout, page_size, false),
            Err(LayoutError::PageSize { found: page_size })
        );
    }
    assert!(NativeLayout::new(&layout, 1 << 63, false).is_err());
    assert!(NativeLayout::new(&layout, 64, false).is_ok());
}

#[test]
fn schemas_refused() {
    let many = |count: u32| {
        let fields = (0..count).map(|at| FieldSpec::new(format!("f{at}"), FieldType::Bool));
        Schema::new(fields)
    };
    assert_eq!(many(65_535).unwrap().len(), 65_535);
    let limit = 65_535;
    assert_eq!(many(65_536), Err(SchemaError::TooManyFields { limit }));
    check_layout(&Layout::new(&many(65_535).unwrap(), 3).unwrap());
    // An iterator without an end is left in time.
    let endless = (0_u32..).map(|at| FieldSpec::new(format!("f{at}"), FieldType::Bool));
    assert_eq!(
        Schema::new(endless),
        Err(SchemaError::TooManyFields { limit })
    );
    for name in ["", "1a", "a b", "a-b", "a.b", "٣", "a\0", "a,b"] {
        let error = Schema::from_pairs([(name, "int")]).unwrap_err();
        assert!(matches!(error, SchemaError::Name { .. }), "{error}");
    }
    let long = "x".repeat(MAX_NAME_LEN + 1);
    assert!(Schema::from_pairs([(&long[1..], "int")]).is_ok());
    assert!(Schema::from_pairs([(&*long, "int")]).is_err());
    for ty in [
        FieldType::Text { max_chars: 0 },
        FieldType::Text { max_chars: 1 << 30 },
        FieldType::Array {
            dtype: Dtype::Int8,
            shape: vec![],
        },
        FieldType::Array {
            dtype: Dtype::Int8,
            shape: vec![1; 65],
        },
        FieldType::Array {
            dtype: Dtype::Float64,
            shape: vec![1 << 38],
        },
        FieldType::Array {
            dtype: Dtype::Uint8,
            shape: vec![usize::MAX, usize::MAX],
        },
    ] {
        assert!(matches!(ty.size(), Err(SchemaError::Type { .. })));
        let error = Schema::new([FieldSpec::new("speed", ty)]).unwrap_err();
        assert!(error.to_string().contains("speed"), "{error}");
    }
    for text in [
        "a",
        "a int",
        "a: int b: int",
        "a: int; b: int",
        "a: str[3",
        ":",
        ": int",
        "a:",
    ] {
        assert_eq!(parse(text), None, "{text}");
    }
    for text in ["", " \n ", ",", "\n,\n"] {
        assert!(parse(text).unwrap().is_empty());
    }
}

// Native objects.

/// A whole object, as its creator leaves it.
fn object(schema: &str, slots: u64, buffered: bool) -> (Layout, NativeLayout, Vec<u8>) {
    let schema: Schema = schema.parse().unwrap();
    let layout = Layout::new(&schema, slots).unwrap();
    let native = NativeLayout::new(&layout, 64, buffered).unwrap();
    let mut image = vec![0; usize::try_from(native.object_len()).unwrap()];
    for slot in 0..slots {
        image[layout.slot_offset(slot)..][..layout.slot_size()]
            .copy_from_slice(&layout.blank_slot());
    }
    image[native.schema_text()..][..native.schema_len()]
        .copy_from_slice(schema.to_string().as_bytes());
    image[native.footer_offset()..].copy_from_slice(&native.footer(&layout, 77).to_bytes());
    (layout, native, image)
}

fn objects() -> Vec<(Layout, NativeLayout, Vec<u8>)> {
    let text = "a: float, s: str[3], c: bool, i: int16[2,2], z: float64[0]";
    vec![
        object(text, 1, false),
        object(text, 1, true),
        object(text, 5, false),
        object("", 1, true),
        object("", 2, false),
    ]
}

/// Describes any object; whether it was accepted.
fn look_native(image: &[u8]) -> bool {
    let Ok(Some((layout, seen))) = describe_native(image) else {
        return false;
    };
    assert!(layout.segment_size() < image.len() as u64);
    check_layout(&layout);
    for slot in &seen.slots {
        check_slot(slot, &layout);
    }
    let native = seen.native.as_ref().unwrap();
    assert_eq!(native.schema_hash, layout.schema().hash64());
    assert_eq!(native.changes.is_some(), !layout.is_fifo());
    for cursor in &native.cursors {
        assert!(cursor.index < CURSORS && cursor.kind != 0);
    }
    for buffer in &native.buffers {
        check_slot(&buffer.slot, &layout);
        assert_eq!(buffer.changes.fields.len(), layout.schema().len());
    }
    assert!(held(&seen) <= HELD_PER_BYTE * image.len());
    true
}

/// Puts a footer's bytes into the object, with the check sum that goes with
/// them.
fn put_footer(image: &mut [u8], bytes: &[u8]) {
    let at = image.len() - FOOTER_SIZE;
    image[at..].copy_from_slice(bytes);
    if let Some(mut footer) = Footer::read(&image[at..]) {
        footer.check.set(footer.check_sum());
        image[at..].copy_from_slice(&footer.to_bytes());
    }
}

#[test]
fn each_byte_of_an_object_changed() {
    for (layout, native, original) in objects() {
        assert!(look_native(&original));
        let footer = native.footer_offset();
        let text = native.schema_text()..native.schema_text() + native.schema_len();
        let mut image = original.clone();
        for at in 0..image.len() {
            for value in [0, 1, b':', b',', b'9', 0x7f, 0x80, 0xff] {
                if value == original[at] {
                    continue;
                }
                image[at] = value;
                let accepted = look_native(&image);
                // Sums guard the footer and the schema. Behind its text, and
                // elsewhere, anything goes.
                if at >= footer {
                    assert!(!accepted, "footer byte {}", at - footer);
                } else if !text.contains(&at) {
                    assert!(accepted, "byte {at}");
                } else if accepted {
                    let read = read_schema(&image[text.clone()], &native.footer(&layout, 77));
                    assert_eq!(read.as_ref(), Ok(layout.schema()));
                }
                image[at] = original[at];
            }
        }
    }
}

/// Every footer that a hostile peer can make with a good check sum.
#[test]
fn each_word_of_the_footer_changed() {
    let (mut accepted, mut refused) = (0, 0);
    for (layout, native, original) in objects() {
        let bytes = native.footer(&layout, 77).to_bytes();
        let segment_size = layout.segment_size();
        let near = [segment_size, native.trailer_offset() as u64];
        let near = near.map(|value| [value - 8, value, value + 8, value + 64]);
        let values: Vec<u64> = EVIL.into_iter().chain(near.into_iter().flatten()).collect();
        let mut image = original.clone();
        let places = [
            (8, 4),
            (12, 4),
            (16, 8),
            (24, 8),
            (32, 8),
            (40, 8),
            (52, 4),
            (56, 4),
        ];
        for (first, first_len) in places {
            for (second, second_len) in places {
                for value in &values {
                    for other in &values {
                        let mut footer = bytes;
                        footer[first..first + first_len]
                            .copy_from_slice(&value.to_le_bytes()[..first_len]);
                        footer[second..second + second_len]
                            .copy_from_slice(&other.to_le_bytes()[..second_len]);
                        put_footer(&mut image, &footer);
                        let parsed = Footer::read(&image[native.footer_offset()..]).unwrap();
                        let _ = parsed.schema_text();
                        let _ = NativeLayout::from_footer(&layout, &parsed, native.object_len());
                        if look_native(&image) {
                            accepted += 1;
                        } else {
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 100 && refused > 10_000, "{accepted} {refused}");
}

#[test]
fn objects_of_another_length_or_schema() {
    for (layout, native, image) in objects() {
        let footer = native.footer(&layout, 77);
        let need = native.object_len();
        for len in [0, 63, 64, need - 64] {
            assert!(matches!(
                footer.check(len),
                Err(ImageError::TooShort { len: found, .. }) if found == len
            ));
        }
        footer.check(need + 4096).unwrap();
        for len in (0..image.len()).step_by(8) {
            assert!(!look_native(&image[..len]));
        }
        // A longer object has its footer at its own end.
        let mut longer = image.clone();
        longer.extend([0; 128]);
        assert_eq!(describe_native(&longer), Ok(None));
        let at = longer.len() - FOOTER_SIZE;
        longer[at..].copy_from_slice(&footer.to_bytes());
        assert!(look_native(&longer));
        let other = NativeLayout::from_footer(&layout, &footer, longer.len() as u64).unwrap();
        assert_eq!(other.footer_offset(), at);
        assert_eq!(other.writer_line(), native.writer_line());

        let other: Schema = "other: int".parse().unwrap();
        let text = layout.schema().to_string();
        let error = footer.check_schema(&other, text.as_bytes()).unwrap_err();
        assert_eq!(
            error,
            ImageError::SchemaMismatch {
                wanted: "other: int".to_owned(),
                found: text.clone()
            }
        );
        footer
            .check_schema(layout.schema(), text.as_bytes())
            .unwrap();
        let other = Layout::new(&other, layout.slots()).unwrap();
        assert!(matches!(
            NativeLayout::from_footer(&other, &footer, need),
            Err(ImageError::SchemaHash { .. })
        ));
        let more = Layout::new(layout.schema(), layout.slots() + 1).unwrap();
        assert_eq!(
            NativeLayout::from_footer(&more, &footer, need),
            Err(ImageError::SlotsMismatch {
                wanted: layout.slots() + 1,
                found: layout.slots()
            })
        );
    }
    for read in [
        WriterLine::read(&[0; 63]).is_err(),
        ReaderLine::read(&[0; 63]).is_err(),
        CursorLine::read(&[0; 63]).is_err(),
        ChangesHead::read(&[0; 23]).is_err(),
        Footer::read(b"polyshmS").is_none(),
    ] {
        assert!(read);
    }
}

/// The schema's text may be hostile with everything else in order.
#[test]
fn schemas_in_objects() {
    let name = "n".repeat(MAX_NAME_LEN);
    let deep = format!("int8[{}0]", "1,".repeat(63));
    let wide = format!("{name}: {deep}");
    // The most that can be held for each byte.
    for (schema, slots) in [
        (&*wide, 1),
        (&*wide, 5000),
        ("a: bool", 20_000),
        ("", 40_000),
        ("a: str[1], b: float64[0]", 10_000),
    ] {
        let (_, _, image) = object(schema, slots, true);
        assert!(look_native(&image));
    }
    let many: Vec<String> = (0..2000).map(|at| format!("f{at}: {deep}")).collect();
    let (_, _, image) = object(&many.join(","), 20, false);
    assert!(look_native(&image));

    // Texts that are no schema.
    let (layout, native, original) = object("aaaa: int, bbbb: int", 1, false);
    for (text, name) in [
        (&b"aaaa: int, \xff\xfe\xfd\xfc: int"[..], "SchemaText"),
        (b"aaaa: int, aaaa: int", "Schema "),
        (b"aaaa: int, bbbb: str", "Schema "),
        (b"aaaa: int,          ", "SchemaHash"),
        (b"bbbb: int, aaaa: int", "SchemaHash"),
    ] {
        let mut image = original.clone();
        image[native.schema_text()..][..text.len()].copy_from_slice(text);
        let error = describe_native(&image).unwrap_err();
        assert!(format!("{error:?}").starts_with(name), "{error:?}");
    }
    // Another way to write the same is the same.
    let mut image = original.clone();
    image[native.schema_text()..][..20].copy_from_slice(b"aaaa:int\n bbbb: int,");
    assert_eq!(describe_native(&image).unwrap().unwrap().0, layout);
    // A number of fields that is not the text's.
    let mut footer = native.footer(&layout, 0);
    footer.fields.set(1);
    put_footer(&mut image, &footer.to_bytes());
    assert!(matches!(
        describe_native(&image),
        Err(ImageError::SchemaHash { .. })
    ));
}

// Values.

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL.to_vec())
}

fn field_type() -> impl Strategy<Value = FieldType> {
    prop_oneof![
        Just(FieldType::Float),
        Just(FieldType::Int),
        Just(FieldType::Bool),
        (1_u32..9).prop_map(|max_chars| FieldType::Text { max_chars }),
        (dtype(), vec(0_usize..4, 1..4))
            .prop_map(|(dtype, shape)| FieldType::Array { dtype, shape }),
    ]
}

fn array() -> impl Strategy<Value = ArrayValue> {
    let small = vec(prop_oneof![Just(0_u8), Just(1), any::<u8>()], 8 * 27);
    (dtype(), vec(0_usize..4, 0..4), small).prop_map(|(dtype, shape, mut bytes)| {
        bytes.truncate(shape.iter().product::<usize>() * dtype.size());
        ArrayValue::new(dtype, shape, bytes).unwrap()
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_map(Value::Float),
        any::<i64>().prop_map(Value::Int),
        (-3_i64..3).prop_map(Value::Int),
        any::<i32>().prop_map(Value::from),
        any::<bool>().prop_map(Value::Bool),
        ".{0,12}".prop_map(Value::Text),
        array().prop_map(Value::Array),
    ]
}

/// An element of any type, as a number.
fn element(array: &ArrayValue, at: usize) -> Option<f64> {
    fn cast<T: polyshm_wire::slots::Element>(array: &ArrayValue, at: usize) -> Option<T> {
        array.to_vec::<T>().map(|elements| elements[at])
    }
    Some(match array.dtype() {
        Dtype::Float32 => cast::<f32>(array, at)?.into(),
        Dtype::Float64 => cast::<f64>(array, at)?,
        Dtype::Int8 => cast::<i8>(array, at)?.into(),
        Dtype::Int16 => cast::<i16>(array, at)?.into(),
        Dtype::Int32 => cast::<i32>(array, at)?.into(),
        Dtype::Int64 => cast::<i64>(array, at)? as f64,
        Dtype::Uint8 => cast::<u8>(array, at)?.into(),
        Dtype::Uint16 => cast::<u16>(array, at)?.into(),
        Dtype::Uint32 => cast::<u32>(array, at)?.into(),
        Dtype::Uint64 => cast::<u64>(array, at)? as f64,
        Dtype::Bool => u8::from(cast::<bool>(array, at)?).into(),
    })
}

#[expect(clippy::float_cmp, reason = "a conversion is exact or it is not")]
fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan())
}

proptest! {
    #[test]
    fn any_bytes_are_a_value(ty in field_type(), bytes in vec(any::<u8>(), 300)) {
        let size = ty.size().unwrap() as usize;
        let decoded = decode_value(&ty, &bytes[..size]);
        // What was read can be written again, and then says the same.
        let mut again = vec![0; size];
        let encoded = encode_value(&ty, &decoded.value, &mut again).unwrap();
        if !encoded.truncated {
            let twice = decode_value(&ty, &again);
            prop_assert_eq!(format!("{:?}", twice.value), format!("{:?}", decoded.value));
        }
    }

    #[test]
    fn any_value_is_kept_or_refused(ty in field_type(), value in value(), fill in any::<u8>()) {
        let size = ty.size().unwrap() as usize;
        let mut bytes = vec![fill; size];
        let encoded = match encode_value(&ty, &value, &mut bytes) {
            Ok(encoded) => encoded,
            Err(error) => {
                prop_assert!(bytes.iter().all(|byte| *byte == fill), "{}", error);
                prop_assert!(error.to_string().len() > 20);
                return Ok(());
            }
        };
        prop_assert!(bytes[encoded.len..].iter().all(|byte| *byte == fill));
        let decoded = decode_value(&ty, &bytes);
        prop_assert!(!decoded.damaged);
        match (&value, &decoded.value) {
            (Value::Text(text), Value::Text(kept)) => {
                let FieldType::Text { max_chars } = ty else { panic!("{ty}") };
                prop_assert_eq!(text_prefix(text, max_chars), (&**kept, encoded.truncated));
                prop_assert_eq!(kept.chars().count(), text.chars().count().min(max_chars as usize));
            }
            (Value::Array(given), Value::Array(kept)) => {
                prop_assert_eq!(encoded.truncated, given.shape() != kept.shape());
                for at in 0..kept.element_count() {
                    let kept = element(kept, at).unwrap();
                    let given = if at < given.element_count() { element(given, at).unwrap() } else { 0.0 };
                    prop_assert!(same(kept, given), "{} {}", kept, given);
                }
            }
            (value, kept) => {
                let number = |value: &Value| match value {
                    Value::Float(value) => *value,
                    Value::Int(value) => *value as f64,
                    Value::Bool(value) => u8::from(*value).into(),
                    other => panic!("{other:?}"),
                };
                prop_assert!(same(number(value), number(kept)));
                prop_assert!(!encoded.truncated);
            }
        }
    }

    #[test]
    fn any_text_is_an_annotation_or_not(text in "['\" a-z0-9\\[\\],]{0,24}") {
        if let Ok(ty) = FieldType::parse(&text) {
            prop_assert_eq!(FieldType::parse(&ty.to_string()), Ok(ty.clone()));
            prop_assert!(ty.size().is_ok());
        }
    }

    #[test]
    fn any_text_is_a_schema_or_not(text in "([a-z]{1,3}: ?(int|float|str\\[[0-9]{1,3}\\]|u?int8\\[[0-9,]{0,6}\\])[,\n ]{1,2}){0,5}\\PC{0,3}") {
        parse(&text);
    }

    #[test]
    fn any_image_of_any_schema(
        types in vec(field_type(), 0..12),
        slots in 1_u64..4,
        bytes in vec(any::<u8>(), 2000),
        equal in any::<bool>(),
    ) {
        let fields = types.into_iter().enumerate().map(|(at, ty)| FieldSpec::new(format!("f{at}"), ty));
        let layout = Layout::new(&Schema::new(fields).unwrap(), slots).unwrap();
        let size = usize::try_from(layout.segment_size()).unwrap();
        let mut image: Vec<u8> = bytes.into_iter().cycle().take(size).collect();
        if equal {
            for slot in 0..slots {
                let at = layout.slot_offset(slot);
                image.copy_within(at..at + 8, at + layout.seq_end_offset());
            }
        }
        let seen = look(&image, &layout);
        prop_assert!(!equal || seen.slots.iter().all(|slot| slot.fields.is_some()));
        // Nothing of this is a footer.
        prop_assert!(!look_native(&image));
    }

    #[test]
    fn any_footer(bytes in prop::array::uniform32(any::<u8>()), small in vec(0_u64..300, 7)) {
        let (_, _, mut image) = object("a: int", 1, true);
        let mut footer = [0; FOOTER_SIZE];
        footer[32..].copy_from_slice(&bytes);
        footer[..8].copy_from_slice(b"polyshmS");
        footer[8] = 1;
        for (word, value) in footer[12..].chunks_exact_mut(8).zip(small) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        put_footer(&mut image, &footer);
        look_native(&image);
    }

    #[test]
    fn text_of_any_bytes(bytes in vec(prop::sample::select(vec![
        0_u8, b'a', 0x7f, 0x80, 0x90, 0xa0, 0xbf, 0xc0, 0xc2, 0xc3, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff,
    ]), 0..12)) {
        let mut text = String::new();
        push_text_lossy(&mut text, &bytes);
        let replaced = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(text, replaced.replace('\u{fffd}', ""));
    }
}

#[test]
fn values_refused() {
    let refused = |ty: &str, value: Value| {
        let ty = FieldType::parse(ty).unwrap();
        let mut into = vec![0; ty.size().unwrap() as usize];
        encode_value(&ty, &value, &mut into).unwrap_err()
    };
    for (ty, value, found) in [
        ("float", Value::from("1.5"), "text"),
        ("int", Value::from(1.0), "float"),
        ("int", Value::from("1"), "text"),
        ("bool", Value::from(1.0), "float"),
        ("bool", Value::from("False"), "text"),
        ("str[3]", Value::from(1), "int"),
        ("int8[3]", Value::from(1), "int"),
        ("int8[3]", Value::from("abc"), "text"),
        (
            "float",
            ArrayValue::from_elements(vec![], &[1.0]).unwrap().into(),
            "array",
        ),
    ] {
        let error = refused(ty, value);
        let expected = FieldType::parse(ty).unwrap();
        assert_eq!(error, ValueError::WrongType { expected, found });
    }
    for (ty, value) in [
        ("int", 1 << 31),
        ("int", -(1 << 31) - 1),
        ("int", i64::MIN),
        ("bool", 2),
        ("bool", -1),
    ] {
        let error = refused(ty, Value::Int(value));
        assert!(matches!(error, ValueError::OutOfRange { .. }), "{error}");
    }
    for value in [(1 << 53) + 1, i64::MAX, i64::MIN + 1] {
        assert_eq!(
            refused("float", Value::Int(value)),
            ValueError::Rounded { value }
        );
    }
    for (shape, len) in [
        (vec![2], 1),
        (vec![2], 3),
        (vec![], 0),
        (vec![usize::MAX, 2], 0),
    ] {
        assert_eq!(
            ArrayValue::new(Dtype::Uint8, shape.clone(), vec![0; len]),
            Err(ValueError::Shape {
                dtype: Dtype::Uint8,
                shape,
                len
            })
        );
    }
    assert!(ArrayValue::new(Dtype::Uint8, vec![usize::MAX, 2, 0], vec![]).is_ok());
    assert_eq!(offset::STATUS, 8);
}
