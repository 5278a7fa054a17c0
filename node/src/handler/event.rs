//! What a client said, as a handler gets it, and the right to answer.
//!
//! Invariants: arguments stay the text that was received, with their attachments shared; an ack names its own socket, so it
//! cannot answer another one, whoever spends it.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use bytestring::ByteString;
use protocol::socketio::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

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
        let args: Vec<&str> = self.elements().iter().skip(1).map(|element| element.get()).collect();
        Args { json: format!("[{}]", args.join(",")).into(), attachments: self.all.attachments.clone() }
    }

    /// The first argument, read as a value.
    ///
    /// # Errors
    /// There is none, or it is something else; the text is for the client.
    pub fn first<T: Deserialize<'a>>(&self) -> Result<T, ReadError> {
        let first = self.elements().get(1).copied().ok_or(ReadError::Missing)?;
        serde_json::from_str(first.get()).map_err(ReadError::Json)
    }

    /// What its placeholders point to.
    pub fn attachments(&self) -> &[Bytes] {
        &self.all.attachments
    }

    /// An array that stands somewhere inside this event, as arguments of their own. Nothing is copied.
    ///
    /// `None` if `array` is no array or stands elsewhere.
    pub fn args_in(&self, array: &RawValue) -> Option<Args> {
        let (whole, part) = (self.all.json.as_bytes().as_ptr_range(), array.get().as_bytes().as_ptr_range());
        let inside = whole.start <= part.start && part.end <= whole.end;
        (inside && array.get().starts_with('['))
            .then(|| Args { json: self.all.json.slice_ref(array.get()), attachments: self.all.attachments.clone() })
    }

    fn elements(&self) -> Vec<&'a RawValue> {
        // What was decoded is an array that starts with the name.
        self.all.elements().unwrap_or_default()
    }
}

/// Why an argument could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// There is no argument.
    Missing,
    /// It is not what was expected.
    Json(serde_json::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Missing => f.write_str("the event needs one object as its argument"),
            ReadError::Json(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {}

/// What a client wants to publish, before it is.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// Where to; `None` is everybody in the namespace.
    pub room: Option<&'a str>,
    /// The event that members are to receive.
    pub event: &'a str,
    /// Its arguments.
    pub args: &'a Args,
    /// Nothing is kept of it, and it has no order.
    pub volatile: bool,
}

/// The right to answer one event, once, from any thread ([`Node::call`](super::Node::call)). Whoever drops it leaves its
/// client waiting; once its socket is gone, the answer goes nowhere.
#[derive(Debug)]
pub struct Ack {
    pub(crate) id: u64,
    pub(crate) of: ByteString,
}

impl Ack {
    pub(crate) fn new(id: u64, of: ByteString) -> Ack {
        Ack { id, of }
    }

    /// The id of the socket that waits for the answer.
    pub fn socket(&self) -> &str {
        &self.of
    }
}
