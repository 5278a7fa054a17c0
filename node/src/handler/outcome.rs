//! What became of what a program asked for: nobody wants to know, an event's ack says it, or a closure is called.
//!
//! Invariants: an outcome is told once, after the call that asked for it has returned; told by an ack, it is the very
//! answer that the built-in events give, and costs no allocation but its text.

use std::{fmt, fmt::Write as _, marker::PhantomData, sync::Arc};

use bytestring::ByteString;
use mesh::{
    room::RoomKey,
    slot::{self, Roster, Stamp},
    wire::message::Frame,
};
use protocol::socketio::{Args, Parser};

use super::{Ack, Code, Reached, Refused, Socket, Sockets, sockets};
use crate::{envelope, gateway::Gateway, orders::Carried};

/// Something that was asked for and is not answered yet. Whoever drops it is not told what becomes of it.
pub struct Asked<'a, T> {
    gateway: &'a mut Gateway,
    question: u64,
    outcome: PhantomData<fn() -> T>,
}

impl<'a, T> Asked<'a, T> {
    pub(crate) fn new(gateway: &'a mut Gateway, question: u64) -> Asked<'a, T> {
        Asked { gateway, question, outcome: PhantomData }
    }

    /// The outcome is the answer to an event, as the built-in events give it: `{ok: true, …}` or `{ok: false, code, …}`.
    pub fn answer(self, ack: impl Into<Option<Ack>>) {
        if let Some(ack) = ack.into() {
            self.gateway.set_then(self.question, Then::Ack(ack));
        }
    }

    fn call(self, call: Call) {
        self.gateway.set_then(self.question, Then::Call(call));
    }
}

impl Asked<'_, Published> {
    /// Calls `then` with the outcome, on this thread. The socket may be gone by then ([`Socket::is_connected`]).
    pub fn then(self, then: impl FnOnce(&mut Socket<'_>, Result<Published, Refused>) + 'static) {
        self.call(Box::new(|socket, outcome| then(socket, outcome.and_then(|outcome| Published::of(&outcome)))));
    }
}

impl Asked<'_, History> {
    /// Calls `then` with the outcome, on this thread. The socket may be gone by then ([`Socket::is_connected`]).
    pub fn then(self, then: impl FnOnce(&mut Socket<'_>, Result<History, Refused>) + 'static) {
        self.call(Box::new(|socket, outcome| then(socket, outcome.and_then(History::of))));
    }
}

impl Asked<'_, Present> {
    /// Calls `then` with the outcome, on this thread. The socket may be gone by then ([`Socket::is_connected`]).
    pub fn then(self, then: impl FnOnce(&mut Socket<'_>, Result<Present, Refused>) + 'static) {
        self.call(Box::new(|socket, outcome| then(socket, outcome.and_then(Present::of))));
    }
}

impl Asked<'_, Sockets> {
    /// Calls `then` with the outcome, on this thread. The socket may be gone by then ([`Socket::is_connected`]).
    pub fn then(self, then: impl FnOnce(&mut Socket<'_>, Result<Sockets, Refused>) + 'static) {
        self.call(Box::new(|socket, outcome| {
            then(socket, outcome.and_then(|outcome| Ok(Sockets::of(&outcome.carried()?))));
        }));
    }
}

impl Asked<'_, Reached> {
    /// Calls `then` with the outcome, on this thread. The socket may be gone by then ([`Socket::is_connected`]).
    pub fn then(self, then: impl FnOnce(&mut Socket<'_>, Result<Reached, Refused>) + 'static) {
        self.call(Box::new(|socket, outcome| {
            then(socket, outcome.and_then(|outcome| Ok(Reached::of(&outcome.carried()?))));
        }));
    }
}

impl<T> fmt::Debug for Asked<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("question", &self.question).finish_non_exhaustive()
    }
}

/// Where a message stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The unbroken history its offset belongs to.
    pub epoch: String,
    /// Its place there; `None` for what is kept in no history, or went to several rooms.
    pub offset: Option<u64>,
}

