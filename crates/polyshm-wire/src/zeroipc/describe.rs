//! A whole image, taken apart (section 9, item 4).

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    ArrayForm, ArrayLayout, BarrierImage, ChannelHeader, ChannelSync, Dialect, Entry, EventImage,
    Extent, FutureHeader, ImageError, LatchImage, LazyBoolImage, LazyLayout, MARKER_SIZE,
    MapHeader, MapLayout, PoolHeader, PoolLayout, QueueHeader, QueueLayout, RingHeader, RingLayout,
    RwLockImage, SemaphoreImage, SetHeader, SetLayout, StackHeader, StackLayout, StreamHeader,
    StreamVoid, TableHeader, barrier, channel, event, future, latch, lazy, lazy_bool, map, monitor,
    once, pool, queue, ring, rwlock, semaphore, set, signal, stack, stream, suffix,
};

/// A structure that an entry can be, with what its header says.
///
/// Fields are as found. Lengths in `..size` fields are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Candidate {
    /// elements without a state of their own
    Array {
        /// which header
        form: ArrayForm,
        /// elements
        capacity: u64,
        /// the only one that fills the entry
        elem_size: u64,
    },
    /// first in, first out
    Queue {
        /// slots
        capacity: u32,
        /// bytes per element
        elem_size: u32,
        /// pops claimed
        head: u32,
        /// pushes claimed
        tail: u32,
    },
    /// last in, first out
    Stack {
        /// slots
        capacity: u32,
        /// bytes per element
        elem_size: u32,
        /// index of the last item, -1 when empty
        top: i32,
    },
    /// one reader, one writer; also what a Python stream is
    Ring {
        /// bytes
        capacity: u32,
        /// bytes per element
        elem_size: u32,
        /// bytes ever written
        write_pos: u64,
        /// bytes ever read
        read_pos: u64,
    },
    /// nodes that are taken and given back
    Pool {
        /// nodes
        capacity: u32,
        /// bytes per element
        elem_size: u32,
        /// 8, or 4 which stands for anything below too
        elem_align: u32,
        /// nodes in use
        allocated: u32,
        /// the next free node, `u32::MAX` for none
        free: u32,
    },
    /// keys and values
    Map {
        /// decides the offsets and the hash
        dialect: Dialect,
        /// slots
        capacity: u32,
        /// bytes per key
        key_size: u32,
        /// bytes per value
        value_size: u32,
        /// where in a slot the key is
        key_offset: u64,
        /// where in a slot the value is
        value_offset: u64,
        /// pairs, as counted
        length: u32,
    },
    /// keys alone
    Set {
        /// decides the offsets and the hash
        dialect: Dialect,
        /// slots
        capacity: u32,
        /// bytes per element
        elem_size: u32,
        /// where in a slot the element is
        elem_offset: u64,
        /// elements, as counted
        length: u32,
    },
    /// permits
    Semaphore {
        /// permits left
        count: i32,
        /// waiters, as counted
        waiting: i32,
        /// 0 for no limit
        max_count: i32,
    },
    /// a semaphore with a maximum of 1
    Mutex {
        /// nobody knows by whom
        locked: bool,
        /// waiters, as counted
        waiting: i32,
    },
    /// everybody waits for everybody
    Barrier {
        /// in this round
        arrived: i32,
        /// rounds completed
        generation: i32,
        /// in each round
        participants: i32,
    },
    /// opens once
    Latch {
        /// counts left
        count: i32,
        /// counts at first
        initial: i32,
    },
    /// something is done once
    Once {
        /// 0 pending, 1 executing, 2 done
        state: u32,
    },
    /// an event, whose waiters are in another entry
    Event {
        /// or auto-reset
        manual: bool,
        /// as found
        signaled: bool,
        /// waiters, as counted by C++
        waiting: u32,
    },
    /// the marker of a read-write lock
    RwLock {
        /// inside
        readers: i32,
        /// inside, or waiting for the readers to leave
        writer: bool,
    },
    /// the marker of a monitor
    Monitor {
        /// its mutex
        locked: bool,
        /// waiters, as counted
        waiters: u32,
    },
    /// the marker of a signal
    Signal {
        /// changes so far
        version: u64,
        /// the largest value that its state can hold
        max_value_size: u64,
    },
    /// a channel: in C++ the entry of its header, in Python of its queue
    Channel {
        /// without the suffix of the header's entry
        name: String,
        /// decides which entries it has
        dialect: Dialect,
        /// items that may wait; 0 when unbuffered
        capacity: u32,
        /// as found
        closed: bool,
        /// inside a call, as counted
        senders: u32,
        /// inside a call, as counted
        receivers: u32,
    },
    /// a C++ stream: the entry of its header
    Stream {
        /// without the suffix of the header's entry
        name: String,
        /// elements that its ring holds
        capacity: u32,
        /// as found
        closed: bool,
        /// values so far
        sequence: u64,
        /// as counted
        subscribers: u32,
    },
    /// a C++ stream of events without a value
    StreamVoid {
        /// events so far
        count: u64,
        /// as found
        closed: bool,
    },
    /// a value or an error, once
    Future {
        /// decides the size of the entry only
        dialect: Dialect,
        /// the smallest value that fills the entry
        min_value_size: u64,
        /// the largest value that fits the entry
        max_value_size: u64,
        /// 0 pending, 1 computing, 2 ready, 3 error
        state: u32,
        /// as counted
        waiters: u32,
    },
    /// a value that is computed when asked for
    Lazy {
        /// decides the offsets
        dialect: Dialect,
        /// bytes of the value
        value_size: u32,
        /// of the value; 1 in Python
        value_align: u32,
        /// 0 not computed, 1 computing, 2 computed, 3 error
        state: u32,
        /// the operation; `None` in Python
        kind: Option<u32>,
    },
    /// C++'s lazy `bool`
    LazyBool {
        /// as in `Lazy`
        state: u32,
        /// the operation
        kind: u32,
        /// the result, once computed
        cached: bool,
    },
    /// a part of a structure that has several entries, by its name
    Part {
        /// the name of the whole
        of: String,
        /// what the whole is
        composite: Composite,
    },
}

