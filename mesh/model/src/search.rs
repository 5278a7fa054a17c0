//! Breadth-first search of everything that can happen, one layer of steps after another.
//!
//! Invariants: no state is looked at twice; the first state that breaks a promise is reached by as few steps as any, and the
//! steps come with it; a search that was cut short says so.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    time::{Duration, Instant},
};

use crate::{
    clock,
    promise::{Broken, Goal, broken},
    rules::{Action, Rules, Steps},
    state::State,
};

/// A fingerprint is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// From a state's fingerprint to that of a state one step before it.
type Seen = HashMap<u64, u64, BuildHasherDefault<AsIs>>;

/// One step of a trace, and where it led.
pub(crate) type Trace = Vec<(Action, State)>;

/// What a search found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Different states.
    pub(crate) states: usize,
    /// Steps that were taken from them, those to known states included.
    pub(crate) steps: u64,
    /// Steps from the first state to the farthest.
    pub(crate) depth: u32,
    pub(crate) took: Duration,
    /// Everything within the bounds was seen; otherwise memory or time ran out and the next layer is missing.
    pub(crate) complete: bool,
    /// The shortest way to a broken promise; the search ends there.
    pub(crate) broken: Option<(Broken, Trace)>,
    /// Goals in the order of [`Goal::ALL`]: in how many steps each was first reached.
    pub(crate) goals: [Option<u32>; Goal::ALL.len()],
}

/// How long a search may take and how much it may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) states: usize,
    pub(crate) time: Duration,
}

/// Searches all that `rules` allow.
pub(crate) fn search(rules: &Rules, budget: Budget) -> Found {
    let start = clock::now();
    let first = rules.initial();
    let mut seen = Seen::default();
    seen.insert(first.fingerprint(), 0);
    let (mut layer, mut next, mut steps) = (vec![first], Vec::new(), Steps::new());
    let mut found = Found {
        states: 1,
        steps: 0,
        depth: 0,
        took: Duration::ZERO,
        complete: true,
        broken: None,
        goals: [None; Goal::ALL.len()],
    };
    while !layer.is_empty() {
        for state in &layer {
            if out_of(budget, start, &seen) {
                found.complete = false;
                break;
            }
            let from = state.fingerprint();
            rules.steps(state, &mut steps);
            found.steps += steps.len() as u64;
            for (action, state) in &steps {
                let name = state.fingerprint();
                if seen.contains_key(&name) {
                    continue;
                }
                seen.insert(name, from);
                note_goals(&mut found, *action, state);
                if let Some(which) = broken(state) {
                    found.depth += 1;
                    found.broken = Some((which, trace(rules, &seen, name)));
                    (found.states, found.took) = (seen.len(), start.elapsed());
                    return found;
                }
                next.push(*state);
            }
        }
        layer.clear();
        std::mem::swap(&mut layer, &mut next);
        found.depth += u32::from(!layer.is_empty());
        if !found.complete {
            break;
        }
    }
    (found.states, found.took) = (seen.len(), start.elapsed());
    found
}

fn out_of(budget: Budget, start: Instant, seen: &Seen) -> bool {
    seen.len() >= budget.states || (seen.len().is_multiple_of(64) && start.elapsed() > budget.time)
}

fn note_goals(found: &mut Found, action: Action, state: &State) {
    for (goal, reached) in Goal::ALL.iter().zip(&mut found.goals) {
        if reached.is_none() && goal.reached(action, state) {
            *reached = Some(found.depth + 1);
        }
    }
}

/// The steps from the first state to the one of that name, taken again.
fn trace(rules: &Rules, seen: &Seen, last: u64) -> Trace {
    let mut names = vec![last];
    while let Some(before) = names.last().and_then(|name| seen.get(name)).filter(|before| **before != 0) {
        names.push(*before);
    }
    let (mut state, mut steps, mut trace) = (rules.initial(), Steps::new(), Trace::new());
    for name in names.iter().rev().skip(1) {
        rules.steps(&state, &mut steps);
        if let Some(step) = steps.iter().find(|(_, state)| state.fingerprint() == *name) {
            trace.push(*step);
            state = step.1;
        }
    }
    trace
}
