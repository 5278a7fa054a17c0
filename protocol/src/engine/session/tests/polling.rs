//! Handshake and polling requests (protocol.md 1, 2 and 5).

use super::*;

#[test]
fn the_first_poll_answers_the_handshake_with_exactly_five_keys() {
    let mut rig = Rig::with(Transport::Polling, config());
    rig.get();
    let sid = sid();
    let open = format!(
        r#"0{{"sid":"{sid}","upgrades":["websocket"],"pingInterval":300,"pingTimeout":200,"maxPayload":1000}}"#
    );
    assert_eq!(rig.outputs(), [body(&open)]);
}

#[test]
fn a_websocket_handshake_offers_no_upgrade() {
    let mut rig = Rig::with(Transport::WebSocket, config());
    let sid = sid();
    let open = format!(r#"{{"sid":"{sid}","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1000}}"#);
    assert_eq!(rig.outputs(), [Output::WebSocket(Packet::Open(open.into()))]);
}

#[test]
fn without_upgrades_polling_offers_none_and_takes_none() {
    let mut rig = Rig::with(Transport::Polling, SessionConfig { websocket_upgrade: false, ..config() });
    rig.get();
    let [Output::PollAnswer(open)] = &rig.outputs()[..] else { panic!("no open packet") };
    assert!(open.contains(r#""upgrades":[],"#));
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Err(UpgradeRefused::Disabled));
}

#[test]
fn a_poll_waits_until_there_is_something_to_say() {
    let mut rig = Rig::polling();
    rig.get();
    assert_eq!(rig.outputs(), []);
    rig.session.send(text("hello"));
    assert_eq!(rig.outputs(), [body("4hello")]);
}

#[test]
fn several_sends_leave_in_one_answer_in_their_order() {
    let mut rig = Rig::polling();
    rig.get();
    rig.session.send(text("a"));
    rig.session.send(Message::Binary(vec![1, 2, 3, 4].into()));
    rig.session.send(text("b"));
    assert_eq!(rig.session.buffered_bytes(), 2 + 9 + 2 + 3 * size_of::<Packet>());
    assert_eq!(rig.outputs(), [body("4a\x1ebAQIDBA==\x1e4b")]);
    assert_eq!(rig.session.buffered_bytes(), 0);
}

#[test]
fn what_was_sent_between_polls_is_answered_at_once() {
    let mut rig = Rig::polling();
    rig.session.send(text("a"));
    assert_eq!(rig.outputs(), []);
    rig.get();
    assert_eq!(rig.outputs(), [body("4a")]);
}

#[test]
fn an_answer_holds_no_more_packets_than_python_clients_accept() {
    let mut rig = Rig::polling();
    (0..40).for_each(|n| rig.session.send(text(&n.to_string())));
    let mut seen = Vec::new();
    for expected in [16, 16, 8] {
        rig.get();
        let [Output::PollAnswer(body)] = &rig.outputs()[..] else { panic!("one answer for one poll") };
        assert_eq!(body.split('\x1e').count(), expected);
        seen.extend(body.split('\x1e').map(|packet| packet[1..].parse::<u32>().unwrap()));
    }
    assert_eq!(seen, (0..40).collect::<Vec<_>>());
    assert_eq!(rig.session.buffered_bytes(), 0);
}

#[test]
fn a_post_delivers_its_messages_in_order() {
    let mut rig = Rig::polling();
    assert_eq!(rig.post("4a\x1ebAQID\x1e4b"), Ok(()));
    let binary = Output::Message(Message::Binary(vec![1, 2, 3].into()));
    assert_eq!(rig.outputs(), [received("a"), binary, received("b")]);
    assert_eq!(rig.post("4c"), Ok(()), "the next POST may come");
}

#[test]
fn a_second_get_closes_the_session_and_releases_the_first() {
    let mut rig = Rig::polling();
    rig.get();
    assert_eq!(rig.session.handle_get(rig.now), Err(Refusal::EMPTY));
    assert_eq!(rig.outputs(), [body("1"), Output::Closed(CloseReason::TransportError)]);
    rig.assert_gone();
}

#[test]
fn a_second_post_closes_the_session() {
    let mut rig = Rig::polling();
    rig.session.handle_post_started().unwrap();
    assert_eq!(rig.session.handle_post_started(), Err(Refusal::EMPTY));
    assert_eq!(rig.session.handle_post("4late".into(), rig.now), Err(Refusal::UNKNOWN_SID));
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::TransportError)]);
    rig.assert_gone();
}

