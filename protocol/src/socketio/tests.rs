//! Tests of Socket.IO packets: golden vectors from the specification, reassembly, limits and round trips.

use proptest::prelude::*;

use super::*;
use crate::engine::{
    Message,
    frame::{self, FrameError},
};

pub(super) const LIMITS: DecoderLimits = DecoderLimits { attachments: 10, bytes: 1000, name_bytes: 16, json_depth: 64 };

fn decode(text: &str) -> Result<Option<Packet>, DecodeError> {
    Decoder::new(LIMITS).decode(Message::Text(text.into()))
}

fn binary(data: &'static [u8]) -> Message {
    Message::Binary(Bytes::from_static(data))
}

fn text_of(encoded: &Encoded) -> &str {
    let Message::Text(text) = &encoded.head else { panic!("binary") };
    text
}

fn event(nsp: &str, id: Option<u64>, json: &str) -> Packet {
    Packet::Event { nsp: nsp.into(), id, args: Args::text(json) }
}

fn ack(nsp: &str, id: u64, json: &str) -> Packet {
    Packet::Ack { nsp: nsp.into(), id, args: Args::text(json) }
}

fn connect(nsp: &str, auth: Option<&str>) -> Packet {
    Packet::Connect { nsp: nsp.into(), auth: auth.map(ByteString::from) }
}

