//! Event: something that happens, for one or for all (section 5.6).

use crate::{
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    sync::semaphore::RawSemaphore,
    wait::{Look, Sleepers, Wait, wake_counted},
};
use polyshm_platform::{Deadline, Word32, sync::Ordering};
use polyshm_wire::zeroipc::{EventImage, ImageError, event, semaphore, suffix};
use std::time::Duration;

/// Whom a signal lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventMode {
    /// One waiter per signal. Signals accumulate: this is a counting semaphore,
    /// unlike an auto-reset event of Windows.
    Auto,
    /// All waiters, until it is reset.
    Manual,
}

/// Something that happens, for one waiter or for all.
///
/// What was stored before a signal is seen after the wait that it ends.
///
/// The entry's base name has at most 27 bytes, since `_sem` is appended for a
/// second entry.
///
/// **Death.** A waiter that died stays counted, which costs wake-ups; there is
/// nothing to recover.
///
/// Source: section 5.6 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Event, EventMode, Memory};
///
/// let name = format!("polyshm-doc-event-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let ready = Event::create(&memory, "ready", EventMode::Manual)?;
/// assert!(!ready.try_wait());
/// ready.signal();
/// assert!(ready.try_wait() && ready.try_wait(), "open for all");
/// ready.reset();
/// assert!(!ready.is_signaled());
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Event {
    signaled: Word32,
    /// Who waits for a manual event.
    waiting: Word32,
    /// From the header at open.
    mode: EventMode,
    semaphore: RawSemaphore,
}

const WAIT: &str = "wait for";

impl Event {
    const WHAT: &'static str = "event";
    /// How long a pulse waits for its waiters.
    const PULSE: Duration = Duration::from_millis(100);

