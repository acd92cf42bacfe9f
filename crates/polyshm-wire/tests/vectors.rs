//! Reads images that the C++ and Python implementations left behind and
//! compares everything the manifest says about them.

#![allow(missing_docs)]

mod common;

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use polyshm_wire::zerobuffer::{
    BLOCK_ALIGN, FrameHeader, FrameSpan, FrameWalk, Layout, OIEB_SIZE, Oieb, SIGNATURE,
    SemaphoreImage, describe,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

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

fn numbers(value: &Value) -> Vec<u64> {
    list(value).iter().map(number).collect()
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// The rule of all test data: byte i is (i + k) mod 256.
fn data(length: u64, k: u64) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_add(k) & 0xff) as u8)
        .collect()
}

/// Process identifiers differ from run to run: the manifest says only whether
/// they are 0.
fn assert_pid(name: &str, field: &str, found: u64, expected: &Value) {
    if expected.is_string() {
        assert!(text(expected).starts_with("nonzero"), "{name}: {field}");
        assert_ne!(found, 0, "{name}: {field}");
    } else {
        assert_eq!(found, number(expected), "{name}: {field}");
    }
}

/// The bytes that a `meta S K` step stored, if there was one.
fn metadata_of_steps(entry: &Value) -> Option<Vec<u8>> {
    let mut metadata = None;
    for step in list(&entry["steps"]) {
        let words: Vec<&str> = text(&step["command"]).split(' ').collect();
        if let ["meta", length, k] = words[..] {
            assert!(text(&step["result"]).starts_with("ok"));
            metadata = Some(data(length.parse().unwrap(), k.parse().unwrap()));
        }
    }
    metadata
}

fn check_header(name: &str, entry: &Value, image: &[u8]) -> Layout {
    let expected = &entry["expected_oieb"];
    let oieb = Oieb::read(image).unwrap();
    assert_eq!(oieb.to_bytes()[..], image[..index(OIEB_SIZE)], "{name}");
    assert_eq!(image[..8], SIGNATURE.to_le_bytes(), "{name}");

    // Every field the manifest lists, so that a new one cannot go unchecked.
    for (field, value) in expected.as_object().unwrap() {
        let found = match field.as_str() {
            "oieb_size" => u64::from(oieb.oieb_size.get()),
            "version" => {
                assert_eq!(oieb.version.map(u64::from)[..], numbers(value), "{name}");
                continue;
            }
            "metadata_size" => oieb.metadata_size.get(),
            "metadata_free_bytes" => oieb.metadata_free_bytes.get(),
            "metadata_written_bytes" => oieb.metadata_written_bytes.get(),
            "payload_size" => oieb.payload_size.get(),
            "payload_free_bytes" => oieb.payload_free_bytes.get(),
            "payload_write_pos" => oieb.payload_write_pos.get(),
            "payload_read_pos" => oieb.payload_read_pos.get(),
            "payload_written_count" => oieb.payload_written_count.get(),
            "payload_read_count" => oieb.payload_read_count.get(),
            "writer_pid" => {
                assert_pid(name, field, oieb.writer_pid.get(), value);
                continue;
            }
            "reader_pid" => {
                assert_pid(name, field, oieb.reader_pid.get(), value);
                continue;
            }
            "reserved" => {
                assert_eq!(oieb.reserved.map(u64::from)[..], numbers(value), "{name}");
                continue;
            }
            other => panic!("{name}: field {other} is not known here"),
        };
        assert_eq!(found, number(value), "{name}: {field}");
    }
    assert_eq!(expected.as_object().unwrap().len(), 14, "{name}");

    let layout = Layout::for_request(
        number(&entry["requested_metadata_size"]),
        number(&entry["requested_payload_size"]),
    )
    .unwrap();
    assert_eq!(layout.object_len(), image.len() as u64, "{name}");
    assert_eq!(
        Layout::from_header(&oieb, image.len() as u64),
        Ok(layout),
        "{name}"
    );
    assert_eq!(layout.payload_size() % BLOCK_ALIGN, 0, "{name}");
    oieb.check(&layout).unwrap();
    layout
}

fn check_frame_content(name: &str, ring: &[u8], frame: &FrameSpan, sha: &str) {
    let content = &ring[index(frame.data_offset())..index(frame.end())];
    assert_eq!(content, data(frame.length, frame.sequence), "{name}");
    assert_eq!(sha256(content), sha, "{name}: frame {}", frame.sequence);
}

