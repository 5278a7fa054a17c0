//! `room:history` page by page, where one answer cannot hold everything.

use super::*;
use crate::{slot::history::Reply, wire::request::Request};

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn payloads(history: &History) -> Vec<String> {
    history.frames.iter().map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
}

/// A world where node 0 owns the room, keeps next to nothing in memory, and reads at most `page_max` frames at a time.
fn world_with(limits: Limits, page_max: usize) -> (World, RoomKey) {
    let mut world = World::new(2);
    world.cut(0, 1);
    world.nodes[0] = Node { page_max, ..Node::new(0, limits, BTreeMap::new()) };
    world.view(&[0, 1]);
    world.connect(0, 1);
    world.settle();
    (world, room_of(0, 2))
}

fn little_memory() -> Limits {
    Limits { log_items: 2, ..Limits::default() }
}

fn publish_all(world: &mut World, room: &RoomKey, range: std::ops::Range<u32>) -> Vec<Stamp> {
    let tokens: Vec<u64> = range.map(|n| world.publish(0, room, &n.to_string())).collect();
    world.settle();
    tokens.into_iter().map(|token| world.published(0, token).unwrap().unwrap()).collect()
}

/// Everything a client of `node` sees that reads on until nothing is further, and whether it was told of a gap.
fn read_through(
    world: &mut World,
    node: u16,
    room: &RoomKey,
    start: Option<Stamp>,
    reverse: bool,
) -> (Vec<String>, bool) {
    let (mut seen, mut gap) = (Vec::new(), false);
    let mut since = start.map(|stamp| (stamp.n, Some(stamp.lineage)));
    for _ in 0..100 {
        let history = world.history(node, room, Want::Page { limit: 5, since, reverse });
        assert!(!history.frames.is_empty(), "a page promised more than there was");
        seen.extend(payloads(&history));
        gap |= history.gap;
        if history.complete {
            return (seen, gap);
        }
        since = history.frames.last().map(|frame| (frame.n, Some(history.lineage)));
    }
    panic!("paging does not end: {seen:?}");
}

#[test]
fn pages_lead_from_a_position_to_the_present_whatever_one_answer_holds() {
    let (mut world, room) = world_with(little_memory(), 3);
    let stamps = publish_all(&mut world, &room, 0..23);
    for node in 0..2 {
        assert_eq!(read_through(&mut world, node, &room, Some(stamps[0]), false), (texts(1..23), false));
    }
    world.join(1, &room, Want::Nothing);
    world.settle();
    assert_eq!(read_through(&mut world, 1, &room, Some(stamps[4]), false), (texts(5..23), false), "as a member");
}

#[test]
fn pages_lead_backwards_from_the_present_to_the_first_message() {
    for page_max in [3, usize::MAX] {
        let (mut world, room) = world_with(little_memory(), page_max);
        publish_all(&mut world, &room, 0..23);
        for node in 0..2 {
            let (mut seen, gap) = read_through(&mut world, node, &room, None, true);
            seen.reverse();
            assert_eq!((seen, gap), (texts(0..23), false));
        }
    }
}

#[test]
fn memory_alone_pages_as_the_store_does() {
    let (mut world, room) = world_with(Limits::default(), 0);
    let stamps = publish_all(&mut world, &room, 0..23);
    assert_eq!(read_through(&mut world, 0, &room, Some(stamps[0]), false), (texts(1..23), false));
    let (mut seen, _) = read_through(&mut world, 0, &room, None, true);
    seen.reverse();
    assert_eq!(seen, texts(0..23));
}

#[test]
fn a_page_begins_where_what_is_too_old_ends() {
    let (mut world, room) = world_with(Limits { history_ttl: Duration::from_secs(60), ..little_memory() }, 3);
    let stamps = publish_all(&mut world, &room, 0..20);
    world.pass(Duration::from_secs(70));
    publish_all(&mut world, &room, 20..27);
    for node in 0..2 {
        assert_eq!(read_through(&mut world, node, &room, Some(stamps[0]), false), (texts(20..27), true));
        let (mut seen, gap) = read_through(&mut world, node, &room, None, true);
        seen.reverse();
        assert_eq!((seen, gap), (texts(20..27), false));
    }
}

#[test]
fn a_page_shows_no_more_than_the_count_of_retention_where_memory_knows_it() {
    let (mut world, room) = world_with(Limits { history_size: 7, ..Limits::default() }, 3);
    let stamps = publish_all(&mut world, &room, 0..20);
    for node in 0..2 {
        assert_eq!(read_through(&mut world, node, &room, Some(stamps[0]), false), (texts(13..20), true));
        let (seen, _) = read_through(&mut world, node, &room, None, true);
        assert_eq!(seen.len(), 7);
    }
}

