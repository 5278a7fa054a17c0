//! Who lives: what links, views and silence say of the other nodes.
//!
//! Invariants: a life that a later one of the same node has followed is over for good; silence is judged by this node's own
//! timers, and not at all right after they were late themselves (`mesh.md` 3 (a): a sick observer doubts itself first).

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::Slots;
use crate::{
    LANES, MemberState, NodeId, View,
    wire::{
        message::Control,
        triple::{Life, Say, Triple},
    },
};

/// How often this node says that it lives.
const BEAT: Duration = Duration::from_millis(250);
/// Timers that come later than this say that this node slept.
const LATE: Duration = Duration::from_millis(500);
/// Who was heard this lately may get a seat.
const HEARD: Duration = Duration::from_millis(700);
/// How long slots that nobody is known to lead wait for nodes that may know better (`semantics.md` 3, cold start).
const COLD: Duration = Duration::from_secs(5);

impl Slots {
    /// Takes over who is in the cluster.
    pub(super) fn note_view(&mut self, view: &View, now: Instant) {
        self.members = view.members.iter().map(|member| (member.node, member.generation)).collect();
        let draining = view.outside.iter().filter(|member| match member.state {
            MemberState::Draining | MemberState::Alive | MemberState::Suspect => true,
            MemberState::Down => false,
        });
        self.leaving = draining.map(|member| (member.node, member.generation)).collect();
        self.look_settled(now);
    }

    /// The generation of the node's process that is known now; `None` = it is not in the cluster.
    fn generation(&self, node: NodeId) -> Option<u64> {
        let linked = self.generations.get(&node);
        linked.or_else(|| self.members.get(&node)).or_else(|| self.leaving.get(&node)).copied()
    }

    /// This life is over, or the cluster says so.
    pub(super) fn is_gone(&self, life: Life) -> bool {
        if life.node == self.config.node {
            return life.generation != self.config.generation;
        }
        // Who has just started may not know everybody yet.
        self.generation(life.node).map_or(!self.young, |known| known > life.generation)
    }

    /// Nothing was heard of it for so long, or it is gone.
    pub(super) fn is_silent(&self, life: Life, long: Duration, now: Instant) -> bool {
        self.is_gone(life) || self.heard.get(&life.node).is_none_or(|at| *at + long <= now)
    }

    /// Those who may hold a seat of the slot beside us: first as the ring has them.
    pub(super) fn candidates(&self, number: u16, now: Instant) -> Vec<Life> {
        let ring = self.table.iter().flat_map(|table| table.triple(number)).flatten();
        let mut nodes: Vec<NodeId> = Vec::new();
        for node in ring.chain(self.members.keys().copied()) {
            if node != self.config.node && !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        let lives = nodes.into_iter().filter_map(|node| {
            let generation = *self.generations.get(&node)?;
            let life = Life { node, generation };
            let heard = self.members.contains_key(&node) && !self.is_silent(life, HEARD, now);
            heard.then_some(life)
        });
        lives.collect()
    }

    /// The seats of a slot that this node begins.
    pub(super) fn seats_for(&self, number: u16, now: Instant) -> Triple {
        let mut others = self.candidates(number, now).into_iter();
        Triple { owner: self.me(), replica: others.next(), witness: others.next() }
    }

    /// Something came from that node.
    pub(super) fn note_heard(&mut self, node: NodeId, now: Instant) {
        self.heard.insert(node, now);
    }

    /// The timers came. If they are late, the silence of others says nothing.
    pub(super) fn note_tick(&mut self, now: Instant) {
        if self.ticked.replace(now).is_some_and(|before| before + LATE < now) {
            self.heard.values_mut().for_each(|heard| *heard = now);
        }
        if self.beat_at.is_none_or(|at| at <= now) {
            self.beat_at = Some(now + BEAT);
            for node in self.links.clone() {
                self.send(node, u16::from(self.config.shard), Control::Beat.encode());
            }
        }
    }

    /// A peer that is linked anew hears which terms we have a part in.
    pub(super) fn tell_terms(&mut self, node: NodeId) {
        let me = self.me();
        let mine: Vec<(u16, Say)> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.term.triple.has(me))
            .map(|(number, seat)| (*number, Say::Exists(seat.term)))
            .collect();
        for (number, say) in mine {
            self.say_to(number, node, say);
        }
        let (shard, of) = (self.config.shard, self.config.shards);
        for lane in 0..LANES {
            self.send(node, u16::from(lane), Control::Told { shard, of, lane }.encode());
        }
    }

    /// A peer has said all that one of its shards knows, in that lane.
    pub(super) fn handle_told(&mut self, from: NodeId, (shard, of): (u8, u8), lane: u8, now: Instant) {
        let (told, shards) = self.told.entry(from).or_default();
        *shards = of;
        told.insert((shard, lane));
        self.look_settled(now);
    }

    fn has_told(&self, node: NodeId) -> bool {
        let complete = |(told, of): &(BTreeSet<(u8, u8)>, u8)| told.len() >= usize::from(*of) * usize::from(LANES);
        self.told.get(&node).is_some_and(complete)
    }

    /// Whether everybody that lives has said which slots are led, or had long enough to.
    pub(super) fn look_settled(&mut self, now: Instant) {
        let me = self.config.node;
        let since = *self.viewed_at.get_or_insert(now);
        self.young &= now < since + self.config.limits.cold;
        let others: Vec<NodeId> =
            self.members.keys().chain(self.leaving.keys()).copied().filter(|node| *node != me).collect();
        let told = others.iter().all(|node| self.has_told(*node));
        // Who is reached and is in no view yet would begin what this node begins.
        let strangers = self.young && self.links.iter().any(|node| !others.contains(node));
        if told && !strangers && (!others.is_empty() || !self.young) {
            self.unsettled_since = None;
            self.settled = true;
            return;
        }
        let since = *self.unsettled_since.get_or_insert(now);
        self.settled = !self.young && since + COLD <= now;
    }
}
