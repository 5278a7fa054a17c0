//! One simulated node: a process that may be there, its volume, and the driver around its slots.
//!
//! Invariants: outputs are performed in the order they are polled; what happens to a process that stands still waits for it
//! in the order in which it came; what a dead process asked for is answered to nobody.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use super::{Event, Ms, Storm, TICK, chatter, clients::Asked, judge::Key, network::Told, probe, store::Store};
use crate::{
    LANES, NodeId, View,
    slot::{Answer, Ask, Config, Found, Output, Publish, Resume, Scanned, Slots, Want},
    wire::message::LaneMessage,
};

/// What a driver hands to its slots.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Frame { from: usize, bytes: Bytes },
    LinkUp { peer: usize, generation: u64 },
    LinkDown { peer: usize },
    View(Arc<View>),
    Question { name: u64, body: Bytes },
    Fetched { read: u64, body: Option<Bytes> },
    Read { read: u64, found: Option<Found> },
    Scanned { scan: u64, scanned: Option<Scanned> },
    Publish { room: usize, key: Key, ids: bool, ask: Ask },
    Chat { room: usize, number: u64 },
    Join { room: usize, want: Want, ask: Ask },
    Leave { room: usize, shard: u8 },
    History { room: usize, want: Want, ask: Ask },
}

/// See the module.
#[derive(Default)]
pub(super) struct Node {
    /// The process, if there is one.
    pub(super) slots: Option<Slots>,
    pub(super) generation: u64,
    pub(super) store: Store,
    /// It stands still.
    pub(super) paused: Option<Ms>,
    waiting: VecDeque<Input>,
    /// When its next timer is set for.
    alarm: Option<Ms>,
    /// It knows its cluster and takes clients.
    pub(super) ready: bool,
    pub(super) draining: Option<Ms>,
    /// Frames it wrote in this life and was not told to forget.
    pub(super) holds: BTreeMap<u16, BTreeSet<(u64, u64)>>,
    /// So many frames for that peer and lane find the lane full.
    pub(super) full: BTreeMap<(usize, u8), u32>,
    /// Nothing is judged by its time before this.
    pub(super) unwell_until: Ms,
    /// What a clean stop of a node alone left.
    resume: BTreeMap<u16, Resume>,
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        self.slots.is_some()
    }

    pub(super) fn takes_clients(&self) -> bool {
        self.slots.is_some() && self.ready && self.draining.is_none()
    }
}

impl Storm {
    /// A process starts on the node's volume.
    pub(super) fn start(&mut self, at: usize) {
        let (seed, started_ms) = (self.rng.next(), self.wall());
        let node = &mut self.nodes[at];
        if node.is_up() {
            return;
        }
        node.generation += 1;
        let config = Config {
            node: NodeId(u16::try_from(at).unwrap()),
            generation: node.generation,
            shard: 0,
            shards: 1,
            limits: super::limits(),
            seed,
            resume: std::mem::take(&mut node.resume),
            started_ms,
            heads: node.store.heads(),
        };
        node.slots = Some(Slots::new(config));
        (node.ready, node.draining, node.paused, node.alarm) = (false, None, None, None);
        node.holds.clear();
        node.full.clear();
        node.unwell_until = self.now + 5_000;
        let generation = node.generation;
        self.count("starts");
        self.trace.note(self.now, at, "starts", &[generation], || format!("generation {generation}"));
        self.forget_beliefs(at);
        if self.nodes.len() > 1 {
            self.hand_view(at);
        } else {
            // A node without a mesh has no view.
            self.nodes[at].ready = true;
        }
        self.dial_all(at);
    }

