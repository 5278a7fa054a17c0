//! The bytes of questions for pages of a copy, and of the pages.
//!
//! Invariants: decoding is total and bounded by the bytes there are; a frame of a page pins nothing but itself.

use std::{sync::Arc, time::Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::super::{Limits, Scanned, Stamp, book::Book, seat::Hole};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{
        message::{DecodeError, Frame, Origin},
        triple::TermId,
    },
};

/// Bytes of rooms in one page; the room that crosses it is the last.
const PAGE_BYTES: usize = 256 * 1024;

/// What a page of rooms says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct RoomsPage {
    /// The key of the last room; empty = there are no more.
    pub(super) more: Bytes,
    watermark: u64,
    starts: Vec<(u64, TermId)>,
    published: Vec<(Origin, Stamp)>,
    ids: Vec<(RoomKey, ByteString, Stamp)>,
    rooms: Vec<RoomPart>,
}

#[derive(Debug, PartialEq)]
struct RoomPart {
    key: RoomKey,
    last: u64,
    newest_ms: u64,
    frames: Vec<Arc<Frame>>,
}

pub(super) enum Page {
    Rooms(RoomsPage),
    Disk(Scanned),
}

impl Hole {
    /// As a question carries it: `fence u64 | number u32 | lineage u64 | 1 u8, key` or `… | 2 u8 | n u64`.
    pub(super) fn encode(&self, (fence, stamped): (u64, TermId)) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u64(fence);
        out.put_u32(stamped.number);
        out.put_u64(stamped.lineage);
        match self {
            Hole::Rooms(after) => {
                out.put_u8(1);
                out.put_slice(after);
            }
            Hole::Disk(after) => {
                out.put_u8(2);
                out.put_u64(*after);
            }
            Hole::Closed => {}
        }
        out.freeze()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<(Hole, (u64, TermId))> {
        let fence = bytes.try_get_u64().ok()?;
        let stamped = TermId { number: bytes.try_get_u32().ok()?, lineage: bytes.try_get_u64().ok()? };
        let hole = match bytes.try_get_u8().ok()? {
            1 => Hole::Rooms(Bytes::copy_from_slice(bytes)),
            2 => Hole::Disk(bytes.try_get_u64().ok()?),
            _ => return None,
        };
        Some((hole, (fence, stamped)))
    }
}

impl Page {
    pub(super) fn decode(mut bytes: Bytes, slot: u16) -> Result<Page, DecodeError> {
        match bytes.try_get_u8().map_err(short)? {
            1 => RoomsPage::decode(bytes).map(Page::Rooms),
            2 => {
                let next = bytes.try_get_u64().map_err(short)?;
                let mut frames = Vec::new();
                while bytes.has_remaining() {
                    let frame = take_frame(&mut bytes)?;
                    if frame.slot == slot && frame.n > 0 {
                        frames.push(frame);
                    }
                }
                Ok(Page::Disk(Scanned { frames, next }))
            }
            _ => Err(DecodeError::Truncated),
        }
    }
}

/// What is read as a page of rooms is written as something that reads the same.
///
/// # Panics
/// The decoder broke an invariant.
#[cfg(fuzzing)]
pub(crate) fn assert_one_page(bytes: Bytes) {
    let slot = bytes.first().map_or(0, |byte| u16::from(*byte));
    if let Ok(Page::Rooms(page)) = Page::decode(bytes, slot) {
        let again = RoomsPage::decode(page.encode().slice(1..));
        assert!(matches!(again, Ok(again) if again == page));
    }
}

pub(super) fn encode_disk(scanned: &Scanned) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(2);
    out.put_u64(scanned.next);
    scanned.frames.iter().for_each(|frame| put_frame(&mut out, frame));
    out.freeze()
}

impl RoomsPage {
    /// The rooms of a book behind a key. The first page has what was published, too.
    pub(super) fn of(book: &Book, after: &[u8]) -> RoomsPage {
        let mut page = RoomsPage { watermark: book.watermark, ..RoomsPage::default() };
        if after.is_empty() {
            page.starts = book.starts.iter().collect();
            page.published = book.origins.published(book.shown);
            page.ids = book.ids.recorded().filter(|(_, _, stamp)| stamp.n <= book.shown).collect();
        }
        let mut keys: Vec<&RoomKey> = book.rooms.keys().filter(|key| &key.as_bytes()[..] > after).collect();
        keys.sort_unstable();
        let mut bytes = 0;
        for key in keys {
            if bytes > PAGE_BYTES {
                page.more = page.rooms.last().map(|room| room.key.as_bytes().clone()).unwrap_or_default();
                break;
            }
            let room = &book.rooms[key];
            let frames: Vec<Arc<Frame>> = room.log.range(0, u64::MAX).cloned().collect();
            bytes += 64 + frames.iter().map(|frame| frame.payload.len() + 200).sum::<usize>();
            page.rooms.push(RoomPart { key: key.clone(), last: room.last, newest_ms: room.newest_ms, frames });
        }
        page
    }

