//! Questions and answers between nodes: one bidirectional stream each.
//!
//! Invariants: bodies are bounded by [`MAX_REQUEST`] and [`MAX_ANSWER`]; at most [`WAITING`] questions wait for a peer, more
//! are refused; every question ends with an answer, a refusal or an error within its timeout.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;

use crate::{
    RequestError,
    wire::{
        control::MAX_ROSTER,
        header::{Decoder, FrameError, HEADER, Kind, frame},
    },
};

/// Largest question.
pub const MAX_REQUEST: usize = 1 << 20;
/// Largest answer.
pub const MAX_ANSWER: usize = 8 << 20;
/// Questions that may wait for one peer.
pub(crate) const WAITING: usize = 1024;
/// Below the lanes: bulk must not delay room frames.
const PRIORITY: i32 = -10;

/// A question on its way to the link's task.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) body: Bytes,
    pub(crate) timeout: Duration,
    pub(crate) answer: oneshot::Sender<Result<Bytes, RequestError>>,
}

/// Asks and waits for the answer; gives up early when the asker did.
pub(crate) async fn ask(connection: Connection, ask: Ask) {
    let Ask { body, timeout, mut answer } = ask;
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
pub(crate) async fn push_pull(connection: Connection, roster: Bytes, timeout: Duration) -> Option<Bytes> {
    let exchange = exchange(&connection, Kind::PushPull, &roster, MAX_ROSTER);
    match tokio::time::timeout(timeout, exchange).await {
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
    // A stream just opened cannot be closed; if it is, the write says so.
    let _ = send.set_priority(PRIORITY);
    send.write_chunk(frame(kind, body)).await.map_err(|_| Exchange::Lost)?;
    send.finish().map_err(|_| Exchange::Lost)?;
    read_message(recv, limit).await
}

/// A question of a peer, read whole.
pub(crate) async fn receive(recv: RecvStream) -> Option<(Kind, Bytes)> {
    read_message(recv, MAX_REQUEST.max(MAX_ROSTER)).await.ok()
}

/// Answers a question of a peer; `None` refuses it. A peer that no longer listens is no error.
pub(crate) async fn respond(mut send: SendStream, answer: Option<Bytes>) {
    let _ = send.set_priority(PRIORITY);
    let reply = match answer.filter(|body| body.len() <= MAX_ANSWER) {
        Some(body) => frame(Kind::Answer, &body),
        None => frame(Kind::Refused, &[]),
    };
    if send.write_chunk(reply).await.is_ok() {
        let _ = send.finish();
    }
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
