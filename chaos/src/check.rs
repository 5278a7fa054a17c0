//! Judges a recorded run: what was acked and is gone, what came twice, out of order, from nowhere, or not at all.
//!
//! `index` says where each message stands in its room, `session` walks through what each client saw; this file asks about
//! the whole run. Live messages carry no offset, so their places come from acks and from the history read at the end.
//!
//! Invariants: a pure function of the entries; every anomaly of reliability.md 2.3, as `semantics.md` changes it (offsets
//! have holes: a gap is a message that history has and a session should have seen), has a test in which it is found.

mod index;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use index::Index;
use session::Member;

use crate::record::{Entry, What};

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Anomaly {
    /// Acked, and not in the history; or never seen by a session that was in the room and was told nothing.
    Lost,
    /// Seen twice by one session, or twice in a history.
    Duplicate,
    /// Not in the order of the room, or of its publisher.
    Reordered,
    /// A session missed a message, saw a later one, and was told nothing.
    Gap,
    /// Never published, damaged, or refused for good and there all the same.
    Phantom,
    /// Two messages at one place.
    Divergence,
    /// The epoch stayed though something acked is gone, or changed though continuity was promised.
    Epoch,
    /// A session was told that continuity is lost (`room:gap`, `recovered: false`) where it is promised.
    Unproved,
    /// A message of a room at a session that is not in it.
    Foreign,
    /// A repeated publish got another answer than the first.
    Resolution,
    /// Something did not come to an end after everything was healed.
    Stuck,
}

impl Anomaly {
    /// All of them, in the order of reports.
    pub(crate) const ALL: [Anomaly; 11] = [
        Anomaly::Lost,
        Anomaly::Duplicate,
        Anomaly::Reordered,
        Anomaly::Gap,
        Anomaly::Phantom,
        Anomaly::Divergence,
        Anomaly::Epoch,
        Anomaly::Unproved,
        Anomaly::Foreign,
        Anomaly::Resolution,
        Anomaly::Stuck,
    ];

    /// The word in reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Anomaly::Lost => "lost",
            Anomaly::Duplicate => "duplicate",
            Anomaly::Reordered => "reordered",
            Anomaly::Gap => "gap",
            Anomaly::Phantom => "phantom",
            Anomaly::Divergence => "divergence",
            Anomaly::Epoch => "epoch",
            Anomaly::Unproved => "unproved",
            Anomaly::Foreign => "foreign",
            Anomaly::Resolution => "resolution",
            Anomaly::Stuck => "stuck",
        }
    }
}

/// One case of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) anomaly: Anomaly,
    pub(crate) room: String,
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}: {}", self.anomaly.as_str(), self.room, self.text)
    }
}

/// What the fault that was made allows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// The messages judged here have this prefix; others in a history are of earlier runs.
    pub(crate) prefix: String,
    /// Rooms that both sides of a cut wrote to: what the losing side stamped bears an epoch of its own. At the end every room
    /// has the epoch that it had.
    pub(crate) split: BTreeSet<String>,
    /// Sessions on the losing side of a cut: they are told that they lack something, and do. Nobody else is.
    pub(crate) apart: BTreeSet<String>,
    /// Acked in earlier runs: `(room, mid)`, owed by the history too.
    pub(crate) earlier: HashSet<(String, String)>,
}

/// How much was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages, each once.
    pub(crate) published: usize,
    /// Those that were acked.
    pub(crate) acked: usize,
    /// Publishes that were sent again.
    pub(crate) resent: usize,
    /// Messages that arrived live.
    pub(crate) deliveries: usize,
    /// Times a session came back and was given what it had missed.
    pub(crate) recovered: usize,
    /// Times it was told that this cannot be proved.
    pub(crate) not_recovered: usize,
    /// `room:gap` notices.
    pub(crate) gaps_told: usize,
    /// Rooms that ended in another epoch.
    pub(crate) epochs_changed: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.published += other.published;
        self.acked += other.acked;
        self.resent += other.resent;
        self.deliveries += other.deliveries;
        self.recovered += other.recovered;
        self.not_recovered += other.not_recovered;
        self.gaps_told += other.gaps_told;
        self.epochs_changed += other.epochs_changed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} published, {} acked, {} sent again, {} deliveries, rejoins {} whole and {} not, {} gaps told, {} epochs changed",
            self.published,
            self.acked,
            self.resent,
            self.deliveries,
            self.recovered,
            self.not_recovered,
            self.gaps_told,
            self.epochs_changed
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    pub(crate) findings: Vec<Finding>,
}

impl Verdict {
    fn find(&mut self, anomaly: Anomaly, room: &str, text: impl Into<String>) {
        self.findings.push(Finding { anomaly, room: room.to_owned(), text: text.into() });
    }

    /// Cases of this anomaly.
    pub(crate) fn count(&self, anomaly: Anomaly) -> usize {
        self.findings.iter().filter(|finding| finding.anomaly == anomaly).count()
    }
}

/// Judges a run whose entries are in the order of their stamps, from the first join to a history of each room.
pub(crate) fn check(entries: &[Entry], promise: &Promise) -> Verdict {
    let mut verdict = Verdict::default();
    let index = Index::build(entries, promise, &mut verdict);
    check_messages(&index, &mut verdict);
    check_rooms(entries, &index, promise, &mut verdict);
    check_sessions(entries, &index, &mut verdict);
    check_notices(entries, promise, &mut verdict);
    verdict
}

