//! Child processes: the same test binary in another role.

use std::{
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Longer than anything takes; only a hang meets it.
pub const WATCHDOG: Duration = Duration::from_mins(1);

/// The variable that tells a child its role.
pub const ROLE: &str = "POLYSHM_TEST_ROLE";

/// The argument string of a child; `None` in the parent.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Starts this test binary again, to run only the test `entry`, which reads
/// `role` and acts on it. Its lines that start with `@` are for the parent.
pub fn child(entry: &str, role: &str) -> Guarded {
    let child = Command::new(std::env::current_exe().expect("the test binary has a path"))
        .args([entry, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test binary starts again");
    Guarded::new(child)
}

/// A line for the parent.
pub fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

/// The next line that the parent [says](Guarded::say); `None` when there is
/// none any more.
pub fn hear_parent() -> Option<String> {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(line.trim_end().to_owned()),
    }
}

/// Becomes true when the parent says something, and when it is gone: so no
/// child outlives its test.
pub fn told_to_end() -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let set = Arc::clone(&told);
    thread::spawn(move || {
        hear_parent();
        // Relaxed: a flag, whatever else is seen.
        set.store(true, Relaxed);
    });
    told
}

/// Waits for what nothing tells of.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < WATCHDOG, "never: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A child that does not outlive its test, and the lines heard of it so far.
#[derive(Debug)]
pub struct Guarded(pub Child, Vec<String>);

impl Guarded {
    /// Guards any process; [`child`] makes the usual one.
    pub fn new(child: Child) -> Self {
        Self(child, Vec::new())
    }

    /// What the child [tells](tell) next; `None` when it says no more.
    pub fn hear(&mut self) -> Option<String> {
        while let Some(line) = self.line() {
            if let Some(told) = line.strip_prefix('@') {
                return Some(told.to_owned());
            }
        }
        None
    }

    /// Listens until the child [tells](tell) exactly this; `false` when its
    /// lines end before.
    #[must_use]
    pub fn wait_for_line(&mut self, told: &str) -> bool {
        while let Some(heard) = self.hear() {
            if heard == told {
                return true;
            }
        }
        false
    }

    /// The number in what the child [tells](tell) next, after `what` and a space.
    #[track_caller]
    pub fn hear_number(&mut self, what: &str) -> u64 {
        let line = self.hear().unwrap_or_default();
        line.strip_prefix(what)
            .and_then(|rest| rest.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("{what} was expected, not {line:?}"))
    }

    /// Stops the child until it [goes on](Self::go_on), and waits until it
    /// stands still: a signal takes a moment.
    #[cfg(target_os = "linux")]
    pub fn stop(&self) {
        self.signal("STOP");
        wait_until("the child stands still", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()));
            let stat = stat.expect("it is there until it is waited for");
            // The state stands behind the command in its brackets.
            let state = stat.rsplit(')').next().unwrap_or_default();
            state.trim_start().starts_with('T')
        });
    }

    /// Ends a [stop](Self::stop).
    #[cfg(target_os = "linux")]
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    #[cfg(target_os = "linux")]
    fn signal(&self, signal: &str) {
        let sent = Command::new("sh")
            .args(["-c", "kill -$0 $1", signal, &self.0.id().to_string()])
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "{signal} was not sent");
    }

    /// Sends the child a line. It may be dead already: that is no failure here.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.0.stdin {
            let _ = input.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Option<&str> {
        let output = self.0.stdout.as_mut()?;
        let mut line = Vec::new();
        // By byte: a buffered reader would swallow what comes next, which
        // others may want to read from the pipe.
        for byte in Read::bytes(output) {
            match byte.expect("the child's pipe can be read") {
                b'\n' => return Some(self.keep(&line)),
                byte => line.push(byte),
            }
        }
        // Without an end it is the last.
        (!line.is_empty()).then(|| self.keep(&line))
    }

    fn keep(&mut self, line: &[u8]) -> &str {
        self.1.push(String::from_utf8_lossy(line).trim_end().into());
        self.1.last().expect("it was just added")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child said, and how it ended: well, or killed.
#[derive(Debug)]
pub struct Outcome {
    lines: Vec<String>,
    killed: bool,
}

impl Outcome {
    /// Ends the child's input, reads what is left to read, and waits for the
    /// end. Any other end than success and being killed fails the test.
    pub fn of(mut child: Guarded) -> Self {
        drop(child.0.stdin.take());
        while child.line().is_some() {}
        let status = child.0.wait().expect("the child ends");
        let lines = std::mem::take(&mut child.1);
        let killed = is_kill(status);
        assert!(
            killed || status.success(),
            "the child failed: {status}\n{}",
            lines.join("\n")
        );
        Self { lines, killed }
    }

    /// Whether it was killed.
    pub fn killed(&self) -> bool {
        self.killed
    }

    /// All lines of the child, from its start, without their ends.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the child [told](tell) exactly this.
    pub fn said(&self, what: &str) -> bool {
        self.told().any(|told| told == what)
    }

    /// The highest number that the child [told](tell) after `what` and a space.
    pub fn number(&self, what: &str) -> Option<u64> {
        self.told()
            .filter_map(|told| told.strip_prefix(what)?.strip_prefix(' ')?.parse().ok())
            .max()
    }

    fn told(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.strip_prefix('@'))
    }
}

#[cfg(unix)]
fn is_kill(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

/// Elsewhere nobody can tell a killed process from one that failed.
#[cfg(not(unix))]
fn is_kill(_: ExitStatus) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Duration;

    const ENTRY: &str = "peer::tests::child_role";

    /// Runs in the child processes only.
    #[test]
    fn child_role() {
        let Some(role) = role() else { return };
        tell("ready");
        for number in [2, 10, 9] {
            println!("committed 99");
            tell(&format!("committed {number}"));
        }
        match role.as_str() {
            "ask" => {
                let mut line = String::new();
                std::io::stdin().read_line(&mut line).unwrap();
                tell(&format!("heard {}", line.trim_end()));
            }
            "wait" => std::thread::sleep(Duration::from_mins(1)),
            "fail" => std::process::exit(3),
            other => panic!("no role {other}"),
        }
    }

    #[test]
    fn a_child_is_heard_asked_and_seen_to_end() {
        let mut child = child(ENTRY, "ask");
        assert_eq!(child.hear().as_deref(), Some("ready"));
        assert!(child.wait_for_line("committed 10"));
        child.say("all of it");
        let outcome = Outcome::of(child);
        assert!(!outcome.killed());
        // Also what was heard before.
        assert!(outcome.said("ready") && outcome.said("heard all of it"));
        assert!(!outcome.said("heard"));
        assert_eq!(outcome.number("committed"), Some(10));
        assert_eq!(outcome.number("ready"), None);
        assert!(outcome.lines().iter().any(|line| line == "committed 99"));
    }

    #[test]
    fn a_killed_child_is_no_failure() {
        let mut child = child(ENTRY, "wait");
        assert!(child.wait_for_line("committed 9"));
        child.0.kill().unwrap();
        assert!(!child.wait_for_line("never told"));
        child.say("nobody listens");
        assert!(Outcome::of(child).killed());
    }

    #[test]
    fn a_child_that_fails_fails_the_test() {
        let child = child(ENTRY, "fail");
        let failure = std::panic::catch_unwind(|| Outcome::of(child)).unwrap_err();
        let message = failure.downcast_ref::<String>().expect("it says why");
        assert!(message.contains("@committed 9"), "{message}");
    }
}
