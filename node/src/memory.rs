//! The memory of this process: how much it may use, how much it uses, and who is told.
//!
//! Invariants: sampled several times a second, since a flood fills gigabytes in that; what cannot be read is no limit. Only
//! the admin thread samples; shards look at `Pressure`.

use std::{fs, future::pending, path::Path, time::Duration};

use tokio::time::sleep;

use crate::{
    config::Size,
    context::Context,
    pressure::{self, Level},
};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
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
    let mut before = Level::Calm;
    loop {
        sleep(SAMPLE_EVERY).await;
        let Some(used) = resident() else { continue };
        let level = pressure::level(before, used, limit);
        if level == before {
            continue;
        }
        context.pressure.set(level);
        context.metrics.memory_pressure.set(i64::from(level as u8));
        if level > before {
            tracing::warn!(?level, used, limit, "memory is short");
        } else {
            tracing::info!(?level, used, limit, "memory is less short");
        }
        before = level;
    }
}

fn resident() -> Option<u64> {
    let pages = procfs::process::Process::myself().ok()?.statm().ok()?.resident;
    Some(pages.saturating_mul(procfs::page_size()))
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
}
