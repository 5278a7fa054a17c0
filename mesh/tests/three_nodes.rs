//! Three real meshes on loopback: forming, carrying, losing a node and taking it back, refusing strangers.
//!
//! Invariants: real sockets, real certificates, default timings.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{Node, config, is_up, three, wait};
use mesh::{ClusterKey, Config, LANES, MemberState, NodeId, RefusalReason, RequestError, RunError, SendError};

const FRAMES: u32 = 10_000;

/// Frame `n` of a lane: its number, then filling so that sizes differ.
fn frame(n: u32) -> Bytes {
    let mut frame = n.to_be_bytes().to_vec();
    frame.resize(4 + usize::try_from(n % 300).unwrap(), 0xa5);
    frame.into()
}

/// Sends until the lane takes it.
fn send(node: &Node, to: u16, lane: u8, frame: &Bytes) {
    wait("room in a lane", Duration::from_secs(10), || match node.mesh.send(NodeId(to), lane, frame.clone()) {
        Ok(()) => true,
        Err(SendError::Full) => false,
        Err(error) => panic!("{error}"),
    });
}

#[test]
fn three_nodes_find_each_other_within_three_seconds() {
    let (nodes, took) = three();
    eprintln!("cluster of three formed in {took:?}");
    for node in &nodes {
        let view = node.mesh.view();
        assert_eq!(
            view.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(),
            ["gw-0", "gw-1", "gw-2"]
        );
        assert!(*view.table == *nodes[0].mesh.view().table);
        assert_eq!(node.recorder.seen.lock().unwrap().views[0].len(), 1, "the first view is ourselves alone");
    }
}

#[test]
fn ten_thousand_frames_per_pair_and_lane_arrive_once_and_in_order() {
    let (nodes, _) = three();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for (from, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..FRAMES {
                    for to in (0..3_u16).filter(|to| usize::from(*to) != from) {
                        for lane in 0..LANES {
                            send(node, to, lane, &frame(n));
                        }
                    }
                }
            });
        }
    });
    let pairs = || (0..3_u16).flat_map(|to| (0..3_u16).filter(move |from| *from != to).map(move |from| (from, to)));
    wait("all frames", Duration::from_secs(60), || {
        pairs().all(|(from, to)| (0..LANES).all(|lane| nodes[usize::from(to)].received(from, lane) >= FRAMES as usize))
    });
    let took = start.elapsed();
    eprintln!("{} frames in {took:?}", 6 * u32::from(LANES) * FRAMES);
    for (from, to) in pairs() {
        let seen = nodes[usize::from(to)].recorder.seen.lock().unwrap();
        assert_eq!(seen.stray, 0);
        for lane in 0..LANES {
            let frames = &seen.frames[&(from, lane)];
            assert_eq!(frames.len(), FRAMES as usize, "from {from} to {to} in lane {lane}");
            assert!(frames.iter().zip(0..).all(|(got, n)| *got == frame(n)), "from {from} to {to} in lane {lane}");
        }
    }
}

#[test]
fn a_stopped_node_is_noticed_and_comes_back_with_a_higher_generation() {
    let (mut nodes, _) = three();
    let seeds = [nodes[0].addr];
    let last = std::mem::replace(&mut nodes[2], Node::join(9, 1, &[]));
    let start = Instant::now();
    drop(last);
    wait("links down", Duration::from_secs(1), || nodes[..2].iter().all(|node| !node.linked(2, 1)));
    eprintln!("links down {:?} after the stop began", start.elapsed());
    let took = wait("views of two", Duration::from_secs(6), || nodes[..2].iter().all(|node| node.members() == [0, 1]));
    eprintln!("view of two after {took:?}");
    assert!(nodes[0].mesh.view().outside.iter().any(|member| member.node == NodeId(2)));

    nodes[2] = Node::join(2, 2, &seeds);
    let took = wait("views of three and links", Duration::from_secs(6), || {
        nodes.iter().all(|node| node.members() == [0, 1, 2] && node.mesh.links().iter().all(is_up))
            && nodes[..2].iter().all(|node| node.linked(2, 2))
    });
    eprintln!("view of three after {took:?}");
    for node in &nodes[..2] {
        let links: Vec<_> = node.links().into_iter().filter(|(peer, ..)| *peer == 2).collect();
        assert_eq!(links, [(2, 1, true), (2, 1, false), (2, 2, true)]);
    }
}

