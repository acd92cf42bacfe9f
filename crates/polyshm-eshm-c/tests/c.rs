//! Programs in C and C++ against the header and the library.
//!
//! `cargo xtask capi` makes both and names their folder in `POLYSHM_CAPI`; without that the tests
//! say SKIPPED.
#![cfg(target_os = "linux")]

use polyshm_testkit::{Guarded, Name, Outcome, skip};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Names for the files, the compiler's variable and usual name, and what makes it take the program
/// for one of that language.
const LANGUAGES: [(&str, &str, &str, &[&str]); 3] = [
    ("c99", "CC", "cc", &["-std=c99"]),
    ("c11", "CC", "cc", &["-std=c11"]),
    ("cxx", "CXX", "c++", &["-std=c++11", "-x", "c++"]),
];

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Where header and library are, if the test can run.
fn installed(test: &str) -> Option<PathBuf> {
    let prefix = env::var_os("POLYSHM_CAPI").map(PathBuf::from);
    let unwanted = env::var("POLYSHM_INTEROP").is_ok_and(|value| value == "off");
    if prefix.is_none() && !unwanted {
        skip(test, "POLYSHM_CAPI is not set: run `cargo xtask capi`");
    }
    prefix
}

/// A program in each language, in a folder that goes with it.
struct Programs {
    folder: PathBuf,
    library: PathBuf,
}

impl Programs {
    fn build(prefix: &Path, source: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let stem = source.file_stem().expect("a file's name").display();
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{stem}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let this = Self {
            folder,
            library: prefix.join("lib"),
        };
        for (language, variable, usual, standard) in LANGUAGES {
            let compiler = env::var(variable).unwrap_or_else(|_| usual.to_owned());
            let mut command = Command::new(compiler);
            command.args(standard).args(STRICT).arg(&source);
            // What follows is no source.
            command
                .args(["-x", "none", "-o"])
                .arg(this.folder.join(language));
            command.arg("-I").arg(prefix.join("include"));
            command.arg("-L").arg(&this.library).arg("-leshm");
            let output = command.output().expect("the compiler starts");
            assert!(
                output.status.success() && output.stderr.is_empty(),
                "{command:?}: {}\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        this
    }

    fn start(&self, language: &str, arguments: &[&str]) -> Guarded {
        let child = Command::new(self.folder.join(language))
            .args(arguments)
            .env("LD_LIBRARY_PATH", &self.library)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        Guarded::new(child)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_interface_is_as_documented() {
    let Some(prefix) = installed("the_interface_is_as_documented") else {
        return;
    };
    let programs = Programs::build(&prefix, "tests/interface.c");
    for (language, ..) in LANGUAGES {
        let name = Name::new("c-interface");
        let outcome = Outcome::of(programs.start(language, &[&name]));
        assert!(!outcome.killed());
        name.assert_nothing_left();
    }
}

#[test]
fn the_example_runs_as_two_processes_in_any_pairing() {
    const MESSAGES: &str = "1000";
    let test = "the_example_runs_as_two_processes_in_any_pairing";
    let Some(prefix) = installed(test) else {
        return;
    };
    let programs = Programs::build(&prefix, "examples/master_slave.c");
    for (master, slave) in [("c99", "c11"), ("c11", "cxx"), ("cxx", "c99")] {
        let name = Name::new("c-example");
        let slave = programs.start(slave, &["slave", &name]);
        let master = programs.start(master, &["master", &name, MESSAGES]);
        let (master, slave) = (Outcome::of(master), Outcome::of(slave));
        assert!(!master.killed() && !slave.killed());
        let told = |outcome: &Outcome, line: &str| {
            assert!(
                outcome.lines().iter().any(|it| it.starts_with(line)),
                "{line}: {:?}",
                outcome.lines()
            );
        };
        told(&master, "master: at 500.0");
        let states = "1000 states written, 1000 read";
        told(
            &master,
            &format!("master: {states}; 1000 commands written, 1000 read"),
        );
        told(
            &slave,
            &format!("slave: {states}; 999 commands written, 999 read"),
        );
        name.assert_nothing_left();
    }
}

#[test]
fn pkg_config_finds_the_library() {
    let Some(prefix) = installed("pkg_config_finds_the_library") else {
        return;
    };
    let mut command = Command::new("pkg-config");
    command
        .args(["--cflags", "--libs", "eshm >= 1.0.0"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let Ok(output) = command.output() else {
        skip(
            "pkg_config_finds_the_library",
            "pkg-config is not installed",
        );
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let flags = String::from_utf8(output.stdout).expect("flags are text");
    assert!(flags.contains("-leshm"), "{flags}");
    for (flag, folder) in [("-I", "include"), ("-L", "lib")] {
        let found = flags
            .split_whitespace()
            .find_map(|word| word.strip_prefix(flag))
            .unwrap_or_else(|| panic!("no {flag} in {flags}"));
        assert_eq!(
            fs::canonicalize(found).expect("the folder is there"),
            fs::canonicalize(prefix.join(folder)).expect("the folder is there")
        );
    }
}
