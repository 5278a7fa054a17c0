//! Why sessions end.
//!
//! Invariant: every reason has one stable metric label, and says by itself how the transport is to be closed.

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CloseReason {
    /// The WebSocket was closed by the client.
    TransportClose,
    /// The transport broke, or the client broke its rules (two polls at once, a ping in the wrong direction).
    TransportError,
    /// No answer to a ping in time.
    PingTimeout,
    /// Something undecodable arrived.
    ParseError,
    /// The client sent a close packet.
    ClientClose,
    /// The server wants this one session gone.
    ServerClose,
    /// The client reads more slowly than its messages come.
    SlowConsumer,
    /// No namespace was joined in time.
    ConnectTimeout,
    /// The node is going away; the client should come back elsewhere.
    Draining,
    /// The client sent far more than it may.
    RateLimited,
    /// The server is short of memory and gives this session up.
    Overloaded,
}

impl CloseReason {
    /// The label for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::TransportClose => "transport_close",
            CloseReason::TransportError => "transport_error",
            CloseReason::PingTimeout => "ping_timeout",
            CloseReason::ParseError => "parse_error",
            CloseReason::ClientClose => "client_close",
            CloseReason::ServerClose => "server_close",
            CloseReason::SlowConsumer => "slow_consumer",
            CloseReason::ConnectTimeout => "connect_timeout",
            CloseReason::Draining => "draining",
            CloseReason::RateLimited => "rate_limited",
            CloseReason::Overloaded => "overloaded",
        }
    }

    /// The WebSocket close code (RFC 6455, 7.4.1); `None` where a plain close frame says enough.
    pub(super) fn websocket_code(self) -> Option<u16> {
        match self {
            CloseReason::TransportError | CloseReason::ParseError => Some(1002),
            CloseReason::SlowConsumer | CloseReason::RateLimited => Some(1008),
            CloseReason::Draining => Some(1001),
            CloseReason::Overloaded => Some(1013),
            CloseReason::TransportClose
            | CloseReason::PingTimeout
            | CloseReason::ClientClose
            | CloseReason::ServerClose
            | CloseReason::ConnectTimeout => None,
        }
    }

    /// Whether a polling client should still get what was sent to it, and a close packet, by its next poll.
    pub(super) fn lets_client_poll(self) -> bool {
        match self {
            CloseReason::ParseError
            | CloseReason::ServerClose
            | CloseReason::ConnectTimeout
            | CloseReason::Draining => true,
            CloseReason::TransportClose
            | CloseReason::TransportError
            | CloseReason::PingTimeout
            | CloseReason::ClientClose
            | CloseReason::SlowConsumer
            | CloseReason::RateLimited
            | CloseReason::Overloaded => false,
        }
    }
}
