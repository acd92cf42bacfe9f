//! The heartbeat thread: one per process, for all endpoints that want one.
//!
//! It beats and watches some times in each stale threshold, and no more often: on
//! an idle machine the wake-ups are all it costs. It lives while there are such
//! endpoints and is joined when the last one leaves, so that a library that
//! holds this code can be unloaded.

use crate::core::Core;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

static PULSE: Mutex<Pulse> = Mutex::new(Pulse {
    cores: Vec::new(),
    thread: None,
});

struct Pulse {
    cores: Vec<Arc<Core>>,
    thread: Option<Running>,
}

struct Running {
    handle: JoinHandle<()>,
    /// Tells this very thread to end.
    stop: Arc<AtomicBool>,
    /// A forked child has the list, and no thread.
    pid: u32,
}

/// Beats for this endpoint from now on.
pub(crate) fn enroll(core: &Arc<Core>) {
    let mut pulse = PULSE.lock();
    pulse.cores.push(Arc::clone(core));
    let pid = std::process::id();
    match &pulse.thread {
        Some(thread) if thread.pid == pid => {
            // It may sleep for longer than the new one's interval.
            thread.handle.thread().unpark();
            return;
        }
        _ => {}
    }
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("polyshm-eshm".into())
        .spawn(move || run(&told));
    match thread {
        Ok(handle) => pulse.thread = Some(Running { handle, stop, pid }),
        Err(error) => {
            tracing::error!(target: "polyshm_eshm", %error, "no thread for heartbeats: peers will take this process for dead");
        }
    }
}

/// Beats for this endpoint no more.
pub(crate) fn resign(core: &Arc<Core>) {
    let ended = {
        let mut pulse = PULSE.lock();
        pulse.cores.retain(|other| !Arc::ptr_eq(other, core));
        if pulse.cores.is_empty() {
            pulse.thread.take()
        } else {
            None
        }
    };
    let Some(Running { handle, stop, pid }) = ended else {
        return;
    };
    // Relaxed: a flag alone; the thread holds nothing that this one needs.
    stop.store(true, Relaxed);
    handle.thread().unpark();
    // An event callback may close its endpoint: a thread cannot join itself.
    if pid == std::process::id() && handle.thread().id() != thread::current().id() {
        // It catches what callbacks do; there is nothing to pass on.
        let _ = handle.join();
    }
}

fn run(stop: &AtomicBool) {
    let mut cores = Vec::new();
    while !stop.load(Relaxed) {
        let start = Instant::now();
        cores.clone_from(&PULSE.lock().cores);
        let next = cores.iter().map(|core| core.tick()).min();
        // A closed endpoint must not be kept until the next beat.
        cores.clear();
        if let Some(left) = next.and_then(|next| next.checked_sub(start.elapsed())) {
            thread::park_timeout(left);
        }
    }
}
