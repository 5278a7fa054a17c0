//! Bad lines between three meshes: what a lane promises while datagrams are lost, repeated, overtaken and cut off.
//!
//! Invariants: seeded lines, real sockets. A lane promises that frames arrive in order and once, and that whatever is lost
//! when a link breaks is told by `LinkDown`; to send it again is the business of slots (`xtask/e2e/links.test.mjs`).

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    Node, config, formed,
    proxy::{Line, Proxy},
    wait,
};
use mesh::{LANES, NodeId, SendError};

/// Three nodes, each reached through a line of its own.
fn three() -> ([Node; 3], [Proxy; 3]) {
    let proxies = [11, 12, 13].map(Proxy::new);
    let seeds = [proxies[0].addr];
    let nodes = [0_usize, 1, 2].map(|n| {
        let seeds = if n == 0 { &[][..] } else { &seeds };
        Node::behind(&proxies[n], config(u16::try_from(n).unwrap(), 1, seeds))
    });
    wait("three nodes to form a cluster", Duration::from_secs(10), || formed(&nodes));
    (nodes, proxies)
}

fn pairs() -> impl Iterator<Item = (u16, u16)> {
    (0..3).flat_map(|from| (0..3).filter(move |to| *to != from).map(move |to| (from, to)))
}

fn frame(n: u32) -> Bytes {
    let mut frame = n.to_be_bytes().to_vec();
    frame.resize(4 + usize::try_from(n % 700).unwrap(), 0xa5);
    frame.into()
}

fn number(frame: &Bytes) -> u32 {
    u32::from_be_bytes(frame[..4].try_into().unwrap())
}

/// Every node sends `frames` frames to every other in every lane; `pace` passes between one round and the next.
fn traffic(nodes: &[Node; 3], frames: u32, pace: Duration) {
    for n in 0..frames {
        for (from, to) in pairs() {
            for lane in 0..LANES {
                let send = || nodes[usize::from(from)].mesh.send(NodeId(to), lane, frame(n));
                wait("room in a lane", Duration::from_secs(10), || match send() {
                    Ok(()) | Err(SendError::NoLink) => true,
                    Err(SendError::Full) => false,
                    Err(SendError::TooLarge) => unreachable!(),
                });
            }
        }
        std::thread::sleep(pace);
    }
}

#[test]
fn frames_arrive_once_and_in_order_over_lines_that_lose_repeat_and_overtake() {
    const FRAMES: u32 = 400;
    let (nodes, proxies) = three();
    let links = nodes.each_ref().map(Node::links);
    let late = Duration::from_millis(15);
    for (what, line) in [
        (
            "1 % repeated, 1 % overtaken",
            Line { repeated: 10, overtaken: 10, late, delay: late, jitter: late, ..Line::default() },
        ),
        ("5 % lost", Line { lost: 50, delay: Duration::from_millis(2), ..Line::default() }),
        ("20 % lost", Line { lost: 200, delay: Duration::from_millis(2), ..Line::default() }),
    ] {
        proxies.iter().for_each(|proxy| proxy.set(line));
        let before: Vec<_> = pairs().map(|(from, to)| nodes[usize::from(to)].received(from, 0)).collect();
        let start = Instant::now();
        traffic(&nodes, FRAMES, Duration::from_millis(1));
        wait("all frames", Duration::from_secs(40), || {
            pairs().zip(&before).all(|((from, to), before)| {
                (0..LANES).all(|lane| nodes[usize::from(to)].received(from, lane) == before + FRAMES as usize)
            })
        });
        let counts: Vec<_> = proxies.iter().map(Proxy::counts).collect();
        eprintln!("{what}: {} frames in {:?}, datagrams passed and spoiled {counts:?}", 24 * FRAMES, start.elapsed());
        for (from, to) in pairs() {
            let seen = nodes[usize::from(to)].recorder.seen.lock().unwrap();
            for lane in 0..LANES {
                let frames = &seen.frames[&(from, lane)];
                let last = frames[frames.len() - FRAMES as usize..].iter().zip(0..);
                assert!(last.clone().all(|(got, n)| *got == frame(n)), "{what}: from {from} to {to} in lane {lane}");
            }
        }
    }
    proxies.iter().for_each(|proxy| proxy.set(Line::default()));
    // Which line a link takes depends on who dialled it.
    let spoiled: u64 = proxies.iter().map(|proxy| proxy.counts().1).sum();
    assert!(spoiled > 100, "{spoiled} datagrams were lost, repeated or overtaken");
    assert_eq!(nodes.each_ref().map(Node::links), links, "no link broke");
}

#[test]
fn what_a_broken_link_takes_with_it_is_the_end_of_what_was_sent_before_it() {
    let (nodes, proxies) = three();
    // Longer than a link stays open in silence.
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| traffic(&nodes, 2_500, Duration::from_millis(4)));
        wait("frames", Duration::from_secs(5), || nodes[1].received(0, 0) > 50);
        proxies.iter().for_each(|proxy| proxy.set(Line { cut: true, ..Line::default() }));
        wait("every link to break", Duration::from_secs(12), || {
            nodes.iter().all(|node| node.mesh.links().iter().all(|link| link.state == mesh::LinkState::Missing))
        });
        proxies.iter().for_each(|proxy| proxy.set(Line::default()));
        let took = wait("all links again", Duration::from_secs(20), || formed(&nodes));
        eprintln!("whole again {took:?} after the lines were");
        sending.join().unwrap();
    });
    wait("the last frames", Duration::from_secs(10), || {
        pairs().all(|(from, to)| {
            let seen = nodes[usize::from(to)].recorder.seen.lock().unwrap();
            (0..LANES).all(|lane| seen.frames[&(from, lane)].last().is_some_and(|last| number(last) == 2_499))
        })
    });
    for (from, to) in pairs() {
        let seen = nodes[usize::from(to)].recorder.seen.lock().unwrap();
        assert_eq!(seen.stray, 0);
        let breaks = seen.links.iter().filter(|(peer, _, up)| *peer == from && !up).count();
        for lane in 0..LANES {
            let numbers: Vec<_> = seen.frames[&(from, lane)].iter().map(number).collect();
            let holes = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
            assert!(numbers.is_sorted_by(|before, after| before < after), "from {from} to {to}: repeated or overtaken");
            assert!(holes <= breaks, "{holes} holes for {breaks} broken links from {from} to {to}");
        }
    }
}
