//! Giving up what a node has while others can still take it: connections, then slots.
//!
//! Invariants: both have an end in time, whatever clients and other nodes do; slots go from the moment the others know that
//! this node drains, so most are gone when the last connection is; what is left then is waited for and said.

use std::{sync::atomic::Ordering, time::Duration};

use mesh::slot::Census;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use crate::{context::Context, message::Message};

/// Time beyond the drain window for the last connections to go.
const DRAIN_GRACE: Duration = Duration::from_secs(3);
/// How long others may take to take over what is left when the connections are gone.
const HAND_OVER_MAX: Duration = Duration::from_secs(10);
/// How often it is counted, and how often that is logged.
const COUNT_PAUSE: Duration = Duration::from_millis(50);
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Closes every connection at a pace that spreads them over the drain window.
pub(super) async fn close_connections(context: &Context) {
    let window = context.config.drain.window;
    let mut waiting = Vec::new();
    for shard in &context.shards {
        let connections = context.connections.load(Ordering::Relaxed) / context.shards.len().max(1);
        let seconds = window.as_secs_f64().max(0.1);
        // The quotient is small and positive: connections fit in an f64, and a pace needs no exactness.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
        let per_second = (connections as f64 / seconds).ceil() as usize;
        let (done, drained) = oneshot::channel();
        shard.send(Message::Drain { per_second, done });
        waiting.push(drained);
    }
    let all = async {
        for drained in waiting {
            let _ = drained.await;
        }
    };
    if timeout(window + DRAIN_GRACE, all).await.is_err() {
        tracing::warn!("some connections did not close within the drain window and are dropped");
    }
}

/// Waits until other nodes have every slot that this one owns or holds a copy of, if there are others.
pub(super) async fn hand_over(context: &Context) {
    let mut last = Census::default();
    if timeout(HAND_OVER_MAX, handed_over(context, &mut last)).await.is_err() {
        let (left, Census { owned, single_copy, .. }) = (held(last), last);
        tracing::error!(
            left,
            owned,
            single_copy,
            "not all slots were handed over in time; their other copies take over"
        );
    }
}

async fn handed_over(context: &Context, last: &mut Census) {
    let begun = Instant::now();
    let mut told = begun;
    while has_heirs(context) {
        *last = census(context).await;
        let left = held(*last);
        if left == 0 {
            tracing::info!(waited = ?begun.elapsed(), "all slots are with other nodes");
            return;
        }
        if told.elapsed() >= LOG_PAUSE {
            told = Instant::now();
            tracing::info!(left, owned = last.owned, "handing slots over");
        }
        sleep(COUNT_PAUSE).await;
    }
}

/// Slots whose frames this node has to have.
fn held(census: Census) -> u32 {
    census.owned + census.replica_in_sync + census.replica_syncing
}

/// Whether somebody could take a slot.
fn has_heirs(context: &Context) -> bool {
    context.mesh.as_ref().is_some_and(|mesh| mesh.view().members.iter().any(|member| member.node != context.node))
}

/// What this node is to how many slots, all shards together. Never completes if a shard has ended.
async fn census(context: &Context) -> Census {
    let mut waiting = Vec::with_capacity(context.shards.len());
    for shard in &context.shards {
        let (reply, counted) = oneshot::channel();
        shard.send(Message::Census { reply });
        waiting.push(counted);
    }
    let mut sum = Census::default();
    for counted in waiting {
        let Census { owned, single_copy, replica_in_sync, replica_syncing, witness } =
            counted.await.unwrap_or_default();
        sum.owned += owned;
        sum.single_copy += single_copy;
        sum.replica_in_sync += replica_in_sync;
        sum.replica_syncing += replica_syncing;
        sum.witness += witness;
    }
    sum
}