/// Each message: acked is kept, refused is not, a repeat gets the first answer.
fn check_messages(index: &Index<'_>, verdict: &mut Verdict) {
    for (mid, fate) in &index.fates {
        let history = index.histories.get(fate.room);
        let kept = history.is_some_and(|history| history.contains(mid));
        let places: BTreeSet<_> = fate.acks.iter().collect();
        if places.len() > 1 {
            verdict.find(Anomaly::Resolution, fate.room, format!("{mid} was acked at several places: {places:?}"));
        }
        match fate.acks.first() {
            Some(at) if !kept => {
                verdict.find(Anomaly::Lost, fate.room, format!("{mid} was acked at {at:?} and is in no history"));
                if history.is_some_and(|history| history.at.epoch == at.epoch) {
                    verdict.find(
                        Anomaly::Epoch,
                        fate.room,
                        format!("{mid} is gone and the epoch is still {}", at.epoch),
                    );
                }
            }
            Some(_) => {}
            None if fate.is_open => verdict.find(Anomaly::Stuck, fate.room, format!("{mid} never got an answer")),
            None if kept => verdict.find(Anomaly::Phantom, fate.room, format!("{mid} was refused and is kept")),
            None => {}
        }
    }
}

/// Each room: its history is whole and in order, its epoch is what it should be, it is alive at the end.
fn check_rooms(entries: &[Entry], index: &Index<'_>, promise: &Promise, verdict: &mut Verdict) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut alive: HashSet<&str> = HashSet::new();
    let mut epochs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for entry in entries {
        if let What::Joined { room, at, .. } = &entry.what {
            first.entry(room).or_insert(&at.epoch);
        }
        if let What::Joined { room, at, .. } | What::Acked { room, at, .. } | What::Gap { room, at } = &entry.what {
            epochs.entry(room).or_default().insert(&at.epoch);
        }
        if let What::Acked { room, .. } = &entry.what {
            alive.insert(room);
        }
        if matches!(&entry.what, What::Mark { what } if what == "healed") {
            alive.clear();
        }
    }
    for (room, before) in first {
        let Some(history) = index.histories.get(room) else {
            verdict.find(Anomaly::Stuck, room, "its history could not be read");
            continue;
        };
        let changed = history.at.epoch != before;
        verdict.counts.epochs_changed += usize::from(changed);
        if changed {
            verdict.find(Anomaly::Epoch, room, format!("{before} changed: it is {} now", history.at.epoch));
        }
        if promise.split.contains(room) && epochs.get(room).is_none_or(|epochs| epochs.len() < 2) {
            verdict.find(Anomaly::Epoch, room, format!("both sides wrote to it, and all in {before}"));
        }
        if !alive.contains(room) {
            verdict.find(Anomaly::Stuck, room, "nothing was acked after everything was healed");
        }
        history.check_order(room, verdict);
    }
    for (room, mid) in &promise.earlier {
        if index.histories.get(room.as_str()).is_some_and(|history| !history.contains_earlier(mid)) {
            verdict.find(Anomaly::Lost, room, format!("{mid} was acked in an earlier round and is gone"));
        }
    }
}

/// What sessions were told: that something may be missing only where that can be.
fn check_notices(entries: &[Entry], promise: &Promise, verdict: &mut Verdict) {
    for Entry { who, what, .. } in entries {
        let told = match what {
            What::Gap { room, at } => Some((room, format!("{who} was told of a gap up to {at:?}"))),
            What::Joined { room, at, since: Some(since), recovered: Some(false), .. } => {
                Some((room, format!("{who} was told that it may lack something between {since:?} and {at:?}")))
            }
            What::Joined { .. }
            | What::Publish { .. }
            | What::Acked { .. }
            | What::Refused { .. }
            | What::Unknown { .. }
            | What::Connected { .. }
            | What::Disconnected { .. }
            | What::Received { .. }
            | What::History { .. }
            | What::Mark { .. } => None,
        };
        if let Some((room, text)) = told
            && !promise.apart.contains(who)
        {
            verdict.find(Anomaly::Unproved, room, text);
        }
    }
}

/// Each session in each room.
fn check_sessions<'a>(entries: &'a [Entry], index: &Index<'a>, verdict: &mut Verdict) {
    let mut members: HashMap<(&str, &str), Member<'a>> = HashMap::new();
    for entry in entries {
        let who = entry.who.as_str();
        match &entry.what {
            What::Joined { room, at, since, recovered, items } => {
                let member = members.entry((who, room)).or_default();
                member.joined(index, who, room, (at, since.as_ref(), *recovered, items), verdict);
            }
            What::Received { room, mid } => {
                let member = members.entry((who, room)).or_default();
                member.received(index, who, room, mid, verdict);
            }
            What::Gap { room, at } => members.entry((who, room)).or_default().told(at, verdict),
            What::Disconnected { .. } => {
                members.iter_mut().filter(|((whose, _), _)| *whose == who).for_each(|(_, member)| member.leave());
            }
            What::Publish { .. }
            | What::Acked { .. }
            | What::Refused { .. }
            | What::Unknown { .. }
            | What::Connected { .. }
            | What::History { .. }
            | What::Mark { .. } => {}
        }
    }
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_by_key(|(key, _)| *key);
    for ((who, room), member) in members {
        member.finish(index, who, room, verdict);
    }
}