    /// The process is gone. `clean` = it said so and closed its volume.
    pub(super) fn stop(&mut self, at: usize, clean: bool, volume_lost: bool) {
        let alone = self.nodes.len() == 1;
        let now = self.now;
        let node = &mut self.nodes[at];
        let Some(slots) = node.slots.take() else { return };
        self.note_tails(at, &slots);
        let node = &mut self.nodes[at];
        if clean {
            node.store.close();
            if alone {
                node.resume = slots.to_resume();
            }
        } else {
            node.store.crash(volume_lost, now);
        }
        (node.ready, node.draining, node.paused, node.alarm) = (false, None, None, None);
        node.waiting.clear();
        node.holds.clear();
        self.count(if clean { "clean stops" } else { "crashes" });
        self.trace.note(now, at, if clean { "stops" } else { "crashes" }, &[u64::from(volume_lost)], || {
            if volume_lost { "and its volume is lost".into() } else { String::new() }
        });
        self.questions.retain(|_, question| question.0 != at);
        self.lose_clients(at);
        self.lose_links(at, clean);
    }

    /// Something happens to a process: now, or when it moves again.
    pub(super) fn input(&mut self, at: usize, input: Input) {
        let node = &mut self.nodes[at];
        if node.slots.is_none() {
            return;
        }
        if node.paused.is_some() {
            node.waiting.push_back(input);
            return;
        }
        self.take(at, input);
        self.perform(at);
    }

    /// A process that stood still moves again: all that came meanwhile comes now, before or after its timers.
    pub(super) fn wake(&mut self, at: usize) {
        if self.nodes[at].paused.is_none_or(|until| until > self.now) {
            return;
        }
        self.nodes[at].paused = None;
        self.trace.note(self.now, at, "wakes", &[], String::new);
        let timers_first = self.rng.below(2) == 0;
        if timers_first {
            self.look_at_time(at);
        }
        while let Some(input) = self.nodes[at].waiting.pop_front() {
            self.take(at, input);
            if self.rng.below(4) == 0 {
                self.perform(at);
            }
        }
        self.perform(at);
        self.look_at_time(at);
        self.detect_anew(at);
    }

    /// The node's timer, if it is due.
    pub(super) fn alarm(&mut self, at: usize, set: Ms) {
        if self.nodes[at].alarm == Some(set) {
            self.nodes[at].alarm = None;
            self.look_at_time(at);
        }
    }

    fn look_at_time(&mut self, at: usize) {
        let (now, now_ms) = (self.instant(), self.wall());
        let node = &mut self.nodes[at];
        if node.paused.is_some() {
            return;
        }
        if let Some(slots) = &mut node.slots
            && slots.poll_timeout().is_none_or(|due| due <= now)
        {
            slots.handle_timeout(now, now_ms);
        }
        self.perform(at);
    }

    fn take(&mut self, at: usize, input: Input) {
        let (now, now_ms) = (self.instant(), self.wall());
        if let Input::Leave { room, shard } = input
            && self.has_member(at, shard, room)
        {
            return;
        }
        let rooms = &self.rooms;
        let Some(slots) = &mut self.nodes[at].slots else { return };
        match input {
            Input::Frame { from, bytes } => {
                let from = NodeId(u16::try_from(from).unwrap());
                if let Err(error) = slots.handle_frame(from, &bytes, now, now_ms) {
                    self.judge.blame(format!("node {at} cannot read what {from} sent: {error}"));
                }
                if let Ok(LaneMessage::Keep(_, frame)) = LaneMessage::decode(&bytes)
                    && let Some(key) = probe::kept(slots, frame.slot).and_then(|payload| Key::decode(&payload))
                    && let Some(fate) = self.judge.fates.get_mut(&key)
                {
                    fate.held.insert((at, self.nodes[at].generation));
                }
            }
            Input::LinkUp { peer, generation } => {
                slots.handle_link_up(NodeId(u16::try_from(peer).unwrap()), generation, now, now_ms);
            }
            Input::LinkDown { peer } => slots.handle_link_down(NodeId(u16::try_from(peer).unwrap()), now, now_ms),
            Input::View(view) => slots.handle_view(&view, now, now_ms),
            Input::Question { name, body } => slots.handle_history_request(name, &body),
            Input::Fetched { read, body } => slots.handle_fetched(read, body, now_ms),
            Input::Read { read, found } => slots.handle_read(read, found, now_ms),
            Input::Scanned { scan, scanned } => slots.handle_scanned(scan, scanned, now, now_ms),
            Input::Publish { room, key, ids, ask } => {
                let publish = Publish {
                    room: rooms[room].clone(),
                    flags: 0,
                    id: if ids { format!("{}-{}", key.0, key.1).into() } else { "".into() },
                    from: "".into(),
                    except: Vec::new(),
                    payload: Bytes::copy_from_slice(&key.encode()),
                };
                slots.handle_publish(publish, ask, now, now_ms);
            }
            Input::Chat { room, number } => {
                slots.handle_publish(chatter::publish(&rooms[room], number), chatter::ASK, now, now_ms);
            }
            Input::Join { room, want, ask } => slots.handle_join(&rooms[room].clone(), want, ask, now, now_ms),
            Input::Leave { room, shard } => slots.handle_leave(&rooms[room].clone(), shard, now),
            Input::History { room, want, ask } => slots.handle_history(&rooms[room].clone(), want, ask, now_ms),
        }
    }

