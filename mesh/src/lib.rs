//! The cluster: who is in it, who owns which slot, and links that carry opaque frames between nodes.
//!
//! Invariants: the mesh knows topics and bytes, never sockets or JSON; everything it does happens on the one thread that
//! runs [`Driver::run`], so upcalls of one peer arrive in order; membership (`membership`), placement (`ring`), framing
//! (`wire`) and the dial policy (`peers`) are values without clock or socket; nothing a peer sends is parsed before its
//! certificate proved that it holds the cluster key.
//!
//! Use: [`bind`] a [`Driver`], keep its [`Mesh`] handle, [`Driver::run`] it with a [`Handler`].

#[cfg(fuzzing)]
pub mod fuzzing;
pub mod room;
pub mod slot;
pub mod wire;

mod clock;
mod close;
mod config;
mod driver;
mod endpoint;
mod error;
mod event;
mod greeting;
mod handle;
mod key;
mod lane;
mod link;
mod membership;
mod peers;
mod pipe;
mod refusals;
mod request;
mod ring;
mod rng;
mod seeds;
mod tls;
mod view;

pub use config::{Config, Timings};
pub use driver::{Driver, bind};
pub use error::{BatchError, BindError, KeyError, RequestError, RotateError, RunError, SendError};
pub use event::{Event, Handler, Responder};
pub use handle::{LaneInfo, LinkInfo, LinkState, Mesh, Stats};
pub use key::{ClusterKey, ClusterKeys};
pub use lane::{LANE_HARD_BYTES, LANE_SOFT_BYTES, LANE_SPARE_BYTES, MAX_FRAME};
pub use pipe::{MAX_HEAD, Pipe, PipeError, PipeUse};
pub use refusals::RefusalReason;
pub use request::{MAX_ANSWER, MAX_REQUEST};
pub use ring::Table;
pub use view::{Member, MemberState, View};

/// Slots of a cluster: the unit of ownership. Fixed for the life of a cluster and checked in every hello (`mesh.md` 2.3).
pub const SLOTS: u16 = 4096;

/// Room lanes of a link; a slot's frames travel in lane `slot % LANES`, which keeps them in order.
pub const LANES: u8 = 4;

/// A node's place in the cluster: its StatefulSet ordinal. A restarted node keeps it and gets a higher generation.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u16);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The 64-bit name of a room: xxh3-64 of `namespace \0 room`. Frozen: stores and peers rely on the value.
pub fn room_hash(namespace: &str, room: &str) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
    hasher.update(namespace.as_bytes());
    hasher.update(&[0]);
    hasher.update(room.as_bytes());
    hasher.digest()
}

/// The slot of a room: [`room_hash`] modulo [`SLOTS`].
pub fn slot_of(namespace: &str, room: &str) -> u16 {
    // The remainder of a division by a u16 is a u16.
    u16::try_from(room_hash(namespace, room) % u64::from(SLOTS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_hashes_and_slots_never_change() {
        let golden = [
            ("/", "lobby", 0x65aa_d2c5_0576_b95f, 2399),
            ("/", "", 0x093d_b4e2_5783_82cd, 717),
            ("/chat", "room-42", 0xd875_e50f_1030_5484, 1156),
            ("/", "комната", 0xdb84_eeb6_fcbd_aeef, 3823),
        ];
        for (namespace, room, hash, slot) in golden {
            assert_eq!((room_hash(namespace, room), slot_of(namespace, room)), (hash, slot), "{namespace} {room}");
        }
    }

    #[test]
    fn the_separator_keeps_namespace_and_room_apart() {
        assert_ne!(room_hash("/a", "b"), room_hash("/", "ab"));
    }
}
