//! The loop of the mesh thread: time and inputs in, packets, links and upcalls out.
//!
//! Invariants: one loop owns membership, links and the dial policy, so nothing is locked; tasks only tell it what they saw
//! ([`Input`], a bounded queue; gossip is dropped when it is full, everything else waits, and the loop never waits for a
//! task); a stop ends every task before `run` returns.

mod dialling;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quinn::{ConnectionError, Endpoint, Incoming};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::state::State;
use crate::{
    BindError, ClusterKeys, Config, Handler, Mesh, RefusalReason, RotateError, RunError, clock,
    close::Failure,
    endpoint::{self, Bound},
    greeting::{self, Greeted, Speaker, Target, Way},
    handle::{Counters, Shared, count},
    link::{Context, Link},
    membership::{Identity, Membership},
    refusals::Refusals,
    rng::{SplitMix, random_seed},
};

/// Inputs waiting for the loop. Full: tasks wait, gossip is dropped.
const INPUTS: usize = 4096;
/// How long a stop waits for tasks and for the last packets to leave.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// What tasks and handles tell the loop.
#[derive(Debug)]
pub(crate) enum Input {
    /// A connection finished its greeting.
    Greeted { greeted: Box<Greeted>, way: Way },
    /// As above, of a later process of a linked node; whether the earlier one answers.
    Asked { greeted: Box<Greeted>, way: Way, earlier: Arc<Link>, answers: bool },
    /// A connection came to nothing.
    Failed { failure: Failure, way: Way },
    /// The connection of a link ended.
    Closed { link: Arc<Link>, error: ConnectionError },
    /// A gossip packet.
    Packet(Bytes),
    /// A peer's roster; ours is the answer, if it asked.
    Roster { body: Bytes, answer: Option<oneshot::Sender<Bytes>> },
    /// The seeds are at these addresses.
    Seeds(Vec<SocketAddr>),
    /// Announce that we are going.
    Drain,
    /// Leave the cluster and tell when that is done.
    Leave(oneshot::Sender<()>),
    /// Use these keys from now on.
    Rotate { keys: Box<ClusterKeys>, done: oneshot::Sender<Result<(), RotateError>> },
}

/// A bound mesh that does not run yet.
pub struct Driver {
    config: Config,
    bound: Bound,
    membership: Membership,
    mesh: Mesh,
    inputs: mpsc::Receiver<Input>,
    rng: SplitMix,
}

/// Binds the socket and prepares everything; must be called in the runtime that will run the driver.
pub fn bind(config: Config) -> Result<Driver, BindError> {
    let bound = endpoint::bind(&config)?;
    let mut rng = SplitMix::new(random_seed());
    let me = Identity {
        node: config.node,
        generation: config.generation,
        edition: 0,
        draining: false,
        addr: config.advertise.unwrap_or_else(|| reachable(bound.address)),
        name: config.name.as_str().into(),
    };
    let membership = Membership::new(me.clone(), &config.timings, rng.next(), clock::now());
    let shared = Shared {
        me: ArcSwap::from_pointee(me),
        links: ArcSwap::from_pointee(BTreeMap::new()),
        view: ArcSwap::new(membership.view()),
        address: bound.address,
        buffers: (bound.receive_buffer, bound.send_buffer),
        counters: Counters::default(),
        refusals: Refusals::default(),
    };
    let (sender, inputs) = mpsc::channel(INPUTS);
    let mesh = Mesh { shared: Arc::new(shared), inputs: sender };
    tracing::info!(
        node = %config.node,
        address = %bound.address,
        receive_buffer = bound.receive_buffer,
        send_buffer = bound.send_buffer,
        "mesh bound"
    );
    Ok(Driver { config, bound, membership, mesh, inputs, rng })
}

/// Where peers on this machine reach a socket bound to `address`; the best guess until a peer tells what it sees.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip, address.port())
}

impl Driver {
    /// A handle for other threads.
    pub fn handle(&self) -> Mesh {
        self.mesh.clone()
    }

