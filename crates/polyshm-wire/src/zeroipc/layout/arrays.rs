//! Arrays (section 4.1).

use super::{MAX_SIZE, check_size};
use crate::zeroipc::{ImageError, LayoutError};

/// Which of the two array headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum ArrayForm {
    /// C++, Python and Go: `u64` capacity, then the elements
    #[default]
    Plain,
    /// C: `u64` capacity, `u64` element size, then the elements
    C,
}

impl ArrayForm {
    /// Bytes before the first element.
    pub const fn header_size(self) -> u64 {
        match self {
            Self::Plain => 8,
            Self::C => 16,
        }
    }
}

/// An array of elements without a state of their own (section 4.1).
///
/// ```
/// use polyshm_wire::zeroipc::{ArrayForm, ArrayLayout};
///
/// let plain = ArrayLayout::new(ArrayForm::Plain, 10, 4)?;
/// assert_eq!((plain.data_offset(), plain.size()), (8, 48));
///
/// // The same header in an entry of 56 bytes belongs to an array of C.
/// let (header, _) = ArrayLayout::new(ArrayForm::C, 10, 4)?.header_bytes();
/// let read = ArrayLayout::read(&header, 56, 4)?;
/// assert_eq!((read.form, read.data_offset()), (ArrayForm::C, 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArrayLayout {
    /// decides where the elements begin
    pub form: ArrayForm,
    /// elements; never 0
    pub capacity: u64,
    /// bytes per element; never 0
    pub elem_size: u64,
}

impl ArrayLayout {
    /// For a new array of `capacity` elements of `elem_size` bytes.
    pub fn new(form: ArrayForm, capacity: u64, elem_size: u64) -> Result<Self, LayoutError> {
        if capacity == 0 {
            return Err(LayoutError::ZeroCapacity);
        }
        if elem_size == 0 {
            return Err(LayoutError::ZeroElement);
        }
        let layout = Self {
            form,
            capacity,
            elem_size,
        };
        check_size(capacity, elem_size, layout.size())?;
        Ok(layout)
    }

    /// Judges the first bytes of an entry: 16 of them, or as many as the entry
    /// has, at least 8.
    ///
    /// No flag tells the two forms apart, but with a known element size the
    /// entry's size does, so it must be exact (as the Go implementation
    /// demands). What remains is that an array of C whose capacity divides 8 can
    /// pass for larger elements in the other form; an element of the right size
    /// is never misread.
    pub fn read(first: &[u8], entry_size: u64, elem_size: u64) -> Result<Self, ImageError> {
        const STRUCTURE: &str = "array";
        let Some(capacity) = word(first, 0).filter(|_| entry_size >= 8) else {
            return Err(ImageError::TooShort {
                structure: STRUCTURE,
                len: entry_size.min(first.len() as u64),
                need: 8,
            });
        };
        if elem_size == 0 {
            return Err(LayoutError::ZeroElement.into());
        }
        if capacity == 0 {
            return Err(ImageError::ZeroCapacity {
                structure: STRUCTURE,
            });
        }
        let stored = word(first, 8).filter(|_| entry_size >= 16);
        let plain = Self {
            form: ArrayForm::Plain,
            capacity,
            elem_size,
        };
        if plain.size() == entry_size && entry_size <= MAX_SIZE {
            return Ok(plain);
        }
        let c = Self {
            form: ArrayForm::C,
            capacity,
            elem_size: stored.unwrap_or(0),
        };
        if stored.is_some() && c.size() == entry_size && entry_size <= MAX_SIZE {
            if c.elem_size == elem_size {
                return Ok(c);
            }
            return Err(ImageError::ElementSize {
                structure: STRUCTURE,
                found: c.elem_size,
                expected: elem_size,
            });
        }
        // Elements of another size fill the entry exactly: not damage.
        let data = entry_size - 8;
        if data >= capacity && data.is_multiple_of(capacity) {
            return Err(ImageError::ElementSize {
                structure: STRUCTURE,
                found: data / capacity,
                expected: elem_size,
            });
        }
        if plain.size() > entry_size {
            return Err(ImageError::Exceeds {
                structure: STRUCTURE,
                needed: plain.size(),
                entry_size,
            });
        }
        Err(ImageError::Size {
            structure: STRUCTURE,
            found: entry_size,
            expected: plain.size(),
        })
    }

    /// Bytes before the first element: 8 or 16.
    pub const fn header_size(&self) -> u64 {
        self.form.header_size()
    }

    /// Where the first element is.
    pub const fn data_offset(&self) -> u64 {
        self.header_size()
    }

    /// Where the element with this index is, or `None` behind the last one.
    pub const fn element_at(&self, index: u64) -> Option<u64> {
        if index < self.capacity {
            Some(
                self.data_offset()
                    .saturating_add(index.saturating_mul(self.elem_size)),
            )
        } else {
            None
        }
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        self.header_size()
            .saturating_add(self.capacity.saturating_mul(self.elem_size))
    }

    /// What stands at offset 0, and how many of the 16 bytes belong to it.
    pub fn header_bytes(&self) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        let (capacity, elem_size) = bytes.split_at_mut(8);
        capacity.copy_from_slice(&self.capacity.to_le_bytes());
        match self.form {
            ArrayForm::Plain => (bytes, 8),
            ArrayForm::C => {
                elem_size.copy_from_slice(&self.elem_size.to_le_bytes());
                (bytes, 16)
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*word))
}
