//! Interest compared: a follower sums up what it wants of a slot, now and then; its owner says when it knows otherwise.
//!
//! A lane loses nothing while its link is up, and a full lane or a new link makes followers say everything again. This is for
//! what remains: a bug, a restart of half a path, a drop that never arrived. Without it interest that is lost is silence that
//! nobody notices, and interest that is left over is traffic for nobody (`mesh.md` 3b).
//!
//! Invariants: a digest travels in the lane of what it sums up, so a difference is never one of timing; a room whose interest
//! is being said anyway is waited for; the owner repairs by forgetting that follower in that slot, before it is told all again.

use std::time::Instant;

use super::{Slot, Slots, follower::Stream};
use crate::{NodeId, room::RoomKey, wire::message::Control};

/// How many rooms, and the exclusive or of their hashes.
type Digest = (u32, u64);

fn digest<'a>(rooms: impl Iterator<Item = &'a RoomKey>) -> Digest {
    rooms.fold((0, 0), |(count, sum), room| (count + 1, sum ^ xxhash_rust::xxh3::xxh3_64(room.as_bytes())))
}

impl Slots {
    /// Sums up one share of the followed slots for their owners.
    pub(super) fn tell_digests(&mut self, share: impl Fn(u16) -> bool) {
        let mut told = Vec::new();
        for (number, slot) in self.slots.iter().filter(|(number, _)| share(**number)) {
            let Slot::Follower(follower) = slot else { continue };
            let asking = follower.rooms.values().any(|room| matches!(room.stream, Stream::Asking { .. }));
            if let (Some(owner), false) = (follower.owner, asking) {
                told.push((owner, *number, digest(follower.rooms.keys())));
            }
        }
        for (owner, slot, (rooms, sum)) in told {
            self.send(owner, slot, Control::InterestDigest(slot, rooms, sum).encode());
        }
    }

    /// A follower sums up what it wants of a slot that we own.
    pub(super) fn handle_digest(&mut self, from: NodeId, number: u16, told: Digest) {
        let known = match self.slots.get_mut(&number) {
            Some(Slot::Owner(owner)) => {
                let wanted = owner.rooms.iter().filter(|(_, room)| room.nodes.contains(&from));
                let known = digest(wanted.map(|(room, _)| room));
                if known != told {
                    owner.drop_node(from);
                    self.due_leases.insert(number);
                }
                known
            }
            // Views differ for a moment; whoever is wrong will ask the right one.
            Some(Slot::Follower(_)) => return,
            None => (0, 0),
        };
        if known != told {
            tracing::warn!(node = %from, slot = number, "interest of a node was lost or left over; it says all of it again");
            self.send(from, number, Control::InterestLost(number).encode());
        }
    }

    /// The owner does not know what we want of this slot: say all of it again.
    pub(super) fn handle_interest_lost(&mut self, from: NodeId, number: u16, now: Instant) {
        self.approach(number, from, now);
    }
}
