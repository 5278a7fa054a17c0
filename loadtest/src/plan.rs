//! The plan of a run: how many members when, and when to measure.
//!
//! `0..3000@20s, hold 60s, 3000..1000@5s, hold 30s`: ramps change the number of members at a steady pace, holds publish
//! and measure. Every ramp begins where the one before it ended; the first one begins at 0.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A sequence of ramps and holds; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order they happen.
    pub(crate) segments: Vec<Segment>,
}

/// One piece of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Members come or go until there are `to`, evenly spread over `over`.
    Ramp {
        /// Members at the end, in the whole test.
        to: u32,
        /// How long it should take.
        over: Duration,
    },
    /// The number of members stays; publishers publish; everything is measured.
    Hold {
        /// How long publishers publish.
        duration: Duration,
    },
}

/// Why a plan cannot be followed. Nothing was started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// Neither `A..B@TIME` nor `hold TIME`.
    #[error("`{0}` is neither a ramp like `0..3000@20s` nor a hold like `hold 60s`")]
    Unreadable(String),
    /// A ramp that does not start where the members are.
    #[error("the ramp `{text}` starts at {from}, but there are {members} members then")]
    Jump {
        /// The ramp as it was written.
        text: String,
        /// Where it says it starts.
        from: u32,
        /// Where the members are.
        members: u32,
    },
    /// A hold with nobody there.
    #[error("`{0}` measures without members; put a ramp such as `0..100@1s` before it")]
    Nobody(String),
    /// Only ramps.
    #[error("the plan has no `hold`, so nothing would be measured")]
    NoHold,
}

impl Plan {
    /// `members` arriving at `per_second`, then one measurement of `duration`.
    pub(crate) fn steady(members: u32, per_second: u32, duration: Duration) -> Plan {
        Plan { segments: vec![Segment::ramp(members, members, per_second), Segment::Hold { duration }] }
    }

    /// One measurement of `duration` at each number of `members`, ascending, with arrivals at `per_second` between them.
    pub(crate) fn stairs(members: &[u32], per_second: u32, duration: Duration) -> Plan {
        let mut segments = Vec::new();
        let mut before = 0;
        for step in members {
            segments.push(Segment::ramp(*step, step.abs_diff(before), per_second));
            segments.push(Segment::Hold { duration });
            before = *step;
        }
        Plan { segments }
    }

    /// The largest number of members at any time.
    pub(crate) fn peak(&self) -> u32 {
        self.segments.iter().map(Segment::members).max().unwrap_or(0)
    }
}

impl Segment {
    fn ramp(to: u32, change: u32, per_second: u32) -> Segment {
        Segment::Ramp { to, over: Duration::from_secs_f64(f64::from(change) / f64::from(per_second.max(1))) }
    }

    fn members(&self) -> u32 {
        match self {
            Segment::Ramp { to, .. } => *to,
            Segment::Hold { .. } => 0,
        }
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let mut segments = Vec::new();
        let mut members = 0;
        for piece in text.split(',').map(str::trim) {
            let unreadable = || PlanError::Unreadable(piece.to_owned());
            if let Some(duration) = piece.strip_prefix("hold ") {
                if members == 0 {
                    return Err(PlanError::Nobody(piece.to_owned()));
                }
                let duration = humantime::parse_duration(duration.trim()).map_err(|_| unreadable())?;
                segments.push(Segment::Hold { duration });
                continue;
            }
            let (range, over) = piece.split_once('@').ok_or_else(unreadable)?;
            let (from, to) = range.split_once("..").ok_or_else(unreadable)?;
            let from: u32 = from.trim().parse().map_err(|_| unreadable())?;
            let to = to.trim().parse().map_err(|_| unreadable())?;
            let over = humantime::parse_duration(over.trim()).map_err(|_| unreadable())?;
            if from != members {
                return Err(PlanError::Jump { text: piece.to_owned(), from, members });
            }
            members = to;
            segments.push(Segment::Ramp { to, over });
        }
        match segments.iter().any(|segment| matches!(segment, Segment::Hold { .. })) {
            true => Ok(Plan { segments }),
            false => Err(PlanError::NoHold),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match segment {
                Segment::Ramp { to, over } => {
                    write!(f, "{comma}{members}..{to}@{}", humantime::format_duration(*over))?;
                    members = *to;
                }
                Segment::Hold { duration } => write!(f, "{comma}hold {}", humantime::format_duration(*duration))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_ramps_and_holds() {
        let plan: Plan = "0..3000@20s, hold 1m,3000 .. 1000 @ 500ms, hold 30s".parse().unwrap();
        assert_eq!(
            plan.segments,
            [
                Segment::Ramp { to: 3000, over: Duration::from_secs(20) },
                Segment::Hold { duration: Duration::from_secs(60) },
                Segment::Ramp { to: 1000, over: Duration::from_millis(500) },
                Segment::Hold { duration: Duration::from_secs(30) },
            ]
        );
        assert_eq!(plan.peak(), 3000);
    }

    #[test]
    fn a_plan_reads_back_as_it_was_written() {
        let text = "0..3000@20s, hold 1m, 3000..1000@500ms, hold 30s";
        assert_eq!(text.parse::<Plan>().unwrap().to_string(), text);
    }

    #[test]
    fn an_impossible_plan_says_what_is_wrong() {
        let jump = PlanError::Jump { text: "100..200@1s".to_owned(), from: 100, members: 50 };
        for (text, error) in [
            ("", PlanError::Unreadable(String::new())),
            ("hold 5s", PlanError::Nobody("hold 5s".to_owned())),
            ("0..10@1s", PlanError::NoHold),
            ("0..50@1s, 100..200@1s, hold 1s", jump),
            ("0..50@soon, hold 1s", PlanError::Unreadable("0..50@soon".to_owned())),
            ("0..-5@1s, hold 1s", PlanError::Unreadable("0..-5@1s".to_owned())),
            ("0..99999999999@1s, hold 1s", PlanError::Unreadable("0..99999999999@1s".to_owned())),
        ] {
            assert_eq!(text.parse::<Plan>(), Err(error), "{text}");
        }
    }

    #[test]
    fn stairs_measure_on_every_step_and_arrive_at_the_same_pace() {
        let plan = Plan::stairs(&[2500, 3000], 1000, Duration::from_secs(30));
        assert_eq!(plan.to_string(), "0..2500@2s 500ms, hold 30s, 2500..3000@500ms, hold 30s");
    }
}
