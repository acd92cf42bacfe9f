//! What can be an element, and what can be a key.

use polyshm_wire::zeroipc::KeyKind;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A type whose values are plain bytes: every bit pattern is a value, and no
/// byte is padding.
///
/// Implemented for every type with zerocopy's three traits, which can be
/// derived:
///
/// ```
/// use polyshm_zeroipc::{FromBytes, Immutable, IntoBytes};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
/// #[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
/// #[repr(C)]
/// struct Place {
///     lat: f32,
///     lon: f32,
/// }
/// ```
///
/// (Through the facade the path is `polyshm::zeroipc::zerocopy`.) A C++ struct
/// with padding is written with the padding as fields of its own. The alignment
/// is at most 8, which is checked when the program is compiled:
///
/// ```compile_fail
/// use polyshm_zeroipc::{Array, FromBytes, Immutable, IntoBytes, Memory};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
/// #[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
/// #[repr(C, align(16))]
/// struct Wide([u64; 2]);
///
/// fn open(memory: &Memory) {
///     let _ = Array::<Wide>::open(memory, "wide");
/// }
///
/// fn main() {
///     let _: fn(&Memory) = open;
/// }
/// ```
pub trait Element: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static {}

impl<T: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static> Element for T {}

/// An element that a map or a set can look up.
///
/// The ten numeric types, byte strings (`[u8; N]`, padded with NULs), and any
/// other element that a program declares a key: those compare by their bytes.
///
/// ```
/// use polyshm_zeroipc::{FromBytes, Immutable, IntoBytes, Key};
///
/// #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
/// #[zerocopy(crate = "polyshm_zeroipc::zerocopy")]
/// #[repr(C)]
/// struct Cell(i16, i16);
///
/// impl Key for Cell {}
/// ```
pub trait Key: Element {
    /// How the key is hashed and compared (section 4.6).
    const KIND: KeyKind = KeyKind::Bytes;
}

macro_rules! keys {
    ($kind:ident: $($int:ty)*) => {
        $(impl Key for $int { const KIND: KeyKind = KeyKind::$kind; })*
    };
}
keys!(Unsigned: u8 u16 u32 u64);
keys!(Signed: i8 i16 i32 i64);
keys!(Float: f32 f64);
impl<const N: usize> Key for [u8; N] {}

/// A byte string of `N` bytes as a key: NUL-padded; `None` when it is longer.
///
/// ```
/// assert_eq!(polyshm_zeroipc::byte_key::<4>("ab"), Some(*b"ab\0\0"));
/// assert_eq!(polyshm_zeroipc::byte_key::<1>("ab"), None);
/// ```
pub fn byte_key<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut key = [0; N];
    key.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(key)
}

/// Size and alignment of an element, checked when the program is compiled.
pub(crate) const fn shape<T: Element>() -> (u64, u64) {
    const {
        assert!(
            align_of::<T>() <= 8,
            "elements of a ZeroIPC structure are aligned to at most 8 bytes"
        );
        assert!(size_of::<T>() > 0, "elements have at least one byte");
    }
    (size_of::<T>() as u64, align_of::<T>() as u64)
}
