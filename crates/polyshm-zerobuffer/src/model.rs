//! The shipped reader and writer under loom.
//!
//! The ring has 64 bytes and frames have 8 or 24, so that every header and
//! every data word is one of the region's modelled cells.

use crate::{BufferConfig, ReadError, WriteError, testing::HeapBuffer};
use loom::thread;
use polyshm_platform::Deadline;

/// `len` bytes that tell the frame.
fn data(len: usize, sequence: u64) -> Vec<u8> {
    (0..len).map(|i| (i as u64 + 17 * sequence) as u8).collect()
}

fn buffer() -> HeapBuffer {
    HeapBuffer::new(&BufferConfig::new(0, 64)).unwrap()
}

/// Explores every interleaving with at most `preemptions` forced switches; the
/// whole space is beyond reach, and bugs need few.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

#[test]
fn a_frame_is_seen_whole_and_in_order() {
    model(4, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        let sender = thread::spawn(move || {
            writer.write(&data(8, 1)).unwrap();
            let mut frame = writer.reserve(8).unwrap();
            frame.copy_from_slice(&data(8, 2));
            frame.commit().unwrap();
            writer
        });
        for sequence in 1..=2 {
            let frame = reader.read(Deadline::never()).unwrap();
            assert_eq!(
                (frame.sequence(), &*frame),
                (sequence, &data(8, sequence)[..])
            );
        }
        drop(sender.join().unwrap());
    });
}

#[test]
fn credit_released_out_of_order_never_frees_a_held_frame() {
    model(4, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        // Two frames of 24 bytes and a wrap: the third needs the first's room.
        writer.write(&data(8, 1)).unwrap();
        writer.write(&data(8, 2)).unwrap();
        let sender = thread::spawn(move || {
            writer.write_within(&data(8, 3), Deadline::never()).unwrap();
            writer
        });
        let first = reader.read(Deadline::never()).unwrap();
        let second = reader.read(Deadline::never()).unwrap();
        // The younger first: its room must wait for the older one's.
        drop(second);
        // The loan's end compares the bytes: overwritten ones fail here.
        drop(first);
        let third = reader.read(Deadline::never()).unwrap();
        assert_eq!((third.sequence(), &*third), (3, &data(8, 3)[..]));
        drop(third);
        drop(sender.join().unwrap());
        assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 64);
    });
}

#[test]
fn frames_that_fill_the_ring_exactly_are_not_taken_for_none() {
    model(3, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        let sender = thread::spawn(move || {
            // Two of 32 bytes are one lap.
            for sequence in 1..=3 {
                writer
                    .write_within(&data(16, sequence), Deadline::never())
                    .unwrap();
            }
            writer
        });
        for sequence in 1..=3 {
            let frame = reader.read(Deadline::never()).unwrap();
            assert_eq!(
                (frame.sequence(), &*frame),
                (sequence, &data(16, sequence)[..])
            );
        }
        drop(sender.join().unwrap());
    });
}

#[test]
fn a_writer_that_closes_wakes_the_reader_after_its_last_frame() {
    model(4, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        let sender = thread::spawn(move || {
            writer.write(&data(8, 1)).unwrap();
            writer.close().unwrap();
        });
        let frame = reader.read(Deadline::never()).unwrap();
        assert_eq!(&*frame, &data(8, 1)[..]);
        drop(frame);
        let end = reader.read(Deadline::never());
        assert!(
            matches!(end, Err(ReadError::WriterClosed { .. })),
            "{end:?}"
        );
        sender.join().unwrap();
    });
}

#[test]
fn a_reader_that_closes_wakes_a_waiting_writer() {
    model(4, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        writer.write(&data(24, 1)).unwrap();
        let sender = thread::spawn(move || {
            let full = writer.write_within(&data(24, 2), Deadline::never());
            assert!(
                matches!(full, Err(WriteError::ReaderClosed { .. })),
                "{full:?}"
            );
        });
        drop(reader);
        sender.join().unwrap();
    });
}

