//! Between events and bytes: what members receive for a publish, and what history looks like in an answer.
//!
//! Invariants: arguments are never parsed further than their array's elements; the bytes of a publish are made once, at
//! its origin; an item shows the very text of the event and arguments that members received.

mod placeholder;

use std::{borrow::Cow, fmt::Write as _};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use bytestring::ByteString;
use mesh::{room::RoomKey, wire::message::Frame};
use protocol::{
    engine::{Message, frame},
    socketio::{Args, Encoded, Parser, encode_event, placeholders},
};
use serde_json::{Value, json};

use crate::handler::Event;
pub(crate) use placeholder::names_each_once;

/// Attachments the stock client's parser takes in one packet (since socket.io-parser 4.2.6).
pub(crate) const ATTACHMENTS_MAX: usize = 10;

/// The arguments of an event, its name in front of them. `args` are an array.
pub(crate) fn named(event: &str, args: &Args) -> Args {
    Args { json: array(event, args).concat().into(), attachments: args.attachments.clone() }
}

/// The payload of a publish: the event as every member with JSON receives it, as WebSocket frames.
///
/// With `id` it is a question to everybody, who answer with the same id.
pub(crate) fn payload(namespace: &str, event: &str, id: Option<u64>, args: &Args) -> Bytes {
    let array = array(event, args);
    let parts = array.each_ref().map(|part| part.as_bytes());
    frames(&encode_event(namespace, id, &parts, &args.attachments))
}

/// The parts of an event's array: its name, and the text of its arguments as it is.
fn array<'a>(event: &str, args: &'a Args) -> [Cow<'a, str>; 4] {
    // A string always serialises.
    let name = serde_json::to_string(event).unwrap_or_default();
    let inside = args.json.trim_ascii_start().strip_prefix('[').unwrap_or("]");
    let comma = if inside.trim_ascii_start().starts_with(']') { "" } else { "," };
    ["[".into(), name.into(), comma.into(), inside.into()]
}

fn frames(packet: &Encoded) -> Bytes {
    let mut out = Vec::new();
    packet.put_frames(&mut out);
    Bytes::from(out.into_boxed_slice())
}

/// The event a payload holds; `None` if it is not one of ours.
fn open(payload: &Bytes, namespace: &str) -> Option<Args> {
    let mut messages = frame::messages(payload);
    let Some(Ok(Message::Text(text))) = messages.next() else { return None };
    let json = text.slice_ref(array_of(&text, namespace)?);
    let mut attachments = Vec::new();
    for message in messages {
        match message {
            Ok(Message::Binary(bytes)) => attachments.push(bytes),
            Ok(Message::Text(_)) | Err(_) => return None,
        }
    }
    // What names an attachment that does not exist was refused when it came.
    placeholders(&json, attachments.len()).ok()?;
    Some(Args { json, attachments })
}

/// The event a frame holds: its name, and its arguments apart from it. `None` if it is not one of ours.
pub(crate) fn opened(frame: &Frame) -> Option<(String, Args)> {
    let all = open(&frame.payload, frame.room.namespace())?;
    let name = all.event_name().ok()?.into_owned();
    let args = Event::new(Cow::Borrowed(&name), &all).args();
    Some((name, args))
}

/// The JSON array of an encoded event: behind its type, its number of attachments and its namespace.
fn array_of<'a>(text: &'a str, namespace: &str) -> Option<&'a str> {
    let text = match text.split_at_checked(1)? {
        ("2", rest) => rest,
        ("5", rest) => rest.split_once('-')?.1,
        _ => return None,
    };
    if namespace == "/" { Some(text) } else { text.strip_prefix(namespace)?.strip_prefix(',') }
}

/// History as an answer shows it: a JSON array of `Item`s (`interface.md` 1.1), and what their placeholders point to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    /// The array's text.
    pub(crate) json: String,
    /// In the order of their numbers.
    pub(crate) attachments: Vec<Bytes>,
}

