//! `cargo xtask examples`: the facade's example runs to its end.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo(&["run", "--release", "-p", "polyshm", "--example", "frames"]);
    command.args(["--", "--seconds", "1"]);
    step.run(command)?;
    Ok(step.outcome())
}
