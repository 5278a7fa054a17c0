//! Placement: from the nodes of a view to a table of 4,096 slots with owner, replica and witness.
//!
//! Invariants: a pure function of the set of ordinals, the same on every node, every architecture and every build (golden
//! tables below); the three of a slot are distinct; when a node goes, each slot it owned falls to its former replica, so a
//! crash moves no data (`mesh.md` 2.3). The ring is built once per view; lookups are an index.

use std::hash::{Hash, Hasher};

use hashring::HashRing;

use crate::{NodeId, SLOTS};

/// Points of one node on the ring: 128 keep the busiest of ten nodes within 1.35 times the average.
const VNODES: u16 = 128;
/// First byte of what is hashed for a point of the ring.
const POINT: u8 = b'n';
/// First byte of what is hashed for a slot, so that no slot ever falls exactly on a point by its bytes.
const SLOT: u8 = b's';

/// One point of a node on the ring. Its hash is written by hand over explicit bytes: a derive may change with the compiler.
#[derive(Clone, Copy)]
struct Point {
    node: NodeId,
    replica: u16,
    /// Index in ring order, not part of the hash.
    position: usize,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ([a, b], [c, d]) = (self.node.0.to_be_bytes(), self.replica.to_be_bytes());
        state.write(&[POINT, a, b, c, d]);
    }
}

/// A slot as a key of the ring.
struct SlotKey(u16);

impl Hash for SlotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b] = self.0.to_be_bytes();
        state.write(&[SLOT, a, b]);
    }
}

/// Who owns which slot.
#[derive(Clone, PartialEq, Eq)]
pub struct Table {
    slots: Vec<[Option<NodeId>; 3]>,
}

impl Table {
    /// The table of these nodes; order and repetitions do not matter. No nodes give a table without owners.
    pub fn build(nodes: &[NodeId]) -> Table {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        let order = ring_order(&nodes);
        let mut ring = HashRing::new();
        ring.batch_add(order.clone());
        let slots = (0..SLOTS)
            .map(|slot| match ring.get(&SlotKey(slot)) {
                Some(point) => first_three(&order, point.position),
                None => [None; 3],
            })
            .collect();
        Table { slots }
    }

    /// The node that orders this slot; `None` without nodes or beyond [`SLOTS`].
    pub fn owner(&self, slot: u16) -> Option<NodeId> {
        self.triple(slot)[0]
    }

    /// Owner, sync replica and witness: the next distinct nodes on the ring (`semantics.md` 3); `None` where the cluster
    /// has too few.
    pub fn triple(&self, slot: u16) -> [Option<NodeId>; 3] {
        self.slots.get(usize::from(slot)).copied().unwrap_or_default()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut owners: Vec<NodeId> = self.slots.iter().filter_map(|triple| triple[0]).collect();
        owners.sort_unstable();
        owners.dedup();
        write!(f, "Table({owners:?})")
    }
}

/// All points of the nodes in ring order, each knowing its position.
fn ring_order(nodes: &[NodeId]) -> Vec<Point> {
    let points = nodes.iter().flat_map(|&node| (0..VNODES).map(move |replica| Point { node, replica, position: 0 }));
    let mut ring = HashRing::new();
    ring.batch_add(points.collect());
    ring.into_iter().enumerate().map(|(position, point)| Point { position, ..point }).collect()
}

