//! WebSocket frames that break RFC 6455, and Engine.IO packets that no client may send by WebSocket.

use std::time::{Duration, SystemTime};

use crate::{
    canary::is_ok,
    node::CONNECT_TIMEOUT,
    row::{Outcome, Row, unexpected},
    wire::{Frame, WebSocket, frame},
};

const MAX_PAYLOAD: usize = 1_000_000;
/// Sooner than a node that closes only because it waited for the client long enough.
const AT_ONCE: Duration = Duration::from_secs(4);
/// Who was told that it is over has five seconds to hang up; a loaded machine is late.
const LET_GO: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);
const PROTOCOL_ERROR: &[u16] = &[1002];
const NOT_UTF8: &[u16] = &[1007];
const TOO_BIG: &[u16] = &[1009];

/// Reads until the connection is closed; `codes` are the close codes that are right, none of them means any. The node does
/// not wait for the client to hang up: nothing follows its close.
pub(crate) fn ends(socket: &mut WebSocket, codes: &[u16]) -> Outcome {
    match socket.packet() {
        Frame::Close(Some(code)) if codes.is_empty() || codes.contains(&code) => {}
        Frame::Close(None) | Frame::End if codes.is_empty() => {}
        other => return unexpected(format!("a close with one of {codes:?}"), other),
    }
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let begin = now();
    match (socket.next(), now().saturating_sub(begin)) {
        (Frame::End, waited) if waited < AT_ONCE => Ok(()),
        other => unexpected("the end right behind the close", other),
    }
}

pub(crate) fn rows() -> Vec<Row> {
    [frames(), sizes(), packets(), harmless()].concat()
}

/// Bytes that end the connection with one of these codes.
fn ending(name: &str, bytes: impl Into<Vec<u8>>, codes: &'static [u16]) -> Row {
    let bytes = bytes.into();
    Row::new(&format!("websocket: {name}"), move |node| {
        let mut socket = WebSocket::connected(node.clients);
        socket.raw(&bytes);
        ends(&mut socket, codes)
    })
}

pub(crate) fn frames() -> Vec<Row> {
    let unmasked = b"\x81\x0242".to_vec();
    vec![
        ending("a frame without a mask", unmasked, PROTOCOL_ERROR),
        ending("a reserved bit", frame(0xc1, b"3"), PROTOCOL_ERROR),
        ending("all reserved bits", frame(0xf1, b"3"), PROTOCOL_ERROR),
        ending("an unknown data opcode", frame(0x83, b"3"), PROTOCOL_ERROR),
        ending("an unknown control opcode", frame(0x8b, b""), PROTOCOL_ERROR),
        ending("a continuation of nothing", frame(0x80, b"3"), PROTOCOL_ERROR),
        ending("a text inside a fragmented text", [frame(0x01, b"4"), frame(0x81, b"3")].concat(), PROTOCOL_ERROR),
        ending("a fragmented ping", frame(0x09, b"x"), PROTOCOL_ERROR),
        ending("a ping of 126 bytes", frame(0x89, &[b'x'; 126]), PROTOCOL_ERROR),
        ending("a text that is no UTF-8", frame(0x81, b"4\xff\xfe"), NOT_UTF8),
        ending("a text cut inside a letter", frame(0x81, b"4\xe2\x82"), NOT_UTF8),
        ending("a close of one byte", frame(0x88, b"\x03"), PROTOCOL_ERROR),
        ending("a close with a code below 1000", frame(0x88, b"\x00\x01"), PROTOCOL_ERROR),
        ending("a close with a reserved code", frame(0x88, b"\x03\xed"), PROTOCOL_ERROR),
        ending("a close with a reason that is no UTF-8", frame(0x88, b"\x03\xe8\xff\xff"), &[1007, 1002]),
    ]
}

