//! Signals, futures and lazy values: one value with a state (sections 5.9, 6.3
//! and 6.4).

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U32, U64},
};

use super::{Dialect, align8, check_align, check_elem, codec, larger, round_up};
use crate::zeroipc::{ImageError, LayoutError};

/// Byte offsets in the state of a signal (section 5.9).
pub mod signal {
    /// `u64`, atomic: how often the value was changed
    pub const VERSION: u64 = 0;
    /// the value
    pub const VALUE: u64 = 8;
}

/// Byte offsets and states of a future (section 6.3).
pub mod future {
    use super::{FutureHeader, offset_of};

    /// `u32`, atomic
    pub const STATE: u64 = offset_of!(FutureHeader, state) as u64;
    /// `u32`, atomic
    pub const WAITERS: u64 = offset_of!(FutureHeader, waiters) as u64;
    /// `u64`, when it was completed: nanoseconds of a monotonic clock in C++,
    /// microseconds since 1970 in Python
    pub const TIME: u64 = offset_of!(FutureHeader, time) as u64;
    /// the value
    pub const VALUE: u64 = 16;
    /// bytes of the error text, NUL-terminated
    pub const ERROR_SIZE: u64 = 256;

    /// Nobody has begun to complete it.
    pub const PENDING: u32 = 0;
    /// Somebody is storing the value or the error.
    pub const COMPUTING: u32 = 1;
    /// The value is there.
    pub const READY: u32 = 2;
    /// The error is there; a C++ peer may still be storing its text.
    pub const ERROR: u32 = 3;
}

/// States and kinds of a lazy value (section 6.4). Its offsets depend on the
/// element: see [`LazyLayout`](super::LazyLayout).
pub mod lazy {
    /// `u32`, atomic, in both dialects
    pub const STATE: u64 = 0;
    /// bytes of the error text, NUL-terminated
    pub const ERROR_SIZE: u64 = 256;

    /// Nobody has asked for the value.
    pub const NOT_COMPUTED: u32 = 0;
    /// Somebody is computing it.
    pub const COMPUTING: u32 = 1;
    /// The value is there.
    pub const COMPUTED: u32 = 2;
    /// The error is there.
    pub const ERROR: u32 = 3;

    /// The value is the operand.
    pub const CONSTANT: u32 = 0;
    /// The sum of both operands.
    pub const ADD: u32 = 1;
    /// The product of both operands.
    pub const MULTIPLY: u32 = 2;
    /// The operand's negative.
    pub const NEGATE: u32 = 3;
    /// Not implemented in C++: always an error.
    pub const CHAIN: u32 = 4;
    /// Not implemented in C++: always an error.
    pub const EXTERNAL: u32 = 5;
}

/// Byte offsets and kinds of C++'s lazy `bool` (section 6.4). The states are
/// those of [`lazy`].
pub mod lazy_bool {
    use super::{LazyBoolImage, offset_of};

    /// `u32`, atomic
    pub const STATE: u64 = offset_of!(LazyBoolImage, state) as u64;
    /// `u32`
    pub const KIND: u64 = offset_of!(LazyBoolImage, kind) as u64;
    /// one byte: the first operand
    pub const A: u64 = offset_of!(LazyBoolImage, a) as u64;
    /// one byte: the second operand
    pub const B: u64 = offset_of!(LazyBoolImage, b) as u64;
    /// one byte: the result
    pub const CACHED: u64 = offset_of!(LazyBoolImage, cached) as u64;
    /// bytes of the entry
    pub const SIZE: u64 = 16;

    /// The value is the first operand.
    pub const CONST: u32 = 0;
    /// Both operands.
    pub const AND: u32 = 1;
    /// At least one operand.
    pub const OR: u32 = 2;
    /// Exactly one operand.
    pub const XOR: u32 = 3;
    /// Not the first operand.
    pub const NOT: u32 = 4;
}

/// The first 16 bytes of a future (section 6.3).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct FutureHeader {
    /// one of the states in [`future`]
    pub state: U32,
    /// waiters, the dead included
    pub waiters: U32,
    /// opaque: the clocks differ between dialects
    pub time: U64,
}

