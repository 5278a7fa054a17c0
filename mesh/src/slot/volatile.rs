//! Volatile messages: no order, no history, no second copy. Whoever is here gets them at once, the rest straight from the
//! origin, and what meets a full queue is gone.
//!
//! Only a slot's owner knows which nodes want a room (`interest`). The first messages therefore go by way of the owner, who
//! hands them on and answers with a lease: the nodes that want the room. With it the origin sends to them itself, one hop
//! instead of two, also while the owner is stopped or dead. The owner tells its lessees of every change of that set at the end
//! of the turn that brought it; the origin renews a lease that it uses, and an old one ends by itself. A lease ends earlier when
//! the link to the owner, or to the next owner, comes up, or when either side finds that messages between them were lost: then
//! the way is by the owner again. A room that nobody wants has no lease.
//!
//! Invariants:
//! - a message of a node is handed out by itself or by the owner, never by both, so nobody gets it twice;
//! - a lease begins only when the owner has handed out all that the origin sent it in this slot before: what one node publishes
//!   overtakes itself only where links differ by more than a hop;
//! - nothing volatile waits: not for an owner, an ack, a hand-over or a lane; it takes no `n`, and no `prev` names it;
//! - an owner keeps a lease longer than its holder believes in it; leases are bounded by `LEASES_MAX` per slot and origin.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{Answer, Ask, Output, Slot, Slots, Stamp, book::Book, follower::Follower, lane_of};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{
        message::{Control, Frame, NO_TERM},
        triple::Say,
    },
};

/// How long an origin believes in a lease that nobody renews or changes.
const LEASE: Duration = Duration::from_secs(10);
/// When it asks for a longer one, if it publishes.
const RENEW: Duration = Duration::from_secs(5);
/// How soon it asks again without an answer.
const RENEW_AGAIN: Duration = Duration::from_secs(1);
/// How long the owner tells of changes.
const KEEP: Duration = Duration::from_secs(20);
/// Rooms of a slot that one origin has leases of; what it publishes to others goes by the owner.
const LEASES_MAX: usize = 256;
/// `upto` of a lease that was not asked for: it is no longer than before.
const UNASKED: u64 = 0;
/// `upto` of a lease that was asked for by itself: everything that was sent before the question has been handed out.
const ALL: u64 = u64::MAX;

type Nodes = SmallVec<[NodeId; 4]>;
/// Who is told of changes, and until when.
type Lessees = SmallVec<[(NodeId, Instant); 2]>;

/// What an origin knows of a room that it publishes to.
#[derive(Debug)]
pub(crate) struct Lease {
    nodes: Nodes,
    until: Instant,
    renew_at: Instant,
}

/// Whom an owner told of a room.
#[derive(Debug)]
pub(crate) struct Granted {
    /// Who wants the room, as all lessees were told.
    told: Nodes,
    lessees: Lessees,
}

/// The way of one message.
enum Way {
    /// To these; the lease is to be renewed or not.
    Direct(Nodes, bool),
    /// By the owner.
    Owner,
}

impl Slots {
    /// Publishes for a socket of this node; the answer says nothing of others.
    pub(super) fn publish_volatile(&mut self, frame: Frame, ask: Ask, now: Instant) {
        let number = frame.slot;
        let shown = Arc::new(Frame { term: NO_TERM, ..frame });
        match self.slot(number) {
            Slot::Owner(_) => self.spread(&shown, None),
            Slot::Follower(follower) => {
                let (way, owner) = (follower.way(&shown, now), follower.owner);
                let shards = follower.rooms.get(&shown.room).map(|room| room.shards).unwrap_or_default();
                self.deliver(shards, &shown);
                match way {
                    Way::Direct(nodes, renew) => {
                        self.toss_to(&nodes, &shown);
                        if let (Some(owner), true) = (owner, renew) {
                            self.send(owner, number, Control::LeaseAsk { room: shown.room.as_bytes() }.encode());
                        }
                    }
                    Way::Owner => {
                        let frame = Frame { term: 0, ..(*shown).clone() };
                        self.toss(owner, number, &frame.encode());
                    }
                }
            }
        }
        self.answer(ask, Answer::Published(Ok(Stamp { lineage: 0, n: 0 })));
    }

