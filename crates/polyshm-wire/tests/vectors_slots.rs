//! The segments that the reference left behind: every one is read down to each
//! field, and written again by the same steps.

#![allow(missing_docs)]

#[path = "common/slots.rs"]
#[allow(dead_code)] // what only the hostile ones need
mod common;

use std::{collections::BTreeMap, fmt::Write as _, fs};

use common::{CASES, IMAGES, folder, layout, list, load, manifest, text, unhex};
use polyshm_wire::slots::{
    ArrayValue, Description, Dtype, Encoded, FieldType, Layout, META_SIZE, Meta, Schema,
    SlotDescription, Status, Value, describe, describe_native, encode_value, offset,
};
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

fn number(value: &Json, key: &str) -> u64 {
    match &value[key] {
        Json::String(text) => text.parse().expect("decimal digits"),
        found => found.as_u64().unwrap_or_else(|| panic!("{key} in {value}")),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

#[test]
fn the_manifest_covers_the_folder() {
    let manifest = manifest();
    let mut steps = 0;
    let mut named = Vec::new();
    for case in list(&manifest, "cases") {
        for step in list(case, "steps") {
            steps += 1;
            if let Some(file) = step["segment_after"].as_str() {
                assert_eq!(sha256(&load(file)), text(step, "sha256"), "{file}");
                named.push(file.to_owned());
            }
        }
    }
    assert_eq!(list(&manifest, "cases").len(), CASES);
    assert_eq!((named.len(), steps), (IMAGES, 255));
    named.push("manifest.json".to_owned());
    let mut there: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    named.sort();
    there.sort();
    assert_eq!(named, there);
}

// Layouts and annotations.

fn check_field_type(ty: &FieldType, field: &Json) {
    assert_eq!(ty.size(), Ok(number(field, "size")));
    let kind = match ty {
        FieldType::Float | FieldType::Int | FieldType::Bool => "scalar",
        FieldType::Text { max_chars } => {
            assert_eq!(u64::from(*max_chars), number(field, "max_chars"));
            "string"
        }
        FieldType::Array { dtype, shape } => {
            assert_eq!(dtype.name(), text(field, "dtype"));
            assert_eq!(serde_json::to_value(shape).unwrap(), field["shape"]);
            "array"
        }
    };
    assert_eq!(kind, text(field, "kind"));
}

#[test]
fn layouts() {
    let manifest = manifest();
    let entries = list(&manifest, "cases").iter();
    let entries: Vec<_> = entries.chain(list(&manifest, "layout_only")).collect();
    assert_eq!(entries.len(), CASES + 7);
    for entry in entries {
        let layout = layout(entry);
        let expected = &entry["layout"];
        let size = |key| usize::try_from(number(expected, key)).unwrap();
        assert_eq!(layout.slot_size(), size("slot_size"));
        assert_eq!(offset::SEQ_BEGIN, size("seq_begin_offset_in_slot"));
        assert_eq!(layout.seq_end_offset(), size("seq_end_offset_in_slot"));
        assert_eq!(layout.meta_size(), size("metadata_size"));
        assert_eq!(layout.segment_size(), number(expected, "segment_size"));
        let offsets: Vec<_> = (0..layout.slots())
            .map(|slot| layout.slot_offset(slot))
            .collect();
        assert_eq!(
            serde_json::to_value(offsets).unwrap(),
            expected["slot_offsets"]
        );
        let fields = list(expected, "fields");
        assert_eq!(layout.fields().len(), fields.len());
        let mut end = layout.first_field();
        for (at, (place, field)) in layout.fields().iter().zip(fields).enumerate() {
            let size = |key| usize::try_from(number(field, key)).unwrap();
            let spec = &layout.schema().fields()[at];
            assert_eq!(spec.name, text(field, "name"));
            assert_eq!(layout.status_offset() + at, size("status_offset_in_slot"));
            assert_eq!((place.offset, place.size), (end, size("size")));
            assert_eq!(place.offset, size("offset_in_slot"));
            check_field_type(&spec.ty, field);
            end += place.size;
        }
        assert_eq!(layout.fields_end(), end);
        // Printed, the schema is another way to write the same.
        let printed = layout.schema().to_string();
        assert_eq!(printed.parse::<Schema>().as_ref(), Ok(layout.schema()));
    }
}

/// What the reference refuses and is accepted here, with what it means, and the
/// other way round.
const TOLERATED: [(&str, &str); 6] = [
    ("str[ 3]", "str[3]"),
    (" str[3]", "str[3]"),
    ("float32[3, 4]", "float32[3,4]"),
    ("float", "float"),
    ("int", "int"),
    ("bool", "bool"),
];
/// Digits of other scripts.
const NOT_IMITATED: [&str; 1] = ["str[\u{663}]"];

#[test]
fn annotations() {
    let manifest = manifest();
    let entries = list(&manifest, "annotations");
    assert_eq!(entries.len(), 37);
    let (mut tolerated, mut not_imitated) = (Vec::new(), Vec::new());
    for entry in entries {
        let annotation = text(entry, "annotation");
        let parsed = FieldType::parse(annotation);
        match (&parsed, entry["accepted"].as_bool().unwrap()) {
            (Ok(ty), true) => {
                check_field_type(ty, &entry["field"]);
                let schema = Schema::from_pairs([("f", annotation)]).unwrap();
                let slot_size = Layout::new(&schema, 1).unwrap().slot_size();
                assert_eq!(slot_size as u64, number(entry, "slot_size"));
                assert_eq!(FieldType::parse(&ty.to_string()).as_ref(), Ok(ty));
            }
            (Ok(ty), false) => tolerated.push((annotation, ty.to_string())),
            (Err(error), accepted) => {
                assert!(error.to_string().contains(&format!("{annotation:?}")));
                if accepted {
                    not_imitated.push(annotation);
                }
            }
        }
    }
    let expected = TOLERATED.map(|(annotation, ty)| (annotation, ty.to_owned()));
    assert_eq!(tolerated, expected);
    assert_eq!(not_imitated, NOT_IMITATED);
}

/// The rows of section 3.1 that the manifest lacks.
#[test]
fn more_annotations() {
    for (annotation, ty) in [
        ("float32[03]", "float32[3]"),
        ("bool[2,2]", "bool[2,2]"),
        ("str[3 ]", "str[3]"),
        // Quoted twice by `from __future__ import annotations`.
        ("'str[4]'", "str[4]"),
        ("\"'str[4]'\"", "str[4]"),
        ("\" ' float ' \"", "float"),
        ("\tuint8[ 480 ,640,\n3 ] # RGB", "uint8[480,640,3]"),
        ("str[3]]", "str[3]"),
        ("float032[2]", "float64[2]"),
        ("uint0[1]", "float64[1]"),
    ] {
        let parsed = FieldType::parse(annotation).unwrap();
        assert_eq!(parsed.to_string(), ty, "{annotation:?}");
    }
    for annotation in [
        "",
        " ",
        "bytes",
        "str[]",
        "str[",
        "str[3",
        "str[3,4]",
        "str [3]",
        "str[4294967296]",
        "str[1073741824]",
        "str[99999999999999999999999999]",
        "'''str[3]'''",
        "'str[3]",
        "float32",
        "float32 [3]",
        "float32[3 4]",
        "float32[-1]",
        "float32[+1]",
        "float32[1.5]",
        "float32[3",
        "Float32[3]",
        "uint[3]",
        "intx[3]",
        "float junk",
        // The reference's product wraps.
        "uint8[4294967296,4294967296]",
        "uint8[4294967296,4294967296,0]",
        "uint8[0,4294967296,4294967296]",
        "uint8[18446744073709551616]",
        "float64[137438953473]",
        "Optional[float]",
        "Any",
        "np.float64",
        "np.ndarray",
        "list[int]",
    ] {
        let error = FieldType::parse(annotation).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("{annotation:?}")), "{message}");
    }
    assert!(FieldType::parse(&format!("int8[{}1]", "1,".repeat(63))).is_ok());
    assert!(FieldType::parse(&format!("int8[{}1]", "1,".repeat(64))).is_err());
}

