//! What a node holds of one slot, as its owner or as its replica: order, rooms, what was published before, and the tail.
//!
//! The tail are the frames that were stamped and, as far as this node knows, not shown to anybody yet. An owner that is alone
//! has none: it shows what it stamps.
//!
//! Invariants: `n` rises by one per stamped frame of the slot; a frame's `prev` is the room's last `n`, or, when the room
//! was forgotten, a bound that is at least that (`watermark`); the tail is all of `shown < n`, in order; rooms, their logs
//! and facts show nothing of the tail; interest is held only at the owner; a room with interest, with a frame in the tail or
//! with a retained frame is never forgotten.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Ask, Limits, Stamp,
    dedupe::{Ids, Origins, Seen},
    heal::unpack,
    history::RoomFacts,
    resume::Resume,
    starts::Starts,
    volatile::Granted,
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{
        message::{Frame, Refusal},
        triple::TermId,
    },
};
use room::BookRoom;

mod room;
mod torn;

/// Bytes and frames that may wait for the replica in one slot; beyond them publishes are refused as `overloaded`.
const TAIL_BYTES_MAX: usize = 8 * 1024 * 1024;
const TAIL_FRAMES_MAX: usize = 16_384;
/// What a frame in the tail costs besides its payload.
const TAIL_OVERHEAD: usize = 400;
/// The shard of origins that are not shards: an owner that brings another lineage its frames (`heal`).
pub(crate) const MERGED: u8 = u8::MAX;

/// Who is told when a frame in the tail was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A shard of this node, until then.
    Here(Ask, Instant),
    /// A publish of another node.
    There { node: NodeId, shard: u8, oseq: u64 },
}

/// A frame of the tail.
#[derive(Debug)]
pub(crate) struct Tailed {
    pub(crate) frame: Arc<Frame>,
    /// As the replica gets it, and the term in which that was said.
    pub(crate) keep: Bytes,
    pub(crate) said_in: TermId,
    pub(crate) waiting: SmallVec<[Waiter; 1]>,
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
    /// Nobody else has to hold a frame before it is shown.
    pub(crate) alone: bool,
    /// The slot may have another owner one day, who has to recognise what was published.
    pub(crate) remember: bool,
    pub(crate) now: Instant,
    pub(crate) now_ms: u64,
}

/// What became of a publish.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Give this frame to the room's members, then answer.
    Release(Arc<Frame>, Stamp),
    /// It is stamped: show it to the replica, and answer when it was shown.
    Kept(Stamp),
    /// It was stamped before and is not shown yet: answer when it was.
    Waits(Stamp),
    /// It was published before; only answer.
    Repeat(Stamp),
    /// It is not stamped and never will be.
    Refuse(Refusal),
    /// One that was sent before it never came: both must be sent again.
    Early,
    /// It comes from a dead generation, or its answer is forgotten: there is nothing true to say.
    Ignore,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) rooms: HashMap<RoomKey, BookRoom>,
    /// The term that stamps, or in which it was last heard of one that did.
    pub(crate) term: TermId,
    /// The last frame that was stamped.
    pub(crate) n: u64,
    /// The last one that was shown.
    pub(crate) shown: u64,
    /// Bound on `last` of every room that is not remembered.
    pub(crate) watermark: u64,
    pub(crate) origins: Origins,
    pub(crate) ids: Ids,
    pub(crate) tail: VecDeque<Tailed>,
    tail_bytes: usize,
    /// Which terms stamped what.
    pub(crate) starts: Starts,
    /// As owner: who publishes volatile messages to its rooms and knows who wants them.
    pub(crate) leases: BTreeMap<RoomKey, Granted>,
}

impl Book {
    /// A slot of which nothing is known but that it goes on behind `n`, a frame of the term `stamped`.
    pub(crate) fn new(term: TermId, n: u64, stamped: TermId) -> Book {
        Book {
            rooms: HashMap::new(),
            term,
            n,
            shown: n,
            watermark: n,
            origins: Origins::default(),
            ids: Ids::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            starts: Starts::new(stamped),
            leases: BTreeMap::new(),
        }
    }

    /// A slot that goes on where a clean stop left it. Its rooms' frames are no newer than `newest_ms`.
    pub(crate) fn resume(from: Resume, newest_ms: u64) -> Book {
        let term = TermId { number: 1, lineage: from.lineage };
        let rooms = from.rooms.into_iter();
        let rooms =
            rooms.map(|(room, last)| (room, BookRoom { last, stamped: last, newest_ms, ..BookRoom::default() }));
        Book { rooms: rooms.collect(), watermark: from.watermark, ..Book::new(term, from.n, term) }
    }

