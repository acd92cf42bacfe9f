//! Reads objects and messages that the C++ and Python implementations left
//! behind, compares everything the manifest says about them, and writes the
//! same bytes again.

#![allow(missing_docs)]

#[path = "common/eshm.rs"]
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use common::{messages, unhex};
use polyshm_wire::eshm::{
    ChannelDescription, ChannelHead, ChannelTail, DecodeError, Decoder, Direction, Event,
    FunctionCall, HEADER_SIZE, Header, ImageFrame, Item, ItemDialect, ItemRef, Layout, Scalar,
    ScalarRef, Value as ItemValue, ValueRef, decode, describe, encode, encode_refs, object_name,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    hex
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no u64"))
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no string"))
}

fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"))
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// The bytes of a file are those that the manifest describes.
fn check_file(entry: &Value, bytes: &[u8]) {
    let file = text(&entry["file"]);
    assert_eq!(bytes.len() as u64, number(&entry["bytes"]), "{file}");
    let sum = hex(&Sha256::digest(bytes));
    assert_eq!(sum, text(&entry["sha256"]), "{file}");
    if let Some(expected) = entry["hex"].as_str() {
        assert_eq!(hex(bytes), expected, "{file}");
    }
}

#[test]
fn the_folder_has_what_the_manifest_lists() {
    let manifest = common::manifest();
    let listed: BTreeSet<String> = list(&manifest["vectors"])
        .iter()
        .map(|entry| text(&entry["file"]).to_owned())
        .collect();
    let mut found = BTreeSet::new();
    for part in ["shm", "dh"] {
        for file in fs::read_dir(common::folder().join(part)).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            found.insert(format!("{part}/{name}"));
        }
    }
    assert_eq!(found, listed);
    assert_eq!(listed.len(), common::IMAGES + common::MESSAGES);
}

// Objects.

/// The bytes of a `write` step: spelled out, or by the rule that byte i is i.
fn payload(args: &Value) -> Vec<u8> {
    if let Some(hex) = args["hex"].as_str() {
        return unhex(hex);
    }
    let rule = text(&args["payload"]);
    let (_, rest) = rule.split_once("...(").unwrap();
    let length: u32 = rest
        .strip_suffix(" bytes, byte i = i & 0xff)")
        .unwrap()
        .parse()
        .unwrap();
    (0..length).map(|i| (i & 0xff) as u8).collect()
}

/// What each channel carried last at each dump, out of the steps that led there.
fn last_messages(manifest: &Value) -> BTreeMap<String, [Option<Vec<u8>>; 2]> {
    let mut dumps = BTreeMap::new();
    for session in list(&manifest["sessions"]) {
        let mut sides = BTreeMap::new();
        let mut last = [None, None];
        for step in list(&session["steps"]) {
            if let Some(file) = step["dump"].as_str() {
                dumps.insert(file.to_owned(), last.clone());
            }
            let process = step["process"].as_str().unwrap_or_default();
            match step["op"].as_str() {
                Some("open") => {
                    sides.insert(process, index(number(&step["result"]["role"])));
                }
                Some("write") if step["result"]["rc"] == 0 => {
                    last[sides[process]] = Some(payload(&step["args"]));
                }
                _ => {}
            }
        }
    }
    dumps
}

fn check_channel(
    name: &str,
    seen: &ChannelDescription,
    expected: &Value,
    last: Option<&Vec<u8>>,
) -> usize {
    for (field, value) in expected.as_object().unwrap() {
        let found = match field.as_str() {
            "sequence" => u64::from(seen.sequence),
            "data_size" => u64::from(seen.data_size),
            "write_count" => seen.write_count,
            "read_count" => seen.read_count,
            other => panic!("{name}: field {other} is not known here"),
        };
        assert_eq!(found, number(value), "{name}: {field}");
    }
    assert_eq!(expected.as_object().unwrap().len(), 4, "{name}");
    let native = (seen.native_waiters, seen.native_void, seen.native_voids);
    assert_eq!(native, (0, 0, 0), "{name}");
    assert_eq!(seen.busy, seen.sequence % 2 == 1, "{name}");
    // A new object has no message, whatever the one before it had.
    let is_there = seen.write_count > 0 && !seen.busy;
    let expected = last.filter(|_| is_there);
    assert_eq!(expected.is_some(), is_there, "{name}");
    assert_eq!(seen.message.as_ref(), expected, "{name}");
    usize::from(expected.is_some())
}

