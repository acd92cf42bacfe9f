//! One reader and one writer, through the public interface, on real objects.
#![cfg(target_os = "linux")]

use polyshm_platform::{Mode, Semaphore};
use polyshm_testkit::Name;
use polyshm_zerobuffer::{
    AttachError, BufferConfig, BufferHealth, CreateError, MetadataError, ReadError, Reader,
    WaitStrategy, WriteError, Writer, WriterConfig, remove_stale_buffers,
};
use std::{
    io::{self, IoSlice},
    os::unix::fs::{FileExt, PermissionsExt},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_mins(10);

fn pair(name: &str, metadata: u64, payload: u64) -> (Reader, Writer) {
    let reader = Reader::create(name, &BufferConfig::new(metadata, payload)).unwrap();
    let writer = Writer::open(name).unwrap();
    (reader, writer)
}

/// Overwrites bytes of a buffer behind everybody's back.
fn poke(name: &str, offset: u64, bytes: &[u8]) {
    let file = std::fs::File::options()
        .write(true)
        .open(format!("/dev/shm/{name}"))
        .unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn frames_arrive_whole_in_order_and_in_every_form() {
    let name = Name::new("forms");
    let (reader, mut writer) = pair(&name, 64, 1024);
    assert_eq!(writer.write(b"copied").unwrap(), 1);
    let parts = [
        IoSlice::new(b"from "),
        IoSlice::new(b""),
        IoSlice::new(b"parts"),
    ];
    assert_eq!(writer.write_vectored(&parts).unwrap(), 2);
    let mut frame = writer.reserve(8).unwrap();
    frame.copy_from_slice(b"in place");
    assert_eq!(frame.sequence(), 3);
    assert_eq!(frame.commit().unwrap(), 3);
    for (sequence, data) in [(1, &b"copied"[..]), (2, b"from parts"), (3, b"in place")] {
        let frame = reader.read(SOON).unwrap();
        assert_eq!((frame.sequence(), &*frame), (sequence, data));
    }
    assert!(reader.try_read().unwrap().is_none());
    assert!(matches!(
        reader.read(Duration::from_millis(5)),
        Err(ReadError::Timeout { .. })
    ));
    assert_eq!((writer.stats().frames, writer.stats().bytes), (3, 24));
    assert_eq!((reader.stats().frames, reader.stats().bytes), (3, 24));
    drop((writer, reader));
    name.assert_nothing_left();
}

#[test]
fn an_aborted_frame_leaves_no_trace() {
    let name = Name::new("abort");
    let (reader, mut writer) = pair(&name, 64, 256);
    writer.write(&[7; 100]).unwrap();
    let before = writer.status();
    let mut frame = writer.reserve(200 - 16 - 76).unwrap();
    frame.fill(9);
    drop(frame);
    assert_eq!(writer.status(), before);
    assert_eq!(*reader.read(SOON).unwrap(), [7; 100]);
    assert_eq!(
        writer.write(&[8; 50]).unwrap(),
        2,
        "the number was not used up"
    );
    assert_eq!(*reader.read(SOON).unwrap(), [8; 50]);
}

#[test]
fn any_frame_that_fits_the_ring_fits_some_day() {
    let name = Name::new("fits");
    let (reader, mut writer) = pair(&name, 64, 512);
    // Every length, after every other position: each must go through.
    let mut position: u64 = 1;
    for round in 0..4u8 {
        for len in 1..=496 {
            position = position
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let small = 1 + (position >> 40) as usize % 100;
            for len in [small, len] {
                let byte = round ^ len as u8;
                writer.try_write(&vec![byte; len]).unwrap();
                let frame = reader.read(SOON).unwrap();
                assert!(frame.len() == len && frame.iter().all(|&found| found == byte));
            }
        }
    }
    assert_eq!(reader.status().payload_free, 512);
    assert!(writer.stats().rewinds > 0 && writer.stats().wraps > 0);
}

#[test]
fn frames_over_half_the_ring_go_through_alternating_with_small_ones() {
    let name = Name::new("large");
    let (reader, mut writer) = pair(&name, 64, 10_240);
    for (sequence, len) in [6144, 7168, 1, 9216, 1, 10_224, 1].into_iter().enumerate() {
        writer.try_write(&vec![sequence as u8; len]).unwrap();
        assert_eq!(*reader.read(SOON).unwrap(), vec![sequence as u8; len]);
    }
}

#[test]
fn held_frames_keep_their_bytes_and_order_of_release_does_not_matter() {
    let name = Name::new("held");
    let (reader, mut writer) = pair(&name, 64, 256);
    for byte in 1..=3 {
        writer.write(&[byte; 48]).unwrap();
    }
    let first = reader.read(SOON).unwrap();
    let second = reader.read(SOON).unwrap();
    let third = reader.read(SOON).unwrap();
    drop(third);
    drop(second);
    // Their room lies behind the first frame's.
    assert_eq!(reader.status().payload_free, 64);
    assert!(matches!(
        writer.try_write(&[4; 100]),
        Err(WriteError::Full {
            needed: 180,
            free: 64,
            ..
        })
    ));
    assert_eq!(*first, [1; 48]);
    drop(first);
    assert_eq!(reader.status().payload_free, 256);
    writer.try_write(&[4; 100]).unwrap();
}

#[test]
fn metadata_is_set_once_by_copy_or_in_place() {
    let name = Name::new("metadata");
    let (reader, mut writer) = pair(&name, 64, 256);
    assert!(reader.metadata().unwrap().is_none());
    assert!(
        reader
            .wait_for_metadata(Duration::from_millis(3))
            .unwrap()
            .is_none()
    );
    let too_large = writer.set_metadata(&[0; 57]);
    assert!(matches!(
        too_large,
        Err(MetadataError::TooLarge {
            len: 57,
            max: 56,
            ..
        })
    ));
    drop(writer.reserve_metadata(10).unwrap());
    let mut block = writer.reserve_metadata(56).unwrap();
    block.fill(3);
    block.commit();
    assert_eq!(*reader.metadata().unwrap().unwrap(), [3; 56]);
    assert!(matches!(
        writer.set_metadata(b"x"),
        Err(MetadataError::AlreadyWritten { .. })
    ));
    drop(writer);
    let mut second = Writer::open(&name).unwrap();
    assert!(matches!(
        second.set_metadata(b"x"),
        Err(MetadataError::AlreadyWritten { .. })
    ));
    drop((second, reader));

    // Empty metadata is metadata.
    let (reader, mut writer) = pair(&name, 64, 256);
    writer.set_metadata(b"").unwrap();
    assert_eq!(reader.metadata().unwrap().unwrap().len(), 0);
    drop((reader, writer));

    let (_reader, mut writer) = pair(&name, 0, 256);
    assert!(matches!(
        writer.set_metadata(b""),
        Err(MetadataError::NoBlock { .. })
    ));
}

#[test]
fn bad_names_are_refused_each_for_its_reason() {
    let config = BufferConfig::default();
    let long = "n".repeat(246);
    for (name, reason) in [
        ("", "empty"),
        ("a/b", "/"),
        ("/a", "/"),
        ("a\0b", "NUL"),
        (&*long, "245"),
        ("..", ".."),
    ] {
        let refused = |error: &dyn std::error::Error| {
            let cause = error.source().expect("the rule is the cause").to_string();
            assert!(cause.contains(reason), "{name:?}: {cause}");
        };
        refused(&Reader::create(name, &config).unwrap_err());
        refused(&Writer::open(name).unwrap_err());
    }
    let longest = Name(format!(
        "polyshm-{}-{}",
        std::process::id(),
        "n".repeat(225)
    ));
    let longest = Name(format!("{}{}", &*longest, "n".repeat(245 - longest.len())));
    drop(Reader::create(&longest, &config).unwrap());
    longest.assert_nothing_left();
}

#[test]
fn bad_sizes_are_refused() {
    let name = Name::new("sizes");
    let zero = Reader::create(&name, &BufferConfig::new(64, 0));
    assert!(matches!(zero, Err(CreateError::Layout { .. })));
    let vast = Reader::create(&name, &BufferConfig::new(64, u64::MAX - 100));
    assert!(matches!(vast, Err(CreateError::Layout { .. })));
    name.assert_nothing_left();
    let (_reader, mut writer) = pair(&name, 64, 64);
    assert_eq!(writer.max_frame(), 48);
    assert!(matches!(
        writer.write(&[]),
        Err(WriteError::EmptyFrame { .. })
    ));
    assert!(matches!(
        writer.reserve(0),
        Err(WriteError::EmptyFrame { .. })
    ));
    assert!(matches!(
        writer.write(&[0; 49]),
        Err(WriteError::FrameTooLarge {
            len: 49,
            max: 48,
            ..
        })
    ));
    writer.write(&[0; 48]).unwrap();
}

#[test]
fn a_second_reader_and_a_second_writer_are_refused() {
    let name = Name::new("second");
    let (reader, writer) = pair(&name, 64, 256);
    let own = Some(u64::from(std::process::id()));
    let second = Reader::create(&name, &BufferConfig::default());
    assert!(matches!(second, Err(CreateError::ReaderAlreadyConnected { pid, .. }) if pid == own));
    let second = Writer::open(&name);
    assert!(
        matches!(second, Err(AttachError::WriterAlreadyConnected { pid, .. }) if Some(pid) == own)
    );
    // The first pair is none the worse for it.
    assert!(reader.is_writer_connected() && writer.is_reader_connected());
    drop(writer);
    assert!(!reader.is_writer_connected());
    let writer = Writer::open(&name).unwrap();
    assert!(reader.wait_for_writer(SOON));
    drop(reader);
    assert!(!writer.is_reader_connected());
    assert!(writer.wait_for_reader_exit(SOON));
    drop(Reader::create(&name, &BufferConfig::default()).unwrap());
    name.assert_nothing_left();
}

#[test]
fn a_writer_without_a_reader_fails_cleanly_and_can_wait_for_one() {
    let name = Name::new("early");
    assert!(matches!(
        Writer::open(&name),
        Err(AttachError::NotFound { .. })
    ));
    let waited = Writer::open_within(&name, Duration::from_millis(20), &WriterConfig::default());
    assert!(matches!(waited, Err(AttachError::NotFound { .. })));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Writer::open_within(&name, SOON, &WriterConfig::default()));
        std::thread::sleep(Duration::from_millis(30));
        let reader = Reader::create(&name, &BufferConfig::default()).unwrap();
        let mut writer = waiting.join().unwrap().unwrap();
        writer.write(b"now").unwrap();
        assert_eq!(*reader.read(SOON).unwrap(), *b"now");
    });
}

