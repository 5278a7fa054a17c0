//! Members that read slowly, or not at all, in a room that others read well: the real program over real sockets.
//!
//! Invariants checked: nobody else waits for a laggard; a laggard that reads again has missed nothing and sees everything
//! in order; one that never reads is cut off, and counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

#[path = "bad_input/node.rs"]
#[expect(dead_code, reason = "shared with the table of bad input, which uses all of it")]
mod node;
#[path = "bad_input/row.rs"]
#[expect(dead_code, reason = "shared with the table of bad input, which uses all of it")]
mod row;
#[path = "bad_input/wire.rs"]
#[expect(dead_code, reason = "shared with the table of bad input, which uses all of it")]
mod wire;

use node::Node;
use wire::{Frame, WebSocket};

/// More than the kernel's buffers of a loopback connection hold, less than a connection may be behind.
const MESSAGES: usize = 400;
const BYTES: usize = 16 * 1024;

/// One of the node's numbers, now.
fn metric(node: &Node, name: &str) -> f64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    let answer = wire::exchange(node.admin, request).expect("no metrics");
    let line = answer.body.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).expect(name)
}

fn join(node: &Node) -> WebSocket {
    let mut socket = WebSocket::connected(node.clients);
    socket.text(r#"420["room:join",{"room":"r"}]"#);
    let Frame::Text(ack) = socket.packet() else { panic!("no ack") };
    assert!(ack.starts_with("430[") && ack.contains("\"ok\":true"), "{ack}");
    socket
}

fn publish(socket: &mut WebSocket, n: usize) {
    let filler = "x".repeat(BYTES);
    socket.text(&format!(r#"42{n}["room:publish",{{"room":"r","event":"e","args":[{n},"{filler}"]}}]"#));
    let Frame::Text(ack) = socket.packet() else { panic!("no ack for {n}") };
    assert!(ack.contains("\"ok\":true"), "{ack}");
}

fn expect_event(socket: &mut WebSocket, n: usize) {
    let Frame::Text(event) = socket.packet() else { panic!("no message {n}") };
    assert!(event.starts_with(&format!(r#"42["e",{n},"#)), "wanted {n}, saw {}", &event[..40.min(event.len())]);
}

#[test]
fn a_laggard_misses_nothing_and_delays_nobody() {
    let node = Node::start_with(&[("STARLING_LIMITS__QUEUE_BYTES", "64MiB")]);
    let (mut publisher, mut reader, mut laggard) = (WebSocket::connected(node.clients), join(&node), join(&node));
    for n in 0..MESSAGES {
        publish(&mut publisher, n);
        expect_event(&mut reader, n);
    }
    assert!(metric(&node, "starling_lagging_members") >= 1.0, "nobody lagged: nothing was tested");
    for n in 0..MESSAGES {
        expect_event(&mut laggard, n);
    }
    publish(&mut publisher, MESSAGES);
    expect_event(&mut laggard, MESSAGES);
    expect_event(&mut reader, MESSAGES);
    assert_eq!(metric(&node, "starling_lagging_members"), 0.0);
    node.stop().unwrap();
}

#[test]
fn who_never_reads_is_cut_off_and_counted() {
    let node = Node::start_with(&[("STARLING_LIMITS__QUEUE_BYTES", "256KiB")]);
    let (mut publisher, mut reader, mut laggard) = (WebSocket::connected(node.clients), join(&node), join(&node));
    for n in 0..MESSAGES {
        publish(&mut publisher, n);
        expect_event(&mut reader, n);
    }
    assert_eq!(metric(&node, "starling_slow_consumers_closed_total"), 1.0);
    let mut seen = 0;
    while let Frame::Text(event) = laggard.packet() {
        assert!(event.starts_with(&format!(r#"42["e",{seen},"#)), "a gap before the end");
        seen += 1;
    }
    assert!(seen < MESSAGES, "it was not cut off");
    node.stop().unwrap();
}
