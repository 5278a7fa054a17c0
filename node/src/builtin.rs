//! The built-in events: `room:join`, `room:leave`, `room:publish`, `room:history` (`interface.md` 1.1), around the
//! handler of the embedding program.
//!
//! Invariants: it is a handler like any other, written on what every handler has; every event that asks for an answer gets
//! one, a refusal names what is wrong with which field; an event's arguments are validated whole before anything changes.

use std::{borrow::Cow, str::FromStr, sync::Arc};

use protocol::socketio::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    envelope,
    handler::{
        Ack, Decision, Departure, Event, Handled, Handler, Handshake, ID_BYTES_MAX, Identity, Join, Layer, Message,
        Node, Page, Publish, Refused, Socket,
    },
    names::Names,
};

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
}

impl FromStr for Verb {
    type Err = ();

    fn from_str(name: &str) -> Result<Verb, ()> {
        match name {
            "join" => Ok(Verb::Join),
            "leave" => Ok(Verb::Leave),
            "publish" => Ok(Verb::Publish),
            "history" => Ok(Verb::History),
            _ => Err(()),
        }
    }
}

#[derive(Deserialize)]
struct JoinArgs {
    room: String,
    history: Option<Past>,
    replay: Option<Replay>,
    presence: Option<bool>,
}

#[derive(Deserialize)]
struct Past {
    last: Option<u32>,
    since: Option<u64>,
    epoch: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Replay {
    Ack,
    Events,
}

#[derive(Deserialize)]
struct LeaveArgs {
    room: String,
}

#[derive(Deserialize)]
struct PublishArgs<'a> {
    room: Option<String>,
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    #[serde(default)]
    echo: bool,
    #[serde(default)]
    volatile: bool,
    id: Option<String>,
}

#[derive(Deserialize)]
struct HistoryArgs {
    room: String,
    limit: Option<u32>,
    since: Option<u64>,
    epoch: Option<String>,
    #[serde(default)]
    reverse: bool,
}

/// See the module.
pub(crate) struct Builtin {
    names: Names,
    program: Arc<dyn Handler>,
}

impl Builtin {
    /// The built-in events in front of a program's own.
    pub(crate) fn new(names: Names, program: Arc<dyn Handler>) -> Builtin {
        Builtin { names, program }
    }

    fn verb(&self, event: &str) -> Option<Verb> {
        event.strip_prefix(self.names.builtin_prefix())?.parse().ok()
    }

    fn join(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let JoinArgs { room, history, replay, presence } = read(event)?;
        self.check_room(socket, &room)?;
        if presence == Some(true) {
            return Err(Refused::bad_request("presence is not available in this version"));
        }
        let join = with_past(Join::new(&room), history)?;
        decided(self.program.on_join(socket, &room))?;
        let join = if replay == Some(Replay::Events) { join.replayed() } else { join };
        socket.join(join)?.answer(ack.take());
        Ok(())
    }

