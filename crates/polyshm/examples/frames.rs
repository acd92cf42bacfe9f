//! Video between two processes: 1920x1080 RGB frames written in place by one
//! and read in place, every byte checked, by the other.
//!
//! ```text
//! cargo run --release -p polyshm --example frames                 both sides, 5 seconds
//! cargo run --release -p polyshm --example frames -- --fps 60     at a camera's pace
//! cargo run --release -p polyshm --example frames -- reader NAME  one side, for any writer
//! cargo run --release -p polyshm --example frames -- writer NAME  one side, for any reader
//! ```
//!
//! The single sides talk to every program that speaks ZeroBuffer, such as one
//! that uses the Python package `zerobuffer-ipc`. The exit status is nonzero
//! when a byte is wrong or a frame is lost.

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use hdrhistogram::Histogram;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use polyshm::prelude::*;
use std::{
    env,
    io::Read as _,
    process::{self, Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
/// Three bytes per pixel.
const VIDEO_FRAME: usize = WIDTH * HEIGHT * 3;
/// In front of each frame's data (format, section 4).
const FRAME_HEADER: u64 = 16;
/// So many frames fit into the ring, if there is memory for them.
const RING_FRAMES: u64 = 8;
/// The least, for small frames.
const RING_LEAST: u64 = 1 << 20;
/// More than the frames need, so that they never fill the ring exactly: a
/// Python writer cannot go on after that.
const RING_SPARE: u64 = 4096;
const METADATA_SIZE: u64 = 4096;
/// For whatever the other side does at once when all is well.
const PATIENCE: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Parser)]
#[command(name = "frames", args_conflicts_with_subcommands = true)]
/// Send video frames from one process to another and check every byte
struct Cli {
    #[command(subcommand)]
    side: Option<Side>,
    #[command(flatten)]
    sending: Sending,
    #[command(flatten)]
    ring: Ring,
}

#[derive(Debug, Subcommand)]
enum Side {
    /// Create buffer NAME and receive whatever a writer sends
    Reader {
        name: String,
        #[command(flatten)]
        ring: Ring,
        /// How many seconds to wait for a writer
        #[arg(long, value_name = "N", default_value_t = 60)]
        wait: u64,
    },
    /// Attach to buffer NAME and send
    Writer {
        name: String,
        #[command(flatten)]
        sending: Sending,
        /// Print nothing but the number of frames sent
        #[arg(long, hide = true)]
        count_only: bool,
    },
}

#[derive(Clone, Debug, Args)]
struct Sending {
    /// Send for so many seconds
    #[arg(
        long, value_name = "N", default_value_t = 5, conflicts_with = "frames",
        value_parser = clap::value_parser!(u64).range(1..1 << 32),
    )]
    seconds: u64,
    /// Send so many frames instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Bytes per frame; if absent, a video frame, or less where that does not fit
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(16..1 << 40))]
    frame_size: Option<u64>,
    /// Frames per second; if absent, as fast as the reader takes them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    fps: Option<u32>,
}

