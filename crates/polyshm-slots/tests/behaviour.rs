//! Stores and FIFOs through the public interface.
//!
//! What other implementations do, and what polyshm never does (die in the
//! middle of a write, count wrongly), the test stores itself.
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_slots::{
    AnnotationError, ArrayValue, Dynamic, FieldType, ImageError, LayoutError, Mode, NameState,
    OnFull, OnUnlink, OpenError, Options, ReadError, Reading, Record, Replace, Schema, SchemaError,
    SlotFifo, SlotStore, Snapshot, Status, TypedRecord, Value, ValueError, Values, WaitStrategy,
    WriteError, testing::HeapSegment,
};
use polyshm_testkit::{Name, Outcome, child, role, tell};
use polyshm_wire::slots::{Layout, Meta, NativeLayout, ValueError as Refusal, WriterLine, offset};
use std::{
    error::Error as _,
    fs::{self, File},
    io::ErrorKind,
    mem::offset_of,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

const NOW: Duration = Duration::ZERO;
const MOMENT: Duration = Duration::from_millis(1);
/// For what is not to come.
const WHILE: Duration = Duration::from_millis(20);
/// For what comes at once unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            Err(error) => panic!("{} gave {error:?}", stringify!($result)),
            Ok(_) => panic!("{} succeeded", stringify!($result)),
        }
    };
}

const ABC: &str = "a: float, b: int, c: bool, s: str[4]";
const LARGE: &str = "n: int, image: uint8[40,50], tail: float";

fn schema(text: &str) -> Schema {
    text.parse().expect("a schema")
}

fn plain() -> Options {
    Options::new().trailer(false)
}

fn native() -> Options {
    Options::new()
}

fn values<const N: usize>(values: [(&str, i32); N]) -> Values {
    values.into()
}

/// A segment on the heap, with what others know of it.
struct Heap {
    segment: HeapSegment,
    layout: Layout,
    native: Option<NativeLayout>,
}

impl Heap {
    fn new(text: &str, slots: u64, options: Options) -> Self {
        let segment = HeapSegment::new(&schema(text), slots, options).expect("it can be made");
        let layout = Layout::new(&schema(text), slots).expect("it can be laid out");
        let len = segment.image().len() as u64;
        let native = [true, false].into_iter().find_map(|buffered| {
            let native = NativeLayout::new(&layout, 4096, buffered).ok()?;
            (len == native.object_len()).then_some(native)
        });
        assert_eq!(native.is_some(), len != layout.segment_size());
        Self {
            segment,
            layout,
            native,
        }
    }

    fn store(&self, options: Options) -> SlotStore<Dynamic> {
        let opened = self
            .segment
            .store_dynamic(Some(self.layout.schema()), options);
        opened.expect("it was made")
    }

    fn fifo(&self, options: Options) -> SlotFifo<Dynamic> {
        let slots = self.layout.slots();
        let opened = self
            .segment
            .fifo_dynamic(Some(self.layout.schema()), Some(slots), options);
        opened.expect("it was made")
    }

    fn word(&self, at: usize) -> u64 {
        let image = self.segment.image();
        u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
    }

    fn poke(&self, at: usize, word: u64) {
        self.segment.poke(at, &word.to_le_bytes());
    }

    fn meta(&self) -> (u64, u64, u64) {
        let meta = Meta::read(&self.segment.image()).expect("a FIFO");
        (meta.write_idx.get(), meta.read_idx.get(), meta.count.get())
    }

    fn statuses(&self, slot: u64) -> Vec<u8> {
        let start = self.layout.slot_offset(slot) + self.layout.status_offset();
        self.segment.image()[start..][..self.layout.fields().len()].to_vec()
    }

    fn writer_line(&self) -> usize {
        self.native
            .as_ref()
            .expect("there is a trailer")
            .writer_line()
    }

    /// Stores one field's bytes in a slot as Python does: both sequence words,
    /// the value and every status (section 5.1).
    fn python_writes(&self, slot: u64, field: &str, bytes: &[u8]) {
        let start = self.layout.slot_offset(slot);
        let number = self.word(start).wrapping_add(1);
        self.poke(start, number);
        self.python_stores(slot, field, bytes);
        self.poke(start + self.layout.seq_end_offset(), number);
    }

    fn python_stores(&self, slot: u64, field: &str, bytes: &[u8]) {
        let start = self.layout.slot_offset(slot);
        let listed = self.layout.schema().index_of(field).expect("a field");
        self.segment
            .poke(start + self.layout.fields()[listed].offset, bytes);
        for (at, status) in self.statuses(slot).into_iter().enumerate() {
            let status = Status::from_bits(status);
            let status = if at == listed {
                status.written(false)
            } else {
                status.passed_over()
            };
            self.segment
                .poke(start + offset::STATUS + at, &[status.bits()]);
        }
    }

    /// Commits an item of one field as Python does (section 5.5).
    fn python_finalizes(&self, field: &str, bytes: &[u8]) {
        let (write, read, count) = self.meta();
        self.python_writes(write % self.layout.slots(), field, bytes);
        let full = count >= self.layout.slots();
        self.poke(offset::WRITE_IDX, write + 1);
        self.poke(offset::READ_IDX, read + u64::from(full));
        self.poke(offset::COUNT, count + u64::from(!full));
    }

    /// A writer of ours begins a write to a slot, of the fields that are bits of
    /// `listed`, and is not heard of again.
    fn is_being_written(&self, slot: u64, number: u64, listed: u64) {
        let start = self.layout.slot_offset(slot);
        if self.native.is_some() {
            self.poke(self.writer_line() + offset_of!(WriterLine, listed), listed);
        }
        self.poke(start + self.layout.seq_end_offset(), number ^ 1 << 62);
        self.poke(start, number ^ 1 << 63);
    }

    fn is_whole(&self, slot: u64, number: u64) {
        let start = self.layout.slot_offset(slot);
        self.poke(start + self.layout.seq_end_offset(), number);
        self.poke(start, number);
    }

    /// This process holds the writers' lock, in a handle that there is not.
    fn is_locked_by(&self, mark: u32) {
        self.poke(self.writer_line(), 0xFFFF << 32 | u64::from(mark));
    }
}

/// A process that has ended: its mark, and its identifier.
fn dead_process() -> (u32, u32) {
    let mut child = Command::new("true").spawn().expect("it starts");
    let pid = child.id();
    child.wait().expect("it ends");
    // Without the start time the identifier alone decides.
    (pid & 0x003F_FFFF, pid)
}

fn own_mark() -> u32 {
    std::process::id() & 0x003F_FFFF
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{name}"))
}

fn kept(name: &str) -> PathBuf {
    path(&format!("polyshm-kept.{name}"))
}

fn changes(record: &Snapshot<Dynamic>) -> Vec<u64> {
    record.iter().map(|field| field.changes()).collect()
}

fn statuses(record: &Snapshot<Dynamic>) -> Vec<u8> {
    record.iter().map(|field| field.status().bits()).collect()
}

/// Until what is expected within a moment comes.
#[track_caller]
fn until(mut there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !there() {
        assert!(start.elapsed() < PATIENCE, "it never came");
        sleep(MOMENT);
    }
}

// Stores.

#[test]
fn a_fresh_store_is_read_unwritten() {
    for options in [plain(), native(), native().buffered(false)] {
        let heap = Heap::new(ABC, 1, options);
        let mut store = heap.store(options);
        assert_eq!(store.schema(), heap.layout.schema());
        assert_eq!(store.has_trailer(), heap.native.is_some());
        assert_eq!(store.name(), "on the heap");
        let record = store.read(NOW).unwrap();
        assert_eq!(
            (record.number(), record.missed(), record.is_exact()),
            (0, 0, true)
        );
        assert!(
            record
                .iter()
                .all(|field| field.is_unwritten() && !field.is_changed())
        );
        assert_eq!(
            record.to_string(),
            "a: unwritten, b: unwritten, c: unwritten, s: unwritten"
        );
        // Nothing was written, so there is nothing new.
        assert!(store.try_read_new().is_none());
        assert_error!(store.read_new(MOMENT), ReadError::Timeout { .. });
        assert_eq!(store.empty().into_fields(), record.into_fields());
        let shown = format!("{store:?}");
        assert!(
            shown.contains("on the heap") && shown.contains(ABC),
            "{shown}"
        );
    }
}

#[test]
fn what_is_written_is_read_with_its_status() {
    for options in [plain(), native()] {
        let heap = Heap::new(ABC, 1, options);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        let first = Values::new()
            .with("a", 1.5)
            .with("s", "abcd")
            .with("b", i32::MIN);
        assert_eq!(writer.write(&first).unwrap(), 1);
        let record = reader.read(NOW).unwrap();
        assert_eq!(
            (record.number(), record.missed(), record.is_exact()),
            (1, 0, true)
        );
        assert_eq!(statuses(&record), [4, 4, 2, 4]);
        assert_eq!(changes(&record), [1, 1, 0, 1]);
        assert_eq!(
            record.to_string(),
            r#"a: 1.5, b: -2147483648, c: unwritten, s: "abcd""#
        );
        assert_eq!(record.get("a").unwrap().valid(), Some(Value::Float(1.5)));
        assert_eq!(record.get("c").unwrap().valid(), None);
        assert!(record.get("zzz").is_none());

        // Read again: the same record, with nothing changed.
        let again = reader.read(NOW).unwrap();
        assert_eq!((again.number(), again.missed()), (1, 0));
        assert_eq!(
            (statuses(&again), changes(&again)),
            (vec![4, 4, 2, 4], vec![0; 4])
        );
        assert!(reader.try_read_new().is_none());

        // Others keep value and truncation, and are modified no more.
        assert_eq!(writer.write(Values::new().with("s", "abcde")).unwrap(), 2);
        assert_eq!(writer.write(Values::new().with("c", true)).unwrap(), 3);
        let record = reader.read_new(NOW).unwrap();
        assert_eq!((record.number(), record.missed()), (3, 1));
        assert_eq!(statuses(&record), [0, 0, 4, 1]);
        let s = record.get("s").unwrap();
        assert!(s.is_truncated() && !s.is_modified() && !s.is_valid());
        assert_eq!(s.text().as_deref(), Some("abcd"));

        // No fields: the number goes on all the same.
        assert_eq!(writer.write(Values::new()).unwrap(), 4);
        let record = reader.read_new(NOW).unwrap();
        assert_eq!((record.number(), record.missed()), (4, 0));
        assert_eq!(statuses(&record), [0, 0, 0, 1]);
        if heap.native.is_some() {
            assert_eq!((changes(&record), record.is_exact()), (vec![0; 4], true));
        } else {
            // Flags that are all clear may have been reset.
            assert_eq!((changes(&record), record.is_exact()), (vec![1; 4], false));
        }
        // A handle may write what it read, and read what it wrote.
        assert_eq!(reader.write(Values::new().with("s", "")).unwrap(), 5);
        let record = writer.read_new(NOW).unwrap();
        assert_eq!(record.get("s").unwrap().valid(), Some(Value::from("")));
        assert_eq!(reader.read_new(NOW).unwrap().number(), 5);
    }
}

#[test]
fn every_way_to_read_a_store_gives_the_same() {
    let heap = Heap::new(ABC, 1, native());
    let mut writer = heap.store(native());
    let mut readers: Vec<_> = (0..6).map(|_| heap.store(native())).collect();
    let mut records: Vec<_> = readers.iter().map(SlotStore::empty).collect();
    for number in 1..=3_u64 {
        writer
            .write(Values::new().with("b", number as u32))
            .unwrap();
        for (way, (reader, record)) in readers.iter_mut().zip(&mut records).enumerate() {
            match way {
                0 => *record = reader.read(NOW).unwrap(),
                1 => reader.read_into(record, NOW).unwrap(),
                2 => *record = reader.try_read().unwrap(),
                3 => *record = reader.read_new(NOW).unwrap(),
                4 => reader.read_new_into(record, NOW).unwrap(),
                _ => *record = reader.try_read_new().unwrap(),
            }
            let shown = format!("{record:?}");
            assert!(
                shown.contains("number") && shown.contains("changes"),
                "{shown}"
            );
            assert_eq!((record.number(), record.missed()), (number, 0));
            assert_eq!(changes(record), [0, 1, 0, 0]);
            assert_eq!(record.get("b").unwrap().as_i32(), Some(number as i32));
        }
        for reader in &mut readers {
            assert!(reader.try_read_new().is_none());
            assert_error!(reader.read_new(NOW), ReadError::Timeout { .. });
            assert_eq!(reader.try_read().unwrap().number(), number);
        }
    }
    // A record of another store is read into as well.
    let other = Heap::new("x: int", 1, native());
    let mut record = other.store(native()).read(NOW).unwrap();
    readers[0].read_into(&mut record, NOW).unwrap();
    assert_eq!(record.get("b").unwrap().as_i32(), Some(3));
}

#[test]
fn numbers_go_on_at_zero() {
    for options in [plain(), native()] {
        let heap = Heap::new(ABC, 1, options);
        heap.is_whole(0, u64::MAX - 1);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        assert_eq!(writer.write(values([("b", 1)])).unwrap(), u64::MAX);
        assert_eq!(reader.read_new(NOW).unwrap().number(), u64::MAX);
        assert_eq!(writer.write(values([("b", 2)])).unwrap(), 0);
        let record = reader.read_new(NOW).unwrap();
        assert_eq!((record.number(), record.missed()), (0, 0));
        assert_eq!(changes(&record), [0, 1, 0, 0]);
        assert_eq!(writer.write(values([("b", 3)])).unwrap(), 1);
        assert_eq!(
            reader.read_new(NOW).unwrap().get("b").unwrap().as_i32(),
            Some(3)
        );
    }
}

// Changes.

