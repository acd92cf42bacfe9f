//! Monitor: a lock and a condition to wait for under it (section 5.8).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    sync::{
        mutex::{RawMutex, Taken},
        semaphore::RawSemaphore,
    },
};
use polyshm_platform::{Deadline, LIVENESS_SLICE, Word32, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, MARKER_SIZE, monitor, semaphore, suffix};
use std::time::{Duration, Instant};

/// A lock with a condition that its holders can wait for.
///
/// As a mutex with a condition variable: [`Monitor::lock`], then
/// [`MonitorGuard::wait_while`] until what is protected is as wanted, then use it.
/// Wake-ups may come without need, so a condition is always looked at again;
/// `wait_while` does so, and at least every 100 ms: a waiter of another
/// implementation can take a notification that was meant for somebody else.
///
/// The entry's base name has at most 25 bytes: four entries are made of it.
///
/// **Death.** The lock is a [`Mutex`](crate::Mutex) and recovered like one. A
/// waiter that died stays counted, which costs wake-ups that nobody needs.
///
/// Source: section 5.8 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Array, Memory, Monitor};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-monitor-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let monitor = Monitor::create(&memory, "monitor")?;
/// let level = Array::<u32>::create(&memory, "level", 1)?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let guard = monitor.lock().expect("its holder lives");
///         level.set(0, 5).expect("inside");
///         guard.notify_all();
///     });
///     let guard = monitor.lock().expect("its holder lives");
///     let guard = guard
///         .wait_while(Duration::from_secs(5), || level.get(0) == Some(0))
///         .expect("it rose");
///     assert_eq!(level.get(0), Some(5));
///     drop(guard);
/// });
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Monitor {
    mutex: RawMutex,
    /// A permit per notification that a waiter has not used yet.
    condition: RawSemaphore,
    /// Who waits; changed under the mutex.
    count: Word32,
    /// How often a Rust process notified, in the padding after the count: a
    /// permit is for who waited before it, and who comes later leaves it alone.
    notified: Option<Word32>,
}

const LOCK: &str = "lock";
const WAIT: &str = "wait for";

impl Monitor {
    const WHAT: &'static str = "monitor";
    /// How long a wait that timed out tries to lock again.
    const RELOCK: Duration = Duration::from_secs(5);
    /// How long permits that are not ours may lie there before they count as
    /// left by a process of another implementation.
    const FOREIGN: Duration = Duration::from_millis(2);

    fn names(name: &str) -> Result<[String; 4], Error> {
        let derived = |suffix| Memory::derived(Self::WHAT, name, suffix);
        // The longest first: its error says the true limit.
        let count = derived(suffix::MONITOR_COUNT)?;
        Ok([
            derived(suffix::MONITOR_MUTEX)?,
            derived(suffix::MONITOR_CONDITION)?,
            count,
            name.to_owned(),
        ])
    }