/// A structure with several entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Composite {
    /// section 5.6
    Event,
    /// section 5.7
    RwLock,
    /// section 5.8
    Monitor,
    /// section 5.9
    Signal,
    /// section 6.1
    Channel,
    /// section 6.2
    Stream,
}

/// One entry of the table and what it can be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EntryDescription {
    /// in the table
    pub index: u32,
    /// with replacement characters where it is not UTF-8, and cut at 32 bytes
    /// where it is not terminated
    pub name: String,
    /// as the table says, even when that is a problem
    pub extent: Extent,
    /// what is wrong with the name or the place; an entry in a wrong place has
    /// no candidates
    pub problems: Vec<String>,
    /// everything it can be, wholes and parts first; empty when nothing fits
    pub candidates: Vec<Candidate>,
}

/// A whole segment, checked and taken apart by [`describe`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Description {
    /// slots of the table
    pub max_entries: u32,
    /// bytes of the segment; never above the length of the image
    pub memory_size: u64,
    /// where the next structure goes, before it is rounded up
    pub next_offset: u64,
    /// those in use, in the table's order
    pub entries: Vec<EntryDescription>,
}

impl Description {
    /// The first entry with this name, as lookups find it.
    pub fn entry(&self, name: &str) -> Option<&EntryDescription> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Bytes between the last structure and the end of the segment.
    pub const fn free(&self) -> u64 {
        self.memory_size.saturating_sub(self.next_offset)
    }
}

