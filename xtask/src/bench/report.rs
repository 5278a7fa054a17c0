//! The page that a contest becomes: medians with their spread, and ratios to the others of the same run.
//!
//! Invariants: a ratio is of medians of one run; a figure that nobody measured is a dash, never a zero.

use super::contest::{PEERS, SCENARIOS, Scenario, Turn};
use crate::run;
use anyhow::Result;
use serde_json::Value;
use std::fmt::Write;

/// The whole of docs/benchmarks.md.
pub(super) fn page(turns: &[Turn], rounds: u32) -> Result<String> {
    let mut page = String::from("# Benchmarks\n\n");
    let machine = turns.first().map_or(&Value::Null, |turn| &turn.machine);
    let memory = machine["memory_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 30);
    writeln!(
        page,
        "Written by `cargo xtask bench` on {}, at commit {}, on {} ({} cores, {memory:.0} GiB, Linux {}).\n",
        run::output(run::command("date").args(["-u", "+%Y-%m-%d"]))?.trim(),
        run::commit()?,
        machine["processor"].as_str().unwrap_or("an unnamed processor"),
        std::thread::available_parallelism()?,
        machine["kernel"].as_str().unwrap_or("of an unknown version"),
    )?;
    writeln!(
        page,
        "Server on core 0, generator on core 1, loopback. Rounds: {rounds}; in each the peers take turns, a fresh server for \
         each turn. Figures are medians, with the smallest and the largest in brackets. `floor-write` is a small program \
         that writes the same ready-made bytes to every member, one write per delivery: what the machine can do with one \
         write per delivery. `starling` stamps an order and keeps history meanwhile, the others do not. **Compare within \
         this page only:** absolute figures move with the machine. † marks a turn in which the generator itself was late: the server may be better than that. \
         The last column is the most that other programs used of the machine during a peer's turns. \
         The store has figures of its own: [benchmarks-store.md](benchmarks-store.md).\n"
    )?;
    for scenario in &SCENARIOS {
        if turns.iter().any(|turn| turn.scenario == scenario.name) {
            table(&mut page, scenario, turns)?;
        }
    }
    Ok(page)
}

fn table(page: &mut String, scenario: &Scenario, turns: &[Turn]) -> Result<()> {
    let headings: Vec<&str> = scenario.figures.iter().map(|figure| figure.heading).collect();
    writeln!(page, "## {}: {}\n\n| peer | {} | others' cores |", scenario.name, scenario.shows, headings.join(" | "))?;
    writeln!(page, "|---|{}", "---|".repeat(headings.len() + 1))?;
    let of = |peer: &str| -> Vec<&Turn> {
        turns.iter().filter(|turn| turn.scenario == scenario.name && turn.peer == peer).collect()
    };
    for peer in PEERS.iter().map(|peer| peer.name).filter(|peer| !of(peer).is_empty()) {
        let late = if of(peer).iter().any(|turn| turn.generator_late) { " †" } else { "" };
        let cells = (0..headings.len()).map(|index| match spread(&of(peer), index) {
            Some([low, median, high]) => format!("{} ({}–{}){late}", short(median), short(low), short(high)),
            None => "–".to_owned(),
        });
        let others = of(peer).iter().map(|turn| turn.others_cores).fold(0.0, f64::max);
        writeln!(page, "| {peer} | {} | {others:.2} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    for other in PEERS.iter().map(|peer| peer.name).filter(|name| *name != "starling") {
        let ratio = |index| match (spread(&of("starling"), index), spread(&of(other), index)) {
            (Some([_, ours, _]), Some([_, theirs, _])) if theirs > 0.0 => format!("{:.2}×", ours / theirs),
            (_, _) => "–".to_owned(),
        };
        let cells: Vec<String> = (0..headings.len()).map(ratio).collect();
        writeln!(page, "| *starling to {other}* | {} | |", cells.join(" | "))?;
    }
    writeln!(page)?;
    Ok(())
}

/// Smallest, median, largest of a figure over the turns that have it.
fn spread(turns: &[&Turn], index: usize) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = turns.iter().filter_map(|turn| *turn.figures.get(index)?).collect();
    values.sort_by(f64::total_cmp);
    let (first, last) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some([first, median, last])
}

/// Three digits, thousands as k.
fn short(value: f64) -> String {
    match value {
        v if v >= 999_500.0 => format!("{:.2} M", v / 1e6),
        v if v >= 9_995.0 => format!("{:.0} k", v / 1e3),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        0.0 => "0".to_owned(),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(peer: &'static str, scenario: &'static str, figures: &[f64]) -> Turn {
        let figures = figures.iter().copied().map(Some).collect();
        Turn { peer, scenario, figures, generator_late: false, others_cores: 0.0, machine: Value::Null }
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let turns: Vec<Turn> = [4.0, 1.0, 3.0, 2.0].iter().map(|v| turn("starling", "S2", &[*v])).collect();
        let all: Vec<&Turn> = turns.iter().collect();
        assert_eq!(spread(&all, 0), Some([1.0, 2.5, 4.0]));
        assert_eq!(spread(&all[..3], 0), Some([1.0, 3.0, 4.0]));
        assert_eq!(spread(&all, 1), None);
    }

    #[test]
    fn figures_are_shortened_without_losing_their_size() {
        let shown = [0.0, 0.456, 12.345, 123.4, 9_994.0, 12_345.0, 2_345_678.0].map(short);
        assert_eq!(shown, ["0", "0.46", "12.3", "123", "9994", "12 k", "2.35 M"]);
    }

    #[test]
    fn ratios_are_ours_to_theirs_and_a_dash_where_nothing_was_measured() {
        let scenario = &SCENARIOS[1];
        let turns = [turn("floor-write", scenario.name, &[100.0]), turn("starling", scenario.name, &[250.0])];
        let mut page = String::new();
        table(&mut page, scenario, &turns).unwrap();
        assert!(page.contains("| *starling to floor-write* | 2.50× | – |"), "{page}");
        assert!(page.contains("| *starling to socketioxide* | – |"), "{page}");
    }
}