#[test]
fn a_release_wakes_a_writer_that_waits_for_an_empty_ring() {
    model(4, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        // 40 bytes at 0; the next 48 fit neither behind nor, with the tail,
        // before them: only in an empty ring, rewound.
        writer.write(&data(24, 1)).unwrap();
        let sender = thread::spawn(move || {
            writer
                .write_within(&data(32, 2), Deadline::never())
                .unwrap();
            assert_eq!(writer.stats().rewinds, 1);
            writer
        });
        for (sequence, len) in [(1, 24), (2, 32)] {
            let frame = reader.read(Deadline::never()).unwrap();
            assert_eq!(
                (frame.sequence(), &*frame),
                (sequence, &data(len, sequence)[..])
            );
        }
        drop(sender.join().unwrap());
        let header = buffer.header().unwrap();
        assert_eq!(
            (
                header.payload_free_bytes.get(),
                header.payload_read_pos.get()
            ),
            (64, 48)
        );
    });
}

#[test]
fn a_second_writer_attaches_while_the_reader_reads() {
    // Attaching has many steps: deeper takes minutes.
    model(1, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut first = buffer.writer().unwrap();
        first.write(&data(8, 1)).unwrap();
        let sender = thread::spawn({
            let buffer = buffer.clone();
            move || {
                first.close().unwrap();
                let mut second = buffer.writer().unwrap();
                assert_eq!(
                    second.write(&data(8, 2)).unwrap(),
                    2,
                    "the numbering goes on"
                );
                second
            }
        });
        let mut sender = Some(sender);
        let mut second = None;
        let mut seen = 0;
        while seen < 2 {
            match reader.read(Deadline::never()) {
                Ok(frame) => {
                    seen += 1;
                    assert_eq!((frame.sequence(), &*frame), (seen, &data(8, seen)[..]));
                }
                // Between the two the reader may find the buffer without a
                // writer; once the second is there, it must not.
                Err(ReadError::WriterClosed { .. }) => {
                    second = Some(sender.take().expect("a writer is attached").join().unwrap());
                }
                Err(error) => panic!("{error}"),
            }
        }
        drop(sender.map(|sender| sender.join().unwrap()));
        drop(second);
    });
}

#[test]
fn a_second_writer_attaches_while_the_frame_of_a_whole_lap_is_taken() {
    model(2, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut first = buffer.writer().unwrap();
        // All of the ring: its position stays where it was.
        first.write(&data(48, 1)).unwrap();
        first.close().unwrap();
        let attaching = thread::spawn({
            let buffer = buffer.clone();
            move || buffer.writer().unwrap()
        });
        let frame = reader.read(Deadline::never()).unwrap();
        assert_eq!(&*frame, &data(48, 1)[..]);
        let second = attaching.join().unwrap();
        assert_eq!(
            buffer.header().unwrap().payload_free_bytes.get(),
            0,
            "it is held"
        );
        drop(frame);
        assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 64);
        drop(second);
    });
}

#[test]
fn a_token_that_is_still_there_stands_for_later_credit() {
    model(3, || {
        let buffer = buffer();
        let reader = buffer.reader().unwrap();
        let mut writer = buffer.writer().unwrap();
        // Two of 24 bytes; 48 more need the room of both, and the tail.
        writer.write(&data(8, 1)).unwrap();
        writer.write(&data(8, 2)).unwrap();
        let sender = thread::spawn(move || {
            writer
                .write_within(&data(32, 3), Deadline::never())
                .unwrap();
            writer
        });
        // Each release posts only when no token is left.
        for (sequence, len) in [(1, 8), (2, 8), (3, 32)] {
            let frame = reader.read(Deadline::never()).unwrap();
            assert_eq!(
                (frame.sequence(), &*frame),
                (sequence, &data(len, sequence)[..])
            );
        }
        drop(sender.join().unwrap());
    });
}
