//! The newest frames of one room in memory: what most late joins are answered from.
//!
//! Invariants: frames stand in rising `n`, each `prev` at or below the `n` before it (nothing is missing between the first
//! and the last); at most `Limits` items, bytes and age are kept, the oldest going first.

use std::{collections::VecDeque, sync::Arc};

use super::{Found, Limits, history::Range};
use crate::wire::message::Frame;

/// A room's recent frames, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RoomLog {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
}

impl RoomLog {
    /// A log of nothing.
    pub(crate) const fn new() -> RoomLog {
        RoomLog { frames: VecDeque::new(), bytes: 0 }
    }

    /// Keeps `frame`, which must follow the last one, and lets the oldest go beyond the limits.
    pub(crate) fn push(&mut self, frame: Arc<Frame>, limits: &Limits) {
        self.bytes += frame.payload.len();
        self.frames.push_back(frame);
        while self.frames.len() > limits.log_items || self.bytes > limits.log_bytes {
            self.drop_oldest();
        }
    }

    /// The newest frame's `n`.
    pub(crate) fn last(&self) -> Option<u64> {
        self.frames.back().map(|frame| frame.n)
    }

    /// Forgets frames stamped before `oldest_ms`.
    pub(crate) fn expire(&mut self, oldest_ms: u64) {
        while self.frames.front().is_some_and(|frame| frame.time_ms < oldest_ms) {
            self.drop_oldest();
        }
    }

    /// Forgets everything: the frames belong to another lineage now.
    pub(crate) fn clear(&mut self) {
        *self = RoomLog::default();
    }

    /// Whether every frame of the room after `after` is here (given that the newest is).
    pub(crate) fn covers(&self, after: u64) -> bool {
        self.frames.front().is_some_and(|first| first.prev <= after)
    }

    /// The position after which the newest `size` frames are, or 0 when fewer are here.
    pub(crate) fn floor(&self, size: u32) -> u64 {
        let at = self.frames.len().checked_sub(size as usize);
        at.and_then(|at| self.frames.get(at)).map_or(0, |frame| frame.n - 1)
    }

    /// The frames with `after < n ≤ upto`, oldest first.
    pub(crate) fn range(&self, after: u64, upto: u64) -> impl ExactSizeIterator<Item = &Arc<Frame>> {
        let from = self.frames.partition_point(|frame| frame.n <= after);
        let to = self.frames.partition_point(|frame| frame.n <= upto).max(from);
        self.frames.range(from..to)
    }

    fn drop_oldest(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.payload.len();
        }
    }
}

/// The range from memory, if memory can prove that it is all there is or all that was asked for.
pub(crate) fn from_memory(log: &RoomLog, range: Range, size: u32) -> Option<Found> {
    if range.is_empty() {
        return Some(Found::default());
    }
    let after = range.after.max(log.floor(size));
    let (whole, count) = (log.covers(after), range.count as usize);
    let have = log.range(after, range.upto);
    let extra = have.len().saturating_sub(count);
    if !whole && (!range.newest || have.len() < count) {
        return None;
    }
    let skip = if range.newest { extra } else { 0 };
    Some(Found { frames: have.skip(skip).take(count).cloned().collect(), more: extra > 0 || !whole })
}
