//! What one session saw of one room.
//!
//! Invariants: a session is owed every message of a lineage from the moment it joined until it is told that continuity was
//! lost (`room:gap`, `recovered: false`, or a join without `since`); a stay that was cut off by a lost connection goes on
//! when the session comes back and is told `recovered: true`; once and in order is owed per connection: live messages carry no
//! offset, so who comes back asks from its last known position on, and gets again what it saw live behind that.

use std::collections::{HashMap, HashSet};

use super::{
    Anomaly, Verdict,
    index::{Index, split},
};
use crate::record::{Item, Place};

/// The answer to a join: where the room is, what was asked for, whether it could be proved, and what was missed.
pub(super) type Answer<'a> = (&'a Place, Option<&'a Place>, Option<bool>, &'a [Item]);

/// A stretch of a lineage of which nothing may be missing.
#[derive(Debug)]
struct Stay<'a> {
    epoch: &'a str,
    /// Exclusive.
    from: u64,
    /// Up to here it must have seen everything already.
    upto: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Member<'a> {
    is_joined: bool,
    /// Ever.
    seen: HashSet<&'a str>,
    /// On this connection, live or in the answer to a join.
    here: HashSet<&'a str>,
    /// Per lineage, the offset that the next live message of this connection must exceed.
    offsets: HashMap<&'a str, u64>,
    numbers: HashMap<&'a str, u64>,
    ended: Vec<Stay<'a>>,
    stay: Option<Stay<'a>>,
}

impl<'a> Member<'a> {
    pub(super) fn joined(
        &mut self,
        index: &Index<'a>,
        who: &str,
        room: &'a str,
        (at, since, recovered, items): Answer<'a>,
        verdict: &mut Verdict,
    ) {
        self.is_joined = true;
        let mut listed = HashSet::new();
        for item in items {
            if !listed.insert(&item.mid) {
                verdict.find(Anomaly::Duplicate, room, format!("{who} got {} twice in one history", item.mid));
            }
            self.seen.insert(&item.mid);
            self.here.insert(&item.mid);
        }
        let offset = self.offsets.entry(&at.epoch).or_default();
        *offset = at.offset.max(*offset);
        match (since, recovered) {
            (Some(since), Some(true)) => {
                verdict.counts.recovered += 1;
                if since.epoch != at.epoch {
                    let text = format!("{who} was told that nothing is missing between {since:?} and {at:?}");
                    verdict.find(Anomaly::Epoch, room, text);
                }
                match &mut self.stay {
                    Some(stay) if stay.epoch == at.epoch => stay.upto = stay.upto.max(at.offset),
                    _ => self.begin(&at.epoch, since.offset, at.offset),
                }
            }
            (Some(_), Some(false)) => {
                verdict.counts.not_recovered += 1;
                self.begin(&at.epoch, at.offset, at.offset);
            }
            (Some(since), None) => {
                verdict.find(
                    Anomaly::Gap,
                    room,
                    format!("{who} asked for {since:?} and was not told whether it got it"),
                );
                self.begin(&at.epoch, at.offset, at.offset);
            }
            (None, _) => self.begin(&at.epoch, at.offset, at.offset),
        }
        // A session cannot have been in a place that the room never had.
        if index
            .histories
            .get(room)
            .is_some_and(|history| history.at.epoch == at.epoch && history.at.offset < at.offset)
        {
            verdict.find(
                Anomaly::Epoch,
                room,
                format!("{who} joined at {at:?}, which the room has not reached any more"),
            );
        }
    }

    pub(super) fn received(
        &mut self,
        index: &Index<'a>,
        who: &str,
        room: &'a str,
        mid: &'a str,
        verdict: &mut Verdict,
    ) {
        verdict.counts.deliveries += 1;
        match index.fates.get(mid) {
            None => {
                return verdict.find(Anomaly::Phantom, room, format!("{who} received {mid}, which nobody published"));
            }
            Some(fate) if fate.room != room => {
                return verdict.find(Anomaly::Phantom, room, format!("{who} received {mid} of {}", fate.room));
            }
            Some(fate) if fate.acks.is_empty() && !fate.is_open => {
                verdict.find(Anomaly::Phantom, room, format!("{who} received {mid}, which was refused"));
            }
            Some(_) => {}
        }
        if !self.is_joined {
            verdict.find(Anomaly::Foreign, room, format!("{who} received {mid} and is not in the room"));
        }
        self.seen.insert(mid);
        if !self.here.insert(mid) {
            return verdict.find(Anomaly::Duplicate, room, format!("{who} received {mid} again"));
        }
        let (publisher, number) = split(mid);
        if self.numbers.insert(publisher, number).is_some_and(|before| before >= number) {
            verdict.find(Anomaly::Reordered, room, format!("{who} received {mid} after a later one of its publisher"));
        }
        let Some(place) = index.place_of(mid) else { return };
        let before = self.offsets.insert(&place.epoch, place.offset);
        if before.is_some_and(|before| before >= place.offset) {
            let before = before.unwrap_or_default();
            self.offsets.insert(&place.epoch, before);
            verdict.find(Anomaly::Reordered, room, format!("{who} received {mid} at {place:?} after {before}"));
        }
        if let Some(stay) = self.stay.as_mut().filter(|stay| stay.epoch == place.epoch) {
            stay.upto = stay.upto.max(place.offset);
        }
    }

    /// `room:gap`.
    pub(super) fn told(&mut self, at: &'a Place, verdict: &mut Verdict) {
        verdict.counts.gaps_told += 1;
        self.begin(&at.epoch, at.offset, at.offset);
    }

    /// The connection ended; the stay goes on if the session is told so when it comes back.
    pub(super) fn leave(&mut self) {
        self.is_joined = false;
        self.here.clear();
        self.offsets.clear();
        self.numbers.clear();
    }

    fn begin(&mut self, epoch: &'a str, from: u64, upto: u64) {
        self.ended.extend(self.stay.replace(Stay { epoch, from, upto }));
    }

    /// What is missing, when nothing more will come.
    pub(super) fn finish(mut self, index: &Index<'a>, who: &str, room: &'a str, verdict: &mut Verdict) {
        if !self.is_joined && (self.stay.is_some() || !self.ended.is_empty()) {
            verdict.find(Anomaly::Stuck, room, format!("{who} did not come back"));
        }
        let goes_on = self.is_joined;
        for stay in std::mem::take(&mut self.ended) {
            self.missing(index, who, room, (&stay, stay.upto), verdict);
        }
        if let Some(stay) = self.stay.take() {
            self.missing(index, who, room, (&stay, if goes_on { u64::MAX } else { stay.upto }), verdict);
        }
    }

    fn missing(
        &self,
        index: &Index<'a>,
        who: &str,
        room: &'a str,
        (stay, end): (&Stay<'a>, u64),
        verdict: &mut Verdict,
    ) {
        for (offset, mid) in index.after(room, stay.epoch, stay.from).take_while(|(offset, _)| *offset <= end) {
            if !self.seen.contains(mid) {
                let anomaly = if offset < stay.upto { Anomaly::Gap } else { Anomaly::Lost };
                verdict.find(anomaly, room, format!("{who} never saw {mid} at {offset} of {}", stay.epoch));
            }
        }
    }
}
