//! The types of fields as Python spells them, and the list of a record's fields
//! (section 3.1).

use alloc::{
    borrow::ToOwned as _,
    string::{String, ToString as _},
    vec::Vec,
};
use core::{
    fmt::{self, Write as _},
    str::FromStr,
};

use super::{AnnotationError, Dtype, MAX_SEGMENT, SchemaError, TypeError};

/// The most characters of a text field: the length word counts bytes, up to four
/// for each.
pub const MAX_CHARS: u32 = u32::MAX / 4;

/// The most dimensions of an array, which is the most that numpy can read back.
pub const MAX_DIMENSIONS: usize = 64;

/// The longest name of a field in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// The most fields of a record.
pub const MAX_FIELDS: usize = u16::MAX as usize;

/// The type of a field (section 3.1).
///
/// [`parse`](Self::parse) reads Python's annotations; printed, a type has the
/// shortest spelling that every implementation accepts.
///
/// ```
/// use polyshm_wire::slots::{Dtype, FieldType};
///
/// let image = FieldType::parse("uint8[480,640,3]")?;
/// assert_eq!(image, FieldType::Array { dtype: Dtype::Uint8, shape: vec![480, 640, 3] });
/// assert_eq!(image.size()?, 921_600);
/// assert_eq!(FieldType::parse("'str[ 032 ]'")?.to_string(), "str[32]");
///
/// let error = FieldType::parse("float32[3,,4]").unwrap_err();
/// assert!(error.to_string().contains("has \"\" for a number"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// eight bytes, IEEE binary64
    Float,
    /// four bytes, two's complement
    Int,
    /// one byte; anything but 0 is true
    Bool,
    /// a length word and UTF-8
    Text {
        /// Unicode code points, in `1..=MAX_CHARS`
        max_chars: u32,
    },
    /// numbers in C order
    Array {
        /// of each element
        dtype: Dtype,
        /// in `1..=MAX_DIMENSIONS` dimensions, any of which may be 0
        shape: Vec<usize>,
    },
}

impl FieldType {
    /// Bytes of the field (sections 3.2 to 3.4), or what makes the type
    /// impossible.
    pub fn size(&self) -> Result<u64, SchemaError> {
        self.measure().map_err(|source| SchemaError::Type {
            ty: self.to_string(),
            source,
        })
    }

    pub(super) fn measure(&self) -> Result<u64, TypeError> {
        match self {
            Self::Float => Ok(8),
            Self::Int => Ok(4),
            Self::Bool => Ok(1),
            Self::Text { max_chars: 0 } => Err(TypeError::NoCharacters),
            Self::Text { max_chars } if *max_chars > MAX_CHARS => {
                Err(TypeError::TooManyCharacters { limit: MAX_CHARS })
            }
            Self::Text { max_chars } => Ok(4 + 4 * u64::from(*max_chars)),
            Self::Array { dtype, shape } => {
                if shape.is_empty() {
                    return Err(TypeError::NoDimensions);
                }
                if shape.len() > MAX_DIMENSIONS {
                    return Err(TypeError::TooManyDimensions {
                        found: shape.len(),
                        limit: MAX_DIMENSIONS,
                    });
                }
                // A dimension of 0 does not excuse the others: their product
                // wraps in the reference.
                let mut size = dtype.size() as u64;
                for &dimension in shape.iter().filter(|dimension| **dimension != 0) {
                    size = size
                        .checked_mul(dimension as u64)
                        .filter(|size| *size <= MAX_SEGMENT)
                        .ok_or(TypeError::TooLarge { limit: MAX_SEGMENT })?;
                }
                Ok(if shape.contains(&0) { 0 } else { size })
            }
        }
    }

    /// Reads an annotation (section 3.1).
    ///
    /// More is accepted than the reference accepts, and means what it would if
    /// written properly: blanks around the text, within the brackets and around
    /// commas, one or two layers of quotes, and `float`, `int` and `bool` as
    /// texts, which is what `from __future__ import annotations` makes of them.
    /// As there, what follows the closing bracket is ignored, and a well-formed
    /// but unknown element type, such as `float16`, is `float64`.
    pub fn parse(annotation: &str) -> Result<Self, AnnotationError> {
        let text = unquote(annotation);
        match text {
            "float" => return Ok(Self::Float),
            "int" => return Ok(Self::Int),
            "bool" => return Ok(Self::Bool),
            _ => {}
        }
        let unknown = || AnnotationError::Unknown {
            annotation: annotation.to_owned(),
        };
        let (name, rest) = text.split_once('[').ok_or_else(unknown)?;
        let dtype = match name {
            "str" => None,
            _ => Some(element_type(name).ok_or_else(unknown)?),
        };
        let (list, _) = rest
            .split_once(']')
            .ok_or_else(|| AnnotationError::Unclosed {
                annotation: annotation.to_owned(),
            })?;
        let digits = |item: &str| {
            let item = item.trim();
            if item.is_empty() || !item.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(AnnotationError::Number {
                    annotation: annotation.to_owned(),
                    found: item.to_owned(),
                });
            }
            // Above every limit when it does not fit.
            Ok(item.parse().unwrap_or(usize::MAX))
        };
        let ty = if let Some(dtype) = dtype {
            let shape = list.split(',').map(digits).collect::<Result<_, _>>()?;
            Self::Array { dtype, shape }
        } else {
            let max_chars = digits(list)?.try_into().unwrap_or(u32::MAX);
            Self::Text { max_chars }
        };
        match ty.measure() {
            Ok(_) => Ok(ty),
            Err(source) => Err(AnnotationError::Type {
                annotation: annotation.to_owned(),
                source,
            }),
        }
    }
}

