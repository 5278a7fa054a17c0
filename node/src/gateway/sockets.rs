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
    socketio::{Args, Packet, ROOT_NAMESPACE},
};
use smallvec::SmallVec;

use super::{Asker, EVERYONE, Entry, Gateway, Pending, Question};
use crate::{
    admission::BARRED,
    connection::Socket,
    handler::{Ack, Code, Departure, Event, Identity, Layer, Refused},
    key::ConnKey,
    message::Message as ToShard,
    metrics::{PacketType, RejectReason},
    room::RoomId,
};

impl Gateway {
    /// One Engine.IO message of a connection.
    pub(super) fn handle_message(&mut self, key: ConnKey, message: Message, now: Instant) {
        if !self.heed(key, message.len(), now) {
            return;
        }
        if self.context.layer == Layer::EngineIo {
            return self.exchange(key, message, now);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let decoded = connection.decoder.decode(message);
        match decoded {
            Ok(Some(packet)) => {
                self.note_assembly(key, now);
                self.handle_packet(key, packet, now);
            }
            Ok(None) => self.note_assembly(key, now),
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
                self.connect(key, kept(&nsp), auth.as_deref(), now);
            }
            Packet::Disconnect { nsp } => {
                counter.of(PacketType::Disconnect).inc();
                self.disconnect(key, &nsp, now);
            }
            Packet::Event { nsp, id, args } => self.handle_event(key, &nsp, id, &args, now),
            Packet::Ack { nsp, id, args } => {
                counter.of(PacketType::Ack).inc();
                if self.connections.get(key).is_none_or(|connection| connection.socket(&nsp).is_none()) {
                    return self.refuse_packet(key, now);
                }
                self.handle_ack(key, &nsp, id, args, now);
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
            let why = Refused::new(Code::LimitReached, "too many namespaces on one connection");
            return self.refuse_connect(key, namespace, why.connect_error());
        }
        if connection.place.is_barred(now) {
            self.tally.rejected.push(RejectReason::FailedAuth);
            let why = Refused::new(Code::RateLimited, BARRED.trim_end());
            return self.refuse_connect(key, namespace, why.connect_error());
        }
        match self.exists(key, &namespace, now) {
            Some(true) => {}
            Some(false) => {
                let why = Refused::bad_request("Invalid namespace");
                return self.refuse_connect(key, namespace, why.connect_error());
            }
            None => return,
        }
        match self.admit(key, &namespace, auth, now) {
            Some(Ok(identity)) => self.welcome(key, namespace, identity, auth, now),
            Some(Err(why)) => {
                self.tally.rejected.push(why.code.reason());
                self.refuse_connect(key, namespace, why.connect_error());
                if let Some(connection) = self.connections.get(key) {
                    connection.place.fail(now);
                }
            }
            None => {}
        }
    }

    /// Tells a client that it is not let into a namespace; the connection goes on.
    fn refuse_connect(&mut self, key: ConnKey, namespace: ByteString, why: String) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.send_packet(&Packet::ConnectError { nsp: namespace, data: Some(why.into()) });
        self.touch(key);
    }

    /// Makes a socket.
    fn welcome(&mut self, key: ConnKey, namespace: ByteString, identity: Identity, auth: Option<&str>, now: Instant) {
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            return self.close(key, CloseReason::ServerClose, now);
        }
        let context = &self.context;
        let id = ByteString::from(socket_id::mint(context.node.0, self.shard, random, &context.sid_keys.signing()));
        let answer = format!(r#"{{"sid":"{id}"}}"#);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.connect_by = None;
        connection.conduct.set_connected();
        connection.send_packet(&Packet::Connect { nsp: namespace.clone(), auth: Some(answer.into()) });
        connection.sockets.push(Socket {
            namespace: namespace.clone(),
            id: id.clone(),
            identity: None,
            rooms: SmallVec::new(),
            joining: SmallVec::new(),
        });
        self.sockets.insert(id.clone(), key);
        self.tally.sockets += 1;
        self.touch(key);
        let asker = Asker { key, namespace, socket: id };
        self.enter_namespace(&asker, now);
        self.set_identity(&asker, identity, now);
        self.call(asker, now, |handler, socket| handler.on_connect(socket, auth));
    }

    /// Makes a socket reachable by what is published to its whole namespace.
    pub(super) fn enter_namespace(&mut self, asker: &Asker, now: Instant) {
        let everyone = RoomKey::new(&asker.namespace, EVERYONE);
        self.join(asker, &everyone, Entry { want: Want::Nothing, replay: false, present: false }, now);
    }

    /// Says who the client of a socket is: it is in that user's room, and in no other's.
    pub(crate) fn set_identity(&mut self, asker: &Asker, identity: Identity, now: Instant) {
        let Some(socket) = self.socket_of_mut(asker) else { return };
        let new = (!identity.is_anonymous()).then(|| Box::new(identity));
        let before = std::mem::replace(&mut socket.identity, new);
        if let Some(room) = before.as_deref().and_then(Identity::room) {
            self.leave(asker, &room, now);
        }
        self.enter_own_room(asker, now);
    }

