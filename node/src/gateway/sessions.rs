//! Engine.IO sessions: opened, driven by requests, WebSockets and time, and taken apart when they end.
//!
//! Invariants: after every input the session's outputs are performed until there are none; a connection is removed in one
//! place (`forget`), which leaves its rooms, frees its place and answers its poll.

use std::{cmp::Reverse, net::Shutdown, rc::Rc, time::Instant};

use bytes::Bytes;
use protocol::{
    engine::{
        Message, frame,
        session::{CloseReason, Output, Refusal, Session, Transport},
    },
    sid::Sid,
    socketio::Decoder,
};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::oneshot};

use super::{Gateway, Task, reply};
use crate::{
    connection::Connection,
    handler::{Departure, Layer},
    key::ConnKey,
    metrics,
    outbox::Outbox,
    transport::PollReply,
};

impl Gateway {
    /// Opens a session for a polling handshake; `reply` gets the open packet. The caller has taken a place (`admit`).
    pub(crate) fn open_polling(&mut self, random: [u8; 12], to: oneshot::Sender<PollReply>, now: Instant) {
        let (key, sid) = self.open(Transport::Polling, random, None, now);
        self.handle_get(&sid, to, now);
        self.arm(key, now);
    }

    /// Opens a session on a fresh WebSocket. The caller has taken a place (`admit`).
    pub(crate) fn open_websocket(&mut self, random: [u8; 12], tcp: TcpStream, rest: Bytes, now: Instant) {
        let tcp = Rc::new(tcp);
        let (key, _) = self.open(Transport::WebSocket, random, Some(tcp.clone()), now);
        self.tasks.push(Task::ReadWebSocket { key, tcp, rest });
        self.drive(key, now);
    }

