//! A shard's thread: its runtime, its turns, and the tasks around them.
//!
//! Invariants: one turn serves all inputs that came before it, so that what is busy is batched and what is idle leaves at
//! once; a turn happens at least once a second and is the thread's heartbeat.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh::slot::{Resume, Slots};
use tokio::{
    task::LocalSet,
    time::{Instant as Deadline, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Fact,
    clock,
    context::Context,
    forward,
    gateway::{Carry, Giver, Task},
    key::ConnKey,
    mailbox,
    message::Message,
    orders, server,
    shard::Shard,
    transport::websocket,
    wire::Line,
};

/// A turn happens at least this often.
const BEAT: Duration = Duration::from_secs(1);
/// How long a peer's answer to a question about a slot may take. A part of a copy may wait for a busy disk; that a peer died
/// is noticed sooner, by the end of its link.
const FETCH_TIMEOUT: Duration = Duration::from_secs(6);
/// How long connection tasks may take to notice the end; what is still open then goes down with the thread.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// What a shard's thread is started with.
pub(crate) struct Start {
    pub(crate) number: u8,
    pub(crate) context: Arc<Context>,
    pub(crate) slots: Slots,
    pub(crate) inbox: mailbox::Receiver<Message>,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) end: CancellationToken,
    /// Shards that do not serve yet: the last one says that the node does.
    pub(crate) missing: Arc<AtomicUsize>,
}

/// Slots by number, as a clean stop left them.
pub(crate) type Kept = BTreeMap<u16, Resume>;

/// Runs a shard on this thread until `Start::end` is cancelled; what a clean stop keeps of its slots.
///
/// # Errors
/// The runtime or the listener could not be set up; nothing was served.
pub(crate) fn run(start: Start) -> std::io::Result<Kept> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(start))
}

async fn serve(start: Start) -> std::io::Result<Kept> {
    let Start { number, context, slots, inbox, listener, end, missing } = start;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shard = Shard::new(number, context, slots, end);
    shard.spawn(read_mailbox(shard.clone(), inbox));
    shard.spawn(server::accept(shard.clone(), listener));
    if missing.fetch_sub(1, Ordering::AcqRel) == 1 {
        shard.context().health.set(Fact::Listening, true);
    }
    turns(&shard).await;
    let _ = timeout(END_PATIENCE, shard.tasks_ended()).await;
    Ok(shard.with(|gateway| gateway.to_resume()))
}

/// Ends turn after turn. Cancel safe: a turn has no await inside.
async fn turns(shard: &Rc<Shard>) {
    let thread = usize::from(shard.number());
    loop {
        let now = clock::now();
        let due = shard.poll_timeout().map_or(now + BEAT, |due| due.min(now + BEAT));
        let late = tokio::select! {
            () = shard.ending() => return,
            () = shard.woken() => None,
            () = sleep_until(Deadline::from_std(due)) => Some(clock::now().saturating_duration_since(due)),
        };
        let now = clock::now();
        shard.context().health.beat(thread, now);
        if let (Some(late), Some(lag)) = (late, shard.context().metrics.event_loop_lag_seconds.of(thread)) {
            lag.set(late.as_secs_f64());
        }
        for task in shard.turn(now) {
            start(shard, task);
        }
    }
}

fn start(shard: &Rc<Shard>, task: Task) {
    match task {
        Task::AwaitWritable(key, line) => shard.spawn(catch_up(shard.clone(), key, line)),
        Task::ReadWebSocket { key, line, rest } => websocket::start(shard, key, line, &rest),
        Task::Serve(forwarded) => shard.spawn(forward::owner::serve(shard.clone(), forwarded)),
        Task::Carry(carry) => shard.spawn(carry_out(shard.clone(), carry)),
        Task::Fetch { read, from, request } => shard.spawn(fetch(shard.clone(), read, from, request)),
    }
}

/// Takes batches of messages from other threads.
async fn read_mailbox(shard: Rc<Shard>, mut inbox: mailbox::Receiver<Message>) {
    loop {
        let batch = inbox.recv().await;
        shard.with(|gateway| {
            let now = clock::now();
            for message in batch {
                gateway.handle(message, now);
            }
        });
    }
}

/// Writes what a lagging connection is behind whenever the kernel takes more.
async fn catch_up(shard: Rc<Shard>, key: ConnKey, line: Rc<Line>) {
    loop {
        let writable = tokio::select! {
            () = line.ended() => return,
            writable = line.tcp().writable() => writable,
        };
        if writable.is_err() || !shard.with(|gateway| gateway.handle_writable(key, &line)) {
            return;
        }
    }
}

/// Has an order carried out and tells who gave it.
async fn carry_out(shard: Rc<Shard>, Carry { order, back }: Carry) {
    let context = shard.context().clone();
    match back {
        // Without an answer the responder is dropped, which tells the peer as much.
        Giver::Peer(responder) => {
            if let Some(done) = orders::carry_out_for_peer(&context, order).await {
                responder.answer(done.encode());
            }
        }
        Giver::Question { token, patience } => {
            let carried = orders::carry_out(&context, order, patience).await;
            shard.with(|gateway| gateway.handle_carried(token, carried));
        }
    }
}

/// Asks a peer about a slot.
async fn fetch(shard: Rc<Shard>, read: u64, from: mesh::NodeId, request: Bytes) {
    let Some(mesh) = shard.context().mesh.clone() else { return };
    let answer = mesh.request(from, request, FETCH_TIMEOUT).await.ok();
    shard.with(|gateway| gateway.handle_fetched(read, answer));
}