    /// Performs what the node wants done. A lane that was full is told of at the end of the turn, as the driver does.
    pub(super) fn perform(&mut self, at: usize) {
        loop {
            let mut refused = Vec::new();
            while let Some(output) = self.nodes[at].slots.as_mut().and_then(Slots::poll_output) {
                self.perform_one(at, output, &mut refused);
            }
            if refused.is_empty() {
                break;
            }
            let now = self.instant();
            for (to, lane) in refused {
                if let Some(slots) = &mut self.nodes[at].slots {
                    slots.handle_send_failed(to, lane, now);
                }
            }
        }
        self.set_alarm(at);
    }

    fn perform_one(&mut self, at: usize, output: Output, refused: &mut Vec<(NodeId, u8)>) {
        let (now, generation) = (self.now, self.nodes[at].generation);
        match output {
            Output::Deliver { shard, frame } if frame.is_volatile() => self.heard(at, shard, &frame),
            Output::Deliver { shard, frame } => {
                self.trace.note(now, at, "delivers", &[u64::from(shard), frame.lineage, frame.n], || {
                    format!("{:?} n {} of {:x} to shard {shard}", Key::decode(&frame.payload), frame.n, frame.lineage)
                });
                self.delivered(at, shard, &frame);
            }
            Output::Gap { shard, room, stamp } => {
                self.trace.note(now, at, "gap", &[u64::from(shard), stamp.lineage, stamp.n], || {
                    format!("{} goes on after {} of {:x}", room.room(), stamp.n, stamp.lineage)
                });
                if let Some(room) = self.room(&room) {
                    self.told_of_gap(at, shard, room, stamp);
                }
            }
            Output::Presence { .. } => {}
            Output::Answer { ask, answer } => {
                self.note_answer(at, ask, &answer);
                self.answered(at, ask, answer);
            }
            Output::Send { to, lane, frame } => {
                if !self.send(at, usize::from(to.0), lane, frame) {
                    refused.push((to, lane));
                }
            }
            Output::Toss { to, lane, frame } => {
                self.send(at, usize::from(to.0), lane, frame);
            }
            Output::Append { frame, bytes: _ } => {
                self.must_not_be_volatile(at, &frame);
                let place = (frame.lineage, frame.n);
                self.nodes[at].holds.entry(frame.slot).or_default().insert(place);
                if let Some(fate) = Key::decode(&frame.payload).and_then(|key| self.judge.fates.get_mut(&key)) {
                    fate.holders.insert((at, generation));
                    fate.held.insert((at, generation));
                }
                self.trace.note(now, at, "keeps", &[frame.lineage, frame.n], || {
                    format!("{:?} n {} of {:x}", Key::decode(&frame.payload), frame.n, frame.lineage)
                });
                self.nodes[at].store.append(frame, now);
            }
            Output::Forget { slot } => {
                self.trace.note(now, at, "forgets", &[u64::from(slot)], || format!("slot {slot}"));
                self.nodes[at].holds.remove(&slot);
                self.forget_holder(at, slot);
                self.nodes[at].store.forget(slot, now);
            }
            Output::Read { read, room, after, upto, count, newest } => {
                let found = Some(self.nodes[at].store.read(&room, after, upto, count, newest));
                self.later(at, 30, Input::Read { read, found });
            }
            Output::Scan { scan, slot, after } => {
                let scanned = Some(self.nodes[at].store.scan(slot, after));
                self.later(at, 30, Input::Scanned { scan, scanned });
            }
            Output::Fetch { read, from, request } => self.question(at, read, usize::from(from.0), request),
            Output::Respond { request, body } => self.respond(request, body),
        }
    }

