//! The slots one shard of one node takes part in: order, interest, late joins and their history, as a value.
//!
//! A slot is owned by one node; there it gets its order (`owner`). Every other node that has members in one of its rooms
//! follows it (`follower`). This value is both, for all slots with `slot % shards == shard`; the shard's driver feeds it
//! and performs its outputs in order.
//!
//! Invariants:
//! - outputs are performed in the order they are polled: a local shard that gets `Answer::Joined` before a `Deliver` is a
//!   member from exactly that point, so history and live frames meet without a gap and without a repeat;
//! - a frame is appended before it is read back, and released only by the slot's owner, when its replica holds it
//!   (`keeping`); who is owner and who replica is decided by votes (`terms`);
//! - where continuity cannot be proved a slot starts a new lineage, which every live member is told (`Output::Gap`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    LANES, NodeId, Table,
    room::RoomKey,
    wire::{
        message::{Frame, Refusal},
        triple::{Term, TermId},
    },
};

mod book;
mod census;
mod copying;
mod dedupe;
mod digest;
mod early;
mod follow;
mod follower;
mod heal;
mod history;
mod keeping;
mod limits;
mod lives;
mod log;
mod placing;
mod presence;
mod publish;
mod reading;
mod resume;
mod roles;
mod seat;
mod seating;
mod shards;
mod starts;
mod terms;
#[cfg(test)]
mod tests;
mod tick;
mod volatile;

use book::{Book, Storage};
pub use census::{COPIES, Census};
use copying::Scanner;
#[cfg(fuzzing)]
pub(crate) use copying::assert_one_page;
use follower::Follower;
pub use history::{Found, History, Scanned, Want};
pub use limits::{Keep, Limits, Retention};
use presence::Presence;
#[cfg(fuzzing)]
pub(crate) use presence::assert_one_form;
pub use presence::{Change, Member, Roster};
use reading::Reading;
pub use resume::Resume;
use seat::Seat;
use shards::Shards;

/// Which slots these are and whose.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Its generation.
    pub generation: u64,
    /// This shard.
    pub shard: u8,
    /// Shards of the node; slots with `slot % shards == shard` are here.
    pub shards: u8,
    /// Sizes and times.
    pub limits: Limits,
    /// Where new lineages start from; random per process.
    pub seed: u64,
    /// Slots that go on where a clean stop left them; empty unless the node is a cluster of its own.
    pub resume: BTreeMap<u16, Resume>,
    /// When this process started, Unix milliseconds: nothing in `resume` is newer, so from here its retention counts.
    pub started_ms: u64,
    /// The highest `n` the store holds per slot: new lineages count on from there.
    pub heads: BTreeMap<u16, u64>,
}

/// Who waits for an answer: a shard of this node, and its own name for the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The asking shard.
    pub shard: u8,
    /// Its token.
    pub token: u64,
}

/// The place a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The slot's lineage.
    pub lineage: u64,
    /// The offset; 0 for a volatile message.
    pub n: u64,
}

/// A message to publish, encoded once by its origin.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to.
    pub room: RoomKey,
    /// `wire::message::FLAG_*`.
    pub flags: u16,
    /// Idempotency key; empty = none.
    pub id: ByteString,
    /// The publisher's user; empty = anonymous.
    pub from: ByteString,
    /// Rooms and sockets left out.
    pub except: Vec<ByteString>,
    /// The bytes members receive.
    pub payload: Bytes,
}

/// An answer to a shard.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `handle_publish`.
    Published(Result<Stamp, Refusal>),
    /// To `handle_join`: from this output on the shard receives the room's frames.
    Joined(Result<History, Refusal>),
    /// To `handle_history`.
    History(Result<History, Refusal>),
    /// To `handle_presence`.
    Presence(Roster),
}

