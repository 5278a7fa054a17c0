//! Queues between threads: batches of messages, counted in bytes, one wake-up per batch.
//!
//! Invariants: a sender never blocks; order of one sender is kept; `bytes` is what waits, since both change under one lock.
//!
//! Full-policy: the bound is applied where work enters the node, not between its threads. Frames and answers that follow
//! from admitted work are always taken, since refusing one would break the order of a room; whoever admits new work
//! (a socket's event, a peer's lane) asks `is_full` or awaits `ready` first.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

/// Bytes that may wait for one thread before new work is refused.
pub(crate) const MAILBOX_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a message weighs in a mailbox.
pub(crate) trait Weigh {
    /// Bytes, payloads included.
    fn weight(&self) -> usize;
}

struct Shared<T> {
    queue: Mutex<VecDeque<T>>,
    bytes: AtomicUsize,
    filled: Notify,
    emptied: Notify,
}

/// The sending side; cheap to clone.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The receiving side.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A new, empty mailbox.
pub(crate) fn mailbox<T: Weigh>() -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(VecDeque::new()),
        bytes: AtomicUsize::new(0),
        filled: Notify::new(),
        emptied: Notify::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender(self.0.clone())
    }
}

impl<T: Weigh> Sender<T> {
    /// Adds one message.
    pub(crate) fn send(&self, message: T) {
        self.send_all(std::iter::once(message));
    }

    /// Adds a batch, in order, with one wake-up.
    pub(crate) fn send_all(&self, messages: impl IntoIterator<Item = T>) {
        let mut added = 0;
        {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            for message in messages {
                added += message.weight();
                queue.push_back(message);
            }
            // Inside the lock: `take` must not subtract what was not added yet.
            self.0.bytes.fetch_add(added, Ordering::Relaxed);
        }
        self.0.filled.notify_one();
    }

    /// Whether new work should be refused.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() > MAILBOX_BYTES_MAX
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Waits until new work may be added. Cancel safe: nothing is taken.
    pub(crate) async fn ready(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            if !self.is_full() {
                return;
            }
            emptied.await;
        }
    }
}

impl<T: Weigh> Receiver<T> {
    /// Takes everything that waits; pending while there is nothing. Cancel safe: messages are taken only when it returns.
    pub(crate) async fn recv(&mut self) -> VecDeque<T> {
        loop {
            let batch = self.take();
            if !batch.is_empty() {
                return batch;
            }
            self.0.filled.notified().await;
        }
    }

    /// Takes what waits now.
    pub(crate) fn take(&mut self) -> VecDeque<T> {
        let batch = {
            let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.bytes.store(0, Ordering::Relaxed);
            std::mem::take(&mut *queue)
        };
        self.0.emptied.notify_waiters();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Heavy(u8);

    impl Weigh for Heavy {
        fn weight(&self) -> usize {
            MAILBOX_BYTES_MAX / 2 + 1
        }
    }

    #[tokio::test]
    async fn a_full_mailbox_is_ready_again_once_it_was_read() {
        let (sender, mut receiver) = mailbox();
        sender.send_all([Heavy(1), Heavy(2)]);
        assert!(sender.is_full());
        let (batch, ()) = tokio::join!(receiver.recv(), sender.ready());
        assert_eq!(batch.iter().map(|heavy| heavy.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(sender.bytes(), 0);
    }
}
