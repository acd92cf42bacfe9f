//! Creating, opening and removing the objects behind a name.

use crate::{AttachError, BufferConfig, CreateError, shared::Shared};
use polyshm_platform::{
    self as platform, Deadline, FileLock, Mode, Region, Semaphore, SharedMemory, process,
};
use polyshm_wire::zerobuffer::{
    ImageError, LOCK_DIRECTORY, LOCK_DIRECTORY_CSHARP, Layout, OIEB_SIZE, ObjectNames, Oieb,
    check_name, lock_file_name,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Between two looks at something that has no event.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// How long a lock may be held by somebody who only looks for stale files.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);

/// Looks until `done` or the deadline; gives what the last look gave.
pub(crate) fn look_until(deadline: Deadline, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if deadline.expired() {
            return false;
        }
        let nap = deadline
            .remaining()
            .map_or(LOOK_INTERVAL, |left| left.min(LOOK_INTERVAL));
        std::thread::sleep(nap);
    }
}

/// The objects that a reader owns.
#[derive(Debug)]
pub(crate) struct Owned {
    segment: SharedMemory,
    names: ObjectNames,
    /// Held for the reader's life. Removed last: while they are there, nobody
    /// else makes objects of this name.
    locks: Vec<FileLock>,
}

impl Owned {
    /// Removes everything, also past a failure; gives the first.
    pub(crate) fn remove(self) -> Result<(), platform::Error> {
        let Self {
            segment,
            names,
            locks,
        } = self;
        // Semaphores of a name that is not ours any more are not ours either.
        let mut result = match segment.unlink() {
            Ok(true) => remove_semaphores(&names),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        for lock in locks.into_iter().rev() {
            result = result.and(lock.remove());
        }
        result
    }
}

fn remove_semaphores(names: &ObjectNames) -> Result<(), platform::Error> {
    let first = Semaphore::unlink(&names.data_ready);
    let second = Semaphore::unlink(&names.space_ready);
    first.and(second).map(|_| ())
}

/// Where lock files are: one directory of C++ and Python, and one of C#, whose
/// readers of the same name are only excluded by holding both (section 1.1).
fn lock_directories() -> [PathBuf; 2] {
    let shared = if cfg!(unix) {
        PathBuf::from("/tmp")
    } else {
        std::env::temp_dir()
    };
    [
        shared.join(LOCK_DIRECTORY),
        std::env::temp_dir().join(LOCK_DIRECTORY_CSHARP),
    ]
}

/// Creates everything that belongs to `name`, or nothing.
pub(crate) fn create(name: &str, config: &BufferConfig) -> Result<(Shared, Owned), CreateError> {
    check_name(name)?;
    let names = ObjectNames::posix(name)?;
    let layout =
        Layout::for_request(config.metadata_size, config.payload_size).map_err(|source| {
            CreateError::Layout {
                name: name.to_owned(),
                source,
            }
        })?;

    let mut locks = Vec::new();
    let made = take_locks(name, &names, config, &mut locks)
        .and_then(|()| make_way(name, &names))
        .and_then(|()| make_objects(name, &names, layout, config.mode));
    let (shared, segment) = match made {
        Ok(made) => made,
        Err(error) => {
            for lock in locks.into_iter().rev() {
                // The first failure is the one to report.
                let _ = lock.remove();
            }
            return Err(error);
        }
    };
    let owned = Owned {
        segment,
        names,
        locks,
    };
    if config.remove_stale
        && let Err(error) = remove_stale_buffers()
    {
        // Another program's leftovers are no reason to fail.
        tracing::debug!(%error, "stale buffers could not be looked for");
    }
    shared.publish();
    Ok((shared, owned))
}

fn take_locks(
    name: &str,
    names: &ObjectNames,
    config: &BufferConfig,
    locks: &mut Vec<FileLock>,
) -> Result<(), CreateError> {
    let system = |source| CreateError::System {
        name: name.to_owned(),
        source,
    };
    for directory in lock_directories() {
        let path = directory.join(lock_file_name(name));
        let deadline = Deadline::after(LOCK_PATIENCE);
        loop {
            if let Some(lock) = FileLock::try_acquire(&path, config.mode).map_err(system)? {
                locks.push(lock);
                break;
            }
            // A look for stale files holds each lock for a moment; a reader
            // holds it for good and says so in its buffer.
            let reader = living_reader(&names.memory);
            if reader.is_some() || deadline.expired() {
                return Err(CreateError::ReaderAlreadyConnected {
                    name: name.to_owned(),
                    pid: reader,
                });
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }
    Ok(())
}

/// The living reader that a segment's header names.
fn living_reader(memory: &str) -> Option<u64> {
    let Ok(HeaderOf::Read(header)) = read_header(memory) else {
        return None;
    };
    let pid = header.reader_pid.get();
    process::is_alive_stamped(pid, Shared::reader_stamp_of(&header)).then_some(pid)
}

/// A segment's header.
enum HeaderOf {
    NoSegment,
    /// No bytes at all: its creator died before it set the length.
    Empty,
    /// Too short for one.
    Short(ImageError),
    Read(Box<Oieb>),
}

fn read_header(memory: &str) -> Result<HeaderOf, platform::Error> {
    let segment = match SharedMemory::open_read_only(memory) {
        Ok(segment) => segment,
        Err(error) if error.is_not_found() => return Ok(HeaderOf::NoSegment),
        Err(error) => return Err(error),
    };
    if segment.is_empty() {
        return Ok(HeaderOf::Empty);
    }
    let mut image = [0; OIEB_SIZE as usize];
    let len = segment.peek(&mut image)?;
    Ok(match Oieb::read(&image[..len]) {
        Ok(header) => HeaderOf::Read(Box::new(header)),
        Err(error) => HeaderOf::Short(error),
    })
}

/// What the holder of a name's lock finds under that name.
enum Found {
    Nothing,
    /// Both sides are gone, or it was never finished.
    Dead,
    /// The reader is gone, a writer still has it open.
    WriterLeft(u64),
    Reader(u64),
    Foreign(ImageError),
}

fn find(memory: &str) -> Result<Found, platform::Error> {
    let header = match read_header(memory)? {
        HeaderOf::NoSegment => return Ok(Found::Nothing),
        HeaderOf::Empty => return Ok(Found::Dead),
        HeaderOf::Short(error) => return Ok(Found::Foreign(error)),
        HeaderOf::Read(header) => header,
    };
    match header.oieb_size.get() {
        128 => {}
        // Its creator died before it published.
        0 if header.writer_pid.get() == 0 => return Ok(Found::Dead),
        found => return Ok(Found::Foreign(ImageError::OiebSize { found })),
    }
    let reader = header.reader_pid.get();
    if process::is_alive_stamped(reader, Shared::reader_stamp_of(&header)) {
        return Ok(Found::Reader(reader));
    }
    let writer = header.writer_pid.get();
    if process::is_alive_stamped(writer, Shared::writer_stamp_of(&header)) {
        return Ok(Found::WriterLeft(writer));
    }
    Ok(Found::Dead)
}

/// Removes what a dead reader left under our own name.
fn make_way(name: &str, names: &ObjectNames) -> Result<(), CreateError> {
    let system = |source| CreateError::System {
        name: name.to_owned(),
        source,
    };
    match find(&names.memory).map_err(system)? {
        Found::Reader(pid) => {
            return Err(CreateError::ReaderAlreadyConnected {
                name: name.to_owned(),
                pid: Some(pid),
            });
        }
        Found::Foreign(source) => {
            return Err(CreateError::NameTaken {
                name: name.to_owned(),
                source,
            });
        }
        // A writer that is left learns that its reader is gone, and attaches anew.
        Found::Dead | Found::WriterLeft(_) => {
            SharedMemory::unlink_name(&names.memory).map_err(system)?;
        }
        Found::Nothing => {}
    }
    remove_semaphores(names).map_err(system)
}

/// Semaphores first, then the memory: whoever finds the memory finds them too.
fn make_objects(
    name: &str,
    names: &ObjectNames,
    layout: Layout,
    mode: Mode,
) -> Result<(Shared, SharedMemory), CreateError> {
    let system = |source| CreateError::System {
        name: name.to_owned(),
        source,
    };
    let data_ready = Semaphore::create_new(&names.data_ready, 0, mode).map_err(system)?;
    let rest = || {
        let space_ready = Semaphore::create_new(&names.space_ready, 0, mode).map_err(system)?;
        make_memory(name, names, layout, mode, data_ready, space_ready).inspect_err(|_| {
            // The first failure is the one to report; this and the next.
            let _ = Semaphore::unlink(&names.space_ready);
        })
    };
    rest().inspect_err(|_| {
        let _ = Semaphore::unlink(&names.data_ready);
    })
}

fn make_memory(
    name: &str,
    names: &ObjectNames,
    layout: Layout,
    mode: Mode,
    data_ready: Semaphore,
    space_ready: Semaphore,
) -> Result<(Shared, SharedMemory), CreateError> {
    let system = |source| CreateError::System {
        name: name.to_owned(),
        source,
    };
    let segment =
        SharedMemory::create_new(&names.memory, layout.object_len(), mode).map_err(system)?;
    let shared = Region::map(&segment).map_err(system).and_then(|region| {
        Shared::new(&region, Arc::from(name), layout, data_ready, space_ready).map_err(|source| {
            CreateError::NameTaken {
                name: name.to_owned(),
                source,
            }
        })
    });
    match shared {
        Ok(shared) => Ok((shared, segment)),
        Err(error) => {
            let _ = segment.unlink();
            Err(error)
        }
    }
}

/// Opens everything that belongs to `name`; changes nothing.
pub(crate) fn open(name: &str) -> Result<Shared, AttachError> {
    check_name(name)?;
    let names = ObjectNames::posix(name)?;
    let owned = || name.to_owned();
    let failed = |source: platform::Error| {
        if source.is_not_found() {
            AttachError::NotFound { name: owned() }
        } else {
            AttachError::System {
                name: owned(),
                source,
            }
        }
    };
    let segment = SharedMemory::open(&names.memory).map_err(failed)?;
    if segment.is_empty() {
        return Err(AttachError::NotReady { name: owned() });
    }
    let invalid = |source| AttachError::Invalid {
        name: owned(),
        source,
    };
    let region = Region::map(&segment).map_err(failed)?;
    let header = Shared::snapshot(&region).map_err(invalid)?;
    let Some(header) = header else {
        return Err(AttachError::NotReady { name: owned() });
    };
    let layout = Layout::from_header(&header, segment.len())
        .and_then(|layout| header.check(&layout).map(|()| layout))
        .map_err(|source| {
            // Other readers fill the header in order, their pid last.
            if header.reader_pid.get() == 0 {
                AttachError::NotReady { name: owned() }
            } else {
                invalid(source)
            }
        })?;
    // Before the claim: a failure here must not leave one behind. Gone
    // semaphores mean a reader that is just closing, or still creating.
    let semaphore = |path: &str| match Semaphore::open(path) {
        Err(error) if error.is_not_found() => Err(AttachError::NotReady { name: owned() }),
        result => result.map_err(failed),
    };
    let data_ready = semaphore(&names.data_ready)?;
    let space_ready = semaphore(&names.space_ready)?;
    Shared::new(&region, Arc::from(name), layout, data_ready, space_ready).map_err(invalid)
}

/// What [`remove_stale_buffers`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct StaleReport {
    /// The names whose objects were removed.
    pub removed: Vec<String>,
    /// The names that were kept, and why.
    pub kept: Vec<(String, String)>,
}

/// Removes what dead readers left: every buffer whose lock nobody holds and
/// whose reader and writer are both dead (format, section 10.2).
///
/// A lock file is only removed together with everything else, and while its
/// lock is held; a buffer that cannot be judged is kept.
///
/// # Errors
///
/// A lock directory cannot be listed.
pub fn remove_stale_buffers() -> Result<StaleReport, platform::Error> {
    let mut report = StaleReport::default();
    for directory in lock_directories() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(platform::Error::System {
                    attempt: "list",
                    what: "lock directory",
                    name: directory.display().to_string(),
                    source,
                });
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(name) = name.and_then(|name| name.strip_suffix(".lock")) else {
                continue;
            };
            let Ok(names) = ObjectNames::posix(name) else {
                continue;
            };
            match remove_if_stale(&path, &names) {
                Ok(None) => report.removed.push(name.to_owned()),
                Ok(Some(reason)) => report.kept.push((name.to_owned(), reason)),
                Err(error) => report.kept.push((name.to_owned(), error.to_string())),
            }
        }
    }
    Ok(report)
}

