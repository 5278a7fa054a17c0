//! Bodies the links themselves exchange: identities, hello, and lists of members; laid by hand, big-endian.
//!
//! Invariants: total decoders; what a count or length claims is never allocated beyond the bytes that are there; golden
//! bytes below freeze the layout.
//!
//! ```text
//! address   family u8 (4 | 6) | port u16 | ip
//! identity  node u16 | generation u64 | edition u16 | flags u8 (1 = draining) | address | name len u8 | name
//! hello     oldest u16 | newest u16 | slots u16 | lanes u8 | address of the receiver as the sender sees it | identity
//! member    identity | incarnation u16 | state u8 (0 alive, 1 suspect, 2 down)
//! roster    count u16 | member*
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Member, State};

use crate::{LANES, NodeId, SLOTS, config::MAX_NAME, membership::Identity, wire::header::FrameError};

/// Oldest protocol of links this build speaks.
pub(crate) const PROTOCOL_OLDEST: u16 = 1;
/// Newest protocol of links this build speaks; a pair uses the newest both know.
pub(crate) const PROTOCOL_NEWEST: u16 = 1;
/// Largest hello.
pub(crate) const MAX_HELLO: usize = 1024;
/// Largest roster; a thousand members need a tenth of it.
pub(crate) const MAX_ROSTER: usize = 1 << 20;

const DRAINING: u8 = 1;

/// What each side says first on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Oldest and newest protocol it speaks.
    pub(crate) protocol: (u16, u16),
    /// Its number of slots; must be ours.
    pub(crate) slots: u16,
    /// Its number of room lanes; must be ours.
    pub(crate) lanes: u8,
    /// Where it sees the receiver of this hello.
    pub(crate) you: SocketAddr,
    /// Who it is.
    pub(crate) identity: Identity,
}

impl Hello {
    /// Our hello to the peer at `you`.
    pub(crate) fn new(identity: Identity, you: SocketAddr) -> Hello {
        Hello { protocol: (PROTOCOL_OLDEST, PROTOCOL_NEWEST), slots: SLOTS, lanes: LANES, you, identity }
    }

    /// Why this peer cannot talk with us, if so.
    pub(crate) fn incompatibility(&self) -> Option<String> {
        let (oldest, newest) = self.protocol;
        if oldest > PROTOCOL_NEWEST || newest < PROTOCOL_OLDEST {
            return Some(format!("speaks protocols {oldest} to {newest}, we {PROTOCOL_OLDEST} to {PROTOCOL_NEWEST}"));
        }
        (self.slots != SLOTS || self.lanes != LANES)
            .then(|| format!("has {} slots and {} lanes, we {SLOTS} and {LANES}", self.slots, self.lanes))
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut buf = BytesMut::with_capacity(160);
        buf.put_u16(self.protocol.0);
        buf.put_u16(self.protocol.1);
        buf.put_u16(self.slots);
        buf.put_u8(self.lanes);
        put_addr(&mut buf, self.you);
        put_identity(&mut buf, &self.identity);
        buf.freeze()
    }

    /// Reads a hello; bytes after it belong to later versions and are ignored.
    pub(crate) fn decode(mut body: Bytes) -> Result<Hello, FrameError> {
        let malformed = |_| FrameError::Malformed("hello");
        let buf = &mut body;
        let protocol = (get_u16(buf).map_err(malformed)?, get_u16(buf).map_err(malformed)?);
        let slots = get_u16(buf).map_err(malformed)?;
        let lanes = get_u8(buf).map_err(malformed)?;
        let you = get_addr(buf).map_err(malformed)?;
        let identity = get_identity(buf).map_err(malformed)?;
        Ok(Hello { protocol, slots, lanes, you, identity })
    }
}

/// A body ended early, or the buffer to write has no room.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CodecError {
    /// Not enough bytes to read.
    #[error("ends early")]
    Truncated,
    /// A value outside its range.
    #[error("value out of range")]
    Invalid,
    /// The packet is full.
    #[error("no room")]
    Full,
}

/// Most bytes an identity takes.
pub(crate) const MAX_IDENTITY: usize = 2 + 8 + 2 + 1 + 19 + 1 + MAX_NAME;

pub(crate) fn put_identity(buf: &mut impl BufMut, identity: &Identity) {
    let name = identity.name.as_bytes();
    let name = &name[..name.len().min(MAX_NAME)];
    buf.put_u16(identity.node.0);
    buf.put_u64(identity.generation);
    buf.put_u16(identity.edition);
    buf.put_u8(if identity.draining { DRAINING } else { 0 });
    put_addr(buf, identity.addr);
    buf.put_u8(u8::try_from(name.len()).unwrap_or(0));
    buf.put_slice(name);
}

pub(crate) fn get_identity(buf: &mut impl Buf) -> Result<Identity, CodecError> {
    let node = NodeId(get_u16(buf)?);
    let generation = get_u64(buf)?;
    let edition = get_u16(buf)?;
    let draining = get_u8(buf)? & DRAINING != 0;
    let addr = get_addr(buf)?;
    let name_len = usize::from(get_u8(buf)?);
    if name_len > MAX_NAME {
        return Err(CodecError::Invalid);
    }
    need(buf, name_len)?;
    let name: Arc<str> = String::from_utf8_lossy(&buf.copy_to_bytes(name_len)).into();
    Ok(Identity { node, generation, edition, draining, addr, name })
}

pub(crate) fn put_member(buf: &mut impl BufMut, member: &Member<Identity>) {
    put_identity(buf, member.id());
    buf.put_u16(member.incarnation());
    buf.put_u8(match member.state() {
        State::Alive => 0,
        State::Suspect => 1,
        State::Down => 2,
    });
}