#[test]
fn changes_are_counted_exactly_with_the_trailer() {
    let heap = Heap::new(ABC, 1, native());
    let mut writers = [heap.store(native()), heap.store(native())];
    let mut each = heap.store(native());
    let mut some = heap.store(native());
    let all = values([("a", 0), ("b", 0), ("c", 0)]).with("s", "");
    let updates: [&[&str]; 8] = [
        &["a"],
        &["a", "b"],
        &["a", "b", "c", "s"],
        &[],
        &["s"],
        &["b"],
        &["a", "b", "c", "s"],
        &["c"],
    ];
    let listed = |names: &[&str]| {
        let names: Vec<_> = names.to_vec();
        let values = all.iter().filter(|(name, _)| names.contains(name));
        values
            .map(|(name, value)| (name, value.clone()))
            .collect::<Values>()
    };
    let expected = |updates: &[&[&str]]| {
        ["a", "b", "c", "s"]
            .map(|name| updates.iter().filter(|names| names.contains(&name)).count() as u64)
    };
    let mut read = 0;
    for (at, names) in updates.iter().enumerate() {
        writers[at % 2].write(listed(names)).unwrap();
        let record = each.read_new(NOW).unwrap();
        assert_eq!(changes(&record), expected(&[names]), "{at}");
        assert!(record.is_exact());
        if [2, 3, 7].contains(&at) {
            let record = some.read_new(NOW).unwrap();
            assert_eq!(changes(&record), expected(&updates[read..=at]), "{at}");
            let missed = if read == 0 { 0 } else { at - read };
            assert_eq!((record.missed(), record.is_exact()), (missed as u64, true));
            read = at + 1;
        }
    }
    // Who joins late is told of all there was, and counts on from there.
    let mut late = heap.store(native());
    let mut cloned = each.clone();
    for reader in [&mut late, &mut cloned] {
        let record = reader.read(NOW).unwrap();
        assert_eq!(changes(&record), expected(&updates));
        assert_eq!(
            (record.number(), record.missed(), record.is_exact()),
            (8, 0, true)
        );
    }
    writers[0].write(listed(&["b"])).unwrap();
    writers[1].write(listed(&["b", "s"])).unwrap();
    for reader in [&mut late, &mut cloned, &mut each, &mut some] {
        let record = reader.read(NOW).unwrap();
        assert_eq!(changes(&record), [0, 2, 0, 1]);
        assert_eq!((record.missed(), record.is_exact()), (1, true));
    }
}

#[test]
fn without_the_trailer_every_field_may_have_changed_in_a_missed_write() {
    let heap = Heap::new(ABC, 1, plain());
    let (mut writer, mut reader) = (heap.store(plain()), heap.store(plain()));
    writer.write(values([("a", 1)])).unwrap();
    let record = reader.read(NOW).unwrap();
    assert_eq!(
        (changes(&record), record.is_exact()),
        (vec![1, 0, 0, 0], true)
    );
    for _ in 0..3 {
        writer.write(values([("b", 1)])).unwrap();
    }
    let record = reader.read(NOW).unwrap();
    assert_eq!((changes(&record), record.missed()), (vec![3; 4], 2));
    assert!(!record.is_exact());
    // The flags tell of the last write alone.
    assert_eq!(statuses(&record), [0, 4, 2, 2]);
    writer.write(values([("c", 1)])).unwrap();
    let record = reader.read(NOW).unwrap();
    assert_eq!(
        (changes(&record), record.is_exact()),
        (vec![0, 0, 1, 0], true)
    );
    // Late.
    let record = heap.store(plain()).read(NOW).unwrap();
    assert_eq!((changes(&record), record.is_exact()), (vec![5; 4], false));
}

/// Other writers do not count. What they may have changed is changed, for who
/// missed it; then the counts are exact again.
#[test]
fn foreign_writes_make_the_counts_bounds() {
    let heap = Heap::new(ABC, 1, native());
    let mut writer = heap.store(native());
    let mut each = heap.store(native());
    let mut missing = heap.store(native());
    let step = |each: &mut SlotStore<Dynamic>| {
        let record = each.read_new(NOW).unwrap();
        assert!(record.is_exact(), "one write tells all");
        changes(&record)
    };
    writer.write(values([("a", 1)])).unwrap();
    assert_eq!(step(&mut each), [1, 0, 0, 0]);
    assert!(missing.read_new(NOW).unwrap().is_exact());
    heap.python_writes(0, "a", &2.0_f64.to_le_bytes());
    assert_eq!(step(&mut each), [1, 0, 0, 0]);
    writer.write(values([("b", 3)])).unwrap();
    assert_eq!(step(&mut each), [0, 1, 0, 0]);
    // One of the two that it missed was foreign.
    let record = missing.read_new(NOW).unwrap();
    assert_eq!((record.number(), record.missed()), (3, 1));
    let found = changes(&record);
    assert!(found[0] >= 1 && found[1] >= 1, "{found:?}");
    assert!(!record.is_exact(), "{found:?}");

    // From here on only our writers: exact for both.
    for _ in 0..2 {
        writer.write(values([("a", 4)])).unwrap();
    }
    writer.write(values([("c", 1)])).unwrap();
    for reader in [&mut each, &mut missing] {
        let record = reader.read_new(NOW).unwrap();
        assert_eq!((changes(&record), record.missed()), (vec![2, 0, 1, 0], 2));
        assert!(record.is_exact());
    }

    // The foreign write is the last of several.
    writer.write(values([("a", 5)])).unwrap();
    heap.python_writes(0, "b", &6_i32.to_le_bytes());
    let record = missing.read_new(NOW).unwrap();
    assert_eq!((changes(&record), record.is_exact()), (vec![2; 4], false));
    for _ in 0..2 {
        writer.write(values([("b", 7)])).unwrap();
    }
    let record = missing.read_new(NOW).unwrap();
    assert_eq!(
        (changes(&record), record.is_exact()),
        (vec![0, 2, 0, 0], true)
    );
}

#[test]
fn reset_modified_is_for_all_readers() {
    for options in [plain(), native()] {
        let heap = Heap::new(ABC, 1, options);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        writer.write(values([("a", 1), ("b", 2)])).unwrap();
        // It has not read that one.
        assert!(!reader.reset_modified().unwrap());
        assert_eq!(heap.statuses(0), [4, 4, 2, 2]);
        assert_eq!(statuses(&reader.read(NOW).unwrap()), [4, 4, 2, 2]);
        let before = heap.segment.image();
        assert!(reader.reset_modified().unwrap());
        assert_eq!(heap.statuses(0), [0, 0, 2, 2]);
        let after = heap.segment.image();
        assert_eq!(after[..8], before[..8], "the number is as it was");
        assert_eq!(
            after[16..heap.layout.slot_size()],
            before[16..heap.layout.slot_size()]
        );
        let mut other = heap.store(options);
        assert_eq!(statuses(&other.read(NOW).unwrap()), [0, 0, 2, 2]);
        // It was replaced.
        writer.write(values([("b", 3)])).unwrap();
        assert!(!reader.reset_modified().unwrap());
        assert_eq!(heap.statuses(0), [0, 4, 2, 2]);
        let record = reader.read(NOW).unwrap();
        assert_eq!(
            (statuses(&record), changes(&record)),
            (vec![0, 4, 2, 2], vec![0, 1, 0, 0])
        );
        // Bits of the future stay.
        heap.segment.poke(8, &[0xFC]);
        assert!(reader.reset_modified().unwrap());
        assert_eq!(heap.statuses(0), [0xF8, 0, 2, 2]);
    }
}

// Writes under way.

#[test]
fn a_write_under_way_is_waited_for() {
    for options in [plain(), native(), native().buffered(false)] {
        let heap = Heap::new(ABC, 1, options);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        writer.write(values([("b", 1)])).unwrap();
        heap.is_being_written(0, 2, 0);
        assert!(reader.try_read().is_none());
        assert!(reader.try_read_new().is_none());
        let start = Instant::now();
        assert_error!(reader.read(WHILE), ReadError::Busy { .. });
        assert!(start.elapsed() >= WHILE);
        assert_error!(reader.read_new(NOW), ReadError::Busy { .. });
        // Python at work looks different.
        heap.is_whole(0, 1);
        heap.poke(0, 2);
        assert!(reader.try_read().is_none());
        assert_error!(reader.read(MOMENT), ReadError::Busy { .. });
        // It ends while somebody waits.
        scope(|scope| {
            let reader = scope.spawn(|| reader.read(PATIENCE).unwrap().number());
            sleep(WHILE);
            heap.is_whole(0, 2);
            assert_eq!(reader.join().unwrap(), 2);
        });
    }
}

/// A reader that finds a write under way asks, and has the next record whole
/// however long the one after it takes.
#[test]
fn a_writer_leaves_a_record_for_who_asks() {
    let heap = Heap::new(LARGE, 1, native());
    let (mut writer, mut reader) = (heap.store(native()), heap.store(native()));
    let image = |value: u8| ArrayValue::from_elements(vec![40, 50], &vec![value; 2000]).unwrap();
    let write = |writer: &mut SlotStore<Dynamic>, number: u8| {
        let values = Values::new()
            .with("n", i32::from(number))
            .with("image", image(number));
        writer.write(values).unwrap()
    };
    write(&mut writer, 1);
    assert_eq!(reader.read(NOW).unwrap().number(), 1);
    write(&mut writer, 2);
    heap.is_being_written(0, 3, 0);
    assert_error!(reader.read(WHILE), ReadError::Busy { .. });
    heap.is_whole(0, 2);
    assert_eq!(write(&mut writer, 3), 3);
    heap.is_being_written(0, 4, 0);
    let record = reader.read(PATIENCE).unwrap();
    assert_eq!((record.number(), record.missed()), (3, 1));
    assert_eq!(record.get("n").unwrap().as_i32(), Some(3));
    assert_eq!(
        record.get("image").unwrap().to_vec::<u8>(),
        Some(vec![3; 2000])
    );
    assert_eq!((changes(&record), record.is_exact()), (vec![2, 2, 0], true));
    // It is not new a second time.
    assert_error!(reader.read_new(MOMENT), ReadError::Busy { .. });
    heap.is_whole(0, 3);
    assert_error!(reader.read_new(MOMENT), ReadError::Timeout { .. });

    // It is left once.
    let places = heap.native.as_ref().unwrap();
    let left = || [0, 1].map(|buffer| heap.word(places.buffer(buffer).unwrap()));
    assert!(left().contains(&3));
    // It asked again above.
    write(&mut writer, 4);
    let mut before = left();
    write(&mut writer, 5);
    assert_eq!(left(), before);
    before.sort_unstable();
    assert_eq!(before, [3, 4]);

    // Nobody asked: nothing is left.
    let heap = Heap::new(LARGE, 1, native());
    let mut writer = heap.store(native());
    for number in 1..=3 {
        write(&mut writer, number);
    }
    let buffers = heap.native.as_ref().unwrap();
    for buffer in 0..2 {
        assert_eq!(heap.word(buffers.buffer(buffer).unwrap()), 0);
    }
}

#[test]
fn a_record_that_its_writer_did_not_finish_comes_back() {
    let (mark, _) = dead_process();
    for repairs in [false, true] {
        let heap = Heap::new(ABC, 1, native());
        let (mut writer, mut reader) = (heap.store(native()), heap.store(native()));
        writer.write(values([("a", 1), ("b", 1)])).unwrap();
        heap.is_being_written(0, 2, 0);
        assert_error!(reader.read(WHILE), ReadError::Busy { .. });
        heap.is_whole(0, 1);
        // This one is left in a buffer too.
        writer.write(values([("b", 2)])).unwrap();
        heap.is_being_written(0, 3, 0b10);
        heap.is_locked_by(mark);
        heap.segment.poke(heap.layout.fields()[1].offset, &[9; 4]);
        // Readers get it even so.
        let record = reader.read(PATIENCE).unwrap();
        assert_eq!(
            (record.number(), record.get("b").unwrap().as_i32()),
            (2, Some(2))
        );
        let mut expected = 3;
        if repairs {
            assert!(writer.repair().unwrap());
            assert!(!writer.repair().unwrap());
        } else {
            expected = writer.write(values([("c", 1)])).unwrap();
            assert_eq!(expected, 4, "a number is used once");
        }
        let record = reader.read(NOW).unwrap();
        assert_eq!(record.number(), expected);
        assert_eq!(record.get("b").unwrap().valid(), Some(Value::Int(2)));
        assert_eq!(record.get("a").unwrap().valid(), Some(Value::Float(1.0)));
        let c = u64::from(!repairs);
        assert_eq!(changes(&record), [0, 0, c, 0]);
        assert!(record.is_exact());
        assert_eq!(writer.write(values([("b", 3)])).unwrap(), expected + 1);
    }
}

#[test]
fn a_record_that_its_writer_did_not_finish_is_lost_in_part() {
    let (mark, pid) = dead_process();
    for options in [plain(), native(), native().buffered(false)] {
        for repairs in [false, true] {
            let heap = Heap::new(ABC, 1, options);
            let (mut writer, mut reader) = (heap.store(options), heap.store(options));
            let first = values([("a", 1), ("b", 1), ("c", 1)]).with("s", "long one");
            writer.write(first).unwrap();
            reader.read(NOW).unwrap();
            heap.is_being_written(0, 2, 0b10);
            heap.segment.poke(heap.layout.fields()[1].offset, &[9; 4]);
            heap.segment.poke(offset::STATUS + 1, &[4]);
            if heap.native.is_some() {
                heap.is_locked_by(mark);
                assert_error!(
                    reader.read(MOMENT),
                    ReadError::WriterDied { pid: found, .. } if found == pid
                );
                assert_error!(reader.read_new(MOMENT), ReadError::WriterDied { .. });
            } else {
                assert_error!(reader.read(MOMENT), ReadError::Busy { .. });
            }
            if repairs {
                assert!(writer.repair().unwrap());
                assert!(!writer.repair().unwrap());
                let record = reader.read(NOW).unwrap();
                assert_eq!(record.number(), 2);
                // What else it changed nobody knows.
                assert_eq!(changes(&record), [1; 4]);
                assert!(record.iter().all(|field| !field.is_modified()));
            }
            assert_eq!(writer.write(values([("c", 0)])).unwrap(), 3);
            let record = reader.read(NOW).unwrap();
            assert!(record.get("b").unwrap().is_unwritten());
            assert!(record.get("c").unwrap().is_valid());
            let (a, s) = (record.get("a").unwrap(), record.get("s").unwrap());
            if heap.native.is_some() {
                assert_eq!(a.valid(), Some(Value::Float(1.0)));
                assert!(s.is_truncated() && s.text().as_deref() == Some("long"));
            } else {
                // Nobody knows which it was writing.
                assert!(a.is_unwritten() && s.is_unwritten());
            }
            assert_eq!(writer.write(values([("b", 5)])).unwrap(), 4);
            let record = reader.read(NOW).unwrap();
            assert_eq!(record.get("b").unwrap().valid(), Some(Value::Int(5)));
        }
    }
}

