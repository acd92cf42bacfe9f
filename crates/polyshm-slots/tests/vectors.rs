//! The recorded steps of the Python implementation, done again by polyshm: the
//! same results and the same bytes, but for what is listed as a deviation, each
//! with its reason; and the recorded segments, opened and read.
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_slots::{
    ArrayValue, Dtype, Dynamic, DynamicFields, FieldRef, FieldType, OpenError, Options, ReadError,
    Reading, Schema, SlotFifo, SlotStore, Status, Value, ValueError, Values, WriteError,
    testing::HeapSegment,
};
use polyshm_testkit::Name;
use polyshm_wire::slots::{Layout, Meta};
use serde_json::Value as Json;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::Duration,
};

const CASES: usize = 26;
const STEPS: usize = 255;
const IMAGES: usize = 213;
const NOW: Duration = Duration::ZERO;

// Deviations.

/// In which replays one occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Both,
    Plain,
    /// With the trailer.
    Native,
}

impl In {
    fn includes(self, native: bool) -> bool {
        self == Self::Both || native == (self == Self::Native)
    }
}

/// A step that gives something else here.
#[derive(Debug)]
struct OtherResult {
    case: &'static str,
    step: usize,
    occurs: In,
    here: &'static str,
    why: &'static str,
}

const fn other(
    case: &'static str,
    step: usize,
    here: &'static str,
    why: &'static str,
) -> OtherResult {
    OtherResult {
        case,
        step,
        occurs: In::Both,
        here,
        why,
    }
}

/// Bytes that are others here after some steps, in hexadecimal digits.
#[derive(Debug)]
struct OtherBytes {
    case: &'static str,
    steps: &'static [usize],
    occurs: In,
    at: usize,
    recorded: &'static str,
    here: &'static str,
    why: &'static str,
}

const fn bytes(
    case: &'static str,
    steps: &'static [usize],
    at: usize,
    recorded: &'static str,
    here: &'static str,
    why: &'static str,
) -> OtherBytes {
    OtherBytes {
        case,
        steps,
        occurs: In::Both,
        at,
        recorded,
        here,
        why,
    }
}

const NOTHING_BEGUN: &str = "a write that is refused has not begun (section 7 D5)";
const NEVER_STAGED: &str = "an update that is refused is not staged, not in part either";
const CLAMPED: &str = "a text ends in its field, and is truncated (D8)";
const WRAPS: &str = "the number of a write goes on at 0 (D16)";
const DERIVED: &str = "the count is that of the indices, at most the slots (section 6, no. 2)";
const ONCE: &str = "an item is read once, whatever the count says (D2)";
const OWN_PLACE: &str = "a reader has its own place: the shared index may be what a writer stored \
    back (D2)";
const NATIVE_INDEX: &str = "the trailer knows what was committed: an index that went back, or far \
    ahead, is none of ours (section 8)";

const OTHER_RESULTS: &[OtherResult] = &[
    other(
        "scalars",
        14,
        "a 0x7ff8000000000000 (0); b 1 (0); c false (0); d 0xfff0000000000000 (0)",
        NOTHING_BEGUN,
    ),
    other(
        "scalars",
        16,
        "a 0x7ff8000000000000 (0); b 1 (0); c false (0); d 0x4010000000000000 (4)",
        NOTHING_BEGUN,
    ),
    other(
        "strings",
        18,
        r#"s1 "z" (4); s4 "z" (4); t 1 (0); s16 "z" (4)"#,
        NOTHING_BEGUN,
    ),
    other("fifo_error", 5, "refused", NEVER_STAGED),
    other("fifo_error", 6, "done", NEVER_STAGED),
    other(
        "fifo_error",
        10,
        "a 0x0000000000000000 (0); b 3 (4)",
        NEVER_STAGED,
    ),
    other(
        "hostile_single",
        3,
        r#"s "hi\0\0\0\0\0\0" (5); k uint8[8] 5345435245542121 (4); flag true (4)"#,
        CLAMPED,
    ),
    other(
        "hostile_single",
        5,
        r#"s "hi\0\0\0\0\0\0" (5); k uint8[8] 5345435245542121 (4); flag true (4)"#,
        CLAMPED,
    ),
    other("hostile_single", 19, "done", WRAPS),
    other(
        "hostile_single",
        20,
        r#"s "x" (252); k uint8[8] 5345435245542121 (0); flag true (0)"#,
        WRAPS,
    ),
    other("hostile_fifo", 11, "nothing", ONCE),
    other("hostile_fifo", 13, "nothing", ONCE),
    OtherResult {
        occurs: In::Plain,
        ..other("hostile_fifo", 15, "a 1 (4)", OWN_PLACE)
    },
    OtherResult {
        occurs: In::Native,
        ..other("hostile_fifo", 15, "nothing", NATIVE_INDEX)
    },
];

