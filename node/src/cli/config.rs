//! `starling config`: check, show, init, env.
//!
//! Invariants: none of them starts anything; `init` never overwrites a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::{ConfigCommand, Exit, complain, report, say, sources};
use crate::config;

pub(super) fn run(command: &ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Check(arguments) => match config::load(&sources::gather(arguments)) {
            Ok(_) => {
                say("the configuration is good");
                Exit::Ok
            }
            Err(problems) => report(&problems),
        },
        ConfigCommand::Show { origin, serve } => match config::load(&sources::gather(serve)) {
            Ok(loaded) => {
                say(config::show(&loaded, *origin).trim_end());
                Exit::Ok
            }
            Err(problems) => report(&problems),
        },
        ConfigCommand::Init { file: Some(path) } => create(path),
        ConfigCommand::Init { file: None } => {
            say(config::example().trim_end());
            Exit::Ok
        }
        ConfigCommand::Env => {
            say(config::environment().trim_end());
            Exit::Ok
        }
    }
}

fn create(path: &Path) -> Exit {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    match created.and_then(|mut file| file.write_all(config::example().as_bytes())) {
        Ok(()) => {
            say(format_args!("wrote {}", path.display()));
            Exit::Ok
        }
        Err(error) => {
            complain(format_args!("error: cannot create {}: {error}", path.display()));
            Exit::Failed
        }
    }
}
