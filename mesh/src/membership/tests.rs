//! A cluster in virtual time: real membership, dial policy and seeds of every node, a network that misbehaves, one seed.
//!
//! A node is wired as the driver wires it ([`node`]); the network ([`net`]) loses, delays, repeats and reorders datagrams,
//! cuts pairs in one or both directions and lets processes stop and go on. Streams (rosters, handshakes) are reliable and
//! pay for loss with time; a link whose path is blocked for the idle timeout is closed at both ends.
//!
//! Invariants: nothing reads a clock or a random source but [`World`], so equal seeds give equal traces ([`World::trace`]);
//! what is on its way to a process never reaches a later process of the same ordinal; a stopped process finds everything
//! it missed waiting for it, in order, when it goes on.

mod command;
mod figures;
mod net;
mod node;
mod promises;
mod story;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::{net::Net, node::Node};
use super::{Identity, Membership, Output};
use crate::{
    NodeId, Timings,
    peers::{Verdict, judge},
    rng::SplitMix,
};

/// One process of a node; never used twice.
type Life = u64;

/// Something that happens to a process.
#[derive(Debug)]
enum What {
    /// Its timers may be due.
    Wake,
    /// A gossip packet.
    Packet(Bytes),
    /// A roster of another process, which wants ours if it is a question.
    Roster { from: (u16, Life), body: Bytes, asked_at: Instant, question: bool },
    /// What it dialled at `at` would have answered by now.
    Greeting { node: Option<u16>, addr: SocketAddr, in_time: bool },
    /// The link to that process was closed by the other side.
    Closed { peer: (u16, Life) },
    /// The link to that process was silent since then for the idle timeout, if the path is still blocked.
    Idle { peer: (u16, Life), since: Option<Instant> },
}

struct Event {
    at: Instant,
    order: u64,
    to: (u16, Life),
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        self.order == other.order
    }
}

impl Eq for Event {}

impl Ord for Event {
    fn cmp(&self, other: &Event) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Event) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A node came to think that a process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Death {
    pub(super) at: Instant,
    pub(super) of: u16,
    pub(super) by: u16,
    /// The process was there.
    pub(super) of_a_live_one: bool,
}

/// What all nodes sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) packet_bytes: u64,
    pub(super) rosters: u64,
    pub(super) roster_bytes: u64,
    pub(super) dials: u64,
}

impl Traffic {
    fn since(self, before: Traffic) -> Traffic {
        Traffic {
            packets: self.packets - before.packets,
            packet_bytes: self.packet_bytes - before.packet_bytes,
            rosters: self.rosters - before.rosters,
            roster_bytes: self.roster_bytes - before.roster_bytes,
            dials: self.dials - before.dials,
        }
    }
}

/// The cluster. See the module.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: BTreeMap<u16, Node>,
    pub(super) net: Net,
    pub(super) deaths: Vec<Death>,
    pub(super) traffic: Traffic,
    /// Processes that heard that they had been declared down.
    pub(super) renewals: Vec<u16>,
    /// Processes that gave up because they seemed to be started twice.
    pub(super) gave_up: Vec<u16>,
    /// Views that cannot be: a node twice in one, or a process that was replaced.
    pub(super) odd: Vec<String>,
    timings: Timings,
    start: Instant,
    rng: SplitMix,
    events: BinaryHeap<Reverse<Event>>,
    pushed: u64,
    lives: Life,
    trace: u64,
}

impl World {
    /// Nobody yet; a network without faults but with this loss.
    pub(super) fn empty(loss_percent: u64, seed: u64) -> World {
        let now = crate::clock::now();
        World {
            now,
            nodes: BTreeMap::new(),
            net: Net::new(loss_percent),
            deaths: Vec::new(),
            traffic: Traffic::default(),
            renewals: Vec::new(),
            gave_up: Vec::new(),
            odd: Vec::new(),
            timings: Timings::default(),
            start: now,
            rng: SplitMix::new(seed),
            events: BinaryHeap::new(),
            pushed: 0,
            lives: 0,
            trace: seed,
        }
    }

    /// `count` nodes that start together.
    pub(super) fn new(count: u16, loss_percent: u64, seed: u64) -> World {
        let mut world = World::empty(loss_percent, seed);
        for node in 0..count {
            world.start(node, 1);
        }
        world
    }

    /// A process starts at its node's usual address.
    pub(super) fn start(&mut self, node: u16, generation: u64) {
        self.start_at(node, generation, address(node));
    }

