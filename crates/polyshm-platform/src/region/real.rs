//! The mapped and the heap form.

use super::{InvalidWord, OutOfRange, check_range, check_word, check_words, copy};
use crate::{
    Access, Deadline, LIVENESS_SLICE, Result, SharedMemory, crash,
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    sys,
};
use memmap2::MmapRaw;
use std::{cell::UnsafeCell, fmt, marker::PhantomData, ptr::NonNull, sync::Arc};

/// The bytes of a segment, mapped into this process, or a heap stand-in.
///
/// Cloning is cheap and shares the bytes; they stay mapped until the last
/// clone and the last handle are gone.
///
/// ```
/// use polyshm_platform::{Region, sync::Ordering};
///
/// let region = Region::heap(128);
/// let counter = region.word64(64)?;
/// counter.fetch_add(5, Ordering::Relaxed);
/// assert_eq!(region.word64(64)?.load(Ordering::Relaxed), 5);
/// assert!(region.word64(65).is_err(), "words are aligned");
/// assert!(region.word64(128).is_err(), "words lie inside");
/// # Ok::<(), polyshm_platform::InvalidWord>(())
/// ```
#[derive(Clone)]
pub struct Region(Arc<Inner>);

struct Inner {
    /// Valid for `len` bytes for as long as `backing` lives.
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    _backing: Backing,
}

enum Backing {
    Mapped(#[expect(dead_code, reason = "held for its destructor")] MmapRaw),
    Heap(#[expect(dead_code, reason = "held for its destructor")] Box<[Line]>),
}

/// One cache line of a heap region: aligned as a mapping's lines are.
#[repr(C, align(64))]
struct Line(UnsafeCell<[u8; 64]>);

// SAFETY: `base` points into memory that `_backing` owns and that does not
// move. It is reached only through atomics, through opaque copies, and through
// `lend`/`lend_mut`, whose callers prove exclusivity; none depends on the thread.
unsafe impl Send for Inner {}
// SAFETY: as for Send; all access through a shared reference is atomic, opaque
// to the compiler, or proven exclusive by the caller of an unsafe function.
unsafe impl Sync for Inner {}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.0.len)
            .finish_non_exhaustive()
    }
}

