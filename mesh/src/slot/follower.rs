//! The follower's side of one slot: it wants some rooms of a slot another node owns, and publishes to it.
//!
//! Invariants: a room's frames are handed on in rising `n` without a gap, or the gap is said; frames that come before the
//! owner's answer to our interest are not handed on (the answer opens the stream); a publish stays queued until it is
//! answered or its deadline passes, and is resent in order, so that the owner's checks of `oseq` and of the publish before
//! it make it exactly once and in order.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    Ask, Limits, PendingJoin, Shards,
    dedupe::RECENT_MAX,
    history::{RoomFacts, UNREACHABLE},
    log::RoomLog,
    volatile::Lease,
};
use crate::{
    NodeId,
    room::RoomKey,
    wire::message::{Frame, Refusal},
};

/// Frames, and their payload bytes, held while a gap is being filled; beyond them the owner is asked anew.
const HELD_MAX: usize = 4_096;
const HELD_BYTES_MAX: usize = 1024 * 1024;
/// Publishes of a slot that may be unanswered, and their bytes: beyond them new ones are refused as `overloaded`
/// (`semantics.md` 3). Well below what the owner remembers, so that whatever is sent again gets its answer.
const UNANSWERED_MAX: usize = RECENT_MAX / 2;
const UNANSWERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an unanswered publish costs besides its payload.
const UNANSWERED_OVERHEAD: usize = 300;
/// After how long without an answer a publish, or interest, is said again although nothing is known to have been lost.
const PATIENT: Duration = Duration::from_secs(1);

/// Frames that wait for the ones before them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    frames: Vec<Arc<Frame>>,
    bytes: usize,
}

impl Held {
    /// Keeps `frame`; `false` if there is no room for it.
    pub(crate) fn push(&mut self, frame: Arc<Frame>) -> bool {
        let bytes = self.bytes + frame.payload.len();
        let fits = self.frames.len() < HELD_MAX && bytes <= HELD_BYTES_MAX;
        if fits {
            self.bytes = bytes;
            self.frames.push(frame);
        }
        fits
    }

    /// The frames in the order they came.
    pub(crate) fn into_frames(self) -> Vec<Arc<Frame>> {
        self.frames
    }
}

/// How far the stream of one room is.
#[derive(Debug)]
pub(crate) enum Stream {
    /// No frame counts before the owner's answer to our interest.
    Asking {
        /// When interest was last said; `None` = it must be.
        asked_at: Option<Instant>,
    },
    /// Frames arrive and are handed on.
    Following,
    /// Something is missing and was asked for; newer frames wait.
    Filling {
        /// The read that fills it.
        read: u64,
        /// Where the filling ends.
        upto: u64,
        /// Frames after it.
        held: Held,
    },
}

/// One room this node wants.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) shards: Shards,
    pub(crate) stream: Stream,
    /// `None` until the owner answered for the first time.
    pub(crate) lineage: Option<u64>,
    pub(crate) head: u64,
    pub(crate) last: u64,
    pub(crate) log: RoomLog,
    pub(crate) joins: Vec<PendingJoin>,
    /// Set while nobody here is a member: interest is kept a little so that a reconnect costs nothing.
    pub(crate) linger_until: Option<Instant>,
}

impl Followed {
    pub(crate) fn new() -> Followed {
        Followed {
            shards: Shards::default(),
            stream: Stream::Asking { asked_at: None },
            lineage: None,
            head: 0,
            last: 0,
            log: RoomLog::default(),
            joins: Vec::new(),
            linger_until: None,
        }
    }

    pub(crate) fn is_following(&self) -> bool {
        matches!(self.stream, Stream::Following)
    }

    pub(crate) fn facts(&self) -> RoomFacts {
        RoomFacts { lineage: self.lineage.unwrap_or(0), head: self.head, last: self.last }
    }

    /// Takes the next frame of the room, if it follows what is here.
    pub(crate) fn accept(&mut self, frame: &Arc<Frame>, limits: &Limits) -> Accepted {
        if self.lineage != Some(frame.lineage) || frame.prev > self.last {
            return Accepted::Gap;
        }
        if frame.n <= self.last {
            return Accepted::Repeat;
        }
        self.advance(frame, limits);
        Accepted::Next
    }

    /// Goes on behind `n` although not everything up to there is here; `n`, if anything was skipped by that.
    pub(crate) fn skip_to(&mut self, n: u64) -> Option<u64> {
        if n <= self.last {
            return None;
        }
        self.log.clear();
        (self.last, self.head) = (n, self.head.max(n));
        Some(n)
    }

    /// Takes a frame whose place was proved elsewhere.
    pub(crate) fn advance(&mut self, frame: &Arc<Frame>, limits: &Limits) {
        self.last = frame.n;
        self.head = self.head.max(frame.n);
        self.log.push(frame.clone(), limits);
    }
}

/// What `Followed::accept` made of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is the next one.
    Next,
    /// It was here before.
    Repeat,
    /// Something before it is missing.
    Gap,
}

/// A publish the owner has not answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    frame: Frame,
    pub(crate) ask: Ask,
    deadline: Instant,
    /// When it was last sent; `None` = never, so it certainly had no effect.
    sent_at: Option<Instant>,
}

impl Unanswered {
    pub(crate) fn new(frame: Frame, ask: Ask, deadline: Instant) -> Unanswered {
        Unanswered { frame, ask, deadline, sent_at: None }
    }

    /// What its asker is told when no answer came in time.
    pub(crate) fn refusal(&self) -> Refusal {
        if self.sent_at.is_some() { Refusal::Timeout } else { UNREACHABLE }
    }

