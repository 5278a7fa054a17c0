//! From a dialled or accepted connection to a peer whose name is proved.
//!
//! Invariants: nothing is read before the handshake proved the cluster key; the hello is read with a small limit and a
//! deadline; the certificate must carry the ordinal the hello claims, and the ordinal we meant to reach. The lower ordinal
//! opens: the higher side of a connection comes out of here only after `Open`.

use std::{net::SocketAddr, time::Duration};

use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use tokio::time::timeout;

use crate::{
    NodeId,
    lane::fill,
    membership::Identity,
    peers::{CloseCode, objection},
    tls,
    wire::{
        control::{Hello, MAX_HELLO},
        header::{Decoder, Kind, frame},
    },
};

/// The control streams go before everything else.
const PRIORITY: i32 = 10;

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

/// Why a connection came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For the log.
    pub(crate) reason: String,
    /// The peer knows a later process of our node, or is one.
    pub(crate) superseded: bool,
    /// We reached ourselves.
    pub(crate) ourselves: bool,
}

impl Failure {
    fn new(reason: impl std::fmt::Display) -> Failure {
        Failure { reason: reason.to_string(), superseded: false, ourselves: false }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Failure {
        Failure { reason: describe(&error), superseded: says_superseded(&error), ourselves: says_ourselves(&error) }
    }
}

/// Whether the peer closed because a later process of our node exists.
pub(crate) fn says_superseded(error: &ConnectionError) -> bool {
    says(error, CloseCode::Superseded) || says(error, CloseCode::Replaced)
}

fn says_ourselves(error: &ConnectionError) -> bool {
    says(error, CloseCode::Ourselves)
}

fn says(error: &ConnectionError, code: CloseCode) -> bool {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code == VarInt::from_u32(code.code()),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => false,
    }
}

/// A close in words.
pub(crate) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            format!("closed by peer: {}", String::from_utf8_lossy(&close.reason))
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => error.to_string(),
    }
}

/// Closes a connection with a code of ours.
pub(crate) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.code()), reason.as_bytes());
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
    let connecting = endpoint.connect(addr, &name).map_err(Failure::new)?;
    let connection = timeout(limit, connecting).await.map_err(|_| Failure::new("no answer"))??;
    greet(connection, node, me, true, limit).await
}

/// Accepts a connection and greets.
pub(crate) async fn accept(incoming: Incoming, me: Identity, limit: Duration) -> Result<Greeted, Failure> {
    let connecting = incoming.accept()?;
    let connection = timeout(limit, connecting).await.map_err(|_| Failure::new("handshake took too long"))??;
    greet(connection, None, me, false, limit).await
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
            let ourselves = code == CloseCode::Ourselves;
            Err(Failure { ourselves, ..Failure::new(format!("{code:?}: {reason}")) })
        }
        Ok(Err(Refusal::LaterProcess)) => {
            close(&connection, CloseCode::Ourselves, "an earlier process of the same node");
            Err(Failure { superseded: true, ..Failure::new("a later process of our node") })
        }
        Err(_) => {
            close(&connection, CloseCode::Malformed, "greeting took too long");
            Err(Failure::new("greeting took too long"))
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
    let _ = send.set_priority(PRIORITY);
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