    /// What a clean stop has to write down.
    pub(crate) fn to_resume(&self) -> Resume {
        let rooms = self.rooms.iter().filter(|(_, room)| room.last > self.watermark);
        let rooms: BTreeMap<RoomKey, u64> = rooms.map(|(key, room)| (key.clone(), room.last)).collect();
        Resume { lineage: self.term.lineage, n: self.n, rooms, watermark: self.watermark }
    }

    /// The room, remembered from now on.
    pub(crate) fn room(&mut self, key: &RoomKey) -> &mut BookRoom {
        let last = self.watermark;
        self.rooms.entry(key.clone()).or_insert_with(|| BookRoom { last, stamped: last, ..BookRoom::default() })
    }

    /// The facts answers about `room` are judged by.
    pub(crate) fn facts(&self, key: &RoomKey) -> RoomFacts {
        let last = self.rooms.get(key).map_or(self.watermark, |room| room.last);
        RoomFacts { lineage: self.term.lineage, head: self.shown, last }
    }

    /// This node stamps in `term` from here on.
    pub(crate) fn begin(&mut self, term: TermId) {
        self.term = term;
        self.starts.note(self.n + 1, term);
    }

    /// Stamps a publish, unless it was answered before or cannot be kept.
    pub(crate) fn publish(&mut self, frame: Frame, is_new: bool, rules: &Rules<'_>) -> Verdict {
        let origin = frame.origin;
        if !is_new {
            match self.origins.seen(origin, frame.prev) {
                Seen::New => {}
                Seen::Answered(Ok(stamp)) => return self.repeat(stamp),
                Seen::Answered(Err(why)) => return Verdict::Refuse(why),
                Seen::Early => return Verdict::Early,
                // Brought before, by the same life.
                Seen::Stale if origin.shard == MERGED => return Verdict::Repeat(Stamp { lineage: 0, n: 0 }),
                Seen::Stale => return Verdict::Ignore,
            }
            if origin.shard == MERGED
                && let Seen::Answered(Ok(stamp)) = self.origins.seen(unpack(&frame), 0)
            {
                self.origins.record(origin, Ok(stamp));
                return self.repeat(stamp);
            }
        }
        let verdict = self.stamp(frame, rules);
        if is_new && !rules.remember {
            // Nobody will ever have to recognise it.
            return verdict;
        }
        match &verdict {
            Verdict::Release(_, stamp) | Verdict::Kept(stamp) | Verdict::Waits(stamp) | Verdict::Repeat(stamp) => {
                self.origins.record(origin, Ok(*stamp));
            }
            // What another lineage brings is brought again.
            Verdict::Refuse(_) if origin.shard == MERGED => {}
            Verdict::Refuse(why) => self.origins.record(origin, Err(*why)),
            Verdict::Early | Verdict::Ignore => {}
        }
        verdict
    }

    fn repeat(&self, stamp: Stamp) -> Verdict {
        if stamp.n > self.shown { Verdict::Waits(stamp) } else { Verdict::Repeat(stamp) }
    }

    fn stamp(&mut self, mut frame: Frame, rules: &Rules<'_>) -> Verdict {
        let Rules { storage, alone, now, now_ms, .. } = *rules;
        let term = self.term;
        (frame.lineage, frame.term) = (term.lineage, term.number);
        if frame.origin.shard != MERGED {
            frame.time_ms = now_ms;
        }
        if !frame.id.is_empty()
            && let Some(stamp) = self.ids.answer(&frame.room, &frame.id, now)
        {
            return self.repeat(stamp);
        }
        if storage == Storage::Full {
            return Verdict::Refuse(Refusal::StorageFull);
        }
        if self.tail_bytes > TAIL_BYTES_MAX || self.tail.len() > TAIL_FRAMES_MAX {
            return Verdict::Refuse(Refusal::Overloaded { retry_ms: 1_000 });
        }
        self.n += 1;
        let stamp = Stamp { lineage: term.lineage, n: self.n };
        if !frame.id.is_empty() {
            self.ids.record(&frame.room, &frame.id, stamp, now);
        }
        let room = self.room(&frame.room);
        (frame.n, frame.prev) = (stamp.n, std::mem::replace(&mut room.stamped, stamp.n));
        let frame = Arc::new(frame);
        if alone && self.tail.is_empty() {
            self.show(&frame, rules.limits, now_ms);
            return Verdict::Release(frame, stamp);
        }
        self.push(frame, Bytes::new(), TermId::default());
        Verdict::Kept(stamp)
    }

    fn push(&mut self, frame: Arc<Frame>, keep: Bytes, said_in: TermId) {
        self.tail_bytes += frame.payload.len() + TAIL_OVERHEAD;
        self.tail.push_back(Tailed { frame, keep, said_in, waiting: SmallVec::new() });
    }

    /// As replica: keeps the owner's next frame; `false` if another one comes first.
    pub(crate) fn take(&mut self, frame: Frame, keep: Bytes, said_in: TermId) -> bool {
        let next = frame.n == self.n + 1;
        if next {
            self.n = frame.n;
            self.starts.note(frame.n, TermId { number: frame.term, lineage: frame.lineage });
            self.push(Arc::new(frame), keep, said_in);
        }
        next
    }

