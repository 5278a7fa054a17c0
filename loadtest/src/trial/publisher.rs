//! Whoever publishes during a trial: so many messages a second, by the clock and not by the answers.
//!
//! Invariants: message `n` is due at the start plus `n` intervals and says so itself; what was late is sent at once, so
//! that the rate holds over any stretch longer than a hiccup; every message asks for an ack.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use super::peer::Peer;
use super::{EVENT, ROOM, TrialError};
use crate::clock;

/// How often it looks at the clock.
const TICK: Duration = Duration::from_millis(1);

/// What everybody may see of it while it runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Messages sent.
    pub(super) sent: Cell<u64>,
    /// Answers that said yes.
    pub(super) acked: Cell<u64>,
    /// Answers that said no.
    pub(super) refused: Cell<u64>,
    /// Publish no more.
    pub(super) stop: Cell<bool>,
}

/// How fast and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Messages a second.
    pub(super) rate: u32,
    /// Bytes of filler in each.
    pub(super) payload: usize,
}

/// Publishes until it is stopped, then waits for the answers that are missing.
pub(super) async fn publish(to: SocketAddr, pace: Pace, progress: &Progress) -> Result<(), TrialError> {
    let mut peer = Peer::connect(to, None).await?;
    let filler = "x".repeat(pace.payload);
    let start = clock::now_ns();
    let interval = 1_000_000_000 / u64::from(pace.rate.max(1));
    let mut tick = tokio::time::interval(TICK);
    while !progress.stop.get() || progress.acked.get() + progress.refused.get() < progress.sent.get() {
        tick.tick().await;
        let due = (clock::now_ns() - start) / interval;
        while progress.sent.get() < due && !progress.stop.get() {
            let n = progress.sent.replace(progress.sent.get() + 1);
            let at = start + n * interval;
            peer.queue(&format!(
                r#"42{n}["room:publish",{{"room":"{ROOM}","event":"{EVENT}","args":[{n},{at},"{filler}"]}}]"#
            ));
        }
        peer.flush().await?;
        peer.packets_at_hand(|packet| {
            let counter = if packet.contains(r#""ok":true"#) { &progress.acked } else { &progress.refused };
            counter.set(counter.get() + 1);
        })?;
    }
    Ok(())
}

/// Number and due time of a message, from its packet or from an item of history: the two numbers behind the name.
pub(super) fn stamp(args: &str) -> Option<(u64, u64)> {
    let mut numbers = args.split(',').map(|part| part.trim_matches(|c: char| !c.is_ascii_digit()));
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_number_and_when_it_was_due() {
        assert_eq!(stamp(r#"17,123456,"xxx"]"#), Some((17, 123_456)));
        assert_eq!(stamp(r#"["m"]"#), None);
    }
}
