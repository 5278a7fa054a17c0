//! Opening under guard: the time limit, the quarantine, and when to try again.
//!
//! Invariants:
//! - An engine is opened on a helper thread that may hang or panic without harm to anyone else.
//! - Sled answers some damage with an older or an empty state instead of an error (seen: most truncations of its main
//!   file). The generation is therefore also kept in a file of its own, and a store that is behind it counts as damaged.
//! - Only damage (or an open that does not end) moves a directory aside. A full disk, a missing permission, a held lock
//!   or a newer schema never does: those files are good.
//! - The newest [`QUARANTINES_KEPT`] quarantined directories are kept for whoever wants to look.

use std::{
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Config, Kind, OpenError, disk::Disk, error::EngineError, memory::MemoryEngine, retention::Policy,
    sled_engine::SledEngine,
};

const STORE_DIR: &str = "history";
const LOCK_FILE: &str = "lock";
const GENERATION_FILE: &str = "generation";
const QUARANTINE_PREFIX: &str = "quarantine-";
const QUARANTINES_KEPT: usize = 2;
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A store that was opened for a new generation.
pub(crate) struct Started {
    pub(crate) disk: Disk,
    pub(crate) opener: Box<dyn Opener>,
    pub(crate) clean: bool,
    pub(crate) quarantined: Option<PathBuf>,
}

/// Opens the same store again after an error.
pub(crate) trait Opener: Send {
    /// Opens it, moving it aside if it is damaged; says where to in that case.
    fn open(&mut self) -> Result<(Disk, Option<PathBuf>), EngineError>;

    /// The last generation that was noted; 0 if none was.
    fn noted_generation(&self) -> u64;

    /// Notes a generation that is durable in the store.
    fn note_generation(&mut self, generation: u64) -> Result<(), EngineError>;
}

/// Opens `kind` and begins a generation.
pub(crate) fn start(kind: Kind, now_ms: u64) -> Result<Started, OpenError> {
    match kind {
        Kind::Sled(config) => {
            let dir = config.dir.clone();
            let opener = Directory::lock(config)?;
            begin(Box::new(opener), now_ms).map_err(|error| explain(dir, error))
        }
        Kind::Memory { retention, max_bytes, .. } => {
            let opener = Volatile { policy: Policy::new(retention, max_bytes) };
            begin(Box::new(opener), now_ms).map_err(|error| explain(PathBuf::new(), error))
        }
    }
}

/// Opens whatever `opener` opens and begins a generation.
pub(crate) fn begin(mut opener: Box<dyn Opener>, now_ms: u64) -> Result<Started, EngineError> {
    let (mut disk, quarantined) = opener.open()?;
    let clean = disk.begin(opener.noted_generation().saturating_add(1).max(now_ms))?;
    opener.note_generation(disk.ledger().generation)?;
    Ok(Started { disk, opener, clean, quarantined })
}

fn explain(dir: PathBuf, error: EngineError) -> OpenError {
    match error {
        EngineError::Environment(source) => OpenError::Directory { dir, source },
        EngineError::Full => OpenError::Directory { dir, source: ErrorKind::StorageFull.into() },
        EngineError::Busy => OpenError::Locked { dir },
        EngineError::Schema { found, supported } => OpenError::Schema { dir, found, supported },
        error @ (EngineError::Damaged(_) | EngineError::Panicked(_) | EngineError::TimedOut(_)) => {
            OpenError::Engine { dir, reason: error.to_string() }
        }
    }
}

/// The data directory, held by a lock for as long as this lives.
struct Directory {
    config: Config,
    policy: Policy,
    _lock: File,
}

