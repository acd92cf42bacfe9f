//! `Block`: the bytes of one entry, through which a structure reaches them.

use crate::{
    error::{Error, Label},
    native::{Bell, Spare},
};
use polyshm_platform::{
    Bytes, InvalidWord, OutOfRange, Region, Rows, Waiter, Word8, Word32, Word64, Words32,
};
use polyshm_wire::zeroipc::ImageError;
use std::time::Duration;

/// One entry's bytes. Offsets count from the entry's own start.
///
/// The layouts of `polyshm-wire` have proven that what a structure asks for
/// lies inside; that they and the region disagree would be a fault of ours, and
/// is answered with an error like a damaged entry.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) region: Region,
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) label: Label,
    pub(crate) waiter: Waiter,
    /// How long another process may take for a short change.
    pub(crate) patience: Duration,
    pub(crate) bell: Bell,
    pub(crate) spare: Spare,
    /// Whether marks of who holds what may be stored in ignored bytes.
    pub(crate) marks: bool,
    /// How many bytes from the entry's start belong to nobody else: its size,
    /// and the padding before whatever comes next.
    pub(crate) room: usize,
}

impl Block {
    /// From the region's start. A sum beyond it is refused there.
    fn at(&self, at: u64) -> usize {
        usize::try_from(at).map_or(usize::MAX, |at| self.offset.saturating_add(at))
    }

    pub(crate) fn word8(&self, at: u64) -> Result<Word8, Error> {
        let word = self.region.word8(self.at(at));
        word.map_err(|error| self.impossible(&error))
    }

    pub(crate) fn word32(&self, at: u64) -> Result<Word32, Error> {
        let word = self.region.word32(self.at(at));
        word.map_err(|error| self.impossible(&error))
    }

    pub(crate) fn word64(&self, at: u64) -> Result<Word64, Error> {
        let word = self.region.word64(self.at(at));
        word.map_err(|error| self.impossible(&error))
    }

    pub(crate) fn words32(&self, at: u64, stride: u64, count: u32) -> Result<Words32, Error> {
        let words = self
            .region
            .words32(self.at(at), stride as usize, count as usize);
        words.map_err(|error| self.impossible(&error))
    }

    pub(crate) fn bytes(&self, at: u64, len: usize) -> Result<Bytes, Error> {
        let bytes = self.region.bytes(self.at(at), len);
        bytes.map_err(|error| self.impossible(&error.into()))
    }

    pub(crate) fn rows(&self, at: u64, size: u32, count: u32) -> Result<Rows, Error> {
        let rows = self.region.rows(self.at(at), size as usize, count as usize);
        rows.map_err(|error| self.impossible(&error.into()))
    }

    /// Copies the first bytes: the header that a layout judges. Bytes that the
    /// entry does not have are 0.
    pub(crate) fn header<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut header = [0; N];
        let there = N.min(self.size);
        let bytes = self.bytes(0, there)?;
        let read = bytes.read(0, &mut header[..there]);
        read.map_err(|error| self.impossible(&error.into()))?;
        Ok(header)
    }

    /// Stores initial bytes; nobody else sees the entry yet.
    pub(crate) fn fill(&self, at: u64, from: &[u8]) -> Result<(), Error> {
        let bytes = self.bytes(at, from.len())?;
        let written = bytes.write(0, from);
        written.map_err(|error| self.impossible(&error.into()))
    }

    /// The error of a layout's check.
    pub(crate) fn mismatch(&self, source: ImageError) -> Error {
        Error::Structure {
            on: self.label.clone(),
            source,
        }
    }

    fn impossible(&self, error: &InvalidWord) -> Error {
        match *error {
            InvalidWord::ReadOnly => Error::Unusable {
                on: self.label.clone(),
                reason: "the segment is mapped read-only; open it for writing",
            },
            InvalidWord::OutOfRange(OutOfRange { len, .. }) => self.mismatch(ImageError::Exceeds {
                structure: self.label.what,
                needed: len as u64,
                entry_size: self.size as u64,
            }),
            _ => self.mismatch(ImageError::Exceeds {
                structure: self.label.what,
                needed: self.size as u64 + 1,
                entry_size: self.size as u64,
            }),
        }
    }
}
