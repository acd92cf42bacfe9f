//! What can go wrong, by what was attempted.

use polyshm_wire::zeroipc::{DTypeError, ImageError, LayoutError, NameError};
use std::{fmt, sync::Arc};

/// Which structure an error is about: its kind and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The kind, such as `queue`.
    pub what: &'static str,
    /// The name in the table.
    pub name: Arc<str>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.what, self.name)
    }
}

/// Why a segment or a structure could not be created, opened or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error(transparent)]
    System(#[from] polyshm_platform::Error),
    /// The segment is no ZeroIPC segment, or its table is damaged.
    #[error("segment {segment:?} is not usable as a ZeroIPC memory: have its creator make it anew")]
    Segment {
        /// The segment.
        segment: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The segment has no table yet, and nobody who is making one is known.
    #[error(
        "segment {segment:?} has no table: its creator is at work, or died at it; try again, or replace it"
    )]
    Unfinished {
        /// The segment.
        segment: Arc<str>,
    },
    /// Another process holds the segment's lock for too long.
    #[error(
        "the table of {segment:?} is locked by another process for over {seconds} s: look for a stopped one"
    )]
    Busy {
        /// The segment.
        segment: Arc<str>,
        /// How long was waited.
        seconds: u64,
    },
    /// The name cannot stand in the table.
    #[error("{name:?} cannot name a {what}: choose a shorter or plainer name")]
    Name {
        /// The kind of structure.
        what: &'static str,
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        source: NameError,
    },
    /// The table has no entry of that name.
    #[error("no {on} in segment {segment:?}: create it first, or check the spelling")]
    NotFound {
        /// What was looked for.
        on: Label,
        /// The segment.
        segment: Arc<str>,
    },
    /// The table has an entry of that name already.
    #[error("{on} exists in segment {segment:?} already: open it, or use another name")]
    AlreadyExists {
        /// What was to be created.
        on: Label,
        /// The segment.
        segment: Arc<str>,
    },
    /// The table has too few free slots.
    #[error(
        "no room for {on} in the table of {segment:?}: {needed} of its {slots} slots needed, {free} free; create the segment with a larger max_entries"
    )]
    TableFull {
        /// What was to be created.
        on: Label,
        /// The segment.
        segment: Arc<str>,
        /// Entries that the structure takes.
        needed: u32,
        /// Entries that are free.
        free: u32,
        /// Entries in all.
        slots: u32,
    },
    /// The structure cannot have that shape, or does not fit.
    #[error("{on} cannot be created in {segment:?}")]
    Layout {
        /// What was to be created.
        on: Label,
        /// The segment.
        segment: Arc<str>,
        /// Why not.
        source: LayoutError,
    },
    /// The entry is not what it was opened as, or its bytes are damaged.
    #[error("the entry cannot be opened as {on}: open it with the type that it was created with")]
    Structure {
        /// What it was opened as.
        on: Label,
        /// The field that does not agree.
        source: ImageError,
    },
    /// The element type given as text is none, or the value is none of it.
    #[error("the element type of {on} cannot be used")]
    DType {
        /// The structure.
        on: Label,
        /// What is wrong with it.
        source: DTypeError,
    },
    /// The structure is whole, but no safe operation on it is possible.
    #[error("{on} cannot be operated on: {reason}")]
    Unusable {
        /// The structure.
        on: Label,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// A process that does not know the lock wrote to the table meanwhile.
    #[error(
        "another implementation changed the table of {segment:?} while {on} was inserted: have one process create all structures"
    )]
    Interference {
        /// What was to be created.
        on: Label,
        /// The segment.
        segment: Arc<str>,
    },
}

impl Error {
    /// Whether nothing of that name exists, segment or structure.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        match self {
            Self::System(error) => error.is_not_found(),
            Self::NotFound { .. } => true,
            _ => false,
        }
    }

    /// Whether waiting may help: there is nothing of that name yet, or its
    /// creator is still at work.
    #[must_use]
    pub const fn is_not_yet(&self) -> bool {
        self.is_not_found() || matches!(self, Self::Unfinished { .. })
    }

    /// Whether that name is taken, by a segment or a structure.
    #[must_use]
    pub const fn is_already_exists(&self) -> bool {
        match self {
            Self::System(error) => error.is_already_exists(),
            Self::AlreadyExists { .. } => true,
            _ => false,
        }
    }
}

/// Why an operation on an open structure did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// The deadline passed.
    #[error("could not {attempt} {on} in time: wait longer, or look whether its peers live")]
    Timeout {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
    },
    /// A slot stays half-changed: who changed it died, or stands still.
    #[error(
        "could not {attempt} {on}: slot {slot} is half-changed by a process that died or stands still; stop the users and call repair()"
    )]
    Stuck {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
        /// The slot.
        slot: u32,
    },
    /// The structure was closed by one of its users.
    #[error("could not {attempt} {on}: it is closed")]
    Closed {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
    },
    /// The process that was to finish died on the way.
    #[error("could not {attempt} {on}: the process that was at it died; {hint}")]
    HolderDied {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
        /// What to do.
        hint: &'static str,
    },
    /// It is held by nobody who is known: a process of another implementation,
    /// or one that died in the very moment of taking it.
    #[error("could not {attempt} {on}: its holder does not say who it is and may be dead; {hint}")]
    HolderUnknown {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
        /// What to do.
        hint: &'static str,
    },
    /// A count would exceed its limit.
    #[error("could not {attempt} {on}: it is at its limit of {limit}")]
    Overflow {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
        /// The limit.
        limit: i32,
    },
    /// It was decided before.
    #[error("could not {attempt} {on}: that was done before")]
    AlreadyDone {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
    },
    /// It was computed, and failed.
    #[error("{on} failed: {message}")]
    Failed {
        /// What failed.
        on: Label,
        /// The text that its computing side left.
        message: String,
    },
    /// A number in the segment cannot be.
    #[error("could not {attempt} {on}: {field} is {found}; have its creator make it anew")]
    Damaged {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        on: Label,
        /// The field.
        field: &'static str,
        /// What it held.
        found: u64,
    },
}

impl OpError {
    /// Whether the deadline passed, whatever the reason.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::HolderUnknown { .. })
    }

    /// Whether a slot stays half-changed.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        matches!(self, Self::Stuck { .. })
    }

    /// Whether the structure was closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

/// An element that was not taken, and why.
#[derive(Clone, PartialEq, Eq)]
pub struct Refused<T> {
    /// What was to be taken.
    pub value: T,
    /// Why it was not.
    pub error: OpError,
}

impl<T> fmt::Debug for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> std::error::Error for Refused<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // Shown already; its own cause is what comes next.
        std::error::Error::source(&self.error)
    }
}

/// An element that did not fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<T>(pub T);

impl<T> Full<T> {
    /// The element.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Full(..)")
    }
}

impl<T> fmt::Display for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it is full: take elements out first, or wait for room")
    }
}

impl<T> std::error::Error for Full<T> {}
