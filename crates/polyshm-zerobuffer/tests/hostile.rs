//! Damaged and hostile buffers, on the heap: every operation ends in correct
//! data or in an error, never in a panic, a hang or an access outside.
//!
//! `POLYSHM_HOSTILE_IMAGES` says how many images (a million by default in an
//! optimised build).
#![cfg(not(loom))]

use polyshm_testkit::images_wanted;
use polyshm_wire::zerobuffer::{OIEB_SIZE, describe, offset};
use polyshm_zerobuffer::{
    BufferConfig, ReadError, WriteError,
    testing::{HeapBuffer, TestData},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Xorshift64*: the same images in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The 64-bit fields, by offset; the first holds size and version.
const FIELDS: [usize; 16] = [
    offset::OIEB_SIZE,
    offset::METADATA_SIZE,
    offset::METADATA_FREE_BYTES,
    offset::METADATA_WRITTEN_BYTES,
    offset::PAYLOAD_SIZE,
    offset::PAYLOAD_FREE_BYTES,
    offset::PAYLOAD_WRITE_POS,
    offset::PAYLOAD_READ_POS,
    offset::PAYLOAD_WRITTEN_COUNT,
    offset::PAYLOAD_READ_COUNT,
    offset::WRITER_PID,
    offset::READER_PID,
    offset::RESERVED,
    offset::RESERVED + 8,
    offset::RESERVED + 16,
    offset::RESERVED + 24,
];

/// 0, 1, the largest, one more, one less.
fn edges(value: u64) -> [u64; 5] {
    [0, 1, u64::MAX, value.wrapping_add(1), value.wrapping_sub(1)]
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

fn set_word(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Images of valid buffers in many states, with their tokens. Both sides are
/// this process, so that both can attach.
fn valid_images() -> Vec<(Vec<u8>, u32)> {
    let mut images = Vec::new();
    let mut keep = |buffer: &HeapBuffer| {
        let mut image = buffer.image();
        set_word(&mut image, offset::WRITER_PID, 0);
        let tokens = buffer.data_ready().value().expect("it has a value");
        // As of a foreign reader, too: without the native words.
        let mut foreign = image.clone();
        foreign[offset::RESERVED..OIEB_SIZE as usize].fill(0);
        images.push((image, tokens));
        images.push((foreign, tokens));
    };
    let mut random = Random(4);
    for (metadata, payload) in [(64, 64), (64, 256), (0, 1024), (128, 448)] {
        let buffer = HeapBuffer::new(&BufferConfig::new(metadata, payload)).expect("a layout");
        keep(&buffer);
        let reader = buffer.reader().expect("it is valid");
        let mut writer = buffer.writer().expect("it is valid");
        if metadata > 0 {
            writer.set_metadata(b"metadata").expect("it fits");
            keep(&buffer);
        }
        for _ in 0..12 {
            let len = 1 + random.below(payload as usize - 16);
            let sequence = writer.stats().frames + 1;
            let sent = writer.try_write(&TestData::frame(len, sequence)).is_ok();
            keep(&buffer);
            if !sent || random.below(3) > 0 {
                let frame = reader.try_read().expect("it is valid");
                keep(&buffer);
                drop(frame);
                keep(&buffer);
            }
        }
    }
    images
}

/// What came of the operations, by name.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

/// Uses an image as reader and as writer, every operation there is.
fn use_image(image: &[u8], tokens: u32, counts: &mut Counts) {
    counts.add("images");
    counts.add(if describe(image).is_ok() {
        "described"
    } else {
        "description refused"
    });
    let buffer = HeapBuffer::from_image(image, tokens);
    match buffer.reader() {
        Err(_) => counts.add("reader refused"),
        Ok(reader) => {
            counts.add("reader opened");
            match reader.metadata() {
                Ok(Some(metadata)) => {
                    counts.add("metadata");
                    std::hint::black_box(metadata.iter().fold(0u8, |sum, byte| sum ^ byte));
                }
                Ok(None) => counts.add("no metadata"),
                Err(_) => counts.add("metadata refused"),
            }
            let mut held = Vec::new();
            // More tries than any image has frames.
            for _ in 0..20 {
                match reader.try_read() {
                    Ok(Some(frame)) => {
                        counts.add("frames");
                        // Reads every byte that was lent.
                        std::hint::black_box(frame.iter().fold(0u8, |sum, byte| sum ^ byte));
                        held.push(frame);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        counts.add(match error {
                            ReadError::Sequence { .. } => "sequence errors",
                            ReadError::Corrupt { .. } => "corrupt",
                            ReadError::WriterClosed { .. } | ReadError::WriterDead { .. } => "ends",
                            _ => "other read errors",
                        });
                        break;
                    }
                }
                if held.len() == 3 {
                    drop(held.remove(1));
                    held.clear();
                }
            }
            drop(held);
            // Closing would store 0 as the reader's pid; the writer comes next.
            std::mem::forget(reader);
        }
    }
    let buffer = HeapBuffer::from_image(image, tokens);
    match buffer.writer() {
        Err(_) => counts.add("writer refused"),
        Ok(mut writer) => {
            counts.add("writer attached");
            counts.add(if writer.set_metadata(b"m").is_ok() {
                "metadata set"
            } else {
                "metadata kept"
            });
            for len in [1, 40, 17, 200, 8] {
                let written = if len % 2 == 0 {
                    writer.try_write(&[1; 200][..len]).map(drop)
                } else {
                    writer.try_reserve(len).and_then(|mut frame| {
                        frame.fill(2);
                        frame.commit().map(drop)
                    })
                };
                counts.add(match written {
                    Ok(()) => "written",
                    Err(WriteError::Full { .. } | WriteError::FrameTooLarge { .. }) => "no room",
                    Err(WriteError::Corrupt { .. }) => "write refused as corrupt",
                    Err(_) => "other write errors",
                });
            }
        }
    }
}

/// Ends the process when nothing moves: a hang is a failure, and says where.
fn watch(progress: &Arc<AtomicU64>, now: &Arc<Mutex<String>>) {
    let (progress, now) = (Arc::clone(progress), Arc::clone(now));
    std::thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            std::thread::sleep(Duration::from_mins(1));
            let seen = progress.load(Ordering::Relaxed);
            if seen == last {
                let at = now.lock().map(|now| now.clone()).unwrap_or_default();
                eprintln!("no progress for a minute at {at}");
                std::process::abort();
            }
            last = seen;
        }
    });
}

