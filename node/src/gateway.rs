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
    slot::{Census, Resume, Slots, Stamp, Want},
};
use persistence::Record;
use protocol::sid::Sid;
use slab::Slab;
use tokio::sync::oneshot;

use crate::{
    clock,
    connection::Connections,
    context::Context,
    forward::Forwarded,
    handler::{Refused, Then},
    key::ConnKey,
    message::Message,
    room::{RoomId, Rooms},
    tally::Tally,
    wire::Line,
};

mod answers;
mod application;
mod asks;
mod direct;
mod drain;
mod fanout;
mod inbox;
mod limits;
mod orders;
mod presence;
mod sessions;
mod sockets;
mod store;
mod surveys;
mod turn;
mod verbs;

pub use asks::AskError;
pub(crate) use asks::Waiter;
pub(crate) use direct::Errand;
pub(crate) use orders::{Carry, Giver};
pub use surveys::Answers;
pub(crate) use surveys::{Back, Report, Survey};

/// The socket in whose name something is asked; another one may have its place when the answer comes.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) key: ConnKey,
    pub(crate) namespace: ByteString,
    /// The id its client sees.
    pub(crate) socket: ByteString,
}

/// A question of this shard that is not answered.
struct Pending {
    asker: Asker,
    then: Then,
    question: Question,
}

/// What was asked.
#[derive(Debug)]
enum Question {
    Publish,
    Join(JoinQuestion),
    History,
    Presence,
    /// Sockets are told about.
    Sockets,
    /// Something is done with sockets.
    Reach,
    /// Several others, `left` of which are not answered.
    Union {
        left: usize,
        refused: Option<Refused>,
    },
    /// Something that needed nobody's answer.
    Decided,
}

#[derive(Clone, Copy, Debug)]
struct JoinQuestion {
    room: RoomId,
    /// History was asked for.
    history: bool,
    /// History comes as events instead of in the answer.
    replay: bool,
    /// The socket shows itself and is told who else does.
    present: bool,
    /// The socket left, or went, before the answer.
    cancelled: bool,
}

/// What the open questions of one connection may weigh; beyond it the next is refused as `rate_limited`.
const OPEN_MAX: usize = 4_096;
/// What a question weighs that is answered with history or members: 32 of them may be open.
const HISTORY_WEIGHT: usize = 128;

impl Question {
    fn weight(&self) -> usize {
        match self {
            Question::Publish => 1,
            Question::Join(JoinQuestion { history: true, .. } | JoinQuestion { present: true, .. }) => HISTORY_WEIGHT,
            Question::Join(JoinQuestion { .. }) => 1,
            Question::History | Question::Presence | Question::Sockets | Question::Reach => HISTORY_WEIGHT,
            Question::Union { .. } | Question::Decided => 0,
        }
    }
}

/// How a socket enters a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) want: Want,
    /// The past comes as events instead of in the answer.
    pub(crate) replay: bool,
    /// It shows itself and is told who else does.
    pub(crate) present: bool,
}

/// How far a program sends a client away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Out of the namespace.
    Namespace,
    /// Out of the door.
    Connection,
}

/// The name of the room that every socket of a namespace is in. No client can say it: names have at least one byte.
pub(crate) const EVERYONE: &str = "";

/// What the shard's driver has to start after a turn.
#[derive(Debug)]
pub(crate) enum Task {
    /// Call `handle_writable` when the socket takes bytes again.
    AwaitWritable(ConnKey, Rc<Line>),
    /// Carry out an order.
    Carry(Carry),
    /// Ask a peer; the answer is for `handle_fetched`.
    Fetch { read: u64, from: NodeId, request: Bytes },
    /// Serve a client whose request came to another node.
    Serve(Forwarded),
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
    /// Questions whose answer is there and not told yet.
    decided: Vec<(u64, Result<Stamp, Refused>)>,
    /// What clients were asked.
    asks: asks::Asks,
    /// What many clients were asked for a program of this shard.
    surveys: surveys::Surveys,
    /// Joins that orders asked for.
    joining: Slab<orders::Joining>,
    /// Sockets that the program sends away when its call has returned.
    leaving: Vec<(Asker, Leaving)>,
    timers: BinaryHeap<Reverse<(Instant, ConnKey)>>,
    dirty: Vec<ConnKey>,
    broken: Vec<(ConnKey, protocol::engine::session::CloseReason)>,
    /// Peers' requests by the name the slots know them by.
    requests: Slab<mesh::Responder>,
    outgoing: Vec<Vec<Message>>,
    appends: Vec<Record>,
    sends: Vec<(NodeId, u8, Bytes)>,
    /// What goes to peers if there is room for it.
    tosses: Vec<(NodeId, u8, Bytes)>,
    tasks: Vec<Task>,
    draining: Option<drain::Drain>,
    /// Who wants to know what became of the slots.
    census_asked: Vec<oneshot::Sender<Census>>,
    tally: Tally,
    started: Instant,
    /// When the last turn was.
    turned: Instant,
    counted: turn::Counted,
    /// When something was last given up for memory.
    relieved: Option<Instant>,
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
            decided: Vec::new(),
            asks: asks::Asks::default(),
            surveys: surveys::Surveys::default(),
            joining: Slab::new(),
            leaving: Vec::new(),
            timers: BinaryHeap::new(),
            dirty: Vec::new(),
            broken: Vec::new(),
            requests: Slab::new(),
            outgoing,
            appends: Vec::new(),
            sends: Vec::new(),
            tosses: Vec::new(),
            tasks: Vec::new(),
            draining: None,
            census_asked: Vec::new(),
            tally: Tally::default(),
            started: clock::now(),
            turned: clock::now(),
            counted: turn::Counted::default(),
            relieved: None,
        }
    }

    /// What a clean stop has to keep of this shard's slots.
    pub(crate) fn to_resume(&self) -> BTreeMap<u16, Resume> {
        self.slots.to_resume()
    }

    /// A question was answered.
    fn close_question(&mut self, key: ConnKey, question: &Question) {
        if let Some(open) = self.open.get_mut(&key) {
            *open = open.saturating_sub(question.weight());
            if *open == 0 {
                self.open.remove(&key);
            }
        }
    }
}

/// Answers somebody who may have gone away meanwhile; then there is nobody to tell.
fn reply<T>(to: oneshot::Sender<T>, answer: T) {
    let _ = to.send(answer);
}
