//! Golden vectors: every example of the Engine.IO v4 and Socket.IO v5 specifications and of the official parsers' own
//! tests, through the public interface alone.
//!
//! Invariants: a vector names the section it stands for; what can be written is compared byte by byte in both directions;
//! nothing here is made by the code under test.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that called them")]

#[path = "golden/engine_io.rs"]
mod engine_io;
#[path = "golden/exchange.rs"]
mod exchange;
#[path = "golden/msgpack.rs"]
mod msgpack;
#[path = "golden/socket_io.rs"]
mod socket_io;

use bytes::Bytes;
use protocol::{
    engine::Message,
    socketio::{Args, DecodeError, Decoder, DecoderLimits, Packet, Parser},
};

/// What the reference server takes; the length of names is ours.
const LIMITS: DecoderLimits = DecoderLimits { attachments: 10, bytes: 1_000_000, name_bytes: 200, json_depth: 64 };

/// Bytes as hexadecimal digits in groups, whatever stands between them.
fn hex(groups: &str) -> Bytes {
    let digits: Vec<u8> = groups.chars().filter_map(|digit| digit.to_digit(16)).flat_map(u8::try_from).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// All packets of some messages, or the first error.
fn decode(parser: Parser, messages: impl IntoIterator<Item = Message>) -> Result<Vec<Packet>, DecodeError> {
    let mut decoder = Decoder::for_parser(parser, LIMITS);
    let packets = messages.into_iter().filter_map(|message| decoder.decode(message).transpose()).collect();
    assert!(!decoder.is_assembling(), "a packet waits for its attachments");
    packets
}

fn args(json: &str, attachments: &[&'static [u8]]) -> Args {
    Args { json: json.into(), attachments: attachments.iter().map(|data| Bytes::from_static(data)).collect() }
}

fn connect(nsp: &str, auth: Option<&str>) -> Packet {
    Packet::Connect { nsp: nsp.into(), auth: auth.map(Into::into) }
}

fn disconnect(nsp: &str) -> Packet {
    Packet::Disconnect { nsp: nsp.into() }
}

fn event(nsp: &str, id: Option<u64>, json: &str, attachments: &[&'static [u8]]) -> Packet {
    Packet::Event { nsp: nsp.into(), id, args: args(json, attachments) }
}

fn ack(nsp: &str, id: u64, json: &str, attachments: &[&'static [u8]]) -> Packet {
    Packet::Ack { nsp: nsp.into(), id, args: args(json, attachments) }
}

fn connect_error(nsp: &str, data: &str) -> Packet {
    Packet::ConnectError { nsp: nsp.into(), data: Some(data.into()) }
}
