//! The few questions this layer asks about JSON text, answered without building a value.
//!
//! Invariants: `check` comes first and lets only valid JSON of bounded depth pass; the other functions rely on that for
//! their meaning, but stay total on any text. Unpaired surrogate escapes pass: JavaScript writes them when a program
//! cuts a string inside an emoji, and its parser takes them back.

use std::{borrow::Cow, fmt};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, Visitor},
};

/// Nested arrays and objects in what is taken apart or written as msgpack; nothing deeper comes in by msgpack, whatever the
/// limits say. `serde_json` has the same bound.
pub(super) const DEPTH_MAX: usize = 128;

/// Why a text was refused as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is none.
    #[error("invalid JSON")]
    Syntax,
    /// Arrays and objects are nested more deeply than allowed.
    #[error("JSON nested more than {limit} deep")]
    TooDeep {
        /// The limit in force.
        limit: usize,
    },
    /// A placeholder for an attachment that does not exist.
    #[error("placeholder without its attachment")]
    Placeholder,
}

/// Checks that `text` is one JSON value, nested at most `limit` deep.
pub(super) fn check(text: &str, limit: usize) -> Result<(), JsonError> {
    check_depth(text.as_bytes(), limit)?;
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|_| JsonError::Syntax)
}

fn check_depth(mut rest: &[u8], limit: usize) -> Result<(), JsonError> {
    let mut depth = 0_usize;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'"' => rest = &rest[string_end(rest)..],
            b'[' | b'{' if depth == limit => return Err(JsonError::TooDeep { limit }),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Where a string ends, past its closing quote, given what follows the opening one.
fn string_end(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr2(b'"', b'\\', &rest[at..]) {
        if rest[at + found] == b'"' {
            return at + found + 1;
        }
        at = (at + found + 2).min(rest.len());
    }
    rest.len()
}

/// The text of the first element of a non-empty array, if it is a string or another scalar.
pub(super) fn first_element(array: &str) -> Option<&str> {
    let rest = array.trim_ascii_start().strip_prefix('[')?.trim_ascii_start();
    let end = match rest.as_bytes().first()? {
        b'"' => 1 + string_end(&rest.as_bytes()[1..]),
        _ => scalar_end(rest.as_bytes()),
    };
    rest.get(..end).filter(|element| !element.is_empty())
}

/// Where a number or literal ends.
fn scalar_end(rest: &[u8]) -> usize {
    rest.iter().position(|byte| b",]}: \t\r\n[{\"".contains(byte)).unwrap_or(rest.len())
}

/// The content of a JSON string given with its quotes; `None` if that is no valid Unicode.
pub(super) fn unescape(string: &str) -> Option<Cow<'_, str>> {
    let inner = string.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(string).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The content of a JSON string given with its quotes. Half a surrogate pair, which is no Unicode, is replaced.
pub(super) fn unescape_lossy(string: &str) -> Cow<'_, str> {
    unescape(string).unwrap_or_else(|| {
        let Ok(Bytes(bytes)) = serde_json::from_str(string) else { return Cow::Borrowed("") };
        Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// The content of a JSON string as serde_json gives it to those who do not insist on UTF-8.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Content;

        impl Visitor<'_> for Content {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Content)
    }
}

/// Checks that every placeholder in `text` names one of the attachments. The same one may be named twice.
pub(super) fn check_placeholders(text: &str, attachments: usize) -> Result<(), JsonError> {
    shapes(text, attachments).map(drop)
}

/// What is in an array or object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// An array of that many values.
    Array(u32),
    /// An object of that many keys.
    Object(u32),
    /// An object which stands for an attachment.
    Attachment(Placeholder),
}

/// An object in the text of a value that stands for an attachment: `{"_placeholder":true,"num":0}`, whatever else is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// Where it begins in the text, in bytes.
    pub at: usize,
    /// Bytes of it.
    pub length: usize,
    /// Number of the attachment.
    pub num: usize,
}

