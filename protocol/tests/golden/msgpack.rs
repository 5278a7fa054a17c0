//! `socket.io-msgpack-parser` with notepack 2.2: one binary message per packet. The bytes are laid by hand from the formats
//! of msgpack, each group with what it is, and were held against the official parser.

use bytes::Bytes;
use protocol::{
    engine::Message,
    socketio::{DecodeError, MsgPackError, Packet, Parser},
};

use super::{ack, connect, connect_error, decode, disconnect, event, hex};

/// Keys of a packet: fixstr of its length, then the letters.
const TYPE: &str = "a4 74797065";
const NSP: &str = "a3 6e7370";
const DATA: &str = "a4 64617461";
const ID: &str = "a2 6964";
/// `/` and `/admin`.
const ROOT: &str = "a1 2f";
const ADMIN: &str = "a6 2f61646d696e";

fn read(wire: &Bytes) -> Result<Vec<Packet>, DecodeError> {
    decode(Parser::MsgPack, [Message::Binary(wire.clone())])
}

/// A map of packet type, namespace and data, in the order of the official clients.
fn packet(kind: &str, data: &str) -> Bytes {
    hex(&format!("83 {TYPE} {kind} {NSP} {ROOT} {DATA} {data}"))
}

/// An ack with id 0 of one value.
fn value(value: &str) -> Bytes {
    hex(&format!("84 {TYPE} 03 {NSP} {ROOT} {ID} 00 {DATA} 91 {value}"))
}

