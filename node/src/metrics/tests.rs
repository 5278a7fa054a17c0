//! Tests of the metrics' text: what a scraper and a person with a dashboard rely on.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn metrics() -> Metrics {
    Metrics::new(&["shard-0".to_owned(), "mesh".to_owned()])
}

/// A sample: name, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the Prometheus text format strictly enough to notice what a scraper would refuse.
fn parse(text: &str) -> (BTreeMap<String, String>, BTreeSet<String>, Vec<Sample>) {
    let (mut types, mut helps, mut samples) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 3 && helps.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(types.insert(name.to_owned(), kind.to_owned()), None, "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap().split(',').filter(|pair| !pair.is_empty()).map(|pair| {
                let (label, value) = pair.split_once('=').unwrap();
                (label.to_owned(), value.trim_matches('"').to_owned())
            });
            samples.push((name.to_owned(), labels.collect(), value.parse().unwrap()));
        }
    }
    (types, helps, samples)
}

#[test]
fn every_series_has_help_type_and_prefix_from_the_start() {
    let (types, helps, samples) = parse(&metrics().render(Format::Prometheus));
    assert!(samples.len() > 90, "{}", samples.len());
    for (name, ..) in &samples {
        assert!(name.starts_with("starling_") || name.starts_with("process_"), "{name}");
        let kind = types.get(name).unwrap_or_else(|| panic!("{name} has no type"));
        assert!(helps.contains(name), "{name} has no help");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
    }
    let sampled: BTreeSet<_> = samples.iter().map(|(name, ..)| name).collect();
    assert_eq!(sampled.len(), types.len(), "every described metric has a sample");
}

#[test]
fn the_names_of_the_contract_are_there() {
    let text = metrics().render(Format::Prometheus);
    let names = "build_info connections connections_opened_total connections_closed_total handshake_errors_total \
                 upgrades_total packets_received_total bytes_received_total bytes_sent_total events_published_total \
                 deliveries_total fanout_writes_total lagging_members slow_consumers_closed_total rejected_total \
                 dropped_total rooms room_memberships sockets slots_owned slots_open slots_single_copy mailbox_bytes cluster_members mesh_links \
                 mesh_frames_total mesh_bytes_total mesh_queue_bytes mesh_rtt_seconds interest_rooms \
                 history_appends_total history_reads_total history_bytes store_errors_total store_queue_bytes draining \
                 event_loop_lag_seconds";
    for name in names.split_whitespace() {
        assert!(text.contains(&format!("# TYPE starling_{name} ")), "{name}");
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
        assert!(text.contains(&format!("# TYPE process_{name} ")), "{name}");
    }
}

#[test]
fn labels_are_a_closed_set_of_words() {
    let (_, _, samples) = parse(&metrics().render(Format::Prometheus));
    let allowed = [
        "transport",
        "reason",
        "code",
        "result",
        "type",
        "source",
        "queue",
        "state",
        "role",
        "direction",
        "purpose",
        "kind",
        "lane",
        "thread",
        "version",
    ];
    let labels: BTreeSet<_> = samples.iter().flat_map(|(_, labels, _)| labels.keys().map(String::as_str)).collect();
    assert_eq!(labels, allowed.into_iter().collect());
}

#[test]
fn what_is_counted_appears_under_its_label_and_nowhere_else() {
    let metrics = metrics();
    metrics.connections.of(Transport::WebSocket).inc_by(3);
    metrics.dropped.of(DropReason::Duplicate).inc_by(5);
    metrics.deliveries.inc_by(1 << 40);
    metrics.event_loop_lag_seconds.of(1).unwrap().set(0.25);
    assert!(metrics.event_loop_lag_seconds.of(2).is_none());
    let (_, _, samples) = parse(&metrics.render(Format::Prometheus));
    let moved: Vec<_> = samples
        .iter()
        .filter(|(name, _, value)| name.starts_with("starling_") && !name.ends_with("_info") && *value != 0.0)
        .map(|(name, labels, value)| (name.as_str(), labels.values().next().map_or("", String::as_str), *value))
        .collect();
    let expected = [
        ("starling_connections", "websocket", 3.0),
        ("starling_deliveries_total", "", 1_099_511_627_776.0),
        ("starling_dropped_total", "duplicate", 5.0),
        ("starling_event_loop_lag_seconds", "mesh", 0.25),
    ];
    assert_eq!(moved, expected);
}

#[test]
fn the_process_is_measured() {
    let (_, _, samples) = parse(&metrics().render(Format::Prometheus));
    let value = |name: &str| samples.iter().find(|(found, ..)| found == name).unwrap().2;
    assert!(value("process_resident_memory_bytes") > 1e6);
    assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
    assert!(value("process_start_time_seconds") > 1.7e9, "after 2023");
}

#[test]
fn openmetrics_ends_as_it_must() {
    let text = metrics().render(Format::OpenMetrics);
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE starling_deliveries counter\nstarling_deliveries_total 0\n"), "{text}");
}

#[test]
fn words_of_a_label_are_distinct_and_in_order() {
    fn check<L: Label>() {
        let words: BTreeSet<_> = L::ALL.iter().map(|label| label.as_str()).collect();
        assert_eq!(words.len(), L::ALL.len(), "{}", L::NAME);
        assert!(L::ALL.iter().enumerate().all(|(index, label)| label.index() == index), "{}", L::NAME);
    }
    check::<CloseReason>();
    check::<DropReason>();
    check::<HandshakeError>();
    check::<PacketType>();
    check::<RejectReason>();
    check::<UpgradeResult>();
}