/// Shows frames as items to a client with that parser.
///
/// A packet of JSON takes at most ten attachments. With more, and where an event without attachments has a placeholder of
/// its own in it (anybody may publish one), binary values come as `{"$base64": "…"}` and the answer has no attachments at
/// all.
pub(crate) fn items<'a>(frames: impl Iterator<Item = &'a Frame>, parser: Parser) -> Items {
    let opened: Vec<(&Frame, Args)> =
        frames.filter_map(|frame| Some((frame, open(&frame.payload, frame.room.namespace())?))).collect();
    let total: usize = opened.iter().map(|(_, args)| args.attachments.len()).sum();
    let forged = opened.iter().any(|(_, args)| args.attachments.is_empty() && placeholder::may_occur(&args.json));
    let fits = match parser {
        Parser::Json => total <= ATTACHMENTS_MAX,
        // Binary is a value like others.
        Parser::MsgPack => true,
    };
    let inline = fits && !forged;
    let mut items = Items { json: String::from("["), attachments: Vec::new() };
    for (frame, args) in &opened {
        let before = items.json.len();
        if before > 1 {
            items.json.push(',');
        }
        if put_item(&mut items, frame, args, inline).is_none() {
            items.json.truncate(before);
        }
    }
    items.json.push(']');
    items
}

/// One frame as an item by itself, binary values as `{"$base64": "…"}`; `None` if it holds no event of ours.
pub(crate) fn item(frame: &Frame) -> Option<String> {
    let mut items = Items::default();
    put_item(&mut items, frame, &open(&frame.payload, frame.room.namespace())?, false)?;
    Some(items.json)
}

