//! Two copies: what the owner stamps is kept by the replica before anybody is shown it (`semantics.md` 3, release rule).
//!
//! Invariants: frames reach the replica in the order of `n`, in the lane in which the term was begun; an ack counts in the
//! term in which it was given; acks and what was shown are said once at the end of a turn, however many frames they are for;
//! the replica gives to its store what was shown, never the tail.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    Answer, Output, Slot, Slots, Stamp,
    book::{Book, Waiter},
    copying::AGREED,
    seat::{Hole, Role, Seat, Source},
};
use crate::{
    NodeId,
    wire::{
        message::{Control, Frame},
        triple::{Life, Say, Term, TermId, encode_keep, plain},
    },
};

/// Frames that are sent again at once to a replica that did not ack them.
const AGAIN_MAX: usize = 512;

impl Slots {
    /// The owner of our term says where it goes on from. What is held and agrees is kept; else the copy is made anew.
    pub(super) fn meet(&mut self, number: u16, from: Life, term: &Term, at: (u64, TermId), base: u64) {
        let me = self.me();
        let Some(seat) = self.seats.get_mut(&number) else { return };
        if seat.term != *term || term.triple.owner != from {
            let newer = seat.term;
            return self.say(number, from, Say::Exists(newer));
        }
        if seat.let_take_over(me) {
            return;
        }
        if let Role::Copies(copy) = &mut seat.role
            && !copy.met
        {
            (copy.met, copy.base) = (true, base.max(at.0));
            let agrees = |book: &Book| book.n >= at.0 && book.starts.of(at.0) == Some(at.1);
            if copy.book.as_ref().is_some_and(agrees) {
                // A copy that was being made goes on, perhaps from another owner's pages.
                if copy.hole != Hole::Closed {
                    copy.hole = Hole::Rooms(AGREED);
                }
            } else {
                copy.book = Some(Book::new(term.id, at.0, at.1));
                (copy.hole, copy.whole, copy.fence) = (Hole::Rooms(AGREED), false, at.0);
                self.outputs.push_back(Output::Forget { slot: number });
            }
            if let Some(book) = &mut copy.book {
                book.term = term.id;
            }
            copy.look();
        }
        if term.triple.has(me) {
            self.due_acks.insert(number);
        }
    }

    /// A frame to keep.
    pub(super) fn handle_keep(&mut self, from: NodeId, id: TermId, frame: Frame, bytes: Bytes) {
        let number = frame.slot;
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let owner = seat.term.triple.owner;
        if seat.term.id != id || owner.node != from {
            if seat.term.id.lineage == id.lineage && seat.term.id.number > id.number {
                let term = seat.term;
                self.say_to(number, from, Say::Exists(term));
            }
            return;
        }
        if let Some(copy) = seat.copy_mut().filter(|copy| copy.met)
            && let Some(book) = &mut copy.book
        {
            book.take(frame, bytes, id);
            copy.look();
            self.due_acks.insert(number);
        }
    }

    /// The replica holds frames, or the witness knows us.
    pub(super) fn handle_ack(
        &mut self,
        number: u16,
        from: Life,
        id: TermId,
        (n, whole): (Option<u64>, bool),
        now_ms: u64,
    ) {
        let Some(seat) = self.seats.get_mut(&number) else { return };
        let term = seat.term;
        if term.id != id {
            // It missed something.
            return self.say(number, from, Say::Exists(term));
        }
        if let Role::Watches(kept) = &mut seat.role {
            // The new replica has all now.
            return *kept = kept.take().filter(|_| !whole);
        }
        let Some(Slot::Owner(book)) = self.slots.get(&number) else { return };
        let Some(lead) = seat.lead_mut() else { return };
        if term.triple.witness == Some(from) {
            lead.witness_met = true;
        }
        if let (true, Some(n)) = (term.triple.replica == Some(from), n) {
            lead.acked = lead.acked.max(Some(n.min(book.n)));
            lead.copied |= whole;
            self.release_tail(number, now_ms);
        }
    }

    /// The owner has shown frames.
    pub(super) fn handle_shown(&mut self, number: u16, from: Life, id: TermId, n: u64, now: Instant, now_ms: u64) {
        let said = |seat: &&Seat| seat.term.id == id && seat.term.triple.owner == from;
        if self.seats.get(&number).filter(said).is_some() {
            self.note_shown(number, n, now, now_ms);
        }
    }

    /// Frames up to there were shown: they are history here, too.
    pub(super) fn note_shown(&mut self, number: u16, n: u64, now: Instant, now_ms: u64) {
        let limits = self.config.limits.clone();
        let Some(book) = self.seats.get_mut(&number).and_then(Seat::held_mut) else { return };
        while let Some(tailed) = book.show_next(n, &limits, now_ms) {
            book.remember(&tailed.frame, now);
            if limits.of(&tailed.frame.room).history_size > 0 {
                let bytes = plain(&tailed.keep);
                self.outputs.push_back(Output::Append { frame: tailed.frame, bytes });
            }
        }
    }

