//! One direction: a mailbox for the latest message, guarded by a sequence
//! number (format, sections 1.6, 3 and 4).
//!
//! The even sequence number identifies a message: a reader that has seen it
//! never takes it twice, and the distance between two numbers tells how many
//! were overwritten unread. The counters of the format are kept for readers of
//! other implementations.

use polyshm_platform::{
    Bytes, Deadline, InvalidWord, OutOfRange, Region, Word32, Word64,
    sync::{
        Ordering::{Acquire, Relaxed, Release},
        fence, spin_loop,
    },
};
use polyshm_wire::eshm::{Direction, Layout};
use std::time::Duration;

/// The sleep between two looks at a writer that wakes nobody; with the system's
/// slack, below 100 µs.
const SHORT_SLEEP: Duration = Duration::from_micros(45);

/// The sleep when the writer wakes: so long may a change of the connection go
/// unnoticed.
const LONG_SLEEP: Duration = Duration::from_millis(40);

/// Numbers are halves of 32-bit sequence numbers.
const NUMBER_BITS: u32 = 31;

/// The words and bytes of one direction.
#[derive(Debug)]
pub(crate) struct Channel {
    sequence: Word32,
    data_size: Word32,
    data: Bytes,
    write_count: Word64,
    read_count: Word64,
    waiters: Word32,
    void: Word32,
    voids: Word32,
}

/// Which message a reader saw last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    sequence: u32,
    /// How many messages the channel had carried by then.
    number: u64,
}

#[cfg(all(test, loom))]
impl Cursor {
    /// The sequence number, and how many messages there were by then.
    pub(crate) fn parts(self) -> (u32, u64) {
        (self.sequence, self.number)
    }
}

/// A message that was copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length in bytes.
    pub len: usize,
    /// Its number among all messages of the channel's life; the first is 1.
    ///
    /// A master that creates the channel anew starts again at 1.
    pub number: u64,
    /// How many messages were overwritten unread between the one that this
    /// endpoint read before, or its attaching, and this one.
    pub lost: u64,
}

/// What one look gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// No message since the last.
    Nothing,
    /// A write is under way.
    Busy,
    /// The number changed while the message was looked at.
    Torn,
    New(Received),
    /// There is one, and it is longer than the buffer; it was not taken.
    TooSmall {
        needed: usize,
    },
    /// The length cannot be.
    Corrupt {
        found: u32,
    },
}

/// Where a message is copied to.
pub(crate) trait Target {
    /// Room for `len` bytes, or `None`.
    fn room(&mut self, len: usize) -> Option<&mut [u8]>;

    /// The longest message that fits.
    fn limit(&self) -> usize;
}

impl Target for &mut [u8] {
    #[inline]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.get_mut(..len)
    }

    fn limit(&self) -> usize {
        self.len()
    }
}

impl Target for Vec<u8> {
    #[inline]
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.resize(len, 0);
        Some(self)
    }

    fn limit(&self) -> usize {
        usize::MAX
    }
}

