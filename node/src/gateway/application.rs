//! Calls into the embedding program (`handler`), whose built-in part is `builtin`.
//!
//! Invariants: a call has the whole gateway, through the one socket it is about; calls never nest, since what a call starts
//! or ends is told and done when it has returned; whatever it says is flushed with the turn; a panic in it is caught here
//! and ends that connection.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use protocol::{
    engine::{Message, session::CloseReason},
    socketio::Packet,
};

use super::{Asker, Gateway, Leaving};
use crate::{
    handler::{Ack, Code, Departure, Event, Handled, Handler, Handshake, Identity, Refused, Socket},
    key::ConnKey,
};

impl Gateway {
    /// Asks the program whether a namespace exists; `None` if there is no connection any more.
    pub(super) fn exists(&mut self, key: ConnKey, namespace: &str, now: Instant) -> Option<bool> {
        self.consult(key, now, |handler| handler.accepts(namespace))
    }

    /// Asks the program who a client is; `None` if there is no connection any more.
    pub(super) fn admit(
        &mut self,
        key: ConnKey,
        namespace: &str,
        auth: Option<&str>,
        now: Instant,
    ) -> Option<Result<Identity, Refused>> {
        // They are back in their place before anybody can miss them: a handler that panics closes the connection.
        let connection = self.connections.get_mut(key)?;
        let (headers, address) = (std::mem::take(&mut connection.headers), connection.address);
        let client = Handshake { namespace, auth, address, headers: &headers };
        let admitted = self.consult(key, now, |handler| handler.admit(&client));
        if let Some(connection) = self.connections.get_mut(key) {
            connection.headers = headers;
        }
        admitted
    }

    /// Asks the program to handle an event.
    pub(super) fn ask_application(&mut self, asker: Asker, event: &Event<'_>, ack: Option<Ack>, now: Instant) {
        let called = self.call(asker, now, |handler, socket| handler.on_event(socket, event, ack));
        if let Some(Handled::No(ack)) = called {
            let message = format!("nobody handles the event {:?} here", event.name());
            self.refuse(ack, &Refused::new(Code::UnhandledEvent, message));
        }
    }

    /// Tells the program that a socket is about to be gone. There is nothing to close if it panics.
    pub(super) fn tell_disconnected(&mut self, asker: Asker, why: Departure, now: Instant) {
        let context = self.context.clone();
        let _ = self.guarded(|gateway| {
            context.handler.on_disconnect(&mut Socket::going(gateway, asker, now), why);
        });
    }

    /// Gives the program a bare message and sends what it returns.
    pub(super) fn exchange(&mut self, key: ConnKey, message: Message, now: Instant) {
        let answer = self.consult(key, now, |handler| handler.on_message(message)).flatten();
        if let (Some(answer), Some(connection)) = (answer, self.connections.get_mut(key)) {
            connection.send(answer);
            self.touch(key);
        }
    }

    /// Calls the program about a socket; `None` if it panicked, and the connection is closed then.
    pub(super) fn call<T>(
        &mut self,
        asker: Asker,
        now: Instant,
        call: impl FnOnce(&dyn Handler, &mut Socket<'_>) -> T,
    ) -> Option<T> {
        let (context, key) = (self.context.clone(), asker.key);
        let called = self.guarded(|gateway| call(&*context.handler, &mut Socket::new(gateway, asker, now)));
        self.conclude(key, called, now)
    }

    /// Asks the program about a client that is no socket yet.
    fn consult<T>(&mut self, key: ConnKey, now: Instant, ask: impl FnOnce(&dyn Handler) -> T) -> Option<T> {
        let called = self.guarded(|gateway| ask(&*gateway.context.handler));
        self.conclude(key, called, now)
    }

    /// Notes that the program sends a socket away.
    pub(crate) fn dismiss(&mut self, asker: Asker, leaving: Leaving) {
        self.leaving.push((asker, leaving));
    }

    /// Ends a call: who was sent away goes, and a connection whose handler panicked is closed.
    fn conclude<T>(&mut self, key: ConnKey, called: Option<T>, now: Instant) -> Option<T> {
        if called.is_none() {
            self.close(key, CloseReason::ServerClose, now);
        }
        for (asker, leaving) in std::mem::take(&mut self.leaving) {
            self.send_away(&asker, leaving, now);
        }
        called
    }

    /// Sends a socket away, if it is still there.
    pub(super) fn send_away(&mut self, asker: &Asker, leaving: Leaving, now: Instant) {
        match leaving {
            Leaving::Connection => self.close(asker.key, CloseReason::ServerClose, now),
            Leaving::Namespace if self.socket_of(asker).is_some() => {
                self.say(asker, &Packet::Disconnect { nsp: asker.namespace.clone() });
                self.leave_namespace(asker.key, &asker.namespace, Departure::Dismissed, now);
            }
            Leaving::Namespace => {}
        }
    }

    /// Calls the program; `None` if it panicked. Its own state is its own affair, and nothing of ours is half changed: it
    /// panics between our verbs, not in them.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut Gateway) -> T) -> Option<T> {
        let called = catch_unwind(AssertUnwindSafe(|| call(self))).ok();
        if called.is_none() {
            self.context.metrics.panics.inc();
            tracing::error!("the handler panicked; the connection it was called for is closed");
        }
        called
    }
}

#[cfg(test)]
mod tests;
