//! A cluster of real slot machines in a network as it is, under faults as they are, with clients that write down what they
//! see: the simulator that judges two copies and a witness (`semantics.md` 3).
//!
//! Time is virtual and a run is wholly decided by its plan and its seed: `cargo xtask sim slot --first SEED --seeds 1` plays
//! it again. `network` and `links` are what is between processes, `node` a process and its driver, `store` its volume,
//! `detector` what it believes of others, `faults` what strikes, `clients` who publishes and listens, `judge` what must never
//! be seen, `runs` the plans.
//!
//! Invariants: nothing here asks a clock or a random source of its own, and nothing observable depends on the order of a hash
//! map; everything that happens goes through `agenda`, in order of time and of being planned; the first broken promise ends
//! the run.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    SLOTS,
    rng::SplitMix,
    room::RoomKey,
    slot::{History, Limits, Slots, Want},
    wire::{
        message::{Control, LaneMessage, Refusal},
        triple::{Say, Term, TermId},
    },
};

mod chatter;
mod clients;
mod detector;
mod faults;
mod judge;
mod links;
mod network;
mod node;
mod probe;
mod rest;
mod runs;
mod store;
mod trace;

use clients::{Asked, Member, Publisher};
use faults::Fault;
use judge::{Judge, Key, Place, Rules};
use network::{Network, Told};
use node::{Input, Node};
use trace::Trace;

/// Virtual milliseconds since the run began.
type Ms = u64;

/// Steps of the clock.
const TICK: Ms = 10;
const START_MS: u64 = 1_000_000_000;

/// What is planned to happen.
#[derive(Debug)]
enum Event {
    Start(usize),
    Alarm { at: usize, set: Ms },
    Arrive { from: usize, to: usize, link: u64, lane: u8 },
    Dial((usize, usize)),
    Tell { at: usize, peer: usize, link: u64, what: Told },
    Idle { pair: (usize, usize), link: u64 },
    Later { at: usize, life: u64, input: Input },
    Answered { name: u64, body: Option<Bytes> },
    Unanswered(u64),
    Look,
    Strike,
    WakeUp(usize),
    Stall { at: usize, lasts: Ms },
    Mend((usize, usize), Ms),
    Storage(usize),
    Drained { at: usize, since: Ms, away: Ms },
    Depart { at: usize, since: Ms },
    Publish(usize),
    Chat,
    GiveUp { who: usize, seq: u32, token: u64 },
    Resend(usize),
    Attach(usize),
    Join(usize),
    Leave(usize),
}

/// What a run is made of.
#[derive(Clone, Debug)]
struct Plan {
    nodes: usize,
    /// Nodes that are there from the start, and at the end.
    begins_with: usize,
    ends_with: usize,
    rooms: usize,
    slots: usize,
    publishers: usize,
    members: usize,
    /// Between two messages of a publisher, on average.
    every: Ms,
    /// Between two volatile messages, on average; 0 = there are none.
    chatter: Ms,
    /// The longest that something is on its way.
    delay: Ms,
    /// Of 1,000 questions to peers.
    questions_lost: u64,
    faults: &'static [Fault],
    /// Between two faults, on average.
    calm: Ms,
    storm_until: Ms,
    volumes_lost: bool,
    rules: Rules,
}

/// One run. See the module.
struct Storm {
    plan: Plan,
    rng: SplitMix,
    now: Ms,
    base: Instant,
    agenda: BTreeMap<(Ms, u64), Event>,
    planned: u64,
    nodes: Vec<Node>,
    network: Network,
    detector: detector::Detector,
    /// Who asked, in which life, and its own name for the question.
    questions: BTreeMap<u64, (usize, u64, u64)>,
    rooms: Vec<RoomKey>,
    numbers: HashMap<RoomKey, usize>,
    publishers: Vec<Publisher>,
    members: Vec<Member>,
    asked: BTreeMap<u64, Asked>,
    readings: BTreeMap<(usize, u64), Result<History, Refusal>>,
    tokens: u64,
    publishing: bool,
    chatter: chatter::Chatter,
    /// Every slot had all its members once: from here on a frame needs two copies.
    full: bool,
    judge: Judge,
    trace: Trace,
    counts: BTreeMap<&'static str, u64>,
    /// Every term that was led, by slot.
    terms: BTreeMap<(u16, u64, u32), Term>,
}

