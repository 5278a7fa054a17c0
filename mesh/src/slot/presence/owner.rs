//! The owner's side: it lists what the nodes say, numbers every change, and tells those who should know.
//!
//! Invariants: every change of a list goes through `number`; a node that is owed the whole list is told of no changes
//! before it has got it; nobody gets a list while the owner waits for others to speak (`settle_at`).

use std::time::Instant;

use bytestring::ByteString;

use super::{
    Change, Effect, Member, Presence, SETTLE,
    parts::{self, Parted},
    roll::Crowded,
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{message::Control, presence::Said},
};

impl Presence {
    /// A follower's member, at the owner.
    pub(super) fn handle_enter(&mut self, from: NodeId, room: &RoomKey, member: Member) -> bool {
        if !self.knows(from, room) {
            return false;
        }
        let id = member.id.clone();
        if self.list(room, from, member) == Err(Crowded) {
            self.refuse_member(from, room, &id);
        }
        true
    }

    /// A follower's member left, at the owner.
    pub(super) fn handle_depart(&mut self, from: NodeId, room: &RoomKey, id: &ByteString) -> bool {
        if !self.knows(from, room) {
            return false;
        }
        if self.rolls.get(room).is_some_and(|roll| roll.is_listed_by(from, id)) {
            self.unlist(room, id);
        }
        self.dismiss(from, room);
        true
    }

    /// A node without members of the room is told of no changes any more.
    pub(super) fn dismiss(&mut self, node: NodeId, room: &RoomKey) {
        if let Some(roll) = self.rolls.get_mut(room)
            && roll.ids_of(node).is_empty()
        {
            roll.nodes.remove(&node);
            roll.owed.remove(&node);
        }
        self.forget_if_unused(room);
    }

    /// The members of a follower, at the owner, are exactly these when the last part is there.
    pub(super) fn handle_mine(&mut self, from: NodeId, room: &RoomKey, part: Parted, now: Instant) -> bool {
        let me = self.me;
        let Some(roll) = self.rolls.get_mut(room).filter(|roll| roll.owner == Some(me)) else { return false };
        let Some(members) = roll.incoming.add(from, part) else { return true };
        let (members, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|(node, _)| *node == from);
        let members: Vec<Member> = members.into_iter().map(|(_, member)| member).collect();
        roll.nodes.insert(from);
        roll.owed.insert(from);
        for id in roll.strangers(from, &members) {
            self.unlist(room, &id);
        }
        if members.is_empty() {
            self.dismiss(from, room);
            return true;
        }
        for member in members {
            let id = member.id.clone();
            if self.list(room, from, member) == Err(Crowded) {
                self.refuse_member(from, room, &id);
            }
        }
        self.adopt_ghosts(room, others);
        self.pay(room);
        self.wait(room, now);
        true
    }

    /// What a new owner lists of its own node is exactly its own.
    pub(super) fn vouch_for_own(&mut self, room: &RoomKey) {
        let me = self.me;
        let Some(roll) = self.rolls.get(room) else { return };
        let own = roll.own_members();
        for id in roll.strangers(me, &own) {
            self.unlist(room, &id);
        }
        for member in own {
            // What does not fit any more is not listed; its connection is a member of the room all the same.
            let _ = self.list(room, me, member);
        }
    }

    /// Words of this node about what we own may not have arrived. It is asked to say everything again; what it has nothing
    /// to say about by the time we settle has no members there any more.
    pub(super) fn doubt(&mut self, node: NodeId, meant: impl Fn(u16) -> bool, now: Instant) {
        let me = self.me;
        let owned = self.rolls.iter_mut().filter(|(room, roll)| roll.owner == Some(me) && meant(room.slot()));
        for (room, roll) in owned {
            if roll.nodes.remove(&node) {
                roll.owed.remove(&node);
                let bytes = Control::NotOwner { slot: room.slot() }.encode();
                self.effects.push_back(Effect::Send { to: node, room: room.clone(), bytes });
                self.settle_at = Some(now + SETTLE);
            }
        }
    }

    /// Everybody had time to speak, and the lists go out. Members of whoever did not are ghosts from here on: it may only be
    /// slow to see who the owner is.
    pub(super) fn settle(&mut self, now: Instant) {
        let me = self.me;
        let owned = self.rolls.iter().filter(|(_, roll)| roll.owner == Some(me));
        let rooms: Vec<RoomKey> = owned.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            for (node, member) in self.rolls.get(&room).map(|roll| roll.unheard(me)).unwrap_or_default() {
                self.ask_about(node, &room, &member);
                self.begin_haunting(node, now);
            }
            self.pay(&room);
            self.advance(&room);
            self.forget_if_unused(&room);
        }
    }

    /// Lists a member at the owner and tells everybody who should know.
    pub(super) fn list(&mut self, room: &RoomKey, node: NodeId, member: Member) -> Result<(), Crowded> {
        let Some(roll) = self.rolls.get_mut(room) else { return Ok(()) };
        let change = Change { member, joined: true };
        if roll.is_listed_by(node, &change.member.id) {
            return Ok(());
        }
        roll.fits(&change.member)?;
        self.number(room, node, change);
        Ok(())
    }

    pub(super) fn unlist(&mut self, room: &RoomKey, id: &ByteString) {
        let Some((node, member)) = self.rolls.get(room).and_then(|roll| roll.listed(id)) else { return };
        self.number(room, node, Change { member, joined: false });
    }

    /// Makes a change at the owner: it gets its number, and everybody is told.
    pub(super) fn number(&mut self, room: &RoomKey, node: NodeId, change: Change) {
        let Some(roll) = self.rolls.get_mut(room) else { return };
        roll.seq += 1;
        roll.apply(node, &change);
        let Member { id, body } = &change.member;
        let body = change.joined.then(|| body.as_bytes().as_ref());
        let bytes = Said::Change { seq: roll.seq, node: node.0, id: id.as_bytes(), body }.encode(room);
        // Who is owed the list gets the change with it.
        for to in roll.nodes.difference(&roll.owed) {
            self.effects.push_back(Effect::Send { to: *to, room: room.clone(), bytes: bytes.clone() });
        }
        let shards = roll.shards();
        self.effects.push_back(Effect::Tell { room: room.clone(), shards, change });
    }

    /// Sends the list to those who said their members, once the owner knows everybody.
    pub(super) fn pay(&mut self, room: &RoomKey) {
        if self.settle_at.is_some() {
            return;
        }
        let Some(roll) = self.rolls.get_mut(room) else { return };
        let owed = std::mem::take(&mut roll.owed);
        if owed.is_empty() {
            return;
        }
        let seq = roll.seq;
        let parts = parts::in_parts(roll.all(), |part| Said::List { seq, part }.encode(room));
        for to in owed {
            let sends = parts.iter().map(|bytes| Effect::Send { to, room: room.clone(), bytes: bytes.clone() });
            self.effects.extend(sends);
        }
    }

    pub(super) fn refuse_member(&mut self, to: NodeId, room: &RoomKey, id: &ByteString) {
        let bytes = Said::Crowded { id: id.as_bytes() }.encode(room);
        self.effects.push_back(Effect::Send { to, room: room.clone(), bytes });
    }

    pub(super) fn is_owner(&self, room: &RoomKey) -> bool {
        self.rolls.get(room).is_some_and(|roll| roll.owner == Some(self.me))
    }

    /// Whether this node owns the room and `node` said all its members of it.
    pub(super) fn knows(&self, node: NodeId, room: &RoomKey) -> bool {
        self.is_owner(room) && self.rolls.get(room).is_some_and(|roll| roll.nodes.contains(&node))
    }
}
