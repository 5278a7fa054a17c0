//! A lean Socket.IO client as a value: bytes in, events and bytes out.
//!
//! It parses only what a load test needs and keeps no buffer while nothing is in flight, so that one process can hold as
//! many of them as it may hold sockets. No socket, clock or randomness in here: the worker reads and writes for it.
//!
//! - `handle_bytes` reports every event of the bytes it was given, in order, and keeps only an unfinished rest.
//! - After an error the client is over; the worker closes its sockets.

mod dialect;
mod polling;
mod session;
mod websocket;

pub(crate) use dialect::{Answer, Dialect, PublishTemplate};
pub(crate) use session::Script;

use std::rc::Rc;

use protocol::engine::frame::FrameError;
use serde::{Deserialize, Serialize};

use polling::Polling;
use session::Session;
use websocket::WebSocket;

/// Where the server listens for Engine.IO.
const PATH: &str = "/socket.io/?EIO=4";
/// An HTTP answer whose head is longer than this is not one.
const HTTP_HEAD_MAX: usize = 16 * 1024;

/// How packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// One connection per client.
    #[value(name = "websocket")]
    WebSocket,
    /// Two HTTP connections per client: one to wait for packets, one to send them.
    Polling,
}

/// One of the TCP connections of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The WebSocket, or the connection that polls.
    Main,
    /// The connection that posts; only polling has it.
    Post,
}

impl Channel {
    /// Both, in the order of their index.
    pub(crate) const ALL: [Channel; 2] = [Channel::Main, Channel::Post];

    /// 0 or 1.
    pub(crate) fn index(self) -> usize {
        match self {
            Channel::Main => 0,
            Channel::Post => 1,
        }
    }
}

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// The namespace is connected; a member's join request is on its way.
    Connected,
    /// The member is in its room.
    Joined {
        /// How many history items came with the answer.
        history: u32,
    },
    /// An event packet, from its type digit on.
    Message(&'a [u8]),
    /// An answer to a publish.
    Answer {
        /// The id the publish had.
        id: u64,
        /// The JSON array of the answer.
        body: &'a [u8],
    },
}

/// Why a client is over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The HTTP answer is not what was asked for.
    #[error("http: {0}")]
    Http(String),
    /// The WebSocket stream is broken.
    #[error("websocket: {0}")]
    Frame(#[from] FrameError),
    /// A packet that is none.
    #[error("bad packet from the server")]
    Packet,
    /// The namespace or the room said no.
    #[error("refused: {0}")]
    Refused(String),
    /// The server ended the session.
    #[error("closed by the server")]
    Closed,
}

/// One Socket.IO connection.
#[derive(Debug)]
pub(crate) struct Client {
    session: Session,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    WebSocket(WebSocket),
    Polling(Box<Polling>),
}

impl Client {
    /// A client that follows `script`; its first request is ready to be written on the main channel.
    pub(crate) fn new(transport: Transport, script: Rc<Script>) -> Client {
        let wire = match transport {
            Transport::WebSocket => Wire::WebSocket(WebSocket::new(script.host())),
            Transport::Polling => Wire::Polling(Box::new(Polling::new(script.host()))),
        };
        Client { session: Session::new(script), wire }
    }

    /// Takes bytes that arrived on `channel`.
    ///
    /// # Errors
    /// The connection cannot go on; close its sockets.
    pub(crate) fn handle_bytes(
        &mut self,
        channel: Channel,
        bytes: &[u8],
        on_event: &mut impl FnMut(Event<'_>),
    ) -> Result<(), ClientError> {
        match &mut self.wire {
            Wire::WebSocket(websocket) => websocket.handle_bytes(bytes, &mut self.session, on_event),
            Wire::Polling(polling) => polling.handle_bytes(channel, bytes, &mut self.session, on_event),
        }
    }

    /// Whether the end of the stream on `channel` is harmless: an idle HTTP connection that can be opened again.
    pub(crate) fn handle_end(&mut self, channel: Channel) -> Result<(), ClientError> {
        match &mut self.wire {
            Wire::WebSocket(_) => Err(ClientError::Closed),
            Wire::Polling(polling) => polling.handle_end(channel),
        }
    }

    /// Sends one Engine.IO packet, the concatenation of `parts`.
    pub(crate) fn send(&mut self, parts: &[&[u8]]) {
        match &mut self.wire {
            Wire::WebSocket(websocket) => websocket.send(parts),
            Wire::Polling(polling) => polling.send(parts),
        }
    }

    /// Asks for the room again, if the answer to the first request is still missing. Says whether it did.
    pub(crate) fn join_again(&mut self) -> bool {
        let Some(join) = self.session.join_again() else { return false };
        self.send(&[&join]);
        true
    }

    /// Bytes to write on `channel`; what was written is to be drained.
    pub(crate) fn output(&mut self, channel: Channel) -> &mut Vec<u8> {
        match &mut self.wire {
            Wire::WebSocket(websocket) => websocket.output(),
            Wire::Polling(polling) => polling.output(channel),
        }
    }
}

#[cfg(test)]
mod tests;
