//! One-way streams of frames of several sizes.

use crate::{
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task, say},
    raw,
    replay::{self, Receiver, ReplaySource, Sender},
    report::Section,
    ring::{Copying, InPlace, reader, writer},
    stream::{StreamSink, StreamSource, inherited_pipe, inherited_socket},
};
use anyhow::{Context, Result, bail};
use polyshm_zerobuffer::WaitStrategy;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::File,
    hint::black_box,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
    time::Instant,
};

/// Frame sizes in bytes.
const SIZES: [usize; 5] = [64, 1 << 10, 64 << 10, 1 << 20, 8 << 20];
/// The least ring.
const RING: u64 = 1 << 20;
const HEADER: usize = 16;

/// Sends frames.
pub trait Source {
    /// Sends `data`, or as many other bytes, with `number` at the front.
    ///
    /// # Errors
    ///
    /// The connection fails.
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()>;
}

/// Receives frames.
pub trait Sink {
    /// Waits for a frame, has a look at it, and gives its room back.
    ///
    /// # Errors
    ///
    /// The connection fails, or the look does.
    fn take(&mut self, look: impl FnOnce(&[u8]) -> Result<()>) -> Result<()>;
}

/// Stores a frame's number at its front.
#[inline]
pub fn stamp(data: &mut [u8], number: u64) {
    if let Some(front) = data.first_chunk_mut() {
        *front = number.to_le_bytes();
    }
}

/// How bytes get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flow {
    /// Copied within private memory; no peer.
    Memcpy,
    /// Filled within private memory; no peer.
    Fill,
    /// polyshm, from a buffer.
    Copy,
    /// polyshm, where they lie.
    InPlace,
    /// The protocol's memory accesses alone.
    Replay,
    /// A pipe.
    Pipe,
    /// A Unix stream socket.
    Socket,
}

impl Flow {
    const ALL: [Self; 7] = [
        Self::Memcpy,
        Self::Copy,
        Self::Fill,
        Self::InPlace,
        Self::Replay,
        Self::Pipe,
        Self::Socket,
    ];
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memcpy => "memcpy",
            Self::Fill => "fill",
            Self::Copy => "polyshm copy",
            Self::InPlace => "polyshm in place",
            Self::Replay => "replay",
            Self::Pipe => "pipe",
            Self::Socket => "socket",
        })
    }
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    flow: Flow,
    size: usize,
    /// Frames before the clock starts: at least once around the ring.
    warm_up: u64,
    /// Frames while it runs.
    timed: u64,
    /// Whether the receiver looks at every byte.
    whole: bool,
}

impl Run {
    fn new(flow: Flow, size: usize, smoke: bool) -> Self {
        // Some tens of milliseconds each, on any machine of today.
        let bytes: u64 = match flow {
            Flow::Pipe | Flow::Socket => 32 << 20,
            _ => 256 << 20,
        };
        let most = match flow {
            Flow::Pipe | Flow::Socket => 20_000,
            _ => 200_000,
        };
        let timed = (bytes / size as u64).clamp(8, most);
        let warm_up = match flow {
            Flow::Pipe | Flow::Socket => 4,
            _ => ring(size) / (size + HEADER) as u64 + 1,
        };
        let timed = if smoke { timed.div_ceil(16) } else { timed };
        Self {
            flow,
            size,
            warm_up,
            timed,
            whole: smoke,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", show_size(self.size), self.flow)
    }

    /// What the receiver must find in frame `number`.
    fn check(&self, frame: &[u8], number: u64) -> Result<()> {
        let front = frame.first_chunk().map(|front| u64::from_le_bytes(*front));
        if frame.len() != self.size || front != Some(number) {
            let len = frame.len();
            bail!("wrong content: expected frame {number}, got {front:?} of {len} bytes");
        }
        let right = |(at, &byte): (usize, &u8)| match self.flow {
            Flow::InPlace => byte == number as u8,
            _ => byte == pattern(at),
        };
        if self.whole && !frame.iter().enumerate().skip(8).all(right) {
            bail!("wrong content in frame {number}");
        }
        Ok(())
    }
}

const fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8)) as u8
}

/// Bytes of the ring for frames of `size`: eight of them, and not too few.
fn ring(size: usize) -> u64 {
    RING.max(8 * (size + HEADER) as u64)
}

