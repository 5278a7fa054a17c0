//! What the two ends of a forwarded client request say to each other, besides the bytes they carry.
//!
//! Invariants: as in `message`: bodies never change, decoding is total and bounded. The opener of the pipe says an [`Errand`]
//! as its head; the other side answers with one [`Word`] as a piece of its own, or with [`Word::Heard`] and then the other. The
//! bytes of a POST, of an answer and of a WebSocket follow as they are.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;

use super::message::{DecodeError, config, decode_whole};

/// What a client wants of a session that lives on the node that is told. Whatever else was in its request is judged by the
/// node that got it, and does not travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum What {
    /// What there is for it. The opener finishes when it has the whole answer; giving up tells that it was lost.
    Poll,
    /// To say something: the body, up to the end of the opener's side.
    Post,
    /// A WebSocket. Its bytes follow both ways when this was heard.
    Upgrade,
}

/// The head of a pipe for a client.
#[derive(Clone, Copy, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Errand<'a> {
    /// What it wants.
    pub what: What,
    /// The id of the session as the client knows it: a secret.
    pub sid: &'a str,
}

impl std::fmt::Debug for Errand<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Errand").field("what", &self.what).finish_non_exhaustive()
    }
}

/// What the node with the session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Word {
    /// The session lives here: its WebSocket may begin, or there is nothing for its poll yet.
    Heard,
    /// The answer; its body follows, up to the end.
    Answer {
        /// HTTP status.
        status: u16,
        /// What the body is.
        content: Content,
        /// The Engine.IO error code, if it is a refusal that has one.
        code: Option<u8>,
    },
}

/// What the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Content {
    /// Packets.
    Text,
    /// The reference server's type for a word to nobody.
    Html,
    /// A refusal.
    Json,
}

impl<'a> Errand<'a> {
    /// The head's bytes.
    pub fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, config()).unwrap_or_default().into()
    }

    /// Reads a head.
    ///
    /// # Errors
    /// It is none, or one of a later version.
    pub fn decode(bytes: &'a [u8]) -> Result<Errand<'a>, DecodeError> {
        decode_whole(bytes)
    }
}

impl Word {
    /// The word's bytes.
    pub fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, config()).unwrap_or_default().into()
    }

    /// Reads a word.
    ///
    /// # Errors
    /// It is none, or one of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Word, DecodeError> {
        decode_whole(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_errand_never_change() {
        let errand = |what| Errand { what, sid: "abc" };
        for (what, bytes) in
            [(What::Poll, b"\x00\x03abc"), (What::Post, b"\x01\x03abc"), (What::Upgrade, b"\x02\x03abc")]
        {
            assert_eq!(errand(what).encode()[..], bytes[..]);
            assert_eq!(Errand::decode(bytes), Ok(errand(what)));
        }
        assert!(Errand::decode(b"\x03\x03abc").is_err() && Errand::decode(b"\x00\x03abcd").is_err());
        assert!(Errand::decode(b"\x00\xfd\xff\xff\xff\xff\xff\xff\xff\xffabc").is_err(), "a length without bytes");
        assert_eq!(format!("{:?}", errand(What::Poll)), "Errand { what: Poll, .. }", "no secret in a log");
    }

    #[test]
    fn the_bytes_of_a_word_never_change() {
        let answer = |status, content, code| Word::Answer { status, content, code };
        let golden: [(Word, &[u8]); 4] = [
            (Word::Heard, b"\x00"),
            (answer(200, Content::Text, None), b"\x01\xc8\x00\x00"),
            (answer(413, Content::Html, None), b"\x01\xfb\x9d\x01\x01\x00"),
            (answer(400, Content::Json, Some(1)), b"\x01\xfb\x90\x01\x02\x01\x01"),
        ];
        for (word, bytes) in golden {
            assert_eq!(word.encode(), bytes, "{word:?}");
            assert_eq!(Word::decode(bytes), Ok(word));
        }
        assert!(Word::decode(b"\x02").is_err() && Word::decode(b"").is_err());
    }
}
