//! Engine.IO v4 packets: the unit that polling bodies and WebSocket frames carry.
//!
//! Invariants: decoding borrows from the input (text payloads are slices of it); `encode` writes the text form, which
//! every transport can carry, and `encoded_len` is exactly its length.

pub mod frame;
pub mod payload;
pub mod session;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use bytes::Bytes;
use bytestring::ByteString;

/// Clients write standard base64; some leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the layer above sends and receives: the content of one message packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Text, without the packet type digit.
    Text(ByteString),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// Bytes of content, as counted against queues and limits.
    pub fn len(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(data) => data.len(),
        }
    }

    /// Whether there is no content at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One Engine.IO v4 packet (protocol.md 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// `0`: the handshake, JSON from the server.
    Open(ByteString),
    /// `1`: the session is over.
    Close,
    /// `2`: heartbeat from the server, or `2probe` from an upgrading client.
    Ping(ByteString),
    /// `3`: the answer to a ping, with the same data.
    Pong(ByteString),
    /// `4`, or `b` and base64 for a binary one.
    Message(Message),
    /// `5`: the client switches to the WebSocket.
    Upgrade,
    /// `6`: nothing; it releases a waiting poll.
    Noop,
}

impl Packet {
    /// Reads one packet in text form, as found in a polling body or a WebSocket text frame.
    ///
    /// # Errors
    /// The text is no packet. The caller closes the session (protocol.md 5), or the WebSocket alone while it probes.
    pub fn decode_text(text: &ByteString) -> Result<Packet, PacketError> {
        let (kind, data) = match text.as_bytes().first() {
            None => return Err(PacketError::Empty),
            Some(kind) if kind.is_ascii() => (*kind, &text[1..]),
            Some(_) => return Err(PacketError::UnknownType),
        };
        let bare = |packet| if data.is_empty() { Ok(packet) } else { Err(PacketError::UnexpectedData) };
        match kind {
            b'4' => Ok(Packet::Message(Message::Text(text.slice_ref(data)))),
            b'b' => match BASE64.decode(data) {
                Ok(data) => Ok(Packet::Message(Message::Binary(data.into()))),
                Err(_) => Err(PacketError::Base64),
            },
            b'0' => Ok(Packet::Open(text.slice_ref(data))),
            b'1' => bare(Packet::Close),
            b'2' => Ok(Packet::Ping(text.slice_ref(data))),
            b'3' => Ok(Packet::Pong(text.slice_ref(data))),
            b'5' => bare(Packet::Upgrade),
            b'6' => bare(Packet::Noop),
            _ => Err(PacketError::UnknownType),
        }
    }

    /// Appends the text form: type digit and data, or `b` and standard base64 for a binary message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, data) = match self {
            Packet::Message(Message::Binary(data)) => {
                let start = out.len() + 1;
                out.resize(start + base64_len(data.len()), b'b');
                // The room was measured for exactly these bytes, so the encoder cannot run out of it.
                let written = STANDARD.encode_slice(data, &mut out[start..]);
                debug_assert_eq!(written, Ok(out.len() - start));
                return;
            }
            Packet::Message(Message::Text(text)) => (b'4', text.as_bytes().as_ref()),
            Packet::Open(json) => (b'0', json.as_bytes().as_ref()),
            Packet::Close => (b'1', [].as_slice()),
            Packet::Ping(data) => (b'2', data.as_bytes().as_ref()),
            Packet::Pong(data) => (b'3', data.as_bytes().as_ref()),
            Packet::Upgrade => (b'5', [].as_slice()),
            Packet::Noop => (b'6', [].as_slice()),
        };
        out.push(kind);
        out.extend_from_slice(data);
    }

    /// The length in bytes of what `encode` writes.
    pub fn encoded_len(&self) -> usize {
        1 + match self {
            Packet::Message(Message::Binary(data)) => base64_len(data.len()),
            Packet::Message(Message::Text(text)) => text.len(),
            Packet::Open(data) | Packet::Ping(data) | Packet::Pong(data) => data.len(),
            Packet::Close | Packet::Upgrade | Packet::Noop => 0,
        }
    }
}

/// Length of padded standard base64.
fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Why a text is no Engine.IO packet. Nothing was changed; the peer broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Not even a type digit.
    #[error("empty packet")]
    Empty,
    /// The first character is none of `0` to `6` and `b`.
    #[error("unknown packet type")]
    UnknownType,
    /// A close, upgrade or noop packet with something behind its digit.
    #[error("data in a packet that has none")]
    UnexpectedData,
    /// A binary message that is not base64.
    #[error("binary message is not base64")]
    Base64,
}

#[cfg(test)]
mod tests;
