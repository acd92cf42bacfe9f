//! States that a dead writer of any implementation leaves, made by hand on the
//! heap, and what the next writer or the reader makes of them.
#![cfg(not(loom))]

use polyshm_wire::zerobuffer::offset;
use polyshm_zerobuffer::{
    BufferConfig, ReadError, Reader, WriteError, Writer,
    testing::{HeapBuffer, TestData},
};
use std::time::Duration;

fn buffer() -> (HeapBuffer, Reader, Writer) {
    let buffer = HeapBuffer::new(&BufferConfig::new(64, 256)).unwrap();
    let reader = buffer.reader().unwrap();
    let writer = buffer.writer().unwrap();
    (buffer, reader, writer)
}

fn send(writer: &mut Writer, sequence: u64, len: usize) {
    assert_eq!(
        writer.try_write(&TestData::frame(len, sequence)).unwrap(),
        sequence
    );
}

fn receive(reader: &Reader, sequence: u64) {
    let frame = reader.try_read().unwrap().expect("it was sent");
    assert_eq!(frame.sequence(), sequence);
    assert!(TestData::is_frame(&frame, sequence));
}

fn add(buffer: &HeapBuffer, at: usize, by: i64) {
    let now = u64::from_le_bytes(buffer.image()[at..at + 8].try_into().unwrap());
    buffer.poke(at, &now.wrapping_add_signed(by).to_le_bytes());
}

/// As if the process were gone, without a word.
fn vanish(buffer: &HeapBuffer, writer: Writer) {
    buffer.abandon(writer);
    buffer.poke(offset::WRITER_PID, &[0; 8]);
}

fn everything_is_back(buffer: &HeapBuffer, reader: &Reader, writer: &mut Writer) {
    let sequence = writer.try_write(&[9; 240]).expect("the whole ring is free");
    let frame = reader.try_read().unwrap().expect("it was sent");
    assert_eq!((frame.sequence(), &*frame), (sequence, &[9; 240][..]));
    drop(frame);
    assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 256);
    assert_eq!(buffer.data_ready().value().unwrap(), 0);
}

/// A count that a dead writer left one too low must not make a later ring,
/// full to the last byte, look like an empty one.
#[test]
fn an_uncounted_frame_does_not_cost_later_ones() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 112);
    receive(&reader, 1);
    vanish(&buffer, writer);
    add(&buffer, offset::PAYLOAD_WRITTEN_COUNT, -1);
    let mut writer = buffer.writer().unwrap();
    // 128 + 128: one lap, to where the reader stands.
    send(&mut writer, 2, 112);
    send(&mut writer, 3, 112);
    vanish(&buffer, writer);
    let mut writer = buffer.writer().unwrap();
    receive(&reader, 2);
    receive(&reader, 3);
    everything_is_back(&buffer, &reader, &mut writer);
}

#[test]
fn a_published_frame_without_its_post_is_found_by_the_next_writer() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    assert!(buffer.data_ready().try_wait().unwrap());
    vanish(&buffer, writer);
    let mut writer = buffer.writer().unwrap();
    send(&mut writer, 2, 40);
    receive(&reader, 1);
    receive(&reader, 2);
    everything_is_back(&buffer, &reader, &mut writer);
}

#[test]
fn a_published_frame_without_its_post_is_found_by_the_reader() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    writer.close().unwrap();
    while buffer.data_ready().try_wait().unwrap() {}
    receive(&reader, 1);
    assert!(matches!(
        reader.try_read(),
        Err(ReadError::WriterClosed { .. })
    ));
    everything_is_back(&buffer, &reader, &mut buffer.writer().unwrap());
}

#[test]
fn credit_taken_without_a_frame_comes_back() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    let held = reader.try_read().unwrap().expect("it was sent");
    vanish(&buffer, writer);
    add(&buffer, offset::PAYLOAD_FREE_BYTES, -100);
    let mut writer = buffer.writer().unwrap();
    assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 200);
    assert!(TestData::is_frame(&held, 1));
    drop(held);
    everything_is_back(&buffer, &reader, &mut writer);
}

