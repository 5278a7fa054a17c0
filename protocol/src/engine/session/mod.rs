//! One Engine.IO v4 session as a value: handshake, heartbeat, polling, upgrade and close (protocol.md 1 to 6).
//!
//! Invariants: messages leave in the order of `send` and arrive in the order the client sent them, across the switch
//! of transports too. Every request that was let in is answered: an open poll at the latest when the session ends.
//! `Output::Closed` comes exactly once and last.
//!
//! The driver calls one verb, then takes outputs until there are none, then arms its timer for `poll_timeout`. All
//! sends of one turn before that leave in one poll answer.

mod handshake;
mod heartbeat;
mod polling;
mod reason;
mod refusal;
mod upgrade;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytestring::ByteString;

pub use self::{
    handshake::{SessionConfig, Transport},
    reason::CloseReason,
    refusal::Refusal,
    upgrade::UpgradeRefused,
};
use self::{
    heartbeat::{Beat, Heartbeat},
    polling::Polling,
    upgrade::{Candidate, Step},
};
use super::{Message, Packet, payload};
use crate::sid::Sid;

/// What waits for a poll at most, before the message that crosses it. The driver's own limit is lower and should act
/// first; a session that gets here all the same is closed as a slow consumer.
const BUFFERED_BYTES_MAX: usize = 4 << 20;

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Give this to the Socket.IO layer, in order.
    Message(Message),
    /// Answer the open poll: 200, `text/plain; charset=UTF-8`.
    PollAnswer(ByteString),
    /// Write this packet to the session's WebSocket, be it a candidate or the transport.
    WebSocket(Packet),
    /// The WebSocket is the transport now; what was buffered follows as `WebSocket` outputs.
    Upgraded,
    /// Close the session's WebSocket with this code, or without one, and tell the session nothing more of it.
    CloseWebSocket(Option<u16>),
    /// The session is over; forget it.
    Closed(CloseReason),
}

enum Phase {
    Open,
    /// The server closed; the last packets wait for a poll until then.
    Closing(CloseReason, Instant),
    Closed,
}

/// One session. See the module for how it is driven.
pub struct Session {
    config: Arc<SessionConfig>,
    phase: Phase,
    transport: Transport,
    candidate: Option<Candidate>,
    heartbeat: Heartbeat,
    polling: Polling,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session with its open packet queued. The handshake request of a polling session is a poll like any other:
    /// call `handle_get` for it.
    pub fn new(config: Arc<SessionConfig>, transport: Transport, sid: &Sid, now: Instant) -> Session {
        let open = handshake::open_packet(&config, transport, sid);
        let heartbeat = Heartbeat::new(now, config.ping_interval);
        let mut session = Session {
            config,
            phase: Phase::Open,
            transport,
            candidate: None,
            heartbeat,
            polling: Polling::default(),
            outputs: VecDeque::new(),
        };
        session.emit(open);
        session
    }

    /// A poll arrived and waits for `Output::PollAnswer`.
    ///
    /// # Errors
    /// The request is to be answered with the refusal. If another poll was open, both sides are confused: that one is
    /// released and the session closed.
    pub fn handle_get(&mut self, now: Instant) -> Result<(), Refusal> {
        self.admit_request()?;
        if self.polling.get_open {
            self.finish(CloseReason::TransportError);
            return Err(Refusal::EMPTY);
        }
        self.polling.get_open = true;
        self.release_poll_for_candidate(now);
        Ok(())
    }

    /// The client gave up its open poll: what the answer would have held is lost, so the session is closed.
    pub fn handle_get_aborted(&mut self, _now: Instant) {
        if std::mem::take(&mut self.polling.get_open) {
            self.finish(CloseReason::TransportError);
        }
    }

    /// The head of a POST arrived. `handle_post` or `handle_post_aborted` must follow.
    ///
    /// # Errors
    /// The request is to be answered with the refusal. If another POST was open, the session is closed, because the
    /// order of the two could not be told.
    pub fn handle_post_started(&mut self) -> Result<(), Refusal> {
        self.admit_request()?;
        if self.polling.post_open {
            self.finish(CloseReason::TransportError);
            return Err(Refusal::EMPTY);
        }
        self.polling.post_open = true;
        Ok(())
    }

