//! A message into items (sections 9.1 to 9.3 and 9.7).

use alloc::vec::Vec;

use super::{DecodeError, Item, ItemKind, ItemRef, REAL_IEEE, ScalarRef, ValueRef, tag};

const SEQUENCE_TAGS: &str = "0x30, 0x10 (SEQUENCE)";
const LENIENT_SEQUENCE_TAGS: &str = "any with the low five bits of 0x10 (SEQUENCE)";
const SCALAR_TAGS: &str = "0x01, 0x02, 0x04, 0x09, 0x0c (a scalar)";

/// Decodes a message of either dialect, by the strict rules of [`Decoder`].
///
/// ```
/// use polyshm_wire::eshm::{Item, decode};
///
/// // Key "k" with the integer 42, as pure Python writes it.
/// let message = [
///     0x10, 15, 0x10, 3, 2, 1, 0, 0x10, 3, 12, 1, b'k', 0x10, 3, 2, 1, 42,
/// ];
/// assert_eq!(decode(&message)?, [Item::new("k", 42)]);
/// let error = decode(&message[..16]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the message (SEQUENCE) ends early: it needs 15 more bytes at byte 2, 14 are left to it",
/// );
/// # Ok::<(), polyshm_wire::eshm::DecodeError>(())
/// ```
pub fn decode(message: &[u8]) -> Result<Vec<Item>, DecodeError> {
    Decoder::new().decode(message)
}

/// Reads messages of either dialect.
///
/// What it allocates grows with the bytes of the message, never with a length
/// that the message claims, and there is no recursion.
///
/// # Strict
///
/// A sequence has tag 0x30 or 0x10, the same in the whole message, and its
/// elements fill it to the last byte; nothing follows the outer one. There are
/// as many types, keys and values, the types are 0 to 7 and the values' tags
/// fit them. A boolean has 1 byte, a real number 0 or 9, an integer 1 to 8,
/// or more in a message of Python's as long as it fits 64 bits. A length has up
/// to 5 bytes, and it and an integer may be longer than need be. The sizes of
/// an image are not negative and fit 32 bits.
///
/// # Lenient
///
/// Accepts what the C++ reference accepts (section 9.7), besides all that is
/// strict: any tag with the low five bits 0x10 as a sequence, mixed ones too;
/// bytes behind the outer sequence; types and sizes of an image that are cut to
/// 8 and 32 bits; 0x80 as a length of 0; a real number of any declared length
/// and its legacy form. Where C++ gives an item of an unknown type an empty
/// value, and where it reads outside a legacy number, this is still an error.
///
/// ```
/// use polyshm_wire::eshm::{Decoder, Item, ItemDialect, encode};
///
/// let mut message = encode(&[Item::new("k", 42)], ItemDialect::Native)?;
/// message.push(0);
/// assert!(Decoder::new().decode(&message).is_err());
/// let items = Decoder::new().lenient(true).decode(&message)?;
/// assert_eq!(items, [Item::new("k", 42)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoder {
    lenient: bool,
}

impl Decoder {
    /// With the strict rules.
    pub const fn new() -> Self {
        Self { lenient: false }
    }

    /// Chooses the lenient rules, or the strict ones again.
    #[must_use]
    pub const fn lenient(self, lenient: bool) -> Self {
        Self { lenient }
    }

    /// Decodes a message. Text that is not UTF-8 is refused by both rules.
    pub fn decode(&self, message: &[u8]) -> Result<Vec<Item>, DecodeError> {
        let items = self.decode_refs(message)?;
        items.into_iter().map(Item::try_from).collect()
    }

