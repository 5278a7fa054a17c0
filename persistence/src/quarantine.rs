//! What becomes of a store that cannot be used: it is moved aside, and little of that is kept.
//!
//! Invariants:
//! - Moving aside is one rename: the files are whole in one place or the other.
//! - At most [`KEPT`] directories and so many bytes stay for whoever wants to look, the newest first.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const PREFIX: &str = "quarantine-";
const KEPT: usize = 2;

/// Moves `store` to the next free `quarantine-<n>` in `dir`; returns where it is, which may be nowhere if it was larger
/// than `max_bytes`.
pub(crate) fn move_aside(dir: &Path, store: &Path, max_bytes: u64) -> io::Result<PathBuf> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |newest| newest.saturating_add(1));
    let path = |n: u64| dir.join(format!("{PREFIX}{n}"));
    fs::rename(store, path(next))?;
    numbers.push(next);
    let mut bytes = 0_u64;
    for (age, number) in numbers.iter().rev().enumerate() {
        bytes = bytes.saturating_add(size(&path(*number)));
        if age >= KEPT || bytes > max_bytes {
            // What cannot be deleted now is tried again next time; it must not keep the store from starting.
            let path = path(*number);
            if let Err(error) = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) } {
                tracing::warn!(%error, quarantine = %path.display(), "an old quarantine cannot be deleted");
            }
        }
    }
    Ok(path(next))
}

/// Bytes of the files below a directory; what cannot be read counts nothing.
fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { size(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quarantined(dir: &Path, bytes: usize, max_bytes: u64) -> PathBuf {
        let store = dir.join("store");
        fs::create_dir_all(store.join("blobs")).unwrap();
        fs::write(store.join("blobs/file"), vec![0; bytes]).unwrap();
        move_aside(dir, &store, max_bytes).unwrap()
    }

    fn left(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_newest_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        (0..4).for_each(|_| drop(quarantined(dir.path(), 10, 1000)));
        assert_eq!(left(dir.path()), ["quarantine-3", "quarantine-4"]);
    }

    #[test]
    fn more_bytes_than_allowed_are_not_kept_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        quarantined(dir.path(), 600, 1000);
        quarantined(dir.path(), 600, 1000);
        assert_eq!(left(dir.path()), ["quarantine-2"]);
        assert!(!quarantined(dir.path(), 1001, 1000).exists());
        assert_eq!(left(dir.path()), [""; 0]);
    }
}
