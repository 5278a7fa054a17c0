//! Proof that no block is missing between two that are there (pure).
//!
//! Every block names the last number of the block that was written before it in its slot. Sled opens some damaged files
//! as if they were whole, with a hole in the middle (seen: truncations of its main file); a link into nothing shows it.
//!
//! Invariants:
//! - A link is 0 (the first block of a slot), or a number that is stored, or one that retention may have dropped.
//! - The loss of the newest blocks breaks no link: that is what a kill looks like.

use std::collections::BTreeMap;

use crate::block::Block;

/// The numbers and links of every slot, collected during a scan.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    slots: BTreeMap<u16, Links>,
}

#[derive(Debug, Default)]
struct Links {
    stored: Vec<u64>,
    named: Vec<u64>,
}

impl Chain {
    pub(crate) fn add(&mut self, block: &Block, link: u64) {
        let slot = self.slots.entry(block.slot()).or_default();
        slot.stored.extend(block.records().iter().map(|record| record.n));
        slot.named.push(link);
    }

    /// The first slot and number of a block that should be there and is not.
    pub(crate) fn broken(mut self, trimmed: &BTreeMap<u16, u64>) -> Option<(u16, u64)> {
        self.slots.iter_mut().find_map(|(slot, links)| {
            links.stored.sort_unstable();
            let trimmed = trimmed.get(slot).copied().unwrap_or(0);
            let is_there = |link: &u64| *link <= trimmed || links.stored.binary_search(link).is_ok();
            links.named.iter().copied().find(|link| !is_there(link)).map(|link| (*slot, link))
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Record;

    fn chain(blocks: &[(u64, u64)]) -> Chain {
        let mut chain = Chain::default();
        for (n, link) in blocks {
            chain
                .add(&Block::new(Record { slot: 1, room: Bytes::new(), n: *n, time_ms: 0, body: Bytes::new() }), *link);
        }
        chain
    }

    #[test]
    fn a_block_that_is_missing_before_another_is_noticed() {
        let none = BTreeMap::new();
        assert_eq!(chain(&[(3, 0), (5, 3), (9, 5)]).broken(&none), None);
        assert_eq!(chain(&[(3, 0), (9, 5)]).broken(&none), Some((1, 5)));
        assert_eq!(chain(&[(3, 0), (5, 3)]).broken(&none), None, "a lost tail is no hole");
    }

    #[test]
    fn what_retention_dropped_is_not_missing() {
        assert_eq!(chain(&[(9, 5)]).broken(&BTreeMap::from([(1, 5)])), None);
        assert_eq!(chain(&[(9, 5)]).broken(&BTreeMap::from([(1, 4)])), Some((1, 5)));
        assert_eq!(chain(&[(9, 5)]).broken(&BTreeMap::from([(2, 5)])), Some((1, 5)));
    }
}
