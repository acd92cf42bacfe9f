//! `cargo xtask bench` and `cargo xtask bench-smoke`: the paired process benchmarks.

use std::process::Command;

use anyhow::Result;

use crate::run::{Outcome, Step};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the comparison with iceoryx2, which takes long to build
    #[arg(long)]
    no_iceoryx2: bool,
    /// Passed to the benchmark program
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    args: Vec<String>,
}

pub(crate) fn run(step: &mut Step<'_>, args: &Args) -> Result<Outcome> {
    let features: &[&str] = if args.no_iceoryx2 {
        &[]
    } else {
        &["--features", "iceoryx2"]
    };
    let mut command = paired(step, features);
    command.args(&args.args);
    step.run_attached(command)?;
    Ok(step.outcome())
}

/// A few blocks: the programs must run and deliver the right content; no time is judged.
pub(crate) fn smoke(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = paired(step, &[]);
    command.arg("--smoke");
    step.run(command)?;
    Ok(step.outcome())
}

fn paired(step: &Step<'_>, features: &[&str]) -> Command {
    let mut command = step.cargo(&[
        "run",
        "--release",
        "-p",
        "polyshm-benches",
        "--bin",
        "paired",
    ]);
    command.args(features).arg("--");
    command
}
