//! Every limit of a client (`reliability.md` 4.4): the real program over real sockets, one row for each.
//!
//! Invariants checked: whoever goes beyond a limit is told so and counted under its word; whoever keeps to it, or comes back
//! to it, notices nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use std::{thread::sleep, time::Duration};

use support::{
    metric,
    node::Node,
    rejected, until,
    wire::{Answer, Connection, FRESH_WEBSOCKET, Frame, WebSocket, exchange, frame, get, polling, post, upgrade},
};

/// A request for a WebSocket with more headers.
fn upgrade_with(headers: &[(&str, &str)]) -> Vec<u8> {
    let request = String::from_utf8(upgrade(FRESH_WEBSOCKET, &[])).unwrap();
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    request.replacen("\r\n\r\n", &format!("\r\n{more}\r\n"), 1).into_bytes()
}

/// The answer to a request, and the connection it came on.
fn ask(node: &Node, request: &[u8]) -> (Answer, Connection) {
    let mut connection = Connection::open(node.clients);
    connection.send(request);
    (connection.answer().expect("an answer"), connection)
}

/// What is refused is counted at the end of a turn, which may come after the answer.
fn counts(node: &Node, reason: &str, times: f64) {
    until(&format!("{times} of {reason}"), || rejected(node, reason) >= times);
    assert_eq!(rejected(node, reason), times, "{reason}");
}

fn is_closed(socket: &mut WebSocket, code: u16, words: &str) {
    match socket.packet() {
        Frame::Close(Some(seen)) if seen == code => assert_eq!(socket.last_words, words),
        other => panic!("{other:?} instead of {code}"),
    }
}

#[test]
fn an_address_may_have_so_many_connections_and_gets_one_back_for_one_that_ends() {
    let node = Node::start_with(&[("STARLING_LIMITS__PER_IP", "3")]);
    let mut sockets: Vec<WebSocket> = (0..3).map(|_| WebSocket::connected(node.clients)).collect();
    let (answer, _) = ask(&node, &upgrade(FRESH_WEBSOCKET, &[]));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")));
    assert!(answer.body.contains("your address"), "{}", answer.body);
    counts(&node, "per_ip", 1.0);
    sockets.pop();
    until("a place", || ask(&node, &upgrade(FRESH_WEBSOCKET, &[])).0.status == 101);
    node.stop().unwrap();
}

#[test]
fn sockets_that_ask_for_nothing_count_for_their_address_too() {
    let node = Node::start_with(&[("STARLING_LIMITS__PER_IP", "3")]);
    // Which of them is too much depends on who of the node's threads is first.
    let idle: Vec<Connection> = (0..4).map(|_| Connection::open(node.clients)).collect();
    let told: Vec<u16> = idle.into_iter().filter_map(|mut idle| idle.answer()).map(|answer| answer.status).collect();
    assert_eq!(told, [429], "one of four is told so without having asked");
    until("a place", || exchange(node.clients, &get("EIO=4&transport=polling")).is_some_and(|a| a.status == 200));
    node.stop().unwrap();
}

