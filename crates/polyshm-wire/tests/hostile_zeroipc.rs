//! Segments that a hostile or broken peer could leave: every answer must be an
//! error or a description that stays inside the image.

#![allow(missing_docs)]

#[path = "common/zeroipc.rs"]
mod common;

use polyshm_wire::zeroipc::{
    ArrayLayout, BarrierImage, Candidate, ChannelHeader, ChannelSync, DType, Dialect, Entry,
    EventImage, Extent, FutureHeader, FutureLayout, ImageError, LatchImage, LazyBoolImage,
    LazyLayout, MapLayout, PoolLayout, QueueLayout, RingLayout, RwLockImage, SemaphoreImage,
    SetLayout, StackLayout, StreamHeader, StreamVoid, TableHeader, describe, entry_offset,
    header_offset, place,
};
use proptest::prelude::*;

/// Values that break careless arithmetic.
const EVIL: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    64,
    255,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64 - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Reads a block as everything there is. A layout that is accepted must lie
/// inside the block.
fn read_all(block: &[u8]) {
    let size = block.len() as u64;
    let first = &block[..block.len().min(16)];
    let sizes = [1, 2, 3, 4, 8, 12, 16, 24, u64::from(u32::MAX), u64::MAX, 0];
    for elem in sizes {
        if let Ok(layout) = ArrayLayout::read(first, size, elem) {
            assert_eq!(layout.size(), size);
            let last = layout.element_at(layout.capacity - 1).unwrap();
            assert!(last + elem <= size);
        }
        for align in [1, 2, 4, 8] {
            let _ = FutureLayout::read(size, elem, align);
            let _ = LazyLayout::read(size, elem, align);
        }
    }
    if let Some(header) = block.first_chunk::<16>() {
        for elem in sizes.map(Some).into_iter().chain([None]) {
            if let Ok(layout) = QueueLayout::read(header, size, elem) {
                assert!(layout.size() <= size && layout.seq_at(layout.capacity - 1) + 4 <= size);
                let slot = layout.slot(u32::MAX);
                assert!(layout.element_at(slot) < layout.seq_offset());
            }
            if let Ok(layout) = StackLayout::read(header, size, elem) {
                assert!(layout.size() <= size);
                assert!(layout.state_at(layout.capacity - 1) + 4 <= size);
                assert!(layout.check_top(i32::MIN).is_err());
            }
        }
        for dialect in [Dialect::Cpp, Dialect::Python] {
            for key in [0, 1, 4, 8, 16] {
                let layout = SetLayout::read(header, size, dialect, key, 1);
                assert!(layout.ok().is_none_or(|layout| layout.size() <= size));
                for value in [1, 4, 8, u64::MAX] {
                    let layout = MapLayout::read(header, size, dialect, (key, 4), (value, 8));
                    assert!(layout.ok().is_none_or(|layout| layout.size() <= size));
                }
            }
        }
    }
    if let Some(header) = block.first_chunk::<24>() {
        for elem in sizes {
            if let Ok(layout) = RingLayout::read(header, size, Some(elem)) {
                assert!(layout.size() <= size && layout.byte_at(u64::MAX) < size);
                for position in EVIL {
                    if let Ok(used) = layout.used(position, 8) {
                        assert!(used <= layout.capacity.into());
                    }
                }
            }
            for align in [1, 8, 3] {
                let layout = PoolLayout::read(header, size, elem, align);
                assert!(layout.ok().is_none_or(|layout| layout.size() <= size));
            }
        }
    }
    let _ = SemaphoreImage::read(block).map(|image| image.check());
    let _ = BarrierImage::read(block).map(|image| image.check());
    let _ = LatchImage::read(block).map(|image| image.check());
    let _ = EventImage::read(block).map(|image| image.check());
    let _ = RwLockImage::read(block).map(|image| image.check());
    let _ = ChannelHeader::read(block);
    let _ = ChannelSync::read(block);
    let _ = StreamHeader::read(block);
    let _ = StreamVoid::read(block);
    let _ = FutureHeader::read(block);
    let _ = LazyBoolImage::read(block);
}