// Reading.

/// Whether a value is the one that the manifest writes down. A text with a
/// damaged length was followed by the reference through what lies behind.
fn check_value(value: &Value, expected: &Json, room: Option<usize>) {
    match (text(expected, "kind"), value) {
        ("float", Value::Float(value)) => {
            assert_eq!(format!("{:#018x}", value.to_bits()), expected["bits"]);
        }
        ("int", Value::Int(value)) => {
            assert_eq!(expected["value"].as_i64(), Some(*value));
        }
        ("bool", Value::Bool(value)) => assert_eq!(expected["value"], *value),
        ("str", Value::Text(value)) => {
            let bytes = unhex(text(expected, "utf8_hex"));
            let end = room.unwrap_or(bytes.len());
            assert_eq!(value.as_bytes(), &bytes[..end]);
        }
        ("array", Value::Array(array)) => {
            assert_eq!(array.dtype().name(), expected["dtype"]);
            assert_eq!(
                serde_json::to_value(array.shape()).unwrap(),
                expected["shape"]
            );
            if let Some(hex) = expected["c_order_le_hex"].as_str() {
                assert_eq!(array.bytes(), unhex(hex));
            } else {
                assert_eq!(sha256(array.bytes()), expected["sha256"]);
            }
        }
        (kind, value) => panic!("{value:?} for {kind}"),
    }
}

