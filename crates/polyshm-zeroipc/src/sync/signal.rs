//! Signal: a value that others watch (section 5.9).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    sync::mutex::RawMutex,
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{Bytes, Deadline, Word32, Word64, sync::Ordering};
use polyshm_wire::zeroipc::{
    Dialect, ImageError, MARKER_SIZE, SignalLayout, semaphore, signal, suffix,
};
use std::{marker::PhantomData, time::Duration};

/// A value with a version that every change raises, and that others can wait
/// for.
///
/// Changes are made under a lock, so [`Signal::update`] loses none. What was
/// stored before a change is seen by who sees its version.
///
/// Two formats differ in one number: C++ rounds the first entry's size up to 8,
/// Python does not, and insists. [`Signal::create`] makes the C++ one,
/// [`Signal::create_python`] the Python one; [`Signal::open`] takes either.
///
/// The entry's base name has at most 25 bytes: three entries are made of it.
///
/// **Death.** When a Rust process dies while it changes the value, the next one
/// that locks is told with [`OpError::HolderDied`], once: a value of more than 8
/// bytes may be half old and half new. Setting it anew, or reading it again to
/// take it as it is, goes on. A dead holder of another implementation ends in
/// [`OpError::HolderUnknown`], and [`Signal::force_unlock`] goes on.
///
/// Source: section 5.9 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Signal};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-signal-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let level = Signal::<f64>::create(&memory, "level", 1.5)?;
/// let version = level.version();
/// std::thread::scope(|scope| {
///     scope.spawn(|| level.set(2.5));
///     let seen = level.wait_for_change(version, Duration::from_secs(5)).expect("it changes");
///     assert_eq!(seen, (1, 2.5));
/// });
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Signal<T> {
    version: Word64,
    /// The version's low half, to sleep on.
    changed: Word32,
    value: Bytes,
    mutex: RawMutex,
    block: Block,
    _element: PhantomData<fn(T) -> T>,
}

const GET: &str = "read";
const SET: &str = "set";
const WAIT: &str = "wait for a change of";

impl<T: Element> Signal<T> {
    const WHAT: &'static str = "signal";
    /// How long a holder may take: they hold it for a copy.
    const PATIENCE: Duration = Duration::from_secs(5);

    fn names(name: &str) -> Result<[String; 3], Error> {
        let derived = |suffix| Memory::derived(Self::WHAT, name, suffix);
        Ok([
            derived(suffix::SIGNAL_STATE)?,
            derived(suffix::SIGNAL_MUTEX)?,
            name.to_owned(),
        ])
    }

    fn layout(memory: &Memory, name: &str, dialect: Dialect) -> Result<SignalLayout, Error> {
        let (size, align) = shape::<T>();
        SignalLayout::new(dialect, size, align)
            .map_err(memory.layout_error(&Memory::label(Self::WHAT, name)))
    }

