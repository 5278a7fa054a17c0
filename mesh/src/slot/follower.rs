//! The follower's side of one slot: it wants some rooms of a slot another node owns, and publishes to it.
//!
//! Invariants: a room's frames are handed on in rising `n` without a gap, or the gap is said; frames that come before the
//! owner's answer to our interest are not handed on (the answer opens the stream); a publish stays queued until it is
//! answered or its deadline passes, and is resent in order, so that the owner's `oseq` check makes it exactly once.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{Ask, Limits, PendingJoin, Shards, history::RoomFacts, log::RoomLog};
use crate::{NodeId, room::RoomKey, wire::message::Frame};

/// Frames held while a gap is being filled; beyond it the gap is told to the members instead.
pub(crate) const HELD_MAX: usize = 4_096;
/// Publishes queued per slot while its owner cannot be reached (`semantics.md` 3: then `overloaded`).
const UNANSWERED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How far the stream of one room is.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Interest was said, or must be; no frame counts before the answer.
    Asking,
    /// Frames arrive and are handed on.
    Following,
    /// Something is missing and was asked for; newer frames wait.
    Filling {
        /// The read that fills it.
        read: u64,
        /// Where the filling ends.
        upto: u64,
        /// Frames after it.
        held: VecDeque<Arc<Frame>>,
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
            stream: Stream::Asking,
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

    /// Takes the next frame of the room; `false` if it does not follow what is here.
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
    pub(crate) frame: Frame,
    pub(crate) ask: Ask,
    pub(crate) deadline: Instant,
}

/// One slot, at a node that does not own it.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) owner: Option<NodeId>,
    pub(crate) rooms: HashMap<RoomKey, Followed>,
    pub(crate) unanswered: VecDeque<Unanswered>,
    pub(crate) retry_at: Option<Instant>,
    unanswered_bytes: usize,
}

impl Follower {
    pub(crate) fn new(owner: Option<NodeId>) -> Follower {
        Follower { owner, rooms: HashMap::new(), unanswered: VecDeque::new(), retry_at: None, unanswered_bytes: 0 }
    }

    /// Queues a publish; when the queue is full nothing is kept and its asker is to be refused.
    pub(crate) fn enqueue(&mut self, unanswered: Unanswered) -> Result<(), Ask> {
        let bytes = unanswered.frame.payload.len();
        if self.unanswered_bytes + bytes > UNANSWERED_BYTES_MAX {
            return Err(unanswered.ask);
        }
        self.unanswered_bytes += bytes;
        self.unanswered.push_back(unanswered);
        Ok(())
    }

    /// Takes the publish `oseq` out of the queue.
    pub(crate) fn answered(&mut self, oseq: u64) -> Option<Unanswered> {
        let at = self.unanswered.iter().position(|unanswered| unanswered.frame.origin.oseq == oseq)?;
        let unanswered = self.unanswered.remove(at)?;
        self.unanswered_bytes -= unanswered.frame.payload.len();
        Some(unanswered)
    }

    /// Takes all publishes whose deadline passed.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Unanswered> {
        let mut overdue = Vec::new();
        while self.unanswered.front().is_some_and(|unanswered| unanswered.deadline <= now) {
            if let Some(unanswered) = self.unanswered.pop_front() {
                self.unanswered_bytes -= unanswered.frame.payload.len();
                overdue.push(unanswered);
            }
        }
        overdue
    }

    /// Whether something waits for the owner.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.unanswered.is_empty() || self.rooms.values().any(|room| !room.is_following())
    }
}
