//! The slot machine in a small world of nodes: FIFO wires that can break, a store per node, members that write down
//! what they see.
//!
//! Invariants checked by `World::check` after every story: a member sees rising `n` of one lineage, nothing twice, and
//! nothing missing that it was not told of.

use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    View,
    wire::message::{Control, FLAG_VOLATILE},
};

mod paging;
mod presence;
mod schedule;
mod stories;
mod storm;
mod volatile;

/// What a member of a room saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Live(Stamp, Bytes),
    Gap(Stamp),
}

#[derive(Debug, Default)]
struct Member {
    /// Lineage and head of the join's answer, and the payloads that came with it.
    fence: Option<(Stamp, Vec<Bytes>)>,
    seen: Vec<Seen>,
}

struct Node {
    slots: Slots,
    store: Vec<Arc<Frame>>,
    members: BTreeMap<RoomKey, Member>,
    answers: BTreeMap<u64, Answer>,
    joining: BTreeMap<u64, RoomKey>,
    onlookers: presence::Onlookers,
    received_frames: usize,
    /// Frames the store gives at most in one page, as if they were large.
    page_max: usize,
    /// So many frames to this node find the lane full.
    refuses: usize,
    /// And so many messages about who is present.
    refuses_control: usize,
}

struct World {
    nodes: Vec<Node>,
    wires: BTreeMap<(u16, u16), VecDeque<Bytes>>,
    up: BTreeSet<(u16, u16)>,
    requests: BTreeMap<u64, (u16, u64)>,
    now: Instant,
    now_ms: u64,
    tokens: u64,
    /// What was published under which token.
    texts: BTreeMap<u64, String>,
}

