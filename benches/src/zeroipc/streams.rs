//! Streams of elements: ZeroIPC's queue and ring between processes, against
//! queues for threads of one process.

use crate::{
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task, say},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, bail, ensure};
use crossbeam_queue::ArrayQueue;
use polyshm_platform::{
    Region, Word32,
    sync::{Ordering, yield_now},
};
use polyshm_zeroipc::{Memory, Queue, Ring};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, process::Stdio, thread, time::Instant};

/// Elements of each queue and ring.
const CAPACITY: usize = 1024;
/// Where a producer's number is in an element; below it is the element's.
const PRODUCER: u32 = 48;
/// How often each contender has its turn in a block, which takes the median.
const ROUNDS: usize = 3;
/// The last element that a consumer takes.
const END: u64 = u64::MAX;

/// Where elements go in. Each gives whether there was room.
trait Inlet {
    fn offer(&mut self, element: u64) -> bool;
}

/// Where elements come out.
trait Outlet {
    fn take(&mut self) -> Option<u64>;
}

impl Inlet for Queue<u64> {
    #[inline]
    fn offer(&mut self, element: u64) -> bool {
        self.try_push(element).is_ok()
    }
}

impl Outlet for Queue<u64> {
    #[inline]
    fn take(&mut self) -> Option<u64> {
        self.try_pop()
    }
}

impl Inlet for Ring<u64> {
    #[inline]
    fn offer(&mut self, element: u64) -> bool {
        self.try_write(element).is_ok()
    }
}

impl Outlet for Ring<u64> {
    #[inline]
    fn take(&mut self) -> Option<u64> {
        self.try_read()
    }
}

/// An element between threads. A type of its own, so that the functions of
/// `ArrayQueue<u64>`, which `calls` measures, are used in one place only, where
/// the compiler then puts them in line.
#[derive(Clone, Copy, Debug)]
struct Element(u64);

impl Inlet for rtrb::Producer<Element> {
    #[inline]
    fn offer(&mut self, element: u64) -> bool {
        self.push(Element(element)).is_ok()
    }
}

impl Outlet for rtrb::Consumer<Element> {
    #[inline]
    fn take(&mut self) -> Option<u64> {
        self.pop().ok().map(|Element(element)| element)
    }
}

impl Inlet for &ArrayQueue<Element> {
    #[inline]
    fn offer(&mut self, element: u64) -> bool {
        self.push(Element(element)).is_ok()
    }
}

impl Outlet for &ArrayQueue<Element> {
    #[inline]
    fn take(&mut self) -> Option<u64> {
        self.pop().map(|Element(element)| element)
    }
}

/// Through what the elements go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// ZeroIPC's queue; each side is a process.
    Queue,
    /// ZeroIPC's ring; each side is a process.
    Ring,
    /// rtrb's ring; each side is a thread.
    Rtrb,
    /// crossbeam's bounded queue; each side is a thread.
    ArrayQueue,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "Queue",
            Self::Ring => "Ring",
            Self::Rtrb => "rtrb",
            Self::ArrayQueue => "ArrayQueue",
        })
    }
}

/// What one side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    Producer(u64),
    Consumer(u64),
}

/// One contender's turn, as one side sees it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    way: Way,
    /// How many producers, and as many consumers.
    sides: u64,
    /// Elements of each producer.
    elements: u64,
    role: Role,
}

impl Run {
    fn new(way: Way, sides: u64, smoke: bool) -> Self {
        // Tens of milliseconds: long beside a start and an end, and short enough
        // that the machine is the same for all contenders.
        let elements = if sides == 1 { 1_000_000 } else { 300_000 };
        Self {
            way,
            sides,
            elements: if smoke { elements / 20 } else { elements },
            role: Role::Producer(0),
        }
    }

    fn name(&self) -> String {
        format!("{0} to {0}, {1}", self.sides, self.way)
    }

    /// The other sides: all but the first producer, which is the measuring
    /// process's main thread. Consumers first.
    fn others(&self) -> impl Iterator<Item = Self> {
        let (run, sides) = (*self, self.sides);
        (0..sides)
            .map(Role::Consumer)
            .chain((1..sides).map(Role::Producer))
            .map(move |role| Self { role, ..run })
    }

    /// One producer and one consumer share each core when there are more than
    /// two sides.
    fn core(&self, cores: Option<Cores>) -> Option<usize> {
        let (Role::Producer(number) | Role::Consumer(number)) = self.role;
        let consumer = matches!(self.role, Role::Consumer(_));
        let own = (number + u64::from(consumer && self.sides == 1)).is_multiple_of(2);
        cores.map(|cores| if own { cores.own } else { cores.peer })
    }
}

