//! Which peers to dial and when, and which of several connections to a peer is its link; a value.
//!
//! Invariants: the lower ordinal dials, the higher only after being without a link for a while (`mesh.md` 2.2); at most one
//! dial per peer runs at a time; redials wait with full jitter between the two backoff limits; peers that are down are tried
//! only when gossip has something to tell them. Which connection is the link is decided by the lower ordinal alone
//! ([`judge`]), so two sides never close each other's choice.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{NodeId, Timings, close::CloseCode, rng::SplitMix};

/// What the lower ordinal does with a connection that finished its greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It becomes the link, in place of what there may be.
    Link,
    /// There is a link to an earlier process of that node: only if that does not answer, the new one takes its place.
    Ask,
    /// It is closed; the link we have stays.
    Close(CloseCode),
}

/// Decides about a greeted connection to a process of this `generation`, given the generation of the link we have to that
/// node and the latest one we know of. The higher ordinal (`lower` false) was told `Open` and obeys.
pub(crate) fn judge(lower: bool, linked: Option<u64>, known: Option<u64>, generation: u64) -> Verdict {
    if linked.max(known).is_some_and(|latest| latest > generation) {
        Verdict::Close(CloseCode::Superseded)
    } else if linked.is_some_and(|linked| linked < generation) {
        Verdict::Ask
    } else if lower && linked == Some(generation) {
        Verdict::Close(CloseCode::Duplicate)
    } else {
        Verdict::Link
    }
}

/// The dial policy for all peers.
#[derive(Debug)]
pub(crate) struct Peers {
    me: NodeId,
    timings: Timings,
    rng: SplitMix,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    addr: SocketAddr,
    generation: u64,
    alive: bool,
    linked: bool,
    dialling: bool,
    failures: u32,
    next_dial: Instant,
}

impl Peers {
    pub(crate) fn new(me: NodeId, timings: &Timings, seed: u64) -> Peers {
        Peers { me, timings: timings.clone(), rng: SplitMix::new(seed), peers: BTreeMap::new() }
    }

    /// What gossip says about a node. A new process of it is dialled without the old one's backoff.
    pub(crate) fn handle_member(&mut self, node: NodeId, generation: u64, addr: SocketAddr, alive: bool, now: Instant) {
        if node == self.me {
            return;
        }
        let first = now + self.patience(node);
        let fresh =
            Peer { addr, generation, alive: false, linked: false, dialling: false, failures: 0, next_dial: first };
        let peer = self.peers.entry(node).or_insert(fresh);
        if generation > peer.generation || (alive && !peer.alive) {
            peer.failures = 0;
            peer.next_dial = first;
        }
        (peer.generation, peer.addr, peer.alive) = (generation, addr, alive);
    }

    /// The dial that was asked for came to nothing.
    pub(crate) fn handle_dial_failed(&mut self, node: NodeId, now: Instant) {
        let delay =
            self.peers.get(&node).map(|peer| self.timings.backoff_min * 2_u32.saturating_pow(peer.failures.min(16)));
        let Some(ceiling) = delay else { return };
        let wait = self
            .rng
            .between(self.timings.backoff_min, ceiling.clamp(self.timings.backoff_min, self.timings.backoff_max));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.dialling = false;
            peer.failures = peer.failures.saturating_add(1);
            peer.next_dial = now + wait;
        }
    }

    /// There is a link now.
    pub(crate) fn handle_link_up(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.linked, peer.dialling, peer.failures) = (true, false, 0);
        }
    }

    /// The link is gone.
    pub(crate) fn handle_link_down(&mut self, node: NodeId, now: Instant) {
        let wait = self.patience(node) + self.rng.between(Duration::ZERO, self.timings.backoff_min);
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.linked, peer.next_dial) = (false, now + wait);
        }
    }

    /// Gossip has something for a node without link: an address to try, if its turn has come.
    pub(crate) fn handle_wanted(&mut self, node: NodeId, now: Instant) -> Option<SocketAddr> {
        let peer = self.peers.get_mut(&node)?;
        let may = !peer.linked && !peer.dialling && !peer.alive && peer.next_dial <= now;
        peer.dialling |= may;
        may.then_some(peer.addr)
    }

    /// A peer to dial now.
    pub(crate) fn poll_dial(&mut self, now: Instant) -> Option<(NodeId, SocketAddr)> {
        let (node, peer) = self.peers.iter_mut().find(|(_, peer)| peer.waits() && peer.next_dial <= now)?;
        peer.dialling = true;
        Some((*node, peer.addr))
    }

    /// When the next dial is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.peers.values().filter(|peer| peer.waits()).map(|peer| peer.next_dial).min()
    }

    /// How long we let the other side dial first.
    fn patience(&self, node: NodeId) -> Duration {
        if self.me < node { Duration::ZERO } else { self.timings.higher_dials_after }
    }
}

