//! Pipes between real nodes: whole or not at all, never more on the way than their budget, and never in the way of rooms.
//!
//! Invariants: real sockets and default timings; peers that break the rules write their bytes by hand (`common::evil`).

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "helpers of tests fail the test; durations are what is reported"
)]

mod common;

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{
    Node,
    evil::{Evil, LANE, PIECE, PIPE, TOOK, frame, raw},
    key, two, wait,
};
use mesh::{MAX_HEAD, NodeId, Pipe, PipeError, PipeUse, RefusalReason};

/// What one pipe may have on the way.
const WINDOW: usize = 32 << 10;

fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.unwrap() })
}

/// The next pipe that the node's handler got.
fn accepted(node: &Node) -> (Bytes, Pipe) {
    let mut pipes = Vec::new();
    wait("a pipe", Duration::from_secs(5), || {
        pipes.append(&mut node.recorder.seen.lock().unwrap().pipes);
        !pipes.is_empty()
    });
    assert_eq!(pipes.len(), 1);
    pipes.remove(0)
}

/// A pipe from node 0 to node 1, both ends.
fn pipe(nodes: &[Node; 2], what: PipeUse) -> [Pipe; 2] {
    let near = block(nodes[0].mesh.open_pipe(NodeId(1), what, Bytes::from_static(b"head"))).unwrap();
    let (head, far) = accepted(&nodes[1]);
    assert_eq!(head, "head");
    [near, far]
}

/// Everything up to the end.
async fn all(pipe: &Pipe) -> Result<Vec<u8>, PipeError> {
    let mut whole = Vec::new();
    while let Some(piece) = pipe.recv().await? {
        pipe.took(piece.len()).await?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole)
}

