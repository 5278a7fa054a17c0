//! What all tests of the real program share: the process, clients by hand, and the node's own numbers.
//!
//! Invariants: nothing here knows what is being tested.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test uses its part; helpers fail the test that called them"
)]

pub(crate) mod node;
pub(crate) mod row;
pub(crate) mod wire;

use node::Node;

/// One of the node's numbers, now: `name`, or `name{label="word"}`.
pub(crate) fn metric(node: &Node, name: &str) -> f64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let answer = wire::exchange(node.admin, request).expect("no metrics");
    let line = answer.body.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).expect(name)
}

/// How often something was refused for this reason.
pub(crate) fn rejected(node: &Node, reason: &str) -> f64 {
    metric(node, &format!("starling_rejected_total{{reason=\"{reason}\"}}"))
}

/// Files and sockets the node has open.
pub(crate) fn descriptors(node: &Node) -> f64 {
    metric(node, "process_open_fds")
}

/// Looks until it holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited 20 s for {what}");
}
