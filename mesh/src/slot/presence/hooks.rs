//! Where presence meets the slots: joins that show a member, questions about who is there, and what nodes say.
//!
//! Invariants: every input of `Presence` is followed by `perform_presence`, so that its effects stand in the one order of
//! the slots' outputs; a member's join goes on (and waits, reads, answers) exactly as any other once it is listed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::{
    super::{Answer, Ask, Output, PendingJoin, Slots, Want, lane_of},
    Effect, Member, Presence,
};
use crate::{
    NodeId, SLOTS,
    room::RoomKey,
    wire::{
        message::{Control, DecodeError},
        presence::Said,
        request::Request,
    },
};

/// Who is present in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// What others see of each, in the order of their ids.
    pub members: Vec<ByteString>,
    /// Some node could not be heard: there may be others, and some of these may be gone.
    pub partial: bool,
}

impl Roster {
    /// Layout: `1 u8 | partial u8 | (len u32, body)*`, big-endian; a node that cannot say answers 0.
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&[1, u8::from(self.partial)]);
        for body in &self.members {
            out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
            out.put_slice(body.as_bytes());
        }
        out.freeze()
    }

    /// Reads `encode`'s bytes; `None` if they are not that.
    fn decode(mut bytes: Bytes) -> Option<Roster> {
        if bytes.try_get_u8().ok()? != 1 {
            return None;
        }
        let mut roster = Roster { members: Vec::new(), partial: bytes.try_get_u8().ok()? != 0 };
        while bytes.has_remaining() {
            let len = bytes.try_get_u32().ok()? as usize;
            if bytes.len() < len {
                return None;
            }
            roster.members.push(ByteString::try_from(bytes.split_to(len)).ok()?);
        }
        Some(roster)
    }
}

impl Presence {
    /// Who is listed here.
    pub(in super::super) fn roster(&self, room: &RoomKey) -> Roster {
        let members = self.rolls.get(room).map(|roll| roll.bodies()).unwrap_or_default();
        Roster { members, partial: !self.is_whole(room) }
    }

    /// Whether the list of a room that is followed or owned here is all there is.
    fn is_whole(&self, room: &RoomKey) -> bool {
        match self.rolls.get(room) {
            Some(roll) if roll.shows_any(&self.ghosts) => false,
            Some(roll) if roll.owner != Some(self.me) => roll.stream == super::Stream::Following,
            Some(_) | None => self.settle_at.is_none(),
        }
    }
}

impl Slots {
    /// A socket on `ask.shard` joins `room` and shows itself as `member`. Answered by `Answer::Joined`, with members; until
    /// then, and until `handle_depart`, it counts as present. Once it was refused, `handle_depart` is due as well.
    pub fn handle_join_present(
        &mut self,
        room: &RoomKey,
        want: Want,
        member: Member,
        ask: Ask,
        now: Instant,
        now_ms: u64,
    ) {
        let deadline = now + self.config.limits.patience;
        let join = PendingJoin::new(ask, want, deadline, true);
        let owner = self.owner_of(room.slot());
        self.presence.enter(room, owner, member, join, now);
        self.perform_presence(now, now_ms);
    }

    /// The member `id` of this node is not present in `room` any more. Unknown ones are no error.
    pub fn handle_depart(&mut self, room: &RoomKey, id: &ByteString, now: Instant, now_ms: u64) {
        self.presence.depart(room, id);
        self.perform_presence(now, now_ms);
    }

    /// Somebody on `ask.shard` asks who is present in `room`. Answered by `Answer::Presence`.
    pub fn handle_presence(&mut self, room: &RoomKey, ask: Ask) {
        let owner = self.owner_of(room.slot());
        let roster = self.presence.roster(room);
        let followed = self.presence.rolls.contains_key(room) && !roster.partial;
        let elsewhere = owner.filter(|owner| *owner != self.config.node);
        match elsewhere {
            Some(from) if !followed && self.links.contains(&from) => {
                self.next_read += 1;
                let (read, request) = (self.next_read, Request::Presence { room: room.as_bytes() }.encode());
                self.presence.asked.insert(read, (room.clone(), ask));
                self.outputs.push_back(Output::Fetch { read, from, request });
            }
            Some(_) if !followed => self.answer(ask, Answer::Presence(Roster { partial: true, ..roster })),
            Some(_) | None => self.answer(ask, Answer::Presence(roster)),
        }
    }

    /// Another node asks who is present; `request` is the driver's name for it. Answered by `Output::Respond`.
    pub(in super::super) fn handle_presence_request(&mut self, request: u64, room: &[u8]) {
        let room = RoomKey::from_bytes(Bytes::copy_from_slice(room));
        let room = room.filter(|room| self.owner_of(room.slot()) == Some(self.config.node));
        let body = room.map_or(Bytes::from_static(&[0]), |room| self.presence.roster(&room).encode());
        self.outputs.push_back(Output::Respond { request, body });
    }

