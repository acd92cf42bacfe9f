//! What the commands share: the workspace's paths, running programs, and collecting outcomes.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use crate::{
    libtest::{Counts, Parser},
    summary,
};

/// Where tests write their counts as JSON.
const REPORT_DIR: &str = "POLYSHM_REPORT_DIR";

/// Where tests append `SKIPPED name: reason`.
const SKIP_LOG: &str = "POLYSHM_SKIP_LOG";

/// How long a program's output may stay open after it exited.
const OUTPUT_GRACE: Duration = Duration::from_secs(10);

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// What failed, one line.
    Failed(String),
    /// Why it could not run, and what to do about it.
    Skipped(String),
}

/// A step that has ended: one row of the table.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) name: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) tests: Counts,
    /// `SKIPPED name: reason` lines that tests logged while the step ran.
    pub(crate) skips: Vec<String>,
    /// Results worth repeating under the table.
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: f64,
}

/// Where things are, and how strict to be.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Build output; steps with special flags get a directory below it.
    pub(crate) target: PathBuf,
    /// What tests and benchmarks report as JSON.
    pub(crate) reports: PathBuf,
    pub(crate) skip_log: PathBuf,
    /// Under CI a missing tool is a failure.
    pub(crate) ci: bool,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        // The run-time value first: the checkout may have moved since the build.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .filter(|root| root.join("Cargo.toml").is_file())
            .with_context(|| {
                format!(
                    "no workspace found above {}; run this as `cargo xtask` inside the repository",
                    manifest_dir.display()
                )
            })?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir));
        let reports = root.join("target").join("polyshm");
        Ok(Self {
            skip_log: reports.join("skips.log"),
            reports,
            target,
            root,
            ci: env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false"),
        })
    }

    /// A program started in the workspace's root.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).stdin(Stdio::null());
        // What `cargo run` set for xtask describes xtask; build scripts and tests of other
        // packages would see it and be rebuilt or misled.
        for (key, _) in env::vars_os() {
            if key.to_str().is_some_and(describes_xtask) {
                command.env_remove(key);
            }
        }
        command.env(REPORT_DIR, &self.reports);
        command
    }

    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command =
            self.program(env::var_os("CARGO").unwrap_or_else(|| OsStr::new("cargo").to_owned()));
        command.args(args);
        command
    }

    /// A path as shown to people: relative to the root where it is below it.
    pub(crate) fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// The command as one could type it; the two reporting variables, the same each time, are
    /// left out.
    fn show_command(&self, command: &Command) -> String {
        let relative = |word: &OsStr| {
            let word = self.show(Path::new(word));
            if word.contains(' ') {
                format!("\"{word}\"")
            } else {
                word
            }
        };
        let mut line = String::new();
        for (key, value) in command.get_envs() {
            if let Some(value) = value.filter(|_| key != REPORT_DIR && key != SKIP_LOG) {
                let _ = write!(line, "{}={} ", key.display(), relative(value));
            }
        }
        let program = Path::new(command.get_program());
        if program.file_stem() == Some(OsStr::new("cargo")) {
            line.push_str("cargo");
        } else {
            line.push_str(&relative(program.as_os_str()));
        }
        for arg in command.get_args() {
            let _ = write!(line, " {}", relative(arg));
        }
        line
    }
}

fn describes_xtask(key: &str) -> bool {
    const EXACT: [&str; 9] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        // The headings that the counts rely on must be printed.
        "CARGO_TERM_QUIET",
        "CARGO_TERM_VERBOSE",
        "OUT_DIR",
    ];
    EXACT.contains(&key) || key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_BIN_EXE_")
}

/// One run of xtask: the steps that have ended so far.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    workspace: &'a Workspace,
    finished: Vec<Finished>,
}

impl<'a> Session<'a> {
    /// Starts with an empty skip log.
    pub(crate) fn start(workspace: &'a Workspace) -> Result<Self> {
        fs::create_dir_all(&workspace.reports).with_context(|| {
            format!(
                "could not create {}; check its owner",
                workspace.reports.display()
            )
        })?;
        fs::write(&workspace.skip_log, "").with_context(|| {
            format!(
                "could not empty {}; check its owner",
                workspace.skip_log.display()
            )
        })?;
        Ok(Self {
            workspace,
            finished: Vec::new(),
        })
    }

