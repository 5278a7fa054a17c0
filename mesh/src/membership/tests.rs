//! Membership in a simulated network: virtual time, latency, loss, stalls and cuts, all from one seed.
//!
//! Invariants: links are modelled as the driver makes them (a pair that knows of each other is linked within milliseconds);
//! rosters travel reliably, packets do not; every assertion names the seed it failed with.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use super::*;
use crate::MemberState;

const LATENCY: Duration = Duration::from_millis(1);

/// Something that reaches node `to` at a time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Packet(Bytes),
    Roster { body: Bytes, answer_to: Option<u16> },
    Link { peer: u16 },
}

/// When, in which order, to whom, what.
type Flight = Reverse<(Instant, u64, u16, Message)>;

struct Net {
    now: Instant,
    nodes: BTreeMap<u16, Membership>,
    flights: BinaryHeap<Flight>,
    sent: u64,
    linked: BTreeSet<(u16, u16)>,
    /// Nodes that neither receive nor look at their clock until then.
    stalled: BTreeMap<u16, Instant>,
    /// Nodes on the far side of a cut.
    cut: BTreeSet<u16>,
    loss_percent: u64,
    rng: SplitMix,
    seed: u64,
}

fn identity(node: u16, generation: u64) -> Identity {
    let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 1000 + node));
    Identity { node: NodeId(node), generation, edition: 0, draining: false, addr, name: format!("gw-{node}").into() }
}

impl Net {
    /// `count` nodes that start together and know node 0 only.
    fn new(count: u16, loss_percent: u64, seed: u64) -> Net {
        let now = crate::clock::now();
        let mut net = Net {
            now,
            nodes: BTreeMap::new(),
            flights: BinaryHeap::new(),
            sent: 0,
            linked: BTreeSet::new(),
            stalled: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss_percent,
            rng: SplitMix::new(seed),
            seed,
        };
        for node in 0..count {
            net.start(node, 1);
        }
        net
    }

    /// A process starts and finds node 0, or node 1 if it is node 0.
    fn start(&mut self, node: u16, generation: u64) {
        let seed = self.rng.next();
        self.nodes.insert(node, Membership::new(identity(node, generation), &Timings::default(), seed, self.now));
        self.linked.retain(|(low, high)| *low != node && *high != node);
        let contact = u16::from(node == 0);
        if self.nodes.contains_key(&contact) {
            self.link(node, contact);
        }
    }

    fn kill(&mut self, node: u16) {
        self.nodes.remove(&node);
        self.linked.retain(|(low, high)| *low != node && *high != node);
    }

    fn link(&mut self, one: u16, other: u16) {
        if self.apart(one, other) || !self.linked.insert((one.min(other), one.max(other))) {
            return;
        }
        self.send(one, Message::Link { peer: other }, LATENCY * 5);
        self.send(other, Message::Link { peer: one }, LATENCY * 5);
    }

    fn apart(&self, one: u16, other: u16) -> bool {
        self.cut.contains(&one) != self.cut.contains(&other)
    }

    fn send(&mut self, to: u16, message: Message, after: Duration) {
        self.sent += 1;
        self.flights.push(Reverse((self.now + after, self.sent, to, message)));
    }

    /// Runs until `until` passed or `done`; says whether it was done, and when.
    fn run(&mut self, limit: Duration, mut done: impl FnMut(&Net) -> bool) -> Option<Duration> {
        let start = self.now;
        while self.now < start + limit {
            if done(self) {
                return Some(self.now - start);
            }
            self.step(start + limit);
        }
        None
    }

