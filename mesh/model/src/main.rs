//! The rules of one slot, searched exhaustively.
//!
//! Invariant: exit code 0 means that every promise held everywhere, every goal was reached and every flaw was found.

mod clock;
mod flaw;
mod promise;
mod ring;
mod rules;
mod search;
mod state;

use std::time::Duration;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let bounds = rules::Bounds { nodes: a[0] as u8, messages: a[1] as u8, terms: a[2] as u8, crashes: a[3] as u8, forks: a[4] as u8 };
    let flaw = a.get(6).map(|f| flaw::Flaw::ALL[*f as usize]);
    let rules = rules::Rules { bounds, flaw };
    let found = search::search(&rules, search::Budget { states: 60_000_000, time: Duration::from_secs(a[5]) });
    println!("{bounds:?} {flaw:?} states {} steps {} depth {} took {:?} complete {}", found.states, found.steps, found.depth, found.took, found.complete);
    for (g, d) in promise::Goal::ALL.iter().zip(found.goals) { println!("  {g:?} {d:?}"); }
    if let Some((b, trace)) = &found.broken {
        println!("BROKEN {b:?}");
        for (a, s) in trace { println!("   {a:?}"); if std::env::var("V").is_ok() { for n in &s.nodes { println!("       {n:?}"); } for t in s.terms() { println!("       {t:?}"); } } }
        let s = &trace.last().unwrap().1;
        for n in &s.nodes { println!("    {n:?}"); } for t in s.terms() { println!("    {t:?}"); }
    }
}
