//! What the machine gives: descriptors, kernel settings, time, memory and cores.
//!
//! Invariant: what cannot be read (another kernel, a locked-down container) is no finding: silence is not an accusation.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::Finding;
use crate::clock;
use crate::config::Config;

const MIB: u64 = 1 << 20;
/// Files of a node besides its connections.
const DESCRIPTORS_BESIDES: u64 = 128;
/// Connections that may wait to be accepted, as the node asks for.
const BACKLOG: u64 = 4_096;
/// Below this a burst of frames between nodes is lost in the kernel.
const UDP_BUFFER: u64 = 2 * MIB;
/// Memory of a node besides its connections, and what one connection may be reckoned with.
const MEMORY_BESIDES: u64 = 96 * MIB;
const MEMORY_PER_CONNECTION: u64 = 8 << 10;
/// When this version was made, in Unix milliseconds: no clock is right that says less.
const MADE_MS: u64 = 1_767_225_600_000;
/// How far a file may be ahead of the clock.
const AHEAD: Duration = Duration::from_secs(60);

/// Whether as many files may be open as there may be connections.
pub(super) fn descriptors(config: &Config) -> Option<Finding> {
    const ABOUT: &str = "descriptors";
    let (_, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).ok()?;
    let wanted = config.limits.connections as u64 + DESCRIPTORS_BESIDES;
    if hard >= wanted {
        return Some(Finding::ok(ABOUT, format!("{hard} files may be open, {wanted} are needed")));
    }
    let found = format!("{hard} files may be open, limits.connections = {} needs {wanted}", config.limits.connections);
    let to_do = format!("raise it (LimitNOFILE={wanted} in systemd, ulimit -Hn), or lower limits.connections");
    // A node that can serve half of what it is meant to is no reason not to start it.
    Some(if hard < wanted / 2 { Finding::fail(ABOUT, found, to_do) } else { Finding::warn(ABOUT, found, to_do) })
}

/// Whether the kernel's own limits are in the way.
pub(super) fn kernel(config: &Config) -> Vec<Finding> {
    let mut wanted = vec![("net.core.somaxconn", BACKLOG, "connections are refused when many come at once")];
    if config.is_clustered() {
        for name in ["net.core.rmem_max", "net.core.wmem_max"] {
            wanted.push((name, UDP_BUFFER, "bursts between nodes are lost and sent again"));
        }
    }
    let read = |name: &str| -> Option<u64> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let look = |(name, wanted, otherwise)| Some(setting(name, read(name)?, wanted, otherwise));
    wanted.into_iter().filter_map(look).collect()
}

fn setting(name: &str, found: u64, wanted: u64, otherwise: &str) -> Finding {
    const ABOUT: &str = "kernel";
    if found >= wanted {
        return Finding::ok(ABOUT, format!("{name} is {found}"));
    }
    let to_do = format!("sysctl -w {name}={wanted}, and the same line in /etc/sysctl.d/");
    Finding::warn(ABOUT, format!("{name} is {found}: {otherwise}"), to_do)
}

/// Whether the clock can be right.
pub(super) fn clock(config: &Config) -> Finding {
    let newest = |dir: &Path| -> Option<u64> {
        let modified = fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
        let since = modified.max()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    judge_clock(clock::wall_ms(), newest(&config.store.dir).unwrap_or(0))
}

fn judge_clock(now_ms: u64, newest_file_ms: u64) -> Finding {
    const ABOUT: &str = "clock";
    const TO_DO: &str = "set the clock, and let NTP keep it (timedatectl, chronyc tracking)";
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(now_ms)).to_string();
    let ahead = Duration::from_millis(newest_file_ms.saturating_sub(now_ms));
    if now_ms < MADE_MS {
        Finding::fail(ABOUT, format!("it is {text}, which is before this version was made"), TO_DO)
    } else if ahead > AHEAD {
        let ahead = humantime::format_duration(Duration::from_secs(ahead.as_secs()));
        Finding::warn(ABOUT, format!("it is {text}, but the data directory was written {ahead} later"), TO_DO)
    } else {
        Finding::ok(ABOUT, text)
    }
}

