//! Keys of blocks: `slot u16 | room_hash u64 | first_n u64`, big-endian, so that one room is one contiguous range and its
//! order on disk is its order in time.
//!
//! Invariant: the hash of a room is frozen (xxh3-64 of the room key): changing it loses every stored history. Two rooms
//! with one hash share a range; the room name inside each block tells them apart.

use xxhash_rust::xxh3::xxh3_64;

/// Length of an encoded key.
pub(crate) const KEY_BYTES: usize = 18;

/// Where a block is in its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) slot: u16,
    pub(crate) room_hash: u64,
    pub(crate) first_n: u64,
}

impl Key {
    /// The key of a block of `room` that begins at `first_n`.
    pub(crate) fn new(slot: u16, room: &[u8], first_n: u64) -> Key {
        Key { slot, room_hash: xxh3_64(room), first_n }
    }

    /// The same room from another number.
    pub(crate) fn at(self, first_n: u64) -> Key {
        Key { first_n, ..self }
    }

    pub(crate) fn encode(self) -> [u8; KEY_BYTES] {
        let mut out = [0; KEY_BYTES];
        out[..2].copy_from_slice(&self.slot.to_be_bytes());
        out[2..10].copy_from_slice(&self.room_hash.to_be_bytes());
        out[10..].copy_from_slice(&self.first_n.to_be_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_slot_then_room_then_number() {
        let a = Key::new(1, b"/\0a", 900);
        let b = Key::new(2, b"/\0a", 1);
        assert!(a.encode() < b.encode());
        assert!(a.encode() < a.at(901).encode());
        assert!(a.at(255).encode() < a.at(256).encode());
    }

    #[test]
    fn the_room_hash_is_frozen() {
        assert_eq!(Key::new(0x0102, b"/\0lobby", 7).encode()[..2], [1, 2]);
        assert_eq!(Key::new(0, b"", 0).room_hash, 0x2d06_8005_38d3_94c2, "xxh3-64 of nothing, from its specification");
    }
}
