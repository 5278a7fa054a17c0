//! What a node must be told to join a mesh, with the time constants of `mesh.md` 6.
//!
//! Invariants: every duration has a default that was measured or taken from the design page; tests may shorten them, a
//! cluster must use the same `probe` values everywhere.

use std::{net::SocketAddr, time::Duration};

use crate::{ClusterKeys, NodeId};

/// Longest node name in bytes; longer names are cut. A name travels in every gossip packet.
pub(crate) const MAX_NAME: usize = 63;

/// Everything [`crate::bind`] needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our ordinal.
    pub node: NodeId,
    /// Our name for people; at most 63 bytes travel.
    pub name: String,
    /// This process start: higher than any earlier one of the same ordinal (persisted + 1, or milliseconds at boot).
    pub generation: u64,
    /// The secret all nodes share; certificates are derived from it.
    pub keys: ClusterKeys,
    /// UDP address to bind; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address peers shall use. `None`: the listen address, or, when that is unspecified, the address peers see us at.
    pub advertise: Option<SocketAddr>,
    /// `HOST:PORT` of nodes to try first; names are resolved again and again.
    pub seeds: Vec<String>,
    /// Time constants.
    pub timings: Timings,
    /// Whether to hand whole trains of packets to the kernel (GSO). Off for network cards that promise and then fail.
    pub segmentation_offload: bool,
}

impl Config {
    /// A configuration with default timings, no seeds and no advertised address.
    pub fn new(
        node: NodeId,
        name: impl Into<String>,
        generation: u64,
        keys: impl Into<ClusterKeys>,
        listen: SocketAddr,
    ) -> Config {
        Config {
            node,
            name: name.into(),
            generation,
            keys: keys.into(),
            listen,
            advertise: None,
            seeds: Vec::new(),
            timings: Timings::default(),
            segmentation_offload: true,
        }
    }
}

/// Time constants of the mesh (`mesh.md` 6).
#[derive(Clone, Debug)]
pub struct Timings {
    /// One SWIM probe per period.
    pub probe_period: Duration,
    /// Time for a direct answer before others are asked to probe.
    pub probe_rtt: Duration,
    /// Suspicion before a member is declared down, times `max(1, log10 N)`.
    pub suspicion: Duration,
    /// Gossip period.
    pub gossip: Duration,
    /// Full exchange of rosters with one random member, ± 25 %.
    pub push_pull: Duration,
    /// A view is published this long after the last change.
    pub settle: Duration,
    /// How late our own timers may be before we stop judging others.
    pub lag_limit: Duration,
    /// How long after a lag we keep not judging.
    pub lag_pause: Duration,
    /// Time for connecting and for greeting, each.
    pub dial_timeout: Duration,
    /// First redial delay; doubles, with full jitter.
    pub backoff_min: Duration,
    /// Largest redial delay.
    pub backoff_max: Duration,
    /// The higher ordinal dials only after being without a link this long.
    pub higher_dials_after: Duration,
    /// Keep-alive of the dialling side.
    pub keep_alive: Duration,
    /// A link silent this long is closed.
    pub idle: Duration,
    /// Seeds are tried this often while we have no peer.
    pub seed_retry: Duration,
    /// Seeds are tried this often for ever, which heals a cluster split at birth.
    pub seed_refresh: Duration,
    /// Time between telling everyone that we leave and closing the links.
    pub leave: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            probe_period: Duration::from_millis(500),
            probe_rtt: Duration::from_millis(150),
            suspicion: Duration::from_millis(1500),
            gossip: Duration::from_millis(100),
            push_pull: Duration::from_secs(5),
            settle: Duration::from_millis(300),
            lag_limit: Duration::from_millis(250),
            lag_pause: Duration::from_secs(2),
            dial_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            higher_dials_after: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            idle: Duration::from_secs(5),
            seed_retry: Duration::from_secs(5),
            seed_refresh: Duration::from_secs(60),
            leave: Duration::from_millis(300),
        }
    }
}
