//! What counts as received, by whom, and how long it took.

use super::*;
use crate::worker::tests::spec;

const RUN: u32 = 9;
const SEAT: Seat = Seat { room: 0, target: 0 };

struct Member {
    spec: Spec,
    seat: Seat,
    tracker: Tracker,
    receiving: Receiving,
}

impl Member {
    fn new(spec: Spec, seat: Seat) -> Member {
        let mut tracker = Tracker::default();
        tracker.reset(spec.publishers_per_room());
        Member { spec, seat, tracker, receiving: Receiving::new(Some(RUN), true) }
    }

    /// Receives the message at 5 ms that was meant to be sent at 1 ms; whether it was new.
    fn receive(&mut self, run: u32, publisher: u16, seq: u32) -> bool {
        let mut packet = b"42[\"m\",\"".to_vec();
        Marker { run, publisher, seq, intended_ns: 1_000_000 }.put(&mut packet, 64);
        let Member { spec, seat, tracker, receiving } = self;
        receiving.handle_message(spec, *seat, tracker, &packet, 5_000_000).is_some()
    }

    fn settle(self, sent: u32, refused: &[u32]) -> Settled {
        let account = Account { publisher: 0, sent, refused: refused.to_vec() };
        self.receiving.settle(&self.spec, [(self.seat, &self.tracker)].into_iter(), &[account])
    }
}

#[test]
fn a_message_of_another_run_or_of_nobody_is_foreign_and_changes_nothing() {
    let mut member = Member::new(spec(), SEAT);
    assert!(!member.receive(RUN - 1, 0, 0));
    assert!(!member.receive(RUN, 1, 0));
    let unmarked = b"42[\"m\",\"hello\"]";
    assert!(member.receiving.handle_message(&member.spec, SEAT, &mut member.tracker, unmarked, 1).is_none());
    assert!(member.receive(RUN, 0, 0));
    let settled = member.settle(1, &[]);
    assert_eq!((settled.foreign, settled.delivered, settled.lost, settled.duplicated), (3, 1, 0, 0));
}

#[test]
fn a_message_of_another_room_is_foreign() {
    let two_rooms = Spec { rooms: 2, publishers: 4, ..spec() };
    let mut member = Member::new(two_rooms, Seat { room: 1, target: 0 });
    assert!(member.receive(RUN, 1, 0) && member.receive(RUN, 3, 0));
    assert!(!member.receive(RUN, 0, 0) && !member.receive(RUN, 2, 0));
    assert_eq!(member.settle(0, &[]).foreign, 2);
}

#[test]
fn latency_counts_from_the_intended_time_and_knows_the_way() {
    let targets = vec!["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
    let mut member = Member::new(Spec { targets, publishers: 2, ..spec() }, SEAT);
    member.receive(RUN, 0, 0);
    member.receive(RUN, 1, 0);
    member.receive(RUN, 1, 1);
    let settled = member.settle(1, &[]);
    assert_eq!((settled.local.count(), settled.remote.count()), (1, 2));
    assert!((settled.remote.max_ms() - 4.0).abs() < 0.01);
    assert_eq!(settled.slowest[&1], [4000, 4000]);
}

#[test]
fn everything_is_counted_once() {
    let mut member = Member::new(spec(), SEAT);
    for seq in [0, 2, 1, 1, 5] {
        member.receive(RUN, 0, seq);
    }
    let settled = member.settle(8, &[4, 7]);
    assert_eq!((settled.delivered, settled.duplicated, settled.reordered), (4, 1, 1));
    assert_eq!(settled.lost, 2, "3 and 6");
}

#[test]
fn between_phases_everything_is_foreign() {
    let mut member = Member::new(spec(), SEAT);
    member.receiving = Receiving::new(None, true);
    assert!(!member.receive(RUN, 0, 0));
    assert_eq!(member.receiving.delivered(), 0);
}
