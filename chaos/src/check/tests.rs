//! One fabricated run per anomaly: each check is seen to fail, and a run without a fault to pass.

use super::*;
use crate::record::{Item, Place};

const ROOM: &str = "r";

/// A run of two publishers `a` and `b` and two sessions, told step by step; every entry is a microsecond after the last.
#[derive(Default)]
struct Run {
    entries: Vec<Entry>,
    history: Vec<Item>,
}

fn place(epoch: &str, offset: u64) -> Place {
    Place { epoch: epoch.to_owned(), offset }
}

fn room() -> String {
    ROOM.to_owned()
}

impl Run {
    fn say(&mut self, who: &str, what: What) -> &mut Run {
        let t = self.entries.len() as u64;
        self.entries.push(Entry { t, who: who.to_owned(), what });
        self
    }

    fn join(&mut self, who: &str, at: Place) -> &mut Run {
        self.say(who, What::Joined { room: room(), at, since: None, recovered: None, items: Vec::new() })
    }

    fn rejoin(&mut self, who: &str, since: Place, at: Place, recovered: bool, mids: &[(&str, u64)]) -> &mut Run {
        let items = mids.iter().map(|(mid, offset)| Item { at: place(&at.epoch, *offset), mid: (*mid).to_owned() });
        let items = items.collect();
        self.say(who, What::Joined { room: room(), at, since: Some(since), recovered: Some(recovered), items })
    }

    fn publish(&mut self, mid: &str) -> &mut Run {
        self.say("p", What::Publish { room: room(), mid: mid.to_owned() })
    }

    /// Published, acked, and kept in the history.
    fn ack(&mut self, mid: &str, at: Place) -> &mut Run {
        self.keep(mid, at.clone());
        self.publish(mid).say("p", What::Acked { room: room(), mid: mid.to_owned(), at })
    }

    fn keep(&mut self, mid: &str, at: Place) -> &mut Run {
        self.history.push(Item { at, mid: mid.to_owned() });
        self
    }

    fn forget(&mut self, mid: &str) -> &mut Run {
        self.history.retain(|item| item.mid != mid);
        self
    }

    fn receive(&mut self, who: &str, mids: &[&str]) -> &mut Run {
        for mid in mids {
            self.say(who, What::Received { room: room(), mid: (*mid).to_owned() });
        }
        self
    }

    fn cut_off(&mut self, who: &str) -> &mut Run {
        self.say(who, What::Disconnected { why: "it broke".to_owned() })
    }

    fn gap(&mut self, who: &str, at: Place) -> &mut Run {
        self.say(who, What::Gap { room: room(), at })
    }

    /// The history at the end, whose room is at the given place.
    fn verdict(&mut self, at: Place, promise: &Promise) -> Verdict {
        let items = self.history.clone();
        self.say("auditor", What::History { room: room(), at, items });
        check(&self.entries, promise)
    }

    /// The anomalies of a run in which everything is promised.
    fn anomalies(&mut self, at: Place) -> Vec<Anomaly> {
        let verdict = self.verdict(at, &Promise::default());
        let mut found: Vec<Anomaly> = verdict.findings.iter().map(|finding| finding.anomaly).collect();
        found.dedup();
        found
    }
}

/// Two sessions from the start; a.1, b.1 and a.2 are acked at 10, 14 and 15.
fn start() -> Run {
    let mut run = Run::default();
    run.join("s", place("e", 7)).join("t", place("e", 7));
    run.ack("a.1", place("e", 10)).ack("b.1", place("e", 14)).ack("a.2", place("e", 15));
    run
}

#[test]
fn a_run_without_a_fault_is_clean_though_offsets_have_holes() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    let verdict = run.verdict(place("e", 15), &Promise::default());
    assert_eq!(verdict.findings, []);
    let counts = Counts { published: 3, acked: 3, deliveries: 6, ..Counts::default() };
    assert_eq!(verdict.counts, counts);
}

