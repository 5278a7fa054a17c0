//! What must hold, one story each.

use super::*;

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn payloads(history: &History) -> Vec<String> {
    history.frames.iter().map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
}

#[test]
fn members_on_all_nodes_see_one_order() {
    let (mut world, room) = (World::new(3), room_of(1, 3));
    for node in 0..3 {
        world.join(node, &room, Want::Nothing);
    }
    world.settle();
    for n in 0..30 {
        world.publish(n % 3, &room, &n.to_string());
    }
    world.settle();
    world.check();
    let first = world.live(0, &room);
    assert_eq!(first.len(), 30);
    assert_eq!(world.live(1, &room), first);
    assert_eq!(world.live(2, &room), first);
}

#[test]
fn a_node_without_members_receives_no_frame() {
    let (mut world, room) = (World::new(3), room_of(0, 3));
    world.join(1, &room, Want::Nothing);
    world.settle();
    world.publish(1, &room, "x");
    world.settle();
    assert_eq!((world.nodes[1].received_frames, world.nodes[2].received_frames), (1, 0));
}

#[test]
fn interest_ends_after_the_last_member_and_a_linger() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    let now = world.now;
    world.nodes[1].slots.handle_leave(&room, 0, now);
    world.pass(Duration::from_secs(16));
    world.publish(0, &room, "x");
    world.settle();
    assert_eq!(world.nodes[1].received_frames, 0);
}

#[test]
fn a_late_join_gets_the_past_and_then_exactly_what_follows() {
    let (mut world, room) = (World::new(3), room_of(0, 3));
    for n in 0..200 {
        world.publish(1, &room, &n.to_string());
    }
    world.settle();
    world.join(2, &room, Want::Last(120));
    // The answer to the interest, the question about history and new messages cross each other.
    for n in 200..260 {
        world.publish(1, &room, &n.to_string());
        world.perform(1);
        world.perform(2);
        world.carry((1, 0));
        world.perform(0);
        world.carry((2, 0));
        world.carry((0, 2));
    }
    world.settle();
    world.check();
    let member = &world.nodes[2].members[&room];
    let past = &member.fence.as_ref().unwrap().1;
    let mut all: Vec<String> = past.iter().map(|payload| String::from_utf8_lossy(payload).into_owned()).collect();
    assert_eq!(all.len(), 120);
    all.extend(world.live(2, &room));
    assert_eq!(all, texts(260 - u32::try_from(all.len()).unwrap()..260));
}

#[test]
fn a_broken_link_costs_no_message() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    for n in 0..100 {
        world.publish(0, &room, &n.to_string());
        if n == 50 {
            world.perform(0);
            world.cut(0, 1);
        }
        if n == 80 {
            world.connect(0, 1);
        }
    }
    world.pass(Duration::from_secs(1));
    world.check();
    assert_eq!(world.live(1, &room), texts(0..100));
}

#[test]
fn a_publish_that_is_resent_is_stamped_once() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    let token = world.publish(1, &room, "once");
    world.perform(1);
    world.carry((1, 0));
    world.perform(0);
    // The owner stamped it; its answer is lost with the link.
    world.cut(0, 1);
    world.connect(0, 1);
    world.settle();
    assert!(matches!(world.published(1, token), Some(Ok(_))));
    assert_eq!(world.live(0, &room), ["once"]);
    assert_eq!(world.nodes[0].slots.take_released_for_peers(), 1, "a repeat was counted");
}

#[test]
fn a_publish_to_an_owner_out_of_reach_is_refused_after_patience() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.cut(0, 1);
    let token = world.publish(1, &room, "x");
    world.pass(Duration::from_millis(4_900));
    assert_eq!(world.published(1, token), None);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.published(1, token), Some(Err(Refusal::Overloaded { .. }))));
}

#[test]
fn frames_dropped_for_a_full_lane_are_fetched_again() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    world.publish(0, &room, "0");
    world.settle();
    world.nodes[1].refuses = 1;
    world.publish(0, &room, "1");
    world.settle();
    world.publish(0, &room, "2");
    world.pass(Duration::from_secs(2));
    world.check();
    assert_eq!(world.live(1, &room), texts(0..3));
}

