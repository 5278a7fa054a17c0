//! Publishing: stamped here when the slot is ours, sent to its owner when it is not.
//!
//! Invariants: a publish is answered exactly once, by its stamp or by a refusal; a frame is encoded once for the store and
//! all peers; the answer comes after the frame's own outputs.

use std::{sync::Arc, time::Instant};

use super::{
    Answer, Ask, Output, Publish, Shards, Slot, Slots, Stamp,
    follower::{Follower, Unanswered},
    owner::{OwnedRoom, Rules, Verdict},
};
use crate::{
    NodeId,
    wire::message::{Control, Frame, Origin, Refusal},
};

impl Slots {
    /// Publishes for a socket of this node.
    pub fn handle_publish(&mut self, publish: Publish, ask: Ask, now: Instant, now_ms: u64) {
        self.next_oseq += 1;
        let origin = Origin {
            node: self.config.node,
            generation: self.config.generation,
            shard: self.config.shard,
            oseq: self.next_oseq,
        };
        let slot = publish.room.slot();
        let frame = Frame {
            slot,
            origin,
            room: publish.room,
            flags: publish.flags,
            id: publish.id,
            from: publish.from,
            except: publish.except,
            payload: publish.payload,
            lineage: 0,
            term: 0,
            n: 0,
            prev: 0,
            time_ms: 0,
        };
        self.publish_frame(frame, ask, now, now_ms);
    }

    /// Publishes a frame of this node, now or again after the slot changed hands.
    pub(super) fn publish_frame(&mut self, frame: Frame, ask: Ask, now: Instant, now_ms: u64) {
        let number = frame.slot;
        let limits = self.config.limits.of(&frame.room);
        let storage = self.storage;
        match self.slot(number) {
            Slot::Owner(owner) => {
                let verdict = owner.publish(frame, true, &Rules { limits: &limits, storage, now, now_ms });
                if let Some(result) = self.perform(number, verdict) {
                    self.answer(ask, Answer::Published(result));
                }
            }
            Slot::Follower(follower) => {
                let deadline = now + limits.patience;
                match follower.enqueue(Unanswered::new(frame, ask, deadline)) {
                    Ok(()) => {
                        self.attend(number, now);
                        self.send_newest(number, now);
                    }
                    Err(ask) => {
                        let why = Refusal::Overloaded { retry_ms: 1_000 };
                        self.answer(ask, Answer::Published(Err(why)));
                    }
                }
            }
        }
    }

    /// A publish of another node.
    pub(super) fn handle_remote_publish(&mut self, from: NodeId, frame: Frame, now: Instant, now_ms: u64) {
        let (number, origin) = (frame.slot, frame.origin);
        let limits = self.config.limits.of(&frame.room);
        let storage = self.storage;
        let Slot::Owner(owner) = self.slot(number) else {
            return self.send(from, number, Control::NotOwner { slot: number }.encode());
        };
        let verdict = owner.publish(frame, false, &Rules { limits: &limits, storage, now, now_ms });
        if matches!(verdict, Verdict::Early) {
            return self.send(from, number, Control::Resend { slot: number }.encode());
        }
        self.released_for_peers += u64::from(matches!(verdict, Verdict::Release(..)));
        let Some(result) = self.perform(number, verdict) else { return };
        let (slot, shard, oseq) = (number, origin.shard, origin.oseq);
        let answer = match result {
            Ok(Stamp { lineage, n }) => Control::Published { slot, shard, oseq, lineage, n },
            Err(why) => Control::Refused { slot, shard, oseq, why },
        };
        self.send(from, number, answer.encode());
    }

    /// The owner's answer to a publish of ours.
    pub(super) fn handle_published(&mut self, from: NodeId, slot: u16, oseq: u64, result: Result<Stamp, Refusal>) {
        if let Some(Slot::Follower(follower)) = self.slots.get_mut(&slot)
            && follower.owner == Some(from)
            && let Some(unanswered) = follower.answered(oseq)
        {
            self.answer(unanswered.ask, Answer::Published(result));
        }
    }

    /// Performs an owner's verdict; the answer, if somebody is to be answered.
    fn perform(&mut self, number: u16, verdict: Verdict) -> Option<Result<Stamp, Refusal>> {
        match verdict {
            Verdict::Release(frame, stamp) => {
                self.release(number, &frame);
                Some(Ok(stamp))
            }
            Verdict::Repeat(stamp) => Some(Ok(stamp)),
            Verdict::Refuse(why) => Some(Err(why)),
            Verdict::Early | Verdict::Ignore => None,
        }
    }

    /// Gives a frame to the store, to the interested nodes and to this node's shards with members.
    fn release(&mut self, number: u16, frame: &Arc<Frame>) {
        let Some(Slot::Owner(owner)) = self.slots.get(&number) else { return };
        let (nodes, shards) = owner
            .rooms
            .get(&frame.room)
            .map_or_else(Default::default, |room: &OwnedRoom| (room.nodes.clone(), room.shards));
        if !frame.is_volatile() || !nodes.is_empty() {
            let bytes = frame.encode();
            for node in nodes {
                self.send(node, number, bytes.clone());
            }
            if !frame.is_volatile() && self.config.limits.of(&frame.room).history_size > 0 {
                self.outputs.push_back(Output::Append { frame: frame.clone(), bytes });
            }
        }
        self.deliver(shards, frame);
    }

    pub(super) fn deliver(&mut self, shards: Shards, frame: &Arc<Frame>) {
        for shard in shards.iter() {
            self.outputs.push_back(Output::Deliver { shard, frame: frame.clone() });
        }
    }

    /// Sends the newest publish of the slot, unless it has to wait.
    fn send_newest(&mut self, number: u16, now: Instant) {
        if let Some((owner, follower)) = self.reachable(number)
            && let Some(frame) = follower.newest_to_send(now)
        {
            self.send(owner, number, frame);
        }
    }

    /// Sends unanswered publishes of the slot again, in order: all, or only those that wait for long.
    pub(super) fn resend(&mut self, number: u16, all: bool, now: Instant) {
        if let Some((owner, follower)) = self.reachable(number) {
            for frame in follower.due_to_send(all, now) {
                self.send(owner, number, frame);
            }
        }
    }

    /// The slot and its owner, if that is another node and its link is up.
    pub(super) fn reachable(&mut self, number: u16) -> Option<(NodeId, &mut Follower)> {
        match self.slots.get_mut(&number) {
            Some(Slot::Follower(follower)) => {
                let owner = follower.owner.filter(|owner| self.links.contains(owner))?;
                Some((owner, follower))
            }
            Some(Slot::Owner(_)) | None => None,
        }
    }
}