impl Region {
    /// Maps a whole segment.
    ///
    /// # Errors
    ///
    /// The system refuses the mapping.
    pub fn map(segment: &SharedMemory) -> Result<Self> {
        let map = segment.map_raw()?;
        // A mapping is never at address zero.
        let base = NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling());
        Ok(Self(Arc::new(Inner {
            base,
            len: map.len(),
            writable: segment.access() == Access::ReadWrite,
            _backing: Backing::Mapped(map),
        })))
    }

    /// A zeroed stand-in of `len` bytes on the heap, for tests and models.
    #[must_use]
    pub fn heap(len: usize) -> Self {
        let lines: Box<[Line]> = (0..len.div_ceil(64))
            .map(|_| Line(UnsafeCell::new([0; 64])))
            .collect();
        let base = lines.first().map_or(NonNull::dangling(), |_| {
            // SAFETY: a boxed slice's pointer is never null.
            unsafe { NonNull::new_unchecked(lines.as_ptr().cast_mut().cast::<u8>()) }
        });
        Self(Arc::new(Inner {
            base,
            len,
            writable: true,
            _backing: Backing::Heap(lines),
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
    /// The word is not inside, not aligned, or the region is read-only.
    pub fn word64(&self, offset: usize) -> std::result::Result<Word64, InvalidWord> {
        let cell = self.word(offset, size_of::<AtomicU64>())?.cast();
        Ok(Word64 {
            cell,
            _region: self.clone(),
        })
    }

    /// A handle on the aligned 32-bit word at `offset`.
    ///
    /// # Errors
    ///
    /// The word is not inside, not aligned, or the region is read-only.
    pub fn word32(&self, offset: usize) -> std::result::Result<Word32, InvalidWord> {
        let cell = self.word(offset, size_of::<AtomicU32>())?.cast();
        Ok(Word32 {
            cell,
            _region: self.clone(),
        })
    }

    /// A handle on the byte at `offset`, as an atomic.
    ///
    /// # Errors
    ///
    /// The byte is not inside, or the region is read-only.
    pub fn word8(&self, offset: usize) -> std::result::Result<Word8, InvalidWord> {
        let cell = self.word(offset, size_of::<AtomicU8>())?.cast();
        Ok(Word8 {
            cell,
            _region: self.clone(),
        })
    }

    /// A handle on `count` aligned 32-bit words, the first at `offset`, each
    /// `stride` bytes after the one before.
    ///
    /// # Errors
    ///
    /// A word is not inside or not aligned, or the region is read-only.
    pub fn words32(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
    ) -> std::result::Result<Words32, InvalidWord> {
        Ok(Words32 {
            base: self.row_of_words(offset, stride, count, size_of::<AtomicU32>())?,
            stride,
            count,
            _region: self.clone(),
        })
    }

    /// As [`words32`](Self::words32), of 64-bit words.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn words64(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
    ) -> std::result::Result<Words64, InvalidWord> {
        Ok(Words64 {
            base: self.row_of_words(offset, stride, count, size_of::<AtomicU64>())?,
            stride,
            count,
            _region: self.clone(),
        })
    }

    fn row_of_words(
        &self,
        offset: usize,
        stride: usize,
        count: usize,
        size: usize,
    ) -> std::result::Result<NonNull<u8>, InvalidWord> {
        check_words(offset, stride, count, size, self.0.len)?;
        if !self.0.writable {
            return Err(InvalidWord::ReadOnly);
        }
        if count == 0 {
            return Ok(NonNull::dangling());
        }
        // SAFETY: the check proves that the first word lies inside.
        Ok(unsafe { self.0.base.add(offset) })
    }

    /// A handle on `count` rows of `size` bytes, the first at `offset`.
    ///
    /// # Errors
    ///
    /// They are not inside, or the region is read-only.
    pub fn rows(
        &self,
        offset: usize,
        size: usize,
        count: usize,
    ) -> std::result::Result<Rows, OutOfRange> {
        let len = size.saturating_mul(count);
        let limit = if self.0.writable { self.0.len } else { 0 };
        check_range(offset, len, limit)?;
        Ok(Rows {
            // SAFETY: the check proves that offset <= len.
            base: unsafe { self.0.base.add(offset) },
            size,
            count,
            _region: self.clone(),
        })
    }

    fn word(&self, offset: usize, size: usize) -> std::result::Result<NonNull<u8>, InvalidWord> {
        check_word(offset, size, self.0.len)?;
        if !self.0.writable {
            return Err(InvalidWord::ReadOnly);
        }
        // SAFETY: the check proves that offset + size <= len.
        Ok(unsafe { self.0.base.add(offset) })
    }

    /// A handle on the bytes `offset..offset + len`.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    pub fn bytes(&self, offset: usize, len: usize) -> std::result::Result<Bytes, OutOfRange> {
        check_range(offset, len, self.0.len)?;
        // SAFETY: the check proves that offset <= len.
        let base = unsafe { self.0.base.add(offset) };
        Ok(Bytes {
            base,
            len,
            writable: if self.0.writable { len } else { 0 },
            _region: self.clone(),
        })
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $atomic:ty, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name {
            /// Inside the region that `_region` keeps mapped; aligned; writable.
            cell: NonNull<$atomic>,
            _region: Region,
        }

        // SAFETY: the cell is an atomic in memory that the region keeps alive.
        unsafe impl Send for $name {}
        // SAFETY: as for Send; atomics may be shared.
        unsafe impl Sync for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.load(Ordering::Relaxed)).finish()
            }
        }

        impl $name {
            /// The word itself.
            #[inline]
            pub(crate) fn atomic(&self) -> &$atomic {
                // SAFETY: `cell` was checked for range, alignment and access
                // when the handle was made, and `_region` keeps it mapped.
                // Every access anywhere is atomic or opaque to the compiler.
                unsafe { self.cell.as_ref() }
            }

            /// Loads the word.
            #[inline]
            #[must_use]
            pub fn load(&self, order: Ordering) -> $int {
                self.atomic().load(order)
            }

            /// Stores `value`.
            #[inline]
            pub fn store(&self, value: $int, order: Ordering) {
                crash::point(crash::Step::Store);
                self.atomic().store(value, order);
            }

            /// Adds, wrapping; gives the value before.
            #[inline]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                crash::point(crash::Step::Update);
                self.atomic().fetch_add(value, order)
            }

            /// Subtracts, wrapping; gives the value before.
            #[inline]
            pub fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                crash::point(crash::Step::Update);
                self.atomic().fetch_sub(value, order)
            }

            /// Stores `new` if the word is `current`.
            ///
            /// # Errors
            ///
            /// The value found, when it is another.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> std::result::Result<$int, $int> {
                crash::point(crash::Step::Update);
                self.atomic().compare_exchange(current, new, success, failure)
            }

            /// Hints that this word will be written soon.
            #[inline]
            pub fn prefetch_write(&self) {
                copy::prefetch_write(self.cell.as_ptr().cast());
            }

            /// Hints that this word will be read soon.
            #[inline]
            pub fn prefetch_read(&self) {
                copy::prefetch_read(self.cell.as_ptr().cast());
            }
        }
    };
}

