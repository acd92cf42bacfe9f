//! Array: elements side by side (section 4.1).

use crate::{
    block::Block,
    element::{Element, shape},
    error::{Error, Label},
    memory::{Memory, Part, open_or_create},
};
use polyshm_platform::Bytes;
use polyshm_wire::zeroipc::{ArrayForm, ArrayLayout, ImageError};
use std::{
    marker::PhantomData,
    ops::{Bound, Range, RangeBounds},
};
use zerocopy::IntoBytes;

/// The array over bytes.
#[derive(Clone, Debug)]
pub(crate) struct RawArray {
    data: Bytes,
    form: ArrayForm,
    capacity: usize,
    block: Block,
}

/// An index or a range that the array does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{on} has {capacity} elements, and {range:?} reaches beyond: use smaller indices")]
pub struct OutOfBounds {
    /// The array.
    pub on: Label,
    /// The elements asked for.
    pub range: Range<usize>,
    /// The elements that there are.
    pub capacity: usize,
}

impl RawArray {
    pub(crate) const WHAT: &'static str = "array";

    pub(crate) fn create(
        memory: &Memory,
        name: &str,
        form: ArrayForm,
        capacity: u64,
        elem_size: u64,
    ) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let layout =
            ArrayLayout::new(form, capacity, elem_size).map_err(memory.layout_error(&label))?;
        let part = Part {
            name: name.to_owned(),
            size: layout.size(),
        };
        memory.create_entries(&label, &[part], |blocks| {
            let (header, len) = layout.header_bytes();
            blocks[0].fill(0, &header[..len])?;
            Self::over(&blocks[0], &layout)
        })
    }

    pub(crate) fn open(memory: &Memory, name: &str, elem_size: u64) -> Result<Self, Error> {
        let label = Memory::label(Self::WHAT, name);
        let block = memory.open_entry(name, &label)?;
        let header: [u8; 16] = block.header()?;
        let there = header.len().min(block.size);
        let layout = ArrayLayout::read(&header[..there], block.size as u64, elem_size)
            .map_err(|source| block.mismatch(source))?;
        Self::over(&block, &layout)
    }

    /// A capacity that the caller insists on must be the one there is.
    pub(crate) fn expect_capacity(self, expected: u64) -> Result<Self, Error> {
        let found = self.capacity as u64;
        if found == expected {
            Ok(self)
        } else {
            Err(self.block.mismatch(ImageError::Capacity {
                structure: Self::WHAT,
                found,
                expected,
            }))
        }
    }

    fn over(block: &Block, layout: &ArrayLayout) -> Result<Self, Error> {
        let len = layout.size() - layout.header_size();
        Ok(Self {
            data: block.bytes(layout.data_offset(), len as usize)?,
            form: layout.form,
            capacity: layout.capacity as usize,
            block: block.clone(),
        })
    }

    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) const fn form(&self) -> ArrayForm {
        self.form
    }

    pub(crate) fn label(&self) -> &Label {
        &self.block.label
    }

    pub(crate) const fn data(&self) -> &Bytes {
        &self.data
    }

    pub(crate) fn out_of_bounds(&self, range: Range<usize>) -> OutOfBounds {
        OutOfBounds {
            on: self.block.label.clone(),
            range,
            capacity: self.capacity,
        }
    }

    /// Copies elements out, as many as `into` takes.
    #[inline]
    pub(crate) fn read(
        &self,
        start: usize,
        into: &mut [u8],
        elem: usize,
    ) -> Result<(), OutOfBounds> {
        let count = into.len() / elem;
        start
            .checked_mul(elem)
            .and_then(|at| self.data.read(at, into).ok())
            .ok_or_else(|| self.out_of_bounds(start..start.saturating_add(count)))
    }

    /// Copies elements in.
    #[inline]
    pub(crate) fn write(&self, start: usize, from: &[u8], elem: usize) -> Result<(), OutOfBounds> {
        let count = from.len() / elem;
        start
            .checked_mul(elem)
            .and_then(|at| self.data.write(at, from).ok())
            .ok_or_else(|| self.out_of_bounds(start..start.saturating_add(count)))
    }

    /// The range that Rust's range syntax means here.
    pub(crate) fn range(
        &self,
        range: impl RangeBounds<usize>,
    ) -> Result<Range<usize>, OutOfBounds> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.capacity,
        };
        if start <= end && end <= self.capacity {
            Ok(start..end)
        } else {
            Err(self.out_of_bounds(start..end))
        }
    }
}

