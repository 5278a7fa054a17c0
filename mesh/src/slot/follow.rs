//! Following: interest said to the owner, its stream checked frame by frame, and what is missing fetched.
//!
//! Invariants: the owner's `InterestAck` comes in the same lane as its frames, so what it says and what follows meet
//! exactly; members see rising `n` without a gap or are told (`Output::Gap`); only the slot's owner is believed.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Found, Output, PendingJoin, Shards, Slot, Slots, Stamp,
    book::MERGED,
    early::Early,
    follower::{Accepted, Followed, Held, Stream},
    history::{Range, RoomFacts},
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::message::{Control, DecodeError, Frame, LaneMessage},
};

impl Slots {
    /// One application frame from a peer's lane. An error means the bytes were dropped and nothing changed.
    pub fn handle_frame(&mut self, from: NodeId, bytes: &Bytes, now: Instant, now_ms: u64) -> Result<(), DecodeError> {
        // The lane's buffer holds many frames; a copy keeps one quiet room from pinning all of it.
        let bytes = Bytes::copy_from_slice(bytes);
        self.note_heard(from, now);
        match LaneMessage::decode(&bytes)? {
            LaneMessage::Frame(frame) if frame.slot != frame.room.slot() => Err(DecodeError::MalformedName),
            LaneMessage::Frame(frame) if frame.term == 0 => {
                if frame.origin.node == from && frame.is_volatile() {
                    self.handle_volatile_publish(from, frame, now);
                } else if frame.origin.node == from {
                    self.handle_remote_publish(from, frame, now, now_ms);
                }
                Ok(())
            }
            LaneMessage::Frame(frame) if frame.is_volatile() => {
                self.handle_volatile(from, &Arc::new(frame));
                Ok(())
            }
            LaneMessage::Frame(frame) => {
                self.handle_stamped(from, &Arc::new(frame), now);
                Ok(())
            }
            LaneMessage::Keep(term, frame) => {
                self.handle_keep(from, term, frame, bytes.clone());
                Ok(())
            }
            LaneMessage::Control(control) => self.handle_control(from, control, now, now_ms),
        }
    }

    fn handle_control(
        &mut self,
        from: NodeId,
        control: Control<'_>,
        now: Instant,
        now_ms: u64,
    ) -> Result<(), DecodeError> {
        let key = |room: &[u8]| RoomKey::from_bytes(Bytes::copy_from_slice(room)).ok_or(DecodeError::MalformedName);
        match control {
            Control::InterestAdd { room } => self.handle_interest(from, &key(room)?),
            Control::InterestDrop { room } => {
                let room = key(room)?;
                let slot = room.slot();
                if let Some(Slot::Owner(owner)) = self.slots.get_mut(&slot)
                    && let Some(room) = owner.rooms.get_mut(&room)
                {
                    room.nodes.retain(|node| *node != from);
                    self.due_leases.insert(slot);
                }
            }
            Control::InterestAck { room, lineage, head, last } => {
                let facts = RoomFacts { lineage, head, last };
                self.handle_interest_ack(from, &key(room)?, facts, now, now_ms);
            }
            Control::Published { slot, shard: MERGED, oseq, .. } => {
                self.handle_merged(slot, from, oseq, None, now, now_ms);
            }
            Control::Refused { slot, shard: MERGED, oseq, why } => {
                self.handle_merged(slot, from, oseq, Some(why), now, now_ms);
            }
            Control::Published { slot, oseq, lineage, n, shard: _ } => {
                self.handle_published(from, slot, oseq, Ok(Stamp { lineage, n }));
            }
            Control::Refused { slot, oseq, why, shard: _ } => self.handle_published(from, slot, oseq, Err(why)),
            Control::NotOwner { slot } => {
                self.say_again(from, slot, now);
                self.distrust_presence(from, slot, now);
            }
            Control::Resend { slot } => self.say_again(from, slot, now),
            Control::Resync { shard, of, lane } => self.handle_resync(from, (shard, of), lane, now, now_ms),
            Control::InterestDigest(slot, rooms, sum) => self.handle_digest(from, slot, (rooms, sum)),
            Control::InterestLost(slot) => self.handle_interest_lost(from, slot, now),
            Control::Presence { room, said } => self.handle_said(from, &key(room)?, said, now, now_ms)?,
            Control::Slot { slot, say } => self.handle_say(from, slot, say, now, now_ms),
            Control::Told { shard, of, lane } => self.handle_told(from, (shard, of), lane, now),
            Control::LeaseAsk { room } => {
                self.handle_lease_ask(from, &key(room)?, now);
            }
            Control::Lease { room, upto, nodes } => self.handle_lease(from, &key(room)?, (upto, nodes), now),
            Control::Beat => {}
        }
        Ok(())
    }