/// A Python writer at work is not known to be dead: it is left alone, and its
/// number counts.
#[test]
fn a_foreign_write_is_left_alone_by_repair() {
    for options in [plain(), native()] {
        let heap = Heap::new(ABC, 1, options);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        heap.python_writes(0, "b", &1_i32.to_le_bytes());
        heap.poke(0, 2);
        heap.python_stores(0, "a", &7.0_f64.to_le_bytes());
        let before = heap.segment.image();
        assert!(!writer.repair().unwrap());
        assert_eq!(
            heap.segment.image()[..heap.layout.slot_size()],
            before[..heap.layout.slot_size()]
        );
        assert_error!(reader.read(MOMENT), ReadError::Busy { .. });
        assert_eq!(writer.write(values([("c", 1)])).unwrap(), 3);
        let record = reader.read(NOW).unwrap();
        assert_eq!(record.get("a").unwrap().as_f64(), Some(7.0));
        assert_eq!(statuses(&record), [0, 0, 4, 2]);
    }
}

#[test]
fn one_writer_at_a_time() {
    let options = native().lock_timeout(WHILE);
    let heap = Heap::new(ABC, 1, options);
    let (mut store, before) = (heap.store(options), heap.segment.image());
    heap.is_locked_by(own_mark());
    let own = std::process::id();
    let start = Instant::now();
    assert_error!(store.write(values([("b", 1)])), WriteError::Busy { pid, .. } if pid == own);
    assert!(start.elapsed() >= WHILE);
    assert_error!(store.repair(), WriteError::Busy { .. });
    assert_error!(store.reset_modified(), WriteError::Busy { .. });
    assert_eq!(
        heap.segment.image()[..heap.layout.slot_size()],
        before[..heap.layout.slot_size()]
    );
    // Readers do not care.
    assert_eq!(store.read(NOW).unwrap().number(), 0);
    // Given back while somebody waits.
    let mut patient = heap.store(options.lock_timeout(PATIENCE));
    scope(|scope| {
        let writer = scope.spawn(|| patient.write(values([("b", 1)])).unwrap());
        sleep(WHILE);
        heap.poke(heap.writer_line(), 0);
        assert_eq!(writer.join().unwrap(), 1);
    });
    // A dead one's is taken.
    heap.is_locked_by(dead_process().0);
    assert_eq!(store.write(values([("b", 1)])).unwrap(), 2);
    assert_eq!(heap.word(heap.writer_line()), 0, "and given back");

    let options = options.on_full(OnFull::Refuse);
    let heap = Heap::new(ABC, 2, options);
    let mut fifo = heap.fifo(options);
    fifo.stage(values([("b", 1)])).unwrap();
    heap.is_locked_by(own_mark());
    assert_error!(fifo.finalize(), WriteError::Busy { pid, .. } if pid == own);
    assert_error!(fifo.push(values([("b", 2)])), WriteError::Busy { .. });
    assert_error!(fifo.republish(), WriteError::Busy { .. });
    assert_error!(fifo.drain(NOW), WriteError::Busy { .. });
    for reading in [Reading::Registered, Reading::Shared] {
        let opened = heap.segment.fifo_dynamic(
            Some(heap.layout.schema()),
            Some(2),
            options.reading(reading),
        );
        assert_error!(opened, OpenError::Busy { pid, .. } if pid == own);
    }
    heap.poke(heap.writer_line(), 0);
    assert_eq!(fifo.finalize().unwrap(), Some(0));
    assert_eq!(fifo.try_read().unwrap().get("b").unwrap().as_i32(), Some(1));
}

/// Without the trailer the system's file lock is the writers' lock.
#[test]
fn one_writer_at_a_time_without_the_trailer() {
    let name = Name::new("file-lock");
    let options = plain().lock_timeout(WHILE);
    let mut store = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap();
    let other = File::open(path(&name)).unwrap();
    other.lock().unwrap();
    let start = Instant::now();
    assert_error!(
        store.write(values([("b", 1)])),
        WriteError::Busy { pid: 0, .. }
    );
    assert!(start.elapsed() >= WHILE);
    assert_eq!(store.read(NOW).unwrap().number(), 0);
    other.unlock().unwrap();
    assert_eq!(store.write(values([("b", 1)])).unwrap(), 1);
    store.unlink().unwrap();
}

// Values.

const KINDS: &str = "f: float, i: int, b: bool, s: str[3], g: int16[2,3], u: uint8[4], d: float64[4], \
    large: int16[40,50]";

fn array<T: polyshm_slots::Element>(shape: &[usize], elements: &[T]) -> Value {
    ArrayValue::from_elements(shape.into(), elements)
        .unwrap()
        .into()
}

/// A value, the field that does not take it, and why.
fn refusals() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (
            "i",
            Value::Int(1 << 31),
            "2147483648 does not fit a field of type int, which holds -2147483648 to 2147483647",
        ),
        (
            "i",
            Value::Int(-(1 << 31) - 1),
            "-2147483649 does not fit a field of type int, which holds -2147483648 to 2147483647",
        ),
        ("i", 1.0.into(), "a field of type int takes no float value"),
        (
            "i",
            f64::NAN.into(),
            "a field of type int takes no float value",
        ),
        ("i", "1".into(), "a field of type int takes no text value"),
        (
            "f",
            "1.0".into(),
            "a field of type float takes no text value",
        ),
        (
            "f",
            Value::Int(i64::MAX),
            "9223372036854775807 would be rounded in a field of type float, which holds it not exactly",
        ),
        (
            "f",
            array(&[1], &[1.0]),
            "a field of type float takes no array value",
        ),
        (
            "b",
            2.into(),
            "2 does not fit a field of type bool, which holds 0 to 1",
        ),
        ("b", 1.0.into(), "a field of type bool takes no float value"),
        (
            "b",
            "True".into(),
            "a field of type bool takes no text value",
        ),
        ("s", 7.into(), "a field of type str[3] takes no int value"),
        (
            "s",
            array(&[1], b"a"),
            "a field of type str[3] takes no array value",
        ),
        (
            "g",
            7.into(),
            "a field of type int16[2,3] takes no int value",
        ),
        (
            "g",
            "text".into(),
            "a field of type int16[2,3] takes no text value",
        ),
        (
            "g",
            array(&[2, 3], &[1_i64, 2, 3, 4, 40_000, 6]),
            "element 4 is 40000, which no int16 equals",
        ),
        (
            "g",
            array(&[2, 3], &[1.0, 2.5, 3.0, 4.0, 5.0, 6.0]),
            "element 1 is 2.5, which no int16 equals",
        ),
        (
            "g",
            array(&[2, 3], &[1.0, 2.0, f64::NAN, 4.0, 5.0, 6.0]),
            "element 2 is NaN, which no int16 equals",
        ),
        (
            "g",
            array(&[2, 3], &[f64::INFINITY, 2.0, 3.0, 4.0, 5.0, 6.0]),
            "element 0 is inf, which no int16 equals",
        ),
        (
            "u",
            array(&[4], &[0, 0, 0, -1]),
            "element 3 is -1, which no uint8 equals",
        ),
        (
            "d",
            array(&[4], &[u64::MAX, 1, 2, 3]),
            "element 0 is 18446744073709551615, which no float64 equals",
        ),
        (
            "large",
            array(&[40, 50], &[70_000_i32; 2000]),
            "element 0 is 70000, which no int16 equals",
        ),
    ]
}

/// Each is refused in stores and FIFOs, with its own message, and nothing is
/// written or staged.
#[test]
fn values_that_do_not_fit_are_refused() {
    for options in [plain(), native()] {
        let heap = Heap::new(KINDS, 1, options);
        let ring = Heap::new(KINDS, 2, options);
        let (mut store, mut fifo) = (heap.store(options), ring.fifo(options));
        fifo.stage(values([("f", 5), ("i", 7)])).unwrap();
        let (before, ring_before) = (heap.segment.image(), ring.segment.image());
        for (field, value, message) in refusals() {
            // What comes before it is not written either.
            let update = values([("f", 1), ("i", 2)]).with(field, value);
            for result in [
                store.write(&update).map(drop),
                fifo.stage(&update),
                fifo.push(&update).map(drop),
            ] {
                let error = result.unwrap_err();
                let shown = error.to_string();
                assert!(
                    shown.starts_with("nothing was written to segment \"on the heap\""),
                    "{shown}"
                );
                let WriteError::Value { source, .. } = &error else {
                    panic!("{error:?}");
                };
                let shown = source.to_string();
                assert_eq!(
                    shown,
                    format!("field {field:?} cannot hold the value: give it one that it can")
                );
                assert_eq!(source.source().unwrap().to_string(), message);
            }
        }
        assert!(
            heap.segment.image()[..heap.layout.slot_size()] == before[..heap.layout.slot_size()]
        );
        assert!(ring.segment.image()[..] == ring_before[..]);
        // What was staged before is still staged, and alone.
        assert_eq!(fifo.finalize().unwrap(), Some(0));
        let item = fifo.try_read().unwrap();
        assert_eq!(item.get("f").unwrap().as_f64(), Some(5.0));
        assert_eq!(item.get("i").unwrap().as_i32(), Some(7));
        assert!(item.get("g").unwrap().is_unwritten());

        let unknown = store.write(values([("f", 1), ("zzz", 2)])).unwrap_err();
        let shown = unknown.source().unwrap().to_string();
        assert_eq!(
            shown,
            format!("the record has no field \"zzz\": its fields are {KINDS}")
        );
        assert_error!(
            unknown_again(&mut store),
            WriteError::Value { source: ValueError::UnknownField { field, .. }, .. } if field == "zzz"
        );
        assert_eq!(store.read(NOW).unwrap().number(), 0);
        assert_error!(
            store.write(values([("b", 2)])),
            WriteError::Value {
                source: ValueError::Refused { field, source: Refusal::OutOfRange { value: 2, .. } },
                ..
            } if field == "b"
        );
    }
}

fn unknown_again(store: &mut SlotStore<Dynamic>) -> Result<u64, WriteError> {
    store.write(values([("zzz", 1)]))
}

