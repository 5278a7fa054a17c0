//! A store that is opened without a node.
//!
//! Invariants: nothing is dropped for its age or size while it is open here; if it had been closed cleanly, it is again,
//! and every slot goes on from where it did; if not, no slot does, since what is missing cannot be known.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use persistence::{AppendError, Config, Cursor, Kind, Record, ScanPage, Status, Store};

use super::refuse_if_in_use;
use crate::clock;

const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// About as much of the store as is in memory at a time.
const PAGE_BYTES: usize = 1 << 20;
/// How often a full queue of the store is tried again, and for how long.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const RETRIES: u32 = 3_000;

/// See the module.
pub(super) struct Offline {
    store: Store,
    /// Slot to the highest number it ever held.
    pub(super) heads: BTreeMap<u16, u64>,
    /// What each slot goes on from; empty unless `clean`.
    pub(super) states: BTreeMap<u16, Bytes>,
    pub(super) clean: bool,
}

impl Offline {
    pub(super) fn open(dir: &Path) -> anyhow::Result<Offline> {
        refuse_if_in_use(dir)?;
        let config = Config { retention: FOREVER, max_bytes: u64::MAX, ..Config::new(dir) };
        let opened = persistence::open(Kind::Sled(config), clock::wall_ms())?;
        if let Status::Degraded(reason) = opened.store.status() {
            anyhow::bail!("the store in {} cannot be used: {reason}", dir.display());
        }
        if let Some(aside) = opened.quarantined {
            anyhow::bail!("the store was damaged or of another version; it is now in {}", aside.display());
        }
        let clean = opened.clean;
        let states = if clean { opened.meta } else { BTreeMap::new() };
        Ok(Offline { store: opened.store, heads: opened.heads.unwrap_or_default(), states, clean })
    }

    /// Hands out every message, those of one room in the order of their offsets; answers how many parts are damaged.
    pub(super) fn scan(&self, mut visit: impl FnMut(Record) -> anyhow::Result<()>) -> anyhow::Result<u64> {
        let mut damaged = 0;
        let mut next = Some(Cursor::default());
        while let Some(after) = next {
            let page = self.page(after)?;
            damaged += page.damaged;
            next = page.next;
            page.records.into_iter().try_for_each(&mut visit)?;
        }
        Ok(damaged)
    }

    fn page(&self, after: Cursor) -> anyhow::Result<ScanPage> {
        let (reply, answer) = mpsc::sync_channel(1);
        // Nobody else reads: if the receiver is gone, so is the question.
        self.store.scan(|_| true, after, PAGE_BYTES, move |page| drop(reply.send(page)))?;
        Ok(answer.recv().context("the store ended")??)
    }

    pub(super) fn append(&self, records: &[Record]) -> anyhow::Result<()> {
        patiently(|| self.store.append(records.to_vec()))
    }

    pub(super) fn forget(&self, slot: u16, room: &Bytes) -> anyhow::Result<()> {
        patiently(|| self.store.forget(slot, room.clone()))
    }

    /// Gives the store back.
    pub(super) fn close(self) -> anyhow::Result<()> {
        for (slot, state) in &self.states {
            patiently(|| self.store.put_meta(*slot, state.clone()))?;
        }
        self.store.close().context("the store was not closed cleanly: its rooms get new epochs")
    }
}

/// Waits for room in the store's queue.
fn patiently(attempt: impl Fn() -> Result<(), AppendError>) -> anyhow::Result<()> {
    for _ in 0..RETRIES {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(AppendError::QueueFull) => std::thread::sleep(RETRY_PAUSE),
            Err(error @ (AppendError::TooLarge | AppendError::Unnamed | AppendError::Closed)) => {
                return Err(error.into());
            }
        }
    }
    anyhow::bail!("the disk takes nothing any more")
}
