//! Names of segments.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A name that nobody else has; whatever is left of it is removed on drop.
#[derive(Debug)]
pub struct Name(pub String);

impl Name {
    /// `polyshm-TEST-PID-NUMBER`.
    pub fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only uniqueness is wanted.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("polyshm-{test}-{}-{number}", std::process::id()))
    }

    /// The files that exist of this name, in all places where a protocol makes
    /// some.
    pub fn files(&self) -> Vec<PathBuf> {
        let name = &self.0;
        let lock = format!("{name}.lock");
        [
            Path::new("/dev/shm").join(name),
            Path::new("/dev/shm").join(format!("eshm_{name}")),
            // What a slot segment's creator keeps it by when others remove its name.
            Path::new("/dev/shm").join(format!("polyshm-kept.{name}")),
            Path::new("/dev/shm").join(format!("sem.sem-w-{name}")),
            Path::new("/dev/shm").join(format!("sem.sem-r-{name}")),
            Path::new("/tmp/zerobuffer").join(&lock),
            std::env::temp_dir().join("zerobuffer/locks").join(&lock),
        ]
        .into_iter()
        .filter(|path| path.exists())
        .collect()
    }

    /// Fails when anything of this name is left.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.files(), Vec::<PathBuf>::new(), "left behind");
    }
}

impl std::ops::Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        for path in self.files() {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_say_whose_they_are() {
        let (one, other) = (Name::new("kit"), Name::new("kit"));
        assert_ne!(*one, *other);
        assert!(one.starts_with("polyshm-kit-"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_left_is_found_and_removed() {
        let name = Name::new("kit-left");
        name.assert_nothing_left();
        let files = [name.to_string(), format!("polyshm-kept.{}", &*name)];
        let files = files.map(|file| Path::new("/dev/shm").join(file));
        for path in &files {
            std::fs::write(path, "left").expect("it can be written");
        }
        assert_eq!(name.files(), files);
        drop(name);
        assert!(!files.iter().any(|path| path.exists()));
    }
}
