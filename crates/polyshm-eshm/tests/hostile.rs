//! Damaged and hostile objects: whatever the bytes say, an operation ends in a
//! whole message, in nothing, or in an error, never in a panic, a hang or an
//! access outside; and it changes no byte that is not its own.
//!
//! Most objects are on the heap; some have names, for what happens there alone.
//! `POLYSHM_HOSTILE_IMAGES` says how many images (a million by default in an
//! optimised build).
#![cfg(all(not(loom), target_os = "linux"))]

use polyshm_eshm::{
    DisconnectBehavior, Endpoint, EndpointBuilder, HeartbeatError, ImageError, Item, ItemDialect,
    Message, OpenError, ReadError, Received, Remote, Role, WaitStrategy, WriteError, items,
    testing::HeapObject,
};
use polyshm_testkit::{Name, Random, images_wanted, watch};
use polyshm_wire::eshm::{ChannelPlace, Direction, Header, Layout, MAGIC, VERSION, offset};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::Range,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const NOW: Duration = Duration::ZERO;
const OWNER: &str = "heap";
/// Of so many images also what is rare comes.
const MANY: u64 = 1_000_000;

/// What came of the operations, by name.
#[derive(Default)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    fn opened(&mut self, opened: Result<Endpoint, OpenError>) -> Option<Endpoint> {
        self.add(match &opened {
            Ok(_) => "opened",
            Err(OpenError::NotReady { .. }) => "open: not ready",
            Err(OpenError::Invalid { source, .. }) => match source {
                ImageError::Magic { .. } => "open: another magic",
                ImageError::Version { .. } => "open: another version",
                ImageError::TooShort { .. } => "open: too short",
                other => panic!("an object is not opened for {other:?}"),
            },
            Err(OpenError::CapacityMismatch { .. }) => "open: another capacity",
            Err(OpenError::RoleTaken { .. }) => "open: role taken",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
        opened.ok()
    }

    fn read<T>(&mut self, result: &Result<T, ReadError>, is_there: impl Fn(&T) -> bool) {
        self.add(match result {
            Ok(read) if is_there(read) => "read: a message",
            Ok(_) => "read: nothing",
            Err(ReadError::Timeout { .. }) => "read: timeout",
            Err(ReadError::BufferTooSmall { .. }) => "read: buffer too small",
            Err(ReadError::Corrupt { .. }) => "read: damaged",
            Err(ReadError::Decode { .. }) => "read: no items",
            Err(ReadError::Stale { .. }) => "read: stale",
            Err(ReadError::GaveUp { .. }) => "read: given up",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
    }

    fn written(&mut self, result: &Result<(), WriteError>) {
        self.add(match result {
            Ok(()) => "written",
            Err(WriteError::TooLarge { .. }) => "write: too large",
            Err(WriteError::Displaced { .. }) => "write: displaced",
            Err(WriteError::Reconnecting { .. }) => "write: reconnecting",
            Err(WriteError::GaveUp { .. }) => "write: given up",
            Err(WriteError::Busy { .. }) => "write: busy",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
    }

    fn beaten(&mut self, result: &Result<(), HeartbeatError>) {
        self.add(match result {
            Ok(()) => "beaten",
            Err(HeartbeatError::Displaced { .. }) => "heartbeat: displaced",
            Err(HeartbeatError::Disconnected { .. }) => "heartbeat: disconnected",
            Err(other) => panic!("not an answer to damage: {other:?}"),
        });
    }

    #[track_caller]
    fn all_occur(&self, outcomes: &[&str]) {
        for outcome in outcomes {
            assert!(self.0.contains_key(outcome), "nothing led to {outcome:?}");
        }
    }
}

fn word32(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(image[at..at + 4].try_into().expect("four bytes"))
}

fn word64(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().expect("eight bytes"))
}

/// A field: where it is, and how many bytes it has.
type Field = (usize, usize);

const HEADER: [Field; 13] = [
    (offset::MAGIC, 4),
    (offset::VERSION, 4),
    (offset::MASTER_HEARTBEAT, 8),
    (offset::SLAVE_HEARTBEAT, 8),
    (offset::MASTER_PID, 4),
    (offset::SLAVE_PID, 4),
    (offset::MASTER_ALIVE, 4),
    (offset::SLAVE_ALIVE, 4),
    (offset::STALE_THRESHOLD, 4),
    (offset::MASTER_GENERATION, 4),
    (offset::NATIVE_CAPACITY, 4),
    (offset::NATIVE_MASTER_MARK, 4),
    (offset::NATIVE_SLAVE_MARK, 4),
];

fn fields_of(place: &ChannelPlace) -> [Field; 7] {
    [
        (place.sequence as usize, 4),
        (place.data_size as usize, 4),
        (place.write_count as usize, 8),
        (place.read_count as usize, 8),
        (place.native_waiters as usize, 4),
        (place.native_void as usize, 4),
        (place.native_voids as usize, 4),
    ]
}

/// Every field of an object.
fn fields(layout: Layout) -> Vec<Field> {
    let mut fields = HEADER.to_vec();
    for direction in Direction::ALL {
        fields.extend(fields_of(&layout.channel(direction)));
    }
    fields
}

fn own_pid() -> u32 {
    std::process::id()
}

/// How many values [`edge`] has.
const EDGES: usize = 18;

/// 0, 1, the largest, the signs, off by one, and what other fields hold.
fn edge(value: u64, capacity: u32, which: usize) -> u64 {
    [
        0,
        1,
        2,
        3,
        u64::MAX,
        u64::MAX - 1,
        1 << 31,
        (1 << 31) - 1,
        u64::from(u32::MAX) - 1,
        1 << 63,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value.wrapping_add(2),
        value | 1,
        u64::from(capacity),
        u64::from(capacity) + 1,
        u64::from(own_pid()),
        value ^ 1 << 16,
    ][which]
}

fn value_of(image: &[u8], (at, len): Field) -> u64 {
    match len {
        8 => word64(image, at),
        _ => u64::from(word32(image, at)),
    }
}

/// A change of an object's bytes, made before it is opened or after.
#[derive(Clone, Debug)]
enum Damage {
    Store(usize, Vec<u8>),
    /// The object ends there, or is longer. Only before it is opened.
    Length(usize),
}

impl Damage {
    fn field(image: &[u8], capacity: u32, field: Field, which: usize) -> Self {
        let value = edge(value_of(image, field), capacity, which);
        Self::Store(field.0, value.to_le_bytes()[..field.1].to_vec())
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            // It may have been cut already.
            Self::Store(at, bytes) => {
                let end = image.len().min(at + bytes.len());
                let start = end.min(*at);
                image[start..end].copy_from_slice(&bytes[..end - start]);
            }
            Self::Length(len) => image.resize(*len, 0xA5),
        }
    }

    fn poke(&self, object: &HeapObject) {
        if let Self::Store(at, bytes) = self {
            object.poke(*at, bytes);
        }
    }
}

/// An object in order, from which damage starts.
struct Sound {
    what: String,
    capacity: u64,
    image: Vec<u8>,
}

impl Sound {
    fn layout(&self) -> Layout {
        Layout::new(self.capacity).expect("a capacity within limits")
    }
}

type Make = fn(&HeapObject, EndpointBuilder);

fn pair(object: &HeapObject, config: EndpointBuilder) -> (Endpoint, Endpoint) {
    let master = object.create(config.clone()).expect("it is new");
    let slave = object.attach(config).expect("it was made");
    (master, slave)
}

/// Stores a sequence, and the count that goes with it.
fn number(object: &HeapObject, direction: Direction, sequence: u32, count: u64) {
    let place = layout_of(object).channel(direction);
    object.poke(place.sequence as usize, &sequence.to_le_bytes());
    object.poke(place.write_count as usize, &count.to_le_bytes());
}

/// Only objects of the capacities below are made here.
fn layout_of(object: &HeapObject) -> Layout {
    let len = object.image().len() as u64;
    let layouts = CAPACITIES.map(|capacity| Layout::new(capacity).expect("within limits"));
    let found = layouts
        .into_iter()
        .find(|layout| layout.object_len() == len);
    found.expect("one of them")
}

/// Of different lengths; the second leaves bytes between data and count.
const CAPACITIES: [u64; 3] = [1, 100, 600];

const STATES: [(&str, Make); 12] = [
    ("fresh", |object, config| {
        drop(object.create(config).unwrap().split());
    }),
    ("one message", |object, config| {
        let (mut master, slave) = pair(object, config);
        master.write(b"a").unwrap();
        std::mem::forget((master, slave));
    }),
    ("messages both ways", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        let all = vec![b'b'; master.capacity()];
        for _ in 0..3 {
            master.write(&all).unwrap();
            slave.write(&all).unwrap();
        }
        slave.read().unwrap();
        master.read().unwrap();
        master.update_heartbeat().unwrap();
        slave.update_heartbeat().unwrap();
        std::mem::forget((master, slave));
    }),
    ("no bytes", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        master.write(b"").unwrap();
        slave.write(b"").unwrap();
        std::mem::forget((master, slave));
    }),
    ("items", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        // Too long for the least capacity.
        let _ = master.write_items(&[Item::new("k", 1)]);
        let python = items::encode(&[Item::new("k", 2.5)], ItemDialect::Python).unwrap();
        let _ = slave.write(&python);
        std::mem::forget((master, slave));
    }),
    ("the slave left", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        slave.write(b"c").unwrap();
        drop(slave);
        master.write(b"d").unwrap();
        std::mem::forget(master);
    }),
    ("both left", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        slave.write(b"e").unwrap();
        master.write(b"f").unwrap();
        drop((slave, master));
    }),
    ("the master died writing", |object, config| {
        let (mut master, slave) = pair(object, config);
        master.write(b"g").unwrap();
        number(object, Direction::MasterToSlave, 3, 1);
        std::mem::forget((master, slave));
    }),
    ("the slave died writing", |object, config| {
        let (master, mut slave) = pair(object, config);
        slave.write(b"h").unwrap();
        number(object, Direction::SlaveToMaster, 3, 1);
        std::mem::forget((master, slave));
    }),
    ("a void message", |object, config| {
        let (mut master, mut slave) = pair(object, config.clone());
        master.write(b"i").unwrap();
        slave.write(b"j").unwrap();
        number(object, Direction::MasterToSlave, 3, 1);
        std::mem::forget(master);
        std::mem::forget((object.take_over(config).unwrap(), slave));
    }),
    ("before the wrap", |object, config| {
        let (mut master, mut slave) = pair(object, config);
        let (largest, count) = (u32::MAX - 1, (1 << 31) - 1);
        for direction in Direction::ALL {
            number(object, direction, largest - 2, count - 1);
        }
        master.write(b"k").unwrap();
        slave.write(b"l").unwrap();
        std::mem::forget((master, slave));
    }),
    ("of another implementation", |object, _| {
        object.poke(0, &Header::new(100, 0).to_bytes());
        for direction in Direction::ALL {
            number(object, direction, 4, 2);
        }
    }),
];

