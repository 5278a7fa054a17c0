//! `starling history export`.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;

use super::Carried;
use super::offline::Offline;
use crate::archive::{Header, Line, Totals};
use crate::clock;

pub(super) fn run(dir: &Path, file: Option<&Path>) -> anyhow::Result<Carried> {
    anyhow::ensure!(persistence::holds_store(dir), "there is no store in {}", dir.display());
    let Some(file) = file else { return give_back(dir, &mut std::io::stdout().lock()) };
    anyhow::ensure!(!file.exists(), "{} exists: it is left alone", file.display());
    let part = file.with_extension("part");
    // What people wrote to each other is not for everybody on this machine.
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
    let made = made.with_context(|| format!("cannot create {}", part.display()))?;
    let mut out = BufWriter::new(made);
    let carried = give_back(dir, &mut out).and_then(|carried| {
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        fs::rename(&part, file)?;
        Ok(carried)
    });
    if carried.is_err() {
        // The error that made it useless is the one to tell.
        let _ = fs::remove_file(&part);
    }
    carried
}

/// Writes, and gives the store back whatever became of the writing.
fn give_back(dir: &Path, out: &mut dyn Write) -> anyhow::Result<Carried> {
    let offline = Offline::open(dir)?;
    let written = write(&offline, out);
    offline.close()?;
    written
}

fn write(offline: &Offline, out: &mut dyn Write) -> anyhow::Result<Carried> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut put = |line: &Line| -> anyhow::Result<()> {
        let text = line.text().context("a message is of another version: export with the version that wrote it")?;
        writeln!(out, "{text}").context("cannot write the file")
    };
    put(&Line::Header(Header::new(host, clock::wall_ms(), offline.clean)))?;
    let mut totals = Totals::default();
    for (slot, state) in &offline.states {
        put(&Line::Slot { slot: *slot, state: state.clone() })?;
        totals.slots += 1;
    }
    let mut newest: HashMap<Bytes, u64> = HashMap::new();
    let damaged = offline.scan(|record| {
        let newest = newest.entry(record.room.clone()).or_default();
        // A message that was written twice is told once.
        if *newest < record.n {
            *newest = record.n;
            totals.messages += 1;
            put(&Line::Message(record))?;
        }
        Ok(())
    })?;
    anyhow::ensure!(damaged == 0, "{damaged} parts of the store are damaged; a node that is started sets them aside");
    put(&Line::End(totals))?;
    out.flush().context("cannot write the file")?;
    Ok(Carried { rooms: newest.len(), totals, clean: offline.clean })
}
