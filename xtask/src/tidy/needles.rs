//! Nothing unfinished is committed.

use anyhow::Result;

use super::{Problems, files};
use crate::run::Workspace;

/// Put together here so that this file does not find itself.
const NEEDLES: [(&str, &str); 4] = [
    (concat!("to", "do!("), "write the code"),
    (
        concat!("unimple", "mented!("),
        "write the code, or return an error that says so",
    ),
    (concat!("FIX", "ME"), "fix it, or describe the limit"),
    (
        concat!("#[ign", "ore"),
        "log a SKIPPED line at run time instead, so that it is counted",
    ),
];

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let mut problems = Vec::new();
    for file in files::with_extension(workspace, "rs")? {
        problems.extend(
            found(&file.text).into_iter().map(|(line, needle, advice)| {
                format!("{}:{line}: `{needle}`: {advice}", file.name)
            }),
        );
    }
    Ok(problems)
}

fn found(text: &str) -> Vec<(usize, &'static str, &'static str)> {
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        for (needle, advice) in NEEDLES {
            if line.contains(needle) {
                found.push((number, needle, advice));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_needle_is_found_and_this_file_is_clean() {
        for (needle, _) in NEEDLES {
            assert_eq!(
                found(&format!("fn a() {{\n    {needle}")).len(),
                1,
                "{needle}"
            );
        }
        assert_eq!(found(include_str!("needles.rs")), []);
    }
}
