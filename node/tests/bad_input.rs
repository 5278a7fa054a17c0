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
#[path = "bad_input/packets.rs"]
mod packets;
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
use node::Node;
use row::Row;
use support::{node, row, wire};

/// Rows that run at once: the slow ones wait for deadlines, and a node serves many strangers at a time anyway.
const WORKERS: usize = 4;
/// Issue 2, item 9.
const ROWS_MIN: usize = 60;

#[test]
fn bad_input_gets_its_documented_answer_and_a_canary_room_loses_nothing() {
    let rows: Vec<Row> = [http::rows(), engine::rows(), websocket::rows(), packets::rows(), rooms::rows()].concat();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert!(names.len() == rows.len() && rows.len() >= ROWS_MIN, "{} rows, {} names", rows.len(), names.len());

    let node = Node::start_with(&[]);
    let canary = Canary::start(node.clients);
    let left = Mutex::new(rows.iter());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(row) = next else { return };
                    // A helper that panics is a row that failed, not the end of the table.
                    let ran = catch_unwind(AssertUnwindSafe(|| (row.run)(&node).and_then(|()| node.check())));
                    if let Err(failure) = ran.unwrap_or_else(|panic| Err(words(panic.as_ref()))) {
                        failures.lock().unwrap().push(format!("{}: {failure}", row.name));
                    }
                }
            });
        }
    });
    let canary = canary.stop();
    let mut failures = failures.into_inner().unwrap();
    failures.extend(canary.err().map(|failure| format!("canary: {failure}")));
    failures.extend(node.stop().err().map(|failure| format!("node: {failure}")));
    assert!(failures.is_empty(), "{} of {} rows failed:\n{}", failures.len(), rows.len(), failures.join("\n"));
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