/// Describes any bytes; `true` when they were accepted.
fn probe(image: &[u8]) -> bool {
    let Ok(seen) = describe(image) else {
        return false;
    };
    let len = image.len() as u64;
    assert!(seen.memory_size <= len && seen.next_offset <= seen.memory_size);
    assert!(seen.free() <= len);
    assert!(seen.entries.len() <= seen.max_entries as usize);
    let table_end = 32 + 48 * u64::from(seen.max_entries);
    assert!(table_end <= seen.memory_size);
    for entry in &seen.entries {
        let Extent { offset, size } = entry.extent;
        let inside = offset.is_multiple_of(8)
            && offset >= table_end
            && offset
                .checked_add(size)
                .is_some_and(|end| end <= seen.memory_size);
        if !inside {
            assert!(!entry.problems.is_empty());
            assert!(entry.candidates.is_empty());
            continue;
        }
        assert!(entry.candidates.len() < 100);
        // Nothing that is offered may need more than the entry has.
        for candidate in &entry.candidates {
            let least = match *candidate {
                Candidate::Array {
                    capacity,
                    elem_size,
                    ..
                } => capacity.checked_mul(elem_size).unwrap(),
                Candidate::Queue {
                    capacity,
                    elem_size,
                    ..
                }
                | Candidate::Stack {
                    capacity,
                    elem_size,
                    ..
                }
                | Candidate::Pool {
                    capacity,
                    elem_size,
                    ..
                } => u64::from(capacity) * u64::from(elem_size),
                Candidate::Ring { capacity, .. } => capacity.into(),
                Candidate::Map {
                    capacity,
                    key_size,
                    value_size,
                    ..
                } => u64::from(capacity) * (u64::from(key_size) + u64::from(value_size)),
                Candidate::Future { max_value_size, .. } => max_value_size,
                Candidate::Lazy { value_size, .. } => value_size.into(),
                _ => 0,
            };
            assert!(least <= size, "{candidate:?} in {size}");
        }
        read_all(&image[index(offset)..index(offset + size)]);
    }
    true
}

fn set(image: &mut [u8], at: usize, value: u64, width: usize) {
    if let Some(bytes) = image.get_mut(at..at + width) {
        bytes.copy_from_slice(&value.to_le_bytes()[..width]);
    }
}

/// The values of `EVIL` and some near `was`.
fn values(was: u64) -> impl Iterator<Item = u64> {
    let near = [1, 8, 16, 48].map(|step| [was.wrapping_add(step), was.wrapping_sub(step)]);
    EVIL.into_iter().chain(near.into_iter().flatten())
}

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(image[at..at + 8].try_into().unwrap())
}

#[test]
fn each_table_field_changed() {
    let (mut tried, mut accepted) = (0_u32, 0_u32);
    for (_, original) in common::images() {
        let mut fields = vec![
            (header_offset::MAGIC, 4),
            (header_offset::VERSION, 4),
            (header_offset::ENTRY_COUNT, 4),
            (header_offset::MAX_ENTRIES, 4),
            (header_offset::MEMORY_SIZE, 8),
            (header_offset::NEXT_OFFSET, 8),
        ];
        for entry in 0..3 {
            let at = 32 + 48 * entry;
            fields.push((at + entry_offset::OFFSET, 8));
            fields.push((at + entry_offset::SIZE, 8));
        }
        for (at, width) in fields {
            for value in values(word(&original, at)) {
                let mut image = original.clone();
                set(&mut image, at, value, width);
                tried += 1;
                accepted += u32::from(probe(&image));
            }
        }
    }
    println!("{tried} images, {accepted} accepted");
    // Neither answer may become the only one.
    assert!(accepted > 10_000 && tried - accepted > 5_000);
}

#[test]
fn each_structure_word_changed() {
    for (_, original) in common::images() {
        let header = TableHeader::read(&original).unwrap();
        let mut image = original.clone();
        for at in 0..header.entry_count.get() {
            let entry = Entry::read(&original, at).unwrap();
            let extent = entry.extent(at, &header).unwrap();
            let start = index(extent.offset);
            // Headers, and the first states.
            for word in (start..start + index(extent.size).min(48)).step_by(4) {
                for value in EVIL {
                    set(&mut image, word, value, 8);
                    assert!(probe(&image));
                }
                image.copy_from_slice(&original);
            }
        }
    }
}

#[test]
fn names_of_any_bytes() {
    for (_, original) in common::images() {
        let count = TableHeader::read(&original).unwrap().entry_count.get();
        for at in 0..count as usize {
            for byte in [0, b'_', 0xff, 0x80] {
                for len in [1, 31, 32] {
                    let mut image = original.clone();
                    image[32 + 48 * at..][..len].fill(byte);
                    assert!(probe(&image));
                }
            }
        }
    }
}

#[test]
fn truncated_images() {
    for (_, image) in common::images() {
        for len in (0..image.len()).step_by(97).chain(0..100) {
            let result = describe(&image[..len]);
            if len < 32 {
                let need = 32;
                let len = len as u64;
                let structure = "table header";
                let error = ImageError::TooShort {
                    structure,
                    len,
                    need,
                };
                assert_eq!(result, Err(error));
            } else {
                assert!(matches!(result, Err(ImageError::MemorySize { .. })));
            }
        }
        // A longer object is fine: some systems round it up.
        let mut longer = image.clone();
        longer.resize(image.len() + 999, 0xff);
        assert_eq!(describe(&longer), describe(&image));
    }
}

