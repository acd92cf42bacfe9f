//! What happens to the connection.

use parking_lot::{Condvar, Mutex};
use polyshm_platform::Deadline;
use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

/// A change of the connection, as one endpoint sees it.
///
/// Each is also a `tracing` event of target `polyshm_eshm`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Event {
    /// The other side was seen for the first time.
    Joined,
    /// The other side's heartbeat stands still, or it has left.
    Stale {
        /// For how long nothing was heard.
        silent_for: Duration,
        /// It closed its endpoint, rather than died or froze.
        closed: bool,
    },
    /// The other side, which was stale, is heard again.
    Recovered,
    /// A slave looks for a master.
    Reconnecting {
        /// The number of the attempt; the first is 1.
        attempt: u32,
        /// The last that will be made; `None` without an end.
        limit: Option<u32>,
    },
    /// A slave has a master again.
    Reconnected {
        /// After how many attempts; 0 when its own object came back to life
        /// before the first.
        attempts: u32,
        /// The master created the object anew: counters start again.
        recreated: bool,
    },
    /// A slave stops looking for a master.
    GaveUp {
        /// After how many attempts.
        attempts: u32,
        /// After how long.
        waited: Duration,
    },
    /// An automatic endpoint, slave so far, became master.
    Promoted,
    /// Another process has taken this endpoint's role. A slave takes it again
    /// when that process has left.
    Displaced {
        /// The process.
        pid: i32,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => f.write_str("the other side is there"),
            Self::Stale {
                silent_for,
                closed: false,
            } => write!(f, "the other side is stale, silent for {silent_for:.1?}"),
            Self::Stale { closed: true, .. } => f.write_str("the other side has closed"),
            Self::Recovered => f.write_str("the other side is heard again"),
            Self::Reconnecting {
                attempt,
                limit: Some(limit),
            } => write!(f, "reconnecting, attempt {attempt} of {limit}"),
            Self::Reconnecting { attempt, .. } => write!(f, "reconnecting, attempt {attempt}"),
            Self::Reconnected {
                attempts,
                recreated,
            } => {
                let how = if *recreated {
                    "a new object"
                } else {
                    "the same object"
                };
                write!(f, "reconnected to {how} after {attempts} attempts")
            }
            Self::GaveUp { attempts, waited } => {
                write!(f, "gave up after {attempts} attempts in {waited:.1?}")
            }
            Self::Promoted => f.write_str("became master"),
            Self::Displaced { pid } => write!(f, "process {pid} has taken this role"),
        }
    }
}

/// What a callback is: see
/// [`EndpointBuilder::on_event`](crate::EndpointBuilder::on_event).
pub(crate) type Callback = Arc<dyn Fn(&Event) + Send + Sync>;

/// Who is told.
pub(crate) struct Listeners {
    callback: Option<Callback>,
    /// `None` once closed.
    queues: Mutex<Option<Vec<Arc<Queue>>>>,
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}

impl Listeners {
    pub(crate) fn new(callback: Option<Callback>) -> Self {
        Self {
            callback,
            queues: Mutex::new(Some(Vec::new())),
        }
    }

    pub(crate) fn subscribe(&self) -> Events {
        let queue = Arc::new(Queue::default());
        match &mut *self.queues.lock() {
            Some(queues) => {
                queues.retain(|queue| Arc::strong_count(queue) > 1);
                queues.push(Arc::clone(&queue));
            }
            None => queue.state.lock().closed = true,
        }
        Events(queue)
    }

    /// Tells everybody. No lock of the endpoint is held: a callback may use it.
    pub(crate) fn tell(&self, name: &str, event: &Event) {
        tracing::info!(target: "polyshm_eshm", name, ?event, "{event}");
        if let Some(queues) = &mut *self.queues.lock() {
            queues.retain(|queue| {
                // The other count is the receiver's.
                let heard = Arc::strong_count(queue) > 1;
                if heard {
                    queue.push(event.clone());
                }
                heard
            });
        }
        if let Some(callback) = &self.callback {
            let call = std::panic::AssertUnwindSafe(|| callback(event));
            if std::panic::catch_unwind(call).is_err() {
                // Other endpoints of the process depend on this thread.
                tracing::error!(target: "polyshm_eshm", name, "the event callback panicked");
            }
        }
    }

    /// Nothing will come any more.
    pub(crate) fn close(&self) {
        for queue in self.queues.lock().take().into_iter().flatten() {
            queue.state.lock().closed = true;
            queue.changed.notify_all();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Event>,
    missed: u64,
    closed: bool,
}

impl Queue {
    /// Beyond these the oldest are dropped: nobody may be listening.
    const LIMIT: usize = 1024;

    fn push(&self, event: Event) {
        let mut state = self.state.lock();
        if state.events.len() == Self::LIMIT {
            state.events.pop_front();
            state.missed += 1;
        }
        state.events.push_back(event);
        self.changed.notify_all();
    }
}

/// The events of an endpoint since this was asked for, in order.
///
/// It keeps the last 1024 that were not taken. Made by
/// [`Endpoint::events`](crate::Endpoint::events).
#[derive(Debug)]
pub struct Events(Arc<Queue>);

impl Events {
    /// The next event, when there is one.
    pub fn try_next(&self) -> Option<Event> {
        self.0.state.lock().events.pop_front()
    }

    /// The next event; waits for it. `None` when the time is over, or when the
    /// endpoint is closed and all its events were taken.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let deadline = Deadline::after(timeout);
        let mut state = self.0.state.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                return Some(event);
            }
            if state.closed {
                return None;
            }
            match deadline.remaining() {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    self.0.changed.wait_for(&mut state, left);
                }
                None => self.0.changed.wait(&mut state),
            }
        }
    }

    /// How many events were dropped because they were not taken in time.
    pub fn missed(&self) -> u64 {
        self.0.state.lock().missed
    }
}

/// Waits for each event; ends when the endpoint is closed.
impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_timeout(Duration::MAX)
    }
}
