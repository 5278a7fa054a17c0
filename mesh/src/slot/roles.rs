//! Who owns what, and who can be reached: views and links turn slots from owned to followed and back.
//!
//! Invariants: nothing that waits is lost when a slot changes hands: publishes and joins are done again in their order
//! under the new role; interest of a peer lives as long as its link.

use std::{sync::Arc, time::Instant};

use super::{
    Slot, Slots,
    follower::{Followed, Follower, Stream},
    lane_of,
    owner::Owner,
};
use crate::{NodeId, Table, room::RoomKey};

impl Slots {
    /// A new table: slots change hands.
    pub fn handle_view(&mut self, table: Arc<Table>, now: Instant, now_ms: u64) {
        self.table = Some(table);
        self.note_members(now);
        let numbers: Vec<u16> = self.slots.keys().copied().collect();
        for number in numbers {
            self.reassign(number, now, now_ms);
        }
        self.reassign_presence(now, now_ms);
    }

    /// The link to `node` is up: everything that waits for it goes out.
    pub fn handle_link_up(&mut self, node: NodeId, now: Instant, now_ms: u64) {
        self.links.insert(node);
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
        self.resync.retain(|(have, _)| *have != node);
        for slot in self.slots.values_mut() {
            match slot {
                Slot::Owner(owner) => owner.drop_node(node),
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
                Slot::Owner(owner) => owner.drop_node(node),
                Slot::Follower(follower) if follower.owner == Some(node) && follower.is_waiting() => {
                    waiting.push(*number);
                }
                Slot::Follower(_) => {}
            }
        }
        for number in waiting {
            self.say_again(node, number, now);
        }
        self.presence.distrust(node, |number| lane_of(number) == lane, now);
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

    fn reassign(&mut self, number: u16, now: Instant, now_ms: u64) {
        let (me, owner) = (self.config.node, self.owner_of(number));
        let Some(slot) = self.slots.get(&number) else { return };
        match slot {
            Slot::Owner(_) if owner == Some(me) => return,
            Slot::Follower(follower) if follower.owner == owner => return,
            Slot::Owner(_) | Slot::Follower(_) => {}
        }
        let Some(old) = self.slots.remove(&number) else { return };
        let readings = self.take_readings(number);
        match (old, owner == Some(me)) {
            (Slot::Owner(owned), _) => self.resign(number, &owned, owner, now),
            (Slot::Follower(follower), true) => self.take_over(number, follower, now, now_ms),
            (Slot::Follower(mut follower), false) => {
                follower.owner = owner;
                self.slots.insert(number, Slot::Follower(follower));
                if let Some(owner) = owner {
                    self.approach(number, owner, now);
                }
            }
        }
        for (room, asker) in readings {
            self.read_again(&room, asker, now, now_ms);
        }
    }

    /// The slot is another's now: follow it with the rooms that have members here.
    fn resign(&mut self, number: u16, owned: &Owner, owner: Option<NodeId>, now: Instant) {
        let mut follower = Follower::new(owner);
        for (key, room) in owned.rooms.iter().filter(|(_, room)| !room.shards.is_empty()) {
            let mut followed = Followed::new();
            followed.shards = room.shards;
            followed.lineage = Some(owned.lineage);
            followed.last = room.last;
            follower.rooms.insert(key.clone(), followed);
        }
        self.slots.insert(number, Slot::Follower(follower));
        if let Some(owner) = owner {
            self.approach(number, owner, now);
        }
    }

    /// The slot is ours now. With one copy nothing proves what the old owner stamped: a new lineage, and members are told.
    fn take_over(&mut self, number: u16, mut follower: Follower, now: Instant, now_ms: u64) {
        let mut owner = self.open(number);
        let mut lost = Vec::new();
        let mut joins = Vec::new();
        let unanswered = follower.take_unanswered();
        for (key, followed) in follower.rooms {
            owner.room(&key).shards = followed.shards;
            if followed.lineage.is_some_and(|lineage| lineage != owner.lineage) {
                lost.push(key.clone());
            }
            joins.extend(followed.joins.into_iter().map(|join| (key.clone(), join)));
        }
        self.slots.insert(number, Slot::Owner(owner));
        for room in lost {
            self.gap(&room);
        }
        for unanswered in unanswered {
            let ask = unanswered.ask;
            self.publish_frame(unanswered.into_frame(), ask, now, now_ms);
        }
        for (room, join) in joins {
            self.join(&room, join, now, now_ms);
        }
    }
}

fn is_waiting(slot: &Slot) -> bool {
    match slot {
        Slot::Owner(_) => false,
        Slot::Follower(follower) => follower.is_waiting(),
    }
}
