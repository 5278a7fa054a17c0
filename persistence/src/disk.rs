//! An open engine and what is known about its content: commits, reads, retention.
//!
//! Invariants:
//! - The index says for every bucket and slot which numbers may be there; it is rebuilt by a scan that verifies every
//!   block and the links between them, so damage is found when the store is opened and not months later.
//! - Blocks are written before metas and before `trimmed_through` is raised for them, and a bucket is dropped only after
//!   its watermark is durable: after a kill the store may keep too much, never claim too much.
//! - After any error this value is only dropped; the pending blocks are written again to the next one.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Page, Query,
    block::Block,
    chain::Chain,
    engine::{Engine, KeyRange},
    error::EngineError,
    key::Key,
    page::{Collector, RANK_PENDING},
    pending::Pending,
    retention::{Bucket, Policy},
};

/// Version of the layout on disk.
pub(crate) const SCHEMA: u64 = 1;

const SCHEMA_KEY: &[u8] = b"schema";
const GENERATION_KEY: &[u8] = b"generation";
const CLEAN_KEY: &[u8] = b"clean";
const SLOT_META_PREFIX: u8 = b'm';
const TRIMMED_PREFIX: u8 = b't';
/// How long a failed engine may take to close its files before the thread goes on without it.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// A slot key is its prefix, a zero byte and the slot: never as long as, or equal to, a named key.
const SLOT_KEY_BYTES: usize = 4;

/// The small table, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) generation: u64,
    pub(crate) clean: bool,
    pub(crate) meta: BTreeMap<u16, Bytes>,
    pub(crate) trimmed: BTreeMap<u16, u64>,
}

/// The numbers of one slot in one bucket.
#[derive(Clone, Copy, Debug)]
struct Reach {
    lowest: u64,
    highest: u64,
    /// Blocks of a room may overlap here, because a number came that was not above all before it: no early end of a scan.
    overlaps: bool,
}

#[derive(Debug)]
struct Contents {
    bucket: Bucket,
    bytes: u64,
    slots: BTreeMap<u16, Reach>,
}

/// The store behind the thread.
pub(crate) struct Disk {
    engine: Box<dyn Engine>,
    policy: Policy,
    contents: Vec<Contents>,
    ledger: Ledger,
    heads: BTreeMap<u16, u64>,
    /// Slot to the last number of its last written block; after a load any stored number does, so the head.
    tails: BTreeMap<u16, u64>,
}

impl Disk {
    /// Reads and verifies everything.
    pub(crate) fn load(engine: Box<dyn Engine>, policy: Policy) -> Result<Disk, EngineError> {
        let ledger = Ledger::read(engine.as_ref())?;
        let (mut contents, mut chain) = (Vec::new(), Chain::default());
        for bucket in engine.buckets()? {
            contents.push(Contents::scan(engine.as_ref(), bucket, &mut chain)?);
        }
        if let Some((slot, n)) = chain.broken(&ledger.trimmed) {
            return Err(EngineError::Damaged(format!("slot {slot} lacks number {n}")));
        }
        let mut heads = ledger.trimmed.clone();
        for (slot, reach) in contents.iter().flat_map(|contents: &Contents| &contents.slots) {
            raise(&mut heads, *slot, reach.highest);
        }
        let tails = heads.clone();
        Ok(Disk { engine, policy, contents, ledger, heads, tails })
    }

    /// Begins a generation, above every one before and at least `floor`: raises it, takes the clean marker away, and
    /// makes both durable. Returns whether the marker was there.
    pub(crate) fn begin(&mut self, floor: u64) -> Result<bool, EngineError> {
        let clean = self.ledger.clean;
        self.ledger.generation = self.ledger.generation.saturating_add(1).max(floor);
        self.ledger.clean = false;
        self.write_named()?;
        self.engine.sync()?;
        Ok(clean)
    }

    /// Carries the ledger of a lost disk over to this empty one.
    pub(crate) fn adopt(&mut self, lost: Ledger) -> Result<(), EngineError> {
        self.ledger = Ledger { clean: false, ..lost };
        self.heads = self.ledger.trimmed.clone();
        self.tails = self.heads.clone();
        self.write_named()?;
        for (slot, value) in &self.ledger.meta {
            self.engine.put_meta(&slot_key(SLOT_META_PREFIX, *slot), Some(value))?;
        }
        for (slot, n) in &self.ledger.trimmed {
            self.engine.put_meta(&slot_key(TRIMMED_PREFIX, *slot), Some(&n.to_be_bytes()))?;
        }
        self.engine.sync()
    }

