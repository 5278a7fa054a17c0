//! One node's volume: what is written is read at once, and durable 50 ms later.
//!
//! Invariant: a crash leaves what was durable and nothing else; a lost volume leaves nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::Ms;
use crate::{room::RoomKey, slot::Found, slot::Scanned, wire::message::Frame};

/// Group commit.
const COMMIT: Ms = 50;
/// Frames of one page of a scan.
const PAGE: usize = 64;

type Slots = BTreeMap<u16, Vec<Arc<Frame>>>;

#[derive(Clone)]
enum Written {
    Frame(Arc<Frame>),
    Forget(u16),
}

/// See the module.
#[derive(Default)]
pub(super) struct Store {
    /// What reads see.
    now: Slots,
    /// What a crash leaves.
    durable: Slots,
    waiting: VecDeque<(Ms, Written)>,
}

fn write(slots: &mut Slots, what: Written) {
    match what {
        Written::Frame(frame) => slots.entry(frame.slot).or_default().push(frame),
        Written::Forget(slot) => drop(slots.remove(&slot)),
    }
}

impl Store {
    pub(super) fn append(&mut self, frame: Arc<Frame>, now: Ms) {
        self.put(Written::Frame(frame), now);
    }

    pub(super) fn forget(&mut self, slot: u16, now: Ms) {
        self.put(Written::Forget(slot), now);
    }

    fn put(&mut self, what: Written, now: Ms) {
        self.commit(now);
        write(&mut self.now, what.clone());
        self.waiting.push_back((now, what));
    }

    fn commit(&mut self, now: Ms) {
        while self.waiting.front().is_some_and(|(at, _)| at + COMMIT <= now) {
            if let Some((_, what)) = self.waiting.pop_front() {
                write(&mut self.durable, what);
            }
        }
    }

    /// The process is killed, and with `all` its volume is gone too.
    pub(super) fn crash(&mut self, all: bool, now: Ms) {
        self.commit(now);
        if all {
            self.durable.clear();
        }
        self.waiting.clear();
        self.now = self.durable.clone();
    }

    /// A clean stop.
    pub(super) fn close(&mut self) {
        self.commit(Ms::MAX);
    }

    /// The highest number of each slot.
    pub(super) fn heads(&self) -> BTreeMap<u16, u64> {
        let head = |frames: &Vec<Arc<Frame>>| frames.iter().map(|frame| frame.n).max().unwrap_or(0);
        self.now.iter().map(|(slot, frames)| (*slot, head(frames))).collect()
    }

    /// The frames of a slot, in the order of writing.
    pub(super) fn of(&self, slot: u16) -> impl Iterator<Item = &Arc<Frame>> {
        self.now.get(&slot).into_iter().flatten()
    }

    /// As `Output::Read` asks. Of two frames with one number the later one counts.
    pub(super) fn read(&self, room: &RoomKey, after: u64, upto: u64, count: u32, newest: bool) -> Found {
        let asked = self.of(room.slot()).filter(|frame| frame.room == *room && frame.n > after && frame.n <= upto);
        let by_n: BTreeMap<u64, &Arc<Frame>> = asked.map(|frame| (frame.n, frame)).collect();
        let take = by_n.len().min(count as usize);
        let skip = if newest { by_n.len() - take } else { 0 };
        let frames = by_n.values().skip(skip).take(take).map(|frame| Arc::clone(frame)).collect();
        Found { frames, more: take < by_n.len() }
    }

    /// As `Output::Scan` asks.
    pub(super) fn scan(&self, slot: u16, after: u64) -> Scanned {
        let all: &[Arc<Frame>] = self.now.get(&slot).map_or(&[], Vec::as_slice);
        let from = usize::try_from(after).unwrap_or(usize::MAX).min(all.len());
        let to = all.len().min(from + PAGE);
        let next = if to < all.len() { to as u64 } else { 0 };
        Scanned { frames: all[from..to].to_vec(), next }
    }
}
