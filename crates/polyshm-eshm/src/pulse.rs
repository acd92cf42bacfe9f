//! The heartbeat thread: one per process, for all endpoints that want one.
//!
//! It beats and watches some times in each stale threshold, and no more often: on
//! an idle machine the wake-ups are all it costs. It lives while there are such
//! endpoints and is joined when the last one leaves, so that a library that
//! holds this code can be unloaded.

use crate::core::Core;
use parking_lot::Mutex;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Between two beats, at least.
pub(crate) const LEAST_INTERVAL: Duration = Duration::from_millis(1);

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
pub(crate) fn enroll(core: &Arc<Core>) -> io::Result<()> {
    let mut pulse = PULSE.lock();
    let pid = std::process::id();
    if pulse
        .thread
        .as_ref()
        .is_some_and(|thread| thread.pid != pid)
    {
        // A fork took the list along; its endpoints are the parent's.
        // Its thread is not there to be detached.
        std::mem::forget(pulse.thread.take());
        std::mem::forget(std::mem::take(&mut pulse.cores));
    }
    if let Some(thread) = &pulse.thread {
        // It may sleep for longer than the new one's interval.
        thread.handle.thread().unpark();
        pulse.cores.push(Arc::clone(core));
        return Ok(());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let handle = thread::Builder::new()
        .name("polyshm-eshm".into())
        .spawn(move || run(&told))?;
    pulse.cores.push(Arc::clone(core));
    pulse.thread = Some(Running { handle, stop, pid });
    Ok(())
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
        // One endpoint's fault must not stop the others' hearts.
        let tick = |core: &Arc<Core>| catch_unwind(AssertUnwindSafe(|| core.tick())).ok();
        let next = cores.iter().filter_map(tick).min();
        // A closed endpoint must not be kept until the next beat.
        cores.clear();
        let Some(interval) = next else {
            // None is left; it is about to be told to stop.
            thread::park_timeout(LEAST_INTERVAL);
            continue;
        };
        if let Some(left) = interval.checked_sub(start.elapsed()) {
            thread::park_timeout(left);
        }
    }
}