    /// What would have to be said if everything on this disk were lost now.
    pub(crate) fn ledger_of_loss(&self) -> Ledger {
        Ledger { trimmed: self.heads.clone(), ..self.ledger.clone() }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Slot to the highest number it ever durably held.
    pub(crate) fn heads(&self) -> &BTreeMap<u16, u64> {
        &self.heads
    }

    /// One group commit: everything pending, then one sync. After [`EngineError::Full`] nothing was written and this value
    /// is still good.
    pub(crate) fn commit(&mut self, pending: &Pending, now_ms: u64) -> Result<(), EngineError> {
        self.engine.check_room()?;
        for room in pending.rooms() {
            // All that was durable before this commit is at or below the head, so only what follows it is surely alone.
            let mut highest = room.first().and_then(|block| self.heads.get(&block.slot())).copied().unwrap_or(0);
            for block in room {
                self.write(block, block.first_n() > highest, now_ms)?;
                highest = highest.max(block.last_n());
            }
        }
        for (slot, value) in pending.meta() {
            self.engine.put_meta(&slot_key(SLOT_META_PREFIX, *slot), Some(value))?;
            self.ledger.meta.insert(*slot, value.clone());
        }
        self.engine.sync()?;
        for block in pending.blocks() {
            raise(&mut self.heads, block.slot(), block.last_n());
        }
        Ok(())
    }

    /// Writes the clean marker; nothing may be written after it.
    pub(crate) fn finish(&mut self) -> Result<(), EngineError> {
        self.ledger.clean = true;
        self.write_named()?;
        self.engine.sync()
    }

    /// Drops what is too old or too much; returns how many buckets went.
    pub(crate) fn retain(&mut self, now_ms: u64) -> Result<usize, EngineError> {
        let sizes: Vec<_> = self.contents.iter().map(|contents| (contents.bucket, contents.bytes)).collect();
        let count = self.policy.expired(&sizes, now_ms);
        if count == 0 {
            return Ok(0);
        }
        for (slot, reach) in self.contents[..count].iter().flat_map(|contents| &contents.slots) {
            let trimmed = raise(&mut self.ledger.trimmed, *slot, reach.highest);
            self.engine.put_meta(&slot_key(TRIMMED_PREFIX, *slot), Some(&trimmed.to_be_bytes()))?;
        }
        self.engine.sync()?;
        for contents in self.contents.drain(..count) {
            self.engine.drop_bucket(contents.bucket)?;
        }
        self.engine.sync()?;
        Ok(count)
    }

    /// Answers a query from the disk and what is pending.
    pub(crate) fn read(&self, query: &Query, pending: &Pending) -> Result<Page, EngineError> {
        let mut collector = Collector::new(query);
        for block in pending.room(query.slot, &query.room) {
            collector.add(RANK_PENDING, block.clone());
        }
        for (contents, reach) in self.candidates(query) {
            if collector.rejects(if query.newest { reach.highest } else { reach.lowest }) {
                break;
            }
            self.read_bucket(contents.bucket, reach, query, &mut collector)?;
        }
        Ok(collector.page(self.ledger.trimmed.get(&query.slot).copied().unwrap_or(0)))
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
            tracing::error!("the failed engine does not let go of its files; only a restart may free them");
        }
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.contents.iter().map(|contents| contents.bytes).sum()
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.engine.disk_bytes()
    }

    /// The buckets that may hold a part of the answer, the asked end first.
    fn candidates(&self, query: &Query) -> Vec<(&Contents, Reach)> {
        let holds = |contents: &Contents| {
            contents.slots.get(&query.slot).copied().filter(|r| r.highest > query.after && r.lowest <= query.upto)
        };
        let mut found: Vec<_> = self.contents.iter().filter_map(|c| Some((c, holds(c)?))).collect();
        if query.newest {
            found.sort_by_key(|(_, reach)| std::cmp::Reverse(reach.highest));
        } else {
            found.sort_by_key(|(_, reach)| reach.lowest);
        }
        found
    }

