//! Who publishes and who listens, as a client library would.
//!
//! Publishers keep their order, resend what was refused or not answered under the same `id`, and go to another node when
//! theirs dies. Members join, leave, come back with the position they know, and note what they are shown.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Event, Input, Ms, Storm,
    judge::{Fate, Key, Stretch},
};
use crate::{
    slot::{Answer, Ask, History, Stamp, Want},
    wire::message::{Frame, Refusal},
};

/// How long a client waits for an answer before it takes it for lost.
const PATIENCE: Ms = 12_000;

/// One attempt to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// On its way.
    Sent { token: u64, at: Ms },
    /// To be sent again with the others.
    Again,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) room: usize,
    pub(super) at: Option<usize>,
    /// Its messages carry an `id`.
    pub(super) ids: bool,
    pub(super) window: usize,
    pub(super) every: Ms,
    pub(super) next: u32,
    pub(super) open: BTreeMap<u32, Attempt>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) room: usize,
    pub(super) shard: u8,
    pub(super) at: Option<usize>,
    /// The join that waits for its answer, and whether it named a position.
    pub(super) joining: Option<(u64, Want)>,
    /// What it sees, while it is a member.
    pub(super) stretch: Option<Stretch>,
    /// The position it knows, for its return.
    pub(super) cursor: Option<Stamp>,
    /// Messages it was shown and has not been told to forget.
    pub(super) known: BTreeSet<Key>,
    /// Comes and goes.
    pub(super) restless: bool,
}

/// Whom an answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Publish(usize, u32),
    Join(usize),
    /// A reading of the judge.
    Reading,
}

impl Storm {
    fn ask(&mut self, whom: Asked, shard: u8) -> Ask {
        self.tokens += 1;
        self.asked.insert(self.tokens, whom);
        Ask { shard, token: self.tokens }
    }

