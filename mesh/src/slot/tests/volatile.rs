//! Volatile messages: by the owner at first, straight afterwards, and what must never come of them.

use super::*;

fn volatile(world: &mut World, node: u16, room: &RoomKey, text: &str) {
    let token = world.publish_with(node, room, text, FLAG_VOLATILE, "");
    world.settle();
    assert!(matches!(world.published(node, token), Some(Ok(Stamp { n: 0, .. }))), "{text} was not answered at once");
}

/// Frames of rooms that a node got since `before`.
fn frames(world: &World, node: u16) -> usize {
    world.nodes[usize::from(node)].received_frames
}

/// Nodes with members everywhere; the slot is led by node 1, and node 0 publishes.
fn populated(nodes: u16) -> (World, RoomKey) {
    let (mut world, room) = (World::new(nodes), room_of(1, nodes));
    for node in 0..nodes {
        world.join(node, &room, Want::Nothing);
        world.settle();
    }
    assert_eq!(world.owner(&room), 1);
    (world, room)
}

#[test]
fn the_first_goes_by_the_owner_and_what_follows_goes_straight() {
    let (mut world, room) = (World::new(3), room_of(1, 3));
    world.join(2, &room, Want::Nothing);
    world.settle();
    let before = frames(&world, 1);
    for text in ["a", "b", "c"] {
        volatile(&mut world, 0, &room, text);
    }
    assert_eq!(world.live(2, &room), ["a", "b", "c"]);
    assert_eq!(frames(&world, 1) - before, 1, "an owner without members carries the first one only");
}

#[test]
fn members_beside_the_publisher_have_it_before_anything_is_sent() {
    let (mut world, room) = populated(3);
    let before = frames(&world, 0);
    for text in ["by the owner", "straight"] {
        let token = world.publish_with(0, &room, text, FLAG_VOLATILE, "");
        world.perform(0);
        assert_eq!(world.live(0, &room).last().map(String::as_str), Some(text));
        assert!(world.published(0, token).is_some());
        world.settle();
    }
    for node in 0..3 {
        assert_eq!(world.live(node, &room), ["by the owner", "straight"], "node {node}");
    }
    assert_eq!(frames(&world, 0), before, "the owner sends it back");
}

#[test]
fn with_a_lease_the_owner_is_not_needed_and_without_one_it_is() {
    let (mut world, room) = populated(4);
    volatile(&mut world, 0, &room, "a");
    // The owner is alone, and nobody has noticed yet.
    for node in [0, 2, 3] {
        world.cut(node, 1);
    }
    volatile(&mut world, 0, &room, "b");
    for node in [2, 3] {
        assert_eq!(world.live(node, &room), ["a", "b"], "node {node}");
    }
    assert_eq!(world.live(1, &room), ["a"]);
    world.pass(Duration::from_secs(5));
    volatile(&mut world, 0, &room, "c");
    for node in [2, 3] {
        assert_eq!(world.live(node, &room), ["a", "b", "c"], "node {node}: somebody else leads by now");
    }
}

#[test]
fn what_has_no_link_to_go_by_is_counted_and_never_comes() {
    let (mut world, room) = (World::new(2), room_of(1, 2));
    world.join(0, &room, Want::Nothing);
    world.join(1, &room, Want::Nothing);
    world.settle();
    volatile(&mut world, 0, &room, "a");
    world.cut(0, 1);
    volatile(&mut world, 0, &room, "nobody is there");
    assert!(world.nodes[0].slots.take_unreached() > 0, "what is lost is counted");
    world.connect(0, 1);
    world.settle();
    volatile(&mut world, 0, &room, "b");
    assert_eq!(
        world.live(1, &room),
        ["a", "b"],
        "what was lost comes no more, and a new link needs no old lease to end"
    );
}

#[test]
fn lessees_hear_who_comes_and_who_goes() {
    let (mut world, room) = (World::new(4), room_of(1, 4));
    world.join(2, &room, Want::Nothing);
    world.settle();
    volatile(&mut world, 0, &room, "a");
    world.join(3, &room, Want::Nothing);
    world.join(1, &room, Want::Nothing);
    world.settle();
    volatile(&mut world, 0, &room, "b");
    for node in [1, 3] {
        assert_eq!(world.live(node, &room), ["b"], "node {node}");
    }
    let now = world.now;
    for node in [1, 2, 3] {
        world.nodes[node].slots.handle_leave(&room, 0, now);
    }
    world.pass(Duration::from_secs(16));
    volatile(&mut world, 0, &room, "nobody");
    let before: Vec<usize> = (1..4).map(|node| frames(&world, node)).collect();
    volatile(&mut world, 0, &room, "nobody");
    let after: Vec<usize> = (1..4).map(|node| frames(&world, node)).collect();
    assert_eq!(after, [before[0] + 1, before[1], before[2]], "where nobody wants a room only its owner is asked");
}

