//! The secrets that ids of sessions and sockets are signed with; they follow the cluster keys.
//!
//! Invariants: an id this node made is recognised by it for as long as it lives (up to [`KEPT`] changes of the key); new ids
//! are signed with the oldest key the cluster accepts, which every node has, whatever it was told already.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh::{ClusterKey, ClusterKeys};
use protocol::sid::SidKey;

/// Keys that are remembered, the one in use included.
const KEPT: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct SidKeys(ArcSwap<Ring>);

#[derive(Debug)]
struct Ring {
    signing: Arc<SidKey>,
    /// Recognised too.
    others: Vec<Arc<SidKey>>,
}

impl SidKeys {
    /// The key of a node without a cluster.
    pub(crate) fn alone(secret: &[u8; 32]) -> SidKeys {
        SidKeys(ArcSwap::from_pointee(Ring { signing: Arc::new(SidKey::new(secret)), others: Vec::new() }))
    }

    /// Those of a cluster.
    pub(crate) fn new(keys: &ClusterKeys) -> SidKeys {
        SidKeys(ArcSwap::from_pointee(Ring::new(keys, &[])))
    }

    /// The cluster keys are these now.
    pub(crate) fn rotate(&self, keys: &ClusterKeys) {
        let Ring { signing, others } = &**self.0.load();
        let known: Vec<_> = std::iter::once(signing).chain(others).cloned().collect();
        self.0.store(Arc::new(Ring::new(keys, &known)));
    }

    /// What to sign a new id with.
    pub(crate) fn signing(&self) -> Arc<SidKey> {
        self.0.load().signing.clone()
    }

    /// What a key makes of an id, of the first key that recognises it.
    pub(crate) fn find<T>(&self, mut recognise: impl FnMut(&SidKey) -> Option<T>) -> Option<T> {
        let ring = self.0.load();
        recognise(&ring.signing).or_else(|| ring.others.iter().find_map(|key| recognise(key)))
    }
}

impl Ring {
    fn new(keys: &ClusterKeys, known: &[Arc<SidKey>]) -> Ring {
        let key = |key: &ClusterKey| Arc::new(SidKey::new(&key.derive("sid")));
        let signing = key(keys.previous.as_ref().unwrap_or(&keys.current));
        let current = keys.previous.is_some().then(|| key(&keys.current));
        Ring { signing, others: current.into_iter().chain(known.iter().cloned()).take(KEPT - 1).collect() }
    }
}

#[cfg(test)]
mod tests {
    use protocol::socket_id::{self, Place};

    use super::*;

    fn key(n: u8) -> ClusterKey {
        ClusterKey::from_bytes(format!("a cluster key of a test, number {n:02}").as_bytes()).unwrap()
    }

    fn mint(keys: &SidKeys) -> String {
        socket_id::mint(3, 1, [7; 8], &keys.signing())
    }

    fn knows(keys: &SidKeys, id: &str) -> bool {
        keys.find(|key| socket_id::place(id, key)) == Some(Place { node: 3, shard: 1 })
    }

    #[test]
    fn ids_are_recognised_by_every_node_at_every_step_of_a_change() {
        let both = ClusterKeys { current: key(2), previous: Some(key(1)) };
        let (early, late) = (SidKeys::new(&key(1).into()), SidKeys::new(&key(1).into()));
        let before = mint(&early);
        early.rotate(&both);
        assert!(knows(&late, &mint(&early)), "a node that has only the old key");
        late.rotate(&both);
        early.rotate(&key(2).into());
        assert!(knows(&late, &mint(&early)) && knows(&early, &mint(&late)), "a node that has both");
        late.rotate(&key(2).into());
        let fresh = SidKeys::new(&key(2).into());
        assert!(knows(&fresh, &mint(&early)), "a node started with the new key");
        assert!(knows(&early, &before) && knows(&late, &before), "an id from before the change");
    }

    #[test]
    fn keys_of_long_ago_are_forgotten() {
        let keys = SidKeys::new(&key(0).into());
        let first = mint(&keys);
        for n in 1..KEPT {
            keys.rotate(&key(u8::try_from(n).unwrap()).into());
        }
        assert!(knows(&keys, &first));
        keys.rotate(&key(99).into());
        assert!(!knows(&keys, &first));
    }
}
