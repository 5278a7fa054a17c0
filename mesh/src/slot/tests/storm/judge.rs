//! What must never be seen, judged by what clients were shown and told (`semantics.md` 3, `reliability.md` 2.3).
//!
//! Invariants: nothing here is forgotten during a run; nothing is asked of the nodes that a client could not know, but who
//! holds a frame; the first thing that is wrong ends the run.

use std::collections::{BTreeMap, BTreeSet};

use super::Ms;
use crate::slot::Stamp;

/// A message: its publisher and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub(super) u32, pub(super) u32);

impl Key {
    pub(super) fn encode(self) -> [u8; 8] {
        ((u64::from(self.0) << 32) | u64::from(self.1)).to_be_bytes()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Key> {
        let word = u64::from_be_bytes(bytes.try_into().ok()?);
        Some(Key(u32::try_from(word >> 32).ok()?, u32::try_from(word & 0xffff_ffff).ok()?))
    }
}

/// A place in a room: lineage and number.
pub(super) type Place = (u64, u64);

/// What one member saw between two breaks of its continuity.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) lineage: u64,
    /// Exclusive.
    pub(super) after: u64,
    pub(super) seen: Vec<(u64, Key)>,
    /// What it had seen before, in another lineage: that is not given to it again.
    pub(super) known: BTreeSet<Key>,
    /// It is a member still.
    pub(super) open: bool,
}

impl Stretch {
    pub(super) fn last(&self) -> u64 {
        self.seen.last().map_or(self.after, |(n, _)| *n)
    }
}

/// What became of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    pub(super) room: usize,
    pub(super) first_sent: Ms,
    pub(super) ok: Option<(Stamp, Ms)>,
    /// An attempt may have had an effect that nobody was told of.
    pub(super) unknown: bool,
    /// Its publisher stayed where it was, at a node that was well, until the answer.
    pub(super) calm: bool,
    pub(super) attempts: u32,
    /// Lives that wrote it and were not told to forget it, whatever place it has there.
    pub(super) holders: BTreeSet<(usize, u64)>,
    /// Lives that ever held it.
    pub(super) held: BTreeSet<(usize, u64)>,
}

/// How a run is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// No lineage may change and nothing may be lost, whatever happens to one node.
    pub(super) strict: bool,
    /// What was acked so shortly before a crash may be lost: one node alone.
    pub(super) loses: Option<Ms>,
    /// The longest that a publisher at a node that is well may wait.
    pub(super) pause: Option<Ms>,
}

/// Everything that anybody was shown.
pub(super) struct Judge {
    pub(super) rules: Rules,
    /// Per room.
    shown: Vec<BTreeMap<Place, Key>>,
    /// Per slot, because a number is the slot's.
    places: BTreeMap<(u16, Place), Key>,
    pub(super) fates: BTreeMap<Key, Fate>,
    stretches: Vec<(usize, usize, Stretch)>,
    pub(super) broken: Vec<String>,
    /// When processes were killed.
    pub(super) crashes: Vec<Ms>,
    /// What was acked, is gone, and had to go: nobody who held it lived on.
    pub(super) lost: usize,
}

impl Judge {
    pub(super) fn new(rules: Rules, rooms: usize) -> Judge {
        Judge {
            rules,
            shown: vec![BTreeMap::new(); rooms],
            places: BTreeMap::new(),
            fates: BTreeMap::new(),
            stretches: Vec::new(),
            broken: Vec::new(),
            crashes: Vec::new(),
            lost: 0,
        }
    }

    pub(super) fn blame(&mut self, what: String) {
        self.broken.push(what);
    }

    /// Somebody was shown, or told of, a frame. Whether it is the first time.
    pub(super) fn show(&mut self, room: usize, slot: u16, place: Place, key: Key) -> bool {
        match self.places.insert((slot, place), key) {
            None => {
                self.shown[room].insert(place, key);
                true
            }
            Some(before) if before == key => false,
            Some(before) => {
                self.blame(format!("divergence: {before:?} and {key:?} both at {place:?} of room {room}"));
                false
            }
        }
    }

    /// A publish was answered with its place.
    pub(super) fn ok(&mut self, key: Key, stamp: Stamp, now: Ms) {
        let Some(fate) = self.fates.get_mut(&key) else { return };
        match fate.ok {
            Some((first, _)) if first.lineage == stamp.lineage && first.n != stamp.n => {
                self.blame(format!("two places for {key:?}: {first:?} and {stamp:?}"));
            }
            Some(_) => {}
            None => fate.ok = Some((stamp, now)),
        }
    }

    /// A member's continuity ended: it left, was told of a gap, or the run is over.
    pub(super) fn close(&mut self, member: usize, room: usize, stretch: Stretch) {
        self.stretches.push((member, room, stretch));
    }