/// The values that crash or mislead the reference implementations, each with
/// the error it must give here.
#[test]
fn known_attacks_are_named() {
    let table = |change: fn(&mut TableHeader)| {
        let mut header = TableHeader::new(4, 4096);
        change(&mut header);
        let mut image = header.to_bytes().to_vec();
        image.resize(4096, 0);
        describe(&image).unwrap_err()
    };
    let table_end = 32 + 4 * 48;
    assert_eq!(
        table(|header| header.memory_size.set(1 << 40)),
        ImageError::MemorySize {
            found: 1 << 40,
            table_end,
            object_len: 4096
        }
    );
    assert_eq!(
        table(|header| header.max_entries.set(100)),
        ImageError::MemorySize {
            found: 4096,
            table_end: 4832,
            object_len: 4096
        }
    );
    assert_eq!(
        table(|header| header.entry_count.set(5)),
        ImageError::EntryCount { found: 5, max: 4 }
    );
    assert_eq!(
        table(|header| header.next_offset.set(0)),
        ImageError::NextOffset {
            found: 0,
            table_end,
            memory_size: 4096
        }
    );
    assert_eq!(
        table(|header| header.version.set(1)),
        ImageError::Version { found: 1 }
    );
    assert_eq!(
        table(|header| header.magic.set(0)),
        ImageError::Magic { found: 0 }
    );

    // An array of 2^40 elements, and one whose size wraps around.
    for capacity in [1_u64 << 40, u64::MAX / 4 + 2] {
        let error = ArrayLayout::read(&capacity.to_le_bytes(), 48, 4).unwrap_err();
        assert!(matches!(error, ImageError::Exceeds { .. }), "{error}");
    }
    let header = |words: [u32; 4]| -> [u8; 16] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.try_into().unwrap()
    };
    assert_eq!(
        QueueLayout::read(&header([0, 0, 0, 4]), 48, Some(4)),
        Err(ImageError::ZeroCapacity { structure: "queue" })
    );
    assert_eq!(
        QueueLayout::read(&header([0, 0, 3, 4]), 48, Some(4)),
        Err(ImageError::NotPowerOfTwo {
            structure: "queue",
            found: 3
        })
    );
    // A peer that grows the element: the size in the header no longer fits.
    assert!(matches!(
        QueueLayout::read(&header([0, 0, 4, 64]), 48, None),
        Err(ImageError::Exceeds { .. })
    ));
    assert!(matches!(
        StackLayout::read(&header([0, u32::MAX, u32::MAX, 0]), u64::MAX, None),
        Err(ImageError::Field { .. })
    ));
    assert!(matches!(
        MapLayout::read(
            &header([0, u32::MAX, u32::MAX, 8]),
            u64::MAX,
            Dialect::Cpp,
            (u32::MAX.into(), 8),
            (8, 8)
        ),
        Err(ImageError::Exceeds { .. })
    ));
}

/// As many entries as an image can have, all with the same name and the same
/// place, under the structure that takes longest to judge.
#[test]
fn effort_grows_with_the_image_only() {
    const ENTRIES: u32 = 20_000;
    let map = MapLayout::new(Dialect::Cpp, 60_000, (4, 4), (8, 8)).unwrap();
    let size = 32 + 48 * u64::from(ENTRIES) + map.size();
    let mut header = TableHeader::new(ENTRIES, size);
    let extent = place(header.next_offset.get(), map.size(), size).unwrap();
    header.entry_count.set(ENTRIES);
    header.next_offset.set(extent.end());
    let mut image = header.to_bytes().to_vec();
    for _ in 0..ENTRIES {
        let entry = Entry::new("x_header", extent).unwrap();
        image.extend_from_slice(&entry.to_bytes());
    }
    image.extend_from_slice(&map.header().to_bytes());
    image.resize(index(size), 0);
    let seen = describe(&image).unwrap();
    assert_eq!(seen.entries.len(), ENTRIES as usize);
    assert!(seen.entries.iter().all(|entry| {
        entry
            .candidates
            .iter()
            .any(|candidate| matches!(candidate, Candidate::Map { .. }))
    }));
}