/// What the driver has to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Hand the frame to the members on this shard of this node.
    Deliver {
        /// The shard.
        shard: u8,
        /// The frame.
        frame: Arc<Frame>,
    },
    /// Tell the members on this shard that continuity was lost (`room:gap`).
    Gap {
        /// The shard.
        shard: u8,
        /// The room.
        room: RoomKey,
        /// Where it goes on.
        stamp: Stamp,
    },
    /// Tell the members on this shard that show themselves who came or left.
    Presence {
        /// The shard.
        shard: u8,
        /// The room.
        room: RoomKey,
        /// Who.
        change: Change,
    },
    /// Answer a shard.
    Answer {
        /// Whom.
        ask: Ask,
        /// What.
        answer: Answer,
    },
    /// Give the bytes to the lane of the peer; `handle_send_failed` if it does not take them.
    Send {
        /// The peer.
        to: NodeId,
        /// `slot % LANES`.
        lane: u8,
        /// One application frame.
        frame: Bytes,
    },
    /// Give the bytes to the lane of the peer if it has room to spare; nobody is told if not.
    Toss {
        /// The peer.
        to: NodeId,
        /// `slot % LANES`.
        lane: u8,
        /// One application frame.
        frame: Bytes,
    },
    /// Keep the frame.
    Append {
        /// The stamped frame.
        frame: Arc<Frame>,
        /// Its encoding.
        bytes: Bytes,
    },
    /// Read from the store: frames with `after < n ≤ upto`, from one end of that range; answer with `handle_read`.
    Read {
        /// Name of the question.
        read: u64,
        /// The room.
        room: RoomKey,
        /// Exclusive.
        after: u64,
        /// Inclusive.
        upto: u64,
        /// At most so many.
        count: u32,
        /// The newest of the range; else the oldest.
        newest: bool,
    },
    /// Ask the peer (`wire::request::Request`); answer with `handle_fetched`.
    Fetch {
        /// Name of the question.
        read: u64,
        /// The peer.
        from: NodeId,
        /// The encoded request.
        request: Bytes,
    },
    /// Read all that the store holds of a slot, in the order of writing; answer with `handle_scanned`.
    Scan {
        /// Name of the question.
        scan: u64,
        /// The slot.
        slot: u16,
        /// Where to go on, as the last answer said; 0 = from the beginning.
        after: u64,
    },
    /// What the store holds of the slot is not to be believed any more: forget all that was appended before.
    Forget {
        /// The slot.
        slot: u16,
    },
    /// Answer a peer's request.
    Respond {
        /// The driver's name for the request.
        request: u64,
        /// The encoded answer.
        body: Bytes,
    },
}

/// A join that waits for the owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingJoin {
    ask: Ask,
    want: Want,
    deadline: Instant,
    /// The member shows itself, and is told who is there.
    present: bool,
    /// It knows more of the room than this node did, so the owner was asked where the room stands.
    checked: bool,
}

impl PendingJoin {
    fn new(ask: Ask, want: Want, deadline: Instant, present: bool) -> PendingJoin {
        PendingJoin { ask, want, deadline, present, checked: false }
    }

    /// It was shown frames of this lineage that come after `n`.
    fn is_ahead_of(&self, lineage: Option<u64>, n: u64) -> bool {
        matches!(self.want, Want::Since { after, lineage: of } if of == lineage && after > n)
    }
}

#[derive(Debug)]
enum Slot {
    Owner(Book),
    Follower(Follower),
}

/// All slots of one shard of one node. See the module.
#[derive(Debug)]
pub struct Slots {
    config: Config,
    table: Option<Arc<Table>>,
    links: BTreeSet<NodeId>,
    /// The process at the other end of each link.
    generations: BTreeMap<NodeId, u64>,
    /// Those that own slots, and those that go: their generations.
    members: BTreeMap<NodeId, u64>,
    leaving: BTreeMap<NodeId, u64>,
    /// When each peer was heard last.
    heard: BTreeMap<NodeId, Instant>,
    /// Which shards of each peer have told their terms in which lanes, and how many shards it has.
    told: BTreeMap<NodeId, (BTreeSet<(u8, u8)>, u8)>,
    /// Everybody that could know of a slot's term has said so, or had its time.
    settled: bool,
    unsettled_since: Option<Instant>,
    /// When the first view came, and whether that was a moment ago.
    viewed_at: Option<Instant>,
    young: bool,
    ticked: Option<Instant>,
    beat_at: Option<Instant>,
    /// The newest term of every slot that this node has heard of, and its part in it.
    seats: BTreeMap<u16, Seat>,
    /// The last terms of lineages that this node went away from.
    left: BTreeMap<u16, VecDeque<TermId>>,
    /// Other lineages of slots that this node leads.
    foreign: BTreeMap<u16, Term>,
    /// Slots in which something is to be said at the end of the turn.
    due_acks: BTreeSet<u16>,
    due_shown: BTreeSet<u16>,
    due_leases: BTreeSet<u16>,
    /// Questions for pages of a copy, and to the store for all of a slot.
    copying: HashMap<u64, u16>,
    scans: HashMap<u64, Scanner>,
    owners_changed: bool,
    ticks: u32,
    /// The time at the last look at the seats.
    now: Option<Instant>,
    now_ms: u64,
    slots: BTreeMap<u16, Slot>,
    readings: HashMap<u64, Reading>,
    presence: Presence,
    next_read: u64,
    next_oseq: u64,
    lineages: u64,
    /// How often this life brought frames from one lineage to another.
    merges: u64,
    /// Slots where something waits for an owner or a linger ends.
    attention: BTreeSet<u16>,
    /// Peers that must be told that frames for them were dropped, and in which lane.
    resync: BTreeSet<(NodeId, u8)>,
    sweep_at: Option<Instant>,
    sweep_turn: u16,
    /// Whether what is stamped here can be kept.
    storage: Storage,
    released_for_peers: u64,
    /// Volatile messages that had no way to a node.
    unreached: u64,
    outputs: VecDeque<Output>,
}

