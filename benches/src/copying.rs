//! The tear-tolerant copies against `copy_from_slice`.

use crate::report::{Section, quantile};
use anyhow::Result;
use polyshm_platform::{Bytes, Region};
use std::{hint::black_box, time::Instant};

/// Bytes per copy.
const SIZES: [(usize, &str); 3] = [(64 << 10, "64 KiB"), (1 << 20, "1 MiB"), (8 << 20, "8 MiB")];
/// Bytes between two looks at the clock, at least one copy.
const BATCH: usize = 4 << 20;

/// Measures both directions, block by block. In a block the four kinds take
/// turns many times; each counts with its median.
///
/// # Errors
///
/// A copy came out wrong.
pub fn section(blocks: usize, smoke: bool) -> Result<Section> {
    let mut section = Section::new("copy", "ns per copy");
    for block in 0..blocks {
        for (size, shown) in SIZES {
            let region = Region::heap(size);
            let bytes = region.bytes(0, size)?;
            let mut private: Vec<u8> = (0..size).map(|at| (at * 7 + block) as u8).collect();
            let rounds = if smoke { 2 } else { 20 };
            let mut times: [Vec<f64>; 4] = Default::default();
            for round in 0..=rounds {
                for turn in 0..4 {
                    // Backwards every other time, so that each kind follows both
                    // copies in its own direction and in the other.
                    let kind = if round % 2 == 0 { turn } else { 3 - turn };
                    let nanos = timed(kind, &bytes, &mut private)?;
                    // The first round warms up.
                    if round > 0 {
                        times[kind].push(nanos);
                    }
                }
            }
            check(&bytes, &private)?;
            for (kind, times) in times.iter().enumerate() {
                let name = format!("{shown} {}", NAMES[kind]);
                section.add(&name, quantile(times, 500), None, Some(size));
            }
        }
    }
    for (_, shown) in SIZES {
        for (over, under) in [(0, 1), (2, 3)] {
            section.ratio(
                &format!("{shown} {} / memcpy", NAMES[over]),
                &format!("{shown} {}", NAMES[under]),
                &format!("{shown} {}", NAMES[over]),
            );
        }
    }
    Ok(section)
}

const NAMES: [&str; 4] = ["Bytes::write", "memcpy in", "Bytes::read", "memcpy out"];

/// Nanoseconds per copy of one kind.
fn timed(kind: usize, bytes: &Bytes, private: &mut [u8]) -> Result<f64> {
    let size = private.len();
    let copies = (BATCH / size).max(1);
    let started = Instant::now();
    for _ in 0..copies {
        match kind {
            0 => bytes.write(0, private)?,
            2 => bytes.read(0, private)?,
            _ => {
                // SAFETY: this thread alone has the region, and no other loan.
                let mut lent = unsafe { bytes.lend_mut(0, size)? };
                if kind == 1 {
                    lent.copy_from_slice(black_box(private));
                } else {
                    black_box(&mut *private).copy_from_slice(&lent);
                }
                black_box(&mut *lent);
            }
        }
        black_box(&mut *private);
    }
    Ok(started.elapsed().as_nanos() as f64 / copies as f64)
}

fn check(bytes: &Bytes, private: &[u8]) -> Result<()> {
    let mut shared = vec![0; private.len()];
    bytes.read(0, &mut shared)?;
    if shared != private {
        anyhow::bail!("wrong content after copies of {} bytes", private.len());
    }
    Ok(())
}
