//! Socket.IO packets that are malformed or out of place: the whole connection is closed (protocol.md 7).

use crate::{
    row::{Row, unexpected},
    websocket::ends,
    wire::{Frame, WebSocket, frame},
};

const NAMESPACES_MAX: usize = 8;

pub(crate) fn rows() -> Vec<Row> {
    [texts(), binaries(), connects()].concat()
}

/// Packets by a client in `/` that close its connection.
fn closing(name: &str, packets: &[&str]) -> Row {
    let packets: Vec<String> = packets.iter().map(|packet| (*packet).to_owned()).collect();
    Row::new(&format!("packet: {name}"), move |node| {
        let mut socket = WebSocket::connected(node.clients);
        packets.iter().for_each(|packet| socket.text(packet));
        ends(&mut socket, &[])
    })
}

fn texts() -> Vec<Row> {
    let deep = format!("42[\"x\",{}1{}]", "[".repeat(20_000), "]".repeat(20_000));
    vec![
        closing("no packet at all", &["4"]),
        closing("an unknown type", &["47"]),
        closing("a letter as type", &["4x"]),
        closing("an event without a payload", &["42"]),
        closing("an event that is an object", &["42{}"]),
        closing("an event that is a string", &[r#"42"x""#]),
        closing("an event without a name", &["42[]"]),
        closing("an event named by an object", &["42[{}]"]),
        closing("an event named by null", &["42[null]"]),
        closing("an event named by true", &["42[true]"]),
        closing("a reserved event: connect", &[r#"42["connect"]"#]),
        closing("a reserved event: connect_error", &[r#"42["connect_error"]"#]),
        closing("a reserved event: disconnect", &[r#"42["disconnect","x"]"#]),
        closing("a reserved event: disconnecting", &[r#"42["disconnecting"]"#]),
        closing("a reserved event: newListener", &[r#"42["newListener"]"#]),
        closing("a reserved event: removeListener", &[r#"42["removeListener"]"#]),
        closing("letters before the payload", &[r#"42abc["x"]"#]),
        closing("JSON that ends early", &[r#"42["x""#]),
        closing("JSON with something behind it", &[r#"42["x"]]"#]),
        closing("JSON with a trailing comma", &[r#"42["x",]"#]),
        closing("JSON with a lone surrogate as name", &[r#"42["\ud800"]"#]),
        closing("JSON nested 20,000 deep", &[&deep]),
        closing("an ack id of 30 digits", &[r#"42999999999999999999999999999999["x"]"#]),
        closing("a negative ack id", &[r#"42-1["x"]"#]),
        closing("an ack without a payload", &["431"]),
        closing("an ack that is an object", &["431{}"]),
        closing("an ack without an id", &["43[]"]),
        closing("a CONNECT_ERROR from a client", &[r#"44{"message":"x"}"#]),
        closing("an event in a namespace it never joined", &[r#"42/other,["x"]"#]),
        closing("an ack in a namespace it never joined", &["43/other,1[]"]),
        closing("a DISCONNECT of a namespace it never joined", &["41/other,"]),
        closing("a DISCONNECT with a payload", &["41{}"]),
        closing("an event after it left", &["41", r#"42["x"]"#]),
        closing("a second CONNECT", &["40"]),
    ]
}

fn binaries() -> Vec<Row> {
    let attached = |name: &str, header: &str, binaries: usize| {
        let header = header.to_owned();
        Row::new(&format!("binary: {name}"), move |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.text(&header);
            (0..binaries).for_each(|_| socket.raw(&frame(0x82, b"data")));
            ends(&mut socket, &[])
        })
    };
    vec![
        attached("no attachments", r#"450-["x"]"#, 0),
        attached("eleven attachments", r#"4511-["x"]"#, 0),
        attached("as many attachments as 64 bits hold", r#"4518446744073709551616-["x"]"#, 0),
        attached("no dash", r#"451["x",{"_placeholder":true,"num":0}]"#, 0),
        attached("no number", r#"45-["x"]"#, 0),
        attached("a placeholder out of range", r#"451-["x",{"_placeholder":true,"num":1}]"#, 1),
        attached("a negative placeholder", r#"451-["x",{"_placeholder":true,"num":-1}]"#, 1),
        attached("a placeholder that is text", r#"451-["x",{"_placeholder":true,"num":"0"}]"#, 1),
        attached("a placeholder without a number", r#"451-["x",{"_placeholder":true}]"#, 1),
        attached("one binary too many", r#"451-["x",{"_placeholder":true,"num":0}]"#, 2),
        attached("a binary ack without an id", r#"461-[{"_placeholder":true,"num":0}]"#, 1),
        Row::new("binary: a text where an attachment belongs", |node| {
            let mut socket = WebSocket::connected(node.clients);
            socket.text(r#"451-["x",{"_placeholder":true,"num":0}]"#);
            socket.text(r#"42["x"]"#);
            ends(&mut socket, &[])
        }),
    ]
}

fn connects() -> Vec<Row> {
    let first = |name: &str, bytes: Vec<u8>| {
        Row::new(&format!("connect: {name}"), move |node| {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.raw(&bytes);
            ends(&mut socket, &[])
        })
    };
    vec![
        first("an auth that is a string", frame(0x81, br#"40"token""#)),
        first("an auth that is an array", frame(0x81, b"40[1]")),
        first("an auth that is cut short", frame(0x81, br#"40{"token":"#)),
        first("an event before it", frame(0x81, br#"42["x"]"#)),
        first("a disconnect before it", frame(0x81, b"41")),
        first("msgpack that is none", frame(0x82, b"\xc1\xc1\xc1")),
        first("msgpack that claims 4 billion entries", frame(0x82, b"\xdf\xff\xff\xff\xff")),
        Row::new("connect: more namespaces than a connection may join", |node| {
            let mut socket = WebSocket::connected(node.clients);
            for n in 1..NAMESPACES_MAX {
                socket.text(&format!("40/n{n},"));
                match socket.packet() {
                    Frame::Text(connect) if connect.starts_with(&format!("40/n{n},{{")) => {}
                    other => return unexpected(format!("CONNECT to /n{n}"), other),
                }
            }
            socket.text("40/more,");
            match socket.packet() {
                Frame::Text(refusal) if refusal.starts_with("44/more,{") && refusal.contains(r#""limit_reached""#) => {
                    Ok(())
                }
                other => unexpected("CONNECT_ERROR limit_reached", other),
            }
        }),
        Row::new("connect: a namespace name that is too long", |node| {
            let (mut socket, _) = WebSocket::session(node.clients);
            socket.text(&format!("40/{},", "n".repeat(300)));
            match socket.packet() {
                Frame::Text(refusal) if refusal.starts_with("44/nnn") && refusal.contains(r#""code":"#) => Ok(()),
                // A name over the limit may also count as a packet that cannot be read.
                Frame::Close(_) | Frame::End => Ok(()),
                other => unexpected("CONNECT_ERROR or the end", other),
            }
        }),
    ]
}
