//! `cargo xtask test`: unit, integration and example tests in debug mode.

use anyhow::Result;

use crate::{
    hostile,
    run::{Outcome, Step},
};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    let mut command = step.cargo_test(&["--workspace", "--lib", "--bins", "--tests", "--examples"]);
    command
        // The `interop` step runs these with Python at hand; here they would only log a skip.
        .env("POLYSHM_INTEROP", "off")
        .env("POLYSHM_HOSTILE_IMAGES", hostile::FEW_IMAGES);
    step.run_tests(command)?;
    Ok(step.outcome())
}
