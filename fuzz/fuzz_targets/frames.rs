//! Fuzzes the reader of WebSocket frames: it stays inside its input, moves on, and reads back what it is written.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::engine::frame;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((_, payload, consumed))) = frame::next_frame(rest) {
        assert!(payload.start >= 2 && payload.start <= payload.end && payload.end == consumed);
        rest = &rest[consumed..];
    }
    let mut messages = frame::messages(&Bytes::copy_from_slice(data));
    let good: Vec<_> = messages.by_ref().map_while(Result::ok).collect();
    assert_eq!(messages.next(), None, "an error is the end");
    assert_eq!(messages.remaining(), 0);
    let mut written = Vec::new();
    good.iter().for_each(|message| frame::put_message(&mut written, message));
    assert_eq!(frame::messages(&written.into()).collect::<Result<Vec<_>, _>>(), Ok(good));
});
