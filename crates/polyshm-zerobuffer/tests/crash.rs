//! Kills a writer, then a reader, just before each numbered step, and checks
//! what the other side sees and whether a new process can take over.
//!
//! Runs under `--cfg crash_points` (`cargo xtask crash`).
#![cfg(all(crash_points, target_os = "linux"))]

use polyshm_platform::{Deadline, crash};
use polyshm_testkit::{Name, Outcome, child, report, tell};
use polyshm_zerobuffer::{
    AttachError, BufferConfig, Frame, MetadataError, ReadError, Reader, WaitStrategy, Writer,
    WriterConfig, testing::TestData,
};
use std::{io::BufRead, time::Duration};

const RING: u64 = 256;
/// A peer's death is noticed within this, with room for a loaded machine.
const NOTICED: Duration = Duration::from_secs(5);
const METADATA: &[u8] = b"all of it, or none";

/// What a writer does: frames by length, in the state that earlier frames left.
struct Scenario {
    name: &'static str,
    /// Sent by a first writer that closes, and read.
    before: &'static [usize],
    /// How many of those the reader still holds.
    held: usize,
    /// Sent by the writer that is killed, every second one in place.
    frames: &'static [usize],
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fresh",
        before: &[],
        held: 0,
        frames: &[50, 60],
    },
    Scenario {
        name: "wrap",
        before: &[64, 64],
        held: 0,
        frames: &[40, 60],
    },
    Scenario {
        name: "wrap while a frame is held",
        before: &[36, 112],
        held: 1,
        frames: &[44, 8],
    },
    Scenario {
        name: "exact fit",
        before: &[140],
        held: 0,
        frames: &[84, 30],
    },
    Scenario {
        name: "exact fit of the whole ring",
        before: &[],
        held: 0,
        frames: &[240],
    },
    Scenario {
        name: "rewind",
        before: &[64, 64],
        held: 0,
        frames: &[180],
    },
    Scenario {
        name: "rewind in place",
        before: &[144],
        held: 0,
        frames: &[200],
    },
    Scenario {
        name: "early wrap",
        before: &[134],
        held: 0,
        frames: &[82, 20],
    },
    Scenario {
        name: "short tail at the end",
        before: &[],
        held: 0,
        frames: &[232],
    },
];

fn config() -> BufferConfig {
    BufferConfig::new(64, RING)
        .wait_strategy(WaitStrategy::Block)
        .remove_stale(false)
}

/// The process that may die. Only this runs in it.
#[test]
fn role() {
    let Some(role) = polyshm_testkit::role() else {
        return;
    };
    let mut words = role.split(' ');
    let mut word = || words.next().expect("a role has four words").to_owned();
    let (what, name, number, which) = (word(), word(), word(), word());
    crash::arm(number.parse().expect("a number"));
    match what.as_str() {
        "writer" => be_writer(&name, &SCENARIOS[which.parse::<usize>().expect("an index")]),
        "reader" => be_reader(&name),
        other => panic!("no role {other}"),
    }
    tell(&format!("points {}", crash::disarm()));
}

fn be_writer(name: &str, scenario: &Scenario) {
    let mut writer = Writer::open(name).expect("the reader is there");
    // Only the first writer of a buffer sets it.
    if scenario.before.is_empty() {
        writer.set_metadata(METADATA).expect("nobody has set it");
    }
    for (index, &len) in scenario.frames.iter().enumerate() {
        let sequence = (scenario.before.len() + index + 1) as u64;
        let sent = if index % 2 == 0 {
            writer.try_write(&TestData::frame(len, sequence))
        } else {
            let mut frame = writer.try_reserve(len).expect("there is room");
            TestData::fill(&mut frame, sequence);
            frame.commit()
        };
        assert_eq!(sent.expect("there is room"), sequence);
        tell(&format!("committed {sequence}"));
    }
    writer.close().expect("closing works");
    tell("closed");
}

fn be_reader(name: &str) {
    let reader = Reader::create(name, &config()).expect("the name is free");
    tell("created");
    wait_for_go();
    // Three frames; the youngest two released first.
    let first = reader.read(NOTICED).expect("a frame");
    let second = reader.read(NOTICED).expect("a frame");
    let third = reader.read(NOTICED).expect("a frame");
    drop((third, second));
    drop(first);
    tell("read");
    wait_for_go();
    // A marker lies before this one.
    drop(reader.read(NOTICED).expect("a frame"));
    reader.close().expect("closing works");
    tell("closed");
}

fn wait_for_go() {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .expect("the parent says go");
}

