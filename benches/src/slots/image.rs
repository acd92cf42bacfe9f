//! A record with an image, against the C library's copy of the same bytes to and
//! from the same memory.

use crate::{
    latency::next_order,
    machine::Pinned,
    names, raw,
    report::{Section, quantile},
};
use anyhow::{Context, Result, ensure};
use polyshm_platform::Region;
use polyshm_slots::{Record, SlotStore, Snapshot, TypedRecord};
use polyshm_wire::slots::Layout;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// What a camera gives.
#[derive(Clone, Debug, Record)]
pub struct Camera {
    #[record("uint8[480,640,3]")]
    image: Vec<u8>,
}

const BYTES: usize = 480 * 640 * 3;

/// How often each contender has its turn in a block, which takes the median; one
/// more turn warms up.
const ROUNDS: usize = 100;
const SMOKE: usize = 3;

/// What takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Store,
    Memcpy,
}

/// Measures writes and reads of new records, block by block.
///
/// # Errors
///
/// A copy came out wrong.
pub fn section(blocks: usize, smoke: bool, core: Option<usize>) -> Result<Section> {
    let mut section = Section::new("slots image", "ns per image");
    let rounds = if smoke { SMOKE } else { ROUNDS };
    let mut turns = vec![Way::Store, Way::Memcpy];
    for block in 0..blocks {
        let prefix = names::prefix();
        let measured = measure(&mut section, &mut turns, rounds, core, &prefix);
        names::remove(&prefix);
        measured.context("measuring images")?;
        next_order(&mut turns, block);
    }
    // Of rates: the times the other way round.
    for (over, under) in [("write", "memcpy in"), ("read_new", "memcpy out")] {
        section.ratio(&format!("{over} / {under}"), under, over);
        section.aim_at_least(0.85);
    }
    Ok(section)
}

/// The two ways to get an image in and out.
#[derive(Debug)]
struct Both {
    store: SlotStore<Camera>,
    found: Snapshot<Camera>,
    /// The image's bytes in the store's segment, by another mapping of it, which
    /// `_region` keeps.
    shared: *mut u8,
    copied: Vec<u8>,
    _region: Region,
}

impl Both {
    fn new(prefix: &str) -> Result<Self> {
        let name = format!("{prefix}image");
        let store = SlotStore::create(&name)?;
        let region = raw::open(&name)?;
        let layout = Layout::new(Camera::schema(), 1)?;
        let bytes = region.bytes(layout.fields()[0].offset, BYTES)?;
        // SAFETY: the slice itself is dropped at once and never used; only its
        // address is kept.
        let shared = unsafe { bytes.lend_mut(0, BYTES)? }.as_mut_ptr();
        Ok(Self {
            found: store.empty(),
            store,
            shared,
            copied: vec![0; BYTES],
            _region: region,
        })
    }

    /// Gets an image in; gives the time.
    fn put(&mut self, way: Way, image: &[u8]) -> Result<f64> {
        let started = Instant::now();
        match way {
            Way::Store => {
                self.store.write(Camera::update().image(image))?;
            }
            Way::Memcpy => {
                let image = black_box(image);
                assert_eq!(image.len(), BYTES, "another image");
                // SAFETY: as many bytes are there, and this thread alone uses
                // them now.
                unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), self.shared, BYTES) };
            }
        }
        Ok(started.elapsed().as_nanos() as f64)
    }

    /// Gets the image out that was put in the same way; gives the time.
    fn take(&mut self, way: Way) -> Result<f64> {
        let started = Instant::now();
        match way {
            Way::Store => {
                let (store, found) = (&mut self.store, &mut self.found);
                store.read_new_into(found, Duration::ZERO)?;
                black_box(&*found.image);
            }
            Way::Memcpy => {
                let copied = black_box(&mut *self.copied);
                // SAFETY: as in `put`.
                unsafe {
                    std::ptr::copy_nonoverlapping(self.shared, copied.as_mut_ptr(), BYTES);
                }
                black_box(copied);
            }
        }
        Ok(started.elapsed().as_nanos() as f64)
    }

    fn check(&self, way: Way, image: &[u8]) -> Result<()> {
        let taken: &[u8] = match way {
            Way::Store => self.found.image.valid().context("no image")?,
            Way::Memcpy => &self.copied,
        };
        ensure!(taken == image, "a wrong image came out of {way:?}");
        Ok(())
    }
}

/// One block, everything made anew: where the bytes lie counts.
fn measure(
    section: &mut Section,
    turns: &mut [Way],
    rounds: usize,
    core: Option<usize>,
    prefix: &str,
) -> Result<()> {
    let mut both = Both::new(prefix)?;
    let mut image: Vec<u8> = (0..BYTES).map(|at| (at / 7) as u8).collect();
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    let _pinned = Pinned::to(core)?;
    for round in 0..=rounds {
        for &way in &*turns {
            // Each image is another than the one before.
            image[..8].copy_from_slice(&(round as u64).to_le_bytes());
            image[BYTES - 1] = way as u8;
            let put = both.put(way, &image)?;
            let taken = both.take(way)?;
            // The first round warms up; each checks.
            if round > 0 {
                times[way as usize][0].push(put);
                times[way as usize][1].push(taken);
            }
            both.check(way, &image)?;
        }
        turns.reverse();
    }
    let names = [["write", "read_new"], ["memcpy in", "memcpy out"]];
    for (names, times) in names.iter().zip(&times) {
        for (name, times) in names.iter().zip(times) {
            section.add(name, quantile(times, 500), None, Some(BYTES));
        }
    }
    Ok(())
}
