//! A sensor's record between two processes: one writes some of its fields 1000
//! times a second, the other one looks now and then and prints what changed.
//!
//! ```text
//! cargo run --release -p polyshm --example sensor_record              both sides, 5 seconds
//! cargo run --release -p polyshm --example sensor_record -- writer    one side, for any reader
//! cargo run --release -p polyshm --example sensor_record -- reader    one side, for any writer
//! ```
//!
//! Either side may be a Python program. The reader of a writer that runs alone:
//!
//! ```python
//! @dataclass
//! class Sensor:
//!     temperature: float = 0.0
//!     pressure: float = 0.0
//!     timestamp: float = 0.0
//!     status_msg: "str[32]" = ""
//!
//! print(SharedMemory(Sensor, name="sensors", create=False).read(timeout=1.0).temperature)
//! ```
//!
//! The exit status is nonzero when a record is of more than one write, or a
//! change is counted wrongly.

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::HumanCount;
use polyshm::{
    prelude::*,
    slots::{Options, Replace, Snapshot},
};
use std::{
    fmt,
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant, SystemTime},
};

mod shared;
use shared::{Cleaner, Process};

/// Of one side alone, if it is not given.
const NAME: &str = "sensors";
/// Writes from one pressure to the next, and from one message to the next.
const PRESSURES: u64 = 10;
const MESSAGES: u64 = 700;
/// The message of the last record.
const END: &str = "the end";
/// For whatever the other side does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Parser)]
#[command(name = "sensor_record")]
/// Write fields of a record in one process, print what changed in another
struct Cli {
    /// Run one side alone; if absent, both
    side: Option<Side>,
    /// Name of the segment; if absent, one of its own, or "sensors" for one side alone
    #[arg(long)]
    name: Option<String>,
    /// Write for so many seconds; a reader alone reads so long
    #[arg(
        long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
    /// Writes per second
    #[arg(
        long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    rate: u32,
    /// Milliseconds between two looks of the reader
    #[arg(
        long, value_name = "MS", default_value_t = 250,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    every: u64,
    /// The writer is this program's: check what it wrote, and read to its end
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    /// Create the segment, and write records
    Writer,
    /// Print what a writer changes
    Reader,
    #[value(hide = true)]
    Cleaner,
}

