//! One shard's gateway: clients on one side, rooms of the whole cluster on the other.
//!
//! This is the only struct that knows connections, rooms, slots and store, and its verbs are the product's: join, leave,
//! publish, read history. Everything in it happens on the shard's thread, in the order things arrived; what others must
//! do (tasks, other shards, the mesh, the store) leaves as batches at the end of a turn.
//!
//! Invariants:
//! - whoever asked is answered once: by the slot through `handle_answer`, or at once by a refusal;
//! - membership changes only between turns of a room, so that a newcomer sees exactly what comes after its answer;
//! - nothing here waits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use bytestring::ByteString;
use mesh::{
    NodeId,
    room::RoomKey,
    slot::{Answer, Ask, Publish, Resume, Slots, Want},
    wire::message::Refusal,
};
use persistence::Record;
use protocol::sid::Sid;
use slab::Slab;
use tokio::sync::oneshot;

use crate::{
    clock,
    connection::Connections,
    context::Context,
    key::ConnKey,
    message::Message,
    room::{RoomId, Rooms},
    tally::Tally,
    wire::Line,
};

mod answers;
mod application;
mod builtin;
mod drain;
mod fanout;
mod inbox;
mod sessions;
mod sockets;
mod turn;

/// The socket that asked something; another one may have its place when the answer comes.
#[derive(Clone, Debug)]
struct Asker {
    key: ConnKey,
    namespace: ByteString,
    socket: ByteString,
}

/// A question of this shard that a slot has not answered.
#[derive(Debug)]
struct Pending {
    asker: Asker,
    ack: Option<u64>,
    question: Question,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
enum Question {
    Publish,
    Join(JoinQuestion),
    History,
}

#[derive(Clone, Copy, Debug)]
struct JoinQuestion {
    room: RoomId,
    /// History was asked for.
    history: bool,
    /// History comes as events instead of in the answer.
    replay: bool,
    /// The socket left, or went, before the answer.
    cancelled: bool,
}

/// What the open questions of one connection may weigh; beyond it the next is refused as `rate_limited`.
const OPEN_MAX: usize = 4_096;
/// What a question weighs that is answered with history: 32 of them may be open.
const HISTORY_WEIGHT: usize = 128;

impl Question {
    fn weight(self) -> usize {
        match self {
            Question::Publish => 1,
            Question::Join(JoinQuestion { history, .. }) => {
                if history {
                    HISTORY_WEIGHT
                } else {
                    1
                }
            }
            Question::History => HISTORY_WEIGHT,
        }
    }
}

/// How a socket enters a room.
#[derive(Clone, Copy, Debug)]
struct Entry {
    ack: Option<u64>,
    want: Want,
    replay: bool,
}

/// The name of the room that every socket of a namespace is in. No client can say it: names have at least one byte.
const EVERYONE: &str = "";

/// What the shard's driver has to start after a turn.
#[derive(Debug)]
pub(crate) enum Task {
    /// Call `handle_writable` when the socket takes bytes again.
    AwaitWritable(ConnKey, Rc<Line>),
    /// Ask a peer; the answer is for `handle_fetched`.
    Fetch { read: u64, from: NodeId, request: Bytes },
    /// Read frames from this WebSocket until it ends.
    ReadWebSocket { key: ConnKey, line: Rc<Line>, rest: Bytes },
}

/// See the module.
pub(crate) struct Gateway {
    context: Arc<Context>,
    shard: u8,
    connections: Connections,
    sids: HashMap<Sid, ConnKey>,
    /// Sockets by their public id.
    sockets: HashMap<ByteString, ConnKey>,
    rooms: Rooms,
    slots: Slots,
    pending: Slab<Pending>,
    /// What the open questions of each connection weigh.
    open: HashMap<ConnKey, usize>,
    timers: BinaryHeap<Reverse<(Instant, ConnKey)>>,
    dirty: Vec<ConnKey>,
    broken: Vec<(ConnKey, protocol::engine::session::CloseReason)>,
    /// Peers' requests by the name the slots know them by.
    requests: Slab<mesh::Responder>,
    outgoing: Vec<Vec<Message>>,
    appends: Vec<Record>,
    sends: Vec<(NodeId, u8, Bytes)>,
    tasks: Vec<Task>,
    draining: Option<drain::Drain>,
    tally: Tally,
    /// When the last turn was.
    turned: Instant,
    counted: turn::Counted,
}

impl Gateway {
    /// A gateway without connections.
    pub(crate) fn new(context: Arc<Context>, shard: u8, slots: Slots) -> Gateway {
        let outgoing = context.shards.iter().map(|_| Vec::new()).collect();
        let rooms = Rooms::new(context.config.limits.queue_bytes.bytes());
        Gateway {
            context,
            shard,
            connections: Connections::default(),
            sids: HashMap::new(),
            sockets: HashMap::new(),
            rooms,
            slots,
            pending: Slab::new(),
            open: HashMap::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            broken: Vec::new(),
            requests: Slab::new(),
            outgoing,
            appends: Vec::new(),
            sends: Vec::new(),
            tasks: Vec::new(),
            draining: None,
            tally: Tally::default(),
            turned: clock::now(),
            counted: turn::Counted::default(),
        }
    }

