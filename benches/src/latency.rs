//! One-way latency of a 64-byte frame, as half a round trip.

use crate::{
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task},
    port::{Latency, Plan, Port, client, server},
    raw::{self, FLOOR_LEN, Floor},
    replay::{self, Receiver, Replay, Sender},
    report::{Section, quantile},
    ring::{Duplex, reader, writer},
    stream::{Streams, inherited_pipe, inherited_socket, path_of},
};
use anyhow::{Context, Result};
use polyshm_platform::Region;
use polyshm_zerobuffer::WaitStrategy;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

/// The ring of every contender that has one: the format's default.
const RING: u64 = 1 << 20;

/// Who carries the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Contender {
    /// Two words; polled with or without a pause instruction.
    Floor {
        /// With.
        pause: bool,
    },
    /// The protocol's memory accesses alone.
    Replay {
        /// Polled with a pause instruction.
        pause: bool,
    },
    /// polyshm, polling.
    Spin,
    /// polyshm, as it is by default.
    Adaptive,
    /// iceoryx2's publish-subscribe.
    Iceoryx2,
    /// A pipe each way.
    Pipe,
    /// A Unix stream socket.
    Socket,
}

impl Contender {
    /// Whether giving room back is a step of its own.
    const fn has_release(self) -> bool {
        !matches!(self, Self::Floor { .. } | Self::Pipe | Self::Socket)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor { .. } => "floor",
            Self::Replay { .. } => "replay",
            Self::Spin => "polyshm spin",
            Self::Adaptive => "polyshm adaptive",
            Self::Iceoryx2 => "iceoryx2",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
        })
    }
}

/// One contender's turn.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    contender: Contender,
    /// Whether the reply goes out before the received frame's room goes back.
    reply_first: bool,
    plan: Plan,
    /// Where the peer opens the way back, if it is not told otherwise.
    way_back: Option<String>,
}

impl Run {
    fn name(&self) -> String {
        name(self.contender, self.reply_first)
    }
}

fn name(contender: Contender, reply_first: bool) -> String {
    if !contender.has_release() {
        return contender.to_string();
    }
    let order = if reply_first { "reply" } else { "release" };
    format!("{contender}, {order} first")
}

/// How long each turn is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of contenders that poll.
    polling: Plan,
    /// Of contenders that go through the kernel.
    kernel: Plan,
}

impl Effort {
    /// Enough for a stable median. The warm-up goes once around the ring, so
    /// that no page is touched for the first time while timed.
    pub const FULL: Self = Self {
        polling: Plan {
            warm_up: RING / 80 + 1000,
            batched: 20_000,
            single: 4_000,
        },
        kernel: Plan {
            warm_up: 200,
            batched: 2_000,
            single: 500,
        },
    };
    /// Enough to see that everything arrives, also around the ring's end.
    pub const SMOKE: Self = Self {
        polling: Self::FULL.polling,
        kernel: Plan {
            warm_up: 20,
            batched: 320,
            single: 100,
        },
    };

    const fn plan(&self, contender: Contender) -> Plan {
        match contender {
            Contender::Pipe | Contender::Socket => self.kernel,
            _ => self.polling,
        }
    }
}

/// A contender that can poll with and without a pause instruction.
type Limit = fn(bool) -> Contender;

