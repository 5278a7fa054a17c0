//! Files that hold secrets: what is read from them, and who else could.
//!
//! Invariants: what a file holds is in no message; a key is judged before it is used, never after.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Shortest key in bytes, after white space around it was removed.
pub const KEY_BYTES_MIN: usize = 32;

/// Fewer different bytes than any random key of that length has in hexadecimal, base64 or raw.
const DIFFERENT_BYTES_MIN: usize = 8;

/// A key is a secret, not a document: whatever is longer is the wrong file.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Reads a key file: raw bytes, white space around them removed (interface.md 3).
///
/// # Errors
/// A sentence that says why the file cannot serve as a key; nothing was changed.
pub fn read_key_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(KEY_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let key = bytes.trim_ascii();
    if bytes.len() as u64 > KEY_FILE_BYTES_MAX {
        return Err(format!("{} is too long for a key", path.display()));
    }
    if key.len() < KEY_BYTES_MIN {
        return Err(format!("{} holds {} bytes, a key needs {KEY_BYTES_MIN}", path.display(), key.len()));
    }
    let different = key.iter().collect::<BTreeSet<_>>().len();
    if different < DIFFERENT_BYTES_MIN {
        return Err(format!("{} holds {different} different bytes only, which is easy to guess", path.display()));
    }
    Ok(key.to_vec())
}

/// Whether every user of the machine can read the file; false if that cannot be known.
pub(super) fn is_world_readable(path: &Path) -> bool {
    const READ_BY_OTHERS: u32 = 0o004;
    fs::metadata(path).is_ok_and(|file| file.mode() & READ_BY_OTHERS != 0)
}
