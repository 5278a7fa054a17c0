//! `starling history import`.
//!
//! Invariants: the whole file is judged before the store is opened; only slots of which the store knows nothing are
//! filled, since a slot's messages share one counter; if filling fails, what was filled is forgotten again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use persistence::Record;

use super::offline::Offline;
use super::{Carried, refuse_if_in_use};
use crate::archive::{Line, Reading, Totals};

/// A message of the largest size, twice over in base64, with its words beside it.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Messages are handed to the store in groups of about this size.
const GROUP_BYTES: usize = 256 << 10;

pub(super) fn run(dir: &Path, file: &Path) -> anyhow::Result<Carried> {
    refuse_if_in_use(dir)?;
    let mut slots = BTreeSet::new();
    let (rooms, totals) = each_line(file, |line| {
        match line {
            Line::Message(record) => drop(slots.insert(record.slot)),
            Line::Slot { slot, .. } => drop(slots.insert(slot)),
            Line::Header(_) | Line::End(_) => {}
        }
        Ok(())
    })?;
    let mut offline = Offline::open(dir)?;
    let filled = match strangers(&offline, &slots) {
        Ok(()) => fill(&mut offline, file),
        Err(error) => Err(error),
    };
    offline.close()?;
    filled.map(|clean| Carried { rooms, totals, clean })
}

/// Refuses slots that the store has messages of, or had.
fn strangers(offline: &Offline, slots: &BTreeSet<u16>) -> anyhow::Result<()> {
    let known: Vec<&u16> = slots.iter().filter(|slot| offline.heads.contains_key(slot)).collect();
    let (count, first) = (known.len(), known.first());
    if let Some(first) = first {
        anyhow::bail!(
            "the store has messages in {count} of {} slots already, for example in slot {first}: import into an empty \
             data directory",
            slots.len()
        );
    }
    Ok(())
}

/// Fills the store; answers whether the file came from one that was closed cleanly.
fn fill(offline: &mut Offline, file: &Path) -> anyhow::Result<bool> {
    let mut clean = false;
    let mut group: Vec<Record> = Vec::new();
    let mut bytes = 0;
    let mut begun: BTreeSet<(u16, Bytes)> = BTreeSet::new();
    let mut states = Vec::new();
    let done = each_line(file, |line| {
        match line {
            Line::Header(header) => clean = header.clean,
            Line::Slot { slot, state } => states.push((slot, state)),
            Line::Message(record) => {
                bytes += record.body.len();
                begun.insert((record.slot, record.room.clone()));
                group.push(record);
            }
            Line::End(_) => bytes = GROUP_BYTES,
        }
        if bytes >= GROUP_BYTES {
            offline.append(&group)?;
            (bytes, group) = (0, Vec::new());
        }
        Ok(())
    });
    if let Err(error) = done {
        for (slot, room) in &begun {
            offline.forget(*slot, room)?;
        }
        return Err(error.context("nothing was imported"));
    }
    if clean {
        offline.states.extend(states);
    }
    Ok(clean)
}

/// Reads a file from its first to its last line; answers its rooms and totals.
fn each_line(file: &Path, mut visit: impl FnMut(Line) -> anyhow::Result<()>) -> anyhow::Result<(usize, Totals)> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut lines = BufReader::new(opened);
    let mut reading = Reading::default();
    let mut text = Vec::new();
    for number in 1_u64.. {
        text.clear();
        let length = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if length == 0 {
            break;
        }
        let at = || format!("{}, line {number}", file.display());
        let whole = text.strip_suffix(b"\n").with_context(|| format!("{} is cut short or too long", at()))?;
        let line = std::str::from_utf8(whole).with_context(|| format!("{} is not text", at()))?;
        visit(reading.handle_line(line).map_err(|reason| anyhow::anyhow!("{} {reason}", at()))?)?;
    }
    reading.finish().map_err(|reason| anyhow::anyhow!("{}: {reason}", file.display()))
}