impl Slots {
    /// No slot is open yet; each opens when it is first used.
    pub fn new(config: Config) -> Slots {
        let lineages = config.seed;
        Slots {
            presence: Presence::new(config.node, config.limits.ghost),
            config,
            table: None,
            links: BTreeSet::new(),
            generations: BTreeMap::new(),
            members: BTreeMap::new(),
            leaving: BTreeMap::new(),
            heard: BTreeMap::new(),
            told: BTreeMap::new(),
            settled: false,
            unsettled_since: None,
            viewed_at: None,
            young: true,
            ticked: None,
            beat_at: None,
            seats: BTreeMap::new(),
            left: BTreeMap::new(),
            foreign: BTreeMap::new(),
            due_acks: BTreeSet::new(),
            due_shown: BTreeSet::new(),
            due_leases: BTreeSet::new(),
            copying: HashMap::new(),
            scans: HashMap::new(),
            owners_changed: false,
            ticks: 0,
            now: None,
            now_ms: 0,
            slots: BTreeMap::new(),
            readings: HashMap::new(),
            next_read: 0,
            next_oseq: 0,
            lineages,
            merges: 0,
            attention: BTreeSet::new(),
            resync: BTreeSet::new(),
            sweep_at: None,
            sweep_turn: 0,
            storage: Storage::Ok,
            released_for_peers: 0,
            unreached: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether the store takes frames. While it does not, slots owned here refuse what would have to be kept, whoever
    /// publishes it (`Refusal::StorageFull`); repeats still get their first answer and volatile messages pass.
    pub fn set_storage(&mut self, ok: bool) {
        self.storage = if ok { Storage::Ok } else { Storage::Full };
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.say_due();
        }
        self.outputs.pop_front()
    }

    /// Messages of other nodes that were stamped here since the last call; repeats are not counted.
    pub fn take_released_for_peers(&mut self) -> u64 {
        std::mem::take(&mut self.released_for_peers)
    }

    /// Volatile messages that could not be sent to a node since the last call: no link, or nobody leads the slot.
    pub fn take_unreached(&mut self) -> u64 {
        std::mem::take(&mut self.unreached)
    }

    /// Rooms this shard asked other owners for.
    pub fn followed_rooms(&self) -> usize {
        let rooms = |slot: &Slot| match slot {
            Slot::Owner(_) => 0,
            Slot::Follower(follower) => follower.rooms.len(),
        };
        self.slots.values().map(rooms).sum()
    }

    /// What a clean stop writes down of each owned slot that was used; slots that were never opened keep theirs.
    pub fn to_resume(&self) -> BTreeMap<u16, Resume> {
        let mut resume = self.config.resume.clone();
        for (number, slot) in &self.slots {
            match slot {
                Slot::Owner(owner) => resume.insert(*number, owner.to_resume()),
                Slot::Follower(_) => resume.remove(number),
            };
        }
        resume
    }

    /// Whether `poll_output` has something.
    pub fn has_output(&self) -> bool {
        let due = [&self.due_acks, &self.due_shown, &self.due_leases];
        !self.outputs.is_empty() || due.into_iter().any(|due| !due.is_empty())
    }

    /// Who orders the slot: as terms say, or else as the ring has it.
    fn owner_of(&self, slot: u16) -> Option<NodeId> {
        let Some(table) = &self.table else { return Some(self.config.node) };
        let seats = self.seats.get(&slot).map(|seat| seat.term.triple);
        let holders = seats.into_iter().flat_map(|triple| [Some(triple.owner), triple.replica]).flatten();
        let holder = holders.into_iter().find(|life| !self.is_gone(*life));
        holder.map(|life| life.node).or_else(|| table.owner(slot))
    }

    fn slot(&mut self, number: u16) -> &mut Slot {
        if !self.slots.contains_key(&number) {
            if self.table.is_none() {
                let book = self.open(number);
                self.slots.insert(number, Slot::Owner(book));
            } else {
                let owner = self.owner_of(number);
                self.slots.insert(number, Slot::Follower(Follower::new(owner)));
                self.open_or_follow(number);
            }
        }
        // The entry exists: it was inserted above.
        self.slots.entry(number).or_insert_with(|| Slot::Follower(Follower::new(None)))
    }

    /// A slot of a node that has no others.
    fn open(&mut self, number: u16) -> Book {
        match self.config.resume.remove(&number) {
            Some(resume) => Book::resume(resume, self.config.started_ms),
            None => {
                let id = TermId { number: 1, lineage: self.mint_lineage() };
                self.blank(number, id)
            }
        }
    }

    /// A lineage no other process mints: a random start, stepped by an odd constant (a full-period sequence).
    fn mint_lineage(&mut self) -> u64 {
        self.lineages = self.lineages.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.lineages.max(1)
    }

    fn send(&mut self, to: NodeId, slot: u16, frame: Bytes) {
        if self.links.contains(&to) {
            let lane = lane_of(slot);
            self.outputs.push_back(Output::Send { to, lane, frame });
        }
    }

    fn answer(&mut self, ask: Ask, answer: Answer) {
        self.outputs.push_back(Output::Answer { ask, answer });
    }
}

/// The lane of a slot's frames.
fn lane_of(slot: u16) -> u8 {
    u8::try_from(slot % u16::from(LANES)).unwrap_or(0)
}
