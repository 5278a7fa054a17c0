//! The schedule and the books of publishers, without a socket.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn spec(publishers: u16, worker: u32, workers: u32) -> Spec {
    Spec { worker, workers, publishers, ..crate::worker::tests::spec() }
}

fn phase(pace: Pace, seconds: u64) -> Phase {
    Phase { run: 1, pace, duration_ns: seconds * SECOND }
}

fn open(publishers: u16, per_second: f64) -> Publishing {
    let mut publishing = Publishing::new(&spec(publishers, 0, 1), phase(Pace::Open { per_second }, 2), true, |_| 3);
    publishing.start(0);
    publishing
}

/// One publisher, three members.
fn closed(outstanding: u32, answered: bool) -> Publishing {
    let mut publishing = Publishing::new(&spec(1, 0, 1), phase(Pace::Closed { outstanding }, 10), answered, |_| 3);
    publishing.start(0);
    publishing
}

fn due(publishing: &mut Publishing, now_ns: u64) -> Vec<(u16, u32, u64)> {
    let publications = std::iter::from_fn(|| publishing.poll_publish(now_ns));
    publications.map(|it| (it.publisher, it.seq, it.intended_ns)).collect()
}

fn yes(offset: u64) -> Answer {
    Answer { epoch: Some("e".to_owned()), offset: Some(offset), ..Answer::default() }
}

fn no() -> Answer {
    Answer { refusal: Some("overloaded".to_owned()), ..Answer::default() }
}

#[test]
fn publishers_take_turns_on_one_schedule() {
    let mut publishing = open(2, 4.0);
    assert_eq!(due(&mut publishing, 0), [(0, 0, 0)]);
    assert_eq!(publishing.next_due(), SECOND / 4);
    assert_eq!(due(&mut publishing, SECOND / 2), [(1, 0, SECOND / 4), (0, 1, SECOND / 2)]);
}

#[test]
fn a_late_generator_catches_up_and_its_lateness_is_slip_and_not_a_gap() {
    let mut publishing = open(1, 10.0);
    let sent = due(&mut publishing, SECOND);
    assert_eq!(sent.len(), 11);
    assert_eq!(sent[10], (0, 10, SECOND));
    let slip = publishing.finish(0, 0, SECOND).slip;
    assert_eq!(slip.count(), 11);
    assert!((slip.max_ms() - 1000.0).abs() < 1.0, "{}", slip.max_ms());
}

#[test]
fn workers_share_one_schedule_without_gap_or_overlap() {
    let mut all = Vec::new();
    for worker in 0..3 {
        let pace = Pace::Open { per_second: 20.0 };
        let mut publishing = Publishing::new(&spec(4, worker, 3), phase(pace, 2), true, |_| 0);
        publishing.start(0);
        all.extend(due(&mut publishing, 10 * SECOND).into_iter().map(|(_, _, intended_ns)| intended_ns));
    }
    all.sort_unstable();
    let expected: Vec<u64> = (0..40).map(|message| message * SECOND / 20).collect();
    assert_eq!(all, expected);
}

#[test]
fn nothing_is_due_before_the_start_or_at_the_end() {
    let mut publishing = Publishing::new(&spec(1, 0, 1), phase(Pace::Open { per_second: 1.0 }, 2), true, |_| 0);
    assert_eq!(publishing.next_due(), u64::MAX);
    publishing.start(SECOND);
    assert_eq!(due(&mut publishing, SECOND - 1), []);
    assert_eq!(due(&mut publishing, 9 * SECOND).len(), 2);
    assert_eq!(publishing.next_due(), u64::MAX);
}

#[test]
fn halting_ends_the_schedule_at_once() {
    let mut publishing = open(1, 10.0);
    due(&mut publishing, 0);
    publishing.halt(SECOND / 20);
    assert_eq!(due(&mut publishing, SECOND), []);
    publishing.handle_answer(0, 0, yes(1), SECOND / 10);
    assert!(publishing.is_finished(SECOND / 10));
}

#[test]
fn a_closed_loop_waits_for_the_answer_and_for_every_member() {
    let mut publishing = closed(2, true);
    assert_eq!(due(&mut publishing, 5), [(0, 0, 5), (0, 1, 5)]);
    publishing.handle_answer(0, 0, yes(1), 6);
    (0..2).for_each(|_| publishing.handle_delivery(0, 0));
    assert_eq!(due(&mut publishing, 7), [], "one member is missing");
    publishing.handle_delivery(0, 0);
    assert_eq!(due(&mut publishing, 8), [(0, 2, 8)]);
    (0..3).for_each(|_| publishing.handle_delivery(0, 1));
    assert_eq!(due(&mut publishing, 9), [], "the answer is missing");
    publishing.handle_answer(0, 1, yes(2), 9);
    assert_eq!(due(&mut publishing, 10), [(0, 3, 10)]);
}

#[test]
fn without_answers_deliveries_are_enough() {
    let mut publishing = closed(1, false);
    due(&mut publishing, 1);
    (0..3).for_each(|_| publishing.handle_delivery(0, 0));
    assert_eq!(due(&mut publishing, 2), [(0, 1, 2)]);
}