#[test]
fn every_object() {
    let last = last_messages(&common::manifest());
    let mut compared = 0;
    for (entry, image) in common::images() {
        let name = text(&entry["file"]);
        check_file(&entry, &image);
        let layout = Layout::new(number(&entry["max_data_size"])).unwrap();
        assert_eq!(layout.object_len(), image.len() as u64, "{name}");
        let seen = describe(&image, &layout).unwrap_or_else(|error| panic!("{name}: {error}"));

        let fields = entry["fields"].as_object().unwrap();
        assert_eq!(fields.len(), 12, "{name}");
        for (field, value) in fields {
            let found = match field.as_str() {
                "magic" => {
                    let magic = Header::read(&image).unwrap().magic.get();
                    assert_eq!(format!("{magic:x}"), text(value), "{name}");
                    continue;
                }
                "m2s" | "s2m" => {
                    let at = usize::from(field == "s2m");
                    let channel = seen.channel(Direction::ALL[at]);
                    compared += check_channel(name, channel, value, last[name][at].as_ref());
                    continue;
                }
                "version" => u64::from(seen.version),
                "master_heartbeat" => seen.master_heartbeat,
                "slave_heartbeat" => seen.slave_heartbeat,
                "master_pid" => u64::try_from(seen.master_pid).unwrap(),
                "slave_pid" => u64::try_from(seen.slave_pid).unwrap(),
                "master_alive" => u64::from(seen.master_alive),
                "slave_alive" => u64::from(seen.slave_alive),
                "stale_threshold" => u64::from(seen.stale_threshold),
                "master_generation" => u64::from(seen.master_generation),
                other => panic!("{name}: field {other} is not known here"),
            };
            assert_eq!(found, number(value), "{name}: {field}");
        }
        // A reference leaves alone what natives use.
        let native = [
            seen.native_capacity,
            seen.native_master_mark,
            seen.native_slave_mark,
        ];
        assert_eq!(native, [0; 3], "{name}");
        written_again(name, &image, layout);
    }
    // Of 70 channels; the others were not written, or their sequence is odd.
    assert_eq!(compared, 48);
}

/// The fixed structures, from their parsed form, are the bytes of the image,
/// and so is a whole image put together from them.
fn written_again(name: &str, image: &[u8], layout: Layout) {
    let header = Header::read(image).unwrap();
    header.check().unwrap();
    let mut made = vec![0; image.len()];
    made[..index(HEADER_SIZE)].copy_from_slice(&header.to_bytes());
    for direction in Direction::ALL {
        let place = layout.channel(direction);
        let head = ChannelHead::read(&image[index(place.sequence)..]).unwrap();
        made[index(place.sequence)..index(place.data)].copy_from_slice(&head.to_bytes());
        let data = index(place.data)..index(place.data + u64::from(layout.capacity()));
        made[data.clone()].copy_from_slice(&image[data]);
        let at = index(place.write_count);
        let tail = ChannelTail::read(&image[at..]).unwrap();
        made[at..at + 64].copy_from_slice(&tail.to_bytes());
    }
    assert!(made == image, "{name}");

    // And from the values alone, as a creator does it.
    let mut fresh = Header::new(header.stale_threshold.get(), 0);
    fresh.master_heartbeat = header.master_heartbeat;
    fresh.slave_heartbeat = header.slave_heartbeat;
    fresh.master_pid = header.master_pid;
    fresh.slave_pid = header.slave_pid;
    fresh.master_alive = header.master_alive;
    fresh.slave_alive = header.slave_alive;
    fresh.master_generation = header.master_generation;
    assert_eq!(fresh, header, "{name}");
}

#[cfg(feature = "serde")]
#[test]
fn descriptions_survive_serde() {
    for (entry, image) in common::images() {
        let layout = Layout::new(number(&entry["max_data_size"])).unwrap();
        let seen = describe(&image, &layout).unwrap();
        let json = serde_json::to_string(&seen).unwrap();
        let back: polyshm_wire::eshm::Description = serde_json::from_str(&json).unwrap();
        assert_eq!(back, seen);
    }
}

