//! The rooms that have members on one shard: who they are, this turn's bytes, and the logs laggards read from.
//!
//! Invariants:
//! - a room has a stream for each parser that its members use, and one without members costs nothing;
//! - a frame's bytes are made and appended once per stream and turn, whatever the number of members;
//! - a log holds the bytes from its oldest cursor on, bounded by `log_bytes_max`; without cursors it holds nothing;
//! - a room lives while it has a member, a join under way, or a cursor into one of its logs.

use std::{collections::HashMap, ops::Range};

use bytes::Bytes;
use bytestring::ByteString;
use indexmap::IndexSet;
use mesh::room::RoomKey;
use protocol::socketio::{Parser, TranscodeError, transcode};
use slab::Slab;

use crate::key::ConnKey;

/// Capacity a turn buffer may keep when the room is quiet again.
const TURN_BYTES_KEPT: usize = 16 * 1024;

/// What the key of a room for notices has in front of the room's name: no client can say it.
const NOTICES: char = '\u{1}';

/// A room of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RoomId(usize);

/// What a room says to those of its members that use one parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId {
    pub(crate) room: RoomId,
    pub(crate) parser: Parser,
}

/// Part of a turn that some names must not get.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) except: Vec<ByteString>,
    pub(crate) bytes: Range<usize>,
}

/// One room of this shard.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) key: RoomKey,
    /// Joins of this shard that the slot has not answered: while there are any, the slot is not told that we left.
    pub(crate) joining: usize,
    json: Stream,
    /// There while it has members or cursors.
    msgpack: Option<Box<Stream>>,
    /// The room of those who are told who comes and goes, while there is one.
    notices: Option<RoomId>,
}

/// One stream of a room.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) members: IndexSet<ConnKey>,
    turn: Turn,
    /// Where in all the stream's bytes the turn starts.
    position: u64,
    log: Vec<u8>,
    log_start: u64,
    cursors: usize,
}

/// What a stream's members get at the end of this turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: u64,
    pub(crate) skips: Vec<Skip>,
}

impl Room {
    fn new(key: RoomKey) -> Room {
        Room { key, joining: 0, json: Stream::default(), msgpack: None, notices: None }
    }

    /// Whether clients know it as a room of theirs: no name of theirs is empty or begins with a control character.
    fn is_named(&self) -> bool {
        !self.is_namespace() && !self.is_notices()
    }

    fn is_notices(&self) -> bool {
        self.key.room().starts_with(NOTICES)
    }

    /// Whether this is the room that every socket of a namespace is in.
    pub(crate) fn is_namespace(&self) -> bool {
        self.key.room().is_empty()
    }

    /// Its members, whatever their parser.
    pub(crate) fn members(&self) -> impl Iterator<Item = &ConnKey> {
        self.json.members.iter().chain(self.msgpack.iter().flat_map(|stream| &stream.members))
    }

    /// Whether nobody is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.members().next().is_none()
    }

    /// Whether a connection is in it.
    pub(crate) fn contains(&self, member: &ConnKey) -> bool {
        Parser::ALL.into_iter().any(|parser| self.stream(parser).is_some_and(|stream| stream.members.contains(member)))
    }

    /// Takes in a connection that uses `parser`; whether it is new.
    pub(crate) fn insert(&mut self, member: ConnKey, parser: Parser) -> bool {
        let stream = match parser {
            Parser::Json => &mut self.json,
            Parser::MsgPack => self.msgpack.get_or_insert_default(),
        };
        stream.members.insert(member)
    }

    /// Lets a connection go; whether it was in.
    pub(crate) fn remove(&mut self, member: &ConnKey) -> bool {
        let was = Parser::ALL
            .into_iter()
            .any(|parser| self.stream_mut(parser).is_some_and(|stream| stream.members.swap_remove(member)));
        self.end_unused_streams();
        was
    }

    /// The stream of `parser`, if it has members or cursors.
    pub(crate) fn stream(&self, parser: Parser) -> Option<&Stream> {
        match parser {
            Parser::Json => Some(&self.json),
            Parser::MsgPack => self.msgpack.as_deref(),
        }
    }

    fn stream_mut(&mut self, parser: Parser) -> Option<&mut Stream> {
        match parser {
            Parser::Json => Some(&mut self.json),
            Parser::MsgPack => self.msgpack.as_deref_mut(),
        }
    }

    fn end_unused_streams(&mut self) {
        self.msgpack.take_if(|stream| stream.members.is_empty() && stream.cursors == 0);
    }

    fn is_unused(&self) -> bool {
        self.joining == 0 && self.is_empty() && self.json.cursors == 0 && self.msgpack.is_none()
    }
}

