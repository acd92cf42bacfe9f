//! ESHM's channel against the bare loads and stores that its format demands, and
//! against the way in which the original waits.

pub mod idle;
pub mod latency;
pub mod replay;
pub mod write;

use polyshm_eshm::{Endpoint, EndpointBuilder, OpenError, Role};
use std::time::Duration;

/// The name of a run's channel; the file's has `eshm_` in front.
fn channel(prefix: &str) -> String {
    format!("{prefix}channel")
}

/// An endpoint with default settings but for one: a machine that stands still
/// for a while must not end a measurement as a disconnection.
fn endpoint(role: Role) -> EndpointBuilder {
    Endpoint::builder()
        .role(role)
        .stale_threshold(Duration::from_secs(10))
}

fn open(prefix: &str, role: Role) -> Result<Endpoint, OpenError> {
    endpoint(role).open(&channel(prefix))
}