    /// Everything that is due next.
    fn step(&mut self, limit: Instant) {
        let timers = self.nodes.iter().map(|(node, value)| self.awake_at(*node, value.poll_timeout()));
        let flight = self.flights.peek().map(|Reverse((at, _, to, _))| self.awake_at(*to, *at));
        let next = timers.chain(flight).min().unwrap_or(limit).max(self.now);
        if next >= limit {
            self.now = limit;
            return;
        }
        self.now = next;
        while let Some(Reverse((at, ..))) = self.flights.peek()
            && *at <= next
        {
            let Some(Reverse((at, order, to, message))) = self.flights.pop() else { break };
            match self.awake_at(to, at) {
                awake if awake > next => self.flights.push(Reverse((awake, order, to, message))),
                _ => self.deliver(to, message),
            }
        }
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            let due = self.awake_at(node, self.nodes[&node].poll_timeout()) <= next;
            if due && let Some(value) = self.nodes.get_mut(&node) {
                value.handle_timeout(next);
            }
            self.perform(node);
        }
    }

    fn awake_at(&self, node: u16, at: Instant) -> Instant {
        self.stalled.get(&node).map_or(at, |until| at.max(*until))
    }

    fn deliver(&mut self, to: u16, message: Message) {
        let now = self.now;
        let peer = match &message {
            Message::Link { peer } => self.nodes.get(peer).map(|value| value.identity().clone()),
            Message::Packet(_) | Message::Roster { .. } => None,
        };
        let Some(value) = self.nodes.get_mut(&to) else { return };
        match message {
            Message::Packet(packet) => drop(value.handle_packet(&packet, now)),
            Message::Roster { body, answer_to } => {
                value.handle_roster(body, now).unwrap();
                if let Some(asker) = answer_to {
                    let body = value.roster();
                    self.send(asker, Message::Roster { body, answer_to: None }, LATENCY);
                }
            }
            Message::Link { .. } => {
                if let Some(peer) = peer {
                    value.handle_link_up(peer, now);
                }
            }
        }
        self.perform(to);
    }

    fn perform(&mut self, node: u16) {
        while let Some(output) = self.nodes.get_mut(&node).and_then(Membership::poll_output) {
            match output {
                Output::Send { to, packet } => {
                    let lost = self.rng.below(100) < self.loss_percent;
                    if !lost && !self.apart(node, to.node.0) {
                        let jitter = Duration::from_micros(self.rng.below(1000));
                        self.send(to.node.0, Message::Packet(packet), LATENCY + jitter);
                    }
                }
                Output::PushPull { with } => {
                    if !self.apart(node, with.0) {
                        let body = self.nodes[&node].roster();
                        self.send(with.0, Message::Roster { body, answer_to: Some(node) }, LATENCY);
                    }
                }
                Output::Changed => {
                    let peers = self.nodes[&node].peers().filter(|peer| peer.state() != foca::State::Down);
                    let peers: Vec<u16> = peers.map(|peer| peer.id().node.0).collect();
                    for peer in peers {
                        self.link(node, peer);
                    }
                }
                Output::View(_) | Output::Renewed => {}
                Output::StartedTwice { renewals } => panic!("seed {}: node {node} renewed {renewals} times", self.seed),
            }
        }
    }

    fn owners(&self, node: u16) -> Vec<u16> {
        self.nodes[&node].view().members.iter().map(|member| member.node.0).collect()
    }

    /// Whether everyone's published view has exactly these owners.
    fn agree(&self, owners: &[u16]) -> bool {
        self.nodes.keys().all(|node| self.owners(*node) == owners)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_cluster_forms_within_seconds_even_with_loss() {
    for (count, loss, seed) in [(10, 0, 1), (10, 5, 2), (50, 0, 3), (50, 5, 4)] {
        let mut net = Net::new(count, loss, seed);
        let all: Vec<u16> = (0..count).collect();
        let took = net.run(seconds(3), |net| net.agree(&all));
        assert!(took.is_some(), "{count} nodes, {loss} % loss, seed {seed}");
    }
}

#[test]
fn a_killed_node_is_noticed_by_everyone_within_five_seconds() {
    for (count, loss, seed) in [(3_u16, 0, 1), (3, 5, 2), (10, 0, 3), (10, 5, 4), (10, 0, 5)] {
        let mut net = Net::new(count, loss, seed);
        let all: Vec<u16> = (0..count).collect();
        assert!(net.run(seconds(5), |net| net.agree(&all)).is_some(), "seed {seed}");
        net.run(seconds(2), |_| false);
        net.kill(count / 2);
        let left: Vec<u16> = all.into_iter().filter(|node| *node != count / 2).collect();
        let took = net.run(seconds(5), |net| net.agree(&left));
        assert!(took.is_some(), "{count} nodes, {loss} % loss, seed {seed}");
    }
}

#[test]
fn a_killed_node_is_noticed_in_a_cluster_of_fifty() {
    let mut net = Net::new(50, 5, 1);
    let all: Vec<u16> = (0..50).collect();
    assert!(net.run(seconds(5), |net| net.agree(&all)).is_some());
    net.kill(20);
    let left: Vec<u16> = all.into_iter().filter(|node| *node != 20).collect();
    assert!(net.run(seconds(8), |net| net.agree(&left)).is_some());
}

#[test]
fn loss_alone_takes_nobody_out_of_the_ring() {
    for seed in 1..4 {
        let mut net = Net::new(20, 5, seed);
        let all: Vec<u16> = (0..20).collect();
        assert!(net.run(seconds(5), |net| net.agree(&all)).is_some(), "seed {seed}");
        let lost = net.run(seconds(60), |net| !net.agree(&all));
        assert_eq!(lost, None, "seed {seed}");
    }
}

#[test]
fn a_stalled_node_declares_nobody_dead_when_it_wakes() {
    for seed in 1..6 {
        let mut net = Net::new(5, 0, seed);
        assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3, 4])).is_some(), "seed {seed}");
        // Shorter than a suspicion, so nobody declares the sleeper dead either.
        net.stalled.insert(2, net.now + Duration::from_millis(1400));
        let changed = net.run(seconds(10), |net| !net.agree(&[0, 1, 2, 3, 4]));
        assert_eq!(changed, None, "seed {seed}");
    }
}

