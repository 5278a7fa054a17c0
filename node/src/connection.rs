//! One client connection as its shard holds it: the Engine.IO session, its WebSocket if any, and its sockets.
//!
//! Invariants: the session says which transport messages leave by, and `wire` is what it calls its WebSocket: a candidate
//! while the session polls, the transport afterwards; the poll that waits is answered once.

use std::{net::IpAddr, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use protocol::{
    engine::{
        Message, frame,
        session::{Session, Transport},
    },
    sid::Sid,
    socketio::{Decoder, Packet, Parser, TranscodeError, transcode},
};
use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::{
    admission::Place,
    conduct::Conduct,
    handler::{Headers, Identity},
    key::ConnKey,
    room::RoomId,
    transport::PollReply,
    wire::Wire,
};

/// A socket: this connection in one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) namespace: ByteString,
    /// The public id clients see.
    pub(crate) id: ByteString,
    /// Who its client is; `None` = nobody in particular.
    pub(crate) identity: Option<Box<Identity>>,
    pub(crate) rooms: SmallVec<[RoomId; 2]>,
    /// Rooms whose join is not answered, with the token of the question.
    pub(crate) joining: SmallVec<[(RoomId, u64); 1]>,
}

/// See the module.
pub(crate) struct Connection {
    /// Given back with the connection.
    pub(crate) place: Place,
    /// Where its first request came from.
    pub(crate) address: IpAddr,
    /// What the program wants to know of its first request.
    pub(crate) headers: Headers,
    pub(crate) sid: Sid,
    pub(crate) session: Session,
    pub(crate) decoder: Decoder,
    pub(crate) sockets: SmallVec<[Socket; 1]>,
    pub(crate) wire: Option<Wire>,
    /// Where the open poll's answer goes.
    pub(crate) poll: Option<oneshot::Sender<PollReply>>,
    /// A namespace must be joined until then.
    pub(crate) connect_by: Option<Instant>,
    /// The last candidate was to be the transport by then.
    pub(crate) upgrade_by: Option<Instant>,
    /// What the client did lately.
    pub(crate) conduct: Conduct,
    /// When it last said something, in seconds of this process.
    pub(crate) heard: u32,
    /// The earliest timer that is set for this connection.
    pub(crate) timer_at: Option<Instant>,
    /// Something waits for the end of the turn.
    pub(crate) dirty: bool,
}

impl Connection {
    /// Whether messages wait for polls.
    pub(crate) fn polls(&self) -> bool {
        self.session.transport() == Transport::Polling
    }

    /// The WebSocket that messages leave by. Whoever does not poll and has none is on the way out.
    pub(crate) fn direct(&mut self) -> Option<&mut Wire> {
        if self.polls() { None } else { self.wire.as_mut() }
    }

    /// Whether something waits for the client already.
    pub(crate) fn is_busy(&mut self) -> bool {
        let buffered = self.session.buffered_bytes() > 0;
        self.direct().map_or(buffered, |wire| wire.lags())
    }

    /// Gives one message to the client, by whatever transport it has.
    pub(crate) fn send(&mut self, message: Message) {
        match self.direct() {
            Some(wire) => frame::put_message(wire.own(), &message),
            None => self.session.send(message),
        }
    }

    /// How the client writes and wants to be written to.
    pub(crate) fn parser(&self) -> Parser {
        self.decoder.parser()
    }

    /// Gives one Socket.IO packet to the client, as its parser reads it.
    pub(crate) fn send_packet(&mut self, packet: &Packet) {
        let packet = packet.encode_as(self.parser());
        match self.direct() {
            Some(wire) => packet.put_frames(wire.own()),
            None => packet.messages().for_each(|message| self.session.send(message)),
        }
    }

    /// Gives the client alone what members of a room get.
    ///
    /// # Errors
    /// The payload is none of ours. Nothing was sent, or to a client that polls what came before the damage.
    pub(crate) fn send_payload(&mut self, payload: &Bytes) -> Result<(), TranscodeError> {
        let frames = match self.parser() {
            Parser::Json => payload.clone(),
            Parser::MsgPack => transcode(payload, Parser::MsgPack)?,
        };
        match self.direct() {
            Some(wire) => wire.own().extend_from_slice(&frames),
            None => {
                for message in frame::messages(&frames) {
                    self.session.send(message?);
                }
            }
        }
        Ok(())
    }

    /// The socket in `namespace`.
    pub(crate) fn socket(&self, namespace: &str) -> Option<&Socket> {
        self.sockets.iter().find(|socket| socket.namespace == namespace)
    }

    /// The socket in `namespace`.
    pub(crate) fn socket_mut(&mut self, namespace: &str) -> Option<&mut Socket> {
        self.sockets.iter_mut().find(|socket| socket.namespace == namespace)
    }
}

/// All connections of a shard.
#[derive(Default)]
pub(crate) struct Connections {
    places: Slab<(u32, Connection)>,
    next_serial: u32,
}

impl Connections {
    /// Keeps a connection.
    pub(crate) fn insert(&mut self, connection: Connection) -> ConnKey {
        self.next_serial = self.next_serial.wrapping_add(1);
        let serial = self.next_serial;
        let index = self.places.insert((serial, connection));
        // A process holds far fewer than 2³² descriptors.
        ConnKey { index: u32::try_from(index).unwrap_or(u32::MAX), serial }
    }

    /// The connection, if it is still there.
    pub(crate) fn get(&self, key: ConnKey) -> Option<&Connection> {
        self.places
            .get(key.index as usize)
            .filter(|(serial, _)| *serial == key.serial)
            .map(|(_, connection)| connection)
    }

    /// The connection, if it is still there.
    pub(crate) fn get_mut(&mut self, key: ConnKey) -> Option<&mut Connection> {
        let place = self.places.get_mut(key.index as usize).filter(|(serial, _)| *serial == key.serial);
        place.map(|(_, connection)| connection)
    }

    /// Forgets the connection.
    pub(crate) fn remove(&mut self, key: ConnKey) -> Option<Connection> {
        self.get(key)?;
        self.places.try_remove(key.index as usize).map(|(_, connection)| connection)
    }

    /// All connections.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnKey, &Connection)> {
        self.places.iter().map(|(index, (serial, connection))| {
            (ConnKey { index: u32::try_from(index).unwrap_or(u32::MAX), serial: *serial }, connection)
        })
    }

    /// Names of all connections.
    pub(crate) fn keys(&self) -> Vec<ConnKey> {
        self.iter().map(|(key, _)| key).collect()
    }
}
