//! `cargo xtask tidy`: prose and structure against the code.

mod architecture;
mod commands;
mod files;
mod layouts;
mod links;
mod markdown;
mod needles;
mod rust_source;
mod unsafe_code;

use anyhow::Result;

use crate::run::{Outcome, Step, Workspace};

/// One finding: `file:line: what is wrong and what to do`.
type Problems = Vec<String>;

type Check = fn(&Workspace) -> Result<Problems>;

pub(crate) fn run(step: &mut Step<'_>) -> Outcome {
    let checks: [(&str, Check); 6] = [
        ("layout tables match the structs", layouts::check),
        ("unsafe code is where it may be", unsafe_code::check),
        ("nothing is left to do", needles::check),
        ("relative links lead somewhere", links::check),
        ("dependencies point down", architecture::check),
        ("documented commands exist", commands::check),
    ];
    for (title, check) in checks {
        let problems = match check(step.workspace) {
            Ok(problems) => problems,
            Err(error) => vec![format!("{error:#}")],
        };
        if problems.is_empty() {
            println!("ok: {title}");
        } else {
            println!("failed: {title}");
            for problem in problems {
                println!("  {problem}");
                step.fail(problem);
            }
        }
    }
    step.outcome()
}
