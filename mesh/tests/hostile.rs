//! Strangers on the mesh port, and members that misbehave: refused, counted by reason, and nobody else notices.
//!
//! Invariants: in every case two honest nodes exchange frames meanwhile (the canary), and their members, links and table are
//! afterwards what they were before.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    Node, config,
    evil::{APPLICATION, Evil, GOSSIP, HELLO, LANE, PUSH_PULL, REQUEST, frame, hello, raw},
    formed, key,
    proxy::Proxy,
    two, wait,
};
use mesh::{ClusterKey, LANE_HARD_BYTES, NodeId, RefusalReason};

const MALFORMED: u64 = 6;

fn refused(node: &Node, reason: RefusalReason) -> u64 {
    node.mesh.stats().refused_for(reason)
}

/// What must be afterwards what it was before.
#[derive(Debug, PartialEq)]
struct State {
    members: Vec<u16>,
    owners: Vec<Option<NodeId>>,
    /// Of the two honest nodes.
    links: Vec<(u16, u64, bool)>,
}

fn state(node: &Node) -> State {
    let view = node.mesh.view();
    State {
        members: node.members(),
        owners: (0..mesh::SLOTS).map(|slot| view.table.owner(slot)).collect(),
        links: node.links().into_iter().filter(|(peer, ..)| *peer < 2).collect(),
    }
}

/// Does `work` while frames go back and forth between the two, each within the five seconds that a starved machine may need;
/// the slowest round trip.
fn beside_canary<T>(nodes: &[Node; 2], work: impl FnOnce() -> T) -> (T, Duration) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let before = nodes.each_ref().map(state);
    let done = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        let canary = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            let start = nodes.each_ref().map(|node| [node.received(0, 3), node.received(1, 3)]);
            for turn in 1.. {
                if done.load(SeqCst) && turn > 10 {
                    return slowest;
                }
                let sent = Instant::now();
                for (from, to) in [(0, 1), (1, 0)] {
                    nodes[from].mesh.send(NodeId(u16::try_from(to).unwrap()), 3, Bytes::from_static(b"tweet")).unwrap();
                    let peer = u16::try_from(from).unwrap();
                    wait("the canary", Duration::from_secs(5), || {
                        nodes[to].received(peer, 3) >= start[to][from] + turn
                    });
                }
                slowest = slowest.max(sent.elapsed());
                std::thread::sleep(Duration::from_millis(5));
            }
            slowest
        });
        let result = {
            let _done = Done(&done);
            work()
        };
        (result, canary.join().unwrap())
    });
    wait("the members of before", Duration::from_secs(10), || nodes.each_ref().map(state) == before);
    result
}

/// Sends datagrams, one after the other and from several ports, as fast as it may: how many, and the processor time the
/// node's thread took beyond what it took before in the same time.
fn flood(node: &Node, datagrams: &[Vec<u8>], per_second: u32, lasting: Duration) -> (u32, Duration) {
    let sockets: Vec<_> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let idle = node.cpu();
    std::thread::sleep(lasting / 2);
    let idle = 2 * (node.cpu() - idle);
    let (start, busy) = (Instant::now(), node.cpu());
    let mut sent = 0;
    while start.elapsed() < lasting {
        let due = start.elapsed().as_secs_f64() * f64::from(per_second);
        while f64::from(sent) < due {
            let at = usize::try_from(sent).unwrap();
            let _ = sockets[at % sockets.len()].send_to(&datagrams[at % datagrams.len()], node.addr);
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    (sent, (node.cpu() - busy).saturating_sub(idle))
}

/// Bytes that repeat only after a long while.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(next).collect()
}

/// What strangers send: noise of every size, and what begins like QUIC.
fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = (0..200).map(|n| noise(n, usize::try_from(n).unwrap() * 7 % 1_450)).collect();
    for (n, datagram) in (0_u64..).zip(&mut all) {
        match n % 4 {
            // A short header; a first packet of version 1; a first packet of a version that does not exist; noise.
            0 if !datagram.is_empty() => datagram[0] = 0x40 | datagram[0] & 0x3f,
            1 | 2 => {
                let version: u32 = if n % 4 == 1 { 1 } else { 0xfaca_de00 };
                let head = [&[0xc0][..], &version.to_be_bytes(), &[8], &n.to_be_bytes(), &[0, 0, 0x44, 0x80]].concat();
                *datagram = [head, noise(n, 1_180)].concat();
            }
            _ => {}
        }
    }
    all
}