impl Turn {
    fn push(&mut self, payload: &[u8], except: &[ByteString]) {
        let from = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.frames += 1;
        if !except.is_empty() {
            self.skips.push(Skip { except: except.to_vec(), bytes: from..self.bytes.len() });
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Slab<Room>,
    by_key: HashMap<RoomKey, RoomId>,
    dirty: Vec<StreamId>,
    log_bytes_max: usize,
}

impl Rooms {
    /// No rooms; a laggard further behind than `log_bytes_max` cannot catch up any more.
    pub(crate) fn new(log_bytes_max: usize) -> Rooms {
        Rooms { log_bytes_max, ..Rooms::default() }
    }

    /// Rooms of this shard, those of whole namespaces left out.
    pub(crate) fn count(&self) -> usize {
        self.rooms.iter().filter(|(_, room)| room.is_named()).count()
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
        let id = RoomId(self.rooms.insert(Room::new(key.clone())));
        self.by_key.insert(key.clone(), id);
        id
    }

    /// The room beside `id` whose members are told who comes to it and leaves it.
    pub(crate) fn notices_of(&self, id: RoomId) -> Option<RoomId> {
        self.get(id)?.notices
    }

    /// As `notices_of`, made if need be.
    pub(crate) fn notices_or_create(&mut self, id: RoomId) -> Option<RoomId> {
        let key = &self.get(id)?.key;
        let key = RoomKey::new(key.namespace(), &format!("{NOTICES}{}", key.room()));
        let notices = self.find_or_create(&key);
        self.get_mut(id)?.notices = Some(notices);
        Some(notices)
    }

    /// The room of a valid id.
    pub(crate) fn get(&self, id: RoomId) -> Option<&Room> {
        self.rooms.get(id.0)
    }

    /// The room of a valid id.
    pub(crate) fn get_mut(&mut self, id: RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(id.0)
    }

    fn stream(&self, id: StreamId) -> Option<&Stream> {
        self.get(id.room)?.stream(id.parser)
    }

    fn stream_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.get_mut(id.room)?.stream_mut(id.parser)
    }

    /// Adds a frame to the turn of each stream that has members.
    ///
    /// # Errors
    /// The payload is none of ours and cannot be written for every parser; members with JSON get it all the same.
    pub(crate) fn append(&mut self, id: RoomId, payload: &Bytes, except: &[ByteString]) -> Result<(), TranscodeError> {
        let Some(room) = self.rooms.get_mut(id.0) else { return Ok(()) };
        for parser in Parser::ALL {
            let Some(stream) = room.stream_mut(parser).filter(|stream| !stream.members.is_empty()) else { continue };
            let first = stream.turn.bytes.is_empty();
            match parser {
                Parser::Json => stream.turn.push(payload, except),
                Parser::MsgPack => stream.turn.push(&transcode(payload, parser)?, except),
            }
            if first {
                self.dirty.push(StreamId { room: id, parser });
            }
        }
        Ok(())
    }

    /// Streams whose turn is not empty.
    pub(crate) fn take_dirty(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes the stream's turn and the position its bytes start at.
    pub(crate) fn take_turn(&mut self, id: StreamId) -> Option<(Turn, u64)> {
        let stream = self.stream_mut(id)?;
        let turn = std::mem::take(&mut stream.turn);
        let start = stream.position;
        stream.position += turn.bytes.len() as u64;
        (!turn.bytes.is_empty()).then_some((turn, start))
    }

    /// Ends a turn: keeps its bytes for the cursors (`new_cursors` more of them now) and its buffer for the next turn.
    pub(crate) fn end_turn(&mut self, id: StreamId, mut turn: Turn, start: u64, new_cursors: usize) {
        let log_bytes_max = self.log_bytes_max + turn.bytes.len();
        let Some(stream) = self.stream_mut(id) else { return };
        stream.cursors += new_cursors;
        if stream.cursors > 0 {
            if stream.log.is_empty() {
                stream.log_start = start;
            }
            stream.log.extend_from_slice(&turn.bytes);
            // Trimmed in lumps: moving the rest down costs as much as it frees.
            if stream.log.len() > 2 * log_bytes_max {
                let drop = stream.log.len() - log_bytes_max;
                stream.log.drain(..drop);
                stream.log_start += drop as u64;
            }
        }
        if stream.turn.bytes.is_empty() {
            turn.bytes.clear();
            turn.bytes.shrink_to(TURN_BYTES_KEPT);
            stream.turn.bytes = turn.bytes;
        }
    }

    /// The log's bytes in `from..to`; `None` if it no longer goes back that far.
    pub(crate) fn log(&self, id: StreamId, from: u64, to: u64) -> Option<&[u8]> {
        let stream = self.stream(id)?;
        let start = usize::try_from(from.checked_sub(stream.log_start)?).ok()?;
        let end = usize::try_from(to.checked_sub(stream.log_start)?).ok()?;
        stream.log.get(start..end)
    }

    /// One cursor less.
    pub(crate) fn release(&mut self, id: StreamId) {
        if let Some(stream) = self.stream_mut(id) {
            stream.cursors = stream.cursors.saturating_sub(1);
            if stream.cursors == 0 {
                stream.log = Vec::new();
            }
        }
        if let Some(room) = self.get_mut(id.room) {
            room.end_unused_streams();
        }
        self.remove_if_unused(id.room);
    }

    /// Forgets the room if nothing keeps it.
    pub(crate) fn remove_if_unused(&mut self, id: RoomId) {
        if self.get(id).is_some_and(Room::is_unused) {
            let room = self.rooms.remove(id.0);
            self.by_key.remove(&room.key);
            if let Some(beside) = room.key.room().strip_prefix(NOTICES)
                && let Some(beside) = self.find(&RoomKey::new(room.key.namespace(), beside))
                && let Some(beside) = self.get_mut(beside)
            {
                beside.notices = None;
            }
            self.dirty.retain(|dirty| dirty.room != id);
        }
    }
}

#[cfg(test)]
mod tests;
