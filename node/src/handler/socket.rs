//! One socket while a handler is called about it, and through it the whole gateway: everything a program can do.
//!
//! Invariants: what is done here is done at once or started at once, and nothing waits; whoever it is done for is only
//! named here, and may be gone before the answer comes; ending a socket happens when the call has returned.

use std::time::{Duration, Instant};

use bytestring::ByteString;
use mesh::{room::RoomKey, slot::Want};
use protocol::socketio::{Args, Packet, RESERVED_EVENTS};
use serde_json::value::RawValue;

use super::{Ack, Asked, Audience, Broadcast, History, Identity, Node, Present, Refused, SayError};
use crate::{
    envelope,
    gateway::{AskError, Asker, Entry, Gateway, Leaving, Waiter},
    names::Names,
};

/// See the module.
pub struct Socket<'a> {
    pub(super) gateway: &'a mut Gateway,
    pub(super) who: Asker,
    pub(super) now: Instant,
    /// It is being taken apart: it has its rooms, and hears nothing.
    going: bool,
}

impl<'a> Socket<'a> {
    pub(crate) fn new(gateway: &'a mut Gateway, who: Asker, now: Instant) -> Socket<'a> {
        Socket { gateway, who, now, going: false }
    }

    pub(crate) fn going(gateway: &'a mut Gateway, who: Asker, now: Instant) -> Socket<'a> {
        Socket { gateway, who, now, going: true }
    }

    /// The id its client sees.
    pub fn id(&self) -> &str {
        &self.who.socket
    }

    /// Its namespace, `/` or `/name`.
    pub fn namespace(&self) -> &str {
        &self.who.namespace
    }

    /// The user its client signed in as.
    pub fn user(&self) -> Option<&str> {
        self.identity()?.user.as_deref()
    }

    /// What others are shown next to the user.
    pub fn info(&self) -> Option<&RawValue> {
        self.identity()?.info.as_deref()
    }

    /// Says who its client is from now on: it leaves the room of the user it was and enters that of the user it is. What it
    /// published before, and what others see of it in rooms it is in, keeps the name it had.
    pub fn set_identity(&mut self, identity: Identity) {
        self.gateway.set_identity(&self.who, identity, self.now);
    }

    /// The node it is connected to: for whoever wants to come back to it later, from any thread.
    pub fn node(&self) -> Node {
        self.gateway.to_node()
    }

    /// Whether it is still there. It may not be when an answer comes, and is not in
    /// [`Handler::on_disconnect`](super::Handler::on_disconnect).
    pub fn is_connected(&self) -> bool {
        !self.going && self.gateway.socket_of(&self.who).is_some()
    }

    /// The rooms it is in; that of its own id is not among them.
    pub fn rooms(&self) -> Vec<&str> {
        self.gateway.rooms_of(&self.who)
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &str) -> bool {
        self.gateway.is_in(&self.who, room)
    }

    /// Sends it an event. `args` are those behind the name.
    ///
    /// # Errors
    /// The client could not read it or is gone, see [`SayError`]. Nothing was sent.
    pub fn emit(&mut self, event: &str, args: &Args) -> Result<(), SayError> {
        let packet = self.packet(event, None, args)?;
        self.gateway.say(&self.who, &packet);
        Ok(())
    }

    /// As `emit`, but only if nothing waits for it already; whether it was sent.
    ///
    /// # Errors
    /// As [`Socket::emit`].
    pub fn emit_volatile(&mut self, event: &str, args: &Args) -> Result<bool, SayError> {
        let packet = self.packet(event, None, args)?;
        Ok(self.gateway.say_volatile(&self.who, &packet))
    }

    /// Sends it an event and waits for its client's answer. `then` is called once: with the answer, or with why there is
    /// none. At most 256 may be open per connection.
    ///
    /// # Errors
    /// As [`Socket::emit`], or too many are open. Nothing was sent, and `then` is not called.
    pub fn ask(
        &mut self,
        event: &str,
        args: &Args,
        timeout: Duration,
        then: impl FnOnce(&mut Socket<'_>, Result<Args, AskError>) + 'static,
    ) -> Result<(), SayError> {
        let id = self.gateway.next_ask();
        let packet = self.packet(event, Some(id), args)?;
        self.gateway.expect(&self.who, id, self.now + timeout, Waiter::Call(Box::new(then)))?;
        self.gateway.say(&self.who, &packet);
        Ok(())
    }

    /// Answers an event: its own or another socket's. If that one is gone, the answer goes nowhere.
    ///
    /// # Errors
    /// The client could not read it, see [`SayError`]. Nothing was sent, and the event stays unanswered.
    pub fn ack(&mut self, ack: Ack, args: &Args) -> Result<(), SayError> {
        check(args)?;
        self.gateway.answer(ack, args.clone());
        Ok(())
    }

    /// Answers an event, if its client waits, with `{ok: false, code, message}`, and counts the refusal.
    pub fn refuse(&mut self, ack: impl Into<Option<Ack>>, why: &Refused) {
        self.gateway.refuse(ack.into(), why);
    }

    /// Takes it into a room; nobody is asked for permission. It receives what is published from the outcome on; the past
    /// that was asked for is the outcome, or reaches its client before that.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was changed.
    pub fn join<'j>(&mut self, join: impl Into<Join<'j>>) -> Result<Asked<'_, History>, SayError> {
        let Join { room, want, replay, present } = join.into();
        self.names().room(room).map_err(|_| SayError::Name)?;
        if !self.is_connected() {
            return Err(SayError::Gone);
        }
        if self.gateway.place_of(room).is_some() {
            return Err(SayError::RoomOfASocket);
        }
        let room = RoomKey::new(&self.who.namespace, room);
        let question = self.gateway.join(&self.who, &room, Entry { want, replay, present }, self.now);
        Ok(Asked::new(self.gateway, question))
    }

    /// Takes it out of a room. A join that is not answered yet is answered, and has no effect.
    pub fn leave(&mut self, room: &str) {
        self.gateway.leave(&self.who, room, self.now);
    }

    /// Reads what a room of its namespace holds of its past. It need not be a member.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was asked.
    pub fn history(&mut self, room: &str, page: Page<'_>) -> Result<Asked<'_, History>, SayError> {
        self.names().room(room).map_err(|_| SayError::Name)?;
        let since = page.since.map(|(offset, epoch)| (offset, envelope::lineage(epoch)));
        let want = Want::Page { limit: page.limit, since, reverse: page.reverse };
        let question = self.gateway.history(&self.who, &RoomKey::new(&self.who.namespace, room), want);
        Ok(Asked::new(self.gateway, question))
    }

    /// Who is present in a room of its namespace. It need not be a member.
    ///
    /// # Errors
    /// See [`SayError`]. Nothing was asked.
    pub fn presence(&mut self, room: &str) -> Result<Asked<'_, Present>, SayError> {
        self.names().room(room).map_err(|_| SayError::Name)?;
        let question = self.gateway.presence(&self.who, &RoomKey::new(&self.who.namespace, room));
        Ok(Asked::new(self.gateway, question))
    }

    /// Reaches the others in a room, or the one socket whose id this is.
    pub fn to(&mut self, room: &str) -> Broadcast<'_, 'a> {
        self.broadcast().to(room)
    }

    /// Reaches everybody else in its namespace.
    pub fn broadcast(&mut self) -> Broadcast<'_, 'a> {
        let (audience, own) = (Audience::new(self.who.namespace.clone()), self.who.socket.clone());
        Broadcast::new(self, audience, Some(own))
    }

    /// Reaches everybody in a namespace. Nobody is left out: in another one this socket is not.
    pub fn of(&mut self, namespace: &str) -> Broadcast<'_, 'a> {
        Broadcast::new(self, Audience::new(namespace.into()), None)
    }

    /// Sends it out of its namespace: the client library says `io server disconnect` and does not come back by itself.
    /// The connection goes on. Happens when the handler has returned.
    pub fn disconnect(&mut self) {
        self.gateway.dismiss(self.who.clone(), Leaving::Namespace);
    }

    /// Closes its connection, with all namespaces: the client library comes back by itself. Happens when the handler has
    /// returned.
    pub fn close(&mut self) {
        self.gateway.dismiss(self.who.clone(), Leaving::Connection);
    }

    /// Whether a name is the id of a socket, here or elsewhere, alive or gone.
    pub fn is_socket_id(&self, name: &str) -> bool {
        self.gateway.place_of(name).is_some()
    }

    /// What the names of rooms and events have to be like.
    pub(crate) fn names(&self) -> &Names {
        self.gateway.names()
    }

    fn identity(&self) -> Option<&Identity> {
        self.gateway.socket_of(&self.who)?.identity.as_deref()
    }

    fn packet(&self, event: &str, id: Option<u64>, args: &Args) -> Result<Packet, SayError> {
        check_event(event, self.names())?;
        check(args)?;
        if !self.is_connected() {
            return Err(SayError::Gone);
        }
        Ok(Packet::Event { nsp: self.who.namespace.clone(), id, args: envelope::named(event, args) })
    }
}

/// A room to join, and what of its past is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Join<'a> {
    room: &'a str,
    want: Want,
    replay: bool,
    present: bool,
}

