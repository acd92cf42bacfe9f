//! What the process tests share: unique names, children of this very binary,
//! skips that count.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A name that nobody else has; whatever is left of it is removed on drop.
pub struct Name(pub String);

impl Name {
    pub fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only uniqueness is wanted.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(format!("polyshm-{test}-{}-{number}", std::process::id()))
    }

    /// The files that exist of this name.
    pub fn files(&self) -> Vec<PathBuf> {
        let name = &self.0;
        let lock = format!("{name}.lock");
        [
            Path::new("/dev/shm").join(name),
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

/// Notes that a test could not run, where xtask counts it.
pub fn skip(test: &str, reason: &str) {
    println!("SKIPPED {test}: {reason}");
    if let Some(log) = std::env::var_os("POLYSHM_SKIP_LOG") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(log);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "SKIPPED {test}: {reason}");
        }
    }
}

/// The argument string of a child; `None` in the parent.
pub fn role() -> Option<String> {
    std::env::var("POLYSHM_TEST_ROLE").ok()
}

/// Starts this test binary again, to run only the test `entry`, which reads
/// `role` and acts on it. Its lines that start with `@` are for the parent.
pub fn child(entry: &str, role: &str) -> Guarded {
    let child = Command::new(std::env::current_exe().expect("the test binary has a path"))
        .args([entry, "--exact", "--nocapture", "--test-threads=1"])
        .env("POLYSHM_TEST_ROLE", role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary starts again");
    Guarded(child)
}

/// A child that does not outlive its test.
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A line for the parent.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// Writes a report beside the others, for xtask to print.
pub fn report(file: &str, json: &serde_json::Value) {
    let Some(directory) = std::env::var_os("POLYSHM_REPORT_DIR") else {
        println!("{file}: {json}");
        return;
    };
    std::fs::create_dir_all(&directory).expect("the report directory can be made");
    let text = serde_json::to_string_pretty(json).expect("a JSON value prints");
    std::fs::write(Path::new(&directory).join(file), text).expect("the report can be written");
}