#[derive(Clone, Debug, Args)]
struct Ring {
    /// Size of the ring; if absent, 8 video frames, or fewer if there is less memory
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..1 << 24))]
    ring_mib: Option<u64>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.side {
        None => both(&cli.sending, &cli.ring),
        Some(Side::Reader { name, ring, wait }) => {
            reader_alone(&name, &ring, Duration::from_secs(wait))
        }
        Some(Side::Writer {
            name,
            sending,
            count_only,
        }) => writer_alone(&name, &sending, count_only),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frames: {}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes; those that an error has quoted already, once.
fn explained(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

// The three ways to run it.

/// The reader here, the writer as a child process.
fn both(sending: &Sending, ring: &Ring) -> Result<()> {
    let name = format!("polyshm-frames-{}", process::id());
    let frame_size = sending.frame_size.unwrap_or(VIDEO_FRAME as u64);
    if let Some(mib) = ring.ring_mib {
        let least = (frame_size + FRAME_HEADER).div_ceil(1 << 20);
        ensure!(
            mib >= least,
            "a ring of {mib} MiB cannot hold a frame of {frame_size} bytes: \
             set --ring-mib to at least {least}"
        );
    }
    let reader = create(&name, ring, frame_size)?;
    let mut writer = WriterProcess::start(&name, frame_size, sending)?;

    let bar = match sending.frames {
        Some(frames) => ProgressBar::new(frames),
        None => ProgressBar::new(sending.seconds * 1000),
    };
    bar.set_style(ProgressStyle::with_template(
        "{wide_bar} {percent:>3} %  {msg}",
    )?);
    let shown = |received: &Received| match sending.frames {
        Some(_) => received.frames,
        None => received.elapsed.as_millis() as u64,
    };
    let received = receive(&reader, |received| {
        bar.set_position(shown(received));
        bar.set_message(received.rate());
    });
    bar.finish_and_clear();

    let received = match received {
        // A writer that failed knows better why.
        Err(error) => {
            return Err(writer.failure(&reader).unwrap_or(error));
        }
        Ok(received) => received,
    };
    let sent = writer.finish()?;
    received.print();
    if sending.fps.is_none() {
        println!(
            "            at full speed it is mostly the wait behind earlier frames; see --fps"
        );
    }
    ensure!(received.checked, "the writer's metadata did not arrive");
    ensure!(
        received.frames == sent,
        "{sent} frames were sent, {} received",
        received.frames
    );
    reader.close().context("could not remove the buffer")
}

fn reader_alone(name: &str, ring: &Ring, wait: Duration) -> Result<()> {
    let reader = create(name, ring, VIDEO_FRAME as u64)?;
    eprintln!("waiting {} s for a writer", wait.as_secs());
    ensure!(
        reader.wait_for_writer(wait),
        "no writer attached to buffer {name:?} within {} s: start one, or set --wait",
        wait.as_secs()
    );
    let bar = ProgressBar::new_spinner();
    let received = receive(&reader, |received| bar.set_message(received.rate()));
    bar.finish_and_clear();
    received?.print();
    reader.close().context("could not remove the buffer")
}

fn writer_alone(name: &str, sending: &Sending, count_only: bool) -> Result<()> {
    let config = WriterConfig::default().write_timeout(PATIENCE);
    let mut writer = Writer::open_within(name, PATIENCE, &config)?;
    let size = fitting_size(&writer, sending.frame_size)?;
    if !count_only {
        println!("sending     frames of {} bytes", HumanCount(size as u64));
    }
    let started = Instant::now();
    let sent = send(&mut writer, size, sending);
    let elapsed = started.elapsed().as_secs_f64();
    let stats = writer.stats();
    let sent = sent.with_context(|| format!("stopped after {} frames", stats.frames))?;
    writer.close()?;
    if count_only {
        println!("{sent}");
    } else {
        println!(
            "sent        {} frames, {:.2} GB in {elapsed:.2} s",
            HumanCount(sent),
            giga(stats.bytes)
        );
        println!("rate        {}", rate(sent, stats.bytes, elapsed));
    }
    Ok(())
}

// The reader.

/// Creates the buffer with a ring of the size asked for, or of the size there
/// is memory for.
fn create(name: &str, ring: &Ring, frame_size: u64) -> Result<Reader> {
    let frame = frame_size + FRAME_HEADER;
    let payload_size = if let Some(mib) = ring.ring_mib {
        mib << 20
    } else {
        // Not all there is: the semaphores live there too, and so do others.
        let room = memory::available().map_or(u64::MAX, |free| {
            free.saturating_sub(METADATA_SIZE + RING_SPARE + RING_LEAST)
        });
        let frames = RING_FRAMES.min(room / frame);
        ensure!(
            frames > 0,
            "{} has {} MiB left, and a frame takes {} bytes: enlarge it (mount -o remount,size=1G, \
             or --shm-size for a container), or set --frame-size",
            memory::PLACE,
            room >> 20,
            HumanCount(frame)
        );
        (frames * frame + RING_SPARE).max(RING_LEAST)
    };
    let reader = Reader::create(name, &BufferConfig::new(METADATA_SIZE, payload_size))?;
    let payload_size = reader.status().payload_size;
    println!(
        "buffer      {name}, a ring of {} bytes",
        HumanCount(payload_size)
    );
    Ok(reader)
}

/// What arrived.
struct Received {
    frames: u64,
    bytes: u64,
    smallest: usize,
    largest: usize,
    /// Since the first frame.
    elapsed: Duration,
    /// Nanoseconds from commit to read.
    latency: Histogram<u64>,
    metadata: Option<String>,
    /// The frames are ours, and every byte is right.
    checked: bool,
}

/// Receives until the writer has closed. Frames that are ours are checked.
fn receive(reader: &Reader, mut progress: impl FnMut(&Received)) -> Result<Received> {
    let mut received = Received {
        frames: 0,
        bytes: 0,
        smallest: usize::MAX,
        largest: 0,
        elapsed: Duration::ZERO,
        latency: Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?,
        metadata: None,
        checked: false,
    };
    let mut first = None;
    let mut shown = Duration::ZERO;
    loop {
        let frame = match reader.read(PATIENCE) {
            Ok(frame) => frame,
            Err(ReadError::WriterClosed { .. }) => break,
            // A slow writer is no error, an absent one is.
            Err(error) if error.is_timeout() && reader.is_writer_connected() => continue,
            Err(error) => return Err(error.into()),
        };
        let arrived = clock::nanoseconds();
        let first = *first.get_or_insert_with(Instant::now);
        if received.frames == 0 {
            // Ours is set before the first frame; others may do as they like.
            received.metadata = reader.metadata()?.map(|bytes| text(&bytes));
            received.checked = received
                .metadata
                .as_deref()
                .is_some_and(|text| text.contains(pattern::NAME));
        }

        let expected = received.frames + 1;
        ensure!(
            frame.sequence() == expected,
            "frame {} came where {expected} should have come",
            frame.sequence()
        );
        if received.checked {
            let sent = pattern::check(&frame, expected)?;
            received
                .latency
                .saturating_record(arrived.saturating_sub(sent));
        }
        received.frames += 1;
        received.bytes += frame.len() as u64;
        received.smallest = received.smallest.min(frame.len());
        received.largest = received.largest.max(frame.len());
        drop(frame); // gives its room back
        received.elapsed = first.elapsed();
        if received.elapsed >= shown + PROGRESS_INTERVAL {
            shown = received.elapsed;
            progress(&received);
        }
    }
    Ok(received)
}

impl Received {
    fn rate(&self) -> String {
        rate(self.frames, self.bytes, self.elapsed.as_secs_f64())
    }

    fn print(&self) {
        if let Some(metadata) = &self.metadata {
            println!("metadata    {metadata}");
        }
        if self.frames == 0 {
            println!("received    nothing");
            return;
        }
        println!(
            "received    {} frames, {:.2} GB in {:.2} s, {}",
            HumanCount(self.frames),
            giga(self.bytes),
            self.elapsed.as_secs_f64(),
            if self.checked {
                "every byte as sent"
            } else {
                "content not checked (not this program's frames)"
            }
        );
        let (smallest, largest) = (self.smallest as u64, self.largest as u64);
        if smallest == largest {
            println!("frame size  {} bytes", HumanCount(largest));
        } else {
            println!(
                "frame size  {} to {} bytes",
                HumanCount(smallest),
                HumanCount(largest)
            );
        }
        println!("rate        {}", self.rate());
        if !self.latency.is_empty() {
            let at = |quantile| nanoseconds(self.latency.value_at_quantile(quantile));
            println!(
                "latency     p50 {}, p90 {}, p99 {}, p99.9 {}, max {} (commit to read, one way)",
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                nanoseconds(self.latency.max())
            );
        }
    }
}

/// Metadata as text, cut to a line, or what it is instead.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) if text.chars().count() <= 200 => text.to_owned(),
        Ok(text) => format!("{} ...", text.chars().take(200).collect::<String>()),
        Err(_) => format!("{} bytes that are no text", bytes.len()),
    }
}