#[test]
fn a_position_of_another_epoch_is_a_gap_and_bounds_nothing() {
    let (mut world, room) = world_with(little_memory(), usize::MAX);
    let stamps = publish_all(&mut world, &room, 0..4);
    let since = Some((stamps[2].n, Some(stamps[2].lineage + 1)));
    for reverse in [false, true] {
        let mut history = world.history(1, &room, Want::Page { limit: 10, since, reverse });
        if reverse {
            history.frames.reverse();
        }
        assert_eq!((payloads(&history), history.gap, history.complete), (texts(0..4), true, true));
    }
}

#[test]
fn the_cursor_of_an_answer_is_not_ahead_of_its_items() {
    let (mut world, room) = world_with(little_memory(), usize::MAX);
    publish_all(&mut world, &room, 0..4);
    let range = (0, u64::MAX, 0, 10);
    let (after, upto, of, count) = range;
    let request = Request::History { room: room.as_bytes(), after, upto, of, count, newest: true }.encode();
    let now_ms = world.now_ms;
    world.nodes[0].slots.handle_history_request(7, &request);
    let Some(Output::Read { read, upto, .. }) = world.nodes[0].slots.poll_output() else { panic!("nothing is read") };
    // While the store reads, the room goes on.
    let found = Found { frames: world.nodes[0].store.iter().filter(|f| f.n <= upto).cloned().collect(), more: false };
    publish_all(&mut world, &room, 4..5);
    world.nodes[0].slots.handle_read(read, Some(found), now_ms);
    let Some(Output::Respond { request: 7, body }) = world.nodes[0].slots.poll_output() else { panic!("no answer") };
    let Ok(Reply::Found(facts, found)) = Reply::decode(body) else { panic!("no history") };
    assert_eq!(found.frames.last().map(|frame| frame.n), Some(facts.head));
    assert_eq!(facts.last, facts.head);
}

/// Rooms that begin with "short" keep three frames for a minute, those with "none" nothing, all others what everybody keeps.
#[derive(Debug)]
struct ByName;

impl Retention for ByName {
    fn keep(&self, room: &RoomKey) -> Keep {
        let (size, seconds) = match room.room() {
            name if name.starts_with("short") => (3, 60),
            name if name.starts_with("none") => (0, 600),
            _ => (1_000, 600),
        };
        Keep { size, ttl: Duration::from_secs(seconds) }
    }
}

#[test]
fn rooms_may_keep_more_or_less_than_others() {
    let limits = Limits { retention: Some(Arc::new(ByName)), ..little_memory() };
    let mut world = World::new(1);
    world.nodes[0] = Node::new(0, limits, BTreeMap::new());
    world.view(&[0]);
    let rooms = ["short", "none", "long"].map(|name| RoomKey::new("/", name));
    for room in &rooms {
        for n in 0..10 {
            world.publish(0, room, &n.to_string());
        }
    }
    world.settle();
    let page = Want::Page { limit: 100, since: None, reverse: false };
    let shown = |world: &mut World| rooms.each_ref().map(|room| world.history(0, room, page).frames.len());
    assert_eq!(shown(&mut world), [3, 0, 10]);
    assert!(world.nodes[0].store.iter().all(|frame| frame.room != rooms[1]), "nothing of it reaches the store");
    world.pass(Duration::from_secs(70));
    assert_eq!(shown(&mut world), [0, 0, 10], "after a minute");
}

#[test]
fn whoever_was_acked_elsewhere_finds_the_message_on_every_node_that_reaches_the_owner() {
    let (mut world, room) = (World::new(3), room_of(0, 3));
    let [_, replica, watches] = Table::build(&[0, 1, 2].map(NodeId)).triple(room.slot()).map(|node| node.unwrap().0);
    world.join(watches, &room, Want::Nothing);
    world.settle();
    publish_all(&mut world, &room, 0..2);
    let token = world.publish(0, &room, "2");
    world.perform(0);
    world.carry((0, replica));
    world.perform(replica);
    world.carry((replica, 0));
    world.perform(0);
    assert!(matches!(world.published(0, token), Some(Ok(_))), "acked, and still on its way to the third node");
    // Its memory has as many as are asked for, but not the newest.
    let page = Want::Page { limit: 2, since: None, reverse: false };
    assert_eq!(payloads(&world.history(watches, &room, page)), texts(1..3));
}
