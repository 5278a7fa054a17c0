//! The real program on free loopback ports, with a data directory that is thrown away.
//!
//! Invariants: its standard error goes to a file, so that it never blocks on a pipe and a failure can show it; the process
//! is ended whatever happens to the test.

use std::{
    ffi::OsStr,
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    row::{Outcome, unexpected},
    wire,
};

/// How long a connection may live without a namespace, here: short enough to be waited for.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
const START_ATTEMPTS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// A running `starling`.
pub(crate) struct Node {
    pub(crate) clients: SocketAddr,
    pub(crate) admin: SocketAddr,
    child: Mutex<Child>,
    dir: TempDir,
}

impl Node {
    /// Starts it with these environment variables and waits until it is ready.
    pub(crate) fn start_with(settings: &[(&str, &str)]) -> Node {
        Node::start(program(), None, settings)
    }

    /// The same with a configuration file: what it does not say is as strict as in production.
    pub(crate) fn start_with_file(file: &str, settings: &[(&str, &str)]) -> Node {
        Node::start(program(), Some(file), settings)
    }

    /// As `start_with`, of a program with a node embedded, one of `node/examples`.
    pub(crate) fn start_example(name: &str, settings: &[(&str, &str)]) -> Node {
        let starling = program();
        let path = Path::new(starling.get_program()).with_file_name("examples").join(name);
        assert!(path.is_file(), "{} is built by `cargo build -p node --examples`", path.display());
        Node::start(without_settings(path), None, settings)
    }

    /// As `start_with`, with so few descriptors.
    pub(crate) fn start_short_of_descriptors(descriptors: u32, settings: &[(&str, &str)]) -> Node {
        let mut shell = Command::new("sh");
        let program = program();
        shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]).arg(program.get_program());
        for (name, _) in program.get_envs() {
            shell.env_remove(name);
        }
        Node::start(shell, None, settings)
    }

    fn start(mut command: Command, file: Option<&str>, settings: &[(&str, &str)]) -> Node {
        let dir = tempfile::tempdir().unwrap();
        if let Some(file) = file {
            fs::write(dir.path().join("starling.toml"), file).unwrap();
            command.args(["--config", "starling.toml"]);
        }
        let (clients, admin) = (free_address(), free_address());
        command
            .args(["--listen", &clients.to_string(), "--admin-listen", &admin.to_string(), "--data-dir"])
            .arg(dir.path().join("data"))
            .env("STARLING_SOCKETIO__CONNECT_TIMEOUT", format!("{}s", CONNECT_TIMEOUT.as_secs()))
            .envs(settings.iter().copied())
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr")).unwrap());
        let node = Node { clients, admin, child: Mutex::new(command.spawn().unwrap()), dir };
        for _ in 0..START_ATTEMPTS {
            node.check_process().expect("the node ended while it started");
            let ready = wire::exchange(admin, b"GET /readyz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            if ready.is_some_and(|answer| answer.status == 200) {
                return node;
            }
            thread::sleep(PAUSE);
        }
        panic!("the node did not become ready:\n{}", node.stderr());
    }

    /// Whether it is alive and says so.
    pub(crate) fn check(&self) -> Outcome {
        self.check_process()?;
        let live = wire::exchange(self.admin, b"GET /livez HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        match live {
            Some(answer) if answer.status == 200 => Ok(()),
            other => unexpected("/livez 200", other),
        }
    }

    /// Asks it to stop, and looks for traces of a panic.
    pub(crate) fn stop(&self) -> Outcome {
        let asked = kill_process(Pid::from_child(&self.child.lock().unwrap()), Signal::TERM);
        assert_eq!(asked, Ok(()), "SIGTERM could not be sent");
        for _ in 0..START_ATTEMPTS {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            if let Some(status) = ended {
                let stderr = self.stderr();
                return match (status.code(), stderr.contains("panicked")) {
                    (Some(0), false) => Ok(()),
                    seen => unexpected("a clean exit without a panic", (seen, stderr)),
                };
            }
            thread::sleep(PAUSE);
        }
        Err("it did not stop within 30 s of SIGTERM".to_owned())
    }

    /// What its descriptors are, one a line.
    pub(crate) fn open_files(&self) -> String {
        let of = format!("/proc/{}/fd", self.child.lock().unwrap().id());
        let names = fs::read_dir(of).unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        names.map(|name| format!("{}\n", name.display())).collect()
    }

    fn check_process(&self) -> Outcome {
        let ended = self.child.lock().unwrap().try_wait().unwrap();
        match ended {
            None => Ok(()),
            Some(status) => Err(format!("the process ended with {status}:\n{}", self.stderr())),
        }
    }

    fn stderr(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        let tail = text.len().saturating_sub(4000);
        text.get(tail..).unwrap_or(&text).to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The program under test, without the settings of whoever runs the test.
pub(crate) fn program() -> Command {
    without_settings(env!("CARGO_BIN_EXE_starling"))
}

fn without_settings(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STARLING_")) {
        command.env_remove(name);
    }
    command
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
