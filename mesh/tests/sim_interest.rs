//! Interest of many rooms on many nodes in one process: what it costs, what a change of owners costs, how it heals.
//!
//! The nodes are real `Slots`; wires are queues that lose what the test wants lost. `figures` is the large one
//! (`cargo xtask sim interest`), the others are its small promises.
//!
//! Invariant: whom an owner knows to want a room is never looked up but seen: a volatile message goes to exactly those.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "an integration test: a failed unwrap is a failed test, and time is moved by hand from one look at the clock"
)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::{
    Member, MemberState, NodeId, Table, View,
    room::RoomKey,
    slot::{Ask, Config, Limits, Output, Publish, Slots, Want},
    wire::message::{Control, FLAG_VOLATILE},
};

/// Nodes that want each room.
const WANTED_BY: u64 = 3;

/// A room, its owner and who wants it.
type Known = (RoomKey, u16, BTreeSet<u16>);

struct World {
    nodes: Vec<Slots>,
    wire: VecDeque<(u16, u16, Bytes)>,
    now: Instant,
    now_ms: u64,
    random: u64,
    sent: u64,
    bytes: u64,
    /// Digests among them.
    digests: u64,
    /// Bytes for each node.
    received: Vec<u64>,
    /// Of a hundred messages so many are lost.
    loss_percent: u64,
    /// Nobody hears that interest ends.
    loses_drops: bool,
}

impl World {
    fn new(count: u16) -> World {
        let mut world = World {
            nodes: (0..count).map(slots).collect(),
            wire: VecDeque::new(),
            now: Instant::now(),
            now_ms: 1_000_000,
            random: 7,
            sent: 0,
            bytes: 0,
            digests: 0,
            received: vec![0; usize::from(count)],
            loss_percent: 0,
            loses_drops: false,
        };
        let all: Vec<u16> = (0..count).collect();
        world.view(&all);
        for one in 0..count {
            for other in (0..count).filter(|other| *other != one) {
                let (now, now_ms) = (world.now, world.now_ms);
                world.nodes[usize::from(one)].handle_link_up(NodeId(other), 1, now, now_ms);
            }
        }
        // Nobody begins a slot before everybody has said what it leads.
        (0..count).for_each(|node| world.settle(node));
        world.deliver();
        world
    }

