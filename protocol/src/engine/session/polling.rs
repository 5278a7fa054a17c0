//! The polling side of a session: what waits for the next poll, and which requests are open.
//!
//! Invariants: packets leave in the order they came; an open poll is only ever answered with at least one packet;
//! `bytes` is the content of all buffered packets, and `memory` what they cost: the smallest message has its price too.

use std::collections::VecDeque;

use bytestring::ByteString;

use crate::engine::{Packet, payload};

/// python-engineio refuses an answer of more than 16 packets; what is left goes out by the next poll.
const PACKETS_PER_ANSWER: usize = 16;

#[derive(Default)]
pub(super) struct Polling {
    buffer: VecDeque<Packet>,
    bytes: usize,
    pub(super) get_open: bool,
    pub(super) post_open: bool,
}

impl Polling {
    pub(super) fn push(&mut self, packet: Packet) {
        self.bytes += packet.encoded_len();
        self.buffer.push_back(packet);
    }

    /// Bytes that the buffered packets take, each with its place in the queue.
    pub(super) fn memory(&self) -> usize {
        self.bytes + self.buffer.len() * size_of::<Packet>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether a poll waits and there is nothing to answer it with.
    pub(super) fn has_idle_poll(&self) -> bool {
        self.get_open && self.is_empty()
    }

    /// The answer to the open poll, if there is one and something to say.
    pub(super) fn take_answer(&mut self) -> Option<ByteString> {
        if !self.get_open || self.buffer.is_empty() {
            return None;
        }
        self.get_open = false;
        let count = self.buffer.len().min(PACKETS_PER_ANSWER);
        let body = payload::encode(self.buffer.iter().take(count));
        self.bytes -= self.buffer.drain(..count).map(|packet| packet.encoded_len()).sum::<usize>();
        Some(body)
    }

    /// Answers the open poll, if there is one, with this packet instead of the buffer.
    pub(super) fn release(&mut self, packet: &Packet) -> Option<ByteString> {
        std::mem::take(&mut self.get_open).then(|| payload::encode([packet]))
    }

    /// Everything that did not leave by a poll, oldest first.
    pub(super) fn take_buffer(&mut self) -> VecDeque<Packet> {
        self.bytes = 0;
        std::mem::take(&mut self.buffer)
    }
}