const OTHER_BYTES: &[OtherBytes] = &[
    bytes("scalars", &[13, 14], 0, "09", "08", NOTHING_BEGUN),
    bytes("scalars", &[13, 14], 8, "04", "00", NOTHING_BEGUN),
    bytes(
        "scalars",
        &[13, 14, 15, 16],
        22,
        "2240",
        "f87f",
        NOTHING_BEGUN,
    ),
    bytes("scalars", &[15, 16], 0, "0a", "09", NOTHING_BEGUN),
    bytes("scalars", &[15, 16], 40, "0a", "09", NOTHING_BEGUN),
    bytes("strings", &[17, 18], 0, "0a", "09", NOTHING_BEGUN),
    bytes("strings", &[17, 18], 8, "00", "04", NOTHING_BEGUN),
    bytes("fifo_error", &[6], 24, "02", "01", NEVER_STAGED),
    bytes(
        "fifo_error",
        &[6, 8, 9, 10],
        46,
        "2240",
        "0000",
        NEVER_STAGED,
    ),
    bytes("fifo_error", &[8, 9, 10], 24, "03", "02", NEVER_STAGED),
    bytes("fifo_error", &[8, 9, 10], 32, "04", "00", NEVER_STAGED),
    bytes("fifo_error", &[8, 9, 10], 56, "03", "02", NEVER_STAGED),
    bytes(
        "hostile_single",
        &[19, 20],
        0,
        "ffffffffffffffff",
        "0000000000000000",
        WRAPS,
    ),
    bytes("hostile_single", &[19, 20], 16, "02", "01", WRAPS),
    bytes("hostile_single", &[19, 20], 20, "6f", "78", WRAPS),
    bytes(
        "hostile_single",
        &[19, 20],
        40,
        "ffffffffffffffff",
        "0000000000000000",
        WRAPS,
    ),
    bytes("hostile_fifo", &[8], 16, "06", "02", DERIVED),
    bytes("hostile_fifo", &[9], 16, "05", "01", DERIVED),
    bytes("hostile_fifo", &[10], 16, "04", "00", DERIVED),
    bytes("hostile_fifo", &[11], 8, "04", "03", ONCE),
    bytes("hostile_fifo", &[11], 16, "03", "00", DERIVED),
    OtherBytes {
        occurs: In::Native,
        ..bytes("hostile_fifo", &[13], 16, "00", "03", NATIVE_INDEX)
    },
    bytes("hostile_fifo", &[15], 8, "ff", "fe", OWN_PLACE),
    OtherBytes {
        occurs: In::Plain,
        ..bytes("hostile_fifo", &[15], 16, "00", "01", DERIVED)
    },
    OtherBytes {
        occurs: In::Native,
        ..bytes("hostile_fifo", &[15], 16, "00", "03", NATIVE_INDEX)
    },
];

// The manifest.

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../polyshm-wire/tests/vectors/slots")
}

fn load(file: &str) -> Vec<u8> {
    fs::read(folder().join(file)).expect(file)
}

fn cases() -> Vec<Json> {
    let manifest: Json = serde_json::from_slice(&load("manifest.json")).expect("it is JSON");
    let cases = manifest["cases"].as_array().expect("a list").clone();
    assert_eq!(cases.len(), CASES);
    cases
}

fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    let found = value[key].as_str();
    found.unwrap_or_else(|| panic!("no text {key} in {value}"))
}

fn steps(case: &Json) -> &[Json] {
    case["steps"].as_array().expect("a list")
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits"))
        .collect()
}

fn layout(case: &Json) -> Layout {
    let fields = case["schema"].as_array().expect("a list").iter();
    let pairs = fields.map(|field| (text(field, "name"), text(field, "annotation")));
    let schema = Schema::from_pairs(pairs).expect("the schema is accepted");
    Layout::new(&schema, case["slots"].as_u64().expect("a number")).expect("it can be laid out")
}

// What is written.

/// A number as the manifest has it.
fn float(written: &Json) -> f64 {
    let bits = text(written, "bits").trim_start_matches("0x");
    f64::from_bits(u64::from_str_radix(bits, 16).expect("hex digits"))
}

