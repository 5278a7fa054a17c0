//! Exactly once: what an owner remembers of publishes so that a resend or a repeated `id` is answered and not delivered.
//!
//! Invariants: per origin (node, shard) only rising `oseq` of the newest generation pass, none before the one the origin
//! sent before it (`semantics.md` 3); an `id` is
//! remembered for `ID_WINDOW` in its room, at most `IDS_MAX` per slot, the oldest going first.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytestring::ByteString;

use super::Stamp;
use crate::{
    NodeId,
    room::RoomKey,
    wire::message::{Origin, Refusal},
};

/// How long a publisher's `id` is remembered.
const ID_WINDOW: Duration = Duration::from_secs(120);
/// Ids remembered per slot; beyond it the oldest is forgotten early.
const IDS_MAX: usize = 16_384;
/// Answers kept per origin shard for resends: more than an origin has unanswered at a time (`UNANSWERED_MAX`), so that
/// what it sends again is answered.
pub(crate) const RECENT_MAX: usize = 2_048;

/// What an owner knows about a publish before stamping it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Never seen.
    New,
    /// Seen before; this was its answer.
    Answered(Result<Stamp, Refusal>),
    /// Never seen, and neither was a publish the origin sent before it: both must come again, in order.
    Early,
    /// From a dead generation, or so old that its answer is forgotten: it must not be stamped again.
    Stale,
}

#[derive(Debug, Default)]
struct Mark {
    generation: u64,
    high: u64,
    /// Answers by `oseq`, rising.
    recent: VecDeque<(u64, Result<Stamp, Refusal>)>,
}

/// High-water marks of a slot's remote origins.
#[derive(Debug, Default)]
pub(crate) struct Origins(HashMap<(NodeId, u8), Mark>);

impl Origins {
    /// Whether a publish of `origin` was answered before; `before` is the `oseq` of the one that must have been.
    pub(crate) fn seen(&self, origin: Origin, before: u64) -> Seen {
        let fresh = |high: u64| if before <= high { Seen::New } else { Seen::Early };
        let Some(mark) = self.0.get(&(origin.node, origin.shard)) else { return fresh(0) };
        if origin.generation < mark.generation {
            return Seen::Stale;
        }
        if origin.generation > mark.generation {
            return fresh(0);
        }
        if origin.oseq > mark.high {
            return fresh(mark.high);
        }
        match mark.recent.binary_search_by_key(&origin.oseq, |(oseq, _)| *oseq) {
            Ok(at) => Seen::Answered(mark.recent[at].1),
            Err(_) => Seen::Stale,
        }
    }

    /// Remembers the answer to `origin`, in place of an earlier one.
    pub(crate) fn record(&mut self, origin: Origin, answer: Result<Stamp, Refusal>) {
        let mark = self.0.entry((origin.node, origin.shard)).or_default();
        if origin.generation > mark.generation {
            *mark = Mark { generation: origin.generation, ..Mark::default() };
        }
        if origin.generation < mark.generation {
            return;
        }
        mark.high = mark.high.max(origin.oseq);
        match mark.recent.binary_search_by_key(&origin.oseq, |(oseq, _)| *oseq) {
            Ok(at) => mark.recent[at].1 = answer,
            Err(at) => mark.recent.insert(at, (origin.oseq, answer)),
        }
        if mark.recent.len() > RECENT_MAX {
            mark.recent.pop_front();
        }
    }
}

impl Origins {
    /// What was stamped up to `shown`, for a copy. Who published nothing else lately is there with what came before it.
    pub(crate) fn published(&self, shown: u64) -> Vec<(Origin, Stamp)> {
        let mut published = Vec::new();
        for ((node, shard), mark) in &self.0 {
            let origin = |oseq| Origin { node: *node, generation: mark.generation, shard: *shard, oseq };
            let before = mark.recent.front().map_or(mark.high, |(oseq, _)| oseq - 1);
            published.push((origin(before), Stamp { lineage: 0, n: 0 }));
            let stamped = mark.recent.iter().filter_map(|(oseq, answer)| answer.ok().map(|stamp| (*oseq, stamp)));
            published.extend(stamped.filter(|(_, stamp)| stamp.n <= shown).map(|(oseq, stamp)| (origin(oseq), stamp)));
        }
        published.sort_unstable_by_key(|(origin, _)| *origin);
        published
    }

