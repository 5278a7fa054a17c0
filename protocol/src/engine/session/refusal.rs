//! The HTTP answers to Engine.IO requests that are refused (protocol.md 5).
//!
//! Invariant: status and body are byte for byte what the reference implementation answers, because clients and test
//! suites look at them.

use std::borrow::Cow;

/// A refused request: its status, and a body that is either `{"code":N,"message":"…"}` or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Engine.IO error code; `None` for an empty body.
    pub code: Option<u8>,
    /// Text for humans, without characters that JSON must escape.
    pub message: &'static str,
}

impl Refusal {
    /// No or unknown `transport`.
    pub const TRANSPORT_UNKNOWN: Refusal = Refusal::json(400, 0, "Transport unknown");
    /// The session does not exist, or no longer.
    pub const UNKNOWN_SID: Refusal = Refusal::json(400, 1, "Session ID unknown");
    /// A handshake with a method other than GET.
    pub const BAD_HANDSHAKE_METHOD: Refusal = Refusal::json(400, 2, "Bad handshake method");
    /// `transport` differs from that of the session, a WebSocket without upgrade, an Origin with invalid bytes.
    pub const BAD_REQUEST: Refusal = Refusal::json(400, 3, "Bad request");
    /// The handshake was not allowed.
    pub const FORBIDDEN: Refusal = Refusal::json(403, 4, "Forbidden");
    /// `EIO` is missing or names a version that is not served.
    pub const UNSUPPORTED_PROTOCOL_VERSION: Refusal = Refusal::json(400, 5, "Unsupported protocol version");
    /// A second poll or POST at the same time, or a POST that is not text.
    pub const EMPTY: Refusal = Refusal::empty(400);
    /// A body over maxPayload; the session stays.
    pub const TOO_LARGE: Refusal = Refusal::empty(413);
    /// PUT, DELETE and the like on a live session.
    pub const BAD_METHOD: Refusal = Refusal::empty(500);

    const fn json(status: u16, code: u8, message: &'static str) -> Refusal {
        Refusal { status, code: Some(code), message }
    }

    const fn empty(status: u16) -> Refusal {
        Refusal { status, code: None, message: "" }
    }

    /// The body, `application/json` unless empty. A WebSocket handshake is refused with the bare `message` instead.
    pub fn body(&self) -> Cow<'static, str> {
        match self.code {
            Some(code) => format!(r#"{{"code":{code},"message":"{}"}}"#, self.message).into(),
            None => "".into(),
        }
    }
}