    /// The whole body of a POST arrived. `Ok` is answered with `ok`. A POST that started before the switch to the
    /// WebSocket still counts.
    ///
    /// # Errors
    /// The request is to be answered with the refusal: the session is gone, or it is closed now because of the body,
    /// of which nothing was delivered if it could not be decoded.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the packets keep slices of the body; the driver is done with it"
    )]
    pub fn handle_post(&mut self, body: ByteString, now: Instant) -> Result<(), Refusal> {
        self.polling.post_open = false;
        match self.phase {
            Phase::Open => {}
            Phase::Closing(..) => return Ok(()),
            Phase::Closed => return Err(Refusal::UNKNOWN_SID),
        }
        let limits = payload::Limits { bytes: self.config.max_payload, packets: self.config.packets_per_payload };
        let packets = payload::decode(&body, limits).map_err(|_| {
            self.finish(CloseReason::ParseError);
            Refusal::BAD_REQUEST
        })?;
        packets.into_iter().try_for_each(|packet| self.handle_packet(packet, now)).map_err(|()| Refusal::BAD_REQUEST)
    }

    /// The body of a POST never arrived whole, or was refused for its size. The session stays.
    pub fn handle_post_aborted(&mut self, _now: Instant) {
        self.polling.post_open = false;
    }

    /// A WebSocket was opened with the sid of this session, and wants to become its transport.
    ///
    /// # Errors
    /// It may not, and must be closed at once. Nothing changed.
    pub fn handle_websocket_opened(&mut self, now: Instant) -> Result<(), UpgradeRefused> {
        match self.phase {
            Phase::Open => {}
            Phase::Closing(..) | Phase::Closed => return Err(UpgradeRefused::Closed),
        }
        if self.has_websocket() {
            return Err(UpgradeRefused::Occupied);
        }
        if !self.config.websocket_upgrade {
            return Err(UpgradeRefused::Disabled);
        }
        self.candidate = Some(Candidate::new(now, self.config.upgrade_timeout));
        Ok(())
    }

    /// One WebSocket message: the text of a packet, or the content of a binary message.
    pub fn handle_websocket_packet(&mut self, message: Message, now: Instant) {
        match (&self.phase, self.transport) {
            (Phase::Open, Transport::WebSocket) => {}
            (Phase::Open, Transport::Polling) => return self.handle_candidate_packet(&message, now),
            (Phase::Closing(..) | Phase::Closed, Transport::WebSocket | Transport::Polling) => return,
        }
        let packet = match message {
            Message::Text(text) => match Packet::decode_text(&text) {
                Ok(packet) => packet,
                Err(_) => return self.finish(CloseReason::ParseError),
            },
            Message::Binary(data) => Packet::Message(Message::Binary(data)),
        };
        // An error closed the session, which is all there is to do without a request to answer.
        let _ = self.handle_packet(packet, now);
    }

    /// The session's WebSocket is gone. `clean` tells whether a closing handshake came first.
    pub fn handle_websocket_closed(&mut self, clean: bool, _now: Instant) {
        self.candidate = None;
        if self.transport == Transport::WebSocket {
            self.end(if clean { CloseReason::TransportClose } else { CloseReason::TransportError });
        }
    }

    /// Does whatever is due at `now`. Calling it early or twice is harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Open => {}
            Phase::Closing(reason, deadline) if deadline <= now => return self.finish(reason),
            Phase::Closing(..) | Phase::Closed => return,
        }
        if self.candidate.as_ref().is_some_and(|candidate| candidate.is_late(now)) {
            self.drop_candidate();
        }
        self.release_poll_for_candidate(now);
        match self.heartbeat.handle_timeout(now, self.config.ping_timeout) {
            Beat::Nothing => {}
            Beat::Ping => self.emit(Packet::Ping(ByteString::new())),
            Beat::Dead => self.finish(CloseReason::PingTimeout),
        }
    }

    /// When `handle_timeout` is due next; `None` once closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open => {
                let candidate = self.candidate.as_ref().map(|it| it.poll_timeout(self.polling.has_idle_poll()));
                candidate.into_iter().chain([self.heartbeat.poll_timeout()]).min()
            }
            Phase::Closing(_, deadline) => Some(deadline),
            Phase::Closed => None,
        }
    }

    /// Where messages leave now.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Sends one message. After `close` it is dropped. The caller bounds what it sends by `buffered_bytes`.
    pub fn send(&mut self, message: Message) {
        match self.phase {
            Phase::Open if self.polling.memory() > BUFFERED_BYTES_MAX => self.finish(CloseReason::SlowConsumer),
            Phase::Open => self.emit(Packet::Message(message)),
            Phase::Closing(..) | Phase::Closed => {}
        }
    }

    /// Bytes of memory that wait for a poll: 0 when nothing does.
    pub fn buffered_bytes(&self) -> usize {
        self.polling.memory()
    }

    /// Closes from the server's side. A polling client may fetch what was sent before, and a close packet, by a poll
    /// that is open or comes within `polling_close_wait`, unless the reason is that it does not fetch. Messages that came
    /// from the client and were not taken yet are dropped: whoever is being closed is not listened to any more.
    pub fn close(&mut self, reason: CloseReason, now: Instant) {
        self.outputs.retain(|output| !matches!(output, Output::Message(_)));
        match (&self.phase, self.transport) {
            (Phase::Open, Transport::Polling) if reason.lets_client_poll() => {
                self.drop_candidate();
                self.emit(Packet::Close);
                self.phase = Phase::Closing(reason, now + self.config.polling_close_wait);
            }
            (Phase::Open, Transport::Polling | Transport::WebSocket) => self.finish(reason),
            (Phase::Closing(..) | Phase::Closed, Transport::Polling | Transport::WebSocket) => {}
        }
    }

    /// Whether the session is over. One that waits for a last poll is not.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Why the session is over, while its last output was not taken.
    pub fn closed_for(&self) -> Option<CloseReason> {
        self.outputs.iter().find_map(|output| if let Output::Closed(reason) = output { Some(*reason) } else { None })
    }

    /// What the driver has to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty()
            && let Some(body) = self.polling.take_answer()
        {
            if let Phase::Closing(reason, _) = self.phase
                && self.polling.is_empty()
            {
                self.end(reason);
            }
            return Some(Output::PollAnswer(body));
        }
        let output = self.outputs.pop_front();
        if output.is_none() {
            // There are thousands of sessions that have nothing to say.
            self.outputs = VecDeque::new();
        }
        output
    }

    fn handle_packet(&mut self, packet: Packet, now: Instant) -> Result<(), ()> {
        match packet {
            // Behind a close packet in the same body nothing counts.
            _ if self.is_closed() => {}
            Packet::Message(message) => self.outputs.push_back(Output::Message(message)),
            Packet::Pong(_) => self.heartbeat.handle_pong(now, self.config.ping_interval),
            Packet::Close => self.finish(CloseReason::ClientClose),
            Packet::Ping(_) => {
                self.finish(CloseReason::TransportError);
                return Err(());
            }
            // Without meaning from a client here; the reference ignores them too.
            Packet::Open(_) | Packet::Upgrade | Packet::Noop => {}
        }
        Ok(())
    }

    fn handle_candidate_packet(&mut self, message: &Message, now: Instant) {
        // Without a candidate this is the rest of a WebSocket that was told to close.
        let Some(candidate) = &mut self.candidate else { return };
        match candidate.handle_packet(message, now) {
            Step::Answer(packet) => {
                self.outputs.push_back(Output::WebSocket(packet));
                self.release_poll_for_candidate(now);
            }
            Step::Switch => self.switch(),
            Step::Refuse => self.drop_candidate(),
        }
    }

    /// From the probe on, a waiting poll must not keep the client from pausing. Messages release it just as well.
    fn release_poll_for_candidate(&mut self, now: Instant) {
        if self.polling.has_idle_poll() && self.candidate.as_mut().is_some_and(|candidate| candidate.releases_poll(now))
        {
            self.outputs.extend(self.polling.release(&Packet::Noop).map(Output::PollAnswer));
        }
    }

    fn switch(&mut self) {
        self.candidate = None;
        self.transport = Transport::WebSocket;
        self.outputs.extend(self.polling.release(&Packet::Noop).map(Output::PollAnswer));
        self.outputs.push_back(Output::Upgraded);
        self.outputs.extend(self.polling.take_buffer().into_iter().map(Output::WebSocket));
    }

    fn drop_candidate(&mut self) {
        if self.candidate.take().is_some() {
            self.outputs.push_back(Output::CloseWebSocket(None));
        }
    }

    /// Sends a packet by the transport of now.
    fn emit(&mut self, packet: Packet) {
        match self.transport {
            Transport::Polling => self.polling.push(packet),
            Transport::WebSocket => self.outputs.push_back(Output::WebSocket(packet)),
        }
    }

    fn has_websocket(&self) -> bool {
        self.transport == Transport::WebSocket || self.candidate.is_some()
    }

    /// Whether a polling request belongs to this session at all.
    fn admit_request(&self) -> Result<(), Refusal> {
        match (&self.phase, self.transport) {
            (Phase::Closed, Transport::Polling | Transport::WebSocket) => Err(Refusal::UNKNOWN_SID),
            (Phase::Open | Phase::Closing(..), Transport::WebSocket) => Err(Refusal::BAD_REQUEST),
            (Phase::Open | Phase::Closing(..), Transport::Polling) => Ok(()),
        }
    }

    /// Ends the session at once: the open poll learns of it, the WebSocket is closed, the buffer is dropped.
    fn finish(&mut self, reason: CloseReason) {
        let last = if reason == CloseReason::ClientClose { Packet::Noop } else { Packet::Close };
        self.outputs.extend(self.polling.release(&last).map(Output::PollAnswer));
        if self.has_websocket() {
            self.outputs.push_back(Output::CloseWebSocket(reason.websocket_code()));
        }
        self.end(reason);
    }

    /// The last step of every end. A session that was closing keeps the reason it was closed for.
    fn end(&mut self, reason: CloseReason) {
        let reason = match self.phase {
            Phase::Open => reason,
            Phase::Closing(first, _) => first,
            Phase::Closed => return,
        };
        self.phase = Phase::Closed;
        self.candidate = None;
        self.polling = Polling::default();
        self.outputs.push_back(Output::Closed(reason));
    }
}

#[cfg(test)]
mod tests;
