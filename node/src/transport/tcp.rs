//! A client's TCP connection below its WebSocket, with TLS over it or without, behind the same calls that never wait.
//!
//! Invariants:
//! - bytes count as written only when all that became of them is the kernel's: ciphertext that waits is a blocked socket;
//! - whoever was told that part of his bytes was not written offers that part again, as the next bytes of all: some of it
//!   is encrypted already and is skipped then;
//! - what waits inside is bounded: 64 KiB of ciphertext on the way out, one record on the way in;
//! - a plain socket costs what it cost without this type: one look at an absent pointer.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    task::{Context, Poll},
};

use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::rustls::ServerConnection;

/// See the module.
#[derive(Debug)]
pub(crate) struct Tcp {
    socket: TcpStream,
    tls: Option<Box<RefCell<Tls>>>,
}

/// One on its way to another thread.
#[derive(Debug)]
pub(crate) struct Detached {
    socket: std::net::TcpStream,
    tls: Option<Box<RefCell<Tls>>>,
}

impl Tcp {
    /// Bytes as they are.
    pub(crate) fn plain(socket: TcpStream) -> Tcp {
        Tcp { socket, tls: None }
    }

    /// Two ends of a connection inside this process: ours, and one for whoever carries its bytes elsewhere.
    ///
    /// # Errors
    /// The system has no descriptors.
    pub(crate) fn pair() -> io::Result<(Tcp, UnixStream)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        // Only what all stream sockets do alike is done with it: read, write, wait, shut down.
        let ours = std::net::TcpStream::from(OwnedFd::from(ours));
        Ok((Tcp::plain(TcpStream::from_std(ours)?), UnixStream::from_std(theirs)?))
    }

    /// Bytes through a TLS connection whose handshake is over.
    pub(crate) fn tls(socket: TcpStream, connection: ServerConnection) -> Tcp {
        // Nobody knows here whether decrypted bytes are left of the request: the first read tells.
        let tls = Tls { connection, encrypted: 0, decrypted: true };
        Tcp { socket, tls: Some(Box::new(RefCell::new(tls))) }
    }

    /// Writes what the kernel takes now.
    ///
    /// # Errors
    /// `WouldBlock` when that is nothing; any other error ends it.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(bytes),
            Some(tls) => tls.borrow_mut().write(&self.socket, bytes),
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; any other error ends it.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_read(buffer),
            Some(tls) => tls.borrow_mut().read(&self.socket, buffer),
        }
    }

    /// Whether a read may bring something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_ref().is_some_and(|tls| tls.borrow().decrypted) {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    /// Completes when a read may bring something. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_read_ready(cx)).await
    }

    /// Completes when the kernel takes bytes. Cancel safe.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Tells the peer that nothing follows.
    pub(crate) fn shut_down_write(&self) {
        if let Some(tls) = &self.tls {
            tls.borrow_mut().say_goodbye(&self.socket);
        }
        let _ = SockRef::from(&self.socket).shutdown(Shutdown::Write);
    }

    /// Takes it off this thread.
    ///
    /// # Errors
    /// The runtime does not let go of the socket; it is closed.
    pub(crate) fn detach(self) -> io::Result<Detached> {
        Ok(Detached { socket: self.socket.into_std()?, tls: self.tls })
    }
}

impl Detached {
    /// Brings it to this thread.
    ///
    /// # Errors
    /// The runtime does not take the socket; it is closed.
    pub(crate) fn attach(self) -> io::Result<Tcp> {
        Ok(Tcp { socket: TcpStream::from_std(self.socket)?, tls: self.tls })
    }
}

/// TLS over a connection.
#[derive(Debug)]
struct Tls {
    connection: ServerConnection,
    /// Of the bytes that will be offered next, so many are encrypted already and wait for the kernel.
    encrypted: usize,
    /// There may be decrypted bytes to read.
    decrypted: bool,
}

