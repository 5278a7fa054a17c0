//! `starling dev`: a cluster of real processes on this machine, one command, one terminal.
//!
//! Invariants:
//! - Every node is this executable with `serve`: nothing is simulated, and killing one is a fair experiment.
//! - Nodes run in process groups of their own, so that Ctrl-C reaches them once, through us, and as SIGTERM.
//! - A node that ends by itself is reported and the others go on; the command ends when all have ended.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{DevArgs, Exit, complain, http, say};

/// How long nodes may take to stop before they are killed: longer than a drain, shorter than patience.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// How often a node that starts is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(100);

pub(super) fn run(arguments: DevArgs) -> Exit {
    match run_nodes(arguments) {
        Ok(exit) => exit,
        Err(error) => {
            complain(format_args!("error: {error:#}"));
            Exit::Failed
        }
    }
}

fn run_nodes(arguments: DevArgs) -> anyhow::Result<Exit> {
    let plan = Plan::new(arguments)?;
    plan.prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exit = runtime.block_on(supervise(&plan));
    // A readiness question may still wait for its answer on a helper thread; nobody needs it any more.
    runtime.shutdown_background();
    exit
}

/// Which nodes to run, and where.
struct Plan {
    nodes: u16,
    port: u16,
    dir: PathBuf,
}

impl Plan {
    fn new(arguments: DevArgs) -> anyhow::Result<Plan> {
        let DevArgs { nodes, port, data_dir: dir } = arguments;
        let last = u32::from(port) + 10 * (u32::from(nodes) - 1) + 2;
        anyhow::ensure!(last <= u32::from(u16::MAX), "the last node would need port {last}");
        Ok(Plan { nodes, port, dir })
    }

    fn name(index: u16) -> String {
        format!("node-{index}")
    }

    fn client_port(&self, index: u16) -> u16 {
        self.port + 10 * index
    }

    fn url(&self, index: u16) -> String {
        format!("http://127.0.0.1:{}", self.client_port(index))
    }

    fn admin_url(&self, index: u16) -> String {
        format!("http://127.0.0.1:{}", self.client_port(index) + 1)
    }

    fn mesh(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.client_port(index) + 2)
    }

    fn key_file(&self) -> PathBuf {
        self.dir.join("cluster.key")
    }

    /// Makes the directory and a key that only this run knows.
    fn prepare(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(self.key_file())?.write_all(hex.as_bytes())?;
        Ok(())
    }

    /// The command line of one node.
    fn arguments(&self, index: u16) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> = vec!["serve".into()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--node", Plan::name(index));
        flag("--listen", format!("127.0.0.1:{}", self.client_port(index)));
        flag("--admin-listen", format!("127.0.0.1:{}", self.client_port(index) + 1));
        flag("--mesh-listen", self.mesh(index));
        flag("--data-dir", path(&self.dir.join(Plan::name(index))));
        flag("--cluster-key-file", path(&self.key_file()));
        for other in (0..self.nodes).filter(|other| *other != index) {
            flag("--seed", self.mesh(other));
        }
        arguments
    }

    /// What to open, once all nodes are ready.
    fn welcome(&self) -> String {
        let mut lines = vec![String::new()];
        for index in 0..self.nodes {
            let (name, url, admin) = (Plan::name(index), self.url(index), self.admin_url(index));
            lines.push(format!("  {name:<8} {url}/   admin {admin}/"));
        }
        if self.nodes > 1 {
            let ports: Vec<String> = (0..self.nodes).map(|index| self.client_port(index).to_string()).collect();
            lines.push(format!("  open     {}/?nodes={}", self.url(0), ports.join(",")));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// What is asked of the nodes; only ever moves forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Run,
    Stop,
    Kill,
}

async fn supervise(plan: &Plan) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (phase, _) = watch::channel(Phase::Run);
    let mut nodes = JoinSet::new();
    let mut lines = JoinSet::new();
    say(format_args!("starting {} node(s), data in {}, Ctrl-C stops them", plan.nodes, plan.dir.display()));
    for index in 0..plan.nodes {
        // If one cannot be started, dropping the others kills them.
        let mut child = start(plan, index)?;
        lines.spawn(copy(Plan::name(index), child.stdout.take()));
        lines.spawn(copy(Plan::name(index), child.stderr.take()));
        nodes.spawn(attend(index, child, phase.subscribe()));
    }
    let mut exit = Exit::Ok;
    let ready = all_ready(plan);
    let patience = tokio::time::sleep(Duration::MAX);
    tokio::pin!(ready, patience);
    let mut waiting = true;
    // Every arm may be dropped and polled again: receivers, joins, and futures pinned outside the loop.
    loop {
        tokio::select! {
            () = &mut ready, if waiting => {
                waiting = false;
                say(plan.welcome());
            }
            Some(_) = interrupt.recv() => advance(&phase),
            Some(_) = terminate.recv() => advance(&phase),
            () = &mut patience => {
                complain("some nodes do not stop, killing them");
                phase.send_replace(Phase::Kill);
                patience.set(tokio::time::sleep(Duration::MAX));
                continue;
            }
            ended = nodes.join_next() => match ended {
                Some(ended) => {
                    if !reported_as_well(&ended?, *phase.borrow()) {
                        exit = Exit::Failed;
                    }
                    continue;
                }
                None => break,
            },
        }
        if *phase.borrow() == Phase::Stop {
            waiting = false;
            patience.set(tokio::time::sleep(STOP_PATIENCE));
        }
    }
    // Their pipes are closed now: print what is left in them.
    while lines.join_next().await.is_some() {}
    Ok(exit)
}