/// Compares a slot with a record of the manifest; how many lengths are damaged.
fn check_record(slot: &SlotDescription, layout: &Layout, expected: &Json) -> usize {
    let Some(fields) = &slot.fields else {
        assert_ne!(slot.seq_begin, slot.seq_end);
        assert!(expected.is_null(), "{expected}");
        return 0;
    };
    assert_eq!(slot.seq_begin, slot.seq_end);
    let expected = expected.as_object().unwrap();
    assert_eq!(fields.len(), expected.len());
    for (field, spec) in fields.iter().zip(layout.schema().fields()) {
        assert_eq!(field.name, spec.name);
        let expected = &expected[&field.name];
        let status = field.status;
        assert_eq!(u64::from(status.bits()), number(expected, "status_byte"));
        for (key, flag) in [
            ("valid", status.is_valid()),
            ("modified", status.is_modified()),
            ("truncated", status.is_truncated()),
            ("unwritten", status.is_unwritten()),
        ] {
            assert_eq!(expected[key], flag);
        }
        let room = spec.ty.size().unwrap() as usize;
        let room = field.damaged.then(|| room - 4);
        check_value(&field.value, &expected["value"], room);
    }
    fields.iter().filter(|field| field.damaged).count()
}

/// Compares everything; how many lengths are damaged.
fn check_image(seen: &Description, layout: &Layout, step: &Json) -> usize {
    let state = &step["state_after"];
    match &seen.meta {
        Some(meta) => {
            let fifo = &state["fifo"];
            assert_eq!(meta.write_idx, number(fifo, "write_idx"));
            assert_eq!(meta.read_idx, number(fifo, "read_idx"));
            assert_eq!(meta.count, number(fifo, "count"));
        }
        None => assert!(state["fifo"].is_null()),
    }
    let decoded = list(step, "slots_decoded");
    assert_eq!(seen.slots.len(), decoded.len());
    let mut damaged = 0;
    for (at, (slot, expected)) in seen.slots.iter().zip(decoded).enumerate() {
        let word = |value: &Json| match value {
            Json::String(text) => text.parse().unwrap(),
            number => number.as_u64().unwrap(),
        };
        let words = &state["slot_seq"][at];
        assert_eq!(slot.seq_begin, word(&words[0]));
        assert_eq!(slot.seq_end, word(&words[1]));
        damaged += check_record(slot, layout, expected);
    }
    damaged
}

