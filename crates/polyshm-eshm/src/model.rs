//! The shipped channel under loom: writer, reader, and a writer that dies in
//! the middle of a message.
//!
//! The capacity is 16, so that the data are two of the region's modelled cells
//! and a torn copy shows.

use crate::channel::{Channel, Cursor, Look, Received};
use loom::thread;
use polyshm_platform::{Region, sync::Ordering};
use polyshm_wire::eshm::{Direction, Layout};

const CAPACITY: usize = 16;

fn channel() -> (Region, Layout, Channel) {
    let layout = Layout::new(CAPACITY as u64).unwrap();
    let region = Region::heap(layout.object_len() as usize);
    let channel = open(&region, layout);
    (region, layout, channel)
}

fn open(region: &Region, layout: Layout) -> Channel {
    Channel::new(region, layout, Direction::MasterToSlave).unwrap()
}

/// A message whose every byte tells its number.
fn data(number: u8) -> [u8; CAPACITY] {
    [number; CAPACITY]
}

/// Explores every interleaving with at most `preemptions` forced switches; the
/// whole space is beyond reach, and bugs need few.
fn model(preemptions: usize, check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(preemptions);
    builder.check(check);
}

/// Looks once; checks that what is delivered is whole.
fn look(channel: &Channel, cursor: &mut Cursor) -> Option<(u8, Received)> {
    let mut buffer = [0; CAPACITY];
    match channel.look(cursor, &mut &mut buffer[..]) {
        Look::New(received) => {
            assert_eq!(received.len, CAPACITY);
            assert_eq!(buffer, data(buffer[0]), "torn");
            Some((buffer[0], received))
        }
        Look::Nothing | Look::Busy => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_are_whole_in_order_and_counted() {
    model(3, || {
        let (region, layout, reader) = channel();
        let writer = open(&region, layout);
        let sender = thread::spawn(move || {
            for number in 1..=2 {
                writer.write(&data(number)).unwrap();
            }
        });
        let mut cursor = reader.cursor();
        let start = cursor;
        let mut seen = Vec::new();
        for _ in 0..3 {
            if let Some((number, received)) = look(&reader, &mut cursor) {
                assert_eq!(received.number, u64::from(number));
                seen.push((number, received.lost));
            }
        }
        sender.join().unwrap();
        seen.extend(look(&reader, &mut cursor).map(|(n, received)| (n, received.lost)));
        // Each at most once, ascending; delivered and lost are all since the cursor.
        assert!(
            seen.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{seen:?}"
        );
        let accounted: u64 = seen.iter().map(|(_, lost)| lost + 1).sum();
        let before = if start == Cursor::default() {
            0
        } else {
            2 - accounted
        };
        assert_eq!(accounted + before, 2, "{seen:?}");
        assert_eq!(look(&reader, &mut cursor), None, "delivered twice");
    });
}

#[test]
fn a_reader_of_another_implementation_sees_the_count_after_the_message() {
    model(3, || {
        let (region, layout, reader) = channel();
        let writer = open(&region, layout);
        let sender = thread::spawn(move || writer.write(&data(1)).unwrap());
        // Such a reader waits for the count and then expects an even number.
        if reader.counts().0 == 1 {
            let place = layout.channel(Direction::MasterToSlave);
            let sequence = region.word32(place.sequence as usize).unwrap();
            // The count is loaded relaxed above; the order is the acquire's.
            polyshm_platform::sync::fence(Ordering::Acquire);
            assert_eq!(sequence.load(Ordering::Relaxed), 2);
        }
        sender.join().unwrap();
    });
}

#[test]
fn writers_that_share_a_role_exclude_each_other() {
    model(2, || {
        let (region, layout, reader) = channel();
        let writers = [1, 2].map(|number| {
            let writer = open(&region, layout);
            thread::spawn(move || writer.write_shared(&data(number)).unwrap().unwrap())
        });
        let mut cursor = Cursor::default();
        let first = look(&reader, &mut cursor);
        for writer in writers {
            writer.join().unwrap();
        }
        let last = look(&reader, &mut cursor);
        let accounted: u64 = [first, last]
            .iter()
            .flatten()
            .map(|(_, r)| r.lost + 1)
            .sum();
        assert_eq!(accounted, 2);
        assert_eq!(reader.counts().0, 2);
    });
}

/// How far a dying writer gets with its second message.
fn die(channel: &Channel, region: &Region, layout: Layout, steps: u32) {
    let place = layout.channel(Direction::MasterToSlave);
    let sequence = region.word32(place.sequence as usize).unwrap();
    let bytes = region.bytes(place.data as usize, CAPACITY).unwrap();
    channel.write(&data(1)).unwrap();
    // As in Channel::write, which loom cannot stop half-way.
    sequence.store(3, Ordering::Relaxed);
    polyshm_platform::sync::fence(Ordering::Release);
    if steps > 0 {
        bytes.write(0, &data(9)[..8]).unwrap();
    }
    if steps > 1 {
        bytes.write(8, &data(9)[8..]).unwrap();
    }
}

#[test]
fn a_message_that_its_writer_did_not_finish_is_never_delivered() {
    for steps in 0..3 {
        model(3, move || {
            let (region, layout, reader) = channel();
            let writer = open(&region, layout);
            let of_writer = region.clone();
            let life = thread::spawn(move || {
                die(&writer, &of_writer, layout, steps);
                // The next one takes over at once, while the reader looks.
                let next = open(&of_writer, layout);
                next.repair();
                next.write(&data(2)).unwrap();
            });
            let mut cursor = Cursor::default();
            let mut seen = Vec::new();
            for _ in 0..2 {
                seen.extend(look(&reader, &mut cursor));
            }
            life.join().unwrap();
            seen.extend(look(&reader, &mut cursor));
            let numbers: Vec<u8> = seen.iter().map(|(number, _)| *number).collect();
            assert!(numbers == [1, 2] || numbers == [2], "{numbers:?}");
            // Two were committed, and are accounted for.
            let accounted: u64 = seen.iter().map(|(_, received)| received.lost + 1).sum();
            assert_eq!(accounted, 2);
            assert_eq!(reader.counts().0, 2);
        });
    }
}

#[test]
fn what_a_dead_writer_left_is_repaired_under_a_reader() {
    for steps in 0..3 {
        model(3, move || {
            let (region, layout, reader) = channel();
            let writer = open(&region, layout);
            die(&writer, &region, layout, steps);
            let next = open(&region, layout);
            let takeover = thread::spawn(move || next.repair());
            // It never saw the first message, which is overwritten in part.
            let mut cursor = Cursor::default();
            assert_eq!(look(&reader, &mut cursor), None);
            takeover.join().unwrap();
            assert_eq!(look(&reader, &mut cursor), None);
            reader.write(&data(2)).unwrap();
            let (number, received) = look(&reader, &mut cursor).unwrap();
            assert_eq!((number, received.number, received.lost), (2, 2, 1));
        });
    }
}
