//! Who is in the cluster: SWIM by `foca`, with what it lacks around it, as a value without clock, socket or randomness.
//!
//! Added here (`mesh.md` 2.1): whole rosters are exchanged at each new link and every few seconds, with somebody who is down
//! too (gossip alone leaves stragglers for minutes, and two that took each other for gone for ever); a suspect is asked over
//! its link before it is declared down (30 % loss lets too few refutations through); timers that judge others wait while our
//! own timers are late (a stalled process must not declare its peers dead); views are compared with foca's list regularly
//! instead of trusting notifications alone; a process that hears of an edition of itself it never had stops.
//!
//! Invariants: one entry per ordinal, the latest process start wins; every timer foca asks for is delivered, perhaps late;
//! equal seeds and inputs give equal outputs.

pub(crate) mod codec;
mod identity;
mod roster;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::VecDeque,
    net::IpAddr,
    num::{NonZeroU8, NonZeroUsize},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use foca::{Foca, Member, NoCustomBroadcast, Notification, PeriodicParams, State, Timer};

pub(crate) use self::identity::Identity;
use self::{codec::PacketCodec, roster::Roster, timers::Timers};
use crate::{
    NodeId, Timings, View,
    rng::SplitMix,
    wire::control::{CodecError, decode_roster, encode_roster},
};

/// Largest gossip packet: fits a QUIC datagram before path MTU discovery.
pub(crate) const MAX_PACKET: usize = 1150;
/// How often foca's list is compared with the published view.
const RECONCILE: Duration = Duration::from_secs(2);
/// How long a member is remembered as down.
const FORGET_DOWN: Duration = Duration::from_secs(24 * 3600);
/// Above this many members, rosters are exchanged less often.
const LARGE_CLUSTER: usize = 300;
/// Period of roster exchange in a large cluster.
const LARGE_PUSH_PULL: Duration = Duration::from_secs(30);

/// What the driver has to do.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this packet to a node, best effort.
    Send {
        /// To whom, and where it is reached.
        to: Identity,
        /// At most [`MAX_PACKET`] bytes.
        packet: Bytes,
    },
    /// Exchange rosters with this node over a stream.
    PushPull {
        /// With whom.
        with: NodeId,
    },
    /// foca's list may have changed: look at [`Membership::peers`].
    Changed,
    /// Publish this view.
    View(Arc<View>),
    /// The cluster had declared us down and we came back.
    Renewed,
    /// Give up: the cluster knows an edition of this very process start that we never had.
    StartedTwice {
        /// That edition.
        edition: u16,
    },
}

/// The value. Feed it packets, rosters and time; perform its outputs.
pub(crate) struct Membership {
    foca: Foca<Identity, PacketCodec, SplitMix, NoCustomBroadcast>,
    timings: Timings,
    effects: Effects,
    timers: Timers,
    roster: Roster,
    /// Our edition, and an incarnation of it that refutes every suspicion a roster told us; foca keeps the true one to itself.
    refuted: (u16, u16),
    outputs: VecDeque<Output>,
    rng: SplitMix,
    next_push_pull: Instant,
    next_reconcile: Instant,
    left: bool,
}

impl Membership {
    /// A cluster of ourselves alone; its first view is ready to be polled.
    pub(crate) fn new(me: Identity, timings: &Timings, seed: u64, now: Instant) -> Membership {
        let mut rng = SplitMix::new(seed);
        let foca = Foca::new(me, foca_config(timings, 1), SplitMix::new(rng.next()), PacketCodec);
        let mut membership = Membership {
            roster: Roster::new(foca.identity(), timings.settle),
            timers: Timers::new(timings.lag_limit, timings.lag_pause),
            timings: timings.clone(),
            foca,
            effects: Effects::default(),
            refuted: (0, 0),
            outputs: VecDeque::new(),
            rng,
            next_push_pull: now + timings.push_pull,
            next_reconcile: now + RECONCILE,
            left: false,
        };
        membership.outputs.push_back(Output::View(membership.roster.view()));
        membership
    }

    /// Ourselves, as we introduce ourselves now.
    pub(crate) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The last published view.
    pub(crate) fn view(&self) -> Arc<View> {
        self.roster.view()
    }

