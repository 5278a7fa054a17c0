//! Socket.IO above a session: namespaces joined and left, events given to whoever handles them.
//!
//! Invariants (`protocol.md` 7): whatever breaks the protocol closes the whole connection; a namespace that is refused
//! does not; events of one connection are handled in arrival order.

use std::time::Instant;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytestring::ByteString;
use mesh::{room::RoomKey, slot::Want};
use protocol::{
    engine::{Message, session::CloseReason},
    socketio::{Args, Packet},
};
use smallvec::SmallVec;

use super::{EVERYONE, Entry, Gateway, Question};
use crate::{
    connection::{ConnKey, Socket},
    metrics::{PacketType, RejectReason},
    room::RoomId,
};

impl Gateway {
    /// One Engine.IO message of a connection.
    pub(super) fn handle_message(&mut self, key: ConnKey, message: Message, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.decoder.decode(message) {
            Ok(Some(packet)) => self.handle_packet(key, packet, now),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "closing a connection that does not speak Socket.IO");
                self.refuse_packet(key, now);
            }
        }
    }

    fn handle_packet(&mut self, key: ConnKey, packet: Packet, now: Instant) {
        let counter = &self.context.metrics.packets_received;
        match packet {
            Packet::Connect { nsp, auth: _ } => {
                counter.of(PacketType::Connect).inc();
                self.connect(key, nsp, now);
            }
            Packet::Disconnect { nsp } => {
                counter.of(PacketType::Disconnect).inc();
                self.disconnect(key, &nsp, now);
            }
            Packet::Event { nsp, id, args } => self.handle_event(key, &nsp, id, &args, now),
            // This version asks no client for an ack, so one that comes answers nothing.
            Packet::Ack { .. } => {
                counter.of(PacketType::Ack).inc();
            }
            Packet::ConnectError { .. } => self.refuse_packet(key, now),
        }
    }

    /// Something no well-behaved client sends.
    fn refuse_packet(&mut self, key: ConnKey, now: Instant) {
        self.context.metrics.packets_received.of(PacketType::Invalid).inc();
        self.close(key, CloseReason::ParseError, now);
    }

    fn connect(&mut self, key: ConnKey, namespace: ByteString, now: Instant) {
        let limit = self.context.config.limits.namespaces;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.socket(&namespace).is_some() {
            return self.refuse_packet(key, now);
        }
        if connection.sockets.len() >= limit {
            let data = r#"{"message":"too many namespaces on one connection","data":{"code":"limit_reached"}}"#;
            connection.send_packet(Packet::ConnectError { nsp: namespace, data: Some(data.into()) }.encode());
            self.tally.rejected.push(RejectReason::Namespaces);
            return self.touch(key);
        }
        let mut random = [0; 15];
        if getrandom::fill(&mut random).is_err() {
            return self.close(key, CloseReason::ServerClose, now);
        }
        let id = ByteString::from(URL_SAFE_NO_PAD.encode(random));
        let answer = format!(r#"{{"sid":"{id}"}}"#);
        connection.connect_by = None;
        connection.send_packet(Packet::Connect { nsp: namespace.clone(), auth: Some(answer.into()) }.encode());
        connection.sockets.push(Socket {
            namespace: namespace.clone(),
            id: id.clone(),
            rooms: SmallVec::new(),
            joining: SmallVec::new(),
        });
        self.sockets.insert(id, key);
        self.tally.sockets += 1;
        self.touch(key);
        self.enter_namespace(key, &namespace, now);
    }

    /// Makes a socket reachable by what is published to its whole namespace.
    pub(super) fn enter_namespace(&mut self, key: ConnKey, namespace: &ByteString, now: Instant) {
        let how = Entry { ack: None, want: Want::Nothing, replay: false };
        self.enter(key, namespace, &RoomKey::new(namespace, EVERYONE), how, now);
    }

    fn disconnect(&mut self, key: ConnKey, namespace: &str, now: Instant) {
        if self.connections.get(key).is_none_or(|connection| connection.socket(namespace).is_none()) {
            return self.refuse_packet(key, now);
        }
        self.leave_namespace(key, namespace, now);
    }

    fn handle_event(&mut self, key: ConnKey, namespace: &ByteString, ack: Option<u64>, args: &Args, now: Instant) {
        self.tally.events += 1;
        if self.connections.get(key).is_none_or(|connection| connection.socket(namespace).is_none()) {
            return self.refuse_packet(key, now);
        }
        let Ok(name) = args.event_name() else { return self.refuse_packet(key, now) };
        let prefix = &self.context.config.socketio.builtin_prefix;
        match name.strip_prefix(prefix.as_str()).and_then(|verb| verb.parse().ok()) {
            Some(verb) => self.handle_builtin(verb, key, namespace, ack, args, now),
            None => {
                self.tally.rejected.push(RejectReason::Unhandled);
                let message = format!("nobody handles the event {name:?} here");
                self.nack(key, namespace, ack, "unhandled_event", &message);
            }
        }
    }

    /// Leaves every room of a socket and forgets it.
    pub(super) fn leave_namespace(&mut self, key: ConnKey, namespace: &str, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(at) = connection.sockets.iter().position(|socket| socket.namespace == namespace) else { return };
        let socket = connection.sockets.swap_remove(at);
        self.sockets.remove(&socket.id);
        self.tally.sockets -= 1;
        for (_, token) in socket.joining {
            self.cancel_join(token);
        }
        for room in socket.rooms {
            self.remove_member(room, key, now);
        }
    }

    /// Leaves every room of every socket of a connection.
    pub(super) fn leave_everything(&mut self, key: ConnKey, now: Instant) {
        while let Some(namespace) =
            self.connections.get(key).and_then(|c| c.sockets.first()).map(|socket| socket.namespace.clone())
        {
            self.leave_namespace(key, &namespace, now);
        }
    }

    /// The answer to this join must not make a member any more.
    pub(super) fn cancel_join(&mut self, token: u64) {
        let pending = usize::try_from(token).ok().and_then(|token| self.pending.get_mut(token));
        if let Some(Question::Join { cancelled, .. }) = pending.map(|pending| &mut pending.question) {
            *cancelled = true;
        }
    }

    /// Takes a connection out of a room; the turn so far is delivered first, so that it gets what came before.
    pub(super) fn remove_member(&mut self, id: RoomId, key: ConnKey, now: Instant) {
        self.deliver_room(id);
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.members.swap_remove(&key) && !room.is_namespace() {
            self.tally.memberships -= 1;
        }
        self.leave_if_empty(id, now);
    }

    /// Tells the slot when nobody here is in the room or on the way into it.
    pub(super) fn leave_if_empty(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(id) else { return };
        if room.members.is_empty() && room.joining == 0 {
            let name = room.key.clone();
            self.leave(&name, now);
            self.rooms.remove_if_unused(id);
        }
    }
}
