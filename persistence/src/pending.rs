//! What was accepted and is not yet durable: blocks by room, and metas (pure).
//!
//! Invariants:
//! - Reads see it, so an append is visible before it is durable.
//! - It is emptied by [`Pending::clear`] after a successful sync and by nothing else: a failed commit is repeated whole.
//! - `cost` is the sum of what callers reserved for its content; whoever clears it gives that back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Record, block::Block};

/// Bookkeeping charged per record on top of its bytes, so that floods of empty records are bounded too.
const RECORD_OVERHEAD: usize = 96;

/// Bytes to reserve for one record.
pub(crate) fn cost_of(record: &Record) -> usize {
    RECORD_OVERHEAD + record.room.len() + record.body.len()
}

/// Bytes to reserve for one meta.
pub(crate) fn cost_of_meta(value: &Bytes) -> usize {
    RECORD_OVERHEAD + value.len()
}

/// Blocks under construction and their accounting.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    rooms: BTreeMap<(u16, Bytes), Vec<Block>>,
    meta: BTreeMap<u16, Bytes>,
    cost: usize,
    records: usize,
}

impl Pending {
    /// Adds a record to the open block of its room, or begins the next block.
    pub(crate) fn push(&mut self, record: Record) {
        self.cost += cost_of(&record);
        self.records += 1;
        let blocks = self.rooms.entry((record.slot, record.room.clone())).or_default();
        let refused = match blocks.last_mut() {
            Some(open) => open.push(record).err(),
            None => Some(record),
        };
        blocks.extend(refused.map(Block::new));
    }

    pub(crate) fn put_meta(&mut self, slot: u16, value: Bytes) {
        self.cost += cost_of_meta(&value);
        self.meta.insert(slot, value);
    }

    /// The blocks of one room, in order of arrival.
    pub(crate) fn room(&self, slot: u16, room: &Bytes) -> &[Block] {
        self.rooms.get(&(slot, room.clone())).map_or(&[], Vec::as_slice)
    }

    /// The blocks of every room, by room, in order of arrival.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &[Block]> {
        self.rooms.values().map(Vec::as_slice)
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.rooms.values().flatten()
    }

    pub(crate) fn meta(&self) -> &BTreeMap<u16, Bytes> {
        &self.meta
    }

    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    pub(crate) fn records(&self) -> usize {
        self.records
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cost == 0
    }

    /// Forgets everything and says what had been reserved for it.
    pub(crate) fn clear(&mut self) -> usize {
        std::mem::take(self).cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(slot: u16, n: u64) -> Record {
        Record { slot, room: Bytes::from_static(b"/\0a"), n, time_ms: 0, body: Bytes::from_static(b"xyz") }
    }

    #[test]
    fn records_of_a_room_share_a_block_until_one_does_not_follow() {
        let mut pending = Pending::default();
        [1, 2, 5, 3].into_iter().for_each(|n| pending.push(record(1, n)));
        pending.push(record(2, 4));
        let room = Bytes::from_static(b"/\0a");
        let numbers = |slot| pending.room(slot, &room).iter().map(|b| (b.first_n(), b.last_n())).collect::<Vec<_>>();
        assert_eq!(numbers(1), [(1, 5), (3, 3)]);
        assert_eq!(numbers(2), [(4, 4)]);
        assert_eq!(pending.records(), 5);
    }

    #[test]
    fn clearing_gives_back_exactly_what_was_charged() {
        let mut pending = Pending::default();
        pending.push(record(1, 1));
        pending.put_meta(1, Bytes::from_static(b"a"));
        pending.put_meta(1, Bytes::from_static(b"bb"));
        let charged =
            cost_of(&record(1, 1)) + cost_of_meta(&Bytes::from_static(b"a")) + cost_of_meta(&Bytes::from_static(b"bb"));
        assert_eq!(pending.clear(), charged);
        assert!(pending.is_empty());
    }
}
