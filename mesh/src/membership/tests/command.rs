//! What `cargo xtask sim members` runs: tests that are ignored otherwise, with their arguments in the environment.
//!
//! Invariant: a story that was broken is printed with the command that tells it again, and the command fails.

use super::story::Kind;

/// `NAME=VALUE` of the environment, or what is usual.
pub(super) fn argument<T: std::str::FromStr>(name: &str, usual: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

#[test]
#[ignore = "run by cargo xtask sim members"]
fn stories() {
    let (nodes, first, seeds) = (argument("SIM_NODES", 0_u16), argument("SIM_FIRST", 1), argument("SIM_SEEDS", 10));
    let only: String = argument("SIM_STORY", String::new());
    let mut broken = 0;
    for kind in Kind::ALL.into_iter().filter(|kind| only.is_empty() || kind.name() == only) {
        let mut told = 0;
        for seed in first..first + seeds {
            // Small clusters, where every node counts, unless a size was asked for.
            let nodes = if nodes == 0 { [2, 3, 4, 5, 7, 9][usize::try_from(seed % 6).unwrap()] } else { nodes };
            match kind.tell(nodes, seed) {
                Ok(_) => told += 1,
                Err(why) => {
                    broken += 1;
                    println!("BROKEN {}, {nodes} nodes, seed {seed}: {why}", kind.name());
                }
            }
        }
        println!("{:<10} {told} of {seeds} stories ended well", kind.name());
    }
    assert_eq!(broken, 0, "stories were broken; each line above says how to tell it again");
}