impl Peer {
    fn waits(&self) -> bool {
        self.alive && !self.linked && !self.dialling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(me: u16) -> (Peers, Instant) {
        (Peers::new(NodeId(me), &Timings::default(), 1), crate::clock::now())
    }

    fn addr() -> SocketAddr {
        "10.0.0.1:7946".parse().unwrap()
    }

    #[test]
    fn the_lower_ordinal_dials_at_once_and_the_higher_waits() {
        let (mut lower, now) = peers(0);
        lower.handle_member(NodeId(1), 1, addr(), true, now);
        assert_eq!(lower.poll_dial(now), Some((NodeId(1), addr())));
        let (mut higher, now) = peers(2);
        higher.handle_member(NodeId(1), 1, addr(), true, now);
        assert_eq!(higher.poll_dial(now), None);
        let patience = Timings::default().higher_dials_after;
        assert_eq!(higher.poll_timeout(), Some(now + patience));
        assert_eq!(higher.poll_dial(now + patience), Some((NodeId(1), addr())));
    }

    #[test]
    fn one_dial_at_a_time_and_none_while_linked() {
        let (mut peers, now) = peers(0);
        peers.handle_member(NodeId(1), 1, addr(), true, now);
        assert!(peers.poll_dial(now).is_some());
        assert_eq!(peers.poll_dial(now), None);
        peers.handle_link_up(NodeId(1));
        assert_eq!((peers.poll_dial(now), peers.poll_timeout()), (None, None));
        peers.handle_link_down(NodeId(1), now);
        assert!(peers.poll_dial(now + Timings::default().backoff_min).is_some());
    }

    #[test]
    fn failed_dials_back_off_with_jitter_up_to_the_limit() {
        let (mut peers, mut now) = peers(0);
        peers.handle_member(NodeId(1), 1, addr(), true, now);
        let mut waits = Vec::new();
        for _ in 0..40 {
            assert!(peers.poll_dial(now).is_some());
            peers.handle_dial_failed(NodeId(1), now);
            let next = peers.poll_timeout().unwrap();
            waits.push(next - now);
            now = next;
        }
        let timings = Timings::default();
        assert!(waits.iter().all(|wait| *wait >= timings.backoff_min && *wait <= timings.backoff_max));
        assert!(waits[20..].iter().max() > waits[20..].iter().min());
        assert!(waits[20..].iter().any(|wait| *wait > Duration::from_secs(2)));
    }

    #[test]
    fn a_new_process_is_dialled_without_the_old_ones_backoff() {
        let (mut peers, now) = peers(0);
        peers.handle_member(NodeId(1), 1, addr(), true, now);
        for _ in 0..10 {
            peers.handle_dial_failed(NodeId(1), now);
        }
        peers.handle_member(NodeId(1), 2, addr(), true, now);
        assert!(peers.poll_dial(now).is_some());
    }

    #[test]
    fn a_node_that_is_down_is_tried_only_on_demand() {
        let (mut peers, now) = peers(5);
        peers.handle_member(NodeId(1), 1, addr(), false, now);
        let later = now + Duration::from_secs(60);
        assert_eq!((peers.poll_dial(later), peers.poll_timeout()), (None, None));
        assert_eq!(peers.handle_wanted(NodeId(1), later), Some(addr()));
        assert_eq!(peers.handle_wanted(NodeId(1), later), None);
    }

    #[test]
    fn the_first_connection_of_a_process_is_its_link_and_a_later_process_is_taken_when_the_earlier_has_none() {
        let lower = |linked, known, generation| judge(true, linked, known, generation);
        assert_eq!(lower(None, None, 7), Verdict::Link);
        assert_eq!(lower(Some(7), Some(7), 7), Verdict::Close(CloseCode::Duplicate));
        assert_eq!(lower(None, Some(7), 8), Verdict::Link);
        assert_eq!(lower(Some(7), None, 6), Verdict::Close(CloseCode::Superseded));
        assert_eq!(lower(None, Some(7), 6), Verdict::Close(CloseCode::Superseded));
    }

    #[test]
    fn the_higher_ordinal_takes_the_connection_it_was_told_to() {
        assert_eq!(judge(false, Some(7), Some(7), 7), Verdict::Link);
        assert_eq!(judge(false, Some(8), None, 7), Verdict::Close(CloseCode::Superseded));
    }

    #[test]
    fn a_later_process_of_a_linked_node_waits_until_the_earlier_was_asked() {
        assert_eq!(judge(true, Some(7), Some(7), 8), Verdict::Ask);
        assert_eq!(judge(false, Some(7), Some(7), 8), Verdict::Ask);
        assert_eq!(judge(true, Some(7), Some(9), 8), Verdict::Close(CloseCode::Superseded));
    }
}
