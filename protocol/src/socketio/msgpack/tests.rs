//! Tests of the msgpack parser. The golden bytes were made with socket.io-msgpack-parser 3.0.2 and notepack.io 2.2.0.

use proptest::prelude::*;

use super::*;
use crate::{
    engine::Message,
    socketio::{
        Decoder, JsonError, Parser,
        tests::{LIMITS, any_packet},
    },
};

fn bytes(hex: &str) -> Bytes {
    let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn event(nsp: &str, id: Option<u64>, json: &str, attachments: &[&'static [u8]]) -> Packet {
    let attachments = attachments.iter().map(|data| Bytes::from_static(data)).collect();
    Packet::Event { nsp: nsp.into(), id, args: Args { json: json.into(), attachments } }
}

fn ack(id: u64, json: &str) -> Packet {
    Packet::Ack { nsp: "/".into(), id, args: Args::text(json) }
}

/// An ack of the values that are written in hexadecimal behind the key `data`.
fn ack_of(data: &str) -> Result<Packet, DecodeError> {
    parse(&bytes(&format!("84a47479706503a36e7370a12fa2696400a464617461{data}")), &LIMITS)
}

#[test]
fn packets_have_the_bytes_of_the_official_parser() {
    let object = |json: &str| Some(ByteString::from(json));
    let cases = [
        ("82a47479706500a36e7370a12f", Packet::Connect { nsp: "/".into(), auth: None }),
        (
            "83a47479706500a36e7370a12fa46461746181a3736964b46f534f304f70616b4d565f336a6e696c41414141",
            Packet::Connect { nsp: "/".into(), auth: object(r#"{"sid":"oSO0OpakMV_3jnilAAAA"}"#) },
        ),
        ("82a47479706501a36e7370a62f61646d696e", Packet::Disconnect { nsp: "/admin".into() }),
        (
            "84a47479706503a36e7370a12fa2696400a464617461dc001001010101010101010101010101010101",
            ack(0, "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"),
        ),
        ("84a47479706503a36e7370a12fa269640ca46461746192a26f6b82a16190a16280", ack(12, r#"["ok",{"a":[],"b":{}}]"#)),
        (
            "83a47479706504a36e7370a22f61a46461746181a76d657373616765ae4e6f7420617574686f72697a6564",
            Packet::ConnectError { nsp: "/a".into(), data: object(r#"{"message":"Not authorized"}"#) },
        ),
        (
            "83a47479706504a36e7370a12fa464617461a36f6c64",
            Packet::ConnectError { nsp: "/".into(), data: object(r#""old""#) },
        ),
        (
            "83a47479706502a36e7370a12fa46461746193a16281a466696c65c403010203c400",
            event(
                "/",
                None,
                r#"["b",{"file":{"_placeholder":true,"num":0}},{"_placeholder":true,"num":1}]"#,
                &[b"\x01\x02\x03", b""],
            ),
        ),
        (
            "84a47479706503a36e7370a12fa2696400a464617461dc0014007fcc80ccffcd0100cdffffce00010000ceffffffffcf0000000100000000cf001fffffffffffffffe0d0dfd080d1ff7fd18000d2ffff7fffd280000000d3ffffffff7fffffffd3ffe0000000000001",
            ack(
                0,
                "[0,127,128,255,256,65535,65536,4294967295,4294967296,9007199254740991,-1,-32,-33,-128,-129,-32768,-32769,-2147483648,-2147483649,-9007199254740991]",
            ),
        ),
        (
            "84a47479706503a36e7370a12fa2696400a46461746193bf61616161616161616161616161616161616161616161616161616161616161d9206262626262626262626262626262626262626262626262626262626262626262a5225c0a017f",
            ack(
                0,
                "[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\",\"\\\"\\\\\\n\\u0001\u{7f}\"]",
            ),
        ),
    ];
    for (wire, packet) in cases {
        assert_eq!(parse(&bytes(wire), &LIMITS), Ok(packet.clone()), "{wire}");
        assert_eq!(hex(&encode(&packet)), wire);
    }
}

#[test]
fn what_clients_add_or_write_in_their_own_ways_is_understood() {
    let connect = |nsp: &str, auth: Option<&str>| Packet::Connect { nsp: nsp.into(), auth: auth.map(ByteString::from) };
    let cases = [
        // `data: undefined`, in the order of the JavaScript client.
        ("83a47479706500a464617461d40000a36e7370a12f", connect("/", None)),
        // `data: None` of Python.
        ("83a47479706500a464617461c0a36e7370a12f", connect("/", None)),
        (
            "83a47479706500a46461746181a5746f6b656ea178a36e7370a62f61646d696e",
            connect("/admin", Some(r#"{"token":"x"}"#)),
        ),
        // `options` of the JavaScript client.
        (
            "84a47479706502a46461746191a3666f6fa76f7074696f6e7381a8636f6d7072657373c3a36e7370a12f",
            event("/", None, r#"["foo"]"#, &[]),
        ),
        (
            "85a47479706502a46461746198a362617201ffcb3ff8000000000000c3c2c0a9c3a9e282acf09f9880a76f7074696f6e7381a8636f6d7072657373c3a269640ca36e7370a62f61646d696e",
            event("/admin", Some(12), r#"["bar",1,-1,1.5,true,false,null,"é€😀"]"#, &[]),
        ),
        // `undefined`, as an argument and in an object.
        (
            "83a47479706502a36e7370a12fa46461746193a175d4000081a161d40000",
            event("/", None, r#"["u",null,{"a":null}]"#, &[]),
        ),
        // An ArrayBuffer of Node.
        (
            "83a47479706502a36e7370a12fa46461746192a162c70300010203",
            event("/", None, r#"["b",{"_placeholder":true,"num":0}]"#, &[b"\x01\x02\x03"]),
        ),
        (
            "83a47479706502a36e7370a12fa46461746196a164d7000000000000000000d700000001a1fb1dda7bd700ffffffffffffffffd700001eb208c2dc0000d700ffe14df73d240000",
            event(
                "/",
                None,
                r#"["d","1970-01-01T00:00:00.000Z","2026-11-20T22:40:00.123Z","1969-12-31T23:59:59.999Z","+275760-09-13T00:00:00.000Z","-271821-04-20T00:00:00.000Z"]"#,
                &[],
            ),
        ),
        // A key that comes twice, a key that is a number, a query in the namespace.
        ("84a47479706501a36e7370a42f613f62a47479706500059191c0", connect("/a", None)),
    ];
    for (wire, packet) in cases {
        assert_eq!(parse(&bytes(wire), &LIMITS), Ok(packet), "{wire}");
    }
}

#[test]
fn every_format_has_its_value() {
    let cases = [
        ("91ca3e000000", "[0.125]"),
        ("93cb7ff0000000000000cb7ff8000000000000ca7fc00000", "[null,null,null]"),
        ("91cb44b52d02c7e14af6", "[1e+23]"),
        ("91cfffffffffffffffff", "[18446744073709551615]"),
        ("91d38000000000000000", "[-9223372036854775808]"),
        ("94d005d10005d200000005d30000000000000005", "[5,5,5,5]"),
        ("93d90161da000162db0000000163", r#"["a","b","c"]"#),
        ("dd0000000101", "[1]"),
        ("9181ff01", r#"[{"-1":1}]"#),
        ("91de00010102", r#"[{"1":2}]"#),
        ("91df00000001a0c3", r#"[{"":true}]"#),
    ];
    for (wire, json) in cases {
        assert_eq!(ack_of(wire), Ok(ack(0, json)), "{wire}");
    }
    let binary = "94c401aac50001bbc600000001ccc8000100dd";
    let Ok(Packet::Ack { args, .. }) = ack_of(binary) else { panic!("not the ack") };
    assert_eq!(args.attachments, [&b"\xaa"[..], b"\xbb", b"\xcc", b"\xdd"]);
}

#[test]
fn bad_packets_are_refused_with_their_reason() {
    use DecodeError as E;
    use MsgPackError as M;
    let cases = [
        ("", E::MsgPack(M::Truncated)),
        ("c1", E::MsgPack(M::UnknownFormat)),
        ("90", E::MsgPack(M::NotAMap)),
        ("c0", E::MsgPack(M::NotAMap)),
        ("80", E::UnknownType),
        ("81a36e7370a12f", E::UnknownType),
        ("82a47479706505a36e7370a12f", E::UnknownType),
        ("82a474797065ffa36e7370a12f", E::UnknownType),
        ("82a474797065a130a36e7370a12f", E::UnknownType),
        ("82a47479706591a0a36e7370a12f", E::UnknownType),
        ("81a47479706500", E::BadNamespace),
        ("82a47479706500a36e737001", E::BadNamespace),
        ("82a47479706500a36e7370a0", E::BadNamespace),
        ("82a47479706500a36e7370a161", E::BadNamespace),
        ("82a47479706500a36e7370a42f612c62", E::BadNamespace),
        ("82a47479706500a36e7370a32f611e", E::BadNamespace),
        ("82a47479706500a36e7370b12f3132333435363738393031323334353637", E::BadNamespace),
        ("82a47479706500a36e7370a12f00", E::MsgPack(M::TrailingBytes)),
        ("82a47479706500a36e7370a2c328", E::MsgPack(M::Utf8)),
        ("82a47479706500c0a12f", E::MsgPack(M::BadKey)),
        // Ids.
        ("83a47479706502a36e7370a12fa26964ff", E::AckIdOverflow),
        ("83a47479706502a36e7370a12fa26964a131", E::AckIdOverflow),
        ("83a47479706503a36e7370a12fa46461746190", E::MissingAckId),
        ("83a47479706500a36e7370a12fa2696401", E::UnexpectedAckId),
        // Data.
        ("83a47479706500a36e7370a12fa46461746190", E::BadConnectData),
        ("83a47479706500a36e7370a12fa464617461c40101", E::BadConnectData),
        ("83a47479706500a36e7370a12fa46461746181a161c40101", E::BadConnectData),
        ("83a47479706501a36e7370a12fa46461746180", E::UnexpectedData),
        ("82a47479706502a36e7370a12f", E::NotAnArray),
        ("83a47479706502a36e7370a12fa464617461c0", E::NotAnArray),
        ("83a47479706502a36e7370a12fa46461746180", E::NotAnArray),
        ("83a47479706502a36e7370a12fa46461746190", E::BadEventName),
        ("83a47479706502a36e7370a12fa46461746191c0", E::BadEventName),
        ("83a47479706502a36e7370a12fa46461746191c40101", E::BadEventName),
        ("83a47479706502a36e7370a12fa46461746191a7636f6e6e656374", E::ReservedEvent),
    ];
    for (wire, error) in cases {
        assert_eq!(parse(&bytes(wire), &LIMITS), Err(error), "{wire}");
    }
    let values = [
        ("91d401", M::Truncated),
        ("91d40100", M::UnknownExtension { kind: 1 }),
        ("91d5000000", M::UnknownExtension { kind: 0 }),
        ("91d6ff00000000", M::UnknownExtension { kind: 255 }),
        ("91c701ffaa", M::UnknownExtension { kind: 255 }),
        ("9181c001", M::BadKey),
        ("9181cb3ff800000000000001", M::BadKey),
        ("91a1ff", M::Utf8),
        ("91dbffffffff", M::Truncated),
        ("91c6ffffffff", M::Truncated),
        ("ddffffffff", M::Truncated),
        ("91dfffffffff", M::Truncated),
        ("91cb3ff8", M::Truncated),
    ];
    for (wire, error) in values {
        assert_eq!(ack_of(wire), Err(error.into()), "{wire}");
    }
}

#[test]
fn arguments_stay_within_every_limit() {
    let nested = |depth: usize| ack_of(&format!("{}90", "91".repeat(depth - 1)));
    assert_eq!(nested(64), Ok(ack(0, &format!("{}{}", "[".repeat(64), "]".repeat(64)))));
    assert_eq!(nested(65), Err(JsonError::TooDeep { limit: 64 }.into()));
    // A placeholder is an object: what JSON clients could not send in return is not taken from others either.
    let attached = |depth: usize| ack_of(&format!("{}c40101", "91".repeat(depth - 1)));
    assert!(attached(64).is_ok_and(|packet| Decoder::new(LIMITS).decode(packet.encode().head).is_ok()));
    assert_eq!(attached(65), Err(JsonError::TooDeep { limit: 64 }.into()));
    // Nobody looks into a key that nobody knows, but it has to end.
    let unknown = |inside: &str| parse(&bytes(&format!("83a47479706500a36e7370a12f00{inside}")), &LIMITS);
    assert!(unknown(&format!("{}90", "91".repeat(400))).is_ok());
    assert_eq!(unknown(&"91".repeat(400)), Err(MsgPackError::Truncated.into()));
    assert!(ack_of(&format!("9a{}", "c400".repeat(10))).is_ok());
    assert_eq!(ack_of(&format!("9b{}", "c400".repeat(11))), Err(DecodeError::TooManyAttachments { limit: 10 }));
    // Text that grows by being escaped is counted as it will be.
    assert!(ack_of(&format!("91d996{}", "01".repeat(150))).is_ok());
    assert_eq!(ack_of(&format!("91d9c8{}", "01".repeat(200))), Err(DecodeError::TooLarge { limit: LIMITS.bytes }));
    let large = Message::Binary(Bytes::from(vec![0x80; LIMITS.bytes + 1]));
    assert_eq!(Decoder::new(LIMITS).decode(large), Err(DecodeError::TooLarge { limit: LIMITS.bytes }));
}

#[test]
fn a_forged_placeholder_is_no_better_than_in_json() {
    let forged = "82ac5f706c616365686f6c646572c3a36e756d";
    // Without binary it is an object like any other.
    let packet = ack_of(&format!("91{forged}05")).unwrap();
    assert_eq!(packet, ack(0, r#"[{"_placeholder":true,"num":5}]"#));
    assert_eq!(parse(&encode(&packet), &LIMITS), Ok(packet));
    // Beside binary it is refused: other clients would break on a number that does not exist, or see one value twice.
    for wire in [format!("92c40101{forged}00"), format!("92c40101{forged}01"), format!("9181a161{forged}c40101")] {
        assert_eq!(ack_of(&wire), Err(JsonError::Placeholder.into()), "{wire}");
    }
    assert!(ack_of("92c4010182ac5f706c616365686f6c646572c2a36e756d00").is_ok(), "one that says it is none");
}

#[test]
fn an_attachment_that_is_named_again_is_not_multiplied() {
    let places = vec![r#"{"_placeholder":true,"num":0}"#; 1000].join(",");
    let attachments = vec![Bytes::from(vec![7; 1000])];
    let packet = Packet::Ack { nsp: "/".into(), id: 0, args: Args { json: format!("[{places}]").into(), attachments } };
    assert_eq!(encode(&packet).len(), 25 + 1003 + 999);
}

#[test]
fn binary_arguments_are_slices_of_the_message() {
    let wire = bytes("84a47479706503a36e7370a12fa2696400a46461746191c403010203");
    let Ok(Packet::Ack { args, .. }) = parse(&wire, &LIMITS) else { panic!("not the ack") };
    assert_eq!(args.attachments[0].as_ptr(), wire[wire.len() - 3..].as_ptr());
}

#[test]
fn json_becomes_what_javascript_would_have_written() {
    let data = |json: &str, attachments: &[&'static [u8]]| {
        let attachments: Vec<Bytes> = attachments.iter().map(|data| Bytes::from_static(data)).collect();
        let mut out = Vec::new();
        from_json::put(&mut out, json, &attachments);
        hex(&out)
    };
    for (json, wire) in [
        (" [ 1 , { \"a\" : [ ] , \"b\" : { } } ] ", "920182a16190a16280"),
        ("[1.5,1e300,-0]", "93cb3ff8000000000000cb7e37e43c8800759ccb8000000000000000"),
        ("[123456789012345678901]", "91cb441ac53a7e04bcda"),
        (r#"["\u00e9\ud83d\ude00\/\"]"]"#, "91a9c3a9f09f98802f225d"),
        // Half of a pair is no Unicode.
        (r#"["\ud83dx"]"#, "91aaefbfbdefbfbdefbfbd78"),
        // What no decoder gives is null.
        ("[", "c0"),
        ("", "c0"),
        ("nan", "c0"),
    ] {
        assert_eq!(data(json, &[]), wire, "{json}");
    }
    let placed = r#"[ {"num":1,"x":[[]],"_placeholder":true} ,{"a":[{"_placeholder":true,"num":0}]},[]]"#;
    assert_eq!(data(placed, &[b"\x01", b"\x02\x03"]), "93c402020381a16191c4010190");
    assert_eq!(data(r#"[{"_placeholder":true,"num":2}]"#, &[b""]), "c0");
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(data(&deep(128), &[]).len(), 2 * 128);
    assert_eq!(data(&deep(129), &[]), "c0");
    let long = |length: usize| data(&format!("\"{}\"", "c".repeat(length)), &[])[..10].to_owned();
    assert_eq!([long(255), long(256), long(65536)], ["d9ff636363", "da01006363", "db00010000"]);
    assert_eq!(data(r#"{"_placeholder":true,"num":0}"#, &[&[7; 70_000]])[..10], *"c600011170");
    let wide = format!("[{}]", vec!["0"; 65_536].join(","));
    assert_eq!(data(&wide, &[])[..10], *"dd00010000");
}

#[test]
fn dates_are_those_of_javascript() {
    let cases = [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_000_000_000_000, "2001-09-09T01:46:40.000Z"),
        (-1_000_000_000_000, "1938-04-24T22:13:20.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (951_868_799_999, "2000-02-29T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (68_169_600_000, "1972-02-29T00:00:00.000Z"),
        (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
        (-2_208_988_800_000, "1900-01-01T00:00:00.000Z"),
        (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
        (-62_167_219_200_001, "-000001-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "+010000-01-01T00:00:00.000Z"),
        (8_639_999_999_999_999, "+275760-09-12T23:59:59.999Z"),
        (-8_639_999_999_999_999, "-271821-04-20T00:00:00.001Z"),
    ];
    for (milliseconds, text) in cases {
        assert_eq!(date::iso(milliseconds).as_deref(), Some(text));
    }
    for none in [8_640_000_000_000_001, -8_640_000_000_000_001, i64::MIN, i64::MAX] {
        assert_eq!(date::iso(none), None);
    }
}

/// Any value in msgpack, well formed, and the depth of its nesting.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let with = |head: &'static [u8], tail: Vec<u8>| [head, tail.as_slice()].concat();
    let leaf = prop_oneof![
        prop::sample::select(vec![&b"\xc0"[..], b"\xc2", b"\xc3", b"\xd4\x00\x00", b"\xc4\x01x", b"\x05", b"\xe5"])
            .prop_map(<[u8]>::to_vec),
        any::<[u8; 8]>().prop_map(move |it| with(b"\xcb", it.to_vec())),
        any::<[u8; 8]>().prop_map(move |it| with(b"\xd3", it.to_vec())),
        any::<[u8; 8]>().prop_map(move |it| with(b"\xd7\x00", it.to_vec())),
        any::<[u8; 4]>().prop_map(move |it| with(b"\xca", it.to_vec())),
        "[a-c\"\\\\€]{0,8}".prop_map(|it| [&[0xA0 + u8::try_from(it.len()).unwrap()], it.as_bytes()].concat()),
    ];
    leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| [
                vec![0x90 + u8::try_from(list.len()).unwrap()],
                list.concat()
            ]
            .concat()),
            prop::collection::vec(("[a-c]", inner), 0..4).prop_map(|map| {
                let entries = map.iter().flat_map(|(key, value)| [&[0xA1][..], key.as_bytes(), value].concat());
                std::iter::once(0x80 + u8::try_from(map.len()).unwrap()).chain(entries).collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn packets_survive_the_wire(packets in prop::collection::vec(any_packet(), 1..6)) {
        let mut decoder = Decoder::new(DecoderLimits { bytes: 1 << 20, ..LIMITS });
        for packet in packets {
            let encoded = packet.encode_as(Parser::MsgPack);
            prop_assert!(encoded.attachments.is_empty());
            prop_assert_eq!(decoder.decode(encoded.head), Ok(Some(packet)));
        }
        prop_assert_eq!(decoder.parser(), Parser::MsgPack);
    }

    #[test]
    fn any_value_becomes_json_that_json_clients_can_read(value in any_value()) {
        let message: Bytes = [bytes("84a47479706503a36e7370a12fa2696400a46461746191"), value.into()].concat().into();
        if let Ok(packet) = parse(&message, &LIMITS) {
            let mut decoder = Decoder::new(LIMITS);
            let mut read = packet.encode().messages().map(|message| decoder.decode(message));
            let last = read.by_ref().last();
            prop_assert_eq!(last, Some(Ok(Some(packet.clone()))));
            prop_assert_eq!(parse(&encode(&packet), &LIMITS), Ok(packet));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic_or_exceed_a_limit(
        head in prop::sample::select(vec!["", "84a47479706503a36e7370a12fa2696400a464617461", "83a47479706502a36e7370a12fa46461746192a178"]),
        tail in prop_oneof![any::<Vec<u8>>(), any_value()],
        cut in 0_usize..80,
    ) {
        let mut message = [&bytes(head)[..], &tail].concat();
        message.truncate(message.len().saturating_sub(cut / 8));
        if let Ok(Packet::Event { args, .. } | Packet::Ack { args, .. }) = parse(&message.into(), &LIMITS) {
            prop_assert!(args.elements().is_ok());
            prop_assert!(args.json.len() <= LIMITS.bytes && args.attachments.len() <= LIMITS.attachments);
        }
    }
}