    fn note_answer(&mut self, at: usize, ask: Ask, answer: &Answer) {
        let (kind, place) = match answer {
            Answer::Published(Ok(stamp)) => ("acks", *stamp),
            Answer::Joined(Ok(history)) => ("joins", crate::slot::Stamp { lineage: history.lineage, n: history.head }),
            Answer::History(Ok(history)) => ("reads", crate::slot::Stamp { lineage: history.lineage, n: history.head }),
            Answer::Published(Err(_)) | Answer::Joined(Err(_)) | Answer::History(Err(_)) => {
                ("refuses", crate::slot::Stamp { lineage: 0, n: 0 })
            }
            Answer::Presence(_) => return,
        };
        let asked = self.asked.get(&ask.token).copied();
        self.trace.note(self.now, at, kind, &[ask.token, place.lineage, place.n], || match answer {
            Answer::Published(Err(why)) => format!("{asked:?}: {why:?}"),
            Answer::Joined(Err(why)) | Answer::History(Err(why)) => format!("{asked:?}: {why:?}"),
            Answer::Published(Ok(_)) | Answer::Joined(Ok(_)) | Answer::History(Ok(_)) | Answer::Presence(_) => {
                format!("{asked:?}: n {} of {:x}", place.n, place.lineage)
            }
        });
    }

    fn set_alarm(&mut self, at: usize) {
        let (base, now) = (self.base, self.now);
        let node = &mut self.nodes[at];
        let Some(due) = node.slots.as_ref().and_then(Slots::poll_timeout) else { return };
        let due = u64::try_from(due.saturating_duration_since(base).as_millis()).unwrap_or(Ms::MAX);
        // Times are looked at in steps; never twice at one.
        let due = due.div_ceil(TICK).saturating_mul(TICK).max(now + TICK);
        if node.alarm.is_none_or(|alarm| alarm > due || alarm <= now) {
            node.alarm = Some(due);
            self.at(due - now, Event::Alarm { at, set: due });
        }
    }

    /// Gives a frame to a lane; false if the lane is full.
    fn send(&mut self, at: usize, to: usize, lane: u8, frame: Bytes) -> bool {
        assert!(lane < LANES, "no such lane");
        let now = self.now;
        self.trace.note(now, at, "sends", &[to as u64, u64::from(lane), frame.len() as u64], || {
            format!("to N{to} {}", super::describe(&frame))
        });
        self.trace.bytes(&frame);
        let delay = self.delay();
        let Some((link, side)) = self.network.link(at, to) else { return true };
        if link.told[side] != Told::Up {
            return true;
        }
        if let Some(left) = self.nodes[at].full.get_mut(&(to, lane)).filter(|left| **left > 0) {
            *left -= 1;
            self.count("full lanes");
            return false;
        }
        if link.broke.is_some() {
            return true;
        }
        let last = &mut link.last[side][usize::from(lane)];
        *last = (*last).max(now + delay);
        let (arrives, link_id) = (*last, link.id);
        link.wires[side][usize::from(lane)].push_back(frame);
        self.at(arrives - now, Event::Arrive { from: at, to, link: link_id, lane });
        true
    }

    /// Asks the judge's question of this node.
    pub(super) fn read_room(&mut self, at: usize, room: usize, want: Want) -> u64 {
        self.tokens += 1;
        let ask = Ask { shard: 0, token: self.tokens };
        self.asked.insert(self.tokens, Asked::Reading);
        self.input(at, Input::History { room, want, ask });
        ask.token
    }
}