/// Three nodes with members on all; the owner of the room is `owner`. Every copy is made.
fn three(owner: u16) -> (World, RoomKey) {
    let (mut world, room) = (World::new(3), room_of(owner, 3));
    for node in 0..3 {
        world.join(node, &room, Want::Nothing);
    }
    world.settle();
    world.publish(0, &room, "before");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.nodes[usize::from(owner)].slots.census().single_copy, 0);
    (world, room)
}

fn gaps(world: &World, node: u16, room: &RoomKey) -> usize {
    world.nodes[usize::from(node)].members[room].seen.iter().filter(|seen| matches!(seen, Seen::Gap(_))).count()
}

#[test]
fn a_dead_owner_is_followed_by_its_replica_and_nobody_is_told_of_a_gap() {
    let (mut world, room) = three(2);
    world.cut(2, 0);
    world.cut(2, 1);
    let during = world.publish(1, &room, "during");
    world.pass(Duration::from_millis(1_500));
    world.publish(1, &room, "after");
    world.settle();
    world.check();
    assert!(matches!(world.published(1, during), Some(Ok(_))), "a publish waits for the new owner");
    for node in 0..2 {
        assert_eq!(world.live(node, &room), ["before", "during", "after"]);
        assert_eq!(gaps(&world, node, &room), 0, "node {node}");
    }
    assert_eq!(world.live(2, &room), ["before"]);
}

#[test]
fn nothing_is_shown_before_the_replica_has_it() {
    let (mut world, room) = three(0);
    let token = world.publish(0, &room, "x");
    world.perform(0);
    assert_eq!(world.published(0, token), None);
    assert_eq!(world.live(0, &room), ["before"]);
    world.settle();
    assert!(matches!(world.published(0, token), Some(Ok(_))));
    for node in 0..3 {
        assert_eq!(world.live(node, &room), ["before", "x"]);
    }
}

#[test]
fn a_drained_owner_hands_over_and_the_lineage_goes_on() {
    let (mut world, room) = three(0);
    world.drain(0);
    for n in 0..40 {
        world.publish(n % 3, &room, &n.to_string());
        world.pass(Duration::from_millis(50));
    }
    world.pass(Duration::from_secs(2));
    world.check();
    assert_ne!(world.owner(&room), 0);
    for node in 0..3 {
        assert_eq!(world.live(node, &room).len(), 41);
        assert_eq!(gaps(&world, node, &room), 0, "node {node}");
    }
    let census = world.nodes[0].slots.census();
    assert_eq!((census.owned, census.replica_in_sync, census.replica_syncing), (0, 0, 0), "{census:?}");
}

#[test]
fn a_slot_goes_where_the_ring_wants_it_when_a_node_comes() {
    let (mut world, room) = (World::new(3), room_of(2, 3));
    world.cut(2, 0);
    world.cut(2, 1);
    world.view(&[0, 1]);
    world.pass(Duration::from_secs(3));
    world.join(0, &room, Want::Nothing);
    for n in 0..20 {
        world.publish(1, &room, &n.to_string());
        world.pass(Duration::from_millis(50));
    }
    assert_ne!(world.owner(&room), 2);
    world.view(&[0, 1, 2]);
    world.connect(2, 0);
    world.connect(2, 1);
    for n in 20..60 {
        world.publish(1, &room, &n.to_string());
        world.pass(Duration::from_millis(50));
    }
    world.pass(Duration::from_secs(2));
    world.check();
    assert_eq!(world.owner(&room), 2);
    assert_eq!(world.live(0, &room), texts(0..60));
    assert_eq!(gaps(&world, 0, &room), 0);
    let history = world.history(1, &room, Want::Page { limit: 100, since: None, reverse: false });
    assert_eq!(payloads(&history), texts(0..60));
    assert_eq!(world.nodes[2].slots.census().single_copy, 0);
}