#[test]
fn a_node_that_was_declared_down_comes_back_as_the_same_process() {
    for seed in 1..4 {
        let mut net = Net::new(4, 0, seed);
        assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3])).is_some(), "seed {seed}");
        net.stalled.insert(3, net.now + seconds(6));
        let out = net.run(seconds(6), |net| (0..3).all(|node| net.owners(node) == [0, 1, 2]));
        assert!(out.is_some(), "seed {seed}");
        assert!(net.run(seconds(15), |net| net.agree(&[0, 1, 2, 3])).is_some(), "seed {seed}");
        let back = &net.nodes[&0].view().members[3];
        assert_eq!((back.node, back.generation), (NodeId(3), 1), "seed {seed}");
    }
}

#[test]
fn a_restarted_node_is_one_entry_with_its_new_generation() {
    let mut net = Net::new(5, 0, 1);
    assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3, 4])).is_some());
    net.kill(3);
    net.run(Duration::from_millis(200), |_| false);
    net.start(3, 2);
    let renewed = |net: &Net| {
        net.agree(&[0, 1, 2, 3, 4]) && net.nodes.values().all(|value| value.view().members[3].generation == 2)
    };
    assert!(net.run(seconds(3), renewed).is_some());
    assert!(net.nodes.values().all(|value| value.view().outside.is_empty()));
}

#[test]
fn both_sides_of_a_cut_serve_on_and_find_each_other_again() {
    for seed in 1..4 {
        let mut net = Net::new(6, 0, seed);
        assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3, 4, 5])).is_some(), "seed {seed}");
        net.cut = [3, 4, 5].into();
        let apart = |net: &Net| {
            (0..3).all(|node| net.owners(node) == [0, 1, 2]) && (3..6).all(|node| net.owners(node) == [3, 4, 5])
        };
        assert!(net.run(seconds(15), apart).is_some(), "seed {seed}");
        net.cut.clear();
        assert!(net.run(seconds(30), |net| net.agree(&[0, 1, 2, 3, 4, 5])).is_some(), "seed {seed}");
    }
}

