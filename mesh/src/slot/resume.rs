//! What a clean stop of a node that was alone writes down of a slot, and its bytes.
//!
//! Invariant: decoding is total; whatever it does not understand starts a new lineage, which is always true.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::room::RoomKey;

/// What survives a clean stop of a single node: the slot goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The slot's lineage.
    pub lineage: u64,
    /// Its head.
    pub n: u64,
    /// The last frame of every room that still had retained frames.
    pub rooms: BTreeMap<RoomKey, u64>,
    /// Bound for all other rooms.
    pub watermark: u64,
}

impl Resume {
    /// The bytes a clean stop writes: `lineage u64 | n u64 | watermark u64 | (len u16, room, last u64)*`, big-endian.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64(self.lineage);
        out.put_u64(self.n);
        out.put_u64(self.watermark);
        for (room, last) in &self.rooms {
            // Names are at most 256 bytes each (`interface.md` 1.1); a longer one would only lose its `last`.
            let Ok(len) = u16::try_from(room.as_bytes().len()) else { continue };
            out.put_u16(len);
            out.put_slice(room.as_bytes());
            out.put_u64(*last);
        }
        out.freeze()
    }

    /// Reads `encode`'s bytes; `None` if they are not that, and then the slot starts a new lineage.
    pub fn decode(mut bytes: Bytes) -> Option<Resume> {
        let lineage = bytes.try_get_u64().ok()?;
        let n = bytes.try_get_u64().ok()?;
        let watermark = bytes.try_get_u64().ok()?;
        let mut rooms = BTreeMap::new();
        while bytes.has_remaining() {
            let len = usize::from(bytes.try_get_u16().ok()?);
            if bytes.len() < len {
                return None;
            }
            let room = RoomKey::from_bytes(bytes.split_to(len))?;
            rooms.insert(room, bytes.try_get_u64().ok()?);
        }
        Some(Resume { lineage, n, rooms, watermark })
    }
}