#[test]
fn values_that_fit_are_converted() {
    for (field, value, shown) in [
        ("f", Value::Int(3), "3.0"),
        ("f", true.into(), "1.0"),
        ("f", f64::INFINITY.into(), "inf"),
        ("f", (-0.0).into(), "-0.0"),
        ("i", true.into(), "1"),
        ("i", Value::Int(i32::MIN.into()), "-2147483648"),
        ("b", Value::Int(1), "true"),
        ("s", "a\0b".into(), r#""a\0b""#),
        ("s", "€€€".into(), r#""€€€""#),
        (
            "g",
            array(&[2, 3], &[1_i64, -2, 3, 4, 5, 6]),
            "[1, -2, 3, 4, 5, 6]",
        ),
        (
            "g",
            array(&[2, 3], &[1.0_f32, -2.0, 3.0, 4.0, 5.0, 6.0]),
            "[1, -2, 3, 4, 5, 6]",
        ),
        ("u", array(&[4], &[true, false, true, true]), "[1, 0, 1, 1]"),
        ("d", array(&[4], &[1_u8, 2, 3, 4]), "[1.0, 2.0, 3.0, 4.0]"),
        (
            "large",
            array(&[40, 50], &[7_i64; 2000]),
            "[7, 7, 7, 7, 7, 7, 7, 7, and 1992 more]",
        ),
    ] {
        let heap = Heap::new(KINDS, 1, native());
        let mut store = heap.store(native());
        store.write(Values::new().with(field, value)).unwrap();
        let record = store.read(NOW).unwrap();
        let found = record.get(field).unwrap();
        assert!(found.is_valid() && found.is_modified());
        assert_eq!(found.to_string(), shown, "{field}");
        assert_eq!(
            record.iter().filter(|field| !field.is_unwritten()).count(),
            1
        );
    }
}

/// As the original does (sections 3.3 and 3.4).
#[test]
fn what_is_too_long_or_of_another_shape_is_truncated() {
    let rest = |from: i16| (from..from + 2000).collect::<Vec<_>>();
    for (field, value, shown) in [
        ("s", Value::from("abcd"), r#""abc" (truncated)"#),
        ("s", "😀éx😀".into(), r#""😀éx" (truncated)"#),
        (
            "g",
            array(&[6], &[1_i16, 2, 3, 4, 5, 6]),
            "[1, 2, 3, 4, 5, 6] (truncated)",
        ),
        (
            "g",
            array(&[1, 2, 3], &[1_i16, 2, 3, 4, 5, 6]),
            "[1, 2, 3, 4, 5, 6] (truncated)",
        ),
        (
            "g",
            array(&[2, 2], &[1_i16, 2, 3, 4]),
            "[1, 2, 3, 4, 0, 0] (truncated)",
        ),
        (
            "g",
            array(&[2, 4], &[1_i16, 2, 3, 4, 5, 6, 7, 8]),
            "[1, 2, 3, 4, 5, 6] (truncated)",
        ),
        (
            "g",
            array(&[2, 4], &[1_i64, 2, 3, 4, 5, 6, 70_000, 8]),
            "[1, 2, 3, 4, 5, 6] (truncated)",
        ),
        (
            "d",
            array::<f64>(&[0], &[]),
            "[0.0, 0.0, 0.0, 0.0] (truncated)",
        ),
        ("d", array(&[], &[5.0]), "[5.0, 0.0, 0.0, 0.0] (truncated)"),
        (
            "large",
            array(&[2000], &rest(3)),
            "[3, 4, 5, 6, 7, 8, 9, 10, and 1992 more] (truncated)",
        ),
        (
            "large",
            array(&[2, 3], &[1_i16, 2, 3, 4, 5, 6]),
            "[1, 2, 3, 4, 5, 6, 0, 0, and 1992 more] (truncated)",
        ),
        (
            "large",
            array(&[3, 1000], &[9_i16; 3000]),
            "[9, 9, 9, 9, 9, 9, 9, 9, and 1992 more] (truncated)",
        ),
    ] {
        for slots in [1, 2] {
            let heap = Heap::new(KINDS, slots, native());
            let good = Values::new()
                .with("large", array(&[40, 50], &rest(-5)))
                .with("i", -1);
            let good = good.with("d", array(&[4], &[7.0; 4])).with("s", "xyz");
            let good = good.with("g", array(&[2, 3], &[7_i16; 6]));
            let shown_now = |record: &polyshm_slots::DynamicFields| {
                assert_eq!(record.get("i").unwrap().as_i32(), Some(-1), "the neighbour");
                record.get(field).unwrap().to_string()
            };
            let update = Values::new().with(field, value.clone());
            if slots == 1 {
                let mut store = heap.store(native());
                store.write(&good).unwrap();
                store.write(&update).unwrap();
                assert_eq!(shown_now(&store.read(NOW).unwrap()), shown);
                // The next that fits is whole.
                store.write(&good).unwrap();
                assert!(store.read(NOW).unwrap().get(field).unwrap().is_valid());
            } else {
                let mut fifo = heap.fifo(native());
                fifo.stage(&good).unwrap();
                fifo.stage(&update).unwrap();
                fifo.finalize().unwrap();
                fifo.stage(&good).unwrap();
                fifo.push(&update).unwrap();
                for _ in 0..2 {
                    assert_eq!(shown_now(&fifo.try_read().unwrap()), shown);
                }
                let large = fifo.push(&good).unwrap();
                let item = fifo.try_read().unwrap();
                assert!(item.index() == large && item.get(field).unwrap().is_valid());
            }
        }
    }
    // The elements of a large array, all of them.
    let heap = Heap::new(KINDS, 1, native());
    let mut store = heap.store(native());
    store
        .write(Values::new().with("large", array(&[40, 50], &[9_i16; 2000])))
        .unwrap();
    store
        .write(Values::new().with("large", array(&[600], &[8_i16; 600])))
        .unwrap();
    let mut expected = vec![8_i16; 600];
    expected.resize(2000, 0);
    let record = store.read(NOW).unwrap();
    assert_eq!(record.get("large").unwrap().to_vec::<i16>(), Some(expected));
    assert_eq!(record.get("large").unwrap().shape(), [40, 50]);
}

/// A text's length may be a lie: nothing behind the field is read.
#[test]
fn a_damaged_text_ends_in_its_field() {
    let heap = Heap::new(ABC, 1, plain());
    let mut store = heap.store(plain());
    store.write(Values::new().with("s", "abcd")).unwrap();
    let at = heap.layout.fields()[3].offset;
    for (len, shown, truncated) in [
        (4_u32, "abcd", false),
        (16, "abcd\0\0\0\0\0\0\0\0\0\0\0\0", false),
        (17, "abcd\0\0\0\0\0\0\0\0\0\0\0\0", true),
        (u32::MAX, "abcd\0\0\0\0\0\0\0\0\0\0\0\0", true),
    ] {
        heap.segment.poke(at, &len.to_le_bytes());
        let record = store.read(NOW).unwrap();
        let s = record.get("s").unwrap();
        assert_eq!(
            (s.text().as_deref(), s.is_truncated()),
            (Some(shown), truncated),
            "{len}"
        );
        assert_eq!(s.value(), Value::from(shown));
    }
    heap.segment.poke(at, b"\x05\0\0\0\xFFa\xC3b\xE2");
    assert_eq!(
        store.read(NOW).unwrap().get("s").unwrap().text().as_deref(),
        Some("ab")
    );
}

// FIFOs.

fn push(fifo: &mut SlotFifo<Dynamic>, number: i32) -> Result<u64, WriteError> {
    fifo.push(values([("n", number)]))
}

/// What a handle gets until there is nothing more: the numbers, and how many
/// were lost and passed over before what.
fn take_all(fifo: &mut SlotFifo<Dynamic>) -> (Vec<i32>, u64, u64) {
    let (mut numbers, mut overrun, mut skipped) = (Vec::new(), 0, 0);
    while let Some(item) = fifo.try_read() {
        numbers.push(item.get("n").unwrap().as_i32().unwrap());
        overrun += item.overrun();
        skipped += item.skipped();
    }
    (numbers, overrun, skipped)
}

const N: &str = "n: int, x: float, note: str[3]";

#[test]
fn items_are_staged_and_finalized() {
    for options in [plain(), native()] {
        let heap = Heap::new(N, 3, options);
        let (mut writer, mut reader) = (heap.fifo(options), heap.fifo(options));
        assert_eq!(writer.schema(), heap.layout.schema());
        assert_eq!(
            (writer.capacity(), writer.has_trailer()),
            (3, heap.native.is_some())
        );
        assert_eq!((writer.finalized(), reader.unread()), (0, 0));
        let shown = format!("{writer:?}");
        assert!(
            shown.contains("on the heap") && shown.contains("capacity"),
            "{shown}"
        );
        let empty = heap.segment.image();
        // Nothing staged, nothing done.
        assert_eq!(writer.finalize().unwrap(), None);
        writer.stage(values([("n", 1)])).unwrap();
        writer.stage(values([("n", 2), ("x", 3)])).unwrap();
        assert!(heap.segment.image() == empty, "staging shares nothing");
        assert!(reader.try_read().is_none());
        assert_eq!(writer.finalize().unwrap(), Some(0));
        assert_eq!(writer.finalize().unwrap(), None, "it is staged no more");
        assert_eq!((writer.finalized(), reader.unread()), (1, 1));
        let item = reader.read(NOW).unwrap();
        assert_eq!((item.index(), item.overrun(), item.skipped()), (0, 0, 0));
        assert_eq!(item.to_string(), "n: 2, x: 3.0, note: unwritten");
        assert_eq!(
            item.iter().map(|field| field.changes()).collect::<Vec<_>>(),
            [1, 1, 0]
        );
        let shown = format!("{item:?}");
        assert!(
            shown.contains("index: 0") && shown.contains("overrun: 0"),
            "{shown}"
        );
        assert_eq!(
            item.clone().into_fields().get("n").unwrap().as_i32(),
            Some(2)
        );

        // Discarded.
        writer.stage(values([("n", 9)])).unwrap();
        writer.discard();
        assert_eq!(writer.finalize().unwrap(), None);
        // Staged fields go with a pushed one, which wins.
        writer.stage(values([("n", 9), ("x", 4)])).unwrap();
        assert_eq!(
            writer
                .push(Values::new().with("n", 5).with("note", "abcd"))
                .unwrap(),
            1
        );
        assert_eq!(writer.finalize().unwrap(), None);
        let item = reader.read(NOW).unwrap();
        assert_eq!(item.to_string(), r#"n: 5, x: 4.0, note: "abc" (truncated)"#);
        // Nothing at all is an item too, when it is staged.
        writer.stage(Values::new()).unwrap();
        assert_eq!(writer.finalize().unwrap(), Some(2));
        assert_eq!(writer.push(Values::new()).unwrap(), 3);
        let item = reader.read(NOW).unwrap();
        assert!(item.iter().all(|field| field.is_unwritten()));
        // A lap later a slot has what it held before.
        let item = reader.read(NOW).unwrap();
        assert_eq!(
            (item.index(), item.to_string()),
            (3, "n: 2, x: 3.0, note: unwritten".into())
        );
        assert!(
            item.iter()
                .all(|field| !field.is_modified() && !field.is_changed())
        );
        assert_eq!(heap.meta(), (4, 1, 3), "a broadcast reader takes nothing");
    }
}

/// Arrays are copied when they are staged, of any size, and not before the slot
/// when they are pushed.
#[test]
fn staged_arrays_are_the_handles_own() {
    let heap = Heap::new(LARGE, 2, native());
    let mut fifo = heap.fifo(native());
    let image = |value: u8| array(&[40, 50], &[value; 2000]);
    let first = Values::new().with("image", image(1)).with("n", 1);
    fifo.stage(&first).unwrap();
    drop(first);
    fifo.stage(values([("n", 2)])).unwrap();
    fifo.finalize().unwrap();
    // A later value wins, staged or pushed.
    fifo.stage(Values::new().with("image", image(3))).unwrap();
    fifo.push(Values::new().with("image", image(4))).unwrap();
    fifo.stage(Values::new().with("image", image(5)).with("tail", 1.0))
        .unwrap();
    for (value, n) in [(1, Some(2)), (4, None)] {
        let item = fifo.try_read().unwrap();
        assert_eq!(
            item.get("image").unwrap().to_vec::<u8>(),
            Some(vec![value; 2000])
        );
        assert_eq!(item.get("n").unwrap().valid().is_some(), n.is_some());
    }
    // The tail stays with what was staged when the push is refused.
    assert_error!(
        fifo.push(Values::new().with("image", image(6)).with("n", 1.5)),
        WriteError::Value { .. }
    );
    fifo.finalize().unwrap();
    let item = fifo.try_read().unwrap();
    assert_eq!(
        item.get("image").unwrap().to_vec::<u8>(),
        Some(vec![5; 2000])
    );
    assert_eq!(item.get("tail").unwrap().as_f64(), Some(1.0));
}

/// What is refused for lack of room stays staged; what was pushed does not.
#[test]
fn a_full_fifo_refuses_when_it_is_to() {
    for options in [plain(), native()] {
        let heap = Heap::new(N, 2, options);
        let mut writer = heap.fifo(options.on_full(OnFull::Refuse));
        let mut reader = heap.fifo(options.reading(Reading::Shared));
        push(&mut writer, 0).unwrap();
        push(&mut writer, 1).unwrap();
        let full = heap.segment.image();
        let error = push(&mut writer, 2).unwrap_err();
        assert!(error.is_full() && matches!(error, WriteError::Full { .. }));
        assert_eq!(
            writer.finalize().unwrap(),
            None,
            "a push that fails is not staged"
        );
        writer.stage(values([("n", 3)])).unwrap();
        assert_error!(writer.push(values([("x", 1)])), WriteError::Full { .. });
        assert_error!(writer.finalize(), WriteError::Full { .. });
        assert!(heap.segment.image() == full, "nothing was written");
        assert_eq!(reader.try_read().unwrap().index(), 0);
        assert_eq!(writer.finalize().unwrap(), Some(2));
        assert_eq!(take_all(&mut reader), (vec![1, 3], 0, 0));
        assert!(heap.meta() == (3, 3, 0));
    }
}

/// Xorshift64*: the same steps in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

/// A reader and what came of it.
struct Tally {
    fifo: SlotFifo<Dynamic>,
    got: Vec<u64>,
    overrun: u64,
    skipped: u64,
}

impl Tally {
    fn take(&mut self, latest: bool) -> bool {
        let item = if latest {
            self.fifo.try_read_latest()
        } else {
            self.fifo.try_read()
        };
        let Some(item) = item else { return false };
        let n = item.get("n").unwrap().as_i32().unwrap();
        assert_eq!(
            i64::try_from(item.index()).unwrap(),
            i64::from(n),
            "another item"
        );
        assert_eq!(item.get("x").unwrap().as_f64(), Some(f64::from(n)), "mixed");
        assert!(
            self.got.last().is_none_or(|last| *last < item.index()),
            "out of order"
        );
        self.got.push(item.index());
        self.overrun += item.overrun();
        self.skipped += item.skipped();
        true
    }
}

/// One combination: how the segment is, and what its handles want.
#[derive(Clone, Copy, Debug)]
struct Combination {
    trailer: bool,
    slots: u64,
    on_full: OnFull,
    reading: Reading,
    latest: bool,
}

impl Combination {
    /// How many consumers are told apart: without the trailer one.
    fn readers(self) -> usize {
        let alone = self.reading == Reading::Shared && !self.trailer;
        if alone { 1 } else { 2 }
    }

    /// Two writers push, and the readers read, in any order.
    fn run(self, random: &mut Random) {
        let options = Options::new().trailer(self.trailer).full_timeout(Some(NOW));
        let heap = Heap::new(N, self.slots, options);
        let writer = options.on_full(self.on_full);
        let mut writers = [heap.fifo(writer), heap.fifo(writer)];
        let mut readers: Vec<_> = (0..self.readers())
            .map(|_| Tally {
                fifo: heap.fifo(options.reading(self.reading)),
                got: Vec::new(),
                overrun: 0,
                skipped: 0,
            })
            .collect();
        let (mut finalized, mut refused) = (0_u32, 0);
        for _ in 0..3000 {
            if random.below(3) < 2 {
                let number = i64::from(finalized);
                let values = Values::new().with("n", number).with("x", number);
                match writers[random.below(2) as usize].push(values) {
                    Ok(index) => {
                        assert_eq!(index, u64::from(finalized));
                        finalized += 1;
                    }
                    Err(WriteError::Full { .. }) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            } else {
                let latest = self.latest && random.below(2) == 0;
                let reader = random.below(readers.len() as u64);
                readers[reader as usize].take(latest);
            }
        }
        for reader in &mut readers {
            while reader.take(false) {}
            // What was lost was told with an item that came later, but for what
            // others took at the end.
            let others = reader.fifo.lost() - reader.overrun;
            assert!(others == 0 || self.reading == Reading::Shared, "{self:?}");
        }
        let finalized = u64::from(finalized);
        assert_eq!(readers[0].fifo.finalized(), finalized, "{self:?}");
        assert_eq!(refused == 0, self.on_full == OnFull::Overwrite, "{self:?}");
        let overwritten = readers[0].fifo.overwritten();
        assert_eq!(overwritten.is_some(), self.trailer, "{self:?}");
        if readers.len() == 2 && self.reading == Reading::Shared {
            self.judge_consumers(&readers, finalized);
        } else {
            self.judge_readers(&readers, finalized);
        }
    }

    /// Each item to one of them.
    fn judge_consumers(self, readers: &[Tally], finalized: u64) {
        let mut all: Vec<_> = readers.iter().flat_map(|reader| &reader.got).collect();
        all.sort_unstable();
        let once = all.is_sorted_by(|one, next| one < next);
        assert!(once, "{self:?}: taken twice");
        let got = all.len() as u64;
        assert!(got > self.slots, "{self:?}");
        let skipped: u64 = readers.iter().map(|reader| reader.skipped).sum();
        let overwritten = readers[0].fifo.overwritten().expect("there is a trailer");
        assert_eq!(got + overwritten + skipped, finalized, "{self:?}");
        assert_eq!(
            overwritten > 0,
            self.on_full == OnFull::Overwrite,
            "{self:?}"
        );
    }

    /// Every item to each of them, but for what it knows to have missed.
    fn judge_readers(self, readers: &[Tally], finalized: u64) {
        for reader in readers {
            let all = reader.got.len() as u64 + reader.overrun + reader.skipped;
            assert_eq!(all, finalized, "{self:?}");
            let overwrites = self.on_full == OnFull::Overwrite;
            assert_eq!(reader.overrun > 0, overwrites, "{self:?}");
            if finalized > self.slots {
                assert_eq!(reader.skipped > 0, self.latest, "{self:?}");
            }
        }
        // Nobody whom writers wait for takes anything.
        let stuck = self.reading == Reading::Broadcast && self.on_full != OnFull::Overwrite;
        assert_eq!(finalized == self.slots, stuck, "{self:?}");
    }
}

/// The table of [`SlotFifo`], in one thread: what is exact, for every way to
/// read and every way to be full.
#[test]
fn what_is_exact_for_whom() {
    let mut random = Random(5);
    let mut combinations = 0;
    for (trailer, slots) in [(false, 2), (false, 5), (true, 2), (true, 3), (true, 16)] {
        for on_full in [OnFull::Overwrite, OnFull::Refuse, OnFull::Block] {
            for reading in [Reading::Broadcast, Reading::Registered, Reading::Shared] {
                for latest in [false, true] {
                    if reading == Reading::Registered && !trailer {
                        continue;
                    }
                    let combination = Combination {
                        trailer,
                        slots,
                        on_full,
                        reading,
                        latest,
                    };
                    combination.run(&mut random);
                    combinations += 1;
                }
            }
        }
    }
    assert_eq!(combinations, 78);
}

#[test]
fn the_latest_is_read_and_the_rest_passed_over() {
    for options in [plain(), native()] {
        for reading in [Reading::Broadcast, Reading::Shared] {
            let heap = Heap::new(N, 4, options);
            let mut writer = heap.fifo(options);
            let mut reader = heap.fifo(options.reading(reading));
            assert!(reader.try_read_latest().is_none());
            assert_error!(reader.read_latest(MOMENT), ReadError::Timeout { .. });
            for number in 0..3 {
                push(&mut writer, number).unwrap();
            }
            assert_eq!(reader.unread(), 3);
            let item = reader.read_latest(NOW).unwrap();
            assert_eq!((item.index(), item.skipped(), item.overrun()), (2, 2, 0));
            assert_eq!(reader.unread(), 0);
            assert!(reader.try_read_latest().is_none(), "it was read");
            // One lap and more is lost before what is passed over.
            for number in 3..9 {
                push(&mut writer, number).unwrap();
            }
            assert_eq!(reader.unread(), 4);
            let mut item = reader.empty();
            reader.read_latest_into(&mut item, NOW).unwrap();
            assert_eq!((item.index(), item.skipped(), item.overrun()), (8, 3, 2));
            push(&mut writer, 9).unwrap();
            let item = reader.try_read_latest().unwrap();
            assert_eq!((item.index(), item.skipped(), item.overrun()), (9, 0, 0));
            push(&mut writer, 10).unwrap();
            let mut item = reader.empty();
            reader.read_into(&mut item, NOW).unwrap();
            assert_eq!((item.index(), item.skipped(), item.overrun()), (10, 0, 0));
            let taken = if reading == Reading::Shared {
                11
            } else {
                heap.meta().1
            };
            assert_eq!(heap.meta(), (11, taken, 11 - taken));
        }
    }
}

/// What was lost behind the last item that came is told as well.
#[test]
fn what_is_lost_is_counted_without_an_item_after_it() {
    for options in [plain(), native()] {
        let heap = Heap::new(N, 2, options);
        let (mut writer, mut reader) = (heap.fifo(options), heap.fifo(options));
        for number in 0..5 {
            push(&mut writer, number).unwrap();
        }
        assert_eq!(reader.lost(), 0, "it has not looked");
        // Both that are there are being overwritten.
        for slot in 0..2 {
            heap.poke(heap.layout.slot_offset(slot), 99);
        }
        assert!(reader.try_read().is_none());
        let lost = reader.lost();
        assert!((3..5).contains(&lost), "{lost}");
    }
}

#[test]
fn a_late_reader_begins_at_the_oldest_item() {
    let heap = Heap::new(N, 4, native());
    let mut writer = heap.fifo(native());
    for number in 0..6 {
        push(&mut writer, number).unwrap();
    }
    let mut first = heap.fifo(native().reading(Reading::Shared));
    assert_eq!(first.try_read().unwrap().index(), 2);
    for (reading, expected) in [
        (Reading::Broadcast, vec![2, 3, 4, 5]),
        (Reading::Registered, vec![2, 3, 4, 5]),
        // What was taken is gone.
        (Reading::Shared, vec![3, 4, 5]),
    ] {
        let mut late = heap.fifo(native().reading(reading));
        assert_eq!(late.unread(), expected.len() as u64, "{reading:?}");
        let clone = late.try_clone().unwrap();
        assert_eq!(clone.unread(), expected.len() as u64);
        assert_eq!(take_all(&mut late), (expected, 0, 0), "{reading:?}");
        assert_eq!(late.unread(), 0);
        let again = late.try_clone().unwrap();
        assert_eq!(
            again.unread(),
            if reading == Reading::Shared { 0 } else { 4 }
        );
    }
    // The oldest when it was opened, not when it reads.
    let mut early = heap.fifo(native());
    for number in 6..8 {
        push(&mut writer, number).unwrap();
    }
    assert_eq!(take_all(&mut early), (vec![4, 5, 6, 7], 2, 0));
    assert_eq!(writer.finalized(), 8);
    // The writer reads too, in its own place, from when it was opened.
    assert_eq!(take_all(&mut writer), (vec![4, 5, 6, 7], 4, 0));
}

#[test]
fn writers_wait_for_registered_readers() {
    let options = native().reading(Reading::Registered);
    let heap = Heap::new(N, 3, options);
    let mut refusing = heap.fifo(native().on_full(OnFull::Refuse));
    let (mut fast, mut slow) = (heap.fifo(options), heap.fifo(options));
    for number in 0..3 {
        push(&mut refusing, number).unwrap();
    }
    assert_eq!(take_all(&mut fast), (vec![0, 1, 2], 0, 0));
    assert_error!(push(&mut refusing, 3), WriteError::Full { .. });
    assert_eq!(slow.try_read().unwrap().index(), 0);
    assert_eq!(push(&mut refusing, 3).unwrap(), 3);
    assert_error!(push(&mut refusing, 4), WriteError::Full { .. });
    // A Python reader does not count beside them, unless it is to.
    let mut polite = heap.fifo(native().on_full(OnFull::Refuse).foreign_consumer(true));
    assert_eq!(slow.try_read().unwrap().index(), 1);
    assert_error!(push(&mut polite, 4), WriteError::Full { .. });
    heap.poke(offset::READ_IDX, 2);
    assert_eq!(push(&mut polite, 4).unwrap(), 4);
    assert_error!(push(&mut refusing, 5), WriteError::Full { .. });
    // Who overwrites waits for nobody, and they know.
    let mut rude = heap.fifo(native());
    push(&mut rude, 5).unwrap();
    push(&mut rude, 6).unwrap();
    assert_eq!(take_all(&mut slow), (vec![4, 5, 6], 2, 0));
    assert_eq!(take_all(&mut fast), (vec![4, 5, 6], 1, 0));
    // Also those that share a read index are waited for.
    let mut consumer = heap.fifo(native().reading(Reading::Shared));
    assert_error!(push(&mut refusing, 7), WriteError::Full { .. });
    assert_eq!(take_all(&mut consumer), (vec![4, 5, 6], 0, 0));
    push(&mut refusing, 7).unwrap();
    // One that leaves holds nobody back, nor does one that died.
    for number in 8..10 {
        push(&mut refusing, number).unwrap();
    }
    take_all(&mut fast);
    take_all(&mut consumer);
    assert_error!(push(&mut refusing, 10), WriteError::Full { .. });
    drop(slow);
    push(&mut refusing, 10).unwrap();
    let places = heap.native.as_ref().unwrap();
    let lines = (0..3)
        .map(|line| heap.word(places.cursor(line) + 8))
        .collect::<Vec<_>>();
    assert_eq!(
        lines.iter().filter(|line| **line >> 32 == 0).count(),
        1,
        "{lines:?}"
    );
    for number in 11..13 {
        push(&mut refusing, number).unwrap();
    }
    take_all(&mut consumer);
    assert_error!(push(&mut refusing, 13), WriteError::Full { .. });
    for (line, found) in lines.iter().enumerate() {
        if *found >> 32 == 1 {
            let (mark, _) = dead_process();
            heap.poke(places.cursor(line) + 8, 1 << 32 | u64::from(mark));
        }
    }
    let mut blocking = heap.fifo(native().on_full(OnFull::Block));
    assert_eq!(push(&mut blocking, 13).unwrap(), 13);
    // The dead one's line was freed, and is left alone by who had it.
    drop(fast);
    assert_eq!(push(&mut blocking, 14).unwrap(), 14);
}

/// A handle that reads too does not wait for itself.
#[test]
fn a_writer_does_not_wait_for_its_own_reading() {
    for on_full in [OnFull::Refuse, OnFull::Block] {
        let options = native().reading(Reading::Registered).on_full(on_full);
        let heap = Heap::new(N, 2, options);
        let mut alone = heap.fifo(options.full_timeout(Some(NOW)));
        for number in 0..5 {
            push(&mut alone, number).unwrap();
        }
        assert_eq!(take_all(&mut alone), (vec![3, 4], 3, 0));
        // Another one is waited for.
        let mut other = heap.fifo(options);
        assert!(push(&mut alone, 5).unwrap_err().is_full());
        assert_eq!(take_all(&mut other), (vec![3, 4], 0, 0));
        push(&mut alone, 5).unwrap();
    }
}

#[test]
fn a_blocking_writer_waits_for_room() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
    ] {
        for (options, reading) in [
            (plain(), Reading::Shared),
            (native(), Reading::Shared),
            (native(), Reading::Registered),
        ] {
            let options = options.wait_strategy(strategy).full_timeout(Some(WHILE));
            let heap = Heap::new(N, 2, options);
            let mut reader = heap.fifo(options.reading(reading));
            let mut writer = heap.fifo(options.on_full(OnFull::Block));
            push(&mut writer, 0).unwrap();
            push(&mut writer, 1).unwrap();
            let start = Instant::now();
            let error = push(&mut writer, 2).unwrap_err();
            assert!(error.is_full() && start.elapsed() >= WHILE);
            drop(writer);
            // Without a limit it waits as long as it takes.
            let mut writer = heap.fifo(options.on_full(OnFull::Block).full_timeout(None));
            scope(|scope| {
                let writing = scope.spawn(|| {
                    let pushed: Vec<_> = (2..40)
                        .map(|number| push(&mut writer, number).unwrap())
                        .collect();
                    assert_eq!(pushed, (2..40).collect::<Vec<_>>());
                });
                sleep(WHILE);
                assert!(!writing.is_finished(), "there is no room");
                for number in 0..40 {
                    let item = reader.read(PATIENCE).unwrap();
                    assert_eq!((item.index(), item.overrun()), (number, 0));
                    assert_eq!(
                        u64::try_from(item.get("n").unwrap().as_i32().unwrap()),
                        Ok(number)
                    );
                }
                writing.join().unwrap();
            });
        }
    }
}

#[test]
fn draining_waits_for_those_that_are_waited_for() {
    for (options, reading) in [
        (plain(), Reading::Shared),
        (native(), Reading::Shared),
        (native(), Reading::Registered),
    ] {
        let heap = Heap::new(N, 3, options);
        let mut writer = heap.fifo(options);
        assert!(writer.drain(NOW).unwrap(), "there is nothing");
        let mut reader = heap.fifo(options.reading(reading));
        push(&mut writer, 0).unwrap();
        push(&mut writer, 1).unwrap();
        let start = Instant::now();
        assert!(!writer.drain(WHILE).unwrap());
        assert!(start.elapsed() >= WHILE);
        reader.try_read().unwrap();
        assert!(!writer.drain(NOW).unwrap());
        scope(|scope| {
            let draining = scope.spawn(|| writer.drain(PATIENCE).unwrap());
            sleep(WHILE);
            assert!(!draining.is_finished());
            reader.try_read().unwrap();
            assert!(draining.join().unwrap());
        });
    }
}

/// A Python reader stores the write index back as it was when it began
/// (section 7 D2).
#[test]
fn what_a_python_reader_hides_is_published_again() {
    for options in [plain(), native()] {
        let heap = Heap::new(N, 4, options);
        let mut writer = heap.fifo(options.on_full(OnFull::Refuse));
        let mut reader = heap.fifo(options);
        for number in 0..3 {
            push(&mut writer, number).unwrap();
        }
        let python_took_one = |write: u64| {
            heap.poke(offset::WRITE_IDX, write);
            heap.poke(offset::READ_IDX, 1);
            heap.poke(offset::COUNT, 0);
        };
        python_took_one(1);
        // With the trailer our readers know better.
        assert_eq!(
            reader.finalized(),
            if heap.native.is_some() { 3 } else { 1 }
        );
        writer.republish().unwrap();
        assert_eq!(heap.meta(), (3, 1, 2));
        writer.republish().unwrap();
        assert_eq!(heap.meta(), (3, 1, 2));
        // Writing does the same, also when there is no room.
        python_took_one(2);
        assert_eq!(push(&mut writer, 3).unwrap(), 3);
        assert_eq!(heap.meta(), (4, 1, 3));
        push(&mut writer, 4).unwrap();
        python_took_one(2);
        assert_error!(push(&mut writer, 5), WriteError::Full { .. });
        assert_eq!(heap.meta(), (5, 1, 4));
        python_took_one(3);
        assert!(!writer.drain(MOMENT).unwrap());
        assert_eq!(heap.meta(), (5, 1, 4));
        // The broadcast reader saw none of this.
        assert_eq!(take_all(&mut reader), (vec![1, 2, 3, 4], 1, 0));
    }
}

/// Items of a Python writer, with and without the trailer that it does not know.
#[test]
fn a_python_writers_items_are_counted_too() {
    for options in [plain(), native()] {
        let heap = Heap::new(N, 4, options);
        let (mut one, mut other) = (heap.fifo(options), heap.fifo(options));
        let mut shared = heap.fifo(options.reading(Reading::Shared));
        for number in 0..3_i32 {
            heap.python_finalizes("n", &number.to_le_bytes());
        }
        assert_eq!((one.finalized(), one.unread(), shared.unread()), (3, 3, 3));
        assert_eq!(take_all(&mut one), (vec![0, 1, 2], 0, 0));
        assert_eq!(shared.try_read().unwrap().index(), 0);
        assert_eq!(heap.meta(), (3, 1, 2));
        for number in 3..8_i32 {
            heap.python_finalizes("n", &number.to_le_bytes());
        }
        assert_eq!(heap.meta(), (8, 4, 4));
        assert_eq!(take_all(&mut one), (vec![4, 5, 6, 7], 1, 0));
        assert_eq!(take_all(&mut other), (vec![4, 5, 6, 7], 4, 0));
        assert_eq!(take_all(&mut shared), (vec![4, 5, 6, 7], 3, 0));
        // One of ours goes on behind it.
        let mut writer = heap.fifo(options);
        assert_eq!(push(&mut writer, 8).unwrap(), 8);
        heap.python_finalizes("n", &9_i32.to_le_bytes());
        assert_eq!(push(&mut writer, 10).unwrap(), 10);
        for reader in [&mut one, &mut other, &mut shared] {
            assert_eq!(take_all(reader), (vec![8, 9, 10], 0, 0));
        }
    }
}

/// A record that is there by the index and not by its slot (section 7 D4).
#[test]
fn an_item_that_is_not_whole_is_waited_for_until_the_timeout() {
    for options in [plain(), native()] {
        for reading in [Reading::Broadcast, Reading::Shared] {
            let heap = Heap::new(N, 3, options);
            let mut writer = heap.fifo(options);
            let mut reader = heap.fifo(options.reading(reading));
            push(&mut writer, 0).unwrap();
            push(&mut writer, 1).unwrap();
            reader.try_read().unwrap();
            heap.poke(heap.layout.slot_offset(1), 7);
            assert!(reader.try_read().is_none() && reader.try_read_latest().is_none());
            let start = Instant::now();
            let error = reader.read(WHILE).unwrap_err();
            assert!(error.is_timeout() && matches!(error, ReadError::Busy { .. }));
            assert!(start.elapsed() >= WHILE);
            heap.poke(heap.layout.slot_offset(1), 1);
            assert_eq!(reader.read(NOW).unwrap().index(), 1);
        }
    }
}

/// A writer that died in a slot has taken that slot's item, and published
/// nothing.
#[test]
fn a_slot_that_a_writer_died_in_is_mended_by_the_next() {
    let (mark, _) = dead_process();
    for options in [plain(), native()] {
        let heap = Heap::new(N, 2, options);
        let (mut writer, mut reader) = (heap.fifo(options), heap.fifo(options));
        for number in 0..2 {
            writer.push(values([("n", number), ("x", number)])).unwrap();
        }
        // In item 2, having touched `n`.
        heap.is_being_written(0, 2, 0);
        if heap.native.is_some() {
            heap.is_locked_by(mark);
        }
        heap.segment
            .poke(heap.layout.slot_offset(0) + offset::STATUS, &[6]);
        assert_eq!(take_all(&mut reader), (vec![1], 1, 0));
        assert_error!(reader.read(MOMENT), ReadError::Timeout { .. });
        assert_eq!(writer.push(values([("x", 5)])).unwrap(), 2);
        let item = reader.try_read().unwrap();
        assert_eq!((item.index(), item.overrun()), (2, 0));
        assert!(item.get("n").unwrap().is_unwritten(), "it may be anything");
        assert_eq!(item.get("x").unwrap().as_f64(), Some(5.0));
    }
}

#[test]
fn registered_readers_are_limited() {
    let options = native().reading(Reading::Registered);
    let heap = Heap::new(N, 2, native());
    let mut readers: Vec<_> = (0..31).map(|_| heap.fifo(options)).collect();
    readers.push(heap.fifo(native().reading(Reading::Shared)));
    for options in [options, native().reading(Reading::Shared)] {
        let opened = heap
            .segment
            .fifo_dynamic(Some(heap.layout.schema()), Some(2), options);
        assert_error!(opened, OpenError::TooManyReaders { limit: 32, .. });
    }
    assert_error!(readers[0].try_clone(), OpenError::TooManyReaders { .. });
    // Broadcast readers are not.
    heap.fifo(native()).try_clone().unwrap();
    readers.pop();
    let back = readers[0].try_clone().unwrap();
    assert_error!(back.try_clone(), OpenError::TooManyReaders { .. });
    // Those that died make room.
    let line = heap.native.as_ref().unwrap().cursor(3) + 8;
    heap.poke(line, 1 << 32 | u64::from(dead_process().0));
    back.try_clone().unwrap();

    let heap = Heap::new(N, 2, plain());
    let opened = heap
        .segment
        .fifo_dynamic(Some(heap.layout.schema()), Some(2), options);
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::NeedsTrailer { .. }));
    let shown = error.to_string();
    assert!(shown.contains("which a registered reader needs"), "{shown}");
    // Without a trailer nobody counts those that share the index.
    let many: Vec<_> = (0..40)
        .map(|_| heap.fifo(plain().reading(Reading::Shared)))
        .collect();
    assert_eq!(many.len(), 40);
}

// Creating and opening.

/// Every row of section 3.1: what an annotation means, or why it means nothing.
#[test]
fn annotations() {
    for (annotation, meaning) in [
        ("float", "float"),
        ("int", "int"),
        ("bool", "bool"),
        ("str[007]", "str[7]"),
        ("float32[03]", "float32[3]"),
        ("str[3]junk", "str[3]"),
        ("float32[2,3]x", "float32[2,3]"),
        ("float16[4]", "float64[4]"),
        ("float128[2]", "float64[2]"),
        ("int128[2]", "float64[2]"),
        ("uint1[2]", "float64[2]"),
        ("bool[2,2]", "bool[2,2]"),
        ("float32[0]", "float32[0]"),
        ("float32[2,0,3]", "float32[2,0,3]"),
        ("int8[1,1,1,1,1,1,1,2]", "int8[1,1,1,1,1,1,1,2]"),
        // What `from __future__ import annotations` makes of them, and blanks.
        ("'str[4]'", "str[4]"),
        ("\"'str[4]'\"", "str[4]"),
        ("float32[2, 3]", "float32[2,3]"),
        (" str[ 3 ] ", "str[3]"),
    ] {
        let ty = FieldType::parse(annotation).unwrap();
        assert_eq!(ty.to_string(), meaning, "{annotation}");
        let pairs = Schema::from_pairs([("f", annotation)]).unwrap();
        let text = schema(&format!("f: {meaning}"));
        assert_eq!(pairs, text);
        assert_eq!(schema(&pairs.to_string()), pairs);
        let mut store = Heap::new(&pairs.to_string(), 1, native()).store(native());
        store.write(Values::new()).unwrap();
        assert_eq!(store.read(NOW).unwrap().get("f").unwrap().field_type(), &ty);
    }
    for (annotation, why) in [
        ("str[0]", "has no room for a character"),
        ("str[-1]", "-1"),
        ("STR[3]", "STR[3]"),
        ("str[1_0]", "1_0"),
        ("str", "is unknown"),
        ("bytes", "is unknown"),
        ("float[3]", "is unknown"),
        ("int[3]", "is unknown"),
        ("float32[]", "float32[]"),
        ("np.float32[3]", "is unknown"),
        ("complex64[3]", "is unknown"),
        ("float32[3,]", "float32[3,]"),
        ("float32[,3]", "float32[,3]"),
        ("float32[3,,4]", "float32[3,,4]"),
        ("uint8[4294967296,4294967296]", "takes more than"),
        ("Optional[float]", "is unknown"),
        ("Any", "is unknown"),
        ("np.float64", "is unknown"),
        ("np.ndarray", "is unknown"),
        ("list[int]", "is unknown"),
        ("str[3", "lacks its closing bracket"),
    ] {
        let error: AnnotationError = FieldType::parse(annotation).unwrap_err();
        let mut shown = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            shown = format!("{shown}: {cause}");
            source = cause.source();
        }
        assert!(shown.contains(annotation) && shown.contains(why), "{shown}");
        let error = Schema::from_pairs([("some_field", annotation)]).unwrap_err();
        assert!(error.to_string().contains("some_field"), "{error}");
    }
    for (text, wanted) in [
        ("a: float, a: int", "two fields named \"a\""),
        ("a float", "\"a float\" is no field"),
        ("1a: int", "1a"),
        (": int", "name"),
    ] {
        let error: SchemaError = text.parse::<Schema>().unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    assert!(schema("").is_empty());
}

#[test]
fn a_fifo_has_two_slots_at_least() {
    let name = Name::new("few");
    for slots in [0, 1] {
        assert_error!(
            SlotFifo::create_dynamic(&name, &schema(N), slots, native()),
            OpenError::TooFewSlots { slots: found, .. } if found == slots
        );
        let error = SlotFifo::open_dynamic(&name, &schema(N), slots, native()).unwrap_err();
        let shown = error.to_string();
        assert!(
            shown.contains(&format!("cannot have {slots} slots: choose at least 2")),
            "{shown}"
        );
    }
    name.assert_nothing_left();
    // One slot is a store's segment.
    let store = SlotStore::create_dynamic(&name, &schema(N), native()).unwrap();
    assert_error!(
        SlotFifo::<Dynamic>::discover(&name, native()),
        OpenError::TooFewSlots { slots: 1, .. }
    );
    store.unlink().unwrap();
    // And at most so many as fit.
    assert_error!(
        SlotFifo::create_dynamic(&name, &schema(N), u64::MAX, native()),
        OpenError::Layout {
            source: LayoutError::TooLarge { .. },
            ..
        }
    );
    name.assert_nothing_left();
}

#[test]
fn a_segment_is_created_once() {
    for options in [plain(), native()] {
        let name = Name::new("exists");
        assert_error!(
            SlotStore::open_dynamic(&name, &schema(ABC), options),
            OpenError::NotFound { .. }
        );
        let store = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap();
        assert_eq!(store.name(), &*name);
        let error = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap_err();
        assert!(matches!(error, OpenError::AlreadyExists { .. }) && !error.is_transient());
        assert!(error.to_string().contains(&*name));
        assert_error!(
            SlotFifo::create_dynamic(&name, &schema(ABC), 2, options),
            OpenError::AlreadyExists { .. }
        );
        // A leading slash is Python's.
        assert_error!(
            SlotStore::create_dynamic(&format!("/{}", &*name), &schema(ABC), options),
            OpenError::AlreadyExists { .. }
        );
        assert!(store.unlink().unwrap());
        assert!(!store.unlink().unwrap(), "it is gone");
        name.assert_nothing_left();
        // Who has it open keeps it; the name is free.
        let again = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap();
        again.unlink().unwrap();
    }
}

#[test]
fn names_that_are_none() {
    for name in ["", "/", "a/b", "nul\0", &"x".repeat(256)] {
        let created = SlotStore::create_dynamic(name, &schema(ABC), native());
        let error = created.unwrap_err();
        assert!(
            matches!(error, OpenError::System { .. }),
            "{name:?}: {error:?}"
        );
        assert!(error.source().is_some());
        let opened = SlotStore::open_dynamic(name, &schema(ABC), native());
        let error = opened.unwrap_err();
        assert!(
            matches!(error, OpenError::System { .. } | OpenError::NotFound { .. }),
            "{name:?}: {error:?}"
        );
    }
    // So long that no second name is possible.
    let name = Name::new(&"long".repeat(58));
    let mut store = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    assert_eq!(store.write(values([("b", 1)])).unwrap(), 1);
    fs::remove_file(path(&name)).unwrap();
    assert_eq!(store.check_name().unwrap(), NameState::Unlinked);
}

#[test]
fn rights_and_lengths_are_as_asked() {
    let layout = Layout::new(&schema(N), 3).unwrap();
    for (options, mode) in [(plain(), 0o600), (native().mode(Mode::new(0o640)), 0o640)] {
        let name = Name::new("mode");
        let fifo = SlotFifo::create_dynamic(&name, &schema(N), 3, options).unwrap();
        let data = fs::metadata(path(&name)).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, mode);
        if fifo.has_trailer() {
            assert!(data.len() > layout.segment_size() && data.len().is_multiple_of(4096));
        } else {
            assert_eq!(data.len(), layout.segment_size());
        }
        fifo.unlink().unwrap();
    }
    // Buffers take room, and only in a store.
    let layout = Layout::new(&schema(LARGE), 1).unwrap();
    let len = |options| {
        let name = Name::new("buffers");
        let store = SlotStore::create_dynamic(&name, &schema(LARGE), options).unwrap();
        let len = fs::metadata(path(&name)).unwrap().len();
        store.unlink().unwrap();
        len
    };
    let size = layout.segment_size();
    assert!(len(native()) > 3 * size && len(native().buffered(false)) < 3 * size);
}

/// Without a trailer the length is all that tells.
#[test]
fn a_plain_segment_of_another_length_is_refused() {
    let name = Name::new("length");
    let store = SlotStore::create_dynamic(&name, &schema(ABC), plain()).unwrap();
    let size = Layout::new(&schema(ABC), 1).unwrap().segment_size();
    let longer = schema(&format!("{ABC}, more: float64[8]"));
    assert_error!(
        SlotStore::open_dynamic(&name, &longer, plain()),
        OpenError::Mismatch { source: ImageError::TooShort { len, need }, .. }
            if len == size && need == size + 64
    );
    let shorter = schema("a: float");
    assert_error!(
        SlotStore::open_dynamic(&name, &shorter, plain()),
        OpenError::Length { len, expected: 32, .. } if len == size
    );
    // As the original, which never looks.
    let mut odd = SlotStore::open_dynamic(&name, &shorter, plain().any_length(true)).unwrap();
    assert!(odd.read(NOW).is_ok());
    assert_error!(
        SlotStore::<Dynamic>::discover(&name, plain()),
        OpenError::NoSchema { .. }
    );
    assert_error!(
        SlotFifo::<Dynamic>::discover(&name, plain()),
        OpenError::NoSchema { .. }
    );
    // Other fields of the same size are not told apart.
    let alike = schema("x: float, y: int, z: bool, t: str[4]");
    SlotStore::open_dynamic(&name, &alike, plain()).unwrap();
    // Rounded up to pages, as macOS does.
    let file = File::options().write(true).open(path(&name)).unwrap();
    file.set_len(4096).unwrap();
    SlotStore::open_dynamic(&name, &schema(ABC), plain()).unwrap();
    file.set_len(4097).unwrap();
    assert_error!(
        SlotStore::open_dynamic(&name, &schema(ABC), plain()),
        OpenError::Length { len: 4097, .. }
    );
    store.unlink().unwrap();
}

#[test]
fn the_trailer_tells_schema_and_slots() {
    let name = Name::new("schema");
    let mut fifo = SlotFifo::create_dynamic(&name, &schema(N), 5, native()).unwrap();
    let mut found = SlotFifo::<Dynamic>::discover(&name, native()).unwrap();
    assert_eq!((found.schema(), found.capacity()), (&schema(N), 5));
    push(&mut fifo, 7).unwrap();
    assert_eq!(take_all(&mut found), (vec![7], 0, 0));
    let other = schema("n: int, x: float, note: str[4]");
    assert_error!(
        SlotFifo::open_dynamic(&name, &other, 5, native()),
        OpenError::Mismatch { source: ImageError::SchemaMismatch { wanted, found }, .. }
            if wanted == other.to_string() && found == N
    );
    for slots in [2, 4, 6] {
        assert_error!(
            SlotFifo::open_dynamic(&name, &schema(N), slots, native()),
            OpenError::Mismatch { source: ImageError::SlotsMismatch { wanted, found: 5 }, .. }
                if wanted == slots
        );
    }
    assert_error!(
        SlotStore::open_dynamic(&name, &schema(N), native()),
        OpenError::Mismatch {
            source: ImageError::SlotsMismatch {
                wanted: 1,
                found: 5
            },
            ..
        }
    );
    // Nothing of it is for the opener to choose.
    let opened = SlotFifo::open_dynamic(&name, &schema(N), 5, plain().any_length(true)).unwrap();
    assert!(opened.has_trailer());
    fifo.unlink().unwrap();

    let store = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    let found = SlotStore::<Dynamic>::discover(&name, native()).unwrap();
    assert_eq!(found.schema(), &schema(ABC));
    store.unlink().unwrap();
}

#[test]
fn opening_waits_as_long_as_it_is_told() {
    let name = Name::new("later");
    let start = Instant::now();
    let opened = SlotStore::open_dynamic(&name, &schema(ABC), native().open_timeout(WHILE));
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenError::NotFound { .. }) && error.is_transient());
    assert!(start.elapsed() >= WHILE);
    scope(|scope| {
        let opening = scope.spawn(|| {
            let options = native().open_timeout(PATIENCE);
            SlotStore::open_dynamic(&name, &schema(ABC), options)
                .unwrap()
                .has_trailer()
        });
        sleep(WHILE);
        let created = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
        assert!(opening.join().unwrap());
        created.unlink().unwrap();
    });
    // What another implementation is creating, or died at.
    let layout = Layout::new(&schema(ABC), 1).unwrap();
    fs::write(path(&name), []).unwrap();
    assert_error!(
        SlotStore::open_dynamic(&name, &schema(ABC), plain()),
        OpenError::NotReady { .. }
    );
    fs::write(path(&name), vec![0; layout.segment_size() as usize]).unwrap();
    let error = SlotStore::open_dynamic(&name, &schema(ABC), plain()).unwrap_err();
    assert!(matches!(error, OpenError::NotReady { .. }) && error.is_transient());
    scope(|scope| {
        let opening = scope.spawn(|| {
            let options = plain().open_timeout(PATIENCE);
            let mut store = SlotStore::open_dynamic(&name, &schema(ABC), options).unwrap();
            statuses(&store.read(NOW).unwrap())
        });
        sleep(WHILE);
        fs::write(path(&name), layout.blank_slot()).unwrap();
        assert_eq!(opening.join().unwrap(), [2; 4]);
    });
}

