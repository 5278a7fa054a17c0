//! Reaching many: the rooms it goes to, who is left out, and what is kept of it.
//!
//! Invariants: what is published is encoded once, whatever the number of rooms and members; a socket that is in several of
//! the rooms receives it once, since each room leaves out the members of those before it, where they are.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use mesh::{room::RoomKey, slot, wire::message::FLAG_VOLATILE};
use protocol::socketio::Args;
use smallvec::SmallVec;

use super::{
    Answers, Asked, Published, SayError, Socket,
    socket::{check, check_event, owned},
};
use crate::{
    config::Class,
    envelope,
    gateway::{EVERYONE, Survey},
};

/// Rooms that one broadcast may name, and that it may leave out.
const ROOMS_MAX: usize = 64;
/// Longest idempotency key in bytes (`interface.md` 1.1).
pub(crate) const ID_BYTES_MAX: usize = 64;

/// Somebody to reach, put together word by word; nothing happens before [`Broadcast::publish`].
///
/// Without a room it is everybody in the namespace. A room may be the id of a socket: then it is that socket alone.
#[must_use]
pub struct Broadcast<'s, 'g> {
    socket: &'s mut Socket<'g>,
    namespace: ByteString,
    rooms: SmallVec<[ByteString; 1]>,
    /// The socket that speaks, unless it is to hear itself.
    own: Option<ByteString>,
    except: Vec<ByteString>,
    volatile: bool,
    id: ByteString,
}

impl<'s, 'g> Broadcast<'s, 'g> {
    pub(super) fn new(socket: &'s mut Socket<'g>, namespace: ByteString, own: Option<ByteString>) -> Self {
        let (rooms, except, id) = (SmallVec::new(), Vec::new(), ByteString::new());
        Broadcast { socket, namespace, rooms, own, except, volatile: false, id }
    }

    /// This room too. A socket that is in several of them is reached once, unless it moves from one to another in
    /// that very moment: rooms are ordered one by one.
    pub fn to(mut self, room: &str) -> Self {
        self.rooms.push(owned(room));
        self
    }

    /// But not the members of this room, or not the socket whose id this is.
    pub fn except(mut self, room: &str) -> Self {
        self.except.push(owned(room));
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
        let payload = envelope::payload(&self.namespace, event, None, args);
        let rooms = std::mem::take(&mut self.rooms);
        let question = match rooms.as_slice() {
            [] => self.publish_to(EVERYONE, &[], payload),
            [room] => self.publish_to(room, &[], payload),
            rooms => self.publish_to_all(rooms, &payload),
        };
        Ok(Asked::new(self.socket.gateway, question))
    }

    /// Asks every client for an answer. `then` is called once, when all have answered or been given up; it gets what came
    /// and how many were silent. Sockets of this node are asked, in this version not those of others, and a question has no
    /// order against what is published.
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
        let Broadcast { socket, namespace, rooms, own, mut except, .. } = self;
        except.extend(own);
        let id = socket.gateway.next_ask();
        let payload = envelope::payload(&namespace, event, Some(id), args);
        let (rooms, due) = (rooms.into_vec(), socket.now + timeout);
        let ask = |back| Survey { namespace, rooms, except, id, payload, due, back };
        socket.gateway.survey(&socket.who, Box::new(then), ask);
        Ok(())
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
            room: RoomKey::new(&self.namespace, room),
            flags: if self.is_volatile(room) { FLAG_VOLATILE } else { 0 },
            id: self.id.clone(),
            from: owned(self.socket.user().unwrap_or_default()),
            except: own.chain(&self.except).chain(without).cloned().collect(),
            payload,
        };
        self.socket.gateway.publish(&self.socket.who, publish, self.socket.now)
    }

    fn is_volatile(&self, room: &str) -> bool {
        self.volatile || room == EVERYONE || self.socket.gateway.class_of(&self.namespace) == Class::Ephemeral
    }

    fn check(&self, event: &str) -> Result<(), SayError> {
        let names = self.socket.names();
        check_event(event, names)?;
        if self.rooms.len() > ROOMS_MAX || self.except.len() > ROOMS_MAX {
            return Err(SayError::TooManyRooms);
        }
        let all = self.rooms.iter().chain(&self.except);
        if all.clone().any(|room| names.room(room).is_err()) {
            return Err(SayError::Name);
        }
        let kept = self.rooms.len() == 1 && !self.volatile;
        if self.id.len() > ID_BYTES_MAX || (!self.id.is_empty() && !kept) {
            return Err(SayError::Id);
        }
        Ok(())
    }
}
