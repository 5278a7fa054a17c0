//! A client that publishes to its rooms, one message at a time to each, and does not rest until every one has its answer.
//!
//! Invariants: a message has one `id`, whatever happens; the next one to a room leaves only when the last has an answer for
//! good, so that the order of a publisher is its numbers; a lost connection or answer is recorded as unknown and the message
//! sent again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use crate::packet::{Answer, Packet, Refusal, publish, question};
use crate::record::What;
use crate::stage::{Phase, Stage};
use crate::wire::{Wire, WireError};

/// How long an answer may take: longer than a node waits for an owner (5 s).
const ANSWER_PATIENCE: Duration = Duration::from_secs(8);
/// Pause before a node is tried again, and before a refused message is.
const RETRY: Duration = Duration::from_millis(100);

/// What a publisher is.
pub(crate) struct Publisher {
    pub(crate) name: String,
    /// The node it likes best.
    pub(crate) home: usize,
    pub(crate) rooms: Vec<String>,
    /// Time between two messages, if there is a room without one on its way.
    pub(crate) pace: Duration,
}

/// A message without an answer for good.
struct Pending {
    mid: String,
    question: u64,
    /// When to say it again; in the future while an answer is awaited.
    again: Instant,
    /// Whether an answer is awaited.
    asked: bool,
}

struct State {
    me: Publisher,
    stage: Rc<Stage>,
    numbers: Vec<u64>,
    pending: BTreeMap<usize, Pending>,
    next_room: usize,
    next_question: u64,
    open: Rc<Cell<usize>>,
}

/// Publishes until the round is over.
pub(crate) async fn run(me: Publisher, stage: Rc<Stage>) {
    let (mut phase, open) = (stage.phase(), stage.counter());
    let numbers = vec![0; me.rooms.len()];
    let mut state = State { me, stage, numbers, pending: BTreeMap::new(), next_room: 0, next_question: 0, open };
    let mut attempt = 0;
    loop {
        let Some(door) = state.stage.door(state.me.home, attempt) else { return };
        let served = tokio::select! {
            served = state.serve(&door) => served,
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
        };
        let Err(error) = served;
        state.lose(&error.to_string());
        attempt += 1;
        sleep(RETRY).await;
    }
}

impl State {
    fn say(&self, what: What) {
        self.stage.recorder.add(&self.me.name, what);
    }

    fn room(&self, index: usize) -> String {
        self.me.rooms[index].clone()
    }

    /// One connection until it breaks.
    async fn serve(&mut self, door: &crate::stage::Door) -> Result<std::convert::Infallible, WireError> {
        let mut wire = Wire::connect(door.address).await?;
        self.say(What::Connected { node: door.name.clone() });
        let now = Instant::now();
        self.pending.values_mut().for_each(|pending| pending.again = now);
        let phase = self.stage.phase();
        let mut tick = interval(self.me.pace);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.repeat_due(&mut wire);
            let due = self.pending.values().map(|pending| pending.again).min().unwrap_or(now + ANSWER_PATIENCE * 1000);
            tokio::select! {
                packet = wire.packet() => {
                    if let Packet::Ack { id, answer } = Packet::read(&packet?) {
                        self.answered(id, answer);
                    }
                }
                _ = tick.tick() => {
                    if *phase.borrow() == Phase::Burst {
                        self.publish_next(&mut wire);
                    }
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// The next room without a message on its way gets one.
    fn publish_next(&mut self, wire: &mut Wire) {
        let rooms = self.me.rooms.len();
        let free = (0..rooms).map(|step| (self.next_room + step) % rooms).find(|room| !self.pending.contains_key(room));
        let Some(room) = free else { return };
        self.next_room = room + 1;
        self.numbers[room] += 1;
        let mid = format!("{}.{}.{}.{}", self.stage.prefix, self.me.name, self.me.rooms[room], self.numbers[room]);
        let pending = Pending { mid, question: 0, again: Instant::now(), asked: false };
        self.pending.insert(room, pending);
        self.open.set(self.pending.len());
        self.send(wire, room);
    }

    fn repeat_due(&mut self, wire: &mut Wire) {
        let now = Instant::now();
        let due: Vec<usize> =
            self.pending.iter().filter(|(_, pending)| pending.again <= now).map(|(room, _)| *room).collect();
        for room in due {
            if let Some(pending) = self.pending.get(&room).filter(|pending| pending.asked) {
                let why = "no answer".to_owned();
                self.say(What::Unknown { room: self.room(room), mid: pending.mid.clone(), why });
            }
            self.send(wire, room);
        }
    }

    fn send(&mut self, wire: &mut Wire, room: usize) {
        let name = self.room(room);
        self.next_question += 1;
        let Some(pending) = self.pending.get_mut(&room) else { return };
        (pending.question, pending.asked) = (self.next_question, true);
        pending.again = Instant::now() + ANSWER_PATIENCE;
        let mid = pending.mid.clone();
        wire.say(&question(self.next_question, "room:publish", &publish(&name, &mid)));
        self.say(What::Publish { room: name, mid });
    }

    fn answered(&mut self, question: u64, answer: Result<Answer, Refusal>) {
        let Some(room) = self.pending.iter().find(|(_, pending)| pending.question == question).map(|(room, _)| *room)
        else {
            return;
        };
        let (name, mid) = (self.room(room), self.pending[&room].mid.clone());
        let mut again = None;
        match answer {
            Ok(Answer { at: Some(at), .. }) => self.say(What::Acked { room: name, mid, at }),
            Ok(_) => self.say(What::Unknown { room: name, mid, why: "an answer without a place".to_owned() }),
            Err(Refusal { code, retry_ms }) => {
                let wait = retry_ms.map_or(RETRY, Duration::from_millis);
                match code.as_str() {
                    "timeout" | "internal" => {
                        self.say(What::Unknown { room: name, mid, why: code });
                        again = Some(wait);
                    }
                    _ => {
                        let later = ["overloaded", "draining", "rate_limited", "storage_full", "no_quorum"];
                        again = later.contains(&code.as_str()).then_some(wait);
                        self.say(What::Refused { room: name, mid, code });
                    }
                }
            }
        }
        match again {
            Some(wait) => {
                if let Some(pending) = self.pending.get_mut(&room) {
                    (pending.asked, pending.again) = (false, Instant::now() + wait);
                }
            }
            None => {
                self.pending.remove(&room);
            }
        }
        self.open.set(self.pending.len());
    }

    fn lose(&mut self, why: &str) {
        self.say(What::Disconnected { why: why.to_owned() });
        let lost: Vec<(usize, String)> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.asked)
            .map(|(room, pending)| (*room, pending.mid.clone()))
            .collect();
        for (room, mid) in lost {
            self.say(What::Unknown { room: self.room(room), mid, why: why.to_owned() });
        }
        self.pending.values_mut().for_each(|pending| pending.asked = false);
    }
}