fn sound_images() -> Vec<Sound> {
    let mut sound = Vec::new();
    for capacity in CAPACITIES {
        for (state, make) in STATES {
            for marks in [false, true] {
                let object = HeapObject::new(capacity);
                make(&object, Endpoint::builder().native_marks(marks));
                sound.push(Sound {
                    what: format!("{state}, capacity {capacity}, marks {marks}"),
                    capacity,
                    image: object.image(),
                });
            }
        }
    }
    sound
}

/// Lengths at which an object may end.
fn lengths(layout: Layout) -> Vec<usize> {
    let mut ends = vec![0, 4, 8, 48, 64, 128];
    for direction in Direction::ALL {
        ends.extend(fields_of(&layout.channel(direction)).map(|(at, len)| at + len));
    }
    let whole = layout.object_len() as usize;
    ends.extend([whole, whole + 63, whole * 2]);
    let near = |end: usize| [end.saturating_sub(1), end, end + 1];
    ends.into_iter().flat_map(near).collect()
}

/// Every single change, by number; `None` when there are no more.
fn single(sound: &Sound, change: usize) -> Option<Damage> {
    let layout = sound.layout();
    let fields = fields(layout);
    if let Some(field) = fields.get(change / EDGES) {
        let which = change % EDGES;
        return Some(Damage::field(
            &sound.image,
            layout.capacity(),
            *field,
            which,
        ));
    }
    let lengths = lengths(layout);
    let len = lengths.get(change - fields.len() * EDGES)?;
    Some(Damage::Length(*len))
}

