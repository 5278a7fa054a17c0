//! Where each message stands, by what the whole run says.
//!
//! Invariant: a message has one place, that of its first ack, else that of its history; a place has one message.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Anomaly, Promise, Verdict};
use crate::record::{Entry, Item, Place, What};

/// What became of one message.
#[derive(Debug, Default)]
pub(super) struct Fate<'a> {
    pub(super) room: &'a str,
    /// Every answer that said yes.
    pub(super) acks: Vec<&'a Place>,
    /// It was sent and has no answer.
    pub(super) is_open: bool,
}

/// The history of a room at the end.
#[derive(Debug)]
pub(super) struct Final<'a> {
    pub(super) at: &'a Place,
    /// Of this run.
    items: Vec<&'a Item>,
    mids: HashSet<&'a str>,
    earlier: HashSet<&'a str>,
}

impl Final<'_> {
    pub(super) fn contains(&self, mid: &str) -> bool {
        self.mids.contains(mid)
    }

    pub(super) fn contains_earlier(&self, mid: &str) -> bool {
        self.earlier.contains(mid)
    }

    /// No message twice, each publisher's in its order, offsets rising within an epoch.
    pub(super) fn check_order(&self, room: &str, verdict: &mut Verdict) {
        let mut seen = HashSet::new();
        let (mut offsets, mut numbers) = (HashMap::new(), HashMap::new());
        for Item { at, mid } in &self.items {
            if !seen.insert(mid) {
                verdict.find(Anomaly::Duplicate, room, format!("{mid} is twice in its history"));
                continue;
            }
            let (publisher, number) = split(mid);
            if numbers.insert(publisher, number).is_some_and(|before| before >= number) {
                verdict.find(Anomaly::Reordered, room, format!("{mid} stands behind a later one of its publisher"));
            }
            if offsets.insert(&at.epoch, at.offset).is_some_and(|before| before >= at.offset) {
                verdict.find(
                    Anomaly::Reordered,
                    room,
                    format!("{mid} stands behind a higher offset than its {}", at.offset),
                );
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) fates: BTreeMap<&'a str, Fate<'a>>,
    pub(super) histories: HashMap<&'a str, Final<'a>>,
    places: HashMap<&'a str, &'a Place>,
    /// By room and epoch, every message with its offset.
    lineages: HashMap<(&'a str, &'a str), BTreeMap<u64, &'a str>>,
}

impl<'a> Index<'a> {
    /// Reads the run once; two messages at one place are found here.
    pub(super) fn build(entries: &'a [Entry], promise: &Promise, verdict: &mut Verdict) -> Index<'a> {
        let mut index = Index::default();
        for entry in entries {
            index.note_message(&entry.what, verdict);
        }
        for entry in entries {
            if let What::Joined { room, items, .. } = &entry.what {
                index.place_all(room, items, promise, verdict);
            }
            if let What::History { room, at, items } = &entry.what {
                index.place_all(room, items, promise, verdict);
                index.note_history(room, at, items, promise, verdict);
            }
        }
        verdict.counts.published = index.fates.len();
        verdict.counts.acked = index.fates.values().filter(|fate| !fate.acks.is_empty()).count();
        index
    }

    fn note_message(&mut self, what: &'a What, verdict: &mut Verdict) {
        if let What::Publish { room, mid } = what {
            let fate = self.fate(room, mid);
            let again = !fate.acks.is_empty() || fate.is_open;
            fate.is_open = true;
            verdict.counts.resent += usize::from(again);
        }
        if let What::Acked { room, mid, at } = what {
            let fate = self.fate(room, mid);
            fate.acks.push(at);
            fate.is_open = false;
            self.place(room, mid, at, verdict);
        }
        if let What::Refused { room, mid, .. } = what {
            self.fate(room, mid).is_open = false;
        }
    }

    fn fate(&mut self, room: &'a str, mid: &'a str) -> &mut Fate<'a> {
        self.fates.entry(mid).or_insert_with(|| Fate { room, ..Fate::default() })
    }

    /// What one node tells of a room at the end; nodes must tell the same.
    fn note_history(
        &mut self,
        room: &'a str,
        at: &'a Place,
        items: &'a [Item],
        promise: &Promise,
        verdict: &mut Verdict,
    ) {
        let (ours, earlier) = items.iter().partition::<Vec<_>, _>(|item| item.mid.starts_with(&promise.prefix));
        let mids = ours.iter().map(|item| item.mid.as_str()).collect();
        let earlier = earlier.into_iter().map(|item| item.mid.as_str()).collect();
        let told = Final { at, items: ours, mids, earlier };
        let other = self.histories.insert(room, told);
        if other.is_some_and(|other| other.at != at || other.items != self.histories[room].items) {
            verdict.find(Anomaly::Divergence, room, "nodes tell different histories of it");
        }
    }

    fn place_all(&mut self, room: &'a str, items: &'a [Item], promise: &Promise, verdict: &mut Verdict) {
        for item in items.iter().filter(|item| item.mid.starts_with(&promise.prefix)) {
            if !self.fates.contains_key(item.mid.as_str()) {
                verdict.find(Anomaly::Phantom, room, format!("{} is in a history and was never published", item.mid));
            }
            self.place(room, &item.mid, &item.at, verdict);
        }
    }

    fn place(&mut self, room: &'a str, mid: &'a str, at: &'a Place, verdict: &mut Verdict) {
        let other = *self.lineages.entry((room, &at.epoch)).or_default().entry(at.offset).or_insert(mid);
        if other != mid {
            verdict.find(Anomaly::Divergence, room, format!("{other} and {mid} are both at {at:?}"));
        }
        self.places.entry(mid).or_insert(at);
    }

    /// Where the message stands; `None` if nobody ever said.
    pub(super) fn place_of(&self, mid: &str) -> Option<&'a Place> {
        self.places.get(mid).copied()
    }

    /// The messages of a lineage behind an offset, rising.
    pub(super) fn after(&self, room: &'a str, epoch: &'a str, offset: u64) -> impl Iterator<Item = (u64, &'a str)> {
        let lineage = self.lineages.get(&(room, epoch));
        lineage.into_iter().flat_map(move |all| all.range(offset + 1..).map(|(offset, mid)| (*offset, *mid)))
    }
}

/// A message's publisher (in its room) and its number there.
pub(super) fn split(mid: &str) -> (&str, u64) {
    let (publisher, number) = mid.rsplit_once('.').unwrap_or((mid, "0"));
    (publisher, number.parse().unwrap_or(0))
}