/// Checks a whole image and lists its entries with everything that each can be.
///
/// The format records no types, so this is judgement: a candidate is a
/// structure whose header fits the size of the entry **exactly** and whose
/// states are possible. Several can fit (a barrier and a latch look alike when
/// fresh), and one that a peer damaged may not be listed. Elements are not
/// looked at. An entry that is wrong itself does not hide the others.
///
/// The image must not change meanwhile: copy a live region first. Time and
/// memory are proportional to the length of the image (times its logarithm),
/// whatever it contains.
///
/// ```
/// use polyshm_wire::zeroipc::{Candidate, Entry, QueueLayout, TableHeader, describe, place};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut header = TableHeader::new(4, 4096);
/// let layout = QueueLayout::new(8, 4)?;
/// let extent = place(header.next_offset.get(), layout.size(), 4096)?;
/// header.entry_count.set(1);
/// header.next_offset.set(extent.end());
///
/// let mut image = vec![0; 4096];
/// image[..32].copy_from_slice(&header.to_bytes());
/// image[32..80].copy_from_slice(&Entry::new("jobs", extent)?.to_bytes());
/// let at = usize::try_from(extent.offset)?;
/// image[at..at + 16].copy_from_slice(&layout.header().to_bytes());
///
/// let seen = describe(&image)?;
/// let jobs = seen.entry("jobs").ok_or("not found")?;
/// assert!(jobs.problems.is_empty());
/// let (head, tail) = (0, 0);
/// assert!(jobs.candidates.contains(&Candidate::Queue { capacity: 8, elem_size: 4, head, tail }));
/// # Ok(())
/// # }
/// ```
pub fn describe(image: &[u8]) -> Result<Description, ImageError> {
    let header = TableHeader::read(image)?;
    header.check(image.len() as u64)?;

    let mut entries = Vec::new();
    let mut blocks = Vec::new();
    for index in 0..header.entry_count.get() {
        let entry = Entry::read(image, index)?;
        let mut problems = Vec::new();
        if let Err(error) = entry.name() {
            problems.push(error.to_string());
        }
        let block = match entry.extent(index, &header) {
            Ok(extent) => block(image, extent),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        blocks.push((entry, block));
        entries.push(EntryDescription {
            index,
            name: entry.name_lossy(),
            extent: Extent {
                offset: entry.offset.get(),
                size: entry.size.get(),
            },
            problems,
            candidates: Vec::new(),
        });
    }

    find_composites(&blocks, &mut entries);
    for ((_, block), entry) in blocks.iter().zip(&mut entries) {
        if let Some(block) = block {
            single(block, &mut entry.candidates);
        }
    }
    Ok(Description {
        max_entries: header.slots(),
        memory_size: header.memory_size.get(),
        next_offset: header.next_offset.get(),
        entries,
    })
}

fn block(image: &[u8], extent: Extent) -> Option<&[u8]> {
    let start = usize::try_from(extent.offset).ok()?;
    let size = usize::try_from(extent.size).ok()?;
    image.get(start..)?.get(..size)
}

/// The entries by the names that lookups find.
///
/// Of several with the same name that is the first, even where its place is
/// wrong and it has no block.
struct Names<'a>(BTreeMap<&'a str, (usize, Option<&'a [u8]>)>);

impl<'a> Names<'a> {
    fn new(blocks: &'a [(Entry, Option<&'a [u8]>)]) -> Self {
        let mut names = BTreeMap::new();
        for (index, (entry, block)) in blocks.iter().enumerate() {
            if let Ok(name) = entry.name() {
                names.entry(name).or_insert((index, *block));
            }
        }
        Self(names)
    }

    /// The part of `name` with this suffix.
    fn part(&self, name: &str, suffix: &str) -> Option<(usize, &'a [u8])> {
        let (index, block) = self.0.get(format!("{name}{suffix}").as_str())?;
        Some((*index, (*block)?))
    }

    /// As [`part`](Self::part), of this size.
    fn sized(&self, name: &str, suffix: &str, size: u64) -> Option<(usize, &'a [u8])> {
        self.part(name, suffix)
            .filter(|(_, block)| block.len() as u64 == size)
    }

    /// As [`part`](Self::part), if it can be a semaphore.
    fn semaphore(&self, name: &str, suffix: &str) -> Option<(usize, SemaphoreImage)> {
        let (index, block) = self.sized(name, suffix, semaphore::SIZE)?;
        SemaphoreImage::read(block).ok().map(|image| (index, image))
    }
}

/// A composite structure: what its first entry is, and its other entries.
type Whole = (Composite, Candidate, Vec<usize>);

fn find_composites(blocks: &[(Entry, Option<&[u8]>)], entries: &mut [EntryDescription]) {
    let names = Names::new(blocks);
    for (name, (index, block)) in &names.0 {
        let Some(block) = block else {
            continue;
        };
        let found = [
            event_at(&names, name, block),
            rwlock_at(&names, name, block),
            monitor_at(&names, name, block),
            signal_at(&names, name, block),
            channel_at(&names, name, block),
            channel_header_at(&names, name, block),
            stream_header_at(&names, name, block),
        ];
        for (composite, candidate, parts) in found.into_iter().flatten() {
            let of = match &candidate {
                Candidate::Channel { name, .. } | Candidate::Stream { name, .. } => name.clone(),
                _ => (*name).to_string(),
            };
            for part in parts {
                if let Some(entry) = entries.get_mut(part) {
                    let of = of.clone();
                    entry.candidates.push(Candidate::Part { of, composite });
                }
            }
            if let Some(entry) = entries.get_mut(*index) {
                entry.candidates.push(candidate);
            }
        }
    }
}