#[test]
fn mutated_images_end_in_data_or_an_error() {
    let progress = Arc::new(AtomicU64::new(0));
    let now = Arc::new(Mutex::new(String::new()));
    watch(&progress, &now);
    let mut counts = Counts::default();
    let mut run = |what: &str, image: &[u8], tokens: u32| {
        let number = progress.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(1024) {
            *now.lock().expect("nobody panics with it") = format!("{what}, image {number}");
        }
        use_image(image, tokens, &mut counts);
    };
    let valid = valid_images();

    // Every field at 0, 1, max and off by one, in every state; and every
    // eight-byte place where a header can be.
    for (image, tokens) in &valid {
        run("unchanged", image, *tokens);
        let last = image.len() - 8;
        let headers = (OIEB_SIZE as usize..=last).step_by(8);
        for at in FIELDS.into_iter().chain(headers) {
            for value in edges(word(image, at)) {
                let mut mutated = image.clone();
                set_word(&mut mutated, at, value);
                run("field", &mutated, *tokens);
            }
        }
        for tokens in [0, 1, tokens + 1, 100] {
            run("tokens", image, tokens);
        }
        for len in [0, 1, 8, 127, 128, 129, image.len() - 64, image.len() - 1] {
            run("cut", &image[..len], *tokens);
        }
    }
    let systematic = progress.load(Ordering::Relaxed);

    // And several changes at once, of plausible sizes.
    let mut random = Random(8);
    while progress.load(Ordering::Relaxed) < images_wanted().max(systematic + 1000) {
        let (image, tokens) = &valid[random.below(valid.len())];
        let mut mutated = image.clone();
        for _ in 0..=random.below(4) {
            let at = match random.below(4) {
                0 => random.below(mutated.len() - 7),
                _ => FIELDS[random.below(FIELDS.len())],
            };
            let value = match random.below(5) {
                0 => random.next(),
                1 => random.next() >> random.below(64),
                2 => word(&mutated, FIELDS[random.below(FIELDS.len())]),
                3 => edges(word(&mutated, at))[random.below(5)],
                _ => word(&mutated, at) ^ (1 << random.below(64)),
            };
            set_word(&mut mutated, at, value);
        }
        let tokens = if random.below(3) == 0 {
            random.below(6) as u32
        } else {
            *tokens
        };
        run("random", &mutated, tokens);
    }
    let images = progress.load(Ordering::Relaxed);
    println!("{images} images ({systematic} systematic): {:?}", counts.0);
    // The mutations reach all the code: each outcome occurs.
    for outcome in [
        "frames",
        "sequence errors",
        "corrupt",
        "reader refused",
        "writer refused",
        "written",
        "metadata refused",
    ] {
        assert!(
            counts.0.contains_key(outcome),
            "no image led to {outcome:?}"
        );
    }
    let live = live_mutations(&progress, &now);
    polyshm_testkit::report(
        "zerobuffer-hostile.json",
        &serde_json::json!({ "images": images, "systematic": systematic, "outcomes": counts.0, "live": live.0 }),
    );
}