    /// A peer has members of `room`: from here on it gets the frames, and is told where it starts.
    pub(super) fn handle_interest(&mut self, from: NodeId, room: &RoomKey) {
        let number = room.slot();
        if self.defers(number, || Early::Interest(from, room.clone())) {
            return;
        }
        let Slot::Owner(owner) = self.slot(number) else {
            return self.say_not_owner(from, number);
        };
        let owned = owner.room(room);
        if !owned.nodes.contains(&from) {
            owned.nodes.push(from);
        }
        let RoomFacts { lineage, head, last } = owner.facts(room);
        let ack = Control::InterestAck { room: room.as_bytes(), lineage, head, last }.encode();
        self.send(from, number, ack);
        self.due_leases.insert(number);
    }

    /// Says to the owner that this node wants `room`.
    pub(super) fn announce(&mut self, number: u16, room: &RoomKey, now: Instant) {
        let Some((owner, follower)) = self.reachable(number) else { return };
        if let Some(Followed { stream: Stream::Asking { asked_at }, .. }) = follower.rooms.get_mut(room) {
            *asked_at = Some(now);
            self.send(owner, number, Control::InterestAdd { room: room.as_bytes() }.encode());
        }
    }

    /// The owner's answer: the stream of `room` starts here.
    fn handle_interest_ack(&mut self, from: NodeId, room: &RoomKey, facts: RoomFacts, now: Instant, now_ms: u64) {
        let number = room.slot();
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&number) else { return };
        if follower.owner != Some(from) {
            return;
        }
        let Some(followed) = follower.rooms.get_mut(room) else {
            // Everybody left before the answer came.
            return self.send(from, number, Control::InterestDrop { room: room.as_bytes() }.encode());
        };
        if followed.is_following() {
            return;
        }
        let known = followed.lineage;
        if known == Some(facts.lineage) && facts.last > followed.last {
            followed.head = facts.head;
            let (after, count) = (followed.last, self.config.limits.of(room).history_size);
            return self.fill(room, Range { after, upto: facts.last, of: facts.lineage, count, newest: true });
        }
        if known != Some(facts.lineage) {
            followed.log.clear();
        }
        followed.lineage = Some(facts.lineage);
        followed.head = facts.head;
        followed.last = if known == Some(facts.lineage) { followed.last } else { facts.last };
        followed.stream = Stream::Following;
        if known.is_some_and(|known| known != facts.lineage) {
            self.gap(room);
        }
        self.serve_joins(room, now, now_ms);
    }

    /// Joins that waited for the stream to open.
    fn serve_joins(&mut self, room: &RoomKey, now: Instant, now_ms: u64) {
        if let Some(followed) = self.followed(room) {
            for join in std::mem::take(&mut followed.joins) {
                self.join(room, join, now, now_ms);
            }
        }
    }

    /// A frame the owner stamped.
    fn handle_stamped(&mut self, from: NodeId, frame: &Arc<Frame>, now: Instant) {
        let limits = self.config.limits.clone();
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&frame.slot) else { return };
        if follower.owner != Some(from) {
            return;
        }
        let Some(followed) = follower.rooms.get_mut(&frame.room) else { return };
        match &mut followed.stream {
            Stream::Asking { .. } => {}
            Stream::Filling { held, .. } => {
                if !held.push(frame.clone()) {
                    self.ask_again_now(&frame.room, now);
                }
            }
            Stream::Following => match followed.accept(frame, &limits) {
                Accepted::Next => {
                    let shards = followed.shards;
                    self.deliver(shards, frame);
                }
                Accepted::Repeat => {}
                Accepted::Gap => self.ask_again_now(&frame.room, now),
            },
        }
    }

    /// The stream of `room` is broken: ask the owner where it stands.
    pub(super) fn ask_again_now(&mut self, room: &RoomKey, now: Instant) {
        self.ask_again(room);
        self.announce(room.slot(), room, now);
        self.attend(room.slot(), now);
    }

    pub(super) fn ask_again(&mut self, room: &RoomKey) {
        if let Some(followed) = self.followed(room) {
            followed.stream = Stream::Asking { asked_at: None };
        }
    }

    fn fill(&mut self, room: &RoomKey, range: Range) {
        let read = self.next_read + 1;
        if let Some(followed) = self.followed(room) {
            followed.stream = Stream::Filling { read, upto: range.upto, held: Held::default() };
        }
        self.fetch_missing(room, range);
    }

    /// What was missing, from the owner. Joins wait one tick longer: their turn comes with the next answer.
    pub(super) fn handle_filled(&mut self, room: &RoomKey, read: u64, facts: RoomFacts, found: Found) {
        let limits = self.config.limits.clone();
        let Some(followed) = self.followed(room) else { return };
        let Stream::Filling { read: expected, upto, held } = &mut followed.stream else { return };
        if *expected != read {
            return;
        }
        if followed.lineage != Some(facts.lineage) {
            return self.ask_again(room);
        }
        let (upto, held) = (*upto, std::mem::take(held));
        let shards = followed.shards;
        followed.stream = Stream::Following;
        // What the members get, in order: a frame, or the position behind which something could not be had.
        let mut news: Vec<Result<Arc<Frame>, u64>> = Vec::new();
        for frame in found.frames {
            if frame.n > followed.last {
                news.extend(followed.skip_to(frame.prev).map(Err));
                followed.advance(&frame, &limits);
                news.push(Ok(frame));
            }
        }
        news.extend(followed.skip_to(upto).map(Err));
        let mut broken = false;
        for frame in held.into_frames() {
            broken |= frame.prev > followed.last;
            if !broken && frame.n > followed.last {
                followed.advance(&frame, &limits);
                news.push(Ok(frame));
            }
        }
        for new in news {
            match new {
                Ok(frame) => self.deliver(shards, &frame),
                Err(n) => self.gap_at(room, shards, Stamp { lineage: facts.lineage, n }),
            }
        }
        if broken {
            // What was held has a hole of its own: the owner is asked where it stands, and that is filled too.
            self.ask_again(room);
        }
    }

    /// Tells the members of `room` on this node that continuity was lost. The room of a whole namespace (it has no name)
    /// carries only volatile frames: it has no continuity to lose.
    pub(super) fn gap(&mut self, room: &RoomKey) {
        let (shards, stamp) = match self.slots.get(&room.slot()) {
            Some(Slot::Follower(follower)) => match follower.rooms.get(room) {
                Some(room) => (room.shards, Stamp { lineage: room.facts().lineage, n: room.head }),
                None => return,
            },
            Some(Slot::Owner(owner)) => {
                let facts = owner.facts(room);
                let shards = owner.rooms.get(room).map(|room| room.shards).unwrap_or_default();
                (shards, Stamp { lineage: facts.lineage, n: facts.head })
            }
            None => return,
        };
        self.gap_at(room, shards, stamp);
    }

    fn gap_at(&mut self, room: &RoomKey, shards: Shards, stamp: Stamp) {
        if room.room().is_empty() {
            return;
        }
        for shard in shards.iter() {
            self.outputs.push_back(Output::Gap { shard, room: room.clone(), stamp });
        }
    }

    pub(super) fn followed(&mut self, room: &RoomKey) -> Option<&mut Followed> {
        match self.slots.get_mut(&room.slot()) {
            Some(Slot::Follower(follower)) => follower.rooms.get_mut(room),
            Some(Slot::Owner(_)) | None => None,
        }
    }

    /// Joins of rooms whose stream is open again.
    pub(super) fn ready_joins(&mut self, number: u16) -> Vec<(RoomKey, Vec<PendingJoin>)> {
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&number) else { return Vec::new() };
        let open = follower.rooms.iter_mut().filter(|(_, room)| room.is_following() && !room.joins.is_empty());
        open.map(|(key, room)| (key.clone(), std::mem::take(&mut room.joins))).collect()
    }
}
