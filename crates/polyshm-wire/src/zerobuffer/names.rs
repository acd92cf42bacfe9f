//! Object names (ZeroBuffer format, section 1).

use alloc::{borrow::ToOwned, format, string::String};

use super::NameError;

/// Longest buffer name in bytes: Linux limits a file name to 255, and a
/// semaphore's file adds the ten bytes of `sem.sem-w-` (section 1.1).
pub const MAX_NAME_LEN: usize = 245;

/// Longest duplex channel name in bytes: the response buffer adds
/// [`RESPONSE_SUFFIX`] to it (section 12).
pub const MAX_CHANNEL_LEN: usize = MAX_NAME_LEN - RESPONSE_SUFFIX.len();

/// What a channel name gets to name the buffer of its requests.
pub const REQUEST_SUFFIX: &str = "_request";

/// What a channel name gets to name the buffer of its responses.
pub const RESPONSE_SUFFIX: &str = "_response";

/// Directory of the lock files below the temporary directory, as C++ and Python
/// readers use it.
pub const LOCK_DIRECTORY: &str = "zerobuffer";

/// Directory of the lock files below the temporary directory, as C# readers use
/// it. They do not look into [`LOCK_DIRECTORY`], so a reader that wants to
/// exclude both kinds holds both files (section 1.1).
pub const LOCK_DIRECTORY_CSHARP: &str = "zerobuffer/locks";

/// The names of the three kernel objects behind one buffer.
///
/// ```
/// use polyshm_wire::zerobuffer::ObjectNames;
///
/// let names = ObjectNames::posix("camera")?;
/// assert_eq!(names.memory, "/camera");
/// assert_eq!(names.data_ready, "/sem-w-camera");
/// assert_eq!(names.space_ready, "/sem-r-camera");
/// assert!(ObjectNames::posix("../camera").is_err());
/// # Ok::<(), polyshm_wire::zerobuffer::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectNames {
    /// the segment itself
    pub memory: String,
    /// posted by the writer, once per frame (`sem-w`)
    pub data_ready: String,
    /// posted by the reader, once per released frame (`sem-r`); only a hint
    pub space_ready: String,
}

impl ObjectNames {
    /// For `shm_open` and `sem_open`. All implementations meet here on Linux.
    ///
    /// macOS allows 31 bytes only; no other implementation works there, so the
    /// shortening is left to whoever opens the objects (section 1.3).
    pub fn posix(name: &str) -> Result<Self, NameError> {
        check_name(name)?;
        Ok(Self {
            memory: format!("/{name}"),
            data_ready: format!("/sem-w-{name}"),
            space_ready: format!("/sem-r-{name}"),
        })
    }

    /// As the C++ implementation names them on Windows, in the global
    /// namespace. The slash inside the semaphore names is really there
    /// (section 1.2).
    pub fn windows_cpp(name: &str) -> Result<Self, NameError> {
        check_windows(name)?;
        Ok(Self {
            memory: format!("Global\\{name}"),
            data_ready: format!("Global\\sem-/sem-w-{name}"),
            space_ready: format!("Global\\sem-/sem-r-{name}"),
        })
    }

    /// As the C# implementation names them on Windows, local to the session
    /// (section 1.2).
    pub fn windows_csharp(name: &str) -> Result<Self, NameError> {
        check_windows(name)?;
        Ok(Self {
            memory: name.to_owned(),
            data_ready: format!("sem-w-{name}"),
            space_ready: format!("sem-r-{name}"),
        })
    }
}

/// Refuses a buffer name that some implementation could not open, or that would
/// lead out of the directory of its objects.
pub fn check_name(name: &str) -> Result<(), NameError> {
    check(name, MAX_NAME_LEN)
}

/// As [`check_name`], with the room that a duplex channel's suffixes take.
pub fn check_channel_name(channel: &str) -> Result<(), NameError> {
    check(channel, MAX_CHANNEL_LEN)
}

