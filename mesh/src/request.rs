//! Questions and answers between nodes: one bidirectional stream each.
//!
//! Invariants: bodies are bounded by [`MAX_REQUEST`] and [`MAX_ANSWER`]; questions waiting for a peer cost at most
//! [`BUDGET`] together, more are refused; every question ends with an answer, a refusal or an error within its timeout,
//! which runs from the moment it was asked.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{
    RequestError,
    endpoint::priority,
    pipe,
    wire::{
        control::MAX_ROSTER,
        header::{Decoder, FrameError, HEADER, Kind, frame},
    },
};

/// Largest question.
pub const MAX_REQUEST: usize = 1 << 20;
/// Largest first frame of a stream with two directions.
pub(crate) const MAX_FIRST: usize = if MAX_REQUEST > MAX_ROSTER { MAX_REQUEST } else { MAX_ROSTER };
/// Largest answer.
pub const MAX_ANSWER: usize = 8 << 20;
/// Bytes that questions waiting for one peer may hold, their bookkeeping included.
const BUDGET: u32 = 4 << 20;
/// What a question costs beside its body.
const BOOKKEEPING: u32 = 1024;
/// How long a peer may take to say its question, and to take our answer: what they hold is freed then.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bodies up to this size go before room frames, which they hardly delay; larger ones go after them, which must not wait for
/// bulk (`mesh.md` 3 j).
const URGENT: usize = 16 << 10;

/// A question on its way to the link's task.
#[derive(Debug)]
pub(crate) struct Ask {
    body: Bytes,
    timeout: Duration,
    answer: oneshot::Sender<Result<Bytes, RequestError>>,
    /// Its share of the budget, given back when it is over.
    _share: OwnedSemaphorePermit,
}

/// Takes questions for one peer from any thread, as long as the budget lasts.
#[derive(Debug)]
pub(crate) struct Asks {
    budget: Arc<Semaphore>,
    /// Unbounded by itself: every question in it holds a share of the budget.
    queue: mpsc::UnboundedSender<Ask>,
}

/// What [`Asks::ask`] gives back: the answer will come here.
pub(crate) type Answered = oneshot::Receiver<Result<Bytes, RequestError>>;

impl Asks {
    /// The two ends.
    pub(crate) fn new() -> (Asks, mpsc::UnboundedReceiver<Ask>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        (Asks { budget: Arc::new(Semaphore::new(BUDGET as usize)), queue }, waiting)
    }

    /// Queues a question, or says why not.
    pub(crate) fn ask(&self, body: Bytes, timeout: Duration) -> Result<Answered, RequestError> {
        let cost = match u32::try_from(body.len()) {
            Ok(len) if body.len() <= MAX_REQUEST => len + BOOKKEEPING,
            Ok(_) | Err(_) => return Err(RequestError::TooLarge),
        };
        let share = self.budget.clone().try_acquire_many_owned(cost).map_err(|_| RequestError::Full)?;
        let (answer, answered) = oneshot::channel();
        let ask = Ask { body, timeout, answer, _share: share };
        self.queue.send(ask).map_err(|_| RequestError::NoLink)?;
        Ok(answered)
    }
}

/// Asks and waits for the answer; gives up early when the asker did.
pub(crate) async fn ask(connection: Connection, ask: Ask) {
    let Ask { body, timeout, mut answer, _share } = ask;
    let exchange = async {
        match exchange(&connection, Kind::Request, &body, MAX_ANSWER).await {
            Ok((Kind::Answer, body)) => Ok(body),
            Ok(_) => Err(RequestError::Refused),
            Err(Exchange::Lost) => Err(RequestError::LinkLost),
            Err(Exchange::TooLarge) => Err(RequestError::Refused),
        }
    };
    // Cancel safe: dropping the exchange drops its streams, which resets them.
    let result = tokio::select! {
        result = tokio::time::timeout(timeout, exchange) => result.unwrap_or(Err(RequestError::Timeout)),
        () = answer.closed() => return,
    };
    // The asker may have given up in this very moment.
    let _ = answer.send(result);
}

