//! From values to the bytes of fields and back (sections 3.2 to 3.4).

use alloc::{
    format,
    string::{String, ToString as _},
};

use super::{ArrayValue, Dtype, FieldType, Value, ValueError, push_text_lossy, text_prefix};

/// How much of a field's bytes a value takes, and whether it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// bytes from the field's start; those behind keep what they held
    pub len: usize,
    /// what [`Status::TRUNCATED`](super::Status::TRUNCATED) says
    pub truncated: bool,
}

/// What a field's bytes say.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// the value
    pub value: Value,
    /// whether a text's length was beyond its field, and was taken for the
    /// longest possible
    pub damaged: bool,
}

/// Puts a value into a field's bytes.
///
/// | field | values |
/// |---|---|
/// | `float` | float; int that binary64 holds exactly; bool as 0 or 1 |
/// | `int` | int of 32 bits; bool as 0 or 1 |
/// | `bool` | bool; int 0 or 1 |
/// | `str[N]` | text, of which the first N characters are kept |
/// | array | array, of which C order's first elements are kept, and zeros follow when there are too few; elements of another type when each has an equal there |
///
/// A text that is too long, and any other shape than the field's, are
/// `truncated`. All else is an error, and then `into` is as it was: where the
/// reference wraps, rounds or cuts a number, it is refused here.
///
/// # Panics
///
/// When `into` has not the [`size`](FieldType::size) of the field.
///
/// ```
/// use polyshm_wire::slots::{Encoded, FieldType, encode_value};
///
/// let ty = FieldType::parse("str[3]")?;
/// let mut field = [0; 16];
/// assert_eq!(
///     encode_value(&ty, &"abcd".into(), &mut field)?,
///     Encoded { len: 7, truncated: true },
/// );
/// assert_eq!(field[..8], *b"\x03\0\0\0abc\0");
///
/// let error = encode_value(&FieldType::Int, &(1_i64 << 31).into(), &mut [0; 4]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "2147483648 does not fit a field of type int, which holds -2147483648 to 2147483647",
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode_value(ty: &FieldType, value: &Value, into: &mut [u8]) -> Result<Encoded, ValueError> {
    check_size(ty, into.len());
    let range = |value: i64, min: i64, max: i64| {
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        Err(ValueError::OutOfRange {
            expected: ty.clone(),
            value,
            min,
            max,
        })
    };
    let mut truncated = false;
    match (ty, value) {
        (FieldType::Float, Value::Float(value)) => into.copy_from_slice(&value.to_le_bytes()),
        (FieldType::Float, &Value::Int(value)) => {
            let bytes = exactly(Number::Int(value.into()), Dtype::Float64);
            into.copy_from_slice(&bytes.ok_or(ValueError::Rounded { value })?);
        }
        (FieldType::Float, &Value::Bool(value)) => {
            into.copy_from_slice(&f64::from(u8::from(value)).to_le_bytes());
        }
        (FieldType::Int, &Value::Int(value)) => {
            let value = range(value, i32::MIN.into(), i32::MAX.into())?;
            into.copy_from_slice(&(value as i32).to_le_bytes());
        }
        (FieldType::Int, &Value::Bool(value)) => {
            into.copy_from_slice(&i32::from(value).to_le_bytes());
        }
        (FieldType::Bool, &Value::Bool(value)) => into[0] = value.into(),
        (FieldType::Bool, &Value::Int(value)) => into[0] = u8::from(range(value, 0, 1)? == 1),
        (FieldType::Text { max_chars }, Value::Text(text)) => {
            let (kept, cut) = text_prefix(text, *max_chars);
            // At most four bytes for each of MAX_CHARS characters.
            into[..4].copy_from_slice(&(kept.len() as u32).to_le_bytes());
            into[4..][..kept.len()].copy_from_slice(kept.as_bytes());
            return Ok(Encoded {
                len: 4 + kept.len(),
                truncated: cut,
            });
        }
        (FieldType::Array { dtype, shape }, Value::Array(array)) => {
            truncated = array.shape() != shape;
            encode_array(*dtype, array, into)?;
        }
        _ => {
            return Err(ValueError::WrongType {
                expected: ty.clone(),
                found: value.kind(),
            });
        }
    }
    Ok(Encoded {
        len: into.len(),
        truncated,
    })
}