/// A Python value as it is; `None` when there is none of its kind in Rust.
fn as_it_is(written: &Json) -> Option<Value> {
    Some(match text(written, "kind") {
        "none" => return None,
        "float" => float(written).into(),
        "int" => written["value"].as_i64().expect("an integer").into(),
        "bool" => written["value"].as_bool().expect("a truth").into(),
        "str" => text(written, "value").into(),
        "array" => {
            let dtype = Dtype::from_name(text(written, "dtype")).expect("a dtype");
            let shape = serde_json::from_value(written["shape"].clone()).expect("a shape");
            let bytes = unhex(text(written, "c_order_le_hex"));
            ArrayValue::new(dtype, shape, bytes).expect("whole").into()
        }
        // What numpy makes of a list: int64, or float64 when it is empty or has
        // a float in it.
        "list" => {
            let items = written["value"].as_array().expect("a list");
            let shape = vec![items.len()];
            let integers: Option<Vec<i64>> = items.iter().map(Json::as_i64).collect();
            let array = if let Some(integers) = integers.filter(|all| !all.is_empty()) {
                ArrayValue::from_elements(shape, &integers)
            } else {
                let floats: Option<Vec<f64>> = items.iter().map(Json::as_f64).collect();
                ArrayValue::from_elements(shape, &floats.expect("numbers"))
            };
            array.expect("whole").into()
        }
        kind => panic!("{kind}"),
    })
}

/// What Python converts and we refuse, by the rule's name and the value that it
/// becomes. `None`: nothing is to be converted, or Python refuses it too.
fn converted(ty: &FieldType, written: &Json) -> Option<(&'static str, Value)> {
    let one = |value: f64| ArrayValue::from_elements(vec![], &[value]).expect("one element");
    match (ty, text(written, "kind")) {
        (FieldType::Float, "none") => Some(("None is not a number (3.2)", f64::NAN.into())),
        (FieldType::Bool, "none") => Some(("None is false (3.2)", false.into())),
        (FieldType::Array { .. }, "none") => {
            Some(("None is one element (3.4)", one(f64::NAN).into()))
        }
        (FieldType::Array { .. }, "float") => {
            Some(("a scalar is one element (3.4)", one(float(written)).into()))
        }
        (FieldType::Array { dtype, .. }, "array") if *dtype == Dtype::Int16 => {
            let Some(Value::Array(array)) = as_it_is(written) else {
                return None;
            };
            let shape = array.shape().to_vec();
            let narrow: Vec<i16> = match array.dtype() {
                Dtype::Float64 => {
                    let floats = array.to_vec::<f64>()?;
                    floats.into_iter().map(|float| float as i16).collect()
                }
                Dtype::Int64 => {
                    let integers = array.to_vec::<i64>()?;
                    integers.into_iter().map(|integer| integer as i16).collect()
                }
                _ => return None,
            };
            let array = ArrayValue::from_elements(shape, &narrow).expect("as many");
            Some(("numpy narrows (3.4)", array.into()))
        }
        _ => None,
    }
}

/// The values of a step as Python would store them, and the names of the rules
/// for what we refuse; `None` when Python refuses one too.
fn values(
    schema: &Schema,
    step: &Json,
    mut refused: impl FnMut(&str, Option<Value>),
) -> (Option<Values>, BTreeSet<&'static str>) {
    let (mut values, mut rules) = (Some(Values::new()), BTreeSet::new());
    for (name, written) in step["fields"].as_object().expect("fields") {
        let Some(index) = schema.index_of(name) else {
            refused(name, as_it_is(written));
            rules.insert("unknown names are passed over (5.5)");
            continue;
        };
        let value = match converted(&schema.fields()[index].ty, written) {
            Some((rule, value)) => {
                refused(name, as_it_is(written));
                rules.insert(rule);
                Some(value)
            }
            None => as_it_is(written),
        };
        values = values.and_then(|values| Some(values.with(name.clone(), value?)));
    }
    (values, rules)
}

/// The rules of [`converted`] and [`values`] that the manifest needs.
const RULES: [&str; 6] = [
    "None is false (3.2)",
    "None is not a number (3.2)",
    "None is one element (3.4)",
    "a scalar is one element (3.4)",
    "numpy narrows (3.4)",
    "unknown names are passed over (5.5)",
];

// What is read.

/// The flags that a status byte means.
fn flags(status: Status) -> [bool; 4] {
    [
        status.is_valid(),
        status.is_modified(),
        status.is_truncated(),
        status.is_unwritten(),
    ]
}

