//! A WebSocket that wants to take over from polling (protocol.md 4).
//!
//! Invariants: it may say `2probe`, then `5`, and nothing else; whatever goes wrong costs only the candidate. Polling
//! stays the active transport until the `5`.

use std::time::{Duration, Instant};

use crate::engine::{Message, Packet};

/// How soon another poll is released while the client pauses polling. Not at once, because a client that has not seen
/// the probe's answer yet polls again and would spin.
const RELEASE_INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Candidate {
    /// The `5` must have arrived by then.
    deadline: Instant,
    /// From then on a waiting poll is released; `None` before the probe.
    release_at: Option<Instant>,
}

/// What a packet from the candidate means.
pub(super) enum Step {
    /// Answer the probe.
    Answer(Packet),
    /// The WebSocket is the transport now.
    Switch,
    /// Not allowed: close the candidate.
    Refuse,
}

impl Candidate {
    pub(super) fn new(now: Instant, timeout: Duration) -> Candidate {
        Candidate { deadline: now + timeout, release_at: None }
    }

    pub(super) fn handle_packet(&mut self, message: &Message, now: Instant) -> Step {
        let Message::Text(text) = message else { return Step::Refuse };
        match (text.as_ref(), self.release_at) {
            ("2probe", None) => {
                self.release_at = Some(now);
                Step::Answer(Packet::Pong("probe".into()))
            }
            ("5", Some(_)) => Step::Switch,
            (_, None | Some(_)) => Step::Refuse,
        }
    }

    /// Whether a poll that waits now is to be released. Saying yes starts the next interval.
    pub(super) fn releases_poll(&mut self, now: Instant) -> bool {
        let due = self.release_at.is_some_and(|at| at <= now);
        if due {
            self.release_at = Some(now + RELEASE_INTERVAL);
        }
        due
    }

    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.deadline <= now
    }

    pub(super) fn poll_timeout(&self, poll_waits: bool) -> Instant {
        match self.release_at {
            Some(at) if poll_waits => at.min(self.deadline),
            Some(_) | None => self.deadline,
        }
    }
}

/// Why a WebSocket cannot become a candidate. The session lives on; the driver closes that WebSocket at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeRefused {
    /// Upgrades are switched off.
    #[error("upgrades are not offered")]
    Disabled,
    /// The session has its WebSocket already, or another one is probing.
    #[error("the session already has a WebSocket")]
    Occupied,
    /// The session is over or about to be.
    #[error("the session is closed")]
    Closed,
}