proptest! {
    #[test]
    fn any_bytes(image in prop::collection::vec(any::<u8>(), 0..600)) {
        probe(&image);
        read_all(&image);
    }

    /// Any bytes behind a sound table.
    #[test]
    fn any_structure(
        size in 0_u64..400,
        words in prop::collection::vec(
            prop_oneof![6 => 0_u32..9, 1 => any::<u32>(), 1 => Just(u32::MAX)],
            100,
        ),
        name in prop::sample::select(vec!["a", "a_header", "a_sem", "a_slot", "a_state"]),
    ) {
        let mut header = TableHeader::new(2, 1024);
        let extent = place(header.next_offset.get(), size, 1024).unwrap();
        header.entry_count.set(2);
        header.next_offset.set(extent.end());
        let mut image = header.to_bytes().to_vec();
        image.extend_from_slice(&Entry::new(name, extent).unwrap().to_bytes());
        image.extend_from_slice(&Entry::new("a_buffer", extent).unwrap().to_bytes());
        image.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        image.resize(1024, 0);
        prop_assert!(probe(&image));
    }

    /// A few bytes of a real image changed.
    #[test]
    fn flipped_bytes(
        which in 0..common::IMAGES,
        flips in prop::collection::vec((0_usize..1 << 16, any::<u8>()), 1..8),
    ) {
        let name = &common::manifest()["vectors"][which]["file"];
        let mut image = common::load(name.as_str().unwrap());
        let len = image.len();
        let used = index(word(&image, header_offset::NEXT_OFFSET)).min(len);
        for (at, value) in flips {
            // Half of the changes go to the header and the first entries.
            let at = if at % 2 == 0 { at % 200 } else { at % used };
            image[at] = value;
        }
        probe(&image);
    }

    /// A layout that can be made can be read back from its own header, and
    /// from no smaller entry.
    #[test]
    fn what_is_made_can_be_read(
        capacity in prop_oneof![1_u64..1000, prop::sample::select(EVIL.to_vec())],
        elem in prop_oneof![1_u64..100, prop::sample::select(EVIL.to_vec())],
        align in prop::sample::select(vec![1_u64, 2, 4, 8]),
        value in 1_u64..9,
    ) {
        if let Ok(layout) = QueueLayout::new(capacity, elem) {
            let header = layout.header().to_bytes();
            prop_assert!(layout.is_usable() && u64::from(layout.capacity) >= capacity);
            prop_assert_eq!(QueueLayout::read(&header, layout.size(), Some(elem)), Ok(layout));
            prop_assert!(QueueLayout::read(&header, layout.size() - 1, Some(elem)).is_err());
        }
        if let Ok(layout) = StackLayout::new(capacity, elem) {
            let header = layout.header().to_bytes();
            prop_assert_eq!(StackLayout::read(&header, layout.size(), Some(elem)), Ok(layout));
            prop_assert!(StackLayout::read(&header, layout.size() - 1, None).is_err());
        }
        if let Ok(layout) = RingLayout::new(capacity, elem) {
            let header = layout.header().to_bytes();
            prop_assert_eq!(u64::from(layout.elements()), capacity);
            prop_assert_eq!(RingLayout::read(&header, layout.size(), Some(elem)), Ok(layout));
            prop_assert!(RingLayout::read(&header, layout.size() - 1, None).is_err());
        }
        if let Ok(layout) = PoolLayout::new(capacity, elem, align) {
            let header = layout.header().to_bytes();
            let read = |size| PoolLayout::read(&header, size, elem, align);
            prop_assert_eq!(read(layout.size()), Ok(layout));
            prop_assert!(read(layout.size() - 1).is_err());
            prop_assert!(layout.next_in_node() + 4 <= layout.node_size());
        }
        for dialect in [Dialect::Cpp, Dialect::Python] {
            if let Ok(layout) = MapLayout::new(dialect, capacity, (elem, align), (value, 1)) {
                let header = layout.header().to_bytes();
                let read = |size| MapLayout::read(&header, size, dialect, (elem, align), (value, 1));
                prop_assert_eq!(read(layout.size()), Ok(layout));
                prop_assert!(read(layout.size() - 1).is_err());
                prop_assert!(layout.key_offset() + elem <= layout.value_offset());
                prop_assert!(layout.value_offset() + value <= layout.stride());
                prop_assert!(layout.home(u64::MAX) < layout.capacity);
            }
            if let Ok(layout) = SetLayout::new(dialect, capacity, elem, align) {
                let header = layout.header().to_bytes();
                let read = |size| SetLayout::read(&header, size, dialect, elem, align);
                prop_assert_eq!(read(layout.size()), Ok(layout));
                prop_assert!(read(layout.size() - 1).is_err());
                prop_assert!(layout.elem_offset() + elem <= layout.stride());
            }
        }
    }

    /// Whatever is asked of the arithmetic of the table.
    #[test]
    fn places_are_inside(next in any::<u64>(), size in any::<u64>(), memory in any::<u64>()) {
        for (next, size, memory) in [(next, size, memory), (next % 999, size % 999, memory % 999)] {
            if let Ok(extent) = place(next, size, memory) {
                prop_assert!(extent.offset >= next && extent.offset % 8 == 0);
                prop_assert!(extent.size == size && extent.end() <= memory);
            }
        }
    }

    #[test]
    fn any_element_text(text in "[\\[\\]()',\" <>|=a-z0-9?S]{0,40}") {
        if let Ok(dtype) = DType::parse(&text) {
            prop_assert_eq!(DType::parse(&dtype.to_string()), Ok(dtype));
        }
    }
}
