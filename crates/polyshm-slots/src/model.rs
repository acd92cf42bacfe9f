//! The shipped store and FIFO under loom, against each other and against peers
//! that store and load in the original's order.
//!
//! Loom branches at the later of two accesses, and forgets a thread's load of a
//! word once the storing thread has loaded it too. So the thread that looks is
//! always the spawned one, which runs last where nothing is forced; the other
//! way round a model explores one execution and proves nothing. [`model`]
//! counts them.

#![expect(clippy::cast_sign_loss, reason = "values are numbers of writes")]

use crate::{
    Dynamic, Item, OnFull, Options, Reading, Schema, SlotFifo, SlotStore, Snapshot, Values,
    native::Native, slots::Slots, testing::HeapSegment,
};
use loom::thread;
use polyshm_platform::{
    Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::slots::{Layout, NativeLayout};
use std::sync::{Arc, atomic::AtomicU64};

/// Explores every interleaving with at most `preemptions` forced switches; the
/// whole space is beyond reach, and bugs need few.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 50_000;
    builder.preemption_bound = Some(preemptions);
    let executions = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        check();
    });
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 5, "only {executions} executions were explored");
}

/// Two values that are always written together.
fn schema() -> Schema {
    "a: float, b: float".parse().unwrap()
}

fn both(value: u64) -> Values {
    let value = value as f64;
    Values::new().with("a", value).with("b", value)
}

/// Where things are in a slot of that schema.
const STATUSES: usize = 8;
const A: usize = 16;
const B: usize = 24;
const END: usize = 32;
const FIRST_SLOT: usize = 24;
const SLOT: usize = 40;

fn plain() -> Options {
    Options::new().trailer(false)
}

fn single(options: Options) -> HeapSegment {
    HeapSegment::new(&schema(), 1, options).unwrap()
}

fn store(segment: &HeapSegment) -> SlotStore<Dynamic> {
    segment
        .store_dynamic(Some(&schema()), Options::new())
        .unwrap()
}

fn word(segment: &HeapSegment, at: usize) -> Word64 {
    segment.0.word64(at).unwrap()
}

/// The value of a record, which must be whole; `None` when it was never written
/// or is lost.
fn whole(snapshot: &Snapshot<Dynamic>) -> Option<u64> {
    let [a, b] = ["a", "b"].map(|name| snapshot.get(name).unwrap());
    assert_eq!(a.status(), b.status(), "statuses of two records");
    if a.is_unwritten() {
        return None;
    }
    assert_eq!(a.as_f64(), b.as_f64(), "torn");
    a.as_f64().map(|value| value as u64)
}

/// Reads so often, and once more; what was read, in order.
fn read(
    mut reader: SlotStore<Dynamic>,
    times: usize,
) -> (SlotStore<Dynamic>, Vec<Snapshot<Dynamic>>) {
    let seen = (0..times).filter_map(|_| reader.try_read_new()).collect();
    (reader, seen)
}

/// Every record is whole, has its number, and comes once.
fn check_order(seen: &[Snapshot<Dynamic>]) {
    for snapshot in seen {
        assert_eq!(whole(snapshot), Some(snapshot.number()));
    }
    assert!(
        seen.windows(2)
            .all(|pair| pair[0].number() < pair[1].number())
    );
}

#[test]
fn records_are_whole_and_in_order() {
    for options in [plain(), Options::new()] {
        model(2, move || {
            let segment = single(options);
            let (mut writer, reader) = (store(&segment), store(&segment));
            let reading = thread::spawn(move || read(reader, 2));
            for value in 1..=2 {
                writer.write(both(value)).unwrap();
            }
            let (reader, mut seen) = reading.join().unwrap();
            let (mut reader, last) = read(reader, 1);
            seen.extend(last);
            check_order(&seen);
            assert_eq!(seen.last().map(Snapshot::number), Some(2));
            assert!(reader.try_read_new().is_none(), "delivered twice");
        });
    }
}

/// A reader that loads `seq_begin` first and `seq_end` last, as the original
/// does, on a machine that keeps loads in order.
fn read_begin_first(segment: &HeapSegment) -> Option<[u64; 3]> {
    let load = |at| word(segment, at).load(Ordering::Acquire);
    let begin = load(0);
    let record = [load(STATUSES), load(A), load(B)];
    (load(END) == begin).then_some(record)
}

