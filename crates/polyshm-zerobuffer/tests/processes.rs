//! What takes several processes, or another system around them.
#![cfg(target_os = "linux")]

use polyshm_testkit::{Name, ROLE, child, role, skip, tell};
use polyshm_zerobuffer::{
    BufferConfig, CreateError, ReadError, Reader, WaitStrategy, WriteError, Writer, WriterConfig,
};
use std::{
    io::{BufRead, BufReader},
    process::Command,
    time::Duration,
};

const LONG: Duration = Duration::from_mins(1);

/// Runs in the child processes only.
#[test]
fn child_role() {
    let Some(role) = role() else { return };
    let (what, name) = role.split_once(' ').expect("a role and a name");
    match what {
        "hold-reader" => {
            let _reader = Reader::create(name, &BufferConfig::new(64, 256)).unwrap();
            tell("ready");
            std::thread::sleep(LONG);
        }
        "hold-writer" => {
            let mut writer = Writer::open(name).unwrap();
            writer.write(b"before the end").unwrap();
            tell("ready");
            std::thread::sleep(LONG);
        }
        "race" => {
            let reader = Reader::create(name, &BufferConfig::new(64, 256));
            tell(match &reader {
                Ok(_) => "won",
                Err(CreateError::ReaderAlreadyConnected { .. }) => "lost",
                Err(error) => panic!("{error:?}"),
            });
            // Until the parent has heard of all.
            let _ = std::io::stdin().lock().read_line(&mut String::new());
        }
        "no-calls" => no_system_calls(name),
        "tight" => on_a_small_dev_shm(name),
        other => panic!("no role {other}"),
    }
}

#[test]
fn a_killed_writer_is_noticed_by_each_strategy() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
    ] {
        let name = Name::new("kill-writer");
        let config = BufferConfig::new(64, 256).wait_strategy(strategy);
        let reader = Reader::create(&name, &config).unwrap();
        let mut writer = child("child_role", &format!("hold-writer {}", &*name));
        assert_eq!(writer.hear().as_deref(), Some("ready"));
        let pid = u64::from(writer.0.id());
        drop(writer);
        assert_eq!(*reader.read(LONG).unwrap(), *b"before the end");
        let end = reader.read(LONG);
        assert!(matches!(end, Err(ReadError::WriterDead { pid: dead, .. }) if dead == pid));
        // It stays the reason until there is another writer.
        assert!(matches!(
            reader.read(LONG),
            Err(ReadError::WriterDead { .. })
        ));
        assert_eq!(Writer::open(&name).unwrap().write(b"next").unwrap(), 2);
        assert_eq!(*reader.read(LONG).unwrap(), *b"next");
        assert!(matches!(
            reader.read(LONG),
            Err(ReadError::WriterClosed { .. })
        ));
    }
}

#[test]
fn a_killed_reader_is_noticed_by_each_strategy_and_replaced() {
    for strategy in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Block,
    ] {
        let name = Name::new("kill-reader");
        let mut reader = child("child_role", &format!("hold-reader {}", &*name));
        assert_eq!(reader.hear().as_deref(), Some("ready"));
        let settings = WriterConfig::default().wait_strategy(strategy);
        let mut writer = Writer::open_with(&name, &settings).unwrap();
        writer.write(&[0; 200]).unwrap();
        let second = Reader::create(&name, &BufferConfig::default());
        assert!(matches!(
            second,
            Err(CreateError::ReaderAlreadyConnected { .. })
        ));
        let pid = u64::from(reader.0.id());
        drop(reader);
        let end = writer.write_within(&[0; 200], LONG);
        assert!(matches!(end, Err(WriteError::ReaderDead { pid: dead, .. }) if dead == pid));
        // The dead reader's objects are still there; a new one replaces them.
        let reader = Reader::create(&name, &BufferConfig::new(64, 256)).unwrap();
        writer = Writer::open(&name).unwrap();
        writer.write(b"to the new one").unwrap();
        assert_eq!(*reader.read(LONG).unwrap(), *b"to the new one");
        drop((writer, reader));
        name.assert_nothing_left();
    }
}

#[test]
fn of_many_readers_that_race_for_a_name_one_wins() {
    for _ in 0..5 {
        let name = Name::new("race");
        let mut racers: Vec<_> = (0..4)
            .map(|_| child("child_role", &format!("race {}", &*name)))
            .collect();
        let heard: Vec<String> = racers
            .iter_mut()
            .map(|racer| racer.hear().expect("it tells"))
            .collect();
        assert_eq!(
            heard.iter().filter(|word| *word == "won").count(),
            1,
            "{heard:?}"
        );
        for racer in &mut racers {
            drop(racer.0.stdin.take());
            assert!(racer.0.wait().unwrap().success());
        }
        name.assert_nothing_left();
    }
}

