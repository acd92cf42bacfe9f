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
        "vectors_eshm",
        "--test",
        "vectors_slots",
        "--test",
        "vectors_zeroipc",
        "--all-features",
    ]))?;
    // The same images, read and written by the protocols themselves.
    for package in ["polyshm-eshm", "polyshm-slots", "polyshm-zeroipc"] {
        step.run_tests(step.cargo_test(&[
            "-p",
            package,
            "--test",
            "vectors",
            "--features",
            "testing",
        ]))?;
    }
    Ok(step.outcome())
}
