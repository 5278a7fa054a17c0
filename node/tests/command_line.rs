//! The real program, called as an operator calls it: what it prints where, and how it exits (interface.md 3).
//!
//! Invariants: no test needs a free port or a running node; the environment of the test run is kept out.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that called them")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

fn starling(dir: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STARLING_"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    ours.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.args(arguments).envs(environment.iter().copied()).current_dir(dir).output().unwrap()
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let dir = tempfile::tempdir().unwrap();
    parts(&starling(dir.path(), arguments, &[]))
}

fn parts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_version_and_the_help_are_answers() {
    let (code, out, err) = run(&["version"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "starling 0.1.0\n", ""));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in [
        "serve",
        "dev",
        "config",
        "status",
        "doctor",
        "history",
        "completions",
        "version",
        "--listen",
        "--cluster-key-file",
    ] {
        assert!(out.contains(command), "{command}");
    }
}

#[test]
fn a_wrong_call_is_a_usage_error() {
    for arguments in [&["--bogus"][..], &["nonsense"], &["dev", "--nodes", "0"], &["status", "--admin", "nowhere"]] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(!err.is_empty());
    }
}

#[test]
fn each_mistake_of_a_configuration_is_one_line_on_standard_error_and_the_code_is_78() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.toml"), "[socketio]\nping_intervall = \"25s\"\nping_timeout = 3\n").unwrap();
    for command in [&["config", "check"][..], &["config", "show"], &["serve"], &[]] {
        let arguments = [command, &["--config", "s.toml", "--listen", "0.0.0.0:3000"]].concat();
        let (code, out, err) = parts(&starling(dir.path(), &arguments, &[]));
        assert_eq!((code, out.as_str()), (78, ""), "{command:?}");
        let lines: Vec<_> = err.lines().collect();
        assert_eq!(lines.len(), 4, "{err}");
        assert!(lines[0].starts_with("error[C014]: unknown key \"socketio.ping_intervall\" at s.toml:2:1"), "{err}");
        assert!(lines[1].starts_with("error[C012]:") && lines[1].contains(" at s.toml:3:1"), "{err}");
        assert!(lines[2].starts_with("error[C020]:") && lines[2].contains("set auth.anonymous = true"), "{err}");
        assert!(lines[3].starts_with("error[C021]: no [[namespace]] is written"), "{err}");
    }
}

#[test]
fn a_missing_or_unreadable_file_is_a_bad_configuration() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("binary"), [0xff, 0xfe, 0x00]).unwrap();
    for file in ["gone.toml", "binary", "."] {
        let (code, _, err) = parts(&starling(dir.path(), &["config", "check", "--config", file], &[]));
        assert_eq!(code, 78, "{file}");
        assert!(err.starts_with(&format!("error[C010]: cannot read {file}: ")) && err.lines().count() == 1, "{err}");
    }
}

#[test]
fn show_says_where_each_value_came_from() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.toml"), "[limits]\nconnections = 5\nnamespaces = 3\n[[namespace]]\nname = \"/\"\n")
        .unwrap();
    let arguments = ["config", "show", "--origin", "--config", "s.toml", "--node", "gw-3"];
    let environment = [("STARLING_LIMITS__CONNECTIONS", "9"), ("STARLING_PORT", "tcp://10.0.0.1:3000")];
    let (code, out, err) = parts(&starling(dir.path(), &arguments, &environment));
    assert_eq!((code, err.as_str()), (0, ""));
    let line =
        |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(line("connections"), ["connections", "=", "9", "#", "environment", "STARLING_LIMITS__CONNECTIONS"]);
    assert_eq!(line("namespaces"), ["namespaces", "=", "3", "#", "s.toml:3:1"]);
    assert_eq!(line("node"), ["node", "=", "\"gw-3\"", "#", "flag", "--node"]);
    assert_eq!(line("path"), ["path", "=", "\"/socket.io/\"", "#", "default"]);
}

#[test]
fn init_writes_a_file_that_is_good_and_never_overwrites_one() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(parts(&starling(dir.path(), &["config", "init", "new.toml"], &[])).0, 0);
    assert_eq!(parts(&starling(dir.path(), &["config", "check", "--config", "new.toml"], &[])).0, 0);
    fs::write(dir.path().join("new.toml"), "precious").unwrap();
    let (code, _, err) = parts(&starling(dir.path(), &["config", "init", "new.toml"], &[]));
    assert_eq!(code, 1);
    assert!(err.contains("cannot create new.toml"), "{err}");
    assert_eq!(fs::read_to_string(dir.path().join("new.toml")).unwrap(), "precious");
}

