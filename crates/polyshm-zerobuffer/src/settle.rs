//! Putting a buffer in order after a writer is gone.
//!
//! A writer can die between any two of its stores. It subtracts credit, stores
//! its position, and posts, in this order; other implementations store the
//! position first. What it left half done is finished or undone here, by the
//! next native writer when it attaches, or by a native reader that finds it
//! dead. The caller owns the writer's side: `writer_pid` is its own.

use crate::{
    chain::{self, Chain},
    place::distance,
    shared::Shared,
};
use polyshm_platform::{
    self as platform, Deadline,
    sync::{Ordering, yield_now},
};
use polyshm_wire::zerobuffer::ImageError;
use std::time::Duration;

/// Why a buffer could not be put in order.
#[derive(Debug)]
pub(crate) enum Unsettled {
    Damaged(ImageError),
    System(platform::Error),
}

impl From<ImageError> for Unsettled {
    fn from(error: ImageError) -> Self {
        Self::Damaged(error)
    }
}

impl From<platform::Error> for Unsettled {
    fn from(error: platform::Error) -> Self {
        Self::System(error)
    }
}

/// How long to wait for a reader that is in the middle of something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// A foreign reader between taking a token and storing its position looks
    /// like a frame without a token. It passes that point within microseconds;
    /// twice the same picture this far apart is taken for the truth.
    stable: Duration,
    /// How long a reader may be in the middle of giving credit back.
    pub(crate) busy: Duration,
}

impl Patience {
    /// With a reader that runs in another process.
    pub(crate) const USUAL: Self = Self {
        stable: Duration::from_millis(20),
        busy: Duration::from_secs(1),
    };
    /// With a reader that cannot run meanwhile.
    #[cfg(any(feature = "testing", test))]
    pub(crate) const NONE: Self = Self {
        stable: Duration::ZERO,
        busy: Duration::ZERO,
    };
}

/// Puts everything in order. Gives the number of the next frame.
pub(crate) fn settle(shared: &Shared) -> Result<u64, Unsettled> {
    settle_metadata(shared);
    let native = shared.load_release().is_native();
    let write = settle_positions(shared)?;
    let (chain, read) = settle_tokens(shared, write, native)?;
    settle_count(shared, chain);
    if shared.load_free()? < shared.size() {
        settle_credit(shared, write, read, chain, native)?;
    }
    Ok(next_sequence(shared, write, chain, native))
}

/// The length of the metadata is published last; undo what came before it.
fn settle_metadata(shared: &Shared) {
    let size = shared.layout.metadata_size();
    // Acquire: pairs with the writer's release store of a complete block.
    let written = shared.metadata_written.load(Ordering::Acquire);
    if let Some(free) = size.checked_sub(written) {
        // Relaxed: informative; no reader decides by it.
        if shared.metadata_free.load(Ordering::Relaxed) != free {
            shared.metadata_free.store(free, Ordering::Relaxed);
        }
    }
}

/// With all credit given back nothing is pending or held: positions that
/// differ are a rewind, or a foreign commit, cut short.
fn settle_positions(shared: &Shared) -> Result<u64, ImageError> {
    let free = shared.load_free()?;
    let write = shared.load_write_pos()?;
    if free < shared.size() {
        return Ok(write);
    }
    let read = shared.load_read_pos()?;
    if read != write {
        // Release: pairs with the acquire loads of the position.
        shared.write_pos.store(read, Ordering::Release);
    }
    shared.align_release(read);
    Ok(read)
}

/// Makes tokens and pending frames equal in number.
fn settle_tokens(shared: &Shared, write: u64, native: bool) -> Result<(Chain, u64), Unsettled> {
    let mut seen: Option<(u64, u64)> = None;
    let deadline = Deadline::after(shared.patience.busy);
    loop {
        let read = shared.load_read_pos()?;
        let chain = pending(shared, read, write)?;
        // Where the system cannot count them, they are taken to be right.
        let Some(tokens) = shared.data_ready.value().map(u64::from) else {
            return Ok((chain, read));
        };
        // The reader only takes away: if it has not moved since, the tokens
        // belong to this very chain, less one it may be about to use.
        if shared.load_read_pos()? != read && !deadline.expired() {
            continue;
        }
        if tokens > chain.frames {
            let surplus = u32::try_from(tokens - chain.frames).unwrap_or(u32::MAX);
            shared.data_ready.take_up_to(surplus)?;
        } else if tokens < chain.frames {
            // A native reader ignores a token without a frame, so one too many
            // does no harm. A foreign one would read stale bytes.
            if !native && seen != Some((read, tokens)) {
                seen = Some((read, tokens));
                std::thread::sleep(shared.patience.stable);
                continue;
            }
            for _ in tokens..chain.frames {
                shared.data_ready.post()?;
            }
        }
        return Ok((chain, read));
    }
}

