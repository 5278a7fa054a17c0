//! What nodes ask each other on streams of their own, outside the order of lanes.
//!
//! Invariants: as in `message`: bodies never change, decoding is total and bounded.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;

use super::{
    message::{DecodeError, config, decode_whole},
    sockets::{Audience, Deed},
    triple::Term,
};

/// What a node asks another on a stream of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Request<'a> {
    /// `count` frames of `room` with `after < n ≤ upto`, from one end of that range.
    History {
        /// `RoomKey` bytes.
        room: &'a [u8],
        /// Exclusive lower bound, if the slot's lineage is `of`; else there are no bounds.
        after: u64,
        /// Inclusive upper bound, likewise.
        upto: u64,
        /// The lineage the bounds belong to; 0 = none.
        of: u64,
        /// At most this many.
        count: u32,
        /// The newest of the range; else the oldest.
        newest: bool,
    },
    /// Figures of the node for `GET /api/cluster`.
    Figures,
    /// Who is present in `room`.
    Presence {
        /// `RoomKey` bytes.
        room: &'a [u8],
    },
    /// Something to do with sockets of the node. Answered by `sockets::Done`.
    Sockets {
        /// Which.
        audience: Audience<'a>,
        /// What.
        deed: Deed<'a>,
    },
    /// A page of what the owner holds of a slot, for its replica.
    Copy {
        /// The slot.
        slot: u16,
        /// Where to go on, as `slot::copying` writes it.
        after: &'a [u8],
    },
    /// What the node knows of the seats of a slot. Answered by `Seats`.
    Seats {
        /// The slot.
        slot: u16,
    },
}

impl<'a> Request<'a> {
    /// The request's bytes.
    pub fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, config()).unwrap_or_default().into()
    }

    /// Reads a request.
    pub fn decode(bytes: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        decode_whole(bytes)
    }
}

/// Answer to `Request::Figures`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Figures {
    /// Open client connections.
    pub connections: u64,
    /// Slots the node is the owner of by its table.
    pub slots: u64,
    /// Its open slots, all shards together (`slot::Census`).
    pub open: OpenSlots,
    /// Its program, such as `0.1.0`.
    pub version: String,
}

/// Open slots of a node by what it is in them; see `slot::Census`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct OpenSlots {
    /// Owner.
    pub owned: u32,
    /// Replica that holds everything.
    pub in_sync: u32,
    /// Replica that is still being told.
    pub syncing: u32,
    /// Witness.
    pub witness: u32,
    /// Of the owned ones, those that one loss would damage.
    pub single_copy: u32,
}

/// Answer to `Request::Seats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Seats {
    /// The newest term of the slot that the node has heard of; `None` = it knows of none.
    pub term: Option<Term>,
    /// What it is in it.
    pub part: Part,
}

/// What a node is in a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Part {
    /// Nothing.
    #[default]
    None,
    /// The owner, and it leads.
    Owner {
        /// Its replica could take over.
        copied: bool,
    },
    /// The replica.
    Replica {
        /// It could take over.
        whole: bool,
    },
    /// The witness.
    Witness,
}

impl Seats {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, config()).unwrap_or_default().into()
    }

    /// Reads an answer.
    pub fn decode(bytes: &[u8]) -> Result<Seats, DecodeError> {
        decode_whole(bytes)
    }
}

impl Figures {
    /// The answer's bytes.
    pub fn encode(&self) -> Bytes {
        bincode::encode_to_vec(self, config()).unwrap_or_default().into()
    }

    /// Reads an answer.
    pub fn decode(bytes: &[u8]) -> Result<Figures, DecodeError> {
        decode_whole(bytes)
    }
}
