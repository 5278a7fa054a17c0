//! Who owns what, and who can be reached: views and links turn slots from owned to followed and back.
//!
//! Invariants: nothing that waits is lost when a slot changes hands: publishes and joins are done again in their order
//! under the new role; interest of a peer lives as long as its link.

use std::{collections::VecDeque, time::Instant};

use super::{
    Ask, Slot, Slots,
    book::{Book, Waiter},
    follower::{Followed, Follower, Stream},
    lane_of,
    seat::Lead,
};
use crate::{
    NodeId, View,
    room::RoomKey,
    wire::{message::Frame, triple::TermId},
};

impl Slots {
    /// A new view: slots may change hands.
    pub fn handle_view(&mut self, view: &View, now: Instant, now_ms: u64) {
        self.table = Some(view.table.clone());
        (self.now, self.now_ms) = (Some(now), now_ms);
        self.ticked.get_or_insert(now);
        self.note_view(view, now);
        self.note_members(now);
        let numbers: Vec<u16> = self.slots.keys().copied().collect();
        for number in numbers {
            self.reassign(number, now);
        }
        self.reassign_presence(now, now_ms);
    }

    /// The link to this process of `node` is up: everything that waits for it goes out.
    pub fn handle_link_up(&mut self, node: NodeId, generation: u64, now: Instant, now_ms: u64) {
        self.links.insert(node);
        self.generations.insert(node, generation);
        self.note_heard(node, now);
        self.tell_terms(node);
        self.go_on_with(node);
        self.resync.retain(|(have, _)| *have != node);
        let numbers: Vec<u16> = self.slots.keys().copied().collect();
        for number in numbers {
            self.approach(number, node, now);
        }
        self.say_presence_again(node, now, now_ms);
    }

    /// The link to `node` is down: it gets nothing until it asks again, and its streams are broken.
    pub fn handle_link_down(&mut self, node: NodeId, now: Instant, now_ms: u64) {
        self.links.remove(&node);
        self.generations.remove(&node);
        self.told.remove(&node);
        self.resync.retain(|(have, _)| *have != node);
        for (number, slot) in &mut self.slots {
            match slot {
                Slot::Owner(owner) => {
                    owner.drop_node(node);
                    self.due_leases.insert(*number);
                }
                Slot::Follower(follower) if follower.owner == Some(node) => {
                    for room in follower.rooms.values_mut() {
                        room.stream = Stream::Asking { asked_at: None };
                    }
                }
                Slot::Follower(_) => {}
            }
        }
        let waiting: Vec<u16> = self.slots.iter().filter(|(_, slot)| is_waiting(slot)).map(|(n, _)| *n).collect();
        for number in waiting {
            self.attend(number, now);
        }
        self.lose_presence(node, now, now_ms);
    }

    /// A frame for `node` was dropped because this lane to it is full. What it owns of the lane's slots gets our publishes
    /// again, in order, with the next retry; what it follows of them it is told to ask for anew.
    pub fn handle_send_failed(&mut self, node: NodeId, lane: u8, now: Instant) {
        let mut waiting = Vec::new();
        for (number, slot) in self.slots.iter_mut().filter(|(number, _)| lane_of(**number) == lane) {
            match slot {
                Slot::Owner(owner) => {
                    owner.drop_node(node);
                    self.due_leases.insert(*number);
                }
                Slot::Follower(follower) if follower.owner == Some(node) && follower.is_waiting() => {
                    waiting.push(*number);
                }
                Slot::Follower(_) => {}
            }
        }
        for number in waiting {
            self.say_again(node, number, now);
        }
        self.lose_presence_words(node, lane, now);
        self.resync.insert((node, lane));
        self.sweep_soon(now);
    }

    /// The slot's owner did not take, or not get, what it was sent: all of it goes out again, in order, with the next retry.
    pub(super) fn say_again(&mut self, owner: NodeId, number: u16, now: Instant) {
        if let Some(Slot::Follower(follower)) = self.slots.get_mut(&number)
            && follower.owner == Some(owner)
        {
            follower.again = true;
            self.attend(number, now);
        }
    }

    /// The owner dropped frames for us: say our interest in the rooms of that shard and lane again.
    pub(super) fn handle_resync(&mut self, from: NodeId, (shard, of): (u8, u8), lane: u8, now: Instant, now_ms: u64) {
        let of = u16::from(of.max(1));
        let meant = |number: &u16| number % of == u16::from(shard) && lane_of(*number) == lane;
        let numbers: Vec<u16> = self.slots.keys().copied().filter(meant).collect();
        for number in numbers {
            self.approach(number, from, now);
        }
        self.resync_presence(from, |number| meant(&number), now, now_ms);
    }