fn sizes() -> Vec<Row> {
    let claims = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[1, 2, 3, 4], b"4"].concat();
    let part = vec![b'4'; MAX_PAYLOAD / 2 + 1];
    vec![
        ending("a message of one byte too many", frame(0x81, &vec![b'4'; MAX_PAYLOAD + 1]), TOO_BIG),
        ending("a frame that claims a terabyte", claims(1 << 40), TOO_BIG),
        ending("a frame that claims more than 63 bits", claims(u64::MAX), &[1002, 1009]),
        ending("fragments that add up to too much", [frame(0x01, &part), frame(0x80, &part)].concat(), TOO_BIG),
    ]
}

/// Engine.IO packets: the connection ends, by which code is free.
fn packets() -> Vec<Row> {
    vec![
        ending("an empty packet", frame(0x81, b""), &[]),
        ending("an unknown packet type", frame(0x81, b"9"), &[]),
        ending("a letter as packet type", frame(0x81, b"x"), &[]),
        ending("a ping from a client", frame(0x81, b"2"), &[]),
        ending("a close packet", frame(0x81, b"1"), &[]),
        ending("a binary message that nothing announced", frame(0x82, b"\x01\x02"), &[]),
        ending("an empty binary message that nothing announced", frame(0x82, b""), &[]),
        Row::new("websocket: a connection that joins no namespace in time", |node| {
            let begin = SystemTime::UNIX_EPOCH.elapsed().unwrap();
            let (mut socket, _) = WebSocket::session(node.clients);
            ends(&mut socket, &[])?;
            let waited = SystemTime::UNIX_EPOCH.elapsed().unwrap().saturating_sub(begin);
            if waited + CONNECT_TIMEOUT / 10 < CONNECT_TIMEOUT {
                return unexpected(CONNECT_TIMEOUT, waited);
            }
            Ok(())
        }),
    ]
}

/// A packet with no meaning from a client: whether it is ignored or ends the connection is free.
fn tolerated(name: &str, packet: &'static str) -> Row {
    Row::new(&format!("websocket: {name}"), move |node| {
        let mut socket = WebSocket::connected(node.clients);
        socket.text(packet);
        socket.text(r#"427["room:leave",{"room":"r"}]"#);
        match socket.packet() {
            Frame::Text(ack) if is_ok(&ack, 7) => Ok(()),
            Frame::Close(_) | Frame::End => Ok(()),
            other => unexpected("an ack or the end", other),
        }
    })
}

fn harmless() -> Vec<Row> {
    vec![
        tolerated("an open packet from a client", "0{}"),
        tolerated("an upgrade packet without an upgrade", "5"),
        tolerated("a noop from a client", "6"),
        tolerated("a pong that nobody asked for", "3"),
        Row::new("websocket: half a frame and then nothing", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&frame(0x81, b"42[\"x\"]")[..7]);
            drop(socket);
            Ok(())
        }),
        Row::new("websocket: a ping between two fragments is answered and the message counts", |node| {
            let mut socket = WebSocket::connected(node.clients);
            let event = br#"427["room:leave",{"room":"r"}]"#;
            socket.raw(&[frame(0x01, &event[..5]), frame(0x89, b"who"), frame(0x80, &event[5..])].concat());
            match (socket.packet(), socket.packet()) {
                (Frame::Pong(data), Frame::Text(ack)) if data == b"who" && is_ok(&ack, 7) => Ok(()),
                other => unexpected("a pong and an ack", other),
            }
        }),
        Row::new("websocket: who does not hang up after the close is let go", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&frame(0xf1, b"3"));
            ends(&mut socket, PROTOCOL_ERROR)?;
            let pings = LET_GO.as_millis() / PAUSE.as_millis();
            let refused = (0..pings).any(|_| {
                std::thread::sleep(PAUSE);
                !socket.takes(&frame(0x89, b"still here"))
            });
            if refused { Ok(()) } else { unexpected("a socket that the node has let go of", "one that takes bytes") }
        }),
        Row::new("websocket: a close is echoed", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&frame(0x88, b"\x03\xe8"));
            ends(&mut socket, &[1000])
        }),
    ]
}
