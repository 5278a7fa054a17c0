//! What strikes: processes die, stand still, drain and come back; nodes are cut off; links break; lanes are full.

use super::{Event, Ms, Storm, network::pair};

/// What may strike, each with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Crash,
    Pause,
    Slow,
    /// One node is cut off from some others.
    Cut,
    /// A link breaks and is made anew.
    Break,
    Full,
    /// A disk takes nothing for a while.
    Disk,
    Drain,
}

/// The faults of a storm: the more often one stands here, the more often it strikes.
pub(super) const ALL: &[Fault] = &[
    Fault::Crash,
    Fault::Pause,
    Fault::Pause,
    Fault::Slow,
    Fault::Cut,
    Fault::Cut,
    Fault::Break,
    Fault::Break,
    Fault::Full,
    Fault::Disk,
    Fault::Drain,
];

impl Storm {
    /// Something strikes somebody, and the next is already on its way.
    pub(super) fn strike(&mut self) {
        if self.now >= self.plan.storm_until {
            return;
        }
        let wait = self.plan.calm / 2 + self.rng.below(self.plan.calm.max(1));
        self.at(wait, Event::Strike);
        if self.plan.faults.is_empty() {
            return;
        }
        let which = usize::try_from(self.rng.below(self.plan.faults.len() as u64)).unwrap();
        let at = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
        self.inflict(self.plan.faults[which], at);
    }

