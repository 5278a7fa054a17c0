//! The searches that are made, and what is said about them.
//!
//! Invariants: a search that time or memory cut short is reported as such and fails nothing by that; a broken promise, a goal
//! that no search reached and a flaw that was not found each fail the whole run, with the steps that lead there.

use std::time::Duration;

use crate::{
    flaw::Flaw,
    promise::{Broken, Goal},
    rules::{Action, Bounds, Changes, Rules, Source},
    search::{Budget, Found, Trace, search},
    state::{Member, State, Triple},
};

/// The bounds that are searched, each to its end if the budget allows. What one leaves out another has.
pub(crate) const SEARCHES: [Bounds; 6] = [
    Bounds { nodes: 2, messages: 2, terms: 4, crashes: 1, forks: 1, changes: Changes::All },
    Bounds { nodes: 3, messages: 3, terms: 2, crashes: 1, forks: 1, changes: Changes::All },
    Bounds { nodes: 3, messages: 2, terms: 3, crashes: 1, forks: 1, changes: Changes::All },
    Bounds { nodes: 3, messages: 3, terms: 3, crashes: 1, forks: 0, changes: Changes::Failover },
    Bounds { nodes: 4, messages: 1, terms: 3, crashes: 1, forks: 1, changes: Changes::All },
    Bounds { nodes: 3, messages: 2, terms: 4, crashes: 1, forks: 0, changes: Changes::Failover },
];

/// Where each flaw is looked for.
pub(crate) fn bounds_of(flaw: Flaw) -> Bounds {
    let usual = Bounds { nodes: 3, messages: 2, terms: 4, crashes: 1, forks: 0, changes: Changes::All };
    match flaw {
        Flaw::ShownBeforeMet | Flaw::SkippedCountsAsWhole | Flaw::InheritanceForgotten => {
            Bounds { messages: 1, ..usual }
        }
        Flaw::TailDropped => Bounds { terms: 3, ..usual },
        Flaw::HealForgets => Bounds { forks: 1, ..usual },
        Flaw::ReleasedBeforeAck
        | Flaw::OldAckCounts
        | Flaw::VotesTwice
        | Flaw::RestartedVotes
        | Flaw::TakeoverAlone
        | Flaw::SyncingTakesOver
        | Flaw::MetLetsTakeOver
        | Flaw::LetGoesOn
        | Flaw::FencedIsAcked
        | Flaw::SealedGoesOn
        | Flaw::ShownUncopied
        | Flaw::NewOwnerWithoutLog => usual,
    }
}

/// Searches everything and says so; true when all is as it should be.
pub(crate) fn run(budget: Budget) -> bool {
    let mut goals = [None; Goal::ALL.len()];
    let mut good = true;
    println!("The rules:");
    for bounds in SEARCHES {
        let found = search(&Rules { bounds, flaw: None }, budget);
        println!("  {}\n    {}", title(&bounds), figures(&found));
        for (known, new) in goals.iter_mut().zip(found.goals) {
            *known = [*known, new].into_iter().flatten().min();
        }
        if let Some((broken, trace)) = &found.broken {
            good = false;
            println!("    BROKEN: {}\n{}", sentence(*broken), steps(trace));
        }
    }
    println!("\nReached, in how many steps at least:");
    for (goal, reached) in Goal::ALL.iter().zip(goals) {
        good &= reached.is_some();
        println!("  {goal:?}: {}", reached.map_or_else(|| "NEVER".to_owned(), |depth: u32| depth.to_string()));
    }
    println!("\nThe rules with one mistake:");
    for flaw in Flaw::ALL {
        let found = search(&Rules { bounds: bounds_of(flaw), flaw: Some(flaw) }, budget);
        match &found.broken {
            Some((broken, trace)) => {
                println!("  {flaw:?}: {} ({})\n{}", sentence(*broken), figures(&found), steps(trace));
            }
            None => {
                good = false;
                println!("  {flaw:?}: NOT FOUND ({})", figures(&found));
            }
        }
    }
    println!(
        "\n{}",
        if good {
            "model: all promises held, all goals reached, all mistakes found"
        } else {
            "model: FAILED, see above"
        }
    );
    good
}

fn title(bounds: &Bounds) -> String {
    let Bounds { nodes, messages, terms, crashes, forks, changes } = bounds;
    let changes = match changes {
        Changes::Failover => "failover only",
        Changes::All => "failover and handing over",
    };
    format!("{nodes} nodes, {messages} messages, {terms} terms, {crashes} crash, {forks} new lineage, {changes}")
}

fn figures(found: &Found) -> String {
    let Found { states, steps, depth, took, complete, broken, .. } = found;
    let end = match (broken, complete) {
        (Some(_), _) => "",
        (None, true) => ", everything seen",
        (None, false) => ", CUT SHORT by the budget",
    };
    format!("{states} states, {steps} steps, depth {depth}, {:.1} s{end}", took.as_secs_f64())
}

fn sentence(broken: Broken) -> &'static str {
    match broken {
        Broken::TwoFrames => "two frames were shown at one (lineage, n)",
        Broken::NotInherited => "a later owner of the lineage lacks a frame that was shown",
        Broken::TwoBranches => "two branches both call themselves whole",
        Broken::Uncopied => "a frame was shown for the first time while the replica lacked it",
        Broken::Lost => "a frame that two nodes held is held by none",
    }
}