/// Measures all contenders, block by block.
///
/// # Errors
///
/// A contender fails, or delivers wrong content.
pub fn section(
    blocks: usize,
    effort: Effort,
    cores: Option<Cores>,
    pin: bool,
) -> Result<(Section, Vec<String>)> {
    let mut notes = Vec::new();
    let pinned = cores.filter(|_| pin);
    let measure = |contender, reply_first| {
        let run = Run {
            contender,
            reply_first,
            plan: effort.plan(contender),
            way_back: None,
        };
        measure(pinned, run.clone()).with_context(|| format!("measuring {}", run.name()))
    };

    let mut turns = vec![(Contender::Pipe, true), (Contender::Socket, true)];
    let mut both_orders = vec![Contender::Adaptive];
    if cores.is_some() {
        // A pause costs differently from processor to processor, and by order.
        let floor = |pause| Contender::Floor { pause };
        let replay = |pause| Contender::Replay { pause };
        let limits: [(Limit, bool); 3] = [(floor, true), (replay, true), (replay, false)];
        for (limit, reply_first) in limits {
            let mut times = [Vec::new(), Vec::new()];
            for _ in 0..7 {
                for pause in [false, true] {
                    let latency = measure(limit(pause), reply_first)?;
                    times[usize::from(pause)].push(latency.median);
                }
            }
            let [without, with] = times.map(|times| quantile(&times, 500));
            let chosen = limit(with < without);
            let how = if with < without { "with" } else { "without" };
            notes.push(format!(
                "{} polls {how} a pause instruction, the faster way here",
                name(chosen, reply_first)
            ));
            turns.push((chosen, reply_first));
        }
        both_orders.push(Contender::Spin);
        if cfg!(feature = "iceoryx2") {
            both_orders.push(Contender::Iceoryx2);
        } else {
            notes.push("SKIPPED iceoryx2: built without the feature iceoryx2".to_owned());
        }
    } else {
        notes.push("SKIPPED all polling contenders: they need two cores".to_owned());
    }

    for contender in both_orders {
        turns.extend([(contender, true), (contender, false)]);
    }

    let mut section = Section::new("latency", "ns, one way");
    for block in 0..blocks {
        for &(contender, reply_first) in &turns {
            let latency = measure(contender, reply_first)?;
            let name = name(contender, reply_first);
            section.add(&name, latency.median, Some(latency.p99), None);
        }
        next_order(&mut turns, block);
    }
    section.sort();
    ratios(&mut section);
    Ok((section, notes))
}

/// Another order for the next block: turned by one, and backwards each time.
pub(crate) fn next_order<T>(turns: &mut [T], block: usize) {
    turns.reverse();
    if block % 2 == 1 && !turns.is_empty() {
        turns.rotate_left(1);
    }
}

fn ratios(section: &mut Section) {
    for order in ["reply first", "release first"] {
        for strategy in ["polyshm spin", "polyshm adaptive"] {
            let polyshm = format!("{strategy}, {order}");
            let replay = format!("replay, {order}");
            section.ratio(&format!("{polyshm} / replay"), &polyshm, &replay);
            section.ratio(&format!("{polyshm} / floor"), &polyshm, "floor");
        }
        let iceoryx2 = format!("iceoryx2, {order}");
        let spin = format!("polyshm spin, {order}");
        section.ratio(
            &format!("iceoryx2 / polyshm spin, {order}"),
            &iceoryx2,
            &spin,
        );
        section.ratio(
            &format!("replay / floor, {order}"),
            &format!("replay, {order}"),
            "floor",
        );
    }
    for kernel in ["pipe", "socket"] {
        for strategy in ["spin", "adaptive"] {
            let polyshm = format!("polyshm {strategy}");
            let shown = format!("{kernel} / {polyshm}");
            section.ratio(&shown, kernel, &format!("{polyshm}, reply first"));
        }
    }
}

/// One turn: both sides set up, run, and taken down.
fn measure(cores: Option<Cores>, mut run: Run) -> Result<Latency> {
    let prefix = names::prefix();
    let (there, home) = directions(&prefix);
    let start = |run: &Run, stdin: Stdio| {
        let job = Job {
            prefix: prefix.clone(),
            core: cores.map(|cores| cores.peer),
            task: Task::Latency(run.clone()),
        };
        let peer = Peer::start(&job, stdin)?;
        peer.hear("ready")?;
        Ok::<_, anyhow::Error>(peer)
    };
    let own = cores.map(|cores| cores.own);
    let result = match run.contender {
        Contender::Floor { pause } => {
            let region = raw::create(&there, FLOOR_LEN)?;
            let peer = start(&run, Stdio::null())?;
            if pause {
                drive(Floor::<true>::new(&region, false)?, peer, &run, own)
            } else {
                drive(Floor::<false>::new(&region, false)?, peer, &run, own)
            }
        }
        Contender::Replay { pause } => {
            let len = replay::len(RING) as usize;
            let (out, back) = (raw::create(&there, len)?, raw::create(&home, len)?);
            replay::initialise(&out, RING)?;
            replay::initialise(&back, RING)?;
            let peer = start(&run, Stdio::null())?;
            if pause {
                drive(replay_port::<true>(&out, &back)?, peer, &run, own)
            } else {
                drive(replay_port::<false>(&out, &back)?, peer, &run, own)
            }
        }
        Contender::Spin | Contender::Adaptive => {
            let strategy = strategy(run.contender);
            let reader = reader(&home, RING, strategy)?;
            let peer = start(&run, Stdio::null())?;
            let writer = writer(&there, strategy)?;
            drive(Duplex { reader, writer }, peer, &run, own)
        }
        #[cfg(feature = "iceoryx2")]
        Contender::Iceoryx2 => {
            let port = crate::iceoryx::PublishSubscribe::open(&prefix, false)?;
            let peer = start(&run, Stdio::null())?;
            drive(port, peer, &run, own)
        }
        #[cfg(not(feature = "iceoryx2"))]
        Contender::Iceoryx2 => anyhow::bail!("built without the feature iceoryx2"),
        Contender::Pipe => {
            let (theirs, ours) = std::io::pipe()?;
            let (input, back) = std::io::pipe()?;
            run.way_back = Some(path_of(&back));
            let peer = start(&run, Stdio::from(OwnedFd::from(theirs)))?;
            let (input, output) = (File::from(OwnedFd::from(input)), OwnedFd::from(ours));
            let output = File::from(output);
            drive(Streams { input, output }, peer, &run, own)
        }
        Contender::Socket => {
            let (ours, theirs) = UnixStream::pair()?;
            let peer = start(&run, Stdio::from(OwnedFd::from(theirs)))?;
            let (input, output) = (ours.try_clone()?, ours);
            drive(Streams { input, output }, peer, &run, own)
        }
    };
    names::remove(&prefix);
    result
}

