//! The presets: which plan they follow and what they expect without being told.

use std::time::Duration;

use crate::args::Preset;
use crate::client::Dialect;
use crate::expect::{Expectation, Figure, Series};
use crate::plan::Plan;

/// What the talk that this project answers reached with one process: between these many connections.
pub(crate) const TALK: (u32, u32) = (2500, 3500);
/// The talk's own range, then five times as many.
const BASELINE_STEPS: [u32; 6] = [2500, 3000, 3500, 12_500, 15_000, 17_500];
/// Holds wherever a server is measured at all.
const ALWAYS: [&str; 4] = ["absent==0", "disconnects==0", "lost==0", "duplicated==0"];
/// Holds where the server promises one order and an answer.
const ORDERED: [&str; 4] = ["reordered==0", "orders==1", "refused==0", "offsets_back==0"];
/// Half a second still feels live; beyond it a step of the baseline is not served but queued.
const BASELINE_LATENCY: &str = "deliver.p99<500ms";

/// The plan of the baseline.
pub(crate) fn baseline(arrivals: u32, duration: Duration) -> Plan {
    Plan::stairs(&BASELINE_STEPS, arrivals, duration)
}

/// What people `asked` for, after what goes without saying.
pub(crate) fn expectations(preset: Preset, dialect: &Dialect, asked: Vec<Expectation>) -> Vec<Expectation> {
    let asks_latency = asked.iter().any(|it| matches!(it.figure, Figure::Latency(Series::Deliver | Series::Last, _)));
    let ordered = matches!(dialect, Dialect::Room);
    let latency = preset == Preset::Baseline && !asks_latency;
    let implied = ALWAYS
        .into_iter()
        .chain(ORDERED.into_iter().filter(|_| ordered))
        .chain([BASELINE_LATENCY].into_iter().filter(|_| latency));
    let asked_figures: Vec<Figure> = asked.iter().map(|it| it.figure).collect();
    let implied = implied.filter_map(|text| text.parse::<Expectation>().ok());
    // Who writes `--expect "lost<10"` means it instead of the stricter rule and not beside it.
    implied.filter(|it| !asked_figures.contains(&it.figure)).chain(asked).collect()
}

/// How many times the talk's figure `members` are: against its upper and its lower end.
pub(crate) fn multiple_of_talk(members: u32) -> (f64, f64) {
    (f64::from(members) / f64::from(TALK.1), f64::from(members) / f64::from(TALK.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(preset: Preset, dialect: &Dialect, asked: &[&str]) -> Vec<String> {
        let asked = asked.iter().map(|text| text.parse().unwrap()).collect();
        expectations(preset, dialect, asked).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_implied_expectation_can_be_checked() {
        let all = texts(Preset::Baseline, &Dialect::Room, &[]);
        assert_eq!(all.len(), ALWAYS.len() + ORDERED.len() + 1);
    }

    #[test]
    fn order_is_expected_only_of_who_promises_it() {
        let peer = Dialect::Emit { join: "join".to_owned(), publish: "publish".to_owned() };
        assert_eq!(texts(Preset::Broadcast, &peer, &[]), ALWAYS);
    }

    #[test]
    fn what_was_asked_replaces_what_goes_without_saying() {
        let all = texts(Preset::Baseline, &Dialect::Room, &["lost<10", "deliver.max<2s"]);
        assert!(all.contains(&"lost<10".to_owned()) && !all.contains(&"lost==0".to_owned()));
        assert!(!all.iter().any(|text| text.starts_with("deliver.p99")));
    }

    #[test]
    fn the_last_step_is_five_to_seven_times_the_talk() {
        let (against_most, against_least) = multiple_of_talk(17_500);
        assert!((against_most - 5.0).abs() < 1e-9 && (against_least - 7.0).abs() < 1e-9);
    }
}
