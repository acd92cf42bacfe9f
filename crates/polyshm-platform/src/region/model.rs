//! The loom form: every eight bytes are one loom atomic, so the shipped
//! algorithm is what loom explores.
//!
//! Byte copies are relaxed loads and stores of whole cells. A loan is a private
//! copy that is compared with the region when it ends, and loom is told of it:
//! bytes that change while they are lent, or are stored to without a happens-before
//! since, fail the model.

use super::{InvalidWord, OutOfRange, check_range, check_word, check_words};
use crate::{
    Deadline,
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering, yield_now},
};
use loom::cell::UnsafeCell;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The bytes of a modelled segment.
#[derive(Clone)]
pub struct Region(Arc<Inner>);

struct Inner {
    len: usize,
    cells: Vec<AtomicU64>,
    /// One per cell: loom knows whether a loan of it happened before a store.
    loans: Vec<UnsafeCell<()>>,
    /// Made on demand; a model uses a place as one word size only.
    halves: Mutex<HashMap<usize, Arc<AtomicU32>>>,
    /// As `halves`.
    singles: Mutex<HashMap<usize, Arc<AtomicU8>>>,
}

// SAFETY: loom runs one thread at a time, and fails the model itself when two
// accesses of a cell are not ordered; the cells hold nothing.
unsafe impl Send for Inner {}
// SAFETY: as for Send.
unsafe impl Sync for Inner {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.0.len)
            .finish_non_exhaustive()
    }
}

impl Region {
    /// Models have no mappings.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn map(segment: &crate::SharedMemory) -> crate::Result<Self> {
        segment.map_raw()?;
        Err(crate::Error::Unsupported {
            what: "a mapping in a model",
            hint: "use Region::heap",
        })
    }

    /// Zeroed bytes.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        let cells = (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Inner {
            len,
            cells,
            loans: (0..len.div_ceil(8)).map(|_| UnsafeCell::new(())).collect(),
            halves: Mutex::default(),
            singles: Mutex::default(),
        }))
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// A handle on the aligned 64-bit word at `offset`.
    ///
    /// # Errors
    ///
    /// The word is not inside or not aligned.
    pub fn word64(&self, offset: usize) -> Result<Word64, InvalidWord> {
        check_word(offset, 8, self.0.len)?;
        Ok(Word64 {
            region: self.clone(),
            cell: offset / 8,
        })
    }

    /// A handle on the aligned 32-bit word at `offset`.
    ///
    /// # Errors
    ///
    /// The word is not inside or not aligned.
    pub fn word32(&self, offset: usize) -> Result<Word32, InvalidWord> {
        check_word(offset, 4, self.0.len)?;
        let mut halves = self.0.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = halves
            .entry(offset)
            .or_insert_with(|| Arc::new(AtomicU32::new(0)));
        Ok(Word32 {
            cell: Arc::clone(cell),
        })
    }

    /// A handle on the byte at `offset`, as an atomic.
    ///
    /// # Errors
    ///
    /// The byte is not inside.
    pub fn word8(&self, offset: usize) -> Result<Word8, InvalidWord> {
        check_word(offset, 1, self.0.len)?;
        let singles = &self.0.singles;
        let mut singles = singles.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = singles
            .entry(offset)
            .or_insert_with(|| Arc::new(AtomicU8::new(0)));
        Ok(Word8 {
            cell: Arc::clone(cell),
        })
    }

    /// A handle on `count` aligned 32-bit words, one at each `stride` bytes.
    ///
    /// # Errors
    ///
    /// A word is not inside or not aligned.
    pub fn words32(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
    ) -> Result<Words32, InvalidWord> {
        check_words(offset, stride, count, 4, self.0.len)?;
        let words: Result<_, _> = (0..count)
            .map(|index| self.word32(offset + index * stride))
            .collect();
        Ok(Words32(words?))
    }

    /// A handle on `count` aligned 64-bit words, one at each `stride` bytes.
    ///
    /// # Errors
    ///
    /// A word is not inside or not aligned.
    pub fn words64(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
    ) -> Result<Words64, InvalidWord> {
        check_words(offset, stride, count, 8, self.0.len)?;
        let words: Result<_, _> = (0..count)
            .map(|index| self.word64(offset + index * stride))
            .collect();
        Ok(Words64(words?))
    }

    /// A handle on `count` rows of `size` bytes.
    ///
    /// # Errors
    ///
    /// They are not inside.
    pub fn rows(&self, offset: usize, size: usize, count: usize) -> Result<Rows, OutOfRange> {
        let len = size.saturating_mul(count);
        Ok(Rows {
            bytes: self.bytes(offset, len)?,
            size,
            count,
        })
    }

    /// A handle on the bytes `offset..offset + len`.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    pub fn bytes(&self, offset: usize, len: usize) -> Result<Bytes, OutOfRange> {
        check_range(offset, len, self.0.len)?;
        Ok(Bytes {
            region: self.clone(),
            start: offset,
            len,
        })
    }
}

