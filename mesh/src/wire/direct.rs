//! An event for one socket of another node, which its id names: it belongs to no room's order, so it passes no slot.
//!
//! Invariants: as `message`: the first byte names the kind, the layout is never changed, the decoder is total and allocates no
//! more than the bytes it was given. Layout, big-endian:
//!
//! ```text
//! kind u8 | version u8 | shard u8 | except count u8 | room len u16 | room | (except len u16, except)* | payload …to the end
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::message::DecodeError;
use crate::room::RoomKey;

/// First byte.
const KIND: u8 = 0x22;
/// Version of the layout.
const VERSION: u8 = 1;
/// Bytes before the variable parts.
const HEADER: usize = 6;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// The shard of its node that has the socket.
    pub shard: u8,
    /// Namespace and id of the socket.
    pub room: RoomKey,
    /// It is not for this socket if it is one of these, or in one of these rooms. At most 255.
    pub except: Vec<ByteString>,
    /// What members of a room would receive.
    pub payload: Bytes,
}

impl Direct {
    /// Whether a message of a lane is one of these.
    pub fn is(bytes: &[u8]) -> bool {
        bytes.first() == Some(&KIND)
    }

    /// The bytes for a lane. Names longer than their length fields are cut off by the edge's limits long before; here they
    /// are clamped so that encoding is total.
    pub fn encode(&self) -> Bytes {
        let except = &self.except[..self.except.len().min(usize::from(u8::MAX))];
        let names: usize = except.iter().map(|name| 2 + name.len()).sum();
        let room = self.room.as_bytes();
        let mut out = BytesMut::with_capacity(HEADER + room.len() + names + self.payload.len());
        out.put_slice(&[KIND, VERSION, self.shard, u8::try_from(except.len()).unwrap_or(u8::MAX)]);
        put_name(&mut out, room);
        except.iter().for_each(|name| put_name(&mut out, name.as_bytes()));
        out.put_slice(&self.payload);
        out.freeze()
    }

    /// Reads `encode`'s bytes back; names and payload are slices of `bytes`.
    ///
    /// # Errors
    /// They are not such bytes.
    pub fn decode(mut bytes: Bytes) -> Result<Direct, DecodeError> {
        if bytes.len() < HEADER {
            return Err(DecodeError::Truncated);
        }
        match (bytes.get_u8(), bytes.get_u8()) {
            (KIND, VERSION) => {}
            (KIND, version) => return Err(DecodeError::UnknownVersion(version)),
            (kind, _) => return Err(DecodeError::UnknownKind(kind)),
        }
        let (shard, count) = (bytes.get_u8(), bytes.get_u8());
        let room = RoomKey::from_bytes(take_name(&mut bytes)?).ok_or(DecodeError::MalformedName)?;
        let mut except = Vec::new();
        for _ in 0..count {
            let name = ByteString::try_from(take_name(&mut bytes)?).map_err(|_| DecodeError::MalformedName)?;
            except.push(name);
        }
        Ok(Direct { shard, room, except, payload: bytes })
    }
}

pub(super) fn put_name(out: &mut BytesMut, name: &[u8]) {
    let name = &name[..name.len().min(usize::from(u16::MAX))];
    out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
    out.put_slice(name);
}

pub(super) fn take_name(bytes: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = usize::from(bytes.try_get_u16().map_err(|_| DecodeError::Truncated)?);
    if bytes.len() < len { Err(DecodeError::Truncated) } else { Ok(bytes.split_to(len)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn direct() -> Direct {
        let payload = Bytes::from_static(b"\x81\x0542[1]");
        Direct { shard: 3, room: RoomKey::new("/", "id"), except: vec!["red".into(), "".into()], payload }
    }

    #[test]
    fn an_event_for_one_socket_has_the_bytes_it_always_had() {
        let golden = b"\x22\x01\x03\x02\0\x04/\0id\0\x03red\0\0\x81\x0542[1]";
        assert_eq!(&direct().encode()[..], golden);
        assert_eq!(Direct::decode(Bytes::from_static(golden)), Ok(direct()));
    }

    #[test]
    fn bytes_that_end_early_or_name_something_else_are_refused() {
        let whole = direct().encode();
        for len in 0..whole.len() - direct().payload.len() {
            assert_eq!(Direct::decode(whole.slice(..len)), Err(DecodeError::Truncated), "{len}");
        }
        assert_eq!(Direct::decode(Bytes::from_static(b"\x22\x02\0\0\0\0")), Err(DecodeError::UnknownVersion(2)));
        assert_eq!(Direct::decode(Bytes::from_static(b"\x20\x01\0\0\0\0")), Err(DecodeError::UnknownKind(0x20)));
        assert_eq!(Direct::decode(Bytes::from_static(b"\x22\x01\0\0\0\0")), Err(DecodeError::MalformedName));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..64), honest: bool) {
            if honest && bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[KIND, VERSION]);
            }
            let bytes = Bytes::from(bytes);
            if let Ok(direct) = Direct::decode(bytes.clone()) {
                prop_assert_eq!(direct.encode(), bytes);
            }
        }
    }
}
