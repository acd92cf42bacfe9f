//! RwLock: many readers or one writer (section 5.7).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    sync::mutex::RawMutex,
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{Deadline, Word32, Word64, process, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, MARKER_SIZE, rwlock, semaphore, suffix};

/// Who reads, in the seven bytes of padding after the one-byte marker: two
/// places of 22 bits of pid and 6 of count. Which references leave 0.
#[derive(Clone, Debug)]
struct Registry {
    word: Word64,
    own: u64,
}

impl Registry {
    const PLACES: [u32; 2] = [8, 36];
    const PID: u64 = (1 << 22) - 1;
    const PLACE: u64 = (1 << 28) - 1;
    const ONE: u64 = 1 << 22;

    /// A place's pid and count.
    const fn read(word: u64, shift: u32) -> (u64, u64) {
        let place = word >> shift & Self::PLACE;
        (place & Self::PID, place >> 22)
    }

    const fn write(word: u64, shift: u32, pid: u64, count: u64) -> u64 {
        let pid = if count == 0 { 0 } else { pid };
        (word & !(Self::PLACE << shift)) | (((count * Self::ONE) | pid) << shift)
    }

    /// Changes one place; `change` gives its new pid and count.
    fn update(&self, change: impl Fn(u64, u64) -> Option<(u64, u64)>) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let changed = Self::PLACES.iter().find_map(|&shift| {
                let (pid, count) = Self::read(word, shift);
                let (pid, count) = change(pid, count)?;
                Some(Self::write(word, shift, pid, count))
            });
            let Some(next) = changed else { return false };
            // AcqRel: pairs with itself; of several that bury a dead reader one
            // wins.
            match self
                .word
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
    }

    /// Writes down one more hold of this process, if there is a place.
    fn enter(&self) -> bool {
        let own = self.own;
        self.update(|pid, count| (pid == own && count > 0 && count < 63).then(|| (own, count + 1)))
            || self.update(|_, count| (count == 0).then_some((own, 1)))
    }

    fn leave(&self) {
        let own = self.own;
        self.update(|pid, count| (pid == own && count > 0).then(|| (own, count - 1)));
    }

    /// Takes out one dead process: gives how many holds it had.
    fn bury(&self) -> Option<u32> {
        let word = self.word.load(Ordering::Relaxed);
        Self::PLACES.iter().find_map(|&shift| {
            let (dead, holds) = Self::read(word, shift);
            (holds > 0 && !process::is_alive(dead)).then_some(())?;
            let gone = self.update(|pid, count| (pid == dead && count == holds).then_some((0, 0)));
            gone.then_some(holds as u32)
        })
    }
}

/// A lock that many readers or one writer hold.
///
/// A writer that waits holds off new readers. What was stored under the write
/// lock is seen by the next readers and the next writer.
///
/// The entry's base name has at most 25 bytes: four entries are made of it.
///
/// **Death.** A Rust writer that dies is noticed by the next Rust process that
/// waits, reader or writer, which takes over and is told (`recovered`). Rust
/// readers of at most two processes at a time are written down in bytes that
/// other implementations ignore, and a waiting writer takes out those that died;
/// a reader beyond that, one that died within the few instructions around its
/// count, or one of another implementation makes writers end at their deadlines,
/// and [`RwLock::force_release_readers`] lets them in.
///
/// Source: section 5.7 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, RwLock};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-rwlock-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let lock = RwLock::create(&memory, "lock")?;
/// let patience = Duration::from_millis(1);
/// {
///     let one = lock.read().expect("free");
///     let two = lock.read().expect("shared");
///     assert!(lock.write_within(patience).is_err());
/// }
/// assert!(!lock.write_within(patience).expect("free").recovered());
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RwLock {
    /// As `i32`: who reads.
    readers: Word32,
    /// 1 while a writer has the lock or waits for the readers to go.
    writer_active: Word32,
    /// Held for a moment, to count readers.
    reader_mutex: RawMutex,
    /// Held by the writer.
    writer_mutex: RawMutex,
    registry: Option<Registry>,
    block: Block,
}