    /// Adds the page to a copy, which may have frames of its own by now.
    pub(super) fn merge_into(self, book: &mut Book, fence: u64, limits: &Limits, now: Instant) {
        let whole = self.more.is_empty();
        if !self.starts.is_empty() && fence != u64::MAX {
            book.starts.recall(&self.starts, fence);
        }
        for (origin, stamp) in self.published {
            book.origins.recall(origin, stamp);
        }
        for (room, id, stamp) in self.ids {
            book.ids.record(&room, &id, stamp, now);
        }
        for part in self.rooms {
            let limits = limits.of(&part.key);
            book.room(&part.key).refill(part.last, part.newest_ms, part.frames, &limits);
        }
        if whole {
            book.watermark = self.watermark;
        }
    }

    /// Layout, big-endian: `1 u8 | watermark u64 | more (len u16, key) | count u32 × (first n u64, term u32, lineage u64) |
    /// count u32 × (node u16, shard u8, generation u64,
    /// oseq u64, lineage u64, n u64) | count u32 × (room (len u16), id (len u8), lineage u64, n u64) | rooms to the end:
    /// key (len u16), last u64, newest_ms u64, count u32 × (len u32, frame)`.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_u64(self.watermark);
        put_key(&mut out, &self.more);
        out.put_u32(u32::try_from(self.starts.len()).unwrap_or(u32::MAX));
        for (n, term) in &self.starts {
            out.put_u64(*n);
            out.put_u32(term.number);
            out.put_u64(term.lineage);
        }
        out.put_u32(u32::try_from(self.published.len()).unwrap_or(u32::MAX));
        for (origin, stamp) in &self.published {
            out.put_u16(origin.node.0);
            out.put_u8(origin.shard);
            [origin.generation, origin.oseq, stamp.lineage, stamp.n].into_iter().for_each(|word| out.put_u64(word));
        }
        out.put_u32(u32::try_from(self.ids.len()).unwrap_or(u32::MAX));
        for (room, id, stamp) in &self.ids {
            put_key(&mut out, room.as_bytes());
            put_key(&mut out, id.as_bytes());
            out.put_u64(stamp.lineage);
            out.put_u64(stamp.n);
        }
        for room in &self.rooms {
            put_key(&mut out, room.key.as_bytes());
            out.put_u64(room.last);
            out.put_u64(room.newest_ms);
            out.put_u32(u32::try_from(room.frames.len()).unwrap_or(u32::MAX));
            room.frames.iter().for_each(|frame| put_frame(&mut out, frame));
        }
        out.freeze()
    }

    fn decode(mut bytes: Bytes) -> Result<RoomsPage, DecodeError> {
        let mut page = RoomsPage { watermark: word(&mut bytes)?, ..RoomsPage::default() };
        page.more = take_key(&mut bytes)?;
        for _ in 0..bytes.try_get_u32().map_err(short)? {
            let n = word(&mut bytes)?;
            let number = bytes.try_get_u32().map_err(short)?;
            page.starts.push((n, TermId { number, lineage: word(&mut bytes)? }));
        }
        for _ in 0..bytes.try_get_u32().map_err(short)? {
            let node = NodeId(bytes.try_get_u16().map_err(short)?);
            let shard = bytes.try_get_u8().map_err(short)?;
            let (generation, oseq) = (word(&mut bytes)?, word(&mut bytes)?);
            let stamp = Stamp { lineage: word(&mut bytes)?, n: word(&mut bytes)? };
            page.published.push((Origin { node, generation, shard, oseq }, stamp));
        }
        for _ in 0..bytes.try_get_u32().map_err(short)? {
            let room = RoomKey::from_bytes(take_key(&mut bytes)?).ok_or(DecodeError::MalformedName)?;
            let id = ByteString::try_from(take_key(&mut bytes)?).map_err(|_| DecodeError::MalformedName)?;
            page.ids.push((room, id, Stamp { lineage: word(&mut bytes)?, n: word(&mut bytes)? }));
        }
        while bytes.has_remaining() {
            let key = RoomKey::from_bytes(take_key(&mut bytes)?).ok_or(DecodeError::MalformedName)?;
            let (last, newest_ms) = (word(&mut bytes)?, word(&mut bytes)?);
            let mut frames = Vec::new();
            for _ in 0..bytes.try_get_u32().map_err(short)? {
                frames.push(take_frame(&mut bytes)?);
            }
            page.rooms.push(RoomPart { key, last, newest_ms, frames });
        }
        Ok(page)
    }
}

fn put_frame(out: &mut BytesMut, frame: &Frame) {
    let bytes = frame.encode();
    out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(&bytes);
}

fn put_key(out: &mut BytesMut, key: &[u8]) {
    let key = &key[..key.len().min(usize::from(u16::MAX))];
    out.put_u16(u16::try_from(key.len()).unwrap_or(u16::MAX));
    out.put_slice(key);
}

fn take_frame(bytes: &mut Bytes) -> Result<Arc<Frame>, DecodeError> {
    let len = bytes.try_get_u32().map_err(short)? as usize;
    if bytes.len() < len {
        return Err(DecodeError::Truncated);
    }
    // A page holds many frames: a copy keeps one of them from pinning all.
    Frame::decode(Bytes::copy_from_slice(&bytes.split_to(len))).map(Arc::new)
}

fn take_key(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = usize::from(bytes.try_get_u16().map_err(short)?);
    if bytes.len() < len { Err(DecodeError::Truncated) } else { Ok(Bytes::copy_from_slice(&bytes.split_to(len))) }
}

fn word(bytes: &mut Bytes) -> Result<u64, DecodeError> {
    bytes.try_get_u64().map_err(short)
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}