#[test]
fn objects_that_are_no_buffer_are_refused_and_left_alone() {
    let name = Name::new("foreign");
    let path = format!("/dev/shm/{}", &*name);
    let reader = Reader::create(&name, &BufferConfig::new(64, 256)).unwrap();
    let cause = || {
        use std::error::Error;
        let error = Writer::open(&name).unwrap_err();
        assert!(matches!(error, AttachError::Invalid { .. }), "{error}");
        error.source().unwrap().to_string()
    };
    poke(&name, 4, &[2]);
    assert!(cause().contains("version is 2.0.0"));
    poke(&name, 4, &[1]);
    poke(&name, 0, &64u32.to_le_bytes());
    assert!(cause().contains("oieb_size is 64"));
    poke(&name, 0, &128u32.to_le_bytes());
    poke(&name, 0x20, &1024u64.to_le_bytes());
    assert!(cause().contains("do not fit the object of 448 bytes"));
    poke(&name, 0x20, &256u64.to_le_bytes());
    poke(&name, 0x30, &257u64.to_le_bytes());
    assert!(cause().contains("payload_write_pos is 257"));
    poke(&name, 0x30, &0u64.to_le_bytes());
    drop(Writer::open(&name).unwrap());
    drop(reader);

    std::fs::write(
        &path,
        b"something else entirely, and longer than a header: ".repeat(4),
    )
    .unwrap();
    let taken = Reader::create(&name, &BufferConfig::default());
    assert!(
        matches!(taken, Err(CreateError::NameTaken { .. })),
        "{taken:?}"
    );
    assert!(matches!(
        Writer::open(&name),
        Err(AttachError::Invalid { .. })
    ));
    assert!(std::fs::metadata(&path).is_ok(), "it is not ours to remove");
    std::fs::write(&path, b"short").unwrap();
    assert!(matches!(
        Writer::open(&name),
        Err(AttachError::Invalid { .. })
    ));
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(
        Writer::open(&name),
        Err(AttachError::NotReady { .. })
    ));
}