/// What a field should be, from the manifest, in the words of [`shown`]. Of a
/// long array only the sum is recorded: its bytes are those of the image.
fn expected(name: &str, recorded: &Json, in_image: &[u8]) -> String {
    let value = &recorded["value"];
    let shown = match text(value, "kind") {
        "float" => text(value, "bits").to_owned(),
        "int" | "bool" => value["value"].to_string(),
        "str" => {
            let bytes = unhex(text(value, "utf8_hex"));
            format!("{:?}", String::from_utf8(bytes).expect("it was decoded"))
        }
        "array" => {
            let digits = match value["c_order_le_hex"].as_str() {
                Some(digits) => digits.to_owned(),
                None => hex(in_image),
            };
            format!("{}{} {digits}", text(value, "dtype"), value["shape"])
        }
        kind => panic!("{kind}"),
    };
    let status = recorded["status_byte"].as_u64().expect("a byte") as u8;
    let named = ["valid", "modified", "truncated", "unwritten"];
    let named = named.map(|flag| recorded[flag].as_bool().expect(flag));
    assert_eq!(named, flags(Status::from_bits(status)));
    format!("{name} {shown} ({status})")
}

fn shown(field: FieldRef<'_>) -> String {
    let shown = match field.value() {
        Value::Float(value) => {
            assert_eq!(field.as_f64().map(f64::to_bits), Some(value.to_bits()));
            format!("{:#018x}", value.to_bits())
        }
        Value::Int(value) => {
            assert_eq!(field.as_i32().map(i64::from), Some(value));
            value.to_string()
        }
        Value::Bool(value) => {
            assert_eq!(field.as_bool(), Some(value));
            value.to_string()
        }
        Value::Text(value) => {
            assert_eq!(field.text().as_deref(), Some(&*value));
            format!("{value:?}")
        }
        Value::Array(array) => {
            let shape = serde_json::to_value(array.shape()).expect("numbers");
            format!("{}{shape} {}", array.dtype(), hex(array.bytes()))
        }
    };
    let found = [
        field.is_valid(),
        field.is_modified(),
        field.is_truncated(),
        field.is_unwritten(),
    ];
    assert_eq!(found, flags(field.status()));
    format!("{} {shown} ({})", field.name(), field.status().bits())
}

/// A record of ours beside one of the manifest, which slot `slot` of `image` has.
/// Gives both in words.
fn both(
    record: Option<&DynamicFields>,
    recorded: &Json,
    layout: &Layout,
    (image, slot): (&[u8], u64),
) -> (String, String) {
    let Some(record) = record else {
        let recorded = if recorded.is_null() {
            "nothing"
        } else {
            "a record"
        };
        return ("nothing".into(), recorded.into());
    };
    let found: Vec<_> = record.iter().map(shown).collect();
    let Some(fields) = recorded.as_object() else {
        return (found.join("; "), "nothing".into());
    };
    assert_eq!(fields.len(), record.len());
    let start = layout.slot_offset(slot);
    let places = layout.fields().iter();
    let expected = record.iter().zip(places).map(|(field, place)| {
        let in_image = &image[start + place.offset..][..place.size];
        expected(field.name(), &fields[field.name()], in_image)
    });
    (found.join("; "), expected.collect::<Vec<_>>().join("; "))
}

// The replay.

/// Where the bytes are.
enum Place {
    Heap(HeapSegment),
    Named(Name),
}

impl Place {
    fn image(&self) -> Vec<u8> {
        match self {
            Self::Heap(segment) => segment.image(),
            Self::Named(name) => fs::read(format!("/dev/shm/{}", name.0)).expect("it exists"),
        }
    }

    fn poke(&self, at: usize, bytes: &[u8]) {
        match self {
            Self::Heap(segment) => segment.poke(at, bytes),
            Self::Named(name) => {
                let path = format!("/dev/shm/{}", name.0);
                let file = File::options().write(true).open(path).expect("it exists");
                file.write_all_at(bytes, at as u64).expect("it is written");
            }
        }
    }
}

/// Who writes and reads.
enum Handles {
    Store {
        writer: SlotStore<Dynamic>,
        reader: SlotStore<Dynamic>,
    },
    Fifo {
        writer: SlotFifo<Dynamic>,
        reader: SlotFifo<Dynamic>,
    },
}

struct Replay<'a> {
    name: &'a str,
    layout: Layout,
    native: bool,
    /// Where Python breaks off, its bytes are taken over.
    resumes: bool,
    place: Place,
    handles: Handles,
    listed: &'a mut Listed,
    rules: &'a mut BTreeSet<&'static str>,
}

/// The deviations of a replay, and those that occurred.
struct Listed {
    results: Vec<&'static OtherResult>,
    bytes: Vec<&'static OtherBytes>,
    occurred: BTreeSet<String>,
}

impl Listed {
    fn new(results: &'static [OtherResult], bytes: &'static [OtherBytes], native: bool) -> Self {
        let results = results.iter();
        let bytes = bytes.iter();
        Self {
            results: results
                .filter(|other| other.occurs.includes(native))
                .collect(),
            bytes: bytes
                .filter(|other| other.occurs.includes(native))
                .collect(),
            occurred: BTreeSet::new(),
        }
    }

