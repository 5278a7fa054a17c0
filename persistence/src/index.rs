//! Where every room's sections are (pure): what makes one block per commit readable by room.
//!
//! Invariants:
//! - A room's entries stand in the order of writing. As long as its numbers rise they are in the order of numbers too;
//!   once one did not, the room is marked and read as a whole.
//! - An entry is here if and only if its section is kept: retention takes entries from the front, forgetting takes all.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::key::BlockId;

/// Memory that one section costs here; it counts against the budget of bytes.
pub(crate) const ENTRY_BYTES: u64 = 32;

/// One section of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) block: BlockId,
    pub(crate) first_n: u64,
    pub(crate) place: u32,
    pub(crate) count: u16,
}

/// The sections of one room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub(crate) entries: VecDeque<Entry>,
    /// The highest number so far.
    pub(crate) last_n: u64,
    /// Records in all entries.
    pub(crate) count: u64,
    /// A number came that was not above all before it.
    pub(crate) overlaps: bool,
}

/// The sections of all rooms.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashMap<u16, HashMap<Bytes, Room>>,
}

impl Index {
    pub(crate) fn room(&self, slot: u16, room: &[u8]) -> Option<&Room> {
        self.slots.get(&slot)?.get(room)
    }

    /// Adds a section that was written after all that are here.
    pub(crate) fn add(&mut self, slot: u16, room: &[u8], entry: Entry, last_n: u64) {
        let rooms = self.slots.entry(slot).or_default();
        if !rooms.contains_key(room) {
            // A copy of its own: a slice would keep alive whatever it is a slice of.
            rooms.insert(Bytes::copy_from_slice(room), Room::default());
        }
        let Some(room) = rooms.get_mut(room) else { return };
        room.overlaps |= entry.first_n <= room.last_n && !room.entries.is_empty();
        room.last_n = room.last_n.max(last_n);
        room.count += u64::from(entry.count);
        room.entries.push_back(entry);
    }

    pub(crate) fn forget_slot(&mut self, slot: u16) {
        self.slots.remove(&slot);
    }

    pub(crate) fn forget(&mut self, slot: u16, room: &[u8]) {
        if let Some(rooms) = self.slots.get_mut(&slot) {
            rooms.remove(room);
        }
    }

    /// Whether the section at this place is kept.
    pub(crate) fn holds(&self, slot: u16, room: &[u8], block: BlockId, place: u32) -> bool {
        self.room(slot, room).is_some_and(|room| {
            let at = room.entries.partition_point(|entry| (entry.block, entry.place) < (block, place));
            room.entries.get(at).is_some_and(|entry| (entry.block, entry.place) == (block, place))
        })
    }

    /// The blocks behind `after` that hold something of the slot, in the order of writing.
    pub(crate) fn blocks_after(&self, slot: u16, after: BlockId) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        for room in self.slots.get(&slot).into_iter().flat_map(HashMap::values) {
            let from = room.entries.partition_point(|entry| entry.block <= after);
            blocks.extend(room.entries.range(from..).map(|entry| entry.block));
        }
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Lets go of everything in blocks up to `block`.
    pub(crate) fn drop_through(&mut self, block: BlockId) {
        self.slots.retain(|_, rooms| {
            rooms.retain(|_, room| {
                while let Some(entry) = room.entries.pop_front_if(|entry| entry.block <= block) {
                    room.count -= u64::from(entry.count);
                }
                !room.entries.is_empty()
            });
            !rooms.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(block: u64, first_n: u64) -> Entry {
        Entry { block: BlockId(block), first_n, place: 9, count: 2 }
    }

    #[test]
    fn a_room_is_in_order_until_a_number_is_not_above_all_before_it() {
        let mut index = Index::default();
        index.add(1, b"a", entry(1, 5), 6);
        index.add(1, b"a", entry(2, 7), 8);
        assert!(!index.room(1, b"a").unwrap().overlaps);
        index.add(1, b"a", entry(3, 8), 9);
        let room = index.room(1, b"a").unwrap();
        assert_eq!((room.overlaps, room.last_n, room.count), (true, 9, 6));
        assert!(index.room(2, b"a").is_none() && index.room(1, b"b").is_none());
    }

    #[test]
    fn dropped_blocks_take_their_sections_and_empty_rooms_along() {
        let mut index = Index::default();
        index.add(1, b"a", entry(1, 5), 6);
        index.add(1, b"a", entry(2, 7), 8);
        index.add(3, b"b", entry(1, 1), 2);
        index.drop_through(BlockId(1));
        assert_eq!(index.room(1, b"a").unwrap().entries, [entry(2, 7)]);
        assert_eq!(index.room(1, b"a").unwrap().count, 2);
        assert!(index.slots.keys().eq([&1]));
    }

    #[test]
    fn a_slot_knows_its_blocks_and_a_forgotten_one_has_none() {
        let mut index = Index::default();
        index.add(1, b"a", entry(2, 5), 6);
        index.add(1, b"b", entry(1, 1), 2);
        index.add(1, b"b", entry(2, 7), 8);
        index.add(2, b"b", entry(3, 9), 9);
        assert_eq!(index.blocks_after(1, BlockId(0)), [BlockId(1), BlockId(2)]);
        assert_eq!(index.blocks_after(1, BlockId(1)), [BlockId(2)]);
        index.forget_slot(1);
        assert_eq!(index.blocks_after(1, BlockId(0)), []);
        assert_eq!(index.blocks_after(2, BlockId(0)), [BlockId(3)], "another slot keeps its own");
    }

    #[test]
    fn a_forgotten_room_holds_only_what_came_after() {
        let mut index = Index::default();
        index.add(1, b"a", entry(1, 5), 6);
        index.forget(1, b"a");
        assert!(!index.holds(1, b"a", BlockId(1), 9));
        index.add(1, b"a", entry(2, 3), 4);
        assert!(index.holds(1, b"a", BlockId(2), 9) && !index.holds(1, b"a", BlockId(2), 8));
        assert!(!index.room(1, b"a").unwrap().overlaps, "what is forgotten is not compared with");
    }
}
