//! The operating system's objects, with several processes where it matters.
#![cfg(target_os = "linux")]

use polyshm_platform::{
    Access, Deadline, Error, FileLock, LIVENESS_SLICE, Mode, Region, Semaphore, SharedMemory,
    WakeWord, process, sync::Ordering,
};
use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_mins(1);

/// A name of our own; whatever is left of it is removed on drop.
struct Name(String);

impl Name {
    fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        Self(format!("polyshm-{test}-{}-{number}", std::process::id()))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = SharedMemory::unlink_name(&self.0);
        let _ = Semaphore::unlink(&self.0);
    }
}

struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn child(role: &str) -> Guarded {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child_role", "--exact", "--nocapture"])
        .env("POLYSHM_TEST_ROLE", role)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Guarded(child)
}

/// Runs in the child processes only.
#[test]
fn child_role() {
    let Ok(role) = std::env::var("POLYSHM_TEST_ROLE") else {
        return;
    };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["post", name] => Semaphore::open(name).unwrap().post().unwrap(),
        ["wake", name] => {
            let region = Region::map(&SharedMemory::open(name).unwrap()).unwrap();
            let (word, sleepers) = (region.word32(0).unwrap(), region.word32(4).unwrap());
            word.store(1, Ordering::Release);
            WakeWord::new(word, sleepers).wake(u32::MAX);
        }
        ["lock", path, name] => {
            let _lock = FileLock::try_acquire(path.as_ref(), Mode::OWNER)
                .unwrap()
                .unwrap();
            Semaphore::open(name).unwrap().post().unwrap();
            std::thread::sleep(LONG);
        }
        ["sleep"] => std::thread::sleep(LONG),
        _ => panic!("no role {role}"),
    }
}

#[test]
fn a_segment_is_zeroed_allocated_and_its_own() {
    let name = Name::new("segment");
    let segment = SharedMemory::create_new(&name.0, 3 << 20, Mode::OWNER).unwrap();
    let path = PathBuf::from("/dev/shm").join(&name.0);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata);
    assert_eq!(blocks * 512, 3 << 20, "every page is there");
    let taken = SharedMemory::create_new(&name.0, 64, Mode::OWNER).unwrap_err();
    assert!(taken.is_already_exists(), "{taken}");

    let reader = SharedMemory::open_read_only(&name.0).unwrap();
    assert_eq!(
        (reader.len(), reader.identity()),
        (3 << 20, segment.identity())
    );
    assert_eq!(reader.access(), Access::ReadOnly);
    let view = Region::map(&reader).unwrap();
    assert!(
        view.word64(0).is_err(),
        "a read-only word cannot be stored to"
    );
    let view = view.bytes(0, 8).unwrap();
    assert!(view.write_u64(0, 1).is_err());
    let region = Region::map(&segment).unwrap();
    region.word64(0).unwrap().store(7, Ordering::Release);
    assert_eq!(view.read_u64(0).unwrap(), 7);
}

#[test]
fn a_name_is_removed_only_while_it_is_ours() {
    let name = Name::new("unlink");
    let first = SharedMemory::create_new(&name.0, 64, Mode::OWNER).unwrap();
    assert!(SharedMemory::unlink_name(&name.0).unwrap());
    let second = SharedMemory::create_new(&name.0, 64, Mode::OWNER).unwrap();
    assert!(!first.is_linked().unwrap() && !first.unlink().unwrap());
    assert!(second.unlink().unwrap());
    assert!(!second.unlink().unwrap());
    assert!(SharedMemory::open(&name.0).unwrap_err().is_not_found());
}

#[test]
fn names_have_rules() {
    let long = "n".repeat(256);
    for (name, rule) in [
        ("", "empty"),
        ("/", "empty"),
        ("a/b", "separator"),
        ("..", "directory"),
        ("a\0", "NUL"),
        (&*long, "256"),
    ] {
        let error = SharedMemory::create_new(name, 64, Mode::OWNER).unwrap_err();
        assert!(
            matches!(error, Error::InvalidName { .. }) && error.to_string().contains(rule),
            "{error}"
        );
        assert!(matches!(
            Semaphore::open(name),
            Err(Error::InvalidName { .. })
        ));
    }
    // Semaphores share the longest name with a prefix.
    assert!(matches!(
        Semaphore::open(&long[..252]),
        Err(Error::InvalidName { .. })
    ));
    let error = SharedMemory::open(&long[..252]).unwrap_err();
    assert!(
        !cfg!(target_os = "linux") || error.is_not_found(),
        "{error}"
    );
}

#[test]
fn more_than_there_is_leaves_nothing() {
    let name = Name::new("vast");
    // More than any machine has; not so much that the length itself is refused.
    let error = SharedMemory::create_new(&name.0, 1 << 50, Mode::OWNER).unwrap_err();
    assert!(
        matches!(error, Error::NoSpace { requested, .. } if requested == 1 << 50),
        "{error:?}"
    );
    assert!(SharedMemory::open(&name.0).unwrap_err().is_not_found());
}

#[test]
fn a_semaphore_counts_and_wakes_across_processes() {
    let name = Name::new("semaphore");
    let semaphore = Semaphore::create_new(&name.0, 2, Mode::OWNER).unwrap();
    assert!(
        Semaphore::create_new(&name.0, 0, Mode::OWNER)
            .unwrap_err()
            .is_already_exists()
    );
    assert_eq!(semaphore.value().unwrap(), 2);
    assert!(semaphore.try_wait().unwrap() && semaphore.wait_until(Deadline::now()).unwrap());
    assert!(!semaphore.try_wait().unwrap());
    let started = Instant::now();
    assert!(
        !semaphore
            .wait_until(Deadline::after(Duration::from_millis(30)))
            .unwrap()
    );
    assert!(started.elapsed() >= Duration::from_millis(30));
    let mut poster = child(&format!("post {}", name.0));
    assert!(semaphore.wait_until(Deadline::after(LONG)).unwrap());
    assert!(poster.0.wait().unwrap().success());
    assert!(Semaphore::unlink(&name.0).unwrap());
    assert!(!Semaphore::unlink(&name.0).unwrap());
}