fn singles(sound: &Sound) -> usize {
    let layout = sound.layout();
    fields(layout).len() * EDGES + lengths(layout).len()
}

/// Several changes at once, of plausible sizes.
fn several(sound: &Sound, random: &mut Random) -> Vec<Damage> {
    let layout = sound.layout();
    let (fields, len) = (fields(layout), sound.image.len());
    let mut all = Vec::new();
    for _ in 0..=random.below(4) {
        let field = random.pick(&fields);
        all.push(match random.below(12) {
            0 => {
                let at = random.below(len);
                Damage::Store(at, vec![sound.image[at] ^ 1 << random.below(8)])
            }
            1 => {
                let value = random.next() >> random.below(64);
                Damage::Store(field.0, value.to_le_bytes()[..field.1].to_vec())
            }
            2 => {
                let other = random.pick(&fields);
                let value = value_of(&sound.image, other);
                Damage::Store(field.0, value.to_le_bytes()[..field.1].to_vec())
            }
            3 => {
                let at = random.below(len);
                let bytes = (0..random.below(len - at)).map(|_| random.next() as u8);
                Damage::Store(at, bytes.collect())
            }
            _ => Damage::field(&sound.image, layout.capacity(), field, random.below(EDGES)),
        });
    }
    if random.one_in(32) {
        all.push(Damage::Length(random.below(len + 64)));
    }
    if random.one_in(64) {
        // Nothing but noise; but for the first words, or it would not be opened.
        let noise = (0..len).map(|_| random.next() as u8).collect();
        all.push(Damage::Store(0, noise));
        if !random.one_in(4) {
            all.push(Damage::Store(0, Header::new(1, 0).to_bytes()[..8].to_vec()));
            all.push(Damage::Store(offset::NATIVE_CAPACITY, vec![0; 4]));
        }
    }
    all
}

fn config(random: &mut Random) -> EndpointBuilder {
    let behavior = random.pick(&[
        DisconnectBehavior::Immediately,
        DisconnectBehavior::OnTimeout,
        DisconnectBehavior::Never,
    ]);
    let mut config = Endpoint::builder()
        .disconnect_behavior(behavior)
        .native_marks(random.one_in(2))
        .share_role(random.one_in(4))
        .lenient_items(random.one_in(2))
        .wait_strategy(WaitStrategy::Block);
    if random.one_in(8) {
        config = config.own_threshold(NOW);
    }
    config
}

/// Whether an object may be entered, as the format says it, and not as the
/// implementation does.
fn is_sound(image: &[u8], layout: Layout) -> bool {
    image.len() as u64 >= layout.object_len()
        && word32(image, offset::MAGIC) == MAGIC
        && word32(image, offset::VERSION) == VERSION
        && [0, layout.capacity()].contains(&word32(image, offset::NATIVE_CAPACITY))
}

/// One endpoint at an object on the heap that nobody else changes.
struct Use<'a> {
    endpoint: Endpoint,
    object: &'a HeapObject,
    layout: Layout,
    counts: &'a mut Counts,
}