#[derive(Record)]
struct Sensor {
    temperature: f64,
    pressure: f64,
    /// In seconds since 1970.
    timestamp: f64,
    #[record("str[32]")]
    status_msg: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = match (&cli.name, cli.side) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => NAME.to_owned(),
        (None, None) => format!("polyshm-sensor-record-{}", process::id()),
    };
    let done = match cli.side {
        None => write(&name, &cli, true),
        Some(Side::Writer) => write(&name, &cli, false),
        Some(Side::Reader) => read(&name, &cli),
        Some(Side::Cleaner) => clean(&name),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sensor_record: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the process does that stands by.
fn clean(name: &str) -> Result<()> {
    // Opened now, so that it removes this segment and no later one of the same
    // name.
    let store = SlotStore::<Sensor>::open(name)?;
    Cleaner::run(|| {
        store.unlink()?;
        Ok(())
    })
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // Only shown.
    since.map_or(0.0, |since| since.as_secs_f64())
}

// What is written, as functions of the number of the write: the first is 1.

fn temperature(write: u64) -> f64 {
    20.0 + (write % 1024) as f64 / 128.0
}

/// The pressure after so many writes, if one of them listed it.
fn pressure(write: u64) -> Option<f64> {
    let last = write / PRESSURES;
    (last > 0).then(|| 1000.0 + (last % 64) as f64 / 4.0)
}

/// The message after so many writes; the first one lists it.
fn message(write: u64) -> String {
    format!("message {}", write.div_ceil(MESSAGES))
}

// The writer.

fn write(name: &str, cli: &Cli, with_reader: bool) -> Result<()> {
    // What a killed run left is in nobody's way.
    let options = Options::new().replace(Replace::Abandoned);
    let mut store = SlotStore::<Sensor>::create_with(name, options)?;
    let _cleaner = Cleaner::start(&["cleaner", "--name", name])?;
    println!("segment     {}, {}", store.name(), store.schema());
    let every = cli.every.to_string();
    let reader = ["reader", "--check", "--name", name, "--every", &every];
    let mut reader = with_reader.then(|| Process::start(&reader)).transpose()?;

    let writes = cli.seconds * u64::from(cli.rate);
    let started = Instant::now();
    for write in 1..=writes {
        let due = Duration::from_secs_f64(write as f64 / f64::from(cli.rate));
        thread::sleep(due.saturating_sub(started.elapsed()));
        let text;
        let mut update = Sensor::update()
            .temperature(temperature(write))
            .timestamp(now());
        if let (0, Some(pressure)) = (write % PRESSURES, pressure(write)) {
            update = update.pressure(pressure);
        }
        if write % MESSAGES == 1 {
            text = message(write);
            update = update.status_msg(&text);
        }
        let number = store.write(update)?;
        ensure!(number == write, "write {write} has the number {number}");
        if let Some(status) = reader.as_mut().map(Process::ended).transpose()?.flatten() {
            ensure!(status.success(), "the reader process failed ({status})");
        }
    }
    // It stays, so the reader cannot miss it.
    store.write(Sensor::update().status_msg(END))?;
    println!("written     {} times", HumanCount(writes + 1));
    if let Some(mut reader) = reader {
        let status = reader.wait(PATIENCE)?;
        ensure!(status.success(), "the reader process failed ({status})");
    }
    Ok(()) // the cleaner removes the segment; who has it open keeps it
}

// The reader.

fn read(name: &str, cli: &Cli) -> Result<()> {
    let options = Options::new().open_timeout(PATIENCE);
    let mut store = SlotStore::<Sensor>::open_with(name, options)?;
    let end = Deadline::after(Duration::from_secs(cli.seconds));
    let (mut seen, mut reads) = (0, 0_u64);
    while cli.check || !end.expired() {
        // Waits for a record that it has not read yet.
        let record = store.read_new(PATIENCE).context("no writer any more")?;
        reads += 1;
        print(&record);
        if cli.check {
            check(seen, &record)?;
            if *record.status_msg == END {
                println!(
                    "checked     {reads} of {} records: each is of one write, each change is \
                     counted",
                    HumanCount(record.number())
                );
                return Ok(());
            }
        }
        seen = record.number();
        thread::sleep(Duration::from_millis(cli.every));
    }
    Ok(())
}

/// Prints the fields that were written since the record before, and how often.
fn print(record: &Snapshot<Sensor>) {
    let mut line = Line(format!("{:>9}", record.number()));
    line.add("temperature", &record.temperature);
    line.add("pressure", &record.pressure);
    line.add("status_msg", &record.status_msg);
    let late = (now() - *record.timestamp) * 1e6;
    println!("{}  {late:.0} µs old", line.0);
}

struct Line(String);

impl Line {
    fn add<T: fmt::Debug>(&mut self, name: &str, field: &Field<T>) {
        use fmt::Write as _;
        // Writing into a text does not fail.
        let _ = match field.valid() {
            Some(value) if field.is_changed() => {
                write!(self.0, "  {name} {value:?} ({}x)", field.changes())
            }
            Some(_) => Ok(()),
            None if field.is_unwritten() => write!(self.0, "  {name} not written yet"),
            None => write!(self.0, "  {name} {:?} (cut)", field.value()),
        };
    }
}

/// Whether a record is what this program writes: every field is of the last
/// write that listed it, and the changes since the record `seen` are counted.
fn check(seen: u64, record: &Snapshot<Sensor>) -> Result<()> {
    let number = record.number();
    let found = (
        *record.temperature,
        record.pressure.valid().copied(),
        record.status_msg.as_str(),
    );
    let last = found.2 == END;
    // The last one lists the message alone.
    let write = if last { number - 1 } else { number };
    let text = message(write);
    let expected = (
        temperature(write),
        pressure(write),
        if last { END } else { &text },
    );
    ensure!(
        found == expected,
        "record {number} is {found:?}, and should be {expected:?}"
    );
    let counts = [
        record.temperature.changes(),
        record.pressure.changes(),
        record.status_msg.changes(),
    ];
    let counted = [
        write - seen,
        write / PRESSURES - seen / PRESSURES,
        write.div_ceil(MESSAGES) - seen.div_ceil(MESSAGES) + u64::from(last),
    ];
    ensure!(
        record.is_exact() && counts == counted,
        "from record {seen} to {number} the fields changed {counted:?} times, and {counts:?} \
         were counted"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_passes_and_what_is_not_is_found() {
        let name = format!("polyshm-sensor-record-test-{}", process::id());
        let mut store = SlotStore::<Sensor>::create(&name).unwrap();
        let mut reader = store.clone();
        store.unlink().unwrap();
        let write = |store: &mut SlotStore<Sensor>, write, temperature| {
            let text = message(write);
            let update = Sensor::update().temperature(temperature);
            let update = match write {
                1 => update.status_msg(&text),
                10 => update.pressure(pressure(write).unwrap()),
                _ => update,
            };
            store.write(update).unwrap();
        };
        for number in 1..=10 {
            write(&mut store, number, temperature(number));
        }
        let record = reader.read(PATIENCE).unwrap();
        check(0, &record).unwrap();
        assert!(check(1, &record).is_err());
        write(&mut store, 11, temperature(12));
        let error = check(10, &reader.read(PATIENCE).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("record 11 is "), "{error}");
    }
}