    /// Sends the newest frame of the tail to the replica.
    pub(super) fn send_newest_kept(&mut self, number: u16) {
        let last = match self.slots.get(&number) {
            Some(Slot::Owner(book)) => book.n.saturating_sub(1),
            Some(Slot::Follower(_)) | None => return,
        };
        self.send_kept(number, last, 1);
    }

    /// Sends again all of the tail that the replica has not acked.
    pub(super) fn send_tail(&mut self, number: u16) {
        let acked = self.seats.get(&number).and_then(|seat| seat.lead()).and_then(|lead| lead.acked);
        self.send_kept(number, acked.unwrap_or(0), AGAIN_MAX);
    }

    fn send_kept(&mut self, number: u16, behind: u64, most: usize) {
        let Some((term, Some(replica))) = self.seats.get(&number).map(|seat| (seat.term, seat.term.triple.replica))
        else {
            return;
        };
        if self.generations.get(&replica.node) != Some(&replica.generation) {
            return;
        }
        let Some(Slot::Owner(book)) = self.slots.get_mut(&number) else { return };
        let frames: Vec<Bytes> = book
            .behind(behind)
            .take(most)
            .map(|tailed| {
                if tailed.said_in != term.id {
                    (tailed.keep, tailed.said_in) = (encode_keep(term.id, &tailed.frame), term.id);
                }
                tailed.keep.clone()
            })
            .collect();
        for frame in frames {
            self.send(replica.node, number, frame);
        }
    }

    /// Shows what may be shown and was not.
    pub(super) fn release_tail(&mut self, number: u16, now_ms: u64) {
        let Some(seat) = self.seats.get(&number) else { return };
        let (false, Some(lead)) = (seat.gives_way(), seat.lead()) else { return };
        let upto = if seat.is_alone() { u64::MAX } else { lead.acked.unwrap_or(0) };
        let limits = self.config.limits.clone();
        let mut shown = false;
        while let Some(Slot::Owner(book)) = self.slots.get_mut(&number)
            && let Some(tailed) = book.show_next(upto, &limits, now_ms)
        {
            shown = true;
            let bytes = if tailed.keep.is_empty() { tailed.frame.encode() } else { plain(&tailed.keep) };
            self.hand_out(number, &tailed.frame, bytes);
            for waiter in tailed.waiting {
                let stamp = Stamp { lineage: tailed.frame.lineage, n: tailed.frame.n };
                self.tell_waiter(number, waiter, stamp);
            }
        }
        if shown {
            self.due_shown.insert(number);
        }
        self.answer_early(number);
    }

    fn tell_waiter(&mut self, number: u16, waiter: Waiter, stamp: Stamp) {
        match waiter {
            Waiter::Here(ask, _) => self.answer(ask, Answer::Published(Ok(stamp))),
            Waiter::There { node, shard, oseq } => {
                let Stamp { lineage, n } = stamp;
                self.send(node, number, Control::Published { slot: number, shard, oseq, lineage, n }.encode());
            }
        }
    }

    /// Gives a frame that was shown to the store, to the interested nodes and to this node's shards with members.
    pub(super) fn hand_out(&mut self, number: u16, frame: &Arc<Frame>, bytes: Bytes) {
        let Some(Slot::Owner(book)) = self.slots.get(&number) else { return };
        let (nodes, shards, delivered) = book
            .rooms
            .get(&frame.room)
            .map_or_else(Default::default, |room| (room.nodes.clone(), room.shards, room.delivered));
        for node in nodes {
            self.send(node, number, bytes.clone());
        }
        if self.config.limits.of(&frame.room).history_size > 0 {
            self.outputs.push_back(Output::Append { frame: frame.clone(), bytes });
        }
        if frame.n > delivered {
            self.deliver(shards, frame);
        }
    }

    /// Says what a turn has brought: acks to owners, to replicas what was shown, and to lessees who wants their rooms.
    pub(super) fn say_due(&mut self) {
        let (acks, shown) = (std::mem::take(&mut self.due_acks), std::mem::take(&mut self.due_shown));
        for number in acks {
            let Some(seat) = self.seats.get_mut(&number) else { continue };
            let term = seat.term;
            let (n, whole, tell) = match &mut seat.role {
                Role::Copies(copy) => {
                    let n = copy.book.as_ref().filter(|_| copy.met).map(|book| book.n);
                    let tell = copy.met && copy.whole && copy.source == Source::Owner;
                    (n, copy.whole, tell && !std::mem::replace(&mut copy.told, tell))
                }
                Role::Leads(_) | Role::Watches(_) => (None, false, false),
            };
            let ack = Say::Ack { term: term.id, n, whole };
            self.say(number, term.triple.owner, ack);
            if let (true, Some(witness)) = (tell, term.triple.witness) {
                self.say(number, witness, ack);
            }
        }
        for number in shown {
            let (Some(seat), Some(Slot::Owner(book))) = (self.seats.get(&number), self.slots.get(&number)) else {
                continue;
            };
            if let (term, Some(replica)) = (seat.term, seat.term.triple.replica) {
                let n = book.shown;
                self.say(number, replica, Say::Shown { term: term.id, n });
            }
        }
        self.say_leases();
    }
}
