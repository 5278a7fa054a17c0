//! The rules of Engine.IO and Socket.IO that concern time, order and the end of things, on real sockets. What is malformed
//! or refused has its rows in `bad_input`; here clients do nothing wrong, or the wrong thing at a certain moment.
//!
//! Invariants checked: sections 1, 3, 4, 6 and 7 of the protocol notes; each test names its rule.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use support::{
    node::Node,
    wire::{Answer, Connection, FRESH_WEBSOCKET, Frame, WebSocket, exchange, get, polling, post},
};

/// Nobody is in a hurry unless the test is about that.
const CALM: [(&str, &str); 1] = [("STARLING_SOCKETIO__CONNECT_TIMEOUT", "60s")];
/// The pace of the official test suites.
const BRISK: [(&str, &str); 3] =
    [CALM[0], ("STARLING_SOCKETIO__PING_INTERVAL", "300ms"), ("STARLING_SOCKETIO__PING_TIMEOUT", "200ms")];
/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_millis(1_500);

fn poll(to: SocketAddr, query: &str) -> Answer {
    exchange(to, &get(query)).expect("an answer to a poll")
}

fn send(to: SocketAddr, query: &str, body: &str) -> Answer {
    exchange(to, &post(query, body.as_bytes())).expect("an answer to a POST")
}

/// A poll that is under way: its session has seen it, because a request behind it on another connection is answered only
/// once the shard has taken both.
fn open_poll(to: SocketAddr, query: &str) -> Connection {
    let mut connection = Connection::open(to);
    connection.send(&get(query));
    for _ in 0..5 {
        assert_eq!(send(to, query, "3").body, "ok");
        std::thread::sleep(Duration::from_millis(20));
    }
    connection
}

fn is_unknown(answer: &Answer) -> bool {
    answer.status == 400 && answer.body == r#"{"code":1,"message":"Session ID unknown"}"#
}

/// How long something took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let result = work();
    (result, SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(begin))
}

fn text(socket: &mut WebSocket) -> String {
    match socket.next() {
        Frame::Text(text) => text,
        other => panic!("wanted a text, saw {other:?}"),
    }
}

/// The JSON object that a packet carries.
fn object(packet: &str) -> Value {
    serde_json::from_str(&packet[packet.find('{').expect("an object")..]).unwrap()
}

