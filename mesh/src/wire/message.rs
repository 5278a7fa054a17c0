//! What nodes say to each other inside a lane: room frames, laid by hand, and control messages, in bincode.
//!
//! Invariants: the first byte names the kind; a body is never changed, only a new kind or version added; every decoder is
//! total (an error, never a panic) and allocates no more than the bytes it was given; a stamped room frame is encoded once,
//! by its owner, and every receiver and every store sees those same bytes.
//!
//! Layout of a room frame, big-endian (`semantics.md` 3 names the fields):
//!
//! ```text
//! kind u8 | version u8 | flags u16 | slot u16 | origin node u16 | origin shard u8 | except count u8 | id len u8 | from len u8
//! term u32 | lineage u64 | n u64 | prev u64 | origin generation u64 | oseq u64 | time_ms u64 | room len u16
//! room | id | from | (except len u16, except)* | payload …to the end
//! ```

use bincode::{BorrowDecode, Encode};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::{
    address::LaneKind,
    presence::Said,
    triple::{self, Say, TermId},
};
use crate::{NodeId, room::RoomKey};

/// First byte of a room frame.
pub(super) const KIND_FRAME: u8 = 0x20;
/// First byte of a control message.
pub(super) const KIND_CONTROL: u8 = 0x21;
/// First byte of a frame for the replica (`triple`).
pub(super) const KIND_KEEP: u8 = 0x25;
/// Version of the room frame's layout.
const FRAME_VERSION: u8 = 1;
/// Bytes of a room frame before its variable parts.
const FRAME_HEADER: usize = 12 + 4 + 6 * 8 + 2;
/// A control message is small; the limit also caps what a hostile length can make us allocate.
const CONTROL_LIMIT: usize = 64 * 1024;

/// The message is kept in no history and has no offset.
pub const FLAG_VOLATILE: u16 = 1;
/// The term of a volatile message that is to be shown: none stamped it.
pub(crate) const NO_TERM: u32 = u32::MAX;

/// Why bytes are not a message of ours. The frame is dropped and counted; no state was touched.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("message ends early")]
    Truncated,
    /// The first byte names nothing we know.
    #[error("unknown message kind {0:#04x}")]
    UnknownKind(u8),
    /// A later layout than this build reads.
    #[error("unknown frame version {0}")]
    UnknownVersion(u8),
    /// A control message, or a word in one, that only a later build knows.
    #[error("unknown control message")]
    UnknownControl,
    /// A name is not UTF-8 or a room key has no separator.
    #[error("malformed name")]
    MalformedName,
    /// The control body does not decode within its limit.
    #[error("malformed control message")]
    MalformedControl,
}

impl DecodeError {
    /// Whether a later build may have meant something by it: then it is skipped, and no sign of a defect.
    pub fn is_newer(&self) -> bool {
        match self {
            DecodeError::UnknownKind(_) | DecodeError::UnknownVersion(_) | DecodeError::UnknownControl => true,
            DecodeError::Truncated | DecodeError::MalformedName | DecodeError::MalformedControl => false,
        }
    }
}

/// Who published: with `oseq` it makes a resend recognisable (`semantics.md` 3, exactly once).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The publishing node.
    pub node: NodeId,
    /// Its generation: a restarted node is another origin.
    pub generation: u64,
    /// The shard whose counter `oseq` is.
    pub shard: u8,
    /// Rises by one per publish of that shard.
    pub oseq: u64,
}

/// One message of a room. Unstamped (`n == 0`) on its way to the owner, stamped from there on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it belongs.
    pub room: RoomKey,
    /// `room.slot()`, computed once.
    pub slot: u16,
    /// The unbroken history this offset belongs to; clients see it as `epoch`.
    pub lineage: u64,
    /// Names the triple that stamped it; 0 = on its way to the owner.
    pub term: u32,
    /// Position in the slot; clients see it as `offset`. 0 = not stamped.
    pub n: u64,
    /// `n` of the room's previous frame, or a bound that is at least that: gaps are found with it. On its way to the owner:
    /// `oseq` of the publish before it in this slot that is unanswered too, 0 = none, for the same purpose.
    pub prev: u64,
    /// Who published it.
    pub origin: Origin,
    /// Owner's wall clock when stamped, Unix milliseconds.
    pub time_ms: u64,
    /// `FLAG_*`.
    pub flags: u16,
    /// The publisher's idempotency key; empty = none.
    pub id: ByteString,
    /// The publisher's user; empty = anonymous.
    pub from: ByteString,
    /// Rooms and sockets that are left out.
    pub except: Vec<ByteString>,
    /// The Socket.IO packet as server-side WebSocket frames, exactly what members receive.
    pub payload: Bytes,
}

impl Frame {
    /// Whether the frame has no order and no history.
    pub fn is_volatile(&self) -> bool {
        self.flags & FLAG_VOLATILE != 0
    }

