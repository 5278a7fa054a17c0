//! Where to look for a cluster: `HOST:PORT` seeds, resolved again and again.
//!
//! Invariants: nothing is cached, neither addresses nor failures (a headless service changes with every pod); tried
//! quickly while we are alone and seldom but for ever afterwards, which heals a cluster that was split at birth
//! (`mesh.md` 3a); a seed that cannot be resolved stops nobody.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_resolver::{TokioResolver, config::ResolverConfig, net::runtime::TokioRuntimeProvider};

use crate::{Timings, rng::SplitMix};

/// First delay while alone; doubles up to `Timings::seed_retry`.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Addresses taken of one name; a cluster has at most a few hundred nodes, and any of them will do.
const MAX_ADDRESSES: usize = 32;

/// When to try which seeds; a value.
#[derive(Debug)]
pub(crate) struct Seeds {
    names: Vec<String>,
    next: Instant,
    retry: Duration,
    timings: (Duration, Duration),
    rng: SplitMix,
    /// A resolution is under way.
    resolving: bool,
    /// Addresses being dialled.
    dialling: BTreeSet<SocketAddr>,
    /// Addresses that are or turned out to be ourselves.
    ourselves: BTreeSet<SocketAddr>,
}

impl Seeds {
    /// Due at once. `ourselves` is where we know to be.
    pub(crate) fn new(
        names: Vec<String>,
        timings: &Timings,
        ourselves: [SocketAddr; 2],
        seed: u64,
        now: Instant,
    ) -> Seeds {
        Seeds {
            names,
            next: now,
            retry: FIRST_RETRY.min(timings.seed_retry),
            timings: (timings.seed_retry, timings.seed_refresh),
            rng: SplitMix::new(seed),
            resolving: false,
            dialling: BTreeSet::new(),
            ourselves: ourselves.into(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// The seeds to resolve now, if any; `alone` says that we have no link.
    pub(crate) fn handle_timeout(&mut self, alone: bool, now: Instant) -> Option<Vec<String>> {
        if now < self.next {
            return None;
        }
        let (most, refresh) = self.timings;
        let delay = if alone { self.retry } else { refresh };
        self.retry = if alone { (self.retry * 2).min(most) } else { FIRST_RETRY.min(most) };
        self.next = now + self.rng.between(delay * 3 / 4, delay * 5 / 4);
        let free = !std::mem::replace(&mut self.resolving, true);
        free.then(|| self.names.clone())
    }

    /// They resolved to this; what comes back is to be dialled.
    pub(crate) fn handle_resolved(
        &mut self,
        found: Vec<SocketAddr>,
        linked: impl Fn(SocketAddr) -> bool,
    ) -> Vec<SocketAddr> {
        self.resolving = false;
        let fresh =
            |addr: &SocketAddr| !self.ourselves.contains(addr) && !self.dialling.contains(addr) && !linked(*addr);
        let dial: Vec<_> = found.into_iter().filter(fresh).collect();
        self.dialling.extend(&dial);
        dial
    }

    /// A dial of this address, perhaps one of ours, is over.
    pub(crate) fn handle_dialled(&mut self, addr: SocketAddr) {
        self.dialling.remove(&addr);
    }

    /// This address is ourselves.
    pub(crate) fn handle_ourselves(&mut self, addr: SocketAddr) {
        self.ourselves.insert(addr);
    }

    /// We lost our last peer: look for others soon.
    pub(crate) fn handle_alone(&mut self, now: Instant) {
        self.next = self.next.min(now + self.retry);
    }
}

/// Addresses of all seeds that can be resolved now.
pub(crate) async fn resolve(seeds: Vec<String>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    let mut resolver = None;
    for seed in seeds {
        if let Ok(addr) = seed.parse() {
            found.push(addr);
            continue;
        }
        let Some((host, port)) = host_and_port(&seed) else {
            tracing::warn!(seed, "a seed is not HOST:PORT");
            continue;
        };
        let resolver = resolver.get_or_insert_with(self::resolver);
        let addresses = if host == "localhost" {
            vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        } else {
            lookup(resolver.as_ref(), host).await
        };
        found.extend(addresses.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, port)));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn host_and_port(seed: &str) -> Option<(&str, u16)> {
    let (host, port) = seed.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty() && !host.contains(':')).then_some((host, port))
}

/// A resolver as the system is configured now; one that knows only the hosts file if the system says nothing usable.
fn resolver() -> Option<TokioResolver> {
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, Vec::new(), Vec::new()),
            TokioRuntimeProvider::default(),
        )
    });
    let mut builder = builder;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = Duration::from_secs(2);
    options.attempts = 1;
    builder.build().ok()
}

async fn lookup(resolver: Option<&TokioResolver>, host: &str) -> Vec<IpAddr> {
    let Some(resolver) = resolver else { return Vec::new() };
    match resolver.lookup_ip(host).await {
        Ok(found) => found.iter().collect(),
        Err(error) => {
            tracing::debug!(host, %error, "a seed does not resolve");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn seeds(now: Instant) -> Seeds {
        Seeds::new(vec!["gw:1".into()], &Timings::default(), [addr(1), addr(1)], 1, now)
    }

    #[test]
    fn seeds_are_tried_quickly_while_alone_and_seldom_afterwards() {
        let timings = Timings::default();
        let mut now = crate::clock::now();
        let mut seeds = seeds(now);
        let mut delays = Vec::new();
        for _ in 0..8 {
            assert!(seeds.handle_timeout(true, now).is_some());
            assert_eq!(seeds.handle_timeout(true, now), None);
            seeds.handle_resolved(Vec::new(), |_| false);
            delays.push(seeds.poll_timeout() - now);
            now = seeds.poll_timeout();
        }
        assert!(delays[0] < Duration::from_secs(1));
        assert!(delays[7] > timings.seed_retry / 2 && delays[7] < timings.seed_retry * 2);
        assert!(seeds.handle_timeout(false, now).is_some());
        assert!(seeds.poll_timeout() - now > timings.seed_refresh / 2);
        seeds.handle_alone(now);
        assert!(seeds.poll_timeout() - now < Duration::from_secs(1));
    }

    #[test]
    fn a_slow_resolution_is_not_begun_twice() {
        let now = crate::clock::now();
        let mut seeds = seeds(now);
        assert!(seeds.handle_timeout(true, now).is_some());
        let later = seeds.poll_timeout();
        assert_eq!(seeds.handle_timeout(true, later), None);
        assert!(seeds.poll_timeout() > later);
    }

    #[test]
    fn ourselves_the_linked_and_the_dialled_are_not_dialled() {
        let mut seeds = seeds(crate::clock::now());
        let found = || (1..5).map(addr).collect::<Vec<_>>();
        assert_eq!(seeds.handle_resolved(found(), |linked| linked == addr(2)), [addr(3), addr(4)]);
        assert_eq!(seeds.handle_resolved(found(), |_| false), [addr(2)]);
        seeds.handle_dialled(addr(3));
        seeds.handle_dialled(addr(4));
        seeds.handle_ourselves(addr(4));
        assert_eq!(seeds.handle_resolved(found(), |_| false), [addr(3)]);
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_resolver_and_nonsense_is_skipped() {
        let seeds = ["10.0.0.1:7", "[::1]:8", "localhost:9", "nonsense", "a:b:9", ":9", "x:99999"];
        let found = resolve(seeds.map(str::to_owned).to_vec()).await;
        let expected = ["10.0.0.1:7", "127.0.0.1:9", "[::1]:8", "[::1]:9"];
        assert_eq!(found, expected.map(|addr| addr.parse().unwrap()));
    }
}
