//! The text form of a Socket.IO packet: `<type>[<attachments>-][<nsp>,][<id>][JSON]` (protocol.md 7).
//!
//! Invariants: `parse` checks everything a text can be checked for, and borrows all of it; what `encode` writes,
//! `parse` reads back as the same packet.

use std::fmt::Write as _;

use bytes::Bytes;
use bytestring::ByteString;

use super::{Args, DecodeError, DecoderLimits, Encoded, Packet, RESERVED_EVENTS, ROOT_NAMESPACE, json};
use crate::engine::Message;

/// The types on the wire.
const CONNECT: u8 = b'0';
const DISCONNECT: u8 = b'1';
const EVENT: u8 = b'2';
const ACK: u8 = b'3';
const CONNECT_ERROR: u8 = b'4';
const BINARY_EVENT: u8 = b'5';
const BINARY_ACK: u8 = b'6';

/// Reads a text; the number is that of the attachments which must follow.
pub(super) fn parse(text: &ByteString, limits: &DecoderLimits) -> Result<(Packet, usize), DecodeError> {
    let Some(kind) = text.as_bytes().first().copied() else { return Err(DecodeError::Empty) };
    if !(CONNECT..=BINARY_ACK).contains(&kind) {
        return Err(DecodeError::UnknownType);
    }
    let (attachments, rest) = match kind {
        BINARY_EVENT | BINARY_ACK => parse_attachments(&text[1..], limits.attachments)?,
        _ => (0, &text[1..]),
    };
    let (nsp, rest) = parse_namespace(text, rest, limits.name_bytes)?;
    let (id, rest) = parse_id(rest)?;
    if !rest.is_empty() {
        json::check(rest, limits.json_depth)?;
    }
    let data = (!rest.is_empty()).then(|| text.slice_ref(rest));
    build(kind, nsp, id, data, attachments, limits).map(|packet| (packet, attachments))
}

/// Makes a packet of its parts, whichever parser they came by: JSON that was checked, and the number of the attachments
/// that belong to it. Those themselves are left for the caller to put in.
pub(super) fn build(
    kind: u8,
    nsp: ByteString,
    id: Option<u64>,
    data: Option<ByteString>,
    attachments: usize,
    limits: &DecoderLimits,
) -> Result<Packet, DecodeError> {
    match (kind, id) {
        (EVENT | BINARY_EVENT, _) => {
            let args = parse_args(data, attachments)?;
            check_event_name(&args, limits.name_bytes)?;
            Ok(Packet::Event { nsp, id, args })
        }
        (ACK | BINARY_ACK, Some(id)) => Ok(Packet::Ack { nsp, id, args: parse_args(data, attachments)? }),
        (ACK | BINARY_ACK, None) => Err(DecodeError::MissingAckId),
        (_, Some(_)) => Err(DecodeError::UnexpectedAckId),
        (DISCONNECT, None) if data.is_some() => Err(DecodeError::UnexpectedData),
        (DISCONNECT, None) => Ok(Packet::Disconnect { nsp }),
        (CONNECT, None) if data.as_deref().is_none_or(|data| data.starts_with('{')) => {
            Ok(Packet::Connect { nsp, auth: data })
        }
        (CONNECT_ERROR, None) if data.as_deref().is_none_or(|data| data.starts_with(['{', '"'])) => {
            Ok(Packet::ConnectError { nsp, data })
        }
        (_, None) => Err(DecodeError::BadConnectData),
    }
}

/// Digits and a dash. A binary packet without attachments is an error since parser 4.2.7, which once waited for ever.
fn parse_attachments(rest: &str, limit: usize) -> Result<(usize, &str), DecodeError> {
    let (digits, rest) = rest.split_once('-').ok_or(DecodeError::BadAttachmentCount)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecodeError::BadAttachmentCount);
    }
    match digits.parse() {
        Ok(0) => Err(DecodeError::BadAttachmentCount),
        Ok(count) if count <= limit => Ok((count, rest)),
        Ok(_) | Err(_) => Err(DecodeError::TooManyAttachments { limit }),
    }
}

/// A namespace starts with a slash and ends at a comma or with the text.
fn parse_namespace<'a>(text: &ByteString, rest: &'a str, limit: usize) -> Result<(ByteString, &'a str), DecodeError> {
    if !rest.starts_with('/') {
        return Ok((ByteString::from_static(ROOT_NAMESPACE), rest));
    }
    let (name, rest) = rest.split_once(',').unwrap_or((rest, ""));
    Ok((text.slice_ref(namespace_name(name, limit)?), rest))
}