/// Everything is kept for as long as a run takes, so that what is missing was lost.
fn limits() -> Limits {
    Limits { history_size: 1_000_000, history_ttl: Duration::from_secs(86_400), ..Limits::default() }
}

/// Rooms by slot, found once.
fn rooms_of(slot: u16) -> &'static [RoomKey] {
    static ROOMS: OnceLock<Vec<Vec<RoomKey>>> = OnceLock::new();
    let all = ROOMS.get_or_init(|| {
        let mut rooms = vec![Vec::new(); usize::from(SLOTS)];
        for number in 0..60_000 {
            let room = RoomKey::new("/", &format!("r{number}"));
            rooms[usize::from(room.slot())].push(room);
        }
        rooms
    });
    &all[usize::from(slot)]
}

/// What is sent, in a few characters.
fn describe(bytes: &Bytes) -> String {
    let id = |id: &TermId| format!("{} of {:x}", id.number, id.lineage);
    match LaneMessage::decode(bytes) {
        Ok(LaneMessage::Frame(frame)) if frame.term == 0 => format!("publish {:?}", Key::decode(&frame.payload)),
        Ok(LaneMessage::Frame(frame)) => {
            let key = Key::decode(&frame.payload);
            format!("frame {key:?} n {} prev {} term {} of {:x}", frame.n, frame.prev, frame.term, frame.lineage)
        }
        Ok(LaneMessage::Keep(term, frame)) => {
            format!(
                "keep [{}] {:?} n {} prev {} in {}",
                frame.slot,
                Key::decode(&frame.payload),
                frame.n,
                frame.prev,
                id(&term)
            )
        }
        Ok(LaneMessage::Control(Control::Slot { slot, say })) => {
            let words = match say {
                Say::Ask { term, next } => format!("ask {} for {}", probe::in_short(&term), probe::in_short(&next)),
                Say::Exists(term) => format!("exists {}", probe::in_short(&term)),
                Say::Began { term, from, stamped, base } => {
                    format!("began {} from {from} in {} base {base}", probe::in_short(&term), id(&stamped))
                }
                Say::Ack { term, n, whole } => {
                    format!("ack {n:?} in {}{}", id(&term), if whole { " whole" } else { "" })
                }
                Say::Shown { term, n } => format!("shown {n} in {}", id(&term)),
                Say::Yield { term } => format!("yield {}", probe::in_short(&term)),
                Say::Welcome { term, known: _ } => format!("welcome {}", probe::in_short(&term)),
            };
            format!("[{slot}] {words}")
        }
        Ok(LaneMessage::Control(control)) => format!("{control:?}"),
        Err(error) => format!("{error}"),
    }
}

