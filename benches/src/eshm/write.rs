//! What a write costs on one thread, when the slave is there and does not read.

use crate::{
    eshm::{channel, open, replay},
    machine::Pinned,
    names,
    peer::{Job, Peer, Task, say},
    raw,
    report::Section,
    turns::{self, Contender, Effort},
};
use anyhow::{Context, Result, ensure};
use polyshm_eshm::{Role, Sender};
use polyshm_platform::{Region, Word32, sync::Ordering};
use polyshm_wire::eshm::{Direction, Layout};
use serde::{Deserialize, Serialize};
use std::{
    array,
    hint::black_box,
    io::{self, Read},
    os::fd::OwnedFd,
    process::Stdio,
    rc::Rc,
};

/// Names of one size's contenders.
#[derive(Debug)]
struct Size {
    bytes: usize,
    write: &'static str,
    copy: &'static str,
    replay: &'static str,
}

const SIZES: [Size; 2] = [
    Size {
        bytes: 64,
        write: "64 B write",
        copy: "64 B memcpy, two stores",
        replay: "64 B replay",
    },
    Size {
        bytes: 4096,
        write: "4096 B write",
        copy: "4096 B memcpy, two stores",
        replay: "4096 B replay",
    },
];

const FULL: Effort = Effort {
    rounds: 40,
    batch: 20_000,
};
const SMOKE: Effort = Effort {
    rounds: 2,
    batch: 2_000,
};

/// What the slave is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Of each message.
    bytes: usize,
}

/// Two messages that are sent in turns, the same to all contenders. Nothing is
/// stored to them between two writes: a load of what was just stored, by another
/// width, would stall.
#[derive(Clone, Debug)]
struct Messages {
    data: Rc<[Data; 2]>,
    bytes: usize,
}

/// Of a message, at the start of a cache line.
#[derive(Debug)]
#[repr(align(64))]
struct Data([u8; 4096]);

impl Messages {
    fn new(bytes: usize) -> Self {
        let data = [0x5A, 0xC3].map(|mask| Data(array::from_fn(|at| (at * 7) as u8 ^ mask)));
        Self {
            data: Rc::new(data),
            bytes,
        }
    }

    /// The message of a call: its length is not known when this is compiled.
    #[inline]
    fn of(&self, number: u64) -> &[u8] {
        &self.data[(number & 1) as usize].0[..black_box(self.bytes)]
    }
}

/// Measures both sizes, block by block. In a block the contenders of a size take
/// turns many times; each counts with its median.
///
/// # Errors
///
/// A contender fails, or leaves wrong content.
pub fn section(blocks: usize, smoke: bool, core: Option<usize>) -> Result<Section> {
    let mut section = Section::new("eshm writes", "ns per write");
    let effort = if smoke { SMOKE } else { FULL };
    for _ in 0..blocks {
        for size in &SIZES {
            let prefix = names::prefix();
            let measured = measure(&mut section, size, effort, core, &prefix);
            names::remove(&prefix);
            measured.with_context(|| format!("measuring writes of {} bytes", size.bytes))?;
        }
    }
    for Size {
        bytes,
        write,
        copy,
        replay,
    } in &SIZES
    {
        section.ratio(
            &format!("{bytes} B, write / memcpy + 2 stores"),
            write,
            copy,
        );
        section.aim_at_most(1.5);
        section.ratio(&format!("{bytes} B, write / replay"), write, replay);
    }
    Ok(section)
}

/// One block of one size, everything made anew: where the bytes lie counts.
fn measure(
    section: &mut Section,
    size: &Size,
    effort: Effort,
    core: Option<usize>,
    prefix: &str,
) -> Result<()> {
    // The receiver keeps the endpoint open when the sender is gone.
    let (sender, receiver) = open(prefix, Role::Master)?.split();
    let (until, end) = io::pipe()?;
    let job = Job {
        prefix: prefix.to_owned(),
        core: None,
        task: Task::EshmWrite(Run { bytes: size.bytes }),
    };
    let slave = Peer::start(&job, Stdio::from(OwnedFd::from(until)))?;
    slave.hear("ready")?;
    let copied = raw::create(&format!("{prefix}copied"), replay::len())?;
    let replayed = raw::create(&format!("{prefix}replayed"), replay::len())?;
    let messages = Messages::new(size.bytes);
    let mut group = [
        written(size, sender, messages.clone()),
        plain(size, &copied, messages.clone())?,
        bare(size, &replayed, messages.clone())?,
    ];
    // Now, so that neither the slave nor a heartbeat thread inherits it.
    let pinned = Pinned::to(core)?;
    turns::block(section, &mut group, effort)?;
    drop(pinned);

    drop(end);
    let calls = effort.calls();
    let arrived = slave.listen()?;
    ensure!(
        arrived == calls.to_string(),
        "{arrived} messages arrived instead of {calls}"
    );
    slave.finish()?;
    drop(receiver);
    let last = messages.of(calls - 1);
    for region in [&copied, &replayed] {
        let place = Layout::default().channel(Direction::MasterToSlave);
        let mut left = vec![0; size.bytes];
        region
            .bytes(place.data as usize, left.len())?
            .read(0, &mut left)?;
        ensure!(left == last, "wrong content after the last write");
    }
    Ok(())
}

fn written(size: &Size, mut sender: Sender, messages: Messages) -> Contender {
    Contender::new(size.write, move |number| {
        sender.write(messages.of(number)).is_ok()
    })
}

/// The least that anything with a sequence number can do.
#[derive(Debug)]
struct Plain {
    sequence: Word32,
    /// As many bytes as the default capacity, which `_region` keeps mapped.
    data: *mut u8,
    _region: Region,
}

fn plain(size: &Size, region: &Region, messages: Messages) -> Result<Contender> {
    let place = Layout::default().channel(Direction::MasterToSlave);
    let plain = Plain {
        sequence: region.word32(place.sequence as usize)?,
        data: replay::data(region, Direction::MasterToSlave)?,
        _region: region.clone(),
    };
    Ok(Contender::new(size.copy, move |number| {
        let plain = &plain;
        let even = (number as u32).wrapping_mul(2);
        let from = messages.of(number);
        plain.sequence.store(even + 1, Ordering::Relaxed);
        // SAFETY: the largest message is as long as the channel's data; this
        // thread alone has them.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), plain.data, from.len()) };
        // Release: as the format's.
        plain.sequence.store(even + 2, Ordering::Release);
        true
    }))
}

fn bare(size: &Size, region: &Region, messages: Messages) -> Result<Contender> {
    let mut channel = replay::Channel::new(region, Direction::MasterToSlave)?;
    Ok(Contender::new(size.replay, move |number| {
        // SAFETY: the largest message is as long as the channel's data; this
        // thread alone has them.
        unsafe { channel.write(messages.of(number)) };
        true
    }))
}

/// The slave: does nothing but live, until the measuring process closes its
/// input. Then it looks at the last message, and tells how many there were.
///
/// # Errors
///
/// No message came, or another than was sent.
pub fn serve<G>(prefix: &str, run: &Run, ready: impl FnOnce() -> Result<G>) -> Result<()> {
    let mut slave = open(prefix, Role::Slave)?;
    let _until_done = ready()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let message = slave.read_latest()?;
    let message = message.with_context(|| format!("nothing in {}", channel(prefix)))?;
    let call = message.number().saturating_sub(1);
    ensure!(
        *message == *Messages::new(run.bytes).of(call),
        "wrong content in message {}",
        message.number()
    );
    say(&message.number().to_string())
}
