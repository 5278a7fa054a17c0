//! Packets as they leave, for either parser, and the way from one to the other.
//!
//! Invariants: an `Encoded` is the same for every recipient that uses its parser, so a room needs at most one per parser;
//! `transcode` goes through the decoder, so it gives nothing that the decoder would refuse.

use bytes::Bytes;

use super::{DecodeError, Decoder, DecoderLimits, Packet, codec, json, msgpack};
use crate::engine::{
    Message,
    frame::{self, FrameError},
};

/// How a session writes its packets: the client chooses when it is made, and nothing in the handshake tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parser {
    /// Text, with attachments behind it: what every client does unless told otherwise.
    #[default]
    Json,
    /// One binary message per packet: `socket.io-msgpack-parser`.
    MsgPack,
}

impl Parser {
    /// All of them.
    pub const ALL: [Parser; 2] = [Parser::Json, Parser::MsgPack];
}

/// One packet as it leaves: a first Engine.IO message, and binary ones that follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Text (without Engine.IO's type digit), or the whole packet in msgpack.
    pub head: Message,
    /// Each one is a binary message of its own, directly behind the head. None in msgpack.
    pub attachments: Vec<Bytes>,
}

impl Encoded {
    /// The Engine.IO messages, which must leave with nothing in between.
    pub fn messages(self) -> impl Iterator<Item = Message> {
        std::iter::once(self.head).chain(self.attachments.into_iter().map(Message::Binary))
    }

    /// Appends the WebSocket frames, the same for every recipient.
    pub fn put_frames(&self, out: &mut Vec<u8>) {
        frame::put_message(out, &self.head);
        for data in &self.attachments {
            frame::put_binary(out, data);
        }
    }
}

impl Packet {
    /// The packet as JSON clients read it. Text that came from the decoder is copied once; attachments are shared.
    pub fn encode(&self) -> Encoded {
        codec::encode(self)
    }

    /// The packet as clients with that parser read it. In msgpack the binary arguments are in their places, and
    /// arguments that no decoder would give (they are no JSON, or name attachments that do not exist) are null, as is an
    /// attachment where it is named again: no client does that, and its bytes would be multiplied.
    pub fn encode_as(&self, parser: Parser) -> Encoded {
        match parser {
            Parser::Json => codec::encode(self),
            Parser::MsgPack => Encoded { head: Message::Binary(msgpack::encode(self)), attachments: Vec::new() },
        }
    }
}

/// The same packets for clients with another parser: reads frames made of JSON packets by [`Encoded::put_frames`] and
/// writes frames. This is for a payload that many members share: done once for all of them that use `parser`.
///
/// # Errors
/// The bytes are not such frames; nothing is to be sent.
pub fn transcode(frames: &Bytes, parser: Parser) -> Result<Bytes, TranscodeError> {
    const NO_LIMITS: DecoderLimits = DecoderLimits {
        attachments: usize::MAX,
        bytes: usize::MAX,
        name_bytes: usize::MAX,
        json_depth: json::DEPTH_MAX,
    };
    let mut decoder = Decoder::for_parser(Parser::Json, NO_LIMITS);
    let mut out = Vec::new();
    for message in frame::messages(frames) {
        if let Some(packet) = decoder.decode(message?)? {
            packet.encode_as(parser).put_frames(&mut out);
        }
    }
    if decoder.is_assembling() {
        return Err(TranscodeError::Incomplete);
    }
    Ok(Bytes::from(out.into_boxed_slice()))
}

/// Why frames could not be written for another parser. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranscodeError {
    /// The bytes are no frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frames are no packets.
    #[error(transparent)]
    Packet(#[from] DecodeError),
    /// Attachments of the last packet are missing.
    #[error("attachments are missing")]
    Incomplete,
}
