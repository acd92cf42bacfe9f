//! What takes several processes: images at full speed, many writers, peers
//! that die, freeze and come back.
#![cfg(target_os = "linux")]

use polyshm_slots::{
    NameState, OnFull, OpenError, Options, ReadError, Reading, Record, Replace, SlotFifo,
    SlotStore, WaitStrategy, WriteError,
};
use polyshm_testkit::{
    Guarded, Name, Outcome, WATCHDOG, child, hear_parent, role, tell, told_to_end, wait_until,
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

fn file_of(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

/// Starts a child in a role, and waits until it is there.
#[track_caller]
fn start(what: &str, name: &str, number: u64) -> Guarded {
    let mut child = child("child_role", &format!("{what} {name} {number}"));
    assert!(child.wait_for_line("ready"), "{what} is not there");
    child
}

fn kill(mut child: Guarded) {
    child.0.kill().expect("it runs");
    child.0.wait().expect("it ends");
}

/// Numbers without a pattern, the same ones each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Runs in the child processes only.
#[test]
fn child_role() {
    let Some(role) = role() else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has three words");
    let (what, name) = (word(), word());
    let number = word().parse().expect("a number");
    match what {
        "image-writer" => image_writer(name),
        "image-reader" => image_reader(name),
        "echo" => echo(name, number),
        "ticker" => ticker(name),
        "partial-writer" => partial_writer(name, number),
        "item-writer" => item_writer(name, number),
        "consumer" => consumer(name),
        "registered" => registered(name, number),
        "mortal-writer" => mortal_writer(name, number),
        "mortal-pusher" => mortal_pusher(name, number),
        "creator" => creator(name, number),
        "holder" => holder(name),
        other => panic!("no role {other}"),
    }
}

// Images at full speed.

#[derive(Record)]
struct Image {
    frame_id: i32,
    timestamp: f64,
    #[record("uint8[480,640,3]")]
    pixels: Vec<u8>,
}

const fn shade(frame: i32) -> u8 {
    (frame.cast_unsigned().wrapping_mul(101) % 256) as u8
}

fn image(frame: i32) -> Image {
    Image {
        frame_id: frame,
        timestamp: f64::from(frame) * 0.5,
        pixels: vec![shade(frame); 480 * 640 * 3],
    }
}

/// Whether all of it is of one frame: each byte is as its neighbour.
#[expect(clippy::float_cmp, reason = "both are exact")]
fn is_whole(seen: &ImageFields) -> bool {
    let pixels = seen.pixels.value();
    pixels[0] == shade(*seen.frame_id)
        && pixels[1..] == pixels[..pixels.len() - 1]
        && *seen.timestamp == f64::from(*seen.frame_id) * 0.5
}

/// Writes as fast as it can until told to end; tells how many images.
fn image_writer(name: &str) {
    let mut store = SlotStore::<Image>::open(name).expect("it is there");
    let end = told_to_end();
    tell("ready");
    let mut frames: Vec<Image> = (1..=7).map(image).collect();
    let mut frame = 0_i32;
    while !end.load(Relaxed) {
        frame += 1;
        let next = &mut frames[frame.cast_unsigned() as usize % 7];
        next.frame_id = frame;
        next.timestamp = f64::from(frame) * 0.5;
        next.pixels.fill(shade(frame));
        store.write(&*next).expect("nobody else writes");
    }
    tell(&format!("written {frame}"));
}

/// Reads new images until told to end; tells how many.
fn image_reader(name: &str) {
    let mut store = SlotStore::<Image>::open(name).expect("it is there");
    let end = told_to_end();
    tell("ready");
    let mut snapshot = store.empty();
    let (mut read, mut busy, mut torn, mut last) = (0, 0, 0, 0);
    while !end.load(Relaxed) {
        match store.read_new_into(&mut snapshot, Duration::from_millis(100)) {
            Ok(()) => {
                assert!(snapshot.number() > last, "{} again", snapshot.number());
                last = snapshot.number();
                read += 1;
                torn += u64::from(!is_whole(&snapshot));
            }
            Err(error) => {
                assert!(error.is_timeout(), "{error}");
                busy += 1;
            }
        }
    }
    tell(&format!("torn {torn}"));
    tell(&format!("busy {busy}"));
    tell(&format!("read {read}"));
}

/// One measurement; gives how many images were written, and read by each.
fn measure_images(seconds: u64) -> (u64, Vec<u64>) {
    let name = Name::new("slots-images");
    let _store = SlotStore::<Image>::create(&name).expect("the name is free");
    let mut writer = start("image-writer", &name, 0);
    let mut readers: Vec<_> = (0..4).map(|_| start("image-reader", &name, 0)).collect();
    thread::sleep(Duration::from_secs(seconds));
    for child in &mut readers {
        child.say("end");
    }
    let read = readers
        .iter_mut()
        .map(|reader| {
            assert_eq!(reader.hear_number("torn"), 0);
            let busy = reader.hear_number("busy");
            println!("a reader found nothing whole in 100 ms {busy} times");
            reader.hear_number("read")
        })
        .collect();
    writer.say("end");
    let written = writer.hear_number("written");
    (written, read)
}

#[test]
fn four_readers_of_a_saturated_image_writer_make_progress() {
    const SECONDS: u64 = 5;
    // A machine with much else to do is given another chance: what it takes
    // from one reader alone, no protocol can give back.
    for attempt in 1..=3 {
        let (written, read) = measure_images(SECONDS);
        println!("{written} images written in {SECONDS} s, read: {read:?}");
        assert!(written > 0 && read.iter().all(|&read| read > 0), "{read:?}");
        let wanted = (written / 5).min(60 * SECONDS);
        if read.iter().all(|&read| read >= wanted) {
            return;
        }
        println!("attempt {attempt}: each should read {wanted}");
    }
    panic!("readers starve");
}

// Waking and sleeping.

#[derive(Record)]
struct Tick {
    number: i32,
}

fn blocking() -> Options {
    Options::new().wait_strategy(WaitStrategy::Block)
}

/// How often this thread went to sleep so far, and how long it ran.
fn sleeps() -> (u64, Duration) {
    let of_thread = Path::new("/proc/thread-self");
    let status = fs::read_to_string(of_thread.join("status")).expect("it is readable");
    let sleeps = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
        .and_then(|count| count.trim().parse().ok())
        .expect("Linux counts them");
    // Nanoseconds on a processor come first.
    let schedstat = fs::read_to_string(of_thread.join("schedstat")).unwrap_or_default();
    let ran = schedstat.split(' ').next().and_then(|ran| ran.parse().ok());
    (sleeps, Duration::from_nanos(ran.unwrap_or(0)))
}

fn sleeps_since((slept, ran): (u64, Duration)) -> (u64, Duration) {
    let now = sleeps();
    (now.0 - slept, now.1.saturating_sub(ran))
}

/// Answers each number.
fn echo(name: &str, rounds: u64) {
    let mut there = SlotStore::<Tick>::open_with(name, blocking()).expect("it is there");
    let back = format!("{name}-back");
    let mut back = SlotStore::<Tick>::open_with(&back, blocking()).expect("it is there");
    tell("ready");
    for _ in 0..rounds {
        let seen = there.read_new(WATCHDOG).expect("more come");
        let number = *seen.number;
        back.write(Tick { number }).expect("nobody else writes");
    }
    hear_parent();
}

#[test]
fn a_sleeping_reader_is_woken() {
    const ROUNDS: u64 = 200;
    let name = Name::new("slots-woken");
    let back = Name(format!("{}-back", &*name));
    let mut there = SlotStore::<Tick>::create_with(&name, blocking()).expect("it is free");
    let mut back = SlotStore::<Tick>::create_with(&back, blocking()).expect("it is free");
    // Written once, so that readers know what kind of writer there is.
    for store in [&mut there, &mut back] {
        store.write(Tick { number: 0 }).expect("nobody else writes");
    }
    back.read_new(WATCHDOG).expect("it was written");
    let child = start("echo", &name, ROUNDS + 1);
    back.read_new(WATCHDOG).expect("it echoes the first");
    let began = Instant::now();
    for number in 1..=i32::try_from(ROUNDS).expect("not so many") {
        there.write(Tick { number }).expect("nobody else writes");
        let seen = back.read_new(WATCHDOG).expect("it answers");
        assert_eq!(*seen.number, number);
    }
    let took = began.elapsed();
    println!("{ROUNDS} round trips between sleepers took {took:?}");
    // Both sides sleep 40 ms unless woken, so without it would take 16 s.
    assert!(took < Duration::from_secs(8), "{took:?}: nobody is woken");
    drop(child);
}

#[test]
fn a_waiting_reader_does_not_poll() {
    let name = Name::new("slots-idle");
    let mut store = SlotStore::<Tick>::create_with(&name, blocking()).expect("it is free");
    store.write(Tick { number: 1 }).expect("nobody else writes");
    store.read_new(WATCHDOG).expect("it was written");
    let before = sleeps();
    let nothing = store.read_new(Duration::from_secs(2));
    assert!(nothing.is_err_and(|error| error.is_timeout()));
    let (slept, ran) = sleeps_since(before);
    println!("a reader that waits for 2 s slept {slept} times and ran for {ran:?}");
    // 40 ms each; one that polls each 45 µs sleeps some 20 000 times.
    assert!(slept < 1000, "{slept}");
}

/// Writes a thousand times a second until told to end.
fn ticker(name: &str) {
    let mut store = SlotStore::<Tick>::open(name).expect("it is there");
    let end = told_to_end();
    tell("ready");
    let mut number = 0;
    while !end.load(Relaxed) {
        number += 1;
        store.write(Tick { number }).expect("nobody else writes");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reader_of_a_thousand_records_a_second_sleeps_between_them() {
    let name = Name::new("slots-ticks");
    let mut store = SlotStore::<Tick>::create_with(&name, blocking()).expect("it is free");
    let mut child = start("ticker", &name, 0);
    store.read_new(WATCHDOG).expect("it writes");
    let (before, began) = (sleeps(), Instant::now());
    let mut read = 0;
    while began.elapsed() < Duration::from_secs(2) {
        store.read_new(WATCHDOG).expect("it writes");
        read += 1;
    }
    let (slept, ran) = sleeps_since(before);
    println!("{read} records in 2 s: slept {slept} times, ran for {ran:?}");
    // Once each, and whatever comes between; not every 45 µs.
    assert!(slept < 4 * read + 1000, "{slept} for {read}");
    child.say("end");
    Outcome::of(child);
}

// Several writers.

/// A field for each writer.
#[derive(Record)]
struct Parts {
    #[record("uint64[200]")]
    a: Vec<u64>,
    #[record("uint64[200]")]
    b: Vec<u64>,
    #[record("uint64[5]")]
    c: Vec<u64>,
    #[record("uint64[1]")]
    d: Vec<u64>,
}

const PARTS: u64 = 1500;

/// Writes two fields, each in a thread of its own.
fn partial_writer(name: &str, number: u64) {
    let store = SlotStore::<Parts>::open(name).expect("it is there");
    tell("ready");
    hear_parent();
    thread::scope(|scope| {
        for half in 0..2 {
            let mut store = store.clone();
            scope.spawn(move || {
                for value in 1..=PARTS {
                    let update = Parts::update();
                    let written = match (number, half) {
                        (0, 0) => store.write(update.a(&[value; 200])),
                        (0, _) => store.write(update.b(&[value; 200])),
                        (_, 0) => store.write(update.c(&[value; 5])),
                        (_, _) => store.write(update.d(&[value])),
                    };
                    written.expect("each gets its turn");
                }
            });
        }
    });
    tell("written 4");
}

#[test]
fn no_part_that_one_of_several_writers_writes_is_lost() {
    for trailer in [true, false] {
        let name = Name::new("slots-parts");
        let options = Options::new()
            .trailer(trailer)
            .lock_timeout(Duration::from_secs(30));
        let mut store = SlotStore::<Parts>::create_with(&name, options).expect("it is free");
        let mut writers = [0, 1].map(|number| start("partial-writer", &name, number));
        for writer in &mut writers {
            writer.say("go");
        }
        let mut last = [0; 4];
        let mut changes = [0; 4];
        let (mut read, mut number, mut inexact) = (0, 0, 0);
        let began = Instant::now();
        while number < 4 * PARTS {
            assert!(began.elapsed() < WATCHDOG, "{number}");
            let seen = match store.read_new(Duration::from_millis(100)) {
                Ok(seen) => seen,
                Err(error) => {
                    assert!(error.is_timeout(), "{error}");
                    continue;
                }
            };
            read += 1;
            inexact += u64::from(!seen.is_exact());
            // The first has nothing before it.
            let missed = if number == 0 {
                seen.number() - 1
            } else {
                seen.missed()
            };
            assert_eq!(seen.number() - number, missed + 1);
            number = seen.number();
            let fields = [&seen.a, &seen.b, &seen.c, &seen.d];
            for (index, field) in fields.into_iter().enumerate() {
                let value = field[0];
                assert!(field.iter().all(|&other| other == value), "torn");
                assert!(value >= last[index], "{value} after {}", last[index]);
                assert!(field.is_changed() || value == last[index]);
                last[index] = value;
                changes[index] += field.changes();
            }
        }
        println!("trailer {trailer}: {number} writes, {read} read, {inexact} inexact, {changes:?}");
        assert_eq!((last, number), ([PARTS; 4], 4 * PARTS), "all are there");
        if trailer {
            assert_eq!((changes, inexact), ([PARTS; 4], 0), "all are counted");
        }
        for mut writer in writers {
            assert!(writer.wait_for_line("written 4"));
            Outcome::of(writer);
        }
    }
}

/// Items of several writers.
#[derive(Record)]
struct Entry {
    writer: i32,
    number: i32,
    #[record("uint32[300]")]
    data: Vec<u32>,
}

const ENTRIES: i32 = 1000;

fn entry(writer: i32, number: i32) -> Entry {
    let data = vec![(writer * 100_000 + number).cast_unsigned(); 300];
    Entry {
        writer,
        number,
        data,
    }
}

#[track_caller]
fn check_entry(fields: &EntryFields) -> (i32, i32) {
    let (writer, number) = (*fields.writer, *fields.number);
    assert!(*fields.data == entry(writer, number).data, "torn");
    (writer, number)
}

/// Two threads that push; `blocks` as the parent's FIFO.
fn item_writer(name: &str, number: u64) {
    let on_full = if number >= 10 {
        OnFull::Overwrite
    } else {
        OnFull::Block
    };
    let options = Options::new()
        .on_full(on_full)
        .lock_timeout(Duration::from_secs(30));
    let first = 2 * (number % 10) as i32;
    let fifo = SlotFifo::<Entry>::open_with(name, 8, options).expect("it is there");
    let second = fifo.try_clone().expect("no place is needed");
    tell("ready");
    hear_parent();
    thread::scope(|scope| {
        for (writer, mut fifo) in (first..).zip([fifo, second]) {
            scope.spawn(move || {
                for number in 1..=ENTRIES {
                    fifo.push(entry(writer, number)).expect("there is room");
                }
            });
        }
    });
}

#[test]
fn each_item_of_several_writers_comes_once() {
    for (trailer, reading, kind) in [
        (true, Reading::Registered, 0),
        (true, Reading::Shared, 0),
        (false, Reading::Shared, 0),
        (true, Reading::Broadcast, 10),
        (false, Reading::Broadcast, 10),
    ] {
        let name = Name::new("slots-items");
        let options = Options::new().trailer(trailer).reading(reading);
        let mut fifo = SlotFifo::<Entry>::create_with(&name, 8, options).expect("it is free");
        let mut writers = [0, 1].map(|number| start("item-writer", &name, kind + number));
        for writer in &mut writers {
            writer.say("go");
        }
        let total = 4 * ENTRIES as u64;
        let mut last = BTreeMap::<i32, i32>::new();
        let (mut next, mut delivered, mut overrun) = (0, 0, 0);
        while next < total {
            let item = fifo.read(WATCHDOG).expect("more come");
            let (writer, number) = check_entry(&item);
            let before = last.insert(writer, number).unwrap_or(0);
            assert!(number > before, "{number} after {before}");
            assert_eq!(item.index() - next, item.overrun());
            next = item.index() + 1;
            overrun += item.overrun();
            delivered += 1;
        }
        println!("trailer {trailer}, {reading:?}: {delivered} delivered, {overrun} overrun");
        assert_eq!((delivered + overrun, fifo.finalized()), (total, total));
        assert!(kind == 10 || overrun == 0, "{overrun} of those that wait");
        assert!(fifo.try_read().is_none());
        for writer in writers {
            Outcome::of(writer);
        }
    }
}

/// Takes items until one that says that it is the last.
fn consumer(name: &str) {
    let options = Options::new().reading(Reading::Shared);
    let mut fifo = SlotFifo::<Entry>::open_with(name, 8, options).expect("it is there");
    tell("ready");
    let mut taken = Vec::new();
    loop {
        let item = fifo.read(WATCHDOG).expect("more come");
        let (writer, number) = check_entry(&item);
        if writer == -1 {
            break;
        }
        assert_eq!(item.index() + 1, u64::from(number.cast_unsigned()));
        taken.push(number.to_string());
    }
    tell(&format!("taken {}", taken.join(" ")));
}

#[test]
fn each_item_goes_to_one_of_those_who_share() {
    let name = Name::new("slots-share");
    let options = Options::new().on_full(OnFull::Block);
    let mut fifo = SlotFifo::<Entry>::create_with(&name, 8, options).expect("it is free");
    let mut consumers = [0; 3].map(|_| start("consumer", &name, 0));
    for number in 1..=3 * ENTRIES {
        fifo.push(entry(0, number)).expect("they read");
    }
    for _ in &consumers {
        fifo.push(entry(-1, 0)).expect("they read");
    }
    let mut all = Vec::new();
    for consumer in &mut consumers {
        let line = consumer.hear().expect("it ends");
        let taken = line.strip_prefix("taken").expect("what it took");
        let taken: Vec<i32> = taken
            .split_ascii_whitespace()
            .map(|number| number.parse().expect("a number"))
            .collect();
        assert!(taken.is_sorted(), "in order");
        println!("one took {} of {}", taken.len(), 3 * ENTRIES);
        all.extend(taken);
    }
    all.sort_unstable();
    assert_eq!(all, (1..=3 * ENTRIES).collect::<Vec<_>>());
    assert_eq!(fifo.overwritten(), Some(0));
}

// Those who die.

/// Reads one item, and no more.
fn registered(name: &str, number: u64) {
    let reading = if number == 0 {
        Reading::Registered
    } else {
        Reading::Shared
    };
    let options = Options::new().reading(reading);
    let mut fifo = SlotFifo::<Entry>::open_with(name, 2, options).expect("it is there");
    tell("ready");
    fifo.read(WATCHDOG).expect("it comes");
    tell("read");
    hear_parent();
}

#[test]
fn a_writer_that_waits_for_a_dead_reader_goes_on() {
    for number in [0, 1] {
        let name = Name::new("slots-dead-reader");
        let options = Options::new()
            .on_full(OnFull::Block)
            .full_timeout(Some(WATCHDOG));
        let mut fifo = SlotFifo::<Entry>::create_with(&name, 2, options).expect("it is free");
        let reading = Options::new().reading(Reading::Registered);
        let mut other = SlotFifo::<Entry>::open_with(&name, 2, reading).expect("it is there");
        let mut mortal = start("registered", &name, number);
        fifo.push(entry(0, 1)).expect("there is room");
        assert!(mortal.wait_for_line("read"));
        other.read(WATCHDOG).expect("it was pushed");
        for number in 2..=3 {
            fifo.push(entry(0, number)).expect("there is room");
            other.read(WATCHDOG).expect("it was pushed");
        }
        let mut refusing = SlotFifo::<Entry>::open_with(&name, 2, options.on_full(OnFull::Refuse))
            .expect("it is there");
        let full = refusing.push(entry(0, 4)).expect_err("one is behind");
        assert!(matches!(full, WriteError::Full { .. }), "{full}");
        let waiting = thread::spawn(move || {
            let began = Instant::now();
            fifo.push(entry(0, 4)).expect("the dead do not count");
            (fifo, began.elapsed())
        });
        thread::sleep(Duration::from_millis(50));
        kill(mortal);
        let (mut fifo, took) = waiting.join().expect("it goes on");
        println!("it waited for {took:?}");
        assert!(took >= Duration::from_millis(50), "it did not wait");
        // Whoever lives still counts.
        fifo.push(entry(0, 5)).expect("there is room");
        let full = refusing.push(entry(0, 6)).expect_err("one is behind");
        assert!(full.is_full(), "{full}");
        for index in [3, 4] {
            let item = other.read(WATCHDOG).expect("it was pushed");
            assert_eq!((item.index(), item.overrun()), (index, 0));
        }
    }
}

/// Of which each element tells whose it is.
#[derive(Record)]
struct Page {
    #[record("uint64[1]")]
    tag: Vec<u64>,
    #[record("uint64[6000]")]
    data: Vec<u64>,
}

fn page(tag: u64) -> Page {
    Page {
        tag: vec![tag],
        data: vec![tag; 6000],
    }
}

/// The tag of a page that is whole; `None` when a dead writer destroyed it, or
/// none was ever written.
#[track_caller]
fn check_page(fields: &PageFields) -> Option<u64> {
    let unwritten = (fields.tag.is_unwritten(), fields.data.is_unwritten());
    if unwritten == (true, true) {
        return None;
    }
    assert_eq!(unwritten, (false, false), "both are always written");
    let tag = fields.tag[0];
    assert!(fields.data.iter().all(|&other| other == tag), "torn");
    Some(tag)
}

/// Different ones, made before, so that a writer does nothing but write.
fn pages(generation: u64) -> Vec<Page> {
    (0..7)
        .map(|number| page(generation << 32 | number))
        .collect()
}

/// Writes at full speed until it is killed.
fn mortal_writer(name: &str, generation: u64) {
    let mut store = SlotStore::<Page>::open(name).expect("it is there");
    let pages = pages(generation);
    store.write(&pages[0]).expect("the one before is dead");
    tell("ready");
    for page in pages.iter().cycle() {
        store.write(page).expect("nobody else writes");
    }
}

/// Reads until told to end; gives how many pages were whole, lost, and not
/// there in time.
fn read_pages(mut store: SlotStore<Page>, end: &AtomicBool) -> [u64; 4] {
    const TIMEOUT: Duration = Duration::from_millis(50);
    let [mut whole, mut lost, mut died, mut late] = [0; 4];
    let (mut newest, mut number) = (0, 0);
    while !end.load(Relaxed) {
        let began = Instant::now();
        let result = store.read_new(TIMEOUT);
        let took = began.elapsed();
        assert!(
            took < TIMEOUT + Duration::from_secs(5),
            "a read took {took:?}"
        );
        match result {
            Ok(seen) => {
                assert!(seen.number() > number, "{} again", seen.number());
                number = seen.number();
                match check_page(&seen) {
                    Some(tag) => {
                        let generation = tag >> 32;
                        assert!(generation >= newest, "{generation} after {newest}");
                        newest = generation;
                        whole += 1;
                    }
                    None => lost += 1,
                }
            }
            Err(ReadError::WriterDied { .. }) => died += 1,
            Err(error) => {
                assert!(error.is_timeout(), "{error}");
                late += 1;
            }
        }
    }
    [whole, lost, died, late]
}

#[test]
fn readers_go_on_while_writers_are_killed() {
    const WRITERS: u64 = 60;
    for trailer in [true, false] {
        let name = Name::new("slots-mortal");
        let options = Options::new().trailer(trailer);
        let mut store = SlotStore::<Page>::create_with(&name, options).expect("it is free");
        let end = Arc::new(AtomicBool::new(false));
        let readers = [0; 2].map(|_| {
            let (store, end) = (store.clone(), Arc::clone(&end));
            thread::spawn(move || read_pages(store, &end))
        });
        let mut random = Random(0x5eed);
        let mut half = 0;
        for generation in 1..=WRITERS {
            let writer = start("mortal-writer", &name, generation);
            thread::sleep(Duration::from_micros(random.below(15_000)));
            kill(writer);
            half += u64::from(is_busy(&name));
            if generation % 3 == 0 {
                // As long as readers wait.
                thread::sleep(Duration::from_millis(60));
            }
            match generation % 4 {
                0 => drop(store.repair().expect("the dead one's lock is free")),
                1 => drop(
                    store
                        .write(page(generation << 32 | 0xFFFF_FFFF))
                        .expect("it is free"),
                ),
                _ => {}
            }
        }
        store.write(page(u64::MAX)).expect("it is free");
        end.store(true, Relaxed);
        for reader in readers {
            let [whole, lost, died, late] = reader.join().expect("it never fails");
            println!(
                "trailer {trailer}: {whole} whole, {lost} lost, {died} times dead, {late} times late"
            );
            assert!(whole >= WRITERS / 2, "{whole}");
            assert!(trailer || died == 0, "nobody can tell");
        }
        println!("{half} of {WRITERS} died in the middle of a write");
        let seen = store.read(WATCHDOG).expect("nobody writes");
        assert_eq!(check_page(&seen), Some(u64::MAX));
    }
}

/// Whether a write is under way in the single slot, or was when its writer died.
fn is_busy(name: &str) -> bool {
    let file = File::open(file_of(name)).expect("it is there");
    let word = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).expect("it is inside");
        bytes
    };
    word(0) != word(16 + 8 + 48_000)
}

/// Pushes at full speed until it is killed.
fn mortal_pusher(name: &str, generation: u64) {
    let options = Options::new().on_full(if generation.is_multiple_of(2) {
        OnFull::Block
    } else {
        OnFull::Overwrite
    });
    let mut fifo = SlotFifo::<Page>::open_with(name, 4, options).expect("it is there");
    let pages = pages(generation);
    fifo.push(&pages[0]).expect("the one before is dead");
    tell("ready");
    for page in pages.iter().cycle() {
        fifo.push(page).expect("nobody else writes");
    }
}

/// Reads until told the number of all items.
fn follow_pages(mut fifo: SlotFifo<Page>, total: &AtomicU64) -> [u64; 3] {
    let (mut next, mut last) = (fifo.finalized() - fifo.unread(), 0);
    let [mut delivered, mut overrun, mut busy] = [0, next, 0];
    let began = Instant::now();
    while next < total.load(Relaxed) {
        assert!(began.elapsed() < 2 * WATCHDOG, "{next}");
        match fifo.read(Duration::from_millis(50)) {
            Ok(item) => {
                assert_eq!(item.index() - next, item.overrun());
                next = item.index() + 1;
                let generation = check_page(&item).expect("all is listed") >> 32;
                assert!(generation >= last, "{generation} after {last}");
                last = generation;
                delivered += 1;
                overrun += item.overrun();
            }
            Err(error) => {
                let died = matches!(error, ReadError::WriterDied { .. });
                assert!(error.is_timeout() || died, "{error}");
                busy += 1;
            }
        }
    }
    [delivered, overrun, busy]
}

#[test]
fn no_item_is_lost_uncounted_while_writers_are_killed() {
    const WRITERS: u64 = 60;
    for trailer in [true, false] {
        let name = Name::new("slots-mortal-fifo");
        let options = Options::new().trailer(trailer);
        let mut fifo = SlotFifo::<Page>::create_with(&name, 4, options).expect("it is free");
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let readings = if trailer {
            [Reading::Broadcast, Reading::Registered]
        } else {
            [Reading::Broadcast, Reading::Shared]
        };
        let readers = readings.map(|reading| {
            let options = Options::new().reading(reading);
            let fifo = SlotFifo::open_with(&name, 4, options).expect("it is there");
            let total = Arc::clone(&total);
            (reading, thread::spawn(move || follow_pages(fifo, &total)))
        });
        let mut random = Random(0xcafe);
        for generation in 1..=WRITERS {
            let writer = start("mortal-pusher", &name, generation);
            thread::sleep(Duration::from_micros(random.below(15_000)));
            kill(writer);
            if generation % 5 == 0 {
                fifo.push(page(generation << 32 | 0xFFFF_FFFF))
                    .expect("the dead one's lock is free");
            }
        }
        fifo.push(page(u64::MAX)).expect("it is free");
        let finalized = fifo.finalized();
        total.store(finalized, Relaxed);
        for (reading, reader) in readers {
            let [delivered, overrun, busy] = reader.join().expect("it never fails");
            println!(
                "trailer {trailer}, {reading:?}: {finalized} finalized, {delivered} delivered, \
                 {overrun} overrun, {busy} times nothing"
            );
            assert_eq!(delivered + overrun, finalized);
        }
    }
}

#[test]
fn a_frozen_writer_is_waited_for_and_never_robbed() {
    let name = Name::new("slots-frozen");
    let options = Options::new().lock_timeout(Duration::from_millis(100));
    let mut store = SlotStore::<Page>::create_with(&name, options).expect("it is free");
    let mut reader = store.clone();
    let mut writer = start("mortal-writer", &name, 1);
    let mut frozen = 0;
    wait_until("five times frozen in the middle of a write", || {
        writer.stop();
        if is_busy(&name) {
            frozen += 1;
            let began = Instant::now();
            let error = store.write(page(5)).expect_err("another is writing");
            assert!(began.elapsed() >= Duration::from_millis(100), "too soon");
            let WriteError::Busy { pid, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(pid, writer.0.id());
            match reader.read(Duration::from_millis(20)) {
                // A buffer has one.
                Ok(seen) => assert!(check_page(&seen).is_some()),
                Err(error) => assert!(matches!(error, ReadError::Busy { .. }), "{error}"),
            }
            assert!(is_busy(&name), "nobody touched it");
        }
        writer.go_on();
        let seen = reader.read_new(WATCHDOG).expect("it goes on");
        assert_eq!(check_page(&seen).map(|tag| tag >> 32), Some(1));
        frozen >= 5
    });
    // The handle is none the worse for it; nor are two writers at once.
    let mut patient = SlotStore::<Page>::open(&name).expect("it is there");
    patient.write(page(1 << 32)).expect("it gets its turn");
    writer.0.kill().expect("it runs");
    writer.0.wait().expect("it ends");
    store.write(page(9)).expect("the dead one's lock is free");
    let seen = reader.read(WATCHDOG).expect("nobody writes");
    assert_eq!(check_page(&seen), Some(9));
}

/// Creates the segment anew, and waits to be killed.
fn creator(name: &str, generation: u64) {
    let options = Options::new().replace(Replace::Abandoned);
    let mut store = SlotStore::<Page>::create_with(name, options).expect("it is abandoned");
    store.write(page(generation)).expect("nobody writes");
    tell("ready");
    hear_parent();
}

#[test]
fn a_creator_that_comes_back_takes_its_name() {
    const CREATORS: u64 = 20;
    let name = Name::new("slots-creators");
    let options = Options::new().replace(Replace::Abandoned);
    let mut before: Option<SlotStore<Page>> = None;
    for generation in 1..=CREATORS {
        let creator = start("creator", &name, generation);
        let mut store = SlotStore::<Page>::open(&name).expect("it was created");
        let seen = store.read_new(WATCHDOG).expect("it was written");
        assert_eq!(check_page(&seen), Some(generation));
        // Who has the one before open learns it.
        if let Some(mut before) = before.replace(store) {
            let error = before
                .read_new(Duration::from_millis(1))
                .expect_err("nobody writes");
            assert!(matches!(error, ReadError::Unlinked { .. }), "{error}");
            let state = before.check_name().expect("it can be looked up");
            assert_eq!(state, NameState::Replaced);
        }
        let alive = SlotStore::<Page>::create_with(&name, options).expect_err("it lives");
        let OpenError::OwnerAlive { pid, .. } = alive else {
            panic!("{alive}");
        };
        assert_eq!(pid, creator.0.id());
        kill(creator);
    }
    let last = SlotStore::<Page>::create_with(&name, options).expect("it is abandoned");
    assert!(last.unlink().expect("it can be removed"));
    name.assert_nothing_left();
}

/// What this process holds: descriptors, mappings of shared objects, threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    mappings: usize,
    threads: usize,
}

impl Holdings {
    fn now() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("it is readable");
        let entries = |folder: &str| fs::read_dir(folder).expect("it is readable");
        let is_pipe = |path: &Path| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("pipe:"))
        };
        Self {
            // Pipes lead to the parent, and to a sanitizer's own helper.
            descriptors: entries("/proc/self/fd")
                .filter(|entry| entry.as_ref().is_ok_and(|entry| !is_pipe(&entry.path())))
                .count(),
            mappings: maps
                .lines()
                .filter(|line| line.contains("/dev/shm/"))
                .count(),
            threads: entries("/proc/self/task").count(),
        }
    }
}

