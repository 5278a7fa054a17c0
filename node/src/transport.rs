//! How clients reach a shard: long-polling requests and WebSockets, and the answers both give.

mod frames;
pub(crate) mod polling;
pub(crate) mod tcp;
pub(crate) mod websocket;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use mesh::wire::forward::{Content, Word};
use protocol::engine::session::Refusal;

/// Bytes a second that whatever a client has begun to send must come with (`reliability.md` 4.4).
const RATE_MIN: f64 = 1_024.0;
/// The packet that answers a poll without saying anything (`protocol.md` 2).
const NOOP: &str = "6";

/// What bodies are.
const CONTENT_TEXT: &str = "text/plain; charset=UTF-8";
const CONTENT_HTML: &str = "text/html";
const CONTENT_JSON: &str = "application/json";

/// Body of every answer of the client port.
pub(crate) type Body = Full<Bytes>;

/// The answer to a polling request, made on the session's shard and sent by the one that has the connection.
#[derive(Debug)]
pub(crate) struct PollReply {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
    /// The Engine.IO error code, for the metrics.
    pub(crate) code: Option<u8>,
}

impl PollReply {
    /// Packets for an open poll.
    pub(crate) fn packets(body: ByteString) -> PollReply {
        PollReply { status: StatusCode::OK, content_type: CONTENT_TEXT, body: body.into_bytes(), code: None }
    }

    /// Whether a client that did not get this answer has missed something. A noop only ends a poll.
    pub(crate) fn matters(&self) -> bool {
        self.status == StatusCode::OK && self.body != NOOP
    }

    /// The answer to a POST that was taken.
    pub(crate) fn ok() -> PollReply {
        PollReply { status: StatusCode::OK, content_type: CONTENT_HTML, body: Bytes::from_static(b"ok"), code: None }
    }

    /// The answer to a request whose body does not come.
    pub(crate) fn timed_out() -> PollReply {
        let status = StatusCode::REQUEST_TIMEOUT;
        PollReply { status, content_type: CONTENT_HTML, body: Bytes::new(), code: None }
    }

    /// The answer to a request for which there is no room now.
    pub(crate) fn busy(why: &'static str) -> PollReply {
        let (status, content_type) = (StatusCode::SERVICE_UNAVAILABLE, CONTENT_TEXT);
        PollReply { status, content_type, body: Bytes::from_static(why.as_bytes()), code: None }
    }

    /// What another node answered; `None` if no node answers like that.
    pub(crate) fn of_peer(status: u16, content: Content, code: Option<u8>, body: Bytes) -> Option<PollReply> {
        let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 200)?;
        let content_type = match content {
            Content::Text => CONTENT_TEXT,
            Content::Html => CONTENT_HTML,
            Content::Json => CONTENT_JSON,
        };
        Some(PollReply { status, content_type, body, code })
    }

    /// The answer for another node: a word, and the body.
    pub(crate) fn into_word(self) -> (Word, Bytes) {
        let content = match self.content_type {
            CONTENT_TEXT => Content::Text,
            CONTENT_JSON => Content::Json,
            _ => Content::Html,
        };
        (Word::Answer { status: self.status.as_u16(), content, code: self.code }, self.body)
    }

    /// The answer to somebody who asked for a WebSocket, and cannot read a body in JSON: the bare text (`protocol.md` 5).
    pub(crate) fn bare(self) -> PollReply {
        let text = [Refusal::UNKNOWN_SID, Refusal::BAD_REQUEST].into_iter().find(|refusal| refusal.code == self.code);
        let body = text.map_or(self.body, |refusal| Bytes::from_static(refusal.message.as_bytes()));
        PollReply { content_type: CONTENT_HTML, body, ..self }
    }

    /// The answer as HTTP.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<Refusal> for PollReply {
    fn from(refusal: Refusal) -> PollReply {
        let body = refusal.body().into_owned().into_bytes().into();
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
        PollReply { status, content_type: CONTENT_JSON, body, code: refusal.code }
    }
}