    /// Every listed deviation occurred.
    fn check(self) {
        let results = self.results.iter();
        let results = results.map(|other| format!("{} {}: result", other.case, other.step));
        let bytes = self.bytes.iter().flat_map(|other| {
            let steps = other.steps.iter();
            steps.map(|step| format!("{} {step}: byte {}", other.case, other.at))
        });
        assert_eq!(self.occurred, results.chain(bytes).collect());
    }
}

fn on_the_heap(layout: &Layout, options: Options) -> (Place, Handles) {
    let (schema, slots) = (layout.schema(), layout.slots());
    let segment = HeapSegment::new(schema, slots, options).expect("it can be made");
    let handles = if layout.is_fifo() {
        let open = |reading| {
            let opened = segment.fifo_dynamic(Some(schema), Some(slots), options.reading(reading));
            opened.expect("it was made")
        };
        Handles::Fifo {
            writer: open(Reading::Broadcast),
            reader: open(Reading::Shared),
        }
    } else {
        let open = || {
            segment
                .store_dynamic(Some(schema), options)
                .expect("it was made")
        };
        Handles::Store {
            writer: open(),
            reader: open(),
        }
    };
    (Place::Heap(segment), handles)
}

fn with_a_name(layout: &Layout, options: Options) -> (Place, Handles) {
    let name = Name::new("vectors");
    let (schema, slots) = (layout.schema(), layout.slots());
    let handles = if layout.is_fifo() {
        let reading = options.reading(Reading::Shared);
        Handles::Fifo {
            writer: SlotFifo::create_dynamic(&name, schema, slots, options).expect("it is new"),
            reader: SlotFifo::open_dynamic(&name, schema, slots, reading).expect("it was made"),
        }
    } else {
        Handles::Store {
            writer: SlotStore::create_dynamic(&name, schema, options).expect("it is new"),
            reader: SlotStore::open_dynamic(&name, schema, options).expect("it was made"),
        }
    };
    (Place::Named(name), handles)
}

