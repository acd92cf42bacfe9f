//! Against a Python peer that keeps to the original's order of loads and
//! stores, as separate processes, both ways.
//!
//! `cargo xtask interop` makes a Python with numpy and names it in
//! `POLYSHM_PYTHON`; without that the tests say SKIPPED.
#![cfg(target_os = "linux")]

use polyshm_slots::{
    ArrayValue, DynamicFields, FieldRef, NameState, OnFull, OnUnlink, OpenError, Options,
    ReadError, Reading, Record, Schema, SlotFifo, SlotStore, TypedRecord, Update, Value, Values,
    WriteError,
};
use polyshm_testkit::{Guarded, Name, skip};
use serde_json::{Map, Value as Json, json};
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes; only a hang meets it.
const WATCHDOG: Duration = Duration::from_secs(30);
/// How long a writer and its readers go on.
const SECONDS: f64 = 1.5;

/// A Python process.
struct Python {
    process: Guarded,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Self {
        Self::with(&[])
    }

    /// One whose resource tracker takes the segments for its own.
    fn tracked() -> Self {
        Self::with(&["tracked"])
    }

    fn with(arguments: &[&str]) -> Self {
        let python = std::env::var("POLYSHM_PYTHON").expect("checked by `available`");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The tracker complains of what it removes.
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut this = Self {
            process: Guarded::new(child),
            input,
            output,
        };
        assert_eq!(this.hear(), "ok", "the Python side is there");
        this
    }

    fn tell(&mut self, command: &[&str]) {
        let input = self.input.as_mut().expect("it has not ended");
        writeln!(input, "{}", command.join("\t")).expect("Python listens");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("Python answers");
        line.trim_end().to_owned()
    }

    #[track_caller]
    fn answer(&mut self) -> String {
        let line = self.hear();
        let Some(answer) = line.strip_prefix("ok") else {
            panic!("Python says: {line}");
        };
        answer.trim_start().to_owned()
    }

    #[track_caller]
    fn ask(&mut self, command: &[&str]) -> String {
        self.tell(command);
        self.answer()
    }

    #[track_caller]
    fn numbers<const N: usize>(&mut self) -> [u64; N] {
        let answer = self.answer();
        let numbers: Vec<u64> = answer
            .split(' ')
            .map(|word| word.parse().expect("a number"))
            .collect();
        numbers.try_into().expect("so many")
    }

    #[track_caller]
    fn attach<R: Kind>(&mut self, name: &str, slots: u64) {
        self.ask(&["attach", name, &slots.to_string(), R::SCHEMA]);
    }

    #[track_caller]
    fn create<R: Kind>(&mut self, name: &str, slots: u64) {
        self.ask(&["create", name, &slots.to_string(), R::SCHEMA]);
    }

    /// Ends the process, and waits for it.
    fn end(mut self) {
        self.input = None;
        assert!(self.process.0.wait().expect("it ends").success());
    }
}