/// The layout of the manifest's preface, and the names of its sessions.
#[test]
fn layout_and_names_of_the_manifest() {
    let manifest = common::manifest();
    let expected = &manifest["shm_layout"]["default"];
    let layout = Layout::default();
    let channel = |direction| {
        let start = layout.channel(direction).sequence;
        serde_json::json!([start, layout.channel_len()])
    };
    assert_eq!(expected["header"], serde_json::json!([0, HEADER_SIZE]));
    assert_eq!(expected["m2s"], channel(Direction::MasterToSlave));
    assert_eq!(expected["s2m"], channel(Direction::SlaveToMaster));
    assert_eq!(number(&expected["total"]), layout.object_len());
    for session in list(&manifest["sessions"]) {
        let name = text(&session["object_name"]);
        let user = name.strip_prefix("/eshm_").unwrap();
        assert_eq!(format!("/{}", object_name(user).unwrap()), name);
    }
}

// Messages, in the notation of the manifest.

fn scalar_notation(value: ScalarRef<'_>) -> String {
    match value {
        ScalarRef::Integer(value) => format!("int:{value}"),
        ScalarRef::Boolean(value) => format!("bool:{value}"),
        ScalarRef::Real(value) => format!("real:{:016x}", value.to_bits()),
        ScalarRef::String(bytes) => format!("str:{}", hex(bytes)),
        ScalarRef::Binary(bytes) => format!("bin:{}", hex(bytes)),
    }
}