impl Published {
    fn of(outcome: &Outcome) -> Result<Published, Refused> {
        match outcome {
            Outcome::Published(stamp) => Ok(Published {
                epoch: envelope::epoch(stamp.lineage),
                offset: Some(stamp.n).filter(|offset| *offset > 0),
            }),
            Outcome::Joined(_)
            | Outcome::History(_)
            | Outcome::Presence(_)
            | Outcome::Listed(_)
            | Outcome::Reached(_) => Err(another()),
        }
    }
}

/// What a room holds of its past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The unbroken history that offsets belong to.
    pub epoch: String,
    /// The newest offset there.
    pub offset: u64,
    /// What was asked for, oldest first unless in reverse.
    pub items: Vec<Item>,
    /// Nothing further is there in the direction of reading.
    pub complete: bool,
    /// Something between the position that was asked from and the first item is not retained any more.
    pub gap: bool,
}

/// An old event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place in the history.
    pub offset: u64,
    /// The event's name.
    pub event: String,
    /// Its arguments.
    pub args: Args,
    /// When it was published, Unix milliseconds.
    pub time_ms: u64,
    /// The user who published it.
    pub from: Option<String>,
}

impl History {
    fn of(outcome: Outcome) -> Result<History, Refused> {
        let history = match outcome {
            Outcome::History(history) => history,
            Outcome::Joined(joined) => joined.history,
            Outcome::Published(_) | Outcome::Presence(_) | Outcome::Listed(_) | Outcome::Reached(_) => {
                return Err(another());
            }
        };
        let items = history.frames.iter().filter_map(|frame| Item::of(frame)).collect();
        let (epoch, offset) = (envelope::epoch(history.lineage), history.head);
        let gap = history.gap || history.recovered == Some(false);
        Ok(History { epoch, offset, items, complete: history.complete, gap })
    }
}

impl Item {
    fn of(frame: &Frame) -> Option<Item> {
        let (event, args) = envelope::opened(frame)?;
        let from = Some(frame.from.to_string()).filter(|from| !from.is_empty());
        Some(Item { offset: frame.n, event, args, time_ms: frame.time_ms, from })
    }
}

/// Who is present in a room: those who joined it and show themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// What others see of each: the JSON text of an object with `id`, and `user` and `info` where they are known.
    pub members: Vec<String>,
    /// Some node could not be heard: there may be others, and some of these may be gone.
    pub partial: bool,
}

impl Present {
    fn of(outcome: Outcome) -> Result<Present, Refused> {
        match outcome {
            Outcome::Presence(Roster { members, partial }) => {
                Ok(Present { members: members.iter().map(ToString::to_string).collect(), partial })
            }
            Outcome::Published(_)
            | Outcome::Joined(_)
            | Outcome::History(_)
            | Outcome::Listed(_)
            | Outcome::Reached(_) => Err(another()),
        }
    }
}

/// A slot answers what was asked; anything else is a bug that must not look like success.
fn another() -> Refused {
    Refused::new(Code::Internal, "nothing is known about the effect")
}

