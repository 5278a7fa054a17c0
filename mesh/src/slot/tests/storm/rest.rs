//! When everything is well again, and the last judgement over what is left then.
//!
//! Invariant: what is waited for is what `semantics.md` promises at the end of every fault, and no more.

use super::{Arc, BTreeMap, BTreeSet, Key, Ms, Place, Slots, Storm, Told, Want, probe};
use crate::slot::Census;

/// How long the cluster may need until everything is well again, from the end of the last fault.
pub(super) const HEALS_WITHIN: Ms = 30_000;

impl Storm {
    /// What is not yet as it should be; empty = the cluster is at rest.
    pub(super) fn unrest(&mut self) -> Vec<String> {
        let mut unrest = Vec::new();
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up()).collect();
        if !self.is_agreed() {
            unrest.push("views differ".to_owned());
        }
        for a in &up {
            for b in up.iter().filter(|b| *b != a) {
                if !self.network.link(*a, *b).is_some_and(|(link, _)| link.told == [Told::Up; 2]) {
                    unrest.push(format!("no link N{a} N{b}"));
                }
            }
        }
        let slots = u32::try_from(self.used_slots().len()).unwrap();
        let census = self.census();
        let (two, three) = (u32::from(up.len() > 1), u32::from(up.len() > 2));
        let wanted = Census {
            owned: slots,
            single_copy: slots * (1 - two),
            replica_in_sync: slots * two,
            replica_syncing: 0,
            witness: slots * three,
        };
        let one = std::env::var("SIM_ONE_COPY").is_ok();
        if census != wanted && !(one && census.owned == slots) {
            unrest.push(format!("{census:?} and not {wanted:?}"));
            for (at, slots) in self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.slots.as_ref()?))) {
                unrest.extend(
                    probe::led(slots).map(|(slot, term)| format!("N{at} leads {slot}: {}", probe::in_short(&term))),
                );
            }
        }
        for (who, publisher) in self.publishers.iter().enumerate() {
            if !self.publishing && !publisher.open.is_empty() {
                unrest.push(format!("publisher {who} waits for {:?}", publisher.open));
            }
        }
        let out = self.members.iter().enumerate().filter(|(_, member)| member.stretch.is_none() && !member.restless);
        unrest.extend(out.map(|(who, _)| format!("member {who} is not in its room")));
        unrest
    }

    /// All nodes' figures together.
    pub(super) fn census(&self) -> Census {
        let mut sum = Census::default();
        for census in self.nodes.iter().filter_map(|node| node.slots.as_ref()).map(Slots::census) {
            sum.owned += census.owned;
            sum.single_copy += census.single_copy;
            sum.replica_in_sync += census.replica_in_sync;
            sum.replica_syncing += census.replica_syncing;
            sum.witness += census.witness;
        }
        sum
    }

    /// Waits until everything is well; how long that took, or blame.
    pub(super) fn come_to_rest(&mut self, most: Ms) -> Option<Ms> {
        let mut since = self.now;
        loop {
            if !self.pass(200) {
                return None;
            }
            let back = (0..self.plan.ends_with).all(|at| self.nodes[at].is_up() && self.nodes[at].draining.is_none());
            if !back {
                // A node that drains, or is away after it, is the end of a fault still to come.
                since = self.now;
            }
            let unrest = self.unrest();
            if unrest.is_empty() && back {
                return Some(self.now - since);
            }
            if self.now > since + most {
                self.judge.blame(format!("stuck: {most} ms after all was mended: {}", unrest.join("; ")));
                return None;
            }
        }
    }

    /// The last judgement: every room's history from every node, and what members saw.
    pub(super) fn settle(&mut self) -> Vec<u64> {
        self.plan.questions_lost = 0;
        for who in 0..self.members.len() {
            self.end_stretch(who, true);
        }
        for who in 0..self.publishers.len() {
            let open: Vec<u32> = self.publishers[who].open.keys().copied().collect();
            for seq in open {
                let key = self.key(who, seq);
                if let Some(fate) = self.judge.fates.get_mut(&key) {
                    fate.unknown = true;
                }
            }
        }
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up()).collect();
        let asked: Vec<(usize, usize, u64)> = (0..self.rooms.len())
            .flat_map(|room| up.iter().map(move |at| (room, *at)))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(room, at)| {
                (room, at, self.read_room(at, room, Want::Page { limit: u32::MAX, since: None, reverse: false }))
            })
            .collect();
        self.pass(3_000);
        let mut finals: BTreeMap<usize, (u64, Vec<(Place, Key)>)> = BTreeMap::new();
        for (room, at, token) in asked {
            let Some(Ok(history)) = self.readings.remove(&(at, token)) else {
                self.judge.blame(format!("node {at} does not read room {room}"));
                continue;
            };
            let frames = history.frames.iter().map(Arc::as_ref);
            let frames: Vec<(Place, Key)> =
                frames.filter_map(|frame| Some(((frame.lineage, frame.n), Key::decode(&frame.payload)?))).collect();
            let is = (history.lineage, frames);
            match finals.get(&room) {
                Some(first) if *first != is => {
                    let (a, b) = (first.1.len(), is.1.len());
                    self.judge.blame(format!("node {at} reads another history of room {room}: {a} and {b} frames"));
                }
                Some(_) => {}
                None => drop(finals.insert(room, is)),
            }
        }
        let alive: BTreeSet<(usize, u64)> = self.alive();
        let mut lineages = Vec::new();
        for (room, (lineage, frames)) in finals {
            for (place, key) in &frames {
                let slot = self.rooms[room].slot();
                self.judge.show(room, slot, *place, *key);
            }
            self.judge.judge_room(room, lineage, &frames, &alive);
            lineages.push(lineage);
        }
        self.judge.judge_stretches();
        lineages
    }
}
