//! Members that show themselves, on this shard: who is told when others come and go (`interface.md` 1.1, `room:joined` and
//! `room:left`).
//!
//! Those of a room who are told have a room beside it: notices go the way of all messages, made once and written once per
//! member and turn, and are in no history.
//!
//! Invariants:
//! - whoever is told stands in the list of its own join's answer, which holds exactly what came before the first notice;
//! - notices and messages of a room are delivered in the order in which they came;
//! - the slot hears of every end: left, disconnected, cancelled, refused.

use std::time::Instant;

use bytestring::ByteString;
use mesh::{
    room::RoomKey,
    slot::{Change, Member, Want},
};
use serde_json::value::RawValue;

use super::{Asker, Gateway, Question};
use crate::{clock, envelope, handler::Identity, key::ConnKey, message::Message, room::RoomId};

/// What others see of a socket: `Member` of `interface.md` 1.1.
#[derive(serde::Serialize)]
struct Shown<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

impl Gateway {
    /// The socket as others see it.
    pub(super) fn member(&self, asker: &Asker) -> Member {
        let identity = self.socket_of(asker).and_then(|socket| socket.identity.as_deref());
        let user = identity.and_then(|identity| identity.user.as_deref());
        let info = identity.and_then(Identity::shown_info);
        // Strings and checked JSON always serialise.
        let body = serde_json::to_string(&Shown { id: &asker.socket, user, info }).unwrap_or_default();
        Member { id: asker.socket.clone(), body: body.into() }
    }

    /// Who is present; the token of the question.
    pub(crate) fn presence(&mut self, asker: &Asker, room: &RoomKey) -> u64 {
        if let Some(why) = self.refusal(asker.key, &Question::Presence, None) {
            return self.decide(asker, Err(why));
        }
        let ask = self.file(asker, Question::Presence);
        let shard = self.context.shard_of_slot(room.slot());
        if shard == self.shard {
            self.slots.handle_presence(room, ask);
        } else {
            self.outgoing[usize::from(shard)].push(Message::Presence { room: room.clone(), ask });
        }
        ask.token
    }

    /// Asks the slot of a room to take a socket in that shows itself.
    pub(super) fn join_present(
        &mut self,
        room: &RoomKey,
        want: Want,
        member: Member,
        ask: mesh::slot::Ask,
        now: Instant,
    ) {
        let shard = self.context.shard_of_slot(room.slot());
        if shard == self.shard {
            self.slots.handle_join_present(room, want, member, ask, now, clock::wall_ms());
        } else {
            self.outgoing[usize::from(shard)].push(Message::JoinPresent { room: room.clone(), want, member, ask });
        }
    }

    /// From here on the socket is told who comes and goes.
    pub(super) fn add_onlooker(&mut self, asker: &Asker, id: RoomId) {
        if self.socket_of(asker).is_none() {
            return;
        }
        let Some(parser) = self.connections.get(asker.key).map(|connection| connection.parser()) else { return };
        let Some(notices) = self.rooms.notices_or_create(id) else { return };
        // What came before is for those who were there.
        self.deliver_room(notices);
        if let Some(notices) = self.rooms.get_mut(notices) {
            notices.insert(asker.key, parser);
        }
    }

    /// A join that would have shown the socket is refused: it is not shown, unless it was before.
    pub(super) fn forget_if_not_shown(&mut self, asker: &Asker, id: RoomId) {
        let shown = self.is_onlooker(id, asker.key);
        let comes = self.socket_of(asker).is_some_and(|socket| {
            socket.joining.iter().filter(|(room, _)| *room == id).any(|(_, token)| self.would_show(*token))
        });
        if !shown && !comes {
            self.depart(id, asker.socket.clone());
        }
    }

    /// Whether the join `token` shows its socket.
    pub(super) fn would_show(&self, token: u64) -> bool {
        let pending = usize::try_from(token).ok().and_then(|token| self.pending.get(token));
        pending.is_some_and(|pending| match &pending.question {
            Question::Join(join) => join.present && !join.cancelled,
            Question::Publish
            | Question::History
            | Question::Presence
            | Question::Sockets
            | Question::Reach
            | Question::Union { .. }
            | Question::Decided => false,
        })
    }

    /// A connection leaves a room: if its socket showed itself there, it does not any more.
    pub(super) fn remove_onlooker(&mut self, id: RoomId, key: ConnKey, socket: &ByteString) {
        if !self.is_onlooker(id, key) {
            return;
        }
        if let Some(notices) = self.rooms.notices_of(id) {
            self.deliver_room(notices);
            if let Some(notices) = self.rooms.get_mut(notices) {
                notices.remove(&key);
            }
            self.rooms.remove_if_unused(notices);
        }
        self.depart(id, socket.clone());
    }

    /// Tells the slot that a socket does not show itself.
    pub(super) fn depart(&mut self, id: RoomId, socket: ByteString) {
        let Some(room) = self.rooms.get(id).map(|room| room.key.clone()) else { return };
        let shard = self.context.shard_of_slot(room.slot());
        if shard == self.shard {
            self.slots.handle_depart(&room, &socket, clock::now(), clock::wall_ms());
        } else {
            self.outgoing[usize::from(shard)].push(Message::Depart { room, id: socket });
        }
    }

    /// Somebody came to a room or left it: those on this shard who show themselves there are told.
    pub(super) fn handle_change(&mut self, room: &RoomKey, change: &Change) {
        let Some(id) = self.rooms.find(room) else { return };
        let Some(notices) = self.rooms.notices_of(id) else { return };
        self.deliver_room(id);
        let event = self.context.names.notice(if change.joined { "joined" } else { "left" });
        let notice = envelope::member_notice(room, &event, &change.member.body);
        self.append(notices, &notice, &[]);
    }

    fn is_onlooker(&self, id: RoomId, key: ConnKey) -> bool {
        let notices = self.rooms.notices_of(id).and_then(|notices| self.rooms.get(notices));
        notices.is_some_and(|notices| notices.contains(&key))
    }
}
