//! Whatever a client and a driver do in whatever order, the promises of the module hold.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Get,
    AbortGet,
    Post(usize),
    PostText(&'static str),
    StartPost,
    AbortPost,
    OpenWebSocket,
    WebSocket(&'static str),
    CloseWebSocket,
    Send(usize),
    Pass(u64),
    Drain,
    Close(CloseReason),
}

fn any_step() -> impl Strategy<Value = Step> {
    let texts =
        || prop::sample::select(vec!["2probe", "2probe", "5", "5", "3", "3", "4", "4", "4", "6", "0", "1", "2", ""]);
    let reasons = vec![CloseReason::ServerClose, CloseReason::SlowConsumer];
    prop_oneof![
        6 => Just(Step::Get),
        1 => Just(Step::AbortGet),
        3 => (1_usize..4).prop_map(Step::Post),
        1 => texts().prop_map(Step::PostText),
        1 => Just(Step::StartPost),
        1 => Just(Step::AbortPost),
        3 => Just(Step::OpenWebSocket),
        6 => texts().prop_map(Step::WebSocket),
        1 => Just(Step::CloseWebSocket),
        6 => (1_usize..20).prop_map(Step::Send),
        3 => (0_u64..250).prop_map(Step::Pass),
        6 => Just(Step::Drain),
        1 => prop::sample::select(reasons).prop_map(Step::Close),
    ]
}

/// The other end of a rig: what it sent, what it saw, and whether anything was against the promises.
struct World {
    rig: Rig,
    open_polls: usize,
    sent: usize,
    seen: usize,
    posted: usize,
    delivered: usize,
    closing: bool,
    closed: bool,
}

impl World {
    fn take(&mut self, step: &Step) {
        let now = self.rig.now;
        match step {
            // A refused second poll leaves the first one waiting for its own answer.
            Step::Get => self.open_polls += usize::from(self.rig.session.handle_get(now).is_ok()),
            Step::AbortGet => {
                self.drain();
                self.rig.session.handle_get_aborted(now);
                self.open_polls = 0;
            }
            Step::Post(count) => {
                let texts: Vec<_> = (self.posted..).take(*count).map(|n| format!("4{n}")).collect();
                if self.rig.session.transport() == Transport::Polling && self.rig.post(&texts.join("\x1e")).is_ok() {
                    self.posted += if self.closing { 0 } else { *count };
                }
            }
            Step::PostText(text) => drop(self.rig.post(text)),
            Step::StartPost => drop(self.rig.session.handle_post_started()),
            Step::AbortPost => self.rig.session.handle_post_aborted(now),
            Step::OpenWebSocket => drop(self.rig.session.handle_websocket_opened(now)),
            Step::WebSocket("4") => {
                self.rig.ws(&format!("4{}", self.posted));
                let counts = self.rig.session.transport() == Transport::WebSocket && !self.rig.session.is_closed();
                self.posted += usize::from(counts);
            }
            Step::WebSocket(text) => self.rig.ws(text),
            Step::CloseWebSocket => self.rig.session.handle_websocket_closed(true, now),
            Step::Send(count) => {
                (self.sent..).take(*count).for_each(|n| self.rig.session.send(text(&n.to_string())));
                self.sent += count;
            }
            Step::Pass(milliseconds) => self.rig.pass(*milliseconds),
            Step::Drain => self.drain(),
            Step::Close(reason) => {
                self.rig.session.close(*reason, now);
                self.closing = true;
            }
        }
    }

    fn drain(&mut self) {
        for output in self.rig.outputs() {
            assert!(!self.closed, "{output:?} after the end");
            match output {
                Output::PollAnswer(body) => {
                    assert!(self.open_polls > 0, "an answer to nobody");
                    self.open_polls -= 1;
                    assert!(!body.is_empty());
                    body.split('\x1e').for_each(|packet| self.see(packet));
                }
                Output::WebSocket(packet) => {
                    let mut text = Vec::new();
                    packet.encode(&mut text);
                    self.see(std::str::from_utf8(&text).unwrap());
                }
                Output::Message(Message::Text(text)) => {
                    // A bare `4` by POST is the only message without a number.
                    if !text.is_empty() {
                        assert_eq!(text, self.delivered.to_string(), "order of what the client sent");
                        self.delivered += 1;
                    }
                }
                Output::Message(Message::Binary(_)) => panic!("nobody sent any"),
                Output::Upgraded | Output::CloseWebSocket(_) => {}
                Output::Closed(_) => self.closed = true,
            }
        }
    }

    fn see(&mut self, packet: &str) {
        if let Some(number) = packet.strip_prefix('4') {
            assert_eq!(number, self.seen.to_string(), "order of what the server sent");
            self.seen += 1;
        }
    }

    /// Lets the session come to rest, with a client that fetches what there is.
    fn settle(&mut self) {
        self.drain();
        for _ in 0..self.sent {
            if self.rig.session.transport() == Transport::Polling && self.rig.session.buffered_bytes() > 0 {
                self.take(&Step::Get);
                self.drain();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_lost_reordered_or_left_unanswered(steps in prop::collection::vec(any_step(), 0..60)) {
        let rig = Rig::with(Transport::Polling, config());
        let mut world = World { rig, open_polls: 0, sent: 0, seen: 0, posted: 0, delivered: 0, closing: false, closed: false };
        for step in &steps {
            world.take(step);
        }
        world.settle();
        prop_assert_eq!(world.closed, world.rig.session.is_closed(), "the end is told exactly when it came");
        if world.closed || world.rig.session.transport() == Transport::WebSocket {
            prop_assert_eq!(world.open_polls, 0, "a poll is left open");
        }
        if world.closed {
            prop_assert_eq!(world.rig.session.poll_timeout(), None);
            prop_assert_eq!(world.rig.session.buffered_bytes(), 0);
        } else if !world.closing {
            prop_assert_eq!(world.seen, world.sent, "every message arrived");
        }
        // Whoever closes stops listening: what was not taken by then never is.
        prop_assert!(world.delivered <= world.posted);
        if !world.closing {
            prop_assert_eq!(world.delivered, world.posted, "every accepted message was delivered");
        }
    }
}
