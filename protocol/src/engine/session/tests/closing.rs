//! Ends of sessions (protocol.md 6).

use super::*;

#[test]
fn a_close_packet_by_post_releases_the_poll_with_a_noop() {
    let mut rig = Rig::polling();
    rig.get();
    assert_eq!(rig.post("4a\x1e1\x1e4b"), Ok(()));
    assert_eq!(rig.outputs(), [received("a"), body("6"), Output::Closed(CloseReason::ClientClose)]);
    rig.assert_gone();
}

#[test]
fn a_close_packet_on_the_websocket_closes_it() {
    for mut rig in [Rig::websocket(), Rig::upgraded()] {
        rig.ws("1");
        assert_eq!(rig.outputs(), [Output::CloseWebSocket(None), Output::Closed(CloseReason::ClientClose)]);
        rig.assert_gone();
    }
}

#[test]
fn a_closed_websocket_ends_the_session() {
    for (clean, reason) in [(true, CloseReason::TransportClose), (false, CloseReason::TransportError)] {
        let mut rig = Rig::upgraded();
        rig.session.handle_websocket_closed(clean, rig.now);
        assert_eq!(rig.outputs(), [Output::Closed(reason)]);
        rig.assert_gone();
    }
}

#[test]
fn an_undecodable_packet_on_the_websocket_ends_the_session() {
    for packet in ["", "7", "x", "é", "1x", "b#"] {
        let mut rig = Rig::websocket();
        rig.ws(packet);
        assert_eq!(rig.outputs(), [Output::CloseWebSocket(Some(1002)), Output::Closed(CloseReason::ParseError)]);
        rig.assert_gone();
    }
}

#[test]
fn the_server_closes_a_websocket_behind_the_last_message_and_without_a_packet() {
    let mut rig = Rig::websocket();
    rig.session.send(text("bye"));
    rig.session.close(CloseReason::Draining, rig.now);
    let ends = [Output::CloseWebSocket(Some(1001)), Output::Closed(CloseReason::Draining)];
    assert_eq!(rig.outputs(), [[sent("bye")].as_slice(), &ends].concat());
    rig.assert_gone();
}

#[test]
fn whoever_is_being_closed_is_not_listened_to_any_more() {
    for ends in ["", "\x1e1"] {
        let mut rig = Rig::polling();
        assert_eq!(rig.post(&format!("4bad\x1e4behind{ends}")), Ok(()));
        assert_eq!(rig.session.poll_output(), Some(received("bad")));
        rig.session.close(CloseReason::ParseError, rig.now);
        assert!(!rig.outputs().contains(&received("behind")));
    }
    let mut rig = Rig::polling();
    rig.session.close(CloseReason::ServerClose, rig.now);
    assert_eq!(rig.post("4late"), Ok(()));
    assert_eq!(rig.outputs(), []);
}

#[test]
fn the_server_closes_an_open_poll_with_what_is_queued_and_a_close_packet() {
    let mut rig = Rig::polling();
    rig.get();
    rig.session.send(text("a"));
    rig.session.close(CloseReason::ServerClose, rig.now);
    assert_eq!(rig.outputs(), [body("4a\x1e1"), Output::Closed(CloseReason::ServerClose)]);
    rig.assert_gone();
}

#[test]
fn without_an_open_poll_the_close_waits_for_one() {
    let mut rig = Rig::polling();
    rig.session.send(text("a"));
    rig.session.close(CloseReason::ServerClose, rig.now);
    assert_eq!(rig.outputs(), []);
    rig.pass(29_999);
    assert!(!rig.session.is_closed());
    rig.get();
    assert_eq!(rig.outputs(), [body("4a\x1e1"), Output::Closed(CloseReason::ServerClose)]);
    rig.assert_gone();
}

#[test]
fn a_close_that_no_poll_fetches_ends_after_the_wait() {
    let mut rig = Rig::polling();
    rig.session.close(CloseReason::ServerClose, rig.now);
    rig.pass(30_000);
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::ServerClose)]);
    rig.assert_gone();
}

#[test]
fn a_long_queue_leaves_by_several_polls_before_the_close() {
    let mut rig = Rig::polling();
    (0..20).for_each(|n| rig.session.send(text(&n.to_string())));
    rig.session.close(CloseReason::ServerClose, rig.now);
    rig.get();
    assert_eq!(rig.outputs().len(), 1);
    rig.get();
    assert_eq!(rig.outputs(), [body("416\x1e417\x1e418\x1e419\x1e1"), Output::Closed(CloseReason::ServerClose)]);
}

#[test]
fn a_closing_session_takes_no_more_messages_in_either_direction() {
    let mut rig = Rig::polling();
    rig.session.close(CloseReason::ServerClose, rig.now);
    assert_eq!(rig.post("4a"), Ok(()));
    rig.session.send(text("b"));
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Err(UpgradeRefused::Closed));
    rig.get();
    assert_eq!(rig.outputs(), [body("1"), Output::Closed(CloseReason::ServerClose)]);
}

#[test]
fn a_closing_session_ends_with_the_reason_it_was_closed_for() {
    let mut rig = Rig::polling();
    (0..20).for_each(|n| rig.session.send(text(&n.to_string())));
    rig.session.close(CloseReason::Draining, rig.now);
    rig.get();
    rig.outputs();
    rig.get();
    rig.session.handle_get_aborted(rig.now);
    assert_eq!(rig.outputs().last(), Some(&Output::Closed(CloseReason::Draining)));
}

#[test]
fn a_slow_consumer_is_not_waited_for() {
    let mut rig = Rig::polling();
    rig.session.send(text("a"));
    rig.session.close(CloseReason::SlowConsumer, rig.now);
    assert_eq!(rig.outputs(), [Output::Closed(CloseReason::SlowConsumer)]);
    rig.assert_gone();
}

#[test]
fn every_end_closes_a_probing_websocket_too() {
    let ends: [fn(&mut Rig); 4] = [
        |rig| rig.session.close(CloseReason::ServerClose, rig.now),
        |rig| assert_eq!(rig.post("1"), Ok(())),
        |rig| assert!(rig.post("!").is_err()),
        |rig| rig.pass(500),
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let mut rig = Rig::probing();
        end(&mut rig);
        let outputs = rig.outputs();
        let closes = outputs.iter().filter(|output| matches!(output, Output::CloseWebSocket(_)));
        assert_eq!(closes.count(), 1, "end {n}: {outputs:?}");
    }
}

#[test]
fn every_reason_has_its_own_label() {
    let labels = [
        CloseReason::TransportClose,
        CloseReason::TransportError,
        CloseReason::PingTimeout,
        CloseReason::ParseError,
        CloseReason::ClientClose,
        CloseReason::ServerClose,
        CloseReason::SlowConsumer,
        CloseReason::ConnectTimeout,
        CloseReason::Draining,
    ]
    .map(CloseReason::as_str);
    assert_eq!(labels.iter().collect::<std::collections::BTreeSet<_>>().len(), labels.len());
}