/// Two hundred readers come and go while a scan for stale buffers runs in each.
#[test]
fn creating_and_removing_leaves_nothing() {
    let name = Name::new("churn");
    for _ in 0..200 {
        let reader = Reader::create(&name, &BufferConfig::new(64, 64)).unwrap();
        let mut writer = Writer::open(&name).unwrap();
        writer.write(b"x").unwrap();
        drop(reader.read(LONG).unwrap());
    }
    name.assert_nothing_left();
}

/// Sends and receives `frames` frames in every form.
fn exchange(reader: &Reader, writer: &mut Writer, frames: usize) {
    let data = [5; 300];
    for index in 0..frames {
        let len = 1 + index % 300;
        if index % 2 == 0 {
            writer.write(&data[..len]).unwrap();
        } else {
            let mut frame = writer.reserve(len).unwrap();
            frame.fill(5);
            frame.commit().unwrap();
        }
        let frame = reader.read(LONG).unwrap();
        assert!(frame.len() == len && frame[len - 1] == 5);
    }
}

#[test]
fn no_allocation_per_frame() {
    let name = Name::new("alloc");
    let reader = Reader::create(&name, &BufferConfig::new(64, 4096)).unwrap();
    let mut writer = Writer::open(&name).unwrap();
    exchange(&reader, &mut writer, 100);
    let made = allocation_counter::measure(|| exchange(&reader, &mut writer, 10_000));
    assert_eq!(made.count_total, 0, "allocations for 10,000 frames");
    // The counter counts.
    let made = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(made.count_total, 1);
}

/// In a thread that the system kills at the first call other than reading or
/// writing a file.
fn no_system_calls(name: &str) {
    let reader = Reader::create(name, &BufferConfig::new(64, 4096)).unwrap();
    let mut writer = Writer::open(name).unwrap();
    exchange(&reader, &mut writer, 100);
    let thread = format!(
        "/proc/self/task/{}",
        rustix::thread::gettid().as_raw_nonzero()
    );
    std::thread::spawn(move || {
        // The system ends the thread alone, without a word to the others.
        while std::path::Path::new(&thread).exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        tell("ended");
        std::process::exit(0);
    });
    tell("start");
    rustix::thread::set_secure_computing_mode(rustix::thread::SecureComputingMode::Strict).unwrap();
    exchange(&reader, &mut writer, 10_000);
    tell("done");
    // The very next call, whatever it is, ends this thread.
    std::thread::yield_now();
    tell("alive");
}

#[test]
fn no_system_call_per_frame() {
    let name = Name::new("calls");
    let mut strict = child("child_role", &format!("no-calls {}", &*name));
    match strict.hear().as_deref() {
        Some("start") => {}
        None => {
            return skip(
                "no_system_call_per_frame",
                "strict secure computing is not available",
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        strict.hear().as_deref(),
        Some("done"),
        "a system call was made"
    );
    let last = strict.hear();
    assert_eq!(
        last.as_deref(),
        Some("ended"),
        "the calls were not forbidden"
    );
}

/// On a /dev/shm of one megabyte.
fn on_a_small_dev_shm(name: &str) {
    let small = Reader::create(name, &BufferConfig::new(64, 256 << 10)).unwrap();
    let other = format!("{name}-large");
    let error = Reader::create(&other, &BufferConfig::new(64, 8 << 20)).unwrap_err();
    let CreateError::System {
        source: polyshm_platform::Error::NoSpace { .. },
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    let left: Vec<_> = std::fs::read_dir("/dev/shm")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|file| file.contains("-large"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    // What fits still works.
    let mut writer = Writer::open(name).unwrap();
    writer.write(&[1; 1000]).unwrap();
    assert_eq!(*small.read(LONG).unwrap(), [1; 1000]);
    drop((writer, small));
    tell("done");
}

#[test]
fn too_small_a_dev_shm_is_an_error_and_leaves_nothing() {
    const TEST: &str = "too_small_a_dev_shm_is_an_error_and_leaves_nothing";
    let name = Name::new("tight");
    let script =
        "mount -t tmpfs -o size=1m polyshm /dev/shm && echo @mounted && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["child_role", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("tight {}", &*name))
        .output();
    let Ok(output) = output else {
        return skip(TEST, "there is no unshare command");
    };
    let lines: Vec<String> = BufReader::new(&*output.stdout)
        .lines()
        .map_while(Result::ok)
        .collect();
    if !lines.iter().any(|line| line == "@mounted") {
        return skip(TEST, "mounting a tmpfs takes root");
    }
    let said = lines.join("\n") + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("@done"), "{said}");
    name.assert_nothing_left();
}
