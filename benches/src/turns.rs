//! Contenders that take turns on one thread.

use crate::report::{Section, quantile};
use anyhow::{Result, ensure};
use std::{fmt, hint::black_box, ops::Range, time::Instant};

/// One of several ways to do the same.
pub struct Contender {
    name: &'static str,
    calls: Box<dyn FnMut(Range<u64>) -> bool>,
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Contender").field(&self.name).finish()
    }
}

impl Contender {
    /// `call` gets the call's number, and gives whether it found what it had to.
    pub fn new(name: &'static str, mut call: impl FnMut(u64) -> bool + 'static) -> Self {
        // The loop is a part of the closure, so that nothing is called by a
        // pointer within it.
        let calls = move |numbers: Range<u64>| {
            let mut right = true;
            for number in numbers {
                right &= call(black_box(number));
            }
            right
        };
        Self {
            name,
            calls: Box::new(calls),
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// One call for each number; whether all found what they had to.
    pub fn call(&mut self, numbers: Range<u64>) -> bool {
        (self.calls)(numbers)
    }
}

/// Contenders that take turns, and what they do.
pub type Group = (&'static str, Vec<Contender>);

/// How many turns of how many calls.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Turns of each contender in a block; one more warms up.
    pub rounds: u64,
    /// Calls between two looks at the clock.
    pub batch: u64,
}

impl Effort {
    /// Calls of each contender in a block, with those that warm up.
    #[must_use]
    pub const fn calls(self) -> u64 {
        (self.rounds + 1) * self.batch
    }
}

/// Has the contenders of a group take turns, and adds one block's result of
/// each: its median turn, in nanoseconds per call. Calls are numbered from 0.
///
/// # Errors
///
/// A call gave something wrong.
pub fn block(section: &mut Section, group: &mut [Contender], effort: Effort) -> Result<()> {
    let mut times = vec![Vec::new(); group.len()];
    for round in 0..=effort.rounds {
        let from = round * effort.batch;
        for turn in 0..group.len() {
            // Backwards every other time.
            let at = if round % 2 == 0 {
                turn
            } else {
                group.len() - 1 - turn
            };
            let nanos = timed(&mut group[at], from..from + effort.batch)?;
            // The first round warms up.
            if round > 0 {
                times[at].push(nanos);
            }
        }
    }
    for (contender, times) in group.iter().zip(&times) {
        section.add(contender.name(), quantile(times, 500), None, None);
    }
    Ok(())
}

/// Nanoseconds per call.
fn timed(contender: &mut Contender, numbers: Range<u64>) -> Result<f64> {
    let calls = numbers.end - numbers.start;
    let started = Instant::now();
    let right = contender.call(numbers);
    let nanos = started.elapsed().as_nanos() as f64 / calls as f64;
    ensure!(right, "{} gave something wrong", contender.name());
    Ok(nanos)
}
