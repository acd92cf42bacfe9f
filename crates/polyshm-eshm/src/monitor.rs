//! Whether the other side lives, by its heartbeat (format, sections 5.2 and 10).

use crate::{Event, Role, attachment::SideWords};
use polyshm_platform::sync::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Remote {
    /// Nobody was seen there since this endpoint attached.
    NeverSeen,
    /// Its heartbeat moves; or it has none, and its process exists.
    Alive,
    /// Its heartbeat stood still for the stale threshold, or its process is
    /// gone.
    Stale,
    /// It closed its endpoint.
    Closed,
}

impl Remote {
    /// Whether somebody is there and lives.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Alive)
    }
}

/// What one look changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Seen for the first time.
    Joined,
    /// Heard again after it was stale or had left.
    Heard,
    Silent {
        silent_for: Duration,
    },
    Left {
        silent_for: Duration,
    },
}

impl Change {
    pub(crate) fn event(self) -> Event {
        match self {
            Self::Joined => Event::Joined,
            Self::Heard => Event::Recovered,
            Self::Silent { silent_for } => Event::Stale {
                silent_for,
                closed: false,
            },
            Self::Left { silent_for } => Event::Stale {
                silent_for,
                closed: true,
            },
        }
    }
}

/// Watches one heartbeat.
#[derive(Debug)]
pub(crate) struct Monitor {
    last: u64,
    remote: Remote,
    /// Time without a movement.
    silent: Duration,
    looked_at: Instant,
    /// When to ask the system for the process of a side without a heartbeat.
    probe_at: Instant,
}

impl Monitor {
    /// A threshold below this would take every late look for a death.
    const LEAST_THRESHOLD: Duration = Duration::from_millis(2);
    /// Two and a half of the longest steps: a living side beats once within.
    const LEFT_AFTER: Duration = Duration::from_millis(25);
    const PROBE_INTERVAL: Duration = Duration::from_millis(10);

    pub(crate) fn new(side: &SideWords) -> Self {
        let now = Instant::now();
        Self {
            last: side.heartbeat.load(Relaxed),
            remote: Remote::NeverSeen,
            silent: Duration::ZERO,
            looked_at: now,
            probe_at: now,
        }
    }

    /// Of a slave whose new master was found alive; of a new master nobody was
    /// seen yet.
    pub(crate) fn after_reconnection(side: &SideWords, role: Role) -> Self {
        let mut monitor = Self::new(side);
        if role == Role::Slave {
            monitor.remote = Remote::Alive;
        }
        monitor
    }

    /// Whether heartbeats are missing, or there never were any.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent >= Self::LEFT_AFTER
    }

    pub(crate) fn remote(&self) -> Remote {
        self.remote
    }

    /// One look. `steady` says that looks come ten times in each threshold: then a
    /// longer pause was this process's own, and hardly counts.
    pub(crate) fn observe(
        &mut self,
        side: &SideWords,
        role: Role,
        threshold: Duration,
        steady: bool,
        now: Instant,
    ) -> Option<Change> {
        let threshold = threshold.max(Self::LEAST_THRESHOLD);
        let mut elapsed = now - self.looked_at;
        if steady {
            elapsed = elapsed.min((threshold / 4).max(Duration::from_millis(1)));
        }
        self.looked_at = now;

        let heartbeat = side.heartbeat.load(Relaxed);
        if heartbeat != self.last {
            self.last = heartbeat;
            return self.heard();
        }
        self.silent = self.silent.saturating_add(elapsed);
        // A side that never beat has no heartbeat thread, or only just started.
        let silent_by_nature = heartbeat == 0 && side.is_attached();
        if self.remote != Remote::Alive && silent_by_nature && self.probe(side, now) {
            return self.heard();
        }
        match self.remote {
            // A cleared flag alone is not enough: with several slaves the next
            // beat of another sets it again.
            Remote::Alive
                if !side.is_attached() && self.silent >= (threshold / 4).min(Self::LEFT_AFTER) =>
            {
                self.remote = Remote::Closed;
                Some(Change::Left {
                    silent_for: self.silent,
                })
            }
            Remote::Alive if self.silent >= threshold => {
                if silent_by_nature && side.exists() {
                    self.silent = Duration::ZERO;
                    return None;
                }
                Some(self.silent())
            }
            // A slave came to an object whose master is gone.
            Remote::NeverSeen if role == Role::Slave && self.silent >= threshold => {
                Some(self.silent())
            }
            _ => None,
        }
    }

    fn heard(&mut self) -> Option<Change> {
        self.silent = Duration::ZERO;
        let before = std::mem::replace(&mut self.remote, Remote::Alive);
        match before {
            Remote::NeverSeen => Some(Change::Joined),
            Remote::Stale | Remote::Closed => Some(Change::Heard),
            Remote::Alive => None,
        }
    }

    fn silent(&mut self) -> Change {
        self.remote = Remote::Stale;
        Change::Silent {
            silent_for: self.silent,
        }
    }

    /// Whether the process exists; asked now and then only.
    fn probe(&mut self, side: &SideWords, now: Instant) -> bool {
        if now < self.probe_at {
            return false;
        }
        self.probe_at = now + Self::PROBE_INTERVAL;
        side.exists()
    }
}