#[test]
fn a_segment_is_replaced_when_it_is_to_be() {
    let name = Name::new("replace");
    let create = |options: Options| SlotStore::create_dynamic(&name, &schema(ABC), options);
    // Our own process lives.
    let mut first = create(native()).unwrap();
    let own = std::process::id();
    let error = create(native().replace(Replace::Abandoned)).unwrap_err();
    assert!(
        matches!(error, OpenError::OwnerAlive { pid, .. } if pid == own),
        "{error:?}"
    );
    assert!(error.to_string().contains(&format!("process {own}")));
    assert_eq!(first.check_name().unwrap(), NameState::Linked);
    let second = create(native().replace(Replace::Always)).unwrap();
    assert_eq!(first.check_name().unwrap(), NameState::Replaced);
    assert_eq!(
        first.write(values([("b", 1)])).unwrap(),
        1,
        "who has it open keeps it"
    );
    drop(first);
    assert_eq!(second.check_name().unwrap(), NameState::Linked);
    assert!(
        kept(&name).exists(),
        "the second's, which the first leaves alone"
    );
    second.unlink().unwrap();
    assert!(!kept(&name).exists());

    // What has no trailer tells of no owner.
    let plain_one = create(plain()).unwrap();
    assert_error!(
        create(native().replace(Replace::Abandoned)),
        OpenError::AlreadyExists { .. }
    );
    let third = create(plain().replace(Replace::Always)).unwrap();
    assert_eq!(plain_one.check_name().unwrap(), NameState::Replaced);
    third.unlink().unwrap();

    // A dead owner's.
    for options in [
        native().replace(Replace::Abandoned),
        native().replace(Replace::Always),
    ] {
        let child = child("child_process", &format!("create {}", &*name));
        assert!(!Outcome::of(child).killed());
        assert!(path(&name).exists(), "dropping leaves it");
        assert_error!(create(native()), OpenError::AlreadyExists { .. });
        let mut store = create(options).unwrap();
        assert_eq!(store.read(NOW).unwrap().number(), 0, "a new one");
        store.unlink().unwrap();
    }
    // One that nobody has is created as ever.
    create(native().replace(Replace::Abandoned))
        .unwrap()
        .unlink()
        .unwrap();
    create(native().replace(Replace::Always))
        .unwrap()
        .unlink()
        .unwrap();
}

