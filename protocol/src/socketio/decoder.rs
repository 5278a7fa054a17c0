//! From Engine.IO messages to Socket.IO packets, putting binary ones back together.
//!
//! Invariants: the first message decides the parser for good; at most one packet is incomplete; it holds no more bytes and attachments than the limits say; after an
//! error nothing is incomplete, and since the order of the stream is lost then, the connection must be closed.

use super::{JsonError, MsgPackError, Packet, Parser, codec, msgpack};
use crate::engine::Message;

/// What one client may send (reliability.md 4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Attachments of one packet. The reference allows 10.
    pub attachments: usize,
    /// Bytes of one packet, header and attachments together.
    pub bytes: usize,
    /// Bytes of a namespace, and of an event name.
    pub name_bytes: usize,
    /// Nested arrays and objects.
    pub json_depth: usize,
}

/// Decodes the messages of one session, in their order.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// Until the first message came, none.
    parser: Option<Parser>,
    /// Rare, and large beside the rest.
    assembly: Option<Box<Assembly>>,
}

/// A packet that waits for its attachments.
#[derive(Debug)]
struct Assembly {
    packet: Packet,
    missing: usize,
    bytes: usize,
}

impl Decoder {
    /// A decoder at the start of a session. Its parser is the one of the first message: text is JSON, binary msgpack.
    pub fn new(limits: DecoderLimits) -> Decoder {
        Decoder { limits, parser: None, assembly: None }
    }

    /// A decoder of a session whose parser is known.
    pub fn for_parser(parser: Parser, limits: DecoderLimits) -> Decoder {
        Decoder { limits, parser: Some(parser), assembly: None }
    }

    /// How the client writes, and thus wants to be answered. JSON until its first message came.
    pub fn parser(&self) -> Parser {
        self.parser.unwrap_or_default()
    }

    /// Takes the next message; `None` while attachments are missing.
    ///
    /// # Errors
    /// The client broke the protocol or a limit. Close its connection; what was incomplete is dropped.
    pub fn decode(&mut self, message: Message) -> Result<Option<Packet>, DecodeError> {
        let first = match message {
            Message::Text(_) => Parser::Json,
            Message::Binary(_) => Parser::MsgPack,
        };
        match (*self.parser.get_or_insert(first), message) {
            (Parser::Json, message) => self.decode_json(message),
            (Parser::MsgPack, Message::Binary(data)) if data.len() > self.limits.bytes => {
                Err(DecodeError::TooLarge { limit: self.limits.bytes })
            }
            (Parser::MsgPack, Message::Binary(data)) => msgpack::parse(&data, &self.limits).map(Some),
            (Parser::MsgPack, Message::Text(_)) => Err(DecodeError::TextInMsgPack),
        }
    }

    fn decode_json(&mut self, message: Message) -> Result<Option<Packet>, DecodeError> {
        let limit = self.limits.bytes;
        match (self.assembly.take(), message) {
            (None, Message::Text(text)) if text.len() > limit => Err(DecodeError::TooLarge { limit }),
            (None, Message::Text(text)) => {
                let (packet, missing) = codec::parse(&text, &self.limits)?;
                if missing == 0 {
                    return Ok(Some(packet));
                }
                self.assembly = Some(Box::new(Assembly { packet, missing, bytes: text.len() }));
                Ok(None)
            }
            (Some(mut assembly), Message::Binary(data)) => {
                assembly.bytes = assembly.bytes.saturating_add(data.len());
                if assembly.bytes > limit {
                    return Err(DecodeError::TooLarge { limit });
                }
                match &mut assembly.packet {
                    Packet::Event { args, .. } | Packet::Ack { args, .. } => args.attachments.push(data),
                    Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } => {}
                }
                assembly.missing -= 1;
                if assembly.missing == 0 {
                    return Ok(Some(assembly.packet));
                }
                self.assembly = Some(assembly);
                Ok(None)
            }
            (Some(_), Message::Text(_)) => Err(DecodeError::TextBetweenAttachments),
            (None, Message::Binary(_)) => Err(DecodeError::UnexpectedAttachment),
        }
    }

    /// Whether attachments are missing. The caller bounds how long.
    pub fn is_assembling(&self) -> bool {
        self.assembly.is_some()
    }
}

/// What was wrong with a message. Incomplete packets are dropped; the caller closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a type.
    #[error("empty packet")]
    Empty,
    /// The first character is none of `0` to `6`.
    #[error("unknown packet type")]
    UnknownType,
    /// A binary type without a count of at least one and a dash.
    #[error("bad number of attachments")]
    BadAttachmentCount,
    /// More attachments than allowed.
    #[error("more than {limit} attachments")]
    TooManyAttachments {
        /// The limit in force.
        limit: usize,
    },
    /// The namespace is too long or holds control characters.
    #[error("bad namespace")]
    BadNamespace,
    /// An ack id of more than 64 bits.
    #[error("ack id out of range")]
    AckIdOverflow,
    /// An ack that does not say what it answers.
    #[error("ack without id")]
    MissingAckId,
    /// An ack id in a packet that nobody answers.
    #[error("ack id in a packet that takes none")]
    UnexpectedAckId,
    /// What should be JSON is none, is nested too deeply, or names an attachment that does not exist.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// What should be msgpack is none.
    #[error(transparent)]
    MsgPack(#[from] MsgPackError),
    /// Event or ack without an array.
    #[error("arguments are not an array")]
    NotAnArray,
    /// The event is empty, or starts with neither string nor number.
    #[error("event name is neither a string nor a number")]
    BadEventName,
    /// The event name is longer than allowed.
    #[error("event name of more than {limit} bytes")]
    EventNameTooLong {
        /// The limit in force.
        limit: usize,
    },
    /// The event has one of [`RESERVED_EVENTS`](super::RESERVED_EVENTS)' names.
    #[error("reserved event name")]
    ReservedEvent,
    /// A connect packet with something else than an object, or a connect error with neither object nor string.
    #[error("connect data is not an object")]
    BadConnectData,
    /// A disconnect packet with something in it.
    #[error("data in a packet that has none")]
    UnexpectedData,
    /// A text message while binary ones are missing.
    #[error("text message between attachments")]
    TextBetweenAttachments,
    /// A text message in a session that began with msgpack.
    #[error("text message in a session of msgpack")]
    TextInMsgPack,
    /// A binary message that no header announced.
    #[error("binary message without a header")]
    UnexpectedAttachment,
    /// Header and attachments together are larger than allowed.
    #[error("packet of more than {limit} bytes")]
    TooLarge {
        /// The limit in force.
        limit: usize,
    },
}
