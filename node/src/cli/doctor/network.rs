//! Ports of this node, and the nodes it is to join.
//!
//! Invariants: a port is tried the way the node takes it; a seed is asked something that every QUIC server answers to
//! everybody and that changes nothing there.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::super::http;
use super::Finding;
use crate::clock;
use crate::config::Config;
use crate::tls::Pair;

/// How long a seed may take to answer.
const SEED_PATIENCE: Duration = Duration::from_secs(1);

/// Whether a node runs here already, on the admin port of this configuration.
pub(super) fn is_running(config: &Config) -> bool {
    let address = config.server.admin_listen;
    let ip = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip };
    http::get(&format!("http://{host}:{}", address.port()), "/livez").is_ok_and(|answer| answer.status == 200)
}

/// Whether the node can have its ports.
pub(super) fn ports(config: &Config, running: bool) -> Vec<Finding> {
    let tcp = |address: SocketAddr| TcpListener::bind(address).map(drop);
    let udp = |address: SocketAddr| UdpSocket::bind(address).map(drop);
    let (server, mesh) = (&config.server, config.cluster.mesh_listen);
    let mut findings = vec![
        port("client port", server.listen, tcp(server.listen), running),
        port("admin port", server.admin_listen, tcp(server.admin_listen), running),
    ];
    if config.is_clustered() {
        findings.push(port("mesh port", mesh, udp(mesh), running));
    }
    findings
}

fn port(about: &'static str, address: SocketAddr, bound: std::io::Result<()>, running: bool) -> Finding {
    let Err(error) = bound else { return Finding::ok(about, format!("{address} is free")) };
    let kind = error.kind();
    if kind == ErrorKind::AddrInUse && running {
        Finding::ok(about, format!("{address} is held by the node that runs here"))
    } else if kind == ErrorKind::AddrInUse {
        let who = format!("see who has it with ss -lntup 'sport = :{}', or set another port", address.port());
        Finding::fail(about, format!("{address} is taken by another process"), who)
    } else if kind == ErrorKind::AddrNotAvailable {
        let found = format!("{address} is not an address of this machine");
        Finding::fail(about, found, "set one that ip addr lists, or 0.0.0.0 for all")
    } else if kind == ErrorKind::PermissionDenied {
        let found = format!("{address} may not be taken by this user");
        Finding::fail(about, found, "set a port from 1024 on, or give the binary CAP_NET_BIND_SERVICE")
    } else {
        Finding::fail(about, format!("{address} cannot be taken: {error}"), "set another address")
    }
}

/// How long the certificate of the client port still serves. That it can be read was checked with the configuration.
pub(super) fn certificate(config: &Config) -> Option<Finding> {
    let (cert, key) = (config.server.tls.cert.as_ref()?, config.server.tls.key.as_ref()?);
    let pair = Pair::read(cert, key).ok()?;
    Some(expiry(&cert.display().to_string(), pair.expires, clock::wall_ms() / 1000))
}

fn expiry(cert: &str, expires: i64, now: u64) -> Finding {
    const ABOUT: &str = "certificate";
    const DAY: i64 = 24 * 3600;
    let days = (expires - i64::try_from(now).unwrap_or(i64::MAX)).div_euclid(DAY);
    let to_do = format!("renew it; a node that runs takes over the changed file by itself: {cert}");
    match days {
        ..0 => Finding::fail(ABOUT, format!("{cert} has expired: clients refuse it"), to_do),
        0..14 => Finding::warn(ABOUT, format!("{cert} expires in {days} days"), to_do),
        14.. => Finding::ok(ABOUT, format!("{cert} serves for {days} days more")),
    }
}

/// Whether the nodes to join can be found and answer.
pub(super) fn seeds(config: &Config) -> Vec<Finding> {
    let seeds = if config.is_clustered() { &config.cluster.seeds[..] } else { &[] };
    seeds.iter().map(|name| seed(name)).collect()
}

fn seed(name: &str) -> Finding {
    const ABOUT: &str = "seed";
    let addresses: Vec<SocketAddr> = match name.to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let found = format!("{name} cannot be resolved: {error}");
            return Finding::fail(
                ABOUT,
                found,
                "correct cluster.seeds, or the DNS of this machine (getent hosts NAME)",
            );
        }
    };
    let mut reasons = Vec::new();
    for address in &addresses {
        let asked = clock::now();
        match ask(*address) {
            Ok(()) => {
                let ms = asked.elapsed().as_millis();
                return Finding::ok(ABOUT, format!("{name} answers from {address} in {ms} ms"));
            }
            Err(reason) => reasons.push(format!("{address} {reason}")),
        }
    }
    let found = format!("{name} does not answer: {}", reasons.join(", "));
    Finding::warn(ABOUT, found, "if it should run: starling status there; then UDP from here to that port in firewalls")
}

/// A long packet of a version that nobody speaks: every QUIC server says which it does (RFC 9000, 6.1).
fn ask(address: SocketAddr) -> Result<(), String> {
    const OURS: [u8; 8] = *b"starling";
    const DATAGRAM_BYTES: usize = 1200;
    let mut question = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8];
    question.extend(OURS);
    question.push(8);
    question.extend(OURS);
    question.resize(DATAGRAM_BYTES, 0);
    let mut answer = [0; DATAGRAM_BYTES];
    let received = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).and_then(|socket| {
        socket.connect(address)?;
        socket.set_read_timeout(Some(SEED_PATIENCE))?;
        socket.send(&question)?;
        socket.recv(&mut answer)
    });
    match received {
        Ok(bytes) if bytes >= 7 && answer[0] & 0x80 != 0 && answer[1..5] == [0; 4] => Ok(()),
        Ok(_) => Err("speaks something else than QUIC".to_owned()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err("refuses: nobody listens there".to_owned()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err("is silent".to_owned())
        }
        Err(error) => Err(format!("cannot be reached: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn each_reason_why_a_port_cannot_be_had_has_its_own_advice() {
        let address: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let find = |kind: ErrorKind, running| port("client port", address, Err(kind.into()), running);
        assert_eq!(find(ErrorKind::AddrInUse, true).state, State::Ok);
        let advice = [ErrorKind::AddrInUse, ErrorKind::AddrNotAvailable, ErrorKind::PermissionDenied, ErrorKind::Other]
            .map(|kind| find(kind, false).to_do);
        for (at, to_do) in advice.iter().enumerate() {
            assert!(!to_do.is_empty() && !advice[..at].contains(to_do), "{to_do}");
        }
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_it_ends() {
        let now = 1_800_000_000;
        let state = |days: i64| expiry("c", 1_800_000_000 + days * 24 * 3600, now).state;
        assert_eq!([-1, 0, 13, 14].map(state), [State::Fail, State::Warn, State::Warn, State::Ok]);
    }

    #[test]
    fn a_seed_that_speaks_something_else_is_told_from_one_that_is_silent_or_gone() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            let (bytes, from) = server.recv_from(&mut buffer).unwrap();
            server.send_to(b"hello", from).unwrap();
            bytes
        });
        assert_eq!(ask(address).unwrap_err(), "speaks something else than QUIC");
        assert_eq!(echo.join().unwrap(), 1200);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(ask(silent.local_addr().unwrap()).unwrap_err(), "is silent");
        assert_eq!(ask(address).unwrap_err(), "refuses: nobody listens there");
    }
}
