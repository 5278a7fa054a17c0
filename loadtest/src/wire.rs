//! What the coordinator and its workers say to each other: one JSON value a line, over the worker's stdin and stdout.
//!
//! The conversation: `Setup`, then for every ramp `Grow` → `Grown`, for every hold `Begin` → `Armed`, `Go` → (`Tick`s)
//! `Published`, `Settle` → `Settled`. `Armed` from all before `Go` to any: no message can arrive at a member that has
//! not reset its counters. A worker ends when its stdin does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::client::{Dialect, Transport};
use crate::stats::Latency;

/// From the coordinator to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// First, once: who you are and what the whole test looks like.
    Setup(Box<Spec>),
    /// Be part of a test with `members` members in all within `over_ns`.
    Grow {
        /// Members in the whole test; each worker knows its share.
        members: u32,
        /// How long the change takes.
        over_ns: u64,
    },
    /// Forget what was counted and be ready to publish and to receive.
    Begin(Phase),
    /// Publish from `start_ns` on.
    Go {
        /// [`crate::clock::now_ns`] of the first message.
        start_ns: u64,
    },
    /// Stop publishing now.
    Halt,
    /// Nothing is published any more and everything had time to arrive: compare with what was sent.
    Settle(Vec<Account>),
}

/// From a worker to the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Notice {
    /// The answer to `Grow`, when everyone has joined, left or given up.
    Grown(Box<Grown>),
    /// The answer to `Begin`.
    Armed,
    /// Once a second, and whenever the worker falls silent.
    Tick(Box<Tick>),
    /// Publishing has ended and every answer came or was waited for.
    Published(Box<Published>),
    /// The answer to `Settle`.
    Settled(Box<Settled>),
    /// The worker cannot go on and ends.
    Fatal(String),
}

/// Everything a worker needs to know about the test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// This worker's number.
    pub(crate) worker: u32,
    /// How many workers there are. Member and publisher `i` belong to worker `i % workers`.
    pub(crate) workers: u32,
    /// Servers, resolved. Member and publisher `i` talk to target `i % targets`.
    pub(crate) targets: Vec<SocketAddr>,
    /// Local addresses to connect from, in turn; empty lets the kernel choose.
    pub(crate) sources: Vec<IpAddr>,
    /// Events to speak.
    pub(crate) dialect: Dialect,
    /// Transport to speak them over.
    pub(crate) transport: Transport,
    /// `/` or `/name`.
    pub(crate) namespace: String,
    /// Room name, followed by a number when there are several.
    pub(crate) room: String,
    /// How many rooms. Publisher `i` publishes to room `i % rooms`; member `i` is in room `(i / targets) % rooms`.
    pub(crate) rooms: u32,
    /// Publishers in the whole test; they are connections of their own and no members.
    pub(crate) publishers: u16,
    /// Size of every payload in bytes.
    pub(crate) payload: usize,
    /// How many history items a member asks for when it joins.
    pub(crate) history: u32,
}

impl Spec {
    /// The target of member or publisher `index`.
    pub(crate) fn target(&self, index: u32) -> usize {
        index as usize % self.targets.len().max(1)
    }

    /// The room of member `index`: consecutive members differ in target first, so that every room is on every target.
    pub(crate) fn room_of_member(&self, index: u32) -> u32 {
        let targets = u32::try_from(self.targets.len()).unwrap_or(1).max(1);
        (index / targets) % self.rooms.max(1)
    }

    /// The room of publisher `index`.
    pub(crate) fn room_of_publisher(&self, index: u16) -> u32 {
        u32::from(index) % self.rooms.max(1)
    }

    /// Which of its room's publishers publisher `index` is.
    pub(crate) fn rank_in_room(&self, index: u16) -> usize {
        usize::from(index) / self.rooms.max(1) as usize
    }

    /// How many publishers a room has at most.
    pub(crate) fn publishers_per_room(&self) -> usize {
        usize::from(self.publishers).div_ceil(self.rooms.max(1) as usize)
    }

    /// The name of room `index`.
    pub(crate) fn room_name(&self, index: u32) -> String {
        if self.rooms <= 1 { self.room.clone() } else { format!("{}-{index}", self.room) }
    }

