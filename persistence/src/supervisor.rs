//! The life of a disk: it is opened, fails, and is opened again.
//!
//! Invariants:
//! - A store that cannot be opened for now starts without its disk, refuses nothing but what needs it, and opens it later.
//! - A disk that comes back from before this life, or empty, takes over the promise: generation, heads, metas. One of this
//!   life that lost its end is moved aside: with it, history would go on behind a hole.
//! - The time between attempts grows to five seconds and no further, until a commit succeeded.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    Kind, OpenError,
    directory::Directory,
    disk::{Begun, Disk},
    error::EngineError,
    ledger::Ledger,
    memory::MemoryEngine,
    retention::Policy,
};

const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where the disk is.
pub(crate) enum State {
    Open(Disk),
    /// It failed: the ledger is what must be said if its content turns out to be lost.
    Away {
        lost: Ledger,
        reason: Arc<str>,
    },
}

/// A store that was opened for a new generation.
pub(crate) struct Started {
    pub(crate) state: State,
    pub(crate) opener: Box<dyn Opener>,
    pub(crate) generation: u64,
    pub(crate) clean: bool,
    pub(crate) heads: Option<BTreeMap<u16, u64>>,
    pub(crate) meta: BTreeMap<u16, Bytes>,
    pub(crate) quarantined: Option<PathBuf>,
}

/// Opens the same store again after an error.
pub(crate) trait Opener: Send {
    /// Opens it, moving it aside if it can never be used, or if it holds less than these heads of its life promise; says
    /// where to in that case.
    fn open(&mut self, heads: &BTreeMap<u16, u64>) -> Result<(Disk, Option<PathBuf>), EngineError>;

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
            std::fs::create_dir_all(&dir).map_err(|source| OpenError::Directory { dir: dir.clone(), source })?;
            begin(Box::new(Directory::new(config)), now_ms).map_err(|refusal| match refusal {
                Refusal::Busy => OpenError::Locked { dir },
                Refusal::Schema { found, supported } => OpenError::Schema { dir, found, supported },
            })
        }
        Kind::Memory { retention, max_bytes, .. } => {
            let opener = Volatile { policy: Policy::new(retention, max_bytes) };
            begin(Box::new(opener), now_ms).map_err(|_| OpenError::Locked { dir: PathBuf::new() })
        }
    }
}

/// Why a start is refused rather than tried again: the files are good, and somebody else's.
#[derive(Debug)]
pub(crate) enum Refusal {
    Busy,
    Schema { found: u64, supported: u64 },
}

/// Opens whatever `opener` opens and begins a generation, with or without the disk.
pub(crate) fn begin(mut opener: Box<dyn Opener>, now_ms: u64) -> Result<Started, Refusal> {
    let floor = opener.noted_generation().saturating_add(1).max(now_ms);
    match begin_disk(opener.as_mut(), floor) {
        Ok((disk, begun, quarantined)) => {
            let Begun { generation, clean, meta } = begun;
            let heads = Some(disk.heads().clone());
            Ok(Started { state: State::Open(disk), opener, generation, clean, heads, meta, quarantined })
        }
        Err(EngineError::Busy) => Err(Refusal::Busy),
        Err(EngineError::Schema { found, supported }) => Err(Refusal::Schema { found, supported }),
        Err(
            error @ (EngineError::Environment(_)
            | EngineError::Full
            | EngineError::Gone
            | EngineError::Damaged(_)
            | EngineError::Panicked(_)
            | EngineError::TimedOut(_)
            | EngineError::Outdated { .. }),
        ) => {
            tracing::error!(%error, "the store cannot be opened for now, starting without it");
            let lost = Ledger { generation: floor, ..Ledger::default() };
            let state = State::Away { lost, reason: error.to_string().into() };
            let (clean, heads, meta, quarantined) = (false, None, BTreeMap::new(), None);
            Ok(Started { state, opener, generation: floor, clean, heads, meta, quarantined })
        }
    }
}

fn begin_disk(opener: &mut dyn Opener, floor: u64) -> Result<(Disk, Begun, Option<PathBuf>), EngineError> {
    let (mut disk, quarantined) = opener.open(&BTreeMap::new())?;
    let begun = disk.begin(floor).and_then(|begun| {
        opener.note_generation(begun.generation)?;
        Ok(begun)
    });
    match begun {
        Ok(begun) => Ok((disk, begun, quarantined)),
        Err(error) => {
            disk.discard();
            Err(error)
        }
    }
}

/// Opens again for the same generation, and keeps the promises in `lost` where the disk does not; says whether it had to
/// be moved aside.
pub(crate) fn open_again(opener: &mut dyn Opener, lost: &Ledger) -> Result<(Disk, bool), EngineError> {
    let (mut disk, quarantined) = opener.open(&lost.trimmed)?;
    let adopted = if quarantined.is_some() || !disk.is_of(lost.generation) {
        disk.adopt(lost).and_then(|()| opener.note_generation(disk.generation()))
    } else {
        Ok(())
    };
    match adopted {
        Ok(()) => Ok((disk, quarantined.is_some())),
        Err(error) => {
            disk.discard();
            Err(error)
        }
    }
}

/// A store that is empty whenever it is opened.
struct Volatile {
    policy: Policy,
}

impl Opener for Volatile {
    fn open(&mut self, _: &BTreeMap<u16, u64>) -> Result<(Disk, Option<PathBuf>), EngineError> {
        Ok((Disk::load(Box::new(MemoryEngine::default()), self.policy)?, None))
    }

    fn noted_generation(&self) -> u64 {
        0
    }

    fn note_generation(&mut self, _: u64) -> Result<(), EngineError> {
        Ok(())
    }
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
}
