//! `cargo xtask bench --cluster`: three nodes, one room of 3,000 members, 10 and 100 messages a second; what a message costs
//! that crosses the mesh, and what a link costs that carries nothing.
//!
//! Nodes and generator share the machine, as the peers of the page did when they were measured (S6 of the design): only the
//! order of magnitude can be compared with them.
//!
//! Invariants: release builds; fresh nodes for every round; time of the mesh is that of the threads called `mesh`, read from
//! the kernel in nanoseconds, less what they use when nothing happens.

use super::{
    contest::{EXIT_EXPECTATION, EXIT_INVALID},
    others::Others,
};
use crate::server::{Server, free_port};
use crate::{clock, run};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const NODES: usize = 3;
const RATES: [u32; 2] = [10, 100];
const MEMBERS: &str = "3000";
/// How long a load is, and how long idle links are watched.
const SECONDS: u64 = 20;
/// How long three nodes may take to be a healthy cluster.
const FORM_LIMIT: Duration = Duration::from_secs(30);
const NAMES: [&str; 9] = [
    "local p50 ms",
    "local p99 ms",
    "remote p50 ms",
    "remote p99 ms",
    "CPU-s per M deliveries",
    "mesh CPU µs per message",
    "lost",
    "orders",
    "others' cores",
];

/// What the design measured of others with the same load: p50 and p99 over all members, CPU seconds per million deliveries,
/// at 10 and at 100 messages a second.
const PEERS: &str = "\
| node-redis ×3 | 24.8 | 35.5 | 12.0 | 288 | 596 |
| node-streams ×3 | 15.9 | 30.1 | 12.6 | 174 | 294 |
| socketioxide-redis ×3 | 17.8 | 28.7 | 8.79 | 30.8 | 76.7 |
| nats ×3 | 23.2 | 33.9 | 11.9 | 67.4 | 167 |
";

/// One load on three fresh nodes: the figures of `NAMES`, and what an idle link end costs in microseconds a second.
struct Turn {
    rate: u32,
    figures: [f64; NAMES.len()],
    idle: f64,
    /// Whether the generator was too slow itself.
    late: bool,
}

/// Builds, measures, prints and writes docs/benchmarks-cluster.md; true when nothing was lost and there was one order.
pub(super) fn command(rounds: u32, dry_run: bool) -> Result<bool> {
    run::check(&mut run::cargo(&["build", "--release", "--locked", "-p", "node", "-p", "loadtest", "--bins"]))?;
    let mut turns = Vec::new();
    for round in 1..=rounds {
        for rate in RATES {
            println!("--- round {round} of {rounds}: {rate} messages a second");
            turns.push(turn(rate)?);
        }
    }
    let page = page(&turns, rounds)?;
    println!("\n{page}");
    if !dry_run {
        std::fs::write(run::root().join("docs/benchmarks-cluster.md"), page)?;
        println!("written to docs/benchmarks-cluster.md");
    }
    Ok(turns.iter().all(|turn| turn.figures[6] == 0.0 && turn.figures[7] == 1.0))
}

fn turn(rate: u32) -> Result<Turn> {
    let others = Others::now()?;
    let folder = run::target().join("bench-cluster");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let nodes = Nodes::start(&folder)?;
    let (idle_from, begin) = (nodes.mesh_ns()?, clock::now());
    std::thread::sleep(Duration::from_secs(SECONDS));
    let idle_ns_per_s = (nodes.mesh_ns()? - idle_from) as f64 / begin.elapsed().as_secs_f64();
    let (before, begin) = (nodes.mesh_ns()?, clock::now());
    let (report, late) = nodes.load(rate, &folder)?;
    let mesh_ns = (nodes.mesh_ns()? - before) as f64 - idle_ns_per_s * begin.elapsed().as_secs_f64();
    drop(nodes);
    let step = report["steps"].as_array().and_then(|steps| steps.last()).context("the report has no step")?;
    let figure = |place: &str| step.pointer(place).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let workers =
        step["generator"]["cores"].as_array().map_or(0.0, |cores| cores.iter().filter_map(Value::as_f64).sum());
    let figures = [
        figure("/latency/local/p50_ms"),
        figure("/latency/local/p99_ms"),
        figure("/latency/remote/p50_ms"),
        figure("/latency/remote/p99_ms"),
        figure("/server/cpu_seconds_per_million"),
        mesh_ns.max(0.0) / 1000.0 / figure("/accepted").max(1.0),
        figure("/lost"),
        figure("/orders"),
        others.cores(workers * figure("/seconds"))?,
    ];
    // Each node has one end of a link to each other.
    let ends = (NODES * (NODES - 1)) as f64;
    Ok(Turn { rate, figures, idle: idle_ns_per_s / 1000.0 / ends, late })
}

/// Three nodes that are a cluster.
struct Nodes {
    servers: Vec<Server>,
    admins: Vec<u16>,
}

impl Nodes {
    fn start(folder: &Path) -> Result<Nodes> {
        let key = folder.join("cluster.key");
        run::check(run::command("sh").args(["-c", "umask 077; head -c 32 /dev/urandom | base64 > \"$0\""]).arg(&key))?;
        let ports = (0..NODES).map(|_| Ok([free_port()?, free_port()?, free_port()?])).collect::<Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for (number, [client, admin, mesh]) in ports.iter().enumerate() {
            let mut command = run::command(run::target().join("release/starling"));
            command.args(["--node", &format!("bench-{number}"), "--cluster-key-file"]).arg(&key);
            command.arg("--data-dir").arg(folder.join(format!("data-{number}")));
            for (flag, port) in [("--listen", client), ("--admin-listen", admin), ("--mesh-listen", mesh)] {
                command.args([flag, &format!("127.0.0.1:{port}")]);
            }
            for [_, _, other] in ports.iter().filter(|[_, _, other]| other != mesh) {
                command.args(["--seed", &format!("127.0.0.1:{other}")]);
            }
            servers.push(Server::start(command.env("STARLING_LOG__FILTER", "warn"), *client)?);
        }
        let nodes = Nodes { servers, admins: ports.iter().map(|[_, admin, _]| *admin).collect() };
        nodes.wait()?;
        Ok(nodes)
    }

