//! One WebSocket's inbound half: frames read and parsed by tungstenite, messages given to the shard.
//!
//! Invariants: nothing is ever written to the socket here. What tungstenite wants to say (a pong, the echo of a close) goes
//! through the connection's outbox, so that it cannot land inside a frame that is half written; the limits are set before
//! the first byte is parsed.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use protocol::engine::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        error::CapacityError,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{clock, key::ConnKey, shard::Shard};

/// Allocated per connection; larger messages grow it while they are read.
const READ_BUFFER_BYTES: usize = 2 * 1024;

/// Reads a connection's WebSocket until it ends. Cancel safe: dropping it leaves the connection without a reader, which
/// the shard does only when it stops.
pub(crate) async fn read(shard: Rc<Shard>, key: ConnKey, tcp: Rc<TcpStream>, rest: Bytes) {
    let max = shard.context().session.max_payload;
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER_BYTES;
    config.write_buffer_size = 0;
    // Only pongs and the echo of a close are written, each at once.
    config.max_write_buffer_size = 4 * 1024;
    config.max_message_size = Some(max);
    config.max_frame_size = Some(max);
    let stream = Inbound { shard: shard.clone(), key, tcp: tcp.clone() };
    let mut socket = WebSocketStream::from_partially_read(stream, rest.to_vec(), Role::Server, Some(config)).await;
    let (clean, code) = loop {
        match socket.next().await {
            Some(Ok(message)) => {
                let Some(message) = message_of(message) else { continue };
                shard.with(|gateway| gateway.handle_websocket_message(key, message, clock::now()));
            }
            Some(Err(error)) => break end_of(&error),
            None => break (true, None),
        }
    };
    shard.with(|gateway| gateway.handle_websocket_closed(key, &tcp, clean, code, clock::now()));
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

/// The socket as tungstenite sees it: reads come from TCP, writes go to the outbox.
struct Inbound {
    shard: Rc<Shard>,
    key: ConnKey,
    tcp: Rc<TcpStream>,
}

impl AsyncRead for Inbound {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buf.initialize_unfilled()) {
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
        self.shard.with(|gateway| gateway.write_control(self.key, bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
