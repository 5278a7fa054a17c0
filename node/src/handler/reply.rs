//! What became of something that was asked for from outside the shards.
//!
//! Invariants: told once; what was asked for is done whether or not somebody waits; a node that ends without having told
//! says `draining`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;

use super::{Code, Refused};

/// An outcome that is on its way: a future for any executor, or [`Reply::wait`] for a thread that may block. Whoever drops
/// it is not told.
#[derive(Debug)]
#[must_use = "what was asked for is done in any case; `drop` says that nobody wants to know"]
pub struct Reply<T>(oneshot::Receiver<Result<T, Refused>>);

/// The other end of a `Reply`.
#[derive(Debug)]
pub(super) struct Tell<T>(oneshot::Sender<Result<T, Refused>>);

impl<T> Reply<T> {
    pub(super) fn new() -> (Tell<T>, Reply<T>) {
        let (tell, reply) = oneshot::channel();
        (Tell(tell), Reply(reply))
    }

    /// Blocks this thread until the outcome is there. Never call it in a handler or in an asynchronous task: it would stop
    /// the very thread that has to answer, and panics there.
    ///
    /// # Errors
    /// It had no effect, see [`Refused`].
    pub fn wait(self) -> Result<T, Refused> {
        self.0.blocking_recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl<T> Future for Reply<T> {
    type Output = Result<T, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or_else(|_| Err(ended())))
    }
}

impl<T> Tell<T> {
    /// Nobody may want to know any more.
    pub(super) fn tell(self, outcome: Result<T, Refused>) {
        let _ = self.0.send(outcome);
    }
}

fn ended() -> Refused {
    Refused::new(Code::Draining, "this node is going away; whether it had an effect is unknown")
}
