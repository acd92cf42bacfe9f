//! One-way latency of a record of four floats, as half a round trip through two
//! stores, one each way.

use super::{
    Floats, FloatsFields, PATIENCE,
    bare::{self, Slot},
};
use crate::{
    eshm::replay::{Nothing, Pause, Wait},
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task},
    port::{Latency, Message, Plan, Port, client, raise, server},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, ensure};
use polyshm_slots::{Options, SlotStore, Snapshot, WaitStrategy};
use serde::{Deserialize, Serialize};
use std::{array, fmt, marker::PhantomData, process::Stdio};

/// Who carries the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The format's loads and stores alone.
    Replay {
        /// Polled with a pause instruction.
        pause: bool,
    },
    /// polyshm, polling.
    Spin,
    /// polyshm, as it is by default.
    Adaptive,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay { .. } => "replay",
            Self::Spin => "polyshm spin",
            Self::Adaptive => "polyshm adaptive",
        })
    }
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    way: Way,
    plan: Plan,
}

const FULL: Plan = Plan {
    warm_up: 2_000,
    batched: 20_000,
    single: 4_000,
};
const SMOKE: Plan = Plan {
    warm_up: 200,
    batched: 2_000,
    single: 400,
};

/// Measures all contenders, block by block; nothing where there is one core.
///
/// # Errors
///
/// A contender fails, or delivers wrong content.
pub fn section(
    blocks: usize,
    smoke: bool,
    cores: Option<Cores>,
    pin: bool,
) -> Result<(Option<Section>, Vec<String>)> {
    if cores.is_none() {
        let note = "SKIPPED the latency of slots: it needs two cores";
        return Ok((None, vec![note.to_owned()]));
    }
    let pinned = cores.filter(|_| pin);
    let plan = if smoke { SMOKE } else { FULL };
    let measure = |way| {
        let prefix = names::prefix();
        let latency = measure(pinned, Run { way, plan }, &prefix);
        names::remove(&prefix);
        latency.with_context(|| format!("measuring {way} of slots"))
    };
    // A pause costs differently from processor to processor.
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..if smoke { 1 } else { 7 } {
        for pause in [false, true] {
            let latency = measure(Way::Replay { pause })?;
            times[usize::from(pause)].push(latency.median);
        }
    }
    let [without, with] = times.map(|times| quantile(&times, 500));
    let pause = with < without;
    let how = if pause { "with" } else { "without" };
    let note = format!("replay of slots polls {how} a pause instruction, the faster way here");

    let mut turns = vec![Way::Adaptive, Way::Replay { pause }, Way::Spin];
    let mut section = Section::new("slots latency, four floats", "ns, one way");
    for block in 0..blocks {
        for &way in &turns {
            let latency = measure(way)?;
            section.add(&way.to_string(), latency.median, Some(latency.p99), None);
        }
        next_order(&mut turns, block);
    }
    section.sort();
    for way in [Way::Adaptive, Way::Spin] {
        let polyshm = way.to_string();
        section.ratio(&format!("{polyshm} / replay"), &polyshm, "replay");
        section.aim_at_most(1.25);
    }
    Ok((Some(section), vec![note]))
}

/// The names of the slots there and back.
fn slots(prefix: &str) -> [String; 2] {
    ["there", "back"].map(|way| format!("{prefix}{way}"))
}

/// One turn: both sides set up, run, and taken down.
fn measure(cores: Option<Cores>, run: Run, prefix: &str) -> Result<Latency> {
    let job = &Job {
        prefix: prefix.to_owned(),
        core: cores.map(|cores| cores.peer),
        task: Task::SlotsLatency(run),
    };
    let own = cores.map(|cores| cores.own);
    let [there, back] = slots(prefix);
    let plan = &run.plan;
    match run.way {
        Way::Spin | Way::Adaptive => {
            let create = |name: &str| SlotStore::create_with(name, options(run.way));
            let mut port = Stores::new(create(&there)?, create(&back)?);
            drive(&mut port, job, plan, own)
        }
        Way::Replay { pause } => {
            let create = |name: &str| Slot::new(&raw::create(name, bare::LEN)?);
            let (there, back) = (create(&there)?, create(&back)?);
            if pause {
                drive(&mut Slots::<Pause>::new(there, back), job, plan, own)
            } else {
                drive(&mut Slots::<Nothing>::new(there, back), job, plan, own)
            }
        }
    }
}

