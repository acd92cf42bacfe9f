//! What can go wrong, one type per operation.
//!
//! A message says what was attempted, on which channel, and what to do; the
//! cause is in `source()`.

use crate::Role;
use polyshm_platform as platform;
use polyshm_wire::eshm::{DecodeError, EncodeError, ImageError, LayoutError, NameError};
use std::{io, sync::Arc};

/// Why an endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The name breaks a rule.
    #[error("no channel can have that name: choose another")]
    Name(#[from] NameError),
    /// The capacity is 0 or beyond the limit.
    #[error("channel {name:?} cannot have that capacity: choose another")]
    Capacity {
        /// The channel's name.
        name: Arc<str>,
        /// The rule broken.
        source: LayoutError,
    },
    /// A slave found no object: its master has not created one.
    #[doc(alias = "ESHM_ERROR_SHM_ATTACH")]
    #[error("no channel {name:?}: start its master first, or set a connect timeout")]
    NotFound {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The object is being made, or its creator died at it.
    #[error(
        "channel {name:?} is not complete yet: try again; if it stays so, start a master, which replaces it"
    )]
    NotReady {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The object is no ESHM channel, of another version, or too short. It was
    /// left alone.
    #[error(
        "shared memory of the name of channel {name:?} is no channel that can be used: remove it, or choose another name"
    )]
    Invalid {
        /// The channel's name.
        name: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The object was laid out for another capacity.
    #[error(
        "channel {name:?} was created for messages of {found} bytes, not {wanted}: open it with capacity {found}"
    )]
    CapacityMismatch {
        /// The channel's name.
        name: Arc<str>,
        /// The capacity asked for.
        wanted: u32,
        /// The one it was created with.
        found: u32,
    },
    /// A living process has this role.
    #[error(
        "channel {name:?} has a {role} already (process {pid}): close it first, or use another name"
    )]
    RoleTaken {
        /// The channel's name.
        name: Arc<str>,
        /// The role.
        role: Role,
        /// The process.
        pid: i32,
    },
    /// Another process holds the object's lock.
    #[error("channel {name:?} is locked by another process: look for a stopped one, and try again")]
    Busy {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The endpoint was closed.
    #[error("the endpoint of channel {name:?} is closed: open another")]
    Closed {
        /// The channel's name.
        name: Arc<str>,
    },
    /// A slave looked for its master and found none that lives.
    #[error("channel {name:?} has no living master: start it, and try again")]
    NoMaster {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The operating system refused a step; nothing was left behind.
    #[error("channel {name:?} cannot be opened: the system refused a step")]
    System {
        /// The channel's name.
        name: Arc<str>,
        /// The step.
        source: platform::Error,
    },
}

impl OpenError {
    /// Whether a later attempt may succeed without anybody's doing here: the
    /// object is not there yet, is being made, or has no living master.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::NotReady { .. }
                | Self::Busy { .. }
                | Self::NoMaster { .. }
        )
    }
}

/// Why a message was not written. The reader sees nothing of it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The message is longer than the channel's capacity.
    #[doc(alias = "ESHM_ERROR_BUFFER_TOO_SMALL")]
    #[error(
        "a message of {len} bytes exceeds channel {name:?}, which takes {capacity}: open both sides with a larger capacity"
    )]
    TooLarge {
        /// The channel's name.
        name: Arc<str>,
        /// The message's length.
        len: usize,
        /// The longest message.
        capacity: usize,
    },
    /// A slave has no master at the moment and looks for one.
    #[error("the slave of channel {name:?} is reconnecting: write again when it has a master")]
    Reconnecting {
        /// The channel's name.
        name: Arc<str>,
    },
    /// A slave has stopped looking for a master.
    #[error(
        "the slave of channel {name:?} has given up reconnecting: call reconnect, or open another"
    )]
    GaveUp {
        /// The channel's name.
        name: Arc<str>,
    },
    /// Another process has taken this role, as other implementations can.
    #[error(
        "process {pid} has taken the role of this endpoint of channel {name:?}: close this one, one process has a role"
    )]
    Displaced {
        /// The channel's name.
        name: Arc<str>,
        /// The process.
        pid: i32,
    },
    /// Another writer of the same role holds the object's lock.
    #[error(
        "another slave holds channel {name:?} in the middle of a message: look for a stopped one, and write again"
    )]
    Busy {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The items cannot be encoded.
    #[error("the items for channel {name:?} cannot be encoded: none was written")]
    Encode {
        /// The channel's name.
        name: Arc<str>,
        /// Which, and why.
        source: EncodeError,
    },
    /// The endpoint was closed.
    #[error("the endpoint of channel {name:?} is closed: open another")]
    Closed {
        /// The channel's name.
        name: Arc<str>,
    },
}

