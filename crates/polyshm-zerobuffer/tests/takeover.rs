//! States that a dead writer of any implementation leaves, made by hand on the
//! heap, and what the next writer or the reader makes of them.
#![cfg(not(loom))]

use polyshm_wire::zerobuffer::offset;
use polyshm_zerobuffer::{
    BufferConfig, ReadError, Reader, Writer,
    testing::{HeapBuffer, TestData},
};

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
    std::mem::forget(writer);
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