    /// A node that takes clients, if there is one.
    pub(super) fn some_node(&mut self) -> Option<usize> {
        let ready: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].takes_clients()).collect();
        let at = self.rng.below(ready.len() as u64);
        usize::try_from(at).ok().and_then(|at| ready.get(at).copied())
    }

    /// The publisher's next message, if it may send one.
    pub(super) fn publish(&mut self, who: usize) {
        let every = self.publishers[who].every;
        if self.publishing {
            let next = every / 2 + self.rng.below(every);
            self.at(next, Event::Publish(who));
        }
        let publisher = &self.publishers[who];
        let waits = publisher.open.values().any(|attempt| *attempt == Attempt::Again);
        if publisher.at.is_none() || waits || publisher.open.len() >= publisher.window || !self.publishing {
            return;
        }
        let seq = publisher.next;
        self.publishers[who].next += 1;
        let key = self.key(who, seq);
        let (room, first_sent) = (self.publishers[who].room, self.now);
        let calm = self.publishers[who].at.is_some_and(|at| self.nodes[at].unwell_until <= self.now);
        self.judge.fates.insert(key, Fate { room, first_sent, calm, ..Fate::default() });
        self.count("published");
        self.attempt(who, seq);
    }

    pub(super) fn key(&self, who: usize, seq: u32) -> Key {
        Key(u32::try_from(who).unwrap(), seq)
    }

    fn attempt(&mut self, who: usize, seq: u32) {
        let Some(node) = self.publishers[who].at else { return };
        let ask = self.ask(Asked::Publish(who, seq), 0);
        self.publishers[who].open.insert(seq, Attempt::Sent { token: ask.token, at: self.now });
        let key = self.key(who, seq);
        if let Some(fate) = self.judge.fates.get_mut(&key) {
            fate.attempts += 1;
        }
        let (room, ids) = (self.publishers[who].room, self.publishers[who].ids);
        self.at(PATIENCE, Event::GiveUp { who, seq, token: ask.token });
        self.input(node, Input::Publish { room, key, ids, ask });
    }

    /// No answer came.
    pub(super) fn give_up(&mut self, who: usize, seq: u32, token: u64) {
        if matches!(self.publishers[who].open.get(&seq), Some(Attempt::Sent { token: open, .. }) if *open == token) {
            self.asked.remove(&token);
            self.fail(who, seq, true);
        }
    }

    /// An attempt failed; `unknown` if it may have had an effect all the same.
    fn fail(&mut self, who: usize, seq: u32, unknown: bool) {
        let key = self.key(who, seq);
        if let Some(fate) = self.judge.fates.get_mut(&key) {
            fate.unknown |= unknown;
        }
        self.count(if unknown { "unanswered" } else { "refused" });
        if self.publishers[who].ids {
            self.publishers[who].open.insert(seq, Attempt::Again);
            let wait = 200 + self.rng.below(600);
            self.at(wait, Event::Resend(who));
        } else {
            self.publishers[who].open.remove(&seq);
        }
    }

    /// Sends again, in order, what failed.
    pub(super) fn resend(&mut self, who: usize) {
        let open = self.publishers[who].open.iter();
        let again: Vec<u32> = open.filter(|(_, attempt)| **attempt == Attempt::Again).map(|(seq, _)| *seq).collect();
        if self.publishers[who].at.is_some() {
            for seq in again {
                self.attempt(who, seq);
            }
        }
    }

    fn published(&mut self, node: usize, (who, seq): (usize, u32), token: u64, result: Result<Stamp, Refusal>) {
        if !matches!(self.publishers[who].open.get(&seq), Some(Attempt::Sent { token: open, .. }) if *open == token) {
            return;
        }
        match result {
            Ok(stamp) => {
                self.publishers[who].open.remove(&seq);
                let (key, room, now) = (self.key(who, seq), self.publishers[who].room, self.now);
                self.count("acked");
                self.judge.ok(key, stamp, now);
                self.shown(Some(node), room, (stamp.lineage, stamp.n), key);
            }
            Err(Refusal::Timeout | Refusal::Internal) => self.fail(who, seq, true),
            Err(Refusal::Overloaded { .. } | Refusal::StorageFull | Refusal::Draining | Refusal::LimitReached) => {
                self.fail(who, seq, false);
            }
        }
    }

    /// The clients of a node lose it: they do not know what became of what they sent.
    pub(super) fn lose_clients(&mut self, node: usize) {
        for who in 0..self.publishers.len() {
            if self.publishers[who].at != Some(node) {
                continue;
            }
            self.publishers[who].at = None;
            let open: Vec<u32> = self.publishers[who].open.keys().copied().collect();
            for seq in open {
                let key = self.key(who, seq);
                let fate = self.judge.fates.get_mut(&key).unwrap();
                (fate.unknown, fate.calm) = (true, false);
                if self.publishers[who].ids {
                    self.publishers[who].open.insert(seq, Attempt::Again);
                } else {
                    self.publishers[who].open.remove(&seq);
                }
            }
            let wait = 500 + self.rng.below(1_000);
            self.at(wait, Event::Attach(who));
        }
        for who in 0..self.members.len() {
            if self.members[who].at == Some(node) {
                self.members[who].at = None;
                self.members[who].joining = None;
                self.end_stretch(who, false);
                let wait = 500 + self.rng.below(1_000);
                self.at(wait, Event::Join(who));
            }
        }
    }

    /// What is on its way to a node that is not well is not judged by its time.
    pub(super) fn excuse_clients(&mut self, node: usize) {
        for who in 0..self.publishers.len() {
            if self.publishers[who].at == Some(node) {
                let open: Vec<u32> = self.publishers[who].open.keys().copied().collect();
                for seq in open {
                    let key = self.key(who, seq);
                    self.judge.fates.get_mut(&key).unwrap().calm = false;
                }
            }
        }
    }

    /// The publisher finds a node.
    pub(super) fn attach(&mut self, who: usize) {
        if self.publishers[who].at.is_some() {
            return;
        }
        match self.some_node() {
            Some(node) => {
                self.publishers[who].at = Some(node);
                self.resend(who);
            }
            None => self.at(500, Event::Attach(who)),
        }
    }

    /// The member asks to join, wherever it finds a node.
    pub(super) fn join(&mut self, who: usize) {
        if self.members[who].joining.is_some() || self.members[who].stretch.is_some() {
            return;
        }
        let node = match self.members[who].at.or_else(|| self.some_node()) {
            Some(node) if self.nodes[node].takes_clients() => node,
            Some(_) | None => {
                self.members[who].at = None;
                return self.at(500, Event::Join(who));
            }
        };
        let want = match (self.members[who].cursor, self.rng.below(10)) {
            (Some(Stamp { lineage, n }), 0..=6) => Want::Since { after: n, lineage: Some(lineage) },
            (_, 7 | 8) => Want::Nothing,
            (_, _) => Want::Last(u32::try_from(1 + self.rng.below(30)).unwrap()),
        };
        let ask = self.ask(Asked::Join(who), self.members[who].shard);
        self.members[who].at = Some(node);
        self.members[who].joining = Some((ask.token, want));
        let room = self.members[who].room;
        self.input(node, Input::Join { room, want, ask });
    }

    /// The member leaves, to come back later.
    pub(super) fn leave(&mut self, who: usize) {
        let Some(node) = self.members[who].at.filter(|_| self.members[who].stretch.is_some()) else { return };
        let (room, shard) = (self.members[who].room, self.members[who].shard);
        self.end_stretch(who, false);
        self.count("left");
        self.input(node, Input::Leave { room, shard });
        if self.rng.below(3) == 0 {
            self.members[who].at = None;
        }
        let wait = 500 + self.rng.below(5_000);
        self.at(wait, Event::Join(who));
    }

    /// Whether this node's shard has a member of the room.
    pub(super) fn has_member(&self, node: usize, shard: u8, room: usize) -> bool {
        let is = |member: &Member| member.at == Some(node) && member.shard == shard && member.room == room;
        self.members.iter().any(|member| is(member) && member.stretch.is_some())
    }

    pub(super) fn end_stretch(&mut self, who: usize, open: bool) {
        if let Some(mut stretch) = self.members[who].stretch.take() {
            stretch.open = open;
            self.judge.close(who, self.members[who].room, stretch);
        }
    }

    pub(super) fn answered(&mut self, node: usize, ask: Ask, answer: Answer) {
        let token = ask.token;
        let Some(asked) = self.asked.remove(&token) else { return };
        match (asked, answer) {
            (Asked::Publish(who, seq), Answer::Published(result)) => self.published(node, (who, seq), token, result),
            (Asked::Join(who), Answer::Joined(result)) => {
                let Some((_, want)) = self.members[who].joining.take_if(|(open, _)| *open == token) else { return };
                match result {
                    Ok(history) => self.joined(who, want, &history),
                    Err(_) => {
                        let wait = 300 + self.rng.below(500);
                        self.at(wait, Event::Join(who));
                    }
                }
            }
            (Asked::Reading, Answer::History(result)) => drop(self.readings.insert((node, token), result)),
            (asked, answer) => self.judge.blame(format!("{asked:?} was answered by {answer:?}")),
        }
    }

    fn joined(&mut self, who: usize, want: Want, history: &History) {
        self.count("joined");
        let room = self.members[who].room;
        let mut frames = Vec::new();
        for frame in &history.frames {
            let Some(key) = Key::decode(&frame.payload) else { continue };
            self.shown(None, room, (frame.lineage, frame.n), key);
            frames.push(((frame.lineage, frame.n), key));
        }
        if !frames.is_sorted_by(|a, b| a.0.0 != b.0.0 || a.0.1 < b.0.1) {
            self.judge.blame(format!("reordered: the history of room {room} for member {who}: {frames:x?}"));
        }
        let since = match want {
            Want::Since { after, lineage } => Some((after, lineage)),
            Want::Nothing | Want::Last(_) | Want::Page { .. } => None,
        };
        let same = since.is_some_and(|(_, lineage)| lineage == Some(history.lineage));
        let recovered = history.recovered == Some(true);
        if self.judge.rules.strict && since.is_some() && !recovered {
            self.judge.blame(format!("false recovered=false: member {who} of room {room}, same lineage: {same}"));
        }
        if recovered && !same {
            self.judge.blame(format!("recovered=true into another lineage: member {who} of room {room}"));
        }
        if since.is_some() {
            self.count(if recovered { "recovered" } else { "not recovered" });
        }
        let tail: Vec<(u64, Key)> =
            frames.iter().filter(|(place, _)| place.0 == history.lineage).map(|(place, key)| (place.1, *key)).collect();
        let after = match since {
            Some((after, _)) if recovered => after,
            Some(_) | None => tail.first().map_or(history.head, |(n, _)| n - 1),
        };
        if !recovered {
            self.members[who].known.clear();
        }
        let twice = frames.iter().find(|(_, key)| !self.members[who].known.insert(*key));
        if let Some((place, key)) = twice {
            self.judge
                .blame(format!("duplicate: {key:?} at {place:x?} again for member {who} of room {room}, in its join"));
        }
        if tail.last().is_some_and(|(n, _)| *n > history.head) {
            self.judge.blame(format!("the head {} of room {room} is behind its history", history.head));
        }
        self.members[who].cursor = Some(Stamp { lineage: history.lineage, n: history.head });
        let known = BTreeSet::new();
        let head = Stretch { lineage: history.lineage, after, seen: tail, known, open: true };
        self.members[who].stretch = Some(head);
        if self.members[who].restless {
            let wait = 1_000 + self.rng.below(20_000);
            self.at(wait, Event::Leave(who));
        }
    }

    /// The shard's members get a frame.
    pub(super) fn delivered(&mut self, node: usize, shard: u8, frame: &Frame) {
        let (Some(key), Some(room)) = (Key::decode(&frame.payload), self.room(&frame.room)) else { return };
        let place = (frame.lineage, frame.n);
        self.shown(Some(node), room, place, key);
        for who in self.listeners(node, shard, room) {
            let member = &mut self.members[who];
            let (Some(stretch), Some(cursor)) = (&mut member.stretch, member.cursor) else { continue };
            if stretch.lineage != frame.lineage {
                let was = stretch.lineage;
                return self.judge.blame(format!(
                    "epoch lie: member {who} of room {room} in lineage {was:x} is given {key:?} at {place:x?} without notice"
                ));
            }
            if frame.n <= cursor.n {
                return self.judge.blame(format!(
                    "reordered or repeated: member {who} of room {room} at {cursor:x?} is given {key:?} at {place:x?}"
                ));
            }
            stretch.seen.push((frame.n, key));
            member.cursor = Some(Stamp { lineage: frame.lineage, n: frame.n });
            if !member.known.insert(key) {
                return self.judge.blame(format!("duplicate: {key:?} again for member {who} of room {room}, live"));
            }
            self.count("delivered");
        }
    }

    /// The shard's members are told that something is missing.
    pub(super) fn told_of_gap(&mut self, node: usize, shard: u8, room: usize, stamp: Stamp) {
        for who in self.listeners(node, shard, room) {
            self.count("gaps");
            // Nodes that find each other one by one may begin a slot twice, until they all know each other.
            if self.judge.rules.strict && self.full {
                self.judge.blame(format!(
                    "a gap for member {who} of room {room} though one fault must cost none: {stamp:x?}"
                ));
            }
            self.end_stretch(who, false);
            let Stamp { lineage, n } = stamp;
            let known = self.members[who].known.clone();
            self.members[who].stretch = Some(Stretch { lineage, after: n, seen: Vec::new(), known, open: true });
            self.members[who].cursor = Some(stamp);
        }
    }

    fn listeners(&self, node: usize, shard: u8, room: usize) -> Vec<usize> {
        let is = |member: &Member| {
            member.at == Some(node) && member.shard == shard && member.room == room && member.stretch.is_some()
        };
        (0..self.members.len()).filter(|who| is(&self.members[*who])).collect()
    }
}