#[test]
fn a_flood_of_garbage_and_of_replayed_datagrams_costs_little_and_changes_nothing() {
    const PER_SECOND: u32 = 20_000;
    let proxy = Proxy::new(5);
    let first = Node::behind(&proxy, config(0, 1, &[]));
    let second = Node::join(1, 1, &[proxy.addr]);
    let nodes = [first, second];
    wait("two nodes to form a cluster", Duration::from_secs(5), || formed(&nodes));
    wait("datagrams to replay", Duration::from_secs(20), || proxy.recorded().len() >= 60);
    for (what, datagrams) in [("garbage", garbage()), ("replayed", proxy.recorded())] {
        let ((sent, cpu), slowest) =
            beside_canary(&nodes, || flood(&nodes[0], &datagrams, PER_SECOND, Duration::from_secs(2)));
        let each = cpu / sent;
        eprintln!("{what}: {sent} datagrams in 2 s, {each:?} of processor time each, slowest canary {slowest:?}");
        assert!(sent > PER_SECOND / 10, "{sent}");
        assert!(each < Duration::from_micros(100), "{what}: {each:?} for each datagram");
    }
}

/// First datagrams of real handshakes that nobody answers.
fn first_datagrams(count: usize) -> Vec<Vec<u8>> {
    let evil = Evil::new(&key(), 9);
    let hole = UdpSocket::bind("127.0.0.1:0").unwrap();
    hole.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = [0; 2_000];
    (0..count)
        .map(|_| {
            let connecting = evil.dial(hole.local_addr().unwrap());
            let (len, _) = hole.recv_from(&mut buffer).unwrap();
            drop(connecting);
            buffer[..len].to_vec()
        })
        .collect()
}

#[test]
fn a_flood_of_handshakes_that_nobody_finishes_keeps_no_newcomer_out() {
    let nodes = two();
    let datagrams = first_datagrams(600);
    let ((sent, cpu), slowest) = beside_canary(&nodes, || {
        let busy = nodes[0].cpu();
        let (sent, _) = flood(&nodes[0], &datagrams, 2_000, Duration::from_secs(2));
        let cpu = nodes[0].cpu() - busy;
        // While they are half open: a node that proves its address and its key.
        let third = Node::join(2, 1, &[nodes[0].addr]);
        wait("a newcomer's links", Duration::from_secs(20), || third.linked(0, 1) && third.linked(1, 1));
        wait("half-open handshakes to end", Duration::from_secs(5), || refused(&nodes[0], RefusalReason::Timeout) > 0);
        (sent, cpu)
    });
    let (late, crowded) = (refused(&nodes[0], RefusalReason::Timeout), refused(&nodes[0], RefusalReason::Crowded));
    eprintln!(
        "{sent} first datagrams: {late} timed out, {crowded} turned away, {cpu:?} of processor time, canary {slowest:?}"
    );
    // A hundred at a time, each for a second; beyond that an address must prove itself first.
    assert!(late <= 600 && sent > 1_000, "{late} of {sent} were half open");
}

