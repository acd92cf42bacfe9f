//! Objects and messages that a hostile or broken peer could leave: every answer
//! must be an error, or a value that stays inside what was given.

#![allow(missing_docs)]

#[path = "common/eshm.rs"]
mod common;

use std::mem::size_of;

use common::{corpus, images, messages};
use polyshm_wire::eshm::{
    ChannelHead, ChannelTail, DecodeError, Decoder, Direction, Event, FunctionCall, Header,
    ImageError, ImageFrame, Item, ItemDialect, ItemRef, Layout, Scalar, ScalarRef, Value, ValueRef,
    decode, describe, encode, encode_refs, object_name, offset,
};
use proptest::prelude::*;

/// Values that break careless arithmetic.
const EVIL: [u32; 14] = [
    0,
    1,
    2,
    3,
    7,
    8,
    4095,
    4096,
    4097,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX - 1,
    u32::MAX,
];

/// Bytes that mean something in some place: tags, lengths, signs.
const BYTES: [u8; 24] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0c, 0x10, 0x30, 0x40, 0x50, 0x7f,
    0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0xc0, 0xff,
];

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

// Messages.

fn scalar_is_inside(message: &[u8], value: ScalarRef<'_>) -> usize {
    match value {
        ScalarRef::String(bytes) | ScalarRef::Binary(bytes) => inside(message, bytes),
        _ => 0,
    }
}

/// The length of a part of the message, after checking that it is one.
fn inside(message: &[u8], part: &[u8]) -> usize {
    assert!(message.as_ptr_range().start <= part.as_ptr_range().start);
    assert!(part.as_ptr_range().end <= message.as_ptr_range().end);
    part.len()
}

