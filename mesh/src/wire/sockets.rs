//! What a node asks the others to do with their sockets, and what they tell about them (`Request::Sockets`).
//!
//! Invariants: as in `message`. What is told about a socket is opaque here; whoever asks says how much he takes, and what
//! does not fit is said to be missing.
//!
//! Layout of an answer, big-endian: `1 u8 | more u8 | count u64 | refused u64 | (id len u16 | body len u32 | id | body)*`.

use bincode::{BorrowDecode, Encode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::message::DecodeError;

/// Version of an answer's layout.
const VERSION: u8 = 1;

/// Sockets of a namespace: those in any of `rooms` (none = all), without those in any of `except`. The id of a socket is a
/// room, which that socket alone is in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Audience<'a> {
    /// `/` or `/name`.
    pub namespace: &'a [u8],
    /// Names of rooms.
    pub rooms: Vec<&'a [u8]>,
    /// Names of rooms.
    pub except: Vec<&'a [u8]>,
}

/// What is done with each of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Deed<'a> {
    /// It is told about, if its id comes after `after`; at most `limit` of them, in the order of ids.
    List {
        /// Exclusive; empty = from the first on.
        after: &'a [u8],
        /// At most so many.
        limit: u32,
    },
    /// It joins these rooms; answered when it has.
    Join {
        /// Names of rooms.
        rooms: Vec<&'a [u8]>,
    },
    /// It leaves these rooms.
    Leave {
        /// Names of rooms.
        rooms: Vec<&'a [u8]>,
    },
    /// It is sent out of its namespace, or (`close`) its connection is closed.
    Disconnect {
        /// With all namespaces.
        close: bool,
    },
}

/// What is told about one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its id.
    pub id: ByteString,
    /// The rest. Opaque here.
    pub body: ByteString,
}

/// What a node, or a part of one, did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Sockets that were meant.
    pub count: u64,
    /// Joins of them that were refused.
    pub refused: u64,
    /// In the order of their ids.
    pub sockets: Vec<Told>,
    /// There are more behind the last of them.
    pub more: bool,
}

impl Done {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        let told = self.sockets.iter().map(|told| 6 + told.id.len() + told.body.len()).sum::<usize>();
        let mut out = BytesMut::with_capacity(18 + told);
        out.put_slice(&[VERSION, u8::from(self.more)]);
        out.put_u64(self.count);
        out.put_u64(self.refused);
        for Told { id, body } in &self.sockets {
            // Ids have twenty bytes, bodies are bounded by what is told at once.
            let (Ok(id_len), Ok(body_len)) = (u16::try_from(id.len()), u32::try_from(body.len())) else { continue };
            out.put_u16(id_len);
            out.put_u32(body_len);
            out.put_slice(id.as_bytes());
            out.put_slice(body.as_bytes());
        }
        out.freeze()
    }

    /// Reads `encode`'s bytes back.
    pub fn decode(mut bytes: Bytes) -> Result<Done, DecodeError> {
        let version = bytes.try_get_u8().map_err(short)?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let more = bytes.try_get_u8().map_err(short)? != 0;
        let (count, refused) = (bytes.try_get_u64().map_err(short)?, bytes.try_get_u64().map_err(short)?);
        let mut sockets = Vec::new();
        while bytes.has_remaining() {
            let id_len = usize::from(bytes.try_get_u16().map_err(short)?);
            let body_len = bytes.try_get_u32().map_err(short)? as usize;
            let (id, body) = (take(&mut bytes, id_len)?, take(&mut bytes, body_len)?);
            sockets.push(Told { id, body });
        }
        Ok(Done { count, refused, sockets, more })
    }
}

fn take(bytes: &mut Bytes, len: usize) -> Result<ByteString, DecodeError> {
    if bytes.len() < len {
        return Err(DecodeError::Truncated);
    }
    ByteString::try_from(bytes.split_to(len)).map_err(|_| DecodeError::MalformedName)
}

fn short(_: bytes::TryGetError) -> DecodeError {
    DecodeError::Truncated
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::request::Request;

    #[test]
    fn a_question_about_sockets_has_the_bytes_it_always_had() {
        let audience = Audience { namespace: b"/", rooms: vec![b"red", b"blue"], except: vec![b"x"] };
        let request = Request::Sockets { audience, deed: Deed::List { after: b"", limit: 10 } };
        let golden = b"\x03\x01/\x02\x03red\x04blue\x01\x01x\0\0\x0a";
        assert_eq!(&request.encode()[..], golden);
        assert_eq!(Request::decode(golden), Ok(request));
    }

    #[test]
    fn an_answer_has_the_bytes_it_always_had_and_no_prefix_of_an_entry_is_read() {
        let told = Told { id: "ab".into(), body: "{}".into() };
        let done = Done { count: 2, refused: 1, sockets: vec![told], more: true };
        let golden = b"\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\x02\0\0\0\x02ab{}";
        assert_eq!(&done.encode()[..], golden);
        assert_eq!(Done::decode(Bytes::from_static(golden)), Ok(done));
        for end in (0..golden.len()).filter(|end| *end != 18) {
            assert!(Done::decode(Bytes::from_static(&golden[..end])).is_err(), "{end} bytes");
        }
        assert_eq!(Done::decode(Bytes::from_static(b"\x02\0")), Err(DecodeError::UnknownVersion(2)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), honest: bool) {
            if honest && !bytes.is_empty() {
                bytes[0] = VERSION;
            }
            if let Ok(done) = Done::decode(Bytes::from(bytes.clone())) {
                prop_assert_eq!(done.encode().len(), bytes.len());
            }
            let _ = Request::decode(&bytes);
        }
    }
}