const START_MS: u64 = 1_000_000;

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only come from the clock; it moves by hand from here"
    )]
    fn new(nodes: u16) -> World {
        let now = Instant::now();
        let mut world = World {
            nodes: (0..nodes).map(|node| Node::new(node, Limits::default(), BTreeMap::new())).collect(),
            wires: BTreeMap::new(),
            up: BTreeSet::new(),
            requests: BTreeMap::new(),
            now,
            now_ms: START_MS,
            tokens: 0,
            texts: BTreeMap::new(),
        };
        world.view(&(0..nodes).collect::<Vec<_>>());
        for a in 0..nodes {
            for b in 0..a {
                world.connect(a, b);
            }
        }
        world.settle();
        world
    }

    fn view(&mut self, members: &[u16]) {
        let ids: Vec<NodeId> = members.iter().map(|node| NodeId(*node)).collect();
        let view = view_of(&ids);
        for node in members {
            let (now, now_ms) = (self.now, self.now_ms);
            self.nodes[usize::from(*node)].slots.handle_view(&view, now, now_ms);
        }
    }

    /// One node's view alone.
    fn view_of(&mut self, node: u16, members: &[u16]) {
        let ids: Vec<NodeId> = members.iter().map(|node| NodeId(*node)).collect();
        let (now, now_ms) = (self.now, self.now_ms);
        self.nodes[usize::from(node)].slots.handle_view(&view_of(&ids), now, now_ms);
    }

    /// The node says that it goes; everybody hears it.
    fn drain(&mut self, node: u16) {
        let all: Vec<u16> = (0..u16::try_from(self.nodes.len()).unwrap()).collect();
        self.drain_of(node, &all);
    }

    /// The same where not all nodes are there.
    fn drain_of(&mut self, node: u16, all: &[u16]) {
        let ids: Vec<NodeId> = all.iter().copied().map(NodeId).collect();
        let mut view = view_of(&ids);
        let at = view.members.iter().position(|member| member.node == NodeId(node)).unwrap();
        let leaving = crate::Member { state: crate::MemberState::Draining, ..view.members.remove(at) };
        view.outside.push(leaving);
        let staying: Vec<NodeId> = ids.into_iter().filter(|id| *id != NodeId(node)).collect();
        view.table = Arc::new(Table::build(&staying));
        for at in all {
            self.nodes[usize::from(*at)].slots.handle_view(&view, self.now, self.now_ms);
        }
    }

    /// What this node published and got a stamp for.
    fn acked(&self, node: u16) -> Vec<String> {
        let answers = &self.nodes[usize::from(node)].answers;
        let acked = self.texts.iter().filter(|(token, _)| matches!(answers.get(token), Some(Answer::Published(Ok(_)))));
        acked.map(|(_, text)| text.clone()).collect()
    }

    fn connect(&mut self, a: u16, b: u16) {
        for (from, to) in [(a, b), (b, a)] {
            self.up.insert((from, to));
            self.wires.insert((from, to), VecDeque::new());
            let now = self.now;
            self.nodes[usize::from(from)].slots.handle_link_up(NodeId(to), 1, now, self.now_ms);
        }
    }

    /// Breaks a link: what is on the wire is lost.
    fn cut(&mut self, a: u16, b: u16) {
        for (from, to) in [(a, b), (b, a)] {
            self.up.remove(&(from, to));
            self.wires.remove(&(from, to));
            let now = self.now;
            self.nodes[usize::from(from)].slots.handle_link_down(NodeId(to), now, self.now_ms);
        }
    }

    fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    fn join(&mut self, node: u16, room: &RoomKey, want: Want) -> u64 {
        let (token, now, now_ms) = (self.token(), self.now, self.now_ms);
        let at = &mut self.nodes[usize::from(node)];
        at.joining.insert(token, room.clone());
        at.slots.handle_join(room, want, Ask { shard: 0, token }, now, now_ms);
        token
    }

    fn publish(&mut self, node: u16, room: &RoomKey, text: &str) -> u64 {
        self.publish_with(node, room, text, 0, "")
    }

    fn publish_with(&mut self, node: u16, room: &RoomKey, text: &str, flags: u16, id: &str) -> u64 {
        let (token, now, now_ms) = (self.token(), self.now, self.now_ms);
        self.texts.insert(token, text.to_owned());
        let publish = Publish {
            room: room.clone(),
            flags,
            id: id.into(),
            from: ByteString::new(),
            except: Vec::new(),
            payload: Bytes::copy_from_slice(text.as_bytes()),
        };
        self.nodes[usize::from(node)].slots.handle_publish(publish, Ask { shard: 0, token }, now, now_ms);
        token
    }

    fn history(&mut self, node: u16, room: &RoomKey, want: Want) -> History {
        let (token, now_ms) = (self.token(), self.now_ms);
        self.nodes[usize::from(node)].slots.handle_history(room, want, Ask { shard: 0, token }, now_ms);
        self.settle();
        match self.nodes[usize::from(node)].answers.remove(&token) {
            Some(Answer::History(Ok(history))) => history,
            other => panic!("no history: {other:?}"),
        }
    }

    fn published(&mut self, node: u16, token: u64) -> Option<Result<Stamp, Refusal>> {
        match self.nodes[usize::from(node)].answers.remove(&token) {
            Some(Answer::Published(result)) => Some(result),
            Some(other) => panic!("a publish was answered by {other:?}"),
            None => None,
        }
    }

    /// Lets time pass, in steps small enough for every timer.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            self.now_ms += 50;
            let (now, now_ms) = (self.now, self.now_ms);
            for node in &mut self.nodes {
                if node.slots.poll_timeout().is_none_or(|at| at <= now) {
                    node.slots.handle_timeout(now, now_ms);
                }
            }
            self.settle();
        }
    }

    /// Performs outputs and moves frames until nothing moves any more.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for node in 0..self.nodes.len() {
                moved |= self.perform(u16::try_from(node).unwrap());
            }
            let wires: Vec<(u16, u16)> = self.wires.keys().copied().collect();
            for wire in wires {
                moved |= self.carry(wire);
            }
            if !moved {
                return;
            }
        }
    }

    /// Moves one frame over a wire.
    fn carry(&mut self, (from, to): (u16, u16)) -> bool {
        let Some(frame) = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return false };
        let (now, now_ms) = (self.now, self.now_ms);
        let node = &mut self.nodes[usize::from(to)];
        node.received_frames += usize::from(frame[0] == 0x20);
        node.slots.handle_frame(NodeId(from), &frame, now, now_ms).unwrap();
        true
    }

    /// Performs the outputs of one node.
    fn perform(&mut self, node: u16) -> bool {
        let mut moved = false;
        while let Some(output) = self.nodes[usize::from(node)].slots.poll_output() {
            moved = true;
            let at = &mut self.nodes[usize::from(node)];
            match output {
                Output::Send { to, lane, frame } => {
                    let full = self.nodes[usize::from(to.0)].refuses(&frame);
                    match self.wires.get_mut(&(node, to.0)) {
                        Some(_) if full => {
                            let now = self.now;
                            self.nodes[usize::from(node)].slots.handle_send_failed(to, lane, now);
                        }
                        Some(wire) => wire.push_back(frame),
                        None => {}
                    }
                }
                Output::Toss { to, lane: _, frame } => {
                    let full = self.nodes[usize::from(to.0)].refuses(&frame);
                    if let (Some(wire), false) = (self.wires.get_mut(&(node, to.0)), full) {
                        wire.push_back(frame);
                    }
                }
                Output::Fetch { read, from, request } if self.up.contains(&(node, from.0)) => {
                    let name = read << 16 | u64::from(node) << 8;
                    self.requests.insert(name, (node, read));
                    self.nodes[usize::from(from.0)].slots.handle_history_request(name, &request);
                }
                Output::Fetch { read, .. } => at.slots.handle_fetched(read, None, self.now_ms),
                Output::Respond { request, body } => {
                    let (asker, read) = self.requests.remove(&request).unwrap();
                    let now_ms = self.now_ms;
                    self.nodes[usize::from(asker)].slots.handle_fetched(read, Some(body), now_ms);
                }
                output @ (Output::Deliver { .. }
                | Output::Gap { .. }
                | Output::Presence { .. }
                | Output::Answer { .. }
                | Output::Append { .. }
                | Output::Forget { .. }
                | Output::Scan { .. }
                | Output::Read { .. }) => at.perform(output, self.now, self.now_ms),
            }
        }
        moved
    }

    /// The node that leads the room's slot.
    fn owner(&self, room: &RoomKey) -> usize {
        let leads = |node: &Node| matches!(node.slots.slots.get(&room.slot()), Some(Slot::Owner(_)));
        let owners: Vec<usize> = (0..self.nodes.len()).filter(|node| leads(&self.nodes[*node])).collect();
        assert!(owners.len() <= 1, "{owners:?} lead the slot of {room:?}");
        owners.first().copied().unwrap_or_default()
    }

    /// What a node has stored, in the order of `n`; of two with one number the later one.
    fn stored(&self, node: usize) -> Vec<Arc<Frame>> {
        let by_n: BTreeMap<u64, &Arc<Frame>> = self.nodes[node].store.iter().map(|frame| (frame.n, frame)).collect();
        by_n.into_values().cloned().collect()
    }

    fn check(&self) {
        for node in &self.nodes {
            for (room, member) in &node.members {
                member.check(room);
            }
        }
    }

    fn live(&self, node: u16, room: &RoomKey) -> Vec<String> {
        let seen = &self.nodes[usize::from(node)].members[room].seen;
        seen.iter()
            .filter_map(|seen| match seen {
                Seen::Live(_, payload) => Some(String::from_utf8_lossy(payload).into_owned()),
                Seen::Gap(_) => None,
            })
            .collect()
    }
}

