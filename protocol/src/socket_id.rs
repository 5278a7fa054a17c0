//! The public id of a socket: it names the node and the shard that hold it, and nobody else can make one.
//!
//! Invariants: an id is no secret (the session's `Sid` is), so it grants nothing; but since every socket is in the room of
//! its own id, a room that is named like an id must be recognised on every node (`interface.md` 1.1), which the MAC does.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::SidKey;

/// What is signed: node (16 bits), shard (8), 64 random bits, big-endian.
const SIGNED: usize = 11;
/// The signed part and a MAC cut to 32 bits: a room name that looks like an id by chance is one in four billion.
const BYTES: usize = 15;
/// Length of the text form, as long as the reference server's ids.
const CHARS: usize = 20;
/// Keeps these signatures apart from those of session ids, which the same key makes.
const LABEL: &[u8] = b"socket";

/// Makes the id of a new socket; `random` must come from the operating system's generator.
pub fn mint(node: u16, shard: u8, random: [u8; 8], key: &SidKey) -> String {
    let mut bytes = [0; BYTES];
    bytes[..2].copy_from_slice(&node.to_be_bytes());
    bytes[2] = shard;
    bytes[3..SIGNED].copy_from_slice(&random);
    let mac = key.sign(&[LABEL, &bytes[..SIGNED]]);
    bytes[SIGNED..].copy_from_slice(&mac[..BYTES - SIGNED]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where a socket is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the node.
    pub node: u16,
    /// Shard of that node.
    pub shard: u8,
}

/// Whose id a name is; `None` unless it is that of a socket, of this node or another, alive or gone.
pub fn place(name: &str, key: &SidKey) -> Option<Place> {
    let mut bytes = [0; BYTES];
    if name.len() != CHARS || URL_SAFE_NO_PAD.decode_slice(name, &mut bytes) != Ok(BYTES) {
        return None;
    }
    let mac = key.sign(&[LABEL, &bytes[..SIGNED]]);
    let place = Place { node: u16::from_be_bytes([bytes[0], bytes[1]]), shard: bytes[2] };
    (bytes[SIGNED..] == mac[..BYTES - SIGNED]).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_recognised_by_every_holder_of_the_key_and_by_nobody_else() {
        let key = SidKey::new(b"secret");
        let id = mint(3, 1, [7; 8], &key);
        assert_eq!(id.len(), 20);
        assert_eq!(place(&id, &SidKey::new(b"secret")), Some(Place { node: 3, shard: 1 }));
        assert_eq!(place(&id, &SidKey::new(b"another")), None);
    }

    #[test]
    fn names_of_rooms_are_no_ids() {
        let key = SidKey::new(b"secret");
        for name in ["", "lobby", "AAAAAAAAAAAAAAAAAAAA", "twenty characters!!!", "äääääääääääääääääääää"]
        {
            assert_eq!(place(name, &key), None, "{name}");
        }
    }
}
