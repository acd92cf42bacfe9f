//! Element types that are only known at run time (section 3).

use alloc::{borrow::ToOwned, boxed::Box, collections::BTreeSet, format, string::String, vec::Vec};
use core::{fmt, str::FromStr};

use thiserror::Error;

use super::KeyKind;

/// Largest element in bytes.
const MAX_SIZE: u64 = 1 << 24;

/// Deepest nesting of structures.
const MAX_DEPTH: u32 = 16;

/// An element type, as numpy names it: a number, a `bool`, a byte string of
/// fixed length, or a structure of such fields. Little-endian always.
///
/// | text | type |
/// |---|---|
/// | `int8` to `int64`, `i1` to `i8` | signed integer |
/// | `uint8` to `uint64`, `u1` to `u8` | unsigned integer |
/// | `float32`, `float64`, `f4`, `f8` | floating point |
/// | `bool`, `b1`, `?` | one byte; not 0 is true |
/// | `S16` | 16 bytes, padded with NULs |
/// | `[('lat', 'f4'), ('lon', 'f4')]` | structure without padding, as numpy's default |
/// | `align([('a', 'u1'), ('b', 'f8')])` | structure with the padding of C, as numpy's `align=True` |
///
/// The byte orders `<`, `=` and `|` may stand before a code; `>` only where
/// there is one byte. As in numpy, `align` includes the structures inside;
/// `pack` takes one out again.
///
/// ```
/// use polyshm_wire::zeroipc::{DType, Value};
///
/// let point: DType = "[('lat', '<f4'), ('lon', '<f4'), ('id', 'S4')]".parse()?;
/// assert_eq!((point.size(), point.align()), (12, 1));
///
/// let mut bytes = [0; 12];
/// let value = Value::from(vec![1.5.into(), (-2).into(), "ab".into()]);
/// point.encode(&value, &mut bytes)?;
/// assert_eq!(bytes[8..], *b"ab\0\0");
/// let seen = point.decode(&bytes)?;
/// assert_eq!(seen, vec![1.5.into(), (-2.0).into(), "ab".into()].into());
///
/// // The layout of `struct { uint8_t a; double b; int16_t c; }`
/// let mixed = DType::parse("align([('a', 'u1'), ('b', 'f8'), ('c', 'i2')])")?;
/// assert_eq!((mixed.size(), mixed.align()), (24, 8));
/// # Ok::<(), polyshm_wire::zeroipc::DTypeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// one byte, stored as 0 or 1
    Bool,
    /// `i8`
    Int8,
    /// `i16`
    Int16,
    /// `i32`
    Int32,
    /// `i64`
    Int64,
    /// `u8`
    UInt8,
    /// `u16`
    UInt16,
    /// `u32`
    UInt32,
    /// `u64`
    UInt64,
    /// `f32`
    Float32,
    /// `f64`
    Float64,
    /// so many bytes, padded with NULs
    ByteString(u32),
    /// fields at fixed offsets
    Struct(StructType),
}

/// The fields of a [`DType::Struct`], checked: at least one, each with a name
/// of its own, within the limits of size and nesting.
///
/// ```
/// use polyshm_wire::zeroipc::{DType, StructType};
///
/// let fields = [("a", DType::UInt8), ("b", DType::Float64)];
/// assert_eq!(StructType::packed(fields.clone())?.size(), 9);
/// let aligned = StructType::aligned(fields)?;
/// assert_eq!(aligned.size(), 16);
/// assert_eq!(aligned.fields()[1].offset(), 8);
/// # Ok::<(), polyshm_wire::zeroipc::DTypeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StructType {
    /// never empty; offsets rise
    fields: Vec<Field>,
    /// bytes; in `1..=MAX_SIZE`
    size: u32,
    /// 1 when packed, else the largest of the fields
    align: u8,
    aligned: bool,
    /// structures inside each other, this one included; in `1..=MAX_DEPTH`
    depth: u32,
    /// some byte belongs to no field
    padded: bool,
}

/// One field of a [`StructType`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    name: String,
    dtype: DType,
    offset: u32,
}

/// A decoded element.
///
/// ```
/// use polyshm_wire::zeroipc::Value;
///
/// assert_eq!(Value::from(7_u8).as_i64(), Some(7));
/// assert_eq!(Value::from(-1).as_u64(), None);
/// assert_eq!(Value::from("key").as_bytes(), Some(&b"key"[..]));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Value {
    /// of a `bool`
    Bool(bool),
    /// of a signed integer
    Int(i64),
    /// of an unsigned integer
    UInt(u64),
    /// of a floating-point number; an `f32` is widened exactly
    Float(f64),
    /// of a byte string, without the NULs at its end
    Bytes(Vec<u8>),
    /// of a structure: its fields in order
    Struct(Vec<Value>),
}