fn put_item(items: &mut Items, frame: &Frame, args: &Args, inline: bool) -> Option<()> {
    let elements = args.elements().ok()?;
    let (event, rest) = elements.split_first()?;
    let (offset, epoch, event) = (frame.n, epoch(frame.lineage), event.get());
    write!(items.json, r#"{{"offset":{offset},"epoch":"{epoch}","event":{event},"args":["#).ok()?;
    for (at, arg) in rest.iter().enumerate() {
        if at > 0 {
            items.json.push(',');
        }
        if args.attachments.is_empty() {
            items.json.push_str(arg.get());
        } else {
            put_binary(items, arg.get(), &args.attachments, inline);
        }
    }
    write!(items.json, r#"],"time_ms":{}"#, frame.time_ms).ok()?;
    if !frame.from.is_empty() {
        write!(items.json, r#","from":{}"#, serde_json::to_string(&*frame.from).ok()?).ok()?;
    }
    items.json.push('}');
    Some(())
}

/// Points placeholders at the answer's attachments, or puts the bytes in their place. A publish names each attachment
/// once (`placeholder::names_each_once`), so an answer never holds one twice.
fn put_binary(items: &mut Items, arg: &str, own: &[Bytes], inline: bool) {
    let Items { json, attachments } = items;
    placeholder::replace(arg, own.len(), json, |num, json| {
        let bytes = own.get(num).map_or(&[][..], |bytes| bytes);
        if inline {
            // Writing to a string cannot fail.
            let _ = write!(json, r#"{{"_placeholder":true,"num":{}}}"#, attachments.len());
            attachments.push(own.get(num).cloned().unwrap_or_default());
        } else {
            let _ = write!(json, r#"{{"$base64":"{}"}}"#, STANDARD.encode(bytes));
        }
    });
}

/// A lineage as clients see it.
pub(crate) fn epoch(lineage: u64) -> String {
    URL_SAFE_NO_PAD.encode(lineage.to_be_bytes())
}

/// The lineage of an epoch; `None` if we never gave it out.
pub(crate) fn lineage(epoch: &str) -> Option<u64> {
    let bytes = URL_SAFE_NO_PAD.decode(epoch).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The payload of an event that is made here.
pub(crate) fn notice(namespace: &str, event: &str, body: &Value) -> Bytes {
    let array = json!([event, body]).to_string();
    frames(&encode_event(namespace, None, &[array.as_bytes()], &[]))
}

/// The payload of a notice that a member came to a room or left it; `member` is the JSON text of one.
pub(crate) fn member_notice(room: &RoomKey, event: &str, member: &str) -> Bytes {
    // Strings always serialise.
    let name = |name: &str| serde_json::to_string(name).unwrap_or_default();
    let array = format!(r#"[{},{{"room":{},"member":{member}}}]"#, name(event), name(room.room()));
    frames(&encode_event(room.namespace(), None, &[array.as_bytes()], &[]))
}

/// An answer's array around its one object.
pub(crate) fn answer(object: &str, attachments: Vec<Bytes>) -> Args {
    Args { json: ByteString::from(format!("[{object}]")), attachments }
}

#[cfg(test)]
mod tests {
    use mesh::{NodeId, wire::message::Origin};

    use super::*;

    fn frame_of(namespace: &str, n: u64, payload: Bytes) -> Frame {
        let room = RoomKey::new(namespace, "a");
        let origin = Origin { node: NodeId(0), generation: 1, shard: 0, oseq: n };
        let none = ByteString::new();
        Frame {
            slot: room.slot(),
            room,
            lineage: 1,
            term: 1,
            n,
            prev: n - 1,
            origin,
            time_ms: 7,
            flags: 0,
            id: none.clone(),
            from: none,
            except: vec![],
            payload,
        }
    }

    #[test]
    fn a_payload_is_the_event_as_members_receive_it() {
        let said =
            |args: &str| frame::messages(&payload("/chat", "say \"hi\"", None, &Args::text(args))).collect::<Vec<_>>();
        assert_eq!(said(r#"[1,{"x":"é"}]"#), [Ok(Message::Text(r#"2/chat,["say \"hi\"",1,{"x":"é"}]"#.into()))]);
        assert_eq!(said(" [ ]"), [Ok(Message::Text(r#"2/chat,["say \"hi\"" ]"#.into()))]);
    }

    fn binary(arg: &str, attachments: &[&'static [u8]], n: u64) -> Frame {
        let attachments: Vec<Bytes> = attachments.iter().map(|bytes| Bytes::from_static(bytes)).collect();
        frame_of("/", n, payload("/", "b", None, &Args { json: format!("[{arg}]").into(), attachments }))
    }

    const PLACEHOLDER: &str = r#"{"_placeholder":true,"num":0}"#;

    #[test]
    fn an_item_shows_the_text_of_the_event_and_arguments_again() {
        let text = r#"{"z":1,"a":123456789012345678901234567890,"cut":"\ud83d","big":1e999}"#;
        let frame = frame_of("/[odd", 3, payload("/[odd", "e", None, &Args::text(format!("[{text},[1, 2]]"))));
        let items = items([&frame].into_iter(), Parser::Json);
        let epoch = epoch(1);
        let expected = format!(r#"[{{"offset":3,"epoch":"{epoch}","event":"e","args":[{text},[1, 2]],"time_ms":7}}]"#);
        assert_eq!(items, Items { json: expected, attachments: vec![] });
    }

    #[test]
    fn binary_items_share_one_list_of_attachments() {
        let deep = format!(r#"{{"deep":{PLACEHOLDER}}}"#);
        let frames = [binary(&deep, &[b"1"], 1), binary(&deep, &[b"2"], 2)];
        let items = items(frames.iter(), Parser::Json);
        assert!(items.json.contains(r#""args":[{"deep":{"_placeholder":true,"num":1}}]"#), "{}", items.json);
        assert_eq!(items.attachments, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    }

    #[test]
    fn too_many_attachments_become_base64() {
        let frames: Vec<Frame> = (1..=11).map(|n| binary(PLACEHOLDER, &[b"hi"], n)).collect();
        let native = items(frames.iter(), Parser::MsgPack);
        assert_eq!(native.attachments.len(), 11, "msgpack has no limit");
        let items = items(frames.iter(), Parser::Json);
        assert!(items.attachments.is_empty());
        assert_eq!(items.json.matches(r#"{"$base64":"aGk="}"#).count(), 11);
    }

    #[test]
    fn a_placeholder_that_somebody_typed_points_at_nobodys_bytes() {
        let frames = [binary(r#"{"_placeholder":true,"num":99}"#, &[], 1), binary(PLACEHOLDER, &[b"hi"], 2)];
        let items = items(frames.iter(), Parser::Json);
        assert!(items.attachments.is_empty(), "the answer would be a binary packet, and its 99 an error");
        assert!(items.json.contains(r#""args":[{"_placeholder":true,"num":99}]"#), "{}", items.json);
    }

    /// Found by fuzzing: the placeholder with more in it than the stock client writes kept its number, and pointed at what
    /// another event had brought.
    #[test]
    fn every_item_of_an_answer_has_its_own_bytes_however_its_placeholders_are_written() {
        let more = r#"{"_placeholder":true,"num":0,"x":1}"#;
        let frames = [binary(PLACEHOLDER, &[b"hi"], 1), binary(more, &[b"ho"], 2)];
        let items = items(frames.iter(), Parser::Json);
        assert!(items.json.contains(r#""args":[{"_placeholder":true,"num":1}]"#), "{}", items.json);
        assert_eq!(items.attachments, [Bytes::from_static(b"hi"), Bytes::from_static(b"ho")]);
    }

    #[test]
    fn an_epoch_reads_back_and_garbage_does_not() {
        assert_eq!(lineage(&epoch(0x0102_0304)), Some(0x0102_0304));
        assert_eq!(lineage("not an epoch"), None);
        assert_eq!(lineage(""), None);
    }
}
