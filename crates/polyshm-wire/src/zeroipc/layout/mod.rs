//! The structures behind the table (sections 3 to 6).

mod arrays;
mod cells;
mod channels;
mod hash;
mod maps;
mod names;
mod pools;
mod queues;
mod rings;
mod sync;

pub use arrays::{ArrayForm, ArrayLayout};
pub use cells::{
    FutureHeader, FutureLayout, LazyBoolImage, LazyLayout, SignalLayout, future, lazy, lazy_bool,
    signal,
};
pub use channels::{
    ChannelHeader, ChannelSync, SlotLayout, StreamHeader, StreamVoid, channel, stream,
};
pub use hash::{KeyKind, hash_bytes, hash_integer, hash_python, key_hash, keys_equal};
pub use maps::{MapHeader, MapLayout, SetHeader, SetLayout, map, set};
pub use names::{derived, suffix};
pub use pools::{PoolHeader, PoolLayout, pool};
pub use queues::{QueueHeader, QueueLayout, StackHeader, StackLayout, queue, stack};
pub use rings::{RingHeader, RingLayout, ring};
pub use sync::{
    BarrierImage, EventImage, LatchImage, MARKER_SIZE, RwLockImage, SemaphoreImage, barrier, event,
    latch, monitor, once, rwlock, semaphore,
};

use core::fmt;

use super::{ALIGN, ImageError, LayoutError};

/// No Rust object, and so no mapping, may be longer.
pub(super) const MAX_SIZE: u64 = isize::MAX.unsigned_abs() as u64;

/// Which of the two formats that share a name (section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Dialect {
    /// as the C++ implementation lays it out, by the rules of C
    #[default]
    Cpp,
    /// as the Python implementation lays it out, mostly packed
    Python,
}

impl Dialect {
    const fn other(self) -> Self {
        match self {
            Self::Cpp => Self::Python,
            Self::Python => Self::Cpp,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpp => "C++",
            Self::Python => "Python",
        })
    }
}

/// Gives a fixed structure its two ways between fields and bytes.
macro_rules! codec {
    ($type:ident, $size:expr, $structure:literal) => {
        const _: () = assert!(size_of::<$type>() as u64 == $size);

        impl $type {
            /// Copies the fields from the front of a structure's bytes. The
            /// only refusal is [`ImageError::TooShort`]; nothing is judged.
            pub fn read(bytes: &[u8]) -> Result<Self, ImageError> {
                Self::read_from_prefix(bytes)
                    .map(|(fields, _)| fields)
                    .map_err(|_| ImageError::TooShort {
                        structure: $structure,
                        len: bytes.len() as u64,
                        need: $size,
                    })
            }

            /// The bytes as they stand in the structure.
            pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                zerocopy::transmute!(*self)
            }
        }
    };
}
use codec;

/// `n` rounded up to a multiple of `align`. Saturates, so that the result is
/// refused by the comparison that follows and cannot wrap to a small one.
const fn round_up(n: u64, align: u64) -> u64 {
    if align <= 1 {
        return n;
    }
    match n % align {
        0 => n,
        rest => n.saturating_add(align - rest),
    }
}

const fn align8(n: u64) -> u64 {
    round_up(n, ALIGN)
}

const fn larger(a: u64, b: u64) -> u64 {
    if a > b { a } else { b }
}

/// A size as a header stores it.
fn check_elem(capacity: u64, elem_size: u64) -> Result<u32, LayoutError> {
    if elem_size == 0 {
        return Err(LayoutError::ZeroElement);
    }
    u32::try_from(elem_size).map_err(|_| LayoutError::TooLarge {
        capacity,
        elem_size,
        limit: u32::MAX.into(),
    })
}

/// A capacity as a header stores it.
fn check_capacity(capacity: u64, elem_size: u64, limit: u64) -> Result<u32, LayoutError> {
    if capacity == 0 {
        return Err(LayoutError::ZeroCapacity);
    }
    let too_large = LayoutError::TooLarge {
        capacity,
        elem_size,
        limit,
    };
    if capacity > limit {
        return Err(too_large);
    }
    u32::try_from(capacity).map_err(|_| too_large)
}

fn check_align(align: u64) -> Result<u32, LayoutError> {
    match align {
        1 | 2 | 4 | 8 => Ok(align as u32),
        _ => Err(LayoutError::Alignment { align }),
    }
}

/// Refuses a new structure that no machine could address.
fn check_size(capacity: u64, elem_size: u64, size: u64) -> Result<(), LayoutError> {
    if size > MAX_SIZE {
        return Err(LayoutError::TooLarge {
            capacity,
            elem_size,
            limit: MAX_SIZE,
        });
    }
    Ok(())
}

