//! The error types. Each message carries what was attempted, what was found and
//! what is allowed, so that a log line is enough.

use alloc::{string::String, vec::Vec};

use thiserror::Error;

use super::{Dtype, FieldType};

/// Why no field can have a type.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeError {
    /// A text of no characters is refused by the reference too.
    #[error("has no room for a character, at least 1 is needed")]
    NoCharacters,
    /// The length word counts bytes, up to four for each character.
    #[error("has room for more than {limit} characters, the limit")]
    TooManyCharacters {
        /// the most characters allowed
        limit: u32,
    },
    /// An annotation cannot say it.
    #[error("has no dimension, at least 1 is needed")]
    NoDimensions,
    /// More than numpy can read back.
    #[error("has {found} dimensions, the limit is {limit}")]
    TooManyDimensions {
        /// as given
        found: usize,
        /// the most dimensions allowed
        limit: usize,
    },
    /// The reference's own product may have wrapped here.
    #[error("takes more than {limit} bytes, the limit")]
    TooLarge {
        /// the most bytes allowed
        limit: u64,
    },
}

/// Why a text is not a field's type (section 3.1).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnnotationError {
    /// Nothing that is known begins like this.
    #[error(
        "the annotation {annotation:?} is unknown; a type is float, int, bool, str[N] or an \
         array such as uint8[480,640,3], of float32, float64, int8 to int64, uint8 to uint64 \
         or bool"
    )]
    Unknown {
        /// as given
        annotation: String,
    },
    /// The text ends within the brackets.
    #[error("the annotation {annotation:?} lacks its closing bracket, as in str[32] or int8[3,4]")]
    Unclosed {
        /// as given
        annotation: String,
    },
    /// A part between brackets or commas is not a number.
    #[error(
        "the annotation {annotation:?} has {found:?} for a number; decimal digits are needed, \
         as in str[32] or int8[3,4]"
    )]
    Number {
        /// as given
        annotation: String,
        /// what stands there
        found: String,
    },
    /// Understood, but there is no such type.
    #[error("the type of the annotation {annotation:?} {source}")]
    Type {
        /// as given
        annotation: String,
        /// what is wrong with it
        source: TypeError,
    },
}

/// Why fields cannot become a [`Schema`](super::Schema).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaError {
    /// A type that no field can have.
    #[error("the type {ty} {source}")]
    Type {
        /// how it prints
        ty: String,
        /// what is wrong with it
        source: TypeError,
    },
    /// As [`Type`](Self::Type), with the field.
    #[error("the type {ty} of field {name:?} {source}")]
    FieldType {
        /// the field
        name: String,
        /// how the type prints
        ty: String,
        /// what is wrong with it
        source: TypeError,
    },
    /// A text that is no type.
    #[error("field {name:?}: {source}")]
    Annotation {
        /// the field
        name: String,
        /// what is wrong with it
        source: AnnotationError,
    },
    /// A part of a schema's text without a colon.
    #[error("{text:?} is no field; a field is a name, a colon and a type, as in count: int")]
    NoColon {
        /// the part
        text: String,
    },
    /// Python could not have such a field.
    #[error(
        "{name:?} is no name of a field; letters, digits and _ make one, and no digit is the first"
    )]
    Name {
        /// as given
        name: String,
    },
    /// Descriptions repeat names, so they must be short.
    #[error("the name {name:?} has {len} bytes, the limit is {limit}")]
    NameTooLong {
        /// as given
        name: String,
        /// its length in bytes
        len: usize,
        /// the limit in bytes
        limit: usize,
    },
    /// Two fields of one name.
    #[error("there are two fields named {name:?}, each name may occur once")]
    Duplicate {
        /// the name
        name: String,
    },
    /// More fields than are counted.
    #[error("there are more than {limit} fields, the limit")]
    TooManyFields {
        /// the most fields allowed
        limit: usize,
    },
}

/// Why a schema and a number of slots cannot become a
/// [`Layout`](super::Layout) or a [`NativeLayout`](super::NativeLayout).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// The reference refuses it too.
    #[error("the number of slots is 0, at least 1 is needed")]
    NoSlots,
    /// One slot alone is too large.
    #[error("a slot of this schema takes more than {limit} bytes, the limit")]
    SlotTooLarge {
        /// the most bytes allowed
        limit: u64,
    },
    /// All slots together are too large.
    #[error("{slots} slots of {slot_size} bytes each take more than {limit} bytes, the limit")]
    TooLarge {
        /// as requested
        slots: u64,
        /// bytes of one
        slot_size: u64,
        /// the most bytes allowed
        limit: u64,
    },
    /// The segment and what native peers add behind it are too large.
    #[error("the object with its trailer takes more than {limit} bytes, the limit")]
    ObjectTooLarge {
        /// the most bytes allowed
        limit: u64,
    },
    /// The schema does not fit the trailer's length word.
    #[error("the text of the schema has {len} bytes, the limit is {limit}")]
    SchemaTooLong {
        /// bytes of the text
        len: u64,
        /// the most bytes allowed
        limit: u64,
    },
    /// No system has such pages.
    #[error("the page size is {found} bytes, a power of two of at least 64 is needed")]
    PageSize {
        /// as given
        found: u64,
    },
}

