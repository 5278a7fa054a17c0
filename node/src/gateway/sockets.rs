//! Socket.IO above a session: namespaces joined and left, events given to whoever handles them.
//!
//! Invariants (`protocol.md` 7): whatever breaks the protocol closes the whole connection; a namespace that is refused
//! does not; events of one connection are handled in arrival order.

use std::time::Instant;

use bytestring::ByteString;
use mesh::{room::RoomKey, slot::Want};
use protocol::{
    engine::{Message, session::CloseReason},
    socket_id,
    socketio::{Args, Packet},
};
use smallvec::SmallVec;

use super::{EVERYONE, Entry, Gateway, Question};
use crate::{
    connection::Socket,
    handler::{Departure, Event, Id, Layer},
    key::ConnKey,
    metrics::{PacketType, RejectReason},
    room::RoomId,
};

impl Gateway {
    /// One Engine.IO message of a connection.
    pub(super) fn handle_message(&mut self, key: ConnKey, message: Message, now: Instant) {
        if self.context.layer == Layer::EngineIo {
            return self.exchange(key, message, now);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let decoded = connection.decoder.decode(message);
        match decoded {
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
            Packet::Connect { nsp, auth } => {
                counter.of(PacketType::Connect).inc();
                self.connect(key, nsp, auth.as_deref(), now);
            }
            Packet::Disconnect { nsp } => {
                counter.of(PacketType::Disconnect).inc();
                self.disconnect(key, &nsp, now);
            }
            Packet::Event { nsp, id, args } => self.handle_event(key, &nsp, id, &args, now),
            // This version asks no client for an ack, so one that comes answers nothing.
            Packet::Ack { nsp, .. } => {
                counter.of(PacketType::Ack).inc();
                if self.connections.get(key).is_none_or(|connection| connection.socket(&nsp).is_none()) {
                    self.refuse_packet(key, now);
                }
            }
            Packet::ConnectError { .. } => self.refuse_packet(key, now),
        }
    }

    /// Something no well-behaved client sends.
    fn refuse_packet(&mut self, key: ConnKey, now: Instant) {
        self.context.metrics.packets_received.of(PacketType::Invalid).inc();
        self.close(key, CloseReason::ParseError, now);
    }

    fn connect(&mut self, key: ConnKey, namespace: ByteString, auth: Option<&str>, now: Instant) {
        let limit = self.context.config.limits.namespaces;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.socket(&namespace).is_some() {
            return self.refuse_packet(key, now);
        }
        if connection.sockets.len() >= limit {
            self.tally.rejected.push(RejectReason::Namespaces);
            let why = r#"{"message":"too many namespaces on one connection","data":{"code":"limit_reached"}}"#;
            return self.refuse_connect(key, namespace, why);
        }
        match self.may_join(key, &namespace, now) {
            Some(true) => {}
            Some(false) => return self.refuse_connect(key, namespace, r#"{"message":"Invalid namespace"}"#),
            None => return,
        }
        self.welcome(key, namespace, auth, now);
    }

    /// Tells a client that it is not let into a namespace; the connection goes on.
    fn refuse_connect(&mut self, key: ConnKey, namespace: ByteString, why: &'static str) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let data = Some(ByteString::from_static(why));
        connection.send_packet(&Packet::ConnectError { nsp: namespace, data });
        self.touch(key);
    }

    /// Makes a socket.
    fn welcome(&mut self, key: ConnKey, namespace: ByteString, auth: Option<&str>, now: Instant) {
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            return self.close(key, CloseReason::ServerClose, now);
        }
        let context = &self.context;
        let id = ByteString::from(socket_id::mint(context.node.0, self.shard, random, &context.sid_key));
        let answer = format!(r#"{{"sid":"{id}"}}"#);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.connect_by = None;
        connection.send_packet(&Packet::Connect { nsp: namespace.clone(), auth: Some(answer.into()) });
        connection.sockets.push(Socket {
            namespace: namespace.clone(),
            id: id.clone(),
            rooms: SmallVec::new(),
            joining: SmallVec::new(),
        });
        self.sockets.insert(id.clone(), key);
        self.tally.sockets += 1;
        self.enter_namespace(key, &namespace, now);
        self.tell_connected(key, Id { socket: id, namespace }, auth, now);
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
        self.leave_namespace(key, namespace, Departure::Left, now);
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
            None => self.ask_application(key, namespace, &Event::new(name, args), ack, now),
        }
    }

    /// Leaves every room of a socket and forgets it.
    pub(super) fn leave_namespace(&mut self, key: ConnKey, namespace: &str, why: Departure, now: Instant) {
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
        self.tell_disconnected(&Id { socket: socket.id, namespace: socket.namespace }, why);
    }

    /// Leaves every room of every socket of a connection.
    pub(super) fn leave_everything(&mut self, key: ConnKey, why: Departure, now: Instant) {
        while let Some(namespace) =
            self.connections.get(key).and_then(|c| c.sockets.first()).map(|socket| socket.namespace.clone())
        {
            self.leave_namespace(key, &namespace, why, now);
        }
    }

    /// The answer to this join must not make a member any more.
    pub(super) fn cancel_join(&mut self, token: u64) {
        let pending = usize::try_from(token).ok().and_then(|token| self.pending.get_mut(token));
        if let Some(Question::Join(join)) = pending.map(|pending| &mut pending.question) {
            join.cancelled = true;
        }
    }

    /// Takes a connection out of a room; the turn so far is delivered first, so that it gets what came before.
    pub(super) fn remove_member(&mut self, id: RoomId, key: ConnKey, now: Instant) {
        self.deliver_room(id);
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.remove(&key) && !room.is_namespace() {
            self.tally.memberships -= 1;
        }
        self.leave_if_empty(id, now);
    }

    /// Tells the slot when nobody here is in the room or on the way into it.
    pub(super) fn leave_if_empty(&mut self, id: RoomId, now: Instant) {
        let Some(room) = self.rooms.get(id) else { return };
        if room.is_empty() && room.joining == 0 {
            let name = room.key.clone();
            self.leave(&name, now);
            self.rooms.remove_if_unused(id);
        }
    }
}
