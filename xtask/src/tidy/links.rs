//! Relative links in Markdown lead to files of the repository.

use anyhow::Result;

use super::{Problems, files, markdown};
use crate::run::Workspace;

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let mut problems = Vec::new();
    for file in files::with_extension(workspace, "md")? {
        for (line, target) in targets(&file.text) {
            let Some(path) = relative_path(&target) else {
                continue;
            };
            let base = file.path.parent().unwrap_or(&workspace.root);
            let found = base.join(&path).canonicalize();
            let inside = match (&found, workspace.root.canonicalize()) {
                (Ok(found), Ok(root)) => found.starts_with(root),
                _ => false,
            };
            if !inside {
                problems.push(format!(
                    "{}:{line}: the link to {target} leads to no file of the repository; correct it",
                    file.name
                ));
            }
        }
    }
    Ok(problems)
}

/// Link targets with their lines, outside code.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for line in markdown::lines(text).iter().filter(|line| !line.code) {
        let plain = markdown::without_code_spans(line.text);
        for (at, _) in plain.match_indices("](") {
            targets.extend(inline_target(&plain[at + 2..]).map(|target| (line.number, target)));
        }
        targets.extend(definition_target(&plain).map(|target| (line.number, target)));
    }
    targets
}

/// What follows `](`, up to the closing parenthesis, without a title.
fn inline_target(rest: &str) -> Option<String> {
    let rest = rest.trim_start();
    if let Some(bracketed) = rest.strip_prefix('<') {
        return bracketed
            .split_once('>')
            .map(|(target, _)| target.to_owned());
    }
    let mut depth = 0;
    let end = rest.find(|c: char| {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return true,
            ')' => depth -= 1,
            _ => {}
        }
        c.is_whitespace()
    })?;
    Some(rest[..end].to_owned())
}

/// `[label]: target`; a footnote is none.
fn definition_target(line: &str) -> Option<String> {
    let (label, rest) = line.trim_start().strip_prefix('[')?.split_once("]:")?;
    if label.contains(['[', ']']) || label.starts_with('^') {
        return None;
    }
    let target = rest.split_whitespace().next()?;
    Some(
        target
            .trim_start_matches('<')
            .trim_end_matches('>')
            .to_owned(),
    )
}

/// The file that a target names; none if it is an address, an anchor, or a path of an item for
/// rustdoc, which checks those itself.
fn relative_path(target: &str) -> Option<String> {
    let path = target.split(['#', '?']).next()?;
    let address = path
        .split('/')
        .next()
        .is_some_and(|start| start.contains(':'));
    (!path.is_empty() && !address).then(|| path.replace("%20", " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        targets(text)
            .into_iter()
            .map(|(_, target)| target)
            .collect()
    }

    #[test]
    fn links_are_found() {
        assert_eq!(
            found("[a](b.md) ![c](d.png \"title\") [`e`](f(1).md)"),
            ["b.md", "d.png", "f(1).md"]
        );
        assert_eq!(
            found("[a]: b.md\n[^1]: note\n[c](<d e.md>)"),
            ["b.md", "d e.md"]
        );
        assert_eq!(found("```\n[a](b.md)\n```\n`[c](d.md)`"), [""; 0]);
        assert_eq!(targets("x\n[a](b.md)"), [(2, "b.md".to_owned())]);
    }

    #[test]
    fn only_relative_paths_are_checked() {
        assert_eq!(
            relative_path("docs/a.md#part").as_deref(),
            Some("docs/a.md")
        );
        assert_eq!(relative_path("a%20b.md").as_deref(), Some("a b.md"));
        for target in [
            "#part",
            "https://example.org/a",
            "mailto:a@example.org",
            "crate::Writer",
        ] {
            assert_eq!(relative_path(target), None, "{target}");
        }
    }
}