/// Checks that everything borrowed is in the message, that no byte was given
/// twice, and that the lists are in proportion to the message.
///
/// While a message is decoded nothing else is allocated but these lists, and
/// the first of them before its items are read: one place per seven bytes of
/// types, keys and values. The others grow by doubling, from elements of two
/// bytes or more.
fn check_refs(message: &[u8], items: &Vec<ItemRef<'_>>) {
    let (mut borrowed, mut held) = (0, items.capacity() * size_of::<ItemRef<'_>>());
    for item in items {
        borrowed += inside(message, item.key);
        match &item.value {
            ValueRef::Integer(_) | ValueRef::Boolean(_) | ValueRef::Real(_) => {}
            ValueRef::String(bytes) | ValueRef::Binary(bytes) => {
                borrowed += inside(message, bytes);
            }
            ValueRef::Event { name, params } => {
                borrowed += inside(message, name);
                held += params.capacity() * size_of::<(&[u8], ScalarRef<'_>)>();
                for &(key, value) in params {
                    borrowed += inside(message, key) + scalar_is_inside(message, value);
                }
            }
            ValueRef::FunctionCall { name, result, args } => {
                borrowed += inside(message, name);
                held += args.capacity() * size_of::<ScalarRef<'_>>();
                for &value in args.iter().chain(result) {
                    borrowed += scalar_is_inside(message, value);
                }
            }
            ValueRef::ImageFrame { data, .. } => borrowed += inside(message, data),
        }
    }
    assert!(borrowed <= message.len());
    assert!(held <= 40 * message.len(), "{held} for {}", message.len());
}

/// What was read can be written, and then says the same.
fn check_round_trip(items: &[ItemRef<'_>]) {
    let native = encode_refs(items, ItemDialect::Native).unwrap();
    let again = Decoder::new().decode_refs(&native).unwrap();
    assert_eq!(again.len(), items.len());
    assert_eq!(encode_refs(&again, ItemDialect::Native).unwrap(), native);
    let scalars = items.iter().all(|item| item.value.kind().is_scalar());
    let python = encode_refs(items, ItemDialect::Python);
    assert_eq!(python.is_ok(), scalars);
    if let Ok(python) = python {
        let again = Decoder::new().decode_refs(&python).unwrap();
        assert_eq!(encode_refs(&again, ItemDialect::Native).unwrap(), native);
    }
}

/// Decodes any bytes by both rules; the number of rules that accepted them.
fn probe(message: &[u8]) -> u32 {
    let strict = Decoder::new().decode_refs(message);
    let lenient = Decoder::new().lenient(true).decode_refs(message);
    for items in [&strict, &lenient].into_iter().flatten() {
        check_refs(message, items);
        check_round_trip(items);
        // Owned, they are the same, or some text is not UTF-8.
        match items.iter().cloned().map(Item::try_from).collect() {
            Ok(owned) => {
                let owned: Vec<Item> = owned;
                let refs: Vec<ItemRef<'_>> = owned.iter().map(Item::as_ref).collect();
                assert_eq!(
                    encode_refs(&refs, ItemDialect::Native),
                    encode_refs(items, ItemDialect::Native)
                );
            }
            Err(error) => assert!(matches!(error, DecodeError::Text { .. }), "{error}"),
        }
    }
    for error in [&strict, &lenient]
        .into_iter()
        .filter_map(|found| found.as_ref().err())
    {
        // Every message names something of the message.
        assert!(error.to_string().len() > 20);
    }
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => assert_eq!(
            encode_refs(strict, ItemDialect::Native),
            encode_refs(lenient, ItemDialect::Native)
        ),
        (Ok(_), Err(error)) => panic!("only lenient refuses: {error}"),
        _ => {}
    }
    u32::from(strict.is_ok()) + u32::from(lenient.is_ok())
}

/// Real messages, and what was made to break their decoders.
fn inputs() -> Vec<Vec<u8>> {
    let messages = messages().into_iter().chain(corpus());
    messages.map(|(_, bytes)| bytes).collect()
}

#[test]
fn each_byte_changed() {
    let (mut tried, mut accepted) = (0_u32, 0_u32);
    for original in inputs() {
        let mut message = original.clone();
        for at in 0..message.len() {
            // The heads are at the front and between short parts; long runs of
            // text and bytes are all alike.
            if at > 200 && at % 7 != 0 {
                continue;
            }
            let was = message[at];
            let near = [was.wrapping_add(1), was.wrapping_sub(1), !was];
            for value in BYTES.into_iter().chain(near) {
                message[at] = value;
                tried += 2;
                accepted += probe(&message);
            }
            message[at] = was;
        }
    }
    println!("{tried} answers, {accepted} accepted");
    // Neither answer may become the only one.
    assert!(accepted > 50_000 && tried - accepted > 50_000);
}

/// No part of a message is a message.
#[test]
fn each_truncation_is_refused() {
    for (_, message) in messages() {
        for len in 0..message.len() {
            assert_eq!(probe(&message[..len]), 0);
        }
        let mut longer = message.clone();
        longer.push(0);
        let lenient = Decoder::new().lenient(true);
        let unchanged = lenient.decode_refs(&message);
        assert_eq!(lenient.decode_refs(&longer).is_ok(), unchanged.is_ok());
        assert!(Decoder::new().decode_refs(&longer).is_err());
    }
}

/// A length of four gigabytes in every place costs nothing: what is too long is
/// refused before anything is made for it.
#[test]
fn each_place_claims_four_gigabytes() {
    for (_, original) in messages() {
        for at in 0..original.len().min(200) {
            let mut message = original.clone();
            message.splice(at..=at, [0x84, 0xff, 0xff, 0xff, 0xff]);
            probe(&message);
        }
    }
}

/// As many of the smallest parts as fit in a megabyte.
#[test]
fn effort_grows_with_the_message_only() {
    fn sequence(content: Vec<u8>) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        let mut bytes = vec![0x30, 0x84];
        bytes.extend(len.to_be_bytes());
        bytes.extend(content);
        bytes
    }
    fn message(kind: u8, count: usize, value: &[u8]) -> Vec<u8> {
        let parts = [&[2, 1, kind][..], &[12, 0], value];
        sequence(
            parts
                .into_iter()
                .flat_map(|part| sequence(part.repeat(count)))
                .collect(),
        )
    }
    const COUNT: usize = 100_000;
    assert_eq!(probe(&message(2, COUNT, &[9, 0])), 2);
    // One value with as many parts.
    let args = sequence([9, 0].repeat(COUNT));
    let call = sequence([&[12, 0, 5, 0][..], &args].concat());
    assert_eq!(probe(&message(6, 1, &call)), 2);
    let param = sequence(vec![12, 0, 9, 0]);
    let event = sequence([&[12, 0][..], &sequence(param.repeat(COUNT))].concat());
    assert_eq!(probe(&message(5, 1, &event)), 2);
    // Everything but the last value, and types or keys alone.
    let mut missing = message(2, COUNT, &[9, 0]);
    let end = missing.len();
    missing.truncate(end - 2);
    assert_eq!(probe(&missing), 0);
    for (types, keys) in [(COUNT, 0), (0, COUNT), (COUNT, COUNT)] {
        let parts = [
            sequence([2, 1, 0].repeat(types)),
            sequence([12, 0].repeat(keys)),
            sequence(Vec::new()),
        ];
        assert_eq!(probe(&sequence(parts.concat())), 0);
    }
    // Nothing in the grammar nests, so nothing can nest deeper.
    let mut nested = Vec::new();
    for _ in 0..2000 {
        nested = sequence(nested);
    }
    assert_eq!(probe(&nested), 0);
}

/// The forms that only the lenient rules know, beyond the corpus.
#[test]
fn real_numbers_of_old() {
    let message = |real: &[u8]| {
        let mut bytes = vec![0x30, 0, 0x30, 3, 2, 1, 2, 0x30, 2, 12, 0, 0x30];
        bytes.push(u8::try_from(real.len()).unwrap());
        bytes.extend(real);
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        bytes
    };
    let read = |real: &[u8]| {
        let message = message(real);
        assert!(Decoder::new().decode_refs(&message).is_err());
        let items = Decoder::new().lenient(true).decode_refs(&message)?;
        let ValueRef::Real(value) = items[0].value else {
            panic!("{items:?}")
        };
        Ok(value.to_bits())
    };
    for (real, value) in [
        // 1 * 2^100, by exponents of each length
        (&[9, 3, 0x80, 100, 1][..], 2_f64.powi(100)),
        (&[9, 4, 0x81, 0, 100, 1], 2_f64.powi(100)),
        (&[9, 5, 0x82, 0, 0, 100, 1], 2_f64.powi(100)),
        (&[9, 6, 0x83, 0, 0, 0, 100, 1], 2_f64.powi(100)),
        (&[9, 6, 0x83, 0xff, 0xff, 0xff, 0xff, 1], 0.5),
        // the ends of the exponent
        (&[9, 6, 0x83, 0x7f, 0xff, 0xff, 0xff, 1], f64::INFINITY),
        (&[9, 6, 0xc3, 0x7f, 0xff, 0xff, 0xff, 1], f64::NEG_INFINITY),
        (&[9, 6, 0x83, 0x80, 0, 0, 0, 1], 0.0),
        // only eight bytes of a mantissa count
        (&[9, 12, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7, 9, 9], 7.0),
        // the length says anything, and eight bytes are read
        (&[9, 0x7f, 3, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], 1.0),
    ] {
        assert_eq!(read(real), Ok(f64::to_bits(value)), "{real:?}");
    }
    // An exponent that leaves the element, where C++ goes on reading.
    assert!(matches!(
        read(&[9, 3, 0x83, 0, 0, 0, 0, 0, 0]),
        Err(DecodeError::Length { found: 3, .. })
    ));
    assert!(matches!(
        read(&[9, 0x84, 0xff, 0xff, 0xff, 0xff, 0x80, 0]),
        Err(DecodeError::Truncated { .. })
    ));
}

/// Two encoders never share a message, and Python's long integers belong to
/// Python's messages.
#[test]
fn mixed_messages() {
    let message = [
        0x10, 15, 0x10, 3, 2, 1, 0, 0x10, 3, 12, 1, b'k', 0x10, 3, 2, 1, 42,
    ];
    for at in [2, 7, 12] {
        let mut mixed = message;
        mixed[at] = 0x30;
        assert!(matches!(
            decode(&mixed),
            Err(DecodeError::MixedTags {
                found: 0x30,
                first: 0x10,
                ..
            })
        ));
        assert!(Decoder::new().lenient(true).decode(&mixed).is_ok());
    }
    let long = |tag: u8, sign: u8, low: u8| {
        let mut bytes = vec![
            tag, 26, tag, 3, 2, 1, 0, tag, 3, 12, 1, b'k', tag, 14, 2, 12,
        ];
        bytes.extend([sign; 11]);
        bytes.push(low);
        bytes
    };
    for (sign, low, value) in [(0, 5, 5), (0xff, 0x80, -128)] {
        let items = [Item::new("k", value)];
        assert_eq!(decode(&long(0x10, sign, low)).unwrap(), items);
        assert!(decode(&long(0x30, sign, low)).is_err());
    }
    assert!(matches!(
        decode(&long(0x10, 1, 0)),
        Err(DecodeError::IntegerRange { len: 12, .. })
    ));
}

// Objects.

/// Describes any bytes; `true` when they were accepted.
fn look(image: &[u8], layout: Layout) -> bool {
    let _ = Header::read(image).map(|header| header.check());
    let _ = ChannelHead::read(image);
    let _ = ChannelTail::read(image);
    let Ok(seen) = describe(image, &layout) else {
        return false;
    };
    assert!(layout.object_len() <= image.len() as u64);
    for direction in Direction::ALL {
        let channel = seen.channel(direction);
        if let Some(message) = &channel.message {
            assert!(message.len() <= layout.capacity() as usize);
            assert_eq!(message.len(), channel.data_size as usize);
            assert!(!channel.busy);
            probe(message);
        }
    }
    true
}

#[test]
fn each_word_of_the_fixed_structures_changed() {
    let (mut tried, mut accepted) = (0_u32, 0_u32);
    for (entry, original) in images() {
        let layout = Layout::new(entry["max_data_size"].as_u64().unwrap()).unwrap();
        let mut words: Vec<usize> = (0..128).step_by(4).collect();
        for direction in Direction::ALL {
            let place = layout.channel(direction);
            words.extend([index(place.sequence), index(place.data_size)]);
            let tail = index(place.write_count);
            words.extend((tail..tail + 64).step_by(4));
        }
        let mut image = original.clone();
        for at in words {
            for value in EVIL {
                image[at..at + 4].copy_from_slice(&value.to_le_bytes());
                tried += 1;
                accepted += u32::from(look(&image, layout));
            }
            image[at..at + 4].copy_from_slice(&original[at..at + 4]);
        }
    }
    println!("{tried} images, {accepted} accepted");
    assert!(accepted > 10_000 && tried - accepted > 1_000);
}

#[test]
fn objects_of_another_length_or_capacity() {
    for (entry, image) in images() {
        let capacity = entry["max_data_size"].as_u64().unwrap();
        let layout = Layout::new(capacity).unwrap();
        let need = image.len() as u64;
        for len in (0..image.len()).step_by(61).chain(120..140) {
            let error = ImageError::TooShort {
                len: len as u64,
                need: if len < 128 { 128 } else { need },
            };
            assert_eq!(describe(&image[..len], &layout), Err(error));
        }
        let mut longer = image.clone();
        longer.resize(image.len() + 999, 0xff);
        assert_eq!(describe(&longer, &layout), describe(&image, &layout));
        for capacity in [1, 2, 100, 4095, 4096, 4097, 1 << 20, 1 << 30] {
            look(&image, Layout::new(capacity).unwrap());
        }
    }
}

/// The values that crash or mislead the reference, each with the error it must
/// give here.
#[test]
fn known_attacks_are_named() {
    let layout = Layout::default();
    let mut image = vec![0; index(layout.object_len())];
    image[..128].copy_from_slice(&Header::new(100, 4096).to_bytes());
    for direction in Direction::ALL {
        let place = layout.channel(direction);
        for found in [4097, 9000, 16 << 20, u32::MAX] {
            let mut image = image.clone();
            image[index(place.sequence)] = 2;
            let at = index(place.data_size);
            image[at..at + 4].copy_from_slice(&found.to_le_bytes());
            let capacity = 4096;
            assert_eq!(
                describe(&image, &layout),
                Err(ImageError::DataSize {
                    direction,
                    found,
                    capacity
                })
            );
        }
    }
    let mut changed = image.clone();
    changed[offset::VERSION] = 1;
    assert_eq!(
        describe(&changed, &layout),
        Err(ImageError::Version { found: 1 })
    );
    changed[offset::MAGIC] = 0;
    let found = 0x4553_4800;
    assert_eq!(
        describe(&changed, &layout),
        Err(ImageError::Magic { found })
    );
    assert_eq!(
        describe(&[], &layout),
        Err(ImageError::TooShort { len: 0, need: 128 })
    );
}

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<i64>().prop_map(Scalar::Integer),
        (any::<i64>(), 0_u32..64).prop_map(|(value, by)| Scalar::Integer(value >> by)),
        (0_u32..64).prop_map(|by| Scalar::Integer(i64::MIN >> by)),
        any::<bool>().prop_map(Scalar::Boolean),
        // -0.0 loses its sign, and NaN is not equal to itself.
        any::<f64>().prop_map(|value| Scalar::Real(value + 0.0)),
        "\\PC{0,40}".prop_map(Scalar::String),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Scalar::Binary),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let scalars = || scalar().prop_map(Value::from);
    let event = (
        "\\PC{0,9}",
        prop::collection::vec(("\\PC{0,9}", scalar()), 0..5),
    )
        .prop_map(|(name, params)| Value::Event(Event { name, params }));
    let result = prop::option::of(scalar());
    let call = ("\\PC{0,9}", result, prop::collection::vec(scalar(), 0..5))
        .prop_map(|(name, result, args)| Value::FunctionCall(FunctionCall { name, result, args }));
    let sizes = any::<(u32, u32, u32, u64)>();
    let frame = (sizes, prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        |((width, height, channels, timestamp_ns), data)| {
            Value::ImageFrame(ImageFrame {
                width,
                height,
                channels,
                timestamp_ns,
                data,
            })
        },
    );
    let value = prop_oneof![5 => scalars(), 1 => event, 1 => call, 1 => frame];
    ("\\PC{0,150}", value).prop_map(|(key, value)| Item { key, value })
}