    /// The frame's bytes for lanes and store.
    ///
    /// Names longer than their length fields are cut off by the edge's limits long before; here they are clamped so that
    /// encoding is total.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// About as many bytes as it has encoded.
    pub(crate) fn size(&self) -> usize {
        let names = self.room.as_bytes().len() + self.id.len() + self.from.len();
        FRAME_HEADER + names + 256 * self.except.len().min(1) + self.payload.len()
    }

    /// Writes the frame's bytes.
    pub(crate) fn encode_into(&self, out: &mut BytesMut) {
        let (room, id, from) = (self.room.as_bytes(), clamp(&self.id), clamp(&self.from));
        let except = &self.except[..self.except.len().min(usize::from(u8::MAX))];
        out.put_slice(&[KIND_FRAME, FRAME_VERSION]);
        out.put_u16(self.flags);
        out.put_u16(self.slot);
        out.put_u16(self.origin.node.0);
        out.put_slice(&[self.origin.shard, narrow(except.len()), narrow(id.len()), narrow(from.len())]);
        out.put_u32(self.term);
        for word in [self.lineage, self.n, self.prev, self.origin.generation, self.origin.oseq, self.time_ms] {
            out.put_u64(word);
        }
        out.put_u16(u16::try_from(room.len()).unwrap_or(u16::MAX));
        out.put_slice(&room[..room.len().min(usize::from(u16::MAX))]);
        out.put_slice(id);
        out.put_slice(from);
        for name in except {
            let name = &name.as_bytes()[..name.len().min(usize::from(u16::MAX))];
            out.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
            out.put_slice(name);
        }
        out.put_slice(&self.payload);
    }

    /// Reads `encode`'s bytes back; names and payload are slices of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Frame, DecodeError> {
        if bytes.len() < FRAME_HEADER {
            return Err(DecodeError::Truncated);
        }
        match (bytes.get_u8(), bytes.get_u8()) {
            (KIND_FRAME, FRAME_VERSION) => {}
            (KIND_FRAME, version) => return Err(DecodeError::UnknownVersion(version)),
            (kind, _) => return Err(DecodeError::UnknownKind(kind)),
        }
        let flags = bytes.get_u16();
        let slot = bytes.get_u16();
        let node = NodeId(bytes.get_u16());
        let shard = bytes.get_u8();
        let (excepts, id_len, from_len) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u8());
        let term = bytes.get_u32();
        let (lineage, n, prev) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u64());
        let (generation, oseq, time_ms) = (bytes.get_u64(), bytes.get_u64(), bytes.get_u64());
        let room_len = usize::from(bytes.get_u16());
        let room = RoomKey::from_bytes(take(&mut bytes, room_len)?).ok_or(DecodeError::MalformedName)?;
        let id = take_name(&mut bytes, usize::from(id_len))?;
        let from = take_name(&mut bytes, usize::from(from_len))?;
        let mut except = Vec::with_capacity(usize::from(excepts));
        for _ in 0..excepts {
            let len = bytes.try_get_u16().map_err(|_| DecodeError::Truncated)?;
            except.push(take_name(&mut bytes, usize::from(len))?);
        }
        let origin = Origin { node, generation, shard, oseq };
        Ok(Frame { room, slot, lineage, term, n, prev, origin, time_ms, flags, id, from, except, payload: bytes })
    }
}

fn clamp(name: &ByteString) -> &[u8] {
    &name.as_bytes()[..name.len().min(usize::from(u8::MAX))]
}

fn narrow(len: usize) -> u8 {
    u8::try_from(len).unwrap_or(u8::MAX)
}

fn take(bytes: &mut Bytes, len: usize) -> Result<Bytes, DecodeError> {
    if bytes.len() < len { Err(DecodeError::Truncated) } else { Ok(bytes.split_to(len)) }
}

fn take_name(bytes: &mut Bytes, len: usize) -> Result<ByteString, DecodeError> {
    ByteString::try_from(take(bytes, len)?).map_err(|_| DecodeError::MalformedName)
}

/// Why the owner did not take a publish; the text is the client's error code (`interface.md` 1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Refusal {
    /// Queues are full or the owner could not be reached in time; try again after `retry_ms`.
    Overloaded {
        /// Milliseconds after which a retry makes sense.
        retry_ms: u32,
    },
    /// The disk is full and nobody else holds a copy.
    StorageFull,
    /// The node is going away.
    Draining,
    /// A bug; nothing is known about the effect.
    Internal,
    /// It was sent and the owner did not answer in time; nothing is known about the effect. Never sent.
    Timeout,
    /// The room lists as many members as it can. Never sent.
    LimitReached,
}

