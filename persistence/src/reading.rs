//! Reading: the sections of a room through the index, and every block in the order of writing.
//!
//! Invariants:
//! - A damaged section never becomes a record. It ends a page; where nothing was found before it, it is passed over, so that
//!   paging goes on behind it. Either way the page says how many sections were damaged.
//! - What is waiting for its commit is read like what is stored, after it.

use std::ops::ControlFlow;

use crate::{
    Cursor, Page, Query, Record, ScanPage, block,
    disk::Disk,
    error::EngineError,
    index::{Entry, Room},
    key::BlockId,
    page::Collector,
    pending::Waiting,
    section::{Damage, Section},
};

/// Blocks that one part of a slot's scan reads: the thread is free for a commit after so many.
const SLOT_SCAN_BLOCKS: usize = 256;

/// The sections of one room in the order of writing, stored ones first.
struct Pieces<'a> {
    disk: &'a Disk,
    stored: Option<&'a Room>,
    waiting: &'a [Section],
}

enum Piece<'a> {
    Stored(&'a Entry),
    Waiting(&'a Section),
}

impl Disk {
    /// Answers a query from the disk and what waits for its commit.
    pub(crate) fn read(&self, query: &Query, waiting: Waiting<'_>) -> Result<Page, EngineError> {
        let pieces = Pieces::new(self, query, waiting);
        let mut damaged = 0;
        let after = query.after.max(pieces.floor(query, &mut damaged)?);
        let collected = pieces.collect(query, after, &mut damaged)?;
        Ok(collected.page(damaged, self.trimmed_through(query.slot)))
    }

    /// The stored records of the wanted slots, in the order of writing, from whole blocks after the cursor until there are
    /// `max_bytes` of them.
    pub(crate) fn scan(
        &self,
        wanted: &dyn Fn(u16) -> bool,
        after: Cursor,
        max_bytes: usize,
    ) -> Result<ScanPage, EngineError> {
        let mut page = ScanPage::default();
        let (mut bytes, mut last) = (0, BlockId(after.0));
        for bucket in self.buckets_after(last) {
            self.store().scan(bucket, last.next(), &mut |id, value| {
                match self.kept(id, value, wanted) {
                    Ok(records) => {
                        bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
                        page.records.extend(records);
                    }
                    Err(_) => page.damaged += 1,
                }
                last = id;
                Ok(if bytes >= max_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if bytes >= max_bytes {
                break;
            }
        }
        // Blocks behind the last that was looked at may all be gone: only a part that was full has another behind it.
        page.next = (bytes >= max_bytes && last < self.last_block()).then_some(Cursor(last.0));
        Ok(page)
    }

    /// As [`Disk::scan`], of one slot: only the blocks that hold something of it are read.
    pub(crate) fn scan_slot(&self, slot: u16, after: Cursor, max_bytes: usize) -> Result<ScanPage, EngineError> {
        let mut page = ScanPage::default();
        let (mut bytes, mut last) = (0, BlockId(after.0));
        for (read, id) in self.index().blocks_after(slot, last).into_iter().enumerate() {
            if bytes >= max_bytes || read >= SLOT_SCAN_BLOCKS {
                page.next = Some(Cursor(last.0));
                break;
            }
            let mut found = Err(Damage::Short);
            self.store().block(self.bucket_of(id), id, &mut |value| found = self.kept(id, value, &|of| of == slot))?;
            match found {
                Ok(records) => {
                    bytes += records.iter().map(|record| record.body.len()).sum::<usize>();
                    page.records.extend(records);
                }
                Err(_) => page.damaged += 1,
            }
            last = id;
        }
        Ok(page)
    }

    /// The records of a block that belong to wanted slots and were not forgotten.
    fn kept(&self, id: BlockId, value: &[u8], wanted: &dyn Fn(u16) -> bool) -> Result<Vec<Record>, Damage> {
        let mut places = Vec::new();
        block::check(id, value, &mut |place, outline| {
            let room = block::room(value, place, outline);
            if wanted(outline.slot) && self.index().holds(outline.slot, room, id, place) {
                places.push(place);
            }
        })?;
        let mut records = Vec::new();
        for place in places {
            records.extend(block::section(id, value, place)?.into_records());
        }
        Ok(records)
    }

    fn section(&self, entry: &Entry) -> Result<Section, EngineError> {
        let mut found = Err(Damage::Short);
        self.store().block(self.bucket_of(entry.block), entry.block, &mut |value| {
            found = block::section(entry.block, value, entry.place);
        })?;
        found.map_err(|damage| EngineError::Damaged(format!("block {}: {damage}", entry.block.0)))
    }
}

impl<'a> Pieces<'a> {
    fn new(disk: &'a Disk, query: &Query, waiting: Waiting<'a>) -> Pieces<'a> {
        let Waiting { forgets, sections } = waiting;
        let stored = if forgets { None } else { disk.index().room(query.slot, &query.room) };
        Pieces { disk, stored, waiting: sections }
    }

    fn len(&self) -> usize {
        self.stored.map_or(0, |room| room.entries.len()) + self.waiting.len()
    }

    fn get(&self, at: usize) -> Option<Piece<'a>> {
        let stored = self.stored.map_or(0, |room| room.entries.len());
        match at.checked_sub(stored) {
            None => self.stored?.entries.get(at).map(Piece::Stored),
            Some(at) => self.waiting.get(at).map(Piece::Waiting),
        }
    }

    fn first_n(&self, at: usize) -> u64 {
        match self.get(at) {
            Some(Piece::Stored(entry)) => entry.first_n,
            Some(Piece::Waiting(section)) => section.first_n(),
            None => u64::MAX,
        }
    }

    fn count(&self, at: usize) -> u64 {
        match self.get(at) {
            Some(Piece::Stored(entry)) => u64::from(entry.count),
            Some(Piece::Waiting(section)) => size(section.records().len()),
            None => 0,
        }
    }

    /// Whether sections stand in another order than their numbers.
    fn overlap(&self) -> bool {
        let mut last = self.stored.map_or(0, |room| room.last_n);
        let waiting_overlap = self.waiting.iter().any(|section| {
            let overlaps = section.first_n() <= last && last > 0;
            last = last.max(section.last_n());
            overlaps
        });
        waiting_overlap || self.stored.is_some_and(|room| room.overlaps)
    }

    /// How many pieces begin at or below `n`, given that they stand in order.
    fn up_to(&self, n: u64) -> usize {
        let stored = self.stored.map_or(0, |room| room.entries.partition_point(|entry| entry.first_n <= n));
        let whole = self.stored.is_none_or(|room| stored == room.entries.len());
        let waiting = self.waiting.partition_point(|section| section.first_n() <= n);
        if whole { stored + waiting } else { stored }
    }

    /// The sections, visited from the asked end, in one collector.
    fn collect<'q>(&self, query: &'q Query, after: u64, damaged: &mut u64) -> Result<Collector<'q>, EngineError> {
        let mut collector = Collector::new(query, after);
        let overlap = self.overlap();
        let range = if overlap { 0..self.len() } else { self.up_to(after).saturating_sub(1)..self.up_to(query.upto) };
        for step in 0..range.len() {
            let at = if query.newest { range.end - 1 - step } else { range.start + step };
            let nearest = if query.newest { self.first_n(at + 1).saturating_sub(1) } else { self.first_n(at) };
            if !overlap && collector.rejects(nearest) {
                break;
            }
            match self.section(at) {
                Ok(section) => collector.add(at, section),
                Err(EngineError::Damaged(_)) => {
                    *damaged += 1;
                    if !collector.is_empty() {
                        collector.more();
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(collector)
    }

    /// The position behind which the newest `keep` records are; 0 when there are not more.
    fn floor(&self, query: &Query, damaged: &mut u64) -> Result<u64, EngineError> {
        let keep = size(query.keep);
        let waiting: usize = self.waiting.iter().map(|section| section.records().len()).sum();
        if self.stored.map_or(0, |room| room.count) + size(waiting) <= keep {
            return Ok(0);
        }
        if self.overlap() {
            let newest =
                Query { upto: u64::MAX, limit: query.keep, max_bytes: usize::MAX, newest: true, ..query.clone() };
            let page = self.collect(&newest, 0, damaged)?.page(0, 0);
            return Ok(page.records.first().map_or(u64::MAX, |record| record.n - 1));
        }
        let mut seen = 0;
        for at in (0..self.len()).rev() {
            seen += self.count(at);
            if seen < keep {
                continue;
            }
            let skip = usize::try_from(seen - keep).unwrap_or(usize::MAX);
            if skip == 0 {
                return Ok(self.first_n(at).saturating_sub(1));
            }
            return match self.section(at) {
                Ok(section) => Ok(section.records().get(skip - 1).map_or(0, |record| record.n)),
                Err(EngineError::Damaged(_)) => Ok(self.first_n(at).saturating_sub(1)),
                Err(error) => Err(error),
            };
        }
        Ok(0)
    }

    fn section(&self, at: usize) -> Result<Section, EngineError> {
        match self.get(at) {
            Some(Piece::Stored(entry)) => self.disk.section(entry),
            Some(Piece::Waiting(section)) => Ok(section.clone()),
            None => Err(EngineError::Damaged("the index names a section that does not exist".to_owned())),
        }
    }
}

fn size(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
