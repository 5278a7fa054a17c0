//! Tests of sessions with a real WebSocket's bytes on a real socket.

use std::{
    io::Read,
    net::{TcpListener, TcpStream as StdStream},
    time::Duration,
};

use futures_util::FutureExt;
use socket2::SockRef;

use super::*;
use crate::{app::gateway_alone, clock, handler::NoHandler, message, metrics::UpgradeResult};

/// Both ends of a connection; the client's waits at most a second for bytes, the server's is known to take some.
async fn pair() -> (Tcp, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    let server = Tcp::plain(tokio::net::TcpStream::from_std(server).unwrap());
    server.writable().await.unwrap();
    (server, client)
}

/// A gateway with one session; the only one it will ever have.
struct World {
    gateway: Gateway,
    key: ConnKey,
    sid: Sid,
    now: Instant,
}

impl World {
    fn polling() -> World {
        let mut gateway = gateway_alone("", NoHandler).unwrap();
        let now = clock::now();
        let newcomer = gateway.context.admit([127, 0, 0, 1].into(), &http::HeaderMap::new(), now).ok().unwrap();
        let (reply, opened) = oneshot::channel();
        gateway.open_polling(newcomer, reply, now);
        drop(opened);
        World::of(gateway, now)
    }

    async fn websocket() -> (World, StdStream) {
        let mut gateway = gateway_alone("", NoHandler).unwrap();
        let now = clock::now();
        let newcomer = gateway.context.admit([127, 0, 0, 1].into(), &http::HeaderMap::new(), now).ok().unwrap();
        let (server, client) = pair().await;
        gateway.open_websocket(newcomer, server, Bytes::new(), now);
        (World::of(gateway, now), client)
    }

    fn of(gateway: Gateway, now: Instant) -> World {
        let (sid, key) = gateway.sids.iter().map(|(sid, key)| (*sid, *key)).next().unwrap();
        World { gateway, key, sid, now }
    }

    /// A WebSocket that wants to be the transport.
    async fn candidate(&mut self) -> (Rc<Line>, StdStream) {
        let (server, client) = pair().await;
        self.gateway.adopt_websocket(&self.sid, server, Bytes::new(), self.now);
        (self.line(), client)
    }

    fn line(&self) -> Rc<Line> {
        self.gateway.connections.get(self.key).unwrap().wire.as_ref().unwrap().line().clone()
    }

    fn hear(&mut self, line: &Rc<Line>, text: &'static str) {
        self.gateway.handle_websocket_message(self.key, line, Message::Text(text.into()), self.now);
    }

    fn poll(&mut self) -> oneshot::Receiver<PollReply> {
        let (reply, answer) = oneshot::channel();
        self.gateway.handle(message::Message::Get { sid: self.sid, reply }, self.now);
        answer
    }

    /// Gives the client something to read.
    fn say(&mut self, text: &'static str) {
        self.gateway.connections.get_mut(self.key).unwrap().send(Message::Text(text.into()));
        self.gateway.touch(self.key);
        self.gateway.turn(self.now);
    }

    /// More than the kernel takes.
    fn flood(&mut self) {
        let connection = self.gateway.connections.get_mut(self.key).unwrap();
        connection.wire.as_mut().unwrap().own().resize(6 << 20, b'x');
        self.gateway.touch(self.key);
        self.gateway.turn(self.now);
        assert_eq!(self.gateway.context.metrics.lagging_members.get(), 1, "it does not lag: nothing was tested");
    }

    fn is_open(&self) -> bool {
        self.gateway.sids.contains_key(&self.sid)
    }

    fn upgrades(&self, result: UpgradeResult) -> u64 {
        self.gateway.context.metrics.upgrades.of(result).get()
    }
}

