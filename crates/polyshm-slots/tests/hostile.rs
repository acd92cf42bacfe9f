//! Damaged and hostile segments: whatever the bytes say, an operation ends in
//! records that were there, in nothing, or in an error, never in a panic, a hang
//! or an access outside; and it changes no byte that is not its own.
//!
//! Most segments are on the heap; some have names, for what happens there alone.
//! `POLYSHM_HOSTILE_IMAGES` says how many images (a million by default in an
//! optimised build).
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_slots::{
    ArrayValue, Dynamic, DynamicFields, FieldType, ImageError, OnFull, OnUnlink, OpenError,
    Options, ReadError, Reading, Schema, SlotFifo, SlotStore, Value, Values, WaitStrategy,
    WriteError, testing::HeapSegment,
};
use polyshm_testkit::{Name, Random, images_wanted, watch};
use polyshm_wire::slots::{
    CURSORS, FOOTER_SIZE, FieldPlace, Footer, Layout, META_SIZE, NativeLayout, offset,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const NOW: Duration = Duration::ZERO;
/// Of so many images also what is rare comes.
const MANY: u64 = 1_000_000;
const PAGE: u64 = 4096;

/// Tags of a write of ours (section 7 D1).
const END_TAG: u64 = 1 << 62;
const BEGIN_TAG: u64 = 1 << 63;

/// What came of the operations, by name.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn opened<T>(&mut self, opened: Result<T, OpenError>) -> Option<T> {
        self.add(match &opened {
            Ok(_) => "opened",
            Err(OpenError::NotReady { .. }) => "open: not ready",
            Err(OpenError::NoSchema { .. }) => "open: no schema",
            Err(OpenError::Length { .. }) => "open: another length",
            Err(OpenError::TooFewSlots { .. }) => "open: too few slots",
            Err(OpenError::TooManyReaders { .. }) => "open: too many readers",
            Err(OpenError::NeedsTrailer { .. }) => "open: needs the trailer",
            Err(OpenError::Busy { .. }) => "open: busy",
            Err(OpenError::Mismatch { source, .. }) => match source {
                ImageError::TooShort { .. } => "open: too short",
                ImageError::FooterVersion { .. } => "open: another version",
                ImageError::FooterCheck { .. } => "open: check sum",
                ImageError::FooterFlags { .. } => "open: flags",
                ImageError::FooterSizes { .. } => "open: sizes",
                ImageError::TrailerOffset { .. } => "open: offset",
                ImageError::SchemaText { .. } => "open: schema no text",
                ImageError::Schema { .. } => "open: schema damaged",
                ImageError::SchemaHash { .. } => "open: schema hash",
                ImageError::SchemaMismatch { .. } => "open: another schema",
                ImageError::SlotsMismatch { .. } => "open: another number of slots",
                ImageError::Layout { .. } => "open: no layout",
                other => panic!("a segment is not opened for {other:?}"),
            },
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
        opened.ok()
    }

    fn read<T>(&mut self, result: Result<T, ReadError>) -> Option<T> {
        self.add(match &result {
            Ok(_) => "read: a record",
            Err(ReadError::Timeout { .. }) => "read: timeout",
            Err(ReadError::Busy { .. }) => "read: busy",
            Err(ReadError::WriterDied { .. }) => "read: the writer died",
            Err(ReadError::Unlinked { .. }) => "read: unlinked",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
        result.ok()
    }

    fn tried<T>(&mut self, result: Option<T>) -> Option<T> {
        self.add(if result.is_some() {
            "tried: a record"
        } else {
            "tried: nothing"
        });
        result
    }

    fn written<T>(&mut self, result: Result<T, WriteError>) -> Option<T> {
        self.add(match &result {
            Ok(_) => "written",
            Err(WriteError::Busy { .. }) => "write: busy",
            Err(WriteError::Full { .. }) => "write: full",
            Err(WriteError::Unlinked { .. }) => "write: unlinked",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
        result.ok()
    }

    #[track_caller]
    fn all_occur(&self, outcomes: &[&str]) {
        for outcome in outcomes {
            assert!(self.0.contains_key(outcome), "nothing led to {outcome:?}");
        }
    }
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

// Segments in order.

/// A segment in order, from which damage starts.
struct Sound {
    what: String,
    layout: Layout,
    native: Option<NativeLayout>,
    image: Vec<u8>,
}

/// Where a word is, and how many bytes it has.
type Place = (usize, usize);

impl Sound {
    fn schema(&self) -> &Schema {
        self.layout.schema()
    }

    fn is_fifo(&self) -> bool {
        self.layout.is_fifo()
    }

    /// The words of a slot that is at `start`: sequences, statuses, lengths of
    /// texts, and values that are looked at.
    fn slot_words(&self, start: usize) -> Vec<Place> {
        let layout = &self.layout;
        let mut words = vec![(start, 8), (start + layout.seq_end_offset(), 8)];
        let specs = layout.schema().fields();
        for (at, (spec, place)) in specs.iter().zip(layout.fields()).enumerate() {
            words.push((start + layout.status_offset() + at, 1));
            match spec.ty {
                FieldType::Text { .. } => words.push((start + place.offset, 4)),
                FieldType::Array { .. } => {}
                _ => words.push((start + place.offset, place.size)),
            }
        }
        words
    }

    /// Every word that says something of the rest.
    fn words(&self) -> Vec<Place> {
        let layout = &self.layout;
        let mut words = Vec::new();
        if self.is_fifo() {
            words.extend([offset::WRITE_IDX, offset::READ_IDX, offset::COUNT].map(|at| (at, 8)));
        }
        for slot in 0..layout.slots() {
            words.extend(self.slot_words(layout.slot_offset(slot)));
        }
        let Some(native) = &self.native else {
            return words;
        };
        let writer = native.writer_line();
        words.extend([0, 8, 16, 24, 32, 40, 48].map(|at| (writer + at, 8)));
        let reader = native.reader_line();
        words.extend([0, 4, 8, 12, 16].map(|at| (reader + at, 4)));
        if self.is_fifo() {
            for cursor in [0, 1, 2, CURSORS - 1] {
                let at = native.cursor(cursor);
                words.extend([(at, 8), (at + 8, 4), (at + 12, 4)]);
            }
        } else {
            let places = [
                Some(native.changes()),
                native.buffer_changes(0),
                native.buffer_changes(1),
            ];
            for changes in places.into_iter().flatten() {
                let fields = layout.fields().len();
                words.extend((0..3 + fields).map(|at| (changes + 8 * at, 8)));
            }
            for buffer in [native.buffer(0), native.buffer(1)].into_iter().flatten() {
                words.extend(self.slot_words(buffer));
            }
        }
        words.extend(self.footer_words());
        let text = native.schema_text();
        words.extend([(text, 1), (text + native.schema_len() / 2, 1)]);
        words
    }

    fn footer_words(&self) -> Vec<Place> {
        let Some(native) = &self.native else {
            return Vec::new();
        };
        let footer = native.footer_offset();
        let places = [
            (0, 8),
            (8, 4),
            (12, 4),
            (16, 8),
            (24, 8),
            (32, 8),
            (40, 8),
            (48, 4),
            (52, 4),
            (56, 4),
            (60, 4),
        ];
        places.map(|(at, len)| (footer + at, len)).to_vec()
    }

    /// Lengths at which a segment may end.
    fn lengths(&self) -> Vec<usize> {
        let len = self.image.len();
        let mut ends = vec![0, 8, META_SIZE, self.layout.segment_size() as usize];
        for slot in 0..self.layout.slots().min(3) {
            let start = self.layout.slot_offset(slot);
            ends.extend([start + 8, start + self.layout.slot_size()]);
        }
        if let Some(native) = &self.native {
            ends.extend([
                native.trailer_offset(),
                native.schema_text(),
                native.footer_offset(),
            ]);
        }
        ends.extend([
            len,
            len + FOOTER_SIZE,
            len.next_multiple_of(PAGE as usize),
            2 * len,
        ]);
        let near = |end: usize| [end.saturating_sub(1), end, end + 1];
        let mut lengths: Vec<_> = ends.into_iter().flat_map(near).collect();
        lengths.sort_unstable();
        lengths.dedup();
        lengths
    }
}

const SMALL: &str = "n: int, s: str[2], t: str[40], g: uint8[3,5], x: float, flag: bool";
/// More fields than fit in a word of statuses, and one that is not copied before
/// it is written.
const WIDE: &str = "n: int, b1: bool, b2: bool, b3: bool, b4: bool, b5: bool, b6: bool, b7: bool, \
    b8: bool, image: uint8[30,40], s: str[3]";

/// A record that tells whether it is whole: every value is made of the number.
fn record(schema: &Schema, number: u64) -> Values {
    let mut values = Values::new();
    for field in schema.fields() {
        let value: Value = match &field.ty {
            FieldType::Float => (number as f64).into(),
            FieldType::Int => (number as u32 & 0x7FFF_FFFF).into(),
            FieldType::Bool => (number % 2 == 1).into(),
            FieldType::Text { max_chars } => {
                let letter = char::from(b'a' + (number % 26) as u8);
                String::from_iter(vec![letter; *max_chars as usize]).into()
            }
            FieldType::Array { shape, .. } => {
                let count = shape.iter().product();
                let elements = vec![number as u8; count];
                let array = ArrayValue::from_elements(shape.clone(), &elements);
                array.expect("as many").into()
            }
        };
        values.set(field.name.clone(), value);
    }
    values
}

/// The number of a record, which all of it must be made of.
#[track_caller]
fn number_of(fields: &DynamicFields) -> u64 {
    let number = fields
        .get("n")
        .and_then(|field| field.as_i32())
        .expect("there is one");
    let number = u64::from(number.cast_unsigned());
    let wanted = record(fields.schema(), number);
    for field in fields {
        assert_eq!(
            Some(&field.value()),
            wanted.get(field.name()),
            "torn: {fields}"
        );
    }
    number
}

/// Handles that nobody closes: what they take in the segment stays.
fn stay<T>(handles: T) {
    std::mem::forget(handles);
}

fn store(segment: &HeapSegment, schema: &Schema) -> SlotStore<Dynamic> {
    let opened = segment.store_dynamic(Some(schema), Options::new());
    opened.expect("it was made")
}

fn fifo(segment: &HeapSegment, schema: &Schema, slots: u64, options: Options) -> SlotFifo<Dynamic> {
    let opened = segment.fifo_dynamic(Some(schema), Some(slots), options);
    opened.expect("it was made")
}

/// What happened before in a store.
fn store_states(
    schema: &Schema,
    options: Options,
    buffered: bool,
) -> Vec<(&'static str, HeapSegment)> {
    let layout = Layout::new(schema, 1).expect("small");
    let end = layout.seq_end_offset();
    let made = || HeapSegment::new(schema, 1, options).expect("small");
    let write = |segment: &HeapSegment, numbers: Range<u64>| {
        let mut store = store(segment, schema);
        for number in numbers {
            store
                .write(record(schema, number))
                .expect("nobody else writes");
        }
        store
    };
    let tag = |segment: &HeapSegment, number: u64| {
        segment.poke(0, &(number ^ BEGIN_TAG).to_le_bytes());
        segment.poke(end, &(number ^ END_TAG).to_le_bytes());
    };
    let number = |segment: &HeapSegment, number: u64| {
        segment.poke(0, &number.to_le_bytes());
        segment.poke(end, &number.to_le_bytes());
    };
    let mut states = vec![("fresh", made())];
    let segment = made();
    write(&segment, 1..4)
        .write(Values::new().with("n", 9))
        .expect("alone");
    states.push(("written in part", segment));
    // Readers found a write under way: one asked, the next got what was left for
    // it, and both again.
    let segment = made();
    let mut writer = write(&segment, 1..3);
    for asked in 3..7 {
        tag(&segment, asked);
        let read = store(&segment, schema).read(Duration::from_millis(20));
        assert_eq!(read.is_ok(), buffered && asked % 2 == 0, "{asked}");
        number(&segment, asked - 1);
        writer.write(record(schema, asked)).expect("alone");
    }
    states.push(("asked", segment));
    let segment = made();
    write(&segment, 1..3);
    tag(&segment, 3);
    states.push(("being written", segment));
    let segment = made();
    write(&segment, 1..3);
    segment.poke(0, &3_u64.to_le_bytes());
    states.push(("being written by Python", segment));
    let segment = made();
    number(&segment, u64::MAX - 1);
    write(&segment, 1..2);
    states.push(("before the wrap", segment));
    states
}

/// What happened before in a FIFO.
fn fifo_states(schema: &Schema, slots: u64, options: Options) -> Vec<(&'static str, HeapSegment)> {
    let layout = Layout::new(schema, slots).expect("small");
    let made = || HeapSegment::new(schema, slots, options).expect("small");
    let open = |segment: &HeapSegment, options| fifo(segment, schema, slots, options);
    let push = |segment: &HeapSegment, numbers: Range<u64>| {
        let mut writer = open(segment, Options::new());
        for number in numbers {
            writer
                .push(record(schema, number))
                .expect("nobody else writes");
        }
        writer
    };
    let mut states = vec![("fresh", made())];
    let segment = made();
    push(&segment, 0..1);
    states.push(("one item", segment));
    let segment = made();
    push(&segment, 0..slots);
    states.push(("full", segment));
    let segment = made();
    push(&segment, 0..2 * slots + 1);
    states.push(("lapped", segment));
    let segment = made();
    let mut consumer = open(&segment, Options::new().reading(Reading::Shared));
    push(&segment, 0..slots);
    consumer.try_read().expect("there is one");
    stay(consumer);
    if options_have_trailer(&segment, &layout) {
        let mut readers =
            [(); 2].map(|()| open(&segment, Options::new().reading(Reading::Registered)));
        readers[1].try_read().expect("there is one");
        stay(readers);
    }
    states.push(("readers", segment));
    let segment = made();
    push(&segment, 0..slots + 1);
    let start = layout.slot_offset(1);
    segment.poke(start, &(2 ^ BEGIN_TAG).to_le_bytes());
    segment.poke(
        start + layout.seq_end_offset(),
        &(2 ^ END_TAG).to_le_bytes(),
    );
    states.push(("being written", segment));
    let segment = made();
    push(&segment, 0..slots);
    for index in [offset::WRITE_IDX, offset::READ_IDX] {
        segment.poke(index, &(u64::MAX - 1).to_le_bytes());
    }
    states.push(("before the wrap", segment));
    states
}

fn options_have_trailer(segment: &HeapSegment, layout: &Layout) -> bool {
    segment.image().len() as u64 != layout.segment_size()
}

fn sound_segments() -> Vec<Sound> {
    let mut sound = Vec::new();
    let kinds = [
        ("plain", Options::new().trailer(false)),
        ("trailer", Options::new()),
        ("trailer without buffers", Options::new().buffered(false)),
    ];
    for text in [SMALL, WIDE] {
        let schema: Schema = text.parse().expect("a schema");
        for (kind, options) in kinds {
            for slots in [1, 2, 3, 5] {
                if slots > 1 && kind == "trailer without buffers" || slots > 2 && text == WIDE {
                    continue;
                }
                let layout = Layout::new(&schema, slots).expect("small");
                let states = if slots == 1 {
                    store_states(&schema, options, kind == "trailer")
                } else {
                    fifo_states(&schema, slots, options)
                };
                for (state, segment) in states {
                    let image = segment.image();
                    let buffered = kind == "trailer";
                    let native = NativeLayout::new(&layout, PAGE, buffered).expect("small");
                    let native = (kind != "plain").then_some(native);
                    let len = native
                        .as_ref()
                        .map_or(layout.segment_size(), NativeLayout::object_len);
                    assert_eq!(image.len() as u64, len);
                    sound.push(Sound {
                        what: format!("{slots} slots of {} fields, {kind}, {state}", schema.len()),
                        layout: layout.clone(),
                        native,
                        image,
                    });
                }
            }
        }
    }
    sound
}

// Damage.

/// How many values [`edge`] has.
const EDGES: usize = 26;

/// 0, 1, the largest, the signs, tags, off by one, sizes, and processes.
fn edge(value: u64, sound: &Sound, which: usize) -> u64 {
    let slots = sound.layout.slots();
    let mark = u64::from(std::process::id() & 0x003F_FFFF);
    [
        0,
        1,
        2,
        u64::MAX,
        u64::MAX - 1,
        1 << 31,
        u64::from(u32::MAX),
        1 << 63,
        (1 << 63) - 1,
        END_TAG,
        value ^ END_TAG,
        value ^ BEGIN_TAG,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value.wrapping_add(slots),
        value.wrapping_sub(slots + 1),
        value ^ 1 << 16,
        value ^ 2,
        slots,
        slots + 1,
        sound.layout.segment_size(),
        sound.image.len() as u64,
        // A text's length, one too long.
        9,
        // This process, alone and as a holder; and one that there is not.
        mark,
        7 << 32 | mark,
        7 << 32 | 0x003F_FFFE,
    ][which]
}

fn value_of(image: &[u8], (at, len): Place) -> u64 {
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&image[at..at + len]);
    u64::from_le_bytes(bytes)
}

/// A change of a segment's bytes, made before it is opened or after.
#[derive(Clone, Debug)]
enum Damage {
    Store(usize, Vec<u8>),
    /// The segment ends there, or is longer. Only before it is opened.
    Length(usize),
    /// The footer's check sum is made right again.
    Check,
}

impl Damage {
    fn word(sound: &Sound, place: Place, which: usize) -> Self {
        let value = edge(value_of(&sound.image, place), sound, which);
        Self::Store(place.0, value.to_le_bytes()[..place.1].to_vec())
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            // It may have been cut already.
            Self::Store(at, bytes) => {
                let end = image.len().min(at + bytes.len());
                let start = end.min(*at);
                image[start..end].copy_from_slice(&bytes[..end - start]);
            }
            Self::Length(len) => image.resize(*len, 0xA5),
            Self::Check => {
                let Some(at) = image.len().checked_sub(FOOTER_SIZE) else {
                    return;
                };
                if let Some(mut footer) = Footer::read(&image[at..]) {
                    footer.check.set(footer.check_sum());
                    image[at..].copy_from_slice(&footer.to_bytes());
                }
            }
        }
    }

    fn poke(&self, segment: &HeapSegment) {
        if let Self::Store(at, bytes) = self {
            segment.poke(*at, bytes);
        }
    }
}

/// Every single change, by number: each word at its edges, and the footer's also
/// with the right check sum; then each length.
fn single(sound: &Sound, words: &[Place], change: usize) -> Vec<Damage> {
    let footer = sound.footer_words();
    if let Some(place) = words.get(change / EDGES) {
        return vec![Damage::word(sound, *place, change % EDGES)];
    }
    let change = change - words.len() * EDGES;
    if let Some(place) = footer.get(change / EDGES) {
        let damage = Damage::word(sound, *place, change % EDGES);
        return vec![damage, Damage::Check];
    }
    let change = change - footer.len() * EDGES;
    vec![Damage::Length(sound.lengths()[change])]
}

fn singles(sound: &Sound, words: &[Place]) -> usize {
    (words.len() + sound.footer_words().len()) * EDGES + sound.lengths().len()
}

/// Several changes at once, of plausible sizes.
fn several(sound: &Sound, words: &[Place], random: &mut Random) -> Vec<Damage> {
    let len = sound.image.len();
    let plain = sound.layout.segment_size() as usize;
    let mut all = Vec::new();
    for _ in 0..=random.below(4) {
        let place = random.pick(words);
        all.push(match random.below(12) {
            0 => {
                let at = random.below(plain);
                Damage::Store(at, vec![sound.image[at] ^ 1 << random.below(8)])
            }
            1 => {
                let value = random.next() >> random.below(64);
                Damage::Store(place.0, value.to_le_bytes()[..place.1].to_vec())
            }
            2 => {
                let other = random.pick(words);
                let value = value_of(&sound.image, other);
                Damage::Store(place.0, value.to_le_bytes()[..place.1].to_vec())
            }
            3 => {
                let at = random.below(plain);
                let bytes = (0..random.below(plain - at)).map(|_| random.next() as u8);
                Damage::Store(at, bytes.collect())
            }
            _ => Damage::word(sound, place, random.below(EDGES)),
        });
    }
    if random.one_in(2) {
        all.push(Damage::Check);
    }
    if random.one_in(32) {
        all.push(Damage::Length(random.below(len + 2 * PAGE as usize)));
    }
    if random.one_in(64) {
        // Nothing but noise, but for what tells that it is a segment.
        let end = sound.native.as_ref().map_or(len, NativeLayout::schema_text);
        let noise = (0..end).map(|_| random.next() as u8).collect();
        all.push(Damage::Store(0, noise));
    }
    all
}

// One handle at a segment on the heap.

fn options(random: &mut Random) -> Options {
    let on_full = random.pick(&[
        OnFull::Overwrite,
        OnFull::Overwrite,
        OnFull::Block,
        OnFull::Refuse,
    ]);
    let reading = random.pick(&[Reading::Broadcast, Reading::Registered, Reading::Shared]);
    let strategy = random.pick(&[
        WaitStrategy::Block,
        WaitStrategy::Adaptive,
        WaitStrategy::Spin,
    ]);
    Options::new()
        .on_full(on_full)
        .reading(reading)
        .wait_strategy(strategy)
        .any_length(random.one_in(4))
        .foreign_consumer(random.one_in(4))
        .full_timeout(Some(NOW))
        .lock_timeout(NOW)
}

enum Handle {
    Store(SlotStore<Dynamic>),
    Fifo(SlotFifo<Dynamic>, Reading),
}

/// A segment that nobody else changes, and its handles' doings.
struct Use<'a> {
    sound: &'a Sound,
    /// As its footer tells now.
    native: Option<NativeLayout>,
    segment: &'a HeapSegment,
    random: &'a mut Random,
    counts: &'a mut Counts,
}

impl Use<'_> {
    /// Bytes that changed, where none may.
    #[track_caller]
    fn only_changed(&self, before: &[u8], allowed: &[Range<usize>]) {
        let after = self.segment.image();
        if after == before {
            return;
        }
        let strays: Vec<_> = (0..after.len())
            .filter(|at| after[*at] != before[*at])
            .filter(|at| !allowed.iter().any(|range| range.contains(at)))
            .collect();
        assert!(strays.is_empty(), "bytes {strays:?} were changed");
    }

    /// Where handles note what is theirs: lock, counters, bells, demand, and
    /// cursors; not the schema, the buffers or the footer.
    fn notes(&self) -> Range<usize> {
        self.native.as_ref().map_or(0..0, |native| {
            let end = if self.sound.is_fifo() {
                native.schema_text()
            } else {
                native.changes()
            };
            native.trailer_offset()..end
        })
    }

    fn is_buffered(&self) -> bool {
        let native = self.native.as_ref();
        native.is_some_and(|native| native.buffer(0).is_some())
    }

    /// Where the next who has a dead writer's lock completes what it left: the
    /// indices, and the tags of any slot.
    fn completed(&self) -> Vec<Range<usize>> {
        let layout = &self.sound.layout;
        let mut ranges = vec![self.notes(), 0..META_SIZE];
        for slot in 0..layout.slots() {
            let (start, end) = (layout.slot_offset(slot), layout.seq_end_offset());
            ranges.extend([start..start + 8, start + end..start + end + 8]);
        }
        ranges
    }

    /// What a write may change beside its slot.
    fn beside(&self) -> Vec<Range<usize>> {
        let Some(native) = &self.native else {
            return Vec::new();
        };
        let line = native.trailer_offset()..native.schema_text();
        let buffers = native.buffer(0).map(|at| at..native.footer_offset());
        [Some(line), buffers].into_iter().flatten().collect()
    }

    /// The bytes of a slot that are no padding.
    fn slot(&self, start: usize) -> [Range<usize>; 3] {
        let layout = &self.sound.layout;
        let statuses = layout.status_offset() + layout.fields().len();
        let (first, end) = (layout.first_field(), layout.fields_end());
        let words = layout.seq_end_offset()..layout.slot_size();
        [0..statuses, first..end, words].map(|range| start + range.start..start + range.end)
    }

    /// What was read is what is there, whole and in its field.
    #[track_caller]
    fn was_there(
        &self,
        image: &[u8],
        starts: &[usize],
        fields: &DynamicFields,
        number: Option<u64>,
    ) {
        let layout = &self.sound.layout;
        let bytes = |start: usize, place: &FieldPlace| {
            let at = start + place.offset;
            at..at + place.size
        };
        let found = starts.iter().any(|start| {
            let (begin, end) = (
                word(image, *start),
                word(image, start + layout.seq_end_offset()),
            );
            let same = fields.iter().zip(layout.fields());
            begin == end
                && number.is_none_or(|number| number == begin)
                && same.fold(true, |same, (field, place)| {
                    same && field.bytes() == &image[bytes(*start, place)]
                })
        });
        assert!(found, "a record that was not there: {fields}");
        for field in fields {
            if let (FieldType::Text { max_chars }, Some(text)) = (field.field_type(), field.text())
            {
                assert!(text.len() <= 4 * *max_chars as usize);
                let len = value_of(field.bytes(), (0, 4));
                let damaged = len > 4 * u64::from(*max_chars);
                assert!(field.is_truncated() || !damaged);
            }
            let _ = (field.value(), field.to_string(), field.changes());
        }
    }

    fn read_store(&mut self, store: &mut SlotStore<Dynamic>) {
        let before = self.segment.image();
        let timeout = self.timeout();
        let mut record = store.empty();
        let read = match self.random.below(6) {
            0 => self.counts.tried(store.try_read()),
            1 => self.counts.tried(store.try_read_new()),
            2 => self.counts.read(store.read(timeout)),
            3 => self.counts.read(store.read_new(timeout)),
            4 => self
                .counts
                .read(store.read_into(&mut record, timeout))
                .map(|()| record),
            _ => self
                .counts
                .read(store.read_new_into(&mut record, timeout))
                .map(|()| record),
        };
        if let Some(record) = read {
            let mut starts = vec![0];
            let buffers = self.native.iter();
            starts.extend(
                buffers
                    .flat_map(|native| [native.buffer(0), native.buffer(1)])
                    .flatten(),
            );
            self.was_there(&before, &starts, &record, Some(record.number()));
        }
        self.only_changed(&before, &[self.notes()]);
    }

    fn read_fifo(&mut self, fifo: &mut SlotFifo<Dynamic>, reading: Reading) {
        let before = self.segment.image();
        let timeout = self.timeout();
        let mut item = fifo.empty();
        let read = match self.random.below(6) {
            0 => self.counts.tried(fifo.try_read()),
            1 => self.counts.tried(fifo.try_read_latest()),
            2 => self.counts.read(fifo.read(timeout)),
            3 => self.counts.read(fifo.read_latest(timeout)),
            4 => self
                .counts
                .read(fifo.read_into(&mut item, timeout))
                .map(|()| item),
            _ => self
                .counts
                .read(fifo.read_latest_into(&mut item, timeout))
                .map(|()| item),
        };
        let layout = &self.sound.layout;
        if let Some(item) = read {
            let slot = item.index() % layout.slots();
            self.was_there(&before, &[layout.slot_offset(slot)], &item, None);
        }
        // Who takes items moves the index, and the count with it.
        let indices = if reading == Reading::Shared {
            offset::READ_IDX..META_SIZE
        } else {
            0..0
        };
        self.only_changed(&before, &[self.notes(), indices]);
    }

    /// Mostly none; rarely some, to get to what waits.
    fn timeout(&mut self) -> Duration {
        if self.random.one_in(4096) {
            return Duration::from_micros(self.random.next() % 2000);
        }
        NOW
    }

    fn values(&mut self) -> Values {
        let number = self.random.next();
        let all = record(self.sound.schema(), number);
        if self.random.one_in(2) {
            return all;
        }
        let kept = all.iter().filter(|_| self.random.one_in(3));
        kept.map(|(name, value)| (name, value.clone())).collect()
    }

    fn write_store(&mut self, store: &mut SlotStore<Dynamic>) {
        let before = self.segment.image();
        let written = match self.random.below(6) {
            0 => self.counts.written(store.repair()).map(u64::from),
            1 => self.counts.written(store.reset_modified()).map(u64::from),
            _ => {
                let values = self.values();
                self.counts.written(store.write(values))
            }
        };
        let mut allowed = vec![self.notes()];
        if written.is_some() {
            allowed = self.beside();
            if self.is_buffered() {
                // A record comes back from a buffer with its padding.
                allowed.push(0..self.sound.layout.slot_size());
            } else {
                allowed.extend(self.slot(0));
            }
        }
        self.only_changed(&before, &allowed);
        // Bits of the future stay, unless the record before came back.
        let after = self.segment.image();
        if !self.is_buffered() {
            for status in 8..8 + self.sound.layout.fields().len() {
                assert_eq!(after[status] & 0xF8, before[status] & 0xF8);
            }
        }
    }

    fn write_fifo(&mut self, fifo: &mut SlotFifo<Dynamic>) {
        let before = self.segment.image();
        let layout = &self.sound.layout;
        let result = match self.random.below(8) {
            0 => {
                fifo.discard();
                None
            }
            1 => {
                let values = self.values();
                self.counts.written(fifo.stage(values));
                None
            }
            2 => {
                self.counts.written(fifo.republish());
                self.only_changed(&before, &self.completed());
                return;
            }
            3 => {
                if let Some(drained) = self.counts.written(fifo.drain(NOW)) {
                    self.counts
                        .add(if drained { "drained" } else { "not drained" });
                }
                self.only_changed(&before, &self.completed());
                return;
            }
            4 => self.counts.written(fifo.finalize()).flatten(),
            _ => {
                let values = self.values();
                self.counts.written(fifo.push(values))
            }
        };
        let mut allowed = self.completed();
        if let Some(item) = result {
            let start = layout.slot_offset(item % layout.slots());
            allowed.extend(self.slot(start));
        }
        self.only_changed(&before, &allowed);
    }

    fn look(&mut self, handle: &Handle) {
        let before = self.segment.image();
        match handle {
            Handle::Store(store) => {
                let _ = (store.name(), store.has_trailer(), format!("{store:?}"));
                assert_eq!(store.schema(), self.sound.schema());
                drop(store.clone());
            }
            Handle::Fifo(fifo, _) => {
                assert!(fifo.unread() <= fifo.capacity());
                assert_eq!(fifo.capacity(), self.sound.layout.slots());
                let _ = (fifo.finalized(), fifo.overwritten(), format!("{fifo:?}"));
                if self.random.one_in(4) {
                    self.counts.opened(fifo.try_clone());
                }
            }
        }
        let allowed = match handle {
            Handle::Store(_) => vec![self.notes()],
            Handle::Fifo(..) => self.completed(),
        };
        self.only_changed(&before, &allowed);
    }

    fn anything(&mut self, handle: &mut Handle) {
        match (self.random.below(9), &mut *handle) {
            (0..4, Handle::Store(store)) => self.read_store(store),
            (0..4, Handle::Fifo(fifo, reading)) => {
                let reading = *reading;
                self.read_fifo(fifo, reading);
            }
            (4..8, Handle::Store(store)) => self.write_store(store),
            (4..8, Handle::Fifo(fifo, _)) => self.write_fifo(fifo),
            _ => self.look(handle),
        }
    }

    /// Whatever it was: who writes now is read now.
    fn after_all(&mut self, handle: Handle) {
        let schema = self.sound.schema();
        match handle {
            Handle::Store(mut store) => {
                let mut reader = store.clone();
                if self
                    .counts
                    .written(store.write(record(schema, 77)))
                    .is_none()
                {
                    return;
                }
                let seen = reader.read(NOW).expect("it is whole");
                assert_eq!(number_of(&seen), 77);
                assert!(
                    seen.iter()
                        .all(|field| field.is_valid() && field.is_modified())
                );
                store.write(record(schema, 78)).expect("as before");
                assert_eq!(number_of(&reader.read_new(NOW).expect("it is new")), 78);
                self.counts.add("a record after all");
            }
            Handle::Fifo(fifo, _) => {
                let open = || {
                    let options = Options::new().lock_timeout(NOW);
                    let (schema, slots) = (Some(schema), Some(self.sound.layout.slots()));
                    self.segment.fifo_dynamic(schema, slots, options)
                };
                drop(fifo);
                let (Ok(mut writer), Ok(mut reader)) = (open(), open()) else {
                    self.counts.add("not opened again");
                    return;
                };
                let Some(item) = self.counts.written(writer.push(record(schema, 77))) else {
                    return;
                };
                let seen = reader.read_latest(NOW).expect("it is whole");
                assert_eq!((seen.index(), number_of(&seen)), (item, 77));
                self.counts.add("an item after all");
            }
        }
    }
}

/// Whether a segment can be opened by its schema and slots, as the format says
/// it, where that is clear; `None` where the trailer was damaged.
fn is_sound(sound: &Sound, image: &[u8], any_length: bool) -> Option<bool> {
    let (layout, len) = (&sound.layout, image.len());
    let at = len.checked_sub(FOOTER_SIZE);
    if at.is_some_and(|at| Footer::read(&image[at..]).is_some()) {
        let native = sound.native.as_ref()?;
        let text = native.schema_text();
        let same = len == sound.image.len()
            && image[native.footer_offset()..] == sound.image[native.footer_offset()..]
            && image[text..text + native.schema_len()]
                == sound.image[text..text + native.schema_len()];
        return same.then_some(true);
    }
    let size = layout.segment_size();
    let (len, rounded) = (len as u64, size.next_multiple_of(PAGE));
    if len < size || !any_length && len != size && len != rounded {
        return Some(false);
    }
    let start = layout.slot_offset(layout.slots() - 1);
    let written = word(image, start) != 0 || word(image, start + layout.seq_end_offset()) != 0;
    let statuses = start + layout.status_offset();
    let statuses = &image[statuses..statuses + layout.fields().len()];
    Some(written || statuses.iter().all(|status| status & 2 != 0))
}

fn open(
    segment: &HeapSegment,
    sound: &Sound,
    options: Options,
    told: bool,
    reading: Reading,
) -> Result<Handle, OpenError> {
    let schema = told.then(|| sound.schema());
    if sound.is_fifo() {
        let slots = told.then(|| sound.layout.slots());
        let opened = segment.fifo_dynamic(schema, slots, options.reading(reading));
        return opened.map(|fifo| Handle::Fifo(fifo, reading));
    }
    segment.store_dynamic(schema, options).map(Handle::Store)
}

/// Opens a damaged segment by several handles, damages it once more, and uses
/// it.
fn use_image(
    sound: &Sound,
    before: &[Damage],
    after: &[Damage],
    random: &mut Random,
    counts: &mut Counts,
) {
    let mut image = sound.image.clone();
    for damage in before {
        damage.apply(&mut image);
    }
    let segment = HeapSegment::from_image(&image);
    let mut handles = Vec::new();
    for _ in 0..=random.below(3) {
        let any_length = random.one_in(4);
        let options = options(random).any_length(any_length);
        let reading = random.pick(&[Reading::Broadcast, Reading::Registered, Reading::Shared]);
        let told = !random.one_in(4);
        let opened = open(&segment, sound, options, told, reading);
        if told
            && (reading == Reading::Broadcast || !sound.is_fifo())
            && let Some(is_sound) = is_sound(sound, &image, any_length)
        {
            assert_eq!(opened.is_ok(), is_sound, "{:?}", opened.err());
        }
        // A damaged trailer may tell other fields or slots.
        handles.extend(counts.opened(opened).filter(|handle| match handle {
            Handle::Store(store) => store.schema() == sound.schema(),
            Handle::Fifo(fifo, _) => {
                fifo.schema() == sound.schema() && fifo.capacity() == sound.layout.slots()
            }
        }));
    }
    if random.one_in(8) {
        // As something that it is not.
        let other = ["q: int64[2,2]", "n: int, t: str[9], b: bool", SMALL, WIDE];
        let other: Schema = random.pick(&other).parse().expect("a schema");
        let slots = random.pick(&[2, 3, 4, u64::MAX >> 40]);
        let options = options(random);
        let as_store = segment.store_dynamic(Some(&other), options);
        let as_fifo = segment.fifo_dynamic(Some(&other), Some(slots), options);
        if let Some(mut store) = counts.opened(as_store) {
            let _ = counts.read(store.read(NOW));
        }
        // By what it says itself.
        let _ = counts.opened(segment.store_dynamic(None, options));
        let _ = counts.opened(segment.fifo_dynamic(None, None, options));
        let refused = matches!(as_fifo, Err(OpenError::Layout { .. }));
        if !refused && let Some(mut fifo) = counts.opened(as_fifo) {
            let _ = counts.read(fifo.read(NOW));
        }
    }
    if handles.is_empty() {
        return;
    }
    // What was cut lacks places to store to.
    let after = if image.len() < sound.image.len() {
        &[]
    } else {
        after
    };
    for damage in after {
        damage.poke(&segment);
    }
    let footer = image
        .len()
        .checked_sub(FOOTER_SIZE)
        .and_then(|at| Footer::read(&image[at..]));
    let native = footer.map(|footer| {
        NativeLayout::from_footer(&sound.layout, &footer, image.len() as u64)
            .expect("it was opened")
    });
    let mut it = Use {
        sound,
        native,
        segment: &segment,
        random,
        counts,
    };
    for _ in 0..3 {
        for handle in &mut handles {
            for _ in 0..2 {
                it.anything(handle);
            }
        }
        // In between, more of it.
        if let Some(damage) = after.first()
            && it.random.one_in(4)
        {
            damage.poke(&segment);
        }
    }
    if let Some(handle) = handles.pop() {
        drop(handles);
        it.after_all(handle);
    }
}

/// Runs one case; a panic says which.
struct Runner {
    progress: Arc<AtomicU64>,
    now: Arc<StdMutex<String>>,
    counts: Counts,
    slowest: (Duration, String),
}

impl Runner {
    fn new() -> Self {
        let runner = Self {
            progress: Arc::default(),
            now: Arc::default(),
            counts: Counts::default(),
            slowest: (Duration::ZERO, String::new()),
        };
        watch(&runner.progress, &runner.now);
        runner
    }

    fn run(&mut self, what: impl Fn() -> String, case: impl FnOnce(&mut Counts)) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.counts.add("images");
        if let Ok(mut now) = self.now.lock() {
            *now = what();
        }
        let start = Instant::now();
        let counts = &mut self.counts;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(counts))) {
            eprintln!("a panic at {}", what());
            std::panic::resume_unwind(panic);
        }
        let took = start.elapsed();
        if took > self.slowest.0 {
            self.slowest = (took, what());
        }
    }

    fn images(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

fn damaged_images(runner: &mut Runner, sound: &[Sound], wanted: u64) -> u64 {
    let mut random = Random(8);
    for sound in sound {
        let what = || format!("{}, unchanged", sound.what);
        runner.run(what, |counts| {
            use_image(sound, &[], &[], &mut random, counts);
        });
    }
    // Every word in each state at its edges and every length, before the segment
    // is opened and after; or, in few images, as many of them, evenly.
    let words: Vec<_> = sound.iter().map(Sound::words).collect();
    let both = || sound.iter().zip(&words);
    let all: usize = both()
        .map(|(sound, words)| singles(sound, words))
        .sum::<usize>()
        * 2;
    let step = (all as u64 * 2).div_ceil(wanted.max(1)).max(1) as usize;
    let mut at = 0;
    for (sound, words) in both() {
        let own = singles(sound, words) * 2;
        while at < own {
            let seed = random.next() | 1;
            let damage = single(sound, words, at / 2);
            let late = at % 2 == 1;
            let what = || format!("{}, {damage:?}, late {late}, seed {seed}", sound.what);
            runner.run(what, |counts| {
                let (before, after) = if late {
                    (&[][..], &damage[..])
                } else {
                    (&damage[..], &[][..])
                };
                use_image(sound, before, after, &mut Random(seed), counts);
            });
            at += step;
        }
        at -= own;
    }
    let systematic = runner.images();
    while runner.images() < wanted.max(systematic) {
        let which = random.below(sound.len());
        let (sound, words) = (&sound[which], &words[which]);
        let seed = random.next() | 1;
        let what = || format!("{}, several changes, seed {seed}", sound.what);
        let mut random = Random(seed);
        let late = several(sound, words, &mut random);
        let early = if random.one_in(2) {
            several(sound, words, &mut random)
        } else {
            Vec::new()
        };
        runner.run(what, |counts| {
            use_image(sound, &early, &late, &mut random, counts);
        });
    }
    systematic
}

// While others store.

/// One thread writes, one stores anything anywhere but in the records, their
/// numbers and what tells what is committed, and one reads: each record is whole,
/// and they are in order.
fn live_around_records(sound: &Sound, seed: u64, reads: usize, counts: &mut Counts) {
    let segment = HeapSegment::from_image(&sound.image);
    let mut random = Random(seed);
    let options = Options::new().lock_timeout(Duration::from_micros(200));
    let native = sound.native.as_ref().expect("there is a trailer");
    // Sequence words and values are what is watched.
    let mut places: Vec<Place> = Vec::new();
    let writer_line = native.writer_line();
    places.extend([
        (writer_line, 8),
        (writer_line + 16, 8),
        (writer_line + 24, 8),
        (writer_line + 32, 8),
        (writer_line + 40, 8),
    ]);
    places.extend([0, 4, 8, 12, 16].map(|at| (native.reader_line() + at, 4)));
    if sound.is_fifo() {
        places.extend([(offset::READ_IDX, 8), (offset::COUNT, 8)]);
        for cursor in 0..3 {
            let at = native.cursor(cursor);
            places.extend([(at, 8), (at + 8, 4), (at + 12, 4)]);
        }
    } else {
        let fields = sound.layout.fields().len();
        places.extend((0..3 + fields).map(|at| (native.changes() + 8 * at, 8)));
    }
    let schema = sound.schema();
    let open = || open(&segment, sound, options, true, Reading::Broadcast).expect("it is sound");
    let (mut writer, mut reader) = (open(), open());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (segment, over) = (&segment, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let place = random.pick(&places);
                Damage::word(sound, place, random.below(EDGES)).poke(segment);
                // A lock that nobody holds is nobody's for ever.
                segment.poke(place.0, &vec![0; place.1]);
            }
        });
        let writing = scope.spawn(move || {
            let mut counts = Counts::default();
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let values = record(schema, number + 1);
                let written = match &mut writer {
                    Handle::Store(store) => counts.written(store.write(values)),
                    Handle::Fifo(fifo, _) => counts.written(fifo.push(values)),
                };
                number += u64::from(written.is_some());
            }
            (number, counts)
        });
        let mut last = 0;
        for _ in 0..reads {
            let timeout = Duration::from_micros(20);
            let number = match &mut reader {
                Handle::Store(store) => {
                    let read = counts.read(store.read_new(timeout));
                    read.map(|record| number_of(&record))
                }
                Handle::Fifo(fifo, _) => {
                    counts.read(fifo.read(timeout)).map(|item| number_of(&item))
                }
            };
            if let Some(number) = number {
                assert!(number > last, "{number} after {last}");
                last = number;
            }
        }
        over.store(true, Ordering::Relaxed);
        let (written, of_writer) = writing.join().expect("it does not panic");
        assert!(last <= written);
        for (outcome, count) in of_writer.0 {
            *counts.0.entry(outcome).or_default() += count;
        }
    });
}

