//! The machine that the numbers come from, and its cores.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;
use std::fs;

/// What is known of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name, as it calls itself.
    pub cpu: String,
    /// Cores that this process may run on.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// Looks at this machine.
    #[must_use]
    pub fn look() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = text("/proc/cpuinfo")
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
            .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned());
        Self {
            cpu,
            cores: allowed().len(),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// The cores that this process may run on.
#[must_use]
pub fn allowed() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&core| set.is_set(core))
                .collect()
        },
    )
}

/// The two cores of a pair of processes.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The measuring process's.
    pub own: usize,
    /// Its peer's.
    pub peer: usize,
}

impl Cores {
    /// The first two, if there are two.
    #[must_use]
    pub fn pick() -> Option<Self> {
        match allowed()[..] {
            [own, peer, ..] => Some(Self { own, peer }),
            _ => None,
        }
    }
}

/// Keeps the calling thread on one core until it is dropped.
#[derive(Debug)]
pub struct Pinned(Option<CpuSet>);

impl Pinned {
    /// Pins the calling thread; with `None` it does nothing.
    ///
    /// Buffers are opened before: an adaptive wait asks the system for the
    /// number of cores when it is made, and the answer may count only those
    /// that the thread is pinned to.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn to(core: Option<usize>) -> Result<Self> {
        let Some(core) = core else {
            return Ok(Self(None));
        };
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        only.set(core);
        sched_setaffinity(None, &only)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It was allowed before; if it no longer is, one core must do.
            let _ = sched_setaffinity(None, before);
        }
    }
}
