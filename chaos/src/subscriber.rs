//! A client that is in its rooms, comes back when it is cut off, and asks for what it missed.
//!
//! Invariants: a cursor is where the last answer said the room is; a rejoin asks for everything behind it; now and then a
//! room is joined again on a live connection, which must change nothing and moves the cursor on.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::packet::{Answer, Packet, Refusal, question};
use crate::record::{Place, What};
use crate::stage::{Door, Phase, Stage};
use crate::wire::{Wire, WireError};

/// How long an answer to a join may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(8);
/// Pause before a node, or a refused join, is tried again.
const RETRY: Duration = Duration::from_millis(150);
/// How often one of the rooms is joined again.
const REFRESH: Duration = Duration::from_secs(1);
/// What is asked for after a gap.
const LAST: u32 = 1000;

/// What a subscriber is.
pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) home: usize,
    pub(crate) rooms: Vec<String>,
}

/// A join without an answer.
struct Asked {
    room: usize,
    since: Option<Place>,
    deadline: Instant,
}

struct State {
    me: Subscriber,
    stage: Rc<Stage>,
    cursors: HashMap<usize, Place>,
    /// Rooms to join, and from when on.
    missing: BTreeMap<usize, Instant>,
    /// Rooms whose continuity is gone: the next join asks for the newest instead.
    broken: Vec<usize>,
    asked: HashMap<u64, Asked>,
    next_question: u64,
    open: Rc<Cell<usize>>,
}

/// Receives until the round is over.
pub(crate) async fn run(me: Subscriber, stage: Rc<Stage>) {
    let (mut phase, open) = (stage.phase(), stage.counter());
    let mut state = State {
        me,
        stage,
        cursors: HashMap::new(),
        missing: BTreeMap::new(),
        broken: Vec::new(),
        asked: HashMap::new(),
        next_question: 0,
        open,
    };
    let mut attempt = 0;
    loop {
        state.begin();
        let Some(door) = state.stage.door(state.me.home, attempt) else { return };
        let served = tokio::select! {
            served = state.serve(&door) => served,
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
        };
        let Err(error) = served;
        state.say(What::Disconnected { why: error.to_string() });
        attempt += 1;
        sleep(RETRY).await;
    }
}

impl State {
    fn say(&self, what: What) {
        self.stage.recorder.add(&self.me.name, what);
    }

    /// No room is joined.
    fn begin(&mut self) {
        self.asked.clear();
        let now = Instant::now();
        self.missing = (0..self.me.rooms.len()).map(|room| (room, now)).collect();
        self.count();
    }

    fn count(&self) {
        self.open.set(self.missing.len() + self.asked.len());
    }

    /// One connection until it breaks.
    async fn serve(&mut self, door: &Door) -> Result<std::convert::Infallible, WireError> {
        let mut wire = Wire::connect(door.address).await?;
        self.say(What::Connected { node: door.name.clone() });
        let (mut refresh, mut turn) = (interval(REFRESH), 0);
        let phase = self.stage.phase();
        loop {
            self.join_due(&mut wire);
            let due = self.missing.values().copied().chain(self.asked.values().map(|asked| asked.deadline)).min();
            let due = due.unwrap_or_else(|| Instant::now() + ANSWER_PATIENCE);
            tokio::select! {
                packet = wire.packet() => self.handle(Packet::read(&packet?)),
                _ = refresh.tick() => {
                    let quiet = self.missing.is_empty() && self.asked.is_empty();
                    if quiet && *phase.borrow() == Phase::Burst {
                        turn += 1;
                        self.join(&mut wire, turn % self.me.rooms.len());
                    }
                }
                () = sleep_until(due) => {}
            }
            self.count();
        }
    }

    fn join_due(&mut self, wire: &mut Wire) {
        let now = Instant::now();
        let late: Vec<u64> = self.asked.iter().filter(|(_, asked)| asked.deadline <= now).map(|(id, _)| *id).collect();
        for id in late {
            if let Some(asked) = self.asked.remove(&id) {
                self.missing.insert(asked.room, now);
            }
        }
        let due: Vec<usize> = self.missing.iter().filter(|(_, at)| **at <= now).map(|(room, _)| *room).collect();
        for room in due {
            self.missing.remove(&room);
            self.join(wire, room);
        }
    }

    fn join(&mut self, wire: &mut Wire, room: usize) {
        let since = if self.broken.contains(&room) { None } else { self.cursors.get(&room).cloned() };
        let name = &self.me.rooms[room];
        let argument = match &since {
            Some(at) => serde_json::json!({ "room": name, "history": { "since": at.offset, "epoch": at.epoch } }),
            None if self.broken.contains(&room) => serde_json::json!({ "room": name, "history": { "last": LAST } }),
            None => serde_json::json!({ "room": name }),
        };
        self.next_question += 1;
        wire.say(&question(self.next_question, "room:join", &argument));
        let deadline = Instant::now() + ANSWER_PATIENCE;
        self.asked.insert(self.next_question, Asked { room, since, deadline });
    }

    fn handle(&mut self, packet: Packet) {
        match packet {
            Packet::Message { room, mid } => self.say(What::Received { room, mid }),
            Packet::Gap { room, at } => {
                let number = self.me.rooms.iter().position(|name| *name == room);
                self.say(What::Gap { room, at });
                if let Some(number) = number {
                    self.broken.push(number);
                    self.missing.insert(number, Instant::now());
                }
            }
            Packet::Ack { id, answer } => {
                if let Some(asked) = self.asked.remove(&id) {
                    self.answered(asked, answer);
                }
            }
            Packet::Other => {}
        }
    }

    fn answered(&mut self, asked: Asked, answer: Result<Answer, Refusal>) {
        let Asked { room, since, .. } = asked;
        match answer {
            Ok(Answer { at: Some(at), recovered, items, .. }) => {
                self.broken.retain(|broken| *broken != room);
                self.cursors.insert(room, at.clone());
                // Messages of earlier rounds are not judged: whoever joined then is gone.
                let items = items.into_iter().filter(|item| item.mid.starts_with(&self.stage.prefix)).collect();
                self.say(What::Joined { room: self.me.rooms[room].clone(), at, since, recovered, items });
            }
            Ok(_) => {
                self.missing.insert(room, Instant::now() + RETRY);
            }
            Err(Refusal { retry_ms, .. }) => {
                let wait = retry_ms.map_or(RETRY, Duration::from_millis);
                self.missing.insert(room, Instant::now() + wait);
            }
        }
    }
}