    /// Runs the mesh until `stop`. All upcalls come from here and from tasks of this runtime, which must be a
    /// current-thread one: the order of events relies on it.
    pub async fn run(self, handler: impl Handler, stop: CancellationToken) -> Result<(), RunError> {
        let Driver { config, bound, membership, mesh, mut inputs, rng } = self;
        let tracker = TaskTracker::new();
        let (inputs_of_tasks, shared) = (mesh.inputs.clone(), mesh.shared.clone());
        let context = Context { handler: Arc::new(handler), inputs: inputs_of_tasks, tracker: tracker.clone(), shared };
        let accepting = Accepting {
            context: context.clone(),
            limit: config.timings.dial_timeout,
            half_open: bound.half_open_limit,
        };
        let endpoint = bound.gate.endpoint().clone();
        tracker.spawn(accepting.run(endpoint.clone()));
        let mut state = State::new(config, bound.gate, context, membership, rng);
        let result = turn(&mut state, &mut inputs, &stop).await;
        state.stop("stopping");
        drop(inputs);
        tracker.close();
        let stopped = async {
            endpoint.wait_idle().await;
            tracker.wait().await;
        };
        if tokio::time::timeout(STOP_LIMIT, stopped).await.is_err() {
            tracing::debug!("some mesh tasks outlived the stop");
        }
        result
    }
}

/// The loop. Cancel safe in every arm: a receive and a sleep lose nothing.
async fn turn<H: Handler>(
    state: &mut State<H>,
    inputs: &mut mpsc::Receiver<Input>,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    loop {
        let due = state.perform(clock::now())?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            input = inputs.recv() => match input {
                Some(input) => state.handle_input(input, clock::now())?,
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(due.into()) => state.handle_timeout(clock::now()),
        }
    }
}

/// Takes connections in and greets them.
struct Accepting<H> {
    context: Context<H>,
    limit: Duration,
    half_open: usize,
}

impl<H: Handler> Accepting<H> {
    /// Until the endpoint closes. With many half-open connections newcomers must prove their address, with twice as many
    /// they are refused.
    async fn run(self, endpoint: Endpoint) {
        let permits = Arc::new(Semaphore::new(2 * self.half_open));
        while let Some(incoming) = endpoint.accept().await {
            let crowded = permits.available_permits() < self.half_open;
            let Ok(permit) = permits.clone().try_acquire_owned() else {
                count(&self.context.shared.counters.accepts_refused);
                self.context.shared.refusals.count(RefusalReason::Crowded);
                incoming.refuse();
                continue;
            };
            if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
                // It may fail only for a validated address, which was excluded.
                let _ = incoming.retry();
                continue;
            }
            let greeting = self.greet(incoming);
            self.context.tracker.spawn(async move {
                greeting.await;
                drop(permit);
            });
        }
    }

    fn greet(&self, incoming: Incoming) -> impl Future<Output = ()> + Send + use<H> {
        let (inputs, shared, limit) = (self.context.inputs.clone(), self.context.shared.clone(), self.limit);
        let way = Way::Accepted(incoming.remote_address());
        async move {
            let input = match greeting::accept(incoming, shared.speaker(), limit).await {
                Ok(greeted) => Input::Greeted { greeted: Box::new(greeted), way },
                Err(failure) => Input::Failed { failure, way },
            };
            // The loop may have ended meanwhile.
            let _ = inputs.send(input).await;
        }
    }
}

/// Dials and greets, and tells the loop how it went.
pub(crate) async fn dial(
    endpoint: Endpoint,
    target: Target,
    speaker: Speaker,
    limit: Duration,
    inputs: mpsc::Sender<Input>,
) {
    let way = Way::Dialled(target);
    let input = match greeting::dial(endpoint, target.addr, target.node, speaker, limit).await {
        Ok(greeted) => Input::Greeted { greeted: Box::new(greeted), way },
        Err(failure) => Input::Failed { failure, way },
    };
    // The loop may have ended meanwhile.
    let _ = inputs.send(input).await;
}