/// Why a value cannot be written into a field (sections 3.2 to 3.4).
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// Nothing converts this kind into the field's.
    #[error("a field of type {expected} takes no {found} value")]
    WrongType {
        /// the field's type
        expected: FieldType,
        /// the value's kind: float, int, bool, text or array
        found: &'static str,
    },
    /// The right kind, but the field is too narrow.
    #[error("{value} does not fit a field of type {expected}, which holds {min} to {max}")]
    OutOfRange {
        /// the field's type
        expected: FieldType,
        /// the value given
        value: i64,
        /// the smallest value allowed
        min: i64,
        /// the largest value allowed
        max: i64,
    },
    /// An integer for a float field that would change on the way.
    #[error("{value} would be rounded in a field of type float, which holds it not exactly")]
    Rounded {
        /// the value given
        value: i64,
    },
    /// An array's element would change on the way. The reference wraps, rounds
    /// or cuts it without a word.
    #[error("element {index} is {found}, which no {dtype} equals")]
    Inexact {
        /// the element's place in C order
        index: usize,
        /// the element, printed
        found: String,
        /// the elements of the field
        dtype: Dtype,
    },
    /// Bytes or elements that do not make up the shape.
    #[error("{len} bytes are no array of {dtype} of the shape {shape:?}")]
    Shape {
        /// the type of the elements
        dtype: Dtype,
        /// as given
        shape: Vec<usize>,
        /// bytes present
        len: usize,
    },
}

/// What is wrong with an image of a segment, or with what native peers add to
/// it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The object ends before the structure does.
    #[error("the object has {len} bytes, {need} are needed")]
    TooShort {
        /// bytes present
        len: u64,
        /// bytes the structure takes
        need: u64,
    },
    /// Another version of the native extension.
    #[error("the footer's version is {found}, only version 1 is understood")]
    FooterVersion {
        /// the value in the image
        found: u32,
    },
    /// The footer was damaged.
    #[error("the footer's check sum is {found:#010x}, its bytes give {expected:#010x}")]
    FooterCheck {
        /// the value in the image
        found: u32,
        /// what the bytes before it give
        expected: u32,
    },
    /// A flag of the future, or one that does not go with the rest.
    #[error("the footer's flags are {found:#x}; bit 0 alone is known, and only of one slot")]
    FooterFlags {
        /// the value in the image
        found: u32,
    },
    /// Slots, fields and sizes that no segment has.
    #[error("the footer tells of {slots} slots and {fields} fields in {segment_size} bytes")]
    FooterSizes {
        /// the value in the image
        slots: u64,
        /// the value in the image
        fields: u32,
        /// the value in the image
        segment_size: u64,
    },
    /// The trailer begins at the next multiple of 64 behind the segment.
    #[error("the footer's trailer_offset is {found}, behind the segment is {expected}")]
    TrailerOffset {
        /// the value in the image
        found: u64,
        /// where it must be
        expected: u64,
    },
    /// The schema's text in the trailer is not UTF-8.
    #[error("the trailer's schema is not UTF-8 from byte {valid} on")]
    SchemaText {
        /// bytes before the first fault
        valid: usize,
    },
    /// The schema's text in the trailer does not parse.
    #[error("the trailer's schema: {source}")]
    Schema {
        /// what is wrong with it
        source: SchemaError,
    },
    /// A schema whose text or number of fields is not the one of the footer.
    #[error("the schema has the hash {found:#018x}, the footer tells {expected:#018x}")]
    SchemaHash {
        /// of the schema
        found: u64,
        /// the value in the footer
        expected: u64,
    },
    /// The schema in the trailer makes no layout.
    #[error("the trailer's schema and number of slots: {source}")]
    Layout {
        /// what is wrong with them
        source: LayoutError,
    },
    /// The segment was made for other fields.
    #[error("the segment holds {found:?}, wanted was {wanted:?}")]
    SchemaMismatch {
        /// the caller's schema, printed
        wanted: String,
        /// the schema in the trailer, printed
        found: String,
    },
    /// The segment was made for another number of slots.
    #[error("the segment has {found} slots, wanted were {wanted}")]
    SlotsMismatch {
        /// the caller's number
        wanted: u64,
        /// the number in the footer
        found: u64,
    },
}