/// A closure that is told an outcome.
pub(crate) type Call = Box<dyn FnOnce(&mut Socket<'_>, Result<Outcome, Refused>)>;

/// Who is told an outcome.
pub(crate) enum Then {
    /// Nobody.
    Nothing,
    /// The client that waits for this ack.
    Ack(Ack),
    /// The program.
    Call(Call),
    /// A question that several others are the answer to.
    Part(u64),
    /// An order that several joins are part of.
    Order(usize),
}

/// What was answered, when what was asked was taken.
pub(crate) enum Outcome {
    Published(Stamp),
    Joined(Joined),
    History(slot::History),
    Presence(Roster),
    /// Sockets are told about.
    Listed(Carried),
    /// Something was done with sockets.
    Reached(Carried),
}

/// A room was joined.
pub(crate) struct Joined {
    pub(crate) room: RoomKey,
    pub(crate) history: slot::History,
    pub(crate) shows: Shows,
}

/// How the past of a joined room is shown.
#[derive(Clone, Copy)]
pub(crate) enum Shows {
    /// It was not asked for.
    Nothing,
    /// In the answer.
    History,
    /// As so many events behind the answer.
    Replay(usize),
}

impl Outcome {
    fn carried(self) -> Result<Carried, Refused> {
        match self {
            Outcome::Listed(carried) | Outcome::Reached(carried) => Ok(carried),
            Outcome::Published(_) | Outcome::Joined(_) | Outcome::History(_) | Outcome::Presence(_) => Err(another()),
        }
    }

    /// The answer to the event that asked for it (`interface.md` 1.1), for a client with this parser.
    pub(crate) fn answer(&self, parser: Parser) -> Args {
        match self {
            Outcome::Published(stamp) if stamp.n == 0 => envelope::answer(r#"{"ok":true}"#, Vec::new()),
            Outcome::Published(Stamp { lineage, n }) => {
                let epoch = envelope::epoch(*lineage);
                envelope::answer(&format!(r#"{{"ok":true,"epoch":"{epoch}","offset":{n}}}"#), Vec::new())
            }
            Outcome::Joined(joined) => joined.answer(parser),
            Outcome::History(history) => page(history, parser),
            Outcome::Presence(Roster { members, partial }) => {
                let members = listed(members);
                envelope::answer(&format!(r#"{{"ok":true,"members":{members},"partial":{partial}}}"#), Vec::new())
            }
            Outcome::Listed(carried) => envelope::answer(&sockets::listed(carried), Vec::new()),
            Outcome::Reached(carried) => envelope::answer(&sockets::reached(carried), Vec::new()),
        }
    }
}

impl Joined {
    fn answer(&self, parser: Parser) -> Args {
        let history = &self.history;
        // A string always serialises.
        let name = serde_json::to_string(self.room.room()).unwrap_or_default();
        let (epoch, offset) = (envelope::epoch(history.lineage), history.head);
        let mut body = format!(r#"{{"ok":true,"room":{name},"epoch":"{epoch}","offset":{offset}"#);
        let mut attachments = Vec::new();
        // Writing to a string cannot fail.
        if let Some(recovered) = history.recovered {
            let _ = write!(body, r#","recovered":{recovered}"#);
        }
        match self.shows {
            Shows::Nothing => {}
            Shows::Replay(replayed) => {
                let _ = write!(body, r#","replayed":{replayed}"#);
            }
            Shows::History => {
                let items = envelope::items(frames(&history.frames), parser);
                let _ = write!(body, r#","history":{}"#, items.json);
                attachments = items.attachments;
            }
        }
        if let Some(members) = &history.members {
            let _ = write!(body, r#","members":{}"#, listed(members));
        }
        body.push('}');
        envelope::answer(&body, attachments)
    }
}

fn page(history: &slot::History, parser: Parser) -> Args {
    let items = envelope::items(frames(&history.frames), parser);
    let (epoch, offset, complete) = (envelope::epoch(history.lineage), history.head, history.complete);
    let gap = if history.gap { r#","gap":true"# } else { "" };
    let json = items.json;
    let body =
        format!(r#"{{"ok":true,"epoch":"{epoch}","offset":{offset},"items":{json},"complete":{complete}{gap}}}"#);
    envelope::answer(&body, items.attachments)
}

/// Members, each a JSON text, as a JSON array.
fn listed(members: &[ByteString]) -> String {
    let length = members.iter().map(|member| member.len() + 1).sum::<usize>() + 2;
    let mut out = String::with_capacity(length);
    out.push('[');
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(member);
    }
    out.push(']');
    out
}

fn frames(frames: &[Arc<Frame>]) -> impl Iterator<Item = &Frame> {
    frames.iter().map(AsRef::as_ref)
}
