//! Barrier: everybody waits for everybody (section 5.3).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait, settle},
};
use polyshm_platform::{Deadline, Word32, Word64, sync::Ordering};
use polyshm_wire::zeroipc::{BarrierImage, ImageError, barrier};

/// A meeting point: nobody goes on until a fixed number has arrived.
///
/// It can be used again and again; each meeting is a *generation*. What each
/// participant stored before it arrived is seen by all after it.
///
/// A wait that times out takes its arrival back, unless the meeting came about
/// at that very moment; then it succeeds. Arrivals and generation are changed
/// together, so a time-out never disturbs the next meeting.
///
/// **Death.** A participant that died after it arrived stays counted once; one
/// that never comes makes the others wait until their deadlines.
/// [`Barrier::force_release`] lets go who waits.
///
/// Source: section 5.3 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Barrier, Memory};
/// use std::time::Duration;
///
/// let name = format!("polyshm-doc-barrier-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let start = Barrier::create(&memory, "start", 2)?;
/// assert!(start.wait_within(Duration::from_millis(1)).is_err(), "alone");
/// std::thread::scope(|scope| {
///     scope.spawn(|| start.wait());
///     start.wait().expect("both came");
/// });
/// assert_eq!(start.generation(), 1);
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Barrier {
    /// Arrivals in the low half, generation in the high one. Always changed as
    /// one word, so that nobody sees one without the other.
    both: Word64,
    /// The generation's half, to sleep on; never loaded or stored here.
    generation: Word32,
    /// From the header at open.
    participants: i32,
    block: Block,
}

const WAIT: &str = "wait at";

/// Takes the word apart.
const fn split(both: u64) -> (i32, u32) {
    ((both as u32).cast_signed(), (both >> 32) as u32)
}

const fn join(arrived: i32, generation: u32) -> u64 {
    (generation as u64) << 32 | arrived.cast_unsigned() as u64
}

impl Barrier {
    const WHAT: &'static str = "barrier";

