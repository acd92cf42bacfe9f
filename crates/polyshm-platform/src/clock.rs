//! Monotonic deadlines.

use std::time::{Duration, Instant};

/// A moment on the monotonic clock at which waiting ends, or never.
///
/// ```
/// use polyshm_platform::Deadline;
/// use std::time::Duration;
///
/// assert!(Deadline::now().expired());
/// assert!(!Deadline::after(Duration::from_secs(60)).expired());
/// assert_eq!(Deadline::never().remaining(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No end.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// This very moment: try once, do not wait.
    #[must_use]
    pub fn now() -> Self {
        Self(Some(Instant::now()))
    }

    /// `timeout` from now. A sum beyond the clock's range is [`Deadline::never`].
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        // In a model no time passes, so a timeout that is not zero never ends.
        if cfg!(loom) && !timeout.is_zero() {
            return Self::never();
        }
        Self(Instant::now().checked_add(timeout))
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.0.is_some_and(|at| Instant::now() >= at)
    }

    /// The time left; `None` without an end, zero when expired.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The earlier of this deadline and `limit` from now.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> Self {
        let capped = Self::after(limit);
        match (self.0, capped.0) {
            (Some(own), Some(cap)) => Self(Some(own.min(cap))),
            (Some(_), None) => *self,
            (None, _) => capped,
        }
    }
}

impl From<Duration> for Deadline {
    fn from(timeout: Duration) -> Self {
        Self::after(timeout)
    }
}

/// Says when enough time has passed since the last yes: for looks at a peer
/// that cost system calls.
///
/// ```
/// use polyshm_platform::Pace;
/// use std::time::Duration;
///
/// let mut pace = Pace::new(Duration::from_secs(60));
/// assert!(!pace.is_due(), "it starts now");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    last: Instant,
}

impl Pace {
    /// The first yes comes `interval` from now.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Instant::now(),
        }
    }

    /// Whether the interval has passed; a yes starts the next one.
    ///
    /// In a model no time passes and it never is.
    pub fn is_due(&mut self) -> bool {
        if cfg!(loom) {
            return false;
        }
        let now = Instant::now();
        let due = now.duration_since(self.last) >= self.interval;
        if due {
            self.last = now;
        }
        due
    }
}
