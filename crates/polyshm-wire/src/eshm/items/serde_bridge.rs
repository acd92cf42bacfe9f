//! Flat structs and maps as items, through serde.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::{
    Deserializer, Serialize, Serializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, Unexpected, Visitor,
        value::SeqDeserializer,
    },
    forward_to_deserialize_any,
    ser::{self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple},
};
use thiserror::Error;

use super::{Item, Value};

/// Why a value cannot become items, or items a value.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeError {
    /// Items come from named fields.
    #[error("{found} cannot become items, a struct or a map with text as keys can")]
    Root {
        /// what was given
        found: &'static str,
    },
    /// The key of an item is text.
    #[error("{found} cannot be the key of an item, text can")]
    Key {
        /// what was given
        found: &'static str,
    },
    /// A field has no place in an item; the source says why.
    #[error("the field {key:?} cannot become an item")]
    ToItem {
        /// the field, or the map's key
        key: String,
        /// what is wrong with its value
        source: Box<BridgeError>,
    },
    /// An item does not fit the field of its name; the source says why.
    #[error("the item {key:?} cannot become the field of its name")]
    FromItem {
        /// the item's key
        key: String,
        /// what is wrong with its value
        source: Box<BridgeError>,
    },
    /// Only numbers, truth values, text and bytes fit one item.
    #[error(
        "{found} does not fit one item; give it items of its own, or encode it as bytes or text"
    )]
    Unsupported {
        /// what was given
        found: &'static str,
    },
    /// An integer on the wire has 64 bits with a sign.
    #[error("{found} does not fit an integer item, -2^63 to 2^63-1 do; send it as text or real")]
    Range {
        /// the value, in decimal
        found: String,
    },
    /// What the type itself, or serde, had to say.
    #[error("{0}")]
    Custom(String),
}

impl ser::Error for BridgeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

impl de::Error for BridgeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Custom(message.to_string())
    }
}

/// Turns a struct, or a map with text as keys, into one item per field.
///
/// A field may be an integer, a truth value, a real number, text or a
/// character, bytes (also a list or an array of `u8`), a variant without
/// content (as its name), or an `Option` of these, whose `None` leaves the item
/// out. Everything else is refused, as are integers that do not fit `i64`.
///
/// ```
/// use polyshm_wire::eshm::{Item, from_items, to_items};
///
/// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
/// struct Reading {
///     counter: u32,
///     celsius: f64,
///     note: Option<String>,
/// }
///
/// let reading = Reading { counter: 7, celsius: 23.5, note: None };
/// let items = to_items(&reading)?;
/// assert_eq!(items, [Item::new("counter", 7), Item::new("celsius", 23.5)]);
/// assert_eq!(from_items::<Reading>(&items)?, reading);
/// # Ok::<(), polyshm_wire::eshm::BridgeError>(())
/// ```
pub fn to_items<T: Serialize + ?Sized>(value: &T) -> Result<Vec<Item>, BridgeError> {
    value.serialize(Root)
}

/// Builds a struct or a map out of items: the reverse of [`to_items`].
///
/// Where a key occurs twice the last item counts. An item without a field is
/// ignored, unless the type says otherwise (`deny_unknown_fields`), and a field
/// of an `Option` may lack its item. Events, function calls and images fit no
/// field.
pub fn from_items<T: DeserializeOwned>(items: &[Item]) -> Result<T, BridgeError> {
    T::deserialize(Items(items))
}

/// Methods of a serializer that refuse what they are given.
macro_rules! refuse {
    ($error:ident: $($method:ident($($arg:ty),*) $(-> $ok:ty)?, $found:literal;)+) => { $(
        refuse!(@ $error $method($($arg),*) $($ok)?, $found);
    )+ };
    (@ $error:ident $method:ident($($arg:ty),*) $ok:ty, $found:literal) => {
        fn $method(self, $(_: $arg),*) -> Result<$ok, BridgeError> {
            Err(BridgeError::$error { found: $found })
        }
    };
    (@ $error:ident $method:ident($($arg:ty),*), $found:literal) => {
        fn $method(self, $(_: $arg),*) -> Result<Self::Ok, BridgeError> {
            Err(BridgeError::$error { found: $found })
        }
    };
}