/// The first three distinct nodes from `start` around the ring.
fn first_three(order: &[Point], start: usize) -> [Option<NodeId>; 3] {
    let mut three = [None; 3];
    let mut found = 0;
    for point in order[start..].iter().chain(&order[..start]) {
        if !three.contains(&Some(point.node)) {
            three[found] = Some(point.node);
            found += 1;
            if found == three.len() {
                break;
            }
        }
    }
    three
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(ordinals: impl IntoIterator<Item = u16>) -> Vec<NodeId> {
        ordinals.into_iter().map(NodeId).collect()
    }

    /// xxh3 of all triples: one number that changes when any slot of a table does.
    fn fingerprint(table: &Table) -> u64 {
        let bytes: Vec<u8> = (0..SLOTS)
            .flat_map(|slot| table.triple(slot))
            .flat_map(|node| node.map_or([0xff; 2], |node| node.0.to_be_bytes()))
            .collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }

    #[test]
    fn tables_of_known_views_never_change() {
        let three = Table::build(&nodes(0..3));
        let first: Vec<_> = (0..8).map(|slot| three.triple(slot).map(|node| node.unwrap().0)).collect();
        assert_eq!(first, [[0, 1, 2], [0, 1, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0], [1, 2, 0], [1, 0, 2], [0, 1, 2]]);
        assert_eq!(
            [fingerprint(&three), fingerprint(&Table::build(&nodes(0..100)))],
            [3_769_799_240_222_930_049, 2_278_855_167_070_479_267]
        );
    }

    #[test]
    fn small_clusters_leave_places_empty() {
        assert_eq!(Table::build(&[]).triple(7), [None; 3]);
        assert_eq!(Table::build(&nodes([5])).triple(7), [Some(NodeId(5)), None, None]);
        let two = Table::build(&nodes([5, 9])).triple(7);
        assert!(two[0].is_some() && two[1].is_some() && two[0] != two[1] && two[2].is_none());
        assert_eq!(Table::build(&nodes([5])).owner(SLOTS), None);
    }

    #[test]
    fn load_is_balanced_over_few_and_over_many_nodes() {
        for (count, most) in [(3_u16, 1.15), (10, 1.35), (100, 1.75)] {
            let table = Table::build(&nodes(0..count));
            let mut owned = vec![0_u32; usize::from(count)];
            for slot in 0..SLOTS {
                owned[usize::from(table.owner(slot).unwrap().0)] += 1;
            }
            let ratio = f64::from(*owned.iter().max().unwrap()) * f64::from(count) / f64::from(SLOTS);
            assert!(ratio < most, "{count} nodes: busiest owns {ratio:.2} times the average");
        }
    }

    #[test]
    fn a_newcomer_takes_its_share_and_nothing_else_moves() {
        for count in [3_u16, 10, 100] {
            let before = Table::build(&nodes(0..count));
            let after = Table::build(&nodes(0..=count));
            let moved = (0..SLOTS).filter(|slot| before.owner(*slot) != after.owner(*slot));
            let takers: Vec<_> = moved.map(|slot| after.owner(slot)).collect();
            assert!(takers.iter().all(|owner| *owner == Some(NodeId(count))), "slots moved between nodes that stayed");
            let share = takers.len() * usize::from(count + 1) * 100 / usize::from(SLOTS);
            assert!((60..150).contains(&share), "{count} nodes: the newcomer took {share} % of its share");
        }
    }

    #[test]
    #[ignore = "run by cargo xtask sim members --figures"]
    fn figures() {
        // Of this thread, in milliseconds: what others do on the machine does not count.
        let processor = || {
            let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            stat.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
        };
        println!(
            "| nodes | a table is built in | the busiest owns, of the average | slots that move when one more joins |"
        );
        println!("|---|---|---|---|");
        for count in [3_u16, 30, 100, 300, 1000] {
            let mut took: Vec<_> = (0..9)
                .map(|_| {
                    let begin = processor();
                    std::hint::black_box(Table::build(&nodes(0..count)));
                    processor() - begin
                })
                .collect();
            took.sort_unstable_by(f64::total_cmp);
            let (before, after) = (Table::build(&nodes(0..count)), Table::build(&nodes(0..=count)));
            let mut owned = vec![0_u32; usize::from(count)];
            for slot in 0..SLOTS {
                owned[usize::from(before.owner(slot).unwrap().0)] += 1;
            }
            let busiest = f64::from(*owned.iter().max().unwrap()) * f64::from(count) / f64::from(SLOTS);
            let moved = (0..SLOTS).filter(|slot| before.owner(*slot) != after.owner(*slot)).count();
            let [least, middle, most] = [took[0], took[4], took[8]];
            println!("| {count} | {middle:.1} ms ({least:.1} to {most:.1}) | {busiest:.2} | {moved} of {SLOTS} |");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_lost_owner_is_followed_by_its_replica(set in prop::collection::btree_set(0_u16..200, 2..20), pick in 0_usize..20) {
            let all = nodes(set);
            let lost = all[pick % all.len()];
            let before = Table::build(&all);
            let after = Table::build(&all.iter().copied().filter(|node| *node != lost).collect::<Vec<_>>());
            for slot in 0..SLOTS {
                let [owner, replica, _] = before.triple(slot);
                let heir = if owner == Some(lost) { replica } else { owner };
                prop_assert_eq!(after.owner(slot), heir);
            }
        }

        #[test]
        fn the_three_of_a_slot_are_distinct(set in prop::collection::btree_set(0_u16..200, 3..20)) {
            let table = Table::build(&nodes(set));
            for slot in 0..SLOTS {
                let [owner, replica, witness] = table.triple(slot);
                prop_assert!(owner.is_some() && replica.is_some() && witness.is_some());
                prop_assert!(owner != replica && owner != witness && replica != witness);
            }
        }

        #[test]
        fn order_and_repetition_of_nodes_do_not_matter(
            (list, mut shuffled) in prop::collection::vec(0_u16..50, 1..12)
                .prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            shuffled.extend(list.clone());
            prop_assert!(Table::build(&nodes(list)) == Table::build(&nodes(shuffled)));
        }
    }
}
