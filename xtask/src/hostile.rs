//! `cargo xtask hostile`: damaged images give errors, never a panic, a hang or a stray read.

use anyhow::Result;

use crate::{
    protocols::{self, Check},
    run::{Outcome, Step},
};

/// Enough to run the code, for steps that are about something else.
pub(crate) const FEW_IMAGES: &str = "20000";

/// Images per protocol in `test-all`.
const IMAGES: u64 = 1_000_000;

/// Options of `hostile`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many damaged images to open, of each protocol
    #[arg(long, value_name = "N", default_value_t = IMAGES)]
    images: u64,
}

impl Default for Args {
    fn default() -> Self {
        Self { images: IMAGES }
    }
}

pub(crate) fn run(step: &mut Step<'_>, args: &Args) -> Result<Outcome> {
    for protocol in protocols::with(Check::Hostile) {
        let report = protocol.report(Check::Hostile);
        step.forget_report(&report)?;
        let mut command = step.cargo_test(&["--release"]);
        protocol.select(Check::Hostile, &mut command);
        command.env("POLYSHM_HOSTILE_IMAGES", args.images.to_string());
        if step.run_tests(command)? {
            step.show_report(&report)?;
        }
    }
    Ok(step.outcome())
}
