//! Real nodes as processes: started, asked, killed, stopped, woken.
//!
//! Invariants: nothing is left running when the value is dropped; every node keeps its name, addresses and folder over
//! restarts; what a node says goes to a file beside its data.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::network::Network;
use crate::stage::Door;

/// How long a node may take to end when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often nodes are asked how they are.
const LOOK: Duration = Duration::from_millis(200);

/// What every node is configured with: everybody may do everything, nobody is counted, history holds a whole run.
const CONFIG: &str = r#"
[socketio]
ping_interval = "2s"
ping_timeout = "6s"
[store]
history = { size = 20000, ttl = "2h" }
[auth]
anonymous = true
[limits]
per_ip = 0
per_ip_rate = 0
messages_per_second = 0
bytes_per_second = "0B"
joins_per_second = 0
[drain]
window = "1s"
[[namespace]]
name = "/"
allow_join = "anonymous"
allow_publish = "anonymous"
allow_history = "anonymous"
allow_presence = "anonymous"
"#;

/// Processes of one cluster.
pub(crate) struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    network: Option<Network>,
    nodes: Vec<Node>,
}

struct Node {
    name: String,
    client: SocketAddr,
    admin: SocketAddr,
    mesh: SocketAddr,
    child: Option<Child>,
}

/// What `starling status --json` says, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) cluster: Report,
}

/// See [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Report {
    members: Vec<Member>,
    links: Vec<Link>,
    safe_to_lose_one: bool,
    #[serde(default)]
    unsafe_because: Option<String>,
    /// Absent in binaries that keep one copy and do not say so.
    #[serde(default)]
    copies: u8,
}

#[derive(Clone, Debug, Deserialize)]
struct Member {
    node: String,
    state: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Link {
    node: String,
    state: String,
}

/// Who has which part in a room, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Triple {
    pub(crate) owner: Option<usize>,
    pub(crate) replica: Option<usize>,
    pub(crate) witness: Option<usize>,
}

#[derive(Deserialize)]
struct Placement {
    owner: Option<String>,
    replica: Option<String>,
    witness: Option<String>,
}

impl Report {
    fn alive(&self) -> usize {
        self.members.iter().filter(|member| member.state == "alive").count()
    }

    /// Names of those that are given up.
    pub(crate) fn down(&self) -> Vec<&str> {
        self.members.iter().filter(|member| member.state == "down").map(|member| member.node.as_str()).collect()
    }

    /// Nodes that hold each message before anybody sees it.
    pub(crate) fn copies(&self) -> u8 {
        self.copies
    }

    /// What keeps a cluster of so many from being whole; `None` if nothing does.
    fn ill(&self, size: usize) -> Option<String> {
        if self.alive() != size {
            return Some(format!("{} alive", self.alive()));
        }
        let alive = |node: &str| self.members.iter().any(|member| member.node == node && member.state == "alive");
        if let Some(link) = self.links.iter().find(|link| link.state != "up" && alive(&link.node)) {
            return Some(format!("the link to {} is {}", link.node, link.state));
        }
        let could = self.copies >= 2 && size >= 3;
        let why = || self.unsafe_because.clone().unwrap_or_else(|| "not safe to lose a node".to_owned());
        (could && !self.safe_to_lose_one).then(why)
    }
}