    /// Until each of them sees all of them, well.
    fn wait(&self) -> Result<()> {
        let begin = clock::now();
        while !self.admins.iter().all(|admin| is_whole(*admin)) {
            if begin.elapsed() > FORM_LIMIT {
                bail!("three nodes are no healthy cluster after {} s", FORM_LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Runs the generator against all of them; its report, and whether it was late itself.
    fn load(&self, rate: u32, folder: &Path) -> Result<(Value, bool)> {
        let report = folder.join("report.json");
        let mut load = run::command(run::target().join("release/loadtest"));
        load.args(["run", "broadcast", "--members", MEMBERS, "--publishers", "3", "--payload", "128", "--procs", "1"]);
        load.args(["--rate", &rate.to_string(), "--duration", &format!("{SECONDS}s"), "--json"]).arg(&report);
        for server in &self.servers {
            load.args(["--target", &format!("http://{}", server.address()), "--server-pid", &server.pid()]);
        }
        let code = load.status().context("cannot start loadtest")?.code();
        if !matches!(code, Some(0 | EXIT_INVALID | EXIT_EXPECTATION)) {
            bail!("loadtest ended with {code:?}");
        }
        let report = serde_json::from_slice(&std::fs::read(&report)?).context("cannot read the generator's report")?;
        Ok((report, code == Some(EXIT_INVALID)))
    }

    /// Nanoseconds of processor time that all threads called `mesh` have used.
    fn mesh_ns(&self) -> Result<u64> {
        self.servers.iter().map(|server| thread_ns(&server.pid(), "mesh")).sum()
    }
}

fn is_whole(admin: u16) -> bool {
    let mut status = run::command(run::target().join("release/starling"));
    status.args(["status", "--json", "--admin", &format!("http://127.0.0.1:{admin}")]);
    let Ok(output) = status.output() else { return false };
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let members = report["cluster"]["members"].as_array().map_or(0, Vec::len);
    output.status.success() && members == NODES
}

fn thread_ns(pid: &str, name: &str) -> Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == name {
            let text = std::fs::read_to_string(task.join("schedstat"))?;
            let first = text.split_whitespace().next().context("/proc/…/schedstat is empty")?;
            sum += first.parse::<u64>().context("/proc/…/schedstat holds no number")?;
        }
    }
    Ok(sum)
}

fn page(turns: &[Turn], rounds: u32) -> Result<String> {
    let mut page = String::from("# Benchmarks of a cluster\n\n");
    writeln!(
        page,
        "Written by `cargo xtask bench --cluster --rounds {rounds}` on {}, at commit {}, on {}. Three nodes and the generator \
         share the machine; one room of {MEMBERS} members spread over the nodes, three publishers, 128 B, {SECONDS} s. Local: \
         publisher and member on the same node; remote: not. Medians, with the smallest and the largest in brackets. † marks \
         a load in which the generator itself was late: the servers may be better than that.\n",
        run::output(run::command("date").args(["-u", "+%Y-%m-%d"]))?.trim(),
        run::commit()?,
        run::machine()?,
    )?;
    writeln!(page, "| messages/s | {} |\n|---|{}", NAMES.join(" | "), "---|".repeat(NAMES.len()))?;
    for rate in RATES {
        let of: Vec<&Turn> = turns.iter().filter(|turn| turn.rate == rate).collect();
        let cell = |index: usize| spread(of.iter().map(|turn| turn.figures[index]).collect());
        let cells: Vec<String> = (0..NAMES.len()).map(cell).collect();
        let late = if of.iter().any(|turn| turn.late) { " †" } else { "" };
        writeln!(page, "| {rate}{late} | {} |", cells.join(" | "))?;
    }
    let idle = spread(turns.iter().map(|turn| turn.idle).collect());
    writeln!(
        page,
        "\nOne end of an idle link (gossip, keep-alive, rosters) costs {idle} µs of processor time a second.\n"
    )?;
    writeln!(
        page,
        "What the design measured of others with the same load on the same kind of machine (p50 and p99 over all members):\n\n\
         | peer | 10/s p50 ms | p99 ms | CPU-s per M | 100/s p50 ms | p99 ms |\n|---|---|---|---|---|---|\n{PEERS}"
    )?;
    Ok(page.trim_end().to_owned() + "\n")
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(least), Some(middle), Some(most)) => format!("{middle:.2} ({least:.2}–{most:.2})"),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_stands_before_its_spread() {
        assert_eq!(spread(vec![3.0, 1.0, 2.5]), "2.50 (1.00–3.00)");
        assert_eq!(spread(Vec::new()), "–");
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let begin = clock::now();
        let worker = std::thread::Builder::new().name("xtask-burns".to_owned());
        let worker = worker.spawn(move || {
            while begin.elapsed() < Duration::from_millis(50) {}
            thread_ns("self", "xtask-burns").unwrap()
        });
        assert!(worker.unwrap().join().unwrap() > 1_000_000);
        assert_eq!(thread_ns("self", "no-such-thread").unwrap(), 0);
    }
}