/// Why no message was read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No message came in time.
    #[doc(alias = "ESHM_ERROR_TIMEOUT")]
    #[error("no message on channel {name:?} within the timeout: read again")]
    Timeout {
        /// The channel's name.
        name: Arc<str>,
    },
    /// The message is longer than the buffer. It was not taken.
    #[doc(alias = "ESHM_ERROR_BUFFER_TOO_SMALL")]
    #[error(
        "the message on channel {name:?} has {needed} bytes, the buffer {len}: read it again with a larger one"
    )]
    BufferTooSmall {
        /// The channel's name.
        name: Arc<str>,
        /// The message's length.
        needed: usize,
        /// The buffer's.
        len: usize,
    },
    /// The other side is stale, and the endpoint is to disconnect at once.
    #[doc(alias = "ESHM_ERROR_MASTER_STALE")]
    #[error("the other side of channel {name:?} is stale: open another endpoint when it is back")]
    Stale {
        /// The channel's name.
        name: Arc<str>,
    },
    /// A slave has stopped looking for a master.
    #[error(
        "the slave of channel {name:?} has given up reconnecting: call reconnect, or open another"
    )]
    GaveUp {
        /// The channel's name.
        name: Arc<str>,
    },
    /// Shared bytes are damaged.
    #[error("channel {name:?} is damaged: have its master create it anew")]
    Corrupt {
        /// The channel's name.
        name: Arc<str>,
        /// The field that is wrong.
        source: ImageError,
    },
    /// The message holds no items. It was taken.
    #[error("the message on channel {name:?} holds no items: read it as bytes")]
    Decode {
        /// The channel's name.
        name: Arc<str>,
        /// Where it is wrong.
        source: DecodeError,
    },
    /// The endpoint was closed.
    #[error("the endpoint of channel {name:?} is closed: open another")]
    Closed {
        /// The channel's name.
        name: Arc<str>,
    },
}

impl ReadError {
    /// Whether only time ran out.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// Why a heartbeat was not stored.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeartbeatError {
    /// A slave has no master at the moment.
    #[error("the slave of channel {name:?} has no master: nobody sees its heartbeat")]
    Disconnected {
        /// The channel's name.
        name: Arc<str>,
    },
    /// Another process has taken this role.
    #[error(
        "process {pid} has taken the role of this endpoint of channel {name:?}: close this one, one process has a role"
    )]
    Displaced {
        /// The channel's name.
        name: Arc<str>,
        /// The process.
        pid: i32,
    },
    /// The endpoint was closed.
    #[error("the endpoint of channel {name:?} is closed: open another")]
    Closed {
        /// The channel's name.
        name: Arc<str>,
    },
}

macro_rules! to_io {
    ($($error:ty { $($pattern:pat => $kind:ident),* $(,)? })*) => {$(
        impl From<$error> for io::Error {
            fn from(error: $error) -> Self {
                let kind = match &error {
                    $($pattern => io::ErrorKind::$kind,)*
                    #[allow(unreachable_patterns, reason = "not every enum has others")]
                    _ => io::ErrorKind::Other,
                };
                Self::new(kind, error)
            }
        }
    )*};
}

to_io! {
    OpenError {
        OpenError::Name(_) | OpenError::Capacity { .. } => InvalidInput,
        OpenError::NotFound { .. } => NotFound,
        OpenError::NotReady { .. } | OpenError::Busy { .. } => WouldBlock,
        OpenError::Invalid { .. } | OpenError::CapacityMismatch { .. } => InvalidData,
        OpenError::RoleTaken { .. } => AddrInUse,
        OpenError::NoMaster { .. } => ConnectionRefused,
        OpenError::Closed { .. } => NotConnected,
    }
    WriteError {
        WriteError::TooLarge { .. } | WriteError::Encode { .. } => InvalidInput,
        WriteError::Reconnecting { .. } | WriteError::GaveUp { .. } | WriteError::Closed { .. } => NotConnected,
        WriteError::Displaced { .. } => ConnectionAborted,
        WriteError::Busy { .. } => WouldBlock,
    }
    ReadError {
        ReadError::Timeout { .. } => TimedOut,
        ReadError::BufferTooSmall { .. } => InvalidInput,
        ReadError::Stale { .. } => BrokenPipe,
        ReadError::GaveUp { .. } | ReadError::Closed { .. } => NotConnected,
        ReadError::Corrupt { .. } | ReadError::Decode { .. } => InvalidData,
    }
}
