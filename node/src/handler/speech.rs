//! Speaking without a socket, from any thread: to rooms, sockets and namespaces, on all nodes.
//!
//! A [`Speech`] becomes a [`Broadcast`] on the shard that its first room belongs to, spoken by nobody.
//!
//! Invariants: what one thread says to one room is published in the order in which it was said; nobody in particular speaks,
//! so nobody is left out; what a node has not answered of this is bounded, as it is for each connection.

use std::time::Duration;

use bytestring::ByteString;
use mesh::room::RoomKey;

use super::{
    Answers, Args, Audience, Broadcast, Code, Listing, Node, Published, Reached, Refused, Reply, SayError, Sockets,
    reply::Tell, socket::owned,
};
use crate::gateway::EVERYONE;

/// Something to say or do, put together word by word; nothing happens before the last one, such as [`Speech::publish`].
///
/// Without a room it is meant for everybody in the namespace. A room may be the id of a socket, here or on another node:
/// then it is that socket alone.
#[derive(Clone, Debug)]
#[must_use]
pub struct Speech {
    node: Node,
    audience: Audience,
    volatile: bool,
    id: ByteString,
}

impl Speech {
    pub(super) fn new(node: Node, namespace: &str) -> Speech {
        Speech { node, audience: Audience::new(owned(namespace)), volatile: false, id: ByteString::new() }
    }

    /// This room too, as [`Broadcast::to`].
    pub fn to(mut self, room: &str) -> Self {
        self.audience.rooms.push(owned(room));
        self
    }

    /// But not the members of this room, or not the socket whose id this is.
    pub fn except(mut self, room: &str) -> Self {
        self.audience.except.push(owned(room));
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

    /// Publishes an event, as [`Broadcast::publish`].
    pub fn publish(self, event: &str, args: &Args) -> Reply<Published> {
        let (event, args) = (event.to_owned(), args.clone());
        self.speak(move |broadcast, tell| match broadcast.publish(&event, &args) {
            Ok(asked) => asked.then(|_, outcome| tell.tell(outcome)),
            Err(error) => tell.tell(Err(error.into())),
        })
    }

    /// Asks every client for an answer, as [`Broadcast::ask`].
    pub fn ask(self, event: &str, args: &Args, timeout: Duration) -> Reply<Answers> {
        let (event, args) = (event.to_owned(), args.clone());
        self.speak(move |broadcast, tell| {
            // It goes to one of the two, and the other one is never called.
            let tell = std::rc::Rc::new(std::cell::Cell::new(Some(tell)));
            let answered = tell.clone();
            let asked = broadcast.ask(&event, &args, timeout, move |_, answers| told(&answered, Ok(answers)));
            if let Err(error) = asked {
                told(&tell, Err(error.into()));
            }
        })
    }

    /// Tells which sockets there are, as [`Broadcast::fetch_sockets`].
    pub fn fetch_sockets(self, page: Listing<'_>, patience: Duration) -> Reply<Sockets> {
        let (limit, after) = (page.limit, page.after.to_owned());
        self.speak(move |broadcast, tell| match broadcast.fetch_sockets(Listing { limit, after: &after }, patience) {
            Ok(asked) => asked.then(|_, outcome| tell.tell(outcome)),
            Err(error) => tell.tell(Err(error.into())),
        })
    }

    /// Takes them all into these rooms, as [`Broadcast::sockets_join`].
    pub fn sockets_join(self, rooms: &[&str], patience: Duration) -> Reply<Reached> {
        let rooms: Vec<ByteString> = rooms.iter().map(|room| owned(room)).collect();
        self.reach(move |broadcast| broadcast.sockets_join(&names(&rooms), patience))
    }

    /// Takes them all out of these rooms, as [`Broadcast::sockets_leave`].
    pub fn sockets_leave(self, rooms: &[&str], patience: Duration) -> Reply<Reached> {
        let rooms: Vec<ByteString> = rooms.iter().map(|room| owned(room)).collect();
        self.reach(move |broadcast| broadcast.sockets_leave(&names(&rooms), patience))
    }

    /// Sends them all away, as [`Broadcast::disconnect_sockets`].
    pub fn disconnect_sockets(self, close: bool, patience: Duration) -> Reply<Reached> {
        self.reach(move |broadcast| broadcast.disconnect_sockets(close, patience))
    }

    fn reach(
        self,
        order: impl for<'s, 'g> FnOnce(Broadcast<'s, 'g>) -> Result<super::Asked<'s, Reached>, SayError> + Send + 'static,
    ) -> Reply<Reached> {
        self.speak(move |broadcast, tell| match order(broadcast) {
            Ok(asked) => asked.then(|_, outcome| tell.tell(outcome)),
            Err(error) => tell.tell(Err(error.into())),
        })
    }

    /// Says it where its first room belongs.
    fn speak<T: Send + 'static>(
        self,
        say: impl for<'s, 'g> FnOnce(Broadcast<'s, 'g>, Tell<T>) + Send + 'static,
    ) -> Reply<T> {
        let (tell, reply) = Reply::new();
        let Speech { node, audience, volatile, id } = self;
        let first = RoomKey::new(&audience.namespace, audience.rooms.first().map_or(EVERYONE, |room| room));
        if !node.has_room(first.slot()) {
            let refused = Refused::new(Code::Overloaded, "too much waits for the thread of this room");
            tell.tell(Err(Refused { retry_ms: Some(1_000), ..refused }));
            return reply;
        }
        node.speak(first.slot(), move |socket| {
            say(Broadcast::new(socket, audience, None).with(volatile, id), tell);
        });
        reply
    }
}

fn names(rooms: &[ByteString]) -> Vec<&str> {
    rooms.iter().map(|room| &**room).collect()
}

fn told<T>(tell: &std::cell::Cell<Option<Tell<T>>>, outcome: Result<T, Refused>) {
    if let Some(tell) = tell.take() {
        tell.tell(outcome);
    }
}
