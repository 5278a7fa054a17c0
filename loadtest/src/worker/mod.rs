//! One load generator process: thousands of connections on one thread, driven by one readiness queue.
//!
//! - Members, publishers and the coordinator's orders are served in one loop; nothing in it blocks.
//! - While sockets are read the publish schedule is looked at again and again, so that a large fan-out coming in does
//!   not delay what has to go out.
//! - What decides (`Growth`, `Publishing`, `Receiving`, `Client`) is a value without a clock; only this loop has one.

mod growth;
mod link;
mod peer;
mod publishing;
mod receiving;
mod traffic;

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::rc::Rc;

use anyhow::Context as _;
use rustix::event::epoll;

use self::growth::{Growth, Step};
use self::link::Orders;
use self::peer::{Peer, Road, Route, State};
use self::publishing::Publishing;
use self::receiving::{Receiving, Seat, owed};
use crate::client::{Answer, PublishTemplate, Script};
use crate::clock;
use crate::wire::{Account, Notice, Order, Pace, Phase, Spec, Tick};

/// Socket events taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;
/// The publish schedule is looked at after this many sockets: some thirty microseconds.
const SOCKETS_BETWEEN_PUBLISHES: usize = 16;
/// What one read takes at most. Large enough for a burst of several hundred messages.
const SCRATCH: usize = 128 * 1024;
/// How the queue calls stdin.
const STDIN: u64 = u64::MAX;
/// Stalls, retries and settlements are looked at this often.
const CHORE_NS: u64 = 50_000_000;
/// Progress is reported this often.
const TICK_NS: u64 = 1_000_000_000;
/// A handshake that takes longer is started again.
const HANDSHAKE_NS: u64 = 10_000_000_000;
/// A join without an answer is asked again after this.
const JOIN_AGAIN_NS: u64 = 2_000_000_000;
/// With everything there, how long to look out for duplicates.
const QUIET_COMPLETE_NS: u64 = 150_000_000;
/// With something missing, how long nothing must come before it counts as lost.
const QUIET_INCOMPLETE_NS: u64 = 2_000_000_000;
/// After this a settlement ends whatever still comes.
const SETTLE_MAX_NS: u64 = 60_000_000_000;

/// The `worker` command: serves orders from stdin until it ends.
///
/// # Errors
/// The coordinator has gone or the kernel refuses what every run needs.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut orders = Orders::default();
    let Order::Setup(spec) = orders.wait_first().context("no setup on stdin; `worker` is started by `run`")? else {
        anyhow::bail!("the first order must be the setup");
    };
    rustix::io::ioctl_fionbio(io::stdin(), true).context("stdin")?;
    let mut worker = Worker::new(*spec).context("epoll")?;
    worker.obey(&mut orders)?;
    let outcome = worker.serve(&mut orders);
    if let Err(error) = &outcome {
        // If even this cannot be said, nobody is there to hear it.
        let _ = link::send(&Notice::Fatal(format!("{error:#}")));
    }
    outcome
}

struct Worker {
    spec: Spec,
    road: Road,
    scratch: Vec<u8>,
    payload: Vec<u8>,
    outcomes: Vec<Outcome>,
    /// Publishers first, then members.
    peers: Vec<Peer>,
    own_publishers: usize,
    /// One per publisher.
    templates: Vec<PublishTemplate>,
    /// By server and room.
    member_scripts: BTreeMap<(usize, u32), Rc<Script>>,
    growth: Option<Growth>,
    publishing: Option<Publishing>,
    receiving: Receiving,
    settling: Option<Settling>,
    cpu_at_start_ns: u64,
    disconnects: u64,
    next_tick_ns: u64,
    next_chore_ns: u64,
}

/// A settlement under way.
struct Settling {
    accounts: Vec<Account>,
    since_ns: u64,
}

/// What a peer's bytes meant beyond messages.
enum Outcome {
    /// When.
    Connected(u64),
    /// When, and with how many history items.
    Joined(u64, u32),
    /// When, to which message, and what.
    Answer(u64, u64, Answer),
}

