//! One WebSocket's inbound half: frames read and parsed by tungstenite, messages given to the shard.
//!
//! Invariants: nothing is ever written to the socket here. What tungstenite wants to say (a pong, the echo of a close) goes
//! through the connection's wire, so that it cannot land inside a frame that is half written; the limits are set before
//! the first byte is parsed; nothing is parsed any more once the wire has ended, and the socket is let go soon after.

use std::{
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use protocol::engine::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        error::CapacityError,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{clock, key::ConnKey, shard::Shard, wire::Line};

/// Allocated per connection; larger messages grow it while they are read.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// How long a peer may take to close its side after ours. Closing at once would make its kernel throw away our last words
/// if something of it was still under way.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a connection's WebSocket until it ends. Cancel safe: dropping it leaves the connection without a reader, which
/// the shard does only when it stops.
pub(crate) async fn read(shard: Rc<Shard>, key: ConnKey, line: Rc<Line>, rest: Bytes) {
    let max = shard.context().session.max_payload;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER_BYTES;
    config.write_buffer_size = 0;
    // Only pongs and the echo of a close are written, each at once.
    config.max_write_buffer_size = 4 * 1024;
    config.max_message_size = Some(max);
    config.max_frame_size = Some(max);
    let stream = Inbound { shard: shard.clone(), key, line: line.clone() };
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Server, Some(config)).await;
    let mut ended = pin!(line.ended());
    let end = loop {
        let next = tokio::select! {
            biased;
            () = &mut ended => break None,
            next = socket.next() => next,
        };
        match next {
            Some(Ok(message)) => {
                let Some(message) = message_of(message) else { continue };
                shard.with(|gateway| gateway.handle_websocket_message(key, &line, message, clock::now()));
            }
            Some(Err(error)) => break Some(end_of(&error)),
            None => break Some((true, None)),
        }
    };
    if let Some((clean, code)) = end {
        shard.with(|gateway| gateway.handle_websocket_closed(key, &line, clean, code, clock::now()));
    }
    let line = line.clone();
    shard.spawn(async move {
        let _ = timeout(GOODBYE_TIMEOUT, line.discard()).await;
    });
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

/// The socket as tungstenite sees it: reads come from TCP, writes go to the wire.
struct Inbound {
    shard: Rc<Shard>,
    key: ConnKey,
    line: Rc<Line>,
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.line.tcp().poll_read_ready(cx))?;
            match self.line.tcp().try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shard.with(|gateway| gateway.write_control(self.key, &self.line, bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
