//! The hot path: what a room's turn has for all of its members here, one write each.
//!
//! Invariants: per member there is one look-up and one system call, nothing is allocated, queued or woken; only a member
//! that lags, polls, or is left out of part of the turn costs more; nobody is removed while the members are walked.

use std::{collections::HashMap, ops::Range, rc::Rc};

use bytes::Bytes;
use mesh::room::RoomKey;
use protocol::{
    engine::{Message, frame, session::CloseReason},
    socketio::Parser,
};
use smallvec::SmallVec;

use super::{Gateway, Task, turn::READ_BYTES_MAX};
use crate::{
    key::ConnKey,
    metrics::DropReason,
    room::{Room, RoomId, Rooms, Skip, Stream, StreamId, Turn},
    wire::{Line, Next, Wire},
};

/// Parts of a turn that one member must not get.
type Skipped = SmallVec<[Range<usize>; 2]>;

impl Gateway {
    /// Delivers every room's turn.
    pub(super) fn deliver_rooms(&mut self) {
        for stream in self.rooms.take_dirty() {
            self.deliver_stream(stream);
        }
    }

    /// Delivers one room's turn now, if it has one.
    pub(super) fn deliver_room(&mut self, room: RoomId) {
        for parser in Parser::ALL {
            self.deliver_stream(StreamId { room, parser });
        }
    }

    fn deliver_stream(&mut self, id: StreamId) {
        let Some((turn, start)) = self.rooms.take_turn(id) else { return };
        let Some(room) = self.rooms.get(id.room) else { return };
        let Some(stream) = room.stream(id.parser) else { return };
        let skips = self.who_skips(room, stream, &turn);
        let mut polled: Option<Vec<(usize, Message)>> = None;
        let mut cursors = 0;
        let queue_bytes_max = self.context.config.limits.queue_bytes.bytes();
        self.tally.deliveries += turn.frames * stream.members.len() as u64;
        for key in &stream.members {
            let Some(connection) = self.connections.get_mut(*key) else { continue };
            let skipped = if skips.is_empty() { None } else { skips.get(key) };
            if let (None, Some(wire)) = (skipped, connection.direct()) {
                let (next, cursor) = wire.write_turn((id, start, &turn.bytes), queue_bytes_max, &mut self.tally);
                cursors += usize::from(cursor);
                follow(*key, next, &mut self.tasks, &mut self.broken);
                continue;
            }
            self.tally.deliveries -= skipped.map_or(0, |skipped| skipped.len() as u64);
            if let Some(wire) = connection.direct() {
                put_pieces(wire, &turn.bytes, skipped.map_or(&[], |skipped| skipped.as_slice()));
            } else {
                let messages = polled.get_or_insert_with(|| split(&turn.bytes));
                let wanted = |at: usize| skipped.is_none_or(|skipped| !skipped.iter().any(|bytes| bytes.contains(&at)));
                for (_, message) in messages.iter().filter(|(at, _)| wanted(*at)) {
                    connection.session.send(message.clone());
                }
                if connection.session.buffered_bytes() > queue_bytes_max + READ_BYTES_MAX {
                    self.broken.push((*key, CloseReason::SlowConsumer));
                }
            }
            if !std::mem::replace(&mut connection.dirty, true) {
                self.dirty.push(*key);
            }
        }
        self.rooms.end_turn(id, turn, start, cursors);
    }

    /// Which members must not get which parts of the turn.
    fn who_skips(&self, room: &Room, stream: &Stream, turn: &Turn) -> HashMap<ConnKey, Skipped> {
        let mut skips: HashMap<ConnKey, Skipped> = HashMap::new();
        for Skip { except, bytes } in &turn.skips {
            let mut skip = |key: &ConnKey| {
                if stream.members.contains(key) {
                    skips.entry(*key).or_default().push(bytes.clone());
                }
            };
            for name in except {
                match self.sockets.get(name) {
                    // The same connection may be here as another socket, of another namespace.
                    Some(key) if self.is_called(*key, room.key.namespace(), name) => skip(key),
                    Some(_) => {}
                    None => members_of(&self.rooms, room.key.namespace(), name).for_each(&mut skip),
                }
            }
        }
        skips.values_mut().for_each(|skipped| skipped.dedup());
        skips
    }

