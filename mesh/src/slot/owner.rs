//! The owner's side of one slot: it alone gives its rooms their order and knows who wants their frames.
//!
//! Invariants: `n` rises by one per stamped frame of the slot; a frame's `prev` is the room's last `n`, or, when the room
//! was forgotten, a bound that is at least that (`watermark`); interest is held only here; a room with interest or with a
//! retained frame is never forgotten.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::{
    Limits, Shards, Stamp,
    dedupe::{Ids, Origins, Seen},
    history::RoomFacts,
    log::RoomLog,
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::message::{Frame, Refusal},
};

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

/// One room of a slot, at its owner.
#[derive(Debug, Default)]
pub(crate) struct OwnedRoom {
    pub(crate) last: u64,
    pub(crate) log: RoomLog,
    /// Other nodes with members.
    pub(crate) nodes: SmallVec<[NodeId; 4]>,
    /// Shards of this node with members.
    pub(crate) shards: Shards,
    /// When the newest frame was stamped, Unix milliseconds.
    newest_ms: u64,
}

/// Whether a frame that is stamped now can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// It can.
    Ok,
    /// It cannot, and nobody else holds a copy.
    Full,
}

/// What a publish is judged by.
pub(crate) struct Rules<'a> {
    pub(crate) limits: &'a Limits,
    pub(crate) storage: Storage,
    pub(crate) now: Instant,
    pub(crate) now_ms: u64,
}

/// What became of a publish.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Give this frame to the room's members, then answer.
    Release(Arc<Frame>, Stamp),
    /// It was published before; only answer.
    Repeat(Stamp),
    /// It is not stamped and never will be.
    Refuse(Refusal),
    /// One that was sent before it never came: both must be sent again.
    Early,
    /// It comes from a dead generation, or its answer is forgotten: there is nothing true to say.
    Ignore,
}

/// One slot, at its owner.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) lineage: u64,
    pub(crate) rooms: HashMap<RoomKey, OwnedRoom>,
    term: u32,
    n: u64,
    watermark: u64,
    origins: Origins,
    ids: Ids,
}

impl Owner {
    /// A slot that goes on after `n` under a new lineage; nothing is known of its rooms but that `n` bounds them.
    pub(crate) fn new(lineage: u64, n: u64) -> Owner {
        Owner::resume(Resume { lineage, n, rooms: BTreeMap::new(), watermark: n }, 0)
    }

    /// A slot that goes on where a clean stop left it. Its rooms' frames are no newer than `newest_ms`.
    pub(crate) fn resume(from: Resume, newest_ms: u64) -> Owner {
        let rooms = from.rooms.into_iter();
        let rooms = rooms.map(|(room, last)| (room, OwnedRoom { last, newest_ms, ..OwnedRoom::default() }));
        Owner {
            lineage: from.lineage,
            rooms: rooms.collect(),
            term: 1,
            n: from.n,
            watermark: from.watermark,
            origins: Origins::default(),
            ids: Ids::default(),
        }
    }

    /// What a clean stop has to write down.
    pub(crate) fn to_resume(&self) -> Resume {
        let rooms = self.rooms.iter().filter(|(_, room)| room.last > self.watermark);
        Resume {
            lineage: self.lineage,
            n: self.n,
            rooms: rooms.map(|(key, room)| (key.clone(), room.last)).collect(),
            watermark: self.watermark,
        }
    }

    /// The room, remembered from now on.
    pub(crate) fn room(&mut self, key: &RoomKey) -> &mut OwnedRoom {
        let watermark = self.watermark;
        self.rooms.entry(key.clone()).or_insert_with(|| OwnedRoom { last: watermark, ..OwnedRoom::default() })
    }

    /// The facts answers about `room` are judged by.
    pub(crate) fn facts(&self, key: &RoomKey) -> RoomFacts {
        let last = self.rooms.get(key).map_or(self.watermark, |room| room.last);
        RoomFacts { lineage: self.lineage, head: self.n, last }
    }

    /// Stamps a publish, unless it was answered before or cannot be kept.
    pub(crate) fn publish(&mut self, frame: Frame, local: bool, rules: &Rules<'_>) -> Verdict {
        let origin = frame.origin;
        if local {
            return self.stamp(frame, rules);
        }
        match self.origins.seen(origin, frame.prev) {
            Seen::New => {}
            Seen::Answered(Ok(stamp)) => return Verdict::Repeat(stamp),
            Seen::Answered(Err(why)) => return Verdict::Refuse(why),
            Seen::Early => return Verdict::Early,
            Seen::Stale => return Verdict::Ignore,
        }
        let verdict = self.stamp(frame, rules);
        match &verdict {
            Verdict::Release(_, stamp) | Verdict::Repeat(stamp) => self.origins.record(origin, Ok(*stamp)),
            Verdict::Refuse(why) => self.origins.record(origin, Err(*why)),
            Verdict::Early | Verdict::Ignore => {}
        }
        verdict
    }

    fn stamp(&mut self, mut frame: Frame, rules: &Rules<'_>) -> Verdict {
        let Rules { limits, storage, now, now_ms } = *rules;
        (frame.lineage, frame.term, frame.time_ms) = (self.lineage, self.term, now_ms);
        if frame.is_volatile() {
            frame.prev = 0;
            return Verdict::Release(Arc::new(frame), Stamp { lineage: self.lineage, n: 0 });
        }
        if !frame.id.is_empty()
            && let Some(stamp) = self.ids.answer(&frame.room, &frame.id, now)
        {
            return Verdict::Repeat(stamp);
        }
        if storage == Storage::Full {
            return Verdict::Refuse(Refusal::StorageFull);
        }
        self.n += 1;
        let stamp = Stamp { lineage: self.lineage, n: self.n };
        if !frame.id.is_empty() {
            self.ids.record(&frame.room, &frame.id, stamp, now);
        }
        let room = self.room(&frame.room);
        room.newest_ms = now_ms;
        (frame.n, frame.prev) = (stamp.n, std::mem::replace(&mut room.last, stamp.n));
        let frame = Arc::new(frame);
        room.log.push(frame.clone(), limits);
        Verdict::Release(frame, stamp)
    }

    /// Nothing goes to `node` any more until it asks again.
    pub(crate) fn drop_node(&mut self, node: NodeId) {
        for room in self.rooms.values_mut() {
            room.nodes.retain(|have| *have != node);
        }
    }

    /// Forgets what is past retention.
    pub(crate) fn sweep(&mut self, limits: &Limits, now: Instant, now_ms: u64) {
        self.ids.expire(now);
        let mut watermark = self.watermark;
        self.rooms.retain(|key, room| {
            let limits = limits.of(key);
            room.log.expire(limits.log_oldest_ms(now_ms));
            let retained = room.newest_ms >= limits.oldest_ms(now_ms);
            let keep = !room.nodes.is_empty() || !room.shards.is_empty() || retained;
            if !keep {
                watermark = watermark.max(room.last);
            }
            keep
        });
        self.watermark = watermark;
    }
}
