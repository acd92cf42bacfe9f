//! Waiting on a structure's words: the foundation's loop with this protocol's
//! naps.

use crate::native::Bell;
use polyshm_platform::{
    Deadline, WaitSource, Waiter, Word32,
    sync::{Ordering, fence_after_update, spin_loop, yield_now},
};
use std::time::Duration;

/// The shortest and the longest sleep that a native peer ends: peers of other
/// implementations wake nobody. Not below a system's tick, since a timer that is
/// due sooner costs as much as the sleep itself.
const FIRST_SLICE: Duration = Duration::from_millis(5);
const LAST_SLICE: Duration = Duration::from_millis(20);
/// The sleep where nobody wakes us; the references poll as often.
const NAP: Duration = Duration::from_millis(1);

/// How much longer than one attempt a sleeping wait bears a slot that stays
/// half-changed.
pub(crate) const STUCK_ROUNDS: u32 = 5;

/// What one look gave.
pub(crate) enum Look<T> {
    /// It has come.
    Ready(T),
    /// Not yet; it comes with a change of the word from this value.
    Sleep(u32),
    /// Not yet, and no word tells when: another process is in the middle of
    /// something short.
    Nap,
}

/// Who is counted while asleep.
pub(crate) enum Sleepers<'a> {
    /// In the spare slot's bell.
    Bell(&'a Bell),
    /// The format counts its waiters itself, and the caller has done it.
    Counted,
}

/// One wait: how to look, on which word to sleep, and how to look for the dead.
pub(crate) struct Wait<'a, L, C> {
    pub(crate) word: &'a Word32,
    pub(crate) sleepers: Sleepers<'a>,
    pub(crate) look: L,
    /// Looks whether it can still come; asked each liveness slice, and before
    /// giving up.
    pub(crate) check: C,
    pub(crate) slice: Duration,
}

impl<'a, T, E, L, C> Wait<'a, L, C>
where
    L: FnMut() -> Result<Look<T>, E>,
    C: FnMut() -> Result<Option<T>, E>,
{
    pub(crate) fn new(word: &'a Word32, sleepers: Sleepers<'a>, look: L, check: C) -> Self {
        Self {
            word,
            sleepers,
            look,
            check,
            slice: FIRST_SLICE,
        }
    }

    /// Waits until a look is ready (`Some`) or the deadline passes (`None`).
    pub(crate) fn run(mut self, waiter: Waiter, deadline: Deadline) -> Result<Option<T>, E> {
        waiter.wait(&mut self, deadline)
    }
}

impl<T, E, L, C> WaitSource for Wait<'_, L, C>
where
    L: FnMut() -> Result<Look<T>, E>,
    C: FnMut() -> Result<Option<T>, E>,
{
    type Output = T;
    type Error = E;

    fn poll(&mut self) -> Result<Option<T>, E> {
        Ok(match (self.look)()? {
            Look::Ready(found) => Some(found),
            Look::Sleep(_) | Look::Nap => None,
        })
    }

    fn park(&mut self, until: Deadline) -> Result<Option<T>, E> {
        let counted = match &self.sleepers {
            Sleepers::Bell(bell) => bell.enter(),
            Sleepers::Counted => None,
        };
        let wakes = counted.is_some() || matches!(self.sleepers, Sleepers::Counted);
        // Also for who counted itself long ago: pairs with the waker's fence.
        fence_after_update();
        let slice = until.at_most(self.slice);
        self.slice = (self.slice * 2).min(LAST_SLICE);
        match (self.look)()? {
            Look::Ready(found) => return Ok(Some(found)),
            Look::Sleep(expected) if wakes => self.word.sleep_while(expected, slice),
            Look::Sleep(_) => nap(until.at_most(NAP)),
            Look::Nap => nap(until.at_most(NAP / 8)),
        }
        drop(counted);
        self.poll()
    }

    fn glance(&mut self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn check(&mut self) -> Result<Option<T>, E> {
        (self.check)()
    }
}

fn nap(until: Deadline) {
    if cfg!(loom) {
        yield_now();
    } else if let Some(left) = until.remaining() {
        std::thread::sleep(left);
    }
}

/// Waits for something short that another process is in the middle of, until
/// `patience` is over: some spins, some yields, then naps. `None`: it stays so.
///
/// Naps and not only yields: a scheduler may put who yields again and again
/// behind everybody else, for longer than any patience.
pub(crate) fn settle<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    const SPINS: u32 = 64;
    const YIELDS: u32 = 4;
    const FIRST_NAP: Duration = Duration::from_micros(20);
    if cfg!(loom) {
        // Each turn explores another interleaving; more would not end.
        return (0..3).find_map(|_| {
            let found = look();
            if found.is_none() {
                yield_now();
            }
            found
        });
    }
    if patience.is_zero() {
        return look();
    }
    for round in 0..SPINS + YIELDS {
        if let Some(found) = look() {
            return Some(found);
        }
        if round < SPINS {
            spin_loop();
        } else {
            yield_now();
        }
    }
    let end = Deadline::after(patience);
    let mut pause = FIRST_NAP;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if end.expired() {
            return None;
        }
        nap(end.at_most(pause));
        pause = (pause * 2).min(NAP);
    }
}

/// Wakes sleepers that the format counts itself, right after `word` was changed
/// by an atomic update.
#[inline]
pub(crate) fn wake_counted(word: &Word32, waiting: &Word32, count: u32) {
    // Pairs with the fence in `park`: either we see the waiter's count, or it
    // sees the changed word.
    fence_after_update();
    // Signed: a peer without atomics may have left it negative.
    if waiting.load(Ordering::Relaxed).cast_signed() > 0 {
        word.wake(count);
    }
}
