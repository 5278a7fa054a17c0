//! The way into a node from any thread: timers, tasks and other connections reach sockets here, and speak without one.
//!
//! Invariants: the id of a socket names its shard, so a call is one message to one thread; the calls one thread makes about
//! one socket are done in their order.

use std::{fmt, sync::Arc};

use super::{Ack, Args, Socket, Speech};
use crate::{context::Context, message::Message};
use protocol::socket_id;

/// A running node. Cheap to clone, and to be kept by whoever has something to say later.
#[derive(Clone)]
pub struct Node {
    context: Arc<Context>,
}

impl Node {
    pub(crate) fn new(context: Arc<Context>) -> Node {
        Node { context }
    }

    /// Does something with a socket, on its own thread and soon. This is how a timer speaks, and how one
    /// socket's handler reaches another one.
    ///
    /// If the socket is gone by then, `errand` is dropped without being called.
    ///
    /// # Errors
    /// It will not be called, see [`CallError`].
    pub fn call(&self, socket: &str, errand: impl FnOnce(&mut Socket<'_>) + Send + 'static) -> Result<(), CallError> {
        let place = self.context.sid_keys.find(|key| socket_id::place(socket, key));
        let place = place.filter(|place| place.node == self.context.node.0);
        let shard = place.and_then(|place| self.context.shards.get(usize::from(place.shard)));
        let shard = shard.ok_or(CallError::Elsewhere)?;
        if shard.is_full() {
            return Err(CallError::Overloaded);
        }
        shard.send(Message::Errand { socket: socket.into(), errand: Box::new(errand) });
        Ok(())
    }

    /// Speaks to a namespace, or to rooms and sockets in it, on all nodes; nobody in particular speaks.
    pub fn of(&self, namespace: &str) -> Speech {
        Speech::new(self.clone(), namespace)
    }

    /// Whether the shard of a slot takes more.
    pub(super) fn has_room(&self, slot: u16) -> bool {
        !self.context.shards[usize::from(self.context.shard_of_slot(slot))].is_full()
    }

    /// Has something said on the shard of a slot, by nobody.
    pub(super) fn speak(&self, slot: u16, errand: impl FnOnce(&mut Socket<'_>) + Send + 'static) {
        let shard = &self.context.shards[usize::from(self.context.shard_of_slot(slot))];
        shard.send(Message::Speak { errand: Box::new(errand) });
    }

    /// Answers an event, later than its handler returned and from whatever thread.
    ///
    /// If its socket is gone by then, or its client could not read `args`, nothing is answered.
    ///
    /// # Errors
    /// It will not be answered, see [`CallError`].
    pub fn ack(&self, ack: Ack, args: Args) -> Result<(), CallError> {
        self.call(&ack.of.clone(), move |socket| {
            if let Err(error) = socket.ack(ack, &args) {
                tracing::error!(%error, "the program's answer cannot be sent");
            }
        })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node", &self.context.node).finish_non_exhaustive()
    }
}

/// Why a socket could not be called about. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// This is no id of a socket of this node.
    #[error("no socket of this node has this id")]
    Elsewhere,
    /// Its thread has too much to do; again later.
    #[error("too much waits for the socket's thread")]
    Overloaded,
}
