//! The follower's side: it says its own members and lists what the owner says.
//!
//! Invariants: only the slot's owner is believed; changes are taken in the order of their numbers, and where one is missing
//! everything is said, and heard, again.

use std::time::Instant;

use bytestring::ByteString;

use super::{
    Change, Effect, Member, Presence, RETRY,
    parts::{self, Parted},
    roll::Stream,
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{message::Refusal, presence::Said},
};

impl Presence {
    /// A change the owner numbered: who came, or (without a body) left.
    pub(super) fn handle_change(
        &mut self,
        from: NodeId,
        room: &RoomKey,
        seq: u64,
        (node, id, body): (NodeId, ByteString, Option<ByteString>),
        now: Instant,
    ) {
        let Some(roll) = self.rolls.get_mut(room) else { return self.deny(from, room) };
        if roll.owner != Some(from) || roll.stream != Stream::Following {
            return;
        }
        if seq != roll.seq + 1 {
            return self.say_all(room, now);
        }
        roll.seq = seq;
        let change = match body {
            Some(body) => Some(Change { member: Member { id, body }, joined: true }),
            None => roll.listed(&id).map(|(_, member)| Change { member, joined: false }),
        };
        if let Some(change) = change {
            roll.apply(node, &change);
            let shards = roll.shards();
            self.effects.push_back(Effect::Tell { room: room.clone(), shards, change });
        }
        self.advance(room);
    }

    /// The owner has no place for a member of ours.
    pub(super) fn handle_crowded(&mut self, from: NodeId, room: &RoomKey, id: &ByteString) {
        let Some(roll) = self.rolls.get_mut(room) else { return };
        if roll.owner != Some(from) {
            return;
        }
        for join in roll.take_waiting(id) {
            self.effects.push_back(Effect::Refuse { ask: join.ask, why: Refusal::LimitReached });
        }
    }

    /// The members of the room, says its owner, are exactly these when the last part is there.
    pub(super) fn handle_list(&mut self, from: NodeId, room: &RoomKey, seq: u64, part: Parted, now: Instant) {
        let Some(roll) = self.rolls.get_mut(room) else { return self.deny(from, room) };
        if roll.owner != Some(from) {
            return;
        }
        let Some(members) = roll.incoming.add(from, part) else { return };
        roll.seq = seq;
        roll.stream = Stream::Following;
        let changes = roll.replace(members);
        let shards = roll.shards();
        let tell = |change| Effect::Tell { room: room.clone(), shards, change };
        self.effects.extend(changes.into_iter().map(tell));
        self.advance(room);
        self.wait(room, now);
    }

    /// Nobody of this node is in a room that somebody tells it about: an old word of ours came late, and the new ones were
    /// lost.
    fn deny(&mut self, to: NodeId, room: &RoomKey) {
        let bytes = parts::in_parts(std::iter::empty(), |part| Said::Mine { part }.encode(room));
        self.effects.extend(bytes.into_iter().map(|bytes| Effect::Send { to, room: room.clone(), bytes }));
    }

    /// Says again everything that this owner should know.
    pub(super) fn say_again(&mut self, owner: NodeId, meant: impl Fn(u16) -> bool, now: Instant) {
        let of_owner = self.rolls.iter().filter(|(room, roll)| roll.owner == Some(owner) && meant(room.slot()));
        let rooms: Vec<RoomKey> = of_owner.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            self.say_all(&room, now);
        }
    }

    /// What was sent to this owner was not taken: everything is said again at the next retry.
    pub(in super::super) fn distrust(&mut self, owner: NodeId, meant: impl Fn(u16) -> bool, now: Instant) {
        let of_owner = self.rolls.iter_mut().filter(|(room, roll)| roll.owner == Some(owner) && meant(room.slot()));
        for (room, roll) in of_owner {
            roll.stream = Stream::Asking { asked_at: None };
            self.waiting.insert(room.clone());
            self.wake_at.get_or_insert(now + RETRY);
        }
    }

    /// Says all members of this node to the owner of the room, which answers with all of everybody.
    pub(super) fn say_all(&mut self, room: &RoomKey, now: Instant) {
        let Some(roll) = self.rolls.get_mut(room) else { return };
        let Some(owner) = roll.owner.filter(|owner| *owner != self.me) else { return };
        roll.stream = Stream::Asking { asked_at: Some(now) };
        let me = self.me;
        let own = roll.own_members();
        // A new owner may never have heard of members whose node cannot tell it any more.
        let ghosts = roll.all().filter(|(node, _)| *node != me && self.ghosts.contains_key(node));
        let all = own.into_iter().map(|member| (me, member)).chain(ghosts);
        let parts = parts::in_parts(all, |part| Said::Mine { part }.encode(room));
        let sends = parts.into_iter().map(|bytes| Effect::Send { to: owner, room: room.clone(), bytes });
        self.effects.extend(sends);
        self.wait(room, now);
    }
}
