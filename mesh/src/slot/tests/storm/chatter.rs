//! Volatile messages of a run: said by any node at any moment, and what must never come of them.
//!
//! Invariants: nobody is given one twice, nobody keeps one, and once everything is well everybody with a member hears all.

use std::collections::BTreeSet;

use super::{Event, Input, Ms, Storm};
use crate::{
    room::RoomKey,
    slot::{Ask, Publish},
    wire::message::{FLAG_VOLATILE, Frame},
};

/// Who was given what: the message, the node and its life, the shard.
type Heard = (u64, usize, u64, u8);

/// What was said and heard.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    said: u64,
    heard: BTreeSet<Heard>,
}

/// Nobody waits for the answer: it is there at once and says nothing.
pub(super) const ASK: Ask = Ask { shard: 0, token: 0 };

/// Its payload is no `Key`.
pub(super) fn publish(room: &RoomKey, number: u64) -> Publish {
    let payload = [b"v".as_slice(), &number.to_be_bytes()].concat().into();
    let (id, from) = Default::default();
    Publish { room: room.clone(), flags: FLAG_VOLATILE, id, from, except: Vec::new(), payload }
}

fn decode(payload: &[u8]) -> Option<u64> {
    payload.strip_prefix(b"v").and_then(|number| Some(u64::from_be_bytes(number.try_into().ok()?)))
}

impl Storm {
    /// Somebody says something, now and again.
    pub(super) fn chat(&mut self) {
        if self.publishing {
            let next = self.plan.chatter / 2 + self.rng.below(self.plan.chatter);
            self.at(next, Event::Chat);
        }
        let room = usize::try_from(self.rng.below(self.rooms.len() as u64)).unwrap();
        if let Some(at) = self.some_node() {
            self.say_volatile(at, room);
        }
    }

    fn say_volatile(&mut self, at: usize, room: usize) -> u64 {
        self.chatter.said += 1;
        let number = self.chatter.said;
        self.count("said");
        self.input(at, Input::Chat { room, number });
        number
    }

    /// A shard is given something volatile.
    pub(super) fn heard(&mut self, at: usize, shard: u8, frame: &Frame) {
        let Some(number) = decode(&frame.payload) else { return };
        self.count("heard");
        if !self.chatter.heard.insert((number, at, self.nodes[at].generation, shard)) {
            self.judge.blame(format!("duplicate: volatile message {number} again for shard {shard} of node {at}"));
        }
    }

    /// What a node keeps.
    pub(super) fn must_not_be_volatile(&mut self, at: usize, frame: &Frame) {
        if frame.is_volatile() {
            self.judge.blame(format!("node {at} keeps a volatile message: {frame:?}"));
        }
    }

    /// Everything is well: from every node to every room, every shard with a member hears what is said. A node may still stand
    /// still for a moment, so it is tried more than once, within the time that a wrong lease lives.
    pub(super) fn everybody_hears(&mut self) -> bool {
        let mut unheard = Vec::new();
        for _ in 0..3 {
            let Some(missing) = self.who_does_not_hear() else { return false };
            unheard = missing;
            if unheard.is_empty() {
                return true;
            }
        }
        self.judge.blame(format!("unheard, as message, node, life, shard: {unheard:?}"));
        false
    }

    fn who_does_not_hear(&mut self) -> Option<Vec<Heard>> {
        const WITHIN: Ms = 2_000;
        let nodes: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].takes_clients()).collect();
        let mut expected = Vec::new();
        for room in 0..self.rooms.len() {
            let shards = nodes.iter().flat_map(|at| [(*at, 0), (*at, 1)]);
            let members: Vec<(usize, u8)> = shards.filter(|(at, shard)| self.has_member(*at, *shard, room)).collect();
            for from in &nodes {
                let number = self.say_volatile(*from, room);
                let heard = |(at, shard): &(usize, u8)| (room, (number, *at, self.nodes[*at].generation, *shard));
                expected.extend(members.iter().map(heard));
            }
        }
        self.pass(WITHIN).then_some(())?;
        // Who left meanwhile hears nothing.
        let stays = |(room, (_, at, _, shard)): &(usize, Heard)| self.has_member(*at, *shard, *room);
        let unheard = expected.into_iter().filter(stays).map(|(_, heard)| heard);
        Some(unheard.filter(|heard| !self.chatter.heard.contains(heard)).collect())
    }
}
