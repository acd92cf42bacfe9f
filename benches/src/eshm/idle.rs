//! The load of a pair of processes that are connected and have nothing to say.

use crate::{
    eshm::{open, replay},
    latency::next_order,
    names,
    peer::{Job, Peer, Task, say},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, anyhow, ensure};
use polyshm_eshm::{Endpoint, Message, ReadError, Receiver, Role, Sender};
use polyshm_platform::{Region, sync::Ordering};
use polyshm_wire::eshm::{Direction, Layout, offset};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    hint::black_box,
    io::{self, Read},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    process::Stdio,
    sync::atomic::AtomicBool,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How the two keep in touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pair {
    /// polyshm's endpoints, and in each process a thread that reads or none.
    Polyshm {
        /// Whether a thread is blocked in a read.
        reading: bool,
    },
    /// In each process a thread that raises a counter and sleeps for 1 ms.
    Beats,
    /// In each process three threads as the original has them: one that beats
    /// and one that watches the other's beat each 1 ms, and one that looks for a
    /// message each 100 µs.
    Original,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Polyshm { reading: true } => "polyshm, readers blocked",
            Self::Polyshm { reading: false } => "polyshm, nobody reads",
            Self::Beats => "bare beats, nobody reads",
            Self::Original => "original's threads, readers blocked",
        })
    }
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    pair: Pair,
    /// How long the load is measured.
    window: Duration,
}

const FULL: Duration = Duration::from_secs(2);
const SMOKE: Duration = Duration::from_millis(100);

/// What it takes until both are connected, and threads are asleep where they
/// will sleep, is not measured.
const SETTLE: Duration = Duration::from_millis(200);

/// A wait for something that the other side does at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// What one process used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Load {
    /// Of a core, both in the process and in the system for it.
    percent: f64,
    /// Of its own heart, per second.
    beats: f64,
}

/// Measures all contenders, block by block.
///
/// # Errors
///
/// A contender fails, or the two are not connected.
pub fn section(blocks: usize, smoke: bool) -> Result<(Section, Vec<String>)> {
    const CORE: &str = "1 % of a core";
    let window = if smoke { SMOKE } else { FULL };
    let mut turns = vec![
        Pair::Polyshm { reading: true },
        Pair::Polyshm { reading: false },
        Pair::Beats,
        Pair::Original,
    ];
    let mut section = Section::new("eshm idle", "% of a core, both processes together");
    let mut beats: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for block in 0..blocks {
        for &pair in &turns {
            let prefix = names::prefix();
            let loads = measure(Run { pair, window }, &prefix);
            names::remove(&prefix);
            let loads = loads.with_context(|| format!("measuring {pair}"))?;
            let name = pair.to_string();
            let percent = loads.iter().map(|load| load.percent).sum();
            section.add(&name, percent, None, None);
            let beats = beats.entry(name).or_default();
            beats.extend(loads.map(|load| load.beats));
        }
        section.add(CORE, 1.0, None, None);
        next_order(&mut turns, block);
    }
    section.sort();
    let [reading, unread] = [true, false].map(|reading| Pair::Polyshm { reading }.to_string());
    let (bare, original) = (Pair::Beats.to_string(), Pair::Original.to_string());
    section.ratio(&format!("{reading} / {CORE}"), &reading, CORE);
    section.aim_at_most(1.0);
    section.ratio(&format!("{unread} / {CORE}"), &unread, CORE);
    section.ratio(&format!("{unread} / bare beats"), &unread, &bare);
    section.ratio(
        "original's threads / polyshm, readers blocked",
        &original,
        &reading,
    );
    let notes = beats
        .iter()
        .map(|(name, beats)| {
            let median = quantile(beats, 500);
            format!("{name}: {median:.0} heartbeats per second of each process")
        })
        .collect();
    Ok((section, notes))
}

/// One turn; the loads of both processes.
fn measure(run: Run, prefix: &str) -> Result<[Load; 2]> {
    let job = Job {
        prefix: prefix.to_owned(),
        // Where they are is the system's choice, as it usually is.
        core: None,
        task: Task::EshmIdle(run),
    };
    let (until, end) = io::pipe()?;
    let start = || {
        let slave = Peer::start(&job, Stdio::from(OwnedFd::from(until)))?;
        slave.hear("ready")?;
        Ok::<_, anyhow::Error>(slave)
    };
    let load_of = |slave: &Peer| Ok::<Load, anyhow::Error>(serde_json::from_str(&slave.listen()?)?);
    match run.pair {
        Pair::Polyshm { reading } => {
            let half = Half::new(open(prefix, Role::Master)?, reading);
            let slave = start()?;
            let own = half.watch(run.window)?;
            let other = load_of(&slave)?;
            half.end()?;
            slave.finish()?;
            Ok([own, other])
        }
        pair => {
            let region = raw::create(&words(prefix), replay::len())?;
            let slave = start()?;
            let own = bare(&region, pair, Role::Master, run.window)?;
            let other = load_of(&slave)?;
            drop(end);
            slave.finish()?;
            Ok([own, other])
        }
    }
}

