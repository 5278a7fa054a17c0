//! A look at a data directory from outside: is there a store, who holds it, and a copy to open instead of it.
//!
//! Invariant: nothing in the directory is changed, and no lock is kept.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use crate::directory::{GENERATION_FILE, LOCK_FILE, STORE_DIR};

/// Whether `dir` holds a store, good or not.
pub fn holds_store(dir: &Path) -> bool {
    dir.join(STORE_DIR).is_dir()
}

/// Whether a process uses the store in `dir` now.
///
/// # Errors
/// The lock file is there and cannot be asked.
pub fn is_in_use(dir: &Path) -> io::Result<bool> {
    let lock = match File::open(dir.join(LOCK_FILE)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Bytes of the files of the store in `dir`.
///
/// # Errors
/// A file could not be read.
pub fn store_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    walk(&dir.join(STORE_DIR), &mut |file| {
        bytes += file.metadata()?.len();
        Ok(())
    })?;
    Ok(bytes)
}

/// Copies the store in `dir` into `to`, an empty directory. Of a store in use the copy may look damaged.
///
/// # Errors
/// A file could not be read or written; what was copied is left in `to`.
pub fn copy_store(dir: &Path, to: &Path) -> io::Result<()> {
    walk(&dir.join(STORE_DIR), &mut |file| {
        let target = to.join(file.strip_prefix(dir).unwrap_or(file));
        fs::create_dir_all(target.parent().unwrap_or(to))?;
        fs::copy(file, target).map(drop)
    })?;
    match fs::copy(dir.join(GENERATION_FILE), to.join(GENERATION_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Visits every file below `dir`.
fn walk(dir: &Path, visit: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { walk(&entry.path(), visit)? } else { visit(&entry.path())? }
    }
    Ok(())
}