    /// A process starts, with the first three ordinals as its seeds.
    pub(super) fn start_at(&mut self, node: u16, generation: u64, addr: SocketAddr) {
        let name = format!("gw-{node}").into();
        let me = Identity { node: NodeId(node), generation, edition: 0, draining: false, addr, name };
        self.lives += 1;
        let seeds = (0..3).map(|seed| format!("gw-{seed}")).collect();
        let node_value = Node::new(me, self.lives, seeds, &self.timings, &mut self.rng, self.now);
        self.nodes.insert(node, node_value);
        self.perform(node);
    }

    /// A process is gone, without a word; its peers' links are silent from now on.
    pub(super) fn kill(&mut self, node: u16) {
        let Some(dead) = self.nodes.remove(&node) else { return };
        self.net.paused.remove(&node);
        let peers: Vec<u16> = dead.links.keys().copied().collect();
        for peer in peers {
            // Idle time counts from the last packet, which came at most a keep-alive ago.
            let quiet = self.rng.between(Duration::ZERO, self.timings.keep_alive);
            let what = What::Idle { peer: (node, dead.life), since: None };
            self.push_to(peer, self.timings.idle - quiet, what);
        }
    }

    /// The process stops and goes on after `length`.
    pub(super) fn pause(&mut self, node: u16, length: Duration) {
        self.net.paused.insert(node, self.now + length);
        self.watch_links();
    }

    /// Looks at all links again after a change of [`World::net`]: those whose path is blocked will be closed.
    pub(super) fn watch_links(&mut self) {
        let (now, idle) = (self.now, self.timings.idle);
        let mut blocked = BTreeMap::new();
        let mut silent = Vec::new();
        for (one, node) in &self.nodes {
            for (other, life) in &node.links {
                if !self.net.blocked(*one, *other, now) {
                    continue;
                }
                let pair = (*one.min(other), *one.max(other));
                let since = self.net.blocked_since.get(&pair).copied().unwrap_or(now);
                if since == now {
                    silent.push((*one, What::Idle { peer: (*other, *life), since: Some(now) }));
                }
                blocked.insert(pair, since);
            }
        }
        self.net.blocked_since = blocked;
        for (node, what) in silent {
            self.push_to(node, idle, what);
        }
    }

    /// Changes the membership of a process from outside, as its gateway does.
    pub(super) fn tell(&mut self, node: u16, change: impl FnOnce(&mut Membership, Instant)) {
        let now = self.now;
        if let Some(value) = self.nodes.get_mut(&node) {
            change(&mut value.membership, now);
            value.left = value.membership.has_left();
        }
        self.perform(node);
    }

