//! Reaching many: the rooms it goes to, who is left out, and what is kept of it; and what else is done with the sockets there.
//!
//! Invariants: what is published is encoded once, whatever the number of rooms and members; a socket that is in several of
//! the rooms receives it once, since each room leaves out the members of those before it, where they are.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use mesh::{room::RoomKey, slot, wire::message::FLAG_VOLATILE};
use protocol::socketio::Args;

use super::{
    Answers, Asked, Audience, Listing, Published, Reached, SayError, Socket, Sockets,
    socket::{check, check_event, owned},
};
use crate::{
    config::Class,
    envelope,
    gateway::{EVERYONE, Leaving, Survey},
    orders::{Deed, Order, PAGE_MAX},
};

/// Longest idempotency key in bytes (`interface.md` 1.1).
pub(crate) const ID_BYTES_MAX: usize = 64;

/// Somebody to reach, put together word by word; nothing happens before the last one, such as [`Broadcast::publish`].
///
/// Without a room it is everybody in the namespace. A room may be the id of a socket: then it is that socket alone.
#[must_use]
pub struct Broadcast<'s, 'g> {
    socket: &'s mut Socket<'g>,
    audience: Audience,
    /// The socket that speaks, unless it is to hear itself.
    own: Option<ByteString>,
    volatile: bool,
    id: ByteString,
}

impl<'s, 'g> Broadcast<'s, 'g> {
    pub(super) fn new(socket: &'s mut Socket<'g>, audience: Audience, own: Option<ByteString>) -> Self {
        Broadcast { socket, audience, own, volatile: false, id: ByteString::new() }
    }

    /// With what is known of it beforehand.
    pub(super) fn with(self, volatile: bool, id: ByteString) -> Self {
        Broadcast { volatile, id, ..self }
    }

    /// This room too. A socket that is in several of them is reached once, unless it moves from one to another in
    /// that very moment: rooms are ordered one by one.
    pub fn to(mut self, room: &str) -> Self {
        self.audience.rooms.push(owned(room));
        self
    }

    /// But not the members of this room, or not the socket whose id this is.
    pub fn except(mut self, room: &str) -> Self {
        self.audience.except.push(owned(room));
        self
    }

    /// The socket that speaks hears it too.
    pub fn echo(mut self) -> Self {
        self.own = None;
        self
    }

    /// It is kept in no history, and has no order against others.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// A repeat with the same id within two minutes has no effect, and gets the first one's answer.
    pub fn id(mut self, id: &str) -> Self {
        self.id = owned(id);
        self
    }