#[test]
fn every_image_is_read() {
    let manifest = manifest();
    let (mut images, mut damaged, mut inconsistent) = (0, 0, 0);
    for case in list(&manifest, "cases") {
        let layout = layout(case);
        for step in list(case, "steps") {
            let Some(file) = step["segment_after"].as_str() else {
                continue;
            };
            let image = load(file);
            let seen = describe(&image, &layout).unwrap();
            damaged += check_image(&seen, &layout, step);
            inconsistent += seen
                .slots
                .iter()
                .filter(|slot| slot.fields.is_none())
                .count();
            for (slot, statuses) in list(&step["state_after"], "slot_status").iter().enumerate() {
                let statuses = statuses.as_array().unwrap();
                let from = layout.slot_offset(slot as u64) + layout.status_offset();
                for (status, byte) in statuses.iter().zip(&image[from..]) {
                    assert_eq!(status.as_u64(), Some(u64::from(*byte)), "{file}");
                }
            }
            assert_eq!(describe_native(&image), Ok(None), "{file}");
            images += 1;
        }
    }
    assert_eq!((images, damaged), (IMAGES, 4));
    // Aborted writes, and one by hand.
    assert!(inconsistent > 5, "{inconsistent}");
}

// Writing.

/// What a Python value is here; `None` when it is nothing.
fn value_of(written: &Json) -> Option<Value> {
    Some(match text(written, "kind") {
        "none" => return None,
        "float" => {
            let bits = text(written, "bits").trim_start_matches("0x");
            Value::Float(f64::from_bits(u64::from_str_radix(bits, 16).unwrap()))
        }
        "int" => Value::Int(written["value"].as_i64().unwrap()),
        "bool" => Value::Bool(written["value"].as_bool().unwrap()),
        "str" => Value::from(text(written, "value")),
        "array" => {
            let dtype = Dtype::from_name(text(written, "dtype")).unwrap();
            let shape = serde_json::from_value(written["shape"].clone()).unwrap();
            let bytes = unhex(text(written, "c_order_le_hex"));
            ArrayValue::new(dtype, shape, bytes).unwrap().into()
        }
        // As numpy takes a list of numbers.
        "list" => {
            let items = list(written, "value");
            let integers: Option<Vec<i64>> = items.iter().map(Json::as_i64).collect();
            let shape = vec![items.len()];
            let array = match integers {
                Some(integers) if !items.is_empty() => ArrayValue::from_elements(shape, &integers),
                _ => {
                    let floats: Vec<f64> =
                        items.iter().map(|item| item.as_f64().unwrap()).collect();
                    ArrayValue::from_elements(shape, &floats)
                }
            };
            array.unwrap().into()
        }
        kind => panic!("{kind}"),
    })
}

/// A segment, the fields that its FIFO would write, and what was done
/// differently on purpose.
struct Replay {
    name: String,
    layout: Layout,
    image: Vec<u8>,
    /// `None` when nothing was staged, not even nothing
    staged: Option<BTreeMap<String, Json>>,
    differences: Vec<String>,
}

