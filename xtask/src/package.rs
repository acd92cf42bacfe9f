//! `cargo xtask package`: what a release would upload, built from its packages.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    // Dry: nothing is uploaded. With `--workspace` cargo lets the packages find each other in a
    // temporary registry though none is published yet, builds each from its package, and leaves
    // out those with `publish = false`.
    step.run(step.cargo(&["publish", "--dry-run", "--workspace", "--allow-dirty"]))?;
    Ok(step.outcome())
}
