//! The rules of one slot (`docs/explanation/one-slot.md`), searched exhaustively: `cargo xtask model`.
//!
//! Invariant: the exit code is 0 only if every promise held in every state that was seen, every goal was reached and every
//! planted mistake was found.

mod clock;
mod failing;
mod flaw;
mod promise;
mod report;
mod ring;
mod rules;
mod search;
mod state;

use std::process::ExitCode;

use clap::Parser;

/// Searches everything that can happen to one slot.
#[derive(Parser)]
#[command(name = "model")]
struct Options {
    /// Seconds that each search may take.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Millions of states that each search may hold; ten million take about 3 GB.
    #[arg(long, default_value_t = 20)]
    millions: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let good = report::run(report::budget(options.millions, options.seconds));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
