//! The rooms that have members on one shard: who they are, this turn's bytes, and the log laggards read from.
//!
//! Invariants:
//! - a frame's bytes are appended once per room and turn, whatever the number of members;
//! - the log holds the bytes from the oldest cursor on, bounded by `log_bytes_max`; without cursors it holds nothing;
//! - a room lives while it has a member, a join under way, or a cursor into its log.

use std::collections::HashMap;

use bytestring::ByteString;
use indexmap::IndexSet;
use mesh::room::RoomKey;
use slab::Slab;

use crate::key::ConnKey;

/// Capacity a turn buffer may keep when the room is quiet again.
const TURN_BYTES_KEPT: usize = 16 * 1024;

/// A room of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RoomId(usize);

/// Part of a turn that some names must not get.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) except: Vec<ByteString>,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// One room of this shard.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    pub(crate) members: IndexSet<ConnKey>,
    /// Joins of this shard that the slot has not answered: while there are any, the slot is not told that we left.
    pub(crate) joining: usize,
    pub(crate) turn: Turn,
    /// Position in the room's stream of bytes where the turn starts.
    position: u64,
    log: Vec<u8>,
    log_start: u64,
    cursors: usize,
}

impl Room {
    /// Whether this is the room that every socket of a namespace is in.
    pub(crate) fn is_namespace(&self) -> bool {
        self.key.room().is_empty()
    }
}

/// What a room's members get at the end of this turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: u64,
    pub(crate) skips: Vec<Skip>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Slab<Room>,
    by_key: HashMap<RoomKey, RoomId>,
    dirty: Vec<RoomId>,
    log_bytes_max: usize,
}

impl Rooms {
    /// No rooms; a laggard further behind than `log_bytes_max` cannot catch up any more.
    pub(crate) fn new(log_bytes_max: usize) -> Rooms {
        Rooms { log_bytes_max, ..Rooms::default() }
    }

    /// Rooms of this shard, those of whole namespaces left out.
    pub(crate) fn count(&self) -> usize {
        self.rooms.iter().filter(|(_, room)| !room.is_namespace()).count()
    }

    /// The room, if anybody here is in it or joins it.
    pub(crate) fn find(&self, key: &RoomKey) -> Option<RoomId> {
        self.by_key.get(key).copied()
    }

    /// The room, made if need be.
    pub(crate) fn find_or_create(&mut self, key: &RoomKey) -> RoomId {
        if let Some(room) = self.find(key) {
            return room;
        }
        let id = RoomId(self.rooms.insert(Room {
            key: key.clone(),
            members: IndexSet::new(),
            joining: 0,
            turn: Turn::default(),
            position: 0,
            log: Vec::new(),
            log_start: 0,
            cursors: 0,
        }));
        self.by_key.insert(key.clone(), id);
        id
    }

    /// The room of a valid id.
    pub(crate) fn get(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(id.0)
    }