impl Node {
    fn new(node: u16, limits: Limits, resume: BTreeMap<u16, Resume>) -> Node {
        let config = Config {
            node: NodeId(node),
            generation: 1,
            shard: 0,
            shards: 1,
            limits: Limits { cold: Duration::ZERO, ..limits },
            seed: u64::from(node) << 32,
            resume,
            started_ms: START_MS,
            heads: BTreeMap::new(),
        };
        Node {
            slots: Slots::new(config),
            store: Vec::new(),
            members: BTreeMap::new(),
            answers: BTreeMap::new(),
            joining: BTreeMap::new(),
            onlookers: presence::Onlookers::default(),
            received_frames: 0,
            page_max: usize::MAX,
            refuses: 0,
            refuses_control: 0,
        }
    }

    fn refuses(&mut self, frame: &[u8]) -> bool {
        let left = if frame[0] == 0x20 { &mut self.refuses } else { &mut self.refuses_control };
        let full = *left > 0 && (frame[0] == 0x20 || frame[1] == 8);
        *left -= usize::from(full);
        full
    }

    fn perform(&mut self, output: Output, now: Instant, now_ms: u64) {
        match output {
            Output::Deliver { shard: _, frame } => {
                if let Some(member) = self.members.get_mut(&frame.room) {
                    let stamp = Stamp { lineage: frame.lineage, n: frame.n };
                    member.seen.push(Seen::Live(stamp, frame.payload.clone()));
                }
            }
            Output::Gap { shard: _, room, stamp } => self.members.entry(room).or_default().seen.push(Seen::Gap(stamp)),
            Output::Presence { shard: _, room, change } => self.onlookers.see(&room, &change),
            Output::Answer { ask, answer } => {
                self.onlookers.answer(ask.token, &answer);
                if let (Answer::Joined(Ok(history)), Some(room)) = (&answer, self.joining.remove(&ask.token)) {
                    let payloads = history.frames.iter().map(|frame| frame.payload.clone()).collect();
                    let stamp = Stamp { lineage: history.lineage, n: history.head };
                    self.members.insert(room, Member { fence: Some((stamp, payloads)), seen: Vec::new() });
                }
                self.answers.insert(ask.token, answer);
            }
            Output::Append { frame, bytes } => {
                assert_eq!(Frame::decode(bytes).as_ref(), Ok(&*frame), "the store gets other bytes than the members");
                self.store.push(frame);
            }
            Output::Read { read, room, after, upto, count, newest } => {
                let in_range = |frame: &&Arc<Frame>| frame.room == room && frame.n > after && frame.n <= upto;
                // In the order of `n`, whatever came first; of two with one number the later one.
                let frames: BTreeMap<u64, &Arc<Frame>> =
                    self.store.iter().filter(in_range).map(|frame| (frame.n, frame)).collect();
                let frames: Vec<Arc<Frame>> = frames.into_values().cloned().collect();
                let take = frames.len().min(count as usize).min(self.page_max);
                let part = if newest { &frames[frames.len() - take..] } else { &frames[..take] };
                let found = Found { frames: part.to_vec(), more: take < frames.len() };
                self.slots.handle_read(read, Some(found), now_ms);
            }
            Output::Forget { slot } => self.store.retain(|frame| frame.slot != slot),
            Output::Scan { scan, slot, .. } => {
                let frames = self.store.iter().filter(|frame| frame.slot == slot).cloned().collect();
                self.slots.handle_scanned(scan, Some(Scanned { frames, next: 0 }), now, now_ms);
            }
            Output::Send { .. } | Output::Toss { .. } | Output::Fetch { .. } | Output::Respond { .. } => {
                unreachable!("handled by the world")
            }
        }
    }
}

