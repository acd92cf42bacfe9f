//! Items as their users and as the codec see them (sections 9.1 and 9.3).

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, str};

use super::{DecodeError, UnknownKind};

/// What an item's value is; the number is its type on the wire (section 9.1).
///
/// ```
/// use polyshm_wire::eshm::ItemKind;
///
/// assert_eq!(u8::from(ItemKind::Event), 5);
/// assert_eq!(ItemKind::try_from(7)?, ItemKind::ImageFrame);
/// assert!(ItemKind::try_from(8).is_err());
/// # Ok::<(), polyshm_wire::eshm::UnknownKind>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ItemKind {
    /// an `i64`
    Integer = 0,
    /// a `bool`
    Boolean = 1,
    /// an `f64`
    Real = 2,
    /// text
    String = 3,
    /// bytes
    Binary = 4,
    /// a name and named scalars; C++ only
    Event = 5,
    /// a name, arguments and a result; C++ only
    FunctionCall = 6,
    /// an image with its size and time; C++ only
    ImageFrame = 7,
}

impl ItemKind {
    /// All of them, by number.
    pub const ALL: [Self; 8] = [
        Self::Integer,
        Self::Boolean,
        Self::Real,
        Self::String,
        Self::Binary,
        Self::Event,
        Self::FunctionCall,
        Self::ImageFrame,
    ];

    /// Whether both dialects have a form for it: the five without parts.
    pub const fn is_scalar(self) -> bool {
        (self as u8) < (Self::Event as u8)
    }
}

impl From<ItemKind> for u8 {
    fn from(kind: ItemKind) -> Self {
        kind as Self
    }
}

impl TryFrom<u8> for ItemKind {
    type Error = UnknownKind;

    fn try_from(found: u8) -> Result<Self, UnknownKind> {
        Self::ALL
            .get(usize::from(found))
            .copied()
            .ok_or(UnknownKind { found })
    }
}

impl fmt::Display for ItemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Real => "real",
            Self::String => "string",
            Self::Binary => "binary",
            Self::Event => "event",
            Self::FunctionCall => "function call",
            Self::ImageFrame => "image frame",
        })
    }
}

/// A value without parts, borrowed from a message. Text is bytes here, because
/// C++ does not check it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarRef<'a> {
    /// any `i64`
    Integer(i64),
    /// on the wire any byte but 0 is true
    Boolean(bool),
    /// any `f64`; both encoders drop the sign of -0.0
    Real(f64),
    /// supposed to be UTF-8
    String(&'a [u8]),
    /// any bytes
    Binary(&'a [u8]),
}

/// The value of an item, borrowed from a message.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// see [`ScalarRef::Integer`]
    Integer(i64),
    /// see [`ScalarRef::Boolean`]
    Boolean(bool),
    /// see [`ScalarRef::Real`]
    Real(f64),
    /// see [`ScalarRef::String`]
    String(&'a [u8]),
    /// see [`ScalarRef::Binary`]
    Binary(&'a [u8]),
    /// see [`Event`]
    Event {
        /// supposed to be UTF-8
        name: &'a [u8],
        /// in the order of the message
        params: Vec<(&'a [u8], ScalarRef<'a>)>,
    },
    /// see [`FunctionCall`]
    FunctionCall {
        /// supposed to be UTF-8
        name: &'a [u8],
        /// NULL on the wire until someone filled it
        result: Option<ScalarRef<'a>>,
        /// in their order
        args: Vec<ScalarRef<'a>>,
    },
    /// see [`ImageFrame`]
    ImageFrame {
        /// pixels
        width: u32,
        /// pixels
        height: u32,
        /// values per pixel
        channels: u32,
        /// nanoseconds since a moment that the two programs agreed upon
        timestamp_ns: u64,
        /// not compared with the size
        data: &'a [u8],
    },
}

/// An item borrowed from a message or from an [`Item`].
///
/// ```
/// use polyshm_wire::eshm::{Decoder, ItemDialect, ItemRef, ValueRef, encode_refs};
///
/// let items = [ItemRef { key: b"n", value: ValueRef::Binary(&[1, 2, 3]) }];
/// let message = encode_refs(&items, ItemDialect::Native)?;
/// assert_eq!(Decoder::new().decode_refs(&message)?, items);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ItemRef<'a> {
    /// supposed to be UTF-8, may be empty, may occur twice
    pub key: &'a [u8],
    /// the typed value
    pub value: ValueRef<'a>,
}

/// A value without parts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// any `i64`
    Integer(i64),
    /// on the wire any byte but 0 is true
    Boolean(bool),
    /// any `f64`; both encoders drop the sign of -0.0
    Real(f64),
    /// any text, also with NUL characters, at which C++'s C interface cuts it
    String(String),
    /// any bytes
    Binary(Vec<u8>),
}