impl Replay<'_> {
    fn what(&self, at: usize) -> String {
        format!("{} {at}", self.name)
    }

    /// The format's own bytes.
    fn image(&self) -> Vec<u8> {
        let mut image = self.place.image();
        let len = self.layout.segment_size() as usize;
        assert!(image.len() == len || self.native && image.len() > len);
        image.truncate(len);
        image
    }

    /// Writes a store's record, or stages an item's.
    fn put(&mut self, values: &Values) -> Result<(), WriteError> {
        match &mut self.handles {
            Handles::Store { writer, .. } => writer.write(values).map(drop),
            Handles::Fifo { writer, .. } => writer.stage(values),
        }
    }

    /// What we refuse leaves everything as it was.
    fn is_refused(&mut self, name: &str, value: Option<Value>, what: &str) {
        // There is no None to be refused.
        let Some(value) = value else { return };
        let before = self.place.image();
        let error = self.put(&Values::new().with(name, value)).expect_err(what);
        let known = self.layout.schema().index_of(name).is_some();
        match error {
            WriteError::Value { source, .. } => match source {
                ValueError::UnknownField { field, .. } => {
                    assert!(field == name && !known, "{what}");
                }
                ValueError::Refused { field, .. } => assert!(field == name && known, "{what}"),
                other => panic!("{what}: {other:?}"),
            },
            other => panic!("{what}: {other:?}"),
        }
        assert!(
            self.place.image() == before,
            "{what}: something was written"
        );
    }

    fn write(&mut self, at: usize, step: &Json) -> String {
        let what = self.what(at);
        let mut refused = Vec::new();
        let schema = self.layout.schema().clone();
        let (values, rules) = values(&schema, step, |name, value| {
            refused.push((name.to_owned(), value));
        });
        self.rules.extend(rules);
        for (name, value) in refused {
            self.is_refused(&name, value, &what);
        }
        let before = self.place.image();
        let Some(values) = values else {
            return "refused".into();
        };
        match self.put(&values) {
            Ok(()) => "done".into(),
            Err(WriteError::Value { .. }) => {
                assert!(
                    self.place.image() == before,
                    "{what}: something was written"
                );
                if self.resumes && self.layout.is_fifo() {
                    // Python stages anything, and finds out later.
                    let rest = values.iter().filter(|(name, _)| *name != "b");
                    let rest = rest.map(|(name, value)| (name, value.clone()));
                    self.put(&rest.collect()).expect("the rest is sound");
                    return "done".into();
                }
                "refused".into()
            }
            Err(other) => panic!("{what}: {other:?}"),
        }
    }

    fn read(&mut self, at: usize, step: &Json) {
        let what = self.what(at);
        let flag = |key: &str| step["args"][key].as_bool() == Some(true);
        let image = self.image();
        let recorded = &step["returns"];
        let (found, expected) = match &mut self.handles {
            Handles::Store { reader, .. } => {
                let record = match reader.read(NOW) {
                    Ok(record) => Some(record),
                    Err(ReadError::Busy { .. }) => None,
                    Err(other) => panic!("{what}: {other:?}"),
                };
                if flag("reset_modified") {
                    assert!(reader.reset_modified().expect("nobody writes"), "{what}");
                }
                both(record.as_deref(), recorded, &self.layout, (&image, 0))
            }
            Handles::Fifo { reader, .. } => {
                let item = if flag("latest") {
                    reader.read_latest(NOW)
                } else {
                    reader.read(NOW)
                };
                let item = match item {
                    Ok(item) => Some(item),
                    Err(ReadError::Timeout { .. } | ReadError::Busy { .. }) => None,
                    Err(other) => panic!("{what}: {other:?}"),
                };
                let slot = item
                    .as_ref()
                    .map_or(0, |item| item.index() % self.layout.slots());
                both(item.as_deref(), recorded, &self.layout, (&image, slot))
            }
        };
        self.judge(at, &expected, &found);
    }

    /// Compares a result with the recorded one, or with the deviation.
    fn judge(&mut self, at: usize, recorded: &str, found: &str) {
        let what = self.what(at);
        let listed = self.listed.results.iter();
        let mut listed = listed.filter(|other| other.case == self.name && other.step == at);
        let Some(other) = listed.next() else {
            assert_eq!(found, recorded, "{what}");
            return;
        };
        assert_ne!(found, recorded, "{what}: the listed deviation is none");
        assert_eq!(found, other.here, "{what}");
        println!("{what}: {found}, recorded is {recorded}: {}", other.why);
        self.listed.occurred.insert(format!("{what}: result"));
    }

    fn step(&mut self, at: usize, step: &Json) {
        let raises = step["raises"].as_str();
        match text(step, "op") {
            "create" => {}
            "poke" => {
                let offset = step["offset"].as_u64().expect("an offset") as usize;
                self.place.poke(offset, &unhex(text(step, "hex")));
            }
            "write" => {
                let found = self.write(at, step);
                let recorded = if raises.is_some() { "refused" } else { "done" };
                self.judge(at, recorded, &found);
            }
            "finalize" => {
                let Handles::Fifo { writer, .. } = &mut self.handles else {
                    panic!("a store is not finalized");
                };
                // What Python stores of it comes below.
                let fails = self.resumes && raises.is_some();
                let done = if fails { Ok(None) } else { writer.finalize() };
                let found = if done.is_ok() && !fails {
                    "done"
                } else {
                    "refused"
                };
                let recorded = if raises.is_some() { "refused" } else { "done" };
                self.judge(at, recorded, found);
            }
            "read" => self.read(at, step),
            op => panic!("{op}"),
        }
        if let Some(file) = step["segment_after"].as_str() {
            let recorded = load(file);
            if self.resumes && raises.is_some() && self.name != "hostile_single" {
                assert_ne!(self.image(), recorded, "{} {at}", self.name);
                self.place.poke(0, &recorded);
            }
            self.compare(at, &recorded);
        }
    }

    /// Compares the format's bytes with an image.
    fn compare(&mut self, at: usize, recorded: &[u8]) {
        let what = self.what(at);
        let (image, mut expected) = (self.image(), recorded.to_vec());
        assert_eq!(image.len(), expected.len(), "{what}");
        let listed = self.listed.bytes.iter();
        for other in listed.filter(|other| other.case == self.name && other.steps.contains(&at)) {
            let (was, is) = (unhex(other.recorded), unhex(other.here));
            let range = other.at..other.at + was.len();
            assert_eq!(expected[range.clone()], was, "{what}, byte {}", other.at);
            assert_eq!(was.len(), is.len(), "{what}, byte {}", other.at);
            let all = was.iter().zip(&is).all(|(was, is)| was != is);
            assert!(all, "{what}, byte {}: listed, and the same", other.at);
            expected[range].copy_from_slice(&is);
            println!(
                "{what}, byte {}: {} where {} is recorded: {}",
                other.at, other.here, other.recorded, other.why
            );
            self.listed
                .occurred
                .insert(format!("{what}: byte {}", other.at));
        }
        let differing: Vec<_> = (0..image.len())
            .filter(|at| image[*at] != expected[*at])
            .map(|at| format!("{at}: {:#04x}, not {:#04x}", image[at], expected[at]))
            .collect();
        assert!(differing.is_empty(), "{what}: {differing:#?}");
    }
}

