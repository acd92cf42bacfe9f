//! `cargo xtask interop`: data exchanged with Python: the released ZeroBuffer package, and a peer of
//! our own that speaks the slot format as the original does.
//!
//! The Python packages live in a virtual environment below `target/`, made once per set of pins.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::run::{Outcome, Step, Workspace};

/// Exact versions: the peer must not change under us. Of numpy, which only carries arrays, no
/// version is there for every Python.
const PINS: [&str; 3] = [
    "zerobuffer-ipc==1.3.0",
    "posix-ipc==1.3.2",
    "numpy>=1.22,<3",
];

/// Names the interpreter and the pins that a finished environment was made with.
const MARKER: &str = "polyshm-pins.txt";

/// The interpreter is usable if this prints its version; `venv` needs `ensurepip`, which Debian
/// packages apart.
const PROBE: &str = "import sys; assert sys.version_info >= (3, 9); print(sys.version)";
const PROBE_VENV: &str = "import venv, ensurepip";

const INSTALL_PYTHON: &str =
    "install Python 3.9 or newer (Debian: `apt-get install python3 python3-venv`)";

pub(crate) fn run(step: &mut Step<'_>) -> Result<Outcome> {
    if !cfg!(target_os = "linux") {
        return Ok(Outcome::Skipped(
            "the pinned Python packages are for Linux; run this there".into(),
        ));
    }
    let Some((python, version)) = find_python(step.workspace) else {
        return Ok(step.missing(format!("no usable `python3` in PATH; {INSTALL_PYTHON}")));
    };
    let venv = step.workspace.reports.join("venv");
    let interpreter = venv.join("bin").join("python");
    let wanted = marker_text(&version);
    if fs::read_to_string(venv.join(MARKER)).is_ok_and(|found| found == wanted)
        && interpreter.exists()
    {
        println!("using the environment in {}", step.workspace.show(&venv));
    } else if let Some(outcome) = make_venv(step, &python, &venv, &interpreter)? {
        return Ok(outcome);
    } else {
        let marker = venv.join(MARKER);
        // Last, so that an interrupted installation is not taken for a finished one.
        fs::write(&marker, wanted)
            .with_context(|| format!("could not write {}", marker.display()))?;
    }

    for package in ["polyshm-zerobuffer", "polyshm-slots"] {
        let mut command = step.cargo_test(&["-p", package, "--test", "interop"]);
        command
            .args(["--features", "testing"])
            .env("POLYSHM_PYTHON", &interpreter)
            .env_remove("POLYSHM_INTEROP");
        if package == "polyshm-slots" {
            // It tells what it has counted.
            command.args(["--", "--nocapture"]);
        }
        step.run_tests(command)?;
    }
    Ok(step.outcome())
}

/// The first suitable interpreter and its version.
fn find_python(workspace: &Workspace) -> Option<(PathBuf, String)> {
    ["python3", "python"].into_iter().find_map(|name| {
        let output = workspace.program(name).args(["-c", PROBE]).output().ok()?;
        output.status.success().then(|| {
            (
                PathBuf::from(name),
                String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            )
        })
    })
}

/// Makes the environment from nothing; an outcome if that cannot be done.
fn make_venv(
    step: &mut Step<'_>,
    python: &Path,
    venv: &Path,
    interpreter: &Path,
) -> Result<Option<Outcome>> {
    if !quiet_success(step.workspace.program(python).args(["-c", PROBE_VENV])) {
        return Ok(Some(step.missing(format!(
            "`{}` lacks venv or ensurepip; install it (Debian: `apt-get install python3-venv`)",
            python.display()
        ))));
    }
    // What an interrupted or older installation left is not worth repairing.
    if venv.exists() {
        fs::remove_dir_all(venv).with_context(|| format!("could not remove {}", venv.display()))?;
    }
    let mut create = step.workspace.program(python);
    create.args(["-m", "venv"]).arg(venv);
    if !step.run(create)? {
        return Ok(Some(step.outcome()));
    }
    let mut install = step.workspace.program(interpreter);
    install
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(PINS);
    if !step.run(install)? {
        return Ok(Some(step.missing(format!(
            "pip could not install {}; it needs PyPI or a configured package index",
            PINS.join(" ")
        ))));
    }
    Ok(None)
}

fn quiet_success(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

fn marker_text(version: &str) -> String {
    format!("{version}\n{}\n", PINS.join("\n"))
}