/// Removes one name's objects; gives why not.
fn remove_if_stale(path: &Path, names: &ObjectNames) -> Result<Option<String>, platform::Error> {
    let Some(file) = path.file_name() else {
        return Ok(Some("it is no lock file".to_owned()));
    };
    // Lock files are empty. Anything else of that name is not ours to judge.
    let ours = std::fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    if !ours {
        return Ok(Some("its lock file is no empty file".to_owned()));
    }
    // Both locks: whichever kind of reader is just creating takes one of them.
    let mut locks = Vec::new();
    let mut kept = None;
    for directory in lock_directories() {
        let path = directory.join(file);
        let existed = path.exists();
        let Some(lock) = FileLock::try_acquire(&path, Mode::ALL)? else {
            // Enough to keep it: no need to touch the other directory.
            kept = Some("its lock is held".to_owned());
            break;
        };
        locks.push((lock, existed));
    }
    if kept.is_none() {
        kept = match find(&names.memory)? {
            Found::Reader(pid) => Some(format!("its reader, process {pid}, lives")),
            Found::WriterLeft(pid) => Some(format!("its writer, process {pid}, lives")),
            Found::Foreign(error) => Some(error.to_string()),
            Found::Dead => {
                SharedMemory::unlink_name(&names.memory)?;
                None
            }
            Found::Nothing => None,
        };
        if kept.is_none() {
            remove_semaphores(names)?;
        }
    }
    for (lock, existed) in locks {
        // A lock file stays with what it belongs to; one that we made goes.
        if kept.is_none() || !existed {
            lock.remove()?;
        }
    }
    Ok(kept)
}