const READ: &str = "read-lock";
const WRITE: &str = "write-lock";

impl RwLock {
    const WHAT: &'static str = "rwlock";

    fn names(name: &str) -> Result<[String; 4], Error> {
        let derived = |suffix| Memory::derived(Self::WHAT, name, suffix);
        Ok([
            derived(suffix::RW_STATE)?,
            derived(suffix::RW_READER_MUTEX)?,
            derived(suffix::RW_WRITER_MUTEX)?,
            name.to_owned(),
        ])
    }

    /// Creates a lock that nobody holds.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let sizes = [rwlock::SIZE, semaphore::SIZE, semaphore::SIZE, MARKER_SIZE];
        let names = Self::names(name)?;
        let parts: Vec<Part> = names
            .into_iter()
            .zip(sizes)
            .map(|(name, size)| Part { name, size })
            .collect();
        memory.create_entries(&label, &parts, Self::init)
    }

    pub(crate) fn init(blocks: &[Block]) -> Result<Self, Error> {
        RawMutex::init(&blocks[1])?;
        RawMutex::init(&blocks[2])?;
        Self::over(blocks)
    }

    /// Opens a lock.
    ///
    /// # Errors
    ///
    /// There is none of that name, or an entry has another size or is no mutex.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let [state, reader, writer, marker] = Self::names(name)?;
        let blocks = [
            memory.open_entry(&state, &label)?,
            memory.open_entry(&reader, &label)?,
            memory.open_entry(&writer, &label)?,
            memory.open_entry(&marker, &label)?,
        ];
        for (block, expected) in [(&blocks[0], rwlock::SIZE), (&blocks[3], MARKER_SIZE)] {
            if block.size as u64 != expected {
                return Err(block.mismatch(ImageError::Size {
                    structure: Self::WHAT,
                    found: block.size as u64,
                    expected,
                }));
            }
        }
        Self::over(&blocks)
    }

    /// Opens the lock, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`RwLock::open`] and [`RwLock::create`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::create(memory, name))
    }

    fn over(blocks: &[Block]) -> Result<Self, Error> {
        let marker = &blocks[3];
        let own = process::current();
        let registry = if marker.marks && marker.room >= 8 && own <= Registry::PID {
            Some(Registry {
                word: marker.word64(0)?,
                own,
            })
        } else {
            None
        };
        Ok(Self {
            readers: blocks[0].word32(rwlock::READERS)?,
            writer_active: blocks[0].word32(rwlock::WRITER_ACTIVE)?,
            reader_mutex: RawMutex::open(&blocks[1])?,
            writer_mutex: RawMutex::open(&blocks[2])?,
            registry,
            block: blocks[0].clone(),
        })
    }

    /// Takes a read lock if there is no writer and nobody is just being
    /// counted.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_>> {
        self.reader_mutex.try_lock()?;
        let free = self.writer_active.load(Ordering::Acquire) == 0;
        if free {
            self.count_reader();
        }
        self.reader_mutex.unlock();
        // Not `then_some`: a guard that is made is also dropped.
        free.then(|| RwLockReadGuard {
            lock: self,
            recovered: false,
        })
    }

    /// Takes a read lock, waiting for a writer without end.
    ///
    /// # Errors
    ///
    /// None today.
    #[doc(alias = "reader_lock")]
    pub fn read(&self) -> Result<RwLockReadGuard<'_>, OpError> {
        self.read_within(Deadline::never())
    }

    /// Takes a read lock, waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], or [`OpError::HolderUnknown`] when the counting of
    /// readers is held up by nobody who is known.
    pub fn read_within(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<RwLockReadGuard<'_>, OpError> {
        let deadline = deadline.into();
        let mut recovered = false;
        loop {
            self.reader_mutex.lock_until(READ, deadline)?;
            // Acquire: pairs with the release of the last writer.
            if self.writer_active.load(Ordering::Acquire) == 0 {
                self.count_reader();
                self.reader_mutex.unlock();
                return Ok(RwLockReadGuard {
                    lock: self,
                    recovered,
                });
            }
            self.reader_mutex.unlock();
            self.wait_for_writer(deadline, &mut recovered)?;
            // Writers that come and go are never waited for in vain, and yet
            // the next one may always be first.
            if deadline.expired() {
                return Err(self.timeout(READ));
            }
        }
    }

    /// Under the reader mutex.
    fn count_reader(&self) {
        // Acquire: what a writer did comes before what we read; the release
        // side is the writer's unlocking of what we passed.
        self.readers.fetch_add(1, Ordering::Acquire);
        // Written down after it counts: a death in between leaves a reader that
        // nobody knows, never one too few.
        if let Some(registry) = &self.registry
            && !registry.enter()
        {
            tracing::trace!(
                lock = &*self.block.label.name,
                "a reader is not written down"
            );
        }
    }

    fn wait_for_writer(&self, deadline: Deadline, recovered: &mut bool) -> Result<(), OpError> {
        let look = || {
            let active = self.writer_active.load(Ordering::Acquire);
            Ok(if active == 0 {
                Look::Ready(())
            } else {
                Look::Sleep(active)
            })
        };
        let check = || {
            if !self.writer_mutex.holder_died() {
                return Ok(None);
            }
            // As its successor: ours from here on, so that nobody else writes.
            let taken = match self.writer_mutex.lock_until(READ, Deadline::now()) {
                Ok(taken) if taken.recovered() => taken,
                Ok(_) => {
                    self.writer_mutex.unlock();
                    return Ok(None);
                }
                Err(_) => return Ok(None),
            };
            *recovered |= taken.recovered();
            self.end_writing();
            Ok(Some(()))
        };
        Wait::new(
            &self.writer_active,
            Sleepers::Bell(&self.block.bell),
            look,
            check,
        )
        .run(self.block.waiter, deadline)?
        .ok_or_else(|| self.timeout(READ))
    }

    fn timeout(&self, attempt: &'static str) -> OpError {
        OpError::Timeout {
            attempt,
            on: self.block.label.clone(),
        }
    }

    fn end_reading(&self) {
        if let Some(registry) = &self.registry {
            // Before it stops to count; as above.
            registry.leave();
        }
        let mut readers = self.readers.load(Ordering::Relaxed);
        // Not below 0: somebody may have forced us out.
        while readers.cast_signed() > 0 {
            // Release: pairs with the acquire of the writer that waits for 0.
            match self.readers.compare_exchange(
                readers,
                readers - 1,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(found) => readers = found,
            }
        }
        if readers.cast_signed() <= 1 {
            self.block.bell.ring(&self.readers, u32::MAX);
        }
    }

    /// Takes the write lock if nobody holds the lock.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_>> {
        self.write_within(Deadline::now()).ok()
    }

    /// Takes the write lock, waiting without end.
    ///
    /// # Errors
    ///
    /// None today.
    #[doc(alias = "writer_lock")]
    pub fn write(&self) -> Result<RwLockWriteGuard<'_>, OpError> {
        self.write_within(Deadline::never())
    }

    /// Takes the write lock, waiting until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], or [`OpError::HolderUnknown`] when the holder is
    /// nobody who is known.
    pub fn write_within(
        &self,
        deadline: impl Into<Deadline>,
    ) -> Result<RwLockWriteGuard<'_>, OpError> {
        let deadline = deadline.into();
        let taken = self.writer_mutex.lock_until(WRITE, deadline)?;
        let flagged = self
            .reader_mutex
            .lock_until(WRITE, deadline)
            .map(|_| {
                // Release: pairs with the acquire of who wants to read.
                self.writer_active.store(1, Ordering::Release);
                self.reader_mutex.unlock();
            })
            .and_then(|()| self.wait_for_readers(deadline));
        match flagged {
            Ok(()) => Ok(RwLockWriteGuard {
                lock: self,
                recovered: taken.recovered(),
            }),
            Err(error) => {
                self.let_read();
                self.writer_mutex.leave(taken);
                Err(error)
            }
        }
    }

    fn wait_for_readers(&self, deadline: Deadline) -> Result<(), OpError> {
        let look = || {
            // Acquire: pairs with the release of the readers.
            let readers = self.readers.load(Ordering::Acquire);
            Ok(if readers.cast_signed() <= 0 {
                Look::Ready(())
            } else {
                Look::Sleep(readers)
            })
        };
        let check = || {
            if let Some(registry) = &self.registry {
                while let Some(holds) = registry.bury() {
                    tracing::warn!(lock = &*self.block.label.name, holds, "a reader died");
                    self.readers.fetch_sub(holds, Ordering::AcqRel);
                }
            }
            Ok(match look()? {
                Look::Ready(()) => Some(()),
                _ => None,
            })
        };
        Wait::new(&self.readers, Sleepers::Bell(&self.block.bell), look, check)
            .run(self.block.waiter, deadline)?
            .ok_or_else(|| self.timeout(WRITE))
    }

    fn end_writing(&self) {
        self.let_read();
        self.writer_mutex.unlock();
    }

    /// Says that nobody writes.
    fn let_read(&self) {
        let mut active = self.writer_active.load(Ordering::Relaxed);
        // An update, not a store: it is the barrier before the bell. Release:
        // pairs with the acquire of who wants to read.
        while let Err(found) =
            self.writer_active
                .compare_exchange(active, 0, Ordering::Release, Ordering::Relaxed)
        {
            active = found;
        }
        self.block.bell.ring(&self.writer_active, u32::MAX);
    }

    /// Who reads, by the lock's own count.
    pub fn readers(&self) -> i32 {
        self.readers.load(Ordering::Acquire).cast_signed()
    }

    /// Whether a writer has the lock or waits for the readers to go.
    pub fn is_writing(&self) -> bool {
        self.writer_active.load(Ordering::Acquire) != 0
    }

    /// Forgets all readers: for readers that died and are not known. A reader
    /// that lives reads on beside the next writer: look first.
    pub fn force_release_readers(&self) {
        if let Some(registry) = &self.registry {
            while registry.update(|_, count| (count > 0).then_some((0, 0))) {}
        }
        self.readers.store(0, Ordering::Release);
        self.readers.wake(u32::MAX);
        if self.reader_mutex.is_locked() {
            self.reader_mutex.force_unlock();
        }
    }

    /// Takes the lock from a writer that died and is not known. If it lives, it
    /// writes on beside the next holder: look first.
    pub fn force_release_writer(&self) {
        if self.reader_mutex.is_locked() {
            self.reader_mutex.force_unlock();
        }
        self.end_writing();
    }
}

/// A read lock, given back when dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct RwLockReadGuard<'a> {
    lock: &'a RwLock,
    recovered: bool,
}

impl RwLockReadGuard<'_> {
    /// Whether a writer was found dead on the way: what the lock protects may be
    /// half-changed.
    pub const fn recovered(&self) -> bool {
        self.recovered
    }
}

impl Drop for RwLockReadGuard<'_> {
    fn drop(&mut self) {
        self.lock.end_reading();
    }
}

/// The write lock, given back when dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct RwLockWriteGuard<'a> {
    lock: &'a RwLock,
    recovered: bool,
}

impl RwLockWriteGuard<'_> {
    /// Whether the writer before us died with the lock: what it protects may be
    /// half-changed.
    pub const fn recovered(&self) -> bool {
        self.recovered
    }
}

impl Drop for RwLockWriteGuard<'_> {
    fn drop(&mut self) {
        self.lock.end_writing();
    }
}
