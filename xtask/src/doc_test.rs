//! `cargo xtask doc-test`: the examples in the documentation comments.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo(&[
        "test",
        "--no-fail-fast",
        "--workspace",
        "--doc",
        "--all-features",
    ]);
    command.args(["--exclude", "polyshm-benches"]);
    step.run_tests(command)?;
    Ok(step.outcome())
}