// The writer.

/// The frame size asked for, or one that lets the ring hold several.
fn fitting_size(writer: &Writer, wanted: Option<u64>) -> Result<usize> {
    let (ring, max) = (writer.status().payload_size, writer.max_frame());
    let size = match wanted {
        Some(size) => size,
        None if 2 * (VIDEO_FRAME as u64 + FRAME_HEADER) <= ring => VIDEO_FRAME as u64,
        None => (ring / 4).saturating_sub(FRAME_HEADER),
    };
    ensure!(
        (pattern::MIN_LEN as u64..=max).contains(&size),
        "the buffer takes frames of at most {max} bytes, and a frame of {size} does not fit \
         (the least is {}): set --frame-size, or create the buffer with a larger ring",
        pattern::MIN_LEN
    );
    Ok(usize::try_from(size)?)
}

/// Sends until the time or the number is reached, and until all is taken.
fn send(writer: &mut Writer, size: usize, sending: &Sending) -> Result<u64> {
    match writer.set_metadata(pattern::metadata(size).as_bytes()) {
        Ok(()) => {}
        // It describes the frames, they can go without.
        Err(error @ (MetadataError::Corrupt { .. } | MetadataError::ReaderGone { .. })) => {
            return Err(error.into());
        }
        Err(error) => eprintln!("frames: {error}; a reader will not check the content"),
    }
    let started = Instant::now();
    let end = started + Duration::from_secs(sending.seconds);
    let mut sent = 0;
    while sending
        .frames
        .map_or_else(|| Instant::now() < end, |frames| sent < frames)
    {
        if let Some(fps) = sending.fps {
            let due = started + Duration::from_secs(1).mul_f64(sent as f64 / f64::from(fps));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let mut frame = writer.reserve(size)?; // a slice of the ring
        let number = frame.sequence();
        pattern::fill(&mut frame, number);
        pattern::stamp(&mut frame, number, clock::nanoseconds());
        frame.commit()?;
        sent += 1;
    }
    match writer.drain(PATIENCE) {
        Ok(true) => Ok(sent),
        Ok(false) => bail!("the reader has not read all of {sent} frames"),
        Err(error) => Err(error.into()),
    }
}

/// This program as a writer; killed if the reader gives up first.
struct WriterProcess(Option<Child>);

impl WriterProcess {
    fn start(name: &str, frame_size: u64, sending: &Sending) -> Result<Self> {
        let program = env::current_exe().context("could not find this program's file")?;
        let mut command = Command::new(program);
        command.args(["writer", name, "--count-only"]);
        command.args(["--frame-size", &frame_size.to_string()]);
        match sending.frames {
            Some(frames) => command.args(["--frames", &frames.to_string()]),
            None => command.args(["--seconds", &sending.seconds.to_string()]),
        };
        if let Some(fps) = sending.fps {
            command.args(["--fps", &fps.to_string()]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("could not start the writer process")?;
        Ok(Self(Some(child)))
    }

    /// Waits for its end; gives how many frames it sent.
    fn finish(&mut self) -> Result<u64> {
        let mut child = self.0.take().context("the writer process has ended")?;
        let mut said = String::new();
        if let Some(stdout) = &mut child.stdout {
            stdout.read_to_string(&mut said)?;
        }
        let status = child.wait()?;
        ensure!(status.success(), "the writer process failed ({status})");
        said.trim()
            .parse()
            .with_context(|| format!("the writer process printed {said:?}, not a count"))
    }

    /// Why it failed, if it did so by itself.
    fn failure(&mut self, reader: &Reader) -> Option<anyhow::Error> {
        if reader.is_writer_connected() {
            return None;
        }
        let ended = self.0.as_mut()?.try_wait().ok()??;
        (!ended.success()).then(|| anyhow::anyhow!("the writer process failed ({ended})"))
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It may have ended by itself; what counts is that it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Content that depends on the frame's number in every word, so that a wrong,
/// mixed, torn, shifted or repeated frame is seen; and that is cheap enough
/// for the transport to be what is measured.
mod pattern {
    use anyhow::{Result, ensure};

    /// Marks our frames, in the metadata.
    pub(super) const NAME: &str = "polyshm-frames-1";
    /// The number and the time.
    pub(super) const MIN_LEN: usize = 16;

    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    const STEP: u64 = 0xd1b5_4a32_d192_ed03;

    pub(super) fn metadata(frame_size: usize) -> String {
        let (width, height, format) = if frame_size == super::VIDEO_FRAME {
            (super::WIDTH, super::HEIGHT, "RGB24")
        } else {
            (frame_size, 1, "GRAY8")
        };
        format!(
            r#"{{"width":{width},"height":{height},"format":"{format}","frame_size":{frame_size},"pattern":"{NAME}"}}"#
        )
    }

    /// Word `index` is `first + index * STEP`: additions only, which compile
    /// to vector instructions.
    const fn first(number: u64) -> u64 {
        (number ^ (number >> 29)).wrapping_mul(SEED)
    }

    /// Everything but the first 16 bytes.
    pub(super) fn fill(frame: &mut [u8], number: u64) {
        let (words, tail) = frame[MIN_LEN..].as_chunks_mut::<8>();
        let mut word = first(number);
        for bytes in words {
            *bytes = word.to_le_bytes();
            word = word.wrapping_add(STEP);
        }
        tail.copy_from_slice(&word.to_le_bytes()[..tail.len()]);
    }

    /// The first 16 bytes, at the last moment.
    pub(super) fn stamp(frame: &mut [u8], number: u64, now: u64) {
        frame[..8].copy_from_slice(&number.to_le_bytes());
        frame[8..MIN_LEN].copy_from_slice(&now.to_le_bytes());
    }

    /// Compares every byte; gives the time that the frame was stamped with.
    pub(super) fn check(frame: &[u8], number: u64) -> Result<u64> {
        let Some((&[found, sent], rest)) = frame
            .split_at_checked(MIN_LEN)
            .map(|(head, rest)| (head.as_chunks::<8>().0, rest))
            .and_then(|(head, rest)| Some((<&[[u8; 8]; 2]>::try_from(head).ok()?, rest)))
        else {
            anyhow::bail!("frame {number} has only {} bytes", frame.len());
        };
        let found = u64::from_le_bytes(found);
        ensure!(
            found == number,
            "frame {number} has the content of frame {found}"
        );

        let (words, tail) = rest.as_chunks::<8>();
        let mut word = first(number);
        let mut difference = 0;
        for &bytes in words {
            difference |= u64::from_le_bytes(bytes) ^ word;
            word = word.wrapping_add(STEP);
        }
        if difference != 0 || *tail != word.to_le_bytes()[..tail.len()] {
            let mut right = vec![0; frame.len()];
            fill(&mut right, number);
            let pairs = frame.iter().zip(&right).skip(MIN_LEN);
            let wrong = pairs.clone().filter(|(a, b)| a != b).count();
            let at = pairs.take_while(|(a, b)| a == b).count() + MIN_LEN;
            anyhow::bail!("frame {number}: {wrong} wrong bytes, the first at offset {at}");
        }
        Ok(u64::from_le_bytes(sent))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn frame(len: usize, number: u64) -> Vec<u8> {
            let mut frame = vec![0xaa; len];
            fill(&mut frame, number);
            stamp(&mut frame, number, 77);
            frame
        }

        #[test]
        fn what_is_filled_passes() {
            for len in 16..100 {
                assert_eq!(check(&frame(len, 5), 5).unwrap(), 77, "{len}");
            }
        }

        #[test]
        fn each_wrong_byte_is_found() {
            let good = frame(101, 9);
            for at in (0..101).filter(|at| !(8..16).contains(at)) {
                let mut bad = good.clone();
                bad[at] ^= 1;
                assert!(check(&bad, 9).is_err(), "{at}");
            }
            let mut bad = good;
            bad[50] ^= 1;
            bad[99] ^= 1;
            let error = check(&bad, 9).unwrap_err().to_string();
            assert_eq!(error, "frame 9: 2 wrong bytes, the first at offset 50");
        }

        #[test]
        fn other_frames_are_found() {
            // Repeated, shifted, torn, short.
            assert!(check(&frame(100, 3), 4).is_err());
            let mut shifted = frame(108, 3);
            shifted.drain(16..24);
            assert!(check(&shifted, 3).is_err());
            let mut torn = frame(100, 3);
            torn[60..].copy_from_slice(&frame(100, 4)[60..]);
            assert!(check(&torn, 3).is_err());
            assert!(check(&frame(100, 3)[..15], 3).is_err());
        }
    }
}

/// A clock that two processes of one machine can compare.
mod clock {
    #[cfg(unix)]
    pub(super) fn nanoseconds() -> u64 {
        use rustix::time::{ClockId, clock_gettime};
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
    }

    #[cfg(not(unix))]
    pub(super) fn nanoseconds() -> u64 {
        use std::time::{SystemTime, UNIX_EPOCH};
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    }
}

/// How much shared memory can still be had.
mod memory {
    pub(super) const PLACE: &str = "/dev/shm";

    #[cfg(target_os = "linux")]
    pub(super) fn available() -> Option<u64> {
        let found = rustix::fs::statvfs(PLACE).ok()?;
        Some(found.f_bavail * found.f_frsize)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn available() -> Option<u64> {
        None
    }
}

// Numbers for people.

fn giga(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

fn rate(frames: u64, bytes: u64, seconds: f64) -> String {
    // One frame has no rate.
    if frames < 2 || seconds <= 0.0 {
        return "too short to tell".to_owned();
    }
    format!(
        "{:.1} frames/s, {:.2} GB/s",
        frames as f64 / seconds,
        giga(bytes) / seconds
    )
}

fn nanoseconds(value: u64) -> String {
    match value {
        0..1_000 => format!("{value} ns"),
        1_000..1_000_000 => format!("{:.1} µs", value as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", value as f64 / 1e6),
        _ => format!("{:.2} s", value as f64 / 1e9),
    }
}
