//! A section: up to 32 records of one room inside a block, the unit that is read.
//!
//! Invariants:
//! - Records of a section have one slot, one room, rising `n`. A section without records is a mark: what was written of
//!   its room before it is forgotten; with an empty room, what was written of its slot. No room's key is empty.
//! - The bytes are `slot u16 | room_len u16 | count u16 | crc u32 | room | count × (n u64 | time_ms u64 | len u32 |
//!   crc u32 | body)`, big-endian.
//! - Every checksum continues from the one before it, the first from its block's: a record proves its own bytes, and to
//!   which room, place and block they belong.
//! - Decoding is total: any bytes give a section or [`Damage`], no length is believed before it was compared with what is
//!   there, and no single flipped bit goes unnoticed.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};
use crc32fast::Hasher;

use crate::Record;

/// Records per section, so that one section is one cheap read.
pub(crate) const RECORDS_MAX: usize = 32;
/// A section that reached this many body bytes takes no further record.
pub(crate) const BYTES_TARGET: usize = 4 * 1024;

const HEAD_BYTES: usize = 2 + 2 + 2 + 4;
const RECORD_HEAD_BYTES: usize = 8 + 8 + 4 + 4;

/// Why bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("block is cut short")]
    Short,
    #[error("block has unknown version {0}")]
    Version(u8),
    #[error("checksum does not match")]
    Checksum,
    #[error("records are not in order")]
    Order,
    #[error("block has bytes behind its end")]
    Trailing,
}

/// Records of one room in rising order, or the mark that forgets the room or its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    slot: u16,
    room: Bytes,
    records: Vec<Record>,
    bytes: usize,
}

/// What a section says of itself, without its bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) slot: u16,
    pub(crate) room: Range<usize>,
    pub(crate) count: u16,
    /// 0 in a mark.
    pub(crate) first_n: u64,
    pub(crate) last_n: u64,
    /// Bytes the section takes.
    pub(crate) len: usize,
}

/// A record as it lies in its section.
struct Lying {
    n: u64,
    time_ms: u64,
    body: Range<usize>,
}

impl Section {
    pub(crate) fn new(record: Record) -> Section {
        let (slot, room, bytes) = (record.slot, record.room.clone(), record.body.len());
        Section { slot, room, records: vec![record], bytes }
    }

    /// The mark that forgets what was written of `room` before it; of the whole slot, if `room` is empty.
    pub(crate) fn mark(slot: u16, room: Bytes) -> Section {
        Section { slot, room, records: Vec::new(), bytes: 0 }
    }

    /// Takes the record if there is room for it and it follows; gives it back otherwise.
    pub(crate) fn push(&mut self, record: Record) -> Result<(), Record> {
        let full = self.records.len() >= RECORDS_MAX || self.bytes >= BYTES_TARGET;
        if full || record.n <= self.last_n() {
            return Err(record);
        }
        self.bytes += record.body.len();
        self.records.push(record);
        Ok(())
    }

