//! Wake-ups: two processes that sleep until the other one wakes them, by ZeroIPC's
//! semaphore and by a bare futex.

use crate::{
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task},
    port::{Latency, Message, Plan, Port, client, raise, server},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, ensure};
use polyshm_platform::{Region, Word64, sync::Ordering};
use polyshm_zeroipc::{Memory, OpenOptions, Semaphore, WaitStrategy};
use rustix::{
    io::Errno,
    thread::futex::{self, Flags},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, process::Stdio, sync::atomic::AtomicU32};

/// By what one wakes the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waker {
    /// ZeroIPC's semaphore, one each way, with `WaitStrategy::Block`.
    Semaphore,
    /// A word each way: stored, woken, waited for. Nobody counts waiters.
    Futex,
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    waker: Waker,
    /// Whether both processes share one core.
    together: bool,
    plan: Plan,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waker = match self.waker {
            Waker::Semaphore => "Semaphore",
            Waker::Futex => "futex",
        };
        f.write_str(waker)?;
        f.write_str(if self.together {
            ", one core"
        } else {
            ", two cores"
        })
    }
}

/// How often each contender has its turn in a block, which takes the median: now
/// and then two processes on two cores meet awake for a whole turn, and nobody
/// sleeps.
const ROUNDS: usize = 3;

const FULL: Plan = Plan {
    warm_up: 200,
    batched: 1_600,
    single: 500,
};
const SMOKE: Plan = Plan {
    warm_up: 20,
    batched: 320,
    single: 50,
};

/// Measures both, block by block.
///
/// # Errors
///
/// A contender fails, or delivers wrong content.
pub fn section(blocks: usize, smoke: bool, cores: Option<Cores>, pin: bool) -> Result<Section> {
    let plan = if smoke { SMOKE } else { FULL };
    let pinned = cores.filter(|_| pin);
    let places: &[bool] = match pinned {
        Some(_) => &[false, true],
        // Where they are is the system's choice.
        None => &[false],
    };
    let mut turns: Vec<Run> = places
        .iter()
        .flat_map(|&together| {
            [Waker::Semaphore, Waker::Futex].map(|waker| Run {
                waker,
                together,
                plan,
            })
        })
        .collect();
    let mut section = Section::new("zeroipc wake-ups", "ns, one way");
    let rounds = if smoke { 1 } else { ROUNDS };
    for _ in 0..blocks {
        let mut times: BTreeMap<String, [Vec<f64>; 2]> = BTreeMap::new();
        for round in 0..rounds {
            for &run in &turns {
                let latency = measure(pinned, run).with_context(|| format!("measuring {run}"))?;
                let [medians, p99s] = times.entry(run.to_string()).or_default();
                medians.push(latency.median);
                p99s.push(latency.p99);
            }
            next_order(&mut turns, round);
        }
        for (name, [medians, p99s]) in &times {
            let p99 = quantile(p99s, 500);
            section.add(name, quantile(medians, 500), Some(p99), None);
        }
    }
    for place in ["two cores", "one core"] {
        let (over, under) = (format!("Semaphore, {place}"), format!("futex, {place}"));
        if section.ratio(&format!("Semaphore / futex, {place}"), &over, &under) {
            section.aim_at_most(1.3);
        }
    }
    Ok(section)
}

/// The names of a run's segments: the semaphores', and that of the bare words.
fn names_of_run(prefix: &str) -> (String, String) {
    (format!("{prefix}semaphores"), format!("{prefix}words"))
}

/// The semaphores, by who sends with them.
const NAMES: [&str; 2] = ["there", "home"];

fn options() -> OpenOptions {
    OpenOptions::default().wait_strategy(WaitStrategy::Block)
}

fn measure(cores: Option<Cores>, run: Run) -> Result<Latency> {
    let prefix = names::prefix();
    let latency = measure_as(cores, run, &prefix);
    names::remove(&prefix);
    latency
}

fn measure_as(cores: Option<Cores>, run: Run, prefix: &str) -> Result<Latency> {
    let (semaphores, words) = names_of_run(prefix);
    let region = raw::create(&words, LEN)?;
    let memory = Memory::create_new(&semaphores, 1 << 16)?;
    for name in NAMES {
        Semaphore::create(&memory, name, 0, None)?;
    }
    let job = Job {
        prefix: prefix.to_owned(),
        core: cores.map(|cores| if run.together { cores.own } else { cores.peer }),
        task: Task::Wake(run),
    };
    let peer = Peer::start(&job, Stdio::null())?;
    peer.hear("ready")?;
    let pinned = Pinned::to(cores.map(|cores| cores.own))?;
    let latency = match run.waker {
        Waker::Semaphore => {
            let mut port = Semaphores::open(&semaphores, &region, false)?;
            let latency = client::<_, false>(&mut port, &run.plan)?;
            port.check()?;
            latency
        }
        Waker::Futex => client::<_, false>(&mut Futexes::new(&region, false)?, &run.plan)?,
    };
    drop(pinned);
    peer.finish()?;
    Ok(latency)
}

