//! Engine.IO sessions: opened, driven by requests, WebSockets and time, and taken apart when they end.
//!
//! Invariants: after every input the session's outputs are performed until there are none; a connection is removed in one
//! place (`forget`), which leaves its rooms, ends its WebSocket, frees its place and answers its poll. What the client's
//! WebSocket says counts only while it is the connection's: of one that was told to close, nothing does.

use std::{cmp::Reverse, rc::Rc, time::Instant};

use bytes::Bytes;
use bytestring::ByteString;
use protocol::{
    engine::{
        Message, frame,
        session::{CloseReason, Output, Refusal, Session, Transport},
    },
    sid::Sid,
    socketio::Decoder,
};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::{Gateway, Task, reply};
use crate::{
    admission::Newcomer,
    conduct::Conduct,
    connection::Connection,
    context::low_generation,
    handler::{Departure, Layer},
    key::ConnKey,
    metrics,
    transport::{PollReply, tcp::Tcp},
    wire::{Line, Wire},
};

impl Gateway {
    /// Opens a session for a polling handshake; `reply` gets the open packet.
    pub(crate) fn open_polling(&mut self, newcomer: Newcomer, to: oneshot::Sender<PollReply>, now: Instant) {
        let (key, sid) = self.open(Transport::Polling, newcomer, None, now);
        self.handle_get(&sid, to, now);
        self.arm(key);
    }

    /// Opens a session on a fresh WebSocket.
    pub(crate) fn open_websocket(&mut self, newcomer: Newcomer, tcp: Tcp, rest: Bytes, now: Instant) {
        let wire = Wire::new(tcp);
        let line = wire.line().clone();
        let (key, _) = self.open(Transport::WebSocket, newcomer, Some(wire), now);
        self.tasks.push(Task::ReadWebSocket { key, line, rest });
        self.drive(key, now);
    }

    fn open(&mut self, transport: Transport, newcomer: Newcomer, wire: Option<Wire>, now: Instant) -> (ConnKey, Sid) {
        let context = &self.context;
        let generation = low_generation(context.generation);
        let sid = Sid::mint(context.node.0, generation, self.shard, newcomer.random, &context.sid_keys.signing());
        let session = Session::new(context.session.clone(), transport, &sid, now);
        let key = self.connections.insert(Connection {
            place: newcomer.place,
            address: newcomer.address,
            headers: newcomer.headers,
            sid,
            session,
            decoder: Decoder::new(context.decoder),
            sockets: SmallVec::new(),
            wire,
            poll: None,
            connect_by: match context.layer {
                Layer::SocketIo => Some(now + context.config.socketio.connect_timeout),
                Layer::EngineIo => None,
            },
            upgrade_by: None,
            conduct: Conduct::default(),
            heard: self.second(now),
            timer_at: None,
            dirty: false,
        });
        self.sids.insert(sid, key);
        context.metrics.connections.of(transport.into()).inc();
        context.metrics.connections_opened.of(transport.into()).inc();
        (key, sid)
    }

    /// A poll; answered when there is something to say.
    pub(super) fn handle_get(&mut self, sid: &Sid, to: oneshot::Sender<PollReply>, now: Instant) {
        let Some(key) = self.sids.get(sid).copied() else { return reply(to, Refusal::UNKNOWN_SID.into()) };
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.session.handle_get(now) {
            Ok(()) => connection.poll = Some(to),
            Err(refusal) => reply(to, refusal.into()),
        }
        self.drive(key, now);
    }

    /// Feeds one input to a session and performs what comes of it.
    pub(super) fn with_session<T>(
        &mut self,
        sid: &Sid,
        now: Instant,
        input: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let key = self.sids.get(sid).copied()?;
        let result = input(&mut self.connections.get_mut(key)?.session);
        self.drive(key, now);
        Some(result)
    }