/// The value of an [`Item`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// see [`Scalar::Integer`]
    Integer(i64),
    /// see [`Scalar::Boolean`]
    Boolean(bool),
    /// see [`Scalar::Real`]
    Real(f64),
    /// see [`Scalar::String`]
    String(String),
    /// see [`Scalar::Binary`]
    Binary(Vec<u8>),
    /// C++ only
    Event(Event),
    /// C++ only
    FunctionCall(FunctionCall),
    /// C++ only
    ImageFrame(ImageFrame),
}

/// Something that happened, with named scalars (section 9.3).
///
/// ```
/// use polyshm_wire::eshm::{Event, Scalar};
///
/// let event = Event::new("overheated").with_param("celsius", 91.5);
/// assert_eq!(event.param("celsius"), Some(&Scalar::Real(91.5)));
/// assert_eq!(event.param("kelvin"), None);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// may be empty
    pub name: String,
    /// in the order of the message, which C++ leaves to chance; a key may occur
    /// twice
    pub params: Vec<(String, Scalar)>,
}

/// A request to run a function, or its answer (section 9.3).
///
/// ```
/// use polyshm_wire::eshm::{FunctionCall, Scalar};
///
/// let call = FunctionCall::new("add").with_arg(10).with_arg(32);
/// assert_eq!(call.args, [Scalar::Integer(10), Scalar::Integer(32)]);
/// assert_eq!(call.result, None);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    /// what to call
    pub name: String,
    /// `None` in a request
    pub result: Option<Scalar>,
    /// in their order; an answer keeps them
    pub args: Vec<Scalar>,
}

/// An image with its size and time (section 9.3).
///
/// Nothing compares the size with the number of bytes, on no side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFrame {
    /// pixels
    pub width: u32,
    /// pixels
    pub height: u32,
    /// values per pixel
    pub channels: u32,
    /// nanoseconds since a moment that the two programs agreed upon
    pub timestamp_ns: u64,
    /// the pixels, in an order and a depth that the two programs agreed upon
    pub data: Vec<u8>,
}

/// A key and a typed value: what a message is made of.
///
/// ```
/// use polyshm_wire::eshm::{Item, ItemDialect, Value, decode, encode};
///
/// let items = [
///     Item::new("counter", 42),
///     Item::new("temperature", 23.5),
///     Item::new("status", "OK"),
/// ];
/// let message = encode(&items, ItemDialect::Native)?;
/// let read = decode(&message)?;
/// assert_eq!(read, items);
/// assert_eq!(read[0].value, Value::Integer(42));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// may be empty; a message may have a key twice, and then most readers take
    /// the last
    pub key: String,
    /// the typed value
    pub value: Value,
}

impl Event {
    /// Without parameters.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            params: Vec::new(),
        }
    }

    /// Adds one parameter behind the others.
    #[must_use]
    pub fn with_param(mut self, key: impl Into<String>, value: impl Into<Scalar>) -> Self {
        self.params.push((key.into(), value.into()));
        self
    }

    /// The parameter of that key; the last one, as in C++, where it occurs
    /// twice.
    pub fn param(&self, key: &str) -> Option<&Scalar> {
        let mut params = self.params.iter().rev();
        params.find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

impl FunctionCall {
    /// A request without arguments.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            result: None,
            args: Vec::new(),
        }
    }

    /// Adds one argument behind the others.
    #[must_use]
    pub fn with_arg(mut self, value: impl Into<Scalar>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Sets the result, which makes an answer of it.
    #[must_use]
    pub fn with_result(mut self, value: impl Into<Scalar>) -> Self {
        self.result = Some(value.into());
        self
    }
}

impl Item {
    /// From a key and anything that can be a value.
    pub fn new(key: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }

