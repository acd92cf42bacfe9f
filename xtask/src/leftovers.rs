//! `cargo xtask leftovers`: tests remove every shared object they make.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::run::{Outcome, Step};

/// Where segments, semaphores and lock files are.
const PLACES: [&str; 2] = ["/dev/shm", "/tmp/zerobuffer"];

/// Peers of a test that just ended may still be removing theirs.
const GRACE: Duration = Duration::from_secs(2);

/// What was there before the tests.
#[derive(Debug)]
pub(crate) struct Snapshot(BTreeSet<PathBuf>);

impl Snapshot {
    pub(crate) fn take() -> Self {
        Self(
            PLACES
                .iter()
                .flat_map(|place| ours_in(Path::new(place)))
                .collect(),
        )
    }

    /// With this as the start, everything of ours is a leftover.
    pub(crate) fn empty() -> Self {
        Self(BTreeSet::new())
    }
}

pub(crate) fn run(step: &mut Step<'_>, before: &Snapshot) -> Outcome {
    if !cfg!(target_os = "linux") {
        return Outcome::Skipped("shared objects can be listed on Linux only".into());
    }
    let started = Instant::now();
    let new = loop {
        let new: Vec<PathBuf> = Snapshot::take().0.difference(&before.0).cloned().collect();
        if new.is_empty() || started.elapsed() > GRACE {
            break new;
        }
        thread::sleep(Duration::from_millis(100));
    };
    for path in &new {
        println!("left behind: {}", path.display());
    }
    if !new.is_empty() {
        step.fail(format!(
            "{} left behind in {}; find the test by the name, make it clean up, then remove them",
            new.len(),
            PLACES.join(" and ")
        ));
    }
    step.outcome()
}

fn ours_in(place: &Path) -> Vec<PathBuf> {
    // An absent directory holds nothing.
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
        .map(|entry| entry.path())
        .collect()
}

/// All tests name their segments `polyshm-...`; a semaphore `sem-w-NAME` is the file
/// `sem.sem-w-NAME`, an ESHM channel is `eshm_NAME`, and a slot segment is also
/// `polyshm-kept.NAME`.
fn is_ours(name: &str) -> bool {
    let semaphore = || {
        let mut rest = name.strip_prefix("sem.sem-")?.chars();
        rest.next()?;
        rest.as_str().strip_prefix('-')
    };
    // Whose second name it is, is in the rest of it.
    let name = name.strip_prefix("polyshm-kept.").unwrap_or(name);
    let names = [Some(name), semaphore(), name.strip_prefix("eshm_")];
    names
        .iter()
        .flatten()
        .any(|name| name.starts_with("polyshm-"))
}

#[cfg(test)]
mod tests {
    use super::is_ours;

    #[test]
    fn only_our_names_are_ours() {
        for name in [
            "polyshm-a-1",
            "polyshm-a-1.lock",
            "sem.sem-w-polyshm-a-1",
            "sem.sem-r-polyshm-a",
            "eshm_polyshm-a",
            "polyshm-kept.polyshm-a",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "camera",
            "sem.sem-w-camera",
            "sem.polyshm-a",
            "sem.sem-",
            "sem.sem-wr-polyshm-a",
            "eshm_demo",
            "polyshm-kept.camera",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }
}