/// Whether there is a Python; the tests take turns, since two at once would
/// measure each other.
fn available(test: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var("POLYSHM_INTEROP").is_ok_and(|value| value == "off") {
        return None;
    }
    if std::env::var_os("POLYSHM_PYTHON").is_none() {
        skip(test, "POLYSHM_PYTHON is not set: run `cargo xtask interop`");
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A record of which one that is torn, or mixed of two, differs from all.
trait Kind: TypedRecord + Update<Self> {
    /// As the peer calls it.
    const KIND: &str;
    const SCHEMA: &str;

    fn record(number: u64) -> Self;

    /// The number of a record, when it is whole.
    fn number_of(fields: &Self::Fields) -> Option<u64>;
}

#[derive(Record)]
struct Floats {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
}

impl Kind for Floats {
    const KIND: &str = "floats";
    const SCHEMA: &str = "a:float;b:float;c:float;d:float";

    fn record(number: u64) -> Self {
        let a = number as f64;
        let (b, c, d) = (-a, a * 0.5, a + 0.25);
        Self { a, b, c, d }
    }

    #[expect(clippy::float_cmp, reason = "all of them are exact")]
    #[expect(clippy::cast_sign_loss, reason = "numbers from 1 on")]
    fn number_of(fields: &Self::Fields) -> Option<u64> {
        let a = *fields.a;
        let whole = *fields.b == -a && *fields.c == a * 0.5 && *fields.d == a + 0.25;
        let statuses = [&fields.a, &fields.b, &fields.c, &fields.d];
        let written = statuses
            .iter()
            .all(|field| field.is_valid() && field.is_modified());
        (whole && written).then_some(a as u64)
    }
}

#[derive(Record)]
struct Image {
    frame_id: i32,
    timestamp: f64,
    #[record("uint8[480,640,3]", name = "image")]
    pixels: Vec<u8>,
}

impl Kind for Image {
    const KIND: &str = "image";
    const SCHEMA: &str = "frame_id:int;timestamp:float;image:uint8[480,640,3]";

    fn record(number: u64) -> Self {
        Self {
            frame_id: i32::try_from(number).expect("not so many"),
            timestamp: number as f64 * 0.5,
            pixels: vec![shade(number); 480 * 640 * 3],
        }
    }

    #[expect(clippy::float_cmp, reason = "both are exact")]
    fn number_of(fields: &Self::Fields) -> Option<u64> {
        let number = u64::try_from(*fields.frame_id).ok()?;
        let pixels = fields.pixels.value();
        // All bytes are as their neighbours, and so as the first.
        let even = pixels[0] == shade(number) && pixels[1..] == pixels[..pixels.len() - 1];
        let written = fields.frame_id.is_modified()
            && fields.timestamp.is_modified()
            && fields.pixels.is_valid()
            && fields.pixels.is_modified();
        (even && written && *fields.timestamp == number as f64 * 0.5).then_some(number)
    }
}

const fn shade(number: u64) -> u8 {
    (number.wrapping_mul(101) % 256) as u8
}

/// Numbers from 1 on, so many per second, until `end`; 0: as fast as it goes,
/// and after each 20 images a rest of a millisecond, in which a reader that
/// does not know of buffers gets a whole one.
fn pace<R: Kind>(rate: u32, mut end: impl FnMut(u64) -> bool, mut step: impl FnMut(u64)) -> u64 {
    let start = Instant::now();
    for number in 1.. {
        if end(number) {
            return number - 1;
        }
        if rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
            thread::sleep(due.saturating_sub(start.elapsed()));
        } else if R::KIND == "image" && number % 20 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        step(number);
    }
    unreachable!("it ends")
}

/// Runs `work` beside a command to Python; gives what both gave. `work` is told
/// by the flag when Python is done.
fn beside<T, P: Send>(
    python: &mut Python,
    command: &[&str],
    hear: impl FnOnce(&mut Python) -> P + Send,
    work: impl FnOnce(&AtomicBool) -> T,
) -> (T, P) {
    let done = AtomicBool::new(false);
    python.tell(command);
    thread::scope(|scope| {
        let heard = scope.spawn(|| {
            // Also when Python fails.
            let _guard = SetOnDrop(&done);
            hear(python)
        });
        let worked = work(&done);
        (worked, heard.join().expect("Python is content"))
    })
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What a reader of one slot counts.
#[derive(Debug, Default)]
struct Watched {
    accepted: u64,
    rejected: u64,
    torn: u64,
    /// Different records.
    seen: u64,
}

fn watch<R: Kind>(store: &mut SlotStore<R>, done: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    let mut last = 0;
    while !done.load(Relaxed) {
        let Some(snapshot) = store.try_read() else {
            watched.rejected += 1;
            continue;
        };
        watched.accepted += 1;
        if snapshot.number() == 0 {
            continue;
        }
        match R::number_of(&snapshot) {
            Some(number) if number >= last => {
                watched.seen += u64::from(number > last);
                last = number;
            }
            _ => watched.torn += 1,
        }
    }
    watched
}

/// How a segment of one of our tests came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    ByPython,
    Plain,
    WithTrailer,
}

impl Made {
    const ALL: [Self; 3] = [Self::ByPython, Self::Plain, Self::WithTrailer];

    fn options(self) -> Options {
        Options::new().trailer(self == Self::WithTrailer)
    }

    /// Both sides of a segment with one slot; Python's is attached.
    fn store<R: Kind>(self, name: &str, python: &mut Python) -> SlotStore<R> {
        if self == Self::ByPython {
            python.create::<R>(name, 1);
            return SlotStore::open(name).expect("Python created it");
        }
        let store = SlotStore::create_with(name, self.options()).expect("the name is free");
        python.attach::<R>(name, 1);
        store
    }

    /// As that, of a FIFO.
    fn fifo<R: Kind>(
        self,
        name: &str,
        slots: u64,
        python: &mut Python,
        options: impl Fn(Options) -> Options,
    ) -> SlotFifo<R> {
        if self == Self::ByPython {
            python.create::<R>(name, slots);
            let fifo = SlotFifo::open_with(name, slots, options(Options::new()));
            return fifo.expect("Python created it");
        }
        let fifo = SlotFifo::create_with(name, slots, options(self.options()));
        let fifo = fifo.expect("the name is free");
        python.attach::<R>(name, slots);
        fifo
    }
}

fn python_writes<R: Kind>(made: Made, rate: u32) {
    let name = Name::new("slots-interop-from");
    let mut python = Python::start();
    let mut store = made.store::<R>(&name, &mut python);
    let command = [
        "write_many",
        R::KIND,
        &SECONDS.to_string(),
        &rate.to_string(),
    ];
    let (watched, [written]) = beside(&mut python, &command, Python::numbers, |done| {
        watch(&mut store, done)
    });
    println!(
        "{} from Python, {made:?}, rate {rate}: {written} written, {watched:?}",
        R::KIND
    );
    assert_eq!(watched.torn, 0);
    assert!(watched.accepted > 0 && watched.seen > 0 && written > 0);
    // Somebody who never looked in the middle of a write proves nothing.
    assert!(watched.rejected > 0);
    let last = store.read(WATCHDOG).expect("nobody writes any more");
    assert_eq!(
        (last.number(), R::number_of(&last)),
        (written, Some(written))
    );
}

#[test]
fn nothing_that_a_python_writer_writes_is_read_torn() {
    let test = "nothing_that_a_python_writer_writes_is_read_torn";
    let Some(_turn) = available(test) else { return };
    for made in [Made::ByPython, Made::WithTrailer] {
        for rate in [0, 1000] {
            python_writes::<Floats>(made, rate);
            python_writes::<Image>(made, rate);
        }
    }
}

fn python_reads<R: Kind>(made: Made, rate: u32) {
    let name = Name::new("slots-interop-to");
    let mut python = Python::start();
    let mut store = made.store::<R>(&name, &mut python);
    let command = ["watch", R::KIND, &SECONDS.to_string()];
    let (written, [accepted, rejected, torn, seen]) =
        beside(&mut python, &command, Python::numbers, |done| {
            pace::<R>(
                rate,
                |_| done.load(Relaxed),
                |number| {
                    let written = store.write(R::record(number)).expect("nobody else writes");
                    assert_eq!(written, number);
                },
            )
        });
    println!(
        "{} to Python, {made:?}, rate {rate}: {written} written, \
         {accepted} accepted, {rejected} rejected, {torn} torn, {seen} seen",
        R::KIND
    );
    assert_eq!(torn, 0);
    assert!(accepted > 0 && seen > 0 && written > 0);
    // A write of ours is so short that at 1 kHz Python may never meet one of
    // four floats.
    assert!(rejected > 0 || (rate > 0 && R::KIND == "floats"));
}

#[test]
fn nothing_that_we_write_is_read_torn_by_python() {
    let test = "nothing_that_we_write_is_read_torn_by_python";
    let Some(_turn) = available(test) else { return };
    for made in Made::ALL {
        for rate in [0, 1000] {
            python_reads::<Floats>(made, rate);
            python_reads::<Image>(made, rate);
        }
    }
}

/// What the tests above would see if readers did as the original. Whether tears
/// come is luck, so they are only told.
#[test]
fn between_pythons_records_are_torn() {
    let Some(_turn) = available("between_pythons_records_are_torn") else {
        return;
    };
    let name = Name::new("slots-interop-between");
    let (mut writer, mut reader) = (Python::start(), Python::start());
    writer.create::<Image>(&name, 1);
    reader.attach::<Image>(&name, 1);
    let mut torn_at_all = 0;
    for _ in 0..5 {
        let command = ["write_many", Image::KIND, "1", "0"];
        let ([accepted, rejected, torn, _], [written]) =
            beside(&mut writer, &command, Python::numbers, |_| {
                reader.tell(&["watch", Image::KIND, "0.8"]);
                reader.numbers()
            });
        println!(
            "images between Pythons: {written} written, {accepted} accepted, \
             {rejected} rejected, {torn} torn"
        );
        assert!(written > 0 && accepted + rejected > 0);
        torn_at_all += torn;
        if torn_at_all > 0 {
            break;
        }
    }
    if torn_at_all == 0 {
        println!("none was torn this time: the tests above have proved little");
    }
}

/// What a reader of a FIFO counts.
#[derive(Debug, Default)]
struct Followed {
    delivered: u64,
    overrun: u64,
    skipped: u64,
    /// Not the record that belongs at this place, or none at all.
    wrong: u64,
    /// Not after the one before.
    disordered: u64,
}

/// Reads until as many records as `total` tells have come or were counted as
/// lost.
fn follow<R: Kind>(fifo: &mut SlotFifo<R>, total: &AtomicU64) -> Followed {
    let mut followed = Followed::default();
    let mut next = 0;
    let start = Instant::now();
    while next < total.load(Relaxed) {
        assert!(start.elapsed() < WATCHDOG, "{next}: {followed:?}");
        let item = match fifo.read(Duration::from_millis(20)) {
            Ok(item) => item,
            Err(error) => {
                assert!(error.is_timeout(), "{error}");
                continue;
            }
        };
        followed.delivered += 1;
        followed.overrun += item.overrun();
        followed.skipped += item.skipped();
        followed.disordered += u64::from(item.index() < next);
        followed.wrong += u64::from(R::number_of(&item) != Some(item.index() + 1));
        next = item.index() + 1;
    }
    followed
}

#[track_caller]
fn assert_followed(followed: &Followed, total: u64) {
    assert_eq!(
        (followed.wrong, followed.disordered),
        (0, 0),
        "{followed:?}"
    );
    assert_eq!(followed.delivered + followed.overrun, total, "{followed:?}");
    assert!(
        followed.delivered > 0 && followed.skipped == 0,
        "{followed:?}"
    );
}

fn python_finalizes(made: Made, slots: u64, rate: u32, reading: Reading) {
    let name = Name::new("slots-interop-fifo-from");
    let mut python = Python::start();
    let options = |options: Options| options.reading(reading);
    let first = made.fifo::<Floats>(&name, slots, &mut python, options);
    let mut readers = vec![first];
    if reading == Reading::Broadcast {
        let second = SlotFifo::open_with(&name, slots, options(Options::new()));
        readers.push(second.expect("it is there"));
    }
    let rate_word = rate.to_string();
    let command = ["finalize_many", Floats::KIND, "1", &rate_word, "1000000000"];
    // Not known yet.
    let total = AtomicU64::new(u64::MAX);
    let hear = |python: &mut Python| {
        let [_] = python.numbers();
        // Whatever happened before, somebody who keeps up loses no more.
        python.tell(&["finalize_many", Floats::KIND, "10", "50", "20"]);
        let [finalized] = python.numbers();
        total.store(finalized, Relaxed);
        finalized
    };
    let (followed, finalized) = beside(&mut python, &command, hear, |_| {
        thread::scope(|scope| {
            let all: Vec<_> = readers
                .iter_mut()
                .map(|fifo| scope.spawn(|| follow(fifo, &total)))
                .collect();
            all.into_iter()
                .map(|one| one.join().expect("it reads all"))
                .collect::<Vec<_>>()
        })
    });
    println!(
        "FIFO of {slots} from Python, {made:?}, rate {rate}, {reading:?}: \
         {finalized} finalized, {followed:?}"
    );
    assert!(finalized > 0);
    for followed in &followed {
        assert_followed(followed, finalized);
    }
    assert_eq!(readers[0].finalized(), finalized);
}

#[test]
fn what_a_python_writer_finalizes_is_delivered_to_all_or_counted() {
    let test = "what_a_python_writer_finalizes_is_delivered_to_all_or_counted";
    let Some(_turn) = available(test) else { return };
    for made in [Made::ByPython, Made::WithTrailer] {
        for slots in [16, 2] {
            for rate in [1000, 10_000, 0] {
                python_finalizes(made, slots, rate, Reading::Broadcast);
            }
        }
    }
}

#[test]
fn what_a_python_writer_finalizes_is_delivered_to_one_or_counted() {
    let test = "what_a_python_writer_finalizes_is_delivered_to_one_or_counted";
    let Some(_turn) = available(test) else { return };
    for (made, slots, rate) in [
        (Made::ByPython, 16, 1000),
        (Made::ByPython, 2, 0),
        (Made::WithTrailer, 16, 0),
        (Made::WithTrailer, 2, 10_000),
    ] {
        python_finalizes(made, slots, rate, Reading::Shared);
    }
}

fn python_takes(made: Made, slots: u64, rate: u32, count: u64) {
    let name = Name::new("slots-interop-fifo-to");
    let mut python = Python::start();
    let mut fifo = made.fifo::<Floats>(&name, slots, &mut python, |options| {
        options.on_full(OnFull::Block).full_timeout(Some(WATCHDOG))
    });
    let command = ["take_many", Floats::KIND, &count.to_string(), "10"];
    let (drained, [taken, torn, disordered, repeated]) =
        beside(&mut python, &command, Python::numbers, |done| {
            pace::<Floats>(
                rate,
                |number| number > count || done.load(Relaxed),
                |number| {
                    let item = fifo.push(Floats::record(number)).expect("Python reads");
                    assert_eq!(item, number - 1);
                },
            );
            fifo.drain(WATCHDOG).expect("nobody else writes")
        });
    println!(
        "FIFO of {slots} to Python, {made:?}, rate {rate}: {taken} of {count} taken, \
         {torn} torn, {disordered} out of order, {repeated} repeated"
    );
    assert!(drained);
    assert_eq!((taken, torn, disordered, repeated), (count, 0, 0, 0));
}

#[test]
fn a_python_reader_gets_everything_from_a_writer_that_waits_for_it() {
    let test = "a_python_reader_gets_everything_from_a_writer_that_waits_for_it";
    let Some(_turn) = available(test) else { return };
    for made in Made::ALL {
        for slots in [16, 2] {
            for (rate, count) in [(1000, 1000), (10_000, 5000), (0, 10_000)] {
                python_takes(made, slots, rate, count);
            }
        }
    }
}

// A peer that ends takes the segment's name along.

fn file_of(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(name)
}

/// When a file's names last changed, which is the one change of it that no
/// mapping makes; `None` when it has none.
fn last_relinked(name: &str) -> Option<(i64, i64)> {
    let found = fs::metadata(file_of(name)).ok()?;
    Some((found.ctime(), found.ctime_nsec()))
}

/// Has a Python process attach, and end. Then `meanwhile` is done over and over
/// until the name was removed, and `is_enough`.
#[track_caller]
fn end_a_peer(name: &str, mut is_enough: impl FnMut() -> bool) {
    let mut python = Python::tracked();
    python.attach::<Floats>(name, 1);
    let before = last_relinked(name);
    assert!(before.is_some());
    python.end();
    let start = Instant::now();
    let mut removed = false;
    loop {
        let enough = is_enough();
        removed |= last_relinked(name) != before;
        if removed && enough {
            return;
        }
        assert!(start.elapsed() < WATCHDOG, "removed: {removed}");
        thread::sleep(Duration::from_micros(500));
    }
}

/// Another Python process finds the segment and what was written to it.
#[track_caller]
fn assert_found(name: &str, number: u64) {
    let mut python = Python::start();
    python.attach::<Floats>(name, 1);
    let read = python.ask(&["read", "10"]);
    let read: Json = serde_json::from_str(&read).expect("JSON");
    assert_eq!(read["a"][1]["bits"], (number as f64).to_bits());
}

#[test]
fn a_name_that_python_removed_is_restored() {
    let Some(_turn) = available("a_name_that_python_removed_is_restored") else {
        return;
    };
    let name = Name::new("slots-interop-restored");
    for trailer in [true, false] {
        let options = Options::new().trailer(trailer);
        let mut store = SlotStore::<Floats>::create_with(&name, options).expect("it is free");
        let inode = fs::metadata(file_of(&name)).expect("it is there").ino();
        // On request.
        store.write(Floats::record(1)).expect("it is named");
        end_a_peer(&name, || {
            store.check_name().expect("it can be looked up") == NameState::Restored
        });
        assert_found(&name, 1);
        // By writing.
        let mut number = 1;
        end_a_peer(&name, || {
            number += 1;
            store.write(Floats::record(number)).expect("it is restored");
            file_of(&name).exists()
        });
        assert_found(&name, number);
        // By waiting.
        store.read_new(WATCHDOG).expect("there is one");
        end_a_peer(&name, || {
            let nothing = store.read_new(Duration::from_millis(1));
            let error = nothing.expect_err("nobody writes");
            assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
            file_of(&name).exists()
        });
        assert_found(&name, number);
        let now = fs::metadata(file_of(&name)).expect("it is there").ino();
        assert_eq!(now, inode, "the same segment");
        assert!(store.unlink().expect("it can be removed"));
        name.assert_nothing_left();
    }
}

#[test]
fn a_name_that_python_removed_is_reported() {
    let Some(_turn) = available("a_name_that_python_removed_is_reported") else {
        return;
    };
    let name = Name::new("slots-interop-reported");
    let options = Options::new().on_unlink(OnUnlink::Report);
    let mut store = SlotStore::<Floats>::create_with(&name, options).expect("it is free");
    let mut reader = SlotStore::<Floats>::open_with(&name, options).expect("it is there");
    // Only a creator can restore it.
    let mut other = SlotStore::<Floats>::open(&name).expect("it is there");
    end_a_peer(&name, || match store.write(Floats::record(1)) {
        Ok(_) => false,
        Err(WriteError::Unlinked { hint, .. }) => {
            assert!(hint.contains("create it anew"), "{hint}");
            true
        }
        Err(error) => panic!("{error}"),
    });
    for reader in [&mut reader, &mut other] {
        // What was written before is still there.
        let seen = reader.read_new(WATCHDOG).expect("it was written");
        assert_eq!(Floats::number_of(&seen), Some(1));
        let error = reader.read_new(Duration::from_millis(1));
        let error = error.expect_err("nobody writes");
        assert!(matches!(error, ReadError::Unlinked { .. }), "{error}");
        let state = reader.check_name().expect("it can be looked up");
        assert_eq!(state, NameState::Unlinked);
    }
    let successor = SlotStore::<Floats>::create(&name).expect("it is free again");
    let state = store.check_name().expect("it can be looked up");
    assert_eq!(state, NameState::Replaced);
    let start = Instant::now();
    loop {
        match store.write(Floats::record(2)) {
            Ok(_) => assert!(start.elapsed() < WATCHDOG, "it is looked at while writing"),
            Err(WriteError::Unlinked { hint, .. }) => {
                assert!(hint.contains("another segment"), "{hint}");
                break;
            }
            Err(error) => panic!("{error}"),
        }
        thread::sleep(Duration::from_micros(100));
    }
    drop(store);
    assert!(successor.unlink().expect("it is another's name no more"));
    name.assert_nothing_left();
}

#[test]
fn a_name_that_python_removed_may_be_missing() {
    let Some(_turn) = available("a_name_that_python_removed_may_be_missing") else {
        return;
    };
    let name = Name::new("slots-interop-ignored");
    let options = Options::new().on_unlink(OnUnlink::Ignore);
    let mut store = SlotStore::<Floats>::create_with(&name, options).expect("it is free");
    let mut reader = SlotStore::<Floats>::open_with(&name, options).expect("it is there");
    end_a_peer(&name, || true);
    assert!(!file_of(&name).exists());
    // Longer than the name goes without a look.
    for number in 1..=400 {
        store.write(Floats::record(number)).expect("it goes on");
        let seen = reader.read_new(WATCHDOG).expect("it goes on");
        assert_eq!(Floats::number_of(&seen), Some(number));
        thread::sleep(Duration::from_millis(1));
    }
    let nothing = reader.read_new(Duration::from_millis(1));
    let error = nothing.expect_err("nobody writes");
    assert!(matches!(error, ReadError::Timeout { .. }), "{error}");
    let state = store.check_name().expect("it can be looked up");
    assert_eq!(state, NameState::Unlinked);
    name.assert_nothing_left();
}

// Values of every type, in both directions.

/// A schema with every type, in which most fields are at odd places.
const ALL: [(&str, &str); 17] = [
    ("flag", "bool"),
    ("x", "float"),
    ("count", "int"),
    ("one", "str[1]"),
    ("text", "str[12]"),
    ("f32", "float32[3]"),
    ("f64", "float64[2,2]"),
    ("i8", "int8[5]"),
    ("i16", "int16[2,1,2]"),
    ("i32", "int32[3]"),
    ("i64", "int64[2]"),
    ("u8", "uint8[7]"),
    ("u16", "uint16[3]"),
    ("u32", "uint32[2]"),
    ("u64", "uint64[2]"),
    ("bools", "bool[2,3]"),
    ("none", "uint8[0]"),
];

fn schema_of(separator: &str, colon: &str) -> String {
    let pairs = ALL.map(|(name, annotation)| format!("{name}{colon}{annotation}"));
    pairs.join(separator)
}

/// What is written in one go, as Rust and as the peer takes it.
#[derive(Clone, Debug, Default)]
struct Both {
    values: Values,
    json: Map<String, Json>,
}

impl Both {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.json.insert(name.to_owned(), in_json(&value));
        self.values = self.values.with(name, value);
        self
    }

    fn array<T: polyshm_slots::Element>(self, name: &str, shape: &[usize], of: &[T]) -> Self {
        let array = ArrayValue::from_elements(shape.to_vec(), of).expect("the shape fits");
        self.with(name, array)
    }
}

