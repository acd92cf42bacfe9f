//! The shipped channel under loom: writer, reader, and writers that die in the
//! middle of a message.
//!
//! Loom branches at the later of two accesses, and forgets a thread's load of a
//! word once the storing thread has loaded it too. So the reader is always the
//! spawned thread, which runs last where nothing is forced; the other way round
//! a model explores one execution and proves nothing. [`model`] counts them.
//!
//! The capacity is 16, so that the data are two of the region's modelled cells
//! and a torn copy shows.

use crate::channel::{Channel, Cursor, Look, Received};
use loom::thread;
use polyshm_platform::{
    Region, Word32, Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::eshm::{ChannelPlace, Direction, Layout};
use std::sync::{Arc, atomic::AtomicU64};

const CAPACITY: usize = 16;

/// A channel of an own region, for as many parties as wanted.
struct Party {
    region: Region,
    layout: Layout,
}

impl Party {
    fn new() -> Self {
        let layout = Layout::new(CAPACITY as u64).unwrap();
        Self {
            region: Region::heap(layout.object_len() as usize),
            layout,
        }
    }

    fn channel(&self) -> Channel {
        Channel::new(&self.region, self.layout, Direction::MasterToSlave).unwrap()
    }

    fn place(&self) -> ChannelPlace {
        self.layout.channel(Direction::MasterToSlave)
    }

    fn sequence(&self) -> Word32 {
        self.region.word32(self.place().sequence as usize).unwrap()
    }

    fn size(&self) -> Word32 {
        self.region.word32(self.place().data_size as usize).unwrap()
    }

    fn count(&self) -> Word64 {
        self.region
            .word64(self.place().write_count as usize)
            .unwrap()
    }

    /// The first steps of a message whose writer goes no further.
    fn begin(&self, odd: u32) {
        self.sequence().store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
    }
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
    let executions = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&executions);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        check();
    });
    let executions = executions.load(Ordering::Relaxed);
    assert!(executions > 5, "only {executions} executions were explored");
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
        Look::Nothing | Look::Busy | Look::Torn => None,
        other => panic!("{other:?}"),
    }
}

/// What one reader sees, from the channel's beginning.
struct Reader {
    channel: Channel,
    cursor: Cursor,
    seen: Vec<(u8, Received)>,
}

impl Reader {
    fn of(party: &Party) -> Self {
        Self {
            channel: party.channel(),
            cursor: Cursor::default(),
            seen: Vec::new(),
        }
    }

    fn look(mut self, times: usize) -> Self {
        for _ in 0..times {
            self.seen.extend(look(&self.channel, &mut self.cursor));
        }
        self
    }

    /// Every message is delivered at most once, in order, under its number; and
    /// what is not delivered is lost.
    fn check(&self, committed: u64) {
        let seen = &self.seen;
        for (value, received) in seen {
            assert_eq!(u64::from(*value), received.number, "{seen:?}");
        }
        assert!(
            seen.windows(2).all(|pair| pair[0].0 < pair[1].0),
            "{seen:?}"
        );
        let accounted: u64 = seen.iter().map(|(_, received)| received.lost + 1).sum();
        assert_eq!(accounted, committed, "{seen:?}");
    }
}

/// Runs the writer against a reader that looks so often, and once more at the end.
fn against_a_reader(party: &Party, times: usize, write: impl FnOnce(&Channel)) -> Reader {
    let reader = Reader::of(party);
    let reading = thread::spawn(move || reader.look(times));
    write(&party.channel());
    reading.join().unwrap().look(1)
}

#[test]
fn messages_are_whole_in_order_and_counted() {
    model(3, || {
        let party = Party::new();
        let reader = against_a_reader(&party, 3, |writer| {
            for number in 1..=2 {
                writer.write(&data(number)).unwrap();
            }
        });
        reader.check(2);
        let delivered = reader.seen.len();
        let reader = reader.look(1);
        assert_eq!(reader.seen.len(), delivered, "delivered twice");
        assert_eq!(reader.channel.counts(), (2, delivered as u64));
    });
}

