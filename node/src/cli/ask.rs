//! Asking a running node for something as JSON, and what is said when that fails.
//!
//! Invariant: each way to fail has the exit code of interface.md 3.

use serde::de::DeserializeOwned;

use super::Exit;
use super::http::{self, HttpError};

#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("answered {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("answered something else than what was asked for: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// What `GET path` answers with 200.
pub(super) fn json<T: DeserializeOwned>(admin: &str, path: &str) -> Result<T, AskError> {
    let answer = http::get(admin, path)?;
    if answer.status != 200 {
        let body = String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(AskError::Refused { status: answer.status, body });
    }
    Ok(serde_json::from_slice(&answer.body)?)
}

/// Says why there is no answer; the exit code for it.
pub(super) fn complain(admin: &str, error: &AskError) -> Exit {
    super::complain(format_args!("error: {admin}: {error}"));
    match error {
        AskError::Http(HttpError::Address(_)) => Exit::Usage,
        AskError::Http(HttpError::Io(_) | HttpError::Malformed) => Exit::Unreachable,
        AskError::Refused { .. } | AskError::Unreadable(_) => Exit::Failed,
    }
}
