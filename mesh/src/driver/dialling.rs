//! Whom to dial, when, and by which endpoint.
//!
//! Invariants: what the values `peers` and `seeds` decide is done at once, in tasks that tell the loop how it went.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::{Input, dial};
use crate::{
    Config, NodeId, clock,
    endpoint::Gate,
    greeting::{Target, Way},
    handle::{Shared, count},
    link::{Context, Link},
    peers::Peers,
    rng::SplitMix,
    seeds::{self, Seeds},
};

/// See the module.
pub(super) struct Dialling {
    pub(super) gate: Gate,
    pub(super) peers: Peers,
    pub(super) seeds: Seeds,
    shared: Arc<Shared>,
    inputs: mpsc::Sender<Input>,
    tracker: TaskTracker,
    limit: Duration,
}

impl Dialling {
    /// Nobody known but the seeds. `ourselves` is where we know to be.
    pub(super) fn new<H>(
        config: &Config,
        gate: Gate,
        context: &Context<H>,
        ourselves: [SocketAddr; 2],
        mut rng: SplitMix,
    ) -> Dialling {
        Dialling {
            gate,
            peers: Peers::new(config.node, &config.timings, rng.next()),
            seeds: Seeds::new(config.seeds.clone(), &config.timings, ourselves, rng.next(), clock::now()),
            shared: context.shared.clone(),
            inputs: context.inputs.clone(),
            tracker: context.tracker.clone(),
            limit: config.timings.dial_timeout,
        }
    }

    /// Dials who is due and says when to look again.
    pub(super) fn perform(&mut self, now: Instant) -> Instant {
        while let Some((node, addr)) = self.peers.poll_dial(now) {
            self.dial(Some(node), addr);
        }
        let due = self.seeds.poll_timeout();
        self.peers.poll_timeout().map_or(due, |at| due.min(at))
    }

    /// Resolves the seeds if it is time; `alone` says that we have no link.
    pub(super) fn handle_timeout(&mut self, alone: bool, now: Instant) {
        if let Some(names) = self.seeds.handle_timeout(alone, now) {
            let inputs = self.inputs.clone();
            self.tracker.spawn(async move {
                // The loop may have ended meanwhile.
                let _ = inputs.send(Input::Seeds(seeds::resolve(names).await)).await;
            });
        }
    }

    /// The seeds are at these addresses.
    pub(super) fn handle_seeds(&mut self, found: Vec<SocketAddr>, links: &BTreeMap<NodeId, Arc<Link>>) {
        let linked =
            |addr| links.values().any(|link| link.connection.remote_address() == addr || link.peer.addr == addr);
        for addr in self.seeds.handle_resolved(found, linked) {
            self.dial(None, addr);
        }
    }

    /// There is something to tell a node without link.
    pub(super) fn handle_wanted(&mut self, node: NodeId, now: Instant) {
        if let Some(addr) = self.peers.handle_wanted(node, now) {
            self.dial(Some(node), addr);
        }
    }

    /// A connection greeted or came to nothing.
    pub(super) fn handle_dialled(&mut self, way: Way) {
        if let Some(target) = way.target() {
            self.seeds.handle_dialled(target.addr);
        }
    }

    /// It came to nothing.
    pub(super) fn handle_failed(&mut self, way: Way, now: Instant) {
        if let Some(node) = way.target().and_then(|target| target.node) {
            self.peers.handle_dial_failed(node, now);
        }
    }

    fn dial(&self, node: Option<NodeId>, addr: SocketAddr) {
        count(&self.shared.counters.dials);
        let dial = dial(
            self.gate.endpoint().clone(),
            Target { node, addr },
            self.shared.speaker(),
            self.limit,
            self.inputs.clone(),
        );
        self.tracker.spawn(dial);
    }
}
