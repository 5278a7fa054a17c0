//! Between events and bytes: what members receive for a publish, and what history looks like in an answer.
//!
//! Invariants: arguments are never parsed further than their array's elements; the bytes of a publish are made once, at
//! its origin; an item shows exactly the event and arguments that members received.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use bytestring::ByteString;
use mesh::wire::message::Frame;
use protocol::{
    engine::{Message, frame},
    socketio::{Args, Encoded, encode_event},
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

/// Attachments the stock client's parser takes in one packet (since socket.io-parser 4.2.6).
pub(crate) const ATTACHMENTS_MAX: usize = 10;

/// An event for one client.
pub(crate) fn event(namespace: &str, event: &str, args: &[&RawValue], attachments: &[Bytes]) -> Encoded {
    // A string always serialises.
    let name = serde_json::to_string(event).unwrap_or_default();
    let mut parts: Vec<&[u8]> = Vec::with_capacity(3 + 2 * args.len());
    parts.extend([b"[".as_slice(), name.as_bytes()]);
    for arg in args {
        parts.extend([b",".as_slice(), arg.get().as_bytes()]);
    }
    parts.push(b"]");
    encode_event(namespace, None, &parts, attachments)
}

/// The payload of a publish: the event as every member receives it, as WebSocket frames.
pub(crate) fn payload(namespace: &str, name: &str, args: &[&RawValue], attachments: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    event(namespace, name, args, attachments).put_frames(&mut out);
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
    Some(Args { json, attachments })
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

/// A frame of history as clients see it (`interface.md` 1.1, `Item`).
#[derive(Debug, Serialize)]
struct Item {
    offset: u64,
    epoch: String,
    event: Box<RawValue>,
    args: Vec<Value>,
    time_ms: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    from: String,
}

/// The items of an answer, and the attachments their placeholders point to.
///
/// A packet takes at most ten attachments; with more, binary arguments come as `{"$base64": "…"}` instead.
pub(crate) fn items<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> (Value, Vec<Bytes>) {
    let opened: Vec<(&Frame, Args)> =
        frames.filter_map(|frame| Some((frame, open(&frame.payload, frame.room.namespace())?))).collect();
    let total: usize = opened.iter().map(|(_, args)| args.attachments.len()).sum();
    let mut attachments = Vec::new();
    let mut items = Vec::with_capacity(opened.len());
    for (frame, args) in opened {
        let Some(item) = item(frame, &args, &mut attachments, total <= ATTACHMENTS_MAX) else { continue };
        items.push(serde_json::to_value(item).unwrap_or_default());
    }
    (Value::Array(items), attachments)
}

fn item(frame: &Frame, args: &Args, attachments: &mut Vec<Bytes>, inline: bool) -> Option<Item> {
    let elements = args.elements().ok()?;
    let (event, rest) = elements.split_first()?;
    let mut values = Vec::with_capacity(rest.len());
    for raw in rest {
        let mut value: Value = serde_json::from_str(raw.get()).ok()?;
        if !args.attachments.is_empty() {
            place(&mut value, &args.attachments, attachments, inline);
        }
        values.push(value);
    }
    Some(Item {
        offset: frame.n,
        epoch: epoch(frame.lineage),
        event: (*event).to_owned(),
        args: values,
        time_ms: frame.time_ms,
        from: frame.from.to_string(),
    })
}

/// Points placeholders at the answer's own attachments, or puts the bytes in their place.
fn place(value: &mut Value, own: &[Bytes], attachments: &mut Vec<Bytes>, inline: bool) {
    match value {
        Value::Object(map) if map.get("_placeholder") == Some(&Value::Bool(true)) => {
            let num = map.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            let Some(bytes) = num.and_then(|num| own.get(num)) else { return };
            *value = if inline {
                attachments.push(bytes.clone());
                json!({"_placeholder": true, "num": attachments.len() - 1})
            } else {
                json!({"$base64": STANDARD.encode(bytes)})
            };
        }
        Value::Object(map) => map.values_mut().for_each(|value| place(value, own, attachments, inline)),
        Value::Array(values) => values.iter_mut().for_each(|value| place(value, own, attachments, inline)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
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

/// The name of an event in an array's text, for a message made here.
pub(crate) fn notice(namespace: &str, event: &str, body: &Value) -> Encoded {
    let array = json!([event, body]).to_string();
    encode_event(namespace, None, &[array.as_bytes()], &[])
}

/// Replays a payload as messages for one socket.
pub(crate) fn messages(payload: &Bytes) -> impl Iterator<Item = Message> {
    frame::messages(payload).map_while(Result::ok)
}

/// An answer's array with its one object.
pub(crate) fn answer(body: &Value, attachments: Vec<Bytes>) -> Args {
    Args { json: ByteString::from(Value::Array(vec![body.clone()]).to_string()), attachments }
}

#[cfg(test)]
mod tests {
    use mesh::{NodeId, room::RoomKey, wire::message::Origin};

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

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
        let args = [raw("1"), raw(r#"{"x":"é"}"#)];
        let args: Vec<&RawValue> = args.iter().map(AsRef::as_ref).collect();
        let payload = payload("/chat", "say \"hi\"", &args, &[]);
        let messages: Vec<Message> = messages(&payload).collect();
        assert_eq!(messages, [Message::Text(r#"2/chat,["say \"hi\"",1,{"x":"é"}]"#.into())]);
    }

    #[test]
    fn an_item_shows_the_event_and_arguments_again() {
        let args = [raw("[1,2]")];
        let args: Vec<&RawValue> = args.iter().map(AsRef::as_ref).collect();
        let frame = frame_of("/[odd", 3, payload("/[odd", "e", &args, &[]));
        let (items, attachments) = items([&frame].into_iter());
        assert_eq!(items, json!([{"offset": 3, "epoch": epoch(1), "event": "e", "args": [[1, 2]], "time_ms": 7}]));
        assert!(attachments.is_empty());
    }

    #[test]
    fn binary_items_share_one_list_of_attachments() {
        let placeholder = [raw(r#"{"deep":{"_placeholder":true,"num":0}}"#)];
        let args: Vec<&RawValue> = placeholder.iter().map(AsRef::as_ref).collect();
        let frames: Vec<Frame> =
            (1..=2).map(|n| frame_of("/", n, payload("/", "b", &args, &[Bytes::from(n.to_string())]))).collect();
        let (items, attachments) = items(frames.iter());
        assert_eq!(items[1]["args"], json!([{"deep": {"_placeholder": true, "num": 1}}]));
        assert_eq!(attachments, [Bytes::from_static(b"1"), Bytes::from_static(b"2")]);
    }

    #[test]
    fn too_many_attachments_become_base64() {
        let placeholder = [raw(r#"{"_placeholder":true,"num":0}"#)];
        let args: Vec<&RawValue> = placeholder.iter().map(AsRef::as_ref).collect();
        let frames: Vec<Frame> =
            (1..=11).map(|n| frame_of("/", n, payload("/", "b", &args, &[Bytes::from_static(b"hi")]))).collect();
        let (items, attachments) = items(frames.iter());
        assert!(attachments.is_empty());
        assert_eq!(items[10]["args"], json!([{"$base64": "aGk="}]));
    }

    #[test]
    fn an_epoch_reads_back_and_garbage_does_not() {
        assert_eq!(lineage(&epoch(0x0102_0304)), Some(0x0102_0304));
        assert_eq!(lineage("not an epoch"), None);
        assert_eq!(lineage(""), None);
    }
}