#[test]
fn strangers_and_misfits_are_refused_each_with_a_reason_they_can_read() {
    let nodes = two();
    let addr = nodes[0].addr;
    beside_canary(&nodes, || {
        let other = ClusterKey::from_bytes(b"another cluster key, also long enough....").unwrap();
        let stranger = Evil::new(&other, 9);
        // The client of TLS 1.3 is done before the server looked at its certificate.
        let connection = stranger.connect(addr);
        let error = stranger.run(connection.closed());
        assert!(error.to_string().contains("UnknownIssuer") || error.to_string().contains("unknown"), "{error}");
        wait("it to be counted", Duration::from_secs(2), || refused(&nodes[0], RefusalReason::Key) == 1);

        let evil = Evil::new(&key(), 9);
        let cases = [
            (frame(HELLO, &hello(9, 10, 4096, 9, 1)), RefusalReason::Version, "speaks protocols 9 to 10, we 1 to 1"),
            (frame(HELLO, &hello(1, 1, 1024, 9, 1)), RefusalReason::Version, "has 1024 slots and 4 lanes"),
            (frame(HELLO, &hello(1, 1, 4096, 1, 1)), RefusalReason::Identity, "not node 1's"),
            (frame(HELLO, &hello(1, 1, 4096, 9, 1)[..20]), RefusalReason::Malformed, "malformed hello"),
            (raw(u32::MAX, HELLO, 1, 0, b""), RefusalReason::Malformed, "frame of 4294967295 bytes where 1024"),
            (raw(0, HELLO, 9, 0, b""), RefusalReason::Malformed, "unknown version 9"),
            (frame(APPLICATION, b"too early"), RefusalReason::Malformed, "Application where Hello was due"),
            (b"GET / HTTP/1.1\r\n\r\n".to_vec(), RefusalReason::Malformed, "frame of"),
        ];
        for (said, reason, words) in cases {
            let (before, connection) = (refused(&nodes[0], reason), evil.connect(addr));
            let _stream = evil.say(&connection, &said);
            let (_, told) = evil.closed(&connection);
            assert!(told.contains(words), "{told}");
            wait("it to be counted", Duration::from_secs(2), || refused(&nodes[0], reason) == before + 1);
        }
        let silent = evil.connect(addr);
        assert_eq!(evil.closed(&silent).1, "greeting took too long");
        wait("it to be counted", Duration::from_secs(2), || refused(&nodes[0], RefusalReason::Timeout) == 1);
    });
}

#[test]
fn a_member_that_sends_what_is_no_frame_loses_its_link_and_nothing_else_happens() {
    let nodes = two();
    let lane = |rest: &[u8]| [&frame(LANE, &[0])[..], rest].concat();
    let streams = [
        ("a lane that does not exist", frame(LANE, &[mesh::LANES])),
        ("a lane far beyond them", frame(LANE, &[200])),
        ("a lane without number", frame(LANE, &[])),
        ("a hello where a lane was due", frame(HELLO, &[])),
        ("a length beyond the limit", lane(&raw(u32::MAX, APPLICATION, 1, 0, b""))),
        ("a kind that is unknown and must be known", lane(&raw(0, 0x7f, 1, 0, b""))),
        ("a version that is unknown and must be known", lane(&raw(0, APPLICATION, 9, 0, b""))),
        ("a hello inside a lane", lane(&frame(HELLO, &[]))),
        ("gossip larger than a packet", frame(GOSSIP, &[0; 2_000])),
    ];
    beside_canary(&nodes, || {
        let evil = Evil::new(&key(), 9);
        for (generation, (what, said)) in (1..).zip(streams) {
            let before = refused(&nodes[0], RefusalReason::Malformed);
            let (connection, _control) = evil.greet(nodes[0].addr, 9, generation);
            wait("its link", Duration::from_secs(2), || nodes[0].linked(9, generation));
            let _stream = evil.say(&connection, &said);
            assert_eq!(evil.closed(&connection).0, MALFORMED, "{what}");
            wait("the link to end", Duration::from_secs(2), || !nodes[0].linked(9, generation));
            assert_eq!(refused(&nodes[0], RefusalReason::Malformed), before + 1, "{what}");
        }
        assert_eq!(nodes[0].received(9, 0), 0);
    });
}

