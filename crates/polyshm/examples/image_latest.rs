//! Images from one process to others, as fast as they can be written: each
//! reader takes the latest one, and checks that it is of one write from the
//! first pixel to the last.
//!
//! ```text
//! cargo run --release -p polyshm --example image_latest              writer and reader, 5 seconds
//! cargo run --release -p polyshm --example image_latest -- writer    one side, for any reader
//! cargo run --release -p polyshm --example image_latest -- reader    one side, for any writer
//! ```
//!
//! Either side may be a Python program. The reader of a writer that runs alone:
//!
//! ```python
//! @dataclass
//! class Picture:
//!     frame_id: int = 0
//!     timestamp: float = 0.0
//!     image: "uint8[480,640,3]" = None
//!
//! print(SharedMemory(Picture, name="camera", create=False).read(timeout=1.0).image.value.mean())
//! ```
//!
//! The exit status is nonzero when a frame is torn, comes twice, or is neither
//! read nor counted as missed.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use indicatif::HumanCount;
use polyshm::{
    prelude::*,
    slots::{Options, Replace, Snapshot},
};
use std::{
    process::{self, ExitCode},
    time::{Duration, Instant, SystemTime},
};

mod shared;
use shared::{Cleaner, Process};

/// Of an image.
const BYTES: usize = 480 * 640 * 3;
/// Of one side alone, if it is not given.
const NAME: &str = "camera";
/// The `frame_id` of the last frame.
const END: i32 = -1;
/// For whatever the other side does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "image_latest")]
/// Write images in one process, read and check the latest one in others
struct Cli {
    /// Run one side alone; if absent, all
    side: Option<Side>,
    /// Name of the segment; if absent, one of its own, or "camera" for one side alone
    #[arg(long)]
    name: Option<String>,
    /// Write for so many seconds; a reader alone reads so long
    #[arg(
        long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
    /// Reader processes
    #[arg(
        long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64),
    )]
    readers: u32,
    /// The writer is this program's: check every frame, and read to its end
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Side {
    /// Create the segment, and write images
    Writer,
    /// Read the latest image, again and again
    Reader,
    #[value(hide = true)]
    Cleaner,
}

#[derive(Record)]
struct Picture {
    frame_id: i32,
    /// In seconds since 1970.
    timestamp: f64,
    #[record("uint8[480,640,3]")]
    image: Vec<u8>,
}