/// The name in what a client calls a namespace: old clients append a query, which is not part of it. Control characters
/// would break polling bodies and logs.
pub(super) fn namespace_name(text: &str, limit: usize) -> Result<&str, DecodeError> {
    let name = text.split_once('?').map_or(text, |(name, _query)| name);
    if name.len() > limit || name.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(DecodeError::BadNamespace);
    }
    Ok(name)
}

fn parse_id(rest: &str) -> Result<(Option<u64>, &str), DecodeError> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = rest.split_at(digits);
    match digits.parse() {
        Ok(id) => Ok((Some(id), rest)),
        Err(_) if digits.is_empty() => Ok((None, rest)),
        Err(_) => Err(DecodeError::AckIdOverflow),
    }
}

fn parse_args(data: Option<ByteString>, attachments: usize) -> Result<Args, DecodeError> {
    let json = data.filter(|data| data.starts_with('[')).ok_or(DecodeError::NotAnArray)?;
    if attachments > 0 {
        json::check_placeholders(&json, attachments)?;
    }
    Ok(Args { json, attachments: Vec::new() })
}

fn check_event_name(args: &Args, limit: usize) -> Result<(), DecodeError> {
    let name = args.event_name().map_err(|_| DecodeError::BadEventName)?;
    if name.len() > limit {
        return Err(DecodeError::EventNameTooLong { limit });
    }
    if RESERVED_EVENTS.contains(&name.as_ref()) {
        return Err(DecodeError::ReservedEvent);
    }
    Ok(())
}

/// Writes a packet.
pub(super) fn encode(packet: &Packet) -> Encoded {
    match packet {
        Packet::Connect { nsp, auth: data } => encode_control(CONNECT, nsp, data.as_ref()),
        Packet::Disconnect { nsp } => encode_control(DISCONNECT, nsp, None),
        Packet::ConnectError { nsp, data } => encode_control(CONNECT_ERROR, nsp, data.as_ref()),
        Packet::Event { nsp, id, args } => encode_event(nsp, *id, &[args.json.as_bytes()], &args.attachments),
        Packet::Ack { nsp, id, args } => {
            encode_args([ACK, BINARY_ACK], nsp, Some(*id), &[args.json.as_bytes()], &args.attachments)
        }
    }
}

/// Encodes an event whose JSON array is the concatenation of `json_array`, such as a prefix, an argument that is shared
/// by many events, and a closing bracket. The parts must be JSON, hence UTF-8, together; what is not UTF-8 is replaced,
/// so that no frame can be invalid.
pub fn encode_event(nsp: &str, id: Option<u64>, json_array: &[&[u8]], attachments: &[Bytes]) -> Encoded {
    encode_args([EVENT, BINARY_EVENT], nsp, id, json_array, attachments)
}

fn encode_control(kind: u8, nsp: &str, data: Option<&ByteString>) -> Encoded {
    let data = data.map_or([].as_slice(), |data| data.as_bytes().as_ref());
    let text = join(&header(kind, 0, nsp, None), &[data]);
    Encoded { head: Message::Text(text), attachments: Vec::new() }
}

fn encode_args(kinds: [u8; 2], nsp: &str, id: Option<u64>, array: &[&[u8]], attachments: &[Bytes]) -> Encoded {
    let kind = kinds[usize::from(!attachments.is_empty())];
    let text = join(&header(kind, attachments.len(), nsp, id), array);
    Encoded { head: Message::Text(text), attachments: attachments.to_vec() }
}

/// Everything in front of the JSON.
fn header(kind: u8, attachments: usize, nsp: &str, id: Option<u64>) -> String {
    let mut out = String::from(char::from(kind));
    // Writing to a `String` cannot fail.
    if attachments > 0 {
        let _ = write!(out, "{attachments}-");
    }
    if nsp != ROOT_NAMESPACE {
        let _ = write!(out, "{nsp},");
    }
    if let Some(id) = id {
        let _ = write!(out, "{id}");
    }
    out
}

fn join(header: &str, parts: &[&[u8]]) -> ByteString {
    let mut out = Vec::with_capacity(header.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(header.as_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    match String::from_utf8(out) {
        Ok(text) => text.into(),
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
    }
}
