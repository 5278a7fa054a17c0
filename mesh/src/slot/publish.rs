//! Publishing: stamped here when the slot is ours, sent to its owner when it is not.
//!
//! Invariants: a publish is answered exactly once, by its stamp or by a refusal; a frame is encoded once for the store and
//! all peers; the answer comes after the frame's own outputs.

use std::{sync::Arc, time::Instant};

use super::{
    Answer, Ask, Output, Publish, Seat, Shards, Slot, Slots, Stamp, Storage,
    book::{Rules, Verdict, Waiter},
    follower::{Follower, Unanswered},
};
use crate::{
    NodeId,
    wire::{
        message::{Control, Frame, Origin, Refusal},
        triple::Say,
    },
};

/// Publishes of this node that may wait while a slot is being handed over.
const HELD_MAX: usize = 4_096;

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
        if frame.is_volatile() {
            self.publish_volatile(frame, ask, now);
        } else {
            self.publish_frame(frame, ask, true, now, now_ms);
        }
    }

    /// Publishes a frame of this node, now or again after the slot changed hands.
    pub(super) fn publish_frame(&mut self, frame: Frame, ask: Ask, is_new: bool, now: Instant, now_ms: u64) {
        let number = frame.slot;
        let limits = self.config.limits.of(&frame.room);
        self.slot(number);
        let seat = self.seats.get_mut(&number);
        if let Some(lead) = seat.filter(|seat| seat.gives_way()).and_then(|seat| seat.lead_mut()) {
            if lead.held.len() >= HELD_MAX {
                return self.answer(ask, Answer::Published(Err(Refusal::Overloaded { retry_ms: 1_000 })));
            }
            return lead.held.push_back((frame, ask));
        }
        let (storage, alone, remember) =
            (self.storage_of(number), self.is_alone(number), self.seats.contains_key(&number));
        match self.slot(number) {
            Slot::Owner(book) => {
                let verdict =
                    book.publish(frame, is_new, &Rules { limits: &limits, storage, alone, remember, now, now_ms });
                let result = if matches!(verdict, Verdict::Early | Verdict::Ignore) {
                    // Its stamp was forgotten: it may have had an effect.
                    Some(Err(Refusal::Timeout))
                } else {
                    self.perform(number, verdict, Waiter::Here(ask, now + limits.patience), now_ms)
                };
                if let Some(result) = result {
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
        self.slot(number);
        if self.seats.get(&number).is_some_and(Seat::gives_way) {
            // It comes again, here or to the next owner.
            return;
        }
        let (storage, alone, remember) =
            (self.storage_of(number), self.is_alone(number), self.seats.contains_key(&number));
        let Slot::Owner(book) = self.slot(number) else {
            return self.say_not_owner(from, number);
        };
        let verdict = book.publish(frame, false, &Rules { limits: &limits, storage, alone, remember, now, now_ms });
        if matches!(verdict, Verdict::Early) {
            return self.send(from, number, Control::Resend { slot: number }.encode());
        }
        self.released_for_peers += u64::from(matches!(verdict, Verdict::Release(..) | Verdict::Kept(_)));
        let (slot, shard, oseq) = (number, origin.shard, origin.oseq);
        let waiter = Waiter::There { node: from, shard, oseq };
        let Some(result) = self.perform(number, verdict, waiter, now_ms) else { return };
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
    fn perform(
        &mut self,
        number: u16,
        verdict: Verdict,
        waiter: Waiter,
        now_ms: u64,
    ) -> Option<Result<Stamp, Refusal>> {
        match verdict {
            Verdict::Release(frame, stamp) => {
                let bytes = frame.encode();
                self.hand_out(number, &frame, bytes);
                Some(Ok(stamp))
            }
            Verdict::Kept(stamp) => {
                self.wait(number, stamp.n, waiter);
                self.send_newest_kept(number);
                if self.is_alone(number) {
                    // Others wait before it, and nobody will ack them.
                    self.release_tail(number, now_ms);
                }
                None
            }
            Verdict::Waits(stamp) => {
                self.wait(number, stamp.n, waiter);
                None
            }
            Verdict::Repeat(stamp) => Some(Ok(stamp)),
            Verdict::Refuse(why) => Some(Err(why)),
            Verdict::Early | Verdict::Ignore => None,
        }
    }

    /// This node cannot take what is for the slot's owner; it says who can, if it knows.
    pub(super) fn say_not_owner(&mut self, to: NodeId, number: u16) {
        if let Some(seat) = self.seats.get(&number) {
            let term = seat.term;
            self.say_to(number, to, Say::Exists(term));
        }
        self.send(to, number, Control::NotOwner { slot: number }.encode());
    }

    fn wait(&mut self, number: u16, n: u64, waiter: Waiter) {
        if let Some(Slot::Owner(book)) = self.slots.get_mut(&number) {
            book.wait(n, waiter);
        }
    }

    /// Nobody else has to hold a frame of this slot before it is shown.
    fn is_alone(&self, number: u16) -> bool {
        self.seats.get(&number).is_none_or(Seat::is_alone)
    }

    /// Where another node holds everything, this one's disk may be full.
    fn storage_of(&self, number: u16) -> Storage {
        let copied = self.seats.get(&number).and_then(|seat| seat.lead()).is_some_and(|lead| lead.copied);
        if copied { Storage::Ok } else { self.storage }
    }

    /// Publishes what came while the slot was being handed over and was not.
    pub(super) fn publish_held(&mut self, number: u16, now: Instant, now_ms: u64) {
        let lead = self.seats.get_mut(&number).filter(|seat| !seat.gives_way()).and_then(|seat| seat.lead_mut());
        let held = lead.map(|lead| std::mem::take(&mut lead.held)).unwrap_or_default();
        for (frame, ask) in held {
            self.publish_frame(frame, ask, true, now, now_ms);
        }
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
