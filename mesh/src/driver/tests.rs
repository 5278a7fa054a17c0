//! A peer that holds the cluster key and misbehaves: what it sends closes its connection and nothing else.
//!
//! Invariants: each case speaks QUIC by hand against a real driver on the same runtime.

use bytes::BytesMut;
use quinn::{Connection, ConnectionError, Endpoint, SendStream};

use super::*;
use crate::{
    ClusterKey, Event, NodeId, Timings,
    close::CloseCode,
    wire::{
        control::Hello,
        header::{Kind, frame, put_header},
    },
};

struct Silent;

impl Handler for Silent {
    fn handle(&self, _event: Event) {}

    fn ready(&self, _lane: u8) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

fn config(node: u16) -> Config {
    let key = ClusterKey::from_bytes(b"a cluster key for tests, 32 bytes or more").unwrap();
    let timings = Timings { dial_timeout: Duration::from_millis(300), ..Timings::default() };
    Config { timings, ..Config::new(NodeId(node), "test", 1, key, "127.0.0.1:0".parse().unwrap()) }
}

fn identity(node: u16) -> Identity {
    let addr = "127.0.0.1:1".parse().unwrap();
    Identity { node: NodeId(node), generation: 1, edition: 0, draining: false, addr, name: "evil".into() }
}

/// Node 5, running, and a connection to it from an endpoint with the certificate of node 9.
struct Case {
    mesh: Mesh,
    connection: Connection,
    _endpoint: Endpoint,
    stop: CancellationToken,
}

impl Case {
    async fn new() -> Case {
        let driver = bind(config(5)).unwrap();
        let (mesh, stop) = (driver.handle(), CancellationToken::new());
        TaskTracker::new().spawn(driver.run(Silent, stop.clone()));
        let endpoint = endpoint::bind(&config(9)).unwrap().gate.endpoint().clone();
        let connection = endpoint.connect(mesh.address(), "5.starling").unwrap().await.unwrap();
        Case { mesh, connection, _endpoint: endpoint, stop }
    }

    /// Greets as `node` and returns our control stream.
    async fn greet(&self, node: u16) -> SendStream {
        let hello = Hello::new(identity(node), self.mesh.address()).encode();
        self.say(&frame(Kind::Hello, &hello)).await
    }

    /// Opens a stream and writes these bytes.
    async fn say(&self, bytes: &[u8]) -> SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// The code the driver closed the connection with; the driver itself must still be there.
    async fn closed(self) -> Option<u64> {
        let error = self.connection.closed().await;
        assert!(!self.mesh.inputs.is_closed());
        self.stop.cancel();
        if let ConnectionError::ApplicationClosed(close) = error { Some(close.error_code.into_inner()) } else { None }
    }

