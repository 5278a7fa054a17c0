//! How connections end, in codes and in words.
//!
//! Invariants: codes are never renumbered; a peer's words are shown, never acted on, and only its codes are.

use quinn::{Connection, ConnectionError, VarInt};

use crate::RefusalReason;

/// Codes connections are closed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node leaves or its mesh stops.
    Leaving = 1,
    /// A later process of the same node took the place of this one.
    Replaced = 2,
    /// There is a better connection between the two already.
    Duplicate = 3,
    /// A later process of the dialling node is known: that one must stop.
    Superseded = 4,
    /// Slots, lanes or protocol do not fit.
    Incompatible = 5,
    /// What came is no protocol of ours.
    Malformed = 6,
    /// The certificate names another node than the hello.
    WrongIdentity = 7,
    /// We dialled ourselves.
    Ourselves = 8,
    /// The cluster key its certificate came from is not accepted any more; another handshake finds one both know.
    Rekeyed = 9,
    /// An earlier process of the dialling node is alive: this one must stop.
    Twin = 10,
}

impl CloseCode {
    /// As QUIC carries it.
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// Closes a connection with a code of ours.
pub(crate) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(code.code(), reason.as_bytes());
}

/// Why a connection came to nothing or an end.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to do about it.
    pub(crate) kind: FailureKind,
    /// For the log.
    pub(crate) reason: String,
    /// What it counts as, if somebody refused somebody.
    pub(crate) refusal: Option<RefusalReason>,
}

/// What a failure means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Nobody there, or too slow. Ordinary.
    Silent,
    /// The handshake failed: most likely another cluster key. The peer is not authenticated.
    Handshake,
    /// A node of this cluster with which something does not fit.
    Refused,
    /// There is a link already. Ordinary.
    Duplicate,
    /// We reached ourselves. Ordinary for a seed.
    Ourselves,
    /// A later process of our node exists: we must stop.
    Superseded,
    /// An earlier process of our node is alive: we must stop.
    Twin,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, reason: impl std::fmt::Display) -> Failure {
        let refusal = match kind {
            FailureKind::Handshake => Some(RefusalReason::Key),
            FailureKind::Superseded | FailureKind::Twin => Some(RefusalReason::Twin),
            FailureKind::Silent | FailureKind::Refused | FailureKind::Duplicate | FailureKind::Ourselves => None,
        };
        Failure { kind, reason: reason.to_string(), refusal }
    }

    /// The other side did not come to an end in time.
    pub(crate) fn late(reason: &str) -> Failure {
        Failure { refusal: Some(RefusalReason::Timeout), ..Failure::new(FailureKind::Silent, reason) }
    }

    /// We closed it with this code.
    pub(crate) fn ours(code: CloseCode, reason: &str) -> Failure {
        coded(code.code(), format!("{code:?}: {reason}"))
    }

    /// We closed it because it has to stop, which is no reason for us to.
    pub(crate) fn theirs(code: CloseCode, reason: &str) -> Failure {
        Failure { kind: FailureKind::Refused, ..Failure::ours(code, reason) }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Failure {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = format!("closed by peer: {}", String::from_utf8_lossy(&close.reason));
                match close.error_code {
                    // That a later process took our place is told to us by the word "replaced".
                    code if code == CloseCode::Replaced.code() => Failure::new(FailureKind::Superseded, reason),
                    code => coded(code, reason),
                }
            }
            ConnectionError::TimedOut => Failure::late("timed out"),
            ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_) => {
                Failure::new(FailureKind::Handshake, error)
            }
            ConnectionError::VersionMismatch
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed
            | ConnectionError::CidsExhausted => Failure::new(FailureKind::Silent, error),
        }
    }
}

fn coded(code: VarInt, reason: String) -> Failure {
    let failure = Failure::new(kind(code), reason);
    let counts_as = [
        (CloseCode::Incompatible, RefusalReason::Version),
        (CloseCode::Malformed, RefusalReason::Malformed),
        (CloseCode::WrongIdentity, RefusalReason::Identity),
    ];
    let found = counts_as.into_iter().find(|(of, _)| of.code() == code).map(|(_, reason)| reason);
    Failure { refusal: found.or(failure.refusal), ..failure }
}

fn kind(code: VarInt) -> FailureKind {
    match code {
        code if code == CloseCode::Superseded.code() => FailureKind::Superseded,
        code if code == CloseCode::Twin.code() => FailureKind::Twin,
        code if code == CloseCode::Duplicate.code() => FailureKind::Duplicate,
        code if code == CloseCode::Ourselves.code() => FailureKind::Ourselves,
        code if code == CloseCode::Leaving.code() || code == CloseCode::Rekeyed.code() => FailureKind::Silent,
        _ => FailureKind::Refused,
    }
}