/// Refuses a header that promises more than its entry has.
fn check_entry(structure: &'static str, needed: u64, entry_size: u64) -> Result<(), ImageError> {
    if needed > entry_size || needed > MAX_SIZE {
        return Err(ImageError::Exceeds {
            structure,
            needed,
            entry_size,
        });
    }
    Ok(())
}

/// Refuses an element size that the caller did not expect, or none at all.
fn expect_elem(
    structure: &'static str,
    found: u32,
    expected: Option<u64>,
) -> Result<(), ImageError> {
    if expected == Some(0) {
        return Err(LayoutError::ZeroElement.into());
    }
    match expected {
        Some(expected) if u64::from(found) != expected => Err(ImageError::ElementSize {
            structure,
            found: found.into(),
            expected,
        }),
        None if found == 0 => Err(ImageError::Field {
            structure,
            field: "elem_size",
            found: 0,
            min: 1,
            max: u32::MAX.into(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a value that no correct peer leaves.
fn expect_within(
    structure: &'static str,
    field: &'static str,
    found: i64,
    min: i64,
    max: i64,
) -> Result<(), ImageError> {
    if found < min || found > max {
        return Err(ImageError::Field {
            structure,
            field,
            found,
            min,
            max,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_wishes() {
        use LayoutError as E;
        assert_eq!(QueueLayout::new(0, 4), Err(E::ZeroCapacity));
        assert_eq!(QueueLayout::new(4, 0), Err(E::ZeroElement));
        assert_eq!(RingLayout::new(0, 4), Err(E::ZeroCapacity));
        assert_eq!(RingLayout::from_bytes(0, 4), Err(E::ZeroCapacity));
        assert_eq!(RingLayout::from_bytes(4, 0), Err(E::ZeroElement));
        assert_eq!(RingLayout::from_bytes(1, 4), RingLayout::new(1, 4));
        assert_eq!(ArrayLayout::new(ArrayForm::C, 0, 4), Err(E::ZeroCapacity));
        assert_eq!(ArrayLayout::new(ArrayForm::C, 4, 0), Err(E::ZeroElement));
        assert_eq!(PoolLayout::new(4, 4, 16), Err(E::Alignment { align: 16 }));
        assert_eq!(PoolLayout::new(4, 4, 3), Err(E::Alignment { align: 3 }));
        let size = 9;
        assert_eq!(
            MapLayout::new(Dialect::Cpp, 4, (4, 4), (size, 1)),
            Err(E::ValueTooLarge { size })
        );
        MapLayout::new(Dialect::Python, 4, (4, 4), (size, 1)).unwrap();

        let largest = 1_u64 << 31;
        assert_eq!(QueueLayout::new(largest, 1).unwrap().capacity, 1 << 31);
        for capacity in [largest + 1, u64::MAX] {
            assert!(matches!(
                QueueLayout::new(capacity, 1),
                Err(E::TooLarge { .. })
            ));
            assert!(matches!(
                StackLayout::new(capacity, 1),
                Err(E::TooLarge { .. })
            ));
        }
        assert!(QueueLayout::new(4, 1 << 32).is_err());
        assert!(QueueLayout::new(largest, u32::MAX.into()).is_err());
        assert!(RingLayout::new(1 << 30, 4).is_err());
        assert!(ArrayLayout::new(ArrayForm::Plain, u64::MAX, u64::MAX).is_err());
        let all = u64::from(u32::MAX);
        assert!(MapLayout::new(Dialect::Python, all, (all, 1), (all, 1)).is_err());
        assert!(PoolLayout::new(all, all, 8).is_err());
    }

    /// As C lays out `struct { uint32_t state; K key; V value; }`.
    #[test]
    fn slots_follow_the_rules_of_c() {
        let cpp = |key, value| {
            let layout = MapLayout::new(Dialect::Cpp, 1, key, value).unwrap();
            (layout.key_offset(), layout.value_offset(), layout.stride())
        };
        assert_eq!(cpp((4, 4), (4, 4)), (4, 8, 12));
        assert_eq!(cpp((4, 4), (8, 8)), (4, 8, 16));
        assert_eq!(cpp((8, 8), (8, 8)), (8, 16, 24));
        assert_eq!(cpp((16, 1), (8, 8)), (4, 24, 32));
        assert_eq!(cpp((1, 1), (1, 1)), (4, 5, 8));
        assert_eq!(cpp((8, 8), (1, 1)), (8, 16, 24));
        let python = |key, value| {
            let layout = MapLayout::new(Dialect::Python, 1, key, value).unwrap();
            (layout.key_offset(), layout.value_offset(), layout.stride())
        };
        assert_eq!(python((8, 8), (8, 8)), (4, 12, 24));
        assert_eq!(python((16, 1), (8, 8)), (4, 20, 32));
        assert_eq!(python((1, 1), (1, 1)), (4, 5, 8));
    }

    #[test]
    fn dialects_are_told_apart_where_they_differ() {
        let read = |dialect, entry_size| {
            let header = MapLayout::new(dialect, 8, (4, 4), (4, 4)).unwrap().header();
            MapLayout::read(&header.to_bytes(), entry_size, dialect, (4, 4), (4, 4))
        };
        let error = ImageError::Dialect {
            structure: "map",
            found: Dialect::Python,
            expected: Dialect::Cpp,
        };
        assert_eq!(read(Dialect::Cpp, 144), Err(error));
        // Too small for Python, and exactly right for C++.
        let error = read(Dialect::Python, 112).unwrap_err();
        assert!(error.is_mismatch(), "{error}");
        // Neither: an entry with room to spare is not refused.
        read(Dialect::Cpp, 120).unwrap();
    }

    #[test]
    fn positions_that_no_ring_has() {
        let ring = RingLayout::new(4, 4).unwrap();
        assert_eq!(ring.used(16, 0), Ok(16));
        assert_eq!(ring.used(8, u64::MAX - 7), Ok(16));
        for (write, read) in [(20, 0), (0, 4), (2, 0), (u64::MAX, 0)] {
            assert!(matches!(
                ring.used(write, read),
                Err(ImageError::Positions { .. })
            ));
        }
    }

    #[test]
    fn limits_of_the_words() {
        let mut semaphore = SemaphoreImage::new(5, 5);
        semaphore.waiting.set(-4); // left by races between Python peers
        semaphore.check().unwrap();
        for (count, max) in [(-1, 0), (6, 5), (0, -1)] {
            assert!(SemaphoreImage::new(count, max).check().is_err());
        }
        SemaphoreImage::new(i32::MAX, 0).check().unwrap();
        let mut barrier = BarrierImage::new(3);
        for (arrived, fits) in [(-1, false), (0, true), (3, true), (4, false)] {
            barrier.arrived.set(arrived);
            assert_eq!(barrier.check().is_ok(), fits, "{arrived}");
        }
        assert!(BarrierImage::new(0).check().is_err());
        assert!(LatchImage::new(-1).check().is_err());
        let mut latch = LatchImage::new(2);
        latch.count.set(3);
        assert!(latch.check().is_err());
        assert!(EventImage::new(2).check().is_err());
        let mut lock = RwLockImage::new();
        lock.readers.set(-1);
        assert!(lock.check().is_err());
    }

    #[test]
    fn lazy_values_follow_the_rules_of_c() {
        let offsets = |size, align| {
            let lazy = LazyLayout::new(Dialect::Cpp, size, align).unwrap();
            (
                lazy.kind_offset().unwrap(),
                lazy.operands_offset().unwrap(),
                lazy.cached_offset(),
                lazy.error_offset(),
                lazy.count_offset().unwrap(),
                lazy.size(),
            )
        };
        assert_eq!(offsets(4, 4), (4, 8, 16, 20, 276, 280));
        assert_eq!(offsets(8, 8), (8, 16, 32, 40, 296, 304));
        assert_eq!(offsets(1, 1), (4, 8, 16, 17, 276, 280));
    }

    #[test]
    fn slots_of_channels() {
        let slot = |size, align| {
            let slot = SlotLayout::new(size, align).unwrap();
            (slot.data_offset(), slot.size())
        };
        assert_eq!(slot(4, 4), (4, 8));
        assert_eq!(slot(8, 8), (8, 16));
        assert_eq!(slot(1, 1), (2, 3));
    }

    #[test]
    fn keys_compare_as_the_reference_does() {
        let float = |a: f64, b: f64| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            keys_equal(Dialect::Cpp, KeyKind::Float, &a, &b)
        };
        assert!(float(0.0, -0.0) && !float(f64::NAN, f64::NAN) && float(1.5, 1.5));
        let hash = |value: f32| key_hash(Dialect::Cpp, KeyKind::Float, &value.to_le_bytes());
        assert_ne!(hash(0.0), hash(-0.0));
        assert!(!keys_equal(Dialect::Cpp, KeyKind::Bytes, b"a", b"a\0"));
        // Numbers of a width that no number has are bytes.
        assert_eq!(
            key_hash(Dialect::Cpp, KeyKind::Signed, &[1; 16]),
            hash_bytes(&[1; 16])
        );
        assert_eq!(
            key_hash(Dialect::Python, KeyKind::Bytes, b"a\0\0"),
            hash_python(b"a")
        );
    }
}
