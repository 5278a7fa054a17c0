//! What the fuzzer feeds with bytes of clients, peers and files (`cargo xtask fuzz`); compiled for it only.
//!
//! Invariants: every function takes any bytes; what is shown of a publish is what was published, and what a file says is
//! written again as it was read.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use mesh::{
    NodeId,
    room::RoomKey,
    slot::Resume,
    wire::message::{Frame, Origin},
};
use protocol::{
    engine::Message,
    socketio::{Args, Decoder, DecoderLimits, Packet, Parser},
};
use serde_json::{Value, json, value::RawValue};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    archive::{Line, Reading},
    envelope,
};

const LIMITS: DecoderLimits = DecoderLimits { attachments: 10, bytes: 4_000, name_bytes: 64, json_depth: 64 };
/// Answers hold many events.
const WIDE: DecoderLimits = DecoderLimits { attachments: 1 << 16, bytes: 1 << 22, name_bytes: 64, json_depth: 128 };

/// The history of a room whose lines are what clients sent: text, or a binary message behind `b`. What is behind `r` is a
/// payload as a peer or a disk gives it.
///
/// # Panics
/// An item is not what was published, or an answer with it cannot be read.
pub fn envelope(data: &[u8]) {
    let mut decoder = Decoder::for_parser(Parser::Json, LIMITS);
    let (mut frames, mut published) = (Vec::new(), Vec::new());
    for line in data.split(|byte| *byte == b'\n') {
        let message = match line {
            [b'r', payload @ ..] => {
                any_payload(Bytes::copy_from_slice(payload));
                continue;
            }
            [b'b', data @ ..] => Message::Binary(Bytes::copy_from_slice(data)),
            text => Message::Text(String::from_utf8_lossy(text).into_owned().into()),
        };
        let Ok(Some(Packet::Event { args, .. })) = decoder.decode(message) else { continue };
        let attached = args.attachments.len();
        if attached > 0 && !envelope::names_each_once(std::iter::once(&*args.json), attached) {
            continue;
        }
        let Ok(name) = args.event_name() else { panic!("a decoded event has a name") };
        let frame = frame("/", frames.len(), publish(&name, &args));
        let opened = envelope::opened(&frame).map(|(name, args)| envelope::named(&name, &args));
        let Some(opened) = opened else { panic!("{args:?} cannot be opened") };
        assert_eq!(elements(&opened.json)[1..], elements(&args.json)[1..]);
        assert_eq!(opened.attachments, args.attachments);
        frames.push(frame);
        published.push(args);
    }
    for parser in Parser::ALL {
        let items = envelope::items(frames.iter(), parser);
        let shown = elements(&items.json);
        assert_eq!(shown.len(), published.len());
        let attached = envelope::answer(&items.json, items.attachments.clone());
        assert_eq!(read(&attached, parser), Ok(attached.clone()), "{parser:?}");
        for (item, args) in shown.iter().zip(&published) {
            let (Ok(item), Ok(args_of)) = (serde_json::from_str::<Value>(item), serde_json::from_str(&args.json))
            else {
                continue; // A number beyond all numbers.
            };
            let mut wanted: Value = args_of;
            resolve(&mut wanted, &args.attachments);
            let mut seen = item["args"].clone();
            resolve(&mut seen, &items.attachments);
            assert_eq!(
                seen.as_array().map(Vec::as_slice),
                wanted.as_array().map(|all| &all[1..]),
                "{parser:?} {args:?}"
            );
        }
    }
}

/// The payload of a publish of an event.
fn publish(name: &str, args: &Args) -> Bytes {
    let rest: Vec<String> = elements(&args.json).into_iter().skip(1).collect();
    let args = Args { json: format!("[{}]", rest.join(",")).into(), attachments: args.attachments.clone() };
    envelope::payload("/", name, None, &args)
}

/// A payload that nobody checked: a list of items it may be missing from, and which is JSON with it.
fn any_payload(payload: Bytes) {
    for namespace in ["/", "/chat"] {
        let frame = frame(namespace, 1, payload.clone());
        if let Some((name, args)) = envelope::opened(&frame) {
            let again = self::frame(namespace, 1, envelope::payload(namespace, &name, None, &args));
            assert_eq!(envelope::opened(&again), Some((name, args)));
        }
        for parser in Parser::ALL {
            let items = envelope::items([&frame, &frame].into_iter(), parser);
            assert!(elements(&items.json).len() <= 2);
            assert!(parser == Parser::MsgPack || items.attachments.len() <= envelope::ATTACHMENTS_MAX);
        }
        assert!(envelope::item(&frame).is_none_or(|item| serde_json::from_str::<&RawValue>(&item).is_ok()));
    }
}

