//! A control loop and its operator in two processes: a state goes one way
//! 1000 times a second, commands go the other way.
//!
//! ```text
//! cargo run --release -p polyshm --example master_slave              both sides, 5 seconds
//! cargo run --release -p polyshm --example master_slave -- master    one side, for any slave
//! cargo run --release -p polyshm --example master_slave -- slave     one side, for any master
//! ```
//!
//! Either side may be a program of another language that speaks ESHM. The
//! slave of a master that runs alone, in Python:
//!
//! ```python
//! with ESHM("robot", role=ESHMRole.SLAVE) as slave:
//!     print(slave.read_data(timeout_ms=1000))
//! ```
//!
//! The exit status is nonzero when a state is damaged, comes twice, or is
//! neither received nor counted as lost.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::HumanCount;
use polyshm::{
    eshm::{
        self, Event, Value,
        items::{self, item_value},
    },
    prelude::*,
};
use std::{
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant, SystemTime},
};

mod shared;
use shared::{Cleaner, Process};

/// Of one side alone, if it is not given.
const NAME: &str = "robot";
/// Between two commands.
const COMMANDS: Duration = Duration::from_millis(50);
/// Between two lines of statistics.
const REPORT: Duration = Duration::from_secs(1);
/// For whatever the other side does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(name = "master_slave")]
/// Send a state from a master to a slave at 1 kHz, and commands back
struct Cli {
    /// Run one side alone; if absent, both
    side: Option<Side>,
    /// Name of the channel; if absent, one of its own, or "robot" for one side alone
    #[arg(long)]
    name: Option<String>,
    /// Write for so many seconds
    #[arg(
        long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
    /// States per second
    #[arg(
        long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    rate: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    /// Create the channel, and write states
    Master,
    /// Read what a master writes, and send it commands
    Slave,
    #[value(hide = true)]
    Cleaner,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = match (&cli.name, cli.side) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => NAME.to_owned(),
        (None, None) => format!("polyshm-master-slave-{}", process::id()),
    };
    let done = match cli.side {
        None => master(&name, &cli, true),
        Some(Side::Master) => master(&name, &cli, false),
        Some(Side::Slave) => slave(&name, Duration::from_secs(cli.seconds)),
        Some(Side::Cleaner) => Cleaner::run(|| remove(&name)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("master_slave: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Removes what is left of the channel when both sides are gone.
fn remove(name: &str) -> Result<()> {
    let deadline = Deadline::after(3 * PATIENCE);
    loop {
        match Endpoint::remove(name) {
            // It will notice that it is alone.
            Err(OpenError::RoleTaken { .. }) if !deadline.expired() => {
                thread::sleep(Duration::from_millis(10));
            }
            removed => {
                removed?;
                return Ok(());
            }
        }
    }
}

// What is sent: typed items, which every speaker of ESHM can take apart.

/// Of the control loop.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    /// The first is 1.
    number: i64,
    /// When it was made, in nanoseconds since 1970.
    time: i64,
    target: f64,
    position: f64,
    /// The last command that was obeyed.
    command: i64,
    /// There will be no more.
    last: bool,
}

impl State {
    /// One step towards the target.
    fn advance(&mut self) {
        const STEP: f64 = 1.0 / 64.0;
        self.number += 1;
        self.time = now();
        self.position += (self.target - self.position).clamp(-STEP, STEP);
    }

    fn to_items(self) -> [Item; 7] {
        [
            Item::new("number", self.number),
            Item::new("time", self.time),
            Item::new("target", self.target),
            Item::new("position", self.position),
            // What could not be so if two states were mixed.
            Item::new("distance", self.target - self.position),
            Item::new("command", self.command),
            Item::new("last", self.last),
        ]
    }

    /// `None` when the items are another program's.
    fn from_items(items: &[Item]) -> Result<Option<Self>> {
        let distance = real(items, "distance");
        let state = (|| {
            Some(Self {
                number: integer(items, "number")?,
                time: integer(items, "time")?,
                target: real(items, "target")?,
                position: real(items, "position")?,
                command: integer(items, "command")?,
                last: boolean(items, "last")?,
            })
        })();
        let (Some(state), Some(distance)) = (state, distance) else {
            return Ok(None);
        };
        ensure!(
            (state.target - state.position).to_bits() == distance.to_bits(),
            "state {} is damaged: {state:?} and a distance of {distance}",
            state.number
        );
        Ok(Some(state))
    }
}

/// To the control loop.
#[derive(Clone, Copy, Debug)]
enum Command {
    Approach {
        number: i64,
        target: f64,
    },
    /// The answer to the last state: what became of all.
    Leave {
        received: i64,
        lost: i64,
    },
}

impl Command {
    fn to_items(self) -> [Item; 2] {
        match self {
            Self::Approach { number, target } => {
                [Item::new("number", number), Item::new("target", target)]
            }
            Self::Leave { received, lost } => {
                [Item::new("received", received), Item::new("lost", lost)]
            }
        }
    }

    fn from_items(items: &[Item]) -> Option<Self> {
        if let (Some(received), Some(lost)) = (integer(items, "received"), integer(items, "lost")) {
            return Some(Self::Leave { received, lost });
        }
        Some(Self::Approach {
            number: integer(items, "number")?,
            target: real(items, "target")?,
        })
    }
}

fn integer(items: &[Item], key: &str) -> Option<i64> {
    item_value(items, key).and_then(Value::as_integer)
}

fn real(items: &[Item], key: &str) -> Option<f64> {
    item_value(items, key).and_then(Value::as_real)
}

fn boolean(items: &[Item], key: &str) -> Option<bool> {
    item_value(items, key).and_then(Value::as_boolean)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Only differences are of interest, and only where there are any.
    since.map_or(0, |since| since.as_nanos() as i64)
}

// The master: the control loop.

fn master(name: &str, cli: &Cli, with_slave: bool) -> Result<()> {
    // Closing the endpoint removes the channel; the cleaner stands by in case
    // that this process is killed.
    let _cleaner = Cleaner::start(&["cleaner", "--name", name])?;
    let mut master = Endpoint::master(name)?;
    println!(
        "master      of {}, messages of up to {} bytes",
        master.name(),
        master.capacity()
    );
    let mut slave = with_slave
        .then(|| Process::start(&["slave", "--name", name]))
        .transpose()?;
    if let Some(slave) = &mut slave {
        // What is written before the slave attaches is not for it.
        let deadline = Deadline::after(PATIENCE);
        while !master.remote().is_alive() {
            if let Some(status) = slave.ended()? {
                bail!("the slave process failed ({status})");
            }
            ensure!(!deadline.expired(), "no slave within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    let mut state = State::default();
    let started = Instant::now();
    let mut report = started + REPORT;
    for sample in 1..=cli.seconds * u64::from(cli.rate) {
        let due = Duration::from_secs_f64(sample as f64 / f64::from(cli.rate));
        thread::sleep(due.saturating_sub(started.elapsed()));
        if let Some(message) = master.try_read()? {
            obey(&mut state, &items::decode(&message)?)?;
        }
        state.advance();
        master.write_items(&state.to_items())?;
        if Instant::now() >= report {
            report += REPORT;
            print(&master);
            if let Some(status) = slave.as_mut().map(Process::ended).transpose()?.flatten() {
                bail!("the slave process failed ({status})");
            }
        }
    }
    state.advance();
    state.last = true;
    // It stays in its place, so the slave cannot miss this one.
    master.write_items(&state.to_items())?;
    println!(
        "written     {} states",
        HumanCount(state.number.unsigned_abs())
    );
    if let Some(mut slave) = slave {
        settle(&mut master, &mut state)?;
        let status = slave.wait(PATIENCE)?;
        ensure!(status.success(), "the slave process failed ({status})");
    }
    Ok(())
}

/// Takes the target of a command; gives what a slave that leaves has counted.
fn obey(state: &mut State, items: &[Item]) -> Result<Option<(i64, i64)>> {
    match Command::from_items(items) {
        Some(Command::Approach { number, target }) => {
            ensure!(
                number > state.command,
                "command {number} came after command {}",
                state.command
            );
            (state.command, state.target) = (number, target);
            Ok(None)
        }
        Some(Command::Leave { received, lost }) => Ok(Some((received, lost))),
        None => bail!("what came is no command: {items:?}"),
    }
}

/// Waits for the slave's count, and compares.
fn settle(master: &mut Endpoint, state: &mut State) -> Result<()> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        let items = master
            .read_items(deadline)
            .context("the slave has not answered the last state")?;
        if let Some((received, lost)) = obey(state, &items)? {
            ensure!(
                received + lost == state.number,
                "of {} states {received} arrived, and {lost} are known to be lost",
                state.number
            );
            println!("result      each state arrived or was counted as overwritten");
            return Ok(());
        }
    }
}

fn print(master: &Endpoint) {
    let stats = master.stats();
    println!(
        "master      wrote {}, of which {} were read; read {} of {} commands; \
         {} heartbeats of the slave",
        HumanCount(stats.m2s_write_count),
        HumanCount(stats.m2s_read_count),
        HumanCount(stats.s2m_read_count),
        HumanCount(stats.s2m_write_count),
        stats.slave_heartbeat_delta,
    );
}

// The slave: the operator.

fn slave(name: &str, seconds: Duration) -> Result<()> {
    let mut slave = Endpoint::builder()
        .role(Role::Slave)
        .connect_timeout(PATIENCE)
        .open(name)?;
    let mut seen = Seen::new()?;
    let mut report = Instant::now() + REPORT;
    let mut next = Instant::now();
    let mut number = 0;
    let mut foreign = 0_u64;
    let end = Deadline::after(seconds);
    let events = slave.events();
    loop {
        // Waits also while the slave looks for a master that is gone.
        let items = slave.read_items(PATIENCE).context("no states any more")?;
        let Some(state) = State::from_items(&items)? else {
            foreign += 1;
            if Instant::now() >= report {
                report += REPORT;
                println!(
                    "slave       read {foreign}, which are no states of this program; {items:?}"
                );
            }
            if end.expired() {
                return Ok(());
            }
            continue;
        };
        seen.add(&state, slave.lost())?;
        let leave = Command::Leave {
            received: seen.received,
            lost: seen.lost,
        };
        if state.last {
            slave.write_items(&leave.to_items())?;
            seen.print();
            return Ok(());
        }
        if Instant::now() >= next {
            next = Instant::now() + COMMANDS;
            number += 1;
            let target = f64::from(number % 8);
            match slave.write_items(
                &Command::Approach {
                    number: number.into(),
                    target,
                }
                .to_items(),
            ) {
                // A slave that looks for its master has nobody to write to.
                Ok(()) | Err(eshm::WriteError::Reconnecting { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if Instant::now() >= report {
            report += REPORT;
            seen.print();
        }
        while let Some(event) = events.try_next() {
            // The first is that the master is there.
            if event != Event::Joined {
                println!("slave       {event}");
            }
        }
    }
}

/// What arrived.
struct Seen {
    received: i64,
    lost: i64,
    last: State,
    /// Nanoseconds from a state's making to its arrival.
    age: Histogram<u64>,
}

impl Seen {
    fn new() -> Result<Self> {
        Ok(Self {
            received: 0,
            lost: 0,
            last: State::default(),
            age: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?,
        })
    }

    /// Checks that the numbers of the states and the count of the channel tell
    /// the same.
    fn add(&mut self, state: &State, lost: u64) -> Result<()> {
        let lost = i64::try_from(lost)?;
        // A slave that runs alone may come late.
        let first = self.received == 0;
        let expected = self.last.number + 1 + lost - self.lost;
        ensure!(
            first || state.number == expected,
            "state {} came where {expected} should have come",
            state.number
        );
        self.received += 1;
        self.lost = lost;
        self.last = *state;
        let age = now().saturating_sub(state.time);
        self.age.saturating_record(u64::try_from(age).unwrap_or(0));
        Ok(())
    }

    fn print(&self) {
        let microseconds = |quantile| self.age.value_at_quantile(quantile) / 1000;
        println!(
            "slave       read {}, {} were overwritten before; {} to {} µs old (p50, p99); \
             at {:.2}, obeying command {}",
            HumanCount(self.received.unsigned_abs()),
            HumanCount(self.lost.unsigned_abs()),
            microseconds(0.5),
            microseconds(0.99),
            self.last.position,
            self.last.command,
        );
    }
}
