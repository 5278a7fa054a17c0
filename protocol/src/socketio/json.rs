//! The few questions this layer asks about JSON text, answered without building a value.
//!
//! Invariants: `check` comes first and lets only valid JSON of bounded depth pass; the other functions rely on that for
//! their meaning, but stay total on any text. Unpaired surrogate escapes pass: JavaScript writes them when a program
//! cuts a string inside an emoji, and its parser takes them back.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

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

/// Checks that every placeholder in `text` names one of the attachments. The same one may be named twice. Recursion is
/// bounded, because `check` bounded the depth.
pub(super) fn check_placeholders(text: &str, attachments: usize) -> Result<(), JsonError> {
    Walker { rest: text, attachments }.value().map(drop)
}

struct Walker<'a> {
    rest: &'a str,
    attachments: usize,
}

impl<'a> Walker<'a> {
    /// Passes one value and returns its text if it is a scalar.
    fn value(&mut self) -> Result<&'a str, JsonError> {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.as_bytes().first() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(_) => Ok(self.scalar()),
            None => Ok(""),
        }
    }

    fn array(&mut self) -> Result<&'a str, JsonError> {
        self.eat("[");
        while !self.eat("]") && !self.rest.is_empty() {
            self.value()?;
            self.eat(",");
        }
        Ok("")
    }

    /// A repeated key counts as its last occurrence, as it does for every client that parses this.
    fn object(&mut self) -> Result<&'a str, JsonError> {
        let (mut placeholder, mut num) = ("", "");
        self.eat("{");
        while !self.eat("}") && !self.rest.is_empty() {
            let key = self.scalar();
            self.eat(":");
            let value = self.value()?;
            match unescape(key).as_deref() {
                Some("_placeholder") => placeholder = value,
                Some("num") => num = value,
                Some(_) | None => {}
            }
            self.eat(",");
        }
        if placeholder == "true" && !num.parse().is_ok_and(|num: usize| num < self.attachments) {
            return Err(JsonError::Placeholder);
        }
        Ok("")
    }

    /// Passes a string, number or literal; at least one character, so that no text can hold the walker up.
    fn scalar(&mut self) -> &'a str {
        let end = match self.rest.as_bytes() {
            [b'"', tail @ ..] => 1 + string_end(tail),
            bytes => scalar_end(bytes),
        };
        let end = self.rest.ceil_char_boundary(end.max(1));
        let (scalar, rest) = self.rest.split_at(end);
        self.rest = rest;
        scalar
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests;
