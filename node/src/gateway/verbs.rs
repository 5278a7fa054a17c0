//! What is asked in the name of a socket: publish, join, leave, read history.
//!
//! Invariants: every question is filed, has a token, and is answered once through `handle_answer` or `decide`, later than
//! the call that asked it; what one connection has open is bounded by its weight, whoever asks for it.

use std::time::Instant;

use mesh::{
    room::RoomKey,
    slot::{Ask, Publish, Stamp, Want},
    wire::{
        direct::Direct,
        message::{FLAG_VOLATILE, Refusal},
    },
};

use super::{Asker, Entry, Gateway, JoinQuestion, OPEN_MAX, Pending, Question};
use crate::{
    clock,
    config::Class,
    connection,
    handler::{Code, Identity, Refused, Then},
    key::ConnKey,
    message::Message,
    names::Names,
};

impl Gateway {
    /// Publishes; the token of the question.
    pub(crate) fn publish(&mut self, asker: &Asker, publish: Publish, now: Instant) -> u64 {
        let shard = self.context.shard_of_slot(publish.room.slot());
        let shortage = || self.shortage(publish.flags & FLAG_VOLATILE != 0);
        if let Some(why) = self.refusal(asker.key, &Question::Publish, Some(shard)).or_else(shortage) {
            return self.decide(asker, Err(why));
        }
        if let Some(place) = self.place_of(publish.room.room()) {
            let Publish { room, except, payload, .. } = publish;
            self.reach(place, Direct { shard: place.shard, room, except, payload });
            return self.decide(asker, Ok(Stamp { lineage: 0, n: 0 }));
        }
        let ask = self.file(asker, Question::Publish);
        if shard == self.shard {
            self.slots.handle_publish(publish, ask, now, clock::wall_ms());
        } else {
            self.outgoing[usize::from(shard)].push(Message::Publish { publish, ask });
        }
        ask.token
    }

    /// A question whose answer is that of all `parts`.
    pub(crate) fn union(&mut self, asker: &Asker, parts: &[u64]) -> u64 {
        let union = self.file(asker, Question::Union { left: parts.len(), refused: None });
        parts.iter().for_each(|part| self.set_then(*part, Then::Part(union.token)));
        union.token
    }

    /// Takes a socket into a room; it is a member from the slot's answer on. The token of the question.
    pub(crate) fn join(&mut self, asker: &Asker, room: &RoomKey, entry: Entry, now: Instant) -> u64 {
        let Entry { want, replay, present } = entry;
        let history = want != Want::Nothing;
        let weight = if history || present { Question::History } else { Question::Publish };
        let refused = || self.refusal(asker.key, &weight, None).or_else(|| self.too_many_rooms(asker, room));
        if let Some(why) = (!room.room().is_empty()).then(refused).flatten() {
            return self.decide(asker, Err(why));
        }
        let id = self.rooms.find_or_create(room);
        if let Some(room) = self.rooms.get_mut(id) {
            room.joining += 1;
        }
        let question = JoinQuestion { room: id, history, replay, present, cancelled: false };
        let ask = self.file(asker, Question::Join(question));
        match self.socket_of_mut(asker) {
            Some(socket) => socket.joining.push((id, ask.token)),
            None => self.cancel_join(ask.token),
        }
        let shard = self.context.shard_of_slot(room.slot());
        if present {
            self.join_present(room, want, self.member(asker), ask, now);
        } else if shard == self.shard {
            self.slots.handle_join(room, want, ask, now, clock::wall_ms());
        } else {
            self.outgoing[usize::from(shard)].push(Message::Join { room: room.clone(), want, ask });
        }
        ask.token
    }

    /// Takes a socket out of a room, or out of the way into it.
    pub(crate) fn leave(&mut self, asker: &Asker, room: &str, now: Instant) {
        let Some(id) = self.rooms.find(&RoomKey::new(&asker.namespace, room)) else { return };
        let Some(socket) = self.socket_of_mut(asker) else { return };
        let joining = socket.joining.iter().filter(|(room, _)| *room == id).map(|(_, token)| *token);
        let joining: Vec<u64> = joining.collect();
        let member = socket.rooms.iter().position(|room| *room == id).map(|at| socket.rooms.swap_remove(at));
        joining.into_iter().for_each(|token| self.cancel_join(token));
        if member.is_some() {
            self.remove_member(id, asker.key, &asker.socket, now);
        }
    }

