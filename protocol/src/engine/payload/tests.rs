//! Tests of polling bodies: golden vectors, limits, and that joining and splitting are inverse.

use proptest::prelude::*;

use super::*;
use crate::engine::{Message, tests::any_packet};

const LIMITS: Limits = Limits { bytes: 1 << 20, packets: 64 };

fn text(text: &str) -> Packet {
    Packet::Message(Message::Text(text.into()))
}

#[test]
fn bodies_are_those_of_the_specification() {
    let binary = Packet::Message(Message::Binary(vec![1, 2, 3, 4].into()));
    let cases = [
        ("6", vec![Packet::Noop]),
        ("4hello\x1e2\x1e4world", vec![text("hello"), Packet::Ping("".into()), text("world")]),
        ("4hello\x1ebAQIDBA==", vec![text("hello"), binary]),
        ("4€\x1e4", vec![text("€"), text("")]),
    ];
    for (body, packets) in cases {
        assert_eq!(decode(&body.into(), LIMITS), Ok(packets.clone()), "{body:?}");
        assert_eq!(encode(&packets), body);
    }
}

#[test]
fn a_separator_without_a_packet_is_refused() {
    for body in ["", "\x1e", "4a\x1e", "\x1e4a", "4a\x1e\x1e4b"] {
        assert_eq!(decode(&body.into(), LIMITS), Err(PayloadError::Packet(PacketError::Empty)), "{body:?}");
    }
}

#[test]
fn limits_are_exact() {
    let limits = Limits { bytes: 8, packets: 3 };
    assert!(decode(&"4aaaaaaa".into(), limits).is_ok());
    assert_eq!(decode(&"4aaaaaaaa".into(), limits), Err(PayloadError::TooLarge { limit: 8 }));
    assert!(decode(&"2\x1e2\x1e2".into(), limits).is_ok());
    assert_eq!(decode(&"2\x1e2\x1e2\x1e2".into(), limits), Err(PayloadError::TooManyPackets { limit: 3 }));
}

#[test]
fn decoded_texts_are_slices_of_the_body() {
    let body = ByteString::from("4a\x1e4bcd");
    let packets = decode(&body, LIMITS).unwrap();
    let Packet::Message(Message::Text(text)) = &packets[1] else { panic!("no text") };
    assert_eq!(text.as_ptr(), body[4..].as_ptr());
}

proptest! {
    #[test]
    fn a_joined_body_splits_into_the_same_packets(packets in proptest::collection::vec(any_packet(), 1..20)) {
        prop_assert_eq!(decode(&encode(&packets), LIMITS), Ok(packets));
    }

    #[test]
    fn bodies_concatenate(first in proptest::collection::vec(any_packet(), 1..9), second in proptest::collection::vec(any_packet(), 1..9)) {
        let body = format!("{}\x1e{}", encode(&first), encode(&second));
        prop_assert_eq!(decode(&body.into(), LIMITS), Ok([first, second].concat()));
    }

    #[test]
    fn no_text_makes_the_decoder_panic(text in "[0-6b\u{1e}a-zA-Z=é]*") {
        let _ = decode(&text.into(), LIMITS);
    }
}
