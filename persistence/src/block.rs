//! A block: what one commit wrote, in sections by slot and room; the unit of the engine.
//!
//! One block holds the sections of every slot. With a block per slot, 10,000 quiet rooms over 4,096 slots would make
//! thousands of values of one message each; the index in memory says where a room's sections are.
//!
//! Invariants:
//! - A value is `version u8 | len u32 | crc u32` and sections up to `len`, which is the length of the value, big-endian.
//!   The checksum covers the block's number too: a value under another key, or cut between two sections, is damage.
//! - A block grows to 8 KiB and then ends, unless its only section is larger.

use bytes::{Buf, BufMut};

use crate::{
    key::BlockId,
    section::{Damage, Outline, Section, sum},
};

/// A block that would grow beyond this is ended before.
pub(crate) const BLOCK_BYTES: usize = 8 * 1024;

const VERSION: u8 = 2;
const HEAD_BYTES: usize = 1 + 4 + 4;

/// The bytes of a block and where its sections begin.
pub(crate) struct Encoded {
    pub(crate) value: Vec<u8>,
    /// Offsets, one per section.
    pub(crate) places: Vec<u32>,
}

/// Sections in groups that are a block each.
pub(crate) fn in_blocks<'a>(sections: impl Iterator<Item = &'a Section>) -> Vec<Vec<&'a Section>> {
    let mut blocks: Vec<Vec<&Section>> = Vec::new();
    let mut bytes = BLOCK_BYTES;
    for section in sections {
        let len = section.encoded_len();
        if bytes + len > BLOCK_BYTES {
            blocks.push(Vec::new());
            bytes = HEAD_BYTES;
        }
        bytes += len;
        if let Some(block) = blocks.last_mut() {
            block.push(section);
        }
    }
    blocks
}

/// The bytes of block `id`.
pub(crate) fn encode(id: BlockId, sections: &[&Section]) -> Encoded {
    let len = HEAD_BYTES + sections.iter().map(|section| section.encoded_len()).sum::<usize>();
    let mut value = Vec::with_capacity(len);
    value.put_u8(VERSION);
    value.put_u32(offset(len));
    let crc = sum(0, [&id.encode(), &value]);
    value.put_u32(crc);
    let mut places = Vec::with_capacity(sections.len());
    for section in sections {
        places.push(offset(value.len()));
        section.encode(crc, &mut value);
    }
    Encoded { value, places }
}

/// Verifies the whole block and hands out its sections: where each begins, and what it says of itself.
pub(crate) fn check(id: BlockId, value: &[u8], visit: &mut dyn FnMut(u32, &Outline)) -> Result<(), Damage> {
    let crc = check_head(id, value)?;
    let mut at = HEAD_BYTES;
    while at < value.len() {
        let outline = Outline::decode(crc, &value[at..])?;
        visit(offset(at), &outline);
        at += outline.len;
    }
    Ok(())
}

/// The section that begins at `place`.
pub(crate) fn section(id: BlockId, value: &[u8], place: u32) -> Result<Section, Damage> {
    let crc = check_head(id, value)?;
    let at = usize::try_from(place).map_err(|_| Damage::Short)?;
    Section::decode(crc, value.get(at..).ok_or(Damage::Short)?)
}

/// The room of an outline that was handed out with `place`.
pub(crate) fn room<'a>(value: &'a [u8], place: u32, outline: &Outline) -> &'a [u8] {
    let at = usize::try_from(place).unwrap_or(usize::MAX);
    value.get(at..).and_then(|section| section.get(outline.room.clone())).unwrap_or_default()
}

fn check_head(id: BlockId, value: &[u8]) -> Result<u32, Damage> {
    let (version, len, crc) = {
        let mut head = value.get(..HEAD_BYTES).ok_or(Damage::Short)?;
        (head.get_u8(), head.get_u32(), head.get_u32())
    };
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    if sum(0, [&id.encode(), &value[..HEAD_BYTES - 4]]) != crc {
        return Err(Damage::Checksum);
    }
    match usize::try_from(len).map_err(|_| Damage::Short)?.cmp(&value.len()) {
        std::cmp::Ordering::Equal => Ok(crc),
        std::cmp::Ordering::Greater => Err(Damage::Short),
        std::cmp::Ordering::Less => Err(Damage::Trailing),
    }
}

/// Offsets fit: a section is bounded by the queue, which is below 4 GiB.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