    /// Creates a signal in the C++ format, version 0.
    ///
    /// # Errors
    ///
    /// The name is taken, too long or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str, initial: T) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Cpp, initial)
    }

    /// Creates a signal in the Python format, version 0. The two formats are the
    /// same where the value's size is a multiple of 8.
    ///
    /// # Errors
    ///
    /// As [`Signal::create`].
    pub fn create_python(memory: &Memory, name: &str, initial: T) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Python, initial)
    }

    fn create_as(memory: &Memory, name: &str, dialect: Dialect, initial: T) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout = Self::layout(memory, name, dialect)?;
        let sizes = [layout.size(), semaphore::SIZE, MARKER_SIZE];
        let names = Self::names(name)?;
        let parts: Vec<Part> = names
            .into_iter()
            .zip(sizes)
            .map(|(name, size)| Part { name, size })
            .collect();
        memory.create_entries(&label, &parts, |blocks| {
            blocks[0].fill(signal::VALUE, initial.as_bytes())?;
            Self::over(&blocks[0], RawMutex::init(&blocks[1])?)
        })
    }

    /// Opens a signal of either format.
    ///
    /// # Errors
    ///
    /// There is none of that name, its value has another size, or it is damaged.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let [state, mutex, marker] = Self::names(name)?;
        let layout = Self::layout(memory, name, Dialect::Cpp)?;
        let block = memory.open_entry(&state, &label)?;
        let found = block.size as u64;
        if !layout.accepts(found) {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found,
                expected: layout.size(),
            }));
        }
        let marker = memory.open_entry(&marker, &label)?;
        if marker.size as u64 != MARKER_SIZE {
            return Err(marker.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: marker.size as u64,
                expected: MARKER_SIZE,
            }));
        }
        let mutex = RawMutex::open(&memory.open_entry(&mutex, &label)?)?;
        Self::over(&block, mutex)
    }

    /// Opens the signal, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Signal::open`] and [`Signal::create`].
    pub fn open_or_create(memory: &Memory, name: &str, initial: T) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, initial),
        )
    }

    fn over(block: &Block, mutex: RawMutex) -> Result<Self, Error> {
        Ok(Self {
            version: block.word64(signal::VERSION)?,
            changed: block.word32(signal::VERSION)?,
            value: block.bytes(signal::VALUE, size_of::<T>())?,
            mutex,
            block: block.clone(),
            _element: PhantomData,
        })
    }

    fn load(&self) -> T {
        let mut value = T::new_zeroed();
        let loaded = self.value.read(0, value.as_mut_bytes());
        debug_assert!(loaded.is_ok(), "as long as the value");
        value
    }

    /// Stores a value under the lock.
    fn store(&self, value: T) {
        let stored = self.value.write(0, value.as_bytes());
        debug_assert!(stored.is_ok(), "as long as the value");
        // Release: pairs with the acquire of who looks at the version. An
        // update: it is the barrier before the bell.
        self.version.fetch_add(1, Ordering::Release);
        self.block.bell.ring(&self.changed, u32::MAX);
    }

    fn lock(&self, attempt: &'static str) -> Result<(), OpError> {
        let taken = self
            .mutex
            .lock_until(attempt, Deadline::after(Self::PATIENCE))?;
        if taken.recovered() {
            self.mutex.unlock();
            return Err(OpError::HolderDied {
                attempt,
                on: self.block.label.clone(),
                hint: "its value may be half-changed: set it, or read again to take it as it is",
            });
        }
        Ok(())
    }

    /// The value.
    ///
    /// Values of 1, 2, 4 and 8 bytes are read without the lock; others wait for
    /// it, at most 5 s.
    ///
    /// # Errors
    ///
    /// [`OpError::HolderDied`], [`OpError::HolderUnknown`], [`OpError::Timeout`].
    pub fn get(&self) -> Result<T, OpError> {
        if matches!(size_of::<T>(), 1 | 2 | 4 | 8) {
            return Ok(self.load());
        }
        self.lock(GET)?;
        let value = self.load();
        self.mutex.unlock();
        Ok(value)
    }

    /// The value and its version, of the same moment.
    ///
    /// # Errors
    ///
    /// As [`Signal::get`].
    pub fn snapshot(&self) -> Result<(u64, T), OpError> {
        self.lock(GET)?;
        let seen = (self.version(), self.load());
        self.mutex.unlock();
        Ok(seen)
    }

    /// Gives it another value; waits for the lock, at most 5 s.
    ///
    /// # Errors
    ///
    /// As [`Signal::get`]; the value was not set.
    pub fn set(&self, value: T) -> Result<(), OpError> {
        self.update(|_| value).map(|_| ())
    }

    /// Changes the value by a function of it, under the lock; gives the new one.
    ///
    /// # Errors
    ///
    /// As [`Signal::get`]; the value was not changed.
    pub fn update(&self, change: impl FnOnce(T) -> T) -> Result<T, OpError> {
        /// Gives the lock back also when the function panics.
        struct Unlock<'a>(&'a RawMutex);
        impl Drop for Unlock<'_> {
            fn drop(&mut self) {
                self.0.unlock();
            }
        }
        self.lock(SET)?;
        let _unlock = Unlock(&self.mutex);
        let value = change(self.load());
        self.store(value);
        Ok(value)
    }

    /// How often it was changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits until the version is no longer `seen`; gives the new version and
    /// its value.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], or as [`Signal::get`].
    pub fn wait_for_change(
        &self,
        seen: u64,
        deadline: impl Into<Deadline>,
    ) -> Result<(u64, T), OpError> {
        let look = || {
            let version = self.version();
            Ok(if version == seen {
                Look::Sleep(seen as u32)
            } else {
                Look::Ready(())
            })
        };
        Wait::new(
            &self.changed,
            Sleepers::Bell(&self.block.bell),
            look,
            || Ok(None),
        )
        .run(self.block.waiter, deadline.into())?
        .ok_or_else(|| OpError::Timeout {
            attempt: WAIT,
            on: self.block.label.clone(),
        })?;
        self.snapshot()
    }

    /// Whether it has changed since `seen`: the try form of a wait.
    pub fn has_changed(&self, seen: u64) -> bool {
        self.version() != seen
    }

    /// Gives the lock back in place of a holder that cannot; gives whether it
    /// was locked. If the holder lives, changes may be lost: look first.
    pub fn force_unlock(&self) -> bool {
        self.mutex.force_unlock()
    }
}
