//! Semaphores and what is made of them (section 5).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I32, U32},
};

use super::{codec, expect_within};
use crate::zeroipc::ImageError;

/// Bytes of the entry that a read-write lock, a monitor and a signal have under
/// their plain name. Its content means nothing.
pub const MARKER_SIZE: u64 = 1;

/// Byte offsets in a semaphore or a mutex (sections 5.1 and 5.2).
pub mod semaphore {
    use super::{SemaphoreImage, offset_of};

    /// `i32`, atomic
    pub const COUNT: u64 = offset_of!(SemaphoreImage, count) as u64;
    /// `i32`, atomic
    pub const WAITING: u64 = offset_of!(SemaphoreImage, waiting) as u64;
    /// `i32`, fixed at creation
    pub const MAX: u64 = offset_of!(SemaphoreImage, max_count) as u64;
    /// `i32`, 0
    pub const RESERVED: u64 = offset_of!(SemaphoreImage, reserved) as u64;
    /// bytes of the entry
    pub const SIZE: u64 = 16;
}

/// Byte offsets in a barrier (section 5.3).
pub mod barrier {
    use super::{BarrierImage, offset_of};

    /// `i32`, atomic
    pub const ARRIVED: u64 = offset_of!(BarrierImage, arrived) as u64;
    /// `i32`, atomic
    pub const GENERATION: u64 = offset_of!(BarrierImage, generation) as u64;
    /// `i32`, fixed at creation
    pub const PARTICIPANTS: u64 = offset_of!(BarrierImage, participants) as u64;
    /// `i32`, 0
    pub const RESERVED: u64 = offset_of!(BarrierImage, reserved) as u64;
    /// bytes of the entry
    pub const SIZE: u64 = 16;
}

/// Byte offsets in a latch (section 5.4).
pub mod latch {
    use super::{LatchImage, offset_of};

    /// `i32`, atomic
    pub const COUNT: u64 = offset_of!(LatchImage, count) as u64;
    /// `i32`, fixed at creation
    pub const INITIAL: u64 = offset_of!(LatchImage, initial) as u64;
    /// two `i32`, 0
    pub const RESERVED: u64 = offset_of!(LatchImage, reserved) as u64;
    /// bytes of the entry
    pub const SIZE: u64 = 16;
}

/// Byte offsets and states of a once flag (section 5.5).
pub mod once {
    /// `u32`, atomic: the only word
    pub const STATE: u64 = 0;
    /// bytes of the entry
    pub const SIZE: u64 = 4;

    /// Nobody has begun.
    pub const PENDING: u32 = 0;
    /// Somebody has begun; nobody knows who.
    pub const EXECUTING: u32 = 1;
    /// It is over, for good.
    pub const DONE: u32 = 2;
}

/// Byte offsets and modes of an event (section 5.6).
pub mod event {
    use super::{EventImage, offset_of};

    /// `u32`, atomic: 0 or 1
    pub const SIGNALED: u64 = offset_of!(EventImage, signaled) as u64;
    /// `u32`, fixed at creation
    pub const MODE: u64 = offset_of!(EventImage, mode) as u64;
    /// `u32`, atomic
    pub const WAITING: u64 = offset_of!(EventImage, waiting) as u64;
    /// bytes of the entry
    pub const SIZE: u64 = 12;

    /// Each signal releases one waiter.
    pub const AUTO: u32 = 0;
    /// A signal releases all waiters until the event is reset.
    pub const MANUAL: u32 = 1;
}

/// Byte offsets in the state of a read-write lock (section 5.7).
pub mod rwlock {
    use super::{RwLockImage, offset_of};

    /// `i32`, atomic
    pub const READERS: u64 = offset_of!(RwLockImage, readers) as u64;
    /// `i32`, atomic: 0 or 1
    pub const WRITER_ACTIVE: u64 = offset_of!(RwLockImage, writer_active) as u64;
    /// bytes of the state's entry
    pub const SIZE: u64 = 8;
}

/// The one part of a monitor that is nothing else besides (section 5.8).
pub mod monitor {
    /// bytes of the entry with the `u32` number of waiters
    pub const COUNT_SIZE: u64 = 4;
}

/// A semaphore, or a mutex: a semaphore with a maximum of 1 (sections 5.1 and
/// 5.2).
///
/// ```
/// use polyshm_wire::zeroipc::SemaphoreImage;
///
/// SemaphoreImage::new(2, 5).check()?;
/// assert!(SemaphoreImage::new(6, 5).check().is_err());
/// assert!(SemaphoreImage::MUTEX.is_mutex());
/// # Ok::<(), polyshm_wire::zeroipc::ImageError>(())
/// ```
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct SemaphoreImage {
    /// permits left; never below 0
    pub count: I32,
    /// waiters, the dead and, with Python's races, the never born included
    pub waiting: I32,
    /// most permits; 0 for no limit
    pub max_count: I32,
    /// 0, and nobody looks
    pub reserved: I32,
}

/// A barrier (section 5.3).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct BarrierImage {
    /// in `0..=participants`; a foreign time-out may leave -1, which hangs the
    /// next round
    pub arrived: I32,
    /// rounds completed, wraps around
    pub generation: I32,
    /// at least 1
    pub participants: I32,
    /// 0, and nobody looks
    pub reserved: I32,
}

/// A latch (section 5.4).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct LatchImage {
    /// in `0..=initial`; 0 is open
    pub count: I32,
    /// what a reset goes back to
    pub initial: I32,
    /// 0, and nobody looks
    pub reserved: [I32; 2],
}