fn elements(array: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<&RawValue>>(array) {
        Ok(elements) => elements.into_iter().map(|element| element.get().to_owned()).collect(),
        Err(error) => panic!("{error} in {array}"),
    }
}

/// An answer as its client reads it.
fn read(answer: &Args, parser: Parser) -> Result<Args, String> {
    let packet = Packet::Ack { nsp: "/".into(), id: 1, args: answer.clone() };
    let mut decoder = Decoder::for_parser(parser, WIDE);
    let mut read = None;
    for message in packet.encode_as(parser).messages() {
        read = decoder.decode(message).map_err(|error| error.to_string())?;
    }
    match read {
        // Numbers and white space are written anew in msgpack.
        Some(Packet::Ack { args, .. }) if parser == Parser::MsgPack => {
            assert_eq!(args.attachments.len(), answer.attachments.len());
            Ok(answer.clone())
        }
        Some(Packet::Ack { args, .. }) => Ok(args),
        other => Err(format!("{other:?}")),
    }
}

/// Puts bytes in the places of placeholders, as the stock client does. Where nothing is attached nothing is one.
fn resolve(value: &mut Value, attachments: &[Bytes]) {
    if attachments.is_empty() {
        return;
    }
    match value {
        Value::Array(all) => all.iter_mut().for_each(|value| resolve(value, attachments)),
        Value::Object(object) if object.get("_placeholder") == Some(&Value::Bool(true)) => {
            let num = object.get("num").and_then(Value::as_u64).and_then(|num| usize::try_from(num).ok());
            let bytes = num.and_then(|num| attachments.get(num)).map(|bytes| STANDARD.encode(bytes));
            *value = json!({ "$base64": bytes });
        }
        Value::Object(object) => object.values_mut().for_each(|value| resolve(value, attachments)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn frame(namespace: &str, at: usize, payload: Bytes) -> Frame {
    let room = RoomKey::new(namespace, "room");
    let origin = Origin { node: NodeId(0), generation: 1, shard: 0, oseq: 1 };
    Frame {
        slot: room.slot(),
        room,
        lineage: 1,
        term: 1,
        n: at as u64 + 1,
        prev: at as u64,
        origin,
        time_ms: 7,
        flags: 0,
        id: "".into(),
        from: "ada".into(),
        except: vec![],
        payload,
    }
}

/// Lines of a file of history: as they are, and messages with all that is said of their frame put right, so that what lies
/// behind that is reached. What is behind `r` is what a slot left, as the store has it.
///
/// # Panics
/// What was read is written as something else.
pub fn history_file(text: &str) {
    let mut reading = Reading::default();
    for line in text.lines() {
        if let Some(state) = line.strip_prefix('r') {
            slot_state(Bytes::copy_from_slice(state.as_bytes()));
            continue;
        }
        let _ = Line::read(line);
        if let Ok(line) = reading.handle_line(&in_agreement(line).unwrap_or_else(|| line.to_owned())) {
            // A message whose payload is no event has less to say, but is the same.
            let Some(written) = line.text() else { panic!("{line:?} cannot be written") };
            assert_eq!(Line::read(&written), Ok(line), "{written}");
        }
    }
}

fn slot_state(bytes: Bytes) {
    if let Some(state) = Resume::decode(bytes) {
        assert_eq!(Resume::decode(state.encode()), Some(state));
    }
}

/// The line of a message as its frame has it.
fn in_agreement(line: &str) -> Option<String> {
    let mut fields: Value = serde_json::from_str(line).ok()?;
    let mut body = Bytes::from(STANDARD.decode(fields.get("frame")?.as_str()?).ok()?);
    if let Ok(mut frame) = Frame::decode(body.clone()) {
        frame.slot = frame.room.slot();
        body = frame.encode();
        fields["frame"] = STANDARD.encode(&body).into();
        fields["namespace"] = frame.room.namespace().into();
        fields["room"] = frame.room.room().into();
        fields["offset"] = frame.n.into();
        fields["epoch"] = envelope::epoch(frame.lineage).into();
        fields["time_ms"] = frame.time_ms.into();
    }
    fields["sum"] = format!("{:016x}", xxh3_64(&body)).into();
    Some(fields.to_string())
}