/// C++'s lazy `bool` (section 6.4).
#[repr(C)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
pub struct LazyBoolImage {
    /// one of the states in [`lazy`]
    pub state: U32,
    /// one of the kinds in [`lazy_bool`]
    pub kind: U32,
    /// 0 or 1
    pub a: u8,
    /// 0 or 1; unused by constants and negations
    pub b: u8,
    /// whatever was there
    pub padding: [u8; 2],
    /// 0 or 1 once computed
    pub cached: u8,
    /// whatever was there
    pub tail: [u8; 3],
}

codec!(FutureHeader, future::VALUE, "future");
codec!(LazyBoolImage, lazy_bool::SIZE, "lazy bool");

// The offsets of sections 6.3 and 6.4, stated apart from the structures.
const _: () = {
    assert!(future::STATE == 0);
    assert!(future::WAITERS == 4);
    assert!(future::TIME == 8);
    assert!(lazy_bool::STATE == 0);
    assert!(lazy_bool::KIND == 4);
    assert!(lazy_bool::A == 8);
    assert!(lazy_bool::B == 9);
    assert!(lazy_bool::CACHED == 12);
};

/// The state of a signal: a version and a value. Its mutex and its marker are
/// entries of their own (section 5.9).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, SignalLayout};
///
/// let cpp = SignalLayout::new(Dialect::Cpp, 4, 4)?;
/// let python = SignalLayout::new(Dialect::Python, 4, 4)?;
/// assert_eq!((cpp.size(), python.size()), (16, 12));
/// assert!(cpp.accepts(12) && cpp.accepts(16) && !cpp.accepts(20));
/// # Ok::<(), polyshm_wire::zeroipc::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignalLayout {
    /// decides the size of the entry, not the offsets
    pub dialect: Dialect,
    /// bytes of the value; never 0
    pub elem_size: u32,
    /// of the value in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl SignalLayout {
    /// For a value of this size and alignment.
    pub fn new(dialect: Dialect, elem_size: u64, elem_align: u64) -> Result<Self, LayoutError> {
        Ok(Self {
            dialect,
            elem_size: check_elem(1, elem_size)?,
            elem_align: check_align(elem_align)?,
        })
    }

    /// Bytes of the state's entry: rounded up to a multiple of 8 in C++.
    pub const fn size(&self) -> u64 {
        let end = signal::VALUE + self.elem_size as u64;
        match self.dialect {
            Dialect::Cpp => align8(end),
            Dialect::Python => end,
        }
    }

    /// Whether an entry of this size is the state of such a signal in either
    /// dialect (section 9, item 31).
    pub const fn accepts(&self, entry_size: u64) -> bool {
        let end = signal::VALUE + self.elem_size as u64;
        entry_size == end || entry_size == align8(end)
    }
}

/// A future: a value that somebody will store once, or an error text
/// (section 6.3).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, FutureLayout};
///
/// let read = FutureLayout::read(276, 4, 4)?;
/// assert_eq!((read.dialect, read.error_offset()), (Dialect::Python, 20));
/// assert_eq!(FutureLayout::read(280, 4, 4)?.dialect, Dialect::Cpp);
/// assert!(FutureLayout::read(281, 4, 4).is_err());
/// # Ok::<(), polyshm_wire::zeroipc::ImageError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FutureLayout {
    /// decides the size of the entry, not the offsets
    pub dialect: Dialect,
    /// bytes of the value; never 0
    pub elem_size: u32,
    /// of the value in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl FutureLayout {
    /// For a value of this size and alignment.
    pub fn new(dialect: Dialect, elem_size: u64, elem_align: u64) -> Result<Self, LayoutError> {
        Ok(Self {
            dialect,
            elem_size: check_elem(1, elem_size)?,
            elem_align: check_align(elem_align)?,
        })
    }

    /// Judges the size of an existing entry, which also tells the dialect; C++
    /// where both take the same. The offsets are the same anyway.
    pub fn read(entry_size: u64, elem_size: u64, elem_align: u64) -> Result<Self, ImageError> {
        let cpp = Self::new(Dialect::Cpp, elem_size, elem_align)?;
        let python = Self {
            dialect: Dialect::Python,
            ..cpp
        };
        if entry_size == cpp.size() {
            Ok(cpp)
        } else if entry_size == python.size() {
            Ok(python)
        } else {
            Err(ImageError::Size {
                structure: "future",
                found: entry_size,
                expected: cpp.size(),
            })
        }
    }

    /// Where the error text is: right behind the value.
    pub const fn error_offset(&self) -> u64 {
        future::VALUE + self.elem_size as u64
    }

    /// Bytes of the whole entry: rounded up to a multiple of 8 in C++.
    pub const fn size(&self) -> u64 {
        let end = self.error_offset() + future::ERROR_SIZE;
        match self.dialect {
            Dialect::Cpp => align8(end),
            Dialect::Python => end,
        }
    }
}

