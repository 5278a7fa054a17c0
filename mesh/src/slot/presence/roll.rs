//! The members of one room as one node knows them.
//!
//! Invariants: `own` is what this node's clients did, `listed` what everybody is shown; only the owner, or what the owner
//! said, changes `listed`. At most `MEMBERS_MAX` members and `BYTES_MAX` bytes of them are listed.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use bytestring::ByteString;

use super::{
    super::{PendingJoin, Shards},
    Change, Member,
    parts::Incoming,
};
use crate::NodeId;

/// Members that are listed of one room (`interface.md` 1.1: `limit_reached` beyond).
pub(super) const MEMBERS_MAX: usize = 10_000;
/// Bytes of them: an answer must fit into one packet, and a copy of it into every node.
pub(super) const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The room lists as many members as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// How a follower stands with the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Our members were said, or must be (`None`); changes count from the answer on.
    Asking { asked_at: Option<Instant> },
    /// Changes arrive.
    Following,
}

#[derive(Debug)]
struct Listed {
    node: NodeId,
    body: ByteString,
}

#[derive(Debug)]
struct Own {
    shard: u8,
    body: ByteString,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Roll {
    pub(super) owner: Option<NodeId>,
    pub(super) stream: Stream,
    /// Number of the newest change.
    pub(super) seq: u64,
    /// Joins whose member is not listed, or not in a whole list.
    pub(super) waiting: Vec<(ByteString, PendingJoin)>,
    /// At the owner: nodes that said their members and are told of changes.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Those of them that have not got the list yet.
    pub(super) owed: BTreeSet<NodeId>,
    pub(super) incoming: Incoming,
    own: BTreeMap<ByteString, Own>,
    own_by_shard: BTreeMap<u8, usize>,
    listed: BTreeMap<ByteString, Listed>,
    bytes: usize,
}

impl Roll {
    pub(super) fn new(owner: Option<NodeId>) -> Roll {
        Roll {
            owner,
            stream: Stream::Asking { asked_at: None },
            seq: 0,
            waiting: Vec::new(),
            nodes: BTreeSet::new(),
            owed: BTreeSet::new(),
            incoming: Incoming::default(),
            own: BTreeMap::new(),
            own_by_shard: BTreeMap::new(),
            listed: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Adds a member of this node; whether it was none before.
    pub(super) fn add_own(&mut self, member: Member, shard: u8) -> bool {
        if self.own.contains_key(&member.id) {
            return false;
        }
        self.own.insert(member.id, Own { shard, body: member.body });
        *self.own_by_shard.entry(shard).or_default() += 1;
        true
    }

    pub(super) fn remove_own(&mut self, id: &ByteString) {
        let Some(Own { shard, .. }) = self.own.remove(id) else { return };
        if let Some(count) = self.own_by_shard.get_mut(&shard) {
            *count -= 1;
            if *count == 0 {
                self.own_by_shard.remove(&shard);
            }
        }
    }

    pub(super) fn own_members(&self) -> Vec<Member> {
        self.own.iter().map(|(id, own)| Member { id: id.clone(), body: own.body.clone() }).collect()
    }

    /// Shards of this node with members of the room that show themselves.
    pub(super) fn shards(&self) -> Shards {
        let mut shards = Shards::default();
        self.own_by_shard.keys().for_each(|shard| shards.insert(*shard));
        shards
    }

    pub(super) fn listed(&self, id: &ByteString) -> Option<(NodeId, Member)> {
        self.listed.get(id).map(|listed| (listed.node, Member { id: id.clone(), body: listed.body.clone() }))
    }

    pub(super) fn is_listed_by(&self, node: NodeId, id: &ByteString) -> bool {
        self.listed.get(id).is_some_and(|listed| listed.node == node)
    }

    /// Everybody, with the node each belongs to.
    pub(super) fn all(&self) -> impl Iterator<Item = (NodeId, Member)> {
        self.listed.iter().map(|(id, listed)| (listed.node, Member { id: id.clone(), body: listed.body.clone() }))
    }

    /// What everybody is shown.
    pub(super) fn bodies(&self) -> Vec<ByteString> {
        self.listed.values().map(|listed| listed.body.clone()).collect()
    }

    pub(super) fn ids_of(&self, node: NodeId) -> Vec<ByteString> {
        self.listed.iter().filter(|(_, listed)| listed.node == node).map(|(id, _)| id.clone()).collect()
    }

    /// Listed members of `node` that are not among `members`.
    pub(super) fn strangers(&self, node: NodeId, members: &[Member]) -> Vec<ByteString> {
        let known: HashSet<&ByteString> = members.iter().map(|member| &member.id).collect();
        self.ids_of(node).into_iter().filter(|id| !known.contains(id)).collect()
    }

    /// Other nodes that have not spoken, each with one of its members that are listed.
    pub(super) fn unheard(&self, me: NodeId) -> BTreeMap<NodeId, Member> {
        let unheard = self.all().filter(|(node, _)| *node != me && !self.nodes.contains(node));
        unheard.collect()
    }

    /// Whether members of one of these nodes are listed although it has not spoken.
    pub(super) fn shows_any(&self, nodes: &BTreeMap<NodeId, Instant>) -> bool {
        let unheard = |node: &NodeId| nodes.contains_key(node) && !self.nodes.contains(node);
        !nodes.is_empty() && self.listed.values().any(|listed| unheard(&listed.node))
    }

    /// Whether one more member can be listed.
    pub(super) fn fits(&self, member: &Member) -> Result<(), Crowded> {
        let fits = self.listed.len() < MEMBERS_MAX && self.bytes + weight(&member.id, &member.body) <= BYTES_MAX;
        if fits { Ok(()) } else { Err(Crowded) }
    }

    /// Lists or unlists.
    pub(super) fn apply(&mut self, node: NodeId, change: &Change) {
        let Member { id, body } = &change.member;
        let before = if change.joined {
            self.bytes += weight(id, body);
            self.listed.insert(id.clone(), Listed { node, body: body.clone() })
        } else {
            self.listed.remove(id)
        };
        self.bytes -= before.map_or(0, |before| weight(id, &before.body));
    }

    /// Lists exactly `members`; what that changed.
    pub(super) fn replace(&mut self, members: Vec<(NodeId, Member)>) -> Vec<Change> {
        let whole: HashSet<&ByteString> = members.iter().map(|(_, member)| &member.id).collect();
        let gone = self.all().filter(|(_, member)| !whole.contains(&member.id));
        let gone: Vec<(NodeId, Change)> = gone.map(|(node, member)| (node, Change { member, joined: false })).collect();
        let come = members.into_iter().filter(|(node, member)| !self.is_listed_by(*node, &member.id));
        let come: Vec<(NodeId, Change)> = come.map(|(node, member)| (node, Change { member, joined: true })).collect();
        let changes = gone.into_iter().chain(come);
        changes
            .map(|(node, change)| {
                self.apply(node, &change);
                change
            })
            .collect()
    }

    /// The room has another owner: nobody has said anything yet.
    pub(super) fn begin_again(&mut self) {
        self.stream = Stream::Asking { asked_at: None };
        self.nodes.clear();
        self.owed.clear();
        self.incoming = Incoming::default();
    }

    /// Joins of this member that wait.
    pub(super) fn take_waiting(&mut self, id: &ByteString) -> Vec<PendingJoin> {
        self.take_joins(|_, waiting, _| waiting == id)
    }

    /// Joins whose member is listed.
    pub(super) fn take_ready(&mut self) -> Vec<PendingJoin> {
        self.take_joins(|listed, id, _| listed.contains_key(id))
    }

    /// Joins whose patience is over.
    pub(super) fn take_overdue(&mut self, now: Instant) -> Vec<PendingJoin> {
        self.take_joins(|_, _, join| join.deadline <= now)
    }

    fn take_joins(
        &mut self,
        wanted: impl Fn(&BTreeMap<ByteString, Listed>, &ByteString, &PendingJoin) -> bool,
    ) -> Vec<PendingJoin> {
        let all = std::mem::take(&mut self.waiting).into_iter();
        let (taken, rest) = all.partition(|(id, join)| wanted(&self.listed, id, join));
        self.waiting = rest;
        let taken: Vec<(ByteString, PendingJoin)> = taken;
        taken.into_iter().map(|(_, join)| join).collect()
    }

    /// Whether the owner has to be asked (again).
    pub(super) fn is_due(&self, now: Instant, retry: Duration) -> bool {
        match self.stream {
            Stream::Asking { asked_at } => asked_at.is_none_or(|at| at + retry <= now),
            Stream::Following => false,
        }
    }

    /// Whether something has to be done about it soon.
    pub(super) fn is_waiting(&self, me: NodeId) -> bool {
        !self.waiting.is_empty() || (self.owner != Some(me) && self.stream != Stream::Following)
    }

    /// Whether nobody needs it.
    pub(super) fn is_unused(&self, me: NodeId) -> bool {
        let lists = self.owner == Some(me) && !(self.listed.is_empty() && self.nodes.is_empty());
        self.own.is_empty() && self.waiting.is_empty() && !lists
    }
}

fn weight(id: &ByteString, body: &ByteString) -> usize {
    id.len() + body.len()
}
