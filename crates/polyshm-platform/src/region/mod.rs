//! `Region`: the one type through which mapped bytes are touched.
//!
//! Handles are checked once, when they are made. Bytes that a peer may be
//! changing are copied, never borrowed; [`Bytes::lend`] is the exception and
//! its caller proves exclusivity.

#[cfg(not(loom))]
mod copy;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod real;

#[cfg(loom)]
pub use model::{
    Bytes, LentBytes, LentBytesMut, Region, Row, Rows, Word8, Word32, Word64, WordRef32, WordRef64,
    Words32, Words64,
};
#[cfg(not(loom))]
pub use real::{
    Bytes, LentBytes, LentBytesMut, Region, Row, Rows, Word8, Word32, Word64, WordRef32, WordRef64,
    Words32, Words64,
};

/// A byte range that does not lie inside its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "bytes {offset}..{offset}+{len} lie outside the {limit} bytes there are: the peer's numbers are damaged, or the segment is of another layout"
)]
pub struct OutOfRange {
    /// Where the range starts.
    pub offset: usize,
    /// How long it is.
    pub len: usize,
    /// How many bytes there are.
    pub limit: usize,
}

/// A place where no atomic word can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWord {
    /// Not inside the region.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Not a multiple of the word's size.
    #[error("offset {offset} is not a multiple of {size}, as an atomic word must be")]
    Misaligned {
        /// The offset asked for.
        offset: usize,
        /// The word's size.
        size: usize,
    },
    /// The region was mapped read-only, and words can be stored to.
    #[error("the region is mapped read-only: open the segment for writing")]
    ReadOnly,
}

/// Checks a row of aligned words of `size` bytes, one at each `stride` bytes.
const fn check_words(
    offset: usize,
    stride: usize,
    count: usize,
    size: usize,
    limit: usize,
) -> Result<(), InvalidWord> {
    if !stride.is_multiple_of(size) || stride == 0 {
        return Err(InvalidWord::Misaligned {
            offset: stride,
            size,
        });
    }
    let Some(last) = count.checked_sub(1) else {
        return Ok(());
    };
    if let Err(first) = check_word(offset, size, limit) {
        return Err(first);
    }
    let end = match last.checked_mul(stride) {
        Some(span) => span.checked_add(offset),
        None => None,
    };
    match end {
        Some(at) => check_word(at, size, limit),
        None => Err(InvalidWord::OutOfRange(OutOfRange {
            offset,
            len: usize::MAX,
            limit,
        })),
    }
}

/// Checks that `offset..offset + len` lies within `limit`.
#[inline]
const fn check_range(offset: usize, len: usize, limit: usize) -> Result<(), OutOfRange> {
    // Written so that no sum can wrap.
    if offset <= limit && len <= limit - offset {
        Ok(())
    } else {
        Err(OutOfRange { offset, len, limit })
    }
}

/// Checks that an aligned word of `size` bytes fits at `offset`.
const fn check_word(offset: usize, size: usize, limit: usize) -> Result<(), InvalidWord> {
    if let Err(range) = check_range(offset, size, limit) {
        return Err(InvalidWord::OutOfRange(range));
    }
    if !offset.is_multiple_of(size) {
        return Err(InvalidWord::Misaligned { offset, size });
    }
    Ok(())
}
