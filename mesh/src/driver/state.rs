//! What the loop owns, and how each input changes it.
//!
//! Invariants: at most one link per node, the one in `links`; `LinkUp` and `LinkDown` are told exactly when `links` changes;
//! whatever membership wants done is done before the loop sleeps.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use bytes::Bytes;
use quinn::Endpoint;
use tokio::sync::oneshot;

use super::{Input, Target, dial};
use crate::{
    Config, Event, Handler, NodeId, RunError,
    close::{CloseCode, Failure, FailureKind, close},
    greeting::Greeted,
    handle::{Shared, count},
    link::{self, Context, Link},
    membership::{Identity, Membership, Output, RENEWAL_WINDOW},
    peers::{Peers, Verdict, judge},
    rng::SplitMix,
    seeds::{self, Seeds},
};

/// Everything the loop changes.
pub(super) struct State<H> {
    config: Config,
    endpoint: Endpoint,
    context: Context<H>,
    shared: Arc<Shared>,
    membership: Membership,
    peers: Peers,
    seeds: Seeds,
    links: BTreeMap<NodeId, Arc<Link>>,
    leaving: Option<Leaving>,
}

/// We told everyone that we left.
struct Leaving {
    /// When the links are closed; `None` when they are.
    close_at: Option<Instant>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl<H: Handler> State<H> {
    pub(super) fn new(
        config: Config,
        endpoint: Endpoint,
        context: Context<H>,
        shared: Arc<Shared>,
        membership: Membership,
        mut rng: SplitMix,
    ) -> State<H> {
        let ourselves = [shared.address, membership.identity().addr];
        State {
            peers: Peers::new(config.node, &config.timings, rng.next()),
            seeds: Seeds::new(config.seeds.clone(), &config.timings, ourselves, rng.next(), crate::clock::now()),
            links: BTreeMap::new(),
            leaving: None,
            config,
            endpoint,
            context,
            shared,
            membership,
        }
    }

    /// Does what is to be done now and says when time has to be looked at again.
    pub(super) fn perform(&mut self, now: Instant) -> Result<Instant, RunError> {
        while let Some(output) = self.membership.poll_output() {
            self.perform_output(output, now)?;
        }
        if *self.membership.identity() != *self.shared.me.load().as_ref() {
            self.shared.me.store(Arc::new(self.membership.identity().clone()));
        }
        let mut due = self.membership.poll_timeout();
        match &self.leaving {
            Some(leaving) => due = leaving.close_at.map_or(due, |at| due.min(at)),
            None => {
                while let Some((node, addr)) = self.peers.poll_dial(now) {
                    self.dial(Some(node), addr);
                }
                due = due.min(self.seeds.poll_timeout());
                due = self.peers.poll_timeout().map_or(due, |at| due.min(at));
            }
        }
        Ok(due)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.membership.handle_timeout(now);
        let lag = self.membership.lag(now).unwrap_or_default().as_millis();
        self.shared.counters.lag_ms.store(u64::try_from(lag).unwrap_or(u64::MAX), Relaxed);
        match &mut self.leaving {
            Some(leaving) => {
                if leaving.close_at.is_some_and(|at| at <= now) {
                    leaving.close_at = None;
                    self.stop("leaving");
                }
            }
            None => {
                let alone = self.links.is_empty();
                if let Some(names) = self.seeds.handle_timeout(alone, now) {
                    self.resolve_seeds(names);
                }
            }
        }
    }

    pub(super) fn handle_input(&mut self, input: Input, now: Instant) -> Result<(), RunError> {
        match input {
            Input::Greeted { greeted, target } => self.handle_greeted(*greeted, target, now),
            Input::Failed { failure, target } => return self.handle_failed(&failure, target, now),
            Input::Closed { link, error } => {
                let failure = Failure::from(error);
                self.handle_closed(&link, &failure.reason, now);
                return self.survives(&failure);
            }
            Input::Packet(packet) => {
                count(&self.shared.counters.gossip_received);
                if let Err(error) = self.membership.handle_packet(&packet, now) {
                    count(&self.shared.counters.gossip_malformed);
                    tracing::debug!(%error, "gossip packet");
                }
            }
            Input::Roster { body, answer } => self.handle_roster(body, answer, now),
            Input::Seeds(addresses) => self.handle_seeds(addresses),
            Input::Drain => self.membership.handle_drain(now),
            Input::Leave(done) => self.handle_leave(done, now),
        }
        Ok(())
    }

    /// Ends every link, telling the handler, and whoever waits for our leaving.
    pub(super) fn stop(&mut self, reason: &str) {
        let links = std::mem::take(&mut self.links);
        self.publish_links();
        for link in links.into_values() {
            close(&link.connection, CloseCode::Leaving, reason);
            self.tell_down(&link, reason.to_owned());
        }
        if reason == "stopping" {
            self.endpoint.close(CloseCode::Leaving.code(), reason.as_bytes());
        }
        for done in self.leaving.iter_mut().flat_map(|leaving| leaving.waiting.drain(..)) {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn perform_output(&mut self, output: Output, now: Instant) -> Result<(), RunError> {
        match output {
            Output::Send { to, packet } => self.gossip(&to, packet, now),
            Output::PushPull { with } => self.push_pull(with),
            Output::Changed => self.handle_members(now),
            Output::View(view) => {
                count(&self.shared.counters.views);
                tracing::info!(version = view.version, members = ?owners(&view.members), "cluster view");
                self.shared.view.store(view.clone());
                self.context.handler.handle(Event::View(view));
            }
            Output::Renewed => count(&self.shared.counters.renewals),
            Output::StartedTwice { renewals } => {
                return Err(RunError::StartedTwice { node: self.config.node, renewals, within: RENEWAL_WINDOW });
            }
        }
        Ok(())
    }

    /// Follows what gossip knows: whom to dial, and which links lead to a process that is no more.
    fn handle_members(&mut self, now: Instant) {
        let mut outdated = Vec::new();
        for member in self.membership.peers() {
            let (peer, alive) = (member.id(), member.state() != foca::State::Down);
            let link = self.links.get(&peer.node).filter(|link| link.peer.generation < peer.generation);
            outdated.extend(link.cloned());
            self.peers.handle_member(peer.node, peer.generation, peer.addr, alive, now);
        }
        for link in outdated {
            close(&link.connection, CloseCode::Replaced, "replaced by a later process");
            self.handle_closed(&link, "replaced by a later process", now);
        }
    }

    fn gossip(&mut self, to: &Identity, packet: Bytes, now: Instant) {
        if let Some(link) = self.links.get(&to.node) {
            count(&self.shared.counters.gossip_sent);
            link.gossip(packet, &self.context.tracker);
            return;
        }
        count(&self.shared.counters.gossip_unsent);
        if let Some(addr) = self.peers.handle_wanted(to.node, now) {
            self.dial(Some(to.node), addr);
        }
    }

    fn push_pull(&self, with: NodeId) {
        let Some(link) = self.links.get(&with) else { return };
        count(&self.shared.counters.rosters);
        let (inputs, limit) = (self.context.inputs.clone(), self.config.timings.dial_timeout);
        self.context.tracker.spawn(link::push_pull(inputs, link.clone(), self.membership.roster(), limit));
    }

    fn handle_roster(&mut self, body: Bytes, answer: Option<oneshot::Sender<Bytes>>, now: Instant) {
        if let Err(error) = self.membership.handle_roster(body, now) {
            count(&self.shared.counters.gossip_malformed);
            tracing::debug!(%error, "roster");
        } else if let Some(answer) = answer {
            // The link may have broken meanwhile.
            let _ = answer.send(self.membership.roster());
        }
    }

    fn handle_greeted(&mut self, greeted: Greeted, target: Option<Target>, now: Instant) {
        if let Some(target) = target {
            self.seeds.handle_dialled(target.addr);
        }
        let you = greeted.hello.you;
        let (connection, mut peer, control) = link::split(greeted);
        let remote = connection.remote_address().ip().to_canonical();
        if peer.addr.ip().is_loopback() && !remote.is_loopback() {
            // It does not know yet where others see it; we do.
            peer.addr.set_ip(remote);
        }
        let lower = self.config.node < peer.node;
        let linked = self.links.get(&peer.node).map(|link| link.peer.generation);
        let known = self.membership.peers().find(|member| member.id().node == peer.node);
        let verdict = match self.leaving {
            Some(_) => Verdict::Close(CloseCode::Leaving),
            None => judge(lower, linked, known.map(|member| member.id().generation), peer.generation),
        };
        if let Verdict::Close(code) = verdict {
            close(&connection, code, &format!("{code:?}"));
            if let Some(node) = target.and_then(|target| target.node) {
                self.peers.handle_dial_failed(node, now);
            }
            return;
        }
        if let Some(old) = self.links.remove(&peer.node) {
            let same = old.peer.generation == peer.generation;
            let code = if same { CloseCode::Duplicate } else { CloseCode::Replaced };
            close(&old.connection, code, "replaced");
            self.tell_down(&old, "replaced by a new connection".to_owned());
        }
        self.learn_address(you, now);
        self.peers.handle_member(peer.node, peer.generation, peer.addr, true, now);
        self.peers.handle_link_up(peer.node);
        let (link, waiting) = Link::new(peer.clone(), connection);
        self.links.insert(peer.node, link.clone());
        self.publish_links();
        count(&self.shared.counters.links_up);
        tracing::info!(node = %peer.node, generation = peer.generation, name = %peer.name, "link up");
        self.context.handler.handle(Event::LinkUp { node: peer.node, generation: peer.generation });
        link::start(&self.context, &link, control, lower, waiting);
        self.membership.handle_link_up(peer, now);
    }

    fn handle_failed(&mut self, failure: &Failure, target: Option<Target>, now: Instant) -> Result<(), RunError> {
        let counters = &self.shared.counters;
        count(if target.is_some() { &counters.dials_failed } else { &counters.accepts_failed });
        log_failure(failure, target);
        if let Some(target) = target {
            self.seeds.handle_dialled(target.addr);
            if failure.kind == FailureKind::Ourselves {
                self.seeds.handle_ourselves(target.addr);
            }
            if let Some(node) = target.node {
                self.peers.handle_dial_failed(node, now);
            }
        }
        self.survives(failure)
    }

    fn survives(&self, failure: &Failure) -> Result<(), RunError> {
        if failure.kind == FailureKind::Superseded {
            return Err(RunError::Superseded { node: self.config.node });
        }
        Ok(())
    }

    fn handle_closed(&mut self, link: &Arc<Link>, reason: &str, now: Instant) {
        let node = link.node();
        if !self.links.get(&node).is_some_and(|current| Arc::ptr_eq(current, link)) {
            return;
        }
        self.links.remove(&node);
        self.publish_links();
        self.peers.handle_link_down(node, now);
        if self.links.is_empty() {
            self.seeds.handle_alone(now);
        }
        self.tell_down(link, reason.to_owned());
    }

    fn tell_down(&self, link: &Link, reason: String) {
        link.end();
        count(&self.shared.counters.links_down);
        let (node, generation) = (link.node(), link.peer.generation);
        tracing::info!(%node, generation, reason, "link down");
        self.context.handler.handle(Event::LinkDown { node, generation, reason });
    }

    fn handle_seeds(&mut self, found: Vec<SocketAddr>) {
        let links = &self.links;
        let linked =
            |addr| links.values().any(|link| link.connection.remote_address() == addr || link.peer.addr == addr);
        for addr in self.seeds.handle_resolved(found, linked) {
            self.dial(None, addr);
        }
    }

    fn handle_leave(&mut self, done: oneshot::Sender<()>, now: Instant) {
        let leaving = self
            .leaving
            .get_or_insert_with(|| Leaving { close_at: Some(now + self.config.timings.leave), waiting: Vec::new() });
        if leaving.close_at.is_some() {
            leaving.waiting.push(done);
            self.membership.handle_leave(now);
        } else {
            // Long done.
            let _ = done.send(());
        }
    }

    /// Without an address of our own we take the one a peer on another machine sees.
    fn learn_address(&mut self, you: SocketAddr, now: Instant) {
        let guessed = self.config.advertise.is_none() && self.config.listen.ip().is_unspecified();
        let local = self.membership.identity().addr.ip().is_loopback();
        if guessed && local && !you.ip().is_loopback() {
            tracing::info!(address = %you.ip(), "peers see this node at");
            self.membership.handle_address(you.ip(), now);
            self.seeds.handle_ourselves(self.membership.identity().addr);
        }
    }

    fn resolve_seeds(&self, names: Vec<String>) {
        let inputs = self.context.inputs.clone();
        self.context.tracker.spawn(async move {
            // The loop may have ended meanwhile.
            let _ = inputs.send(Input::Seeds(seeds::resolve(names).await)).await;
        });
    }

    fn dial(&self, node: Option<NodeId>, addr: SocketAddr) {
        count(&self.shared.counters.dials);
        let (endpoint, inputs) = (self.endpoint.clone(), self.context.inputs.clone());
        let (me, limit) = (self.membership.identity().clone(), self.config.timings.dial_timeout);
        self.context.tracker.spawn(dial(endpoint, Target { node, addr }, me, limit, inputs));
    }

    fn publish_links(&self) {
        self.shared.links.store(Arc::new(self.links.clone()));
    }
}

/// What an operator must see is a warning; strangers who knock are not, or they could fill the log.
fn log_failure(failure: &Failure, target: Option<Target>) {
    let (reason, addr) = (&failure.reason, target.map(|target| target.addr));
    match (failure.kind, addr) {
        (FailureKind::Handshake, Some(addr)) => {
            tracing::warn!(%addr, reason, "dialled something that does not share our cluster key");
        }
        (FailureKind::Refused, _) => tracing::warn!(?addr, reason, "a node of this cluster does not fit"),
        (FailureKind::Superseded, _) => tracing::error!(?addr, reason, "this node was started again elsewhere"),
        (FailureKind::Handshake | FailureKind::Silent | FailureKind::Duplicate | FailureKind::Ourselves, _) => {
            tracing::debug!(?addr, reason, "a connection came to nothing");
        }
    }
}

fn owners(members: &[crate::Member]) -> Vec<u16> {
    members.iter().map(|member| member.node.0).collect()
}