/// The words of an event; its waiters are in a semaphore beside it
/// (section 5.6).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct EventImage {
    /// 0 or 1
    pub signaled: U32,
    /// [`event::AUTO`] or [`event::MANUAL`]
    pub mode: U32,
    /// waiters of a manual event; Python never counts its own
    pub waiting: U32,
}

/// The words of a read-write lock; its mutexes are beside it (section 5.7).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct RwLockImage {
    /// readers inside; never below 0
    pub readers: I32,
    /// 1 while a writer is inside or waits for the readers to leave
    pub writer_active: I32,
}

codec!(SemaphoreImage, semaphore::SIZE, "semaphore");
codec!(BarrierImage, barrier::SIZE, "barrier");
codec!(LatchImage, latch::SIZE, "latch");
codec!(EventImage, event::SIZE, "event");
codec!(RwLockImage, rwlock::SIZE, "read-write lock");

// The offsets of section 5, stated apart from the structures.
const _: () = {
    assert!(semaphore::COUNT == 0);
    assert!(semaphore::WAITING == 4);
    assert!(semaphore::MAX == 8);
    assert!(semaphore::RESERVED == 12);
    assert!(barrier::ARRIVED == 0);
    assert!(barrier::GENERATION == 4);
    assert!(barrier::PARTICIPANTS == 8);
    assert!(barrier::RESERVED == 12);
    assert!(latch::COUNT == 0);
    assert!(latch::INITIAL == 4);
    assert!(latch::RESERVED == 8);
    assert!(event::SIGNALED == 0);
    assert!(event::MODE == 4);
    assert!(event::WAITING == 8);
    assert!(rwlock::READERS == 0);
    assert!(rwlock::WRITER_ACTIVE == 4);
};

const MAX: i64 = i32::MAX as i64;

impl SemaphoreImage {
    /// An unlocked mutex.
    pub const MUTEX: Self = Self::new(1, 1);

    /// A semaphore without waiters; [`check`](Self::check) says whether the
    /// values fit. `max_count` 0 means no limit.
    pub const fn new(count: i32, max_count: i32) -> Self {
        Self {
            count: I32::new(count),
            waiting: I32::new(0),
            max_count: I32::new(max_count),
            reserved: I32::new(0),
        }
    }

    /// Checks the limit and the count. `waiting` is not judged: it is a hint,
    /// and peers that died or raced leave anything in it.
    pub fn check(&self) -> Result<(), ImageError> {
        const STRUCTURE: &str = "semaphore";
        let max_count = self.max_count.get().into();
        expect_within(STRUCTURE, "max_count", max_count, 0, MAX)?;
        let max = if max_count == 0 { MAX } else { max_count };
        expect_within(STRUCTURE, "count", self.count.get().into(), 0, max)
    }

    /// Whether the maximum is the one of a mutex.
    pub const fn is_mutex(&self) -> bool {
        self.max_count.get() == 1
    }
}

impl BarrierImage {
    /// A barrier that nobody has reached.
    pub const fn new(participants: i32) -> Self {
        Self {
            arrived: I32::new(0),
            generation: I32::new(0),
            participants: I32::new(participants),
            reserved: I32::new(0),
        }
    }

    /// Checks the number of participants and of those that have arrived.
    pub fn check(&self) -> Result<(), ImageError> {
        const STRUCTURE: &str = "barrier";
        let participants = self.participants.get().into();
        expect_within(STRUCTURE, "participants", participants, 1, MAX)?;
        let arrived = self.arrived.get().into();
        expect_within(STRUCTURE, "arrived", arrived, 0, participants)
    }
}

impl LatchImage {
    /// A latch that opens after `count` counts.
    pub const fn new(count: i32) -> Self {
        Self {
            count: I32::new(count),
            initial: I32::new(count),
            reserved: [I32::new(0); 2],
        }
    }

    /// Checks both counts.
    pub fn check(&self) -> Result<(), ImageError> {
        const STRUCTURE: &str = "latch";
        let initial = self.initial.get().into();
        expect_within(STRUCTURE, "initial", initial, 0, MAX)?;
        expect_within(STRUCTURE, "count", self.count.get().into(), 0, initial)
    }
}

impl EventImage {
    /// An event that is not signaled, with [`event::AUTO`] or
    /// [`event::MANUAL`].
    pub const fn new(mode: u32) -> Self {
        Self {
            signaled: U32::new(0),
            mode: U32::new(mode),
            waiting: U32::new(0),
        }
    }

    /// Checks the mode and the flag. `waiting` is not judged.
    pub fn check(&self) -> Result<(), ImageError> {
        const STRUCTURE: &str = "event";
        expect_within(STRUCTURE, "mode", self.mode.get().into(), 0, 1)?;
        expect_within(STRUCTURE, "signaled", self.signaled.get().into(), 0, 1)
    }
}

impl RwLockImage {
    /// A lock that nobody holds.
    pub const fn new() -> Self {
        Self {
            readers: I32::new(0),
            writer_active: I32::new(0),
        }
    }

    /// Checks both words.
    pub fn check(&self) -> Result<(), ImageError> {
        const STRUCTURE: &str = "read-write lock";
        expect_within(STRUCTURE, "readers", self.readers.get().into(), 0, MAX)?;
        let writer_active = self.writer_active.get().into();
        expect_within(STRUCTURE, "writer_active", writer_active, 0, 1)
    }
}

impl Default for RwLockImage {
    fn default() -> Self {
        Self::new()
    }
}
