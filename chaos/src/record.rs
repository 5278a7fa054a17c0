//! What clients saw, one entry per event: the only evidence that is judged.
//!
//! Invariants: entries of one session are in the order it saw them; `t` is `CLOCK_MONOTONIC`, which all processes of one
//! machine share, so entries of several processes can be put in one order; as JSON an entry is one line.

use std::cell::{Cell, RefCell};
use std::io::{self, BufWriter, Write as _};

use serde::{Deserialize, Serialize};

use crate::clock;

/// Something that a client saw or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Nanoseconds of the monotonic clock.
    pub(crate) t: u64,
    /// The session: one logical client, however often it connects.
    pub(crate) who: String,
    /// What.
    #[serde(flatten)]
    pub(crate) what: What,
}

/// A position in a room.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Its lineage.
    pub(crate) epoch: String,
    /// Where in it.
    pub(crate) offset: u64,
}

/// One item of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Item {
    /// Where it stands.
    #[serde(flatten)]
    pub(crate) at: Place,
    /// The message.
    pub(crate) mid: String,
}

/// See [`Entry`]. A `mid` names one message of one publisher: `ROUND.PUBLISHER.ROOM.NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum What {
    /// A message leaves, for the first time or again with the same `id`.
    Publish { room: String, mid: String },
    /// It was acked.
    Acked { room: String, mid: String, at: Place },
    /// It was refused: it is stored nowhere.
    Refused { room: String, mid: String, code: String },
    /// Nobody knows: the connection ended, no answer came, or the answer says so.
    Unknown { room: String, mid: String, why: String },
    /// The session is connected.
    Connected { node: String },
    /// It is not any more.
    Disconnected { why: String },
    /// A join was answered, on a fresh connection or on one that was joined already.
    Joined { room: String, at: Place, since: Option<Place>, recovered: Option<bool>, items: Vec<Item> },
    /// A message arrived live; `room` is what the message says, `mid` begins with `?` if its checksum is wrong.
    Received { room: String, mid: String },
    /// `room:gap`.
    Gap { room: String, at: Place },
    /// Everything that is in the history of a room, read when all faults were over.
    History { room: String, at: Place, items: Vec<Item> },
    /// What the test did to the servers.
    Mark { what: String },
}

/// Takes entries, and writes them to a file as they come.
pub(crate) struct Recorder {
    entries: RefCell<Vec<Entry>>,
    file: RefCell<BufWriter<std::fs::File>>,
    /// The first write that failed, told at the end.
    broken: Cell<Option<io::ErrorKind>>,
}

impl Recorder {
    /// Writes to this file, replacing it.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn create(path: &std::path::Path) -> io::Result<Recorder> {
        let file = RefCell::new(BufWriter::new(std::fs::File::create(path)?));
        Ok(Recorder { entries: RefCell::default(), file, broken: Cell::new(None) })
    }

    /// `who` saw this now.
    pub(crate) fn add(&self, who: &str, what: What) {
        self.push(Entry { t: clock::now_ns(), who: who.to_owned(), what });
    }

    /// An entry that another process stamped.
    pub(crate) fn push(&self, entry: Entry) {
        let mut file = self.file.borrow_mut();
        let written = serde_json::to_writer(&mut *file, &entry).map_err(io::Error::from);
        if let Err(error) = written.and_then(|()| file.write_all(b"\n")) {
            self.broken.set(Some(error.kind()));
        }
        self.entries.borrow_mut().push(entry);
    }

    /// Everything since the last call, in the order of its stamps.
    ///
    /// # Errors
    /// The file could not be written: what is returned would be judged, and could not be looked at afterwards.
    pub(crate) fn take(&self) -> io::Result<Vec<Entry>> {
        self.file.borrow_mut().flush()?;
        if let Some(kind) = self.broken.get() {
            return Err(kind.into());
        }
        let mut entries = std::mem::take(&mut *self.entries.borrow_mut());
        entries.sort_by_key(|entry| entry.t);
        Ok(entries)
    }
}