    /// The borrowed form, which the codec works on. Allocates for an event and
    /// for a function call only.
    pub fn as_ref(&self) -> ItemRef<'_> {
        ItemRef {
            key: self.key.as_bytes(),
            value: self.value.as_ref(),
        }
    }

    /// What the value is.
    pub const fn kind(&self) -> ItemKind {
        self.value.kind()
    }
}

/// The value of what is a scalar, by its type.
macro_rules! accessors {
    ($of:ty) => {
        impl $of {
            /// The integer, if it is one.
            pub const fn as_integer(&self) -> Option<i64> {
                match self {
                    Self::Integer(value) => Some(*value),
                    _ => None,
                }
            }

            /// The boolean, if it is one.
            pub const fn as_boolean(&self) -> Option<bool> {
                match self {
                    Self::Boolean(value) => Some(*value),
                    _ => None,
                }
            }

            /// The real, if it is one. An integer is none.
            pub const fn as_real(&self) -> Option<f64> {
                match self {
                    Self::Real(value) => Some(*value),
                    _ => None,
                }
            }

            /// The text, if it is text.
            pub fn as_str(&self) -> Option<&str> {
                match self {
                    Self::String(value) => Some(value),
                    _ => None,
                }
            }

            /// The bytes, if it is binary.
            pub fn as_bytes(&self) -> Option<&[u8]> {
                match self {
                    Self::Binary(value) => Some(value),
                    _ => None,
                }
            }
        }
    };
}

accessors!(Scalar);
accessors!(Value);

/// The value of a key; of several, the last one's, as in the reference.
///
/// ```
/// use polyshm_wire::eshm::{Item, Value, item_value};
///
/// let items = [Item::new("speed", 3), Item::new("name", "left"), Item::new("speed", 4)];
/// assert_eq!(item_value(&items, "speed").and_then(Value::as_integer), Some(4));
/// assert_eq!(item_value(&items, "name").and_then(Value::as_str), Some("left"));
/// assert_eq!(item_value(&items, "force"), None);
/// ```
pub fn item_value<'a>(items: &'a [Item], key: &str) -> Option<&'a Value> {
    items
        .iter()
        .rev()
        .find(|item| item.key == key)
        .map(|item| &item.value)
}

impl ScalarRef<'_> {
    /// What it is.
    pub const fn kind(&self) -> ItemKind {
        match self {
            Self::Integer(_) => ItemKind::Integer,
            Self::Boolean(_) => ItemKind::Boolean,
            Self::Real(_) => ItemKind::Real,
            Self::String(_) => ItemKind::String,
            Self::Binary(_) => ItemKind::Binary,
        }
    }
}

impl ValueRef<'_> {
    /// What it is.
    pub const fn kind(&self) -> ItemKind {
        match self {
            Self::Integer(_) => ItemKind::Integer,
            Self::Boolean(_) => ItemKind::Boolean,
            Self::Real(_) => ItemKind::Real,
            Self::String(_) => ItemKind::String,
            Self::Binary(_) => ItemKind::Binary,
            Self::Event { .. } => ItemKind::Event,
            Self::FunctionCall { .. } => ItemKind::FunctionCall,
            Self::ImageFrame { .. } => ItemKind::ImageFrame,
        }
    }
}

impl Scalar {
    /// The borrowed form.
    pub fn as_ref(&self) -> ScalarRef<'_> {
        match self {
            Self::Integer(value) => ScalarRef::Integer(*value),
            Self::Boolean(value) => ScalarRef::Boolean(*value),
            Self::Real(value) => ScalarRef::Real(*value),
            Self::String(text) => ScalarRef::String(text.as_bytes()),
            Self::Binary(bytes) => ScalarRef::Binary(bytes),
        }
    }

    /// What it is.
    pub const fn kind(&self) -> ItemKind {
        match self {
            Self::Integer(_) => ItemKind::Integer,
            Self::Boolean(_) => ItemKind::Boolean,
            Self::Real(_) => ItemKind::Real,
            Self::String(_) => ItemKind::String,
            Self::Binary(_) => ItemKind::Binary,
        }
    }
}

