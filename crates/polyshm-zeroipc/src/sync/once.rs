//! Once: something that is done a single time (section 5.5).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{Deadline, Word32, process, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, once};

/// Something that one of all processes does, and the others wait for.
///
/// What the call stored is seen by everybody whose call returns. A call that
/// panics has not been made: the next one runs.
///
/// **Death.** A Rust process that runs leaves its mark in the padding after the
/// entry. When it dies, the next Rust process that waits runs instead, and is
/// told ([`OnceRun::recovered`]). A dead one of another implementation is
/// unknown: waiting ends with [`OpError::HolderUnknown`], and [`Once::reset`]
/// lets somebody else run.
///
/// Source: section 5.5 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Memory, Once, OnceOutcome};
///
/// let name = format!("polyshm-doc-once-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let init = Once::create(&memory, "init")?;
/// let mut runs = 0;
/// assert_eq!(init.call(|_| runs += 1), Ok(OnceOutcome::Ran));
/// assert_eq!(init.call(|_| runs += 1), Ok(OnceOutcome::WasDone));
/// assert_eq!(runs, 1);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Once {
    state: Word32,
    /// Who runs; as in a mutex.
    mark: Option<Word32>,
    own: u32,
    block: Block,
}

/// What a call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnceOutcome {
    /// It ran here.
    Ran,
    /// Another call had done it.
    WasDone,
}

/// What the function of a call is told.
#[derive(Clone, Copy, Debug)]
pub struct OnceRun {
    recovered: bool,
}

impl OnceRun {
    /// Whether an earlier run ended in its process's death: its work may be
    /// half done.
    pub const fn recovered(&self) -> bool {
        self.recovered
    }
}

/// Puts the state back when the function panics.
struct Running<'a> {
    once: &'a Once,
    done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let to = if self.done { once::DONE } else { once::PENDING };
        self.once.finish(to);
    }
}

const CALL: &str = "run";
const WAIT: &str = "wait for";

impl Once {
    const WHAT: &'static str = "once";
    /// Where the mark is: right after the entry.
    const MARK: u64 = once::SIZE;

    /// Creates one that nobody has run.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or it does not fit.
    pub fn create(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let part = Part {
            name: name.to_owned(),
            size: once::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| Self::over(&blocks[0]))
    }

