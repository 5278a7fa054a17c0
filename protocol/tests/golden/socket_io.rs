//! Socket.IO v5 (`socket.io-protocol`, and the tests of `socket.io-parser`): packets in text, with attachments behind them.

use bytes::Bytes;
use protocol::{
    engine::Message,
    socketio::{DecodeError, JsonError, Packet, Parser},
};

use super::{ack, connect, connect_error, decode, disconnect, event};

const ONE: &str = r#"{"_placeholder":true,"num":0}"#;
const TWO: &str = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;

/// A text and the attachments behind it.
fn messages(head: &str, attachments: &[&'static [u8]]) -> Vec<Message> {
    let binary = attachments.iter().map(|data| Message::Binary(Bytes::from_static(data)));
    [Message::Text(head.into())].into_iter().chain(binary).collect()
}

/// Reads the vector and writes it again.
fn check(section: &str, head: &str, attachments: &[&'static [u8]], packet: &Packet) {
    let wire = messages(head, attachments);
    assert_eq!(decode(Parser::Json, wire.clone()), Ok(vec![packet.clone()]), "{section}: {head}");
    assert_eq!(packet.encode().messages().collect::<Vec<_>>(), wire, "{section}");
}

#[test]
fn every_packet_of_the_specification_is_read_and_written() {
    let sid = r#"{"sid":"oSO0OpakMV_3jnilAAAA"}"#;
    let vectors = [
        ("Connection to a namespace: main", "0".to_owned(), connect("/", None)),
        ("Connection to a namespace: custom", "0/admin,".into(), connect("/admin", None)),
        ("Connection to a namespace: welcome", format!("0/admin,{sid}"), connect("/admin", Some(sid))),
        (
            "Connection to a namespace: welcome to main",
            r#"0{"sid":"wZX3oN0bSVIhsaknAAAI"}"#.into(),
            connect("/", Some(r#"{"sid":"wZX3oN0bSVIhsaknAAAI"}"#)),
        ),
        (
            "Connection to a namespace: payload",
            r#"0/admin,{"token":"123"}"#.into(),
            connect("/admin", Some(r#"{"token":"123"}"#)),
        ),
        (
            "Connection to a namespace: refused",
            r#"4{"message":"Not authorized"}"#.into(),
            connect_error("/", r#"{"message":"Not authorized"}"#),
        ),
        ("Sending and receiving data: main", r#"2["foo"]"#.into(), event("/", None, r#"["foo"]"#, &[])),
        ("Sending and receiving data: custom", r#"2/admin,["bar"]"#.into(), event("/admin", None, r#"["bar"]"#, &[])),
        ("Acknowledgement: main", r#"212["foo"]"#.into(), event("/", Some(12), r#"["foo"]"#, &[])),
        ("Acknowledgement: nothing to say", "312[]".into(), ack("/", 12, "[]", &[])),
        (
            "Acknowledgement: asked in custom",
            r#"2/admin,13["foo"]"#.into(),
            event("/admin", Some(13), r#"["foo"]"#, &[]),
        ),
        ("Acknowledgement: custom", r#"3/admin,13["bar"]"#.into(), ack("/admin", 13, r#"["bar"]"#, &[])),
        ("Acknowledgement: of binary", r#"314["bar"]"#.into(), ack("/", 14, r#"["bar"]"#, &[])),
        ("Disconnection from a namespace: main", "1".into(), disconnect("/")),
        ("Disconnection from a namespace: custom", "1/admin,".into(), disconnect("/admin")),
        ("Sample session", r#"2["hey","Jude"]"#.into(), event("/", None, r#"["hey","Jude"]"#, &[])),
        ("Sample session", r#"2/admin,1["tellme"]"#.into(), event("/admin", Some(1), r#"["tellme"]"#, &[])),
        // Difference between v5 and v4: what was a string is an object; clients of both are about.
        ("parser: connect error", r#"4"Unauthorized""#.into(), connect_error("/", r#""Unauthorized""#)),
        (
            "parser: connect error with an object",
            r#"4{"message":"Unauthorized"}"#.into(),
            connect_error("/", r#"{"message":"Unauthorized"}"#),
        ),
        ("parser: connection", r#"0/woot,{"token":"123"}"#.into(), connect("/woot", Some(r#"{"token":"123"}"#))),
        ("parser: disconnection", "1/woot,".into(), disconnect("/woot")),
        ("parser: event", r#"2["a",1,{}]"#.into(), event("/", None, r#"["a",1,{}]"#, &[])),
        ("parser: a number as name", r#"2[1,"a",{}]"#.into(), event("/", None, r#"[1,"a",{}]"#, &[])),
        ("parser: event with ack", r#"2/test,1["a",1,{}]"#.into(), event("/test", Some(1), r#"["a",1,{}]"#, &[])),
        ("parser: ack", r#"3123["a",1,{}]"#.into(), ack("/", 123, r#"["a",1,{}]"#, &[])),
        ("parser: id 0", r#"20["a"]"#.into(), event("/", Some(0), r#"["a"]"#, &[])),
    ];
    for (section, wire, packet) in vectors {
        check(section, &wire, &[], &packet);
    }
}

#[test]
fn every_binary_packet_of_the_specification_is_read_and_written() {
    let baz = format!(r#"["baz",{ONE}]"#);
    check(
        "Sending and receiving data: binary",
        &format!("51-{baz}"),
        &[&[1, 2, 3, 4]],
        &event("/", None, &baz, &[&[1, 2, 3, 4]]),
    );
    let two = format!(r#"["baz",{TWO}]"#);
    check(
        "Sending and receiving data: multiple attachments",
        &format!("52-/admin,{two}"),
        &[&[1, 2], &[3, 4]],
        &event("/admin", None, &two, &[&[1, 2], &[3, 4]]),
    );
    let foo = format!(r#"["foo",{ONE}]"#);
    check(
        "Acknowledgement: an event with binary",
        &format!("51-14{foo}"),
        &[&[1, 2, 3, 4]],
        &event("/", Some(14), &foo, &[&[1, 2, 3, 4]]),
    );
    let bar = format!(r#"["bar",{ONE}]"#);
    check("Acknowledgement: binary", &format!("61-15{bar}"), &[&[1, 2, 3, 4]], &ack("/", 15, &bar, &[&[1, 2, 3, 4]]));
    check("Sample session", &format!("61-/admin,1[{ONE}]"), &[b"me"], &ack("/admin", 1, &format!("[{ONE}]"), &[b"me"]));
}

#[test]
fn binary_wherever_the_official_parser_puts_it() {
    let cool = format!(r#"["a",{ONE}]"#);
    check("parser: Buffer", &format!("51-/cool,23{cool}"), &[b"abc"], &event("/cool", Some(23), &cool, &[b"abc"]));
    let nested = format!(r#"["a",{{"b":["c",{ONE}]}}]"#);
    check(
        "parser: nested Buffer",
        &format!("51-/cool,23{nested}"),
        &[b"abc"],
        &event("/cool", Some(23), &nested, &[b"abc"]),
    );
    let answer = format!(r#"["a",{ONE},{{}}]"#);
    check("parser: binary ack", &format!("61-/back,127{answer}"), &[b"xxx"], &ack("/back", 127, &answer, &[b"xxx"]));
    let deep = r#"["a",{"a":"hi","b":{"why":{"_placeholder":true,"num":0}},"c":{"a":"bye","b":{"a":{"_placeholder":true,"num":1}}}}]"#;
    check(
        "parser: deep in JSON",
        &format!("52-/deep,999{deep}"),
        &[&[0; 3], &[0; 6]],
        &event("/deep", Some(999), deep, &[&[0; 3], &[0; 6]]),
    );
    let null = format!(r#"["a",{{"a":"b","c":4,"e":{{"g":null}},"h":{ONE}}}]"#);
    check("parser: beside null", &format!("51-600{null}"), &[&[0; 9]], &event("/", Some(600), &null, &[&[0; 9]]));
    for count in 1..=10_usize {
        let places: Vec<_> = (0..count).map(|num| format!(r#"{{"_placeholder":true,"num":{num}}}"#)).collect();
        let json = format!(r#"["n",{}]"#, places.join(","));
        let data: Vec<&'static [u8]> = vec![b"x"; count];
        check("Format: n attachments", &format!("5{count}-{json}"), &data, &event("/", None, &json, &data));
        check("Format: n attachments", &format!("6{count}-7{json}"), &data, &ack("/", 7, &json, &data));
    }
}

/// Other spellings of the same, by clients that are about; nobody writes them here.
#[test]
fn spellings_that_are_read_and_never_written() {
    let vectors = [
        ("Format: a namespace that ends the packet", "0/random", connect("/random", None)),
        ("Format: a namespace that ends the packet", "1/custom", disconnect("/custom")),
        ("Format: the main namespace by its name", "0/,", connect("/", None)),
        ("v4: a query behind a namespace", "0/admin?token=1", connect("/admin", None)),
        ("v4: a query behind a namespace", "0/admin?token=1&uid=abcd,", connect("/admin", None)),
        ("v4: a query and a payload", r#"0/admin?a=1,{"token":"123"}"#, connect("/admin", Some(r#"{"token":"123"}"#))),
        ("JSON: white space", "2[ \"a\" , 1 ]", event("/", None, "[ \"a\" , 1 ]", &[])),
        ("JSON: an escaped name", r#"2["\u0061"]"#, event("/", None, r#"["\u0061"]"#, &[])),
        ("Format: an id with zeros before it", "3007[]", ack("/", 7, "[]", &[])),
    ];
    for (section, wire, packet) in vectors {
        assert_eq!(decode(Parser::Json, messages(wire, &[])), Ok(vec![packet]), "{section}: {wire}");
    }
}

#[test]
fn whatever_the_official_parser_refuses_is_refused() {
    use DecodeError as E;
    const SYNTAX: DecodeError = E::Json(JsonError::Syntax);
    let vectors = [
        ("parser: invalid payload", r#"442["some","data""#, SYNTAX),
        ("parser: invalid payload", r#"0/admin,"invalid""#, E::BadConnectData),
        ("parser: invalid payload", "0[]", E::BadConnectData),
        ("parser: invalid payload", "1/admin,{}", E::UnexpectedData),
        ("parser: invalid payload", r#"2/admin,"invalid"#, SYNTAX),
        ("parser: invalid payload", r#"2/admin,"invalid""#, E::NotAnArray),
        ("parser: invalid payload", "2/admin,{}", E::NotAnArray),
        ("parser: invalid payload", r#"2[{"toString":"foo"}]"#, E::BadEventName),
        ("parser: invalid payload", r#"2[true,"foo"]"#, E::BadEventName),
        ("parser: invalid payload", r#"2[null,"bar"]"#, E::BadEventName),
        ("parser: reserved", r#"2["connect"]"#, E::ReservedEvent),
        ("parser: reserved", r#"2["disconnect","123"]"#, E::ReservedEvent),
        ("parser: reserved", r#"2["connect_error"]"#, E::ReservedEvent),
        ("parser: reserved", r#"2["disconnecting"]"#, E::ReservedEvent),
        ("parser: reserved", r#"2["newListener"]"#, E::ReservedEvent),
        ("parser: reserved", r#"2["removeListener"]"#, E::ReservedEvent),
        ("parser: illegal attachments", "5", E::BadAttachmentCount),
        ("parser: illegal attachments", "51", E::BadAttachmentCount),
        ("parser: illegal attachments", "5a-", E::BadAttachmentCount),
        ("parser: illegal attachments", "51.23-", E::BadAttachmentCount),
        ("parser: illegal attachments", r#"50-["a"]"#, E::BadAttachmentCount),
        ("parser: too many attachments", r#"511-["a"]"#, E::TooManyAttachments { limit: 10 }),
        ("parser: unknown type", "999", E::UnknownType),
        ("Exchange protocol: there is no type 7", "7", E::UnknownType),
        ("Sending and receiving data: a payload is mandatory", "2", E::NotAnArray),
        ("Sending and receiving data: not empty", "2[]", E::BadEventName),
        ("Acknowledgement: a payload is mandatory", "312", E::NotAnArray),
        ("Acknowledgement: an array", "312{}", E::NotAnArray),
        ("Acknowledgement: the id of the event", r#"3["bar"]"#, E::MissingAckId),
        ("Disconnection from a namespace: no payload", "1{}", E::UnexpectedData),
    ];
    for (section, wire, error) in vectors {
        assert_eq!(decode(Parser::Json, messages(wire, &[])), Err(error), "{section}: {wire}");
    }
}

#[test]
fn attachments_come_behind_their_header_and_nothing_between() {
    let hello = |num: &str| format!(r#"51-["hello",{{"_placeholder":true,"num":{num}}}]"#);
    let world: &[&'static [u8]] = &[b"world"];
    for num in [r#""splice""#, "1", "-1", "0.5", "null"] {
        let bad = decode(Parser::Json, messages(&hello(num), world));
        assert_eq!(bad, Err(DecodeError::Json(JsonError::Placeholder)), "parser: an invalid num: {num}");
    }
    let alone = decode(Parser::Json, [Message::Binary(Bytes::from_static(b"world"))]);
    assert_eq!(alone, Err(DecodeError::UnexpectedAttachment), "parser: an attachment without header");
    let text = decode(Parser::Json, [messages(&hello("0"), &[]), messages(r#"2["hello"]"#, &[])].concat());
    assert_eq!(text, Err(DecodeError::TextBetweenAttachments), "parser: text instead of the attachment");
    let many = decode(Parser::Json, messages(&hello("0"), &[b"one", b"two"]));
    assert_eq!(many, Err(DecodeError::UnexpectedAttachment), "one attachment too many");
}
