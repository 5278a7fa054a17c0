//! What a session starts with: the settings all sessions share, and the open packet made of them (protocol.md 1).
//!
//! Invariant: the open packet has exactly the five keys of the specification; test suites check the set.

use std::time::Duration;

use crate::{Sid, engine::Packet};

/// What all sessions of a server share.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// From the answer to a ping to the next ping.
    pub ping_interval: Duration,
    /// How long the client may take to answer a ping.
    pub ping_timeout: Duration,
    /// How long a candidate WebSocket may take to finish the upgrade.
    pub upgrade_timeout: Duration,
    /// Largest polling body in bytes; the driver holds WebSocket messages to it.
    pub max_payload: usize,
    /// Most packets in one polling body from a client.
    pub packets_per_payload: usize,
    /// Whether polling clients are offered the WebSocket.
    pub websocket_upgrade: bool,
    /// How long a session closed by the server waits for one more poll.
    pub polling_close_wait: Duration,
}

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// One WebSocket.
    WebSocket,
}

pub(super) fn open_packet(config: &SessionConfig, transport: Transport, sid: &Sid) -> Packet {
    let upgrades = match transport {
        Transport::Polling if config.websocket_upgrade => r#"["websocket"]"#,
        Transport::Polling | Transport::WebSocket => "[]",
    };
    let (interval, timeout) = (config.ping_interval.as_millis(), config.ping_timeout.as_millis());
    let max_payload = config.max_payload;
    Packet::Open(
        format!(
            r#"{{"sid":"{sid}","upgrades":{upgrades},"pingInterval":{interval},"pingTimeout":{timeout},"maxPayload":{max_payload}}}"#
        )
        .into(),
    )
}
