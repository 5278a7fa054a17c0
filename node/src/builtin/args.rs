//! The arguments of the built-in events, as clients write them.
//!
//! Invariant: what cannot be read is refused as `bad_request`, with what is wrong with which field.

use std::borrow::Cow;

use protocol::socketio::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    envelope,
    handler::{Event, Join, Refused},
};

#[derive(Deserialize)]
pub(super) struct JoinArgs {
    pub(super) room: String,
    pub(super) history: Option<Past>,
    pub(super) replay: Option<Replay>,
    pub(super) presence: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Past {
    pub(super) last: Option<u32>,
    pub(super) since: Option<u64>,
    pub(super) epoch: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Replay {
    Ack,
    Events,
}

#[derive(Deserialize)]
pub(super) struct RoomArgs {
    pub(super) room: String,
}

#[derive(Deserialize)]
pub(super) struct PublishArgs<'a> {
    pub(super) room: Option<String>,
    #[serde(borrow)]
    pub(super) event: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) args: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) echo: bool,
    #[serde(default)]
    pub(super) volatile: bool,
    pub(super) id: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HistoryArgs {
    pub(super) room: String,
    pub(super) limit: Option<u32>,
    pub(super) since: Option<u64>,
    pub(super) epoch: Option<String>,
    #[serde(default)]
    pub(super) reverse: bool,
}

/// The one object an event comes with.
pub(super) fn read<'a, T: Deserialize<'a>>(event: &Event<'a>) -> Result<T, Refused> {
    event.first().map_err(|error| Refused::bad_request(error.to_string()))
}

/// What a publish carries: an array, in which every attachment of the packet has its place.
pub(super) fn publish_args(event: &Event<'_>, array: Option<&RawValue>) -> Result<Args, Refused> {
    let attachments = event.attachments().len();
    let text = array.map_or("[]", RawValue::get);
    if attachments > 0 && !envelope::names_each_once(std::iter::once(text), attachments) {
        return Err(Refused::bad_request("args: every attachment has one placeholder, and stands in args"));
    }
    let Some(array) = array else { return Ok(Args::text("[]")) };
    event.args_in(array).ok_or_else(|| Refused::bad_request("args: an array"))
}

/// What a relayed event carries: all that it came with.
pub(super) fn relayed(event: &Event<'_>) -> Result<Args, Refused> {
    let args = event.args();
    if !args.attachments.is_empty() && !envelope::names_each_once(std::iter::once(&*args.json), args.attachments.len())
    {
        return Err(Refused::bad_request("every attachment has one placeholder"));
    }
    Ok(args)
}

/// The join with what of the past its client wants.
pub(super) fn with_past(join: Join<'_>, past: Option<Past>) -> Result<Join<'_>, Refused> {
    let Some(past) = past else { return Ok(join) };
    match past {
        Past { last: Some(last), since: None, epoch: None } => Ok(join.last(last)),
        Past { last: None, since: Some(after), epoch: Some(epoch) } => Ok(join.since(after, &epoch)),
        Past { since: Some(_), epoch: None, .. } => {
            Err(Refused::bad_request("history.since: needs the epoch it belongs to"))
        }
        Past { .. } => Err(Refused::bad_request("history: either {last} or {since, epoch}")),
    }
}
