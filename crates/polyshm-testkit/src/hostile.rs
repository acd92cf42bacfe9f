//! What tests with damaged images share.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// Numbers without a pattern, the same ones for the same seed, which is not 0.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    #[allow(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Whether this is the one time in so many.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// Ends the process when nothing moves: a hang is a failure, and says where.
pub fn watch(progress: &Arc<AtomicU64>, now: &Arc<Mutex<String>>) {
    let (progress, now) = (Arc::clone(progress), Arc::clone(now));
    thread::spawn(move || {
        let mut last = u64::MAX;
        loop {
            thread::sleep(Duration::from_mins(1));
            let seen = progress.load(Relaxed);
            if seen == last {
                let at = now.lock().map(|now| now.clone()).unwrap_or_default();
                eprintln!("no progress for a minute at {at}");
                std::process::abort();
            }
            last = seen;
        }
    });
}

/// How many images a test damages: a million when it is optimised, or what
/// `POLYSHM_HOSTILE_IMAGES` says.
pub fn images_wanted() -> u64 {
    let default = if cfg!(debug_assertions) {
        20_000
    } else {
        1_000_000
    };
    std::env::var("POLYSHM_HOSTILE_IMAGES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
