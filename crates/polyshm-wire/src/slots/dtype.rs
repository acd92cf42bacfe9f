//! The element types of arrays (section 3.4).

use core::fmt;

/// The type of an array's elements (section 3.4).
///
/// ```
/// use polyshm_wire::slots::Dtype;
///
/// let dtype = Dtype::from_name("uint16").unwrap();
/// assert_eq!((dtype, dtype.size()), (Dtype::Uint16, 2));
/// assert_eq!(dtype.to_string(), "uint16");
/// assert_eq!(Dtype::from_name("float16"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Dtype {
    /// IEEE binary32
    Float32,
    /// IEEE binary64
    Float64,
    /// two's complement, as all signed ones
    Int8,
    /// two bytes
    Int16,
    /// four bytes
    Int32,
    /// eight bytes
    Int64,
    /// unsigned, one byte
    Uint8,
    /// unsigned, two bytes
    Uint16,
    /// unsigned, four bytes
    Uint32,
    /// unsigned, eight bytes
    Uint64,
    /// one byte; anything but 0 is true
    Bool,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Float32,
        Self::Float64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Bool,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 | Self::Bool => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Float32 | Self::Int32 | Self::Uint32 => 4,
            Self::Float64 | Self::Int64 | Self::Uint64 => 8,
        }
    }

    /// The name in an annotation, which is numpy's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Int8 => "int8",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Bool => "bool",
        }
    }

    /// The type of exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
