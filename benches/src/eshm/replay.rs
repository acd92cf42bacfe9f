//! `replay`: what the ESHM format demands per message, and nothing else.
//!
//! The same words at the same offsets as a channel's, and the loads and stores
//! that its description lists, in its order. No checks of what was loaded but of
//! the sequence number, no heartbeats, nobody who could have been replaced.
//!
//! Per message, the writer makes the sequence number odd, stores the data and
//! their length, makes the number even, and adds one to the write count
//! atomically. The reader polls that count; loads the number, the length, the
//! data, and the number again; and adds one to the read count atomically.

use crate::port::{MESSAGE, Message, Port, raise};
use anyhow::{Result, ensure};
use polyshm_platform::{
    Region, Word32, Word64,
    sync::{Ordering, fence},
};
use polyshm_wire::eshm::{Direction, Layout};
use std::{fmt, hint::black_box, marker::PhantomData, time::Duration};

/// Bytes of an object with channels of the default capacity.
#[must_use]
pub fn len() -> usize {
    Layout::default().object_len() as usize
}

/// The address of a channel's data; as many bytes as the default capacity.
///
/// # Errors
///
/// The region is too small.
pub(super) fn data(region: &Region, direction: Direction) -> Result<*mut u8> {
    let layout = Layout::default();
    let capacity = layout.capacity() as usize;
    let bytes = region.bytes(layout.channel(direction).data as usize, capacity)?;
    // SAFETY: the slice itself is dropped at once and never used; only its
    // address is kept.
    Ok(unsafe { bytes.lend_mut(0, capacity)? }.as_mut_ptr())
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    sequence: Word32,
    data_size: Word32,
    write_count: Word64,
    read_count: Word64,
    /// As many bytes as the default capacity, which `_region` keeps mapped.
    data: *mut u8,
    /// The write count at the last message that was received.
    cursor: u64,
    _region: Region,
}

impl Channel {
    /// One channel of an object that is all zeros.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region, direction: Direction) -> Result<Self> {
        let place = Layout::default().channel(direction);
        Ok(Self {
            sequence: region.word32(place.sequence as usize)?,
            data_size: region.word32(place.data_size as usize)?,
            write_count: region.word64(place.write_count as usize)?,
            read_count: region.word64(place.read_count as usize)?,
            data: data(region, direction)?,
            cursor: 0,
            _region: region.clone(),
        })
    }

    /// Writes a message.
    ///
    /// # Safety
    ///
    /// No more bytes than the default capacity; nobody copies them out before
    /// the write count says that they are there, or writes at the same time.
    #[inline]
    pub unsafe fn write(&mut self, from: &[u8]) {
        // Relaxed: there is one writer.
        let odd = self.sequence.load(Ordering::Relaxed).wrapping_add(1);
        self.sequence.store(odd, Ordering::Relaxed);
        // Release: pairs with the reader's acquire fence.
        fence(Ordering::Release);
        // SAFETY: the channel has as many bytes, and they are ours alone until
        // the addition below, both by the caller's word.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.data, from.len()) };
        self.data_size.store(from.len() as u32, Ordering::Relaxed);
        // Release: pairs with the reader's acquire load of the number.
        self.sequence.store(odd.wrapping_add(1), Ordering::Release);
        // Release: pairs with the reader's acquire load of the count.
        self.write_count.fetch_add(1, Ordering::Release);
    }

    /// Waits for a message and copies it out.
    ///
    /// # Errors
    ///
    /// It is longer.
    ///
    /// # Safety
    ///
    /// The writer does not write the next message before this returns.
    #[inline]
    pub unsafe fn read<W: Wait>(&mut self, into: &mut Message) -> Result<()> {
        let count = loop {
            // Acquire: pairs with the writer's release addition.
            let count = self.write_count.load(Ordering::Acquire);
            if count > self.cursor {
                break count;
            }
            W::wait();
        };
        loop {
            // Acquire: pairs with the writer's release store.
            let sequence = self.sequence.load(Ordering::Acquire);
            if sequence & 1 == 1 {
                W::wait();
                continue;
            }
            let len = self.data_size.load(Ordering::Relaxed) as usize;
            ensure!(len <= MESSAGE, "a message came with {len} bytes");
            // SAFETY: the channel has as many bytes, and `into` too. The writer
            // published them before the count that was loaded, and leaves them
            // alone by the caller's word.
            unsafe { std::ptr::copy_nonoverlapping(self.data, into.as_mut_ptr(), len) };
            // Acquire: pairs with the writer's release fence.
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) == sequence {
                break;
            }
        }
        // Relaxed: a statistic.
        self.read_count.fetch_add(1, Ordering::Relaxed);
        self.cursor = count;
        Ok(())
    }
}

/// What is done between two looks.
pub trait Wait: fmt::Debug {
    /// Does it.
    fn wait();
}

/// Looks again at once.
#[derive(Debug)]
pub enum Nothing {}

/// A pause instruction.
#[derive(Debug)]
pub enum Pause {}

/// Sleeps for 100 µs, as the original does.
#[derive(Debug)]
pub enum Nap {}

impl Wait for Nothing {
    #[inline]
    fn wait() {}
}

impl Wait for Pause {
    #[inline]
    fn wait() {
        std::hint::spin_loop();
    }
}

impl Wait for Nap {
    fn wait() {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Both channels, as one side sees them.
#[derive(Debug)]
pub struct Replay<W> {
    out: Channel,
    back: Channel,
    _wait: PhantomData<W>,
}

impl<W> Replay<W> {
    /// The master's or the slave's side of an object that is all zeros.
    ///
    /// # Errors
    ///
    /// The region is too small.
    pub fn new(region: &Region, slave: bool) -> Result<Self> {
        let out = if slave {
            Direction::SlaveToMaster
        } else {
            Direction::MasterToSlave
        };
        Ok(Self {
            out: Channel::new(region, out)?,
            back: Channel::new(region, out.reverse())?,
            _wait: PhantomData,
        })
    }
}

impl<W: Wait> Port for Replay<W> {
    #[inline]
    fn send(&mut self, message: &Message) -> Result<()> {
        // A length that is not known when this is compiled, as it is to a
        // reader: the C library's copy of 64 bytes is faster here than the
        // compiler's.
        let data = &message[..black_box(MESSAGE)];
        // SAFETY: a message is shorter than the capacity. The two sides write
        // in turns, each after it has read what the other wrote.
        unsafe { self.out.write(data) };
        Ok(())
    }

    #[inline]
    fn receive(&mut self, into: &mut Message) -> Result<()> {
        // SAFETY: as in `send`.
        unsafe { self.back.read::<W>(into) }
    }

    #[inline]
    fn reply_first(&mut self, message: &mut Message) -> Result<()> {
        self.receive(message)?;
        raise(message);
        self.send(message)
    }
}
