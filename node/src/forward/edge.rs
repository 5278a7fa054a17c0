//! The node that a request came to: brings it to the session's node and the answer to the client.
//!
//! Invariants: every request that is carried is counted once, by how it ended; the owner is told that an answer arrived only
//! when it is here whole; a future that is dropped (the client left) resets its pipe, which tells the owner.

use std::{future::Future, rc::Rc, time::Duration};

use bytes::{Bytes, BytesMut};
use mesh::{
    NodeId, Pipe, PipeError, PipeUse,
    wire::forward::{Errand, What, Word},
};
use protocol::{engine::session::Refusal, sid::Sid};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{PATIENCE, relay};
use crate::{
    context::{Context, low_generation},
    metrics::{ForwardKind, ForwardResult},
    shard::Shard,
    transport::{
        PollReply,
        polling::{NoBody, Paced, Source},
    },
};

/// Packets of a poll's answer, each of which may be as large as the client's largest, and a third larger as base64.
const ANSWER_PACKETS: usize = 32;

/// Why a request was not answered by the session's node.
#[derive(Debug)]
enum Failed {
    /// That node, or that life of it, is not there.
    Gone,
    /// Too much is carried there already.
    Busy,
    /// It did not do in time what it could have done at once.
    Late,
    /// The link broke, or what came is no answer.
    Lost,
    /// The client's own body is to blame.
    Body(PollReply),
}

impl From<PipeError> for Failed {
    fn from(error: PipeError) -> Failed {
        match error {
            PipeError::NoLink => Failed::Gone,
            PipeError::Full => Failed::Busy,
            PipeError::TooLarge | PipeError::Lost | PipeError::Malformed => Failed::Lost,
        }
    }
}

impl From<Failed> for PollReply {
    fn from(failed: Failed) -> PollReply {
        match failed {
            Failed::Gone | Failed::Late | Failed::Lost => Refusal::UNKNOWN_SID.into(),
            Failed::Busy => PollReply::busy("too much is being carried to the node of this session\n"),
            Failed::Body(reply) => reply,
        }
    }
}

/// Answers a poll of a session on another node.
pub(crate) async fn poll(shard: &Rc<Shard>, sid: Sid) -> PollReply {
    let polled = async {
        let context = shard.context();
        let pipe = open(context, What::Poll, sid).await?;
        // A session says something at least as often as it pings.
        let config = &context.config.socketio;
        let answer = answer(context, &pipe, None, config.ping_interval + config.ping_timeout + PATIENCE).await?;
        pipe.finish().await;
        Ok(answer)
    };
    counted(shard, ForwardKind::Poll, polled).await.unwrap_or_else(PollReply::from)
}

/// Answers a POST to a session on another node.
pub(crate) async fn post(shard: &Rc<Shard>, sid: Sid, body: impl Source) -> PollReply {
    let posted = async {
        let context = shard.context();
        let limits = &context.config.limits;
        let mut body = Paced::new(body, context.session.max_payload, limits.body_timeout).map_err(blame(context))?;
        let pipe = open(context, What::Post, sid).await?;
        let early = tokio::select! {
            biased;
            // A refusal comes before the body has.
            early = pipe.recv() => Some(early?.ok_or(Failed::Lost)?),
            sent = pass_on(context, &pipe, &mut body) => { sent?; None }
        };
        answer(context, &pipe, early, PATIENCE).await
    };
    counted(shard, ForwardKind::Post, posted).await.unwrap_or_else(PollReply::from)
}

/// A pipe for a WebSocket of a session on another node, or what its client is told instead.
pub(crate) async fn upgrade(shard: &Rc<Shard>, sid: Sid) -> Result<Box<Pipe>, PollReply> {
    let opened = async {
        let context = shard.context();
        let pipe = open(context, What::Upgrade, sid).await?;
        let first = next(&pipe, PATIENCE).await?;
        if Word::decode(&first) == Ok(Word::Heard) {
            return Ok(Ok(Box::new(pipe)));
        }
        answer(context, &pipe, Some(first), PATIENCE).await.map(Err)
    };
    counted(shard, ForwardKind::Upgrade, opened).await?
}

