//! What the cluster looks like: its members and the slot table that follows from them.
//!
//! Invariants: a view is immutable and its `version` rises by one with every change at this node (versions of different
//! nodes are unrelated); `table` is built from exactly the nodes in `members`.

use std::{net::SocketAddr, sync::Arc};

use crate::{NodeId, Table};

/// How this node sees a member.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// Answers probes.
    Alive,
    /// Missed a probe and has not refuted it yet. Still owns its slots.
    Suspect,
    /// Announced that it is going; owns no slots, still has clients and links.
    Draining,
    /// Declared dead or left.
    Down,
}

/// One process of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its ordinal.
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// Its process start.
    pub generation: u64,
    /// Where its mesh listens.
    pub addr: SocketAddr,
    /// What we think of it.
    pub state: MemberState,
}

/// The cluster at one moment, as this node sees it.
#[derive(Debug)]
pub struct View {
    /// Counts the views of this process, from 1.
    pub version: u64,
    /// The members that own slots (alive or suspect, ourselves included), ascending by node.
    pub members: Vec<Member>,
    /// Known members that own none: draining, down or gone. Ascending by node. For display and for draining peers.
    pub outside: Vec<Member>,
    /// Who owns which slot.
    pub table: Arc<Table>,
}