/// Takes a value out of a field's bytes.
///
/// Every bit pattern has a value. Malformed UTF-8 is left out of a text, as in
/// the reference, and a length beyond the field is cut, not followed as there.
///
/// # Panics
///
/// When `bytes` has not the [`size`](FieldType::size) of the field.
///
/// ```
/// use polyshm_wire::slots::{FieldType, Value, decode_value};
///
/// let ty = FieldType::parse("str[1]")?;
/// let good = decode_value(&ty, b"\x01\0\0\0Ab\0\0");
/// assert_eq!((good.value, good.damaged), (Value::from("A"), false));
/// let bad = decode_value(&ty, b"\xff\xff\xff\xffAb\0\0");
/// assert_eq!((bad.value, bad.damaged), (Value::from("Ab\0\0"), true));
/// # Ok::<(), polyshm_wire::slots::AnnotationError>(())
/// ```
pub fn decode_value(ty: &FieldType, bytes: &[u8]) -> Decoded {
    check_size(ty, bytes.len());
    let mut damaged = false;
    let value = match ty {
        FieldType::Float => Value::Float(f64::from_le_bytes(fixed(bytes))),
        FieldType::Int => Value::Int(i32::from_le_bytes(fixed(bytes)).into()),
        FieldType::Bool => Value::Bool(bytes[0] != 0),
        FieldType::Text { .. } => {
            let (head, room) = bytes.split_at(4);
            let len = u32::from_le_bytes(fixed(head)) as usize;
            damaged = len > room.len();
            let mut text = String::new();
            push_text_lossy(&mut text, &room[..len.min(room.len())]);
            Value::Text(text)
        }
        FieldType::Array { dtype, shape } => {
            Value::Array(ArrayValue::of_field(*dtype, shape, bytes))
        }
    };
    Decoded { value, damaged }
}

/// The caller's mistake, never the segment's: sizes come from a layout.
fn check_size(ty: &FieldType, len: usize) {
    assert!(
        ty.measure() == Ok(len as u64),
        "a field of type {ty} has not {len} bytes"
    );
}

/// The first bytes; there must be as many.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn encode_array(dtype: Dtype, array: &ArrayValue, into: &mut [u8]) -> Result<(), ValueError> {
    let size = dtype.size();
    let kept = array.element_count().min(into.len() / size);
    let (head, tail) = into.split_at_mut(kept * size);
    let source = &array.bytes()[..kept * array.dtype().size()];
    if array.dtype() == dtype {
        head.copy_from_slice(source);
    } else {
        // First all are judged, so that an error changes nothing.
        let numbers = || {
            source
                .chunks_exact(array.dtype().size())
                .map(|bytes| Number::of(array.dtype(), bytes))
        };
        for (index, number) in numbers().enumerate() {
            if exactly(number, dtype).is_none() {
                return Err(ValueError::Inexact {
                    index,
                    found: number.print(),
                    dtype,
                });
            }
        }
        for (number, to) in numbers().zip(head.chunks_exact_mut(size)) {
            if let Some(bytes) = exactly(number, dtype) {
                to.copy_from_slice(&bytes[..size]);
            }
        }
    }
    tail.fill(0);
    Ok(())
}

/// An element of any type.
#[derive(Clone, Copy)]
enum Number {
    Int(i128),
    Float(f64),
}

impl Number {
    fn of(dtype: Dtype, bytes: &[u8]) -> Self {
        match dtype {
            Dtype::Float32 => Self::Float(f32::from_le_bytes(fixed(bytes)).into()),
            Dtype::Float64 => Self::Float(f64::from_le_bytes(fixed(bytes))),
            Dtype::Int8 => Self::Int(i8::from_le_bytes(fixed(bytes)).into()),
            Dtype::Int16 => Self::Int(i16::from_le_bytes(fixed(bytes)).into()),
            Dtype::Int32 => Self::Int(i32::from_le_bytes(fixed(bytes)).into()),
            Dtype::Int64 => Self::Int(i64::from_le_bytes(fixed(bytes)).into()),
            Dtype::Uint8 => Self::Int(bytes[0].into()),
            Dtype::Uint16 => Self::Int(u16::from_le_bytes(fixed(bytes)).into()),
            Dtype::Uint32 => Self::Int(u32::from_le_bytes(fixed(bytes)).into()),
            Dtype::Uint64 => Self::Int(u64::from_le_bytes(fixed(bytes)).into()),
            Dtype::Bool => Self::Int((bytes[0] != 0).into()),
        }
    }

