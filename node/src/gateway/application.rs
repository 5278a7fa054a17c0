//! Calls into the embedding program (`handler`).
//!
//! Invariants: a call borrows the one connection it is about; whatever it says is flushed with the turn; a panic in it is
//! caught here and ends that connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use bytestring::ByteString;
use protocol::engine::{Message, session::CloseReason};

use super::Gateway;
use crate::{
    handler::{Ack, Departure, Event, Handled, Id, Socket},
    key::ConnKey,
    metrics::RejectReason,
};

impl Gateway {
    /// Asks the program whether a client may join; `None` if there is no connection any more.
    pub(super) fn may_join(&mut self, key: ConnKey, namespace: &str, now: Instant) -> Option<bool> {
        let handler = &self.context.handler;
        let called = guarded(|| handler.accepts(namespace));
        self.conclude(key, called, now)
    }

    /// Tells the program that a socket joined.
    pub(super) fn tell_connected(&mut self, key: ConnKey, id: Id, auth: Option<&str>, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let handler = &self.context.handler;
        let called = guarded(|| handler.on_connect(&mut Socket::new(id, connection), auth));
        self.conclude(key, called, now);
    }

    /// Asks the program to handle an event that is not built in.
    pub(super) fn ask_application(
        &mut self,
        key: ConnKey,
        namespace: &ByteString,
        event: &Event<'_>,
        ack: Option<u64>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(socket) = connection.socket(namespace).map(|socket| socket.id.clone()) else { return };
        let handler = &self.context.handler;
        let answer = ack.map(|id| Ack::new(id, socket.clone()));
        let id = Id { socket, namespace: namespace.clone() };
        let called = guarded(|| handler.on_event(&mut Socket::new(id, connection), event, answer));
        if let Some(Handled::No(given_back)) = self.conclude(key, called, now) {
            self.tally.rejected.push(RejectReason::Unhandled);
            let message = format!("nobody handles the event {:?} here", event.name());
            self.nack(key, namespace, ack.filter(|_| given_back.is_some()), "unhandled_event", &message);
        }
    }

    /// Tells the program that a socket is gone.
    pub(super) fn tell_disconnected(&mut self, id: &Id, why: Departure) {
        let handler = &self.context.handler;
        // The socket is gone already: there is nothing left to close.
        let _ = guarded(|| handler.on_disconnect(id, why));
    }

    /// Gives the program a bare message and sends what it returns.
    pub(super) fn exchange(&mut self, key: ConnKey, message: Message, now: Instant) {
        let handler = &self.context.handler;
        let called = guarded(|| handler.on_message(message));
        let answer = self.conclude(key, called, now).flatten();
        if let (Some(answer), Some(connection)) = (answer, self.connections.get_mut(key)) {
            connection.send(answer);
        }
    }

    /// Ends a call: what was said leaves with the turn, and a connection whose handler panicked is closed.
    fn conclude<T>(&mut self, key: ConnKey, called: Option<T>, now: Instant) -> Option<T> {
        self.touch(key);
        if called.is_none() {
            self.close(key, CloseReason::ServerClose, now);
        }
        called
    }
}

/// Calls the program; `None` if it panicked. Its own state is its own affair, and nothing of ours is half changed: a
/// connection is given one whole packet at a time.
fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    let called = catch_unwind(AssertUnwindSafe(call)).ok();
    if called.is_none() {
        tracing::error!("the handler panicked; the connection it was called for is closed");
    }
    called
}

#[cfg(test)]
mod tests;
