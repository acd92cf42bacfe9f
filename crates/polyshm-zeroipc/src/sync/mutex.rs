//! Mutex: a semaphore of one, and who holds it (section 5.2).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    sync::semaphore::RawSemaphore,
};
use polyshm_platform::{Deadline, Word32, process, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, semaphore};

/// The mutex's words: what mutexes, read-write locks, monitors and signals
/// share.
#[derive(Clone, Debug)]
pub(crate) struct RawMutex {
    semaphore: RawSemaphore,
    /// The holder's mark, in the padding that every reference leaves 0; 0 when
    /// it is free or its holder does not say. Stored after the lock is taken
    /// and cleared before it is given back, so a mark means: held.
    mark: Option<Word32>,
    /// This process's own.
    own: u32,
}

/// How a lock was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Its holder had died, and this was its mark.
    died: Option<u32>,
}

impl Taken {
    pub(crate) const fn recovered(self) -> bool {
        self.died.is_some()
    }
}

impl RawMutex {
    pub(crate) fn init(block: &Block) -> Result<Self, Error> {
        let semaphore = RawSemaphore::init(block, 1, 1)?;
        Self::over(semaphore)
    }

    pub(crate) fn open(block: &Block) -> Result<Self, Error> {
        let image = RawSemaphore::image(block)?;
        if !image.is_mutex() {
            return Err(block.mismatch(ImageError::Field {
                structure: block.label.what,
                field: "max_count",
                found: image.max_count.get().into(),
                min: 1,
                max: 1,
            }));
        }
        Self::over(RawSemaphore::open(block)?)
    }

    fn over(semaphore: RawSemaphore) -> Result<Self, Error> {
        let block = &semaphore.block;
        let own = if block.marks {
            process::mark(process::current())
        } else {
            0
        };
        let mark = match own {
            0 => None,
            _ => Some(block.word32(semaphore::RESERVED)?),
        };
        Ok(Self {
            semaphore,
            mark,
            own,
        })
    }

    fn signed(&self) {
        if let Some(mark) = &self.mark {
            // Relaxed: only who finds us dead cares, and death orders it.
            mark.store(self.own, Ordering::Relaxed);
        }
    }

    pub(crate) fn try_lock(&self) -> Option<Taken> {
        self.semaphore.try_acquire().then(|| {
            self.signed();
            Taken { died: None }
        })
    }

    /// Waits for the lock; takes it over from a holder that died.
    pub(crate) fn lock_until(
        &self,
        attempt: &'static str,
        deadline: Deadline,
    ) -> Result<Taken, OpError> {
        if let Some(taken) = self.try_lock() {
            return Ok(taken);
        }
        let mut died = None;
        let check = || {
            died = self.take_over();
            Ok(died.map(|_| ()))
        };
        if self.semaphore.acquire_until(deadline, check)? {
            if died.is_none() {
                self.signed();
            }
            return Ok(Taken { died });
        }
        let on = self.semaphore.label().clone();
        let known = self
            .mark
            .as_ref()
            .is_some_and(|mark| mark.load(Ordering::Relaxed) != 0);
        Err(if known || self.semaphore.value() > 0 {
            OpError::Timeout { attempt, on }
        } else {
            OpError::HolderUnknown {
                attempt,
                on,
                hint: "if it is, call force_unlock()",
            }
        })
    }

    /// Gives a lock back that was taken from a dead holder, as it was: whoever
    /// takes it next shall be told as well.
    pub(crate) fn leave(&self, taken: Taken) {
        match (&self.mark, taken.died) {
            // Relaxed: only who looks for the dead cares.
            (Some(word), Some(mark)) => word.store(mark, Ordering::Relaxed),
            _ => {
                self.unlock();
            }
        }
    }