fn drive<P: Port>(mut port: P, peer: Peer, run: &Run, core: Option<usize>) -> Result<Latency> {
    let pinned = Pinned::to(core)?;
    let latency = if run.reply_first {
        client::<P, true>(&mut port, &run.plan)
    } else {
        client::<P, false>(&mut port, &run.plan)
    };
    drop(pinned);
    let latency = latency?;
    peer.finish()?;
    Ok(latency)
}

/// The peer's side of [`measure`]. Calls `ready` when it is set up, and holds
/// what that gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    serve_as(prefix, run, ready).with_context(|| run.name())
}

fn serve_as<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let (there, home) = directions(prefix);
    match run.contender {
        Contender::Floor { pause } => {
            let region = raw::open(&there)?;
            if pause {
                answer(Floor::<true>::new(&region, true)?, run, ready)
            } else {
                answer(Floor::<false>::new(&region, true)?, run, ready)
            }
        }
        Contender::Replay { pause } => {
            let (back, out) = (raw::open(&there)?, raw::open(&home)?);
            if pause {
                answer(replay_port::<true>(&out, &back)?, run, ready)
            } else {
                answer(replay_port::<false>(&out, &back)?, run, ready)
            }
        }
        Contender::Spin | Contender::Adaptive => {
            let strategy = strategy(run.contender);
            let reader = reader(&there, RING, strategy)?;
            let writer = writer(&home, strategy)?;
            answer(Duplex { reader, writer }, run, ready)
        }
        #[cfg(feature = "iceoryx2")]
        Contender::Iceoryx2 => {
            let port = crate::iceoryx::PublishSubscribe::open(prefix, true)?;
            answer(port, run, ready)
        }
        #[cfg(not(feature = "iceoryx2"))]
        Contender::Iceoryx2 => anyhow::bail!("built without the feature iceoryx2"),
        Contender::Pipe => {
            let path = run.way_back.as_ref().context("no way back")?;
            let output = File::options().write(true).open(path)?;
            let input = inherited_pipe()?;
            answer(Streams { input, output }, run, ready)
        }
        Contender::Socket => {
            let input = inherited_socket()?;
            let output = input.try_clone()?;
            answer(Streams { input, output }, run, ready)
        }
    }
}

fn answer<P: Port, G>(mut port: P, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let _until_done = ready()?;
    if run.reply_first {
        server::<P, true>(&mut port, &run.plan)
    } else {
        server::<P, false>(&mut port, &run.plan)
    }
}

fn directions(prefix: &str) -> (String, String) {
    (format!("{prefix}ping"), format!("{prefix}pong"))
}

fn strategy(contender: Contender) -> WaitStrategy {
    if contender == Contender::Spin {
        WaitStrategy::Spin
    } else {
        WaitStrategy::Adaptive
    }
}

fn replay_port<const PAUSE: bool>(out: &Region, back: &Region) -> Result<Replay<PAUSE>> {
    Ok(Replay {
        sender: Sender::new(out, RING)?,
        receiver: Receiver::new(back, RING)?,
    })
}