type Latest = Snapshot<Picture>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let name = match (&cli.name, cli.side) {
        (Some(name), _) => name.clone(),
        (None, Some(_)) => NAME.to_owned(),
        (None, None) => format!("polyshm-image-latest-{}", process::id()),
    };
    let done = match cli.side {
        None => write(&name, &cli, cli.readers),
        Some(Side::Writer) => write(&name, &cli, 0),
        Some(Side::Reader) => read(&name, &cli),
        Some(Side::Cleaner) => clean(&name),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image_latest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What the process does that stands by.
fn clean(name: &str) -> Result<()> {
    // Opened now, so that it removes this segment and no later one of the same
    // name.
    let store = SlotStore::<Picture>::open(name)?;
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

// What is written: eight bytes of an image tell which image, and which eight.

const fn words(frame_id: i32) -> u64 {
    (frame_id.cast_unsigned() as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn paint(frame_id: i32, image: &mut [u8]) {
    for (at, bytes) in (0..).zip(image.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&words(frame_id).wrapping_add(at).to_le_bytes());
    }
}

/// The first eight bytes that are of another image.
fn find_tear(frame_id: i32, image: &[u8]) -> Option<usize> {
    let mut painted = (0..).map(|at| words(frame_id).wrapping_add(at).to_le_bytes());
    let mut found = image.chunks_exact(8);
    found.position(|bytes| painted.next().is_none_or(|painted| painted != *bytes))
}

// The writer.

fn write(name: &str, cli: &Cli, readers: u32) -> Result<()> {
    // What a killed run left is in nobody's way.
    let options = Options::new().replace(Replace::Abandoned);
    let mut store = SlotStore::<Picture>::create_with(name, options)?;
    let _cleaner = Cleaner::start(&["cleaner", "--name", name])?;
    println!("segment     {}, {}", store.name(), store.schema());
    let reader = ["reader", "--check", "--name", name];
    let readers = (0..readers).map(|_| Process::start(&reader));
    let mut readers = readers.collect::<Result<Vec<_>>>()?;

    let mut image = vec![0; BYTES];
    let started = Instant::now();
    let mut frames = 0_u64;
    let end = Deadline::after(Duration::from_secs(cli.seconds));
    while !end.expired() {
        let frame_id = (frames % (1 << 31)) as i32;
        frames += 1;
        paint(frame_id, &mut image);
        let update = Picture::update().frame_id(frame_id).timestamp(now());
        store.write(update.image(&image))?;
        for reader in &mut readers {
            if let Some(status) = reader.ended()? {
                bail!("a reader process failed ({status})");
            }
        }
    }
    let elapsed = started.elapsed();
    paint(END, &mut image);
    // It stays, so no reader can miss it.
    store.write(
        Picture::update()
            .frame_id(END)
            .timestamp(now())
            .image(&image),
    )?;
    println!(
        "written     {} images, {:.0} per second with their painting",
        HumanCount(frames + 1),
        frames as f64 / elapsed.as_secs_f64()
    );
    for mut reader in readers {
        let status = reader.wait(PATIENCE)?;
        ensure!(status.success(), "a reader process failed ({status})");
    }
    Ok(()) // the cleaner removes the segment; who has it open keeps it
}

// A reader.

fn read(name: &str, cli: &Cli) -> Result<()> {
    let options = Options::new().open_timeout(PATIENCE);
    let mut store = SlotStore::<Picture>::open_with(name, options)?;
    let end = Deadline::after(Duration::from_secs(cli.seconds));
    let mut seen = Seen::default();
    // Its memory is used again for each image.
    let mut frame = store.empty();
    let mut report = Instant::now() + REPORT;
    loop {
        store
            .read_new_into(&mut frame, PATIENCE)
            .context("no writer any more")?;
        seen.add(&frame)?;
        if cli.check {
            check(&frame)?;
        }
        let is_last = if cli.check {
            *frame.frame_id == END
        } else {
            end.expired()
        };
        if is_last {
            break;
        }
        if Instant::now() >= report {
            report += REPORT;
            seen.print(&frame);
        }
    }
    seen.print(&frame);
    if cli.check {
        println!("checked     every image that was read, none was torn");
    }
    Ok(())
}

fn check(frame: &Latest) -> Result<()> {
    let number = frame.number();
    ensure!(
        frame.image.is_valid() && frame.image.len() == BYTES,
        "image {number} is not complete: {:?}",
        frame.image.status()
    );
    if let Some(at) = find_tear(*frame.frame_id, &frame.image) {
        bail!(
            "image {number} is torn: from pixel {} on it is another one",
            at * 8 / 3
        );
    }
    Ok(())
}

/// What arrived.
#[derive(Default)]
struct Seen {
    frames: u64,
    missed: u64,
    first: u64,
}

impl Seen {
    /// Checks that each image was read once or is known to be missed.
    fn add(&mut self, frame: &Latest) -> Result<()> {
        if self.frames == 0 {
            self.first = frame.number();
        }
        self.frames += 1;
        self.missed += frame.missed();
        let expected = self.first + self.frames + self.missed - 1;
        ensure!(
            frame.number() == expected,
            "image {} came where {expected} should have come",
            frame.number()
        );
        Ok(())
    }

    fn print(&self, frame: &Latest) {
        println!(
            "reader      {} images read, {} replaced before; this one is {:.0} µs old",
            HumanCount(self.frames),
            HumanCount(self.missed),
            (now() - *frame.timestamp) * 1e6
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tears_are_found() {
        let (mut one, mut two) = (vec![0; BYTES], vec![0; BYTES]);
        for (a, b) in [(0, 1), (7, 8), (i32::MAX, END)] {
            paint(a, &mut one);
            paint(b, &mut two);
            assert_eq!(find_tear(a, &one), None);
            assert_eq!(find_tear(b, &one), Some(0));
            for at in [8, BYTES / 2, BYTES - 8] {
                let mut torn = one.clone();
                torn[at..].copy_from_slice(&two[at..]);
                assert_eq!(find_tear(a, &torn), Some(at / 8));
                torn.copy_from_slice(&one);
                torn[..at].copy_from_slice(&two[..at]);
                assert_eq!(find_tear(a, &torn), Some(0));
            }
        }
    }
}
