//! `cargo xtask crash`: a process dies before each of its numbered operations in turn.

use anyhow::Result;

use crate::run::{Outcome, Step};

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if !cfg!(unix) {
        return Ok(Outcome::Skipped(
            "crash points die by SIGKILL; run this on Linux".into(),
        ));
    }
    step.forget_report("crash.json")?;
    let mut command = step.cargo_test(&["-p", "polyshm-zerobuffer", "--test", "crash"]);
    command
        .args(["--features", "testing", "--target-dir"])
        .arg(step.workspace.target.join("crash"))
        .args(["--", "--nocapture"]);
    Step::add_rustflags(&mut command, "--cfg crash_points");
    if step.run_tests(command)? {
        step.show_report("crash.json")?;
    }
    Ok(step.outcome())
}
