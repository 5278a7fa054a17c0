//! One question to many clients: every shard of every node asks those it has, and the shard that wants to know collects the
//! answers.
//!
//! Invariants: the question is encoded once, with one ack id for all; each shard says how many it asks and then what became
//! of each, so that what was said before a node died is known; a survey ends when the last has spoken, and at the latest
//! `GRACE` after its timeout: nodes that have not said everything by then, or whose link broke, are named; what it collects
//! is bounded in bytes; it goes through the shards' mailboxes, this one's too, so that it never ends inside the call that
//! started it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use indexmap::IndexSet;
use mesh::{LANES, MemberState, NodeId, room::RoomKey, wire::survey};
use protocol::socketio::Args;

use super::{Asker, EVERYONE, Gateway, asks::Waiter};
use crate::{
    handler::{Audience, Socket},
    key::ConnKey,
    message::Message,
};

/// Bytes of answers that one survey collects; whoever answers beyond that is counted as silent.
const ANSWERS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long after the timeout other nodes may take to say who was silent.
const GRACE: Duration = Duration::from_millis(250);

/// What many clients answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Each client's, in the order in which they came.
    pub answers: Vec<Args>,
    /// How many were asked.
    pub asked: usize,
    /// How many of them did not answer in time, or went away.
    pub silent: usize,
    /// Names of the nodes that were not heard to the end: they may have asked others too.
    pub unheard: Vec<String>,
}

/// Who is told the answers.
pub(crate) type Collector = Box<dyn FnOnce(&mut Socket<'_>, Answers)>;

/// A question to many clients, as every shard gets it.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) audience: Audience,
    /// The ack id.
    pub(crate) id: u64,
    pub(crate) payload: Bytes,
    pub(crate) due: Instant,
    pub(crate) back: Back,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Back {
    pub(crate) node: NodeId,
    pub(crate) shard: u8,
    pub(crate) survey: u64,
}

/// What a shard says about a survey.
#[derive(Debug)]
pub(crate) enum Report {
    /// So many clients are asked; once by each of the node's `shards`.
    Asked { clients: usize, shards: u8 },
    /// One of them answered.
    Answer(Args),
    /// One of them did not.
    Silence,
}

/// The surveys that were started on this shard and are under way.
#[derive(Default)]
pub(super) struct Surveys {
    next: u64,
    open: HashMap<u64, Open>,
    due: BTreeSet<(Instant, u64)>,
}

struct Open {
    asker: Asker,
    collector: Collector,
    give_up_at: Instant,
    /// Nodes that have not said everything.
    waiting: BTreeMap<NodeId, Waiting>,
    bytes: usize,
    collected: Answers,
}

/// What a node has not said.
#[derive(Default)]
struct Waiting {
    /// Shards that have not said whom they ask; `None` = none of them has.
    shards: Option<u8>,
    /// Clients that are asked and have neither answered nor been given up.
    clients: usize,
}

impl Surveys {
    /// When the next one is given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    fn take(&mut self, survey: u64) -> Option<Open> {
        let open = self.open.remove(&survey)?;
        self.due.remove(&(open.give_up_at, survey));
        Some(open)
    }
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.shards == Some(0) && self.clients == 0
    }
}

impl Open {
    fn take_report(&mut self, from: NodeId, report: Report) {
        let Some(waiting) = self.waiting.get_mut(&from) else { return };
        match report {
            Report::Asked { clients, shards } => {
                waiting.shards = Some(waiting.shards.unwrap_or(shards).saturating_sub(1));
                waiting.clients += clients;
                self.collected.asked += clients;
            }
            Report::Answer(args) => {
                waiting.clients = waiting.clients.saturating_sub(1);
                self.bytes += args.weight();
                if self.bytes > ANSWERS_BYTES_MAX {
                    self.collected.silent += 1;
                } else {
                    self.collected.answers.push(args);
                }
            }
            Report::Silence => {
                waiting.clients = waiting.clients.saturating_sub(1);
                self.collected.silent += 1;
            }
        }
        if waiting.is_over() {
            self.waiting.remove(&from);
        }
    }

    /// Nothing more will be heard of this node.
    fn give_up(&mut self, node: NodeId, name: String) {
        if let Some(waiting) = self.waiting.remove(&node) {
            self.collected.silent += waiting.clients;
            self.collected.unheard.push(name);
        }
    }
}

impl Gateway {
    /// Starts a survey; `ask` says what to ask.
    pub(crate) fn survey(
        &mut self,
        asker: &Asker,
        collector: Collector,
        ask: impl FnOnce(Back) -> Survey,
        timeout: Duration,
    ) {
        self.surveys.next += 1;
        let back = Back { node: self.context.node, shard: self.shard, survey: self.surveys.next };
        let survey = Arc::new(ask(back));
        let others = self.other_nodes();
        let waiting = others.iter().chain([&back.node]).map(|node| (*node, Waiting::default())).collect();
        let give_up_at = survey.due + GRACE;
        self.surveys.due.insert((give_up_at, back.survey));
        let (asker, collected) = (asker.clone(), Answers::default());
        let open = Open { asker, collector, give_up_at, waiting, bytes: 0, collected };
        self.surveys.open.insert(back.survey, open);
        if !others.is_empty() {
            let bytes = to_wire(&survey, timeout).encode();
            self.sends.extend(others.into_iter().map(|node| (node, self.shard % LANES, bytes.clone())));
        }
        for outgoing in &mut self.outgoing {
            outgoing.push(Message::Survey(survey.clone()));
        }
    }

