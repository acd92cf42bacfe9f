//! What can go wrong, one type per operation.
//!
//! A message says what was attempted, on which buffer, and what to do; the cause
//! is in `source()`.

use polyshm_platform as platform;
use polyshm_wire::zerobuffer::{ImageError, LayoutError, NameError};
use std::{io, sync::Arc};

/// Why a buffer could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The name breaks a rule.
    #[error("no buffer can be created under that name: choose another")]
    Name(#[from] NameError),
    /// The sizes cannot be laid out.
    #[error("buffer {name:?} cannot be created with those sizes: choose others")]
    Layout {
        /// The buffer's name.
        name: String,
        /// The rule broken.
        source: LayoutError,
    },
    /// Another reader has this name.
    #[doc(alias = "ReaderAlreadyConnectedException")]
    #[error(
        "buffer {name:?} has a reader already{}: close it first, or use another name",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    ReaderAlreadyConnected {
        /// The buffer's name.
        name: String,
        /// The other reader, when its buffer says so.
        pid: Option<u64>,
    },
    /// An object of this name exists that is no ZeroBuffer; it was left alone.
    #[error(
        "cannot create buffer {name:?}: shared memory of that name exists and is no ZeroBuffer; use another name, or remove it"
    )]
    NameTaken {
        /// The buffer's name.
        name: String,
        /// Why it is not taken for a ZeroBuffer.
        source: ImageError,
    },
    /// The operating system refused a step; nothing was left behind.
    #[error(
        "buffer {name:?} cannot be created: the system refused a step, and nothing is left behind"
    )]
    System {
        /// The buffer's name.
        name: String,
        /// The step.
        source: platform::Error,
    },
}

/// Why a writer could not attach.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The name breaks a rule.
    #[error("no buffer can have that name: correct it")]
    Name(#[from] NameError),
    /// There is no such buffer.
    #[doc(alias = "BufferNotFoundException")]
    #[error("no buffer {name:?}: its reader must create it first")]
    NotFound {
        /// The buffer's name.
        name: String,
    },
    /// The buffer exists but its reader is still building it, or died at it.
    #[error("buffer {name:?} is not complete yet: try again, its reader is creating it")]
    NotReady {
        /// The buffer's name.
        name: String,
    },
    /// The object is not a buffer of this format, or its header is damaged.
    #[error("buffer {name:?} is damaged or of another format: its reader must create it anew")]
    Invalid {
        /// The buffer's name.
        name: String,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The buffer is there, its reader is gone.
    #[error("buffer {name:?} has no living reader (process {pid}): start the reader again")]
    NoReader {
        /// The buffer's name.
        name: String,
        /// The reader that was; 0 when it closed.
        pid: u64,
    },
    /// Another writer is attached and alive.
    #[doc(alias = "WriterAlreadyConnectedException")]
    #[error("buffer {name:?} has a writer already (process {pid}): one writer at a time")]
    WriterAlreadyConnected {
        /// The buffer's name.
        name: String,
        /// The other writer.
        pid: u64,
    },
    /// The operating system refused a step.
    #[error("attaching to buffer {name:?} failed: the system refused a step")]
    System {
        /// The buffer's name.
        name: String,
        /// The step.
        source: platform::Error,
    },
}

impl AttachError {
    /// Whether a later attempt may succeed without anybody's doing: the buffer
    /// is not there yet, or is being built or replaced.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::NotReady { .. } | Self::NoReader { .. }
        )
    }
}

/// Why no frame was read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Nothing came in time; the writer may be slow, or none has come yet.
    #[error("no frame in buffer {name:?} within the timeout: try again")]
    Timeout {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The writer closed, and every frame it sent was read.
    #[doc(alias = "WriterDeadException")]
    #[error(
        "the writer of buffer {name:?} has closed and all its frames are read: wait for another writer, or stop"
    )]
    WriterClosed {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The writer died, and every frame it committed was read.
    #[doc(alias = "WriterDeadException")]
    #[error(
        "the writer of buffer {name:?} (process {pid}) died and all its frames are read: wait for another writer, or stop"
    )]
    WriterDead {
        /// The buffer's name.
        name: Arc<str>,
        /// The dead process.
        pid: u64,
    },
    /// A frame is missing. The reader stays in this state.
    #[doc(alias = "SequenceError")]
    #[error(
        "sequence error in buffer {name:?}: expected {expected}, got {got}; frames were lost, create the buffer anew"
    )]
    Sequence {
        /// The buffer's name.
        name: Arc<str>,
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// Shared bytes are damaged. The reader stays in this state.
    #[error("buffer {name:?} is damaged: create it anew")]
    Corrupt {
        /// The buffer's name.
        name: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The operating system failed.
    #[error("reading buffer {name:?} failed: the system refused a step")]
    System {
        /// The buffer's name.
        name: Arc<str>,
        /// The step.
        source: Arc<platform::Error>,
    },
}

impl ReadError {
    /// Whether the writer is gone, orderly or not.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::WriterClosed { .. } | Self::WriterDead { .. })
    }

    /// Whether only time ran out.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// Why a frame was not written. Nothing of it is visible to the reader.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A frame has at least one byte: the format uses length 0 as a marker.
    #[doc(alias = "InvalidFrameSizeException")]
    #[error("a frame of 0 bytes cannot be written to buffer {name:?}: send at least 1 byte")]
    EmptyFrame {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The frame is larger than the whole ring.
    #[doc(alias = "FrameTooLargeException")]
    #[error(
        "a frame of {len} bytes exceeds buffer {name:?}, which takes at most {max}: create the buffer with a larger payload size"
    )]
    FrameTooLarge {
        /// The buffer's name.
        name: Arc<str>,
        /// The frame's length.
        len: u64,
        /// The longest frame.
        max: u64,
    },
    /// The reader did not make room in time.
    #[doc(alias = "BufferFullException")]
    #[error(
        "buffer {name:?} is full: {needed} bytes are needed and {free} are free; the reader is slower than the timeout"
    )]
    Full {
        /// The buffer's name.
        name: Arc<str>,
        /// Bytes that the frame takes where it must go.
        needed: u64,
        /// Bytes free when time ran out.
        free: u64,
    },
    /// The reader closed the buffer.
    #[doc(alias = "ReaderDeadException")]
    #[error("the reader of buffer {name:?} has closed: attach again once there is a new one")]
    ReaderClosed {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The reader died.
    #[doc(alias = "ReaderDeadException")]
    #[error(
        "the reader of buffer {name:?} (process {pid}) died: attach again once there is a new one"
    )]
    ReaderDead {
        /// The buffer's name.
        name: Arc<str>,
        /// The dead process.
        pid: u64,
    },
    /// Another writer took this one's place, as writers of other
    /// implementations can: they claim it without an atomic exchange.
    #[error(
        "another writer (process {pid}) has taken over buffer {name:?}: attach again when it has left"
    )]
    Displaced {
        /// The buffer's name.
        name: Arc<str>,
        /// The other writer; 0 when it has left already.
        pid: u64,
    },
    /// Shared bytes are damaged.
    #[error("buffer {name:?} is damaged: its reader must create it anew")]
    Corrupt {
        /// The buffer's name.
        name: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The operating system failed.
    #[error("writing to buffer {name:?} failed: the system refused a step")]
    System {
        /// The buffer's name.
        name: Arc<str>,
        /// The step.
        source: Arc<platform::Error>,
    },
}

