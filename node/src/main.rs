//! The `starling` binary: the command line, and a node behind `serve`.

use std::process::ExitCode;

fn main() -> ExitCode {
    starling::cli::run(starling::app::serve)
}
