//! Annotations, as Python spells a field's type.

use std::fmt;

/// An element type of arrays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dtype {
    /// in an annotation
    pub(crate) name: &'static str,
    /// in `polyshm_slots::Dtype`
    pub(crate) variant: &'static str,
    /// in Rust
    pub(crate) rust: &'static str,
    pub(crate) size: u64,
}

macro_rules! dtypes {
    ($($name:ident $variant:ident $rust:ident $size:literal)*) => {
        pub(crate) const DTYPES: &[Dtype] = &[$(Dtype {
            name: stringify!($name),
            variant: stringify!($variant),
            rust: stringify!($rust),
            size: $size,
        }),*];
    };
}

dtypes! {
    float32 Float32 f32 4
    float64 Float64 f64 8
    int8 Int8 i8 1
    int16 Int16 i16 2
    int32 Int32 i32 4
    int64 Int64 i64 8
    uint8 Uint8 u8 1
    uint16 Uint16 u16 2
    uint32 Uint32 u32 4
    uint64 Uint64 u64 8
    bool Bool bool 1
}

/// The largest segment; the record's crate has the same limits.
pub(crate) const MAX_SEGMENT: u64 = 1 << 40;
const MAX_CHARS: u64 = u32::MAX as u64 / 4;
const MAX_DIMENSIONS: usize = 64;

/// A field's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Annotation {
    Float,
    Int,
    Bool,
    Text {
        max_chars: u64,
    },
    Array {
        dtype: &'static Dtype,
        shape: Vec<u64>,
    },
}

impl Annotation {
    /// Reads the one spelling that every implementation accepts; the error says
    /// what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (parsed, rest) = Self::read(text.trim())?;
        parsed.size().map_err(|why| format!("{text:?} {why}"))?;
        let proper = parsed.to_string();
        if !rest.is_empty() {
            return Err(format!(
                "{text:?} goes on behind its bracket with {rest:?}: write {proper:?}"
            ));
        }
        if proper != text {
            return Err(format!(
                "{text:?} is not how every implementation spells it: write {proper:?}"
            ));
        }
        Ok(parsed)
    }

    /// What the text begins with, in any spelling, and what follows.
    fn read(text: &str) -> Result<(Self, &str), String> {
        match text {
            "float" => return Ok((Self::Float, "")),
            "int" => return Ok((Self::Int, "")),
            "bool" => return Ok((Self::Bool, "")),
            _ => {}
        }
        let Some((name, rest)) = text.split_once('[') else {
            return Err(unknown(text));
        };
        let name = name.trim();
        let dtype = DTYPES.iter().find(|dtype| dtype.name == name);
        if dtype.is_none() && name != "str" {
            return Err(unknown(text));
        }
        let Some((list, rest)) = rest.split_once(']') else {
            return Err(format!("{text:?} lacks its closing bracket"));
        };
        let mut numbers = Vec::new();
        for item in list.split(',').map(str::trim) {
            if item.is_empty() || !item.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!(
                    "{text:?} has {item:?} for a number: digits are needed, as in \"str[32]\" or \
                     \"uint8[480,640,3]\""
                ));
            }
            // Too large for every limit then.
            numbers.push(item.parse().unwrap_or(u64::MAX));
        }
        let annotation = match (dtype, &*numbers) {
            (Some(dtype), _) => Self::Array {
                dtype,
                shape: numbers,
            },
            (None, &[max_chars]) => Self::Text { max_chars },
            (None, _) => return Err(format!("{text:?} has several lengths: one is allowed")),
        };
        Ok((annotation, rest))
    }

    /// The field's bytes, or why it has none.
    pub(crate) fn size(&self) -> Result<u64, String> {
        match self {
            Self::Float => Ok(8),
            Self::Int => Ok(4),
            Self::Bool => Ok(1),
            Self::Text { max_chars: 0 } => {
                Err("has no room for a character: at least \"str[1]\" is needed".into())
            }
            Self::Text { max_chars } if *max_chars > MAX_CHARS => {
                Err(format!("is too long: at most {MAX_CHARS} characters fit"))
            }
            Self::Text { max_chars } => Ok(4 + 4 * max_chars),
            Self::Array { dtype, shape } => {
                if shape.len() > MAX_DIMENSIONS {
                    return Err(format!(
                        "has too many dimensions: at most {MAX_DIMENSIONS} are allowed"
                    ));
                }
                // As the record's crate does it: a 0 does not excuse the others.
                let mut size = dtype.size;
                for &dimension in shape.iter().filter(|dimension| **dimension != 0) {
                    size = size
                        .checked_mul(dimension)
                        .filter(|size| *size <= MAX_SEGMENT)
                        .ok_or_else(|| {
                            format!("is too large: at most {MAX_SEGMENT} bytes are allowed")
                        })?;
                }
                Ok(if shape.contains(&0) { 0 } else { size })
            }
        }
    }
}

