//! Fuzzes the way from JSON to msgpack that a whole room shares: frames become frames of the same packets, or nothing.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{
    engine::{Message, frame},
    socketio::{DecodeError, Decoder, DecoderLimits, Packet, Parser, transcode},
};

/// Nothing is refused that was let in before; the depth is what msgpack is written with.
const WIDE: DecoderLimits =
    DecoderLimits { attachments: usize::MAX, bytes: 1 << 20, name_bytes: usize::MAX, json_depth: 128 };

// A line is a text message, or behind `b` a binary one, behind `r` frames as they are.
fuzz_target!(|data: &[u8]| {
    let mut frames = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        match line {
            [b'r', raw @ ..] => frames.extend_from_slice(raw),
            [b'b', data @ ..] => frame::put_binary(&mut frames, data),
            text => frame::put_text(&mut frames, &[b"4", String::from_utf8_lossy(text).as_bytes()]),
        }
    }
    let frames = Bytes::from(frames);
    let Ok(json) = transcode(&frames, Parser::Json) else {
        assert!(transcode(&frames, Parser::MsgPack).is_err(), "good in one parser only");
        return;
    };
    let Ok(msgpack) = transcode(&frames, Parser::MsgPack) else { panic!("good in one parser only") };
    let packets = read(&frames, Parser::Json);
    assert!(packets.is_ok());
    assert_eq!(read(&json, Parser::Json), packets);
    assert!(msgpack.len() <= 3 * frames.len() + 64 * frames.len().min(1 << 16));
    match (read(&msgpack, Parser::MsgPack), packets) {
        // Numbers beyond all numbers and attachments that are named again change once.
        (Ok(plain), Ok(packets)) => {
            assert_eq!(plain.len(), packets.len());
            let mut again = Vec::new();
            plain.iter().for_each(|packet| packet.encode().put_frames(&mut again));
            let again = transcode(&again.into(), Parser::MsgPack).expect("what was read");
            assert_eq!(read(&again, Parser::MsgPack), Ok(plain));
        }
        // An event whose name is a number beyond all numbers.
        (Err(error), _) => assert_eq!(error, DecodeError::BadEventName),
        (Ok(_), Err(error)) => panic!("{error} only in JSON"),
    }
});

fn read(frames: &Bytes, parser: Parser) -> Result<Vec<Packet>, DecodeError> {
    let mut decoder = Decoder::for_parser(parser, WIDE);
    let messages: Result<Vec<Message>, _> = frame::messages(frames).collect();
    let messages = messages.expect("frames that were written here");
    messages.into_iter().filter_map(|message| decoder.decode(message).transpose()).collect()
}