fn steps(trace: &Trace) -> String {
    let lines =
        trace.iter().enumerate().map(|(n, (action, state))| format!("    {:>2}. {}", n + 1, told(*action, state)));
    lines.collect::<Vec<_>>().join("\n")
}

fn name(node: u8) -> char {
    char::from(b'A' + node)
}

fn seats(triple: &Triple) -> String {
    let seat = |member: &Option<Member>| {
        member.map_or_else(
            || "-".to_owned(),
            |member| format!("{}{}", name(member.node), "'".repeat(usize::from(member.generation))),
        )
    };
    triple.iter().map(seat).collect::<Vec<_>>().join(" ")
}

/// One step in words; `state` is where it led.
fn told(action: Action, state: &State) -> String {
    let at = |node: u8| state.node(node).at;
    match action {
        Action::Stamp { node, message } => format!("{} stamps message {message} in term {}", name(node), at(node)),
        Action::Receive { node, term } => {
            let acked = state.term(term).acked;
            format!("{} hears the owner of term {term} and acks {acked}", name(node))
        }
        Action::Release { node } => {
            format!("{} shows frame {} of term {}", name(node), state.term(at(node)).released, at(node))
        }
        Action::Propose { node, term } => {
            let Some(proposal) = state.terms().get(usize::from(term)) else { return String::new() };
            let verb = if proposal.sealed { "stops and hands over" } else { "asks for" };
            format!("{} {verb}: term {term} ({}) after term {}", name(node), seats(&proposal.triple), proposal.parent)
        }
        Action::Vote { node, term } => format!("{} votes for term {term} and enters it", name(node)),
        Action::Enter { node, term } => format!("{} hears of term {term} and enters it", name(node)),
        Action::Begin { node, source } => {
            let log = match source {
                Source::Own => "its own log".to_owned(),
                Source::Sealed => "the log it was handed".to_owned(),
                Source::Member(from) => format!("the log of {}", name(from)),
            };
            format!("{} begins term {} with {log}", name(node), at(node))
        }
        Action::Fill { node, from } => format!("{} gets what it lacks from {}", name(node), name(from)),
        Action::Crash { node } => format!("{} dies and starts again, empty, as {}'", name(node), name(node)),
        Action::Fork { node } => format!("{} goes on alone with a new lineage in term {}", name(node), at(node)),
    }
}

/// A budget for a search that has to end soon.
pub(crate) fn budget(millions: usize, seconds: u64) -> Budget {
    Budget { states: millions * 1_000_000, time: Duration::from_secs(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small enough for a debug build.
    fn small(nodes: u8, terms: u8, forks: u8) -> Bounds {
        Bounds { nodes, messages: 1, terms, crashes: 1, forks, changes: Changes::All }
    }

    #[test]
    fn in_small_bounds_every_promise_holds_in_every_state() {
        for bounds in [small(2, 3, 1), small(3, 2, 1), small(4, 2, 1)] {
            let found = search(&Rules { bounds, flaw: None }, budget(2, 60));
            assert!(
                found.broken.is_none(),
                "{}: {}",
                title(&bounds),
                found.broken.map(|(_, t)| steps(&t)).unwrap_or_default()
            );
            assert!(found.complete && found.states > 1_000, "{}: {}", title(&bounds), figures(&found));
        }
    }

    #[test]
    fn mistakes_that_show_early_are_found_and_the_way_there_is_told() {
        let early = [
            (Flaw::ReleasedBeforeAck, Broken::Uncopied),
            (Flaw::VotesTwice, Broken::TwoBranches),
            (Flaw::RestartedVotes, Broken::TwoBranches),
            (Flaw::TakeoverAlone, Broken::TwoBranches),
            (Flaw::FencedIsAcked, Broken::Uncopied),
            (Flaw::SealedGoesOn, Broken::NotInherited),
            (Flaw::NewOwnerWithoutLog, Broken::NotInherited),
        ];
        for (flaw, expected) in early {
            let found = search(&Rules { bounds: bounds_of(flaw), flaw: Some(flaw) }, budget(1, 60));
            let (broken, trace) = found.broken.unwrap();
            assert_eq!(broken, expected, "{flaw:?}\n{}", steps(&trace));
            assert!((2..=6).contains(&trace.len()), "{flaw:?}\n{}", steps(&trace));
            assert!(steps(&trace).lines().all(|line| line.len() > 15), "{}", steps(&trace));
        }
    }

    #[test]
    fn a_takeover_and_a_handoff_can_be_reached() {
        let found = search(&Rules { bounds: small(3, 2, 0), flaw: None }, budget(2, 60));
        for (goal, reached) in Goal::ALL.iter().zip(found.goals) {
            let expected = !matches!(goal, Goal::LetTakeOver | Goal::HandoffSurvived | Goal::NewLineage | Goal::Heal);
            assert_eq!(reached.is_some(), expected, "{goal:?}");
        }
    }

    #[test]
    fn a_search_that_is_cut_short_says_so() {
        let found =
            search(&Rules { bounds: SEARCHES[5], flaw: None }, Budget { states: 5_000, time: Duration::from_secs(60) });
        assert!(!found.complete && found.states < 6_000);
        assert!(figures(&found).ends_with("CUT SHORT by the budget"), "{}", figures(&found));
    }
}
