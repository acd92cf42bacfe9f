//! Work shared by processes: two produce items, two consume them, through one
//! queue; one consumer is killed on the way, and the rest goes on.
//!
//! ```text
//! cargo run --release -p polyshm --example work_queue
//! cargo run --release -p polyshm --example work_queue -- --items 5000000
//! ```
//!
//! At the end each item must have been handled exactly once, except what the
//! killed process held: one item at most, since it takes one at a time. The
//! exit status is nonzero otherwise.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use indicatif::HumanCount;
use polyshm::{
    prelude::*,
    zeroipc::{self, FromBytes, Immutable, IntoBytes, Repair},
};
use std::{
    process::{self, ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

mod shared;
use shared::{Cleaner, Process};

const WORKERS: u32 = 2;
/// The consumer that is killed.
const VICTIM: u32 = 1;
/// Small, so that producers come round to each slot often.
const CAPACITY: u64 = 1024;
/// How long a worker waits before it looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(100);
/// How often in a row, before it counts its peers as gone.
const SLICES: u32 = 100;
/// For whatever the workers do at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);
/// How a worker says that it cannot go on before a repair.
const STUCK: u8 = 3;
/// More than one kill can ask for; a worker that was merely slow may, too.
const REPAIRS: usize = 20;

#[derive(Debug, Parser)]
#[command(
    name = "work_queue",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
/// Pass items from producers to consumers, kill one of them, and count
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    /// How many items to produce
    #[arg(
        long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..=100_000_000),
    )]
    items: u64,
    /// Produce no more after so many seconds
    #[arg(
        long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
}