#[test]
fn a_reader_of_the_originals_order_never_gets_half_a_record() {
    model(2, || {
        let segment = single(plain());
        let mut writer = store(&segment);
        let foreign = segment.clone();
        writer.write(both(1)).unwrap();
        let reading = thread::spawn(move || {
            if let Some([statuses, a, b]) = read_begin_first(&foreign) {
                assert_eq!(a, b, "torn");
                assert_eq!(statuses, 0x0404, "a status of the time between");
            }
        });
        for value in 2..=3 {
            writer.write(both(value)).unwrap();
        }
        reading.join().unwrap();
    });
}

/// A write in the original's order, on a machine that keeps stores in order.
fn write_plainly(segment: &HeapSegment, value: u64) {
    let store = |at, value| word(segment, at).store(value, Ordering::Release);
    let number = word(segment, 0).load(Ordering::Relaxed) + 1;
    store(0, number);
    store(A, (value as f64).to_bits());
    store(STATUSES, u64::from_le_bytes([4, 2, 0, 0, 0, 0, 0, 0]));
    store(B, (value as f64).to_bits());
    store(STATUSES, u64::from_le_bytes([4, 4, 0, 0, 0, 0, 0, 0]));
    store(END, number);
}

#[test]
fn a_writer_of_the_originals_order_is_read_whole() {
    for options in [plain(), Options::new()] {
        model(2, move || {
            let segment = single(options);
            let reader = store(&segment);
            let reading = thread::spawn(move || read(reader, 3));
            for value in 1..=2 {
                write_plainly(&segment, value);
            }
            let (reader, mut seen) = reading.join().unwrap();
            seen.extend(read(reader, 1).1);
            check_order(&seen);
        });
    }
}

#[test]
fn writers_take_turns() {
    model(2, || {
        let segment = single(Options::new());
        let (mut one, mut two) = (store(&segment), store(&segment));
        let writing = thread::spawn(move || one.write(both(1)).unwrap());
        let second = two.write(both(2)).unwrap();
        let first = writing.join().unwrap();
        assert_eq!(first + second, 3, "each write has a number of its own");
        let seen = store(&segment).try_read().unwrap();
        let last = if first > second { 1 } else { 2 };
        assert_eq!((whole(&seen), seen.number()), (Some(last), 2));
        // Counted before the numbers were given.
        assert!(seen.is_exact());
        assert_eq!(seen.get("a").unwrap().changes(), 2);
    });
}

/// A mark of a process that cannot be: the highest pid there is.
const DEAD: u64 = 1 << 32 | 0x003F_FFFF;

fn native(segment: &HeapSegment, slots: u64) -> Native {
    let layout = Layout::new(&schema(), slots).unwrap();
    let places = NativeLayout::new(&layout, 4096, true).unwrap();
    Native::new(&segment.0, &layout, &places).unwrap()
}

/// The writers' lock of a segment with one slot.
fn lock_word(segment: &HeapSegment) -> Word64 {
    let layout = Layout::new(&schema(), 1).unwrap();
    let places = NativeLayout::new(&layout, 4096, true).unwrap();
    word(segment, places.writer_line())
}

#[test]
fn one_of_two_takes_a_dead_writers_lock() {
    model(2, || {
        let segment = single(Options::new());
        lock_word(&segment).store(DEAD, Ordering::Relaxed);
        let (mut one, mut two) = (store(&segment), store(&segment));
        let writing = thread::spawn(move || one.write(both(1)).unwrap());
        let second = two.write(both(2)).unwrap();
        let first = writing.join().unwrap();
        assert_eq!(first + second, 3);
        assert_eq!(lock_word(&segment).load(Ordering::Relaxed), 0);
    });
}

/// The first steps of write 2 as [`Slots::write`] makes them, by a writer that
/// goes no further: loom cannot stop one half-way.
fn die(segment: &HeapSegment, options: Options, steps: u32) {
    let store = |at, value| word(segment, at).store(value, Ordering::Relaxed);
    let number = 2;
    if options.trailer {
        native(segment, 1).announce(0b11);
    }
    if steps > 0 {
        store(END, number ^ (1 << 62));
    }
    if steps > 1 {
        store(0, number ^ (1 << 63));
        fence(Ordering::Release);
    }
    if steps > 2 {
        store(A, 99f64.to_bits());
    }
    if steps > 3 {
        store(B, 99f64.to_bits());
        word(segment, END).store(number, Ordering::Release);
    }
}

