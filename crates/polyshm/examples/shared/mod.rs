//! What examples share: this program as further processes, and the removal of
//! its shared memory.

use anyhow::{Context as _, Result, bail};
use polyshm::prelude::*;
use std::{
    env, io,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

/// This program as another process; dropping kills it (SIGKILL) if it still runs.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let child = this_program()?.args(args).stdin(Stdio::null()).spawn();
        Ok(Self(child.context("could not start another process")?))
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Deadline::after(patience);
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if deadline.expired() {
                bail!(
                    "process {} has not ended within {patience:?}: it is killed",
                    self.0.id()
                );
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; what counts is that it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Removes shared memory when this process is gone, however it went.
///
/// A segment stays until somebody removes it, and a process that is
/// interrupted or killed cannot. So another one stands by: its standard input
/// is a pipe whose other end is here, and breaks with this process. Dropping
/// this breaks it too, so it is removed in the same way in each case.
pub(crate) struct Cleaner(Child);

impl Cleaner {
    /// Starts this program with the arguments that make it call [`Cleaner::run`].
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let mut command = this_program()?;
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        // Ctrl-C goes to the terminal's process group; this one must outlive it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn();
        Ok(Self(child.context("could not start the cleaning process")?))
    }

    /// What that process does: `remove`, when the other one is gone.
    pub(crate) fn run(remove: impl FnOnce() -> Result<()>) -> Result<()> {
        io::copy(&mut io::stdin(), &mut io::sink())?;
        remove()
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn this_program() -> Result<Command> {
    let program = env::current_exe().context("could not find this program's file")?;
    Ok(Command::new(program))
}