/// Why a text is no element type, or why a value and an element do not fit each
/// other.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DTypeError {
    /// Neither a number nor a byte string that the table in [`DType`] has.
    #[error("{text:?} is not an element type")]
    Unknown {
        /// as given
        text: String,
    },
    /// Nothing in a segment says that it is big-endian.
    #[error("{text:?} is big-endian, only little-endian is supported")]
    ByteOrder {
        /// as given
        text: String,
    },
    /// The text of a structure breaks off or goes on in another way.
    #[error("{expected} expected at byte {at} of the element type")]
    Syntax {
        /// in the text
        at: usize,
        /// what would have fitted
        expected: &'static str,
    },
    /// A third item in a field's parentheses.
    #[error("the field {field:?} is an array, which is not supported; use one field per element")]
    SubArray {
        /// its name
        field: String,
    },
    /// Two fields of one structure with the same name.
    #[error("the field {field:?} is there twice")]
    Duplicate {
        /// its name
        field: String,
    },
    /// Empty, or with characters that the notation cannot quote.
    #[error(
        "the field name {field:?} is empty or contains a quote, a backslash or a control character"
    )]
    FieldName {
        /// as given
        field: String,
    },
    /// A structure without a field.
    #[error("the structure has no field")]
    NoField,
    /// No element of any use is larger.
    #[error("the element type has {size} bytes, it must have 1 to {limit}")]
    Size {
        /// bytes; `u64::MAX` when it cannot be expressed
        size: u64,
        /// the largest
        limit: u64,
    },
    /// Structures within structures within structures.
    #[error("the structure is nested too deeply, the limit is {limit}")]
    TooDeep {
        /// structures inside each other
        limit: u32,
    },
    /// The bytes given are not one element.
    #[error("{found} bytes were given, the element has {expected}")]
    Length {
        /// bytes given
        found: usize,
        /// bytes of the element
        expected: usize,
    },
    /// A text for a number, a number for a structure, and so on.
    #[error("a {value} cannot be stored as {dtype}")]
    Mismatch {
        /// what was given
        value: &'static str,
        /// what the element is
        dtype: String,
    },
    /// The number exists, but not in this type.
    #[error("{value} is out of range for {dtype}")]
    OutOfRange {
        /// as given
        value: String,
        /// what the element is
        dtype: String,
    },
    /// More bytes than the byte string has.
    #[error("the byte string has {len} bytes, the limit is {limit}")]
    TooLong {
        /// as given
        len: usize,
        /// of the type
        limit: usize,
    },
    /// A structure's values are matched by position.
    #[error("{found} values were given, the structure has {expected} fields")]
    FieldCount {
        /// values given
        found: usize,
        /// fields
        expected: usize,
    },
    /// What went wrong with a field of a structure.
    #[error("field {field:?}: {source}")]
    Field {
        /// its name
        field: String,
        /// what is wrong
        source: Box<DTypeError>,
    },
}

/// A Rust type that is a [`DType`] as it is: the numbers and `bool`.
pub trait Typed {
    /// the element type with the same bytes
    const DTYPE: DType;
}

macro_rules! typed {
    ($($type:ty => $variant:ident, $value:ident as $wide:ty;)*) => {$(
        impl Typed for $type {
            const DTYPE: DType = DType::$variant;
        }

        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$value(<$wide>::from(value))
            }
        }
    )*};
}

typed! {
    bool => Bool, Bool as bool;
    i8 => Int8, Int as i64;
    i16 => Int16, Int as i64;
    i32 => Int32, Int as i64;
    i64 => Int64, Int as i64;
    u8 => UInt8, UInt as u64;
    u16 => UInt16, UInt as u64;
    u32 => UInt32, UInt as u64;
    u64 => UInt64, UInt as u64;
    f32 => Float32, Float as f64;
    f64 => Float64, Float as f64;
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<Value>> for Value {
    fn from(fields: Vec<Value>) -> Self {
        Self::Struct(fields)
    }
}

impl Value {
    /// Any number, rounded where `f64` has not enough digits.
    pub const fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Int(value) => Some(value as f64),
            Self::UInt(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    /// An integer that fits.
    pub fn as_i64(&self) -> Option<i64> {
        match *self {
            Self::Int(value) => Some(value),
            Self::UInt(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// An integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Int(value) => value.try_into().ok(),
            Self::UInt(value) => Some(value),
            _ => None,
        }
    }

    /// A `bool`.
    pub const fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A byte string, without the NULs at its end if it was decoded.
    pub const fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes.as_slice()),
            _ => None,
        }
    }

    /// The fields of a structure, in order.
    pub const fn as_fields(&self) -> Option<&[Self]> {
        match self {
            Self::Struct(fields) => Some(fields.as_slice()),
            _ => None,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::UInt(_) => "integer",
            Self::Float(_) => "floating-point number",
            Self::Bytes(_) => "byte string",
            Self::Struct(_) => "structure",
        }
    }

    fn integer(&self) -> Option<i128> {
        match *self {
            Self::Bool(value) => Some(value.into()),
            Self::Int(value) => Some(value.into()),
            Self::UInt(value) => Some(value.into()),
            _ => None,
        }
    }
}

impl Field {
    /// As in the text, without quotes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the field holds.
    pub const fn dtype(&self) -> &DType {
        &self.dtype
    }

