//! What this node is to how many slots: the figures by which operators judge whether a node may be lost.
//!
//! Invariant: only slots that were used are counted; a slot that nobody ever used has nothing to lose.

use super::{Slot, Slots, seat::Role};

/// How many nodes hold every frame before anybody sees it, where the cluster has as many.
pub const COPIES: u8 = 2;

/// See the module. One shard's share; add them up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Slots this node orders.
    pub owned: u32,
    /// Of these: those that no other node could go on with if this one died now.
    pub single_copy: u32,
    /// Slots of which it holds a second copy that could take over.
    pub replica_in_sync: u32,
    /// And those whose copy is still being made.
    pub replica_syncing: u32,
    /// Slots in which it only votes.
    pub witness: u32,
}

impl Slots {
    /// Counts the slots of this shard. Costs a look at each: not for every turn.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for (number, slot) in &self.slots {
            if matches!(slot, Slot::Owner(_)) {
                let copied = self.seats.get(number).and_then(|seat| seat.lead()).is_some_and(|lead| lead.copied);
                census.owned += 1;
                census.single_copy += u32::from(!copied);
            }
        }
        for seat in self.seats.values() {
            match &seat.role {
                Role::Copies(copy) if copy.whole => census.replica_in_sync += 1,
                Role::Copies(_) => census.replica_syncing += 1,
                Role::Watches(_) => census.witness += u32::from(seat.term.triple.witness == Some(self.me())),
                Role::Leads(_) => {}
            }
        }
        census
    }
}