impl Storm {
    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant can only come from the clock; it moves by hand from here"
    )]
    fn new(seed: u64, plan: Plan, written: bool) -> Storm {
        let mut rng = SplitMix::new(seed);
        let mut slots: Vec<u16> = Vec::new();
        while slots.len() < plan.slots {
            let slot = u16::try_from(rng.below(u64::from(SLOTS))).unwrap();
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        let mut rooms: Vec<RoomKey> = Vec::new();
        for number in 0..plan.rooms {
            let of_slot = rooms_of(slots[number % slots.len()]);
            rooms.extend(of_slot.get(number / slots.len()).cloned());
        }
        let judge = Judge::new(plan.rules, rooms.len());
        let mut storm = Storm {
            nodes: (0..plan.nodes).map(|_| Node::default()).collect(),
            numbers: rooms.iter().cloned().enumerate().map(|(number, room)| (room, number)).collect(),
            rooms,
            judge,
            rng,
            now: 0,
            base: Instant::now(),
            agenda: BTreeMap::new(),
            planned: 0,
            network: Network::default(),
            detector: detector::Detector::default(),
            questions: BTreeMap::new(),
            publishers: Vec::new(),
            members: Vec::new(),
            asked: BTreeMap::new(),
            readings: BTreeMap::new(),
            tokens: 0,
            publishing: true,
            chatter: chatter::Chatter::default(),
            full: false,
            trace: Trace::new(written),
            counts: BTreeMap::new(),
            terms: BTreeMap::new(),
            plan,
        };
        storm.populate();
        storm
    }

    /// Nodes start, clients come.
    fn populate(&mut self) {
        for at in 0..self.plan.begins_with {
            let wait = self.rng.below(500);
            self.at(wait, Event::Start(at));
        }
        self.at(0, Event::Look);
        if self.plan.chatter > 0 {
            self.at(5_000, Event::Chat);
        }
        for who in 0..self.plan.publishers {
            let (ids, window) = (self.rng.below(5) > 0, 1 + usize::try_from(self.rng.below(4)).unwrap());
            let (room, every) = (who % self.rooms.len(), self.plan.every);
            self.publishers.push(Publisher { room, at: None, ids, window, every, next: 0, open: BTreeMap::new() });
            let wait = 1_000 + self.rng.below(4_000);
            self.at(wait, Event::Attach(who));
            self.at(wait + 500, Event::Publish(who));
        }
        for who in 0..self.plan.members {
            let (shard, restless) = (u8::try_from(self.rng.below(2)).unwrap(), self.rng.below(2) == 0);
            self.members.push(Member {
                room: who % self.rooms.len(),
                shard,
                at: None,
                joining: None,
                stretch: None,
                cursor: None,
                known: BTreeSet::new(),
                restless,
            });
            let wait = 1_000 + self.rng.below(4_000);
            self.at(wait, Event::Join(who));
        }
    }

    fn at(&mut self, wait: Ms, event: Event) {
        self.planned += 1;
        let at = (self.now + wait).div_ceil(TICK) * TICK;
        self.agenda.insert((at, self.planned), event);
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_millis(self.now)
    }

    fn wall(&self) -> u64 {
        START_MS + self.now
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn room(&self, key: &RoomKey) -> Option<usize> {
        self.numbers.get(key).copied()
    }

    /// Lets time pass; false if something went wrong.
    fn pass(&mut self, time: Ms) -> bool {
        let end = self.now + time;
        while self.judge.broken.is_empty() {
            match self.agenda.first_key_value() {
                Some(((at, _), _)) if *at <= end => {
                    let ((at, _), event) = self.agenda.pop_first().unwrap();
                    self.now = at;
                    self.happen(event);
                }
                Some(_) | None => {
                    self.now = end;
                    return true;
                }
            }
        }
        false
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(at) => self.start(at),
            Event::Alarm { at, set } => self.alarm(at, set),
            Event::Arrive { from, to, link, lane } => self.arrive(from, to, link, lane),
            Event::Dial(pair) => self.dialled(pair),
            Event::Tell { at, peer, link, what } => self.tell(at, peer, link, what),
            Event::Idle { pair, link } => self.idle(pair, link),
            Event::Later { at, life, input } if self.nodes[at].generation == life => self.input(at, input),
            Event::Later { .. } => {}
            Event::Answered { name, body } => self.answer_question(name, body),
            Event::Unanswered(name) => self.answer_question(name, None),
            Event::Look => self.look(),
            Event::Strike => self.strike(),
            Event::WakeUp(at) => self.wake(at),
            Event::Stall { at, lasts } => self.stall(at, lasts),
            Event::Mend(pair, since) => self.mend(pair, since),
            Event::Storage(at) => self.set_storage(at, true),
            Event::Drained { at, since, away } => self.drained(at, since, away),
            Event::Depart { at, since } => self.depart(at, since),
            Event::Publish(who) => self.publish(who),
            Event::Chat => self.chat(),
            Event::GiveUp { who, seq, token } => self.give_up(who, seq, token),
            Event::Resend(who) => self.resend(who),
            Event::Attach(who) => self.attach(who),
            Event::Join(who) => self.join(who),
            Event::Leave(who) => self.leave(who),
        }
    }

    /// A frame was shown to a client, or its place was told to one.
    fn shown(&mut self, at: Option<usize>, room: usize, place: Place, key: Key) {
        let slot = self.rooms[room].slot();
        let leader = at.and_then(|at| self.nodes[at].slots.as_ref());
        let needs_two =
            self.full && (self.plan.rules.strict || leader.is_some_and(|slots| probe::leads_with_replica(slots, slot)));
        if self.judge.show(room, slot, place, key) && needs_two {
            let mut lives = self.judge.fates.get(&key).map(|fate| fate.held.clone()).unwrap_or_default();
            for (at, node) in self.nodes.iter().enumerate() {
                if node.slots.as_ref().is_some_and(|slots| probe::is_in_tail(slots, slot, place)) {
                    lives.insert((at, node.generation));
                }
            }
            if lives.len() < 2 {
                self.judge.blame(format!("{key:?} at {place:x?} of room {room} is shown while only {lives:?} hold it"));
            }
        }
    }

    /// What a process holds when it dies counts as held.
    fn note_tails(&mut self, at: usize, slots: &Slots) {
        let life = (at, self.nodes[at].generation);
        for key in probe::tailed(slots).iter().filter_map(|payload| Key::decode(payload)) {
            if let Some(fate) = self.judge.fates.get_mut(&key) {
                fate.held.insert(life);
            }
        }
    }

    /// Counts what became of terms since the last look.
    fn look_at_terms(&mut self) {
        let mut news = Vec::new();
        for (slot, term) in self.nodes.iter().filter_map(|node| node.slots.as_ref()).flat_map(probe::led) {
            let name = (slot, term.id.lineage, term.id.number);
            if self.terms.contains_key(&name) {
                continue;
            }
            let parent = self.terms.get(&(slot, term.parent.lineage, term.parent.number));
            let owner = term.triple.owner.node;
            let there =
                |at: usize| self.nodes[at].is_up() && self.nodes[at].paused.is_none() && !self.network.is_cut_off(at);
            news.push(match parent.map(|parent| parent.triple.owner.node) {
                None if term.parent == term.id => "lineages",
                None => "terms whose parent was not seen",
                Some(old) if old == owner => "other seats",
                Some(old) if there(usize::from(old.0)) => "handovers",
                Some(_) => "takeovers",
            });
            self.terms.insert(name, term);
        }
        news.into_iter().for_each(|what| self.count(what));
    }

    /// This life forgets a slot: it must not be the last that holds what somebody was told is kept.
    fn forget_holder(&mut self, at: usize, slot: u16) {
        let (life, alive) = ((at, self.nodes[at].generation), self.alive());
        let mut last = Vec::new();
        for (key, fate) in self.judge.fates.iter_mut().filter(|(_, fate)| self.rooms[fate.room].slot() == slot) {
            let held = fate.holders.remove(&life);
            if held && fate.ok.is_some() && fate.holders.is_disjoint(&alive) {
                last.push(*key);
            }
        }
        // What came through a crash on somebody's disk is still history there.
        let others = self.nodes.iter().enumerate().filter(|(other, node)| *other != at && node.is_up());
        let stored: BTreeSet<Key> =
            others.flat_map(|(_, node)| node.store.of(slot)).filter_map(|frame| Key::decode(&frame.payload)).collect();
        last.retain(|key| !stored.contains(key));
        if !last.is_empty() {
            self.judge.blame(format!("node {at} forgets slot {slot}, and with it the last copy of {last:?}"));
        }
    }

    /// The lives that are there now.
    fn alive(&self) -> BTreeSet<(usize, u64)> {
        let up = self.nodes.iter().enumerate().filter(|(_, node)| node.is_up());
        up.map(|(at, node)| (at, node.generation)).collect()
    }

    fn used_slots(&self) -> BTreeSet<u16> {
        self.rooms.iter().map(RoomKey::slot).collect()
    }
}
