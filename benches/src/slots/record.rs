//! A writer at full speed, and a reader in another process that takes each record
//! it can get.

use super::{
    Floats, PATIENCE, are_of,
    bare::{self, Locked, Slot},
    bits_of,
};
use crate::{
    eshm::replay::Pause,
    latency::next_order,
    machine::{Cores, Pinned},
    names,
    peer::{Job, Peer, Task, say},
    raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, ensure};
use polyshm_slots::SlotStore;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    process::Stdio,
    time::{Duration, Instant},
};

/// How often each contender has its turn in a block, which takes the median.
const ROUNDS: usize = 3;
/// How long records are written.
const FULL: Duration = Duration::from_millis(100);
const SMOKE: Duration = Duration::from_millis(10);
/// Writes between two looks at the clock.
const BATCH: u64 = 512;
/// The number of the last record.
const END: u64 = u64::MAX >> 1;

/// Through what the records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// A store with default settings.
    Store,
    /// A bare seqlock.
    Bare,
    /// A bare seqlock whose writer keeps others out.
    Locked,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "polyshm",
            Self::Bare => "bare",
            Self::Locked => "bare with a lock",
        })
    }
}

/// One contender's turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    way: Way,
    window: Duration,
}

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
    const TITLE: &str = "slots record, four floats, two processes";
    if cores.is_none() {
        let note = "SKIPPED the writer and the reader of a slot: they need two cores";
        return Ok((None, vec![note.to_owned()]));
    }
    let pinned = cores.filter(|_| pin);
    let window = if smoke { SMOKE } else { FULL };
    let rounds = if smoke { 1 } else { ROUNDS };
    let mut turns = vec![Way::Store, Way::Bare, Way::Locked];
    let mut section = Section::new(TITLE, "ns per record");
    for block in 0..blocks {
        for &way in &turns {
            let (mut writes, mut reads) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let prefix = names::prefix();
                let measured = measure(pinned, Run { way, window }, &prefix);
                names::remove(&prefix);
                let (write, read) = measured.with_context(|| format!("measuring {way}"))?;
                writes.push(write);
                reads.push(read);
            }
            section.add(&format!("write, {way}"), quantile(&writes, 500), None, None);
            section.add(&format!("read, {way}"), quantile(&reads, 500), None, None);
        }
        next_order(&mut turns, block);
    }
    for (what, while_other) in [
        ("write", "write while it is read"),
        ("read", "read while it is written"),
    ] {
        let [store, bare, locked] =
            [Way::Store, Way::Bare, Way::Locked].map(|way| format!("{what}, {way}"));
        section.ratio(&format!("{while_other} / bare"), &store, &bare);
        section.aim_at_most(1.5);
        let name = format!("{while_other} / bare with a lock");
        section.ratio(&name, &store, &locked);
    }
    Ok((Some(section), Vec::new()))
}

fn name(prefix: &str) -> String {
    format!("{prefix}record")
}

/// One turn; nanoseconds per record that was written, and per record that was
/// read.
fn measure(cores: Option<Cores>, run: Run, prefix: &str) -> Result<(f64, f64)> {
    let job = Job {
        prefix: prefix.to_owned(),
        core: cores.map(|cores| cores.peer),
        task: Task::SlotsRecord(run),
    };
    let core = cores.map(|cores| cores.own);
    match run.way {
        Way::Store => {
            let mut store = SlotStore::<Floats>::create(&name(prefix))?;
            drive(&job, run, core, |number| {
                store.write(Floats::of(bits_of(number))).is_ok()
            })
        }
        Way::Bare => {
            let slot = Slot::new(&raw::create(&name(prefix), bare::LEN)?)?;
            drive(&job, run, core, |number| {
                slot.write(bits_of(number));
                true
            })
        }
        Way::Locked => {
            let slot = Locked::new(&raw::create(&name(prefix), bare::LEN)?)?;
            drive(&job, run, core, |number| {
                slot.write(bits_of(number));
                true
            })
        }
    }
}

/// Has records written by `write`, which gives whether it could, and asks the
/// reader how many it got.
fn drive(
    job: &Job,
    run: Run,
    core: Option<usize>,
    mut write: impl FnMut(u64) -> bool,
) -> Result<(f64, f64)> {
    let peer = Peer::start(job, Stdio::null())?;
    peer.hear("ready")?;
    let pinned = Pinned::to(core)?;
    let started = Instant::now();
    let mut right = true;
    let mut records = 0;
    let elapsed = loop {
        for number in records..records + BATCH {
            right &= write(number);
        }
        records += BATCH;
        let elapsed = started.elapsed();
        if elapsed >= run.window {
            break elapsed.as_nanos() as f64;
        }
    };
    right &= write(END);
    drop(pinned);
    ensure!(right, "a write failed");
    let found: u64 = peer.listen()?.parse()?;
    peer.finish()?;
    ensure!(found <= records + 1, "more records were read than written");
    Ok((elapsed / records as f64, elapsed / found as f64))
}

/// The reader's side of a turn. Calls `ready` when it is set up, and holds what
/// that gives until it is done.
///
/// # Errors
///
/// The contender fails, or delivers wrong content.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let found = if run.way == Way::Store {
        let mut store = SlotStore::<Floats>::open(&name(prefix))?;
        let mut snapshot = store.empty();
        let _until_done = ready()?;
        take(|| {
            store.read_new_into(&mut snapshot, PATIENCE)?;
            Ok(snapshot.bits())
        })?
    } else {
        let slot = Slot::new(&raw::open(&name(prefix))?)?;
        let mut seen = 0;
        let _until_done = ready()?;
        take(|| Ok(slot.read_new::<Pause>(&mut seen)))?
    };
    say(&found.to_string())
}

/// Takes records up to the last one; gives how many.
fn take(mut read: impl FnMut() -> Result<super::Bits>) -> Result<u64> {
    let (mut found, mut last) = (0, None);
    while last != Some(END) {
        let bits = read()?;
        let number = bits[0];
        ensure!(are_of(bits, number), "a torn record: {bits:x?}");
        ensure!(last < Some(number), "record {number} after {last:?}");
        last = Some(number);
        found += 1;
    }
    Ok(found)
}
