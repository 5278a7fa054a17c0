//! A data directory: who may use it, opening what is in it under guard, and moving aside what cannot be used.
//!
//! Invariants:
//! - One process holds the directory, by a lock on a file in it. A directory that was deleted and made again is locked again.
//! - An engine is opened and verified on a helper thread that may hang or panic without harm to anyone else.
//! - Sled answers some damage with an older or an empty state instead of an error (seen: most truncations of its main
//!   file). The generation is therefore also kept in a file of its own, and a store that is behind it counts as damaged.
//! - Only what can never be used is moved aside: damage, an open that does not end, a layout of an older version. A full
//!   disk, a missing permission, a held lock or a newer schema never does that: those files are good.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use crate::{
    Config, SPACE_FACTOR, disk::Disk, error::EngineError, quarantine, retention::Policy, sled_engine::SledEngine,
    supervisor::Opener,
};

pub(crate) const STORE_DIR: &str = "history";
/// Copies of files that a failed engine does not let go of.
const COPY_DIR: &str = "history.copy";
pub(crate) const LOCK_FILE: &str = "lock";
pub(crate) const GENERATION_FILE: &str = "generation";

/// The data directory, held by a lock for as long as this lives.
pub(crate) struct Directory {
    config: Config,
    policy: Policy,
    lock: Option<File>,
    /// An engine of this process was open here: if the files are in use, then by it.
    was_open: bool,
}

impl Directory {
    pub(crate) fn new(config: Config) -> Directory {
        let policy = Policy::new(config.retention, config.max_bytes / SPACE_FACTOR);
        Directory { config, policy, lock: None, was_open: false }
    }

    /// Makes the directory if need be and takes the lock, unless it is held already.
    fn hold(&mut self) -> Result<(), EngineError> {
        let path = self.config.dir.join(LOCK_FILE);
        if self.lock.as_ref().is_some_and(|lock| is_at(lock, &path)) {
            return Ok(());
        }
        // An open file would keep a file system that is to be mounted anew.
        self.lock = None;
        fs::create_dir_all(&self.config.dir).map_err(EngineError::Environment)?;
        let lock = File::create(path).map_err(EngineError::Environment)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EngineError::Busy),
            Err(TryLockError::Error(error)) => return Err(EngineError::Environment(error)),
        }
        self.lock = Some(lock);
        Ok(())
    }

    /// Opens and verifies on a helper thread. After the time limit the thread is left to its fate: it holds nothing but
    /// files that are moved aside, and drops what it opened when it ends.
    fn open_limited(&self) -> Result<Disk, EngineError> {
        let (sender, opened) = mpsc::sync_channel(1);
        let (path, cache_bytes, policy) = (self.config.dir.join(STORE_DIR), self.config.cache_bytes, self.policy);
        let helper = thread::Builder::new().name("store-open".to_owned()).spawn(move || {
            let disk = SledEngine::open(&path, cache_bytes).and_then(|engine| Disk::load(Box::new(engine), policy));
            // The receiver is gone when the time limit passed; the disk is dropped here then.
            drop(sender.send(disk));
        });
        helper.map_err(EngineError::Environment)?;
        let limit = self.config.open_timeout;
        opened.recv_timeout(limit).unwrap_or_else(|error| {
            Err(match error {
                mpsc::RecvTimeoutError::Timeout => EngineError::TimedOut(limit),
                mpsc::RecvTimeoutError::Disconnected => EngineError::Panicked("while opening".to_owned()),
            })
        })
    }

    /// Opens what is there, if it is what was there last.
    fn open_current(&self, heads: &BTreeMap<u16, u64>) -> Result<Disk, EngineError> {
        let noted = self.noted_generation();
        if fs::metadata(self.config.dir.join(STORE_DIR)).is_ok_and(|there| !there.is_dir()) {
            return Err(EngineError::Damaged("it is no directory".to_owned()));
        }
        let disk = self.open_limited()?;
        let found = disk.generation();
        if found < noted {
            disk.discard();
            return Err(EngineError::Damaged(format!("it went back from generation {noted} to {found}")));
        }
        if found > 0 && disk.is_behind(heads) {
            disk.discard();
            return Err(EngineError::Damaged("it lost what was durable".to_owned()));
        }
        Ok(disk)
    }

    /// Replaces the files by copies. An engine that failed may wait for ever on its way out and keep the lock on its files;
    /// the copies are other files, and what it still does to the old ones harms nobody.
    fn copy_files(&self) -> io::Result<()> {
        let (files, copy) = (self.config.dir.join(STORE_DIR), self.config.dir.join(COPY_DIR));
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        copy_dir(&files, &copy)?;
        fs::remove_dir_all(&files)?;
        fs::rename(copy, files)
    }
}

