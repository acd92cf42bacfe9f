//! The second process: this program again, with a job.

use crate::{
    eshm, latency,
    machine::Pinned,
    names, slots, throughput,
    zeroipc::{streams, wake},
};
use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

/// A peer that takes longer has hung: far beyond any machine's slowness.
const WATCHDOG: Duration = Duration::from_mins(3);

/// What a peer is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What all names start with.
    pub prefix: String,
    /// The core to run on.
    pub core: Option<usize>,
    /// What to do there.
    pub task: Task,
}

/// The kinds of jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Send frames back.
    Latency(latency::Run),
    /// Take frames.
    Throughput(throughput::Run),
    /// Be one side of a stream.
    Stream(streams::Run),
    /// Wake who woke this process.
    Wake(wake::Run),
    /// Be an idle slave, and look at what came.
    EshmWrite(eshm::write::Run),
    /// Be a slave that answers.
    EshmLatency(eshm::latency::Run),
    /// Be half of an idle pair.
    EshmIdle(eshm::idle::Run),
    /// Read each new record of a slot.
    SlotsRecord(slots::record::Run),
    /// Answer with a record to each record.
    SlotsLatency(slots::latency::Run),
}

/// A running peer. Dropping it ends it.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    words: mpsc::Receiver<String>,
    /// The end of its output is no surprise.
    expected: Arc<AtomicBool>,
}

impl Peer {
    /// The peer's last word.
    const DONE: &'static str = "done";

    /// Starts this program again.
    ///
    /// When the peer dies early this process cannot know, for it may be polling
    /// shared memory without end; so a thread that sleeps on the peer's output
    /// then removes all names and ends the program.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(job: &Job, stdin: Stdio) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--peer")
            .arg(serde_json::to_string(job)?)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the peer process")?;
        let output = child
            .stdout
            .take()
            .context("the peer's output is not piped")?;
        let expected = Arc::new(AtomicBool::new(false));
        let (tell, words) = mpsc::channel();
        std::thread::spawn({
            let expected = Arc::clone(&expected);
            move || {
                for word in BufReader::new(output).lines().map_while(Result::ok) {
                    if word == Self::DONE {
                        // Relaxed: loaded below on this same thread.
                        expected.store(true, Ordering::Relaxed);
                    }
                    // Nobody listens any more when the benchmark has failed.
                    let _ = tell.send(word);
                }
                // Acquire: pairs with the release store in `drop`.
                if !expected.load(Ordering::Acquire) {
                    eprintln!("the peer process died");
                    names::remove(&names::prefix());
                    std::process::exit(3);
                }
            }
        });
        Ok(Self {
            child,
            words,
            expected,
        })
    }

    /// Waits for what the peer says next.
    ///
    /// # Errors
    ///
    /// It says nothing for a long time.
    pub fn listen(&self) -> Result<String> {
        let heard = self.words.recv_timeout(WATCHDOG);
        heard.context("waiting for the peer to say something")
    }

    /// Waits for the peer to say `word`.
    ///
    /// # Errors
    ///
    /// It says something else, or nothing for a long time.
    pub fn hear(&self, word: &str) -> Result<()> {
        let heard = self.words.recv_timeout(WATCHDOG);
        let heard = heard.with_context(|| format!("waiting for the peer to say {word:?}"))?;
        if heard != word {
            bail!("the peer said {heard:?} instead of {word:?}");
        }
        Ok(())
    }

    /// Waits for the peer's last word, and for its end.
    ///
    /// # Errors
    ///
    /// As [`Peer::hear`]; the peer failed.
    pub fn finish(mut self) -> Result<()> {
        self.hear(Self::DONE)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the peer process failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Release: pairs with the acquire load of the listening thread, which
        // meets the end of the output after the kill below.
        self.expected.store(true, Ordering::Release);
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the measuring process something.
///
/// # Errors
///
/// It is gone.
pub fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

/// The peer process's main function.
#[must_use]
pub fn main(job: &str) -> ExitCode {
    match work(job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(job: &str) -> Result<()> {
    // Whatever happens to the measuring process ...
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // ... and if both hang.
    // SAFETY: `alarm` only sets a timer, whose signal ends the process.
    unsafe { libc::alarm(WATCHDOG.as_secs() as libc::c_uint) };

    let job: Job = serde_json::from_str(job)?;
    // Kept on its core from when its buffers are open until the end.
    let ready = || {
        let pinned = Pinned::to(job.core)?;
        say("ready")?;
        Ok(pinned)
    };
    match &job.task {
        Task::Latency(run) => latency::serve(&job.prefix, run, ready)?,
        Task::Throughput(run) => throughput::serve(&job.prefix, run, ready)?,
        Task::Stream(run) => streams::serve(&job.prefix, run, ready)?,
        Task::Wake(run) => wake::serve(&job.prefix, run, ready)?,
        Task::EshmWrite(run) => eshm::write::serve(&job.prefix, run, ready)?,
        Task::EshmLatency(run) => eshm::latency::serve(&job.prefix, run, ready)?,
        Task::EshmIdle(run) => eshm::idle::serve(&job.prefix, run, ready)?,
        Task::SlotsRecord(run) => slots::record::serve(&job.prefix, run, ready)?,
        Task::SlotsLatency(run) => slots::latency::serve(&job.prefix, run, ready)?,
    }
    say(Peer::DONE)
}
