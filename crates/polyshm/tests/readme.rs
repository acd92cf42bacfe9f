//! The repository's README shows the programs of the crate page, which are
//! tested there.

use std::{fs, path::Path};

/// The fenced Rust blocks, without the lines that rustdoc hides.
fn programs(markdown: &str) -> Vec<String> {
    let mut programs = Vec::new();
    let mut lines = markdown.lines();
    while lines.by_ref().any(|line| line == "```rust") {
        let shown = lines
            .by_ref()
            .take_while(|&line| line != "```")
            .filter(|line| !line.trim_start().starts_with("# "));
        programs.push(shown.collect::<Vec<_>>().join("\n"));
    }
    programs
}

#[test]
fn readme_shows_tested_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let Ok(readme) = fs::read_to_string(&path) else {
        println!("SKIPPED: a packaged crate has no repository around it");
        return;
    };
    let tested = programs(include_str!("../README.md"));
    let shown = programs(&readme);
    assert!(!shown.is_empty(), "README.md shows no program");
    for program in shown {
        assert!(
            tested.contains(&program),
            "README.md shows a program that crates/polyshm/README.md does not:\n{program}"
        );
    }
}
