//! Who is meant: rooms and sockets of a namespace, without the members of others.
//!
//! Invariants: the id of a socket is a room which that socket alone is in; no room at all is everybody in the namespace; the
//! order of rooms is the order in which they were named.

use bytestring::ByteString;
use mesh::wire::sockets;
use smallvec::SmallVec;

use super::SayError;
use crate::names::Names;

/// Rooms that one audience may name, and that it may leave out.
const ROOMS_MAX: usize = 64;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    pub(crate) namespace: ByteString,
    pub(crate) rooms: SmallVec<[ByteString; 1]>,
    pub(crate) except: Vec<ByteString>,
}

impl Audience {
    /// Everybody in a namespace.
    pub(crate) fn new(namespace: ByteString) -> Audience {
        Audience { namespace, rooms: SmallVec::new(), except: Vec::new() }
    }

    /// Whether these can be the names of rooms, and are not too many.
    pub(crate) fn check(&self, names: &Names) -> Result<(), SayError> {
        if self.rooms.len() > ROOMS_MAX || self.except.len() > ROOMS_MAX {
            return Err(SayError::TooManyRooms);
        }
        let mut all = self.rooms.iter().chain(&self.except);
        if all.any(|room| names.room(room).is_err()) { Err(SayError::Name) } else { Ok(()) }
    }

    /// As nodes say it to each other.
    pub(crate) fn to_wire(&self) -> sockets::Audience<'_> {
        sockets::Audience {
            namespace: self.namespace.as_bytes(),
            rooms: self.rooms.iter().map(|room| &room.as_bytes()[..]).collect(),
            except: self.except.iter().map(|room| &room.as_bytes()[..]).collect(),
        }
    }

    /// What another node said; `None` if a name is no text.
    pub(crate) fn from_wire(audience: &sockets::Audience<'_>) -> Option<Audience> {
        Some(Audience {
            namespace: text(audience.namespace)?,
            rooms: audience.rooms.iter().map(|room| text(room)).collect::<Option<_>>()?,
            except: audience.except.iter().map(|room| text(room)).collect::<Option<_>>()?,
        })
    }
}

/// A name that came as bytes.
pub(crate) fn text(bytes: &[u8]) -> Option<ByteString> {
    std::str::from_utf8(bytes).ok().map(ByteString::from)
}