word! {
    /// An aligned 64-bit atomic word of a region.
    Word64, AtomicU64, u64
}
word! {
    /// An aligned 32-bit atomic word of a region.
    Word32, AtomicU32, u32
}

word! {
    /// A byte of a region as an atomic.
    Word8, AtomicU8, u8
}

impl Word32 {
    /// Sleeps while the word is `expected`: until woken, the deadline, or
    /// [`LIVENESS_SLICE`], whichever is first. May return early: look again.
    pub fn sleep_while(&self, expected: u32, deadline: Deadline) {
        sys::futex_wait(self.atomic(), expected, deadline.at_most(LIVENESS_SLICE));
    }

    /// Wakes up to `count` sleepers on this word, in any process.
    pub fn wake(&self, count: u32) {
        sys::futex_wake(self.atomic(), count);
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $word:ident, $atomic:ty, $int:ty) => {
        $(#[$doc])*
        ///
        /// One handle serves all of them, so an access costs a comparison and no
        /// reference count. Like a slice, it panics on an index that is not below
        /// its length; indices that a peer stored are checked before.
        #[derive(Clone)]
        pub struct $name {
            /// The first word; all `count` are inside the region, aligned, writable.
            base: NonNull<u8>,
            stride: usize,
            count: usize,
            _region: Region,
        }

        // SAFETY: the words are atomics in memory that the region keeps alive.
        unsafe impl Send for $name {}
        // SAFETY: as for Send; atomics may be shared.
        unsafe impl Sync for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    .field("len", &self.count)
                    .finish_non_exhaustive()
            }
        }

        impl $name {
            /// The number of words.
            #[inline]
            #[must_use]
            pub const fn len(&self) -> usize {
                self.count
            }

            /// Whether there are no words.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.count == 0
            }

            #[inline]
            fn atomic(&self, index: usize) -> &$atomic {
                if index >= self.count {
                    outside(index, self.count);
                }
                // SAFETY: The region checked that the last word lies inside the region,
                // so index * stride neither wraps nor leads outside; it also checked
                // the alignment and the access. `_region` keeps the bytes mapped, and
                // every access anywhere is atomic or opaque to the compiler.
                unsafe { self.base.add(index * self.stride).cast().as_ref() }
            }

