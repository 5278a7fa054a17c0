//! `starling history`: the store of a node that is not running, as a file and back.
//!
//! Invariants:
//! - A store that is in use is left alone, and one that is opened here is given back as it was found: closed cleanly if it
//!   was, with what each slot goes on from.
//! - A file is whole or is not there: it is written under another name and renamed.
//! - An import that cannot be done in full leaves nothing behind.

mod export;
mod import;
mod offline;

use std::path::Path;

use serde_json::json;

use super::{Exit, HistoryArgs, HistoryCommand, complain, say};
use crate::archive::Totals;

/// What was carried.
struct Carried {
    rooms: usize,
    totals: Totals,
    /// The store had been closed cleanly: the epochs go on.
    clean: bool,
}

pub(super) fn run(command: &HistoryCommand) -> Exit {
    let (verb, to_stdout, dir, carried) = match command {
        HistoryCommand::Export { file, dir } => {
            ("exported", file.is_none(), dir, export::run(&dir.data_dir, file.as_deref()))
        }
        HistoryCommand::Import { file, dir } => ("imported", false, dir, import::run(&dir.data_dir, file)),
    };
    match carried {
        Ok(carried) => {
            let told = tell(verb, dir, &carried);
            // Standard output may be the file itself.
            if to_stdout {
                complain(told);
            } else {
                say(told);
            }
            Exit::Ok
        }
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            Exit::Failed
        }
    }
}

fn tell(verb: &str, dir: &HistoryArgs, carried: &Carried) -> String {
    let Carried { rooms, totals: Totals { messages, slots }, clean } = carried;
    if dir.json {
        return json!({ "rooms": rooms, "messages": messages, "slots": slots, "clean": clean }).to_string();
    }
    let epochs = if *clean { "their epochs go on" } else { "not closed cleanly, so they get new epochs" };
    format!("{verb} {messages} messages of {rooms} rooms; {epochs}")
}

/// Refuses to work where a node does.
fn refuse_if_in_use(dir: &Path) -> anyhow::Result<()> {
    let in_use = persistence::is_in_use(dir)?;
    anyhow::ensure!(!in_use, "{} is in use by a running node: stop it first", dir.display());
    Ok(())
}
