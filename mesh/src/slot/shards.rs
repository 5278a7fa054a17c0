//! A set of this node's shards: where a room has members.
//!
//! Invariants: a node has at most 64 shards, so the set is one word and iterates in rising order.

/// A set of this node's shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shards(u64);

impl Shards {
    pub(crate) fn insert(&mut self, shard: u8) {
        self.0 |= 1 << (shard & 63);
    }

    pub(crate) fn remove(&mut self, shard: u8) {
        self.0 &= !(1 << (shard & 63));
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |shard| self.0 & (1 << shard) != 0)
    }
}