proptest! {
    #[test]
    fn any_message(message in prop::collection::vec(any::<u8>(), 0..300)) {
        probe(&message);
    }

    /// Any bytes out of those that mean something, behind a sound beginning.
    #[test]
    fn any_elements(
        tag in prop::sample::select(vec![0x30_u8, 0x10]),
        lists in prop::array::uniform3(prop::collection::vec(
            prop_oneof![4 => prop::sample::select(BYTES.to_vec()), 1 => any::<u8>()],
            0..40,
        )),
        kind in 0_u8..9,
    ) {
        let mut message = vec![tag, 0, tag, 3, 2, 1, kind, tag, 2, 12, 0];
        for list in &lists {
            message.extend([tag, u8::try_from(list.len()).unwrap()]);
            message.extend(list);
        }
        message[1] = u8::try_from(message.len() - 2).unwrap();
        probe(&message);
        // The same with one list only, which is what it takes to be accepted.
        let end = 13 + lists[0].len();
        message.truncate(end);
        message[1] = u8::try_from(end - 2).unwrap();
        probe(&message);
    }

    /// A few bytes of a real message changed, moved or lost.
    #[test]
    fn damaged_messages(
        which in 0..common::MESSAGES,
        changes in prop::collection::vec((any::<u16>(), any::<u8>(), 0..3), 1..8),
    ) {
        let mut message = messages().swap_remove(which).1;
        for (at, value, change) in changes {
            let at = usize::from(at) % message.len();
            match change {
                0 => message[at] = value,
                1 => message.insert(at, value),
                _ if message.len() > 1 => drop(message.remove(at)),
                _ => {}
            }
        }
        probe(&message);
    }

    /// What is written can be read, by both rules, and nothing of it is lost.
    #[test]
    fn round_trips(items in prop::collection::vec(item(), 0..8)) {
        let native = encode(&items, ItemDialect::Native).unwrap();
        prop_assert_eq!(&decode(&native).unwrap(), &items);
        prop_assert_eq!(&Decoder::new().lenient(true).decode(&native).unwrap(), &items);
        prop_assert!(probe(&native) == 2);
        let python = encode(&items, ItemDialect::Python);
        if items.iter().all(|item| item.kind().is_scalar()) {
            let python = python.unwrap();
            prop_assert!(python.len() <= native.len());
            prop_assert_eq!(&decode(&python).unwrap(), &items);
        } else {
            prop_assert!(python.is_err());
        }
    }

    #[test]
    fn any_object(
        image in prop::collection::vec(any::<u8>(), 0..600),
        capacity in 1_u64..200,
        sound in any::<bool>(),
    ) {
        let mut image = image;
        if sound && image.len() >= 8 {
            image[..8].copy_from_slice(&[0x4d, 0x48, 0x53, 0x45, 2, 0, 0, 0]);
        }
        look(&image, Layout::new(capacity).unwrap());
    }

    /// No layout can be made whose offsets leave the object or each other.
    #[test]
    fn layouts_are_inside(capacity in prop_oneof![any::<u64>(), 0_u64..1 << 31]) {
        let Ok(layout) = Layout::new(capacity) else {
            prop_assert!(capacity == 0 || capacity > 1 << 30);
            return Ok(());
        };
        prop_assert_eq!(u64::from(layout.capacity()), capacity);
        let mut end = 128;
        for direction in Direction::ALL {
            let place = layout.channel(direction);
            prop_assert!(place.sequence == end && place.sequence % 64 == 0);
            prop_assert!(place.data + capacity <= place.write_count);
            prop_assert!(place.write_count % 8 == 0);
            end += layout.channel_len();
            prop_assert!(place.write_count + 64 <= end);
        }
        prop_assert_eq!(layout.object_len(), end);
    }

    #[test]
    fn any_name(name in "\\PC{0,80}|[/a\0]{0,300}") {
        if let Ok(object) = object_name(&name) {
            prop_assert!(object.starts_with("eshm_") && object.len() == name.len() + 5);
            prop_assert!(!object.contains(['/', '\0']));
        }
    }
}