    fn print(self) -> String {
        match self {
            Self::Int(value) => value.to_string(),
            Self::Float(value) => format!("{value:?}"),
        }
    }
}

/// The bytes of an element of this type that equals the number, from the front;
/// `None` when there is none. A NaN is another NaN's equal.
fn exactly(number: Number, dtype: Dtype) -> Option<[u8; 8]> {
    fn front<const N: usize>(bytes: [u8; N]) -> [u8; 8] {
        let mut all = [0; 8];
        all[..N].copy_from_slice(&bytes);
        all
    }
    let int = || match number {
        Number::Int(value) => Some(value),
        Number::Float(value) => {
            let int = value as i128;
            same(int as f64, value).then_some(int)
        }
    };
    Some(match dtype {
        Dtype::Float64 => match number {
            Number::Float(value) => value.to_le_bytes(),
            Number::Int(value) => {
                let float = value as f64;
                (float as i128 == value).then_some(float.to_le_bytes())?
            }
        },
        Dtype::Float32 => front(match number {
            Number::Float(value) => {
                let float = value as f32;
                let equal = value.is_nan() || same(float.into(), value);
                equal.then_some(float.to_le_bytes())?
            }
            Number::Int(value) => {
                let float = value as f32;
                (float as i128 == value).then_some(float.to_le_bytes())?
            }
        }),
        Dtype::Int8 => front(i8::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Int16 => front(i16::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Int32 => front(i32::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Int64 => i64::try_from(int()?).ok()?.to_le_bytes(),
        Dtype::Uint8 => front(u8::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Uint16 => front(u16::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Uint32 => front(u32::try_from(int()?).ok()?.to_le_bytes()),
        Dtype::Uint64 => u64::try_from(int()?).ok()?.to_le_bytes(),
        Dtype::Bool => front([u8::try_from(int()?).ok().filter(|value| *value <= 1)?]),
    })
}

/// Equality is what is asked for here; no rounding is to be tolerated.
#[expect(clippy::float_cmp, reason = "a conversion is exact or it is not")]
fn same(a: f64, b: f64) -> bool {
    a == b
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::*;

    fn number(dtype: Dtype, bytes: [u8; 8]) -> String {
        Number::of(dtype, &bytes).print()
    }

    /// The number as another type has it, printed; `None` when it has not.
    fn converted(number: Number, dtype: Dtype) -> Option<String> {
        exactly(number, dtype).map(|bytes| self::number(dtype, bytes))
    }

    #[test]
    fn integers_at_the_ends_of_each_type() {
        for (dtype, min, max) in [
            (Dtype::Int8, -(1 << 7), (1 << 7) - 1),
            (Dtype::Int16, -(1 << 15), (1 << 15) - 1),
            (Dtype::Int32, -(1 << 31), (1 << 31) - 1),
            (Dtype::Int64, -(1 << 63), (1 << 63) - 1),
            (Dtype::Uint8, 0, (1 << 8) - 1),
            (Dtype::Uint16, 0, (1 << 16) - 1),
            (Dtype::Uint32, 0, (1 << 32) - 1),
            (Dtype::Uint64, 0, (1_i128 << 64) - 1),
            (Dtype::Bool, 0, 1),
        ] {
            for value in [min, max, 0, 1] {
                let text = Some(value.to_string());
                assert_eq!(converted(Number::Int(value), dtype), text, "{dtype}");
            }
            for value in [min - 1, max + 1] {
                assert_eq!(converted(Number::Int(value), dtype), None, "{dtype}");
            }
            // The same as floats, where those are exact.
            for value in [min, 0, 1, min - 1, max + 1, max / 2 + 1] {
                let float = value as f64;
                if float as i128 == value {
                    let expected = converted(Number::Int(value), dtype);
                    assert_eq!(converted(Number::Float(float), dtype), expected, "{dtype}");
                }
            }
            for value in [
                0.5,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                1e300,
                -1e300,
            ] {
                assert_eq!(converted(Number::Float(value), dtype), None, "{dtype}");
            }
            assert_eq!(converted(Number::Float(-0.0), dtype).as_deref(), Some("0"));
        }
    }

    #[test]
    fn numbers_as_floats() {
        let float64 = |value| converted(Number::Int(value), Dtype::Float64);
        let float32 = |value| converted(Number::Int(value), Dtype::Float32);
        assert_eq!(float64(1 << 53).as_deref(), Some("9007199254740992.0"));
        assert_eq!(float64((1 << 53) + 1), None);
        assert_eq!(
            float64((1 << 53) + 2).as_deref(),
            Some("9007199254740994.0")
        );
        // One above is a power of two, to which the nearest float goes.
        assert_eq!(float64((1 << 63) - 1), None);
        assert_eq!(float64((1_i128 << 64) - 1), None);
        assert_eq!(float32(1 << 24).as_deref(), Some("16777216.0"));
        assert_eq!(float32((1 << 24) + 1), None);

        let narrow = |value| converted(Number::Float(value), Dtype::Float32);
        for (value, text) in [
            (0.5, "0.5"),
            (-0.0, "-0.0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
            (f32::MAX.into(), "3.4028234663852886e38"),
            (1.401_298_464_324_817e-45, "1.401298464324817e-45"),
        ] {
            assert_eq!(narrow(value).as_deref(), Some(text));
        }
        for value in [0.1, 1e39, -1e39, 1e-46, f64::MIN_POSITIVE] {
            assert_eq!(narrow(value), None, "{value}");
        }
    }

    #[test]
    fn elements_that_are_not_kept_are_not_judged() {
        let ty = FieldType::Array {
            dtype: Dtype::Int8,
            shape: vec![2],
        };
        let given = |elements: &[f64]| {
            let array = ArrayValue::from_elements(vec![elements.len()], elements);
            Value::from(array.unwrap())
        };
        let mut into = [9; 2];
        let error = encode_value(&ty, &given(&[1.0, 1.5, 2.5]), &mut into);
        assert_eq!(
            error,
            Err(ValueError::Inexact {
                index: 1,
                found: "1.5".into(),
                dtype: Dtype::Int8
            })
        );
        assert_eq!(into, [9, 9]);
        let encoded = encode_value(&ty, &given(&[1.0, -2.0, 2.5]), &mut into);
        assert_eq!(
            encoded,
            Ok(Encoded {
                len: 2,
                truncated: true
            })
        );
        assert_eq!(into, [1, 0xfe]);
        let encoded = encode_value(&ty, &given(&[3.0]), &mut into).unwrap();
        assert_eq!((encoded.truncated, into), (true, [3, 0]));
        // One element, but not of the field's shape.
        let scalar = ArrayValue::new(Dtype::Int8, Vec::new(), vec![4]).unwrap();
        let encoded = encode_value(&ty, &scalar.into(), &mut into).unwrap();
        assert_eq!((encoded.truncated, into), (true, [4, 0]));
    }

    /// Bytes of a bool array are kept as they are, and read as truth.
    #[test]
    fn truth_values_of_any_byte() {
        let bytes = (0..=u8::MAX).collect::<Vec<_>>().repeat(3);
        let array = ArrayValue::new(Dtype::Bool, vec![3, 256], bytes.clone()).unwrap();
        let ty = FieldType::Array {
            dtype: Dtype::Bool,
            shape: vec![3, 256],
        };
        let mut into = vec![0; 768];
        encode_value(&ty, &array.clone().into(), &mut into).unwrap();
        assert_eq!(into, bytes);
        let truth: Vec<bool> = array.to_vec().unwrap();
        assert!(
            truth
                .iter()
                .zip(&bytes)
                .all(|(truth, byte)| *truth == (*byte != 0))
        );
        let numbers = FieldType::Array {
            dtype: Dtype::Float64,
            shape: vec![3],
        };
        let mut into = vec![0; 24];
        encode_value(&numbers, &array.into(), &mut into).unwrap();
        assert_eq!(into[..8], 0_f64.to_le_bytes());
        assert_eq!(into[8..16], 1_f64.to_le_bytes());
        assert_eq!(into[16..], 1_f64.to_le_bytes());
    }

    #[test]
    #[should_panic(expected = "a field of type str[3] has not 15 bytes")]
    fn another_number_of_bytes_is_the_callers_mistake() {
        decode_value(&FieldType::Text { max_chars: 3 }, &[0; 15]);
    }
}