            /// Word `index`, checked once for several accesses.
            #[inline]
            #[must_use]
            pub fn at(&self, index: usize) -> $word<'_> {
                $word(self.atomic(index))
            }

            /// Loads word `index`.
            #[inline]
            #[must_use]
            pub fn load(&self, index: usize, order: Ordering) -> $int {
                self.at(index).load(order)
            }

            /// Stores `value` to word `index`.
            #[inline]
            pub fn store(&self, index: usize, value: $int, order: Ordering) {
                self.at(index).store(value, order);
            }

            /// Stores `new` to word `index` if it is `current`.
            ///
            /// # Errors
            ///
            /// The value found, when it is another.
            #[inline]
            pub fn compare_exchange(
                &self,
                index: usize,
                current: $int,
                new: $int,
                success: Ordering,
                failure: Ordering,
            ) -> std::result::Result<$int, $int> {
                crash::point(crash::Step::Update);
                self.atomic(index)
                    .compare_exchange(current, new, success, failure)
            }
        }

        #[doc = concat!("One word of a [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, Debug)]
        pub struct $word<'a>(&'a $atomic);

        impl $word<'_> {
            /// Loads the word.
            #[inline]
            #[must_use]
            pub fn load(self, order: Ordering) -> $int {
                self.0.load(order)
            }

            /// Hints that this word will be written soon.
            #[inline]
            pub fn prefetch_write(self) {
                copy::prefetch_write(std::ptr::from_ref(self.0).cast());
            }

            /// Stores `value`.
            #[inline]
            pub fn store(self, value: $int, order: Ordering) {
                crash::point(crash::Step::Store);
                self.0.store(value, order);
            }
        }
    };
}

words! {
    /// A row of aligned 32-bit atomic words at equal distances: the sequence
    /// numbers of a queue, the states of a map's entries.
    Words32, WordRef32, AtomicU32, u32
}
words! {
    /// A row of aligned 64-bit atomic words at equal distances: the sequence
    /// words of the slots of a FIFO.
    Words64, WordRef64, AtomicU64, u64
}

/// Apart, so that its arguments take no register on the way that matters.
#[cold]
#[inline(never)]
fn outside(index: usize, count: usize) -> ! {
    panic!("index {index} of {count}");
}

/// Rows of bytes, all of one size, one after the other: the elements of a queue.
///
/// An access costs one comparison of each, the index and the length, where a
/// [`Bytes`] checks a sum. Like a slice, it panics on an index that is not below
/// [`Rows::len`], and on bytes of another length than the row's; both are checked
/// before where a peer or a user has a say.
#[derive(Clone)]
pub struct Rows {
    /// The first row; all `count` of `size` bytes are inside, and writable.
    base: NonNull<u8>,
    size: usize,
    count: usize,
    _region: Region,
}

// SAFETY: as for the region's inner part: access is opaque.
unsafe impl Send for Rows {}
// SAFETY: as for Send.
unsafe impl Sync for Rows {}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("len", &self.count)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
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

    /// Row `index`, which has `len` bytes: checked once, before what decides
    /// whether it may be used.
    #[inline]
    #[must_use]
    pub fn at(&self, index: usize, len: usize) -> Row<'_> {
        if index >= self.count {
            outside(index, self.count);
        }
        if len != self.size {
            outside(len, self.size);
        }
        Row {
            // SAFETY: `rows` checked that count * size bytes lie inside the
            // region and may be stored to, so the row does.
            base: unsafe { self.base.add(index * len) },
            len,
            _of: PhantomData,
        }
    }
}

/// One row of a [`Rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Inside the region that the rows keep mapped; `len` bytes, writable.
    base: NonNull<u8>,
    len: usize,
    _of: PhantomData<&'a Rows>,
}

impl Row<'_> {
    /// Copies the row out.
    #[inline]
    pub fn read(self, into: &mut [u8]) {
        if into.len() != self.len {
            outside(into.len(), self.len);
        }
        // SAFETY: the row has that length.
        unsafe { copy::copy_out(into, self.base.as_ptr()) };
    }

    /// Copies bytes of the row out, from `offset` on. Panics as a slice does when
    /// they do not lie in it.
    #[inline]
    pub fn read_at(self, offset: usize, into: &mut [u8]) {
        if check_range(offset, into.len(), self.len).is_err() {
            outside(offset, self.len);
        }
        // SAFETY: the check proves that the bytes lie in the row.
        unsafe { copy::copy_out(into, self.base.as_ptr().add(offset)) };
    }

    /// Copies bytes into the row, from `offset` on. Panics as a slice does when
    /// they do not lie in it.
    #[inline]
    pub fn write_at(self, offset: usize, from: &[u8]) {
        if check_range(offset, from.len(), self.len).is_err() {
            outside(offset, self.len);
        }
        // SAFETY: the check proves that the bytes lie in the row.
        unsafe { store(self.base.as_ptr().add(offset), from) };
    }

    /// Copies bytes into the row.
    #[inline]
    pub fn write(self, from: &[u8]) {
        if from.len() != self.len {
            outside(from.len(), self.len);
        }
        // SAFETY: the row has that length.
        unsafe { store(self.base.as_ptr(), from) };
    }
}