    /// A WebSocket that came with the id of a session of this shard: a candidate for its upgrade.
    pub(crate) fn adopt_websocket(&mut self, sid: &Sid, tcp: Tcp, rest: Bytes, now: Instant) {
        let wire = Wire::new(tcp);
        let key = self.sids.get(sid).copied();
        let taken = key.and_then(|key| {
            let connection = self.connections.get_mut(key)?;
            connection.session.handle_websocket_opened(now).ok()?;
            Some((key, connection))
        });
        let Some((key, connection)) = taken else {
            self.context.metrics.upgrades.of(metrics::UpgradeResult::Refused).inc();
            return wire.close(None, &mut self.rooms, &mut self.tally);
        };
        self.tasks.push(Task::ReadWebSocket { key, line: wire.line().clone(), rest });
        connection.upgrade_by = Some(now + self.context.session.upgrade_timeout);
        connection.wire = Some(wire);
        self.drive(key, now);
    }

    /// One message of a WebSocket.
    pub(crate) fn handle_websocket_message(&mut self, key: ConnKey, line: &Rc<Line>, message: Message, now: Instant) {
        let bytes = message.len() as u64;
        let Some(connection) = self.connection_of(key, line) else { return };
        connection.session.handle_websocket_packet(message, now);
        self.tally.bytes_received += bytes;
        self.drive(key, now);
    }

    /// A WebSocket ended; `code` is what a client that broke the rules is told.
    pub(crate) fn handle_websocket_closed(
        &mut self,
        key: ConnKey,
        line: &Rc<Line>,
        clean: bool,
        code: Option<u16>,
        now: Instant,
    ) {
        let Some(connection) = self.connection_of(key, line) else { return };
        if let (Some(code), Some(wire)) = (code, &mut connection.wire) {
            frame::put_close(wire.own(), code, "");
        }
        self.lose_websocket(key, clean, now);
    }

    /// The connection's WebSocket is of no use any more. A session that polls goes on without it.
    pub(super) fn lose_websocket(&mut self, key: ConnKey, clean: bool, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(wire) = connection.wire.take() else { return };
        wire.end(&mut self.rooms, &mut self.tally);
        if connection.polls() {
            self.context.metrics.upgrades.of(metrics::UpgradeResult::Abandoned).inc();
        }
        connection.session.handle_websocket_closed(clean, now);
        self.drive(key, now);
    }

    /// Bytes the WebSocket layer itself answers with (a pong, the echo of a close).
    pub(crate) fn write_control(&mut self, key: ConnKey, line: &Rc<Line>, bytes: &[u8]) {
        if let Some(wire) = self.connection_of(key, line).and_then(|connection| connection.wire.as_mut()) {
            wire.own().extend_from_slice(bytes);
            self.touch(key);
        }
    }

