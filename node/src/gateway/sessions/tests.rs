//! Tests of sessions with a real WebSocket's bytes on a real socket.

use std::{
    io::Read,
    net::{TcpListener, TcpStream as StdStream},
};

use super::*;
use crate::{app::gateway_alone, clock, handler::NoHandler};

/// Both ends of a connection; the client's waits at most a second for bytes, the server's is known to take some.
async fn pair() -> (TcpStream, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    let server = TcpStream::from_std(server).unwrap();
    server.writable().await.unwrap();
    (server, client)
}

#[tokio::test]
async fn the_answer_to_a_probe_leaves_before_the_turn_ends() {
    let mut gateway = gateway_alone("", NoHandler).unwrap();
    let now = clock::now();
    assert!(gateway.context.admit());
    let (reply, _opened) = oneshot::channel();
    gateway.open_polling([7; 12], reply, now);
    let (sid, key) = gateway.sids.iter().map(|(sid, key)| (*sid, *key)).next().unwrap();
    let (server, mut client) = pair().await;
    gateway.adopt_websocket(&sid, server, Bytes::new(), now);
    gateway.handle_websocket_message(key, Message::Text("2probe".into()), now);
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"\x81\x063probe");
}