impl Worker {
    fn new(spec: Spec) -> io::Result<Worker> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, io::stdin(), epoll::EventData::new_u64(STDIN), epoll::EventFlags::IN)?;
        let road = Road { epoll, transport: spec.transport };
        let mut worker = Worker {
            road,
            scratch: vec![0; SCRATCH],
            payload: Vec::new(),
            outcomes: Vec::new(),
            peers: Vec::new(),
            own_publishers: 0,
            templates: Vec::new(),
            member_scripts: BTreeMap::new(),
            growth: None,
            publishing: None,
            receiving: Receiving::new(None, false),
            settling: None,
            cpu_at_start_ns: 0,
            disconnects: 0,
            next_tick_ns: clock::now_ns(),
            next_chore_ns: 0,
            spec,
        };
        worker.add_publishers();
        Ok(worker)
    }

    fn serve(&mut self, orders: &mut Orders) -> anyhow::Result<()> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_MAX];
        while !orders.ended() {
            self.run_due(clock::now_ns())?;
            let timeout = clock::until(self.next_due(), clock::now_ns());
            let (ready, _) = match epoll::wait(&self.road.epoll, &mut events, timeout.as_ref()) {
                Ok(ready) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).context("epoll"),
            };
            for (number, event) in ready.iter().enumerate() {
                let epoll::Event { data, flags } = *event;
                if data.u64() == STDIN {
                    self.obey(orders)?;
                    continue;
                }
                if let Some((index, channel)) = peer::of_token(data.u64()) {
                    self.handle_ready(index, channel, flags);
                }
                if number % SOCKETS_BETWEEN_PUBLISHES == 0 {
                    self.publish_due();
                }
            }
        }
        Ok(())
    }

    fn next_due(&self) -> u64 {
        let growth = self.growth.as_ref().map_or(u64::MAX, Growth::next_due);
        let publishing = self.publishing.as_ref().map_or(u64::MAX, Publishing::next_due);
        growth.min(publishing).min(self.next_tick_ns).min(self.next_chore_ns)
    }

    /// Everything that happens because of time.
    fn run_due(&mut self, now_ns: u64) -> anyhow::Result<()> {
        self.publish_due();
        while let Some(step) = self.growth.as_mut().and_then(|growth| growth.poll_step(now_ns)) {
            match step {
                Step::Connect(index) => self.connect(index),
                Step::Leave(index) => self.peers[index].close(),
            }
            self.publish_due();
        }
        if now_ns >= self.next_chore_ns {
            self.next_chore_ns = now_ns + CHORE_NS;
            self.do_chores(now_ns)?;
        }
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = now_ns + TICK_NS;
            link::send(&Notice::Tick(Box::new(self.tick(now_ns))))?;
        }
        Ok(())
    }

    fn do_chores(&mut self, now_ns: u64) -> anyhow::Result<()> {
        if self.growth.is_some() {
            self.hurry(now_ns);
        }
        if let Some(growth) = self.growth.take_if(|growth| growth.is_done()) {
            link::send(&Notice::Grown(Box::new(growth.finish(self.joined()))))?;
        }
        if let Some(publishing) = &mut self.publishing {
            publishing.handle_timeout(now_ns);
        }
        if let Some(publishing) = self.publishing.take_if(|publishing| publishing.is_finished(now_ns)) {
            let cpu_ns = clock::cpu_ns().saturating_sub(self.cpu_at_start_ns);
            let published = publishing.finish(cpu_ns, self.receiving.delivered(), now_ns);
            link::send(&Notice::Published(Box::new(published)))?;
        }
        self.settle_when_quiet(now_ns)
    }

    /// Starts again whoever takes too long to connect or to join.
    fn hurry(&mut self, now_ns: u64) {
        for index in 0..self.peers.len() {
            let peer = &mut self.peers[index];
            let waited = now_ns.saturating_sub(peer.since_ns);
            match peer.state {
                State::Connecting | State::Joining if waited > HANDSHAKE_NS => {
                    self.handle_gone(index, "handshake took too long", now_ns);
                }
                State::Joining if waited > JOIN_AGAIN_NS * u64::from(peer.joins_resent + 1) => {
                    match peer.join_again(&self.road) {
                        Ok(true) => self.growth.iter_mut().for_each(Growth::handle_join_resent),
                        Ok(false) => {}
                        Err(error) => self.handle_gone(index, &error.to_string(), now_ns),
                    }
                }
                State::Away | State::Connecting | State::Joining | State::Ready => {}
            }
        }
    }

    fn obey(&mut self, orders: &mut Orders) -> anyhow::Result<()> {
        for order in orders.read().context("orders")? {
            let now_ns = clock::now_ns();
            match order {
                Order::Setup(_) => anyhow::bail!("a second setup"),
                Order::Grow { members, over_ns } => self.grow(members, over_ns, now_ns),
                Order::Begin(phase) => {
                    self.begin(phase);
                    link::send(&Notice::Armed)?;
                }
                Order::Go { start_ns } => {
                    self.cpu_at_start_ns = clock::cpu_ns();
                    self.publishing.iter_mut().for_each(|publishing| publishing.start(start_ns));
                }
                Order::Halt => {
                    self.publishing.iter_mut().for_each(|publishing| publishing.halt(now_ns));
                    if let Some(growth) = self.growth.take() {
                        link::send(&Notice::Grown(Box::new(growth.finish(self.joined()))))?;
                    }
                }
                Order::Settle(accounts) => self.settling = Some(Settling { accounts, since_ns: now_ns }),
            }
        }
        Ok(())
    }

    fn grow(&mut self, members: u32, over_ns: u64, now_ns: u64) {
        // The first ramp brings the publishers along.
        let from = match self.peers.len() > self.own_publishers || self.growth.is_some() {
            true => self.peers.iter().rposition(|peer| peer.state != State::Away).map_or(0, |last| last + 1),
            false => 0,
        };
        let to = self.own_publishers + self.spec.share(members) as usize;
        while self.peers.len() < to {
            self.add_member();
        }
        self.growth = Some(Growth::new(from, to, over_ns, now_ns));
    }

    fn begin(&mut self, phase: Phase) {
        let publishers = self.spec.publishers_per_room();
        let mut audience = vec![0; self.spec.rooms.max(1) as usize];
        for peer in self.peers.iter_mut().skip(self.own_publishers) {
            peer.stayed = peer.state == State::Ready;
            peer.tracker.reset(publishers);
            audience[peer.seat.room as usize] += u32::from(peer.stayed);
        }
        let answered = self.templates.iter().any(|template| template.answered);
        let open = matches!(phase.pace, Pace::Open { .. });
        self.publishing = Some(Publishing::new(&self.spec, phase, answered, |room| audience[room as usize]));
        self.receiving = Receiving::new(Some(phase.run), open);
        self.settling = None;
    }

    fn settle_when_quiet(&mut self, now_ns: u64) -> anyhow::Result<()> {
        let Some(settling) = &self.settling else { return Ok(()) };
        let quiet = now_ns.saturating_sub(self.receiving.last_ns().max(settling.since_ns));
        if quiet < QUIET_COMPLETE_NS && now_ns.saturating_sub(settling.since_ns) < SETTLE_MAX_NS {
            return Ok(());
        }
        let stayed = || self.peers.iter().filter(|peer| peer.stayed).map(|peer| (peer.seat, &peer.tracker));
        let complete = stayed().all(|(seat, tracker)| owed(&self.spec, seat, tracker, &settling.accounts) == 0);
        if !complete && quiet < QUIET_INCOMPLETE_NS {
            return Ok(());
        }
        let receiving = std::mem::replace(&mut self.receiving, Receiving::new(None, false));
        let settled = receiving.settle(&self.spec, stayed(), &settling.accounts);
        self.settling = None;
        link::send(&Notice::Settled(Box::new(settled)))?;
        Ok(())
    }

    fn tick(&mut self, now_ns: u64) -> Tick {
        Tick {
            at_ns: now_ns,
            joined: self.joined(),
            published: self.publishing.as_ref().map_or(0, Publishing::published),
            delivered: self.receiving.delivered(),
            disconnects: self.disconnects,
            duplicated: self.receiving.duplicated(),
            reordered: self.receiving.reordered(),
            deliver: self.receiving.take_recent(),
        }
    }

    fn joined(&self) -> u32 {
        let members = self.peers.iter().skip(self.own_publishers);
        u32::try_from(members.filter(|peer| peer.state == State::Ready).count()).unwrap_or(u32::MAX)
    }

    fn add_publishers(&mut self) {
        for id in (0..self.spec.publishers).filter(|id| u32::from(*id) % self.spec.workers == self.spec.worker) {
            let seat = Seat { room: self.spec.room_of_publisher(id), target: self.spec.target(u32::from(id)) };
            let route = self.route(seat);
            let Spec { dialect, namespace, .. } = &self.spec;
            let script = Script::publisher(&route.target.to_string(), dialect, namespace);
            self.templates.push(dialect.publish_template(namespace, &self.spec.room_name(seat.room)));
            self.peers.push(Peer::new(seat, route, Rc::new(script)));
        }
        self.own_publishers = self.peers.len();
    }

    fn add_member(&mut self) {
        let own = u32::try_from(self.peers.len() - self.own_publishers).unwrap_or(u32::MAX);
        let index = self.spec.worker + self.spec.workers * own;
        let seat = Seat { room: self.spec.room_of_member(index), target: self.spec.target(index) };
        let route = self.route(seat);
        let Spec { dialect, namespace, history, .. } = &self.spec;
        let script = self.member_scripts.entry((seat.target, seat.room)).or_insert_with(|| {
            let (host, room) = (route.target.to_string(), self.spec.room_name(seat.room));
            Rc::new(Script::member(&host, dialect, namespace, &room, *history))
        });
        self.peers.push(Peer::new(seat, route, Rc::clone(script)));
    }

    /// The way of the next peer: sources take turns.
    fn route(&self, seat: Seat) -> Route {
        let index = self.peers.len();
        let source = index.checked_rem(self.spec.sources.len()).map(|turn| self.spec.sources[turn]);
        Route { index, target: self.spec.targets[seat.target], source }
    }

    fn connect(&mut self, index: usize) {
        if let Err(error) = self.peers[index].connect(&self.road) {
            self.handle_gone(index, &error.to_string(), clock::now_ns());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Dialect, Transport};

    /// A test with one worker, one target, one room and one publisher.
    pub(super) fn spec() -> Spec {
        Spec {
            worker: 0,
            workers: 1,
            targets: vec!["127.0.0.1:1".parse().unwrap()],
            sources: Vec::new(),
            dialect: Dialect::Room,
            transport: Transport::WebSocket,
            namespace: "/".to_owned(),
            room: "r".to_owned(),
            rooms: 1,
            publishers: 1,
            payload: 64,
            history: 0,
        }
    }
}
