//! Giving connections up at a pace, so that they do not all come back elsewhere in the same second.
//!
//! Invariants (`operators.md` 1.2): transports are closed, never a Socket.IO DISCONNECT sent (stock clients would not come
//! back); the pace never exceeds `per_second`; a drain ends when the last connection is gone.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use protocol::engine::session::CloseReason;
use tokio::sync::oneshot;

use super::{Gateway, reply};
use crate::key::ConnKey;

/// How often a share of the connections is closed.
const STEP: Duration = Duration::from_millis(100);

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    per_second: usize,
    next: Instant,
    /// Told to close; a polling session lives on until its client fetches that, or for half a minute.
    told: HashSet<ConnKey>,
    done: Option<oneshot::Sender<()>>,
}

impl Drain {
    pub(super) fn new(per_second: usize, done: oneshot::Sender<()>, now: Instant) -> Drain {
        Drain { per_second: per_second.max(10), next: now, told: HashSet::new(), done: Some(done) }
    }
}

impl Gateway {
    pub(super) fn start_drain(&mut self, drain: Drain, now: Instant) {
        self.draining = Some(drain);
        self.drain_some(now);
    }

    pub(super) fn drain_timeout(&self) -> Option<Instant> {
        self.draining.as_ref().map(|drain| drain.next)
    }

    /// Closes this step's share.
    pub(super) fn drain_some(&mut self, now: Instant) {
        let Some(drain) = &mut self.draining else { return };
        if drain.next > now {
            return;
        }
        drain.next = now + STEP;
        let share = drain.per_second.div_ceil(10);
        let keys = self.connections.keys();
        if keys.is_empty() {
            drain.next = now + Duration::from_secs(3_600);
            if let Some(done) = drain.done.take() {
                reply(done, ());
            }
            return;
        }
        let share: Vec<ConnKey> = keys.into_iter().filter(|key| !drain.told.contains(key)).take(share).collect();
        drain.told.extend(&share);
        for key in share {
            self.close(key, CloseReason::Draining, now);
        }
    }
}