fn options(way: Way) -> Options {
    let strategy = if way == Way::Spin {
        WaitStrategy::Spin
    } else {
        WaitStrategy::Adaptive
    };
    Options::new().wait_strategy(strategy)
}

fn drive<P: Port>(port: &mut P, job: &Job, plan: &Plan, core: Option<usize>) -> Result<Latency> {
    let peer = Peer::start(job, Stdio::null())?;
    peer.hear("ready")?;
    let pinned = Pinned::to(core)?;
    let latency = client::<P, true>(port, plan)?;
    drop(pinned);
    peer.finish()?;
    Ok(latency)
}

/// The answering side of a turn. Calls `ready` when it is set up, and holds what
/// that gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let [there, back] = slots(prefix);
    match run.way {
        Way::Spin | Way::Adaptive => {
            let open = |name: &str| SlotStore::open_with(name, options(run.way));
            let mut port = Stores::new(open(&back)?, open(&there)?);
            let _until_done = ready()?;
            server::<_, true>(&mut port, &run.plan)
        }
        Way::Replay { pause: true } => answer::<Pause, G>(&there, &back, run, ready),
        Way::Replay { pause: false } => answer::<Nothing, G>(&there, &back, run, ready),
    }
}

fn answer<W: Wait, G>(
    there: &str,
    back: &str,
    run: &Run,
    ready: impl FnOnce() -> Result<G>,
) -> Result<()> {
    let open = |name: &str| Slot::new(&raw::open(name)?);
    let mut port = Slots::<W>::new(open(back)?, open(there)?);
    let _until_done = ready()?;
    server::<_, true>(&mut port, &run.plan)
}

/// The first half of a message as four floats, bit for bit. The other half stays
/// where it is.
#[inline]
fn bits_in(message: &Message) -> super::Bits {
    let (words, _) = message.as_chunks::<8>();
    array::from_fn(|at| u64::from_le_bytes(words[at]))
}

#[inline]
fn put(bits: super::Bits, message: &mut Message) {
    let (words, _) = message.as_chunks_mut::<8>();
    for (word, bits) in words.iter_mut().zip(bits) {
        *word = bits.to_le_bytes();
    }
}

/// Two stores as they are used by default.
struct Stores {
    out: SlotStore<Floats>,
    back: SlotStore<Floats>,
    found: Snapshot<Floats>,
}

impl Stores {
    fn new(out: SlotStore<Floats>, back: SlotStore<Floats>) -> Self {
        let found = back.empty();
        Self { out, back, found }
    }
}

impl Port for Stores {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.out.write(Floats::of(bits_in(message)))?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        self.back.read_new_into(&mut self.found, PATIENCE)?;
        let missed = self.found.missed();
        ensure!(missed == 0, "{missed} records were missed");
        put(FloatsFields::bits(&self.found), into);
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}

/// Two bare slots.
#[derive(Debug)]
struct Slots<W> {
    out: Slot,
    back: Slot,
    seen: u64,
    _wait: PhantomData<W>,
}

impl<W> Slots<W> {
    fn new(out: Slot, back: Slot) -> Self {
        Self {
            out,
            back,
            seen: 0,
            _wait: PhantomData,
        }
    }
}

impl<W: Wait> Port for Slots<W> {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.out.write(bits_in(message));
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        put(self.back.read_new::<W>(&mut self.seen), into);
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}
