//! A block: up to 32 records of one room, the unit that is written, checked and read.
//!
//! Invariants:
//! - Records of a block have one slot, one room, rising `n`.
//! - A value is `version u8 | crc32 u32 | link u64 | slot u16 | room_len u16 | room | count u16 | count × (n u64 |
//!   time_ms u64 | len u32 | body)`, big-endian, nothing after it. The checksum covers everything behind it. The link is
//!   what [`crate::chain`] makes of it; here it is a number that travels along.
//! - Decoding is total: any bytes give a block or an error, no length is believed before it was compared with what is
//!   there, and no single flipped bit goes unnoticed.

use bytes::{Buf, BufMut, Bytes};

use crate::{Record, key::Key};

/// Records per block, so that one block is one cheap read.
pub(crate) const RECORDS_MAX: usize = 32;
/// A block that reached this many body bytes takes no further record.
pub(crate) const BYTES_TARGET: usize = 16 * 1024;

const VERSION: u8 = 1;
const PREFIX_BYTES: usize = 1 + 4;
const RECORD_HEAD_BYTES: usize = 8 + 8 + 4;

/// Records of one room in rising order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    records: Vec<Record>,
    bytes: usize,
}

/// Why bytes are no block.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("block is cut short")]
    Short,
    #[error("block has unknown version {0}")]
    Version(u8),
    #[error("block checksum does not match")]
    Checksum,
    #[error("block is not in order")]
    Order,
    #[error("block has bytes behind its end")]
    Trailing,
}

impl Block {
    pub(crate) fn new(record: Record) -> Block {
        Block { bytes: record.body.len(), records: vec![record] }
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

    /// Both blocks as one; of two records with one number, `newer`'s stays.
    pub(crate) fn merge(self, newer: Block) -> Block {
        let mut by_n: std::collections::BTreeMap<u64, Record> = self.records.into_iter().map(|r| (r.n, r)).collect();
        by_n.extend(newer.records.into_iter().map(|r| (r.n, r)));
        let records: Vec<Record> = by_n.into_values().collect();
        Block { bytes: records.iter().map(|r| r.body.len()).sum(), records }
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn into_records(self) -> Vec<Record> {
        self.records
    }

    pub(crate) fn slot(&self) -> u16 {
        self.records.first().map_or(0, |r| r.slot)
    }

    pub(crate) fn room(&self) -> &[u8] {
        self.records.first().map_or(&[], |r| &r.room)
    }

    pub(crate) fn first_n(&self) -> u64 {
        self.records.first().map_or(0, |r| r.n)
    }

    pub(crate) fn last_n(&self) -> u64 {
        self.records.last().map_or(0, |r| r.n)
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(self.slot(), self.room(), self.first_n())
    }

    /// The bytes for the engine. Lengths fit: `append` refuses longer rooms, and bodies and counts are bounded by its
    /// queue.
    pub(crate) fn encode(&self, link: u64) -> Vec<u8> {
        let room = self.room();
        let head = PREFIX_BYTES + 8 + 2 + 2 + room.len() + 2;
        let mut out = Vec::with_capacity(head + self.bytes + self.records.len() * RECORD_HEAD_BYTES);
        out.put_u8(VERSION);
        out.put_u32(0);
        out.put_u64(link);
        out.put_u16(self.slot());
        out.put_u16(u16::try_from(room.len()).unwrap_or(u16::MAX));
        out.put_slice(room);
        out.put_u16(u16::try_from(self.records.len()).unwrap_or(u16::MAX));
        for record in &self.records {
            out.put_u64(record.n);
            out.put_u64(record.time_ms);
            out.put_u32(u32::try_from(record.body.len()).unwrap_or(u32::MAX));
            out.put_slice(&record.body);
        }
        let crc = crc32fast::hash(&out[PREFIX_BYTES..]);
        out[1..PREFIX_BYTES].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// The block in `value` and its link; bodies are slices of `value`.
    pub(crate) fn decode(mut value: Bytes) -> Result<(Block, u64), BlockError> {
        let version = value.try_get_u8().map_err(|_| BlockError::Short)?;
        if version != VERSION {
            return Err(BlockError::Version(version));
        }
        let crc = value.try_get_u32().map_err(|_| BlockError::Short)?;
        if crc32fast::hash(&value) != crc {
            return Err(BlockError::Checksum);
        }
        let link = value.try_get_u64().map_err(|_| BlockError::Short)?;
        let slot = value.try_get_u16().map_err(|_| BlockError::Short)?;
        let room_len = value.try_get_u16().map_err(|_| BlockError::Short)?;
        let room = take(&mut value, usize::from(room_len))?;
        let count = usize::from(value.try_get_u16().map_err(|_| BlockError::Short)?);
        if count == 0 || value.len() < count * RECORD_HEAD_BYTES {
            return Err(BlockError::Short);
        }
        let mut records: Vec<Record> = Vec::with_capacity(count);
        let mut bytes = 0;
        for _ in 0..count {
            let n = value.try_get_u64().map_err(|_| BlockError::Short)?;
            let time_ms = value.try_get_u64().map_err(|_| BlockError::Short)?;
            let len = value.try_get_u32().map_err(|_| BlockError::Short)?;
            let body = take(&mut value, usize::try_from(len).map_err(|_| BlockError::Short)?)?;
            if records.last().is_some_and(|last| last.n >= n) {
                return Err(BlockError::Order);
            }
            bytes += body.len();
            records.push(Record { slot, room: room.clone(), n, time_ms, body });
        }
        if !value.is_empty() {
            return Err(BlockError::Trailing);
        }
        Ok((Block { records, bytes }, link))
    }
}

fn take(value: &mut Bytes, len: usize) -> Result<Bytes, BlockError> {
    if value.len() < len {
        return Err(BlockError::Short);
    }
    Ok(value.split_to(len))
}

#[cfg(test)]
mod tests;
