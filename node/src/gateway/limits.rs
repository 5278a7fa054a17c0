//! What clients may not do, and what is given up when memory is short (`reliability.md` 4.4).
//!
//! Invariants: whoever is refused is told why by the answer he asked for, or by the close of his connection; a client that
//! keeps to the limits notices nothing; relief comes in small steps, so that it never takes more than it must.

use std::{
    cmp::Reverse,
    rc::Rc,
    time::{Duration, Instant},
};

use mesh::wire::message::Refusal;
use protocol::{engine::session::CloseReason, sid::Sid};

use super::Gateway;
use crate::{conduct::Verdict, handler::Refused, key::ConnKey, metrics::RejectReason, pressure::Level, wire::Line};

/// How often something is given up while memory is short.
const RELIEVE_EVERY: Duration = Duration::from_millis(500);
/// The share of those concerned that is given up at once.
const RELIEF_SHARE: usize = 8;
/// Who is behind by less frees too little to be given up for it.
const BEHIND_MIN: usize = 16 * 1024;

impl Gateway {
    /// Counts a message that came; `false` if it ended its connection.
    pub(super) fn heed(&mut self, key: ConnKey, bytes: usize, now: Instant) -> bool {
        let second = self.second(now);
        let Some(connection) = self.connections.get_mut(key) else { return false };
        connection.heard = second;
        let connected = connection.connect_by.is_none();
        let (reject, close) = match connection.conduct.heed(&self.context.conduct, bytes, connected, now) {
            Verdict::Handle => return true,
            Verdict::Flood => (RejectReason::RateLimited, CloseReason::RateLimited),
            Verdict::Unconnected => (RejectReason::ConnectBytes, CloseReason::RateLimited),
        };
        self.tally.rejected.push(reject);
        self.close(key, close, now);
        false
    }

    /// Bytes that a body of this session may have.
    pub(super) fn body_max(&self, sid: &Sid) -> usize {
        self.sids.get(sid).map_or(self.context.session.max_payload, |key| self.message_max(*key))
    }

    /// Bytes that the next message of a connection may have.
    pub(crate) fn message_max(&self, key: ConnKey) -> usize {
        let max = self.context.session.max_payload;
        let connected = self.connections.get(key).is_none_or(|connection| connection.connect_by.is_none());
        if connected { max } else { max.min(self.context.config.limits.connect_bytes.bytes()) }
    }

    /// A client took nothing for as long as it may.
    pub(crate) fn handle_stalled(&mut self, key: ConnKey, line: &Rc<Line>, now: Instant) {
        if self.connections.get(key).and_then(|connection| connection.wire.as_ref()).is_some_and(|wire| wire.is(line)) {
            self.close(key, CloseReason::SlowConsumer, now);
        }
    }

    /// Seconds of this shard's life.
    pub(super) fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }

    /// Notes whether attachments are missing after what just came.
    pub(super) fn note_assembly(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let incomplete = connection.decoder.is_assembling();
        connection.conduct.set_incomplete(incomplete, &self.context.conduct, now);
    }

    /// Whether the event that is complete now, a join or another, came too fast.
    pub(super) fn is_too_fast(&mut self, key: ConnKey, joins: bool, now: Instant) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let conduct = &mut connection.conduct;
        conduct.is_over() || (joins && !conduct.may_join(&self.context.conduct, now))
    }

    /// Closes a connection whose message did not get on. Whether it was so.
    pub(super) fn give_up_assembly(&mut self, key: ConnKey, now: Instant) -> bool {
        let late = |by: Instant| by <= now;
        let overdue =
            self.connections.get(key).and_then(|connection| connection.conduct.assemble_by()).is_some_and(late);
        if overdue {
            self.tally.rejected.push(RejectReason::Assembly);
            self.close(key, CloseReason::ParseError, now);
        }
        overdue
    }

    /// Gives up a share of what the level of memory pressure asks for.
    pub(super) fn relieve(&mut self, now: Instant) {
        let level = self.context.pressure.level();
        if level < Level::Polling || self.relieved.is_some_and(|at| now.saturating_duration_since(at) < RELIEVE_EVERY) {
            return;
        }
        self.relieved = Some(now);
        let mut polling = Vec::new();
        let mut behind = Vec::new();
        for (key, connection) in self.connections.iter() {
            match &connection.wire {
                _ if connection.polls() => polling.push((connection.heard, key)),
                Some(wire) if wire.behind() >= BEHIND_MIN => behind.push((Reverse(wire.behind()), key)),
                Some(_) | None => {}
            }
        }
        self.give_up(polling, CloseReason::Overloaded, now);
        if level >= Level::Laggards {
            self.give_up(behind, CloseReason::SlowConsumer, now);
        }
    }

    /// Closes the first of them.
    fn give_up<T: Ord>(&mut self, mut candidates: Vec<(T, ConnKey)>, reason: CloseReason, now: Instant) {
        let share = candidates.len().div_ceil(RELIEF_SHARE);
        if share == 0 {
            return;
        }
        candidates.select_nth_unstable_by(share - 1, |(a, _), (b, _)| a.cmp(b));
        for (_, key) in candidates.drain(..share) {
            self.tally.rejected.push(RejectReason::Memory);
            self.close(key, reason, now);
        }
    }

    /// Why memory is too short for a message, if it is.
    pub(super) fn shortage(&self, volatile: bool) -> Option<Refused> {
        let level = self.context.pressure.level();
        let short = level >= Level::Publishes || (volatile && level >= Level::Volatile);
        short.then(|| Refusal::Overloaded { retry_ms: 1_000 }.into())
    }
}
