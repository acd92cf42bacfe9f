//! `cargo xtask model`: loom runs the shipped algorithms under every interleaving.

use std::{env, process::Command};

use anyhow::Result;

use crate::{
    protocols::{self, Check, PLATFORM},
    run::{Outcome, Step},
};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    // One after another, so that one that has lost its models fails. The platform may have none:
    // the protocols' models go through it.
    step.run(models(step, PLATFORM))?;
    for protocol in protocols::with(Check::Model) {
        step.run_tests(models(step, protocol.package))?;
    }
    Ok(step.outcome())
}

fn models(step: &Step<'_>, package: &str) -> Command {
    let mut command = step.cargo_test(&["--release", "-p", package, "--lib"]);
    command
        .arg("--target-dir")
        .arg(step.workspace.target.join("loom"))
        .args(["--", Check::Model.name()]);
    Step::add_rustflags(&mut command, "--cfg loom");
    // Without a bound the search does not end; three preemptions find nearly every real bug.
    if env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        command.env("LOOM_MAX_PREEMPTIONS", "3");
    }
    command
}