/// Other implementations store the position before they take the credit.
#[test]
fn credit_not_yet_taken_for_a_published_frame_is_taken() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    send(&mut writer, 2, 84);
    vanish(&buffer, writer);
    assert!(buffer.data_ready().try_wait().unwrap());
    add(&buffer, offset::PAYLOAD_FREE_BYTES, 100);
    let mut writer = buffer.writer().unwrap();
    assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 100);
    receive(&reader, 1);
    receive(&reader, 2);
    everything_is_back(&buffer, &reader, &mut writer);
}

/// The same with a reader that does not say what it holds.
#[test]
fn too_much_credit_is_also_taken_with_a_foreign_reader() {
    let (buffer, _reader, mut writer) = buffer();
    buffer.poke(offset::RESERVED, &[0; 32]);
    send(&mut writer, 1, 40);
    send(&mut writer, 2, 84);
    vanish(&buffer, writer);
    add(&buffer, offset::PAYLOAD_FREE_BYTES, 100);
    let mut writer = buffer.writer().unwrap();
    assert_eq!(buffer.header().unwrap().payload_free_bytes.get(), 100);
    send(&mut writer, 3, 10);
}

#[test]
fn tokens_without_frames_are_taken_off() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    vanish(&buffer, writer);
    for _ in 0..3 {
        buffer.data_ready().post().unwrap();
    }
    let mut writer = buffer.writer().unwrap();
    assert_eq!(buffer.data_ready().value().unwrap(), 1);
    receive(&reader, 1);
    everything_is_back(&buffer, &reader, &mut writer);
}

#[test]
fn a_rewind_cut_short_is_finished() {
    for (position, value) in [
        (offset::PAYLOAD_WRITE_POS, 0u64),
        (offset::PAYLOAD_READ_POS, 0),
    ] {
        let (buffer, reader, mut writer) = buffer();
        send(&mut writer, 1, 100);
        receive(&reader, 1);
        vanish(&buffer, writer);
        buffer.poke(position, &value.to_le_bytes());
        let mut writer = buffer.writer().unwrap();
        send(&mut writer, 2, 100);
        receive(&reader, 2);
        everything_is_back(&buffer, &reader, &mut writer);
    }
}

#[test]
fn the_numbering_goes_on_after_every_kind_of_reader() {
    // A native reader notes it, whatever the ring still holds.
    let (buffer, reader, mut writer) = buffer();
    for sequence in 1..=7 {
        send(&mut writer, sequence, 100);
        receive(&reader, sequence);
    }
    vanish(&buffer, writer);
    assert_eq!(buffer.writer().unwrap().try_write(&[1]).unwrap(), 8);

    // For a foreign one the lap is walked, or our own note found.
    let (buffer, _reader, mut writer) = self::buffer();
    buffer.poke(offset::RESERVED, &[0; 32]);
    send(&mut writer, 1, 40);
    send(&mut writer, 2, 40);
    vanish(&buffer, writer);
    assert_eq!(buffer.writer().unwrap().try_write(&[1]).unwrap(), 3);
}

/// Frames that a dead writer left are read before its death is told, and it
/// stays a death.
#[test]
fn death_is_not_told_as_a_close() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    assert!(buffer.data_ready().try_wait().unwrap());
    buffer.abandon(writer);
    // A pid that nobody has.
    buffer.poke(offset::WRITER_PID, &0x7FFF_FFF0u64.to_le_bytes());
    let frame = reader
        .read(Duration::from_secs(5))
        .expect("it was published");
    assert_eq!(frame.sequence(), 1);
    drop(frame);
    for _ in 0..2 {
        let end = reader.read(Duration::from_secs(5));
        assert!(
            matches!(
                end,
                Err(ReadError::WriterDead {
                    pid: 0x7FFF_FFF0,
                    ..
                })
            ),
            "{end:?}"
        );
    }
    let mut next = buffer.writer().unwrap();
    send(&mut next, 2, 40);
    receive(&reader, 2);
    next.close().unwrap();
    let end = reader.read(Duration::from_secs(5));
    assert!(
        matches!(end, Err(ReadError::WriterClosed { .. })),
        "{end:?}"
    );
}

