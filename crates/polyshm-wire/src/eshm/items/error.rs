//! Why items cannot become a message, or a message items.

use alloc::string::String;
use core::str::Utf8Error;

use thiserror::Error;

use super::ItemKind;

/// A number that is no [`ItemKind`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{found} is no type of an item, 0 to 7 are")]
pub struct UnknownKind {
    /// as given
    pub found: u8,
}

/// Why items cannot be encoded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The pure Python reader knows scalars only.
    #[error(
        "the value of the item {key:?} is of kind {kind}, which the Python dialect cannot carry; \
         encode it in the native dialect or leave it out"
    )]
    Kind {
        /// the item's key, with anything that is not UTF-8 replaced
        key: String,
        /// what its value is
        kind: ItemKind,
    },
    /// A length has 32 bits.
    #[error("the items take {len} bytes as a message, the limit is {limit}; send them in parts")]
    TooLong {
        /// bytes behind the message's first length; `u64::MAX` stands for more
        len: u64,
        /// the largest value allowed
        limit: u64,
    },
}

/// Why a message cannot be decoded.
///
/// Offsets count bytes from the start of the message, but in
/// [`Text`](Self::Text). An `element` is named after what it stands for, as in
/// section 9.1, with its ASN.1 name behind it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The message, or the sequence around the element, ends too early.
    #[error(
        "the {element} ends early: it needs {needed} more bytes at byte {offset}, {available} are left to it"
    )]
    Truncated {
        /// what was read
        element: &'static str,
        /// where the bytes should be
        offset: usize,
        /// bytes the element takes from there
        needed: u64,
        /// bytes before the end of its sequence
        available: u64,
    },
    /// Something else stands where an element was expected.
    #[error("the {element} at byte {offset} has tag {found:#04x}, allowed: {allowed}")]
    Tag {
        /// what was read
        element: &'static str,
        /// where its tag is
        offset: usize,
        /// the tag in the message
        found: u8,
        /// the tags allowed
        allowed: &'static str,
    },
    /// Two encoders do not share a message.
    #[error(
        "the {element} at byte {offset} has tag {found:#04x}, the message began with {first:#04x}"
    )]
    MixedTags {
        /// what was read
        element: &'static str,
        /// where its tag is
        offset: usize,
        /// the tag in the message
        found: u8,
        /// the tag of the outer sequence
        first: u8,
    },
    /// A length of more than four bytes, or of none.
    #[error(
        "the length of the {element} at byte {offset} begins with {found:#04x}, \
         allowed: 0x00 to 0x7f, 0x81 to 0x84"
    )]
    LengthForm {
        /// what was read
        element: &'static str,
        /// where its length is
        offset: usize,
        /// the first byte of the length
        found: u8,
    },
    /// A length that this element cannot have.
    #[error("the {element} at byte {offset} has a length of {found}, allowed: {allowed}")]
    Length {
        /// what was read
        element: &'static str,
        /// where its content begins
        offset: usize,
        /// the length in the message
        found: u64,
        /// the lengths allowed
        allowed: &'static str,
    },
    /// Python sends integers of any size.
    #[error("the {element} at byte {offset} has {len} bytes and does not fit 64 bits")]
    IntegerRange {
        /// what was read
        element: &'static str,
        /// where its content begins
        offset: usize,
        /// its length in bytes
        len: u64,
    },
    /// Not the one form of a real number that both encoders write.
    #[error("the {element} at byte {offset} begins with {found:#04x}, allowed: 0x03")]
    RealForm {
        /// what was read
        element: &'static str,
        /// where its content begins
        offset: usize,
        /// the first byte of the content
        found: u8,
    },
    /// A size of an image that C++ would cut to 32 bits.
    #[error("the {element} at byte {offset} is {found}, allowed: 0 to 4294967295")]
    ImageSize {
        /// what was read
        element: &'static str,
        /// where its tag is
        offset: usize,
        /// the value in the message
        found: i64,
    },
    /// A type without a meaning.
    #[error("the type at byte {offset} is {found}, allowed: 0 to 7")]
    Kind {
        /// where its tag is
        offset: usize,
        /// the value in the message
        found: i64,
    },
    /// Every item has one type and one key.
    #[error("the types are {types} and the keys {keys}, they must be as many")]
    Counts {
        /// elements of the first inner sequence
        types: usize,
        /// elements of the second inner sequence
        keys: usize,
    },
    /// A sequence goes on after its last element.
    #[error("the {element} should end at byte {offset}, {left} bytes are left in it")]
    Unconsumed {
        /// the sequence
        element: &'static str,
        /// behind its last element
        offset: usize,
        /// bytes before its end
        left: usize,
    },
    /// The message goes on after the outer sequence.
    #[error(
        "the message ends at byte {offset}, {left} bytes follow it; a lenient decoder ignores them"
    )]
    Trailing {
        /// behind the outer sequence
        offset: usize,
        /// bytes before the end
        left: usize,
    },
    /// Text that is not UTF-8. [`decode_refs`](super::Decoder::decode_refs)
    /// gives such text as bytes.
    #[error(
        "the {element} of the item {key:?} is not UTF-8 from its byte {offset} on; \
         decode_refs gives it as bytes"
    )]
    Text {
        /// what is text
        element: &'static str,
        /// the item's key, with anything that is not UTF-8 replaced
        key: String,
        /// bytes of the text that are UTF-8
        offset: usize,
        /// what is wrong with it
        source: Utf8Error,
    },
}
