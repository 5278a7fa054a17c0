//! Application logic inside the process: what a program that embeds a node does with its clients' events.
//!
//! Invariants:
//! - calls about one connection come one at a time, in the order its messages arrived, on the thread of its shard; that
//!   thread serves thousands of other clients meanwhile, so a handler must not block;
//! - what a handler says leaves in the order it was said, behind the answer to CONNECT;
//! - an event is answered at most once: an [`Ack`] is spent by answering, and is good for its own socket only;
//! - a panic in a handler closes the connection it was called for, and nothing else.

use std::borrow::Cow;

use bytestring::ByteString;
use protocol::socketio::{ArgsError, Packet, RESERVED_EVENTS};
pub use protocol::{
    engine::{Message, session::CloseReason},
    socketio::Args,
};

use crate::{connection::Connection, envelope};

/// What an embedding program does. Everything has a default, and the defaults together are a node without a program:
/// every namespace is open, and of the events only the built-in ones are handled.
///
/// One value serves all shards at once, hence `Sync`. The built-in events (`room:join` and its like, `interface.md` 1.1)
/// are handled before anybody is asked.
pub trait Handler: Send + Sync + 'static {
    /// Which protocol the program speaks. Asked once, when the node starts.
    fn layer(&self) -> Layer {
        Layer::SocketIo
    }

    /// Whether clients may join a namespace; those who may not are told `Invalid namespace`.
    fn accepts(&self, _namespace: &str) -> bool {
        true
    }

    /// A socket joined its namespace. `auth` is the JSON object its client sent along, as text.
    fn on_connect(&self, _socket: &mut Socket<'_>, _auth: Option<&str>) {}

    /// A socket sent an event. `ack` is there if its client waits for an answer.
    fn on_event(&self, _socket: &mut Socket<'_>, _event: &Event<'_>, ack: Option<Ack>) -> Handled {
        Handled::No(ack)
    }

    /// A socket is gone; nothing reaches it any more. Not called for those that the end of the process cuts off.
    fn on_disconnect(&self, _socket: &Id, _why: Departure) {}

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

/// Why a socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its client left the namespace; the connection may go on.
    Left,
    /// The connection ended.
    Closed(CloseReason),
}

/// Which socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// The id its client sees.
    pub socket: ByteString,
    /// Its namespace, `/` or `/name`.
    pub namespace: ByteString,
}

/// An event, its name apart from its arguments.
#[derive(Debug)]
pub struct Event<'a> {
    name: Cow<'a, str>,
    all: &'a Args,
}

impl<'a> Event<'a> {
    pub(crate) fn new(name: Cow<'a, str>, all: &'a Args) -> Event<'a> {
        Event { name, all }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments without the name: a JSON array, and the attachments its placeholders point to (not copied).
    pub fn args(&self) -> Args {
        // What was decoded is an array that starts with the name.
        let elements = self.all.elements().unwrap_or_default();
        let args: Vec<&str> = elements.iter().skip(1).map(|element| element.get()).collect();
        Args { json: format!("[{}]", args.join(",")).into(), attachments: self.all.attachments.clone() }
    }
}

/// The right to answer one event, once. Whoever drops it leaves its client waiting.
#[derive(Debug)]
pub struct Ack {
    id: u64,
    of: ByteString,
}

impl Ack {
    pub(crate) fn new(id: u64, of: ByteString) -> Ack {
        Ack { id, of }
    }
}

/// A socket while a handler is called about it.
pub struct Socket<'a> {
    id: Id,
    connection: &'a mut Connection,
}

impl<'a> Socket<'a> {
    pub(crate) fn new(id: Id, connection: &'a mut Connection) -> Socket<'a> {
        Socket { id, connection }
    }

    /// The id its client sees.
    pub fn id(&self) -> &str {
        &self.id.socket
    }

    /// Its namespace, `/` or `/name`.
    pub fn namespace(&self) -> &str {
        &self.id.namespace
    }

    /// Sends this socket an event. `args` are those behind the name.
    ///
    /// # Errors
    /// The client could not read it, see [`SayError`]. Nothing was sent.
    pub fn emit(&mut self, event: &str, args: &Args) -> Result<(), SayError> {
        if RESERVED_EVENTS.contains(&event) {
            return Err(SayError::ReservedName);
        }
        let elements = sendable(args)?;
        let args = envelope::args(event, &elements, args.attachments.clone());
        self.connection.send_packet(&Packet::Event { nsp: self.id.namespace.clone(), id: None, args });
        Ok(())
    }

    /// Answers an event of this socket.
    ///
    /// # Errors
    /// The client could not read it, see [`SayError`]. Nothing was sent, and the event stays unanswered.
    pub fn ack(&mut self, ack: Ack, args: &Args) -> Result<(), SayError> {
        let Ack { id, of } = ack;
        sendable(args)?;
        if of != self.id.socket {
            return Err(SayError::ForeignAck);
        }
        let packet = Packet::Ack { nsp: self.id.namespace.clone(), id, args: args.clone() };
        self.connection.send_packet(&packet);
        Ok(())
    }
}

/// The elements of arguments that the stock client can read.
fn sendable(args: &Args) -> Result<Vec<&serde_json::value::RawValue>, SayError> {
    if args.attachments.len() > envelope::ATTACHMENTS_MAX {
        return Err(SayError::TooManyAttachments);
    }
    Ok(args.elements()?)
}

/// Why something could not be said to a socket. It is the handler's mistake; the socket goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SayError {
    /// The text is not a JSON array.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The stock client takes ten in one packet.
    #[error("more attachments than a client takes in one packet")]
    TooManyAttachments,
    /// The name means something to the client library itself.
    #[error("the event's name is reserved")]
    ReservedName,
    /// The ack belongs to an event of another socket.
    #[error("the ack belongs to another socket")]
    ForeignAck,
}
