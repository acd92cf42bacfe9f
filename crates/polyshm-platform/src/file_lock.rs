//! Lock files that die with their holder.

use crate::{Error, Mode, Result, crash, sys};
use std::path::{Path, PathBuf};

/// An exclusive lock on a file, held by this open file until it is dropped.
///
/// The system gives it up when the process dies, however it dies. After
/// locking, the path is verified to still name the locked file, so a lock on a
/// file that was removed meanwhile does not count.
///
/// ```
/// # #[cfg(unix)] {
/// use polyshm_platform::{FileLock, Mode};
///
/// let path = std::env::temp_dir().join(format!("polyshm-doc-{}.lock", std::process::id()));
/// let lock = FileLock::try_acquire(&path, Mode::OWNER)?.expect("nobody holds it");
/// assert!(FileLock::try_acquire(&path, Mode::OWNER)?.is_none());
/// lock.remove()?;
/// assert!(!path.exists());
/// # }
/// # Ok::<(), polyshm_platform::Error>(())
/// ```
#[derive(Debug)]
pub struct FileLock {
    file: sys::LockedFile,
    path: PathBuf,
}

impl FileLock {
    const WHAT: &'static str = "lock file";
    /// How often a file may vanish between opening and locking before we say so.
    const TRIES: u32 = 100;

    /// Creates the file if need be, and locks it; `None` when another open
    /// file holds the lock, in this process or another. Never blocks.
    ///
    /// # Errors
    ///
    /// The directory or the file cannot be made or opened.
    pub fn try_acquire(path: &Path, mode: Mode) -> Result<Option<Self>> {
        let failed = |e| Error::from_io("lock", Self::WHAT, &path.display().to_string(), e);
        if let Some(directory) = path.parent() {
            crash::point(crash::Step::FileSystem);
            std::fs::create_dir_all(directory).map_err(failed)?;
        }
        for _ in 0..Self::TRIES {
            crash::point(crash::Step::FileSystem);
            let file = sys::LockedFile::open_or_create(path, mode).map_err(failed)?;
            if !file.try_lock().map_err(failed)? {
                return Ok(None);
            }
            // Its last holder may have removed it between our open and lock.
            if file.is_at(path).map_err(failed)? {
                return Ok(Some(Self {
                    file,
                    path: path.to_owned(),
                }));
            }
        }
        Err(failed(std::io::Error::other(
            "the file is removed each time it is opened",
        )))
    }

    /// Locks a file that exists already; `None` when it is held or gone.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    pub fn try_acquire_existing(path: &Path) -> Result<Option<Self>> {
        let failed = |e| Error::from_io("lock", Self::WHAT, &path.display().to_string(), e);
        let file = match sys::LockedFile::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if !file.try_lock().map_err(failed)? || !file.is_at(path).map_err(failed)? {
            return Ok(None);
        }
        Ok(Some(Self {
            file,
            path: path.to_owned(),
        }))
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file while the lock is held, then gives the lock up.
    ///
    /// In the other order another process could lock the file that is then
    /// removed, and two would hold "the" lock.
    ///
    /// # Errors
    ///
    /// The file cannot be removed; the lock is given up all the same.
    pub fn remove(self) -> Result<()> {
        let failed = |e| Error::from_io("remove", Self::WHAT, &self.path.display().to_string(), e);
        if self.file.is_at(&self.path).map_err(failed)? {
            crash::point(crash::Step::FileSystem);
            std::fs::remove_file(&self.path).map_err(failed)?;
        }
        Ok(())
    }
}
