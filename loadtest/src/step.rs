//! One measured hold with everything that was found out about it, merged over all workers, and judged.
//!
//! Percentiles come from merged histograms; the last member's time of a message is the largest over all workers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::args::Settings;
use crate::expect::{Counter, Expectation, Figure, Quantile, Series};
use crate::server::Usage;
use crate::stats::{Latency, Summary};
use crate::wire::{Grown, Pace, Published, Settled};

/// A generator that publishes later than this (99th percentile) measures itself.
const SLIP_MAX_MS: f64 = 5.0;
/// A worker that uses more of a core than this may be what limits the figures.
const CORE_MAX: f64 = 0.95;

/// How a ramp went, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Arrival {
    /// Members joined at its end.
    pub(crate) joined: u32,
    retries: u64,
    joins_resent: u64,
    reasons: BTreeMap<String, u64>,
    connect: Option<Latency>,
    join: Option<Latency>,
    history: Option<(u32, u32)>,
}

/// The raw material of a step.
#[derive(Debug)]
pub(crate) struct Measured<'a> {
    /// Members that the plan wants.
    pub(crate) members: u32,
    /// The ramp before it.
    pub(crate) arrival: Arrival,
    /// From every worker.
    pub(crate) published: Vec<&'a Published>,
    /// From every worker.
    pub(crate) settled: Vec<&'a Settled>,
    /// Server processes: before anyone connected, before the first message, after the last.
    pub(crate) usage: (Option<Usage>, Option<Usage>, Option<Usage>),
    /// Between the latter two.
    pub(crate) seconds: f64,
}

/// A judged step.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) members: u32,
    pub(crate) stayed: u32,
    pub(crate) publishers: u16,
    /// How long was published.
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    /// Deliveries per second while it was published.
    pub(crate) deliveries_per_second: f64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Different orders in the room that has most of them; 1 is one identical order everywhere.
    pub(crate) orders: u64,
    pub(crate) foreign: u64,
    pub(crate) disconnects: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    pub(crate) refusals: BTreeMap<String, u64>,
    pub(crate) offsets_back: u64,
    pub(crate) epochs_changed: u64,
    pub(crate) stalls: u64,
    pub(crate) retries: u64,
    pub(crate) joins_resent: u64,
    /// Reasons of failed connections, those that were tried again included.
    pub(crate) connect_failures: BTreeMap<String, u64>,
    /// Fewest and most history items a join was answered with.
    pub(crate) history: Option<(u32, u32)>,
    pub(crate) latency: Latencies,
    pub(crate) generator: Generator,
    pub(crate) server: Option<ServerFigures>,
    pub(crate) checks: Vec<Check>,
    #[serde(skip)]
    series: BTreeMap<&'static str, Latency>,
}

/// The distributions, summed up.
#[derive(Debug, Serialize)]
pub(crate) struct Latencies {
    /// Intended send time to arrival.
    pub(crate) deliver: Summary,
    /// The same, where publisher and member have the same target.
    pub(crate) local: Summary,
    /// The same, where they have not.
    pub(crate) remote: Summary,
    /// Intended send time to arrival at the last member.
    pub(crate) last: Summary,
    /// Intended send time to answer.
    pub(crate) publish: Summary,
    /// TCP connect to namespace.
    pub(crate) connect: Summary,
    /// Join to its answer.
    pub(crate) join: Summary,
}

/// Whether the generator can be trusted.
#[derive(Debug, Serialize)]
pub(crate) struct Generator {
    /// Intended to actual send time.
    pub(crate) slip: Summary,
    /// Cores used by each worker while publishing.
    pub(crate) cores: Vec<f64>,
    /// Why the figures measure the generator, if they do.
    pub(crate) invalid: Vec<String>,
}

/// What the server processes used for the step.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ServerFigures {
    pub(crate) cpu_seconds: f64,
    pub(crate) cores: f64,
    pub(crate) cpu_seconds_per_million: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) rss_peak_bytes: u64,
    /// Growth since before anyone connected, per member and publisher.
    pub(crate) rss_bytes_per_connection: f64,
    pub(crate) threads: u64,
}

/// One expectation and what became of it.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) expectation: String,
    pub(crate) value: Option<f64>,
    pub(crate) passed: bool,
    /// Whether a late generator could be to blame for a failure.
    pub(crate) about_time: bool,
}

impl Arrival {
    /// Merges what the workers say.
    pub(crate) fn new<'a>(grown: impl Iterator<Item = &'a Grown>) -> Arrival {
        let mut arrival = Arrival::default();
        for one in grown {
            arrival.joined += one.joined;
            arrival.retries += one.retries;
            arrival.joins_resent += one.joins_resent;
            for (reason, times) in &one.reasons {
                *arrival.reasons.entry(reason.clone()).or_default() += times;
            }
            arrival.connect.get_or_insert_with(Latency::new).merge(&one.connect);
            arrival.join.get_or_insert_with(Latency::new).merge(&one.join);
            arrival.history = match (arrival.history, one.history) {
                (Some(all), Some(one)) => Some((all.0.min(one.0), all.1.max(one.1))),
                (all, one) => all.or(one),
            };
        }
        arrival
    }

    /// The reasons of failures, for people.
    pub(crate) fn reasons_text(&self) -> String {
        let reasons = self.reasons.iter().map(|(reason, times)| format!("{reason} ({times}×)"));
        reasons.collect::<Vec<_>>().join(", ")
    }
}