/// An aligned 64-bit atomic word of a region.
#[derive(Clone)]
pub struct Word64 {
    region: Region,
    cell: usize,
}

/// An aligned 32-bit atomic word of a region.
#[derive(Clone)]
pub struct Word32 {
    cell: Arc<AtomicU32>,
}

/// A byte of a region as an atomic.
#[derive(Clone)]
pub struct Word8 {
    cell: Arc<AtomicU8>,
}

impl Word8 {
    pub(crate) fn atomic(&self) -> &AtomicU8 {
        &self.cell
    }
}

impl Word64 {
    pub(crate) fn atomic(&self) -> &AtomicU64 {
        &self.region.0.cells[self.cell]
    }
}

impl Word32 {
    pub(crate) fn atomic(&self) -> &AtomicU32 {
        &self.cell
    }
}

macro_rules! word {
    ($name:ident, $int:ty) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }

        impl $name {
            /// Loads the word.
            #[must_use]
            pub fn load(&self, order: Ordering) -> $int {
                self.atomic().load(order)
            }

            /// Stores `value`.
            pub fn store(&self, value: $int, order: Ordering) {
                self.atomic().store(value, order);
            }

            /// Adds, wrapping; gives the value before.
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                self.atomic().fetch_add(value, order)
            }

            /// Subtracts, wrapping; gives the value before.
            pub fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                self.atomic().fetch_sub(value, order)
            }

            /// Stores `new` if the word is `current`.
            ///
            /// # Errors
            ///
            /// The value found, when it is another.
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                self.atomic()
                    .compare_exchange(current, new, success, failure)
            }

            /// No effect in a model.
            pub fn prefetch_write(&self) {}

            /// No effect in a model.
            pub fn prefetch_read(&self) {}
        }
    };
}

word!(Word64, u64);
word!(Word32, u32);
word!(Word8, u8);

impl Word32 {
    /// Gives the turn to another thread: a model has no sleepers.
    pub fn sleep_while(&self, _expected: u32, _deadline: Deadline) {
        yield_now();
    }

    /// No effect in a model.
    pub fn wake(&self, _count: u32) {}
}

macro_rules! words {
    ($name:ident, $ref:ident, $word:ident, $int:ty) => {
        /// A row of words.
        #[derive(Clone, Debug)]
        pub struct $name(Vec<$word>);

        impl $name {
            /// The number of words.
            #[must_use]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether there are no words.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// Word `index`.
            #[must_use]
            pub fn at(&self, index: usize) -> $ref<'_> {
                $ref(&self.0[index])
            }

            /// Loads word `index`.
            #[must_use]
            pub fn load(&self, index: usize, order: Ordering) -> $int {
                self.0[index].load(order)
            }

            /// Stores `value` to word `index`.
            pub fn store(&self, index: usize, value: $int, order: Ordering) {
                self.0[index].store(value, order);
            }

            /// Stores `new` to word `index` if it is `current`.
            ///
            /// # Errors
            ///
            /// The value found, when it is another.
            pub fn compare_exchange(
                &self,
                index: usize,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$int, $int> {
                self.0[index].compare_exchange(current, new, success, failure)
            }
        }

        /// One word of a row.
        #[derive(Clone, Copy, Debug)]
        pub struct $ref<'a>(&'a $word);

        impl $ref<'_> {
            /// Loads the word.
            #[must_use]
            pub fn load(self, order: Ordering) -> $int {
                self.0.load(order)
            }

            /// No effect in a model.
            pub fn prefetch_write(self) {}

            /// Stores `value`.
            pub fn store(self, value: $int, order: Ordering) {
                self.0.store(value, order);
            }
        }
    };
}

words! { Words32, WordRef32, Word32, u32 }
words! { Words64, WordRef64, Word64, u64 }

/// Rows of bytes, all of one size.
#[derive(Clone, Debug)]
pub struct Rows {
    bytes: Bytes,
    size: usize,
    count: usize,
}

impl Rows {
    /// The number of rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no rows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Row `index`, which has `len` bytes.
    ///
    /// # Panics
    ///
    /// As in the mapped form.
    #[must_use]
    pub fn at(&self, index: usize, len: usize) -> Row<'_> {
        assert!(index < self.count && len == self.size, "outside");
        Row { of: self, index }
    }
}

/// One row of a [`Rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    of: &'a Rows,
    index: usize,
}

impl Row<'_> {
    /// Copies the row out.
    ///
    /// # Panics
    ///
    /// As in the mapped form.
    pub fn read(self, into: &mut [u8]) {
        assert_eq!(into.len(), self.of.size, "outside");
        let read = self.of.bytes.read(self.index * self.of.size, into);
        assert!(read.is_ok(), "checked");
    }

    /// Copies bytes of the row out, from `offset` on.
    ///
    /// # Panics
    ///
    /// As in the mapped form.
    pub fn read_at(self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= self.of.size, "outside");
        let at = self.index * self.of.size + offset;
        assert!(self.of.bytes.read(at, into).is_ok(), "checked");
    }

    /// Copies bytes into the row, from `offset` on.
    ///
    /// # Panics
    ///
    /// As in the mapped form.
    pub fn write_at(self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= self.of.size, "outside");
        let at = self.index * self.of.size + offset;
        assert!(self.of.bytes.write(at, from).is_ok(), "checked");
    }

    /// Copies bytes into the row.
    ///
    /// # Panics
    ///
    /// As in the mapped form.
    pub fn write(self, from: &[u8]) {
        assert_eq!(from.len(), self.of.size, "outside");
        let written = self.of.bytes.write(self.index * self.of.size, from);
        assert!(written.is_ok(), "checked");
    }
}