/// Tokens by the inlined fast path and by the C library are the same tokens.
#[test]
fn tokens_are_neither_lost_nor_invented_under_contention() {
    let name = Name::new("tokens");
    let semaphore = Semaphore::create_new(&name.0, 0, Mode::OWNER).unwrap();
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for blocking in [false, true, true] {
            let (semaphore, taken) = (&semaphore, &taken);
            scope.spawn(move || {
                while taken.load(Relaxed) < 30_000 {
                    let got = if blocking {
                        semaphore
                            .wait_until(Deadline::after(Duration::from_millis(20)))
                            .unwrap()
                    } else {
                        semaphore.try_wait().unwrap()
                    };
                    taken.fetch_add(u32::from(got), Relaxed);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| (0..15_000).for_each(|_| semaphore.post().unwrap()));
        }
    });
    assert_eq!(
        (taken.load(Relaxed), semaphore.value().unwrap()),
        (30_000, 0)
    );
}

#[test]
fn a_lock_dies_with_its_holder_and_follows_its_path() {
    let name = Name::new("lock");
    let posted = Semaphore::create_new(&name.0, 0, Mode::OWNER).unwrap();
    let path = std::env::temp_dir().join(format!("{}.lock", name.0));
    let holder = child(&format!("lock {} {}", path.display(), name.0));
    assert!(posted.wait_until(Deadline::after(LONG)).unwrap());
    assert!(FileLock::try_acquire(&path, Mode::OWNER).unwrap().is_none());
    assert!(FileLock::try_acquire_existing(&path).unwrap().is_none());
    drop(holder);
    let lock = FileLock::try_acquire_existing(&path)
        .unwrap()
        .expect("its holder is dead");
    // Removed and made again by somebody: the held file is another one.
    std::fs::remove_file(&path).unwrap();
    let other = FileLock::try_acquire(&path, Mode::OWNER)
        .unwrap()
        .expect("a new file");
    lock.remove().unwrap();
    assert!(path.exists(), "the other's file is not ours to remove");
    other.remove().unwrap();
    assert!(!path.exists());
    assert!(FileLock::try_acquire_existing(&path).unwrap().is_none());
}

#[test]
fn processes_live_and_die() {
    let own = process::current();
    assert!(process::is_alive(own) && process::is_alive(1));
    assert!(!process::is_alive(0) && !process::is_alive(u64::MAX) && !process::is_alive(1 << 32));
    let mut other = child("sleep");
    let pid = u64::from(other.0.id());
    let stamp = process::stamp(pid);
    assert!(stamp != 0 && process::is_alive_stamped(pid, stamp));
    assert!(
        !process::is_alive_stamped(pid, stamp ^ 1),
        "the same pid, another process"
    );
    assert!(
        process::is_alive_stamped(pid, process::stamp(own)),
        "another's stamp tells nothing"
    );
    other.0.kill().unwrap();
    // Not waited for: a zombie, and dead.
    let deadline = Deadline::after(LONG);
    while process::is_alive(pid) {
        assert!(!deadline.expired());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(
        std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "it is still a zombie"
    );
    assert_eq!(process::start_time(pid), None);
}

#[test]
fn a_sleeper_on_a_word_is_woken_by_another_process() {
    let name = Name::new("futex");
    let segment = SharedMemory::create_new(&name.0, 64, Mode::OWNER).unwrap();
    let region = Region::map(&segment).unwrap();
    let (word, sleepers) = (region.word32(0).unwrap(), region.word32(4).unwrap());
    let wake = WakeWord::new(word.clone(), sleepers.clone());
    let mut waker = child(&format!("wake {}", name.0));
    let deadline = Deadline::after(LONG);
    while word.load(Ordering::Acquire) == 0 {
        assert!(!deadline.expired());
        wake.sleep(0, deadline);
    }
    assert!(waker.0.wait().unwrap().success());
    assert_eq!(sleepers.load(Ordering::Relaxed), 0);
}

#[test]
fn deadlines_are_monotonic_and_capped() {
    assert_eq!(Deadline::never().remaining(), None);
    assert!(
        Deadline::after(Duration::MAX).remaining().is_none(),
        "beyond the clock is never"
    );
    let slice = Deadline::after(LONG).at_most(Duration::from_millis(5));
    assert!(slice.remaining().unwrap() <= Duration::from_millis(5));
    assert!(Deadline::now().at_most(LONG).expired());
    assert!(Deadline::never().at_most(LONG).remaining().is_some());
}

#[test]
fn everybody_who_sleeps_is_woken() {
    let region = Region::heap(64);
    let (word, started) = (region.word32(0).unwrap(), region.word32(4).unwrap());
    let slept_out = region.word32(8).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                started.fetch_add(1, Ordering::Relaxed);
                let end = Instant::now() + LIVENESS_SLICE;
                word.sleep_while(0, Deadline::never());
                if Instant::now() >= end {
                    slept_out.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while started.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        // Time to fall asleep. Whoever does not sleep yet sees the new value.
        std::thread::sleep(Duration::from_millis(20));
        word.store(1, Ordering::Relaxed);
        word.wake(u32::MAX);
    });
    // One may have been held up by the machine; not two.
    assert!(slept_out.load(Ordering::Relaxed) < 2);
}