/// Replays every case; all deviations that are listed occur.
fn replay(
    native: bool,
    resumes: bool,
    mut listed: Listed,
    make: impl Fn(&Layout, Options) -> (Place, Handles),
) {
    let mut rules = BTreeSet::new();
    let (mut all, mut images) = (0, 0);
    for case in &cases() {
        let name = text(case, "name");
        if resumes && !RESUMED.contains(&name) {
            continue;
        }
        let layout = layout(case);
        let (place, handles) = make(&layout, Options::new().trailer(native));
        let mut replay = Replay {
            name,
            layout,
            native,
            resumes,
            place,
            handles,
            listed: &mut listed,
            rules: &mut rules,
        };
        for (at, step) in steps(case).iter().enumerate() {
            replay.step(at, step);
            all += 1;
            images += usize::from(step["segment_after"].is_string());
        }
        let has_trailer = match &replay.handles {
            Handles::Store { writer, reader } => [writer.has_trailer(), reader.has_trailer()],
            Handles::Fifo { writer, reader } => [writer.has_trailer(), reader.has_trailer()],
        };
        assert_eq!(has_trailer, [native; 2]);
    }
    listed.check();
    if !resumes {
        assert_eq!((all, images), (STEPS, IMAGES));
        assert_eq!(rules.into_iter().collect::<Vec<_>>(), RULES);
    }
}

#[test]
fn every_step_gives_the_same_bytes() {
    let listed = Listed::new(OTHER_RESULTS, OTHER_BYTES, false);
    replay(false, false, listed, on_the_heap);
}

#[test]
fn every_step_gives_the_same_bytes_by_name() {
    let listed = Listed::new(OTHER_RESULTS, OTHER_BYTES, false);
    replay(false, false, listed, with_a_name);
}

#[test]
fn the_trailer_changes_nothing_of_it() {
    let listed = || Listed::new(OTHER_RESULTS, OTHER_BYTES, true);
    replay(true, false, listed(), on_the_heap);
    replay(true, false, listed(), with_a_name);
}

/// The cases in which Python breaks off in the middle of a slot.
const RESUMED: [&str; 3] = ["scalars", "strings", "fifo_error"];

#[test]
fn a_slot_that_python_left_half_written_is_gone_on_with() {
    for native in [false, true] {
        let listed = || Listed::new(&[], &[], native);
        replay(native, true, listed(), on_the_heap);
        replay(native, true, listed(), with_a_name);
    }
}

// The images as segments.

/// What an image says of slot `slot`, in the words of [`shown`], with the listed
/// exception for texts that claim more than their field.
fn recorded(step: &Json, layout: &Layout, image: &[u8], slot: u64) -> Option<String> {
    let fields = step["slots_decoded"][slot as usize].as_object()?;
    let start = layout.slot_offset(slot);
    let specs = layout.schema().fields().iter().zip(layout.fields());
    let fields = specs.map(|(spec, place)| {
        let in_image = &image[start + place.offset..][..place.size];
        let mut field = fields[&spec.name].clone();
        if let FieldType::Text { max_chars } = spec.ty {
            let digits = text(&field["value"], "utf8_hex").to_owned();
            let room = 8 * max_chars as usize;
            if digits.len() > room {
                field["value"]["utf8_hex"] = digits[..room].into();
                field["truncated"] = true.into();
                field["valid"] = false.into();
                let status = field["status_byte"].as_u64().expect("a byte");
                field["status_byte"] = (status | u64::from(Status::TRUNCATED)).into();
            }
        }
        expected(&spec.name, &field, in_image)
    });
    Some(fields.collect::<Vec<_>>().join("; "))
}

fn all_shown(record: &DynamicFields) -> String {
    record.iter().map(shown).collect::<Vec<_>>().join("; ")
}

