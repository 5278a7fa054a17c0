//! `starling config`: check, show, init, env.
//!
//! Invariants: none of them starts anything; `init` never overwrites a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::{ConfigCommand, Exit, ServeArgs, complain, report, say, sources};
use crate::config::{self, Problem};

pub(super) fn run(command: &ConfigCommand) -> Exit {
    match command {
        ConfigCommand::Check { json, serve } => check(*json, serve),
        ConfigCommand::Show { origin, json, serve } => match config::load(&sources::gather(serve)) {
            Ok(loaded) if *json => {
                say(config::show_json(&loaded));
                Exit::Ok
            }
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
        ConfigCommand::Env { json: true } => {
            say(config::environment_json());
            Exit::Ok
        }
        ConfigCommand::Env { json: false } => {
            say(config::environment().trim_end());
            Exit::Ok
        }
    }
}

fn check(json: bool, arguments: &ServeArgs) -> Exit {
    let (exit, problems) = match config::load(&sources::gather(arguments)) {
        Ok(loaded) => (Exit::Ok, loaded.warnings),
        Err(problems) => (Exit::BadConfig, problems),
    };
    if json {
        let problems: Vec<_> = problems.iter().map(Problem::to_json).collect();
        say(serde_json::json!({ "good": exit == Exit::Ok, "problems": problems }));
    } else {
        problems.iter().for_each(complain);
        if exit == Exit::Ok {
            say("the configuration is good");
        }
    }
    exit
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
