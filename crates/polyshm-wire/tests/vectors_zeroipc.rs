//! Reads segments that the C++, Python, C and Go implementations left behind
//! and compares everything the manifest says about them.

#![allow(missing_docs)]

#[path = "common/zeroipc.rs"]
mod common;

use std::{collections::BTreeSet, fmt::Write as _, fs};

use polyshm_wire::zeroipc::{
    ArrayForm, ArrayLayout, BarrierImage, Candidate, ChannelHeader, ChannelSync, Composite, DType,
    Dialect, ENTRY_SIZE, Entry, EventImage, Extent, FutureHeader, FutureLayout, HEADER_SIZE,
    ImageError, KeyKind, LatchImage, LazyBoolImage, LazyLayout, MAGIC, MARKER_SIZE, MapHeader,
    MapLayout, PoolHeader, PoolLayout, QueueHeader, QueueLayout, RingHeader, RingLayout,
    RwLockImage, SemaphoreImage, SetHeader, SetLayout, SignalLayout, SlotLayout, StackHeader,
    StackLayout, StreamHeader, StreamVoid, TableHeader, VERSION, channel, check_name, describe,
    entry_at, event, future, hash_bytes, hash_integer, key_hash, keys_equal, latch, lazy,
    lazy_bool, map, monitor, once, place, pool, rwlock, semaphore, signal, stack, stream,
    table_end,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use Dialect::{Cpp, Python};

fn sha256(bytes: &[u8]) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(bytes) {
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

fn u32_at(block: &[u8], at: u64) -> u32 {
    u32::from_le_bytes(block[index(at)..][..4].try_into().unwrap())
}

fn u64_at(block: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(block[index(at)..][..8].try_into().unwrap())
}

fn i32_at(block: &[u8], at: u64) -> i32 {
    u32_at(block, at).cast_signed()
}

fn text_at(block: &[u8], at: u64) -> &str {
    let bytes = &block[index(at)..];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    std::str::from_utf8(&bytes[..end]).unwrap()
}

/// One structure of an image.
fn block<'a>(image: &'a [u8], name: &str) -> &'a [u8] {
    let header = TableHeader::read(image).unwrap();
    for index in 0..header.entry_count.get() {
        let entry = Entry::read(image, index).unwrap();
        if entry.has_name(name) {
            let extent = entry.extent(index, &header).unwrap();
            return &image[self::index(extent.offset)..self::index(extent.end())];
        }
    }
    panic!("no entry {name}");
}

/// What an entry of an image is, with the parameters of its creation.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Array(ArrayForm, u64, u64),
    /// requested capacity, element size
    Queue(u64, u64),
    Stack(u64, u64),
    /// bytes as requested, element size
    Ring(u64, u64),
    /// capacity, element size, alignment
    Pool(u64, u64, u64),
    Map(Dialect, u64, (u64, u64), (u64, u64)),
    Set(Dialect, u64, (u64, u64)),
    Semaphore,
    Mutex,
    Barrier,
    Latch,
    Once,
    Event,
    RwState,
    MonitorCount,
    /// the marker of this
    Marker(Composite),
    Signal(Dialect, u64, u64),
    ChannelHeader,
    ChannelSync,
    Slot(u64, u64),
    StreamHeader,
    StreamVoid,
    Future(Dialect, u64, u64),
    Lazy(Dialect, u64, u64),
    LazyBool,
    /// bytes that nobody gave a meaning
    Bytes(u64),
}

/// The parts of composites that are structures on their own as well.
fn part(name: &str) -> Option<Kind> {
    Some(match name.rsplit_once('_')?.1 {
        "sem" | "cond" => Kind::Semaphore,
        "rmtx" | "wmtx" | "mtx" => Kind::Mutex,
        "count" => Kind::MonitorCount,
        "sync" => Kind::ChannelSync,
        _ => return None,
    })
}

/// From the manifest's parameters and steps, which are prose.
fn kind(file: &str, name: &str) -> Kind {
    let dialect = if file.ends_with(".py.bin") {
        Python
    } else {
        Cpp
    };
    if let Some(kind) = part(name) {
        return kind;
    }
    let i32_key = (4, 4);
    let u64_key = (8, 8);
    let base = file.split('.').next().unwrap();
    match (base, name) {
        ("multi", _) => multi(name, dialect),
        ("full_table", _) if file.ends_with(".c.bin") => Kind::Array(ArrayForm::C, 2, 4),
        ("full_table" | "dup_and_long_name" | "name_utf8_overlong", _) => {
            Kind::Array(ArrayForm::Plain, 2, 4)
        }
        ("name31", "after") => Kind::Array(ArrayForm::Plain, 1, 4),
        ("name31", _) => Kind::Array(ArrayForm::Plain, 3, 1),
        ("table_removed", _) => Kind::Bytes(16),
        ("array_f32", _) => Kind::Array(ArrayForm::Plain, 5, 4),
        ("array_f64", _) => Kind::Array(ArrayForm::Plain, 3, 8),
        ("array_i32", _) if file.ends_with(".c.bin") => Kind::Array(ArrayForm::C, 10, 4),
        ("array_i32", _) => Kind::Array(ArrayForm::Plain, 10, 4),
        ("array_struct", _) => Kind::Array(ArrayForm::Plain, 3, 12),
        ("array_struct_padded", _) => Kind::Array(ArrayForm::Plain, 2, 24),
        ("queue_i32_cap5", _) => Kind::Queue(5, 4),
        ("queue_u8_cap3", _) => Kind::Queue(3, 1),
        ("queue_3byte", _) => Kind::Queue(2, 3),
        ("queue_12byte_cap1", _) => Kind::Queue(1, 12),
        ("stack_u8_cap3", _) => Kind::Stack(3, 1),
        ("ring_i32_fresh", _) => Kind::Ring(18, 4),
        ("ring_f64", _) => Kind::Ring(24, 8),
        ("pool_f64", _) => Kind::Pool(3, 8, 8),
        ("pool_3byte", _) => Kind::Pool(3, 3, 1),
        ("map_u32_f64_full", _) => Kind::Map(dialect, 4, i32_key, u64_key),
        ("map_u64_u64", _) => Kind::Map(dialect, 8, u64_key, u64_key),
        ("map_char16_u64", _) => Kind::Map(dialect, 8, (16, 1), u64_key),
        ("map_f64_i32", _) => Kind::Map(dialect, 8, u64_key, i32_key),
        ("set_char8", _) => Kind::Set(dialect, 8, (8, 1)),
        ("set_i32", _) => Kind::Set(dialect, 8, i32_key),
        ("set_u64", _) => Kind::Set(dialect, 4, u64_key),
        ("signal_f64_v1", "sig_state") => Kind::Signal(dialect, 8, 8),
        (_, "sig_state") => Kind::Signal(dialect, 4, 4),
        (_, "sig") => Kind::Marker(Composite::Signal),
        (_, "rw_state") => Kind::RwState,
        (_, "rw") => Kind::Marker(Composite::RwLock),
        (_, "mon") => Kind::Marker(Composite::Monitor),
        (_, "ch_header") => Kind::ChannelHeader,
        (_, "ch_buffer") | ("channel_buffered" | "channel_closed", "ch") => Kind::Queue(3, 4),
        ("channel_unbuffered_f64", "ch_slot") => Kind::Slot(8, 8),
        (_, "ch_slot") => Kind::Slot(4, 4),
        (_, "ch") => Kind::Queue(2, 4),
        ("stream_f64" | "stream_f64_closed", "st_header") => Kind::StreamHeader,
        ("stream_f64" | "stream_f64_closed", _) => Kind::Ring(32, 8),
        ("stream_void", _) => Kind::StreamVoid,
        ("lazy_bool", _) => Kind::LazyBool,
        ("lazy_f64_err", _) => Kind::Lazy(dialect, 8, 8),
        _ => match base.split('_').next().unwrap() {
            "queue" => Kind::Queue(4, 4),
            "stack" => Kind::Stack(4, 4),
            "ring" => Kind::Ring(16, 4),
            "pool" => Kind::Pool(4, 4, 4),
            "map" => Kind::Map(dialect, 8, i32_key, i32_key),
            "semaphore" => Kind::Semaphore,
            "mutex" => Kind::Mutex,
            "barrier" => Kind::Barrier,
            "latch" => Kind::Latch,
            "once" => Kind::Once,
            "event" => Kind::Event,
            "future" if base.starts_with("future_f64") => Kind::Future(dialect, 8, 8),
            "future" => Kind::Future(dialect, 4, 4),
            "lazy" => Kind::Lazy(dialect, 4, 4),
            _ => panic!("{file}: entry {name} is not known here"),
        },
    }
}