    /// Creates a barrier for that many participants.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or there are no participants.
    pub fn create(memory: &Memory, name: &str, participants: i32) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let image = BarrierImage::new(participants);
        if image.check().is_err() {
            return Err(Error::Unusable {
                on: label,
                reason: "it needs at least one participant",
            });
        }
        let part = Part {
            name: name.to_owned(),
            size: barrier::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| Self::init(&blocks[0], &image))
    }

    pub(crate) fn init(block: &Block, image: &BarrierImage) -> Result<Self, Error> {
        block.fill(0, &image.to_bytes())?;
        Self::over(block, image.participants.get())
    }

    /// Opens a barrier.
    ///
    /// # Errors
    ///
    /// There is none of that name, the entry has another size, or its numbers
    /// cannot be a barrier's.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != barrier::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: barrier::SIZE,
            }));
        }
        let header: [u8; 16] = block.header()?;
        let image = BarrierImage::read(&header).map_err(|source| block.mismatch(source))?;
        // The references can leave -1 arrivals behind; that heals.
        let fresh = BarrierImage::new(image.participants.get());
        fresh.check().map_err(|source| block.mismatch(source))?;
        Self::over(&block, image.participants.get())
    }

    /// Opens the barrier, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Barrier::open`] and [`Barrier::create`].
    pub fn open_or_create(memory: &Memory, name: &str, participants: i32) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, participants),
        )
    }

    fn over(block: &Block, participants: i32) -> Result<Self, Error> {
        Ok(Self {
            both: block.word64(barrier::ARRIVED)?,
            generation: block.word32(barrier::GENERATION)?,
            participants,
            block: block.clone(),
        })
    }

    /// Arrives, and waits for all others without end.
    ///
    /// Gives whether this arrival was the last.
    ///
    /// # Errors
    ///
    /// [`OpError::Damaged`] when the count stays above the participants, as a
    /// process of another implementation leaves it that dies as the last one.
    pub fn wait(&self) -> Result<bool, OpError> {
        self.wait_within(Deadline::never())
    }

    /// Arrives, and waits for all others until the deadline or for that long.
    ///
    /// Gives whether this arrival was the last.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`]; the arrival was taken back. [`OpError::Damaged`] as
    /// for [`Barrier::wait`].
    #[doc(alias = "wait_for")]
    pub fn wait_within(&self, deadline: impl Into<Deadline>) -> Result<bool, OpError> {
        let deadline = deadline.into();
        let Some(generation) = self.arrive()? else {
            return Ok(true);
        };
        let look = || {
            let (_, now) = split(self.both.load(Ordering::Acquire));
            Ok(if now == generation {
                Look::Sleep(generation)
            } else {
                Look::Ready(())
            })
        };
        let met = Wait::new(&self.generation, Sleepers::Counted, look, || Ok(None))
            .run(self.block.waiter, deadline)?;
        if met.is_some() || self.leave(generation)? {
            return Ok(false);
        }
        Err(OpError::Timeout {
            attempt: WAIT,
            on: self.block.label.clone(),
        })
    }

    /// Arrives only if that completes the meeting; gives whether it did.
    pub fn try_wait(&self) -> bool {
        let mut both = self.both.load(Ordering::Relaxed);
        loop {
            let (arrived, generation) = split(both);
            if arrived.max(0).checked_add(1) != Some(self.participants) {
                return false;
            }
            match self.change(both, join(0, generation.wrapping_add(1))) {
                Ok(()) => {
                    self.wake();
                    return true;
                }
                Err(found) => both = found,
            }
        }
    }

    fn change(&self, from: u64, to: u64) -> Result<(), u64> {
        // AcqRel: release what was done before the arrival, acquire what the
        // earlier arrivals did; pairs with the acquire of who waits.
        self.both
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| ())
    }

    fn wake(&self) {
        if self.participants > 1 {
            self.generation.wake(u32::MAX);
        }
    }

    /// Counts this arrival; `None` when it was the last and the others may go.
    fn arrive(&self) -> Result<Option<u32>, OpError> {
        let mut tries = 0;
        let mut both = self.both.load(Ordering::Relaxed);
        loop {
            let (arrived, generation) = split(both);
            // Below 0: the references leave that after a time-out that raced
            // with the last arrival. Nobody has arrived.
            let counted = arrived.max(0).saturating_add(1);
            if counted > self.participants {
                // Another implementation is between its two stores: the
                // generation comes last.
                let moved = settle(self.block.patience, || {
                    let now = self.both.load(Ordering::Relaxed);
                    (split(now).1 != generation).then_some(now)
                });
                tries += 1;
                match moved {
                    Some(now) if tries < 100 => both = now,
                    _ => return Err(self.damaged(arrived)),
                }
                continue;
            }
            let last = counted == self.participants;
            let next = if last {
                join(0, generation.wrapping_add(1))
            } else {
                join(counted, generation)
            };
            match self.change(both, next) {
                Ok(()) if last => {
                    self.wake();
                    return Ok(None);
                }
                Ok(()) => return Ok(Some(generation)),
                Err(found) => both = found,
            }
        }
    }

    /// Takes an arrival back; `true`: too late, the meeting came about.
    fn leave(&self, generation: u32) -> Result<bool, OpError> {
        let mut both = self.both.load(Ordering::Acquire);
        loop {
            let (arrived, now) = split(both);
            if now != generation {
                return Ok(true);
            }
            if arrived >= self.participants || arrived <= 0 {
                // The last one of another implementation has come, and is
                // about to say so; or somebody took our arrival back.
                let moved = settle(self.block.patience, || {
                    let now = self.both.load(Ordering::Acquire);
                    (split(now).1 != generation).then_some(())
                });
                return match moved {
                    Some(()) => Ok(true),
                    None if arrived <= 0 => Ok(false),
                    None => Err(self.damaged(arrived)),
                };
            }
            match self.change(both, join(arrived - 1, generation)) {
                Ok(()) => return Ok(false),
                Err(found) => both = found,
            }
        }
    }

    fn damaged(&self, arrived: i32) -> OpError {
        OpError::Damaged {
            attempt: WAIT,
            on: self.block.label.clone(),
            field: "arrived",
            found: u64::from(arrived.cast_unsigned()),
        }
    }

    /// Ends the present meeting as if all had come: for participants that died.
    pub fn force_release(&self) {
        let mut both = self.both.load(Ordering::Relaxed);
        loop {
            let (_, generation) = split(both);
            match self.change(both, join(0, generation.wrapping_add(1))) {
                Ok(()) => break,
                Err(found) => both = found,
            }
        }
        self.wake();
    }

    /// How many have arrived for the present meeting.
    pub fn arrived(&self) -> i32 {
        split(self.both.load(Ordering::Acquire)).0
    }

    /// How many meetings there were, wrapping at 2^32.
    pub fn generation(&self) -> u32 {
        split(self.both.load(Ordering::Acquire)).1
    }

    /// How many have to come.
    pub const fn participants(&self) -> i32 {
        self.participants
    }
}