#[test]
fn half_a_record_of_a_dead_writer_is_never_read() {
    for options in [plain(), Options::new()] {
        for steps in 0..5 {
            model(2, move || {
                let segment = single(options);
                let (mut next, reader) = (store(&segment), store(&segment));
                next.write(both(1)).unwrap();
                let reading = thread::spawn(move || read(reader, 1));
                die(&segment, options, steps);
                next.write(Values::new().with("a", 3.0)).unwrap();
                let (reader, mut seen) = reading.join().unwrap();
                seen.extend(read(reader, 1).1);
                for snapshot in &seen {
                    let [a, b] = ["a", "b"].map(|name| snapshot.get(name).unwrap());
                    let values = [a, b].map(|field| field.valid().and(field.as_f64()));
                    let right = match values {
                        [Some(1.0), Some(1.0)] => true,
                        // The dead one's, if only its last store was missing.
                        [Some(99.0 | 3.0), Some(99.0)] => steps == 4,
                        [Some(3.0), Some(1.0)] => steps < 2,
                        // Lost, and said to be.
                        [Some(3.0) | None, None] => (2..4).contains(&steps),
                        _ => false,
                    };
                    assert!(right, "{steps}: {snapshot:?}");
                }
                let last = seen.last().unwrap();
                assert_eq!(last.get("a").unwrap().as_f64(), Some(3.0));
            });
        }
    }
}

#[test]
fn a_record_in_a_buffer_is_whole_and_current() {
    model(2, || {
        let segment = single(Options::new());
        let (mut writer, reader) = (store(&segment), store(&segment));
        let asking = native(&segment, 1);
        writer.write(both(1)).unwrap();
        asking.ask();
        writer.write(both(2)).unwrap();
        // From now on the slot itself is always under way.
        let layout = Layout::new(&schema(), 1).unwrap();
        let looking = thread::spawn(move || {
            let mut reader = reader;
            for _ in 0..3 {
                if let Some(seen) = reader.try_read() {
                    assert_eq!(whole(&seen), Some(seen.number()));
                    assert!(seen.number() >= 2, "not what was current before");
                }
            }
        });
        let public = Slots::new(&segment.0, &layout, 0, 1).unwrap();
        asking.refresh(&public, 2);
        asking.ask();
        writer.write(both(3)).unwrap();
        looking.join().unwrap();
    });
}

#[test]
fn a_buffer_gives_back_what_a_dead_writer_destroyed() {
    model(2, move || {
        let segment = single(Options::new());
        let (mut next, reader) = (store(&segment), store(&segment));
        native(&segment, 1).ask();
        next.write(both(1)).unwrap();
        let reading = thread::spawn(move || read(reader, 1));
        die(&segment, Options::new(), 3);
        assert!(next.repair().unwrap());
        let (reader, mut seen) = reading.join().unwrap();
        let (_, last) = read(reader, 1);
        seen.extend(last);
        // Under a number of its own, which nobody has seen.
        for snapshot in &seen {
            assert_eq!(whole(snapshot), Some(1));
        }
        assert_eq!(seen.last().map(Snapshot::number), Some(2));
        assert!(!seen.last().unwrap().get("a").unwrap().is_modified());
    });
}

#[test]
fn no_sleeper_is_missed() {
    model(2, || {
        let segment = single(Options::new());
        let (mut writer, mut reader) = (store(&segment), store(&segment));
        let bells = native(&segment, 1);
        let waiting =
            thread::spawn(move || bells.news.is_never_missed(move || reader.try_read_new()));
        writer.write(both(1)).unwrap();
        let is_never_missed = waiting.join().unwrap();
        assert!(is_never_missed(), "it would sleep on");
    });
}

fn fifo(segment: &HeapSegment, options: Options) -> SlotFifo<Dynamic> {
    segment
        .fifo_dynamic(Some(&schema()), Some(2), options)
        .unwrap()
}

fn ring(options: Options) -> HeapSegment {
    HeapSegment::new(&schema(), 2, options).unwrap()
}

/// The value of an item, which must be whole and be its own.
fn item(item: &Item<Dynamic>) -> u64 {
    let [a, b] = ["a", "b"].map(|name| item.get(name).unwrap().as_f64());
    assert_eq!(a, b, "torn");
    assert_eq!(a, Some(item.index() as f64), "another item's");
    item.index()
}

/// Takes so often; the indices, and how many were lost between them.
fn take(mut reader: SlotFifo<Dynamic>, times: usize) -> (SlotFifo<Dynamic>, Vec<u64>, u64) {
    let mut lost = 0;
    let taken = (0..times)
        .filter_map(|_| reader.try_read())
        .map(|taken| {
            lost += taken.overrun();
            item(&taken)
        })
        .collect();
    (reader, taken, lost)
}

