//! Semaphore: a count to wait for (section 5.1).

use crate::{
    block::Block,
    error::{Error, Label, OpError},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait, wake_counted},
};
use polyshm_platform::{Deadline, Word32, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, SemaphoreImage, semaphore};

/// The semaphore's words: what semaphores, mutexes, events and monitors share.
#[derive(Clone, Debug)]
pub(crate) struct RawSemaphore {
    /// As `i32`; above 0, somebody may take one.
    pub(crate) count: Word32,
    /// As `i32`: who waits; a dead waiter stays counted, which costs wake-ups.
    waiting: Word32,
    /// 0: no limit. From the header at open.
    max: i32,
    pub(crate) block: Block,
}

impl RawSemaphore {
    /// Stores a fresh semaphore and opens it.
    pub(crate) fn init(block: &Block, count: i32, max: i32) -> Result<Self, Error> {
        block.fill(0, &SemaphoreImage::new(count, max).to_bytes())?;
        let made = Self::over(block, max)?;
        // Relaxed: publishing the entry is what others wait for.
        made.count.store(count.cast_unsigned(), Ordering::Relaxed);
        Ok(made)
    }

    pub(crate) fn open(block: &Block) -> Result<Self, Error> {
        let image = Self::image(block)?;
        Self::over(block, image.max_count.get())
    }

    /// The checked content of an entry.
    pub(crate) fn image(block: &Block) -> Result<SemaphoreImage, Error> {
        if block.size as u64 != semaphore::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: block.label.what,
                found: block.size as u64,
                expected: semaphore::SIZE,
            }));
        }
        let header: [u8; 16] = block.header()?;
        let image = SemaphoreImage::read(&header).map_err(|source| block.mismatch(source))?;
        // The counts change, and peers without atomics leave them as they never
        // should be: operations cope with any. The limit does not change.
        let fresh = SemaphoreImage::new(0, image.max_count.get());
        fresh.check().map_err(|source| block.mismatch(source))?;
        Ok(image)
    }

    fn over(block: &Block, max: i32) -> Result<Self, Error> {
        Ok(Self {
            count: block.word32(semaphore::COUNT)?,
            waiting: block.word32(semaphore::WAITING)?,
            max,
            block: block.clone(),
        })
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) fn value(&self) -> i32 {
        self.count.load(Ordering::Acquire).cast_signed()
    }

    pub(crate) fn waiting(&self) -> i32 {
        self.waiting.load(Ordering::Relaxed).cast_signed()
    }

    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let mut count = self.count.load(Ordering::Relaxed);
        while count.cast_signed() > 0 {
            // Acquire: pairs with the release of who raised the count.
            match self.count.compare_exchange(
                count,
                count - 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(found) => count = found,
            }
        }
        false
    }

    /// Takes all that are there.
    pub(crate) fn drain(&self) {
        let mut count = self.count.load(Ordering::Relaxed);
        while count.cast_signed() > 0 {
            // Acquire: as in `try_acquire`.
            match self
                .count
                .compare_exchange(count, 0, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => break,
                Err(found) => count = found,
            }
        }
    }

    /// Waits for one; `Ok(false)`: the deadline passed. `check` may end the wait
    /// otherwise, or have the caller own one by another way (`Some`).
    pub(crate) fn acquire_until(
        &self,
        deadline: Deadline,
        check: impl FnMut() -> Result<Option<()>, OpError>,
    ) -> Result<bool, OpError> {
        if self.try_acquire() {
            return Ok(true);
        }
        self.acquire_gated(deadline, || true, check)
    }

    /// As [`RawSemaphore::acquire_until`], but takes one only while the gate is
    /// open: those that are there may be meant for others.
    pub(crate) fn acquire_gated(
        &self,
        deadline: Deadline,
        mut gate: impl FnMut() -> bool,
        check: impl FnMut() -> Result<Option<()>, OpError>,
    ) -> Result<bool, OpError> {
        // Relaxed: an update, so it is a barrier between this and the looks.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let look = || {
            let count = self.count.load(Ordering::Relaxed);
            Ok(if count.cast_signed() <= 0 {
                Look::Sleep(count)
            } else if gate() && self.try_acquire() {
                Look::Ready(())
            } else {
                Look::Nap
            })
        };
        let done =
            Wait::new(&self.count, Sleepers::Counted, look, check).run(self.block.waiter, deadline);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(done?.is_some())
    }

    /// Raises the count by `permits`; `false` at the limit.
    #[inline]
    pub(crate) fn release(&self, permits: i32) -> bool {
        let mut count = self.count.load(Ordering::Relaxed);
        loop {
            let limit = if self.max > 0 { self.max } else { i32::MAX };
            let Some(raised) = count
                .cast_signed()
                .checked_add(permits)
                .filter(|&raised| raised <= limit)
            else {
                return false;
            };
            // Release: pairs with the acquire of who takes it.
            match self.count.compare_exchange(
                count,
                raised.cast_unsigned(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(found) => count = found,
            }
        }
        wake_counted(&self.count, &self.waiting, permits.cast_unsigned());
        true
    }
}