    pub(crate) fn into_frame(self) -> Frame {
        self.frame
    }

    fn bytes(&self) -> usize {
        self.frame.payload.len() + UNANSWERED_OVERHEAD
    }

    /// Its bytes for the owner, which takes it only if it took `before`.
    fn send(&mut self, before: u64, now: Instant) -> Bytes {
        self.sent_at = Some(now);
        self.frame.prev = before;
        self.frame.encode()
    }
}

/// One slot, at a node that does not own it.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) owner: Option<NodeId>,
    pub(crate) rooms: BTreeMap<RoomKey, Followed>,
    pub(crate) retry_at: Option<Instant>,
    /// The owner did not get or not take what it was sent: all is said again at the next retry, and nothing before it.
    pub(crate) again: bool,
    /// Rooms whose volatile messages go straight to who wants them.
    pub(crate) leases: BTreeMap<RoomKey, Lease>,
    /// `oseq` of the last volatile message that went by the owner.
    pub(crate) by_owner: u64,
    unanswered: VecDeque<Unanswered>,
    unanswered_bytes: usize,
}

impl Follower {
    pub(crate) fn new(owner: Option<NodeId>) -> Follower {
        Follower {
            owner,
            rooms: BTreeMap::new(),
            retry_at: None,
            again: false,
            leases: BTreeMap::new(),
            by_owner: 0,
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
        }
    }

    /// Queues a publish; when the queue is full nothing is kept and its asker is to be refused.
    pub(crate) fn enqueue(&mut self, unanswered: Unanswered) -> Result<(), Ask> {
        let bytes = self.unanswered_bytes + unanswered.bytes();
        if self.unanswered.len() >= UNANSWERED_MAX || bytes > UNANSWERED_BYTES_MAX {
            return Err(unanswered.ask);
        }
        self.unanswered_bytes = bytes;
        self.unanswered.push_back(unanswered);
        Ok(())
    }

    /// The newest publish, to be sent at once unless others must be sent again before it.
    pub(crate) fn newest_to_send(&mut self, now: Instant) -> Option<Bytes> {
        if self.again {
            return None;
        }
        let before = self.unanswered.iter().nth_back(1).map_or(0, |unanswered| unanswered.frame.origin.oseq);
        self.unanswered.back_mut().map(|unanswered| unanswered.send(before, now))
    }

    /// What is to be sent again, in order: all that is unanswered, or only what has been so for long.
    pub(crate) fn due_to_send(&mut self, all: bool, now: Instant) -> Vec<Bytes> {
        let mut before = 0;
        let mut due = Vec::new();
        for unanswered in &mut self.unanswered {
            if all || is_overdue(unanswered.sent_at, now) {
                due.push(unanswered.send(before, now));
            }
            before = unanswered.frame.origin.oseq;
        }
        due
    }

    /// Rooms whose interest is to be said again: all that have no answer, or only those without one for long.
    pub(crate) fn due_to_ask(&self, all: bool, now: Instant) -> Vec<RoomKey> {
        let asking = self.rooms.iter().filter(|(_, room)| match room.stream {
            Stream::Asking { asked_at } => all || is_overdue(asked_at, now),
            Stream::Following | Stream::Filling { .. } => false,
        });
        asking.map(|(key, _)| key.clone()).collect()
    }

    /// Takes the publish `oseq` out of the queue.
    pub(crate) fn answered(&mut self, oseq: u64) -> Option<Unanswered> {
        let at = self.unanswered.binary_search_by_key(&oseq, |unanswered| unanswered.frame.origin.oseq).ok()?;
        let unanswered = self.unanswered.remove(at)?;
        self.unanswered_bytes -= unanswered.bytes();
        Some(unanswered)
    }

    /// Takes all publishes whose deadline passed.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Unanswered> {
        let count = self.unanswered.partition_point(|unanswered| unanswered.deadline <= now);
        let overdue: Vec<Unanswered> = self.unanswered.drain(..count).collect();
        self.unanswered_bytes -= overdue.iter().map(Unanswered::bytes).sum::<usize>();
        overdue
    }

    /// Takes everything that is unanswered, in order.
    pub(crate) fn take_unanswered(&mut self) -> VecDeque<Unanswered> {
        self.unanswered_bytes = 0;
        std::mem::take(&mut self.unanswered)
    }

    /// Whether something waits for the owner.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unanswered.is_empty() || self.rooms.values().any(|room| !room.is_following())
    }
}

fn is_overdue(said_at: Option<Instant>, now: Instant) -> bool {
    said_at.is_none_or(|at| at + PATIENT <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::Origin;

    fn frame(payload: usize) -> Frame {
        Frame {
            room: RoomKey::new("/", "a"),
            slot: 0,
            lineage: 1,
            term: 1,
            n: 1,
            prev: 0,
            origin: Origin { node: NodeId(0), generation: 1, shard: 0, oseq: 1 },
            time_ms: 0,
            flags: 0,
            id: "".into(),
            from: "".into(),
            except: Vec::new(),
            payload: Bytes::from(vec![0; payload]),
        }
    }

    #[test]
    fn held_frames_are_bounded_in_number_and_in_bytes() {
        let mut small = Held::default();
        assert_eq!((0..5_000).filter(|_| small.push(Arc::new(frame(1)))).count(), HELD_MAX);
        let mut large = Held::default();
        assert_eq!((0..5_000).filter(|_| large.push(Arc::new(frame(100_000)))).count(), 10);
    }
}