    /// Waits until the driver has a link to `node`.
    async fn linked(&self, node: u16) {
        while !self.mesh.shared.links.load().contains_key(&NodeId(node)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn code(code: CloseCode) -> Option<u64> {
    Some(code.code().into_inner())
}

/// A header that claims `len` bytes of body.
fn claim(kind: Kind, len: usize) -> BytesMut {
    let mut buf = BytesMut::new();
    put_header(&mut buf, kind, len);
    buf
}

#[tokio::test]
async fn a_hello_that_is_none_closes_the_connection() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &claim(Kind::Hello, 0xffff_ffff),
        &frame(Kind::Hello, b"short"),
        &frame(Kind::Lane, &[0]),
        &frame(Kind::Application, b"too early"),
    ] {
        let case = Case::new().await;
        let _stream = case.say(bytes).await;
        assert_eq!(case.closed().await, code(CloseCode::Malformed), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_after_the_greeting_time() {
    let case = Case::new().await;
    assert_eq!(case.closed().await, code(CloseCode::Malformed));
    let case = Case::new().await;
    let _stream = case.say(&claim(Kind::Hello, 100)).await;
    assert_eq!(case.closed().await, code(CloseCode::Malformed));
}

#[tokio::test]
async fn a_hello_for_another_node_than_the_certificate_is_refused() {
    let case = Case::new().await;
    let _stream = case.greet(4).await;
    assert_eq!(case.closed().await, code(CloseCode::WrongIdentity));
}

#[tokio::test]
async fn another_number_of_slots_is_refused_with_a_code_of_its_own() {
    let case = Case::new().await;
    let hello = Hello { slots: 1024, ..Hello::new(identity(9), case.mesh.address()) };
    let _stream = case.say(&frame(Kind::Hello, &hello.encode())).await;
    assert_eq!(case.closed().await, code(CloseCode::Incompatible));
}

#[tokio::test]
async fn bytes_that_are_no_frames_of_ours_close_the_link() {
    let lane = |body: &[u8]| [&frame(Kind::Lane, &[0])[..], body].concat();
    for bytes in [
        frame(Kind::Lane, &[LANES_BEYOND]).to_vec(),
        frame(Kind::Lane, &[]).to_vec(),
        frame(Kind::Hello, &[]).to_vec(),
        lane(&claim(Kind::Application, 0xffff_ffff)),
        lane(&frame(Kind::Open, &[])),
        lane(b"\0\0\0\0\x7f\x01\0\0"),
        lane(b"\0\0\0\0\x10\x09\0\0"),
    ] {
        let case = Case::new().await;
        let _control = case.greet(9).await;
        case.linked(9).await;
        let _stream = case.say(&bytes).await;
        assert_eq!(case.closed().await, code(CloseCode::Malformed), "{bytes:?}");
    }
}

const LANES_BEYOND: u8 = crate::LANES;

#[tokio::test]
async fn a_lane_opened_twice_closes_the_link() {
    let case = Case::new().await;
    let _control = case.greet(9).await;
    case.linked(9).await;
    let _first = case.say(&frame(Kind::Lane, &[1])).await;
    let _second = case.say(&frame(Kind::Lane, &[1])).await;
    assert_eq!(case.closed().await, code(CloseCode::Malformed));
}

#[tokio::test]
async fn gossip_that_is_none_is_counted_and_harms_nobody() {
    let case = Case::new().await;
    let _control = case.greet(9).await;
    case.linked(9).await;
    case.connection.send_datagram(Bytes::from_static(b"no gossip")).unwrap();
    let mut stream = case.say(&frame(Kind::Gossip, b"no gossip either")).await;
    stream.finish().unwrap();
    let (mut send, mut recv) = case.connection.open_bi().await.unwrap();
    send.write_all(&frame(Kind::PushPull, b"\xff\xff no roster")).await.unwrap();
    send.finish().unwrap();
    assert_eq!(recv.read_to_end(100).await.unwrap(), frame(Kind::Refused, &[]));
    while case.mesh.stats().gossip_malformed < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(case.connection.close_reason().is_none());
    case.stop.cancel();
}

#[tokio::test]
async fn a_question_beyond_the_limit_is_refused() {
    let case = Case::new().await;
    let _control = case.greet(9).await;
    case.linked(9).await;
    let (mut send, mut recv) = case.connection.open_bi().await.unwrap();
    let question = frame(Kind::Request, &vec![0; crate::MAX_REQUEST + 100]);
    // The driver may stop reading before all of it went out.
    let _ = send.write_all(&question).await;
    assert_eq!(recv.read_to_end(100).await.unwrap(), frame(Kind::Refused, &[]));
    case.stop.cancel();
}

#[tokio::test]
async fn an_earlier_process_of_a_linked_node_is_told_that_it_is_superseded() {
    let case = Case::new().await;
    let _control = case.greet(9).await;
    case.linked(9).await;
    let earlier = Identity { generation: 0, ..identity(9) };
    let connection = case._endpoint.connect(case.mesh.address(), "5.starling").unwrap().await.unwrap();
    let mut stream = connection.open_uni().await.unwrap();
    let hello = Hello::new(earlier, case.mesh.address()).encode();
    stream.write_all(&frame(Kind::Hello, &hello)).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = connection.closed().await else { panic!("not closed by the peer") };
    assert_eq!(close.error_code, CloseCode::Superseded.code());
    assert!(case.connection.close_reason().is_none());
    case.stop.cancel();
}