#[test]
fn a_session_that_comes_back_and_gets_what_it_missed_is_clean() {
    let mut run = start();
    run.receive("s", &["a.1"]).cut_off("s").receive("t", &["a.1", "b.1", "a.2"]);
    run.rejoin("s", place("e", 7), place("e", 15), true, &[("a.1", 10), ("b.1", 14), ("a.2", 15)]);
    run.ack("b.2", place("e", 16)).receive("s", &["b.2"]).receive("t", &["b.2"]);
    assert_eq!(run.anomalies(place("e", 16)), []);
}

#[test]
fn who_comes_back_may_get_again_what_it_saw_live_behind_its_position() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).cut_off("t");
    run.rejoin("t", place("e", 7), place("e", 14), true, &[("a.1", 10), ("b.1", 14)]).receive("t", &["a.2"]);
    assert_eq!(run.anomalies(place("e", 15)), []);
    run.receive("t", &["a.2"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Duplicate]);
}

#[test]
fn a_publish_that_is_repeated_with_its_id_and_gets_the_first_answer_is_clean() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    run.publish("a.2").say("p", What::Acked { room: room(), mid: "a.2".to_owned(), at: place("e", 15) });
    let verdict = run.verdict(place("e", 15), &Promise::default());
    assert_eq!((verdict.findings, verdict.counts.resent), (Vec::new(), 1));
}

#[test]
fn an_acked_message_that_no_history_has_is_lost_and_the_epoch_lies() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).forget("b.1");
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Lost, Anomaly::Epoch]);
}

#[test]
fn an_acked_message_of_an_earlier_round_must_still_be_there() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    let earlier = HashSet::from([(room(), "z.1".to_owned())]);
    let verdict = run.verdict(place("e", 15), &Promise { earlier, ..Promise::default() });
    assert_eq!((verdict.count(Anomaly::Lost), verdict.findings.len()), (1, 1));
}

#[test]
fn a_message_that_a_session_never_sees_and_none_after_it_is_lost() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Lost]);
}

#[test]
fn a_message_that_a_session_skips_is_a_gap() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "a.2"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Gap]);
}

#[test]
fn recovered_without_what_was_missed_is_a_gap() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1"]).cut_off("t");
    run.rejoin("t", place("e", 7), place("e", 16), true, &[("a.1", 10), ("a.2", 15)]);
    assert_eq!(run.anomalies(place("e", 16)), [Anomaly::Gap]);
}

#[test]
fn recovered_across_epochs_is_a_lie() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).cut_off("t");
    run.rejoin("t", place("d", 7), place("e", 15), true, &[]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Epoch]);
}

#[test]
fn a_session_that_is_told_of_a_gap_is_owed_nothing_in_between() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1"]).gap("t", place("f", 20)).gap("t", place("e", 20));
    run.ack("a.3", place("e", 21)).receive("s", &["a.3"]).receive("t", &["a.3"]);
    let split = BTreeSet::from([room()]);
    let promise = Promise { split, apart: BTreeSet::from(["t".to_owned()]), ..Promise::default() };
    let verdict = run.verdict(place("e", 21), &promise);
    assert_eq!((verdict.findings, verdict.counts.gaps_told), (Vec::new(), 2));
}

#[test]
fn an_epoch_that_changes_or_stays_against_the_promise_is_found() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    assert_eq!(run.anomalies(place("f", 20)), [Anomaly::Epoch]);
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    let promise = Promise { split: BTreeSet::from([room()]), ..Promise::default() };
    assert_eq!(
        run.verdict(place("e", 15), &promise).count(Anomaly::Epoch),
        1,
        "two sides wrote and nobody saw another epoch"
    );
}

#[test]
fn a_head_that_falls_within_its_epoch_is_a_lie() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).join("s", place("e", 30));
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Epoch]);
}

