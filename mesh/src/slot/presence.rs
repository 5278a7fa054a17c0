//! Presence: who is in a room and says so, kept by the slot's owner, seen alike by every node that asks.
//!
//! Of every room with presence each node has a [`Roll`](roll::Roll). A node is the single writer of its own members; the
//! owner lists what the nodes say and numbers every change; the other nodes list what the owner says. So everybody sees the
//! changes in one order, and a socket is listed before its join goes on.
//!
//! Invariants:
//! - what a roll lists changes together with what its node's members are told (`Effect::Tell`): a list and the notices
//!   after it always add up;
//! - whatever gets lost between two nodes is made good by saying everything again (`Said::Mine`), and what differs is
//!   told as changes;
//! - after a change of the view, or when words may be lost, owners hold their lists back for `SETTLE` until the nodes have
//!   said their members again; members nobody vouched for by then are ghosts (`ghosts`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use bytestring::ByteString;

use super::{Ask, PendingJoin, Shards};
use crate::{
    NodeId,
    room::RoomKey,
    wire::{
        message::{DecodeError, Refusal},
        presence::Said,
    },
};

mod follower;
mod ghosts;
mod hooks;
mod owner;
mod parts;
mod roll;

pub use hooks::Roster;
use parts::Parted;
#[cfg(fuzzing)]
pub(crate) use parts::assert_one_form;
use roll::{Crowded, Roll, Stream};

/// How long owners wait for what the other nodes say after a change of the view.
const SETTLE: Duration = Duration::from_secs(1);
/// How soon what waits is looked at again.
const RETRY: Duration = Duration::from_millis(250);
/// After how long without an answer everything is said again although nothing is known to have been lost.
const PATIENT: Duration = Duration::from_secs(1);

/// A member that shows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, unique in the cluster: a socket id.
    pub id: ByteString,
    /// What others see of it. Opaque here.
    pub body: ByteString,
}

/// A change of who is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub member: Member,
    /// Came; else left.
    pub joined: bool,
}

/// What follows from an input, to be performed in order.
#[derive(Debug)]
enum Effect {
    /// Say this to a node, in the lane of the room.
    Send { to: NodeId, room: RoomKey, bytes: Bytes },
    /// Tell the members on these shards.
    Tell { room: RoomKey, shards: Shards, change: Change },
    /// The member is listed: its join goes on.
    Proceed { room: RoomKey, join: PendingJoin },
    /// The join is refused.
    Refuse { ask: Ask, why: Refusal },
}

/// All rolls of one shard's slots. See the module.
#[derive(Debug)]
pub(crate) struct Presence {
    me: NodeId,
    /// How long ghosts stay.
    ghost: Duration,
    /// Nodes that cannot be reached, and when their members leave.
    ghosts: BTreeMap<NodeId, Instant>,
    /// The nodes of the view.
    here: BTreeSet<NodeId>,
    /// The process of each node that was last linked to.
    generations: BTreeMap<NodeId, u64>,
    rolls: HashMap<RoomKey, Roll>,
    /// Slots that another node led a moment ago, and until when others may know of members there that we do not.
    taken: BTreeMap<u16, Instant>,
    /// Owners hold their lists back until then.
    settle_at: Option<Instant>,
    /// Rooms where somebody waits for an owner.
    waiting: BTreeSet<RoomKey>,
    wake_at: Option<Instant>,
    /// Questions to owners about who is present, by the name of their reading.
    asked: HashMap<u64, (RoomKey, Ask)>,
    effects: VecDeque<Effect>,
}

