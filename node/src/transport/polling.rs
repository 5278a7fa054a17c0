//! Long-polling requests of a session, wherever in this process it lives.
//!
//! Invariants: the session's shard decides, the shard with the connection only carries; a client that goes away in the
//! middle of a request is always reported to the session (guards), so that no poll and no POST stays open for ever.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::{engine::session::Refusal, sid::Sid};
use tokio::sync::oneshot;

use super::PollReply;
use crate::{message::Message, shard::Shard};

/// Answers one polling request of the session `sid`, which lives on the shard `at` of this process.
pub(crate) async fn serve(shard: &Rc<Shard>, at: u8, sid: Sid, request: Request<Incoming>) -> PollReply {
    match *request.method() {
        Method::GET => get(shard, at, sid).await,
        Method::POST => post(shard, at, sid, request).await,
        _ => Refusal::BAD_METHOD.into(),
    }
}

async fn get(shard: &Rc<Shard>, at: u8, sid: Sid) -> PollReply {
    let (reply, answer) = oneshot::channel();
    shard.tell(at, Message::Get { sid, reply });
    wait(shard, at, answer, || Message::GetAborted { sid }).await
}

async fn post(shard: &Rc<Shard>, at: u8, sid: Sid, request: Request<Incoming>) -> PollReply {
    let binary = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    if binary {
        return Refusal::EMPTY.into();
    }
    let (reply, started) = oneshot::channel();
    shard.tell(at, Message::PostStarted { sid, reply });
    match started.await {
        Ok(Ok(())) => {}
        Ok(Err(refusal)) => return refusal,
        Err(_) => return Refusal::UNKNOWN_SID.into(),
    }
    let aborted = Guard { shard, at, message: Some(Message::PostAborted { sid }) };
    let body = match read_body(request.into_body(), shard.context().session.max_payload).await {
        Ok(body) => body,
        Err(refusal) => return refusal.into(),
    };
    aborted.disarm();
    let (reply, answer) = oneshot::channel();
    shard.tell(at, Message::Post { sid, body, reply });
    answer.await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
}

/// Waits for a session's answer; if the client goes away first (this future is dropped), the session is told.
async fn wait(
    shard: &Rc<Shard>,
    at: u8,
    answer: oneshot::Receiver<PollReply>,
    aborted: impl FnOnce() -> Message,
) -> PollReply {
    let guard = Guard { shard, at, message: Some(aborted()) };
    let answer = answer.await;
    guard.disarm();
    answer.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
}

/// Sends its message when it is dropped before `disarm`.
struct Guard<'a> {
    shard: &'a Rc<Shard>,
    at: u8,
    message: Option<Message>,
}

impl Guard<'_> {
    fn disarm(mut self) {
        self.message = None;
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.shard.tell(self.at, message);
        }
    }
}

/// A whole body, refused as soon as it is known to be too large.
async fn read_body(mut body: Incoming, max: usize) -> Result<Bytes, Refusal> {
    use hyper::body::Body as _;
    if body.size_hint().lower() > max as u64 {
        return Err(Refusal::TOO_LARGE);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Err(Refusal::EMPTY) };
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > max {
            return Err(Refusal::TOO_LARGE);
        }
        whole.extend_from_slice(data);
    }
    Ok(whole.freeze())
}
