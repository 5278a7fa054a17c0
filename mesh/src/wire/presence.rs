//! What nodes say to each other about who is present in a room, inside [`Control::Presence`].
//!
//! Invariants: as in `message`. Ids and bodies are UTF-8, checked where they are taken.

use bincode::{BorrowDecode, Encode};
use bytes::Bytes;

use super::message::Control;
use crate::room::RoomKey;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub enum Said<'a> {
    /// Follower → owner: a member of this node shows itself.
    Enter {
        /// Its name.
        id: &'a [u8],
        /// What others see of it.
        body: &'a [u8],
    },
    /// Follower → owner: it does not any more.
    Depart {
        /// Its name.
        id: &'a [u8],
    },
    /// Owner → follower: a change of the list.
    Change {
        /// Rises by one per change of the room.
        seq: u64,
        /// The member's node.
        node: u16,
        /// The member's name.
        id: &'a [u8],
        /// What others see of it; `None` = it left.
        body: Option<&'a [u8]>,
    },
    /// Owner → follower: the list has no place for this member of yours.
    Crowded {
        /// Its name.
        id: &'a [u8],
    },
    /// Follower → owner: all members of this node, in parts.
    Mine {
        /// What is said.
        part: Part<'a>,
    },
    /// Owner → follower, in return: all members of the room, in parts.
    List {
        /// The newest change that is in it.
        seq: u64,
        /// What is said.
        part: Part<'a>,
    },
    /// Follower → the owner until now: for this node the room has another owner, who hears of its members from here on.
    Elsewhere,
}

/// A part of a roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, BorrowDecode)]
pub struct Part<'a> {
    /// The roll begins here.
    pub first: bool,
    /// The roll is whole with this part.
    pub last: bool,
    /// Members, laid by hand (`slot/presence/parts`).
    pub members: &'a [u8],
}

impl Said<'_> {
    /// The bytes of this, said about `room`, for a lane.
    pub fn encode(self, room: &RoomKey) -> Bytes {
        Control::Presence { room: room.as_bytes(), said: self }.encode()
    }
}
