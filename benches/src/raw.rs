//! `floor`: one word each way, alone on its cache line.

use crate::port::{Message, Port, raise};
use anyhow::Result;
use polyshm_platform::{Mode, Region, SharedMemory, Word64, sync::Ordering};

/// A shared segment of this run.
///
/// # Errors
///
/// It cannot be created.
pub fn create(name: &str, len: usize) -> Result<Region> {
    let segment = SharedMemory::create_new(name, len as u64, Mode::OWNER)?;
    Ok(Region::map(&segment)?)
}

/// Opens what [`create`] made.
///
/// # Errors
///
/// It is not there.
pub fn open(name: &str) -> Result<Region> {
    Ok(Region::map(&SharedMemory::open(name)?)?)
}

/// Bytes of a floor segment.
pub const FLOOR_LEN: usize = 512;

/// The two words, as one side sees them.
#[derive(Debug)]
pub struct Floor<const PAUSE: bool> {
    ours: Word64,
    theirs: Word64,
    /// What was last seen in `theirs`.
    seen: u64,
}

impl<const PAUSE: bool> Floor<PAUSE> {
    /// Far enough apart that no prefetcher takes them for neighbours.
    const OFFSETS: [usize; 2] = [0, 256];

    /// One side's view; the server's words are the client's, swapped.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region, server: bool) -> Result<Self> {
        let [first, second] = Self::OFFSETS;
        let (ours, theirs) = if server {
            (second, first)
        } else {
            (first, second)
        };
        Ok(Self {
            ours: region.word64(ours)?,
            theirs: region.word64(theirs)?,
            seen: 0,
        })
    }
}

/// The word is the message's number plus one, so that it is never zero; the
/// rest of the message stays where it is.
impl<const PAUSE: bool> Port for Floor<PAUSE> {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        let number = message.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
        // Release: pairs with the peer's acquire load in `receive`.
        self.ours.store(number + 1, Ordering::Release);
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        let word = loop {
            // Acquire: pairs with the peer's release store in `send`.
            let word = self.theirs.load(Ordering::Acquire);
            if word != self.seen {
                break word;
            }
            if PAUSE {
                std::hint::spin_loop();
            }
        };
        self.seen = word;
        into[..8].copy_from_slice(&word.wrapping_sub(1).to_le_bytes());
        Ok(())
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}