fn advance(phase: &watch::Sender<Phase>) {
    phase.send_modify(|phase| *phase = if *phase == Phase::Run { Phase::Stop } else { Phase::Kill });
}

fn start(plan: &Plan, index: u16) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(plan.arguments(index)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command.process_group(0).kill_on_drop(true).spawn()?)
}

/// Waits for a node to end and passes on what it is asked.
async fn attend(index: u16, mut child: Child, mut phase: watch::Receiver<Phase>) -> (u16, std::io::Result<ExitStatus>) {
    loop {
        // Both futures are cancel safe.
        tokio::select! {
            status = child.wait() => return (index, status),
            Ok(()) = phase.changed() => {
                let phase = *phase.borrow_and_update();
                let asked = match phase {
                    Phase::Run => None,
                    Phase::Stop => Some(Signal::TERM),
                    Phase::Kill => Some(Signal::KILL),
                };
                // `id` is there until the node was waited for, so this can meet no stranger.
                let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
                if let (Some(pid), Some(asked)) = (pid, asked) {
                    // It may have ended in this moment, which is what we want anyway.
                    let _ = kill_process(pid, asked);
                }
            }
        }
    }
}

/// Tells that a node ended, unless it was asked to and did so in order. Returns whether all is well.
fn reported_as_well(ended: &(u16, std::io::Result<ExitStatus>), phase: Phase) -> bool {
    let (index, status) = ended;
    let name = Plan::name(*index);
    match status {
        Ok(status) if status.success() && phase != Phase::Run => true,
        Ok(status) => {
            complain(format_args!("{name} ended: {status}"));
            false
        }
        Err(error) => {
            complain(format_args!("{name} was lost: {error}"));
            false
        }
    }
}

/// Copies a node's lines to our standard error, each with its name in front.
async fn copy(name: String, pipe: Option<impl AsyncRead + Unpin>) {
    let Some(pipe) = pipe else { return };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
        complain(format_args!("{name} | {}", String::from_utf8_lossy(&line).trim_end()));
        line.clear();
    }
}

/// Returns when every node said once that it is ready; never, if one does not.
async fn all_ready(plan: &Plan) {
    for index in 0..plan.nodes {
        loop {
            let url = plan.admin_url(index);
            let asked = tokio::task::spawn_blocking(move || http::get(&url, "/readyz")).await;
            if matches!(asked, Ok(Ok(answer)) if answer.status == 200) {
                break;
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(nodes: u16, port: u16) -> anyhow::Result<Plan> {
        Plan::new(DevArgs { nodes, port, data_dir: PathBuf::from("data") })
    }

    #[test]
    fn each_node_gets_ports_of_its_own_and_the_others_as_seeds() {
        let plan = plan(3, 3000).unwrap();
        let expected = "serve --node node-1 --listen 127.0.0.1:3010 --admin-listen 127.0.0.1:3011 --mesh-listen \
                        127.0.0.1:3012 --data-dir data/node-1 --cluster-key-file data/cluster.key --seed 127.0.0.1:3002 \
                        --seed 127.0.0.1:3022";
        assert_eq!(plan.arguments(1).join(" "), expected);
    }

    #[test]
    fn the_welcome_names_every_node_and_the_page_that_reaches_all() {
        let welcome = plan(3, 3000).unwrap().welcome();
        assert!(welcome.contains("node-2   http://127.0.0.1:3020/   admin http://127.0.0.1:3021/"), "{welcome}");
        assert!(welcome.contains("open     http://127.0.0.1:3000/?nodes=3000,3010,3020"), "{welcome}");
    }

    #[test]
    fn ports_beyond_the_last_one_are_refused() {
        assert!(plan(20, 65_000).is_ok());
        assert!(plan(20, 65_400).is_err());
    }

    #[test]
    fn the_key_is_fresh_each_time_and_readable_by_the_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let plan = Plan { nodes: 1, port: 3000, dir: dir.path().join("deep/dev") };
        let key = || {
            plan.prepare().unwrap();
            crate::config::read_key_file(&plan.key_file()).unwrap()
        };
        assert_ne!(key(), key());
        let mode = fs::metadata(plan.key_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