/// Polls until something is there. The same for all contenders.
#[inline]
fn until<T>(alone: bool, mut look: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0_u32;
    loop {
        if let Some(found) = look() {
            return found;
        }
        // On a shared core, what is waited for may wait for this core.
        looks += 1;
        if alone || !looks.is_multiple_of(32) {
            std::hint::spin_loop();
        } else {
            yield_now();
        }
    }
}

/// Sends a producer's elements.
fn produce(run: &Run, producer: u64, inlet: &mut impl Inlet) {
    let alone = run.sides == 1;
    for number in 0..run.elements {
        let element = (producer << PRODUCER) | number;
        until(alone, || inlet.offer(element).then_some(()));
    }
}

/// Which elements a consumer took: a bit for each, producer by producer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken(Vec<u64>);

impl Taken {
    /// Words of each producer.
    fn words(run: &Run) -> usize {
        run.elements.div_ceil(64) as usize
    }

    fn none(run: &Run) -> Self {
        Self(vec![0; run.sides as usize * Self::words(run)])
    }

    /// All of them.
    fn all(run: &Run) -> Self {
        let mut all = Self::none(run);
        for producer in 0..run.sides as usize {
            for number in 0..run.elements {
                all.0[producer * Self::words(run) + (number / 64) as usize] |= 1 << (number % 64);
            }
        }
        all
    }

    /// Adds another consumer's; none may be in both.
    fn join(&mut self, other: &Self) -> Result<()> {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            ensure!(*word & other == 0, "an element arrived twice");
            *word |= other;
        }
        Ok(())
    }
}

/// Takes elements until the end, and looks at each of them.
fn consume(run: &Run, outlet: &mut impl Outlet) -> Result<Taken> {
    if run.sides == 1 {
        // Every element, once and in order: nothing to keep.
        for number in 0..run.elements {
            let element = until(true, || outlet.take());
            ensure!(element == number, "{element:#x} came instead of {number}");
        }
        let end = until(true, || outlet.take());
        ensure!(end == END, "{end:#x} came instead of the end");
        return Ok(Taken::all(run));
    }
    let mut taken = Taken::none(run);
    let mut next = vec![0; run.sides as usize];
    loop {
        let element = until(false, || outlet.take());
        if element == END {
            return Ok(taken);
        }
        let (producer, number) = (element >> PRODUCER, element & ((1 << PRODUCER) - 1));
        let Some(next) = next.get_mut(producer as usize) else {
            bail!("{element:#x} came from nobody");
        };
        ensure!(
            number >= *next && number < run.elements,
            "{element:#x} came out of order"
        );
        *next = number + 1;
        taken.0[producer as usize * Taken::words(run) + (number / 64) as usize] |=
            1 << (number % 64);
    }
}

/// Measures all contenders, block by block.
///
/// # Errors
///
/// A contender fails, or delivers wrong content.
pub fn section(
    blocks: usize,
    smoke: bool,
    cores: Option<Cores>,
    pin: bool,
) -> Result<(Section, Vec<String>)> {
    let mut turns = vec![(Way::Queue, 2), (Way::ArrayQueue, 2)];
    let mut notes = Vec::new();
    if cores.is_some() {
        turns.extend([
            (Way::Queue, 1),
            (Way::Ring, 1),
            (Way::Rtrb, 1),
            (Way::ArrayQueue, 1),
        ]);
    } else {
        notes.push("SKIPPED streams of one to one, which poll: they need two cores".to_owned());
    }
    let pinned = cores.filter(|_| pin);
    let mut section = Section::new("zeroipc streams", "ns per element");
    let rounds = if smoke { 1 } else { ROUNDS };
    for _ in 0..blocks {
        let mut times: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for round in 0..rounds {
            for &(way, sides) in &turns {
                let run = Run::new(way, sides, smoke);
                let nanos =
                    measure(pinned, run).with_context(|| format!("measuring {}", run.name()))?;
                times.entry(run.name()).or_default().push(nanos);
            }
            next_order(&mut turns, round);
        }
        for (name, times) in &times {
            section.add(name, quantile(times, 500), None, None);
        }
    }
    // Throughput is elements per time, so the ratio of times is turned over.
    for (sides, over, under) in [
        ("1 to 1", Way::Queue, Way::Rtrb),
        ("1 to 1", Way::Ring, Way::Rtrb),
        ("1 to 1", Way::Queue, Way::ArrayQueue),
        ("2 to 2", Way::Queue, Way::ArrayQueue),
    ] {
        section.ratio(
            &format!("{sides}, {over} / {under}"),
            &format!("{sides}, {under}"),
            &format!("{sides}, {over}"),
        );
    }
    Ok((section, notes))
}

