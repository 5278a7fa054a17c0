//! One client connection as its shard holds it: the Engine.IO session, its WebSocket if any, and its sockets.
//!
//! Invariants: `direct` holds exactly
//! while messages go straight to the WebSocket; the poll that waits is answered once.

use std::{rc::Rc, time::Instant};

use bytestring::ByteString;
use protocol::{
    engine::{
        Message, frame,
        session::{Session, Transport},
    },
    sid::Sid,
    socketio::{Decoder, Encoded},
};
use slab::Slab;
use smallvec::SmallVec;
use tokio::{net::TcpStream, sync::oneshot};

use crate::{key::ConnKey, outbox::Outbox, room::RoomId, transport::PollReply};

/// A socket: this connection in one namespace.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) namespace: ByteString,
    /// The public id clients see.
    pub(crate) id: ByteString,
    pub(crate) rooms: SmallVec<[RoomId; 2]>,
    /// Rooms whose join is not answered, with the token of the question.
    pub(crate) joining: SmallVec<[(RoomId, u64); 1]>,
}

/// See the module.
pub(crate) struct Connection {
    pub(crate) sid: Sid,
    pub(crate) session: Session,
    pub(crate) decoder: Decoder,
    pub(crate) sockets: SmallVec<[Socket; 1]>,
    pub(crate) tcp: Option<Rc<TcpStream>>,
    pub(crate) outbox: Outbox,
    /// Messages go straight to the WebSocket.
    pub(crate) direct: bool,
    /// Where the open poll's answer goes.
    pub(crate) poll: Option<oneshot::Sender<PollReply>>,
    /// A namespace must be joined until then.
    pub(crate) connect_by: Option<Instant>,
    /// The earliest timer that is set for this connection.
    pub(crate) timer_at: Option<Instant>,
    /// Something waits for the end of the turn.
    pub(crate) dirty: bool,
    /// A task waits until the kernel takes more.
    pub(crate) awaits_writable: bool,
    /// The transport metrics count it under.
    pub(crate) counted_as: Transport,
}

impl Connection {
    /// Gives one message to the client, by whatever transport it has.
    pub(crate) fn send(&mut self, message: Message) {
        if self.direct {
            frame::put_message(self.outbox.own(), &message);
        } else {
            self.session.send(message);
        }
    }

    /// Gives one Socket.IO packet to the client.
    pub(crate) fn send_packet(&mut self, packet: Encoded) {
        if self.direct {
            packet.put_frames(self.outbox.own());
        } else {
            for message in packet.messages() {
                self.session.send(message);
            }
        }
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

    /// Names of all connections.
    pub(crate) fn keys(&self) -> Vec<ConnKey> {
        let keys = self.places.iter().map(|(index, (serial, _))| (index, *serial));
        keys.map(|(index, serial)| ConnKey { index: u32::try_from(index).unwrap_or(u32::MAX), serial }).collect()
    }
}