#[test]
fn env_prints_variables_that_the_program_itself_accepts() {
    let (code, out, _) = run(&["config", "env"]);
    assert_eq!(code, 0);
    let variables: Vec<_> = out.lines().filter_map(|line| line.strip_prefix("STARLING_")?.split_once('=')).collect();
    assert!(variables.len() > 30);
    let named: Vec<_> = variables.iter().map(|(name, value)| (format!("STARLING_{name}"), *value)).collect();
    let environment: Vec<_> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = parts(&starling(dir.path(), &["config", "check"], &environment));
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn what_is_told_to_people_is_told_to_programs_too() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.toml"), "[socketio]\nping_intervall = \"25s\"\n[[namespace]]\nname = \"/\"\n")
        .unwrap();
    let json = |arguments: &[&str]| {
        let (code, out, err) = parts(&starling(dir.path(), arguments, &[]));
        assert_eq!(err, "", "{arguments:?}");
        (code, serde_json::from_str::<serde_json::Value>(&out).unwrap())
    };
    let (code, checked) = json(&["config", "check", "--json", "--config", "s.toml"]);
    let problem = serde_json::json!({
        "severity": "error", "code": "C014", "at": "s.toml:2:1",
        "message": "unknown key \"socketio.ping_intervall\"", "hint": "did you mean \"ping_interval\"?",
    });
    assert_eq!((code, checked), (78, serde_json::json!({ "good": false, "problems": [problem] })));
    let good = serde_json::json!({ "good": true, "problems": [] });
    assert_eq!(json(&["config", "check", "--json"]), (0, good));
    let (code, shown) = json(&["config", "show", "--json", "--node", "gw-3"]);
    assert_eq!((code, &shown["cluster.node"]), (0, &serde_json::json!({ "value": "gw-3", "origin": "flag --node" })));
    assert_eq!(shown["limits.namespaces"], serde_json::json!({ "value": 8, "origin": "default" }));
    assert_eq!(shown["socketio.transports"]["value"], serde_json::json!(["polling", "websocket"]));
    let (code, variables) = json(&["config", "env", "--json"]);
    let listen = variables.as_array().unwrap().iter().find(|row| row["key"] == "server.listen").unwrap();
    assert_eq!((code, &listen["variable"]), (0, &serde_json::json!("STARLING_SERVER__LISTEN")));
    assert_eq!(json(&["version", "--json"]).1["version"], "0.1.0");
}

#[test]
fn a_secret_that_everybody_can_read_is_said_and_shown_by_its_path_only() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "0123456789abcdef0123456789abcdef";
    fs::write(dir.path().join("key"), secret).unwrap();
    fs::set_permissions(dir.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let flags = ["--cluster-key-file", "key"];
    let (code, out, err) = parts(&starling(dir.path(), &[&["config", "check"][..], &flags].concat(), &[]));
    assert_eq!((code, out.as_str()), (0, "the configuration is good\n"));
    assert!(err.starts_with("warning[C030]: \"cluster.key_file\":") && err.lines().count() == 1, "{err}");
    for command in [&["config", "show"][..], &["config", "show", "--origin"], &["config", "show", "--json"]] {
        let (code, out, err) = parts(&starling(dir.path(), &[command, &flags].concat(), &[]));
        assert_eq!(code, 0, "{err}");
        assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
    }
}

#[test]
fn whichever_way_a_public_address_is_given_it_demands_that_somebody_said_who_may_do_what() {
    for address in ["0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0", "192.0.2.1:0"] {
        let dir = tempfile::tempdir().unwrap();
        let file = |rest: &str| fs::write(dir.path().join("s.toml"), rest).unwrap();
        let codes = |arguments: &[&str], environment: &[(&str, &str)]| {
            let (code, out, err) = parts(&starling(dir.path(), arguments, environment));
            assert_eq!((code, out.as_str()), (78, ""), "{address} {arguments:?} {environment:?}: {err}");
            err.lines().map(|line| line[6..10].to_owned()).collect::<Vec<_>>()
        };
        let variable = ("STARLING_SERVER__LISTEN", address);
        for command in [&[][..], &["serve"], &["config", "check"]] {
            assert_eq!(codes(command, &[variable]), ["C020", "C021"]);
            assert_eq!(codes(command, &[variable, ("STARLING_AUTH__ANONYMOUS", "true")]), ["C021"]);
        }
        assert_eq!(codes(&["serve", "--listen", address], &[]), ["C020", "C021"]);
        file(&format!("server.listen = \"{address}\"\n"));
        assert_eq!(codes(&["--config", "s.toml"], &[]), ["C020", "C021"]);
        file(&format!("server.listen = \"{address}\"\n[[namespace]]\nname = \"/\"\n"));
        assert_eq!(codes(&["--config", "s.toml"], &[]), ["C020"]);
    }
}

#[test]
fn dev_stays_on_loopback_whatever_the_environment_says() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("STARLING_SERVER__LISTEN", "0.0.0.0:0"), ("STARLING_STORE__KIND", "nonsense")];
    let (code, _, err) = parts(&starling(dir.path(), &["dev", "--nodes", "1", "--port", "39500"], &environment));
    // The flag won over the variable: what is wrong is the store alone.
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("error[C012]: \"store.kind\"") && !err.contains("public"), "{err}");
}