#[test]
fn an_address_that_connects_too_fast_waits() {
    let node = Node::start_with(&[("STARLING_LIMITS__PER_IP_RATE", "2")]);
    let statuses: Vec<u16> = (0..20).map(|_| ask(&node, &get("EIO=4&transport=polling")).0.status).collect();
    let let_in = statuses.iter().filter(|status| **status == 200).count();
    assert!((10..15).contains(&let_in), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(rejected(&node, "per_ip_rate") >= 5.0);
    sleep(Duration::from_secs(1));
    assert_eq!(ask(&node, &get("EIO=4&transport=polling")).0.status, 200);
    node.stop().unwrap();
}

#[test]
fn an_address_whose_clients_are_not_who_they_say_too_often_is_barred_and_nothing_else_counts() {
    let node = Node::start_example("verbs", &[("STARLING_LIMITS__FAILED_AUTH_PER_MINUTE", "3")]);
    let connect = |socket: &mut WebSocket, packet: &str| {
        socket.text(packet);
        loop {
            match socket.packet() {
                Frame::Text(answer) if answer.starts_with("40") || answer.starts_with("44") => return answer,
                Frame::Text(_) => {}
                other => panic!("{other:?} instead of an answer"),
            }
        }
    };
    let known = r#"40/members,{"user":"ada"}"#;
    for _ in 0..5 {
        let (mut socket, _) = WebSocket::session(node.clients);
        assert!(connect(&mut socket, known).starts_with("40/members,{"));
        assert!(connect(&mut socket, "40/nowhere,").contains("Invalid namespace"));
    }
    let mut member = WebSocket::connected(node.clients);
    let (mut stranger, _) = WebSocket::session(node.clients);
    for n in 1..=4 {
        assert_eq!(rejected(&node, "failed_auth"), 0.0, "barred before refusal {n}");
        let refusal = connect(&mut stranger, "40/members,");
        assert!(refusal.contains(r#""code":"unauthorized""#), "refusal {n}: {refusal}");
    }
    // Three are let pass, and the fourth was one too many: now the right words are of no use either.
    for socket in [&mut stranger, &mut member] {
        let refusal = connect(socket, known);
        assert!(refusal.contains(r#""code":"rate_limited""#), "{refusal}");
    }
    counts(&node, "failed_auth", 2.0);
    for request in [get("EIO=4&transport=polling"), upgrade(FRESH_WEBSOCKET, &[])] {
        let answer = ask(&node, &request).0;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("5")), "{}", answer.body);
    }
    counts(&node, "failed_auth", 4.0);
    assert!(member.ask("rooms", "null").contains("announcements"), "who is in goes on");
    node.stop().unwrap();
}

#[test]
fn behind_a_trusted_proxy_clients_are_told_apart_and_nobody_else_is_believed() {
    let settings = |trusted| [("STARLING_LIMITS__PER_IP", "2"), ("STARLING_SERVER__TRUSTED_PROXIES", trusted)];
    let node = Node::start_with(&settings("127.0.0.0/8"));
    let from = |client: &str| ask(&node, &upgrade_with(&[("X-Forwarded-For", client)]));
    let open: Vec<_> = ["192.0.2.1", "6.6.6.6, 192.0.2.1", "192.0.2.2", "2001:db8::1"].map(from).into();
    assert!(open.iter().all(|(answer, _)| answer.status == 101));
    assert_eq!(from("192.0.2.1").0.status, 429);
    assert_eq!(from("192.0.2.2").0.status, 101);
    node.stop().unwrap();

    let node = Node::start_with(&settings("10.0.0.0/8"));
    let from = |client: &str| ask(&node, &upgrade_with(&[("X-Forwarded-For", client)]));
    let open: Vec<_> = ["192.0.2.1", "192.0.2.2"].map(from).into();
    assert!(open.iter().all(|(answer, _)| answer.status == 101));
    assert_eq!(from("192.0.2.3").0.status, 429, "a header of anybody was believed");
    node.stop().unwrap();
}

#[test]
fn a_page_of_another_scheme_is_no_page_of_this_site_where_the_proxy_says_which() {
    let node = Node::start_with(&[
        ("STARLING_SERVER__TRUSTED_PROXIES", "127.0.0.1"),
        ("STARLING_SERVER__ALLOWED_ORIGINS", "https://other.example"),
    ]);
    let proxy = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "chat.example")];
    let from = |origin| ask(&node, &upgrade_with(&[&proxy[..], &[("Origin", origin)]].concat())).0.status;
    assert_eq!([from("https://chat.example"), from("https://other.example")], [101, 101]);
    assert_eq!([from("http://chat.example"), from("https://t"), from("https://chat.example:444")], [403, 403, 403]);
    node.stop().unwrap();
}

#[test]
fn every_poll_and_post_of_a_foreign_page_is_refused_and_says_nothing_to_it() {
    let node = Node::start_with(&[("STARLING_SERVER__ALLOWED_ORIGINS", "https://other.example")]);
    let query = polling(node.clients);
    let with = |request: Vec<u8>, origin: &str| {
        let text = String::from_utf8(request).unwrap();
        ask(&node, text.replacen("\r\n", &format!("\r\nOrigin: {origin}\r\n"), 1).as_bytes()).0
    };
    for request in [post(&query, b"40"), get(&query)] {
        let answer = with(request, "https://evil.example");
        assert_eq!(answer.status, 403);
        assert!(answer.header("access-control-allow-origin").is_none() && answer.header("vary").is_some());
    }
    counts(&node, "origin", 2.0);
    let answer = with(post(&query, b"40"), "https://other.example");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://other.example")));
    let answer = with(get(&query), "https://other.example");
    assert!(answer.body.starts_with("40{") && answer.header("access-control-allow-credentials") == Some("true"));
    node.stop().unwrap();
}

#[test]
fn messages_beyond_the_rate_are_refused_and_a_flood_closes_the_connection() {
    let node = Node::start_with(&[("STARLING_LIMITS__MESSAGES_PER_SECOND", "10")]);
    let mut socket = WebSocket::connected(node.clients);
    let acks: Vec<String> = (0..25).map(|_| socket.ask("room:leave", r#"{"room":"r"}"#)).collect();
    // CONNECT was the first of the twenty that may come at once.
    let refused = acks.iter().filter(|ack| ack.contains(r#""code":"rate_limited""#)).count();
    assert!((1..=6).contains(&refused), "{acks:?}");
    assert!(acks[..19].iter().all(|ack| ack.contains("\"ok\":true")), "{acks:?}");
    counts(&node, "rate_limited", f64::from(u32::try_from(refused).unwrap()));
    sleep(Duration::from_millis(300));
    assert!(socket.ask("room:leave", r#"{"room":"r"}"#).contains("\"ok\":true"));

    for _ in 0..400 {
        socket.text(r#"42["nobody handles this"]"#);
    }
    is_closed(&mut socket, 1008, "rate_limited");
    until("the count", || metric(&node, r#"starling_connections_closed_total{reason="rate_limited"}"#) == 1.0);
    node.stop().unwrap();
}

#[test]
fn a_flood_over_polling_ends_its_session() {
    let node = Node::start_with(&[("STARLING_LIMITS__MESSAGES_PER_SECOND", "10")]);
    let query = polling(node.clients);
    assert_eq!(exchange(node.clients, &post(&query, b"40")).unwrap().body, "ok");
    let body = ["42[\"x\"]"; 400].join("\u{1e}");
    exchange(node.clients, &post(&query, body.as_bytes())).unwrap();
    assert_eq!(exchange(node.clients, &get(&query)).unwrap().status, 400);
    assert_eq!(metric(&node, r#"starling_connections_closed_total{reason="rate_limited"}"#), 1.0);
    node.stop().unwrap();
}

#[test]
fn bytes_and_joins_have_rates_of_their_own() {
    let node = Node::start_with(&[
        ("STARLING_LIMITS__BYTES_PER_SECOND", "1KiB"),
        ("STARLING_LIMITS__JOINS_PER_SECOND", "1"),
        ("STARLING_SOCKETIO__MAX_PAYLOAD", "2KiB"),
    ]);
    let mut socket = WebSocket::connected(node.clients);
    let filler = format!(r#"{{"room":"r","pad":"{}"}}"#, "x".repeat(900));
    let acks: Vec<String> = (0..3).map(|_| socket.ask("room:leave", &filler)).collect();
    assert!(acks[1].contains("\"ok\":true") && acks[2].contains("rate_limited"), "{acks:?}");

    let mut socket = WebSocket::connected(node.clients);
    let joins: Vec<String> = (0..3).map(|n| socket.ask("room:join", &format!(r#"{{"room":"r{n}"}}"#))).collect();
    assert!(joins[1].contains("\"ok\":true") && joins[2].contains("rate_limited"), "{joins:?}");
    assert!(socket.ask("room:leave", r#"{"room":"r1"}"#).contains("\"ok\":true"));
    node.stop().unwrap();
}

#[test]
fn a_connection_says_little_before_it_joins_a_namespace() {
    let node = Node::start_with(&[("STARLING_LIMITS__CONNECT_BYTES", "2KiB")]);
    let (mut socket, _) = WebSocket::session(node.clients);
    socket.text(&format!(r#"40{{"token":"{}"}}"#, "x".repeat(3_000)));
    assert_eq!(socket.packet(), Frame::Close(Some(1009)));

    let query = polling(node.clients);
    assert_eq!(exchange(node.clients, &post(&query, &[b'4'; 3_000])).unwrap().status, 413);
    assert_eq!(exchange(node.clients, &post(&query, b"40")).unwrap().body, "ok");
    let large = format!(r#"42["x","{}"]"#, "x".repeat(3_000));
    assert_eq!(exchange(node.clients, &post(&query, large.as_bytes())).unwrap().body, "ok");
    node.stop().unwrap();
}

#[test]
fn attachments_that_do_not_come_are_not_waited_for() {
    let node = Node::start_with(&[("STARLING_LIMITS__ASSEMBLY_TIMEOUT", "1s")]);
    let mut socket = WebSocket::connected(node.clients);
    socket.text(r#"451-["x",{"_placeholder":true,"num":0}]"#);
    socket.raw(&frame(0x82, b"in time"));
    socket.text(r#"452-["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#);
    sleep(Duration::from_millis(600));
    socket.raw(&frame(0x82, b"gets on"));
    sleep(Duration::from_millis(600));
    assert_eq!(rejected(&node, "assembly"), 0.0);
    is_closed(&mut socket, 1002, "parse_error");
    counts(&node, "assembly", 1.0);
    node.stop().unwrap();
}

#[test]
fn a_message_comes_in_few_pieces_and_in_time() {
    let node = Node::start_with(&[("STARLING_LIMITS__ASSEMBLY_TIMEOUT", "1s"), ("STARLING_LIMITS__FRAGMENTS", "8")]);
    let text = r#"420["room:leave",{"room":"r"}]"#;
    // In pieces, slowly, with a silence after it: nothing of that is too much.
    let mut socket = WebSocket::connected(node.clients);
    socket.raw(&frame(0x01, &text.as_bytes()[..5]));
    sleep(Duration::from_millis(600));
    socket.raw(&frame(0x80, &text.as_bytes()[5..]));
    assert!(matches!(socket.packet(), Frame::Text(ack) if ack.contains("\"ok\":true")));
    sleep(Duration::from_millis(1_500));
    assert!(socket.ask("room:leave", r#"{"room":"r"}"#).contains("\"ok\":true"));
    let mut slow = WebSocket::connected(node.clients);
    slow.raw(&frame(0x81, text.as_bytes())[..10]);
    for n in 0..9 {
        socket.raw(&frame(if n == 0 { 0x01 } else { 0x00 }, b"4"));
    }
    is_closed(&mut socket, 1008, "");
    counts(&node, "fragments", 1.0);
    is_closed(&mut slow, 1008, "");
    counts(&node, "assembly", 1.0);

    let (mut early, _) = WebSocket::session(node.clients);
    early.raw(&frame(0x81, &[b'4'; 60_000])[..20]);
    is_closed(&mut early, 1009, "");
    node.stop().unwrap();
}

#[test]
fn headers_and_bodies_have_deadlines_and_bounds() {
    let node = Node::start_with(&[
        ("STARLING_LIMITS__HEADER_TIMEOUT", "500ms"),
        ("STARLING_LIMITS__BODY_TIMEOUT", "500ms"),
        ("STARLING_LIMITS__HEADERS", "16"),
    ]);
    let mut slow = Connection::open(node.clients);
    slow.send(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: t\r\n");
    assert!(slow.answer().is_none());
    let many: Vec<(String, &str)> = (0..20).map(|n| (format!("X-{n}"), "y")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    assert_eq!(ask(&node, &upgrade_with(&many)).0.status, 431);
    counts(&node, "headers", 2.0);

    let query = polling(node.clients);
    let whole = post(&query, b"40");
    assert_eq!(ask(&node, &whole[..whole.len() - 1]).0.status, 408);
    counts(&node, "body", 1.0);
    assert_eq!(exchange(node.clients, &whole).unwrap().body, "ok");
    node.stop().unwrap();
}

#[test]
fn who_takes_nothing_for_long_enough_is_cut_off_however_little_waits() {
    let node = Node::start_with(&[
        ("STARLING_LIMITS__LAG_TIMEOUT", "2s"),
        ("STARLING_SOCKETIO__PING_TIMEOUT", "2s"),
        ("STARLING_LIMITS__QUEUE_BYTES", "1GiB"),
    ]);
    let mut laggard = WebSocket::connected(node.clients);
    laggard.ask("room:join", r#"{"room":"r"}"#);
    let mut publisher = WebSocket::connected(node.clients);
    let argument = format!(r#"{{"room":"r","event":"e","args":["{}"]}}"#, "x".repeat(100_000));
    let mut sent = 0;
    while metric(&node, "starling_lagging_members") == 0.0 {
        publisher.ask("room:publish", &argument);
        sent += 1;
        assert!(sent < 300, "nobody lags");
    }
    until("the end of a laggard", || metric(&node, "starling_slow_consumers_closed_total") == 1.0);
    assert_eq!(metric(&node, "starling_sockets"), 1.0);
    assert_eq!(metric(&node, "starling_lagging_members"), 0.0);
    publisher.ask("room:publish", &argument);
    node.stop().unwrap();
}
