//! Long-polling requests of a session, wherever it lives.
//!
//! Invariants: the session's shard decides, the shard with the connection only carries; a client that goes away in the
//! middle of a request, or never finishes it, is always reported to the session (`OpenPoll`, `OpenPost`), so that no poll
//! and no POST stays open for ever, and packets that did not arrive end their session.

use std::{rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use protocol::{engine::session::Refusal, sid::Sid};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{PollReply, RATE_MIN};
use crate::{
    clock,
    forward::edge,
    message::Message,
    metrics::{Metrics, RejectReason},
    shard::Shard,
};

/// Where a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// On this shard of this process.
    Shard(u8),
    /// On another node, which its id names.
    Elsewhere,
}

/// A body that comes more slowly than `RATE_MIN` is given up early: so much time it has whatever comes, and then what it
/// earns.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// Answers one polling request of the session `sid`.
pub(crate) async fn serve(shard: &Rc<Shard>, home: Home, sid: Sid, request: Request<Incoming>) -> PollReply {
    match (request.method(), home) {
        (&Method::GET, Home::Shard(at)) => OpenPoll::begin(shard, at, sid).answered().await,
        (&Method::GET, Home::Elsewhere) => edge::poll(shard, sid).await,
        (&Method::POST, _) if is_binary(&request) => Refusal::EMPTY.into(),
        (&Method::POST, Home::Shard(at)) => post(shard, at, sid, request.into_body()).await,
        (&Method::POST, Home::Elsewhere) => edge::post(shard, sid, request.into_body()).await,
        _ => Refusal::BAD_METHOD.into(),
    }
}

fn is_binary(request: &Request<Incoming>) -> bool {
    request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream")
}

/// Answers a POST to the session `sid` of the shard `at` of this process, wherever its body comes from.
pub(crate) async fn post(shard: &Rc<Shard>, at: u8, sid: Sid, body: impl Source) -> PollReply {
    let (reply, started) = oneshot::channel();
    shard.tell(at, Message::PostStarted { sid, reply });
    // From here on the session may have an open POST, whether we live to hear it or not.
    let mut open = OpenPost { shard, at, sid, over: false };
    let max = match started.await {
        Ok(Ok(max)) => max,
        Ok(Err(refusal)) => {
            open.over = true;
            return refusal;
        }
        Err(_) => return Refusal::UNKNOWN_SID.into(),
    };
    let context = shard.context();
    let body = match read_body(body, max, context.config.limits.body_timeout).await {
        Ok(body) => body,
        Err(why) => return why.answer(&context.metrics),
    };
    open.over = true;
    let (reply, answer) = oneshot::channel();
    shard.tell(at, Message::Post { sid, body, reply });
    answer.await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
}

/// A poll that waits for its answer; dropped before it has it, when the client goes away, it tells the session.
pub(crate) struct OpenPoll<'a> {
    shard: &'a Rc<Shard>,
    at: u8,
    sid: Sid,
    answer: oneshot::Receiver<PollReply>,
}

impl<'a> OpenPoll<'a> {
    /// Asks the shard `at` of this process for what there is for its session `sid`.
    pub(crate) fn begin(shard: &'a Rc<Shard>, at: u8, sid: Sid) -> OpenPoll<'a> {
        let (reply, answer) = oneshot::channel();
        shard.tell(at, Message::Get { sid, reply });
        OpenPoll { shard, at, sid, answer }
    }

    /// The answer. Cancel safe; once it came, do not ask again.
    pub(crate) async fn answered(&mut self) -> PollReply {
        (&mut self.answer).await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
    }
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        if let Some(lost) = given_up(&mut self.answer) {
            self.shard.tell(self.at, Message::GetAborted { sid: self.sid, lost });
        }
    }
}

/// Takes no answer any more. `None` if it was taken before; otherwise whether there was one that is lost now. One that
/// is on its way comes back to its sender.
fn given_up(answer: &mut oneshot::Receiver<PollReply>) -> Option<bool> {
    if answer.is_terminated() {
        return None;
    }
    answer.close();
    Some(answer.try_recv().is_ok_and(|lost| lost.matters()))
}

