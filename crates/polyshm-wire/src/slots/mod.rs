//! Slots: records of named, typed fields with a status for each, in one slot
//! (the latest value) or in several (a FIFO).
//!
//! The section numbers on this page and on its items are those of
//! `docs/protocols/slots.md`.
//!
//! | bytes | what | section |
//! |---|---|---|
//! | 0..24 | [`Meta`], the indices of a FIFO; a single slot has none | 2 |
//! | then | the slots, one after the other | 2.1 |
//! | behind | what native peers add; others do not look there | 8 |
//!
//! A slot is a sequence word, a status byte for each field, padding to a
//! multiple of 8, the fields without any alignment, padding, and a second
//! sequence word. Nothing in a plain segment tells the fields or the number of
//! slots, so a [`Layout`] is made from what both sides agreed upon: a
//! [`Schema`], spelled as Python annotates a dataclass, and a number.
//!
//! # Who changes what
//!
//! A writer raises the first sequence word, stores fields and status bytes, and
//! raises the second one. While both differ the slot has no value. In a FIFO the
//! writer then moves the indices, and readers move them too.
//!
//! # Values
//!
//! [`encode_value`] and [`decode_value`] turn [`Value`]s into the bytes of a
//! field and back. Typed callers have [`Element`] for arrays, and
//! [`text_prefix`] and [`push_text_lossy`] for text.
//!
//! # Looking at an image
//!
//! [`describe`] copies everything out of an image whose layout is known, and
//! [`describe_native`] out of an object that a native peer made, which says
//! itself what it holds.

mod codec;
mod dtype;
#[cfg(target_endian = "little")]
mod element;
mod error;
mod image;
mod layout;
mod native;
mod schema;
mod status;
mod text;
mod value;

pub use codec::{Decoded, Encoded, decode_value, encode_value};
pub use dtype::Dtype;
#[cfg(target_endian = "little")]
pub use element::Element;
pub use error::{AnnotationError, ImageError, LayoutError, SchemaError, TypeError, ValueError};
pub use image::{
    BufferDescription, ChangesDescription, CursorDescription, Description, FieldDescription,
    MetaDescription, NativeDescription, ReaderDescription, SlotDescription, WriterDescription,
    describe, describe_native,
};
pub use layout::{FieldPlace, Layout, MAX_SEGMENT, META_SIZE, Meta, offset};
pub use native::{
    CURSORS, ChangesHead, CursorLine, FLAG_BUFFERED, FOOTER_MAGIC, FOOTER_SIZE, FOOTER_VERSION,
    Footer, NativeLayout, ReaderLine, WriterLine, read_schema,
};
pub use schema::{
    FieldSpec, FieldType, MAX_CHARS, MAX_DIMENSIONS, MAX_FIELDS, MAX_NAME_LEN, Schema,
};
pub use status::Status;
pub use text::{push_text_lossy, text_prefix};
pub use value::{ArrayValue, Value};