/// Takes off blanks and up to two layers of quotes.
fn unquote(annotation: &str) -> &str {
    let mut text = annotation.trim();
    for _ in 0..2 {
        let inner = ['"', '\'']
            .into_iter()
            .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
        let Some(inner) = inner else { break };
        text = inner.trim();
    }
    text
}

/// The element type of an array's name: a known one, or `float64` for one that
/// only looks like it.
fn element_type(name: &str) -> Option<Dtype> {
    let looks = || {
        ["float", "int", "uint"].into_iter().any(|prefix| {
            name.strip_prefix(prefix).is_some_and(|width| {
                !width.is_empty() && width.bytes().all(|byte| byte.is_ascii_digit())
            })
        })
    };
    Dtype::from_name(name).or_else(|| looks().then_some(Dtype::Float64))
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Int => f.write_str("int"),
            Self::Bool => f.write_str("bool"),
            Self::Text { max_chars } => write!(f, "str[{max_chars}]"),
            Self::Array { dtype, shape } => {
                write!(f, "{dtype}[")?;
                for (at, dimension) in shape.iter().enumerate() {
                    let separator = if at == 0 { "" } else { "," };
                    write!(f, "{separator}{dimension}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// [`FieldType::parse`].
impl FromStr for FieldType {
    type Err = AnnotationError;

    fn from_str(annotation: &str) -> Result<Self, AnnotationError> {
        Self::parse(annotation)
    }
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldSpec {
    /// an identifier of Python
    pub name: String,
    /// how its bytes are read
    pub ty: FieldType,
}

impl FieldSpec {
    /// A field of this name and type; [`Schema::new`] judges both.
    pub fn new(name: impl Into<String>, ty: FieldType) -> Self {
        Self {
            name: name.into(),
            ty,
        }
    }
}

impl fmt::Display for FieldSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.ty)
    }
}

/// The fields of a record, in their order (section 2.1).
///
/// The order, the types and the number of slots are all that both sides must
/// agree upon. As text, fields stand between commas or newlines.
///
/// ```
/// use polyshm_wire::slots::Schema;
///
/// let schema: Schema = "temperature: float, status_msg: str[32],
///                       image: uint8[480, 640, 3],".parse()?;
/// assert_eq!(schema.index_of("status_msg"), Some(1));
/// assert_eq!(
///     schema.to_string(),
///     "temperature: float, status_msg: str[32], image: uint8[480,640,3]",
/// );
/// assert_eq!(schema, schema.to_string().parse()?);
/// assert_eq!(schema, Schema::from_pairs([
///     ("temperature", "float"), ("status_msg", "str[32]"), ("image", "uint8[480,640,3]"),
/// ])?);
///
/// let error = "a: float, a: int".parse::<Schema>().unwrap_err();
/// assert_eq!(error.to_string(), "there are two fields named \"a\", each name may occur once");
/// # Ok::<(), polyshm_wire::slots::SchemaError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema {
    /// every type has a size; at most `MAX_FIELDS`
    fields: Vec<FieldSpec>,
    /// indices into `fields`, in the order of the names, all of which differ
    by_name: Vec<u16>,
}

impl Schema {
    /// From fields in their order. Refused are names that are no identifiers,
    /// too long or used twice, types without a size, and more than
    /// [`MAX_FIELDS`] fields.
    pub fn new(fields: impl IntoIterator<Item = FieldSpec>) -> Result<Self, SchemaError> {
        Self::collect(fields.into_iter().map(Ok))
    }

    /// From names and Python annotations.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SchemaError> {
        Self::collect(pairs.into_iter().map(|(name, annotation)| {
            match FieldType::parse(annotation) {
                Ok(ty) => Ok(FieldSpec::new(name, ty)),
                Err(source) => Err(SchemaError::Annotation {
                    name: name.to_owned(),
                    source,
                }),
            }
        }))
    }

    fn collect(
        from: impl Iterator<Item = Result<FieldSpec, SchemaError>>,
    ) -> Result<Self, SchemaError> {
        let mut fields = Vec::new();
        for field in from {
            let field = field?;
            if fields.len() == MAX_FIELDS {
                return Err(SchemaError::TooManyFields { limit: MAX_FIELDS });
            }
            check_name(&field.name)?;
            if let Err(source) = field.ty.measure() {
                return Err(SchemaError::FieldType {
                    ty: field.ty.to_string(),
                    name: field.name,
                    source,
                });
            }
            fields.push(field);
        }
        let name = |index: &u16| &fields[usize::from(*index)].name;
        let mut by_name: Vec<u16> = (0..fields.len()).map(|index| index as u16).collect();
        by_name.sort_unstable_by_key(name);
        let mut pairs = by_name
            .windows(2)
            .map(|pair| (name(&pair[0]), name(&pair[1])));
        if let Some((twice, _)) = pairs.find(|(a, b)| a == b) {
            return Err(SchemaError::Duplicate {
                name: twice.clone(),
            });
        }
        Ok(Self { fields, by_name })
    }

    /// The fields in their order.
    pub fn fields(&self) -> &[FieldSpec] {
        &self.fields
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field; such records exist.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The place of the field of this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name
            .binary_search_by(|index| self.fields[usize::from(*index)].name.as_str().cmp(name))
            .ok()
            .map(|at| usize::from(self.by_name[at]))
    }

    /// A number that tells schemas apart: FNV-1a, 64 bits wide, over the printed
    /// schema. It is never 0.
    pub fn hash64(&self) -> u64 {
        struct Hash(u64);
        impl fmt::Write for Hash {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
                Ok(())
            }
        }
        let mut hash = Hash(0xcbf2_9ce4_8422_2325);
        // Writing into a number does not fail.
        let _ = write!(hash, "{self}");
        hash.0.max(1)
    }

    /// Bytes of the printed schema.
    pub(super) fn text_len(&self) -> u64 {
        struct Length(u64);
        impl fmt::Write for Length {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0 += text.len() as u64;
                Ok(())
            }
        }
        let mut length = Length(0);
        let _ = write!(length, "{self}");
        length.0
    }
}