/// Carries the bytes of a WebSocket until it ends.
pub(crate) async fn carry(shard: Rc<Shard>, pipe: Box<Pipe>, client: impl AsyncRead + AsyncWrite) {
    struct Open<'a>(&'a Context);
    impl Drop for Open<'_> {
        fn drop(&mut self) {
            self.0.metrics.forwarded_upgrades.dec();
        }
    }
    shard.context().metrics.forwarded_upgrades.inc();
    let _open = Open(shard.context());
    relay::run(&pipe, client).await;
}

/// Opens a pipe to the node with the session.
async fn open(context: &Context, what: What, sid: Sid) -> Result<Pipe, Failed> {
    let mesh = context.mesh.as_ref().ok_or(Failed::Gone)?;
    let node = NodeId(sid.node());
    if mesh.generation(node).map(low_generation) != Some(sid.generation()) {
        return Err(Failed::Gone);
    }
    let lasts = match what {
        What::Poll | What::Post => PipeUse::Brief,
        What::Upgrade => PipeUse::Lasting,
    };
    let head = Errand { what, sid: &sid.to_string() }.encode();
    Ok(timeout(PATIENCE, mesh.open_pipe(node, lasts, head)).await.map_err(|_| Failed::Late)??)
}

/// Sends the body. An owner that takes no more of it has an answer.
async fn pass_on(context: &Context, pipe: &Pipe, body: &mut Paced<impl Source>) -> Result<(), Failed> {
    while let Some(piece) = body.next().await.map_err(blame(context))? {
        if timeout(PATIENCE, pipe.send(piece)).await.map_err(|_| Failed::Busy)?.is_err() {
            return Ok(());
        }
    }
    pipe.finish().await;
    Ok(())
}

fn blame(context: &Context) -> impl Fn(NoBody) -> Failed {
    |why| Failed::Body(why.answer(&context.metrics))
}

/// The owner's answer, whose first piece may be here; the last word of it within `longest`.
async fn answer(context: &Context, pipe: &Pipe, first: Option<Bytes>, longest: Duration) -> Result<PollReply, Failed> {
    let mut word = match first {
        Some(first) => first,
        None => next(pipe, PATIENCE).await?,
    };
    if Word::decode(&word) == Ok(Word::Heard) {
        word = next(pipe, longest).await?;
    }
    let Ok(Word::Answer { status, content, code }) = Word::decode(&word) else { return Err(Failed::Lost) };
    let max = ANSWER_PACKETS.saturating_mul(context.session.max_payload);
    let mut body = BytesMut::new();
    while let Some(piece) = timeout(PATIENCE, pipe.recv()).await.map_err(|_| Failed::Late)?? {
        pipe.took(piece.len()).await?;
        if body.len() + piece.len() > max {
            return Err(Failed::Lost);
        }
        body.extend_from_slice(&piece);
    }
    PollReply::of_peer(status, content, code, body.freeze()).ok_or(Failed::Lost)
}

async fn next(pipe: &Pipe, patience: Duration) -> Result<Bytes, Failed> {
    let piece = timeout(patience, pipe.recv()).await.map_err(|_| Failed::Late)??.ok_or(Failed::Lost)?;
    pipe.took(piece.len()).await?;
    Ok(piece)
}

/// Counts how a request ended; one whose client left is dropped before it has.
async fn counted<T>(
    shard: &Rc<Shard>,
    kind: ForwardKind,
    request: impl Future<Output = Result<T, Failed>>,
) -> Result<T, PollReply> {
    struct Count<'a>(&'a Context, ForwardKind, ForwardResult);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.metrics.forwarded_requests.of(self.1, self.2).inc();
        }
    }
    let mut count = Count(shard.context(), kind, ForwardResult::Abandoned);
    let ended = request.await;
    count.2 = match &ended {
        Ok(_) => ForwardResult::Answered,
        Err(Failed::Gone) => ForwardResult::Gone,
        Err(Failed::Busy) => ForwardResult::Busy,
        Err(Failed::Late) => ForwardResult::Late,
        Err(Failed::Lost) => ForwardResult::Lost,
        Err(Failed::Body(_)) => ForwardResult::Abandoned,
    };
    ended.map_err(PollReply::from)
}
