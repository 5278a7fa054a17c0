//! A WebSocket's bytes between a socket and a pipe, as they are, at both ends alike.
//!
//! Invariants: what waits here for a slow socket is at most a pipe's window, since bytes count as taken when the socket has
//! them; each direction ends as it ended on the other side; once one has ended the other has [`GOODBYE`], and no more.

use std::{io, time::Duration};

use bytes::BytesMut;
use mesh::{Pipe, PipeError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
    time::sleep,
};

/// How long one direction may outlive the other: longer than a session waits for a client to close its side.
const GOODBYE: Duration = Duration::from_secs(10);
/// What is read of the socket at once.
const READ_BYTES: usize = 4 * 1024;

/// What ended a relay before its time; nobody has to know which.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Pipe(#[from] PipeError),
}

/// Carries bytes until both directions have ended, or either broke.
pub(super) async fn run(pipe: &Pipe, socket: impl AsyncRead + AsyncWrite) {
    let (mut read, mut write) = tokio::io::split(socket);
    // Not bounded by itself: the pipe's window is.
    let (queue, mut queued) = mpsc::unbounded_channel();
    let one_ended = Notify::new();
    let arrive = async move {
        while let Some(piece) = pipe.recv().await? {
            // Without a reader the socket broke, which ends this too.
            let _ = queue.send(piece);
        }
        Ok::<_, Ended>(())
    };
    let hand_on = async {
        while let Some(piece) = queued.recv().await {
            write.write_all(&piece).await?;
            pipe.took(piece.len()).await?;
        }
        write.shutdown().await?;
        one_ended.notify_one();
        Ok(())
    };
    let send = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            if read.read_buf(&mut buffer).await? == 0 {
                break;
            }
            pipe.send(buffer.split().freeze()).await?;
        }
        pipe.finish().await;
        one_ended.notify_one();
        Ok(())
    };
    let goodbye = async {
        one_ended.notified().await;
        sleep(GOODBYE).await;
    };
    tokio::select! {
        ended = async { tokio::try_join!(arrive, hand_on, send) } => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a forwarded WebSocket broke");
            }
        }
        () = goodbye => {}
    }
}
