//! How often something slow is done beside something fast.

use std::time::{Duration, Instant};

/// Counts calls, and is due about ten times per second of them, without a look
/// at the clock at each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stride {
    left: u32,
    length: u32,
    last: Option<Instant>,
}

impl Stride {
    const WANTED: Duration = Duration::from_millis(100);
    /// So late may a writer that became slow notice, in calls.
    const LONGEST: u32 = 255;

    #[inline]
    pub(crate) fn is_due(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => self.turn(),
        }
    }

    /// Makes the next stride longer or shorter, by how long this one took.
    #[cold]
    #[inline(never)]
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        let Some(last) = self.last else {
            self.last = Some(now);
            return false;
        };
        let took = now.duration_since(last);
        if took > Self::WANTED * 2 {
            let slower = took.as_millis() / Self::WANTED.as_millis();
            self.length = (u128::from(self.length) / slower.max(1)) as u32;
        } else if took < Self::WANTED / 2 {
            self.length = (self.length * 2 + 1).min(Self::LONGEST);
        }
        self.left = self.length;
        // Strides that turn out far too short do nothing but grow.
        if took < Self::WANTED / 2 {
            return false;
        }
        self.last = Some(now);
        true
    }
}
