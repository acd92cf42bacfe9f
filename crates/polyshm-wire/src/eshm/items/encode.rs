//! Items into a message (sections 9.1 to 9.3).

use alloc::{string::String, vec::Vec};

use super::{EncodeError, Item, ItemRef, REAL_IEEE, ScalarRef, ValueRef, tag};

/// Which of the two encoders' bytes to write (section 9.2).
///
/// A decoder needs no choice: [`Decoder`](super::Decoder) reads both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ItemDialect {
    /// As C++: every sequence has tag 0x30 and a length of five bytes. The pure
    /// Python reader refuses it (section 9.6).
    #[default]
    Native,
    /// As pure Python: every sequence has tag 0x10 and a length as short as can
    /// be. Scalars only. C++ reads it too, but not `i64::MIN`, which has a
    /// superfluous ninth byte.
    Python,
}

/// Encodes items as one message.
///
/// Equal items always give equal bytes, and the bytes of the reference. -0.0
/// loses its sign, as it does there.
///
/// ```
/// use polyshm_wire::eshm::{Item, ItemDialect, encode};
///
/// let items = [Item::new("k", 42)];
/// let native = encode(&items, ItemDialect::Native)?;
/// let python = encode(&items, ItemDialect::Python)?;
/// assert_eq!((native.len(), python.len()), (33, 17));
/// assert_eq!(python[14..], [0x02, 0x01, 42]);
/// # Ok::<(), polyshm_wire::eshm::EncodeError>(())
/// ```
pub fn encode(items: &[Item], dialect: ItemDialect) -> Result<Vec<u8>, EncodeError> {
    let items: Vec<ItemRef<'_>> = items.iter().map(Item::as_ref).collect();
    encode_refs(&items, dialect)
}

