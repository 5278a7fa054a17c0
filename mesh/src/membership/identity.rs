//! Who a member is, for SWIM: the ordinal is its address, the process start decides between two that claim it.
//!
//! Invariants: equality is (node, generation, edition) only, so nodes that learned a different address of the same process
//! still agree on who it is; whatever a process changes about itself (address, draining, coming back after having been
//! declared down) it announces under the next edition, which wins over all earlier ones.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    NodeId,
    view::{Member, MemberState},
};

/// One process of the cluster as it travels in gossip.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its ordinal.
    pub(crate) node: NodeId,
    /// Its process start.
    pub(crate) generation: u64,
    /// How often this process has re-introduced itself.
    pub(crate) edition: u16,
    /// It is going and owns no slots.
    pub(crate) draining: bool,
    /// Where its mesh listens.
    pub(crate) addr: SocketAddr,
    /// Its name for people.
    pub(crate) name: Arc<str>,
}

impl Identity {
    /// The same process, newly introduced.
    pub(crate) fn next_edition(&self) -> Identity {
        Identity { edition: self.edition.saturating_add(1), ..self.clone() }
    }

    /// As the gateway sees it.
    pub(crate) fn to_member(&self, state: MemberState) -> Member {
        Member { node: self.node, name: self.name.to_string(), generation: self.generation, addr: self.addr, state }
    }

    fn rank(&self) -> (u64, u16) {
        (self.generation, self.edition)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.node == other.node && self.rank() == other.rank()
    }
}

impl Eq for Identity {}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Identity> {
        Some(self.next_edition())
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        self.rank() > adversary.rank()
    }
}
