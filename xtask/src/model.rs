//! `cargo xtask model`: loom runs the shipped algorithms under every interleaving.

use std::env;

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo_test(&[
        "--release",
        "-p",
        "polyshm-platform",
        "-p",
        "polyshm-zerobuffer",
        "--lib",
    ]);
    command
        .arg("--target-dir")
        .arg(step.workspace.target.join("loom"))
        .args(["--", "model"]);
    Step::add_rustflags(&mut command, "--cfg loom");
    // Without a bound the search does not end; three preemptions find nearly every real bug.
    if env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        command.env("LOOM_MAX_PREEMPTIONS", "3");
    }
    step.run_tests(command)?;
    Ok(step.outcome())
}