#[test]
fn the_end_comes_after_the_last_frame_and_stays() {
    let name = Name::new("end");
    let (reader, mut writer) = pair(&name, 64, 1024);
    for byte in 1..=3 {
        writer.write(&[byte; 10]).unwrap();
    }
    assert!(!writer.drain(Duration::from_millis(2)).unwrap());
    writer.close().unwrap();
    let lens: Vec<usize> = reader
        .frames(SOON)
        .map(|frame| frame.unwrap().len())
        .collect();
    assert_eq!(lens, [10, 10, 10]);
    for _ in 0..3 {
        assert!(matches!(
            reader.read(SOON),
            Err(ReadError::WriterClosed { .. })
        ));
    }
    assert!(matches!(
        reader.try_read(),
        Err(ReadError::WriterClosed { .. })
    ));
    // A later writer is as good as the first.
    let mut writer = Writer::open(&name).unwrap();
    assert!(reader.try_read().unwrap().is_none());
    assert_eq!(writer.write(b"again").unwrap(), 4);
    assert_eq!(*reader.read(SOON).unwrap(), *b"again");
    drop(reader);
    assert!(matches!(
        writer.write(b"x"),
        Err(WriteError::ReaderClosed { .. })
    ));
    assert!(matches!(
        writer.set_metadata(b"x"),
        Err(MetadataError::ReaderGone { .. })
    ));
}