    /// Makes a socket reachable by what is published to its user.
    fn enter_own_room(&mut self, asker: &Asker, now: Instant) {
        let identity = self.socket_of(asker).and_then(|socket| socket.identity.as_deref());
        let Some(room) = identity.and_then(Identity::room) else { return };
        match self.context.names.room(&room) {
            Ok(()) => {
                let entry = Entry { want: Want::Nothing, replay: false, present: false };
                self.join(asker, &RoomKey::new(&asker.namespace, &room), entry, now);
            }
            // Such a name cannot be a room's: the user has none.
            Err(why) => tracing::debug!(%why, "a user without a room"),
        }
    }

    /// Enters again where nobody asked to be, and so nobody would ask again; whether this was such a room.
    pub(super) fn enter_again(&mut self, asker: &Asker, room: RoomId, now: Instant) -> bool {
        let Some(name) = self.rooms.get(room).map(|room| room.key.room().to_owned()) else { return false };
        let identity = self.socket_of(asker).and_then(|socket| socket.identity.as_deref());
        if name == EVERYONE {
            self.enter_namespace(asker, now);
        } else if identity.and_then(Identity::room).is_some_and(|own| own == name) {
            self.enter_own_room(asker, now);
        } else {
            return false;
        }
        true
    }

    fn disconnect(&mut self, key: ConnKey, namespace: &str, now: Instant) {
        if self.connections.get(key).is_none_or(|connection| connection.socket(namespace).is_none()) {
            return self.refuse_packet(key, now);
        }
        self.leave_namespace(key, namespace, Departure::Left, now);
    }

    fn handle_event(&mut self, key: ConnKey, namespace: &str, ack: Option<u64>, args: &Args, now: Instant) {
        self.tally.events += 1;
        let Some(asker) = self.asker(key, namespace) else { return self.refuse_packet(key, now) };
        let Ok(name) = args.event_name() else { return self.refuse_packet(key, now) };
        let ack = ack.map(|id| Ack::new(id, asker.socket.clone()));
        let joins = name.strip_prefix(self.context.names.builtin_prefix()) == Some("join");
        if self.is_too_fast(key, joins, now) {
            let why = Refused::new(Code::RateLimited, "too many messages, bytes or joins a second");
            return self.refuse(ack, &why);
        }
        self.ask_application(asker, &Event::new(name, args), ack, now);
    }

    /// Whoever speaks in a namespace of a connection.
    pub(super) fn asker(&self, key: ConnKey, namespace: &str) -> Option<Asker> {
        let socket = self.connections.get(key)?.socket(namespace)?;
        Some(Asker { key, namespace: socket.namespace.clone(), socket: socket.id.clone() })
    }

    /// Leaves every room of a socket and forgets it.
    pub(super) fn leave_namespace(&mut self, key: ConnKey, namespace: &str, why: Departure, now: Instant) {
        let Some(asker) = self.asker(key, namespace) else { return };
        self.tell_disconnected(asker.clone(), why, now);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(at) = connection.sockets.iter().position(|socket| socket.id == asker.socket) else { return };
        let socket = connection.sockets.swap_remove(at);
        self.sockets.remove(&socket.id);
        self.tally.sockets -= 1;
        for (_, token) in socket.joining {
            self.cancel_join(token);
        }
        for room in socket.rooms {
            self.remove_member(room, key, &asker.socket, now);
        }
        self.end_asks(&asker, now);
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
        let Some(Pending { question: Question::Join(join), asker, .. }) = pending else { return };
        join.cancelled = true;
        if join.present {
            let (room, socket) = (join.room, asker.socket.clone());
            self.depart(room, socket);
        }
    }

    /// Takes a connection out of a room; the turn so far is delivered first, so that it gets what came before.
    pub(super) fn remove_member(&mut self, id: RoomId, key: ConnKey, socket: &ByteString, now: Instant) {
        self.deliver_room(id);
        self.remove_onlooker(id, key, socket);
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
            let (key, shard) = (room.key.clone(), self.context.shard_of_slot(room.key.slot()));
            if shard == self.shard {
                self.slots.handle_leave(&key, shard, now);
            } else {
                self.outgoing[usize::from(shard)].push(ToShard::Leave { room: key, shard: self.shard });
            }
            self.rooms.remove_if_unused(id);
        }
    }
}

/// A namespace's name to keep: the one in a packet is a slice of all that its client sent with it.
fn kept(namespace: &str) -> ByteString {
    if namespace == ROOT_NAMESPACE { ByteString::from_static(ROOT_NAMESPACE) } else { namespace.into() }
}
