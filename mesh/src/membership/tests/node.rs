//! One process of the simulator: membership, dial policy and seeds, wired as `driver::state` wires them.
//!
//! Invariant: what the driver decides from these values is decided here from the same values in the same order; only
//! sockets are missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Instant,
};

use bytes::Bytes;

use super::{Life, address};
use crate::{
    NodeId, Timings, View,
    membership::{Identity, Membership},
    peers::Peers,
    rng::SplitMix,
    seeds::Seeds,
};

pub(in crate::membership) struct Node {
    pub(in crate::membership) membership: Membership,
    pub(super) life: Life,
    pub(super) peers: Peers,
    pub(super) seeds: Seeds,
    /// Processes we have a link to.
    pub(super) links: BTreeMap<u16, Life>,
    pub(super) linked_generations: BTreeMap<u16, u64>,
    /// It said good-bye: nobody is wrong who takes it for gone.
    pub(super) left: bool,
    names: usize,
    /// The latest process of each node that a view showed.
    latest: BTreeMap<NodeId, u64>,
    down: BTreeSet<(u16, u64)>,
    wanted: Vec<(Option<NodeId>, SocketAddr)>,
    wake_at: Option<Instant>,
}

impl Node {
    pub(super) fn new(
        me: Identity,
        life: Life,
        seeds: Vec<String>,
        timings: &Timings,
        rng: &mut SplitMix,
        now: Instant,
    ) -> Node {
        Node {
            life,
            names: seeds.len(),
            peers: Peers::new(me.node, timings, rng.next()),
            seeds: Seeds::new(seeds, timings, [me.addr; 2], rng.next(), now),
            membership: Membership::new(me, timings, rng.next(), now),
            links: BTreeMap::new(),
            linked_generations: BTreeMap::new(),
            left: false,
            latest: BTreeMap::new(),
            down: BTreeSet::new(),
            wanted: Vec::new(),
            wake_at: None,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.membership.identity().generation
    }

    pub(super) fn wake(&mut self, now: Instant) {
        // Wakes that came too early or twice find nothing due.
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
        }
        self.membership.handle_timeout(now);
        let alone = self.links.is_empty();
        if !self.left && self.seeds.handle_timeout(alone, now).is_some() {
            let found = (0..self.names).filter_map(|seed| u16::try_from(seed).ok()).map(address).collect();
            let links = &self.links;
            let linked = |addr| links.keys().any(|node| address(*node) == addr);
            let dials = self.seeds.handle_resolved(found, linked);
            self.wanted.extend(dials.into_iter().map(|addr| (None, addr)));
        }
    }

    /// Our roster, if that is the answer.
    pub(super) fn handle_roster(&mut self, body: Bytes, question: bool, now: Instant) -> Option<Bytes> {
        self.membership.handle_roster(body, now).ok()?;
        question.then(|| self.membership.roster())
    }

    pub(super) fn handle_linked(&mut self, peer: Identity, life: Life, now: Instant) {
        let node = peer.node;
        self.peers.handle_member(node, peer.generation, peer.addr, true, now);
        self.peers.handle_link_up(node);
        self.links.insert(node.0, life);
        self.linked_generations.insert(node.0, peer.generation);
        self.membership.handle_link_up(peer, now);
    }

    pub(super) fn handle_closed(&mut self, (node, life): (u16, Life), now: Instant) {
        if self.links.get(&node) == Some(&life) {
            self.links.remove(&node);
            self.linked_generations.remove(&node);
            self.peers.handle_link_down(NodeId(node), now);
            if self.links.is_empty() {
                self.seeds.handle_alone(now);
            }
        }
    }

    /// Gossip has something for a node without link.
    pub(super) fn want(&mut self, node: NodeId, now: Instant) {
        if let Some(addr) = self.peers.handle_wanted(node, now) {
            self.wanted.push((Some(node), addr));
        }
    }

    /// Follows what gossip knows, and says who is newly taken for gone.
    pub(super) fn handle_members(&mut self, now: Instant) -> Vec<(u16, u64)> {
        let mut down = BTreeSet::new();
        for member in self.membership.peers() {
            let (peer, alive) = (member.id(), member.state() != foca::State::Down);
            let node = peer.node.0;
            if !alive {
                down.insert((node, peer.generation));
            }
            if self.linked_generations.get(&node).is_some_and(|linked| *linked < peer.generation) {
                self.links.remove(&node);
                self.linked_generations.remove(&node);
                self.peers.handle_link_down(peer.node, now);
            }
            self.peers.handle_member(peer.node, peer.generation, peer.addr, alive, now);
        }
        let fresh = down.difference(&self.down).copied().collect();
        self.down = down;
        fresh
    }

    /// What is wrong with this view, if anything.
    pub(super) fn handle_view(&mut self, view: &View) -> Option<String> {
        let mut nodes = BTreeSet::new();
        for member in view.members.iter().chain(&view.outside) {
            let latest = self.latest.entry(member.node).or_default();
            if !nodes.insert(member.node) || member.generation < *latest {
                return Some(format!("{} sees {} twice or in the past", self.membership.identity().node, member.node));
            }
            *latest = member.generation;
        }
        None
    }

    /// What is to be dialled now.
    pub(super) fn dials(&mut self, now: Instant) -> Vec<(Option<NodeId>, SocketAddr)> {
        if self.left {
            return Vec::new();
        }
        let policy = std::iter::from_fn(|| self.peers.poll_dial(now)).map(|(node, addr)| (Some(node), addr));
        let due: Vec<_> = policy.collect();
        self.wanted.drain(..).chain(due).collect()
    }

    /// When it wants to be woken, if that is not arranged yet.
    pub(super) fn wake_needed(&mut self) -> Option<Instant> {
        let due = self.peers.poll_timeout().into_iter().chain([self.seeds.poll_timeout()]);
        let due = due.fold(self.membership.poll_timeout(), Instant::min);
        let sooner = self.wake_at.is_none_or(|at| due < at);
        sooner.then(|| {
            self.wake_at = Some(due);
            due
        })
    }
}