impl Opener for Directory {
    fn open(&mut self, heads: &BTreeMap<u16, u64>) -> Result<(Disk, Option<PathBuf>), EngineError> {
        self.hold()?;
        let mut opened = self.open_current(heads);
        if let (Err(EngineError::Busy), true) = (&opened, self.was_open) {
            self.copy_files().map_err(EngineError::Environment)?;
            tracing::warn!("the files of the failed engine were copied");
            opened = self.open_current(heads);
        }
        let opened = match opened {
            Ok(disk) => (disk, None),
            Err(
                error @ (EngineError::Environment(_)
                | EngineError::Full
                | EngineError::Gone
                | EngineError::Busy
                | EngineError::Schema { .. }),
            ) => return Err(error),
            Err(
                error @ (EngineError::Damaged(_)
                | EngineError::Panicked(_)
                | EngineError::TimedOut(_)
                | EngineError::Outdated { .. }),
            ) => {
                let (dir, store) = (&self.config.dir, self.config.dir.join(STORE_DIR));
                let aside =
                    quarantine::move_aside(dir, &store, self.config.max_bytes).map_err(EngineError::Environment)?;
                tracing::error!(%error, quarantine = %aside.display(), "store is moved aside, starting empty");
                (self.open_limited()?, Some(aside))
            }
        };
        self.was_open = true;
        Ok(opened)
    }

    fn noted_generation(&self) -> u64 {
        let text = fs::read_to_string(self.config.dir.join(GENERATION_FILE)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    fn note_generation(&mut self, generation: u64) -> Result<(), EngineError> {
        let file = self.config.dir.join(GENERATION_FILE);
        replace(&file, &format!("{generation}\n")).map_err(EngineError::Environment)
    }
}

/// Whether this open file is the one that the path leads to.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

/// Writes `text` so that after a crash the file holds it or what was there before.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let next = file.with_extension("next");
    let mut handle = File::create(&next)?;
    handle.write_all(text.as_bytes())?;
    handle.sync_all()?;
    fs::rename(next, file)
}

fn copy_dir(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Cursor, Record, pending::Pending};

    #[test]
    fn files_that_a_failed_engine_does_not_let_go_of_are_copied_and_nothing_durable_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(Config::new(dir.path()));
        let (mut hung, _) = directory.open(&BTreeMap::new()).unwrap();
        let begun = hung.begin(7).unwrap();
        directory.note_generation(begun.generation).unwrap();
        let mut pending = Pending::default();
        let record = Record { slot: 1, room: Bytes::new(), n: 5, time_ms: 0, body: Bytes::from_static(b"kept") };
        pending.push(record.clone());
        hung.commit(&pending, 0).unwrap();
        let (disk, aside) = directory.open(&BTreeMap::new()).unwrap();
        assert!(aside.is_none() && disk.is_of(7));
        assert_eq!(disk.scan(&|_| true, Cursor::default(), usize::MAX).unwrap().records, [record]);
        assert!(matches!(hung.commit(&pending, 0), Err(EngineError::Gone)), "the old files are nobody's now");
    }

    #[test]
    fn a_store_that_lost_its_end_while_it_was_away_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(Config::new(dir.path()));
        let (mut disk, _) = directory.open(&BTreeMap::new()).unwrap();
        disk.begin(7).unwrap();
        let mut pending = Pending::default();
        pending.push(Record { slot: 1, room: Bytes::new(), n: 5, time_ms: 0, body: Bytes::new() });
        disk.commit(&pending, 0).unwrap();
        drop(disk);
        let (disk, aside) = directory.open(&BTreeMap::from([(1, 5)])).unwrap();
        assert!(aside.is_none() && disk.is_of(7));
        drop(disk);
        let (disk, aside) = directory.open(&BTreeMap::from([(1, 6)])).unwrap();
        assert!(aside.is_some() && disk.heads().is_empty());
    }

    #[test]
    fn a_directory_that_another_holds_is_left_alone_also_by_its_second_opening() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = Directory::new(Config::new(dir.path()));
        let (_disk, _) = first.open(&BTreeMap::new()).unwrap();
        for _ in 0..2 {
            assert!(matches!(
                Directory::new(Config::new(dir.path())).open(&BTreeMap::new()).map(drop),
                Err(EngineError::Busy)
            ));
        }
        fs::remove_file(dir.path().join(LOCK_FILE)).unwrap();
        let mut second = Directory::new(Config::new(dir.path()));
        assert!(
            matches!(second.open(&BTreeMap::new()).map(drop), Err(EngineError::Busy)),
            "the engine's own lock is left"
        );
    }
}
