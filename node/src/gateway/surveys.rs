//! One question to many clients: every shard asks those it has, and the shard that wants to know collects the answers.
//!
//! Invariants: the question is encoded once, with one ack id for all; each shard says how many it asked and then what became
//! of each, in time or not, so a survey ends when the last has spoken and needs no clock of its own; what it collects is
//! bounded in bytes; it goes through the shards' mailboxes, this one's too, so that it never ends inside the call that
//! started it.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use indexmap::IndexSet;
use mesh::room::RoomKey;
use protocol::socketio::Args;

use super::{Asker, EVERYONE, Gateway, asks::Waiter};
use crate::{handler::Socket, key::ConnKey, message::Message};

/// Bytes of answers that one survey collects; whoever answers beyond that is counted as silent.
const ANSWERS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What many clients answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Each client's, in the order in which they came.
    pub answers: Vec<Args>,
    /// How many were asked and did not answer in time, or went away.
    pub silent: usize,
}

/// Who is told the answers.
pub(crate) type Collector = Box<dyn FnOnce(&mut Socket<'_>, Answers)>;

/// A question to many clients, as every shard gets it.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) namespace: ByteString,
    /// Rooms and sockets; none is the whole namespace.
    pub(crate) rooms: Vec<ByteString>,
    pub(crate) except: Vec<ByteString>,
    /// The ack id.
    pub(crate) id: u64,
    pub(crate) payload: Bytes,
    pub(crate) due: Instant,
    pub(crate) back: Back,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Back {
    shard: u8,
    survey: u64,
}

/// What a shard says about a survey.
#[derive(Debug)]
pub(crate) enum Report {
    /// So many clients are asked; once per shard.
    Asked(usize),
    /// One of them answered.
    Answer(Args),
    /// One of them did not.
    Silence,
}

/// A survey under way, where it was started.
pub(super) struct Open {
    asker: Asker,
    collector: Collector,
    /// Shards that have not said whom they ask.
    shards: usize,
    /// Clients that are asked and have neither answered nor been given up.
    clients: usize,
    bytes: usize,
    collected: Answers,
}

impl Gateway {
    /// Starts a survey; `ask` says what to ask.
    pub(crate) fn survey(&mut self, asker: &Asker, collector: Collector, ask: impl FnOnce(Back) -> Survey) {
        let shards = self.context.shards.len();
        let asker = asker.clone();
        let open = Open { asker, collector, shards, clients: 0, bytes: 0, collected: Answers::default() };
        let back = Back { shard: self.shard, survey: self.surveys.insert(open) as u64 };
        let survey = Arc::new(ask(back));
        for outgoing in &mut self.outgoing {
            outgoing.push(Message::Survey(survey.clone()));
        }
    }

    /// Asks the clients of this shard.
    pub(super) fn handle_survey(&mut self, survey: &Survey) {
        let members = self.surveyed(survey);
        self.report(survey.back, Report::Asked(members.len()));
        for key in members {
            let socket = self.asker(key, &survey.namespace);
            let asked = socket
                .is_some_and(|socket| self.expect(&socket, survey.id, survey.due, Waiter::Survey(survey.back)).is_ok());
            let connection = self.connections.get_mut(key).filter(|_| asked);
            match connection.map(|connection| connection.send_payload(&survey.payload)) {
                Some(Ok(())) => self.touch(key),
                // It was encoded here, so it can be read; if not, time gives it up.
                Some(Err(error)) => tracing::error!(%error, "a question that was made here cannot be read"),
                None => self.report(survey.back, Report::Silence),
            }
        }
    }

    /// What a shard says about a survey of this one.
    pub(super) fn handle_report(&mut self, survey: u64, report: Report, now: Instant) {
        let Some(at) = usize::try_from(survey).ok().filter(|at| self.surveys.contains(*at)) else { return };
        let open = &mut self.surveys[at];
        match report {
            Report::Asked(clients) => {
                open.shards = open.shards.saturating_sub(1);
                open.clients += clients;
            }
            Report::Answer(args) => {
                open.clients = open.clients.saturating_sub(1);
                open.bytes += args.weight();
                if open.bytes > ANSWERS_BYTES_MAX {
                    open.collected.silent += 1;
                } else {
                    open.collected.answers.push(args);
                }
            }
            Report::Silence => {
                open.clients = open.clients.saturating_sub(1);
                open.collected.silent += 1;
            }
        }
        if open.shards == 0 && open.clients == 0 {
            let Open { asker, collector, collected, .. } = self.surveys.remove(at);
            self.call(asker, now, |_, socket| collector(socket, collected));
        }
    }

    /// Says something about a survey to the shard that started it.
    pub(super) fn report(&mut self, back: Back, report: Report) {
        self.tell_shard(back.shard, Message::Report { survey: back.survey, report });
    }

    /// Who is meant, each once.
    fn surveyed(&self, survey: &Survey) -> IndexSet<ConnKey> {
        let everyone = [ByteString::from_static(EVERYONE)];
        let rooms = if survey.rooms.is_empty() { &everyone[..] } else { &survey.rooms };
        let members = rooms.iter().flat_map(|room| self.named(&survey.namespace, room));
        let except: IndexSet<ConnKey> =
            survey.except.iter().flat_map(|room| self.named(&survey.namespace, room)).collect();
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