    /// Says again to `node` all that this slot wants of it, if it is the slot's owner.
    pub(super) fn approach(&mut self, number: u16, node: NodeId, now: Instant) {
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&number) else { return };
        if follower.owner != Some(node) {
            return;
        }
        follower.again = false;
        if self.links.contains(&node) {
            follower.leases.clear();
        }
        let mut rooms: Vec<RoomKey> = Vec::with_capacity(follower.rooms.len());
        for (key, room) in &mut follower.rooms {
            room.stream = Stream::Asking { asked_at: None };
            rooms.push(key.clone());
        }
        for room in rooms {
            self.announce(number, &room, now);
        }
        self.resend(number, true, now);
        self.attend(number, now);
    }

    /// A slot that is led elsewhere: follow who leads it now.
    pub(super) fn reassign(&mut self, number: u16, now: Instant) {
        let owner = self.owner_of(number);
        match self.slots.get_mut(&number) {
            Some(Slot::Follower(follower)) if follower.owner != owner => follower.owner = owner,
            Some(Slot::Follower(_) | Slot::Owner(_)) | None => return,
        }
        let readings = self.take_readings(number);
        if let Some(owner) = owner {
            self.approach(number, owner, now);
        }
        let now_ms = self.now_ms;
        for (room, asker) in readings {
            self.read_again(&room, asker, now, now_ms);
        }
    }

    /// The slot is another's now: follow it with the rooms that have members here, and publish to it what was not shown.
    /// Its seat is one that leads no more. What was held is given back.
    pub(super) fn step_down(&mut self, number: u16, lead: Lead, now: Instant, now_ms: u64) -> Option<Book> {
        let Some(Slot::Owner(mut book)) = self.slots.remove(&number) else { return None };
        let mut follower = Follower::new(None);
        for (key, room) in book.rooms.iter_mut().filter(|(_, room)| !room.shards.is_empty()) {
            let mut followed = Followed::new();
            followed.shards = std::mem::take(&mut room.shards);
            followed.lineage = Some(book.term.lineage);
            followed.last = room.last.max(room.delivered);
            follower.rooms.insert(key.clone(), followed);
        }
        book.rooms.values_mut().for_each(|room| room.nodes.clear());
        book.leases.clear();
        self.slots.insert(number, Slot::Follower(follower));
        let here = |waiter: &Waiter| match waiter {
            Waiter::Here(ask, _) => Some(*ask),
            Waiter::There { .. } => None,
        };
        let unshown = book
            .tail
            .iter()
            .flat_map(|tailed| tailed.waiting.iter().filter_map(here).map(|ask| (unstamped(&tailed.frame), ask)));
        let Lead { held, early, .. } = lead;
        let again: Vec<(Frame, Ask)> = unshown.chain(held).collect();
        self.reassign(number, now);
        self.ask_elsewhere(early, now, now_ms);
        for (frame, ask) in again {
            self.publish_frame(frame, ask, false, now, now_ms);
        }
        Some(book)
    }

    /// The slot is ours now, with all that the book holds. Members here get what they did not have yet, or are told. `begins`
    /// names the lineage that goes on from here, where it is another one.
    pub(super) fn take_over(&mut self, number: u16, mut book: Book, begins: Option<TermId>, now: Instant, now_ms: u64) {
        let follower = match self.slots.remove(&number) {
            Some(Slot::Follower(follower)) => Some(follower),
            Some(Slot::Owner(_)) | None => None,
        };
        let led = follower.as_ref().and_then(|follower| follower.owner).is_some_and(|owner| owner != self.config.node);
        if led || begins.is_none() {
            self.presence.take(number, now);
        }
        let readings = self.take_readings(number);
        book.inherit(now);
        let mut missed = Vec::new();
        let (mut lost, mut joins) = (Vec::new(), Vec::new());
        let mut unanswered = VecDeque::new();
        if let Some(mut follower) = follower {
            unanswered = follower.take_unanswered();
            let lineage = book.term.lineage;
            for (key, followed) in follower.rooms {
                let room = book.room(&key);
                room.shards = followed.shards;
                joins.extend(followed.joins.into_iter().map(|join| (key.clone(), join)));
                let Some(known) = followed.lineage else { continue };
                // Members may have had frames that are still in the tail here.
                room.delivered = if known == lineage { followed.last } else { room.last };
                if begins.is_some() {
                    room.delivered = room.delivered.max(room.last);
                    lost.push(key);
                } else if known == lineage && (followed.last >= room.last || room.log.covers(followed.last)) {
                    let frames = room.log.range(followed.last, u64::MAX);
                    missed.extend(frames.cloned().map(|frame| (followed.shards, frame)));
                } else {
                    room.delivered = room.delivered.max(room.last);
                    lost.push(key);
                }
            }
        }
        if let Some(id) = begins {
            book.restamp(id, now);
        }
        self.slots.insert(number, Slot::Owner(book));
        for (shards, frame) in missed {
            self.deliver(shards, &frame);
        }
        for room in lost {
            self.gap(&room);
        }
        for unanswered in unanswered {
            let ask = unanswered.ask;
            self.publish_frame(unanswered.into_frame(), ask, false, now, now_ms);
        }
        for (room, join) in joins {
            self.join(&room, join, now, now_ms);
        }
        for (room, asker) in readings {
            self.read_again(&room, asker, now, now_ms);
        }
    }
}

/// A publish as it was before somebody stamped it.
fn unstamped(frame: &Frame) -> Frame {
    Frame { lineage: 0, term: 0, n: 0, prev: 0, ..frame.clone() }
}

fn is_waiting(slot: &Slot) -> bool {
    match slot {
        Slot::Owner(_) => false,
        Slot::Follower(follower) => follower.is_waiting(),
    }
}
