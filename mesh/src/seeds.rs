//! Where to look for a cluster: `HOST:PORT` seeds, resolved again and again.
//!
//! Invariants: nothing is cached, neither addresses nor failures (a headless service changes with every pod); tried
//! quickly while we are alone and seldom but for ever afterwards, which heals a cluster that was split at birth
//! (`mesh.md` 3a); a seed that cannot be resolved stops nobody.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_resolver::{TokioResolver, config::ResolverConfig, net::runtime::TokioRuntimeProvider};

use crate::{Timings, rng::SplitMix};

/// First delay while alone; doubles up to `Timings::seed_retry`.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// Addresses taken of one name; a cluster has at most a few hundred nodes, and any of them will do.
const MAX_ADDRESSES: usize = 32;

/// When to try the seeds.
#[derive(Debug)]
pub(crate) struct Schedule {
    next: Instant,
    retry: Duration,
    timings: (Duration, Duration),
    rng: SplitMix,
}

impl Schedule {
    /// Due at once.
    pub(crate) fn new(timings: &Timings, seed: u64, now: Instant) -> Schedule {
        let retry = FIRST_RETRY.min(timings.seed_retry);
        Schedule { next: now, retry, timings: (timings.seed_retry, timings.seed_refresh), rng: SplitMix::new(seed) }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Whether the seeds are to be tried now; `alone` says that we have no link.
    pub(crate) fn handle_timeout(&mut self, alone: bool, now: Instant) -> bool {
        if now < self.next {
            return false;
        }
        let (most, refresh) = self.timings;
        let delay = if alone { self.retry } else { refresh };
        self.retry = if alone { (self.retry * 2).min(most) } else { FIRST_RETRY.min(most) };
        self.next = now + self.rng.between(delay * 3 / 4, delay * 5 / 4);
        true
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

    #[test]
    fn seeds_are_tried_quickly_while_alone_and_seldom_afterwards() {
        let timings = Timings::default();
        let start = crate::clock::now();
        let mut schedule = Schedule::new(&timings, 1, start);
        let mut delays = Vec::new();
        let mut now = start;
        for _ in 0..8 {
            assert!(schedule.handle_timeout(true, now));
            assert!(!schedule.handle_timeout(true, now));
            delays.push(schedule.poll_timeout() - now);
            now = schedule.poll_timeout();
        }
        assert!(delays[0] < Duration::from_secs(1));
        assert!(delays[7] > timings.seed_retry / 2 && delays[7] < timings.seed_retry * 2);
        assert!(schedule.handle_timeout(false, now));
        assert!(schedule.poll_timeout() - now > timings.seed_refresh / 2);
        schedule.handle_alone(now);
        assert!(schedule.poll_timeout() - now < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn addresses_and_localhost_need_no_resolver_and_nonsense_is_skipped() {
        let seeds = ["10.0.0.1:7", "[::1]:8", "localhost:9", "nonsense", "a:b:9", ":9", "x:99999"];
        let found = resolve(seeds.map(str::to_owned).to_vec()).await;
        let expected = ["10.0.0.1:7", "127.0.0.1:9", "[::1]:8", "[::1]:9"];
        assert_eq!(found, expected.map(|addr| addr.parse().unwrap()));
    }
}