    /// Runs one step and keeps its outcome; an error is a failure of this step only.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        body: impl FnOnce(&mut Step<'a>) -> Result<Outcome>,
    ) {
        println!("\n== {name} ==");
        let started = Instant::now();
        let already_logged = self.skip_log_lines().len();
        let mut step = Step {
            workspace: self.workspace,
            tests: Counts::default(),
            failures: Vec::new(),
            notes: Vec::new(),
        };
        let outcome = body(&mut step).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let seconds = started.elapsed().as_secs_f64();
        match &outcome {
            Outcome::Passed => println!("== {name}: passed in {seconds:.1} s"),
            Outcome::Failed(why) => println!("== {name}: failed: {why}"),
            Outcome::Skipped(why) => println!("== {name}: SKIPPED: {why}"),
        }
        let skips = self.skip_log_lines().split_off(already_logged);
        self.finished.push(Finished {
            name,
            outcome,
            tests: step.tests,
            skips,
            notes: step.notes,
            seconds,
        });
    }

    /// Prints the table; false if a step failed.
    pub(crate) fn finish(self) -> bool {
        print!("{}", summary::render(&self.finished));
        !self
            .finished
            .iter()
            .any(|step| matches!(step.outcome, Outcome::Failed(_)))
    }

    fn skip_log_lines(&self) -> Vec<String> {
        // The log exists since `start`; should a test have removed it, there is nothing to show.
        fs::read_to_string(&self.workspace.skip_log)
            .unwrap_or_default()
            .lines()
            .filter(|line| line.starts_with("SKIPPED "))
            .map(str::to_owned)
            .collect()
    }
}

/// A step that is running.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) workspace: &'a Workspace,
    tests: Counts,
    failures: Vec<String>,
    notes: Vec<String>,
}