impl Use<'_> {
    fn place(&self, incoming: bool) -> ChannelPlace {
        let is_slave = self.endpoint.role() == Role::Slave;
        self.layout.channel(if is_slave == incoming {
            Direction::MasterToSlave
        } else {
            Direction::SlaveToMaster
        })
    }

    /// Fails when bytes changed that are not among these.
    #[track_caller]
    fn only_changed(&self, before: &[u8], allowed: &[Range<usize>]) {
        let after = self.object.image();
        let strays = (0..after.len())
            .filter(|at| after[*at] != before[*at])
            .filter(|at| !allowed.iter().any(|range| range.contains(at)));
        let strays: Vec<_> = strays.collect();
        assert!(strays.is_empty(), "bytes {strays:?} were changed");
    }

    /// What was read is what is there, and only the count of it changed.
    #[track_caller]
    fn judge(&mut self, before: &[u8], result: &Result<Option<(Vec<u8>, bool)>, ReadError>) {
        let place = self.place(true);
        let sequence = word32(before, place.sequence as usize);
        let size = word32(before, place.data_size as usize);
        let void = word32(before, place.native_void as usize);
        match result {
            Ok(Some((bytes, _))) => {
                assert_eq!(sequence % 2, 0, "half a message");
                assert_ne!(sequence | 1, void, "a message that never was");
                assert!(size <= self.layout.capacity());
                let data = place.data as usize;
                assert_eq!(bytes[..], before[data..data + size as usize]);
            }
            Err(ReadError::BufferTooSmall { needed, len, .. }) => {
                assert!(*needed == size as usize && len < needed);
            }
            Err(ReadError::Corrupt { source, .. }) => {
                assert!(size > self.layout.capacity());
                let right = matches!(source, ImageError::DataSize { found, .. } if *found == size);
                assert!(right, "{source:?}");
            }
            _ => {}
        }
        let count = place.read_count as usize;
        let is_new = matches!(result, Ok(Some((_, true))) | Err(ReadError::Decode { .. }));
        if is_new {
            let raised = word64(before, count).wrapping_add(1);
            assert_eq!(word64(&self.object.image(), count), raised);
            let count = count..count + 8;
            self.only_changed(before, &[count, waiters(&place)]);
        } else {
            self.only_changed(before, &[waiters(&place)]);
        }
        self.counts.read(result, Option::is_some);
    }

    fn read(&mut self, random: &mut Random) {
        let before = self.object.image();
        let timeout = if random.one_in(4096) {
            Duration::from_millis(1 + random.next() % 3)
        } else {
            NOW
        };
        let mut buffer = vec![0; random.below(self.layout.capacity() as usize + 2)];
        let owned = |message: Message| (message.into_bytes(), true);
        let lent = |received: Received, buffer: &[u8]| (buffer[..received.len].to_vec(), true);
        let endpoint = &mut self.endpoint;
        let result = match random.below(6) {
            0 => endpoint.try_read().map(|message| message.map(owned)),
            1 => endpoint.read_timeout(timeout).map(owned).map(Some),
            2 => {
                let received = endpoint.try_read_into(&mut buffer);
                received.map(|received| received.map(|received| lent(received, &buffer)))
            }
            3 => {
                let received = endpoint.read_into(&mut buffer, timeout);
                received.map(|received| Some(lent(received, &buffer)))
            }
            4 => {
                let counted = |stats: polyshm_eshm::Stats| {
                    stats.m2s_read_count.wrapping_add(stats.s2m_read_count)
                };
                let reads = counted(endpoint.stats());
                let latest = endpoint.read_latest();
                let is_new = counted(endpoint.stats()) != reads;
                latest.map(|message| message.map(|message| (message.into_bytes(), is_new)))
            }
            _ => {
                let place = self.place(true);
                let items = self.endpoint.read_items(timeout);
                let size = word32(&before, place.data_size as usize) as usize;
                let data = place.data as usize;
                // They were decoded from what is there.
                items.map(|_| Some((before[data..data + size].to_vec(), true)))
            }
        };
        self.judge(&before, &result);
    }

    fn write(&mut self, random: &mut Random) {
        let before = self.object.image();
        let capacity = self.layout.capacity() as usize;
        let len = random.pick(&[0, 1, capacity, capacity + 1, 4 * capacity]);
        let message = vec![random.next() as u8; len];
        let result = if random.one_in(8) {
            self.endpoint.write_items(&[Item::new("k", "v")])
        } else {
            self.endpoint.write(&message)
        };
        self.counts.written(&result);
        if result.is_err() {
            self.only_changed(&before, &[]);
            return;
        }
        let (after, place) = (self.object.image(), self.place(false));
        let odd = word32(&before, place.sequence as usize) | 1;
        assert_eq!(word32(&after, place.sequence as usize), odd.wrapping_add(1));
        let count = place.write_count as usize;
        assert_eq!(
            word64(&after, count),
            word64(&before, count).wrapping_add(1)
        );
        let len = word32(&after, place.data_size as usize) as usize;
        assert!(len <= capacity);
        // The number is a message's now, whatever was said of it before.
        let void = place.native_void as usize;
        assert_eq!(word32(&after, void), 0);
        let (start, data) = (place.sequence as usize, place.data as usize);
        let allowed = [start..data + len, count..count + 8, void..void + 4];
        self.only_changed(&before, &allowed);
    }

    fn look(&mut self, random: &mut Random) {
        let before = self.object.image();
        match random.below(5) {
            0 => {
                let stats = self.endpoint.stats();
                let pid = word32(&before, offset::MASTER_PID);
                assert_eq!(stats.master_pid, pid.cast_signed());
                let beats = word64(&before, offset::SLAVE_HEARTBEAT);
                assert_eq!(stats.slave_heartbeat, beats);
                assert_eq!(
                    stats.stale_threshold,
                    word32(&before, offset::STALE_THRESHOLD)
                );
            }
            1 => self.remote(),
            2 => {
                let beaten = self.endpoint.update_heartbeat();
                self.counts.beaten(&beaten);
                let own = match self.endpoint.role() {
                    Role::Slave => [
                        (offset::SLAVE_HEARTBEAT, 8),
                        (offset::SLAVE_PID, 4),
                        (offset::SLAVE_ALIVE, 4),
                        (offset::NATIVE_SLAVE_MARK, 4),
                    ],
                    _ => [
                        (offset::MASTER_HEARTBEAT, 8),
                        (offset::MASTER_PID, 4),
                        (offset::MASTER_ALIVE, 4),
                        (offset::NATIVE_MASTER_MARK, 4),
                    ],
                };
                let own = own.map(|(at, len)| at..at + len);
                let allowed = if beaten.is_ok() { &own[..] } else { &[] };
                self.only_changed(&before, allowed);
                return;
            }
            3 => {
                let _ = (self.endpoint.lost(), self.endpoint.connection());
                assert_eq!(self.endpoint.name(), OWNER);
                assert_eq!(self.endpoint.capacity(), self.layout.capacity() as usize);
            }
            _ => {
                let events = self.endpoint.events();
                let _ = self.endpoint.remote();
                while events.try_next().is_some() {}
                assert_eq!(events.missed(), 0);
            }
        }
        self.only_changed(&before, &[]);
    }

    fn remote(&mut self) {
        self.counts.add(match self.endpoint.remote() {
            Remote::NeverSeen => "remote: never seen",
            Remote::Alive => "remote: alive",
            Remote::Stale => "remote: stale",
            _ => "remote: closed",
        });
    }

    fn anything(&mut self, random: &mut Random) {
        match random.below(8) {
            0..4 => self.read(random),
            4..6 => self.write(random),
            _ => self.look(random),
        }
    }
}