/// The buffer names of a duplex channel: requests first, then responses.
///
/// ```
/// let (request, response) = polyshm_wire::zerobuffer::channel_names("arm")?;
/// assert_eq!((request.as_str(), response.as_str()), ("arm_request", "arm_response"));
/// # Ok::<(), polyshm_wire::zerobuffer::NameError>(())
/// ```
pub fn channel_names(channel: &str) -> Result<(String, String), NameError> {
    check_channel_name(channel)?;
    Ok((
        format!("{channel}{REQUEST_SUFFIX}"),
        format!("{channel}{RESPONSE_SUFFIX}"),
    ))
}

/// The file inside [`LOCK_DIRECTORY`] or [`LOCK_DIRECTORY_CSHARP`] that a reader
/// of `name` keeps locked. The name is not checked here.
pub fn lock_file_name(name: &str) -> String {
    format!("{name}.lock")
}

fn check(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    // Length first: the other messages may then quote the name at leisure.
    if name.len() > max {
        return Err(NameError::TooLong {
            name: name.to_owned(),
            len: name.len(),
            max,
        });
    }
    refuse_separator(name, '/')?;
    if name.contains('\0') {
        return Err(NameError::Nul {
            name: name.to_owned(),
        });
    }
    if matches!(name, "." | "..") {
        return Err(NameError::Dot {
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_windows(name: &str) -> Result<(), NameError> {
    check_name(name)?;
    // It separates the namespace from the rest of an object's name.
    refuse_separator(name, '\\')
}

fn refuse_separator(name: &str, separator: char) -> Result<(), NameError> {
    if name.contains(separator) {
        return Err(NameError::Separator {
            name: name.to_owned(),
            separator,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_each_system() {
        let cpp = ObjectNames::windows_cpp("n").unwrap();
        assert_eq!(cpp.memory, r"Global\n");
        assert_eq!(cpp.data_ready, r"Global\sem-/sem-w-n");
        assert_eq!(cpp.space_ready, r"Global\sem-/sem-r-n");
        let csharp = ObjectNames::windows_csharp("n").unwrap();
        assert_eq!(csharp.memory, "n");
        assert_eq!(csharp.data_ready, "sem-w-n");
        assert_eq!(csharp.space_ready, "sem-r-n");
        assert_eq!(lock_file_name("n"), "n.lock");
    }

    #[test]
    fn refused_names() {
        assert_eq!(check_name(""), Err(NameError::Empty));
        for name in ["/x", "x/", "a/b", "/"] {
            assert!(matches!(
                check_name(name),
                Err(NameError::Separator { separator: '/', .. })
            ));
        }
        assert!(matches!(check_name("a\0b"), Err(NameError::Nul { .. })));
        assert!(matches!(check_name("."), Err(NameError::Dot { .. })));
        assert!(matches!(check_name(".."), Err(NameError::Dot { .. })));
        check_name("...").unwrap();
        check_name("a.b c").unwrap();
    }

    #[test]
    fn backslash_is_refused_on_windows_only() {
        ObjectNames::posix(r"a\b").unwrap();
        for refused in [
            ObjectNames::windows_cpp(r"a\b"),
            ObjectNames::windows_csharp(r"a\b"),
        ] {
            assert!(matches!(
                refused,
                Err(NameError::Separator {
                    separator: '\\',
                    ..
                })
            ));
        }
    }

    #[test]
    fn lengths_count_bytes() {
        check_name(&"x".repeat(245)).unwrap();
        let error = check_name(&"x".repeat(246)).unwrap_err();
        assert!(matches!(
            error,
            NameError::TooLong {
                len: 246,
                max: 245,
                ..
            }
        ));
        // 123 characters of two bytes each
        assert!(check_name(&"\u{e9}".repeat(123)).is_err());
        assert_eq!("sem.sem-w-".len() + MAX_NAME_LEN, 255);
    }

    #[test]
    fn channel_leaves_room_for_its_suffix() {
        assert_eq!(MAX_CHANNEL_LEN, 236);
        let (request, response) = channel_names(&"c".repeat(236)).unwrap();
        check_name(&request).unwrap();
        check_name(&response).unwrap();
        assert_eq!(response.len(), MAX_NAME_LEN);
        assert!(channel_names(&"c".repeat(237)).is_err());
        assert!(channel_names("").is_err());
    }
}