    /// Takes over what another node's `published` said.
    pub(crate) fn recall(&mut self, origin: Origin, stamp: Stamp) {
        if stamp.lineage != 0 {
            return self.record(origin, Ok(stamp));
        }
        let mark = self.0.entry((origin.node, origin.shard)).or_default();
        if origin.generation > mark.generation {
            *mark = Mark { generation: origin.generation, ..Mark::default() };
        }
        if origin.generation == mark.generation {
            mark.high = mark.high.max(origin.oseq);
        }
    }

    /// Forgets the stamps that are not among those.
    pub(crate) fn retain(&mut self, among: impl Fn(Stamp) -> bool) {
        for mark in self.0.values_mut() {
            mark.recent.retain(|(_, answer)| answer.is_err() || answer.is_ok_and(&among));
        }
    }
}

/// The publishers' idempotency keys of a slot.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    stamps: HashMap<(RoomKey, ByteString), Stamp>,
    order: VecDeque<(Instant, (RoomKey, ByteString))>,
}

impl Ids {
    /// The first answer to `id` in `room`, if it was given within the window.
    pub(crate) fn answer(&mut self, room: &RoomKey, id: &ByteString, now: Instant) -> Option<Stamp> {
        self.expire(now);
        self.stamps.get(&(room.clone(), id.clone())).copied()
    }

    /// Remembers the answer.
    pub(crate) fn record(&mut self, room: &RoomKey, id: &ByteString, stamp: Stamp, now: Instant) {
        let key = (room.clone(), id.clone());
        if self.stamps.insert(key.clone(), stamp).is_some() {
            // Its time runs already.
            return;
        }
        self.order.push_back((now + ID_WINDOW, key));
        if self.order.len() > IDS_MAX {
            self.forget_oldest();
        }
    }

    /// All that are remembered, the oldest first.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (RoomKey, ByteString, Stamp)> {
        self.order.iter().filter_map(|(_, key)| {
            let stamp = self.stamps.get(key)?;
            Some((key.0.clone(), key.1.clone(), *stamp))
        })
    }

    /// Forgets what is past the window.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    /// Forgets the stamps that are not among those.
    pub(crate) fn retain(&mut self, among: impl Fn(Stamp) -> bool) {
        self.stamps.retain(|_, stamp| among(*stamp));
        self.order.retain(|(_, key)| self.stamps.contains_key(key));
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.stamps.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { lineage: 1, n: 1 };

    fn origin(generation: u64, oseq: u64) -> Origin {
        Origin { node: NodeId(1), generation, shard: 0, oseq }
    }

    #[test]
    fn a_publish_is_new_once_and_only_after_the_one_before_it() {
        let mut origins = Origins::default();
        assert_eq!(origins.seen(origin(1, 5), 0), Seen::New);
        assert_eq!(origins.seen(origin(1, 6), 5), Seen::Early);
        origins.record(origin(1, 5), Ok(STAMP));
        assert_eq!(origins.seen(origin(1, 5), 0), Seen::Answered(Ok(STAMP)));
        assert_eq!(origins.seen(origin(1, 4), 0), Seen::Stale, "it was overtaken");
        assert_eq!(origins.seen(origin(1, 9), 5), Seen::New);
        assert_eq!(origins.seen(origin(1, 9), 8), Seen::Early);
    }

    #[test]
    fn a_restarted_origin_begins_anew_and_its_past_is_over() {
        let mut origins = Origins::default();
        origins.record(origin(1, 5), Ok(STAMP));
        assert_eq!(origins.seen(origin(2, 1), 0), Seen::New);
        assert_eq!(origins.seen(origin(2, 2), 1), Seen::Early);
        origins.record(origin(2, 1), Ok(STAMP));
        assert_eq!(origins.seen(origin(1, 6), 0), Seen::Stale);
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only come from the clock; it moves by hand from here"
    )]
    fn an_id_is_remembered_for_its_window_and_takes_no_memory_after_it() {
        let (mut ids, room, now) = (Ids::default(), RoomKey::new("/", "a"), Instant::now());
        ids.record(&room, &"k".into(), STAMP, now);
        ids.expire(now + ID_WINDOW - Duration::from_millis(1));
        assert_eq!(ids.answer(&room, &"k".into(), now), Some(STAMP));
        ids.expire(now + ID_WINDOW);
        assert!(ids.stamps.is_empty() && ids.order.is_empty());
    }
}
