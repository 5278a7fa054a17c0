//! TLS on the client port: the real program, clients that check certificates.
//!
//! Invariants checked: nothing but TLS gets in, and is told so; a certificate changes under open connections and none of them
//! notices; one that cannot serve changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may panic, and names only what it expects"
)]

mod support;

use std::{
    fs,
    io::Read,
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, crypto::ring, version,
};
use rustls_pki_types::{CertificateDer, ServerName};
use support::{
    metric,
    node::Node,
    rejected, until,
    wire::{Connection, Frame, WebSocket, exchange, get, socket},
};
use tempfile::TempDir;

/// Clients that are there while the certificate changes.
const CLIENTS: usize = 50;
const POLLING: &str = "EIO=4&transport=polling";

/// A folder as Kubernetes mounts a secret: the files are links into a folder that is swapped as a whole.
struct Secret {
    dir: TempDir,
    versions: u32,
}

impl Secret {
    fn new() -> (Secret, CertificateDer<'static>) {
        let dir = tempfile::tempdir().unwrap();
        let mut secret = Secret { dir, versions: 0 };
        let cert = secret.renew();
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), secret.dir.path().join(name)).unwrap();
        }
        (secret, cert)
    }

    /// Another certificate and its key.
    fn renew(&mut self) -> CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        self.swap(&made.cert.pem(), &made.signing_key.serialize_pem());
        made.cert.der().clone()
    }

    fn swap(&mut self, cert: &str, key: &str) {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        let folder = self.dir.path().join(&version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), cert).unwrap();
        fs::write(folder.join("tls.key"), key).unwrap();
        symlink(&version, self.dir.path().join("..new")).unwrap();
        fs::rename(self.dir.path().join("..new"), self.dir.path().join("..data")).unwrap();
    }

    fn start(&self) -> Node {
        let file = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        Node::start_with(&[
            ("STARLING_SERVER__TLS__CERT", &file("tls.crt")),
            ("STARLING_SERVER__TLS__KEY", &file("tls.key")),
        ])
    }
}

/// A connection that trusts this certificate and no other; nothing if the handshake fails.
fn dial(
    node: &Node,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tcp = socket(node.clients).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut tcp).ok()?;
    }
    Some(StreamOwned::new(client, tcp))
}

fn open(node: &Node, trusted: &CertificateDer<'static>) -> Connection {
    Connection::over(dial(node, trusted, rustls::ALL_VERSIONS).expect("a TLS connection"))
}