#[test]
fn what_both_sides_of_a_cut_stamped_is_in_one_history_after_the_heal() {
    let (mut world, room) = three(0);
    world.cut(0, 1);
    world.cut(0, 2);
    for node in 0..3 {
        world.view_of(node, if node == 0 { &[0] } else { &[1, 2] });
    }
    for n in 0..200 {
        world.publish(n % 3, &room, &format!("{}-{n}", n % 3));
        world.pass(Duration::from_millis(50));
    }
    for node in 0..3 {
        world.view_of(node, &[0, 1, 2]);
    }
    world.connect(0, 1);
    world.connect(0, 2);
    world.pass(Duration::from_secs(8));
    world.check();
    let owner = u16::try_from(world.owner(&room)).unwrap();
    let history = world.history(owner, &room, Want::Page { limit: 1_000, since: None, reverse: false });
    let mut held = payloads(&history);
    let count = held.len();
    held.sort();
    held.dedup();
    assert_eq!(held.len(), count, "something twice");
    let acked: Vec<String> = (0..3).flat_map(|node| world.acked(node)).collect();
    assert!(acked.len() > 150, "{}", acked.len());
    let missing: Vec<&String> = acked.iter().filter(|text| !held.contains(text)).collect();
    assert!(missing.is_empty(), "{missing:?} of {}", acked.len());
    assert_eq!((gaps(&world, 1, &room), gaps(&world, 2, &room)), (0, 0), "the majority keeps its epoch");
    assert!(gaps(&world, 0, &room) > 0);
}

#[test]
fn a_repeated_id_gets_the_first_answer_and_delivers_nothing() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    let first = world.publish_with(1, &room, "a", 0, "id");
    world.settle();
    let again = world.publish_with(0, &room, "b", 0, "id");
    world.settle();
    assert_eq!(world.published(1, first), world.published(0, again));
    assert_eq!(world.live(0, &room), ["a"]);
    world.pass(Duration::from_secs(121));
    world.publish_with(0, &room, "c", 0, "id");
    world.settle();
    assert_eq!(world.live(0, &room), ["a", "c"]);
}

#[test]
fn a_volatile_message_has_no_offset_and_is_in_no_history() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    let token = world.publish_with(0, &room, "v", FLAG_VOLATILE, "");
    world.settle();
    assert!(matches!(world.published(0, token), Some(Ok(Stamp { n: 0, .. }))));
    assert_eq!(world.live(1, &room), ["v"]);
    assert!(world.history(1, &room, Want::Page { limit: 10, since: None, reverse: false }).frames.is_empty());
}

#[test]
fn a_clean_stop_keeps_lineage_offsets_and_proof_of_completeness() {
    let (mut world, room) = (World::new(1), RoomKey::new("/", "a"));
    world.join(0, &room, Want::Nothing);
    world.settle();
    let tokens: Vec<u64> = (0..3).map(|n| world.publish(0, &room, &n.to_string())).collect();
    world.settle();
    let stamps: Vec<Stamp> = tokens.iter().map(|token| world.published(0, *token).unwrap().unwrap()).collect();
    let resume = world.nodes[0].slots.to_resume();
    let resume = resume.into_iter().map(|(slot, resume)| (slot, Resume::decode(resume.encode()).unwrap())).collect();
    let store = std::mem::take(&mut world.nodes[0].store);
    world.nodes[0] = Node { store, ..Node::new(0, Limits::default(), resume) };
    let token = world.publish(0, &room, "3");
    world.settle();
    let next = world.published(0, token).unwrap().unwrap();
    assert_eq!((next.lineage, next.n), (stamps[0].lineage, stamps[2].n + 1));
    let since = Want::Since { after: stamps[0].n, lineage: Some(stamps[0].lineage) };
    let joined = world.join(0, &room, since);
    world.settle();
    let Some(Answer::Joined(Ok(history))) = world.nodes[0].answers.remove(&joined) else { panic!("not joined") };
    assert_eq!((history.recovered, payloads(&history)), (Some(true), texts(1..4)));
}

#[test]
fn what_cannot_be_proved_complete_is_not_called_recovered() {
    let (mut world, room) = (World::new(1), RoomKey::new("/", "a"));
    world.nodes[0] = Node::new(0, Limits { history_size: 5, log_items: 3, ..Limits::default() }, BTreeMap::new());
    let first = world.publish(0, &room, "0");
    world.settle();
    let stamp = world.published(0, first).unwrap().unwrap();
    for n in 1..6 {
        world.publish(0, &room, &n.to_string());
    }
    let mut ask = |after, lineage| {
        let token = world.join(0, &room, Want::Since { after, lineage });
        world.settle();
        match world.nodes[0].answers.remove(&token) {
            Some(Answer::Joined(Ok(history))) => (history.recovered, payloads(&history)),
            other => panic!("not joined: {other:?}"),
        }
    };
    assert_eq!(ask(stamp.n, Some(stamp.lineage)), (Some(true), texts(1..6)));
    assert_eq!(ask(0, Some(stamp.lineage)), (Some(false), texts(1..6)), "six messages, five retained");
    assert_eq!(ask(stamp.n, Some(stamp.lineage + 1)), (Some(false), texts(1..6)), "another lineage");
    assert_eq!(ask(stamp.n, None), (Some(false), texts(1..6)), "an epoch nobody gave out");
    assert_eq!(ask(999, Some(stamp.lineage)), (Some(true), vec![]), "a position ahead of the room misses nothing");
}