/// Whether memory and cores are enough for what the configuration says.
pub(super) fn resources(config: &Config) -> Vec<Finding> {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
    let read = |file: &str| {
        let root = Path::new("/sys/fs/cgroup");
        // Inside a container its own group is mounted as the root.
        fs::read_to_string(root.join(&group).join(file)).or_else(|_| fs::read_to_string(root.join(file))).ok()
    };
    let limit = read("memory.max").and_then(|text| text.trim().parse().ok());
    let total = procfs_total();
    let memory = limit.into_iter().chain(total).min().map(|bytes| memory(config, bytes));
    let cores = read("cpu.max").and_then(|text| cpu_quota(&text)).map(|quota| cores(config.server.shards, quota));
    memory.into_iter().chain(cores).collect()
}

fn procfs_total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn memory(config: &Config, available: u64) -> Finding {
    const ABOUT: &str = "memory";
    let connections = config.limits.connections;
    let wanted = MEMORY_BESIDES + MEMORY_PER_CONNECTION * connections as u64;
    let (available, wanted) = (available / MIB, wanted.div_ceil(MIB));
    if available >= wanted {
        return Finding::ok(ABOUT, format!("{available} MiB may be used, {connections} connections want {wanted} MiB"));
    }
    let found = format!("{available} MiB may be used, limits.connections = {connections} wants {wanted} MiB");
    Finding::warn(ABOUT, found, "raise the memory limit of the container or machine, or lower limits.connections")
}

/// Hundredths of cores that `cpu.max` grants; `None` without a quota.
fn cpu_quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    (quota.parse::<u64>().ok()? * 100).checked_div(period.parse().ok()?)
}

fn cores(shards: usize, quota: u64) -> Finding {
    const ABOUT: &str = "cores";
    let granted = format!("{}.{:02} cores may be used", quota / 100, quota % 100);
    if quota.div_ceil(100) >= shards as u64 {
        return Finding::ok(ABOUT, format!("{granted} by {shards} shards"));
    }
    let found =
        format!("{granted}, server.shards = {shards}: threads are stopped in mid-turn when the quota is used up");
    Finding::warn(ABOUT, found, "remove server.shards (it then follows the quota), or raise the quota")
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use crate::config::{Facts, Sources, load};

    #[test]
    fn a_quota_of_cores_is_read_in_hundredths() {
        assert_eq!(cpu_quota("150000 100000\n"), Some(150));
        for none in ["max 100000", "", "1 0", "x y"] {
            assert_eq!(cpu_quota(none), None, "{none}");
        }
        assert_eq!((cores(2, 150).state, cores(3, 150).state), (State::Ok, State::Warn));
    }

    #[test]
    fn a_clock_is_judged_by_what_must_have_been_before() {
        let hour = 3_600_000;
        assert_eq!(judge_clock(1_000_000_000_000, 0).state, State::Fail);
        assert_eq!(judge_clock(MADE_MS + hour, MADE_MS).state, State::Ok);
        let behind = judge_clock(MADE_MS + hour, MADE_MS + 3 * hour);
        assert_eq!((behind.state, behind.found.ends_with("written 2h later")), (State::Warn, true), "{}", behind.found);
    }

    #[test]
    fn memory_is_reckoned_from_the_connections_that_are_allowed() {
        let facts = Facts { host_name: "a".to_owned(), cores: 1 };
        let sources = Sources { file: None, environment: Vec::new(), flags: Vec::new(), facts };
        let config = load(&sources).unwrap().config;
        assert_eq!(memory(&config, 128 * MIB).state, State::Warn);
        assert_eq!(memory(&config, 1024 * MIB).state, State::Ok);
    }

    #[test]
    fn a_kernel_setting_that_is_too_small_is_told_with_the_command_that_mends_it() {
        let finding = setting("net.core.somaxconn", 128, 4096, "x");
        assert_eq!(finding.state, State::Warn);
        assert!(finding.to_do.starts_with("sysctl -w net.core.somaxconn=4096"), "{}", finding.to_do);
        assert_eq!(setting("net.core.somaxconn", 4096, 4096, "x").state, State::Ok);
    }
}
