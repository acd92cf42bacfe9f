//! How an endpoint is opened.

use crate::{Endpoint, Event, OpenError, event::Callback};
use polyshm_platform::{Mode, WaitStrategy};
use polyshm_wire::eshm::{DEFAULT_CAPACITY, DEFAULT_STALE_THRESHOLD_MS, ItemDialect};
use std::{fmt, sync::Arc, time::Duration};

/// Which end of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[doc(alias = "ESHM_ROLE_MASTER")]
pub enum Role {
    /// Creates the object, or takes over the one that a master left while a
    /// slave is attached.
    Master,
    /// Attaches to an object, and looks for the master again when it is gone.
    Slave,
    /// Master when there is no object, slave otherwise.
    #[default]
    Auto,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Slave => "slave",
            Self::Auto => "auto",
        })
    }
}

/// What an endpoint with threads does when the other side is stale. One without
/// threads does nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[doc(alias = "ESHM_DISCONNECT_IMMEDIATELY")]
pub enum DisconnectBehavior {
    /// Reads fail with [`ReadError::Stale`](crate::ReadError::Stale). A slave
    /// stays so; a master goes on when the slave is heard again.
    Immediately,
    /// A slave reconnects until its attempts or its time are used up.
    #[default]
    OnTimeout,
    /// A slave reconnects without end.
    Never,
}

/// How to open an [`Endpoint`]; every part has a default.
///
/// ```no_run
/// use polyshm_eshm::{DisconnectBehavior, Endpoint, Role};
/// use std::time::Duration;
///
/// let slave = Endpoint::builder()
///     .role(Role::Slave)
///     .disconnect_behavior(DisconnectBehavior::Never)
///     .connect_timeout(Duration::from_secs(5))
///     .open("robot")?;
/// # Ok::<(), polyshm_eshm::OpenError>(())
/// ```
#[derive(Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
#[doc(alias = "ESHMConfig")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each with its own method"
)]
#[must_use = "a builder does nothing until it opens an endpoint"]
pub struct EndpointBuilder {
    pub(crate) role: Role,
    pub(crate) disconnect_behavior: DisconnectBehavior,
    pub(crate) stale_threshold: Duration,
    pub(crate) own_threshold: Option<Duration>,
    pub(crate) reconnect_wait: Duration,
    pub(crate) reconnect_interval: Duration,
    pub(crate) reconnect_attempts: u32,
    pub(crate) auto_cleanup: bool,
    pub(crate) threads: bool,
    pub(crate) capacity: u64,
    pub(crate) read_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) wait_strategy: WaitStrategy,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) mode: Mode,
    pub(crate) share_role: bool,
    pub(crate) promote: bool,
    pub(crate) native_marks: bool,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) item_dialect: ItemDialect,
    pub(crate) lenient_items: bool,
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) callback: Option<Callback>,
}

impl Default for EndpointBuilder {
    fn default() -> Self {
        Self {
            role: Role::Auto,
            disconnect_behavior: DisconnectBehavior::OnTimeout,
            stale_threshold: Duration::from_millis(DEFAULT_STALE_THRESHOLD_MS.into()),
            own_threshold: None,
            reconnect_wait: Duration::from_secs(5),
            reconnect_interval: Duration::from_millis(100),
            reconnect_attempts: 50,
            auto_cleanup: true,
            threads: true,
            capacity: DEFAULT_CAPACITY,
            read_timeout: Duration::from_secs(1),
            connect_timeout: Duration::ZERO,
            wait_strategy: WaitStrategy::Adaptive,
            mode: Mode::ALL,
            share_role: false,
            promote: false,
            native_marks: true,
            item_dialect: ItemDialect::default(),
            lenient_items: false,
            callback: None,
        }
    }
}

