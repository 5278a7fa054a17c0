//! What the three members of a slot say to each other, and its bytes.
//!
//! `Say` travels inside `Control::Slot`. What the replica has to keep is the one exception: it is the frame that everybody
//! else gets later, with a head before it, so that the owner encodes each frame once:
//!
//! ```text
//! kind u8 (0x25) | version u8 | number of the term u32 | its lineage u64 | frame …to the end
//! ```
//!
//! Invariants: a link is between one life of a node and one of another, so nothing that was said to the dead is heard by who
//! comes after them, and no message carries generations of its own; decoding is total.

use bincode::{BorrowDecode, Encode};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::message::{DecodeError, Frame, KIND_KEEP};
use crate::NodeId;

const KEEP_VERSION: u8 = 1;
/// Bytes before the frame.
pub(crate) const KEEP_HEAD: usize = 2 + 4 + 8;

/// One life of a node, from its start to its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Its generation.
    pub generation: u64,
}

/// The name of a term. The default names none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct TermId {
    /// Rises along a lineage; a node never goes back to a lower one.
    pub number: u32,
    /// The unbroken history it belongs to.
    pub lineage: u64,
}

/// Who holds the seats. A cluster of fewer than three nodes leaves the last ones empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct Triple {
    /// Stamps.
    pub owner: Life,
    /// Must hold a frame before anybody is shown it.
    pub replica: Option<Life>,
    /// Only votes.
    pub witness: Option<Life>,
}

/// One term. It exists once two members of the one before it have voted for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, BorrowDecode)]
pub struct Term {
    /// Its name.
    pub id: TermId,
    /// The term whose members voted; its own id begins a lineage.
    pub parent: TermId,
    /// Its seats.
    pub triple: Triple,
}

/// What members of a slot say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Say {
    /// I am in this term and vote for the next one; will you?
    Ask {
        /// The asker's term, for those who have not heard of it.
        term: Term,
        /// The one it wants.
        next: Term,
    },
    /// This term exists: two members of the one before voted for it.
    Exists(Term),
    /// I began this term. To its replica and its witness.
    Began {
        /// The term.
        term: Term,
        /// Frames up to here were shown; those after it I send one by one.
        from: u64,
        /// The term that stamped that frame.
        stamped: TermId,
        /// Frames up to here may have been shown by others.
        base: u64,
    },
    /// Replica or witness to owner: I am in this term, and as replica I hold all frames from where it began up to here.
    Ack {
        /// The term.
        term: TermId,
        /// The last frame; `None` from one that keeps none.
        n: Option<u64>,
        /// And all before that too.
        whole: bool,
    },
    /// Owner to replica: frames up to here were shown.
    Shown {
        /// The owner's term.
        term: TermId,
        /// The last one.
        n: u64,
    },
    /// An owner to the owner of another lineage: yours is the one that stays; may I come over?
    Yield {
        /// The term that ends.
        term: Term,
    },
    /// Come: this term is above yours.
    Welcome {
        /// The term that stays.
        term: Term,
        /// What it has of which lineages.
        known: Known,
    },
}

/// Lineages that a slot's book has frames of, the newest last, each with its last `n`; zeros fill it up.
pub type Known = [(u64, u64); KNOWN];

/// So many lineages are told: each needs a failure of two nodes within what history keeps.
pub const KNOWN: usize = 8;

impl Triple {
    /// Those who hold a seat.
    pub fn members(&self) -> impl Iterator<Item = Life> + use<> {
        [Some(self.owner), self.replica, self.witness].into_iter().flatten()
    }

    /// Whether this life holds a seat.
    pub fn has(&self, life: Life) -> bool {
        self.members().any(|member| member == life)
    }

    /// Votes that the next term needs: two, or one where there is only one member.
    pub fn quorum(&self) -> usize {
        self.members().count().min(2)
    }
}

/// A frame for the replica. `plain` shares its bytes.
pub(crate) fn encode_keep(term: TermId, frame: &Frame) -> Bytes {
    let mut out = BytesMut::with_capacity(KEEP_HEAD + frame.size());
    out.put_slice(&[KIND_KEEP, KEEP_VERSION]);
    out.put_u32(term.number);
    out.put_u64(term.lineage);
    frame.encode_into(&mut out);
    out.freeze()
}

/// The frame as everybody else gets it.
pub(crate) fn plain(keep: &Bytes) -> Bytes {
    keep.slice(KEEP_HEAD.min(keep.len())..)
}

/// Reads what `encode_keep` wrote.
pub(crate) fn decode_keep(mut bytes: Bytes) -> Result<(TermId, Frame), DecodeError> {
    if bytes.len() < KEEP_HEAD {
        return Err(DecodeError::Truncated);
    }
    match (bytes.get_u8(), bytes.get_u8()) {
        (KIND_KEEP, KEEP_VERSION) => {}
        (KIND_KEEP, version) => return Err(DecodeError::UnknownVersion(version)),
        (kind, _) => return Err(DecodeError::UnknownKind(kind)),
    }
    let term = TermId { number: bytes.get_u32(), lineage: bytes.get_u64() };
    let frame = Frame::decode(bytes)?;
    if frame.slot != frame.room.slot() || frame.n == 0 { Err(DecodeError::MalformedName) } else { Ok((term, frame)) }
}

impl Encode for Life {
    fn encode<E: bincode::enc::Encoder>(&self, encoder: &mut E) -> Result<(), bincode::error::EncodeError> {
        (self.node.0, self.generation).encode(encoder)
    }
}

impl<'de, C> BorrowDecode<'de, C> for Life {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        decoder: &mut D,
    ) -> Result<Life, bincode::error::DecodeError> {
        let (node, generation) = <(u16, u64)>::borrow_decode(decoder)?;
        Ok(Life { node: NodeId(node), generation })
    }
}

#[cfg(test)]
mod tests;