impl Step {
    /// Merges and judges.
    pub(crate) fn new(settings: &Settings, measured: Measured<'_>) -> Step {
        let Measured { members, arrival, published, settled, usage, seconds } = measured;
        let series = merge_series(&arrival, &published, &settled);
        let summary = |name| series.get(name).map(Latency::summary).unwrap_or_default();
        let sum_published = |of: fn(&Published) -> u64| published.iter().map(|one| of(one)).sum::<u64>();
        let sum_settled = |of: fn(&Settled) -> u64| settled.iter().map(|one| of(one)).sum::<u64>();
        let sent = sum_published(|one| one.accounts.iter().map(|account| u64::from(account.sent)).sum());
        let refused = sum_published(|one| one.codes.values().sum());
        let unanswered = sum_published(|one| one.unanswered);
        let delivered = sum_settled(|one| one.delivered);
        let stayed = settled.iter().map(|one| one.members).sum();
        let connections = f64::from(stayed) + f64::from(settings.publishers);
        let mut step = Step {
            members,
            stayed,
            publishers: settings.publishers,
            seconds: published.iter().map(|one| one.window_ns as f64 / 1e9).fold(0.0, f64::max),
            sent,
            accepted: sent.saturating_sub(refused + unanswered),
            delivered,
            deliveries_per_second: published.iter().map(|one| per_second(one.delivered, one.window_ns)).sum(),
            lost: sum_settled(|one| one.lost),
            duplicated: sum_settled(|one| one.duplicated),
            reordered: sum_settled(|one| one.reordered),
            orders: orders(&settled),
            foreign: sum_settled(|one| one.foreign),
            disconnects: sum_settled(|one| one.disconnects),
            refused,
            unanswered,
            refusals: refusals(&published),
            offsets_back: sum_published(|one| one.offsets_back),
            epochs_changed: sum_published(|one| one.epochs_changed),
            stalls: sum_published(|one| one.stalls),
            retries: arrival.retries,
            joins_resent: arrival.joins_resent,
            connect_failures: arrival.reasons,
            history: arrival.history.filter(|_| settings.history > 0),
            latency: Latencies {
                deliver: summary("deliver"),
                local: summary("local"),
                remote: summary("remote"),
                last: summary("last"),
                publish: summary("publish"),
                connect: summary("connect"),
                join: summary("join"),
            },
            generator: generator(settings.pace, &published, summary("slip")),
            server: server(usage, seconds, delivered, connections),
            checks: Vec::new(),
            series,
        };
        step.checks = settings.expectations.iter().map(|expectation| step.check(expectation)).collect();
        step
    }

    /// Whether every expectation is met.
    pub(crate) fn passes(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    /// A figure, if this step has it. Latencies in milliseconds.
    pub(crate) fn value(&self, figure: Figure) -> Option<f64> {
        let count = |number: u64| Some(number as f64);
        match figure {
            Figure::Latency(series, quantile) => self.quantile(series, quantile),
            Figure::Count(Counter::Lost) => count(self.lost),
            Figure::Count(Counter::Duplicated) => count(self.duplicated),
            Figure::Count(Counter::Reordered) => count(self.reordered),
            Figure::Count(Counter::Orders) => count(self.orders),
            Figure::Count(Counter::Absent) => {
                count(u64::from(self.members).saturating_sub(u64::from(self.stayed) + self.disconnects))
            }
            Figure::Count(Counter::Disconnects) => count(self.disconnects),
            Figure::Count(Counter::Refused) => count(self.refused + self.unanswered),
            Figure::Count(Counter::OffsetsBack) => count(self.offsets_back),
            Figure::Count(Counter::Rate) => Some(self.deliveries_per_second),
            Figure::Count(Counter::CpuPerMillion) => self.server.map(|server| server.cpu_seconds_per_million),
            Figure::Count(Counter::RssPerConnection) => self.server.map(|server| server.rss_bytes_per_connection),
        }
    }

    fn quantile(&self, series: Series, quantile: Quantile) -> Option<f64> {
        let name = match series {
            Series::Deliver => "deliver",
            Series::Last => "last",
            Series::Publish => "publish",
            Series::Connect => "connect",
            Series::Join => "join",
            Series::Slip => "slip",
        };
        let latency = self.series.get(name).filter(|latency| latency.count() > 0)?;
        Some(match quantile {
            Quantile::P50 => latency.quantile_ms(0.5),
            Quantile::P90 => latency.quantile_ms(0.9),
            Quantile::P99 => latency.quantile_ms(0.99),
            Quantile::P999 => latency.quantile_ms(0.999),
            Quantile::Max => latency.max_ms(),
        })
    }

    fn check(&self, expectation: &Expectation) -> Check {
        let value = self.value(expectation.figure);
        let about_time = match expectation.figure {
            Figure::Latency(..) => true,
            Figure::Count(Counter::Rate | Counter::CpuPerMillion | Counter::RssPerConnection) => true,
            Figure::Count(
                Counter::Lost
                | Counter::Duplicated
                | Counter::Reordered
                | Counter::Orders
                | Counter::Absent
                | Counter::Disconnects
                | Counter::Refused
                | Counter::OffsetsBack,
            ) => false,
        };
        Check { expectation: expectation.to_string(), value, passed: expectation.is_met(value), about_time }
    }
}

fn merge_series(arrival: &Arrival, published: &[&Published], settled: &[&Settled]) -> BTreeMap<&'static str, Latency> {
    let mut series: BTreeMap<&'static str, Latency> = BTreeMap::new();
    let mut merge = |name, latency: &Latency| series.entry(name).or_insert_with(Latency::new).merge(latency);
    for one in settled {
        merge("deliver", &one.local);
        merge("deliver", &one.remote);
        merge("local", &one.local);
        merge("remote", &one.remote);
    }
    for one in published {
        merge("publish", &one.publish);
        merge("slip", &one.slip);
    }
    arrival.connect.iter().for_each(|latency| merge("connect", latency));
    arrival.join.iter().for_each(|latency| merge("join", latency));
    merge("last", &last(settled));
    series
}

