//! What threads say to a shard.
//!
//! Invariants: a message names its shard's state by `Sid`, token or room, never by pointer; every `reply` is answered or
//! dropped, and a dropped one tells the asker that the session is gone.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use mesh::{
    NodeId, Responder, View,
    room::RoomKey,
    slot::{Answer, Ask, Census, Change, Found, Member, Publish, Scanned, Stamp, Want},
    wire::{direct::Direct, message::Frame, request::Seats, sockets::Done},
};
use protocol::{sid::Sid, socketio::Args};
use tokio::sync::oneshot;

use crate::{
    forward::Forwarded,
    gateway::{Errand, Report, Survey},
    handler::Ack,
    mailbox::Weigh,
    orders::Order,
    transport::{PollReply, tcp::Detached},
};

/// Bytes a message costs besides its payload.
const OVERHEAD: usize = 128;

/// See the module.
pub(crate) enum Message {
    /// A polling GET for a session of this shard.
    Get { sid: Sid, reply: oneshot::Sender<PollReply> },
    /// The client of an open GET went away; `lost` if packets that were its answer did not reach it.
    GetAborted { sid: Sid, lost: bool },
    /// A polling POST begins; its body is read only if this is answered with the bytes it may have.
    PostStarted { sid: Sid, reply: oneshot::Sender<Result<usize, PollReply>> },
    /// Its body.
    Post { sid: Sid, body: Bytes, reply: oneshot::Sender<PollReply> },
    /// Its body never came or was too large.
    PostAborted { sid: Sid },
    /// Does this session live here?
    Find { sid: Sid, reply: oneshot::Sender<bool> },
    /// What a client of a session of this shard wants, whose request came to another node.
    Forwarded(Forwarded),
    /// A WebSocket that was opened with this session's id, after the 101; `rest` was read beyond the request.
    WebSocket { sid: Sid, tcp: Detached, rest: Bytes },

    /// A socket of another shard publishes to a slot of this one.
    Publish { publish: Publish, ask: Ask },
    /// A socket of another shard joins.
    Join { room: RoomKey, want: Want, ask: Ask },
    /// A socket of another shard joins and shows itself.
    JoinPresent { room: RoomKey, want: Want, member: Member, ask: Ask },
    /// A socket of another shard does not show itself any more.
    Depart { room: RoomKey, id: ByteString },
    /// A socket of another shard asks who is present.
    Presence { room: RoomKey, ask: Ask },
    /// Who comes and goes, for this shard's members that show themselves.
    Change { room: RoomKey, change: Change },
    /// The last member of another shard left.
    Leave { room: RoomKey, shard: u8 },
    /// A socket of another shard reads history.
    History { room: RoomKey, want: Want, ask: Ask },
    /// A frame for this shard's members.
    Deliver { frame: Arc<Frame> },
    /// Continuity was lost for this shard's members.
    Gap { room: RoomKey, stamp: Stamp },
    /// The answer to a question of this shard.
    Answer { token: u64, answer: Answer },
    /// Something for one socket of this shard.
    Direct(Direct),
    /// Another shard's program answers an event of a socket here.
    Answered { ack: Ack, args: Args },
    /// Something to ask clients of this shard.
    Survey(Arc<Survey>),
    /// What came of a survey of this shard, on some node.
    Report { from: NodeId, survey: u64, report: Report },
    /// Something to do with sockets of this shard.
    Order { order: Arc<Order>, reply: oneshot::Sender<Done> },
    /// Something a peer wants done with sockets of this node.
    PeerOrder { order: Order, responder: Responder },
    /// Something to do with a socket of this shard.
    Errand { socket: ByteString, errand: Errand },
    /// Something to do in nobody's name.
    Speak { errand: Errand },

    /// Who owns what, from now on.
    View(Arc<View>),
    /// This life of a peer can be reached.
    LinkUp { node: NodeId, generation: u64 },
    /// A peer cannot be reached.
    LinkDown(NodeId),
    /// An application frame of a peer about one of this shard's slots.
    PeerFrame { from: NodeId, frame: Bytes },
    /// A peer's question about one of this shard's slots.
    PeerRequest { body: Bytes, responder: Responder },
    /// The store's answer.
    Read { read: u64, found: Option<Found> },
    /// The store's answer about all that it holds of a slot.
    Scanned { scan: u64, scanned: Option<Scanned> },
    /// Say what this node is to how many of this shard's slots, when all that was decided until then has left.
    Census { reply: oneshot::Sender<Census> },
    /// Say what this node knows of the seats of a slot.
    Seats { slot: u16, reply: oneshot::Sender<Seats> },
    /// Close every connection at this pace and tell when the last one is gone.
    Drain { per_second: usize, done: oneshot::Sender<()> },
}

impl Weigh for Message {
    fn weight(&self) -> usize {
        let payload = match self {
            Message::Post { body, .. } | Message::PeerRequest { body, .. } => body.len(),
            Message::WebSocket { rest, .. } => rest.len(),
            Message::Publish { publish, .. } => publish.payload.len(),
            Message::Deliver { frame } => frame.payload.len(),
            Message::PeerFrame { frame, .. } => frame.len(),
            Message::Read { found, .. } => found.iter().flat_map(|found| &found.frames).map(|f| f.payload.len()).sum(),
            Message::Scanned { scanned, .. } => {
                scanned.iter().flat_map(|scanned| &scanned.frames).map(|frame| frame.payload.len()).sum()
            }
            Message::Answer { answer, .. } => match answer {
                Answer::Joined(Ok(history)) | Answer::History(Ok(history)) => {
                    let members = history.members.iter().flatten().map(|member| member.len());
                    history.frames.iter().map(|frame| frame.payload.len()).chain(members).sum()
                }
                Answer::Presence(roster) => roster.members.iter().map(|member| member.len()).sum(),
                Answer::Joined(Err(_)) | Answer::History(Err(_)) | Answer::Published(_) => 0,
            },
            Message::JoinPresent { member, .. } => member.body.len(),
            Message::Change { change, .. } => change.member.body.len(),
            Message::Direct(direct) => direct.payload.len(),
            Message::Answered { args, .. } | Message::Report { report: Report::Answer(args), .. } => args.weight(),
            Message::Survey(survey) => survey.payload.len(),
            Message::Get { .. }
            | Message::GetAborted { .. }
            | Message::PostStarted { .. }
            | Message::PostAborted { .. }
            | Message::Find { .. }
            | Message::Forwarded(_)
            | Message::Join { .. }
            | Message::Depart { .. }
            | Message::Presence { .. }
            | Message::Leave { .. }
            | Message::History { .. }
            | Message::Gap { .. }
            | Message::Errand { .. }
            | Message::Speak { .. }
            | Message::Order { .. }
            | Message::PeerOrder { .. }
            | Message::Report { report: Report::Asked { .. } | Report::Silence, .. }
            | Message::View(_)
            | Message::LinkUp { .. }
            | Message::LinkDown(_)
            | Message::Census { .. }
            | Message::Seats { .. }
            | Message::Drain { .. } => 0,
        };
        OVERHEAD + payload
    }
}
