//! Commands in the fenced blocks of Markdown exist.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::{CommandFactory as _, error::ErrorKind};
use serde_json::Value;

use super::{Problems, architecture, files, markdown};
use crate::{Cli, run::Workspace};

/// The names that a command may use.
#[derive(Debug, Default)]
struct Known {
    packages: BTreeSet<String>,
    examples: BTreeSet<String>,
    binaries: BTreeSet<String>,
}

pub(super) fn check(workspace: &Workspace) -> Result<Problems> {
    let known = known(&architecture::metadata(workspace)?);
    let mut problems = Vec::new();
    for file in files::with_extension(workspace, "md")? {
        for (line, command) in commands(&file.text) {
            let words: Vec<&str> = command.split_whitespace().collect();
            problems.extend(
                wrong(&words, &known)
                    .map(|why| format!("{}:{line}: `{command}`: {why}", file.name)),
            );
        }
    }
    Ok(problems)
}

fn known(metadata: &Value) -> Known {
    let mut known = Known::default();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        known
            .packages
            .extend(package["name"].as_str().map(str::to_owned));
        for target in package["targets"].as_array().into_iter().flatten() {
            let Some(name) = target["name"].as_str() else {
                continue;
            };
            for kind in target["kind"].as_array().into_iter().flatten() {
                match kind.as_str() {
                    Some("example") => known.examples.insert(name.to_owned()),
                    Some("bin") => known.binaries.insert(name.to_owned()),
                    _ => false,
                };
            }
        }
    }
    known
}

/// `cargo ...` commands in fenced blocks, each with its line, cut at comments and shell operators.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    let mut lines = markdown::lines(text).into_iter().filter(|line| line.code);
    while let Some(line) = lines.next() {
        let mut full = line.text.to_owned();
        while let Some(open) = full.strip_suffix('\\') {
            let Some(next) = lines.next() else { break };
            full = format!("{open} {}", next.text);
        }
        let full = full.split(" #").next().unwrap_or_default();
        for part in full.split(['|', ';', '&', '>']) {
            if let Some(at) = part.find("cargo ") {
                commands.push((line.number, part[at..].trim().to_owned()));
            }
        }
    }
    commands
}

/// What is wrong with the command, if it is one that can be judged.
fn wrong(words: &[&str], known: &Known) -> Option<String> {
    match words {
        ["cargo", "xtask"] => None,
        ["cargo", "xtask", args @ ..] => wrong_xtask(args),
        ["cargo", "run", args @ ..] => {
            // What follows is for the program.
            let args = args.split(|&arg| arg == "--").next().unwrap_or_default();
            wrong_run(args, known)
        }
        _ => None,
    }
}

fn wrong_xtask(args: &[&str]) -> Option<String> {
    let error = Cli::command()
        .try_get_matches_from(std::iter::once(&"cargo xtask").chain(args))
        .err()
        .filter(|error| {
            !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            )
        })?;
    let first = error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    Some(format!("{first}; see `cargo xtask --help`"))
}

fn wrong_run(args: &[&str], known: &Known) -> Option<String> {
    let value = |names: &[&str]| {
        args.iter()
            .enumerate()
            .find_map(|(at, arg)| match arg.split_once('=') {
                Some((name, value)) if names.contains(&name) => Some(value),
                None if names.contains(arg) => args.get(at + 1).copied(),
                _ => None,
            })
    };
    [
        ("package", &["-p", "--package"][..], &known.packages),
        ("example", &["--example"][..], &known.examples),
        ("binary", &["--bin"][..], &known.binaries),
    ]
    .into_iter()
    .find_map(|(what, names, known)| {
        let name = value(names).filter(|&name| !known.contains(name))?;
        Some(format!(
            "the workspace has no {what} `{name}`; correct the name"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(command: &str) -> Option<String> {
        let set = |name: &str| BTreeSet::from([name.to_owned()]);
        let known = Known {
            packages: set("polyshm"),
            examples: set("frames"),
            binaries: set("paired"),
        };
        wrong(&command.split_whitespace().collect::<Vec<_>>(), &known)
    }

    #[test]
    fn commands_are_found_in_fences_only() {
        let text = "cargo xtask no\n```sh\n$ A=1 cargo xtask fmt # why\ncargo run \\\n  --example x && cargo xtask tidy\n```\n";
        assert_eq!(
            commands(text),
            [
                (3, "cargo xtask fmt".to_owned()),
                (4, "cargo run    --example x".to_owned()),
                (4, "cargo xtask tidy".to_owned()),
            ]
        );
    }

    #[test]
    fn existing_commands_pass() {
        for command in [
            "cargo xtask",
            "cargo xtask --help",
            "cargo xtask test-all --only fmt,tidy",
            "cargo xtask hostile --images 10",
            "cargo xtask bench --no-iceoryx2 -- --blocks 3",
            "cargo run --release -p polyshm --example frames -- --example other",
            "cargo run --bin=paired",
            "cargo add polyshm",
        ] {
            assert_eq!(judge(command), None, "{command}");
        }
    }

    #[test]
    fn absent_commands_are_found() {
        for command in [
            "cargo xtask windows",
            "cargo xtask test-all --only nothing",
            "cargo run -p polyshm --example absent",
            "cargo run --package=absent",
            "cargo run --bin absent",
        ] {
            assert!(judge(command).is_some(), "{command}");
        }
    }
}
