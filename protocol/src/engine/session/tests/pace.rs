//! The pace of the protocol suites, for everything that drives a session under a hand-moved clock: the tests here, the
//! golden vectors and the fuzzer, which bring `SessionConfig` from where they see it.

use std::time::Duration;

use super::SessionConfig;

pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        upgrade_timeout: Duration::from_secs(10),
        max_payload: 1000,
        packets_per_payload: 8,
        websocket_upgrade: true,
        polling_close_wait: Duration::from_secs(30),
    }
}
