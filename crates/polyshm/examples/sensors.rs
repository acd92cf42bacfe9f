//! Sensor data between two processes: one stores 1000 temperatures and some
//! places at 1 kHz, the other one computes their statistics and checks them.
//!
//! ```text
//! cargo run --release -p polyshm --example sensors              both sides, 5 seconds
//! cargo run --release -p polyshm --example sensors -- writer    one side, for any reader
//! cargo run --release -p polyshm --example sensors -- reader    one side, for any writer
//! ```
//!
//! Either side may be a program of another language that speaks ZeroIPC. The
//! arrays of a writer that runs alone, in Python:
//!
//! ```python
//! mem = Memory("/sensor_data")
//! print(Array(mem, "temperature", dtype=np.float32).data.mean())
//! print(Array(mem, "locations", dtype=np.dtype([('lat', 'f4'), ('lon', 'f4')])).data)
//! ```
//!
//! The exit status is nonzero when an element is wrong.

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::HumanCount;
use polyshm::{
    prelude::*,
    zeroipc::{self, FromBytes, Immutable, IntoBytes},
};
use std::{
    f64::consts::TAU,
    process::{self, ExitCode},
    thread,
    time::{Duration, Instant},
};

mod shared;
use shared::{Cleaner, Process};

/// Of the segment. The table and all arrays share it.
const SIZE: u64 = 10 << 20;
/// Of the array `temperature`: sample `n` is stored at `n % SAMPLES`.
const SAMPLES: u64 = 1000;
const PLACES: u64 = 8;
/// Of one side alone, if it is not given.
const NAME: &str = "/sensor_data";
/// For whatever the other side does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_millis(500);

#[derive(Debug, Parser)]
#[command(name = "sensors")]
/// Store sensor data in one process, read and check it in another
struct Cli {
    /// Run one side alone; if absent, both
    role: Option<Role>,
    /// Name of the segment; if absent, one of its own, or /sensor_data for one side alone
    #[arg(long)]
    name: Option<String>,
    /// Write for so many seconds
    #[arg(
        long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
    /// Samples per second
    #[arg(
        long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=100_000),
    )]
    rate: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Create the segment and store samples
    Writer,
    /// Read what a writer stores, until it ends
    Reader,
    #[value(hide = true)]
    Cleaner,
}

/// An element of two numbers. Readers whose types exist at run time only call
/// it `[('lat', 'f4'), ('lon', 'f4')]`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "polyshm::zeroipc::zerocopy")]
#[repr(C)]
struct Place {
    lat: f32,
    lon: f32,
}

impl Place {
    /// Any, as long as both sides know them.
    fn number(index: u64) -> Self {
        let step = index as f32;
        Self {
            lat: 52.5 + 0.25 * step,
            lon: 13.4 - 0.5 * step,
        }
    }
}