#[test]
fn a_verdict_on_a_length_is_of_one_message() {
    model(3, || {
        let party = Party::new();
        let writer = party.channel();
        writer.write(&[1]).unwrap();
        let reader = party.channel();
        let reading = thread::spawn(move || {
            let mut cursor = Cursor::default();
            let mut buffer = [0; CAPACITY];
            for _ in 0..2 {
                match reader.look(&mut cursor, &mut &mut buffer[..4]) {
                    Look::New(received) => {
                        assert_eq!((received.len, received.number, buffer[0]), (1, 1, 1));
                    }
                    Look::TooSmall { needed } => assert_eq!(needed, CAPACITY),
                    Look::Nothing | Look::Busy | Look::Torn => {}
                    other @ Look::Corrupt { .. } => panic!("{other:?}"),
                }
            }
        });
        writer.write(&data(2)).unwrap();
        reading.join().unwrap();
    });
}

#[test]
fn who_attaches_gets_what_is_written_after() {
    model(3, || {
        let party = Party::new();
        let (writer, reader) = (party.channel(), party.channel());
        writer.write(&data(1)).unwrap();
        let attaching = thread::spawn(move || (reader.cursor(), reader));
        writer.write(&data(2)).unwrap();
        let (mut cursor, reader) = attaching.join().unwrap();
        writer.write(&data(3)).unwrap();
        let (value, received) = look(&reader, &mut cursor).unwrap();
        assert_eq!((value, received.number), (3, 3));
        assert!(received.lost <= 1);
    });
}

#[test]
fn a_cursor_is_of_one_moment() {
    model(3, || {
        let party = Party::new();
        die(&party, 1);
        let (writer, reader) = (party.channel(), party.channel());
        let attaching = thread::spawn(move || reader.cursor());
        writer.repair();
        writer.write(&data(2)).unwrap();
        let cursor = attaching.join().unwrap().parts();
        // Of an odd number the count is looked at again at the next even one.
        let odd = cursor.0 == 3 || cursor.0 == 5;
        assert!(odd || cursor == (4, 1) || cursor == (6, 2), "{cursor:?}");
    });
}

#[test]
fn a_reader_of_another_implementation_sees_the_count_after_the_message() {
    model(3, || {
        let party = Party::new();
        let (writer, reader) = (party.channel(), party.channel());
        let sequence = party.sequence();
        let reading = thread::spawn(move || {
            // Such a reader waits for the count and then expects an even number.
            if reader.counts().0 == 1 {
                fence(Ordering::Acquire);
                assert_eq!(sequence.load(Ordering::Relaxed), 2);
            }
        });
        writer.write(&data(1)).unwrap();
        reading.join().unwrap();
    });
}

/// Writes message 1, and dies at message 9 after so many steps: the odd number,
/// the length, either half of the data. As [`Channel::write`] does it, which loom
/// cannot stop half-way.
fn die(party: &Party, steps: u32) {
    let bytes = party
        .region
        .bytes(party.place().data as usize, CAPACITY)
        .unwrap();
    party.channel().write(&data(1)).unwrap();
    party.begin(3);
    if steps > 0 {
        party.size().store(7, Ordering::Relaxed);
    }
    if steps > 1 {
        bytes.write(0, &data(9)[..8]).unwrap();
    }
    if steps > 2 {
        bytes.write(8, &data(9)[8..]).unwrap();
    }
}

#[test]
fn a_message_that_its_writer_did_not_finish_is_never_delivered() {
    for steps in 0..4 {
        model(3, move || {
            let party = Party::new();
            let reader = against_a_reader(&party, 2, |next| {
                die(&party, steps);
                // The next one takes over at once, while the reader looks.
                next.repair();
                next.write(&data(2)).unwrap();
            });
            reader.check(2);
            assert_eq!(reader.channel.counts().0, 2);
        });
    }
}

#[test]
fn what_a_dead_writer_left_is_repaired_under_a_reader() {
    for steps in 0..4 {
        model(3, move || {
            let party = Party::new();
            die(&party, steps);
            let reader = against_a_reader(&party, 2, Channel::repair);
            // It never saw the first message, which is overwritten in part.
            assert!(reader.seen.is_empty(), "{:?}", reader.seen);
            // Nothing is left for readers of other implementations, and this one
            // has passed it: it can sleep.
            assert_eq!(party.size().load(Ordering::Relaxed), 0);
            assert_eq!(reader.cursor.parts().0, 4);
            party.channel().write(&data(2)).unwrap();
            reader.look(1).check(2);
        });
    }
}