fn read(client: &mut StdStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

/// Everything until the end.
fn read_all(client: &mut StdStream) -> Vec<u8> {
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    got
}

#[tokio::test]
async fn the_answer_to_a_probe_leaves_before_the_turn_ends() {
    let mut world = World::polling();
    let (line, mut client) = world.candidate().await;
    world.hear(&line, "2probe");
    read(&mut client, b"\x81\x063probe");
}

#[tokio::test]
async fn a_websocket_that_was_told_to_close_is_neither_heard_nor_read_any_more() {
    let mut world = World::polling();
    let (first, mut client) = world.candidate().await;
    world.hear(&first, "4too early");
    assert!(first.ended().now_or_never().is_some(), "its reader was not told");
    assert_eq!(read_all(&mut client), [0x88, 0]);
    let (second, mut client) = world.candidate().await;
    world.hear(&first, "2probe");
    world.gateway.write_control(world.key, &first, b"bytes of a dead one");
    world.gateway.handle_websocket_closed(world.key, &first, true, Some(1002), world.now);
    world.gateway.turn(world.now);
    world.hear(&second, "2probe");
    read(&mut client, b"\x81\x063probe");
    assert!(world.is_open() && second.ended().now_or_never().is_none());
}

#[tokio::test]
async fn what_a_blocked_candidate_did_not_take_is_not_for_the_next() {
    let mut world = World::polling();
    let (first, _client) = world.candidate().await;
    world.flood();
    world.gateway.handle_websocket_closed(world.key, &first, false, None, world.now);
    let (second, mut client) = world.candidate().await;
    world.hear(&second, "2probe");
    read(&mut client, b"\x81\x063probe");
    assert!(!world.gateway.handle_writable(world.key, &first));
    world.gateway.turn(world.now);
    assert_eq!(world.gateway.context.metrics.lagging_members.get(), 0);
}

#[tokio::test]
async fn a_candidate_whose_peer_is_gone_costs_only_itself() {
    let mut world = World::polling();
    let (line, client) = world.candidate().await;
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    line.tcp().readable().await.unwrap();
    world.hear(&line, "2probe");
    world.gateway.turn(world.now);
    assert!(world.is_open(), "the session went with its candidate");
    assert_eq!(world.upgrades(UpgradeResult::Abandoned), 1);
}

#[tokio::test]
async fn every_upgrade_is_counted_once_by_how_it_ended() {
    let mut world = World::polling();
    let (line, _client) = world.candidate().await;
    world.gateway.handle_websocket_closed(world.key, &line, true, None, world.now);
    let (_, _client) = world.candidate().await;
    let _refused = world.candidate().await;
    world.now += Duration::from_secs(10);
    world.gateway.turn(world.now);
    let (line, _client) = world.candidate().await;
    world.hear(&line, "4too early");
    let (line, _client) = world.candidate().await;
    world.hear(&line, "2probe");
    world.hear(&line, "5");
    world.gateway.turn(world.now);
    let count = |result| world.upgrades(result);
    assert_eq!(count(UpgradeResult::Abandoned), 2);
    assert_eq!(count(UpgradeResult::TimedOut), 1);
    assert_eq!(count(UpgradeResult::Refused), 1);
    assert_eq!(count(UpgradeResult::Upgraded), 1);
    let connections = &world.gateway.context.metrics.connections;
    assert_eq!(connections.of(metrics::Transport::Polling).get(), 0);
    assert_eq!(connections.of(metrics::Transport::WebSocket).get(), 1);
}

#[tokio::test]
async fn nobody_lags_when_everybody_is_gone() {
    for ends in [CloseReason::ServerClose, CloseReason::SlowConsumer] {
        let (mut world, _client) = World::websocket().await;
        world.flood();
        world.gateway.close(world.key, ends, world.now);
        world.gateway.turn(world.now);
        assert_eq!(world.gateway.context.metrics.lagging_members.get(), 0);
    }
    let (mut world, _client) = World::websocket().await;
    world.flood();
    let line = world.line();
    world.gateway.handle_websocket_closed(world.key, &line, false, Some(1002), world.now);
    world.gateway.turn(world.now);
    assert_eq!(world.gateway.context.metrics.lagging_members.get(), 0);
}

#[tokio::test]
async fn a_laggard_that_goes_away_is_not_counted_as_slow() {
    let (mut world, client) = World::websocket().await;
    world.flood();
    let line = world.line();
    drop(client);
    loop {
        line.tcp().writable().await.unwrap();
        if !world.gateway.handle_writable(world.key, &line) {
            break;
        }
    }
    world.gateway.turn(world.now);
    let metrics = &world.gateway.context.metrics;
    assert_eq!(metrics.connections_closed.of(metrics::CloseReason::TransportError).get(), 1);
    assert_eq!(metrics.slow_consumers_closed.get(), 0);
}

#[tokio::test]
async fn bytes_count_as_sent_when_they_have_left() {
    let (mut world, mut client) = World::websocket().await;
    world.flood();
    world.gateway.close(world.key, CloseReason::ServerClose, world.now);
    world.gateway.turn(world.now);
    let read = read_all(&mut client).len() as u64;
    assert!(read < 6 << 20, "the kernel took everything: nothing was tested");
    assert_eq!(world.gateway.context.metrics.bytes_sent.get(), read);
}

#[tokio::test]
async fn packets_that_found_no_client_close_their_session() {
    let mut world = World::polling();
    drop(world.poll());
    world.say("a");
    assert!(!world.is_open(), "what comes next would follow a hole");
    assert_eq!(world.gateway.context.metrics.connections_closed.of(metrics::CloseReason::TransportError).get(), 1);

    let mut world = World::polling();
    let answer = world.poll();
    world.say("a");
    drop(answer);
    world.gateway.handle(message::Message::GetAborted { sid: world.sid, lost: true }, world.now);
    assert!(!world.is_open(), "what comes next would follow a hole");
}

#[tokio::test]
async fn a_noop_that_found_no_client_is_no_loss() {
    let mut world = World::polling();
    drop(world.poll());
    let (line, _client) = world.candidate().await;
    world.hear(&line, "2probe");
    world.hear(&line, "5");
    assert!(world.is_open());
}