/// A slow wave; its period and the array's length differ, so that each round
/// stores other values.
fn temperature(sample: u64) -> f32 {
    let phase = (sample % 3600) as f64 / 3600.0;
    (20.0 + 5.0 * (TAU * phase).sin()) as f32
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = match (&cli.name, cli.role) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => NAME.to_owned(),
        (None, None) => format!("/polyshm-sensors-{}", process::id()),
    };
    let done = match cli.role {
        None => write(&name, &cli, true),
        Some(Role::Writer) => write(&name, &cli, false),
        Some(Role::Reader) => read(&name, Duration::from_secs(cli.seconds)),
        Some(Role::Cleaner) => clean(&name),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sensors: {error:#}");
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

// The writer.

fn write(name: &str, cli: &Cli, with_reader: bool) -> Result<()> {
    let memory = Memory::create_new(name, SIZE)?;
    let _cleaner = Cleaner::start(&["cleaner", "--name", name])?;

    let locations = Array::<Place>::create(&memory, "locations", PLACES)?;
    for index in 0..PLACES {
        locations.set(index as usize, Place::number(index))?;
    }
    // Counts the samples, and says when there are no more.
    let samples = VoidStream::create(&memory, "samples")?;
    // Last: a reader that finds it finds the others.
    let temperatures = Array::<f32>::create(&memory, "temperature", SAMPLES)?;
    println!(
        "segment     {}, {} bytes, {} of them free",
        memory.name(),
        HumanCount(memory.size()),
        HumanCount(memory.free())
    );

    let mut reader = with_reader
        .then(|| Process::start(&["reader", "--name", name]))
        .transpose()?;
    let started = Instant::now();
    for sample in 0..cli.seconds * u64::from(cli.rate) {
        let due = Duration::from_secs_f64(sample as f64 / f64::from(cli.rate));
        thread::sleep(due.saturating_sub(started.elapsed()));
        temperatures.set((sample % SAMPLES) as usize, temperature(sample))?;
        samples.emit(); // who sees the count sees the sample
        if let Some(status) = reader.as_mut().map(Process::ended).transpose()?.flatten() {
            ensure!(status.success(), "the reader process failed ({status})");
        }
    }
    samples.close();
    println!("written     {} samples", HumanCount(samples.count()));
    if let Some(mut reader) = reader {
        let status = reader.wait(PATIENCE)?;
        ensure!(status.success(), "the reader process failed ({status})");
    }
    Ok(()) // the cleaner removes the segment; who has it open keeps it
}

// The reader. Its types are texts, as a Python program's are.

fn read(name: &str, seconds: Duration) -> Result<()> {
    let sensors = Sensors::find(name)?;
    sensors.print_places()?;
    println!("    samples      mean       std       min       max");
    let Some(samples) = &sensors.samples else {
        println!("(not this program's writer: nothing to check against)");
        return sensors.watch(seconds);
    };

    let mut count = 0;
    let mut report = Deadline::after(REPORT);
    loop {
        match samples.wait_for_change(count, PATIENCE) {
            Ok(changed) => count = changed,
            Err(OpError::Closed { .. }) => break,
            Err(error) => return Err(error).context("the writer has stopped or died"),
        }
        if report.expired() {
            report = Deadline::after(REPORT);
            let values = sensors.temperature.numbers()?;
            // Access to an array has no order between processes: the values
            // may be older or newer than a count that is read after them. What
            // was counted before must be there; up to a round more may be.
            check(&values, count, samples.count() + SAMPLES)?;
            print(count, &values);
        }
    }
    // The stream is closed: these are the last values.
    let values = sensors.temperature.numbers()?;
    check(&values, count, count)?;
    print(count, &values);
    println!("checked     each element is as written");
    Ok(())
}

struct Sensors {
    temperature: DynArray,
    /// Only our writer has it, or a program that does as ours does.
    locations: Option<DynArray>,
    samples: Option<VoidStream>,
}

impl Sensors {
    /// Opens what a writer creates, and waits for it a while.
    fn find(name: &str) -> Result<Self> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            match Self::open(name) {
                Err(error) if is_not_there_yet(&error) => {
                    if deadline.expired() {
                        return Err(error).context("no writer has come");
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                opened => return Ok(opened?),
            }
        }
    }

    fn open(name: &str) -> Result<Self, zeroipc::Error> {
        let memory = Memory::open(name)?;
        let temperature = DynArray::open(&memory, "temperature", "float32")?;
        let locations = DynArray::open(&memory, "locations", "[('lat', 'f4'), ('lon', 'f4')]");
        Ok(Self {
            temperature,
            locations: if_there(locations)?,
            samples: if_there(VoidStream::open(&memory, "samples"))?,
        })
    }

    fn print_places(&self) -> Result<()> {
        let Some(locations) = &self.locations else {
            return Ok(());
        };
        let (lat, lon) = (locations.column("lat")?, locations.column("lon")?);
        println!(
            "locations   {} places of {}, from {:.2} {:.2}",
            lat.len(),
            locations.dtype(),
            lat[0],
            lon[0],
        );
        if self.samples.is_some() {
            for (index, (lat, lon)) in lat.into_iter().zip(lon).enumerate() {
                let place = Place::number(index as u64);
                ensure!(
                    same(lat, place.lat) && same(lon, place.lon),
                    "place {index} is at {lat} {lon}, and should be at {} {}",
                    place.lat,
                    place.lon
                );
            }
        }
        Ok(())
    }

    /// Prints what another program stores.
    fn watch(&self, seconds: Duration) -> Result<()> {
        let end = Deadline::after(seconds);
        loop {
            let values = self.temperature.numbers()?;
            print(values.len() as u64, &values);
            if end.expired() {
                return Ok(());
            }
            thread::sleep(REPORT);
        }
    }
}

fn is_not_there_yet(error: &zeroipc::Error) -> bool {
    error.is_not_found() || matches!(error, zeroipc::Error::Unfinished { .. })
}

/// `None` where there is nothing of that name.
fn if_there<T>(opened: Result<T, zeroipc::Error>) -> Result<Option<T>, zeroipc::Error> {
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether each element is one of the samples that may be there: the last one
/// below `count`, or a later one below `until`.
fn check(values: &[f64], count: u64, until: u64) -> Result<()> {
    ensure!(
        values.len() as u64 == SAMPLES,
        "the array has {} elements, and should have {SAMPLES}",
        values.len()
    );
    for (index, &value) in (0..SAMPLES).zip(values) {
        let rounds = count.saturating_sub(index).div_ceil(SAMPLES);
        let first = rounds.saturating_sub(1) * SAMPLES + index;
        let mut possible = (first..until).step_by(SAMPLES as usize).map(temperature);
        ensure!(
            possible.any(|sample| same(value, sample)) || rounds == 0 && value == 0.0,
            "element {index} is {value} after {count} samples, which none of them was"
        );
    }
    Ok(())
}

/// Widening an `f32` is exact.
fn same(wide: f64, narrow: f32) -> bool {
    wide.to_bits() == f64::from(narrow).to_bits()
}

/// Statistics of the elements that samples were stored in. (Of a whole array,
/// `DynArray::stats` gives them, with the feature `ndarray`.)
fn print(count: u64, values: &[f64]) {
    let values = &values[..values.len().min(count as usize)];
    let len = values.len() as f64;
    let mean = values.iter().sum::<f64>() / len;
    let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len;
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    println!(
        "{:>11} {mean:>9.3} {:>9.3} {min:>9.3} {max:>9.3}",
        HumanCount(count).to_string(),
        variance.sqrt()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The array after so many samples.
    fn after(count: u64) -> Vec<f64> {
        let mut values = vec![0.0; SAMPLES as usize];
        for sample in 0..count {
            values[(sample % SAMPLES) as usize] = temperature(sample).into();
        }
        values
    }

    #[test]
    fn what_is_written_passes() {
        for count in [0, 1, 999, 1000, 1001, 2500] {
            check(&after(count), count, count).unwrap();
            check(&after(count + 7), count, count + 7).unwrap();
        }
    }

    #[test]
    fn what_is_not_is_found() {
        for (there, count) in [(2499, 2500), (2501, 2500), (0, 1), (1, 0)] {
            assert!(check(&after(there), count, count).is_err(), "{there}");
        }
        let mut values = after(2500);
        values[600] = 0.0;
        let error = check(&values, 2500, 3500).unwrap_err().to_string();
        let expected = "element 600 is 0 after 2500 samples, which none of them was";
        assert_eq!(error, expected);
        assert!(check(&values[1..], 2500, 3500).is_err());
    }
}
