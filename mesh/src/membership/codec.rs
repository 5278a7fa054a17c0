//! How SWIM's packets are laid out, on top of the identities of `wire::control`.
//!
//! Invariants: total; never writes beyond the room the packet has (foca then ends the packet before that member).
//!
//! ```text
//! header  source identity | incarnation u16 | target identity | message u8 | (identity | )? probe u8 ?
//! ```

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message};

use super::Identity;
use crate::wire::control::{
    CodecError, MAX_IDENTITY, get_identity, get_member, get_u8, get_u16, put_identity, put_member,
};

/// foca's codec for our identities.
#[derive(Debug)]
pub(crate) struct PacketCodec;

/// Codes of messages; a new message takes a new code.
mod code {
    pub(super) const PING: u8 = 0;
    pub(super) const ACK: u8 = 1;
    pub(super) const PING_REQUEST: u8 = 2;
    pub(super) const INDIRECT_PING: u8 = 3;
    pub(super) const INDIRECT_ACK: u8 = 4;
    pub(super) const FORWARDED_ACK: u8 = 5;
    pub(super) const ANNOUNCE: u8 = 6;
    pub(super) const FEED: u8 = 7;
    pub(super) const GOSSIP: u8 = 8;
    pub(super) const BROADCAST: u8 = 9;
    pub(super) const TURN_UNDEAD: u8 = 10;
}

impl Codec<Identity> for PacketCodec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < 3 * MAX_IDENTITY + 4 {
            return Err(CodecError::Full);
        }
        put_identity(&mut buf, &header.src);
        buf.put_u16(header.src_incarnation);
        put_identity(&mut buf, &header.dst);
        let (code, about, probe) = parts(&header.message);
        buf.put_u8(code);
        if let Some(about) = about {
            put_identity(&mut buf, about);
        }
        if let Some(probe) = probe {
            buf.put_u8(probe);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        let src = get_identity(&mut buf)?;
        let src_incarnation = get_u16(&mut buf)?;
        let dst = get_identity(&mut buf)?;
        let message = get_message(&mut buf)?;
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut buf: impl BufMut) -> Result<(), CodecError> {
        if buf.remaining_mut() < MAX_IDENTITY + 3 {
            return Err(CodecError::Full);
        }
        put_member(&mut buf, member);
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        get_member(&mut buf)
    }
}

fn parts(message: &Message<Identity>) -> (u8, Option<&Identity>, Option<u8>) {
    match message {
        Message::Ping(probe) => (code::PING, None, Some(*probe)),
        Message::Ack(probe) => (code::ACK, None, Some(*probe)),
        Message::PingReq { target, probe_number } => (code::PING_REQUEST, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (code::INDIRECT_PING, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (code::INDIRECT_ACK, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (code::FORWARDED_ACK, Some(origin), Some(*probe_number)),
        Message::Announce => (code::ANNOUNCE, None, None),
        Message::Feed => (code::FEED, None, None),
        Message::Gossip => (code::GOSSIP, None, None),
        Message::Broadcast => (code::BROADCAST, None, None),
        Message::TurnUndead => (code::TURN_UNDEAD, None, None),
    }
}

fn get_message(buf: &mut impl Buf) -> Result<Message<Identity>, CodecError> {
    Ok(match get_u8(buf)? {
        code::PING => Message::Ping(get_u8(buf)?),
        code::ACK => Message::Ack(get_u8(buf)?),
        code::PING_REQUEST => Message::PingReq { target: get_identity(buf)?, probe_number: get_u8(buf)? },
        code::INDIRECT_PING => Message::IndirectPing { origin: get_identity(buf)?, probe_number: get_u8(buf)? },
        code::INDIRECT_ACK => Message::IndirectAck { target: get_identity(buf)?, probe_number: get_u8(buf)? },
        code::FORWARDED_ACK => Message::ForwardedAck { origin: get_identity(buf)?, probe_number: get_u8(buf)? },
        code::ANNOUNCE => Message::Announce,
        code::FEED => Message::Feed,
        code::GOSSIP => Message::Gossip,
        code::BROADCAST => Message::Broadcast,
        code::TURN_UNDEAD => Message::TurnUndead,
        _ => return Err(CodecError::Invalid),
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::NodeId;

    fn identity(node: u16) -> Identity {
        let addr = "10.0.0.1:7946".parse().unwrap();
        Identity { node: NodeId(node), generation: 5, edition: 1, draining: false, addr, name: "a".into() }
    }

    fn header(message: Message<Identity>) -> Header<Identity> {
        Header { src: identity(1), src_incarnation: 2, dst: identity(3), message }
    }

    #[test]
    fn every_message_reads_back_as_written() {
        let (target, origin, probe_number) = (identity(7), identity(8), 9);
        let messages = [
            Message::Ping(1),
            Message::Ack(2),
            Message::PingReq { target: target.clone(), probe_number },
            Message::IndirectPing { origin: origin.clone(), probe_number },
            Message::IndirectAck { target, probe_number },
            Message::ForwardedAck { origin, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        for (message, code) in messages.into_iter().zip(0_u8..) {
            let header = header(message);
            let mut buf = BytesMut::new();
            PacketCodec.encode_header(&header, &mut buf).unwrap();
            assert_eq!(parts(&header.message).0, code, "codes are never renumbered");
            assert_eq!(PacketCodec.decode_header(&buf[..]).unwrap(), header);
            for cut in 0..buf.len() {
                assert_eq!(PacketCodec.decode_header(&buf[..cut]).unwrap_err(), CodecError::Truncated);
            }
        }
    }

    #[test]
    fn the_bytes_of_packets_never_change() {
        let mut buf = BytesMut::new();
        PacketCodec.encode_header(&header(Message::Ping(9)), &mut buf).unwrap();
        let golden = b"\0\x01\0\0\0\0\0\0\0\x05\0\x01\0\x04\x1f\x0a\x0a\0\0\x01\x01a\0\x02\
            \0\x03\0\0\0\0\0\0\0\x05\0\x01\0\x04\x1f\x0a\x0a\0\0\x01\x01a\0\x09";
        assert_eq!(&buf[..], golden);
        let end = |message| {
            let mut buf = BytesMut::new();
            PacketCodec.encode_header(&header(message), &mut buf).unwrap();
            buf.split_off(golden.len() - 2).to_vec()
        };
        let (target, origin, probe_number) = (identity(7), identity(7), 9);
        let about = b"\0\x07\0\0\0\0\0\0\0\x05\0\x01\0\x04\x1f\x0a\x0a\0\0\x01\x01a\x09";
        for (message, code) in [
            (Message::PingReq { target: target.clone(), probe_number }, 2),
            (Message::IndirectPing { origin: origin.clone(), probe_number }, 3),
            (Message::IndirectAck { target, probe_number }, 4),
            (Message::ForwardedAck { origin, probe_number }, 5),
        ] {
            assert_eq!(end(message), [&[code], &about[..]].concat());
        }
        let without = [Message::Announce, Message::Feed, Message::Gossip, Message::Broadcast, Message::TurnUndead];
        assert_eq!(end(Message::Ack(9)), [1, 9]);
        assert_eq!(without.map(end), [6, 7, 8, 9, 10].map(|code| vec![code]));
    }

    #[test]
    fn a_full_packet_is_an_error_and_no_panic() {
        let member = Member::alive(identity(1));
        assert_eq!(PacketCodec.encode_member(&member, BytesMut::new().limit(50)), Err(CodecError::Full));
        assert_eq!(PacketCodec.encode_header(&header(Message::Feed), BytesMut::new().limit(50)), Err(CodecError::Full));
    }
}
