//! The built-in events: `room:join`, `room:leave`, `room:publish`, `room:history`, `room:presence` (`interface.md` 1.1),
//! around the handler of the embedding program.
//!
//! Invariants: it is a handler like any other, written on what every handler has; every event that asks for an answer gets
//! one, a refusal names what is wrong with which field; an event's arguments are validated whole before anything changes.

use std::{str::FromStr, sync::Arc};

use crate::{
    config::{Class, Relay},
    envelope,
    handler::{
        Ack, Decision, Departure, Event, Handled, Handler, Handshake, ID_BYTES_MAX, Identity, Join, Layer, Message,
        Node, Page, Publish, Refused, Socket,
    },
    names::Names,
    policy::{Action, Policy},
};

mod args;
mod permission;

use args::{HistoryArgs, JoinArgs, PublishArgs, Replay, RoomArgs, publish_args, read, relayed, with_past};
use permission::is_own;

/// Items of `room:history` without a limit, and at most.
const HISTORY_LIMIT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 1_000;

/// The events that are handled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Join,
    Leave,
    Publish,
    History,
    Presence,
}

impl FromStr for Verb {
    type Err = ();

    fn from_str(name: &str) -> Result<Verb, ()> {
        match name {
            "join" => Ok(Verb::Join),
            "leave" => Ok(Verb::Leave),
            "publish" => Ok(Verb::Publish),
            "history" => Ok(Verb::History),
            "presence" => Ok(Verb::Presence),
            _ => Err(()),
        }
    }
}

/// See the module.
pub(crate) struct Builtin {
    names: Names,
    policy: Arc<Policy>,
    program: Arc<dyn Handler>,
}

impl Builtin {
    /// The built-in events in front of a program's own.
    pub(crate) fn new(names: Names, policy: Arc<Policy>, program: Arc<dyn Handler>) -> Builtin {
        Builtin { names, policy, program }
    }

    fn verb(&self, event: &str) -> Option<Verb> {
        event.strip_prefix(self.names.builtin_prefix())?.parse().ok()
    }

    fn join(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let JoinArgs { room, history, replay, presence } = read(event)?;
        self.check_room(socket, &room)?;
        let presence = presence == Some(true);
        if history.is_some() {
            self.check_history(socket)?;
        }
        if presence {
            self.check_presence(socket)?;
        }
        let wants_history = history.is_some();
        let join = with_past(Join::new(&room), history)?;
        self.may_join(socket, &room, wants_history, presence)?;
        let join = if replay == Some(Replay::Events) { join.replayed() } else { join };
        let join = if presence { join.present() } else { join };
        socket.join(join)?.answer(ack.take());
        Ok(())
    }

    fn leave(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let RoomArgs { room } = read(event)?;
        self.check_room(socket, &room)?;
        if is_own(socket, &room) {
            return Err(Refused::forbidden("room: is one's own, and cannot be left"));
        }
        socket.leave(&room);
        done(socket, ack)
    }

    fn publish(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let PublishArgs { room, event: name, args, echo, volatile, id } = read(event)?;
        if let Some(room) = &room {
            self.names.room(room).map_err(Refused::bad_request)?;
        }
        self.names.event(&name).map_err(Refused::bad_request)?;
        let id = id.unwrap_or_default();
        if id.len() > ID_BYTES_MAX {
            return Err(Refused::bad_request(format!("id: at most {ID_BYTES_MAX} bytes")));
        }
        // What goes to a whole namespace has no order and no history either.
        let volatile = volatile || room.is_none() || self.policy.class(socket.namespace()) == Class::Ephemeral;
        if volatile && !id.is_empty() {
            let why = "id: a message without history is not remembered, so its id would mean nothing";
            return Err(Refused::bad_request(why));
        }
        let args = publish_args(event, args)?;
        self.may_publish(socket, &Publish { room: room.as_deref(), event: &name, args: &args, volatile })?;
        let mut broadcast = socket.broadcast().id(&id);
        if let Some(room) = &room {
            broadcast = broadcast.to(room);
        }
        if echo {
            broadcast = broadcast.echo();
        }
        if volatile {
            broadcast = broadcast.volatile();
        }
        broadcast.publish_read(&name, &args)?.answer(ack.take());
        Ok(())
    }

