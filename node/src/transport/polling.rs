//! Long-polling requests of a session, wherever in this process it lives.
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
use crate::{clock, message::Message, metrics::RejectReason, shard::Shard};

/// A body that comes more slowly than `RATE_MIN` is given up early: so much time it has whatever comes, and then what it
/// earns.
const BODY_GRACE: Duration = Duration::from_secs(5);

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
    let mut poll = OpenPoll { shard, at, sid, answer };
    (&mut poll.answer).await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
}

async fn post(shard: &Rc<Shard>, at: u8, sid: Sid, request: Request<Incoming>) -> PollReply {
    let binary = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    if binary {
        return Refusal::EMPTY.into();
    }
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
    let body = match read_body(request.into_body(), max, shard.context().config.limits.body_timeout).await {
        Ok(body) => body,
        Err(NoBody::Refused(refusal)) => return refusal.into(),
        Err(NoBody::Late) => {
            shard.context().metrics.rejected.of(RejectReason::Body).inc();
            return PollReply::timed_out();
        }
    };
    open.over = true;
    let (reply, answer) = oneshot::channel();
    shard.tell(at, Message::Post { sid, body, reply });
    answer.await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into())
}

/// A poll that waits for its answer; dropped before it has it, when the client goes away, it tells the session.
struct OpenPoll<'a> {
    shard: &'a Rc<Shard>,
    at: u8,
    sid: Sid,
    answer: oneshot::Receiver<PollReply>,
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

/// Why there is no body.
enum NoBody {
    Refused(Refusal),
    /// It came too slowly.
    Late,
}

/// A whole body, refused as soon as it is known to be too large.
async fn read_body(mut body: impl Body<Data = Bytes> + Unpin, max: usize, patience: Duration) -> Result<Bytes, NoBody> {
    if body.size_hint().lower() > max as u64 {
        return Err(NoBody::Refused(Refusal::TOO_LARGE));
    }
    let start = Instant::from_std(clock::now());
    let mut whole = BytesMut::new();
    loop {
        #[expect(clippy::cast_precision_loss, reason = "a body has a few megabytes")]
        let earned = BODY_GRACE + Duration::from_secs_f64(whole.len() as f64 / RATE_MIN);
        let frame = timeout_at(start + earned.min(patience), body.frame()).await.map_err(|_| NoBody::Late)?;
        let Some(frame) = frame else { return Ok(whole.freeze()) };
        let Ok(frame) = frame else { return Err(NoBody::Refused(Refusal::EMPTY)) };
        let Some(data) = frame.data_ref() else { continue };
        if whole.len() + data.len() > max {
            return Err(NoBody::Refused(Refusal::TOO_LARGE));
        }
        whole.extend_from_slice(data);
    }
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
