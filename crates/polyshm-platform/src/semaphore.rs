//! Counting semaphores: the system's named ones, and a stand-in on the heap.

use crate::{
    Deadline, Error, Mode, Result, crash,
    shm::check_name,
    sync::{AtomicU32, Ordering},
    sys,
};
use std::sync::Arc;

/// A counting semaphore that processes share by name.
///
/// A post happens before the wait that takes its token. The token is the only
/// thing it carries.
///
/// ```
/// use polyshm_platform::{Deadline, Semaphore};
///
/// let semaphore = Semaphore::local(1);
/// assert!(semaphore.try_wait()?);
/// assert!(!semaphore.wait_until(Deadline::now())?);
/// semaphore.post()?;
/// assert_eq!(semaphore.value(), Some(1));
/// # Ok::<(), polyshm_platform::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore(Form);

#[derive(Clone, Debug)]
enum Form {
    Named(Arc<sys::NamedSemaphore>),
    Local(Arc<Local>),
}

impl Semaphore {
    const WHAT: &'static str = "semaphore";

    /// Creates a semaphore that nobody has yet.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`], [`Error::InvalidName`], [`Error::PermissionDenied`].
    pub fn create_new(name: &str, value: u32, mode: Mode) -> Result<Self> {
        let path = check_name(Self::WHAT, name, sys::MAX_SEMAPHORE_NAME)?;
        crash::point(crash::Step::FileSystem);
        sys::NamedSemaphore::create_new(&path, value, mode)
            .map(|named| Self(Form::Named(Arc::new(named))))
            .map_err(|e| Error::from_io("create", Self::WHAT, name, e))
    }

    /// Opens a semaphore that exists.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::InvalidName`], [`Error::PermissionDenied`].
    pub fn open(name: &str) -> Result<Self> {
        let path = check_name(Self::WHAT, name, sys::MAX_SEMAPHORE_NAME)?;
        sys::NamedSemaphore::open(&path)
            .map(|named| Self(Form::Named(Arc::new(named))))
            .map_err(|e| Error::from_io("open", Self::WHAT, name, e))
    }

    /// A semaphore of this process, for tests and models; clones share it.
    #[must_use]
    pub fn local(value: u32) -> Self {
        Self(Form::Local(Arc::new(Local::new(value))))
    }

    /// Removes a name; whoever has the semaphore open keeps it. Gives whether
    /// there was one.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn unlink(name: &str) -> Result<bool> {
        let path = check_name(Self::WHAT, name, sys::MAX_SEMAPHORE_NAME)?;
        crash::point(crash::Step::FileSystem);
        match sys::NamedSemaphore::unlink(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::from_io("remove", Self::WHAT, name, e)),
        }
    }

    /// Adds a token and wakes a waiter. No system call when nobody waits.
    ///
    /// # Errors
    ///
    /// The value is at its maximum.
    #[inline]
    pub fn post(&self) -> Result<()> {
        crash::point(crash::Step::Semaphore);
        match &self.0 {
            Form::Named(named) => named.post().map_err(|e| failed("post", e)),
            Form::Local(local) => {
                local.post();
                Ok(())
            }
        }
    }

    /// Takes a token if there is one. Never blocks, no system call.
    ///
    /// # Errors
    ///
    /// The semaphore is damaged.
    #[inline]
    pub fn try_wait(&self) -> Result<bool> {
        match &self.0 {
            Form::Named(named) => {
                if named.value() == Some(0) {
                    return Ok(false);
                }
                crash::point(crash::Step::Semaphore);
                named.try_wait().map_err(|e| failed("take a token of", e))
            }
            Form::Local(local) => Ok(local.try_wait()),
        }
    }

    /// Takes as many tokens as there are, at most `count`; gives how many.
    /// Never blocks, however many there are.
    ///
    /// # Errors
    ///
    /// The semaphore is damaged.
    pub fn take_up_to(&self, count: u32) -> Result<u32> {
        match &self.0 {
            Form::Named(named) => {
                crash::point(crash::Step::Semaphore);
                named
                    .take_up_to(count)
                    .map_err(|e| failed("take tokens of", e))
            }
            Form::Local(local) => Ok(local.take_up_to(count)),
        }
    }

    /// Blocks until a token is taken or the deadline passes; gives whether
    /// one was taken. Signals do not end the wait.
    ///
    /// # Errors
    ///
    /// The semaphore is damaged.
    pub fn wait_until(&self, deadline: Deadline) -> Result<bool> {
        match &self.0 {
            Form::Named(named) => {
                crash::point(crash::Step::Semaphore);
                named
                    .wait_until(deadline)
                    .map_err(|e| failed("wait for", e))
            }
            Form::Local(local) => Ok(local.wait_until(deadline)),
        }
    }

    /// The number of tokens at this moment; `None` where the system cannot tell
    /// (macOS). No system call.
    #[inline]
    #[must_use]
    pub fn value(&self) -> Option<u32> {
        match &self.0 {
            Form::Named(named) => named.value(),
            // Acquire: pairs with the release of a post.
            Form::Local(local) => Some(local.value.load(Ordering::Acquire)),
        }
    }
}

#[cold]
fn failed(attempt: &'static str, source: std::io::Error) -> Error {
    Error::System {
        attempt,
        what: Semaphore::WHAT,
        name: "(open)".to_owned(),
        source,
    }
}

/// The stand-in: the same orderings as the C library's semaphore, and no more.
#[derive(Debug)]
struct Local {
    value: AtomicU32,
    #[cfg(not(loom))]
    sleepers: parking_lot::Mutex<()>,
    #[cfg(not(loom))]
    wake: parking_lot::Condvar,
}

impl Local {
    fn new(value: u32) -> Self {
        Self {
            value: AtomicU32::new(value),
            #[cfg(not(loom))]
            sleepers: parking_lot::Mutex::new(()),
            #[cfg(not(loom))]
            wake: parking_lot::Condvar::new(),
        }
    }

    fn post(&self) {
        // Release: what came before the post is seen by who takes the token.
        self.value.fetch_add(1, Ordering::Release);
        #[cfg(not(loom))]
        {
            // Taken so that a sleeper is either before its check or asleep.
            drop(self.sleepers.lock());
            self.wake.notify_one();
        }
    }

    fn try_wait(&self) -> bool {
        self.take_up_to(1) == 1
    }

    fn take_up_to(&self, count: u32) -> u32 {
        let mut value = self.value.load(Ordering::Relaxed);
        loop {
            let taken = value.min(count);
            if taken == 0 {
                return 0;
            }
            // Acquire: pairs with the release of the posts.
            match self.value.compare_exchange(
                value,
                value - taken,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return taken,
                Err(now) => value = now,
            }
        }
    }

    #[cfg(not(loom))]
    fn wait_until(&self, deadline: Deadline) -> bool {
        let mut guard = self.sleepers.lock();
        loop {
            if self.try_wait() {
                return true;
            }
            match deadline.remaining() {
                None => self.wake.wait(&mut guard),
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    self.wake.wait_for(&mut guard, left);
                }
            }
        }
    }

    /// A wait that no post ends exhausts loom's branches: a lost wake-up fails.
    #[cfg(loom)]
    fn wait_until(&self, deadline: Deadline) -> bool {
        loop {
            if self.try_wait() {
                return true;
            }
            if deadline.expired() {
                return false;
            }
            crate::sync::yield_now();
        }
    }
}