#[test]
fn a_lease_that_is_used_is_renewed_without_the_owner_carrying_anything() {
    let (mut world, room) = (World::new(3), room_of(1, 3));
    world.join(2, &room, Want::Nothing);
    world.settle();
    volatile(&mut world, 0, &room, "0");
    let before = frames(&world, 1);
    for second in 1..60 {
        world.pass(Duration::from_secs(1));
        volatile(&mut world, 0, &room, &second.to_string());
    }
    assert_eq!(frames(&world, 1), before);
    assert_eq!(world.live(2, &room).len(), 60);
    world.pass(Duration::from_secs(11));
    volatile(&mut world, 0, &room, "60");
    assert_eq!(frames(&world, 1), before + 1, "one that nobody used has ended");
}

#[test]
fn nothing_volatile_waits_for_a_copy_or_moves_an_offset() {
    let (mut world, room) = populated(3);
    let first = world.publish(0, &room, "1");
    world.settle();
    // The replica does not hear of the next one.
    let silent = (0..3).find(|node| *node != 1 && !matches!(world.live(*node, &room).len(), 0)).unwrap();
    let second = world.publish(1, &room, "2");
    world.perform(1);
    let token = world.publish_with(1, &room, "now", FLAG_VOLATILE, "");
    world.perform(1);
    assert_eq!(world.live(1, &room), ["1", "now"], "it waits behind what {silent} has to keep");
    assert!(world.published(1, token).is_some());
    world.settle();
    let (first, second) = (world.published(0, first).unwrap().unwrap(), world.published(1, second).unwrap().unwrap());
    assert_eq!((second.lineage, second.n), (first.lineage, first.n + 1));
    world.check();
    let history = world.history(0, &room, Want::Page { limit: 10, since: None, reverse: false });
    assert_eq!(history.frames.len(), 2);
    assert!((0..3).all(|node| world.stored(node).iter().all(|frame| !frame.is_volatile())));
}

#[test]
fn what_meets_a_full_lane_is_gone_and_nobody_says_anything_again() {
    let (mut world, room) = populated(3);
    volatile(&mut world, 0, &room, "a");
    world.nodes[2].refuses = 1;
    volatile(&mut world, 0, &room, "lost");
    volatile(&mut world, 0, &room, "b");
    assert_eq!(world.live(2, &room), ["a", "b"]);
    assert_eq!(world.live(1, &room), ["a", "lost", "b"]);
    assert!(world.nodes[0].slots.resync.is_empty());
    world.pass(Duration::from_secs(3));
    assert_eq!(world.live(2, &room), ["a", "b"]);
}

#[test]
fn a_lease_does_not_begin_while_something_is_on_its_way_to_the_owner() {
    let (mut world, room) = populated(3);
    let publish = |world: &mut World, text| {
        world.publish_with(0, &room, text, FLAG_VOLATILE, "");
        world.perform(0);
    };
    publish(&mut world, "a");
    publish(&mut world, "b");
    // The owner has the first one, and its lease comes back before the second one is there.
    world.carry((0, 1));
    world.perform(1);
    while world.carry((1, 0)) {}
    publish(&mut world, "c");
    assert!(world.wires[&(0, 2)].is_empty(), "the third one overtakes the second");
    world.settle();
    assert_eq!(world.live(2, &room), ["a", "b", "c"]);
}

#[test]
fn leases_are_bounded_and_rooms_without_one_go_by_the_owner() {
    let (mut world, room) = (World::new(3), room_of(1, 3));
    let alike = (0..).map(|name: u32| RoomKey::new("/", &format!("alike-{name}")));
    let rooms: Vec<RoomKey> = alike.filter(|other| other.slot() == room.slot()).take(300).collect();
    for room in &rooms {
        world.join(2, room, Want::Nothing);
    }
    world.settle();
    for _ in 0..2 {
        rooms.iter().for_each(|room| volatile(&mut world, 0, room, "x"));
    }
    assert!(rooms.iter().all(|room| world.live(2, room) == ["x", "x"]));
    let Some(Slot::Follower(follower)) = world.nodes[0].slots.slots.get(&room.slot()) else { panic!("not a follower") };
    assert_eq!(follower.leases.len(), 256);
    world.pass(Duration::from_secs(40));
    let Some(Slot::Follower(follower)) = world.nodes[0].slots.slots.get(&room.slot()) else { panic!("not a follower") };
    assert!(follower.leases.is_empty(), "leases that ended are kept");
    let Some(Slot::Owner(book)) = world.nodes[1].slots.slots.get(&room.slot()) else { panic!("not the owner") };
    assert!(book.leases.is_empty(), "an owner remembers lessees for ever");
}

#[test]
fn a_message_of_another_node_for_an_owner_that_is_none_goes_nowhere() {
    let (mut world, room) = populated(3);
    let frame = Frame {
        slot: room.slot(),
        room: room.clone(),
        lineage: 0,
        term: 0,
        n: 0,
        prev: 0,
        origin: crate::wire::message::Origin { node: NodeId(0), generation: 1, shard: 0, oseq: 9 },
        time_ms: 0,
        flags: FLAG_VOLATILE,
        id: "".into(),
        from: "".into(),
        except: Vec::new(),
        payload: Bytes::from_static(b"x"),
    };
    let (now, now_ms) = (world.now, world.now_ms);
    world.nodes[2].slots.handle_frame(NodeId(0), &frame.encode(), now, now_ms).unwrap();
    world.settle();
    assert_eq!(world.nodes[2].slots.take_unreached(), 1);
    assert!((0..3).all(|node| world.live(node, &room).is_empty()));
}
