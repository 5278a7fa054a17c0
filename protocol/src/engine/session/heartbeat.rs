//! The heartbeat of Engine.IO v4: the server pings, the client answers in time (protocol.md 3).
//!
//! Invariants: at most one ping is unanswered; the next one is due a whole interval after the answer; a pong that
//! nobody asked for changes nothing, so a client cannot keep itself alive by talking without listening.

use std::time::{Duration, Instant};

#[derive(Clone, Copy)]
pub(super) enum Heartbeat {
    /// The next ping is due then.
    Resting(Instant),
    /// A ping is out; its answer must be here by then.
    Waiting(Instant),
}

/// What is due now.
pub(super) enum Beat {
    Nothing,
    Ping,
    Dead,
}

impl Heartbeat {
    pub(super) fn new(now: Instant, interval: Duration) -> Heartbeat {
        Heartbeat::Resting(now + interval)
    }

    pub(super) fn handle_pong(&mut self, now: Instant, interval: Duration) {
        match self {
            Heartbeat::Waiting(_) => *self = Heartbeat::Resting(now + interval),
            Heartbeat::Resting(_) => {}
        }
    }

    /// A late timer gives the client its whole time to answer: the deadline counts from the ping as it was sent.
    pub(super) fn handle_timeout(&mut self, now: Instant, timeout: Duration) -> Beat {
        match self {
            Heartbeat::Resting(due) if *due <= now => {
                *self = Heartbeat::Waiting(now + timeout);
                Beat::Ping
            }
            Heartbeat::Waiting(due) if *due <= now => Beat::Dead,
            Heartbeat::Resting(_) | Heartbeat::Waiting(_) => Beat::Nothing,
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        match self {
            Heartbeat::Resting(due) | Heartbeat::Waiting(due) => *due,
        }
    }
}