#[test]
fn a_message_that_comes_again_is_a_duplicate_live_or_after_a_history() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2", "b.1"]).receive("t", &["a.1"]).cut_off("t");
    run.rejoin("t", place("e", 7), place("e", 15), true, &[("b.1", 14), ("a.2", 15)]).receive("t", &["a.2"]);
    let verdict = run.verdict(place("e", 15), &Promise::default());
    assert_eq!((verdict.count(Anomaly::Duplicate), verdict.findings.len()), (2, 2));
}

#[test]
fn a_message_that_a_history_has_twice_is_a_duplicate() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    run.keep("b.1", place("f", 18));
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Duplicate]);
}

#[test]
fn messages_against_the_order_of_the_room_are_reordered() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["b.1", "a.1", "a.2"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Reordered]);
}

#[test]
fn messages_against_the_order_of_their_publisher_are_reordered() {
    let mut run = Run::default();
    run.join("s", place("e", 7)).ack("a.2", place("e", 10)).ack("a.1", place("e", 14)).receive("s", &["a.2", "a.1"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Reordered]);
}

#[test]
fn a_message_from_nowhere_a_damaged_one_and_a_refused_one_are_phantoms() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2", "x.1"]).receive("t", &["a.1", "b.1", "a.2", "?a.3"]);
    run.keep("y.1", place("e", 16)).publish("b.2");
    run.say("p", What::Refused { room: room(), mid: "b.2".to_owned(), code: "overloaded".to_owned() });
    run.receive("s", &["b.2"]);
    let verdict = run.verdict(place("e", 16), &Promise::default());
    assert_eq!(verdict.count(Anomaly::Phantom), 4, "{:?}", verdict.findings);
}

#[test]
fn two_messages_at_one_place_are_a_divergence() {
    let mut run = start();
    run.ack("b.2", place("e", 15)).receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    assert_eq!(run.verdict(place("e", 15), &Promise::default()).count(Anomaly::Divergence), 2);
}

#[test]
fn a_message_at_a_session_that_is_not_in_the_room_is_foreign() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).receive("u", &["a.1"]);
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Foreign]);
}

#[test]
fn a_repeat_that_gets_another_answer_is_found() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    run.publish("a.2").say("p", What::Acked { room: room(), mid: "a.2".to_owned(), at: place("f", 3) });
    assert_eq!(run.anomalies(place("e", 15)), [Anomaly::Resolution]);
}

#[test]
fn what_never_ends_is_stuck() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).cut_off("t").publish("b.2");
    run.say("test", What::Mark { what: "healed".to_owned() });
    let verdict = run.verdict(place("e", 15), &Promise::default());
    assert_eq!((verdict.count(Anomaly::Stuck), verdict.findings.len()), (3, 3), "{:?}", verdict.findings);
}

#[test]
fn nodes_that_tell_different_histories_diverge() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]);
    let items = run.history[..2].to_vec();
    run.say("another auditor", What::History { room: room(), at: place("e", 14), items });
    assert_eq!(run.verdict(place("e", 15), &Promise::default()).count(Anomaly::Divergence), 1);
}

#[test]
fn a_session_that_is_told_of_a_loss_where_nothing_may_be_lost_is_found() {
    let mut run = start();
    run.receive("s", &["a.1", "b.1", "a.2"]).receive("t", &["a.1", "b.1", "a.2"]).gap("s", place("e", 15)).cut_off("t");
    run.rejoin("t", place("e", 7), place("e", 15), false, &[("a.1", 10), ("b.1", 14), ("a.2", 15)]);
    let verdict = run.verdict(place("e", 15), &Promise::default());
    assert_eq!((verdict.count(Anomaly::Unproved), verdict.findings.len()), (2, 2), "{:?}", verdict.findings);
    let apart = BTreeSet::from(["s".to_owned(), "t".to_owned()]);
    assert_eq!(check(&run.entries, &Promise { apart, ..Promise::default() }).findings, []);
}
