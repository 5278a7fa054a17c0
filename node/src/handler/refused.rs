//! Why something has no effect: said by the node or a program to a client, and by the node to a program.
//!
//! Invariants: the codes are those of `interface.md` 1.1; a code is for programs, a message is for people.

use std::{borrow::Cow, fmt};

use mesh::wire::message::Refusal;
use protocol::socketio::ArgsError;
use serde_json::json;

use crate::metrics::RejectReason;

/// What a refusal is called (`interface.md` 1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// An argument is wrong.
    BadRequest,
    /// Nobody is signed in, and would have to be.
    Unauthorized,
    /// It is not allowed.
    Forbidden,
    /// Only members of the room may.
    NotMember,
    /// Too many bytes.
    TooLarge,
    /// Too much at once.
    RateLimited,
    /// There may be no more of it.
    LimitReached,
    /// Not now; again after `retry_ms`.
    Overloaded,
    /// This side of a cut may not write.
    NoQuorum,
    /// History cannot be kept now.
    StorageFull,
    /// No answer in time; whether it had an effect is unknown.
    Timeout,
    /// Nobody handles the event.
    UnhandledEvent,
    /// The backend did not answer as it should.
    BackendError,
    /// The node is going away.
    Draining,
    /// A bug; whether it had an effect is unknown.
    Internal,
    /// A code of the program's own.
    Own(Cow<'static, str>),
}

impl Code {
    /// The code as clients read it.
    pub fn as_str(&self) -> &str {
        match self {
            Code::BadRequest => "bad_request",
            Code::Unauthorized => "unauthorized",
            Code::Forbidden => "forbidden",
            Code::NotMember => "not_member",
            Code::TooLarge => "too_large",
            Code::RateLimited => "rate_limited",
            Code::LimitReached => "limit_reached",
            Code::Overloaded => "overloaded",
            Code::NoQuorum => "no_quorum",
            Code::StorageFull => "storage_full",
            Code::Timeout => "timeout",
            Code::UnhandledEvent => "unhandled_event",
            Code::BackendError => "backend_error",
            Code::Draining => "draining",
            Code::Internal => "internal",
            Code::Own(code) => code,
        }
    }

    /// The word metrics count it under.
    pub(crate) fn reason(&self) -> RejectReason {
        match self {
            Code::BadRequest => RejectReason::BadRequest,
            Code::Unauthorized => RejectReason::Unauthorized,
            Code::Forbidden => RejectReason::Forbidden,
            Code::NotMember => RejectReason::NotMember,
            Code::TooLarge => RejectReason::Payload,
            Code::RateLimited => RejectReason::RateLimited,
            Code::LimitReached => RejectReason::Rooms,
            Code::Overloaded => RejectReason::Overloaded,
            Code::NoQuorum => RejectReason::NoQuorum,
            Code::StorageFull => RejectReason::StorageFull,
            Code::Timeout | Code::Internal => RejectReason::Timeout,
            Code::UnhandledEvent => RejectReason::Unhandled,
            Code::BackendError => RejectReason::Backend,
            Code::Draining => RejectReason::Draining,
            Code::Own(_) => RejectReason::Program,
        }
    }
}

/// A refusal: what to call it, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub code: Code,
    /// For people: what, and why.
    pub message: Cow<'static, str>,
    /// Milliseconds after which a retry makes sense; with [`Code::Overloaded`].
    pub retry_ms: Option<u32>,
}

impl Refused {
    /// A refusal with this code and sentence.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Refused {
        Refused { code, message: message.into(), retry_ms: None }
    }

    /// An argument is wrong.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Refused {
        Refused::new(Code::BadRequest, message)
    }

    /// It is not allowed.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Refused {
        Refused::new(Code::Forbidden, message)
    }

    /// A code of the program's own, such as `banned`.
    pub fn own(code: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Refused {
        Refused::new(Code::Own(code.into()), message)
    }

    /// The object that answers an event which asked for an answer.
    pub(crate) fn answer(&self) -> String {
        let mut body = json!({"ok": false, "code": self.code.as_str(), "message": self.message});
        if let Some(retry_ms) = self.retry_ms {
            body["retry_ms"] = retry_ms.into();
        }
        body.to_string()
    }

    /// The object of a CONNECT_ERROR.
    pub(crate) fn connect_error(&self) -> String {
        json!({"message": self.message, "data": {"code": self.code.as_str()}}).to_string()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Refused {}

impl From<Refusal> for Refused {
    fn from(why: Refusal) -> Refused {
        match why {
            Refusal::Overloaded { retry_ms } => {
                let refused = Refused::new(Code::Overloaded, "the room cannot take this now");
                Refused { retry_ms: Some(retry_ms), ..refused }
            }
            Refusal::LimitReached => Refused::new(Code::LimitReached, "the room lists as many members as it can"),
            Refusal::StorageFull => Refused::new(Code::StorageFull, "history cannot be kept now"),
            Refusal::Draining => Refused::new(Code::Draining, "this node is going away; reconnect"),
            Refusal::Internal => Refused::new(Code::Internal, "nothing is known about the effect"),
            Refusal::Timeout => Refused::new(Code::Timeout, "no answer in time; it may have had an effect"),
        }
    }
}

impl From<SayError> for Refused {
    fn from(error: SayError) -> Refused {
        Refused::bad_request(error.to_string())
    }
}

/// Why something could not be said or done. It is the program's mistake: nothing happened, and the socket goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SayError {
    /// The text is not a JSON array.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The stock client takes ten in one packet.
    #[error("more attachments than a client takes in one packet")]
    TooManyAttachments,
    /// The name means something to the client library itself.
    #[error("the event's name is reserved")]
    ReservedName,
    /// Names of rooms and events have at least one byte, no control characters, and at most `limits.name_bytes`.
    #[error("a name is empty, too long or has control characters")]
    Name,
    /// An idempotency key has at most 64 bytes, and means nothing where nothing is kept: with several rooms, a whole
    /// namespace, or a volatile message.
    #[error("the id is too long, or nothing would remember it")]
    Id,
    /// One broadcast names at most 64 rooms, and leaves out at most as many.
    #[error("too many rooms in one broadcast")]
    TooManyRooms,
    /// The room of a socket's own id is that socket's alone.
    #[error("nobody can join the room of a socket's id")]
    RoomOfASocket,
    /// One connection leaves 256 questions unanswered.
    #[error("the client has too much to answer")]
    TooManyAsks,
    /// The socket is gone; only its rooms can still be reached.
    #[error("the socket is gone")]
    Gone,
}