/// A value as the peer tells it: floats by their bits, arrays by their bytes.
fn in_json(value: &Value) -> Json {
    match value {
        Value::Float(value) => json!({ "bits": value.to_bits() }),
        Value::Int(value) => json!(value),
        Value::Bool(value) => json!(value),
        Value::Text(value) => json!(value),
        Value::Array(array) => {
            let hex = array.bytes().iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "dtype": array.dtype().to_string(), "shape": array.shape(), "hex": hex })
        }
    }
}

/// All fields as the peer tells them.
fn fields_in_json(fields: &DynamicFields) -> Json {
    fields
        .iter()
        .map(|field| {
            let told = json!([field.status().bits(), in_json(&field.value())]);
            (field.name().to_owned(), told)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Writes with values that are easily spoilt on the way.
fn writes() -> Vec<Both> {
    let none: [u8; 0] = [];
    let all = Both::default()
        .with("flag", true)
        .with("x", -0.0)
        .with("count", i32::MIN)
        .with("one", "ß")
        .with("text", "a\0b, \u{1F980}!")
        .array(
            "f32",
            &[3],
            &[1.5_f32, f32::MIN_POSITIVE, f32::NEG_INFINITY],
        )
        .array("f64", &[2, 2], &[0.1, f64::MAX, f64::from_bits(1), -0.0])
        .array("i8", &[5], &[i8::MIN, -1, 0, 1, i8::MAX])
        .array("i16", &[2, 1, 2], &[i16::MIN, -1, 1, i16::MAX])
        .array("i32", &[3], &[i32::MIN, -1, i32::MAX])
        .array("i64", &[2], &[i64::MIN, i64::MAX])
        .array("u8", &[7], &[0_u8, 1, 2, 127, 128, 254, 255])
        .array("u16", &[3], &[0, 1, u16::MAX])
        .array("u32", &[2], &[1, u32::MAX])
        .array("u64", &[2], &[1, u64::MAX])
        .array("bools", &[2, 3], &[true, false, false, true, true, false])
        .array("none", &[0], &none);
    vec![
        Both::default().with("x", 1e300),
        all,
        Both::default(),
        // Shorter: the rest of the field keeps its bytes, unseen.
        Both::default().with("text", "").with("flag", false),
        // Too long, too many, too few, and in another shape.
        Both::default()
            .with("one", "ab")
            .with("text", "0123456789äöü")
            .array("i8", &[6], &[1_i8, 2, 3, 4, 5, 6])
            .array("u16", &[2], &[7_u16, 8])
            .array("bools", &[6], &[false, true, true, true, false, true])
            .array("i16", &[2, 2], &[1_i16, 2, 3, 4]),
        Both::default()
            .with("x", f64::INFINITY)
            .with("count", i32::MAX)
            .array("f32", &[3], &[f32::INFINITY, -0.0, 3.0])
            .array("u8", &[7], &[9_u8; 7]),
        // What fits is no longer truncated.
        Both::default()
            .with("one", "a")
            .with("x", f64::from_bits(0x7ff8_0000_dead_beef)),
    ]
}

#[test]
fn values_and_statuses_of_every_type_cross_in_both_directions() {
    let test = "values_and_statuses_of_every_type_cross_in_both_directions";
    let Some(_turn) = available(test) else { return };
    let schema: Schema = schema_of(", ", ": ").parse().expect("a schema");
    for trailer in [true, false] {
        let name = Name::new("slots-interop-types");
        let options = Options::new().trailer(trailer);
        let mut store =
            SlotStore::create_dynamic(&name, &schema, options).expect("the name is free");
        let mut python = Python::start();
        python.ask(&["attach", &name, "1", &schema_of(";", ":")]);
        let mut numbers = 0;
        // Both write everything, in turns.
        for (round, write) in writes().iter().chain(&writes()).enumerate() {
            if round % 2 == 0 {
                store.write(&write.values).expect("all of it fits");
            } else {
                let json = Json::from(write.json.clone()).to_string();
                python.ask(&["write", &json]);
            }
            numbers += 1;
            let seen = store.read(WATCHDOG).expect("nobody writes");
            assert_eq!(seen.number(), numbers);
            let told = python.ask(&["read", "0"]);
            let told: Json = serde_json::from_str(&told).expect("JSON");
            assert_eq!(
                fields_in_json(&seen),
                told,
                "trailer {trailer}, round {round}"
            );
            // Both could agree on what is wrong.
            for (name, value) in write.values.iter() {
                let field = seen.get(name).expect("it is there");
                assert!(field.is_modified() && !field.is_unwritten());
                if field.is_valid() {
                    assert_eq!(in_json(&field.value()), in_json(value), "{name}");
                }
            }
            let listed = seen.iter().filter(FieldRef::is_modified).count();
            assert_eq!(listed, write.values.len());
            let truncated = ["one", "text", "i8", "u16", "bools", "i16"];
            let longer = write.values.len() == truncated.len();
            assert!(
                !longer
                    || truncated
                        .iter()
                        .all(|name| seen.get(name).expect("it is there").is_truncated())
            );
        }
        // Flags that one side clears, both see cleared.
        store.write(Values::new().with("x", 2.0)).expect("it fits");
        python.ask(&["read", "0", "reset"]);
        let seen = store.read(WATCHDOG).expect("nobody writes");
        assert!(seen.iter().all(|field| !field.is_modified()));
        python.ask(&["write", "{\"count\": 3}"]);
        let seen = store.read(WATCHDOG).expect("nobody writes");
        assert!(seen.get("count").expect("it is there").is_modified());
        assert!(store.reset_modified().expect("nobody writes"));
        let told = python.ask(&["read", "0"]);
        let told: Json = serde_json::from_str(&told).expect("JSON");
        assert_eq!(told["count"], json!([0, 3]));
    }
}

#[test]
fn items_of_every_type_cross_in_both_directions() {
    let test = "items_of_every_type_cross_in_both_directions";
    let Some(_turn) = available(test) else { return };
    let schema: Schema = schema_of(", ", ": ").parse().expect("a schema");
    for trailer in [true, false] {
        let name = Name::new("slots-interop-items");
        let options = Options::new().trailer(trailer).on_full(OnFull::Refuse);
        let fifo = SlotFifo::create_dynamic(&name, &schema, 3, options);
        let mut fifo = fifo.expect("the name is free");
        let mut python = Python::start();
        python.ask(&["attach", &name, "3", &schema_of(";", ":")]);
        // Twice, so that slots are used again.
        for write in writes().iter().chain(&writes()) {
            // Of what is staged in steps, later values win.
            fifo.stage(Values::new().with("x", 5.0)).expect("it fits");
            fifo.stage(&write.values).expect("all of it fits");
            assert!(fifo.finalize().expect("there is room").is_some());
            let told = python.ask(&["take", "10"]);
            let told: Json = serde_json::from_str(&told).expect("JSON");
            let item = fifo.read(WATCHDOG).expect("it was finalized");
            assert_eq!(fields_in_json(&item), told);

            python.ask(&["stage", "{\"count\": 5}"]);
            let json = Json::from(write.json.clone()).to_string();
            python.ask(&["stage", &json]);
            python.ask(&["finalize"]);
            let item = fifo.read(WATCHDOG).expect("it was finalized");
            let told = python.ask(&["take", "10"]);
            let told: Json = serde_json::from_str(&told).expect("JSON");
            assert_eq!(fields_in_json(&item), told);
            assert_eq!(item.overrun(), 0);
            for (name, value) in write.values.iter() {
                let field = item.get(name).expect("it is there");
                if field.is_valid() {
                    assert_eq!(in_json(&field.value()), in_json(value), "{name}");
                }
            }
        }
        assert_eq!(fifo.finalized(), 4 * writes().len() as u64);
    }
}

// Segments that Python creates.

#[derive(Record)]
struct Five {
    a: f64,
    b: f64,
    c: f64,
    d: f64,
    e: f64,
}

#[test]
fn a_segment_of_python_is_opened_by_its_own_schema_only() {
    let test = "a_segment_of_python_is_opened_by_its_own_schema_only";
    let Some(_turn) = available(test) else { return };
    let name = Name::new("slots-interop-opened");
    let missing = SlotStore::<Floats>::open(&name).expect_err("there is none");
    assert!(matches!(missing, OpenError::NotFound { .. }), "{missing}");
    let mut python = Python::start();
    python.create::<Floats>(&name, 1);
    let mut store = SlotStore::<Floats>::open(&name).expect("Python created it");
    assert!(!store.has_trailer());
    let fresh = store.read(WATCHDOG).expect("it is whole");
    assert!(fresh.a.is_unwritten() && fresh.d.is_unwritten() && fresh.number() == 0);
    let exists = SlotStore::<Floats>::create(&name).expect_err("there is one");
    assert!(
        matches!(exists, OpenError::AlreadyExists { .. }),
        "{exists}"
    );
    // Nothing tells whose it is.
    let options = Options::new().replace(polyshm_slots::Replace::Abandoned);
    let exists = SlotStore::<Floats>::create_with(&name, options).expect_err("there is one");
    assert!(
        matches!(exists, OpenError::AlreadyExists { .. }),
        "{exists}"
    );

    let shorter = SlotStore::<Image>::open(&name).expect_err("another schema");
    assert!(matches!(shorter, OpenError::Mismatch { .. }), "{shorter}");
    let five = SlotStore::<Five>::open(&name).expect_err("another schema");
    assert!(matches!(five, OpenError::Mismatch { .. }), "{five}");
    let fifo = SlotFifo::<Floats>::open(&name, 16).expect_err("it is no FIFO");
    assert!(matches!(fifo, OpenError::Mismatch { .. }), "{fifo}");
    let schema: Schema = "a: float".parse().expect("a schema");
    let longer = SlotStore::open_dynamic(&name, &schema, Options::new());
    let longer = longer.expect_err("another schema");
    assert!(matches!(longer, OpenError::Length { .. }), "{longer}");
    let any = Options::new().any_length(true);
    SlotStore::open_dynamic(&name, &schema, any).expect("as the original allows");
    let untold = SlotStore::discover(&name, Options::new()).expect_err("it does not tell");
    assert!(matches!(untold, OpenError::NoSchema { .. }), "{untold}");
    python.ask(&["close"]);
    python.ask(&["unlink"]);
    name.assert_nothing_left();

    python.create::<Floats>(&name, 16);
    for slots in [15, 17] {
        let other = SlotFifo::<Floats>::open(&name, slots).expect_err("it has 16");
        assert!(
            matches!(other, OpenError::Mismatch { .. } | OpenError::Length { .. }),
            "{other}"
        );
    }
    // Before its first item it looks like a store that is not finished.
    python.ask(&["finalize_many", Floats::KIND, "10", "0", "1"]);
    let store = SlotStore::<Floats>::open(&name).expect_err("it is a FIFO");
    assert!(matches!(store, OpenError::Length { .. }), "{store}");
    SlotFifo::<Floats>::open(&name, 16).expect("that is it");
}

/// Opens as soon as there is something. Also when it is not finished, nothing is
/// read that was not written.
fn open_early(name: &str, done: &AtomicBool) -> Option<bool> {
    let options = Options::new().open_timeout(WATCHDOG);
    let store = match SlotStore::<Floats>::open_with(name, options) {
        Ok(store) => Some(store),
        // A creator that takes longer than a quarter of a second is tried
        // again.
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            assert!(!done.load(Relaxed), "{error}");
            None
        }
    };
    let seen = store?.read(WATCHDOG).expect("nobody writes");
    let unwritten = [&seen.a, &seen.b, &seen.c, &seen.d]
        .iter()
        .all(|field| field.is_unwritten());
    Some(unwritten)
}

#[test]
fn nobody_reads_a_segment_that_python_has_not_finished() {
    let test = "nobody_reads_a_segment_that_python_has_not_finished";
    let Some(_turn) = available(test) else { return };
    let mut python = Python::start();
    let mut early = 0;
    for round in 0..120 {
        let name = Name::new("slots-interop-race");
        // Most at full speed, and some so that all states are long.
        let delay = if round % 4 == 0 { "0.004" } else { "0" };
        let command = ["create", &name, "1", Floats::SCHEMA, delay];
        let (opened, ()) = beside(
            &mut python,
            &command,
            |python| assert_eq!(python.answer(), ""),
            |done| {
                let opened = loop {
                    if let Some(unwritten) = open_early(&name, done) {
                        break unwritten;
                    }
                };
                early += u32::from(!done.load(Relaxed));
                opened
            },
        );
        assert!(opened, "round {round}: what nobody wrote was valid");
        python.ask(&["close"]);
    }
    println!("{early} of 120 segments were opened before Python was back");
}