    /// The owner's answer to `handle_presence`; without one, what is known here has to do.
    pub(in super::super) fn handle_fetched_presence(&mut self, read: u64, body: Option<Bytes>) {
        let Some((room, ask)) = self.presence.asked.remove(&read) else { return };
        let known = || Roster { partial: true, ..self.presence.roster(&room) };
        let roster = body.and_then(Roster::decode).unwrap_or_else(known);
        self.answer(ask, Answer::Presence(roster));
    }

    /// What another node says.
    pub(in super::super) fn handle_said(
        &mut self,
        from: NodeId,
        room: &RoomKey,
        said: Said<'_>,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), DecodeError> {
        let owner = self.owner_of(room.slot());
        let taken = self.presence.handle_said(from, room, owner, said, now)?;
        if !taken {
            let slot = room.slot();
            self.send(from, slot, Control::NotOwner { slot }.encode());
        }
        self.perform_presence(now, now_ms);
        Ok(())
    }

    /// There is another table, and so perhaps there are other nodes.
    pub(in super::super) fn note_members(&mut self, now: Instant) {
        if let Some(table) = &self.table {
            let here = (0..SLOTS).filter_map(|slot| table.owner(slot)).collect();
            self.presence.handle_members(here, now);
        }
    }

    /// Slots may have changed hands.
    pub(in super::super) fn reassign_presence(&mut self, now: Instant, now_ms: u64) {
        let alone = self.links.is_empty();
        let slots: BTreeSet<u16> = self.presence.rolls.keys().map(RoomKey::slot).collect();
        let owners: BTreeMap<u16, Option<NodeId>> = slots.into_iter().map(|slot| (slot, self.owner_of(slot))).collect();
        self.presence.handle_owners(|slot| owners.get(&slot).copied().flatten(), alone, now);
        self.perform_presence(now, now_ms);
    }

    /// Some roll has another owner than its slot.
    pub(in super::super) fn presence_is_misled(&self) -> bool {
        let mut owners: BTreeMap<u16, Option<NodeId>> = BTreeMap::new();
        self.presence.rolls.iter().any(|(room, roll)| {
            let owner = owners.entry(room.slot()).or_insert_with(|| self.owner_of(room.slot()));
            roll.owner != *owner
        })
    }

    /// Which process of `node` the link leads to that is about to come up: call this before `handle_link_up`. Members of an
    /// earlier one have left.
    pub fn handle_generation(&mut self, node: NodeId, generation: u64, now: Instant, now_ms: u64) {
        self.presence.handle_generation(node, generation);
        self.perform_presence(now, now_ms);
    }

    /// The link to `node` is up: it hears again who is present.
    pub(in super::super) fn say_presence_again(&mut self, node: NodeId, now: Instant, now_ms: u64) {
        self.presence.ask_ghosts(node);
        self.presence.say_again(node, |_| true, now);
        self.perform_presence(now, now_ms);
    }

    /// Words between `node` and us about these slots were lost.
    pub(in super::super) fn resync_presence(
        &mut self,
        node: NodeId,
        meant: impl Fn(u16) -> bool,
        now: Instant,
        now_ms: u64,
    ) {
        self.presence.say_again(node, &meant, now);
        self.presence.doubt(node, meant, now);
        self.perform_presence(now, now_ms);
    }

    /// What was said to `node` in that lane did not reach it.
    pub(in super::super) fn lose_presence_words(&mut self, node: NodeId, lane: u8, now: Instant) {
        self.presence.distrust(node, |number| lane_of(number) == lane, now);
    }

    /// The slot's owner did not take what it was told.
    pub(in super::super) fn distrust_presence(&mut self, node: NodeId, slot: u16, now: Instant) {
        self.presence.distrust(node, |number| number == slot, now);
    }

    /// The link to `node` is down.
    pub(in super::super) fn lose_presence(&mut self, node: NodeId, now: Instant, now_ms: u64) {
        self.presence.handle_link_down(node, now);
        self.perform_presence(now, now_ms);
    }

    /// Does what is due.
    pub(in super::super) fn wake_presence(&mut self, now: Instant, now_ms: u64) {
        self.presence.handle_timeout(now);
        self.perform_presence(now, now_ms);
    }

    fn perform_presence(&mut self, now: Instant, now_ms: u64) {
        while let Some(effect) = self.presence.effects.pop_front() {
            match effect {
                Effect::Send { to, room, bytes } => self.send(to, room.slot(), bytes),
                Effect::Tell { room, shards, change } => {
                    let tell = |shard| Output::Presence { shard, room: room.clone(), change: change.clone() };
                    self.outputs.extend(shards.iter().map(tell));
                }
                Effect::Proceed { room, join } => self.join(&room, join, now, now_ms),
                Effect::Refuse { ask, why } => self.answer(ask, Answer::Joined(Err(why))),
            }
        }
    }
}