/// [`encode`] for borrowed items, whose text need not be UTF-8.
pub fn encode_refs(items: &[ItemRef<'_>], dialect: ItemDialect) -> Result<Vec<u8>, EncodeError> {
    let mut message = Vec::new();
    encode_refs_into(items, dialect, &mut message)?;
    Ok(message)
}

/// [`encode_refs`] behind what `message` already has, so that one vector can
/// serve many messages. After an error it is as it was.
pub fn encode_refs_into(
    items: &[ItemRef<'_>],
    dialect: ItemDialect,
    message: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let sizes = Sizes::of(items, dialect)?;
    let python = dialect == ItemDialect::Python;
    let whole = sequence_len(python, sizes.content);
    message.reserve(usize::try_from(whole).unwrap_or(usize::MAX));

    let mut out = Writer {
        bytes: message,
        python,
    };
    out.sequence(sizes.content);
    out.sequence(sizes.types);
    for item in items {
        out.integer(u8::from(item.value.kind()).into());
    }
    out.sequence(sizes.keys);
    for item in items {
        out.bytes(tag::UTF8_STRING, item.key);
    }
    out.sequence(sizes.data);
    for item in items {
        out.value(&item.value);
    }
    Ok(())
}

/// Bytes inside the four sequences. They are known before the first byte is
/// written, so that nothing moves and nothing too long is begun.
struct Sizes {
    content: u64,
    types: u64,
    keys: u64,
    data: u64,
}

impl Sizes {
    fn of(items: &[ItemRef<'_>], dialect: ItemDialect) -> Result<Self, EncodeError> {
        let python = dialect == ItemDialect::Python;
        let (mut types, mut keys, mut data) = (0_u64, 0_u64, 0_u64);
        for item in items {
            let kind = item.value.kind();
            if python && !kind.is_scalar() {
                return Err(EncodeError::Kind {
                    key: String::from_utf8_lossy(item.key).into_owned(),
                    kind,
                });
            }
            types = types.saturating_add(primitive_len(1));
            keys = keys.saturating_add(bytes_len(item.key));
            data = data.saturating_add(value_len(python, &item.value));
        }
        let content = [types, keys, data]
            .into_iter()
            .map(|len| sequence_len(python, len))
            .fold(0, u64::saturating_add);
        let limit = u64::from(u32::MAX);
        // No length inside can be larger than the outermost.
        if content > limit {
            return Err(EncodeError::TooLong {
                len: content,
                limit,
            });
        }
        Ok(Self {
            content,
            types,
            keys,
            data,
        })
    }
}

/// Bytes of the shortest form of a length.
const fn length_len(content: u64) -> u64 {
    if content < 0x80 {
        1
    } else {
        1 + (64 - content.leading_zeros() as u64).div_ceil(8)
    }
}

const fn primitive_len(content: u64) -> u64 {
    content.saturating_add(1 + length_len(content))
}

const fn sequence_len(python: bool, content: u64) -> u64 {
    if python {
        primitive_len(content)
    } else {
        content.saturating_add(6)
    }
}

const fn bytes_len(bytes: &[u8]) -> u64 {
    primitive_len(bytes.len() as u64)
}

/// Bytes of an integer's content. Python counts the bits of the magnitude of a
/// negative one and adds one for the sign, which is one too many for -2^7,
/// -2^15 and so on.
const fn integer_content(python: bool, value: i64) -> u64 {
    let bits = if python && value < 0 {
        64 - value.unsigned_abs().leading_zeros()
    } else {
        64 - (value ^ (value >> 63)).leading_zeros()
    };
    (bits / 8 + 1) as u64
}

const fn integer_len(python: bool, value: i64) -> u64 {
    primitive_len(integer_content(python, value))
}

fn real_content(value: f64) -> u64 {
    if value == 0.0 { 0 } else { 9 }
}

fn scalar_len(python: bool, scalar: ScalarRef<'_>) -> u64 {
    match scalar {
        ScalarRef::Integer(value) => integer_len(python, value),
        ScalarRef::Boolean(_) => primitive_len(1),
        ScalarRef::Real(value) => primitive_len(real_content(value)),
        ScalarRef::String(bytes) | ScalarRef::Binary(bytes) => bytes_len(bytes),
    }
}

fn param_content(python: bool, key: &[u8], value: ScalarRef<'_>) -> u64 {
    bytes_len(key).saturating_add(scalar_len(python, value))
}

fn params_content(python: bool, params: &[(&[u8], ScalarRef<'_>)]) -> u64 {
    params
        .iter()
        .map(|&(key, value)| sequence_len(python, param_content(python, key, value)))
        .fold(0, u64::saturating_add)
}

fn args_content(python: bool, args: &[ScalarRef<'_>]) -> u64 {
    args.iter()
        .map(|&value| scalar_len(python, value))
        .fold(0, u64::saturating_add)
}

/// Bytes inside the sequence of a value with parts; for a scalar, of the whole
/// element, which has no sequence.
fn value_content(python: bool, value: &ValueRef<'_>) -> u64 {
    match *value {
        ValueRef::Integer(value) => integer_len(python, value),
        ValueRef::Boolean(_) => primitive_len(1),
        ValueRef::Real(value) => primitive_len(real_content(value)),
        ValueRef::String(bytes) | ValueRef::Binary(bytes) => bytes_len(bytes),
        ValueRef::Event { name, ref params } => {
            let params = sequence_len(python, params_content(python, params));
            bytes_len(name).saturating_add(params)
        }
        ValueRef::FunctionCall {
            name,
            result,
            ref args,
        } => {
            let result = result.map_or(primitive_len(0), |value| scalar_len(python, value));
            bytes_len(name)
                .saturating_add(result)
                .saturating_add(sequence_len(python, args_content(python, args)))
        }
        ValueRef::ImageFrame {
            width,
            height,
            channels,
            timestamp_ns,
            data,
        } => [width, height, channels]
            .map(|size| integer_len(python, size.into()))
            .into_iter()
            .sum::<u64>()
            .saturating_add(integer_len(python, timestamp_ns.cast_signed()))
            .saturating_add(bytes_len(data)),
    }
}

fn value_len(python: bool, value: &ValueRef<'_>) -> u64 {
    let content = value_content(python, value);
    if value.kind().is_scalar() {
        content
    } else {
        sequence_len(python, content)
    }
}

struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    python: bool,
}

impl Writer<'_> {
    /// Tag and shortest length. The length fits 32 bits, see [`Sizes::of`].
    fn head(&mut self, tag: u8, content: u64) {
        self.bytes.push(tag);
        if content < 0x80 {
            self.bytes.push(content as u8);
        } else {
            let octets = length_len(content) - 1;
            self.bytes.push(0x80 | octets as u8);
            self.low_bytes(content.cast_signed(), octets);
        }
    }

    /// The head of a sequence; its content follows.
    fn sequence(&mut self, content: u64) {
        if self.python {
            self.head(tag::SEQUENCE_PYTHON, content);
        } else {
            self.bytes.extend([tag::SEQUENCE, 0x84]);
            self.low_bytes(content.cast_signed(), 4);
        }
    }

    /// The last `count` bytes of a number, big-endian, continued by its sign
    /// where there are more than eight.
    fn low_bytes(&mut self, value: i64, count: u64) {
        let wide = i128::from(value).to_be_bytes();
        self.bytes.extend_from_slice(&wide[16 - count as usize..]);
    }

    fn integer(&mut self, value: i64) {
        let count = integer_content(self.python, value);
        self.head(tag::INTEGER, count);
        self.low_bytes(value, count);
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        self.head(tag, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn real(&mut self, value: f64) {
        self.head(tag::REAL, real_content(value));
        if value != 0.0 {
            self.bytes.push(REAL_IEEE);
            self.bytes.extend(value.to_bits().to_be_bytes());
        }
    }

    fn scalar(&mut self, scalar: ScalarRef<'_>) {
        match scalar {
            ScalarRef::Integer(value) => self.integer(value),
            ScalarRef::Boolean(value) => {
                let byte = if value { 0xff } else { 0 };
                self.bytes(tag::BOOLEAN, &[byte]);
            }
            ScalarRef::Real(value) => self.real(value),
            ScalarRef::String(bytes) => self.bytes(tag::UTF8_STRING, bytes),
            ScalarRef::Binary(bytes) => self.bytes(tag::OCTET_STRING, bytes),
        }
    }

    fn value(&mut self, value: &ValueRef<'_>) {
        let python = self.python;
        if !value.kind().is_scalar() {
            self.sequence(value_content(python, value));
        }
        match *value {
            ValueRef::Integer(value) => self.scalar(ScalarRef::Integer(value)),
            ValueRef::Boolean(value) => self.scalar(ScalarRef::Boolean(value)),
            ValueRef::Real(value) => self.scalar(ScalarRef::Real(value)),
            ValueRef::String(bytes) => self.scalar(ScalarRef::String(bytes)),
            ValueRef::Binary(bytes) => self.scalar(ScalarRef::Binary(bytes)),
            ValueRef::Event { name, ref params } => {
                self.bytes(tag::UTF8_STRING, name);
                self.sequence(params_content(python, params));
                for &(key, value) in params {
                    self.sequence(param_content(python, key, value));
                    self.bytes(tag::UTF8_STRING, key);
                    self.scalar(value);
                }
            }
            ValueRef::FunctionCall {
                name,
                result,
                ref args,
            } => {
                self.bytes(tag::UTF8_STRING, name);
                match result {
                    Some(value) => self.scalar(value),
                    None => self.bytes(tag::NULL, &[]),
                }
                self.sequence(args_content(python, args));
                for &value in args {
                    self.scalar(value);
                }
            }
            ValueRef::ImageFrame {
                width,
                height,
                channels,
                timestamp_ns,
                data,
            } => {
                for size in [width, height, channels] {
                    self.integer(size.into());
                }
                // As C++: from 2^63 on it looks negative, and reads back.
                self.integer(timestamp_ns.cast_signed());
                self.bytes(tag::OCTET_STRING, data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write as _;

    use super::*;

    fn element(value: ScalarRef<'_>, python: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let out = &mut bytes;
        Writer { bytes: out, python }.scalar(value);
        assert_eq!(bytes.len() as u64, scalar_len(python, value));
        bytes
    }

    /// The table of section 9.5.
    #[test]
    fn elements_of_the_table() {
        for (value, native, python) in [
            (0_i64, "020100", ""),
            (127, "02017f", ""),
            (128, "02020080", ""),
            (255, "020200ff", ""),
            (256, "02020100", ""),
            (-1, "0201ff", ""),
            (-128, "020180", "0202ff80"),
            (-129, "0202ff7f", ""),
            (-255, "0202ff01", ""),
            (-256, "0202ff00", ""),
            (-32768, "02028000", "0203ff8000"),
            (-2_147_483_648, "020480000000", "0205ff80000000"),
            (i64::MAX, "02087fffffffffffffff", ""),
            (i64::MIN, "02088000000000000000", "0209ff8000000000000000"),
        ] {
            let python = if python.is_empty() { native } else { python };
            let value = ScalarRef::Integer(value);
            assert_eq!(hex(&element(value, false)), native);
            assert_eq!(hex(&element(value, true)), python);
        }
        for (value, bytes) in [
            (ScalarRef::Boolean(true), "0101ff"),
            (ScalarRef::Boolean(false), "010100"),
            (ScalarRef::Real(0.0), "0900"),
            (ScalarRef::Real(-0.0), "0900"),
            (ScalarRef::Real(1.0), "0909033ff0000000000000"),
            (ScalarRef::Real(-1.5), "090903bff8000000000000"),
            (ScalarRef::Real(f64::INFINITY), "0909037ff0000000000000"),
            (ScalarRef::String(b""), "0c00"),
            (ScalarRef::String(b"OK"), "0c024f4b"),
            (ScalarRef::Binary(&[0, 7, 14]), "040300070e"),
        ] {
            for python in [false, true] {
                assert_eq!(hex(&element(value, python)), bytes);
            }
        }
    }

    fn hex(bytes: &[u8]) -> String {
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").unwrap();
        }
        hex
    }

    #[test]
    fn lengths_of_lengths() {
        for (content, len) in [
            (0, 1),
            (0x7f, 1),
            (0x80, 2),
            (0xff, 2),
            (0x100, 3),
            (0xffff, 3),
            (0x1_0000, 4),
            (0xff_ffff, 4),
            (0x100_0000, 5),
            (0xffff_ffff, 5),
        ] {
            assert_eq!(length_len(content), len);
        }
    }

    #[test]
    fn a_vector_used_again() {
        let mut message = Vec::from(*b"before");
        let item = |value| ItemRef { key: b"k", value };
        let event = ValueRef::Event {
            name: b"e",
            params: Vec::new(),
        };
        let items = [item(ValueRef::Integer(1)), item(event)];
        let error = encode_refs_into(&items, ItemDialect::Python, &mut message).unwrap_err();
        assert_eq!(
            alloc::string::ToString::to_string(&error),
            "the value of the item \"k\" is of kind event, which the Python dialect cannot carry; \
             encode it in the native dialect or leave it out"
        );
        assert_eq!(message, b"before");
        encode_refs_into(&items, ItemDialect::Native, &mut message).unwrap();
        assert_eq!(
            message[6..],
            encode_refs(&items, ItemDialect::Native).unwrap()
        );
    }

    /// The same gigabyte, again and again: refused before it is copied.
    #[test]
    fn too_long_is_refused_before_anything_is_written() {
        let bytes = alloc::vec![0; 1 << 20];
        let item = ItemRef {
            key: b"",
            value: ValueRef::Binary(&bytes),
        };
        let items = alloc::vec![item; 1 << 12];
        for dialect in [ItemDialect::Native, ItemDialect::Python] {
            assert!(matches!(
                encode_refs(&items, dialect),
                Err(EncodeError::TooLong {
                    len: 0x1_0000_0000..,
                    limit: 0xffff_ffff
                })
            ));
        }
    }
}
