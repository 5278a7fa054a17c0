//! What one client did lately, as far as the limits on its messages ask.
//!
//! Invariants: a client that does nothing has no state here; whatever arrives is counted, also what is refused afterwards;
//! a limit that is off costs nothing but a look.

use std::time::{Duration, Instant};

use crate::{
    config,
    rate::{Bucket, Rate},
};

/// What may come at once, in seconds of its rate.
const BURST_SECONDS: u64 = 2;
/// How many times the rate of messages ends the connection.
const FLOOD: u64 = 10;

/// The limits that count here.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    messages: Option<Rate>,
    flood: Option<Rate>,
    bytes: Option<Rate>,
    joins: Option<Rate>,
    connect_bytes: usize,
    assembly_timeout: Duration,
}

impl Limits {
    /// As configured. A message of the largest size always passes a bucket that is full.
    pub(crate) fn new(config: &config::Config) -> Limits {
        let limits = &config.limits;
        let rate = |per_second: u64| Rate::per_second(per_second, per_second.saturating_mul(BURST_SECONDS));
        let (messages, bytes) = (limits.messages_per_second as u64, limits.bytes_per_second.0);
        Limits {
            messages: rate(messages),
            flood: rate(messages.saturating_mul(FLOOD)),
            bytes: Rate::per_second(bytes, bytes.saturating_mul(BURST_SECONDS).max(config.socketio.max_payload.0)),
            joins: rate(limits.joins_per_second as u64),
            connect_bytes: limits.connect_bytes.bytes(),
            assembly_timeout: limits.assembly_timeout,
        }
    }
}

/// What is to be done about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is handled, whatever `is_over` says of the event that it is, or is part of.
    Handle,
    /// The connection is closed: it floods.
    Flood,
    /// The connection is closed: it should have joined a namespace by now.
    Unconnected,
}

#[derive(Debug, Default)]
struct State {
    messages: Bucket,
    flood: Bucket,
    bytes: Bucket,
    joins: Bucket,
    /// Part of the event that is being received came too fast.
    over: bool,
    /// What came before a namespace was joined.
    unconnected: usize,
    /// A message is incomplete, and must get on by then.
    assemble_by: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Conduct(Option<Box<State>>);

impl Conduct {
    /// A message of so many bytes came.
    pub(crate) fn heed(&mut self, limits: &Limits, bytes: usize, connected: bool, now: Instant) -> Verdict {
        if connected && limits.messages.is_none() && limits.bytes.is_none() {
            return Verdict::Handle;
        }
        let state = self.0.get_or_insert_default();
        if !connected {
            state.unconnected = state.unconnected.saturating_add(bytes);
            if state.unconnected > limits.connect_bytes {
                return Verdict::Unconnected;
            }
        }
        if limits.flood.is_some_and(|rate| !state.flood.take(rate, 1, now)) {
            return Verdict::Flood;
        }
        let fits = limits.messages.is_none_or(|rate| state.messages.take(rate, 1, now))
            & limits.bytes.is_none_or(|rate| state.bytes.take(rate, bytes as u64, now));
        state.over |= !fits;
        Verdict::Handle
    }

    /// Whether the event that is complete now came too fast.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.as_mut().is_some_and(|state| std::mem::take(&mut state.over))
    }

    /// Whether one more room may be joined now.
    pub(crate) fn may_join(&mut self, limits: &Limits, now: Instant) -> bool {
        limits.joins.is_none_or(|rate| self.0.get_or_insert_default().joins.take(rate, 1, now))
    }

    /// Whether attachments are missing after what just came.
    pub(crate) fn set_incomplete(&mut self, incomplete: bool, limits: &Limits, now: Instant) {
        if incomplete {
            self.0.get_or_insert_default().assemble_by = Some(now + limits.assembly_timeout);
        } else if let Some(state) = &mut self.0 {
            state.assemble_by = None;
        }
    }

