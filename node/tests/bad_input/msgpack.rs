//! Sessions whose first message is binary speak msgpack: packets in it that are malformed or out of place close the
//! connection, whatever they claim to be (protocol.md 7).

use crate::{
    row::{Outcome, Row, unexpected},
    websocket::ends,
    wire::{Frame, WebSocket, frame},
};

pub(crate) fn rows() -> Vec<Row> {
    [firsts(), packets(), values()].concat()
}

/// `{"type": kind, "nsp": "/", "data": data}`, the last one as it is given.
fn packet(kind: u8, data: &[u8]) -> Vec<u8> {
    [b"\x83\xa4type".as_slice(), &[kind], b"\xa3nsp\xa1/\xa4data", data].concat()
}

/// A binary frame.
fn binary(payload: &[u8]) -> Vec<u8> {
    frame(0x82, payload)
}

/// A session that joined `/` in msgpack.
fn connected(to: std::net::SocketAddr) -> Result<WebSocket, String> {
    let (mut socket, _) = WebSocket::session(to);
    socket.raw(&binary(b"\x82\xa4type\x00\xa3nsp\xa1/"));
    match socket.packet() {
        Frame::Binary(answer) if answer.windows(3).any(|three| three == b"sid") => Ok(socket),
        other => unexpected("CONNECT in msgpack", other),
    }
}

fn firsts() -> Vec<Row> {
    let first = |name: &str, payload: &'static [u8]| {
        Row::new(&format!("msgpack: a session that begins with {name}"), move |node| {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.raw(&binary(payload));
            ends(&mut socket, &[])
        })
    };
    vec![
        first("nothing", b""),
        first("a byte that means nothing", b"\xc1"),
        first("a number", b"\x05"),
        first("an array", b"\x93\x00\xa1/\xc0"),
        first("an empty map", b"\x80"),
        first("a map without a type", b"\x81\xa3nsp\xa1/"),
        first("a map without a namespace", b"\x81\xa4type\x00"),
        first("a map that ends early", b"\x82\xa4type\x00\xa3ns"),
        first("an event", b"\x83\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1x"),
        first("a CONNECT with an array", b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\x91\x01"),
        first("a CONNECT with a string", b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\xa1x"),
        first("a map of 65,535 entries in five bytes", b"\xde\xff\xff\xa1a"),
        first("bytes of 4 GB in six", b"\x81\xa4type\xc6\xff\xff\xff\xff\x00"),
        first("a text of 4 GB in six", b"\x81\xa4type\xdb\xff\xff\xff\xff\x00"),
        first("JSON in bytes", b"40{}"),
        Row::new("msgpack: a session that goes on in JSON", |node| {
            let mut socket = connected(node.clients)?;
            socket.text(r#"42["x"]"#);
            ends(&mut socket, &[])
        }),
        Row::new("msgpack: a session of JSON that goes on in msgpack", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.raw(&binary(&packet(2, b"\x91\xa1x")));
            ends(&mut socket, &[])
        }),
    ]
}

/// A packet of a client in `/` that closes its connection.
fn closing(name: &str, payload: impl Into<Vec<u8>>) -> Row {
    let payload = payload.into();
    Row::new(&format!("msgpack: {name}"), move |node| -> Outcome {
        let mut socket = connected(node.clients)?;
        socket.raw(&binary(&payload));
        ends(&mut socket, &[])
    })
}

fn packets() -> Vec<Row> {
    vec![
        closing("a second CONNECT", b"\x82\xa4type\x00\xa3nsp\xa1/".to_vec()),
        closing("a type for binary events, which it has none for", packet(5, b"\x91\xa1x")),
        closing("a type for binary acks", packet(6, b"\x91\xa1x")),
        closing("an unknown type", packet(7, b"\x91\xa1x")),
        closing("a negative type", packet(0xff, b"\x91\xa1x")),
        closing("a type that is half a number", b"\x82\xa4type\xca\x3f\x00\x00\x00\xa3nsp\xa1/".to_vec()),
        closing("a type that is text", b"\x83\xa4type\xa12\xa3nsp\xa1/\xa4data\x91\xa1x".to_vec()),
        closing("a namespace that is a number", b"\x83\xa4type\x02\xa3nsp\x05\xa4data\x91\xa1x".to_vec()),
        closing("a namespace nobody joined", b"\x83\xa4type\x02\xa3nsp\xa2/x\xa4data\x91\xa1x".to_vec()),
        closing("a CONNECT_ERROR from a client", packet(4, b"\x81\xa7message\xa1x")),
        closing("an event without arguments", b"\x82\xa4type\x02\xa3nsp\xa1/".to_vec()),
        closing("an event whose arguments are a map", packet(2, b"\x80")),
        closing("an event without a name", packet(2, b"\x90")),
        closing("an event named by bytes", packet(2, b"\x91\xc4\x01x")),
        closing("an event named by null", packet(2, b"\x91\xc0")),
        closing("an event named by a map", packet(2, b"\x91\x81\xa1a\x01")),
        closing("a reserved event", packet(2, b"\x91\xaadisconnect")),
        closing("an ack without an id", packet(3, b"\x90")),
        closing("an ack id that is negative", b"\x84\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1x\xa2id\xff".to_vec()),
        closing("an ack id that is text", b"\x84\xa4type\x02\xa3nsp\xa1/\xa4data\x91\xa1x\xa2id\xa15".to_vec()),
        closing("a DISCONNECT with something in it", packet(1, b"\x80")),
        closing("two packets in one message", [packet(2, b"\x91\xa1x"), packet(2, b"\x91\xa1x")].concat()),
    ]
}

fn values() -> Vec<Row> {
    let nested = |open: &[u8]| [&[0x92, 0xa1, b'x'][..], &open.repeat(20_000), &[0xc0]].concat();
    vec![
        closing("arrays nested 20,000 deep", packet(2, &nested(b"\x91"))),
        closing("maps nested 20,000 deep", packet(2, &nested(b"\x81\xa1k"))),
        closing("a text that is no UTF-8", packet(2, b"\x92\xa1x\xa2\xff\xfe")),
        closing("a name that is no UTF-8", packet(2, b"\x91\xa2\xff\xfe")),
        closing("a key that is an array", packet(2, b"\x92\xa1x\x81\x90\x01")),
        closing("an extension nobody knows", packet(2, b"\x92\xa1x\xd4\x63\x00")),
        closing("an array that claims 4 billion values", packet(2, b"\xdd\xff\xff\xff\xff\xa1x")),
        closing("an extension of 4 GB", packet(2, b"\x92\xa1x\xc9\xff\xff\xff\xff\x00\x00")),
        Row::new("msgpack: eleven attachments", |node| -> Outcome {
            let mut socket = connected(node.clients)?;
            let attachments = b"\xc4\x01b".repeat(11);
            socket.raw(&binary(&packet(2, &[b"\x9c\xa1x".as_slice(), &attachments].concat())));
            ends(&mut socket, &[])
        }),
        Row::new("msgpack: keys of others are ignored", |node| -> Outcome {
            let mut socket = connected(node.clients)?;
            let event = b"\x85\xa4type\x02\xa3nsp\xa1/\xa7options\x81\xa8compress\xc3\xa2id\x07\xa4data";
            let arguments = b"\x92\xaaroom:leave\x81\xa4room\xa1r";
            socket.raw(&binary(&[event.as_slice(), arguments].concat()));
            match socket.packet() {
                Frame::Binary(ack) if ack.windows(3).any(|part| part == b"ok\xc3") => Ok(()),
                other => unexpected("an ack in msgpack", other),
            }
        }),
    ]
}