/// A byte range of a region.
#[derive(Clone)]
pub struct Bytes {
    region: Region,
    start: usize,
    len: usize,
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Bytes {
    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> Result<(), OutOfRange> {
        check_range(offset, into.len(), self.len)?;
        let start = self.start + offset;
        let mut done = 0;
        while done < into.len() {
            let at = start + done;
            let cell = self.region.0.cells[at / 8]
                .load(Ordering::Relaxed)
                .to_le_bytes();
            let part = (8 - at % 8).min(into.len() - done);
            into[done..done + part].copy_from_slice(&cell[at % 8..at % 8 + part]);
            done += part;
        }
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<(), OutOfRange> {
        check_range(offset, from.len(), self.len)?;
        let start = self.start + offset;
        let mut done = 0;
        while done < from.len() {
            let at = start + done;
            let part = (8 - at % 8).min(from.len() - done);
            let cell = &self.region.0.cells[at / 8];
            let mut bytes = [0; 8];
            if part < 8 {
                bytes = cell.load(Ordering::Relaxed).to_le_bytes();
            }
            bytes[at % 8..at % 8 + part].copy_from_slice(&from[done..done + part]);
            // Fails unless every loan of the cell happened before.
            self.region.0.loans[at / 8].with_mut(|_| ());
            cell.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
            done += part;
        }
        Ok(())
    }

    /// Loads eight little-endian bytes.
    ///
    /// # Errors
    ///
    /// They are not all inside.
    pub fn read_u64(&self, offset: usize) -> Result<u64, OutOfRange> {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Stores eight little-endian bytes.
    ///
    /// # Errors
    ///
    /// They are not all inside.
    pub fn write_u64(&self, offset: usize, value: u64) -> Result<(), OutOfRange> {
        self.write(offset, &value.to_le_bytes())
    }

    /// No effect in a model.
    pub fn prefetch_read(&self, _offset: usize) {}

    /// No effect in a model.
    pub fn prefetch_write(&self, _offset: usize) {}

    /// Lends bytes as a slice; they are compared again when the loan ends.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    ///
    /// # Safety
    ///
    /// As in the mapped form; here a broken promise fails the model.
    pub unsafe fn lend(&self, offset: usize, len: usize) -> Result<LentBytes<'_>, OutOfRange> {
        let mut copy = vec![0; len];
        self.read(offset, &mut copy)?;
        self.note_loan(offset, len);
        Ok(LentBytes {
            of: self,
            offset,
            copy,
        })
    }

    /// Tells loom that the bytes are read here, by right.
    fn note_loan(&self, offset: usize, len: usize) {
        let start = self.start + offset;
        for loan in &self.region.0.loans[start / 8..(start + len).div_ceil(8)] {
            loan.with(|_| ());
        }
    }

    /// Lends bytes to be filled; they are stored when the loan ends.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    ///
    /// # Safety
    ///
    /// As in the mapped form.
    pub unsafe fn lend_mut(
        &self,
        offset: usize,
        len: usize,
    ) -> Result<LentBytesMut<'_>, OutOfRange> {
        check_range(offset, len, self.len)?;
        Ok(LentBytesMut {
            of: self,
            offset,
            copy: vec![0; len],
        })
    }
}

/// Bytes of a region that are ours to read for a while.
#[derive(Debug)]
pub struct LentBytes<'a> {
    of: &'a Bytes,
    offset: usize,
    copy: Vec<u8>,
}

impl std::ops::Deref for LentBytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.copy
    }
}

impl Drop for LentBytes<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.of.note_loan(self.offset, self.copy.len());
        let mut now = vec![0; self.copy.len()];
        let read = self.of.read(self.offset, &mut now);
        assert!(
            read.is_ok() && now == self.copy,
            "bytes changed while they were lent"
        );
    }
}

/// Bytes of a region that are ours to fill for a while.
#[derive(Debug)]
pub struct LentBytesMut<'a> {
    of: &'a Bytes,
    offset: usize,
    copy: Vec<u8>,
}

impl std::ops::Deref for LentBytesMut<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.copy
    }
}

impl LentBytesMut<'_> {
    /// Ends the loan: stores what was filled in.
    pub fn end(self) {
        drop(self);
    }
}

impl std::ops::DerefMut for LentBytesMut<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.copy
    }
}

impl Drop for LentBytesMut<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // In range since the loan was made.
            let _ = self.of.write(self.offset, &self.copy);
        }
    }
}
