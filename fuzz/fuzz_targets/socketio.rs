//! Fuzzes the Socket.IO decoder with a sequence of messages, one in a line: `b` makes a binary one. Packets come out within
//! the limits, survive being written as JSON, and being written as msgpack changes them once at most.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{
    engine::Message,
    socketio::{DecodeError, Decoder, DecoderLimits, Packet, Parser},
};

const LIMITS: DecoderLimits = DecoderLimits { attachments: 10, bytes: 2000, name_bytes: 64, json_depth: 64 };
/// Numbers have more than one spelling: what was small may grow by being written.
const WIDE: DecoderLimits = DecoderLimits { bytes: 1 << 20, ..LIMITS };

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::for_parser(Parser::Json, LIMITS);
    for line in data.split(|byte| *byte == b'\n') {
        let message = match line {
            [b'b', data @ ..] => Message::Binary(Bytes::copy_from_slice(data)),
            text => Message::Text(String::from_utf8_lossy(text).into_owned().into()),
        };
        match decoder.decode(message) {
            Ok(Some(packet)) => {
                assert!(!decoder.is_assembling());
                check(packet);
            }
            Ok(None) => assert!(decoder.is_assembling()),
            Err(_) => assert!(!decoder.is_assembling()),
        }
    }
});

fn check(packet: Packet) {
    if let Packet::Event { args, .. } | Packet::Ack { args, .. } = &packet {
        assert!(args.elements().is_ok() && args.attachments.len() <= LIMITS.attachments);
    }
    assert_eq!(again(&packet, Parser::Json), Ok(packet.clone()));
    // Three bytes of JSON are at most nine of msgpack, whatever is named again.
    let size = |parser| packet.encode_as(parser).messages().map(|message| message.len()).sum::<usize>();
    assert!(size(Parser::MsgPack) <= 3 * size(Parser::Json) + 64);
    match again(&packet, Parser::MsgPack) {
        Ok(plain) => assert_eq!(again(&plain, Parser::MsgPack), Ok(plain)),
        // A name that is a number beyond all numbers.
        Err(error) => assert_eq!(error, DecodeError::BadEventName),
    }
}

/// The packet, written and read.
fn again(packet: &Packet, parser: Parser) -> Result<Packet, DecodeError> {
    let mut decoder = Decoder::for_parser(parser, WIDE);
    let mut last = None;
    for message in packet.encode_as(parser).messages() {
        last = decoder.decode(message)?;
    }
    Ok(last.expect("whole packets were written"))
}
