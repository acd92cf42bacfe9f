//! What can go wrong, one type per operation.
//!
//! A message says what was attempted, on which segment, and what to do; the
//! cause is in `source()`.

use polyshm_platform as platform;
use polyshm_wire::slots as wire;
use std::{io, sync::Arc};

/// Why a value was not taken for a field. Nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The record has no field of that name.
    #[error("the record has no field {field:?}: its fields are {schema}")]
    UnknownField {
        /// The name.
        field: String,
        /// The record's schema.
        schema: String,
    },
    /// The field cannot hold the value.
    #[error("field {field:?} cannot hold the value: give it one that it can")]
    Refused {
        /// The field's name.
        field: String,
        /// Why.
        source: wire::ValueError,
    },
}

/// Why a segment could not be created or opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The record cannot be laid out so: no slots, or too large.
    #[error("segment {name:?} cannot be laid out: choose other fields, or another number of slots")]
    Layout {
        /// The segment's name.
        name: Arc<str>,
        /// The rule broken.
        source: wire::LayoutError,
    },
    /// A FIFO of fewer than two slots.
    #[error("FIFO {name:?} cannot have {slots} slots: choose at least 2, or use a store")]
    TooFewSlots {
        /// The segment's name.
        name: Arc<str>,
        /// The slots asked for.
        slots: u64,
    },
    /// There is a segment of this name.
    #[error("segment {name:?} exists: open it, remove it, or create it with `replace`")]
    AlreadyExists {
        /// The segment's name.
        name: Arc<str>,
    },
    /// There is a segment of this name, and its creator lives.
    #[error(
        "segment {name:?} exists and its creator (process {pid}) lives: close that first, or use another name"
    )]
    OwnerAlive {
        /// The segment's name.
        name: Arc<str>,
        /// The creator.
        pid: u32,
    },
    /// There is no segment of this name.
    #[error(
        "there is no segment {name:?}: start the process that creates it, or set an open timeout"
    )]
    NotFound {
        /// The segment's name.
        name: Arc<str>,
    },
    /// The segment is being created, or its creator died at it.
    #[error("segment {name:?} is not complete: try again; if it stays so, remove it")]
    NotReady {
        /// The segment's name.
        name: Arc<str>,
    },
    /// The segment has another schema, another number of slots, or is none.
    #[error("segment {name:?} does not fit: open it with the schema and slots it was created with")]
    Mismatch {
        /// The segment's name.
        name: Arc<str>,
        /// What differs.
        source: wire::ImageError,
    },
    /// The segment is not as long as the schema and the slots ask for, and
    /// nothing in it tells its own.
    #[error(
        "segment {name:?} has {len} bytes, and this schema and number of slots make {expected}: open it with its own, or with `any_length`"
    )]
    Length {
        /// The segment's name.
        name: Arc<str>,
        /// The segment's length.
        len: u64,
        /// The length that the schema and the slots make.
        expected: u64,
    },
    /// The segment does not tell its schema: another implementation, or one
    /// without the native trailer, created it.
    #[error("segment {name:?} does not tell its schema: open it with one")]
    NoSchema {
        /// The segment's name.
        name: Arc<str>,
    },
    /// A FIFO has more registered readers than there are places.
    #[error(
        "segment {name:?} has {limit} registered readers already: close one, or read without registering"
    )]
    TooManyReaders {
        /// The segment's name.
        name: Arc<str>,
        /// The places.
        limit: usize,
    },
    /// What was asked for needs the native trailer, which this segment has not.
    #[error(
        "segment {name:?} has no native trailer, which {what} needs: create it with polyshm, trailer on"
    )]
    NeedsTrailer {
        /// The segment's name.
        name: Arc<str>,
        /// What.
        what: &'static str,
    },
    /// The writers' lock was held too long.
    #[error("segment {name:?} is locked by process {pid}: look for a stopped one, and try again")]
    Busy {
        /// The segment's name.
        name: Arc<str>,
        /// The holder; 0 when it is not known.
        pid: u32,
    },
    /// The operating system refused a step; nothing was left behind.
    #[error("segment {name:?} cannot be opened: the system refused a step")]
    System {
        /// The segment's name.
        name: Arc<str>,
        /// The step.
        source: platform::Error,
    },
}

impl OpenError {
    /// Whether a later attempt may succeed without anybody's doing here.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::NotReady { .. } | Self::Busy { .. }
        )
    }
}

