//! What the two specifications show going back and forth: handshake, heartbeat, upgrade, and the sample session, on one
//! session with its decoder, under a hand-moved clock.

use std::{sync::Arc, time::Duration, time::Instant};

use protocol::{
    Sid, SidKey,
    engine::{
        Message, Packet as EnginePacket,
        session::{CloseReason, Output, Refusal, Session, SessionConfig, Transport, UpgradeRefused},
    },
    socketio::{Decoder, Packet},
};

use super::{LIMITS, ack, connect, event};

#[path = "../../src/engine/session/tests/pace.rs"]
mod pace;

struct Rig {
    session: Session,
    decoder: Decoder,
    now: Instant,
}

fn sid() -> Sid {
    Sid::mint(1, 2, 3, [4; 12], &SidKey::new(b"golden"))
}

impl Rig {
    #[expect(clippy::disallowed_methods, reason = "a start for the hand-moved clock; there is no other way to get one")]
    fn open(transport: Transport, config: SessionConfig) -> Rig {
        let now = Instant::now();
        Rig { session: Session::new(Arc::new(config), transport, &sid(), now), decoder: Decoder::new(LIMITS), now }
    }

    /// A polling session whose first GET was answered.
    fn polling() -> Rig {
        let mut rig = Rig::open(Transport::Polling, pace::config());
        assert!(rig.get().is_some_and(|answer| answer.starts_with("0{")));
        rig
    }

