//! The region's checks and copies.

use polyshm_platform::{InvalidWord, Region, sync::Ordering};
use proptest::prelude::*;

proptest! {
    #[test]
    fn no_handle_reaches_outside(len in 0usize..300, offset in any::<usize>(), size in any::<usize>()) {
        let region = Region::heap(len);
        let inside = offset.checked_add(size).is_some_and(|end| end <= len);
        prop_assert_eq!(region.bytes(offset, size).is_ok(), inside);
        let word = offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= len);
        prop_assert_eq!(region.word64(offset).is_ok(), word);
        let near = offset % 310;
        let bytes = region.bytes(0, len).unwrap();
        let fits = near + 8 <= len;
        prop_assert_eq!(bytes.read_u64(near).is_ok(), fits);
        prop_assert_eq!(bytes.write_u64(near, 1).is_ok(), fits);
    }

    #[test]
    fn what_is_written_is_read(at in 0usize..200, data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Region::heap(512).bytes(64, 448).unwrap();
        bytes.write(at, &data).unwrap();
        let mut copy = vec![0; data.len()];
        bytes.read(at, &mut copy).unwrap();
        prop_assert_eq!(&copy, &data);
        // And nothing beside it.
        let mut whole = vec![0; 448];
        bytes.read(0, &mut whole).unwrap();
        whole[at..at + data.len()].fill(0);
        prop_assert!(whole.iter().all(|&byte| byte == 0));
        bytes.write_u64(at, 0x0102_0304_0506_0708).unwrap();
        prop_assert_eq!(bytes.read_u64(at).unwrap(), 0x0102_0304_0506_0708);
        let mut little = [0; 8];
        bytes.read(at, &mut little).unwrap();
        prop_assert_eq!(little, [8, 7, 6, 5, 4, 3, 2, 1]);
    }
}

#[test]
fn words_and_bytes_are_the_same_memory() {
    let region = Region::heap(128);
    let word = region.word64(72).unwrap();
    word.store(u64::from_le_bytes(*b"the word"), Ordering::Release);
    let mut copy = [0; 8];
    region.bytes(70, 20).unwrap().read(2, &mut copy).unwrap();
    assert_eq!(&copy, b"the word");
    let half = region.word32(76).unwrap();
    assert_eq!(
        half.fetch_add(1, Ordering::Relaxed),
        u32::from_le_bytes(*b"word")
    );
    assert!(matches!(
        region.word64(73),
        Err(InvalidWord::Misaligned { .. })
    ));
    assert!(matches!(
        region.word64(128),
        Err(InvalidWord::OutOfRange(_))
    ));
    // A handle keeps the memory when the region's own handle is gone.
    drop(region);
    assert_eq!(word.load(Ordering::Acquire).to_le_bytes()[..4], *b"the ");
}
