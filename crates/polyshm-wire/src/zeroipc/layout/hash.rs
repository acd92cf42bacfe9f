//! Where a key's search begins (section 4.6).

use super::Dialect;

/// What the reference implementations multiply with: the golden ratio of 2^32.
const FACTOR: u64 = 2_654_435_761;

/// What a key is, as far as hashing and comparing go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum KeyKind {
    /// unsigned integers, booleans
    Unsigned,
    /// signed integers
    Signed,
    /// `f32` and `f64`
    Float,
    /// fixed byte strings and structures, padding included
    Bytes,
}

/// C++'s hash of an integer that was sign- or zero-extended to 64 bits
/// (section 4.6).
///
/// ```
/// use polyshm_wire::zeroipc::hash_integer;
///
/// assert_eq!(hash_integer(1), 2_654_435_761);
/// assert_eq!(hash_integer(i64::cast_unsigned(-1)), 18_446_744_071_055_115_855);
/// ```
pub const fn hash_integer(extended: u64) -> u64 {
    extended.wrapping_mul(FACTOR)
}

/// C++'s hash of any other key: what libstdc++ computes for a string of these
/// bytes (section 4.6). Other standard libraries differ.
///
/// ```
/// use polyshm_wire::zeroipc::hash_bytes;
///
/// assert_eq!(hash_bytes(b"a"), 4_993_892_634_952_068_459);
/// ```
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const SEED: u64 = 0xc70f_6907;
    const fn mix(v: u64) -> u64 {
        v ^ (v >> 47)
    }
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = mix(u64::from_le_bytes(*word).wrapping_mul(M)).wrapping_mul(M);
        hash = (hash ^ word).wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash = (hash ^ extend(tail, false)).wrapping_mul(M);
    }
    mix(mix(hash).wrapping_mul(M))
}

/// Python's hash of a key's bytes, numbers in little-endian order
/// (section 4.6).
///
/// Python folds without a bound and reduces at the end; wrapping at each step
/// gives the same.
pub fn hash_python(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0_u64, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    folded.wrapping_mul(FACTOR)
}

/// The hash of a key as it stands in a slot, all of its bytes. Reduce it with
/// [`MapLayout::home`](super::MapLayout::home).
///
/// ```
/// use polyshm_wire::zeroipc::{Dialect, KeyKind, hash_integer, key_hash};
///
/// let key = (-1_i32).to_le_bytes();
/// let hash = key_hash(Dialect::Cpp, KeyKind::Signed, &key);
/// assert_eq!(hash, hash_integer(u64::MAX));
/// assert_ne!(key_hash(Dialect::Python, KeyKind::Signed, &key), hash);
/// ```
#[inline]
pub fn key_hash(dialect: Dialect, kind: KeyKind, bytes: &[u8]) -> u64 {
    match (dialect, kind) {
        (Dialect::Python, KeyKind::Bytes) => hash_python(trim(bytes)),
        (Dialect::Python, _) => hash_python(bytes),
        (Dialect::Cpp, KeyKind::Unsigned) if bytes.len() <= 8 => hash_integer(extend(bytes, false)),
        (Dialect::Cpp, KeyKind::Signed) if bytes.len() <= 8 => hash_integer(extend(bytes, true)),
        (Dialect::Cpp, _) => hash_bytes(bytes),
    }
}

/// Whether two keys, all of their bytes, are the same key to the reference
/// implementations.
///
/// C++ compares floating-point keys as numbers: a NaN equals nothing, and the
/// two zeros equal each other although they hash differently. Everything else
/// is compared byte by byte.
#[expect(clippy::float_cmp, reason = "the reference compares so")]
#[inline]
pub fn keys_equal(dialect: Dialect, kind: KeyKind, a: &[u8], b: &[u8]) -> bool {
    if dialect == Dialect::Cpp && kind == KeyKind::Float {
        if let (Ok(a), Ok(b)) = (<[u8; 4]>::try_from(a), <[u8; 4]>::try_from(b)) {
            return f32::from_le_bytes(a) == f32::from_le_bytes(b);
        }
        if let (Ok(a), Ok(b)) = (<[u8; 8]>::try_from(a), <[u8; 8]>::try_from(b)) {
            return f64::from_le_bytes(a) == f64::from_le_bytes(b);
        }
    }
    a == b
}

/// At most eight little-endian bytes as a word.
fn extend(bytes: &[u8], signed: bool) -> u64 {
    let negative = signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut word = [if negative { 0xff } else { 0 }; 8];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}

/// Without the NULs at the end, which numpy drops from a byte string.
fn trim(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0);
    end.and_then(|end| bytes.get(..=end)).unwrap_or_default()
}
