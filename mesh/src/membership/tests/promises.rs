//! Stories of membership, one promise each, and what the value does with what it is fed by hand.
//!
//! Invariant: every assertion names the seed it failed with.

use std::time::Duration;

use super::{World, everyone, seconds, story::Kind};
use crate::{
    MemberState, NodeId, Timings,
    membership::{Identity, MAX_PACKET, Member, Membership, Output},
    rng::SplitMix,
    wire::control::encode_roster,
};

fn identity(node: u16, generation: u64) -> Identity {
    let name = format!("gw-{node}").into();
    Identity { node: NodeId(node), generation, edition: 0, draining: false, addr: super::address(node), name }
}

#[test]
fn a_cluster_forms_within_seconds_even_with_loss() {
    for (count, loss, seed) in [(10, 0, 1), (10, 5, 2), (50, 0, 3), (50, 5, 4)] {
        let mut world = World::new(count, loss, seed);
        let all = everyone(count);
        let took = world.wait(seconds(3), |world| world.agree(&all));
        assert!(took.is_some(), "{count} nodes, {loss} % loss, seed {seed}");
    }
}

#[test]
fn a_killed_node_is_noticed_by_everyone_within_five_seconds() {
    for (count, loss, seed) in [(3_u16, 0, 1), (3, 5, 2), (10, 0, 3), (10, 5, 4), (10, 0, 5)] {
        let mut world = World::new(count, loss, seed);
        let all = everyone(count);
        assert!(world.wait(seconds(5), |world| world.agree(&all)).is_some(), "seed {seed}");
        world.pass(seconds(2));
        world.kill(count / 2);
        let left: Vec<u16> = all.into_iter().filter(|node| *node != count / 2).collect();
        let took = world.wait(seconds(5), |world| world.agree(&left));
        assert!(took.is_some(), "{count} nodes, {loss} % loss, seed {seed}");
    }
}

#[test]
fn a_killed_node_is_noticed_in_a_cluster_of_fifty() {
    let mut world = World::new(50, 5, 1);
    let all = everyone(50);
    assert!(world.wait(seconds(5), |world| world.agree(&all)).is_some());
    world.kill(20);
    let left: Vec<u16> = all.into_iter().filter(|node| *node != 20).collect();
    assert!(world.wait(seconds(8), |world| world.agree(&left)).is_some());
}

#[test]
fn loss_alone_takes_nobody_out_of_the_ring() {
    for seed in 1..4 {
        let mut world = World::new(20, 5, seed);
        let all = everyone(20);
        assert!(world.wait(seconds(5), |world| world.agree(&all)).is_some(), "seed {seed}");
        let lost = world.wait(seconds(60), |world| !world.agree(&all));
        assert_eq!(lost, None, "seed {seed}");
    }
}

#[test]
fn a_stalled_node_declares_nobody_dead_when_it_wakes() {
    for seed in 1..6 {
        let mut world = World::new(5, 0, seed);
        assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3, 4])).is_some(), "seed {seed}");
        // Shorter than a suspicion, so nobody declares the sleeper dead either.
        world.pause(2, Duration::from_millis(1400));
        let changed = world.wait(seconds(10), |world| !world.agree(&[0, 1, 2, 3, 4]));
        assert_eq!(changed, None, "seed {seed}");
    }
}

#[test]
fn a_node_that_was_declared_down_comes_back_as_the_same_process() {
    for seed in 1..4 {
        let mut world = World::new(4, 0, seed);
        assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3])).is_some(), "seed {seed}");
        world.pause(3, seconds(6));
        let out = world.wait(seconds(6), |world| (0..3).all(|node| world.owners(node) == [0, 1, 2]));
        assert!(out.is_some(), "seed {seed}");
        assert!(world.wait(seconds(15), |world| world.agree(&[0, 1, 2, 3])).is_some(), "seed {seed}");
        let back = &world.nodes[&0].membership.view().members[3];
        assert_eq!((back.node, back.generation), (NodeId(3), 1), "seed {seed}");
    }
}

#[test]
fn a_restarted_node_is_one_entry_with_its_new_generation() {
    let mut world = World::new(5, 0, 1);
    assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3, 4])).is_some());
    world.kill(3);
    world.pass(Duration::from_millis(200));
    world.start(3, 2);
    let renewed = |world: &World| {
        world.agree(&[0, 1, 2, 3, 4])
            && world.nodes.values().all(|value| value.membership.view().members[3].generation == 2)
    };
    assert!(world.wait(seconds(3), renewed).is_some());
    assert!(world.nodes.values().all(|value| value.membership.view().outside.is_empty()));
}

#[test]
fn both_sides_of_a_cut_serve_on_and_find_each_other_again() {
    for seed in 1..4 {
        let mut world = World::new(6, 0, seed);
        assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3, 4, 5])).is_some(), "seed {seed}");
        world.net.split(&[3, 4, 5].into(), &everyone(6));
        world.watch_links();
        let apart = |world: &World| {
            (0..3).all(|node| world.owners(node) == [0, 1, 2]) && (3..6).all(|node| world.owners(node) == [3, 4, 5])
        };
        assert!(world.wait(seconds(15), apart).is_some(), "seed {seed}");
        world.net.cuts.clear();
        world.watch_links();
        assert!(world.wait(seconds(30), |world| world.agree(&[0, 1, 2, 3, 4, 5])).is_some(), "seed {seed}");
    }
}

