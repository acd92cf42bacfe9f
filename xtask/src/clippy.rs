//! `cargo xtask clippy`: every way in which the code is built.

use anyhow::Result;

use crate::{
    protocols,
    run::{Outcome, Step},
};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if let Some(missing) = step.missing_component("clippy", "clippy") {
        return Ok(missing);
    }
    let deny = ["--", "-D", "warnings"];
    let mut plain = step.cargo(&["clippy", "--workspace", "--all-targets"]);
    plain.args(deny);
    step.run(plain)?;

    // The benchmarks' optional rivals take long to build and are no part of what ships.
    let mut features = step.cargo(&["clippy", "--workspace", "--all-targets", "--all-features"]);
    features.args(["--exclude", "polyshm-benches"]).args(deny);
    step.run(features)?;

    // Own target directories: other flags would throw away the usual build each time.
    for (cfg, dir) in [("loom", "loom"), ("crash_points", "crash")] {
        let mut command = step.cargo(&["clippy"]);
        protocols::select_all(&mut command, |_| true);
        command
            .args(["--all-targets", "--target-dir"])
            .arg(step.workspace.target.join(dir))
            .args(deny);
        Step::add_rustflags(&mut command, &format!("--cfg {cfg}"));
        step.run(command)?;
    }
    Ok(step.outcome())
}