fn show_size(size: usize) -> String {
    match size {
        size if size >= 1 << 20 => format!("{} MiB", size >> 20),
        size if size >= 1 << 10 => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// Measures all contenders of all sizes, block by block.
///
/// # Errors
///
/// A contender fails, or delivers wrong content.
pub fn section(blocks: usize, smoke: bool, cores: Option<Cores>, pin: bool) -> Result<Section> {
    let mut flows = Flow::ALL.to_vec();
    if cores.is_none() {
        flows.retain(|&flow| flow != Flow::Replay);
    }
    let pinned = cores.filter(|_| pin);
    let mut section = Section::new("throughput", "ns per frame");
    for block in 0..blocks {
        for size in SIZES {
            for &flow in &flows {
                let run = Run::new(flow, size, smoke);
                let nanos =
                    measure(pinned, &run).with_context(|| format!("measuring {}", run.name()))?;
                section.add(&run.name(), nanos, None, Some(size));
            }
        }
        next_order(&mut flows, block);
    }
    for size in SIZES {
        let size = show_size(size);
        // Throughput is bytes per time, so the ratio of times is turned over.
        let pairs = [
            ("polyshm copy", "memcpy"),
            ("polyshm in place", "fill"),
            ("polyshm copy", "replay"),
            ("polyshm copy", "pipe"),
            ("polyshm copy", "socket"),
        ];
        for (over, under) in pairs {
            section.ratio(
                &format!("{size} {over} / {under}"),
                &format!("{size} {under}"),
                &format!("{size} {over}"),
            );
        }
    }
    Ok(section)
}

/// One turn; gives nanoseconds per frame.
fn measure(cores: Option<Cores>, run: &Run) -> Result<f64> {
    let prefix = names::prefix();
    let name = format!("{prefix}stream");
    let core = cores.map(|cores| cores.own);
    let start = |stdin: Stdio| {
        let job = Job {
            prefix: prefix.clone(),
            core: cores.map(|cores| cores.peer),
            task: Task::Throughput(*run),
        };
        let peer = Peer::start(&job, stdin)?;
        peer.hear("ready")?;
        Ok::<_, anyhow::Error>(peer)
    };
    let strategy = WaitStrategy::Adaptive;
    let result = match run.flow {
        Flow::Memcpy => stream(Private::new(run, copy_private), None, run, core),
        Flow::Fill => stream(Private::new(run, fill_private), None, run, core),
        Flow::Copy => {
            let peer = start(Stdio::null())?;
            stream(Copying(writer(&name, strategy)?), Some(peer), run, core)
        }
        Flow::InPlace => {
            let peer = start(Stdio::null())?;
            stream(InPlace(writer(&name, strategy)?), Some(peer), run, core)
        }
        Flow::Replay => {
            let ring = ring(run.size);
            let region = raw::create(&name, replay::len(ring) as usize)?;
            replay::initialise(&region, ring)?;
            let peer = Some(start(Stdio::null())?);
            let sender = Sender::new(&region, ring)?;
            match SIZES.iter().position(|&size| size == run.size) {
                Some(0) => stream(ReplaySource::<{ SIZES[0] }>(sender), peer, run, core),
                Some(1) => stream(ReplaySource::<{ SIZES[1] }>(sender), peer, run, core),
                Some(2) => stream(ReplaySource::<{ SIZES[2] }>(sender), peer, run, core),
                Some(3) => stream(ReplaySource::<{ SIZES[3] }>(sender), peer, run, core),
                Some(4) => stream(ReplaySource::<{ SIZES[4] }>(sender), peer, run, core),
                _ => bail!("no replay of frames of {} bytes", run.size),
            }
        }
        Flow::Pipe => {
            let (theirs, ours) = std::io::pipe()?;
            let peer = start(Stdio::from(OwnedFd::from(theirs)))?;
            let ours = File::from(OwnedFd::from(ours));
            stream(StreamSource(ours), Some(peer), run, core)
        }
        Flow::Socket => {
            let (theirs, ours) = UnixStream::pair()?;
            let peer = start(Stdio::from(OwnedFd::from(theirs)))?;
            stream(StreamSource(ours), Some(peer), run, core)
        }
    };
    names::remove(&prefix);
    result
}

/// The sending side, the same for all.
fn stream<S: Source>(
    mut source: S,
    peer: Option<Peer>,
    run: &Run,
    core: Option<usize>,
) -> Result<f64> {
    let hear = |word| peer.as_ref().map_or(Ok(()), |peer| peer.hear(word));
    let mut data: Vec<u8> = (0..run.size).map(pattern).collect();
    let pinned = Pinned::to(core)?;
    for number in 0..run.warm_up {
        source.put(&mut data, number)?;
    }
    hear("warm")?;
    let started = Instant::now();
    for number in run.warm_up..run.warm_up + run.timed {
        source.put(&mut data, number)?;
    }
    hear("all")?;
    let nanos = started.elapsed().as_nanos() as f64 / run.timed as f64;
    drop(pinned);
    if let Some(peer) = peer {
        peer.finish()?;
    }
    Ok(nanos)
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
    let name = format!("{prefix}stream");
    let ring = ring(run.size);
    match run.flow {
        Flow::Memcpy | Flow::Fill => bail!("{} has no peer", run.flow),
        Flow::Copy | Flow::InPlace => {
            drain(reader(&name, ring, WaitStrategy::Adaptive)?, run, ready)
        }
        Flow::Replay => {
            let region = raw::open(&name)?;
            drain(Receiver::<true>::new(&region, ring)?, run, ready)
        }
        Flow::Pipe => drain(StreamSink::new(inherited_pipe()?, run.size), run, ready),
        Flow::Socket => drain(StreamSink::new(inherited_socket()?, run.size), run, ready),
    }
}

fn drain<S: Sink, G>(mut sink: S, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let _until_done = ready()?;
    for number in 0..run.warm_up {
        sink.take(|frame| run.check(frame, number))?;
    }
    say("warm")?;
    for number in run.warm_up..run.warm_up + run.timed {
        sink.take(|frame| run.check(frame, number))?;
    }
    say("all")
}

/// Private memory as large as the ring, used at the same offsets.
struct Private {
    memory: Vec<u8>,
    at: usize,
    put: fn(&mut [u8], &mut [u8], u64),
}

impl Private {
    fn new(run: &Run, put: fn(&mut [u8], &mut [u8], u64)) -> Self {
        Self {
            // Every page is really touched, as a segment's are.
            memory: vec![1; ring(run.size) as usize],
            at: 0,
            put,
        }
    }
}

impl Source for Private {
    #[inline]
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()> {
        let total = HEADER + data.len();
        if self.memory.len() - self.at < total {
            self.at = 0;
        }
        let place = &mut self.memory[self.at..][HEADER..total];
        (self.put)(place, data, number);
        black_box(place);
        self.at += total;
        Ok(())
    }
}

#[inline]
fn copy_private(place: &mut [u8], data: &mut [u8], number: u64) {
    stamp(data, number);
    place.copy_from_slice(data);
}

#[inline]
fn fill_private(place: &mut [u8], _: &mut [u8], number: u64) {
    place.fill(number as u8);
    stamp(place, number);
}
