//! A Python program over `ctypes` against the library.
//!
//! The library is the one in `POLYSHM_CAPI`, which `cargo xtask capi` makes, or else the one that
//! was built together with this test.
#![cfg(target_os = "linux")]

use polyshm_testkit::{Guarded, Name, Outcome, skip};
use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

fn library() -> PathBuf {
    if let Some(prefix) = env::var_os("POLYSHM_CAPI") {
        return PathBuf::from(prefix).join("lib/libeshm.so");
    }
    // The library has two forms, which are built at once: the other one is linked into this test.
    let test = env::current_exe().expect("the test binary has a path");
    test.with_file_name("libeshm.so")
}

fn python() -> Option<String> {
    let usable = |python: &String| {
        Command::new(python)
            .args([
                "-c",
                "import sys, ctypes; assert sys.version_info >= (3, 7)",
            ])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    ["python3", "python"]
        .map(str::to_owned)
        .into_iter()
        .find(usable)
}

#[test]
fn a_python_program_drives_the_library() {
    let test = "a_python_program_drives_the_library";
    let Some(python) = python() else {
        skip(test, "no Python 3.7 with ctypes in PATH: install python3");
        return;
    };
    let name = Name::new("c-python");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/drive.py");
    let child = Command::new(python)
        // No files beside the source.
        .args(["-B", program])
        .arg(library())
        .arg(&*name)
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let outcome = Outcome::of(Guarded::new(child));
    assert!(
        outcome.lines().iter().any(|line| line == "all is well"),
        "{}",
        outcome.lines().join("\n")
    );
}