    /// Publishes an event. The outcome for several rooms is that all of them took it, or the first refusal.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was published.
    pub fn publish(self, event: &str, args: &Args) -> Result<Asked<'s, Published>, SayError> {
        check(args)?;
        self.publish_read(event, args)
    }

    /// As `publish`, with arguments that a client's packet held: those have been checked.
    pub(crate) fn publish_read(mut self, event: &str, args: &Args) -> Result<Asked<'s, Published>, SayError> {
        self.check(event)?;
        let payload = envelope::payload(&self.audience.namespace, event, None, args);
        let rooms = std::mem::take(&mut self.audience.rooms);
        let question = match rooms.as_slice() {
            [] => self.publish_to(EVERYONE, &[], payload),
            [room] => self.publish_to(room, &[], payload),
            rooms => self.publish_to_all(rooms, &payload),
        };
        Ok(Asked::new(self.socket.gateway, question))
    }

    /// Asks every client for an answer, on all nodes. `then` is called once, when all have answered or been given up, at most
    /// a quarter of a second after the timeout: with what came, how many were silent, and which nodes were not heard to the
    /// end. A question has no order against what is published.
    ///
    /// # Errors
    /// See [`SayError`]. Nobody was asked, and `then` is not called.
    pub fn ask(
        self,
        event: &str,
        args: &Args,
        timeout: Duration,
        then: impl FnOnce(&mut Socket<'_>, Answers) + 'static,
    ) -> Result<(), SayError> {
        check(args)?;
        self.check(event)?;
        let Broadcast { socket, mut audience, own, .. } = self;
        audience.except.extend(own);
        let id = socket.gateway.next_survey_ask();
        let payload = envelope::payload(&audience.namespace, event, Some(id), args);
        let due = socket.now + timeout;
        let ask = |back| Survey { audience, id, payload, due, back };
        socket.gateway.survey(&socket.who, Box::new(then), ask, timeout);
        Ok(())
    }

    /// Tells which sockets there are, on all nodes: those that [`Broadcast::publish`] would reach now. A node that has not
    /// answered after `patience` is named in the outcome, as with every verb below.
    ///
    /// # Errors
    /// See [`SayError`]. Nobody was asked.
    pub fn fetch_sockets(self, page: Listing<'_>, patience: Duration) -> Result<Asked<'s, Sockets>, SayError> {
        let deed = Deed::List { after: owned(page.after), limit: page.limit.clamp(1, PAGE_MAX) };
        self.order(deed, patience)
    }

    /// Takes them all into these rooms. The outcome comes when they have joined.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was changed.
    pub fn sockets_join(self, rooms: &[&str], patience: Duration) -> Result<Asked<'s, Reached>, SayError> {
        let rooms = self.rooms_to_move(rooms)?;
        self.order(Deed::Join(rooms), patience)
    }

    /// Takes them all out of these rooms.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was changed.
    pub fn sockets_leave(self, rooms: &[&str], patience: Duration) -> Result<Asked<'s, Reached>, SayError> {
        let rooms = self.rooms_to_move(rooms)?;
        self.order(Deed::Leave(rooms), patience)
    }

    /// Sends them all out of the namespace, as [`Socket::disconnect`], or with `close` closes their connections, as
    /// [`Socket::close`].
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was changed.
    pub fn disconnect_sockets(self, close: bool, patience: Duration) -> Result<Asked<'s, Reached>, SayError> {
        self.order(Deed::Disconnect(if close { Leaving::Connection } else { Leaving::Namespace }), patience)
    }

    fn order<T>(self, deed: Deed, patience: Duration) -> Result<Asked<'s, T>, SayError> {
        self.audience.check(self.socket.names())?;
        let Broadcast { socket, mut audience, own, .. } = self;
        audience.except.extend(own);
        let question = socket.gateway.order(&socket.who, Order { audience, deed }, patience);
        Ok(Asked::new(socket.gateway, question))
    }

    fn rooms_to_move(&self, rooms: &[&str]) -> Result<Vec<ByteString>, SayError> {
        if rooms.iter().any(|room| self.socket.is_socket_id(room)) {
            return Err(SayError::RoomOfASocket);
        }
        let namespace = self.audience.namespace.clone();
        let moved = Audience { rooms: rooms.iter().map(|room| owned(room)).collect(), ..Audience::new(namespace) };
        moved.check(self.socket.names())?;
        Ok(moved.rooms.into_vec())
    }

    /// To several rooms: each leaves out those before it, and sockets come last, unless they are in one of the rooms.
    fn publish_to_all(&mut self, rooms: &[ByteString], payload: &Bytes) -> u64 {
        let (sockets, rooms): (Vec<_>, Vec<_>) =
            rooms.iter().cloned().partition(|room| self.socket.gateway.place_of(room).is_some());
        let mut parts = Vec::with_capacity(sockets.len() + rooms.len());
        for (at, room) in rooms.iter().enumerate() {
            parts.push(self.publish_to(room, &rooms[..at], payload.clone()));
        }
        for socket in &sockets {
            parts.push(self.publish_to(socket, &rooms, payload.clone()));
        }
        self.socket.gateway.union(&self.socket.who, &parts)
    }

    fn publish_to(&mut self, room: &str, without: &[ByteString], payload: Bytes) -> u64 {
        let own = self.own.iter();
        let publish = slot::Publish {
            room: RoomKey::new(&self.audience.namespace, room),
            flags: if self.is_volatile(room) { FLAG_VOLATILE } else { 0 },
            id: self.id.clone(),
            from: owned(self.socket.user().unwrap_or_default()),
            except: own.chain(&self.audience.except).chain(without).cloned().collect(),
            payload,
        };
        self.socket.gateway.publish(&self.socket.who, publish, self.socket.now)
    }

    fn is_volatile(&self, room: &str) -> bool {
        self.volatile || room == EVERYONE || self.socket.gateway.class_of(&self.audience.namespace) == Class::Ephemeral
    }

    fn check(&self, event: &str) -> Result<(), SayError> {
        let names = self.socket.names();
        check_event(event, names)?;
        self.audience.check(names)?;
        let kept = self.audience.rooms.len() == 1 && !self.volatile;
        if self.id.len() > ID_BYTES_MAX || (!self.id.is_empty() && !kept) {
            return Err(SayError::Id);
        }
        Ok(())
    }
}