#[test]
fn no_writer_yet_is_a_timeout_and_not_an_end() {
    let name = Name::new("nobody");
    let reader = Reader::create(&name, &BufferConfig::default()).unwrap();
    assert!(matches!(
        reader.read(Duration::from_millis(150)),
        Err(ReadError::Timeout { .. })
    ));
    assert!(reader.try_read().unwrap().is_none());
}

#[test]
fn closing_wakes_the_other_side() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
    ] {
        let name = Name::new("wake");
        let config = BufferConfig::new(64, 256).wait_strategy(strategy);
        let reader = Reader::create(&name, &config).unwrap();
        let mut writer = Writer::open(&name).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                writer.write(b"x").unwrap();
                std::thread::sleep(Duration::from_millis(20));
                drop(writer);
            });
            assert_eq!(*reader.read(LONG).unwrap(), *b"x");
            assert!(reader.read(LONG).is_err_and(|error| error.is_end()));
        });
        let settings = WriterConfig::default().wait_strategy(strategy);
        let mut writer = Writer::open_with(&name, &settings).unwrap();
        writer.write(&[1; 200]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                drop(reader);
            });
            let end = writer.write_within(&[1; 200], LONG);
            assert!(matches!(end, Err(WriteError::ReaderClosed { .. })));
        });
    }
}

#[test]
fn a_waiting_writer_goes_on_when_the_reader_releases() {
    let name = Name::new("flow");
    let (reader, mut writer) = pair(&name, 64, 256);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for byte in 0..200u8 {
                writer.write_within(&[byte; 100], LONG).unwrap();
            }
        });
        for byte in 0..200u8 {
            if byte % 50 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(*reader.read(LONG).unwrap(), [byte; 100]);
        }
    });
}

#[test]
fn a_shared_reader_gives_each_frame_to_one_thread() {
    let name = Name::new("sync");
    let (reader, mut writer) = pair(&name, 64, 4096);
    let reader = reader.into_sync();
    let mut seen: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    for frame in reader.frames(LONG) {
                        // A second one, if there is one, released before the
                        // first: credit in ring order all the same.
                        let frames = [Some(frame.unwrap()), reader.try_read().unwrap_or(None)];
                        for frame in frames.into_iter().rev().flatten() {
                            assert!(frame.iter().all(|&byte| byte == frame.sequence() as u8));
                            seen.push(frame.sequence());
                        }
                    }
                    seen
                })
            })
            .collect();
        for sequence in 1..=3000u64 {
            let len = 1 + sequence as usize % 300;
            writer
                .write_within(&vec![sequence as u8; len], LONG)
                .unwrap();
        }
        writer.close().unwrap();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(1..=3000));
    assert_eq!(reader.status().payload_free, 4096);
}

#[test]
fn one_post_per_frame_and_none_left_over() {
    let name = Name::new("posts");
    let (reader, mut writer) = pair(&name, 64, 1024);
    let data = Semaphore::open(&format!("/sem-w-{}", &*name)).unwrap();
    let space = Semaphore::open(&format!("/sem-r-{}", &*name)).unwrap();
    for frames in 1..=5 {
        writer.write(&[0; 20]).unwrap();
        assert_eq!(data.value().unwrap(), frames);
        assert_eq!(reader.status().pending, Some(frames));
    }
    for frames in (0..5).rev() {
        drop(reader.read(SOON).unwrap());
        assert_eq!(data.value().unwrap(), frames);
        // More than one would only be drained again.
        assert_eq!(space.value().unwrap(), 1);
    }
}

