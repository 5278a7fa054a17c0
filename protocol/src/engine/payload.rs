//! Polling bodies: packets in text form, joined with the record separator 0x1E (protocol.md 2).
//!
//! Invariants: decoding is one linear pass that stops at the first limit or error; what `encode` writes decodes to the
//! same packets, provided that no text in them holds the separator (JSON cannot, it escapes control characters).

use bytestring::ByteString;
use memchr::memchr;

use super::{Packet, PacketError};

/// Stands between two packets.
pub const SEPARATOR: u8 = 0x1E;

/// How much one body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the whole body.
    pub bytes: usize,
    /// Number of packets in it.
    pub packets: usize,
}

/// Reads a whole body; text packets are slices of it.
///
/// # Errors
/// All or nothing: no packet of a bad body is returned. The caller closes the session (protocol.md 5).
pub fn decode(body: &ByteString, limits: Limits) -> Result<Vec<Packet>, PayloadError> {
    if body.len() > limits.bytes {
        return Err(PayloadError::TooLarge { limit: limits.bytes });
    }
    let mut packets = Vec::new();
    let mut rest: &str = body;
    loop {
        if packets.len() == limits.packets {
            return Err(PayloadError::TooManyPackets { limit: limits.packets });
        }
        let end = memchr(SEPARATOR, rest.as_bytes());
        let text = &rest[..end.unwrap_or(rest.len())];
        packets.push(Packet::decode_text(&body.slice_ref(text))?);
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return Ok(packets),
        }
    }
}

/// Writes a body. No packets give an empty body, which is not a legal answer: send a noop instead.
pub fn encode<'a>(packets: impl IntoIterator<Item = &'a Packet>) -> ByteString {
    let mut out = Vec::new();
    for packet in packets {
        if !out.is_empty() {
            out.push(SEPARATOR);
        }
        out.reserve(packet.encoded_len() + 1);
        packet.encode(&mut out);
    }
    // Type digits, base64 and the text of a `ByteString` are UTF-8, and so is their concatenation.
    ByteString::try_from(out).unwrap_or_default()
}

/// Why a body was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More bytes than allowed.
    #[error("body of more than {limit} bytes")]
    TooLarge {
        /// The limit in force.
        limit: usize,
    },
    /// More packets than allowed.
    #[error("body of more than {limit} packets")]
    TooManyPackets {
        /// The limit in force.
        limit: usize,
    },
    /// One of the packets is none.
    #[error("bad packet in a body: {0}")]
    Packet(#[from] PacketError),
}

#[cfg(test)]
mod tests;