/// A count of permits that any process may take and give back.
///
/// Not fair: who waits longest need not be served first. What was stored before
/// a release is seen after the acquire that it allows. A process that dies with
/// permits does not give them back; [`Semaphore::release`] in its place does,
/// since the format has no owners.
///
/// Source: section 5.1 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Semaphore};
///
/// let name = format!("polyshm-doc-semaphore-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let seats = Semaphore::create(&memory, "seats", 3, Some(3))?;
/// {
///     let seat = seats.acquire().expect("three are free");
///     assert_eq!(seats.count(), 2);
/// } // given back
/// assert_eq!(seats.count(), 3);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore {
    raw: RawSemaphore,
}

const ACQUIRE: &str = "acquire";
const RELEASE: &str = "release";

impl Semaphore {
    const WHAT: &'static str = "semaphore";

    /// Creates a semaphore with `initial` permits and at most `max`; without a
    /// limit when `None`.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or `initial` is negative or above the
    /// limit, or the limit is not positive.
    pub fn create(
        memory: &Memory,
        name: &str,
        initial: i32,
        max: Option<i32>,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let limit = max.unwrap_or(0);
        let image = SemaphoreImage::new(initial, limit);
        let sound = image.check();
        if sound.is_err() || max.is_some_and(|max| max <= 0) {
            return Err(Error::Unusable {
                on: label,
                reason: "the first count must be within 0 and the limit, and a limit above 0",
            });
        }
        let part = Part {
            name: name.to_owned(),
            size: semaphore::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| {
            let raw = RawSemaphore::init(&blocks[0], initial, limit)?;
            Ok(Self { raw })
        })
    }

    /// Opens a semaphore.
    ///
    /// # Errors
    ///
    /// There is none of that name, the entry has another size, or its numbers
    /// cannot be a semaphore's.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let raw = RawSemaphore::open(&memory.open_entry(name, &label)?)?;
        Ok(Self { raw })
    }

    /// Opens the semaphore, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::open`] and [`Semaphore::create`].
    pub fn open_or_create(
        memory: &Memory,
        name: &str,
        initial: i32,
        max: Option<i32>,
    ) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, initial, max),
        )
    }

    #[cfg(all(test, loom))]
    pub(crate) fn from_raw(raw: RawSemaphore) -> Self {
        Self { raw }
    }

    const fn permit(&self) -> SemaphorePermit<'_> {
        SemaphorePermit { semaphore: self }
    }

    /// Takes a permit if there is one.
    #[inline]
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.raw.try_acquire().then(|| self.permit())
    }

    /// Takes a permit, waiting for it without end.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn acquire(&self) -> Result<SemaphorePermit<'_>, OpError> {
        self.acquire_within(Deadline::never())
    }

    /// Takes a permit, waiting for it until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`].
    #[doc(alias = "try_acquire_for")]
    pub fn acquire_within(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<SemaphorePermit<'_>, OpError> {
        if self.raw.try_acquire() {
            return Ok(self.permit());
        }
        if self.raw.acquire_until(deadline.into(), || Ok(None))? {
            Ok(self.permit())
        } else {
            Err(OpError::Timeout {
                attempt: ACQUIRE,
                on: self.raw.label().clone(),
            })
        }
    }

    /// Adds a permit, whoever took it: for counts that no permit stands for,
    /// and in place of a process that died.
    ///
    /// # Errors
    ///
    /// [`OpError::Overflow`] at the limit.
    pub fn release(&self) -> Result<(), OpError> {
        self.release_many(1)
    }

    /// Adds several permits at once.
    ///
    /// # Errors
    ///
    /// [`OpError::Overflow`] when they exceed the limit; none was added.
    pub fn release_many(&self, permits: u32) -> Result<(), OpError> {
        let added = i32::try_from(permits).is_ok_and(|permits| self.raw.release(permits));
        if added {
            Ok(())
        } else {
            Err(OpError::Overflow {
                attempt: RELEASE,
                on: self.raw.label().clone(),
                limit: self.max().unwrap_or(i32::MAX),
            })
        }
    }

    /// The permits that are free; with others at work, of a moment ago.
    pub fn count(&self) -> i32 {
        self.raw.value()
    }

    /// Who waits, by the semaphore's own count: waiters that died stay in it.
    pub fn waiting(&self) -> i32 {
        self.raw.waiting()
    }

    /// The limit, if there is one.
    pub fn max(&self) -> Option<i32> {
        (self.raw.max > 0).then_some(self.raw.max)
    }
}

/// A permit, given back when dropped.
#[derive(Debug)]
#[must_use = "the permit is given back when this is dropped"]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
}

impl SemaphorePermit<'_> {
    /// At the limit somebody gave it back in our place.
    #[cold]
    fn surplus(&self) {
        tracing::warn!(
            semaphore = &*self.semaphore.raw.label().name,
            "a permit was given back that was given back before"
        );
    }

    /// Keeps the permit taken: for counts that are given back by another
    /// process, or by [`Semaphore::release`].
    pub const fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for SemaphorePermit<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.semaphore.raw.release(1) {
            self.surplus();
        }
    }
}
