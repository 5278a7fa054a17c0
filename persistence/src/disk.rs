//! An open engine and what is known about its content: load, commits, retention.
//!
//! Invariants:
//! - The index is rebuilt by a scan that verifies every checksum and that no block is missing between two that are there,
//!   so damage is found when the store is opened and not months later. The loss of the newest blocks breaks nothing: that
//!   is what a kill looks like.
//! - A bucket is dropped only after it is durable how far retention went: after a kill the store may keep too much, never
//!   claim too much.
//! - After any error but a full disk this value is only dropped; what was pending is written again to the next one.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    block,
    engine::HistoryStore,
    error::EngineError,
    index::{ENTRY_BYTES, Entry, Index},
    key::BlockId,
    ledger::Ledger,
    pending::Pending,
    retention::{Bucket, Policy},
    section::Outline,
};

/// How long a failed engine may take to close its files before the thread goes on without it.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of one bucket.
#[derive(Debug)]
struct Contents {
    bucket: Bucket,
    last: BlockId,
    bytes: u64,
    /// Slot to its highest number here.
    highest: BTreeMap<u16, u64>,
}

/// The store behind the thread.
pub(crate) struct Disk {
    store: Box<dyn HistoryStore>,
    policy: Policy,
    contents: Vec<Contents>,
    index: Index,
    ledger: Ledger,
    heads: BTreeMap<u16, u64>,
    last: BlockId,
}

impl Disk {
    /// Reads and verifies everything.
    pub(crate) fn load(store: Box<dyn HistoryStore>, policy: Policy) -> Result<Disk, EngineError> {
        let ledger = Ledger::read(store.as_ref())?;
        let (heads, last) = (ledger.trimmed.clone(), ledger.dropped);
        let (contents, index) = (Vec::new(), Index::default());
        let mut disk = Disk { store, policy, contents, index, ledger, heads, last };
        let mut before: Option<BlockId> = None;
        for bucket in disk.store.buckets()? {
            before = disk.load_bucket(bucket, before)?;
        }
        disk.index.drop_through(disk.ledger.dropped);
        for (slot, n) in disk.contents.iter().flat_map(|contents| &contents.highest) {
            raise(&mut disk.heads, *slot, *n);
        }
        Ok(disk)
    }

    /// Takes a bucket into the index; `before` is the last block of the one before.
    fn load_bucket(&mut self, bucket: Bucket, mut before: Option<BlockId>) -> Result<Option<BlockId>, EngineError> {
        let mut contents = Contents { bucket, last: self.last, bytes: 0, highest: BTreeMap::new() };
        let (index, dropped) = (&mut self.index, self.ledger.dropped);
        self.store.scan(bucket, BlockId::default(), &mut |id, value| {
            let follows = before.map_or(id <= dropped.next(), |before| id == before.next());
            if !follows {
                return Err(EngineError::Damaged(format!("a block before {} is missing", id.0)));
            }
            block::check(id, value, &mut |place, outline| {
                let room = block::room(value, place, outline);
                contents.note(outline, index_section(index, id, room, place, outline));
            })
            .map_err(|damage| EngineError::Damaged(format!("block {}: {damage}", id.0)))?;
            contents.bytes += size(value.len());
            before = Some(id);
            Ok(ControlFlow::Continue(()))
        })?;
        contents.last = before.unwrap_or(contents.last);
        self.last = self.last.max(contents.last);
        self.contents.push(contents);
        Ok(before)
    }

    /// Whether the last stop was clean and every block from before it is there.
    fn is_clean(&self) -> bool {
        self.ledger.clean == Some(self.last)
    }

    /// Begins a generation, above every one before and at least `floor`, and makes that durable.
    pub(crate) fn begin(&mut self, floor: u64) -> Result<Begun, EngineError> {
        let clean = self.is_clean();
        let generation = self.ledger.generation.saturating_add(1).max(floor);
        self.store.check_room()?;
        let meta = self.ledger.begin(generation, self.store.as_mut())?;
        self.store.sync()?;
        Ok(Begun { generation, clean, meta })
    }

    /// Takes over what a lost disk had promised: this one is empty, or older than it.
    pub(crate) fn adopt(&mut self, lost: &Ledger) -> Result<(), EngineError> {
        let store = self.store.as_mut();
        self.ledger.begin(lost.generation.max(self.ledger.generation), store)?;
        for (slot, n) in &lost.trimmed {
            self.ledger.put_trimmed(*slot, *n, store)?;
            raise(&mut self.heads, *slot, *n);
        }
        for (slot, value) in &lost.meta {
            self.ledger.put_meta(*slot, value, store)?;
        }
        self.store.sync()
    }

    /// What would have to be said if everything on this disk were lost now.
    pub(crate) fn ledger_of_loss(&self) -> Ledger {
        Ledger { trimmed: self.heads.clone(), dropped: BlockId::default(), ..self.ledger.clone() }
    }

    /// One group commit: everything pending, then one sync. After [`EngineError::Full`] nothing was written and this value
    /// is still good.
    pub(crate) fn commit(&mut self, pending: &Pending, now_ms: u64) -> Result<(), EngineError> {
        self.store.check_room()?;
        for sections in block::in_blocks(pending.sections()) {
            let id = self.last.next();
            let block::Encoded { value, places } = block::encode(id, &sections);
            let contents = self.current(now_ms);
            contents.bytes += size(value.len());
            contents.last = id;
            let bucket = contents.bucket;
            for (section, place) in sections.iter().zip(places) {
                let outline = Outline::of(section);
                let kept = index_section(&mut self.index, id, section.room(), place, &outline);
                if let Some(contents) = self.contents.last_mut() {
                    contents.note(&outline, kept);
                }
            }
            self.store.put_block(bucket, id, &value)?;
            self.last = id;
        }
        for (slot, value) in pending.meta() {
            self.ledger.put_meta(*slot, value, self.store.as_mut())?;
        }
        self.store.sync()?;
        for section in pending.sections() {
            raise(&mut self.heads, section.slot(), section.last_n());
        }
        Ok(())
    }