/// Opens and closes, in a process where nobody else does.
fn holder(name: &str) {
    tell("ready");
    let mut before = None;
    for round in 0..200 {
        let options = Options::new().trailer(round % 2 == 0);
        {
            let mut store = SlotStore::<Page>::create_with(name, options).expect("it is free");
            let mut reader = SlotStore::<Page>::open(name).expect("it is there");
            store.write(page(round)).expect("nobody writes");
            let seen = reader.clone().read_new(WATCHDOG).expect("it was written");
            assert_eq!(check_page(&seen), Some(round));
            reader.repair().expect("nobody writes");
            let wrong = SlotStore::<Tick>::open(name);
            assert!(wrong.is_err(), "it is of another schema");
            let again = SlotStore::<Page>::create(name);
            assert!(again.is_err(), "it is there");
            assert!(store.unlink().expect("it can be removed"));
        }
        {
            let fifo = SlotFifo::<Tick>::create_with(name, 3, options);
            let mut fifo = fifo.expect("it is free");
            let reading = if round % 2 == 0 {
                Reading::Registered
            } else {
                Reading::Shared
            };
            let options = Options::new().reading(reading);
            let mut reader = SlotFifo::<Tick>::open_with(name, 3, options).expect("it is there");
            fifo.push(Tick { number: 5 }).expect("there is room");
            let item = reader.read(WATCHDOG).expect("it was pushed");
            assert_eq!(*item.number, 5);
            assert!(fifo.unlink().expect("it can be removed"));
        }
        if round == 1 {
            before = Some(Holdings::now());
        }
    }
    let after = Some(Holdings::now());
    assert_eq!(before, after, "something is leaked");
    tell(&format!("{after:?}"));
}

#[test]
fn what_is_closed_is_given_back() {
    let name = Name::new("slots-holdings");
    let outcome = Outcome::of(start("holder", &name, 0));
    assert!(!outcome.killed());
    println!("{}", outcome.lines().join("\n"));
    name.assert_nothing_left();
}