impl WriteError {
    /// Whether the reader is gone, orderly or not.
    #[must_use]
    pub const fn is_reader_gone(&self) -> bool {
        matches!(self, Self::ReaderClosed { .. } | Self::ReaderDead { .. })
    }

    /// Whether only room was lacking.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// Why metadata was not written or not read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Metadata is written once in a buffer's life.
    #[doc(alias = "MetadataAlreadyWrittenException")]
    #[error("the metadata of buffer {name:?} has been written already: it can be set once")]
    AlreadyWritten {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The block is too small.
    #[error(
        "{len} bytes of metadata exceed the {max} that buffer {name:?} takes: create it with a larger metadata size"
    )]
    TooLarge {
        /// The buffer's name.
        name: Arc<str>,
        /// The length given.
        len: u64,
        /// The longest metadata.
        max: u64,
    },
    /// The buffer was created without a metadata block.
    #[error("buffer {name:?} has no metadata block: create it with a metadata size above 0")]
    NoBlock {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// The reader closed the buffer or died.
    #[error("the reader of buffer {name:?} is gone: attach again once there is a new one")]
    ReaderGone {
        /// The buffer's name.
        name: Arc<str>,
    },
    /// Shared bytes are damaged.
    #[error("the metadata of buffer {name:?} is damaged: its reader must create it anew")]
    Corrupt {
        /// The buffer's name.
        name: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
}

macro_rules! to_io {
    ($($error:ty { $($pattern:pat => $kind:ident),* $(,)? })*) => {$(
        impl From<$error> for io::Error {
            fn from(error: $error) -> Self {
                #[allow(clippy::match_same_arms, reason = "one line per condition")]
                let kind = match &error {
                    $($pattern => io::ErrorKind::$kind,)*
                    #[allow(unreachable_patterns, reason = "not every enum is covered in full")]
                    _ => io::ErrorKind::Other,
                };
                Self::new(kind, error)
            }
        }
    )*};
}

to_io! {
    CreateError {
        CreateError::Name(_) | CreateError::Layout { .. } => InvalidInput,
        CreateError::ReaderAlreadyConnected { .. } => AddrInUse,
        CreateError::NameTaken { .. } => AlreadyExists,
    }
    AttachError {
        AttachError::Name(_) => InvalidInput,
        AttachError::NotFound { .. } => NotFound,
        AttachError::NotReady { .. } => WouldBlock,
        AttachError::Invalid { .. } => InvalidData,
        AttachError::NoReader { .. } => ConnectionRefused,
        AttachError::WriterAlreadyConnected { .. } => AddrInUse,
    }
    MetadataError {
        MetadataError::AlreadyWritten { .. } => AlreadyExists,
        MetadataError::TooLarge { .. } | MetadataError::NoBlock { .. } => InvalidInput,
        MetadataError::ReaderGone { .. } => BrokenPipe,
        MetadataError::Corrupt { .. } => InvalidData,
    }
    ReadError {
        ReadError::Timeout { .. } => TimedOut,
        ReadError::WriterClosed { .. } => UnexpectedEof,
        ReadError::WriterDead { .. } => BrokenPipe,
        ReadError::Sequence { .. } | ReadError::Corrupt { .. } => InvalidData,
    }
    WriteError {
        WriteError::EmptyFrame { .. } | WriteError::FrameTooLarge { .. } => InvalidInput,
        WriteError::Full { .. } => TimedOut,
        WriteError::ReaderClosed { .. } | WriteError::ReaderDead { .. } => BrokenPipe,
        WriteError::Corrupt { .. } => InvalidData,
    }
}
