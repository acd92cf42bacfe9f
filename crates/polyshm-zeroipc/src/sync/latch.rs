//! Latch: a count that goes to zero once (section 5.4).

use crate::{
    block::Block,
    error::{Error, OpError},
    memory::{Memory, Part, open_or_create},
    wait::{Look, Sleepers, Wait},
};
use polyshm_platform::{Deadline, Word32, sync::Ordering};
use polyshm_wire::zeroipc::{ImageError, LatchImage, latch};

/// A gate that opens when a count has gone to zero, and stays open.
///
/// What was stored before a count down is seen by who waited for the zero.
///
/// **Death.** A process that dies before it counts down leaves the gate closed:
/// waits end at their deadlines, and anybody may count down in its place.
///
/// Source: section 5.4 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Latch, Memory};
///
/// let name = format!("polyshm-doc-latch-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let gate = Latch::create(&memory, "gate", 2)?;
/// gate.count_down(1);
/// assert!(!gate.try_wait());
/// gate.count_down(5); // stops at zero
/// gate.wait().expect("it is open");
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Latch {
    /// As `i32`; open at 0 and below.
    count: Word32,
    /// From the header at open.
    initial: i32,
    block: Block,
}

const WAIT: &str = "wait for";

impl Latch {
    const WHAT: &'static str = "latch";

    /// Creates a latch with that count.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, or the count is negative.
    pub fn create(memory: &Memory, name: &str, count: i32) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let image = LatchImage::new(count);
        if image.check().is_err() {
            return Err(Error::Unusable {
                on: label,
                reason: "the count must not be negative",
            });
        }
        let part = Part {
            name: name.to_owned(),
            size: latch::SIZE,
        };
        memory.create_entries(&label, &[part], |blocks| {
            blocks[0].fill(0, &image.to_bytes())?;
            Self::over(&blocks[0], count)
        })
    }

    /// Opens a latch.
    ///
    /// # Errors
    ///
    /// There is none of that name, the entry has another size, or its numbers
    /// cannot be a latch's.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        if block.size as u64 != latch::SIZE {
            return Err(block.mismatch(ImageError::Size {
                structure: Self::WHAT,
                found: block.size as u64,
                expected: latch::SIZE,
            }));
        }
        let header: [u8; 16] = block.header()?;
        let image = LatchImage::read(&header).map_err(|source| block.mismatch(source))?;
        image.check().map_err(|source| block.mismatch(source))?;
        Self::over(&block, image.initial.get())
    }

    /// Opens the latch, or creates it if there is none.
    ///
    /// # Errors
    ///
    /// As [`Latch::open`] and [`Latch::create`].
    pub fn open_or_create(memory: &Memory, name: &str, count: i32) -> Result<Self, Error> {
        open_or_create(
            || Self::open(memory, name),
            || Self::create(memory, name, count),
        )
    }

    fn over(block: &Block, initial: i32) -> Result<Self, Error> {
        Ok(Self {
            count: block.word32(latch::COUNT)?,
            initial,
            block: block.clone(),
        })
    }

    /// Lowers the count, at most to zero; gives what is left.
    pub fn count_down(&self, by: u32) -> i32 {
        let by = i32::try_from(by).unwrap_or(i32::MAX);
        let mut count = self.count.load(Ordering::Relaxed);
        loop {
            let left = count.cast_signed().saturating_sub(by).max(0);
            // AcqRel: releases what this process did, and carries on what the
            // earlier ones did; pairs with the acquire of who waits.
            match self.count.compare_exchange(
                count,
                left.cast_unsigned(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    if left == 0 {
                        self.block.bell.ring(&self.count, u32::MAX);
                    }
                    return left;
                }
                Err(found) => count = found,
            }
        }
    }

    /// Whether the gate is open.
    pub fn try_wait(&self) -> bool {
        self.count() == 0
    }

    /// Waits for the gate without end.
    ///
    /// # Errors
    ///
    /// None today.
    pub fn wait(&self) -> Result<(), OpError> {
        self.wait_within(Deadline::never())
    }

    /// Waits for the gate until the deadline or for that long.
    ///
    /// # Errors
    ///
    /// [`OpError::Timeout`].
    #[doc(alias = "wait_for")]
    pub fn wait_within(&self, deadline: impl Into<Deadline>) -> Result<(), OpError> {
        let look = || {
            let count = self.count.load(Ordering::Acquire);
            Ok(if count.cast_signed() <= 0 {
                Look::Ready(())
            } else {
                Look::Sleep(count)
            })
        };
        Wait::new(&self.count, Sleepers::Bell(&self.block.bell), look, || {
            Ok(None)
        })
        .run(self.block.waiter, deadline.into())?
        .ok_or_else(|| OpError::Timeout {
            attempt: WAIT,
            on: self.block.label.clone(),
        })
    }

    /// What is left to count down.
    pub fn count(&self) -> i32 {
        self.count.load(Ordering::Acquire).cast_signed().max(0)
    }

    /// The count that it was created with.
    pub const fn initial(&self) -> i32 {
        self.initial
    }

    /// Closes the gate again with its first count. Only while nobody waits or
    /// counts down.
    pub fn reset(&self) {
        self.count
            .store(self.initial.cast_unsigned(), Ordering::Release);
    }
}