/// A byte range of a region.
///
/// Offsets of its methods count from the range's own start. Copies tolerate a
/// peer's concurrent stores: they may be torn, they are never undefined.
///
/// ```
/// use polyshm_platform::Region;
///
/// let ring = Region::heap(256).bytes(64, 128)?;
/// ring.write(3, b"frame")?;
/// let mut copy = [0; 5];
/// ring.read(3, &mut copy)?;
/// assert_eq!(&copy, b"frame");
/// assert!(ring.write(124, b"frame").is_err());
/// # Ok::<(), polyshm_platform::OutOfRange>(())
/// ```
#[derive(Clone)]
pub struct Bytes {
    /// Valid for `len` bytes while the region lives.
    base: NonNull<u8>,
    len: usize,
    /// `len`, or 0 of a read-only mapping.
    writable: usize,
    _region: Region,
}

// SAFETY: as for the region's inner part: access is opaque or proven exclusive.
unsafe impl Send for Bytes {}
// SAFETY: as for Send.
unsafe impl Sync for Bytes {}

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

    /// The address of a checked sub-range.
    #[inline]
    fn at(&self, offset: usize, len: usize) -> std::result::Result<*mut u8, OutOfRange> {
        check_range(offset, len, self.len)?;
        // SAFETY: the check proves that offset <= self.len.
        Ok(unsafe { self.base.as_ptr().add(offset) })
    }

    /// As [`Bytes::at`], for a store: no byte of a read-only mapping can be
    /// stored to.
    #[inline]
    fn at_mut(&self, offset: usize, len: usize) -> std::result::Result<*mut u8, OutOfRange> {
        check_range(offset, len, self.writable)?;
        // SAFETY: the check proves that offset <= self.writable <= self.len.
        Ok(unsafe { self.base.as_ptr().add(offset) })
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// The range is not inside; nothing was copied.
    #[inline]
    pub fn read(&self, offset: usize, into: &mut [u8]) -> std::result::Result<(), OutOfRange> {
        let src = self.at(offset, into.len())?;
        // SAFETY: `src` is checked for the length.
        unsafe { copy::copy_out(into, src) };
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// The range is not inside (nothing of a read-only region is); nothing was copied.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> std::result::Result<(), OutOfRange> {
        let dst = self.at_mut(offset, from.len())?;
        // SAFETY: `dst` is checked for the whole length.
        unsafe { store(dst, from) };
        Ok(())
    }

    /// Loads eight little-endian bytes, at any alignment.
    ///
    /// # Errors
    ///
    /// They are not all inside.
    #[inline]
    pub fn read_u64(&self, offset: usize) -> std::result::Result<u64, OutOfRange> {
        let src = self.at(offset, 8)?;
        // SAFETY: `src` is checked for eight bytes.
        Ok(unsafe { copy::load_u64(src) })
    }

    /// Stores eight little-endian bytes, at any alignment.
    ///
    /// # Errors
    ///
    /// They are not all inside (nothing of a read-only region is).
    #[inline]
    pub fn write_u64(&self, offset: usize, value: u64) -> std::result::Result<(), OutOfRange> {
        let dst = self.at_mut(offset, 8)?;
        crash::point(crash::Step::Store);
        // SAFETY: `dst` is checked for eight bytes.
        unsafe { copy::store_u64(dst, value) };
        Ok(())
    }

    /// Hints that the line at `offset` will be read soon. No effect outside.
    #[inline]
    pub fn prefetch_read(&self, offset: usize) {
        copy::prefetch_read(self.base.as_ptr().wrapping_add(offset));
    }

    /// Hints that the line at `offset` will be written soon. No effect outside.
    #[inline]
    pub fn prefetch_write(&self, offset: usize) {
        copy::prefetch_write(self.base.as_ptr().wrapping_add(offset));
    }

    /// Lends bytes as a slice.
    ///
    /// # Errors
    ///
    /// The range is not inside.
    ///
    /// # Safety
    ///
    /// The protocol gives this process the bytes: until the loan is dropped no
    /// other thread or process that keeps to the protocol stores to them, and
    /// their stores happened before this call.
    #[inline]
    pub unsafe fn lend(
        &self,
        offset: usize,
        len: usize,
    ) -> std::result::Result<LentBytes<'_>, OutOfRange> {
        let at = self.at(offset, len)?;
        Ok(LentBytes {
            bytes: slice(at, len),
            _from: PhantomData,
        })
    }

    /// Lends bytes as a slice to be filled.
    ///
    /// # Errors
    ///
    /// The range is not inside (nothing of a read-only region is).
    ///
    /// # Safety
    ///
    /// The protocol gives this process the bytes: until the loan is dropped no
    /// other thread or process that keeps to the protocol loads or stores
    /// them, and no other loan overlaps.
    #[inline]
    pub unsafe fn lend_mut(
        &self,
        offset: usize,
        len: usize,
    ) -> std::result::Result<LentBytesMut<'_>, OutOfRange> {
        let at = self.at_mut(offset, len)?;
        Ok(LentBytesMut {
            bytes: slice(at, len),
            _from: PhantomData,
        })
    }
}

