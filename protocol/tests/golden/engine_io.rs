//! Engine.IO v4 (`engine.io-protocol`, and the tests of `engine.io-parser`): packets, polling bodies, WebSocket frames.

use protocol::engine::{
    Message, Packet, PacketError,
    frame::{self, FrameError, Opcode},
    payload::{self, Limits, PayloadError},
};

use super::hex;

const LIMITS: Limits = Limits { bytes: 1_000_000, packets: 64 };

fn text(text: &str) -> Packet {
    Packet::Message(Message::Text(text.into()))
}

fn binary(data: &'static [u8]) -> Packet {
    Packet::Message(Message::Binary(data.into()))
}

#[test]
fn every_packet_of_the_specification_is_read_and_written() {
    let open = r#"{"sid":"lv_VI97HAXpY6yYWAAAC","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let vectors = [
        ("Handshake", format!("0{open}"), Packet::Open(open.into())),
        ("Protocol: close", "1".into(), Packet::Close),
        ("Heartbeat", "2".into(), Packet::Ping("".into())),
        ("Heartbeat", "3".into(), Packet::Pong("".into())),
        ("Upgrade", "2probe".into(), Packet::Ping("probe".into())),
        ("Upgrade", "3probe".into(), Packet::Pong("probe".into())),
        ("Upgrade", "5".into(), Packet::Upgrade),
        ("Upgrade", "6".into(), Packet::Noop),
        ("Packet encoding: WebSocket", "4hello".into(), text("hello")),
        ("Packet encoding: HTTP long-polling", "bAQIDBA==".into(), binary(&[1, 2, 3, 4])),
        ("From v3 to v4: no count of characters", "4€".into(), text("€")),
        ("parser: encode/decode a string", "4test".into(), text("test")),
        ("parser: text that looks like base64", "4bAQIDBA==".into(), text("bAQIDBA==")),
        ("parser: text with a type of its own", "42[\"a\"]".into(), text("2[\"a\"]")),
        ("parser: nothing in a message", "4".into(), text("")),
        ("parser: no bytes in a message", "b".into(), binary(&[])),
    ];
    for (section, wire, packet) in vectors {
        assert_eq!(Packet::decode_text(&wire.as_str().into()), Ok(packet.clone()), "{section}: {wire}");
        let mut written = Vec::new();
        packet.encode(&mut written);
        assert_eq!(String::from_utf8(written).unwrap(), wire, "{section}");
        assert_eq!(packet.encoded_len(), wire.len(), "{section}");
    }
}

#[test]
fn every_body_of_the_specification_is_read_and_written() {
    let vectors = [
        ("Packet encoding", "4hello\x1e2\x1e4world", vec![text("hello"), Packet::Ping("".into()), text("world")]),
        ("Packet encoding: binary", "4hello\x1ebAQIDBA==", vec![text("hello"), binary(&[1, 2, 3, 4])]),
        (
            "parser: all packet types",
            "0\x1e1\x1e2probe\x1e3probe\x1e4test",
            vec![
                Packet::Open("".into()),
                Packet::Close,
                Packet::Ping("probe".into()),
                Packet::Pong("probe".into()),
                text("test"),
            ],
        ),
        ("parser: text and binary", "4test\x1ebAQIDBA==", vec![text("test"), binary(&[1, 2, 3, 4])]),
        ("From v3 to v4: a separator", "4€\x1e4€", vec![text("€"), text("€")]),
    ];
    for (section, body, packets) in vectors {
        assert_eq!(payload::decode(&body.into(), LIMITS), Ok(packets.clone()), "{section}");
        assert_eq!(payload::encode(&packets), body, "{section}");
    }
}

#[test]
fn every_frame_of_the_specification_is_written_and_read() {
    // FIN with the type, the length, the content: RFC 6455, 5.2. A text has its packet type, bytes are as they are.
    let vectors = [
        ("Packet encoding: WebSocket", text("hello"), hex("81 06 34 68656c6c6f"), Opcode::Text),
        ("Packet encoding: binary as is", binary(&[1, 2, 3, 4]), hex("82 04 01020304"), Opcode::Binary),
        ("parser: 1€", text("1€"), hex("81 05 34 31 e282ac"), Opcode::Text),
        ("Heartbeat", Packet::Ping("".into()), hex("81 01 32"), Opcode::Text),
        ("Upgrade: probe", Packet::Pong("probe".into()), hex("81 06 33 70726f6265"), Opcode::Text),
        ("Upgrade: noop", Packet::Noop, hex("81 01 36"), Opcode::Text),
    ];
    for (section, packet, wire, opcode) in vectors {
        let mut written = Vec::new();
        frame::put_packet(&mut written, &packet);
        assert_eq!(written, wire, "{section}");
        assert_eq!(frame::next_frame(&wire), Ok(Some((opcode, 2..wire.len(), wire.len()))), "{section}");
    }
}

