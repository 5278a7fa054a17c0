//! Pages of what several nodes tell: paging through them meets everybody once, in order.

use mesh::wire::sockets::Told;
use proptest::prelude::*;

use super::*;

/// What is told at once here.
const BYTES_MAX: usize = 1_000;

/// What one node with these sockets tells after `after`.
fn tell(ids: &[u32], after: &str, limit: usize, body: usize) -> Done {
    let told = |id: &u32| Told { id: format!("{id:05}").into(), body: "x".repeat(body).into() };
    let sockets: Vec<Told> = ids.iter().map(told).filter(|told| *told.id > *after).collect();
    let done = Done { count: ids.len() as u64, sockets, ..Done::default() };
    merged_within(vec![done], limit, BYTES_MAX)
}

proptest! {
    #[test]
    fn paging_through_several_nodes_meets_everybody_once(
        nodes in proptest::collection::vec(proptest::collection::btree_set(0..500u32, 0..40), 1..5),
        limit in 1..12usize,
        body in prop_oneof![Just(10), Just(BYTES_MAX / 3), Just(2 * BYTES_MAX)],
    ) {
        // Ids are unique in the cluster.
        let mut all = std::collections::BTreeSet::new();
        let nodes: Vec<Vec<u32>> =
            nodes.iter().map(|ids| ids.iter().copied().filter(|id| all.insert(*id)).collect()).collect();
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let parts = nodes.iter().map(|ids| tell(ids, &after, limit, body)).collect();
            let page = merged_within(parts, limit, BYTES_MAX);
            prop_assert_eq!(page.count, all.len() as u64);
            prop_assert!(page.sockets.len() <= limit);
            seen.extend(page.sockets.iter().map(|told| told.id.to_string()));
            if !page.more {
                break;
            }
            after = page.sockets.last().expect("a page that is not the last has somebody").id.to_string();
        }
        prop_assert_eq!(seen, all.iter().map(|id| format!("{id:05}")).collect::<Vec<_>>());
    }
}

#[test]
fn orders_that_tell_about_nobody_only_count() {
    let part = |count, refused| Done { count, refused, ..Done::default() };
    assert_eq!(merged(vec![part(2, 0), part(3, 1)], 0), part(5, 1));
}
