//! `loadtest joins`: clients that join a room while it is published to, each of which must see history and then what is
//! live, every message once and none missing.
//!
//! Invariant: one publisher numbers its messages, so what a client sees is right exactly when the numbers rise by one, from
//! the first item of its history to the last message it waits for.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;

use super::peer::Peer;
use super::publisher::{self, Pace, Progress};
use super::{EVENT, ROOM, Target, TrialError};
use crate::clock;
use crate::stats::{Latency, Summary};

/// The part of the asked rate that must have been published for the trial to mean anything.
const RATE_MIN: f64 = 0.95;

/// What to try.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct JoinsArgs {
    #[command(flatten)]
    target: Target,
    /// Clients that join, one after another over the whole time.
    #[arg(long, value_name = "N", default_value_t = 200)]
    clients: u32,
    /// Messages a second.
    #[arg(long, value_name = "R", default_value_t = 5_000)]
    rate: u32,
    /// Over how many seconds the clients join.
    #[arg(long, value_name = "S", default_value_t = 10)]
    seconds: u32,
    /// Items of history that each asks for.
    #[arg(long, value_name = "N", default_value_t = 50)]
    history: u32,
    /// Live messages that each waits for.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    live: u64,
    /// Bytes of filler in a message.
    #[arg(long, value_name = "B", default_value_t = 32)]
    payload: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Joins {
    clients: u32,
    /// Clients that saw everything once and in order.
    whole: usize,
    /// Items of history over all clients.
    history_items: u64,
    /// Messages a second that were acked while clients joined.
    acked_per_second: f64,
    asked_per_second: u32,
    refused: u64,
    /// From the question to the answer of a join.
    join: Summary,
    /// What the first few clients that did not see everything say.
    failures: Vec<String>,
}

impl Joins {
    /// Whether every client saw everything, at the rate that was asked for.
    pub(crate) fn holds(&self) -> bool {
        self.whole == self.clients as usize
            && self.refused == 0
            && self.acked_per_second >= RATE_MIN * f64::from(self.asked_per_second)
    }
}

impl fmt::Display for Joins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of {} clients saw history ({} items) and then live without gap or repeat, at {:.0} messages a second \
             ({} asked, {} refused); a join took p50 {:.2} ms, p99 {:.2} ms",
            self.whole,
            self.clients,
            self.history_items,
            self.acked_per_second,
            self.asked_per_second,
            self.refused,
            self.join.p50_ms,
            self.join.p99_ms,
        )?;
        self.failures.iter().try_for_each(|failure| writeln!(f, "  {failure}"))
    }
}

/// Runs the trial.
pub(super) async fn run(args: &JoinsArgs) -> Result<Joins, TrialError> {
    let tasks = TaskTracker::new();
    let progress = Rc::new(Progress::default());
    let pace = Pace { rate: args.rate, payload: args.payload };
    let (to, shared) = (args.target.target, progress.clone());
    let publisher = tasks.spawn_local(async move { publisher::publish(to, pace, &shared).await });
    while progress.acked.get() < u64::from(args.history) && !publisher.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (begin, acked) = (clock::now_ns(), progress.acked.get());
    let latency = Rc::new(RefCell::new(Latency::new()));
    let mut clients = Vec::new();
    let mut arrivals = tokio::time::interval(Duration::from_secs(args.seconds.into()) / args.clients.max(1));
    for _ in 0..args.clients {
        arrivals.tick().await;
        let (args, latency) = (args.clone(), latency.clone());
        clients.push(tasks.spawn_local(async move { client(&args, &latency).await }));
    }
    let (mut whole, mut history_items, mut failures) = (0, 0, Vec::new());
    for client in clients {
        match client.await {
            Ok(Ok(items)) => {
                whole += 1;
                history_items += items;
            }
            Ok(Err(error)) => failures.push(error.to_string()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let seconds = (clock::now_ns() - begin) as f64 / 1e9;
    let acked_per_second = (progress.acked.get() - acked) as f64 / seconds;
    progress.stop.set(true);
    if let Ok(Err(error)) = publisher.await {
        failures.push(format!("the publisher: {error}"));
    }
    failures.truncate(5);
    let join = latency.borrow().summary();
    let (clients, asked_per_second, refused) = (args.clients, args.rate, progress.refused.get());
    Ok(Joins { clients, whole, history_items, acked_per_second, asked_per_second, refused, join, failures })
}

/// One client; how many items of history it was given.
async fn client(args: &JoinsArgs, latency: &RefCell<Latency>) -> Result<u64, TrialError> {
    let mut peer = Peer::connect(args.target.target, None).await?;
    let asked = clock::now_ns();
    peer.say(&format!(r#"420["room:join",{{"room":"{ROOM}","history":{{"last":{}}}}}]"#, args.history)).await?;
    let ack = peer.expect("430[", "the answer to the join").await?;
    latency.borrow_mut().record_ns(clock::now_ns() - asked);
    let mut next = None;
    let mut items = 0;
    for n in history(&ack).ok_or_else(|| unexpected("items of history", &ack))? {
        follows(&mut next, n)?;
        items += 1;
    }
    if items != u64::from(args.history) {
        return Err(unexpected("as much history as was asked for", &items.to_string()));
    }
    let start = format!(r#"42["{EVENT}","#);
    for _ in 0..args.live {
        let packet = peer.expect(&start, "a message").await?;
        let (n, _) = publisher::stamp(&packet[start.len()..]).ok_or_else(|| unexpected("a number", &packet))?;
        follows(&mut next, n)?;
    }
    Ok(items)
}

/// Numbers of the messages in the history of an answer to a join.
fn history(ack: &str) -> Option<Vec<u64>> {
    #[derive(serde::Deserialize)]
    struct Answer {
        history: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        args: (u64, u64, Box<RawValue>),
    }
    let (answer,): (Answer,) = serde_json::from_str(ack.strip_prefix("430")?).ok()?;
    Some(answer.history.into_iter().map(|item| item.args.0).collect())
}

/// Whether `n` comes right behind what was seen before it.
fn follows(next: &mut Option<u64>, n: u64) -> Result<(), TrialError> {
    match next.replace(n + 1) {
        Some(wanted) if wanted < n => Err(unexpected("no gap", &format!("{n} where {wanted} was next"))),
        Some(wanted) if wanted > n => Err(unexpected("no repeat", &format!("{n} where {wanted} was next"))),
        Some(_) | None => Ok(()),
    }
}

fn unexpected(wanted: &'static str, seen: &str) -> TrialError {
    TrialError::Unexpected { wanted, seen: seen.chars().take(200).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repeats_are_told_apart() {
        let mut next = None;
        follows(&mut next, 7).unwrap();
        follows(&mut next, 8).unwrap();
        assert!(follows(&mut next.clone(), 10).unwrap_err().to_string().contains("no gap"));
        assert!(follows(&mut next, 8).unwrap_err().to_string().contains("no repeat"));
    }

    #[test]
    fn history_is_read_from_the_answer_to_a_join() {
        let ack = r#"430[{"ok":true,"room":"trial","history":[{"offset":1,"event":"m","args":[4,9,"x"]}]}]"#;
        assert_eq!(history(ack), Some(vec![4]));
        assert_eq!(history(r#"430[{"ok":false,"code":"forbidden"}]"#), None);
    }
}