/// Everything is stored to while it is read and written.
fn live_in_records(sound: &Sound, words: &[Place], seed: u64, rounds: usize, counts: &mut Counts) {
    let segment = HeapSegment::from_image(&sound.image);
    let mut random = Random(seed);
    let mut handles: Vec<_> = (0..2)
        .filter_map(|_| {
            let options = options(&mut random);
            let reading = random.pick(&[Reading::Broadcast, Reading::Registered, Reading::Shared]);
            counts.opened(open(&segment, sound, options, true, reading))
        })
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (segment, over) = (&segment, &over);
        let mut pokes = Random(random.next() | 1);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for damage in several(sound, words, &mut pokes) {
                    damage.poke(segment);
                }
                if pokes.one_in(4) {
                    // In order for a while.
                    segment.poke(0, &sound.image);
                }
            }
        });
        for _ in 0..rounds {
            let timeout = Duration::from_micros(random.next() % 50);
            let values = record(sound.schema(), random.next());
            for handle in &mut handles {
                match handle {
                    Handle::Store(store) => {
                        if let Some(seen) = counts.read(store.read(timeout)) {
                            judge_texts(&seen);
                        }
                        let _ = counts.read(store.read_new(timeout));
                        counts.written(store.write(&values));
                        counts.written(store.repair());
                        counts.written(store.reset_modified());
                    }
                    Handle::Fifo(fifo, _) => {
                        if let Some(item) = counts.read(fifo.read(timeout)) {
                            judge_texts(&item);
                        }
                        let _ = counts.read(fifo.read_latest(timeout));
                        counts.written(fifo.push(&values));
                        counts.written(fifo.stage(&values));
                        counts.written(fifo.finalize());
                        counts.written(fifo.republish());
                        counts.written(fifo.drain(NOW));
                        assert!(fifo.unread() <= fifo.capacity());
                    }
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Texts end in their fields.
fn judge_texts(fields: &DynamicFields) {
    for field in fields {
        if let (FieldType::Text { max_chars }, Some(text)) = (field.field_type(), field.text()) {
            assert!(text.len() <= 4 * *max_chars as usize);
        }
    }
}

fn live(runner: &mut Runner, sound: &[Sound], rounds: u64) {
    let mut random = Random(9);
    let words: Vec<_> = sound.iter().map(Sound::words).collect();
    let fresh: Vec<_> = sound
        .iter()
        .filter(|sound| sound.native.is_some() && sound.what.ends_with("fresh"))
        .collect();
    for round in 0..rounds {
        let seed = random.next() | 1;
        if round % 2 == 0 {
            let sound = random.pick(&fresh);
            let what = || format!("live, around the records, {}, seed {seed}", sound.what);
            runner.run(what, |counts| {
                live_around_records(sound, seed, 300, counts);
            });
        } else {
            let which = random.below(sound.len());
            let (sound, words) = (&sound[which], &words[which]);
            let what = || format!("live, in the records, {}, seed {seed}", sound.what);
            runner.run(what, |counts| {
                live_in_records(sound, words, seed, 50, counts);
            });
        }
    }
}

// With names.

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/{name}"))
}

/// Opens a damaged segment by its name, where also its length and its creator
/// are judged, and stores to it while it is used.
fn use_named(
    name: &str,
    image: &[u8],
    (sound, words): (&Sound, &[Place]),
    random: &mut Random,
    counts: &mut Counts,
) {
    let _ = fs::remove_file(path(name));
    fs::write(path(name), image).expect("it can be written");
    let unlink = random.pick(&[OnUnlink::Restore, OnUnlink::Report, OnUnlink::Ignore]);
    let mut handles: Vec<_> = (0..2)
        .filter_map(|_| {
            let options = options(random).on_unlink(unlink);
            let reading = random.pick(&[Reading::Broadcast, Reading::Registered, Reading::Shared]);
            let opened = if sound.is_fifo() {
                let options = options.reading(reading);
                let slots = sound.layout.slots();
                SlotFifo::open_dynamic(name, sound.schema(), slots, options)
                    .map(|fifo| Handle::Fifo(fifo, reading))
            } else {
                SlotStore::open_dynamic(name, sound.schema(), options).map(Handle::Store)
            };
            counts.opened(opened)
        })
        .collect();
    let file = File::options()
        .write(true)
        .open(path(name))
        .expect("it is there");
    for _ in 0..4 {
        for damage in several(sound, words, random) {
            // Within what is mapped: to cut it would end in a SIGBUS, which no
            // program on Linux can be spared.
            if let Damage::Store(at, bytes) = damage {
                let bytes = &bytes[..bytes.len().min(image.len().saturating_sub(at))];
                file.write_all_at(bytes, at as u64)
                    .expect("it can be written");
            }
        }
        if random.one_in(16) {
            let _ = fs::remove_file(path(name));
        }
        let timeout = Duration::from_micros(random.next() % 200);
        let values = record(sound.schema(), random.next());
        for handle in &mut handles {
            let state = match handle {
                Handle::Store(store) => {
                    counts.written(store.write(&values));
                    if let Some(seen) = counts.read(store.read(timeout)) {
                        judge_texts(&seen);
                    }
                    let _ = counts.read(store.read_new(timeout));
                    store.check_name()
                }
                Handle::Fifo(fifo, _) => {
                    counts.written(fifo.push(&values));
                    if let Some(item) = counts.read(fifo.read(timeout)) {
                        judge_texts(&item);
                    }
                    fifo.check_name()
                }
            };
            state.expect("the system does not refuse");
        }
    }
}

fn named(runner: &mut Runner, sound: &[Sound], wanted: u64) {
    let name = Name::new("hostile");
    let words: Vec<_> = sound.iter().map(Sound::words).collect();
    let mut random = Random(10);
    for _ in 0..wanted {
        let which = random.below(sound.len());
        let (sound, words) = (&sound[which], &words[which]);
        let seed = random.next() | 1;
        let what = || format!("named, {}, seed {seed}", sound.what);
        let mut random = Random(seed);
        let mut image = sound.image.clone();
        if !random.one_in(4) {
            for damage in several(sound, words, &mut random) {
                damage.apply(&mut image);
            }
        }
        if random.one_in(16) {
            let len = random.pick(&sound.lengths());
            Damage::Length(len).apply(&mut image);
        }
        runner.run(what, |counts| {
            use_named(&name, &image, (sound, words), &mut random, counts);
        });
    }
}

#[test]
fn damaged_segments_end_in_whole_records_or_errors() {
    let mut runner = Runner::new();
    let sound = sound_segments();
    let wanted = images_wanted();
    let systematic = damaged_images(&mut runner, &sound, wanted);
    let images = runner.images();
    let damaged = runner.take_counts();
    println!("{images} images ({systematic} systematic): {:?}", damaged.0);
    live(&mut runner, &sound, (wanted / 500).max(100));
    let live = runner.take_counts();
    println!("live: {:?}", live.0);
    named(&mut runner, &sound, (wanted / 400).max(200));
    let named = runner.take_counts();
    println!("named: {:?}", named.0);
    println!("slowest: {:?} at {}", runner.slowest.0, runner.slowest.1);
    // The mutations reach all the code: each outcome occurs.
    damaged.all_occur(&[
        "opened",
        "open: not ready",
        "open: no schema",
        "open: another length",
        "open: too few slots",
        "open: needs the trailer",
        "open: busy",
        "open: too short",
        "open: another version",
        "open: check sum",
        "open: flags",
        "open: sizes",
        "open: offset",
        "open: schema hash",
        "open: another schema",
        "open: another number of slots",
        "read: a record",
        "read: timeout",
        "read: busy",
        "tried: a record",
        "tried: nothing",
        "written",
        "write: busy",
        "write: full",
        "drained",
        "not drained",
        "a record after all",
        "an item after all",
    ]);
    live.all_occur(&[
        "read: a record",
        "read: timeout",
        "read: busy",
        "written",
        "write: busy",
    ]);
    named.all_occur(&[
        "opened",
        "read: a record",
        "read: timeout",
        "read: busy",
        "read: unlinked",
        "written",
        "write: busy",
    ]);
    if wanted >= MANY {
        damaged.all_occur(&[
            "open: schema damaged",
            "open: schema no text",
            "read: the writer died",
        ]);
        named.all_occur(&[
            "open: not ready",
            "open: another length",
            "open: too short",
            "open: check sum",
            "write: full",
        ]);
    }
    polyshm_testkit::report(
        "slots-hostile.json",
        &serde_json::json!({
            "images": images,
            "systematic": systematic,
            "outcomes": damaged.0,
            "live": live.0,
            "named": named.0,
            "slowest": { "milliseconds": runner.slowest.0.as_millis() as u64, "at": runner.slowest.1 },
        }),
    );
}

/// A length is no more than a number: an object that claims to be ours and has
/// not its pages would end whoever touches them.
#[test]
fn a_hollow_object_is_refused() {
    let schema: Schema = SMALL.parse().expect("a schema");
    let name = Name::new("hollow");
    for slots in [1, 2000] {
        let layout = Layout::new(&schema, slots).expect("small");
        let native = NativeLayout::new(&layout, PAGE, true).expect("small");
        let file = File::create(path(&name)).expect("it can be made");
        file.set_len(native.object_len()).expect("it can be long");
        let footer = native.footer(&layout, 0).to_bytes();
        let text = schema.to_string();
        file.write_all_at(text.as_bytes(), native.schema_text() as u64)
            .expect("it is written");
        file.write_all_at(&footer, native.footer_offset() as u64)
            .expect("it is written");
        let opened = if slots == 1 {
            SlotStore::open_dynamic(&name, &schema, Options::new()).err()
        } else {
            SlotFifo::open_dynamic(&name, &schema, slots, Options::new()).err()
        };
        // Of one page all of it is there.
        if native.object_len() > PAGE {
            let Some(OpenError::Mismatch { source, .. }) = &opened else {
                panic!("{opened:?}");
            };
            assert!(matches!(source, ImageError::TooShort { .. }), "{source:?}");
        }
    }
}
