//! One shard: a thread with its own runtime, its own connections, its own members and its own slots.
//!
//! Invariants: the gateway is borrowed only inside `with`, which never awaits; every input ends by waking the turn, and
//! one turn serves all inputs that came before it (so that what is busy is batched and what is idle leaves at once); every
//! task is on one tracker and ends with the shard.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::slot::{Resume, Slots};
use tokio::{
    net::TcpStream,
    sync::Notify,
    task::LocalSet,
    time::{Instant as Deadline, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock,
    connection::ConnKey,
    context::Context,
    gateway::{Gateway, Task},
    mailbox,
    message::Message,
    server,
    transport::websocket,
};

/// A turn happens at least this often: it is the thread's heartbeat.
const BEAT: Duration = Duration::from_secs(1);
/// How long a peer's answer to a question about history may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Shard {
    number: u8,
    context: Arc<Context>,
    gateway: RefCell<Gateway>,
    wake: Notify,
    tasks: TaskTracker,
    /// Cancelled when the shard's tasks must end.
    end: CancellationToken,
}

/// What a shard's thread is started with.
pub(crate) struct Start {
    pub(crate) number: u8,
    pub(crate) context: Arc<Context>,
    pub(crate) slots: Slots,
    pub(crate) inbox: mailbox::Receiver<Message>,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) end: CancellationToken,
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
    let Start { number, context, slots, inbox, listener, end } = start;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shard = Rc::new(Shard {
        number,
        gateway: RefCell::new(Gateway::new(context.clone(), number, slots)),
        context,
        wake: Notify::new(),
        tasks: TaskTracker::new(),
        end,
    });
    shard.spawn(read_mailbox(shard.clone(), inbox));
    shard.spawn(server::accept(shard.clone(), listener));
    turns(&shard).await;
    shard.tasks.close();
    // Connection tasks hold the sockets; what is still open now goes down with the thread.
    let _ = tokio::time::timeout(Duration::from_millis(200), shard.tasks.wait()).await;
    Ok(shard.gateway.borrow().to_resume())
}

impl Shard {
    /// This shard's number.
    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    /// What all shards share.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Gives the gateway one input. Never call it from inside itself.
    pub(crate) fn with<T>(&self, input: impl FnOnce(&mut Gateway) -> T) -> T {
        let result = input(&mut self.gateway.borrow_mut());
        self.wake.notify_one();
        result
    }

    /// Says something to a shard, which may be this one.
    ///
    /// This shard too is told through its mailbox: a client's requests may come over several shards, and what one of them
    /// said first must be heard first.
    pub(crate) fn tell(&self, shard: u8, message: Message) {
        if let Some(mailbox) = self.context.shards.get(usize::from(shard)) {
            mailbox.send(message);
        }
    }

    /// Runs a task of this shard until it ends or the shard does.
    pub(crate) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let end = self.end.clone();
        self.tasks.spawn_local(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn start(self: &Rc<Self>, task: Task) {
        match task {
            Task::AwaitWritable(key, tcp) => self.spawn(catch_up(self.clone(), key, tcp)),
            Task::ReadWebSocket { key, tcp, rest } => self.spawn(websocket::read(self.clone(), key, tcp, rest)),
            Task::Fetch { read, from, request } => self.spawn(fetch(self.clone(), read, from, request)),
        }
    }
}

/// Ends turn after turn. Cancel safe: a turn has no await inside.
async fn turns(shard: &Rc<Shard>) {
    loop {
        let now = clock::now();
        let due = shard.gateway.borrow().poll_timeout().map_or(now + BEAT, |due| due.min(now + BEAT));
        tokio::select! {
            () = shard.end.cancelled() => return,
            () = shard.wake.notified() => {}
            () = sleep_until(Deadline::from_std(due)) => {}
        }
        let now = clock::now();
        shard.context.health.beat(usize::from(shard.number), now);
        if let Some(lag) = shard.context.metrics.event_loop_lag_seconds.of(usize::from(shard.number)) {
            lag.set(now.saturating_duration_since(due).as_secs_f64());
        }
        let tasks = shard.gateway.borrow_mut().turn(now);
        for task in tasks {
            shard.start(task);
        }
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
async fn catch_up(shard: Rc<Shard>, key: ConnKey, tcp: Rc<TcpStream>) {
    loop {
        if tcp.writable().await.is_err() || !shard.with(|gateway| gateway.handle_writable(key, clock::now())) {
            return;
        }
    }
}

/// Asks a peer about history.
async fn fetch(shard: Rc<Shard>, read: u64, from: mesh::NodeId, request: Bytes) {
    let Some(mesh) = shard.context.mesh.clone() else { return };
    let answer = mesh.request(from, request, FETCH_TIMEOUT).await.ok();
    shard.with(|gateway| gateway.handle_fetched(read, answer));
}