    /// All that members saw without a break is all there was.
    pub(super) fn judge_stretches(&mut self) {
        for (member, room, stretch) in std::mem::take(&mut self.stretches) {
            let upto = if stretch.open { u64::MAX } else { stretch.last() };
            if upto <= stretch.after {
                continue;
            }
            let range = (stretch.lineage, stretch.after + 1)..=(stretch.lineage, upto);
            let was: Vec<(u64, Key)> = self.shown[room].range(range).map(|(place, key)| (place.1, *key)).collect();
            if let Some(missed) =
                was.iter().find(|frame| !stretch.seen.contains(frame) && !stretch.known.contains(&frame.1))
            {
                let (after, last) = (stretch.after, stretch.last());
                self.blame(format!(
                    "gap undetected: member {member} of room {room} saw {after}..{last} of lineage {:x}{} without {missed:?}",
                    stretch.lineage,
                    if stretch.open { " and on" } else { "" },
                ));
            }
        }
    }

    /// The final history of a room against all that was promised.
    pub(super) fn judge_room(
        &mut self,
        room: usize,
        lineage: u64,
        history: &[(Place, Key)],
        alive: &BTreeSet<(usize, u64)>,
    ) {
        let mut at: BTreeMap<Key, Vec<Place>> = BTreeMap::new();
        for (place, key) in history {
            at.entry(*key).or_default().push(*place);
        }
        let mut blames = Vec::new();
        for (key, places) in &at {
            match self.fates.get(key) {
                None => blames.push(format!("phantom: {key:?} in room {room}")),
                Some(fate) if fate.room != room => blames.push(format!("foreign: {key:?} in room {room}")),
                Some(fate) if fate.ok.is_none() && !fate.unknown => {
                    blames.push(format!("phantom: {key:?} was refused and is in room {room} at {places:?}"));
                }
                Some(_) if places.len() > 1 => {
                    blames.push(format!("duplicate: {key:?} is in room {room} at {places:x?}"));
                }
                Some(_) => {}
            }
        }
        for (key, fate) in self.fates.iter().filter(|(_, fate)| fate.room == room) {
            let Some((stamp, acked)) = fate.ok else { continue };
            let late = |crash: &Ms| self.rules.loses.is_some_and(|loses| *crash >= acked && *crash <= acked + loses);
            match at.get(key).map(Vec::as_slice) {
                Some([place]) if place.0 == stamp.lineage && place.1 != stamp.n => {
                    blames.push(format!("moved: {key:?} was answered {stamp:?} and is at {place:?} of room {room}"));
                }
                Some(_) => {}
                None if self.crashes.iter().any(late) => self.lost += 1,
                None if stamp.lineage == lineage => {
                    blames.push(format!(
                        "lost: {key:?} was answered {stamp:x?}; room {room} has it not, in the same lineage"
                    ));
                }
                None if self.rules.strict
                    || self.rules.loses.is_some()
                    || fate.holders.intersection(alive).next().is_some() =>
                {
                    let holders: Vec<_> = fate.holders.intersection(alive).collect();
                    blames.push(format!(
                        "lost: {key:?} was answered {stamp:x?}; room {room} has it not, {holders:?} held it"
                    ));
                }
                None => self.lost += 1,
            }
        }
        self.broken.extend(blames);
        self.judge_order(room, history);
    }

    /// Whoever was acked before another was sent comes before it, if both are of one publisher and one lineage: what a heal
    /// brings from another lineage comes behind what was there.
    fn judge_order(&mut self, room: usize, history: &[(Place, Key)]) {
        let mut newest: BTreeMap<(u64, u32), (u64, Key)> = BTreeMap::new();
        for (place, key) in history {
            let Some(fate) = self.fates.get(key) else { continue };
            if let Some((n, before)) = newest.get(&(place.0, key.0))
                && before.1 > key.1
                && fate.attempts == 1
                && self.fates.get(before).is_some_and(|before| {
                    before.attempts == 1
                        && fate.ok.is_some_and(|(stamp, at)| stamp.lineage == place.0 && at < before.first_sent)
                })
            {
                self.broken.push(format!("reordered: room {room}: {before:?} at {n} before {key:?} at {place:?}"));
            }
            newest.insert((place.0, key.0), (place.1, *key));
        }
    }

    /// The longest that a publisher at a node that was well waited for its answer.
    pub(super) fn longest_wait(&self, from: Ms) -> Ms {
        let waits = self.fates.values().filter(|fate| fate.calm && fate.first_sent >= from);
        waits.filter_map(|fate| Some(fate.ok?.1 - fate.first_sent)).max().unwrap_or_default()
    }
}
