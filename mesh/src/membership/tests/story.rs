//! Stories: what may happen to a cluster in a few minutes, and what must be true then whatever happened.
//!
//! Invariants: a story is a function of its kind, its size and its seed; an [`Err`] says what was broken and names the
//! command that tells the same story again.

use std::{fmt::Write as _, time::Duration};

use super::{Side, World, address, everyone, seconds};
use crate::rng::SplitMix;

/// Two halves that never knew of each other agree within this: one refresh of the seeds and its jitter, and a dial.
const MET: Duration = Duration::from_secs(90);
/// After the last fault whoever is paused goes on and suspicions end within this.
const CALM: Duration = Duration::from_secs(20);
/// Then everyone agrees within this: the down are tried every ten seconds.
const HEALED: Duration = Duration::from_secs(25);
/// A crash is known everywhere within this, with loss (`reliability.md` P13).
const CRASH_KNOWN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ten minutes of loss, repeats and overtaking, and nothing else: nobody is taken for gone; then a crash is noticed.
    Loss(u64),
    /// Crashes, restarts, pauses, cuts and loss, one over the other; then quiet.
    Chaos,
    /// Cuts that last longer than a suspicion and shorter than a link: both halves take the other for gone, linked as they are.
    Blink,
    /// A node that gets hardly any processor: nobody else is taken for gone.
    Starved,
    /// Two halves that start without each other and meet later.
    Islands,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Loss(10), Kind::Loss(20), Kind::Loss(30), Kind::Chaos, Kind::Blink, Kind::Starved, Kind::Islands];

    pub(super) fn name(self) -> String {
        match self {
            Kind::Loss(percent) => format!("loss-{percent}"),
            Kind::Chaos => "chaos".to_owned(),
            Kind::Blink => "blink".to_owned(),
            Kind::Starved => "starved".to_owned(),
            Kind::Islands => "islands".to_owned(),
        }
    }

    /// Tells the story; what it left behind, or what was broken.
    pub(super) fn tell(self, nodes: u16, seed: u64) -> Result<World, String> {
        let told = match self {
            Kind::Loss(percent) => loss(nodes, percent, seed),
            Kind::Chaos => chaos(nodes, seed),
            Kind::Blink => blink(nodes, seed),
            Kind::Starved => starved(nodes, seed),
            Kind::Islands => islands(nodes, seed),
        };
        let broken = |why| {
            format!(
                "{why}\n  replay: cargo xtask sim members --story {} --nodes {nodes} --first {seed} --seeds 1",
                self.name()
            )
        };
        told.map_err(broken)
    }
}

fn loss(nodes: u16, percent: u64, seed: u64) -> Result<World, String> {
    let mut world = World::new(nodes, percent, seed);
    (world.net.twice_percent, world.net.jitter) = (1, Duration::from_millis(5));
    whole(&mut world, seconds(30))?;
    world.pass(seconds(600));
    nobody_wronged(&world, |_| false)?;
    let dead = u16::try_from(seed % u64::from(nodes)).unwrap_or(0);
    world.kill(dead);
    whole(&mut world, CRASH_KNOWN)?;
    nobody_wronged(&world, |_| false)?;
    nothing_odd(&world)?;
    Ok(world)
}

fn starved(nodes: u16, seed: u64) -> Result<World, String> {
    let mut world = World::new(nodes, 0, seed);
    let mut rng = SplitMix::new(seed ^ 0x57a7);
    whole(&mut world, seconds(10))?;
    let starved = pick(&mut rng, nodes);
    for _ in 0..40 {
        // Often it gets so little that its timers run and nothing that came in is looked at.
        let most = if rng.below(2) == 0 { 3 } else { 600 };
        let (stop, go) = (rng.between(ms(50), ms(3_000)), rng.between(ms(0), ms(most)));
        world.pause(starved, stop);
        world.pass(stop + go);
    }
    world.pass(seconds(10));
    nobody_wronged(&world, |node| node == starved)?;
    whole(&mut world, HEALED)?;
    nothing_odd(&world)?;
    Ok(world)
}

