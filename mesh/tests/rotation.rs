//! Changing the cluster key of running nodes: both keys for a while, no link lost for longer than a redial, old ones refused.
//!
//! Invariants: real handshakes; frames flow between all pairs from the first step to the last.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use common::{Node, config, formed, key, three, wait};
use mesh::{ClusterKey, ClusterKeys, Config, NodeId, RefusalReason};

fn new_key() -> ClusterKey {
    ClusterKey::from_bytes(b"the next cluster key, as long as it must be").unwrap()
}

fn both() -> ClusterKeys {
    ClusterKeys { current: new_key(), previous: Some(key()) }
}

fn rotate(node: &Node, keys: impl Into<ClusterKeys>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(node.mesh.rotate(keys.into())).unwrap();
}

/// Runs `work` while every node sends numbered frames to every other.
fn under_traffic(nodes: &[Node], work: impl FnOnce()) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (from, node) in nodes.iter().enumerate() {
            let done = &done;
            scope.spawn(move || {
                for n in 0_u32.. {
                    if done.load(SeqCst) {
                        return;
                    }
                    for to in (0..nodes.len()).filter(|to| *to != from) {
                        // A link that is away for a moment takes none; what was sent into it is lost or arrives.
                        let _ = node.mesh.send(NodeId(u16::try_from(to).unwrap()), 0, n.to_be_bytes().to_vec().into());
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
        let _done = Done(&done);
        work();
    });
}

/// What arrived of a pair rises strictly.
fn assert_in_order(nodes: &[Node]) {
    for node in nodes {
        let seen = node.recorder.seen.lock().unwrap();
        assert_eq!(seen.stray, 0);
        for frames in seen.frames.values() {
            assert!(frames.len() > 100 && frames.is_sorted_by(|before, after| before < after));
        }
    }
}

#[test]
fn three_nodes_change_their_key_one_after_another_under_traffic() {
    let (nodes, _) = three();
    let downs = || -> usize { nodes.iter().map(|node| node.links().iter().filter(|(.., up)| !up).count()).sum() };
    let flowing = |what: &str| {
        let arrived = |node: &Node| -> usize { (0..3).map(|from| node.received(from, 0)).sum() };
        let before: Vec<_> = nodes.iter().map(arrived).collect();
        wait(what, Duration::from_secs(3), || {
            nodes.iter().zip(&before).all(|(node, before)| arrived(node) > before + 20)
        });
    };
    under_traffic(&nodes, || {
        flowing("traffic before");
        rotate(&nodes[0], both());
        // A node that knows only the old key is taken in by one with both and by those with the old one.
        let late = Node::join(3, 1, &[nodes[0].addr]);
        wait("a node with the old key", Duration::from_secs(3), || (0..3).all(|node| late.linked(node, 1)));
        wait("the guest in every view", Duration::from_secs(3), || nodes.iter().all(|node| node.members().len() == 4));
        drop(late);
        wait("the guest to be forgotten", Duration::from_secs(6), || formed(&nodes));
        rotate(&nodes[1], both());
        rotate(&nodes[2], both());
        flowing("traffic with two keys");
        assert_eq!(downs(), 3, "only the guest left; learning a key breaks nothing");

        for (step, node) in nodes.iter().enumerate() {
            rotate(node, new_key());
            let took = wait("all links", Duration::from_secs(1), || formed(&nodes));
            eprintln!("node {step} dropped the old key: all links again after {took:?}");
            flowing("traffic after a key was dropped");
        }
        assert!((4..=9).contains(&downs()), "each of three links broke once, on both sides: {}", downs() - 3);
    });
    assert_in_order(&nodes);
    assert!(nodes.iter().all(|node| node.mesh.stats().renewals == 0 && node.members() == [0, 1, 2]));

    let left_behind = Node::join(3, 2, &[nodes[0].addr]);
    let refused = |node: &Node| node.mesh.stats().refused_for(RefusalReason::Key);
    wait("the old key to be refused, on both sides", Duration::from_secs(3), || {
        refused(&left_behind) > 0 && refused(&nodes[0]) > 0
    });
    assert!(left_behind.links().is_empty());
    let fresh = Node::start(Config { keys: new_key().into(), ..config(4, 1, &[nodes[0].addr]) });
    wait("a node with the new key", Duration::from_secs(3), || (0..3).all(|node| fresh.linked(node, 1)));
}

#[test]
fn a_link_made_with_a_dropped_key_does_not_outlive_it() {
    let nodes = [Node::join(0, 1, &[]), Node::join(1, 1, &[])];
    let third = Node::join(2, 1, &[nodes[0].addr]);
    wait("a link", Duration::from_secs(3), || third.linked(0, 1));
    // Node 0 forgets the key at once; node 2 still has only the old one.
    rotate(&nodes[0], new_key());
    wait("the link to end", Duration::from_secs(1), || !third.linked(0, 1) && !nodes[0].linked(2, 1));
    assert_eq!(nodes[0].mesh.send(NodeId(2), 0, Bytes::new()), Err(mesh::SendError::NoLink));
    rotate(&third, both());
    wait("the link with the new key", Duration::from_secs(5), || third.linked(0, 1) && nodes[0].linked(2, 1));
}