impl Replay {
    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.image[at..at + 8].try_into().unwrap())
    }

    fn set_word(&mut self, at: usize, value: u64) {
        self.image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Why a value cannot be written at all.
    fn refusal(&self, field: &str, written: &Json) -> Option<String> {
        let ty = &self.layout.schema().fields()[self.layout.schema().index_of(field)?].ty;
        let Some(value) = value_of(written) else {
            return Some("nothing is no value".to_owned());
        };
        let mut into = vec![0; ty.size().unwrap() as usize];
        let error = encode_value(ty, &value, &mut into).err()?;
        Some(error.to_string())
    }

    fn create(&mut self) {
        let mut image = vec![0; self.layout.meta_size()];
        for _ in 0..self.layout.slots() {
            image.extend(self.layout.blank_slot());
        }
        self.image = image;
    }

    /// Section 5.1. `recorded` is taken where a value is refused here that the
    /// reference bent into something.
    fn write_slot(
        &mut self,
        slot: u64,
        fields: &BTreeMap<String, Json>,
        at: usize,
        recorded: &[u8],
    ) {
        let start = self.layout.slot_offset(slot);
        let before = self.image.clone();
        let sequence = self.word(start + offset::SEQ_BEGIN).wrapping_add(1);
        let mut refused = Vec::new();
        for (index, place) in self.layout.fields().iter().enumerate() {
            let spec = &self.layout.schema().fields()[index];
            let status_at = start + self.layout.status_offset() + index;
            let status = Status::from_bits(self.image[status_at]);
            let range = start + place.offset..start + place.offset + place.size;
            let Some(written) = fields.get(&spec.name) else {
                self.image[status_at] = status.passed_over().bits();
                continue;
            };
            let into = &mut self.image[range.clone()];
            let error = match value_of(written) {
                None => "nothing is no value".to_owned(),
                Some(value) => match encode_value(&spec.ty, &value, into) {
                    Ok(Encoded { len, truncated }) => {
                        assert!(len <= place.size);
                        self.image[status_at] = status.written(truncated).bits();
                        continue;
                    }
                    Err(error) => error.to_string(),
                },
            };
            assert_eq!(self.image[range.clone()], before[range.clone()]);
            refused.push(format!("{} {at} {}: {error}", self.name, spec.name));
            self.image[range.clone()].copy_from_slice(&recorded[range]);
            self.image[status_at] = recorded[status_at];
        }
        self.differences.append(&mut refused);
        self.set_word(start + offset::SEQ_BEGIN, sequence);
        self.set_word(start + self.layout.seq_end_offset(), sequence);
    }

    fn finalize(&mut self, at: usize, recorded: &[u8]) {
        let slots = self.layout.slots();
        let Some(fields) = self.staged.take() else {
            return;
        };
        let mut meta = Meta::read(&self.image).unwrap();
        let slot = meta.write_idx.get() % slots;
        self.write_slot(slot, &fields, at, recorded);
        meta.write_idx += 1;
        if meta.count < slots {
            meta.count += 1;
        } else {
            meta.read_idx += 1;
        }
        self.image[..META_SIZE].copy_from_slice(&meta.to_bytes());
    }

    /// Sections 5.3 and 5.5; the record that the reference returned must be that
    /// of the slot.
    fn read(&mut self, step: &Json) {
        let flag = |key: &str| step["args"][key].as_bool() == Some(true);
        let seen = describe(&self.image, &self.layout).unwrap();
        if !self.layout.is_fifo() {
            check_record(&seen.slots[0], &self.layout, &step["returns"]);
            if flag("reset_modified") && seen.slots[0].fields.is_some() {
                for at in 0..self.layout.schema().len() {
                    let byte = &mut self.image[self.layout.status_offset() + at];
                    *byte = Status::from_bits(*byte).passed_over().bits();
                }
            }
            return;
        }
        let mut meta = Meta::read(&self.image).unwrap();
        if meta.count == 0 {
            assert!(step["returns"].is_null());
            return;
        }
        // As Python counts, where an index can be below 0.
        let mut next = i128::from(meta.read_idx.get());
        if flag("latest") && meta.count > 1 {
            next = i128::from(meta.write_idx.get()) - 1;
            meta.count.set(1);
        }
        let slot = next.rem_euclid(self.layout.slots().into()) as usize;
        check_record(&seen.slots[slot], &self.layout, &step["returns"]);
        meta.read_idx.set(u64::try_from(next + 1).unwrap());
        meta.count -= 1;
        self.image[..META_SIZE].copy_from_slice(&meta.to_bytes());
    }

    fn step(&mut self, at: usize, step: &Json, recorded: Option<&[u8]>) {
        let raises = step["raises"].as_str();
        if let (Some(raises), Some(recorded)) = (raises, recorded) {
            // The reference left the slot half-written, and keeps what it staged.
            let fields = match step["fields"].as_object() {
                Some(fields) => fields.clone().into_iter().collect(),
                None => self.staged.clone().unwrap(),
            };
            let refused: Vec<_> = fields
                .iter()
                .filter_map(|(name, written)| {
                    Some(format!("{name}: {}", self.refusal(name, written)?))
                })
                .collect();
            let refused = refused.join(", ");
            self.differences
                .push(format!("{} {at} raises {raises}; {refused}", self.name));
            self.image = recorded.to_vec();
            return;
        }
        let recorded = recorded.unwrap_or(&[]);
        match text(step, "op") {
            "create" => self.create(),
            "poke" => {
                let bytes = unhex(text(step, "hex"));
                let at = usize::try_from(number(step, "offset")).unwrap();
                self.image[at..][..bytes.len()].copy_from_slice(&bytes);
            }
            "write" => {
                let fields = step["fields"].as_object().unwrap().iter();
                let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
                if self.layout.is_fifo() {
                    self.staged.get_or_insert_default().extend(fields);
                } else {
                    self.write_slot(0, &fields.collect(), at, recorded);
                }
            }
            "finalize" => self.finalize(at, recorded),
            "read" => self.read(step),
            op => panic!("{op}"),
        }
    }
}