    pub(super) fn inflict(&mut self, fault: Fault, at: usize) {
        if !self.nodes[at].is_up() {
            return;
        }
        match fault {
            Fault::Crash => {
                let away = match self.rng.below(3) {
                    0 => 100 + self.rng.below(900),
                    _ => 1_000 + self.rng.below(9_000),
                };
                let volume = self.plan.volumes_lost && self.rng.below(3) == 0;
                self.crash(at, away, volume);
            }
            Fault::Pause => {
                let lasts = match self.rng.below(3) {
                    0 => 100 + self.rng.below(900),
                    1 => 1_000 + self.rng.below(4_000),
                    _ => 5_000 + self.rng.below(10_000),
                };
                self.pause(at, lasts);
            }
            Fault::Slow => {
                self.count("slow");
                for step in 0..20 {
                    let (wait, lasts) = (step * 250 + self.rng.below(100), 20 + self.rng.below(180));
                    self.at(wait, Event::Stall { at, lasts });
                }
            }
            Fault::Cut => {
                let lasts = 200 + self.rng.below(12_000);
                let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != at).collect();
                let all = self.rng.below(2) == 0;
                for other in others {
                    if all || self.rng.below(2) == 0 {
                        self.cut(at, other, lasts);
                    }
                }
            }
            Fault::Break => {
                let other = usize::try_from(self.rng.below(self.nodes.len() as u64)).unwrap();
                if other != at {
                    self.count("breaks");
                    self.trace.note(self.now, at, "link breaks", &[other as u64], || format!("to N{other}"));
                    self.break_link(pair(at, other).0, [(0, 500), (0, 500)]);
                }
            }
            Fault::Full => {
                for peer in 0..self.nodes.len() {
                    let (lane, frames) = (u8::try_from(self.rng.below(4)).unwrap(), 1 + self.rng.below(20));
                    self.nodes[at].full.insert((peer, lane), u32::try_from(frames).unwrap());
                }
            }
            Fault::Disk => {
                let lasts = 500 + self.rng.below(4_000);
                self.set_storage(at, false);
                self.at(lasts, Event::Storage(at));
            }
            Fault::Drain => {
                let away = 500 + self.rng.below(5_000);
                self.drain(at, away);
            }
        }
    }

    /// The disk takes frames, or does not.
    pub(super) fn set_storage(&mut self, at: usize, ok: bool) {
        if let Some(slots) = &mut self.nodes[at].slots {
            slots.set_storage(ok);
        }
        if !ok {
            self.count("full disks");
            self.trace.note(self.now, at, "disk is full", &[], String::new);
        }
    }

    /// The process is killed and comes back after a while.
    pub(super) fn crash(&mut self, at: usize, away: Ms, volume_lost: bool) {
        self.excuse_clients(at);
        self.judge.crashes.push(self.now);
        self.stop(at, false, volume_lost);
        if away != Ms::MAX {
            self.at(away, Event::Start(at));
        }
    }

    /// The process stands still.
    pub(super) fn pause(&mut self, at: usize, lasts: Ms) {
        if self.nodes[at].paused.is_some() {
            return;
        }
        self.count("pauses");
        self.excuse(at, lasts);
        self.trace.note(self.now, at, "stands still", &[lasts], || format!("for {lasts} ms"));
        self.nodes[at].paused = Some(self.now + lasts);
        self.detector.still.insert(at, self.now);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.starve(pair(at, other).0, lasts);
        }
        self.at(lasts, Event::WakeUp(at));
    }

    /// A short pause that nobody should notice.
    pub(super) fn stall(&mut self, at: usize, lasts: Ms) {
        if self.nodes[at].is_up() && self.nodes[at].paused.is_none() {
            self.nodes[at].paused = Some(self.now + lasts);
            self.at(lasts, Event::WakeUp(at));
        }
    }

    /// Two nodes cannot reach each other.
    pub(super) fn cut(&mut self, a: usize, b: usize, lasts: Ms) {
        let (pair, _) = pair(a, b);
        if self.network.cuts.contains_key(&pair) {
            return;
        }
        self.count("cuts");
        self.excuse(a, lasts);
        self.trace.note(self.now, pair.0, "is cut off", &[pair.1 as u64, lasts], || {
            format!("from N{} for {lasts} ms", pair.1)
        });
        self.network.cuts.insert(pair, self.now);
        self.starve(pair, lasts);
        self.at(lasts, Event::Mend(pair, self.now));
    }

    pub(super) fn mend(&mut self, pair: (usize, usize), since: Ms) {
        if self.network.cuts.get(&pair) == Some(&since) {
            self.network.cuts.remove(&pair);
            self.trace.note(self.now, pair.0, "is back", &[pair.1 as u64], || format!("with N{}", pair.1));
        }
    }

    /// The node says that it goes; it ends when it owns nothing any more, or after 10 s. `away` = until it comes back.
    pub(super) fn drain(&mut self, at: usize, away: Ms) {
        if self.nodes[at].draining.is_some() || self.nodes[at].paused.is_some() {
            return;
        }
        self.count("drains");
        self.trace.note(self.now, at, "drains", &[], String::new);
        self.nodes[at].draining = Some(self.now);
        if self.nodes.len() > 1 {
            self.hand_view(at);
        }
        self.at(100, Event::Drained { at, since: self.now, away });
        let wait = 500 + self.rng.below(1_500);
        self.at(wait, Event::Depart { at, since: self.now });
    }

    /// The clients of a draining node are sent to another.
    pub(super) fn depart(&mut self, at: usize, since: Ms) {
        if self.nodes[at].draining == Some(since) && self.nodes[at].paused.is_none() {
            self.lose_clients(at);
        }
    }

    /// Looks whether a draining node may end.
    pub(super) fn drained(&mut self, at: usize, since: Ms, away: Ms) {
        let node = &self.nodes[at];
        if node.draining != Some(since) {
            return;
        }
        let owned = node.slots.as_ref().map_or(0, |slots| slots.census().owned);
        let (early, late) = (self.now < since + 2_500, self.now >= since + 10_000);
        if (owned > 0 || early || node.paused.is_some()) && !late && self.nodes.len() > 1 {
            return self.at(100, Event::Drained { at, since, away });
        }
        if owned > 0 && self.judge.rules.strict {
            self.judge.blame(format!("drain: node {at} owns {owned} slots 10 s after it said that it goes"));
        }
        self.stop(at, true, false);
        if away != Ms::MAX {
            self.at(away, Event::Start(at));
        }
    }

    /// Everything is well again: whoever is away comes back, whoever stands still moves.
    pub(super) fn heal(&mut self) {
        self.trace.note(self.now, 0, "all heals", &[], String::new);
        self.network.cuts.clear();
        for at in 0..self.nodes.len() {
            self.nodes[at].full.clear();
            self.set_storage(at, true);
            if self.nodes[at].paused.is_some() {
                self.nodes[at].paused = Some(self.now);
                self.wake(at);
            }
            if at < self.plan.ends_with && !self.nodes[at].is_up() {
                self.start(at);
            }
        }
    }

    /// What clients of this node send for so long is not judged by its time.
    fn excuse(&mut self, at: usize, lasts: Ms) {
        self.excuse_clients(at);
        let until = self.now.saturating_add(lasts).saturating_add(6_000);
        self.nodes[at].unwell_until = self.nodes[at].unwell_until.max(until);
    }
}