/// Where a sleeping reader is counted.
fn waiters(place: &ChannelPlace) -> Range<usize> {
    let at = place.native_waiters as usize;
    at..at + 4
}

/// Opens a damaged object as either side or as both, damages it once more, and
/// uses it.
fn use_image(
    sound: &Sound,
    before: &[Damage],
    after: &[Damage],
    random: &mut Random,
    counts: &mut Counts,
) {
    let layout = sound.layout();
    let mut image = sound.image.clone();
    for damage in before {
        damage.apply(&mut image);
    }
    let object = HeapObject::from_image(&image, sound.capacity);
    let mut endpoints = Vec::new();
    let sides = random.below(4);
    for takes_over in [false, true] {
        if sides == usize::from(takes_over) {
            continue;
        }
        let config = config(random);
        let opened = if takes_over {
            object.take_over(config)
        } else {
            object.attach(config)
        };
        assert_eq!(opened.is_ok(), is_sound(&image, layout), "{opened:?}");
        endpoints.extend(counts.opened(opened));
    }
    if endpoints.is_empty() {
        assert_eq!(object.image(), image, "it was left alone");
        return;
    }
    for damage in after {
        damage.poke(&object);
    }
    for _ in 0..4 {
        let mut next = Vec::new();
        for endpoint in endpoints {
            let mut it = Use {
                endpoint,
                object: &object,
                layout,
                counts: &mut *counts,
            };
            for _ in 0..3 {
                it.anything(random);
            }
            next.push(it.endpoint);
        }
        endpoints = next;
        // In between, more of it.
        if let Some(damage) = after.first()
            && random.one_in(4)
        {
            damage.poke(&object);
        }
    }
    if random.one_in(128) {
        silence(&object, layout, &mut endpoints, random, counts);
    }
    // Whatever it was: who writes now is read now.
    if let [slave, master] = &mut endpoints[..] {
        for direction in Direction::ALL {
            let place = layout.channel(direction);
            let result = match direction {
                Direction::MasterToSlave => after_all(master, slave),
                Direction::SlaveToMaster => after_all(slave, master),
            };
            let Some(delivered) = result else {
                counts.add("not written or stale after all");
                continue;
            };
            counts.add(if delivered {
                "a message after all"
            } else {
                "no message after all"
            });
            // Unless the number was set back, to the one that was seen last.
            let sequence = place.sequence as usize;
            let stored = after.iter().chain(before).any(|damage| match damage {
                Damage::Store(at, bytes) => (*at..at + bytes.len()).contains(&sequence),
                Damage::Length(_) => false,
            });
            assert!(delivered || stored, "it is not delivered");
        }
    }
}

/// The other side leaves or falls silent, so long that it is noticed by who is to
/// notice soon.
fn silence(
    object: &HeapObject,
    layout: Layout,
    endpoints: &mut Vec<Endpoint>,
    random: &mut Random,
    counts: &mut Counts,
) {
    object.poke(offset::STALE_THRESHOLD, &[0; 4]);
    for (beats, flag) in [
        (offset::MASTER_HEARTBEAT, offset::MASTER_ALIVE),
        (offset::SLAVE_HEARTBEAT, offset::SLAVE_ALIVE),
    ] {
        // One that has beaten: then its process does not speak for it.
        object.poke(beats, &(random.next() | 1).to_le_bytes());
        object.poke(flag, &(random.next() as u32 % 2).to_le_bytes());
    }
    for pause in [0, 3] {
        std::thread::sleep(Duration::from_millis(pause));
        for endpoint in std::mem::take(endpoints) {
            let mut it = Use {
                endpoint,
                object,
                layout,
                counts: &mut *counts,
            };
            it.remote();
            it.read(random);
            endpoints.push(it.endpoint);
        }
    }
}

/// Whether a message that is written now is read; `None` when it may not be
/// written or read.
fn after_all(writer: &mut Endpoint, reader: &mut Endpoint) -> Option<bool> {
    writer.write(b"z").ok()?;
    match reader.try_read() {
        Ok(Some(message)) => {
            assert_eq!(*message, *b"z");
            Some(true)
        }
        Ok(None) => Some(false),
        Err(ReadError::Stale { .. }) => None,
        Err(other) => panic!("{other:?}"),
    }
}

/// Runs one case; a panic says which.
struct Runner {
    progress: Arc<AtomicU64>,
    now: Arc<StdMutex<String>>,
    counts: Counts,
    slowest: (Duration, String),
}

impl Runner {
    fn new() -> Self {
        let runner = Self {
            progress: Arc::default(),
            now: Arc::default(),
            counts: Counts::default(),
            slowest: (Duration::ZERO, String::new()),
        };
        watch(&runner.progress, &runner.now);
        runner
    }

