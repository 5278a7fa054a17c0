//! The node with the session: does what its client wants, as if the client were here.
//!
//! Invariants: the session's shard runs this, through the same calls as for a request of its own; whatever an edge does or
//! leaves undone, a poll, a POST and a WebSocket are reported to their session when they end.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use mesh::{
    Pipe, PipeError,
    wire::forward::{What, Word},
};
use protocol::{engine::session::Refusal, sid::Sid};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{Forwarded, PATIENCE, relay};
use crate::{
    clock,
    message::Message,
    shard::Shard,
    transport::{
        PollReply,
        polling::{self, Broken, OpenPoll, Source},
        tcp::Tcp,
    },
};

/// A poll that is not answered by then is said to be heard, so that the edge knows that its session lives.
const HEARD_AFTER: Duration = Duration::from_secs(1);

/// Serves what an edge brought for a session of this shard.
pub(crate) async fn serve(shard: Rc<Shard>, Forwarded { what, sid, pipe }: Forwarded) {
    match what {
        What::Poll => poll(&shard, sid, &pipe).await,
        What::Post => {
            let reply = polling::post(&shard, shard.number(), sid, Sent(&pipe)).await;
            let _ = timeout(PATIENCE, say(&pipe, reply)).await;
        }
        What::Upgrade => upgrade(&shard, sid, &pipe).await,
    }
}

async fn poll(shard: &Rc<Shard>, sid: Sid, pipe: &Pipe) {
    let mut poll = OpenPoll::begin(shard, shard.number(), sid);
    let mut heard = false;
    let reply = loop {
        tokio::select! {
            biased;
            reply = poll.answered() => break reply,
            // The client left, or the link broke: the poll is dropped, which tells the session.
            _ = pipe.recv() => return,
            () = sleep(HEARD_AFTER), if !heard => {
                heard = true;
                if pipe.send(Word::Heard.encode()).await.is_err() {
                    return;
                }
            }
        }
    };
    drop(poll);
    let matters = reply.matters();
    let answered = timeout(PATIENCE, async {
        // An edge that has it whole finishes, and says nothing else.
        let arrived = async { if pipe.recv().await?.is_none() { Ok(()) } else { Err(PipeError::Malformed) } };
        tokio::try_join!(say(pipe, reply), arrived)
    });
    let arrived = matches!(answered.await, Ok(Ok(_)));
    if matters && !arrived {
        shard.tell(shard.number(), Message::GetAborted { sid, lost: true });
    }
}

async fn upgrade(shard: &Rc<Shard>, sid: Sid, pipe: &Pipe) {
    let (reply, found) = oneshot::channel();
    shard.tell(shard.number(), Message::Find { sid, reply });
    let ends = if found.await.unwrap_or(false) { Tcp::pair() } else { Err(std::io::ErrorKind::NotFound.into()) };
    let Ok((ours, theirs)) = ends else {
        let _ = timeout(PATIENCE, say(pipe, Refusal::UNKNOWN_SID.into())).await;
        return;
    };
    if pipe.send(Word::Heard.encode()).await.is_ok() {
        shard.with(|gateway| gateway.adopt_websocket(&sid, ours, Bytes::new(), clock::now()));
        relay::run(pipe, theirs).await;
    }
}

/// Sends a whole answer.
async fn say(pipe: &Pipe, reply: PollReply) -> Result<(), PipeError> {
    let (word, body) = reply.into_word();
    pipe.send(word.encode()).await?;
    pipe.send(body).await?;
    pipe.finish().await;
    Ok(())
}

/// The body of a POST as an edge sends it.
struct Sent<'a>(&'a Pipe);

impl Source for Sent<'_> {
    fn least(&self) -> u64 {
        0
    }

    async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        let piece = match self.0.recv().await {
            Ok(piece) => piece?,
            Err(_) => return Some(Err(Broken)),
        };
        Some(self.0.took(piece.len()).await.map(|()| piece).map_err(|_| Broken))
    }
}