fn event_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    let candidate = event_alone(block)?;
    let (semaphore, _) = names.semaphore(name, suffix::EVENT_SEM)?;
    Some((Composite::Event, candidate, Vec::from([semaphore])))
}

fn rwlock_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    marker(block)?;
    let (state, words) = names.sized(name, suffix::RW_STATE, rwlock::SIZE)?;
    let (readers, _) = names.semaphore(name, suffix::RW_READER_MUTEX)?;
    let (writers, _) = names.semaphore(name, suffix::RW_WRITER_MUTEX)?;
    let words = RwLockImage::read(words).ok()?;
    let candidate = Candidate::RwLock {
        readers: words.readers.get(),
        writer: words.writer_active.get() != 0,
    };
    let parts = Vec::from([state, readers, writers]);
    Some((Composite::RwLock, candidate, parts))
}

fn monitor_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    marker(block)?;
    let (mutex, lock) = names.semaphore(name, suffix::MONITOR_MUTEX)?;
    let (condition, _) = names.semaphore(name, suffix::MONITOR_CONDITION)?;
    let (count, word) = names.sized(name, suffix::MONITOR_COUNT, monitor::COUNT_SIZE)?;
    let candidate = Candidate::Monitor {
        locked: lock.count.get() <= 0,
        waiters: u32_at(word, 0)?,
    };
    let parts = Vec::from([mutex, condition, count]);
    Some((Composite::Monitor, candidate, parts))
}

fn signal_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    marker(block)?;
    let (mutex, _) = names.semaphore(name, suffix::SIGNAL_MUTEX)?;
    let (state, words) = names.part(name, suffix::SIGNAL_STATE)?;
    let max_value_size = (words.len() as u64).checked_sub(signal::VALUE)?;
    if max_value_size == 0 {
        return None;
    }
    let candidate = Candidate::Signal {
        version: u64_at(words, signal::VERSION)?,
        max_value_size,
    };
    Some((Composite::Signal, candidate, Vec::from([state, mutex])))
}

/// Python: a queue under the plain name and its counters.
fn channel_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    queue_alone(block)?;
    let (sync, words) = names.sized(name, suffix::CHANNEL_SYNC, channel::sync::SIZE)?;
    let words = ChannelSync::read(words).ok()?;
    let candidate = Candidate::Channel {
        name: name.to_string(),
        dialect: Dialect::Python,
        capacity: words.capacity.get(),
        closed: words.closed.get() != 0,
        senders: words.senders.get(),
        receivers: words.receivers.get(),
    };
    Some((Composite::Channel, candidate, Vec::from([sync])))
}

/// C++: a header, with a queue or a slot beside it.
fn channel_header_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    let base = name.strip_suffix(suffix::CHANNEL_HEADER)?;
    let header = exactly(block, channel::header::SIZE)?;
    let header = ChannelHeader::read(header).ok()?;
    let capacity = header.capacity.get();
    let part = if capacity == 0 {
        let (slot, _) = names.part(base, suffix::CHANNEL_SLOT)?;
        slot
    } else {
        let (buffer, queue) = names.part(base, suffix::CHANNEL_BUFFER)?;
        queue_alone(queue)?;
        buffer
    };
    if header.closed > 1 {
        return None;
    }
    let candidate = Candidate::Channel {
        name: base.to_string(),
        dialect: Dialect::Cpp,
        capacity,
        closed: header.closed != 0,
        senders: header.senders.get(),
        receivers: header.receivers.get(),
    };
    Some((Composite::Channel, candidate, Vec::from([part])))
}

fn stream_header_at(names: &Names<'_>, name: &str, block: &[u8]) -> Option<Whole> {
    let base = name.strip_suffix(suffix::STREAM_HEADER)?;
    let header = exactly(block, stream::HEADER_SIZE)?;
    let header = StreamHeader::read(header).ok()?;
    let (buffer, bytes) = names.part(base, suffix::STREAM_BUFFER)?;
    ring_alone(bytes)?;
    if header.closed > 1 {
        return None;
    }
    let candidate = Candidate::Stream {
        name: base.to_string(),
        capacity: header.capacity.get(),
        closed: header.closed != 0,
        sequence: header.sequence.get(),
        subscribers: header.subscribers.get(),
    };
    Some((Composite::Stream, candidate, Vec::from([buffer])))
}

