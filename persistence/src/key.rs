//! Keys of blocks: the number of the block, big-endian, so that the order on disk is the order of writing.
//!
//! Invariant: numbers count up from 1 without a hole over the whole life of a store, whatever bucket they are in.

/// Length of an encoded key.
pub(crate) const KEY_BYTES: usize = 8;

/// The number of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId(pub(crate) u64);

impl BlockId {
    pub(crate) fn next(self) -> BlockId {
        BlockId(self.0.saturating_add(1))
    }

    pub(crate) fn encode(self) -> [u8; KEY_BYTES] {
        self.0.to_be_bytes()
    }

    /// `None` if these bytes are no key.
    pub(crate) fn decode(key: &[u8]) -> Option<BlockId> {
        Some(BlockId(u64::from_be_bytes(key.try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_number_and_lead_back_to_it() {
        assert!(BlockId(255).encode() < BlockId(256).encode());
        assert_eq!(BlockId::decode(&BlockId(77).encode()), Some(BlockId(77)));
        assert_eq!(BlockId::decode(b"seven b"), None);
        assert_eq!(BlockId(1).next(), BlockId(2));
    }
}
