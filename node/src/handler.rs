//! Application logic inside the process: what a program that embeds a node does with its clients' events.
//!
//! How to read it: the trait [`Handler`] here; [`Socket`] is what its methods are given, and everything a program can do
//! starts there; [`Broadcast`] is how it reaches many; [`Asked`] is how it learns what became of something; [`Node`] is how
//! other threads come back to a socket, and with [`Speech`] speak without one. The built-in events (`builtin`) are written on nothing else.
//!
//! Invariants:
//! - calls about one connection come one at a time, in the order its messages arrived, on the thread of its shard; that
//!   thread serves thousands of other clients meanwhile, so a handler must not block;
//! - calls never nest: what a handler starts, an answer or the end of a socket, is told when it has returned;
//! - what a handler says to one socket leaves in the order it was said, behind the answer to CONNECT;
//! - an event is answered at most once: an [`Ack`] is spent by answering;
//! - a panic in a handler closes the connection it was called for, is counted, and does nothing else.

mod audience;
mod broadcast;
mod event;
mod handshake;
mod identity;
mod node;
mod outcome;
mod refused;
mod reply;
mod socket;
mod sockets;
mod speech;

pub use protocol::{
    engine::{Message, session::CloseReason},
    socketio::Args,
};

pub(crate) use self::{
    audience::{Audience, text},
    broadcast::ID_BYTES_MAX,
    handshake::Headers,
    outcome::{Joined, Outcome, Shows, Then},
};
pub use self::{
    broadcast::Broadcast,
    event::{Ack, Event, Publish, ReadError},
    handshake::Handshake,
    identity::{INFO_BYTES_MAX, Identity},
    node::{CallError, Node},
    outcome::{Asked, History, Item, Present, Published},
    refused::{Code, Refused, SayError},
    reply::Reply,
    socket::{Join, Page, Socket},
    sockets::{Listing, Reached, SocketInfo, Sockets},
    speech::Speech,
};
pub use crate::gateway::{Answers, AskError};

/// What an embedding program does. Everything has a default, and the defaults together are a node without a program:
/// every namespace is open to everybody, and of the events only the built-in ones are handled.
///
/// One value serves all shards at once, hence `Sync`. An event is first looked up among the built-in ones (`room:join` and
/// its like, `interface.md` 1.1); what is not built in comes here; what is not handled here is `unhandled_event`.
pub trait Handler: Send + Sync + 'static {
    /// Which protocol the program speaks. Asked once, when the node starts.
    fn layer(&self) -> Layer {
        Layer::SocketIo
    }

    /// The node is about to serve clients. Who wants to speak unasked, later or from another thread, keeps `node`.
    fn on_start(&self, _node: &Node) {}

    /// Headers of the request that opens a connection which [`Handler::admit`] wants to read, such as `cookie` or
    /// `authorization`. Asked once, when the node starts. Every connection keeps a copy of these, and of no others.
    fn headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether a namespace exists; who asks for one that does not is told `Invalid namespace`.
    fn accepts(&self, _namespace: &str) -> bool {
        true
    }

    /// Who a client is, or why it may not enter the namespace: it is told so, and its connection goes on.
    ///
    /// # Errors
    /// The client may not enter.
    fn admit(&self, _client: &Handshake<'_>) -> Result<Identity, Refused> {
        Ok(Identity::default())
    }

    /// A socket joined its namespace. `auth` is the JSON object its client sent along, as text.
    fn on_connect(&self, _socket: &mut Socket<'_>, _auth: Option<&str>) {}

    /// A socket sent an event. `ack` is there if its client waits for an answer.
    fn on_event(&self, _socket: &mut Socket<'_>, _event: &Event<'_>, ack: Option<Ack>) -> Handled {
        Handled::No(ack)
    }

    /// A client asks to join a room (`room:join`).
    fn on_join(&self, _socket: &mut Socket<'_>, _room: &str) -> Decision {
        Decision::Default
    }

    /// A client asks to publish (`room:publish`).
    fn on_publish(&self, _socket: &mut Socket<'_>, _publish: &Publish<'_>) -> Decision {
        Decision::Default
    }

    /// A socket is about to be gone. Nothing reaches it any more, but it still has its user and its rooms, so that the
    /// others in them can be told. Not called for those that the end of the process cuts off.
    fn on_disconnect(&self, _socket: &mut Socket<'_>, _why: Departure) {}

    /// A connection sent an Engine.IO message; what is returned goes back to it. Called at [`Layer::EngineIo`] only.
    fn on_message(&self, _message: Message) -> Option<Message> {
        None
    }
}

/// The handler of a node that embeds no program.
#[derive(Clone, Copy, Debug)]
pub struct NoHandler;

impl Handler for NoHandler {}

/// The protocol whose messages a handler gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Namespaces, events and acknowledgements: everything but [`Handler::on_message`].
    SocketIo,
    /// Bare messages, text or binary: [`Handler::on_message`] and nothing else. There are no sockets and no rooms, and no
    /// client has to join a namespace in time.
    EngineIo,
}

/// What became of an event.
#[derive(Debug)]
#[must_use]
pub enum Handled {
    /// It was this handler's, which answered if there was something to answer.
    Yes,
    /// Nobody knows it. The ack is given back, and its client is told `unhandled_event` (`interface.md` 1.1).
    No(Option<Ack>),
}

/// What a program says to something that a client wants to do.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// What the configuration says.
    Default,
    /// It may, whatever the configuration says.
    Allow,
    /// It may not, and is told why.
    Refuse(Refused),
}

/// Why a socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its client left the namespace; the connection may go on.
    Left,
    /// The program sent it away ([`Socket::disconnect`]); the connection goes on.
    Dismissed,
    /// The connection ended.
    Closed(CloseReason),
}
