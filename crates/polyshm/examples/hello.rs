//! The smallest pair of programs: the reader creates a buffer, starts this
//! program again as the writer, and prints what it sends.
//!
//! `cargo run -p polyshm --example hello`

use polyshm::prelude::*;
use std::{env, error::Error, process, time::Duration};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1) {
        None => read(),
        Some(name) => write(&name),
    }
}

fn read() -> Result<(), Box<dyn Error>> {
    let name = format!("polyshm-hello-{}", process::id());
    let reader = Reader::create(&name, &BufferConfig::default())?;
    let mut writer = process::Command::new(env::current_exe()?)
        .arg(&name)
        .spawn()?;

    // Ends when the writer has closed and everything is read.
    for frame in reader.frames(PATIENCE) {
        let frame = frame?; // a slice into shared memory
        println!(
            "frame {}: {}",
            frame.sequence(),
            String::from_utf8_lossy(&frame)
        );
    }
    writer.wait()?;
    Ok(()) // dropping the reader removes the buffer
}

fn write(name: &str) -> Result<(), Box<dyn Error>> {
    let mut writer = Writer::open_within(name, PATIENCE, &WriterConfig::default())?;
    writer.write(b"hello")?;
    writer.write(format!("from process {}", process::id()).as_bytes())?;
    Ok(()) // what is committed stays for the reader
}
