//! What each node believes of the others: a failure detector that needs its time, separately at every node.
//!
//! Invariants: a belief changes only after the truth has been another for a while without a break; a node that stood still
//! begins to count anew; a view is handed out one settle time after the last change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use super::{Event, Input, Ms, Storm};
use crate::{Member, MemberState, NodeId, Table, View};

/// How often everybody looks.
const LOOK: Ms = 100;
/// `Timings::settle`.
const SETTLE: Ms = 300;
/// A pause that short is not noticed by anybody.
const UNNOTICED: Ms = 1_500;

/// What is known of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    Unknown,
    Alive { generation: u64, draining: bool },
    Down { generation: u64 },
}

/// One node's knowledge of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opinion {
    pub(super) belief: Belief,
    /// What it will be believed to be, since when it is so, and when that will be noticed.
    next: Option<(Belief, Ms)>,
}

/// Everybody's opinions.
#[derive(Default)]
pub(super) struct Detector {
    opinions: BTreeMap<(usize, usize), Opinion>,
    /// When a changed view is handed out.
    unsettled: BTreeMap<usize, Ms>,
    versions: BTreeMap<usize, u64>,
    /// Since when a process stands still.
    pub(super) still: BTreeMap<usize, Ms>,
}

/// Tables are costly to build and there are few.
pub(super) fn table(nodes: &[NodeId]) -> Arc<Table> {
    static TABLES: Mutex<BTreeMap<Vec<u16>, Arc<Table>>> = Mutex::new(BTreeMap::new());
    let key: Vec<u16> = nodes.iter().map(|node| node.0).collect();
    TABLES.lock().unwrap().entry(key).or_insert_with(|| Arc::new(Table::build(nodes))).clone()
}

impl Storm {
    /// A new process knows nobody.
    pub(super) fn forget_beliefs(&mut self, at: usize) {
        self.detector.still.remove(&at);
        for peer in 0..self.nodes.len() {
            self.detector.opinions.insert((at, peer), Opinion { belief: Belief::Unknown, next: None });
        }
    }

    /// A process that stood still has missed what would have told it: it counts anew.
    pub(super) fn detect_anew(&mut self, at: usize) {
        self.detector.still.remove(&at);
        for peer in 0..self.nodes.len() {
            if let Some(opinion) = self.detector.opinions.get_mut(&(at, peer)) {
                opinion.next = None;
            }
        }
    }

    /// Everybody looks at everybody.
    pub(super) fn look(&mut self) {
        self.at(LOOK, Event::Look);
        self.look_at_terms();
        for at in 0..self.nodes.len() {
            if !self.nodes[at].is_up() || self.nodes[at].paused.is_some() {
                continue;
            }
            for peer in (0..self.nodes.len()).filter(|peer| *peer != at) {
                self.look_at(at, peer);
            }
            if self.detector.unsettled.get(&at).is_some_and(|due| *due <= self.now) {
                self.hand_view(at);
            }
        }
    }

    fn look_at(&mut self, at: usize, peer: usize) {
        let truth = self.truth(at, peer);
        let now = self.now;
        let Some(opinion) = self.detector.opinions.get(&(at, peer)).copied() else { return };
        let truth = match (truth, opinion.belief) {
            // Nobody missed it.
            (Belief::Down { .. }, Belief::Unknown | Belief::Down { .. }) => opinion.belief,
            (truth, _) => truth,
        };
        let next = match opinion.next {
            _ if truth == opinion.belief => None,
            Some((next, due)) if next == truth => Some((next, due)),
            Some(_) | None => Some((truth, now + self.notice(truth, opinion.belief))),
        };
        let due = next.is_some_and(|(_, due)| due <= now);
        let opinion = match next {
            Some((belief, _)) if due => Opinion { belief, next: None },
            Some(_) | None => Opinion { next, ..opinion },
        };
        self.detector.opinions.insert((at, peer), opinion);
        if due {
            self.detector.unsettled.entry(at).or_insert(now + SETTLE);
        }
    }