    /// A GET, and its answer if there is one at once.
    fn get(&mut self) -> Option<String> {
        self.session.handle_get(self.now).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Option<String> {
        self.outputs()
            .into_iter()
            .find_map(|output| if let Output::PollAnswer(body) = output { Some(body.to_string()) } else { None })
    }

    /// A POST, and what the program gets of it.
    fn post(&mut self, body: &str) -> Vec<Packet> {
        self.session.handle_post_started().unwrap();
        self.session.handle_post(body.into(), self.now).unwrap();
        self.received()
    }

    /// A WebSocket frame of the client, and what the program gets of it.
    fn say(&mut self, text: &str) -> Vec<Packet> {
        self.session.handle_websocket_packet(Message::Text(text.into()), self.now);
        self.received()
    }

    fn received(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        for output in self.outputs() {
            if let Output::Message(message) = output {
                packets.extend(self.decoder.decode(message).unwrap());
            }
        }
        packets
    }

    fn send(&mut self, packet: &Packet) {
        packet.encode().messages().for_each(|message| self.session.send(message));
    }

    /// The frames that leave, as text; bytes as their number.
    fn frames(&mut self) -> Vec<String> {
        let frame = |output| {
            let Output::WebSocket(packet) = output else { panic!("no frame: {output:?}") };
            if let EnginePacket::Message(Message::Binary(data)) = &packet {
                return format!("{} bytes", data.len());
            }
            let mut text = Vec::new();
            packet.encode(&mut text);
            String::from_utf8(text).unwrap()
        };
        self.outputs().into_iter().map(frame).collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.session.handle_timeout(self.now);
    }
}

/// Engine.IO, Handshake: five keys, their types, in the order of the example.
#[test]
fn the_handshake_is_the_example_with_our_own_id() {
    let config = SessionConfig {
        ping_interval: Duration::from_secs(25),
        ping_timeout: Duration::from_secs(20),
        max_payload: 1_000_000,
        ..pace::config()
    };
    let expected = |upgrades: &str| {
        format!(
            r#"0{{"sid":"{}","upgrades":{upgrades},"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#,
            sid()
        )
    };
    let mut polling = Rig::open(Transport::Polling, config.clone());
    assert_eq!(polling.get(), Some(expected(r#"["websocket"]"#)));
    let mut websocket = Rig::open(Transport::WebSocket, config);
    assert_eq!(websocket.frames(), [expected("[]")], "there is nothing to upgrade to");
}

/// Engine.IO, Heartbeat: the server pings, the client answers, and who does not is taken for gone.
#[test]
fn the_server_pings_and_waits_for_the_pong() {
    let mut rig = Rig::open(Transport::WebSocket, pace::config());
    assert_eq!(rig.frames().len(), 1);
    for _ in 0..3 {
        rig.pass(300);
        assert_eq!(rig.frames(), ["2"]);
        assert_eq!(rig.say("3"), []);
    }
    rig.pass(300);
    assert_eq!(rig.frames(), ["2"]);
    rig.pass(200);
    assert_eq!(rig.outputs().last(), Some(&Output::Closed(CloseReason::PingTimeout)));
    let mut polling = Rig::polling();
    assert_eq!(polling.get(), None);
    polling.pass(300);
    assert_eq!(polling.answer().as_deref(), Some("2"), "to a client that polls it is the answer");
    let mut wrong = Rig::polling();
    wrong.session.handle_post_started().unwrap();
    assert_eq!(wrong.session.handle_post("2".into(), wrong.now), Err(Refusal::BAD_REQUEST), "From v3 to v4");
}

/// Engine.IO, Upgrade: probe, answer, noop for the open poll, upgrade, and a second WebSocket is not for this session.
#[test]
fn the_upgrade_is_the_example() {
    let mut rig = Rig::polling();
    assert_eq!(rig.get(), None);
    rig.session.handle_websocket_opened(rig.now).unwrap();
    rig.session.handle_websocket_packet(Message::Text("2probe".into()), rig.now);
    let pong = Output::WebSocket(EnginePacket::Pong("probe".into()));
    assert_eq!(rig.outputs(), [pong, Output::PollAnswer("6".into())]);
    rig.session.handle_websocket_packet(Message::Text("5".into()), rig.now);
    assert_eq!(rig.outputs(), [Output::Upgraded]);
    assert_eq!(rig.session.handle_websocket_opened(rig.now), Err(UpgradeRefused::Occupied));
    assert_eq!(rig.session.handle_get(rig.now), Err(Refusal::BAD_REQUEST), "polling is over");
}

/// Engine.IO, Sending data and Receiving data: one GET and one POST at a time, or the session is closed.
#[test]
fn two_requests_of_a_kind_at_once_close_the_session() {
    let mut rig = Rig::polling();
    assert_eq!(rig.get(), None);
    assert_eq!(rig.session.handle_get(rig.now), Err(Refusal::EMPTY));
    assert_eq!(rig.answer().as_deref(), Some("1"), "the first one learns of it");
    assert_eq!(rig.session.handle_get(rig.now), Err(Refusal::UNKNOWN_SID));
    let mut rig = Rig::polling();
    rig.session.handle_post_started().unwrap();
    assert_eq!(rig.session.handle_post_started(), Err(Refusal::EMPTY));
    assert_eq!(rig.session.handle_post_started(), Err(Refusal::UNKNOWN_SID));
}

/// Socket.IO, Sample session: its six requests, then the WebSocket.
#[test]
fn the_sample_session_goes_as_it_is_written() {
    let mut rig = Rig::polling();
    assert_eq!(rig.post("40"), [connect("/", None)]);
    rig.send(&connect("/", Some(r#"{"sid":"wZX3oN0bSVIhsaknAAAI"}"#)));
    assert_eq!(rig.get().as_deref(), Some(r#"40{"sid":"wZX3oN0bSVIhsaknAAAI"}"#));
    rig.send(&event("/", None, r#"["hey","Jude"]"#, &[]));
    assert_eq!(rig.get().as_deref(), Some(r#"42["hey","Jude"]"#));
    let [hello, world] = ["hello", "world"].map(|name| event("/", None, &format!("[\"{name}\"]"), &[]));
    assert_eq!(rig.post("42[\"hello\"]\x1e42[\"world\"]"), [hello.clone(), world.clone()]);
    rig.session.handle_websocket_opened(rig.now).unwrap();
    assert_eq!(rig.say("2probe"), []);
    assert_eq!(rig.say("5"), []);
    assert_eq!(rig.say(r#"42["hello"]"#), [hello]);
    assert_eq!(rig.say(r#"42["world"]"#), [world]);
    assert_eq!(rig.say("40/admin,"), [connect("/admin", None)]);
    rig.send(&connect("/admin", Some(r#"{"sid":"-G5j-67EZFp-q59rADQM"}"#)));
    assert_eq!(rig.frames(), [r#"40/admin,{"sid":"-G5j-67EZFp-q59rADQM"}"#]);
    assert_eq!(rig.say(r#"42/admin,1["tellme"]"#), [event("/admin", Some(1), r#"["tellme"]"#, &[])]);
    rig.send(&ack("/admin", 1, r#"[{"_placeholder":true,"num":0}]"#, &[&[1, 2, 3, 4]]));
    assert_eq!(rig.frames(), [r#"461-/admin,1[{"_placeholder":true,"num":0}]"#, "4 bytes"]);
    rig.pass(300);
    assert_eq!(rig.frames(), ["2"]);
    assert_eq!(rig.say("3"), []);
    rig.session.handle_websocket_packet(Message::Text("1".into()), rig.now);
    assert_eq!(rig.outputs().last(), Some(&Output::Closed(CloseReason::ClientClose)));
}

/// The refusals that a session gives itself, byte for byte (the rest is the server's: its tests have them).
#[test]
fn refusals_have_the_bodies_of_the_reference() {
    let vectors = [
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
    for (refusal, status, body) in vectors {
        assert_eq!((refusal.status, refusal.body().as_ref()), (status, body));
    }
}