    /// Runs for this long.
    pub(super) fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while self.step(end) {}
    }

    /// Runs until `limit` has passed or `done`, which is asked every 10 ms; says after how long it was done.
    pub(super) fn wait(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> Option<Duration> {
        let begin = self.now;
        while self.now < begin + limit {
            if done(self) {
                return Some(self.now - begin);
            }
            self.pass(Duration::from_millis(10));
        }
        done(self).then(|| self.now - begin)
    }

    /// A number that two runs share only if the same happened in both.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Who owns slots, as `node` sees it.
    pub(super) fn owners(&self, node: u16) -> Vec<u16> {
        self.nodes[&node].membership.view().members.iter().map(|member| member.node.0).collect()
    }

    /// Whether everyone's published view has exactly these owners.
    pub(super) fn agree(&self, owners: &[u16]) -> bool {
        self.nodes.values().all(|node| {
            let view = node.membership.view();
            view.members.len() == owners.len()
                && view.members.iter().zip(owners).all(|(have, want)| have.node.0 == *want)
        })
    }

    /// Whether everyone's view is exactly the processes that run.
    pub(super) fn is_whole(&self) -> bool {
        let running = || self.nodes.values().map(|node| node.membership.identity());
        self.nodes.values().all(|node| {
            let view = node.membership.view();
            let seen = view.members.iter().map(|member| (member.node, member.generation, member.addr));
            seen.eq(running().map(|me| (me.node, me.generation, me.addr)))
        })
    }

    /// What is due next, up to `limit`; `false` when that is reached.
    fn step(&mut self, limit: Instant) -> bool {
        match self.events.peek() {
            Some(Reverse(event)) if event.at < limit => {}
            Some(_) | None => {
                self.now = limit;
                return false;
            }
        }
        let Some(Reverse(event)) = self.events.pop() else { return false };
        self.now = self.now.max(event.at);
        let (node, life) = event.to;
        if self.nodes.get(&node).is_none_or(|value| value.life != life) {
            return true;
        }
        match self.net.paused.get(&node) {
            Some(until) if *until > self.now => self.events.push(Reverse(Event { at: *until, ..event })),
            Some(_) => {
                self.net.paused.remove(&node);
                self.watch_links();
                // Its timers are late and may be looked at before anything that waits in its socket.
                self.handle(node, What::Wake);
                self.handle(node, event.what);
            }
            None => self.handle(node, event.what),
        }
        true
    }

    fn handle(&mut self, node: u16, what: What) {
        self.record(node, &what);
        let now = self.now;
        let Some(value) = self.nodes.get_mut(&node) else { return };
        match what {
            What::Wake => value.wake(now),
            // A packet that is not understood changes nothing.
            What::Packet(packet) => drop(value.membership.handle_packet(&packet, now)),
            What::Roster { from, body, asked_at, question } => {
                let ours = value.handle_roster(body, question, now);
                if let Some(body) = ours {
                    self.roster(node, from, body, asked_at, false);
                }
            }
            What::Greeting { node: target, addr, in_time } => self.greeting(node, target, addr, in_time),
            What::Closed { peer } => value.handle_closed(peer, now),
            What::Idle { peer, since } => {
                let pair = (node.min(peer.0), node.max(peer.0));
                if since.is_none() || self.net.blocked_since.get(&pair).copied() == since {
                    let life = value.life;
                    value.handle_closed(peer, now);
                    self.push(peer, Duration::ZERO, What::Closed { peer: (node, life) });
                }
            }
        }
        self.perform(node);
    }

    /// What the driver's loop does before it sleeps.
    fn perform(&mut self, node: u16) {
        while let Some(output) = self.nodes.get_mut(&node).and_then(|value| value.membership.poll_output()) {
            self.perform_output(node, output);
        }
        let now = self.now;
        let Some(value) = self.nodes.get_mut(&node) else { return };
        let dials = value.dials(now);
        let wake = value.wake_needed();
        for (target, addr) in dials {
            self.dial(node, target, addr);
        }
        if let Some(at) = wake {
            self.push_to(node, at.saturating_duration_since(now), What::Wake);
        }
    }

    fn perform_output(&mut self, node: u16, output: Output) {
        let now = self.now;
        let Some(value) = self.nodes.get_mut(&node) else { return };
        match output {
            Output::Send { to, packet } => match value.links.get(&to.node.0).copied() {
                Some(life) => self.datagram(node, (to.node.0, life), &packet),
                None => value.want(to.node, now),
            },
            Output::PushPull { with } => {
                if let Some(life) = value.links.get(&with.0).copied() {
                    let body = value.membership.roster();
                    self.roster(node, (with.0, life), body, now, true);
                }
            }
            Output::Changed => self.notice_deaths(node),
            Output::View(view) => self.odd.extend(value.handle_view(&view)),
            Output::Renewed => self.renewals.push(node),
            Output::StartedTwice { .. } => self.gave_up.push(node),
        }
    }

    fn notice_deaths(&mut self, node: u16) {
        let now = self.now;
        let Some(value) = self.nodes.get_mut(&node) else { return };
        let fresh = value.handle_members(now);
        for (of, generation) in fresh {
            let alive = self.nodes.get(&of).is_some_and(|other| other.generation() == generation && !other.left);
            self.deaths.push(Death { at: now, of, by: node, of_a_live_one: alive });
        }
    }

    fn datagram(&mut self, from: u16, to: (u16, Life), packet: &Bytes) {
        self.traffic.packets += 1;
        self.traffic.packet_bytes += packet.len() as u64;
        if self.net.cuts.contains(&(from, to.0)) {
            return;
        }
        for delay in self.net.datagram(&mut self.rng) {
            self.push(to, delay, What::Packet(packet.clone()));
        }
    }

    fn roster(&mut self, from: u16, to: (u16, Life), body: Bytes, asked_at: Instant, question: bool) {
        self.traffic.rosters += 1;
        self.traffic.roster_bytes += body.len() as u64;
        let delay = self.net.stream(body.len(), &mut self.rng);
        let late = self.now + delay > asked_at + self.timings.dial_timeout;
        if !late && !self.net.is_cut(from, to.0) {
            let Some(me) = self.nodes.get(&from) else { return };
            let from = (from, me.life);
            self.push(to, delay, What::Roster { from, body, asked_at, question });
        }
    }

    fn dial(&mut self, from: u16, node: Option<NodeId>, addr: SocketAddr) {
        self.traffic.dials += 1;
        // The handshake and the greeting: two round trips.
        let delay = self.net.stream(0, &mut self.rng) * 2 + self.net.stream(2_000, &mut self.rng) * 2;
        let in_time = delay < self.timings.dial_timeout;
        let delay = delay.min(self.timings.dial_timeout);
        self.push_to(from, delay, What::Greeting { node: node.map(|node| node.0), addr, in_time });
    }

    /// A dial is over: a link at both ends, or nothing.
    fn greeting(&mut self, dialler: u16, target: Option<u16>, addr: SocketAddr, in_time: bool) {
        let now = self.now;
        let listening =
            self.nodes.iter().find(|(_, node)| node.membership.identity().addr == addr).map(|(node, _)| *node);
        let fits = |there: &u16| in_time && target.is_none_or(|target| target == *there);
        let reached = listening.filter(|there| fits(there) && !self.net.blocked(dialler, *there, now));
        let Some(value) = self.nodes.get_mut(&dialler) else { return };
        value.seeds.handle_dialled(addr);
        let linked = match reached {
            Some(there) if there == dialler => {
                value.seeds.handle_ourselves(addr);
                false
            }
            Some(there) => self.link(dialler, there),
            None => false,
        };
        if let (false, Some(target)) = (linked, target)
            && let Some(value) = self.nodes.get_mut(&dialler)
        {
            value.peers.handle_dial_failed(NodeId(target), now);
        }
    }

    /// Both decide as the driver does; the lower ordinal's word counts.
    fn link(&mut self, one: u16, other: u16) -> bool {
        let now = self.now;
        let verdict = |me: u16, peer: u16| {
            let (me, peer) = (&self.nodes[&me], &self.nodes[&peer]);
            let node = peer.membership.identity().node;
            let known = me.membership.peers().find(|member| member.id().node == node);
            let known = known.map(|member| member.id().generation);
            let linked = me.linked_generations.get(&node.0).copied();
            judge(me.membership.identity().node < node, linked, known, peer.generation())
        };
        let (low, high) = (one.min(other), one.max(other));
        let verdicts = [verdict(low, high), verdict(high, low)];
        if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Close(_))) {
            return false;
        }
        if verdicts.contains(&Verdict::Ask) {
            return self.ask_earlier(one, other);
        }
        for (me, peer) in [(one, other), (other, one)] {
            let (identity, life) = (self.nodes[&peer].membership.identity().clone(), self.nodes[&peer].life);
            if let Some(value) = self.nodes.get_mut(&me) {
                value.handle_linked(identity, life, now);
            }
        }
        self.perform(other);
        true
    }

    /// One of them has a link to an earlier process of the other. That one is gone: asked, it is silent, and makes place.
    fn ask_earlier(&mut self, dialler: u16, there: u16) -> bool {
        for (me, peer) in [(dialler, there), (there, dialler)] {
            let (now, life) = (self.now, self.nodes[&peer].life);
            let Some(value) = self.nodes.get_mut(&me) else { continue };
            if let Some(earlier) = value.links.get(&peer).copied().filter(|earlier| *earlier != life) {
                value.handle_closed((peer, earlier), now);
            }
        }
        let addr = self.nodes[&there].membership.identity().addr;
        let what = What::Greeting { node: Some(there), addr, in_time: true };
        self.push_to(dialler, self.timings.dial_timeout, what);
        true
    }

    fn push_to(&mut self, node: u16, after: Duration, what: What) {
        if let Some(life) = self.nodes.get(&node).map(|value| value.life) {
            self.push((node, life), after, what);
        }
    }

    fn push(&mut self, to: (u16, Life), after: Duration, what: What) {
        self.pushed += 1;
        self.events.push(Reverse(Event { at: self.now + after, order: self.pushed, to, what }));
    }

    fn record(&mut self, node: u16, what: &What) {
        let (kind, detail) = match what {
            What::Wake => (0_u8, 0),
            What::Packet(packet) => (1, xxhash_rust::xxh3::xxh3_64(packet)),
            What::Roster { body, .. } => (2, xxhash_rust::xxh3::xxh3_64(body)),
            What::Greeting { in_time, .. } => (3, u64::from(*in_time)),
            What::Closed { peer } => (4, peer.1),
            What::Idle { peer, .. } => (5, peer.1),
        };
        let at = u64::try_from((self.now - self.start).as_nanos()).unwrap_or(u64::MAX);
        let words = [self.trace, at, u64::from(node), u64::from(kind), detail];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.trace = xxhash_rust::xxh3::xxh3_64(&bytes);
    }
}

/// Where a node usually listens.
pub(super) fn address(node: u16) -> SocketAddr {
    let [high, low] = node.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7946))
}

/// Everyone up to `count`.
pub(super) fn everyone(count: u16) -> Vec<u16> {
    (0..count).collect()
}

/// A set of nodes on one side of a cut.
pub(super) type Side = BTreeSet<u16>;

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
