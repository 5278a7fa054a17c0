//! Streams, turns and logs of rooms.
//!
//! Invariant: members are only names here, nothing is written to anybody.

use protocol::socketio::{Args, Packet};

use super::*;

const fn member(index: u32) -> ConnKey {
    ConnKey { index, serial: 0 }
}

/// The room `a` with a member for each of `parsers`.
fn room(rooms: &mut Rooms, parsers: &[Parser]) -> RoomId {
    let id = rooms.find_or_create(&RoomKey::new("/", "a"));
    for (index, parser) in (0..).zip(parsers) {
        assert!(rooms.get_mut(id).unwrap().insert(member(index), *parser));
    }
    id
}

fn json(room: RoomId) -> StreamId {
    StreamId { room, parser: Parser::Json }
}

fn msgpack(room: RoomId) -> StreamId {
    StreamId { room, parser: Parser::MsgPack }
}

fn append(rooms: &mut Rooms, id: RoomId, payload: &'static [u8], except: &[ByteString]) {
    rooms.append(id, &Bytes::from_static(payload), except).unwrap();
}

/// Ends the stream's turn with this many new cursors.
fn end(rooms: &mut Rooms, id: StreamId, cursors: usize) {
    let (turn, start) = rooms.take_turn(id).unwrap();
    rooms.end_turn(id, turn, start, cursors);
}

fn forget(rooms: &mut Rooms, id: RoomId, index: u32) {
    assert!(rooms.get_mut(id).unwrap().remove(&member(index)));
    rooms.remove_if_unused(id);
}

fn event(text: &str) -> Packet {
    Packet::Event { nsp: "/".into(), id: None, args: Args::text(text) }
}

fn frames(packets: &[Packet], parser: Parser) -> Vec<u8> {
    let mut out = Vec::new();
    packets.iter().for_each(|packet| packet.encode_as(parser).put_frames(&mut out));
    out
}

#[test]
fn a_log_is_kept_only_while_a_cursor_needs_it() {
    let mut rooms = Rooms::new(1024);
    let id = room(&mut rooms, &[Parser::Json]);
    append(&mut rooms, id, b"one", &[]);
    end(&mut rooms, json(id), 1);
    assert_eq!(rooms.log(json(id), 1, 3), Some(&b"ne"[..]));
    forget(&mut rooms, id, 0);
    rooms.release(json(id));
    assert!(rooms.find(&RoomKey::new("/", "a")).is_none(), "a room without members and cursors is forgotten");
}

#[test]
fn a_cursor_that_fell_out_of_the_log_is_told_so() {
    let mut rooms = Rooms::new(8);
    let id = room(&mut rooms, &[Parser::Json]);
    for _ in 0..10 {
        append(&mut rooms, id, b"12345678", &[]);
        end(&mut rooms, json(id), 1);
    }
    assert_eq!(rooms.log(json(id), 0, 8), None);
    assert_eq!(rooms.log(json(id), 72, 80), Some(&b"12345678"[..]));
}

#[test]
fn a_turn_appends_each_frame_once_and_remembers_whom_it_skips() {
    let mut rooms = Rooms::new(8);
    let id = room(&mut rooms, &[Parser::Json, Parser::Json]);
    append(&mut rooms, id, b"a", &[]);
    append(&mut rooms, id, b"bc", &["me".into()]);
    let (turn, start) = rooms.take_turn(json(id)).unwrap();
    assert_eq!((turn.bytes.as_slice(), turn.frames, start), (&b"abc"[..], 2, 0));
    assert_eq!(turn.skips[0].bytes, 1..3);
}

#[test]
fn every_parser_in_use_has_the_turn_in_its_own_bytes() {
    let mut rooms = Rooms::new(1024);
    let id = room(&mut rooms, &[Parser::MsgPack, Parser::Json, Parser::MsgPack]);
    let packets = [event(r#"["first",1]"#), event(r#"["second",{"x":[null,"é"]}]"#)];
    for (packet, except) in packets.iter().zip([vec![], vec!["me".into()]]) {
        rooms.append(id, &frames(std::slice::from_ref(packet), Parser::Json).into(), &except).unwrap();
    }
    assert_eq!(rooms.take_dirty(), [json(id), msgpack(id)]);
    for stream in [json(id), msgpack(id)] {
        let (turn, _) = rooms.take_turn(stream).unwrap();
        assert_eq!((turn.frames, &turn.bytes), (2, &frames(&packets, stream.parser)), "{stream:?}");
        let first = frames(&packets[..1], stream.parser).len();
        assert_eq!(turn.skips[0].bytes, first..turn.bytes.len(), "{stream:?}");
    }
}

#[test]
fn a_stream_without_members_costs_nothing() {
    let mut rooms = Rooms::new(1024);
    let id = room(&mut rooms, &[Parser::MsgPack]);
    let payload: Bytes = frames(&[event(r#"["e"]"#)], Parser::Json).into();
    rooms.append(id, &payload, &[]).unwrap();
    assert!(rooms.take_turn(json(id)).is_none(), "nobody reads JSON");
    end(&mut rooms, msgpack(id), 1);
    assert!(rooms.get_mut(id).unwrap().insert(member(7), Parser::Json));
    forget(&mut rooms, id, 0);
    assert!(rooms.log(msgpack(id), 0, 4).is_some(), "somebody still reads the log");
    rooms.append(id, &payload, &[]).unwrap();
    assert!(rooms.take_turn(msgpack(id)).is_none(), "no member is left");
    rooms.release(msgpack(id));
    assert!(rooms.get(id).unwrap().stream(Parser::MsgPack).is_none());
    assert!(rooms.get(id).unwrap().members().eq([&member(7)]));
}

#[test]
fn a_payload_that_is_none_of_ours_is_left_out_of_msgpack_alone() {
    let mut rooms = Rooms::new(1024);
    let id = room(&mut rooms, &[Parser::Json, Parser::MsgPack]);
    rooms.append(id, &Bytes::from_static(b"\x81\x024?"), &[]).unwrap_err();
    rooms.append(id, &frames(&[event(r#"["e"]"#)], Parser::Json).into(), &[]).unwrap();
    assert_eq!(rooms.take_dirty(), [json(id), msgpack(id)]);
    let (turn, _) = rooms.take_turn(msgpack(id)).unwrap();
    assert_eq!(turn.bytes, frames(&[event(r#"["e"]"#)], Parser::MsgPack));
}
