//! What can go wrong between a program and its operating system.

use std::io;

/// An operating-system step that did not succeed.
///
/// Every message says what was attempted, on which object, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name cannot be the name of a shared object on this system.
    #[error("{name:?} cannot name a {what}: {reason}; choose another name")]
    InvalidName {
        /// The kind of object.
        what: &'static str,
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// Nothing of that name exists.
    #[error("no {what} {name:?}: create it first, or check the spelling")]
    NotFound {
        /// The kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// An object of that name exists where a new one was to be made.
    #[error(
        "a {what} {name:?} exists already: use another name, or remove it if its owner is dead"
    )]
    AlreadyExists {
        /// The kind of object.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The system refuses access.
    #[error(
        "not allowed to {attempt} the {what} {name:?}: run as its owner, or have it created with wider mode bits"
    )]
    PermissionDenied {
        /// What was attempted.
        attempt: &'static str,
        /// The kind of object.
        what: &'static str,
        /// Its name.
        name: String,
        /// The system's own error.
        source: io::Error,
    },
    /// There is not enough shared memory; nothing was left behind.
    #[error(
        "no room for {requested} bytes of shared memory for {name:?}: ask for less, free some, or enlarge /dev/shm (in a container: --shm-size)"
    )]
    NoSpace {
        /// The segment's name.
        name: String,
        /// The bytes asked for.
        requested: u64,
        /// The system's own error.
        source: io::Error,
    },
    /// This system has no such facility, or polyshm does not use it yet.
    #[error("{what} is not supported on this system: {hint}")]
    Unsupported {
        /// The facility.
        what: &'static str,
        /// What to do instead.
        hint: &'static str,
    },
    /// Any other failure of a system call.
    #[error("could not {attempt} the {what} {name:?}")]
    System {
        /// What was attempted.
        attempt: &'static str,
        /// The kind of object.
        what: &'static str,
        /// Its name.
        name: String,
        /// The system's own error.
        source: io::Error,
    },
}

/// The result of an operating-system step.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Sorts an [`io::Error`] into the variant that callers act on.
    pub(crate) fn from_io(
        attempt: &'static str,
        what: &'static str,
        name: &str,
        source: io::Error,
    ) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { what, name },
            io::ErrorKind::AlreadyExists => Self::AlreadyExists { what, name },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied {
                attempt,
                what,
                name,
                source,
            },
            _ => Self::System {
                attempt,
                what,
                name,
                source,
            },
        }
    }

    /// Whether nothing of that name exists.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether an object of that name exists already.
    #[must_use]
    pub const fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }
}