#[test]
fn polling_and_websockets_go_through_tls_of_both_versions() {
    let (secret, cert) = Secret::new();
    let node = secret.start();
    for version in [&version::TLS12, &version::TLS13] {
        let stream = dial(&node, &cert, &[version]).expect("a handshake");
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        let mut connection = Connection::over(stream);
        connection.send(&get(POLLING));
        assert_eq!(connection.answer().unwrap().status, 200);
        let stream = dial(&node, &cert, &[version]).expect("a handshake");
        let mut socket = WebSocket::connected_over(Connection::over(stream));
        socket.text(r#"420["room:join",{"room":"r"}]"#);
        let Frame::Text(ack) = socket.packet() else { panic!("no ack") };
        assert!(ack.starts_with("430[{\"ok\":true"), "{ack}");
    }
    node.stop().unwrap();
}

#[test]
fn who_speaks_no_tls_is_told_what_to_do_and_who_is_slow_is_not_waited_for() {
    let (secret, cert) = Secret::new();
    let node = secret.start();
    let answer = exchange(node.clients, &get(POLLING)).expect("an answer in plain text");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{}", answer.body);
    until("its count", || rejected(&node, "tls") == 1.0);

    let mut slow = socket(node.clients).unwrap();
    std::io::Write::write_all(&mut slow, &[22, 3, 1]).unwrap();
    // The read's own patience is longer than the node's.
    assert_eq!(slow.read(&mut [0; 16]).expect("half a handshake is waited for"), 0);
    until("its count", || rejected(&node, "tls") == 2.0);
    open(&node, &cert);
    node.stop().unwrap();
}

#[test]
fn a_certificate_changes_under_fifty_clients_and_one_that_cannot_serve_changes_nothing() {
    let (mut secret, old) = Secret::new();
    let node = secret.start();
    let mut clients: Vec<WebSocket> = (0..CLIENTS).map(|_| WebSocket::connected_over(open(&node, &old))).collect();
    for client in &mut clients {
        client.text(r#"420["room:join",{"room":"r"}]"#);
        assert!(matches!(client.packet(), Frame::Text(ack) if ack.contains("\"ok\":true")));
    }
    let expiry = metric(&node, "starling_tls_certificate_expiry_seconds");
    assert!(expiry > 1.7e9, "{expiry}");

    let new = secret.renew();
    until("the new certificate", || reloads(&node, "replaced") == 1.0);
    assert!(dial(&node, &old, rustls::ALL_VERSIONS).is_none(), "the old certificate is still shown");
    let mut publisher = WebSocket::connected_over(open(&node, &new));

    secret.swap("no certificate", "no key");
    until("a refusal", || reloads(&node, "refused") == 1.0);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let kept = fs::read_to_string(secret.dir.path().join("v2/tls.crt")).unwrap();
    secret.swap(&kept, &other.signing_key.serialize_pem());
    until("a refusal of a key of another certificate", || reloads(&node, "refused") == 2.0);
    open(&node, &new);

    publisher.text(r#"421["room:publish",{"room":"r","event":"e","args":[1]}]"#);
    assert!(matches!(publisher.packet(), Frame::Text(ack) if ack.contains("\"ok\":true")));
    for client in &mut clients {
        assert_eq!(client.packet(), Frame::Text(r#"42["e",1]"#.to_owned()));
    }
    assert_eq!(metric(&node, r#"starling_connections_closed_total{reason="transport_error"}"#), 0.0);
    node.stop().unwrap();
}

fn reloads(node: &Node, result: &str) -> f64 {
    metric(node, &format!("starling_tls_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn a_laggard_behind_tls_misses_nothing() {
    let (secret, cert) = Secret::new();
    let node = secret.start();
    let mut laggard = WebSocket::connected_over(open(&node, &cert));
    laggard.text(r#"420["room:join",{"room":"r"}]"#);
    assert!(matches!(laggard.packet(), Frame::Text(ack) if ack.contains("\"ok\":true")));
    let mut publisher = WebSocket::connected_over(open(&node, &cert));
    let filler = "x".repeat(100_000);
    let mut n = 0;
    // Until the kernel takes no more; the socket's own limit is far from reached.
    while metric(&node, "starling_lagging_members") == 0.0 {
        publisher.text(&format!(r#"421["room:publish",{{"room":"r","event":"e","args":[{n},"{filler}"]}}]"#));
        assert!(matches!(publisher.packet(), Frame::Text(ack) if ack.contains("\"ok\":true")));
        n += 1;
        assert!(n < 300, "nobody lags");
    }
    for expected in 0..n {
        let Frame::Text(event) = laggard.packet() else { panic!("cut off before {expected}") };
        assert!(event.starts_with(&format!(r#"42["e",{expected},"#)), "{}", &event[..30]);
    }
    until("an end of the lag", || metric(&node, "starling_lagging_members") == 0.0);
    node.stop().unwrap();
}

#[test]
fn files_that_cannot_serve_end_the_start_with_78_and_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        // Others must not read keys: the node would say so, on a line of its own.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let (cert, key) = (write("cert", &made.cert.pem()), write("key", &made.signing_key.serialize_pem()));
    let (wrong, empty) = (write("other", &other.signing_key.serialize_pem()), write("empty", ""));
    let start = |cert: &Path, key: &Path| {
        let mut command = support::node::program();
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]).current_dir(dir.path());
        command.env("STARLING_SERVER__TLS__CERT", cert).env("STARLING_SERVER__TLS__KEY", key);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (cert, key, what) in [
        (&empty, &key, "holds no certificate"),
        (&cert, &empty, "holds no private key"),
        (&cert, &wrong, "does not serve with"),
        (&key, &key, "holds no certificate"),
    ] {
        let (code, text) = start(cert, key);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains("error[C023]") && text.contains(what) && text.lines().count() == 1, "{what}: {text}");
    }
}