    /// Opens one.
    ///
    /// # Errors
    ///
    /// There is none of that name, or the entry has another size or an
    /// impossible state.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != once::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: once::SIZE,
            }));
        }
        let opened = Self::over(&block)?;
        let state = opened.state.load(Ordering::Acquire);
        if state > once::DONE {
            return Err(block.mismatch(ImageError::Field {
                structure: Self::WHAT,
                field: "state",
                found: state.into(),
                min: 0,
                max: once::DONE.into(),
            }));
        }
        Ok(opened)
    }

    /// Opens it, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Once::open`] and [`Once::create`].
    pub fn open_or_create(memory: &Memory, name: &str) -> Result<Self, Error> {
        open_or_create(|| Self::open(memory, name), || Self::create(memory, name))
    }

    pub(crate) fn over(block: &Block) -> Result<Self, Error> {
        let own = if block.marks && block.room as u64 >= Self::MARK + 4 {
            process::mark(process::current())
        } else {
            0
        };
        let mark = match own {
            0 => None,
            _ => Some(block.word32(Self::MARK)?),
        };
        Ok(Self {
            state: block.word32(once::STATE)?,
            mark,
            own,
            block: block.clone(),
        })
    }

    /// Runs `function` if nobody has; waits without end for who is running it.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn call(&self, function: impl FnOnce(&OnceRun)) -> Result<OnceOutcome, OpError> {
        self.call_within(Deadline::never(), function)
    }

    /// Runs `function` if nobody has; waits until the deadline or for that long
    /// for who is running it.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`] or [`OpError::HolderUnknown`]; `function` did not
    /// run.
    pub fn call_within(
        &self,
        deadline: impl Into<Deadline>,
        function: impl FnOnce(&OnceRun),
    ) -> Result<OnceOutcome, OpError> {
        match self.settle(CALL, deadline.into(), true)? {
            None => Ok(OnceOutcome::WasDone),
            Some(run) => {
                let mut running = Running {
                    once: self,
                    done: false,
                };
                function(&run);
                running.done = true;
                drop(running);
                Ok(OnceOutcome::Ran)
            }
        }
    }

    /// Runs `function` if nobody has; `None` while another is running it.
    pub fn try_call(&self, function: impl FnOnce(&OnceRun)) -> Option<OnceOutcome> {
        if self.state.load(Ordering::Acquire) == once::EXECUTING {
            return None;
        }
        self.call_within(Deadline::now(), function).ok()
    }

    /// Waits until it is done, until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::HolderDied`], [`OpError::Timeout`] or
    /// [`OpError::HolderUnknown`].
    pub fn wait_within(&self, deadline: impl Into<Deadline>) -> Result<(), OpError> {
        self.settle(WAIT, deadline.into(), false).map(|_| ())
    }

    /// Whether it is done. Acquire: what the call stored is seen.
    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == once::DONE
    }

    /// Back to the start, whatever the state: in place of a process that died
    /// while it ran. If it lives, two run.
    #[doc(alias = "reset_unsafe")]
    pub fn reset(&self) {
        self.finish(once::PENDING);
    }

    fn finish(&self, state: u32) {
        if let Some(mark) = &self.mark {
            // Relaxed: published by the state.
            mark.store(0, Ordering::Relaxed);
        }
        let mut now = self.state.load(Ordering::Relaxed);
        // An update, not a store: it is the barrier before the bell. Release:
        // pairs with the acquire of who finds it done.
        while let Err(found) =
            self.state
                .compare_exchange(now, state, Ordering::AcqRel, Ordering::Relaxed)
        {
            now = found;
        }
        self.block.bell.ring(&self.state, u32::MAX);
    }

    /// Waits until it is done (`None`) or ours to run.
    fn settle(
        &self,
        attempt: &'static str,
        deadline: Deadline,
        run: bool,
    ) -> Result<Option<OnceRun>, OpError> {
        let look = || {
            let state = self.state.load(Ordering::Acquire);
            if state == once::DONE {
                return Ok(Look::Ready(None));
            }
            if state != once::PENDING || !run {
                return Ok(Look::Sleep(state));
            }
            // AcqRel: pairs with `finish` of a run that panicked.
            let claimed = self.state.compare_exchange(
                once::PENDING,
                once::EXECUTING,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            Ok(match claimed {
                Ok(_) => {
                    if let Some(mark) = &self.mark {
                        // Relaxed: only who finds us dead cares.
                        mark.store(self.own, Ordering::Relaxed);
                    }
                    Look::Ready(Some(OnceRun { recovered: false }))
                }
                Err(found) => Look::Sleep(found),
            })
        };
        let check = || {
            if run {
                let ours = self.take_over();
                return Ok(ours.then_some(Some(OnceRun { recovered: true })));
            }
            match self.dead_runner() {
                None => Ok(None),
                Some(_) => Err(OpError::HolderDied {
                    attempt,
                    on: self.block.label.clone(),
                    hint: "call it: the next call runs",
                }),
            }
        };
        let done = Wait::new(&self.state, Sleepers::Bell(&self.block.bell), look, check)
            .run(self.block.waiter, deadline)?;
        done.ok_or_else(|| {
            let on = self.block.label.clone();
            let known = self
                .mark
                .as_ref()
                .is_some_and(|mark| mark.load(Ordering::Relaxed) != 0);
            if known || self.state.load(Ordering::Relaxed) == once::PENDING {
                OpError::Timeout { attempt, on }
            } else {
                OpError::HolderUnknown {
                    attempt,
                    on,
                    hint: "if it is, call reset()",
                }
            }
        })
    }

    /// The mark of a process that died while it ran.
    fn dead_runner(&self) -> Option<u32> {
        let mark = self.mark.as_ref()?.load(Ordering::Relaxed);
        let dead = mark != 0
            && !process::is_alive_marked(mark)
            && self.state.load(Ordering::Acquire) == once::EXECUTING;
        dead.then_some(mark)
    }

    fn take_over(&self) -> bool {
        let (Some(word), Some(mark)) = (&self.mark, self.dead_runner()) else {
            return false;
        };
        // AcqRel: of several that see it dead one wins.
        word.compare_exchange(mark, self.own, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}
