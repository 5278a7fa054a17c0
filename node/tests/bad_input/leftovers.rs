//! What clients leave behind once they are gone: nothing. Descriptors, sessions and places of their address come back to
//! what they were, and no connection costs memory for good.
//!
//! Invariants: every number is the node's own; what is compared is what a node has that nobody uses.

use std::{thread, time::Duration};

use crate::{
    node::Node,
    row::{Outcome, Row, unexpected},
    support::{descriptors, metric, until},
    try_all,
    wire::{Answer, Connection, FRESH_WEBSOCKET, WebSocket},
};

/// The longest that a socket may stay whose client is gone: `limits.body_timeout`, which none of the rows' other deadlines
/// passes (5 s for a header block, a handshake, and for hanging up after a close). A loaded machine is late.
const LET_GO: Duration = Duration::from_secs(10 + 5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Sockets, and sessions, of one address: enough for all rows at once, few enough that one lost place for each row shows.
pub(crate) const PER_IP: (&str, &str) = ("STARLING_LIMITS__PER_IP", "400");
const PLACES: usize = 400;
/// What a pass may leave behind, all in all: an allocator that was asked differently (up to three quarters of a mebibyte
/// were seen), not what rows were given.
const LEFT_MAX: f64 = 2.0 * 1024.0 * 1024.0;
/// How often rows that end at once are repeated to see what a single one leaves behind, and what it may.
const REPEATS: usize = 20;
const LEFT_MAX_EACH: f64 = 128.0;

/// A node before anybody came.
pub(crate) struct Leftovers<'a> {
    node: &'a Node,
    descriptors: f64,
    /// Resident bytes after each pass.
    resident: Vec<f64>,
}

impl<'a> Leftovers<'a> {
    pub(crate) fn look(node: &'a Node) -> Leftovers<'a> {
        Leftovers { node, descriptors: descriptors(node), resident: Vec::new() }
    }

    /// After a pass, when every client is gone: no session and no descriptor is left. Sessions of clients that went without
    /// a word end by their heartbeat.
    pub(crate) fn look_after_a_pass(&mut self) {
        self.nobody_is_left();
        self.resident.push(resident(self.node));
    }

    fn nobody_is_left(&self) {
        for transport in ["polling", "websocket"] {
            let open = format!("starling_connections{{transport=\"{transport}\"}}");
            until(&format!("no {transport} session"), || metric(self.node, &open) == 0.0);
        }
        let looks = LET_GO.as_millis() / LOOK_EVERY.as_millis();
        let given_back = (0..looks).any(|_| {
            let enough = descriptors(self.node) <= self.descriptors;
            if !enough {
                thread::sleep(LOOK_EVERY);
            }
            enough
        });
        let (now, before) = (descriptors(self.node), self.descriptors);
        assert!(given_back, "{now} descriptors are open, {before} were before:\n{}", self.node.open_files());
    }

    /// The last two passes left the same. The first fills what is kept for good: an allocator's pools, a store's cache.
    pub(crate) fn compare_passes(&self) {
        println!("resident after each pass: {:?}", self.resident);
        let [.., before, after] = self.resident[..] else { panic!("fewer than two passes") };
        assert!(after - before <= LEFT_MAX, "{} bytes were not given back: {:?}", after - before, self.resident);
    }

    /// Repeats rows that end at once, twice, and looks at what the second time left.
    pub(crate) fn repeat(&self, quick: &[Row]) {
        let quick = vec![quick.to_vec(); REPEATS].concat();
        let each: Vec<f64> = (0..2)
            .map(|_| {
                let before = resident(self.node);
                let failures = try_all(self.node, &quick);
                assert!(failures.is_empty(), "{} failed: {}", failures.len(), failures[0]);
                (resident(self.node) - before) / quick.len() as f64
            })
            .collect();
        println!("{} rows; each left behind, the first time and the second: {each:.0?} bytes", quick.len());
        assert!(each[1] <= LEFT_MAX_EACH, "a row leaves {each:?} bytes behind");
    }

    /// The address of all those clients may have what it could have before, and not one more.
    pub(crate) fn every_place_is_free(&self) -> Outcome {
        self.nobody_is_left();
        let mut sockets = Vec::new();
        for n in 0..PLACES {
            let mut socket = Connection::open(self.node.clients);
            socket.send(b"GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n");
            match socket.answer() {
                Some(Answer { status: 404, .. }) => sockets.push(socket),
                other => return unexpected(format!("room for socket {n}"), other),
            }
        }
        drop(sockets);
        self.nobody_is_left();
        let mut sessions = Vec::new();
        for n in 0..PLACES {
            match WebSocket::open(self.node.clients, FRESH_WEBSOCKET) {
                Ok(session) => sessions.push(session),
                Err(other) => return unexpected(format!("room for session {n}"), other),
            }
        }
        match WebSocket::open(self.node.clients, FRESH_WEBSOCKET).map(|_| ()) {
            Err(Some(Answer { status: 429, .. })) => Ok(()),
            other => unexpected("no room for one more", other),
        }
    }
}

fn resident(node: &Node) -> f64 {
    metric(node, "process_resident_memory_bytes")
}
