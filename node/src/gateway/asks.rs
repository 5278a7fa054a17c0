//! Questions to clients: events that are sent with an ack id, and who waits for the answers.
//!
//! Invariants: each question is answered once, by its client, by time, or by the end of its socket; a connection has at most
//! `OPEN_MAX` open, and one that has none costs nothing; an answer that nobody waits for (any more) is passed over.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use protocol::socketio::Args;

use super::{
    Asker, Gateway,
    surveys::{Back, Report},
};
use crate::{
    handler::{SayError, Socket},
    key::ConnKey,
};

/// Questions that one connection may leave unanswered.
const OPEN_MAX: usize = 256;

/// Why a client did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// Not in time. An answer that comes later is passed over.
    #[error("no answer in time")]
    Timeout,
    /// The socket is gone.
    #[error("the socket is gone")]
    Gone,
}

/// A closure that is told a client's answer.
type Listener = Box<dyn FnOnce(&mut Socket<'_>, Result<Args, AskError>)>;

/// Who waits for a client's answer.
pub(crate) enum Waiter {
    /// The program.
    Call(Listener),
    /// A survey, whose shard is told.
    Survey(Back),
}

struct Open {
    id: u64,
    asker: Asker,
    due: Instant,
    waiter: Waiter,
}

/// What this shard's clients were asked.
#[derive(Default)]
pub(super) struct Asks {
    next: u64,
    open: HashMap<ConnKey, Vec<Open>>,
    due: BTreeSet<(Instant, ConnKey, u64)>,
}

impl Asks {
    fn insert(&mut self, open: Open) -> Result<(), SayError> {
        let of_connection = self.open.entry(open.asker.key).or_default();
        if of_connection.len() >= OPEN_MAX {
            return Err(SayError::TooManyAsks);
        }
        self.due.insert((open.due, open.asker.key, open.id));
        of_connection.push(open);
        Ok(())
    }

    fn take(&mut self, key: ConnKey, wanted: impl Fn(&Open) -> bool) -> Option<Open> {
        let of_connection = self.open.get_mut(&key)?;
        let at = of_connection.iter().position(wanted)?;
        // Those that wait longest stay in front: when a socket goes, they are told in their order.
        let open = of_connection.remove(at);
        if of_connection.is_empty() {
            self.open.remove(&key);
        }
        self.due.remove(&(open.due, key, open.id));
        Some(open)
    }

    fn take_due(&mut self, now: Instant) -> Option<Open> {
        let (due, key, id) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.take(key, |open| open.id == id)
    }

    /// When the next one is given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _, _)| *due)
    }
}

impl Gateway {
    /// An ack id that no socket of this node waits for: shards take turns, so that one id can be asked on all of them.
    pub(crate) fn next_ask(&mut self) -> u64 {
        let shards = self.context.shards.len() as u64;
        let id = self.asks.next * shards + u64::from(self.shard);
        // Clients read it as a double; by the time it comes round, whoever had it has long been given up.
        self.asks.next = (self.asks.next + 1) % (1 << 30);
        id
    }

    /// An ack id that no socket of any node waits for.
    pub(crate) fn next_survey_ask(&mut self) -> u64 {
        // Below 2³⁶, since there are at most 64 shards; with the node and the bit that no other id has it is below 2⁵³.
        1 << 52 | u64::from(self.context.node.0) << 36 | self.next_ask()
    }

    /// Waits for a socket's answer to `id`.
    ///
    /// # Errors
    /// Its connection leaves too much unanswered.
    pub(crate) fn expect(&mut self, asker: &Asker, id: u64, due: Instant, waiter: Waiter) -> Result<(), SayError> {
        self.asks.insert(Open { id, asker: asker.clone(), due, waiter })
    }

    /// A client answered.
    pub(super) fn handle_ack(&mut self, key: ConnKey, namespace: &str, id: u64, args: Args, now: Instant) {
        let open = self.asks.take(key, |open| open.id == id && open.asker.namespace == namespace);
        if let Some(open) = open {
            self.end_ask(open, Ok(args), now);
        }
    }

    /// Gives up what is due.
    pub(super) fn give_up_asks(&mut self, now: Instant) {
        while let Some(open) = self.asks.take_due(now) {
            self.end_ask(open, Err(AskError::Timeout), now);
        }
    }

    /// A socket is gone, and answers nothing any more.
    pub(super) fn end_asks(&mut self, asker: &Asker, now: Instant) {
        while let Some(open) = self.asks.take(asker.key, |open| open.asker.socket == asker.socket) {
            self.end_ask(open, Err(AskError::Gone), now);
        }
    }

    fn end_ask(&mut self, open: Open, answer: Result<Args, AskError>, now: Instant) {
        match open.waiter {
            Waiter::Call(call) => {
                self.call(open.asker, now, |_, socket| call(socket, answer));
            }
            Waiter::Survey(back) => self.report(back, answer.map_or(Report::Silence, Report::Answer)),
        }
    }
}
