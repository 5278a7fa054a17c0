//! History as lines of JSON: what `starling history` writes and reads.
//!
//! ```text
//! {"starling_history":1,"version":"0.1.0","host":"gw-0","exported_ms":1790000000000,"clean":true}
//! {"slot":17,"state":"…"}
//! {"namespace":"/","room":"lobby","offset":7,"epoch":"…","event":"chat","args":["hi"],"time_ms":1790000000000,"frame":"…","sum":"…"}
//! {"end":true,"slots":1,"messages":1}
//! ```
//!
//! Invariants:
//! - `frame` is the message, byte for byte as nodes keep it, in base64. Everything else of its line is for people and their
//!   tools; where it names another place than the frame does, the line is refused.
//! - `state` is what a slot goes on from; it is there only if the store was closed cleanly, so that an epoch goes on only
//!   where nothing can be missing.
//! - Reading is total: any text is a line or a sentence that says why it is none. The end line counts what was before it, so
//!   that a file that was cut short is noticed.

use std::collections::{BTreeSet, HashMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use mesh::slot::Resume;
use mesh::wire::message::Frame;
use persistence::Record;
use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::envelope;

/// The layout of this version.
const FORMAT: u64 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// The first.
    Header(Header),
    /// What a slot goes on from.
    Slot { slot: u16, state: Bytes },
    /// One message.
    Message(Record),
    /// The last.
    End(Totals),
}

/// Where a file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Version of the program that wrote it.
    pub(crate) version: String,
    /// Host it was written on.
    pub(crate) host: String,
    /// When, in Unix milliseconds.
    pub(crate) exported_ms: u64,
    /// Whether the store had been closed cleanly: nothing that was acked is missing.
    pub(crate) clean: bool,
}

impl Header {
    /// The header of a file that this program writes.
    pub(crate) fn new(host: String, exported_ms: u64, clean: bool) -> Header {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Header { version, host, exported_ms, clean }
    }
}

/// How many lines of each kind a file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Slots with a state.
    pub(crate) slots: u64,
    /// Messages.
    pub(crate) messages: u64,
}

/// Every field that a line can have and that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields {
    starling_history: Option<u64>,
    version: String,
    host: String,
    exported_ms: u64,
    clean: bool,
    slot: Option<u16>,
    state: Option<String>,
    namespace: String,
    room: String,
    offset: u64,
    epoch: String,
    time_ms: u64,
    frame: Option<String>,
    sum: String,
    end: bool,
    slots: u64,
    messages: u64,
}

impl Line {
    /// The line, without its end; `None` for a record whose body is no message of this version.
    pub(crate) fn text(&self) -> Option<String> {
        Some(match self {
            Line::Header(Header { version, host, exported_ms, clean }) => json!({
                "starling_history": FORMAT, "version": version, "host": host, "exported_ms": exported_ms, "clean": clean
            })
            .to_string(),
            Line::Slot { slot, state } => json!({ "slot": slot, "state": STANDARD.encode(state) }).to_string(),
            Line::Message(record) => message(record)?,
            Line::End(Totals { slots, messages }) => {
                json!({ "end": true, "slots": slots, "messages": messages }).to_string()
            }
        })
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Why it is none; completes the sentence "line 3 …".
    pub(crate) fn read(text: &str) -> Result<Line, String> {
        let fields: Fields = serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))?;
        match &fields {
            Fields { starling_history: Some(FORMAT), .. } => {
                let Fields { version, host, exported_ms, clean, .. } = fields;
                Ok(Line::Header(Header { version, host, exported_ms, clean }))
            }
            Fields { starling_history: Some(other), .. } => {
                Err(format!("begins a file of format {other}, this version reads format {FORMAT}"))
            }
            Fields { frame: Some(frame), .. } => Ok(Line::Message(record(&fields, frame)?)),
            Fields { slot: Some(number), state: Some(state), .. } => slot(*number, state),
            Fields { end: true, slots, messages, .. } => Ok(Line::End(Totals { slots: *slots, messages: *messages })),
            Fields { .. } => Err("is none of header, slot, message and end".to_owned()),
        }
    }
}

