//! A FIFO of records of four floats, on one thread.

use super::{Bits, Floats, are_of, bits_of};
use crate::{
    machine::Pinned,
    names,
    report::Section,
    turns::{self, Contender, Effort},
};
use anyhow::{Context, Result};
use polyshm_slots::{OnFull, Options, Reading, SlotFifo};
use std::time::Duration;

const SLOTS: u64 = 64;

const FULL: Effort = Effort {
    rounds: 40,
    batch: 20_000,
};
const SMOKE: Effort = Effort {
    rounds: 2,
    batch: 2_000,
};

const BROADCAST: &str = "push, read";
const REGISTERED: &str = "push, read, registered reader";
const SHARED: &str = "push, read, shared index";
const RTRB: &str = "rtrb push, pop";

/// Measures a push and a read of the same item, block by block. In a block the
/// contenders take turns many times; each counts with its median.
///
/// # Errors
///
/// A contender fails, or gives wrong content.
pub fn section(blocks: usize, smoke: bool, core: Option<usize>) -> Result<Section> {
    let mut section = Section::new("slots fifo, four floats, one thread", "ns per item");
    let effort = if smoke { SMOKE } else { FULL };
    for _ in 0..blocks {
        let prefix = names::prefix();
        let measured = measure(&mut section, effort, core, &prefix);
        names::remove(&prefix);
        measured.context("measuring a FIFO of records of four floats")?;
    }
    for over in [BROADCAST, REGISTERED, SHARED] {
        section.ratio(&format!("{over} / rtrb"), over, RTRB);
    }
    Ok(section)
}

fn measure(section: &mut Section, effort: Effort, core: Option<usize>, prefix: &str) -> Result<()> {
    let pair = |shown: &'static str, on_full, reading| {
        let name = format!("{prefix}{}", shown.replace(", ", "-").replace(' ', "-"));
        pair(shown, &name, on_full, reading)
    };
    let mut group = [
        pair(BROADCAST, OnFull::Overwrite, Reading::Broadcast)?,
        pair(REGISTERED, OnFull::Refuse, Reading::Registered)?,
        pair(SHARED, OnFull::Refuse, Reading::Shared)?,
        rtrb(),
    ];
    let _pinned = Pinned::to(core)?;
    turns::block(section, &mut group, effort)
}

fn pair(shown: &'static str, name: &str, on_full: OnFull, reading: Reading) -> Result<Contender> {
    let mut writer = SlotFifo::<Floats>::create_with(name, SLOTS, Options::new().on_full(on_full))?;
    let mut reader = SlotFifo::<Floats>::open_with(name, SLOTS, Options::new().reading(reading))?;
    let mut item = reader.empty();
    Ok(Contender::new(shown, move |number| {
        writer.push(Floats::of(bits_of(number))).ok() == Some(number)
            && reader.read_into(&mut item, Duration::ZERO).is_ok()
            && item.index() == number
            && are_of(item.bits(), number)
    }))
}

fn rtrb() -> Contender {
    let (mut producer, mut consumer) = rtrb::RingBuffer::<Bits>::new(SLOTS as usize);
    Contender::new(RTRB, move |number| {
        producer.push(bits_of(number)).is_ok()
            && consumer.pop().is_ok_and(|bits| are_of(bits, number))
    })
}