    /// A message of another node, which takes this one for the owner.
    pub(super) fn handle_volatile_publish(&mut self, from: NodeId, frame: Frame, now: Instant) {
        let (number, oseq) = (frame.slot, frame.origin.oseq);
        if let Slot::Follower(_) = self.slot(number) {
            self.unreached += 1;
            if let Some(term) = self.seats.get(&number).map(|seat| seat.term) {
                self.say_to(number, from, Say::Exists(term));
            }
            return;
        }
        self.released_for_peers += 1;
        let shown = Arc::new(Frame { term: NO_TERM, ..frame });
        self.spread(&shown, Some(from));
        self.grant(from, &shown.room, oseq, now);
    }

    /// A message for the members here, from its origin or from the owner.
    pub(super) fn handle_volatile(&mut self, from: NodeId, frame: &Arc<Frame>) {
        let origin = frame.origin.node;
        let shards = match self.slots.get(&frame.slot) {
            Some(Slot::Owner(book)) if origin == from => book.rooms.get(&frame.room).map(|room| room.shards),
            Some(Slot::Follower(follower)) if origin == from || follower.owner == Some(from) => {
                follower.rooms.get(&frame.room).map(|room| room.shards)
            }
            Some(_) | None => return,
        };
        // Its own members have it.
        if origin != self.config.node {
            self.deliver(shards.unwrap_or_default(), frame);
        }
    }

    /// As owner: gives a message to everybody who wants it, but not back to where it came from.
    fn spread(&mut self, frame: &Arc<Frame>, without: Option<NodeId>) {
        let Some(Slot::Owner(book)) = self.slots.get(&frame.slot) else { return };
        let Some(room) = book.rooms.get(&frame.room) else { return };
        let shards = room.shards;
        let nodes: Nodes = room.nodes.iter().copied().filter(|node| Some(*node) != without).collect();
        self.toss_to(&nodes, frame);
        self.deliver(shards, frame);
    }

    fn toss_to(&mut self, nodes: &[NodeId], frame: &Frame) {
        if nodes.is_empty() {
            return;
        }
        let bytes = frame.encode();
        for node in nodes {
            self.toss(Some(*node), frame.slot, &bytes);
        }
    }

    fn toss(&mut self, to: Option<NodeId>, slot: u16, frame: &Bytes) {
        match to.filter(|to| self.links.contains(to)) {
            Some(to) => self.outputs.push_back(Output::Toss { to, lane: lane_of(slot), frame: frame.clone() }),
            None => self.unreached += 1,
        }
    }

    /// A lessee wants its lease longer.
    pub(super) fn handle_lease_ask(&mut self, from: NodeId, room: &RoomKey, now: Instant) {
        if !self.grant(from, room, ALL, now) {
            self.say_lease(from, room, ALL, &[]);
        }
    }

    /// As owner: tells an origin who wants the room, and that it will hear of changes; `false` if nobody does.
    fn grant(&mut self, to: NodeId, room: &RoomKey, upto: u64, now: Instant) -> bool {
        let me = self.config.node;
        let Some(Slot::Owner(book)) = self.slots.get_mut(&room.slot()) else { return false };
        let wanted = book.wanted_by(room, me);
        if wanted.is_empty() {
            return false;
        }
        let granted = book.leases.entry(room.clone());
        // Where others were told something else, they hear of it at the end of the turn.
        let granted = granted.or_insert_with(|| Granted { told: wanted.clone(), lessees: SmallVec::new() });
        granted.lessees.retain(|(node, _)| *node != to);
        granted.lessees.push((to, now + KEEP));
        self.say_lease(to, room, upto, &wanted);
        true
    }

    /// Says who wants a room; nobody = there is no lease.
    fn say_lease(&mut self, to: NodeId, room: &RoomKey, upto: u64, wanted: &[NodeId]) {
        let others = wanted.iter().filter(|node| **node != to);
        let nodes: Vec<u8> = others.flat_map(|node| node.0.to_be_bytes()).collect();
        let nodes = (!wanted.is_empty()).then_some(nodes.as_slice());
        self.send(to, room.slot(), Control::Lease { room: room.as_bytes(), upto, nodes }.encode());
    }