/// Runs in the child processes only.
#[test]
fn child_process() {
    let Some(role) = role() else { return };
    let (what, name) = role.split_once(' ').unwrap();
    match what {
        "create" => {
            let mut store = SlotStore::create_dynamic(name, &schema(ABC), native()).unwrap();
            store.write(values([("b", 1)])).unwrap();
        }
        // As Python's resource tracker does at the end of a process that only
        // attached.
        "track" => {
            let has_trailer = match SlotStore::<Dynamic>::discover(name, native()) {
                Ok(store) => store.has_trailer(),
                Err(_) => SlotFifo::<Dynamic>::discover(name, native())
                    .unwrap()
                    .has_trailer(),
            };
            tell(&has_trailer.to_string());
            fs::remove_file(path(name)).unwrap();
        }
        other => panic!("no role {other}"),
    }
}

// Names that are removed.

#[test]
fn a_creator_restores_the_name() {
    for slots in [1, 2] {
        let name = Name::new("restore");
        let mut fifo = None;
        let mut store = None;
        if slots == 1 {
            store = Some(SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap());
        } else {
            fifo = Some(SlotFifo::create_dynamic(&name, &schema(ABC), 2, native()).unwrap());
        }
        let check = || match (&store, &fifo) {
            (Some(store), _) => store.check_name().unwrap(),
            (_, Some(fifo)) => fifo.check_name().unwrap(),
            _ => unreachable!("there is one"),
        };
        assert!(kept(&name).exists());
        assert_eq!(check(), NameState::Linked);
        let outcome = Outcome::of(child("child_process", &format!("track {}", &*name)));
        assert!(outcome.said("true"));
        assert!(!path(&name).exists());
        assert_eq!(check(), NameState::Restored);
        assert_eq!(check(), NameState::Linked);
        assert!(path(&name).exists());
        // Writing does it as well, within a moment.
        fs::remove_file(path(&name)).unwrap();
        until(|| {
            match (&mut store, &mut fifo) {
                (Some(store), _) => drop(store.write(values([("b", 1)])).unwrap()),
                (_, Some(fifo)) => drop(fifo.push(values([("b", 1)])).unwrap()),
                _ => unreachable!("there is one"),
            }
            path(&name).exists()
        });
        if slots == 1 {
            let mut other = SlotStore::open_dynamic(&name, &schema(ABC), native()).unwrap();
            assert!(
                other.read(NOW).unwrap().number() > 0,
                "it is the same segment"
            );
        }
        drop((store, fifo));
        assert!(!kept(&name).exists(), "closing removes the second name");
        assert!(path(&name).exists(), "and no other");
        fs::remove_file(path(&name)).unwrap();
    }
}