impl Value {
    /// The borrowed form, see [`Item::as_ref`].
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Boolean(value) => ValueRef::Boolean(*value),
            Self::Real(value) => ValueRef::Real(*value),
            Self::String(text) => ValueRef::String(text.as_bytes()),
            Self::Binary(bytes) => ValueRef::Binary(bytes),
            Self::Event(event) => ValueRef::Event {
                name: event.name.as_bytes(),
                params: event
                    .params
                    .iter()
                    .map(|(key, value)| (key.as_bytes(), value.as_ref()))
                    .collect(),
            },
            Self::FunctionCall(call) => ValueRef::FunctionCall {
                name: call.name.as_bytes(),
                result: call.result.as_ref().map(Scalar::as_ref),
                args: call.args.iter().map(Scalar::as_ref).collect(),
            },
            Self::ImageFrame(frame) => ValueRef::ImageFrame {
                width: frame.width,
                height: frame.height,
                channels: frame.channels,
                timestamp_ns: frame.timestamp_ns,
                data: &frame.data,
            },
        }
    }

    /// What it is.
    pub const fn kind(&self) -> ItemKind {
        match self {
            Self::Integer(_) => ItemKind::Integer,
            Self::Boolean(_) => ItemKind::Boolean,
            Self::Real(_) => ItemKind::Real,
            Self::String(_) => ItemKind::String,
            Self::Binary(_) => ItemKind::Binary,
            Self::Event(_) => ItemKind::Event,
            Self::FunctionCall(_) => ItemKind::FunctionCall,
            Self::ImageFrame(_) => ItemKind::ImageFrame,
        }
    }
}

/// The same conversions into a scalar and into a value of any kind.
macro_rules! conversions {
    ($($from:ty => $variant:ident: $convert:expr;)+) => { $(
        impl From<$from> for Scalar {
            fn from(value: $from) -> Self {
                let convert: fn($from) -> _ = $convert;
                Self::$variant(convert(value))
            }
        }

        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Scalar::from(value).into()
            }
        }
    )+ };
}

conversions! {
    i64 => Integer: |value| value;
    i32 => Integer: i64::from;
    i16 => Integer: i64::from;
    i8 => Integer: i64::from;
    u32 => Integer: i64::from;
    u16 => Integer: i64::from;
    u8 => Integer: i64::from;
    bool => Boolean: |value| value;
    f64 => Real: |value| value;
    f32 => Real: f64::from;
    &str => String: ToOwned::to_owned;
    String => String: |text| text;
    &[u8] => Binary: <[u8]>::to_vec;
    Vec<u8> => Binary: |bytes| bytes;
}

impl From<Scalar> for Value {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Integer(value) => Self::Integer(value),
            Scalar::Boolean(value) => Self::Boolean(value),
            Scalar::Real(value) => Self::Real(value),
            Scalar::String(text) => Self::String(text),
            Scalar::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<Event> for Value {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<FunctionCall> for Value {
    fn from(call: FunctionCall) -> Self {
        Self::FunctionCall(call)
    }
}

impl From<ImageFrame> for Value {
    fn from(frame: ImageFrame) -> Self {
        Self::ImageFrame(frame)
    }
}

/// Checks the text of an element of the item with this key.
fn text(element: &'static str, key: &[u8], bytes: &[u8]) -> Result<String, DecodeError> {
    match str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(source) => Err(DecodeError::Text {
            element,
            key: String::from_utf8_lossy(key).into_owned(),
            offset: source.valid_up_to(),
            source,
        }),
    }
}

fn scalar(element: &'static str, key: &[u8], scalar: ScalarRef<'_>) -> Result<Scalar, DecodeError> {
    Ok(match scalar {
        ScalarRef::Integer(value) => Scalar::Integer(value),
        ScalarRef::Boolean(value) => Scalar::Boolean(value),
        ScalarRef::Real(value) => Scalar::Real(value),
        ScalarRef::String(bytes) => Scalar::String(text(element, key, bytes)?),
        ScalarRef::Binary(bytes) => Scalar::Binary(bytes.to_vec()),
    })
}

/// The only refusal is [`DecodeError::Text`], for text that is not UTF-8.
impl TryFrom<ItemRef<'_>> for Item {
    type Error = DecodeError;

