//! Whether a client may: its wish is put to the program, and what the program leaves open to the configuration.
//!
//! Invariants: the order of decision is that of `policy`; a refusal says nothing about whether the room exists.

use super::Builtin;
use crate::{
    config::Class,
    handler::{Code, Decision, Publish, Refused, Socket},
    policy::{Action, Denied, Subject, USER_ROOM},
};

impl Builtin {
    /// A room that can be asked for: the room of a socket's id is that socket's, with nothing to join, read or list.
    pub(super) fn check_room(&self, socket: &Socket<'_>, room: &str) -> Result<(), Refused> {
        self.names.room(room).map_err(Refused::bad_request)?;
        if socket.is_socket_id(room) { Err(refused(Denied::Forbidden)) } else { Ok(()) }
    }

    /// History can be asked for in this namespace.
    pub(super) fn check_history(&self, socket: &Socket<'_>) -> Result<(), Refused> {
        match self.policy.class(socket.namespace()) {
            Class::Ordered => Ok(()),
            Class::Ephemeral => Err(Refused::bad_request("history: this namespace keeps none")),
        }
    }

    /// Members can be shown in this namespace.
    pub(super) fn check_presence(&self, socket: &Socket<'_>) -> Result<(), Refused> {
        let on = self.policy.presence(socket.namespace());
        if on { Ok(()) } else { Err(Refused::bad_request("presence: is off in this namespace")) }
    }

    pub(super) fn may_join(
        &self,
        socket: &mut Socket<'_>,
        room: &str,
        history: bool,
        presence: bool,
    ) -> Result<(), Refused> {
        match self.program.on_join(socket, room) {
            Decision::Allow => return Ok(()),
            Decision::Refuse(why) => return Err(why),
            Decision::Default => {}
        }
        self.may(socket, room, Action::Join)?;
        // What members may is open to whoever is about to be one.
        let member = Subject { user: socket.user(), member: true };
        let wanted = [(history, Action::History), (presence, Action::Presence)].into_iter();
        let mut wanted = wanted.filter_map(|(wanted, action)| wanted.then_some(action));
        wanted.try_for_each(|action| self.policy.decide(socket.namespace(), room, action, member)).map_err(refused)
    }

    pub(super) fn may_publish(&self, socket: &mut Socket<'_>, publish: &Publish<'_>) -> Result<(), Refused> {
        match self.program.on_publish(socket, publish) {
            Decision::Allow => return Ok(()),
            Decision::Refuse(why) => return Err(why),
            Decision::Default => {}
        }
        match publish.room {
            Some(room) if room != socket.id() && socket.is_socket_id(room) => Err(refused(Denied::Forbidden)),
            Some(room) => self.may(socket, room, Action::Publish),
            None => self.may(socket, "", Action::Broadcast),
        }
    }

    /// What the configuration says.
    pub(super) fn may(&self, socket: &Socket<'_>, room: &str, action: Action) -> Result<(), Refused> {
        let who = Subject { user: socket.user(), member: socket.is_in(room) };
        self.policy.decide(socket.namespace(), room, action, who).map_err(refused)
    }
}

/// Whether a room is that of the user the socket belongs to.
pub(super) fn is_own(socket: &Socket<'_>, room: &str) -> bool {
    socket.user().is_some_and(|user| room.strip_prefix(USER_ROOM) == Some(user))
}

fn refused(denied: Denied) -> Refused {
    match denied {
        Denied::Unauthorized => Refused::new(Code::Unauthorized, "room: only for those who are signed in"),
        Denied::NotMember => Refused::new(Code::NotMember, "room: only for its members"),
        Denied::Forbidden => Refused::forbidden("room: not allowed"),
    }
}