impl Step<'_> {
    /// A cargo command.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        self.workspace.cargo(args)
    }

    /// A cargo command whose tests may log that they were skipped.
    pub(crate) fn cargo_test(&self, args: &[&str]) -> Command {
        let mut command = self.cargo(&["test", "--no-fail-fast"]);
        command.args(args).env(SKIP_LOG, &self.workspace.skip_log);
        command
    }

    /// Runs a command and streams its output; true if it succeeded.
    pub(crate) fn run(&mut self, command: Command) -> Result<bool> {
        self.run_counted(command).map(|(succeeded, _)| succeeded)
    }

    /// Like [`run`](Self::run), and a success without one test that ran is a failure: a renamed
    /// target or a filter that matches nothing must not pass for a check.
    pub(crate) fn run_tests(&mut self, command: Command) -> Result<bool> {
        let shown = self.workspace.show_command(&command);
        let (succeeded, counts) = self.run_counted(command)?;
        if succeeded && counts.passed + counts.failed == 0 {
            self.fail(format!(
                "no test ran in `{shown}`; check the names of its target and filter"
            ));
            return Ok(false);
        }
        Ok(succeeded)
    }

    /// Runs a command that draws on the terminal itself.
    pub(crate) fn run_attached(&mut self, mut command: Command) -> Result<bool> {
        let shown = self.announce(&command)?;
        let status = command
            .status()
            .with_context(|| format!("could not start `{shown}`"))?;
        Ok(self.judge(&shown, status))
    }

    /// Records a failure; the step goes on.
    pub(crate) fn fail(&mut self, why: impl Into<String>) {
        self.failures.push(why.into());
    }

    /// Repeats a result under the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Passed, unless something failed.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.failures.as_slice() {
            [] => Outcome::Passed,
            [why] => Outcome::Failed(why.clone()),
            [why, more @ ..] => Outcome::Failed(format!("{why} (and {} more)", more.len())),
        }
    }

    /// The outcome when a tool is absent.
    pub(crate) fn missing(&self, why: impl Into<String>) -> Outcome {
        if self.workspace.ci {
            Outcome::Failed(why.into())
        } else {
            Outcome::Skipped(why.into())
        }
    }

    /// The outcome if a rustup component is absent.
    pub(crate) fn missing_component(&self, component: &str, subcommand: &str) -> Option<Outcome> {
        let present = self
            .cargo(&[subcommand, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        (!present).then(|| {
            self.missing(format!(
                "`cargo {subcommand}` is not installed; run `rustup component add {component}`"
            ))
        })
    }

    /// Adds to RUSTFLAGS, keeping what the caller of xtask asked for.
    pub(crate) fn add_rustflags(command: &mut Command, flags: &str) {
        // The encoded form would win over the one set here.
        command
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", extended("RUSTFLAGS", flags));
    }

    /// Deletes a report of an earlier run, so that it cannot be taken for this one's.
    pub(crate) fn forget_report(&self, file: &str) -> Result<()> {
        let path = self.workspace.reports.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Prints the counts that a test wrote as JSON.
    pub(crate) fn show_report(&mut self, file: &str) -> Result<()> {
        let path = self.workspace.reports.join(file);
        let shown = self.workspace.show(&path);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                self.fail(format!(
                    "could not read {shown}: {error}; the test writes it to POLYSHM_REPORT_DIR"
                ));
                return Ok(());
            }
        };
        let value = serde_json::from_str(&text)
            .with_context(|| format!("{shown} is not JSON; look at the test that writes it"))?;
        let mut counts = Vec::new();
        flatten("", &value, &mut counts);
        for count in &counts {
            println!("{count}");
        }
        self.note(format!("{shown}: {}", counts.join(", ")));
        Ok(())
    }

    fn run_counted(&mut self, mut command: Command) -> Result<(bool, Counts)> {
        let shown = self.announce(&command)?;
        // One pipe for both streams: cargo names each test binary on stderr, and the counts need
        // to know where one binary's output ends and the next begins.
        let (reader, writer) = io::pipe().context("could not make a pipe")?;
        command
            .stdout(writer.try_clone().context("could not duplicate a pipe")?)
            .stderr(writer);
        if io::IsTerminal::is_terminal(&io::stdout()) && env::var_os("CARGO_TERM_COLOR").is_none() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("could not start `{shown}`"))?;
        // Our copies of the writing end; the output ends when the last copy closes.
        drop(command);

        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .is_ok_and(|length| length > 0)
            {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });

        let mut parser = Parser::default();
        let mut exited: Option<(ExitStatus, Instant)> = None;
        loop {
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    let line = String::from_utf8_lossy(&line);
                    // The macro, so that libtest can capture it in xtask's own tests.
                    print!("{line}");
                    parser.line(&line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if exited.is_none() {
                exited = child
                    .try_wait()
                    .with_context(|| format!("could not wait for `{shown}`"))?
                    .map(|status| (status, Instant::now()));
            }
            if exited.is_some_and(|(_, when)| when.elapsed() > OUTPUT_GRACE) {
                self.fail(format!(
                    "a process started by `{shown}` outlived it and holds its output open; \
                     find the test that does not wait for its children"
                ));
                break;
            }
        }
        let status = match exited {
            Some((status, _)) => status,
            None => child
                .wait()
                .with_context(|| format!("could not wait for `{shown}`"))?,
        };

        let (counts, unfinished) = parser.finish();
        self.tests += counts;
        for binary in unfinished {
            // It died; how many of its tests would have failed is unknown.
            self.tests.failed += 1;
            self.fail(format!("{binary} ended without a test result"));
        }
        Ok((self.judge(&shown, status), counts))
    }

    fn announce(&self, command: &Command) -> Result<String> {
        let shown = self.workspace.show_command(command);
        println!("$ {shown}");
        io::stdout().flush().context("could not write to stdout")?;
        Ok(shown)
    }

    fn judge(&mut self, shown: &str, status: ExitStatus) -> bool {
        if !status.success() {
            self.fail(format!("`{shown}`: {status}"));
        }
        status.success()
    }
}

/// The variable's value with `flags` appended.
fn extended(variable: &str, flags: &str) -> String {
    match env::var(variable) {
        Ok(value) if !value.trim().is_empty() => format!("{value} {flags}"),
        _ => flags.to_owned(),
    }
}