    /// Asks the clients of this shard.
    pub(super) fn handle_survey(&mut self, survey: &Survey) {
        let members = self.audience(&survey.audience);
        let shards = u8::try_from(self.context.shards.len()).unwrap_or(u8::MAX);
        self.report(survey.back, Report::Asked { clients: members.len(), shards });
        for key in members {
            let socket = self.asker(key, &survey.audience.namespace);
            let asked = socket
                .is_some_and(|socket| self.expect(&socket, survey.id, survey.due, Waiter::Survey(survey.back)).is_ok());
            let connection = self.connections.get_mut(key).filter(|_| asked);
            match connection.map(|connection| connection.send_payload(&survey.payload)) {
                Some(Ok(())) => self.touch(key),
                // It was encoded by a node, so it can be read; if not, time gives it up.
                Some(Err(error)) => tracing::error!(%error, "a question that a node made cannot be read"),
                None => self.report(survey.back, Report::Silence),
            }
        }
    }

    /// What a shard, of this node or another, says about a survey of this one.
    pub(super) fn handle_report(&mut self, from: NodeId, survey: u64, report: Report, now: Instant) {
        let Some(open) = self.surveys.open.get_mut(&survey) else { return };
        open.take_report(from, report);
        if open.waiting.is_empty() {
            self.end_survey(survey, now);
        }
    }

    /// Says something about a survey to the shard that started it.
    pub(super) fn report(&mut self, back: Back, report: Report) {
        let Back { node, shard, survey } = back;
        if node == self.context.node {
            return self.tell_shard(shard, Message::Report { from: node, survey, report });
        }
        let what = match report {
            Report::Asked { clients, shards } => {
                survey::What::Asked { clients: u32::try_from(clients).unwrap_or(u32::MAX), shards }
            }
            Report::Answer(Args { json, attachments }) => survey::What::Answer { json, attachments },
            Report::Silence => survey::What::Silence,
        };
        self.sends.push((node, shard % LANES, survey::Report { shard, survey, what }.encode()));
    }

    /// A node cannot be reached: what it has not said will not be heard.
    pub(super) fn lose_surveyed(&mut self, node: NodeId, now: Instant) {
        let open = self.surveys.open.iter().filter(|(_, open)| open.waiting.contains_key(&node));
        let concerned: Vec<u64> = open.map(|(survey, _)| *survey).collect();
        for survey in concerned {
            let name = self.name_of(node);
            let Some(open) = self.surveys.open.get_mut(&survey) else { continue };
            open.give_up(node, name);
            if open.waiting.is_empty() {
                self.end_survey(survey, now);
            }
        }
    }

    /// Ends what has waited long enough.
    pub(super) fn give_up_surveys(&mut self, now: Instant) {
        while let Some((due, survey)) = self.surveys.due.first().copied()
            && due <= now
        {
            self.end_survey(survey, now);
        }
    }

    fn end_survey(&mut self, survey: u64, now: Instant) {
        let Some(mut open) = self.surveys.take(survey) else { return };
        let waiting: Vec<NodeId> = open.waiting.keys().copied().collect();
        for node in waiting {
            open.give_up(node, self.name_of(node));
        }
        let Open { asker, collector, collected, .. } = open;
        self.call(asker, now, |_, socket| collector(socket, collected));
    }

    /// Nodes that are not known to be down.
    fn other_nodes(&self) -> Vec<NodeId> {
        let Some(mesh) = &self.context.mesh else { return Vec::new() };
        let view = mesh.view();
        let alive = view.members.iter().chain(&view.outside).filter(|member| member.state != MemberState::Down);
        alive.map(|member| member.node).filter(|node| *node != self.context.node).collect()
    }

    fn name_of(&self, node: NodeId) -> String {
        let view = self.context.mesh.as_ref().map(mesh::Mesh::view);
        let mut all = view.iter().flat_map(|view| view.members.iter().chain(&view.outside));
        let known = all.find(|member| member.node == node).map(|member| member.name.clone());
        known.unwrap_or_else(|| self.context.config.cluster.node.clone())
    }

    /// Who of this shard is meant, each once.
    pub(super) fn audience(&self, audience: &Audience) -> IndexSet<ConnKey> {
        let Audience { namespace, rooms, except } = audience;
        let everyone = [bytestring::ByteString::from_static(EVERYONE)];
        let rooms = if rooms.is_empty() { &everyone[..] } else { &rooms[..] };
        let members = rooms.iter().flat_map(|room| self.named(namespace, room));
        let except: IndexSet<ConnKey> = except.iter().flat_map(|room| self.named(namespace, room)).collect();
        members.filter(|key| !except.contains(key)).collect()
    }

    /// Who of this shard is in a room, or is the one socket of this id.
    fn named(&self, namespace: &str, name: &str) -> Vec<ConnKey> {
        if let Some(asker) = self.asker_of(name) {
            return if asker.namespace == namespace { vec![asker.key] } else { Vec::new() };
        }
        let room = self.rooms.find(&RoomKey::new(namespace, name)).and_then(|id| self.rooms.get(id));
        room.map(|room| room.members().copied().collect()).unwrap_or_default()
    }
}

/// The question as other nodes get it.
fn to_wire(survey: &Survey, timeout: Duration) -> survey::Survey {
    let Survey { audience, id, payload, back, .. } = survey;
    survey::Survey {
        shard: back.shard,
        survey: back.survey,
        id: *id,
        timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        namespace: audience.namespace.clone(),
        rooms: audience.rooms.to_vec(),
        except: audience.except.clone(),
        payload: payload.clone(),
    }
}
