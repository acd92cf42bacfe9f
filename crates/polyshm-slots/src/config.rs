//! How a segment is created, opened and used.

use polyshm_platform::{Mode, WaitStrategy};
use std::time::Duration;

/// What is done when somebody else removes the segment's name: a Python
/// process does so when it ends, since its resource tracker takes every segment
/// that it opened for its own (format, section 1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnUnlink {
    /// The creator gives the segment its name back; others, and creators where
    /// the system cannot (only Linux can), report it.
    ///
    /// The creator keeps a second name for that, which starts with
    /// `polyshm-kept.`, until it closes.
    #[default]
    Restore,
    /// Writes fail with [`WriteError::Unlinked`](crate::WriteError::Unlinked),
    /// and reads that find nothing with
    /// [`ReadError::Unlinked`](crate::ReadError::Unlinked).
    Report,
    /// Go on: who has the segment open keeps it.
    Ignore,
}

/// Which segment of the same name a creator replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Replace {
    /// None: creating fails.
    #[default]
    Never,
    /// One whose creator is known to be dead: it has our trailer. Others are
    /// left alone.
    Abandoned,
    /// Any. Who has it open keeps the old one.
    Always,
}

/// What a FIFO's writer does when there is no room (format, section 5.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnFull {
    /// Overwrites the oldest item, as the original does. Readers know how many
    /// they lost.
    #[default]
    Overwrite,
    /// Waits for readers to make room: for those that read by
    /// [`Reading::Registered`] and [`Reading::Shared`], or, without any, for the
    /// shared read index, which Python readers move. Nobody waits for
    /// [`Reading::Broadcast`].
    Block,
    /// Fails with [`WriteError::Full`](crate::WriteError::Full).
    Refuse,
}

/// How a handle reads a FIFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reading {
    /// At its own pace, every reader every item. Nobody waits for it; what was
    /// overwritten before it came is counted.
    #[default]
    Broadcast,
    /// As [`Broadcast`](Self::Broadcast), and writers that do not overwrite
    /// wait for it. Needs the native trailer.
    Registered,
    /// Takes items for all that read so: each goes to one of them. Without the
    /// native trailer there may be only one such reader. The shared
    /// read index is the original's, so that a Python process can be the
    /// writer, or, with the original's losses, another consumer.
    Shared,
}

/// How a segment is created, opened and used; for
/// [`SlotStore`](crate::SlotStore) and [`SlotFifo`](crate::SlotFifo).
///
/// ```
/// use polyshm_slots::{OnFull, Options};
/// use std::time::Duration;
///
/// let options = Options::new()
///     .open_timeout(Duration::from_secs(1))
///     .on_full(OnFull::Block);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Options {
    pub(crate) mode: Mode,
    pub(crate) trailer: bool,
    pub(crate) buffered: bool,
    pub(crate) replace: Replace,
    pub(crate) on_unlink: OnUnlink,
    pub(crate) open_timeout: Duration,
    pub(crate) any_length: bool,
    pub(crate) strategy: WaitStrategy,
    pub(crate) lock_timeout: Duration,
    pub(crate) on_full: OnFull,
    pub(crate) full_timeout: Option<Duration>,
    pub(crate) reading: Reading,
    pub(crate) foreign_consumer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::OWNER,
            trailer: true,
            buffered: true,
            replace: Replace::Never,
            on_unlink: OnUnlink::Restore,
            open_timeout: Duration::ZERO,
            any_length: false,
            strategy: WaitStrategy::Adaptive,
            lock_timeout: Duration::from_secs(1),
            on_full: OnFull::Overwrite,
            full_timeout: None,
            reading: Reading::Broadcast,
            foreign_consumer: false,
        }
    }
}

impl Options {
    /// The defaults, as each method tells them.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rights of a segment that is created; 0600, as the original's.
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Whether a segment that is created has the native trailer: bytes behind
    /// the format's own, which other implementations do not look at. On.
    ///
    /// Without it a segment is the original's to the last byte, and has no
    /// identification, no wake-ups, no buffers and no exact change counts; its
    /// writers exclude each other by a file lock, at a microsecond per write.
    pub const fn trailer(mut self, trailer: bool) -> Self {
        self.trailer = trailer;
        self
    }

    /// Whether a single-slot segment that is created has two more places for
    /// its record, so that readers get it whole however fast it is written. On.
    ///
    /// The writer copies a record there only when a reader asks, after it found
    /// the record under way twice.
    pub const fn buffered(mut self, buffered: bool) -> Self {
        self.buffered = buffered;
        self
    }

    /// Which segment of the same name a creator replaces; none.
    pub const fn replace(mut self, replace: Replace) -> Self {
        self.replace = replace;
        self
    }

    /// What is done when somebody removes the segment's name.
    ///
    /// The name is looked at about ten times per second of writing, and when a
    /// read with a timeout found nothing.
    pub const fn on_unlink(mut self, on_unlink: OnUnlink) -> Self {
        self.on_unlink = on_unlink;
        self
    }

    /// How long opening waits for a segment that is not there; not at all.
    pub const fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = timeout;
        self
    }

    /// Whether a segment without a trailer may be longer than its schema and
    /// slots ask for, as the original allows; no. Otherwise its length is the
    /// one thing that tells a wrong schema.
    pub const fn any_length(mut self, any_length: bool) -> Self {
        self.any_length = any_length;
        self
    }

    /// How reads and blocking writes wait.
    pub const fn wait_strategy(mut self, strategy: WaitStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// How long a write waits for another writer, which a stopped process can
    /// draw out; one second.
    pub const fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// What a FIFO's writer does when there is no room.
    pub const fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// How long [`OnFull::Block`] waits before it gives
    /// [`WriteError::Full`](crate::WriteError::Full); without end.
    pub const fn full_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.full_timeout = timeout;
        self
    }

    /// How a FIFO is read.
    pub const fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// Whether a FIFO's writer that does not overwrite waits for a Python
    /// reader although readers of ours are registered; no. Without registered
    /// readers it always does.
    pub const fn foreign_consumer(mut self, foreign_consumer: bool) -> Self {
        self.foreign_consumer = foreign_consumer;
        self
    }
}