#[test]
fn a_draining_node_owns_nothing_and_a_leaving_one_is_gone_at_once() {
    let mut world = World::new(5, 0, 1);
    assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3, 4])).is_some());
    world.tell(4, |value, now| value.handle_drain(now));
    assert!(world.wait(seconds(2), |world| world.agree(&[0, 1, 2, 3])).is_some());
    world.pass(seconds(3));
    assert!(world.agree(&[0, 1, 2, 3]));
    assert!(world.nodes.values().all(|value| value.membership.view().outside[0].state == MemberState::Draining));

    world.tell(4, |value, now| value.handle_leave(now));
    world.pass(Duration::from_millis(20));
    world.kill(4);
    let gone =
        |world: &World| world.nodes.values().all(|value| value.membership.view().outside[0].state == MemberState::Down);
    assert!(world.wait(seconds(1), gone).is_some());
}

#[test]
fn the_first_view_is_ourselves_alone_and_versions_rise_by_one() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(7, 1), &Timings::default(), 1, now);
    let Some(Output::View(view)) = value.poll_output() else { panic!("no view") };
    assert_eq!((view.version, view.members.len(), view.table.owner(0)), (1, 1, Some(NodeId(7))));
    value.handle_link_up(identity(3, 1), now);
    value.handle_timeout(now + Timings::default().settle);
    let views: Vec<_> = std::iter::from_fn(|| value.poll_output())
        .filter_map(
            |output| if let Output::View(view) = output { Some((view.version, view.members.len())) } else { None },
        )
        .collect();
    assert_eq!(views, [(2, 2)]);
}

#[test]
fn a_burst_of_changes_makes_one_view() {
    let start = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, start);
    let mut views = 0;
    for n in 0..100_u16 {
        let now = start + Duration::from_millis(10) * u32::from(n);
        if n < 50 {
            value.handle_link_up(identity(n + 1, 1), now);
        }
        value.handle_timeout(now);
        let outputs = std::iter::from_fn(|| value.poll_output());
        views += outputs.filter(|output| matches!(output, Output::View(view) if view.version > 1)).count();
    }
    assert_eq!((views, value.view().members.len()), (1, 51));
}

#[test]
fn a_process_that_is_declared_down_again_and_again_comes_back_each_time() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, now);
    value.handle_link_up(identity(1, 1), now);
    for edition in 1..20 {
        let dead = Member::down(value.identity().clone());
        value.handle_roster(encode_roster([dead].iter()), now).unwrap();
        assert_eq!((value.identity().generation, value.identity().edition), (1, edition));
    }
    let gave_up = std::iter::from_fn(|| value.poll_output());
    assert_eq!(gave_up.filter(|output| matches!(output, Output::StartedTwice { .. })).count(), 0);
}

#[test]
fn a_process_that_hears_of_an_edition_it_never_had_gives_up() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, now);
    let twin = Member::alive(identity(0, 1).next_edition());
    value.handle_roster(encode_roster([twin].iter()), now).unwrap();
    let mut outputs = std::iter::from_fn(|| value.poll_output());
    assert!(outputs.any(|output| matches!(output, Output::StartedTwice { edition: 1 })));
}

#[test]
fn hostile_packets_change_nothing() {
    let now = crate::clock::now();
    let mut value = Membership::new(identity(0, 1), &Timings::default(), 1, now);
    value.handle_link_up(identity(1, 1), now);
    let mut rng = SplitMix::new(9);
    for _ in 0..2000 {
        let size = usize::try_from(rng.below(200)).unwrap();
        let packet: Vec<u8> = (0..size).map(|_| rng.next().to_le_bytes()[0]).collect();
        assert!(value.handle_packet(&packet, now).is_err());
        let _ = value.handle_roster(packet.into(), now);
    }
    assert!(value.handle_packet(&vec![0; MAX_PACKET + 1], now).is_err());
    assert_eq!(value.peers().filter(|peer| peer.state() != foca::State::Down).count(), 1);
}

#[test]
fn a_learned_address_reaches_everyone_under_the_same_generation() {
    let mut world = World::new(5, 0, 1);
    assert!(world.wait(seconds(5), |world| world.agree(&[0, 1, 2, 3, 4])).is_some());
    let ip = "10.9.9.9".parse().unwrap();
    world.tell(2, |value, now| value.handle_address(ip, now));
    let known = |world: &World| {
        world.agree(&[0, 1, 2, 3, 4])
            && world.nodes.values().all(|value| {
                let member = &value.membership.view().members[2];
                (member.addr.ip(), member.generation) == (ip, 1)
            })
    };
    assert!(world.wait(seconds(3), known).is_some());
}

#[test]
fn equal_seeds_tell_the_same_story() {
    let trace = |seed| Kind::Chaos.tell(4, seed).unwrap().trace();
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn every_kind_of_story_ends_well() {
    let stories = [(Kind::Loss(30), 4), (Kind::Chaos, 5), (Kind::Blink, 2), (Kind::Starved, 3), (Kind::Islands, 6)];
    for (kind, nodes) in stories {
        if let Err(why) = kind.tell(nodes, 1) {
            panic!("{} of {nodes} nodes: {why}", kind.name());
        }
    }
}
