//! polyshm's own ends, through its public API.

use crate::{
    port::{Message, Port, raise},
    throughput::{Sink, Source, stamp},
};
use anyhow::{Context, Result};
use polyshm_zerobuffer::{BufferConfig, Frame, Reader, WaitStrategy, Writer, WriterConfig};
use std::time::Duration;

/// Far beyond any machine's slowness.
const PATIENCE: Duration = Duration::from_secs(20);

/// Creates a buffer as its reader. Leaves other programs' stale files alone.
///
/// # Errors
///
/// It cannot be created.
pub fn reader(name: &str, ring: u64, strategy: WaitStrategy) -> Result<Reader> {
    let config = BufferConfig::new(1024, ring)
        .wait_strategy(strategy)
        .remove_stale(false);
    Ok(Reader::create(name, &config)?)
}

/// Attaches to a buffer as its writer.
///
/// # Errors
///
/// It does not come up.
pub fn writer(name: &str, strategy: WaitStrategy) -> Result<Writer> {
    let config = WriterConfig::default()
        .wait_strategy(strategy)
        .write_timeout(PATIENCE);
    Ok(Writer::open_within(name, PATIENCE, &config)?)
}

/// Two buffers, one each way.
#[derive(Debug)]
pub struct Duplex {
    /// Receives here.
    pub reader: Reader,
    /// Sends there.
    pub writer: Writer,
}

#[inline]
fn copy_out(frame: &Frame<'_>, into: &mut Message) -> Result<()> {
    *into = *frame.first_chunk().context("a frame came out too short")?;
    Ok(())
}

impl Port for Duplex {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        self.writer.write(message)?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        copy_out(&self.reader.read(PATIENCE)?, into)
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        let frame = self.reader.read(PATIENCE)?;
        copy_out(&frame, message)?;
        raise(message);
        self.writer.write(message)?;
        drop(frame);
        Ok(())
    }
}

/// Sends copies of the source buffer.
#[derive(Debug)]
pub struct Copying(pub Writer);

impl Source for Copying {
    #[inline]
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()> {
        stamp(data, number);
        self.0.write(data)?;
        Ok(())
    }
}

/// Fills frames where they lie.
#[derive(Debug)]
pub struct InPlace(pub Writer);

impl Source for InPlace {
    #[inline]
    fn put(&mut self, data: &mut [u8], number: u64) -> Result<()> {
        let mut frame = self.0.reserve(data.len())?;
        frame.fill(number as u8);
        stamp(&mut frame, number);
        frame.commit()?;
        Ok(())
    }
}

impl Sink for Reader {
    #[inline]
    fn take(&mut self, look: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        look(&self.read(PATIENCE)?)
    }
}