fn unknown(text: &str) -> String {
    let mut names = String::new();
    for dtype in DTYPES {
        if !names.is_empty() {
            names += ", ";
        }
        names += dtype.name;
    }
    format!(
        "{text:?} is no type of a field: allowed are float, int, bool, str[N], and arrays such as \
         uint8[480,640,3] of {names}"
    )
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float => f.write_str("float"),
            Self::Int => f.write_str("int"),
            Self::Bool => f.write_str("bool"),
            Self::Text { max_chars } => write!(f, "str[{max_chars}]"),
            Self::Array { dtype, shape } => {
                let shape: Vec<_> = shape.iter().map(u64::to_string).collect();
                write!(f, "{}[{}]", dtype.name, shape.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_prints_back() {
        for text in ["float", "int", "bool", "str[1]", "str[1073741823]"] {
            assert_eq!(Annotation::parse(text).unwrap().to_string(), text);
        }
        for dtype in DTYPES {
            for shape in ["0", "3", "480,640,3", "2,0,3"] {
                let text = format!("{}[{shape}]", dtype.name);
                assert_eq!(Annotation::parse(&text).unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn sizes_are_those_of_the_format() {
        for (text, size) in [
            ("float", 8),
            ("int", 4),
            ("bool", 1),
            ("str[32]", 132),
            ("uint8[480,640,3]", 921_600),
            ("float64[3,3]", 72),
            ("bool[2,2]", 4),
            ("float32[2,0,3]", 0),
            ("uint8[1099511627776]", MAX_SEGMENT),
        ] {
            assert_eq!(Annotation::parse(text).unwrap().size(), Ok(size), "{text}");
        }
    }

    #[test]
    fn another_spelling_is_told_the_proper_one() {
        for (text, proper) in [
            (" str[32]", "write \"str[32]\""),
            ("str[ 32 ]", "write \"str[32]\""),
            ("str[032]", "write \"str[32]\""),
            ("float ", "write \"float\""),
            ("float32[2, 3]", "write \"float32[2,3]\""),
            ("float32 [2]", "write \"float32[2]\""),
            ("str[3]junk", "write \"str[3]\""),
            ("float32[2,3]x", "write \"float32[2,3]\""),
        ] {
            let error = Annotation::parse(text).unwrap_err();
            assert!(error.contains(proper), "{text}: {error}");
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_no_type_is_told_what_is_allowed() {
        for (text, why) in [
            ("", "allowed are float"),
            ("str", "allowed are float"),
            ("bytes", "allowed are float"),
            ("STR[3]", "allowed are float"),
            ("float[3]", "allowed are float"),
            ("int[3]", "allowed are float"),
            ("float16[4]", "allowed are float"),
            ("complex64[3]", "allowed are float"),
            ("np.float32[3]", "allowed are float"),
            ("str[32", "closing bracket"),
            ("str[]", "digits are needed"),
            ("str[-1]", "digits are needed"),
            ("str[1_0]", "digits are needed"),
            ("float32[]", "digits are needed"),
            ("float32[3,]", "digits are needed"),
            ("float32[3,,4]", "digits are needed"),
            ("float32[+3]", "digits are needed"),
            ("str[٣]", "digits are needed"),
            ("str[3,4]", "one is allowed"),
            ("str[0]", "at least \"str[1]\""),
            ("str[1073741824]", "at most 1073741823"),
            (
                "uint8[4294967296,4294967296]",
                "at most 1099511627776 bytes",
            ),
            (
                "uint8[4294967296,4294967296,0]",
                "at most 1099511627776 bytes",
            ),
            ("uint8[99999999999999999999]", "at most 1099511627776 bytes"),
        ] {
            let error = Annotation::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = format!("int8[{}1]", "1,".repeat(MAX_DIMENSIONS));
        let error = Annotation::parse(&deep).unwrap_err();
        assert!(error.contains("at most 64"), "{error}");
    }
}