#[test]
fn a_node_that_leaves_is_gone_from_every_view_within_a_second() {
    let (nodes, _) = three();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(nodes[1].mesh.drain());
    wait("the draining node to own nothing", Duration::from_secs(2), || {
        nodes.iter().all(|node| node.members() == [0, 2])
    });
    assert!(nodes[0].linked(1, 1), "a draining node stays linked");
    runtime.block_on(nodes[1].mesh.leave());
    wait("links to end", Duration::from_secs(1), || [0, 2].iter().all(|node: &usize| !nodes[*node].linked(1, 1)));
    assert_eq!(nodes[1].mesh.send(NodeId(0), 0, Bytes::new()), Err(SendError::NoLink));
    let gone = |node: &Node| node.mesh.view().outside.iter().any(|member| member.state == MemberState::Down);
    wait("the others to know", Duration::from_secs(1), || gone(&nodes[0]) && gone(&nodes[2]));
}

/// Blocks the mesh thread of `node` at its next readiness question, which a frame makes it ask.
fn freeze(node: &Node, by: &Node) {
    node.recorder.frozen.store(true, std::sync::atomic::Ordering::SeqCst);
    send(by, 2, 0, &frame(0));
    wait("the frame to arrive", Duration::from_secs(1), || node.received(0, 0) > 0);
}

#[test]
fn a_restart_before_anyone_noticed_replaces_the_link_down_then_up() {
    let ([first, second, mut old], _) = three();
    freeze(&old, &first);
    let start = Instant::now();
    let again = Node::join(2, 7, &[first.addr]);
    wait("links to the new process", Duration::from_secs(5), || first.linked(2, 7) && second.linked(2, 7));
    eprintln!("a restarted node was linked after {:?}", start.elapsed());
    for node in [&first, &second] {
        let links: Vec<_> = node.links().into_iter().filter(|(peer, ..)| *peer == 2).collect();
        assert_eq!(links, [(2, 1, true), (2, 1, false), (2, 7, true)]);
    }
    wait("a view with the new process", Duration::from_secs(3), || {
        [&first, &second, &again].iter().all(|node| {
            node.members() == [0, 1, 2] && node.mesh.view().members.iter().any(|member| member.generation == 7)
        })
    });
    // The old one wakes, and learns of its end from a closed link or from gossip, whichever comes first.
    old.recorder.frozen.store(false, std::sync::atomic::Ordering::SeqCst);
    let end = old.ended(Duration::from_secs(10)).unwrap_err();
    let RunError::Superseded { node: NodeId(2), reason } = &end else { panic!("{end}") };
    eprintln!("{end}");
    assert!(reason.contains(&old.addr.to_string()) && reason.contains(&again.addr.to_string()), "{reason}");
    assert!(first.linked(2, 7) && second.linked(2, 7));
}

#[test]
fn a_node_that_is_started_a_second_time_while_it_runs_steps_back_and_disturbs_nobody() {
    let (nodes, _) = three();
    let before: Vec<_> = nodes.iter().map(Node::links).collect();
    // Again and again, as something that restarts whatever ends would.
    for generation in 7..10 {
        let mut twin = Node::join(2, generation, &[nodes[0].addr, nodes[1].addr]);
        let end = twin.ended(Duration::from_secs(3)).unwrap_err();
        let RunError::Twin { node: NodeId(2), reason } = &end else { panic!("{end}") };
        assert!(reason.contains(&nodes[2].addr.to_string()) && reason.contains(&twin.addr.to_string()), "{reason}");
        assert!(twin.links().is_empty(), "it was never taken in");
        eprintln!("{end}");
    }
    // It goes as soon as one of the two that it dials has told it.
    let refused = |node: &Node| node.mesh.stats().refused_for(RefusalReason::Twin);
    assert!(nodes[..2].iter().map(refused).sum::<u64>() >= 3);
    assert_eq!(nodes.iter().map(Node::links).collect::<Vec<_>>(), before);
    assert!(nodes.iter().all(|node| node.members() == [0, 1, 2]));
}

