//! The client port: HTTP/1.1 by hyper behind the `door`, requests given to whom they are for.
//!
//! Invariants: the order of checks is the reference server's (`protocol.md` 5): transport, origin, session, then method,
//! upgrade and version; every answer carries the CORS headers its origin may see; a header block is bounded in bytes,
//! number and time.

mod cors;
mod door;
mod guest;
mod query;

use std::{convert::Infallible, rc::Rc};

use bytes::Bytes;
use guest::{Guest, Visit};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh::Pipe;
use protocol::{engine::session::Refusal, sid::Sid};
use query::Query;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::oneshot,
};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{
    admission::{Newcomer, NoPlace},
    clock,
    forward::edge,
    message::Message,
    metrics::{HandshakeError, RejectReason},
    shard::Shard,
    transport::{
        Body, PollReply,
        polling::{self, Home},
        tcp::Tcp,
    },
};

pub(crate) use door::accept;

/// When somebody who is sent away may come again, in seconds.
const RETRY_AFTER: &str = "5";
/// Smallest header buffer hyper takes.
const HEADER_BYTES_MIN: usize = 8 * 1024;

/// Answers the requests of one connection.
async fn serve(shard: Rc<Shard>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, guest: Guest) {
    let limits = &shard.context().config.limits;
    let service = service_fn(|request| {
        let shard = shard.clone();
        async move { Ok::<_, Infallible>(answer(&shard, guest, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes.bytes().max(HEADER_BYTES_MIN));
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        if error.is_parse() || error.is_timeout() {
            shard.context().metrics.rejected.of(RejectReason::Headers).inc();
        }
        tracing::debug!(%error, "a client's HTTP connection ended");
    }
}

/// Answers one request of the client port.
async fn answer(shard: &Rc<Shard>, guest: Guest, request: Request<Incoming>) -> Response<Body> {
    let context = shard.context();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let path = request.uri().path();
    let mut response = if path == context.config.socketio.path {
        engine(shard, guest, request).await
    } else if let (Some(asset), &Method::GET | &Method::HEAD) =
        (context.assets.respond(path, request.headers()), request.method())
    {
        asset.map(Full::new)
    } else {
        plain(StatusCode::NOT_FOUND, "nothing is served at this path\n")
    };
    cors::allow(&context.config.server.allowed_origins, origin.as_ref(), response.headers_mut());
    response
}

/// Answers a request of the Engine.IO path.
async fn engine(shard: &Rc<Shard>, guest: Guest, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::OPTIONS {
        return cors::preflight(request.headers());
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let wants_websocket = is_upgrade(request.headers());
    let visit = Visit::of(guest, request.headers(), &shard.context().config.server.trusted_proxies);
    match route(shard, &visit, &request, &query).await {
        Ok(Route::Poll { home, sid }) => finish(shard, polling::serve(shard, home, sid, request).await),
        Ok(Route::OpenPolling) => open_polling(shard, &visit, request.headers()).await,
        Ok(Route::WebSocket(session)) => upgrade(shard, &visit, request, session).await,
        Err(refusal) if wants_websocket => {
            count(shard, refusal.code);
            bare(refusal)
        }
        Err(refusal) => finish(shard, refusal.into()),
    }
}

/// The answer to a WebSocket client, which cannot read a body in JSON: the bare text (`protocol.md` 5).
fn bare(refusal: Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = plain(status, refusal.message);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// Where an Engine.IO request goes.
enum Route {
    Poll {
        home: Home,
        sid: Sid,
    },
    OpenPolling,
    /// A WebSocket: for a session that exists, or for a new one.
    WebSocket(Option<(Home, Sid)>),
}

async fn route(
    shard: &Rc<Shard>,
    visit: &Visit,
    request: &Request<Incoming>,
    query: &Query<'_>,
) -> Result<Route, Refusal> {
    let context = shard.context();
    let transports = context.config.socketio.transports;
    let websocket = match query.transport {
        Some("polling") if transports.polling => false,
        Some("websocket") if transports.websocket => true,
        Some(_) | None => return Err(Refusal::TRANSPORT_UNKNOWN),
    };
    let origin = request.headers().get(header::ORIGIN);
    if origin.is_some_and(|origin| origin.to_str().is_err()) {
        return Err(Refusal::BAD_REQUEST);
    }
    if !cors::may_connect(&context.config.server.allowed_origins, origin, visit) {
        context.metrics.rejected.of(RejectReason::Origin).inc();
        return Err(Refusal::FORBIDDEN);
    }
    let upgrade = is_upgrade(request.headers());
    if let Some(sid) = query.sid {
        let (home, sid) = find(shard, sid).await.ok_or(Refusal::UNKNOWN_SID)?;
        // The version is the session's. A poll may leave it out; an upgrade without it means the oldest.
        if query.eio.map_or(upgrade, |version| version != "4") {
            return Err(Refusal::UNSUPPORTED_PROTOCOL_VERSION);
        }
        return match (websocket, upgrade) {
            (false, false) => Ok(Route::Poll { home, sid }),
            (true, true) => Ok(Route::WebSocket(Some((home, sid)))),
            (true, false) | (false, true) => Err(Refusal::BAD_REQUEST),
        };
    }
    if request.method() != Method::GET {
        return Err(Refusal::BAD_HANDSHAKE_METHOD);
    }
    if websocket != upgrade {
        return Err(Refusal::BAD_REQUEST);
    }
    if query.eio != Some("4") {
        return Err(Refusal::UNSUPPORTED_PROTOCOL_VERSION);
    }
    Ok(if websocket { Route::WebSocket(None) } else { Route::OpenPolling })
}

/// The session and where it lives. Of one of another node only that node knows whether it does; that a node of this cluster
/// made the id is certain before anything is sent there.
async fn find(shard: &Rc<Shard>, sid: &str) -> Option<(Home, Sid)> {
    let context = shard.context();
    let sid = context.sid_keys.find(|key| Sid::parse(sid, key).ok())?;
    if sid.node() != context.node.0 {
        return Some((Home::Elsewhere, sid));
    }
    let at = context.shard_of(&sid)?;
    let (reply, found) = oneshot::channel();
    shard.tell(at, Message::Find { sid, reply });
    found.await.ok()?.then_some((Home::Shard(at), sid))
}

async fn open_polling(shard: &Rc<Shard>, visit: &Visit, headers: &HeaderMap) -> Response<Body> {
    let newcomer = match shard.context().admit(visit.address, headers, clock::now()) {
        Ok(newcomer) => newcomer,
        Err(why) => return sent_away(shard, why),
    };
    let (reply, opened) = oneshot::channel();
    shard.with(|gateway| gateway.open_polling(newcomer, reply, clock::now()));
    finish(shard, opened.await.unwrap_or_else(|_| Refusal::UNKNOWN_SID.into()))
}

fn sent_away(shard: &Rc<Shard>, why: NoPlace) -> Response<Body> {
    shard.context().metrics.rejected.of(why.reason()).inc();
    let (status, text) = why.answer();
    let mut response = plain(StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE), text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    response
}

/// Answers 101 and hands the socket to the shard of its session, or carries its bytes to the node of it.
async fn upgrade(
    shard: &Rc<Shard>,
    visit: &Visit,
    mut request: Request<Incoming>,
    session: Option<(Home, Sid)>,
) -> Response<Body> {
    let accept = match request.headers().get(header::SEC_WEBSOCKET_KEY) {
        Some(key) => derive_accept_key(key.as_bytes()),
        None => return plain(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"),
    };
    if request.headers().get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = plain(StatusCode::UPGRADE_REQUIRED, "only WebSocket version 13 is spoken here");
        response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    let way = match session {
        Some((Home::Shard(at), sid)) => Way::Here(Whose::Session(at, sid)),
        Some((Home::Elsewhere, sid)) => match edge::upgrade(shard, sid).await {
            Ok(pipe) => Way::Carried(pipe),
            Err(reply) => return finish(shard, reply.bare()),
        },
        None => match shard.context().admit(visit.address, request.headers(), clock::now()) {
            Ok(newcomer) => Way::Here(Whose::Newcomer(newcomer)),
            Err(why) => return sent_away(shard, why),
        },
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let to = shard.clone();
    shard.spawn(async move {
        // Otherwise the client left between its request and our answer.
        let Ok(upgraded) = upgraded.await else { return };
        match way {
            Way::Here(whose) => hand_over(&to, upgraded, whose),
            Way::Carried(pipe) => edge::carry(to, pipe, TokioIo::new(upgraded)).await,
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Where a WebSocket's bytes go.
enum Way {
    /// To a shard of this node.
    Here(Whose),
    /// To another node, through this pipe.
    Carried(Box<Pipe>),
}

/// Whose a WebSocket is that stays on this node.
enum Whose {
    /// A session's, and its shard.
    Session(u8, Sid),
    Newcomer(Newcomer),
}

fn hand_over(shard: &Rc<Shard>, upgraded: hyper::upgrade::Upgraded, whose: Whose) {
    let Some((tcp, rest)) = take_apart(upgraded) else { return };
    match whose {
        Whose::Session(at, sid) if at == shard.number() => {
            shard.with(|gateway| gateway.adopt_websocket(&sid, tcp, rest, clock::now()));
        }
        Whose::Session(at, sid) => match tcp.detach() {
            Ok(tcp) => shard.tell(at, Message::WebSocket { sid, tcp, rest }),
            Err(error) => tracing::warn!(%error, "a WebSocket could not be handed to its shard"),
        },
        Whose::Newcomer(newcomer) => {
            shard.with(|gateway| gateway.open_websocket(newcomer, tcp, rest, clock::now()));
        }
    }
}

/// The socket below HTTP, and what was read of it beyond the request.
fn take_apart(upgraded: hyper::upgrade::Upgraded) -> Option<(Tcp, Bytes)> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Some((Tcp::plain(parts.io.into_inner()), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().ok()?;
    let (socket, connection) = parts.io.into_inner().into_inner();
    Some((Tcp::tls(socket, connection), parts.read_buf))
}

/// Whether the request asks for a WebSocket.
fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    has(header::CONNECTION, "upgrade") && has(header::UPGRADE, "websocket")
}

fn finish(shard: &Rc<Shard>, reply: PollReply) -> Response<Body> {
    count(shard, reply.code);
    reply.into_response()
}

fn count(shard: &Rc<Shard>, code: Option<u8>) {
    let error = match code {
        Some(0) => HandshakeError::TransportUnknown,
        Some(1) => HandshakeError::SessionUnknown,
        Some(2) => HandshakeError::BadMethod,
        Some(3) => HandshakeError::BadRequest,
        Some(4) => HandshakeError::Forbidden,
        Some(5) => HandshakeError::Version,
        Some(_) | None => return,
    };
    shard.context().metrics.handshake_errors.of(error).inc();
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