    pub(crate) fn is_mark(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn slot(&self) -> u16 {
        self.slot
    }

    pub(crate) fn room(&self) -> &Bytes {
        &self.room
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn into_records(self) -> Vec<Record> {
        self.records
    }

    pub(crate) fn first_n(&self) -> u64 {
        self.records.first().map_or(0, |record| record.n)
    }

    pub(crate) fn last_n(&self) -> u64 {
        self.records.last().map_or(0, |record| record.n)
    }

    /// Bytes that [`Section::encode`] writes.
    pub(crate) fn encoded_len(&self) -> usize {
        HEAD_BYTES + self.room.len() + self.records.len() * RECORD_HEAD_BYTES + self.bytes
    }

    /// Writes the section into a block whose head has the checksum `seed`. Lengths fit: `append` refuses longer rooms, and
    /// bodies are bounded by its queue.
    pub(crate) fn encode(&self, seed: u32, out: &mut Vec<u8>) {
        let begin = out.len();
        out.put_u16(self.slot);
        out.put_u16(u16::try_from(self.room.len()).unwrap_or(u16::MAX));
        out.put_u16(u16::try_from(self.records.len()).unwrap_or(u16::MAX));
        let mut crc = sum(seed, [&out[begin..], &self.room]);
        out.put_u32(crc);
        out.put_slice(&self.room);
        for record in &self.records {
            let begin = out.len();
            out.put_u64(record.n);
            out.put_u64(record.time_ms);
            out.put_u32(u32::try_from(record.body.len()).unwrap_or(u32::MAX));
            crc = sum(crc, [&out[begin..], &record.body]);
            out.put_u32(crc);
            out.put_slice(&record.body);
        }
    }

    /// The section at the start of `value`, with one copy of its bytes that all records share.
    pub(crate) fn decode(seed: u32, value: &[u8]) -> Result<Section, Damage> {
        let mut lying = Vec::new();
        let outline = walk(seed, value, &mut |record| lying.push(record))?;
        let own = Bytes::copy_from_slice(&value[..outline.len]);
        let (slot, room) = (outline.slot, own.slice(outline.room));
        let record = |Lying { n, time_ms, body }| {
            let (room, body) = (room.clone(), own.slice(body));
            Record { slot, room, n, time_ms, body }
        };
        let records: Vec<Record> = lying.into_iter().map(record).collect();
        let bytes = records.iter().map(|record| record.body.len()).sum();
        Ok(Section { slot, room, records, bytes })
    }
}

impl Outline {
    /// What a section that is written says of itself; where its room is, only its bytes know.
    pub(crate) fn of(section: &Section) -> Outline {
        Outline {
            slot: section.slot,
            room: 0..0,
            count: u16::try_from(section.records.len()).unwrap_or(u16::MAX),
            first_n: section.first_n(),
            last_n: section.last_n(),
            len: section.encoded_len(),
        }
    }

    /// The outline of the section at the start of `value`, every checksum verified.
    pub(crate) fn decode(seed: u32, value: &[u8]) -> Result<Outline, Damage> {
        walk(seed, value, &mut |_| ())
    }
}

/// Verifies the section at the start of `value` and hands out its records.
fn walk(seed: u32, value: &[u8], visit: &mut dyn FnMut(Lying)) -> Result<Outline, Damage> {
    let (slot, room_len, count, crc) = {
        let mut head = value.get(..HEAD_BYTES).ok_or(Damage::Short)?;
        (head.get_u16(), usize::from(head.get_u16()), head.get_u16(), head.get_u32())
    };
    let mut at = HEAD_BYTES + room_len;
    let room = HEAD_BYTES..at;
    let room_bytes = value.get(room.clone()).ok_or(Damage::Short)?;
    if sum(seed, [&value[..HEAD_BYTES - 4], room_bytes]) != crc {
        return Err(Damage::Checksum);
    }
    let (mut crc, mut first_n, mut last_n) = (crc, 0, 0);
    for index in 0..count {
        let head = value.get(at..at + RECORD_HEAD_BYTES).ok_or(Damage::Short)?;
        let (n, time_ms, len, found) = {
            let mut head = head;
            (head.get_u64(), head.get_u64(), head.get_u32(), head.get_u32())
        };
        let begin = at + RECORD_HEAD_BYTES;
        let end = usize::try_from(len).ok().and_then(|len| begin.checked_add(len)).ok_or(Damage::Short)?;
        let body = value.get(begin..end).ok_or(Damage::Short)?;
        crc = sum(crc, [&head[..RECORD_HEAD_BYTES - 4], body]);
        if crc != found {
            return Err(Damage::Checksum);
        }
        if index == 0 {
            first_n = n;
        } else if n <= last_n {
            return Err(Damage::Order);
        }
        last_n = n;
        visit(Lying { n, time_ms, body: begin..end });
        at = end;
    }
    Ok(Outline { slot, room, count, first_n, last_n, len: at })
}

/// The checksum that continues `seed` over both parts.
pub(crate) fn sum(seed: u32, parts: [&[u8]; 2]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    parts.into_iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
pub(crate) mod tests;