/// The peer's side of a turn. Calls `ready` when it is set up, and holds what
/// that gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let (semaphores, words) = names_of_run(prefix);
    let region = raw::open(&words)?;
    match run.waker {
        Waker::Semaphore => {
            let mut port = Semaphores::open(&semaphores, &region, true)?;
            let _until_done = ready()?;
            server::<_, false>(&mut port, &run.plan)?;
            port.check()
        }
        Waker::Futex => {
            let mut port = Futexes::new(&region, true)?;
            let _until_done = ready()?;
            server::<_, false>(&mut port, &run.plan)
        }
    }
}

/// Bytes of the segment with the bare words.
const LEN: usize = 1024;
/// Where the two ends' words are, far enough apart that no prefetcher takes them
/// for neighbours. First what is slept on, then a line with the message's number.
const OFFSETS: [usize; 2] = [0, 512];
const NUMBER: usize = 256;

/// An end's own words, and the other's.
fn sorted<T>(server: bool, [client, other]: [T; 2]) -> (T, T) {
    if server {
        (other, client)
    } else {
        (client, other)
    }
}

/// The message's number, in a word beside what is woken: the same for both, and
/// it shows that what was stored before a wake-up is seen after it.
#[derive(Debug)]
struct Numbers {
    ours: Word64,
    theirs: Word64,
}

impl Numbers {
    fn new(region: &Region, server: bool) -> Result<Self> {
        let [first, second] = OFFSETS.map(|at| region.word64(at + NUMBER));
        let (ours, theirs) = sorted(server, [first?, second?]);
        Ok(Self { ours, theirs })
    }

    fn send(&self, message: &Message) {
        let number = message.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        // Relaxed: what follows is a release.
        self.ours.store(number, Ordering::Relaxed);
    }

    fn receive(&self, into: &mut Message) {
        // Relaxed: what came before was an acquire.
        let number = self.theirs.load(Ordering::Relaxed);
        into[..8].copy_from_slice(&number.to_le_bytes());
    }
}

#[derive(Debug)]
struct Semaphores {
    ours: Semaphore,
    theirs: Semaphore,
    numbers: Numbers,
}

impl Semaphores {
    fn open(name: &str, region: &Region, server: bool) -> Result<Self> {
        let memory = Memory::open_with(name, options())?;
        let [first, second] = NAMES.map(|name| Semaphore::open(&memory, name));
        let (ours, theirs) = sorted(server, [first?, second?]);
        Ok(Self {
            ours,
            theirs,
            numbers: Numbers::new(region, server)?,
        })
    }

    /// After the last message: every permit was taken.
    fn check(&self) -> Result<()> {
        ensure!(self.theirs.count() == 0, "a permit too many");
        Ok(())
    }
}

impl Port for Semaphores {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.numbers.send(message);
        Ok(self.ours.release()?)
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        self.theirs.acquire()?.forget();
        self.numbers.receive(into);
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}

#[derive(Debug)]
struct Futexes {
    /// Inside `region`, as `theirs`.
    ours: *const AtomicU32,
    theirs: *const AtomicU32,
    /// What was last seen in `theirs`; the other end counts as we do.
    seen: u32,
    sent: u32,
    numbers: Numbers,
    _region: Region,
}

impl Futexes {
    #[expect(clippy::cast_ptr_alignment, reason = "a word can be there")]
    fn new(region: &Region, server: bool) -> Result<Self> {
        let [first, second] = OFFSETS.map(|at| {
            // It lies inside and is aligned, or this fails.
            region.word32(at)?;
            let bytes = region.bytes(at, 4)?;
            // SAFETY: the slice itself is dropped at once and never used; only
            // its address is kept.
            let at = unsafe { bytes.lend_mut(0, 4)? }.as_mut_ptr();
            Ok::<_, anyhow::Error>(at.cast_const().cast::<AtomicU32>())
        });
        let (ours, theirs) = sorted(server, [first?, second?]);
        Ok(Self {
            ours,
            theirs,
            seen: 0,
            sent: 0,
            numbers: Numbers::new(region, server)?,
            _region: region.clone(),
        })
    }
}

impl Port for Futexes {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.numbers.send(message);
        // SAFETY: an aligned word of the region that is kept mapped; everybody
        // uses it as an atomic.
        let ours = unsafe { &*self.ours };
        self.sent = self.sent.wrapping_add(1);
        // Release: pairs with the acquire in `receive`.
        ours.store(self.sent, Ordering::Release);
        futex::wake(ours, Flags::empty(), 1)?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        // SAFETY: as in `send`.
        let theirs = unsafe { &*self.theirs };
        loop {
            // Acquire: pairs with the release in `send`.
            let now = theirs.load(Ordering::Acquire);
            if now != self.seen {
                self.seen = now;
                break;
            }
            match futex::wait(theirs, Flags::empty(), now, None) {
                // Changed before it slept, or woken for nothing: looks again.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.numbers.receive(into);
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}