#[test]
fn deaths_add_up() {
    model(2, || {
        let party = Party::new();
        die(&party, 1);
        party.channel().repair();
        let reader = against_a_reader(&party, 2, |next| {
            // It dies as the one before, and so does the repair of it once.
            party.begin(5);
            next.repair();
            next.repair();
            next.write(&data(2)).unwrap();
        });
        reader.check(2);
    });
}

#[test]
fn a_message_that_was_not_counted_is_counted_by_the_next_writer() {
    model(3, || {
        let party = Party::new();
        party.channel().write(&data(1)).unwrap();
        party.count().store(0, Ordering::Relaxed);
        let reader = against_a_reader(&party, 1, |next| {
            next.repair();
            assert_eq!(next.counts().0, 1);
            next.write(&data(2)).unwrap();
        });
        reader.check(2);
    });
}

/// Message 1 is there; a writer dies at the next one, at `odd`, and another
/// process, which only the number tells of that, repairs.
fn repaired_by_another(party: &Party, odd: u32) -> Reader {
    let reader = Reader::of(party);
    let (next, sequence) = (party.channel(), party.sequence());
    let dying = party.sequence();
    let reading = thread::spawn(move || reader.look(1));
    let death = thread::spawn(move || {
        dying.store(odd, Ordering::Relaxed);
        fence(Ordering::Release);
    });
    if sequence.load(Ordering::Relaxed) == odd {
        next.repair();
    }
    death.join().unwrap();
    reading.join().unwrap()
}

#[test]
fn another_process_than_the_dead_one_repairs() {
    model(2, || {
        let party = Party::new();
        party.channel().write(&data(1)).unwrap();
        let reader = repaired_by_another(&party, 3);
        for (value, received) in &reader.seen {
            assert_eq!((*value, received.number), (1, 1));
        }
    });
}

#[test]
fn another_process_repairs_once_more() {
    model(2, || {
        let party = Party::new();
        die(&party, 3);
        party.channel().repair();
        let reader = repaired_by_another(&party, 5);
        assert!(reader.seen.is_empty(), "{:?}", reader.seen);
    });
}

#[test]
fn a_writer_goes_on_from_an_odd_number() {
    for steps in 0..3 {
        model(3, move || {
            let party = Party::new();
            let reader = against_a_reader(&party, 2, |next| {
                die(&party, steps);
                next.write(&data(2)).unwrap();
            });
            assert_eq!(party.sequence().load(Ordering::Relaxed), 4);
            reader.check(2);
        });
    }
}

#[test]
fn a_length_that_was_not_committed_is_not_believed() {
    for wrong in [16, 17, u32::MAX] {
        model(3, move || {
            let party = Party::new();
            let reader = party.channel();
            party.channel().write(&[1]).unwrap();
            let reading = thread::spawn(move || {
                let mut cursor = Cursor::default();
                let mut buffer = [0; CAPACITY];
                match reader.look(&mut cursor, &mut &mut buffer[..4]) {
                    Look::New(received) => assert_eq!((received.len, buffer[0]), (1, 1)),
                    Look::Busy | Look::Torn => {}
                    other => panic!("{other:?}"),
                }
            });
            party.begin(3);
            party.size().store(wrong, Ordering::Relaxed);
            reading.join().unwrap();
        });
    }
}

#[test]
fn a_void_number_comes_again_as_a_message() {
    loom::model(|| {
        let party = Party::new();
        die(&party, 1);
        let (writer, reader) = (party.channel(), party.channel());
        writer.repair();
        writer.write_first(&data(2)).unwrap();
        let mut cursor = Cursor::default();
        assert!(look(&reader, &mut cursor).is_some());
        // As after 2^31 messages.
        party.sequence().store(2, Ordering::Relaxed);
        writer.write(&data(3)).unwrap();
        assert!(look(&reader, &mut cursor).is_some());
    });
}

#[test]
fn a_count_that_is_ahead_does_not_change_the_numbers() {
    loom::model(|| {
        let party = Party::new();
        let (writer, reader) = (party.channel(), party.channel());
        let mut cursor = Cursor::default();
        for (number, count) in [(1, 7), (2, 9)] {
            writer.write(&data(number)).unwrap();
            // Two writers of another implementation let it get there.
            party.count().store(count, Ordering::Relaxed);
            let (_, received) = look(&reader, &mut cursor).unwrap();
            assert_eq!((received.number, received.lost), (u64::from(number), 0));
        }
    });
}