fn message(record: &Record) -> Option<String> {
    let frame = Frame::decode(record.body.clone()).ok()?;
    // What is no event (there is none today) is kept all the same, without its words.
    let item = envelope::item(&frame).unwrap_or_else(|| {
        json!({ "offset": frame.n, "epoch": envelope::epoch(frame.lineage), "time_ms": frame.time_ms }).to_string()
    });
    let place = json!({ "namespace": frame.room.namespace(), "room": frame.room.room() }).to_string();
    let bytes = json!({ "frame": STANDARD.encode(&record.body), "sum": sum(&record.body) }).to_string();
    Some(format!("{{{},{},{}}}", inside(&place), inside(&item), inside(&bytes)))
}

/// What stands between the braces of an object.
fn inside(object: &str) -> &str {
    object.strip_prefix('{').and_then(|object| object.strip_suffix('}')).unwrap_or(object)
}

fn sum(body: &[u8]) -> String {
    format!("{:016x}", xxh3_64(body))
}

fn slot(slot: u16, state: &str) -> Result<Line, String> {
    let state = bytes_of("state", state)?;
    if slot >= mesh::SLOTS {
        return Err(format!("needs a slot below {}", mesh::SLOTS));
    }
    Resume::decode(state.clone())
        .map(|_| Line::Slot { slot, state })
        .ok_or_else(|| "has a state that is none".to_owned())
}

fn record(fields: &Fields, frame: &str) -> Result<Record, String> {
    let body = bytes_of("frame", frame)?;
    if fields.sum != sum(&body) {
        return Err("is damaged: its frame does not have its sum".to_owned());
    }
    let frame = Frame::decode(body.clone()).map_err(|error| format!("holds no message of this version: {error}"))?;
    if frame.slot != frame.room.slot() || frame.n == 0 || frame.is_volatile() {
        return Err("holds a message that no history keeps".to_owned());
    }
    let said = (&*fields.namespace, &*fields.room, fields.offset, &*fields.epoch, fields.time_ms);
    let epoch = envelope::epoch(frame.lineage);
    if said != (frame.room.namespace(), frame.room.room(), frame.n, &epoch, frame.time_ms) {
        return Err("names another room, offset, epoch or time than its frame; a message cannot be edited".to_owned());
    }
    Ok(Record { slot: frame.slot, room: frame.room.as_bytes().clone(), n: frame.n, time_ms: frame.time_ms, body })
}

fn bytes_of(name: &str, text: &str) -> Result<Bytes, String> {
    STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("has a \"{name}\" that is no base64: {error}"))
}

/// A file as it is read, line by line: what may follow what.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    header: Option<Header>,
    seen: Totals,
    ended: bool,
    slots: BTreeSet<u16>,
    newest: HashMap<Bytes, u64>,
}

impl Reading {
    /// Takes the next line and gives it back if it may stand there.
    ///
    /// # Errors
    /// Why not; completes the sentence "line 3 …".
    pub(crate) fn handle_line(&mut self, text: &str) -> Result<Line, String> {
        let line = Line::read(text)?;
        if self.ended {
            return Err("stands behind the end line".to_owned());
        }
        if self.header.is_none() != matches!(line, Line::Header(_)) {
            return Err("must be the header if it is the first line, and only then".to_owned());
        }
        match &line {
            Line::Header(header) => self.header = Some(header.clone()),
            Line::Slot { slot, .. } if self.slots.insert(*slot) => self.seen.slots += 1,
            Line::Slot { slot, .. } => return Err(format!("says the state of slot {slot} again")),
            Line::Message(record) => {
                let newest = self.newest.entry(record.room.clone()).or_default();
                if *newest >= record.n {
                    return Err(format!("has offset {}, the line before it in this room had {newest}", record.n));
                }
                *newest = record.n;
                self.seen.messages += 1;
            }
            Line::End(totals) if *totals == self.seen => self.ended = true,
            Line::End(totals) => {
                return Err(format!(
                    "ends {} messages and {} slots, but {} and {} were before it",
                    totals.messages, totals.slots, self.seen.messages, self.seen.slots
                ));
            }
        }
        Ok(line)
    }

    /// What the file held: rooms and totals.
    ///
    /// # Errors
    /// The file is not whole.
    pub(crate) fn finish(&self) -> Result<(usize, Totals), String> {
        if self.ended {
            Ok((self.newest.len(), self.seen))
        } else {
            Err("there is no end line: the file was cut short".to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