    /// The bucket that takes the next block.
    fn current(&mut self, now_ms: u64) -> &mut Contents {
        let newest = self.contents.last().map(|contents| (contents.bucket, contents.bytes));
        let bucket = self.policy.current(newest, now_ms);
        if newest.map(|(bucket, _)| bucket) != Some(bucket) {
            self.contents.push(Contents { bucket, last: self.last, bytes: 0, highest: BTreeMap::new() });
        }
        let at = self.contents.len() - 1;
        &mut self.contents[at]
    }

    /// Writes the clean marker; nothing may be written after it.
    pub(crate) fn finish(&mut self) -> Result<(), EngineError> {
        self.ledger.clean = Some(self.last);
        self.ledger.write_named(self.store.as_mut())?;
        self.store.sync()
    }

    /// Drops what is too old or too much; returns how many buckets went.
    pub(crate) fn retain(&mut self, now_ms: u64) -> Result<usize, EngineError> {
        let sizes: Vec<_> = self.contents.iter().map(|contents| (contents.bucket, contents.bytes)).collect();
        let count = self.policy.expired(&sizes, now_ms);
        let Some(last) = self.contents[..count].last().map(|contents| contents.last) else { return Ok(0) };
        for (slot, n) in self.contents[..count].iter().flat_map(|contents| &contents.highest) {
            self.ledger.put_trimmed(*slot, *n, self.store.as_mut())?;
        }
        self.ledger.dropped = last;
        self.ledger.write_named(self.store.as_mut())?;
        self.store.sync()?;
        self.index.drop_through(last);
        for contents in self.contents.drain(..count) {
            self.store.drop_bucket(contents.bucket)?;
        }
        self.store.sync()?;
        Ok(count)
    }

    /// More is live than may be: [`Disk::retain`] is due at once.
    pub(crate) fn is_over_budget(&self) -> bool {
        self.live_bytes() > self.policy.max_bytes()
    }

    /// How often to call [`Disk::retain`].
    pub(crate) fn retain_interval(&self) -> Duration {
        self.policy.interval()
    }

    /// Lets go of an engine that failed. Its end may panic or never come, so a helper thread takes it; this waits a
    /// moment for the files to be free again.
    pub(crate) fn discard(self) {
        let (ended, end) = mpsc::sync_channel::<()>(1);
        let helper = thread::Builder::new().name("store-discard".to_owned()).spawn(move || {
            drop(self);
            drop(ended);
        });
        if helper.is_err() || end.recv_timeout(DISCARD_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the failed engine does not let go of its files; they will be copied");
        }
    }

    /// Slot to the highest number it ever durably held.
    pub(crate) fn heads(&self) -> &BTreeMap<u16, u64> {
        &self.heads
    }

    /// Whether this is the disk of that generation, in the middle of its life.
    pub(crate) fn is_of(&self, generation: u64) -> bool {
        self.ledger.generation == generation && self.ledger.clean.is_none()
    }

    /// Whether a slot ends before its head in `heads`.
    pub(crate) fn is_behind(&self, heads: &BTreeMap<u16, u64>) -> bool {
        heads.iter().any(|(slot, n)| self.heads.get(slot).copied().unwrap_or(0) < *n)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.ledger.generation
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.contents.iter().map(|contents| contents.bytes).sum()
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    pub(crate) fn store(&self) -> &dyn HistoryStore {
        self.store.as_ref()
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The highest number of `slot` that may be gone.
    pub(crate) fn trimmed_through(&self, slot: u16) -> u64 {
        self.ledger.trimmed.get(&slot).copied().unwrap_or(0)
    }

    pub(crate) fn last_block(&self) -> BlockId {
        self.last
    }

    /// The bucket that holds a block of the index.
    pub(crate) fn bucket_of(&self, id: BlockId) -> Bucket {
        let at = self.contents.partition_point(|contents| contents.last < id);
        self.contents.get(at).map_or(Bucket { id: 0, begun_ms: 0 }, |contents| contents.bucket)
    }

    /// The buckets that hold blocks after this one.
    pub(crate) fn buckets_after(&self, id: BlockId) -> impl Iterator<Item = Bucket> {
        self.contents.iter().filter(move |contents| contents.last > id).map(|contents| contents.bucket)
    }
}

/// What a generation begins with.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) generation: u64,
    pub(crate) clean: bool,
    pub(crate) meta: BTreeMap<u16, Bytes>,
}

impl Contents {
    /// Counts a section in.
    fn note(&mut self, outline: &Outline, index_bytes: u64) {
        raise(&mut self.highest, outline.slot, outline.last_n);
        self.bytes += index_bytes;
    }
}

/// Takes a section into the index, or lets a mark do its work; the memory that costs.
fn index_section(index: &mut Index, block: BlockId, room: &[u8], place: u32, outline: &Outline) -> u64 {
    if outline.count == 0 {
        if room.is_empty() {
            index.forget_slot(outline.slot);
        } else {
            index.forget(outline.slot, room);
        }
        return 0;
    }
    let entry = Entry { block, first_n: outline.first_n, place, count: outline.count };
    index.add(outline.slot, room, entry, outline.last_n);
    ENTRY_BYTES
}

fn raise(numbers: &mut BTreeMap<u16, u64>, slot: u16, n: u64) {
    let number = numbers.entry(slot).or_default();
    *number = n.max(*number);
}

fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