/// A writer that died after it stored its position has not counted its frame.
/// Raises the count: too low, it would make a full ring look like an empty one.
fn settle_count(shared: &Shared, chain: Chain) {
    // Acquire: pairs with the reader's release store. What it counts meanwhile
    // leaves the chain, so the sum is at most too high by that, for a moment
    // in which nobody decides by it.
    let consumed = shared.read_count.load(Ordering::Acquire);
    // Relaxed: only writers store it, and we are the one.
    let written = shared.written_count.load(Ordering::Relaxed);
    let least = consumed.wrapping_add(chain.items);
    // The difference as a signed number: counts may wrap.
    if least.wrapping_sub(written).cast_signed() > 0 {
        // Release: pairs with the acquire load in `pending`.
        shared.written_count.store(least, Ordering::Release);
    }
}

/// The frames that were published and not read.
fn pending(shared: &Shared, read: u64, write: u64) -> Result<Chain, ImageError> {
    if read != write {
        return chain::walk(shared, read, write);
    }
    let free = shared.load_free()?;
    // Acquire: pairs with the release stores of both counts.
    let written = shared.written_count.load(Ordering::Acquire);
    let consumed = shared.read_count.load(Ordering::Acquire);
    // Equal positions mean empty or full. A full ring has no credit, and more
    // written than read.
    if free == 0 && written > consumed {
        // The counts of other implementations drift: a chain that does not close
        // is not one.
        return Ok(chain::walk(shared, read, write).unwrap_or_default());
    }
    if free > 0 && free < shared.size() && shared.load_release().is_native() {
        // A foreign writer that died between its position and its credit, with
        // the lap's last frame: unread frames go on where the reader left off,
        // which no stale bytes do. Acquire: pairs with the reader's store.
        let last = shared.last_sequence.load(Ordering::Acquire);
        let chain = chain::walk(shared, read, write).unwrap_or_default();
        if chain.is_lap_from(last.wrapping_add(1), free) {
            return Ok(chain);
        }
    }
    Ok(Chain::default())
}

/// Makes the credit equal to what is neither pending nor held.
fn settle_credit(
    shared: &Shared,
    write: u64,
    read: u64,
    chain: Chain,
    native: bool,
) -> Result<(), Unsettled> {
    let size = shared.size();
    if !native {
        // What a foreign reader holds is not known. Too much credit would let
        // us overwrite unread frames; too little only wastes room.
        let unread = if read == write && chain.frames > 0 {
            size
        } else {
            distance(size, read, write)
        };
        let free = shared.load_free()?;
        if free > size - unread {
            // Relaxed: only ourselves decide by the credit, later in this thread.
            shared
                .free
                .fetch_sub(free - (size - unread), Ordering::Relaxed);
        }
        return Ok(());
    }
    let deadline = Deadline::after(shared.patience.busy);
    loop {
        let before = shared.load_release();
        let free = shared.load_free()?;
        // Looked at again: the reader may have moved since the tokens were settled.
        let pending = pending(shared, shared.load_read_pos()?, write)?.frames > 0;
        // After that look: what was pending then and is not, is counted here.
        // Acquire: pairs with the reader's release store.
        let consumed = shared.read_count.load(Ordering::Acquire);
        if before.is_busy() || shared.load_release() != before {
            if deadline.expired() {
                // A reader stopped in mid-release: leave the credit as it is.
                tracing::warn!(buffer = %shared.name, "the reader does not finish a release; some room may stay unused");
                return Ok(());
            }
            yield_now();
            continue;
        }
        if before.position() >= size {
            let found = before.position();
            return Err(ImageError::ReadPosition {
                found,
                payload_size: size,
            }
            .into());
        }
        let used = distance(size, before.position(), write);
        // Everything from the release position to the write position is held or
        // pending; equal positions mean nothing, or all.
        let nothing = before.has_all(consumed) && !pending;
        let due = if used > 0 || nothing { size - used } else { 0 };
        // Adds, so that what the reader gives back meanwhile is not lost.
        // Relaxed: only ourselves decide by the credit, later in this thread.
        if due > free {
            shared.free.fetch_add(due - free, Ordering::Relaxed);
        } else if due < free {
            shared.free.fetch_sub(free - due, Ordering::Relaxed);
        }
        return Ok(());
    }
}

/// A second writer goes on with the first one's numbers (format, section 8.8).
fn next_sequence(shared: &Shared, write: u64, chain: Chain, native: bool) -> u64 {
    // Acquire: pairs with the release store by the side that owns the word.
    let noted = shared.last_sequence.load(Ordering::Acquire);
    let last = match chain.last_sequence {
        Some(pending) => pending,
        None if native => noted,
        None => {
            let fresh = write == 0 && shared.written_count.load(Ordering::Acquire) == 0;
            let walked = if fresh {
                None
            } else {
                chain::last_of_lap(shared, write)
            };
            // Stale headers can only carry smaller numbers than the note of a
            // native writer, and a foreign writer's later frames larger ones.
            walked.unwrap_or(0).max(noted)
        }
    };
    last.wrapping_add(1)
}