    /// `waiter` is told when the frame `n`, which is in the tail, was shown.
    pub(crate) fn wait(&mut self, n: u64, waiter: Waiter) {
        let at = n.checked_sub(self.shown + 1).and_then(|at| usize::try_from(at).ok());
        if let Some(tailed) = at.and_then(|at| self.tail.get_mut(at))
            && !tailed.waiting.contains(&waiter)
        {
            tailed.waiting.push(waiter);
        }
    }

    /// Those of this node who waited too long: they are told that nothing is known.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Ask> {
        let mut overdue = Vec::new();
        for tailed in &mut self.tail {
            tailed.waiting.retain(|waiter| match waiter {
                Waiter::Here(ask, until) if *until <= now => {
                    overdue.push(*ask);
                    false
                }
                Waiter::Here(..) | Waiter::There { .. } => true,
            });
        }
        overdue
    }

    /// The frames of the tail behind `n`.
    pub(crate) fn behind(&mut self, n: u64) -> impl Iterator<Item = &mut Tailed> {
        let skip = usize::try_from(n.saturating_sub(self.shown)).unwrap_or(usize::MAX);
        self.tail.iter_mut().skip(skip)
    }

    /// The next frame of the tail is shown, if it is one up to `upto`.
    pub(crate) fn show_next(&mut self, upto: u64, limits: &Limits, now_ms: u64) -> Option<Tailed> {
        if self.tail.front()?.frame.n > upto {
            return None;
        }
        let tailed = self.tail.pop_front()?;
        self.tail_bytes = self.tail_bytes.saturating_sub(tailed.frame.payload.len() + TAIL_OVERHEAD);
        self.show(&tailed.frame, &limits.of(&tailed.frame.room), now_ms);
        Some(tailed)
    }

    fn show(&mut self, frame: &Arc<Frame>, limits: &Limits, now_ms: u64) {
        self.shown = frame.n;
        let room = self.room(&frame.room);
        // A copy may have been told of the room when this frame was already in it.
        if frame.n > room.last {
            (room.last, room.newest_ms) = (frame.n, now_ms);
            room.stamped = room.stamped.max(frame.n);
            room.log.push(frame.clone(), limits);
        }
    }

    /// As replica: remembers who published what is shown or inherited.
    pub(crate) fn remember(&mut self, frame: &Frame, now: Instant) {
        let stamp = Stamp { lineage: frame.lineage, n: frame.n };
        self.origins.record(frame.origin, Ok(stamp));
        if !frame.id.is_empty() {
            self.ids.record(&frame.room, &frame.id, stamp, now);
        }
    }

    /// The replica becomes the owner: what is in its tail was published.
    pub(crate) fn inherit(&mut self, now: Instant) {
        let frames: Vec<Arc<Frame>> = self.tail.iter().map(|tailed| tailed.frame.clone()).collect();
        for frame in frames {
            self.remember(&frame, now);
            let room = self.room(&frame.room);
            room.stamped = room.stamped.max(frame.n);
        }
    }

    /// What nobody was shown becomes part of another lineage.
    pub(crate) fn restamp(&mut self, term: TermId, now: Instant) {
        self.begin(term);
        let mut frames = Vec::with_capacity(self.tail.len());
        for tailed in &mut self.tail {
            let frame = Frame { lineage: term.lineage, term: term.number, ..(*tailed.frame).clone() };
            (tailed.frame, tailed.keep, tailed.said_in) = (Arc::new(frame), Bytes::new(), TermId::default());
            frames.push(tailed.frame.clone());
        }
        if let Some(first) = frames.first() {
            self.starts.begin_again(first.n, term);
        }
        for frame in frames {
            self.remember(&frame, now);
        }
    }

    /// Nothing goes to `node` any more until it asks again.
    pub(crate) fn drop_node(&mut self, node: NodeId) {
        for room in self.rooms.values_mut() {
            room.nodes.retain(|have| *have != node);
        }
        self.end_leases_of(node);
    }

    /// Forgets what is past retention.
    pub(crate) fn sweep(&mut self, limits: &Limits, now: Instant, now_ms: u64) {
        self.ids.expire(now);
        self.expire_leases(now);
        let mut watermark = self.watermark;
        self.rooms.retain(|key, room| {
            let limits = limits.of(key);
            room.log.expire(limits.log_oldest_ms(now_ms));
            let retained = room.newest_ms >= limits.oldest_ms(now_ms) || room.stamped != room.last;
            let keep = !room.nodes.is_empty() || !room.shards.is_empty() || retained;
            if !keep {
                watermark = watermark.max(room.last);
            }
            keep
        });
        self.watermark = watermark;
    }
}
