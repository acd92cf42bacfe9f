//! One-way latency of a 64-byte message, as half a round trip from the master to
//! the slave and back.

use crate::{
    eshm::{
        channel,
        replay::{self, Nap, Nothing, Pause, Replay, Wait},
    },
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task},
    port::{Latency, Message, Plan, Port, client, raise, server},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, ensure};
use polyshm_eshm::{Endpoint, EndpointBuilder, Role, WaitStrategy};
use polyshm_platform::Region;
use serde::{Deserialize, Serialize};
use std::{fmt, process::Stdio, time::Duration};

/// Who carries the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The protocol's memory accesses alone.
    Replay {
        /// Polled with a pause instruction.
        pause: bool,
    },
    /// The same, polled each 100 µs.
    Napping,
    /// polyshm, polling.
    Spin,
    /// polyshm, as it is by default.
    Adaptive,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay { .. } => "replay",
            Self::Napping => "replay, each 100 us",
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

const POLLING: Plan = Plan {
    warm_up: 2_000,
    batched: 20_000,
    single: 4_000,
};
const NAPPING: Plan = Plan {
    warm_up: 20,
    batched: 320,
    single: 100,
};
const NAPPING_SMOKE: Plan = Plan {
    warm_up: 2,
    batched: 32,
    single: 10,
};

/// A wait for a message that ends so has failed.
const PATIENCE: Duration = Duration::from_mins(1);

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
    let mut notes = Vec::new();
    let pinned = cores.filter(|_| pin);
    let measure = |way| {
        let plan = match way {
            Way::Napping if smoke => NAPPING_SMOKE,
            Way::Napping => NAPPING,
            _ => POLLING,
        };
        let prefix = names::prefix();
        let latency = measure(pinned, Run { way, plan }, &prefix);
        names::remove(&prefix);
        latency.with_context(|| format!("measuring {way} of ESHM"))
    };
    let mut turns = vec![Way::Adaptive, Way::Napping];
    if cores.is_some() {
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
        notes.push(format!(
            "replay of ESHM polls {how} a pause instruction, the faster way here"
        ));
        turns.extend([Way::Replay { pause }, Way::Spin]);
    } else {
        notes.push("SKIPPED ESHM's polling contenders: they need two cores".to_owned());
    }

    let mut section = Section::new("eshm latency", "ns, one way");
    for block in 0..blocks {
        for &way in &turns {
            let latency = measure(way)?;
            section.add(&way.to_string(), latency.median, Some(latency.p99), None);
        }
        next_order(&mut turns, block);
    }
    section.sort();
    let (adaptive, napping) = (Way::Adaptive.to_string(), Way::Napping.to_string());
    if section.ratio("polyshm adaptive / replay", &adaptive, "replay") {
        section.aim_at_most(1.25);
    }
    section.ratio("polyshm spin / replay", "polyshm spin", "replay");
    if section.ratio(&format!("{napping} / {adaptive}"), &napping, &adaptive) {
        section.aim_at_least(50.0);
    }
    Ok((section, notes))
}

/// One turn: both sides set up, run, and taken down.
fn measure(cores: Option<Cores>, run: Run, prefix: &str) -> Result<Latency> {
    let job = Job {
        prefix: prefix.to_owned(),
        core: cores.map(|cores| cores.peer),
        task: Task::EshmLatency(run),
    };
    let own = cores.map(|cores| cores.own);
    match run.way {
        Way::Spin | Way::Adaptive => {
            let mut port = Duplex(endpoint(run.way, Role::Master).open(&channel(prefix))?);
            let latency = drive(&mut port, &job, &run.plan, own)?;
            port.check()?;
            Ok(latency)
        }
        way => {
            let region = raw::create(&words(prefix), replay::len())?;
            let (job, plan) = (&job, &run.plan);
            match way {
                Way::Replay { pause: true } => {
                    drive(&mut master::<Pause>(&region)?, job, plan, own)
                }
                Way::Replay { pause: false } => {
                    drive(&mut master::<Nothing>(&region)?, job, plan, own)
                }
                _ => drive(&mut master::<Nap>(&region)?, job, plan, own),
            }
        }
    }
}

/// The name of the segment with the bare words.
fn words(prefix: &str) -> String {
    format!("{prefix}words")
}

fn endpoint(way: Way, role: Role) -> EndpointBuilder {
    let strategy = if way == Way::Spin {
        WaitStrategy::Spin
    } else {
        WaitStrategy::Adaptive
    };
    super::endpoint(role).wait_strategy(strategy)
}

fn master<W: Wait>(region: &Region) -> Result<Replay<W>> {
    Replay::new(region, false)
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

/// The slave's side of a turn. Calls `ready` when it is set up, and holds what
/// that gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    match run.way {
        Way::Spin | Way::Adaptive => {
            let mut port = Duplex(endpoint(run.way, Role::Slave).open(&channel(prefix))?);
            let _until_done = ready()?;
            server::<_, true>(&mut port, &run.plan)?;
            port.check()
        }
        Way::Replay { pause: true } => answer::<Pause, G>(prefix, run, ready),
        Way::Replay { pause: false } => answer::<Nothing, G>(prefix, run, ready),
        Way::Napping => answer::<Nap, G>(prefix, run, ready),
    }
}

fn answer<W: Wait, G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let mut port = Replay::<W>::new(&raw::open(&words(prefix))?, true)?;
    let _until_done = ready()?;
    server::<_, true>(&mut port, &run.plan)
}

/// An endpoint as it is used by default.
#[derive(Debug)]
struct Duplex(Endpoint);

impl Duplex {
    /// After the last message: none was replaced unread.
    fn check(&self) -> Result<()> {
        let lost = self.0.lost();
        ensure!(lost == 0, "{lost} messages were lost");
        Ok(())
    }
}

impl Port for Duplex {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        Ok(self.0.write(message)?)
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        let received = self.0.read_into(into, PATIENCE)?;
        ensure!(received.len == into.len(), "a short message came");
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}
