//! A slave that outlives its master: the master is killed and started again
//! three times, and the slave goes on by itself.
//!
//! `cargo run --release -p polyshm --example reconnect`
//!
//! It prints what happens to the connection, and ends with what each master
//! wrote and how much of it was lost. The exit status is nonzero when a message
//! is damaged, comes twice or out of order, or is neither received nor counted
//! as lost; or when the slave does not get a new master's messages.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use indicatif::HumanCount;
use polyshm::{
    eshm::{Event, Events, Message},
    prelude::*,
};
use std::{
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

mod shared;
use shared::{Cleaner, Process};

/// Between two messages.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long a master writes before it is killed, from its first message on.
const LIFE: Duration = Duration::from_millis(400);
/// How long the slave looks for a master in vain, after it noticed the death.
const PAUSE: Duration = Duration::from_millis(250);
/// For whatever another process does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(
    name = "reconnect",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
/// Kill the master of a channel again and again, and see the slave go on
struct Cli {
    #[command(subcommand)]
    role: Option<Part>,
    /// How often the master is killed
    #[arg(
        long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=1000),
    )]
    kills: u32,
}

/// What the processes that this one starts do.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Master { name: String, run: u32 },
    #[command(hide = true)]
    Cleaner { name: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.role {
        None => slave(cli.kills),
        Some(Part::Master { name, run }) => master(name, *run),
        Some(Part::Cleaner { name }) => Cleaner::run(|| remove(name)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reconnect: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Removes what is left of the channel when all processes are gone.
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

// What is sent.

/// Which master wrote it, its number among that master's, and so many copies of
/// both that half a message does not pass for one.
const COPIES: usize = 64;

fn encode(run: u32, number: u32) -> Vec<u8> {
    let one = (u64::from(run) << 32) | u64::from(number);
    one.to_le_bytes().repeat(COPIES)
}

fn decode(message: &[u8]) -> Result<(u32, u32)> {
    let one = message.first_chunk().context("a message is too short")?;
    let one = u64::from_le_bytes(*one);
    let (run, number) = ((one >> 32) as u32, one as u32);
    ensure!(
        message == encode(run, number),
        "message {number} of master {run} is damaged"
    );
    Ok((run, number))
}

// The master: it writes until its slave has left, or it is killed.

fn master(name: &str, run: u32) -> Result<()> {
    // The first creates the channel. Each other one finds a dead master in it
    // and a slave that lives, and takes the dead one's place.
    let mut master = Endpoint::master(name)?;
    let mut heard = Instant::now();
    for number in 1.. {
        master.write(&encode(run, number))?;
        thread::sleep(INTERVAL);
        match master.remote() {
            Remote::Closed => break,
            Remote::Alive => heard = Instant::now(),
            // Not there yet; or dead; or just slow.
            _ if heard.elapsed() < PATIENCE => {}
            other => bail!("no slave within {PATIENCE:?}: {other:?}"),
        }
    }
    Ok(()) // nobody else is there any more: this removes the channel
}

// The slave, which also starts and kills the masters.

fn slave(kills: u32) -> Result<()> {
    let name = format!("polyshm-reconnect-{}", process::id());
    // The last master removes the channel, if nobody kills this process.
    let _cleaner = Cleaner::start(&["cleaner", &name])?;
    let start = |run: u32| Process::start(&["master", &name, &run.to_string()]);
    let mut master = start(1)?;
    let mut slave = Endpoint::builder()
        .role(Role::Slave)
        .disconnect_behavior(DisconnectBehavior::Never)
        .connect_timeout(PATIENCE)
        .open(&name)?;

    let mut log = Log::new(slave.events());
    for run in 1..=kills + 1 {
        log.read_until(&mut slave, |log| {
            log.runs.len() == run as usize && log.reconnected == log.stale
        })
        .with_context(|| format!("nothing came from master {run}"))?;
        log.read_for(&mut slave, LIFE)?;
        if run <= kills {
            drop(master); // this is SIGKILL
            log.say(&format!("master {run} is killed"));
            let stale = log.stale;
            log.read_until(&mut slave, |log| log.stale > stale)
                .context("the death was not noticed")?;
            log.read_for(&mut slave, PAUSE)?;
            master = start(run + 1)?;
            log.say(&format!("master {} is started", run + 1));
        } else {
            // The slave first: a master that took the channel over leaves it
            // to a slave that is still there.
            slave.close();
            let status = master.wait(PATIENCE)?;
            ensure!(status.success(), "the last master failed ({status})");
            break;
        }
    }
    log.print(kills, slave.lost())
}

/// What one master wrote, as far as it is known here.
struct Run {
    /// The numbers of all messages before its first.
    before: u64,
    /// Its own number of the last message that arrived.
    last: u32,
    received: u64,
    /// Between the last message of the master before and its first.
    gap: Duration,
}

/// What arrived, and what happened.
struct Log {
    started: Instant,
    events: Events,
    runs: Vec<Run>,
    /// When the last message arrived.
    heard: Instant,
    /// Its number among all of the channel's.
    number: u64,
    lost: u64,
    /// Written before the slave attached: they are not for it.
    earlier: u64,
    /// How often the master was found to be gone, and found again.
    stale: usize,
    reconnected: usize,
}

impl Log {
    fn new(events: Events) -> Self {
        Self {
            started: Instant::now(),
            events,
            runs: Vec::new(),
            heard: Instant::now(),
            number: 0,
            lost: 0,
            earlier: 0,
            stale: 0,
            reconnected: 0,
        }
    }

    fn say(&self, text: &str) {
        println!("{:7.3} s   {text}", self.started.elapsed().as_secs_f64());
    }

    fn read_for(&mut self, slave: &mut Endpoint, time: Duration) -> Result<()> {
        let end = Deadline::after(time);
        while !end.expired() {
            self.step(slave, end)?;
        }
        Ok(())
    }

    fn read_until(&mut self, slave: &mut Endpoint, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let end = Deadline::after(PATIENCE);
        while !is_so(self) {
            ensure!(!end.expired(), "waited for {PATIENCE:?}");
            self.step(slave, end)?;
        }
        Ok(())
    }

    /// Reads a message if there is one soon, and takes the events.
    fn step(&mut self, slave: &mut Endpoint, end: Deadline) -> Result<()> {
        match slave.read_timeout(end.at_most(Duration::from_millis(10))) {
            Ok(message) => self.add(&message)?,
            // Also while there is no master.
            Err(error) if error.is_timeout() => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(event) = self.events.try_next() {
            self.note(&event)?;
        }
        Ok(())
    }

    fn add(&mut self, message: &Message) -> Result<()> {
        let (run, number) = decode(message)?;
        if self.number == 0 {
            self.earlier = message.number().saturating_sub(1 + message.lost());
            self.number = self.earlier;
        }
        let expected = self.number + 1 + message.lost();
        ensure!(
            message.number() == expected,
            "message {} came where {expected} should have come",
            message.number()
        );
        self.number = message.number();
        self.lost += message.lost();

        let before = message.number().checked_sub(number.into());
        let before = before.context("a message is numbered above the channel's count")?;
        if run as usize == self.runs.len() + 1 {
            self.runs.push(Run {
                before,
                last: 0,
                received: 0,
                gap: self.heard.elapsed(),
            });
            self.say(&format!(
                "master {run} is read, from its message {number} on"
            ));
        }
        let known = self.runs.len();
        let now = self.runs.last_mut().filter(|_| run as usize == known);
        let now = now.with_context(|| format!("a message of master {run} after {known}"))?;
        ensure!(
            before == now.before && number > now.last,
            "message {number} of master {run} came after its message {}",
            now.last
        );
        now.last = number;
        now.received += 1;
        self.heard = Instant::now();
        Ok(())
    }

    fn note(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Stale { .. } => self.stale += 1,
            Event::Reconnected { recreated, .. } => {
                self.reconnected += 1;
                ensure!(!recreated, "the channel was made anew under its slave");
            }
            _ => {}
        }
        ensure!(
            self.reconnected <= self.stale && self.stale <= self.reconnected + 1,
            "{event:?} came where it cannot"
        );
        // The masters' own part of it is said above.
        self.say(&event.to_string());
        Ok(())
    }

    fn print(&self, kills: u32, lost: u64) -> Result<()> {
        println!();
        let mut received = 0;
        for (index, run) in self.runs.iter().enumerate() {
            // Up to the first of its successor, or to the last that was read.
            let next = self.runs.get(index + 1);
            let wrote = next.map_or(self.number, |next| next.before) - run.before;
            received += run.received;
            print!(
                "master {:<4} wrote {}, of which {} were read",
                index + 1,
                HumanCount(wrote),
                HumanCount(run.received),
            );
            match index {
                0 => println!(" and {} came before the slave", self.earlier),
                _ => println!(", after {} ms without any", run.gap.as_millis()),
            }
        }
        ensure!(
            self.lost == lost && self.earlier + received + lost == self.number,
            "of {} messages {received} were read, {lost} or {} lost, {} earlier",
            self.number,
            self.lost,
            self.earlier
        );
        println!(
            "result      {} messages of {} masters read, each whole and in order; \
             {} overwritten unread; {} reconnections",
            HumanCount(received),
            self.runs.len(),
            HumanCount(lost),
            self.reconnected
        );
        ensure!(
            self.reconnected >= kills as usize,
            "of {kills} deaths {} were got over",
            self.reconnected
        );
        Ok(())
    }
}
