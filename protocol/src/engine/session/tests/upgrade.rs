//! The switch from polling to a WebSocket (protocol.md 4).

use super::*;

fn probe_answer() -> Output {
    Output::WebSocket(Packet::Pong("probe".into()))
}

#[test]
fn probe_and_upgrade_switch_the_transport() {
    let mut rig = Rig::polling();
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Ok(()));
    rig.ws("2probe");
    assert_eq!(rig.outputs(), [probe_answer()]);
    assert_eq!(rig.session.transport(), Transport::Polling);
    rig.ws("5");
    assert_eq!(rig.outputs(), [Output::Upgraded]);
    assert_eq!(rig.session.transport(), Transport::WebSocket);
    rig.session.send(text("a"));
    rig.ws("4b");
    assert_eq!(rig.outputs(), [sent("a"), received("b")]);
}

#[test]
fn probe_and_upgrade_may_come_back_to_back_while_a_poll_waits() {
    let mut rig = Rig::polling();
    rig.get();
    rig.session.handle_websocket_opened(rig.now).unwrap();
    rig.ws("2probe");
    rig.ws("5");
    assert_eq!(rig.outputs(), [probe_answer(), body("6"), Output::Upgraded]);
}

#[test]
fn the_probe_releases_a_waiting_poll_at_once() {
    let mut rig = Rig::polling();
    rig.get();
    rig.session.handle_websocket_opened(rig.now).unwrap();
    assert_eq!(rig.outputs(), [], "but the WebSocket alone does not");
    rig.ws("2probe");
    assert_eq!(rig.outputs(), [probe_answer(), body("6")]);
}

#[test]
fn a_poll_after_the_probe_is_released_within_100_ms() {
    let mut rig = Rig::probing();
    rig.get();
    assert_eq!(rig.outputs(), [body("6")]);
    rig.get();
    rig.pass(99);
    assert_eq!(rig.outputs(), [], "a client that polls on must not spin");
    rig.pass(1);
    assert_eq!(rig.outputs(), [body("6")]);
}

#[test]
fn the_release_timer_rests_while_a_poll_is_about_to_be_answered() {
    let mut rig = Rig::probing();
    rig.get();
    assert_eq!(rig.outputs(), [body("6")]);
    rig.get();
    rig.session.send(text("a"));
    rig.pass(250);
    assert_eq!(rig.outputs(), [body("4a")], "and the clock did not stand still");
}

#[test]
fn the_switch_releases_a_poll_that_still_waits() {
    let mut rig = Rig::probing();
    rig.get();
    assert_eq!(rig.outputs(), [body("6")]);
    rig.get();
    rig.ws("5");
    assert_eq!(rig.outputs(), [body("6"), Output::Upgraded]);
}

#[test]
fn messages_leave_by_the_poll_while_probing() {
    let mut rig = Rig::probing();
    rig.session.send(text("a"));
    rig.get();
    assert_eq!(rig.outputs(), [body("4a")]);
}

#[test]
fn messages_arrive_by_post_while_probing() {
    let mut rig = Rig::probing();
    assert_eq!(rig.post("4a"), Ok(()));
    rig.ws("5");
    rig.ws("4b");
    assert_eq!(rig.outputs(), [received("a"), Output::Upgraded, received("b")]);
}

#[test]
fn a_post_that_began_before_the_switch_still_counts() {
    let mut rig = Rig::probing();
    rig.session.handle_post_started().unwrap();
    rig.ws("5");
    assert_eq!(rig.session.handle_post("4a".into(), rig.now), Ok(()));
    assert_eq!(rig.outputs(), [Output::Upgraded, received("a")]);
}

#[test]
fn the_switch_loses_and_reorders_nothing() {
    let mut rig = Rig::probing();
    rig.session.send(text("1"));
    rig.get();
    assert_eq!(rig.outputs(), [body("41")]);
    rig.session.send(text("2"));
    rig.session.send(text("3"));
    rig.ws("5");
    rig.session.send(text("4"));
    assert_eq!(rig.outputs(), [Output::Upgraded, sent("2"), sent("3"), sent("4")]);
    assert_eq!(rig.session.buffered_bytes(), 0);
}

