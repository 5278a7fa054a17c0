//! A reader of msgpack, one token at a time, with the extensions of notepack 2.2.
//!
//! Invariants: nothing is copied, and nothing is believed: a length or a count that the rest of the input cannot hold is
//! an error before anybody acts on it. Every token takes at least one byte, so reading ends with the input.

use super::MsgPackError;

/// The extension type of everything that notepack 2.2 adds.
const NOTEPACK: u8 = 0;

/// One value, or the head of one that others follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// `nil`, and JavaScript's `undefined`.
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Float(f64),
    Text(&'a str),
    /// `bin`, and JavaScript's `ArrayBuffer`.
    Binary(&'a [u8]),
    /// Milliseconds since 1970.
    Date(i64),
    /// That many values follow.
    Array(u64),
    /// That many pairs of values follow.
    Map(u64),
}

/// What an entry of a map is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Text(&'a str),
    /// Wide enough for every integer of msgpack.
    Number(i128),
}

/// Reads tokens from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next token. Within a family, formats differ in the width of what follows: 1, 2, 4 or 8 bytes.
    pub(super) fn token(&mut self) -> Result<Token<'a>, MsgPackError> {
        let [format] = *self.take_array()?;
        Ok(match format {
            0x00..=0x7F => Token::Unsigned(format.into()),
            0x80..=0x8F => self.map(u64::from(format & 0x0F))?,
            0x90..=0x9F => self.array(u64::from(format & 0x0F))?,
            0xA0..=0xBF => self.text(u64::from(format & 0x1F))?,
            0xC0 => Token::Nil,
            0xC1 => return Err(MsgPackError::UnknownFormat),
            0xC2 => Token::Bool(false),
            0xC3 => Token::Bool(true),
            0xC4..=0xC6 => {
                let length = self.unsigned(1 << (format - 0xC4))?;
                Token::Binary(self.take(length)?)
            }
            0xC7..=0xC9 => {
                let length = self.unsigned(1 << (format - 0xC7))?;
                match self.extension(length)? {
                    (NOTEPACK, data) => Token::Binary(data),
                    (kind, _) => return Err(MsgPackError::UnknownExtension { kind }),
                }
            }
            0xCA => Token::Float(f32::from_be_bytes(*self.take_array()?).into()),
            0xCB => Token::Float(f64::from_be_bytes(*self.take_array()?)),
            0xCC..=0xCF => Token::Unsigned(self.unsigned(1 << (format - 0xCC))?),
            0xD0..=0xD3 => {
                let value = self.signed(1 << (format - 0xD0))?;
                u64::try_from(value).map_or(Token::Signed(value), Token::Unsigned)
            }
            0xD4..=0xD8 => match self.extension(1 << (format - 0xD4))? {
                (NOTEPACK, [_]) => Token::Nil,
                (NOTEPACK, [a, b, c, d, e, f, g, h]) => {
                    Token::Date(i64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
                }
                (kind, _) => return Err(MsgPackError::UnknownExtension { kind }),
            },
            0xD9..=0xDB => {
                let length = self.unsigned(1 << (format - 0xD9))?;
                self.text(length)?
            }
            0xDC..=0xDD => {
                let count = self.unsigned(2 << (format - 0xDC))?;
                self.array(count)?
            }
            0xDE..=0xDF => {
                let count = self.unsigned(2 << (format - 0xDE))?;
                self.map(count)?
            }
            0xE0..=0xFF => Token::Signed(i8::from_be_bytes([format]).into()),
        })
    }

    /// The key of the next entry of a map.
    pub(super) fn key(&mut self) -> Result<Key<'a>, MsgPackError> {
        let token = self.token()?;
        if let Token::Text(text) = token {
            Ok(Key::Text(text))
        } else if let Token::Unsigned(number) = token {
            Ok(Key::Number(number.into()))
        } else if let Token::Signed(number) = token {
            Ok(Key::Number(number.into()))
        } else {
            Err(MsgPackError::BadKey)
        }
    }

    /// Passes one whole value, however deeply it is nested, without recursion.
    pub(super) fn skip(&mut self) -> Result<(), MsgPackError> {
        let mut values = 1_u64;
        while values > 0 {
            // Counts were held against the input that is left, so their sum stays far below 2^64.
            let token = self.token()?;
            if let Token::Array(count) = token {
                values += count;
            } else if let Token::Map(count) = token {
                values += 2 * count;
            }
            values -= 1;
        }
        Ok(())
    }

    fn text(&mut self, length: u64) -> Result<Token<'a>, MsgPackError> {
        std::str::from_utf8(self.take(length)?).map(Token::Text).map_err(|_| MsgPackError::Utf8)
    }

    fn array(&self, count: u64) -> Result<Token<'a>, MsgPackError> {
        self.holds(count).map(|()| Token::Array(count))
    }

    fn map(&self, count: u64) -> Result<Token<'a>, MsgPackError> {
        self.holds(2 * count).map(|()| Token::Map(count))
    }

    /// Whether that many values can be left.
    fn holds(&self, values: u64) -> Result<(), MsgPackError> {
        if values <= self.rest.len() as u64 { Ok(()) } else { Err(MsgPackError::Truncated) }
    }

    /// The type of an extension and its data.
    fn extension(&mut self, length: u64) -> Result<(u8, &'a [u8]), MsgPackError> {
        let [kind] = *self.take_array()?;
        Ok((kind, self.take(length)?))
    }

    fn unsigned(&mut self, width: u64) -> Result<u64, MsgPackError> {
        Ok(self.take(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, width: u32) -> Result<i64, MsgPackError> {
        let above = u64::BITS - 8 * width;
        Ok((self.unsigned(width.into())? << above).cast_signed() >> above)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], MsgPackError> {
        let length = usize::try_from(length).map_err(|_| MsgPackError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MsgPackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], MsgPackError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(MsgPackError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}