/// `key: value` for each leaf, nested keys joined by dots.
fn flatten(prefix: &str, value: &serde_json::Value, out: &mut Vec<String>) {
    use serde_json::Value;
    let join = |key: &str| {
        if prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{prefix}.{key}")
        }
    };
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| flatten(&join(key), value, out)),
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                flatten(&join(&index.to_string()), value, out);
            }
        }
        Value::String(text) => out.push(format!("{prefix}: {text}")),
        other => out.push(format!("{prefix}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(ci: bool) -> Workspace {
        let root = PathBuf::from("root");
        Workspace {
            target: root.join("target"),
            reports: root.join("reports"),
            skip_log: root.join("skips.log"),
            root,
            ci,
        }
    }

    fn step(workspace: &Workspace) -> Step<'_> {
        Step {
            workspace,
            tests: Counts::default(),
            failures: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn missing_tool_fails_only_under_ci() {
        let (local, ci) = (workspace(false), workspace(true));
        assert_eq!(
            step(&local).missing("no tool"),
            Outcome::Skipped("no tool".into())
        );
        assert_eq!(
            step(&ci).missing("no tool"),
            Outcome::Failed("no tool".into())
        );
    }

    #[test]
    fn outcome_names_the_first_failure_and_counts_the_rest() {
        let workspace = workspace(false);
        let mut step = step(&workspace);
        assert_eq!(step.outcome(), Outcome::Passed);
        step.fail("one");
        assert_eq!(step.outcome(), Outcome::Failed("one".into()));
        step.fail("two");
        assert_eq!(step.outcome(), Outcome::Failed("one (and 1 more)".into()));
    }

    #[test]
    fn user_settings_of_cargo_survive() {
        for key in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_NET_OFFLINE",
            "CARGO_TERM_COLOR",
        ] {
            assert!(!describes_xtask(key), "{key}");
        }
        for key in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "OUT_DIR"] {
            assert!(describes_xtask(key), "{key}");
        }
    }

    /// A workspace in a directory of its own, removed with it.
    struct Scratch(Workspace);

    impl Scratch {
        fn new(name: &str) -> Self {
            let root = env::temp_dir().join(format!("polyshm-xtask-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            let mut workspace = workspace(false);
            workspace.reports = root.join("reports");
            workspace.skip_log = workspace.reports.join("skips.log");
            workspace.root = root;
            Self(workspace)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    #[test]
    fn skips_belong_to_the_step_that_logged_them() {
        let scratch = Scratch::new("skips");
        let log = |text: &str| {
            let mut file = fs::OpenOptions::new()
                .append(true)
                .open(&scratch.0.skip_log)?;
            Ok(file.write_all(text.as_bytes()).map(|()| Outcome::Passed)?)
        };
        let mut session = Session::start(&scratch.0).unwrap();
        session.step("first", |_| log("SKIPPED a: no root\nanything else\n"));
        session.step("second", |_| log("SKIPPED b: no network\n"));
        session.step("third", |_| anyhow::bail!("broke"));
        assert_eq!(session.finished[0].skips, ["SKIPPED a: no root"]);
        assert_eq!(session.finished[1].skips, ["SKIPPED b: no network"]);
        assert_eq!(session.finished[2].outcome, Outcome::Failed("broke".into()));
        assert!(!session.finish());
    }

    #[cfg(unix)]
    #[test]
    fn output_is_counted_and_failures_are_recorded() {
        let scratch = Scratch::new("output");
        let mut step = step(&scratch.0);
        let shell = |script: &str| {
            let mut command = scratch.0.program("sh");
            command.args(["-c", script]);
            command
        };
        let result = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        // One heading on stderr, the rest on stdout, the last line without an end.
        let script =
            format!("echo '  Running a.rs (a)' >&2; echo 'running 3 tests'; printf '{result}'");
        assert!(step.run_tests(shell(&script)).unwrap());
        assert_eq!(
            step.tests,
            Counts {
                passed: 2,
                failed: 0,
                ignored: 1
            }
        );
        assert_eq!(step.outcome(), Outcome::Passed);

        assert!(!step.run_tests(shell("true")).unwrap());
        assert!(
            step.failures[0].starts_with("no test ran"),
            "{:?}",
            step.failures
        );
        assert!(
            !step
                .run(shell(
                    "echo '  Running b.rs (b)'; echo 'running 1 test'; kill -9 $$"
                ))
                .unwrap()
        );
        assert_eq!(step.failures[1], "b.rs (b) ended without a test result");
        assert!(
            step.failures[2].contains("signal: 9"),
            "{:?}",
            step.failures
        );
        assert_eq!(step.tests.failed, 1);
    }

    #[test]
    fn reports_are_flattened() {
        let mut out = Vec::new();
        let value = serde_json::json!({ "a": 1, "b": { "c": "x", "d": [true] } });
        flatten("", &value, &mut out);
        assert_eq!(out, ["a: 1", "b.c: x", "b.d.0: true"]);
    }
}