fn multi(name: &str, dialect: Dialect) -> Kind {
    match name {
        "temps" => Kind::Array(ArrayForm::Plain, 8, 4),
        "jobs" => Kind::Queue(8, 4),
        "undo" => Kind::Stack(4, 8),
        "sem" => Kind::Semaphore,
        "lock" => Kind::Mutex,
        "bar" => Kind::Barrier,
        "gate" => Kind::Latch,
        "init" => Kind::Once,
        "ready" => Kind::Event,
        "rw_state" => Kind::RwState,
        "rw" => Kind::Marker(Composite::RwLock),
        "mon" => Kind::Marker(Composite::Monitor),
        "cfg_state" => Kind::Signal(dialect, 8, 8),
        "cfg" => Kind::Marker(Composite::Signal),
        "log" => Kind::Ring(32, 2),
        "idx" => Kind::Map(dialect, 8, (4, 4), (8, 8)),
        "seen" => Kind::Set(dialect, 8, (4, 4)),
        "blk" => Kind::Pool(4, 8, 8),
        "ch_header" => Kind::ChannelHeader,
        "ch" | "ch_buffer" => Kind::Queue(2, 4),
        "fut" => Kind::Future(dialect, 8, 8),
        "lz" => Kind::Lazy(dialect, 8, 8),
        "feed_header" => Kind::StreamHeader,
        "feed" | "feed_buffer" => Kind::Ring(16, 4),
        other => panic!("multi: entry {other} is not known here"),
    }
}

fn check_table(entry: &Value, image: &[u8]) {
    let file = text(&entry["file"]);
    let expected = entry["table_header"].as_object().unwrap();
    let header = TableHeader::read(image).unwrap();
    assert_eq!(header.to_bytes()[..], image[..index(HEADER_SIZE)], "{file}");
    for (field, value) in expected {
        let found = match field.as_str() {
            "magic" => {
                assert_eq!(text(value), format!("0x{MAGIC:X}"), "{file}");
                assert_eq!(header.magic.get(), MAGIC, "{file}");
                continue;
            }
            "version" => header.version.get().into(),
            "entry_count" => header.entry_count.get().into(),
            "max_entries" => header.max_entries.get().into(),
            "memory_size" => header.memory_size.get(),
            "next_offset" => header.next_offset.get(),
            other => panic!("{file}: field {other} is not known here"),
        };
        assert_eq!(found, number(value), "{file}: {field}");
    }
    assert_eq!(expected.len(), 6, "{file}");
    assert_eq!(header.version.get(), VERSION, "{file}");
    header.check(image.len() as u64).unwrap();
    assert!(header.check(image.len() as u64 - 1).is_err(), "{file}");

    let entries = list(&entry["expected_entries"]);
    assert_eq!(header.entry_count.get() as usize, entries.len(), "{file}");
    for (expected, at) in entries.iter().zip(0..) {
        let name = text(&expected["name"]);
        let found = Entry::read(image, at).unwrap();
        let bytes = &image[index(entry_at(at))..][..index(ENTRY_SIZE)];
        assert_eq!(found.to_bytes()[..], *bytes, "{file}: {name}");
        let extent = Extent {
            offset: number(&expected["offset"]),
            size: number(&expected["size"]),
        };
        assert_eq!(found.extent(at, &header), Ok(extent), "{file}: {name}");
        assert_eq!(found.name_lossy(), name, "{file}");
        if expected.get("unterminated").is_some() {
            let text = name.to_owned();
            let error = ImageError::NameNotTerminated { text };
            assert_eq!(found.name(), Err(error), "{file}");
            assert!(!found.has_name(name), "{file}");
        } else {
            assert_eq!(found.name(), Ok(name), "{file}");
            assert!(found.has_name(name), "{file}");
            // What we would write is what they wrote.
            check_name(name).unwrap();
            assert_eq!(Entry::new(name, extent), Ok(found), "{file}");
        }
    }
}

/// What every layout must do with the entry of its structure: ask for its size,
/// take its header, refuse an entry that is shorter and elements of another
/// size.
fn check_layout(label: &str, kind: Kind, block: &[u8]) {
    match kind {
        Kind::Array(..) | Kind::Queue(..) | Kind::Stack(..) | Kind::Ring(..) | Kind::Pool(..) => {
            check_sequence(label, kind, block);
        }
        Kind::Map(..) | Kind::Set(..) => check_table_of_keys(label, kind, block),
        Kind::Signal(..) | Kind::Slot(..) | Kind::Future(..) | Kind::Lazy(..) => {
            check_cell(label, kind, block);
        }
        _ => check_fixed(label, kind, block),
    }
}

/// The caller expects something else; the image is not damaged.
fn wrong<T: std::fmt::Debug>(result: Result<T, ImageError>) {
    let error = result.unwrap_err();
    assert!(error.is_mismatch(), "{error}");
}

fn check_sequence(label: &str, kind: Kind, block: &[u8]) {
    let size = block.len() as u64;
    let sixteen = || *block.first_chunk::<16>().unwrap();
    let twenty_four = || *block.first_chunk::<24>().unwrap();
    match kind {
        Kind::Array(form, capacity, elem) => {
            let layout = ArrayLayout::new(form, capacity, elem).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            let first = &block[..block.len().min(16)];
            assert_eq!(ArrayLayout::read(first, size, elem), Ok(layout), "{label}");
            assert!(ArrayLayout::read(first, size - 1, elem).is_err(), "{label}");
            assert!(ArrayLayout::read(first, size + 1, elem).is_err(), "{label}");
            // Not twice the size: two elements of 4 bytes behind C's header are
            // as long as two of 8 behind the other.
            wrong(ArrayLayout::read(first, size, elem + 1));
            let (header, len) = layout.header_bytes();
            assert_eq!(header[..len], block[..len], "{label}");
            assert_eq!(len as u64, layout.header_size(), "{label}");
        }
        Kind::Queue(requested, elem) => {
            let layout = QueueLayout::read(&sixteen(), size, Some(elem)).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            if requested == 1 {
                // Made by a peer that does not round up to 2.
                assert!(!layout.is_usable());
                assert_eq!(QueueLayout::new(1, elem).unwrap().capacity, 2);
            } else {
                assert_eq!(QueueLayout::new(requested, elem), Ok(layout), "{label}");
            }
            assert_eq!(QueueLayout::read(&sixteen(), size, None), Ok(layout));
            assert!(QueueLayout::read(&sixteen(), size - 1, None).is_err());
            wrong(QueueLayout::read(&sixteen(), size, Some(elem + 1)));
        }
        Kind::Stack(capacity, elem) => {
            let layout = StackLayout::new(capacity, elem).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            assert_eq!(StackLayout::read(&sixteen(), size, Some(elem)), Ok(layout));
            assert_eq!(StackLayout::read(&sixteen(), size, None), Ok(layout));
            assert!(StackLayout::read(&sixteen(), size - 1, None).is_err());
            wrong(StackLayout::read(&sixteen(), size, Some(elem + 1)));
        }
        Kind::Ring(bytes, elem) => {
            let layout = RingLayout::from_bytes(bytes, elem).unwrap();
            assert_eq!(layout, RingLayout::new(bytes / elem, elem).unwrap());
            assert_eq!(layout.size(), size, "{label}");
            assert_eq!(
                RingLayout::read(&twenty_four(), size, Some(elem)),
                Ok(layout)
            );
            assert_eq!(RingLayout::read(&twenty_four(), size, None), Ok(layout));
            assert!(RingLayout::read(&twenty_four(), size - 1, None).is_err());
            wrong(RingLayout::read(&twenty_four(), size, Some(elem + 1)));
        }
        Kind::Pool(capacity, elem, align) => {
            let layout = PoolLayout::new(capacity, elem, align).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            let header = twenty_four();
            assert_eq!(PoolLayout::read(&header, size, elem, align), Ok(layout));
            assert!(PoolLayout::read(&header, size - 1, elem, align).is_err());
            wrong(PoolLayout::read(&header, size, elem + 1, align));
            if align == 8 {
                // The mistake of the Python implementation when it opens one.
                wrong(PoolLayout::read(&header, size, elem, 4));
            }
        }
        _ => panic!("{label} is no sequence"),
    }
}

