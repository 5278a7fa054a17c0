//! Engine.IO session ids that name the node, the life of that node and the shard which hold the session.
//!
//! Invariants: only ids made with our key parse, so a forged id never reaches a lookup, here or on another node. An id
//! is a bearer secret: `Display` is for the wire only, `Debug` is for logs and hides everything that grants access.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What is signed: node (16 bits), generation (24), shard (8), 96 random bits, big-endian.
const SIGNED: usize = 18;
/// The signed part and a MAC cut to 48 bits: enough, because a guess must be made online and also hit a live session.
const BYTES: usize = 24;
/// Length of the text form; a multiple of four base64 digits, so the encoding of an id is unique.
const CHARS: usize = 32;
/// Separates this use of the cluster secret from every other one.
const KEY_LABEL: &[u8] = b"starling sid key v1";

/// The key that signs session ids; every node of a cluster derives the same one.
#[derive(Clone)]
pub struct SidKey(Hmac<Sha256>);

impl SidKey {
    /// Derives the signing key from a secret of any length.
    pub fn new(secret: &[u8]) -> SidKey {
        let digest = Sha256::new().chain_update(KEY_LABEL).chain_update(secret).finalize();
        // HMAC pads a short key with zeros; doing so here avoids a fallible constructor that cannot fail.
        let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
        block.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        SidKey(Hmac::new(&block))
    }

    /// The whole MAC of `parts`, one after the other.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        parts.iter().fold(self.0.clone(), |mac, part| mac.chain_update(part)).finalize().into_bytes().into()
    }

    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(signed)
    }
}

impl fmt::Debug for SidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SidKey(redacted)")
    }
}

/// One session id (semantics.md 4): 24 bytes, 32 base64url characters on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid([u8; BYTES]);

impl Sid {
    /// Makes the id of a new session. Only the low 24 bits of `generation` are kept; `random` must come from the
    /// operating system's generator.
    pub fn mint(node: u16, generation: u32, shard: u8, random: [u8; 12], key: &SidKey) -> Sid {
        let mut bytes = [0; BYTES];
        let (signed, mac) = bytes.split_at_mut(SIGNED);
        signed[..2].copy_from_slice(&node.to_be_bytes());
        signed[2..5].copy_from_slice(&generation.to_be_bytes()[1..]);
        signed[5] = shard;
        signed[6..].copy_from_slice(&random);
        mac.iter_mut().zip(key.mac(signed).finalize().into_bytes()).for_each(|(to, from)| *to = from);
        Sid(bytes)
    }

    /// Reads an id as a client sent it.
    ///
    /// # Errors
    /// Any text that `mint` with the same key did not make. Answer it as an unknown session; the two kinds differ only
    /// for the metrics.
    pub fn parse(text: &str, key: &SidKey) -> Result<Sid, SidError> {
        if text.len() != CHARS {
            return Err(SidError::Malformed);
        }
        let mut bytes = [0; BYTES];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(BYTES) => {}
            Ok(_) | Err(_) => return Err(SidError::Malformed),
        }
        let (signed, mac) = bytes.split_at(SIGNED);
        key.mac(signed).verify_truncated_left(mac).map_err(|_| SidError::Forged)?;
        Ok(Sid(bytes))
    }

    /// The ordinal of the node that made the session.
    pub fn node(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The low 24 bits of that node's generation: a session of an earlier life of the node is gone.
    pub fn generation(&self) -> u32 {
        u32::from_be_bytes([0, self.0[2], self.0[3], self.0[4]])
    }

    /// The shard of that node which owns the session.
    pub fn shard(&self) -> u8 {
        self.0[5]
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64::display::Base64Display::new(&self.0, &URL_SAFE_NO_PAD).fmt(f)
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sid(node {}, generation {}, shard {})", self.node(), self.generation(), self.shard())
    }
}

/// Why a text is not one of our session ids. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidError {
    /// Not 32 base64url characters.
    #[error("not a session id")]
    Malformed,
    /// Well formed, but not signed with our key.
    #[error("session id with a wrong signature")]
    Forged,
}

#[cfg(test)]
mod tests;