macro_rules! refuse_scalars {
    ($error:ident) => {
        refuse! { $error:
            serialize_bool(bool), "a truth value";
            serialize_i8(i8), "a number";
            serialize_i16(i16), "a number";
            serialize_i32(i32), "a number";
            serialize_i64(i64), "a number";
            serialize_u16(u16), "a number";
            serialize_u32(u32), "a number";
            serialize_u64(u64), "a number";
            serialize_f32(f32), "a number";
            serialize_f64(f64), "a number";
            serialize_bytes(&[u8]), "a run of bytes";
        }
    };
}

macro_rules! refuse_text {
    ($error:ident) => {
        refuse! { $error:
            serialize_char(char), "text";
            serialize_str(&str), "text";
            serialize_unit_variant(&'static str, u32, &'static str), "a variant";
        }
    };
}

macro_rules! refuse_options {
    ($error:ident) => {
        refuse! { $error: serialize_none(), "nothing"; }

        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, BridgeError> {
            Err(BridgeError::$error { found: "an option" })
        }
    };
}

macro_rules! refuse_units_and_variants {
    ($error:ident) => {
        refuse! { $error:
            serialize_unit(), "nothing";
            serialize_unit_struct(&'static str), "a struct without fields";
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
                "a struct without names";
            serialize_tuple_variant(&'static str, u32, &'static str, usize)
                -> Self::SerializeTupleVariant, "a variant with content";
            serialize_struct_variant(&'static str, u32, &'static str, usize)
                -> Self::SerializeStructVariant, "a variant with content";
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok, BridgeError> {
            Err(BridgeError::$error {
                found: "a variant with content",
            })
        }
    };
}

macro_rules! refuse_lists {
    ($error:ident) => {
        refuse! { $error:
            serialize_seq(Option<usize>) -> Self::SerializeSeq, "a list";
            serialize_tuple(usize) -> Self::SerializeTuple, "a tuple";
        }
    };
}

macro_rules! refuse_maps {
    ($error:ident) => {
        refuse! { $error:
            serialize_map(Option<usize>) -> Self::SerializeMap, "a map";
            serialize_struct(&'static str, usize) -> Self::SerializeStruct, "a struct";
        }
    };
}

macro_rules! look_inside_newtypes {
    () => {
        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            value: &T,
        ) -> Result<Self::Ok, BridgeError> {
            value.serialize(self)
        }
    };
}

/// The type that has the fields.
struct Root;

impl Serializer for Root {
    type Ok = Vec<Item>;
    type Error = BridgeError;
    type SerializeSeq = Impossible<Self::Ok, BridgeError>;
    type SerializeTuple = Impossible<Self::Ok, BridgeError>;
    type SerializeTupleStruct = Impossible<Self::Ok, BridgeError>;
    type SerializeTupleVariant = Impossible<Self::Ok, BridgeError>;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Self::Ok, BridgeError>;

    refuse_scalars!(Root);
    refuse_text!(Root);
    refuse_options!(Root);
    refuse_units_and_variants!(Root);
    refuse_lists!(Root);
    refuse! { Root: serialize_u8(u8), "a number"; }
    look_inside_newtypes!();

    fn serialize_map(self, len: Option<usize>) -> Result<Fields, BridgeError> {
        Ok(Fields::new(len.unwrap_or(0)))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Fields, BridgeError> {
        Ok(Fields::new(len))
    }
}

struct Fields {
    items: Vec<Item>,
    /// of the map's next value
    key: String,
}

impl Fields {
    fn new(len: usize) -> Self {
        Self {
            // What the type claims, so not to be believed without limit.
            items: Vec::with_capacity(len.min(1024)),
            key: String::new(),
        }
    }

    fn push<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), BridgeError> {
        match value.serialize(Field) {
            Ok(Some(value)) => self.items.push(Item { key, value }),
            Ok(None) => {}
            Err(source) => {
                let source = Box::new(source);
                return Err(BridgeError::ToItem { key, source });
            }
        }
        Ok(())
    }
}

impl SerializeMap for Fields {
    type Ok = Vec<Item>;
    type Error = BridgeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), BridgeError> {
        self.key = key.serialize(Key)?;
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
        let key = core::mem::take(&mut self.key);
        self.push(key, value)
    }

    fn end(self) -> Result<Vec<Item>, BridgeError> {
        Ok(self.items)
    }
}

impl SerializeStruct for Fields {
    type Ok = Vec<Item>;
    type Error = BridgeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), BridgeError> {
        self.push(key.to_owned(), value)
    }

    fn end(self) -> Result<Vec<Item>, BridgeError> {
        Ok(self.items)
    }
}