    /// Takes the lock of a holder that died; gives its mark.
    fn take_over(&self) -> Option<u32> {
        let word = self.mark.as_ref()?;
        let mark = word.load(Ordering::Relaxed);
        if mark == 0 || process::is_alive_marked(mark) {
            return None;
        }
        if self.semaphore.value() > 0 {
            // Somebody gave it back in the dead one's place.
            return None;
        }
        // AcqRel: of several that see it dead one wins. What the dead holder
        // stored is there: it is dead.
        word.compare_exchange(mark, self.own, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
    }

    /// Gives the lock back; `false` when it was not taken.
    pub(crate) fn unlock(&self) -> bool {
        if let Some(mark) = &self.mark {
            // Relaxed: the release of the count publishes it.
            mark.store(0, Ordering::Relaxed);
        }
        self.semaphore.release(1)
    }

    /// Gives it back for a holder that cannot, whatever the count is.
    pub(crate) fn force_unlock(&self) -> bool {
        if self.semaphore.value() < 0 {
            // A damaged count, or one that peers without atomics left.
            self.semaphore.count.store(0, Ordering::Release);
        }
        self.unlock()
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.semaphore.value() <= 0
    }

    /// Whether a holder is known to have died, and nobody took over yet.
    pub(crate) fn holder_died(&self) -> bool {
        self.mark.as_ref().is_some_and(|word| {
            let mark = word.load(Ordering::Relaxed);
            mark != 0 && !process::is_alive_marked(mark)
        })
    }
}

/// A lock between processes.
///
/// In the format it has no owner, and anybody may unlock it. Here it is given
/// back when its guard is dropped, and what was stored under it is seen by the
/// next holder.
///
/// **Death.** A Rust holder leaves its mark in bytes that other implementations
/// ignore. When it dies, the next Rust process that waits takes the lock over
/// within 100 ms and is told: [`MutexGuard::recovered`]. A dead holder of another
/// implementation is unknown: waiting ends with [`OpError::HolderUnknown`], and
/// [`Mutex::force_unlock`] gives the lock back. So it is when a process dies in
/// the few instructions between taking the lock and leaving its mark, or between
/// clearing it and giving the lock back.
///
/// Source: section 5.2 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Mutex};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-mutex-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let lock = Mutex::create(&memory, "lock")?;
/// {
///     let guard = lock.lock_within(Duration::from_secs(1)).expect("nobody has it");
///     assert!(!guard.recovered());
///     assert!(lock.try_lock().is_none());
/// }
/// assert!(lock.try_lock().is_some());
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mutex {
    raw: RawMutex,
}

const LOCK: &str = "lock";

impl Mutex {
    const WHAT: &'static str = "mutex";

    /// Creates a mutex, unlocked.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let part = Part {
            name: name.to_owned(),
            size: semaphore::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| {
            let raw = RawMutex::init(&blocks[0])?;
            Ok(Self { raw })
        })
    }

    /// Opens a mutex.
    ///
    /// # Errors
    ///
    /// There is none of that name, or the entry is no semaphore of at most one.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let raw = RawMutex::open(&memory.open_entry(name, &label)?)?;
        Ok(Self { raw })
    }

    /// Opens the mutex, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Mutex::open`] and [`Mutex::create`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::create(memory, name))
    }

    /// Locks if it is free. Does not look whether a holder lives.
    pub fn try_lock(&self) -> Option<MutexGuard<'_>> {
        let taken = self.raw.try_lock()?;
        Some(MutexGuard { mutex: self, taken })
    }

    /// Locks, waiting without end while its holder lives or is unknown.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn lock(&self) -> Result<MutexGuard<'_>, OpError> {
        self.lock_within(Deadline::never())
    }

    /// Locks, waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] while its holder lives, [`OpError::HolderUnknown`]
    /// when nobody knows it.
    #[doc(alias = "try_lock_for")]
    pub fn lock_within(&self, deadline: impl Into<Deadline>) -> Result<MutexGuard<'_>, OpError> {
        let taken = match self.raw.try_lock() {
            Some(taken) => taken,
            None => self.raw.lock_until(LOCK, deadline.into())?,
        };
        Ok(MutexGuard { mutex: self, taken })
    }

    /// Whether somebody holds it; with others at work, a moment ago.
    pub fn is_locked(&self) -> bool {
        self.raw.is_locked()
    }

    /// Gives the lock back in place of a holder that cannot, such as a dead
    /// process of another implementation. Gives whether it was locked.
    ///
    /// If the holder lives, two believe to have it: look first.
    pub fn force_unlock(&self) -> bool {
        self.raw.force_unlock()
    }
}

/// A held [`Mutex`], given back when dropped.
#[derive(Debug)]
#[must_use = "the mutex is unlocked when this is dropped"]
pub struct MutexGuard<'a> {
    mutex: &'a Mutex,
    taken: Taken,
}

impl MutexGuard<'_> {
    /// Whether the holder before us died with the lock: what it protects may be
    /// half-changed.
    pub const fn recovered(&self) -> bool {
        self.taken.recovered()
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        self.mutex.raw.unlock();
    }
}