/// The slave's side of a turn. Calls `ready` when it is set up, and holds what
/// that gives until it is done.
///
/// # Errors
///
/// The contender fails, or the two are not connected.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let say = |load: &Load| say(&serde_json::to_string(load)?);
    match run.pair {
        Pair::Polyshm { reading } => {
            let half = Half::new(open(prefix, Role::Slave)?, reading);
            let _until_done = ready()?;
            say(&half.watch(run.window)?)?;
            half.end()
        }
        pair => {
            let region = raw::open(&words(prefix))?;
            let _until_done = ready()?;
            say(&bare(&region, pair, Role::Slave, run.window)?)?;
            // The master's time may not be over.
            io::stdin().read_to_end(&mut Vec::new())?;
            Ok(())
        }
    }
}

/// The name of the segment with the bare words.
fn words(prefix: &str) -> String {
    format!("{prefix}words")
}

/// The only message.
const END: &[u8] = b"that is all";

/// One end of a pair of endpoints.
#[derive(Debug)]
struct Half {
    sender: Sender,
    reader: Reader,
}

/// Who reads.
#[derive(Debug)]
enum Reader {
    /// Nobody before the end.
    Later(Receiver),
    /// A thread that is blocked.
    Thread(JoinHandle<Result<Message, ReadError>>),
}

impl Half {
    fn new(endpoint: Endpoint, reading: bool) -> Self {
        let (sender, mut receiver) = endpoint.split();
        let reader = if reading {
            Reader::Thread(thread::spawn(move || receiver.read_timeout(PATIENCE)))
        } else {
            Reader::Later(receiver)
        };
        Self { sender, reader }
    }

    fn watch(&self, window: Duration) -> Result<Load> {
        let started = Instant::now();
        while !self.sender.remote().is_alive() {
            ensure!(started.elapsed() < PATIENCE, "the two are not connected");
            thread::sleep(Duration::from_millis(1));
        }
        watch(window, || {
            let stats = self.sender.stats();
            match self.sender.role() {
                Role::Slave => stats.slave_heartbeat,
                _ => stats.master_heartbeat,
            }
        })
    }

    /// The master says that it is over, and the slave that it has heard: so
    /// both were connected, and whoever was blocked is woken.
    fn end(mut self) -> Result<()> {
        let slave = self.sender.role() == Role::Slave;
        if !slave {
            self.sender.write(END)?;
        }
        let message = match self.reader {
            Reader::Later(mut receiver) => receiver.read_timeout(PATIENCE)?,
            Reader::Thread(thread) => {
                let ended = thread.join();
                ended.map_err(|_| anyhow!("the reading thread failed"))??
            }
        };
        ensure!(*message == *END, "wrong content at the end");
        if slave {
            self.sender.write(END)?;
        }
        Ok(())
    }
}

/// Bare threads in place of an endpoint's.
fn bare(region: &Region, pair: Pair, role: Role, window: Duration) -> Result<Load> {
    const BEAT: Duration = Duration::from_millis(1);
    const LOOK: Duration = Duration::from_micros(100);
    let master = region.word64(offset::MASTER_HEARTBEAT)?;
    let slave = region.word64(offset::SLAVE_HEARTBEAT)?;
    let (own, other, incoming) = match role {
        Role::Slave => (slave, master, Direction::MasterToSlave),
        _ => (master, slave, Direction::SlaveToMaster),
    };
    let place = Layout::default().channel(incoming);
    let count = region.word64(place.write_count as usize)?;
    let threshold = region.word32(offset::STALE_THRESHOLD)?;
    let stop = AtomicBool::new(false);
    let each = |interval: Duration, step: &dyn Fn()| {
        // Relaxed: a flag alone.
        while !stop.load(Ordering::Relaxed) {
            step();
            thread::sleep(interval);
        }
    };
    thread::scope(|scope| {
        // All loads and updates are relaxed: nothing depends on them.
        scope.spawn(|| {
            each(BEAT, &|| {
                own.fetch_add(1, Ordering::Relaxed);
            });
        });
        if pair == Pair::Original {
            scope.spawn(|| {
                each(BEAT, &|| {
                    black_box(other.load(Ordering::Relaxed));
                    black_box(threshold.load(Ordering::Relaxed));
                });
            });
            scope.spawn(|| {
                each(LOOK, &|| {
                    black_box(count.load(Ordering::Relaxed));
                });
            });
        }
        let load = watch(window, || own.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        load
    })
}

/// What this process uses while it does nothing else; `heart` gives its beats.
fn watch(window: Duration, heart: impl Fn() -> u64) -> Result<Load> {
    thread::sleep(SETTLE);
    let (started, used_before, beats_before) = (Instant::now(), used()?, heart());
    thread::sleep(window);
    let (used, beats) = (used()?.saturating_sub(used_before), heart());
    let elapsed = started.elapsed().as_secs_f64();
    Ok(Load {
        percent: used.as_secs_f64() / elapsed * 100.0,
        beats: beats.wrapping_sub(beats_before) as f64 / elapsed,
    })
}

/// The time that this process's threads have run so far, in the process and in
/// the system.
fn used() -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to a structure of that type, which the call fills
    // when it succeeds.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error().into());
        }
        usage.assume_init()
    };
    let time = |time: libc::timeval| {
        let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
        seconds + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}