/// Opened, it is read as recorded, and no byte changes; gives whether there was
/// a record.
fn read_store(step: &Json, layout: &Layout, image: &[u8]) -> bool {
    let segment = HeapSegment::from_image(image);
    let mut store = segment
        .store_dynamic(Some(layout.schema()), Options::new())
        .expect("it is whole");
    assert!(!store.has_trailer());
    let expected = recorded(step, layout, image, 0);
    let found = match store.read(NOW) {
        Ok(record) => {
            let number = u64::from_le_bytes(image[..8].try_into().expect("eight bytes"));
            assert_eq!(record.number(), number);
            Some(all_shown(&record))
        }
        Err(ReadError::Busy { .. }) => None,
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(found, expected, "{step}");
    assert!(segment.image() == image);
    found.is_some()
}

/// As [`read_store`], for each item that the indices tell of: gives how many a
/// broadcast reader delivers.
fn read_fifo(step: &Json, layout: &Layout, image: &[u8]) -> u64 {
    let meta = Meta::read(image).expect("it is long enough");
    let (next, read, slots) = (meta.write_idx.get(), meta.read_idx.get(), layout.slots());
    let segment = HeapSegment::from_image(image);
    let open = |reading| {
        segment
            .fifo_dynamic(
                Some(layout.schema()),
                Some(slots),
                Options::new().reading(reading),
            )
            .expect("it is whole")
    };
    let mut broadcast = open(Reading::Broadcast);
    assert_eq!(broadcast.finalized(), next);
    let (mut delivered, mut lost) = (0, 0);
    while let Some(item) = broadcast.try_read() {
        let found = Some(all_shown(&item));
        let expected = recorded(step, layout, image, item.index() % slots);
        assert_eq!(found, expected, "{step}");
        delivered += 1;
        lost += item.overrun();
    }
    let end = broadcast.read(NOW);
    assert!(matches!(end, Err(ReadError::Timeout { .. })), "{end:?}");
    assert_eq!(delivered + lost, next.min(slots), "{step}");
    assert!(
        segment.image() == image,
        "who reads for itself stores nothing"
    );

    let mut shared = open(Reading::Shared);
    let mut at = read;
    while let Some(item) = shared.try_read() {
        let expected = recorded(step, layout, image, item.index() % slots);
        assert_eq!(Some(all_shown(&item)), expected, "{step}");
        assert_eq!(item.index(), at.wrapping_add(item.overrun()), "{step}");
        at = item.index().wrapping_add(1);
    }
    let after = Meta::read(&segment.image()).expect("it is long enough");
    assert_eq!(after.write_idx.get(), next);
    assert_eq!(segment.image()[24..], image[24..], "but for the indices");
    delivered
}

#[test]
fn every_image_is_opened_and_read() {
    let (mut images, mut records, mut items) = (0, 0, 0);
    let mut refused = Vec::new();
    for case in &cases() {
        let layout = layout(case);
        for step in steps(case) {
            let Some(file) = step["segment_after"].as_str() else {
                continue;
            };
            let image = load(file);
            images += 1;
            if layout.is_fifo() {
                items += read_fifo(step, &layout, &image);
            } else if file.starts_with("zeroed_window") && !file.ends_with("00.bin") {
                // What a creator has not finished looks so (section 2.3).
                let segment = HeapSegment::from_image(&image);
                match segment.store_dynamic(Some(layout.schema()), Options::new()) {
                    Err(OpenError::NotReady { .. }) => refused.push(file.to_owned()),
                    other => panic!("{other:?}"),
                }
            } else {
                records += usize::from(read_store(step, &layout, &image));
            }
        }
    }
    assert_eq!(images, IMAGES);
    println!("{images} images: {records} records, {items} items, refused: {refused:?}");
    assert_eq!(refused, ["zeroed_window.01.bin", "zeroed_window.02.bin"]);
    assert_eq!((records, items), (120, 204));
}

/// Nothing in a Python segment tells what it is but its length.
#[test]
fn an_image_of_another_schema_is_refused_where_it_shows() {
    let schema: Schema = "z: float64[3,5,7]".parse().expect("a schema");
    for case in &cases() {
        let layout = layout(case);
        for step in steps(case) {
            let Some(file) = step["segment_after"].as_str() else {
                continue;
            };
            let image = load(file);
            let segment = HeapSegment::from_image(&image);
            let opened = segment.store_dynamic(Some(&schema), Options::new());
            let wanted = Layout::new(&schema, 1).expect("small").segment_size();
            match opened {
                Err(OpenError::Length { len, expected, .. }) => {
                    assert_eq!((len, expected), (image.len() as u64, wanted));
                    assert!(len > expected);
                }
                Err(OpenError::Mismatch { .. }) => assert!((image.len() as u64) < wanted),
                other => panic!("{file}: {other:?}"),
            }
            let own = segment.fifo_dynamic(
                Some(layout.schema()),
                Some(layout.slots() + 1),
                Options::new(),
            );
            match own {
                Err(OpenError::Mismatch { .. }) => {}
                other => panic!("{file}: {other:?}"),
            }
            let untold = segment.store_dynamic(None, Options::new());
            assert!(matches!(untold, Err(OpenError::NoSchema { .. })), "{file}");
        }
    }
}
