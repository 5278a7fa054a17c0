//! The heartbeat (protocol.md 3), at 300 and 200 ms.

use super::*;

const PING: Output = Output::WebSocket(Packet::Ping(ByteString::new()));

#[test]
fn the_server_pings_after_the_interval() {
    let mut rig = Rig::websocket();
    rig.pass(299);
    assert_eq!(rig.outputs(), []);
    rig.pass(1);
    assert_eq!(rig.outputs(), [PING]);
}

#[test]
fn the_next_ping_comes_an_interval_after_the_pong() {
    let mut rig = Rig::websocket();
    rig.pass(300);
    assert_eq!(rig.outputs(), [PING]);
    rig.pass(150);
    rig.ws("3");
    rig.pass(299);
    assert_eq!(rig.outputs(), []);
    rig.pass(1);
    assert_eq!(rig.outputs(), [PING]);
}

#[test]
fn a_client_that_answers_lives_for_ever() {
    for mut rig in [Rig::websocket(), Rig::upgraded()] {
        for _ in 0..1000 {
            rig.pass(300);
            assert_eq!(rig.outputs(), [PING]);
            rig.pass(199);
            rig.ws("3");
        }
        assert!(!rig.session.is_closed());
    }
}

#[test]
fn an_unanswered_ping_closes_the_websocket() {
    let mut rig = Rig::websocket();
    rig.pass(499);
    assert_eq!(rig.outputs(), [PING]);
    rig.pass(1);
    assert_eq!(rig.outputs(), [Output::CloseWebSocket(None), Output::Closed(CloseReason::PingTimeout)]);
    rig.assert_gone();
}

#[test]
fn the_ping_travels_in_the_open_poll() {
    let mut rig = Rig::polling();
    rig.get();
    rig.pass(300);
    assert_eq!(rig.outputs(), [body("2")]);
    assert_eq!(rig.post("3"), Ok(()));
    rig.get();
    rig.pass(299);
    assert_eq!(rig.outputs(), []);
    rig.pass(1);
    assert_eq!(rig.outputs(), [body("2")]);
}

#[test]
fn without_an_open_poll_the_ping_waits_for_the_next_one() {
    let mut rig = Rig::polling();
    rig.pass(400);
    assert_eq!(rig.outputs(), []);
    rig.get();
    assert_eq!(rig.outputs(), [body("2")]);
}

#[test]
fn a_polling_client_that_does_not_answer_is_closed_and_its_poll_released() {
    let mut rig = Rig::polling();
    rig.get();
    rig.pass(300);
    assert_eq!(rig.outputs(), [body("2")]);
    rig.get();
    rig.pass(200);
    assert_eq!(rig.outputs(), [body("1"), Output::Closed(CloseReason::PingTimeout)]);
    rig.assert_gone();
}

#[test]
fn a_client_that_went_silent_without_a_poll_is_closed() {
    let mut rig = Rig::polling();
    rig.pass(500);
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::PingTimeout)]);
}

#[test]
fn a_ping_from_the_client_closes_the_session() {
    for ping in ["2", "2probe", "2x"] {
        let mut rig = Rig::websocket();
        rig.ws(ping);
        assert_eq!(rig.outputs(), [Output::CloseWebSocket(Some(1002)), Output::Closed(CloseReason::TransportError)]);
        rig.assert_gone();
        let mut rig = Rig::polling();
        rig.get();
        assert_eq!(rig.post(ping), Err(Refusal::BAD_REQUEST));
        assert_eq!(rig.outputs(), [body("1"), Output::Closed(CloseReason::TransportError)]);
        rig.assert_gone();
    }
}

#[test]
fn an_uninvited_pong_does_not_delay_the_ping() {
    let mut rig = Rig::websocket();
    rig.pass(200);
    rig.ws("3");
    rig.pass(100);
    assert_eq!(rig.outputs(), [PING]);
}

#[test]
fn talking_is_no_answer_to_a_ping() {
    let mut rig = Rig::websocket();
    rig.pass(300);
    rig.ws("4hello");
    rig.pass(200);
    assert!(rig.session.is_closed());
}

#[test]
fn a_late_timer_still_leaves_the_client_its_whole_time() {
    let mut rig = Rig::websocket();
    rig.now += Duration::from_secs(5);
    rig.session.handle_timeout(rig.now);
    assert_eq!(rig.outputs(), [PING]);
    rig.pass(199);
    rig.ws("3");
    assert!(!rig.session.is_closed());
}

#[test]
fn an_early_timer_does_nothing() {
    let mut rig = Rig::websocket();
    let due = rig.session.poll_timeout();
    rig.session.handle_timeout(rig.now);
    assert_eq!(rig.outputs(), []);
    assert_eq!(rig.session.poll_timeout(), due);
}
