//! Against the released Python package, as separate processes, both ways.
//!
//! `cargo xtask interop` installs the package and names its Python in
//! `POLYSHM_PYTHON`; without that the tests say SKIPPED.
#![cfg(target_os = "linux")]

use polyshm_testkit::{Guarded, Name, child, role, skip, tell};
use polyshm_zerobuffer::{
    BufferConfig, ReadError, Reader, WriteError, Writer, WriterConfig, testing::TestData,
};
use std::{
    io::{BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// "The right error within a second."
const PROMPT: Duration = Duration::from_secs(1);
const FRAMES: usize = 10_000;

/// A Python process that is one side of a buffer.
struct Python {
    process: Guarded,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start(arguments: &[&str]) -> Self {
        let python = std::env::var("POLYSHM_PYTHON").expect("checked by `available`");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/peer.py");
        let mut child = Command::new(python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its tracker of shared memory complains of what our side removes.
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut this = Self {
            process: Guarded::new(child),
            input,
            output,
        };
        assert_eq!(this.answer(), "ok", "the Python side is there");
        this
    }

    fn reader(name: &str, metadata: u64, payload: u64) -> Self {
        Self::start(&["reader", name, &metadata.to_string(), &payload.to_string()])
    }

    fn writer(name: &str) -> Self {
        Self::start(&["writer", name])
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("Python listens");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("Python answers");
        line.split('\t')
            .next()
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }

    fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    fn kill(mut self) {
        self.process.0.kill().expect("it runs");
        self.process.0.wait().expect("it ends");
    }
}

fn available(test: &str) -> bool {
    if std::env::var("POLYSHM_INTEROP").is_ok_and(|value| value == "off") {
        return false;
    }
    if std::env::var_os("POLYSHM_PYTHON").is_none() {
        skip(test, "POLYSHM_PYTHON is not set: run `cargo xtask interop`");
        return false;
    }
    true
}

/// The lengths that `peer.py` draws, asked of the same Python.
fn lengths(seed: u32, count: usize, low: u32, high: u32) -> Vec<usize> {
    let python = std::env::var("POLYSHM_PYTHON").expect("checked by `available`");
    let program = format!(
        "import random; r = random.Random({seed}); print(*[r.randint({low}, {high}) for _ in range({count})])"
    );
    let output = Command::new(python)
        .args(["-c", &program])
        .output()
        .expect("Python runs");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let lengths: Vec<usize> = text
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    assert_eq!(lengths.len(), count);
    lengths
}

fn frame(reader: &Reader, sequence: u64, len: usize) {
    let frame = reader.read(PATIENCE).expect("a frame");
    assert_eq!((frame.sequence(), frame.len()), (sequence, len));
    assert!(
        TestData::is_frame(&frame, sequence),
        "frame {sequence} is wrong"
    );
}

fn send(writer: &mut Writer, sequence: u64, len: usize) {
    let sent = writer
        .write(&TestData::frame(len, sequence))
        .expect("room in time");
    assert_eq!(sent, sequence);
}

fn send_in_place(writer: &mut Writer, sequence: u64, len: usize) {
    let mut frame = writer.reserve(len).expect("room in time");
    TestData::fill(&mut frame, sequence);
    assert_eq!(frame.commit().expect("it commits"), sequence);
}

/// Attaching retries: the Python reader is created before we look, but slowly.
fn attach(name: &str) -> Writer {
    Writer::open_within(name, PATIENCE, &WriterConfig::default()).expect("the reader is there")
}

/// What a Python reader leaves behind itself is not ours to count.
fn without_python_semaphores(name: &Name) -> Vec<std::path::PathBuf> {
    name.files()
        .into_iter()
        .filter(|path| !path.to_string_lossy().contains("/sem."))
        .collect()
}

#[test]
fn metadata_both_ways() {
    if !available("metadata_both_ways") {
        return;
    }
    let name = Name::new("py-meta");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    let mut python = Python::writer(&name);
    assert_eq!(python.ask(&format!("meta {}", "ab".repeat(56))), "ok");
    let metadata = reader
        .wait_for_metadata(PATIENCE)
        .unwrap()
        .expect("it was set");
    assert_eq!(&*metadata, [0xab; 56]);
    assert!(
        python
            .ask("meta 00")
            .starts_with("error MetadataAlreadyWritten")
    );
    assert_eq!(python.ask("close"), "ok");
    drop(reader);
    name.assert_nothing_left();

    let name = Name::new("py-meta");
    let mut python = Python::reader(&name, 64, 4096);
    assert_eq!(python.ask("meta"), "ok none");
    let mut writer = attach(&name);
    writer.set_metadata(&[0xcd; 56]).unwrap();
    assert_eq!(python.ask("meta"), format!("ok {}", "cd".repeat(56)));
    drop(writer);
    assert_eq!(python.ask("close"), "ok");
}

/// Ten thousand frames of random lengths through a small ring: it wraps some
/// four hundred times, with every tail there is.
#[test]
fn ten_thousand_frames_to_python() {
    if !available("ten_thousand_frames_to_python") {
        return;
    }
    for in_place in [false, true] {
        let name = Name::new("py-many");
        let mut python = Python::reader(&name, 64, 4096);
        let mut writer = attach(&name);
        let seed = 7 + u32::from(in_place);
        python.tell(&format!("stream {FRAMES} {seed} 1 300 1"));
        for (index, len) in lengths(seed, FRAMES, 1, 300).into_iter().enumerate() {
            let sequence = index as u64 + 1;
            if in_place {
                send_in_place(&mut writer, sequence, len);
            } else {
                send(&mut writer, sequence, len);
            }
        }
        assert_eq!(python.answer(), format!("ok all {FRAMES}"));
        assert!(writer.stats().wraps > 300, "{:?}", writer.stats());
        drop(writer);
        assert_eq!(python.ask("close"), "ok");
        assert_eq!(
            without_python_semaphores(&name),
            Vec::<std::path::PathBuf>::new()
        );
    }
}

#[test]
fn ten_thousand_frames_from_python() {
    if !available("ten_thousand_frames_from_python") {
        return;
    }
    for zero_copy in [0, 1] {
        let name = Name::new("py-many");
        let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
        let mut python = Python::writer(&name);
        let seed = 9 + zero_copy;
        python.tell(&format!("stream {FRAMES} {seed} 1 300 {zero_copy}"));
        for (index, len) in lengths(seed, FRAMES, 1, 300).into_iter().enumerate() {
            frame(&reader, index as u64 + 1, len);
        }
        assert_eq!(python.answer(), "ok all");
        assert_eq!(python.ask("close"), "ok");
        drop(reader);
        name.assert_nothing_left();
    }
}

#[test]
fn exact_fit_wrap_and_large_frames_to_python() {
    if !available("exact_fit_wrap_and_large_frames_to_python") {
        return;
    }
    let name = Name::new("py-edges");
    let mut python = Python::reader(&name, 64, 4096);
    let mut writer = attach(&name);
    // (lengths sent before anything is read): exact fit; wrap with a marker;
    // more than half the ring, twice; the whole ring; a tail of eight.
    let rounds: [&[usize]; 6] = [
        &[2032, 2032],
        &[1500, 1500],
        &[1400],
        &[2500],
        &[4080],
        &[2032, 2024],
    ];
    let mut sequence = 0;
    for (round, lens) in rounds.iter().enumerate() {
        let first = sequence + 1;
        for &len in *lens {
            sequence += 1;
            if round % 2 == 0 {
                send(&mut writer, sequence, len);
            } else {
                send_in_place(&mut writer, sequence, len);
            }
            // Only what fits beside what is unread.
            if len > 2032 || round == 5 {
                assert_eq!(python.ask("read 5"), format!("ok {sequence} {len} good"));
            }
        }
        for (number, len) in (first..).zip(*lens) {
            if *len <= 2032 && round != 5 {
                assert_eq!(python.ask("read 5"), format!("ok {number} {len} good"));
            }
        }
    }
    send(&mut writer, sequence + 1, 500);
    assert_eq!(
        python.ask("read 5"),
        format!("ok {} 500 good", sequence + 1)
    );
    assert!(
        writer.stats().rewinds > 0 && writer.stats().wraps > 0,
        "{:?}",
        writer.stats()
    );
    drop(writer);
    assert!(python.ask("read 5").starts_with("error WriterDead"));
    assert_eq!(python.ask("close"), "ok");
}

#[test]
fn exact_fit_wrap_and_large_frames_from_python() {
    if !available("exact_fit_wrap_and_large_frames_from_python") {
        return;
    }
    let name = Name::new("py-edges");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    let mut python = Python::writer(&name);
    // Exact fit, and on after it; wrap with a marker; a tail of eight; a whole
    // ring in place. (A frame above half the ring is only possible for a Python
    // writer where the ring starts: it cannot rewind.)
    let mut sequence = 0;
    for lens in [
        &[4080][..],
        &[2032, 2032],
        &[1500, 1500],
        &[1400],
        &[600, 2032 - 16],
        &[100],
    ] {
        let first = sequence + 1;
        for (index, len) in lens.iter().enumerate() {
            sequence += 1;
            let verb = if index % 2 == 0 { "write" } else { "zwrite" };
            assert_eq!(
                python.ask(&format!("{verb} {len}")),
                format!("ok {sequence}")
            );
        }
        for (number, &len) in (first..).zip(lens) {
            frame(&reader, number, len);
        }
    }
    assert_eq!(python.ask("close"), "ok");
    assert!(matches!(
        reader.read(PATIENCE),
        Err(ReadError::WriterClosed { .. })
    ));
    drop(reader);
    name.assert_nothing_left();
}

#[test]
fn held_frames_do_not_stall_or_tear() {
    if !available("held_frames_do_not_stall_or_tear") {
        return;
    }
    let name = Name::new("py-held");
    let reader = Reader::create(&name, &BufferConfig::new(64, 1024)).unwrap();
    let mut python = Python::writer(&name);
    for _ in 0..3 {
        python.ask("write 300");
    }
    let first = reader.read(PATIENCE).unwrap();
    let second = reader.read(PATIENCE).unwrap();
    drop(second);
    // There is no room before the first is released: the second's is behind it.
    python.tell("write 300");
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        TestData::is_frame(&first, 1),
        "a held frame was overwritten"
    );
    drop(first);
    assert_eq!(python.answer(), "ok 4");
    frame(&reader, 3, 300);
    frame(&reader, 4, 300);
    assert_eq!(reader.status().payload_free, 1024);
}

#[test]
fn a_second_writer_follows_the_first() {
    if !available("a_second_writer_follows_the_first") {
        return;
    }
    // A Python reader accepts our second writer, which goes on counting after
    // our first, and after a Python one.
    let name = Name::new("py-second");
    let mut reader = Python::reader(&name, 64, 4096);
    let mut first = attach(&name);
    send(&mut first, 1, 1000);
    send(&mut first, 2, 1000);
    assert_eq!(reader.ask("read 5"), "ok 1 1000 good");
    first.close().unwrap();
    let mut second = attach(&name);
    send(&mut second, 3, 1000);
    for number in 2..=3 {
        assert_eq!(reader.ask("read 5"), format!("ok {number} 1000 good"));
    }
    second.close().unwrap();
    assert_eq!(reader.ask("close"), "ok");

    let name = Name::new("py-second");
    let mut reader = Python::reader(&name, 64, 4096);
    let mut first = Python::writer(&name);
    for number in 1..=3 {
        assert_eq!(first.ask("write 900"), format!("ok {number}"));
    }
    assert_eq!(first.ask("close"), "ok");
    assert_eq!(reader.ask("read 5"), "ok 1 900 good");
    let mut second = attach(&name);
    send(&mut second, 4, 900);
    for number in 2..=4 {
        assert_eq!(reader.ask("read 5"), format!("ok {number} 900 good"));
    }
    drop(second);
    assert_eq!(reader.ask("close"), "ok");

    // Our reader accepts that a second Python writer starts again at 1.
    let name = Name::new("py-second");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    for _ in 0..2 {
        let mut writer = Python::writer(&name);
        for number in 1..=5 {
            assert_eq!(writer.ask("write 500"), format!("ok {number}"));
            frame(&reader, number, 500);
        }
        assert_eq!(writer.ask("close"), "ok");
        assert!(reader.read(PATIENCE).is_err_and(|error| error.is_end()));
    }
    drop(reader);
    name.assert_nothing_left();
}

#[test]
fn a_python_writer_is_killed_with_frames_pending() {
    if !available("a_python_writer_is_killed_with_frames_pending") {
        return;
    }
    let name = Name::new("py-kill");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    let mut python = Python::writer(&name);
    for number in 1..=3 {
        assert_eq!(python.ask("write 700"), format!("ok {number}"));
    }
    python.kill();
    for number in 1..=3 {
        frame(&reader, number, 700);
    }
    let waited = Instant::now();
    assert!(matches!(
        reader.read(PATIENCE),
        Err(ReadError::WriterDead { .. })
    ));
    assert!(waited.elapsed() < PATIENCE, "the deadline passed first");
    println!(
        "writer's death noticed after {:?} (due: {PROMPT:?})",
        waited.elapsed()
    );
    // And its successor is welcome.
    let mut python = Python::writer(&name);
    assert_eq!(python.ask("write 1500"), "ok 1");
    frame(&reader, 1, 1500);
    drop(python);
    drop(reader);
    name.assert_nothing_left();
}

#[test]
fn a_python_reader_is_killed_with_frames_pending() {
    if !available("a_python_reader_is_killed_with_frames_pending") {
        return;
    }
    let name = Name::new("py-kill");
    let mut python = Python::reader(&name, 64, 4096);
    let mut writer = attach(&name);
    send(&mut writer, 1, 1000);
    assert_eq!(python.ask("read 5"), "ok 1 1000 good");
    python.kill();
    let waited = Instant::now();
    let error = loop {
        match writer.write_within(&[0; 500], PATIENCE) {
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::ReaderDead { .. }), "{error}");
    println!(
        "reader's death noticed after {:?} (due: {PROMPT:?})",
        waited.elapsed()
    );
    // A reader of ours takes the name over, beside the old writer.
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    let mut next = Writer::open(&name).unwrap();
    send(&mut next, 1, 10);
    frame(&reader, 1, 10);
    drop((writer, next, reader));
    name.assert_nothing_left();
}

/// Our side in a process of its own, to be killed. Does nothing else.
#[test]
fn our_side() {
    let Some(role) = role() else { return };
    if let Some(name) = role.strip_prefix("writer ") {
        let mut writer = attach(name);
        for number in 1..=3 {
            send(&mut writer, number, 700);
        }
        tell("sent");
        std::thread::sleep(PATIENCE * 6);
    } else if let Some(name) = role.strip_prefix("reader ") {
        let reader = Reader::create(name, &BufferConfig::new(64, 4096)).unwrap();
        tell("created");
        frame(&reader, 1, 700);
        tell("read");
        std::thread::sleep(PATIENCE * 6);
    }
}

#[test]
fn our_writer_is_killed_with_frames_pending() {
    if !available("our_writer_is_killed_with_frames_pending") {
        return;
    }
    let name = Name::new("py-killed");
    let mut python = Python::reader(&name, 64, 4096);
    let mut ours = child("our_side", &format!("writer {}", &*name));
    assert_eq!(ours.hear().as_deref(), Some("sent"));
    drop(ours);
    for number in 1..=3 {
        assert_eq!(python.ask("read 5"), format!("ok {number} 700 good"));
    }
    assert!(python.ask("read 0.5").starts_with("error WriterDead"));
    // And our next writer goes on where the dead one stopped.
    let mut next = attach(&name);
    send(&mut next, 4, 3000);
    assert_eq!(python.ask("read 5"), "ok 4 3000 good");
    drop(next);
    assert_eq!(python.ask("close"), "ok");
}

#[test]
fn our_reader_is_killed_with_frames_pending() {
    if !available("our_reader_is_killed_with_frames_pending") {
        return;
    }
    let name = Name::new("py-killed");
    let mut ours = child("our_side", &format!("reader {}", &*name));
    assert_eq!(ours.hear().as_deref(), Some("created"));
    let mut python = Python::writer(&name);
    for number in 1..=3 {
        assert_eq!(python.ask("write 700"), format!("ok {number}"));
    }
    assert_eq!(ours.hear().as_deref(), Some("read"));
    drop(ours);
    // The package looks only once the ring is full, after its own timeout.
    let answer = (0..10)
        .map(|_| python.ask("write 700"))
        .find(|answer| !answer.starts_with("ok"));
    let answer = answer.expect("the ring fills up");
    assert!(answer.starts_with("error ReaderDead"), "{answer}");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).expect("we take over");
    drop((python, reader));
    name.assert_nothing_left();
}

#[test]
fn closing_is_noticed_at_once() {
    if !available("closing_is_noticed_at_once") {
        return;
    }
    let name = Name::new("py-close");
    let mut python = Python::reader(&name, 64, 4096);
    let mut writer = attach(&name);
    send(&mut writer, 1, 10);
    assert_eq!(python.ask("read 5"), "ok 1 10 good");
    python.tell("read 60");
    std::thread::sleep(Duration::from_millis(200));
    writer.close().unwrap();
    // Well before its timeout.
    assert!(python.answer().starts_with("error WriterDead"));
    assert_eq!(python.ask("close"), "ok");

    let name = Name::new("py-close");
    let reader = Reader::create(&name, &BufferConfig::new(64, 256)).unwrap();
    let mut python = Python::writer(&name);
    assert_eq!(python.ask("write 200"), "ok 1");
    python.tell("write 200");
    std::thread::sleep(Duration::from_millis(200));
    drop(reader);
    assert!(python.answer().starts_with("error ReaderDead"));
    name.assert_nothing_left();
}
