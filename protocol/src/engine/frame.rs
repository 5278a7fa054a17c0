//! WebSocket frames (RFC 6455, 5.2) as the server writes them, and what a client needs to talk back.
//!
//! Invariants: server frames are whole (FIN) and unmasked, thus the same bytes for every recipient: a message is framed
//! once and written to everybody. Reading is total: garbage gives an error, never a panic or an allocation.

use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Message, Packet};

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Payload lengths up to this fit the second header byte.
const SHORT: usize = 125;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
/// The longest header a client writes: two bytes, a 64-bit length and a mask.
const HEADER_MAX: usize = 14;
/// Largest close reason: a control frame holds 125 bytes, two of which are the code.
const CLOSE_REASON_MAX: usize = 123;

/// The largest payload `next_frame` waits for; whoever announces more is not a server of ours.
pub const FRAME_MAX: usize = 16 << 20;

/// What a frame is. Fragments are refused instead of being listed: no server that we read from makes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text: one Engine.IO packet.
    Text = 1,
    /// Bytes: one binary message.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// A WebSocket ping (not Engine.IO's heartbeat).
    Ping = 9,
    /// A WebSocket pong.
    Pong = 10,
}

/// Appends one text frame whose payload is the concatenation of `parts`, which must be UTF-8 together.
pub fn put_text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    put(out, Opcode::Text, parts);
}

/// Appends one binary frame.
pub fn put_binary(out: &mut Vec<u8>, data: &[u8]) {
    put(out, Opcode::Binary, &[data]);
}

/// Appends the frame of one packet: text with its type digit, a binary message as it is.
pub fn put_packet(out: &mut Vec<u8>, packet: &Packet) {
    match packet {
        Packet::Message(message) => put_message(out, message),
        Packet::Open(data) => put_text(out, &[b"0", data.as_bytes()]),
        Packet::Close => put_text(out, &[b"1"]),
        Packet::Ping(data) => put_text(out, &[b"2", data.as_bytes()]),
        Packet::Pong(data) => put_text(out, &[b"3", data.as_bytes()]),
        Packet::Upgrade => put_text(out, &[b"5"]),
        Packet::Noop => put_text(out, &[b"6"]),
    }
}

/// Appends the frame of one message: text behind the digit `4`, binary as it is.
pub fn put_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Text(text) => put_text(out, &[b"4", text.as_bytes()]),
        Message::Binary(data) => put_binary(out, data),
    }
}

/// Appends a close frame. A reason of more than 123 bytes is cut at a character boundary.
pub fn put_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_MAX)];
    put(out, Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()]);
}

/// Appends one text frame as a client must write it: masked.
pub fn put_masked_text(out: &mut Vec<u8>, parts: &[&[u8]], mask: [u8; 4]) {
    put_masked(out, Opcode::Text, parts, mask);
}

/// Appends one frame of any kind as a client must write it: masked.
pub fn put_masked(out: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]], mask: [u8; 4]) {
    let length = total(parts);
    out.reserve(HEADER_MAX + length);
    put_header(out, opcode, MASKED, length);
    out.extend_from_slice(&mask);
    out.extend(parts.iter().flat_map(|part| part.iter()).zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn put(out: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]]) {
    let length = total(parts);
    out.reserve(HEADER_MAX + length);
    put_header(out, opcode, 0, length);
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

fn put_header(out: &mut Vec<u8>, opcode: Opcode, masked: u8, length: usize) {
    out.push(FIN | opcode as u8);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if length <= SHORT => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        (_, Err(_)) => {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Finds the first whole unmasked frame in `buf`: its kind, where its payload lies, and how many bytes it takes in all.
/// `None` asks for more bytes.
///
/// # Errors
/// The stream is not what a server of ours writes. It cannot be read any further: close the connection.
pub fn next_frame(buf: &[u8]) -> Result<Option<(Opcode, Range<usize>, usize)>, FrameError> {
    let [first, second, rest @ ..] = buf else { return Ok(None) };
    let opcode = match first {
        0x81 => Opcode::Text,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8A => Opcode::Pong,
        _ => return Err(FrameError::Unexpected { first: *first }),
    };
    if second & MASKED != 0 {
        return Err(FrameError::Masked);
    }
    let (start, length) = match *second {
        LENGTH_16 => match rest.first_chunk() {
            Some(bytes) => (4, u64::from(u16::from_be_bytes(*bytes))),
            None => return Ok(None),
        },
        LENGTH_64 => match rest.first_chunk() {
            Some(bytes) => (10, u64::from_be_bytes(*bytes)),
            None => return Ok(None),
        },
        short => (2, u64::from(short)),
    };
    let length = match usize::try_from(length) {
        Ok(length) if length <= FRAME_MAX => length,
        Ok(_) | Err(_) => return Err(FrameError::TooLarge),
    };
    let end = start + length;
    Ok((end <= buf.len()).then_some((opcode, start..end, end)))
}

/// Takes apart bytes made by any number of `put_message`: the messages again, as slices, text without its `4`.
pub fn messages(frames: &Bytes) -> Messages {
    Messages { rest: frames.clone() }
}

/// The iterator of [`messages`]. After an error it ends.
#[derive(Clone, Debug)]
pub struct Messages {
    rest: Bytes,
}

impl Messages {
    /// Bytes not read yet: where the next message starts, seen from the end.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self) -> Result<Message, FrameError> {
        let (opcode, payload, consumed) = next_frame(&self.rest)?.ok_or(FrameError::Truncated)?;
        let payload = self.rest.split_to(consumed).slice(payload);
        match opcode {
            Opcode::Binary => Ok(Message::Binary(payload)),
            Opcode::Text if payload.first() == Some(&b'4') => {
                ByteString::try_from(payload.slice(1..)).map(Message::Text).map_err(|_| FrameError::Utf8)
            }
            Opcode::Text | Opcode::Close | Opcode::Ping | Opcode::Pong => Err(FrameError::NotAMessage),
        }
    }
}

impl Iterator for Messages {
    type Item = Result<Message, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.take();
        if message.is_err() {
            self.rest.clear();
        }
        Some(message)
    }
}

/// Why bytes could not be read as frames. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A fragment, a reserved bit or an unknown opcode.
    #[error("unexpected frame 0x{first:02x}")]
    Unexpected {
        /// The first byte of the frame.
        first: u8,
    },
    /// Servers do not mask.
    #[error("masked frame from a server")]
    Masked,
    /// A payload of more than [`FRAME_MAX`] bytes.
    #[error("frame of more than {FRAME_MAX} bytes")]
    TooLarge,
    /// The bytes end inside a frame.
    #[error("truncated frame")]
    Truncated,
    /// A text frame that is not UTF-8.
    #[error("text frame is not UTF-8")]
    Utf8,
    /// A whole frame that is no Engine.IO message.
    #[error("frame is not a message")]
    NotAMessage,
}

#[cfg(test)]
mod tests;
