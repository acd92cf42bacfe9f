//! Images that a hostile or broken peer could leave: every answer must be an
//! error or a description that stays inside the image.

#![allow(missing_docs)]

mod common;

use polyshm_wire::zerobuffer::{
    FrameSpan, ImageError, Layout, Oieb, SemaphoreImage, describe, offset,
};
use proptest::prelude::*;

const WORDS: [usize; 15] = [
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

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

fn set_word(image: &mut [u8], at: usize, value: u64) {
    image[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn assert_inside(spans: &[FrameSpan], payload_size: u64) {
    let mut covered = 0_u64;
    for span in spans {
        assert_ne!(span.length, 0);
        let end = span
            .offset
            .checked_add(16)
            .and_then(|data| data.checked_add(span.length))
            .expect("a span overflows");
        assert_eq!(end, span.end());
        assert!(end <= payload_size, "{span:?} leaves {payload_size}");
        covered += span.total();
    }
    // No byte belongs to two frames of one list.
    assert!(covered <= payload_size, "{covered} bytes in {payload_size}");
}

/// Describes any bytes; `true` when they were accepted.
fn probe(image: &[u8]) -> bool {
    let Ok(seen) = describe(image) else {
        return false;
    };
    let len = image.len() as u64;
    assert!(128 + seen.metadata_size + seen.payload_size <= len);
    assert!(seen.payload_write_pos <= seen.payload_size);
    assert!(seen.payload_read_pos <= seen.payload_size);
    assert!(seen.held_bytes <= seen.payload_size);
    assert!((0.0..=1.0).contains(&seen.utilisation));
    if let Some(metadata) = seen.metadata {
        assert!(metadata.offset + metadata.length <= 128 + seen.metadata_size);
    }
    assert_inside(&seen.lap, seen.payload_size);
    assert_inside(&seen.pending, seen.payload_size);
    true
}

/// What a field is set to, given what it was and the sizes around it.
fn values(was: u64, image: &[u8]) -> Vec<u64> {
    let payload = word(image, offset::PAYLOAD_SIZE);
    let len = image.len() as u64;
    let mut values = vec![
        0,
        1,
        7,
        8,
        15,
        16,
        17,
        u64::MAX,
        u64::MAX - 1,
        u64::MAX - 15,
        u64::MAX - 128,
        1 << 31,
        1 << 32,
        1 << 40,
        1 << 63,
    ];
    for near in [was, payload, len, payload / 2] {
        for step in [0, 1, 8, 15, 16, 17] {
            values.push(near.wrapping_add(step));
            values.push(near.wrapping_sub(step));
        }
    }
    values
}

#[test]
fn each_header_field_changed() {
    let (mut tried, mut accepted) = (0_u32, 0_u32);
    for (_, original) in common::images() {
        for at in WORDS {
            for value in values(word(&original, at), &original) {
                let mut image = original.clone();
                set_word(&mut image, at, value);
                tried += 1;
                accepted += u32::from(probe(&image));
            }
        }
        for at in 0..8 {
            for value in [0, 1, 2, 127, 128, 129, 255] {
                let mut image = original.clone();
                image[at] = value;
                tried += 1;
                accepted += u32::from(probe(&image));
            }
        }
    }
    println!("{tried} images, {accepted} accepted");
    // Neither answer may become the only one.
    assert!(accepted > 10_000 && tried - accepted > 10_000);
}

#[test]
fn pairs_of_ring_fields_changed() {
    let ring = [
        offset::PAYLOAD_FREE_BYTES,
        offset::PAYLOAD_WRITE_POS,
        offset::PAYLOAD_READ_POS,
        offset::PAYLOAD_SIZE,
    ];
    for (_, original) in common::images() {
        let payload = word(&original, offset::PAYLOAD_SIZE);
        let some = [0, 1, 16, 116, payload - 16, payload - 8, payload];
        for first in ring {
            for second in ring {
                for one in some {
                    for other in some {
                        let mut image = original.clone();
                        set_word(&mut image, first, one);
                        set_word(&mut image, second, other);
                        probe(&image);
                    }
                }
            }
        }
    }
}

#[test]
fn each_frame_length_changed() {
    let (mut refused, mut tried) = (0_u32, 0_u32);
    for (_, original) in common::images() {
        let seen = describe(&original).unwrap();
        let base = 128 + seen.metadata_size;
        for span in seen.lap.iter().chain(&seen.pending) {
            let at = usize::try_from(base + span.offset).unwrap();
            for value in values(span.length, &original) {
                let mut image = original.clone();
                set_word(&mut image, at, value);
                tried += 1;
                refused += u32::from(!probe(&image));
            }
            // The lap must end at the write position exactly.
            if seen.lap.contains(span) {
                let mut image = original.clone();
                set_word(&mut image, at, u64::MAX - 15);
                assert!(matches!(
                    describe(&image),
                    Err(ImageError::FrameLength { .. })
                ));
                set_word(&mut image, at, 0);
                assert!(matches!(
                    describe(&image),
                    Err(ImageError::UnexpectedMarker { .. })
                ));
            }
        }
    }
    println!("{tried} images, {refused} refused");
    assert!(refused > 1000);
}

#[test]
fn truncated_images() {
    for (_, image) in common::images() {
        for len in (0..image.len()).step_by(37).chain(0..260.min(image.len())) {
            let result = describe(&image[..len]);
            if len < 128 {
                let need = 128;
                let len = len as u64;
                assert_eq!(result.unwrap_err(), ImageError::TooShort { len, need });
            } else {
                assert!(matches!(result, Err(ImageError::SizesExceedObject { .. })));
            }
        }
        // A longer object is fine: mappings are rounded up to pages elsewhere.
        let mut longer = image.clone();
        longer.resize(image.len() + 999, 0xff);
        assert_eq!(describe(&longer), describe(&image));
    }
}

/// The values that crash or mislead the reference implementations, each with
/// the error it must give here.
#[test]
fn known_attacks_are_named() {
    let layout = Layout::for_request(64, 256).unwrap();
    let attack = |change: fn(&mut Oieb), prefix: u64| {
        let mut oieb = Oieb::new(&layout, 1);
        change(&mut oieb);
        let mut image = oieb.to_bytes().to_vec();
        image.resize(448, 0);
        set_word(&mut image, 128, prefix);
        describe(&image).unwrap_err()
    };
    let found = 1 << 40;
    let payload_size = 256;
    assert_eq!(
        attack(|o| o.payload_read_pos.set(1 << 40), 0),
        ImageError::ReadPosition {
            found,
            payload_size
        }
    );
    assert_eq!(
        attack(|o| o.payload_write_pos.set(1 << 40), 0),
        ImageError::WritePosition {
            found,
            payload_size
        }
    );
    assert_eq!(
        attack(|o| o.payload_free_bytes.set(512), 0),
        ImageError::FreeBytes {
            found: 512,
            payload_size
        }
    );
    assert_eq!(
        attack(|o| o.metadata_written_bytes.set(4), 1 << 40),
        ImageError::MetadataWritten {
            found: 4,
            metadata_size: 64
        }
    );
    assert_eq!(
        attack(|o| o.metadata_written_bytes.set(64), 1 << 40),
        ImageError::MetadataLength { found, written: 64 }
    );
    assert_eq!(
        attack(|o| o.metadata_size.set(1 << 40), 0),
        ImageError::SizesExceedObject {
            metadata_size: found,
            payload_size,
            object_len: 448
        }
    );
    assert_eq!(attack(|o| o.payload_size.set(0), 0), ImageError::EmptyRing);
}

/// The longest lists that an image can demand: one-byte frames everywhere.
#[test]
fn lists_grow_with_the_image_only() {
    let size = 17 * 64 * 100;
    let layout = Layout::for_request(0, size).unwrap();
    let mut oieb = Oieb::new(&layout, 1);
    oieb.payload_write_pos.set(size);
    oieb.payload_free_bytes.set(0);
    oieb.payload_written_count.set(1);
    let mut image = oieb.to_bytes().to_vec();
    for sequence in 0..size / 17 {
        image.extend_from_slice(&1_u64.to_le_bytes());
        image.extend_from_slice(&sequence.to_le_bytes());
        image.push(0);
    }
    let seen = describe(&image).unwrap();
    assert_eq!(seen.lap.len() as u64, size / 17);
    assert_eq!(seen.pending, seen.lap);
}

proptest! {
    #[test]
    fn any_bytes(image in prop::collection::vec(any::<u8>(), 0..600)) {
        probe(&image);
        let _ = SemaphoreImage::parse(&image);
    }

    /// Plausible sizes and positions over a ring of small lengths, which reach
    /// the walks far more often than random bytes do.
    #[test]
    fn plausible_headers(
        metadata in 0_u64..80,
        payload in 1_u64..400,
        fields in prop::array::uniform7(0_u64..420),
        ring in prop::collection::vec(prop_oneof![4 => Just(0_u8), 1 => 0_u8..40], 480),
    ) {
        let mut oieb = Oieb::new(&Layout::for_request(0, 64).unwrap(), 1);
        oieb.metadata_size.set(metadata);
        oieb.payload_size.set(payload);
        oieb.metadata_free_bytes.set(fields[0] % (metadata + 2));
        oieb.metadata_written_bytes.set(fields[1] % (metadata + 2));
        oieb.payload_free_bytes.set(fields[2] % (payload + 2));
        oieb.payload_write_pos.set(fields[3] % (payload + 2));
        oieb.payload_read_pos.set(fields[4] % (payload + 2));
        oieb.payload_written_count.set(fields[5]);
        oieb.payload_read_count.set(fields[6]);
        let mut image = oieb.to_bytes().to_vec();
        image.extend_from_slice(&ring);
        probe(&image);
    }

    /// A few bytes of a real image changed.
    #[test]
    fn flipped_bytes(
        which in 0..common::IMAGES,
        flips in prop::collection::vec((0_usize..6000, any::<u8>()), 1..8),
    ) {
        let name = &common::manifest()["vectors"][which]["file"];
        let mut image = common::load(name.as_str().unwrap());
        let len = image.len();
        for (at, value) in flips {
            // Half of the changes go to the header and the first frames.
            let at = if at % 2 == 0 { at % 256.min(len) } else { at % len };
            image[at] = value;
        }
        probe(&image);
    }

    /// Whatever a correct writer and reader do, the frames still unread are the
    /// ones listed.
    #[test]
    fn a_model_ring_is_read_back(
        steps in prop::collection::vec((any::<bool>(), 1_u64..90), 1..60),
        reduce in any::<bool>(),
    ) {
        let layout = Layout::for_request(64, 256).unwrap();
        let size = layout.payload_size();
        let mut oieb = Oieb::new(&layout, 1);
        let mut ring = vec![0_u8; 256];
        let mut queue = std::collections::VecDeque::new();
        let mut sequence = 0;
        for (write, length) in steps {
            let free = oieb.payload_free_bytes.get();
            if write {
                let total = 16 + length;
                let at = oieb.payload_write_pos.get();
                let tail = size - at;
                let needed = if tail >= total { total } else { tail + total };
                if free < needed {
                    continue;
                }
                let mut start = at;
                let mut count = 1;
                if tail < total {
                    if tail >= 16 {
                        let at = usize::try_from(at).unwrap();
                        ring[at..at + 16].fill(0);
                        count += 1;
                    }
                    start = 0;
                }
                sequence += 1;
                let header = usize::try_from(start).unwrap();
                set_word(&mut ring, header, length);
                set_word(&mut ring, header + 8, sequence);
                let data = usize::try_from(length).unwrap();
                ring[header + 16..header + 16 + data].fill(0xab);
                let end = start + total;
                oieb.payload_write_pos.set(if reduce { end % size } else { end });
                oieb.payload_free_bytes.set(free - needed);
                let written = oieb.payload_written_count.get();
                oieb.payload_written_count.set(written + count);
                queue.push_back((sequence, length));
            } else if let Some((sequence, length)) = queue.pop_front() {
                // As a reader does it, from the header at its position.
                let mut at = oieb.payload_read_pos.get();
                let mut credit = 16 + length;
                let mut count = 1;
                let tail = size - at;
                if tail < 16 || word(&ring, usize::try_from(at).unwrap()) == 0 {
                    credit += tail;
                    count += u64::from(tail >= 16);
                    at = 0;
                }
                let header = usize::try_from(at).unwrap();
                prop_assert_eq!(word(&ring, header + 8), sequence);
                oieb.payload_read_pos.set((at + 16 + length) % size);
                oieb.payload_free_bytes.set(free + credit);
                oieb.payload_read_count.set(oieb.payload_read_count.get() + count);
            }
            let mut image = oieb.to_bytes().to_vec();
            image.resize(192, 0);
            image.extend_from_slice(&ring);
            let seen = describe(&image).unwrap();
            let found: Vec<_> = seen.pending.iter().map(|f| (f.sequence, f.length)).collect();
            let expected: Vec<_> = queue.iter().copied().collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(seen.held_bytes, 0);
        }
    }
}