    /// In bytes, from the start of the structure.
    pub const fn offset(&self) -> u32 {
        self.offset
    }

    /// Where in an element the field is; cannot overflow, by the limit of size.
    fn range(&self) -> core::ops::Range<usize> {
        let start = self.offset as usize;
        start..start.saturating_add(self.dtype.size())
    }
}

impl StructType {
    /// Fields one directly after another, as numpy's default.
    pub fn packed<N: Into<String>>(
        fields: impl IntoIterator<Item = (N, DType)>,
    ) -> Result<Self, DTypeError> {
        Self::new(fields.into_iter().map(named).collect(), false)
    }

    /// Fields where a C compiler puts them, as numpy's `align=True`.
    pub fn aligned<N: Into<String>>(
        fields: impl IntoIterator<Item = (N, DType)>,
    ) -> Result<Self, DTypeError> {
        Self::new(fields.into_iter().map(named).collect(), true)
    }

    fn new(members: Vec<(String, DType)>, aligned: bool) -> Result<Self, DTypeError> {
        if members.is_empty() {
            return Err(DTypeError::NoField);
        }
        let mut names = BTreeSet::new();
        for (name, _) in &members {
            let unfit = |c: char| matches!(c, '\'' | '"' | '\\') || c.is_control();
            if name.is_empty() || name.contains(unfit) {
                return Err(DTypeError::FieldName {
                    field: name.clone(),
                });
            }
            if !names.insert(name.as_str()) {
                return Err(DTypeError::Duplicate {
                    field: name.clone(),
                });
            }
        }
        drop(names);

        let mut fields = Vec::with_capacity(members.len());
        let (mut end, mut align, mut depth, mut padded) = (0_u64, 1_usize, 1, false);
        for (name, dtype) in members {
            let size = checked_size(&dtype)?;
            if aligned {
                align = align.max(dtype.align());
                let start = end.next_multiple_of(dtype.align() as u64);
                padded |= start != end;
                end = start;
            }
            depth = depth.max(dtype.depth() + 1);
            padded |= matches!(&dtype, DType::Struct(inner) if inner.padded);
            let offset = small(end)?;
            end += size;
            small(end)?;
            fields.push(Field {
                name,
                dtype,
                offset,
            });
        }
        if depth > MAX_DEPTH {
            return Err(DTypeError::TooDeep { limit: MAX_DEPTH });
        }
        let size = end.next_multiple_of(align as u64);
        Ok(Self {
            fields,
            size: small(size)?,
            align: align as u8,
            aligned,
            depth,
            padded: padded || size != end,
        })
    }

    /// In order; never empty.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Bytes of the whole structure, padding included.
    pub const fn size(&self) -> usize {
        self.size as usize
    }

    /// Whether the fields follow one another without padding by rule.
    pub const fn is_packed(&self) -> bool {
        !self.aligned
    }

    /// Prints the structure inside another whose rule is `aligned`.
    fn print(&self, f: &mut fmt::Formatter<'_>, aligned: bool) -> fmt::Result {
        let (before, after) = match (aligned, self.aligned) {
            (false, true) => ("align([", "])"),
            (true, false) => ("pack([", "])"),
            _ => ("[", "]"),
        };
        f.write_str(before)?;
        for (index, field) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}('{}', ", field.name)?;
            match &field.dtype {
                DType::Struct(inner) => inner.print(f, self.aligned)?,
                scalar => write!(f, "'{scalar}'")?,
            }
            f.write_str(")")?;
        }
        f.write_str(after)
    }
}

impl DType {
    /// Reads the notation in the table above.
    pub fn parse(text: &str) -> Result<Self, DTypeError> {
        Parser::parse(text, false)
    }

    /// As [`parse`](Self::parse), as if `align(..)` stood around the text:
    /// numpy's `align=True`.
    pub fn parse_aligned(text: &str) -> Result<Self, DTypeError> {
        Parser::parse(text, true)
    }

    /// The element type of a Rust number.
    pub const fn of<T: Typed>() -> Self {
        T::DTYPE
    }

    /// Bytes of one element.
    pub const fn size(&self) -> usize {
        match self {
            Self::Bool | Self::Int8 | Self::UInt8 => 1,
            Self::Int16 | Self::UInt16 => 2,
            Self::Int32 | Self::UInt32 | Self::Float32 => 4,
            Self::Int64 | Self::UInt64 | Self::Float64 => 8,
            Self::ByteString(size) => *size as usize,
            Self::Struct(inner) => inner.size(),
        }
    }

    /// Of the same type in C, in bytes: 1, 2, 4 or 8; 1 for a packed structure.
    pub const fn align(&self) -> usize {
        match self {
            Self::ByteString(_) => 1,
            Self::Struct(inner) => inner.align as usize,
            number => number.size(),
        }
    }