/// A fixed number of elements side by side.
///
/// Access is by copy and without any order between processes: an element of 1,
/// 2, 4 or 8 bytes at its natural alignment is never torn, larger ones may be
/// while another process stores. Use a lock, a queue or a signal beside it where
/// that matters. Nothing blocks.
///
/// The C library's arrays have a longer header; [`Array::create_c`] makes one,
/// and [`Array::open`] tells the two apart by their sizes.
///
/// Source: section 4.1 of `docs/protocols/zeroipc.md`.
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use polyshm_zeroipc::{Array, Memory};
///
/// let name = format!("polyshm-doc-array-{}", std::process::id());
/// let memory = Memory::create_new(&name, 1 << 16)?;
/// let data = Array::<f32>::create(&memory, "temperature", 1000)?;
/// data.set(0, 23.5).expect("inside");
/// data.write(1, &[20.0, 21.0]).expect("inside");
/// assert_eq!(data.get(0), Some(23.5));
/// assert_eq!(data.read(..3).expect("inside"), [23.5, 20.0, 21.0]);
/// assert!(data.set(1000, 0.0).is_err());
/// memory.unlink()?;
/// # }
/// # Ok::<(), polyshm_zeroipc::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Array<T> {
    raw: RawArray,
    _element: PhantomData<fn(T) -> T>,
}

impl<T: Element> Array<T> {
    const fn over(raw: RawArray) -> Self {
        Self {
            raw,
            _element: PhantomData,
        }
    }

    /// Creates an array of `capacity` elements, all zero.
    ///
    /// # Errors
    ///
    /// The name is taken or impossible, the capacity is 0, or it does not fit.
    pub fn create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        RawArray::create(memory, name, ArrayForm::Plain, capacity, shape::<T>().0).map(Self::over)
    }

    /// Creates an array as the C library does, for C readers. C++, Python and
    /// Go misread it.
    ///
    /// # Errors
    ///
    /// As [`Array::create`].
    #[doc(alias = "zeroipc_array_create")]
    pub fn create_c(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        RawArray::create(memory, name, ArrayForm::C, capacity, shape::<T>().0).map(Self::over)
    }

    /// Opens an array of either form.
    ///
    /// # Errors
    ///
    /// There is none of that name, or its size is not that of its capacity in
    /// elements of this type.
    pub fn open(memory: &Memory, name: &str) -> Result<Self, Error> {
        RawArray::open(memory, name, shape::<T>().0).map(Self::over)
    }

    /// Opens the array, which must have that capacity, or creates it if there
    /// is none.
    ///
    /// # Errors
    ///
    /// As [`Array::open`] and [`Array::create`], or it has another capacity.
    pub fn open_or_create(memory: &Memory, name: &str, capacity: u64) -> Result<Self, Error> {
        open_or_create(
            || {
                let raw = RawArray::open(memory, name, shape::<T>().0)?;
                raw.expect_capacity(capacity).map(Self::over)
            },
            || Self::create(memory, name, capacity),
        )
    }

    /// Whether its header is the C library's.
    pub const fn form(&self) -> ArrayForm {
        self.raw.form()
    }

    /// The number of elements.
    pub const fn len(&self) -> usize {
        self.raw.capacity()
    }

    /// Never: an array has at least one element.
    pub const fn is_empty(&self) -> bool {
        self.raw.capacity() == 0
    }

    /// Copies one element; `None` beyond the end.
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        let mut element = T::new_zeroed();
        let size = size_of::<T>();
        self.raw
            .read(index, element.as_mut_bytes(), size)
            .ok()
            .map(|()| element)
    }

    /// Stores one element.
    ///
    /// # Errors
    ///
    /// The index lies beyond the end.
    #[inline]
    pub fn set(&self, index: usize, element: T) -> Result<(), OutOfBounds> {
        self.raw.write(index, element.as_bytes(), size_of::<T>())
    }

    /// Copies a range of elements.
    ///
    /// # Errors
    ///
    /// The range reaches beyond the end.
    pub fn read(&self, range: impl RangeBounds<usize>) -> Result<Vec<T>, OutOfBounds> {
        let range = self.raw.range(range)?;
        let mut elements = vec![T::new_zeroed(); range.len()];
        self.read_into(range.start, &mut elements)?;
        Ok(elements)
    }

    /// Copies elements from `start` on, as many as `into` takes.
    ///
    /// # Errors
    ///
    /// They reach beyond the end; nothing was copied.
    pub fn read_into(&self, start: usize, into: &mut [T]) -> Result<(), OutOfBounds> {
        self.raw.read(start, into.as_mut_bytes(), size_of::<T>())
    }

    /// Stores elements from `start` on.
    ///
    /// # Errors
    ///
    /// They reach beyond the end; nothing was stored.
    pub fn write(&self, start: usize, elements: &[T]) -> Result<(), OutOfBounds> {
        self.raw.write(start, elements.as_bytes(), size_of::<T>())
    }

    /// Stores the same element everywhere.
    pub fn fill(&self, element: T) {
        for index in 0..self.len() {
            // Inside.
            let _ = self.set(index, element);
        }
    }

    /// A copy of all elements.
    pub fn to_vec(&self) -> Vec<T> {
        self.read(..).unwrap_or_default()
    }

    /// Copies one element after the other, each when it is asked for.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = T> + '_ {
        (0..self.len()).map(|index| self.get(index).unwrap_or_else(T::new_zeroed))
    }

    #[cfg(feature = "ndarray")]
    pub(crate) const fn raw(&self) -> &RawArray {
        &self.raw
    }
}