fn check_name(name: &str) -> Result<(), SchemaError> {
    if name.len() > MAX_NAME_LEN {
        return Err(SchemaError::NameTooLong {
            name: name.to_owned(),
            len: name.len(),
            limit: MAX_NAME_LEN,
        });
    }
    let fits = |c: char| c == '_' || c.is_alphanumeric();
    if name.is_empty() || name.starts_with(char::is_numeric) || !name.chars().all(fits) {
        return Err(SchemaError::Name {
            name: name.to_owned(),
        });
    }
    Ok(())
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, field) in self.fields.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{field}")?;
        }
        Ok(())
    }
}

/// Fields between commas or newlines, a name and an annotation each. Brackets
/// hold commas together.
impl FromStr for Schema {
    type Err = SchemaError;

    fn from_str(text: &str) -> Result<Self, SchemaError> {
        let mut inside = false;
        let parts = text.split(|c| {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                _ => {}
            }
            !inside && matches!(c, ',' | '\n' | '\r')
        });
        let parts = parts.map(str::trim).filter(|part| !part.is_empty());
        Self::collect(parts.map(|part| {
            let Some((name, annotation)) = part.split_once(':') else {
                return Err(SchemaError::NoColon {
                    text: part.to_owned(),
                });
            };
            let name = name.trim();
            match FieldType::parse(annotation) {
                Ok(ty) => Ok(FieldSpec::new(name, ty)),
                Err(source) => Err(SchemaError::Annotation {
                    name: name.to_owned(),
                    source,
                }),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of another program; they stand in segments.
    #[test]
    fn hashes_stay_as_they_are() {
        for (text, hash) in [
            ("", 0xcbf2_9ce4_8422_2325),
            ("a: float, b: int", 0x4c62_f70b_6807_5565),
            ("a:float\nb :'int',", 0x4c62_f70b_6807_5565),
            ("é: str[3]", 0x32b9_e7a2_96b4_33f7),
        ] {
            assert_eq!(text.parse::<Schema>().unwrap().hash64(), hash, "{text:?}");
        }
    }

    #[test]
    fn text_lengths() {
        for text in ["", "a: float", "é: str[3], b: int8[1,0,20]"] {
            let schema: Schema = text.parse().unwrap();
            assert_eq!(schema.text_len(), text.len() as u64);
        }
    }
}