/// The placeholders in the text of a value that came with so many attachments, in order, as every client understands them.
/// Without attachments nothing is one.
///
/// # Errors
/// The text is no JSON, is nested more than 128 deep, or names an attachment that does not exist; cannot happen to the text
/// of decoded arguments.
pub fn placeholders(text: &str, attachments: usize) -> Result<Vec<Placeholder>, JsonError> {
    if attachments == 0 {
        return Ok(Vec::new());
    }
    check(text, DEPTH_MAX)?;
    let attached = |shape| if let Shape::Attachment(placeholder) = shape { Some(placeholder) } else { None };
    Ok(shapes(text, attachments)?.into_iter().filter_map(attached).collect())
}

/// The arrays and objects of `text` in the order in which they begin; what is inside a placeholder is left out. Without
/// attachments nothing is a placeholder. Recursion is bounded, because `check` bounded the depth.
pub(super) fn shapes(text: &str, attachments: usize) -> Result<Vec<Shape>, JsonError> {
    let mut walker = Walker { cursor: Cursor::new(text), length: text.len(), attachments, shapes: Vec::new() };
    walker.value()?;
    Ok(walker.shapes)
}

struct Walker<'a> {
    cursor: Cursor<'a>,
    /// Of the whole text.
    length: usize,
    attachments: usize,
    shapes: Vec<Shape>,
}

impl<'a> Walker<'a> {
    /// Passes one value and returns its text if it is a scalar.
    fn value(&mut self) -> Result<&'a str, JsonError> {
        match self.cursor.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(_) => Ok(self.cursor.scalar()),
            None => Ok(""),
        }
    }

    fn array(&mut self) -> Result<&'a str, JsonError> {
        let index = self.shapes.len();
        self.shapes.push(Shape::Array(0));
        let mut count = 0;
        self.cursor.eat("[");
        while !self.cursor.eat("]") && !self.cursor.rest.is_empty() {
            self.value()?;
            self.cursor.eat(",");
            count += 1;
        }
        self.shapes[index] = Shape::Array(count);
        Ok("")
    }

    /// A repeated key counts as its last occurrence, as it does for every client that parses this.
    fn object(&mut self) -> Result<&'a str, JsonError> {
        let (index, start) = (self.shapes.len(), self.cursor.rest.len());
        self.shapes.push(Shape::Object(0));
        let mut count = 0;
        let (mut placeholder, mut num) = ("", "");
        self.cursor.eat("{");
        while !self.cursor.eat("}") && !self.cursor.rest.is_empty() {
            let key = self.cursor.scalar();
            self.cursor.eat(":");
            let value = self.value()?;
            match unescape(key).as_deref() {
                Some("_placeholder") => placeholder = value,
                Some("num") => num = value,
                Some(_) | None => {}
            }
            self.cursor.eat(",");
            count += 1;
        }
        self.shapes[index] = Shape::Object(count);
        if placeholder == "true" && self.attachments > 0 {
            let num = num.parse().ok().filter(|num| *num < self.attachments).ok_or(JsonError::Placeholder)?;
            self.shapes.truncate(index);
            let (at, length) = (self.length - start, start - self.cursor.rest.len());
            self.shapes.push(Shape::Attachment(Placeholder { at, length, num }));
        }
        Ok("")
    }
}

/// A place in a text of JSON. It always moves on, whatever the text, and stops at its end.
pub(super) struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Cursor<'a> {
        Cursor { rest: text }
    }

    /// What comes next, behind white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        self.rest.as_bytes().first().copied()
    }

    /// Passes a string, number or literal; at least one character, so that no text can hold the cursor up.
    pub(super) fn scalar(&mut self) -> &'a str {
        self.peek();
        let end = match self.rest.as_bytes() {
            [b'"', tail @ ..] => 1 + string_end(tail),
            bytes => scalar_end(bytes),
        };
        self.pass(self.rest.ceil_char_boundary(end.max(1)))
    }

    /// Passes the token if it comes next.
    pub(super) fn eat(&mut self, token: &str) -> bool {
        self.peek();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Passes that many bytes, which must end at a character's end.
    pub(super) fn pass(&mut self, length: usize) -> &'a str {
        let (passed, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        passed
    }
}

#[cfg(test)]
mod tests;
