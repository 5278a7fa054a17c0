//! Reads the whole history of every room when all is over.
//!
//! Invariant: it is read through every node that is there, so that nodes which disagree are seen.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{sleep, timeout};

use crate::packet::{Answer, Packet, question};
use crate::record::{Item, Place, Recorder, What};
use crate::stage::Door;
use crate::wire::Wire;

const PAGE: u32 = 1000;
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 20;
const RETRY: Duration = Duration::from_millis(250);

/// Records the history of each room as each node tells it.
pub(crate) async fn read(recorder: &Recorder, doors: &[Door], rooms: &[String]) -> Result<()> {
    for door in doors {
        let mut wire = Wire::connect(door.address).await.with_context(|| format!("{} lets nobody in", door.name))?;
        let mut asked = 0;
        for room in rooms {
            let (at, items) = history(&mut wire, room, &mut asked)
                .await
                .with_context(|| format!("{} does not tell the history of {room}", door.name))?;
            let who = format!("auditor at {}", door.name);
            recorder.add(&who, What::History { room: room.clone(), at, items });
        }
    }
    Ok(())
}

/// Everything a room has, oldest first, read page by page from its end.
async fn history(wire: &mut Wire, room: &str, asked: &mut u64) -> Result<(Place, Vec<Item>)> {
    let (mut head, mut items, mut seen) = (None, Vec::new(), HashSet::new());
    let mut from: Option<Place> = None;
    loop {
        let argument = match &from {
            Some(at) => {
                serde_json::json!({ "room": room, "limit": PAGE, "reverse": true, "since": at.offset, "epoch": at.epoch })
            }
            None => serde_json::json!({ "room": room, "limit": PAGE, "reverse": true }),
        };
        let page = ask(wire, asked, &argument).await?;
        head = head.or(page.at);
        let new: Vec<Item> = page.items.into_iter().filter(|item| seen.insert(item.at.clone())).collect();
        let done = page.complete || new.is_empty();
        from = new.last().map(|item| item.at.clone());
        items.extend(new);
        if done {
            break;
        }
    }
    items.reverse();
    Ok((head.context("an answer without a place")?, items))
}

async fn ask(wire: &mut Wire, asked: &mut u64, argument: &serde_json::Value) -> Result<Answer> {
    for _ in 0..ATTEMPTS {
        *asked += 1;
        wire.say(&question(*asked, "room:history", argument));
        let answer = timeout(ANSWER_PATIENCE, async {
            loop {
                if let Packet::Ack { id, answer } = Packet::read(&wire.packet().await?)
                    && id == *asked
                {
                    return anyhow::Ok(answer);
                }
            }
        });
        match answer.await.context("no answer")?? {
            Ok(answer) => return Ok(answer),
            Err(refusal) if ["overloaded", "timeout"].contains(&refusal.code.as_str()) => sleep(RETRY).await,
            Err(refusal) => bail!("refused: {}", refusal.code),
        }
    }
    bail!("refused {ATTEMPTS} times")
}
