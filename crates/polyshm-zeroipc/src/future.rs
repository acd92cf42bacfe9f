//! Future: a value that comes later, or an error (section 6.3).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait, wake_counted},
};
use polyshm_platform::{Bytes, Deadline, Word32, Word64, process, sync::Ordering};
use polyshm_wire::zeroipc::{Dialect, FutureLayout, ImageError, future};
use std::{
    marker::PhantomData,
    time::{SystemTime, UNIX_EPOCH},
};

/// A value or an error text that one process gives, once, and any number wait
/// for.
///
/// What the setter stored before is seen by who gets the value. The two formats
/// differ in their size alone: [`Future::create`] makes the C++ one,
/// [`Future::create_python`] the Python one, and [`Future::open`] takes either.
///
/// **Death.** While it sets the value, a Rust process leaves its mark where the
/// time will stand. When it dies there, waiting ends with
/// [`OpError::HolderDied`], and the next Rust process that sets the value takes
/// over and is told. If it was of another implementation, waiting ends at its
/// deadline, and [`Future::reset`] makes it settable again.
///
/// Source: section 6.3 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Future, Memory, SetOutcome};
///
/// let name = format!("polyshm-doc-future-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let answer = Future::<i32>::create(&memory, "answer")?;
/// assert_eq!(answer.try_get(), Ok(None));
/// assert_eq!(answer.set(42), Ok(SetOutcome::Set));
/// assert_eq!(answer.get(), Ok(42));
/// assert!(answer.set(43).is_err(), "only once");
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Future<T> {
    state: Word32,
    waiters: Word32,
    /// When it was set, in the setter's own unit; while it is being set, a Rust
    /// setter's stamp.
    time: Word64,
    value: Bytes,
    error: Bytes,
    dialect: Dialect,
    own: u64,
    block: Block,
    _element: PhantomData<fn(T) -> T>,
}

/// How a value was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOutcome {
    /// As the first.
    Set,
    /// In place of a process that died while it set it.
    Recovered,
}

/// Whether a future has come, without waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutureState {
    /// Nobody has set it.
    Pending,
    /// Somebody is just setting it.
    Computing,
    /// The value is there.
    Ready,
    /// An error is there.
    Failed,
}

const GET: &str = "get";
const SET: &str = "set";

impl<T: Element> Future<T> {
    const WHAT: &'static str = "future";