#[test]
fn packets_have_the_texts_of_the_specification() {
    let error = |nsp: &str, data: &str| Packet::ConnectError { nsp: nsp.into(), data: Some(data.into()) };
    let cases = [
        ("0", connect("/", None)),
        (r#"0{"token":"x"}"#, connect("/", Some(r#"{"token":"x"}"#))),
        (r#"0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}"#, connect("/admin", Some(r#"{"sid":"oSO0OpakMV_3jnilAAAA"}"#))),
        ("0/admin,", connect("/admin", None)),
        ("1", Packet::Disconnect { nsp: "/".into() }),
        ("1/admin,", Packet::Disconnect { nsp: "/admin".into() }),
        (r#"2["foo"]"#, event("/", None, r#"["foo"]"#)),
        (r#"2/admin,["bar"]"#, event("/admin", None, r#"["bar"]"#)),
        (r#"212["foo",1]"#, event("/", Some(12), r#"["foo",1]"#)),
        (r#"2/admin,0["a,b"]"#, event("/admin", Some(0), r#"["a,b"]"#)),
        ("2[42]", event("/", None, "[42]")),
        ("2[-1.5e3]", event("/", None, "[-1.5e3]")),
        (r#"312["bar"]"#, ack("/", 12, r#"["bar"]"#)),
        ("3/admin,13[]", ack("/admin", 13, "[]")),
        (r#"4{"message":"Not authorized"}"#, error("/", r#"{"message":"Not authorized"}"#)),
        (r#"4/a,"old""#, error("/a", r#""old""#)),
    ];
    for (wire, packet) in cases {
        assert_eq!(decode(wire), Ok(Some(packet.clone())), "{wire}");
        assert_eq!(packet.encode(), Encoded { head: Message::Text(wire.into()), attachments: vec![] });
    }
}

#[test]
fn spellings_that_only_some_clients_use_are_understood() {
    let cases = [
        ("0/random", connect("/random", None)),
        ("1/custom", Packet::Disconnect { nsp: "/custom".into() }),
        ("0/,", connect("/", None)),
        ("0/admin?token=1,{}", connect("/admin", Some("{}"))),
        ("0/admin?a=b", connect("/admin", None)),
        (r#"2/?a,["x"]"#, event("/", None, r#"["x"]"#)),
        ("2[ \"spaced\" , 1 ] ", event("/", None, "[ \"spaced\" , 1 ] ")),
        ("3007[]", ack("/", 7, "[]")),
    ];
    for (wire, packet) in cases {
        assert_eq!(decode(wire), Ok(Some(packet)), "{wire}");
    }
}

#[test]
fn binary_packets_are_put_back_together() {
    let mut decoder = Decoder::new(LIMITS);
    let header = r#"52-/admin,7["up",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    assert_eq!(decoder.decode(Message::Text(header.into())), Ok(None));
    assert!(decoder.is_assembling());
    assert_eq!(decoder.decode(binary(b"one")), Ok(None));
    let packet = decoder.decode(binary(b"")).unwrap().unwrap();
    assert!(!decoder.is_assembling());
    let json = r#"["up",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#.into();
    let attachments = vec![Bytes::from_static(b"one"), Bytes::new()];
    let args = Args { json, attachments: attachments.clone() };
    assert_eq!(packet, Packet::Event { nsp: "/admin".into(), id: Some(7), args });
    assert_eq!(packet.encode(), Encoded { head: Message::Text(header.into()), attachments });
}

#[test]
fn binary_acks_are_put_back_together() {
    let mut decoder = Decoder::new(LIMITS);
    let header = r#"61-15[{"_placeholder":true,"num":0}]"#;
    assert_eq!(decoder.decode(Message::Text(header.into())), Ok(None));
    let packet = decoder.decode(binary(b"x")).unwrap().unwrap();
    let Packet::Ack { id: 15, args, .. } = &packet else { panic!("not the ack") };
    assert_eq!(args.attachments, [Bytes::from_static(b"x")]);
    assert_eq!(text_of(&packet.encode()), header);
}

#[test]
fn a_text_between_attachments_is_an_error_and_drops_the_packet() {
    let mut decoder = Decoder::new(LIMITS);
    decoder.decode(Message::Text(r#"51-["a"]"#.into())).unwrap();
    assert_eq!(decoder.decode(Message::Text(r#"2["b"]"#.into())), Err(DecodeError::TextBetweenAttachments));
    assert!(!decoder.is_assembling());
}

#[test]
fn a_binary_message_without_a_header_is_an_error() {
    let mut decoder = Decoder::new(LIMITS);
    decoder.decode(Message::Text(r#"2["a"]"#.into())).unwrap();
    assert_eq!(decoder.decode(binary(b"x")), Err(DecodeError::UnexpectedAttachment));
}

#[test]
fn header_and_attachments_share_one_limit() {
    let header = r#"52-["a"]"#;
    let limits = DecoderLimits { bytes: header.len() + 10, ..LIMITS };
    for (second, fits) in [(4, true), (5, false)] {
        let mut decoder = Decoder::new(limits);
        assert_eq!(decoder.decode(Message::Text(header.into())), Ok(None));
        assert_eq!(decoder.decode(binary(&[0; 6])), Ok(None));
        let result = decoder.decode(Message::Binary(vec![0; second].into()));
        assert_eq!(result.is_ok(), fits);
        assert!(fits || result == Err(DecodeError::TooLarge { limit: limits.bytes }));
        assert!(!decoder.is_assembling());
    }
    let long = format!(r#"2["a","{}"]"#, "x".repeat(1000));
    assert_eq!(decode(&long), Err(DecodeError::TooLarge { limit: 1000 }));
}

#[test]
fn bad_packets_are_refused_with_their_reason() {
    use DecodeError as E;
    let deep = format!(r#"2["a",{}{}]"#, "[".repeat(64), "]".repeat(64));
    let cases = [
        ("", E::Empty),
        ("7", E::UnknownType),
        ("a", E::UnknownType),
        ("é", E::UnknownType),
        ("/", E::UnknownType),
        // Events.
        ("2", E::NotAnArray),
        ("2{}", E::NotAnArray),
        (r#"2"a""#, E::NotAnArray),
        ("2abc[\"a\"]", E::Json(JsonError::Syntax)),
        ("2[", E::Json(JsonError::Syntax)),
        (r#"2["a"]x"#, E::Json(JsonError::Syntax)),
        (r#"2["a",]"#, E::Json(JsonError::Syntax)),
        (r#"2-1["a"]"#, E::Json(JsonError::Syntax)),
        (r#"21-["a"]"#, E::Json(JsonError::Syntax)),
        ("2[]", E::BadEventName),
        ("2[null]", E::BadEventName),
        ("2[true]", E::BadEventName),
        (r#"2[{"a":1}]"#, E::BadEventName),
        (r#"2[["a"]]"#, E::BadEventName),
        (r#"2["\ud800"]"#, E::BadEventName),
        (r#"2["seventeen letters"]"#, E::EventNameTooLong { limit: 16 }),
        (&deep, E::Json(JsonError::TooDeep { limit: 64 })),
        (r#"2/x["a"]"#, E::NotAnArray),
        // Ids.
        (r#"218446744073709551616["a"]"#, E::AckIdOverflow),
        (r#"3["a"]"#, E::MissingAckId),
        ("31", E::NotAnArray),
        ("31{}", E::NotAnArray),
        ("01{}", E::UnexpectedAckId),
        ("11", E::UnexpectedAckId),
        // Connect and disconnect.
        ("0[]", E::BadConnectData),
        ("0\"token\"", E::BadConnectData),
        ("0null", E::BadConnectData),
        ("0/a,true", E::BadConnectData),
        ("0{", E::Json(JsonError::Syntax)),
        ("4[]", E::BadConnectData),
        ("1{}", E::UnexpectedData),
        ("1/a,[]", E::UnexpectedData),
        // Namespaces.
        ("0/seventeen-letters,", E::BadNamespace),
        ("0/a\x1eb,", E::BadNamespace),
        ("0/a\n", E::BadNamespace),
        // Attachments.
        (r#"5["a"]"#, E::BadAttachmentCount),
        (r#"50-["a"]"#, E::BadAttachmentCount),
        (r#"500-["a"]"#, E::BadAttachmentCount),
        (r#"5-["a"]"#, E::BadAttachmentCount),
        (r#"5+1-["a"]"#, E::BadAttachmentCount),
        (r#"5--1-["a"]"#, E::BadAttachmentCount),
        (r#"51.5-["a"]"#, E::BadAttachmentCount),
        (r#"51"#, E::BadAttachmentCount),
        (r#"511-["a"]"#, E::TooManyAttachments { limit: 10 }),
        (r#"599999999999999999999999-["a"]"#, E::TooManyAttachments { limit: 10 }),
        ("51-", E::NotAnArray),
        ("61-[]", E::MissingAckId),
        (r#"51-["a",{"_placeholder":true,"num":1}]"#, E::Json(JsonError::Placeholder)),
        (r#"51-["a",{"_placeholder":true,"num":"splice"}]"#, E::Json(JsonError::Placeholder)),
        (r#"61-1[{"_placeholder":true,"num":-1}]"#, E::Json(JsonError::Placeholder)),
    ];
    for (wire, error) in cases {
        assert_eq!(decode(wire), Err(error), "{wire}");
    }
}

#[test]
fn reserved_names_are_refused_however_they_are_spelt() {
    for name in RESERVED_EVENTS {
        assert_eq!(decode(&format!(r#"2["{name}"]"#)), Err(DecodeError::ReservedEvent), "{name}");
        assert_eq!(decode(&format!(r#"51-["{name}"]"#)), Err(DecodeError::ReservedEvent), "{name}");
        assert!(decode(&format!(r#"21["x{name}"]"#)).is_ok_and(|packet| packet.is_some()));
    }
    assert_eq!(decode(r#"2["c\u006fnnect"]"#), Err(DecodeError::ReservedEvent));
}

#[test]
fn the_first_message_decides_the_parser() {
    let msgpack = connect("/", None).encode_as(Parser::MsgPack).head;
    let mut decoder = Decoder::new(LIMITS);
    assert_eq!(decoder.parser(), Parser::Json);
    assert_eq!(decoder.decode(msgpack.clone()), Ok(Some(connect("/", None))));
    assert_eq!(decoder.parser(), Parser::MsgPack);
    assert_eq!(decoder.decode(Message::Text("0".into())), Err(DecodeError::TextInMsgPack));
    let mut decoder = Decoder::new(LIMITS);
    assert_eq!(decoder.decode(Message::Text("0".into())), Ok(Some(connect("/", None))));
    assert_eq!(decoder.decode(msgpack), Err(DecodeError::UnexpectedAttachment));
    assert_eq!(decoder.parser(), Parser::Json);
}

#[test]
fn what_a_room_shares_can_be_had_for_the_other_parser() {
    let args = args_with("up", vec![Bytes::from_static(b"one")]);
    let packets = [event("/a", None, "[\"x\"]"), Packet::Event { nsp: "/a".into(), id: Some(3), args }];
    let frames = |parser| {
        let mut out = Vec::new();
        packets.iter().for_each(|packet| packet.encode_as(parser).put_frames(&mut out));
        Bytes::from(out)
    };
    let (json, msgpack) = (frames(Parser::Json), frames(Parser::MsgPack));
    assert_eq!(transcode(&json, Parser::MsgPack), Ok(msgpack.clone()));
    assert_eq!(transcode(&json, Parser::Json), Ok(json.clone()));
    assert_eq!(transcode(&json.slice(..json.len() - 5), Parser::MsgPack), Err(TranscodeError::Incomplete));
    assert_eq!(transcode(&json.slice(..json.len() - 1), Parser::MsgPack), Err(FrameError::Truncated.into()));
    assert_eq!(transcode(&msgpack, Parser::Json), Err(DecodeError::UnexpectedAttachment.into()));
}

#[test]
fn a_placeholder_in_a_text_event_is_just_an_object() {
    assert!(decode(r#"2["a",{"_placeholder":true,"num":5}]"#).is_ok_and(|packet| packet.is_some()));
}

#[test]
fn decoded_parts_are_slices_of_the_message() {
    let wire = ByteString::from(r#"2/chat,["a",1]"#);
    let packet = Decoder::new(LIMITS).decode(Message::Text(wire.clone())).unwrap().unwrap();
    let Packet::Event { nsp, args, .. } = packet else { panic!("not the event") };
    assert_eq!((nsp.as_ptr(), args.json.as_ptr()), (wire[1..].as_ptr(), wire[7..].as_ptr()));
}

#[test]
fn arguments_are_taken_apart_without_a_value() {
    let args = Args::text(r#" [ "a\tb" , {"x": [1, 2]},null ] "#);
    assert_eq!(args.event_name(), Ok("a\tb".into()));
    let elements: Vec<_> = args.elements().unwrap().iter().map(|element| element.get()).collect();
    assert_eq!(elements, [r#""a\tb""#, r#"{"x": [1, 2]}"#, "null"]);
    assert_eq!(Args::text("[7,8]").event_name(), Ok("7".into()));
    for json in ["", "{}", "[]", "[{}]", "[[1]]", "[null]", r#"["\ud800"]"#] {
        assert_eq!(Args::text(json).event_name(), Err(ArgsError::NotAName), "{json}");
    }
    assert_eq!(Args::text("{}").elements().err(), Some(ArgsError::NotAnArray));
}

#[test]
fn an_event_is_encoded_from_parts_and_framed_for_everybody() {
    let attachments = [Bytes::from_static(b"x")];
    let encoded = encode_event("/a", Some(3), &[b"[\"ev\",", b"1", b"]"], &attachments);
    assert_eq!(text_of(&encoded), r#"51-/a,3["ev",1]"#);
    let mut frames = Vec::new();
    encoded.put_frames(&mut frames);
    assert_eq!(frames, b"\x81\x10451-/a,3[\"ev\",1]\x82\x01x");
    let read: Result<Vec<_>, _> = frame::messages(&frames.into()).collect();
    assert_eq!(read, Ok(encoded.messages().collect()));
}

#[test]
fn parts_that_are_not_utf8_cannot_make_an_invalid_frame() {
    assert_eq!(text_of(&encode_event("/", None, &[b"[\"\xFF\"]"], &[])), "2[\"\u{FFFD}\"]");
}

fn any_attachments() -> impl Strategy<Value = Vec<Bytes>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from), 0..4)
}

/// Arguments that begin with `first` and place every attachment.
fn args_with(first: &str, attachments: Vec<Bytes>) -> Args {
    let placeholders = (0..attachments.len()).map(|num| serde_json::json!({"_placeholder": true, "num": num}));
    let list: Vec<_> = [serde_json::Value::from(first)].into_iter().chain(placeholders).collect();
    Args { json: serde_json::to_string(&list).unwrap().into(), attachments }
}

pub(super) fn any_packet() -> impl Strategy<Value = Packet> {
    let nsp = || prop_oneof![Just(ByteString::from("/")), "/[a-z€/]{0,3}".prop_map(ByteString::from)];
    let object =
        || proptest::option::of("[a-z\"\\\\]*".prop_map(|it| serde_json::json!({ "k": it }).to_string().into()));
    prop_oneof![
        (nsp(), object()).prop_map(|(nsp, auth)| Packet::Connect { nsp, auth }),
        nsp().prop_map(|nsp| Packet::Disconnect { nsp }),
        (nsp(), any::<Option<u64>>(), "e[a-z\"\\\\€]{0,3}", any_attachments())
            .prop_map(|(nsp, id, name, files)| Packet::Event { nsp, id, args: args_with(&name, files) }),
        (nsp(), any::<u64>(), any::<String>(), any_attachments()).prop_map(|(nsp, id, first, files)| Packet::Ack {
            nsp,
            id,
            args: args_with(&first, files)
        }),
        (nsp(), object()).prop_map(|(nsp, data)| Packet::ConnectError { nsp, data }),
    ]
}

proptest! {
    #[test]
    fn packets_survive_the_wire_one_after_another(packets in proptest::collection::vec(any_packet(), 1..6)) {
        let mut decoder = Decoder::new(DecoderLimits { bytes: 1 << 20, ..LIMITS });
        let messages = packets.iter().flat_map(|packet| packet.encode().messages().collect::<Vec<_>>());
        let decoded: Result<Vec<_>, _> = messages.filter_map(|message| decoder.decode(message).transpose()).collect();
        prop_assert_eq!(decoded, Ok(packets));
    }

    #[test]
    fn no_messages_make_the_decoder_panic_or_keep_more_than_allowed(
        stream in proptest::collection::vec(
            prop_oneof![
                "[0-7]{0,2}-?(/[a-z?]*,?)?[0-9]{0,2}[\\[\\]{}\":,a-z_0-9]*".prop_map(|it| Message::Text(it.into())),
                r#"5[1-3]-\["a",?(\{"_placeholder":true,"num":[0-3]\})?\]"#.prop_map(|it| Message::Text(it.into())),
                any::<String>().prop_map(|it| Message::Text(it.into())),
                any::<Vec<u8>>().prop_map(|it| Message::Binary(it.into())),
            ],
            0..20,
        )
    ) {
        let mut decoder = Decoder::new(LIMITS);
        for message in stream {
            let before = decoder.is_assembling();
            match decoder.decode(message) {
                Ok(Some(Packet::Event { args, .. } | Packet::Ack { args, .. })) => {
                    prop_assert_eq!(decoder.parser(), Parser::Json);
                    prop_assert!(args.elements().is_ok());
                    prop_assert!(args.attachments.len() <= LIMITS.attachments);
                    prop_assert!(args.attachments.iter().map(Bytes::len).sum::<usize>() <= LIMITS.bytes);
                    prop_assert_eq!(before, !args.attachments.is_empty());
                }
                Ok(Some(Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. })) | Err(_) => {
                    prop_assert!(!decoder.is_assembling());
                }
                Ok(None) => prop_assert!(decoder.is_assembling()),
            }
        }
    }
}
