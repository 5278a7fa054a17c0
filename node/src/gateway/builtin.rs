//! The built-in events: `room:join`, `room:leave`, `room:publish`, `room:history` (`interface.md` 1.1).
//!
//! Invariants: every event that asks for an answer gets one, a refusal names what is wrong with which field; an event's
//! arguments are validated whole before anything changes.

use std::{borrow::Cow, str::FromStr, time::Instant};

use bytestring::ByteString;
use mesh::{
    room::RoomKey,
    slot::{Publish, Want},
    wire::message::FLAG_VOLATILE,
};
use protocol::{
    socket_id::is_socket_id,
    socketio::{Args, Packet, RESERVED_EVENTS},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{Asker, EVERYONE, Entry, Gateway, Pending, Question};
use crate::{clock, envelope, key::ConnKey, metrics::RejectReason};

/// Longest publisher's id in bytes (`interface.md` 1.1).
const ID_BYTES_MAX: usize = 64;
/// Items of `room:history` without a limit, and at most.
const HISTORY_LIMIT: u32 = 100;
const HISTORY_LIMIT_MAX: u32 = 1_000;

/// The events that are handled here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
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

/// Why an event is refused: a code of `interface.md` 1.1 and a sentence.
struct Refused {
    code: &'static str,
    message: String,
}

fn bad(message: impl Into<String>) -> Refused {
    Refused { code: "bad_request", message: message.into() }
}

fn busy() -> Refused {
    Refused { code: "rate_limited", message: "too many unanswered events on this connection".into() }
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
    #[serde(borrow, default)]
    args: Vec<&'a RawValue>,
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

impl Gateway {
    /// Handles one built-in event of a socket.
    pub(super) fn handle_builtin(
        &mut self,
        verb: Verb,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        args: &Args,
        now: Instant,
    ) {
        let result = match verb {
            Verb::Join => self.room_join(key, namespace, ack, args, now),
            Verb::Leave => self.room_leave(key, namespace, ack, args, now),
            Verb::Publish => self.room_publish(key, namespace, ack, args, now),
            Verb::History => self.room_history(key, namespace, ack, args),
        };
        if let Err(Refused { code, message }) = result {
            self.tally.rejected.push(match code {
                "limit_reached" => RejectReason::Rooms,
                "rate_limited" => RejectReason::Overloaded,
                _ => RejectReason::BadRequest,
            });
            self.nack(key, namespace, ack, code, &message);
        }
    }

    fn room_join(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        args: &Args,
        now: Instant,
    ) -> Result<(), Refused> {
        let JoinArgs { room, history, replay, presence } = parse(args)?;
        self.check_room(&room)?;
        if presence == Some(true) {
            return Err(bad("presence is not available in this version"));
        }
        let want = history.map_or(Ok(Want::Nothing), want_of)?;
        let room = RoomKey::new(namespace, &room);
        let limit = self.context.config.limits.rooms_per_socket;
        let Some(socket) = self.connections.get(key).and_then(|connection| connection.socket(namespace)) else {
            return Ok(());
        };
        let member = self.rooms.find(&room).is_some_and(|id| socket.rooms.contains(&id));
        // The room of the whole namespace is one of them and does not count.
        if !member && socket.rooms.len() + socket.joining.len() > limit {
            return Err(Refused { code: "limit_reached", message: format!("a socket may be in {limit} rooms") });
        }
        let replay = replay == Some(Replay::Events);
        if want != Want::Nothing && !self.may_ask(key, Question::History) {
            return Err(busy());
        }
        let how = Entry { ack, want, replay };
        self.enter(key, namespace, &room, how, now);
        Ok(())
    }

    fn room_leave(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        args: &Args,
        now: Instant,
    ) -> Result<(), Refused> {
        let LeaveArgs { room } = parse(args)?;
        self.check_room(&room)?;
        if let Some(id) = self.rooms.find(&RoomKey::new(namespace, &room))
            && let Some(socket) = self.connections.get_mut(key).and_then(|connection| connection.socket_mut(namespace))
        {
            let cancelled: Vec<u64> =
                socket.joining.iter().filter(|(room, _)| *room == id).map(|(_, token)| *token).collect();
            let member = socket.rooms.iter().position(|room| *room == id).map(|at| socket.rooms.swap_remove(at));
            for token in cancelled {
                self.cancel_join(token);
            }
            if member.is_some() {
                self.remove_member(id, key, now);
            }
        }
        self.acknowledge(key, namespace, ack, r#"{"ok":true}"#, Vec::new());
        Ok(())
    }

    fn room_publish(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        args: &Args,
        now: Instant,
    ) -> Result<(), Refused> {
        let publish: PublishArgs<'_> = parse(args)?;
        if let Some(room) = &publish.room {
            self.check_room(room)?;
        }
        self.check_event(&publish.event)?;
        let id = publish.id.unwrap_or_default();
        if id.len() > ID_BYTES_MAX {
            return Err(bad(format!("id: at most {ID_BYTES_MAX} bytes")));
        }
        // What goes to a whole namespace has no order and no history either.
        let volatile = publish.volatile || publish.room.is_none();
        if volatile && !id.is_empty() {
            return Err(bad("id: a message without history is not remembered, so its id would mean nothing"));
        }
        let own_id =
            self.connections.get(key).and_then(|connection| connection.socket(namespace)).map(|s| s.id.clone());
        let except = if publish.echo { Vec::new() } else { own_id.into_iter().collect() };
        let texts = publish.args.iter().map(|arg| arg.get());
        if !args.attachments.is_empty() && !envelope::names_each_once(texts, args.attachments.len()) {
            return Err(bad("args: every attachment has one placeholder, and stands in args"));
        }
        let payload = envelope::payload(namespace, &publish.event, &publish.args, &args.attachments);
        self.tally.published_by_clients += 1;
        let publish = Publish {
            room: RoomKey::new(namespace, publish.room.as_deref().unwrap_or(EVERYONE)),
            flags: if volatile { FLAG_VOLATILE } else { 0 },
            id: id.into(),
            from: ByteString::new(),
            except,
            payload,
        };
        let pending = self.pending(key, namespace, ack, Question::Publish)?;
        self.publish(pending, publish, now, clock::wall_ms());
        Ok(())
    }

    fn room_history(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        args: &Args,
    ) -> Result<(), Refused> {
        let HistoryArgs { room, limit, since, epoch, reverse } = parse(args)?;
        self.check_room(&room)?;
        let limit = limit.unwrap_or(HISTORY_LIMIT);
        if limit == 0 || limit > HISTORY_LIMIT_MAX {
            return Err(bad(format!("limit: 1 to {HISTORY_LIMIT_MAX}")));
        }
        let since = match (since, epoch) {
            (Some(since), Some(epoch)) => Some((since, envelope::lineage(&epoch))),
            (Some(_), None) => return Err(bad("since: needs the epoch it belongs to")),
            (None, _) => None,
        };
        let pending = self.pending(key, namespace, ack, Question::History)?;
        self.read_history(
            pending,
            &RoomKey::new(namespace, &room),
            Want::Page { limit, since, reverse },
            clock::wall_ms(),
        );
        Ok(())
    }

    /// A question in the name of a socket, unless its connection has too many open.
    fn pending(
        &self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        question: Question,
    ) -> Result<Pending, Refused> {
        if !self.may_ask(key, question) {
            return Err(busy());
        }
        let socket = self.connections.get(key).and_then(|connection| connection.socket(namespace));
        let socket = socket.map(|socket| socket.id.clone()).unwrap_or_default();
        Ok(Pending { asker: Asker { key, namespace: namespace.clone(), socket }, ack, question })
    }

    fn check_room(&self, room: &str) -> Result<(), Refused> {
        self.check_name("room", room)?;
        if room.starts_with("user:") || is_socket_id(room, &self.context.sid_key) {
            return Err(Refused { code: "forbidden", message: "room: belongs to a user or a socket".into() });
        }
        Ok(())
    }

    fn check_event(&self, event: &str) -> Result<(), Refused> {
        self.check_name("event", event)?;
        let builtin = event.starts_with(&self.context.config.socketio.builtin_prefix) || event.starts_with("auth:");
        if builtin || RESERVED_EVENTS.contains(&event) {
            return Err(bad(format!("event: {event:?} is reserved")));
        }
        Ok(())
    }

    fn check_name(&self, field: &str, name: &str) -> Result<(), Refused> {
        let max = self.context.config.limits.name_bytes;
        if name.is_empty() || name.len() > max || name.chars().any(char::is_control) {
            return Err(bad(format!("{field}: 1 to {max} bytes of text without control characters")));
        }
        Ok(())
    }

    /// Answers an event that asked for it with `{ok: false, code, message}`.
    pub(super) fn nack(&mut self, key: ConnKey, namespace: &ByteString, ack: Option<u64>, code: &str, message: &str) {
        let body = json!({"ok": false, "code": code, "message": message}).to_string();
        self.acknowledge(key, namespace, ack, &body, Vec::new());
    }

    /// Answers an event that asked for it with one JSON object.
    pub(super) fn acknowledge(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        ack: Option<u64>,
        object: &str,
        attachments: Vec<bytes::Bytes>,
    ) {
        let (Some(id), Some(connection)) = (ack, self.connections.get_mut(key)) else { return };
        if connection.socket(namespace).is_none() {
            return;
        }
        let args = envelope::answer(object, attachments);
        connection.send_packet(&Packet::Ack { nsp: namespace.clone(), id, args });
        self.touch(key);
    }
}

/// The one object an event comes with.
fn parse<'a, T: Deserialize<'a>>(args: &'a Args) -> Result<T, Refused> {
    let elements = args.elements().map_err(|error| bad(error.to_string()))?;
    let object = elements.get(1).ok_or_else(|| bad("the event needs one object as its argument"))?;
    serde_json::from_str(object.get()).map_err(|error| bad(error.to_string()))
}

fn want_of(past: Past) -> Result<Want, Refused> {
    match past {
        Past { last: Some(last), since: None, epoch: None } => Ok(Want::Last(last)),
        Past { last: None, since: Some(after), epoch: Some(epoch) } => {
            Ok(Want::Since { after, lineage: envelope::lineage(&epoch) })
        }
        Past { since: Some(_), epoch: None, .. } => Err(bad("history.since: needs the epoch it belongs to")),
        Past { .. } => Err(bad("history: either {last} or {since, epoch}")),
    }
}