/// A pair at work, and between two operations one word of the header changes:
/// each frame that arrives is whole and the one due, or there is an error.
fn live_mutations(progress: &Arc<AtomicU64>, now: &Arc<Mutex<String>>) -> Counts {
    let mut counts = Counts::default();
    let mut random = Random(15);
    for round in 0..images_wanted() / 10 {
        progress.fetch_add(1, Ordering::Relaxed);
        if round.is_multiple_of(1024) {
            *now.lock().expect("nobody panics with it") = format!("live round {round}");
        }
        counts.add("rounds");
        let payload = [64, 256, 448][random.below(3)];
        let buffer = HeapBuffer::new(&BufferConfig::new(64, payload)).expect("a layout");
        let reader = buffer.reader().expect("it is valid");
        let mut writer = buffer.writer().expect("it is valid");
        let mut held = Vec::new();
        let mut due = 1;
        let strike = random.below(30);
        for step in 0..40 {
            if step == strike {
                let image = buffer.image();
                let at = FIELDS[random.below(FIELDS.len())];
                let old = word(&image, at);
                let value = match random.below(3) {
                    0 => random.next() >> random.below(64),
                    1 => old.wrapping_add(random.below(64) as u64).wrapping_sub(32),
                    _ => edges(old)[random.below(5)],
                };
                buffer.poke(at, &value.to_le_bytes());
            }
            match random.below(3) {
                0 => {
                    let len = 1 + random.below(payload as usize - 16);
                    let number = writer.stats().frames + 1;
                    match writer.try_write(&TestData::frame(len, number)) {
                        Ok(_) => counts.add("written"),
                        Err(WriteError::Full { .. }) => counts.add("full"),
                        Err(_) => counts.add("write refused"),
                    }
                }
                1 => match reader.try_read() {
                    Ok(Some(frame)) => {
                        assert_eq!(
                            frame.sequence(),
                            due,
                            "round {round}: another frame than the one due"
                        );
                        assert!(
                            TestData::is_frame(&frame, due),
                            "round {round}: frame {due} is wrong"
                        );
                        due += 1;
                        counts.add("frames");
                        held.push(frame);
                    }
                    Ok(None) => counts.add("nothing"),
                    Err(_) => counts.add("read refused"),
                },
                _ => {
                    if !held.is_empty() {
                        let frame = held.swap_remove(random.below(held.len()));
                        assert!(
                            TestData::is_frame(&frame, frame.sequence()),
                            "round {round}: a held frame was overwritten"
                        );
                    }
                }
            }
        }
    }
    counts
}
