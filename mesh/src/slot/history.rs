//! What can be asked of a room's history, and how an honest answer is put together.
//!
//! Invariants: a range is read newest-first up to a count, so that retention by count and by request are one thing;
//! `recovered` and `gap` are decided by `prev` links alone: whatever cannot be proved contiguous is said to be not.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Limits;
use crate::wire::message::{DecodeError, Frame, Refusal};

/// What the asker wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing: a plain join.
    Nothing,
    /// The newest so many (`history: {last}`).
    Last(u32),
    /// Everything after a position, or proof that this cannot be had (`history: {since, epoch}`).
    Since {
        /// Exclusive.
        after: u64,
        /// The lineage the position belongs to; `None` = an epoch we never gave out.
        lineage: Option<u64>,
    },
    /// `room:history`.
    Page {
        /// At most so many.
        limit: u32,
        /// Position and lineage to read on from, exclusive: newer items, or older ones in reverse.
        since: Option<(u64, Option<u64>)>,
        /// Newest first.
        reverse: bool,
    },
}

impl Want {
    /// What to read for it.
    pub(crate) fn range(self, limits: &Limits) -> Range {
        let size = limits.history_size;
        match self {
            Want::Nothing => Range { after: 0, of: 0, count: 0 },
            Want::Last(count) => Range { after: 0, of: 0, count: count.min(size) },
            // Reading on towards the past starts below a position; what is there is cut out of all that is retained.
            Want::Page { since: Some(_), reverse: true, .. } => Range { after: 0, of: 0, count: size },
            Want::Since { after, lineage } | Want::Page { since: Some((after, lineage)), reverse: false, .. } => {
                Range { after, of: lineage.unwrap_or(0), count: size }
            }
            Want::Page { limit, since: None, .. } => Range { after: 0, of: 0, count: limit.min(size) },
        }
    }
}

/// A stretch of a room's history: the newest `count` frames after a position, if the position means anything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) after: u64,
    /// The lineage `after` belongs to; 0 = none.
    pub(crate) of: u64,
    pub(crate) count: u32,
}

impl Range {
    /// The exclusive lower bound in a slot of `lineage`: a position of another lineage bounds nothing.
    pub(crate) fn after_in(&self, lineage: u64) -> u64 {
        if self.of == lineage { self.after } else { 0 }
    }
}

/// An answered question about a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The lineage the room is in now.
    pub lineage: u64,
    /// Cursor after everything that is in `frames` or was before them.
    pub head: u64,
    /// Oldest first unless asked in reverse.
    pub frames: Vec<Arc<Frame>>,
    /// For `Want::Since`: whether nothing in between is missing.
    pub recovered: Option<bool>,
    /// Nothing further in the reading direction.
    pub complete: bool,
    /// `since` precedes what is retained.
    pub gap: bool,
}

/// A range as it was found: the newest frames in it, and whether older ones of it exist or existed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rising `n`.
    pub frames: Vec<Arc<Frame>>,
    /// The range held more than was asked for.
    pub more: bool,
}

/// The facts about a room an answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoomFacts {
    pub(crate) lineage: u64,
    pub(crate) head: u64,
    /// The room's last frame, or a bound at least that.
    pub(crate) last: u64,
}

/// Turns what was found into what was wanted.
pub(crate) fn assemble(want: Want, facts: RoomFacts, mut found: Found, oldest_ms: u64, limits: &Limits) -> History {
    let before = found.frames.len();
    found.frames.retain(|frame| frame.time_ms >= oldest_ms);
    let trimmed = found.more || found.frames.len() < before;
    let after = want.range(limits).after_in(facts.lineage);
    let contiguous = !trimmed && is_contiguous(after, &found.frames, facts.last);
    let mut history = History {
        lineage: facts.lineage,
        head: facts.head,
        frames: found.frames,
        recovered: None,
        complete: true,
        gap: false,
    };
    match want {
        Want::Nothing | Want::Last(_) => {}
        Want::Since { lineage, .. } => history.recovered = Some(lineage == Some(facts.lineage) && contiguous),
        Want::Page { limit, since, reverse } => {
            let known = since.filter(|(_, lineage)| *lineage == Some(facts.lineage));
            // Beyond the count of retention nothing is visible; short of it there is more that one answer cannot hold.
            let more = found.more && before < limits.history_size as usize;
            if let (true, Some((below, _))) = (reverse, known) {
                history.frames.retain(|frame| frame.n < below);
            }
            page(&mut history, limit as usize, since.is_some(), reverse, more);
            history.gap = since.is_some() && (known.is_none() || (!reverse && !contiguous));
        }
    }
    history
}

/// Cuts a page out of everything that is retained in the range.
fn page(history: &mut History, limit: usize, forward: bool, reverse: bool, more: bool) {
    let extra = history.frames.len().saturating_sub(limit);
    if reverse || !forward {
        history.frames.drain(..extra);
        // Reading towards the past ends at the oldest retained item; reading forward from nowhere ends at the head.
        history.complete = !reverse || (extra == 0 && !more);
    } else {
        history.frames.truncate(limit);
        history.complete = extra == 0;
    }
    if reverse {
        history.frames.reverse();
    }
}

fn is_contiguous(after: u64, frames: &[Arc<Frame>], last: u64) -> bool {
    let mut cursor = after;
    for frame in frames {
        if frame.prev > cursor {
            return false;
        }
        cursor = frame.n;
    }
    cursor >= last
}

/// A node's answer to another's `Request::History`.
///
/// Layout: `status u8 | lineage u64 | head u64 | last u64 | more u8 | (len u32, frame)*`; status 0 ends after itself.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// The asked node owns the slot.
    Found(RoomFacts, Found),
    /// It does not, or could not read.
    Unavailable,
}

impl Reply {
    pub(crate) fn encode(&self) -> Bytes {
        let Reply::Found(facts, found) = self else { return Bytes::from_static(&[0]) };
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_u64(facts.lineage);
        out.put_u64(facts.head);
        out.put_u64(facts.last);
        out.put_u8(u8::from(found.more));
        for frame in &found.frames {
            let bytes = frame.encode();
            out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            out.put_slice(&bytes);
        }
        out.freeze()
    }

    pub(crate) fn decode(mut bytes: Bytes) -> Result<Reply, DecodeError> {
        if bytes.try_get_u8().map_err(short)? == 0 {
            return Ok(Reply::Unavailable);
        }
        let lineage = bytes.try_get_u64().map_err(short)?;
        let head = bytes.try_get_u64().map_err(short)?;
        let last = bytes.try_get_u64().map_err(short)?;
        let more = bytes.try_get_u8().map_err(short)? != 0;
        let mut frames = Vec::new();
        while bytes.has_remaining() {
            let len = bytes.try_get_u32().map_err(short)? as usize;
            if bytes.len() < len {
                return Err(DecodeError::Truncated);
            }
            frames.push(Arc::new(Frame::decode(bytes.split_to(len))?));
        }
        Ok(Reply::Found(RoomFacts { lineage, head, last }, Found { frames, more }))
    }
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}

/// Why a question has no answer: its owner could not be asked.
pub(crate) const UNREACHABLE: Refusal = Refusal::Overloaded { retry_ms: 500 };