    /// The room of a valid id.
    pub(crate) fn get_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(id.0)
    }

    /// Adds a frame to the room's turn.
    pub(crate) fn append(&mut self, id: RoomId, payload: &[u8], except: &[ByteString]) {
        let Some(room) = self.rooms.get_mut(id.0) else { return };
        let turn = &mut room.turn;
        if turn.bytes.is_empty() {
            self.dirty.push(id);
        }
        let from = turn.bytes.len();
        turn.bytes.extend_from_slice(payload);
        turn.frames += 1;
        if !except.is_empty() {
            turn.skips.push(Skip { except: except.to_vec(), from, to: turn.bytes.len() });
        }
    }

    /// Rooms whose turn is not empty.
    pub(crate) fn take_dirty(&mut self) -> Vec<RoomId> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes the room's turn and the position its bytes start at.
    pub(crate) fn take_turn(&mut self, id: RoomId) -> Option<(Turn, u64)> {
        let room = self.rooms.get_mut(id.0)?;
        let turn = std::mem::take(&mut room.turn);
        let start = room.position;
        room.position += turn.bytes.len() as u64;
        (!turn.bytes.is_empty()).then_some((turn, start))
    }

    /// Ends a turn: keeps its bytes for the cursors (`new_cursors` more of them now) and its buffer for the next turn.
    pub(crate) fn end_turn(&mut self, id: RoomId, mut turn: Turn, start: u64, new_cursors: usize) {
        let log_bytes_max = self.log_bytes_max + turn.bytes.len();
        let Some(room) = self.rooms.get_mut(id.0) else { return };
        room.cursors += new_cursors;
        if room.cursors > 0 {
            if room.log.is_empty() {
                room.log_start = start;
            }
            room.log.extend_from_slice(&turn.bytes);
            // Trimmed in lumps: moving the rest down costs as much as it frees.
            if room.log.len() > 2 * log_bytes_max {
                let drop = room.log.len() - log_bytes_max;
                room.log.drain(..drop);
                room.log_start += drop as u64;
            }
        }
        if room.turn.bytes.is_empty() {
            turn.bytes.clear();
            turn.bytes.shrink_to(TURN_BYTES_KEPT);
            room.turn.bytes = turn.bytes;
        }
    }

    /// The log's bytes in `from..to`; `None` if it no longer goes back that far.
    pub(crate) fn log(&self, id: RoomId, from: u64, to: u64) -> Option<&[u8]> {
        let room = self.rooms.get(id.0)?;
        let start = usize::try_from(from.checked_sub(room.log_start)?).ok()?;
        let end = usize::try_from(to.checked_sub(room.log_start)?).ok()?;
        room.log.get(start..end)
    }

    /// One cursor less.
    pub(crate) fn release(&mut self, id: RoomId) {
        if let Some(room) = self.rooms.get_mut(id.0) {
            room.cursors = room.cursors.saturating_sub(1);
            if room.cursors == 0 {
                room.log = Vec::new();
            }
        }
        self.remove_if_unused(id);
    }

    /// Forgets the room if nothing keeps it.
    pub(crate) fn remove_if_unused(&mut self, id: RoomId) {
        let unused =
            self.rooms.get(id.0).is_some_and(|room| room.members.is_empty() && room.joining == 0 && room.cursors == 0);
        if unused {
            let room = self.rooms.remove(id.0);
            self.by_key.remove(&room.key);
            self.dirty.retain(|dirty| *dirty != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(rooms: &mut Rooms) -> RoomId {
        rooms.find_or_create(&RoomKey::new("/", "a"))
    }

    #[test]
    fn a_log_is_kept_only_while_a_cursor_needs_it() {
        let mut rooms = Rooms::new(1024);
        let id = room(&mut rooms);
        rooms.append(id, b"one", &[]);
        let (turn, start) = rooms.take_turn(id).unwrap();
        rooms.end_turn(id, turn, start, 1);
        assert_eq!(rooms.log(id, 1, 3), Some(&b"ne"[..]));
        rooms.release(id);
        assert!(rooms.find(&RoomKey::new("/", "a")).is_none(), "a room without members and cursors is forgotten");
    }

    #[test]
    fn a_cursor_that_fell_out_of_the_log_is_told_so() {
        let mut rooms = Rooms::new(8);
        let id = room(&mut rooms);
        for _ in 0..10 {
            rooms.append(id, b"12345678", &[]);
            let (turn, start) = rooms.take_turn(id).unwrap();
            rooms.end_turn(id, turn, start, 1);
        }
        assert_eq!(rooms.log(id, 0, 8), None);
        assert_eq!(rooms.log(id, 72, 80), Some(&b"12345678"[..]));
    }

    #[test]
    fn a_turn_appends_each_frame_once_and_remembers_whom_it_skips() {
        let mut rooms = Rooms::new(8);
        let id = room(&mut rooms);
        rooms.append(id, b"a", &[]);
        rooms.append(id, b"bc", &["me".into()]);
        let (turn, start) = rooms.take_turn(id).unwrap();
        assert_eq!((turn.bytes.as_slice(), turn.frames, start), (&b"abc"[..], 2, 0));
        assert_eq!((turn.skips[0].from, turn.skips[0].to), (1, 3));
    }
}
