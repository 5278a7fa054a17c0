//! The name of a room across the cluster: namespace and room, joined by a zero byte.
//!
//! Invariants: a zero byte never occurs inside either part (namespaces and rooms are refused with control characters
//! at the edge), so the key can be split again without a length; equal keys hash to equal slots on every node.

use bytestring::ByteString;

/// A room as the mesh knows it: `namespace \0 room`, cloned for free.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey(ByteString);

impl RoomKey {
    /// The key of `room` in `namespace`.
    pub fn new(namespace: &str, room: &str) -> RoomKey {
        let mut key = String::with_capacity(namespace.len() + 1 + room.len());
        key.push_str(namespace);
        key.push('\0');
        key.push_str(room);
        RoomKey(key.into())
    }

    /// A key read back from the wire or the store; `None` without a separator.
    pub fn from_bytes(key: bytes::Bytes) -> Option<RoomKey> {
        let key = ByteString::try_from(key).ok()?;
        key.contains('\0').then_some(RoomKey(key))
    }

    /// The namespace part.
    pub fn namespace(&self) -> &str {
        self.0.split_once('\0').map_or("", |(namespace, _)| namespace)
    }

    /// The room part.
    pub fn room(&self) -> &str {
        self.0.split_once('\0').map_or("", |(_, room)| room)
    }

    /// The slot that owns this room's order.
    pub fn slot(&self) -> u16 {
        crate::slot_of(self.namespace(), self.room())
    }

    /// The whole key as bytes, as stored and sent.
    pub fn as_bytes(&self) -> &bytes::Bytes {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_splits_into_what_it_was_made_of() {
        let key = RoomKey::new("/admin", "lobby");
        assert_eq!((key.namespace(), key.room()), ("/admin", "lobby"));
        assert_eq!(RoomKey::from_bytes(key.as_bytes().clone()), Some(key));
    }

    #[test]
    fn bytes_without_a_separator_are_no_key() {
        assert_eq!(RoomKey::from_bytes(bytes::Bytes::from_static(b"lobby")), None);
        assert_eq!(RoomKey::from_bytes(bytes::Bytes::from_static(b"\xff\0x")), None);
    }
}
