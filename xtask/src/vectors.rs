//! `cargo xtask vectors`: the codecs against the golden byte images.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    step.run_tests(step.cargo_test(&[
        "-p",
        "polyshm-wire",
        "--test",
        "vectors",
        "--test",
        "vectors_zeroipc",
        "--all-features",
    ]))?;
    Ok(step.outcome())
}