#[test]
fn a_removed_name_is_reported_where_it_is_not_restored() {
    // A creator that is to report, one that has no second name to restore from,
    // and one that only opened it.
    for restores_elsewhere in [false, true] {
        let name = Name::new("report");
        let options = native().on_unlink(OnUnlink::Report);
        let mut store = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap();
        assert!(!kept(&name).exists());
        if restores_elsewhere {
            store = SlotStore::open_dynamic(&name, &schema(ABC), native()).unwrap();
        }
        store.write(values([("b", 1)])).unwrap();
        fs::remove_file(path(&name)).unwrap();
        assert_eq!(store.check_name().unwrap(), NameState::Unlinked);
        let mut error = None;
        until(|| {
            error = store.write(values([("b", 1)])).err();
            error.is_some()
        });
        let error = error.unwrap();
        assert!(matches!(error, WriteError::Unlinked { .. }), "{error:?}");
        let shown = error.to_string();
        assert!(
            shown.contains(&*name) && shown.contains("create it anew"),
            "{shown}"
        );
        // There is a record, so it is read; nothing new is to come.
        assert!(store.read(NOW).is_ok());
        assert_error!(store.read_new(MOMENT), ReadError::Unlinked { .. });
        // Who does not wait does not ask the system either.
        assert_error!(store.read_new(NOW), ReadError::Timeout { .. });
        // Another one has the name.
        let other = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
        assert_eq!(store.check_name().unwrap(), NameState::Replaced);
        until(|| match store.write(values([("b", 1)])) {
            Ok(_) => false,
            Err(error) => {
                let shown = error.to_string();
                assert!(shown.contains("another segment has it"), "{shown}");
                true
            }
        });
        other.unlink().unwrap();

        let mut fifo = SlotFifo::create_dynamic(&name, &schema(ABC), 2, options).unwrap();
        fs::remove_file(path(&name)).unwrap();
        assert_error!(fifo.read(MOMENT), ReadError::Unlinked { .. });
        fifo.stage(values([("b", 1)])).unwrap();
        until(|| match fifo.finalize() {
            Ok(_) => {
                fifo.stage(values([("b", 1)])).unwrap();
                false
            }
            Err(error) => {
                assert!(matches!(error, WriteError::Unlinked { .. }), "{error:?}");
                true
            }
        });
    }
}

#[test]
fn a_removed_name_is_ignored_when_it_is_to_be() {
    let name = Name::new("ignore");
    let options = native().on_unlink(OnUnlink::Ignore);
    let mut store = SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap();
    assert!(!kept(&name).exists());
    fs::remove_file(path(&name)).unwrap();
    assert_eq!(store.check_name().unwrap(), NameState::Unlinked);
    let start = Instant::now();
    // Longer than it takes to look.
    while start.elapsed() < Duration::from_millis(300) {
        store.write(values([("b", 1)])).unwrap();
        sleep(MOMENT);
    }
    store.read_new(NOW).unwrap();
    assert_error!(store.read_new(MOMENT), ReadError::Timeout { .. });
    name.assert_nothing_left();
}

