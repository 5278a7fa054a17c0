//! Merging workers and judging what came out.

use super::*;
use crate::args::{Cli, Command};
use crate::wire::Account;
use clap::Parser as _;

fn settings(more: &str) -> Settings {
    let line = format!("loadtest run broadcast --target http://127.0.0.1:1 --members 4 {more}");
    let Command::Run(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else { panic!("a run") };
    args.check(20_000).unwrap()
}

fn latency(milliseconds: &[u64]) -> Latency {
    let mut latency = Latency::new();
    milliseconds.iter().for_each(|ms| latency.record_ns(ms * 1_000_000));
    latency
}

fn published() -> Published {
    Published {
        accounts: vec![Account { publisher: 0, sent: 10, refused: Vec::new() }],
        slip: latency(&[1]),
        publish: latency(&[2]),
        unanswered: 0,
        offsets_back: 0,
        epochs_changed: 0,
        stalls: 0,
        codes: BTreeMap::new(),
        cpu_ns: 500_000_000,
        window_ns: 1_000_000_000,
        delivered: 20,
    }
}

fn settled(order: u64) -> Settled {
    Settled {
        members: 2,
        delivered: 20,
        lost: 0,
        duplicated: 0,
        reordered: 0,
        foreign: 0,
        disconnects: 0,
        local: latency(&[10; 20]),
        remote: Latency::new(),
        orders: BTreeMap::from([(0, BTreeMap::from([(order, 2)]))]),
        slowest: BTreeMap::new(),
    }
}

fn step(settings: &Settings, published: &[Published], settled: &[Settled]) -> Step {
    let measured = Measured {
        members: 4,
        arrival: Arrival::default(),
        published: published.iter().collect(),
        settled: settled.iter().collect(),
        usage: (None, None, None),
        seconds: 1.0,
    };
    Step::new(settings, measured)
}

fn failed(step: &Step) -> Vec<&str> {
    step.checks.iter().filter(|check| !check.passed).map(|check| check.expectation.as_str()).collect()
}

#[test]
fn two_clean_workers_pass_and_add_up() {
    let step = step(&settings(""), &[published(), published()], &[settled(1), settled(1)]);
    assert_eq!(failed(&step), [] as [&str; 0]);
    assert_eq!((step.sent, step.delivered, step.stayed), (20, 40, 4));
    assert!((step.deliveries_per_second - 40.0).abs() < 1e-9);
    assert_eq!(step.latency.deliver.count, 40);
}

#[test]
fn every_kind_of_fault_fails_its_own_expectation() {
    type Fault = fn(&mut Published, &mut Settled);
    let faults: [(&str, Fault); 8] = [
        ("absent==0", |_, settled| settled.members = 1),
        ("disconnects==0", |_, settled| {
            settled.members = 1;
            settled.disconnects = 1;
        }),
        ("lost==0", |_, settled| settled.lost = 1),
        ("duplicated==0", |_, settled| settled.duplicated = 1),
        ("reordered==0", |_, settled| settled.reordered = 1),
        ("refused==0", |published, _| published.unanswered = 1),
        ("refused==0", |published, _| published.codes = BTreeMap::from([("overloaded".to_owned(), 1)])),
        ("offsets_back==0", |published, _| published.offsets_back = 1),
    ];
    for (expectation, fault) in faults {
        let (mut bad_published, mut bad_settled) = (published(), settled(1));
        fault(&mut bad_published, &mut bad_settled);
        let step = step(&settings(""), &[published(), bad_published], &[settled(1), bad_settled]);
        assert_eq!(failed(&step), [expectation]);
    }
}

#[test]
fn workers_whose_members_saw_another_order_are_caught() {
    let step = step(&settings(""), &[published(), published()], &[settled(1), settled(2)]);
    assert_eq!(step.orders, 2);
    assert_eq!(failed(&step), ["orders==1"]);
}

#[test]
fn the_last_member_of_a_message_may_be_in_any_worker() {
    let slow = |times: &[u32]| Settled { slowest: BTreeMap::from([(0, times.to_vec())]), ..settled(1) };
    let step = step(&settings(""), &[published()], &[slow(&[1000, 9000]), slow(&[5000, 2000, 0])]);
    assert_eq!(step.latency.last.count, 2);
    assert!((step.latency.last.max_ms - 9.0).abs() < 0.01, "{}", step.latency.last.max_ms);
    assert!((step.latency.last.p50_ms - 5.0).abs() < 0.01, "{}", step.latency.last.p50_ms);
}

#[test]
fn a_late_or_a_busy_generator_makes_a_run_invalid() {
    let late = Published { slip: latency(&[6; 100]), ..published() };
    let busy = Published { cpu_ns: 960_000_000, ..published() };
    let invalid = |more, published: &[Published]| {
        step(&settings(more), published, &[settled(1), settled(1)]).generator.invalid.len()
    };
    assert_eq!(invalid("", &[published(), published()]), 0);
    assert_eq!(invalid("", &[late.clone(), published()]), 1);
    assert_eq!(invalid("", &[published(), busy]), 1);
    assert_eq!(invalid("--outstanding 1", &[late]), 0, "a closed loop has no schedule");
}

#[test]
fn a_figure_that_was_not_measured_fails_what_is_expected_of_it() {
    let step = step(&settings("--expect cpu_per_million<100"), &[published()], &[settled(1), settled(1)]);
    assert_eq!(failed(&step), ["cpu_per_million<100"]);
}

#[test]
fn the_server_is_charged_for_the_measured_time_only() {
    let usage = |cpu_seconds, rss_bytes| Some(Usage { cpu_seconds, rss_bytes, rss_peak_bytes: 0, threads: 3 });
    let figures = server((usage(1.0, 1000), usage(5.0, 6000), usage(7.0, 9000)), 4.0, 1_000_000, 5.0).unwrap();
    assert!((figures.cpu_seconds_per_million - 2.0).abs() < 1e-9);
    assert!((figures.cores - 0.5).abs() < 1e-9);
    assert!((figures.rss_bytes_per_connection - 1000.0).abs() < 1e-9);
    assert!(server((usage(1.0, 0), None, usage(2.0, 0)), 1.0, 1, 1.0).is_none());
}
