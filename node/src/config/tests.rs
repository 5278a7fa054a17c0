//! Tests of the configuration: one table of refusals, then precedence, origins, defaults, and the texts made from keys.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn facts() -> Facts {
    Facts { host_name: "starling-7".to_owned(), cores: 2 }
}

fn sources(text: Option<&str>) -> Sources {
    let file = text.map(|text| File { name: "s.toml".to_owned(), text: Ok(text.to_owned()) });
    Sources { file, environment: Vec::new(), flags: Vec::new(), facts: facts() }
}

/// Loads a file; one that is not about namespaces is given the least that a file needs.
fn from_file(text: &str) -> Result<Loaded, Vec<String>> {
    let text =
        if text.contains("namespace]") { text.to_owned() } else { format!("{text}\n[[namespace]]\nname = \"/\"\n") };
    load(&sources(Some(&text))).map_err(|problems| lines(&problems))
}

fn from_environment(name: &str, value: &str) -> Result<Loaded, Vec<String>> {
    let mut sources = sources(None);
    sources.environment.push((name.to_owned(), value.to_owned()));
    load(&sources).map_err(|problems| lines(&problems))
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Files that hold exactly one mistake, and the one line that is said about it.
const REFUSED: &[(&str, &str)] = &[
    (
        "[socketio]\nping_intervall = \"25s\"",
        r#"error[C014]: unknown key "socketio.ping_intervall" at s.toml:2:1 (did you mean "ping_interval"?)"#,
    ),
    ("[sokcetio]\npath = \"/x/\"", r#"error[C014]: unknown key "sokcetio" at s.toml:1:2 (did you mean "socketio"?)"#),
    ("zzz = 1", r#"error[C014]: unknown key "zzz" at s.toml:1:1"#),
    (
        "ping_timeout = \"1s\"",
        r#"error[C014]: unknown key "ping_timeout" at s.toml:1:1 (did you mean "socketio.ping_timeout"?)"#,
    ),
    (
        "[server]\ntls = {cert = \"a\"}",
        r#"error[C023]: "server.tls.cert" needs "server.tls.key" at s.toml:2:8 (set both, or none to serve without TLS)"#,
    ),
    (
        "[server]\ntls = {key = \"a\"}",
        r#"error[C023]: "server.tls.key" needs "server.tls.cert" at s.toml:2:8 (set both, or none to serve without TLS)"#,
    ),
    (
        "[server]\ntls = {cert = \"/gone\", key = \"/gone\"}",
        r#"error[C023]: "server.tls": cannot read /gone: No such file or directory (os error 2) at s.toml:2:8 (give a PEM chain and the key it was made with)"#,
    ),
    (
        "[server]\ntrusted_proxies = [\"10.0.0.0/33\"]",
        r#"error[C012]: "server.trusted_proxies" needs a list of networks such as ["10.0.0.0/8", "192.0.2.7"], found ["10.0.0.0/33"] at s.toml:2:1"#,
    ),
    (
        "[store]\nhistory = {siz = 3}",
        r#"error[C014]: unknown key "store.history.siz" at s.toml:2:12 (did you mean "size"?)"#,
    ),
    ("server = 3", r#"error[C012]: "server" is a section, found the number 3 at s.toml:1:1 (write [server])"#),
    ("[server]\nlisten = \"x\ny\"", "error[C011]: not TOML: invalid basic string, expected `\"` at s.toml:2:12"),
    ("[server\nlisten = 1", "error[C011]: not TOML: unclosed table, expected `]` at s.toml:1:8"),
    ("[log]\nfilter = \"a\"\nfilter = \"b\"", "error[C011]: not TOML: duplicate key at s.toml:3:1"),
    (
        "[server]\nlisten = 3000",
        r#"error[C012]: "server.listen" needs an IP address and a port such as "127.0.0.1:3000", found the number 3000 at s.toml:2:1"#,
    ),
    (
        "[server]\nlisten = \"localhost:3000\"",
        r#"error[C012]: "server.listen" needs an IP address and a port such as "127.0.0.1:3000", found "localhost:3000" at s.toml:2:1"#,
    ),
    (
        "[socketio]\nping_interval = 25",
        r#"error[C012]: "socketio.ping_interval" needs a duration with a unit such as "25s", found the number 25 at s.toml:2:1"#,
    ),
    (
        "[socketio]\nping_interval = \"25\"",
        r#"error[C012]: "socketio.ping_interval" needs a duration with a unit such as "25s", found "25" at s.toml:2:1"#,
    ),
    (
        "[socketio]\nmax_payload = 65536",
        r#"error[C012]: "socketio.max_payload" needs a size with a unit such as "64KiB", found the number 65536 at s.toml:2:1"#,
    ),
    (
        "[limits]\nqueue_bytes = \"-1KiB\"",
        r#"error[C012]: "limits.queue_bytes" needs a size with a unit such as "64KiB", found "-1KiB" at s.toml:2:1"#,
    ),
    ("[server]\ndemo = \"yes\"", r#"error[C012]: "server.demo" needs true or false, found "yes" at s.toml:2:1"#),
    (
        "[limits]\nconnections = -1",
        r#"error[C012]: "limits.connections" needs a whole number, found the number -1 at s.toml:2:1"#,
    ),
    (
        "[limits]\nconnections = 1.5",
        r#"error[C012]: "limits.connections" needs a whole number, found a fraction at s.toml:2:1"#,
    ),
    (
        "[cluster]\nordinal = 70000",
        r#"error[C012]: "cluster.ordinal" needs a whole number from 0 to 65535, found the number 70000 at s.toml:2:1"#,
    ),
    (
        "[store]\nkind = \"disk\"",
        r#"error[C012]: "store.kind" needs one of "sled", "memory", found "disk" at s.toml:2:1"#,
    ),
    (
        "[socketio]\ntransports = [\"polling\", \"webtransport\"]",
        r#"error[C012]: "socketio.transports" needs a list of "polling" and "websocket", at least one, found ["polling", "webtransport"] at s.toml:2:1"#,
    ),
    (
        "[socketio]\ntransports = []",
        r#"error[C012]: "socketio.transports" needs a list of "polling" and "websocket", at least one, found [] at s.toml:2:1"#,
    ),
    (
        "[server]\nallowed_origins = [\"example.com\"]",
        r#"error[C012]: "server.allowed_origins" needs a list of origins such as ["https://chat.example.com"], or ["*"], found ["example.com"] at s.toml:2:1"#,
    ),
    (
        "[cluster]\nseeds = [1]",
        r#"error[C012]: "cluster.seeds" needs a list of texts such as ["a", "b"], found a list with other things than text at s.toml:2:1"#,
    ),
    (
        "[socketio]\npath = \"socket.io\"",
        r#"error[C012]: "socketio.path" must begin and end with a slash, found "socket.io" at s.toml:2:1 (for example "/socket.io/")"#,
    ),
    (
        "[socketio]\nbuiltin_prefix = \"\"",
        r#"error[C012]: "socketio.builtin_prefix" needs 1 to 32 bytes of text, found "" at s.toml:2:1 (for example "room:")"#,
    ),
    (
        "[cluster]\nnode = \"a b\"",
        r#"error[C012]: "cluster.node" needs 1 to 63 letters, digits, dots and hyphens, found "a b" at s.toml:2:1"#,
    ),
    (
        "[log]\nfilter = \"a=b=c\"",
        r#"error[C012]: "log.filter" needs a level or directives, found "a=b=c" at s.toml:2:1 (for example "info,mesh=debug")"#,
    ),
    (
        "[socketio]\nping_timeout = \"1ms\"",
        r#"error[C013]: "socketio.ping_timeout" must lie between "50ms" and "1h", found "1ms" at s.toml:2:1"#,
    ),
    ("[server]\nshards = 65", r#"error[C013]: "server.shards" must lie between 1 and 64, found 65 at s.toml:2:1"#),
    (
        "[socketio]\nmax_payload = \"1GiB\"",
        r#"error[C013]: "socketio.max_payload" must lie between "1KiB" and "1536KiB", found "1GiB" at s.toml:2:1"#,
    ),
    (
        "[server]\nlisten = \"0.0.0.0:3000\"",
        r#"error[C020]: "server.listen" = "0.0.0.0:3000" is public and would let everybody in at s.toml:2:1 (set auth.anonymous = true to allow that, or listen on 127.0.0.1)"#,
    ),
    (
        "[auth]\nanonymous = false",
        r#"error[C021]: "auth.anonymous" = false would let nobody in: this version has no other way to connect at s.toml:2:1 (remove it, and listen on loopback)"#,
    ),
    (
        "[server]\ndemo = true\n[socketio]\nserve_client = false",
        r#"error[C021]: "server.demo" = true needs "socketio.serve_client" = true: the page loads the bundle at s.toml:2:1"#,
    ),
    (
        "[server]\nadmin_listen = \"0.0.0.0:3000\"",
        r#"error[C021]: "server.admin_listen" and "server.listen" are both port 3000 at s.toml:2:1"#,
    ),
    (
        "[cluster]\nseeds = [\"other:3002\"]",
        r#"error[C022]: "cluster.seeds" needs "cluster.key_file": nodes know each other by it at s.toml:2:1 (set it to a file with the same 32 random bytes on every node)"#,
    ),
    (
        "[cluster]\nadvertise = \"0.0.0.0:3002\"",
        r#"error[C022]: "cluster.advertise" = "0.0.0.0:3002" is not an address that others can dial at s.toml:2:1"#,
    ),
    (
        "[cluster]\nkey_file = \"does/not/exist\"",
        r#"error[C022]: "cluster.key_file": cannot read does/not/exist: No such file or directory (os error 2) at s.toml:2:1 (make one: head -c 32 /dev/urandom | base64)"#,
    ),
];

/// As [`REFUSED`], about namespaces: each stands below `[[namespace]]` and `name = "/"`.
const REFUSED_NAMESPACES: &[(&str, &str)] = &[
    (
        "allow_jion = \"anonymous\"",
        r#"error[C014]: unknown key "namespace[0].allow_jion" at s.toml:3:1 (did you mean "allow_join"?)"#,
    ),
    ("recovery = true", r#"error[C014]: unknown key "namespace[0].recovery" at s.toml:3:1"#),
    (
        "allow_join = \"everybody\"",
        r#"error[C012]: "namespace[0].allow_join" needs one of "nobody", "anonymous", "authenticated", "member", found "everybody" at s.toml:3:1"#,
    ),
    (
        "allow_join = \"member\"",
        r#"error[C021]: "allow_join" = "member" would let nobody in: joining is how one becomes a member at s.toml:3:1 (use "anonymous" or "authenticated")"#,
    ),
    (
        "allow_broadcast = \"member\"",
        r#"error[C021]: "allow_broadcast" = "member" means nothing: a broadcast has no room to be a member of at s.toml:3:1 (use "anonymous" or "authenticated")"#,
    ),
    (
        "class = \"fast\"",
        r#"error[C012]: "namespace[0].class" needs one of "ordered", "ephemeral", found "fast" at s.toml:3:1"#,
    ),
    (
        "class = \"ephemeral\"\nhistory = {size = 3}",
        r#"error[C021]: "history.size" has no effect: "class" = "ephemeral" keeps no history at s.toml:4:12 (remove one)"#,
    ),
    (
        "class = \"ephemeral\"\nallow_history = \"member\"",
        r#"error[C021]: "allow_history" has no effect: "class" = "ephemeral" keeps no history at s.toml:4:1 (remove one)"#,
    ),
    (
        "presence = false\nrooms = [{pattern = \"a\", allow_presence = \"member\"}]",
        r#"error[C021]: "allow_presence" has no effect: "presence" = false is written at s.toml:4:26 (remove one)"#,
    ),
    (
        "history.size = 200000",
        r#"error[C013]: "namespace[0].history.size" must lie between 0 and 100000, found 200000 at s.toml:3:9"#,
    ),
    (
        "history.ttl = \"1ms\"",
        r#"error[C013]: "namespace[0].history.ttl" must lie between "1s" and "30days", found "1ms" at s.toml:3:9"#,
    ),
    (
        "history = 7",
        r#"error[C012]: "namespace[0].history" is a section, found the number 7 at s.toml:3:1 (write [namespace[0].history])"#,
    ),
    (
        "relay = \"rooms\"",
        r#"error[C012]: "namespace[0].relay" needs one of "off", "sender_rooms", found "rooms" at s.toml:3:1"#,
    ),
    (
        "[[namespace]]\nname = \"chat\"",
        r#"error[C012]: the name of a namespace needs a slash and up to 256 bytes without `,` and `?`, found "chat" at s.toml:4:1 (for example "/" or "/chat")"#,
    ),
    (
        "[[namespace]]\nallow_join = \"anonymous\"",
        r#"error[C012]: the name of a namespace needs a slash and up to 256 bytes without `,` and `?`, found "" at s.toml:3:1 (for example "/" or "/chat")"#,
    ),
    (
        "[[namespace]]\nname = \"/\"",
        r#"error[C021]: namespace "/" is written twice at s.toml:4:1 (put its rules for rooms into one [[namespace]])"#,
    ),
    (
        "rooms = [{pattern = \"a*\"}, {pattern = \"a*\"}]",
        r#"error[C021]: pattern "a*" is written twice in one namespace at s.toml:3:29"#,
    ),
    (
        "[[namespace.rooms]]\npattern = \"{name}\"",
        r#"error[C012]: a pattern of rooms knows no other placeholder than {user}, found "{name}" at s.toml:4:1 (for example "inbox:{user}")"#,
    ),
    (
        "[[namespace.rooms]]\nallow_join = \"anonymous\"",
        r#"error[C012]: a pattern of rooms needs 1 to 256 bytes of text, found "" at s.toml:3:1 (for example "chat:*")"#,
    ),
    (
        "[[namespace.rooms]]\npattern = \"a\"\nallow_broadcast = \"anonymous\"",
        r#"error[C014]: unknown key "namespace[0].rooms[0].allow_broadcast" at s.toml:5:1"#,
    ),
    (
        "[[namespace.rooms]]\npattern = \"a\"\nallow_join = \"member\"",
        r#"error[C021]: "allow_join" = "member" would let nobody in: joining is how one becomes a member at s.toml:5:1 (use "anonymous" or "authenticated")"#,
    ),
    (
        "rooms = [\"a\"]",
        r#"error[C012]: "namespace[0].rooms" is a table that repeats, found ["a"] at s.toml:3:1 (write [[namespace[0].rooms]])"#,
    ),
];

#[test]
fn each_mistake_about_namespaces_is_one_line_with_its_place() {
    for (text, expected) in REFUSED_NAMESPACES {
        assert_eq!(
            from_file(&format!("[[namespace]]\nname = \"/\"\n{text}")).expect_err(text),
            [*expected],
            "\n{text}\n"
        );
    }
    let single =
        r#"error[C012]: "namespace" is a table that repeats, found a table at s.toml:1:2 (write [[namespace]])"#;
    assert_eq!(from_file("[namespace]\nname = \"/\"").unwrap_err(), [single]);
    let variable = from_environment("STARLING_NAMESPACE__NAME", "/").unwrap_err();
    let expected = r#"error[C014]: unknown key "namespace.name" at environment STARLING_NAMESPACE__NAME ([[namespace]] is written in the file only)"#;
    assert_eq!(variable, [expected]);
}

#[test]
fn outside_development_a_namespace_must_be_written() {
    let expected = "error[C021]: no [[namespace]] is written, so that no client could connect (write one in a file, \
                    starling config init shows how; without a file, listen on loopback)";
    assert_eq!(lines(&load(&sources(Some(""))).unwrap_err()), [expected]);
    let empty = r#"error[C012]: "namespace" is a table that repeats, found [] at s.toml:1:1 (write [[namespace]])"#;
    assert_eq!(lines(&load(&sources(Some("namespace = []"))).unwrap_err()), [empty]);
    let mut public = sources(None);
    for (name, value) in [("STARLING_SERVER__LISTEN", "0.0.0.0:3000"), ("STARLING_AUTH__ANONYMOUS", "true")] {
        public.environment.push((name.to_owned(), value.to_owned()));
    }
    assert_eq!(lines(&load(&public).unwrap_err()), [expected]);
    assert!(load(&sources(None)).unwrap().config.namespaces.is_empty());
}

#[test]
fn a_namespace_allows_nothing_that_is_not_written() {
    let config = from_file("[[namespace]]\nname = \"/\"").unwrap().config;
    assert_eq!(config.namespaces, [Namespace { name: "/".to_owned(), ..Namespace::default() }]);
    let Namespace { allow_join, allow_publish, allow_history, allow_presence, allow_broadcast, .. } =
        config.namespaces[0];
    let all = [allow_join, allow_publish, allow_history, allow_presence, allow_broadcast];
    assert_eq!(all, [Who::Nobody; 5]);
}

const TWO_NAMESPACES: &str = "[[namespace]]\nname = \"/\"\nallow_join = \"anonymous\"\nrelay = \"sender_rooms\"\n\
    history = {size = 50}\n[[namespace.rooms]]\npattern = \"inbox:{user}\"\nallow_publish = \"authenticated\"\n\
    history.ttl = \"1h\"\n[[namespace]]\nname = \"/games\"\nclass = \"ephemeral\"\npresence = false\n\
    rooms = [{pattern = \"a\"}, {pattern = \"b*\", allow_join = \"authenticated\"}]\n";

#[test]
fn namespaces_and_their_rooms_are_read_with_their_places() {
    let loaded = from_file(TWO_NAMESPACES).unwrap();
    let [first, second] = &loaded.config.namespaces[..] else { panic!("two namespaces") };
    assert_eq!((first.allow_join, first.relay, first.presence), (Who::Anonymous, Relay::SenderRooms, true));
    let store = &loaded.config.store.history;
    assert_eq!(first.history.within(store), History { size: 50, ttl: store.ttl });
    let inbox = &first.rooms[0];
    assert_eq!((inbox.allow_join, inbox.allow_publish), (None, Some(Who::Authenticated)));
    let kept = inbox.history.within(&first.history.within(store));
    assert_eq!(kept, History { size: 50, ttl: Duration::from_secs(3600) });
    assert_eq!((second.class, second.presence, second.rooms.len()), (Class::Ephemeral, false, 2));
    assert_eq!(loaded.origins["namespace[0].rooms[0].history.ttl"].to_string(), "s.toml:9:9");
    assert_eq!(loaded.origins["namespace[1].rooms[1].allow_join"].to_string(), "s.toml:14:44");
    assert_eq!(loaded.origins["namespace[1]"].to_string(), "s.toml:10:1");
    assert_eq!(loaded.origins.get("namespace[1].allow_join"), None);
}

#[test]
fn each_mistake_in_a_file_is_one_line_with_its_place() {
    for (text, expected) in REFUSED {
        assert_eq!(from_file(text).expect_err(text), [*expected], "\n{text}\n");
    }
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "[socketio]\nping_timeout = 3\nfoo = 1\n[server]\nlisten = \"[::]:80\"\nshards = 0\n";
    let codes: Vec<_> = load(&sources(Some(text))).unwrap_err().iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, ["C012", "C014", "C013", "C020", "C021"]);
}

#[test]
fn mistakes_in_the_environment_and_in_flags_name_the_variable_and_the_flag() {
    assert_eq!(
        from_environment("STARLING_SERVER__LISTN", "x").unwrap_err(),
        [r#"error[C014]: unknown key "server.listn" at environment STARLING_SERVER__LISTN (did you mean "listen"?)"#]
    );
    let mut sources = sources(None);
    sources.flags.push(Flag { name: "--shards", path: "server.shards", raw: Raw::Word("many".to_owned()) });
    let expected = r#"error[C012]: "server.shards" needs a whole number, found "many" at flag --shards"#;
    assert_eq!(lines(&load(&sources).unwrap_err()), [expected]);
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let mut sources = sources(None);
    sources.file = Some(File { name: "gone.toml".to_owned(), text: Err("no such file".to_owned()) });
    let expected = "error[C010]: cannot read gone.toml: no such file";
    assert_eq!(lines(&load(&sources).unwrap_err()), [expected]);
}

#[test]
fn a_problem_stays_on_one_line_whatever_the_input_holds() {
    let problems = from_file("\"a\\nerror[C000]: forged\" = 1").unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].contains('\n'), "{problems:?}");
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let text =
        "[server]\nlisten = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\n[cluster]\nmesh_listen = \"127.0.0.1:3\"";
    let mut sources = sources(Some(&format!("{text}\n[[namespace]]\nname = \"/\"")));
    for name in ["STARLING_SERVER__LISTEN", "STARLING_SERVER__ADMIN_LISTEN"] {
        sources.environment.push((name.to_owned(), "127.0.0.1:20".to_owned()));
    }
    sources.flags.push(Flag { name: "--listen", path: "server.listen", raw: Raw::Word("127.0.0.1:30".to_owned()) });
    let loaded = load(&sources).unwrap();
    let port = |address: SocketAddr| address.port();
    assert_eq!(port(loaded.config.server.listen), 30);
    assert_eq!(port(loaded.config.server.admin_listen), 20);
    assert_eq!(port(loaded.config.cluster.mesh_listen), 3);
    assert_eq!(loaded.origins["server.listen"].to_string(), "flag --listen");
    assert_eq!(loaded.origins["server.admin_listen"].to_string(), "environment STARLING_SERVER__ADMIN_LISTEN");
    assert_eq!(loaded.origins["cluster.mesh_listen"].to_string(), "s.toml:5:1");
    assert_eq!(loaded.origins.get("store.dir"), None);
}

#[test]
fn only_variables_with_two_underscores_are_configuration_and_empty_ones_are_not_set() {
    for (name, value) in [("STARLING_PORT", "tcp://10.0.0.1"), ("STARLING_SERVER__LISTEN", ""), ("OTHER__THING", "1")] {
        assert_eq!(from_environment(name, value).unwrap().config, load(&sources(None)).unwrap().config, "{name}");
    }
}

#[test]
fn the_environment_reaches_nested_keys_and_lists() {
    assert_eq!(from_environment("STARLING_STORE__HISTORY__TTL", "90s").unwrap().config.store.history.ttl.as_secs(), 90);
    let websocket = from_environment("STARLING_SOCKETIO__TRANSPORTS", "websocket").unwrap().config.socketio.transports;
    assert_eq!(websocket, Transports { polling: false, websocket: true });
    let origins = from_environment("STARLING_SERVER__ALLOWED_ORIGINS", "https://a.example, http://b:81").unwrap();
    assert_eq!(origins.config.server.allowed_origins.exact.len(), 2);
}

#[test]
fn without_a_file_a_node_serves_loopback_and_invites_to_try() {
    let config = load(&sources(None)).unwrap().config;
    assert!(config.development && config.server.demo && config.server.allowed_origins.any && config.auth.anonymous);
    for address in [config.server.listen, config.server.admin_listen, config.cluster.mesh_listen] {
        assert!(address.ip().is_loopback(), "{address}");
    }
    assert_eq!(config.drain.window, Duration::from_secs(1));
    assert!(!config.is_clustered());
}

#[test]
fn a_file_or_a_public_address_ends_development() {
    let file = from_file("").unwrap().config;
    assert!(!file.development && !file.server.demo && !file.server.allowed_origins.any);
    let mut sources = sources(Some("[[namespace]]\nname = \"/\""));
    for (name, value) in [("STARLING_SERVER__LISTEN", "0.0.0.0:3000"), ("STARLING_AUTH__ANONYMOUS", "true")] {
        sources.environment.push((name.to_owned(), value.to_owned()));
    }
    let public = load(&sources).unwrap().config;
    assert!(!public.development && !public.server.demo && !public.server.allowed_origins.any);
    assert_eq!(public.drain.window, Duration::from_secs(60));
}

#[test]
fn the_ordinal_is_the_number_at_the_end_of_the_name_unless_given() {
    let ordinal = |text: &str| from_file(text).unwrap().config.cluster.ordinal;
    assert_eq!(ordinal(""), 7);
    assert_eq!(ordinal("[cluster]\nnode = \"gw-12\""), 12);
    assert_eq!(ordinal("[cluster]\nnode = \"gw\""), 0);
    assert_eq!(ordinal("[cluster]\nnode = \"gw-99999\""), 0);
    assert_eq!(ordinal("[cluster]\nnode = \"gw-1\"\nordinal = 4"), 4);
}

fn key_file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_cluster_needs_a_key_numbers_and_seeds_that_can_be_reached() {
    let key = key_file(b"0123456789abcdef0123456789abcdef");
    let with = |rest: &str| from_file(&format!("[cluster]\nkey_file = \"{}\"\n{rest}", key.path().display()));
    assert!(with("").unwrap().config.is_clustered());
    assert!(with("seeds = [\"localhost:3012\", \"[::1]:3012\"]").is_ok());
    let codes = |rest: &str| with(rest).unwrap_err().iter().map(|line| line[..11].to_owned()).collect::<Vec<_>>();
    assert_eq!(codes("node = \"gw\"\nseeds = [\"a:1\"]"), ["error[C022]"]);
    assert_eq!(codes("seeds = [\"10.0.0.1:3002\"]"), ["error[C022]"]);
    assert_eq!(codes("seeds = [\"a\", \"a:0\", \":1\", \"a b:1\", \"a:x\"]"), ["error[C012]"; 5]);
    assert!(with("node = \"gw\"\nordinal = 0\nseeds = [\"a:1\"]").is_ok());
}

#[test]
fn a_key_is_what_is_left_between_white_space_and_long_enough() {
    let read = |bytes: &[u8]| read_key_file(key_file(bytes).path());
    assert_eq!(read(b"  0123456789abcdef0123456789abcdef\r\n").unwrap(), b"0123456789abcdef0123456789abcdef");
    assert!(read(b"0123456789abcdef0123456789abcde\n\n\n\n").unwrap_err().contains("holds 31 bytes"));
    assert!(read(&[b'k'; 70_000]).unwrap_err().contains("too long"));
    assert!(read(&[b'k'; 64]).unwrap_err().contains("1 different bytes"));
    assert!(read(b"changemechangemechangemechangeme").unwrap_err().contains("7 different bytes"));
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning() {
    let key = key_file(b"0123456789abcdef0123456789abcdef");
    let load = || from_file(&format!("[cluster]\nkey_file = \"{}\"", key.path().display())).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 0), (0o604, 1), (0o644, 1)] {
        fs::set_permissions(key.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(load().warnings.len(), warnings, "{mode:o}");
    }
    let expected = format!(
        "warning[C030]: \"cluster.key_file\": every user of this machine can read {} at s.toml:2:1 (chmod o-rwx)",
        key.path().display()
    );
    assert_eq!(load().warnings[0].to_string(), expected);
}

#[test]
fn no_key_holds_a_secret_itself() {
    for key in
        KEYS.iter().filter(|key| ["key", "secret", "token", "password"].iter().any(|word| key.path.contains(word)))
    {
        assert!(key.path.ends_with("_file") || key.path == "server.tls.key" || key.repeats, "{}", key.path);
    }
}

#[test]
fn origins_are_compared_exactly() {
    let origins =
        from_file("[server]\nallowed_origins = [\"https://Chat.example.com\"]").unwrap().config.server.allowed_origins;
    assert!(origins.contains("https://chat.example.com"));
    for foreign in
        ["http://chat.example.com", "https://chat.example.com.evil", "https://chat.example.com:444", "null", "http://"]
    {
        assert!(!origins.contains(foreign), "{foreign}");
    }
    assert!(Origins::any().contains("null"));
}

#[test]
fn what_show_prints_is_a_file_with_the_same_meaning() {
    let text =
        "[server]\nlisten = \"[::1]:9\"\nallowed_origins = [\"*\", \"https://a\"]\n[store]\nhistory.ttl = \"1h 30m\"";
    let loaded = from_file(text).unwrap();
    for loaded in [&loaded, &from_file(TWO_NAMESPACES).unwrap()] {
        for origin in [false, true] {
            assert_eq!(from_file(&show(loaded, origin)).unwrap().config, loaded.config);
        }
    }
    let shown = show(&loaded, true);
    assert!(shown.lines().any(|line| line.starts_with("listen = ") && line.ends_with("  # s.toml:2:1")), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with("max_bytes = ") && line.ends_with("  # default")), "{shown}");
}

#[test]
fn the_example_file_is_current_and_every_line_of_it_is_the_default() {
    let example_file = include_str!("../../starling.toml");
    assert_eq!(example_file, example(), "write it again: starling config init > node/starling.toml");
    assert_eq!(load(&sources(Some(example_file))).unwrap().config, from_file("").unwrap().config);
    let active: String = example_file
        .lines()
        .filter(|line| !line.starts_with("# "))
        .fold(String::new(), |text, line| text + line.strip_prefix('#').unwrap_or(line) + "\n");
    let loaded = from_file(&active).unwrap();
    let shown = show(&loaded, true);
    assert!(!shown.lines().any(|line| line.ends_with("# default")), "{shown}");
    let mut expected = from_file("").unwrap().config;
    (expected.cluster.node, expected.cluster.ordinal) = ("starling-0".to_owned(), 0);
    expected.namespaces[0].rooms = vec![RoomRule { pattern: "user:{user}:*".to_owned(), ..RoomRule::default() }];
    assert_eq!(loaded.config, expected);
}

#[test]
fn every_key_is_documented_unique_and_reachable_by_its_variable() {
    let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), KEYS.len());
    for key in KEYS.iter().filter(|key| !key.repeats) {
        assert!(key.doc.len() > 10 && environment().contains(&format!("\n{}=", key.variable())), "{}", key.path);
    }
    let mut sources = sources(Some("[[namespace]]\nname = \"/\""));
    let assignments = environment();
    let pairs = assignments.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    sources.environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let config = load(&sources).unwrap().config;
    assert_eq!(config.socketio, from_file("").unwrap().config.socketio);
    assert_eq!(config.limits, from_file("").unwrap().config.limits);
}

proptest! {
    #[test]
    fn no_file_ends_the_process(text in "(\\[|\\]|=|\"|\n|[a-z_.]{0,9}|server|listen|history|[0-9{},#']){0,40}") {
        let _ = load(&sources(Some(&text)));
    }

    #[test]
    fn no_variable_ends_the_process(key in 0..KEYS.len(), value in "\\PC{0,24}") {
        let _ = from_environment(&KEYS[key].variable(), &value);
    }

    #[test]
    fn sizes_and_durations_survive_being_shown(size in 0u64..1 << 50, millis in 1u64..1 << 40) {
        use super::value::Setting;
        let unquote = |literal: String| Raw::Text(literal.trim_matches('"').to_owned());
        prop_assert_eq!(Size::read(&unquote(Size(size).literal())), Ok(Size(size)));
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(Duration::read(&unquote(duration.literal())), Ok(duration));
    }
}
