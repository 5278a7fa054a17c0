//! The official JavaScript client as a second opinion: processes that record what they see in the same form.
//!
//! Invariants: their stamps are of the same clock; what they have open counts like everybody's; a process that ends early, or
//! says something else than entries, fails the round.

use std::cell::Cell;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::record::Entry;
use crate::stage::Stage;

/// A running process; it ends when this is dropped.
pub(crate) struct Official {
    child: Child,
    failed: Rc<Cell<bool>>,
}

/// One line of its output.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    /// What it has open.
    Open { open: usize },
    /// What it saw.
    Entry(Entry),
}

/// Where the script and its modules are.
fn folder() -> Result<PathBuf> {
    Ok(std::env::var_os("STARLING_E2E").context("set STARLING_E2E to xtask/e2e, or --official 0")?.into())
}

/// Starts one that is in these rooms.
pub(crate) fn start(stage: &Rc<Stage>, number: usize, rooms: &[String]) -> Result<Official> {
    let setup = serde_json::json!({
        "name": format!("js{number}"), "nodes": stage.doors_from(number), "rooms": rooms, "prefix": stage.prefix
    });
    let mut command = Command::new("node");
    command.arg(folder()?.join("chaos_client.mjs")).arg(setup.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start node")?;
    let out = child.stdout.take().context("no output")?;
    let (counter, failed, recorder) = (stage.counter(), Rc::new(Cell::new(false)), stage.recorder.clone());
    counter.set(rooms.len());
    let broken = failed.clone();
    stage.tasks.spawn_local(async move {
        let mut lines = BufReader::new(out).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Line::Open { open }) => counter.set(open),
                Ok(Line::Entry(entry)) => recorder.push(entry),
                Err(_) => broken.set(true),
            }
        }
        counter.set(0);
    });
    Ok(Official { child, failed })
}

impl Official {
    /// Ends it; an error if it had ended before or spoke nonsense.
    pub(crate) async fn end(mut self) -> Result<()> {
        let early = self.child.try_wait()?;
        // It ends when its input does.
        drop(self.child.stdin.take());
        self.child.wait().await?;
        match (early, self.failed.get()) {
            (None, false) => Ok(()),
            (Some(status), _) => anyhow::bail!("an official client ended early: {status}"),
            (None, true) => anyhow::bail!("an official client wrote something else than entries"),
        }
    }
}