#[test]
fn what_goes_in_comes_out_whole_both_ways_at_once_however_large() {
    let nodes = two();
    for what in [PipeUse::Brief, PipeUse::Lasting] {
        let [near, far] = pipe(&nodes, what);
        let large: Bytes = (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        // Both ways at once: each side sends, takes, and goes on listening until the other has everything too.
        let whole: [Mutex<Vec<u8>>; 2] = Default::default();
        let take = async |pipe: &Pipe, whole: &Mutex<Vec<u8>>| {
            while let Some(piece) = pipe.recv().await.unwrap() {
                pipe.took(piece.len()).await.unwrap();
                whole.lock().unwrap().extend_from_slice(&piece);
            }
        };
        let complete = async {
            tokio::try_join!(near.send(large.clone()), far.send(large.clone())).unwrap();
            while whole.iter().any(|whole| whole.lock().unwrap().len() < large.len()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::join!(near.finish(), far.finish());
        };
        block(async { tokio::join!(take(&near, &whole[0]), take(&far, &whole[1]), complete) });
        assert!(whole.iter().all(|whole| *whole.lock().unwrap() == large));
    }
}

#[test]
fn a_pipe_that_is_dropped_is_never_taken_for_one_that_ended() {
    let nodes = two();
    let [near, far] = pipe(&nodes, PipeUse::Brief);
    block(near.send(Bytes::from_static(b"half"))).unwrap();
    drop(near);
    let end = block(all(&far));
    assert_eq!(end, Err(PipeError::Lost));
    let [near, far] = pipe(&nodes, PipeUse::Brief);
    block(async {
        near.send(Bytes::from_static(b"whole")).await.unwrap();
        near.finish().await;
    });
    drop(near);
    assert_eq!(block(all(&far)), Ok(b"whole".to_vec()));
    // The other way too: whoever sends learns that nobody reads.
    let [near, far] = pipe(&nodes, PipeUse::Brief);
    drop(far);
    let heard = block(async { tokio::try_join!(near.send(vec![0; 4 * WINDOW].into()), near.recv()) });
    assert_eq!(heard, Err(PipeError::Lost));
}

#[test]
fn where_there_is_no_way_or_no_room_the_opener_is_told_at_once() {
    let nodes = two();
    let open = |to, head: usize| block(nodes[0].mesh.open_pipe(NodeId(to), PipeUse::Brief, vec![0; head].into()));
    assert_eq!(open(7, 0).unwrap_err(), PipeError::NoLink);
    assert_eq!(open(1, MAX_HEAD + 1).unwrap_err(), PipeError::TooLarge);
    assert!(open(1, MAX_HEAD).is_ok());
    let open = async || nodes[0].mesh.open_pipe(NodeId(1), PipeUse::Lasting, Bytes::new()).await;
    let mut held = Vec::new();
    let refusal = block(async {
        loop {
            match open().await {
                Ok(pipe) => held.push(pipe),
                Err(error) => return error,
            }
        }
    });
    assert_eq!((refusal, held.len()), (PipeError::Full, 1_024));
    assert!(nodes[0].ask(1, "echo", Duration::from_secs(1)).is_ok(), "a question finds a stream all the same");
    held.pop();
    assert!(block(open()).is_ok());
}

#[test]
fn pipes_that_nobody_reads_stop_at_their_budget_and_rooms_do_not_notice() {
    const PIPES: usize = 200;
    let nodes = two();
    let before = nodes[0].mesh.stats().pipe_bytes_sent;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for what in [PipeUse::Brief, PipeUse::Lasting] {
        for _ in 0..PIPES {
            let mesh = nodes[0].mesh.clone();
            runtime.spawn(async move {
                let pipe = mesh.open_pipe(NodeId(1), what, Bytes::new()).await.unwrap();
                let _ = pipe.send(vec![0; 1 << 20].into()).await;
            });
        }
    }
    let sent = || usize::try_from(nodes[0].mesh.stats().pipe_bytes_sent - before).unwrap();
    let (mut last, mut since) = (0, Instant::now());
    wait("the pipes to stop", Duration::from_secs(10), || {
        if sent() != last {
            (last, since) = (sent(), Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
    // A megabyte for each use, and what is free of each pipe.
    let most = (2 << 20) + 2 * PIPES * 1_024;
    assert!(last > 1 << 20 && last <= most, "{last} bytes on the way, of at most {most}");

    let frame = Bytes::from(vec![7; 16 << 10]);
    let start = Instant::now();
    for n in 1..=1_000 {
        while nodes[0].mesh.send(NodeId(1), 2, frame.clone()).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{n} frames");
    }
    wait("16 MB of a room", Duration::from_secs(10), || nodes[1].received(0, 2) == 1_000);
    eprintln!("{last} bytes stood in pipes, 16 MB of a room took {:?}", start.elapsed());
    assert!(nodes[0].ask(1, "echo", Duration::from_secs(1)).is_ok());
    // Whoever is gone gives back what it held.
    drop(runtime);
    nodes[1].recorder.seen.lock().unwrap().pipes.clear();
    let [near, far] = pipe(&nodes, PipeUse::Lasting);
    let (sent, taken) = block(async { tokio::join!(near.send(vec![1; WINDOW].into()), far.recv()) });
    assert!(sent.is_ok() && taken.unwrap().is_some());
}

#[test]
fn a_member_that_breaks_the_rules_of_a_pipe_loses_that_pipe_and_its_link_stays() {
    let nodes = two();
    let evil = Evil::new(&key(), 9);
    let (connection, _control) = evil.greet(nodes[0].addr, 9, 1);
    wait("its link", Duration::from_secs(2), || nodes[0].linked(9, 1));
    let say = |bytes: &[u8]| {
        evil.run(async {
            let (mut send, recv) = connection.open_bi().await.unwrap();
            let _ = send.write_all(bytes).await;
            (send, recv)
        })
    };
    let counted = || nodes[0].mesh.stats().refused_for(RefusalReason::Question);
    let heads = [
        ("no use", frame(PIPE, b"")),
        ("a use that there is not", frame(PIPE, &[9])),
        ("a head beyond the limit", frame(PIPE, &vec![0; MAX_HEAD + 2])),
    ];
    for (number, (what, bytes)) in (1..).zip(heads) {
        let _stream = say(&bytes);
        wait(what, Duration::from_secs(2), || counted() == number);
    }
    assert!(nodes[0].recorder.seen.lock().unwrap().pipes.is_empty());

    let piece = |len: usize| frame(PIECE, &vec![1; len]);
    let bodies = [
        ("more than a window that nobody took", [piece(16 << 10), piece(16 << 10), piece(1)].concat()),
        ("a piece beyond the limit", piece((16 << 10) + 1)),
        ("a length beyond any limit", raw(u32::MAX, PIECE, 1, 0, b"")),
        ("an empty piece", piece(0)),
        ("a word that bytes were taken which nobody sent", frame(TOOK, &1_u32.to_be_bytes())),
        ("such a word without a number", frame(TOOK, b"")),
        ("a lane in a pipe", frame(LANE, &[0])),
        ("a pipe in a pipe", frame(PIPE, &[0])),
    ];
    for (what, bytes) in bodies {
        let before = counted();
        let _stream = say(&[frame(PIPE, b"\0head"), bytes].concat());
        let (head, pipe) = accepted(&nodes[0]);
        assert_eq!(head, "head");
        let end = block(async {
            loop {
                match pipe.recv().await {
                    Ok(Some(_)) => {}
                    end => return end,
                }
            }
        });
        assert_eq!(end, Err(PipeError::Malformed), "{what}");
        assert_eq!(counted(), before + 1, "{what}");
    }
    let (mut torn, _recv) = say(&[frame(PIPE, b"\x01"), piece(10)[..12].to_vec()].concat());
    torn.finish().unwrap();
    assert_eq!(block(accepted(&nodes[0]).1.recv()), Err(PipeError::Malformed), "a torn piece");
    assert!(connection.close_reason().is_none() && nodes[0].linked(9, 1));
    connection.close(0_u32.into(), b"");
}
