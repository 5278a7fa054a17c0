//! Fuzzes the WebSocket stream of a client, cut anywhere: a parser that is made anew between messages reads what one that
//! was kept reads, up to the first error or close.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::fuzz_target;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

#[path = "../../node/src/transport/frames.rs"]
mod frames;

use frames::Frames;

const MESSAGE_MAX: usize = 2_000;

/// Bytes that came; what is written goes nowhere.
struct Given<'a>(&'a [u8]);

impl Read for Given<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Given<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader of one client.
struct Reader {
    context: Option<WebSocketContext>,
    frames: Frames,
    seen: Vec<Message>,
    ended: bool,
}

impl Reader {
    fn new() -> Reader {
        Reader { context: None, frames: Frames::default(), seen: Vec::new(), ended: false }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut given = Given(bytes);
        self.frames.pass(bytes);
        let context = self.context.get_or_insert_with(|| {
            let config =
                WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
            WebSocketContext::new(Role::Server, Some(config))
        });
        while !self.ended {
            match context.read(&mut given) {
                Ok(message) => {
                    self.ended |= message.is_close();
                    self.seen.push(message);
                }
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }
}

// The first byte says where the stream is cut, again and again.
fuzz_target!(|data: &[u8]| {
    let Some((step, stream)) = data.split_first() else { return };
    let mut whole = Reader::new();
    whole.read(stream);
    let (mut kept, mut anew) = (Reader::new(), Reader::new());
    for piece in stream.chunks(usize::from(*step).max(1)) {
        kept.read(piece);
        anew.read(piece);
        if anew.frames.is_at_rest() {
            anew.context = None;
        }
    }
    assert_eq!((&kept.seen, kept.ended), (&whole.seen, whole.ended), "cut every {step}");
    assert_eq!((&anew.seen, anew.ended), (&whole.seen, whole.ended), "made anew, cut every {step}");
    if !whole.ended {
        let counts = |frames: &Frames| (frames.fragments(), frames.is_at_rest());
        assert_eq!(counts(&whole.frames), counts(&kept.frames));
    }
});