#[test]
fn a_get_and_a_post_may_be_open_together() {
    let mut rig = Rig::polling();
    rig.get();
    assert_eq!(rig.post("4a"), Ok(()));
    assert_eq!(rig.outputs(), [received("a")]);
}

#[test]
fn an_aborted_poll_closes_the_session() {
    let mut rig = Rig::polling();
    rig.get();
    rig.session.handle_get_aborted(rig.now);
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::TransportError)]);
    rig.assert_gone();
}

#[test]
fn the_abort_of_an_answered_poll_means_nothing() {
    let mut rig = Rig::polling();
    rig.session.handle_get_aborted(rig.now);
    assert_eq!(rig.outputs(), []);
    assert!(!rig.session.is_closed());
}

#[test]
fn an_aborted_or_oversized_post_leaves_the_session_alone() {
    let mut rig = Rig::polling();
    rig.session.handle_post_started().unwrap();
    rig.session.handle_post_aborted(rig.now);
    assert_eq!(rig.post("4a"), Ok(()));
    rig.get();
    rig.session.send(text("b"));
    assert_eq!(rig.outputs(), [received("a"), body("4b")]);
}

#[test]
fn a_bad_body_closes_the_session_and_delivers_nothing_of_it() {
    let too_long = "4".repeat(1001);
    let too_many = ["4a"; 9].join("\x1e");
    for bad in ["", "abc", "4a\x1e", "\x1e4a", "4a\x1ex", "b###", "7", &too_long, &too_many] {
        let mut rig = Rig::polling();
        rig.get();
        assert_eq!(rig.post(bad), Err(Refusal::BAD_REQUEST), "{bad:?}");
        assert_eq!(rig.outputs(), [body("1"), Output::Closed(CloseReason::ParseError)], "{bad:?}");
        rig.assert_gone();
    }
}

#[test]
fn packets_without_meaning_from_a_client_are_ignored() {
    let mut rig = Rig::polling();
    assert_eq!(rig.post("6\x1e5\x1e0{}\x1e3\x1e4a"), Ok(()));
    assert_eq!(rig.outputs(), [received("a")]);
}

#[test]
fn a_client_that_never_polls_is_closed_when_its_buffer_overflows() {
    let mut rig = Rig::polling();
    let chunk = "x".repeat(1 << 20);
    (0..6).for_each(|_| rig.session.send(text(&chunk)));
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::SlowConsumer)]);
    assert_eq!(rig.session.buffered_bytes(), 0, "and its memory is free");
}

#[test]
fn a_buffer_of_the_smallest_messages_overflows_long_before_their_bytes_would() {
    let mut rig = Rig::polling();
    let sent = (0..1_000_000).take_while(|_| {
        rig.session.send(text(""));
        !rig.session.is_closed()
    });
    assert!(sent.count() < (4 << 20) / 32, "each took more room than it counted");
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::SlowConsumer)]);
}

#[test]
fn refusals_have_the_bodies_that_suites_check() {
    let cases = [
        (Refusal::TRANSPORT_UNKNOWN, 400, r#"{"code":0,"message":"Transport unknown"}"#),
        (Refusal::UNKNOWN_SID, 400, r#"{"code":1,"message":"Session ID unknown"}"#),
        (Refusal::BAD_HANDSHAKE_METHOD, 400, r#"{"code":2,"message":"Bad handshake method"}"#),
        (Refusal::BAD_REQUEST, 400, r#"{"code":3,"message":"Bad request"}"#),
        (Refusal::FORBIDDEN, 403, r#"{"code":4,"message":"Forbidden"}"#),
        (Refusal::UNSUPPORTED_PROTOCOL_VERSION, 400, r#"{"code":5,"message":"Unsupported protocol version"}"#),
        (Refusal::EMPTY, 400, ""),
        (Refusal::TOO_LARGE, 413, ""),
        (Refusal::BAD_METHOD, 500, ""),
    ];
    for (refusal, status, body) in cases {
        assert_eq!((refusal.status, refusal.body().as_ref()), (status, body));
    }
}