    /// How many of the first `total` members or publishers belong to this worker.
    pub(crate) fn share(&self, total: u32) -> u32 {
        (total + self.workers - 1 - self.worker) / self.workers
    }
}

/// One hold of the plan.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// Stamped into every payload.
    pub(crate) run: u32,
    /// When messages are published.
    pub(crate) pace: Pace,
    /// For how long.
    pub(crate) duration_ns: u64,
}

/// When the next message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// Open loop: so many a second over all publishers, whatever the server does.
    Open {
        /// Messages per second.
        per_second: f64,
    },
    /// Closed loop: each publisher keeps this many on the way.
    Closed {
        /// Messages per publisher.
        outstanding: u32,
    },
}

/// How a ramp went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Grown {
    /// Members of this worker that are joined now.
    pub(crate) joined: u32,
    /// Members and publishers that gave up.
    pub(crate) failed: u32,
    /// Connection attempts that were repeated.
    pub(crate) retries: u64,
    /// Join requests that were repeated because no answer came.
    pub(crate) joins_resent: u64,
    /// The first few reasons for failures, for people.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// TCP connect to Socket.IO CONNECT, of this ramp.
    pub(crate) connect: Latency,
    /// Join to its answer, of this ramp.
    pub(crate) join: Latency,
    /// Fewest and most history items in a join answer of this ramp, when history was asked for.
    pub(crate) history: Option<(u32, u32)>,
}

/// What happened since the last tick, and totals of the phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// When the worker said so, so that rates do not depend on when it was heard.
    pub(crate) at_ns: u64,
    /// Members joined now.
    pub(crate) joined: u32,
    /// Messages published in this phase.
    pub(crate) published: u64,
    /// Messages received for the first time in this phase.
    pub(crate) delivered: u64,
    /// Members lost since they joined, over the whole test.
    pub(crate) disconnects: u64,
    /// Duplicates in this phase.
    pub(crate) duplicated: u64,
    /// Late ones in this phase.
    pub(crate) reordered: u64,
    /// Intended send time to arrival, since the last tick.
    pub(crate) deliver: Latency,
}

/// What one publisher did in a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Its number in the whole test.
    pub(crate) publisher: u16,
    /// Messages sent, numbered from 0.
    pub(crate) sent: u32,
    /// Those that were refused or never answered, ascending: members are not owed them.
    pub(crate) refused: Vec<u32>,
}

/// The sending half of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    /// One per publisher of this worker.
    pub(crate) accounts: Vec<Account>,
    /// Intended to actual send time.
    pub(crate) slip: Latency,
    /// Intended send time to answer.
    pub(crate) publish: Latency,
    /// Messages that never got an answer.
    pub(crate) unanswered: u64,
    /// Answers whose offset did not rise within an epoch.
    pub(crate) offsets_back: u64,
    /// Times an answer had another epoch than the one before.
    pub(crate) epochs_changed: u64,
    /// Times a closed loop stood still and gave up waiting for one message.
    pub(crate) stalls: u64,
    /// Refusals by their code.
    pub(crate) codes: BTreeMap<String, u64>,
    /// Processor time of this worker while it published.
    pub(crate) cpu_ns: u64,
    /// How long it published and waited for answers.
    pub(crate) window_ns: u64,
    /// Messages received for the first time while it published.
    pub(crate) delivered: u64,
}

/// The receiving half of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// Members that were there from the beginning to the end.
    pub(crate) members: u32,
    /// Messages that were new to their member.
    pub(crate) delivered: u64,
    /// Messages that never came, over all members that stayed.
    pub(crate) lost: u64,
    /// Messages that came again.
    pub(crate) duplicated: u64,
    /// Messages that came after a later one of the same publisher.
    pub(crate) reordered: u64,
    /// Messages of an earlier phase or of nobody we know.
    pub(crate) foreign: u64,
    /// Connections that ended during the phase.
    pub(crate) disconnects: u64,
    /// Latency where member and publisher have the same target.
    pub(crate) local: Latency,
    /// Latency where they have not.
    pub(crate) remote: Latency,
    /// Per room, how many members have which order hash.
    pub(crate) orders: BTreeMap<u32, BTreeMap<u64, u32>>,
    /// Per publisher and message, microseconds until the last of this worker's members had it.
    pub(crate) slowest: BTreeMap<u16, Vec<u32>>,
}