    /// When what is missing must have come.
    pub(crate) fn assemble_by(&self) -> Option<Instant> {
        self.0.as_ref()?.assemble_by
    }

    /// Forgets what does not count any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.0.take_if(|state| {
            let buckets = [state.messages, state.flood, state.bytes, state.joins];
            state.unconnected == 0
                && state.assemble_by.is_none()
                && !state.over
                && buckets.iter().all(|bucket| bucket.is_full(now))
        });
    }

    /// A namespace was joined.
    pub(crate) fn set_connected(&mut self) {
        if let Some(state) = &mut self.0 {
            state.unconnected = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn limits(messages: u64, bytes: u64, joins: u64) -> Limits {
        let rate = |per_second| Rate::per_second(per_second, 2 * per_second);
        Limits {
            messages: rate(messages),
            flood: rate(10 * messages),
            bytes: rate(bytes),
            joins: rate(joins),
            connect_bytes: 100,
            assembly_timeout: Duration::from_secs(10),
        }
    }

    #[test]
    fn too_many_messages_are_over_and_ten_times_as_many_a_flood() {
        let (limits, mut conduct, now) = (limits(10, 0, 0), Conduct::default(), clock::now());
        let verdicts: Vec<(Verdict, bool)> =
            (0..201).map(|_| (conduct.heed(&limits, 1, true, now), conduct.is_over())).collect();
        assert!(verdicts[..20].iter().all(|seen| *seen == (Verdict::Handle, false)));
        assert!(verdicts[20..200].iter().all(|seen| *seen == (Verdict::Handle, true)));
        assert_eq!(verdicts[200].0, Verdict::Flood);
        let later = now + Duration::from_millis(100);
        assert_eq!((conduct.heed(&limits, 1, true, later), conduct.is_over()), (Verdict::Handle, false));
    }

    #[test]
    fn an_event_is_over_if_any_part_of_it_was() {
        let (limits, mut conduct, now) = (limits(0, 1_000, 0), Conduct::default(), clock::now());
        conduct.heed(&limits, 2_000, true, now);
        assert!(!conduct.is_over());
        conduct.heed(&limits, 1, true, now);
        conduct.heed(&limits, 0, true, now);
        assert!(conduct.is_over() && !conduct.is_over());
    }

    #[test]
    fn what_comes_before_a_namespace_is_bounded_whatever_is_off() {
        let (limits, mut conduct, now) = (limits(0, 0, 0), Conduct::default(), clock::now());
        assert_eq!(conduct.heed(&limits, 100, false, now), Verdict::Handle);
        assert_eq!(conduct.heed(&limits, 1, false, now), Verdict::Unconnected);
        conduct.set_connected();
        assert_eq!(conduct.heed(&limits, 1_000_000, true, now), Verdict::Handle);
    }

    #[test]
    fn who_does_nothing_has_no_state() {
        let (limits, mut conduct, now) = (limits(10, 10, 10), Conduct::default(), clock::now());
        conduct.heed(&limits, 10, true, now);
        assert!(conduct.may_join(&limits, now));
        conduct.forget(now);
        assert!(conduct.0.is_some());
        conduct.forget(now + Duration::from_secs(1));
        assert!(conduct.0.is_none());
    }

    #[test]
    fn joins_have_a_rate_of_their_own_and_a_message_that_gets_on_gets_more_time() {
        let (limits, mut conduct, now) = (limits(0, 0, 1), Conduct::default(), clock::now());
        assert_eq!([(); 3].map(|()| conduct.may_join(&limits, now)), [true, true, false]);
        let later = now + Duration::from_secs(3);
        conduct.set_incomplete(true, &limits, now);
        conduct.set_incomplete(true, &limits, later);
        assert_eq!(conduct.assemble_by(), Some(later + Duration::from_secs(10)));
        conduct.set_incomplete(false, &limits, later);
        assert_eq!(conduct.assemble_by(), None);
    }
}
