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
use quinn::ConnectionError;
use tokio::sync::oneshot;

use super::{Input, dialling::Dialling};
use crate::{
    ClusterKeys, Config, Event, Handler, NodeId, RefusalReason, RotateError, RunError,
    close::{CloseCode, Failure, FailureKind, close},
    endpoint::Gate,
    greeting::{Greeted, Way, superseded, twin},
    handle::count,
    link::{self, Context, Link},
    membership::{Identity, Membership, Output},
    peers::{Verdict, judge},
    refusals::Told,
    rng::SplitMix,
};

/// Everything the loop changes.
pub(super) struct State<H> {
    config: Config,
    dialling: Dialling,
    context: Context<H>,
    membership: Membership,
    links: BTreeMap<NodeId, Arc<Link>>,
    leaving: Option<Leaving>,
    told: Told,
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
        gate: Gate,
        context: Context<H>,
        membership: Membership,
        rng: SplitMix,
    ) -> State<H> {
        let ourselves = [context.shared.address, membership.identity().addr];
        State {
            dialling: Dialling::new(&config, gate, &context, ourselves, rng),
            links: BTreeMap::new(),
            leaving: None,
            told: Told::default(),
            config,
            context,
            membership,
        }
    }

    /// Does what is to be done now and says when time has to be looked at again.
    pub(super) fn perform(&mut self, now: Instant) -> Result<Instant, RunError> {
        while let Some(output) = self.membership.poll_output() {
            self.perform_output(output, now)?;
        }
        if *self.membership.identity() != *self.context.shared.me.load().as_ref() {
            self.context.shared.me.store(Arc::new(self.membership.identity().clone()));
        }
        let mut due = self.membership.poll_timeout();
        match &self.leaving {
            Some(leaving) => due = leaving.close_at.map_or(due, |at| due.min(at)),
            None => due = due.min(self.dialling.perform(now)),
        }
        Ok(due)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.membership.handle_timeout(now);
        let lag = self.membership.lag(now).unwrap_or_default().as_millis();
        self.context.shared.counters.lag_ms.store(u64::try_from(lag).unwrap_or(u64::MAX), Relaxed);
        match &mut self.leaving {
            Some(leaving) => {
                if leaving.close_at.is_some_and(|at| at <= now) {
                    leaving.close_at = None;
                    self.stop("leaving");
                }
            }
            None => self.dialling.handle_timeout(self.links.is_empty(), now),
        }
    }

    pub(super) fn handle_input(&mut self, input: Input, now: Instant) -> Result<(), RunError> {
        match input {
            Input::Greeted { greeted, way } => self.handle_greeted(greeted, way, now),
            Input::Asked { greeted, way, earlier, answers } => self.handle_asked(greeted, way, &earlier, answers, now),
            Input::Failed { failure, way } => return self.handle_failed(failure, way, now),
            Input::Closed { link, error } => return self.handle_ended(&link, error, now),
            Input::Packet(packet) => {
                count(&self.context.shared.counters.gossip_received);
                if let Err(error) = self.membership.handle_packet(&packet, now) {
                    self.refuse_gossip(&error);
                }
            }
            Input::Roster { body, answer } => self.handle_roster(body, answer, now),
            Input::Seeds(found) => self.dialling.handle_seeds(found, &self.links),
            Input::Drain => self.membership.handle_drain(now),
            Input::Leave(done) => self.handle_leave(done, now),
            Input::Rotate { keys, done } => self.handle_rotate(&keys, done, now),
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
            self.dialling.gate.endpoint().close(CloseCode::Leaving.code(), reason.as_bytes());
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
                count(&self.context.shared.counters.views);
                tracing::info!(version = view.version, members = ?owners(&view.members), "cluster view");
                self.context.shared.view.store(view.clone());
                self.context.handler.handle(Event::View(view));
            }
            Output::Renewed => count(&self.context.shared.counters.renewals),
            Output::StartedTwice { edition } => {
                return Err(RunError::StartedTwice { node: self.config.node, edition });
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
            self.dialling.peers.handle_member(peer.node, peer.generation, peer.addr, alive, now);
        }
        for link in outdated {
            let later = self.membership.peers().find(|member| member.id().node == link.node());
            let words = later.map(|later| superseded(later.id(), &link.peer)).unwrap_or_default();
            close(&link.connection, CloseCode::Replaced, &words);
            self.handle_closed(&link, "replaced by a later process", now);
        }
    }

    fn gossip(&mut self, to: &Identity, packet: Bytes, now: Instant) {
        if let Some(link) = self.links.get(&to.node) {
            count(&self.context.shared.counters.gossip_sent);
            link.gossip(packet, &self.context.tracker);
            return;
        }
        count(&self.context.shared.counters.gossip_unsent);
        self.dialling.handle_wanted(to.node, now);
    }

    fn push_pull(&self, with: NodeId) {
        let Some(link) = self.links.get(&with) else { return };
        count(&self.context.shared.counters.rosters);
        let (inputs, limit) = (self.context.inputs.clone(), self.config.timings.dial_timeout);
        self.context.tracker.spawn(link::push_pull(inputs, link.clone(), self.membership.roster(), limit));
    }

    fn handle_roster(&mut self, body: Bytes, answer: Option<oneshot::Sender<Bytes>>, now: Instant) {
        if let Err(error) = self.membership.handle_roster(body, now) {
            self.refuse_gossip(&error);
        } else if let Some(answer) = answer {
            // The link may have broken meanwhile.
            let _ = answer.send(self.membership.roster());
        }
    }

    fn refuse_gossip(&self, error: &dyn std::fmt::Display) {
        count(&self.context.shared.counters.gossip_malformed);
        self.context.shared.refusals.count(RefusalReason::Gossip);
        tracing::debug!(%error, "gossip that cannot be read");
    }

    fn handle_greeted(&mut self, greeted: Box<Greeted>, way: Way, now: Instant) {
        self.dialling.handle_dialled(way);
        let peer = &greeted.hello.identity;
        let linked = self.links.get(&peer.node);
        let known = self.membership.peers().map(foca::Member::id).find(|known| known.node == peer.node);
        let latest = linked.map(|link| &link.peer).into_iter().chain(known).max_by_key(|known| known.generation);
        let generations = (linked.map(|link| link.peer.generation), known.map(|known| known.generation));
        let verdict = match self.leaving {
            Some(_) => Verdict::Close(CloseCode::Leaving),
            // Its handshake may have ended in the moment before the keys changed.
            None if !self.dialling.gate.accepts(&greeted.connection) => Verdict::Close(CloseCode::Rekeyed),
            None => judge(self.config.node < peer.node, generations.0, generations.1, peer.generation),
        };
        match (verdict, latest, linked) {
            (Verdict::Close(code @ CloseCode::Superseded), Some(later), _) => {
                let words = superseded(later, peer);
                self.turn_away(&greeted, way, code, &words, now);
            }
            (Verdict::Close(code), _, _) => self.turn_away(&greeted, way, code, &format!("{code:?}"), now),
            (Verdict::Ask, _, Some(earlier)) => {
                let (inputs, roster) = (self.context.inputs.clone(), self.membership.roster());
                self.context.tracker.spawn(link::ask_earlier(inputs, earlier.clone(), roster, greeted, way));
            }
            (Verdict::Link | Verdict::Ask, _, _) => self.link(*greeted, now),
        }
    }

    /// The earlier process of a linked node was asked whether it is alive, because a later one greeted us.
    fn handle_asked(&mut self, greeted: Box<Greeted>, way: Way, earlier: &Arc<Link>, answers: bool, now: Instant) {
        let linked = self.links.get(&earlier.node()).is_some_and(|current| Arc::ptr_eq(current, earlier));
        if answers && linked {
            let words = twin(&earlier.peer, &greeted.hello.identity);
            tracing::error!("{words}");
            return self.turn_away(&greeted, way, CloseCode::Twin, &words, now);
        }
        if linked {
            close(&earlier.connection, CloseCode::Replaced, &superseded(&greeted.hello.identity, &earlier.peer));
            self.handle_closed(earlier, "replaced by a later process", now);
        }
        self.handle_greeted(greeted, way, now);
    }

    fn turn_away(&mut self, greeted: &Greeted, way: Way, code: CloseCode, words: &str, now: Instant) {
        close(&greeted.connection, code, words);
        if let Some(reason) = Failure::ours(code, words).refusal {
            self.context.shared.refusals.count(reason);
        }
        self.dialling.handle_failed(way, now);
    }

    /// Makes the connection the link to its node.
    fn link(&mut self, greeted: Greeted, now: Instant) {
        let you = greeted.hello.you;
        let (connection, mut peer, control) = link::split(greeted);
        let remote = connection.remote_address().ip().to_canonical();
        if peer.addr.ip().is_loopback() && !remote.is_loopback() {
            // It does not know yet where others see it; we do.
            peer.addr.set_ip(remote);
        }
        let lower = self.config.node < peer.node;
        if let Some(old) = self.links.remove(&peer.node) {
            // Of the same process: the lower ordinal chose the new connection.
            close(&old.connection, CloseCode::Duplicate, "replaced");
            self.tell_down(&old, "replaced by a new connection".to_owned());
        }
        self.learn_address(you, now);
        self.dialling.peers.handle_member(peer.node, peer.generation, peer.addr, true, now);
        self.dialling.peers.handle_link_up(peer.node);
        let (link, waiting) = Link::new(peer.clone(), connection);
        self.links.insert(peer.node, link.clone());
        self.publish_links();
        count(&self.context.shared.counters.links_up);
        tracing::info!(node = %peer.node, generation = peer.generation, name = %peer.name, "link up");
        self.context.handler.handle(Event::LinkUp { node: peer.node, generation: peer.generation });
        link::start(&self.context, &link, control, lower, waiting);
        self.membership.handle_link_up(peer, now);
    }

    fn handle_failed(&mut self, failure: Failure, way: Way, now: Instant) -> Result<(), RunError> {
        let counters = &self.context.shared.counters;
        count(if way.target().is_some() { &counters.dials_failed } else { &counters.accepts_failed });
        self.told.tell(&failure, way, now);
        self.dialling.handle_dialled(way);
        if failure.kind == FailureKind::Ourselves
            && let Some(target) = way.target()
        {
            self.dialling.seeds.handle_ourselves(target.addr);
        }
        self.dialling.handle_failed(way, now);
        self.survives(failure)
    }

    /// The connection of a link ended, by us, by the peer or by the line.
    fn handle_ended(&mut self, link: &Arc<Link>, error: ConnectionError, now: Instant) -> Result<(), RunError> {
        if let Some(fault) = link.fault() {
            self.context.shared.refusals.count(RefusalReason::Malformed);
            self.handle_closed(link, fault, now);
            return Ok(());
        }
        // A line that went dead refused nobody.
        let late = matches!(error, ConnectionError::TimedOut);
        let mut failure = Failure::from(error);
        failure.refusal.take_if(|_| late);
        self.handle_closed(link, &failure.reason, now);
        self.survives(failure)
    }

    /// Counts a refusal, and ends the run when it says that another process is this node.
    fn survives(&self, failure: Failure) -> Result<(), RunError> {
        if let Some(reason) = failure.refusal {
            self.context.shared.refusals.count(reason);
        }
        let (node, reason) = (self.config.node, failure.reason);
        match failure.kind {
            FailureKind::Superseded => Err(RunError::Superseded { node, reason }),
            FailureKind::Twin => Err(RunError::Twin { node, reason }),
            FailureKind::Silent
            | FailureKind::Handshake
            | FailureKind::Refused
            | FailureKind::Duplicate
            | FailureKind::Ourselves => Ok(()),
        }
    }

    fn handle_rotate(&mut self, keys: &ClusterKeys, done: oneshot::Sender<Result<(), RotateError>>, now: Instant) {
        let rotated = self.dialling.gate.rotate(keys).map_err(RotateError::Certificate);
        if rotated.is_ok() {
            let names: Vec<_> = keys.iter().map(crate::ClusterKey::name).collect();
            tracing::info!(keys = ?names, "cluster keys changed");
            let old = self.links.values().filter(|link| !self.dialling.gate.accepts(&link.connection));
            for link in old.cloned().collect::<Vec<_>>() {
                const REASON: &str = "the cluster key it came with is not accepted any more";
                close(&link.connection, CloseCode::Rekeyed, REASON);
                self.handle_closed(&link, REASON, now);
            }
        }
        // Whoever asked may have stopped waiting.
        let _ = done.send(rotated);
    }

    fn handle_closed(&mut self, link: &Arc<Link>, reason: &str, now: Instant) {
        let node = link.node();
        if !self.links.get(&node).is_some_and(|current| Arc::ptr_eq(current, link)) {
            return;
        }
        self.links.remove(&node);
        self.publish_links();
        self.dialling.peers.handle_link_down(node, now);
        if self.links.is_empty() {
            self.dialling.seeds.handle_alone(now);
        }
        self.tell_down(link, reason.to_owned());
    }

    fn tell_down(&self, link: &Link, reason: String) {
        link.end();
        count(&self.context.shared.counters.links_down);
        let (node, generation) = (link.node(), link.peer.generation);
        tracing::info!(%node, generation, reason, "link down");
        self.context.handler.handle(Event::LinkDown { node, generation, reason });
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
            self.dialling.seeds.handle_ourselves(self.membership.identity().addr);
        }
    }

    fn publish_links(&self) {
        self.context.shared.links.store(Arc::new(self.links.clone()));
    }
}

fn owners(members: &[crate::Member]) -> Vec<u16> {
    members.iter().map(|member| member.node.0).collect()
}