    /// Decodes a message into items that borrow from it. Text is not checked.
    pub fn decode_refs<'a>(&self, message: &'a [u8]) -> Result<Vec<ItemRef<'a>>, DecodeError> {
        let mut whole = Reader {
            message,
            at: 0,
            end: message.len(),
            lenient: self.lenient,
            first: message.first().copied().unwrap_or(0),
        };
        let mut outer = whole.sequence(OUTER)?;
        let mut types = outer.sequence(TYPES)?;
        let mut keys = outer.sequence(KEYS)?;
        let mut data = outer.sequence(DATA)?;
        outer.finish(OUTER)?;
        if !self.lenient && whole.left() > 0 {
            return Err(DecodeError::Trailing {
                offset: whole.at,
                left: whole.left(),
            });
        }

        // The least that a type, a key and a value take; types as everybody
        // writes them make it exact.
        let most = (types.left() / 3).min(keys.left() / 2).min(data.left() / 2);
        let mut items = Vec::with_capacity(most);
        while types.left() > 0 && keys.left() > 0 {
            let kind = types.kind()?;
            let key = keys.bytes(tag::UTF8_STRING, KEY)?;
            let value = data.value(kind)?;
            items.push(ItemRef { key, value });
        }
        if types.left() > 0 || keys.left() > 0 {
            return Err(DecodeError::Counts {
                types: items.len() + types.count(),
                keys: items.len() + keys.count(),
            });
        }
        data.finish(DATA)?;
        Ok(items)
    }
}

// What the errors call the elements.
const OUTER: &str = "message (SEQUENCE)";
const TYPES: &str = "types (SEQUENCE)";
const TYPE: &str = "type (INTEGER)";
const KEYS: &str = "keys (SEQUENCE)";
const KEY: &str = "key (UTF8String)";
const DATA: &str = "data (SEQUENCE)";
const INTEGER: &str = "value (INTEGER)";
const BOOLEAN: &str = "value (BOOLEAN)";
const REAL: &str = "value (REAL)";
const STRING: &str = "value (UTF8String)";
const BINARY: &str = "value (OCTET STRING)";
const EVENT: &str = "event (SEQUENCE)";
const EVENT_NAME: &str = "event name (UTF8String)";
const PARAMS: &str = "event parameters (SEQUENCE)";
const PARAM: &str = "event parameter (SEQUENCE)";
const PARAM_KEY: &str = "event parameter name (UTF8String)";
const PARAM_VALUE: &str = "event parameter value";
const CALL: &str = "function call (SEQUENCE)";
const CALL_NAME: &str = "function name (UTF8String)";
const RESULT: &str = "function result";
const RESULT_NULL: &str = "function result (NULL)";
const ARGS: &str = "function arguments (SEQUENCE)";
const ARG: &str = "function argument";
const FRAME: &str = "image (SEQUENCE)";
const WIDTH: &str = "image width (INTEGER)";
const HEIGHT: &str = "image height (INTEGER)";
const CHANNELS: &str = "image channels (INTEGER)";
const TIMESTAMP: &str = "image timestamp (INTEGER)";
const PIXELS: &str = "image data (OCTET STRING)";

/// The content of one sequence, from left to right.
#[derive(Clone)]
struct Reader<'a> {
    message: &'a [u8],
    /// in `0..=end`
    at: usize,
    /// where the sequence ends; in `0..=message.len()`
    end: usize,
    lenient: bool,
    /// the tag of the outer sequence
    first: u8,
}

impl<'a> Reader<'a> {
    const fn left(&self) -> usize {
        self.end - self.at
    }

