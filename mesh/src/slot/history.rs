//! What can be asked of a room's history, and how an honest answer is put together.
//!
//! Invariants: a range has two bounds, a count and the end it is read from, so that a page takes up where the last one
//! ended however much one answer can hold; `recovered` and `gap` are decided by `prev` links alone: whatever cannot be
//! proved contiguous is said to be not.
//!
//! Retention by count: a join sees the newest `history_size` at most, and so does every page while memory holds that many
//! (`RoomLog::floor`). Beyond memory, pages show what the store keeps within `history_ttl`: rather more than promised than a
//! count of frames that nobody has.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

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
        let all = Range { after: 0, upto: u64::MAX, of: 0, count: size, newest: true };
        match self {
            Want::Nothing => Range { count: 0, ..all },
            Want::Last(count) => Range { count: count.min(size), ..all },
            Want::Since { after, lineage } => Range { after, of: lineage.unwrap_or(0), ..all },
            Want::Page { limit, since, reverse } => {
                let page = Range { count: limit.min(size), ..all };
                match since {
                    None => page,
                    Some((below, lineage)) if reverse => {
                        Range { upto: below.saturating_sub(1), of: lineage.unwrap_or(0), ..page }
                    }
                    Some((after, lineage)) => Range { after, of: lineage.unwrap_or(0), newest: false, ..page },
                }
            }
        }
    }
}

/// A stretch of a room's history: `count` frames with `after < n ≤ upto`, from one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Exclusive.
    pub(crate) after: u64,
    /// Inclusive.
    pub(crate) upto: u64,
    /// The lineage the bounds belong to; 0 = none.
    pub(crate) of: u64,
    pub(crate) count: u32,
    /// The newest `count` of it; else the oldest.
    pub(crate) newest: bool,
}

impl Range {
    /// The same in a room of which `facts` are known: positions of another lineage bound nothing, and what comes after the
    /// facts is not meant.
    pub(crate) fn within(self, facts: RoomFacts) -> Range {
        let (after, upto) = if self.of == facts.lineage { (self.after, self.upto) } else { (0, u64::MAX) };
        Range { after, upto: upto.min(facts.last), of: facts.lineage, ..self }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.count == 0 || self.upto <= self.after
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
    /// For a join with presence: what others see of each member, this one among them.
    pub members: Option<Vec<ByteString>>,
}

/// A range as it was found: frames of it from the end it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Rising `n`.
    pub frames: Vec<Arc<Frame>>,
    /// The range holds more in the reading direction.
    pub more: bool,
}

/// A part of all that the store holds of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// In the order of writing, each with its encoding.
    pub frames: Vec<Arc<Frame>>,
    /// Where the next part begins; 0 = this was the last.
    pub next: u64,
}

impl Found {
    /// Leaves out what is too old to be shown. Where that was met reading backwards, nothing further is shown either.
    pub(crate) fn expire(&mut self, newest: bool, oldest_ms: u64) {
        let before = self.frames.len();
        self.frames.retain(|frame| frame.time_ms >= oldest_ms);
        self.more &= !newest || self.frames.len() == before;
    }
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
pub(crate) fn assemble(want: Want, facts: RoomFacts, found: Found, limits: &Limits) -> History {
    let range = want.range(limits).within(facts);
    // The end of a page that others follow is not the end of the room.
    let end = if found.more && !range.newest { 0 } else { facts.last };
    let contiguous = is_contiguous(range.after, &found.frames, end);
    let mut history = History {
        lineage: facts.lineage,
        head: facts.head,
        frames: found.frames,
        recovered: None,
        complete: true,
        gap: false,
        members: None,
    };
    match want {
        Want::Nothing | Want::Last(_) => {}
        Want::Since { lineage, .. } => history.recovered = Some(lineage == Some(facts.lineage) && contiguous),
        Want::Page { since, reverse, .. } => {
            // Reading forward from nowhere ends at the head.
            history.complete = !found.more || (since.is_none() && !reverse);
            let known = since.is_none_or(|(_, lineage)| lineage == Some(facts.lineage));
            history.gap = !known || (since.is_some() && !reverse && !contiguous);
            if reverse {
                history.frames.reverse();
            }
        }
    }
    history
}

/// Whether `frames` are all of the room from `after` to `end`.
fn is_contiguous(after: u64, frames: &[Arc<Frame>], end: u64) -> bool {
    let mut cursor = after;
    for frame in frames {
        if frame.prev > cursor {
            return false;
        }
        cursor = frame.n;
    }
    cursor >= end
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