pub(crate) fn get_member(buf: &mut impl Buf) -> Result<Member<Identity>, CodecError> {
    let identity = get_identity(buf)?;
    let incarnation = get_u16(buf)?;
    let state = match get_u8(buf)? {
        0 => State::Alive,
        1 => State::Suspect,
        2 => State::Down,
        _ => return Err(CodecError::Invalid),
    };
    Ok(Member::new(identity, incarnation, state))
}

/// A roster of at most [`MAX_ROSTER`] bytes; members beyond that are left out and reach the peer by gossip.
pub(crate) fn encode_roster<'a>(members: impl Iterator<Item = &'a Member<Identity>>) -> Bytes {
    let mut buf = BytesMut::with_capacity(1024);
    buf.put_u16(0);
    let mut count = 0_u16;
    for member in members {
        if buf.len() + MAX_IDENTITY + 3 > MAX_ROSTER || count == u16::MAX {
            break;
        }
        put_member(&mut buf, member);
        count += 1;
    }
    buf[..2].copy_from_slice(&count.to_be_bytes());
    buf.freeze()
}

pub(crate) fn decode_roster(mut body: Bytes) -> Result<Vec<Member<Identity>>, CodecError> {
    let count = get_u16(&mut body)?;
    (0..count).map(|_| get_member(&mut body)).collect()
}

fn put_addr(buf: &mut impl BufMut, addr: SocketAddr) {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => {
            buf.put_u8(4);
            buf.put_u16(addr.port());
            buf.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            buf.put_u8(6);
            buf.put_u16(addr.port());
            buf.put_slice(&ip.octets());
        }
    }
}

fn get_addr(buf: &mut impl Buf) -> Result<SocketAddr, CodecError> {
    let family = get_u8(buf)?;
    let port = get_u16(buf)?;
    let ip = match family {
        4 => {
            need(buf, 4)?;
            IpAddr::V4(Ipv4Addr::from_bits(buf.get_u32()))
        }
        6 => {
            need(buf, 16)?;
            IpAddr::V6(Ipv6Addr::from_bits(buf.get_u128()))
        }
        _ => return Err(CodecError::Invalid),
    };
    Ok(SocketAddr::new(ip, port))
}

fn need(buf: &impl Buf, bytes: usize) -> Result<(), CodecError> {
    if buf.remaining() < bytes { Err(CodecError::Truncated) } else { Ok(()) }
}

pub(crate) fn get_u8(buf: &mut impl Buf) -> Result<u8, CodecError> {
    buf.try_get_u8().map_err(|_| CodecError::Truncated)
}

pub(crate) fn get_u16(buf: &mut impl Buf) -> Result<u16, CodecError> {
    buf.try_get_u16().map_err(|_| CodecError::Truncated)
}

fn get_u64(buf: &mut impl Buf) -> Result<u64, CodecError> {
    buf.try_get_u64().map_err(|_| CodecError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> Identity {
        Identity {
            node: NodeId(3),
            generation: 0x0102_0304,
            edition: 2,
            draining: true,
            addr: "10.1.2.3:7946".parse().unwrap(),
            name: "gw-3".into(),
        }
    }

    #[test]
    fn the_bytes_of_a_hello_never_change() {
        let hello = Hello::new(identity(), "[::1]:9".parse().unwrap());
        let golden = b"\0\x01\0\x01\x10\0\x04\
            \x06\0\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
            \0\x03\0\0\0\0\x01\x02\x03\x04\0\x02\x01\x04\x1f\x0a\x0a\x01\x02\x03\x04gw-3";
        assert_eq!(&hello.encode()[..], golden);
        assert_eq!(Hello::decode(hello.encode()), Ok(hello));
    }

    #[test]
    fn a_roster_reads_back_as_written() {
        let members = [State::Alive, State::Suspect, State::Down].map(|state| Member::new(identity(), 7, state));
        let body = encode_roster(members.iter());
        let who = b"\0\x03\0\0\0\0\x01\x02\x03\x04\0\x02\x01\x04\x1f\x0a\x0a\x01\x02\x03\x04gw-3";
        let golden = [&b"\0\x03"[..], who, b"\0\x07\0", who, b"\0\x07\x01", who, b"\0\x07\x02"].concat();
        assert_eq!(body, golden, "its bytes never change");
        assert_eq!(decode_roster(body), Ok(members.to_vec()));
    }

    #[test]
    fn a_roster_that_claims_more_than_it_has_is_an_error() {
        assert_eq!(decode_roster(Bytes::from_static(b"\xff\xff")), Err(CodecError::Truncated));
    }

    #[test]
    fn a_long_name_is_cut_not_refused() {
        let long = Identity { name: "x".repeat(300).into(), ..identity() };
        let mut buf = BytesMut::new();
        put_identity(&mut buf, &long);
        assert!(buf.len() <= MAX_IDENTITY);
        assert_eq!(get_identity(&mut buf.freeze()).unwrap().name.len(), MAX_NAME);
    }

    #[test]
    fn other_slots_lanes_or_protocols_are_incompatible() {
        let hello = Hello::new(identity(), "[::1]:9".parse().unwrap());
        assert_eq!(hello.incompatibility(), None);
        assert!(Hello { slots: 1, ..hello.clone() }.incompatibility().is_some());
        assert!(Hello { lanes: 1, ..hello.clone() }.incompatibility().is_some());
        assert!(Hello { protocol: (9, 10), ..hello }.incompatibility().is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = Bytes::from(bytes);
            let _ = Hello::decode(bytes.clone());
            let _ = decode_roster(bytes.clone());
            let _ = get_member(&mut bytes);
        }
    }
}