#[test]
fn two_processes_of_a_node_that_meet_each_other_end_with_the_earlier_one() {
    let first = Node::join(2, 1, &[]);
    let mut twin = Node::join(2, 7, &[first.addr]);
    let end = twin.ended(Duration::from_secs(3)).unwrap_err();
    assert!(matches!(end, RunError::Twin { .. }), "{end}");
    let third = Node::join(0, 1, &[first.addr]);
    wait("the first to go on", Duration::from_secs(3), || third.linked(2, 1) && first.linked(0, 1));
}

#[test]
fn a_node_with_another_cluster_key_is_refused() {
    let first = Node::join(0, 1, &[]);
    let key = ClusterKey::from_bytes(b"another cluster key, also long enough....").unwrap();
    let stranger = Node::start(Config { keys: key.into(), ..config(1, 1, &[first.addr]) });
    wait("a failed dial", Duration::from_secs(3), || stranger.mesh.stats().dials_failed > 0);
    wait("a failed accept", Duration::from_secs(3), || first.mesh.stats().accepts_failed > 0);
    assert!(first.links().is_empty() && stranger.links().is_empty());
    let refused = |node: &Node| node.mesh.stats().refused_for(RefusalReason::Key);
    assert!(refused(&first) > 0 && refused(&stranger) > 0, "both sides count it");
    assert_eq!((first.members(), stranger.members()), (vec![0], vec![1]));
}

#[test]
fn requests_are_answered_refused_or_time_out() {
    let (nodes, _) = three();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |to: u16, body: &'static [u8]| {
        runtime.block_on(nodes[0].mesh.request(NodeId(to), Bytes::from_static(body), Duration::from_secs(5)))
    };
    assert_eq!(ask(1, b"echo 1"), Ok(Bytes::from_static(b"echo 1")));
    assert_eq!(ask(2, b"echo 2"), Ok(Bytes::from_static(b"echo 2")));
    assert_eq!(ask(2, b"large").map(|answer| answer.len()), Ok(mesh::MAX_ANSWER));
    assert_eq!(ask(2, b"other"), Err(RequestError::Refused));
    assert_eq!(ask(7, b"echo"), Err(RequestError::NoLink));
    assert_eq!(ask(0, b"echo"), Err(RequestError::NoLink));
    let large = Bytes::from(vec![0; mesh::MAX_REQUEST + 1]);
    let result = runtime.block_on(nodes[0].mesh.request(NodeId(1), large, Duration::from_secs(5)));
    assert_eq!(result, Err(RequestError::TooLarge));
    let soon = Duration::from_millis(100);
    let result = runtime.block_on(nodes[0].mesh.request(NodeId(1), Bytes::from_static(b"keep"), soon));
    assert_eq!(result, Err(RequestError::Timeout));
}

#[test]
fn a_request_ends_when_its_link_does() {
    let (mut nodes, _) = three();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = nodes[0].mesh.request(NodeId(2), Bytes::from_static(b"keep"), Duration::from_secs(60));
    wait("the question to arrive", Duration::from_secs(2), || nodes[2].recorder.seen.lock().unwrap().kept.len() == 1);
    drop(std::mem::replace(&mut nodes[2], Node::join(9, 1, &[])));
    assert_eq!(runtime.block_on(asked), Err(RequestError::LinkLost));
}

