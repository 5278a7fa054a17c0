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
#[path = "bad_input/msgpack.rs"]
mod msgpack;
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
    time::Duration,
};

use canary::Canary;
use node::Node;
use row::Row;
use support::{descriptors, metric, node, row, until, wire};

/// Rows that run at once: the slow ones wait for deadlines, and a node serves many strangers at a time anyway.
const WORKERS: usize = 4;
/// Issue 3, *Must show*.
const ROWS_MIN: usize = 200;
/// How often the whole table is tried. The first pass fills what is kept for good: an allocator's pools, a store's cache.
const PASSES: usize = 2;
/// Without a configuration file pages from everywhere may connect; what a list means is to be seen. Sessions that a row
/// leaves behind end by their deadlines, here soon.
const SETTINGS: [(&str, &str); 3] = [
    ("STARLING_SERVER__ALLOWED_ORIGINS", "https://chat.example.com"),
    ("STARLING_SOCKETIO__PING_INTERVAL", "4s"),
    ("STARLING_SOCKETIO__PING_TIMEOUT", "3s"),
];
/// What a pass may leave behind, all in all: an allocator that was asked differently (up to three quarters of a mebibyte
/// were seen), not what rows were given.
const LEFT_MAX: f64 = 2.0 * 1024.0 * 1024.0;
/// How often the rows that end a connection at once are repeated to see what a single connection leaves behind, and what
/// it may.
const REPEATS: usize = 20;
const LEFT_MAX_EACH: f64 = 128.0;

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
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert!(names.len() == rows.len() && rows.len() >= ROWS_MIN, "{} rows, {} names", rows.len(), names.len());

    let node = Node::start_with(&SETTINGS);
    let quiet = descriptors(&node);
    let resident = || metric(&node, "process_resident_memory_bytes");
    let mut memory = Vec::new();
    for pass in 0..PASSES {
        let canary = Canary::start(node.clients);
        let mut failures = try_all(&node, &rows);
        failures.extend(canary.stop().err().map(|failure| format!("canary: {failure}")));
        assert!(failures.is_empty(), "{} of {} rows failed:\n{}", failures.len(), rows.len(), failures.join("\n"));
        until("no session", || metric(&node, "starling_connections{transport=\"polling\"}") == 0.0);
        // What a row left half written is let go by the kernel, after half a minute.
        let given_back = (0..600).any(|_| {
            let enough = descriptors(&node) <= quiet;
            if !enough {
                thread::sleep(Duration::from_millis(100));
            }
            enough
        });
        assert!(given_back, "{} descriptors are open after pass {pass}, {quiet} were before", descriptors(&node));
        memory.push(resident());
    }
    println!("{} rows; resident after each pass: {memory:?}", rows.len());
    let left = memory[PASSES - 1] - memory[PASSES - 2];
    assert!(left <= LEFT_MAX, "{left} bytes were not given back: {memory:?}");

    let quick = vec![[websocket::frames(), packets::rows(), msgpack::rows()].concat(); REPEATS].concat();
    let each: Vec<f64> = (0..2)
        .map(|_| {
            let before = resident();
            let failures = try_all(&node, &quick);
            assert!(failures.is_empty(), "{} failed: {}", failures.len(), failures[0]);
            (resident() - before) / quick.len() as f64
        })
        .collect();
    println!("{} connections; each left behind, the first time and the second: {each:.0?} bytes", quick.len());
    assert!(each[1] <= LEFT_MAX_EACH, "a connection leaves {each:?} bytes behind");
    node.stop().unwrap();
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
                    let Some(row) = next else { return };
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
