//! `cargo xtask examples`: the facade's examples run to their end.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo(&["run", "--release", "-p", "polyshm", "--example", "frames"]);
    command.args(["--", "--seconds", "1"]);
    step.run(command)?;
    step.run(step.cargo(&["run", "--release", "-p", "polyshm", "--example", "hello"]))?;
    Ok(step.outcome())
}