impl Cluster {
    /// A cluster of at most `size` nodes, none of which runs. In a network each node has a name space of its own.
    pub(crate) fn new(binary: &Path, dir: &Path, size: usize, network: Option<Network>) -> Result<Cluster> {
        if dir.exists() {
            std::fs::remove_dir_all(dir).with_context(|| format!("cannot empty {}", dir.display()))?;
        }
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        std::fs::write(dir.join("starling.toml"), CONFIG)?;
        let key = dir.join("cluster.key");
        let mut secret = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        std::fs::write(&key, secret.map(|byte| format!("{byte:02x}")).concat())?;
        rustix::fs::chmod(&key, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        let ports = (0..size).map(|_| free_ports()).collect::<Result<Vec<_>>>()?;
        let node = |(index, (client, admin, mesh)): (usize, (u16, u16, u16))| {
            let ip = network.as_ref().map_or(std::net::Ipv4Addr::LOCALHOST, |_| Network::address(index));
            Node {
                name: format!("gw-{index}"),
                client: (ip, client).into(),
                admin: (std::net::Ipv4Addr::LOCALHOST, admin).into(),
                mesh: (ip, mesh).into(),
                child: None,
            }
        };
        let nodes = ports.into_iter().enumerate().map(node).collect();
        let binary = binary.canonicalize().with_context(|| format!("there is no {}", binary.display()))?;
        Ok(Cluster { binary, dir: dir.to_owned(), network, nodes })
    }

    /// A command of the binary where node `index` lives.
    fn command(&self, index: usize) -> Command {
        let mut command = match &self.network {
            Some(_) => {
                let mut inside = Command::new("ip");
                inside.args(["netns", "exec", &Network::space(index)]).arg(&self.binary);
                inside
            }
            None => Command::new(&self.binary),
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STARLING_")) {
            command.env_remove(name);
        }
        command.current_dir(&self.dir).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Starts a node; does not wait until it serves.
    pub(crate) fn start(&mut self, index: usize) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("gw-{index}.log")))?;
        let mut command = self.command(index);
        let node = &self.nodes[index];
        command.args(["serve", "--config", "starling.toml", "--cluster-key-file", "cluster.key", "--node", &node.name]);
        command.args(["--data-dir", &format!("data-{index}")]);
        command.args(["--listen", &node.client.to_string(), "--admin-listen", &node.admin.to_string()]);
        command.args(["--mesh-listen", &node.mesh.to_string()]);
        for other in self.nodes.iter().filter(|other| other.name != node.name) {
            command.args(["--seed", &other.mesh.to_string()]);
        }
        command.stdout(log.try_clone()?).stderr(log);
        self.nodes[index].child = Some(command.spawn().context("cannot start a node")?);
        Ok(())
    }

    /// Indices of those that run, by what was asked of them.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].child.is_some()).collect()
    }

    /// Where clients find those that run.
    pub(crate) fn doors(&self) -> Vec<Door> {
        let door = |index: usize| Door { name: self.nodes[index].name.clone(), address: self.nodes[index].client };
        self.running().into_iter().map(door).collect()
    }

    /// The network, if the nodes live in one.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The node's name.
    pub(crate) fn name(&self, index: usize) -> &str {
        &self.nodes[index].name
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let pid = self.nodes[index].child.as_ref().and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).with_context(|| format!("{} does not run", self.name(index)))?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let mut child = self.nodes[index].child.take().with_context(|| format!("gw-{index} does not run"))?;
        Ok(child.kill().await?)
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self, index: usize) -> Result<ExitStatus> {
        self.signal(index, Signal::TERM)?;
        let mut child = self.nodes[index].child.take().with_context(|| format!("gw-{index} does not run"))?;
        let ended = timeout(STOP_PATIENCE, child.wait()).await;
        Ok(ended.with_context(|| format!("gw-{index} does not end on SIGTERM"))??)
    }

    /// What the node says of the cluster; `None` if it does not answer.
    pub(crate) async fn report(&self, index: usize) -> Option<Report> {
        let text = self.ask(index, &["status"]).await?;
        Some(serde_json::from_str::<Status>(&text).ok()?.cluster)
    }

    /// Who has which part in a room, as the first running node says.
    pub(crate) async fn explain(&self, room: &str) -> Result<Triple> {
        let asked = *self.running().first().context("no node runs")?;
        let text = self.ask(asked, &["explain", room]).await.context("`starling explain` does not answer")?;
        let placement: Placement = serde_json::from_str(&text).context("`starling explain` says something else")?;
        let index = |name: Option<String>| self.nodes.iter().position(|node| Some(&node.name) == name.as_ref());
        Ok(Triple {
            owner: index(placement.owner),
            replica: index(placement.replica),
            witness: index(placement.witness),
        })
    }

    async fn ask(&self, index: usize, arguments: &[&str]) -> Option<String> {
        let mut command = self.command(index);
        command.args(arguments).args(["--json", "--admin", &format!("http://{}", self.nodes[index].admin)]);
        let output = command.stderr(Stdio::null()).output().await.ok()?;
        String::from_utf8(output.stdout).ok().filter(|text| !text.is_empty())
    }

    /// How often nodes found that the others had given them up though they lived, as their logs tell. It explains what clients
    /// saw on a machine that is too busy, and excuses nothing.
    pub(crate) fn given_up(&self) -> usize {
        let log =
            |node: &Node| std::fs::read_to_string(self.dir.join(format!("{}.log", node.name))).unwrap_or_default();
        self.nodes.iter().map(|node| log(node).matches("re-introduced itself").count()).sum()
    }

    /// Waits until every running node sees all of them alive and linked and, where it keeps two copies, safe; how long it took.
    pub(crate) async fn healed(&mut self, patience: Duration) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            let mut ill = None;
            for index in self.running() {
                self.check_alive(index)?;
                let why = match self.report(index).await {
                    Some(report) => report.ill(self.running().len()),
                    None => Some("no answer".to_owned()),
                };
                ill = ill.or_else(|| why.map(|why| format!("{} says: {why}", self.name(index))));
            }
            match ill {
                None => return Ok(begin.elapsed()),
                Some(why) if begin.elapsed() > patience => {
                    bail!("not healed after {} s: {why}", patience.as_secs());
                }
                Some(_) => sleep(LOOK).await,
            }
        }
    }

    /// An error with the end of its log if the node has ended by itself.
    fn check_alive(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        if let Some(status) = node.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            let log = std::fs::read_to_string(self.dir.join(format!("gw-{index}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("{} ended by itself: {status}\n{}", node.name, tail.join("\n"));
        }
        Ok(())
    }
}

/// Ports that were free a moment ago: for clients, admin (TCP) and the mesh (UDP).
fn free_ports() -> Result<(u16, u16, u16)> {
    let (client, admin) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let mesh = UdpSocket::bind("127.0.0.1:0")?;
    Ok((client.local_addr()?.port(), admin.local_addr()?.port(), mesh.local_addr()?.port()))
}