/// A client masks what it writes: RFC 6455, 5.3, with the key and the text of its example in 5.7.
#[test]
fn the_masked_hello_of_rfc_6455_has_its_bytes() {
    let mut written = Vec::new();
    frame::put_masked_text(&mut written, &[b"Hel", b"lo"], [0x37, 0xfa, 0x21, 0x3d]);
    assert_eq!(written, hex("81 85 37fa213d 7f9f4d5158"));
}

/// RFC 6455, 5.2: up to 125 in the second byte, then 16 bits behind 126, then 64 behind 127.
#[test]
fn lengths_of_frames_take_the_room_that_rfc_6455_gives_them() {
    let vectors = [(125, "82 7d"), (126, "82 7e 007e"), (65_535, "82 7e ffff"), (65_536, "82 7f 0000000000010000")];
    for (length, head) in vectors {
        let mut written = Vec::new();
        frame::put_binary(&mut written, &vec![0; length]);
        let head = hex(head);
        assert!(written.starts_with(&head) && written.len() == head.len() + length, "{length}");
    }
    let close = |code, reason| {
        let mut written = Vec::new();
        frame::put_close(&mut written, code, reason);
        written
    };
    assert_eq!(close(1009, ""), hex("88 02 03f1"));
    assert_eq!(close(1001, "bye"), hex("88 05 03e9 627965"));
}

#[test]
fn whatever_the_official_parser_refuses_is_refused() {
    let refused = |wire: &str| Packet::decode_text(&wire.into()).unwrap_err();
    let vectors = [
        ("parser: a malformed packet", "", PacketError::Empty),
        ("parser: a malformed packet", "a123", PacketError::UnknownType),
        ("Protocol: there is no type 7", "7", PacketError::UnknownType),
        ("Protocol: a type is one digit", "-1", PacketError::UnknownType),
        ("Packet encoding: base64", "bAQIDB", PacketError::Base64),
        ("Packet encoding: base64", "b AQID", PacketError::Base64),
        ("Packet encoding: base64", "bAQID-_8=", PacketError::Base64),
        ("From v3 to v4: a count of characters", ":4€", PacketError::UnknownType),
    ];
    for (section, wire, error) in vectors {
        assert_eq!(refused(wire), error, "{section}: {wire}");
    }
    let bodies = [
        ("parser: a malformed payload", "{", PacketError::UnknownType),
        ("parser: a malformed payload", "{}", PacketError::UnknownType),
        ("parser: a malformed payload", r#"["a123", "a456"]"#, PacketError::UnknownType),
        ("Packet encoding: nothing between two separators", "4a\x1e\x1e4b", PacketError::Empty),
        ("Packet encoding: nothing behind a separator", "4a\x1e", PacketError::Empty),
        ("Packet encoding: no packet at all", "", PacketError::Empty),
    ];
    for (section, body, error) in bodies {
        assert_eq!(payload::decode(&body.into(), LIMITS), Err(PayloadError::Packet(error)), "{section}: {body:?}");
    }
    let large = format!("4{}", "x".repeat(LIMITS.bytes));
    assert_eq!(
        payload::decode(&large.into(), LIMITS),
        Err(PayloadError::TooLarge { limit: 1_000_000 }),
        "Handshake: maxPayload"
    );
}

#[test]
fn frames_that_no_server_writes_are_refused() {
    let vectors = [
        ("5.2: a reserved bit", hex("c1 01 34"), FrameError::Unexpected { first: 0xc1 }),
        ("5.2: a reserved opcode", hex("83 00"), FrameError::Unexpected { first: 0x83 }),
        ("5.4: a fragment", hex("01 01 34"), FrameError::Unexpected { first: 0x01 }),
        ("5.1: a mask from a server", hex("81 81 00000000 34"), FrameError::Masked),
        ("5.2: more than anybody sends", hex("82 7f 7fffffffffffffff"), FrameError::TooLarge),
    ];
    for (section, wire, error) in vectors {
        assert_eq!(frame::next_frame(&wire), Err(error), "RFC 6455, {section}");
    }
    assert_eq!(frame::messages(&hex("81 03 34 c328")).next(), Some(Err(FrameError::Utf8)), "RFC 6455, 8.1");
    assert_eq!(frame::messages(&hex("81 06 34 68")).next(), Some(Err(FrameError::Truncated)), "RFC 6455, 5.2");
    assert_eq!(frame::messages(&hex("81 01 32")).next(), Some(Err(FrameError::NotAMessage)), "a ping is none");
}