    fn run(&mut self, what: impl Fn() -> String, case: impl FnOnce(&mut Counts)) {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.counts.add("images");
        if let Ok(mut now) = self.now.lock() {
            *now = what();
        }
        let start = Instant::now();
        let counts = &mut self.counts;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(counts))) {
            eprintln!("a panic at {}", what());
            std::panic::resume_unwind(panic);
        }
        let took = start.elapsed();
        if took > self.slowest.0 {
            self.slowest = (took, what());
        }
    }

    fn images(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

fn damaged_images(runner: &mut Runner, sound: &[Sound], wanted: u64) -> u64 {
    let mut random = Random(8);
    for sound in sound {
        let what = || format!("{}, unchanged", sound.what);
        runner.run(what, |counts| {
            use_image(sound, &[], &[], &mut random, counts);
        });
    }
    // Every field in each state at its edges and every length, before the object
    // is opened and after; or, in few images, as many of them, evenly.
    let all: usize = sound.iter().map(singles).sum::<usize>() * 2;
    let step = (all as u64 * 2).div_ceil(wanted.max(1)).max(1) as usize;
    let mut at = 0;
    for sound in sound {
        let own = singles(sound) * 2;
        while at < own {
            let damage = [single(sound, at / 2).expect("there are as many")];
            let opened_before = at % 2 == 1;
            let what = || format!("{}, {damage:?}, late {opened_before}", sound.what);
            runner.run(what, |counts| {
                let (before, after) = if opened_before {
                    (&[][..], &damage[..])
                } else {
                    (&damage[..], &[][..])
                };
                use_image(sound, before, after, &mut random, counts);
            });
            at += step;
        }
        at -= own;
    }
    let systematic = runner.images();
    while runner.images() < wanted.max(systematic) {
        let sound = &sound[random.below(sound.len())];
        let seed = random.next() | 1;
        let what = || format!("{}, several changes, seed {seed}", sound.what);
        let mut random = Random(seed);
        let late = several(sound, &mut random);
        let early = if random.one_in(2) {
            several(sound, &mut random)
        } else {
            Vec::new()
        };
        runner.run(what, |counts| {
            use_image(sound, &early, &late, &mut random, counts);
        });
    }
    systematic
}

// While others store.

/// Capacity of what is used while others store: four bytes are between the data
/// and what comes behind.
const LIVE: u64 = 100;

/// A message that tells whether it is whole: its number, and as many bytes of it
/// as it says.
fn numbered(number: u64) -> Vec<u8> {
    let mut message = number.to_le_bytes().to_vec();
    message.resize(8 + (number % 90) as usize, number as u8);
    message
}

/// One thread writes, one stores anything anywhere but in the message and its
/// number, and one reads: each message is whole, and they are in order.
fn live_around_messages(seed: u64, reads: usize, counts: &mut Counts) {
    let layout = Layout::new(LIVE).expect("within limits");
    let object = HeapObject::new(LIVE);
    let mut random = Random(seed);
    let (mut master, mut slave) = pair(&object, config(&mut random));
    let mut all = HEADER.to_vec();
    all.extend(fields_of(&layout.channel(Direction::SlaveToMaster)));
    // Of the channel that is watched, all but the sequence and the length.
    all.extend(&fields_of(&layout.channel(Direction::MasterToSlave))[2..]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (object, over) = (&object, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let image = object.image();
                let field = random.pick(&all);
                let which = random.below(EDGES);
                Damage::field(&image, LIVE as u32, field, which).poke(object);
                // Who believes to be displaced writes no more.
                Damage::Store(field.0, image[field.0..field.0 + field.1].to_vec()).poke(object);
            }
        });
        let writer = scope.spawn(move || {
            let mut counts = Counts::default();
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let written = master.write(&numbered(number + 1));
                number += u64::from(written.is_ok());
                counts.written(&written);
                // Whatever comes from there.
                counts.read(&master.try_read(), Option::is_some);
                if number % 16 == 0 {
                    counts.beaten(&master.update_heartbeat());
                }
            }
            (number, counts)
        });
        let mut last = 0;
        for _ in 0..reads {
            let result = slave.try_read();
            counts.read(&result, Option::is_some);
            if let Ok(Some(message)) = result {
                let number = u64::from_le_bytes(message[..8].try_into().expect("eight bytes"));
                assert_eq!(*message, *numbered(number), "torn");
                assert!(number > last, "{number} after {last}");
                last = number;
            }
            counts.written(&slave.write(b"anything"));
            let _ = (slave.stats(), slave.remote(), slave.lost());
        }
        over.store(true, Ordering::Relaxed);
        let (written, of_writer) = writer.join().expect("it does not panic");
        assert!(last <= written);
        for (outcome, count) in of_writer.0 {
            *counts.0.entry(outcome).or_default() += count;
        }
    });
}

/// Bytes that a hostile writer stores as data, and lengths that it claims.
const HOSTILE_BYTES: Range<u8> = b'a'..b'z' + 1;
const HOSTILE_SIZES: [u32; 7] = [0, 1, 50, 99, 100, 101, 1 << 20];

/// A message has bytes that were there as data, and a length that was there as
/// one: nothing of it comes from anywhere else.
#[track_caller]
fn was_there(message: &[u8]) {
    let len = message.len() as u32;
    let sizes = HOSTILE_SIZES.contains(&len) || [7, 77].contains(&len);
    assert!(sizes && len <= LIVE as u32, "a message of {len} bytes");
    let stray = message
        .iter()
        .find(|byte| !HOSTILE_BYTES.contains(byte) && !byte.is_ascii_uppercase() && **byte != b'.');
    assert_eq!(stray, None, "{message:?}");
}