    /// What a clean stop has to keep of this shard's slots.
    pub(crate) fn to_resume(&self) -> BTreeMap<u16, Resume> {
        self.slots.to_resume()
    }

    /// Publishes for a socket; answered through `handle_answer`.
    fn publish(&mut self, pending: Pending, publish: Publish, now: Instant, now_ms: u64) {
        let shard = self.context.shard_of_slot(publish.room.slot());
        if let Some(why) = self.refusal(shard) {
            return self.answer_now(pending, Answer::Published(Err(why)));
        }
        let ask = self.ask(pending);
        if shard == self.shard {
            self.slots.handle_publish(publish, ask, now, now_ms);
        } else {
            self.outgoing[usize::from(shard)].push(Message::Publish { publish, ask });
        }
    }

    /// Takes a socket into a room; it is a member from the slot's answer on.
    fn enter(&mut self, key: ConnKey, namespace: &ByteString, room: &RoomKey, how: Entry, now: Instant) {
        let Some(socket) = self.connections.get_mut(key).and_then(|connection| connection.socket_mut(namespace)) else {
            return;
        };
        let asker = Asker { key, namespace: namespace.clone(), socket: socket.id.clone() };
        let id = self.rooms.find_or_create(room);
        // `join` files the question under the next free token.
        socket.joining.push((id, self.pending.vacant_key() as u64));
        if let Some(room) = self.rooms.get_mut(id) {
            room.joining += 1;
        }
        let Entry { ack, want, replay } = how;
        let question = JoinQuestion { room: id, history: want != Want::Nothing, replay, cancelled: false };
        let pending = Pending { asker, ack, question: Question::Join(question) };
        self.join(pending, room, want, now, clock::wall_ms());
    }

    /// Asks the slot to take a socket in; answered through `handle_answer`, which also makes it a member.
    fn join(&mut self, pending: Pending, room: &RoomKey, want: Want, now: Instant, now_ms: u64) {
        let shard = self.context.shard_of_slot(room.slot());
        let ask = self.ask(pending);
        if shard == self.shard {
            self.slots.handle_join(room, want, ask, now, now_ms);
        } else {
            self.outgoing[usize::from(shard)].push(Message::Join { room: room.clone(), want, ask });
        }
    }

    /// Tells the slot that nobody on this shard is in the room any more.
    fn leave(&mut self, room: &RoomKey, now: Instant) {
        let shard = self.context.shard_of_slot(room.slot());
        if shard == self.shard {
            self.slots.handle_leave(room, self.shard, now);
        } else {
            self.outgoing[usize::from(shard)].push(Message::Leave { room: room.clone(), shard: self.shard });
        }
    }

    /// Reads history for a socket; answered through `handle_answer`.
    fn read_history(&mut self, pending: Pending, room: &RoomKey, want: Want, now_ms: u64) {
        let shard = self.context.shard_of_slot(room.slot());
        let ask = self.ask(pending);
        if shard == self.shard {
            self.slots.handle_history(room, want, ask, now_ms);
        } else {
            self.outgoing[usize::from(shard)].push(Message::History { room: room.clone(), want, ask });
        }
    }

    /// Why new work for `shard` is refused now, if it is.
    fn refusal(&self, shard: u8) -> Option<Refusal> {
        if self.draining.is_some() {
            return Some(Refusal::Draining);
        }
        let full = self.context.shards[usize::from(shard)].is_full();
        full.then_some(Refusal::Overloaded { retry_ms: 1_000 })
    }

    /// Whether a connection may ask one more question of this weight.
    fn may_ask(&self, key: ConnKey, question: Question) -> bool {
        self.open.get(&key).copied().unwrap_or(0) + question.weight() <= OPEN_MAX
    }

    fn ask(&mut self, pending: Pending) -> Ask {
        *self.open.entry(pending.asker.key).or_default() += pending.question.weight();
        Ask { shard: self.shard, token: self.pending.insert(pending) as u64 }
    }

    /// A question was answered.
    fn close_question(&mut self, key: ConnKey, question: Question) {
        if let Some(open) = self.open.get_mut(&key) {
            *open = open.saturating_sub(question.weight());
            if *open == 0 {
                self.open.remove(&key);
            }
        }
    }

    /// Answers without asking anybody.
    fn answer_now(&mut self, pending: Pending, answer: Answer) {
        let ask = self.ask(pending);
        self.handle_answer(ask.token, answer);
    }
}

/// Answers somebody who may have gone away meanwhile; then there is nobody to tell.
fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}