    fn try_from(item: ItemRef<'_>) -> Result<Self, DecodeError> {
        let key = item.key;
        let value = match item.value {
            ValueRef::Integer(value) => Value::Integer(value),
            ValueRef::Boolean(value) => Value::Boolean(value),
            ValueRef::Real(value) => Value::Real(value),
            ValueRef::String(bytes) => Value::String(text("value", key, bytes)?),
            ValueRef::Binary(bytes) => Value::Binary(bytes.to_vec()),
            ValueRef::Event { name, params } => Value::Event(Event {
                name: text("event name", key, name)?,
                params: params
                    .into_iter()
                    .map(|(name, value)| {
                        Ok((
                            text("parameter name", key, name)?,
                            scalar("parameter", key, value)?,
                        ))
                    })
                    .collect::<Result<_, DecodeError>>()?,
            }),
            ValueRef::FunctionCall { name, result, args } => Value::FunctionCall(FunctionCall {
                name: text("function name", key, name)?,
                result: result
                    .map(|value| scalar("function result", key, value))
                    .transpose()?,
                args: args
                    .into_iter()
                    .map(|value| scalar("function argument", key, value))
                    .collect::<Result<_, DecodeError>>()?,
            }),
            ValueRef::ImageFrame {
                width,
                height,
                channels,
                timestamp_ns,
                data,
            } => Value::ImageFrame(ImageFrame {
                width,
                height,
                channels,
                timestamp_ns,
                data: data.to_vec(),
            }),
        };
        let key = text("key", key, key)?;
        Ok(Self { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_their_numbers() {
        for (number, kind) in (0_u8..).zip(ItemKind::ALL) {
            assert_eq!(u8::from(kind), number);
            assert_eq!(ItemKind::try_from(number), Ok(kind));
            assert_eq!(kind.is_scalar(), number < 5);
        }
        assert_eq!(ItemKind::try_from(255), Err(UnknownKind { found: 255 }));
    }

    #[test]
    fn the_last_parameter_of_a_key() {
        let event = Event::new("e").with_param("a", 1).with_param("a", "x");
        assert_eq!(event.param("a"), Some(&Scalar::String("x".into())));
        assert_eq!(event.params.len(), 2);
    }

    #[test]
    fn text_is_checked() {
        let broken: &[u8] = b"ab\xff";
        let item = |key, value| Item::try_from(ItemRef { key, value });
        let error = item(b"k\xfe", ValueRef::String(broken)).unwrap_err();
        let DecodeError::Text {
            element,
            key,
            offset,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((*element, key.as_str(), *offset), ("value", "k\u{fffd}", 2));
        for (value, expected) in [
            (ValueRef::Integer(1), "key"),
            (
                ValueRef::Event {
                    name: broken,
                    params: Vec::new(),
                },
                "event name",
            ),
            (
                ValueRef::Event {
                    name: b"",
                    params: [(broken, ScalarRef::Integer(1))].into(),
                },
                "parameter name",
            ),
            (
                ValueRef::FunctionCall {
                    name: b"",
                    result: Some(ScalarRef::String(broken)),
                    args: Vec::new(),
                },
                "function result",
            ),
            (
                ValueRef::FunctionCall {
                    name: b"",
                    result: None,
                    args: [ScalarRef::Binary(broken), ScalarRef::String(broken)].into(),
                },
                "function argument",
            ),
        ] {
            let error = item(broken, value).unwrap_err();
            assert!(
                matches!(error, DecodeError::Text { element, .. } if element == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn there_and_back() {
        let items = [
            Item::new("i", -2),
            Item::new("b", false),
            Item::new("r", 0.25_f32),
            Item::new("s", String::from("x")),
            Item::new("n", &[0_u8, 7][..]),
            Item::new("v", alloc::vec![1_u8]),
            Item::new("e", Event::new("alert").with_param("level", 3_u32)),
            Item::new("f", FunctionCall::new("add").with_arg(1).with_result(true)),
            Item::new(
                "g",
                ImageFrame {
                    width: 1,
                    height: 2,
                    channels: 3,
                    timestamp_ns: u64::MAX,
                    data: Vec::new(),
                },
            ),
        ];
        for item in items {
            assert_eq!(item.as_ref().value.kind(), item.kind());
            assert_eq!(Item::try_from(item.as_ref()), Ok(item));
        }
    }
}