#[test]
fn a_draining_node_owns_nothing_and_a_leaving_one_is_gone_at_once() {
    let mut net = Net::new(5, 0, 1);
    assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3, 4])).is_some());
    let now = net.now;
    net.nodes.get_mut(&4).unwrap().handle_drain(now);
    net.perform(4);
    assert!(net.run(seconds(2), |net| net.agree(&[0, 1, 2, 3])).is_some());
    net.run(seconds(3), |_| false);
    assert!(net.agree(&[0, 1, 2, 3]));
    assert!(net.nodes.values().all(|value| value.view().outside[0].state == MemberState::Draining));

    let now = net.now;
    net.nodes.get_mut(&4).unwrap().handle_leave(now);
    net.perform(4);
    net.run(Duration::from_millis(20), |_| false);
    net.kill(4);
    let gone = |net: &Net| net.nodes.values().all(|value| value.view().outside[0].state == MemberState::Down);
    assert!(net.run(seconds(1), gone).is_some());
}

#[test]
fn the_first_view_is_ourselves_alone_and_versions_rise_by_one() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(7, 1), &Timings::default(), 1, now);
    let Some(Output::View(view)) = value.poll_output() else { panic!("no view") };
    assert_eq!((view.version, view.members.len(), view.table.owner(0)), (1, 1, Some(NodeId(7))));
    value.handle_link_up(identity(3, 1), now);
    value.handle_timeout(now + Timings::default().settle);
    let views: Vec<_> = std::iter::from_fn(|| value.poll_output())
        .filter_map(
            |output| if let Output::View(view) = output { Some((view.version, view.members.len())) } else { None },
        )
        .collect();
    assert_eq!(views, [(2, 2)]);
}

#[test]
fn a_burst_of_changes_makes_one_view() {
    let start = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, start);
    let mut views = 0;
    for n in 0..100_u16 {
        let now = start + Duration::from_millis(10) * u32::from(n);
        if n < 50 {
            value.handle_link_up(identity(n + 1, 1), now);
        }
        value.handle_timeout(now);
        let outputs = std::iter::from_fn(|| value.poll_output());
        views += outputs.filter(|output| matches!(output, Output::View(view) if view.version > 1)).count();
    }
    assert_eq!((views, value.view().members.len()), (1, 51));
}

#[test]
fn a_name_that_is_declared_down_again_and_again_gives_up() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, now);
    value.handle_link_up(identity(1, 1), now);
    let mut gave_up = Vec::new();
    for n in 0..5 {
        let dead = Member::down(value.identity().clone());
        value.handle_roster(encode_roster([dead].iter()), now + Duration::from_secs(n)).unwrap();
        let outputs = std::iter::from_fn(|| value.poll_output());
        gave_up.push(outputs.filter(|output| matches!(output, Output::StartedTwice { .. })).count());
    }
    assert_eq!(gave_up, [0, 0, 0, 1, 1]);
    assert_eq!(value.identity().generation, 1, "coming back is no new process");
}

#[test]
fn hostile_packets_change_nothing() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, now);
    value.handle_link_up(identity(1, 1), now);
    let mut rng = SplitMix::new(9);
    for _ in 0..2000 {
        let size = usize::try_from(rng.below(200)).unwrap();
        let packet: Vec<u8> = (0..size).map(|_| rng.next().to_le_bytes()[0]).collect();
        assert!(value.handle_packet(&packet, now).is_err());
        let _ = value.handle_roster(packet.into(), now);
    }
    assert!(value.handle_packet(&vec![0; MAX_PACKET + 1], now).is_err());
    assert_eq!(value.peers().filter(|peer| peer.state() != foca::State::Down).count(), 1);
}

#[test]
fn a_learned_address_reaches_everyone_under_the_same_generation() {
    let mut net = Net::new(5, 0, 1);
    assert!(net.run(seconds(5), |net| net.agree(&[0, 1, 2, 3, 4])).is_some());
    let (ip, now) = ("10.9.9.9".parse().unwrap(), net.now);
    net.nodes.get_mut(&2).unwrap().handle_address(ip, now);
    net.perform(2);
    let known = |net: &Net| {
        net.agree(&[0, 1, 2, 3, 4])
            && net.nodes.values().all(|value| {
                let member = &value.view().members[2];
                (member.addr.ip(), member.generation) == (ip, 1)
            })
    };
    assert!(net.run(seconds(3), known).is_some());
}
