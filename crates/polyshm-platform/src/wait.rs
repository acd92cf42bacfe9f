//! Waiting: spin briefly, then park, always in bounded slices.

use crate::{
    Deadline, Pace, Word32,
    sync::{Ordering, fence, spin_loop},
    sys,
};
use std::time::Duration;

/// The longest time between two looks at whether a peer lives, and the longest
/// sleep: a foreign peer may never wake us.
pub const LIVENESS_SLICE: Duration = Duration::from_millis(100);

/// How a waiting thread spends its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitStrategy {
    /// Poll without end: the lowest latency, one core in full.
    Spin,
    /// Poll for some 50 µs, then sleep until woken: near-spin latency while
    /// data flow, no load when idle.
    #[default]
    Adaptive,
    /// Sleep at once: the least load, a wake-up's latency each time.
    Block,
}

/// What a [`Waiter`] waits for.
pub trait WaitSource {
    /// What comes.
    type Output;
    /// Why it cannot come any more.
    type Error;

    /// Looks once; no system call.
    ///
    /// # Errors
    ///
    /// It cannot come any more.
    fn poll(&mut self) -> Result<Option<Self::Output>, Self::Error>;

    /// Sleeps until woken or until the deadline, and looks again.
    ///
    /// # Errors
    ///
    /// It cannot come any more.
    fn park(&mut self, until: Deadline) -> Result<Option<Self::Output>, Self::Error>;

    /// Looks for cheap signs that nothing will come, once when the first poll
    /// gave nothing; no system call.
    ///
    /// # Errors
    ///
    /// It cannot come any more.
    fn glance(&mut self) -> Result<Option<Self::Output>, Self::Error>;

    /// Looks whether the peer lives; if it does not, looks a last time for what
    /// it left. Called each [`LIVENESS_SLICE`] of waiting, and once before
    /// giving up.
    ///
    /// # Errors
    ///
    /// The peer is gone and left nothing.
    fn check(&mut self) -> Result<Option<Self::Output>, Self::Error>;
}

/// Waits as a [`WaitStrategy`] says. Holds only the strategy.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    strategy: WaitStrategy,
    /// Whether to poll before parking. Not with one core: the peer cannot run
    /// meanwhile.
    spin: bool,
}

impl Waiter {
    /// Polls before the first look at the clock: half a microsecond or so.
    const FIRST: u32 = 32;
    /// Polls between two looks at the clock.
    const BATCH: u32 = 256;
    /// How long an adaptive wait polls.
    const SPIN_TIME: Duration = Duration::from_micros(50);

    /// A waiter for this machine. Asks the system once for its processors.
    #[must_use]
    pub fn new(strategy: WaitStrategy) -> Self {
        let spin = match strategy {
            WaitStrategy::Spin => true,
            WaitStrategy::Adaptive => sys::processors() > 1,
            WaitStrategy::Block => false,
        };
        Self { strategy, spin }
    }

    /// The strategy.
    #[must_use]
    pub const fn strategy(self) -> WaitStrategy {
        self.strategy
    }

    /// Waits until the source gives something or the deadline passes (`None`).
    ///
    /// The source is polled at least once, also with an expired deadline. No
    /// clock is read when the first polls succeed.
    ///
    /// # Errors
    ///
    /// The source's own.
    #[inline]
    pub fn wait<S: WaitSource>(
        self,
        source: &mut S,
        deadline: impl Into<Deadline>,
    ) -> Result<Option<S::Output>, S::Error> {
        if let Some(found) = source.poll()? {
            return Ok(Some(found));
        }
        self.wait_slow(source, deadline)
    }

    #[cold]
    fn wait_slow<S: WaitSource>(
        self,
        source: &mut S,
        deadline: impl Into<Deadline>,
    ) -> Result<Option<S::Output>, S::Error> {
        if let Some(found) = source.glance()? {
            return Ok(Some(found));
        }
        if self.spin && !cfg!(loom) {
            // A peer that answers at once has done so before a clock was read.
            for _ in 0..Self::FIRST {
                spin_loop();
                if let Some(found) = source.poll()? {
                    return Ok(Some(found));
                }
            }
        }
        // A timeout becomes a deadline only here: what is there already, or soon,
        // costs no look at the clock.
        let deadline = deadline.into();
        let mut pace = Pace::new(LIVENESS_SLICE);
        let spin_end = Deadline::after(Self::SPIN_TIME);
        // In a model time stands still: park at once.
        let mut spinning = self.spin && !deadline.expired() && !cfg!(loom);
        loop {
            if spinning {
                for _ in 0..Self::BATCH {
                    if let Some(found) = source.poll()? {
                        return Ok(Some(found));
                    }
                    spin_loop();
                }
            }
            if deadline.expired() {
                if let Some(found) = source.check()? {
                    return Ok(Some(found));
                }
                // The last word is the source's: what came meanwhile counts.
                return source.poll();
            }
            if pace.is_due()
                && let Some(found) = source.check()?
            {
                return Ok(Some(found));
            }
            if spinning && self.strategy == WaitStrategy::Adaptive {
                spinning = !spin_end.expired();
            }
            if !spinning && let Some(found) = source.park(deadline.at_most(LIVENESS_SLICE))? {
                return Ok(Some(found));
            }
        }
    }
}

/// A word that peers sleep on, and beside it the number of sleepers, so that
/// who changes the word makes no system call when nobody sleeps.
///
/// Both words are shared. A sleeper that dies leaves its count behind: that
/// costs system calls, never a lost wake-up.
///
/// ```
/// use polyshm_platform::{Deadline, Region, WakeWord, sync::Ordering};
/// use std::time::Duration;
///
/// let region = Region::heap(64);
/// let (value, sleepers) = (region.word32(0)?, region.word32(4)?);
/// let ready = WakeWord::new(value.clone(), sleepers);
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         while value.load(Ordering::Acquire) == 0 {
///             ready.sleep(0, Deadline::after(Duration::from_millis(100)));
///         }
///     });
///     value.store(1, Ordering::Release);
///     ready.wake(u32::MAX);
/// });
/// # Ok::<(), polyshm_platform::InvalidWord>(())
/// ```
#[derive(Clone, Debug)]
pub struct WakeWord {
    word: Word32,
    sleepers: Word32,
}

impl WakeWord {
    /// Waits on `word`; counts in `sleepers`.
    #[must_use]
    pub const fn new(word: Word32, sleepers: Word32) -> Self {
        Self { word, sleepers }
    }

    /// Sleeps while the word is `expected`, at most until the deadline or
    /// [`LIVENESS_SLICE`]. May return early: look at the word again.
    pub fn sleep(&self, expected: u32, deadline: Deadline) {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `wake`. Either the waker sees our
        // count, or we see its change of the word.
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Relaxed) == expected {
            self.word.sleep_while(expected, deadline);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Wakes up to `count` sleepers, after the word was changed.
    pub fn wake(&self, count: u32) {
        // SeqCst: pairs with the fence in `sleep`.
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.word.wake(count);
        }
    }
}