    /// Creates a future in the C++ format.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Cpp)
    }

    /// Creates a future in the Python format. The two are the same where the
    /// value's size is a multiple of 8.
    ///
    /// # Errors
    ///
    /// As [`Future::create`].
    pub fn create_python(memory: &Memory, name: &str) -> Result<Self, Error> {
        Self::create_as(memory, name, Dialect::Python)
    }

    fn create_as(memory: &Memory, name: &str, dialect: Dialect) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let layout =
            FutureLayout::new(dialect, size, align).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| Self::over(&blocks[0], &layout))
    }

    /// Opens a future of either format.
    ///
    /// # Errors
    ///
    /// There is none of that name, or its value has another size.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let (size, align) = shape::<T>();
        let block = memory.open_entry(name, &label)?;
        let layout = FutureLayout::read(block.size as u64, size, align)
            .map_err(|source| block.mismatch(source))?;
        let opened = Self::over(&block, &layout)?;
        let state = opened.state.load(Ordering::Acquire);
        if state > future::ERROR {
            return Err(block.mismatch(ImageError::Field {
                structure: Self::WHAT,
                field: "state",
                found: state.into(),
                min: 0,
                max: future::ERROR.into(),
            }));
        }
        Ok(opened)
    }

    /// Opens the future, or creates it in the C++ format if there is none.
    ///
    /// # Errors
    ///
    /// As [`Future::open`] and [`Future::create`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::create(memory, name))
    }

    fn over(block: &Block, layout: &FutureLayout) -> Result<Self, Error> {
        Ok(Self {
            state: block.word32(future::STATE)?,
            waiters: block.word32(future::WAITERS)?,
            time: block.word64(future::TIME)?,
            value: block.bytes(future::VALUE, size_of::<T>())?,
            error: block.bytes(layout.error_offset(), future::ERROR_SIZE as usize)?,
            dialect: layout.dialect,
            own: if block.marks {
                process::stamp(process::current())
            } else {
                0
            },
            block: block.clone(),
            _element: PhantomData,
        })
    }

    /// Which of the two formats it has; C++ where both are the same.
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Takes the right to set it.
    fn begin(&self) -> Result<SetOutcome, OpError> {
        // AcqRel: one setter wins.
        let claimed = self.state.compare_exchange(
            future::PENDING,
            future::COMPUTING,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let on = || self.block.label.clone();
        match claimed {
            Ok(_) => {
                // Relaxed: only who finds us dead cares.
                self.time.store(self.own, Ordering::Relaxed);
                Ok(SetOutcome::Set)
            }
            Err(future::COMPUTING) => match self.dead_setter() {
                // AcqRel: of several that see it dead one wins.
                Some(dead)
                    if self
                        .time
                        .compare_exchange(dead, self.own, Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok() =>
                {
                    Ok(SetOutcome::Recovered)
                }
                _ => Err(OpError::HolderUnknown {
                    attempt: SET,
                    on: on(),
                    hint: "it may also be at it just now; if it is dead, call reset()",
                }),
            },
            Err(_) => Err(OpError::AlreadyDone {
                attempt: SET,
                on: on(),
            }),
        }
    }

    /// The stamp of a Rust setter that died at it.
    fn dead_setter(&self) -> Option<u64> {
        let stamp = self.time.load(Ordering::Relaxed);
        (self.own != 0
            && stamp != 0
            && self.state.load(Ordering::Acquire) == future::COMPUTING
            && !process::is_alive_stamped(stamp >> 32, stamp))
        .then_some(stamp)
    }

    fn finish(&self, state: u32) {
        let now = match self.dialect {
            // Nanoseconds of a clock of its own, as in the reference; Unix
            // microseconds in Python. Everybody takes it as opaque.
            Dialect::Cpp => unix_time().as_nanos() as u64,
            Dialect::Python => unix_time().as_micros() as u64,
        };
        // An update, not a store: it is the barrier before the count of waiters
        // is looked at. Release: pairs with the acquire of who gets it.
        let _ = self.state.compare_exchange(
            future::COMPUTING,
            state,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        // Only now: until then the word says who sets it, and a time is no
        // living process.
        self.time.store(now, Ordering::Relaxed);
        wake_counted(&self.state, &self.waiters, u32::MAX);
    }

    /// Gives the value.
    ///
    /// # Errors
    ///
    /// [`OpError::AlreadyDone`], or [`OpError::HolderUnknown`] while another
    /// process is at it.
    #[doc(alias = "set_value")]
    pub fn set(&self, value: T) -> Result<SetOutcome, OpError> {
        let outcome = self.begin()?;
        let stored = self.value.write(0, value.as_bytes());
        debug_assert!(stored.is_ok(), "as long as the value");
        self.finish(future::READY);
        Ok(outcome)
    }

    /// Gives an error in place of the value; its text is cut to 255 bytes.
    ///
    /// # Errors
    ///
    /// As [`Future::set`].
    pub fn set_error(&self, text: &str) -> Result<SetOutcome, OpError> {
        let outcome = self.begin()?;
        store_text(&self.error, text, self.error.len());
        self.finish(future::ERROR);
        Ok(outcome)
    }

    /// Waits for the value without end.
    ///
    /// # Errors
    ///
    /// [`OpError::Failed`] with the setter's text, or [`OpError::HolderDied`].
    pub fn get(&self) -> Result<T, OpError> {
        self.get_within(Deadline::never())
    }

    /// The value if it is there.
    ///
    /// # Errors
    ///
    /// [`OpError::Failed`] with the setter's text.
    pub fn try_get(&self) -> Result<Option<T>, OpError> {
        match self.look()? {
            Look::Ready(value) => Ok(Some(value)),
            Look::Sleep(_) | Look::Nap => Ok(None),
        }
    }

    /// Waits for the value until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`], [`OpError::Failed`] with the setter's text, or
    /// [`OpError::HolderDied`].
    #[doc(alias = "get_for")]
    pub fn get_within(&self, deadline: impl Into<Deadline>) -> Result<T, OpError> {
        if let Look::Ready(value) = self.look()? {
            return Ok(value);
        }
        // Relaxed: an update, so a barrier between this and the looks.
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let check = || match self.dead_setter() {
            None => Ok(None),
            Some(_) => Err(OpError::HolderDied {
                attempt: GET,
                on: self.block.label.clone(),
                hint: "set it in its place",
            }),
        };
        let done = Wait::new(&self.state, Sleepers::Counted, || self.look(), check)
            .run(self.block.waiter, deadline.into());
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        done?.ok_or_else(|| OpError::Timeout {
            attempt: GET,
            on: self.block.label.clone(),
        })
    }

    fn look(&self) -> Result<Look<T>, OpError> {
        // Acquire: pairs with the setter's release.
        match self.state.load(Ordering::Acquire) {
            future::READY => {
                let mut value = T::new_zeroed();
                let loaded = self.value.read(0, value.as_mut_bytes());
                debug_assert!(loaded.is_ok(), "as long as the value");
                Ok(Look::Ready(value))
            }
            future::ERROR => Err(OpError::Failed {
                on: self.block.label.clone(),
                message: load_text(&self.error),
            }),
            other => Ok(Look::Sleep(other)),
        }
    }

    /// Whether it has come.
    pub fn state(&self) -> FutureState {
        match self.state.load(Ordering::Acquire) {
            future::PENDING => FutureState::Pending,
            future::READY => FutureState::Ready,
            future::ERROR => FutureState::Failed,
            _ => FutureState::Computing,
        }
    }

    /// Whether the value is there.
    pub fn is_ready(&self) -> bool {
        self.state() == FutureState::Ready
    }

    /// Makes it settable again, whatever its state: in place of a process that
    /// died while it set it. Only while nobody sets or gets it.
    pub fn reset(&self) {
        self.time.store(0, Ordering::Relaxed);
        self.state.store(future::PENDING, Ordering::Release);
    }
}

fn unix_time() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Stores a text with its NUL in the first `len` bytes, cut at a character's end.
pub(crate) fn store_text(into: &Bytes, text: &str, len: usize) {
    let len = len.min(into.len());
    let mut end = text.len().min(len.saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = vec![0; len];
    bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
    let stored = into.write(0, &bytes);
    debug_assert!(stored.is_ok(), "as long as the field");
}

/// The text up to its NUL.
pub(crate) fn load_text(from: &Bytes) -> String {
    let mut bytes = vec![0; from.len()];
    let loaded = from.read(0, &mut bytes);
    debug_assert!(loaded.is_ok(), "as long as the field");
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}
