//! Errors as the codes of the format, section 4.1.

use crate::types::ESHMError::{
    self, ESHM_ERROR_BUFFER_TOO_SMALL, ESHM_ERROR_INVALID_PARAM, ESHM_ERROR_MASTER_STALE,
    ESHM_ERROR_NOT_INITIALIZED, ESHM_ERROR_ROLE_MISMATCH, ESHM_ERROR_TIMEOUT, ESHM_SUCCESS,
};
use polyshm_eshm::{ReadError, WriteError};
use std::{
    ffi::{CStr, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// What a function gives: a value that is not negative, or an error.
pub(crate) type Answer = Result<c_int, ESHMError>;

/// The answer of what has nothing to tell.
pub(crate) const SUCCESS: Answer = Ok(ESHM_SUCCESS as c_int);

/// Runs the body of a function that C calls; `otherwise` is given when it
/// panics, which must not go on into C.
pub(crate) fn caught<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    // What others may see afterwards is behind locks that do not poison, and is
    // changed in single steps: there is nothing half-done to be seen.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// As [`caught`], for functions that answer with a code.
pub(crate) fn answered(body: impl FnOnce() -> Answer) -> c_int {
    match caught(Err(ESHM_ERROR_INVALID_PARAM), body) {
        Ok(value) => value,
        Err(error) => error as c_int,
    }
}

pub(crate) fn of_write(error: &WriteError) -> ESHMError {
    match error {
        WriteError::TooLarge { .. } => ESHM_ERROR_BUFFER_TOO_SMALL,
        // Another slave was in its way for a second.
        WriteError::Reconnecting { .. } | WriteError::GaveUp { .. } | WriteError::Busy { .. } => {
            ESHM_ERROR_TIMEOUT
        }
        WriteError::Displaced { .. } => ESHM_ERROR_ROLE_MISMATCH,
        _ => ESHM_ERROR_NOT_INITIALIZED,
    }
}

pub(crate) fn of_read(error: &ReadError) -> ESHMError {
    match error {
        ReadError::Timeout { .. } | ReadError::GaveUp { .. } => ESHM_ERROR_TIMEOUT,
        // A length beyond the channel's is beyond every buffer that is right.
        ReadError::BufferTooSmall { .. } | ReadError::Corrupt { .. } => ESHM_ERROR_BUFFER_TOO_SMALL,
        ReadError::Stale { .. } => ESHM_ERROR_MASTER_STALE,
        ReadError::Decode { .. } => ESHM_ERROR_INVALID_PARAM,
        _ => ESHM_ERROR_NOT_INITIALIZED,
    }
}

/// The text of a code.
pub(crate) const fn text(code: c_int) -> &'static CStr {
    match code {
        0 => c"Success",
        -1 => c"Invalid parameter",
        -2 => c"Failed to create shared memory",
        -3 => c"Failed to attach to shared memory",
        -4 => c"Failed to detach from shared memory",
        -5 => c"Failed to delete shared memory",
        -6 => c"Failed to initialize mutex",
        -7 => c"Failed to lock mutex",
        -8 => c"Failed to unlock mutex",
        -9 => c"No data available",
        -10 => c"Operation timed out",
        -11 => c"Master is stale",
        -12 => c"Buffer is full",
        -13 => c"Buffer too small",
        -14 => c"Not initialized",
        -15 => c"Role mismatch",
        _ => c"Unknown error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyshm_eshm::{Endpoint, ImageError};
    use std::sync::Arc;

    #[test]
    fn each_error_has_its_code() {
        let name: Arc<str> = Arc::from("n");
        let name = || Arc::clone(&name);
        let written = [
            (
                WriteError::TooLarge {
                    name: name(),
                    len: 2,
                    capacity: 1,
                },
                -13,
            ),
            (WriteError::Reconnecting { name: name() }, -10),
            (WriteError::GaveUp { name: name() }, -10),
            (WriteError::Busy { name: name() }, -10),
            (
                WriteError::Displaced {
                    name: name(),
                    pid: 1,
                },
                -15,
            ),
            (WriteError::Closed { name: name() }, -14),
        ];
        for (error, code) in written {
            assert_eq!(of_write(&error) as c_int, code, "{error}");
        }
        let read = [
            (ReadError::Timeout { name: name() }, -10),
            (ReadError::GaveUp { name: name() }, -10),
            (
                ReadError::BufferTooSmall {
                    name: name(),
                    needed: 2,
                    len: 1,
                },
                -13,
            ),
            (
                ReadError::Corrupt {
                    name: name(),
                    source: ImageError::TooShort { len: 0, need: 1 },
                },
                -13,
            ),
            (ReadError::Stale { name: name() }, -11),
            (ReadError::Closed { name: name() }, -14),
        ];
        for (error, code) in read {
            assert_eq!(of_read(&error) as c_int, code, "{error}");
        }
    }

    #[test]
    fn a_panic_becomes_an_answer() {
        assert_eq!(answered(|| panic!("for the test")), -1);
        assert_eq!(answered(|| Ok(7)), 7);
        assert_eq!(answered(|| Err(ESHM_ERROR_TIMEOUT)), -10);
        assert!(caught(None, || -> Option<Endpoint> { panic!("for the test") }).is_none());
    }
}
