//! Bad input against the real program: whatever a client, an operator or a stranger sends, the answer is the documented
//! one, the process lives, and a room of well-behaved clients loses nothing meanwhile.
//!
//! Invariants: raw sockets only, no client library, so that nothing between a row and the node repairs the input; a row
//! knows nothing of the others; every row is followed by a look at the process.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that called them")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a row names what it wants and reports whatever else came")]

#[path = "bad_input/canary.rs"]
mod canary;
#[path = "bad_input/configs.rs"]
mod configs;
#[path = "bad_input/engine.rs"]
mod engine;
#[path = "bad_input/http.rs"]
mod http;
#[path = "bad_input/immunity.rs"]
mod immunity;
#[path = "bad_input/leftovers.rs"]
mod leftovers;
#[path = "bad_input/msgpack.rs"]
mod msgpack;
#[path = "bad_input/packets.rs"]
mod packets;
#[path = "bad_input/permissions.rs"]
mod permissions;
#[path = "bad_input/rooms.rs"]
mod rooms;
mod support;
#[path = "bad_input/websocket.rs"]
mod websocket;

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
    thread,
};

use canary::Canary;
use leftovers::{Leftovers, PER_IP};
use node::Node;
use row::Row;
use support::{node, rejected, row, wire};

/// Rows that run at once: the slow ones wait for deadlines, and a node serves many strangers at a time anyway.
const WORKERS: usize = 4;
/// Issue 3, *Must show*.
const ROWS_MIN: usize = 200;
/// So many say what is wrong; where each takes its time, the rest is not waited for.
const FAILURES_MAX: usize = 20;
/// How often a whole table is tried.
const PASSES: usize = 2;
/// Sessions that a row leaves behind end by their deadlines, here soon; on a loaded machine no row is as late as that.
const BEATS: [(&str, &str); 3] =
    [("STARLING_SOCKETIO__PING_INTERVAL", "4s"), ("STARLING_SOCKETIO__PING_TIMEOUT", "6s"), PER_IP];
/// Without a configuration file pages from everywhere may connect; what a list means is to be seen.
const ORIGINS: (&str, &str) = ("STARLING_SERVER__ALLOWED_ORIGINS", "https://chat.example.com");

#[test]
fn bad_input_gets_its_documented_answer_and_a_canary_room_loses_nothing() {
    let rows: Vec<Row> = [
        http::rows(),
        engine::rows(),
        websocket::rows(),
        packets::rows(),
        msgpack::rows(),
        rooms::rows(),
        immunity::rows(),
    ]
    .concat();
    assert!(rows.len() >= ROWS_MIN, "{} rows", rows.len());
    let quick = [http::quick(), websocket::frames(), packets::rows(), msgpack::rows()].concat();
    let node = Node::start_with(&[&BEATS[..], &[ORIGINS]].concat());
    withstand(&node, &rows, &quick);
    node.stop().unwrap();
}

#[test]
fn what_is_not_allowed_is_refused_by_its_documented_code_and_a_canary_room_loses_nothing() {
    let node = Node::start_with_file(permissions::RULES, &BEATS);
    withstand(&node, &permissions::rows(), &permissions::quick());
    let counted = ["forbidden", "unauthorized", "not_member", "bad_request"].map(|reason| rejected(&node, reason));
    assert!(counted.iter().all(|count| *count > 0.0), "refusals are counted by their codes: {counted:?}");
    node.stop().unwrap();
}

/// Tries all rows beside a canary room, again and again, and looks at what they left behind; `quick` are those of them that
/// end at once.
fn withstand(node: &Node, rows: &[Row], quick: &[Row]) {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    println!("{} rows", rows.len());
    let mut left = Leftovers::look(node);
    for _ in 0..PASSES {
        let canary = Canary::start(node.clients);
        let mut failures = try_all(node, rows);
        failures.extend(canary.stop().err().map(|failure| format!("canary: {failure}")));
        assert!(failures.is_empty(), "{} of {} rows failed:\n{}", failures.len(), rows.len(), failures.join("\n"));
        left.look_after_a_pass();
    }
    left.compare_passes();
    left.repeat(quick);
    left.every_place_is_free().unwrap();
}

/// Tries every row; what failed.
fn try_all(node: &Node, rows: &[Row]) -> Vec<String> {
    let left = Mutex::new(rows.iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(row) = next.filter(|_| failures.lock().unwrap().len() < FAILURES_MAX) else { return };
                    // A helper that panics is a row that failed, not the end of the table.
                    let ran = catch_unwind(AssertUnwindSafe(|| (row.run)(node).and_then(|()| node.check())));
                    if let Err(failure) = ran.unwrap_or_else(|panic| Err(words(panic.as_ref()))) {
                        failures.lock().unwrap().push(format!("{}: {failure}", row.name));
                    }
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let formatted = panic.downcast_ref::<String>().map(String::as_str);
    formatted.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

#[test]
fn each_mistake_of_a_configuration_is_one_clear_line_and_the_code_is_78() {
    let failures: Vec<String> = configs::mistakes().iter().filter_map(|mistake| mistake.try_out().err()).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
