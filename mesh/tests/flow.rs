//! Flow between nodes: a lane that is not taken stops alone, and what is urgent passes what is much.
//!
//! Invariants: real sockets and default timings; narrow lines are proxies.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    Node, config, formed,
    proxy::{Line, Proxy},
    two, wait,
};
use mesh::{LANE_HARD_BYTES, LANES, LaneInfo, NodeId, SendError};

/// What may wait outside of our lane: one stream window, the block being read, and the batch between the two.
const BEYOND_LANE: usize = 1 << 20;

fn lane(node: &Node, number: u8) -> LaneInfo {
    node.mesh.links()[0].lanes[usize::from(number)]
}

/// Sends to node 1 until the lane is full and stays so; how many frames it took.
fn fill(node: &Node, number: u8, frame: &Bytes) -> usize {
    let (mut taken, mut since) = (0, Instant::now());
    wait("a lane that stays full", Duration::from_secs(20), || {
        while node.mesh.send(NodeId(1), number, frame.clone()).is_ok() {
            (taken, since) = (taken + 1, Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    });
    taken
}

#[test]
fn a_lane_that_is_not_taken_is_bounded_and_the_other_lanes_and_questions_go_on() {
    const FRAMES: usize = 20_000;
    let [first, second] = two();
    second.recorder.held.store(1, SeqCst);
    let large = Bytes::from(vec![7; 16 << 10]);
    let taken = fill(&first, 0, &large);
    assert!(taken * large.len() <= LANE_HARD_BYTES + BEYOND_LANE, "{taken} frames of 16 KiB for a held lane");
    assert!(lane(&first, 0).refused > 0 && lane(&first, 0).queued_bytes <= LANE_HARD_BYTES);
    let held = second.received(0, 0);

    let small = Bytes::from(vec![1; 200]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for number in 1..LANES {
            let (first, small) = (&first, &small);
            scope.spawn(move || {
                for _ in 0..FRAMES {
                    while first.mesh.send(NodeId(1), number, small.clone()) == Err(SendError::Full) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let asked = Instant::now();
            assert_eq!(first.ask(1, &b"echo"[..], Duration::from_secs(5)), Ok(Bytes::from_static(b"echo")));
            slowest = slowest.max(asked.elapsed());
        }
        eprintln!("slowest of 50 questions beside a held lane and three busy ones: {slowest:?}");
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    });
    wait("the frames of the other lanes", Duration::from_secs(20), || {
        (1..LANES).all(|number| second.received(0, number) == FRAMES)
    });
    eprintln!("{} frames of 200 bytes beside a held lane in {:?}", 3 * FRAMES, start.elapsed());
    assert_eq!(second.received(0, 0), held, "a lane was read without being ready");
    assert!((1..LANES).all(|number| lane(&first, number).sent_frames == FRAMES as u64));

    second.recorder.held.store(0, SeqCst);
    wait("what was held", Duration::from_secs(10), || second.received(0, 0) == taken);
}

/// Two nodes with 4 Mbit/s between them, and all lanes of the first full of bulk until `done`.
fn saturated(work: impl FnOnce(&Node, &Node)) {
    let proxies = [Proxy::new(1), Proxy::new(2)];
    let first = Node::behind(&proxies[0], config(0, 1, &[]));
    let second = Node::behind(&proxies[1], config(1, 1, &[proxies[0].addr]));
    let nodes = [first, second];
    wait("two nodes to form a cluster", Duration::from_secs(5), || formed(&nodes));
    for proxy in &proxies {
        proxy.set(Line { rate: 500_000, delay: Duration::from_millis(2), ..Line::default() });
    }
    let [first, second] = &nodes;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        for number in 0..LANES {
            scope.spawn(move || {
                let bulk = Bytes::from(vec![number; 32 << 10]);
                while !done.load(SeqCst) {
                    while first.mesh.send(NodeId(1), number, bulk.clone()).is_ok() {}
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, SeqCst);
            }
        }
        let _done = Done(done);
        wait("four full lanes", Duration::from_secs(10), || (0..LANES).all(|number| lane(first, number).refused > 0));
        work(first, second);
    });
}

#[test]
fn questions_and_gossip_pass_full_lanes_on_a_narrow_line() {
    saturated(|first, second| {
        let views = |node: &Node| node.recorder.seen.lock().unwrap().views.clone();
        let before = [views(first).len(), views(second).len()];
        let mut took: Vec<Duration> = (0..40)
            .map(|n| {
                let asked = Instant::now();
                let (from, to) = if n % 2 == 0 { (first, 1) } else { (second, 0) };
                assert_eq!(from.ask(to, &b"echo"[..], Duration::from_secs(5)), Ok(Bytes::from_static(b"echo")));
                took_little(asked)
            })
            .collect();
        took.sort_unstable();
        eprintln!("questions past full lanes at 4 Mbit/s: p50 {:?}, slowest {:?}", took[20], took[39]);
        // Long enough for a false suspicion to become a false death.
        let start = Instant::now();
        wait("six seconds of full lanes", Duration::from_secs(7), || start.elapsed() > Duration::from_secs(6));
        // A starved machine may suspect for a moment; nobody may act on it.
        for (node, before) in [first, second].into_iter().zip(before) {
            assert!(views(node)[before..].iter().all(|members| *members == [0, 1]), "{:?}", views(node));
        }
        assert_eq!([first.mesh.stats().renewals, second.mesh.stats().renewals], [0, 0]);
        assert_eq!([first.links().len(), second.links().len()], [1, 1], "a link broke");
    });
}

fn took_little(asked: Instant) -> Duration {
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "a question took {took:?}");
    took
}

#[test]
fn lanes_share_a_narrow_line_evenly() {
    saturated(|_, second| {
        let arrived = || (0..LANES).map(|number| second.received(0, number)).collect::<Vec<_>>();
        let start = Instant::now();
        wait("3 MiB over the narrow line", Duration::from_secs(30), || {
            arrived().iter().sum::<usize>() > (3 << 20) / (32 << 10)
        });
        let arrived = arrived();
        eprintln!("frames of 32 KiB per lane after {:?}: {arrived:?}", start.elapsed());
        let (least, most) = (arrived.iter().min().unwrap(), arrived.iter().max().unwrap());
        assert!(2 * least >= *most, "{arrived:?}");
    });
}
