//! However a network cuts and joins what a client sends by WebSocket: the real program over real sockets.
//!
//! Invariants checked: every message is heard once and in order, whatever comes with it or is missing of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use support::{
    node::Node,
    wire::{Connection, FRESH_WEBSOCKET, Frame, WebSocket, frame, upgrade},
};

/// An event that is answered, the frame of it.
fn leave(id: usize) -> Vec<u8> {
    frame(0x81, format!(r#"42{id}["room:leave",{{"room":"{}"}}]"#, "r".repeat(id)).as_bytes())
}

fn expect_answers(socket: &mut WebSocket, count: usize) {
    for id in 1..=count {
        assert_eq!(socket.packet(), Frame::Text(format!(r#"43{id}[{{"ok":true}}]"#)));
    }
}

#[test]
fn what_comes_with_the_request_is_heard() {
    let node = Node::start_with(&[]);
    let mut connection = Connection::open(node.clients);
    let (whole, half) = (leave(1), leave(2));
    let (start, end) = half.split_at(half.len() / 2);
    connection.send(&[&upgrade(FRESH_WEBSOCKET, &[]), &frame(0x81, b"40")[..], &whole, start].concat());
    let mut socket = WebSocket::upgraded(connection).expect("a WebSocket");
    socket.raw(end);
    assert!(matches!(socket.packet(), Frame::Text(open) if open.starts_with("0{")));
    assert!(matches!(socket.packet(), Frame::Text(welcome) if welcome.starts_with("40{")));
    expect_answers(&mut socket, 2);
    node.stop().unwrap();
}

#[test]
fn messages_may_come_byte_by_byte_and_all_at_once() {
    let node = Node::start_with(&[]);
    let mut socket = WebSocket::connected(node.clients);
    let messages: Vec<u8> = (1..=3).flat_map(leave).collect();
    messages.iter().for_each(|byte| socket.raw(&[*byte]));
    expect_answers(&mut socket, 3);
    let messages: Vec<u8> = (1..=200).flat_map(leave).collect();
    socket.raw(&messages);
    expect_answers(&mut socket, 200);
    node.stop().unwrap();
}

#[test]
fn fragments_with_a_ping_between_them_are_one_message_and_what_follows_is_heard() {
    let node = Node::start_with(&[]);
    let mut socket = WebSocket::connected(node.clients);
    socket.raw(&frame(0x01, br#"421["room:lea"#));
    socket.raw(&frame(0x89, b"still there?"));
    assert_eq!(socket.packet(), Frame::Pong(b"still there?".to_vec()));
    socket.raw(&[frame(0x80, br#"ve",{"room":"r"}]"#), leave(2), leave(3)].concat());
    expect_answers(&mut socket, 3);
    node.stop().unwrap();
}