    fn open(
        &mut self,
        transport: Transport,
        random: [u8; 12],
        tcp: Option<Rc<TcpStream>>,
        now: Instant,
    ) -> (ConnKey, Sid) {
        let context = &self.context;
        // The sid carries the low 24 bits of the generation; the rest is cut off on purpose.
        let generation = u32::try_from(context.generation & 0xff_ffff).unwrap_or(0);
        let sid = Sid::mint(context.node.0, generation, self.shard, random, &context.sid_key);
        let session = Session::new(context.session.clone(), transport, &sid, now);
        let key = self.connections.insert(Connection {
            sid,
            session,
            decoder: Decoder::new(context.decoder),
            sockets: SmallVec::new(),
            tcp,
            outbox: Outbox::default(),
            direct: transport == Transport::WebSocket,
            poll: None,
            connect_by: match context.layer {
                Layer::SocketIo => Some(now + context.config.socketio.connect_timeout),
                Layer::EngineIo => None,
            },
            timer_at: None,
            dirty: false,
            awaits_writable: false,
            counted_as: transport,
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
    pub(crate) fn adopt_websocket(&mut self, sid: &Sid, tcp: TcpStream, rest: Bytes, now: Instant) {
        let tcp = Rc::new(tcp);
        let key = self.sids.get(sid).copied();
        let taken = key.and_then(|key| self.connections.get_mut(key)).is_some_and(|connection| {
            let taken = connection.session.handle_websocket_opened(now).is_ok();
            if taken {
                connection.tcp = Some(tcp.clone());
            }
            taken
        });
        match key {
            Some(key) if taken => {
                self.tasks.push(Task::ReadWebSocket { key, tcp, rest });
                self.drive(key, now);
            }
            Some(_) | None => {
                self.context.metrics.upgrades.of(metrics::UpgradeResult::Refused).inc();
                close_now(&tcp, None);
            }
        }
    }

    /// One message of the connection's WebSocket.
    pub(crate) fn handle_websocket_message(&mut self, key: ConnKey, message: Message, now: Instant) {
        self.tally.bytes_received += message.len() as u64;
        if let Some(connection) = self.connections.get_mut(key) {
            connection.session.handle_websocket_packet(message, now);
            self.drive(key, now);
        }
    }

    /// The connection's WebSocket `tcp` ended; `code` is what a broken client is told.
    pub(crate) fn handle_websocket_closed(
        &mut self,
        key: ConnKey,
        tcp: &Rc<TcpStream>,
        clean: bool,
        code: Option<u16>,
        now: Instant,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.tcp.as_ref().is_some_and(|current| Rc::ptr_eq(current, tcp)) {
            return;
        }
        if let Some(code) = code {
            frame::put_close(connection.outbox.own(), code, "");
        }
        // The last words, of ours or of the WebSocket layer's (the echo of a close): nobody flushes after this.
        let _ = connection.outbox.flush(tcp);
        connection.session.handle_websocket_closed(clean, now);
        if !connection.direct {
            connection.tcp = None;
            self.context.metrics.upgrades.of(metrics::UpgradeResult::Abandoned).inc();
        }
        self.drive(key, now);
    }

    /// Bytes the WebSocket layer itself answers with (a pong, the echo of a close).
    pub(crate) fn write_control(&mut self, key: ConnKey, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.outbox.own().extend_from_slice(bytes);
            self.touch(key);
        }
    }

    /// Performs a session's outputs until there are none. What the session itself says on a WebSocket leaves at once, not
    /// with the turn: the answer to a probe must not be overtaken by that to a poll which came behind it.
    pub(super) fn drive(&mut self, key: ConnKey, now: Instant) {
        let mut spoke = false;
        while let Some(connection) = self.connections.get_mut(key) {
            let Some(output) = connection.session.poll_output() else { break };
            match output {
                Output::Message(message) => self.handle_message(key, message, now),
                Output::PollAnswer(body) => {
                    self.tally.bytes_sent += body.len() as u64;
                    if let Some(poll) = connection.poll.take() {
                        reply(poll, PollReply::packets(body));
                    }
                }
                Output::WebSocket(packet) => {
                    frame::put_packet(connection.outbox.own(), &packet);
                    spoke = true;
                }
                Output::Upgraded => self.handle_upgraded(key),
                Output::CloseWebSocket(code) => {
                    if let Some(tcp) = connection.tcp.take() {
                        connection.outbox.close(&tcp, code);
                    }
                }
                Output::Closed(reason) => return self.forget(key, reason, now),
            }
        }
        if spoke {
            self.flush_connection(key);
        }
        self.arm(key, now);
    }

    fn handle_upgraded(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key) {
            connection.direct = true;
            let gauge = &self.context.metrics.connections;
            gauge.of(connection.counted_as.into()).dec();
            connection.counted_as = Transport::WebSocket;
            gauge.of(Transport::WebSocket.into()).inc();
            self.context.metrics.upgrades.of(metrics::UpgradeResult::Upgraded).inc();
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
        if connection.outbox.is_lagging() {
            self.tally.lagging -= 1;
        }
        connection.outbox.abandon(&mut self.rooms);
        if let Some(tcp) = connection.tcp.take() {
            let _ = SockRef::from(&*tcp).shutdown(Shutdown::Both);
        }
        let metrics = &self.context.metrics;
        metrics.connections.of(connection.counted_as.into()).dec();
        metrics.connections_closed.of(reason.into()).inc();
        if reason == CloseReason::SlowConsumer {
            metrics.slow_consumers_closed.inc();
        }
        self.context.leave();
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
    pub(super) fn arm(&mut self, key: ConnKey, _now: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(due) = connection.session.poll_timeout().into_iter().chain(connection.connect_by).min() else {
            return;
        };
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
            if connection.connect_by.is_some_and(|by| by <= now) {
                connection.connect_by = None;
                self.close(key, CloseReason::ConnectTimeout, now);
            } else {
                connection.session.handle_timeout(now);
                self.drive(key, now);
            }
        }
    }
}

/// Closes a WebSocket that never became a connection's.
fn close_now(tcp: &TcpStream, code: Option<u16>) {
    Outbox::default().close(tcp, code);
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
        }
    }
}

#[cfg(test)]
mod tests;