    /// The connection whose WebSocket this is, if it still is.
    fn connection_of(&mut self, key: ConnKey, line: &Rc<Line>) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key)?;
        connection.wire.as_ref().is_some_and(|wire| wire.is(line)).then_some(connection)
    }

    /// Performs a session's outputs until there are none. What the session itself says on a WebSocket leaves at once, not
    /// with the turn: the answer to a probe must not be overtaken by that to a poll which came behind it.
    pub(super) fn drive(&mut self, key: ConnKey, now: Instant) {
        let mut spoke = false;
        while let Some(connection) = self.connections.get_mut(key) {
            let Some(output) = connection.session.poll_output() else { break };
            match output {
                Output::Message(message) => self.handle_message(key, message, now),
                Output::PollAnswer(body) => self.answer_poll(key, body, now),
                Output::WebSocket(packet) => {
                    if let Some(wire) = &mut connection.wire {
                        frame::put_packet(wire.own(), &packet);
                        spoke = true;
                    }
                }
                Output::Upgraded => self.handle_upgraded(),
                Output::CloseWebSocket(code) => self.close_websocket(key, code, now),
                Output::Closed(reason) => return self.forget(key, reason, now),
            }
        }
        if spoke {
            self.flush_connection(key);
        }
        self.arm(key);
    }

    /// Answers the open poll. If its client is gone, so are the packets, and with them the session (`protocol.md` 5).
    fn answer_poll(&mut self, key: ConnKey, body: ByteString, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(poll) = connection.poll.take() else { return };
        let bytes = body.len() as u64;
        match poll.send(PollReply::packets(body)) {
            Ok(()) => self.tally.bytes_sent += bytes,
            Err(lost) if lost.matters() => connection.session.close(CloseReason::TransportError, now),
            Err(_) => {}
        }
    }

    fn handle_upgraded(&mut self) {
        let metrics = &self.context.metrics;
        metrics.connections.of(metrics::Transport::Polling).dec();
        metrics.connections.of(metrics::Transport::WebSocket).inc();
        metrics.upgrades.of(metrics::UpgradeResult::Upgraded).inc();
    }

    /// Closes the session's WebSocket.
    fn close_websocket(&mut self, key: ConnKey, code: Option<u16>, now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(wire) = connection.wire.take() else { return };
        let why = connection.session.closed_for().map_or("", CloseReason::as_str);
        wire.close(code.map(|code| (code, why)), &mut self.rooms, &mut self.tally);
        if connection.polls() {
            let late = connection.upgrade_by.is_some_and(|by| by <= now);
            let result = if late { metrics::UpgradeResult::TimedOut } else { metrics::UpgradeResult::Abandoned };
            self.context.metrics.upgrades.of(result).inc();
        }
    }

    /// Ends a session from this side.
    pub(super) fn close(&mut self, key: ConnKey, reason: CloseReason, now: Instant) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.session.close(reason, now);
            self.drive(key, now);
        }
    }

    fn forget(&mut self, key: ConnKey, reason: CloseReason, now: Instant) {
        self.leave_everything(key, Departure::Closed(reason), now);
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.sids.remove(&connection.sid);
        if let Some(wire) = connection.wire.take() {
            wire.end(&mut self.rooms, &mut self.tally);
        }
        let metrics = &self.context.metrics;
        metrics.connections.of(connection.session.transport().into()).dec();
        metrics.connections_closed.of(reason.into()).inc();
        if reason == CloseReason::SlowConsumer {
            metrics.slow_consumers_closed.inc();
        }
    }

    /// Notes that something waits for the connection at the end of the turn.
    pub(super) fn touch(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Sets the connection's timer if it has to fire earlier than the one that is set.
    pub(super) fn arm(&mut self, key: ConnKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let assembly = connection.conduct.assemble_by();
        let due = [connection.session.poll_timeout(), connection.connect_by, assembly];
        let Some(due) = due.into_iter().flatten().min() else { return };
        if connection.timer_at.is_none_or(|at| due < at) {
            connection.timer_at = Some(due);
            self.timers.push(Reverse((due, key)));
        }
    }

    /// Lets every connection whose timer is due do what is due.
    pub(super) fn handle_timers(&mut self, now: Instant) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.timer_at != Some(at) {
                continue;
            }
            connection.timer_at = None;
            connection.conduct.forget(now);
            if connection.connect_by.is_some_and(|by| by <= now) {
                connection.connect_by = None;
                self.close(key, CloseReason::ConnectTimeout, now);
            } else if !self.give_up_assembly(key, now)
                && let Some(connection) = self.connections.get_mut(key)
            {
                connection.session.handle_timeout(now);
                self.drive(key, now);
            }
        }
    }
}

impl From<Transport> for metrics::Transport {
    fn from(transport: Transport) -> metrics::Transport {
        match transport {
            Transport::Polling => metrics::Transport::Polling,
            Transport::WebSocket => metrics::Transport::WebSocket,
        }
    }
}

impl From<CloseReason> for metrics::CloseReason {
    fn from(reason: CloseReason) -> metrics::CloseReason {
        match reason {
            CloseReason::TransportClose => metrics::CloseReason::TransportClose,
            CloseReason::TransportError => metrics::CloseReason::TransportError,
            CloseReason::PingTimeout => metrics::CloseReason::PingTimeout,
            CloseReason::ParseError => metrics::CloseReason::ParseError,
            CloseReason::ClientClose => metrics::CloseReason::ClientClose,
            CloseReason::ServerClose => metrics::CloseReason::ServerClose,
            CloseReason::SlowConsumer => metrics::CloseReason::SlowConsumer,
            CloseReason::ConnectTimeout => metrics::CloseReason::ConnectTimeout,
            CloseReason::Draining => metrics::CloseReason::Draining,
            CloseReason::RateLimited => metrics::CloseReason::RateLimited,
            CloseReason::Overloaded => metrics::CloseReason::Overloaded,
        }
    }
}

#[cfg(test)]
mod tests;
