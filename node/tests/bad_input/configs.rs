//! Configurations that are wrong or unsafe: exit code 78, one line on standard error for each mistake, nothing started.

use std::fs;

use crate::node::program;

/// A file, flags, a variable, and what the lines must say.
pub(crate) struct Mistake {
    file: &'static str,
    flags: &'static [&'static str],
    variable: Option<(&'static str, &'static str)>,
    lines: &'static [&'static [&'static str]],
}

impl Mistake {
    const fn file(file: &'static str, lines: &'static [&'static [&'static str]]) -> Mistake {
        Mistake { file, flags: &[], variable: None, lines }
    }

    const fn flags(flags: &'static [&'static str], lines: &'static [&'static [&'static str]]) -> Mistake {
        Mistake { file: "", flags, variable: None, lines }
    }

    const fn variable(name: &'static str, value: &'static str, lines: &'static [&'static [&'static str]]) -> Mistake {
        Mistake { file: "", flags: &[], variable: Some((name, value)), lines }
    }

    /// Runs `starling` with it; a file that is not about namespaces is given the least that a file needs.
    pub(crate) fn try_out(&self) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut command = program();
        command.current_dir(dir.path()).args(self.flags).envs(self.variable);
        if !self.file.is_empty() {
            fs::write(dir.path().join("s.toml"), format!("{}\n[[namespace]]\nname = \"/\"\n", self.file)).unwrap();
            command.args(["--config", "s.toml"]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let said = lines.len() == self.lines.len()
            && self.lines.iter().zip(&lines).all(|(words, line)| words.iter().all(|word| line.contains(word)));
        let started_nothing = fs::read_dir(dir.path()).unwrap().all(|entry| entry.unwrap().file_name() == "s.toml");
        if said && output.status.code() == Some(78) && output.stdout.is_empty() && started_nothing {
            return Ok(());
        }
        let asked = format!("{:?} {:?} {:?}", self.file, self.flags, self.variable);
        Err(format!("{asked}: wanted {:?}, saw {:?} and\n{text}", self.lines, output.status.code()))
    }
}

pub(crate) fn mistakes() -> Vec<Mistake> {
    vec![
        Mistake::file("[socketio]\nping_intervall = \"25s\"", &[&["ping_intervall", "s.toml:2", "ping_interval\""]]),
        Mistake::file("[sever]\nlisten = \"127.0.0.1:1\"", &[&["sever", "s.toml:1", "server"]]),
        Mistake::file(
            "[socketio]\nping_interval = \"25 parsecs\"",
            &[&["socketio.ping_interval", "s.toml:2", "25 parsecs"]],
        ),
        Mistake::file("[socketio]\nping_interval = 25", &[&["socketio.ping_interval", "s.toml:2"]]),
        Mistake::file("[socketio]\nping_timeout = \"-1s\"", &[&["socketio.ping_timeout", "s.toml:2"]]),
        Mistake::file("[socketio]\nmax_payload = \"12 bananas\"", &[&["socketio.max_payload", "s.toml:2"]]),
        Mistake::file("[socketio]\ntransports = [\"pigeon\"]", &[&["socketio.transports", "pigeon"]]),
        Mistake::file("[socketio\nping_interval = 1", &[&["s.toml:1"]]),
        Mistake::file("[socketio]\nping_interval = \"25s\"\nping_interval = \"26s\"", &[&["s.toml:3"]]),
        Mistake::file("[store]\nkind = \"mysql\"", &[&["store.kind", "s.toml:2", "mysql"]]),
        Mistake::file("[store]\nhistory = { size = -5 }", &[&["store.history.size", "s.toml:2"]]),
        Mistake::file("[server]\nlisten = \"nowhere\"", &[&["server.listen", "s.toml:2", "nowhere"]]),
        Mistake::file("[server]\nlisten = \"127.0.0.1:70000\"", &[&["server.listen", "s.toml:2"]]),
        Mistake::file("[server]\nlisten = \"0.0.0.0:3000\"", &[&["0.0.0.0:3000", "auth.anonymous"]]),
        Mistake::file(
            "[store]\nkind = \"mysql\"\n[socketio]\nping_intervall = \"1s\"\n[server]\nlisten = \"nowhere\"",
            &[&["store.kind"], &["ping_intervall"], &["server.listen"]],
        ),
        Mistake::flags(&["--listen", "0.0.0.0:3000"], &[&["0.0.0.0:3000", "auth.anonymous"], &["[[namespace]]"]]),
        Mistake::flags(&["--config", "gone.toml"], &[&["gone.toml"]]),
        Mistake::flags(&["--node", "a-0", "--seed", "127.0.0.1:3002"], &[&["cluster.key_file"]]),
        Mistake::flags(&["--cluster-key-file", "gone.key"], &[&["gone.key"]]),
        Mistake::variable("STARLING_SERVER__LISTN", "127.0.0.1:1", &[&["STARLING_SERVER__LISTN", "listen"]]),
        Mistake::variable("STARLING_SOCKETIO__PING_TIMEOUT", "soon", &[&["STARLING_SOCKETIO__PING_TIMEOUT", "soon"]]),
    ]
}