    fn view(&mut self, members: &[u16]) {
        let nodes: Vec<NodeId> = members.iter().map(|node| NodeId(*node)).collect();
        let member = |node: &NodeId| Member {
            node: *node,
            name: node.to_string(),
            generation: 1,
            addr: ([127, 0, 0, 1], 1).into(),
            state: MemberState::Alive,
        };
        let table = Arc::new(Table::build(&nodes));
        let view = View { version: 1, members: nodes.iter().map(member).collect(), outside: Vec::new(), table };
        for node in members {
            let (now, now_ms) = (self.now, self.now_ms);
            self.nodes[usize::from(*node)].handle_view(&view, now, now_ms);
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn at(&mut self, node: u16) -> &mut Slots {
        &mut self.nodes[usize::from(node)]
    }

    fn join(&mut self, node: u16, room: &RoomKey) {
        let (now, now_ms) = (self.now, self.now_ms);
        self.at(node).handle_join(room, Want::Nothing, Ask { shard: 0, token: 1 }, now, now_ms);
        self.settle(node);
    }

    /// Puts what the node says onto the wire, and nothing else: answers and deliveries are not looked at.
    fn settle(&mut self, node: u16) {
        while let Some(output) = self.at(node).poll_output() {
            if let Output::Send { to, frame, .. } | Output::Toss { to, frame, .. } = output {
                self.sent += 1;
                self.bytes += frame.len() as u64;
                self.digests += u64::from(is_digest(&frame));
                self.received[usize::from(to.0)] += frame.len() as u64;
                let drop = Control::InterestDrop { room: b"" }.encode();
                let is_lost = self.loses_drops && frame[..2] == drop[..2];
                if self.random(100) >= self.loss_percent && !is_lost {
                    self.wire.push_back((node, to.0, frame));
                }
            }
        }
    }

    /// Delivers until nothing is on the wire.
    fn deliver(&mut self) {
        while let Some((from, to, frame)) = self.wire.pop_front() {
            let (now, now_ms) = (self.now, self.now_ms);
            self.at(to).handle_frame(NodeId(from), &frame, now, now_ms).unwrap();
            self.settle(to);
        }
    }

    fn pass(&mut self, length: Duration) {
        let step = Duration::from_millis(250);
        let end = self.now + length;
        while self.now < end {
            self.now += step;
            self.now_ms += 250;
            for node in 0..self.nodes.len() {
                let node = u16::try_from(node).unwrap();
                let (now, now_ms) = (self.now, self.now_ms);
                if self.at(node).poll_timeout().is_none_or(|due| due <= now) {
                    self.at(node).handle_timeout(now, now_ms);
                }
                self.settle(node);
            }
            self.deliver();
        }
    }

    /// Whom the owner of the room knows to want it.
    fn wanted_by(&mut self, owner: u16, room: &RoomKey) -> BTreeSet<u16> {
        let (now, now_ms) = (self.now, self.now_ms);
        let publish = Publish {
            room: room.clone(),
            flags: FLAG_VOLATILE,
            id: "".into(),
            from: "".into(),
            except: Vec::new(),
            payload: Bytes::from_static(b"x"),
        };
        self.at(owner).handle_publish(publish, Ask { shard: 0, token: 2 }, now, now_ms);
        let outputs = std::iter::from_fn(|| self.at(owner).poll_output());
        outputs.filter_map(|output| if let Output::Toss { to, .. } = output { Some(to.0) } else { None }).collect()
    }

    /// Messages and bytes since the last call, and the most bytes that were for one node.
    fn count(&mut self) -> (u64, u64, u64) {
        let counted = (self.sent, self.bytes, self.received.iter().copied().max().unwrap_or(0));
        (self.sent, self.bytes) = (0, 0);
        self.received.fill(0);
        counted
    }
}

fn slots(node: u16) -> Slots {
    Slots::new(Config {
        node: NodeId(node),
        generation: 1,
        shard: 0,
        shards: 1,
        limits: Limits::default(),
        seed: u64::from(node),
        resume: BTreeMap::new(),
        started_ms: 0,
        heads: BTreeMap::new(),
    })
}

fn room(number: u32) -> RoomKey {
    RoomKey::new("/chat", &format!("room-{number:08}"))
}

fn all(count: u16) -> Vec<u16> {
    (0..count).collect()
}

/// Some rooms on some nodes: who owns and who wants each.
fn populated(count: u16, rooms: u32) -> (World, Vec<Known>) {
    let mut world = World::new(count);
    let nodes: Vec<NodeId> = all(count).into_iter().map(NodeId).collect();
    let table = Table::build(&nodes);
    let mut known = Vec::new();
    for number in 0..rooms {
        let room = room(number);
        let owner = table.owner(room.slot()).unwrap().0;
        let mut wants = BTreeSet::new();
        while wants.len() < usize::try_from(WANTED_BY).unwrap() {
            let node = u16::try_from(world.random(u64::from(count))).unwrap();
            if node != owner {
                wants.insert(node);
            }
        }
        for node in &wants {
            world.join(*node, &room);
        }
        known.push((room, owner, wants));
    }
    world.deliver();
    (world, known)
}

fn assert_known<'a>(world: &mut World, known: impl IntoIterator<Item = &'a Known>) {
    for (room, owner, wants) in known {
        assert_eq!(&world.wanted_by(*owner, room), wants, "{room:?}");
    }
}

#[test]
fn interest_that_the_owner_lost_is_noticed_and_said_again() {
    let (mut world, known) = populated(5, 200);
    assert_known(&mut world, &known);
    // The owner is made to believe that somebody left who did not.
    for (room, owner, wants) in known.iter().step_by(20) {
        let who = *wants.first().unwrap();
        let (now, now_ms) = (world.now, world.now_ms);
        let lie = Control::InterestDrop { room: room.as_bytes() }.encode();
        world.at(*owner).handle_frame(NodeId(who), &lie, now, now_ms).unwrap();
        assert!(!world.wanted_by(*owner, room).contains(&who));
    }
    world.pass(Duration::from_secs(20));
    assert_known(&mut world, &known);
}

#[test]
fn interest_that_is_left_over_at_the_owner_ends() {
    let (mut world, mut known) = populated(5, 50);
    for (room, _, wants) in &known {
        let (node, now) = (*wants.first().unwrap(), world.now);
        world.at(node).handle_leave(room, 0, now);
    }
    // The drops that follow the linger are lost. A digest comes once in 16 s: some follow at once, and heal at once.
    world.loses_drops = true;
    world.pass(Limits::default().linger + Duration::from_millis(500));
    world.loses_drops = false;
    let left = known.iter().filter(|(room, owner, wants)| &world.wanted_by(*owner, room) == wants).count();
    assert!(left > known.len() / 2, "nothing is left over in {} of {} rooms", known.len() - left, known.len());
    world.pass(Duration::from_secs(20));
    for (_, _, wants) in &mut known {
        wants.pop_first();
    }
    assert_known(&mut world, &known);
}

#[test]
fn interest_heals_whatever_is_lost() {
    let (mut world, known) = populated(5, 0);
    assert!(known.is_empty());
    world.loss_percent = 30;
    let mut known = Vec::new();
    let table = Table::build(&all(5).into_iter().map(NodeId).collect::<Vec<_>>());
    for number in 0..100 {
        let room = room(number);
        let owner = table.owner(room.slot()).unwrap().0;
        let wants: BTreeSet<u16> = (0..5).filter(|node| *node != owner).take(3).collect();
        for node in &wants {
            world.join(*node, &room);
        }
        world.deliver();
        known.push((room, owner, wants));
    }
    world.pass(Duration::from_secs(30));
    world.loss_percent = 0;
    world.pass(Duration::from_secs(40));
    assert_known(&mut world, &known);
}

#[test]
fn a_quiet_cluster_says_one_digest_per_slot_and_sweep_and_little_else() {
    let (mut world, known) = populated(5, 200);
    world.pass(Duration::from_secs(5));
    world.count();
    world.digests = 0;
    world.pass(Duration::from_secs(16));
    let slots: BTreeSet<(u16, u16)> =
        known.iter().flat_map(|(room, _, wants)| wants.iter().map(|node| (*node, room.slot()))).collect();
    let (_, bytes, _) = world.count();
    assert_eq!(world.digests, slots.len() as u64);
    // Nodes say that they live, and replicas now and then where they stand.
    assert!(bytes < world.digests * 200, "{bytes} bytes with {} digests", world.digests);
}

/// Whether this is a digest of interest.
fn is_digest(frame: &Bytes) -> bool {
    let digest = Control::InterestDigest(0, 0, 0).encode();
    frame[..2] == digest[..2]
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn argument<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

/// Processor time of this thread in seconds, which others on the machine do not stretch.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let begin = processor();
    let done = work();
    (done, processor() - begin)
}

/// Owners alone: everybody's interest, fed to them from the wire.
fn owners_alone(count: u16, rooms: u32) {
    let mut world = World::new(count);
    let table = Table::build(&all(count).into_iter().map(NodeId).collect::<Vec<_>>());
    let before = resident();
    let ((), took) = timed(|| {
        for number in 0..rooms {
            let room = room(number);
            let owner = table.owner(room.slot()).unwrap().0;
            let add = Control::InterestAdd { room: room.as_bytes() }.encode();
            for _ in 0..WANTED_BY {
                let from = u16::try_from(world.random(u64::from(count))).unwrap();
                let (now, now_ms) = (world.now, world.now_ms);
                world.at(owner).handle_frame(NodeId(from), &add, now, now_ms).unwrap();
                while world.at(owner).poll_output().is_some() {}
            }
        }
    });
    let grown = resident() - before;
    println!("owners: {} MiB for {rooms} rooms wanted by {WANTED_BY} nodes each", grown >> 20);
    println!("  {} bytes a room, {} KiB a node", grown / u64::from(rooms), grown / u64::from(count) / 1024);
    println!("  {:.2} µs for one interest to be taken in and acknowledged", took * 1e6 / f64::from(rooms) / 3.0);
}

#[test]
#[ignore = "run by cargo xtask sim interest"]
fn figures() {
    let (count, rooms) = (argument("SIM_NODES", 100_u16), argument("SIM_ROOMS", 1_000_000_u32));
    println!("{count} nodes, {rooms} rooms, each wanted by {WANTED_BY} nodes that do not own it");
    owners_alone(count, rooms);
    let before = resident();
    let ((mut world, mut known), took) = timed(|| populated(count, rooms));
    let grown = resident() - before;
    let (sent, bytes, _) = world.count();
    println!("everything: {} MiB, {} bytes per room and node that wants it", grown >> 20, grown / u64::from(rooms) / 3);
    println!("announced: {sent} messages, {} bytes each; {took:.1} s of one core in all", bytes / sent);
    quiet(&mut world, count);
    healing(&mut world, &known, rooms);
    let left: Vec<u16> = (1..count).collect();
    owner_gone(&mut world, &left);
    // A replica takes over after a second; where the ring wants another owner, slots are moved a few at a time.
    world.pass(Duration::from_secs(20));
    reown(&mut known, &left);
    assert_known(&mut world, known.iter().step_by(97));
    newcomer(&mut world, count, &left);
}

fn quiet(world: &mut World, count: u16) {
    world.pass(Duration::from_secs(2));
    world.count();
    let ((), took) = timed(|| world.pass(Duration::from_secs(16)));
    let (sent, bytes, _) = world.count();
    let rate = |total: u64| total / 16 / u64::from(count);
    let core = took * 1e3 / 16.0 / f64::from(count);
    println!("quiet: {} digests/s and {} bytes/s per node, {core:.2} ms/s of a core", rate(sent), rate(bytes));
}

fn healing(world: &mut World, known: &[Known], rooms: u32) {
    for (room, owner, wants) in known.iter().skip(1).step_by(100) {
        let lie = Control::InterestDrop { room: room.as_bytes() }.encode();
        let (now, now_ms) = (world.now, world.now_ms);
        let from = NodeId(*wants.first().unwrap());
        world.at(*owner).handle_frame(from, &lie, now, now_ms).unwrap();
    }
    world.pass(Duration::from_secs(18));
    let (sent, bytes, _) = world.count();
    assert_known(world, known.iter().skip(1).step_by(100));
    println!("{} rooms lost a node at their owner: healed in 18 s by {sent} messages, {bytes} bytes", rooms / 100);
}

/// Node 0 is gone: what it owned is announced to its heirs.
fn owner_gone(world: &mut World, left: &[u16]) {
    let ((), took) = timed(|| {
        for node in left {
            let (now, now_ms) = (world.now, world.now_ms);
            world.at(*node).handle_link_down(NodeId(0), now, now_ms);
        }
        world.view(left);
        for node in left {
            world.settle(*node);
        }
        world.deliver();
    });
    let (sent, bytes, most) = world.count();
    println!(
        "an owner is gone: {sent} messages, {bytes} bytes, {most} of them to the busiest node; {took:.2} s of one core for all nodes"
    );
}

/// Node 0 is back as a new process.
fn newcomer(world: &mut World, count: u16, left: &[u16]) {
    world.count();
    let ((), took) = timed(|| {
        world.nodes[0] = slots(0);
        for node in left {
            let (now, now_ms) = (world.now, world.now_ms);
            world.at(*node).handle_link_up(NodeId(0), 2, now, now_ms);
            world.at(0).handle_link_up(NodeId(*node), 1, now, now_ms);
        }
        world.view(&all(count));
        for node in all(count) {
            world.settle(node);
        }
        world.deliver();
    });
    let (sent, bytes, most) = world.count();
    println!(
        "a node joins: {sent} messages, {bytes} bytes, {most} of them to the busiest node; {took:.2} s of one core for all nodes"
    );
}

/// Node 0 wants nothing any more, and an heir that wanted a room now owns it.
fn reown(known: &mut [Known], left: &[u16]) {
    let table = Table::build(&left.iter().copied().map(NodeId).collect::<Vec<_>>());
    for (room, owner, wants) in known {
        wants.remove(&0);
        *owner = table.owner(room.slot()).unwrap().0;
        wants.remove(owner);
    }
}
