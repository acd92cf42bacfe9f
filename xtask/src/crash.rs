//! `cargo xtask crash`: a process dies before each of its numbered operations in turn.

use anyhow::Result;

use crate::{
    protocols::{self, Check},
    run::{Outcome, Step},
};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if !cfg!(unix) {
        return Ok(Outcome::Skipped(
            "crash points die by SIGKILL; run this on Linux".into(),
        ));
    }
    for protocol in protocols::with(Check::Crash) {
        let report = protocol.report(Check::Crash);
        step.forget_report(&report)?;
        let mut command = step.cargo_test(&[]);
        protocol.select(Check::Crash, &mut command);
        command
            .arg("--target-dir")
            .arg(step.workspace.target.join("crash"))
            .args(["--", "--nocapture"]);
        Step::add_rustflags(&mut command, "--cfg crash_points");
        if step.run_tests(command)? {
            step.show_report(&report)?;
        }
    }
    Ok(step.outcome())
}
