//! Fuzzes one Engine.IO session, driven by a script: each line is a verb and what it takes. Whatever client and driver
//! do, polls are answered once, messages keep their order, and the end comes once and last.

#![no_main]

use std::{collections::VecDeque, sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use protocol::{
    Sid, SidKey,
    engine::{
        Message, Packet,
        session::{CloseReason, Output, Session, SessionConfig, Transport},
    },
};

#[path = "../../protocol/src/engine/session/tests/pace.rs"]
mod pace;

/// The session and what its peers know.
struct World {
    session: Session,
    now: Instant,
    open_polls: usize,
    /// Numbers of the messages that were sent and did not leave yet.
    sent: VecDeque<usize>,
    count: usize,
    closed: bool,
}

impl World {
    fn new(transport: Transport, now: Instant) -> World {
        let sid = Sid::mint(1, 2, 3, [4; 12], &SidKey::new(b"fuzz"));
        let session = Session::new(Arc::new(pace::config()), transport, &sid, now);
        World { session, now, open_polls: 0, sent: VecDeque::new(), count: 0, closed: false }
    }

    fn obey(&mut self, verb: u8, rest: &str) {
        let (session, now) = (&mut self.session, self.now);
        match verb {
            b'g' => self.open_polls += usize::from(session.handle_get(now).is_ok()),
            b'a' => {
                self.drain();
                self.session.handle_get_aborted(now);
                self.open_polls = 0;
            }
            b'P' => drop(session.handle_post_started()),
            b'p' => drop(session.handle_post(rest.into(), now)),
            b'x' => session.handle_post_aborted(now),
            b'w' => drop(session.handle_websocket_opened(now)),
            b't' => session.handle_websocket_packet(Message::Text(rest.into()), now),
            b'b' => session.handle_websocket_packet(Message::Binary(Bytes::copy_from_slice(rest.as_bytes())), now),
            b'c' => session.handle_websocket_closed(rest.is_empty(), now),
            b's' => {
                if !session.is_closed() {
                    self.sent.push_back(self.count);
                }
                session.send(Message::Text(format!("#{}", self.count).into()));
                self.count += 1;
            }
            b'+' => {
                self.now += Duration::from_millis(rest.parse::<u16>().unwrap_or(1).into());
                session.handle_timeout(self.now);
            }
            b'C' => session.close(CloseReason::ServerClose, now),
            b'S' => session.close(CloseReason::SlowConsumer, now),
            _ => self.drain(),
        }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            assert!(!self.closed, "{output:?} after the end");
            match output {
                Output::PollAnswer(body) => {
                    assert!(!body.is_empty() && self.open_polls > 0, "an answer to nobody");
                    self.open_polls -= 1;
                    body.split('\x1E').for_each(|packet| self.see(packet));
                }
                Output::WebSocket(Packet::Message(Message::Text(text))) => self.see(&format!("4{text}")),
                Output::Closed(_) => self.closed = true,
                Output::WebSocket(_) | Output::Message(_) | Output::Upgraded | Output::CloseWebSocket(_) => {}
            }
        }
        assert_eq!(self.closed, self.session.is_closed());
        if self.closed {
            assert_eq!((self.open_polls, self.session.poll_timeout(), self.session.buffered_bytes()), (0, None, 0));
        }
    }

    /// Messages may be missing only behind the end, so the next one is always the oldest.
    fn see(&mut self, packet: &str) {
        if let Some(number) = packet.strip_prefix("4#") {
            assert_eq!(self.sent.pop_front().map(|sent| sent.to_string()).as_deref(), Some(number));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a start for the hand-moved clock; there is no other way to get one")]
fn start() -> Instant {
    Instant::now()
}

fuzz_target!(|script: &str| {
    let transport = if script.starts_with('W') { Transport::WebSocket } else { Transport::Polling };
    let mut world = World::new(transport, start());
    for line in script.lines() {
        let Some(verb) = line.chars().next().filter(char::is_ascii) else { continue };
        world.obey(line.as_bytes()[0], &line[verb.len_utf8()..]);
    }
    world.drain();
});