    /// Reads history; the token of the question.
    pub(crate) fn history(&mut self, asker: &Asker, room: &RoomKey, want: Want) -> u64 {
        if let Some(why) = self.refusal(asker.key, &Question::History, None) {
            return self.decide(asker, Err(why));
        }
        let ask = self.file(asker, Question::History);
        let shard = self.context.shard_of_slot(room.slot());
        if shard == self.shard {
            self.slots.handle_history(room, want, ask, clock::wall_ms());
        } else {
            self.outgoing[usize::from(shard)].push(Message::History { room: room.clone(), want, ask });
        }
        ask.token
    }

    /// Who is told what becomes of a question that was asked in this turn.
    pub(crate) fn set_then(&mut self, token: u64, then: Then) {
        if let Some(pending) = usize::try_from(token).ok().and_then(|token| self.pending.get_mut(token)) {
            pending.then = then;
        }
    }

    /// The socket an asker is, if it is still there; another one may have its place.
    pub(crate) fn socket_of(&self, asker: &Asker) -> Option<&connection::Socket> {
        let socket = self.connections.get(asker.key)?.socket(&asker.namespace)?;
        (socket.id == asker.socket).then_some(socket)
    }

    /// As `socket_of`.
    pub(crate) fn socket_of_mut(&mut self, asker: &Asker) -> Option<&mut connection::Socket> {
        let socket = self.connections.get_mut(asker.key)?.socket_mut(&asker.namespace)?;
        (socket.id == asker.socket).then_some(socket)
    }

    /// The names of the rooms a socket is in.
    pub(crate) fn rooms_of(&self, asker: &Asker) -> Vec<&str> {
        let ids = self.socket_of(asker).map_or(&[][..], |socket| &socket.rooms);
        let names = ids.iter().filter_map(|id| Some(self.rooms.get(*id)?.key.room()));
        names.filter(|name| !name.is_empty()).collect()
    }

    /// Whether a socket is in a room.
    pub(crate) fn is_in(&self, asker: &Asker, room: &str) -> bool {
        let id = self.rooms.find(&RoomKey::new(&asker.namespace, room));
        id.is_some_and(|id| self.socket_of(asker).is_some_and(|socket| socket.rooms.contains(&id)))
    }

    /// What names have to be like.
    pub(crate) fn names(&self) -> &Names {
        &self.context.names
    }

    /// Whether the messages of a namespace have an order and a history.
    pub(crate) fn class_of(&self, namespace: &str) -> Class {
        self.context.policy.class(namespace)
    }

    /// Why a question is refused now, if it is; `shard` is the one that new work would burden.
    pub(super) fn refusal(&self, key: ConnKey, question: &Question, shard: Option<u8>) -> Option<Refused> {
        if self.open.get(&key).copied().unwrap_or(0) + question.weight() > OPEN_MAX {
            return Some(Refused::new(Code::RateLimited, "too many unanswered events on this connection"));
        }
        let shard = shard?;
        if self.draining.is_some() {
            return Some(Refusal::Draining.into());
        }
        let full = self.context.shards[usize::from(shard)].is_full();
        full.then(|| Refusal::Overloaded { retry_ms: 1_000 }.into())
    }

    fn too_many_rooms(&self, asker: &Asker, room: &RoomKey) -> Option<Refused> {
        let limit = self.context.config.limits.rooms_per_socket;
        let socket = self.socket_of(asker)?;
        let member = self.rooms.find(room).is_some_and(|id| socket.rooms.contains(&id));
        // The room of the whole namespace is one of them, and the user's another: they do not count.
        let own = 1 + usize::from(socket.identity.as_deref().and_then(Identity::room).is_some());
        let full = !member && socket.rooms.len() + socket.joining.len() >= limit + own;
        full.then(|| Refused::new(Code::LimitReached, format!("a socket may be in {limit} rooms")))
    }

    pub(super) fn file(&mut self, asker: &Asker, question: Question) -> Ask {
        *self.open.entry(asker.key).or_default() += question.weight();
        let pending = Pending { asker: asker.clone(), then: Then::Nothing, question };
        Ask { shard: self.shard, token: self.pending.insert(pending) as u64 }
    }

    /// Files a question that is answered already: whoever asked is told at the end of the turn, as with any other.
    pub(super) fn decide(&mut self, asker: &Asker, outcome: Result<Stamp, Refused>) -> u64 {
        let token = self.file(asker, Question::Decided).token;
        self.decided.push((token, outcome));
        token
    }
}
