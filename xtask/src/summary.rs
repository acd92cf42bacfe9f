//! The table at the end.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    libtest::Counts,
    run::{Finished, Outcome},
};

/// The table, its foot, and the closing line.
pub(crate) fn render(steps: &[Finished]) -> String {
    let mut out = String::from("\n");
    let rows: Vec<[String; 4]> = steps.iter().map(row).collect();
    let heads = ["step", "result", "passed/failed/ignored", "seconds"].map(str::to_owned);
    let mut widths = heads.each_ref().map(String::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&heads).chain(&rows) {
        let [step, result, tests, seconds] = row;
        let [a, b, c, d] = widths;
        let _ = writeln!(out, "{step:a$} | {result:b$} | {tests:>c$} | {seconds:>d$}");
    }

    // Reasons are too long for a column.
    for step in steps {
        match &step.outcome {
            Outcome::Passed => {}
            Outcome::Failed(why) => {
                let _ = writeln!(out, "{} failed: {why}", step.name);
            }
            Outcome::Skipped(why) => {
                let _ = writeln!(out, "{} SKIPPED: {why}", step.name);
            }
        }
    }
    for step in steps {
        for line in step.notes.iter().chain(&step.skips) {
            let _ = writeln!(out, "{}: {line}", step.name);
        }
    }

    let Counts {
        passed,
        failed,
        ignored,
    } = total(steps);
    let _ = writeln!(
        out,
        "\ntotal: {passed} passed, {failed} failed, {ignored} skipped"
    );
    out
}

fn row(step: &Finished) -> [String; 4] {
    let result = match &step.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed(_) => "failed",
        Outcome::Skipped(_) => "SKIPPED",
    };
    let Counts {
        passed,
        failed,
        ignored,
    } = step.tests;
    let tests = if step.tests == Counts::default() {
        "-".to_owned()
    } else {
        format!("{passed}/{failed}/{ignored}")
    };
    [
        step.name.to_owned(),
        result.to_owned(),
        tests,
        format!("{:.1}", step.seconds),
    ]
}

/// The sums of tests. A test that logged its own skip passed for libtest, so it moves from passed
/// to skipped; a step that failed or was skipped as a whole counts as one, so that the closing
/// line never hides it.
fn total(steps: &[Finished]) -> Counts {
    let mut total = Counts::default();
    for step in steps {
        let mut tests = step.tests;
        // A test may log more than one line; it is one test.
        let names: BTreeSet<&str> = step
            .skips
            .iter()
            .map(|line| line.split(':').next().unwrap_or(line))
            .collect();
        let skipped = names.len() as u64;
        tests.passed = tests.passed.saturating_sub(skipped);
        tests.ignored += skipped;
        match step.outcome {
            Outcome::Failed(_) if tests.failed == 0 => tests.failed = 1,
            Outcome::Skipped(_) => tests.ignored += 1,
            _ => {}
        }
        total += tests;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &'static str, outcome: Outcome, passed: u64, failed: u64) -> Finished {
        Finished {
            name,
            outcome,
            tests: Counts {
                passed,
                failed,
                ignored: 0,
            },
            skips: Vec::new(),
            notes: Vec::new(),
            seconds: 1.25,
        }
    }

    #[test]
    fn closing_line_stands_alone_at_the_end() {
        let text = render(&[step("test", Outcome::Passed, 512, 0)]);
        assert!(
            text.ends_with("\n\ntotal: 512 passed, 0 failed, 0 skipped\n"),
            "{text}"
        );
    }

    #[test]
    fn logged_skips_are_not_passes() {
        let mut skipping = step("test", Outcome::Passed, 10, 0);
        skipping.skips = [
            "SKIPPED a: needs root",
            "SKIPPED a: needs root too",
            "SKIPPED b: x",
        ]
        .map(String::from)
        .into();
        let text = render(&[skipping]);
        assert!(text.contains("test: SKIPPED a: needs root\n"), "{text}");
        assert!(
            text.ends_with("total: 8 passed, 0 failed, 2 skipped\n"),
            "{text}"
        );
    }

    #[test]
    fn whole_steps_show_in_the_closing_line() {
        let text = render(&[
            step("clippy", Outcome::Failed("exit status: 101".into()), 0, 0),
            step("test", Outcome::Failed("exit status: 101".into()), 5, 2),
            step("interop", Outcome::Skipped("no python3".into()), 0, 0),
        ]);
        assert!(text.contains("interop SKIPPED: no python3\n"), "{text}");
        assert!(text.contains("clippy failed: exit status: 101\n"), "{text}");
        assert!(
            text.ends_with("total: 5 passed, 3 failed, 1 skipped\n"),
            "{text}"
        );
    }
}