/// What the processes that this one starts do.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Producer { name: String, number: u32 },
    #[command(hide = true)]
    Consumer { name: String, number: u32 },
    #[command(hide = true)]
    Cleaner { name: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.role {
        None => supervise(&cli).map(|()| Left::Done),
        Some(Role::Producer { name, number }) => produce(name, *number),
        Some(Role::Consumer { name, number }) => consume(name, *number),
        Some(Role::Cleaner { name }) => clean(name).map(|()| Left::Done),
    };
    match done {
        Ok(Left::Done) => ExitCode::SUCCESS,
        Ok(Left::Stuck) => ExitCode::from(STUCK),
        Err(error) => {
            eprintln!("work_queue: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the process does that stands by.
fn clean(name: &str) -> Result<()> {
    // Opened now, so that it removes this segment and no later one of the same
    // name.
    let memory = Memory::open(name)?;
    Cleaner::run(|| {
        memory.unlink()?;
        Ok(())
    })
}

// What is shared.

/// The number, and something that only the right number has.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "polyshm::zeroipc::zerocopy")]
#[repr(C)]
struct Item {
    number: u64,
    check: u64,
}

impl Item {
    fn new(number: u64) -> Self {
        let check = (number ^ 0x9e37_79b9).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self { number, check }
    }
}

/// The structures, by their names in the segment.
struct Work {
    items: Queue<Item>,
    /// How many items each producer has pushed; only it stores its own.
    pushed: Array<u64>,
    /// Per consumer, how often it handled each item; only it stores its own.
    handled: Vec<Array<u8>>,
    /// Producers shall leave.
    stop: Event,
    /// Consumers shall leave when there are no more items.
    drain: Event,
}

impl Work {
    fn create(memory: &Memory, items: u64) -> Result<Self, zeroipc::Error> {
        let handled = |number| Array::create(memory, &format!("handled-{number}"), items);
        Ok(Self {
            items: Queue::create(memory, "items", CAPACITY)?,
            pushed: Array::create(memory, "pushed", u64::from(WORKERS))?,
            handled: (0..WORKERS).map(handled).collect::<Result<_, _>>()?,
            stop: Event::create(memory, "stop", EventMode::Manual)?,
            drain: Event::create(memory, "drain", EventMode::Manual)?,
        })
    }

    fn open(name: &str) -> Result<Self, zeroipc::Error> {
        let memory = Memory::open(name)?;
        let handled = |number| Array::open(&memory, &format!("handled-{number}"));
        Ok(Self {
            items: Queue::open(&memory, "items")?,
            pushed: Array::open(&memory, "pushed")?,
            handled: (0..WORKERS).map(handled).collect::<Result<_, _>>()?,
            stop: Event::open(&memory, "stop")?,
            drain: Event::open(&memory, "drain")?,
        })
    }

    fn items_in_all(&self) -> u64 {
        self.handled[0].len() as u64
    }

    /// Enough for all of it.
    const fn segment_size(items: u64) -> u64 {
        let queue = CAPACITY * (size_of::<Item>() as u64 + 4);
        (64 << 10) + queue + WORKERS as u64 * items
    }
}

// The workers.

/// How a worker ended.
enum Left {
    Done,
    /// The queue has a slot that another process left half-changed.
    Stuck,
}

/// Pushes every second item, from where it stopped, if this is not its first
/// run.
fn produce(name: &str, number: u32) -> Result<Left> {
    let work = Work::open(name)?;
    let own = number as usize;
    let mut pushed = work.pushed.get(own).context("no such producer")?;
    let mut idle = 0;
    while !work.stop.is_signaled() {
        let item = pushed * u64::from(WORKERS) + u64::from(number);
        if item >= work.items_in_all() {
            break;
        }
        match work.items.push_within(Item::new(item), SLICE) {
            Ok(()) => {
                idle = 0;
                pushed += 1;
                work.pushed.set(own, pushed)?;
            }
            // The item was not pushed in any of these cases.
            Err(refused) => match refused.error {
                OpError::Stuck { .. } => return Ok(Left::Stuck),
                error if error.is_timeout() && idle < SLICES => idle += 1,
                error => return Err(error.into()),
            },
        }
    }
    Ok(Left::Done)
}

/// Pops items and notes them, one by one: what a pop returned and was not yet
/// noted is what dies with this process. `Queue::try_pop_slice` would lessen
/// the work per item, and raise that number.
fn consume(name: &str, number: u32) -> Result<Left> {
    let work = Work::open(name)?;
    let handled = work
        .handled
        .get(number as usize)
        .context("no such number")?;
    let mut idle = 0;
    loop {
        // Looked at first: no item comes after the sign.
        let last = work.drain.is_signaled();
        match work.items.pop_within(SLICE) {
            Ok(item) => {
                idle = 0;
                ensure!(
                    item.check == Item::new(item.number).check,
                    "item {} is damaged",
                    item.number
                );
                let index = usize::try_from(item.number)?;
                let times = handled.get(index).context("an item that nobody made")?;
                handled.set(index, times.saturating_add(1))?;
            }
            Err(OpError::Stuck { .. }) => return Ok(Left::Stuck),
            Err(error) if error.is_timeout() && last => return Ok(Left::Done),
            Err(error) if error.is_timeout() && idle < SLICES => idle += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

// The parent.

fn supervise(cli: &Cli) -> Result<()> {
    let name = format!("/polyshm-work-{}", process::id());
    let memory = Memory::create_new(&name, Work::segment_size(cli.items))?;
    let _cleaner = Cleaner::start(&["cleaner", &name])?;
    let work = Work::create(&memory, cli.items)?;

    let started = Instant::now();
    let seconds = Duration::from_secs(cli.seconds);
    let mut kill = Some(Kill {
        after_items: cli.items / 4,
        after: started + seconds / 4,
    });
    let mut repairs = Vec::new();
    loop {
        work.stop.reset();
        work.drain.reset();
        let mut team = Team::start(&name, kill.is_some())?;
        while !team.is_done()? {
            if started.elapsed() > seconds {
                work.stop.signal();
            }
            if kill.as_ref().is_some_and(|kill| kill.is_due(&work)) {
                kill = None;
                team.kill_victim();
            }
            thread::sleep(Duration::from_micros(200));
        }
        // So few items that it came too late to take many: still, it goes.
        if kill.take().is_some() {
            team.kill_victim();
        }
        if let Left::Done = team.send_home(&work)? {
            break;
        }

        // The kill hit one of the few instructions between claiming a slot and
        // freeing it. Until the slot's turn comes again nobody is the worse
        // for it; then those who need it report `OpError::Stuck`: nobody can
        // tell a dead process from a slow one. The parent can: all have left,
        // and that is what a repair needs. It keeps every whole item, and the
        // workers go on where they were.
        ensure!(repairs.len() < REPAIRS, "{REPAIRS} repairs were not enough");
        repairs.push(work.items.repair());
    }
    report(&work, &repairs)
}

/// When the victim is killed.
struct Kill {
    after_items: u64,
    after: Instant,
}

impl Kill {
    fn is_due(&self, work: &Work) -> bool {
        work.pushed.iter().sum::<u64>() >= self.after_items || Instant::now() >= self.after
    }
}

/// The processes of one round.
struct Team {
    producers: Vec<Process>,
    consumers: Vec<Process>,
    victim: Option<Process>,
}

impl Team {
    fn start(name: &str, with_victim: bool) -> Result<Self> {
        let start = |role, number: u32| Process::start(&[role, name, &number.to_string()]);
        Ok(Self {
            consumers: (0..WORKERS)
                .filter(|&number| number != VICTIM)
                .map(|number| start("consumer", number))
                .collect::<Result<_>>()?,
            victim: with_victim.then(|| start("consumer", VICTIM)).transpose()?,
            producers: (0..WORKERS)
                .map(|number| start("producer", number))
                .collect::<Result<_>>()?,
        })
    }

    /// Whether all is produced, or somebody cannot go on.
    fn is_done(&mut self) -> Result<bool> {
        let mut at_work = 0;
        for producer in &mut self.producers {
            match producer.ended()?.map(left).transpose()? {
                None => at_work += 1,
                Some(Left::Done) => {}
                Some(Left::Stuck) => return Ok(true),
            }
        }
        for consumer in self.consumers.iter_mut().chain(&mut self.victim) {
            if let Some(status) = consumer.ended()? {
                left(status)?;
                return Ok(true);
            }
        }
        Ok(at_work == 0)
    }

    fn kill_victim(&mut self) {
        self.victim = None; // dropping kills
    }

    /// Makes all leave: first who adds items, then who takes them.
    fn send_home(self, work: &Work) -> Result<Left> {
        let mut all = Left::Done;
        let mut wait = |mut process: Process| -> Result<()> {
            if let Left::Stuck = left(process.wait(PATIENCE)?)? {
                all = Left::Stuck;
            }
            Ok(())
        };
        work.stop.signal();
        self.producers.into_iter().try_for_each(&mut wait)?;
        work.drain.signal();
        let mut consumers = self.consumers.into_iter().chain(self.victim);
        consumers.try_for_each(&mut wait)?;
        Ok(all)
    }
}

fn left(status: ExitStatus) -> Result<Left> {
    match status.code() {
        Some(0) => Ok(Left::Done),
        Some(code) if code == i32::from(STUCK) => Ok(Left::Stuck),
        _ => bail!("a worker failed ({status})"),
    }
}

/// Counts each item, and prints what came of them.
fn report(work: &Work, repairs: &[Repair]) -> Result<()> {
    let pushed = work.pushed.to_vec();
    println!(
        "pushed      {} items, by {WORKERS} processes",
        HumanCount(pushed.iter().sum())
    );
    let mut times = vec![0_u32; work.handled[0].len()];
    for (number, handled) in (0..).zip(&work.handled) {
        let own = handled.to_vec();
        let sum = own.iter().map(|&n| u64::from(n)).sum();
        let fate = if number == VICTIM { ", killed" } else { "" };
        println!(
            "handled     {} of them, by consumer {number}{fate}",
            HumanCount(sum)
        );
        for (all, own) in times.iter_mut().zip(own) {
            *all += u32::from(own);
        }
    }
    for repair in repairs {
        // `dropped` counts what a dead producer claimed; here consumers die.
        println!(
            "repaired    the queue, with {} whole items in it",
            repair.kept
        );
    }

    let mut lost = Vec::new();
    for (item, times) in (0_u64..).zip(times) {
        let producer = (item % u64::from(WORKERS)) as usize;
        let was_pushed = item / u64::from(WORKERS) < pushed[producer];
        match times {
            0 if was_pushed => lost.push(item),
            0 => {}
            1 if was_pushed => {}
            _ => bail!("item {item} was handled {times} times (pushed: {was_pushed})"),
        }
    }
    match lost[..] {
        [] => println!("lost        nothing: the killed process held no item"),
        [item] => println!("lost        item {item}, which the killed process held"),
        _ => bail!(
            "{} items are lost, but the killed process held one at most: {lost:?}",
            lost.len()
        ),
    }
    println!("result      every other item was handled exactly once");
    Ok(())
}