    /// How long the change takes to be believed.
    fn notice(&mut self, truth: Belief, belief: Belief) -> Ms {
        let (least, most) = match (truth, belief) {
            (Belief::Down { .. }, Belief::Alive { draining: true, .. }) => (300, 1_500),
            (Belief::Down { .. }, _) => (2_000, 6_000),
            (Belief::Alive { draining: true, .. }, _) => (100, 1_000),
            (Belief::Unknown | Belief::Alive { .. }, _) => (1_000, 3_000),
        };
        least + self.rng.below(most - least)
    }

    fn truth(&self, at: usize, peer: usize) -> Belief {
        let node = &self.nodes[peer];
        let generation = node.generation;
        let still = self.detector.still.get(&peer).is_some_and(|since| since + UNNOTICED < self.now);
        let reached = |from, to| !self.network.is_cut(from, to);
        // Others are asked to look, too.
        let through = |other| self.is_well(other) && reached(at, other) && reached(other, peer);
        let cut =
            !reached(at, peer) && !(0..self.nodes.len()).any(|other| other != at && other != peer && through(other));
        if !node.is_up() || still || cut {
            return Belief::Down { generation };
        }
        Belief::Alive { generation, draining: node.draining.is_some() }
    }

    /// The node's own view, as it is now.
    pub(super) fn hand_view(&mut self, at: usize) {
        self.detector.unsettled.remove(&at);
        let version = self.detector.versions.entry(at).or_insert(0);
        *version += 1;
        let version = *version;
        let (mut members, mut outside) = (Vec::new(), Vec::new());
        for peer in 0..self.nodes.len() {
            let belief = if peer == at {
                Belief::Alive { generation: self.nodes[at].generation, draining: self.nodes[at].draining.is_some() }
            } else {
                self.detector.opinions.get(&(at, peer)).map_or(Belief::Unknown, |opinion| opinion.belief)
            };
            match belief {
                Belief::Unknown => {}
                Belief::Alive { generation, draining: false } => {
                    members.push(member(peer, generation, MemberState::Alive));
                }
                Belief::Alive { generation, draining: true } => {
                    outside.push(member(peer, generation, MemberState::Draining));
                }
                Belief::Down { generation } => outside.push(member(peer, generation, MemberState::Down)),
            }
        }
        let ids: Vec<NodeId> = members.iter().map(|member| member.node).collect();
        let numbers: Vec<u64> = members.iter().map(|member| u64::from(member.node.0)).collect();
        self.trace.note(self.now, at, "view", &numbers, || format!("{numbers:?}"));
        // A node takes clients when it knows everybody who is there, or after a while.
        let all: BTreeSet<u64> =
            (0..self.nodes.len()).filter(|peer| self.is_well(*peer)).map(|peer| peer as u64).collect();
        let known: BTreeSet<u64> = numbers.iter().copied().collect();
        let node = &mut self.nodes[at];
        node.ready |= all.is_subset(&known) || self.now + 1_000 > node.unwell_until;
        let view = View { version, table: table(&ids), members, outside };
        self.input(at, Input::View(Arc::new(view)));
    }

    /// Whether everybody believes what is true.
    pub(super) fn is_agreed(&self) -> bool {
        let up: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].is_up()).collect();
        up.iter().all(|at| {
            !self.detector.unsettled.contains_key(at)
                && up.iter().filter(|peer| *peer != at).all(|peer| {
                    self.detector.opinions.get(&(*at, *peer)).map(|opinion| opinion.belief)
                        == Some(self.truth(*at, *peer))
                })
        })
    }

    fn is_well(&self, at: usize) -> bool {
        self.nodes[at].is_up() && self.nodes[at].paused.is_none() && self.nodes[at].draining.is_none()
    }
}

fn member(node: usize, generation: u64, state: MemberState) -> Member {
    let node = NodeId(u16::try_from(node).unwrap());
    Member { node, name: node.to_string(), generation, addr: ([127, 0, 0, 1], 1).into(), state }
}