    /// No element may leave its sequence. C++ notices that only at the
    /// sequence's end, but it does notice: nothing moves back.
    fn take(&mut self, element: &'static str, needed: u64) -> Result<&'a [u8], DecodeError> {
        let rest = &self.message[self.at..self.end];
        let taken = usize::try_from(needed)
            .ok()
            .and_then(|count| rest.get(..count))
            .ok_or(DecodeError::Truncated {
                element,
                offset: self.at,
                needed,
                available: rest.len() as u64,
            })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn byte(&mut self, element: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(element, 1)?[0])
    }

    fn tag(
        &mut self,
        element: &'static str,
        is_allowed: impl FnOnce(u8) -> bool,
        allowed: &'static str,
    ) -> Result<u8, DecodeError> {
        let offset = self.at;
        let found = self.byte(element)?;
        if is_allowed(found) {
            return Ok(found);
        }
        Err(DecodeError::Tag {
            element,
            offset,
            found,
            allowed,
        })
    }

    fn length(&mut self, element: &'static str) -> Result<u64, DecodeError> {
        let offset = self.at;
        let found = self.byte(element)?;
        match found {
            0..=0x7f => Ok(found.into()),
            0x80 if self.lenient => Ok(0),
            0x81..=0x84 => {
                let bytes = self.take(element, u64::from(found & 0x7f))?;
                Ok(bytes
                    .iter()
                    .fold(0, |length, &byte| length << 8 | u64::from(byte)))
            }
            _ => Err(DecodeError::LengthForm {
                element,
                offset,
                found,
            }),
        }
    }

    /// The content of the next element, which must have this tag.
    fn content(&mut self, tag: u8, element: &'static str) -> Result<Reader<'a>, DecodeError> {
        let allowed = match tag {
            tag::BOOLEAN => "0x01 (BOOLEAN)",
            tag::INTEGER => "0x02 (INTEGER)",
            tag::OCTET_STRING => "0x04 (OCTET STRING)",
            tag::NULL => "0x05 (NULL)",
            tag::REAL => "0x09 (REAL)",
            _ => "0x0c (UTF8String)",
        };
        self.tag(element, |found| found == tag, allowed)?;
        self.inner(element)
    }

    /// Length and content.
    fn inner(&mut self, element: &'static str) -> Result<Reader<'a>, DecodeError> {
        let length = self.length(element)?;
        let at = self.at;
        self.take(element, length)?;
        Ok(Reader {
            at,
            end: self.at,
            ..self.clone()
        })
    }

    fn sequence(&mut self, element: &'static str) -> Result<Reader<'a>, DecodeError> {
        if self.lenient {
            let is_allowed = |found| found & 0x1f == 0x10;
            self.tag(element, is_allowed, LENIENT_SEQUENCE_TAGS)?;
        } else {
            let offset = self.at;
            let is_allowed = |found| matches!(found, tag::SEQUENCE | tag::SEQUENCE_PYTHON);
            let found = self.tag(element, is_allowed, SEQUENCE_TAGS)?;
            let first = self.first;
            if found != first {
                return Err(DecodeError::MixedTags {
                    element,
                    offset,
                    found,
                    first,
                });
            }
        }
        self.inner(element)
    }

    fn finish(&self, element: &'static str) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::Unconsumed {
                element,
                offset: self.at,
                left,
            }),
        }
    }

    /// How many elements are left, as far as they can be told apart. For an
    /// error message only.
    fn count(&self) -> usize {
        let mut rest = self.clone();
        let mut count = 0;
        while rest.left() > 0 {
            count += 1;
            if rest.byte("").and_then(|_| rest.inner("")).is_err() {
                break;
            }
        }
        count
    }

    fn bytes(&mut self, tag: u8, element: &'static str) -> Result<&'a [u8], DecodeError> {
        let content = self.content(tag, element)?;
        Ok(&content.message[content.at..content.end])
    }

    fn integer(&mut self, element: &'static str) -> Result<i64, DecodeError> {
        let bytes = self.bytes(tag::INTEGER, element)?;
        let len = bytes.len() as u64;
        let offset = self.at - bytes.len();
        let python = self.first == tag::SEQUENCE_PYTHON;
        if bytes.is_empty() || (bytes.len() > 8 && !python) {
            return Err(DecodeError::Length {
                element,
                offset,
                found: len,
                allowed: "1 to 8",
            });
        }
        let (sign, low) = bytes.split_at(bytes.len().saturating_sub(8));
        let fill = if low[0] & 0x80 == 0 { 0 } else { 0xff };
        if sign.iter().any(|&byte| byte != fill) {
            return Err(DecodeError::IntegerRange {
                element,
                offset,
                len,
            });
        }
        let mut wide = [fill; 8];
        wide[8 - low.len()..].copy_from_slice(low);
        Ok(i64::from_be_bytes(wide))
    }

    fn kind(&mut self) -> Result<ItemKind, DecodeError> {
        let offset = self.at;
        let found = self.integer(TYPE)?;
        let kind = if self.lenient {
            ItemKind::try_from(found.cast_unsigned() as u8).ok()
        } else {
            u8::try_from(found)
                .ok()
                .and_then(|found| found.try_into().ok())
        };
        kind.ok_or(DecodeError::Kind { offset, found })
    }

    fn boolean(&mut self, element: &'static str) -> Result<bool, DecodeError> {
        let bytes = self.bytes(tag::BOOLEAN, element)?;
        let [byte] = bytes else {
            return Err(DecodeError::Length {
                element,
                offset: self.at - bytes.len(),
                found: bytes.len() as u64,
                allowed: "1",
            });
        };
        Ok(*byte != 0)
    }

    fn real(&mut self, element: &'static str) -> Result<f64, DecodeError> {
        self.tag(element, |found| found == tag::REAL, "0x09 (REAL)")?;
        let length = self.length(element)?;
        if length == 0 {
            return Ok(0.0);
        }
        let offset = self.at;
        if !self.lenient && length != 9 {
            return Err(DecodeError::Length {
                element,
                offset,
                found: length,
                allowed: "0 or 9",
            });
        }
        let header = self.byte(element)?;
        if header == REAL_IEEE {
            // C++ takes eight bytes here whatever the length said.
            let mut bits = [0; 8];
            bits.copy_from_slice(self.take(element, 8)?);
            return Ok(f64::from_bits(u64::from_be_bytes(bits)));
        }
        if !self.lenient || header & 0x80 == 0 {
            return Err(DecodeError::RealForm {
                element,
                offset,
                found: header,
            });
        }
        let bytes = self.take(element, length - 1)?;
        let exponent_len = usize::from(header & 0x03) + 1;
        let Some((exponent, mantissa)) = bytes.split_at_checked(exponent_len) else {
            // C++ goes on behind the element.
            return Err(DecodeError::Length {
                element,
                offset,
                found: length,
                allowed: "enough for its exponent",
            });
        };
        let fill = if exponent[0] & 0x80 == 0 { 0 } else { 0xff };
        let mut wide = [fill; 4];
        wide[4 - exponent.len()..].copy_from_slice(exponent);
        let mantissa = mantissa
            .iter()
            .take(8)
            .fold(0, |mantissa, &byte| mantissa << 8 | u64::from(byte));
        let magnitude = scale(mantissa as f64, i32::from_be_bytes(wide));
        Ok(if header & 0x40 == 0 {
            magnitude
        } else {
            -magnitude
        })
    }

    /// A value that its tag alone explains.
    fn scalar(&mut self, element: &'static str) -> Result<ScalarRef<'a>, DecodeError> {
        Ok(match self.peek() {
            Some(tag::INTEGER) => ScalarRef::Integer(self.integer(element)?),
            Some(tag::BOOLEAN) => ScalarRef::Boolean(self.boolean(element)?),
            Some(tag::REAL) => ScalarRef::Real(self.real(element)?),
            Some(tag @ tag::UTF8_STRING) => ScalarRef::String(self.bytes(tag, element)?),
            Some(tag @ tag::OCTET_STRING) => ScalarRef::Binary(self.bytes(tag, element)?),
            _ => {
                let offset = self.at;
                let found = self.byte(element)?;
                return Err(DecodeError::Tag {
                    element,
                    offset,
                    found,
                    allowed: SCALAR_TAGS,
                });
            }
        })
    }

    fn peek(&self) -> Option<u8> {
        self.message[self.at..self.end].first().copied()
    }

    fn value(&mut self, kind: ItemKind) -> Result<ValueRef<'a>, DecodeError> {
        Ok(match kind {
            ItemKind::Integer => ValueRef::Integer(self.integer(INTEGER)?),
            ItemKind::Boolean => ValueRef::Boolean(self.boolean(BOOLEAN)?),
            ItemKind::Real => ValueRef::Real(self.real(REAL)?),
            ItemKind::String => ValueRef::String(self.bytes(tag::UTF8_STRING, STRING)?),
            ItemKind::Binary => ValueRef::Binary(self.bytes(tag::OCTET_STRING, BINARY)?),
            ItemKind::Event => self.event()?,
            ItemKind::FunctionCall => self.call()?,
            ItemKind::ImageFrame => self.frame()?,
        })
    }

    fn event(&mut self) -> Result<ValueRef<'a>, DecodeError> {
        let mut event = self.sequence(EVENT)?;
        let name = event.bytes(tag::UTF8_STRING, EVENT_NAME)?;
        let mut list = event.sequence(PARAMS)?;
        let mut params = Vec::new();
        while list.left() > 0 {
            let mut param = list.sequence(PARAM)?;
            let key = param.bytes(tag::UTF8_STRING, PARAM_KEY)?;
            params.push((key, param.scalar(PARAM_VALUE)?));
            param.finish(PARAM)?;
        }
        event.finish(EVENT)?;
        Ok(ValueRef::Event { name, params })
    }

    fn call(&mut self) -> Result<ValueRef<'a>, DecodeError> {
        let mut call = self.sequence(CALL)?;
        let name = call.bytes(tag::UTF8_STRING, CALL_NAME)?;
        let result = if call.peek() == Some(tag::NULL) {
            let null = call.bytes(tag::NULL, RESULT_NULL)?;
            if !null.is_empty() {
                return Err(DecodeError::Length {
                    element: RESULT_NULL,
                    offset: call.at - null.len(),
                    found: null.len() as u64,
                    allowed: "0",
                });
            }
            None
        } else {
            Some(call.scalar(RESULT)?)
        };
        let mut list = call.sequence(ARGS)?;
        let mut args = Vec::new();
        while list.left() > 0 {
            args.push(list.scalar(ARG)?);
        }
        call.finish(CALL)?;
        Ok(ValueRef::FunctionCall { name, result, args })
    }

