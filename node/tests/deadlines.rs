//! Clients that leave things unfinished: the real program over real sockets.
//!
//! Invariants checked: nothing a client does not finish holds its socket for ever, and other clients, and the session it
//! was for, go on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use std::{thread::sleep, time::Duration};

use support::{
    descriptors,
    node::Node,
    wire::{Connection, Frame, WebSocket, exchange, get, polling, post},
};

/// WebSockets that are closed and not let go.
const CLOSED: u32 = 20;

#[test]
fn a_websocket_that_was_closed_is_let_go_although_its_peer_is_not_done() {
    let node = Node::start_with(&[]);
    let before = descriptors(&node);
    let mut sockets = Vec::new();
    for n in 0..CLOSED {
        let mut socket = if n % 2 == 0 {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.text("9");
            socket
        } else {
            let query = polling(node.clients).replace("transport=polling", "transport=websocket");
            let mut candidate = WebSocket::open(node.clients, &query).expect("a candidate");
            candidate.text("4too early");
            candidate
        };
        assert!(matches!(socket.next(), Frame::Close(_)));
        sockets.push(socket);
    }
    assert!(descriptors(&node) >= before + f64::from(CLOSED), "nothing was held: nothing was tested");
    let mut seconds = 0;
    while descriptors(&node) >= before + f64::from(CLOSED / 2) {
        assert!(seconds < 15, "closed WebSockets are held");
        // They are not even quiet.
        sockets.iter_mut().for_each(|socket| socket.text("4x"));
        sleep(Duration::from_secs(1));
        seconds += 1;
    }
    node.stop().unwrap();
}

#[test]
fn a_body_that_does_not_come_is_given_up_and_its_session_goes_on() {
    let node = Node::start_with(&[("STARLING_SOCKETIO__CONNECT_TIMEOUT", "60s")]);
    let query = polling(node.clients);
    let mut slow = Connection::open(node.clients);
    let whole = post(&query, &[b'4'; 1_000]);
    slow.send(&whole[..whole.len() - 1]);
    let answer = slow.answer().expect("an answer before the connection ends");
    assert_eq!(answer.status, 408);
    assert!(slow.answer().is_none(), "the connection goes on in the middle of a body");
    assert_eq!(exchange(node.clients, &post(&query, b"40")).unwrap().body, "ok");
    assert!(exchange(node.clients, &get(&query)).unwrap().body.starts_with("40{"));
    node.stop().unwrap();
}