#[test]
fn history_past_its_age_is_not_shown_and_counts_as_missing() {
    let (mut world, room) = (World::new(1), RoomKey::new("/", "a"));
    let first = world.publish(0, &room, "old");
    world.publish(0, &room, "older than the window");
    world.settle();
    let stamp = world.published(0, first).unwrap().unwrap();
    world.pass(Duration::from_secs(640));
    world.publish(0, &room, "new");
    let page = Want::Page { limit: 10, since: Some((stamp.n, Some(stamp.lineage))), reverse: false };
    let history = world.history(0, &room, page);
    assert_eq!((payloads(&history), history.gap), (vec!["new".to_owned()], true));
}

#[test]
fn a_join_while_the_link_is_broken_waits_for_the_owner() {
    let (mut world, room) = (World::new(3), room_of(0, 3));
    let watches = world.nodes[0].slots.table.as_ref().unwrap().triple(room.slot())[2].unwrap().0;
    world.join(watches, &room, Want::Nothing);
    world.settle();
    world.cut(0, watches);
    world.publish(0, &room, "unseen");
    let token = world.join(watches, &room, Want::Last(10));
    world.settle();
    let at = usize::from(watches);
    assert!(!world.nodes[at].answers.contains_key(&token), "answered from a copy that is known to be stale");
    world.connect(0, watches);
    world.pass(Duration::from_millis(500));
    let Some(Answer::Joined(Ok(history))) = world.nodes[at].answers.remove(&token) else { panic!("not joined") };
    assert_eq!(payloads(&history), ["unseen"]);
}

#[test]
fn a_peer_that_comes_back_without_members_receives_no_frame() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    world.cut(0, 1);
    world.nodes[1] = Node::new(1, Limits::default(), BTreeMap::new());
    world.view(&[0, 1]);
    world.connect(0, 1);
    world.publish(0, &room, "x");
    world.settle();
    assert_eq!(world.nodes[1].received_frames, 0);
}

#[test]
fn a_frame_that_does_not_follow_the_last_is_not_shown_before_what_is_missing() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    for n in 0..3 {
        world.publish(0, &room, &n.to_string());
        world.perform(0);
        if n == 1 {
            // No link loses a single frame; should it ever happen, it must be seen by `prev`.
            world.wires.get_mut(&(0, 1)).unwrap().pop_back();
        }
    }
    world.pass(Duration::from_millis(500));
    world.check();
    assert_eq!(world.live(1, &room), texts(0..3));
}

#[test]
fn a_frame_that_comes_twice_is_shown_once() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    world.settle();
    world.publish(0, &room, "0");
    world.perform(0);
    let wire = world.wires.get_mut(&(0, 1)).unwrap();
    let frame = wire.back().unwrap().clone();
    wire.push_back(frame);
    world.publish(0, &room, "1");
    world.settle();
    world.check();
    assert_eq!(world.live(1, &room), texts(0..2));
}

#[test]
fn an_owner_that_cannot_keep_a_message_refuses_it_whoever_publishes() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(1, &room, Want::Nothing);
    let kept = world.publish_with(1, &room, "kept", 0, "id");
    world.settle();
    let stamp = world.published(1, kept);
    world.nodes[0].slots.set_storage(false);
    let tokens = [world.publish(0, &room, "local"), world.publish(1, &room, "remote")];
    let passing = world.publish_with(1, &room, "volatile", FLAG_VOLATILE, "");
    let again = world.publish_with(1, &room, "repeat", 0, "id");
    world.settle();
    assert_eq!(world.published(0, tokens[0]), Some(Err(Refusal::StorageFull)));
    assert_eq!(world.published(1, tokens[1]), Some(Err(Refusal::StorageFull)));
    assert!(matches!(world.published(1, passing), Some(Ok(_))), "nothing has to be kept of it");
    assert_eq!(world.published(1, again), stamp, "it is kept already");
    world.nodes[0].slots.set_storage(true);
    world.publish(1, &room, "after");
    world.settle();
    assert_eq!(world.live(1, &room), ["kept", "volatile", "after"]);
}