    /// Creates an event that has not happened.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str, mode: EventMode) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let parts = [
            Part {
                name: name.to_owned(),
                size: event::SIZE,
            },
            Part {
                name: Memory::derived(Self::WHAT, name, suffix::EVENT_SEM)?,
                size: semaphore::SIZE,
            },
        ];
        memory.create_entries(&label, &parts, |blocks| {
            Self::init(&blocks[0], &blocks[1], mode)
        })
    }

    pub(crate) fn init(
        block: &crate::block::Block,
        semaphore: &crate::block::Block,
        mode: EventMode,
    ) -> Result<Self, Error> {
        let number = match mode {
            EventMode::Auto => event::AUTO,
            EventMode::Manual => event::MANUAL,
        };
        block.fill(0, &EventImage::new(number).to_bytes())?;
        Ok(Self {
            signaled: block.word32(event::SIGNALED)?,
            waiting: block.word32(event::WAITING)?,
            mode,
            semaphore: RawSemaphore::init(semaphore, 0, 0)?,
        })
    }

    /// Opens an event.
    ///
    /// # Errors
    ///
    /// There is none of that name, an entry has another size, or its numbers
    /// cannot be an event's.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != event::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: event::SIZE,
            }));
        }
        let header: [u8; 12] = block.header()?;
        let image = EventImage::read(&header).map_err(|source| block.mismatch(source))?;
        image.check().map_err(|source| block.mismatch(source))?;
        let entry = Memory::derived(Self::WHAT, name, suffix::EVENT_SEM)?;
        Ok(Self {
            signaled: block.word32(event::SIGNALED)?,
            waiting: block.word32(event::WAITING)?,
            mode: if image.mode.get() == event::AUTO {
                EventMode::Auto
            } else {
                EventMode::Manual
            },
            semaphore: RawSemaphore::open(&memory.open_entry(&entry, &label)?)?,
        })
    }

    /// Opens the event, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Event::open`] and [`Event::create`].
    pub fn open_or_create(memory: &Memory, name: &str, mode: EventMode) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, mode),
        )
    }

    /// Whom a signal lets go.
    pub const fn mode(&self) -> EventMode {
        self.mode
    }

    /// Says that it has happened.
    #[doc(alias = "set")]
    pub fn signal(&self) {
        self.set(1);
        match self.mode {
            // At the end of 2^31 unused signals one more changes nothing.
            EventMode::Auto => {
                let _ = self.semaphore.release(1);
            }
            EventMode::Manual => wake_counted(&self.signaled, &self.waiting, u32::MAX),
        }
    }

    fn set(&self, value: u32) {
        let mut now = self.signaled.load(Ordering::Relaxed);
        // An update, not a store: it is the barrier before the count of waiters
        // is looked at. Release: pairs with the acquire of who waits.
        while let Err(found) =
            self.signaled
                .compare_exchange(now, value, Ordering::AcqRel, Ordering::Relaxed)
        {
            now = found;
        }
    }

    /// Takes the signal back from a manual event. Signals of an automatic one
    /// that nobody has waited for stay, as in the other implementations.
    pub fn reset(&self) {
        self.set(0);
    }

    /// Signals who waits now, and nobody who comes later.
    ///
    /// Automatic: lets one waiter go if there is one. Manual: waits up to 100 ms
    /// for all counted waiters to go, then resets; gives whether they did. Python
    /// does not count its waiters, so a pulse may miss them.
    pub fn pulse(&self) -> bool {
        if self.mode == EventMode::Auto {
            let waits = self.semaphore.waiting() > 0;
            if waits {
                self.signal();
            }
            self.set(0);
            return waits;
        }
        self.signal();
        let gone = || self.waiting.load(Ordering::Acquire).cast_signed() <= 0;
        let deadline = Deadline::after(Self::PULSE);
        while !gone() && !deadline.expired() && !cfg!(loom) {
            std::thread::sleep(Duration::from_micros(100));
        }
        let all = gone();
        self.reset();
        all
    }

    /// Whether it has happened. Of an automatic event this is what was said
    /// last, not whether a wait would pass.
    pub fn is_signaled(&self) -> bool {
        self.signaled.load(Ordering::Acquire) != 0
    }

    /// Passes if it has happened; an automatic event is used up by it.
    pub fn try_wait(&self) -> bool {
        match self.mode {
            EventMode::Manual => self.is_signaled(),
            EventMode::Auto => {
                let passed = self.semaphore.try_acquire();
                if passed {
                    self.set(0);
                }
                passed
            }
        }
    }

    /// Waits without end.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn wait(&self) -> Result<(), OpError> {
        self.wait_within(Deadline::never())
    }

    /// Waits until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`].
    #[doc(alias = "wait_for")]
    pub fn wait_within(&self, deadline: impl Into<Deadline>) -> Result<(), OpError> {
        let deadline = deadline.into();
        if self.try_wait() {
            return Ok(());
        }
        let passed = match self.mode {
            EventMode::Auto => {
                let passed = self.semaphore.acquire_until(deadline, || Ok(None))?;
                if passed {
                    self.set(0);
                }
                passed
            }
            EventMode::Manual => {
                // Relaxed: an update, so a barrier between this and the looks.
                self.waiting.fetch_add(1, Ordering::Relaxed);
                let look = || {
                    let signaled = self.signaled.load(Ordering::Acquire);
                    Ok(if signaled == 0 {
                        Look::Sleep(0)
                    } else {
                        Look::Ready(())
                    })
                };
                let waiter = self.semaphore.block.waiter;
                let passed: Result<Option<()>, OpError> =
                    Wait::new(&self.signaled, Sleepers::Counted, look, || Ok(None))
                        .run(waiter, deadline);
                // Release: pairs with the acquire in `pulse`.
                self.waiting.fetch_sub(1, Ordering::Release);
                passed?.is_some()
            }
        };
        if passed {
            Ok(())
        } else {
            Err(OpError::Timeout {
                attempt: WAIT,
                on: self.semaphore.label().clone(),
            })
        }
    }
}
