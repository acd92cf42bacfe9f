//! Names of everything that a run creates, and their removal.

use polyshm_platform::process;
use std::{
    fs,
    path::{Path, PathBuf},
};

const STEM: &str = "polyshm-bench-";

/// Removes what this run created when it is dropped, also by a panic.
#[derive(Debug)]
pub struct Guard(());

impl Guard {
    /// Also removes what runs that were killed have left.
    #[must_use]
    pub fn new() -> Self {
        for prefix in abandoned() {
            remove(&prefix);
        }
        Self(())
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        remove(&prefix());
    }
}

/// What all names of this run start with.
#[must_use]
pub fn prefix() -> String {
    format!("{STEM}{}-", std::process::id())
}

/// The directories that contenders create files in.
fn directories() -> [PathBuf; 5] {
    let temporary = std::env::temp_dir();
    [
        PathBuf::from("/dev/shm"),
        PathBuf::from("/tmp/zerobuffer"),
        temporary.join("zerobuffer"),
        temporary.join("zerobuffer/locks"),
        temporary,
    ]
}

/// Removes every file and directory whose name starts with `prefix`, and the
/// semaphores of buffers that do.
pub fn remove(prefix: &str) {
    each_name(|path, name| {
        if !name.starts_with(prefix) {
            return;
        }
        // Somebody else may have removed it first; nothing depends on it.
        let _ = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    });
}

/// Prefixes of runs whose process is gone.
fn abandoned() -> Vec<String> {
    let mut found = Vec::new();
    each_name(|_, name| {
        let pid = name
            .strip_prefix(STEM)
            .and_then(|rest| rest.split_once('-'))
            .and_then(|(pid, _)| pid.parse().ok());
        if let Some(pid) = pid.filter(|&pid| !process::is_alive(pid)) {
            found.push(format!("{STEM}{pid}-"));
        }
    });
    found.sort();
    found.dedup();
    found
}

/// Gives each entry, and its name without what the file of a semaphore, of an
/// ESHM channel, or of a segment's second name has in front.
fn each_name(mut look: impl FnMut(&Path, &str)) {
    for directory in directories() {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let bare = ["sem.sem-w-", "sem.sem-r-", "eshm_", "polyshm-kept."]
                .iter()
                .find_map(|front| name.strip_prefix(front))
                .unwrap_or(name);
            look(&entry.path(), bare);
        }
    }
}