/// The key of a map.
struct Key;

impl Serializer for Key {
    type Ok = String;
    type Error = BridgeError;
    type SerializeSeq = Impossible<String, BridgeError>;
    type SerializeTuple = Impossible<String, BridgeError>;
    type SerializeTupleStruct = Impossible<String, BridgeError>;
    type SerializeTupleVariant = Impossible<String, BridgeError>;
    type SerializeMap = Impossible<String, BridgeError>;
    type SerializeStruct = Impossible<String, BridgeError>;
    type SerializeStructVariant = Impossible<String, BridgeError>;

    refuse_scalars!(Key);
    refuse_options!(Key);
    refuse_units_and_variants!(Key);
    refuse_lists!(Key);
    refuse_maps!(Key);
    refuse! { Key: serialize_u8(u8), "a number"; }
    look_inside_newtypes!();

    fn serialize_char(self, value: char) -> Result<String, BridgeError> {
        Ok(value.into())
    }

    fn serialize_str(self, value: &str) -> Result<String, BridgeError> {
        Ok(value.to_owned())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, BridgeError> {
        Ok(variant.to_owned())
    }
}

/// The value of a field; `None` leaves it out.
struct Field;

fn integer<T: TryInto<i64> + Copy + ToString>(value: T) -> Result<Option<Value>, BridgeError> {
    match value.try_into() {
        Ok(value) => Ok(Some(Value::Integer(value))),
        Err(_) => Err(BridgeError::Range {
            found: value.to_string(),
        }),
    }
}

impl Serializer for Field {
    type Ok = Option<Value>;
    type Error = BridgeError;
    type SerializeSeq = Bytes;
    type SerializeTuple = Bytes;
    type SerializeTupleStruct = Impossible<Self::Ok, BridgeError>;
    type SerializeTupleVariant = Impossible<Self::Ok, BridgeError>;
    type SerializeMap = Impossible<Self::Ok, BridgeError>;
    type SerializeStruct = Impossible<Self::Ok, BridgeError>;
    type SerializeStructVariant = Impossible<Self::Ok, BridgeError>;

    refuse_units_and_variants!(Unsupported);
    refuse_maps!(Unsupported);
    look_inside_newtypes!();

    fn serialize_bool(self, value: bool) -> Result<Self::Ok, BridgeError> {
        Ok(Some(value.into()))
    }

    fn serialize_i8(self, value: i8) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_i16(self, value: i16) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_i32(self, value: i32) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_i64(self, value: i64) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_i128(self, value: i128) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_u16(self, value: u16) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_u32(self, value: u32) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_u64(self, value: u64) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_u128(self, value: u128) -> Result<Self::Ok, BridgeError> {
        integer(value)
    }