fn check_table_of_keys(label: &str, kind: Kind, block: &[u8]) {
    let size = block.len() as u64;
    let header = block.first_chunk().unwrap();
    match kind {
        Kind::Map(dialect, capacity, key, value) => {
            let layout = MapLayout::new(dialect, capacity, key, value).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            let read =
                |size, dialect, key, value| MapLayout::read(header, size, dialect, key, value);
            assert_eq!(read(size, dialect, key, value), Ok(layout), "{label}");
            assert!(read(size - 1, dialect, key, value).is_err(), "{label}");
            wrong(read(size, dialect, (key.0 * 2, key.1), value));
            wrong(read(size, dialect, key, (value.0 * 2, value.1)));
            let other = if dialect == Cpp { Python } else { Cpp };
            let same = MapLayout::new(other, capacity, key, value).unwrap().size() == size;
            assert_eq!(read(size, other, key, value).is_ok(), same, "{label}");
        }
        Kind::Set(dialect, capacity, (elem, align)) => {
            let layout = SetLayout::new(dialect, capacity, elem, align).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            let read = |size, dialect, elem| SetLayout::read(header, size, dialect, elem, align);
            assert_eq!(read(size, dialect, elem), Ok(layout), "{label}");
            assert!(read(size - 1, dialect, elem).is_err(), "{label}");
            wrong(read(size, dialect, elem * 2));
            let other = if dialect == Cpp { Python } else { Cpp };
            wrong(read(size, other, elem));
        }
        _ => panic!("{label} has no keys"),
    }
}