    /// Creates a monitor that nobody holds.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let sizes = [
            semaphore::SIZE,
            semaphore::SIZE,
            monitor::COUNT_SIZE,
            MARKER_SIZE,
        ];
        let names = Self::names(name)?;
        let parts: Vec<Part> = names
            .into_iter()
            .zip(sizes)
            .map(|(name, size)| Part { name, size })
            .collect();
        memory.create_entries(&label, &parts, |blocks| {
            Ok(Self {
                mutex: RawMutex::init(&blocks[0])?,
                condition: RawSemaphore::init(&blocks[1], 0, 0)?,
                count: blocks[2].word32(0)?,
                notified: Self::notified(&blocks[2])?,
            })
        })
    }

    /// Opens a monitor.
    ///
    /// # Errors
    ///
    /// There is none of that name, an entry has another size, or its numbers
    /// cannot be a monitor's.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let [mutex, condition, count, marker] = Self::names(name)?;
        let sized = |name: &str, expected: u64| -> Result<Block, Error> {
            let block = memory.open_entry(name, &label)?;
            if block.size as u64 == expected {
                Ok(block)
            } else {
                Err(block.mismatch(ImageError::Size {
                    structure: Self::WHAT,
                    found: block.size as u64,
                    expected,
                }))
            }
        };
        sized(&marker, MARKER_SIZE)?;
        let count = sized(&count, monitor::COUNT_SIZE)?;
        Ok(Self {
            mutex: RawMutex::open(&memory.open_entry(&mutex, &label)?)?,
            condition: RawSemaphore::open(&memory.open_entry(&condition, &label)?)?,
            notified: Self::notified(&count)?,
            count: count.word32(0)?,
        })
    }

    fn notified(count: &Block) -> Result<Option<Word32>, Error> {
        let at = monitor::COUNT_SIZE;
        let there = count.marks && count.room as u64 >= at + 4;
        there.then(|| count.word32(at)).transpose()
    }

    /// Opens the monitor, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Monitor::open`] and [`Monitor::create`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::create(memory, name))
    }

    const fn guard(&self, taken: Taken) -> MonitorGuard<'_> {
        MonitorGuard {
            monitor: self,
            taken,
        }
    }

    /// Locks if it is free. Does not look whether a holder lives.
    pub fn try_lock(&self) -> Option<MonitorGuard<'_>> {
        Some(self.guard(self.mutex.try_lock()?))
    }

    /// Locks, waiting without end while its holder lives or is unknown.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn lock(&self) -> Result<MonitorGuard<'_>, OpError> {
        self.lock_within(Deadline::never())
    }

    /// Locks, waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] while its holder lives, [`OpError::HolderUnknown`]
    /// when nobody knows it.
    pub fn lock_within(&self, deadline: impl Into<Deadline>) -> Result<MonitorGuard<'_>, OpError> {
        Ok(self.guard(self.mutex.lock_until(LOCK, deadline.into())?))
    }

    /// Wakes one waiter, if there is one that is not about to wake already.
    pub fn notify_one(&self) {
        self.note();
        if self.condition.value() < self.waiting() {
            // Far below the limit of the count.
            let _ = self.condition.release(1);
        }
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.note();
        let missing = self.waiting().saturating_sub(self.condition.value());
        if missing > 0 {
            let _ = self.condition.release(missing);
        }
    }

    fn note(&self) {
        if let Some(notified) = &self.notified {
            // Release: pairs with the acquire of a waiter's gate.
            notified.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether permits that are there may be ours: a notification came since we
    /// began to wait, or nobody here tells.
    fn gate(&self) -> impl FnMut() -> bool + use<> {
        let notified = self.notified.clone();
        // Acquire: as below; under the mutex.
        let before = notified.as_ref().map(|word| word.load(Ordering::Acquire));
        let mut since: Option<Instant> = None;
        move || {
            // Acquire: pairs with the release in `note`.
            let now = notified.as_ref().map(|word| word.load(Ordering::Acquire));
            now.is_none()
                || now != before
                || since.get_or_insert_with(Instant::now).elapsed() >= Self::FOREIGN
        }
    }

    /// Who waits, by the monitor's own count: waiters that died stay in it.
    fn waiting(&self) -> i32 {
        self.count.load(Ordering::Acquire).cast_signed()
    }

    /// Gives the lock back in place of a holder that cannot; gives whether it
    /// was locked. If the holder lives, two believe to have it: look first.
    pub fn force_unlock(&self) -> bool {
        self.mutex.force_unlock()
    }
}

/// A held [`Monitor`], given back when dropped.
#[derive(Debug)]
#[must_use = "the monitor is unlocked when this is dropped"]
pub struct MonitorGuard<'a> {
    monitor: &'a Monitor,
    taken: Taken,
}

impl MonitorGuard<'_> {
    /// Whether the holder before us died with the lock: what it protects may be
    /// half-changed.
    pub const fn recovered(&self) -> bool {
        self.taken.recovered()
    }

    /// Gives the lock up, waits for a notification without end, and locks again.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn wait(self) -> Result<Self, OpError> {
        self.wait_until(Deadline::never()).map(|(guard, _)| guard)
    }

    /// Gives the lock up, waits for a notification until the deadline or for
    /// that long, and locks again. The guard comes back whether a notification
    /// came (`true`) or not.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::HolderUnknown`] when the lock could not
    /// be had again within 5 s after the deadline; it is not held then.
    #[doc(alias = "wait_for")]
    pub fn wait_within(self, deadline: impl Into<Deadline>) -> Result<(Self, bool), OpError> {
        self.wait_until(deadline.into())
    }

    /// Waits for notifications until `condition` is false or the deadline passes
    /// or that long; looks once at least.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`]: the condition is still true; the lock is given back.
    /// As [`MonitorGuard::wait_within`].
    pub fn wait_while(
        mut self,
        deadline: impl Into<Deadline>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<Self, OpError> {
        let deadline = deadline.into();
        while condition() {
            if deadline.expired() {
                return Err(OpError::Timeout {
                    attempt: WAIT,
                    on: self.monitor.condition.label().clone(),
                });
            }
            // In slices: a process of another implementation that waits again
            // may have taken the notification that was ours.
            self = self.wait_until(deadline.at_most(LIVENESS_SLICE))?.0;
        }
        Ok(self)
    }

    fn wait_until(self, deadline: Deadline) -> Result<(Self, bool), OpError> {
        let monitor = self.monitor;
        // Permits that nobody waited for would wake us for nothing.
        if monitor.waiting() <= 0 {
            monitor.condition.drain();
        }
        // Relaxed: under the mutex, whose release publishes it.
        monitor.count.fetch_add(1, Ordering::Relaxed);
        let gate = monitor.gate();
        drop(self);
        let notified = monitor.condition.acquire_gated(deadline, gate, || Ok(None));
        let again = match deadline.remaining() {
            None => Deadline::never(),
            Some(left) => Deadline::after(left.saturating_add(Monitor::RELOCK)),
        };
        let taken = monitor.mutex.lock_until(LOCK, again);
        monitor.count.fetch_sub(1, Ordering::Relaxed);
        Ok((monitor.guard(taken?), notified?))
    }

    /// Wakes one waiter.
    pub fn notify_one(&self) {
        self.monitor.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.monitor.notify_all();
    }
}

impl Drop for MonitorGuard<'_> {
    fn drop(&mut self) {
        self.monitor.mutex.unlock();
    }
}