/// Small messages about slots. Only the owner answers; anybody else says `NotOwner` and the asker tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Control<'a> {
    /// Follower → owner: this node has members of `room` now.
    InterestAdd {
        /// `RoomKey` bytes.
        room: &'a [u8],
    },
    /// Follower → owner: no members any more.
    InterestDrop {
        /// `RoomKey` bytes.
        room: &'a [u8],
    },
    /// Owner → follower, in the same lane as the frames: from here on every frame with `n` greater than this arrives.
    InterestAck {
        /// `RoomKey` bytes.
        room: &'a [u8],
        /// The slot's lineage.
        lineage: u64,
        /// The slot's head: a cursor after everything so far.
        head: u64,
        /// The room's last frame, or a bound at least that.
        last: u64,
    },
    /// Owner → origin: `oseq` was stamped.
    Published {
        /// The slot it went to.
        slot: u16,
        /// The origin's shard.
        shard: u8,
        /// The origin's counter.
        oseq: u64,
        /// The slot's lineage.
        lineage: u64,
        /// Its offset.
        n: u64,
    },
    /// Owner → origin: `oseq` was not stamped and will not be.
    Refused {
        /// The slot it went to.
        slot: u16,
        /// The origin's shard.
        shard: u8,
        /// The origin's counter.
        oseq: u64,
        /// Why.
        why: Refusal,
    },
    /// Anybody → asker: I do not own this slot; ask again when views agree.
    NotOwner {
        /// The slot that was asked for.
        slot: u16,
    },
    /// Owner → follower: frames for you were dropped because your lane was full; say again what you want of those slots.
    Resync {
        /// The owner's number of shards and the shard that dropped: slots with `slot % of == shard` are meant.
        shard: u8,
        /// See `shard`.
        of: u8,
        /// And of these only slots with `slot % LANES == lane`.
        lane: u8,
    },
    /// Owner → origin: a publish before one of yours in this slot never came; send again what is unanswered, in order.
    Resend {
        /// The slot.
        slot: u16,
    },
    /// Who is present in a room, see `presence`.
    Presence {
        /// `RoomKey` bytes.
        room: &'a [u8],
        /// What is said.
        said: Said<'a>,
    },
    /// Follower → owner, in the lane of its interest: a slot, how many rooms of it are wanted, and the exclusive or of
    /// xxh3-64 of their `RoomKey` bytes.
    InterestDigest(u16, u32, u64),
    /// Owner → follower: I knew something else of this slot and forgot all of it; say again what you want.
    InterestLost(u16),
    /// Between nodes that hold seats of a slot, or want to know who does, see `triple`.
    Slot {
        /// The slot.
        slot: u16,
        /// What is said.
        say: Say,
    },
    /// Everything that one shard of the speaker knows of terms has been said in this lane.
    Told {
        /// The speaker's shard.
        shard: u8,
        /// And how many shards it has.
        of: u8,
        /// The lane.
        lane: u8,
    },
    /// I live. Said a few times a second to whom silence would mean something.
    Beat,
    /// Origin → owner: a lease that is used ends soon.
    LeaseAsk {
        /// `RoomKey` bytes.
        room: &'a [u8],
    },
    /// Owner → origin: who wants a room, for volatile messages (`slot::volatile`).
    Lease {
        /// `RoomKey` bytes.
        room: &'a [u8],
        /// The owner has handed out what the origin sent it in this slot up to this `oseq`; 0 = nobody asked, the set changed.
        upto: u64,
        /// The nodes without the origin, big-endian ordinals; `None` = nobody wants it, there is no lease.
        nodes: Option<&'a [u8]>,
    },
}

impl Control<'_> {
    /// The message's bytes for a lane.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![KIND_CONTROL];
        // Encoding into a Vec cannot fail: it grows, and none of our types has a fallible encoder.
        if bincode::encode_into_std_write(self, &mut out, config()).is_err() {
            out.truncate(1);
        }
        out.into()
    }
}

/// One message of a lane, as received.
#[derive(Debug, PartialEq, Eq)]
pub enum LaneMessage<'a> {
    /// A room frame, stamped (owner → follower) or not (origin → owner).
    Frame(Frame),
    /// A control message, borrowed from the received bytes.
    Control(Control<'a>),
    /// A frame for the replica, said in this term.
    Keep(TermId, Frame),
}

impl<'a> LaneMessage<'a> {
    /// Reads one application frame of a lane.
    pub fn decode(bytes: &'a Bytes) -> Result<LaneMessage<'a>, DecodeError> {
        match LaneKind::of(bytes)? {
            LaneKind::Frame => Frame::decode(bytes.clone()).map(LaneMessage::Frame),
            LaneKind::Control => decode_whole(&bytes[1..]).map(LaneMessage::Control),
            LaneKind::Keep => triple::decode_keep(bytes.clone()).map(|(term, frame)| LaneMessage::Keep(term, frame)),
        }
    }
}

/// The one configuration of bincode: never without a limit.
pub(super) fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<CONTROL_LIMIT>()
}

/// Decodes a value that is all of `bytes`.
pub(super) fn decode_whole<'a, T: BorrowDecode<'a, ()>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match bincode::borrow_decode_from_slice(bytes, config()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Err(bincode::error::DecodeError::UnexpectedVariant { .. }) => Err(DecodeError::UnknownControl),
        Ok(_) | Err(_) => Err(DecodeError::MalformedControl),
    }
}

#[cfg(test)]
mod tests;