/// Everything that an entry can be by its own bytes.
fn single(block: &[u8], candidates: &mut Vec<Candidate>) {
    candidates.extend(queue_alone(block));
    candidates.extend(stack_alone(block));
    candidates.extend(ring_alone(block));
    pools(block, candidates);
    maps(block, candidates);
    sets(block, candidates);
    arrays(block, candidates);
    match block.len() as u64 {
        semaphore::SIZE => sixteen(block, candidates),
        event::SIZE => {
            // It stays an event while its semaphore is being created.
            let event = event_alone(block).filter(|event| !candidates.contains(event));
            candidates.extend(event);
        }
        once::SIZE => {
            let state = u32_at(block, once::STATE).filter(|state| *state <= once::DONE);
            candidates.extend(state.map(|state| Candidate::Once { state }));
        }
        _ => {}
    }
    futures(block, candidates);
    lazies(block, candidates);
}

/// The structures of 16 bytes. Nobody looks at a reserved word, but everybody
/// stores 0 there.
fn sixteen(block: &[u8], candidates: &mut Vec<Candidate>) {
    if let Ok(image) = SemaphoreImage::read(block)
        && image.check().is_ok()
        && image.reserved.get() == 0
    {
        if image.is_mutex() {
            candidates.push(Candidate::Mutex {
                locked: image.count.get() == 0,
                waiting: image.waiting.get(),
            });
        }
        candidates.push(Candidate::Semaphore {
            count: image.count.get(),
            waiting: image.waiting.get(),
            max_count: image.max_count.get(),
        });
    }
    const { assert!(barrier::SIZE == semaphore::SIZE) };
    if let Ok(image) = BarrierImage::read(block)
        && image.check().is_ok()
        && image.reserved.get() == 0
    {
        candidates.push(Candidate::Barrier {
            arrived: image.arrived.get(),
            generation: image.generation.get(),
            participants: image.participants.get(),
        });
    }
    const { assert!(latch::SIZE == semaphore::SIZE) };
    if let Ok(image) = LatchImage::read(block)
        && image.check().is_ok()
        && image.reserved.iter().all(|word| word.get() == 0)
    {
        candidates.push(Candidate::Latch {
            count: image.count.get(),
            initial: image.initial.get(),
        });
    }
    const { assert!(stream::void::SIZE == semaphore::SIZE) };
    if let Ok(image) = StreamVoid::read(block)
        && image.closed <= 1
        && image.padding == [0; 7]
    {
        candidates.push(Candidate::StreamVoid {
            count: image.count.get(),
            closed: image.closed != 0,
        });
    }
    const { assert!(lazy_bool::SIZE == semaphore::SIZE) };
    if let Ok(image) = LazyBoolImage::read(block)
        && image.state.get() <= lazy::ERROR
        && image.kind.get() <= lazy_bool::NOT
        && image.a <= 1
        && image.b <= 1
        && image.cached <= 1
    {
        candidates.push(Candidate::LazyBool {
            state: image.state.get(),
            kind: image.kind.get(),
            cached: image.cached != 0,
        });
    }
}

fn arrays(block: &[u8], candidates: &mut Vec<Candidate>) {
    let size = block.len() as u64;
    let Some(capacity) = u64_at(block, 0).filter(|capacity| *capacity > 0) else {
        return;
    };
    let mut elem_sizes = Vec::new();
    if (size - 8).is_multiple_of(capacity) {
        elem_sizes.push((ArrayForm::Plain, (size - 8) / capacity));
    }
    elem_sizes.extend(u64_at(block, 8).map(|elem_size| (ArrayForm::C, elem_size)));
    for (form, elem_size) in elem_sizes {
        if let Ok(layout) = ArrayLayout::new(form, capacity, elem_size)
            && layout.size() == size
        {
            candidates.push(Candidate::Array {
                form,
                capacity,
                elem_size,
            });
        }
    }
}

fn queue_alone(block: &[u8]) -> Option<Candidate> {
    let bytes: &[u8; queue::DATA as usize] = block.first_chunk()?;
    let size = block.len() as u64;
    let layout = QueueLayout::read(bytes, size, None).ok()?;
    let header = QueueHeader::read(bytes).ok()?;
    (layout.size() == size).then_some(Candidate::Queue {
        capacity: layout.capacity,
        elem_size: layout.elem_size,
        head: header.head.get(),
        tail: header.tail.get(),
    })
}

