//! This shard's part in orders (`crate::orders`): it does with its sockets what is to be done, or tells about them; and the
//! orders that its own programs give.
//!
//! Invariants: sockets that join are counted when the last of their joins is answered; an order of a connection's program is
//! one of that connection's questions, and bounded with them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytestring::ByteString;
use mesh::{
    Responder,
    room::RoomKey,
    slot::Want,
    wire::sockets::{Done, Told},
};
use tokio::sync::oneshot;

use super::{Asker, Entry, Gateway, Question, Task, reply};
use crate::{
    connection,
    handler::{Outcome, SocketInfo, Then},
    key::ConnKey,
    orders::{Carried, Deed, Order, merged},
};

/// An order to carry out, and who gets what came of it.
#[derive(Debug)]
pub(crate) struct Carry {
    pub(crate) order: Order,
    pub(crate) back: Giver,
}

/// Who gave an order.
#[derive(Debug)]
pub(crate) enum Giver {
    /// Another node, which wants to know what this one did.
    Peer(Responder),
    /// A program, for which it is carried out on all nodes, by the token of its question.
    Question { token: u64, patience: Duration },
}

/// Joins of an order that are not all answered.
pub(super) struct Joining {
    left: usize,
    done: Done,
    to: oneshot::Sender<Done>,
}

impl Gateway {
    /// Gives an order; the token of the question.
    pub(crate) fn order(&mut self, asker: &Asker, order: Order, patience: Duration) -> u64 {
        let question = match order.deed {
            Deed::List { .. } => Question::Sockets,
            Deed::Join(_) | Deed::Leave(_) | Deed::Disconnect(_) => Question::Reach,
        };
        if let Some(why) = self.refusal(asker.key, &question, None) {
            return self.decide(asker, Err(why));
        }
        let token = self.file(asker, question).token;
        self.tasks.push(Task::Carry(Carry { order, back: Giver::Question { token, patience } }));
        token
    }

    /// Another node gives an order.
    pub(super) fn handle_peer_order(&mut self, order: Order, responder: Responder) {
        self.tasks.push(Task::Carry(Carry { order, back: Giver::Peer(responder) }));
    }

    /// What came of an order of this shard.
    pub(crate) fn handle_carried(&mut self, token: u64, carried: Carried) {
        let Some(pending) = self.take_pending(token) else { return };
        let outcome = match pending.question {
            Question::Sockets => Outcome::Listed(carried),
            Question::Publish
            | Question::Join(_)
            | Question::History
            | Question::Presence
            | Question::Reach
            | Question::Union { .. }
            | Question::Decided => Outcome::Reached(carried),
        };
        self.resolve(pending.asker, pending.then, Ok(outcome));
    }

    /// Does this shard's part.
    pub(super) fn handle_order(&mut self, order: &Arc<Order>, to: oneshot::Sender<Done>, now: Instant) {
        let namespace = &order.audience.namespace;
        let sockets = self.audience(&order.audience).into_iter().filter_map(|key| self.asker(key, namespace));
        let sockets: Vec<Asker> = sockets.collect();
        let done = Done { count: sockets.len() as u64, ..Done::default() };
        match &order.deed {
            Deed::List { after, limit } => {
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                let sockets = self.tell_about(sockets, after, limit);
                return reply(to, merged(vec![Done { sockets, ..done }], limit));
            }
            Deed::Join(rooms) => return self.join_all(&sockets, rooms, Joining { left: 0, done, to }, now),
            Deed::Leave(rooms) => {
                for socket in &sockets {
                    rooms.iter().for_each(|room| self.leave(socket, room, now));
                }
            }
            Deed::Disconnect(leaving) => sockets.iter().for_each(|socket| self.send_away(socket, *leaving, now)),
        }
        reply(to, done);
    }

    /// What others are told of sockets, of one more than are wanted, so that it shows that there are more.
    fn tell_about(&self, mut sockets: Vec<Asker>, after: &ByteString, limit: usize) -> Vec<Told> {
        sockets.retain(|socket| socket.socket > *after);
        let wanted = limit.saturating_add(1);
        if sockets.len() > wanted {
            sockets.select_nth_unstable_by(wanted, |a, b| a.socket.cmp(&b.socket));
            sockets.truncate(wanted);
        }
        let told = sockets.iter().filter_map(|asker| {
            let body = serde_json::to_string(&self.info(self.socket_of(asker)?)).ok()?;
            Some(Told { id: asker.socket.clone(), body: body.into() })
        });
        told.collect()
    }

    fn info(&self, socket: &connection::Socket) -> SocketInfo {
        let rooms = socket.rooms.iter().filter_map(|room| self.rooms.get(*room)).filter(|room| !room.is_namespace());
        let identity = socket.identity.as_deref();
        SocketInfo {
            id: socket.id.to_string(),
            user: identity.and_then(|identity| identity.user.as_ref()).map(ToString::to_string),
            info: identity.and_then(|identity| identity.shown_info()).map(ToOwned::to_owned),
            rooms: rooms.map(|room| room.key.room().to_owned()).collect(),
        }
    }

    fn join_all(&mut self, sockets: &[Asker], rooms: &[ByteString], mut joining: Joining, now: Instant) {
        joining.left = sockets.len() * rooms.len();
        if joining.left == 0 {
            return reply(joining.to, joining.done);
        }
        let order = self.joining.insert(joining);
        for socket in sockets {
            for room in rooms {
                let entry = Entry { want: Want::Nothing, replay: false, present: false };
                let token = self.join(socket, &RoomKey::new(&socket.namespace, room), entry, now);
                self.set_then(token, Then::Order(order));
            }
        }
    }

    /// A join that an order asked for is answered.
    pub(super) fn handle_ordered_join(&mut self, order: usize, refused: bool) {
        let Some(joining) = self.joining.get_mut(order) else { return };
        joining.left = joining.left.saturating_sub(1);
        joining.done.refused += u64::from(refused);
        if joining.left == 0 {
            let Joining { done, to, .. } = self.joining.remove(order);
            reply(to, done);
        }
    }
}

impl ConnKey {
    /// Of whoever speaks without a socket: no table has so many places.
    pub(super) const NOBODY: ConnKey = ConnKey { index: u32::MAX, serial: 0 };
}

/// Who speaks without a socket.
pub(super) fn nobody() -> Asker {
    Asker { key: ConnKey::NOBODY, namespace: ByteString::new(), socket: ByteString::new() }
}