#[test]
fn status_tells_how_full_the_ring_is() {
    let name = Name::new("status");
    let (reader, mut writer) = pair(&name, 64, 1024);
    assert_eq!(reader.status().health(), BufferHealth::Healthy);
    writer.write(&[0; 820 - 16]).unwrap();
    let status = writer.status();
    assert!((status.utilisation() - 820.0 / 1024.0).abs() < 1e-9);
    assert_eq!(status.health(), BufferHealth::Degraded);
    writer.write(&[0; 160 - 16]).unwrap();
    assert_eq!(reader.status().health(), BufferHealth::Critical);
    let own = u64::from(std::process::id());
    assert_eq!((status.writer_pid, status.reader_pid), (own, own));
}

#[test]
fn damage_is_reported_once_and_for_all() {
    let name = Name::new("damage");
    let (reader, mut writer) = pair(&name, 64, 256);
    writer.write(&[1; 10]).unwrap();
    // A gap in the numbers.
    poke(&name, 128 + 64 + 8, &9u64.to_le_bytes());
    for _ in 0..2 {
        let error = reader.read(Duration::from_millis(20)).unwrap_err();
        assert!(
            matches!(
                error,
                ReadError::Sequence {
                    expected: 1,
                    got: 9,
                    ..
                }
            ),
            "{error}"
        );
    }
    drop((reader, writer));

    let (reader, mut writer) = pair(&name, 64, 256);
    writer.write(&[1; 10]).unwrap();
    poke(&name, 128 + 64, &300u64.to_le_bytes());
    for _ in 0..2 {
        let error = reader.read(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
    }
    poke(&name, 0x28, &1000u64.to_le_bytes());
    assert!(matches!(
        writer.write(&[1; 10]),
        Err(WriteError::Corrupt { .. })
    ));
    drop((reader, writer));

    // A header of length 0 where no marker may be.
    let (reader, mut writer) = pair(&name, 64, 256);
    writer.write(&[1; 10]).unwrap();
    poke(&name, 128 + 64, &0u64.to_le_bytes());
    let error = io::Error::from(reader.read(Duration::from_millis(20)).unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn mode_bits_are_the_callers_choice() {
    let name = Name::new("mode");
    let config = BufferConfig::default().mode(Mode::OWNER);
    let reader = Reader::create(&name, &config).unwrap();
    let files = name.files();
    assert_eq!(files.len(), 5, "{files:?}");
    for path in files {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    drop(reader);
    name.assert_nothing_left();
}

#[test]
fn stale_removal_keeps_what_lives() {
    let name = Name::new("stale");
    let reader = Reader::create(&name, &BufferConfig::default()).unwrap();
    // What a dead reader of another name leaves: everything, and no lock held.
    let dead = Name::new("stale-dead");
    let other = Reader::create(&dead, &BufferConfig::default()).unwrap();
    for path in dead.files() {
        let copy = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, copy).unwrap();
    }
    drop(other);
    poke(&dead, 0x58, &0u64.to_le_bytes());
    assert_eq!(
        dead.files().len(),
        5,
        "its owner saw that they are not its own"
    );
    let report = remove_stale_buffers().unwrap();
    assert!(report.removed.contains(&dead.0), "{report:?}");
    assert!(
        report.kept.iter().any(|(kept, _)| *kept == name.0),
        "{report:?}"
    );
    dead.assert_nothing_left();
    assert_eq!(name.files().len(), 5);
    drop(reader);
    name.assert_nothing_left();
}

#[cfg(feature = "serde")]
#[test]
fn configurations_and_states_are_data() {
    let config = BufferConfig::new(64, 256)
        .mode(Mode::OWNER)
        .wait_strategy(WaitStrategy::Spin);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<BufferConfig>(&text).unwrap(), config);
    assert_eq!(
        serde_json::from_str::<BufferConfig>("{}").unwrap(),
        BufferConfig::default()
    );
    let name = Name::new("serde");
    let reader = Reader::create(&name, &config).unwrap();
    let text = serde_json::to_string(&reader.status()).unwrap();
    assert!(text.contains("\"payload_free\":256"), "{text}");
}