    /// Everyone foca knows, down ones included, at this moment.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &Member<Identity>> {
        let me = self.foca.identity().node;
        self.foca.iter_membership_state().filter(move |member| member.id().node != me)
    }

    /// Whether we said good-bye.
    #[cfg(test)]
    pub(crate) fn has_left(&self) -> bool {
        self.left
    }

    /// How late our own timers last were, while that is long enough to distrust our judgement.
    pub(crate) fn lag(&self, now: Instant) -> Option<Duration> {
        self.timers.lag(now)
    }

    /// A gossip packet came in. `Err` says it was not understood; nothing changed then.
    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), foca::Error> {
        if self.left {
            return Ok(());
        }
        let result = self.foca.handle_data(packet, &mut self.effects);
        self.absorb(now);
        result
    }

    /// A peer's roster came in, as question or as answer.
    pub(crate) fn handle_roster(&mut self, body: Bytes, now: Instant) -> Result<(), CodecError> {
        let members = decode_roster(body)?;
        let me = self.foca.identity().node;
        for member in members.iter().filter(|member| member.id().node == me) {
            self.hear_of_ourselves(member);
        }
        self.apply(members, now);
        Ok(())
    }

    fn hear_of_ourselves(&mut self, said: &Member<Identity>) {
        let (me, other) = (self.foca.identity(), said.id());
        if other == me && said.state() == State::Suspect {
            let known = if self.refuted.0 == me.edition { self.refuted.1 } else { 0 };
            self.refuted = (me.edition, known.max(said.incarnation().saturating_add(1)));
        } else if other.generation == me.generation && other.edition > me.edition {
            self.outputs.push_back(Output::StartedTwice { edition: other.edition });
        }
    }

    /// A link to this process came up: it is alive, and if we are the lower ordinal we exchange rosters with it.
    pub(crate) fn handle_link_up(&mut self, peer: Identity, now: Instant) {
        if self.identity().node < peer.node {
            self.outputs.push_back(Output::PushPull { with: peer.node });
        }
        self.apply(vec![Member::alive(peer)], now);
    }

    /// Our roster for a peer: everyone we know and ourselves.
    pub(crate) fn roster(&self) -> Bytes {
        let me = self.foca.identity().clone();
        let incarnation = if self.refuted.0 == me.edition { self.refuted.1 } else { 0 };
        let state = if self.left { State::Down } else { State::Alive };
        let me = Member::new(me, incarnation, state);
        encode_roster(std::iter::once(&me).chain(self.peers()))
    }

    /// Peers see us at this address: announce it.
    pub(crate) fn handle_address(&mut self, ip: IpAddr, now: Instant) {
        let mut me = self.foca.identity().next_edition();
        me.addr.set_ip(ip);
        self.reintroduce(me, now);
    }

    /// We are going: announce that we own nothing any more.
    pub(crate) fn handle_drain(&mut self, now: Instant) {
        if !self.foca.identity().draining && !self.left {
            let me = Identity { draining: true, ..self.foca.identity().next_edition() };
            self.reintroduce(me, now);
        }
    }

    /// We are gone: tell everyone. Nothing is judged or answered any more.
    pub(crate) fn handle_leave(&mut self, now: Instant) {
        if !self.left {
            self.left = true;
            log_error(self.foca.leave_cluster(&mut self.effects));
            self.absorb(now);
            // A datagram may be lost, and nobody repeats this one: tell each over a stream too.
            let peers = self.foca.iter_members().map(|member| Output::PushPull { with: member.id().node });
            self.outputs.extend(peers);
        }
    }

    /// Performs what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            if self.is_refuted(&timer) {
                continue;
            }
            log_error(self.foca.handle_timer(timer, &mut self.effects));
            self.absorb(now);
        }
        if now >= self.next_push_pull {
            self.push_pull_with_someone(now);
        }
        if now >= self.next_reconcile {
            self.next_reconcile = now + RECONCILE;
            if self.roster.differs(self.foca.identity(), self.foca.iter_membership_state()) {
                self.roster.touch(now);
                self.outputs.push_back(Output::Changed);
            }
        }
        if self.roster.poll_timeout().is_some_and(|due| due <= now) {
            if let Some(view) = self.roster.settle(self.foca.identity(), self.foca.iter_membership_state()) {
                self.outputs.push_back(Output::View(view));
            }
            log_error(self.foca.set_config(foca_config(&self.timings, self.foca.num_members() + 1)));
        }
    }

    /// When [`Membership::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let own = self.next_push_pull.min(self.next_reconcile);
        [self.timers.poll_timeout(), self.roster.poll_timeout()].into_iter().flatten().fold(own, Instant::min)
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn apply(&mut self, members: Vec<Member<Identity>>, now: Instant) {
        // Hearing that we are down, foca would introduce us anew; having left, that is what we want to hear.
        if self.left {
            return;
        }
        log_error(self.foca.apply_many(members.into_iter(), true, &mut self.effects));
        self.absorb(now);
    }

    fn reintroduce(&mut self, me: Identity, now: Instant) {
        log_error(self.foca.change_identity(me, &mut self.effects));
        // foca counts itself disconnected after a change until it hears something; we still know our peers.
        self.apply(Vec::new(), now);
        self.roster.touch(now);
    }

    /// Whether a suspicion has been answered since. foca 2.0 would not declare the member down, but tell it that it was.
    fn is_refuted(&self, timer: &Timer<Identity>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        let mut suspects = self.foca.iter_membership_state().filter(|member| member.state() == State::Suspect);
        !suspects.any(|member| member.id() == member_id && member.incarnation() == *incarnation)
    }

    fn push_pull_with_someone(&mut self, now: Instant) {
        let members = self.foca.num_members();
        let period = if members > LARGE_CLUSTER { LARGE_PUSH_PULL } else { self.timings.push_pull };
        self.next_push_pull = now + self.rng.between(period * 3 / 4, period * 5 / 4);
        let alive = self.anyone(|state| state != State::Down);
        // Two that took each other for gone while their link held would otherwise never speak again.
        let down = self.anyone(|state| state == State::Down);
        self.outputs.extend(alive.into_iter().chain(down).map(|with| Output::PushPull { with }));
    }

    /// One of the peers in such a state, by lot.
    fn anyone(&mut self, wanted: impl Fn(State) -> bool) -> Option<NodeId> {
        let candidates: Vec<NodeId> =
            self.peers().filter(|peer| wanted(peer.state())).map(|peer| peer.id().node).collect();
        let pick = self.rng.below(u64::try_from(candidates.len()).unwrap_or(0));
        candidates.get(usize::try_from(pick).unwrap_or(0)).copied()
    }

    /// Turns what foca did into outputs, timers and marks.
    fn absorb(&mut self, now: Instant) {
        for (to, packet) in self.effects.packets.drain(..) {
            self.outputs.push_back(Output::Send { to, packet });
        }
        for (timer, after) in self.effects.timers.drain(..) {
            if let Timer::ChangeSuspectToDown { member_id, .. } = &timer {
                // Gossip may be lost in both directions; what the suspect says over its link is not.
                self.outputs.push_back(Output::PushPull { with: member_id.node });
            }
            self.timers.push(now + after, timer);
        }
        if std::mem::take(&mut self.effects.changed) {
            self.roster.touch(now);
            self.outputs.push_back(Output::Changed);
        }
        if std::mem::take(&mut self.effects.renewed) {
            self.roster.touch(now);
            tracing::warn!(
                edition = self.foca.identity().edition,
                "the cluster had declared this node down; it re-introduced itself"
            );
            self.outputs.push_back(Output::Renewed);
            // foca counts itself disconnected after a change until it hears something; we still know our peers.
            self.apply(Vec::new(), now);
        }
    }
}

