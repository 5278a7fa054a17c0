//! What this shard gives to the store and asks it.
//!
//! Invariants: the store hears everything in the order of the slots' outputs: what a turn appended goes there before it is
//! asked to read, to scan or to forget; it never waits for the store.

use std::sync::Arc;

use mesh::{
    slot::{Found, Scanned},
    wire::message::Frame,
};
use persistence::{Cursor, Query, Record, Status};

use super::Gateway;
use crate::{clock, context::STORE_QUEUE_BYTES, message::Message, metrics::DropReason};

/// Bytes of a slot's history in one part of its scan.
const SCAN_BYTES_MAX: usize = 256 * 1024;
/// Bytes given to the store at once.
const APPEND_BYTES: usize = 1024 * 1024;

impl Gateway {
    /// Gives the store what was stamped since.
    pub(super) fn keep(&mut self) {
        if self.appends.is_empty() {
            return;
        }
        self.tally.appends += self.appends.len() as u64;
        for records in in_chunks(std::mem::take(&mut self.appends)) {
            let lost = records.len();
            if let Err(error) = self.context.store.append(records) {
                // Publishes are refused long before the queue is full (`look_at_store`), also while the disk is away:
                // this is a turn that filled half of it, and what is lost was live but is in no history.
                tracing::error!(%error, lost, "history was not kept");
                self.tally.dropped.extend(std::iter::repeat_n(DropReason::Store, lost));
            }
        }
    }

    /// Whether new messages can be kept: the disk works, and its queue has room for all that may be on its way to it. Asked
    /// before every input: at the end of a turn it would be old for whoever comes next.
    pub(crate) fn look_at_store(&mut self) {
        let store = &self.context.store;
        let takes_more = store.status() == Status::Ok && store.queued_bytes() < STORE_QUEUE_BYTES / 2;
        self.slots.set_storage(takes_more);
    }

    /// Reads history. What was stamped this turn is appended first, so that a read sees it.
    pub(super) fn read(&mut self, read: u64, query: Query) {
        self.keep();
        let back = self.context.shards[usize::from(self.shard)].clone();
        let asked = self.context.store.read(query, move |page| {
            let found = page.ok().map(|page| {
                let frames: Vec<Arc<Frame>> = page.records.into_iter().filter_map(frame).collect();
                Found { frames, more: page.more }
            });
            back.send(Message::Read { read, found });
        });
        if let Err(error) = asked {
            tracing::warn!(%error, "history was not read");
            self.slots.handle_read(read, None, clock::wall_ms());
        }
    }

    /// Reads a part of all that is kept of a slot, what was stamped this turn included.
    pub(super) fn scan(&mut self, scan: u64, slot: u16, after: u64) {
        self.keep();
        let back = self.context.shards[usize::from(self.shard)].clone();
        let asked = self.context.store.scan_slot(slot, Cursor::from(after), SCAN_BYTES_MAX, move |page| {
            let scanned = page.ok().map(|page| {
                let frames: Vec<Arc<Frame>> = page.records.into_iter().filter_map(frame).collect();
                Scanned { frames, next: page.next.map_or(0, u64::from) }
            });
            back.send(Message::Scanned { scan, scanned });
        });
        if let Err(error) = asked {
            tracing::warn!(%error, slot, "a slot was not read");
            self.slots.handle_scanned(scan, None, clock::now(), clock::wall_ms());
        }
    }

    /// Forgets all that is kept of a slot. What was appended before goes to the store before, so that it is forgotten too.
    pub(super) fn forget_slot(&mut self, slot: u16) {
        self.keep();
        if let Err(error) = self.context.store.forget_slot(slot) {
            tracing::error!(%error, slot, "history that does not hold any more was not forgotten");
        }
    }
}

/// Batches the store takes whole or not at all, each far below what its queue holds.
fn in_chunks(records: Vec<Record>) -> Vec<Vec<Record>> {
    let mut chunks: Vec<Vec<Record>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        if bytes >= APPEND_BYTES {
            chunks.push(Vec::new());
            bytes = 0;
        }
        bytes += record.body.len();
        if let Some(chunk) = chunks.last_mut() {
            chunk.push(record);
        }
    }
    chunks
}

pub(super) fn record(frame: &Frame, body: bytes::Bytes) -> Record {
    Record { slot: frame.slot, room: frame.room.as_bytes().clone(), n: frame.n, time_ms: frame.time_ms, body }
}

/// A record that does not decode was checked by the store's sum: it is of another version, and is passed over.
fn frame(record: Record) -> Option<Arc<Frame>> {
    Frame::decode(record.body).ok().map(Arc::new)
}

#[cfg(test)]
mod tests;
