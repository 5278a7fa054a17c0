//! Tests of single packets: golden vectors from the specification, and round trips.

use proptest::prelude::*;

use super::*;

pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        "[^\u{1e}]*".prop_map(|text| Message::Text(text.into())),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|data| Message::Binary(data.into())),
    ]
}

pub(crate) fn any_packet() -> impl Strategy<Value = Packet> {
    let data = || "[^\u{1e}]*".prop_map(ByteString::from);
    prop_oneof![
        data().prop_map(Packet::Open),
        Just(Packet::Close),
        data().prop_map(Packet::Ping),
        data().prop_map(Packet::Pong),
        any_message().prop_map(Packet::Message),
        Just(Packet::Upgrade),
        Just(Packet::Noop),
    ]
}

fn encoded(packet: &Packet) -> String {
    let mut out = Vec::new();
    packet.encode(&mut out);
    assert_eq!(out.len(), packet.encoded_len());
    String::from_utf8(out).unwrap()
}

#[test]
fn packets_have_the_texts_of_the_specification() {
    let text = |text: &str| Packet::Message(Message::Text(text.into()));
    let binary = |data: &'static [u8]| Packet::Message(Message::Binary(data.into()));
    let cases = [
        ("0{}", Packet::Open("{}".into())),
        ("1", Packet::Close),
        ("2", Packet::Ping("".into())),
        ("2probe", Packet::Ping("probe".into())),
        ("3", Packet::Pong("".into())),
        ("3probe", Packet::Pong("probe".into())),
        ("4", text("")),
        ("4hello", text("hello")),
        ("4€", text("€")),
        ("4b", text("b")),
        ("5", Packet::Upgrade),
        ("6", Packet::Noop),
        ("b", binary(&[])),
        ("bAQIDBA==", binary(&[1, 2, 3, 4])),
        ("b+/+/", binary(&[0xFB, 0xFF, 0xBF])),
    ];
    for (wire, packet) in cases {
        assert_eq!(Packet::decode_text(&wire.into()), Ok(packet.clone()), "{wire}");
        assert_eq!(encoded(&packet), wire);
    }
}

#[test]
fn unpadded_base64_is_accepted() {
    let expected = Packet::Message(Message::Binary(vec![1, 2, 3, 4].into()));
    assert_eq!(Packet::decode_text(&"bAQIDBA".into()), Ok(expected));
}

#[test]
fn what_is_no_packet_is_refused() {
    let cases = [
        ("", PacketError::Empty),
        ("7", PacketError::UnknownType),
        ("a", PacketError::UnknownType),
        ("B", PacketError::UnknownType),
        (" 4", PacketError::UnknownType),
        ("é4", PacketError::UnknownType),
        ("\0", PacketError::UnknownType),
        ("1x", PacketError::UnexpectedData),
        ("5 ", PacketError::UnexpectedData),
        ("60", PacketError::UnexpectedData),
        ("bA", PacketError::Base64),
        ("b=", PacketError::Base64),
        ("b-_-_", PacketError::Base64),
        ("bAQI!", PacketError::Base64),
        ("bé", PacketError::Base64),
    ];
    for (wire, error) in cases {
        assert_eq!(Packet::decode_text(&wire.into()), Err(error), "{wire}");
    }
}

#[test]
fn a_decoded_text_is_a_slice_of_what_arrived() {
    let wire = ByteString::from("4hello");
    let Ok(Packet::Message(Message::Text(text))) = Packet::decode_text(&wire) else { panic!("no text") };
    assert_eq!(text.as_ptr(), wire[1..].as_ptr());
}

proptest! {
    #[test]
    fn packets_survive_the_wire(packet in any_packet()) {
        prop_assert_eq!(Packet::decode_text(&encoded(&packet).into()), Ok(packet));
    }

    #[test]
    fn no_text_makes_the_decoder_panic(text in any::<String>()) {
        if let Ok(packet) = Packet::decode_text(&text.as_str().into()) {
            prop_assert!(packet.encoded_len() <= text.len() + 3, "no more than the padding is added");
        }
    }
}
