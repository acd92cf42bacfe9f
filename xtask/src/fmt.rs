//! `cargo xtask fmt`.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if let Some(missing) = step.missing_component("rustfmt", "fmt") {
        return Ok(missing);
    }
    step.run(step.cargo(&["fmt", "--all", "--", "--check"]))?;
    Ok(step.outcome())
}
