//! How many slots this shard has open, and in which part.
//!
//! Invariant: a slot that was never used is in no count: it holds nothing that could be lost.

use super::{Slot, Slots};

/// How many nodes hold every frame before anybody sees it. One: the loss of an owner loses its rooms' history.
pub const COPIES: u8 = 1;

/// Open slots by what this node is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// It orders them.
    pub owned: u32,
    /// It holds everything that anybody has seen of them.
    pub replica_in_sync: u32,
    /// It is still being told what it lacks.
    pub replica_syncing: u32,
    /// It votes on them.
    pub witness: u32,
    /// Of `owned`: the loss of this node would lose frames or start a new lineage.
    pub single_copy: u32,
}

impl Slots {
    /// The slots of this shard as they are now. Walks all open slots: not for every turn.
    pub fn census(&self) -> Census {
        let owned = self.slots.values().filter(|slot| matches!(slot, Slot::Owner(_))).count();
        let owned = u32::try_from(owned).unwrap_or(u32::MAX);
        Census { owned, single_copy: owned, ..Census::default() }
    }
}