/// Sends our roster and returns the peer's; `None` when the link broke or the peer refused.
pub(crate) async fn push_pull(connection: Connection, roster: Bytes, limit: Duration) -> Option<Bytes> {
    let exchange = exchange(&connection, Kind::PushPull, &roster, MAX_ROSTER);
    match timeout(limit, exchange).await {
        Ok(Ok((Kind::Answer, body))) => Some(body),
        Ok(_) | Err(_) => None,
    }
}

enum Exchange {
    Lost,
    TooLarge,
}

async fn exchange(connection: &Connection, kind: Kind, body: &Bytes, limit: usize) -> Result<(Kind, Bytes), Exchange> {
    let (mut send, recv) = connection.open_bi().await.map_err(|_| Exchange::Lost)?;
    rank(&send, kind, body.len());
    send.write_chunk(frame(kind, body)).await.map_err(|_| Exchange::Lost)?;
    send.finish().map_err(|_| Exchange::Lost)?;
    read_message(recv, limit).await
}

/// What a peer begins a stream with: a question, which is all there is, or the head of a pipe. `decoder` is a new one for
/// [`MAX_FIRST`] bytes.
pub(crate) async fn receive(recv: &mut RecvStream, decoder: &mut Decoder) -> Option<(Kind, Bytes)> {
    let first = async {
        loop {
            if let Some(first) = decoder.poll_frame().ok()? {
                return Some(first);
            }
            if !pipe::fill(recv, decoder).await.ok()? {
                return None;
            }
        }
    };
    timeout(PATIENCE, first).await.ok()?
}

/// Answers a question of a peer; `None` refuses it. A peer that no longer listens is no error.
pub(crate) async fn respond(mut send: SendStream, answer: Option<Bytes>) {
    let (kind, body) = match answer.filter(|body| body.len() <= MAX_ANSWER) {
        Some(body) => (Kind::Answer, body),
        None => (Kind::Refused, Bytes::new()),
    };
    rank(&send, kind, body.len());
    let reply = frame(kind, &body);
    if let Ok(Ok(())) = timeout(PATIENCE, send.write_chunk(reply)).await {
        let _ = send.finish();
    }
}

/// Gives a stream the place its body deserves.
fn rank(send: &SendStream, kind: Kind, len: usize) {
    let urgent = len <= URGENT || kind == Kind::PushPull;
    // A stream that is closed already says so at the write that follows.
    let _ = send.set_priority(if urgent { priority::QUESTION } else { priority::BULK });
}

/// One frame that is all its stream carries.
async fn read_message(mut recv: RecvStream, limit: usize) -> Result<(Kind, Bytes), Exchange> {
    match recv.read_to_end(HEADER + limit).await {
        Ok(bytes) => single(bytes, limit).map_err(|_| Exchange::Lost),
        Err(quinn::ReadToEndError::TooLong) => {
            let _ = recv.stop(VarInt::from_u32(0));
            Err(Exchange::TooLarge)
        }
        Err(quinn::ReadToEndError::Read(_)) => Err(Exchange::Lost),
    }
}

fn single(bytes: Vec<u8>, limit: usize) -> Result<(Kind, Bytes), FrameError> {
    let mut decoder = Decoder::new(limit);
    *decoder.buffer(0, 0) = BytesMut::from(Bytes::from(bytes));
    decoder.poll_frame()?.ok_or(FrameError::Malformed("message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_refused_when_the_budget_is_spent_and_taken_when_one_is_over() {
        let (asks, mut waiting) = Asks::new();
        let large = Bytes::from(vec![0; MAX_REQUEST]);
        let taken: Vec<_> = std::iter::from_fn(|| asks.ask(large.clone(), Duration::ZERO).ok()).collect();
        assert_eq!(taken.len(), 3);
        assert_eq!(asks.ask(large.clone(), Duration::ZERO).unwrap_err(), RequestError::Full);
        drop(waiting.try_recv().unwrap());
        assert!(asks.ask(large, Duration::ZERO).is_ok());
    }

    #[test]
    fn a_question_beyond_the_limit_or_to_an_ended_link_is_refused() {
        let (asks, waiting) = Asks::new();
        let larger = Bytes::from(vec![0; MAX_REQUEST + 1]);
        assert_eq!(asks.ask(larger, Duration::ZERO).unwrap_err(), RequestError::TooLarge);
        drop(waiting);
        assert_eq!(asks.ask(Bytes::new(), Duration::ZERO).unwrap_err(), RequestError::NoLink);
    }
}
