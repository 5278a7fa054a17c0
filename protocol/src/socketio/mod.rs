//! Socket.IO v5 packets: what one Engine.IO message, or a header and its attachments, means (protocol.md 7), whether the
//! client writes JSON or msgpack.
//!
//! Invariants: arguments are raw JSON, checked for syntax and depth once and never rebuilt, also when they came in msgpack; a `Packet` that comes out
//! of the `Decoder` obeys every rule of the protocol, so nothing behind it checks them again.

mod codec;
mod decoder;
mod encoded;
mod json;
mod msgpack;

use std::borrow::Cow;

use bytes::Bytes;
use bytestring::ByteString;
use serde_json::value::RawValue;

pub use self::{
    codec::encode_event,
    decoder::{DecodeError, Decoder, DecoderLimits},
    encoded::{Encoded, Parser, TranscodeError, transcode},
    json::{JsonError, Placeholder, placeholders},
    msgpack::MsgPackError,
};

/// The namespace that is left out on the wire.
pub const ROOT_NAMESPACE: &str = "/";

/// Names that mean something to the client library itself; nobody may send an event of such a name.
pub const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// The arguments of an event (its name is the first one) or of an acknowledgement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// A JSON array as text. Binary arguments are `{"_placeholder":true,"num":i}`, an index into `attachments`.
    pub json: ByteString,
    /// The binary arguments, in the order they were sent.
    pub attachments: Vec<Bytes>,
}

impl Args {
    /// Arguments without binary among them.
    pub fn text(json: impl Into<ByteString>) -> Args {
        Args { json: json.into(), attachments: Vec::new() }
    }

    /// Bytes of text and attachments.
    pub fn weight(&self) -> usize {
        self.json.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The elements of the array, still as text.
    ///
    /// # Errors
    /// `json` is no array; cannot happen to decoded arguments.
    pub fn elements(&self) -> Result<Vec<&RawValue>, ArgsError> {
        serde_json::from_str(&self.json).map_err(|_| ArgsError::NotAnArray)
    }

    /// The first element as the name of an event, without escapes; a number is its text.
    ///
    /// # Errors
    /// `json` is not an array that starts with a string or a number; cannot happen to decoded events.
    pub fn event_name(&self) -> Result<Cow<'_, str>, ArgsError> {
        let first = json::first_element(&self.json).ok_or(ArgsError::NotAName)?;
        match first.as_bytes() {
            [b'"', ..] => json::unescape(first).ok_or(ArgsError::NotAName),
            [b'-' | b'0'..=b'9', ..] => Ok(Cow::Borrowed(first)),
            _ => Err(ArgsError::NotAName),
        }
    }
}

/// Why arguments could not be taken apart. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// The text is not a JSON array.
    #[error("arguments are not a JSON array")]
    NotAnArray,
    /// There is no first element, or it is neither a string of valid Unicode nor a number.
    #[error("arguments do not start with an event name")]
    NotAName,
}

/// One Socket.IO packet. The binary types of the wire (5 and 6) are events and acks with attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0`: from the client a wish to join `nsp`, from the server its welcome.
    Connect {
        /// The namespace, always with its slash and without a query.
        nsp: ByteString,
        /// A JSON object: the client's credentials, or `{"sid":…}`.
        auth: Option<ByteString>,
    },
    /// `1`: the sender leaves the namespace.
    Disconnect {
        /// The namespace.
        nsp: ByteString,
    },
    /// `2` or `5`: an event.
    Event {
        /// The namespace.
        nsp: ByteString,
        /// Present if the sender wants an `Ack` with it.
        id: Option<u64>,
        /// Name and arguments.
        args: Args,
    },
    /// `3` or `6`: the answer to the event with that id.
    Ack {
        /// The namespace.
        nsp: ByteString,
        /// The id of the event.
        id: u64,
        /// The arguments.
        args: Args,
    },
    /// `4`: the server refuses a `Connect`.
    ConnectError {
        /// The namespace.
        nsp: ByteString,
        /// A JSON object with `message`; a string from old servers.
        data: Option<ByteString>,
    },
}

#[cfg(test)]
mod tests;