/// Why nothing was written. No reader sees anything of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A value does not fit its field.
    #[error("nothing was written to segment {name:?}: correct the value")]
    Value {
        /// The segment's name.
        name: Arc<str>,
        /// Which, and why.
        source: ValueError,
    },
    /// Another writer held the segment too long.
    #[error(
        "process {pid} holds segment {name:?} in the middle of a write: look for a stopped one, and write again"
    )]
    Busy {
        /// The segment's name.
        name: Arc<str>,
        /// The holder; 0 when it is not known.
        pid: u32,
    },
    /// The FIFO has no room, and is not to overwrite. What was staged stays.
    #[error("FIFO {name:?} is full: read items, and finalize again")]
    Full {
        /// The segment's name.
        name: Arc<str>,
    },
    /// Somebody removed the segment's name: nobody can open it any more.
    #[error("the name of segment {name:?} was removed, {hint}")]
    Unlinked {
        /// The segment's name.
        name: Arc<str>,
        /// What to do.
        hint: &'static str,
    },
    /// The operating system refused a step.
    #[error("segment {name:?} cannot be written: the system refused a step")]
    System {
        /// The segment's name.
        name: Arc<str>,
        /// The step.
        source: platform::Error,
    },
}

impl WriteError {
    /// Whether the FIFO was full.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Why nothing was read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing new came in time.
    #[error("nothing new in segment {name:?} within the timeout: read again")]
    Timeout {
        /// The segment's name.
        name: Arc<str>,
    },
    /// A write was under way all the time.
    #[error(
        "a write to segment {name:?} did not end within the timeout: read again; if its writer is gone, the next write mends it"
    )]
    Busy {
        /// The segment's name.
        name: Arc<str>,
    },
    /// The writer died in the middle of a write. The next writer repairs it.
    #[error(
        "process {pid} died writing segment {name:?}: the next write repairs it, or `repair` of a store, `republish` of a FIFO"
    )]
    WriterDied {
        /// The segment's name.
        name: Arc<str>,
        /// The process.
        pid: u32,
    },
    /// The segment has no name any more, and nothing came in time: a new one
    /// may have it.
    #[error("nothing new in segment {name:?}, whose name was removed: open it anew")]
    Unlinked {
        /// The segment's name.
        name: Arc<str>,
    },
}

impl ReadError {
    /// Whether only time ran out.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Busy { .. })
    }
}

/// Why a segment was not removed or looked at.
#[derive(Debug, thiserror::Error)]
#[error("segment {name:?} cannot be {what}: the system refused a step")]
pub struct NameError {
    pub(crate) name: Arc<str>,
    pub(crate) what: &'static str,
    pub(crate) source: platform::Error,
}

impl From<OpenError> for io::Error {
    fn from(error: OpenError) -> Self {
        let kind = match &error {
            OpenError::Layout { .. } | OpenError::TooFewSlots { .. } => io::ErrorKind::InvalidInput,
            OpenError::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
            OpenError::OwnerAlive { .. } => io::ErrorKind::AddrInUse,
            OpenError::NotFound { .. } => io::ErrorKind::NotFound,
            OpenError::NotReady { .. } | OpenError::Busy { .. } => io::ErrorKind::WouldBlock,
            OpenError::Mismatch { .. } | OpenError::Length { .. } | OpenError::NoSchema { .. } => {
                io::ErrorKind::InvalidData
            }
            OpenError::TooManyReaders { .. } => io::ErrorKind::QuotaExceeded,
            OpenError::NeedsTrailer { .. } => io::ErrorKind::Unsupported,
            OpenError::System { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match &error {
            WriteError::Value { .. } => io::ErrorKind::InvalidInput,
            WriteError::Busy { .. } | WriteError::Full { .. } => io::ErrorKind::WouldBlock,
            WriteError::Unlinked { .. } => io::ErrorKind::NotFound,
            WriteError::System { .. } => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Timeout { .. } => io::ErrorKind::TimedOut,
            ReadError::Busy { .. } => io::ErrorKind::WouldBlock,
            ReadError::WriterDied { .. } => io::ErrorKind::BrokenPipe,
            ReadError::Unlinked { .. } => io::ErrorKind::NotFound,
        };
        Self::new(kind, error)
    }
}
