//! The figures of membership: how long it takes to agree, what it costs to be idle, who is wronged by loss.
//!
//! Invariant: every figure is measured in virtual time over all nodes of several seeds; a table says how many.

use std::{collections::BTreeSet, time::Duration};

use super::{Traffic, World, command::argument, everyone, seconds};

/// No figure waits longer.
const LIMIT: Duration = Duration::from_secs(120);
/// How long an idle cluster is watched.
const IDLE: u64 = 60;

/// What one cluster showed.
struct Figures {
    formed: Duration,
    joined: Duration,
    /// Until each node left the dead one out.
    noticed: Vec<Duration>,
    idle: Traffic,
}

fn measure(nodes: u16, seed: u64) -> Figures {
    let mut world = World::new(nodes, 0, seed);
    let formed = world.wait(LIMIT, |world| world.agree(&everyone(nodes))).unwrap_or(LIMIT);
    world.pass(seconds(30));
    let before = world.traffic;
    world.pass(seconds(IDLE));
    let idle = world.traffic.since(before);
    world.start(nodes, 1);
    let joined = world.wait(LIMIT, |world| world.agree(&everyone(nodes + 1))).unwrap_or(LIMIT);
    world.pass(seconds(30));
    // The joiner lives, so a cluster of three stays one of three.
    let dead = u16::try_from(seed % u64::from(nodes)).unwrap_or(0);
    world.kill(dead);
    let mut waiting: BTreeSet<u16> = world.nodes.keys().copied().collect();
    let (killed, mut noticed) = (world.now, Vec::new());
    world.wait(LIMIT, |world| {
        let out = |node: &u16| !world.nodes[node].membership.view().members.iter().any(|member| member.node.0 == dead);
        let before = waiting.len();
        waiting.retain(|node| !out(node));
        noticed.extend(std::iter::repeat_n(world.now - killed, before - waiting.len()));
        waiting.is_empty()
    });
    noticed.extend(waiting.iter().map(|_| LIMIT));
    Figures { formed, joined, noticed, idle }
}

/// Deaths of live processes in so many minutes of loss; and how long until a crash was known everywhere then.
fn wronged(nodes: u16, percent: u64, minutes: u64, seed: u64) -> (usize, Duration) {
    let mut world = World::new(nodes, percent, seed);
    world.pass(seconds(60 * minutes));
    world.kill(nodes / 2);
    let took = world.wait(LIMIT, World::is_whole).unwrap_or(LIMIT);
    (world.deaths.iter().filter(|death| death.of_a_live_one).count(), took)
}

#[test]
#[ignore = "run by cargo xtask sim members --figures"]
fn figures() {
    let (most, seeds) = (argument("SIM_NODES", 300_u16), argument("SIM_SEEDS", 5_u64));
    println!(
        "| nodes | full roster, all started at once | one more node known everywhere | crash left out, p50 | … by the last node | packets/s per node, idle | gossip bytes/s | roster bytes/s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for nodes in [3, 30, 100, 300].into_iter().filter(|nodes| *nodes <= most) {
        let all: Vec<Figures> = (1..=seeds).map(|seed| measure(nodes, seed)).collect();
        let formed = spread(all.iter().map(|one| one.formed).collect());
        let joined = spread(all.iter().map(|one| one.joined).collect());
        let mut noticed: Vec<Duration> = all.iter().flat_map(|one| one.noticed.clone()).collect();
        noticed.sort_unstable();
        let (half, last) = (noticed[noticed.len() / 2], noticed[noticed.len() - 1]);
        let rate = |count: fn(&Traffic) -> u64| {
            let sum: u64 = all.iter().map(|one| count(&one.idle)).sum();
            per(sum, seeds * IDLE * u64::from(nodes))
        };
        println!(
            "| {nodes} | {formed} | {joined} | {:.2} s | {:.2} s | {} | {} | {} |",
            half.as_secs_f64(),
            last.as_secs_f64(),
            rate(|traffic| traffic.packets),
            rate(|traffic| traffic.packet_bytes),
            rate(|traffic| traffic.roster_bytes),
        );
    }
}

#[test]
#[ignore = "run by cargo xtask sim members --figures"]
fn losses() {
    let (most, seeds) = (argument("SIM_NODES", 300_u16), argument("SIM_SEEDS", 5_u64));
    println!(
        "| nodes | minutes x seeds | false deaths at 0 % | 10 % | 20 % | 30 % | a crash left out everywhere at 30 % |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (nodes, minutes) in [(3, 10), (30, 10), (100, 5), (300, 2)] {
        if nodes > most {
            continue;
        }
        let seeds = if nodes > 30 { seeds.min(2) } else { seeds };
        let mut cells = Vec::new();
        let mut crash = Vec::new();
        for percent in [0, 10, 20, 30] {
            let told: Vec<(usize, Duration)> = (1..=seeds).map(|seed| wronged(nodes, percent, minutes, seed)).collect();
            cells.push(told.iter().map(|(deaths, _)| deaths).sum::<usize>().to_string());
            crash = told.into_iter().map(|(_, took)| took).collect();
        }
        println!("| {nodes} | {minutes} x {seeds} | {} | {} |", cells.join(" | "), spread(crash));
    }
}

/// Least, middle and most.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default().as_secs_f64();
    format!("{:.2} s ({:.2} to {:.2})", at(times.len() / 2), at(0), at(times.len().saturating_sub(1)))
}

fn per(sum: u64, by: u64) -> String {
    let tenths = sum * 10 / by.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}
