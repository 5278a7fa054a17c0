//! Figures of two real meshes on loopback: frames per second, packets per frame, and round trips.
//!
//! Invariants: ignored by default, because they are worth something only alone and in release:
//! `cargo test --release -p mesh --test throughput -- --ignored --nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{two, wait};
use mesh::{LANES, NodeId, SendError};

const FRAMES: usize = 1_000_000;

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn frames_per_second_of_two_hundred_bytes() {
    let [first, second] = two();
    let frame = Bytes::from(vec![7; 200]);
    let start = Instant::now();
    for n in 0..FRAMES {
        let lane = u8::try_from(n % usize::from(LANES)).unwrap();
        while first.mesh.send(NodeId(1), lane, frame.clone()) == Err(SendError::Full) {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    wait("all frames", Duration::from_secs(60), || {
        (0..LANES).map(|lane| second.received(0, lane)).sum::<usize>() == FRAMES
    });
    let took = start.elapsed();
    let link = &first.mesh.links()[0];
    let per_second = FRAMES as f64 / took.as_secs_f64();
    eprintln!("{per_second:.0} frames/s, {} packets, {} lost", link.sent_packets, link.lost_packets);
    assert!(per_second > 100_000.0);
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn round_trips_of_questions() {
    let [first, _second] = two();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut took: Vec<Duration> = (0..5000)
        .map(|_| {
            let start = Instant::now();
            let asked = first.mesh.request(NodeId(1), Bytes::from_static(b"echo"), Duration::from_secs(1));
            runtime.block_on(asked).unwrap();
            start.elapsed()
        })
        .collect();
    took.sort_unstable();
    eprintln!("question and answer: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
    assert!(took[took.len() / 2] < Duration::from_millis(5));
}
