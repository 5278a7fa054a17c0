//! What was accepted and is not yet durable: sections by room, and metas (pure).
//!
//! Invariants:
//! - Reads see it, so an append is visible before it is durable.
//! - What is forgotten is not in it any more; the mark that forgets what was written before stands before what came later.
//! - It is emptied by [`Pending::clear`] after a successful sync and by nothing else: a failed commit is repeated whole.
//! - `cost` is the sum of what callers reserved for its content; whoever clears it gives that back.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Record, section::Section};

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

/// Bytes to reserve for forgetting a room; with an empty one, its slot.
pub(crate) fn cost_of_mark(room: &Bytes) -> usize {
    RECORD_OVERHEAD + room.len()
}

/// What waits of one room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waiting<'a> {
    /// What was written of it before is forgotten.
    pub(crate) forgets: bool,
    /// Its records, in order of arrival.
    pub(crate) sections: &'a [Section],
}

/// Sections under construction and their accounting.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Marks that forget a slot are at its empty room, so that they come before all its others.
    rooms: BTreeMap<(u16, Bytes), Vec<Section>>,
    meta: BTreeMap<u16, Bytes>,
    cost: usize,
    records: usize,
}

impl Pending {
    /// Adds a record to the open section of its room, or begins the next one.
    pub(crate) fn push(&mut self, record: Record) {
        self.cost += cost_of(&record);
        self.records += 1;
        let sections = self.rooms.entry((record.slot, record.room.clone())).or_default();
        let refused = match sections.last_mut() {
            Some(open) if !open.is_mark() => open.push(record).err(),
            Some(_) | None => Some(record),
        };
        sections.extend(refused.map(Section::new));
    }

    /// Forgets what is here of a room, and remembers to forget the rest.
    pub(crate) fn forget(&mut self, slot: u16, room: Bytes) {
        self.cost += cost_of_mark(&room);
        let mark = Section::mark(slot, room.clone());
        self.rooms.insert((slot, room), vec![mark]);
    }

    /// Forgets what is here of a slot, and remembers to forget the rest.
    pub(crate) fn forget_slot(&mut self, slot: u16) {
        self.rooms.retain(|(of, _), _| *of != slot);
        self.forget(slot, Bytes::new());
    }

    pub(crate) fn put_meta(&mut self, slot: u16, value: Bytes) {
        self.cost += cost_of_meta(&value);
        self.meta.insert(slot, value);
    }

    /// What waits of one room.
    pub(crate) fn room(&self, slot: u16, room: &Bytes) -> Waiting<'_> {
        let sections = self.rooms.get(&(slot, room.clone())).map_or(&[][..], Vec::as_slice);
        match sections.split_first() {
            Some((mark, sections)) if mark.is_mark() => Waiting { forgets: true, sections },
            Some(_) | None => Waiting { forgets: self.rooms.contains_key(&(slot, Bytes::new())), sections },
        }
    }

    /// All sections: by room, in order of arrival.
    pub(crate) fn sections(&self) -> impl Iterator<Item = &Section> {
        self.rooms.values().flatten()
    }

    pub(crate) fn meta(&self) -> &BTreeMap<u16, Bytes> {
        &self.meta
    }

    pub(crate) fn cost(&self) -> usize {
        self.cost
    }

    /// Records accepted, those forgotten again included.
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

    fn numbers(pending: &Pending, slot: u16) -> Vec<(u64, u64)> {
        pending.room(slot, &Bytes::from_static(b"/\0a")).sections.iter().map(|s| (s.first_n(), s.last_n())).collect()
    }

    #[test]
    fn records_of_a_room_share_a_section_until_one_does_not_follow() {
        let mut pending = Pending::default();
        [1, 2, 5, 3].into_iter().for_each(|n| pending.push(record(1, n)));
        pending.push(record(2, 4));
        assert_eq!(numbers(&pending, 1), [(1, 5), (3, 3)]);
        assert_eq!(numbers(&pending, 2), [(4, 4)]);
        assert_eq!(pending.records(), 5);
    }

    #[test]
    fn a_mark_takes_what_came_before_it_and_stands_alone() {
        let mut pending = Pending::default();
        pending.push(record(1, 1));
        pending.forget(1, Bytes::from_static(b"/\0a"));
        pending.push(record(1, 2));
        assert_eq!(numbers(&pending, 1), [(2, 2)]);
        assert!(pending.room(1, &Bytes::from_static(b"/\0a")).forgets);
        assert!(!pending.room(1, &Bytes::from_static(b"/\0b")).forgets, "another room");
    }

    #[test]
    fn the_mark_of_a_slot_takes_all_its_rooms_and_stands_before_what_comes_later() {
        let mut pending = Pending::default();
        let other = Bytes::from_static(b"/\0b");
        pending.push(record(1, 1));
        pending.push(Record { room: other.clone(), ..record(1, 2) });
        pending.push(record(2, 3));
        pending.forget(1, other.clone());
        pending.forget_slot(1);
        pending.push(record(1, 4));
        assert_eq!(numbers(&pending, 1), [(4, 4)]);
        let waiting = pending.room(1, &other);
        assert!(waiting.forgets && waiting.sections.is_empty());
        let order: Vec<_> = pending.sections().map(|s| (s.slot(), s.is_mark(), s.room().len())).collect();
        assert_eq!(order, [(1, true, 0), (1, false, 3), (2, false, 3)]);
        assert!(!pending.room(2, &other).forgets, "another slot's");
    }

    #[test]
    fn clearing_gives_back_exactly_what_was_charged() {
        let mut pending = Pending::default();
        let room = Bytes::from_static(b"/\0a");
        pending.push(record(1, 1));
        pending.put_meta(1, Bytes::from_static(b"a"));
        pending.put_meta(1, Bytes::from_static(b"bb"));
        pending.forget(1, room.clone());
        let metas = cost_of_meta(&Bytes::from_static(b"a")) + cost_of_meta(&Bytes::from_static(b"bb"));
        assert_eq!(pending.clear(), cost_of(&record(1, 1)) + metas + cost_of_mark(&room));
        assert!(pending.is_empty());
    }
}