/// Where the reference bends a value, or breaks off in the middle of a slot,
/// while here the value is refused.
const DIFFERENCES: [&str; 10] = [
    "scalars 11 a: nothing is no value",
    "scalars 13 raises OverflowError; b: 2147483648 does not fit a field of type int, which holds -2147483648 to 2147483647",
    "one_bool 3 x: nothing is no value",
    "strings 17 raises TypeError; s4: nothing is no value",
    "arrays_mismatch 12 q: a field of type float64[4] takes no float value",
    "arrays_mismatch 14 q: nothing is no value",
    "arrays_mismatch 18 p: element 0 is 1.9, which no int16 equals",
    "arrays_mismatch 19 p: element 0 is 70000, which no int16 equals",
    "fifo_error 6 raises OverflowError; b: 1099511627776 does not fit a field of type int, which holds -2147483648 to 2147483647",
    // The sequence word is at its end; here it goes on at 0.
    "hostile_single 19 raises OverflowError; ",
];

#[test]
fn every_step_gives_the_same_bytes() {
    let manifest = manifest();
    let (mut images, mut differences) = (0, Vec::new());
    for case in list(&manifest, "cases") {
        let mut replay = Replay {
            name: text(case, "name").to_owned(),
            layout: layout(case),
            image: Vec::new(),
            staged: None,
            differences: Vec::new(),
        };
        for (at, step) in list(case, "steps").iter().enumerate() {
            let recorded = step["segment_after"].as_str().map(load);
            replay.step(at, step, recorded.as_deref());
            if let Some(recorded) = recorded {
                assert_eq!(replay.image, recorded, "{} {at}: {step}", replay.name);
                images += 1;
            }
        }
        differences.append(&mut replay.differences);
    }
    assert_eq!(images, IMAGES);
    assert_eq!(differences, DIFFERENCES);
}

/// JSON has no infinities; the other images say the same afterwards.
#[cfg(feature = "serde")]
#[test]
fn descriptions_survive_serde() {
    let mut infinite = 0;
    for (layout, image) in common::images() {
        let seen = describe(&image, &layout).unwrap();
        let fields = seen.slots.iter().filter_map(|slot| slot.fields.as_ref());
        let mut values = fields.flatten().map(|field| &field.value);
        if values.any(|value| matches!(value, Value::Float(value) if !value.is_finite())) {
            infinite += 1;
            continue;
        }
        let json = serde_json::to_string(&seen).unwrap();
        let back: Description = serde_json::from_str(&json).unwrap();
        assert_eq!(back, seen);
    }
    assert!(infinite < IMAGES / 10, "{infinite}");
    // An array keeps its promise.
    let array = r#"{"dtype":"int16","shape":[2],"bytes":[1,2,3,4]}"#;
    assert!(serde_json::from_str::<ArrayValue>(array).is_ok());
    let array = array.replace("[2]", "[3]");
    assert!(serde_json::from_str::<ArrayValue>(&array).is_err());
}
