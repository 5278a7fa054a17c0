//! Fuzzes the msgpack parser with one message: a packet that comes out is within the limits, one that JSON clients can
//! read as well, and the same when it is written and read again.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{
    engine::Message,
    socketio::{Decoder, DecoderLimits, Packet, Parser},
};

const LIMITS: DecoderLimits = DecoderLimits { attachments: 10, bytes: 2000, name_bytes: 64, json_depth: 64 };
/// Head and arguments of a packet are counted together in JSON.
const WIDE: DecoderLimits = DecoderLimits { bytes: 1 << 20, ..LIMITS };

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::for_parser(Parser::MsgPack, LIMITS);
    let Ok(packet) = decoder.decode(Message::Binary(Bytes::copy_from_slice(data))) else { return };
    let packet = packet.expect("a msgpack packet is one message");
    if let Packet::Event { args, .. } | Packet::Ack { args, .. } = &packet {
        assert!(args.attachments.len() <= LIMITS.attachments);
        assert!(args.json.len() + args.attachments.iter().map(Bytes::len).sum::<usize>() <= LIMITS.bytes);
    }
    for parser in [Parser::Json, Parser::MsgPack] {
        let mut decoder = Decoder::for_parser(parser, WIDE);
        let messages = packet.encode_as(parser).messages();
        let last = messages.map(|message| decoder.decode(message)).last();
        assert_eq!(last, Some(Ok(Some(packet.clone()))), "{parser:?}");
    }
});