    fn history(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let HistoryArgs { room, limit, since, epoch, reverse } = read(event)?;
        self.check_room(socket, &room)?;
        self.check_history(socket)?;
        let limit = limit.unwrap_or(HISTORY_LIMIT);
        if limit == 0 || limit > HISTORY_LIMIT_MAX {
            return Err(Refused::bad_request(format!("limit: 1 to {HISTORY_LIMIT_MAX}")));
        }
        let since = match (since, &epoch) {
            (Some(since), Some(epoch)) => Some((since, epoch.as_str())),
            (Some(_), None) => return Err(Refused::bad_request("since: needs the epoch it belongs to")),
            (None, _) => None,
        };
        self.may(socket, &room, Action::History)?;
        socket.history(&room, Page { limit, since, reverse })?.answer(ack.take());
        Ok(())
    }

    fn presence(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let RoomArgs { room } = read(event)?;
        self.check_room(socket, &room)?;
        self.check_presence(socket)?;
        self.may(socket, &room, Action::Presence)?;
        socket.presence(&room)?.answer(ack.take());
        Ok(())
    }

    /// Gives an event that nobody handled to the rooms of its sender, as far as it may publish to them.
    fn relay(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        self.names.event(event.name()).map_err(Refused::bad_request)?;
        let args = relayed(event)?;
        let rooms: Vec<String> = socket.rooms().into_iter().map(str::to_owned).collect();
        let permitted = |room: &String| self.may(socket, room, Action::Publish).is_ok();
        let allowed: Vec<&String> = rooms.iter().filter(|room| permitted(room)).collect();
        if allowed.is_empty() {
            // Who is in no room is heard by nobody; who may publish to none of its rooms is told so.
            rooms.first().map_or(Ok(()), |room| self.may(socket, room, Action::Publish))?;
            return done(socket, ack);
        }
        let broadcast = allowed.iter().fold(socket.broadcast().volatile(), |broadcast, room| broadcast.to(room));
        broadcast.publish_read(event.name(), &args)?.answer(ack.take());
        Ok(())
    }
}

impl Handler for Builtin {
    fn layer(&self) -> Layer {
        self.program.layer()
    }

    fn headers(&self) -> &'static [&'static str] {
        self.program.headers()
    }

    fn on_start(&self, node: &Node) {
        self.program.on_start(node);
    }

    fn accepts(&self, namespace: &str) -> bool {
        self.policy.has(namespace) && self.program.accepts(namespace)
    }

    fn admit(&self, client: &Handshake<'_>) -> Result<Identity, Refused> {
        self.program.admit(client)
    }

    fn on_connect(&self, socket: &mut Socket<'_>, auth: Option<&str>) {
        self.program.on_connect(socket, auth);
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let mut ack = ack;
        let done = match self.verb(event.name()) {
            Some(Verb::Join) => self.join(socket, event, &mut ack),
            Some(Verb::Leave) => self.leave(socket, event, &mut ack),
            Some(Verb::Publish) => self.publish(socket, event, &mut ack),
            Some(Verb::History) => self.history(socket, event, &mut ack),
            Some(Verb::Presence) => self.presence(socket, event, &mut ack),
            None => match (self.program.on_event(socket, event, ack), self.policy.relay(socket.namespace())) {
                (Handled::No(unspent), Relay::SenderRooms) => {
                    ack = unspent;
                    self.relay(socket, event, &mut ack)
                }
                (handled @ (Handled::Yes | Handled::No(_)), _) => return handled,
            },
        };
        if let Err(refused) = done {
            socket.refuse(ack, &refused);
        }
        Handled::Yes
    }

    fn on_join(&self, socket: &mut Socket<'_>, room: &str) -> Decision {
        self.program.on_join(socket, room)
    }

    fn on_publish(&self, socket: &mut Socket<'_>, publish: &Publish<'_>) -> Decision {
        self.program.on_publish(socket, publish)
    }

    fn on_disconnect(&self, socket: &mut Socket<'_>, why: Departure) {
        self.program.on_disconnect(socket, why);
    }

    fn on_message(&self, message: Message) -> Option<Message> {
        self.program.on_message(message)
    }
}

/// Answers that all went well.
fn done(socket: &mut Socket<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
    match ack.take() {
        Some(ack) => Ok(socket.ack(ack, &envelope::answer(r#"{"ok":true}"#, Vec::new()))?),
        None => Ok(()),
    }
}
