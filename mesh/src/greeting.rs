//! From a dialled or accepted connection to a peer whose name is proved.
//!
//! Invariants: nothing is read before the handshake proved the cluster key; the hello is read with a small limit and a
//! deadline; the certificate must carry the ordinal the hello claims, and the ordinal we meant to reach. The lower ordinal
//! opens: the higher side of a connection comes out of here only after `Open`.

use std::{net::SocketAddr, time::Duration};

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::time::timeout;

use crate::{
    NodeId,
    close::{CloseCode, Failure, FailureKind, close},
    endpoint::priority,
    lane::fill,
    membership::Identity,
    peers::objection,
    tls,
    wire::{
        control::{Hello, MAX_HELLO},
        header::{Decoder, Kind, frame},
    },
};

/// A connection whose peer is known.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) connection: Connection,
    pub(crate) hello: Hello,
    pub(crate) control: Control,
}

/// The control stream of a connection, both ways.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) decoder: Decoder,
}

/// Dials an address and greets. `node` is whom we mean to reach; a seed may be anyone.
pub(crate) async fn dial(
    endpoint: Endpoint,
    addr: SocketAddr,
    node: Option<NodeId>,
    me: Identity,
    limit: Duration,
) -> Result<Greeted, Failure> {
    let name = node.map_or_else(|| tls::ANY_NODE.to_owned(), tls::name_of);
    let connecting = endpoint.connect(addr, &name).map_err(|error| Failure::new(FailureKind::Silent, error))?;
    let connection = timeout(limit, connecting).await.map_err(|_| silent("no answer"))??;
    greet(connection, node, me, true, limit).await
}

/// Accepts a connection and greets.
pub(crate) async fn accept(incoming: Incoming, me: Identity, limit: Duration) -> Result<Greeted, Failure> {
    let connecting = incoming.accept()?;
    let connection = timeout(limit, connecting).await.map_err(|_| silent("handshake took too long"))??;
    greet(connection, None, me, false, limit).await
}

fn silent(reason: &str) -> Failure {
    Failure::new(FailureKind::Silent, reason)
}

async fn greet(
    connection: Connection,
    expected: Option<NodeId>,
    me: Identity,
    dialled: bool,
    limit: Duration,
) -> Result<Greeted, Failure> {
    let greeting = exchange(&connection, expected, me, dialled);
    match timeout(limit, greeting).await {
        Ok(Ok((hello, control))) => Ok(Greeted { connection, hello, control }),
        Ok(Err(Refusal::Lost)) => Err(connection.closed().await.into()),
        Ok(Err(Refusal::Ours(code, reason))) => {
            close(&connection, code, &reason);
            Err(Failure::ours(code, &reason))
        }
        Ok(Err(Refusal::LaterProcess)) => {
            close(&connection, CloseCode::Ourselves, "an earlier process of the same node");
            Err(Failure::new(FailureKind::Superseded, "reached a later process of our node"))
        }
        Err(_) => {
            close(&connection, CloseCode::Malformed, "greeting took too long");
            Err(Failure::new(FailureKind::Refused, "greeting took too long"))
        }
    }
}

enum Refusal {
    /// The connection broke, or the peer closed it.
    Lost,
    /// We close it.
    Ours(CloseCode, String),
    /// The peer is our node, started after us.
    LaterProcess,
}

async fn exchange(
    connection: &Connection,
    expected: Option<NodeId>,
    me: Identity,
    dialled: bool,
) -> Result<(Hello, Control), Refusal> {
    let (node, generation) = (me.node, me.generation);
    let ours = frame(Kind::Hello, &Hello::new(me, connection.remote_address()).encode());
    let (send, mut recv) = if dialled {
        let send = say(connection, ours).await?;
        (send, connection.accept_uni().await.map_err(|_| Refusal::Lost)?)
    } else {
        let recv = connection.accept_uni().await.map_err(|_| Refusal::Lost)?;
        (say(connection, ours).await?, recv)
    };
    let mut decoder = Decoder::new(MAX_HELLO);
    let body = expect(&mut recv, &mut decoder, Kind::Hello).await?;
    let hello = Hello::decode(body).map_err(|error| Refusal::Ours(CloseCode::Malformed, error.to_string()))?;
    let peer = hello.identity.node;
    if !tls::is_node(connection, peer) || expected.is_some_and(|expected| expected != peer) {
        return Err(Refusal::Ours(CloseCode::WrongIdentity, format!("certificate or address is not node {peer}'s")));
    }
    if peer == node && hello.identity.generation > generation {
        return Err(Refusal::LaterProcess);
    }
    if let Some((code, reason)) = objection(node, generation, &hello) {
        return Err(Refusal::Ours(code, reason));
    }
    if node > peer {
        expect(&mut recv, &mut decoder, Kind::Open).await?;
    }
    Ok((hello, Control { send, recv, decoder }))
}

async fn say(connection: &Connection, hello: bytes::Bytes) -> Result<SendStream, Refusal> {
    let mut send = connection.open_uni().await.map_err(|_| Refusal::Lost)?;
    // A stream just opened cannot be closed; if it is, the write says so.
    let _ = send.set_priority(priority::CONTROL);
    send.write_chunk(hello).await.map_err(|_| Refusal::Lost)?;
    Ok(send)
}

async fn expect(recv: &mut RecvStream, decoder: &mut Decoder, kind: Kind) -> Result<bytes::Bytes, Refusal> {
    loop {
        match decoder.poll_frame() {
            Ok(Some((found, body))) if found == kind => return Ok(body),
            Ok(Some((found, _))) => {
                return Err(Refusal::Ours(CloseCode::Malformed, format!("{found:?} where {kind:?} was due")));
            }
            Ok(None) => fill(recv, decoder).await.map_err(|_| Refusal::Lost)?,
            Err(error) => return Err(Refusal::Ours(CloseCode::Malformed, error.to_string())),
        }
    }
}