#[test]
fn what_was_refused_is_not_stamped_when_it_is_sent_again() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    world.nodes[0].slots.set_storage(false);
    let token = world.publish(1, &room, "x");
    world.perform(1);
    world.carry((1, 0));
    world.perform(0);
    // The refusal is lost with the link; meanwhile there is room again.
    world.cut(0, 1);
    world.nodes[0].slots.set_storage(true);
    world.connect(0, 1);
    world.settle();
    assert_eq!(world.published(1, token), Some(Err(Refusal::StorageFull)));
    assert_eq!(world.live(0, &room), Vec::<String>::new());
}

#[test]
fn rooms_stay_provable_after_a_clean_restart_for_as_long_as_their_history() {
    let (mut world, room) = (World::new(1), RoomKey::new("/", "a"));
    let mut of_slot = (0..200_000).map(|name| RoomKey::new("/", &format!("b{name}")));
    let mut twin = || of_slot.find(|twin| twin.slot() == room.slot()).unwrap();
    let tokens = [world.publish(0, &room, "0"), world.publish(0, &room, "1")];
    world.publish(0, &twin(), "later");
    world.settle();
    let first = world.published(0, tokens[0]).unwrap().unwrap();
    let resume = world.nodes[0].slots.to_resume();
    let store = std::mem::take(&mut world.nodes[0].store);
    world.nodes[0] = Node { store, ..Node::new(0, Limits::default(), resume) };
    // Another room of the same slot opens it.
    world.publish(0, &twin(), "elsewhere");
    world.pass(Duration::from_secs(40));
    let since = Want::Since { after: first.n, lineage: Some(first.lineage) };
    let joined = world.join(0, &room, since);
    world.settle();
    let Some(Answer::Joined(Ok(history))) = world.nodes[0].answers.remove(&joined) else { panic!("not joined") };
    assert_eq!((history.recovered, payloads(&history)), (Some(true), vec!["1".to_owned()]));
}

#[test]
fn the_room_of_a_whole_namespace_has_no_gap() {
    let mut world = World::new(2);
    let namespace = (0..100).map(|name| RoomKey::new(&format!("/{name}"), ""));
    let table = Table::build(&[NodeId(0), NodeId(1)]);
    let room = namespace.into_iter().find(|room| table.owner(room.slot()) == Some(NodeId(1))).unwrap();
    world.join(0, &room, Want::Nothing);
    world.settle();
    world.cut(0, 1);
    world.view(&[0]);
    world.pass(Duration::from_secs(1));
    world.publish_with(0, &room, "to all", FLAG_VOLATILE, "");
    world.settle();
    assert_eq!(world.live(0, &room), ["to all"]);
    assert!(!world.nodes[0].members[&room].seen.iter().any(|seen| matches!(seen, Seen::Gap(_))));
}

#[test]
fn nothing_overtakes_a_publish_that_found_the_lane_full() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    world.publish(1, &room, "0");
    world.settle();
    world.nodes[0].refuses = 1;
    // The first is refused; the second was handed over with it, the third comes when that is known.
    let mut tokens = vec![world.publish(1, &room, "1"), world.publish(1, &room, "2")];
    world.settle();
    tokens.push(world.publish(1, &room, "3"));
    world.settle();
    assert_eq!(world.nodes[0].received_frames, 2, "what follows a refused frame is not even sent");
    world.pass(Duration::from_secs(1));
    assert_eq!(world.live(0, &room), texts(0..4));
    for token in tokens {
        assert!(matches!(world.published(1, token), Some(Ok(_))));
    }
}

#[test]
fn a_publish_given_up_does_not_stop_the_ones_after_it() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    world.nodes[0].refuses = usize::MAX;
    let lost = world.publish(1, &room, "lost");
    world.pass(Duration::from_millis(4_600));
    let late = world.publish(1, &room, "late");
    world.pass(Duration::from_millis(600));
    assert_eq!(world.published(1, lost), Some(Err(Refusal::Timeout)));
    world.nodes[0].refuses = 0;
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.published(1, late), Some(Ok(_))));
    assert_eq!(world.live(0, &room), ["late"]);
}

