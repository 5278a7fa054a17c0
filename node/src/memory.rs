//! The memory of this process: how much it may use, how much it uses, and who is told.
//!
//! Invariants: sampled several times a second, since a flood fills gigabytes in that; what cannot be read is no limit. Only
//! the admin thread samples; shards look at `Pressure`. What the allocator keeps for the next request is not used, however
//! long it stays resident: otherwise a level that was reached once would never be left.

use std::{
    fs,
    future::pending,
    path::Path,
    time::{Duration, Instant},
};

use malloc_info::info::TotalType;
use tokio::time::sleep;

use crate::{
    clock,
    config::Size,
    context::Context,
    pressure::{self, Level},
};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// How often the allocator is asked what it keeps free, at most. It stops for as long as it counts, so that it is asked only
/// when memory seems short, and has `RESTS` times as long to itself afterwards.
const ASK_EVERY: Duration = Duration::from_secs(1);
const RESTS: u32 = 50;
/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";
/// Version 1 of control groups says this much or more when it means no limit.
const UNLIMITED: u64 = 1 << 60;

/// Looks after the level of memory pressure, for as long as the node lives.
pub(crate) async fn watch(context: &Context) {
    let limit = match context.config.limits.memory_bytes {
        Some(Size(limit)) => limit,
        None => allowed().map_or(0, |allowed| allowed / 5 * 4),
    };
    context.metrics.memory_limit_bytes.set(i64::try_from(limit).unwrap_or(i64::MAX));
    if limit == 0 {
        return pending().await;
    }
    let (mut before, mut spare) = (Level::Calm, Spare::default());
    loop {
        sleep(SAMPLE_EVERY).await;
        let Some(resident) = resident() else { continue };
        let short = pressure::level(before, resident, limit) > Level::Calm;
        let used = if short { resident.saturating_sub(spare.look(clock::now())) } else { resident };
        let level = pressure::level(before, used, limit);
        if level == before {
            continue;
        }
        context.pressure.set(level);
        context.metrics.memory_pressure.set(i64::from(level as u8));
        if level > before {
            tracing::warn!(?level, used, resident, limit, "memory is short");
        } else {
            tracing::info!(?level, used, resident, limit, "memory is less short");
        }
        before = level;
    }
}

fn resident() -> Option<u64> {
    let pages = procfs::process::Process::myself().ok()?.statm().ok()?.resident;
    Some(pages.saturating_mul(procfs::page_size()))
}

/// What the allocator keeps for the next request, as it last said.
#[derive(Debug, Default)]
struct Spare {
    bytes: u64,
    ask_at: Option<Instant>,
}

impl Spare {
    fn look(&mut self, now: Instant) -> u64 {
        if self.ask_at.is_none_or(|at| at <= now) {
            self.bytes = spare().unwrap_or(0);
            let took = clock::now().saturating_duration_since(now);
            self.ask_at = Some(now + ASK_EVERY.max(took * RESTS));
        }
        self.bytes
    }
}

/// Bytes of free pieces in all heaps. Nearly all of them are resident: a piece was in use before it was free.
fn spare() -> Option<u64> {
    let heaps = malloc_info::malloc_info().ok()?;
    let free = heaps.total.iter().filter(|total| matches!(total.r#type, TotalType::Fast | TotalType::Rest));
    Some(free.map(|total| total.size as u64).sum())
}

/// What the control group of this process, or one above it, allows at most.
fn allowed() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_in(Path::new(GROUPS), &own)
}

fn limit_in(root: &Path, own: &str) -> Option<u64> {
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let groups = Path::new(own).ancestors().filter_map(|group| group.strip_prefix("/").ok());
    let second = groups.filter_map(|group| number(&root.join(group).join("memory.max")));
    let first = number(&root.join("memory/memory.limit_in_bytes"));
    second.chain(first).min().filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_control_group_on_the_way_up_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |own: &str| limit_in(dir.path(), own);
        assert_eq!(limit("0::/pod/app\n"), None);
        write("pod/app/memory.max", "max\n");
        assert_eq!(limit("0::/pod/app\n"), None);
        write("pod/memory.max", "1073741824\n");
        assert_eq!(limit("0::/pod/app\n"), Some(1 << 30));
        write("memory.max", "536870912\n");
        assert_eq!(limit("0::/pod/app\n"), Some(1 << 29));
        assert_eq!(limit(""), Some(1 << 29));
    }

    #[test]
    fn the_first_version_says_no_limit_with_a_huge_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("memory")).unwrap();
        let limit = |text: &str| {
            fs::write(dir.path().join("memory/memory.limit_in_bytes"), text).unwrap();
            limit_in(dir.path(), "5:memory:/x\n")
        };
        assert_eq!(limit("9223372036854771712\n"), None);
        assert_eq!(limit("268435456\n"), Some(1 << 28));
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn what_was_freed_and_is_not_given_back_is_spare_and_looked_at_once_a_second() {
        const PIECES: usize = 20_000;
        const BYTES: usize = 600;
        // Every second piece stays, so that nothing can be given back.
        let mut pieces: Vec<Option<Vec<u8>>> = (0..PIECES).map(|_| Some(vec![1; BYTES])).collect();
        let (mut early, start) = (Spare::default(), clock::now());
        let before = early.look(start);
        pieces.iter_mut().step_by(2).for_each(|piece| drop(piece.take()));
        let freed = (PIECES / 2 * BYTES) as u64;
        assert_eq!(early.look(start), before, "too early to ask again");
        let after = Spare::default().look(start);
        // Other tests use memory meanwhile, and the thread has a few pieces ready.
        assert!(after >= before + freed / 2, "{before} bytes were spare, {after} are");
        drop(pieces);
    }
}