/// A lazy value: an operation and its operands in C++, only the result in
/// Python (section 6.4).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, LazyLayout};
///
/// let cpp = LazyLayout::new(Dialect::Cpp, 8, 8)?;
/// assert_eq!((cpp.kind_offset(), cpp.operands_offset()), (Some(8), Some(16)));
/// assert_eq!((cpp.cached_offset(), cpp.error_offset(), cpp.size()), (32, 40, 304));
///
/// let python = LazyLayout::read(264, 4, 4)?;
/// assert_eq!((python.dialect, python.cached_offset()), (Dialect::Python, 4));
/// assert_eq!(python.kind_offset(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LazyLayout {
    /// decides everything: the dialects share only the state's place
    pub dialect: Dialect,
    /// bytes of the value; never 0
    pub elem_size: u32,
    /// of the value in C++: 1, 2, 4 or 8
    pub elem_align: u32,
}

impl LazyLayout {
    /// For a value of this size and alignment.
    pub fn new(dialect: Dialect, elem_size: u64, elem_align: u64) -> Result<Self, LayoutError> {
        Ok(Self {
            dialect,
            elem_size: check_elem(1, elem_size)?,
            elem_align: check_align(elem_align)?,
        })
    }

    /// Judges the size of an existing entry, which also tells the dialect:
    /// C++ always takes more.
    pub fn read(entry_size: u64, elem_size: u64, elem_align: u64) -> Result<Self, ImageError> {
        let cpp = Self::new(Dialect::Cpp, elem_size, elem_align)?;
        let python = Self {
            dialect: Dialect::Python,
            ..cpp
        };
        if entry_size == cpp.size() {
            Ok(cpp)
        } else if entry_size == python.size() {
            Ok(python)
        } else {
            Err(ImageError::Size {
                structure: "lazy value",
                found: entry_size,
                expected: cpp.size(),
            })
        }
    }

    /// Where the `u32` kind is, one of those in [`lazy`]; `None` in Python.
    pub const fn kind_offset(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Cpp => Some(self.kind()),
            Dialect::Python => None,
        }
    }

    /// Where the first operand is; `None` in Python.
    pub const fn operands_offset(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Cpp => Some(self.operands()),
            Dialect::Python => None,
        }
    }

    /// Where the second operand is; `None` in Python.
    pub const fn second_operand_offset(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Cpp => Some(self.operands() + self.elem_size as u64),
            Dialect::Python => None,
        }
    }

    /// Where the result is once it was computed; at no particular alignment in
    /// Python.
    pub const fn cached_offset(&self) -> u64 {
        match self.dialect {
            Dialect::Cpp => {
                // Two operands, or two words of the kinds without operands.
                let union = larger(2 * self.elem_size as u64, 8);
                let end = round_up(self.operands() + union, self.op_align());
                round_up(end, self.elem_align as u64)
            }
            Dialect::Python => 4,
        }
    }

    /// Where the error text is: right behind the result.
    pub const fn error_offset(&self) -> u64 {
        self.cached_offset() + self.elem_size as u64
    }

    /// Where the `u32` number of computations is; `None` in Python.
    pub const fn count_offset(&self) -> Option<u64> {
        match self.dialect {
            Dialect::Cpp => Some(self.count()),
            Dialect::Python => None,
        }
    }

    /// Bytes of the whole entry.
    pub const fn size(&self) -> u64 {
        match self.dialect {
            Dialect::Cpp => round_up(self.count() + 4, self.op_align()),
            Dialect::Python => self.error_offset() + lazy::ERROR_SIZE,
        }
    }

    /// Of the operation, and so of the whole: it begins with a `u32`.
    const fn op_align(&self) -> u64 {
        larger(self.elem_align as u64, 4)
    }

    const fn kind(&self) -> u64 {
        round_up(4, self.op_align())
    }

    const fn operands(&self) -> u64 {
        round_up(self.kind() + 4, self.op_align())
    }

    const fn count(&self) -> u64 {
        round_up(self.error_offset() + lazy::ERROR_SIZE, 4)
    }
}