impl Directory {
    fn lock(config: Config) -> Result<Directory, OpenError> {
        let failed = |source| OpenError::Directory { dir: config.dir.clone(), source };
        fs::create_dir_all(&config.dir).map_err(failed)?;
        let lock = File::create(config.dir.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { dir: config.dir }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let policy = Policy::new(config.retention, config.max_bytes);
        Ok(Directory { config, policy, _lock: lock })
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
}

impl Opener for Directory {
    fn open(&mut self) -> Result<(Disk, Option<PathBuf>), EngineError> {
        let noted = self.noted_generation();
        let current = |disk: Disk| {
            let found = disk.ledger().generation;
            if found < noted {
                return Err(EngineError::Damaged(format!("it went back from generation {noted} to {found}")));
            }
            Ok(disk)
        };
        match self.open_limited().and_then(current) {
            Ok(disk) => Ok((disk, None)),
            Err(
                error @ (EngineError::Environment(_)
                | EngineError::Full
                | EngineError::Busy
                | EngineError::Schema { .. }),
            ) => Err(error),
            Err(error @ (EngineError::Damaged(_) | EngineError::Panicked(_) | EngineError::TimedOut(_))) => {
                let aside = quarantine(&self.config.dir).map_err(EngineError::Environment)?;
                tracing::error!(%error, quarantine = %aside.display(), "store is damaged: moved aside, starting empty");
                Ok((self.open_limited()?, Some(aside)))
            }
        }
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

/// A store that is empty whenever it is opened.
struct Volatile {
    policy: Policy,
}

impl Opener for Volatile {
    fn open(&mut self) -> Result<(Disk, Option<PathBuf>), EngineError> {
        Ok((Disk::load(Box::new(MemoryEngine::default()), self.policy)?, None))
    }

    fn noted_generation(&self) -> u64 {
        0
    }

    fn note_generation(&mut self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Writes `text` so that after a crash the file holds it or what was there before.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let next = file.with_extension("next");
    let mut handle = File::create(&next)?;
    handle.write_all(text.as_bytes())?;
    handle.sync_all()?;
    fs::rename(next, file)
}

/// Moves the store in `dir` to the next free `quarantine-<n>` and deletes all but the newest ones.
fn quarantine(dir: &Path) -> std::io::Result<PathBuf> {
    let mut numbers: Vec<u64> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(QUARANTINE_PREFIX)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let next = numbers.last().map_or(1, |newest| newest.saturating_add(1));
    let path = |n: u64| dir.join(format!("{QUARANTINE_PREFIX}{n}"));
    fs::rename(dir.join(STORE_DIR), path(next))?;
    numbers.push(next);
    for old in &numbers[..numbers.len().saturating_sub(QUARANTINES_KEPT)] {
        fs::remove_dir_all(path(*old))?;
    }
    Ok(path(next))
}

/// When to try the next open after failures (pure).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    due: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: BACKOFF_MIN, due: None }
    }

    /// The store failed, or failed to open: wait, longer every time.
    pub(crate) fn handle_failure(&mut self, now: Instant) {
        self.due = Some(now + self.next);
        self.next = (self.next * 2).min(BACKOFF_MAX);
    }

    /// A commit succeeded: the next failure is a new story. A successful open is not enough, or a disk that opens and
    /// then refuses to write would be hammered.
    pub(crate) fn handle_commit(&mut self) {
        *self = Backoff::new();
    }

    /// The open is being tried.
    pub(crate) fn handle_attempt(&mut self) {
        self.due = None;
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_half_a_second_to_five_seconds_apart_until_a_commit() {
        let now = crate::clock::now();
        let mut backoff = Backoff::new();
        let mut waits = Vec::new();
        for _ in 0..6 {
            backoff.handle_failure(now);
            waits.push((backoff.poll_timeout().unwrap() - now).as_millis());
            backoff.handle_attempt();
            assert_eq!(backoff.poll_timeout(), None);
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 5000, 5000]);
        backoff.handle_commit();
        backoff.handle_failure(now);
        assert_eq!(backoff.poll_timeout(), Some(now + BACKOFF_MIN));
    }

    #[test]
    fn the_newest_two_quarantines_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..4 {
            fs::create_dir(dir.path().join(STORE_DIR)).unwrap();
            quarantine(dir.path()).unwrap();
        }
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["quarantine-3", "quarantine-4"]);
    }
}
