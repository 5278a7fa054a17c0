//! The cluster key: one secret from which every other secret of the cluster is derived.
//!
//! Invariants: at least 32 bytes that are not one byte repeated; never shown; two labels give unrelated secrets.

use hkdf::Hkdf;
use sha2::Sha256;

use crate::KeyError;

/// Fewest bytes of key material (`reliability.md` 4.5).
const MIN_BYTES: usize = 32;

/// The secret all nodes of a cluster share.
#[derive(Clone)]
pub struct ClusterKey(Hkdf<Sha256>);

impl ClusterKey {
    /// Takes key material as it lies in a file; white space around it is not part of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<ClusterKey, KeyError> {
        let material = bytes.trim_ascii();
        if material.len() < MIN_BYTES {
            return Err(KeyError::TooShort(material.len()));
        }
        if material.iter().all(|byte| Some(byte) == material.first()) {
            return Err(KeyError::Weak);
        }
        Ok(ClusterKey(Hkdf::new(Some(b"starling-cluster/1"), material)))
    }

    /// The 32-byte secret named `label`; the same on every node (HKDF-SHA256, RFC 5869).
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let mut secret = [0; 32];
        // Expansion fails only beyond 255 hash lengths; one is asked for.
        let expanded = self.0.expand(label.as_bytes(), &mut secret);
        debug_assert!(expanded.is_ok());
        secret
    }
}

impl ClusterKey {
    /// Tells keys apart without telling them: 16 hexadecimal digits, the same on every node.
    pub fn name(&self) -> String {
        let secret = self.derive("mesh key name");
        secret[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl std::fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterKey(redacted)")
    }
}

/// The keys a node accepts from its peers: one, or two while the cluster changes from one to the other.
///
/// Nodes need not change in step: each side of a handshake names the keys it accepts, and the other shows a certificate of
/// the newest that both know ([`crate::Mesh::rotate`]).
#[derive(Clone, Debug)]
pub struct ClusterKeys {
    /// The one to use where the peer accepts it.
    pub current: ClusterKey,
    /// Accepted still, and used with peers that know no newer one.
    pub previous: Option<ClusterKey>,
}

impl ClusterKeys {
    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &ClusterKey> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl From<ClusterKey> for ClusterKeys {
    fn from(current: ClusterKey) -> ClusterKeys {
        ClusterKeys { current, previous: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn white_space_around_a_key_does_not_change_it() {
        let plain = ClusterKey::from_bytes(KEY).unwrap();
        let padded = ClusterKey::from_bytes(b"  0123456789abcdef0123456789abcdef\r\n").unwrap();
        assert_eq!(plain.derive("x"), padded.derive("x"));
    }

    #[test]
    fn short_and_repeated_keys_are_refused() {
        assert_eq!(ClusterKey::from_bytes(b"short \n").unwrap_err(), KeyError::TooShort(5));
        assert_eq!(ClusterKey::from_bytes(&[0; 64]).unwrap_err(), KeyError::Weak);
    }

    #[test]
    fn labels_and_keys_give_different_secrets() {
        let key = ClusterKey::from_bytes(KEY).unwrap();
        let other = ClusterKey::from_bytes(b"0123456789abcdef0123456789abcdeF").unwrap();
        assert_ne!(key.derive("sid"), key.derive("ca"));
        assert_ne!(key.derive("sid"), other.derive("sid"));
    }

    #[test]
    fn a_key_has_a_name_that_never_changes_and_is_no_part_of_it() {
        let name = ClusterKey::from_bytes(KEY).unwrap().name();
        assert_eq!(name, "23c8641119eb3d08");
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", ClusterKey::from_bytes(KEY).unwrap()), "ClusterKey(redacted)");
    }
}