/// Compares one image and returns how many frames were compared by content.
fn check_image(entry: &Value, image: &[u8]) -> usize {
    let name = text(&entry["name"]);
    assert_eq!(image.len() as u64, number(&entry["bytes"]), "{name}");
    assert_eq!(sha256(image), text(&entry["sha256"]), "{name}");
    let layout = check_header(name, entry, image);
    let seen = describe(image).unwrap_or_else(|error| panic!("{name}: {error}"));

    let stored = seen.metadata.map(|span| {
        assert_eq!(span.offset, 136, "{name}");
        let content = &image[index(span.offset)..index(span.offset + span.length)];
        content.to_vec()
    });
    assert_eq!(stored, metadata_of_steps(entry), "{name}: metadata");

    let ring = &image[index(layout.payload_offset())..index(layout.object_len())];
    let mut frames = 0;

    let chain = list(&entry["chain_from_offset_0_to_write_pos"]);
    assert_eq!(seen.lap.len(), chain.len(), "{name}: lap");
    for (frame, expected) in seen.lap.iter().zip(chain) {
        assert_eq!(frame.offset, number(&expected["payload_offset"]), "{name}");
        assert_eq!(frame.length, number(&expected["length"]), "{name}");
        assert_eq!(frame.sequence, number(&expected["sequence"]), "{name}");
        assert_eq!(text(&expected["data_rule"]), "byte[i]=(i+sequence)%256");
        check_frame_content(name, ring, frame, text(&expected["sha256"]));
        frames += 1;
    }

    let sequences: Vec<u64> = seen.pending.iter().map(|frame| frame.sequence).collect();
    assert_eq!(
        sequences,
        numbers(&entry["sequences_pending"]),
        "{name}: pending"
    );
    let sent = list(&entry["frames_sent"]);
    for frame in &seen.pending {
        let expected = sent
            .iter()
            .find(|sent| number(&sent["sequence"]) == frame.sequence)
            .unwrap_or_else(|| panic!("{name}: frame {} was never sent", frame.sequence));
        assert_eq!(frame.length, number(&expected["length"]), "{name}");
        check_frame_content(name, ring, frame, text(&expected["sha256"]));
        frames += 1;
    }
    // One post of sem-w per frame and one wait per read.
    assert_eq!(
        seen.pending.len() as u64,
        number(&entry["expected_semaphores"]["sem-w"]),
        "{name}: sem-w"
    );

    // Frames read and not released, in bytes.
    let released = numbers(&entry["sequences_released"]);
    let held: u64 = numbers(&entry["sequences_read"])
        .iter()
        .filter(|sequence| !released.contains(sequence))
        .map(|sequence| {
            let frame = sent.iter().find(|f| number(&f["sequence"]) == *sequence);
            16 + number(&frame.unwrap()["length"])
        })
        .sum();
    assert_eq!(seen.held_bytes, held, "{name}: held bytes");

    let used = seen.payload_size - seen.payload_free_bytes;
    let utilisation = used as f64 / seen.payload_size as f64;
    assert!(
        (seen.utilisation - utilisation).abs() < f64::EPSILON,
        "{name}"
    );
    frames
}

#[test]
fn every_image_reads_as_the_manifest_says() {
    let images = common::images();
    let mut names = BTreeSet::new();
    let mut frames = 0;
    for (entry, image) in &images {
        frames += check_image(entry, image);
        assert!(names.insert(text(&entry["file"]).to_owned()));
    }

    let semaphores = common::manifest()["semaphore_images"]
        .as_object()
        .unwrap()
        .clone();
    for file in semaphores.keys() {
        let value = match file.as_str() {
            "glibc_sem_initial.bin" => 0,
            "glibc_sem_three_posts.bin" => 3,
            other => panic!("{other} is not known here"),
        };
        let bytes = common::load(file);
        assert_eq!(bytes.len(), 32, "{file}");
        let expected = SemaphoreImage {
            value,
            waiters: 0,
            shared: true,
        };
        assert_eq!(SemaphoreImage::parse(&bytes), Ok(expected), "{file}");
        assert!(names.insert(file.clone()));
    }

    assert_eq!(images.len(), 74);
    assert_eq!(semaphores.len(), 2);
    assert_eq!(frames, 200);
    println!(
        "checked {} images, {} semaphore images, {frames} frames",
        images.len(),
        semaphores.len()
    );

    // No image lies there unchecked.
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/zerobuffer");
    let mut files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(files.remove("manifest.json"));
    assert_eq!(files, names);
}

/// The two shapes of the end of a ring that decide most of the walk.
#[test]
fn wrap_markers_are_where_the_notes_say() {
    let mut markers = 0;
    let mut short_tails = 0;
    for (entry, image) in common::images() {
        let name = text(&entry["name"]);
        let seen = describe(&image).unwrap();
        let ring = &image[index(OIEB_SIZE + seen.metadata_size)..];
        let at = index(seen.payload_read_pos);
        if name.ends_with("wrap_marker_pending") || name.ends_with("marker_exactly_16_left") {
            assert_eq!(ring[at..at + 16], FrameHeader::MARKER_BYTES, "{name}");
            markers += 1;
        }
        if name.ends_with("tail_8_no_marker") {
            assert_eq!(ring.len() - at, 8, "{name}");
            let walk = FrameWalk::pending(ring, &Oieb::read(&image).unwrap()).unwrap();
            let frames: Vec<_> = walk.map(Result::unwrap).collect();
            assert_eq!(frames, seen.pending, "{name}");
            assert_eq!(frames[0].offset, 0, "{name}");
            short_tails += 1;
        }
    }
    assert_eq!((markers, short_tails), (8, 4));
}

/// A fresh image by this crate is the reference's, but for the process
/// identifier.
#[test]
fn a_fresh_image_is_identical() {
    let mut compared = 0;
    for (entry, image) in common::images() {
        if !entry["writer_implementation"].is_null() {
            continue;
        }
        let layout = Layout::for_request(
            number(&entry["requested_metadata_size"]),
            number(&entry["requested_payload_size"]),
        )
        .unwrap();
        let reader_pid = Oieb::read(&image).unwrap().reader_pid.get();
        let mut ours = Oieb::new(&layout, reader_pid).to_bytes().to_vec();
        ours.resize(index(layout.object_len()), 0);
        assert!(ours == image, "{}", entry["name"]);
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[cfg(feature = "serde")]
#[test]
fn descriptions_survive_serde() {
    for (_, image) in common::images() {
        let seen = describe(&image).unwrap();
        let json = serde_json::to_string(&seen).unwrap();
        let back: polyshm_wire::zerobuffer::Description = serde_json::from_str(&json).unwrap();
        assert_eq!(back, seen);
    }
}