impl fmt::Debug for EndpointBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("role", &self.role)
            .field("disconnect_behavior", &self.disconnect_behavior)
            .field("stale_threshold", &self.stale_threshold)
            .field("reconnect_wait", &self.reconnect_wait)
            .field("reconnect_interval", &self.reconnect_interval)
            .field("reconnect_attempts", &self.reconnect_attempts)
            .field("auto_cleanup", &self.auto_cleanup)
            .field("threads", &self.threads)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl EndpointBuilder {
    /// Which end; [`Role::Auto`] unless set.
    pub const fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// What to do when the other side is stale.
    pub const fn disconnect_behavior(mut self, behavior: DisconnectBehavior) -> Self {
        self.disconnect_behavior = behavior;
        self
    }

    /// After how long without a heartbeat the other side is stale; whole
    /// milliseconds, 100 ms unless set.
    ///
    /// Whoever creates the object stores it there, and both sides go by what
    /// is stored.
    #[doc(alias = "stale_threshold_ms")]
    pub const fn stale_threshold(mut self, threshold: Duration) -> Self {
        self.stale_threshold = threshold;
        self
    }

    /// Has this endpoint go by a threshold of its own, whatever is stored; at
    /// least 30 ms, since the other side beats for the stored one.
    pub const fn own_threshold(mut self, threshold: Duration) -> Self {
        self.own_threshold = Some(threshold);
        self
    }

    /// How long a slave looks for a master before it gives up; zero is without
    /// end. 5 s unless set.
    #[doc(alias = "reconnect_wait_ms")]
    pub const fn reconnect_wait(mut self, wait: Duration) -> Self {
        self.reconnect_wait = wait;
        self
    }

    /// Between two attempts to find a new object; 100 ms unless set. The old
    /// object is looked at more often.
    #[doc(alias = "reconnect_retry_interval_ms")]
    pub const fn reconnect_interval(mut self, interval: Duration) -> Self {
        self.reconnect_interval = interval;
        self
    }

    /// After how many attempts a slave gives up; 0 is without end. 50 unless
    /// set. The first of wait and attempts that is used up ends it.
    #[doc(alias = "max_reconnect_attempts")]
    pub const fn reconnect_attempts(mut self, attempts: u32) -> Self {
        self.reconnect_attempts = attempts;
        self
    }

    /// Whether a master removes the object when it closes; true unless set.
    ///
    /// One that took over somebody else's object leaves it while a slave is
    /// attached, which then finds the next master in it.
    pub const fn auto_cleanup(mut self, cleanup: bool) -> Self {
        self.auto_cleanup = cleanup;
        self
    }

    /// Whether the process's heartbeat thread serves this endpoint; true unless
    /// set. Without it, call
    /// [`Endpoint::update_heartbeat`](crate::Endpoint::update_heartbeat) now and
    /// then: a peer that saw a heartbeat before takes the endpoint for stale when
    /// none follows, and a peer of another implementation also when none came.
    ///
    /// In a program that forks, open endpoints after the fork.
    #[doc(alias = "use_threads")]
    pub const fn threads(mut self, threads: bool) -> Self {
        self.threads = threads;
        self
    }

    /// The longest message in bytes, from 1 to 2^30; 4096 unless set. Both
    /// sides must use the same: other implementations do not store it.
    #[doc(alias = "ESHM_MAX_DATA_SIZE")]
    pub const fn capacity(mut self, capacity: u64) -> Self {
        self.capacity = capacity;
        self
    }

    /// How long [`Endpoint::read`](crate::Endpoint::read) waits; 1 s unless set.
    pub const fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// How long a slave waits for the object to appear; not at all unless set.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How reads wait.
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.wait_strategy = strategy;
        self
    }

    /// The permission bits of an object that is created, subject to the umask;
    /// [`Mode::ALL`] unless set, as other implementations do.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether other slaves may be attached at the same time, as several readers
    /// of one master; false unless set, and without effect on a master. All of
    /// them must set it. Each reads every message, and their writes take turns
    /// by a lock of the system, which costs about a microsecond.
    pub const fn share_role(mut self, share: bool) -> Self {
        self.share_role = share;
        self
    }

    /// Whether a [`Role::Auto`] endpoint becomes master when there is an object
    /// but no living master, on opening and later; false unless set, as other
    /// implementations stay slaves.
    pub const fn promote(mut self, promote: bool) -> Self {
        self.promote = promote;
        self
    }

    /// Whether the endpoint leaves marks in bytes that other implementations
    /// ignore; true unless set. Without them its peer is not woken but looks
    /// each 100 µs, and processes are told apart by pid alone.
    pub const fn native_marks(mut self, marks: bool) -> Self {
        self.native_marks = marks;
        self
    }

    /// The form in which items are written; the one that C++ reads unless set.
    pub const fn item_dialect(mut self, dialect: ItemDialect) -> Self {
        self.item_dialect = dialect;
        self
    }

    /// Whether items are also read that break the format in ways the C++
    /// decoder tolerates; false unless set.
    pub const fn lenient_items(mut self, lenient: bool) -> Self {
        self.lenient_items = lenient;
        self
    }

    /// Called at every [`Event`]: on the heartbeat thread, or in the call that
    /// found it, such as [`Endpoint::reconnect`](crate::Endpoint::reconnect).
    ///
    /// It must return soon: all heartbeats of the process wait for it. It may
    /// use and close endpoints, and must not wait for a thread that does: the
    /// last one that is closed waits for the heartbeat thread. A call may still
    /// come while another thread closes the endpoint.
    pub fn on_event(mut self, callback: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.callback = Some(Arc::new(callback));
        self
    }

    /// Opens the endpoint.
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. A slave that waits for its master gives the error of
    /// its last attempt.
    #[doc(alias = "eshm_init")]
    pub fn open(self, name: &str) -> Result<Endpoint, OpenError> {
        Endpoint::open_with(name, self)
    }

    /// The threshold that a creator stores, in milliseconds.
    pub(crate) fn threshold_ms(&self) -> u32 {
        u32::try_from(self.stale_threshold.as_millis()).unwrap_or(u32::MAX)
    }
}
