//! The latency loop that all contenders share.

use crate::report::quantile;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// A frame's content: a number that each hop raises by one, and a pattern.
pub type Message = [u8; 64];

/// A message at the start of a cache line, wherever the stack is.
#[repr(align(64))]
struct Line(Message);

/// Bytes of a message.
pub const MESSAGE: usize = size_of::<Message>();

/// One end of a two-way connection.
pub trait Port {
    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The connection fails.
    fn send(&mut self, message: &Message) -> Result<()>;

    /// Waits for a message, copies it out, and gives its room back.
    ///
    /// # Errors
    ///
    /// The connection fails.
    fn receive(&mut self, into: &mut Message) -> Result<()>;

    /// Waits for a message, copies it out, raises it, sends it, and only then
    /// gives the received one's room back.
    ///
    /// # Errors
    ///
    /// The connection fails.
    fn reply_first(&mut self, message: &mut Message) -> Result<()>;
}

/// A message as the first sender makes it.
#[must_use]
pub fn first() -> Message {
    let mut message = [0; MESSAGE];
    for (at, byte) in message.iter_mut().enumerate().skip(8) {
        *byte = at as u8 ^ 0xA5;
    }
    message
}

/// Raises a message's number.
#[inline]
pub fn raise(message: &mut Message) {
    if let Some(number) = message.first_chunk_mut() {
        *number = (u64::from_le_bytes(*number) + 1).to_le_bytes();
    }
}

fn check(message: &Message, number: u64) -> Result<()> {
    let mut due = first();
    due[..8].copy_from_slice(&number.to_le_bytes());
    if *message != due {
        bail!("wrong content: expected {due:02x?}, got {message:02x?}");
    }
    Ok(())
}

#[inline]
fn relay<P: Port, const REPLY_FIRST: bool>(port: &mut P, message: &mut Message) -> Result<()> {
    if REPLY_FIRST {
        port.reply_first(message)
    } else {
        port.receive(message)?;
        raise(message);
        port.send(message)
    }
}

/// How many round trips.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Not timed.
    pub warm_up: u64,
    /// Timed in batches.
    pub batched: u64,
    /// Timed one by one.
    pub single: u64,
}

impl Plan {
    /// Round trips between two looks at the clock.
    const BATCH: u64 = 32;

    const fn total(&self) -> u64 {
        self.warm_up + self.batches() * Self::BATCH + self.single
    }

    const fn batches(&self) -> u64 {
        self.batched.div_ceil(Self::BATCH)
    }
}

/// One-way latencies in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The median batch.
    pub median: f64,
    /// Of single round trips; each includes one look at the clock.
    pub p99: f64,
}

/// The measuring end.
///
/// # Errors
///
/// The connection fails, or gives wrong content.
pub fn client<P: Port, const REPLY_FIRST: bool>(port: &mut P, plan: &Plan) -> Result<Latency> {
    let mut line = Line(first());
    let message = &mut line.0;
    port.send(message)?;
    timed::<P, REPLY_FIRST>(port, message, 1, plan.warm_up)?;
    let batched = timed::<P, REPLY_FIRST>(port, message, plan.batches(), Plan::BATCH)?;
    let single = timed::<P, REPLY_FIRST>(port, message, plan.single, 1)?;
    port.receive(message)?;
    // Two hops per round trip, and the last way back.
    check(message, 2 * plan.total() + 1)?;
    Ok(Latency {
        median: quantile(&batched, 500),
        p99: quantile(&single, 990),
    })
}

/// Times `batches` times `batch` round trips; gives each batch's one-way time.
fn timed<P: Port, const REPLY_FIRST: bool>(
    port: &mut P,
    message: &mut Message,
    batches: u64,
    batch: u64,
) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(batches as usize);
    let mut before = Instant::now();
    for _ in 0..batches {
        for _ in 0..batch {
            relay::<P, REPLY_FIRST>(port, message)?;
        }
        let now = Instant::now();
        times.push(now.duration_since(before).as_nanos() as f64 / (2 * batch) as f64);
        before = now;
    }
    Ok(times)
}

/// The answering end.
///
/// # Errors
///
/// The connection fails, or gives wrong content.
pub fn server<P: Port, const REPLY_FIRST: bool>(port: &mut P, plan: &Plan) -> Result<()> {
    // Contenders that carry the number alone never change the rest.
    let mut line = Line(first());
    let message = &mut line.0;
    for _ in 0..=plan.total() {
        relay::<P, REPLY_FIRST>(port, message)?;
    }
    check(message, 2 * plan.total() + 1)
}