/// An event that is answered at once with its own number.
fn question(n: usize) -> String {
    format!(r#"42{n}["room:leave",{{"room":"never joined"}}]"#)
}

fn number_of(ack: &str) -> usize {
    let digits = ack.strip_prefix("43").unwrap_or_else(|| panic!("wanted an ack, saw {ack}"));
    digits[..digits.find('[').unwrap()].parse().unwrap()
}

// 1: requests and open packet.

#[test]
fn the_open_packet_has_five_keys_and_answers_have_the_headers_of_the_reference() {
    let node = Node::start_with(&CALM);
    let open = poll(node.clients, "EIO=4&transport=polling&t=abc&b64=1&mine=2");
    let keys: BTreeSet<String> = object(&open.body).as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"].map(str::to_owned).into());
    assert_eq!(object(&open.body)["upgrades"], serde_json::json!(["websocket"]));
    assert_eq!(open.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(open.header("cache-control"), Some("no-store"));
    let query = format!("EIO=4&transport=polling&sid={}", object(&open.body)["sid"].as_str().unwrap());
    let answer = send(node.clients, &query, "40");
    assert_eq!((answer.body.as_str(), answer.header("content-type")), ("ok", Some("text/html")));
    let mut socket = WebSocket::open(node.clients, FRESH_WEBSOCKET).unwrap();
    assert_eq!(object(&text(&mut socket))["upgrades"], serde_json::json!([]));
    node.stop().unwrap();
}

// 3: heartbeat.

#[test]
fn pings_come_300_ms_after_each_pong_and_silence_of_200_ms_is_the_end() {
    let node = Node::start_with(&BRISK);
    let (mut socket, _) = WebSocket::session(node.clients);
    socket.text("40");
    assert!(text(&mut socket).starts_with("40{"));
    for _ in 0..3 {
        let (ping, waited) = timed(|| text(&mut socket));
        assert_eq!(ping, "2");
        assert!(waited < Duration::from_millis(300) + SLACK, "{waited:?}");
        socket.text("3");
    }
    let (ping, waited) = timed(|| text(&mut socket));
    assert_eq!(ping, "2");
    assert!(waited > Duration::from_millis(250), "an answer does not start the interval anew: {waited:?}");
    let (end, waited) = timed(|| socket.next());
    assert!(matches!(end, Frame::Close(None)), "{end:?}");
    assert!(waited > Duration::from_millis(150) && waited < Duration::from_millis(200) + SLACK, "{waited:?}");
    node.stop().unwrap();
}

#[test]
fn a_poll_brings_the_ping_and_who_neither_polls_nor_answers_is_gone() {
    let node = Node::start_with(&BRISK);
    let query = polling(node.clients);
    for _ in 0..3 {
        assert_eq!(poll(node.clients, &query).body, "2");
        assert_eq!(send(node.clients, &query, "3").body, "ok");
    }
    assert_eq!(poll(node.clients, &query).body, "2");
    assert_eq!(poll(node.clients, &query).body, "1", "the open poll learns that the time is over");
    assert!(is_unknown(&poll(node.clients, &query)));
    let silent = polling(node.clients);
    std::thread::sleep(Duration::from_millis(500) + SLACK);
    assert!(is_unknown(&poll(node.clients, &silent)));
    node.stop().unwrap();
}

// 4: upgrade.

#[test]
fn probe_and_upgrade_back_to_back_release_the_open_poll() {
    let node = Node::start_with(&CALM);
    let query = polling(node.clients);
    let mut open = open_poll(node.clients, &query);
    let mut socket = WebSocket::open(node.clients, &query.replace("polling", "websocket")).unwrap();
    socket.text("2probe");
    socket.text("5");
    socket.text("40");
    assert_eq!(text(&mut socket), "3probe");
    assert_eq!(open.answer().map(|answer| (answer.status, answer.body)), Some((200, "6".to_owned())));
    assert!(text(&mut socket).starts_with("40{"));
    for late in [poll(node.clients, &query), send(node.clients, &query, "3")] {
        assert_eq!((late.status, late.body.as_str()), (400, r#"{"code":3,"message":"Bad request"}"#));
    }
    let mut second = WebSocket::open(node.clients, &query.replace("polling", "websocket")).unwrap();
    assert!(matches!(second.next(), Frame::Close(_) | Frame::End));
    socket.text(&question(7));
    assert_eq!(number_of(&text(&mut socket)), 7, "the session lives on");
    node.stop().unwrap();
}

#[test]
fn a_poll_that_comes_while_probing_is_released_soon() {
    let node = Node::start_with(&CALM);
    let query = polling(node.clients);
    let mut socket = WebSocket::open(node.clients, &query.replace("polling", "websocket")).unwrap();
    socket.text("2probe");
    assert_eq!(text(&mut socket), "3probe");
    for _ in 0..3 {
        let (answer, waited) = timed(|| poll(node.clients, &query));
        assert_eq!(answer.body, "6");
        assert!(waited < Duration::from_millis(100) + SLACK, "{waited:?}");
    }
    node.stop().unwrap();
}

/// Questions go by POST until the switch and by WebSocket after it; their answers come by the one and the other, in order.
#[test]
fn the_switch_loses_and_reorders_nothing_in_either_direction() {
    const BEFORE: usize = 40;
    const AFTER: usize = 40;
    let node = Node::start_with(&CALM);
    for turn in 0..4 {
        let query = polling(node.clients);
        assert_eq!(send(node.clients, &query, "40").body, "ok");
        assert!(poll(node.clients, &query).body.starts_with("40{"));
        let mut socket = WebSocket::open(node.clients, &query.replace("polling", "websocket")).unwrap();
        let mut seen = Vec::new();
        for n in 0..BEFORE {
            assert_eq!(send(node.clients, &query, &question(n)).body, "ok");
            if n == turn * 10 {
                socket.text("2probe");
            }
            // Some answers are fetched, others wait for the switch.
            if n % 7 == turn {
                seen.extend(poll(node.clients, &query).body.split('\x1e').filter(|it| *it != "6").map(number_of));
            }
        }
        socket.text("5");
        (BEFORE..BEFORE + AFTER).for_each(|n| socket.text(&question(n)));
        assert_eq!(text(&mut socket), "3probe");
        while seen.len() < BEFORE + AFTER {
            seen.push(number_of(&text(&mut socket)));
        }
        assert_eq!(seen, (0..BEFORE + AFTER).collect::<Vec<_>>(), "turn {turn}");
    }
    node.stop().unwrap();
}

// 5 and 6: doubled and given-up requests, closes.

#[test]
fn a_close_packet_releases_the_open_poll_with_a_noop() {
    let node = Node::start_with(&CALM);
    let query = polling(node.clients);
    let mut open = open_poll(node.clients, &query);
    assert_eq!(send(node.clients, &query, "1").body, "ok");
    assert_eq!(open.answer().map(|answer| (answer.status, answer.body)), Some((200, "6".to_owned())));
    assert!(is_unknown(&poll(node.clients, &query)) && is_unknown(&send(node.clients, &query, "3")));
    node.stop().unwrap();
}

#[test]
fn a_second_poll_is_refused_and_ends_the_session_and_the_first_with_a_close() {
    let node = Node::start_with(&CALM);
    for _ in 0..30 {
        let query = polling(node.clients);
        // Two connections have no order: one poll is heard second and refused, which of them is free.
        let mut polls = [Connection::open(node.clients), Connection::open(node.clients)];
        polls.iter_mut().for_each(|poll| poll.send(&get(&query)));
        let mut answers = polls.map(|mut poll| poll.answer().map(|answer| (answer.status, answer.body)));
        answers.sort();
        assert_eq!(answers, [(200, "1"), (400, "")].map(|(status, body)| Some((status, body.to_owned()))));
        assert!(is_unknown(&poll(node.clients, &query)));
    }
    node.stop().unwrap();
}

#[test]
fn a_server_that_closes_gives_the_open_poll_what_is_queued_and_then_the_close() {
    let node = Node::start_with(&CALM);
    let query = polling(node.clients);
    let mut open = open_poll(node.clients, &query);
    send(node.clients, &query, "40\x1e49");
    let last = open.answer().expect("an answer").body;
    assert!(last.starts_with("40{") && last.ends_with("\x1e1"), "{last}");
    assert!(is_unknown(&poll(node.clients, &query)));
    let query = polling(node.clients);
    send(node.clients, &query, "40\x1e49");
    std::thread::sleep(Duration::from_millis(300));
    let last = poll(node.clients, &query).body;
    assert!(last.starts_with("40{") && last.ends_with("\x1e1"), "without an open poll it waits for one: {last}");
    assert!(is_unknown(&poll(node.clients, &query)));
    node.stop().unwrap();
}

#[test]
fn a_server_that_closes_a_websocket_says_so_by_a_frame_and_not_by_a_packet() {
    let node = Node::start_with(&CALM);
    let mut socket = WebSocket::connected(node.clients);
    socket.text("49");
    assert!(matches!(socket.next(), Frame::Close(Some(1002))));
    node.stop().unwrap();
}

// 7: namespaces.

#[test]
fn every_namespace_has_its_own_public_id_and_none_is_the_session_id() {
    let node = Node::start_with(&CALM);
    let (mut socket, sid) = WebSocket::session(node.clients);
    let mut ids = BTreeSet::from([sid]);
    for (connect, start) in [("40", "40{"), ("40/a", "40/a,{"), ("40/b?token=x,", "40/b,{"), ("40/c,{}", "40/c,{")] {
        socket.text(connect);
        let answer = text(&mut socket);
        assert!(answer.starts_with(start), "{connect}: {answer}");
        let answer = object(&answer);
        assert_eq!(answer.as_object().unwrap().len(), 1, "a sid and nothing else");
        assert!(ids.insert(answer["sid"].as_str().unwrap().to_owned()), "an id twice");
    }
    // Leaving is not answered, costs nobody else anything, and can be undone with a new id.
    for (leave, again) in [("41/a", "40/a"), ("41/b,", "40/b,")] {
        socket.text(leave);
        socket.text(again);
        assert!(ids.insert(object(&text(&mut socket))["sid"].as_str().unwrap().to_owned()), "{leave}");
    }
    socket.text(&question(3));
    assert_eq!(number_of(&text(&mut socket)), 3);
    node.stop().unwrap();
}

#[test]
fn whoever_breaks_the_rules_in_one_namespace_loses_the_whole_connection() {
    let node = Node::start_with(&CALM);
    for bad in [r#"42/other,["x"]"#, "40/a", r#"44/a,{"message":"x"}"#, "41/other", "43/other,1[]", "450-[\"x\"]", "4"]
    {
        let mut socket = WebSocket::connected(node.clients);
        socket.text("40/a");
        assert!(text(&mut socket).starts_with("40/a,{"));
        socket.text(bad);
        assert!(matches!(socket.next(), Frame::Close(Some(1002))), "{bad}");
        assert_eq!(socket.next(), Frame::End, "{bad}");
    }
    node.stop().unwrap();
}