    fn leave(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let LeaveArgs { room } = read(event)?;
        self.check_room(socket, &room)?;
        socket.leave(&room);
        if let Some(ack) = ack.take() {
            socket.ack(ack, &envelope::answer(r#"{"ok":true}"#, Vec::new()))?;
        }
        Ok(())
    }

    fn publish(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: &mut Option<Ack>) -> Result<(), Refused> {
        let PublishArgs { room, event: name, args, echo, volatile, id } = read(event)?;
        if let Some(room) = &room {
            self.check_room(socket, room)?;
        }
        self.names.event(&name).map_err(Refused::bad_request)?;
        let id = id.unwrap_or_default();
        if id.len() > ID_BYTES_MAX {
            return Err(Refused::bad_request(format!("id: at most {ID_BYTES_MAX} bytes")));
        }
        // What goes to a whole namespace has no order and no history either.
        let volatile = volatile || room.is_none();
        if volatile && !id.is_empty() {
            let why = "id: a message without history is not remembered, so its id would mean nothing";
            return Err(Refused::bad_request(why));
        }
        let args = publish_args(event, args)?;
        let asked = Publish { room: room.as_deref(), event: &name, args: &args, volatile };
        decided(self.program.on_publish(socket, &asked))?;
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
        let limit = limit.unwrap_or(HISTORY_LIMIT);
        if limit == 0 || limit > HISTORY_LIMIT_MAX {
            return Err(Refused::bad_request(format!("limit: 1 to {HISTORY_LIMIT_MAX}")));
        }
        let since = match (since, &epoch) {
            (Some(since), Some(epoch)) => Some((since, epoch.as_str())),
            (Some(_), None) => return Err(Refused::bad_request("since: needs the epoch it belongs to")),
            (None, _) => None,
        };
        socket.history(&room, Page { limit, since, reverse })?.answer(ack.take());
        Ok(())
    }

    fn check_room(&self, socket: &Socket<'_>, room: &str) -> Result<(), Refused> {
        self.names.room(room).map_err(Refused::bad_request)?;
        if room.starts_with("user:") || socket.is_socket_id(room) {
            return Err(Refused::forbidden("room: belongs to a user or a socket"));
        }
        Ok(())
    }
}

impl Handler for Builtin {
    fn layer(&self) -> Layer {
        self.program.layer()
    }

    fn on_start(&self, node: &Node) {
        self.program.on_start(node);
    }

    fn accepts(&self, namespace: &str) -> bool {
        self.program.accepts(namespace)
    }

    fn admit(&self, client: &Handshake<'_>) -> Result<Identity, Refused> {
        self.program.admit(client)
    }

    fn on_connect(&self, socket: &mut Socket<'_>, auth: Option<&str>) {
        self.program.on_connect(socket, auth);
    }

    fn on_event(&self, socket: &mut Socket<'_>, event: &Event<'_>, ack: Option<Ack>) -> Handled {
        let Some(verb) = self.verb(event.name()) else { return self.program.on_event(socket, event, ack) };
        let mut ack = ack;
        let done = match verb {
            Verb::Join => self.join(socket, event, &mut ack),
            Verb::Leave => self.leave(socket, event, &mut ack),
            Verb::Publish => self.publish(socket, event, &mut ack),
            Verb::History => self.history(socket, event, &mut ack),
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

/// The one object an event comes with.
fn read<'a, T: Deserialize<'a>>(event: &Event<'a>) -> Result<T, Refused> {
    event.first().map_err(|error| Refused::bad_request(error.to_string()))
}

/// What a publish carries: an array, in which every attachment of the packet has its place.
fn publish_args(event: &Event<'_>, array: Option<&RawValue>) -> Result<Args, Refused> {
    let attachments = event.attachments().len();
    let text = array.map_or("[]", RawValue::get);
    if attachments > 0 && !envelope::names_each_once(std::iter::once(text), attachments) {
        return Err(Refused::bad_request("args: every attachment has one placeholder, and stands in args"));
    }
    let Some(array) = array else { return Ok(Args::text("[]")) };
    event.args_in(array).ok_or_else(|| Refused::bad_request("args: an array"))
}

fn with_past(join: Join<'_>, past: Option<Past>) -> Result<Join<'_>, Refused> {
    let Some(past) = past else { return Ok(join) };
    match past {
        Past { last: Some(last), since: None, epoch: None } => Ok(join.last(last)),
        Past { last: None, since: Some(after), epoch: Some(epoch) } => Ok(join.since(after, &epoch)),
        Past { since: Some(_), epoch: None, .. } => {
            Err(Refused::bad_request("history.since: needs the epoch it belongs to"))
        }
        Past { .. } => Err(Refused::bad_request("history: either {last} or {since, epoch}")),
    }
}

/// What a program says to a client's wish; without permissions by configuration, the default is yes.
fn decided(decision: Decision) -> Result<(), Refused> {
    match decision {
        Decision::Default | Decision::Allow => Ok(()),
        Decision::Refuse(refused) => Err(refused),
    }
}