    fn read_bucket(
        &self,
        bucket: Bucket,
        reach: Reach,
        query: &Query,
        collector: &mut Collector<'_>,
    ) -> Result<(), EngineError> {
        let room = Key::new(query.slot, &query.room, 0);
        let whole = KeyRange { from: room, to: room.at(query.upto), newest: query.newest };
        let range = if query.newest || reach.overlaps {
            whole
        } else {
            KeyRange { from: room.at(self.begin_of(bucket, room, query.after)?), ..whole }
        };
        self.engine.range(bucket, range, &mut |value| {
            let block = decode(value)?;
            let (first, last) = (block.first_n(), block.last_n());
            collector.add(bucket.id, block);
            let next = if query.newest { first.saturating_sub(1) } else { last.saturating_add(1) };
            let below = query.newest && next <= query.after;
            let ends = !reach.overlaps && (below || collector.rejects(next));
            Ok(if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }

    /// Where the block begins that may hold the first number after `after`.
    fn begin_of(&self, bucket: Bucket, room: Key, after: u64) -> Result<u64, EngineError> {
        let mut begin = after;
        let range = KeyRange { from: room, to: room.at(after), newest: true };
        self.engine.range(bucket, range, &mut |value| {
            begin = decode(value)?.first_n();
            Ok(ControlFlow::Break(()))
        })?;
        Ok(begin)
    }

    /// Writes a block; unless it `rises` above all there is of its room, it may overlap others or have the key of one.
    fn write(&mut self, block: &Block, rises: bool, now_ms: u64) -> Result<(), EngineError> {
        let newest = self.contents.last().map(|contents| (contents.bucket, contents.bytes));
        let bucket = self.policy.current(newest, now_ms);
        if newest.map(|(bucket, _)| bucket) != Some(bucket) {
            self.contents.push(Contents { bucket, bytes: 0, slots: BTreeMap::new() });
        }
        let Some(contents) = self.contents.last_mut() else { return Ok(()) };
        let older = if rises { None } else { self.engine.block(bucket, block.key())? };
        let older_bytes = older.as_ref().map_or(0, |value| size(value.len()));
        let link = self.tails.insert(block.slot(), block.last_n()).unwrap_or(0);
        let value = match older {
            Some(value) => decode(value)?.merge(block.clone()).encode(link),
            None => block.encode(link),
        };
        contents.bytes = contents.bytes + size(value.len()) - older_bytes.min(contents.bytes);
        contents.note(block, !rises);
        self.engine.put_block(bucket, block.key(), value)
    }

    fn write_named(&mut self) -> Result<(), EngineError> {
        let clean: Option<&[u8]> = if self.ledger.clean { Some(b"1") } else { None };
        self.engine.put_meta(SCHEMA_KEY, Some(&SCHEMA.to_be_bytes()))?;
        self.engine.put_meta(GENERATION_KEY, Some(&self.ledger.generation.to_be_bytes()))?;
        self.engine.put_meta(CLEAN_KEY, clean)
    }
}

impl Contents {
    fn scan(engine: &dyn Engine, bucket: Bucket, chain: &mut Chain) -> Result<Contents, EngineError> {
        let mut contents = Contents { bucket, bytes: 0, slots: BTreeMap::new() };
        let mut before: Option<Block> = None;
        engine.scan(bucket, &mut |value| {
            let bytes = size(value.len());
            let (block, link) = decode_linked(value)?;
            chain.add(&block, link);
            let same_room = |b: &Block| b.slot() == block.slot() && b.room() == block.room();
            let overlaps = before.as_ref().is_some_and(|b| same_room(b) && b.last_n() >= block.first_n());
            contents.bytes += bytes;
            contents.note(&block, overlaps);
            before = Some(block);
            Ok(())
        })?;
        Ok(contents)
    }

    fn note(&mut self, block: &Block, overlaps: bool) {
        let (lowest, highest) = (block.first_n(), block.last_n());
        let reach = self.slots.entry(block.slot()).or_insert(Reach { lowest, highest, overlaps });
        reach.lowest = reach.lowest.min(lowest);
        reach.highest = reach.highest.max(highest);
        reach.overlaps |= overlaps;
    }
}

impl Ledger {
    fn read(engine: &dyn Engine) -> Result<Ledger, EngineError> {
        let mut ledger = Ledger::default();
        for (key, value) in engine.meta()? {
            match (&key[..], slot_of(&key)) {
                (SCHEMA_KEY, _) => check_schema(number(&value)?)?,
                (GENERATION_KEY, _) => ledger.generation = number(&value)?,
                (CLEAN_KEY, _) => ledger.clean = true,
                (_, Some((SLOT_META_PREFIX, slot))) => drop(ledger.meta.insert(slot, value)),
                (_, Some((TRIMMED_PREFIX, slot))) => drop(ledger.trimmed.insert(slot, number(&value)?)),
                _ => return Err(EngineError::Damaged(format!("unknown meta key {key:?}"))),
            }
        }
        Ok(ledger)
    }
}

fn check_schema(found: u64) -> Result<(), EngineError> {
    if found > SCHEMA {
        return Err(EngineError::Schema { found, supported: SCHEMA });
    }
    Ok(())
}

fn slot_key(prefix: u8, slot: u16) -> [u8; SLOT_KEY_BYTES] {
    let [high, low] = slot.to_be_bytes();
    [prefix, 0, high, low]
}

fn slot_of(key: &[u8]) -> Option<(u8, u16)> {
    let [prefix, 0, high, low] = *key else { return None };
    Some((prefix, u16::from_be_bytes([high, low])))
}

fn number(value: &[u8]) -> Result<u64, EngineError> {
    let bytes = value.try_into().map_err(|_| EngineError::Damaged("a meta number is not 8 bytes".to_owned()))?;
    Ok(u64::from_be_bytes(bytes))
}

fn raise(numbers: &mut BTreeMap<u16, u64>, slot: u16, n: u64) -> u64 {
    let number = numbers.entry(slot).or_default();
    *number = n.max(*number);
    *number
}

fn decode(value: Bytes) -> Result<Block, EngineError> {
    decode_linked(value).map(|(block, _)| block)
}

fn decode_linked(value: Bytes) -> Result<(Block, u64), EngineError> {
    Block::decode(value).map_err(|error| EngineError::Damaged(error.to_string()))
}

fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
