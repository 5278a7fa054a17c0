//! Tests of the file of history: what is written is read again, and what is not that is told with its reason.

use bytestring::ByteString;
use mesh::{NodeId, room::RoomKey, wire::message::Origin};
use proptest::prelude::*;
use protocol::socketio::Args;

use super::*;

fn frame(room: &RoomKey, n: u64, args: &str, attachments: &[Bytes]) -> Frame {
    let args = Args { json: format!("[{args}]").into(), attachments: attachments.to_vec() };
    Frame {
        slot: room.slot(),
        room: room.clone(),
        lineage: 7,
        term: 1,
        n,
        prev: n - 1,
        origin: Origin { node: NodeId(0), generation: 1, shard: 0, oseq: n },
        time_ms: 1_790_000_000_000,
        flags: 0,
        id: ByteString::new(),
        from: ByteString::from_static("ann}"),
        except: vec![],
        payload: envelope::payload(room.namespace(), "chat", None, &args),
    }
}

fn record(frame: &Frame) -> Record {
    let room = frame.room.as_bytes().clone();
    Record { slot: frame.slot, room, n: frame.n, time_ms: frame.time_ms, body: frame.encode() }
}

fn lobby(n: u64) -> Line {
    Line::Message(record(&frame(&RoomKey::new("/", "lobby"), n, "\"hi\"", &[])))
}

fn text(line: &Line) -> String {
    line.text().unwrap()
}

#[test]
fn a_message_is_told_in_words_and_kept_in_bytes() {
    let text = text(&lobby(7));
    let epoch = envelope::epoch(7);
    let words = format!(
        r#"{{"namespace":"/","room":"lobby","offset":7,"epoch":"{epoch}","event":"chat","args":["hi"],"time_ms":1790000000000,"from":"ann}}","frame":""#
    );
    assert!(text.starts_with(&words), "{text}");
    assert_eq!(Line::read(&text), Ok(lobby(7)));
}

#[test]
fn arguments_that_no_parser_takes_apart_survive() {
    for args in [r#""\ud83d""#, "1e999", "123456789012345678901234567890", "0.1000000000000000055", r#"{"a":{"b":[]}}"#]
    {
        let line = Line::Message(record(&frame(&RoomKey::new("/x", "a\"}{"), 1, args, &[])));
        assert!(text(&line).contains(args), "{args}");
        assert_eq!(Line::read(&text(&line)), Ok(line), "{args}");
    }
}

#[test]
fn binary_is_shown_as_base64() {
    let attachments = [Bytes::from_static(b"hi")];
    let line =
        Line::Message(record(&frame(&RoomKey::new("/", "b"), 1, r#"{"_placeholder":true,"num":0}"#, &attachments)));
    assert!(text(&line).contains(r#""args":[{"$base64":"aGk="}]"#), "{}", text(&line));
    assert_eq!(Line::read(&text(&line)), Ok(line));
}

fn header() -> String {
    text(&Line::Header(Header::new("gw-0".to_owned(), 5, true)))
}

fn state() -> Line {
    let state = Resume { lineage: 7, n: 9, rooms: [(RoomKey::new("/", "lobby"), 9)].into(), watermark: 0 }.encode();
    Line::Slot { slot: RoomKey::new("/", "lobby").slot(), state }
}

fn end(slots: u64, messages: u64) -> String {
    text(&Line::End(Totals { slots, messages }))
}

/// Reads lines; the number of the first that is refused, and why.
fn read(lines: &[String]) -> Result<(usize, Totals), (usize, String)> {
    let mut reading = Reading::default();
    for (at, line) in lines.iter().enumerate() {
        reading.handle_line(line).map_err(|reason| (at + 1, reason))?;
    }
    reading.finish().map_err(|reason| (lines.len() + 1, reason))
}

#[test]
fn a_whole_file_is_counted() {
    let lines = [header(), text(&state()), text(&lobby(1)), text(&lobby(9)), end(1, 2)];
    assert_eq!(read(&lines), Ok((1, Totals { slots: 1, messages: 2 })));
}

#[test]
fn what_is_no_whole_file_is_refused_with_its_line_and_reason() {
    let broken = |line: &Line, from: &str, to: &str| text(line).replacen(from, to, 1);
    let cases: Vec<(Vec<String>, usize, &str)> = vec![
        (vec![], 1, "no end line"),
        (vec![header()], 2, "no end line"),
        (vec![header(), text(&lobby(1))], 3, "no end line"),
        (vec![text(&lobby(1))], 1, "must be the header"),
        (vec![header(), header()], 2, "must be the header"),
        (vec![header().replacen(":1", ":2", 1)], 1, "format 2"),
        (vec![header(), "garbage".to_owned()], 2, "cannot be read"),
        (vec![header(), String::new()], 2, "cannot be read"),
        (vec![header(), "{}".to_owned()], 2, "none of header"),
        (vec![header(), "[]".to_owned()], 2, "none of header"),
        (vec![header(), text(&lobby(1))[..90].to_owned()], 2, "cannot be read"),
        (vec![header(), broken(&lobby(1), "\"IAEA", "\"IAEB")], 2, "does not have its sum"),
        (vec![header(), broken(&lobby(1), "\"frame\":\"", "\"frame\":\"*")], 2, "no base64"),
        (vec![header(), broken(&lobby(1), "\"offset\":1", "\"offset\":2")], 2, "another room, offset"),
        (vec![header(), broken(&lobby(1), "\"lobby\"", "\"lounge\"")], 2, "another room, offset"),
        (vec![header(), text(&lobby(2)), text(&lobby(2))], 3, "the line before it in this room had 2"),
        (vec![header(), text(&lobby(2)), text(&lobby(1))], 3, "has offset 1"),
        (vec![header(), text(&state()), text(&state())], 3, "again"),
        (vec![header(), r#"{"slot":4096,"state":""}"#.to_owned()], 2, "slot below 4096"),
        (vec![header(), r#"{"slot":1,"state":"AAAA"}"#.to_owned()], 2, "state that is none"),
        (vec![header(), text(&lobby(1)), end(0, 2)], 3, "but 1 and 0 were before it"),
        (vec![header(), end(0, 0), text(&lobby(1))], 3, "behind the end line"),
        (vec![header(), end(0, 0), end(0, 0)], 3, "behind the end line"),
    ];
    for (lines, number, reason) in cases {
        let refused = read(&lines).unwrap_err();
        assert_eq!(refused.0, number, "{refused:?} {lines:?}");
        assert!(refused.1.contains(reason), "{refused:?} {lines:?}");
    }
}

#[test]
fn a_message_of_a_room_in_the_wrong_slot_or_without_place_is_refused() {
    let room = RoomKey::new("/", "lobby");
    let good = frame(&room, 1, "1", &[]);
    let wrong =
        [Frame { slot: room.slot() ^ 1, ..good.clone() }, Frame { n: 0, ..good.clone() }, Frame { flags: 1, ..good }];
    for frame in wrong {
        let body = frame.encode();
        let line = json!({ "frame": STANDARD.encode(&body), "sum": sum(&body) }).to_string();
        assert!(Line::read(&line).unwrap_err().contains("no history keeps"), "{line}");
    }
}

proptest! {
    #[test]
    fn no_text_ends_the_process(text in "\\PC{0,80}", cut in 0usize..400) {
        let _ = Line::read(&text);
        let good = self::text(&lobby(3));
        let cut = good.get(..cut).unwrap_or(&good).to_owned();
        prop_assert!(cut == good || Line::read(&cut).is_err());
    }
}