fn stack_alone(block: &[u8]) -> Option<Candidate> {
    let bytes: &[u8; stack::DATA as usize] = block.first_chunk()?;
    let size = block.len() as u64;
    let layout = StackLayout::read(bytes, size, None).ok()?;
    let header = StackHeader::read(bytes).ok()?;
    let top = header.top.get();
    layout.check_top(top).ok()?;
    (layout.size() == size).then_some(Candidate::Stack {
        capacity: layout.capacity,
        elem_size: layout.elem_size,
        top,
    })
}

fn ring_alone(block: &[u8]) -> Option<Candidate> {
    let bytes: &[u8; ring::DATA as usize] = block.first_chunk()?;
    let size = block.len() as u64;
    let layout = RingLayout::read(bytes, size, None).ok()?;
    let header = RingHeader::read(bytes).ok()?;
    let (write_pos, read_pos) = (header.write_pos.get(), header.read_pos.get());
    layout.used(write_pos, read_pos).ok()?;
    (layout.size() == size).then_some(Candidate::Ring {
        capacity: layout.capacity,
        elem_size: layout.elem_size,
        write_pos,
        read_pos,
    })
}

fn pools(block: &[u8], candidates: &mut Vec<Candidate>) {
    let Some(bytes) = block.first_chunk::<{ pool::NODES as usize }>() else {
        return;
    };
    let Ok(header) = PoolHeader::read(bytes) else {
        return;
    };
    let (capacity, elem_size) = (header.capacity.get(), header.elem_size.get());
    let (_, free) = pool::split(header.free_head.get());
    if (free >= capacity && free != pool::NULL) || header.allocated.get() > capacity {
        return;
    }
    let size = block.len() as u64;
    for elem_align in [4, 8] {
        if let Ok(layout) = PoolLayout::read(bytes, size, elem_size.into(), elem_align)
            && layout.size() == size
            && (elem_align <= 4 || natural(elem_size, elem_align))
        {
            candidates.push(Candidate::Pool {
                capacity,
                elem_size,
                elem_align: layout.elem_align,
                allocated: header.allocated.get(),
                free,
            });
        }
    }
}

const ALIGNMENTS: [u64; 4] = [1, 2, 4, 8];

/// Whether a C type can have this size and alignment.
const fn natural(size: u32, align: u64) -> bool {
    (size as u64).is_multiple_of(align)
}

fn maps(block: &[u8], candidates: &mut Vec<Candidate>) {
    let Some(bytes) = block.first_chunk::<{ map::ENTRIES as usize }>() else {
        return;
    };
    let Ok(header) = MapHeader::read(bytes) else {
        return;
    };
    let size = block.len() as u64;
    let (key_size, value_size) = (header.key_size.get(), header.value_size.get());
    let mut try_one = |dialect, key_align, value_align| {
        let key = (key_size.into(), key_align);
        let value = (value_size.into(), value_align);
        let Ok(layout) = MapLayout::read(bytes, size, dialect, key, value) else {
            return;
        };
        if layout.size() != size || !states(block, layout.capacity, layout.stride()) {
            return;
        }
        let candidate = Candidate::Map {
            dialect,
            capacity: layout.capacity,
            key_size,
            value_size,
            key_offset: layout.key_offset(),
            value_offset: layout.value_offset(),
            length: header.size.get(),
        };
        // Different alignments may lead to the same offsets.
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    };
    for key_align in ALIGNMENTS {
        for value_align in ALIGNMENTS {
            if value_size <= 8 && natural(key_size, key_align) && natural(value_size, value_align) {
                try_one(Dialect::Cpp, key_align, value_align);
            }
        }
    }
    try_one(Dialect::Python, 1, 1);
}

