//! A network of its own for each node, and what can be wrong with it: cut and lossy links.
//!
//! Invariants: everything is inside name spaces that end with this process (`enter`), so nothing is left behind however it
//! ends; faults are silent drops between nodes, and never touch clients.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Set in the process that runs inside.
const INSIDE: &str = "STARLING_CHAOS_INSIDE";

/// Nodes on one bridge, where the clients are too.
pub(crate) struct Network {
    size: usize,
}

/// Why faults of the network cannot be made here; `None` if they can.
pub(crate) fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("cutting networks needs root".to_owned());
    }
    let missing = |program: &&str| {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_err()
    };
    let missing = ["ip", "nft", "unshare", "mount"].into_iter().find(missing)?;
    Some(format!("`{missing}` is not installed (Debian: iproute2, nftables, util-linux)"))
}

/// Begins this program again inside name spaces of its own; returns only inside, or with an error.
pub(crate) fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let mut again = Command::new("unshare");
    again.args(["--net", "--mount", "--"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    Err(again.env(INSIDE, "1").exec()).context("cannot start `unshare`")
}

impl Network {
    /// Makes name spaces for so many nodes. Call [`enter`] first.
    pub(crate) fn create(size: usize) -> Result<Network> {
        run("mkdir", &["-p", "/run/netns"])?;
        // Names of name spaces are files; a folder of our own keeps them from anybody else's.
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"])?;
        run("ip", &["link", "set", "lo", "up"])?;
        run("ip", &["link", "add", "hub", "type", "bridge"])?;
        run("ip", &["addr", "add", "10.77.0.254/24", "dev", "hub"])?;
        run("ip", &["link", "set", "hub", "up"])?;
        for index in 0..size {
            let (space, port) = (Network::space(index), format!("v{index}"));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run("ip", &["link", "set", &port, "master", "hub", "up"])?;
            let address = format!("{}/24", Network::address(index));
            run("ip", &["-n", &space, "addr", "add", &address, "dev", "eth0"])?;
            run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(Network { size })
    }

    /// The name of a node's name space.
    pub(crate) fn space(index: usize) -> String {
        format!("n{index}")
    }

    /// The address of a node.
    pub(crate) fn address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(index + 1).unwrap_or(u8::MAX))
    }

    /// Drops everything between this node and the others, both ways.
    pub(crate) fn cut(&self, index: usize) -> Result<()> {
        let others = self.others(index);
        rules(index, &format!("ip saddr {{ {others} }} drop"), &format!("ip daddr {{ {others} }} drop"))
    }

    /// Drops so many of a hundred packets that any node receives from another.
    pub(crate) fn lose(&self, percent: u32) -> Result<()> {
        (0..self.size).try_for_each(|index| {
            let lossy = format!("ip saddr {{ {} }} numgen random mod 100 < {percent} drop", self.others(index));
            rules(index, &lossy, "accept")
        })
    }

    /// Everything arrives again.
    pub(crate) fn heal(&self) -> Result<()> {
        (0..self.size)
            .try_for_each(|index| run("ip", &["netns", "exec", &Network::space(index), "nft", "flush", "ruleset"]))
    }

    fn others(&self, index: usize) -> String {
        let others = (0..self.size).filter(|other| *other != index).map(|other| Network::address(other).to_string());
        others.collect::<Vec<_>>().join(", ")
    }
}

/// One rule for what comes in and one for what goes out.
fn rules(index: usize, input: &str, output: &str) -> Result<()> {
    let text = format!(
        "table inet chaos {{\nchain in {{\ntype filter hook input priority 0; policy accept;\n{input}\n}}\n\
         chain out {{\ntype filter hook output priority 0; policy accept;\n{output}\n}}\n}}\n"
    );
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    run("ip", &["netns", "exec", &Network::space(index), "nft", "-f", &file.path().to_string_lossy()])
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
