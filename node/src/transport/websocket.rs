//! One WebSocket's inbound half: bytes are read when there are some, parsed by tungstenite, and given to the shard as messages.
//!
//! Invariants:
//! - a client that says nothing has neither buffer nor parser: a read goes to a buffer that all clients of the thread
//!   share, and a parser lives as long as a message is incomplete;
//! - nothing is ever written to the socket here. What tungstenite wants to say (a pong, the echo of a close) goes through
//!   the connection's wire, so that it cannot land inside a frame that is half written;
//! - the limits are set before the first byte is parsed: of bytes, of fragments, and of the time that a message may be
//!   incomplete; nothing is parsed any more once the wire has ended, and the
//!   socket is let go soon after.

use std::{
    future::pending,
    io::{self, Read, Write},
    ops::ControlFlow,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use bytestring::ByteString;
use protocol::engine::Message;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{
    self,
    error::CapacityError,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::{RATE_MIN, frames::Frames};
use crate::{clock, key::ConnKey, metrics::RejectReason, shard::Shard, wire::Line};

/// What a parser takes at once, at least; larger messages grow it while they are read.
const PARSE_BYTES: usize = 1_000;

/// How long a peer may take to close its side after ours. Closing at once would make its kernel throw away our last words
/// if something of it was still under way.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a connection's WebSocket until it ends, beginning with `rest`, which came with the request for it.
pub(crate) fn start(shard: &Rc<Shard>, key: ConnKey, line: Rc<Line>, rest: &[u8]) {
    let mut inbound = Inbound { shard: shard.clone(), key, line, incomplete: None };
    let heard = inbound.parse(rest);
    shard.attend(inbound.run(heard));
}

/// Whether reading goes on. If not, how the peer ended it: whether as it should, and the code it is told if it broke the
/// rules; nothing if our side ended it.
type Heard = ControlFlow<Option<(bool, Option<u16>)>>;

/// What one WebSocket is read with. There is one for each client: keep it small.
struct Inbound {
    shard: Rc<Shard>,
    key: ConnKey,
    line: Rc<Line>,
    /// There while a message is.
    incomplete: Option<Box<Parser>>,
}

impl Inbound {
    /// Cancel safe: dropping it leaves the connection without a reader, which the shard does only when it stops.
    async fn run(mut self, mut heard: Heard) {
        let line = self.line.clone();
        {
            let mut ended = pin!(line.ended());
            while heard.is_continue() {
                heard = tokio::select! {
                    biased;
                    () = &mut ended => ControlFlow::Break(None),
                    readable = line.tcp().readable() => match readable {
                        Ok(()) => self.read(),
                        Err(_) => ControlFlow::Break(Some((false, None))),
                    },
                    () = overdue(&mut self.incomplete) => self.give_up(RejectReason::Assembly),
                };
            }
        }
        if let ControlFlow::Break(Some((clean, code))) = heard {
            self.shard.with(|gateway| gateway.handle_websocket_closed(self.key, &line, clean, code, clock::now()));
        }
        self.shard.spawn(async move {
            let _ = timeout(GOODBYE_TIMEOUT, line.discard()).await;
        });
    }

    /// Reads and parses what has come, if anything has.
    fn read(&mut self) -> Heard {
        let shard = self.shard.clone();
        shard.with_scratch(|scratch| match self.line.tcp().try_read(scratch) {
            Ok(0) => ControlFlow::Break(Some((false, None))),
            Ok(read) => self.parse(&scratch[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ControlFlow::Continue(()),
            // It took nothing of what we wrote for as long as the kernel was told to be patient.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                shard.with(|gateway| gateway.handle_stalled(self.key, &self.line, clock::now()));
                ControlFlow::Break(None)
            }
            Err(_) => ControlFlow::Break(Some((false, None))),
        })
    }

    /// Ends it for what the client does not finish.
    fn give_up(&self, why: RejectReason) -> Heard {
        self.shard.context().metrics.rejected.of(why).inc();
        ControlFlow::Break(Some((false, Some(1008))))
    }

    /// Takes these bytes apart and gives every message in them to the shard.
    fn parse(&mut self, bytes: &[u8]) -> Heard {
        if bytes.is_empty() {
            return ControlFlow::Continue(());
        }
        let Inbound { shard, key, line, incomplete } = self;
        let limits = &shard.context().config.limits;
        let mut parser = incomplete.take().unwrap_or_else(|| Box::new(Parser::new(bytes.len())));
        parser.frames.pass(bytes);
        parser.allow(shard.message_max(*key));
        let mut stream = Stream { bytes, shard, key: *key, line };
        while !line.has_ended() {
            match parser.next(&mut stream) {
                Ok(Some(message)) => {
                    let Some(message) = message_of(message) else { continue };
                    shard.with(|gateway| gateway.handle_websocket_message(*key, line, message, clock::now()));
                    parser.deadline = None;
                    parser.allow(shard.message_max(*key));
                }
                Ok(None) if parser.frames.is_at_rest() => return ControlFlow::Continue(()),
                Ok(None) if parser.frames.fragments() > limits.fragments => {
                    return self.give_up(RejectReason::Fragments);
                }
                Ok(None) => {
                    parser.expect_more(bytes.len(), limits.assembly_timeout);
                    *incomplete = Some(parser);
                    return ControlFlow::Continue(());
                }
                Err(error) => return ControlFlow::Break(Some(end_of(&error))),
            }
        }
        ControlFlow::Break(None)
    }
}

/// Takes frames apart by the rules of RFC 6455.
struct Parser {
    context: WebSocketContext,
    frames: Frames,
    /// Bytes that a message may have.
    max: usize,
    /// When the message must be complete.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Completes when the rest of a message should have come. Cancel safe.
async fn overdue(incomplete: &mut Option<Box<Parser>>) {
    match incomplete.as_mut().and_then(|parser| parser.deadline.as_mut()) {
        Some(deadline) => deadline.await,
        None => pending().await,
    }
}

impl Parser {
    /// A parser that is given about so many bytes at first.
    fn new(bytes: usize) -> Parser {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = bytes.max(PARSE_BYTES);
        config.write_buffer_size = 0;
        // Only pongs and the echo of a close are written, each at once.
        config.max_write_buffer_size = 4 * 1024;
        let context = WebSocketContext::new(Role::Server, Some(config));
        Parser { context, frames: Frames::default(), max: 0, deadline: None }
    }

    /// From now on a message may have so many bytes.
    fn allow(&mut self, max: usize) {
        if std::mem::replace(&mut self.max, max) != max {
            self.context.set_config(|config| {
                config.max_message_size = Some(max);
                config.max_frame_size = Some(max);
            });
        }
    }

    /// Gives the rest of a message its time: so much from the start, and what its bytes earn.
    fn expect_more(&mut self, bytes: usize, patience: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a read has some kilobytes")]
        let earned = Duration::from_secs_f64(bytes as f64 / RATE_MIN);
        match &mut self.deadline {
            Some(deadline) => {
                let later = deadline.deadline() + earned;
                deadline.as_mut().reset(later);
            }
            None => {
                let start = Instant::from_std(clock::now());
                self.deadline = Some(Box::pin(sleep_until(start + patience + earned)));
            }
        }
    }

    /// The next message, control frames among them; none when the stream has no more bytes now.
    fn next(&mut self, stream: &mut (impl Read + Write)) -> Result<Option<tungstenite::Message>, tungstenite::Error> {
        match self.context.read(stream) {
            Ok(message) => Ok(Some(message)),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn message_of(message: tungstenite::Message) -> Option<Message> {
    match message {
        tungstenite::Message::Text(text) => ByteString::try_from(Bytes::from(text)).ok().map(Message::Text),
        tungstenite::Message::Binary(data) => Some(Message::Binary(data)),
        // Answered by tungstenite itself, or the end that the next poll reports.
        tungstenite::Message::Ping(_)
        | tungstenite::Message::Pong(_)
        | tungstenite::Message::Close(_)
        | tungstenite::Message::Frame(_) => None,
    }
}

/// Whether a WebSocket ended as it should, and the code (RFC 6455, 7.4.1) a client that broke the rules is told.
fn end_of(error: &tungstenite::Error) -> (bool, Option<u16>) {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => (true, None),
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. } | CapacityError::TooManyHeaders) => {
            (false, Some(1009))
        }
        tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => (false, None),
        tungstenite::Error::Protocol(_) => (false, Some(1002)),
        tungstenite::Error::Utf8(_) => (false, Some(1007)),
        tungstenite::Error::Io(_)
        | tungstenite::Error::WriteBufferFull(_)
        | tungstenite::Error::AttackAttempt
        | tungstenite::Error::Url(_)
        | tungstenite::Error::Http(_)
        | tungstenite::Error::HttpFormat(_)
        | tungstenite::Error::Tls(_) => (false, None),
    }
}

/// The socket as tungstenite sees it: reads take what was read already, writes go to the wire.
struct Stream<'a> {
    bytes: &'a [u8],
    shard: &'a Shard,
    key: ConnKey,
    line: &'a Rc<Line>,
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.bytes.read(buffer) }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shard.with(|gateway| gateway.write_control(self.key, self.line, bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::engine::frame::{Opcode, put_masked};

    use super::*;

    /// Bytes that were read; answers go nowhere.
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

    /// Reads as `Inbound` does: with a parser only while something is incomplete.
    fn read(kept: &mut Option<Parser>, bytes: &[u8]) -> Vec<tungstenite::Message> {
        let mut parser = kept.take().unwrap_or_else(|| Parser::new(bytes.len()));
        parser.frames.pass(bytes);
        parser.allow(1_000_000);
        let mut given = Given(bytes);
        let messages = std::iter::from_fn(|| parser.next(&mut given).unwrap()).collect();
        *kept = Some(parser).filter(|parser| !parser.frames.is_at_rest());
        messages
    }

    #[test]
    fn wherever_the_bytes_are_cut_the_same_messages_come_out_and_nothing_is_kept_between_them() {
        let payloads = [0, 126, 125, 4_000, 70_000, 1, 2];
        let (mut bytes, mut borders) = (Vec::new(), vec![0]);
        for (payload, opcode) in payloads.iter().zip([Opcode::Text, Opcode::Binary, Opcode::Ping].iter().cycle()) {
            put_masked(&mut bytes, *opcode, &[&vec![b'x'; *payload]], [1, 2, 3, 4]);
            borders.push(bytes.len());
        }
        let cuts = (0..bytes.len()).filter(|cut| cut % 977 == 0 || borders.iter().any(|at| at.abs_diff(*cut) < 16));
        for cut in cuts {
            let mut kept = None;
            let mut messages = read(&mut kept, &bytes[..cut]);
            assert_eq!(kept.is_none(), borders.contains(&cut), "cut at {cut}");
            messages.extend(read(&mut kept, &bytes[cut..]));
            assert!(kept.is_none(), "cut at {cut}");
            assert!(messages.iter().map(tungstenite::Message::len).eq(payloads), "cut at {cut}");
        }
    }

    #[test]
    fn a_message_in_fragments_comes_out_whole_and_nothing_is_kept_of_it() {
        let (mut kept, mut messages) = (None, Vec::new());
        for frame in [&b"\x01\x82\0\0\0\0he"[..], b"\x89\x80\0\0\0\0", b"\x80\x83\0\0\0\0llo"] {
            assert!(messages.len() < 2);
            messages.extend(read(&mut kept, frame));
        }
        assert!(kept.is_none());
        let expected = [tungstenite::Message::Ping(Bytes::new()), tungstenite::Message::text("hello")];
        assert_eq!(messages, expected);
    }

    /// Thousands of clients are idle: each field here is paid for by all of them. `cargo xtask idle` measures the whole.
    #[test]
    fn what_is_kept_of_an_idle_client_is_small() {
        fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let (task, connection) = (size_of_future(Inbound::run), size_of::<crate::connection::Connection>());
        assert!(task <= 256 && connection <= 704, "a task of {task} bytes and a connection of {connection}");
    }
}
