//! A writer that is killed with SIGKILL keeps a prefix without holes and loses only its last commit interval.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test measures real time")]

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use persistence::{Config, Kind, Opened, Query, Record, open};

const DIR: &str = "STARLING_TEST_WRITER_DIR";
const ROUNDS: u64 = 8;
/// One interval until the commit begins and one for the commit, with room for a busy machine.
const LOSS_MAX: Duration = Duration::from_millis(250);

#[test]
fn a_killed_writer_keeps_a_prefix_and_loses_less_than_a_quarter_second() {
    let dir = tempfile::tempdir().unwrap();
    let mut head = 0;
    let mut generation = 0;
    for round in 0..ROUNDS {
        let mut writer = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let reader =
            thread::spawn(move || lines.map_while(Result::ok).filter_map(|line| accepted(&line)).collect::<Vec<_>>());
        thread::sleep(Duration::from_millis(400 + round * 37));
        writer.kill().unwrap();
        writer.wait().unwrap();
        let accepted = reader.join().unwrap();

        let opened = open(Kind::Sled(Config::new(dir.path())), 1).unwrap();
        assert!(!opened.clean && opened.quarantined.is_none() && opened.generation > generation);
        generation = opened.generation;
        let (last, last_at) = *accepted.last().unwrap();
        let had_time = accepted.iter().rev().find(|(_, at)| *at + LOSS_MAX < last_at).map_or(head, |(n, _)| *n);
        let kept = opened.heads.get(&1).copied().unwrap_or(0);
        assert!(had_time > head, "the round was too short to prove anything: {accepted:?}");
        assert!(kept >= had_time, "kept {kept}, but {had_time} of {last} was accepted long before the kill");
        assert_eq!(numbers(&opened), (1..=kept).collect::<Vec<_>>(), "no hole");
        head = kept;
        opened.store.close().unwrap();
    }
}

/// Not a test of its own: the process that [`a_killed_writer_keeps_a_prefix_and_loses_less_than_a_quarter_second`] kills.
#[test]
#[ignore = "run by the test above in a process of its own"]
fn writes_until_it_is_killed() {
    let Ok(dir) = env::var(DIR) else { return };
    let Opened { store, heads, .. } = open(Kind::Sled(Config::new(dir)), 1).unwrap();
    let begin = Instant::now();
    let mut out = std::io::stdout();
    for n in heads.get(&1).copied().unwrap_or(0) + 1.. {
        let body = Bytes::from(vec![n.to_be_bytes()[7]; 200]);
        store.append(vec![Record { slot: 1, room: Bytes::from_static(b"/\0a"), n, time_ms: n, body }]).unwrap();
        writeln!(out, "accepted {n} {}", begin.elapsed().as_micros()).unwrap();
        out.flush().unwrap();
        thread::sleep(Duration::from_micros(200));
    }
}

fn accepted(line: &str) -> Option<(u64, Duration)> {
    let (n, micros) = line.strip_prefix("accepted ")?.split_once(' ')?;
    Some((n.parse().ok()?, Duration::from_micros(micros.parse().ok()?)))
}

fn numbers(opened: &Opened) -> Vec<u64> {
    let room = Bytes::from_static(b"/\0a");
    let query =
        Query { slot: 1, room, after: 0, upto: u64::MAX, limit: usize::MAX, max_bytes: usize::MAX, newest: false };
    let (reply, page) = mpsc::channel();
    opened.store.read(query, move |page| reply.send(page).unwrap()).unwrap();
    let page = page.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    assert!(page.records.iter().all(|record| record.body[..] == vec![record.n.to_be_bytes()[7]; 200][..]));
    page.records.iter().map(|record| record.n).collect()
}