    /// The fields of a structure; none for anything else.
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Struct(inner) => inner.fields(),
            _ => &[],
        }
    }

    /// Whether this is a structure without padding by rule.
    pub const fn is_packed(&self) -> bool {
        matches!(self, Self::Struct(inner) if inner.is_packed())
    }

    /// How a map hashes and compares such keys; `None` for a structure with
    /// padding, since what is in the padding would decide.
    pub const fn key_kind(&self) -> Option<KeyKind> {
        match self {
            Self::Bool | Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64 => {
                Some(KeyKind::Unsigned)
            }
            Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64 => Some(KeyKind::Signed),
            Self::Float32 | Self::Float64 => Some(KeyKind::Float),
            Self::Struct(inner) if inner.padded => None,
            Self::ByteString(_) | Self::Struct(_) => Some(KeyKind::Bytes),
        }
    }

    /// Stores a value as one element, which `into` must be exactly.
    ///
    /// Nothing is cut: an integer must be in range, an `f32` must not become
    /// infinite (digits may get lost), a byte string must fit. Integers are
    /// fine for floating-point types, and 0 and 1 for `bool`. A structure takes
    /// its fields by position, and its padding is zeroed. After an error the
    /// bytes of `into` may be anything.
    pub fn encode(&self, value: &Value, into: &mut [u8]) -> Result<(), DTypeError> {
        self.check_len(into.len())?;
        match self {
            Self::Float32 => {
                let wide = self.float(value)?;
                let narrow = wide as f32;
                if narrow.is_infinite() && wide.is_finite() {
                    return Err(self.out_of_range(format!("{wide:e}")));
                }
                into.copy_from_slice(&narrow.to_le_bytes());
            }
            Self::Float64 => into.copy_from_slice(&self.float(value)?.to_le_bytes()),
            Self::ByteString(_) => {
                let bytes = value.as_bytes().ok_or_else(|| self.mismatch(value))?;
                let too_long = DTypeError::TooLong {
                    len: bytes.len(),
                    limit: into.len(),
                };
                into.fill(0);
                let start = into.get_mut(..bytes.len()).ok_or(too_long)?;
                start.copy_from_slice(bytes);
            }
            Self::Struct(inner) => {
                let values = value.as_fields().ok_or_else(|| self.mismatch(value))?;
                if values.len() != inner.fields.len() {
                    return Err(DTypeError::FieldCount {
                        found: values.len(),
                        expected: inner.fields.len(),
                    });
                }
                into.fill(0);
                for (field, value) in inner.fields.iter().zip(values) {
                    let bytes = into.get_mut(field.range()).unwrap_or_default();
                    let result = field.dtype.encode(value, bytes);
                    result.map_err(|source| in_field(&field.name, source))?;
                }
            }
            // bool and the integers
            _ => {
                let value = match value.integer() {
                    Some(value) if self.range().contains(&value) => value,
                    Some(value) => return Err(self.out_of_range(format!("{value}"))),
                    None => return Err(self.mismatch(value)),
                };
                // In range, so the low bytes are the whole value.
                for (to, from) in into.iter_mut().zip(value.to_le_bytes()) {
                    *to = from;
                }
            }
        }
        Ok(())
    }

    /// Reads one element, which `bytes` must be exactly. A byte string loses the
    /// NULs at its end, and every `bool` but 0 is true.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, DTypeError> {
        self.check_len(bytes.len())?;
        let unsigned = || {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(bytes) {
                *to = *from;
            }
            u64::from_le_bytes(word)
        };
        Ok(match self {
            Self::Bool => Value::Bool(unsigned() != 0),
            Self::UInt8 | Self::UInt16 | Self::UInt32 | Self::UInt64 => Value::UInt(unsigned()),
            Self::Int8 => Value::Int((unsigned() as i8).into()),
            Self::Int16 => Value::Int((unsigned() as i16).into()),
            Self::Int32 => Value::Int((unsigned() as i32).into()),
            Self::Int64 => Value::Int(unsigned().cast_signed()),
            Self::Float32 => Value::Float(f32::from_bits(unsigned() as u32).into()),
            Self::Float64 => Value::Float(f64::from_bits(unsigned())),
            Self::ByteString(_) => {
                let end = bytes.iter().rposition(|byte| *byte != 0);
                let text = end.and_then(|end| bytes.get(..=end)).unwrap_or_default();
                Value::Bytes(text.to_vec())
            }
            Self::Struct(inner) => {
                let mut values = Vec::with_capacity(inner.fields.len());
                for field in &inner.fields {
                    let bytes = bytes.get(field.range()).unwrap_or_default();
                    let result = field.dtype.decode(bytes);
                    values.push(result.map_err(|source| in_field(&field.name, source))?);
                }
                Value::Struct(values)
            }
        })
    }

    /// Structures inside each other; 0 for anything else.
    const fn depth(&self) -> u32 {
        match self {
            Self::Struct(inner) => inner.depth,
            _ => 0,
        }
    }

    /// The integers that the type holds.
    const fn range(&self) -> core::ops::RangeInclusive<i128> {
        match self {
            Self::Bool => 0..=1,
            Self::Int8 => i8::MIN as i128..=i8::MAX as i128,
            Self::Int16 => i16::MIN as i128..=i16::MAX as i128,
            Self::Int32 => i32::MIN as i128..=i32::MAX as i128,
            Self::Int64 => i64::MIN as i128..=i64::MAX as i128,
            Self::UInt8 => 0..=u8::MAX as i128,
            Self::UInt16 => 0..=u16::MAX as i128,
            Self::UInt32 => 0..=u32::MAX as i128,
            Self::UInt64 => 0..=u64::MAX as i128,
            // No integer is stored as one.
            _ => core::ops::RangeInclusive::new(1, 0),
        }
    }

    fn float(&self, value: &Value) -> Result<f64, DTypeError> {
        value.as_f64().ok_or_else(|| self.mismatch(value))
    }

    fn check_len(&self, found: usize) -> Result<(), DTypeError> {
        let expected = self.size();
        if found == expected {
            return Ok(());
        }
        Err(DTypeError::Length { found, expected })
    }

    fn mismatch(&self, value: &Value) -> DTypeError {
        DTypeError::Mismatch {
            value: value.kind(),
            dtype: format!("{self}"),
        }
    }

    fn out_of_range(&self, value: String) -> DTypeError {
        DTypeError::OutOfRange {
            value,
            dtype: format!("{self}"),
        }
    }
}