/// One turn; gives nanoseconds per element.
fn measure(cores: Option<Cores>, run: Run) -> Result<f64> {
    match run.way {
        Way::Queue | Way::Ring => {
            let nanos = between_processes(cores, run);
            names::remove(&names::prefix());
            nanos
        }
        Way::Rtrb => {
            let (inlet, outlet) = rtrb::RingBuffer::new(CAPACITY);
            let mut ends = Some((inlet, outlet));
            between_threads(cores, run, || {
                let (inlet, outlet) = ends.take().context("rtrb is for two threads")?;
                Ok((inlet, vec![outlet], Vec::new()))
            })
        }
        Way::ArrayQueue => {
            let queue = ArrayQueue::<Element>::new(CAPACITY);
            between_threads(cores, run, || {
                let sides = run.sides as usize;
                Ok((&queue, vec![&queue; sides], vec![&queue; sides - 1]))
            })
        }
    }
}

/// The own inlet, all outlets, and the other inlets.
type Ends<I, O> = (I, Vec<O>, Vec<I>);

fn between_threads<I: Inlet + Send, O: Outlet + Send>(
    cores: Option<Cores>,
    run: Run,
    mut ends: impl FnMut() -> Result<Ends<I, O>>,
) -> Result<f64> {
    let (mut own, outlets, inlets) = ends()?;
    let start = Start::new(&Region::heap(64))?;
    thread::scope(|scope| {
        let (start, mut roles) = (&start, run.others());
        let consumers: Vec<_> = outlets
            .into_iter()
            .zip(&mut roles)
            .map(|(mut outlet, run)| {
                scope.spawn(move || {
                    let _pinned = Pinned::to(run.core(cores))?;
                    start.report();
                    consume(&run, &mut outlet)
                })
            })
            .collect();
        let producers: Vec<_> = inlets
            .into_iter()
            .zip(roles)
            .zip(1..)
            .map(|((mut inlet, run), number)| {
                scope.spawn(move || {
                    let _pinned = Pinned::to(run.core(cores))?;
                    start.report();
                    start.wait();
                    produce(&run, number, &mut inlet);
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        let _pinned = Pinned::to(run.core(cores))?;
        until(false, || start.reported(2 * run.sides - 1).then_some(()));
        let started = start.now();
        produce(&run, 0, &mut own);
        for producer in producers {
            join(producer)?;
        }
        finish(&run, &mut own);
        let taken = consumers
            .into_iter()
            .map(join)
            .collect::<Result<Vec<_>>>()?;
        let nanos = per_element(&run, started);
        verify(&run, &taken)?;
        Ok(nanos)
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread panicked"),
    }
}

/// Lets each consumer come to its end.
fn finish(run: &Run, inlet: &mut impl Inlet) {
    for _ in 0..run.sides {
        until(false, || inlet.offer(END).then_some(()));
    }
}

fn per_element(run: &Run, started: Instant) -> f64 {
    started.elapsed().as_nanos() as f64 / (run.sides * run.elements) as f64
}

/// Nothing lost, nothing twice.
fn verify(run: &Run, taken: &[Taken]) -> Result<()> {
    let mut sum = Taken::none(run);
    for taken in taken {
        sum.join(taken)?;
    }
    ensure!(sum == Taken::all(run), "an element was lost");
    Ok(())
}

/// All sides begin at once.
#[derive(Debug)]
struct Start {
    /// How many wait.
    there: Word32,
    go: Word32,
}

impl Start {
    fn new(region: &Region) -> Result<Self> {
        Ok(Self {
            there: region.word32(0)?,
            go: region.word32(4)?,
        })
    }

    fn report(&self) {
        // Release: pairs with the acquire in `reported`.
        self.there.fetch_add(1, Ordering::Release);
    }

    fn reported(&self, sides: u64) -> bool {
        u64::from(self.there.load(Ordering::Acquire)) == sides
    }

    /// Starts the clock and everybody.
    fn now(&self) -> Instant {
        let now = Instant::now();
        // Release: pairs with the acquire in `wait`.
        self.go.store(1, Ordering::Release);
        now
    }

    fn wait(&self) {
        until(false, || {
            (self.go.load(Ordering::Acquire) == 1).then_some(())
        });
    }
}

/// Where `Start` ends and the consumers' results begin.
const RESULTS: usize = 64;

fn names_of_run(prefix: &str) -> (String, String) {
    (format!("{prefix}stream"), format!("{prefix}start"))
}

fn between_processes(cores: Option<Cores>, run: Run) -> Result<f64> {
    let prefix = names::prefix();
    let (name, start) = names_of_run(&prefix);
    let memory = Memory::create_new(&name, 1 << 16)?;
    let results = run.sides as usize * Taken::none(&run).0.len() * 8;
    let region = raw::create(&start, RESULTS + results)?;
    match run.way {
        Way::Queue => {
            let queue = Queue::<u64>::create(&memory, "way", CAPACITY as u64)?;
            lead(queue, &region, cores, run, &prefix)
        }
        Way::Ring => {
            let ring = Ring::<u64>::create(&memory, "way", CAPACITY as u64)?;
            lead(ring, &region, cores, run, &prefix)
        }
        Way::Rtrb | Way::ArrayQueue => bail!("{} is for threads", run.way),
    }
}

/// The measuring process's side.
fn lead(
    mut own: impl Inlet,
    region: &Region,
    cores: Option<Cores>,
    run: Run,
    prefix: &str,
) -> Result<f64> {
    let start = Start::new(region)?;
    let mut peers = Vec::new();
    for other in run.others() {
        let job = Job {
            prefix: prefix.to_owned(),
            core: other.core(cores),
            task: Task::Stream(other),
        };
        peers.push(Peer::start(&job, Stdio::null())?);
    }
    for peer in &peers {
        peer.hear("ready")?;
    }
    let pinned = Pinned::to(run.core(cores))?;
    until(false, || start.reported(2 * run.sides - 1).then_some(()));
    let started = start.now();
    produce(&run, 0, &mut own);
    let (consumers, producers) = peers.split_at(run.sides as usize);
    for producer in producers {
        producer.hear("all")?;
    }
    finish(&run, &mut own);
    for consumer in consumers {
        consumer.hear("all")?;
    }
    let nanos = per_element(&run, started);
    drop(pinned);
    for peer in peers {
        peer.finish()?;
    }
    let taken: Vec<Taken> = (0..run.sides)
        .map(|consumer| {
            let mut taken = Taken::none(&run);
            let words = taken.0.len();
            let at = RESULTS + consumer as usize * words * 8;
            let bytes = region.bytes(at, words * 8)?;
            for (at, word) in (0..).step_by(8).zip(&mut taken.0) {
                *word = bytes.read_u64(at)?;
            }
            Ok(taken)
        })
        .collect::<Result<_>>()?;
    verify(&run, &taken)?;
    Ok(nanos)
}

/// A peer's side of a turn. Calls `ready` when it is set up, and holds what that
/// gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    serve_as(prefix, run, ready).with_context(|| run.name())
}

fn serve_as<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let (name, start) = names_of_run(prefix);
    let memory = Memory::open(&name)?;
    let region = raw::open(&start)?;
    match run.way {
        Way::Queue => follow(Queue::open(&memory, "way")?, &region, run, ready),
        Way::Ring => follow(Ring::open(&memory, "way")?, &region, run, ready),
        Way::Rtrb | Way::ArrayQueue => bail!("{} is for threads", run.way),
    }
}

fn follow<G>(
    mut way: impl Inlet + Outlet,
    region: &Region,
    run: &Run,
    ready: impl FnOnce() -> Result<G>,
) -> Result<()> {
    let start = Start::new(region)?;
    let _until_done = ready()?;
    start.report();
    match run.role {
        Role::Producer(number) => {
            start.wait();
            produce(run, number, &mut way);
            say("all")
        }
        Role::Consumer(number) => {
            let Taken(words) = consume(run, &mut way)?;
            // What is looked at later costs no time now.
            say("all")?;
            let at = RESULTS + number as usize * words.len() * 8;
            let bytes = region.bytes(at, words.len() * 8)?;
            for (at, word) in (0..).step_by(8).zip(words) {
                bytes.write_u64(at, word)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses, doubles or swaps what a consumer takes.
    struct Faulty(Vec<u64>);

    impl Outlet for Faulty {
        fn take(&mut self) -> Option<u64> {
            self.0.pop()
        }
    }

    fn check(run: &Run, mut elements: Vec<u64>) -> Result<()> {
        elements.push(END);
        elements.reverse();
        let taken = consume(run, &mut Faulty(elements))?;
        verify(run, &[taken])
    }

    #[test]
    fn faults_are_found() {
        for sides in [1, 2] {
            let run = Run {
                elements: 3,
                ..Run::new(Way::Queue, sides, true)
            };
            let sound: Vec<u64> = (0..sides)
                .flat_map(|producer| (0..3).map(move |number| (producer << PRODUCER) | number))
                .collect();
            check(&run, sound.clone()).unwrap();
            let mut lost = sound.clone();
            lost.pop();
            assert!(check(&run, lost).is_err());
            let mut twice = sound.clone();
            twice.insert(1, sound[1]);
            assert!(check(&run, twice).is_err());
            let mut swapped = sound.clone();
            swapped.swap(0, 1);
            assert!(check(&run, swapped).is_err());
        }
        let run = Run {
            elements: 3,
            ..Run::new(Way::Queue, 2, true)
        };
        let all = Taken::all(&run);
        assert!(verify(&run, &[all.clone(), all]).is_err());
    }
}