impl Member {
    fn check(&self, room: &RoomKey) {
        let Some((mut last, _)) = self.fence else { return };
        for seen in &self.seen {
            match seen {
                Seen::Gap(stamp) => last = *stamp,
                Seen::Live(stamp, _) if stamp.n == 0 => {}
                Seen::Live(stamp, payload) => {
                    assert_eq!(stamp.lineage, last.lineage, "{room:?}: another lineage without notice at {payload:?}");
                    assert!(stamp.n > last.n, "{room:?}: {stamp:?} after {last:?} at {payload:?}");
                    last = *stamp;
                }
            }
        }
    }
}

/// The view of a cluster of these nodes, each in its first life.
fn view_of(ids: &[NodeId]) -> View {
    let member = |node: &NodeId| crate::Member {
        node: *node,
        name: node.to_string(),
        generation: 1,
        addr: ([127, 0, 0, 1], 1).into(),
        state: crate::MemberState::Alive,
    };
    View {
        version: 1,
        members: ids.iter().map(member).collect(),
        outside: Vec::new(),
        table: Arc::new(Table::build(ids)),
    }
}

/// A room whose slot belongs to `owner` in a cluster of `nodes`.
fn room_of(owner: u16, nodes: u16) -> RoomKey {
    let ids: Vec<NodeId> = (0..nodes).map(NodeId).collect();
    let table = Table::build(&ids);
    let names = (0..10_000).map(|name| RoomKey::new("/", &format!("room-{name}")));
    names.into_iter().find(|room| table.owner(room.slot()) == Some(NodeId(owner))).unwrap()
}