impl Tls {
    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let (mut written, mut encrypted) = (0, self.encrypted);
        loop {
            if !self.push(socket)? {
                self.encrypted = encrypted - written;
                return if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) };
            }
            written = encrypted;
            if written >= bytes.len() {
                self.encrypted = written - bytes.len();
                return Ok(bytes.len());
            }
            let taken = self.connection.writer().write(&bytes[encrypted..])?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            encrypted += taken;
        }
    }

    /// Gives ciphertext to the kernel; whether it took all.
    fn push(&mut self, socket: &TcpStream) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Kernel(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn read(&mut self, socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.decrypted = false,
                // An end without goodbye: the WebSocket's own closing tells whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            self.connection.read_tls(&mut Kernel(socket))?;
            let state = self.connection.process_new_packets();
            // What TLS itself answers, an alert for example. If it has to wait it leaves before the next write.
            let pushed = self.push(socket);
            self.decrypted = state.map_err(io::Error::other)?.plaintext_bytes_to_read() > 0;
            pushed?;
        }
    }

    fn say_goodbye(&mut self, socket: &TcpStream) {
        self.connection.send_close_notify();
        // The last words of a connection that is given up; there is nobody to tell that they did not leave.
        let _ = self.push(socket);
    }
}

/// A socket as the TLS library wants it.
struct Kernel<'a>(&'a TcpStream);

impl Read for Kernel<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Kernel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    /// TLS between two sockets: our side as the server, the other as a client that trusts us.
    pub(crate) async fn encrypted(near: TcpStream, far: TcpStream) -> (Tcp, client::TlsStream<TcpStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let server =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let (acceptor, connector) = (TlsAcceptor::from(Arc::new(server)), TlsConnector::from(Arc::new(client)));
        let name = ServerName::try_from("localhost").unwrap();
        let (near, far) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        let (socket, connection) = near.unwrap().into_inner();
        (Tcp::tls(socket, connection), far.unwrap())
    }

    async fn pair() -> (Tcp, client::TlsStream<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        SockRef::from(&near).set_send_buffer_size(8 * 1024).unwrap();
        encrypted(near, far).await
    }

    async fn read(tcp: &Tcp, buffer: &mut [u8]) -> usize {
        loop {
            tcp.readable().await.unwrap();
            match tcp.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn what_came_in_one_record_can_be_read_in_pieces_without_waiting_for_the_next() {
        let (near, mut far) = pair().await;
        far.write_all(b"abcdef").await.unwrap();
        let mut buffer = [0; 2];
        for piece in [b"ab", b"cd", b"ef"] {
            assert_eq!(read(&near, &mut buffer).await, 2);
            assert_eq!(&buffer, piece);
        }
        far.shutdown().await.unwrap();
        assert_eq!(read(&near, &mut buffer).await, 0);
    }

    #[tokio::test]
    async fn bytes_count_as_written_when_the_kernel_has_them_and_never_before() {
        let (near, mut far) = pair().await;
        let sent: Vec<u8> = (0..4_000_000u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let mut at = 0;
        while let Ok(written) = near.try_write(&sent[at..]) {
            at += written;
        }
        assert!(at < sent.len(), "the kernel took everything: nothing was tested");
        let write = async {
            while at < sent.len() {
                near.writable().await.unwrap();
                // Offered in another cut than before: what is encrypted already is skipped all the same.
                let until = sent.len().min(at + 70_000);
                at += near.try_write(&sent[at..until]).unwrap_or(0);
            }
            near.shut_down_write();
        };
        let read = async {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        };
        let (got, ()) = tokio::join!(read, write);
        assert!(got == sent, "bytes were lost, repeated or reordered");
    }

    #[tokio::test]
    async fn a_connection_that_changes_its_thread_goes_on_where_it_was() {
        let (near, mut far) = pair().await;
        far.write_all(b"one").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read(&near, &mut buffer).await, 3);
        let near = near.detach().unwrap().attach().unwrap();
        near.writable().await.unwrap();
        assert_eq!(near.try_write(b"two").unwrap(), 3);
        far.read_exact(&mut buffer[..3]).await.unwrap();
        assert_eq!(&buffer[..3], b"two");
    }
}
