//! `cargo xtask doc`: the documentation builds without a warning.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    command
        .args(["--exclude", "polyshm-benches"])
        .env("RUSTDOCFLAGS", "-D warnings");
    step.run(command)?;
    Ok(step.outcome())
}