impl<'a> Join<'a> {
    /// This room, and nothing of its past.
    pub fn new(room: &'a str) -> Join<'a> {
        Join { room, want: Want::Nothing, replay: false, present: false }
    }

    /// With its newest so many messages.
    #[must_use]
    pub fn last(self, count: u32) -> Join<'a> {
        Join { want: Want::Last(count), ..self }
    }

    /// With everything after a position, as far as it is retained.
    #[must_use]
    pub fn since(self, offset: u64, epoch: &str) -> Join<'a> {
        Join { want: Want::Since { after: offset, lineage: envelope::lineage(epoch) }, ..self }
    }

    /// It shows itself to those in the room who show themselves, and its client is told who comes and goes.
    #[must_use]
    pub fn present(self) -> Join<'a> {
        Join { present: true, ..self }
    }

    /// The past reaches the client as the events it was, in order, before anything new.
    #[must_use]
    pub fn replayed(self) -> Join<'a> {
        Join { replay: true, ..self }
    }
}

impl<'a> From<&'a str> for Join<'a> {
    fn from(room: &'a str) -> Join<'a> {
        Join::new(room)
    }
}

/// Part of a room's past.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// At most so many messages.
    pub limit: u32,
    /// An offset and its epoch, to read on from: what is newer, or older in reverse.
    pub since: Option<(u64, &'a str)>,
    /// Newest first.
    pub reverse: bool,
}

/// Whether the stock client can read these arguments.
pub(super) fn check(args: &Args) -> Result<(), SayError> {
    if args.attachments.len() > envelope::ATTACHMENTS_MAX {
        return Err(SayError::TooManyAttachments);
    }
    args.elements()?;
    Ok(())
}

/// Whether a program may give an event this name.
pub(super) fn check_event(event: &str, names: &Names) -> Result<(), SayError> {
    if RESERVED_EVENTS.contains(&event) {
        return Err(SayError::ReservedName);
    }
    names.check("event", event).map_err(|_| SayError::Name)
}

/// The name as it is shared from here on.
pub(super) fn owned(name: &str) -> ByteString {
    ByteString::from(name)
}