/// A foreign writer stored the position of the frame that completes a lap, and
/// died before it took the credit: what was committed before must survive.
#[test]
fn a_lap_completed_without_its_credit_keeps_the_frames_before() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 112);
    send(&mut writer, 2, 112);
    assert!(buffer.data_ready().try_wait().unwrap());
    vanish(&buffer, writer);
    add(&buffer, offset::PAYLOAD_FREE_BYTES, 128);
    let mut writer = buffer.writer().unwrap();
    receive(&reader, 1);
    receive(&reader, 2);
    everything_is_back(&buffer, &reader, &mut writer);
}

/// More held and pending than there is ring, by a hostile position.
#[test]
fn more_than_the_ring_is_damage_and_no_panic() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 84);
    let held = reader.try_read().unwrap().expect("it was sent");
    buffer.poke(offset::PAYLOAD_READ_POS, &0u64.to_le_bytes());
    buffer.poke(offset::PAYLOAD_FREE_BYTES, &0u64.to_le_bytes());
    buffer.poke(offset::PAYLOAD_WRITE_POS, &255u64.to_le_bytes());
    let ring = 128 + 64;
    buffer.poke(ring, &200u64.to_le_bytes());
    buffer.poke(ring + 8, &2u64.to_le_bytes());
    buffer.data_ready().post().unwrap();
    assert!(matches!(reader.try_read(), Err(ReadError::Corrupt { .. })));
    drop(held);
}

/// Nobody is attached, the credit is too low, and a token is left over.
#[test]
fn stores_half_done_by_nobody_do_not_hide_the_end() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 40);
    receive(&reader, 1);
    vanish(&buffer, writer);
    add(&buffer, offset::PAYLOAD_FREE_BYTES, -50);
    buffer.data_ready().post().unwrap();
    assert!(matches!(
        reader.try_read(),
        Err(ReadError::WriterClosed { .. })
    ));
    everything_is_back(&buffer, &reader, &mut buffer.writer().unwrap());
}

/// Others claim without asking: whoever lost the claim must stop.
#[test]
fn a_writer_that_lost_its_claim_writes_no_more() {
    let (buffer, _reader, mut writer) = buffer();
    buffer.poke(offset::WRITER_PID, &1u64.to_le_bytes());
    assert!(matches!(
        writer.try_write(&[1]),
        Err(WriteError::Displaced { pid: 1, .. })
    ));
    drop(writer);
    assert_eq!(
        buffer.header().unwrap().writer_pid.get(),
        1,
        "it is not ours to give up"
    );
    assert_eq!(buffer.data_ready().value(), Some(0));
}

/// Half the ring is filled and charged, and not published: no lap.
#[test]
fn an_unpublished_frame_of_half_the_ring_is_not_taken_for_a_lap() {
    let (buffer, reader, mut writer) = buffer();
    send(&mut writer, 1, 112);
    assert!(buffer.data_ready().try_wait().unwrap());
    vanish(&buffer, writer);
    buffer.poke(offset::PAYLOAD_WRITE_POS, &0u64.to_le_bytes());
    buffer.poke(offset::PAYLOAD_WRITTEN_COUNT, &0u64.to_le_bytes());
    let mut writer = buffer.writer().unwrap();
    assert!(reader.try_read().unwrap().is_none());
    everything_is_back(&buffer, &reader, &mut writer);
}

#[test]
fn a_heap_buffer_has_one_of_each_side() {
    let (buffer, reader, writer) = buffer();
    assert!(buffer.reader().is_err() && buffer.writer().is_err());
    drop(writer);
    drop(buffer.writer().unwrap());
    drop(reader);
    drop(buffer.reader().unwrap());
}
