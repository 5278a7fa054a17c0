//! From a dialled or accepted connection to a peer whose name is proved.
//!
//! Invariants: nothing is read before the handshake proved the cluster key; the hello is read with a small limit and a
//! deadline; the certificate must carry the ordinal the hello claims, and the ordinal we meant to reach. The lower ordinal
//! opens: the higher side of a connection comes out of here only after `Open`.

use std::{cmp::Ordering, net::SocketAddr, time::Duration};

use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use tokio::time::timeout;

use crate::{
    NodeId,
    close::{CloseCode, Failure, FailureKind, close},
    endpoint::priority,
    lane::fill,
    membership::Identity,
    tls,
    wire::{
        control::{Hello, MAX_HELLO},
        header::{Decoder, Kind, frame},
    },
};

/// How a connection came to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// We dialled it.
    Dialled(Target),
    /// It came from here.
    Accepted(SocketAddr),
}

/// Something we dialled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// Whom we meant to reach; a seed may be anyone.
    pub(crate) node: Option<NodeId>,
    /// Where.
    pub(crate) addr: SocketAddr,
}

impl Way {
    /// What was dialled, if we did.
    pub(crate) fn target(self) -> Option<Target> {
        match self {
            Way::Dialled(target) => Some(target),
            Way::Accepted(_) => None,
        }
    }
}

/// Who speaks.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub(crate) me: Identity,
    /// Whether some peer took us in: then an earlier process of our node has to stop, else it is us.
    pub(crate) linked: bool,
}

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
    speaker: Speaker,
    limit: Duration,
) -> Result<Greeted, Failure> {
    let name = node.map_or_else(|| tls::ANY_NODE.to_owned(), tls::name_of);
    let connecting = endpoint.connect(addr, &name).map_err(|error| Failure::new(FailureKind::Silent, error))?;
    let connection = timeout(limit, connecting).await.map_err(|_| Failure::new(FailureKind::Silent, "no answer"))??;
    greet(connection, node, speaker, true, limit).await
}

/// Accepts a connection and greets.
pub(crate) async fn accept(incoming: Incoming, speaker: Speaker, limit: Duration) -> Result<Greeted, Failure> {
    let connecting = incoming.accept()?;
    let connection = timeout(limit, connecting).await.map_err(|_| Failure::late("handshake took too long"))??;
    greet(connection, None, speaker, false, limit).await
}

async fn greet(
    connection: Connection,
    expected: Option<NodeId>,
    speaker: Speaker,
    dialled: bool,
    limit: Duration,
) -> Result<Greeted, Failure> {
    let greeting = exchange(&connection, expected, speaker, dialled);
    match timeout(limit, greeting).await {
        Ok(Ok((hello, control))) => Ok(Greeted { connection, hello, control }),
        Ok(Err(Refusal::Lost)) => match timeout(limit, connection.closed()).await {
            Ok(error) => Err(error.into()),
            Err(_) => Err(too_late(&connection)),
        },
        Ok(Err(Refusal::Ours(code, reason))) => {
            close(&connection, code, &reason);
            Err(Failure::ours(code, &reason))
        }
        Ok(Err(Refusal::Theirs(code, reason))) => {
            close(&connection, code, &reason);
            Err(Failure::theirs(code, &reason))
        }
        Ok(Err(Refusal::Twin(reason))) => {
            close(&connection, CloseCode::Ourselves, &reason);
            Err(Failure::new(FailureKind::Twin, reason))
        }
        Err(_) => Err(too_late(&connection)),
    }
}

fn too_late(connection: &Connection) -> Failure {
    const REASON: &str = "greeting took too long";
    close(connection, CloseCode::Malformed, REASON);
    Failure { kind: FailureKind::Refused, ..Failure::late(REASON) }
}

enum Refusal {
    /// The connection broke, or the peer closes it.
    Lost,
    /// We close it, and the code is for both.
    Ours(CloseCode, String),
    /// We close it, and the code is for the peer alone.
    Theirs(CloseCode, String),
    /// The peer is our node, started before us, and we stop.
    Twin(String),
}

async fn exchange(
    connection: &Connection,
    expected: Option<NodeId>,
    speaker: Speaker,
    dialled: bool,
) -> Result<(Hello, Control), Refusal> {
    let node = speaker.me.node;
    let ours = frame(Kind::Hello, &Hello::new(speaker.me.clone(), connection.remote_address()).encode());
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
    if let Some(why) = hello.incompatibility() {
        return Err(Refusal::Ours(CloseCode::Incompatible, why));
    }
    if peer == node {
        return Err(meet_ourselves(&speaker, &hello.identity));
    }
    if node > peer {
        expect(&mut recv, &mut decoder, Kind::Open).await?;
    }
    Ok((hello, Control { send, recv, decoder }))
}

/// Two processes of one node met. The later one decides, so that they never stop each other: one that a peer took in goes
/// on (the earlier was silent long enough to be replaced, or was replaced elsewhere), one that nobody knows yet steps back.
fn meet_ourselves(speaker: &Speaker, peer: &Identity) -> Refusal {
    let Speaker { me, linked } = speaker;
    match me.generation.cmp(&peer.generation) {
        Ordering::Less => Refusal::Lost,
        Ordering::Equal => Refusal::Ours(CloseCode::Ourselves, "has our ordinal".into()),
        Ordering::Greater if *linked => Refusal::Theirs(CloseCode::Superseded, superseded(me, peer)),
        Ordering::Greater => Refusal::Twin(twin(peer, me)),
    }
}

/// What a process is told that was replaced by a later one.
pub(crate) fn superseded(later: &Identity, earlier: &Identity) -> String {
    format!(
        "{} (node {}) was started again at {}, later than the process at {}; {ADVICE}",
        later.name, later.node, later.addr, earlier.addr
    )
}

/// What a process is told whose node runs already.
pub(crate) fn twin(earlier: &Identity, later: &Identity) -> String {
    format!(
        "{} (node {}) runs already at {} and answers, so the process at {} must stop; {ADVICE}",
        earlier.name, earlier.node, earlier.addr, later.addr
    )
}

const ADVICE: &str = "run it once, or give one of the two a name and cluster.ordinal of its own";

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
