//! A node from start to stop, in order: store, mesh, shards, admin port; and the reverse.
//!
//! Invariants: whatever can fail at the start fails before a client is served, with one sentence that says what; a stop
//! begins with readiness, ends with the store, and takes a bounded time; the last thing written is the clean marker.

mod leave;
mod start;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use persistence::AppendError;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{self, Fact},
    clock,
    cluster::{Cluster, Sampler},
    cluster_key,
    config::Config,
    context::Context,
    handler::{self, Handler, NoHandler},
    memory,
    run::Kept,
    tls,
};
use start::{Begun, Ends, Node, Serving};
#[cfg(test)]
pub(crate) use start::{gateway_alone, gateway_with_inbox};

/// How often the admin thread shows that it lives and looks after the store.
const BEAT: Duration = Duration::from_secs(1);
/// How long a node with seeds waits for its first peer before it serves alone.
const JOIN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a full queue of the store is waited for at a stop, and how often it is tried.
const KEEP_PAUSE: Duration = Duration::from_millis(20);
const KEEP_ATTEMPTS: u32 = 250;

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// It could not start, or not stop cleanly; the sentence says what to do.
pub fn serve(config: Config) -> anyhow::Result<()> {
    serve_with(config, NoHandler)
}

/// Runs a node that `handler` is embedded in until SIGTERM or SIGINT.
///
/// # Errors
/// As [`serve`].
pub fn serve_with(config: Config, handler: impl Handler) -> anyhow::Result<()> {
    start::log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(config, Arc::new(handler)))
}

async fn run(config: Config, handler: Arc<dyn Handler>) -> anyhow::Result<()> {
    // A write beyond a file-size limit must be an error the store sees, not the end of the process.
    let _file_size_signal = signal(SignalKind::from_raw(start::SIGXFSZ))?;
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let stopping = CancellationToken::new();
    let Begun { node, admin, keys } = start::begin(config, handler).await?;
    let context = node.context.clone();
    context.handler.on_start(&handler::Node::new(context.clone()));
    // The admin port answers from before the first client until after the last: that is when somebody looks.
    tokio::select! {
        result = live(node, &stopping) => result,
        result = serve_admin(&context, admin) => result,
        () = beat(&context) => Ok(()),
        () = tls::watch(&context) => Ok(()),
        () = cluster_key::watch(&context, keys) => Ok(()),
        () = memory::watch(&context) => Ok(()),
        () = listen_for_signals(terminate, interrupt, &stopping) => Ok(()),
    }
}

/// Joins the cluster, serves clients until told to stop, and gives everything back.
async fn live(node: Node, stopping: &CancellationToken) -> anyhow::Result<()> {
    let context = node.context.clone();
    tokio::select! {
        () = joined(&context) => {}
        () = stopping.cancelled() => {}
        () = node.ended.cancelled() => return given_up(&context, node),
    }
    let Serving { shards, mesh, end, ended } = start::serve_clients(node)?;
    tokio::select! {
        () = stopping.cancelled() => tracing::info!("stopping"),
        () = ended.cancelled() => tracing::error!("a thread ended by itself; stopping"),
    }
    stop(&context, &end, shards, mesh).await
}

/// The mesh ended before a client was served: another process is this node, for one.
fn given_up(context: &Context, node: Node) -> anyhow::Result<()> {
    let closed = context.store.close().context("the store was not closed cleanly");
    node.mesh.map_or(Ok(()), join_mesh).and(closed)
}

/// Asks for a stop at the first signal. Never returns: a second one must not cut the stop short.
async fn listen_for_signals(mut terminate: Signal, mut interrupt: Signal, stopping: &CancellationToken) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    }
}

async fn beat(context: &Context) {
    loop {
        context.note_store();
        context.health.beat(context.admin_thread(), clock::now());
        sleep(BEAT).await;
    }
}

/// Samples the metrics when they are asked for.
fn refresh(context: Arc<Context>) -> Arc<dyn Fn() + Send + Sync> {
    let sampler = Mutex::new(Sampler::default());
    Arc::new(move || sampler.lock().unwrap_or_else(PoisonError::into_inner).sample(&context))
}

async fn serve_admin(context: &Arc<Context>, listener: tokio::net::TcpListener) -> anyhow::Result<()> {
    let state = api::State {
        health: context.health.clone(),
        metrics: context.metrics.clone(),
        cluster: Arc::new(Cluster::new(context.clone())),
        loopback: context.config.server.admin_listen.ip().is_loopback(),
        refresh: refresh(context.clone()),
        now: clock::now,
    };
    axum::serve(listener, api::router(state)).await.context("the admin port failed")
}

/// Gives everything back in the reverse order of the start.
async fn stop(
    context: &Arc<Context>,
    end: &Ends,
    shards: Vec<JoinHandle<std::io::Result<Kept>>>,
    mesh: Option<JoinHandle<anyhow::Result<()>>>,
) -> anyhow::Result<()> {
    context.health.set(Fact::Draining, true);
    context.metrics.draining.set(1);
    if let Some(mesh) = &context.mesh {
        mesh.drain().await;
    }
    context.stop_accepting.cancel();
    leave::close_connections(context).await;
    leave::hand_over(context).await;
    end.shards.cancel();
    let kept = join_shards(shards);
    if let Some(handle) = &context.mesh {
        handle.leave().await;
    }
    end.mesh.cancel();
    let left = mesh.map_or(Ok(()), join_mesh);
    // Whatever went wrong above, what was acknowledged is written.
    let stored = match kept {
        Ok(kept) => keep(context, kept).await,
        Err(error) => Err(error),
    };
    let closed = context.store.close().context("the store was not closed cleanly");
    stored.and(closed).and(left)?;
    tracing::info!("stopped");
    Ok(())
}

fn join_shards(shards: Vec<JoinHandle<std::io::Result<Kept>>>) -> anyhow::Result<Kept> {
    let mut kept = Kept::new();
    for shard in shards {
        match shard.join() {
            Ok(slots) => kept.extend(slots.context("a shard failed")?),
            Err(_) => anyhow::bail!("a shard ended by a panic; history since then may be missing"),
        }
    }
    Ok(kept)
}

fn join_mesh(thread: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    match thread.join() {
        Ok(result) => result.context("the mesh failed"),
        Err(_) => anyhow::bail!("the mesh thread ended by a panic"),
    }
}

/// Writes down where every slot stands. The store's queue may be full for a commit or two.
async fn keep(context: &Context, kept: Kept) -> anyhow::Result<()> {
    for (slot, resume) in kept {
        let value = resume.encode();
        let mut attempts = 0;
        while let Err(error) = context.store.put_meta(slot, value.clone()) {
            attempts += 1;
            if error != AppendError::QueueFull || attempts > KEEP_ATTEMPTS {
                return Err(error).context("the state of a slot was not kept");
            }
            sleep(KEEP_PAUSE).await;
        }
    }
    Ok(())
}

/// Waits until this node is part of its cluster, or long enough.
async fn joined(context: &Context) {
    if context.config.cluster.seeds.is_empty() {
        context.health.set(Fact::Joined, true);
    }
    let waited = timeout(JOIN_PATIENCE, async {
        while !context.health.is(Fact::Joined) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    if waited.await.is_err() {
        tracing::warn!("no seed answered; serving alone and looking for peers");
        context.health.set(Fact::Joined, true);
    }
}