/// What one call into foca asked for.
#[derive(Debug, Default)]
struct Effects {
    packets: Vec<(Identity, Bytes)>,
    timers: Vec<(Timer<Identity>, Duration)>,
    changed: bool,
    renewed: bool,
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => self.changed = true,
            Notification::Rejoin(_) => self.renewed = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// foca's constants for a cluster of this size (`mesh.md` 6).
fn foca_config(timings: &Timings, members: usize) -> foca::Config {
    let digits = f64::from(u32::try_from(members).unwrap_or(u32::MAX)).log10();
    let transmissions = (1..).take_while(|power| 10_usize.saturating_pow(*power) <= members).count() + 1;
    let transmissions = u8::try_from(4 * transmissions).unwrap_or(u8::MAX);
    let periodic =
        |frequency, count| NonZeroUsize::new(count).map(|num_members| PeriodicParams { frequency, num_members });
    foca::Config {
        probe_period: timings.probe_period,
        probe_rtt: timings.probe_rtt,
        num_indirect_probes: NonZeroUsize::MIN.saturating_add(2),
        max_transmissions: NonZeroU8::new(transmissions).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: timings.suspicion.mul_f64(digits.max(1.0)),
        remove_down_after: Some(FORGET_DOWN),
        max_packet_size: NonZeroUsize::MIN.saturating_add(MAX_PACKET - 1),
        notify_down_members: true,
        periodic_announce: periodic(Duration::from_secs(5), 1),
        periodic_announce_to_down_members: periodic(Duration::from_secs(10), 2),
        periodic_gossip: periodic(timings.gossip, 3),
    }
}

/// foca's errors are about single packets or its own bookkeeping, which it repairs; they are worth a line, not more.
fn log_error(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "gossip");
    }
}