#[test]
fn whatever_was_sent_before_the_link_broke_gets_its_answer_after_it() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    let tokens: Vec<u64> = (0..3_000).map(|n| world.publish(1, &room, &n.to_string())).collect();
    world.perform(1);
    while world.carry((1, 0)) {}
    world.perform(0);
    // All answers are lost.
    world.cut(0, 1);
    world.connect(0, 1);
    world.pass(Duration::from_secs(6));
    let mut answers: Vec<_> = tokens.iter().map(|token| world.published(1, *token).unwrap()).collect();
    let refused = answers.split_off(answers.iter().position(Result::is_err).unwrap());
    assert_eq!(world.live(0, &room), texts(0..u32::try_from(answers.len()).unwrap()));
    assert!(answers.len() >= 1_000 && refused.iter().all(|why| matches!(why, Err(Refusal::Overloaded { .. }))));
}

#[test]
fn a_publish_that_was_sent_and_never_answered_may_have_had_an_effect() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    let token = world.publish(1, &room, "x");
    world.perform(1);
    world.carry((1, 0));
    world.cut(0, 1);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.published(1, token), Some(Err(Refusal::Timeout)));
}

/// The frames a node sends now, to whomever, without those that only say that it lives.
fn sends(node: &mut Node) -> Vec<Bytes> {
    let outputs = std::iter::from_fn(|| node.slots.poll_output());
    let frames = outputs.filter_map(|output| if let Output::Send { frame, .. } = output { Some(frame) } else { None });
    frames.filter(|frame| *frame != Control::Beat.encode()).collect()
}

#[test]
fn what_is_unanswered_is_sent_again_after_a_second_and_not_with_every_tick() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.settle();
    world.publish(1, &room, "x");
    world.join(1, &room, Want::Nothing);
    let (now, now_ms) = (world.now, world.now_ms);
    let node = &mut world.nodes[1];
    let first = sends(node);
    assert_eq!(first.len(), 2);
    let mut sent_again = Vec::new();
    for tick in 1..=9 {
        let passed = tick * 250;
        node.slots.handle_timeout(now + Duration::from_millis(passed), now_ms + passed);
        sent_again.push(sends(node).len());
    }
    assert_eq!(sent_again, [0, 0, 0, 2, 0, 0, 0, 2, 0]);
}

#[test]
fn a_full_lane_is_told_of_in_that_lane_alone_and_concerns_its_slots_alone() {
    let mut world = World::new(2);
    let rooms: Vec<RoomKey> = (0..40).map(|name| RoomKey::new("/", &name.to_string())).collect();
    for room in &rooms {
        world.join(1, room, Want::Nothing);
    }
    world.settle();
    let table = Table::build(&[NodeId(0), NodeId(1)]);
    let owned = |lane: Option<u8>| {
        let of_lane = rooms.iter().filter(|room| lane.is_none_or(|lane| lane_of(room.slot()) == lane));
        of_lane.filter(|room| table.owner(room.slot()) == Some(NodeId(0))).count()
    };
    let (now, now_ms) = (world.now + Duration::from_secs(2), world.now_ms + 2_000);
    let before = world.now;
    world.nodes[0].slots.handle_send_failed(NodeId(1), 2, before);
    world.nodes[0].slots.handle_timeout(now, now_ms);
    let told = sends(&mut world.nodes[0]);
    assert_eq!(told, [Control::Resync { shard: 0, of: 1, lane: 2 }.encode()]);
    world.nodes[1].slots.handle_frame(NodeId(0), &told[0], now, now_ms).unwrap();
    let asked = sends(&mut world.nodes[1]).len();
    assert!(asked == owned(Some(2)) && asked < owned(None), "{asked} rooms were asked for again");
}

#[test]
fn all_that_waits_for_a_lane_goes_out_with_the_next_retry() {
    let (mut world, room) = (World::new(2), room_of(0, 2));
    world.join(0, &room, Want::Nothing);
    world.nodes[0].refuses = usize::MAX;
    for n in 0..50 {
        world.publish(1, &room, &n.to_string());
    }
    world.settle();
    world.nodes[0].refuses = 0;
    world.pass(Duration::from_millis(300));
    assert_eq!(world.live(0, &room), texts(0..50));
}
