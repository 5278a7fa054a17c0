//! Dates of JavaScript as text: what `JSON.stringify` makes of them.
//!
//! Invariant: total on every number of milliseconds; what JavaScript has no date for is none here either.

/// As far as a JavaScript date can be from 1970, in milliseconds.
const FARTHEST: i64 = 8_640_000_000_000_000;
const DAY: i64 = 86_400_000;
/// Days of four centuries, after which the calendar repeats itself.
const DAYS_400: i64 = 146_097;

/// `2026-11-24T22:40:00.000Z`; years beyond four digits have a sign and six.
pub(super) fn iso(milliseconds: i64) -> Option<String> {
    if !(-FARTHEST..=FARTHEST).contains(&milliseconds) {
        return None;
    }
    let (year, month, day) = civil(milliseconds.div_euclid(DAY));
    let in_day = milliseconds.rem_euclid(DAY);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, fraction) = (in_day / 1000 % 60, in_day % 1000);
    let year = if (0..=9999).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:03}Z"))
}

/// Year, month and day of a number of days since 1970-01-01. Counts in years that begin in March, so that a leap day is
/// the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (cycle, in_cycle) = (days.div_euclid(DAYS_400), days.rem_euclid(DAYS_400));
    // One leap day every four years, but three times in a cycle not at the end of a century.
    let year = (in_cycle - in_cycle / 1460 + in_cycle / 36_524 - in_cycle / (DAYS_400 - 1)) / 365;
    let in_year = in_cycle - (365 * year + year / 4 - year / 100);
    // From March on, months follow a pattern of 153 days for five.
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + next, month, day)
}