/// Everything of a channel is stored to while it is read: numbers, length and
/// data.
fn live_in_messages(seed: u64, reads: usize, counts: &mut Counts) {
    let layout = Layout::new(LIVE).expect("within limits");
    let object = HeapObject::new(LIVE);
    let mut random = Random(seed);
    let (mut master, mut slave) = pair(&object, config(&mut random));
    let place = layout.channel(Direction::MasterToSlave);
    // What nobody wrote yet is told apart from what lies outside.
    object.poke(place.data as usize, &[b'.'; LIVE as usize]);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (object, over) = (&object, &over);
        let mut pokes = Random(random.next() | 1);
        scope.spawn(move || {
            let (sequence, data) = (place.sequence as usize, place.data as usize);
            while !over.load(Ordering::Relaxed) {
                match pokes.below(6) {
                    0 => object.poke(sequence, &(pokes.next() as u32 % 32).to_le_bytes()),
                    1 | 2 => {
                        let size = pokes.pick(&HOSTILE_SIZES);
                        object.poke(place.data_size as usize, &size.to_le_bytes());
                    }
                    3 => {
                        let at = pokes.below(LIVE as usize);
                        let byte = HOSTILE_BYTES.start + pokes.below(26) as u8;
                        object.poke(data + at, &vec![byte; LIVE as usize - at]);
                    }
                    4 => {
                        let image = object.image();
                        let field = pokes.pick(&fields_of(&place));
                        // Not the length, which is known.
                        if field.0 != place.data_size as usize {
                            let which = pokes.below(EDGES);
                            Damage::field(&image, LIVE as u32, field, which).poke(object);
                        }
                    }
                    _ => {
                        let even = word32(&object.image(), sequence).wrapping_add(2) & !1;
                        object.poke(sequence, &even.to_le_bytes());
                    }
                }
            }
        });
        scope.spawn(move || {
            let mut byte = b'A';
            while !over.load(Ordering::Relaxed) {
                for len in [7, 77] {
                    let _ = master.write(&vec![byte; len]);
                }
                byte = if byte == b'Z' { b'A' } else { byte + 1 };
                std::thread::yield_now();
            }
        });
        let mut buffer = [0; LIVE as usize];
        for _ in 0..reads {
            let small = random.below(LIVE as usize + 1);
            match random.below(5) {
                0 => {
                    let result = slave.try_read();
                    counts.read(&result, Option::is_some);
                    if let Ok(Some(message)) = result {
                        was_there(&message);
                    }
                }
                1 => {
                    let timeout = Duration::from_micros(random.next() % 100);
                    let result = slave.read_timeout(timeout);
                    counts.read(&result, |_| true);
                    if let Ok(message) = result {
                        was_there(&message);
                    }
                }
                2 => {
                    let result = slave.read_latest();
                    counts.read(&result, Option::is_some);
                    if let Ok(Some(message)) = result {
                        was_there(&message);
                    }
                }
                3 => counts.read(&slave.read_items(NOW), |_| true),
                _ => {
                    let result = slave.try_read_into(&mut buffer[..small]);
                    counts.read(&result, Option::is_some);
                    if let Ok(Some(received)) = result {
                        assert!(received.len <= small);
                        was_there(&buffer[..received.len]);
                    }
                }
            }
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn live(runner: &mut Runner, rounds: u64) {
    let mut random = Random(9);
    for round in 0..rounds {
        let seed = random.next() | 1;
        let around = round % 2 == 0;
        let what = || format!("live, around messages {around}, seed {seed}");
        runner.run(what, |counts| {
            if around {
                live_around_messages(seed, 1000, counts);
            } else {
                live_in_messages(seed, 1000, counts);
            }
        });
    }
}

// With names.

fn path(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/eshm_{name}"))
}

/// Opens a damaged object by its name, where also who lives is judged, and
/// another endpoint beside it; then one stores to it, with or without a
/// heartbeat thread.
fn use_named(name: &str, image: &[u8], sound: &Sound, random: &mut Random, counts: &mut Counts) {
    let _ = fs::remove_file(path(name));
    fs::write(path(name), image).expect("it can be written");
    let mut endpoints = Vec::new();
    let mut threaded = false;
    for _ in 0..2 {
        let role = random.pick(&[Role::Master, Role::Slave, Role::Auto]);
        let threads = random.one_in(4);
        threaded |= threads;
        let opened = config(random)
            .capacity(sound.capacity)
            .role(role)
            .promote(random.one_in(2))
            .threads(threads)
            .reconnect_interval(Duration::from_millis(1))
            .reconnect_attempts(2)
            .open(name);
        endpoints.extend(counts.opened(opened));
    }
    let len = sound.layout().object_len() as usize;
    let file = File::options().write(true).open(path(name));
    for _ in 0..4 {
        if let Ok(file) = &file {
            for damage in several(sound, random) {
                // Within what is mapped: to cut it would end in a SIGBUS, which
                // no program on Linux can be spared.
                if let Damage::Store(at, bytes) = damage {
                    let bytes = &bytes[..bytes.len().min(len - at)];
                    file.write_all_at(bytes, at as u64)
                        .expect("it can be written");
                }
            }
        }
        if threaded && random.one_in(4) {
            // Until the heartbeat thread has seen it, and given up.
            std::thread::sleep(Duration::from_millis(20));
        }
        for endpoint in &mut endpoints {
            counts.written(&endpoint.write(b"n"));
            let timeout = Duration::from_micros(random.next() % 200);
            let read = endpoint.read_timeout(timeout);
            counts.read(&read, |_| true);
            if let Ok(message) = read {
                assert!(message.len() as u64 <= sound.capacity);
            }
            counts.read(&endpoint.read_latest(), Option::is_some);
            counts.beaten(&endpoint.update_heartbeat());
            let _ = (endpoint.remote(), endpoint.stats(), endpoint.connection());
            counts.add(match endpoint.reconnect() {
                Ok(()) => "reconnected, or no need",
                Err(OpenError::RoleTaken { .. }) => "reconnect: role taken",
                Err(error) if error.is_transient() => "reconnect: no master",
                Err(_) => "reconnect: damaged",
            });
        }
    }
}

fn named(runner: &mut Runner, sound: &[Sound], wanted: u64) {
    let name = Name::new("hostile");
    let mut random = Random(10);
    for _ in 0..wanted {
        let sound = &sound[random.below(sound.len())];
        let seed = random.next() | 1;
        let what = || format!("named, {}, seed {seed}", sound.what);
        let mut random = Random(seed);
        let mut image = sound.image.clone();
        if !random.one_in(4) {
            for damage in several(sound, &mut random) {
                damage.apply(&mut image);
            }
        }
        // A slow judgement is the rule where a living process's heartbeat is to
        // be seen, up to the threshold: mostly it is short.
        if !random.one_in(64) && image.len() > offset::STALE_THRESHOLD + 4 {
            let threshold = random.next() as u32 % 5;
            let bytes = threshold.to_le_bytes().to_vec();
            Damage::Store(offset::STALE_THRESHOLD, bytes).apply(&mut image);
        }
        runner.run(what, |counts| {
            use_named(&name, &image, sound, &mut random, counts);
        });
    }
}

#[test]
fn damaged_objects_end_in_a_whole_message_or_an_error() {
    let mut runner = Runner::new();
    let sound = sound_images();
    let wanted = images_wanted();
    let systematic = damaged_images(&mut runner, &sound, wanted);
    let images = runner.images();
    let damaged = runner.take_counts();
    println!("{images} images ({systematic} systematic): {:?}", damaged.0);
    live(&mut runner, (wanted / 250).max(100));
    let live = runner.take_counts();
    println!("live: {:?}", live.0);
    named(&mut runner, &sound, (wanted / 200).max(200));
    let named = runner.take_counts();
    println!("named: {:?}", named.0);
    println!("slowest: {:?} at {}", runner.slowest.0, runner.slowest.1);
    // The mutations reach all the code: each outcome occurs.
    damaged.all_occur(&[
        "opened",
        "open: not ready",
        "open: another magic",
        "open: another version",
        "open: too short",
        "open: another capacity",
        "read: a message",
        "read: nothing",
        "read: timeout",
        "read: buffer too small",
        "read: damaged",
        "read: no items",
        "written",
        "write: too large",
        "write: displaced",
        "beaten",
        "heartbeat: displaced",
        "remote: never seen",
        "remote: alive",
        "remote: stale",
        "remote: closed",
        "a message after all",
        "no message after all",
    ]);
    live.all_occur(&[
        "read: a message",
        "read: nothing",
        "read: timeout",
        "read: buffer too small",
        "read: damaged",
        "read: no items",
        "written",
        "write: displaced",
    ]);
    named.all_occur(&[
        "opened",
        "open: role taken",
        "read: a message",
        "read: timeout",
        "read: damaged",
        "written",
        "write: displaced",
        "heartbeat: displaced",
        "reconnected, or no need",
        "reconnect: no master",
    ]);
    if wanted >= MANY {
        named.all_occur(&[
            "open: not ready",
            "open: another magic",
            "open: another version",
            "open: another capacity",
            "open: too short",
            "read: stale",
            "read: given up",
            "write: reconnecting",
            "write: given up",
            "heartbeat: disconnected",
        ]);
    }
    polyshm_testkit::report(
        "eshm-hostile.json",
        &serde_json::json!({
            "images": images,
            "systematic": systematic,
            "outcomes": damaged.0,
            "live": live.0,
            "named": named.0,
            "slowest": { "milliseconds": runner.slowest.0.as_millis() as u64, "at": runner.slowest.1 },
        }),
    );
}

/// What the reference implementation crashes at, or hangs.
#[test]
fn known_attacks_end_in_errors() {
    let sound = |make: &dyn Fn(&HeapObject)| {
        let object = HeapObject::new(4096);
        let (master, slave) = pair(&object, Endpoint::builder());
        make(&object);
        (master, slave, object)
    };
    let place = Layout::default().channel(Direction::MasterToSlave);
    let (sequence, size) = (place.sequence as usize, place.data_size as usize);
    // A length beyond the object, whatever the buffer takes.
    for found in [4097_u32, 9000, 16 << 20, u32::MAX] {
        let (_master, mut slave, object) = sound(&|object| {
            object.poke(size, &found.to_le_bytes());
            object.poke(sequence, &2_u32.to_le_bytes());
        });
        let before = object.image();
        let mut buffer = vec![0; 1 << 16];
        let read = slave.read_into(&mut buffer, NOW);
        assert!(matches!(read, Err(ReadError::Corrupt { .. })), "{read:?}");
        assert!(buffer.iter().all(|byte| *byte == 0), "nothing was copied");
        assert_eq!(object.image(), before);
    }
    // A number that stays odd: the deadline holds, and the next writer mends it.
    for odd in [1_u32, 3, u32::MAX] {
        let (mut master, mut slave, _object) = sound(&|object| {
            object.poke(sequence, &odd.to_le_bytes());
            object.poke(place.write_count as usize, &u64::MAX.to_le_bytes());
        });
        let patience = Duration::from_millis(5);
        let start = Instant::now();
        let read = slave.read_timeout(patience);
        assert!(matches!(read, Err(ReadError::Timeout { .. })), "{read:?}");
        assert!(start.elapsed() >= patience);
        master.write(b"mended").unwrap();
        let read = slave.try_read().unwrap();
        // The largest becomes 0, which is where the slave began.
        assert_eq!(read.is_some(), odd != u32::MAX);
        master.write(b"and on").unwrap();
        assert_eq!(*slave.try_read().unwrap().unwrap(), *b"and on");
    }
    // Nothing there at all.
    for image in [&[][..], &[0x4D], &[0; 4096]] {
        let opened = HeapObject::from_image(image, 4096).attach(Endpoint::builder());
        assert!(
            matches!(opened, Err(OpenError::NotReady { .. })),
            "{opened:?}"
        );
    }
}
