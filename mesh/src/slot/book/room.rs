//! One room in a slot's book.
//!
//! Invariant: `last` and the log show nothing that is still in the tail; `stamped` does.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::{Limits, Shards, log::RoomLog};
use crate::{NodeId, wire::message::Frame};

/// One room of a slot.
#[derive(Debug, Default)]
pub(crate) struct BookRoom {
    /// The last frame that was shown.
    pub(crate) last: u64,
    /// The last one that was stamped.
    pub(super) stamped: u64,
    pub(crate) log: RoomLog,
    /// Other nodes with members.
    pub(crate) nodes: SmallVec<[NodeId; 4]>,
    /// Shards of this node with members.
    pub(crate) shards: Shards,
    /// What members of this node had from the owner before: it is not handed to them again.
    pub(crate) delivered: u64,
    /// When the newest frame was shown here, Unix milliseconds.
    pub(crate) newest_ms: u64,
}

impl BookRoom {
    /// Takes what the owner's memory has of the room; frames that came here since stay behind it.
    pub(crate) fn refill(&mut self, last: u64, newest_ms: u64, frames: Vec<Arc<Frame>>, limits: &Limits) {
        let newer: Vec<Arc<Frame>> = self.log.range(last, u64::MAX).cloned().collect();
        self.log.clear();
        for frame in frames.into_iter().chain(newer) {
            self.log.push(frame, limits);
        }
        // Before the page came nothing was known of the room but a bound.
        self.last = self.log.last().map_or(last, |newest| newest.max(last));
        self.stamped = self.last;
        self.newest_ms = self.newest_ms.max(newest_ms);
    }
}
