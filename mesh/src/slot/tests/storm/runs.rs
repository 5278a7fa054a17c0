//! The runs: one fault at a time, which must cost nothing, and storms, which may cost a lineage but never a promise.

use super::*;

const STRICT: Rules = Rules { strict: true, may_lose: false };
const LENIENT: Rules = Rules { strict: false, may_lose: false };

/// Three nodes, everybody talks, nothing goes wrong.
const QUIET: Plan = Plan {
    nodes: 3,
    begins_with: 3,
    ends_with: 3,
    rooms: 3,
    slots: 2,
    publishers: 6,
    members: 8,
    every: 200,
    delay: 60,
    questions_lost: 0,
    faults: &[],
    calm: 1_000,
    storm_until: 0,
    volumes_lost: false,
    rules: STRICT,
};

/// A run by name: its plan, and what happens in it once the cluster is at rest.
struct Run {
    name: &'static str,
    plan: fn(&mut SplitMix) -> Plan,
    script: fn(&mut Storm),
}

/// How a run ended.
struct Outcome {
    hash: u64,
    broken: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    lines: Vec<String>,
    virtual_ms: Ms,
    longest_wait: Ms,
}

fn play(run: &Run, seed: u64, written: bool) -> Outcome {
    let plan = (run.plan)(&mut SplitMix::new(seed));
    let mut storm = Storm::new(seed, plan, written);
    let longest_wait = act(&mut storm, run).unwrap_or_default();
    let mut counts = storm.counts;
    counts.insert("terms", storm.terms.len() as u64);
    let lineages: BTreeSet<(u16, u64)> = storm.terms.iter().map(|(slot, lineage, _)| (*slot, *lineage)).collect();
    counts.insert("lineages", lineages.len() as u64);
    counts.insert("lost with all who held it", storm.judge.lost as u64);
    Outcome {
        hash: storm.trace.number(),
        broken: storm.judge.broken,
        counts,
        lines: storm.trace.lines().cloned().collect(),
        virtual_ms: storm.now,
        longest_wait,
    }
}

/// Warm-up, faults, heal, judgement.
fn act(storm: &mut Storm, run: &Run) -> Option<Ms> {
    let strict = storm.plan.rules.strict;
    storm.pass(6_000).then_some(())?;
    let mut lineages = Vec::new();
    if strict {
        storm.come_to_rest(rest::HEALS_WITHIN)?;
        storm.full = storm.plan.nodes > 2;
        lineages = storm.lineages();
        storm.pass(500).then_some(())?;
    }
    let from = storm.now;
    (run.script)(storm);
    storm.heal();
    storm.pass(3_000).then_some(())?;
    storm.publishing = false;
    storm.come_to_rest(rest::HEALS_WITHIN)?;
    storm.pass(1_000).then_some(())?;
    let finals = storm.settle();
    let ended = lineages.iter().zip(&finals).position(|(before, after)| *before != 0 && before != after);
    if let (Some(room), true) = (ended, strict) {
        storm.judge.blame(format!("epoch: room {room} had {:x} and has {:x}", lineages[room], finals[room]));
    }
    Some(storm.judge.longest_wait(from).0)
}

impl Storm {
    /// The lineage of each room, as far as its members know; 0 = nobody does.
    fn lineages(&self) -> Vec<u64> {
        let of = |room| self.members.iter().find(|member| member.room == room && member.stretch.is_some());
        (0..self.rooms.len())
            .map(|room| of(room).and_then(|member| member.stretch.as_ref()).map_or(0, |stretch| stretch.lineage))
            .collect()
    }
}

const RUNS: &[Run] = &[
    Run { name: "quiet", plan: |_| QUIET, script: |storm| _ = storm.pass(10_000) },
    Run {
        name: "storm",
        plan: |rng| Plan {
            rooms: 1 + usize::try_from(rng.below(12)).unwrap(),
            slots: 1 + usize::try_from(rng.below(4)).unwrap(),
            nodes: 3,
            faults: faults::ALL,
            calm: 3_000,
            storm_until: 60_000,
            questions_lost: 20,
            volumes_lost: true,
            rules: LENIENT,
            ..QUIET
        },
        script: |storm| {
            storm.at(0, Event::Strike);
            storm.pass(60_000);
        },
    },
];

/// Plays seeds of a run; the first that fails ends it, with all that is needed to find out why.
fn check(name: &str, usual: u64) -> BTreeMap<&'static str, u64> {
    let run = RUNS.iter().find(|run| run.name == name).unwrap();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let first = number("SIM_FIRST").unwrap_or(1);
    let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut total = 0;
    for seed in first..first + number("SIM_SEEDS").unwrap_or(usual) {
        let outcome = play(run, seed, false);
        if !outcome.broken.is_empty() {
            let again = play(run, seed, true);
            for line in &again.lines {
                println!("{line}");
            }
            panic!(
                "{name}, seed {seed}: {:#?}\nagain: cargo xtask sim slot --run {name} --first {seed} --seeds 1",
                outcome.broken
            );
        }
        total += outcome.virtual_ms;
        for (what, times) in outcome.counts {
            *sums.entry(what).or_default() += times;
        }
        let longest = sums.entry("longest wait, ms").or_default();
        *longest = (*longest).max(outcome.longest_wait);
    }
    println!("{name}: {} virtual seconds: {sums:?}", total / 1_000);
    sums
}

#[test]
fn equal_seeds_give_equal_traces() {
    for run in RUNS {
        assert_eq!(play(run, 1, false).hash, play(run, 1, false).hash, "{}", run.name);
    }
}

#[test]
fn a_quiet_cluster_keeps_all_promises() {
    check("quiet", 3);
}

#[test]
fn storms_break_no_promise() {
    check("storm", 3);
}
