//! Where the bytes of a lane belong and what they are for, read without decoding the rest.
//!
//! Invariants: as in `message`: total, and nothing is allocated for bytes that are not there.

use bytes::Bytes;

use super::{
    message::{Control, DecodeError, KIND_CONTROL, KIND_FRAME, KIND_KEEP, decode_whole},
    triple,
};
use crate::room::RoomKey;

/// What one application frame is, by its first byte.
pub(super) enum LaneKind {
    Frame,
    Control,
    Keep,
}

impl LaneKind {
    pub(super) fn of(bytes: &[u8]) -> Result<LaneKind, DecodeError> {
        match bytes.first() {
            Some(&KIND_FRAME) => Ok(LaneKind::Frame),
            Some(&KIND_CONTROL) => Ok(LaneKind::Control),
            Some(&KIND_KEEP) => Ok(LaneKind::Keep),
            Some(&kind) => Err(DecodeError::UnknownKind(kind)),
            None => Err(DecodeError::Truncated),
        }
    }
}

/// Why a peer sent a room's frame here, read without decoding the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be stamped: this node is taken for the owner.
    Publish,
    /// To be kept: this node is the replica.
    Keep,
    /// To be shown: this node has members.
    Show,
}

impl Purpose {
    /// `None` = it is no frame of a room.
    pub fn peek(bytes: &[u8]) -> Option<Purpose> {
        match (LaneKind::of(bytes).ok()?, bytes.get(12..16)?) {
            (LaneKind::Frame, [0, 0, 0, 0]) => Some(Purpose::Publish),
            (LaneKind::Frame, _) => Some(Purpose::Show),
            (LaneKind::Keep, _) => Some(Purpose::Keep),
            (LaneKind::Control, _) => None,
        }
    }
}

/// Where the bytes of one application frame belong, read without decoding the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// The shard of this slot handles it.
    Slot(u16),
    /// Every shard must see it.
    Everybody,
}

impl Address {
    /// Reads the address of an application frame.
    pub fn peek(bytes: &Bytes) -> Result<Address, DecodeError> {
        let frame = match LaneKind::of(bytes)? {
            LaneKind::Frame => 0,
            LaneKind::Keep => triple::KEEP_HEAD,
            LaneKind::Control => return Address::of_control(decode_whole(&bytes[1..])?),
        };
        match bytes.get(frame + 4..frame + 6) {
            Some(&[high, low]) => Ok(Address::Slot(u16::from_be_bytes([high, low]))),
            Some(_) | None => Err(DecodeError::Truncated),
        }
    }

    fn of_control(control: Control<'_>) -> Result<Address, DecodeError> {
        match control {
            Control::InterestAdd { room }
            | Control::InterestDrop { room }
            | Control::InterestAck { room, .. }
            | Control::LeaseAsk { room }
            | Control::Lease { room, .. }
            | Control::Presence { room, .. } => {
                let room = RoomKey::from_bytes(Bytes::copy_from_slice(room)).ok_or(DecodeError::MalformedName)?;
                Ok(Address::Slot(room.slot()))
            }
            Control::Published { slot, .. }
            | Control::Refused { slot, .. }
            | Control::NotOwner { slot }
            | Control::Resend { slot }
            | Control::InterestDigest(slot, ..)
            | Control::InterestLost(slot)
            | Control::Slot { slot, .. } => Ok(Address::Slot(slot)),
            Control::Resync { .. } | Control::Told { .. } | Control::Beat => Ok(Address::Everybody),
        }
    }
}
