//! What was refused of peers and strangers: counted by reason, and told without letting anybody fill the log.
//!
//! Invariants: reasons are a closed set; whoever proved the cluster key is told about at once, strangers at most once per
//! [`QUIET`]; a refusal changes nothing but these numbers.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    close::{Failure, FailureKind},
    greeting::{Target, Way},
};

/// Strangers are told about at most this often.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection or something that came over one was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The handshake failed: no cluster key, another one, or no TLS of ours at all.
    Key,
    /// A handshake or a greeting that was not finished in time.
    Timeout,
    /// Too many handshakes were under way.
    Crowded,
    /// Another protocol, number of slots or number of lanes.
    Version,
    /// The certificate is another node's than the one it says it is.
    Identity,
    /// A node that runs already, or ran later, was started a second time.
    Twin,
    /// Bytes that are no frame of ours where one was due; the connection was closed.
    Malformed,
    /// A gossip packet or a roster that cannot be read; it was dropped.
    Gossip,
    /// A question that cannot be read or is too large; it was not answered.
    Question,
}

impl RefusalReason {
    /// Every reason.
    pub const ALL: [RefusalReason; 9] = [
        RefusalReason::Key,
        RefusalReason::Timeout,
        RefusalReason::Crowded,
        RefusalReason::Version,
        RefusalReason::Identity,
        RefusalReason::Twin,
        RefusalReason::Malformed,
        RefusalReason::Gossip,
        RefusalReason::Question,
    ];
}

/// How often each reason came up; shared by the tasks of a mesh.
#[derive(Debug, Default)]
pub(crate) struct Refusals([AtomicU64; RefusalReason::ALL.len()]);

impl Refusals {
    /// One more.
    pub(crate) fn count(&self, reason: RefusalReason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// All counts, in the order of [`RefusalReason::ALL`].
    pub(crate) fn read(&self) -> [u64; RefusalReason::ALL.len()] {
        self.0.each_ref().map(|count| count.load(Relaxed))
    }
}

/// Tells operators about connections that came to nothing.
#[derive(Debug, Default)]
pub(crate) struct Told {
    last: Option<Instant>,
    unsaid: u64,
}

impl Told {
    /// What an operator must see is a warning.
    pub(crate) fn tell(&mut self, failure: &Failure, way: Way, now: Instant) {
        let reason = &failure.reason;
        match (failure.kind, way) {
            (FailureKind::Handshake, Way::Dialled(Target { addr, .. })) => {
                tracing::warn!(%addr, reason, "dialled something that does not share our cluster key or protocol");
            }
            (FailureKind::Handshake, Way::Accepted(addr)) => self.tell_of_stranger(addr, reason, now),
            (FailureKind::Refused, _) => tracing::warn!(?way, reason, "a node of this cluster does not fit"),
            (FailureKind::Superseded | FailureKind::Twin, _) => {
                tracing::error!(?way, reason, "this node was started twice");
            }
            (FailureKind::Silent | FailureKind::Duplicate | FailureKind::Ourselves, _) => {
                tracing::debug!(?way, reason, "a connection came to nothing");
            }
        }
    }

    fn tell_of_stranger(&mut self, addr: SocketAddr, reason: &str, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.unsaid += 1;
            return;
        }
        self.last = Some(now);
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::warn!(%addr, reason, unsaid, "somebody without our cluster key or protocol was refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let refusals = Refusals::default();
        for (times, reason) in RefusalReason::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| refusals.count(reason));
        }
        assert_eq!(refusals.read(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn strangers_are_told_about_once_in_a_while() {
        let (mut told, now) = (Told::default(), crate::clock::now());
        let (failure, way) = (Failure::new(FailureKind::Handshake, "no"), Way::Accepted("10.0.0.1:1".parse().unwrap()));
        for _ in 0..5 {
            told.tell(&failure, way, now);
        }
        assert_eq!((told.last, told.unsaid), (Some(now), 4));
        told.tell(&failure, way, now + QUIET);
        assert_eq!((told.last, told.unsaid), (Some(now + QUIET), 0));
    }
}