fn notation(items: &[ItemRef<'_>]) -> String {
    let mut out = format!("ok n={}", items.len());
    for ItemRef { key, value } in items {
        let kind = u8::from(value.kind());
        write!(out, " | t={kind} key={} ", hex(key)).unwrap();
        match value {
            ValueRef::Integer(value) => out += &scalar_notation(ScalarRef::Integer(*value)),
            ValueRef::Boolean(value) => out += &scalar_notation(ScalarRef::Boolean(*value)),
            ValueRef::Real(value) => out += &scalar_notation(ScalarRef::Real(*value)),
            ValueRef::String(bytes) => out += &scalar_notation(ScalarRef::String(bytes)),
            ValueRef::Binary(bytes) => out += &scalar_notation(ScalarRef::Binary(bytes)),
            ValueRef::Event { name, params } => {
                write!(out, "event:{}", str::from_utf8(name).unwrap()).unwrap();
                for (key, value) in params {
                    let key = str::from_utf8(key).unwrap();
                    write!(out, " {{{key}={}}}", scalar_notation(*value)).unwrap();
                }
            }
            ValueRef::FunctionCall { name, result, args } => {
                let name = str::from_utf8(name).unwrap();
                let result = result.map_or("none".into(), scalar_notation);
                write!(out, "fn:{name} ret={result}").unwrap();
                for value in args {
                    write!(out, " [{}]", scalar_notation(*value)).unwrap();
                }
            }
            ValueRef::ImageFrame {
                width,
                height,
                channels,
                timestamp_ns,
                data,
            } => write!(
                out,
                "img:{width} x {height} x {channels} ts={timestamp_ns} len={}",
                data.len()
            )
            .unwrap(),
        }
    }
    out
}

/// Parameters have no order in C++: in the only event with several of them, the
/// encoder's differs from the decoder's (section 9.3).
fn params_sorted(notation: &str) -> String {
    let parts: Vec<String> = notation
        .split(" | ")
        .map(|part| match part.split_once(" {") {
            None => part.to_owned(),
            Some((event, params)) => {
                let params = params.strip_suffix('}').unwrap();
                let mut params: Vec<&str> = params.split("} {").collect();
                params.sort_unstable();
                format!("{event} {{{}}}", params.join("} {"))
            }
        })
        .collect();
    parts.join(" | ")
}

/// Puts the parameters of the expected events into the order of the message.
fn order_params(expected: &mut [Item], message: &[Item]) {
    for (expected, item) in expected.iter_mut().zip(message) {
        if let (ItemValue::Event(expected), ItemValue::Event(event)) =
            (&mut expected.value, &item.value)
        {
            let place = |key: &str| event.params.iter().position(|(name, _)| name == key);
            expected.params.sort_by_key(|(key, _)| place(key));
        }
    }
}

/// Without the decimal form of a real number, which stands behind its bits.
fn bits_only(notation: &str) -> String {
    let mut out = String::new();
    let mut rest = notation;
    while let Some(at) = rest.find("real:") {
        let (before, after) = rest.split_at(at + "real:".len() + 16);
        out += before;
        rest = after.strip_prefix('(').unwrap().split_once(')').unwrap().1;
    }
    out + rest
}

fn parse_scalar(notation: &str) -> Scalar {
    let (kind, value) = notation.split_once(':').unwrap();
    match kind {
        "int" => Scalar::Integer(value.parse().unwrap()),
        "bool" => Scalar::Boolean(value.parse().unwrap()),
        "real" => Scalar::Real(f64::from_bits(u64::from_str_radix(value, 16).unwrap())),
        "str" => Scalar::String(String::from_utf8(unhex(value)).unwrap()),
        "bin" => Scalar::Binary(unhex(value)),
        other => panic!("{other}: {notation}"),
    }
}

/// The items that a notation describes. Of an image's data it tells only the
/// length; all of them follow the rule that byte i is 7i.
fn parse(notation: &str) -> Vec<Item> {
    let notation = bits_only(notation);
    let mut parts = notation.split(" | ");
    let count: usize = parts
        .next()
        .unwrap()
        .strip_prefix("ok n=")
        .unwrap()
        .parse()
        .unwrap();
    let items: Vec<Item> = parts
        .map(|part| {
            let mut words = part.splitn(3, ' ');
            let kind: u8 = words
                .next()
                .unwrap()
                .strip_prefix("t=")
                .unwrap()
                .parse()
                .unwrap();
            let key = unhex(words.next().unwrap().strip_prefix("key=").unwrap());
            let key = String::from_utf8(key).unwrap();
            let value = words.next().unwrap();
            let item = match kind {
                0..=4 => Item::new(key, parse_scalar(value)),
                5 => {
                    let (name, rest) = value.split_once(" {").unwrap_or((value, ""));
                    let mut event = Event::new(name.strip_prefix("event:").unwrap());
                    for param in rest.split(" {").filter(|param| !param.is_empty()) {
                        let (key, value) =
                            param.strip_suffix('}').unwrap().split_once('=').unwrap();
                        event = event.with_param(key, parse_scalar(value));
                    }
                    Item::new(key, event)
                }
                6 => {
                    let mut words = value.split(' ');
                    let name = words.next().unwrap().strip_prefix("fn:").unwrap();
                    let mut call = FunctionCall::new(name);
                    match words.next().unwrap().strip_prefix("ret=").unwrap() {
                        "none" => {}
                        result => call = call.with_result(parse_scalar(result)),
                    }
                    for arg in words {
                        let arg = arg.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
                        call = call.with_arg(parse_scalar(arg));
                    }
                    Item::new(key, call)
                }
                7 => {
                    let words: Vec<&str> = value.split([' ', ':', '=']).collect();
                    let [
                        "img",
                        width,
                        "x",
                        height,
                        "x",
                        channels,
                        "ts",
                        time,
                        "len",
                        len,
                    ] = words[..]
                    else {
                        panic!("{part}")
                    };
                    let len: u32 = len.parse().unwrap();
                    let data = (0..len).map(|i| ((i * 7) & 0xff) as u8).collect();
                    Item::new(
                        key,
                        ImageFrame {
                            width: width.parse().unwrap(),
                            height: height.parse().unwrap(),
                            channels: channels.parse().unwrap(),
                            timestamp_ns: time.parse().unwrap(),
                            data,
                        },
                    )
                }
                other => panic!("{other}: {part}"),
            };
            assert_eq!(u8::from(item.kind()), kind);
            item
        })
        .collect();
    assert_eq!(items.len(), count);
    items
}

fn dialect(entry: &Value) -> ItemDialect {
    match text(&entry["encoder"]) {
        "cpp" => ItemDialect::Native,
        "py" => ItemDialect::Python,
        other => panic!("{other}"),
    }
}

/// Messages that C++ refuses: Python's integers of nine bytes. The one that
/// fits 64 bits is read here, also by the lenient rules, because Python's own
/// writer makes it.
const NINE_BYTES: [(&str, Option<i64>); 3] = [
    ("int_-9223372036854775808", Some(i64::MIN)),
    ("int_pow64", None),
    ("int_2p63", None),
];

#[test]
fn every_message() {
    let (mut native, mut python) = (0, 0);
    for (entry, message) in messages() {
        let name = text(&entry["file"]);
        check_file(&entry, &message);
        let dialect = dialect(&entry);
        match dialect {
            ItemDialect::Native => native += 1,
            ItemDialect::Python => python += 1,
        }
        let strict = Decoder::new();
        let lenient = strict.lenient(true);
        let by_cpp = text(&entry["decoded"]["by_cpp"]);
        let mut expected = if by_cpp == "error: Invalid integer length" {
            let wanted = text(&entry["name"]);
            let (_, value) = NINE_BYTES.iter().find(|(name, _)| *name == wanted).unwrap();
            let Some(value) = value else {
                for decoder in [strict, lenient] {
                    let error = decoder.decode_refs(&message).unwrap_err();
                    assert!(
                        matches!(error, DecodeError::IntegerRange { len: 9, .. }),
                        "{name}: {error}"
                    );
                }
                continue;
            };
            vec![Item::new("k", *value)]
        } else {
            parse(by_cpp)
        };

        // Decoded, it is what C++ made of it, and encoded again the same bytes.
        for decoder in [strict, lenient] {
            let items = decoder
                .decode_refs(&message)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            if by_cpp.starts_with("ok") {
                let expected = params_sorted(&bits_only(by_cpp));
                assert_eq!(params_sorted(&notation(&items)), expected, "{name}");
            }
            assert_eq!(encode_refs(&items, dialect).unwrap(), message, "{name}");
        }
        let items = decode(&message).unwrap();
        assert_eq!(encode(&items, dialect).unwrap(), message, "{name}");

        // The description alone leads to the same bytes.
        order_params(&mut expected, &items);
        assert_eq!(encode(&expected, dialect).unwrap(), message, "{name}");
        if !name.ends_with("nan.bin") {
            assert_eq!(items, expected, "{name}");
        }
        if let Some(value) = text(&entry["name"]).strip_prefix("int_") {
            let value: i64 = value.parse().unwrap();
            assert_eq!(items, [Item::new("k", value)], "{name}");
        }
    }
    assert_eq!((native, python), (81, 60));
}

/// What both encoders write for the same items differs only as section 9.2
/// says, and each dialect turns into the other through the decoder.
#[test]
fn both_dialects_of_a_message() {
    let messages = messages();
    let mut pairs = 0;
    for (entry, python) in &messages {
        if dialect(entry) != ItemDialect::Python {
            continue;
        }
        let native = messages.iter().find(|(other, _)| {
            dialect(other) == ItemDialect::Native && other["name"] == entry["name"]
        });
        let Some((_, native)) = native else {
            continue;
        };
        pairs += 1;
        let name = text(&entry["name"]);
        let from_python = Decoder::new().decode_refs(python).unwrap();
        let from_native = Decoder::new().decode_refs(native).unwrap();
        // NaN is not equal to itself, but its bits are.
        assert_eq!(notation(&from_python), notation(&from_native), "{name}");
        let other = encode_refs(&from_python, ItemDialect::Native).unwrap();
        assert_eq!(other, *native, "{name}");
        let other = encode_refs(&from_native, ItemDialect::Python).unwrap();
        assert_eq!(other, *python, "{name}");
    }
    assert_eq!(pairs, 58);
}

// The corpus.

/// Where the lenient rules leave C++. In all four cases C++ makes an item of a
/// type that does not exist out of nothing, with `false` as its value. There is
/// no such item here, and both users of the C++ decoder, `eshm_read_data` and
/// Python, refuse it too.
const DIFFERENCES: [&str; 4] = [
    "unknown_type_8_no_value_30",
    "unknown_type_8_no_value_10",
    "type_minus1_30",
    "type_minus1_10",
];

#[test]
fn the_corpus_by_the_lenient_rules() {
    let lenient = Decoder::new().lenient(true);
    let mut differences = BTreeSet::from(DIFFERENCES);
    for (case, message) in common::corpus() {
        let name = text(&case["name"]);
        let cpp = text(&case["cpp"]);
        let found = lenient.decode_refs(&message);
        if differences.remove(name) {
            assert!(cpp.ends_with("bool:false"), "{name}");
            assert!(matches!(found, Err(DecodeError::Kind { .. })), "{name}");
            continue;
        }
        match found {
            Ok(items) => assert_eq!(notation(&items), bits_only(cpp), "{name}"),
            Err(error) => assert!(cpp.starts_with("error: "), "{name}: {error}, C++: {cpp}"),
        }
    }
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn the_corpus_by_the_strict_rules() {
    let mut table = BTreeMap::from(STRICT);
    assert_eq!(table.len(), STRICT.len());
    for (case, message) in common::corpus() {
        let name = text(&case["name"]);
        let expected = table.remove(name).unwrap_or_else(|| panic!("{name}"));
        let found = match decode(&message) {
            Ok(items) => {
                // What is accepted is what C++ and, where it reads it, Python
                // make of it.
                let refs: Vec<ItemRef<'_>> = items.iter().map(Item::as_ref).collect();
                assert_eq!(notation(&refs), bits_only(text(&case["cpp"])), "{name}");
                let python = text(&case["py"]);
                assert!(
                    python.starts_with("ok") || python.ends_with("Expected SEQUENCE tag, got 48"),
                    "{name}: {python}"
                );
                "ok".to_owned()
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{name}");
    }
    assert!(table.is_empty(), "{table:?}");
}

/// What the strict rules say to each input.
#[rustfmt::skip]
const STRICT: [(&str, &str); common::CORPUS] = [
    ("short_len_0x30_30", "ok"),
    ("short_len_0x30_10", "ok"),
    ("trailing_garbage_after_outer_30", "the message ends at byte 17, 2 bytes follow it; a lenient decoder ignores them"),
    ("trailing_garbage_after_outer_10", "the message ends at byte 17, 2 bytes follow it; a lenient decoder ignores them"),
    ("extra_element_inside_outer_30", "the message (SEQUENCE) should end at byte 17, 2 bytes are left in it"),
    ("extra_element_inside_outer_10", "the message (SEQUENCE) should end at byte 17, 2 bytes are left in it"),
    ("more_types_than_keys_30", "the types are 2 and the keys 1, they must be as many"),
    ("more_types_than_keys_10", "the types are 2 and the keys 1, they must be as many"),
    ("more_keys_than_types_30", "the types are 1 and the keys 2, they must be as many"),
    ("more_keys_than_types_10", "the types are 1 and the keys 2, they must be as many"),
    ("more_data_than_types_30", "the data (SEQUENCE) should end at byte 17, 3 bytes are left in it"),
    ("more_data_than_types_10", "the data (SEQUENCE) should end at byte 17, 3 bytes are left in it"),
    ("less_data_than_types_30", "the value (INTEGER) ends early: it needs 1 more bytes at byte 23, 0 are left to it"),
    ("less_data_than_types_10", "the value (INTEGER) ends early: it needs 1 more bytes at byte 23, 0 are left to it"),
    ("type_value_tag_mismatch_30", "the value (UTF8String) at byte 14 has tag 0x02, allowed: 0x0c (UTF8String)"),
    ("type_value_tag_mismatch_10", "the value (UTF8String) at byte 14 has tag 0x02, allowed: 0x0c (UTF8String)"),
    ("unknown_type_8_no_value_30", "the type at byte 4 is 8, allowed: 0 to 7"),
    ("unknown_type_8_no_value_10", "the type at byte 4 is 8, allowed: 0 to 7"),
    ("unknown_type_8_with_value_30", "the type at byte 4 is 8, allowed: 0 to 7"),
    ("unknown_type_8_with_value_10", "the type at byte 4 is 8, allowed: 0 to 7"),
    ("type_256_truncates_to_0_30", "the type at byte 4 is 256, allowed: 0 to 7"),
    ("type_256_truncates_to_0_10", "the type at byte 4 is 256, allowed: 0 to 7"),
    ("type_minus1_30", "the type at byte 4 is -1, allowed: 0 to 7"),
    ("type_minus1_10", "the type at byte 4 is -1, allowed: 0 to 7"),
    ("bool_0x01_30", "ok"),
    ("bool_0x01_10", "ok"),
    ("bool_len2_30", "the value (BOOLEAN) at byte 16 has a length of 2, allowed: 1"),
    ("bool_len2_10", "the value (BOOLEAN) at byte 16 has a length of 2, allowed: 1"),
    ("bool_len0_30", "the value (BOOLEAN) at byte 16 has a length of 0, allowed: 1"),
    ("bool_len0_10", "the value (BOOLEAN) at byte 16 has a length of 0, allowed: 1"),
    ("int_len0_30", "the value (INTEGER) at byte 16 has a length of 0, allowed: 1 to 8"),
    ("int_len0_10", "the value (INTEGER) at byte 16 has a length of 0, allowed: 1 to 8"),
    ("int_nonminimal_0007_30", "ok"),
    ("int_nonminimal_0007_10", "ok"),
    ("int_nonminimal_ffff_30", "ok"),
    ("int_nonminimal_ffff_10", "ok"),
    ("int_len8_30", "ok"),
    ("int_len8_10", "ok"),
    ("int_len9_30", "the value (INTEGER) at byte 16 has a length of 9, allowed: 1 to 8"),
    ("int_len9_10", "the value (INTEGER) at byte 16 has 9 bytes and does not fit 64 bits"),
    ("int_longform_len_81_01_30", "ok"),
    ("int_longform_len_81_01_10", "ok"),
    ("int_longform_len_84_00000001_30", "ok"),
    ("int_longform_len_84_00000001_10", "ok"),
    ("int_len_85_30", "the length of the value (INTEGER) at byte 15 begins with 0x85, allowed: 0x00 to 0x7f, 0x81 to 0x84"),
    ("int_len_85_10", "the length of the value (INTEGER) at byte 15 begins with 0x85, allowed: 0x00 to 0x7f, 0x81 to 0x84"),
    ("len_80_indefinite_30", "the length of the value (UTF8String) at byte 15 begins with 0x80, allowed: 0x00 to 0x7f, 0x81 to 0x84"),
    ("len_80_indefinite_10", "the length of the value (UTF8String) at byte 15 begins with 0x80, allowed: 0x00 to 0x7f, 0x81 to 0x84"),
    ("real_len9_ok_30", "ok"),
    ("real_len9_ok_10", "ok"),
    ("real_len_lies_2_but_8_read_30", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("real_len_lies_2_but_8_read_10", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("real_negzero_explicit_30", "ok"),
    ("real_negzero_explicit_10", "ok"),
    ("real_binary_legacy_0x80_exp0_mant5_30", "the value (REAL) at byte 16 has a length of 3, allowed: 0 or 9"),
    ("real_binary_legacy_0x80_exp0_mant5_10", "the value (REAL) at byte 16 has a length of 3, allowed: 0 or 9"),
    ("real_binary_legacy_0xC0_exp-1_mant3_30", "the value (REAL) at byte 16 has a length of 3, allowed: 0 or 9"),
    ("real_binary_legacy_0xC0_exp-1_mant3_10", "the value (REAL) at byte 16 has a length of 3, allowed: 0 or 9"),
    ("real_binary_legacy_2byte_exp_30", "the value (REAL) at byte 16 has a length of 4, allowed: 0 or 9"),
    ("real_binary_legacy_2byte_exp_10", "the value (REAL) at byte 16 has a length of 4, allowed: 0 or 9"),
    ("real_binary_legacy_len1_30", "the value (REAL) at byte 16 has a length of 1, allowed: 0 or 9"),
    ("real_binary_legacy_len1_10", "the value (REAL) at byte 16 has a length of 1, allowed: 0 or 9"),
    ("real_binary_legacy_len2_nomantissa_30", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("real_binary_legacy_len2_nomantissa_10", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("real_plus_infinity_0x40_30", "the value (REAL) at byte 16 has a length of 1, allowed: 0 or 9"),
    ("real_plus_infinity_0x40_10", "the value (REAL) at byte 16 has a length of 1, allowed: 0 or 9"),
    ("real_decimal_nr1_0x01_30", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("real_decimal_nr1_0x01_10", "the value (REAL) at byte 16 has a length of 2, allowed: 0 or 9"),
    ("str_invalid_utf8_30", "the value of the item \"k\" is not UTF-8 from its byte 0 on; decode_refs gives it as bytes"),
    ("str_invalid_utf8_10", "the value of the item \"k\" is not UTF-8 from its byte 0 on; decode_refs gives it as bytes"),
    ("str_len_overruns_buffer_30", "the value (UTF8String) ends early: it needs 127 more bytes at byte 16, 2 are left to it"),
    ("str_len_overruns_buffer_10", "the value (UTF8String) ends early: it needs 127 more bytes at byte 16, 2 are left to it"),
    ("str_overruns_inner_seq_not_buffer_30", "the message ends at byte 18, 6 bytes follow it; a lenient decoder ignores them"),
    ("str_overruns_inner_seq_not_buffer_10", "the message ends at byte 18, 6 bytes follow it; a lenient decoder ignores them"),
    ("bin_len_claims_4GiB-1_30", "the value (OCTET STRING) ends early: it needs 4294967295 more bytes at byte 20, 0 are left to it"),
    ("bin_len_claims_4GiB-1_10", "the value (OCTET STRING) ends early: it needs 4294967295 more bytes at byte 20, 0 are left to it"),
    ("empty_sets_30", "ok"),
    ("empty_sets_10", "ok"),
    ("outer_len_too_long_30", "the message (SEQUENCE) ends early: it needs 32 more bytes at byte 2, 15 are left to it"),
    ("outer_len_too_long_10", "the message (SEQUENCE) ends early: it needs 32 more bytes at byte 2, 15 are left to it"),
    ("outer_len_too_short_30", "the keys (SEQUENCE) ends early: it needs 1 more bytes at byte 7, 0 are left to it"),
    ("outer_len_too_short_10", "the keys (SEQUENCE) ends early: it needs 1 more bytes at byte 7, 0 are left to it"),
    ("empty_buffer_30", "the message (SEQUENCE) ends early: it needs 1 more bytes at byte 0, 0 are left to it"),
    ("empty_buffer_10", "the message (SEQUENCE) ends early: it needs 1 more bytes at byte 0, 0 are left to it"),
    ("one_byte_30", "the message (SEQUENCE) ends early: it needs 1 more bytes at byte 1, 0 are left to it"),
    ("one_byte_10", "the message (SEQUENCE) ends early: it needs 1 more bytes at byte 1, 0 are left to it"),
    ("outer_tag_0x31", "the message (SEQUENCE) at byte 0 has tag 0x31, allowed: 0x30, 0x10 (SEQUENCE)"),
    ("outer_tag_0x50", "the message (SEQUENCE) at byte 0 has tag 0x50, allowed: 0x30, 0x10 (SEQUENCE)"),
    ("outer_tag_0xB0", "the message (SEQUENCE) at byte 0 has tag 0xb0, allowed: 0x30, 0x10 (SEQUENCE)"),
    ("outer_tag_0xD0", "the message (SEQUENCE) at byte 0 has tag 0xd0, allowed: 0x30, 0x10 (SEQUENCE)"),
    ("event_value_null", "the event parameter value at byte 77 has tag 0x05, allowed: 0x01, 0x02, 0x04, 0x09, 0x0c (a scalar)"),
    ("func_ret_unknown_tag", "the function result at byte 45 has tag 0x06, allowed: 0x01, 0x02, 0x04, 0x09, 0x0c (a scalar)"),
    ("func_null_len1", "the function result (NULL) at byte 47 has a length of 1, allowed: 0"),
    ("image_width_negative", "the image width (INTEGER) at byte 42 is -1, allowed: 0 to 4294967295"),
    ("trunc_mixed5_half", "the message (SEQUENCE) ends early: it needs 113 more bytes at byte 6, 54 are left to it"),
    ("trunc_mixed5_minus1", "the message (SEQUENCE) ends early: it needs 113 more bytes at byte 6, 112 are left to it"),
];
