//! The mesh's thread: its own runtime, so that client load never starves gossip and links.
//!
//! Invariants: bound before it is run, so that a taken port is an error of the start; `ended` is cancelled when the thread
//! ends for whatever reason (another process with this node's name, for one), and the node then stops.

use std::{
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Context as _;
use mesh::{ClusterKeys, Driver, Mesh, NodeId};
use tokio::{task::LocalSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{clock, config::Config, context::Context, peers::Peers};

/// How often the thread shows that it lives.
const BEAT: Duration = Duration::from_secs(1);

/// The thread, bound and waiting for whom to tell.
pub(super) struct MeshThread {
    context: mpsc::Sender<Arc<Context>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl MeshThread {
    /// Lets it run for the node of `context`.
    pub(super) fn run(self, context: Arc<Context>) -> JoinHandle<anyhow::Result<()>> {
        // If the thread is gone its error is found when it is joined.
        let _ = self.context.send(context);
        self.thread
    }
}

/// Starts the thread and binds the mesh on it.
pub(super) fn bind(
    config: &Config,
    keys: &ClusterKeys,
    generation: u64,
    end: &CancellationToken,
    ended: &CancellationToken,
) -> anyhow::Result<(Mesh, MeshThread)> {
    let cluster = &config.cluster;
    let node = NodeId(cluster.ordinal);
    let mut settings = mesh::Config::new(node, &cluster.node, generation, keys.clone(), cluster.mesh_listen);
    settings.advertise = cluster.advertise;
    settings.seeds.clone_from(&cluster.seeds);
    let (bound, binding) = mpsc::channel();
    let (context, contexts) = mpsc::channel();
    let end = end.clone();
    let ended = ended.clone().drop_guard();
    let thread = thread::Builder::new().name("mesh".into()).spawn(move || -> anyhow::Result<()> {
        let _ended = ended;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let driver = mesh::bind(settings)?;
            // Both ends live on the starting thread; if it is gone there is no node to run for.
            let _ = bound.send(driver.handle());
            match contexts.recv() {
                Ok(context) => run(driver, context, end).await,
                Err(_) => Ok(()),
            }
        })
    })?;
    match binding.recv() {
        Ok(mesh) => Ok((mesh, MeshThread { context, thread })),
        Err(_) => match thread.join() {
            Ok(result) => {
                result.with_context(|| format!("the mesh could not be bound to {}", cluster.mesh_listen))?;
                anyhow::bail!("the mesh thread ended before it began")
            }
            Err(_) => anyhow::bail!("the mesh thread ended by a panic"),
        },
    }
}

async fn run(driver: Driver, context: Arc<Context>, end: CancellationToken) -> anyhow::Result<()> {
    let beats = async {
        loop {
            context.health.beat(context.mesh_thread(), clock::now());
            sleep(BEAT).await;
        }
    };
    tokio::select! {
        result = driver.run(Peers::new(context.clone()), end) => result.context("the mesh gave up"),
        () = beats => Ok(()),
    }
}