#[test]
fn a_frozen_node_is_declared_down_and_taken_back_when_it_thaws() {
    let (nodes, _) = three();
    let frozen = &nodes[2].recorder.frozen;
    frozen.store(true, std::sync::atomic::Ordering::SeqCst);
    send(&nodes[0], 2, 0, &frame(0));
    let took = wait("views of two", Duration::from_secs(6), || nodes[..2].iter().all(|node| node.members() == [0, 1]));
    eprintln!("frozen node out of the views after {took:?}");
    let took = wait("links down", Duration::from_secs(6), || nodes[..2].iter().all(|node| !node.linked(2, 1)));
    eprintln!("links to it down after another {took:?}");
    frozen.store(false, std::sync::atomic::Ordering::SeqCst);
    let took = wait("views of three and links", Duration::from_secs(15), || {
        nodes.iter().all(|node| node.members() == [0, 1, 2] && node.mesh.links().iter().all(is_up))
    });
    eprintln!("taken back after {took:?}");
    assert!(nodes.iter().all(|node| node.mesh.view().members.iter().all(|member| member.generation == 1)));
}

#[test]
fn a_slow_receiver_makes_the_sender_full_and_loses_nothing() {
    let (nodes, _) = three();
    let held = &nodes[1].recorder.held;
    held.store(u8::MAX, std::sync::atomic::Ordering::SeqCst);
    let chunk = |n: u32| Bytes::from([&n.to_be_bytes()[..], &[0; 16 << 10]].concat());
    let mut sent = 0;
    // Everything between the two: our lane, QUIC's buffer, the windows, and what was read before it was held.
    let most = (mesh::LANE_HARD_BYTES + (8 << 20)) / (16 << 10);
    wait("the sender to be full for a second", Duration::from_secs(20), || {
        while nodes[0].mesh.send(NodeId(1), 2, chunk(sent)).is_ok() {
            sent += 1;
            assert!((sent as usize) < most, "a held receiver was sent {sent} frames");
        }
        std::thread::sleep(Duration::from_millis(1000));
        let full = nodes[0].mesh.send(NodeId(1), 2, chunk(sent)) == Err(SendError::Full);
        sent += u32::from(!full);
        full
    });
    assert!(nodes[0].mesh.stats().frames_refused > 0);
    assert!(nodes[0].mesh.links().iter().all(|link| link.lanes[2].queued_bytes <= mesh::LANE_HARD_BYTES));
    // Other lanes and other peers go on.
    send(&nodes[0], 2, 2, &frame(0));
    wait("a frame to the third", Duration::from_secs(1), || nodes[2].received(0, 2) == 1);
    held.store(0, std::sync::atomic::Ordering::SeqCst);
    wait("all frames", Duration::from_secs(10), || nodes[1].received(0, 2) >= sent as usize);
    let seen = nodes[1].recorder.seen.lock().unwrap();
    assert!(seen.frames[&(0, 2)].iter().zip(0_u32..).take(sent as usize).all(|(got, n)| got[..4] == n.to_be_bytes()));
}