/// A POST whose body is on its way; dropped before the body was there, it tells the session.
struct OpenPost<'a> {
    shard: &'a Rc<Shard>,
    at: u8,
    sid: Sid,
    over: bool,
}

impl Drop for OpenPost<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shard.tell(self.at, Message::PostAborted { sid: self.sid });
        }
    }
}

/// A body that comes piece by piece.
pub(crate) trait Source {
    /// Bytes it has at least, as far as that is known.
    fn least(&self) -> u64;

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Option<Result<Bytes, Broken>>;
}

/// The rest of a body will not come.
#[derive(Debug)]
pub(crate) struct Broken;

impl Source for Incoming {
    fn least(&self) -> u64 {
        self.size_hint().lower()
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let frame = self.frame().await?;
        // What is no data are trailers, which mean nothing here.
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|_| Broken))
    }
}

/// Why there is no body.
pub(crate) enum NoBody {
    Refused(Refusal),
    /// It came too slowly.
    Late,
}

impl NoBody {
    /// What its client is told.
    pub(crate) fn answer(self, metrics: &Metrics) -> PollReply {
        match self {
            NoBody::Refused(refusal) => refusal.into(),
            NoBody::Late => {
                metrics.rejected.of(RejectReason::Body).inc();
                PollReply::timed_out()
            }
        }
    }
}

/// A body within its limits of bytes and time, refused as soon as it is known to be beyond them.
pub(crate) struct Paced<S> {
    source: S,
    max: usize,
    patience: Duration,
    start: Instant,
    came: usize,
}

impl<S: Source> Paced<S> {
    /// A body of at most `max` bytes that takes at most `patience`.
    ///
    /// # Errors
    /// It says that it is larger.
    pub(crate) fn new(source: S, max: usize, patience: Duration) -> Result<Paced<S>, NoBody> {
        if source.least() > max as u64 {
            return Err(NoBody::Refused(Refusal::TOO_LARGE));
        }
        Ok(Paced { source, max, patience, start: Instant::from_std(clock::now()), came: 0 })
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, NoBody> {
        #[expect(clippy::cast_precision_loss, reason = "a body has a few megabytes")]
        let earned = BODY_GRACE + Duration::from_secs_f64(self.came as f64 / RATE_MIN);
        let by = self.start + earned.min(self.patience);
        let piece = timeout_at(by, self.source.next()).await.map_err(|_| NoBody::Late)?;
        let piece = piece.transpose().map_err(|Broken| NoBody::Refused(Refusal::EMPTY))?;
        self.came += piece.as_ref().map_or(0, Bytes::len);
        if self.came > self.max { Err(NoBody::Refused(Refusal::TOO_LARGE)) } else { Ok(piece) }
    }
}

/// A whole body.
async fn read_body(source: impl Source, max: usize, patience: Duration) -> Result<Bytes, NoBody> {
    let mut body = Paced::new(source, max, patience)?;
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await? {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use bytestring::ByteString;

    use super::*;

    fn packets(body: &'static str) -> PollReply {
        PollReply::packets(ByteString::from_static(body))
    }

    #[test]
    fn a_poll_given_up_before_its_answer_sends_it_back() {
        let (reply, mut answer) = oneshot::channel();
        assert_eq!(given_up(&mut answer), Some(false));
        assert!(reply.send(packets("4a")).is_err());
    }

    #[test]
    fn an_answer_nobody_took_is_lost_unless_it_said_nothing() {
        for (said, lost) in [(packets("4a"), true), (packets("6"), false), (Refusal::UNKNOWN_SID.into(), false)] {
            let (reply, mut answer) = oneshot::channel();
            reply.send(said).unwrap();
            assert_eq!(given_up(&mut answer), Some(lost));
        }
    }

    #[tokio::test]
    async fn an_answer_that_was_taken_is_not_lost() {
        let (reply, mut answer) = oneshot::channel();
        reply.send(packets("4a")).unwrap();
        (&mut answer).await.unwrap();
        assert_eq!(given_up(&mut answer), None);
    }
}
