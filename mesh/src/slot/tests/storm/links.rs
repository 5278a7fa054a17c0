//! What the network does: links that come and go, frames and questions on their way.
//!
//! Invariant: nothing reaches a process that was not sent to that very life of the node.

use bytes::Bytes;

use super::{
    Event, Input, Ms, Storm,
    network::{Told, pair},
};

/// Within this time two ends of a link notice that nothing comes (`Timings::idle` is 5 s).
const IDLE: (Ms, Ms) = (3_500, 6_000);
/// A question without an answer.
const QUESTION: Ms = 5_000;

impl Storm {
    /// How long something takes on its way: mostly nothing to speak of.
    pub(super) fn delay(&mut self) -> Ms {
        let most = match self.rng.below(20) {
            0 => self.plan.delay,
            1..=4 => self.plan.delay / 4,
            _ => 10,
        };
        10 + self.rng.below(most.max(1)) / 10 * 10
    }

    /// Something that the node's own threads answer.
    pub(super) fn later(&mut self, at: usize, most: Ms, input: Input) {
        let (life, wait) = (self.nodes[at].generation, 10 + self.rng.below(most) / 10 * 10);
        self.at(wait, Event::Later { at, life, input });
    }

    /// The node dials everybody, and everybody it.
    pub(super) fn dial_all(&mut self, at: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.dial(pair(at, other).0, 1_500);
        }
    }

    fn dial(&mut self, pair: (usize, usize), most: Ms) {
        if self.network.dialling.insert(pair) {
            let wait = 50 + self.rng.below(most);
            self.at(wait, Event::Dial(pair));
        }
    }

    /// A connection is made, if both are there and nothing is in between.
    pub(super) fn dialled(&mut self, (a, b): (usize, usize)) {
        self.network.dialling.remove(&(a, b));
        if !self.nodes[a].is_up() || !self.nodes[b].is_up() {
            return;
        }
        let still = self.nodes[a].paused.is_some() || self.nodes[b].paused.is_some();
        if still || self.network.is_cut(a, b) {
            return self.dial((a, b), 1_500);
        }
        let lives = [self.nodes[a].generation, self.nodes[b].generation];
        if let Some((link, _)) = self.network.link(a, b) {
            if link.lives == lives && link.broke.is_none() {
                return;
            }
            // Whoever has not noticed that the old link is dead learns it from the new one.
            let id = link.id;
            self.tell(a, b, id, Told::Down);
            self.tell(b, a, id, Told::Down);
        }
        let id = self.network.open((a, b), lives);
        self.count("links");
        for (at, peer) in [(a, b), (b, a)] {
            let wait = self.rng.below(50);
            self.at(wait, Event::Tell { at, peer, link: id, what: Told::Up });
        }
    }

    /// One side learns of a link, or of its end.
    pub(super) fn tell(&mut self, at: usize, peer: usize, id: u64, what: Told) {
        let up = self.nodes[at].is_up();
        let Some((link, side)) = self.network.named(at, peer, id) else { return };
        let input = match (link.told[side], what) {
            (Told::Nothing, Told::Up) => Some(Input::LinkUp { peer, generation: link.lives[1 - side] }),
            (Told::Up, Told::Down) => Some(Input::LinkDown { peer }),
            (Told::Nothing, Told::Down) => None,
            (Told::Nothing | Told::Up | Told::Down, _) => return,
        };
        link.told[side] = what;
        // A process that came after the one at this end was never told of the link.
        let mine = link.lives[side];
        let (gone, pair) = (link.told == [Told::Down; 2], pair(at, peer).0);
        if let Some(input) = input.filter(|_| up && mine == self.nodes[at].generation) {
            self.trace.note(
                self.now,
                at,
                if what == Told::Up { "link up" } else { "link down" },
                &[peer as u64],
                || format!("N{peer}"),
            );
            self.input(at, input);
        }
        if gone && self.network.link(at, peer).is_some_and(|(link, _)| link.id == id) {
            self.network.close(pair);
            self.dial(pair, 1_000);
        }
    }

    /// A link breaks; each side notices in its own time.
    pub(super) fn break_link(&mut self, (a, b): (usize, usize), notice: [(Ms, Ms); 2]) {
        let now = self.now;
        let slack = [self.rng.below(200), self.rng.below(200)];
        let waits = notice.map(|(least, most)| least + self.rng.below(most - least + 1));
        let Some((link, _)) = self.network.link(a, b) else { return };
        if link.broke.is_some() {
            return;
        }
        link.broke = Some(now);
        link.drains = slack.map(|slack| now + slack);
        let id = link.id;
        self.at(waits[0], Event::Tell { at: a, peer: b, link: id, what: Told::Down });
        self.at(waits[1], Event::Tell { at: b, peer: a, link: id, what: Told::Down });
    }

    /// The process at one end is gone.
    pub(super) fn lose_links(&mut self, at: usize, clean: bool) {
        for (a, b) in self.network.pairs() {
            if a == at || b == at {
                let other = if clean { (0, 300) } else { (0, IDLE.1) };
                self.break_link((a, b), if a == at { [(0, 0), other] } else { [other, (0, 0)] });
            }
        }
    }

    /// Both sides hear nothing of each other for so long that they give the link up.
    pub(super) fn idle(&mut self, pair: (usize, usize), id: u64) {
        let (a, b) = pair;
        if self.network.named(a, b, id).is_some_and(|(link, _)| link.broke.is_none()) {
            self.break_link(pair, [(0, 2_000), (0, 2_000)]);
        }
    }

    /// The links of a pair that cannot hear each other will be given up, unless that ends before.
    pub(super) fn starve(&mut self, pair: (usize, usize), lasts: Ms) {
        let wait = IDLE.0 + self.rng.below(IDLE.1 - IDLE.0);
        if let Some((link, _)) = self.network.link(pair.0, pair.1)
            && wait < lasts
        {
            let id = link.id;
            self.at(wait, Event::Idle { pair, link: id });
        }
    }

    /// The next frame of a lane arrives, if its link still brings it.
    pub(super) fn arrive(&mut self, from: usize, to: usize, id: u64, lane: u8) {
        let (now, cut) = (self.now, self.network.is_cut(from, to));
        let Some((link, side)) = self.network.named(from, to, id) else { return };
        let there = 1 - side;
        let again = Event::Arrive { from, to, link: id, lane };
        match (link.broke, link.told[there]) {
            // It is sent again and again until the cut is over or the link is given up.
            (None, _) if cut => return self.at(100, again),
            (_, Told::Nothing) => return self.at(super::TICK, again),
            (_, Told::Up | Told::Down) => {}
        }
        let frame = link.wires[side][usize::from(lane)].pop_front();
        let lost = link.told[there] == Told::Down || link.broke.is_some_and(|_| cut || now > link.drains[there]);
        if let (Some(bytes), false) = (frame, lost) {
            self.input(to, Input::Frame { from, bytes });
        }
    }

    /// A question to a peer, outside of the lanes.
    pub(super) fn question(&mut self, at: usize, read: u64, to: usize, request: Bytes) {
        self.trace.note(self.now, at, "asks", &[to as u64, read], || format!("N{to}"));
        self.trace.bytes(&request);
        let lost = self.rng.below(1_000) < self.plan.questions_lost || self.network.is_cut(at, to);
        if !self.network.is_up(at, to) {
            return self.later(at, 10, Input::Fetched { read, body: None });
        }
        self.tokens += 1;
        let name = self.tokens;
        self.questions.insert(name, (at, self.nodes[at].generation, read));
        self.at(QUESTION, Event::Unanswered(name));
        let (wait, life) = (self.delay(), self.nodes[to].generation);
        if !lost {
            self.at(wait, Event::Later { at: to, life, input: Input::Question { name, body: request } });
        }
    }

    pub(super) fn respond(&mut self, name: u64, body: Bytes) {
        self.trace.bytes(&body);
        let wait = self.delay();
        self.at(wait, Event::Answered { name, body: Some(body) });
    }

    pub(super) fn answer_question(&mut self, name: u64, body: Option<Bytes>) {
        if let Some((at, life, read)) = self.questions.remove(&name)
            && self.nodes[at].generation == life
        {
            self.input(at, Input::Fetched { read, body });
        }
    }
}