/// Copies in, with points to die at.
///
/// # Safety
///
/// As for [`copy::copy_in`].
#[inline]
unsafe fn store(dst: *mut u8, from: &[u8]) {
    // A copy is many stores: one point before, one half-way.
    crash::point(crash::Step::Copy);
    if cfg!(crash_points) {
        let (first, rest) = from.split_at(from.len() / 2);
        // SAFETY: half of what the caller vouches for.
        unsafe { copy::copy_in(dst, first) };
        crash::point(crash::Step::Copy);
        // SAFETY: the other half.
        unsafe { copy::copy_in(dst.add(first.len()), rest) };
    } else {
        // SAFETY: the caller vouches for it.
        unsafe { copy::copy_in(dst, from) };
    }
}

/// The slice at an address that `Bytes::at` gave, which is never null.
#[inline]
fn slice(at: *mut u8, len: usize) -> NonNull<[u8]> {
    let at = NonNull::new(at).unwrap_or(NonNull::dangling());
    NonNull::slice_from_raw_parts(at, len)
}

/// Bytes of a region that are ours to read for a while.
///
/// Holds a pointer and no reference: a reference would claim the bytes until
/// the end of every function that the loan is passed to, also past the moment
/// in which that function gives them away.
#[derive(Debug)]
pub struct LentBytes<'a> {
    bytes: NonNull<[u8]>,
    _from: PhantomData<&'a [u8]>,
}

// SAFETY: as `&[u8]`, which it stands for.
unsafe impl Send for LentBytes<'_> {}
// SAFETY: as `&[u8]`, which it stands for.
unsafe impl Sync for LentBytes<'_> {}

impl std::ops::Deref for LentBytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `lend` checked the range, and its caller promised that the
        // bytes do not change until the loan is dropped.
        unsafe { self.bytes.as_ref() }
    }
}

/// Bytes of a region that are ours to fill for a while; see [`LentBytes`].
#[derive(Debug)]
pub struct LentBytesMut<'a> {
    bytes: NonNull<[u8]>,
    _from: PhantomData<&'a mut [u8]>,
}

// SAFETY: as `&mut [u8]`, which it stands for.
unsafe impl Send for LentBytesMut<'_> {}
// SAFETY: as `&mut [u8]`, which it stands for.
unsafe impl Sync for LentBytesMut<'_> {}

impl LentBytesMut<'_> {
    /// Ends the loan: from here on the bytes may be given away.
    #[inline]
    pub fn end(self) {}
}

impl std::ops::Deref for LentBytesMut<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `lend_mut` checked the range, and its caller promised that
        // the bytes are ours alone until the loan is dropped.
        unsafe { self.bytes.as_ref() }
    }
}

impl std::ops::DerefMut for LentBytesMut<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes it the only slice of them.
        unsafe { self.bytes.as_mut() }
    }
}