fn blink(nodes: u16, seed: u64) -> Result<World, String> {
    let mut world = World::new(nodes, 0, seed);
    let mut rng = SplitMix::new(seed ^ 0xb114);
    whole(&mut world, seconds(10))?;
    for _ in 0..4 {
        let side: Side = (0..nodes).filter(|node| node % 2 == 0).collect();
        world.net.split(&side, &everyone(nodes));
        world.watch_links();
        world.pass(rng.between(ms(2_500), ms(4_900)));
        world.net.cuts.clear();
        world.watch_links();
        whole(&mut world, HEALED)?;
        world.pass(rng.between(ms(0), seconds(8)));
    }
    nothing_odd(&world)?;
    Ok(world)
}

fn islands(nodes: u16, seed: u64) -> Result<World, String> {
    let mut world = World::empty(0, seed);
    let mut rng = SplitMix::new(seed ^ 0x151a);
    // One seed is on each side, so both sides form.
    let side: Side = (0..nodes).filter(|node| node % 2 == 0).collect();
    world.net.split(&side, &everyone(nodes));
    for node in 0..nodes {
        world.start(node, 1);
        world.pass(rng.between(Duration::ZERO, ms(300)));
    }
    world.pass(seconds(20));
    world.net.cuts.clear();
    world.watch_links();
    whole(&mut world, MET)?;
    nothing_odd(&world)?;
    Ok(world)
}

/// The world of [`chaos`] and its own choices.
struct Chaos {
    world: World,
    rng: SplitMix,
    nodes: u16,
    generations: Vec<u64>,
    /// What ends when: cuts, and processes that come back.
    ends: Vec<(std::time::Instant, End)>,
}

enum End {
    Cuts(Vec<(u16, u16)>),
    Return(u16),
    Calm,
}

fn chaos(nodes: u16, seed: u64) -> Result<World, String> {
    let mut world = World::new(nodes, 0, seed);
    (world.net.twice_percent, world.net.jitter) = (1, Duration::from_millis(5));
    let rng = SplitMix::new(seed ^ 0xc4a0);
    let mut chaos = Chaos { world, rng, nodes, generations: vec![1; usize::from(nodes)], ends: Vec::new() };
    chaos.pass(seconds(5));
    for _ in 0..30 {
        chaos.strike();
        let quiet = chaos.rng.between(ms(100), seconds(4));
        chaos.pass(quiet);
    }
    chaos.calm();
    let mut world = chaos.world;
    world.pass(CALM);
    whole(&mut world, HEALED)?;
    let calm = world.deaths.len();
    world.pass(seconds(30));
    whole(&mut world, Duration::ZERO)?;
    if let Some(death) = world.deaths[calm..].iter().find(|death| death.of_a_live_one) {
        return Err(format!(
            "{:?} before the end of the quiet after the heal {} was taken for gone by {}",
            world.now - death.at,
            death.of,
            death.by
        ));
    }
    nothing_odd(&world)?;
    Ok(world)
}

impl Chaos {
    fn pass(&mut self, length: Duration) {
        let until = self.world.now + length;
        while let Some(at) = self.ends.iter().map(|(at, _)| *at).min().filter(|at| *at <= until) {
            self.world.pass(at - self.world.now);
            let (due, later) = std::mem::take(&mut self.ends).into_iter().partition(|(end, _)| *end <= at);
            self.ends = later;
            for (_, end) in due {
                self.end(end);
            }
        }
        self.world.pass(until - self.world.now);
    }

    fn end(&mut self, end: End) {
        match end {
            End::Cuts(cuts) => {
                for cut in cuts {
                    self.world.net.cuts.remove(&cut);
                }
                self.world.watch_links();
            }
            End::Return(node) => self.restart(node),
            End::Calm => self.world.net.loss_percent = 0,
        }
    }

    fn restart(&mut self, node: u16) {
        self.world.kill(node);
        let generation = &mut self.generations[usize::from(node)];
        *generation += 1;
        self.world.start_at(node, *generation, address(node));
    }