#[test]
fn every_shell_gets_its_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, out, err) = run(&["completions", shell]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("doctor") && out.contains("cluster-key-file"), "{shell}");
    }
    assert_eq!(run(&["completions", "tcsh"]).0, 2);
}

#[test]
fn the_doctor_answers_by_its_exit_code_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for (address, expected, state) in [("127.0.0.1:0", 0, "ok"), (&*taken, 1, "fail")] {
        let arguments = ["doctor", "--listen", address, "--admin-listen", "127.0.0.1:0"];
        let (code, out, err) = parts(&starling(dir.path(), &arguments, &[]));
        assert_eq!((code, err.as_str()), (expected, ""), "{out}");
        let line = out.lines().find(|line| line.contains("client port")).unwrap();
        assert!(line.starts_with(state) && line.contains(address), "{out}");
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}

#[test]
fn history_of_a_directory_without_a_store_is_an_error_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in.jsonl"), "{}\n").unwrap();
    for (arguments, says) in [
        (&["history", "export"][..], "error: there is no store in ./starling-data\n"),
        (&["history", "export", "out.jsonl", "--data-dir", "gone"], "error: there is no store in gone\n"),
        (
            &["history", "import", "gone.jsonl"],
            "error: cannot read gone.jsonl: No such file or directory (os error 2)\n",
        ),
        (&["history", "import", "in.jsonl"], "error: in.jsonl, line 1 is none of header, slot, message and end\n"),
    ] {
        assert_eq!(parts(&starling(dir.path(), arguments, &[])), (1, String::new(), says.to_owned()), "{arguments:?}");
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["in.jsonl"]);
    }
}

/// An admin port that gives these answers, one per connection, and returns what it was asked.
fn admin(answers: &'static [&'static str]) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        answers
            .iter()
            .map(|answer| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned()
            })
            .collect()
    });
    (url, asked)
}

const READY: &str = "HTTP/1.0 200 OK\r\n\r\n{}";
const NOT_READY: &str = "HTTP/1.0 503 Service Unavailable\r\n\r\n{}";
const FORBIDDEN: &str = "HTTP/1.0 403 Forbidden\r\n\r\n{\"code\":\"forbidden\",\"message\":\"no\"}";
const CLUSTER: &str = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"members\":[{\"node\":\"gw-0\",\
                       \"ordinal\":0,\"generation\":1,\"state\":\"alive\",\"connections\":3,\"slots\":4096}],\"links\":[],\
                       \"view\":1,\"single_copy_slots\":4096,\"safe_to_lose_one\":false,\"partial\":false,\"silent\":[]}";

#[test]
fn status_exits_by_what_the_node_answers() {
    let cases: [(&'static [&'static str], i32); 5] = [
        (&[READY, CLUSTER], 0),
        (&[NOT_READY, CLUSTER], 4),
        (&[READY, FORBIDDEN], 1),
        (&[READY, "HTTP/1.0 200 OK\r\n\r\nhello"], 1),
        (&["SSH-2.0-OpenSSH\r\n"], 3),
    ];
    for (answers, expected) in cases {
        let (url, asked) = admin(answers);
        let (code, out, err) = run(&["status", "--admin", &url]);
        assert_eq!(code, expected, "{answers:?}: {out}{err}");
        assert_eq!(asked.join().unwrap().len(), answers.len());
    }
    assert_eq!(run(&["status", "--admin", "http://127.0.0.1:1"]).0, 3);
}

#[test]
fn status_as_json_carries_the_verdict_and_the_cluster() {
    let (url, asked) = admin(&[NOT_READY, CLUSTER]);
    let (code, out, _) = run(&["status", "--json", "--admin", &url]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["healthy"]), (4, &serde_json::json!(false)));
    assert_eq!(answer["complaints"][0], "the asked node is not ready");
    assert_eq!(answer["cluster"]["members"][0]["slots"], 4096);
    assert_eq!(asked.join().unwrap(), ["GET /readyz HTTP/1.0", "GET /api/cluster HTTP/1.0"]);
}

#[test]
fn dev_reports_each_node_that_cannot_start_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let environment = [("STARLING_SERVER__LISTN", "x")];
    let (code, out, err) = parts(&starling(dir.path(), &["dev", "--nodes", "2", "--port", "39000"], &environment));
    assert_eq!(code, 1, "{out}{err}");
    for node in ["node-0", "node-1"] {
        assert!(err.contains(&format!("{node} | error[C014]: unknown key \"server.listn\"")), "{err}");
        assert!(err.contains(&format!("{node} ended: exit status: 78")), "{err}");
    }
    assert!(dir.path().join("starling-data/dev/cluster.key").is_file());
}
