//! The repository's files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::run::Workspace;

/// A text file of the repository.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Below the root, with forward slashes.
    pub(super) name: String,
    pub(super) text: String,
}

/// Files with this extension that git tracks or would track, sorted by name.
pub(super) fn with_extension(workspace: &Workspace, extension: &str) -> Result<Vec<File>> {
    let mut names = if let Some(names) = listed_by_git(workspace) {
        names
    } else {
        // An unpacked archive has no repository.
        let mut names = Vec::new();
        walk(&workspace.root, "", &mut names)?;
        names
    };
    names.sort();
    names.dedup();
    let mut files = Vec::new();
    for name in names {
        let path = workspace.root.join(&name);
        // Tracked files may be deleted in the working tree.
        if path.extension().is_some_and(|found| found == extension) && path.is_file() {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("could not read {name}; text files are UTF-8"))?;
            files.push(File { path, name, text });
        }
    }
    Ok(files)
}

fn listed_by_git(workspace: &Workspace) -> Option<Vec<String>> {
    let output = workspace
        .program("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.split_terminator('\0').map(str::to_owned).collect())
}

fn walk(dir: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("could not list {}", dir.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("could not list {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), names)?;
        } else {
            names.push(path);
        }
    }
    Ok(())
}
