//! From msgpack values to arguments: JSON text, with binary values taken out as attachments.
//!
//! Invariants: the text is what `JSON.stringify` would have made of the same values, except that whole numbers keep all
//! their digits; every placeholder beside attachments is one of ours; text and attachments stay within the limits; recursion is bounded by the limit of depth.

use std::io::Write as _;

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    DEPTH_MAX, date,
    read::{Key, Reader, Token},
};
use crate::socketio::{Args, DecodeError, DecoderLimits, JsonError};

/// Reads one value from `reader`, which reads from `message`; attachments are slices of it.
pub(super) fn read(message: &Bytes, reader: &mut Reader<'_>, limits: &DecoderLimits) -> Result<Args, DecodeError> {
    let depth = limits.json_depth.min(DEPTH_MAX);
    let mut writer =
        Writer { message, limits, depth, json: Vec::new(), attachments: Vec::new(), attached: 0, forged: false };
    let token = reader.token()?;
    writer.value(reader, token, 0)?;
    if writer.forged && !writer.attachments.is_empty() {
        return Err(JsonError::Placeholder.into());
    }
    // Everything written is ASCII or the content of a `str`.
    let json = ByteString::try_from(writer.json).unwrap_or_default();
    Ok(Args { json, attachments: writer.attachments })
}

struct Writer<'a> {
    message: &'a Bytes,
    limits: &'a DecoderLimits,
    /// How many arrays and objects may be inside each other.
    depth: usize,
    json: Vec<u8>,
    attachments: Vec<Bytes>,
    /// Bytes in `attachments`.
    attached: usize,
    /// Whether the client wrote an object that is a placeholder where there are attachments.
    forged: bool,
}

impl Writer<'_> {
    /// Writes the value that starts with `token`, inside `depth` others.
    fn value(&mut self, reader: &mut Reader<'_>, token: Token<'_>, depth: usize) -> Result<(), DecodeError> {
        match token {
            Token::Nil => self.put("null"),
            Token::Bool(value) => self.put(if value { "true" } else { "false" }),
            Token::Unsigned(value) => self.json(&value),
            Token::Signed(value) => self.json(&value),
            // What is not finite is null, as JavaScript has it.
            Token::Float(value) => self.json(&value),
            Token::Text(text) => self.json(text),
            Token::Date(milliseconds) => self.json(&date::iso(milliseconds)),
            // Bytes too: their placeholder is an object.
            Token::Array(_) | Token::Map(_) | Token::Binary(_) if depth == self.depth => {
                return Err(JsonError::TooDeep { limit: self.depth }.into());
            }
            Token::Binary(data) => self.attach(data)?,
            Token::Array(count) => {
                self.put("[");
                for index in 0..count {
                    self.put(if index == 0 { "" } else { "," });
                    let token = reader.token()?;
                    self.value(reader, token, depth + 1)?;
                }
                self.put("]");
            }
            Token::Map(count) => {
                self.put("{");
                let mut forged = false;
                for index in 0..count {
                    self.put(if index == 0 { "" } else { "," });
                    let key = reader.key()?;
                    let token = reader.token()?;
                    if key == Key::Text("_placeholder") {
                        forged = token == Token::Bool(true);
                    }
                    self.key(key);
                    self.value(reader, token, depth + 1)?;
                }
                self.put("}");
                self.forged |= forged;
            }
        }
        let limit = self.limits.bytes;
        if self.json.len().saturating_add(self.attached) > limit {
            Err(DecodeError::TooLarge { limit })
        } else {
            Ok(())
        }
    }

    /// Keys of JSON are strings; a whole number becomes its text, as it does in JavaScript and Python.
    fn key(&mut self, key: Key<'_>) {
        match key {
            Key::Text(text) => self.json(text),
            Key::Number(number) => self.json(&number.to_string()),
        }
        self.put(":");
    }

    fn attach(&mut self, data: &[u8]) -> Result<(), DecodeError> {
        let limit = self.limits.attachments;
        if self.attachments.len() == limit {
            return Err(DecodeError::TooManyAttachments { limit });
        }
        // Writing to a `Vec` cannot fail.
        let _ = write!(self.json, r#"{{"_placeholder":true,"num":{}}}"#, self.attachments.len());
        self.attached += data.len();
        self.attachments.push(self.message.slice_ref(data));
        Ok(())
    }

    fn put(&mut self, text: &str) {
        self.json.extend_from_slice(text.as_bytes());
    }

    fn json(&mut self, value: &(impl serde::Serialize + ?Sized)) {
        // Neither writing to a `Vec` nor a number or a string can fail.
        let _ = serde_json::to_writer(&mut self.json, value);
    }
}