#[test]
fn a_broadcast_reader_gets_or_counts_every_item() {
    for options in [plain(), Options::new()] {
        model(2, move || {
            let segment = ring(options);
            let (mut writer, reader) = (fifo(&segment, options), fifo(&segment, options));
            let reading = thread::spawn(move || take(reader, 1));
            for value in 0..3 {
                writer.push(both(value)).unwrap();
            }
            let (reader, mut taken, mut lost) = reading.join().unwrap();
            let (_, rest, lost_then) = take(reader, 3);
            taken.extend(rest);
            lost += lost_then;
            assert!(taken.is_sorted(), "{taken:?}");
            assert_eq!(taken.len() as u64 + lost, 3, "{taken:?}");
            assert_eq!(taken.last(), Some(&2));
        });
    }
}

#[test]
fn a_registered_reader_loses_nothing() {
    model(2, || {
        let options = Options::new().on_full(OnFull::Refuse);
        let segment = ring(options);
        let mut writer = fifo(&segment, options);
        let reader = fifo(&segment, options.reading(Reading::Registered));
        for value in 0..2 {
            writer.push(both(value)).unwrap();
        }
        let reading = thread::spawn(move || take(reader, 2));
        let mut next = 2;
        for _ in 0..2 {
            match writer.push(both(next)) {
                Ok(_) => next += 1,
                Err(error) => assert!(error.is_full()),
            }
        }
        let (reader, mut taken, lost) = reading.join().unwrap();
        let (_, rest, lost_then) = take(reader, 3);
        taken.extend(rest);
        assert_eq!((taken, lost + lost_then), ((0..next).collect(), 0));
    });
}

#[test]
fn an_item_goes_to_one_consumer_or_is_overwritten() {
    model(2, || {
        let options = Options::new();
        let segment = ring(options);
        let mut writer = fifo(&segment, options);
        let consumer = fifo(&segment, options.reading(Reading::Shared));
        for value in 0..2 {
            writer.push(both(value)).unwrap();
        }
        let reading = thread::spawn(move || take(consumer, 1));
        writer.push(both(2)).unwrap();
        let (consumer, mut taken, _) = reading.join().unwrap();
        taken.extend(take(consumer, 3).1);
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "{taken:?}");
        let overwritten = writer.overwritten().unwrap();
        assert_eq!(taken.len() as u64 + overwritten, 3, "{taken:?}");
    });
}

#[test]
fn two_consumers_share() {
    model(2, || {
        let options = Options::new();
        let segment = ring(options);
        let mut writer = fifo(&segment, options);
        let options = options.reading(Reading::Shared);
        let (one, two) = (fifo(&segment, options), fifo(&segment, options));
        for value in 0..2 {
            writer.push(both(value)).unwrap();
        }
        let taking = thread::spawn(move || take(one, 1).1);
        let (_, mut taken, _) = take(two, 2);
        taken.extend(taking.join().unwrap());
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        // The count is what the original's readers go by.
        assert_eq!(word(&segment, 16).load(Ordering::Relaxed), 0);
    });
}

/// One read in the original's order: it stores all three indices back as it
/// loaded them before it copied.
fn take_plainly(segment: &HeapSegment) -> Option<u64> {
    let load = |at| word(segment, at).load(Ordering::Acquire);
    let store = |at, value| word(segment, at).store(value, Ordering::Release);
    let (write, read, count) = (load(0), load(8), load(16));
    if count == 0 {
        return None;
    }
    let slot = FIRST_SLOT + SLOT * (read % 2) as usize;
    let begin = load(slot);
    let (a, b) = (load(slot + A), load(slot + B));
    if load(slot + END) != begin {
        return None;
    }
    assert_eq!(a, b, "torn");
    store(0, write);
    store(8, read + 1);
    store(16, count - 1);
    Some(f64::from_bits(a) as u64)
}

#[test]
fn a_consumer_of_the_originals_order_gets_every_item_once() {
    for options in [plain(), Options::new()] {
        model(2, move || {
            let options = options.on_full(OnFull::Refuse);
            let segment = ring(options);
            let mut writer = fifo(&segment, options);
            writer.push(both(0)).unwrap();
            let foreign = segment.clone();
            let reading =
                thread::spawn(move || (0..2).filter_map(|_| take_plainly(&foreign)).collect());
            let mut next = 1;
            for _ in 0..2 {
                match writer.push(both(next)) {
                    Ok(_) => next += 1,
                    Err(error) => assert!(error.is_full()),
                }
            }
            let mut taken: Vec<u64> = reading.join().unwrap();
            // What the reader hid comes again.
            writer.republish().unwrap();
            taken.extend((0..3).filter_map(|_| take_plainly(&segment)));
            assert_eq!(taken, (0..next).collect::<Vec<_>>());
        });
    }
}