impl FromStr for DType {
    type Err = DTypeError;

    fn from_str(text: &str) -> Result<Self, DTypeError> {
        Self::parse(text)
    }
}

/// What [`DType::parse`] takes.
impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Bool => "bool",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::UInt8 => "uint8",
            Self::UInt16 => "uint16",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::ByteString(size) => return write!(f, "S{size}"),
            Self::Struct(inner) => return inner.print(f, false),
        };
        f.pad(name)
    }
}

fn named<N: Into<String>>((name, dtype): (N, DType)) -> (String, DType) {
    (name.into(), dtype)
}

fn in_field(name: &str, source: DTypeError) -> DTypeError {
    DTypeError::Field {
        field: name.to_owned(),
        source: Box::new(source),
    }
}

/// Refuses what nobody can store; also a byte string that was made by hand.
fn checked_size(dtype: &DType) -> Result<u64, DTypeError> {
    let size = dtype.size() as u64;
    if size == 0 || size > MAX_SIZE {
        return Err(DTypeError::Size {
            size,
            limit: MAX_SIZE,
        });
    }
    Ok(size)
}

fn small(size: u64) -> Result<u32, DTypeError> {
    match u32::try_from(size) {
        Ok(small) if size <= MAX_SIZE => Ok(small),
        _ => Err(DTypeError::Size {
            size,
            limit: MAX_SIZE,
        }),
    }
}

/// A name or a code without quotes.
fn scalar(text: &str) -> Result<DType, DTypeError> {
    let unknown = || DTypeError::Unknown {
        text: text.to_owned(),
    };
    let long = match text {
        "bool" | "?" => Some(DType::Bool),
        "int8" => Some(DType::Int8),
        "int16" => Some(DType::Int16),
        "int32" => Some(DType::Int32),
        "int64" => Some(DType::Int64),
        "uint8" => Some(DType::UInt8),
        "uint16" => Some(DType::UInt16),
        "uint32" => Some(DType::UInt32),
        "uint64" => Some(DType::UInt64),
        "float32" => Some(DType::Float32),
        "float64" => Some(DType::Float64),
        _ => None,
    };
    if let Some(dtype) = long {
        return Ok(dtype);
    }
    let code = text.strip_prefix(['<', '>', '=', '|']).unwrap_or(text);
    let dtype = match code {
        "?" | "b1" => DType::Bool,
        "i1" => DType::Int8,
        "i2" => DType::Int16,
        "i4" => DType::Int32,
        "i8" => DType::Int64,
        "u1" => DType::UInt8,
        "u2" => DType::UInt16,
        "u4" => DType::UInt32,
        "u8" => DType::UInt64,
        "f4" => DType::Float32,
        "f8" => DType::Float64,
        _ => {
            let digits = code.strip_prefix('S').ok_or_else(unknown)?;
            // `parse` would also take a sign.
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(unknown());
            }
            let size = digits.parse().map_err(|_| DTypeError::Size {
                size: u64::MAX,
                limit: MAX_SIZE,
            })?;
            let dtype = DType::ByteString(size);
            checked_size(&dtype)?;
            dtype
        }
    };
    if text.starts_with('>') && dtype.align() > 1 {
        return Err(DTypeError::ByteOrder {
            text: text.to_owned(),
        });
    }
    Ok(dtype)
}

/// Reads the text from left to right; recursion ends at [`MAX_DEPTH`].
struct Parser<'a> {
    text: &'a str,
    /// of the next byte; always at the start of a character
    at: usize,
}