#[test]
fn a_receiver_that_holds_every_lane_still_answers_questions_and_stays_a_member() {
    let (nodes, _) = three();
    nodes[1].recorder.held.store(u8::MAX, std::sync::atomic::Ordering::SeqCst);
    let chunk = Bytes::from(vec![0; 16 << 10]);
    for lane in 0..LANES {
        wait("a full lane", Duration::from_secs(10), || {
            while nodes[0].mesh.send(NodeId(1), lane, chunk.clone()).is_ok() {}
            std::thread::sleep(Duration::from_millis(200));
            nodes[0].mesh.send(NodeId(1), lane, chunk.clone()) == Err(SendError::Full)
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let large = Bytes::from([&b"echo"[..], &vec![1; 512 << 10]].concat());
    for _ in 0..4 {
        let asked = nodes[0].mesh.request(NodeId(1), large.clone(), Duration::from_secs(5));
        assert_eq!(runtime.block_on(asked), Ok(large.clone()));
    }
    assert!(nodes.iter().all(|node| node.members() == [0, 1, 2]));
}

/// Every node has had exactly one link to every other, and has it still.
fn assert_one_unbroken_link_per_pair(nodes: &[Node]) {
    // Whatever surplus connections there were have time to make trouble.
    std::thread::sleep(Duration::from_millis(500));
    for node in nodes {
        let links = node.links();
        assert_eq!(links.len(), nodes.len() - 1, "{links:?}");
        assert!(links.iter().all(|(_, _, up)| *up));
    }
}

#[test]
fn nodes_that_all_dial_each_other_at_once_end_with_one_link_per_pair() {
    // Ports that were free a moment ago: every node must know every other before any of them runs.
    let sockets: Vec<_> = (0..5).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let seeds: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    drop(sockets);
    let start = |(node, listen): (u16, _)| Node::start(Config { listen, ..config(node, 1, &seeds) });
    let nodes: Vec<Node> = (0..).zip(seeds.iter().copied()).map(start).collect();
    wait("five nodes to form a cluster", Duration::from_secs(5), || {
        nodes.iter().all(|node| node.members() == [0, 1, 2, 3, 4] && node.mesh.links().iter().all(is_up))
    });
    assert_one_unbroken_link_per_pair(&nodes);
    let dials: u64 = nodes.iter().map(|node| node.mesh.stats().dials).sum();
    assert!(dials > 10, "{dials} dials for 10 pairs leave nothing to decide");
}

#[test]
fn nodes_that_start_together_have_one_link_per_pair_and_none_that_flapped() {
    const COUNT: u16 = 8;
    let first = Node::join(0, 1, &[]);
    let second = Node::join(1, 1, &[first.addr]);
    let seeds = [first.addr, second.addr];
    let mut nodes = vec![first, second];
    nodes.extend((2..COUNT).map(|node| Node::join(node, 1, &seeds)));
    let all: Vec<u16> = (0..COUNT).collect();
    wait("eight nodes to form a cluster", Duration::from_secs(5), || {
        nodes.iter().all(|node| node.members() == all && node.mesh.links().iter().all(is_up))
    });
    assert_one_unbroken_link_per_pair(&nodes);
    let dials: u64 = nodes.iter().map(|node| node.mesh.stats().dials).sum();
    let pairs = u64::from(COUNT) * (u64::from(COUNT) - 1) / 2;
    eprintln!("{dials} dials for {pairs} pairs");
    assert!(dials <= pairs * 3 / 2, "{dials} dials for {pairs} pairs");
}

#[test]
fn a_node_that_listens_on_every_address_of_both_families_is_reached_by_the_older_one() {
    let first = Node::start(Config { listen: "[::]:0".parse().unwrap(), ..config(0, 1, &[]) });
    let second = Node::join(1, 1, &[SocketAddr::from(([127, 0, 0, 1], first.addr.port()))]);
    wait("a cluster of two", Duration::from_secs(3), || {
        [&first, &second].iter().all(|node| node.members() == [0, 1] && node.mesh.links().iter().all(is_up))
    });
    assert_eq!(first.mesh.links()[0].addr, second.addr);
}

#[test]
fn a_lane_or_node_that_does_not_exist_has_no_link() {
    let (nodes, _) = three();
    assert_eq!(nodes[0].mesh.send(NodeId(1), LANES, Bytes::new()), Err(SendError::NoLink));
    assert_eq!(nodes[0].mesh.send(NodeId(9), 0, Bytes::new()), Err(SendError::NoLink));
    let batch = vec![(NodeId(1), 0, frame(0)), (NodeId(9), 0, frame(1)), (NodeId(2), 3, frame(2))];
    assert_eq!(nodes[0].mesh.send_batch(batch).unwrap_err().failures, [(1, SendError::NoLink)]);
    wait("the others of the batch", Duration::from_secs(2), || nodes[1].received(0, 0) + nodes[2].received(0, 3) == 2);
}
