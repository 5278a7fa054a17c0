//! What all sessions of a round share: where the nodes are, what is recorded, and when to publish and when to end.
//!
//! Invariants: one thread; a session that has something unfinished counts in `open`, so that `open() == 0` means that every
//! message has its answer and every member is in its rooms.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::record::{Recorder, What};

/// What sessions do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Publish.
    Burst,
    /// Publish nothing new; bring to an end what was begun.
    Settle,
    /// End.
    Over,
}

/// A node as clients know it.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) recorder: Rc<Recorder>,
    pub(crate) tasks: TaskTracker,
    /// Begins every message's name.
    pub(crate) prefix: String,
    doors: RefCell<Vec<Door>>,
    phase: watch::Sender<Phase>,
    open: RefCell<Vec<Rc<Cell<usize>>>>,
}

impl Stage {
    /// A round that begins with a burst.
    pub(crate) fn new(recorder: Rc<Recorder>, prefix: String, doors: Vec<Door>) -> Rc<Stage> {
        let (phase, _) = watch::channel(Phase::Burst);
        let (doors, open) = (RefCell::new(doors), RefCell::default());
        Rc::new(Stage { recorder, tasks: TaskTracker::new(), prefix, doors, phase, open })
    }

    /// The node that a session tries at its `attempt`, home first.
    pub(crate) fn door(&self, home: usize, attempt: usize) -> Option<Door> {
        let doors = self.doors.borrow();
        doors.get((home + attempt) % doors.len().max(1)).cloned()
    }

    /// All nodes from `home` on, as `(name, URL)`.
    pub(crate) fn doors_from(&self, home: usize) -> Vec<(String, String)> {
        let doors = self.doors.borrow();
        let named = |door: &Door| (door.name.clone(), format!("http://{}", door.address));
        doors.iter().cycle().skip(home % doors.len().max(1)).take(doors.len()).map(named).collect()
    }

    /// Nodes came or went.
    pub(crate) fn set_doors(&self, doors: Vec<Door>) {
        *self.doors.borrow_mut() = doors;
    }

    /// The phase, and its changes.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes on to the next phase.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// A counter of what one session has open.
    pub(crate) fn counter(&self) -> Rc<Cell<usize>> {
        let counter = Rc::new(Cell::new(0));
        self.open.borrow_mut().push(counter.clone());
        counter
    }

    /// What all sessions have open.
    pub(crate) fn open(&self) -> usize {
        self.open.borrow().iter().map(|counter| counter.get()).sum()
    }

    /// The test did something.
    pub(crate) fn mark(&self, what: &str) {
        self.recorder.add("test", What::Mark { what: what.to_owned() });
    }
}
