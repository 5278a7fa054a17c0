//! A peer that speaks the mesh's protocol by hand: it holds whatever key it is given, and says whatever it is told.
//!
//! Invariants: nothing here comes from the crate's own encoders, so these bytes are a second opinion on the layout; only the
//! secret of the authority does (`ClusterKey::derive`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh::ClusterKey;
use quinn::{
    ClientConfig, Connecting, Connection, ConnectionError, Endpoint, SendStream,
    crypto::rustls::QuicClientConfig,
    rustls::{
        self,
        client::danger,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
        version::TLS13,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SerialNumber,
};

pub(crate) const HELLO: u8 = 1;
pub(crate) const LANE: u8 = 3;
pub(crate) const GOSSIP: u8 = 4;
pub(crate) const REQUEST: u8 = 5;
pub(crate) const PUSH_PULL: u8 = 8;
pub(crate) const PIPE: u8 = 9;
pub(crate) const PIECE: u8 = 0x0a;
pub(crate) const TOOK: u8 = 0x0b;
pub(crate) const APPLICATION: u8 = 0x10;

/// One frame: `len u32 | type u8 | version u8 | flags u16 | body`.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    raw(u32::try_from(body.len()).unwrap(), kind, 1, 0, body)
}

/// A frame whose header says what it likes.
pub(crate) fn raw(len: u32, kind: u8, version: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    [&len.to_be_bytes()[..], &[kind, version], &flags.to_be_bytes(), body].concat()
}

/// The body of a hello of protocols `oldest` to `newest`, from `node` at 127.0.0.1:1.
pub(crate) fn hello(oldest: u16, newest: u16, slots: u16, node: u16, generation: u64) -> Vec<u8> {
    let local = |port: u16| [&[4][..], &port.to_be_bytes(), &[127, 0, 0, 1]].concat();
    let head = [oldest, newest, slots].map(u16::to_be_bytes).concat();
    let who = [&node.to_be_bytes()[..], &generation.to_be_bytes(), &[0, 0, 0]].concat();
    [&head[..], &[4], &local(2), &who, &local(1), &[4], b"evil"].concat()
}

/// An endpoint with the certificate of a node.
pub(crate) struct Evil {
    endpoint: Endpoint,
    runtime: tokio::runtime::Runtime,
}

impl Evil {
    /// With the certificate of `node`, signed by what follows from `key`.
    pub(crate) fn new(key: &ClusterKey, node: u16) -> Evil {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(client(key, node));
        drop(_inside);
        Evil { endpoint, runtime }
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), work).await.unwrap() })
    }

    /// A connection whose handshake has begun.
    pub(crate) fn dial(&self, addr: SocketAddr) -> Connecting {
        let _inside = self.runtime.enter();
        self.endpoint.connect(addr, "any.starling").unwrap()
    }

    /// A connection whose handshake is over.
    pub(crate) fn connect(&self, addr: SocketAddr) -> Connection {
        let dialled = self.dial(addr);
        self.run(async { dialled.await.unwrap() })
    }

    /// A connection that greeted as `node`, and its control stream.
    pub(crate) fn greet(&self, addr: SocketAddr, node: u16, generation: u64) -> (Connection, SendStream) {
        let connection = self.connect(addr);
        let control = self.say(&connection, &frame(HELLO, &hello(1, 1, 4096, node, generation)));
        (connection, control)
    }

    /// Opens a stream and writes these bytes; the connection may be closed for it meanwhile.
    pub(crate) fn say(&self, connection: &Connection, bytes: &[u8]) -> SendStream {
        self.run(async {
            let mut stream = connection.open_uni().await.unwrap();
            let _ = stream.write_all(bytes).await;
            stream
        })
    }

    /// The code and words a connection is closed with.
    pub(crate) fn closed(&self, connection: &Connection) -> (u64, String) {
        let error = self.run(connection.closed());
        let ConnectionError::ApplicationClosed(close) = error else { panic!("{error}") };
        (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
    }
}

/// What a dialling side of the mesh shows, except that it trusts any server.
fn client(key: &ClusterKey, node: u16) -> ClientConfig {
    let wrapped =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &key.derive("mesh authority")];
    let wrapped = PrivatePkcs8KeyDer::from(wrapped.concat());
    let authority_key = KeyPair::from_pkcs8_der_and_sign_algo(&wrapped, &PKCS_ED25519).unwrap();
    let mut authority = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("starling mesh authority {}", key.name()));
    authority.distinguished_name = name;
    authority.serial_number = Some(SerialNumber::from(1));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let leaf_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let leaf = CertificateParams::new(vec![format!("{node}.starling"), "any.starling".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, &authority_key)).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider.signature_verification_algorithms)))
        .with_client_auth_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"starling-mesh/1".to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// Takes any server.
#[derive(Debug)]
struct Trusting(rustls::crypto::WebPkiSupportedAlgorithms);

impl danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<danger::ServerCertVerified, rustls::Error> {
        Ok(danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        Ok(danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, leaf, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}