    fn is_called(&self, key: ConnKey, namespace: &str, id: &str) -> bool {
        self.connections
            .get(key)
            .and_then(|connection| connection.socket(namespace))
            .is_some_and(|socket| socket.id == id)
    }

    /// Ends the turn of every connection that was given something.
    pub(super) fn flush_connections(&mut self, now: std::time::Instant) {
        for key in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.dirty = false;
            if connection.polls() {
                self.drive(key, now);
            }
            self.flush_connection(key);
        }
        while let Some((key, reason)) = self.broken.pop() {
            if reason == CloseReason::TransportError {
                self.lose_websocket(key, false, now);
            } else if self.connections.get(key).is_some() {
                self.tally.dropped.push(DropReason::SlowConsumer);
                self.close(key, reason, now);
            }
        }
    }

    /// Writes what waits for one connection now, or notes that it lags.
    pub(super) fn flush_connection(&mut self, key: ConnKey) {
        let queue_bytes_max = self.context.config.limits.queue_bytes.bytes();
        if let Some(wire) = self.connections.get_mut(key).and_then(|connection| connection.wire.as_mut()) {
            let next = wire.flush(queue_bytes_max, &mut self.tally);
            follow(key, next, &mut self.tasks, &mut self.broken);
        }
    }

    /// The kernel takes bytes of this WebSocket again; whether it still lags.
    pub(crate) fn handle_writable(&mut self, key: ConnKey, line: &Rc<Line>) -> bool {
        let queue_bytes_max = self.context.config.limits.queue_bytes.bytes();
        let Some(wire) = self.connections.get_mut(key).and_then(|connection| connection.wire.as_mut()) else {
            return false;
        };
        if !wire.is(line) {
            return false;
        }
        let next = wire.catch_up(&mut self.rooms, queue_bytes_max, &mut self.tally);
        let go_on = matches!(next, Next::Nothing) && wire.lags();
        follow(key, next, &mut self.tasks, &mut self.broken);
        go_on
    }
}

/// Notes what has to follow a write. Connections are closed when nobody walks over members any more.
fn follow(key: ConnKey, next: Next, tasks: &mut Vec<Task>, broken: &mut Vec<(ConnKey, CloseReason)>) {
    match next {
        Next::Nothing => {}
        Next::Await(line) => tasks.push(Task::AwaitWritable(key, line)),
        Next::Behind => broken.push((key, CloseReason::SlowConsumer)),
        Next::Lost => broken.push((key, CloseReason::TransportError)),
    }
}

fn members_of<'a>(rooms: &'a Rooms, namespace: &str, name: &str) -> impl Iterator<Item = &'a ConnKey> {
    rooms.find(&RoomKey::new(namespace, name)).and_then(|id| rooms.get(id)).into_iter().flat_map(Room::members)
}

/// The parts of a turn that are not skipped, as this member's own bytes. `skipped` rises and does not overlap.
fn put_pieces(wire: &mut Wire, turn: &[u8], skipped: &[Range<usize>]) {
    let mut at = 0;
    for bytes in skipped {
        wire.own().extend_from_slice(&turn[at..bytes.start]);
        at = bytes.end;
    }
    wire.own().extend_from_slice(&turn[at..]);
}

/// A turn's messages and where each starts, for members that poll.
fn split(turn: &[u8]) -> Vec<(usize, Message)> {
    let bytes = Bytes::copy_from_slice(turn);
    let mut messages = frame::messages(&bytes);
    let mut split = Vec::new();
    loop {
        let at = bytes.len() - messages.remaining();
        match messages.next() {
            Some(Ok(message)) => split.push((at, message)),
            // The payload came from a peer that does not frame as we do: what is left of this turn cannot be read.
            Some(Err(_)) | None => return split,
        }
    }
}
