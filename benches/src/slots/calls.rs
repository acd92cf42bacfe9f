//! What a write and a read cost on one thread, when nobody else is there.

use super::{
    Floats, are_of,
    bare::{self, Locked, Slot},
    bits_of,
};
use crate::{
    machine::Pinned,
    names, raw,
    report::Section,
    turns::{self, Contender, Effort},
};
use anyhow::{Context, Result, ensure};
use polyshm_slots::{Options, SlotStore};
use std::time::Duration;

const FULL: Effort = Effort {
    rounds: 40,
    batch: 20_000,
};
const SMOKE: Effort = Effort {
    rounds: 2,
    batch: 2_000,
};

/// Without a trailer each write takes and gives back a file's lock.
const PLAIN: Effort = Effort {
    rounds: 10,
    batch: 1_000,
};

const WRITE: &str = "write";
const WRITE_BARE: &str = "write, bare";
const WRITE_LOCKED: &str = "write, bare with a lock";
const WRITE_LOOKING: &str = "write, bare with a lock, looks for sleepers";
const WRITE_PLAIN: &str = "write, no trailer";
const READ: &str = "read";
const READ_BARE: &str = "read, bare";
const BOTH: &str = "write, read the new";
const BOTH_BARE: &str = "write, read the new, bare";

/// Measures all groups, block by block. In a block the contenders of a group take
/// turns many times; each counts with its median.
///
/// # Errors
///
/// A contender fails, or gives wrong content.
pub fn section(blocks: usize, smoke: bool, core: Option<usize>) -> Result<Section> {
    let mut section = Section::new(
        "slots calls, four floats, one thread",
        "ns per call or pair",
    );
    let [effort, plain] = if smoke { [SMOKE, SMOKE] } else { [FULL, PLAIN] };
    for _ in 0..blocks {
        let prefix = names::prefix();
        let measured = measure(&mut section, effort, plain, core, &prefix);
        names::remove(&prefix);
        measured.context("measuring calls on a record of four floats")?;
    }
    section.ratio(&format!("{WRITE} / bare"), WRITE, WRITE_BARE);
    section.aim_at_most(1.5);
    section.ratio(&format!("{READ} / bare"), READ, READ_BARE);
    section.aim_at_most(1.5);
    section.ratio(&format!("{BOTH} / bare"), BOTH, BOTH_BARE);
    section.aim_at_most(1.5);
    section.ratio(&format!("{WRITE} / bare with a lock"), WRITE, WRITE_LOCKED);
    let name = format!("{WRITE} / bare with a lock, looks for sleepers");
    section.ratio(&name, WRITE, WRITE_LOOKING);
    section.ratio(&format!("{WRITE_PLAIN} / {WRITE}"), WRITE_PLAIN, WRITE);
    Ok(section)
}

/// One block, everything made anew: where the bytes lie counts.
fn measure(
    section: &mut Section,
    effort: Effort,
    plain: Effort,
    core: Option<usize>,
    prefix: &str,
) -> Result<()> {
    let name = |what: &str| format!("{prefix}{what}");
    let create = |what| SlotStore::<Floats>::create(&name(what));
    let bare = |what| raw::create(&name(what), bare::LEN);
    let _pinned = Pinned::to(core)?;

    let region = bare("bare-written")?;
    let locked = bare("locked-written")?;
    let looking = bare("looking-written")?;
    let mut writes = [
        written(WRITE, create("written")?),
        written_bare(Slot::new(&region)?),
        written_locked(Locked::new(&locked)?),
        written_looking(Locked::new(&looking)?),
    ];
    turns::block(section, &mut writes, effort)?;
    let last = effort.calls() - 1;
    let store = SlotStore::<Floats>::open(&name("written"))?.read(Duration::ZERO)?;
    for (number, bits) in [
        (store.number(), store.bits()),
        last_of(&Slot::new(&region)?)?,
        last_of(&Slot::new(&locked)?)?,
        last_of(&Slot::new(&looking)?)?,
    ] {
        ensure!(
            number == effort.calls() && bits == bits_of(last),
            "wrong content after the last write"
        );
    }

    let mut reads = [
        read(&create("read")?)?,
        read_bare(Slot::new(&bare("bare-read")?)?),
    ];
    turns::block(section, &mut reads, effort)?;
    let mut pairs = [
        both(create("both")?),
        both_bare(Slot::new(&bare("bare-both")?)?),
    ];
    turns::block(section, &mut pairs, effort)?;

    let options = Options::new().trailer(false);
    let store = SlotStore::<Floats>::create_with(&name("plain"), options)?;
    turns::block(section, &mut [written(WRITE_PLAIN, store)], plain)
}

fn last_of(slot: &Slot) -> Result<(u64, super::Bits)> {
    let (number, _, bits) = slot.try_read().context("half a record")?;
    Ok((number, bits))
}

fn written(name: &'static str, mut store: SlotStore<Floats>) -> Contender {
    Contender::new(name, move |number| {
        store.write(Floats::of(bits_of(number))).is_ok()
    })
}

fn written_bare(slot: Slot) -> Contender {
    Contender::new(WRITE_BARE, move |number| {
        slot.write(bits_of(number));
        true
    })
}

fn written_locked(slot: Locked) -> Contender {
    Contender::new(WRITE_LOCKED, move |number| {
        slot.write(bits_of(number));
        true
    })
}

fn written_looking(slot: Locked) -> Contender {
    Contender::new(WRITE_LOOKING, move |number| {
        !slot.write_and_look(bits_of(number))
    })
}

/// What all reads of the same record find.
const SAME: u64 = 0x1234_5678;

fn read(store: &SlotStore<Floats>) -> Result<Contender> {
    let mut store = store.clone();
    store.write(Floats::of(bits_of(SAME)))?;
    let mut found = store.empty();
    Ok(Contender::new(READ, move |_| {
        store.read_into(&mut found, Duration::ZERO).is_ok() && are_of(found.bits(), SAME)
    }))
}

fn read_bare(slot: Slot) -> Contender {
    slot.write(bits_of(SAME));
    Contender::new(READ_BARE, move |_| {
        let found = slot.try_read();
        found.is_some_and(|(_, _, bits)| are_of(bits, SAME))
    })
}

fn both(mut writer: SlotStore<Floats>) -> Contender {
    let mut reader = writer.clone();
    let mut found = reader.empty();
    Contender::new(BOTH, move |number| {
        writer.write(Floats::of(bits_of(number))).is_ok()
            && reader.read_new_into(&mut found, Duration::ZERO).is_ok()
            && are_of(found.bits(), number)
    })
}

fn both_bare(slot: Slot) -> Contender {
    let mut seen = 0;
    Contender::new(BOTH_BARE, move |number| {
        slot.write(bits_of(number));
        let now = slot.number();
        let new = now != std::mem::replace(&mut seen, now);
        let found = slot.try_read();
        new && found.is_some_and(|(_, _, bits)| are_of(bits, number))
    })
}
