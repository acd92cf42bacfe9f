//! Typed items and their two encodings (section 9).

mod decode;
mod encode;
mod error;
#[cfg(feature = "serde")]
mod serde_bridge;
mod value;

pub use decode::{Decoder, decode};
pub use encode::{ItemDialect, encode, encode_refs, encode_refs_into};
pub use error::{DecodeError, EncodeError, UnknownKind};
#[cfg(feature = "serde")]
pub use serde_bridge::{BridgeError, from_items, to_items};
pub use value::{
    Event, FunctionCall, ImageFrame, Item, ItemKind, ItemRef, Scalar, ScalarRef, Value, ValueRef,
    item_value,
};

/// Tags of section 9.2.
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const REAL: u8 = 0x09;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    /// of C++
    pub(super) const SEQUENCE: u8 = 0x30;
    /// of Python, which forgets the bit for "constructed"
    pub(super) const SEQUENCE_PYTHON: u8 = 0x10;
}

/// What stands before the eight bytes of a REAL.
const REAL_IEEE: u8 = 0x03;