    /// Tells lessees what has changed in this turn.
    pub(super) fn say_leases(&mut self) {
        let me = self.config.node;
        for number in std::mem::take(&mut self.due_leases) {
            let Some(Slot::Owner(book)) = self.slots.get_mut(&number) else { continue };
            for (room, wanted, lessees) in book.changed_leases(me) {
                for (lessee, _) in lessees {
                    self.say_lease(lessee, &room, UNASKED, &wanted);
                }
            }
        }
    }

    /// The owner says who wants a room, as big-endian ordinals.
    pub(super) fn handle_lease(
        &mut self,
        from: NodeId,
        room: &RoomKey,
        (upto, nodes): (u64, Option<&[u8]>),
        now: Instant,
    ) {
        let Some(Slot::Follower(follower)) = self.slots.get_mut(&room.slot()) else { return };
        if follower.owner != Some(from) {
            return;
        }
        let Some(nodes) = nodes else {
            follower.leases.remove(room);
            return;
        };
        let nodes: Nodes = nodes.chunks_exact(2).map(|pair| NodeId(u16::from_be_bytes([pair[0], pair[1]]))).collect();
        let full = follower.leases.len() >= LEASES_MAX;
        match follower.leases.get_mut(room) {
            Some(lease) if upto == UNASKED => lease.nodes = nodes,
            Some(lease) => *lease = Lease::new(nodes, now),
            None if upto >= follower.by_owner && !full => {
                follower.leases.insert(room.clone(), Lease::new(nodes, now));
            }
            // Something is on its way to the owner: its answer comes, too.
            None => {}
        }
    }
}

impl Lease {
    fn new(nodes: Nodes, now: Instant) -> Lease {
        Lease { nodes, until: now + LEASE, renew_at: now + RENEW }
    }
}

impl Follower {
    /// How a message of this node gets to the others.
    fn way(&mut self, frame: &Frame, now: Instant) -> Way {
        match self.leases.get_mut(&frame.room) {
            Some(lease) if now < lease.until => {
                let renew = lease.renew_at <= now;
                if renew {
                    lease.renew_at = now + RENEW_AGAIN;
                }
                Way::Direct(lease.nodes.clone(), renew)
            }
            Some(_) | None => {
                self.leases.remove(&frame.room);
                self.by_owner = frame.origin.oseq;
                Way::Owner
            }
        }
    }
}

/// The leases of a slot that are over.
pub(crate) fn expire(leases: &mut BTreeMap<RoomKey, Lease>, now: Instant) {
    leases.retain(|_, lease| now < lease.until);
}

impl Book {
    /// The nodes that want a room, rising; this one, `me`, too.
    fn wanted_by(&self, room: &RoomKey, me: NodeId) -> Nodes {
        let Some(room) = self.rooms.get(room) else { return Nodes::new() };
        let here = (!room.shards.is_empty()).then_some(me);
        let mut wanted: Nodes = room.nodes.iter().copied().chain(here).collect();
        wanted.sort_unstable();
        wanted
    }

    /// The leased rooms whose lessees believe something else, with what is true now, and who they are.
    fn changed_leases(&mut self, me: NodeId) -> Vec<(RoomKey, Nodes, Lessees)> {
        let mut leases = std::mem::take(&mut self.leases);
        let mut changed = Vec::new();
        leases.retain(|room, granted| {
            let wanted = self.wanted_by(room, me);
            if wanted != granted.told {
                changed.push((room.clone(), wanted.clone(), granted.lessees.clone()));
                granted.told = wanted;
            }
            !granted.told.is_empty()
        });
        self.leases = leases;
        changed
    }

    /// `node` is told of no change any more.
    pub(super) fn end_leases_of(&mut self, node: NodeId) {
        self.leases.retain(|_, granted| {
            granted.lessees.retain(|(lessee, _)| *lessee != node);
            !granted.lessees.is_empty()
        });
    }

    /// Forgets lessees who do not believe in their leases any more.
    pub(super) fn expire_leases(&mut self, now: Instant) {
        self.leases.retain(|_, granted| {
            granted.lessees.retain(|(_, until)| now < *until);
            !granted.lessees.is_empty()
        });
    }
}
