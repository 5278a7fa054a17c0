//! What moves: reading a ready socket, publishing what is due, and the end of a connection.

use rustix::event::epoll::EventFlags;

use super::peer::State;
use super::publishing::Publication;
use super::{Outcome, Worker};
use crate::client::{Channel, ClientError, Event};
use crate::clock;
use crate::marker::Marker;

impl Worker {
    /// A socket has something to read, room to write, or an end.
    pub(super) fn handle_ready(&mut self, index: usize, channel: Channel, flags: EventFlags) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.state == State::Away {
            return;
        }
        let Worker { spec, scratch, receiving, publishing, outcomes, .. } = self;
        let seat = peer.seat;
        let mut publishing = publishing.as_mut().filter(|publishing| publishing.awaits_deliveries());
        let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let read = peer.read(channel, ending, scratch, |tracker, event, now_ns| match event {
            Event::Message(packet) => {
                let marker = receiving.handle_message(spec, seat, tracker, packet, now_ns);
                if let (Some(publishing), Some(marker)) = (&mut publishing, marker) {
                    publishing.handle_delivery(marker.publisher, marker.seq);
                }
            }
            Event::Connected => outcomes.push(Outcome::Connected(now_ns)),
            Event::Joined { history } => outcomes.push(Outcome::Joined(now_ns, history)),
            Event::Answer { id, body } => outcomes.push(Outcome::Answer(now_ns, id, spec.dialect.answer(body))),
        });
        let result = read.and_then(|()| peer.flush(&self.road));
        self.handle_outcomes(index);
        if let Err(error) = result {
            self.handle_gone(index, &error.to_string(), clock::now_ns());
        }
    }

    /// Sends everything whose time has come.
    pub(super) fn publish_due(&mut self) {
        let Some(publishing) = &self.publishing else { return };
        if publishing.next_due() == u64::MAX {
            return;
        }
        while let Some(publication) = self.publishing.as_mut().and_then(|it| it.poll_publish(clock::now_ns())) {
            if let Err(error) = self.publish(&publication) {
                self.handle_gone(publication.slot, &error.to_string(), clock::now_ns());
                self.publishing.iter_mut().for_each(|publishing| publishing.handle_unsent(&publication));
            }
        }
    }

    /// A connection has ended or could not be made: try again while the ramp lasts, else only count it.
    pub(super) fn handle_gone(&mut self, index: usize, reason: &str, now_ns: u64) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let was_ready = peer.state == State::Ready;
        if was_ready {
            self.disconnects += 1;
            self.receiving.handle_disconnect();
        }
        peer.close();
        let attempts = peer.attempts;
        match &mut self.growth {
            Some(growth) if !was_ready => growth.handle_failed(index, attempts, reason, now_ns),
            Some(_) | None => {}
        }
    }

    fn handle_outcomes(&mut self, index: usize) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        for outcome in outcomes.drain(..) {
            let peer = &mut self.peers[index];
            match outcome {
                Outcome::Connected(now_ns) => {
                    let elapsed = now_ns.saturating_sub(peer.since_ns);
                    let is_publisher = index < self.own_publishers;
                    peer.enter(if is_publisher { State::Ready } else { State::Joining }, now_ns);
                    if let Some(growth) = &mut self.growth {
                        growth.handle_connected(elapsed);
                        if is_publisher {
                            growth.handle_ready();
                        }
                    }
                }
                Outcome::Joined(now_ns, history) => {
                    let elapsed = now_ns.saturating_sub(peer.since_ns);
                    peer.enter(State::Ready, now_ns);
                    peer.attempts = 0;
                    if let Some(growth) = &mut self.growth {
                        growth.handle_joined(elapsed, history);
                        growth.handle_ready();
                    }
                }
                Outcome::Answer(now_ns, id, answer) => {
                    if let Some(publishing) = &mut self.publishing {
                        publishing.handle_answer(index, id, answer, now_ns);
                    }
                }
            }
        }
        self.outcomes = outcomes;
    }

    fn publish(&mut self, publication: &Publication) -> Result<(), ClientError> {
        let Publication { slot, publisher, seq, intended_ns } = *publication;
        let Some(run) = self.receiving.run() else { return Ok(()) };
        self.payload.clear();
        Marker { run, publisher, seq, intended_ns }.put(&mut self.payload, self.spec.payload);
        let template = &self.templates[slot];
        let id = if template.answered { seq.to_string() } else { String::new() };
        let parts = [&template.head, id.as_bytes(), &template.middle, &self.payload, template.tail];
        self.peers[slot].send(&self.road, &parts)
    }
}
