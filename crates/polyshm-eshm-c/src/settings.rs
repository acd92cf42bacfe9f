//! What `ESHMConfig` says, as the builder of an endpoint.

use crate::types::{ESHMDisconnectBehavior, ESHMRole};
use polyshm_eshm::{DisconnectBehavior, Endpoint, EndpointBuilder, OpenError, Role};
use std::{error::Error, ffi::c_int, fmt::Write as _, str::Utf8Error, sync::Arc, time::Duration};

/// Why `eshm_init` gives no handle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    #[error("no configuration or no name: pass pointers that are not NULL")]
    Null,
    #[error("the channel's name is not UTF-8: choose another")]
    Name(#[source] Utf8Error),
    #[error("{found} is no role: choose one of ESHMRole")]
    Role { found: c_int },
    #[error("{found} is no behaviour: choose one of ESHMDisconnectBehavior")]
    DisconnectBehavior { found: c_int },
    #[error("no channel {name:?}: start its master first")]
    NotFound { name: Arc<str> },
    #[error(transparent)]
    Open(OpenError),
}

impl From<OpenError> for InitError {
    fn from(error: OpenError) -> Self {
        match error {
            // Its advice is a setting that C does not have.
            OpenError::NotFound { name } => Self::NotFound { name },
            other => Self::Open(other),
        }
    }
}

impl InitError {
    /// The error and its sources, on one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            // A string takes all.
            let _ = write!(line, ": {error}");
            cause = error.source();
        }
        line
    }
}

/// What was read from an `ESHMConfig`. The enumerations hold whatever was there.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: Vec<u8>,
    pub(crate) role: c_int,
    pub(crate) disconnect_behavior: c_int,
    pub(crate) stale_threshold_ms: u32,
    pub(crate) reconnect_wait_ms: u32,
    pub(crate) reconnect_retry_interval_ms: u32,
    pub(crate) max_reconnect_attempts: u32,
    pub(crate) auto_cleanup: bool,
    pub(crate) use_threads: bool,
}

impl Settings {
    pub(crate) fn name(&self) -> Result<&str, InitError> {
        std::str::from_utf8(&self.name).map_err(InitError::Name)
    }

    pub(crate) fn disconnect_behavior(&self) -> Result<DisconnectBehavior, InitError> {
        use ESHMDisconnectBehavior::{
            ESHM_DISCONNECT_IMMEDIATELY, ESHM_DISCONNECT_NEVER, ESHM_DISCONNECT_ON_TIMEOUT,
        };
        [
            (ESHM_DISCONNECT_IMMEDIATELY, DisconnectBehavior::Immediately),
            (ESHM_DISCONNECT_ON_TIMEOUT, DisconnectBehavior::OnTimeout),
            (ESHM_DISCONNECT_NEVER, DisconnectBehavior::Never),
        ]
        .into_iter()
        .find_map(|(number, behavior)| {
            (number as c_int == self.disconnect_behavior).then_some(behavior)
        })
        .ok_or(InitError::DisconnectBehavior {
            found: self.disconnect_behavior,
        })
    }

    fn role(&self) -> Result<Role, InitError> {
        [Role::Master, Role::Slave, Role::Auto]
            .into_iter()
            .find(|role| number_of(*role) as c_int == self.role)
            .ok_or(InitError::Role { found: self.role })
    }

    /// An endpoint with all that, for messages of up to `capacity` bytes.
    pub(crate) fn builder(&self, capacity: u64) -> Result<EndpointBuilder, InitError> {
        let milliseconds = |ms: u32| Duration::from_millis(ms.into());
        Ok(Endpoint::builder()
            .role(self.role()?)
            .disconnect_behavior(self.disconnect_behavior()?)
            .stale_threshold(milliseconds(self.stale_threshold_ms))
            .reconnect_wait(milliseconds(self.reconnect_wait_ms))
            .reconnect_interval(milliseconds(self.reconnect_retry_interval_ms))
            .reconnect_attempts(self.max_reconnect_attempts)
            .auto_cleanup(self.auto_cleanup)
            .threads(self.use_threads)
            .capacity(capacity)
            // As in the reference, whose users run several slaves on a channel.
            .share_role(true))
    }
}

pub(crate) fn number_of(role: Role) -> ESHMRole {
    match role {
        Role::Master => ESHMRole::ESHM_ROLE_MASTER,
        Role::Slave => ESHMRole::ESHM_ROLE_SLAVE,
        Role::Auto => ESHMRole::ESHM_ROLE_AUTO,
    }
}