#[test]
fn a_message_released_out_of_turn_makes_room_for_one_more_only() {
    let mut publishing = closed(3, false);
    assert_eq!(due(&mut publishing, 1).len(), 3);
    (0..3).for_each(|_| publishing.handle_delivery(0, 1));
    assert_eq!(due(&mut publishing, 2).len(), 1);
    (0..3).for_each(|_| publishing.handle_delivery(0, 1));
    assert_eq!(due(&mut publishing, 3), []);
}

#[test]
fn a_refused_message_makes_room_without_a_delivery() {
    let mut publishing = closed(1, true);
    due(&mut publishing, 1);
    publishing.handle_answer(0, 0, no(), 2);
    assert_eq!(due(&mut publishing, 3), [(0, 1, 3)]);
}

#[test]
fn a_publisher_without_audience_and_answers_stays_silent() {
    let pace = Pace::Closed { outstanding: 1 };
    let mut publishing = Publishing::new(&spec(1, 0, 1), phase(pace, 10), false, |_| 0);
    publishing.start(0);
    assert_eq!(due(&mut publishing, 1), []);
    assert_eq!(publishing.next_due(), u64::MAX);
}

#[test]
fn an_unsent_message_is_owed_to_nobody_and_sends_no_other_in_its_place() {
    for answered in [true, false] {
        let mut publishing = closed(2, answered);
        let unsent = publishing.poll_publish(1).unwrap();
        let sent = publishing.poll_publish(1).unwrap();
        publishing.handle_unsent(&unsent);
        assert_eq!(due(&mut publishing, 2), []);
        publishing.handle_answer(0, u64::from(sent.seq), yes(1), 2);
        (0..3).for_each(|_| publishing.handle_delivery(0, sent.seq));
        assert_eq!(due(&mut publishing, 3).len(), 1);
        let published = publishing.finish(0, 0, 3);
        assert!(published.accounts[0].refused.contains(&unsent.seq));
        assert!(!published.accounts[0].refused.contains(&sent.seq));
    }
}

#[test]
fn a_lost_message_stalls_a_closed_loop_only_for_a_while() {
    let mut publishing = closed(1, true);
    due(&mut publishing, 0);
    publishing.handle_answer(0, 0, yes(1), 1);
    publishing.handle_timeout(STALL_NS - 1);
    assert_eq!(due(&mut publishing, STALL_NS), []);
    publishing.handle_timeout(STALL_NS);
    assert_eq!(due(&mut publishing, STALL_NS), [(0, 1, STALL_NS)]);
    let published = publishing.finish(0, 0, STALL_NS);
    assert_eq!((published.stalls, published.unanswered), (1, 1), "the second one has no answer");
}

#[test]
fn members_are_not_owed_what_was_refused_or_never_answered() {
    let mut publishing = open(1, 10.0);
    due(&mut publishing, SECOND);
    publishing.handle_answer(0, 3, no(), SECOND);
    for seq in (0..11).filter(|seq| ![3, 7].contains(seq)) {
        publishing.handle_answer(0, seq, yes(seq + 1), SECOND);
    }
    due(&mut publishing, 2 * SECOND);
    assert!(!publishing.is_finished(2 * SECOND));
    assert!(publishing.is_finished(2 * SECOND + ANSWER_PATIENCE_NS));
    let published = publishing.finish(0, 0, 3 * SECOND);
    let [account] = published.accounts.as_slice() else { panic!("one publisher") };
    assert_eq!(account.sent, 20);
    assert_eq!(account.refused, [3, 7, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    assert_eq!((published.unanswered, published.codes["overloaded"]), (10, 1));
    assert_eq!(published.publish.count(), 10);
}

#[test]
fn offsets_must_rise_while_the_epoch_stays() {
    let mut publishing = open(1, 10.0);
    due(&mut publishing, SECOND);
    for (seq, offset) in [(0, 5), (1, 9), (2, 9), (3, 4), (4, 10)] {
        publishing.handle_answer(0, seq, yes(offset), SECOND);
    }
    publishing.handle_answer(
        0,
        5,
        Answer { epoch: Some("f".to_owned()), offset: Some(1), ..Answer::default() },
        SECOND,
    );
    let published = publishing.finish(0, 0, SECOND);
    assert_eq!((published.offsets_back, published.epochs_changed), (2, 1));
}

#[test]
fn an_answer_counts_once_and_one_to_nothing_counts_never() {
    let mut publishing = open(1, 10.0);
    due(&mut publishing, 0);
    publishing.handle_answer(0, 0, yes(1), 1);
    publishing.handle_answer(0, 0, yes(1), 2);
    publishing.handle_answer(0, 77, no(), 3);
    publishing.handle_answer(5, 0, no(), 3);
    publishing.handle_answer(0, u64::MAX, no(), 3);
    let published = publishing.finish(0, 0, 4);
    assert_eq!((published.publish.count(), published.offsets_back, published.codes.len()), (1, 0, 0));
}
