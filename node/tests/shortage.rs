//! Too little of what the machine gives: the real program with few descriptors, and under a low limit of memory.
//!
//! Invariants checked: the process lives and answers its operator; whoever is refused is told so; whoever is served already
//! goes on; what is given up is given up in the documented order; it ends when the shortage ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use support::{
    metric,
    node::Node,
    rejected, until,
    wire::{Connection, FRESH_WEBSOCKET, Frame, WebSocket, exchange, get, polling, post, upgrade},
};

/// Between looks at the node, each some 800 KB of messages apart.
const FLOOD_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

#[test]
fn a_node_short_of_descriptors_refuses_newcomers_serves_the_rest_and_its_operator_and_recovers() {
    let node = Node::start_short_of_descriptors(80, &[("STARLING_SERVER__SHARDS", "2")]);
    let mut members = Vec::new();
    let refusal = loop {
        let mut connection = Connection::open(node.clients);
        connection.send(&upgrade(FRESH_WEBSOCKET, &[]));
        match connection.answer() {
            Some(answer) if answer.status == 101 => members.push(connection),
            other => break other,
        }
        assert!(members.len() < 80, "more clients than descriptors");
    };
    let refusal = refusal.expect("a word");
    assert_eq!((refusal.status, refusal.header("retry-after")), (503, Some("5")));
    assert!(refusal.body.contains("descriptors"), "{}", refusal.body);
    assert!(members.len() >= 20, "{} clients fit", members.len());

    // Many more knock at once, and stay: the operator still gets an answer.
    let crowd: Vec<Connection> = (0..200).map(|_| Connection::open(node.clients)).collect();
    node.check().unwrap();
    until("the count", || rejected(&node, "descriptors") >= 100.0);
    drop(crowd);
    drop(members);
    until("a recovery", || WebSocket::open(node.clients, FRESH_WEBSOCKET).is_ok());
    let mut socket = WebSocket::connected(node.clients);
    assert!(socket.ask("room:join", r#"{"room":"r"}"#).contains("\"ok\":true"));
    node.check().unwrap();
    node.stop().unwrap();
}

#[test]
fn a_node_short_of_memory_gives_up_one_thing_after_the_other_and_lives() {
    let node = Node::start_with(&[
        ("STARLING_LIMITS__MEMORY_BYTES", "80MiB"),
        ("STARLING_LIMITS__QUEUE_BYTES", "1GiB"),
        ("STARLING_STORE__KIND", "memory"),
        ("STARLING_STORE__MAX_BYTES", "4GiB"),
    ]);
    assert_eq!(metric(&node, "starling_memory_pressure"), 0.0);
    let query = polling(node.clients);
    assert_eq!(exchange(node.clients, &post(&query, b"40")).unwrap().body, "ok");
    assert_eq!(exchange(node.clients, &get(&query)).unwrap().status, 200);
    let mut laggard = WebSocket::connected(node.clients);
    assert!(laggard.ask("room:join", r#"{"room":"r"}"#).contains("\"ok\":true"));
    let mut publisher = WebSocket::connected(node.clients);

    let flood = |volatile: bool| {
        format!(r#"{{"room":"r","event":"e","volatile":{volatile},"args":["{}"]}}"#, "x".repeat(200_000))
    };
    let mut levels = vec![0];
    let mut refusals = Vec::new();
    for n in 0.. {
        let answer = publisher.ask("room:publish", &flood(false));
        if answer.contains("\"overloaded\"") {
            refusals.push(answer);
        } else {
            assert!(answer.contains("\"ok\":true"), "{answer}");
        }
        if n % 4 > 0 && refusals.is_empty() {
            continue;
        }
        // Memory is looked at five times a second: the flood is slow enough for no level to be over between two looks.
        std::thread::sleep(FLOOD_PAUSE);
        #[expect(clippy::cast_possible_truncation, reason = "0 to 5")]
        let level = metric(&node, "starling_memory_pressure") as i64;
        if level != levels[levels.len() - 1] {
            levels.push(level);
        }
        assert!(metric(&node, "process_resident_memory_bytes") < 128e6, "levels {levels:?}");
        if !refusals.is_empty() {
            break;
        }
    }
    assert!(refusals[0].contains("\"retry_ms\":"), "{}", refusals[0]);
    // Newcomers first, messages last; between them the laggard's end may have helped for a while.
    assert!(levels.starts_with(&[0, 1]) && levels.ends_with(&[5]) && levels.len() >= 4, "{levels:?}");

    let newcomer = WebSocket::open(node.clients, FRESH_WEBSOCKET).err().flatten().expect("a refusal");
    assert_eq!((newcomer.status, newcomer.header("retry-after")), (503, Some("5")));
    assert!(newcomer.body.contains("memory"), "{}", newcomer.body);
    assert!(publisher.ask("room:publish", &flood(true)).contains("\"overloaded\""));
    until("the end of the polling session", || {
        metric(&node, r#"starling_connections_closed_total{reason="overloaded"}"#) == 1.0
    });
    until("the end of the laggard", || metric(&node, "starling_slow_consumers_closed_total") == 1.0);
    assert!(rejected(&node, "memory") >= 3.0);
    // What costs nothing goes on.
    assert!(publisher.ask("room:leave", r#"{"room":"r"}"#).contains("\"ok\":true"));
    node.check().unwrap();
    node.stop().unwrap();
}

#[test]
fn a_level_that_was_high_is_left_when_the_load_is_gone_although_its_memory_stays_resident() {
    /// How long messages are kept, here.
    const TTL: &str = "15s";
    /// From the end of the load on: messages expire, and what slots keep is swept within half a minute.
    const BACK_TO_NORMAL: std::time::Duration = std::time::Duration::from_secs(15 + 30);
    const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
    const PUBLISHES: usize = 50;
    let node = Node::start_with(&[
        ("STARLING_LIMITS__MEMORY_BYTES", "80MiB"),
        ("STARLING_STORE__KIND", "memory"),
        ("STARLING_STORE__HISTORY__TTL", TTL),
    ]);
    let level = || metric(&node, "starling_memory_pressure");
    let resident = || metric(&node, "process_resident_memory_bytes");
    let before = resident();
    let mut publisher = WebSocket::connected(node.clients);
    let text = "x".repeat(1_000);
    for batch in 0.. {
        for n in 0..PUBLISHES {
            let room = batch * PUBLISHES + n;
            publisher.text(&format!(r#"420["room:publish",{{"room":"r{room}","event":"e","args":["{text}"]}}]"#));
        }
        for _ in 0..PUBLISHES {
            assert!(matches!(publisher.packet(), Frame::Text(ack) if ack.starts_with("430[")));
        }
        if level() > 0.0 {
            break;
        }
        assert!(resident() < 128e6, "the level is still normal");
    }
    let refused = WebSocket::open(node.clients, FRESH_WEBSOCKET).err().flatten().expect("a refusal");
    assert_eq!(refused.status, 503);
    let full = resident();
    let looks = BACK_TO_NORMAL.as_millis() / LOOK_EVERY.as_millis();
    let normal = (0..looks).any(|_| {
        std::thread::sleep(LOOK_EVERY);
        level() == 0.0
    });
    assert!(normal, "level {} with {} bytes resident, {full} at the highest", level(), resident());
    println!("{before} bytes before, {full} at the highest, {} when the level was normal again", resident());
    assert!(WebSocket::open(node.clients, FRESH_WEBSOCKET).is_ok(), "newcomers are welcome again");
    node.stop().unwrap();
}