#[test]
fn what_a_member_may_send_and_nobody_understands_is_counted_and_its_link_stays() {
    let nodes = two();
    beside_canary(&nodes, || {
        let evil = Evil::new(&key(), 9);
        let (connection, mut control) = evil.greet(nodes[0].addr, 9, 1);
        wait("its link", Duration::from_secs(2), || nodes[0].linked(9, 1));
        // Kinds and versions of a later minor, which it marks as such: on the control stream, in a lane, as a stream.
        let later = |body: &[u8]| raw(u32::try_from(body.len()).unwrap(), 0x7f, 1, 1, body);
        evil.run(async { control.write_all(&later(b"news")).await.unwrap() });
        let newer = raw(3, APPLICATION, 2, 1, b"abc");
        let lane = [&frame(LANE, &[0])[..], &later(b""), &frame(APPLICATION, b"known"), &newer].concat();
        let _lane = evil.say(&connection, &lane);
        let _stream = evil.say(&connection, &later(b"a stream of a later kind"));
        wait("four skipped frames", Duration::from_secs(2), || nodes[0].mesh.stats().frames_skipped == 4);
        wait("the known frame", Duration::from_secs(2), || nodes[0].received(9, 0) == 1);

        for packet in [&b"no gossip"[..], &noise(1, 1_100)] {
            connection.send_datagram(Bytes::copy_from_slice(packet)).unwrap();
            let mut stream = evil.say(&connection, &frame(GOSSIP, packet));
            let _ = stream.finish();
        }
        wait("four packets of no gossip", Duration::from_secs(2), || refused(&nodes[0], RefusalReason::Gossip) == 4);
        let ask = |bytes: Vec<u8>| {
            evil.run(async {
                let (mut send, mut recv) = connection.open_bi().await.unwrap();
                let _ = send.write_all(&bytes).await;
                let _ = send.finish();
                recv.read_to_end(100).await.unwrap()
            })
        };
        const REFUSED: u8 = 7;
        for question in [
            frame(HELLO, b""),
            later(b"a question of a later kind"),
            raw(u32::MAX, REQUEST, 1, 0, b""),
            frame(REQUEST, b"x")[..8].to_vec(),
            vec![0; mesh::MAX_REQUEST + 100],
        ] {
            assert_eq!(ask(question), frame(REFUSED, b""));
        }
        assert_eq!(refused(&nodes[0], RefusalReason::Question), 5);
        assert_eq!(ask(frame(PUSH_PULL, b"\xff\xff no roster")), frame(REFUSED, b""));
        assert_eq!(refused(&nodes[0], RefusalReason::Gossip), 5);
        assert!(connection.close_reason().is_none() && nodes[0].linked(9, 1));
        connection.close(0_u32.into(), b"");
    });
}

#[test]
fn a_member_that_opens_all_streams_it_may_and_reads_none_holds_a_bounded_amount() {
    let nodes = two();
    beside_canary(&nodes, || {
        let evil = Evil::new(&key(), 9);
        let (connection, _control) = evil.greet(nodes[0].addr, 9, 1);
        wait("its link", Duration::from_secs(2), || nodes[0].linked(9, 1));
        let held = evil.run(async {
            let mut held = Vec::new();
            let patience = Duration::from_millis(500);
            while let Ok(Ok(mut stream)) = tokio::time::timeout(patience, connection.open_uni()).await {
                stream.write_all(&raw(1_000, GOSSIP, 1, 0, b"and no more")).await.unwrap();
                held.push(stream);
            }
            held
        });
        assert!(held.len() <= 16, "{} streams at once", held.len());
        let mut taken = 0;
        let large = Bytes::from(vec![0; 64 << 10]);
        let mut since = Instant::now();
        wait("its lane to be full", Duration::from_secs(10), || {
            while nodes[0].mesh.send(NodeId(9), 0, large.clone()).is_ok() {
                (taken, since) = (taken + large.len(), Instant::now());
            }
            since.elapsed() > Duration::from_millis(300)
        });
        // quinn's own default window of the one that does not read, and our lane.
        assert!(taken <= LANE_HARD_BYTES + (3 << 20), "{taken} bytes for one that reads nothing");
        assert_eq!(refused(&nodes[0], RefusalReason::Malformed), 0);
        drop(held);
        connection.close(0_u32.into(), b"");
    });
}