impl Presence {
    pub(crate) fn new(me: NodeId, ghost: Duration) -> Presence {
        Presence {
            me,
            ghost,
            ghosts: BTreeMap::new(),
            here: BTreeSet::new(),
            generations: BTreeMap::new(),
            rolls: HashMap::new(),
            taken: BTreeMap::new(),
            settle_at: None,
            waiting: BTreeSet::new(),
            wake_at: None,
            asked: HashMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// The roll of a room, if need be a new one. Where another owner had one a moment ago, the others are heard first.
    fn roll(&mut self, room: &RoomKey, owner: Option<NodeId>, now: Instant) -> &mut Roll {
        let taken = owner == Some(self.me) && self.taken.get(&room.slot()).is_some_and(|until| now < *until);
        if taken && !self.rolls.contains_key(room) {
            self.settle_at.get_or_insert(now + SETTLE);
        }
        self.rolls.entry(room.clone()).or_insert_with(|| Roll::new(owner))
    }

    /// This node leads a slot that another one led.
    pub(super) fn take(&mut self, slot: u16, now: Instant) {
        self.taken.insert(slot, now + self.ghost);
    }

    /// A member of this node shows itself; its join proceeds when it is listed.
    fn enter(&mut self, room: &RoomKey, owner: Option<NodeId>, member: Member, join: PendingJoin, now: Instant) {
        let me = self.me;
        let roll = self.roll(room, owner, now);
        let is_new = roll.add_own(member.clone(), join.ask.shard);
        if roll.owner == Some(me) {
            if self.list(room, me, member.clone()) == Err(Crowded) {
                self.effects.push_back(Effect::Refuse { ask: join.ask, why: Refusal::LimitReached });
                return;
            }
        } else if is_new {
            match (roll.owner, roll.stream) {
                // The list that is on its way is older than this member: it is said in addition.
                (Some(owner), Stream::Following | Stream::Asking { asked_at: Some(_) }) => {
                    let (id, body) = (member.id.as_bytes(), member.body.as_bytes());
                    let bytes = Said::Enter { id, body }.encode(room);
                    self.effects.push_back(Effect::Send { to: owner, room: room.clone(), bytes });
                }
                (Some(_), Stream::Asking { asked_at: None }) => self.say_all(room, now),
                (None, _) => {}
            }
        }
        if let Some(roll) = self.rolls.get_mut(room) {
            roll.waiting.push((member.id, join));
        }
        self.wait(room, now);
        self.advance(room);
    }

    /// A member of this node is not present any more, or never will be.
    fn depart(&mut self, room: &RoomKey, id: &ByteString) {
        let me = self.me;
        let Some(roll) = self.rolls.get_mut(room) else { return };
        roll.remove_own(id);
        for join in roll.take_waiting(id) {
            let join = PendingJoin { present: false, ..join };
            self.effects.push_back(Effect::Proceed { room: room.clone(), join });
        }
        match roll.owner {
            Some(owner) if owner == me => self.unlist(room, id),
            Some(owner) => {
                let bytes = Said::Depart { id: id.as_bytes() }.encode(room);
                self.effects.push_back(Effect::Send { to: owner, room: room.clone(), bytes });
            }
            None => {}
        }
        self.forget_if_unused(room);
    }

    /// What a node says about a room that `owner` owns. `false` if this node cannot take it, and the other one has to say
    /// everything again, here or elsewhere. An error means that nothing changed.
    fn handle_said(
        &mut self,
        from: NodeId,
        room: &RoomKey,
        owner: Option<NodeId>,
        said: Said<'_>,
        now: Instant,
    ) -> Result<bool, DecodeError> {
        match said {
            Said::Enter { id, body } => Ok(self.handle_enter(from, room, member(id, body)?)),
            Said::Depart { id } => Ok(self.handle_depart(from, room, &name(id)?)),
            Said::Change { seq, node, id, body } => {
                let body = body.map(name).transpose()?;
                self.handle_change(from, room, seq, (NodeId(node), name(id)?, body), now);
                Ok(true)
            }
            Said::Crowded { id } => {
                self.handle_crowded(from, room, &name(id)?);
                Ok(true)
            }
            Said::Mine { part } => {
                if owner == Some(self.me) {
                    self.roll(room, owner, now);
                }
                Ok(self.handle_mine(from, room, Parted::decode(part)?, now))
            }
            Said::Elsewhere => {
                self.handle_elsewhere(from, room, now);
                Ok(true)
            }
            Said::List { seq, part } => {
                self.handle_list(from, room, seq, Parted::decode(part)?, now);
                Ok(true)
            }
        }
    }

    /// The slot's owner may be another, or may have forgotten us: rolls follow.
    fn handle_owners(&mut self, owner_of: impl Fn(u16) -> Option<NodeId>, alone: bool, now: Instant) {
        self.settle_at = if alone { Some(now) } else { Some(now + SETTLE) };
        let rooms: Vec<RoomKey> = self.rolls.keys().cloned().collect();
        for room in rooms {
            let owner = owner_of(room.slot());
            let Some(roll) = self.rolls.get_mut(&room).filter(|roll| roll.owner != owner) else { continue };
            let before = std::mem::replace(&mut roll.owner, owner);
            roll.begin_again();
            if let Some(to) = before.filter(|before| *before != self.me) {
                // It may not know yet that it is the owner no more, or be it again soon.
                let bytes = Said::Elsewhere.encode(&room);
                self.effects.push_back(Effect::Send { to, room: room.clone(), bytes });
            }
            if owner == Some(self.me) {
                self.vouch_for_own(&room);
            } else {
                self.say_all(&room, now);
            }
            self.forget_if_unused(&room);
        }
    }

    /// A node cannot be reached: its members are ghosts where we list them, and what it owns waits for it.
    fn handle_link_down(&mut self, node: NodeId, now: Instant) {
        let me = self.me;
        let owned = self.rolls.iter_mut().filter(|(_, roll)| roll.owner == Some(me));
        let rooms: Vec<RoomKey> = owned.map(|(room, _)| room.clone()).collect();
        for room in rooms {
            let Some(roll) = self.rolls.get_mut(&room) else { continue };
            roll.nodes.remove(&node);
            roll.owed.remove(&node);
            roll.incoming.forget(node);
            self.forget_if_unused(&room);
        }
        self.haunt(node, now);
        self.distrust(node, |_| true, now);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        // While others are to be heard no ghost leaves.
        let leave_at = self.ghosts.values().min().map(|at| self.settle_at.map_or(*at, |settle_at| settle_at.max(*at)));
        [self.wake_at, self.settle_at, leave_at].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.taken.retain(|_, until| now < *until);
        let settles = self.settle_at.is_some_and(|at| at <= now);
        self.settle_at = self.settle_at.filter(|_| !settles);
        // Ghosts leave before joins go on: a list is read when its join does, and must not be ahead of the notices.
        self.lay_ghosts(now);
        if settles {
            self.settle(now);
        }
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        self.wake_at = None;
        for room in std::mem::take(&mut self.waiting) {
            let Some(roll) = self.rolls.get_mut(&room) else { continue };
            let overdue = roll
                .take_overdue(now)
                .into_iter()
                .map(|join| Effect::Refuse { ask: join.ask, why: super::history::UNREACHABLE });
            self.effects.extend(overdue);
            if roll.is_due(now, PATIENT) {
                self.say_all(&room, now);
            }
            self.wait(&room, now);
        }
    }

    /// Lets joins go on whose member is listed, if the list is whole.
    fn advance(&mut self, room: &RoomKey) {
        let settled = self.settle_at.is_none();
        let Some(roll) = self.rolls.get_mut(room) else { return };
        let whole = if roll.owner == Some(self.me) { settled } else { roll.stream == Stream::Following };
        if whole {
            let ready = roll.take_ready().into_iter();
            self.effects.extend(ready.map(|join| Effect::Proceed { room: room.clone(), join }));
        }
    }

    /// Looks at the room again soon, if anything waits in it.
    fn wait(&mut self, room: &RoomKey, now: Instant) {
        let me = self.me;
        if self.rolls.get(room).is_some_and(|roll| roll.is_waiting(me)) {
            self.waiting.insert(room.clone());
            self.wake_at.get_or_insert(now + RETRY);
        }
    }

    fn forget_if_unused(&mut self, room: &RoomKey) {
        let me = self.me;
        if self.rolls.get(room).is_some_and(|roll| roll.is_unused(me)) {
            self.rolls.remove(room);
            self.waiting.remove(room);
        }
    }
}

fn name(bytes: &[u8]) -> Result<ByteString, DecodeError> {
    ByteString::try_from(Bytes::copy_from_slice(bytes)).map_err(|_| DecodeError::MalformedName)
}

fn member(id: &[u8], body: &[u8]) -> Result<Member, DecodeError> {
    Ok(Member { id: name(id)?, body: name(body)? })
}