#[test]
fn every_kind_of_packet_is_read_and_written() {
    let vectors = [
        ("CONNECT", hex(&format!("82 {TYPE} 00 {NSP} {ROOT}")), connect("/", None)),
        // {"token": "123"}: fixmap of one, fixstr 5, fixstr 3.
        (
            "CONNECT with auth",
            hex(&format!("83 {TYPE} 00 {NSP} {ADMIN} {DATA} 81 a5 746f6b656e a3 313233")),
            connect("/admin", Some(r#"{"token":"123"}"#)),
        ),
        ("DISCONNECT", hex(&format!("82 {TYPE} 01 {NSP} {ADMIN}")), disconnect("/admin")),
        ("EVENT", packet("02", "91 a3 666f6f"), event("/", None, r#"["foo"]"#, &[])),
        (
            "EVENT with id",
            hex(&format!("84 {TYPE} 02 {NSP} {ADMIN} {ID} 0d {DATA} 91 a3 666f6f")),
            event("/admin", Some(13), r#"["foo"]"#, &[]),
        ),
        (
            "EVENT with binary in its place: bin 8 of four bytes",
            packet("02", "92 a3 62617a c4 04 01020304"),
            event("/", None, r#"["baz",{"_placeholder":true,"num":0}]"#, &[&[1, 2, 3, 4]]),
        ),
        (
            "EVENT with two",
            packet("02", "93 a3 62617a c4 02 0102 c4 02 0304"),
            event(
                "/",
                None,
                r#"["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#,
                &[&[1, 2], &[3, 4]],
            ),
        ),
        ("ACK", hex(&format!("84 {TYPE} 03 {NSP} {ROOT} {ID} 0c {DATA} 90")), ack("/", 12, "[]", &[])),
        (
            "ACK with binary",
            hex(&format!("84 {TYPE} 03 {NSP} {ROOT} {ID} 0f {DATA} 92 a3 626172 c4 04 01020304")),
            ack("/", 15, r#"["bar",{"_placeholder":true,"num":0}]"#, &[&[1, 2, 3, 4]]),
        ),
        // {"message": "invalid"}
        (
            "CONNECT_ERROR",
            packet("04", "81 a7 6d657373616765 a7 696e76616c6964"),
            connect_error("/", r#"{"message":"invalid"}"#),
        ),
        ("CONNECT_ERROR of old servers", packet("04", "a2 6e6f"), connect_error("/", r#""no""#)),
    ];
    for (what, wire, packet) in vectors {
        assert_eq!(read(&wire), Ok(vec![packet.clone()]), "{what}");
        assert_eq!(packet.encode_as(Parser::MsgPack).messages().collect::<Vec<_>>(), [Message::Binary(wire)], "{what}");
    }
}

/// The values of notepack's own tests, each in the one form that is written.
#[test]
fn every_value_has_the_bytes_of_notepack() {
    let vectors = [
        ("positive fixint", "00", "0"),
        ("positive fixint", "7f", "127"),
        ("negative fixint", "ff", "-1"),
        ("negative fixint", "e0", "-32"),
        ("uint 8", "cc 80", "128"),
        ("uint 8", "cc ff", "255"),
        ("uint 16", "cd 0100", "256"),
        ("uint 16", "cd ffff", "65535"),
        ("uint 32", "ce 00010000", "65536"),
        ("uint 32", "ce ffffffff", "4294967295"),
        ("uint 64", "cf 0000000100000000", "4294967296"),
        ("uint 64", "cf 001fffffffffffff", "9007199254740991"),
        ("int 8", "d0 df", "-33"),
        ("int 8", "d0 80", "-128"),
        ("int 16", "d1 ff7f", "-129"),
        ("int 16", "d1 8000", "-32768"),
        ("int 32", "d2 ffff7fff", "-32769"),
        ("int 32", "d2 80000000", "-2147483648"),
        ("int 64", "d3 ffffffff7fffffff", "-2147483649"),
        ("int 64", "d3 ffffc47c1c1de2b1", "-65437650001231"),
        ("int 64", "d3 ffe0000000000001", "-9007199254740991"),
        ("float 64", "cb 3ff199999999999a", "1.1"),
        ("float 64", "cb 43118b54f26ebc1e", "1234567891234567.5"),
        ("nil", "c0", "null"),
        ("false", "c2", "false"),
        ("true", "c3", "true"),
        ("fixstr", "a0", r#""""#),
        ("fixstr", "a5 68656c6c6f", r#""hello""#),
        ("fixstr of UTF-8", "a2 ceb1", r#""α""#),
        ("fixstr of UTF-8", "a3 e4ba9c", r#""亜""#),
        ("fixstr of UTF-8", "a4 f09f90a6", r#""🐦""#),
        ("fixarray", "90", "[]"),
        ("fixarray", "94 01 02 03 04", "[1,2,3,4]"),
        ("fixmap", "80", "{}"),
        ("fixmap", "83 a1 61 01 a1 62 02 a1 63 03", r#"{"a":1,"b":2,"c":3}"#),
    ];
    for (format, wire, json) in vectors {
        both_ways(format, &value(wire), json, &[]);
    }
}

/// Reads a value inside an ack, and writes it.
fn both_ways(format: &str, wire: &Bytes, json: &str, attachments: &[&'static [u8]]) {
    let packet = ack("/", 0, &format!("[{json}]"), attachments);
    assert_eq!(read(wire), Ok(vec![packet.clone()]), "{format}: {json}");
    let written = packet.encode_as(Parser::MsgPack).head;
    assert_eq!(written, Message::Binary(wire.clone()), "{format}: {json}");
}

/// Where a length takes one, two or four bytes: notepack's tests have the same edges.
#[test]
fn lengths_take_as_many_bytes_as_they_need() {
    const PLACE: &str = r#"{"_placeholder":true,"num":0}"#;
    for (head, length) in
        [("bf", 31), ("d9 20", 32), ("d9 ff", 255), ("da 0100", 256), ("da ffff", 65_535), ("db 00010000", 65_536)]
    {
        let wire = value(&format!("{head} {}", "61".repeat(length)));
        both_ways("str", &wire, &format!("\"{}\"", "a".repeat(length)), &[]);
    }
    for (head, length) in
        [("c4 00", 0_usize), ("c4 ff", 255), ("c5 0100", 256), ("c5 ffff", 65_535), ("c6 00010000", 65_536)]
    {
        let wire = value(&format!("{head} {}", "61".repeat(length)));
        let data: &'static [u8] = &[b'a'; 65_536][..length];
        both_ways("bin", &wire, PLACE, &[data]);
    }
    for (head, length) in [("9f", 15), ("dc 0010", 16), ("dc ffff", 65_535), ("dd 00010000", 65_536)] {
        let wire = value(&format!("{head} {}", "00".repeat(length)));
        both_ways("array", &wire, &format!("[{}]", vec!["0"; length].join(",")), &[]);
    }
    for (head, length) in [("8f", 15), ("de 0010", 16), ("de ffff", 65_535), ("df 00010000", 65_536)] {
        // Keys of one length, so that nothing depends on an order: 10000, 10001, …
        let keys: Vec<String> = (10_000..10_000 + length).map(|key| format!("{key:05}")).collect();
        let entries = keys.iter().map(|key| {
            let digits: String = key.bytes().map(|digit| format!("{digit:02x}")).collect();
            format!("a{} {digits} 00", key.len())
        });
        let wire = value(&format!("{head} {}", entries.collect::<String>()));
        let json: Vec<String> = keys.iter().map(|key| format!("\"{key}\":0")).collect();
        both_ways("map", &wire, &format!("{{{}}}", json.join(",")), &[]);
    }
}

/// What notepack writes and we never do: JSON has no word for it.
#[test]
fn extensions_of_notepack_are_read_as_json_has_them() {
    let vectors = [
        ("fixext 1: undefined", "d4 00 00", "null"),
        // Milliseconds since 1970 in 64 bits.
        ("fixext 8: Date", "d7 00 0000000000000000", r#""1970-01-01T00:00:00.000Z""#),
        ("fixext 8: Date", "d7 00 ffffff9c80e28800", r#""1956-06-17T00:00:00.000Z""#),
        ("fixext 8: Date", "d7 00 000000dfb7629c00", r#""2000-06-13T00:00:00.000Z""#),
        ("fixext 8: Date", "d7 00 0000010883436bff", r#""2005-12-31T23:59:59.999Z""#),
        ("fixext 8: Date", "d7 00 000004e111a31efe", r#""2140-01-01T13:14:15.678Z""#),
        ("fixext 8: Date, a leap day", "d7 00 000000dd9aa6e000", r#""2000-02-29T00:00:00.000Z""#),
        ("fixext 8: an invalid Date", "d7 00 8000000000000000", "null"),
        ("float 64: Infinity", "cb 7ff0000000000000", "null"),
        ("float 64: -Infinity", "cb fff0000000000000", "null"),
        ("float 64: NaN", "cb 7ff8000000000000", "null"),
        ("float 32", "ca 3f000000", "0.5"),
        ("int 8 that is positive", "d0 7f", "127"),
        ("int 16 that is positive", "d1 7fff", "32767"),
        ("int 32 that is positive", "d2 7fffffff", "2147483647"),
        ("int 64 that is positive", "d3 0020000000000000", "9007199254740992"),
        ("uint 64 beyond what JavaScript counts", "cf 8000000000000000", "9223372036854775808"),
        ("str 8 that is short", "d9 01 61", r#""a""#),
    ];
    for (format, wire, json) in vectors {
        assert_eq!(read(&value(wire)), Ok(vec![ack("/", 0, &format!("[{json}]"), &[])]), "{format}");
    }
    let buffers = [
        ("ext 8: ArrayBuffer", "c7 04 00 01020304"),
        ("ext 16", "c8 0004 00 01020304"),
        ("ext 32", "c9 00000004 00 01020304"),
    ];
    for (format, wire) in buffers {
        let packet = ack("/", 0, r#"[{"_placeholder":true,"num":0}]"#, &[&[1, 2, 3, 4]]);
        assert_eq!(read(&value(wire)), Ok(vec![packet]), "{format}");
    }
}

#[test]
fn what_clients_add_is_understood() {
    let vectors = [
        (
            "`data: undefined` of a CONNECT",
            hex(&format!("83 {TYPE} 00 {DATA} d40000 {NSP} {ROOT}")),
            connect("/", None),
        ),
        (
            "`id: undefined`",
            hex(&format!("84 {TYPE} 02 {DATA} 91 a1 61 {ID} d40000 {NSP} {ROOT}")),
            event("/", None, r#"["a"]"#, &[]),
        ),
        (
            // {"options": {"compress": true}}
            "options of the JavaScript client",
            hex(&format!("84 {TYPE} 02 {DATA} 91 a1 61 a7 6f7074696f6e73 81 a8 636f6d7072657373 c3 {NSP} {ROOT}")),
            event("/", None, r#"["a"]"#, &[]),
        ),
        ("a query behind a namespace", hex(&format!("82 {TYPE} 00 {NSP} a4 2f613f62")), connect("/a", None)),
    ];
    for (what, wire, packet) in vectors {
        assert_eq!(read(&wire), Ok(vec![packet]), "{what}");
    }
}

/// The four checks of the official parser, with each value that fails them, and bytes that are no msgpack.
#[test]
fn whatever_the_official_parser_refuses_is_refused() {
    use DecodeError as E;
    let kind = |kind: &str| hex(&format!("83 {TYPE} {kind} {NSP} {ROOT} {DATA} 91 a1 61"));
    let nsp = |nsp: &str| hex(&format!("82 {TYPE} 00 {NSP} {nsp}"));
    let id = |id: &str| hex(&format!("84 {TYPE} 02 {NSP} {ROOT} {ID} {id} {DATA} 91 a1 61"));
    let vectors = [
        ("type: 5, binary has no types", kind("05"), E::UnknownType),
        ("type: -1", kind("ff"), E::UnknownType),
        ("type: 1.5", kind("cb 3ff8000000000000"), E::UnknownType),
        ("type: text", kind("a1 32"), E::UnknownType),
        ("type: null", kind("c0"), E::UnknownType),
        ("type: none", hex(&format!("81 {NSP} {ROOT}")), E::UnknownType),
        ("namespace: a number", nsp("01"), E::BadNamespace),
        ("namespace: undefined", nsp("d40000"), E::BadNamespace),
        ("namespace: none", hex(&format!("81 {TYPE} 00")), E::BadNamespace),
        ("payload: CONNECT with text", packet("00", "a1 61"), E::BadConnectData),
        ("payload: CONNECT with an array", packet("00", "90"), E::BadConnectData),
        ("payload: DISCONNECT with an object", packet("01", "80"), E::UnexpectedData),
        ("payload: CONNECT_ERROR with an array", packet("04", "90"), E::BadConnectData),
        ("payload: CONNECT_ERROR with a number", packet("04", "05"), E::BadConnectData),
        ("payload: EVENT with text", packet("02", "a1 61"), E::NotAnArray),
        ("payload: EVENT with an object", packet("02", "80"), E::NotAnArray),
        ("payload: EVENT without", hex(&format!("82 {TYPE} 02 {NSP} {ROOT}")), E::NotAnArray),
        ("payload: ACK with an object", hex(&format!("84 {TYPE} 03 {NSP} {ROOT} {ID} 01 {DATA} 80")), E::NotAnArray),
        ("id: text", id("a1 31"), E::AckIdOverflow),
        ("id: 1.5", id("cb 3ff8000000000000"), E::AckIdOverflow),
    ];
    for (what, wire, error) in vectors {
        assert_eq!(read(&wire), Err(error), "{what}");
    }
    let bytes = [
        ("nothing", "", MsgPackError::Truncated),
        ("the unused format", "c1", MsgPackError::UnknownFormat),
        ("a number", "05", MsgPackError::NotAMap),
        ("a map that ends early", "82 a4 74797065", MsgPackError::Truncated),
        ("a map and more", "82 a4 74797065 00 a3 6e7370 a1 2f 00", MsgPackError::TrailingBytes),
        ("4 GB of text in six bytes", "81 a4 74797065 db ffffffff 61", MsgPackError::Truncated),
    ];
    for (what, wire, error) in bytes {
        assert_eq!(read(&hex(wire)), Err(error.into()), "{what}");
    }
}

/// What the official parser lets through, though no client makes it and the protocol forbids it.
#[test]
fn what_the_protocol_forbids_is_refused_in_msgpack_too() {
    use DecodeError as E;
    let vectors = [
        ("an EVENT of nothing", packet("02", "90"), E::BadEventName),
        ("an EVENT of true", packet("02", "91 c3"), E::BadEventName),
        ("a reserved EVENT", packet("02", "91 a7 636f6e6e656374"), E::ReservedEvent),
        ("an id of -1", hex(&format!("84 {TYPE} 02 {NSP} {ROOT} {ID} ff {DATA} 91 a1 61")), E::AckIdOverflow),
        ("an ACK without id", packet("03", "90"), E::MissingAckId),
    ];
    for (what, wire, error) in vectors {
        assert_eq!(read(&wire), Err(error), "{what}");
    }
    // notepack's tests read extensions of any number; nobody has a use for them, and JSON clients no word.
    for (what, wire, kind) in [
        ("fixext 1", "d4 7f 61", 127),
        ("fixext 8", "d7 7f 6162636461626364", 127),
        ("timestamp", "d6 ff 00000000", 255),
    ] {
        assert_eq!(read(&value(wire)), Err(MsgPackError::UnknownExtension { kind }.into()), "{what}");
    }
}