/// Reads until the end, checks numbers and content, and gives the last number.
fn read_all(
    reader: &Reader,
    mut last: u64,
    lens: &[usize],
    first: u64,
) -> (u64, Option<ReadError>) {
    loop {
        match reader.read(NOTICED) {
            Ok(frame) => {
                last += 1;
                assert_eq!(frame.sequence(), last, "each frame once, in order");
                assert_eq!(frame.len(), lens[(last - first) as usize]);
                assert!(TestData::is_frame(&frame, last), "frame {last} is torn");
            }
            Err(end) if end.is_end() => return (last, Some(end)),
            Err(ReadError::Timeout { .. }) => return (last, None),
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is before the writer that is killed. Gives the frames still held.
fn first_writer<'a>(name: &str, reader: &'a Reader, scenario: &Scenario) -> Vec<Frame<'a>> {
    let mut held = Vec::new();
    if scenario.before.is_empty() {
        return held;
    }
    let mut writer = Writer::open(name).expect("the reader is there");
    writer.set_metadata(METADATA).expect("nobody has set it");
    for (index, &len) in scenario.before.iter().enumerate() {
        writer
            .try_write(&TestData::frame(len, index as u64 + 1))
            .expect("room");
    }
    for index in 0..scenario.before.len() {
        let frame = reader.read(NOTICED).expect("it was sent");
        if index >= scenario.before.len() - scenario.held {
            held.push(frame);
        }
    }
    writer.close().expect("closing works");
    assert!(reader.read(NOTICED).is_err_and(|error| error.is_end()));
    held
}

/// A writer that is killed before step `number`. Gives whether it was.
///
/// `takeover_first`: a new writer attaches before the reader has looked.
fn kill_writer(which: usize, number: u64, takeover_first: bool) -> bool {
    let scenario = &SCENARIOS[which];
    let name = Name::new("crash-writer");
    let reader = Reader::create(&name, &config()).expect("the name is free");
    let before = scenario.before.len() as u64;
    let held = first_writer(&name, &reader, scenario);

    let victim = child("role", &format!("writer {} {number} {which}", &*name));
    let outcome = Outcome::of(victim);
    let context = format!(
        "{} / point {number} / takeover first: {takeover_first}",
        scenario.name
    );
    println!("{context}");
    let acknowledged = outcome.number("committed").unwrap_or(before);

    let mut expected = before;
    let mut unseen = |reader: &Reader, from: u64| {
        let (last, end) = read_all(reader, from, scenario.frames, before + 1);
        expected = last;
        assert!(
            (acknowledged..=acknowledged + 1).contains(&last),
            "{acknowledged} commits were acknowledged and {last} frames arrived"
        );
        end
    };
    if !takeover_first {
        let attached = before > 0 || number == 0 || reader.status().writer_pid != 0;
        let end = unseen(&reader, before);
        // Before the first writer's claim nobody was ever there.
        assert!(end.is_some() || !attached, "the end was not noticed");
        if outcome.killed() && !outcome.said("closed") && end.is_some() {
            // Dead, unless it died before its claim or after it had left.
            let left = before > 0 || acknowledged == scenario.frames.len() as u64;
            assert!(
                left || matches!(end, Some(ReadError::WriterDead { .. })),
                "{end:?}"
            );
            let status = reader.status();
            assert_eq!(
                status.writer_pid, 0,
                "the dead writer's claim is taken back"
            );
        }
    }

    // A new process takes over: every capacity is back, the numbering goes on.
    let mut writer = Writer::open(&name).expect("the dead writer's place is free");
    if takeover_first {
        // A full ring takes nothing before the reader has read.
        let mut small = writer.try_write(&[0]).ok();
        let mut last = before;
        while small != Some(last) {
            let frame = reader.read(NOTICED).expect("nothing committed is lost");
            last += 1;
            assert_eq!(frame.sequence(), last);
            if small == Some(last) {
                assert_eq!(*frame, [0]);
            } else {
                assert!(TestData::is_frame(&frame, last), "frame {last} is torn");
            }
            drop(frame);
            small = small.or_else(|| writer.try_write(&[0]).ok());
        }
        let small = last;
        assert!((acknowledged..=acknowledged + 1).contains(&(small - 1)));
        expected = small;
    }
    let metadata = writer.set_metadata(METADATA);
    assert!(matches!(
        metadata,
        Ok(()) | Err(MetadataError::AlreadyWritten { .. })
    ));
    let found = reader
        .metadata()
        .expect("whole")
        .expect("set by one of the two");
    assert_eq!(&*found, METADATA);
    drop(found);

    // Frames that were held all the time are still what they were.
    for frame in &held {
        assert!(
            TestData::is_frame(frame, frame.sequence()),
            "a held frame was overwritten"
        );
    }
    drop(held);
    let all = (RING - 16) as usize;
    let sequence = writer
        .try_write(&TestData::frame(all, expected + 1))
        .expect("the whole ring is free");
    assert_eq!(sequence, expected + 1, "the numbering goes on");
    let frame = reader.read(NOTICED).expect("it was sent");
    assert!(TestData::is_frame(&frame, sequence));
    drop(frame);
    let status = reader.status();
    assert_eq!(
        (status.payload_free, status.pending),
        (RING, Some(0)),
        "nothing is lost or invented"
    );
    writer.close().expect("closing works");
    drop(reader);
    name.assert_nothing_left();
    outcome.killed()
}

/// A reader that is killed before step `number`. Gives whether it was.
fn kill_reader(number: u64) -> bool {
    println!("reader / point {number}");
    let name = Name::new("crash-reader");
    let mut victim = child("role", &format!("reader {} {number} 0", &*name));
    let settings = WriterConfig::default().wait_strategy(WaitStrategy::Block);
    let mut writer = None;
    let mut sent = 0;
    for (answer, lens) in [("created", &[64, 64, 24][..]), ("read", &[100])] {
        if !victim.wait_for_line(answer) {
            break;
        }
        let writer = writer.get_or_insert_with(|| {
            Writer::open_with(&name, &settings).expect("the reader says it is there")
        });
        for &len in lens {
            sent += 1;
            // The reader may be dead already; then the loop below finds out.
            let _ = writer.write_within(&TestData::frame(len, sent), NOTICED);
        }
        victim.say("go");
    }
    let outcome = Outcome::of(victim);

    if let Some(writer) = &mut writer {
        // The writer learns it within its deadline, full ring or not.
        let deadline = Deadline::after(NOTICED);
        let error = loop {
            match writer.write_within(&[1; 16], Duration::from_millis(50)) {
                Err(error) if error.is_reader_gone() => break error,
                result => {
                    assert!(
                        !deadline.expired(),
                        "the reader's end was not noticed: {result:?}"
                    );
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        };
        assert!(error.is_reader_gone());
    }

    // A new reader takes over at once, beside the old writer.
    let reader = Reader::create(&name, &config()).expect("the dead reader's name is free");
    let mut next = Writer::open(&name).expect("a new buffer has no writer");
    assert_eq!(
        next.write(&TestData::frame(200, 1)).expect("an empty ring"),
        1
    );
    let frame = reader.read(NOTICED).expect("it was sent");
    assert!(TestData::is_frame(&frame, 1));
    drop(frame);
    drop((writer, next, reader));
    name.assert_nothing_left();
    outcome.killed()
}

/// Runs 1, 2, 3 ... until nobody dies; gives how many did.
fn enumerate(mut kill: impl FnMut(u64) -> bool) -> u64 {
    let mut number = 1;
    while kill(number) {
        number += 1;
        assert!(number < 1000, "the scenario does not end");
    }
    number - 1
}

#[test]
fn every_point_of_a_writer_and_a_reader() {
    let mut points = serde_json::Map::new();
    let mut runs = 0;
    let mut total = 0;
    for (which, scenario) in SCENARIOS.iter().enumerate() {
        let count = enumerate(|number| kill_writer(which, number, false));
        let again = enumerate(|number| kill_writer(which, number, true));
        assert_eq!(count, again, "the same steps each time");
        assert!(count > 10, "{}: only {count} points", scenario.name);
        println!("writer, {}: {count} points, twice", scenario.name);
        points.insert(format!("writer: {}", scenario.name), count.into());
        total += count;
        runs += 2 * (count + 1);
    }
    let count = enumerate(kill_reader);
    assert!(count > 20, "reader: only {count} points");
    println!("reader: {count} points");
    points.insert("reader".to_owned(), count.into());
    total += count;
    runs += count + 1;
    println!("{total} points, {runs} runs");
    report(
        "zerobuffer-crash.json",
        &serde_json::json!({ "points": total, "runs": runs, "scenarios": points }),
    );
}

/// The same claim by two writers at once is the business of `tests/processes.rs`;
/// here: a writer that is alive keeps its place.
#[test]
fn a_living_writer_is_not_taken_for_a_dead_one() {
    let name = Name::new("crash-living");
    let reader = Reader::create(&name, &config()).expect("the name is free");
    let writer = Writer::open(&name).expect("the reader is there");
    assert!(matches!(
        Writer::open(&name),
        Err(AttachError::WriterAlreadyConnected { .. })
    ));
    drop((writer, reader));
    name.assert_nothing_left();
}
