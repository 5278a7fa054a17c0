//! One socket by its id, wherever it is: events for it alone, answers to it, and calls that other threads make about it.
//!
//! Invariants: the id says which node and which shard, so nothing is looked up elsewhere and no room is made; what is meant
//! for a socket that is gone goes nowhere.

use std::time::Instant;

use mesh::{LANES, NodeId, wire::direct::Direct};
use protocol::{
    socket_id::{self, Place},
    socketio::{Args, Packet, Parser},
};

use super::{Asker, Gateway, orders::nobody};
use crate::{
    connection::Connection,
    handler::{Ack, Node, Socket},
    message::Message,
    metrics::DropReason,
};

/// Something to do with a socket on its own thread.
pub(crate) type Errand = Box<dyn FnOnce(&mut Socket<'_>) + Send>;

impl Gateway {
    /// Where the socket is whose id this is; `None` if no socket was ever called this.
    pub(crate) fn place_of(&self, name: &str) -> Option<Place> {
        self.context.sid_keys.find(|key| socket_id::place(name, key))
    }

    /// Gives a payload to a socket, here or elsewhere.
    pub(super) fn reach(&mut self, place: Place, direct: Direct) {
        if place.node != self.context.node.0 {
            self.sends.push((NodeId(place.node), place.shard % LANES, direct.encode()));
        } else if place.shard == self.shard {
            self.handle_direct(&direct);
        } else {
            self.tell_shard(place.shard, Message::Direct(direct));
        }
    }

    /// A payload for a socket of this shard.
    pub(super) fn handle_direct(&mut self, direct: &Direct) {
        let Some(asker) = self.asker_of(direct.room.room()) else { return };
        let left_out = direct.except.iter().any(|name| *name == asker.socket || self.is_in(&asker, name));
        if left_out || asker.namespace != direct.room.namespace() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(asker.key) {
            match connection.send_payload(&direct.payload) {
                Ok(()) => self.tally.deliveries += 1,
                Err(error) => tracing::warn!(%error, "left out a message for one socket that it could not have read"),
            }
            self.touch(asker.key);
        }
    }

    /// Gives a packet to a socket, if it is still there.
    pub(crate) fn say(&mut self, asker: &Asker, packet: &Packet) {
        if self.socket_of(asker).is_some()
            && let Some(connection) = self.connections.get_mut(asker.key)
        {
            connection.send_packet(packet);
            self.touch(asker.key);
        }
    }

    /// Gives a packet to a socket unless something waits for it already; whether it was given.
    pub(crate) fn say_volatile(&mut self, asker: &Asker, packet: &Packet) -> bool {
        let busy = self.connections.get_mut(asker.key).is_none_or(|connection| connection.is_busy());
        if busy {
            self.tally.dropped.push(DropReason::Volatile);
        } else {
            self.say(asker, packet);
        }
        !busy
    }

    /// How the client reads that waits for an answer.
    pub(super) fn parser_of(&self, ack: &Ack) -> Parser {
        let key = self.sockets.get(&ack.of);
        key.and_then(|key| self.connections.get(*key)).map(Connection::parser).unwrap_or_default()
    }

    /// Answers an event of any socket of this node.
    pub(crate) fn answer(&mut self, ack: Ack, args: Args) {
        match self.asker_of(&ack.of) {
            Some(asker) => {
                self.say(&asker, &Packet::Ack { nsp: asker.namespace.clone(), id: ack.id, args });
            }
            None => {
                if let Some(place) = self.place_of(&ack.of).filter(|place| self.is_elsewhere(*place)) {
                    self.tell_shard(place.shard, Message::Answered { ack, args });
                }
            }
        }
    }

    /// What other threads reach this node by.
    pub(crate) fn to_node(&self) -> Node {
        Node::new(self.context.clone())
    }

    /// Does an errand about a socket; it is dropped if the socket is gone.
    pub(super) fn handle_errand(&mut self, socket: &str, errand: Errand, now: Instant) {
        if let Some(asker) = self.asker_of(socket) {
            self.call(asker, now, |_, socket| errand(socket));
        }
    }

    /// Does what a program says without a socket.
    pub(super) fn handle_speech(&mut self, errand: Errand, now: Instant) {
        self.call(nobody(), now, |_, socket| errand(socket));
    }

    /// The socket of this shard whose id this is.
    pub(super) fn asker_of(&self, id: &str) -> Option<Asker> {
        let (socket, key) = self.sockets.get_key_value(id)?;
        let socket = self.connections.get(*key)?.sockets.iter().find(|own| own.id == *socket)?;
        Some(Asker { key: *key, namespace: socket.namespace.clone(), socket: socket.id.clone() })
    }

    /// Another shard of this node.
    fn is_elsewhere(&self, place: Place) -> bool {
        place.node == self.context.node.0 && place.shard != self.shard
    }
}