    fn frame(&mut self) -> Result<ValueRef<'a>, DecodeError> {
        let mut frame = self.sequence(FRAME)?;
        let width = frame.image_size(WIDTH)?;
        let height = frame.image_size(HEIGHT)?;
        let channels = frame.image_size(CHANNELS)?;
        let timestamp_ns = frame.integer(TIMESTAMP)?.cast_unsigned();
        let data = frame.bytes(tag::OCTET_STRING, PIXELS)?;
        frame.finish(FRAME)?;
        Ok(ValueRef::ImageFrame {
            width,
            height,
            channels,
            timestamp_ns,
            data,
        })
    }

    fn image_size(&mut self, element: &'static str) -> Result<u32, DecodeError> {
        let offset = self.at;
        let found = self.integer(element)?;
        if self.lenient {
            return Ok(found.cast_unsigned() as u32);
        }
        u32::try_from(found).map_err(|_| DecodeError::ImageSize {
            element,
            offset,
            found,
        })
    }
}

/// `value * 2^exponent` for a value that is 0 or in `1..=2^64`, rounded once.
fn scale(value: f64, exponent: i32) -> f64 {
    const fn power(exponent: i32) -> f64 {
        f64::from_bits(((exponent + 1023).cast_unsigned() as u64) << 52)
    }
    // Beyond, the result is 0 or infinite anyway.
    let exponent = exponent.clamp(-1500, 1500);
    // No factor may itself leave the range of f64, and only the last one may
    // round: the value stays far inside that range before it.
    let half = exponent.clamp(-900, 900);
    value * power(half) * power(exponent - half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for (value, exponent, expected) in [
            (0.0, 1500, 0.0),
            (0.0, i32::MIN, 0.0),
            (5.0, 0, 5.0),
            (3.0, -1, 1.5),
            (1.0, 1023, f64::from_bits(0x7fe0_0000_0000_0000)),
            (1.0, 1024, f64::INFINITY),
            (1.0, i32::MAX, f64::INFINITY),
            (1.0, -1022, f64::MIN_POSITIVE),
            (1.0, -1074, f64::from_bits(1)),
            (1.0, -1075, 0.0),
            (3.0, -1075, f64::from_bits(2)),
            (18_446_744_073_709_551_616.0, -1138, f64::from_bits(1)),
            (18_446_744_073_709_551_616.0, -1200, 0.0),
            (1.0, i32::MIN, 0.0),
        ] {
            let found = scale(value, exponent);
            assert_eq!(found.to_bits(), expected.to_bits(), "{value} {exponent}");
        }
    }
}
