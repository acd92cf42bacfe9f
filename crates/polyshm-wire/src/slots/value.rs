//! Values of any field type (sections 3.2 to 3.4).

use alloc::{string::String, vec::Vec};

use super::{Dtype, ValueError};

/// The value of a field.
///
/// ```
/// use polyshm_wire::slots::{Dtype, ArrayValue, Value};
///
/// assert_eq!(Value::from(1.5), Value::Float(1.5));
/// assert_eq!(Value::from(7), Value::Int(7));
/// assert_eq!(Value::from("ok"), Value::Text("ok".to_owned()));
/// let array = ArrayValue::new(Dtype::Uint8, vec![2, 2], vec![1, 2, 3, 4])?;
/// assert_eq!(Value::from(array).kind(), "array");
/// # Ok::<(), polyshm_wire::slots::ValueError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(tag = "kind", content = "value", rename_all = "lowercase")
)]
pub enum Value {
    /// of a `float`
    Float(f64),
    /// of an `int`; wider than the field, so that a value which does not fit is
    /// refused instead of wrapped
    Int(i64),
    /// of a `bool`
    Bool(bool),
    /// of a `str[N]`
    Text(String),
    /// of an array
    Array(ArrayValue),
}

impl Value {
    /// The kind in a word, for messages.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Int(_) => "int",
            Self::Bool(_) => "bool",
            Self::Text(_) => "text",
            Self::Array(_) => "array",
        }
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::Float(value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<ArrayValue> for Value {
    fn from(value: ArrayValue) -> Self {
        Self::Array(value)
    }
}

/// An array: the bytes of its elements in C order, little-endian, with their
/// type and shape (section 3.4).
///
/// Unlike a field, a value may have no dimension at all; it is then one element.
///
/// ```
/// use polyshm_wire::slots::{ArrayValue, Dtype};
///
/// let array = ArrayValue::from_elements(vec![2, 2], &[1_i16, 2, 3, -1])?;
/// assert_eq!((array.dtype(), array.shape()), (Dtype::Int16, &[2, 2][..]));
/// assert_eq!(array.bytes(), [1, 0, 2, 0, 3, 0, 255, 255]);
/// assert_eq!(array.to_vec::<i16>().unwrap(), [1, 2, 3, -1]);
/// assert_eq!(array.to_vec::<u16>(), None);
///
/// let error = ArrayValue::from_elements(vec![3], &[1.0, 2.0]).unwrap_err();
/// assert_eq!(error.to_string(), "16 bytes are no array of float64 of the shape [3]");
/// # Ok::<(), polyshm_wire::slots::ValueError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Parts"))]
pub struct ArrayValue {
    dtype: Dtype,
    shape: Vec<usize>,
    /// as many as shape and type say
    bytes: Vec<u8>,
}

impl ArrayValue {
    /// From bytes, whose number must be that of the shape's elements.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, ValueError> {
        let need = shape
            .iter()
            .try_fold(dtype.size(), |size, dimension| size.checked_mul(*dimension));
        // With a dimension of 0 the product of those before may have been huge.
        let need = if shape.contains(&0) { Some(0) } else { need };
        if need != Some(bytes.len()) {
            return Err(ValueError::Shape {
                dtype,
                shape,
                len: bytes.len(),
            });
        }
        Ok(Self {
            dtype,
            shape,
            bytes,
        })
    }

    /// The bytes must be those of a field of this type and shape.
    pub(super) fn of_field(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Self {
        Self {
            dtype,
            shape: shape.into(),
            bytes: bytes.into(),
        }
    }

    /// From elements, in C order.
    #[cfg(target_endian = "little")]
    pub fn from_elements<T: super::Element>(
        shape: Vec<usize>,
        elements: &[T],
    ) -> Result<Self, ValueError> {
        Self::new(T::DTYPE, shape, T::as_bytes(elements).into())
    }

    /// The elements in C order; `None` when they are of another type.
    #[cfg(target_endian = "little")]
    pub fn to_vec<T: super::Element>(&self) -> Option<Vec<T>> {
        if T::DTYPE != self.dtype {
            return None;
        }
        let mut elements = alloc::vec![T::default(); self.element_count()];
        T::copy_from_bytes(&mut elements, &mut |at, into| {
            into.copy_from_slice(&self.bytes[at..][..into.len()]);
        });
        Some(elements)
    }

    /// The type of the elements.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes, in C order and little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, without a copy.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// How many elements there are.
    pub fn element_count(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }
}

/// What a serialised array consists of, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Parts {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

#[cfg(feature = "serde")]
impl TryFrom<Parts> for ArrayValue {
    type Error = ValueError;

    fn try_from(parts: Parts) -> Result<Self, ValueError> {
        Self::new(parts.dtype, parts.shape, parts.bytes)
    }
}