    fn serialize_f32(self, value: f32) -> Result<Self::Ok, BridgeError> {
        Ok(Some(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Result<Self::Ok, BridgeError> {
        Ok(Some(value.into()))
    }

    fn serialize_char(self, value: char) -> Result<Self::Ok, BridgeError> {
        Ok(Some(Value::String(value.into())))
    }

    fn serialize_str(self, value: &str) -> Result<Self::Ok, BridgeError> {
        Ok(Some(value.into()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Self::Ok, BridgeError> {
        Ok(Some(value.into()))
    }

    fn serialize_none(self) -> Result<Self::Ok, BridgeError> {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, BridgeError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Self::Ok, BridgeError> {
        Ok(Some(variant.into()))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Bytes, BridgeError> {
        Ok(Bytes(Vec::new()))
    }

    fn serialize_tuple(self, _: usize) -> Result<Bytes, BridgeError> {
        Ok(Bytes(Vec::new()))
    }
}

/// A list of bytes, one by one.
struct Bytes(Vec<u8>);

impl SerializeSeq for Bytes {
    type Ok = Option<Value>;
    type Error = BridgeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
        self.0.push(value.serialize(Byte)?);
        Ok(())
    }

    fn end(self) -> Result<Self::Ok, BridgeError> {
        Ok(Some(Value::Binary(self.0)))
    }
}

impl SerializeTuple for Bytes {
    type Ok = Option<Value>;
    type Error = BridgeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), BridgeError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<Self::Ok, BridgeError> {
        SerializeSeq::end(self)
    }
}

/// An element of a list.
struct Byte;

/// What a list with any other element is.
macro_rules! refuse_elements {
    ($($method:ident($($arg:ty),*) $(-> $ok:ty)?;)+) => {
        refuse! { Unsupported: $($method($($arg),*) $(-> $ok)?, "a list of anything but bytes";)+ }
    };
}

impl Serializer for Byte {
    type Ok = u8;
    type Error = BridgeError;
    type SerializeSeq = Impossible<u8, BridgeError>;
    type SerializeTuple = Impossible<u8, BridgeError>;
    type SerializeTupleStruct = Impossible<u8, BridgeError>;
    type SerializeTupleVariant = Impossible<u8, BridgeError>;
    type SerializeMap = Impossible<u8, BridgeError>;
    type SerializeStruct = Impossible<u8, BridgeError>;
    type SerializeStructVariant = Impossible<u8, BridgeError>;

    refuse_elements! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_bytes(&[u8]);
        serialize_char(char);
        serialize_str(&str);
        serialize_unit_variant(&'static str, u32, &'static str);
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
    }
    refuse_options!(Unsupported);
    refuse_units_and_variants!(Unsupported);
    look_inside_newtypes!();

    fn serialize_u8(self, value: u8) -> Result<u8, BridgeError> {
        Ok(value)
    }
}

/// All items as one map.
struct Items<'a>(&'a [Item]);

impl<'de> Deserializer<'de> for Items<'_> {
    type Error = BridgeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        let mut last = BTreeMap::new();
        for (at, item) in self.0.iter().enumerate() {
            last.insert(item.key.as_str(), at);
        }
        visitor.visit_map(Entries {
            items: self.0.iter().enumerate(),
            last,
            current: None,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries<'a> {
    items: core::iter::Enumerate<core::slice::Iter<'a, Item>>,
    /// the last place of each key; derived types refuse a key that comes twice
    last: BTreeMap<&'a str, usize>,
    /// the item whose key was given and whose value is next
    current: Option<&'a Item>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = BridgeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, BridgeError> {
        let last = &self.last;
        let is_last = |(at, item): &(usize, &Item)| last.get(item.key.as_str()) == Some(at);
        let Some((_, item)) = self.items.find(is_last) else {
            return Ok(None);
        };
        self.current = Some(item);
        seed.deserialize(item.key.as_str().into_deserializer())
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, BridgeError> {
        let Some(item) = self.current.take() else {
            // Only a type that does not keep to serde's order comes here.
            return Err(BridgeError::Custom("a value before its key".to_owned()));
        };
        seed.deserialize(FieldValue(&item.value))
            .map_err(|source| BridgeError::FromItem {
                key: item.key.clone(),
                source: Box::new(source),
            })
    }
}

/// The value of one item.
struct FieldValue<'a>(&'a Value);

impl<'de> Deserializer<'de> for FieldValue<'_> {
    type Error = BridgeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        match self.0 {
            Value::Integer(value) => visitor.visit_i64(*value),
            Value::Boolean(value) => visitor.visit_bool(*value),
            Value::Real(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_str(text),
            Value::Binary(bytes) => visitor.visit_bytes(bytes),
            other => Err(de::Error::invalid_type(unexpected(other), &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        match self.0 {
            Value::Binary(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied())),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, BridgeError> {
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            other => Err(de::Error::invalid_type(unexpected(other), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BridgeError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple_struct map struct identifier
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Integer(value) => Unexpected::Signed(*value),
        Value::Boolean(value) => Unexpected::Bool(*value),
        Value::Real(value) => Unexpected::Float(*value),
        Value::String(text) => Unexpected::Str(text),
        Value::Binary(bytes) => Unexpected::Bytes(bytes),
        Value::Event(_) => Unexpected::Other("an event"),
        Value::FunctionCall(_) => Unexpected::Other("a function call"),
        Value::ImageFrame(_) => Unexpected::Other("an image frame"),
    }
}

#[cfg(test)]
mod tests {
    use core::error::Error as _;

    use serde::Deserialize;

    use super::super::Event;
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Mode {
        Idle,
        #[serde(rename = "go")]
        Running,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Id(u16);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        small: i8,
        large: u64,
        wide: i128,
        yes: bool,
        single: f32,
        double: f64,
        letter: char,
        text: String,
        bytes: Vec<u8>,
        array: [u8; 3],
        mode: Mode,
        id: Id,
        there: Option<i32>,
        absent: Option<String>,
    }

    fn all() -> All {
        All {
            small: -1,
            large: i64::MAX as u64,
            wide: i64::MIN.into(),
            yes: true,
            single: 0.5,
            double: f64::MIN_POSITIVE,
            letter: '\u{e9}',
            text: "a\0b".into(),
            bytes: Vec::new(),
            array: [1, 2, 3],
            mode: Mode::Running,
            id: Id(9),
            there: Some(4),
            absent: None,
        }
    }

    #[test]
    fn every_kind_of_field() {
        let items = to_items(&all()).unwrap();
        assert_eq!(items.len(), 13);
        assert_eq!(items[8], Item::new("bytes", Vec::new()));
        assert_eq!(items[9], Item::new("array", &[1, 2, 3][..]));
        assert_eq!(items[10], Item::new("mode", "go"));
        assert_eq!(items[11], Item::new("id", 9));
        assert_eq!(from_items::<All>(&items), Ok(all()));
        // The order does not matter, and the last of a key counts.
        let mut items = items;
        items.reverse();
        items.insert(0, Item::new("small", "not even a number"));
        items.push(Item::new("there", 5));
        let other = from_items::<All>(&items).unwrap();
        assert_eq!((other.there, other.small), (Some(5), -1));
    }

    #[test]
    fn maps() {
        let map = BTreeMap::from([("a", 1), ("b", 2)]);
        let items = to_items(&map).unwrap();
        assert_eq!(items, [Item::new("a", 1), Item::new("b", 2)]);
        let map: BTreeMap<String, u8> = from_items(&items).unwrap();
        assert_eq!(map["b"], 2);
        let map = BTreeMap::from([(Id(1), 2)].map(|(key, value)| (key.0, value)));
        assert_eq!(to_items(&map), Err(BridgeError::Key { found: "a number" }));
        assert_eq!(
            to_items(&[1, 2][..]),
            Err(BridgeError::Root { found: "a list" })
        );
        assert_eq!(to_items("x"), Err(BridgeError::Root { found: "text" }));
    }

    #[test]
    fn what_does_not_fit_names_its_field() {
        #[derive(Serialize)]
        struct Outer<T> {
            fine: u8,
            inner: T,
        }
        fn refusal<T: Serialize>(inner: T) -> (String, String) {
            let error = to_items(&Outer { fine: 1, inner }).unwrap_err();
            (error.to_string(), error.source().unwrap().to_string())
        }
        let field = "the field \"inner\" cannot become an item";
        let rest = "does not fit one item; give it items of its own, or encode it as bytes or text";
        for ((error, source), found) in [
            (refusal(Outer { fine: 1, inner: 1 }), "a struct"),
            (refusal(BTreeMap::from([(1, 2)])), "a map"),
            (refusal([1_u16]), "a list of anything but bytes"),
            (refusal([Some(1_u8)]), "an option"),
            (refusal(()), "nothing"),
            (refusal(Ok::<u8, u8>(1)), "a variant with content"),
        ] {
            assert_eq!(error, field);
            assert_eq!(source, alloc::format!("{found} {rest}"));
        }
        let (error, source) = refusal(1_u64 << 63);
        assert_eq!(error, field);
        assert!(source.starts_with("9223372036854775808 does not fit"));
    }

    #[test]
    fn items_that_do_not_fit() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Loose {
            #[serde(default)]
            n: u8,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tight {
            n: u8,
        }
        let event = Item::new("e", Event::new("x"));
        let items = [Item::new("n", 200), event.clone()];
        assert_eq!(from_items(&items), Ok(Loose { n: 200 }));
        let error = from_items::<Tight>(&items).unwrap_err();
        assert!(error.to_string().contains("unknown field `e`"), "{error}");
        assert_eq!(from_items(&items[..1]), Ok(Tight { n: 200 }));
        let error = from_items::<Tight>(&[]).unwrap_err();
        assert_eq!(error.to_string(), "missing field `n`");

        let wrong: [Value; 4] = [256.into(), (-1).into(), "1".into(), event.value];
        for value in wrong {
            let error = from_items::<Tight>(&[Item::new("n", value)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the item \"n\" cannot become the field of its name"
            );
            assert!(error.source().unwrap().to_string().contains("expected u8"));
        }
    }
}