#[test]
fn what_the_creator_removes_itself_is_not_missed() {
    let name = Name::new("unlinked");
    let mut store = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    let mut other = SlotStore::open_dynamic(&name, &schema(ABC), native()).unwrap();
    assert!(store.unlink().unwrap());
    name.assert_nothing_left();
    assert!(!kept(&name).exists());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(300) {
        store.write(values([("b", 1)])).unwrap();
        sleep(MOMENT);
    }
    store.read_new(NOW).unwrap();
    assert_error!(store.read_new(MOMENT), ReadError::Timeout { .. });
    assert_eq!(store.check_name().unwrap(), NameState::Unlinked);
    // Others were not asked.
    other.read_new(NOW).unwrap();
    assert_error!(other.read_new(MOMENT), ReadError::Unlinked { .. });
}

#[test]
fn a_name_is_removed_with_what_would_restore_it() {
    let name = Name::new("remove");
    assert!(!polyshm_slots::remove(&name).unwrap());
    // What a creator leaves that is killed is there while it lives.
    let _first = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    assert!(path(&name).exists() && kept(&name).exists());
    assert!(polyshm_slots::remove(&name).unwrap());
    assert!(!path(&name).exists() && !kept(&name).exists());
    // The second name alone.
    let _second = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    fs::remove_file(path(&name)).unwrap();
    assert!(polyshm_slots::remove(&name).unwrap());
    assert!(!kept(&name).exists());
    assert!(!polyshm_slots::remove(&name).unwrap());
    assert!(polyshm_slots::remove("a/b").is_err());
}

// Derived records.

#[derive(Record, Clone, Debug, PartialEq)]
struct Sensor {
    temperature: f64,
    count: i32,
    valid: bool,
    #[record("str[8]")]
    status_msg: String,
    grid: [[i16; 3]; 2],
    #[record("uint8[40,50]")]
    image: Vec<u8>,
}

fn sensor(number: i32) -> Sensor {
    let small = number as i16;
    Sensor {
        temperature: f64::from(number) / 2.0,
        count: number,
        valid: number % 2 == 0,
        status_msg: format!("no. {number}"),
        grid: [[small, -small, 1], [2, 3, small]],
        image: vec![small.to_le_bytes()[0]; 2000],
    }
}

fn whole(fields: &SensorFields) -> Option<Sensor> {
    Some(Sensor {
        temperature: *fields.temperature.valid()?,
        count: *fields.count.valid()?,
        valid: *fields.valid.valid()?,
        status_msg: fields.status_msg.valid()?.clone(),
        grid: *fields.grid.valid()?,
        image: fields.image.valid()?.clone(),
    })
}

#[test]
fn typed_handles_by_name() {
    let name = Name::new("typed");
    let mut writer = SlotStore::<Sensor>::create(&name).unwrap();
    let mut reader = SlotStore::<Sensor>::open(&name).unwrap();
    let mut dynamic = SlotStore::<Dynamic>::discover(&name, native()).unwrap();
    assert_eq!(dynamic.schema(), Sensor::schema());
    writer.write(sensor(3)).unwrap();
    assert_eq!(whole(&reader.read_new(NOW).unwrap()), Some(sensor(3)));
    dynamic
        .write(Values::new().with("status_msg", "far too long"))
        .unwrap();
    let seen = reader.read_new(NOW).unwrap();
    assert!(seen.status_msg.is_truncated() && seen.status_msg.is_changed());
    assert_eq!(seen.status_msg.value(), "far too ");
    assert!(!seen.image.is_changed() && seen.image.is_valid());
    writer
        .write(Sensor::update().count(8).grid(&[[0; 3]; 2]))
        .unwrap();
    let seen = dynamic.read(NOW).unwrap();
    assert_eq!(seen.get("grid").unwrap().to_vec::<i16>(), Some(vec![0; 6]));
    assert_eq!(seen.get("count").unwrap().valid(), Some(Value::Int(8)));
    assert_error!(
        SlotStore::<Sensor>::create(&name),
        OpenError::AlreadyExists { .. }
    );
    assert_error!(
        SlotFifo::<Sensor>::open(&name, 4),
        OpenError::Mismatch { .. }
    );
    writer.unlink().unwrap();

    let mut writer = SlotFifo::<Sensor>::create(&name, 4).unwrap();
    let mut reader = SlotFifo::<Sensor>::open(&name, 4).unwrap();
    let mut dynamic = SlotFifo::<Dynamic>::discover(&name, native()).unwrap();
    writer
        .stage(Sensor::update().image(&[9; 2000]).count(1))
        .unwrap();
    writer.stage(sensor(1)).unwrap();
    writer.stage(Sensor::update().count(2)).unwrap();
    assert_eq!(writer.finalize().unwrap(), Some(0));
    assert_eq!(writer.push(sensor(5)).unwrap(), 1);
    dynamic.push(values([("count", 6)])).unwrap();
    let mut expected = sensor(1);
    expected.count = 2;
    assert_eq!(whole(&reader.read(NOW).unwrap()), Some(expected));
    assert_eq!(whole(&reader.try_read().unwrap()), Some(sensor(5)));
    let item = reader.read(NOW).unwrap();
    assert_eq!(
        (item.count.valid(), item.image.is_unwritten()),
        (Some(&6), true)
    );
    writer.unlink().unwrap();

    let mut writer = SlotFifo::<Sensor>::create_with(&name, 2, plain()).unwrap();
    let mut reader = SlotFifo::<Sensor>::open_with(&name, 2, plain()).unwrap();
    writer.push(sensor(7)).unwrap();
    assert_eq!(whole(&reader.read_latest(NOW).unwrap()), Some(sensor(7)));
    writer.unlink().unwrap();
    let mut store = SlotStore::<Sensor>::create_with(&name, plain()).unwrap();
    let last = sensor(9);
    store.write(&last).unwrap();
    assert_eq!(last, sensor(9));
    let mut reader = SlotStore::<Sensor>::open_with(&name, plain()).unwrap();
    assert_eq!(whole(&reader.read(NOW).unwrap()), Some(sensor(9)));
    store.unlink().unwrap();
}

/// A handle goes to another thread, and its clone to a third.
#[test]
fn handles_are_sent() {
    fn is_send<T: Send>(_: &T) {}
    let heap = Heap::new(N, 2, native());
    let mut fifo = heap.fifo(native());
    let mut clone = fifo.try_clone().unwrap();
    let store = Heap::new(ABC, 1, native()).store(native());
    is_send(&store);
    is_send(&store.empty());
    is_send(&fifo.empty());
    scope(|scope| {
        scope.spawn(move || push(&mut fifo, 1).unwrap());
        let item = scope
            .spawn(move || clone.read(PATIENCE).unwrap())
            .join()
            .unwrap();
        assert_eq!(item.index(), 0);
    });
    // A clone knows only the segment.
    let mut cloned = store.clone();
    let mut store = store;
    cloned.write(values([("b", 1)])).unwrap();
    assert_eq!(store.read_new(NOW).unwrap().number(), 1);
    let third = store.clone();
    drop((store, cloned));
    let mut third = third;
    assert_eq!(third.read_new(NOW).unwrap().number(), 1);
}

// Waiting.

#[test]
fn a_waiting_reader_is_woken() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
    ] {
        for options in [plain(), native()] {
            let options = options.wait_strategy(strategy);
            let heap = Heap::new(ABC, 1, options);
            let (mut writer, mut reader) = (heap.store(options), heap.store(options));
            let ring = Heap::new(N, 2, options);
            let mut pusher = ring.fifo(options);
            let mut readers = [Reading::Broadcast, Reading::Shared]
                .map(|reading| ring.fifo(options.reading(reading)));
            let start = Instant::now();
            assert_error!(reader.read_new(WHILE), ReadError::Timeout { .. });
            assert_error!(readers[0].read(WHILE), ReadError::Timeout { .. });
            assert_error!(readers[1].read_latest(WHILE), ReadError::Timeout { .. });
            assert!(start.elapsed() >= 3 * WHILE);
            for number in 1..4 {
                scope(|scope| {
                    let reader = scope.spawn(|| reader.read_new(PATIENCE).unwrap().number());
                    let waiting = readers
                        .each_mut()
                        .map(|reader| scope.spawn(|| reader.read(PATIENCE).unwrap().index()));
                    sleep(WHILE);
                    assert!(!reader.is_finished());
                    writer.write(values([("b", 1)])).unwrap();
                    push(&mut pusher, 1).unwrap();
                    assert_eq!(reader.join().unwrap(), number);
                    for reader in waiting {
                        assert_eq!(reader.join().unwrap(), number - 1);
                    }
                });
            }
            // A foreign writer wakes nobody, and is seen.
            scope(|scope| {
                let reader = scope.spawn(|| reader.read_new(PATIENCE).unwrap().number());
                let item = scope.spawn(|| readers[0].read(PATIENCE).unwrap().index());
                sleep(WHILE);
                heap.python_writes(0, "b", &5_i32.to_le_bytes());
                ring.python_finalizes("n", &5_i32.to_le_bytes());
                assert_eq!((reader.join().unwrap(), item.join().unwrap()), (4, 3));
            });
        }
    }
}

/// How often this thread went to sleep.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// With the trailer a reader sleeps until it is woken: it looks some 25 times
/// per second, where without it looks many thousand times.
#[test]
fn an_idle_reader_does_not_poll() {
    let idle = Duration::from_millis(300);
    let looks = |wait: &mut dyn FnMut()| {
        let before = sleeps();
        wait();
        sleeps() - before
    };
    // On a busy machine there is no telling how many those are.
    for (options, most) in [(native(), 60), (plain(), u64::MAX)] {
        let options = options.wait_strategy(WaitStrategy::Block);
        let heap = Heap::new(ABC, 1, options);
        let (mut writer, mut reader) = (heap.store(options), heap.store(options));
        writer.write(values([("b", 1)])).unwrap();
        reader.read(NOW).unwrap();
        let store = looks(&mut || assert_error!(reader.read_new(idle), ReadError::Timeout { .. }));
        let heap = Heap::new(N, 2, options);
        let (mut writer, mut reader) = (heap.fifo(options), heap.fifo(options));
        push(&mut writer, 1).unwrap();
        reader.read(NOW).unwrap();
        let fifo = looks(&mut || assert_error!(reader.read(idle), ReadError::Timeout { .. }));
        // So does a writer that waits for a reader of ours.
        let blocking = options.on_full(OnFull::Block).full_timeout(Some(idle));
        let _reader = heap.fifo(options.reading(Reading::Shared));
        let mut writer = heap.fifo(blocking);
        push(&mut writer, 1).unwrap();
        let room = looks(&mut || assert!(push(&mut writer, 2).unwrap_err().is_full()));
        println!(
            "trailer {}: {store}, {fifo}, {room} looks",
            heap.native.is_some()
        );
        for found in [store, fifo, room] {
            assert!((1..=most).contains(&found), "{store}, {fifo}, {room} looks");
        }
    }
}

// Errors.

#[test]
fn errors_have_kinds() {
    let name = Name::new("kinds");
    let kind = |error: OpenError| std::io::Error::from(error).kind();
    let open = |text: &str| SlotStore::open_dynamic(&name, &schema(text), native()).unwrap_err();
    assert_eq!(kind(open(ABC)), ErrorKind::NotFound);
    let store = SlotStore::create_dynamic(&name, &schema(ABC), native()).unwrap();
    assert_eq!(kind(open(N)), ErrorKind::InvalidData);
    let create = |options| SlotStore::create_dynamic(&name, &schema(ABC), options).unwrap_err();
    assert_eq!(kind(create(native())), ErrorKind::AlreadyExists);
    assert_eq!(
        kind(create(native().replace(Replace::Abandoned))),
        ErrorKind::AddrInUse
    );
    store.unlink().unwrap();
    let few = SlotFifo::create_dynamic(&name, &schema(ABC), 1, native()).unwrap_err();
    assert_eq!(kind(few), ErrorKind::InvalidInput);
    let heap = Heap::new(N, 2, plain());
    let opened = heap.segment.fifo_dynamic(
        Some(&schema(N)),
        Some(2),
        plain().reading(Reading::Registered),
    );
    assert_eq!(kind(opened.unwrap_err()), ErrorKind::Unsupported);

    let mut fifo = heap.fifo(plain().on_full(OnFull::Refuse));
    let error = fifo.read(NOW).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("on the heap"));
    assert_eq!(std::io::Error::from(error).kind(), ErrorKind::TimedOut);
    let refused = fifo.stage(Values::new().with("n", "text")).unwrap_err();
    assert!(!refused.is_full());
    assert_eq!(
        std::io::Error::from(refused).kind(),
        ErrorKind::InvalidInput
    );
    push(&mut fifo, 1).unwrap();
    push(&mut fifo, 1).unwrap();
    let full = push(&mut fifo, 1).unwrap_err();
    assert_eq!(std::io::Error::from(full).kind(), ErrorKind::WouldBlock);
    heap.poke(heap.layout.slot_offset(0), 9);
    let busy = heap.fifo(plain()).read(NOW);
    // Two items are there, and the first is overwritten as far as it shows.
    assert!(busy.is_ok());
}

#[cfg(feature = "serde")]
#[test]
fn choices_are_serialised() {
    fn survives<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(
        all: &[T],
    ) {
        for one in all {
            let text = serde_json::to_string(one).unwrap();
            assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), one, "{text}");
        }
    }
    survives(&[OnFull::Overwrite, OnFull::Block, OnFull::Refuse]);
    survives(&[OnUnlink::Restore, OnUnlink::Report, OnUnlink::Ignore]);
    survives(&[Replace::Never, Replace::Abandoned, Replace::Always]);
    survives(&[Reading::Broadcast, Reading::Registered, Reading::Shared]);
}
