//! A tiny room server that can be told to do wrong, one thread per connection.
//!
//! It speaks what the load test needs of Socket.IO over WebSocket: open, connect, `room:join`, `room:publish` (or `join`
//! and `publish`), and acks. What it does with the n-th message of a publisher is its [`Fault`].

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use protocol::engine::frame::put_text;
use serde_json::{Value, json};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The first member misses message 3.
    Lose,
    /// The first member gets message 3 twice.
    Duplicate,
    /// The first member gets messages 3 and 4 the wrong way round.
    Swap,
    /// Message 3 is refused, and nobody gets it.
    Refuse,
    /// Message 3 has the offset of message 1.
    OffsetBack,
    /// The first member is cut at message 3.
    Cut,
    /// Message 3 is never answered, and nobody gets it.
    Silence,
    /// With message 3 the first member gets the first message of all again.
    Replay,
    /// Every connection is refused.
    RefuseConnect,
}

/// The message that the fault hits.
const HIT: u64 = 3;

struct Room {
    members: Vec<TcpStream>,
    offset: u64,
    /// Held back for the first member, when two messages are to be swapped.
    held: Option<Vec<u8>>,
    /// The frame of the first message of all.
    first: Option<Vec<u8>>,
}

/// Starts a server; it lives as long as the test process.
pub(crate) fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let room = Arc::new(Mutex::new(Room { members: Vec::new(), offset: 0, held: None, first: None }));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let room = Arc::clone(&room);
            let stream = stream.unwrap();
            thread::spawn(move || serve_one(stream, fault, &room));
        }
    });
    address
}

fn serve_one(mut stream: TcpStream, fault: Fault, room: &Mutex<Room>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    read_head(&mut stream)?;
    if fault == Fault::RefuseConnect {
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").ok();
    }
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").ok()?;
    say(&mut stream, r#"0{"sid":"s"}"#)?;
    loop {
        let packet = read_packet(&mut stream)?;
        if packet == "40" {
            say(&mut stream, r#"40{"sid":"s"}"#)?;
            // A heartbeat right away: a client that did not answer it would be noticed below.
            say(&mut stream, "2")?;
        } else if packet != "3" {
            handle_event(&mut stream, &packet, fault, room)?;
        }
    }
}

fn handle_event(stream: &mut TcpStream, packet: &str, fault: Fault, room: &Mutex<Room>) -> Option<()> {
    let event = packet.strip_prefix("42")?;
    let digits = event.find('[')?;
    let (id, args) = event.split_at(digits);
    let args: Vec<Value> = serde_json::from_str(args).ok()?;
    let mut room = room.lock().unwrap();
    match args[0].as_str()? {
        "room:join" => {
            room.members.push(stream.try_clone().ok()?);
            let last = args[1]["history"]["last"].as_u64().unwrap_or(0);
            let history: Vec<_> = (0..last).map(|offset| json!({"offset": offset})).collect();
            say(stream, &format!("43{id}{}", json!([{"ok": true, "epoch": "e", "offset": 0, "history": history}])))
        }
        "join" => {
            room.members.push(stream.try_clone().ok()?);
            say(stream, &format!("43{id}[]"))
        }
        "room:publish" => {
            let payload = args[1]["args"][0].as_str()?.to_owned();
            let answer = publish(&mut room, &payload, fault)?;
            if !answer.is_null() {
                say(stream, &format!("43{id}{}", json!([answer])))?;
            }
            Some(())
        }
        "publish" => publish(&mut room, args[2].as_str()?, fault).map(drop),
        other => panic!("unexpected event {other}"),
    }
}

/// Sends a message to the members as far as the fault allows; the answer, null for none.
fn publish(room: &mut Room, payload: &str, fault: Fault) -> Option<Value> {
    // The marker is `~#`, run (8), publisher (4), sequence number (8).
    let seq = u64::from_str_radix(payload.get(14..22)?, 16).ok()?;
    let hit = seq == HIT;
    if hit && fault == Fault::Refuse {
        return Some(json!({"ok": false, "code": "overloaded", "message": "busy"}));
    }
    if hit && fault == Fault::Silence {
        return Some(Value::Null);
    }
    let mut frame = Vec::new();
    put_text(&mut frame, &[b"42[\"m\",\"", payload.as_bytes(), b"\"]"]);
    let oldest = room.first.get_or_insert_with(|| frame.clone()).clone();
    let mut first = true;
    for member in &mut room.members {
        // A member that has gone is not this server's business.
        let _ = match (fault, std::mem::take(&mut first) && hit) {
            (Fault::Lose, true) => Ok(()),
            (Fault::Duplicate, true) => member.write_all(&frame).and_then(|()| member.write_all(&frame)),
            (Fault::Replay, true) => member.write_all(&frame).and_then(|()| member.write_all(&oldest)),
            (Fault::Swap, true) => {
                room.held = Some(frame.clone());
                Ok(())
            }
            (Fault::Cut, true) => member.shutdown(std::net::Shutdown::Both),
            _ => member.write_all(&frame),
        };
    }
    if seq == HIT + 1
        && let (Some(held), Some(member)) = (room.held.take(), room.members.first_mut())
    {
        let _ = member.write_all(&held);
    }
    room.offset += 1;
    let offset = if hit && fault == Fault::OffsetBack { 1 } else { room.offset };
    Some(json!({"ok": true, "epoch": "e", "offset": offset}))
}

fn say(stream: &mut TcpStream, packet: &str) -> Option<()> {
    let mut frame = Vec::new();
    put_text(&mut frame, &[packet.as_bytes()]);
    stream.write_all(&frame).ok()
}

fn read_head(stream: &mut TcpStream) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    Some(())
}

/// One masked text frame.
fn read_packet(stream: &mut TcpStream) -> Option<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert!(head[0] == 0x81 && head[1] & 0x80 != 0, "clients send masked text");
    let length = match head[1] & 0x7f {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            usize::from(u16::from_be_bytes(length))
        }
        short => usize::from(short),
    };
    let (mut mask, mut payload) = ([0; 4], vec![0; length]);
    stream.read_exact(&mut mask).ok()?;
    stream.read_exact(&mut payload).ok()?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    String::from_utf8(payload).ok()
}