fn check_fixed(label: &str, kind: Kind, block: &[u8]) {
    let fixed = |expected: u64| assert_eq!(block.len() as u64, expected, "{label}");
    match kind {
        Kind::Semaphore | Kind::Mutex => {
            fixed(semaphore::SIZE);
            let image = SemaphoreImage::read(block).unwrap();
            image.check().unwrap();
            assert_eq!(image.is_mutex(), matches!(kind, Kind::Mutex), "{label}");
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::Barrier => {
            fixed(polyshm_wire::zeroipc::barrier::SIZE);
            let image = BarrierImage::read(block).unwrap();
            image.check().unwrap();
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::Latch => {
            fixed(latch::SIZE);
            let image = LatchImage::read(block).unwrap();
            image.check().unwrap();
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::Once => fixed(once::SIZE),
        Kind::Event => {
            fixed(event::SIZE);
            let image = EventImage::read(block).unwrap();
            image.check().unwrap();
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::RwState => {
            fixed(rwlock::SIZE);
            let image = RwLockImage::read(block).unwrap();
            image.check().unwrap();
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::MonitorCount => fixed(monitor::COUNT_SIZE),
        Kind::Marker(_) => fixed(MARKER_SIZE),
        Kind::ChannelHeader => {
            fixed(channel::header::SIZE);
            let header = ChannelHeader::read(block).unwrap();
            assert_eq!(header.to_bytes()[..], *block, "{label}");
        }
        Kind::ChannelSync => {
            fixed(channel::sync::SIZE);
            let sync = ChannelSync::read(block).unwrap();
            assert_eq!(sync.to_bytes()[..], *block, "{label}");
        }
        Kind::StreamHeader => {
            fixed(stream::HEADER_SIZE);
            let header = StreamHeader::read(block).unwrap();
            assert_eq!(header.to_bytes()[..], *block, "{label}");
        }
        Kind::StreamVoid => fixed(stream::void::SIZE),
        Kind::LazyBool => {
            fixed(lazy_bool::SIZE);
            let image = LazyBoolImage::read(block).unwrap();
            assert_eq!(image.to_bytes()[..], *block, "{label}");
        }
        Kind::Bytes(expected) => fixed(expected),
        _ => panic!("{label} has no fixed size"),
    }
}

fn check_cell(label: &str, kind: Kind, block: &[u8]) {
    let size = block.len() as u64;
    match kind {
        Kind::Signal(dialect, elem, align) => {
            let layout = SignalLayout::new(dialect, elem, align).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            for dialect in [Cpp, Python] {
                let layout = SignalLayout::new(dialect, elem, align).unwrap();
                assert!(layout.accepts(size), "{label}");
                assert!(!layout.accepts(size + 8), "{label}");
                assert!(!layout.accepts(size - 8), "{label}");
            }
        }
        Kind::Slot(elem, align) => {
            let layout = SlotLayout::new(elem, align).unwrap();
            assert_eq!(layout.check(size), Ok(()), "{label}");
            wrong(layout.check(size - 1));
            wrong(layout.check(size + 1));
        }
        Kind::Future(dialect, elem, align) => {
            let layout = FutureLayout::new(dialect, elem, align).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            let read = FutureLayout::read(size, elem, align).unwrap();
            assert_eq!(read.error_offset(), layout.error_offset(), "{label}");
            // f64: the same size in both.
            assert_eq!(read.dialect == dialect, dialect == Cpp || elem == 4);
            wrong(FutureLayout::read(size - 1, elem, align));
            wrong(FutureLayout::read(size + 8, elem, align));
        }
        Kind::Lazy(dialect, elem, align) => {
            let layout = LazyLayout::new(dialect, elem, align).unwrap();
            assert_eq!(layout.size(), size, "{label}");
            assert_eq!(LazyLayout::read(size, elem, align), Ok(layout), "{label}");
            wrong(LazyLayout::read(size - 1, elem, align));
            wrong(LazyLayout::read(size + 8, elem, align));
        }
        _ => panic!("{label} is no cell"),
    }
}

/// Whether a candidate of `describe` is what the entry really is.
fn is(candidate: &Candidate, kind: Kind, name: &str, block: &[u8]) -> bool {
    match (kind, candidate) {
        (
            Kind::Array(form, capacity, elem_size),
            Candidate::Array {
                form: f,
                capacity: c,
                elem_size: e,
            },
        ) => (form, capacity, elem_size) == (*f, *c, *e),
        (
            Kind::Queue(requested, elem),
            Candidate::Queue {
                capacity,
                elem_size,
                head,
                tail,
            },
        ) => {
            u64::from(*capacity) == requested.next_power_of_two()
                && u64::from(*elem_size) == elem
                && (*head, *tail) == (u32_at(block, 0), u32_at(block, 4))
        }
        (
            Kind::Stack(capacity, elem),
            Candidate::Stack {
                capacity: c,
                elem_size,
                top,
            },
        ) => (capacity, elem, i32_at(block, 0)) == ((*c).into(), (*elem_size).into(), *top),
        (
            Kind::Ring(bytes, elem),
            Candidate::Ring {
                capacity,
                elem_size,
                write_pos,
                read_pos,
            },
        ) => {
            u64::from(*capacity) == bytes / elem * elem
                && u64::from(*elem_size) == elem
                && (*write_pos, *read_pos) == (u64_at(block, 0), u64_at(block, 8))
        }
        (
            Kind::Pool(capacity, elem, align),
            Candidate::Pool {
                capacity: c,
                elem_size,
                elem_align,
                ..
            },
        ) => {
            (capacity, elem, align.max(4))
                == ((*c).into(), (*elem_size).into(), (*elem_align).into())
        }
        (
            Kind::Map(dialect, capacity, key, value),
            Candidate::Map {
                dialect: d,
                capacity: c,
                key_offset,
                value_offset,
                ..
            },
        ) => {
            let layout = MapLayout::new(dialect, capacity, key, value).unwrap();
            (dialect, layout.capacity) == (*d, *c)
                && (layout.key_offset(), layout.value_offset()) == (*key_offset, *value_offset)
        }
        (
            Kind::Set(dialect, capacity, elem),
            Candidate::Set {
                dialect: d,
                capacity: c,
                elem_offset,
                ..
            },
        ) => {
            let layout = SetLayout::new(dialect, capacity, elem.0, elem.1).unwrap();
            (dialect, layout.capacity, layout.elem_offset()) == (*d, *c, *elem_offset)
        }
        _ => is_no_container(candidate, kind, name),
    }
}

fn is_no_container(candidate: &Candidate, kind: Kind, name: &str) -> bool {
    match (kind, candidate) {
        (Kind::Marker(Composite::RwLock), Candidate::RwLock { .. })
        | (Kind::Marker(Composite::Monitor), Candidate::Monitor { .. })
        | (Kind::Marker(Composite::Signal), Candidate::Signal { .. })
        | (Kind::Semaphore, Candidate::Semaphore { .. })
        | (Kind::Mutex, Candidate::Mutex { .. })
        | (Kind::Barrier, Candidate::Barrier { .. })
        | (Kind::Latch, Candidate::Latch { .. })
        | (Kind::Once, Candidate::Once { .. })
        | (Kind::Event, Candidate::Event { .. })
        | (Kind::StreamVoid, Candidate::StreamVoid { .. })
        | (Kind::LazyBool, Candidate::LazyBool { .. })
        | (Kind::Bytes(_), _) => true,
        (Kind::ChannelHeader, Candidate::Channel { name: base, .. })
        | (Kind::StreamHeader, Candidate::Stream { name: base, .. }) => {
            format!("{base}_header") == name
        }
        (
            Kind::RwState
            | Kind::MonitorCount
            | Kind::Signal(..)
            | Kind::ChannelSync
            | Kind::Slot(..),
            Candidate::Part { of, .. },
        ) => name.starts_with(&format!("{of}_")),
        (
            Kind::Future(dialect, elem, _),
            Candidate::Future {
                dialect: d,
                min_value_size,
                max_value_size,
                ..
            },
        ) => dialect == *d && (*min_value_size..=*max_value_size).contains(&elem),
        (
            Kind::Lazy(dialect, elem, align),
            Candidate::Lazy {
                dialect: d,
                value_size,
                value_align,
                ..
            },
        ) => {
            dialect == *d
                && elem == u64::from(*value_size)
                && (dialect == Python || align == u64::from(*value_align))
        }
        _ => false,
    }
}

#[test]
fn every_image_reads_as_the_manifest_says() {
    let images = common::images();
    let mut names = BTreeSet::new();
    let mut entries = 0;
    for (entry, image) in &images {
        let file = text(&entry["file"]);
        assert!(names.insert(file.to_owned()));
        assert_eq!(image.len() as u64, number(&entry["bytes"]), "{file}");
        assert_eq!(sha256(image), text(&entry["sha256"]), "{file}");
        check_table(entry, image);

        let seen = describe(image).unwrap();
        for (found, expected) in seen.entries.iter().zip(list(&entry["expected_entries"])) {
            let name = text(&expected["name"]);
            let label = format!("{file}: {name}");
            assert_eq!(found.name, name, "{label}");
            let broken = expected.get("unterminated").is_some();
            assert_eq!(found.problems.len(), usize::from(broken), "{label}");
            let kind = kind(file, name);
            let block = &image[index(found.extent.offset)..index(found.extent.end())];
            check_layout(&label, kind, block);
            let right = |candidate| is(candidate, kind, name, block);
            // Bytes that nobody gave a meaning may be anything or nothing.
            assert!(
                found.candidates.iter().any(right) || matches!(kind, Kind::Bytes(_)),
                "{label}: {:?}",
                found.candidates
            );
            entries += 1;
        }
        assert_eq!(seen.entries.len(), list(&entry["expected_entries"]).len());
    }
    assert_eq!(images.len(), 120);
    assert_eq!(entries, 240);
    println!("checked {} images, {entries} entries", images.len());

    // No image lies there unchecked.
    let mut files: BTreeSet<String> = fs::read_dir(common::folder())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.remove("manifest.json"));
    assert_eq!(files, names);
}

#[test]
fn hash_examples_of_the_manifest() {
    let manifest = common::manifest();
    let hashes = &manifest["hash_vectors"];
    let integers = hashes["integer_examples"].as_object().unwrap();
    for (example, hash) in integers {
        let (dtype, value) = example.split_once(' ').unwrap();
        let value: i64 = value.parse().unwrap();
        let kind = if dtype.starts_with('i') {
            KeyKind::Signed
        } else {
            KeyKind::Unsigned
        };
        let size: usize = dtype[1..].parse().unwrap();
        let key = &value.to_le_bytes()[..size / 8];
        assert_eq!(key_hash(Cpp, kind, key), number(hash), "{example}");
        assert_eq!(
            hash_integer(value.cast_unsigned()),
            number(hash),
            "{example}"
        );
    }
    let strings = hashes["bytes_examples"].as_object().unwrap();
    for (example, hash) in strings {
        let key = match example.as_str() {
            "alpha + 11 NUL (16 bytes)" => b"alpha\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
            "f64 1.5 (8 bytes LE)" => 1.5_f64.to_le_bytes().to_vec(),
            literal => literal.as_bytes().to_vec(),
        };
        assert_eq!(hash_bytes(&key), number(hash), "{example}");
        assert_eq!(key_hash(Cpp, KeyKind::Bytes, &key), number(hash));
    }
    assert_eq!((integers.len(), strings.len()), (4, 6));
}

fn array(file: &str, name: &str, dtype: &str) -> Vec<polyshm_wire::zeroipc::Value> {
    let image = common::load(file);
    let block = block(&image, name);
    let dtype: DType = dtype.parse().unwrap();
    let size = dtype.size() as u64;
    let first = &block[..block.len().min(16)];
    let layout = ArrayLayout::read(first, block.len() as u64, size).unwrap();
    assert_eq!(layout.element_at(layout.capacity), None);
    (0..layout.capacity)
        .map(|i| {
            let at = index(layout.element_at(i).unwrap());
            dtype.decode(&block[at..at + dtype.size()]).unwrap()
        })
        .collect()
}

#[test]
fn arrays_hold_their_values() {
    fn values<T: Into<polyshm_wire::zeroipc::Value>>(
        values: impl IntoIterator<Item = T>,
    ) -> Vec<polyshm_wire::zeroipc::Value> {
        values.into_iter().map(Into::into).collect()
    }
    let squares = || values((0..10).map(|i| i * i));
    assert_eq!(array("array_i32.cpp.bin", "i32", "i4"), squares());
    assert_eq!(array("array_i32.c.bin", "i32", "i4"), squares());
    let expected = values([1.0, 2.5, f32::from_bits(0x4048_f5c3), -1.0, 0.0]);
    assert_eq!(array("array_f32.bin", "f32", "f4"), expected);
    let expected = values([1.5, -2.25, 1e300]);
    assert_eq!(array("array_f64.bin", "f64", "f8"), expected);
    let long = "abcdefghijklmnopqrstuvwxyz01234";
    assert_eq!(array("name31.bin", long, "u1"), values([1_u8, 2, 3]));
    assert_eq!(array("name31.bin", "after", "i4"), values([7]));
    for file in ["full_table.cpp.bin", "full_table.c.bin"] {
        for i in 0..4 {
            let name = format!("a{i}");
            assert_eq!(array(file, &name, "i4"), values([i, -i]), "{file}");
        }
    }
    let temps = values((20_u8..28).map(f32::from));
    assert_eq!(array("multi.cpp.bin", "temps", "f4"), temps);
    assert_eq!(array("multi.py.bin", "temps", "f4"), temps);

    let points = "[('x', 'f4'), ('y', 'f4'), ('z', 'f4')]";
    let expected: Vec<_> = [1.0_f32, 4.0, 7.0]
        .map(|x| values([x, x + 1.0, x + 2.0]).into())
        .into();
    assert_eq!(array("array_struct.bin", "pts", points), expected);
    let mixed = "align([('a', 'u1'), ('b', 'f8'), ('c', 'i2')])";
    let expected = [
        vec![1_u8.into(), 0.5.into(), (-1).into()],
        vec![2_u8.into(), 1.5.into(), (-2).into()],
    ]
    .map(Into::into);
    assert_eq!(array("array_struct_padded.bin", "mix", mixed), expected);
}

/// The items of a queue, found by walking the sequence numbers as a reader
/// would, and its positions.
fn queue_items(file: &str, name: &str) -> (Vec<Vec<u8>>, u32, u32) {
    let image = common::load(file);
    let block = block(&image, name);
    let header = QueueHeader::read(block).unwrap();
    let size = block.len() as u64;
    let layout = QueueLayout::read(block.first_chunk().unwrap(), size, None).unwrap();
    let (head, tail) = (header.head.get(), header.tail.get());
    let mut items = Vec::new();
    let mut position = head;
    while position != tail {
        let slot = layout.slot(position);
        let seq = u32_at(block, layout.seq_at(slot));
        assert_eq!(seq, position.wrapping_add(1), "{file}");
        let at = index(layout.element_at(slot));
        items.push(block[at..at + layout.elem_size as usize].to_vec());
        position = position.wrapping_add(1);
        assert!(items.len() <= layout.capacity as usize, "{file}");
    }
    // The free slots wait for the pushes to come.
    for ahead in items.len() as u32..layout.capacity {
        let position = head.wrapping_add(ahead);
        let seq = u32_at(block, layout.seq_at(layout.slot(position)));
        assert_eq!(seq, position, "{file}");
    }
    (items, head, tail)
}

fn i32s(values: &[i32]) -> Vec<Vec<u8>> {
    values.iter().map(|v| v.to_le_bytes().to_vec()).collect()
}

#[test]
fn queues_hold_their_items() {
    let check = |file, items: &[i32], head, tail| {
        assert_eq!(queue_items(file, "q"), (i32s(items), head, tail), "{file}");
    };
    check("queue_i32_fresh.bin", &[], 0, 0);
    check("queue_i32_push3.bin", &[1, 2, 3], 0, 3);
    check("queue_i32_wrapped.bin", &[3, 4, 5, 6], 2, 6);
    check("queue_i32_drained.bin", &[], 106, 106);
    check("queue_i32_cap5.bin", &[-7], 0, 1);
    check("queue_i32_2pow32.cpp.bin", &[71, 72], u32::MAX, 1);
    assert_eq!(queue_items("queue_u8_cap3.bin", "q").0, [[0xaa]]);
    let items = queue_items("queue_3byte.cpp.bin", "q").0;
    assert_eq!(items, [[1, 2, 3], [4, 5, 6]]);
    for file in ["multi.cpp.bin", "multi.py.bin"] {
        assert_eq!(queue_items(file, "jobs").0, i32s(&[1, 2]));
    }
    assert_eq!(queue_items("multi.cpp.bin", "ch_buffer").0, i32s(&[4]));
    assert_eq!(queue_items("multi.py.bin", "ch").0, i32s(&[4]));

    // The one whose walk would not end.
    let image = common::load("queue_12byte_cap1.cpp.bin");
    let header = QueueHeader::read(block(&image, "q")).unwrap();
    assert_eq!((header.head.get(), header.tail.get()), (0, 2));
    assert_eq!(u32_at(block(&image, "q"), 16 + 16), 2);
}

#[test]
fn stacks_hold_their_items() {
    let check = |file, name, items: &[i64], states: &[u32]| {
        let image = common::load(file);
        let block = block(&image, name);
        let size = block.len() as u64;
        let layout = StackLayout::read(block.first_chunk().unwrap(), size, None).unwrap();
        let top = StackHeader::read(block).unwrap().top.get();
        layout.check_top(top).unwrap();
        assert_eq!(usize::try_from(top + 1), Ok(items.len()), "{file}");
        for (item, slot) in items.iter().zip(0..) {
            let at = index(layout.element_at(slot));
            let found = &block[at..at + layout.elem_size as usize];
            assert_eq!(found, &item.to_le_bytes()[..found.len()], "{file}");
        }
        for (state, slot) in states.iter().zip(0..) {
            assert_eq!(u32_at(block, layout.state_at(slot)), *state, "{file}");
        }
        assert_eq!(states.len(), layout.capacity as usize, "{file}");
    };
    let (ready, empty) = (stack::READY, stack::EMPTY);
    check("stack_i32_fresh.bin", "s", &[], &[empty; 4]);
    let states = [ready, ready, ready, empty];
    check("stack_i32_push3.bin", "s", &[10, 20, 30], &states);
    let states = [ready, ready, empty, empty];
    check("stack_i32_pop1.bin", "s", &[10, 20], &states);
    check("stack_i32_full.bin", "s", &[10, 20, 40, 50], &[ready; 4]);
    check("stack_u8_cap3.bin", "s", &[1, 2], &[ready, ready, empty]);
    let states = [ready, stack::WRITING, empty, empty];
    check("stack_i32_dead_writer.cpp.bin", "s", &[1, 2], &states);
    let image = common::load("stack_i32_dead_reader.cpp.bin");
    let dead = block(&image, "s");
    let layout = StackLayout::new(4, 4).unwrap();
    assert_eq!(u32_at(dead, layout.state_at(2)), stack::READING);
    assert_eq!(i32_at(dead, stack::TOP), 1);
    for file in ["multi.cpp.bin", "multi.py.bin"] {
        check(file, "undo", &[-5], &[ready, empty, empty, empty]);
    }
    // What was popped stays where it was.
    let image = common::load("stack_i32_pop1.bin");
    assert_eq!(i32_at(block(&image, "s"), layout.element_at(2)), 30);
}

fn ring_items(file: &str, name: &str) -> Vec<Vec<u8>> {
    let image = common::load(file);
    let block = block(&image, name);
    let size = block.len() as u64;
    let layout = RingLayout::read(block.first_chunk().unwrap(), size, None).unwrap();
    let header = RingHeader::read(block).unwrap();
    let (write, read) = (header.write_pos.get(), header.read_pos.get());
    let used = layout.used(write, read).unwrap();
    let elem = u64::from(layout.elem_size);
    (0..used / elem)
        .map(|i| {
            let at = index(layout.byte_at(read + i * elem));
            block[at..at + layout.elem_size as usize].to_vec()
        })
        .collect()
}

#[test]
fn rings_hold_their_items() {
    assert!(ring_items("ring_i32_fresh.bin", "r").is_empty());
    let items = ring_items("ring_i32_wrapped.bin", "r");
    assert_eq!(items, i32s(&[3, 4, 5, 6]));
    assert_eq!(ring_items("ring_i32_bulk.bin", "r"), i32s(&[6]));
    let image = common::load("ring_i32_wrapped.bin");
    let header = RingHeader::read(block(&image, "r")).unwrap();
    assert_eq!((header.write_pos.get(), header.read_pos.get()), (24, 8));
    let f64s = |values: &[f64]| -> Vec<Vec<u8>> {
        values.iter().map(|v| v.to_le_bytes().to_vec()).collect()
    };
    assert_eq!(ring_items("ring_f64.bin", "r"), f64s(&[1.5, 2.5]));
    assert_eq!(ring_items("stream_f64.cpp.bin", "st_buffer"), f64s(&[2.5]));
    assert_eq!(ring_items("stream_f64.py.bin", "st"), f64s(&[2.5]));
    for file in ["multi.cpp.bin", "multi.py.bin"] {
        assert_eq!(ring_items(file, "log"), [[3, 0]], "{file}");
    }
    let one = vec![1.0_f32.to_le_bytes().to_vec()];
    assert_eq!(ring_items("multi.cpp.bin", "feed_buffer"), one);
    assert_eq!(ring_items("multi.py.bin", "feed"), one);
}

#[test]
fn pools_list_their_free_nodes() {
    let check = |file, name, params: (u64, u64, u64), generation, allocated, free: &[u32]| {
        let image = common::load(file);
        let block = block(&image, name);
        let (capacity, elem, align) = params;
        let layout = PoolLayout::new(capacity, elem, align).unwrap();
        let header = PoolHeader::read(block).unwrap();
        assert_eq!(header.allocated.get(), allocated, "{file}");
        let head = header.free_head.get();
        let (found, mut next) = pool::split(head);
        assert_eq!(pool::head(found, next), head);
        assert_eq!(found, generation, "{file}");
        let mut nodes = Vec::new();
        while next != pool::NULL {
            assert!(next < layout.capacity && nodes.len() < layout.capacity as usize);
            nodes.push(next);
            next = u32_at(block, layout.node_at(next) + layout.next_in_node());
        }
        assert_eq!(nodes, free, "{file}");
    };
    let i32s = (4, 4, 4);
    check("pool_i32_fresh.bin", "p", i32s, 0, 0, &[0, 1, 2, 3]);
    check("pool_i32_alloc3.bin", "p", i32s, 3, 3, &[3]);
    check("pool_i32_free1.bin", "p", i32s, 4, 2, &[1, 3]);
    check("pool_i32_exhausted.bin", "p", i32s, 6, 4, &[]);
    check("pool_f64.bin", "p", (3, 8, 8), 2, 2, &[2]);
    check("pool_3byte.bin", "p", (3, 3, 1), 1, 1, &[1, 2]);
    for file in ["multi.cpp.bin", "multi.py.bin"] {
        check(file, "blk", (4, 8, 8), 1, 1, &[1, 2, 3]);
    }
    let image = common::load("pool_i32_alloc3.bin");
    let layout = PoolLayout::new(4, 4, 4).unwrap();
    let values = [0, 1, 2].map(|node| i32_at(block(&image, "p"), layout.node_at(node)));
    assert_eq!(values, [11, 22, 33]);
    let image = common::load("pool_f64.bin");
    let layout = PoolLayout::new(3, 8, 8).unwrap();
    let values = [0, 1].map(|node| u64_at(block(&image, "p"), layout.node_at(node)));
    assert_eq!(values, [1.5, 2.5].map(f64::to_bits));
}

/// A slot's offset and what its state says, in the order of a search.
fn probe(
    block: &[u8],
    capacity: u32,
    home: u32,
    slot_at: impl Fn(u32) -> u64,
    mut equal: impl FnMut(u64) -> bool,
) -> Option<u64> {
    for step in 0..capacity {
        let at = slot_at((home + step) % capacity);
        match u32_at(block, at) {
            map::EMPTY => return None,
            map::OCCUPIED if equal(at) => return Some(at),
            _ => {}
        }
    }
    None
}

struct Lookup {
    image: Vec<u8>,
    name: &'static str,
    kind: KeyKind,
}

impl Lookup {
    fn new(file: &str, name: &'static str, kind: KeyKind) -> Self {
        Self {
            image: common::load(file),
            name,
            kind,
        }
    }

    /// The value's bytes.
    fn map(&self, layout: MapLayout, key: &[u8]) -> Option<&[u8]> {
        let block = block(&self.image, self.name);
        assert_eq!(key.len(), layout.key_size as usize);
        let home = layout.home(key_hash(layout.dialect, self.kind, key));
        let equal = |at| {
            let stored = &block[index(at + layout.key_offset())..][..key.len()];
            keys_equal(layout.dialect, self.kind, stored, key)
        };
        let slot_at = |slot| layout.slot_at(slot);
        let at = probe(block, layout.capacity, home, slot_at, equal)?;
        let value = index(at + layout.value_offset());
        Some(&block[value..value + layout.value_size as usize])
    }

    fn set(&self, layout: SetLayout, key: &[u8]) -> bool {
        let block = block(&self.image, self.name);
        assert_eq!(key.len(), layout.elem_size as usize);
        let home = layout.home(key_hash(layout.dialect, self.kind, key));
        let equal = |at| {
            let stored = &block[index(at + layout.elem_offset())..][..key.len()];
            keys_equal(layout.dialect, self.kind, stored, key)
        };
        let slot_at = |slot| layout.slot_at(slot);
        let found = probe(block, layout.capacity, home, slot_at, equal);
        if let (Some(at), Some(mark)) = (found, layout.mark_offset()) {
            assert_eq!(block[index(at + mark)], 1);
        }
        found.is_some()
    }
}

fn file_of(base: &str, dialect: Dialect) -> String {
    match dialect {
        Cpp => format!("{base}.cpp.bin"),
        Python => format!("{base}.py.bin"),
    }
}

#[test]
fn maps_find_their_keys() {
    for dialect in [Cpp, Python] {
        let layout = MapLayout::new(dialect, 8, (4, 4), (4, 4)).unwrap();
        for (base, pairs, absent, length) in [
            (
                "map_i32_i32",
                &[(1, 10), (9, 90), (17, 170), (0, 0), (-1, -10)][..],
                &[2, 25][..],
                5,
            ),
            (
                "map_i32_i32_erased",
                &[(1, 10), (17, 170), (0, 0), (-1, -10)],
                &[9, 25],
                4,
            ),
            (
                "map_i32_i32_reused",
                &[(1, 10), (17, 1717), (0, 0), (-1, -10), (25, 250)],
                &[9],
                5,
            ),
        ] {
            let map = Lookup::new(&file_of(base, dialect), "m", KeyKind::Signed);
            for (key, value) in pairs {
                let found = map.map(layout, &i32::to_le_bytes(*key));
                let expected = i32::to_le_bytes(*value);
                assert_eq!(found, Some(&expected[..]), "{base} {dialect}: {key}");
            }
            for key in absent {
                assert_eq!(map.map(layout, &i32::to_le_bytes(*key)), None, "{base}");
            }
            let header = MapHeader::read(block(&map.image, "m")).unwrap();
            assert_eq!(header.size.get(), length, "{base}");
        }

        let layout = MapLayout::new(dialect, 4, (4, 4), (8, 8)).unwrap();
        let file = file_of("map_u32_f64_full", dialect);
        let map = Lookup::new(&file, "m", KeyKind::Unsigned);
        for (key, value) in [(7_u32, 0.5_f64), (8, 1.5), (11, 2.5), (12, 3.5)] {
            let found = map.map(layout, &key.to_le_bytes());
            assert_eq!(found, Some(&value.to_le_bytes()[..]), "{file}");
        }
        assert_eq!(map.map(layout, &99_u32.to_le_bytes()), None, "{file}");

        let layout = MapLayout::new(dialect, 8, (8, 8), (8, 8)).unwrap();
        let file = file_of("map_u64_u64", dialect);
        let map = Lookup::new(&file, "m", KeyKind::Unsigned);
        for (key, value) in [(5_000_000_000_u64, 1_u64), (3, 2)] {
            let found = map.map(layout, &key.to_le_bytes());
            assert_eq!(found, Some(&value.to_le_bytes()[..]), "{file}");
        }

        let layout = MapLayout::new(dialect, 8, (16, 1), (8, 8)).unwrap();
        let file = file_of("map_char16_u64", dialect);
        let map = Lookup::new(&file, "m", KeyKind::Bytes);
        let name = DType::ByteString(16);
        for (key, value) in [
            ("alpha", Some(5_u64)),
            ("beta", Some(4)),
            ("gamma", Some(5)),
            ("delta", Some(5)),
            ("zeta", None),
        ] {
            let mut bytes = [0; 16];
            name.encode(&key.into(), &mut bytes).unwrap();
            let found = map.map(layout, &bytes).map(|value| u64_at(value, 0));
            assert_eq!(found, value, "{file}: {key}");
        }

        let layout = MapLayout::new(dialect, 8, (4, 4), (8, 8)).unwrap();
        let map = Lookup::new(&file_of("multi", dialect), "idx", KeyKind::Signed);
        let found = map.map(layout, &1_i32.to_le_bytes());
        assert_eq!(found, Some(&100_i64.to_le_bytes()[..]));
    }

    // Both zeros are there; they are equal, and only their hashes differ.
    let layout = MapLayout::new(Cpp, 8, (8, 8), (4, 4)).unwrap();
    let map = Lookup::new("map_f64_i32.cpp.bin", "m", KeyKind::Float);
    for (key, value) in [(0.0_f64, 1_i32), (-0.0, 2), (1.5, 3)] {
        let found = map.map(layout, &key.to_le_bytes());
        assert_eq!(found, Some(&value.to_le_bytes()[..]), "{key}");
    }
    assert_eq!(map.map(layout, &f64::NAN.to_le_bytes()), None);
}

#[test]
fn sets_find_their_elements() {
    for dialect in [Cpp, Python] {
        let layout = SetLayout::new(dialect, 8, 4, 4).unwrap();
        let set = Lookup::new(&file_of("set_i32", dialect), "t", KeyKind::Signed);
        for (key, there) in [
            (1, false),
            (9, true),
            (17, true),
            (0, true),
            (-1, true),
            (2, false),
        ] {
            let found = set.set(layout, &i32::to_le_bytes(key));
            assert_eq!(found, there, "{dialect}: {key}");
        }
        let header = SetHeader::read(block(&set.image, "t")).unwrap();
        assert_eq!(header.size.get(), 4);

        let layout = SetLayout::new(dialect, 4, 8, 8).unwrap();
        let set = Lookup::new(&file_of("set_u64", dialect), "t", KeyKind::Unsigned);
        for (key, there) in [(10_u64, true), (20, true), (30, false)] {
            assert_eq!(set.set(layout, &key.to_le_bytes()), there, "{dialect}");
        }

        let layout = SetLayout::new(dialect, 8, 4, 4).unwrap();
        let set = Lookup::new(&file_of("multi", dialect), "seen", KeyKind::Unsigned);
        assert!(set.set(layout, &5_u32.to_le_bytes()));
        assert!(!set.set(layout, &6_u32.to_le_bytes()));
    }
    let layout = SetLayout::new(Cpp, 8, 8, 1).unwrap();
    let set = Lookup::new("set_char8.cpp.bin", "t", KeyKind::Bytes);
    for (key, there) in [("a", true), ("bb", true), ("ccc", true), ("dddd", false)] {
        let mut bytes = [0; 8];
        bytes[..key.len()].copy_from_slice(key.as_bytes());
        assert_eq!(set.set(layout, &bytes), there, "{key}");
    }
}

#[test]
fn synchronisation_words() {
    let semaphore = |file: &str, name| {
        let image = SemaphoreImage::read(block(&common::load(file), name)).unwrap();
        let (count, waiting) = (image.count.get(), image.waiting.get());
        (count, waiting, image.max_count.get())
    };
    assert_eq!(semaphore("semaphore_fresh.bin", "s"), (2, 0, 5));
    assert_eq!(semaphore("semaphore_acq1.bin", "s"), (1, 0, 5));
    assert_eq!(semaphore("semaphore_waiter.bin", "s"), (0, 1, 5));
    assert_eq!(semaphore("semaphore_unbounded.bin", "u"), (2, 0, 0));
    assert_eq!(semaphore("mutex_unlocked.bin", "mx"), (1, 0, 1));
    assert_eq!(semaphore("mutex_locked.bin", "mx"), (0, 0, 1));

    let barrier = |file: &str| {
        let image = BarrierImage::read(block(&common::load(file), "b")).unwrap();
        let (arrived, generation) = (image.arrived.get(), image.generation.get());
        (arrived, generation, image.participants.get())
    };
    assert_eq!(barrier("barrier_fresh.bin"), (0, 0, 3));
    assert_eq!(barrier("barrier_arrived1.bin"), (1, 0, 3));
    assert_eq!(barrier("barrier_gen1.bin"), (0, 1, 3));
    assert_eq!(barrier("barrier_timeout.bin"), (0, 1, 3));

    let latch = |file: &str| {
        let image = LatchImage::read(block(&common::load(file), "l")).unwrap();
        (image.count.get(), image.initial.get())
    };
    assert_eq!(latch("latch_2of3.bin"), (2, 3));
    assert_eq!(latch("latch_zero.bin"), (0, 3));

    let state = |file: &str| u32_at(block(&common::load(file), "o"), once::STATE);
    assert_eq!(state("once_pending.bin"), once::PENDING);
    assert_eq!(state("once_executing.bin"), once::EXECUTING);
    assert_eq!(state("once_done.bin"), once::DONE);

    let event = |file: &str| {
        let image = EventImage::read(block(&common::load(file), "e")).unwrap();
        let (signaled, mode) = (image.signaled.get(), image.mode.get());
        let (count, _, max) = semaphore(file, "e_sem");
        assert_eq!(max, 0, "{file}");
        (signaled, mode, image.waiting.get(), count)
    };
    let (auto, manual) = (event::AUTO, event::MANUAL);
    assert_eq!(event("event_auto_fresh.bin"), (0, auto, 0, 0));
    assert_eq!(event("event_auto_signaled.bin"), (1, auto, 0, 1));
    assert_eq!(event("event_auto_consumed.bin"), (0, auto, 0, 0));
    assert_eq!(event("event_manual_signaled.bin"), (1, manual, 0, 0));
    assert_eq!(event("event_manual_waiter.cpp.bin"), (0, manual, 1, 0));
    assert_eq!(event("event_manual_waiter.py.bin"), (0, manual, 0, 0));

    let rwlock = |file: &str| {
        let image = RwLockImage::read(block(&common::load(file), "rw_state")).unwrap();
        let mutex = |name| semaphore(file, name).0;
        let (readers, writer) = (image.readers.get(), image.writer_active.get());
        (readers, writer, mutex("rw_rmtx"), mutex("rw_wmtx"))
    };
    assert_eq!(rwlock("rwlock_fresh.bin"), (0, 0, 1, 1));
    assert_eq!(rwlock("rwlock_2readers.bin"), (2, 0, 1, 1));
    assert_eq!(rwlock("rwlock_writer.bin"), (0, 1, 1, 0));

    let monitor = |file: &str| {
        let count = u32_at(block(&common::load(file), "mon_count"), 0);
        let (permits, waiting, _) = semaphore(file, "mon_cond");
        (semaphore(file, "mon_mtx").0, permits, waiting, count)
    };
    assert_eq!(monitor("monitor_fresh.bin"), (1, 0, 0, 0));
    assert_eq!(monitor("monitor_waiter.bin"), (1, 0, 1, 1));
    assert_eq!(monitor("monitor_locked.bin"), (0, 0, 0, 0));
}

#[test]
fn cells_hold_their_values() {
    for dialect in [Cpp, Python] {
        for (base, version, value) in [("signal_i32_fresh", 0, 42), ("signal_i32_v2", 2, 86)] {
            let image = common::load(&file_of(base, dialect));
            let state = block(&image, "sig_state");
            assert_eq!(u64_at(state, signal::VERSION), version, "{base} {dialect}");
            assert_eq!(i32_at(state, signal::VALUE), value, "{base} {dialect}");
        }
        let image = common::load(&file_of("multi", dialect));
        let state = block(&image, "cfg_state");
        assert_eq!((u64_at(state, 0), u64_at(state, 8)), (1, 2));

        let layout = FutureLayout::new(dialect, 4, 4).unwrap();
        let image = common::load(&file_of("future_i32_pending", dialect));
        let header = FutureHeader::read(block(&image, "f")).unwrap();
        assert_eq!(header.state.get(), future::PENDING);
        assert_eq!(header.waiters.get(), 0);
        let image = common::load(&file_of("future_i32_ready", dialect));
        let ready = block(&image, "f");
        let header = FutureHeader::read(ready).unwrap();
        assert_eq!(header.state.get(), future::READY);
        assert_ne!(header.time.get(), 0);
        assert_eq!(i32_at(ready, future::VALUE), 99);
        assert_eq!(text_at(ready, layout.error_offset()), "");
        let layout = FutureLayout::new(dialect, 8, 8).unwrap();
        let image = common::load(&file_of("future_f64_error", dialect));
        let failed = block(&image, "f");
        assert_eq!(u32_at(failed, future::STATE), future::ERROR);
        assert_eq!(text_at(failed, layout.error_offset()), "boom");
    }
    let image = common::load("signal_f64_v1.bin");
    let state = block(&image, "sig_state");
    assert_eq!(u64_at(state, signal::VERSION), 1);
    assert_eq!(state[8..], 2.5_f64.to_le_bytes());
}

#[test]
fn lazy_values_in_each_state() {
    let cpp = LazyLayout::new(Cpp, 4, 4).unwrap();
    let kind = cpp.kind_offset().unwrap();
    let first = cpp.operands_offset().unwrap();
    let second = cpp.second_operand_offset().unwrap();
    let count = cpp.count_offset().unwrap();
    for (file, state, cached, computed) in [
        ("lazy_i32_add.cpp.bin", lazy::NOT_COMPUTED, 0, 0),
        ("lazy_i32_forced.cpp.bin", lazy::COMPUTED, 12, 1),
    ] {
        let image = common::load(file);
        let sum = block(&image, "sum");
        assert_eq!(u32_at(sum, lazy::STATE), state, "{file}");
        assert_eq!(u32_at(sum, kind), lazy::ADD, "{file}");
        assert_eq!((i32_at(sum, first), i32_at(sum, second)), (7, 5), "{file}");
        assert_eq!(i32_at(sum, cpp.cached_offset()), cached, "{file}");
        assert_eq!(u32_at(sum, count), computed, "{file}");
        for (name, value) in [("c", 7), ("d", 5)] {
            let constant = block(&image, name);
            assert_eq!(u32_at(constant, kind), lazy::CONSTANT, "{file}");
            assert_eq!(i32_at(constant, first), value, "{file}");
        }
    }

    let python = LazyLayout::new(Python, 4, 4).unwrap();
    for (file, state, value) in [
        ("lazy_i32_add.py.bin", lazy::NOT_COMPUTED, 0),
        ("lazy_i32_forced.py.bin", lazy::COMPUTED, 12),
    ] {
        let image = common::load(file);
        let sum = block(&image, "sum");
        assert_eq!(u32_at(sum, lazy::STATE), state, "{file}");
        assert_eq!(i32_at(sum, python.cached_offset()), value, "{file}");
        assert_eq!(i32_at(block(&image, "c"), python.cached_offset()), 7);
    }

    let layout = LazyLayout::new(Cpp, 8, 8).unwrap();
    let image = common::load("lazy_f64_err.cpp.bin");
    let failed = block(&image, "e");
    assert_eq!(u32_at(failed, lazy::STATE), lazy::ERROR);
    let kind = layout.kind_offset().unwrap();
    assert_eq!(u32_at(failed, kind), lazy::EXTERNAL);
    let message = "Complex operations not yet implemented";
    assert_eq!(text_at(failed, layout.error_offset()), message);
    let constant = block(&image, "c");
    let operand = layout.operands_offset().unwrap();
    assert_eq!(constant[index(operand)..][..8], 2.5_f64.to_le_bytes());

    let image = common::load("lazy_bool.cpp.bin");
    let lazy = |name| {
        let image = LazyBoolImage::read(block(&image, name)).unwrap();
        (image.state.get(), image.kind.get(), image.a, image.b)
    };
    let constant = lazy_bool::CONST;
    assert_eq!(lazy("t"), (lazy::COMPUTED, constant, 1, 0));
    assert_eq!(lazy("u"), (lazy::COMPUTED, constant, 0, 0));
    assert_eq!(lazy("and"), (lazy::NOT_COMPUTED, lazy_bool::AND, 1, 0));
}

#[test]
fn channels_and_streams() {
    let header = |file: &str| ChannelHeader::read(block(&common::load(file), "ch_header")).unwrap();
    let sync = |file: &str| ChannelSync::read(block(&common::load(file), "ch_sync")).unwrap();
    let buffered = header("channel_buffered.cpp.bin");
    assert_eq!((buffered.capacity.get(), buffered.closed), (4, 0));
    let items = queue_items("channel_buffered.cpp.bin", "ch_buffer").0;
    assert_eq!(items, i32s(&[1, 2]));
    assert_eq!(header("channel_closed.cpp.bin").closed, 1);
    let items = queue_items("channel_closed.cpp.bin", "ch_buffer").0;
    assert_eq!(items, i32s(&[2]));
    let buffered = sync("channel_buffered.py.bin");
    assert_eq!((buffered.capacity.get(), buffered.closed.get()), (3, 0));
    assert_eq!(
        queue_items("channel_buffered.py.bin", "ch").0,
        i32s(&[1, 2])
    );
    assert_eq!(sync("channel_closed.py.bin").closed.get(), 1);
    assert_eq!(queue_items("channel_closed.py.bin", "ch").0, i32s(&[2]));

    let layout = SlotLayout::new(4, 4).unwrap();
    for (base, senders, ready, consumed, value) in [
        ("channel_unbuffered_fresh", 0, 0, 0, 0),
        ("channel_unbuffered_sender", 1, 1, 0, 77),
        ("channel_unbuffered_done", 0, 0, 1, 77),
    ] {
        let file = file_of(base, Cpp);
        assert_eq!(header(&file).capacity.get(), 0, "{file}");
        assert_eq!(header(&file).senders.get(), senders, "{file}");
        let image = common::load(&file);
        let slot = block(&image, "ch_slot");
        let flags = (
            slot[index(channel::slot::READY)],
            slot[index(channel::slot::CONSUMED)],
        );
        assert_eq!(flags, (ready, consumed), "{file}");
        assert_eq!(i32_at(slot, layout.data_offset()), value, "{file}");

        let file = file_of(base, Python);
        assert_eq!(sync(&file).senders.get(), senders, "{file}");
        assert!(queue_items(&file, "ch").0.is_empty(), "{file}");
    }

    for (file, closed) in [("stream_f64.cpp.bin", 0), ("stream_f64_closed.cpp.bin", 1)] {
        let image = common::load(file);
        let header = StreamHeader::read(block(&image, "st_header")).unwrap();
        assert_eq!(
            (header.sequence.get(), header.closed),
            (2, closed),
            "{file}"
        );
        assert_eq!(header.capacity.get(), 4, "{file}");
        assert_eq!(header.name, [0; 32], "{file}");
    }
    let image = common::load("stream_void.cpp.bin");
    let void = StreamVoid::read(block(&image, "ev")).unwrap();
    assert_eq!((void.count.get(), void.closed), (2, 0));
}

/// What this crate writes for a fresh structure is what the references wrote.
#[test]
fn fresh_structures_are_identical() {
    let same = |file: &str, name: &str, fresh: &[u8]| {
        let image = common::load(file);
        assert_eq!(&block(&image, name)[..fresh.len()], fresh, "{file}: {name}");
    };
    let header = QueueLayout::new(4, 4).unwrap().header();
    same("queue_i32_fresh.bin", "q", &header.to_bytes());
    let header = StackLayout::new(4, 4).unwrap().header();
    same("stack_i32_fresh.bin", "s", &header.to_bytes());
    let header = RingLayout::new(4, 4).unwrap().header();
    same("ring_i32_fresh.bin", "r", &header.to_bytes());
    let header = PoolLayout::new(4, 4, 4).unwrap().header();
    same("pool_i32_fresh.bin", "p", &header.to_bytes());
    let mut header = MapLayout::new(Cpp, 8, (4, 4), (4, 4)).unwrap().header();
    header.size.set(5);
    same("map_i32_i32.cpp.bin", "m", &header.to_bytes());
    for dialect in [Cpp, Python] {
        let mut header = SetLayout::new(dialect, 8, 4, 4).unwrap().header();
        header.size.set(4);
        same(&file_of("set_i32", dialect), "t", &header.to_bytes());
    }
    let image = SemaphoreImage::new(2, 5).to_bytes();
    same("semaphore_fresh.bin", "s", &image);
    same(
        "mutex_unlocked.bin",
        "mx",
        &SemaphoreImage::MUTEX.to_bytes(),
    );
    same("barrier_fresh.bin", "b", &BarrierImage::new(3).to_bytes());
    let mut image = LatchImage::new(3);
    image.count.set(2);
    same("latch_2of3.bin", "l", &image.to_bytes());
    let image = EventImage::new(event::AUTO).to_bytes();
    same("event_auto_fresh.bin", "e", &image);
    same(
        "rwlock_fresh.bin",
        "rw_state",
        &RwLockImage::new().to_bytes(),
    );
    let image = ChannelHeader::new(0).to_bytes();
    same("channel_unbuffered_fresh.cpp.bin", "ch_header", &image);
    let image = ChannelSync::new(3).to_bytes();
    same("channel_buffered.py.bin", "ch_sync", &image);
    let mut image = StreamHeader::new(4);
    image.sequence.set(2);
    same("stream_f64.cpp.bin", "st_header", &image.to_bytes());

    for (entry, image) in common::images() {
        if text(&entry["steps"]) != "create only" {
            continue;
        }
        let slots = TableHeader::read(&image).unwrap().slots();
        let mut fresh = TableHeader::new(slots, image.len() as u64)
            .to_bytes()
            .to_vec();
        fresh.resize(image.len(), 0);
        assert!(fresh == image, "{}", entry["file"]);
    }
}

/// Where the references put one structure after another.
#[test]
fn places_are_those_of_the_references() {
    for (entry, image) in common::images() {
        let file = text(&entry["file"]);
        // These lost space to failed insertions or a removed entry.
        if file.starts_with("dup_") || file.starts_with("table_removed") {
            continue;
        }
        let header = TableHeader::read(&image).unwrap();
        let mut next = table_end(header.slots());
        for index in 0..header.entry_count.get() {
            let read = Entry::read(&image, index).unwrap();
            let extent = read.extent(index, &header).unwrap();
            let placed = place(next, extent.size, header.memory_size.get());
            assert_eq!(placed, Ok(extent), "{file}: {index}");
            next = extent.end();
        }
        if file != "full_table.cpp.bin" {
            assert_eq!(next, header.next_offset.get(), "{file}");
        }
    }
}

#[test]
fn composites_are_recognised() {
    for file in ["multi.cpp.bin", "multi.py.bin"] {
        let seen = describe(&common::load(file)).unwrap();
        let has = |name: &str, wanted: &dyn Fn(&Candidate) -> bool| {
            let entry = seen.entry(name).unwrap();
            assert!(entry.candidates.iter().any(wanted), "{file}: {name}");
        };
        let part = |whole: &'static str, kind: Composite| move |candidate: &Candidate| matches!(candidate, Candidate::Part { of, composite } if of == whole && *composite == kind);
        has("ready", &|c| {
            matches!(
                c,
                Candidate::Event {
                    manual: true,
                    signaled: true,
                    ..
                }
            )
        });
        has("ready_sem", &part("ready", Composite::Event));
        for name in ["rw_state", "rw_rmtx", "rw_wmtx"] {
            has(name, &part("rw", Composite::RwLock));
        }
        for name in ["mon_mtx", "mon_cond", "mon_count"] {
            has(name, &part("mon", Composite::Monitor));
        }
        for name in ["cfg_state", "cfg_mtx"] {
            has(name, &part("cfg", Composite::Signal));
        }
        has("cfg", &|c| {
            matches!(
                c,
                Candidate::Signal {
                    version: 1,
                    max_value_size: 8
                }
            )
        });
        if file == "multi.cpp.bin" {
            has("ch_buffer", &part("ch", Composite::Channel));
            has("feed_buffer", &part("feed", Composite::Stream));
            has("feed_header", &|c| {
                matches!(
                    c,
                    Candidate::Stream {
                        sequence: 1,
                        capacity: 4,
                        ..
                    }
                )
            });
        } else {
            has("ch_sync", &part("ch", Composite::Channel));
            has("ch", &|c| {
                matches!(
                    c,
                    Candidate::Channel {
                        dialect: Python,
                        capacity: 2,
                        ..
                    }
                )
            });
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn descriptions_survive_serde() {
    for (_, image) in common::images() {
        let seen = describe(&image).unwrap();
        let json = serde_json::to_string(&seen).unwrap();
        let back: polyshm_wire::zeroipc::Description = serde_json::from_str(&json).unwrap();
        assert_eq!(back, seen);
    }
}