/// How long every message took to its last member anywhere.
fn last(settled: &[&Settled]) -> Latency {
    let mut slowest: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (publisher, messages) in settled.iter().flat_map(|one| &one.slowest) {
        let all = slowest.entry(*publisher).or_default();
        all.resize(all.len().max(messages.len()), 0);
        all.iter_mut().zip(messages).for_each(|(all, one)| *all = (*all).max(*one));
    }
    let mut latency = Latency::new();
    // Zero stands for a message that nobody received.
    let received = slowest.values().flatten().filter(|microseconds| **microseconds > 0);
    received.for_each(|microseconds| latency.record_ns(u64::from(*microseconds) * 1000));
    latency
}

fn orders(settled: &[&Settled]) -> u64 {
    let mut rooms: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for (room, orders) in settled.iter().flat_map(|one| &one.orders) {
        rooms.entry(*room).or_default().extend(orders.keys());
    }
    rooms.values().map(|orders| orders.len() as u64).max().unwrap_or(0)
}

fn refusals(published: &[&Published]) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    for (code, times) in published.iter().flat_map(|one| &one.codes) {
        *codes.entry(code.clone()).or_default() += times;
    }
    codes
}

fn per_second(number: u64, window_ns: u64) -> f64 {
    if window_ns == 0 { 0.0 } else { number as f64 * 1e9 / window_ns as f64 }
}

fn generator(pace: Pace, published: &[&Published], slip: Summary) -> Generator {
    let cores: Vec<f64> = published.iter().map(|one| per_second(one.cpu_ns, one.window_ns) / 1e9).collect();
    let mut invalid = Vec::new();
    // A closed loop has no schedule to be late for.
    if matches!(pace, Pace::Open { .. }) && slip.p99_ms > SLIP_MAX_MS {
        invalid
            .push(format!("the generator published late: slip p99 {:.1} ms, more than {SLIP_MAX_MS} ms", slip.p99_ms));
    }
    for (worker, cores) in cores.iter().enumerate().filter(|(_, cores)| **cores > CORE_MAX) {
        invalid.push(format!(
            "worker {worker} used {:.0} % of a core, more than {:.0} %",
            cores * 100.0,
            CORE_MAX * 100.0
        ));
    }
    Generator { slip, cores, invalid }
}

fn server(
    usage: (Option<Usage>, Option<Usage>, Option<Usage>),
    seconds: f64,
    delivered: u64,
    connections: f64,
) -> Option<ServerFigures> {
    let (Some(idle), Some(before), Some(after)) = usage else { return None };
    let cpu_seconds = after.cpu_seconds - before.cpu_seconds;
    Some(ServerFigures {
        cpu_seconds,
        cores: cpu_seconds / seconds.max(1e-9),
        cpu_seconds_per_million: cpu_seconds * 1e6 / (delivered.max(1)) as f64,
        rss_bytes: after.rss_bytes,
        rss_peak_bytes: after.rss_peak_bytes,
        rss_bytes_per_connection: before.rss_bytes.saturating_sub(idle.rss_bytes) as f64 / connections.max(1.0),
        threads: after.threads,
    })
}

#[cfg(test)]
mod tests;
