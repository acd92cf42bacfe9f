//! `cargo xtask examples`: the facade's examples run to their end.

use anyhow::Result;

use crate::run::{Outcome, Step};

/// Each with what keeps it short.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("frames", &["--seconds", "1"]),
    ("hello", &[]),
    ("image_latest", &["--seconds", "2"]),
    ("master_slave", &["--seconds", "2"]),
    ("reconnect", &[]),
    ("sensor_record", &["--seconds", "2"]),
    ("sensors", &["--seconds", "2"]),
    ("work_queue", &["--items", "300000", "--seconds", "5"]),
];

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    for (example, args) in EXAMPLES {
        let mut command = step.cargo(&["run", "--release", "-p", "polyshm", "--example", example]);
        if !args.is_empty() {
            command.arg("--").args(*args);
        }
        step.run(command)?;
    }
    Ok(step.outcome())
}
