//! One shard as its tasks hold it: the gateway of this thread, and the way to give it something.
//!
//! Invariants: the gateway is borrowed only inside `with`, which never awaits; every input ends by waking the turn; every
//! task that has something to finish is on one tracker and ends with the shard.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

use mesh::slot::Slots;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    context::Context,
    gateway::{Gateway, Task},
    key::ConnKey,
    message::Message,
};

/// What is read from a client at once.
const SCRATCH_BYTES: usize = 16 * 1024;

/// See the module.
pub(crate) struct Shard {
    number: u8,
    context: Arc<Context>,
    gateway: RefCell<Gateway>,
    wake: Notify,
    scratch: RefCell<Vec<u8>>,
    tasks: TaskTracker,
    /// Cancelled when the shard's tasks must end.
    end: CancellationToken,
}

impl Shard {
    /// A shard without connections; its tasks end when `end` is cancelled.
    pub(crate) fn new(number: u8, context: Arc<Context>, slots: Slots, end: CancellationToken) -> Rc<Shard> {
        Rc::new(Shard {
            number,
            gateway: RefCell::new(Gateway::new(context.clone(), number, slots)),
            context,
            wake: Notify::new(),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES]),
            tasks: TaskTracker::new(),
            end,
        })
    }

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
        let mut gateway = self.gateway.borrow_mut();
        gateway.look_at_store();
        let result = input(&mut gateway);
        self.wake.notify_one();
        result
    }

    /// Bytes that the next message of a connection may have. Never call it from inside the gateway.
    pub(crate) fn message_max(&self, key: ConnKey) -> usize {
        self.gateway.borrow().message_max(key)
    }

    /// Ends a turn; what it returns has to be started.
    pub(crate) fn turn(&self, now: Instant) -> Vec<Task> {
        self.gateway.borrow_mut().turn(now)
    }

    /// Completes after an input. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// When the next turn has to happen even if nothing arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.gateway.borrow().poll_timeout()
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
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let end = self.end.clone();
        self.tasks.spawn_local(async move {
            tokio::select! {
                () = end.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Runs a task that only waits for a client, and is dropped where it stands when the thread ends. There are thousands:
    /// one costs no more than itself.
    #[expect(clippy::disallowed_methods, reason = "a stop has nothing to wait for")]
    pub(crate) fn attend(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    /// Lends a buffer that the thread's tasks share: what is in it means nothing afterwards. Never call it from inside
    /// itself.
    pub(crate) fn with_scratch<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.scratch.borrow_mut())
    }

    /// Completes when the shard has to end. Cancel safe.
    pub(crate) async fn ending(&self) {
        self.end.cancelled().await;
    }

    /// Waits until every task has ended.
    pub(crate) async fn tasks_ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
