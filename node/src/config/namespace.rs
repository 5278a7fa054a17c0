//! `[[namespace]]`: what clients may do, by namespace and by room.
//!
//! Invariants: these values are what was written, checked but not weighed; which rule decides is `policy`'s business. A
//! namespace that is not written does not exist outside development, and what it does not allow is refused.

use std::time::Duration;

use super::History;
use super::value::choice;

/// One `[[namespace]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Namespace {
    /// Its name; begins with `/`, unique.
    pub name: String,
    /// Whether messages have an order and a history.
    pub class: Class,
    /// Whether members can be listed and announced.
    pub presence: bool,
    /// What its rooms keep, where that differs from `[store]`.
    pub history: HistoryRule,
    /// Who may join rooms; never [`Who::Member`].
    pub allow_join: Who,
    /// Who may publish to a room.
    pub allow_publish: Who,
    /// Who may read the history of a room.
    pub allow_history: Who,
    /// Who may list the members of a room.
    pub allow_presence: Who,
    /// Who may publish to the whole namespace; never [`Who::Member`].
    pub allow_broadcast: Who,
    /// What happens to an event that nobody handles.
    pub relay: Relay,
    /// Rules for some of its rooms.
    pub rooms: Vec<RoomRule>,
}

impl Default for Namespace {
    fn default() -> Namespace {
        Namespace {
            name: String::new(),
            class: Class::Ordered,
            presence: true,
            history: HistoryRule::default(),
            allow_join: Who::Nobody,
            allow_publish: Who::Nobody,
            allow_history: Who::Nobody,
            allow_presence: Who::Nobody,
            allow_broadcast: Who::Nobody,
            relay: Relay::Off,
            rooms: Vec::new(),
        }
    }
}

/// One `[[namespace.rooms]]`: what differs for the rooms that a pattern names. What is absent is not this rule's matter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoomRule {
    /// Names of rooms; `*` stands for any text, `{user}` for the name of the user who asks. Unique in its namespace.
    pub pattern: String,
    /// As [`Namespace::allow_join`].
    pub allow_join: Option<Who>,
    /// As [`Namespace::allow_publish`].
    pub allow_publish: Option<Who>,
    /// As [`Namespace::allow_history`].
    pub allow_history: Option<Who>,
    /// As [`Namespace::allow_presence`].
    pub allow_presence: Option<Who>,
    /// What these rooms keep, where that differs from their namespace.
    pub history: HistoryRule,
}

/// What rooms keep, as far as it was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRule {
    /// Newest messages kept per room.
    pub size: Option<usize>,
    /// Oldest age kept.
    pub ttl: Option<Duration>,
}

impl HistoryRule {
    /// What is kept where `wider` says what this rule leaves open.
    pub fn within(&self, wider: &History) -> History {
        History { size: self.size.unwrap_or(wider.size), ttl: self.ttl.unwrap_or(wider.ttl) }
    }
}

choice! {
    /// Whom something is allowed to.
    Who {
        /// Nobody, unless a program or a token says otherwise.
        Nobody = "nobody",
        /// Everybody who is connected.
        Anonymous = "anonymous",
        /// Everybody whose name is known.
        Authenticated = "authenticated",
        /// Members of the room.
        Member = "member"
    }
}

choice! {
    /// What the messages of a namespace are.
    Class {
        /// One order per room, history, repeats recognised.
        Ordered = "ordered",
        /// Sent to whoever is there, kept nowhere.
        Ephemeral = "ephemeral"
    }
}

choice! {
    /// What happens to an event that nobody handles.
    Relay {
        /// It is answered `unhandled_event`.
        Off = "off",
        /// It goes to the rooms of its sender.
        SenderRooms = "sender_rooms"
    }
}