fn sets(block: &[u8], candidates: &mut Vec<Candidate>) {
    let Some(bytes) = block.first_chunk::<{ set::ENTRIES as usize }>() else {
        return;
    };
    let Ok(header) = SetHeader::read(bytes) else {
        return;
    };
    let size = block.len() as u64;
    let elem_size = header.elem_size.get();
    for dialect in [Dialect::Cpp, Dialect::Python] {
        for elem_align in ALIGNMENTS {
            let Ok(layout) = SetLayout::read(bytes, size, dialect, elem_size.into(), elem_align)
            else {
                continue;
            };
            if layout.size() != size
                || !natural(elem_size, elem_align)
                || !states(block, layout.capacity, layout.stride())
            {
                continue;
            }
            let candidate = Candidate::Set {
                dialect,
                capacity: layout.capacity,
                elem_size,
                elem_offset: layout.elem_offset(),
                length: header.size.get(),
            };
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
    }
}

/// Whether the states of the first slots are possible. Not of all: entries may
/// overlap, and all of them together would take the square of the image's
/// length.
fn states(block: &[u8], capacity: u32, stride: u64) -> bool {
    (0..capacity.min(64)).all(|slot| {
        let at = stride.saturating_mul(slot.into()).saturating_add(16);
        u32_at(block, at).is_some_and(|state| state <= map::INSERTING)
    })
}

fn event_alone(block: &[u8]) -> Option<Candidate> {
    let image = EventImage::read(exactly(block, event::SIZE)?).ok()?;
    image.check().ok()?;
    Some(Candidate::Event {
        manual: image.mode.get() == event::MANUAL,
        signaled: image.signaled.get() != 0,
        waiting: image.waiting.get(),
    })
}

fn futures(block: &[u8], candidates: &mut Vec<Candidate>) {
    let size = block.len() as u64;
    let Some(largest) = size
        .checked_sub(future::VALUE + future::ERROR_SIZE)
        .filter(|largest| *largest > 0)
    else {
        return;
    };
    let Ok(header) = FutureHeader::read(block) else {
        return;
    };
    let (state, waiters) = (header.state.get(), header.waiters.get());
    if state > future::ERROR {
        return;
    }
    // What is rounded up to a multiple of 8 may have been up to 7 less.
    if size.is_multiple_of(8) {
        candidates.push(Candidate::Future {
            dialect: Dialect::Cpp,
            min_value_size: largest.saturating_sub(7).max(1),
            max_value_size: largest,
            state,
            waiters,
        });
    }
    candidates.push(Candidate::Future {
        dialect: Dialect::Python,
        min_value_size: largest,
        max_value_size: largest,
        state,
        waiters,
    });
}

fn lazies(block: &[u8], candidates: &mut Vec<Candidate>) {
    let size = block.len() as u64;
    let Some(state) = u32_at(block, lazy::STATE).filter(|state| *state <= lazy::ERROR) else {
        return;
    };
    for value_align in ALIGNMENTS {
        // By the rules of C it takes three values and 268 to 280 bytes.
        let largest = size.saturating_sub(lazy::ERROR_SIZE + 12) / 3;
        let smallest = largest.saturating_sub(4).max(1);
        for value_size in smallest..=largest {
            let Ok(layout) = LazyLayout::new(Dialect::Cpp, value_size, value_align) else {
                continue;
            };
            let kind = layout.kind_offset().and_then(|at| u32_at(block, at));
            if layout.size() == size
                && natural(layout.elem_size, value_align)
                && kind.is_some_and(|kind| kind <= lazy::EXTERNAL)
            {
                candidates.push(Candidate::Lazy {
                    dialect: Dialect::Cpp,
                    value_size: layout.elem_size,
                    value_align: layout.elem_align,
                    state,
                    kind,
                });
            }
        }
    }
    let value_size = size.checked_sub(4 + lazy::ERROR_SIZE);
    if let Some(Ok(value_size)) = value_size.map(u32::try_from)
        && value_size > 0
    {
        candidates.push(Candidate::Lazy {
            dialect: Dialect::Python,
            value_size,
            value_align: 1,
            state,
            kind: None,
        });
    }
}

fn marker(block: &[u8]) -> Option<()> {
    (block.len() as u64 == MARKER_SIZE).then_some(())
}

fn exactly(block: &[u8], size: u64) -> Option<&[u8]> {
    (block.len() as u64 == size).then_some(block)
}

fn u32_at(block: &[u8], at: u64) -> Option<u32> {
    let bytes = block.get(usize::try_from(at).ok()?..)?;
    bytes.first_chunk().map(|word| u32::from_le_bytes(*word))
}

fn u64_at(block: &[u8], at: u64) -> Option<u64> {
    let bytes = block.get(usize::try_from(at).ok()?..)?;
    bytes.first_chunk().map(|word| u64::from_le_bytes(*word))
}
