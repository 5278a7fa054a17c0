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

/// Whether a name is the id of a socket, of this node or another, alive or gone.
pub fn is_socket_id(name: &str, key: &SidKey) -> bool {
    let mut bytes = [0; BYTES];
    if name.len() != CHARS || URL_SAFE_NO_PAD.decode_slice(name, &mut bytes) != Ok(BYTES) {
        return false;
    }
    let mac = key.sign(&[LABEL, &bytes[..SIGNED]]);
    bytes[SIGNED..] == mac[..BYTES - SIGNED]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_recognised_by_every_holder_of_the_key_and_by_nobody_else() {
        let key = SidKey::new(b"secret");
        let id = mint(3, 1, [7; 8], &key);
        assert_eq!(id.len(), 20);
        assert!(is_socket_id(&id, &SidKey::new(b"secret")));
        assert!(!is_socket_id(&id, &SidKey::new(b"another")));
    }

    #[test]
    fn names_of_rooms_are_no_ids() {
        let key = SidKey::new(b"secret");
        for name in ["", "lobby", "AAAAAAAAAAAAAAAAAAAA", "twenty characters!!!", "äääääääääääääääääääää"]
        {
            assert!(!is_socket_id(name, &key), "{name}");
        }
    }
}
