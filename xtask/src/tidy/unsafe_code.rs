//! Unsafe code lives in polyshm-platform, in one audited module per protocol crate, and where C
//! comes in.

use anyhow::Result;

use super::{
    Problems, files,
    rust_source::{code_only, has_word},
};
use crate::run::Workspace;

const HOME: &str = "crates/polyshm-platform/";

/// Audited modules outside it; each explains why it cannot be there.
const AUDITED: [&str; 5] = [
    "crates/polyshm-eshm-c/src/abi.rs",
    "crates/polyshm-eshm-c/src/data_handler.rs",
    "crates/polyshm-eshm-c/src/raw.rs",
    "crates/polyshm-zerobuffer/src/lend.rs",
    "crates/polyshm-zeroipc/src/view.rs",
];

/// Crates that need none at all.
const FORBID: [&str; 3] = ["polyshm", "polyshm-testkit", "polyshm-wire"];

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let mut problems = Vec::new();
    for file in files::with_extension(workspace, "rs")? {
        let Some(path) = file.name.strip_prefix("crates/") else {
            continue;
        };
        if file.name.starts_with(HOME) {
            continue;
        }
        let code = code_only(&file.text);
        if !AUDITED.contains(&file.name.as_str()) {
            problems.extend(unsafe_lines(&code).map(|line| {
                format!(
                    "{}:{line}: unsafe code; move it into polyshm-platform behind a safe call",
                    file.name
                )
            }));
        }
        if let Some(name) = path.strip_suffix("/src/lib.rs") {
            let levels: &[&str] = if FORBID.contains(&name) {
                &["forbid"]
            } else {
                &["deny", "forbid"]
            };
            if !levels.iter().any(|level| sets_level(&code, level)) {
                problems.push(format!(
                    "{}: lacks #![{}(unsafe_code)]",
                    file.name, levels[0]
                ));
            }
        }
    }
    Ok(problems)
}

fn unsafe_lines(code: &str) -> impl Iterator<Item = usize> {
    code.lines()
        .zip(1..)
        .filter(|(line, _)| has_word(line, "unsafe"))
        .map(|(_, number)| number)
}

/// Whether the crate's attributes set this level for unsafe code.
fn sets_level(code: &str, level: &str) -> bool {
    let dense: String = code.split_whitespace().collect();
    let opening = format!("#![{level}(");
    dense.match_indices(&opening).any(|(at, _)| {
        let rest = &dense[at + opening.len()..];
        rest.split(')')
            .next()
            .is_some_and(|lints| has_word(lints, "unsafe_code"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_must_be_the_crates() {
        assert!(sets_level("#![forbid(unsafe_code)]", "forbid"));
        assert!(sets_level(
            "#![deny(\n    missing_docs,\n    unsafe_code,\n)]",
            "deny"
        ));
        assert!(!sets_level("#[deny(unsafe_code)]\nmod a;", "deny"));
        assert!(!sets_level(
            "#![deny(missing_docs)]\n#[allow(unsafe_code)]",
            "deny"
        ));
    }

    #[test]
    fn unsafe_code_is_found_by_line() {
        let code = code_only("// unsafe\nfn a() {}\nunsafe fn b() {}\n#[allow(unsafe_code)]\n");
        assert_eq!(unsafe_lines(&code).collect::<Vec<_>>(), [3]);
    }
}