    fn strike(&mut self) {
        let (one, other) = (pick(&mut self.rng, self.nodes), pick(&mut self.rng, self.nodes));
        let length = self.rng.between(ms(200), seconds(12));
        let end = self.world.now + length;
        match self.rng.below(8) {
            0 if self.world.nodes.contains_key(&one) => self.world.pause(one, length),
            1 => {
                self.world.kill(one);
                self.ends.push((end, End::Return(one)));
            }
            2 => self.restart(one),
            3 => self.cut(vec![(one, other), (other, one)], end),
            4 => self.cut(vec![(one, other)], end),
            5 => self.split_half(end),
            6 => self.cut((0..self.nodes).flat_map(|node| [(one, node), (node, one)]).collect(), end),
            _ => {
                self.world.net.loss_percent = 10 * self.rng.below(4);
                self.ends.push((end, End::Calm));
            }
        }
    }

    fn split_half(&mut self, end: std::time::Instant) {
        let side: Side = (0..self.nodes).filter(|_| self.rng.below(2) == 0).collect();
        let across = |one: &u16, other: &u16| side.contains(one) != side.contains(other);
        let all = everyone(self.nodes);
        let pairs = all.iter().flat_map(|one| all.iter().map(move |other| (*one, *other)));
        let cuts = pairs.filter(|(one, other)| across(one, other)).collect();
        self.cut(cuts, end);
    }

    fn cut(&mut self, cuts: Vec<(u16, u16)>, end: std::time::Instant) {
        let cuts: Vec<(u16, u16)> = cuts.into_iter().filter(|(one, other)| one != other).collect();
        self.world.net.cuts.extend(&cuts);
        self.world.watch_links();
        self.ends.push((end, End::Cuts(cuts)));
    }

    /// All faults end; who is dead comes back or stays away.
    fn calm(&mut self) {
        for (_, end) in std::mem::take(&mut self.ends) {
            match end {
                End::Return(_) if self.rng.below(2) == 0 => {}
                End::Return(_) | End::Cuts(_) | End::Calm => self.end(end),
            }
        }
        self.world.net.cuts.clear();
        self.world.net.loss_percent = 0;
        self.world.watch_links();
    }
}

/// Everyone sees exactly the processes that run, within `limit`.
fn whole(world: &mut World, limit: Duration) -> Result<Duration, String> {
    match world.wait(limit, World::is_whole) {
        Some(took) => Ok(took),
        None => Err(format!("not whole after {limit:?}:{}", views(world))),
    }
}

fn nobody_wronged(world: &World, excused: impl Fn(u16) -> bool) -> Result<(), String> {
    let wrong: Vec<_> = world.deaths.iter().filter(|death| death.of_a_live_one && !excused(death.of)).collect();
    if let Some(first) = wrong.first() {
        return Err(format!("{} false deaths; first: {} by {}", wrong.len(), first.of, first.by));
    }
    match world.renewals.iter().find(|node| !excused(**node)) {
        Some(node) => Err(format!("{node} was told that it had been declared down, and nobody had")),
        None => Ok(()),
    }
}

/// What no story may do to anybody.
fn nothing_odd(world: &World) -> Result<(), String> {
    if !world.gave_up.is_empty() {
        return Err(format!("processes gave up as started twice: {:?}", world.gave_up));
    }
    match world.odd.first() {
        Some(odd) => Err(odd.clone()),
        None => Ok(()),
    }
}

fn views(world: &World) -> String {
    let mut out = String::new();
    for node in world.nodes.values() {
        let view = node.membership.view();
        let seen: Vec<_> = view.members.iter().map(|member| (member.node.0, member.generation)).collect();
        let me = node.membership.identity();
        let links: Vec<_> = node.links.keys().collect();
        // Writing into a string cannot fail.
        let _ = write!(out, "\n  {}.{} sees {seen:?}, links {links:?}", me.node, me.generation);
    }
    out
}

fn pick(rng: &mut SplitMix, nodes: u16) -> u16 {
    u16::try_from(rng.below(u64::from(nodes))).unwrap_or(0)
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