impl<'a> Parser<'a> {
    fn parse(text: &'a str, aligned: bool) -> Result<DType, DTypeError> {
        let mut parser = Self { text, at: 0 };
        let dtype = match parser.peek() {
            Some('[' | '\'' | '"') => parser.element(aligned, 0)?,
            _ if parser.rest().contains('[') => parser.element(aligned, 0)?,
            _ => return scalar(text.trim()),
        };
        match parser.peek() {
            None => Ok(dtype),
            Some(_) => Err(parser.expected("the end")),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character that is not blank.
    fn peek(&mut self) -> Option<char> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn take(&mut self, wanted: &str) -> bool {
        self.peek();
        let found = self.rest().starts_with(wanted);
        if found {
            self.at += wanted.len();
        }
        found
    }

    fn demand(&mut self, wanted: &'static str) -> Result<(), DTypeError> {
        if self.take(wanted) {
            return Ok(());
        }
        Err(self.expected(wanted))
    }

    fn expected(&self, expected: &'static str) -> DTypeError {
        DTypeError::Syntax {
            at: self.at,
            expected,
        }
    }

    /// A quoted scalar or a structure.
    fn element(&mut self, aligned: bool, depth: u32) -> Result<DType, DTypeError> {
        match self.peek() {
            Some('\'' | '"') => scalar(self.quoted("an element type")?.trim()),
            Some('[') => self.structure(aligned, depth),
            _ => {
                let aligned = if self.take("align") {
                    true
                } else if self.take("pack") {
                    false
                } else {
                    return Err(self.expected("an element type"));
                };
                self.demand("(")?;
                self.peek();
                let dtype = self.structure(aligned, depth)?;
                self.demand(")")?;
                Ok(dtype)
            }
        }
    }

    fn structure(&mut self, aligned: bool, depth: u32) -> Result<DType, DTypeError> {
        let depth = depth + 1;
        if depth > MAX_DEPTH {
            return Err(DTypeError::TooDeep { limit: MAX_DEPTH });
        }
        self.demand("[")?;
        let mut fields = Vec::new();
        while !self.take("]") {
            self.demand("(")?;
            let name = self.quoted("a field name")?.to_owned();
            self.demand(",")?;
            let dtype = self
                .element(aligned, depth)
                .map_err(|source| in_field_unless_syntax(&name, source))?;
            if self.take(",") && self.peek() != Some(')') {
                return Err(DTypeError::SubArray { field: name });
            }
            self.demand(")")?;
            fields.push((name, dtype));
            if !self.take(",") {
                self.demand("]")?;
                break;
            }
        }
        StructType::new(fields, aligned).map(DType::Struct)
    }

    fn quoted(&mut self, what: &'static str) -> Result<&'a str, DTypeError> {
        let Some(quote @ ('\'' | '"')) = self.peek() else {
            return Err(self.expected(what));
        };
        self.at += 1;
        let Some((inside, _)) = self.rest().split_once(quote) else {
            return Err(self.expected("a closing quote"));
        };
        self.at += inside.len() + 1;
        Ok(inside)
    }
}

/// A position says more than a chain of names.
fn in_field_unless_syntax(name: &str, error: DTypeError) -> DTypeError {
    match error {
        DTypeError::Syntax { .. } | DTypeError::TooDeep { .. } => error,
        other => in_field(name, other),
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_notation_of_a_number() {
        for (texts, dtype) in [
            (
                &["bool", "?", "b1", "|b1", ">b1", " bool "][..],
                DType::Bool,
            ),
            (&["int8", "i1", "|i1", "<i1", ">i1"], DType::Int8),
            (&["int16", "i2", "<i2", "=i2"], DType::Int16),
            (&["int32", "i4", "<i4", "'i4'", "\"<i4\""], DType::Int32),
            (&["int64", "i8", "<i8"], DType::Int64),
            (&["uint8", "u1", "|u1"], DType::UInt8),
            (&["uint16", "u2", "<u2"], DType::UInt16),
            (&["uint32", "u4", "<u4"], DType::UInt32),
            (&["uint64", "u8", "<u8"], DType::UInt64),
            (&["float32", "f4", "<f4"], DType::Float32),
            (&["float64", "f8", "<f8"], DType::Float64),
            (&["S16", "|S16", "<S16", ">S16"], DType::ByteString(16)),
        ] {
            for text in texts {
                assert_eq!(DType::parse(text), Ok(dtype.clone()), "{text}");
            }
            assert_eq!(DType::parse(&dtype.to_string()), Ok(dtype));
        }
        assert_eq!(DType::of::<u16>(), DType::UInt16);
        assert_eq!(DType::of::<bool>().size(), 1);
    }

    #[test]
    fn refused_texts() {
        use DTypeError as E;
        let parse = |text| DType::parse(text).unwrap_err();
        for text in [
            "", "f", "f2", "int", "S", "S+4", "S-1", "U4", "3f4", "O", "i3", "(3,)f4",
        ] {
            assert!(matches!(parse(text), E::Unknown { .. }), "{text}");
        }
        for text in [">f4", ">i2", ">u8"] {
            assert!(matches!(parse(text), E::ByteOrder { .. }), "{text}");
        }
        for text in ["S0", "S16777217", "S99999999999999999999"] {
            assert!(matches!(parse(text), E::Size { .. }), "{text}");
        }
        for text in [
            "[",
            "[(",
            "[('a'",
            "[('a',",
            "[('a','f4'",
            "[('a','f4')",
            "[('a','f4')]x",
            "'f4",
            "align",
            "align[('a','f4')]",
            "align([('a','f4')]",
            "[('a','f4')('b','f4')]",
            "[('a' 'f4')]",
            "[(a,'f4')]",
            "[('a',f4)]",
            "{'names': ['a']}",
            "align('f4')[",
        ] {
            let error = parse(text);
            let fits = matches!(error, E::Syntax { .. } | E::Unknown { .. });
            assert!(fits, "{text}: {error}");
        }
        assert_eq!(parse("[]"), E::NoField);
        let field = || "a".to_owned();
        let twice = "[('a','f4'),('a','i4')]";
        assert_eq!(parse(twice), E::Duplicate { field: field() });
        let sub = "[('a','f4',(3,))]";
        assert_eq!(parse(sub), E::SubArray { field: field() });
        assert_eq!(parse("[('a','f4', 3)]"), E::SubArray { field: field() });
        for text in [
            "[('','f4')]",
            "[('\\x41','f4')]",
            "[(\"a'b\",'f4')]",
            "[('a\n','f4')]",
        ] {
            assert!(matches!(parse(text), E::FieldName { .. }), "{text}");
        }
        let error = parse("[('a', [('b', 'x9')])]").to_string();
        assert_eq!(
            error,
            r#"field "a": field "b": "x9" is not an element type"#
        );
        // Neither the stack nor the memory grows with what is asked for.
        let deep = "[('a',".repeat(100_000);
        assert_eq!(parse(&deep), E::TooDeep { limit: 16 });
        let mut wide = "[('a','S16777216'),('b','u1')]".to_owned();
        assert!(matches!(parse(&wide), E::Size { .. }));
        for _ in 0..15 {
            wide = format!("[('a',{wide}),('b','f4')]");
        }
        assert!(DType::parse(&wide).is_err());
    }

    #[test]
    fn nesting_up_to_the_limit() {
        let nested = |depth| format!("{}'u1'{}", "[('a',".repeat(depth), ")]".repeat(depth));
        let dtype = DType::parse(&nested(16)).unwrap();
        assert_eq!((dtype.size(), dtype.depth()), (1, 16));
        let limit = MAX_DEPTH;
        assert_eq!(
            DType::parse(&nested(17)),
            Err(DTypeError::TooDeep { limit })
        );
        assert_eq!(
            StructType::packed([("a", dtype)]),
            Err(DTypeError::TooDeep { limit })
        );
    }

    #[test]
    fn layouts_are_those_of_c_and_numpy() {
        let offsets = |text: &str| -> (Vec<u32>, usize, usize) {
            let dtype = DType::parse(text).unwrap();
            let offsets = dtype.fields().iter().map(Field::offset).collect();
            (offsets, dtype.size(), dtype.align())
        };
        let fields = "[('a','u1'),('b','f8'),('c','i2')]";
        assert_eq!(offsets(fields), (vec![0, 1, 9], 11, 1));
        let aligned = format!("align({fields})");
        assert_eq!(offsets(&aligned), (vec![0, 8, 16], 24, 8));
        assert_eq!(
            DType::parse_aligned(fields).unwrap(),
            DType::parse(&aligned).unwrap()
        );
        // align=True of numpy goes into the structures inside.
        let nested = "align([('x','u1'),('y',[('a','u1'),('b','u4')])])";
        assert_eq!(offsets(nested), (vec![0, 4], 12, 4));
        let packed = "align([('x','u1'),('y',pack([('a','u1'),('b','u4')]))])";
        assert_eq!(offsets(packed), (vec![0, 1], 6, 1));
        let inside = "[('x','u1'),('y',align([('a','u1'),('b','u4')]))]";
        assert_eq!(offsets(inside), (vec![0, 1], 9, 1));
        assert_eq!(
            offsets("align([('n','S3'),('i','i4'),])"),
            (vec![0, 4], 8, 4)
        );
    }

    #[test]
    fn keys() {
        let kind = |text: &str| DType::parse(text).unwrap().key_kind();
        assert_eq!(kind("i4"), Some(KeyKind::Signed));
        assert_eq!(kind("?"), Some(KeyKind::Unsigned));
        assert_eq!(kind("f8"), Some(KeyKind::Float));
        assert_eq!(kind("S8"), Some(KeyKind::Bytes));
        assert_eq!(kind("[('a','u1'),('b','f8')]"), Some(KeyKind::Bytes));
        assert_eq!(kind("align([('a','u4'),('b','f4')])"), Some(KeyKind::Bytes));
        assert_eq!(kind("align([('a','u1'),('b','f8')])"), None);
        assert_eq!(kind("align([('b','f8'),('a','u1')])"), None);
        assert_eq!(kind("[('x',align([('a','u1'),('b','f8')]))]"), None);
    }

    #[test]
    fn nothing_is_cut() {
        use DTypeError as E;
        let encode = |text: &str, value: Value| {
            let dtype = DType::parse(text).unwrap();
            let mut bytes = vec![0xaa; dtype.size()];
            dtype.encode(&value, &mut bytes).map(|()| bytes)
        };
        for (text, value) in [
            ("u1", Value::from(300)),
            ("u1", (-1).into()),
            ("i1", 128.into()),
            ("i8", u64::MAX.into()),
            ("u8", (-1).into()),
            ("?", 2.into()),
            ("f4", 1e300.into()),
        ] {
            let error = encode(text, value).unwrap_err();
            assert!(matches!(error, E::OutOfRange { .. }), "{text}: {error}");
        }
        for (text, value) in [
            ("u1", Value::from(1.0)),
            ("f4", "1".into()),
            ("f4", true.into()),
            ("S4", 1.into()),
            ("[('a','u1')]", 1.into()),
            ("u1", vec![1.into()].into()),
        ] {
            let error = encode(text, value).unwrap_err();
            assert!(matches!(error, E::Mismatch { .. }), "{text}: {error}");
        }
        let too_long = E::TooLong { len: 5, limit: 4 };
        assert_eq!(encode("S4", "abcde".into()), Err(too_long));
        let error = encode("[('a','u1'),('b','u1')]", vec![1.into()].into());
        let (found, expected) = (1, 2);
        assert_eq!(error, Err(E::FieldCount { found, expected }));
        let error = encode("[('a','u1')]", vec![256.into()].into()).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"field "a": 256 is out of range for uint8"#
        );

        assert_eq!(
            encode("f4", 16_777_217.into()).unwrap(),
            16_777_216_f32.to_le_bytes()
        );
        assert_eq!(encode("?", 1.into()).unwrap(), [1]);
        assert_eq!(encode("u8", u64::MAX.into()).unwrap(), [0xff; 8]);
        assert_eq!(
            encode("i8", i64::MIN.into()).unwrap(),
            i64::MIN.to_le_bytes()
        );
        assert_eq!(
            encode("f4", f64::INFINITY.into()).unwrap(),
            f32::INFINITY.to_le_bytes()
        );
        // Padding is zero, whatever was there.
        let padded = encode(
            "align([('a','u1'),('b','u4')])",
            vec![1.into(), 2.into()].into(),
        );
        assert_eq!(padded.unwrap(), [1, 0, 0, 0, 2, 0, 0, 0]);

        let short = DType::Int32.encode(&1.into(), &mut [0; 3]);
        let (found, expected) = (3, 4);
        assert_eq!(short, Err(E::Length { found, expected }));
        assert_eq!(
            DType::Int32.decode(&[0; 3]),
            Err(E::Length { found, expected })
        );
        assert_eq!(DType::Bool.decode(&[7]), Ok(Value::Bool(true)));
        let text = DType::ByteString(4).decode(b"a\0b\0");
        assert_eq!(text, Ok(Value::Bytes(b"a\0b".to_vec())));
    }

    fn dtypes() -> impl Strategy<Value = DType> {
        let scalar = prop_oneof![
            prop::sample::select(vec![
                DType::Bool,
                DType::Int8,
                DType::Int16,
                DType::Int32,
                DType::Int64,
                DType::UInt8,
                DType::UInt16,
                DType::UInt32,
                DType::UInt64,
                DType::Float32,
                DType::Float64,
            ]),
            (1_u32..20).prop_map(DType::ByteString),
        ];
        scalar.prop_recursive(4, 24, 5, |inner| {
            let fields = prop::collection::btree_map("[a-z_ (\\[,é]{1,4}", inner, 1..5);
            (fields, any::<bool>()).prop_map(|(fields, aligned)| {
                let made = if aligned {
                    StructType::aligned(fields)
                } else {
                    StructType::packed(fields)
                };
                DType::Struct(made.unwrap())
            })
        })
    }

    /// NaN is left out: it does not equal itself.
    fn without_nan(value: &Value) -> bool {
        match value {
            Value::Float(value) => !value.is_nan(),
            Value::Struct(fields) => fields.iter().all(without_nan),
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn printed_and_parsed(dtype in dtypes()) {
            let text = dtype.to_string();
            prop_assert_eq!(DType::parse(&text), Ok(dtype), "{}", text);
        }

        #[test]
        fn decoded_and_encoded(
            dtype in dtypes(),
            noise in prop::collection::vec(any::<u8>(), 2000),
        ) {
            let Some(bytes) = noise.get(..dtype.size()) else {
                return Ok(());
            };
            let value = dtype.decode(bytes).unwrap();
            prop_assume!(without_nan(&value));
            let mut back = vec![0xaa; bytes.len()];
            dtype.encode(&value, &mut back).unwrap();
            prop_assert_eq!(dtype.decode(&back).unwrap(), value);
        }

        #[test]
        fn fields_lie_inside(dtype in dtypes()) {
            let mut end = 0;
            for field in dtype.fields() {
                prop_assert!(field.offset() >= end);
                end = field.offset() + field.dtype().size() as u32;
            }
            prop_assert!(end as usize <= dtype.size());
            prop_assert_eq!(dtype.size() % dtype.align(), 0);
        }
    }
}