#[cfg(test)]
pub(crate) fn for_tests(name: &str, role: ESHMRole) -> Settings {
    use crate::types::{
        ESHM_DEFAULT_MAX_RECONNECT_ATTEMPTS, ESHM_DEFAULT_RECONNECT_RETRY_INTERVAL_MS,
        ESHM_DEFAULT_RECONNECT_WAIT_MS, ESHM_DEFAULT_STALE_THRESHOLD_MS,
    };
    Settings {
        name: name.as_bytes().to_vec(),
        role: role as c_int,
        disconnect_behavior: ESHMDisconnectBehavior::ESHM_DISCONNECT_ON_TIMEOUT as c_int,
        stale_threshold_ms: ESHM_DEFAULT_STALE_THRESHOLD_MS,
        reconnect_wait_ms: ESHM_DEFAULT_RECONNECT_WAIT_MS,
        reconnect_retry_interval_ms: ESHM_DEFAULT_RECONNECT_RETRY_INTERVAL_MS,
        max_reconnect_attempts: ESHM_DEFAULT_MAX_RECONNECT_ATTEMPTS,
        auto_cleanup: true,
        use_threads: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        for_tests("n", ESHMRole::ESHM_ROLE_AUTO)
    }

    /// The builder shows itself in a fixed form.
    #[test]
    fn every_setting_reaches_the_builder() {
        let defaults = settings().builder(4096).unwrap();
        assert_eq!(
            format!("{defaults:?}"),
            format!("{:?}", Endpoint::builder()),
            "the defaults of the header are those of the endpoint"
        );

        let other = Settings {
            role: 1,
            disconnect_behavior: 2,
            stale_threshold_ms: 1,
            reconnect_wait_ms: 2,
            reconnect_retry_interval_ms: 3,
            max_reconnect_attempts: 4,
            auto_cleanup: false,
            use_threads: false,
            ..settings()
        };
        let wanted = Endpoint::builder()
            .role(Role::Slave)
            .disconnect_behavior(DisconnectBehavior::Never)
            .stale_threshold(Duration::from_millis(1))
            .reconnect_wait(Duration::from_millis(2))
            .reconnect_interval(Duration::from_millis(3))
            .reconnect_attempts(4)
            .auto_cleanup(false)
            .threads(false)
            .capacity(5);
        assert_eq!(
            format!("{:?}", other.builder(5).unwrap()),
            format!("{wanted:?}")
        );
    }

    #[test]
    fn every_number_has_its_meaning_or_none() {
        for (number, role) in [(0, Role::Master), (1, Role::Slave), (2, Role::Auto)] {
            let settings = Settings {
                role: number,
                ..settings()
            };
            assert_eq!(settings.role().unwrap(), role);
            assert_eq!(number_of(role) as c_int, number);
        }
        for (number, behavior) in [
            (0, DisconnectBehavior::Immediately),
            (1, DisconnectBehavior::OnTimeout),
            (2, DisconnectBehavior::Never),
        ] {
            let settings = Settings {
                disconnect_behavior: number,
                ..settings()
            };
            assert_eq!(settings.disconnect_behavior().unwrap(), behavior);
        }
        for number in [-1, 3, c_int::MIN, c_int::MAX] {
            let role = Settings {
                role: number,
                ..settings()
            };
            assert!(matches!(role.builder(1), Err(InitError::Role { found }) if found == number));
            let behavior = Settings {
                disconnect_behavior: number,
                ..settings()
            };
            assert!(matches!(
                behavior.builder(1),
                Err(InitError::DisconnectBehavior { found }) if found == number
            ));
        }
    }

    #[test]
    fn an_error_names_its_causes_on_one_line() {
        let name = Settings {
            name: vec![b'a', 0xff],
            ..settings()
        };
        let line = name.name().unwrap_err().line();
        assert!(
            line.starts_with("the channel's name is not UTF-8"),
            "{line}"
        );
        assert!(line.contains(": invalid utf-8"), "{line}");
        let open = Endpoint::builder().capacity(0).open("n").unwrap_err();
        let line = InitError::from(open).line();
        assert!(line.contains("\"n\"") && !line.contains('\n'), "{line}");
        assert!(line.matches(": ").count() >= 2, "{line}");
    }
}
