//! The msgpack form of a packet: one binary message, a map of `type`, `nsp`, and where they exist `data` and `id`
//! (protocol.md 7; `socket.io-msgpack-parser` with notepack 2.2).
//!
//! Invariants: what `parse` gives is what the JSON codec would have given for the same packet, so nobody behind the
//! decoder needs to know the parser; what `encode` writes, `parse` reads back as the same packet. Reading trusts no
//! length and keeps no more than the limits allow.

mod date;
mod from_json;
mod read;
mod to_json;
mod write;

use bytes::Bytes;
use bytestring::ByteString;

use self::read::{Key, Reader, Token};
use super::{Args, DecodeError, DecoderLimits, Packet, codec, json::DEPTH_MAX};

/// Why bytes are not msgpack that we can read. The caller closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsgPackError {
    /// The bytes end inside a value, or a length promises more than is there.
    #[error("truncated msgpack")]
    Truncated,
    /// The one format byte that msgpack never uses.
    #[error("unknown msgpack format")]
    UnknownFormat,
    /// An extension type other than those of notepack 2.2.
    #[error("unknown msgpack extension {kind}")]
    UnknownExtension {
        /// The type as it was sent.
        kind: u8,
    },
    /// A string that is not UTF-8.
    #[error("msgpack string is not UTF-8")]
    Utf8,
    /// A key that is neither a string nor an integer.
    #[error("msgpack key is neither a string nor an integer")]
    BadKey,
    /// The message is not a map.
    #[error("msgpack packet is not a map")]
    NotAMap,
    /// Something behind the map.
    #[error("trailing bytes behind a msgpack packet")]
    TrailingBytes,
}

/// Reads one packet; binary arguments are slices of the message. Of a key that comes twice the last one counts, and
/// `undefined` or `nil` is as good as no key, because some clients write those.
pub(super) fn parse(message: &Bytes, limits: &DecoderLimits) -> Result<Packet, DecodeError> {
    let mut reader = Reader::new(message);
    let Token::Map(entries) = reader.token()? else { return Err(MsgPackError::NotAMap.into()) };
    let (mut kind, mut nsp, mut id, mut data) = (None, None, None, None);
    for _ in 0..entries {
        match reader.key()? {
            Key::Text("type") => kind = Some(packet_type(reader.token()?)?),
            Key::Text("nsp") => nsp = Some(namespace(message, reader.token()?, limits)?),
            Key::Text("id") => id = ack_id(reader.token()?)?,
            Key::Text("data") => data = Some(to_json::read(message, &mut reader, limits)?),
            Key::Text(_) | Key::Number(_) => reader.skip()?,
        }
    }
    if !reader.is_empty() {
        return Err(MsgPackError::TrailingBytes.into());
    }
    let kind = kind.ok_or(DecodeError::UnknownType)?;
    let nsp = nsp.ok_or(DecodeError::BadNamespace)?;
    let (json, attachments) = match data {
        Some(Args { json, attachments }) => (Some(json).filter(|json| json != "null"), attachments),
        None => (None, Vec::new()),
    };
    let mut packet = codec::build(kind, nsp, id, json, attachments.len(), limits)?;
    match &mut packet {
        Packet::Event { args, .. } | Packet::Ack { args, .. } => args.attachments = attachments,
        Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } if attachments.is_empty() => {}
        Packet::Connect { .. } | Packet::Disconnect { .. } | Packet::ConnectError { .. } => {
            return Err(DecodeError::BadConnectData);
        }
    }
    Ok(packet)
}

/// The digit that the text form has for a type. There are no binary types: binary is just another value.
fn packet_type(token: Token<'_>) -> Result<u8, DecodeError> {
    let Token::Unsigned(number @ 0..=4) = token else { return Err(DecodeError::UnknownType) };
    u8::try_from(number).map(|number| b'0' + number).map_err(|_| DecodeError::UnknownType)
}

fn namespace(message: &Bytes, token: Token<'_>, limits: &DecoderLimits) -> Result<ByteString, DecodeError> {
    let Token::Text(name) = token else { return Err(DecodeError::BadNamespace) };
    // A comma would end the name in the text form, and so name another one to clients with the other parser.
    if !name.starts_with('/') || name.contains(',') {
        return Err(DecodeError::BadNamespace);
    }
    let name = codec::namespace_name(name, limits.name_bytes)?;
    ByteString::try_from(message.slice_ref(name.as_bytes())).map_err(|_| DecodeError::BadNamespace)
}

fn ack_id(token: Token<'_>) -> Result<Option<u64>, DecodeError> {
    if token == Token::Nil {
        return Ok(None);
    }
    let Token::Unsigned(id) = token else { return Err(DecodeError::AckIdOverflow) };
    Ok(Some(id))
}

/// Writes one packet.
pub(super) fn encode(packet: &Packet) -> Bytes {
    let none: &[Bytes] = &[];
    let (kind, nsp, data, id) = match packet {
        Packet::Connect { nsp, auth } => (0, nsp, auth.as_ref().map(|auth| (auth, none)), None),
        Packet::Disconnect { nsp } => (1, nsp, None, None),
        Packet::Event { nsp, id, args } => (2, nsp, Some((&args.json, &*args.attachments)), *id),
        Packet::Ack { nsp, id, args } => (3, nsp, Some((&args.json, &*args.attachments)), Some(*id)),
        Packet::ConnectError { nsp, data } => (4, nsp, data.as_ref().map(|data| (data, none)), None),
    };
    let mut out = Vec::new();
    write::map(&mut out, 2 + u32::from(data.is_some()) + u32::from(id.is_some()));
    write::text(&mut out, "type");
    write::unsigned(&mut out, kind);
    write::text(&mut out, "nsp");
    write::text(&mut out, nsp);
    if let Some(id) = id {
        write::text(&mut out, "id");
        write::unsigned(&mut out, id);
    }
    if let Some((json, attachments)) = data {
        write::text(&mut out, "data");
        from_json::put(&mut out, json, attachments);
    }
    Bytes::from(out.into_boxed_slice())
}

#[cfg(test)]
mod tests;
