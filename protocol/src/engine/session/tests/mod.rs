//! Tests of the session, one file for each section of the protocol; the rig plays driver and client.

mod anything;
mod closing;
mod heartbeat;
mod pace;
mod polling;
mod upgrade;

use std::time::Duration;

use self::pace::config;
use super::*;
use crate::sid::SidKey;

/// A session under a hand-moved clock, at the pace of the protocol suites.
struct Rig {
    session: Session,
    now: Instant,
}

fn sid() -> Sid {
    Sid::mint(1, 2, 3, [4; 12], &SidKey::new(b"test"))
}

#[expect(clippy::disallowed_methods, reason = "a start for the hand-moved clock; there is no other way to get one")]
fn start() -> Instant {
    Instant::now()
}

fn text(text: &str) -> Message {
    Message::Text(text.into())
}

fn body(text: &str) -> Output {
    Output::PollAnswer(text.into())
}

fn received(content: &str) -> Output {
    Output::Message(text(content))
}

fn sent(content: &str) -> Output {
    Output::WebSocket(Packet::Message(text(content)))
}

impl Rig {
    fn with(transport: Transport, config: SessionConfig) -> Rig {
        let now = start();
        Rig { session: Session::new(Arc::new(config), transport, &sid(), now), now }
    }

    /// A polling session whose handshake has been answered.
    fn polling() -> Rig {
        let mut rig = Rig::with(Transport::Polling, config());
        rig.get();
        assert_eq!(rig.outputs().len(), 1, "the handshake is answered");
        rig
    }

    /// A WebSocket session whose open packet has been written.
    fn websocket() -> Rig {
        let mut rig = Rig::with(Transport::WebSocket, config());
        assert_eq!(rig.outputs().len(), 1, "the open packet is written");
        rig
    }

    /// A session that was upgraded from polling.
    fn upgraded() -> Rig {
        let mut rig = Rig::probing();
        rig.ws("5");
        assert_eq!(rig.outputs(), [Output::Upgraded]);
        rig
    }

    /// A polling session with a candidate whose probe was answered.
    fn probing() -> Rig {
        let mut rig = Rig::polling();
        rig.session.handle_websocket_opened(rig.now).unwrap();
        rig.ws("2probe");
        assert_eq!(rig.outputs(), [Output::WebSocket(Packet::Pong("probe".into()))]);
        rig
    }

    fn get(&mut self) {
        self.session.handle_get(self.now).unwrap();
    }

    fn post(&mut self, body: &str) -> Result<(), Refusal> {
        self.session.handle_post_started()?;
        self.session.handle_post(body.into(), self.now)
    }

    fn ws(&mut self, packet: &str) {
        self.session.handle_websocket_packet(text(packet), self.now);
    }

    /// Lets time pass as a driver would: at each timer, not just at the end.
    fn pass(&mut self, milliseconds: u64) {
        let end = self.now + Duration::from_millis(milliseconds);
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.session.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll_output()).collect()
    }

    /// Asserts that the session is gone for good.
    fn assert_gone(&mut self) {
        assert!(self.session.is_closed());
        assert_eq!(self.session.handle_get(self.now), Err(Refusal::UNKNOWN_SID));
        assert_eq!(self.session.handle_post_started(), Err(Refusal::UNKNOWN_SID));
        assert_eq!(self.session.handle_websocket_opened(self.now), Err(UpgradeRefused::Closed));
        assert_eq!(self.session.poll_timeout(), None);
        self.session.send(text("too late"));
        self.session.close(CloseReason::ServerClose, self.now);
        self.ws("4too late");
        self.session.handle_websocket_closed(true, self.now);
        self.session.handle_get_aborted(self.now);
        self.session.handle_timeout(self.now);
        assert_eq!(self.outputs(), [], "nothing follows the end");
    }
}