#[test]
fn a_ping_that_waited_for_a_poll_goes_to_the_websocket() {
    let mut rig = Rig::probing();
    rig.pass(300);
    rig.ws("5");
    assert_eq!(rig.outputs(), [Output::Upgraded, Output::WebSocket(Packet::Ping(ByteString::new()))]);
    rig.pass(199);
    rig.ws("3");
    rig.pass(299);
    assert!(!rig.session.is_closed());
}

#[test]
fn any_other_packet_closes_only_the_candidate() {
    let first = ["5", "2", "2prob", "2probe2", "3probe", "4hello", "0", "1", "6", "", "x"];
    let then = ["2probe", "4hello", "1", "6", "5 ", ""];
    let cases = first.map(|it| (Rig::polling as fn() -> Rig, it)).into_iter();
    for (rig, packet) in cases.chain(then.map(|it| (Rig::probing as fn() -> Rig, it))) {
        let mut rig = rig();
        let _ = rig.session.handle_websocket_opened(rig.now);
        rig.ws(packet);
        assert_eq!(rig.outputs(), [Output::CloseWebSocket(None)], "{packet:?}");
        rig.ws("5");
        rig.get();
        rig.session.send(text("a"));
        assert_eq!(rig.outputs(), [body("4a")], "the session polls on after {packet:?}");
    }
}

#[test]
fn a_binary_message_closes_only_the_candidate() {
    let mut rig = Rig::probing();
    rig.session.handle_websocket_packet(Message::Binary(vec![0].into()), rig.now);
    assert_eq!(rig.outputs(), [Output::CloseWebSocket(None)]);
    assert!(!rig.session.is_closed());
}

#[test]
fn a_candidate_that_dawdles_is_closed_and_another_may_try() {
    let slow_beat = SessionConfig { ping_interval: Duration::from_secs(60), ..config() };
    let mut rig = Rig::with(Transport::Polling, slow_beat);
    rig.get();
    rig.session.handle_websocket_opened(rig.now).unwrap();
    rig.ws("2probe");
    rig.outputs();
    rig.pass(9_999);
    assert_eq!(rig.outputs(), []);
    rig.pass(1);
    assert_eq!(rig.outputs(), [Output::CloseWebSocket(None)]);
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Ok(()));
    rig.ws("2probe");
    rig.ws("5");
    assert_eq!(rig.outputs(), [probe_answer(), Output::Upgraded]);
}

#[test]
fn a_candidate_that_goes_away_leaves_the_session_polling() {
    let mut rig = Rig::probing();
    rig.session.handle_websocket_closed(false, rig.now);
    assert_eq!(rig.outputs(), []);
    rig.get();
    rig.session.send(text("a"));
    assert_eq!(rig.outputs(), [body("4a")]);
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Ok(()));
}

#[test]
fn a_second_websocket_is_refused_and_the_session_lives_on() {
    let mut probing = Rig::probing();
    assert_eq!(probing.session.handle_websocket_opened(probing.now), Err(UpgradeRefused::Occupied));
    probing.ws("5");
    assert_eq!(probing.outputs(), [Output::Upgraded]);
    for mut rig in [probing, Rig::websocket()] {
        assert_eq!(rig.session.handle_websocket_opened(rig.now), Err(UpgradeRefused::Occupied));
        rig.session.send(text("a"));
        assert_eq!(rig.outputs(), [sent("a")]);
    }
}

#[test]
fn polling_requests_after_the_upgrade_are_bad_requests_and_harmless() {
    for mut rig in [Rig::upgraded(), Rig::websocket()] {
        assert_eq!(rig.session.handle_get(rig.now), Err(Refusal::BAD_REQUEST));
        assert_eq!(rig.session.handle_post_started(), Err(Refusal::BAD_REQUEST));
        rig.session.send(text("a"));
        assert_eq!(rig.outputs(), [sent("a")]);
    }
}