impl Channel {
    pub(crate) fn new(
        region: &Region,
        layout: Layout,
        direction: Direction,
    ) -> Result<Self, InvalidWord> {
        let place = layout.channel(direction);
        let word32 = |at| region.word32(at as usize);
        let word64 = |at| region.word64(at as usize);
        Ok(Self {
            sequence: word32(place.sequence)?,
            data_size: word32(place.data_size)?,
            data: region
                .bytes(place.data as usize, layout.capacity() as usize)
                .map_err(InvalidWord::OutOfRange)?,
            write_count: word64(place.write_count)?,
            read_count: word64(place.read_count)?,
            waiters: word32(place.native_waiters)?,
            void: word32(place.native_void)?,
            voids: word32(place.native_voids)?,
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.data.len()
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        // Relaxed: statistics.
        (
            self.write_count.load(Relaxed),
            self.read_count.load(Relaxed),
        )
    }

    /// Writes a message as the only writer.
    ///
    /// # Errors
    ///
    /// It is longer than the channel takes; nothing changed.
    #[inline]
    pub(crate) fn write(&self, data: &[u8]) -> Result<(), OutOfRange> {
        self.write_then(data, || ())
    }

    /// As [`write`](Self::write), for the first message after
    /// [`repair`](Self::repair): the number that it declared void comes again
    /// after 2^31 messages.
    pub(crate) fn write_first(&self, data: &[u8]) -> Result<(), OutOfRange> {
        self.write_then(data, || self.void.store(0, Relaxed))
    }

    /// Writes a message, and does what else belongs to it while the number is odd.
    #[inline]
    fn write_then(&self, data: &[u8], then: impl FnOnce()) -> Result<(), OutOfRange> {
        let len = self.check(data)?;
        // Relaxed: only this thread stores to it. An odd number is what a
        // writer left that died, or was stopped for good.
        let odd = self.sequence.load(Relaxed) | 1;
        self.sequence.store(odd, Relaxed);
        // Release: pairs with the reader's acquire fence. A reader that sees
        // any of these bytes sees the odd number too.
        fence(Release);
        self.data_size.store(len, Relaxed);
        self.data.write(0, data)?;
        then();
        // Release: pairs with the reader's acquire load; who sees the even
        // number sees the bytes.
        self.sequence.store(odd.wrapping_add(1), Release);
        self.publish();
        Ok(())
    }

    #[inline]
    fn check(&self, data: &[u8]) -> Result<u32, OutOfRange> {
        match u32::try_from(data.len()) {
            Ok(len) if data.len() <= self.data.len() => Ok(len),
            _ => Err(OutOfRange {
                offset: 0,
                len: data.len(),
                limit: self.data.len(),
            }),
        }
    }

    /// Counts the message, and wakes.
    #[inline]
    fn publish(&self) {
        // No atomic addition: there is one writer. Release: a reader of another
        // implementation waits for this word, and then expects the even number.
        let count = self.write_count.load(Relaxed).wrapping_add(1);
        self.write_count.store(count, Release);
        self.wake();
    }

    /// Wakes who sleeps on the number.
    #[inline]
    fn wake(&self) {
        // No fence before this load, which would cost more than the write: it
        // may miss a reader that counts itself at this very moment, and for
        // that such a reader's first sleep is short.
        if self.waiters.load(Relaxed) != 0 {
            self.nudge();
        }
    }

    /// Wakes who sleeps on the number, also when it did not change: something
    /// else has, that the sleeper looks at.
    #[cold]
    #[inline(never)]
    pub(crate) fn nudge(&self) {
        self.sequence.wake(u32::MAX);
    }

    /// The number while a message is written, or when its writer died at it.
    pub(crate) fn odd(&self) -> Option<u32> {
        let sequence = self.sequence.load(Relaxed);
        (sequence & 1 == 1).then_some(sequence)
    }

    /// Where the channel is now: messages up to here are not delivered.
    pub(crate) fn cursor(&self) -> Cursor {
        let mut cursor = Cursor::default();
        // A number that is odd for longer is a dead writer's; its message, if
        // it comes, comes after.
        for _ in 0..1000 {
            // Acquire: pairs with the writer's release of the even number.
            let sequence = self.sequence.load(Acquire);
            let number = self.number(sequence);
            cursor = Cursor { sequence, number };
            if sequence & 1 == 0 {
                break;
            }
            spin_loop();
        }
        cursor
    }

    /// Copies the message out if it is not the cursor's, and moves the cursor.
    #[inline]
    pub(crate) fn look(&self, cursor: &mut Cursor, into: &mut impl Target) -> Look {
        // Acquire: pairs with the writer's release of the even number.
        let sequence = self.sequence.load(Acquire);
        if sequence == cursor.sequence {
            return Look::Nothing;
        }
        if sequence & 1 == 1 {
            return Look::Busy;
        }
        // It is raised in the end, and its line is loaded from before that: this
        // gets it once, to be written.
        self.read_count.prefetch_write();
        let number = self.number(sequence);
        if self.is_void(sequence) {
            if !self.still(sequence) {
                return Look::Torn;
            }
            // A dead writer's: nothing was committed.
            cursor.sequence = sequence;
            return Look::Nothing;
        }
        let len = match self.copy(sequence, into) {
            Ok(len) => len,
            Err(look) => return look,
        };
        // Signed, as a damaged object may count backwards.
        let ahead = number.wrapping_sub(cursor.number).cast_signed();
        *cursor = Cursor { sequence, number };
        // Update: other readers count too.
        self.read_count.fetch_add(1, Relaxed);
        Look::New(Received {
            len,
            number,
            lost: ahead.saturating_sub(1).max(0).unsigned_abs(),
        })
    }

    /// Whether an even number was made by [`repair`](Self::repair).
    #[inline]
    fn is_void(&self, sequence: u32) -> bool {
        sequence | 1 == self.void.load(Relaxed)
    }

    /// Copies the message of an even number; gives its length.
    #[inline]
    fn copy(&self, sequence: u32, into: &mut impl Target) -> Result<usize, Look> {
        let found = self.data_size.load(Relaxed);
        let len = found as usize;
        // Nothing is believed before the number is seen to be the same.
        let verdict = |look| {
            if self.still(sequence) {
                look
            } else {
                Look::Torn
            }
        };
        if len > self.data.len() {
            return Err(verdict(Look::Corrupt { found }));
        }
        let Some(room) = into.room(len) else {
            return Err(verdict(Look::TooSmall { needed: len }));
        };
        // The length was checked against the channel's own.
        if self.data.read(0, room).is_err() || !self.still(sequence) {
            return Err(Look::Torn);
        }
        Ok(len)
    }

    /// Whether what was copied since the load of `sequence` belongs to it.
    #[inline]
    fn still(&self, sequence: u32) -> bool {
        // Acquire: pairs with the writer's release fence. If any byte copied is
        // a later message's, the load after this fence gives a later number.
        fence(Acquire);
        self.sequence.load(Relaxed) == sequence
    }

    /// How many messages the channel has carried at an even number. The count
    /// of the format has more bits, and lags behind by one at most.
    #[inline]
    fn number(&self, sequence: u32) -> u64 {
        const MASK: u64 = (1 << NUMBER_BITS) - 1;
        const HALF: u64 = 1 << (NUMBER_BITS - 1);
        // Relaxed: read between two looks at the number, or only a hint.
        let low = u64::from((sequence >> 1).wrapping_sub(self.voids.load(Relaxed))) & MASK;
        let count = self.write_count.load(Relaxed);
        let ahead = low.wrapping_sub(count) & MASK;
        if ahead < HALF {
            count.wrapping_add(ahead)
        } else {
            count.wrapping_sub(MASK + 1 - ahead)
        }
    }

    /// Declares numbers to be none of a message's, so many that an even number
    /// stands for what the count of the format says. Gives the same result when
    /// it is done again after a death half-way.
    fn set_voids(&self, sequence: u32) {
        let count = self.write_count.load(Relaxed) as u32;
        let voids = (sequence >> 1).wrapping_sub(count) & ((1 << NUMBER_BITS) - 1);
        self.voids.store(voids, Relaxed);
    }

    /// Puts right what the writer before left: called with the object's lock
    /// held, by its successor before it is known as one, or by the reader that
    /// found it dead.
    pub(crate) fn repair(&self) {
        // Acquire: pairs with the release of the writer before.
        let sequence = self.sequence.load(Acquire);
        if sequence & 1 == 1 {
            // Died in the middle of a message. Readers do not look at these
            // words until the number is even.
            let even = sequence.wrapping_add(1);
            // Release: the odd number is another's store; who sees what follows
            // must see it too.
            fence(Release);
            // With bit 0 set, so that 0 stands for none.
            self.void.store(even | 1, Relaxed);
            self.set_voids(even);
            // What readers of other implementations get that had a message
            // pending: nothing, rather than half of two.
            self.data_size.store(0, Relaxed);
            // Release: pairs with the reader's acquire load.
            self.sequence.store(even, Release);
        } else {
            // Died before it counted a whole one.
            let count = self.write_count.load(Relaxed).wrapping_add(1);
            if self.number(sequence) == count {
                // Release: as in `publish`.
                self.write_count.store(count, Release);
            }
        }
        self.nudge();
    }

    /// Forgets readers that died in their sleep: called by the one reader.
    pub(crate) fn forget_waiters(&self) {
        self.waiters.store(0, Relaxed);
    }
}

impl Channel {
    /// Counts a thread that is going to sleep: from now on writers wake it.
    pub(crate) fn count_sleeper(&self) {
        // Acquire, so that the load in `sleep` comes after it.
        self.waiters.fetch_add(1, Acquire);
    }

    /// The thread will not sleep again.
    pub(crate) fn uncount_sleeper(&self) {
        // Not below 0: the count may have been reset meanwhile.
        let mut now = self.waiters.load(Relaxed);
        while now != 0 {
            match self
                .waiters
                .compare_exchange(now, now - 1, Relaxed, Relaxed)
            {
                Ok(_) => return,
                Err(found) => now = found,
            }
        }
    }

    /// Sleeps until woken, the deadline, or the end of a slice; returns at once
    /// when there is another message than the cursor's.
    ///
    /// `wakes` says whether the writer wakes, and has had the time to see that
    /// this thread is counted, see [`Channel::wake`]. Otherwise the sleep is
    /// short.
    pub(crate) fn sleep(&self, cursor: &Cursor, until: Deadline, wakes: bool) {
        // Relaxed: the sleep compares again, and the next look acquires.
        let now = self.sequence.load(Relaxed);
        if now != cursor.sequence && now & 1 == 0 {
            return;
        }
        let slice = if wakes { LONG_SLEEP } else { SHORT_SLEEP };
        self.sequence.sleep_while(now, until.at_most(slice));
    }

    /// Copies the latest message out whatever the reader saw before; does not
    /// count it as read.
    pub(crate) fn look_again(&self, into: &mut impl Target) -> Look {
        // Acquire: pairs with the writer's release of the even number.
        let sequence = self.sequence.load(Acquire);
        if sequence & 1 == 1 {
            return Look::Busy;
        }
        let number = self.number(sequence);
        if number == 0 || self.is_void(sequence) {
            return if self.still(sequence) {
                Look::Nothing
            } else {
                Look::Torn
            };
        }
        self.copy(sequence, into).map_or_else(
            |look| look,
            |len| {
                Look::New(Received {
                    len,
                    number,
                    lost: 0,
                })
            },
        )
    }
}
